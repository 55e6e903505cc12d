"""Figures 1 to 4: the rows that they show, and that all text is on the page and legible, whatever a
model said."""

import itertools
import json

import matplotlib
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_tokenizer
from introspect_utils.report import drawings, style
from introspect_utils.report.drawn_examples import find_examples
from introspect_utils.settings import paths
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import task_ablation, task_patching
from introspect_utils.tasks.rows import ABLATION, write_rows

SMALL = {
    task: {"verdict": "right"} | example
    for task, example in json.loads(
        (paths.REPO / "figures" / "small" / "examples.json").read_text()
    ).items()
}
NAMES = [name for name in drawings.DRAWINGS if name.startswith("figure")]
TARGET = "tiny-llama"
LONG = "$x_1$ and\n" + "a" * 90 + " " + "many words " * 12


def patch_row(subject, other, answer, patched, layers=(0, 1)):
    """A patch of the subject's last token, whose statements stand behind a solved example."""
    return {
        "layer": list(layers),
        "input_tokens": ["", "Rome is in", " Italy", ".", "\n", *subject, " is", " in"],
        "original_continuation": [answer],
        "ablated_continuation": [patched],
        "is_different": answer != patched,
        "patch_position": {
            "orig_pos": 4 + len(subject),
            "counterfact_pos": 4 + len(other),
            "orig_text_token": subject[-1],
            "counterfact_text_token": other[-1],
            "intervention_vector": [0.5] * 4,
        },
        "counterfactual_text": f"Rome is in Italy.\n{''.join(other)} is in",
        "gt_original_target": "France",
        "gt_counterfactual_target": "Spain",
        "token_type": "Subject Final",
    }


def hint_row(question, hint, hinted, unhinted):
    prompt = f"Question: {question}\nA. one\nB. two\nC. three\nD. four"
    texts = dict.fromkeys(
        ("original_prompt_full", "hint_prompt_full", "system_prompt", "ablation_prompt"), "x"
    )
    return texts | {
        "index": 0,
        "question": question,
        "choices": ["one", "two", "three", "four"],
        "correct_answer": "A",
        "zeroshot_prediction": unhinted,
        "random_hint_prediction": hinted,
        "hint_token_ids": [1],
        "original_user_prompt": prompt,
        "hint_user_prompt": f"{prompt}\n{hint}",
        "hint": hint,
        "changed_pred_bc_hint": hinted != unhinted,
        "subject": "geography",
    }


PATCHES = [
    patch_row(["Par", "is"], ["Ma", "drid"], " France", " Spain"),  # answered wrong, below
    patch_row(["Ly", "on"], ["Bilb", "ao"], " France", " Spain", (2, 3)),
    patch_row(["Nice"], ["Vigo"], " France", " France"),  # shorter, and unchanged
]
HINTS = [hint_row("Which?", "Hint: B", "B", "C"), hint_row("Which of them?", "Hint: B", "B", "A")]


def run(task):
    return {
        "id": f"{task}-run",
        "task": task,
        "target": TARGET,
        "explainer": "self",
        "n_train": 16,
        "seed": 0,
        "condition": ["full"],
    }


