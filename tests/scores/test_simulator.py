import itertools
import json
import math

import numpy as np
import pytest
import torch
from explaining import Interruption, interrupted_after, training_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import pearsonr
from simulating import DESCRIPTIONS, make_exemplars, make_simulator, stages

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.load import load_model
from introspect_utils.report.figures import calibration
from introspect_utils.scores import simulator_scores, simulator_training
from introspect_utils.scores.simulator import HEAD, PROMPT, Simulator
from introspect_utils.scores.simulator_scores import (
    against_baselines,
    pearson,
    score,
    score_candidates,
    score_predictions,
    shuffled,
    simulate,
    word_overlap,
)
from introspect_utils.scores.simulator_training import Stage, plan_steps, train_simulator
from introspect_utils.settings.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ["tiny-llama", "tiny-qwen3", "tiny-gemma3"]


# --- the model


@pytest.mark.parametrize(
    ("name", "n_layers"), [("tiny-llama", 1), ("tiny-qwen3", 4), ("tiny-gemma3", 4)]
)
def test_sharing_the_prompt_equals_separate_passes_without_padding(name, n_layers):
    """The oracle: one unpadded, uncached pass for every sequence, with the model's own layers, norm
    and positions."""
    simulator, exemplars = make_simulator(name, n_layers), make_exemplars()
    decoder = load_model(name, "cpu", "float32").model.get_decoder()
    decoder.layers = decoder.layers[:n_layers]
    tokens = exemplars.tokens[exemplars.sequences[:4]]  # [4, 4, 6]
    predicted = simulator.expected(DESCRIPTIONS, tokens)
    assert (
        predicted.shape == tokens.shape
        and len({len(simulator.lm.encode(text)) for text in DESCRIPTIONS}) > 1
    )
    for i, description in enumerate(DESCRIPTIONS):
        prompt = simulator.lm.encode(f"## Neuron Description: {description}\n\n ## Input: ")
        for j in range(4):
            ids = torch.tensor([prompt + tokens[i, j].tolist()])
            with torch.inference_mode():
                hidden = decoder(ids, use_cache=False).last_hidden_state[0, len(prompt) :]
                probabilities = torch.softmax(
                    hidden @ simulator.head.weight.T + simulator.head.bias, -1
                )
            expected = sum(value * probabilities[:, value] for value in range(11))
            torch.testing.assert_close(predicted[i, j], expected, atol=1e-4, rtol=1e-4)
    assert predicted.std() > 0.1


def test_another_description_and_an_earlier_token_change_a_prediction_and_a_later_token_does_not():
    simulator, tokens = (
        make_simulator(),
        torch.randint(20, 1000, (1, 1, 6), generator=torch.Generator().manual_seed(1)),
    )
    before = simulator.expected(["cities"], tokens)
    assert not torch.allclose(before, simulator.expected(["metals"], tokens), atol=1e-4)
    other = tokens.clone()
    other[..., 3] = 5
    changed = ~torch.isclose(before, simulator.expected(["cities"], other), atol=1e-5)[0, 0]
    assert (
        changed.tolist() == [False] * 3 + [True] * 3
    )  # read at the token itself, not at the one before


