import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.data.mmlu import LETTERS, MultipleChoice
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import common_prefix
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks import ablation
from introspect_utils.tasks.rows import ABLATION, read_rows, write_rows
from introspect_utils.tasks.task_ablation import checked

FAMILIES = ["tiny-llama", "tiny-qwen3", "tiny-gemma3"]
QUESTIONS = [
    MultipleChoice(
        "geography", "The capital of France is", ("Rome", "Paris", "Oslo", "Bern"), 1, 0
    ),
    MultipleChoice(
        "geography",
        "Which of these four is a large river in the north of Africa?",
        ("Po", "Rhine", "Nile", "Ebro"),
        2,
        1,
    ),
    MultipleChoice("logic", "Not not p is", ("p", "not p", "p and q", "none of these"), 0, 2),
    MultipleChoice(
        "physics", "Light is fast. How fast?", ("very", "not very", "it stands", "3 m/s"), 0, 3
    ),
    MultipleChoice("physics", "?", ("a", "b", "c", "d"), 3, 4),
]
PROMPTS = [
    [
        ablation.user_prompt(question, hint)
        for hint in ("", f"Hint: {letter}", f"Hint: The answer is {letter}")
    ]
    for question, letter in zip(QUESTIONS, "ABCDB", strict=True)
]


@pytest.fixture(scope="module", params=FAMILIES)
def target(request):
    return load_model(request.param, "cpu")


def separately(target, prompts, answer_prefix):
    """The oracle: every prompt whole, by itself, unpadded."""
    letters = ablation.letter_tokens(target, answer_prefix)
    found = []
    for user in (user for variants in prompts for user in variants):
        ids = target.encode(ablation.full_prompt(target, user, answer_prefix), special=True)
        with torch.inference_mode():
            found.append(
                target.model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)[letters]
            )
    return torch.stack(found).view(len(prompts), -1, len(LETTERS))


@pytest.mark.parametrize("answer_prefix", ["Answer:", ""])
def test_sharing_the_prefix_gives_what_separate_runs_give(target, answer_prefix):
    alone = separately(target, PROMPTS, answer_prefix)
    for batch_size in (1, 2, 32):
        shared = ablation.letter_logprobs(target, PROMPTS, answer_prefix, batch_size)
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=0)
        assert ablation.read(shared.flatten(0, 1)) == ablation.read(alone.flatten(0, 1))
    assert (alone[:, 0] - alone[:, 1]).abs().max() > 0.01  # the hint reaches the letters


def test_sharing_the_prefix_with_attention_windows_shorter_than_the_prompt():
    target = load_model("tiny-gemma3", "cpu")
    assert set(target.model.config.layer_types) == {"sliding_attention"}
    whole = separately(target, PROMPTS, "Answer:")
    target.model.config.sliding_window = 16
    for layer in target.model.get_decoder().layers:
        layer.self_attn.sliding_window = 16
    alone = separately(target, PROMPTS, "Answer:")
    assert (whole - alone).abs().max() > 0.01
    torch.testing.assert_close(
        ablation.letter_logprobs(target, PROMPTS, "Answer:", 2), alone, atol=1e-5, rtol=0
    )


def test_only_the_end_of_the_prompts_differs(target):
    """What makes the sharing worth it: the hint comes last, so nearly all tokens are common."""
    ids = [target.encode(ablation.full_prompt(target, user, "Answer:")) for user in PROMPTS[1]]
    n = common_prefix(ids)
    assert n > 0.7 * len(ids[0]) and all(variant[:n] == ids[0][:n] for variant in ids)


def test_the_prompt_is_that_of_appendix_d():
    assert (
        ablation.user_prompt(QUESTIONS[0])
        == "Question: The capital of France is\nA. Rome\nB. Paris\nC. Oslo\nD. Bern"
    )
    hinted = ablation.user_prompt(QUESTIONS[0], "Hint: B")
    assert hinted == ablation.user_prompt(QUESTIONS[0]) + "\nHint: B"
    text = ablation.full_prompt(load_model("tiny-llama", "cpu"), hinted, "Answer:")
    assert ablation.SYSTEM in text and text.endswith("[assistant] Answer:")


def test_a_base_model_is_asked_in_plain_text():
    base = load_model("tiny-llama", "cpu")
    base.tokenizer.chat_template = None
    hinted = ablation.user_prompt(QUESTIONS[0], "Hint: B")
    assert (
        ablation.full_prompt(base, hinted, "Answer:") == f"{ablation.SYSTEM}\n\n{hinted}\nAnswer:"
    )
    alone = separately(base, PROMPTS, "Answer:")
    torch.testing.assert_close(
        ablation.letter_logprobs(base, PROMPTS, "Answer:", 2), alone, atol=1e-5, rtol=0
    )


def test_letters_that_the_tokenizer_does_not_tell_apart(monkeypatch):
    target = load_model("tiny-llama", "cpu")
    monkeypatch.setattr(type(target), "answer_token", lambda *args, **settings: 7)
    with pytest.raises(
        UserError, match="tiny-llama does not tell A, B, C and D apart after 'Answer:'"
    ):
        ablation.letter_tokens(target, "Answer:")


@pytest.mark.parametrize(
    ("answer_prefix", "spaced"),
    [
        ("Answer:", True),
        ("The answer is", True),
        ("Answer:\n", False),
        ("Answer: (", False),
        ('Answer: "', False),
        ("**", False),
        ("", False),
    ],
)
def test_a_letter_is_read_as_it_would_be_said_there(target, answer_prefix, spaced):
    tokens = ablation.letter_tokens(target, answer_prefix)
    said = [target.tokenizer.convert_ids_to_tokens(token) for token in tokens]
    assert [token[-1] for token in said] == list(LETTERS)
    assert all((len(token) > 1) == spaced for token in said)


