"""Facts (subject, relation, object), and the counterfactual pairs of section 5.1 and E.2 made of
them.

The packaged facts (`data/facts.json`, notices in `data/NOTICE`) need no network. CounterFact (Meng
et al. 2022) is read from its JSON file or from the hub.
"""

import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml

from introspect_utils.data.hub import hub_rows
from introspect_utils.data.splits import normalised
from introspect_utils.settings.errors import UserError

PACKAGED = Path(__file__).parent / "facts.json"  # {relation: [[subject, object], ...]}
FILES = (".json", ".jsonl")
UNKNOWN = "unknown"  # the last answer option (E.2)
N_ANSWERS = 5  # answer options beside "unknown" (E.2)
TEMPLATES = yaml.safe_load(PACKAGED.with_name("templates.yaml").read_text("utf-8"))


@dataclass(frozen=True, order=True)
class Fact:
    """One fact. `prompt` is the text before the object and contains the subject; no string begins
    or ends with a space.

    `start` is where the template put the subject: words like it may stand before. Where there is no
    template it is the first place that holds the subject as whole words.
    """

    relation: str
    subject: str
    object: str
    prompt: str
    start: int = -1

    def __post_init__(self) -> None:
        if self.start < 0:
            word = re.search(rf"(?<!\w){re.escape(self.subject)}(?!\w)", self.prompt)
            start = word.start() if word else self.prompt.find(self.subject)
            object.__setattr__(self, "start", start)

    @property
    def template(self) -> str:
        """The prompt with "{}" for the subject. CounterFact words one relation in several ways."""
        return f"{self.prompt[: self.start]}{{}}{self.prompt[self.start + len(self.subject) :]}"


@dataclass(frozen=True)
class FactPair:
    """x and x' (section 2.3): the same words around another subject, with another object.

    `options` are the answers both prompts list (E.2): five of the relation in random order, both
    objects among them, then "unknown".
    """

    original: Fact
    counterfactual: Fact
    options: tuple[str, ...]


def load_facts(source: str) -> list[Fact]:
    """Facts from "packaged", the path of a CounterFact file (JSON or JSON lines, records nested or
    flat), or a data set on the hub.

    Raises `UserError` when there is no such source or a record is malformed (its number is named).
    """
    if source == "packaged":
        relations = json.loads(PACKAGED.read_text("utf-8")).items()
        return [_packaged(relation, *pair) for relation, pairs in relations for pair in pairs]
    file = source.endswith(FILES)
    rows = _file_rows(Path(source)) if file else hub_rows("facts", source, "train")
    facts = [_counterfact(row, f"{source}, record {number}") for number, row in enumerate(rows)]
    return list(dict.fromkeys(facts))


def _packaged(relation: str, subject: str, answer: str) -> Fact:
    subject = subject[0].upper() + subject[1:]  # it begins the sentence
    return Fact(relation, subject, answer, TEMPLATES[relation].format(subject))