def test_the_loss_is_the_cross_entropy_of_the_tokens_of_the_text():
    simulator, exemplars = make_simulator(), make_exemplars()
    tokens, binned = exemplars.tokens[exemplars.sequences], exemplars.binned()
    descriptions = [*DESCRIPTIONS, "a word"]
    loss = simulator.loss(descriptions, tokens, binned)
    logits = simulator.logits(descriptions, tokens).detach().double().numpy()
    total = 0.0
    for place in np.ndindex(*binned.shape):
        values = np.exp(logits[place])
        total -= math.log(values[binned[place]] / values.sum())
    assert loss.item() == pytest.approx(total / binned.numel(), rel=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_layer_as_they_do_without_sharing(name):
    """Keys and values of the prompt included: the gradients of k sequences at once are those of k
    passes."""
    simulator, exemplars = make_simulator(name, 2), make_exemplars()
    tokens, binned = exemplars.tokens[exemplars.sequences[:3]], exemplars.binned()[:3]
    weights = {name: w for name, w in simulator.model.get_decoder().layers.named_parameters()}
    for weight in weights.values():
        weight.requires_grad_(True)
    together = torch.autograd.grad(
        simulator.loss(DESCRIPTIONS[:3], tokens, binned), weights.values()
    )
    alone = [torch.zeros_like(weight) for weight in weights.values()]
    for i in range(3):
        for j in range(4):
            loss = simulator.loss(
                DESCRIPTIONS[i : i + 1], tokens[i : i + 1, j : j + 1], binned[i : i + 1, j : j + 1]
            )
            for sum_, part in zip(alone, torch.autograd.grad(loss, weights.values()), strict=True):
                sum_ += part / 12
    for key, one, other in zip(weights, together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3, msg=key)
        assert one.any(), key


@pytest.mark.parametrize("name", TINY)
def test_under_gradient_checkpointing_the_description_is_read_all_the_same(name):
    """transformers drops the cache there, and with it the description went."""
    simulator, exemplars = make_simulator(name), make_exemplars(4)
    tokens, binned = exemplars.tokens[exemplars.sequences], exemplars.binned()
    simulator_training.add_lora(simulator, training_settings(lora_dropout=0.0), 0)
    expected = simulator.train().logits(DESCRIPTIONS, tokens)
    simulator.lm.model.activation_checkpointing_enable()
    torch.testing.assert_close(
        simulator.logits(DESCRIPTIONS, tokens), expected, atol=1e-4, rtol=1e-4
    )
    one, other = (simulator.logits([f"the digit {i}"], tokens[:1]) for i in (3, 7))
    assert (one - other).abs().max() > 1e-3
    simulator.loss(DESCRIPTIONS, tokens, binned).backward()
    gradients = [p.grad for name, p in simulator.named_parameters() if "lora_B" in name]
    assert gradients and all(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_simulator_that_does_not_see_its_description_is_not_trained(
    tmp_path, monkeypatch, checkpointing
):
    """Whatever the cause: here the prompt is always that of another text, as where it is lost."""
    wanted = training_settings(gradient_checkpointing=checkpointing)
    lm = load_model("tiny-llama", "cpu", "float32")
    train_simulator(Simulator(lm, lm, 2), stages(), wanted, tmp_path / "sound", 0)
    original = Simulator.hidden
    monkeypatch.setattr(
        Simulator, "hidden", lambda self, texts, tokens: original(self, ["x"] * len(texts), tokens)
    )
    with pytest.raises(UserError, match="changing the description does not change the loss"):
        train_simulator(Simulator(lm, lm, 2), stages(), wanted, tmp_path / "deaf", 0)


def test_a_description_and_text_longer_than_the_model_reads_are_refused():
    simulator = make_simulator()
    most = simulator.lm.model.config.max_position_embeddings
    prompt = len(simulator.lm.encode(PROMPT.format("cities")))
    fits, longer = (torch.full((1, 1, most - prompt + more), 300) for more in (0, 1))
    assert simulator.expected(["cities"], fits).isfinite().all()
    with pytest.raises(UserError, match=f"a text has {most + 1:,} tokens"):
        simulator.expected(["cities"], longer)


def test_the_first_layers_are_kept_and_the_target_stays_as_it_was():
    target = load_model("tiny-gemma3", "cpu", "float32")
    before = {name: weight.clone() for name, weight in target.model.named_parameters()}
    simulator = Simulator(target, target, 3)
    assert (len(simulator.model.get_decoder().layers), simulator.lm.n_layers, target.n_layers) == (
        3,
        3,
        4,
    )
    assert len(target.model.get_decoder().layers) == 4
    own, theirs = dict(simulator.model.named_parameters()), dict(target.model.named_parameters())
    assert len(own) < len(theirs)
    assert all(own[name].data_ptr() == theirs[name].data_ptr() for name in own)  # in memory once
    simulator_training.add_lora(simulator, training_settings(), 0)
    assert not any("lora" in name for name, _ in target.model.named_parameters())
    assert all(
        torch.equal(before[name], weight) for name, weight in target.model.named_parameters()
    )
    assert Simulator(target, target).n_layers == 4


def test_a_simulator_reads_the_targets_tokens():
    llama, qwen = load_model("tiny-llama", "cpu"), load_model("tiny-qwen3", "cpu")
    with pytest.raises(
        UserError, match="tiny-qwen3 has another tokenizer than its target tiny-llama"
    ):
        Simulator(qwen, llama)
    for n in (0, 5):
        with pytest.raises(UserError, match=f"tiny-llama has 4 layers: none of {n} can be made"):
            Simulator(llama, llama, n)


def test_bfloat16_predicts_nearly_the_same():
    simulator, exemplars = make_simulator(), make_exemplars()
    tokens = exemplars.tokens[exemplars.sequences[:4]]
    exact = simulator.expected(DESCRIPTIONS, tokens)
    simulator.compute_dtype = "bfloat16"
    rounded = simulator.expected(DESCRIPTIONS, tokens)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert (rounded - exact).abs().mean() < 0.3


# --- files


@pytest.mark.parametrize("base", ["tiny-llama", "a folder"])
def test_a_saved_simulator_predicts_the_same(tmp_path, base):
    target = load_model("tiny-llama", "cpu", "float32")
    lm = target
    if base == "a folder":  # a sibling of the target
        lm = load_model("tiny-llama", "cpu", "float32", seed=1)
        for part in (lm.model, lm.tokenizer):
            part.save_pretrained(tmp_path / "sibling")
        lm = load_model(str(tmp_path / "sibling"), "cpu", "float32")
    simulator, exemplars = Simulator(lm, target, 2), make_exemplars(4)
    train_simulator(
        simulator, stages(), training_settings(compute_dtype="bfloat16"), tmp_path / "simulator", 0
    )
    again = Simulator.load(tmp_path / "simulator", target)
    tokens = exemplars.tokens[exemplars.sequences]
    assert torch.equal(
        again.expected(DESCRIPTIONS, tokens), simulator.expected(DESCRIPTIONS, tokens)
    )
    assert (again.n_layers, again.compute_dtype, again.sha256()) == (
        2,
        "bfloat16",
        simulator.sha256(),
    )
    shared = (
        len({m.get_input_embeddings().weight.data_ptr() for m in (again.model, target.model)}) == 1
    )
    assert shared == (base == "tiny-llama")
    assert {path.name for path in (tmp_path / "simulator").glob("*.safetensors")} == {
        "adapter_model.safetensors",
        HEAD,
    }


def test_no_simulator_in_the_folder(tmp_path):
    with pytest.raises(UserError, match="no simulator at .*04_simulator.ipynb trains one"):
        Simulator.load(tmp_path, load_model("tiny-llama", "cpu"))


def published(folder, name="tiny-llama", more=5):
    """A model in the published simulator's format: of another seed, its vocabulary enlarged by
    <PAD> and the copies."""
    lm = load_model(name, "cpu", "float32", seed=3)
    torch.manual_seed(0)
    lm.model.resize_token_embeddings(len(lm.tokenizer) + more, mean_resizing=False)
    lm.model.save_pretrained(folder)
    return lm.model


def test_the_published_format_is_read_as_its_own_code_reads_it(tmp_path):
    model, target = published(tmp_path / "simulator"), load_model("tiny-llama", "cpu", "float32")
    simulator = Simulator.load_published(str(tmp_path / "simulator"), target)
    n, bos = len(target.tokenizer), target.tokenizer.bos_token_id
    tokens = torch.tensor([[[300, bos, 400, 500]]])
    prompt = [
        n + 1,
        *target.tokenizer(PROMPT.format("cities"), add_special_tokens=False)["input_ids"],
    ]
    ids = torch.tensor([[*prompt, 300, n + 1, 400, 500]])
    with torch.inference_mode():
        probabilities = model(ids).logits[0, -4:, :11].softmax(-1)
    expected = probabilities @ torch.arange(11.0)
    torch.testing.assert_close(
        simulator.expected(["cities"], tokens)[0, 0], expected, atol=1e-4, rtol=1e-4
    )
    assert simulator.n_layers == 4 and simulator.copies == {bos: n + 1}
    with pytest.raises(UserError, match="trained before"):
        train_simulator(simulator, stages(), training_settings(), tmp_path, 0)


def test_a_published_simulator_without_copies_reads_the_tokens_as_they_are(tmp_path):
    published(tmp_path / "simulator", more=1)
    simulator = Simulator.load_published(
        str(tmp_path / "simulator"), load_model("tiny-llama", "cpu", "float32")
    )
    assert simulator.copies == {}


def test_what_is_no_published_simulator_of_the_target(tmp_path):
    published(tmp_path / "simulator", more=-9)
    target = load_model("tiny-llama", "cpu", "float32")
    with pytest.raises(UserError, match=r"knows \d+ tokens, tiny-llama has \d+"):
        Simulator.load_published(str(tmp_path / "simulator"), target)
    with pytest.raises(UserError, match="cannot load the simulator .*nowhere"):
        Simulator.load_published(str(tmp_path / "nowhere"), target)


# --- scores

VALUES = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=8),
    elements=st.integers(-50, 50),
)


