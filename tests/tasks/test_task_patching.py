from collections import Counter

import numpy as np
import pytest
import torch

from introspect_utils.tasks import TASKS, outcome, task_patching
from introspect_utils.tasks.conditions import few_shot, without_vector
from introspect_utils.tasks.question import VECTOR, Question

V = np.arange(4, dtype=np.float32)
ROW = {
    "layer": list(range(8, 16)),
    "input_tokens": ["", "Rome", " is", " the", " capital", " of"],
    "patch_position": {"orig_text_token": "Rome", "intervention_vector": V},
    "is_different": True,
    "ablated_continuation": [" Italy"],
}
TEXT, LAYERS = "<<<Rome is the capital of>>>", "8, 9, 10, 11, 12, 13, 14, 15"

# Appendix D, filled in by hand
FULL = [
    f"If feature [s]v[e] at layer {LAYERS} is added to tokens <Rome> when processing the text "
    f"{TEXT},"
    " how would the output change?",
    f"When feature [s]v[e] at layer {LAYERS} is added at tokens <Rome> in the input {TEXT}, what "
    "happens to the model's output?",
    f"Consider the input text: {TEXT}. If we steer layer {LAYERS} towards feature [s]v[e] at "
    "tokens <Rome>,"
    " how does this affect the generated continuation?",
    f"Given the text {TEXT}, what would be the effect on the output if feature [s]v[e] at layer "
    f"{LAYERS}"
    " is added to tokens <Rome>?",
    f"If we steer towards feature [s]v[e] at layer {LAYERS} and tokens <Rome> when processing "
    f"{TEXT},"
    " how would the model's response differ?",
]
# Each ablation of Table 2, read and found to be English
ABLATED = {
    "no-vector": [
        f"If a feature at layer {LAYERS} is added to tokens <Rome> when processing the text "
        f"{TEXT}, how would the output change?",
        f"When a feature at layer {LAYERS} is added at tokens <Rome> in the input {TEXT}, what "
        "happens to the model's output?",
        f"Consider the input text: {TEXT}. If we steer layer {LAYERS} towards a feature at tokens "
        "<Rome>,"
        " how does this affect the generated continuation?",
        f"Given the text {TEXT}, what would be the effect on the output if a feature at layer "
        f"{LAYERS}"
        " is added to tokens <Rome>?",
        f"If we steer towards a feature at layer {LAYERS} and tokens <Rome> when processing {TEXT},"
        " how would the model's response differ?",
    ],
    "no-layer": [
        f"If feature [s]v[e] is added to tokens <Rome> when processing the text {TEXT}, how would "
        "the output change?",
        f"When feature [s]v[e] is added at tokens <Rome> in the input {TEXT}, what happens to the "
        "model's output?",
        f"Consider the input text: {TEXT}. If we steer towards feature [s]v[e] at tokens <Rome>,"
        " how does this affect the generated continuation?",
        f"Given the text {TEXT}, what would be the effect on the output if feature [s]v[e] is "
        "added to tokens <Rome>?",
        f"If we steer towards feature [s]v[e] at tokens <Rome> when processing {TEXT}, how would "
        "the model's response differ?",
    ],
    "no-token": [
        f"If feature [s]v[e] at layer {LAYERS} is added when processing the text {TEXT}, how would "
        "the output change?",
        f"When feature [s]v[e] at layer {LAYERS} is added in the input {TEXT}, what happens to the "
        "model's output?",
        f"Consider the input text: {TEXT}. If we steer layer {LAYERS} towards feature [s]v[e],"
        " how does this affect the generated continuation?",
        f"Given the text {TEXT}, what would be the effect on the output if feature [s]v[e] at "
        f"layer {LAYERS} is added?",
        f"If we steer towards feature [s]v[e] at layer {LAYERS} when processing {TEXT}, how would "
        "the model's response differ?",
    ],
}
F2 = f"""If feature [s]v[e] at layer {LAYERS} is inserted into token <Rome> when processing the text {TEXT}, \
how would the output change?
Respond with exactly one of the two options below, and nothing else:

The output would remain unchanged from <<<X>>>.
The output would change to <<<X>>>.

Replace X with the next token of the answer following the input. Make sure X is a *single* next token.

Example Outputs:
The output would remain unchanged from <<<Paris>>>.
The output would change to <<<doctor>>>.
The output would remain unchanged from <<<Apple>>>.
The output would change to <<<unknown>>>."""


@pytest.mark.parametrize(("condition", "expected"), [("full", FULL), *ABLATED.items()])
def test_the_five_templates_under_each_condition(condition, expected):
    texts = [task_patching.prompt(text, ROW, condition) for text in task_patching.TEMPLATES]
    if condition == "no-vector":
        texts = [without_vector(Question(text)).text for text in texts]
    assert texts == expected


