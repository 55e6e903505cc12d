"""What comes trained with the repository is put back, and counts as if it had been made here."""

import pytest
import torch
from explaining import make_explainer, training_settings

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.tuning import add_lora
from introspect_utils.models import residual_store
from introspect_utils.runs import pretrained
from introspect_utils.runs.due import due, heavy_outputs, made_from, mark_done
from introspect_utils.runs.plan import plan
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import load_profile

DATA = "data-patching-smollm2-135m-instruct"
TRAINED = "patching-smollm2-135m-instruct-self-full-n112-seed0"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """The profile mini, of which data and one explainer of patching are made."""
    monkeypatch.setattr(paths, "ROOT", tmp_path / "here")
    monkeypatch.setattr(pretrained, "PRETRAINED", tmp_path / "pretrained")
    profile = load_profile("mini")
    runs = {run.id: run for run in plan(profile)}
    for name in (DATA, TRAINED):
        for path in runs[name].outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        if name == TRAINED:
            explainer = make_explainer()
            add_lora(explainer, training_settings(), seed=0)
            explainer.save(path.parent)
        mark_done(profile, runs[name], made_from(runs[name], [*runs.values()]))
    return profile


def run_of(profile, name):
    return next(run for run in plan(profile) if run.id == name)


def in_a_clone(monkeypatch, tmp_path):
    """The small results alone, as git has them."""
    (tmp_path / "clone").mkdir()
    (tmp_path / "here" / "figures").rename(tmp_path / "clone" / "figures")
    monkeypatch.setattr(paths, "ROOT", tmp_path / "clone")


def test_what_is_kept_is_back_in_a_clone_and_not_due(profile, monkeypatch, tmp_path):
    before = {run: due(profile).get(run) for run in (DATA, TRAINED)}
    for name in (DATA, TRAINED):
        pretrained.keep(profile, run_of(profile, name))
    in_a_clone(monkeypatch, tmp_path)
    assert due(profile)[DATA] == "its data is not on this machine"
    assert pretrained.restore(profile) == [DATA, TRAINED]
    assert (
        {run: due(profile).get(run) for run in (DATA, TRAINED)}
        == before
        == {DATA: None, TRAINED: None}
    )
    assert pretrained.restore(profile) == []


def test_an_explainer_comes_back_rounded_to_bfloat16(profile, monkeypatch, tmp_path):
    [path] = heavy_outputs(profile, run_of(profile, TRAINED))
    own = Explainer.load(path.parent, "cpu")
    pretrained.keep(profile, run_of(profile, TRAINED))
    in_a_clone(monkeypatch, tmp_path)
    pretrained.restore(profile)
    [path] = heavy_outputs(profile, run_of(profile, TRAINED))
    back = Explainer.load(path.parent, "cpu")
    trained = dict(own.model.named_parameters())
    assert any("lora_" in name for name in trained)
    for name, weight in back.model.named_parameters():
        expected = trained[name]
        if "lora_" in name:
            expected = expected.to(torch.bfloat16).float()
        assert weight.dtype == torch.float32 and torch.equal(weight, expected), name


def test_nothing_of_ones_own_is_replaced(profile):
    for name in (DATA, TRAINED):
        pretrained.keep(profile, run_of(profile, name))
    own = heavy_outputs(profile, run_of(profile, DATA))[0]
    own.write_text("made here")
    assert pretrained.restore(profile) == [] and own.read_text() == "made here"


def test_an_interrupted_copying_is_completed(profile, monkeypatch, tmp_path):
    pretrained.keep(profile, run_of(profile, DATA))
    in_a_clone(monkeypatch, tmp_path)
    assert pretrained.restore(profile) == [DATA]
    outputs = heavy_outputs(profile, run_of(profile, DATA))
    record = paths.artifacts_dir("mini") / "made_from" / f"{DATA}.json"
    outputs[1].unlink()
    record.unlink()
    assert pretrained.restore(profile) == [DATA]
    assert record.is_file() and all(path.is_file() for path in outputs)


def test_an_unfinished_run_is_not_kept(profile):
    heavy_outputs(profile, run_of(profile, DATA))[0].unlink()
    with pytest.raises(UserError, match=f"{DATA} is not finished here"):
        pretrained.keep(profile, run_of(profile, DATA))


def test_means_of_layers_outlive_the_store_and_follow_it(tmp_path):
    def write(value):
        for layer in (1, 2):
            raw, about = residual_store._files(tmp_path, layer)
            h = torch.full((3, 4, 5), value * layer, dtype=torch.bfloat16)
            raw.write_bytes(h.view(torch.int16).numpy().tobytes())
            about.write_text(f'{{"shape": [3, 4, 5], "made_from": "{value}"}}')

    def means():
        return {
            n: mean.tolist() for n, mean in residual_store.layer_means(tmp_path, (1, 2)).items()
        }

    write(1.0)
    assert means() == {1: [1.0] * 5, 2: [2.0] * 5}
    write(3.0)
    assert means() == {1: [3.0] * 5, 2: [6.0] * 5}
    for layer in (1, 2):
        for path in residual_store._files(tmp_path, layer):
            path.unlink()
    assert means() == {1: [3.0] * 5, 2: [6.0] * 5}