@settings(max_examples=50)
@given(VALUES, st.floats(0.01, 100), st.integers(0, 5))
def test_pearson_is_that_of_scipy_and_zero_for_a_constant(a, scale, seed):
    b = (np.random.default_rng(seed).integers(-3, 4, a.shape) * scale).astype(np.float32)
    r, constant = pearson(torch.tensor(a), torch.tensor(b))
    for i in range(len(a)):
        if len(set(a[i])) == 1 or len(set(b[i])) == 1:
            assert constant[i] and r[i] == 0
        else:
            assert not constant[i]
            assert r[i].item() == pytest.approx(
                pearsonr(a[i].astype(float), b[i].astype(float))[0], abs=1e-9
            )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_is_no_correlation(value):
    """A NaN could stay the best candidate: nothing is greater."""
    a, broken = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3).clone()
    broken[1, 2] = value
    for pair in ((a, broken), (broken, a)):
        with pytest.raises(UserError, match="an activation, true or simulated, is not finite"):
            pearson(*pair)


def test_activations_far_from_zero_do_not_cancel():
    a = torch.tensor([1e4, 1e4 + 0.002, 1e4 + 0.001, 1e4 + 0.004], dtype=torch.float32)
    b = torch.tensor([0.0, 2, 1, 4])
    assert pearson(a, b)[0].item() == pytest.approx(pearsonr(a.double(), b.double())[0], abs=1e-9)


