"""T_input measured on the explainer itself."""

import pytest
import torch
from explaining import make_examples, make_explainer, training_settings
from test_task_ablation import PUBLISHED

from introspect_utils.explainer.train import train
from introspect_utils.scores import coupling
from introspect_utils.scores.coupling import measured_again
from introspect_utils.tasks import ablation
from introspect_utils.tasks.task_ablation import checked

pytestmark = pytest.mark.usefixtures("one_thread")

COLUMNS = ("zeroshot_prediction", "random_hint_prediction")


@pytest.fixture
def rows():
    return checked(PUBLISHED, "published")


def answers(rows):
    return [tuple(row[column] for column in COLUMNS) for row in rows]


def asked(lm, rows):
    prompts = [[row["original_user_prompt"], row["hint_user_prompt"]] for row in rows]
    return ablation.letter_logprobs(lm, prompts, "Answer:")


def test_the_answers_are_those_of_the_trained_explainer(rows, tmp_path):
    explainer = make_explainer()
    before = asked(explainer.lm, rows)
    train(explainer, make_examples(), training_settings(), tmp_path)
    found = measured_again(explainer, rows, "Answer:")
    now = asked(explainer.lm, rows)
    assert not torch.allclose(now, before, atol=1e-3)  # its adapters are read
    expected = [ablation.read(now[:, i]) for i in (0, 1)]
    assert answers(found) == list(zip(*expected, strict=True))
    for row, again in zip(rows, found, strict=True):
        assert again["changed_pred_bc_hint"] == (again[COLUMNS[0]] != again[COLUMNS[1]])
        assert {k: v for k, v in again.items() if k not in (*COLUMNS, "changed_pred_bc_hint")} == {
            k: v for k, v in row.items() if k not in (*COLUMNS, "changed_pred_bc_hint")
        }


def test_where_the_target_was_read_calibrated_so_is_the_explainer(rows):
    explainer = make_explainer()
    now = asked(explainer.lm, rows)
    offset = now[:2, 0].mean(0)
    found = measured_again(explainer, rows, "Answer:", rows[:2])
    expected = [ablation.read(now[:, i], offset) for i in (0, 1)]
    assert answers(found) == list(zip(*expected, strict=True))


def test_the_offset_is_read_off_some_of_the_training_rows(rows, monkeypatch):
    monkeypatch.setattr(coupling, "OFFSET_ROWS", 2)
    explainer, (a, b, c, *_) = make_explainer(), rows
    now, offset = asked(explainer.lm, rows), asked(explainer.lm, [a, b])[:, 0].mean(0)
    found = measured_again(explainer, rows, "Answer:", [a, c, b, c])  # every second
    expected = [ablation.read(now[:, i], offset) for i in (0, 1)]
    assert answers(found) == list(zip(*expected, strict=True))
