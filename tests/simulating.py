"""Simulators and exemplars that tests share."""

import torch

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_model
from introspect_utils.scores.simulator import Simulator
from introspect_utils.scores.simulator_training import Stage

DESCRIPTIONS = [
    "cities",
    "the names of countries and of their languages",
    "a {brace} or two",
    "chemical elements of any kind",
]


def make_simulator(name="tiny-llama", n_layers=2, seed=0):
    """An untrained simulator whose head already says something, for the target of the same name."""
    lm = load_model(name, "cpu", "float32")
    simulator = Simulator(lm, lm, n_layers).eval()
    torch.nn.init.normal_(simulator.head.weight, generator=torch.Generator().manual_seed(seed))
    return simulator


def make_exemplars(n=5, k=4, length=6, n_sequences=12, seed=0, vocabulary=1000, n_top=2):
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(20, vocabulary, (n_sequences, length), generator=draw)
    sequences = torch.stack([torch.randperm(n_sequences, generator=draw)[:k] for _ in range(n)])
    activations = torch.randn(n, k, length, generator=draw)
    return Exemplars(
        tokens, sequences, activations, activations.mean((1, 2)), activations.amax((1, 2)), n_top
    )


def stages(steps=(3, 2), sequences=(3, 2), n=6):
    """Two stages on different directions, with two candidates each."""
    first, second = (
        [[f"{word} {i}", f"{word} number {i} of many"] for i in range(n)]
        for word in ("one", "other")
    )
    return (
        Stage(make_exemplars(n), first, steps[0], sequences[0]),
        Stage(make_exemplars(n, seed=1), second, steps[1], sequences[1]),
    )
