"""What is known of English words and of punctuation marks: base forms, names, and the classes that
a word is in."""

import json
import re
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

WORD_LISTS = (
    Path(__file__).parent.parent / "data" / "categories.json"
)  # rebuilt by scripts/build_categories.py
UNREADABLE = "\ufffd"  # what a tokenizer decodes a part of a character to
MARKS = {
    ",": "commas",
    ".": "full stops",
    ";": "semicolons",
    ":": "colons",
    "?": "question marks",
    "!": "exclamation marks",
    '"': "quotation marks",
    "“": "opening quotation marks",
    "”": "closing quotation marks",
    "'": "apostrophes",
    "’": "apostrophes",
    "‘": "opening quotation marks",
    "(": "opening brackets",
    ")": "closing brackets",
    "[": "opening square brackets",
    "]": "closing square brackets",
    "-": "hyphens",
    "–": "dashes",
    "—": "dashes",
    "/": "slashes",
    "&": "ampersands",
    "%": "percent signs",
    "$": "dollar signs",
    "£": "pound signs",
    "#": "hash signs",
    "*": "asterisks",
    "+": "plus signs",
    "=": "equals signs",
    "°": "degree signs",
    "…": "ellipses",
    "\n": "line breaks",
    " ": "spaces",
}
MARK_CLASSES = {  # phrase -> the characters of which the mark has one
    "marks that end a sentence": ".?!",
    "quotation marks": "\"“”‘'’",
    "brackets": "()[]{}",
    "hyphens and dashes": "-–—",
    "line breaks": "\n",
    "currency signs": "$£€¥",
    "mathematical signs": "+=<>×%°^",
}
SHAPES = {  # phrase -> pattern of a whole word, case-sensitive
    "capitalised words": r"[A-Z].*",
    "words in capital letters": r"[A-Z]{2,}",
    "single capital letters": r"[B-HJ-Z]",
    "long words": r"[A-Za-z]{10,}",
    "numbers": r"\d+",
    "single digits": r"\d",
    "two-digit numbers": r"\d\d",
    "large numbers": r"\d{3,}",
    "years": r"1[0-9]\d\d|20\d\d",
    "foreign letters and special symbols": rf".*([^\W\d_a-zA-Z]|{UNREADABLE}).*",
}
ALWAYS = (
    ("ing", "verbs"),
    ("ed", "verbs"),
    ("s", "nouns"),
)  # endings, and of what they make other forms
OF_UNKNOWN = (
    ("ing", "nouns"),
    ("ed", "nouns"),
    ("s", "verbs"),
    ("er", "adjectives"),
    ("est", "adjectives"),
)


@cache
def word_lists() -> dict[str, dict[str, list[str]]]:
    """The tables "classes" (function words), "categories", "parts" (phrase -> words), "irregular"
    (base form -> other forms)."""
    tables = json.loads(WORD_LISTS.read_text("utf-8"))
    return {
        name: {phrase: words.split() for phrase, words in table.items()}
        for name, table in tables.items()
    }


@cache
def _bases() -> tuple[dict[str, str], dict[str, set[str]]]:
    """(base form of every irregular form, words of every part of speech)."""
    lists = word_lists()
    irregular = {form: base for base, forms in lists["irregular"].items() for form in forms}
    return irregular, {part: set(words) for part, words in lists["parts"].items()}


@cache
def lemma(word: str) -> str:
    """The base form of a lower-case English word: "went" -> "go", "cities" -> "city"; the word
    itself if none is known."""
    irregular, parts = _bases()
    if word in irregular:
        return irregular[word]
    # WordNet also has "making" and "used", for rare uses of their own: these are forms of a verb
    # all the same.
    known = any(word in words for words in parts.values())
    for ending, part in ALWAYS if known else ALWAYS + OF_UNKNOWN:
        if word.endswith(ending) and not word.endswith(("ss", "eed")):
            for base in _stems(word.removesuffix(ending), ending):
                if len(base) > 1 and base in parts[part]:
                    return base
    return word


def _stems(stem: str, ending: str) -> list[str]:
    """What may have stood before the ending, likeliest first."""
    if ending == "s":
        return [stem, stem.removesuffix("e"), re.sub("ie$", "y", stem)]
    doubled = stem[:-1] if stem[-1:] == stem[-2:-1] else stem
    with_e = (
        [stem, stem + "e"] if re.search("[^aeiou]{2}$|[aeiou]{2}.$", stem) else [stem + "e", stem]
    )  # sing-ing, mak-ing
    return [*with_e, doubled, re.sub("i$", "y", stem)]


def inflections(word: str) -> list[str]:
    """The phrases of the grammatical forms that a lower-case word is most often seen in."""
    parts, base = _bases()[1], lemma(word)
    found = [part for part, known in parts.items() if word in known]
    if base == word:
        return found + ["verbs in their base form"] * ("verbs" in found)
    if word.endswith("ing") or base in parts["verbs"] and word.endswith("s"):
        return [*found, "verbs", f"verbs ending in '{'-s' if word.endswith('s') else '-ing'}'"]
    if word.endswith("ed") or base in parts["verbs"]:
        return [*found, "verbs", "verbs in the past tense"]
    return [*found, "nouns", "plural nouns"] if base in parts["nouns"] else [*found, "adjectives"]


def mark_name(mark: str) -> str:
    """A punctuation mark in words: `)."` -> "closing brackets followed by full stops"."""
    names = list(
        dict.fromkeys(MARKS.get(character, f"the character '{character}'") for character in mark)
    )
    runs = {"...": "ellipses", "--": "dashes", "---": "dashes"}
    return runs.get(mark) or " followed by ".join(names[:2])


def word_classes(words: list[str]) -> tuple[list[str], list[str], np.ndarray]:
    """(phrases, kinds, which words are in which [len(words), C]) of all classes of words."""
    lists = word_lists()
    of_entry: dict[str, set[str]] = {}  # word or base form -> its classes
    closed = set(chain.from_iterable(lists["classes"].values()))
    for table in ("classes", "categories"):
        for phrase, entries in lists[table].items():
            for entry in entries:
                of_entry.setdefault(entry, set()).add(phrase)
    kinds = {phrase: "class" for phrase in lists["classes"]} | {
        phrase: "category" for phrase in lists["categories"]
    }
    found = []
    for word in words:
        lower = word.lower()
        forms = {word.title() if word.isupper() else word, lower} | (
            {lemma(lower)} if lower not in closed else set()
        )
        phrases = set().union(*(of_entry.get(form, ()) for form in forms))
        if lower in closed:
            phrases.add("function words")
        elif lower.isalpha():
            phrases |= set(inflections(lower))
        if word and not any(character.isalnum() for character in word):
            phrases |= {
                phrase for phrase, marks in MARK_CLASSES.items() if set(word) & set(marks)
            } | {"punctuation marks"}
        phrases |= {
            phrase for phrase, pattern in SHAPES.items() if re.fullmatch(pattern, word, re.DOTALL)
        }
        found.append(phrases)
    names = sorted(set().union(*found))
    column = {phrase: i for i, phrase in enumerate(names)}
    member = np.zeros((len(words), len(names)), dtype=bool)
    for row, phrases in enumerate(found):
        member[row, [column[phrase] for phrase in phrases]] = True
    others = dict.fromkeys([*MARK_CLASSES, "punctuation marks"], "mark") | dict.fromkeys(
        SHAPES, "shape"
    )
    return names, [(kinds | others).get(phrase, "part") for phrase in names], member