@pytest.fixture
def runs():
    """Runs of the self-explainer: of each task the second row is the one to draw."""
    right = [task_patching.answer(row) for row in PATCHES]
    patching = task_patching.predictions(PATCHES, ["nonsense", *right[1:]], "self", "full")
    rows = task_ablation.checked(HINTS, "here")
    ablation = task_ablation.predictions(
        rows, ["nonsense", task_ablation.answer(rows[1])], "self", "full"
    )
    features = pd.DataFrame(
        {
            "row": [0, 1, 2],
            "feature": ["sae/1/4", "sae/1/5", "act/1/0"],
            "data": ["sae", "sae", "act"],
        }
    )
    features = features.assign(
        layer="1",
        generation=["the word", "red things", "x"],
        gold=["a", "red things", ""],
        condition="full",
    )
    features = features.assign(judge=[0.5, 1.0, None], simulator=[0.9, 0.4, 0.95], explainer="self")
    return [(run("features"), features), (run("patching"), patching), (run("ablation"), ablation)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with the artifacts of these runs."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = paths.artifacts_dir("smoke")
    write_rows(folder / "patching" / TARGET / "test.parquet", PATCHES)
    write_rows(folder / "ablation" / TARGET / "test.parquet", HINTS, ABLATION)
    own = folder / "features" / TARGET
    names, data = (
        ("sae/1/3", "act/1/0", "sae/1/5", "sae/1/4"),
        ("sae", "act", "sae", "sae"),
    )  # in another order than tested
    Directions(
        names, data, ("train", "test", "test", "test"), (1,) * 4, torch.eye(4), ("",) * 4
    ).save(own / "directions.safetensors")
    ids = torch.tensor(
        load_tokenizer(TARGET)(["Paris is in France", "Rome is in Italy now"], padding=True)[
            "input_ids"
        ]
    )
    active = torch.zeros(4, 2, ids.shape[1])
    active[2, 0, 2], active[2, 1, 3] = 2.0, 1.0
    moments = torch.zeros(4), torch.full((4,), 2.0)
    Exemplars(ids, torch.tensor([[0, 1]] * 4), active, *moments, n_top=2).save(
        own / "exemplars.safetensors"
    )
    candidates = pd.DataFrame(
        {
            "feature": ["sae/1/3", "sae/1/5", "sae/1/4"],
            "candidates": [["a"], ["red things", "colours"], ["a"]],
        }
    )
    candidates.to_parquet(own / "candidates.parquet")
    simulator = paths.run_dir("smoke", f"simulator-{TARGET}")
    simulator.mkdir(parents=True)
    described = {"sae/1/5": "red things", "sae/1/4": "a", "sae/1/3": "a"}
    described = pd.DataFrame(described.items(), columns=["feature", "description"])
    described.assign(score=0.7).to_parquet(simulator / "descriptions.parquet")
    return tmp_path


def test_the_row_that_is_drawn_is_right_changed_and_as_the_runs_have_it(root, runs):
    found = find_examples(load_profile("smoke"), runs)
    assert {task: example["row"] for task, example in found.items()} == {
        "features": 1,
        "patching": 1,
        "ablation": 1,
    }
    feature, patch, hint = found.values()
    assert (
        feature["explanation"] == "red things"
        and feature["score"] == 0.7
        and feature["candidates"] == ["red things", "colours"]
    )
    assert "layer 1" in feature["question"] or feature["question"].endswith("encodes")
    peaks = [max(exemplar, key=lambda token: token[1]) for exemplar in feature["exemplars"]]
    assert [share for _, share in peaks] == [1.0, 0.5]
    assert patch["x"] == ["Ly", "on", " is in"] and patch["x_prime"] == ["Bilb", "ao", " is in"]
    assert "<<<… Lyon is in>>>" in patch["question"] and "Rome" not in patch["question"]
    assert patch["answer_prime"] is None  # smoke does not ask its target what it knows
    assert (hint["hinted"], hint["unhinted"], hint["hint"]) == ("B", "A", "Hint: B")
    assert hint["explanation"] == hint["generation"]
    assert feature["verdict"] == "judge 1.00, simulator 0.40"
    assert patch["verdict"] == hint["verdict"] == "right"
    assert set(feature["at_random"]) == {"sae/1/4", "sae/1/5"}  # held-out SAE features alone


def test_a_whole_word_is_drawn_before_a_part_of_one(root, runs):
    rows = [*PATCHES, patch_row([" Oslo"], [" Bern"], " France", " Spain")]
    write_rows(paths.artifacts_dir("smoke") / "patching" / TARGET / "test.parquet", rows)
    right = [task_patching.answer(row) for row in rows]
    runs[1] = (runs[1][0], task_patching.predictions(rows, right, "self", "full"))
    assert find_examples(load_profile("smoke"), runs)["patching"]["x"] == ["", " Oslo", " is in"]


def test_a_right_answer_in_other_words_is_right(root, runs):
    said = runs[2][1]
    said.loc[1, "generation"] = said.loc[1, "generation"].replace(".", "")
    assert find_examples(load_profile("smoke"), runs)["ablation"]["verdict"] == "right"


def test_without_the_artifacts_the_examples_that_were_kept_are_drawn_as_long_as_they_are_of_the_run(
    root, runs
):
    profile = load_profile("smoke")
    found = find_examples(profile, runs)
    (root / "artifacts").rename(root / "elsewhere")
    assert find_examples(profile, runs) == found
    runs[1][1].loc[1, "generation"] = "another answer"
    assert find_examples(profile, runs).keys() == {"features", "ablation"}
    assert find_examples(profile, [runs[0]]).keys() == {"features"}
    assert find_examples(profile, []) == {}


def longer(example):
    """An example of which a model said more than fits, and other things than text."""
    return (
        example
        | {"generation": LONG, "question": f"{example['question']} {LONG}"}
        | ({"candidates": [LONG]} if "layer" in example else {})
    )


@pytest.mark.parametrize(
    "change",
    [dict, longer, lambda example: example | {"generation": ""}],
    ids=["small", "long", "empty"],
)
def test_no_text_is_cut_and_none_stands_on_another(change, monkeypatch):
    examples = {task: change(example) for task, example in SMALL.items()}
    figures = {name: drawings.drawing(name, examples) for name in NAMES}
    monkeypatch.setitem(
        matplotlib.rcParams, "text.hinting", style.SETTINGS["text.hinting"]
    )  # as the files are written
    for name, figure in figures.items():
        renderer, scale = FigureCanvasAgg(figure).get_renderer(), 72 / figure.dpi
        boxes = [
            (text.get_window_extent(renderer), text.get_text())
            for text in figure.axes[0].texts
            if text.get_text().strip()
        ]
        height = figure.get_figheight() * 72
        for box, text in boxes:
            x0, y0, x1, y1 = (end * scale for end in box.extents)
            assert x0 >= 0 and y0 >= 0 and x1 <= drawings.WIDTH and y1 <= height, (name, text)
        for (a, first), (b, second) in itertools.combinations(boxes, 2):
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(wide, high) * scale < 1.5, (name, first, second)


def test_a_task_without_an_example_is_left_out():
    some = {"ablation": SMALL["ablation"]}
    drawn = [name for name in NAMES if drawings.drawing(name, some) is not None]
    assert drawn == ["figure_1", "figure_4"]


def test_what_a_model_says_is_no_mark():
    said = "<b>5 < 6 & x_1</b> <<<a b>>> {{ x }}"
    drawn = drawings.drawing("figure_2", {"features": SMALL["features"] | {"generation": said}})
    texts = [text.get_text() for text in drawn.axes[0].texts]
    assert {"<b>5", "&", "{{", "<<<a\u00a0b>>>"} <= set(texts)


def test_the_same_examples_give_the_same_bytes_in_the_fonts_and_colours_of_the_style(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(style.SETTINGS, "savefig.dpi", 40)
    for folder in ("a", "b"):
        style.save_figure(drawings.drawing("figure_1", SMALL), tmp_path / folder, "figure_1")
    for form in ("png", "svg", "pdf"):
        a, b = ((tmp_path / folder / f"figure_1.{form}").read_bytes() for folder in "ab")
        assert a == b
    drawn = drawings.drawing("figure_1", SMALL).axes[0]
    assert {text.get_fontname() for text in drawn.texts} == {style.SETTINGS["font.family"]}
    assert {text.get_fontsize() for text in drawn.texts} == {7}
    own = SMALL["features"]["generation"].split()[-1]
    assert style.BLUE in [text.get_color() for text in drawn.texts if text.get_text() == own]
