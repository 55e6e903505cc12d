"""The recipes of docs/adding.md, followed to the letter in a copy of the package: each on models of
four layers."""

import pytest
from recipes import Copy

from introspect_utils.models.load import load_model


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def test_a_model_is_a_line(copy, tmp_path):
    lm, folder = load_model("tiny-qwen3", "cpu"), tmp_path / "models" / "my-llama"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    copy.follow("A model", ("/models/my-llama", str(folder)))
    said = copy.run(
        "-c",
        "from introspect_utils.models.load import load_model; from "
        "introspect_utils.settings.profile import load_profile\n"
        "from introspect_utils.runs.plan import plan\n"
        "print(load_model('my-llama').width, *(run.id for run in plan(load_profile('smoke'))))",
    )
    assert (
        said.split()[0] == str(lm.width) and "patching-my-llama-self-full-n16-seed0" in said.split()
    )


def test_an_explainer_is_a_name_or_a_function(copy):
    copy.follow("An explainer")
    said = copy.run(
        "-c",
        "from introspect_utils.explainer.make import make_explainer; from "
        "introspect_utils.settings.profile import load_profile\n"
        "from introspect_utils.runs.plan import plan\n"
        "profile = load_profile('smoke')\n"
        "for name in (*profile.ablation.explainers, 'noisy@0.5'):\n"
        "    lm = make_explainer(profile, 'patching', name, 'full', 'tiny-llama', 32, [(0,)], "
        "0).lm\n"
        "    print(lm.name, float(lm.model.get_input_embeddings().weight.abs().sum()), sep=': ')\n"
        "print(*(run.id for run in plan(profile)))",
    )
    *models, planned = said.strip().splitlines()
    names, sums = zip(*(line.split(": ") for line in models if ": " in line), strict=True)
    assert names[-5:] == (
        "tiny-llama",
        "tiny-llama sibling",
        "tiny-llama rotated@0.5",
        "tiny-gemma3",
        "tiny-llama noisy@0.5",
    )
    assert len(set(sums[-5:])) == 5
    assert "ablation-tiny-llama-rotated@0.5-full-n16-seed0" in planned.split()
