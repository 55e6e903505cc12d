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
    part = joint.Part("features", make_examples(4), make_examples(2), score=lambda said: (said, {}))
    for task in ("features", "patching", "ablation"):
        of_task = dataclasses.replace(part, task=task)
        monkeypatch.setattr(
            joint, f"_{task}", lambda profile, target, seed, of_task=of_task: of_task
        )
    found = {
        part.task: {e.question.prompt for e in part.train + part.test}
        for part in joint.parts(smoke, "tiny-llama", 0)
    }
    assert found == {
        task: {smoke.explainer_for(task).prompt} for task in ("features", "patching", "ablation")
    }
    assert found["features"] != found["patching"]
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
