"""The comparisons of benchmarks/ at their smallest: outputs equal to each peer's, what the table
says, and growth."""

import importlib
import json
from dataclasses import replace

import nbformat
import pytest
import torch

from benchmarks import growth, import_time, minutes, table, timing
from benchmarks.__main__ import NAMES
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = {"vocab_size": 2000, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
SIZES = {
    "patching": 2,
    "training": 8,
    "training_memory": 4,
    "simulator": 2,
    "exemplars": 64,
    "neighbours": 8,
}
SIZES |= {"generation": 4, "ablation": 3}
SMALLER = {
    "training_memory": {"shape": SHAPE},
    "exemplars": {"directions": 16},
    "neighbours": {"train": 3000},
}
PEERS = {
    "patching": (
        "TransformerLens",
        "nnsight, a trace a label",
        "nnsight, positions together",
        "plain batched hooks",
    ),
    "training": ("Trainer + PEFT, the same rows a step", "Trainer + PEFT, rows in random order"),
    "training_memory": ("Trainer + PEFT, the same rows a step",),
    "simulator": ("delphi's form", "one sequence at a time"),
    "exemplars": ("delphi: LatentCache, then its windows by maximum",),
    "neighbours": ("faiss IndexFlatIP",),
    "generation": ("`generate` row by row", "`generate` in batches"),
    "ablation": ("two whole passes",),
}


@pytest.fixture(scope="module")
def comparisons(tiny, tmp_path_factory):
    """Every comparison with the tiny model, made when it is first asked for."""
    made, patched = {}, pytest.MonkeyPatch()
    patched.setattr(
        "benchmarks.generation.artifacts_dir", lambda name: tmp_path_factory.mktemp(name)
    )

    def comparison(name):
        if name not in made:
            compare = importlib.import_module(f"benchmarks.{name}").compare
            made[name] = compare(tiny, SIZES[name], **SMALLER.get(name, {}))
        return made[name]

    yield comparison
    patched.undo()


def altered(output):
    """The same kind of output with other values."""
    if isinstance(output, torch.Tensor):
        return -1 - output
    if isinstance(output, dict):
        return {key: value + "x" for key, value in output.items()}
    if isinstance(output, tuple):
        return tuple(map(altered, output))
    return [value + "x" if isinstance(value, str) else 2 * value + 1 for value in output]


@pytest.mark.parametrize(("name", "peer"), [(name, peer) for name in NAMES for peer in PEERS[name]])
def test_outputs_are_those_of_the_peer(comparisons, name, peer):
    comparison = comparisons(name)
    [chosen] = [other for other in comparison.peers if other.name == peer]
    if not chosen.installed:
        pytest.skip(f"{chosen.package} is not installed: see benchmarks/README.md")
    costs = timing.turn(replace(comparison, peers=[chosen]))
    assert set(costs) == {"ours", peer} and min(costs.values()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_other_outputs_are_refused(comparisons, name):
    comparison = comparisons(name)
    assert tuple(peer.name for peer in comparison.peers) == PEERS[name]
    ours = comparison.ours()
    for peer in comparison.peers:
        peer.check(ours, ours)
        with pytest.raises(AssertionError):
            peer.check(ours, altered(ours))


def test_peak_memory_is_that_of_the_run_alone():
    def hold(mb):
        return lambda: bytearray(mb * 2**20)[0]

    large, small = timing.peak_memory(hold(300))[0], timing.peak_memory(hold(100))[0]
    assert large - small == pytest.approx(200, abs=20)


def test_multiply_adds(tiny):
    config, d = tiny.model.config, tiny.width
    layer = (
        d * config.head_dim * 2 * (config.num_attention_heads + config.num_key_value_heads)
        + 3 * d * config.intermediate_size
    )
    assert timing.decoder_macs(tiny, 7, n_layers=2) == 7 * 2 * layer
    assert timing.decoder_macs(tiny, 0, logits=3) == 3 * d * config.vocab_size


def test_the_measured_ratio_is_of_costs_a_unit():
    costs = iter([10.0, 6.0, 10.0, 12.0, 10.0, 8.0])  # ours, the peer's; three rounds
    peer = timing.Peer("peer", lambda: None, 2, 1.5, lambda ours, its: None)

    def cost(run):
        return next(costs), run()

    record = timing.measure(
        timing.Comparison("made_up", "unit", lambda: None, 10, [peer], measure=cost), rounds=3
    )
    [row] = record["peers"]
    assert (record["ours"], row["lowest"], row["ratio"], row["highest"]) == (1.0, 3.0, 4.0, 6.0)


def test_the_table_marks_what_is_not_reached():
    peers = [
        {"peer": "a", "target": 3, "n": 1, "ratio": 2.5, "lowest": 2.0, "highest": 3.5, "cost": 0.5}
    ]
    peers += [
        {"peer": "b", "target": 2, "n": 1, "ratio": 2.5, "lowest": 2.0, "highest": 3.5, "cost": 0.5}
    ]
    peers += [{"peer": "c", "target": 4, "n": 1}]
    record = {
        "name": "made_up",
        "unit": "label",
        "n": 4,
        "ours": 0.2,
        "measure": "seconds",
        "share_of_floor": 0.25,
        "peers": peers,
    }
    a, b, c = table.rows(record)
    assert a == (
        "made_up: label",
        4,
        "a",
        "5 a second",
        "2 a second",
        "2.50 (2.00 to 3.50)",
        "3, **not reached**",
        "25%",
    )
    assert b[-2] == "2" and c[4:7] == ("not installed", "–", "4")


def test_the_readme_holds_the_table_of_the_result_files():
    records = [json.loads(path.read_text()) for path in sorted(timing.RESULTS.glob("*.json"))]
    assert table.table(records) in table.README.read_text()


def test_growth(tiny):
    assert growth.slope((1, 2, 4), (3, 12, 48)) == pytest.approx(2)
    sizes = {
        "fact pairs": (1, 2),
        "directions": (8, 16),
        "tokens of the corpus": (640, 1280),
        "training rows": (8, 16),
        "test rows": (60, 120),
    }
    assert sizes.keys() == growth.SIZES.keys()
    sweeps = {what: growth.sweep(tiny, what, of_sweep) for what, of_sweep in sizes.items()}
    titles = [axes.get_title() for axes in growth.draw(sweeps).axes]
    assert f"slope {sweeps['directions']['slope']:.2f}" in titles and len(titles) == 2 * len(sizes)


def test_importing_the_package_is_quick():
    assert min(import_time.import_seconds("introspect_utils", rounds=3)) < import_time.TARGET


def test_minutes_are_those_that_papermill_noted(tmp_path):
    cell = nbformat.v4.new_code_cell
    timed = [
        cell("import time", metadata={"papermill": {"duration": 6.0}}),
        cell("\nfit(x)\n", metadata={"papermill": {"duration": 54.0}}),
    ]
    for name, cells in (
        ("a", timed),
        ("b", [*timed, cell("never_run()"), nbformat.v4.new_markdown_cell("words")]),
    ):
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    said = minutes.minutes(tmp_path)
    assert said.startswith("2 runs, 2.0 minutes together, 0.2 of them imports.")
    assert "| 1.0 | 50% | a |" in said and "| 0.9 | 45% | b: `fit(x)` |" in said
    with pytest.raises(UserError, match="run_all.sh makes them"):
        minutes.minutes(tmp_path / "nothing")
