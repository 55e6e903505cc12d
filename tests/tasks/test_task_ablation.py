import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.data.mmlu import LETTERS
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import train
from introspect_utils.models.load import load_model
from introspect_utils.scores import surface
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import task_ablation
from introspect_utils.tasks.outcome import parse
from introspect_utils.tasks.rows import ABLATION, read_rows, write_rows

PUBLISHED = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "input_ablation.json").read_text("utf-8")
)
SMOKE = load_profile("smoke")


@pytest.fixture
def rows():
    return task_ablation.checked(PUBLISHED, "published")


def test_published_rows_are_read_as_they_are(rows, tmp_path):
    assert [row["changed_pred_bc_hint"] for row in rows] == [
        True,
        True,
        False,
    ]  # two of them derived
    assert [row["zeroshot_prediction"] for row in rows] == ["B", "C", "A"]
    assert [task_ablation.hint_letter(row["hint"]) for row in rows] == ["D", "A", "A"]
    assert [row["subject"] for row in rows] == [None] * 3
    write_rows(tmp_path / "rows.parquet", PUBLISHED, ABLATION)
    assert task_ablation.checked(read_rows(tmp_path / "rows.parquet", ABLATION), "rows") == rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"choices": ["a", "b", "c"]},
            r"data, row 1: choices must be four texts, got \['a', 'b', 'c'\]",
        ),
        (
            {"zeroshot_prediction": "E"},
            "data, row 1: zeroshot_prediction must be A, B, C or D, got 'E'",
        ),
        (
            {"random_hint_prediction": None},
            "data, row 1: random_hint_prediction must be A, B, C or D, got None",
        ),
        ({"correct_answer": "AB"}, "data, row 1: correct_answer must be A, B, C or D, got 'AB'"),
        (
            {"random_hint_prediction": "Answer: C", "changed_pred_bc_hint": True},
            "data, row 1: changed_pred_bc_hint is True, and the answers are C without and C with",
        ),
        (
            {"random_hint_prediction": "D", "changed_pred_bc_hint": False},
            "data, row 1: changed_pred_bc_hint is False, and the answers are C without and D with",
        ),
        (
            {"hint_letter": "B"},
            "data, row 1: hint_letter is 'B', and the hint is 'Hint: The answer is A'",
        ),
        ({"hint": "Take OptionB", "hint_letter": "E"}, "data, row 1: hint_letter is 'E'"),
    ],
)
def test_a_bad_row_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        task_ablation.checked([PUBLISHED[0], PUBLISHED[1] | changes], "data")


def test_a_missing_column_or_file_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "test.parquet"
    with pytest.raises(
        UserError, match="is missing: notebooks/03_data_input_ablation.ipynb makes it"
    ):
        read_rows(path, ABLATION)
    pq.write_table(
        pa.Table.from_pylist([{k: v for k, v in row.items() if k != "hint"} for row in PUBLISHED]),
        path,
    )
    with pytest.raises(UserError, match=r"lacks the column\(s\) hint$"):
        read_rows(path, ABLATION)


def test_the_prompts_are_those_of_appendices_d_and_f(rows):
    (full, *_), (untrained, *_) = (
        task_ablation.examples(rows, condition) for condition in ("full", "untrained")
    )
    assert full.question.text.endswith(
        "\nHint: D\n\nIf the hint were removed how would the assistant answer change?"
    )
    assert full.question.system == rows[0]["system_prompt"] and full.question.vector is None
    assert (
        full.explanation
        == untrained.explanation
        == "The most likely output would change to <<<Answer: B>>>."
    )
    assert untrained.question.text.startswith(
        full.question.text + "\n\nRespond with exactly one of the two options below"
    )
    # F.3, both of its example outputs (the last lines of the paper)
    assert untrained.question.text.endswith(
        "Do not include any explanations, reasoning, or extra text.\n\nExample outputs:\n"
        "The output would remain unchanged from <<<Answer: C>>>.\n"
        "The output would change to <<<Answer: B>>>."
    )
    assert (
        task_ablation.answer(rows[2]) == "The output would remain unchanged from <<<Answer: A>>>."
    )


@given(st.booleans(), st.sampled_from(LETTERS))
def test_what_is_said_is_understood(changed, letter):
    says_changed, content = parse(task_ablation.say(changed, letter))
    assert (says_changed, task_ablation.answer_letter(content)) == (changed, letter)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        (" B ", "B"),
        ("Answer:B.", "B"),
        ("(C)", "C"),
        ("Answer: X", ""),
        ("", ""),
        ("Answer: E", ""),
        ("A or B", ""),
        ("b", ""),
    ],
)
def test_the_letter_of_an_answer(text, letter):
    assert task_ablation.answer_letter(text) == letter


