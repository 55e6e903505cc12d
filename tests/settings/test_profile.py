import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from introspect_utils.settings import profile as profiles
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import Profile, load_profile

WHOLE = (REPO / "params" / "smoke.yaml").read_text()
SMOKE = re.sub(r"^features:.*?(?=^patching:)", "", WHOLE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", ["smoke", "mini", "small", "paper"])
def test_the_profiles_of_the_repository_are_whole(name):
    profile = load_profile(name)
    assert profile.name == profile.source == name
    assert hash(profile) == hash(load_profile(REPO / "params" / f"{name}.yaml"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.seeds = (1,)


def test_a_profile_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMOKE.replace("seeds: [0]", "seeds: [0, 1]"))
    profile = load_profile(path)
    assert (profile.name, profile.source, profile.seeds) == ("mine", str(path), (0, 1))


MISTAKES = """
epochs: 1 | epoch: 1 | training.epoch: unknown setting; did you mean 'epochs'?
epochs: 1 | epoch: 1 | training.epochs: missing
epochs: 1 | epochs: true | training.epochs: must be a whole number, got True
epochs: 1 | epochs: 1.5 | training.epochs: must be a whole number, got 1.5
epochs: 1 | epochs: 0 | training.epochs: must be at least 1, got 0
epochs: 1 | epochs: | training.epochs: must be a whole number, got nothing
device: cpu | device: {cpu: 1, cpu: 2} | cpu is given twice
learning_rate: 1.0e-3 | learning_rate: 1e-3 | (YAML reads 1e-3 as text: write 1.0e-3)
learning_rate: 1.0e-3 | learning_rate: 0 | training.learning_rate: must be above 0, got 0.0
learning_rate: 1.0e-3 | learning_rate: .nan | training.learning_rate: must be a finite number
lora_dropout: 0.0 | lora_dropout: 1 | training.lora_dropout: must be at least 0 and below 1
tuning: lora | tuning: lorra | training.tuning: got 'lorra'; did you mean 'lora'?
[tiny-llama] | [tiny-lama] | patching.targets[0]: no model is called 'tiny-lama'; did you mean
[tiny-llama] | tiny-llama | patching.targets: must be a list with at least one item
[tiny-llama] | [] | patching.targets: must be a list with at least one item, got []
explainers: [self] | explainers: [me] | patching.explainers[0]: no model is called 'me'
sizes: [16] | sizes: [16, 16] | patching.sizes: names the same thing twice
sizes: [16] | sizes: [16, x] | patching.sizes[1]: must be a whole number, got 'x'
no-vector, | no-vectors, | patching.conditions[1]: got 'no-vectors'; did you mean 'no-vector'?
facts: packaged | facts: package | patching.facts: got 'package'; give 'packaged', a CounterFact
facts: packaged | facts: no/such.json | patching.facts: there is no file no/such.json
device: cpu | device: gpu | device: got 'gpu'; did you mean 'cpu'?
known_only: false | known_only: 0 | patching.known_only: must be true or false, got 0
patching: # | patching: 3 # | is not valid YAML
questions: packaged | questions: mmlu | ablation.questions: got 'mmlu'; give 'packaged', or a hub
["Hint: {}", | ["Hint", | ablation.hints[0]: must hold {} once, where the letter goes, got 'Hint'
[full, untrained] | [locate] | ablation.conditions[0]: got 'locate'
excluded_subjects: [] | excluded_subjects: [1] | ablation.excluded_subjects[0]: must be text, got 1
device: cpu | tasks: 1 | tasks: must be settings (key: value), got 1
device: cpu | tasks: {mine: {sizes: [0]}} | tasks.mine.sizes[0]: must be at least 1, got 0
"""
FEATURE_MISTAKES = """
dictionaries: trained | dictionaries: train | features.dictionaries: got 'train'; give 'trained'
dictionaries: trained | dictionaries: scope/l19 | features.dictionaries: got 'scope/l19'
checkpoint: trained | checkpoint: mine | features.simulator.checkpoint: got 'mine'; give 'trained'
    lora_r: 4 |     lora_rank: 4 | features.simulator.lora_rank: unknown setting; did you mean
text: packaged | text: fineweb | features.text: got 'fineweb'; give 'packaged', or a hub id
layers: [1, 2] | layers: [1, 1] | features.layers: names the same thing twice
[1.0, 5.0, | [0.0, 5.0, | features.selfie_scales[0]: must be above 0, got 0.0
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [(SMOKE, line) for line in MISTAKES.strip("\n").splitlines()]
    + [(WHOLE, line) for line in FEATURE_MISTAKES.strip("\n").splitlines()],
)
def test_a_mistake_is_named_with_its_place(tmp_path, text, line):
    path = tmp_path / "mine.yaml"
    old, new, message = line.split(" | ")
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_profile(path)
    assert str(path) in str(error.value)


def test_a_file_without_settings_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    for text, got in (("", "nothing"), ("- 1", "[1]")):
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(f"must be settings (key: value), got {got}")):
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


def test_a_task_of_ones_own_has_a_section(tmp_path):
    path = tmp_path / "mine.yaml"
    section = (
        "{targets: [tiny-llama], explainers: [self], conditions: [full], sizes: [8], n_test: 4"
    )
    path.write_text(SMOKE + f"\ntasks:\n  mine: {section}, epochs: 3, options: {{length: 5}}}}\n")
    profile = load_profile(path)
    assert profile.section("mine").options == {"length": 5}
    assert profile.training_for("mine") == dataclasses.replace(profile.training, epochs=3)
    assert profile.explainer_for("mine") == profile.explainer
    assert profile.section("patching") is profile.patching and profile.section("other") is None


@pytest.fixture
def params(tmp_path, monkeypatch):
    """A folder in place of params/, with the profile smoke as `big`."""
    monkeypatch.setattr(profiles, "REPO", tmp_path)
    (tmp_path / "params" / "big").mkdir(parents=True)
    (tmp_path / "params" / "big.yaml").write_text(WHOLE)
    return tmp_path / "params"


def test_a_part_says_what_differs_and_names_its_tasks(params):
    (params / "big" / "part.yaml").write_text(
        "patching: {sizes: [8]}\nablation: {}\ntraining: {epochs: 2}\nseeds: [1]\n"
    )
    big = load_profile("big")
    [part] = big.parts
    assert part == load_profile("big/part") and part.source == "big/part" and part.name == "big"
    assert part.features is None and part.ablation == big.ablation
    assert part.patching == dataclasses.replace(big.patching, sizes=(8,))
    assert part.training == dataclasses.replace(big.training, epochs=2)
    assert (part.seeds, part.variants, part.joint) == ((1,), big.variants, big.joint)


def test_a_section_within_a_section_is_replaced_whole(params):
    (params / "big" / "part.yaml").write_text("features: {simulator: {layers: 1}}\n")
    with pytest.raises(
        UserError, match=r"part.yaml: [\s\S]*features.simulator.checkpoint: missing"
    ):
        load_profile("big")


def test_a_mistake_is_in_the_file_that_has_it(params):
    part = params / "big" / "part.yaml"
    part.write_text("patching: {size: [8]}\n")
    message = "part.yaml: patching.size: unknown setting; did you mean 'sizes'?"
    for name in ("big", "big/part"):
        with pytest.raises(UserError, match=re.escape(message)):
            load_profile(name)
    part.write_text("patching: {}\n")
    (params / "big.yaml").write_text(WHOLE.replace("device: cpu", "device: gpu"))
    with pytest.raises(UserError, match="big.yaml: device: got 'gpu'"):
        load_profile("big/part")


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


@settings(max_examples=40)
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