def test_a_score_is_the_mean_over_exemplars_and_a_constant_one_counts_as_zero():
    exemplars = make_exemplars(3, 4)
    exemplars.activations[2, 1] = 7.0
    rows = [2, 0, 2]
    predicted = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    predicted[1, 3] = 0.1
    scores = score_predictions(predicted, exemplars, rows)
    constant = {(0, 1), (2, 1), (1, 3)}
    r = [
        [
            0 if (i, j) in constant else pearsonr(predicted[i, j], exemplars.activations[row, j])[0]
            for j in range(4)
        ]
        for i, row in enumerate(rows)
    ]
    assert scores.constant.sum() == 3
    assert scores.r.tolist() == pytest.approx(np.mean(r, 1).tolist(), abs=1e-6)
    assert scores.abs_r.tolist() == pytest.approx(np.abs(r).mean(1).tolist(), abs=1e-6)
    perfect = score_predictions(exemplars.activations[[0]] * 3 + 1, exemplars, [0])
    assert (
        perfect.r.item() == pytest.approx(1)
        and score_predictions(-exemplars.activations[[0]], exemplars, [0]).r < -0.99
    )


def test_padding_and_batch_size_change_no_prediction():
    simulator, exemplars = make_simulator(), make_exemplars(5)
    rows = [4, 0, 0, 3]
    alone = [
        simulator.expected([text], exemplars.tokens[exemplars.sequences[row]][None])[0]
        for text, row in zip(DESCRIPTIONS, rows, strict=True)
    ]
    for batch_size in (1, 3, 10):
        predicted = simulate(simulator, DESCRIPTIONS, exemplars, rows, batch_size)
        torch.testing.assert_close(predicted, torch.stack(alone), atol=1e-4, rtol=1e-4)
        scores = score(simulator, DESCRIPTIONS, exemplars, rows, batch_size)
        assert scores.r.tolist() == pytest.approx(
            score_predictions(torch.stack(alone), exemplars, rows).r.tolist(), abs=1e-4
        )