def _file_rows(path: Path) -> list[dict]:
    """The records of a JSON list, or of JSON lines."""
    try:
        data = path.read_bytes()
        text = data.decode(json.detect_encoding(data))
    except FileNotFoundError:
        raise UserError(
            f"no facts file {path}: give the path of a CounterFact JSON file, a hub id, or "
            "'packaged'"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8: save it as UTF-8") from None
    try:
        rows = json.loads(text, object_pairs_hook=_record)
    except ValueError:
        rows = _json_lines(path, text)
    rows = [rows] if isinstance(rows, dict) else rows  # a single line
    if not (rows and isinstance(rows, list)):
        raise UserError(f"{path} must hold a list of CounterFact records, and holds no records")
    return rows


def _record(fields: list[tuple[str, object]]) -> dict:
    """The fields of a JSON object. Raises `UserError` for one that is given twice."""
    record = dict(fields)
    if len(record) < len(fields):
        twice = next(key for key, n in Counter(key for key, _ in fields).items() if n > 1)
        raise UserError(f"a record of the facts has {twice!r} twice: {fields!r:.300}; keep one")
    return record


def _json_lines(path: Path, text: str) -> list[dict]:
    """The records of `text`, one a line. Lines may end as on any system, and begin with the mark of
    files that were joined."""
    rows = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip("\ufeff \t")
        try:
            rows += [json.loads(line, object_pairs_hook=_record)] if line else []
        except ValueError as error:
            raise UserError(
                f"{path} is not JSON (line {number}: {error}): download it again"
            ) from None
    return rows


def _counterfact(row: dict, where: str) -> Fact:
    """A CounterFact record: nested as published by the authors of ROME, or flat as
    `NeelNanda/counterfact-tracing`."""
    try:
        if nested := "requested_rewrite" in row:
            row = row["requested_rewrite"]
            row = row | {"target_true": row["target_true"]["str"]}
        keys = ("subject", "target_true", "prompt", "relation_id")
        # subject and target carry a leading space in the flat format; a letter is written one way
        texts = (unicodedata.normalize("NFC", row[key].strip()) for key in keys)
        subject, answer, prompt, relation = texts
        if nested and prompt.count("{}") != 1:
            raise UserError(
                f'{where}: the prompt {prompt!r} must hold "{{}}" once, for the subject'
            )
        start = prompt.find("{}") if nested else -1
        prompt = prompt.replace("{}", subject) if nested else prompt
        fact = Fact(relation, subject, answer, prompt, start)
    except (KeyError, AttributeError, TypeError) as error:
        wrong = f"no field {error}" if isinstance(error, KeyError) else "a field is not text"
        raise UserError(
            f"{where}: {wrong}; neither the nested nor the flat CounterFact format"
        ) from None
    if not (subject and answer and subject in prompt):
        raise UserError(
            f"{where}: subject {subject!r} or object {answer!r} is empty, or prompt {prompt!r} "
            "lacks the subject"
        )
    return fact


def split_subjects(
    facts: list[Fact], test_share: float, seed: int
) -> tuple[list[Fact], list[Fact]]:
    """(train, test) facts that share no subject, however spelled: one with facts in several
    relations stays on one side with all of them.

    The share holds within the subjects of each relation (the first one, for a subject of several).
    """
    subject_of = {fact: normalised(fact.subject) for fact in facts}
    # of several relations the first one
    relation_of = {subject_of[fact]: fact.relation for fact in sorted(facts, reverse=True)}
    subjects_of = defaultdict(list)
    for subject, relation in sorted(relation_of.items()):
        subjects_of[relation].append(subject)
    rng, test = random.Random(seed), set()
    for _, subjects in sorted(subjects_of.items()):
        test.update(rng.sample(subjects, round(test_share * len(subjects))))
    parts = [], []
    for fact in facts:
        parts[subject_of[fact] in test].append(fact)
    return parts


def sample_facts(facts: list[Fact], n: int, seed: int) -> list[Fact]:
    """n facts at random, relations in turn, so that the large ones do not dominate."""
    by_relation = defaultdict(list)
    for fact in random.Random(seed).sample(facts, len(facts)):
        by_relation[fact.relation].append(fact)
    return list(islice(_in_turn(by_relation.values()), n))


def make_pairs(
    facts: list[Fact], n: int, seed: int, answers: list[Fact] | None = None
) -> list[FactPair]:
    """Up to n different pairs, relations in turn, and within a relation objects in turn, so that no
    common one dominates.

    Both facts of a pair come from `facts`; the three other options from `answers` (by default
    `facts` too), for example all facts where `facts` are the few that the target knows. A relation
    with fewer than five different objects there is left out. Fewer than n come back only when there
    are no more. A smaller n with the same seed gives the beginning of a larger.
    """
    rng = random.Random(seed)
    objects_of = defaultdict(set)
    for fact in answers or facts:
        objects_of[fact.relation].add(fact.object)
    by_template = defaultdict(lambda: defaultdict(list))  # relation -> template -> facts
    for fact in sorted(set(facts)):
        by_template[fact.relation][fact.template].append(fact)

    def of_relation(relation: str) -> Iterator[FactPair]:
        objects = sorted(objects_of[relation])
        for original, counterfactual in _in_turn(
            _pairs(group, rng) for group in by_template[relation].values()
        ):
            both = [original.object, counterfactual.object]
            others = [answer for answer in rng.sample(objects, N_ANSWERS) if answer not in both]
            options = both + others[: N_ANSWERS - 2]
            rng.shuffle(options)
            yield FactPair(original, counterfactual, (*options, UNKNOWN))

    relations = [relation for relation in by_template if len(objects_of[relation]) >= N_ANSWERS]
    return list(islice(_in_turn(of_relation(relation) for relation in relations), n))


def _pairs(facts: list[Fact], rng: random.Random) -> Iterator[tuple[Fact, Fact]]:
    """Every (x, x') of facts with one template, each once: the object of x goes round, then x, then
    the object of x'."""
    by_object = defaultdict(list)
    for fact in rng.sample(facts, len(facts)):
        by_object[fact.object].append(fact)

    def of_fact(original: Fact) -> Iterator[tuple[Fact, Fact]]:
        others = [same for answer, same in by_object.items() if answer != original.object]
        shuffled = [rng.sample(same, len(same)) for same in rng.sample(others, len(others))]
        yield from (
            (original, other) for other in _in_turn(shuffled) if other.subject != original.subject
        )

    return _in_turn(_in_turn(of_fact(fact) for fact in same) for same in by_object.values())


def _in_turn(iterables: Iterable[Iterable]) -> Iterator:
    """One item of each in turn, until all are exhausted."""
    active = [iter(iterable) for iterable in iterables]
    while active:
        for iterator in list(active):
            try:
                yield next(iterator)
            except StopIteration:
                active.remove(iterator)
