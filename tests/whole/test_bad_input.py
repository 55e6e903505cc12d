"""Bad input: one table of what a person can hand in, each with the message it must give. Never a
traceback, never a wrong result.

What is not in the table stands with the code it is about: mistakes in a profile (test_profiles, 40
cases), model names, folders, gated and truncated model files (test_models), wheels of another hash
or shape (test_assets), pickles and archives (test_archives), questions of MMLU (test_mmlu),
hints (test_ablate_questions), facts (test_facts), a missing or wrong API key and a judge that
answers in prose (test_chat), too little memory, a single class (test_gates).
"""

import copy
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from explaining import BLOCKS, TRAINING, make_examples, make_explainer, vectors

from introspect_utils.data.facts import load_facts
from introspect_utils.data.mmlu import multiple_choice
from introspect_utils.explainer.train import train
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import token_activations
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks.question import Example, Question
from introspect_utils.tasks.rows import ABLATION, PATCHING, read_rows, read_splits

pytestmark = pytest.mark.usefixtures("one_thread")


# --- rows of the published formats
# ------------------------------------------------------------------------------------

PATCHED = {
    "layer": [0, 1],
    "input_tokens": ["Rome", " is", " in"],
    "original_continuation": [" Italy"],
    "ablated_continuation": [" France"],
    "is_different": True,
    "patch_position": {
        **{
            "orig_pos": 1,
            "counterfact_pos": 1,
            "orig_text_token": " is",
            "counterfact_text_token": " is",
        },
        "intervention_vector": [0.5, -1.0],
    },
    "counterfactual_text": "Paris is in",
    "gt_original_target": "Italy",
    "gt_counterfactual_target": "France",
}
HINTED = {
    **{
        "index": 0,
        "question": "Which is a fruit?",
        "choices": ["pear", "oak", "elm", "ash"],
        "correct_answer": "A",
    },
    **{
        "zeroshot_prediction": "A",
        "random_hint_prediction": "B",
        "hint_token_ids": [1],
        "original_prompt_full": "x",
    },
    **{
        "hint_prompt_full": "x",
        "system_prompt": "x",
        "original_user_prompt": "x",
        "hint_user_prompt": "x Hint: B",
    },
    **{"hint": "Hint: B", "changed_pred_bc_hint": True, "ablation_prompt": "x"},
}


def write(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows)), path)  # the types are those of the values
    return path


def patched(**changes):
    """Reads a file whose second row has these values, `vector` and `token` in its
    `patch_position`."""

    def case(folder):
        row = copy.deepcopy(PATCHED) | {
            key: value for key, value in changes.items() if key in PATCHED
        }
        inside = {"vector": "intervention_vector", "token": "orig_text_token"}
        row["patch_position"] = row["patch_position"] and row["patch_position"] | {
            inside[key]: value for key, value in changes.items() if key in inside
        }
        both = (
            {**PATCHED, "patch_position": row["patch_position"]}
            if isinstance(changes.get("vector"), str)
            else PATCHED
        )
        read_rows(write(folder / "rows.parquet", both, row))

    return case


def patched_column(**changes):
    """Reads a file in which a column has values of another type in every row."""
    return lambda folder: read_rows(
        write(folder / "rows.parquet", PATCHED | changes, PATCHED | changes)
    )


def hinted(**changes):
    return lambda folder: read_rows(
        write(folder / "rows.parquet", HINTED, HINTED | changes), ABLATION
    )


def splits(train, test, n_train=1, schema=PATCHING):
    def case(folder):
        for name, rows in (("train", train), ("test", test)):
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")
        read_splits(folder, n_train, schema)

    return case


# --- questions to an explainer, texts for a target, other files
# -------------------------------------------------------


def asked(text="Which [s]v[e]?", vector=None, layers=BLOCKS[0]):
    vector = vectors(1)[0] if vector is None else vector
    return lambda folder: make_explainer().explain([Question(text, vector, layers)])


def trained_on(*explanations):
    examples = [
        Example(example.question, said)
        for example, said in zip(make_examples(4), explanations, strict=False)
    ]
    return lambda folder: train(make_explainer(), examples, TRAINING, folder)


def vector_of(value):
    v = vectors(1)[0].clone()
    v[3] = value
    return v