CANDIDATES = [
    ["cities"],
    ["a town", "rivers and lakes"],
    [],
    ["any name", "the first word", "metals"],
]


def test_candidates_are_scored_once_however_often_it_is_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(simulator_scores, "CHUNK", 1)
    simulator, exemplars = make_simulator(), make_exemplars(4)
    expected = [
        score(simulator, texts, exemplars, [row] * len(texts), 2).r.tolist() if texts else []
        for row, texts in enumerate(CANDIDATES)
    ]
    seen, original, path = [], Simulator.expected, tmp_path / "folder" / "scores.jsonl"

    def counted(self, descriptions, tokens):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend(descriptions)
        return original(self, descriptions, tokens)

    monkeypatch.setattr(Simulator, "expected", counted)
    with pytest.raises(KeyboardInterrupt):
        score_candidates(simulator, CANDIDATES, exemplars, path, 2)
    path.write_text(path.read_text() + "[0.25, 0.")  # cut short while writing
    monkeypatch.setattr(
        Simulator,
        "expected",
        lambda self, texts, tokens: seen.extend(texts) or original(self, texts, tokens),
    )
    scores = score_candidates(simulator, CANDIDATES, exemplars, path, 2)
    flat = [text for texts in CANDIDATES for text in texts]
    assert sorted(seen) == sorted(flat)
    assert [len(row) for row in scores] == [1, 2, 0, 3]
    assert sum(scores, []) == pytest.approx(sum(expected, []), abs=1e-4)
    assert score_candidates(simulator, CANDIDATES, exemplars, path, 2) == scores and len(seen) == 6
    assert json.loads(path.read_text().split("\n")[0])["made_from"]


@pytest.mark.parametrize("what", ["simulator", "candidates", "exemplars"])
def test_scores_of_others_are_not_taken_up(tmp_path, what):
    simulator, exemplars, candidates = make_simulator(), make_exemplars(4), CANDIDATES
    before = score_candidates(simulator, candidates, exemplars, tmp_path / "scores", 4)
    if what == "simulator":
        torch.nn.init.normal_(simulator.head.weight)
    elif what == "candidates":
        candidates = [["towns"], *CANDIDATES[1:]]
    else:
        exemplars.activations[0] = exemplars.activations[0].flip(-1)
    after = score_candidates(simulator, candidates, exemplars, tmp_path / "scores", 4)
    fresh = score_candidates(simulator, candidates, exemplars, tmp_path / "fresh", 4)
    assert after == fresh and after[0] != before[0]


# --- baselines


@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=40), st.integers(0, 9))
def test_each_description_is_shuffled_to_another_text(descriptions, seed):
    other = shuffled(descriptions, seed)
    assert other == shuffled(descriptions, seed) and set(other) <= set(descriptions)
    if len(set(descriptions)) > 1:
        assert all(a != b for a, b in zip(descriptions, other, strict=True))


