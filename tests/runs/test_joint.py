"""One explainer of all tasks: asked of each as that task's own explainers are, and scored as they
are."""

import dataclasses

import pytest
import torch
from explaining import BLOCKS, make_examples, make_explainer

from introspect_utils.runs import joint
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.question import VECTOR, Question
from introspect_utils.tasks.task_features import chosen_descriptions


def test_a_question_is_asked_in_its_own_form():
    explainer, v = make_explainer(), torch.ones(32)
    plain, chat = (
        explainer.lm.tokenizer.decode(
            explainer.encode(Question(f"What is {VECTOR}?", v, BLOCKS[0], prompt=form))[0]
        )
        for form in ("base", "chat")
    )
    unsaid = explainer.lm.tokenizer.decode(
        explainer.encode(Question(f"What is {VECTOR}?", v, BLOCKS[0]))[0]
    )
    assert chat == unsaid != plain and chat.count("What is") == plain.count("What is") == 1


def test_every_share_keeps_the_form_of_its_task(monkeypatch):
    smoke = load_profile("smoke")
    for task in TASKS.values():
        of_task = dataclasses.replace(
            task,
            read=lambda profile, target, n_train, seed: {"train": 4, "test": 2},
            examples=lambda rows, condition, seed, form: [
                dataclasses.replace(e, question=dataclasses.replace(e.question, prompt=form))
                for e in make_examples(rows)
            ],
        )
        monkeypatch.setitem(TASKS, task.name, of_task)
    forms = {
        part.task: {e.question.prompt for e in part.train + part.test}
        for part in joint.parts(smoke, "tiny-llama", 0)
    }
    assert forms == {task: {smoke.explainer_for(task).prompt} for task in TASKS}
    assert forms["features"] != forms["patching"]
    assert not joint.parts(smoke, "tiny-qwen3", 0)


def test_missing_data_names_its_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(UserError, match="01_data_features"):
        joint.parts(load_profile("smoke"), "tiny-llama", 0)


def test_descriptions_not_chosen_yet_name_their_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(
        UserError, match="descriptions.parquet is missing: notebooks/04_simulator.ipynb makes it"
    ):
        chosen_descriptions(load_profile("smoke"), "tiny-llama")
