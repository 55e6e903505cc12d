import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import Profile, load_profile

WHOLE = (REPO / "params" / "smoke.yaml").read_text()
SMOKE = re.sub(r"^features:.*?(?=^patching:)", "", WHOLE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", ["smoke", "mini", "small", "paper"])
def test_the_profiles_of_the_repository_are_whole(name):
    profile = load_profile(name)
    assert profile.name == profile.source == name
    assert isinstance(profile.patching.targets, tuple) and isinstance(
        profile.training.learning_rate, float
    )
    assert hash(profile) == hash(load_profile(REPO / "params" / f"{name}.yaml"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.seeds = (1,)


def test_a_profile_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMOKE.replace("seeds: [0]", "seeds: [0, 1]"))
    profile = load_profile(path)
    assert (profile.name, profile.source, profile.seeds) == ("mine", str(path), (0, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 1", "epoch: 1", "training.epoch: unknown setting; did you mean 'epochs'?"),
        ("epochs: 1", "epoch: 1", "training.epochs: missing"),
        ("epochs: 1", "epochs: true", "training.epochs: must be a whole number, got True"),
        ("epochs: 1", "epochs: 1.5", "training.epochs: must be a whole number, got 1.5"),
        ("epochs: 1", "epochs: 0", "training.epochs: must be at least 1, got 0"),
        ("epochs: 1", "epochs:", "training.epochs: must be a whole number, got nothing"),
        ("epochs: 1", "epochs: 1\n  epochs: 2", "epochs is given twice"),
        ("learning_rate: 1.0e-3", "learning_rate: 1e-3", "(YAML reads 1e-3 as text: write 1.0e-3)"),
        (
            "learning_rate: 1.0e-3",
            "learning_rate: 0",
            "training.learning_rate: must be above 0, got 0.0",
        ),
        (
            "learning_rate: 1.0e-3",
            "learning_rate: .nan",
            "training.learning_rate: must be a finite number, got nan",
        ),
        (
            "lora_dropout: 0.0",
            "lora_dropout: 1",
            "training.lora_dropout: must be at least 0 and below 1, got 1.0",
        ),
        ("tuning: lora", "tuning: lorra", "training.tuning: got 'lorra'; did you mean 'lora'?"),
        (
            "targets: [tiny-llama]",
            "targets: [tiny-lama]",
            "patching.targets[0]: no model is called 'tiny-lama'; did you mean",
        ),
        (
            "targets: [tiny-llama]",
            "targets: tiny-llama",
            "patching.targets: must be a list with at least one item",
        ),
        (
            "targets: [tiny-llama]",
            "targets: []",
            "patching.targets: must be a list with at least one item, got []",
        ),
        (
            "explainers: [self]",
            "explainers: [me]",
            "patching.explainers[0]: no model is called 'me'",
        ),
        ("sizes: [16]", "sizes: [16, 16]", "patching.sizes: names the same thing twice"),
        ("sizes: [16]", "sizes: [16, x]", "patching.sizes[1]: must be a whole number, got 'x'"),
        (
            "[full, no-vector,",
            "[full, no-vectors,",
            "patching.conditions[1]: got 'no-vectors'; did you mean 'no-vector'?",
        ),
        (
            "facts: packaged",
            "facts: package",
            "patching.facts: got 'package'; give 'packaged', a CounterFact",
        ),
        ("facts: packaged", "facts: no/such.json", "patching.facts: there is no file no/such.json"),
        ("device: cpu", "device: gpu", "device: got 'gpu'; did you mean 'cpu'?"),
        ("known_only: false", "known_only: 0", "patching.known_only: must be true or false, got 0"),
        ("patching: #", "patching: 3 #", "is not valid YAML"),
        (
            "questions: packaged",
            "questions: mmlu",
            "ablation.questions: got 'mmlu'; give 'packaged', or a hub id",
        ),
        (
            'hints: ["Hint: {}",',
            'hints: ["Hint",',
            "ablation.hints[0]: must hold {} once, where the letter goes, got 'Hint'",
        ),
        (
            "conditions: [full, untrained]",
            "conditions: [locate]",
            "ablation.conditions[0]: got 'locate'",
        ),
        (
            "excluded_subjects: []",
            "excluded_subjects: [1]",
            "ablation.excluded_subjects[0]: must be text, got 1",
        ),
        (
            "  calibrated: true",
            "  calibratd: true",
            "ablation.calibratd: unknown setting; did you mean 'calibrated'?",
        ),
        (SMOKE, "", "the file: must be settings (key: value), got nothing"),
        (SMOKE, "- 1", "the file: must be settings (key: value), got [1]"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    assert old in SMOKE
    path.write_text(SMOKE.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_profile(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "dictionaries: trained",
            "dictionaries: train",
            "features.dictionaries: got 'train'; give 'trained', or a SAELens release",
        ),
        (
            "dictionaries: trained",
            "dictionaries: llama_scope_lxr_32x/l19r_32x",
            "features.dictionaries: got 'llama_scope",
        ),
        (
            "checkpoint: trained",
            "checkpoint: mine",
            "features.simulator.checkpoint: got 'mine'; give 'trained', or a hub id",
        ),
        (
            "    lora_r: 4",
            "    lora_rank: 4",
            "features.simulator.lora_rank: unknown setting; did you mean 'lora_r'?",
        ),
        (
            "steps_random: 4",
            "steps_random: 0",
            "features.simulator.steps_random: must be at least 1, got 0",
        ),
        (
            "text: packaged",
            "text: fineweb",
            "features.text: got 'fineweb'; give 'packaged', or a hub id",
        ),
        ("judge: embedding", "judge: gpt", "features.judge: got 'gpt'"),
        ("layers: [1, 2]", "layers: [1, 1]", "features.layers: names the same thing twice"),
        ("[1.0, 5.0,", "[0.0, 5.0,", "features.selfie_scales[0]: must be above 0, got 0.0"),
    ],
)
def test_a_mistake_in_the_features_is_named_with_its_place(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    assert old in WHOLE
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)):
        load_profile(path)


def test_a_task_left_out_is_none_and_its_training_settings_are_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMOKE.split("\nablation:")[0] + "\n")
    assert load_profile(path).ablation is None and load_profile(path).patching is not None
    smoke = load_profile("smoke")
    assert smoke.training_for("patching") == smoke.training
    own = smoke.training_for("ablation")
    assert (own.tuning, smoke.training.tuning) == ("full", "lora")
    assert dataclasses.replace(own, tuning="lora") == smoke.training


def test_all_mistakes_are_named_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMOKE.replace("epochs: 1", "epochs: 0").replace("tuning: lora", "tuning: no"))
    with pytest.raises(UserError) as error:
        load_profile(path)
    assert "training.tuning" in str(error.value) and "training.epochs" in str(error.value)


def test_an_unknown_profile_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match="there is no profile 'smal'; did you mean 'small'?"):
        load_profile("smal")
    with pytest.raises(UserError, match="cannot read the profile .*: No such file"):
        load_profile(tmp_path / "none.yaml")
    for name in ("mini.yaml", "a b.yaml"):
        (tmp_path / name).write_text(SMOKE)
        with pytest.raises(UserError, match="rename the file|letters, digits"):
            load_profile(tmp_path / name)


@given(
    text=st.text() | st.binary().map(lambda data: data.decode("latin-1")),
    at=st.integers(0, len(SMOKE)),
)
def test_any_text_is_a_profile_or_a_clear_error(tmp_path_factory, text, at):
    path = tmp_path_factory.mktemp("fuzz") / "mine.yaml"
    path.write_text(SMOKE[:at] + text + SMOKE[at:], encoding="utf-8", errors="surrogateescape")
    try:
        assert isinstance(load_profile(path), Profile)
    except UserError as error:
        assert str(path) in str(error)
