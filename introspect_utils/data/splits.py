"""Training and test rows are about different things, however they are spelled."""

import re
import unicodedata
from collections.abc import Hashable, Iterable

from introspect_utils.settings.errors import UserError

MARK = "\0"  # put before punctuation; no text holds it, since what nobody sees is taken out


class _Spelling(dict):
    """For `str.translate`: what becomes of a character, looked up once."""

    def __missing__(self, code: int) -> str:
        char, kind = chr(code), unicodedata.category(chr(code))
        if char.isspace():
            self[code] = " "
        elif kind[0] == "C" or char in "'’‘ʼ`´":
            self[code] = ""
        else:  # marks of formulas and names (3/4, C#) are no punctuation
            self[code] = MARK + char if kind[0] == "P" and char not in "*/%#&@\\" else char
        return self[code]


SPELLING = _Spelling()


def normalised(text: str) -> str:
    """What a text says, for comparisons: composed or decomposed letters, full or half width, case,
    white space, invisible characters and punctuation but before digits make no difference (accents
    do)."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    marked = text.translate(SPELLING)
    bare = re.sub(MARK + r".(?!\d)", " ", marked).replace(MARK, "")
    return " ".join(bare.split()) or " ".join(marked.replace(MARK, "").split())


def check_disjoint(
    train: Iterable[Hashable], test: Iterable[Hashable], what: str, where: str
) -> None:
    """Training and test rows share no `what`: a question, a fact, a direction; texts are compared
    as `normalised`. `where` they come from is for the error."""
    shared = [
        {normalised(item) if isinstance(item, str) else item: item for item in part}
        for part in (train, test)
    ]
    both = shared[0].keys() & shared[1].keys()
    if both:
        examples = (f"{shared[0][key]!r:.80} and {shared[1][key]!r:.80}" for key in both)
        shown = f", for example {min(examples)}" if isinstance(next(iter(both)), str) else ""
        raise UserError(
            f"{where}: {len(both)} of {len(shared[1])} {what}s of the test rows stand among the "
            f"training rows too{shown}: scores would measure memory; split the data again"
        )