def test_the_prompt_of_the_untrained_model_is_that_of_f2():
    assert task_patching.examples([ROW], "untrained", 0)[0].question.text == F2


def test_the_question_and_answer_of_c1():
    [example] = task_patching.examples([ROW], "locate", 0)
    assert example.question.text == f"Where did feature [s]v[e] come from in {TEXT}?"
    assert example.explanation == f"Token <<<Rome>>> at layers {LAYERS}."
    assert (
        "Rome>" not in example.question.text.replace(TEXT, "")
        and LAYERS not in example.question.text
    )


@pytest.mark.parametrize(
    "condition", ["full", "no-vector", "no-layer", "no-token", "untrained", "locate"]
)
def test_a_question_holds_its_vector_and_nothing_that_was_taken_away(condition):
    rows = [ROW] * 40
    for example in task_patching.examples(rows, condition, seed=0):
        text, vector = example.question.text, example.question.vector
        assert text.count(VECTOR) == (condition != "no-vector")
        if condition == "no-vector":
            assert vector is None
        else:
            assert vector.dtype == torch.float32 and vector.tolist() == V.tolist()
        assert text.count(TEXT) == 1
        assert ("layer" in text) == (condition not in ("no-layer", "locate"))
        assert ("<Rome>" in text.replace(TEXT, "")) == (condition not in ("no-token", "locate"))
        assert example.question.layers == tuple(
            range(8, 16)
        )  # they choose the projection, whatever the text says
        if condition != "locate":
            assert outcome.parse(example.explanation) == (True, " Italy")


def test_the_explanation_follows_the_outcome():
    assert task_patching.answer(ROW) == outcome.explanation(True, " Italy")
    assert task_patching.answer({**ROW, "is_different": False}) == outcome.explanation(
        False, " Italy"
    )


def test_a_block_is_written_out_in_full():
    assert task_patching.layers_text([3]) == "3"
    assert task_patching.layers_text(list(range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"


def test_base_models_of_the_authors_are_asked_with_a_newline_behind():
    for form, behind in (("", ""), ("chat", ""), ("authors-qwen", ""), ("authors-base", "\n")):
        question = task_patching.examples([ROW], "full", 0, form)[0].question
        assert question.text == task_patching.examples([ROW], "full", 0)[0].question.text + behind
        assert question.prompt == form


def test_solved_examples_stand_before_a_question_and_are_about_a_feature():
    rows = [ROW | {"is_different": i % 2 == 0} for i in range(4)]
    solved, [asked] = (task_patching.examples(part, "full", 0) for part in (rows, [ROW]))
    [shown] = few_shot([asked], solved)
    assert shown.question.text.count(VECTOR) == 1 and shown.question.text.endswith(
        asked.question.text
    )
    assert shown.question.vector is asked.question.vector
    parts = shown.question.text.split("\n\n")
    assert len(parts) == 5
    for part, row in zip(parts, rows, strict=False):
        assert "a feature" in part and part.endswith(task_patching.answer(row))


def test_the_rows_of_a_pair_share_their_cluster():
    prompt = "Oslo is the capital of Norway.\n{} is the capital of\nRespond with one of a or b"
    row = ROW | {"input_tokens": ["", prompt.format("Rome")]}
    row |= {"counterfactual_text": prompt.format("Paris"), "token_type": None}
    row |= {"subject": "Rome", "relation": "capital"}
    table = TASKS["patching"].predictions([row, row], ["x", "y"], "self", "full")
    assert set(table["pair"]) == {"Rome is the capital of | Paris is the capital of"}
    assert set(table["subject"]) == {"Rome"} and set(table["relation"]) == {"capital"}


def test_braces_in_a_text_are_text():
    row = {**ROW, "input_tokens": ["{layer}", " {}"]}
    assert "<<<{layer} {}>>>" in task_patching.prompt(task_patching.TEMPLATES[0], row)


def test_templates_are_drawn_evenly_and_alike_in_every_condition():
    def drawn(condition, seed):
        texts = [
            example.question.text
            for example in task_patching.examples([ROW] * 500, condition, seed)
        ]
        return [(FULL if condition == "full" else ABLATED[condition]).index(text) for text in texts]

    chosen = drawn("full", 0)
    assert chosen == drawn("no-layer", 0) == drawn("no-vector", 0) != drawn("full", 1)
    assert min(Counter(chosen)[template] for template in range(5)) > 60


def test_vectors_may_come_back_from_a_file_as_lists():
    row = {**ROW, "patch_position": {**ROW["patch_position"], "intervention_vector": V.tolist()}}
    vector = task_patching.examples([row], "full", 0)[0].question.vector
    assert vector.dtype == torch.float32 and vector.tolist() == V.tolist()
