import contextlib
import dataclasses
import itertools
import json
import math
import random
import weakref

import pytest
import torch
from explaining import (
    BLOCKS,
    TRAINING,
    WORDS,
    Interruption,
    encode,
    interrupted_after,
    make_examples,
    make_explainer,
    training_settings,
    vectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from introspect_utils.explainer import checkpoints, fit
from introspect_utils.explainer.checkpoints import RESUME
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.projection import Projection
from introspect_utils.explainer.train import _fingerprint, held_out_loss, train
from introspect_utils.explainer.tuning import batches
from introspect_utils.models.load import load_model
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.question import Example, Question

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(explainer):
    return {name: parameter.detach().clone() for name, parameter in explainer.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- batches

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=80)


@settings(deadline=None)
@given(lengths, st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_every_epoch_takes_every_row_once(lengths, batch_size, epochs, seed):
    steps = list(batches(lengths, batch_size, epochs, seed))
    per_epoch = math.ceil(len(lengths) / batch_size)
    assert len(steps) == epochs * per_epoch
    for epoch in range(epochs):
        of_epoch = steps[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(itertools.chain(*of_epoch)) == list(range(len(lengths)))
        assert sorted(map(len, of_epoch))[1:] == [batch_size] * (
            per_epoch - 1
        )  # one may be smaller
    assert steps == list(batches(lengths, batch_size, epochs, seed))


def test_the_order_depends_on_seed_and_epoch_and_not_on_length():
    one, other = (list(batches(list(range(100)), 4, 2, seed)) for seed in (0, 1))
    assert one != other and one[:25] != one[25:50] and sorted(one[0]) != sorted(one[25])
    firsts = [sum(next(batches(list(range(100)), 4, 1, seed))) for seed in range(200)]
    assert (
        99 * 4 / 2 * 0.85 < sum(firsts) / 200 < 99 * 4 / 2 * 1.15
    )  # neither the short rows first nor the long ones


def test_rows_of_like_length_together_pad_less_than_rows_at_random():
    rng = random.Random(0)
    lengths = [rng.randint(20, 200) for _ in range(400)]

    def padding(steps):
        return sum(max(lengths[i] for i in step) - lengths[i] for step in steps for i in step)

    order = rng.sample(range(400), 400)
    assert padding(batches(lengths, 8, 1, 0)) < 0.5 * padding(
        order[i : i + 8] for i in range(0, 400, 8)
    )


# --- what is learned


def test_what_only_the_vector_tells_can_be_learned_word_for_word(tmp_path):
    """Eight questions of one wording. Answers end where they should, so EOS is learned too."""
    examples = [
        Example(Question("Which [s]v[e]?", v, BLOCKS[0]), word)
        for v, word in zip(vectors(8), WORDS, strict=True)
    ]
    explainer = make_explainer()
    wanted = training_settings(learning_rate=2e-2, batch_size=8, epochs=60, lora_r=16)
    losses = train(explainer, examples, wanted, tmp_path).losses
    assert len(losses) == 60 and losses[-1] < 0.3 * losses[0]
    assert explainer.explain([example.question for example in examples], max_new_tokens=40) == list(
        WORDS
    )


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_only_what_is_to_be_trained_changes(tmp_path, tuning):
    explainer = make_explainer("tiny-gemma3")
    drawn = explainer.projection.weight.detach().clone()
    trained = train(explainer, make_examples(), training_settings(tuning=tuning), tmp_path)
    before = dict(load_model("tiny-gemma3", "cpu").model.named_parameters())
    after, adapters = {}, {}
    for name, parameter in explainer.model.named_parameters():
        kind = adapters if "lora_" in name else after
        kind[name.removeprefix("base_model.model.").replace(".base_layer", "")] = parameter
    changed = {name: not torch.equal(after[name], before[name]) for name in before}
    assert after.keys() == before.keys() and set(changed.values()) == {tuning == "full"}
    assert bool(adapters) == (tuning == "lora") and all(
        adapter.any() for adapter in adapters.values()
    )
    assert not torch.equal(explainer.projection.weight, drawn)
    moved = sum(p.numel() for p in (*(adapters or after).values(), explainer.projection.weight))
    assert trained.trained_parameters == moved


def test_lora_is_on_every_linear_layer_of_the_decoder_and_nowhere_else(tmp_path):
    explainer = make_explainer(projection="always")
    train(explainer, make_examples(4), TRAINING, tmp_path)
    adapted = {
        name.rpartition(".lora_A")[0]
        for name, _ in explainer.named_parameters()
        if ".lora_A" in name
    }
    linear = {
        f"model.base_model.model.{name}"
        for name, module in load_model("tiny-llama", "cpu").model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    assert adapted == linear and len(linear) == 4 * 7


def test_one_seed_one_training(tmp_path):
    dropout = training_settings(lora_dropout=0.3, epochs=2)

    def losses(name, seed):
        return train(make_explainer(), make_examples(), dropout, tmp_path / name, seed).losses

    first = losses("a", 0)
    torch.manual_seed(99)
    assert losses("b", 0) == first and losses("c", 1) != first


# --- precision


def test_one_process_trains_in_several_precisions_and_keeps_weights_in_float32(tmp_path):
    runs = {}
    for number, dtype in enumerate(("float32", "bfloat16", "float32")):
        for tuning in ("lora", "full"):
            explainer = make_explainer(projection="always")
            wanted = training_settings(tuning=tuning, compute_dtype=dtype)
            losses = train(
                explainer, make_examples(), wanted, tmp_path / f"{number}-{tuning}"
            ).losses
            assert {p.dtype for p in explainer.parameters()} == {torch.float32}
            assert (
                explainer.model.config._attn_implementation == "sdpa"
            )  # again, whatever it was trained with
            runs[number, tuning] = losses
    for tuning in ("lora", "full"):
        assert runs[0, tuning] == runs[2, tuning] != runs[1, tuning]
        assert runs[1, tuning] == pytest.approx(runs[0, tuning], rel=0.02)


def test_lean_autocast_computes_what_autocast_does_and_leaves_the_model_as_it_was(
    tmp_path, monkeypatch
):
    @contextlib.contextmanager
    def plain_attention(module):  # the one thing that rounds otherwise
        explainer.model.set_attn_implementation("eager")
        yield

    runs = []
    for number, within in enumerate((fit.lean_autocast, plain_attention)):
        monkeypatch.setattr(fit, "lean_autocast", within)
        explainer = make_explainer()
        before = {id(p): (p.data_ptr(), p.detach().clone()) for p in explainer.parameters()}
        runs.append(
            train(
                explainer,
                make_examples(),
                training_settings(compute_dtype="bfloat16", epochs=2),
                tmp_path / str(number),
            )
        )
        frozen = [p for p in explainer.parameters() if id(p) in before]
        assert len(frozen) == len(before) and all(p.data_ptr() == before[id(p)][0] for p in frozen)
        assert all(torch.equal(p, before[id(p)][1]) for p in frozen)
    assert runs[0].losses == runs[1].losses and runs[0].sha256 == runs[1].sha256


def test_after_a_failed_training_the_model_is_in_float32_again(tmp_path):
    explainer = make_explainer(projection="always")
    explainer.projection.weight.register_hook(
        lambda grad: grad * float("inf") if explainer.training else grad
    )
    with pytest.raises(UserError, match="not finite"):
        train(explainer, make_examples(), training_settings(compute_dtype="bfloat16"), tmp_path)
    assert {p.dtype for p in explainer.parameters()} == {torch.float32}
    assert explainer.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_small_updates_of_a_bfloat16_model_are_not_rounded_away(tmp_path, tuning):
    explainer = make_explainer(dtype="bfloat16", projection="always")
    wanted = training_settings(
        tuning=tuning,
        compute_dtype="bfloat16",
        learning_rate=1e-6,
        weight_decay=0.0,
        max_grad_norm=1e9,
    )
    before = {name: p.float() for name, p in weights(explainer).items()}
    trained = train(explainer, make_examples(), wanted, tmp_path)
    moved = {name: p for name, p in explainer.named_parameters() if p.requires_grad}
    assert len(trained.losses) == 2 and {p.dtype for p in moved.values()} == {torch.float32}
    assert (moved["projection.weight"] != before["projection.weight"]).any(-1).float().mean() > 0.9
    if tuning == "full":
        assert all(
            (moved[name] != before[name]).float().mean() > 0.3 for name in moved if "proj" in name
        )


# --- resuming


RESUMABLE = {
    "lora with dropout and projection": (
        {"projection": "always", "vector_center": True},
        {"lora_dropout": 0.5},
        True,
    ),
    "full": ({}, {"tuning": "full"}, True),
    "in bfloat16": ({}, {"compute_dtype": "bfloat16"}, True),
    "a projection that no question uses": ({"projection": "always"}, {}, False),
    "rank-capped projection": ({"projection": "always", "projection_rank": 2}, {}, True),
}


@pytest.mark.parametrize("kind", list(RESUMABLE))
def test_a_run_interrupted_again_and_again_ends_as_one_that_was_not(tmp_path, kind):
    asked, changes, with_vector = RESUMABLE[kind]
    examples = make_examples(7, with_vector=with_vector)
    wanted = training_settings(batch_size=2, checkpoint_minutes=0, **changes)  # 4 steps
    whole = make_explainer(**asked)
    expected = train(whole, examples, wanted, tmp_path / "whole", seed=5)
    assert len(expected.losses) == 4

    for steps, done in ((1, 0), (2, 1)):  # steps taken this time, and before
        with interrupted_after(steps), pytest.raises(Interruption):
            train(make_explainer(**asked), examples, wanted, tmp_path / "parts", seed=5)
        assert not (tmp_path / "parts" / "explainer.json").exists(), done
    pieces = make_explainer(**asked)
    with interrupted_after(99) as computed:
        resumed = train(pieces, examples, wanted, tmp_path / "parts", seed=5)
    assert len(computed) == 1
    assert resumed.losses == expected.losses and same(weights(pieces), weights(whole))
    assert resumed.sha256 == expected.sha256


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_checkpoint_cut_short_leaves_the_one_before(tmp_path, monkeypatch, moment):
    wanted = training_settings(
        batch_size=2, epochs=2, checkpoint_minutes=0
    )  # a checkpoint after each of 8 steps
    whole = make_explainer()
    expected = train(whole, make_examples(), wanted, tmp_path / "whole")
    name = {"writing": "write", "renaming": "os.replace"}[moment]
    module, _, function = name.rpartition(".")
    place = paths.os if module else checkpoints
    original, calls = getattr(place, function), []

    def cut_short(first, second, *more):
        calls.append(first)
        if len(calls) == 2:
            if moment == "writing":
                second.write_bytes(b"half a file")
            raise Interruption
        return original(first, second, *more)

    monkeypatch.setattr(place, function, cut_short)
    with pytest.raises(Interruption):
        train(make_explainer(), make_examples(), wanted, tmp_path / "parts")
    monkeypatch.undo()
    pieces = make_explainer()
    with interrupted_after(99) as computed:
        resumed = train(pieces, make_examples(), wanted, tmp_path / "parts")
    assert len(computed) == 7
    assert resumed.losses == expected.losses and same(weights(pieces), weights(whole))
    assert [path.name for path in (tmp_path / "parts" / "resume").iterdir()] == [
        "state.safetensors"
    ]


def test_a_checkpoint_is_written_with_one_whole_tensor_in_memory(tmp_path, monkeypatch):
    """Of a divided tensor the whole is made when its turn comes, and freed behind it."""
    made, alive = [], []

    def whole(tensor):
        alive.append(sum(ref() is not None for ref in made))
        full = tensor.clone()
        made.append(weakref.ref(full))
        return full

    monkeypatch.setattr(checkpoints, "whole", whole)
    state = {f"weight/{i}": torch.nn.Parameter(torch.randn(3, i)) for i in range(6)}
    state["weight/half"] = torch.nn.Parameter(torch.randn(2, 3).bfloat16())
    weights = {name.removeprefix("weight/"): w for name, w in state.items()}
    step = {w: {"step": torch.tensor(3.0)} for w in weights.values()}
    checkpoints.checkpoint(tmp_path / "state", weights, step, [1.5], 2.0, "this")
    assert len(made) == 14 and max(alive) <= 1
    saved = load_file(tmp_path / "state")
    assert saved.keys() == {f"{part}/{name}" for part in ("weight", "step") for name in weights}
    for name, weight in weights.items():
        assert torch.equal(saved[f"weight/{name}"], weight)
        assert saved[f"step/{name}"] == 3 and saved[f"weight/{name}"].dtype == weight.dtype
    with safe_open(tmp_path / "state", "pt") as file:
        assert file.metadata() == {"losses": "[1.5]", "made_from": "this", "seconds": "2.0"}


def test_checkpoints_are_written_by_the_clock_and_one_is_kept(tmp_path, monkeypatch):
    """A step takes 20 of these seconds, and a checkpoint is due after every minute."""
    clock = itertools.count(step=10.0)
    monkeypatch.setattr(fit.time, "monotonic", lambda: next(clock))
    original, written = checkpoints.write, []

    def write(state, path, about):
        written.append(len(json.loads(about["losses"])))
        assert len(list((tmp_path / "resume").iterdir())) <= 2  # the last one, and this
        return original(state, path, about)

    monkeypatch.setattr(checkpoints, "write", write)
    examples = make_examples(24)
    wanted = training_settings(batch_size=2, checkpoint_minutes=1)
    train(make_explainer(), examples, wanted, tmp_path)
    gaps = [b - a for a, b in itertools.pairwise([0, *written])]
    assert written[-1] == 12 and 2 <= len(written) <= 6 and max(gaps) - min(gaps[:-1]) <= 1
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["state.safetensors"]


OTHERS = {
    "other settings": lambda: (
        make_explainer(),
        make_examples(),
        training_settings(learning_rate=2e-2),
        0,
    ),
    "other seed": lambda: (make_explainer(), make_examples(), TRAINING, 1),
    "other vectors": lambda: (make_explainer(), make_examples(seed=1), TRAINING, 0),
    "other layers": lambda: (
        make_explainer(),
        [
            Example(dataclasses.replace(e.question, layers=BLOCKS[1]), e.explanation)
            for e in make_examples()
        ],
        TRAINING,
        0,
    ),
    "other explanations": lambda: (
        make_explainer(),
        [Example(e.question, "no") for e in make_examples()],
        TRAINING,
        0,
    ),
    "other scale": lambda: (make_explainer(vector_scale="raw"), make_examples(), TRAINING, 0),
    "other projection": lambda: (
        make_explainer(projection="always", seed=1),
        make_examples(),
        TRAINING,
        0,
    ),
    "other model": lambda: (make_explainer("tiny-qwen3"), make_examples(), TRAINING, 0),
}


@pytest.mark.parametrize("kind", list(OTHERS))
def test_another_run_has_another_fingerprint(kind):
    def fingerprint(explainer, examples, wanted, seed):
        return _fingerprint(explainer, encode(explainer, examples), wanted, seed)

    settings = {"projection": "always"} if kind == "other projection" else {}
    first, again = (
        fingerprint(make_explainer(**settings), make_examples(), TRAINING, 0) for _ in range(2)
    )
    assert first == again != fingerprint(*OTHERS[kind]())


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    wanted = training_settings(checkpoint_minutes=0)
    with interrupted_after(1), pytest.raises(Interruption):
        train(make_explainer(), make_examples(), wanted, tmp_path)
    assert (tmp_path / RESUME).is_file()
    with interrupted_after(99) as computed:
        train(make_explainer(), make_examples(), wanted, tmp_path, seed=1)
    assert len(computed) == 2


def test_how_often_checkpoints_are_written_is_no_reason_to_begin_again(tmp_path):
    with interrupted_after(1), pytest.raises(Interruption):
        train(make_explainer(), make_examples(), training_settings(checkpoint_minutes=0), tmp_path)
    with interrupted_after(99) as computed:
        train(make_explainer(), make_examples(), training_settings(checkpoint_minutes=5), tmp_path)
    assert len(computed) == 1


def test_a_finished_run_is_read_back(tmp_path):
    """As when a notebook is interrupted between training and testing."""
    explainer, again = make_explainer("tiny-gemma3"), make_explainer("tiny-gemma3")
    first = train(explainer, make_examples(), TRAINING, tmp_path)
    with interrupted_after(0):
        second = train(again, make_examples(), TRAINING, tmp_path)
    assert (second.losses, second.sha256, second.trained_parameters) == (
        first.losses,
        first.sha256,
        first.trained_parameters,
    )
    assert same(weights(again), weights(explainer)) and not again.training
    kept = load_file(tmp_path / RESUME)
    assert all(
        name.startswith("weight/") for name in kept
    )  # the optimizer's moments, twice the size, are not kept


# --- what must not pass


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_vector_that_does_not_reach_the_logits_stops_training(tmp_path, monkeypatch, dropout):
    monkeypatch.setattr(Explainer, "embeddings", lambda self, batch: self.embed(batch.ids))
    wanted = training_settings(lora_dropout=dropout)
    with pytest.raises(UserError, match="changing v does not change the loss"):
        train(make_explainer(), make_examples(), wanted, tmp_path / "vector")
    train(
        make_explainer(), make_examples(with_vector=False), wanted, tmp_path / "none"
    )  # there is none to reach them


def test_one_row_whose_vector_is_lost_is_enough_to_stop_training(tmp_path, monkeypatch):
    original = Explainer.embeddings

    def embeddings(self, batch):
        embedded = original(self, batch).clone()
        embedded[0] = self.embed(batch.ids[0])
        return embedded

    monkeypatch.setattr(Explainer, "embeddings", embeddings)
    with pytest.raises(UserError, match="changing v does not change the loss"):
        train(make_explainer(), make_examples(), TRAINING, tmp_path)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_projection_that_gets_no_gradient_stops_training(tmp_path, monkeypatch, tuning):
    original = Projection.forward
    monkeypatch.setattr(
        Projection, "forward", lambda self, v, layer: original(self, v, layer).detach()
    )
    with pytest.raises(UserError, match="gets no gradient"):
        train(
            make_explainer(projection="always"),
            make_examples(),
            training_settings(tuning=tuning),
            tmp_path,
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(tmp_path, monkeypatch, value):
    original, last = Explainer.loss, 1
    seen = []

    def loss(self, batch):
        seen.append(batch)
        return original(self, batch) * (value if len(seen) > last else 1)

    monkeypatch.setattr(Explainer, "loss", loss)
    with pytest.raises(UserError, match="not finite at step 2: lower training.learning_rate"):
        train(make_explainer(), make_examples(), TRAINING, tmp_path)
    assert not (tmp_path / "explainer.json").exists()


def test_a_gradient_that_is_not_finite_in_the_last_step_stops_training(tmp_path):
    explainer = make_explainer(projection="always")
    explainer.projection.weight.register_hook(
        lambda grad: grad * float("inf") if explainer.training else grad
    )
    with pytest.raises(UserError, match="gradient .* is not finite at step 1"):
        train(explainer, make_examples(4), TRAINING, tmp_path)
    assert (
        not (tmp_path / "explainer.json").exists() and explainer.projection.weight.isfinite().all()
    )


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_explainer_is_trained_once(tmp_path, tuning):
    explainer = make_explainer()
    train(explainer, make_examples(4), training_settings(tuning=tuning), tmp_path / "first")
    for trained in (explainer, Explainer(explainer.lm, explainer.settings, 32, BLOCKS)):
        with pytest.raises(UserError, match="has been trained before"):
            train(trained, make_examples(4), training_settings(tuning=tuning), tmp_path / "second")


def test_the_losses_are_those_of_the_batches_in_order(tmp_path):
    """With a learning rate too small to matter, each step's loss is that of its rows under the
    untrained model."""
    explainer, examples = make_explainer(), make_examples()
    rows = encode(explainer, examples)
    steps = list(batches([len(ids) for _, ids, _ in rows], 3, 2, 4))
    with torch.no_grad():
        expected = [
            explainer.loss(explainer.collate([rows[i] for i in step])).item() for step in steps
        ]
    wanted = training_settings(batch_size=3, epochs=2, learning_rate=1e-12)
    trained = train(explainer, examples, wanted, tmp_path, seed=4)
    assert trained.losses == pytest.approx(expected, rel=1e-4)
    assert json.loads((tmp_path / "explainer.json").read_text())["base"] == "tiny-llama"


def test_the_linear_schedule_is_that_of_torch(tmp_path):
    def weights(by_hand):
        torch.manual_seed(0)
        module, inputs = torch.nn.Linear(3, 2), torch.randn(8, 4, 3)
        if by_hand:
            optimizer = torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.0)
            decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=8)
            for x in inputs:
                optimizer.zero_grad()
                module(x).pow(2).mean().backward()
                optimizer.step()
                decay.step()
        else:
            settings = training_settings(
                learning_rate=0.1, schedule="linear", weight_decay=0.0, max_grad_norm=1e9
            )
            fit.fit(
                module,
                lambda module, x: module(x).pow(2).mean(),
                list(inputs),
                settings,
                tmp_path / "state",
                "",
                0,
            )
        return module.weight.detach()

    torch.testing.assert_close(weights(by_hand=False), weights(by_hand=True))


@pytest.mark.slow
def test_losses_are_logged_where_that_is_asked_for(tmp_path, monkeypatch):
    """Weights & Biases, offline: what is logged lies beside the checkpoint, and the losses are the
    same."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    expected = train(make_explainer(), make_examples(), TRAINING, tmp_path / "plain").losses
    assert (
        train(
            make_explainer(),
            make_examples(),
            training_settings(log_with="wandb"),
            tmp_path / "logged",
        ).losses
        == expected
    )
    assert list((tmp_path / "logged" / "resume" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="log_with is tensorboard, which is not installed: pip install tensorboard"
    ):
        train(
            make_explainer(), make_examples(), training_settings(log_with="tensorboard"), tmp_path
        )


@pytest.mark.parametrize("ended", ["interrupted", "refused"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_however_training_ended_an_explainer_answers_without_dropout(
    tmp_path, monkeypatch, ended, dtype
):
    explainer, examples = make_explainer(dtype=dtype), make_examples()
    wanted = training_settings(lora_dropout=0.5, learning_rate=1e-1)
    if ended == "refused":
        step = fit.Loop.step

        def refusing(self, item, rate, due, number):
            if number == 2:
                raise UserError("the loss is not finite")
            return step(self, item, rate, due, number)

        monkeypatch.setattr(fit.Loop, "step", refusing)
    with contextlib.nullcontext() if ended == "refused" else interrupted_after(1):
        with pytest.raises((Interruption, UserError)):
            train(explainer, examples, wanted, tmp_path)
    assert not any(part.training for part in explainer.modules())
    questions = [example.question for example in examples]
    for _ in range(2):
        explainer.train()  # whoever left it so
        losses = {held_out_loss(explainer, examples) for _ in range(3)}
        explainer.train()
        assert len(losses) == 1
        said = [explainer.explain(questions[:1]) for _ in range(3)]
        assert said[0] == said[1] == said[2] and len(explainer.explain(questions)) == 8