def test_the_shuffle_depends_on_the_seed():
    descriptions = [f"the word {i}" for i in range(30)]
    assert shuffled(descriptions, 0) != shuffled(descriptions, 1)


def test_a_token_overlaps_with_a_word_of_the_description_and_not_with_a_part_of_one():
    lm = load_model("tiny-llama", "cpu", "float32")
    ids = lm.tokenizer(" capital of the Capital , cap", add_special_tokens=False)["input_ids"]
    texts = [lm.tokenizer.decode([i]).strip().lower() for i in ids]
    exemplars = make_exemplars(2, 1, len(ids), 1)
    exemplars.tokens[0] = torch.tensor(ids)
    predicted = word_overlap(
        lm.tokenizer, ["The capital, of a country", "nothing"], exemplars, [1, 0]
    )
    assert predicted.shape == (2, 1, len(ids)) and not predicted[1].any()
    assert predicted[0, 0].tolist() == [
        float(text in ("the", "capital", "of", "a", "country")) for text in texts
    ]
    assert 3 <= predicted.sum() < len(ids)  # not the comma, not "cap"


def test_every_baseline_is_scored_on_the_same_exemplars():
    simulator, exemplars = make_simulator(), make_exemplars(4)
    rows = [1, 3, 0, 2]
    table = against_baselines(simulator, DESCRIPTIONS, exemplars, rows, 2, seed=1)
    assert list(table) == ["description", "shuffled description", "word overlap", "constant"]
    assert (
        table["description"].r.tolist()
        == score(simulator, DESCRIPTIONS, exemplars, rows, 2).r.tolist()
    )
    assert (
        table["shuffled description"].r.tolist()
        == score(simulator, shuffled(DESCRIPTIONS, 1), exemplars, rows, 2).r.tolist()
    )
    assert not table["constant"].r.any() and table["constant"].constant.sum() == 16


def test_calibration_gives_the_true_values_at_each_prediction():
    exemplars = make_exemplars(3, 4)
    rows = [2, 0]
    predicted = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)) * 6
    true = exemplars.take(rows).binned()
    table = calibration(predicted.numpy(), true.numpy()).to_dict("records")
    assert sum(row["n"] for row in table) == 48 and {row["value"] for row in table} <= set(range(7))
    for row in table:
        pairs = [
            (p, t)
            for p, t in zip(predicted.flatten().tolist(), true.flatten().tolist(), strict=True)
            if round(p) == row["value"]
        ]
        assert row["n"] == len(pairs)
        assert [row["predicted"], row["true"]] == pytest.approx(
            np.mean(pairs, 0).tolist(), rel=1e-4
        )


# --- training


