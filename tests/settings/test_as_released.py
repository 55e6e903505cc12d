import re

import pytest
import torch
from explaining import encode, make_examples, make_explainer, training_settings
from whole_paper import PAPER

from introspect_utils.explainer.train import train
from introspect_utils.explainer.tuning import batches
from introspect_utils.runs.plan import plan
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.profile import load_profile
from introspect_utils.settings.sections import AsReleased, Training

pytestmark = pytest.mark.usefixtures("one_thread")
PAGES = [
    (REPO / "docs" / f"{name}.md").read_text("utf-8") for name in ("deviations", "authors_configs")
]


def rows(header):
    """The cells of each row of the table that begins with `header`."""
    lines = [
        line
        for line in "\n\n".join(PAGES).split(header)[1].split("\n\n")[0].splitlines()
        if line.startswith("|")
    ]
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if "---" not in line
    ]


@pytest.fixture
def released(tmp_path):
    """The profile smoke with the switch on."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        (REPO / "params" / "smoke.yaml")
        .read_text()
        .replace("as_released: false", "as_released: true")
    )
    return load_profile(path)


def settings_of(profile, task):
    ways = {name: getattr(profile.training, name) for name in ("loss", "weights", "order")}
    return vars(profile.training_for(task)) | vars(profile.explainer_for(task)) | ways


def test_the_table_of_deviations_names_what_the_switch_sets_and_no_more(released):
    table = rows("| | theirs | here | to have theirs |")
    said = {
        name
        for *_, last in table
        if "`as_released`" in last
        for name in re.findall(r"`(\w+)`", last.split(")")[0])
    }
    before, after = (
        settings_of(load_profile("smoke"), "patching"),
        settings_of(released, "patching"),
    )
    assert said - {"as_released", "tuning"} == {
        name for name in before if before[name] != after[name]
    }
    assert all(last for *_, last in table)
    assert load_profile("smoke").training_for("patching").order == "shuffled"


def test_a_projection_is_capped_beside_lora_alone(released):
    assert released.explainer_for("patching").projection_rank == released.training.lora_r == 4
    assert (
        released.training_for("ablation").tuning == "full"
        and released.explainer_for("ablation").projection_rank == 0
    )


def test_runs_with_the_switch_are_other_runs_and_those_without_it_as_they_were(released):
    theirs, ours = (
        {run.id: run.settings for run in plan(profile)}
        for profile in (released, load_profile("smoke"))
    )
    name = "patching-tiny-llama-self-full-n16-seed0"
    assert theirs[name]["as_released"] and "as_released" not in ours[name]
    assert not {"loss", "weights", "order"} & ours[name]["training"].keys()


def test_rows_come_in_the_order_of_the_file():
    assert list(batches([1] * 5, 2, 2, 0, "file")) == [[0, 1], [2, 3], [4]] * 2


def trained(tmp_path, name, **changes):
    explainer = make_explainer(dtype="bfloat16" if changes.get("compute_dtype") else "float32")
    settings = AsReleased(**vars(training_settings(epochs=2, **changes)))
    return explainer, train(explainer, make_examples(), settings, tmp_path / name)


def test_the_loss_is_a_mean_over_the_padded_rows_in_the_order_of_the_file(tmp_path):
    explainer, examples = make_explainer(), make_examples()
    with torch.no_grad():
        batches = [
            explainer.collate(encode(explainer, examples[start : start + 4])) for start in (0, 4)
        ]
        expected = [
            (explainer.loss(b) * (b.labels != -100).sum() / b.labels.numel()).item()
            for b in batches
        ]
    _, done = trained(tmp_path, "run", learning_rate=1e-12)
    assert done.losses == pytest.approx(
        expected * 2, rel=1e-2
    )  # the adapters' products are rounded


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_weights_are_kept_in_bfloat16(tmp_path, tuning):
    explainer, done = trained(tmp_path, "run", tuning=tuning, compute_dtype="bfloat16")
    assert {p.dtype for p in explainer.parameters() if p.requires_grad} == {
        torch.bfloat16
    } and done.losses[-1] < done.losses[0]


def test_small_updates_are_rounded_away(tmp_path):
    """What `test_training` shows not to happen in our way."""
    explainer, _ = trained(
        tmp_path, "run", tuning="full", compute_dtype="bfloat16", learning_rate=1e-6
    )
    drawn = dict(make_explainer(dtype="bfloat16").named_parameters())
    moved = [
        (p != drawn[name]).float().mean()
        for name, p in explainer.named_parameters()
        if "_proj" in name
    ]
    assert max(moved) < 0.05


def test_what_a_checkpoint_belongs_to_knows_whose_way_it_was(released):
    plain = training_settings()
    assert repr(AsReleased(**vars(plain))) == repr(plain).replace("Training(", "AsReleased(")
    assert isinstance(plain, Training)
    assert released.training == AsReleased(**vars(load_profile("smoke").training))


# --- the map from the authors' configs
# ----------------------------------------------------------------------------------


def patterns(cell):
    """The run ids that a cell of the map names: {a,b} is one of them, `...` and M stand for
    anything."""
    for text in re.findall(r"`([^`]+)`", cell):
        text = re.escape(text).replace(r"\.\.\.", ".*")
        text = re.sub(r"(?<![\w.])M(?![\w.])", ".+", re.sub(r"\\-M\b", "-.+", text))
        yield re.sub(r"\\\{(.*?)\\\}", lambda found: "(" + found[1].replace(",", "|") + ")", text)


def test_the_map_from_their_configs_names_runs_of_the_profile_paper_and_misses_none():
    runs = {run.id: run.parameters["profile"].partition("/")[2] for run in plan(PAPER)}
    found = {}
    for theirs, ours, file in rows("| their config | run here | file |")[0:]:
        for pattern in patterns(ours):
            matched = {name for name in runs if re.fullmatch(pattern, name)}
            assert matched, f"{theirs}: no run {pattern}"
            found |= dict.fromkeys(matched, theirs)
            files = {
                name.removeprefix("paper/").replace("paper", "")
                for name in re.findall(r"`([^`]+)`", file)
            }
            assert {runs[name] for name in matched} <= files or "M" in ours, (
                f"{theirs}: {matched} are in another file"
            )
    explainers = {
        name for name in runs if re.match(r"(features|patching|ablation)-(?!errors)", name)
    }
    assert sorted(explainers - found.keys()) == []