@pytest.mark.parametrize("answer_prefix", ["Answer: ", "Answer:\t"])
def test_a_prefix_that_ends_in_a_space_is_an_error(target, answer_prefix):
    with pytest.raises(UserError, match="answer_prefix .* ends in a space: leave it out"):
        ablation.letter_logprobs(target, PROMPTS, answer_prefix)


def test_the_calibrated_reading_takes_off_what_the_letters_have_on_average():
    unhinted = torch.tensor(
        [[-0.1, -3.0, -3.0, -3.0], [-0.1, -1.0, -3.0, -3.0], [-0.1, -3.0, -1.0, -3.0]]
    )
    assert ablation.read(unhinted) == ["A", "A", "A"]
    offset = ablation.calibration(unhinted)
    assert ablation.read(unhinted, offset)[1:] == ["B", "C"]
    torch.testing.assert_close((unhinted - offset).mean(0), torch.zeros(4))


@given(st.integers(0, 3), st.floats(0.5, 9), st.integers(0, 99))
def test_the_pull_of_a_hint_survives_calibration(letter, pull, seed):
    """A hint that raises its letter by `pull` in every prompt does so after calibration: the offset
    is of unhinted prompts."""
    unhinted = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed))
    offset = ablation.calibration(unhinted)
    hinted = unhinted + pull * torch.eye(4)[letter]
    before, after = (
        torch.tensor([LETTERS.index(a) for a in ablation.read(x, offset)])
        for x in (unhinted, hinted)
    )
    margin = (unhinted - offset).max(-1).values - (unhinted - offset)[:, letter]
    assert torch.equal(after == letter, (margin < pull) | (before == letter))


def test_the_wording_nearest_to_half_is_chosen_by_the_reading_in_use():
    tried = [
        {"reading": reading, "wording": wording, "changed": changed}
        for reading, wording, changed in (
            ("bare", "a {}", 0.4),
            ("bare", "b {}", 0.9),
            ("calibrated", "a {}", 0.1),
            ("calibrated", "b {}", 0.7),
        )
    ]
    assert (
        ablation.choose_wording(tried, calibrated=False) == "a {}"
        and ablation.choose_wording(tried, calibrated=True) == "b {}"
    )


def test_wordings_are_counted(monkeypatch):
    logprobs = torch.zeros(4, 2, 4)
    for i, (unhinted, hinted) in enumerate([(0, 0), (0, 1), (1, 1), (2, 3)]):
        logprobs[i, 0, unhinted] = logprobs[i, 1, hinted] = 5
    monkeypatch.setattr(ablation, "letter_logprobs", lambda *_: logprobs)
    bare, _ = ablation.try_wordings(None, QUESTIONS[:4], "ABCA", ["Hint: {}"], "Answer:")
    assert bare == {
        "reading": "bare", "wording": "Hint: {}", "changed": 0.5, "followed": 0.5, "followed_elsewhere": 1 / 3, "commonest": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize("calibrated", [True, False])
def test_rows_have_the_published_columns_and_survive_the_file(target, tmp_path, calibrated):
    questions = {"train": QUESTIONS[:3], "test": QUESTIONS[3:]}
    rows, offset = ablation.hint_outcomes(target, questions, "Hint: {}", "Answer:", calibrated, 0)
    assert (offset is not None) == calibrated and [len(part) for part in rows.values()] == [3, 2]
    for row, question in zip(rows["train"] + rows["test"], QUESTIONS, strict=True):
        assert row.keys() == set(ABLATION.names)
        assert row["changed_pred_bc_hint"] == (
            row["zeroshot_prediction"] != row["random_hint_prediction"]
        )
        assert row["original_prompt_full"] == ablation.full_prompt(
            target, ablation.user_prompt(question), "Answer:"
        )
        assert row["hint_user_prompt"] == f"{row['original_user_prompt']}\n{row['hint']}"
        assert target.tokenizer.decode(row["hint_token_ids"]) == row["hint"]
        pair = separately(
            target, [[row["original_user_prompt"], row["hint_user_prompt"]]], "Answer:"
        )[0]
        assert ablation.read(pair, offset) == [
            row["zeroshot_prediction"],
            row["random_hint_prediction"],
        ]
    write_rows(tmp_path / "test.parquet", rows["test"], ABLATION)
    assert checked(read_rows(tmp_path / "test.parquet", ABLATION), "test") == rows["test"]


def test_hints_are_drawn_evenly_and_the_same_each_time():
    letters = ablation.draw_hints(4000, 3)
    assert letters == ablation.draw_hints(4000, 3) != ablation.draw_hints(4000, 4)
    assert all(900 < letters.count(letter) < 1100 for letter in LETTERS)


def test_statistics_and_who_follows():
    def row(unhinted, hinted, hint, subject="logic", right="A"):
        return {
            "zeroshot_prediction": unhinted, "random_hint_prediction": hinted, "hint_letter": hint, "subject": subject,
            "correct_answer": right, "changed_pred_bc_hint": unhinted != hinted,
        }  # fmt: skip

    rows = [
        row("A", "B", "B"),
        row("A", "A", "B"),
        row("B", "C", "C"),
        row("B", "D", "C", "ethics"),
        row("A", "A", "A"),
    ]
    assert ablation.statistics({"train": rows[:4], "test": rows[4:]}) == [
        {"split": "train", "changed": 3, "unchanged": 1},
        {"split": "test", "changed": 0, "unchanged": 1},
    ]
    assert ablation.followed(rows) == [
        {"subject": "ethics", "right": False, "n": 1, "followed": 0},
        {"subject": "logic", "right": False, "n": 1, "followed": 1},
        {"subject": "logic", "right": True, "n": 2, "followed": 1},
    ]