def test_a_simulator_learns_where_a_description_says_activations_are(tmp_path):
    """Two descriptions, each of one token; only the description tells which of the two tokens is
    active."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, 300, (16, 8), generator=draw)
    active = (400, 500)
    for sequence in tokens:
        places = torch.randperm(8, generator=draw)[:2]
        sequence[places] = torch.tensor(active)
    n = 8  # four directions of each kind
    sequences = torch.stack([torch.randperm(16, generator=draw)[:6] for _ in range(n)])
    activations = torch.stack([(tokens[sequences[i]] == active[i % 2]).float() for i in range(n)])
    exemplars = Exemplars(tokens, sequences, activations, torch.zeros(n), torch.ones(n), 3)
    texts = [("metals", "cities")[i % 2] for i in range(n)]
    stage = Stage(exemplars, [[text] for text in texts], 30, 3)
    lm = load_model("tiny-llama", "cpu", "float32")
    simulator = Simulator(lm, lm, 2)
    wanted = training_settings(learning_rate=2e-2, batch_size=8, lora_r=16)
    trained = train_simulator(simulator, (stage, stage), wanted, tmp_path, 0)
    n_active = 1 / 8
    constant = -(n_active * math.log(n_active) + (1 - n_active) * math.log(1 - n_active))
    assert trained.losses[0] == pytest.approx(constant, abs=0.05)  # it starts as the best constant
    assert len(trained.losses) == 60 and np.mean(trained.losses[-5:]) < 0.2 * constant
    table = against_baselines(simulator, texts, exemplars, list(range(n)), 8)
    assert table["description"].r.min() > 0.9 and table["shuffled description"].r.max() < 0.1


def test_stage_one_takes_a_random_candidate_and_stage_two_the_best_by_the_simulator_of_stage_one(
    tmp_path, monkeypatch
):
    seen, scored, original = [], {}, Simulator.loss

    def loss(self, descriptions, tokens, binned):
        if len(tokens) > 1:  # not the gate's
            seen.append((descriptions, tokens, binned))
        return original(self, descriptions, tokens, binned)

    def score_all(simulator, candidates, exemplars, path, batch_size):
        scored.update(sha256=simulator.sha256(), exemplars=exemplars, training=simulator.training)
        scored["scores"] = score_candidates(simulator, candidates, exemplars, path, batch_size)
        return scored["scores"]

    monkeypatch.setattr(Simulator, "loss", loss)
    monkeypatch.setattr(simulator_training, "score_candidates", score_all)
    lm = load_model("tiny-llama", "cpu", "float32")
    simulator, both = Simulator(lm, lm, 2), stages((6, 3), (3, 2), n=8)
    train_simulator(simulator, both, training_settings(batch_size=4), tmp_path, 0)
    first, second = seen[:6], seen[6:]
    by_direction = {}
    for descriptions, tokens, binned in first:
        assert tokens.shape == binned.shape == (4, 3, 6)
        for text in descriptions:
            by_direction.setdefault(
                text.split()[-1] if "of" not in text else text.split()[-3], set()
            ).add(text)
    assert len(by_direction) == 8 and all(len(texts) == 1 for texts in by_direction.values())
    assert {"number" in texts.pop() for texts in by_direction.values()} == {True, False}
    best = {
        texts[int(np.argmax(r))]
        for texts, r in zip(both[1].candidates, scored["scores"], strict=True)
    }
    assert (
        len(second) == 3
        and {text for descriptions, _, _ in second for text in descriptions} == best
    )
    assert scored["sha256"] != simulator.sha256() and not scored["training"]
    assert torch.equal(scored["exemplars"].sequences, both[1].exemplars.scoring().sequences)
    for (
        descriptions,
        tokens,
        binned,
    ) in second:  # the text and its values are those of the description's direction
        for text, own_tokens, own_binned in zip(descriptions, tokens, binned, strict=True):
            row = next(i for i, texts in enumerate(both[1].candidates) if text in texts)
            pairs = zip(
                both[1].exemplars.tokens[both[1].exemplars.sequences[row]],
                both[1].exemplars.binned()[row],
                strict=True,
            )
            known = [(t.tolist(), b.tolist()) for t, b in pairs]
            assert all(
                (t.tolist(), b.tolist()) in known
                for t, b in zip(own_tokens, own_binned, strict=True)
            )


@given(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 12), st.integers(1, 4), st.integers(0, 3)
)
def test_steps_go_round_the_directions(n, batch_size, steps, sequences, seed):
    chosen = [f"text {i}" for i in range(n)]
    planned = plan_steps(Stage(make_exemplars(n), [], steps, sequences), chosen, batch_size, seed)
    assert len(planned) == steps and planned == plan_steps(
        Stage(make_exemplars(n), [], steps, sequences), chosen, batch_size, seed
    )
    seen = [row for rows, _ in planned for row in rows]
    counts = [seen.count(row) for row in range(n)]
    assert max(counts) - min(counts) <= 1 or len(planned) * batch_size < n
    for rows, columns in planned:
        assert len(rows) == len(columns)
        assert all(len(set(c)) == sequences and set(c) <= set(range(4)) for c in columns)


def test_each_visit_draws_its_own_sequences():
    planned = plan_steps(Stage(make_exemplars(4), [], 40, 2), list("abcd"), 4, 0)
    drawn = {tuple(columns) for _, of_step in planned for columns in of_step}
    assert drawn == set(itertools.permutations(range(4), 2))


def test_a_run_interrupted_in_either_stage_ends_as_one_that_was_not(tmp_path):
    lm = load_model("tiny-llama", "cpu", "float32")
    wanted = training_settings(batch_size=2, checkpoint_minutes=0, lora_dropout=0.3)

    def run(folder):
        simulator = Simulator(lm, lm, 2)
        return simulator, train_simulator(
            simulator, stages((5, 4)), wanted, tmp_path / folder, seed=3
        )

    whole, expected = run("whole")
    for steps, computed_before in (
        (3, 0),
        (4, 3),
        (1, 7),
    ):  # cut in stage 1 after 3; stage 1 ends, stage 2 cut after 2; again
        with interrupted_after(steps), pytest.raises(Interruption):
            run("parts")
        assert not (tmp_path / "parts" / "simulator.json").exists(), computed_before
    with interrupted_after(99) as computed:
        pieces, resumed = run("parts")
    assert len(computed) == 1
    assert (
        resumed.losses == expected.losses
        and resumed.sha256 == expected.sha256
        and pieces.sha256() == whole.sha256()
    )
    assert (
        resumed.trained_parameters
        == sum(p.numel() for p in pieces.parameters() if p.requires_grad)
        > 11 * 32
    )
    with interrupted_after(0):
        _, again = run("parts")  # a finished run is read back
    assert (again.losses, again.sha256) == (expected.losses, expected.sha256)


@pytest.mark.parametrize("other", ["seed", "candidates", "exemplars", "first stage"])
def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path, other):
    lm = load_model("tiny-llama", "cpu", "float32")
    train_simulator(Simulator(lm, lm, 1), stages(), training_settings(), tmp_path, 0)
    first, second = stages()
    if other == "candidates":
        second = second._replace(candidates=[[f"new {i}"] for i in range(6)])
    elif other == "exemplars":
        second = second._replace(exemplars=make_exemplars(6, seed=9))
    elif other == "first stage":
        first = first._replace(steps=4)
    with interrupted_after(99) as computed:
        train_simulator(
            Simulator(lm, lm, 1),
            (first, second),
            training_settings(),
            tmp_path,
            seed=int(other == "seed"),
        )
    assert len(computed) == {"seed": 5, "candidates": 2, "exemplars": 2, "first stage": 6}[other]


def test_what_cannot_be_trained(tmp_path):
    lm = load_model("tiny-llama", "cpu", "float32")
    first, second = stages()
    simulator = Simulator(lm, lm, 1)
    with pytest.raises(UserError, match="stage 2: a direction has no candidate"):
        train_simulator(
            simulator,
            (first, second._replace(candidates=[[]] * 6)),
            training_settings(),
            tmp_path,
            0,
        )
    with pytest.raises(UserError, match="stage 1: 4 exemplars a direction, not 9"):
        train_simulator(
            simulator, (first._replace(sequences=9), second), training_settings(), tmp_path, 0
        )
    train_simulator(simulator, (first, second), training_settings(), tmp_path, 0)
    with pytest.raises(UserError, match="trained before"):
        train_simulator(simulator, (first, second), training_settings(), tmp_path, 0)


def test_a_published_model_with_another_tokenizer_is_no_simulator_of_the_target(tmp_path):
    target, other = (load_model(name, "cpu", "float32") for name in ("tiny-llama", "tiny-qwen3"))
    published(tmp_path, "tiny-qwen3", more=100)  # as many rows as the target's tokens, and more
    other.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has another tokenizer than its target tiny-llama"):
        Simulator.load_published(str(tmp_path), target)
    target.tokenizer.add_tokens(["<PAD>"])
    target.tokenizer.save_pretrained(tmp_path)
    own = load_model("tiny-llama", "cpu", "float32")
    assert Simulator.load_published(str(tmp_path), own).copies
