"""The floors of Table 1, which know little of a direction."""

import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from introspect_utils.features.directions import Directions
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.scores.judge import Judge
from introspect_utils.scores.neighbours import nearest


def best_constant(
    labels: Sequence[str], judge: Judge, seed: int, candidates: int = 50, rated: int = 200
) -> str:
    """The best description for all directions alike: of the most frequent training `labels`
    (`candidates` of them) what the judge rates highest against `rated` labels drawn at random. What
    it does not rate does not count."""
    texts = [text for text, _ in Counter(labels).most_common(candidates)]
    drawn = random.Random(seed).sample(list(labels), min(rated, len(labels)))
    ratings = np.array(judge.rate([(text, label) for text in texts for label in drawn]))
    table = pd.DataFrame(ratings.reshape(len(texts), -1), index=texts)
    return table.mean(axis=1).dropna().idxmax()


def echo(directions: Directions) -> list[str | None]:
    """The token that v was taken from, as "the word 'x'": of ACT and dACT, None for features."""
    tokens = [re.search(r"<<<(.*?)>>>", source, re.DOTALL) for source in directions.sources]
    return [_words(token[1]) if token else None for token in tokens]


def lens(lm: LanguageModel, directions: Directions) -> list[str | None]:
    """The nearest input embedding of a feature v and the token that v raises most at the output, as
    a description; None for ACT and dACT."""
    vectors = directions.vectors.to(lm.device)
    inputs, outputs = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    near = nearest(inputs.weight, vectors)[0].tolist()
    raised = nearest(outputs.weight, vectors, "dot")[0].tolist()
    return [
        _words(*lm.tokenizer.batch_decode([[a], [b]])) if data == "sae" else None
        for data, a, b in zip(directions.data, near, raised, strict=True)
    ]


def _words(*tokens: str) -> str:
    words = list(dict.fromkeys(f"'{token.strip()}'" for token in tokens))
    return f"the word {words[0]}" if len(words) == 1 else f"the words {' and '.join(words)}"
