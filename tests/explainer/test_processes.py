"""Two processes on the CPU (gloo) against one."""

import dataclasses
import gc
import json
from types import SimpleNamespace

import pytest
import torch
from explaining import (
    Interruption,
    encode,
    interrupted_after,
    make_examples,
    make_explainer,
    training_settings,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_train import weights
from torch.multiprocessing import ProcessRaisedException, spawn
from torch.nn import Parameter

from introspect_utils.explainer import processes
from introspect_utils.explainer.fit import Loop, fit
from introspect_utils.explainer.train import train
from introspect_utils.explainer.tuning import loss_of, make_trainable
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import AsReleased, Training

pytestmark = pytest.mark.usefixtures("one_thread")
WAYS = {
    # 3 and 3 and 1 row a step: one process has none
    "lora, copied": ("tiny-llama", {"tuning": "lora", "sharded": False, "batch_size": 3}),
    "full, sharded": (
        "tiny-gemma3",  # with a projection
        {"tuning": "full", "sharded": True, "batch_size": 4, "gradient_checkpointing": True},
    ),
    "lora, sharded": (
        "tiny-gemma3",
        {"tuning": "lora", "sharded": True, "batch_size": 3, "compute_dtype": "bfloat16"},
    ),
}
SLOW = pytest.param("lora, sharded", marks=pytest.mark.slow)


@pytest.mark.parametrize("way", ["lora, copied", "full, sharded", SLOW])
def test_two_processes_train_as_one_does_and_leave_the_same_files(tmp_path, way):
    name, changes = WAYS[way]
    exact = "compute_dtype" not in changes
    settings = training_settings(epochs=2, learning_rate=1e-3, **changes)
    one, two = make_explainer(name), make_explainer(name)
    expected = train(one, make_examples(7), settings, tmp_path / "one", seed=3)
    begun = 2 if changes["sharded"] else 0  # steps of one process, then two go on
    if begun:
        first = dataclasses.replace(settings, checkpoint_minutes=0)
        with interrupted_after(begun), pytest.raises(Interruption):
            train(make_explainer(name), make_examples(7), first, tmp_path / "two", seed=3)
    found = train(
        two, make_examples(7), dataclasses.replace(settings, processes=2), tmp_path / "two", seed=3
    )
    assert found.losses[:begun] == expected.losses[:begun]
    assert len(found.losses) == len(expected.losses) > 3
    assert found.losses == pytest.approx(expected.losses, rel=1e-4 if exact else 2e-3)
    # a loss in bfloat16 would be 8.0625 for 8.0913
    assert all(loss != torch.tensor(loss).bfloat16().item() for loss in found.losses)
    assert found.trained_parameters == expected.trained_parameters
    assert not (tmp_path / "two" / processes.HANDED_OVER).exists()
    for key, weight in weights(one).items():
        atol = 2e-4 if exact else 5e-3  # AdamW's steps are of 1e-3 whatever the gradient
        torch.testing.assert_close(weights(two)[key], weight, rtol=1e-3, atol=atol)
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


def measure_live_bytes(rank, port, folder):
    """One of two processes: full tuning, and how much all tensors hold behind each step."""
    processes.meet(rank, 2, port)
    torch.set_num_threads(1)
    settings = training_settings(tuning="full", sharded=True, processes=2)
    explainer = make_explainer()
    rows = encode(explainer, make_examples())
    make_trainable(explainer, settings, 0)
    n, original, live = sum(p.numel() for p in explainer.parameters()), Loop.step, []

    def step(self, *arguments):
        result = original(self, *arguments)
        gc.collect()
        tensors = [part for part in gc.get_objects() if type(part) in (torch.Tensor, Parameter)]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        live.append(sum(storages.values()))
        return result

    Loop.step = step
    loss = loss_of(rows, settings, rank, 2)
    fit(explainer, loss, [[0, 1], [2, 3]], settings, folder / "state", "", 0)
    (folder / f"{rank}.json").write_text(json.dumps([n, *live]))


@pytest.mark.slow
def test_each_of_two_processes_holds_half_of_weights_and_moments_and_no_copy(tmp_path):
    """4 bytes a weight and 8 of moments, halved. A copy of the weights would be 4 bytes more."""
    store = processes.meeting_place()
    spawn(measure_live_bytes, (store.port, tmp_path), nprocs=2)
    for path in tmp_path.glob("*.json"):
        n, *live = json.loads(path.read_text())
        assert len(live) == 2 and all(5.5 * n < held < 7 * n for held in live), (n, live)


def test_what_stops_a_process_is_said_in_one_line(tmp_path, monkeypatch):
    def spawn(work, given, nprocs):
        said = f"Process 0 failed:\n{processes.REFUSED}the loss (nan) is not finite at step 2"
        raise ProcessRaisedException(said, 0, 1)

    monkeypatch.setattr(processes, "spawn", spawn)
    with pytest.raises(UserError, match="^the loss .nan. is not finite at step 2$"):
        train(make_explainer(), make_examples(), training_settings(processes=2), tmp_path)


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    on_gpu = SimpleNamespace(lm=SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UserError, match="training.processes is 2, and this machine has 1 GPUs: lower it"
    ):
        processes.train_together(on_gpu, [], tmp_path, 2, {})


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
