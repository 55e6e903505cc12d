"""What is known of English words and punctuation marks: base forms, names and classes."""

import json
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np

UNREADABLE = "\ufffd"  # what a tokenizer decodes a part of a character to
WORD_LISTS = Path(__file__).parent.parent / "data/categories.json"  # scripts/build_categories.py
# Mark -> name; phrase -> its characters; phrase -> pattern of a whole word; and what each kind
# of rule (`candidates`) loses on the scoring half of the exemplars beyond what the simplest lose:
# the more rules of a kind, the easier one fits by chance. Measured on SmolLM2 with four top and two
# random exemplars in either half.
MARKS, MARK_CLASSES, SHAPES, COST = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
).values()
# endings, and the part of speech of the base form; for words in no list some more
ENDINGS = [("ing", "verbs"), ("ed", "verbs"), ("s", "nouns")]
OF_UNKNOWN = [("ing", "nouns"), ("ed", "nouns"), ("s", "verbs")]
OF_UNKNOWN += [("er", "adjectives"), ("est", "adjectives")]


@cache
def word_lists() -> dict[str, dict[str, set[str]]]:
    """The tables "classes" (function words), "categories", "parts" (phrase -> words) and
    "irregular" (base form -> other forms)."""
    tables = json.loads(WORD_LISTS.read_text("utf-8"))
    return {
        name: {phrase: set(words.split()) for phrase, words in table.items()}
        for name, table in tables.items()
    }


@cache
def _irregular() -> dict[str, str]:
    """The base form of every irregular form."""
    return {form: base for base, forms in word_lists()["irregular"].items() for form in forms}


@cache
def lemma(word: str) -> str:
    """The base form of a lower-case English word ("went" -> "go"); the word itself if unknown."""
    if word in _irregular():
        return _irregular()[word]
    parts = word_lists()["parts"]
    # WordNet also lists "making" and "used" by themselves; here they are forms of a verb
    listed = any(word in words for words in parts.values())
    for ending, part in ENDINGS if listed else ENDINGS + OF_UNKNOWN:
        if word.endswith(ending) and not word.endswith(("ss", "eed")):
            for base in _stems(word.removesuffix(ending), ending):
                if len(base) > 1 and base in parts[part]:
                    return base
    return word


def _stems(stem: str, ending: str) -> list[str]:
    """Words that an ending may have been added to, the likeliest first."""
    if ending == "s":
        return [stem, stem.removesuffix("e"), re.sub("ie$", "y", stem)]
    doubled = stem[:-1] if stem[-1:] == stem[-2:-1] else stem
    first = [stem, stem + "e"]  # singing; making is the other way round
    if not re.search("[^aeiou]{2}$|[aeiou]{2}.$", stem):
        first.reverse()
    return [*first, doubled, re.sub("i$", "y", stem)]


def inflections(word: str) -> list[str]:
    """Phrases for the grammatical forms that a lower-case word is most often seen in."""
    parts, base = word_lists()["parts"], lemma(word)
    phrases = [part for part, words in parts.items() if word in words]
    if base == word:
        return phrases + ["verbs in their base form"] * ("verbs" in phrases)
    if word.endswith("ing") or base in parts["verbs"] and word.endswith("s"):
        return [*phrases, "verbs", f"verbs ending in '{'-s' if word.endswith('s') else '-ing'}'"]
    if word.endswith("ed") or base in parts["verbs"]:
        return [*phrases, "verbs", "verbs in the past tense"]
    return [*phrases, *(["nouns", "plural nouns"] if base in parts["nouns"] else ["adjectives"])]


def mark_name(mark: str) -> str:
    """A punctuation mark in words: `)."` -> "closing brackets followed by full stops"."""
    names = dict.fromkeys(MARKS.get(sign, f"the character '{sign}'") for sign in mark)
    runs = {"...": "ellipses", "--": "dashes", "---": "dashes"}
    return runs.get(mark) or " followed by ".join(list(names)[:2])


def word_classes(words: list[str]) -> tuple[list[str], list[str], np.ndarray]:
    """(phrases, kinds, which words are in which [len(words), C]) of all classes of words."""
    lists, entries = word_lists(), defaultdict(set)  # entries: word or base form -> its classes
    for phrase, listed in (lists["classes"] | lists["categories"]).items():
        for entry in listed:
            entries[entry].add(phrase)
    closed = set().union(*lists["classes"].values())
    of_words = [_phrases(word, entries, closed) for word in words]
    names = sorted(set().union(*of_words))
    column = {phrase: i for i, phrase in enumerate(names)}
    member = np.zeros((len(words), len(names)), dtype=bool)
    for row, phrases in enumerate(of_words):
        member[row, [column[phrase] for phrase in phrases]] = True
    kinds = dict.fromkeys(lists["classes"], "class")
    kinds |= dict.fromkeys(lists["categories"], "category")
    kinds |= dict.fromkeys([*MARK_CLASSES, "punctuation marks"], "mark")
    kinds |= dict.fromkeys(SHAPES, "shape")
    return names, [kinds.get(phrase, "part") for phrase in names], member


def _phrases(word: str, entries: dict[str, set[str]], closed: set[str]) -> set[str]:
    """The classes of a word, `entries` those of listed words; function words are `closed`."""
    lower = word.lower()
    forms = {word.title() if word.isupper() else word, lower}
    phrases = {phrase for phrase, pattern in SHAPES.items() if re.fullmatch(pattern, word, re.S)}
    if lower in closed:
        phrases.add("function words")
    else:
        forms.add(lemma(lower))
        phrases |= set(inflections(lower)) if lower.isalpha() else set()
    if word and not any(character.isalnum() for character in word):
        marks = (phrase for phrase, signs in MARK_CLASSES.items() if set(word) & set(signs))
        phrases |= {"punctuation marks", *marks}
    return phrases.union(*(entries.get(form, ()) for form in forms))