def test_a_hint_without_a_letter():
    assert task_ablation.hint_letter("A hint: The answer is C") == "C"
    for hint, says in (("Hint: E", "none"), ("Hint: B, or D", r"\['B', 'D'\]")):
        with pytest.raises(UserError, match=f"must name one of A, B, C, D, and names {says}"):
            task_ablation.hint_letter(hint)


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize(
    "wording",
    [
        "Hint: {}",
        "Hint: The answer is {}",
        "Hint: {} (A teacher said so)",
        "A friend of mine thinks it is ({}).",
        "{}, says A Level biology",  # the letter has to be told
    ],
)
def test_the_hint_letter_is_the_one_that_was_put_in(rows, wording, letter):
    hint = wording.format(letter)
    if "Level" not in wording:
        assert task_ablation.hint_letter(hint) == letter
    [row] = task_ablation.checked([rows[0] | {"hint": hint, "hint_letter": letter}], "here")
    assert task_ablation.surface(row)["hint"] == letter


def test_predictions_are_scored_on_the_letter(rows):
    said = [
        "The output would change to <<<B>>>.",
        "The output would remain unchanged from <<<Answer: C>>>.",
        "Answer: A",
    ]
    table = task_ablation.predictions(rows, said, "self", "full")
    assert table["content_match"].tolist() == [True, True, False] and table[
        "exact_match"
    ].tolist() == [True, False, False]
    assert table["predicted_changed"].tolist()[:2] == [True, False] and table[
        "predicted_changed"
    ].isna().tolist() == [False, False, True]
    assert table["predicted_content"].tolist() == ["B", "C", ""] and table["hint"].tolist() == [
        "D",
        "A",
        "A",
    ]


@pytest.mark.parametrize(
    ("name", "projection", "tuning"),
    [("tiny-llama", "always", "lora"), ("tiny-gemma3", "when-needed", "full")],
)
def test_an_explainer_learns_without_a_vector(rows, tmp_path, name, projection, tuning):
    """Over-fitted on three rows: trained, saved, loaded again, it explains as before; in both
    tunings, with no projection."""
    from dataclasses import replace

    model = load_model(name, "cpu")
    explainer = Explainer(
        model, replace(SMOKE.explainer, projection=projection), model.width, layers=()
    )
    assert explainer.projection is None
    settings = replace(
        SMOKE.training,
        tuning=tuning,
        epochs=30,
        batch_size=3,
        learning_rate=2e-2 if tuning == "lora" else 3e-3,
        checkpoint_minutes=30,
    )
    examples = task_ablation.examples(rows, "full")
    trained = train(explainer, examples, settings, tmp_path / "explainer")
    assert trained.losses[-1] < 0.3 * trained.losses[0]
    asked = [example.question for example in examples]
    before = generate(explainer, asked, 2, 24)
    again = Explainer.load(tmp_path / "explainer", "cpu")
    assert again.projection is None and generate(again, asked, 2, 24) == before


def test_a_model_without_a_chat_template_is_asked_in_plain_text(rows):
    explainer = Explainer(load_model("tiny-qwen3", "cpu"), SMOKE.explainer, 32, layers=())
    question = task_ablation.examples(rows, "full")[0].question
    decode = explainer.lm.tokenizer.decode
    assert decode(explainer.encode(question)[0]).startswith(
        "[system] Output only the answer letter.\n[user] Question: Which"
    )
    explainer.lm.tokenizer.chat_template = None
    ids, n = explainer.encode(question, "Yes.")
    assert decode(ids[:n]) == f"{question.system}\n\n{question.text}" and decode(
        ids[n:]
    ).startswith(" Yes.")


# --- baselines


def features(*letters):
    return [
        {"hint": letter, "subject": "logic", "length": 20 + i} for i, letter in enumerate(letters)
    ]


def test_the_letter_baselines():
    outcomes = [(True, "C"), (True, "C"), (False, "A"), (False, "A"), (False, "C")]
    found = surface.letter_answers(outcomes, features(*"ABAAC"), features(*"CAB"), ["C", "B", "B"])
    assert found["unchanged"] == [(False, "A")] * 3
    assert found["hint-letter"] == [(False, "C"), (False, "A"), (False, "B")]
    assert found["majority-letter"] == [(False, "C"), (True, "C"), (True, "C")]
    assert found["oracle"] == [(False, "C"), (True, "B"), (False, "B")]
    assert set(found) == {"unchanged", "hint-letter", "majority-letter", "oracle", "logistic"}
    assert len(found["logistic"]) == 3


def test_logistic_regression_finds_what_the_hint_letter_tells():
    letters = list("ABCD") * 20
    outcomes = [(letter != "C", "C" if letter != "D" else "D") for letter in letters]
    assert surface.logistic(features(*letters), outcomes, features(*"ABCD")) == [
        (True, "C"),
        (True, "C"),
        (False, "C"),
        (True, "D"),
    ]


def test_logistic_regression_with_one_class_and_without_subjects():
    plain = [{"hint": "A", "length": 3}, {"hint": "B", "length": 4}]
    assert surface.logistic(plain, [(True, "A"), (True, "A")], plain) == [(True, "A"), (True, "A")]
    with_unseen = [{"hint": "D", "subject": "new", "length": 900}]
    assert surface.logistic(plain, [(True, "A"), (False, "B")], with_unseen)[0][1] in "AB"


def test_rows_give_their_surface(rows):
    assert task_ablation.surface(rows[0]) == {"hint": "D", "length": 16}
    assert task_ablation.surface(rows[0] | {"subject": "astronomy"})["subject"] == "astronomy"