def token_of(text, position=0, layer=1):
    return lambda folder: token_activations(load_model("tiny-llama", "cpu"), text, layer)[position]


def profile(text):
    def case(folder):
        (folder / "mine.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        load_profile(folder / "mine.yaml")

    return case


def damaged(kind):
    def case(folder):
        (folder / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
        kind.load(folder / "x.safetensors")

    return case


def facts(*rows):
    def case(folder):
        (folder / "facts.json").write_text(json.dumps(rows))
        load_facts(str(folder / "facts.json"))

    return case


def mmlu(**changes):
    row = {"question": "Which?", "subject": "trees", "choices": ["a", "b", "c", "d"], "answer": 1}
    return lambda folder: multiple_choice(row | changes, "mine, row 5", 5)


def without_eos(folder):
    lm = load_model("tiny-qwen3", "cpu")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    load_model(str(folder), "cpu")


LONG = "a long text, " * 8000  # 104 kB
FLAT = {"relation_id": "P1", "subject": "Rome", "target_true": "Italy", "prompt": "Rome is in"}
TABLE = {
    "is_different is null": (
        patched(is_different=None),
        "rows.parquet, row 1: no is_different: mend the data",
    ),
    "is_different is text": (
        patched_column(is_different="False"),
        "rows.parquet: is_different is string where bool is expected",
    ),
    "is_different is a number": (
        patched_column(is_different=1),
        "is_different is int64 where bool is expected",
    ),
    "layer is null": (patched(layer=None), "row 1: no layer"),
    "layer is empty": (patched(layer=[]), "row 1: layer is empty"),
    "layer is text": (patched_column(layer="0-1"), "layer is string where list"),
    "a layer is null": (patched(layer=[0, None]), "row 1: a part of layer is null"),
    "the vector has a NaN": (
        patched(vector=[0.5, float("nan")]),
        "row 1: intervention_vector is not finite",
    ),
    "the vector is infinite": (
        patched(vector=[float("inf"), 0.5]),
        "row 1: intervention_vector is not finite",
    ),
    "the vector is too short": (
        patched(vector=[0.5]),
        "row 1: intervention_vector has another width than that of row 0",
    ),
    "the vector is empty": (patched(vector=[]), "row 1: intervention_vector is empty"),
    "the vector is null": (patched(vector=None), "row 1: no intervention_vector"),
    "a part of the vector is null": (
        patched(vector=[None, 1.0]),
        "row 1: a part of intervention_vector is null",
    ),
    "the vector is text": (patched(vector="0.5 -1.0"), "patch_position is struct<"),
    "there is no place": (patched(patch_position=None), "row 1: no patch_position"),
    "there is no token": (patched(token=None), "row 1: no orig_text_token"),
    "the text is empty": (patched(input_tokens=[]), "row 1: input_tokens is empty"),
    "a token of the text is null": (
        patched(input_tokens=["Rome", None]),
        "row 1: a part of input_tokens is null",
    ),
    "no continuation": (patched(ablated_continuation=[]), "row 1: ablated_continuation is empty"),
    "too few training rows": (
        splits([PATCHED], [PATCHED], 2),
        "has 1 training and 1 test rows, and 2 training rows",
    ),
    "no test rows": (splits([PATCHED], []), "has 1 training and 0 test rows"),
    "a fact on both sides": (
        splits([PATCHED], [PATCHED]),
        "1 of 1 facts of the test rows stand among the training rows too",
    ),
    "a question on both sides": (
        splits([HINTED], [HINTED], 1, ABLATION),
        "1 of 1 questions of the test rows stand among the training rows too, for example 'Which "
        "is a fruit?'",
    ),
    "the hint is null": (
        hinted(hint=None),
        "row 1: no hint: mend the data, or make it anew with notebooks/03",
    ),
    "the question is null": (hinted(question=None), "row 1: no question"),
    "the prompt is null": (hinted(hint_user_prompt=None), "row 1: no hint_user_prompt"),
    "MMLU: a question that is a number": (
        mmlu(question=3),
        "mine, row 5: question and subject must be texts, got 3 and 'trees'",
    ),
    "MMLU: a question of spaces": (
        mmlu(question=" \n"),
        "row 5: question and subject must be texts",
    ),
    "MMLU: a subject that is a list": (
        mmlu(subject=["trees"]),
        "row 5: question and subject must be texts",
    ),
    "a vector of another width": (
        asked(vector=torch.zeros(48)),
        "a vector is [48] and the target's width 32",
    ),
    "a vector that is a matrix": (
        asked(vector=torch.zeros(2, 32)),
        "a vector is [2, 32] and the target's width 32",
    ),
    "a vector with a NaN": (
        asked(vector=vector_of(float("nan"))),
        "a vector has values that are not finite",
    ),
    "an infinite vector": (
        asked(vector=vector_of(float("-inf"))),
        "a vector has values that are not finite",
    ),
    "layers it was not made for": (
        asked(layers=(7,)),
        "this explainer knows no vectors from layers (7,)",
    ),
    "a question of 100 kB": (
        asked(f"{LONG} [s]v[e]"),
        "tokens, and tiny-llama reads at most 2,048: shorten it",
    ),
    "no mark for the vector": (asked("Which?"), "a question with a vector holds [s]v[e] once"),
    "an explanation of 100 kB": (
        trained_on("red", LONG),
        "tokens, and tiny-llama reads at most 2,048",
    ),
    "an empty explanation": (
        trained_on("red", ""),
        "training row 1 has an empty explanation: leave it out",
    ),
    "no training rows": (trained_on(), "there are no training rows: raise the size"),
    "no text": (token_of(""), "the text is empty: give at least one word"),
    "a text of 100 kB": (
        token_of(LONG),
        "a context has 56,001 tokens, and tiny-llama reads at most 2,048",
    ),
    "a layer that is not there": (
        token_of("Rome", layer=4),
        "there is no layer 4: the model has 4 layers, 0 to 3",
    ),
    "a negative layer": (
        token_of("Rome", layer=-1),
        "there is no layer -1: the model has 4 layers",
    ),
    "a tokenizer without EOS": (
        without_eos,
        "has no EOS token, which ends an explanation: set eos_token",
    ),
    "a profile with an impossible date": (profile("seeds: 2001-99-99"), "is not valid YAML"),
    "a profile with an endless number": (profile("seeds: " + "1" * 9999), "is not valid YAML"),
    "a profile nested without end": (profile("[" * 9999), "is not valid YAML"),
    "a profile in UTF-16": (profile("seeds: [0]".encode("utf-16")), "mine.yaml"),
    "a profile with a zero byte": (profile(b"seeds: [0]\0"), "is not valid YAML"),
    "an empty profile": (profile(""), "the file: must be settings (key: value), got nothing"),
    "damaged directions": (damaged(Directions), "x.safetensors is damaged"),
    "damaged exemplars": (damaged(Exemplars), "x.safetensors is damaged"),
    "missing directions": (
        lambda folder: Directions.load(folder / "x"),
        "x is missing: notebooks/01_data_features.ipynb",
    ),
    "a fact that is a number": (facts(5), "record 0: a field is not text"),
    "a fact with a null": (facts(FLAT | {"subject": None}), "record 0: a field is not text"),
    "a fact without its subject": (
        facts(FLAT | {"subject": "Paris"}),
        "prompt 'Rome is in' lacks the subject",
    ),
    "no facts": (facts(), "must hold a list of CounterFact records, and holds no records"),
}


def test_the_table_is_long_enough():
    assert len(TABLE) >= 40


@pytest.mark.parametrize("name", list(TABLE))
def test_bad_input_gives_its_message(tmp_path, name):
    case, message = TABLE[name]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        case(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["🧠👩‍🚀 is 😀?", "ما هي العاصمة؟ \u202eabc", "東京は\u200bどこ", "x\0y", "\ud7ff\ufdd0", " "],
)
def test_unusual_text_is_asked_and_described_like_any_other(text):
    explainer, lm = make_explainer(), load_model("tiny-llama", "cpu")
    [said] = explainer.explain(
        [Question(f"{text} [s]v[e]", vectors(1)[0], BLOCKS[0])], max_new_tokens=3
    )
    assert isinstance(said, str)
    assert lm.tokenizer.decode(lm.encode(text)[1:], clean_up_tokenization_spaces=False) == text
