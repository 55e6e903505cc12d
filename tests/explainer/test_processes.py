"""Two processes on the CPU (gloo) against one."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from explaining import (
    Interruption,
    interrupted_after,
    make_examples,
    make_explainer,
    training_settings,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_train import weights

from introspect_utils.explainer import processes
from introspect_utils.explainer.steps import loss_of
from introspect_utils.explainer.train import train
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import AsReleased, Training

pytestmark = pytest.mark.usefixtures("one_thread")
WAYS = {
    "lora, copied": (
        "tiny-llama",
        {"tuning": "lora", "sharded": False, "batch_size": 3},
    ),  # 3 and 3 and 1: one has no row
    "lora, sharded": (
        "tiny-gemma3",
        {"tuning": "lora", "sharded": True, "batch_size": 3},
    ),  # with a projection
    "full, sharded": (
        "tiny-gemma3",
        {"tuning": "full", "sharded": True, "batch_size": 4, "gradient_checkpointing": True},
    ),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_two_processes_train_as_one_does_and_leave_the_same_files(tmp_path, way):
    name, changes = WAYS[way]
    settings = training_settings(epochs=2, learning_rate=1e-3, **changes)
    one, two = make_explainer(name), make_explainer(name)
    expected = train(one, make_examples(7), settings, tmp_path / "one", seed=3)
    with interrupted_after(2), pytest.raises(Interruption):  # one process begins, two go on
        train(
            make_explainer(name),
            make_examples(7),
            dataclasses.replace(settings, checkpoint_minutes=0),
            tmp_path / "two",
            seed=3,
        )
    found = train(
        two, make_examples(7), dataclasses.replace(settings, processes=2), tmp_path / "two", seed=3
    )
    assert found.losses[:2] == expected.losses[:2] and len(found.losses) == len(expected.losses) > 3
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert found.trained_parameters == expected.trained_parameters
    assert not (tmp_path / "two" / processes.HANDED_OVER).exists()
    for key, weight in weights(one).items():
        torch.testing.assert_close(weights(two)[key], weight, rtol=1e-3, atol=2e-4)
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.*")}
    assert files.keys() == {
        path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.*")
    }
    for relative, path in files.items():
        if path.suffix == ".safetensors":
            shapes = [
                {key: (w.shape, w.dtype) for key, w in load_file(p).items()}
                for p in (path, tmp_path / "two" / relative)
            ]
            assert shapes[0] == shapes[1]


def test_what_stops_a_process_is_said_in_one_line(tmp_path):
    settings = training_settings(learning_rate=1e30, processes=2, epochs=2)
    with pytest.raises(
        UserError, match="^the loss .* is not finite at step 2: lower training.learning_rate"
    ):
        train(make_explainer(), make_examples(), settings, tmp_path)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    on_gpu = SimpleNamespace(lm=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UserError, match="training.processes is 2, and this machine has 1 GPUs: lower it"
    ):
        processes.hand_over(on_gpu, [], tmp_path, 2)


@pytest.mark.parametrize("kind", [Training, AsReleased])
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=7),
    processes=st.integers(1, 4),
)
def test_the_mean_of_the_processes_losses_is_that_of_all_rows(kind, lengths, processes):
    """A stand-in for the explainer, whose loss is a mean over tokens of 1 + the number of their
    row."""
    rows = [
        (number, [0] * (n_prompt + n), n_prompt) for number, (n_prompt, n) in enumerate(lengths)
    ]

    def explainer(chosen):
        values = [1.0 + number for number, ids, n_prompt in chosen for _ in ids[n_prompt:]]
        return sum(values) / len(values)

    everything = list(range(len(rows)))
    settings = kind(**vars(training_settings()))
    parts = [
        loss_of(rows, settings, rank, processes)(explainer, everything) for rank in range(processes)
    ]
    total = sum((1 + number) * n for number, (_, n) in enumerate(lengths))
    size = sum(n for _, n in lengths) if kind is Training else len(rows) * max(map(sum, lengths))
    assert sum(parts) / processes == pytest.approx(total / size)
    assert loss_of(rows, settings)(explainer, everything) == pytest.approx(total / size)
