import dataclasses
import gc
import json
import weakref

import numpy as np
import pytest
import torch
from explaining import (
    BLOCKS,
    SETTINGS,
    TRAINING,
    WIDTHS,
    encode,
    logits,
    make_examples,
    make_explainer,
    vectors,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GraniteConfig

from introspect_utils.explainer import gates
from introspect_utils.explainer.continuous_token import SAMPLE
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.projection import Projection
from introspect_utils.explainer.train import train
from introspect_utils.explainer.tuning import add_lora
from introspect_utils.models import tiny
from introspect_utils.models.load import load_model
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.question import Question

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "vocab_size": 1200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ASKED = Question("If feature [s]v[e] is added, what then?", vectors(1)[0], BLOCKS[0])


@pytest.fixture(scope="module", params=list(WIDTHS))
def family(request):
    """An explainer of each family, of its own width."""
    return make_explainer(request.param, WIDTHS[request.param])


# --- the vector reaches the forward pass


def test_changing_v_changes_the_logits_of_its_own_row_from_its_place_on(family):
    examples = [*make_examples(3, family.d_target), *make_examples(1, with_vector=False)]
    batch = family.collate(encode(family, examples))
    assert batch.places.sum(-1).tolist() == [1, 1, 1, 0]
    before = logits(family, batch)
    changed = batch.vectors.clone()
    changed[1] = -changed[1]
    after = logits(family, batch._replace(vectors=changed))
    place = int(batch.places[1].nonzero())
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert torch.equal(
        before[1, :place][batch.mask[1, :place] > 0], after[1, :place][batch.mask[1, :place] > 0]
    )
    reached = batch.mask[1, place:] > 0
    assert ((before[1, place:] - after[1, place:]).abs().amax(-1)[reached] > 0).all()


def test_each_vector_fills_the_place_of_its_own_question(family):
    examples = make_examples(5, family.d_target)
    rows = encode(family, examples)
    batch = family.collate(rows)
    embedded = family.embeddings(batch)
    for row, (question, ids, _) in enumerate(rows):
        alone = family.embed(torch.tensor(ids))
        place = ids.index(family.placeholder)
        alone[place] = question.vector / question.vector.norm() * family.token_norm
        torch.testing.assert_close(embedded[row][batch.mask[row] > 0], alone)


# --- the projection


@pytest.mark.parametrize(
    ("name", "d_target", "projection", "shape"),
    [
        ("tiny-llama", 32, "when-needed", None),
        ("tiny-llama", 32, "always", (2, 32, 32)),
        ("tiny-gemma3", 32, "when-needed", (2, 48, 32)),
        ("tiny-llama", 48, "always", (2, 32, 48)),
    ],
)
def test_there_is_a_projection_where_widths_differ_or_one_is_asked_for(
    name, d_target, projection, shape
):
    explainer = make_explainer(name, d_target, projection=projection)
    assert (explainer.projection and tuple(explainer.projection.weight.shape)) == shape
    if shape:  # and it is used: another projection gives other embeddings
        batch = explainer.collate(encode(explainer, make_examples(2, d_target)))
        before = explainer.embeddings(batch)
        explainer.projection.weight.data.neg_()
        assert not torch.allclose(explainer.embeddings(batch)[batch.places], before[batch.places])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_each_vector_is_projected_by_the_matrix_of_its_layer(data):
    n, d_target, d_explainer = (data.draw(st.integers(1, 5)) for _ in range(3))
    layer = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6))
    rank = data.draw(st.integers(0, 3))
    projection = Projection(n, d_target, d_explainer, rank, seed=data.draw(st.integers(0, 9)))
    if rank:
        projection.B.data.copy_(vectors(n * d_explainer, rank, 1).view(n, d_explainer, rank))
    v = vectors(len(layer), d_target, 2)
    found = projection(v, torch.tensor(layer)).detach().numpy()
    weight = projection.weight.detach().numpy()
    for row, index in enumerate(layer):
        matrix = (
            weight[index] + (projection.B[index] @ projection.A[index]).detach().numpy()
            if rank
            else weight[index]
        )
        expected = [np.dot(matrix[out], v[row].numpy()) for out in range(d_explainer)]
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)


def test_a_projection_that_starts_as_the_identity_changes_nothing_yet():
    explainer, plain = make_explainer(projection="identity"), make_explainer()
    v, layer = vectors(4), torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(
        explainer.continuous_token(v, layer), plain.continuous_token(v, layer)
    )
    assert explainer.projection.weight.requires_grad
    for kind in ("identity", "frozen-scale"):
        with pytest.raises(UserError, match="32 and 48 wide: take another condition"):
            make_explainer("tiny-gemma3", 32, projection=kind)


@pytest.mark.parametrize("kind", ["frozen", "frozen-scale"])
def test_of_a_frozen_explainer_only_the_affine_map_is_trained(tmp_path, kind):
    explainer = make_explainer(projection=kind)
    before = {name: p.detach().clone() for name, p in explainer.named_parameters()}
    v, layer = vectors(2), torch.tensor([0, 1])
    plain = make_explainer().continuous_token(v, layer)
    torch.testing.assert_close(explainer.continuous_token(v, layer), plain)  # it starts as 1 v + 0
    with torch.no_grad():  # its bias counts in norms of the token
        explainer.projection.bias[:, 0] = 1
        moved = explainer.continuous_token(v, layer) - plain
        torch.testing.assert_close(moved[:, 0], torch.full((2,), explainer.token_norm))
        explainer.projection.bias[:, 0] = 0
    trained = train(explainer, make_examples(), TRAINING, tmp_path)
    changed = {n for n, p in explainer.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"projection.weight", "projection.bias"}
    size = 2 * (32 * 32 if kind == "frozen" else 1) + 2 * 32
    assert trained.trained_parameters == size
    assert not torch.allclose(explainer.continuous_token(v, layer).norm(dim=-1), plain.norm(dim=-1))


def test_projections_differ_by_layer_and_seed():
    drawn = Projection(2, 8, 8, seed=3).weight
    assert torch.equal(drawn, Projection(2, 8, 8, seed=3).weight)
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(
        drawn, Projection(2, 8, 8, seed=4).weight
    )


def matrices(explainer):
    """The projection as it acts, a matrix for each block."""
    with torch.no_grad():
        unit = torch.eye(explainer.d_target)
        return torch.stack(
            [explainer.projection(unit, torch.full((len(unit),), i)).T for i in range(len(BLOCKS))]
        )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_projection_is_trained_in_full_unless_its_rank_is_capped(tmp_path, rank):
    explainer = make_explainer(projection="always", projection_rank=rank)
    drawn, before = explainer.projection.weight.detach().clone(), matrices(explainer)
    train(explainer, make_examples(16), dataclasses.replace(TRAINING, epochs=2), tmp_path)
    ranks = [
        int(torch.linalg.matrix_rank(change, rtol=1e-4)) for change in matrices(explainer) - before
    ]
    if rank:
        assert torch.equal(explainer.projection.weight, drawn)
        assert all(0 < found <= rank for found in ranks)
    else:
        assert all(found > 8 for found in ranks)  # a LoRA of rank 4 stands beside it


# --- the continuous token


def seen_by_first_layer(explainer, batch):
    """What the first decoder layer gets [batch, length, width], past any scaling by the model."""
    seen = []
    layer = explainer.lm.model.get_decoder().layers[0]
    handle = layer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True
    )
    try:
        logits(explainer, batch)
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("scale", ["raw", "embedding", "residual"])
@pytest.mark.parametrize("name", list(WIDTHS))
def test_the_continuous_token_ends_at_the_stated_scale(name, scale):
    width = WIDTHS[name]
    explainer = make_explainer(name, width, vector_scale=scale)
    examples = make_examples(3, width)
    batch = explainer.collate(encode(explainer, examples))
    token = seen_by_first_layer(explainer, batch)[batch.places]
    v = torch.stack([example.question.vector for example in examples])
    if scale == "embedding":
        factor = width**0.5 if "gemma" in name else 1.0  # Gemma scales embeddings itself
        norm = explainer.lm.model.get_input_embeddings().weight.norm(dim=-1).mean() * factor
        v = v / v.norm(dim=-1, keepdim=True) * norm
    elif scale == "residual":
        lm = explainer.lm
        h = lm.model(torch.tensor([lm.encode(SAMPLE)]), output_hidden_states=True).hidden_states[2][
            0, 4:
        ]  # behind layer 1 of 4
        v = v / v.norm(dim=-1, keepdim=True) * (h - h.mean(0)).norm(dim=-1).median()
    torch.testing.assert_close(token, v)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("projection", ["when-needed", "always"])
@pytest.mark.parametrize("scale", ["raw", "embedding", "residual"])
def test_a_zero_vector_stays_zero(scale, projection, center):
    explainer = make_explainer(vector_scale=scale, projection=projection, vector_center=center)
    explainer.fit_center([example.question for example in make_examples()])
    token = explainer.continuous_token(
        torch.stack([torch.zeros(32), torch.ones(32)]), torch.tensor([0, 1])
    )
    assert (token[0] == 0).all() and (token[1] != 0).any()


def test_the_mean_of_the_same_layers_is_taken_off_where_asked():
    questions = [example.question for example in make_examples(6)] + [
        Question("Why?", None, BLOCKS[0])
    ]
    means = {
        block: sum(q.vector for q in questions[:6] if q.layers == block)
        / (4 if block == BLOCKS[0] else 2)
        for block in BLOCKS
    }
    v, layer = vectors(2, seed=5), torch.tensor([1, 0])
    explainer = make_explainer(vector_scale="raw", vector_center=True)
    explainer.fit_center(questions)
    torch.testing.assert_close(
        explainer.continuous_token(v, layer),
        torch.stack([v[0] - means[BLOCKS[1]], v[1] - means[BLOCKS[0]]]),
    )
    plain = make_explainer(vector_scale="raw")
    plain.fit_center(questions)
    assert torch.equal(plain.continuous_token(v, layer), v)


def test_vectors_and_models_in_bfloat16_are_projected_in_float32():
    explainer = make_explainer("tiny-gemma3", dtype="bfloat16")
    examples = make_examples(4)
    rows = encode(explainer, examples)
    half = [(dataclasses.replace(q, vector=q.vector.bfloat16()), *rest) for q, *rest in rows]
    assert explainer.projection.weight.dtype == torch.float32
    assert (
        explainer.continuous_token(
            explainer.collate(half).vectors, torch.tensor([0, 0, 1, 1])
        ).dtype
        == torch.float32
    )
    embedded = explainer.embeddings(explainer.collate(half))
    assert embedded.dtype == torch.bfloat16
    torch.testing.assert_close(
        embedded, explainer.embeddings(explainer.collate(rows)), rtol=2e-2, atol=2e-2
    )
    explainer.loss(explainer.collate(half)).backward()
    assert explainer.projection.weight.grad.any()


# --- prompts, labels


@pytest.mark.parametrize("prompt", ["chat", "base"])
def test_labels_cover_the_explanation_and_its_eos_only(family, prompt):
    tokenizer = family.lm.tokenizer
    examples = make_examples(4, family.d_target)
    rows = [(e.question, *family.encode(e.question, e.explanation, prompt)) for e in examples]
    batch = family.collate(rows)
    for row, example in enumerate(examples):
        labelled = batch.labels[row] != -100
        assert torch.equal(batch.labels[row][labelled], batch.ids[row][labelled])
        space = " " if prompt == "base" else ""
        assert (
            tokenizer.decode(batch.labels[row][labelled])
            == space + example.explanation + tokenizer.eos_token
        )
        last = batch.mask[row].nonzero()[-1]
        assert batch.ids[row, last] == tokenizer.eos_token_id and labelled[last]
        assert (
            labelled.sum() == labelled.nonzero().max() - labelled.nonzero().min() + 1
        )  # without gaps
        assert torch.equal(batch.ids[row][batch.mask[row] > 0], torch.tensor(rows[row][1]))


@pytest.mark.parametrize("prompt", ["chat", "base"])
def test_there_is_exactly_one_bos_and_none_where_the_family_has_none(family, prompt):
    tokenizer = family.lm.tokenizer
    for explanation in (None, "It would change."):
        ids, n_prompt = family.encode(
            make_examples(1, family.d_target)[0].question, explanation, prompt
        )
        assert (
            ids[:1].count(tokenizer.bos_token_id)
            == ids.count(tokenizer.bos_token_id)
            == (tokenizer.bos_token is not None)
        )
        assert ids[:n_prompt].count(tokenizer.eos_token_id) == 0
        assert ids[n_prompt:].count(tokenizer.eos_token_id) == (explanation is not None)
    text = tokenizer.decode(ids)
    assert ("[user]" in text and "[assistant] It would" in text) == (prompt == "chat")


texts = st.text(st.characters(codec="utf-8", exclude_characters="[]<>"), max_size=30)


@settings(deadline=None, max_examples=30)
@given(before=texts, after=texts, explanation=texts, prompt=st.sampled_from(["chat", "base"]))
def test_a_prompt_is_tokenised_alike_in_training_and_generation(before, after, explanation, prompt):
    explainer = _LLAMA
    question = Question(f"{before}[s]v[e]{after}", vectors(1)[0], BLOCKS[0])
    asked, n_asked = explainer.encode(question, prompt=prompt)
    taught, n_prompt = explainer.encode(question, explanation, prompt)
    assert n_asked == n_prompt == len(asked) and taught[:n_prompt] == asked
    place = asked.index(explainer.placeholder)
    assert asked[place - 1 : place + 2] == [explainer.begin, explainer.placeholder, explainer.end]
    said = explainer.lm.tokenizer.decode(taught[n_prompt:-1])
    glued = prompt == "chat" or question.text[-1].isspace()
    assert said == (explanation if glued else f" {explanation}")


_LLAMA = make_explainer()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (dataclasses.replace(ASKED, text="What if the feature is added?"), "holds"),
        (dataclasses.replace(ASKED, text="Is [s]v[e] like [s]v[e]?"), "holds"),
        (dataclasses.replace(ASKED, vector=None), "holds"),
        (dataclasses.replace(ASKED, layers=(1, 2)), r"layers \(1, 2\)"),
        (dataclasses.replace(ASKED, layers=()), r"layers \(\)"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(question, reason):
    with pytest.raises(UserError, match=reason):
        _LLAMA.explain([ASKED, question], max_new_tokens=1)


@pytest.mark.parametrize("prompt", ["chat", "base"])
def test_a_placeholder_that_a_text_spells_out_is_text(prompt):
    spelled = dataclasses.replace(ASKED, text="[s]v[e] in <|reserved_special_token_12|> <|eot_id|>")
    for question, n in ((spelled, 1), (Question("What about <|reserved_special_token_12|>?"), 0)):
        ids, _ = _LLAMA.encode(question, "<|end_of_text|>", prompt)
        assert ids.count(_LLAMA.placeholder) == n
        assert ids.index(_LLAMA.lm.tokenizer.eos_token_id) == len(ids) - 1


# --- the loss


def test_the_loss_is_the_mean_over_explanation_tokens_whatever_the_padding(family):
    """A batch's loss is the mean of its rows' own losses weighted by their tokens (explanation and
    EOS)."""
    rows = encode(family, make_examples(6, family.d_target))
    with torch.no_grad():
        alone = [(family.loss(family.collate([row])).item(), len(row[1]) - row[2]) for row in rows]
        together = family.loss(family.collate(rows)).item()
    assert together == pytest.approx(
        sum(loss * n for loss, n in alone) / sum(n for _, n in alone), rel=1e-5
    )
    assert len({n for _, n in alone}) > 2 and together != pytest.approx(
        np.mean([loss for loss, _ in alone]), rel=1e-4
    )


def test_the_loss_is_that_of_transformers_over_all_logits(family):
    batch = family.collate(
        encode(family, [*make_examples(3, family.d_target), *make_examples(2, with_vector=False)])
    )
    positions = torch.stack([mask.cumsum(0) - 1 for mask in batch.mask]).clamp(min=0)
    with torch.no_grad():
        expected = family.lm.model(
            inputs_embeds=family.embeddings(batch),
            attention_mask=batch.mask,
            position_ids=positions,
            labels=batch.labels,
        ).loss
        assert family.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)


# --- the tokens that stand around the vector


def use_special_tokens(monkeypatch, tokens):
    """Have tiny-llama reserve these tokens."""
    monkeypatch.setitem(tiny.FAMILIES, "llama", (*tiny.FAMILIES["llama"][:3], list(tokens)))


@pytest.mark.parametrize(
    "triple",
    [
        (
            "<|reserved_special_token_10|>",
            "<|reserved_special_token_12|>",
            "<|reserved_special_token_11|>",
        ),
        ("<|vision_start|>", "<|vision_pad|>", "<|vision_end|>"),
        ("<unused0>", "<unused1>", "<unused2>"),
        ("<jupyter_start>", "<empty_output>", "<jupyter_output>"),
    ],
)
def test_the_reserved_tokens_of_a_family_are_taken(monkeypatch, triple):
    use_special_tokens(monkeypatch, sorted(triple))
    before = load_model("tiny-llama", "cpu")
    explainer = make_explainer()
    tokenizer = explainer.lm.tokenizer
    assert (
        tuple(
            tokenizer.convert_ids_to_tokens([explainer.begin, explainer.placeholder, explainer.end])
        )
        == triple
    )
    assert len(tokenizer) == len(before.tokenizer)
    assert torch.equal(explainer.embed.weight, before.model.get_input_embeddings().weight)


@pytest.mark.parametrize("spare_rows", [0, 40])
@pytest.mark.parametrize("tied", [True, False])
def test_a_family_without_reserved_tokens_gets_three_with_the_mean_embedding(
    monkeypatch, tied, spare_rows
):
    use_special_tokens(monkeypatch, [])

    def load():
        lm = load_model("tiny-llama", "cpu")
        if not tied:
            output = lm.model.get_output_embeddings()
            output.weight = torch.nn.Parameter(
                output.weight.data.flip(0).clone(), requires_grad=False
            )
            lm.model.config.tie_word_embeddings = False
        if spare_rows:  # as many models have more embeddings than tokens
            lm.model.resize_token_embeddings(len(lm.tokenizer) + spare_rows, mean_resizing=False)
        return lm

    lm = load()
    known, ends = len(lm.tokenizer), ("get_input_embeddings", "get_output_embeddings")
    given = {end: getattr(lm.model, end)().weight.clone() for end in ends}
    explainer = Explainer(lm, SETTINGS, 32, BLOCKS)
    ids = [explainer.begin, explainer.placeholder, explainer.end]
    assert len(set(ids)) == 3 and min(ids) >= known
    torch.manual_seed(7)
    again = Explainer(load(), SETTINGS, 32, BLOCKS)
    for end, old in given.items():
        assert torch.equal(getattr(lm.model, end)().weight, old)  # who holds it sees nothing
        weight = getattr(explainer.lm.model, end)().weight
        assert len(weight) == known + (spare_rows or 3)
        torch.testing.assert_close(weight[ids], old[:known].mean(0).expand(3, -1))
        assert torch.equal(weight[:known], old[:known])
        assert torch.equal(weight[ids], getattr(again.lm.model, end)().weight[ids])
    assert len(lm.tokenizer) == known == len(explainer.lm.tokenizer) - 3
    assert len(explainer.explain([ASKED], max_new_tokens=3)) == 1


@pytest.mark.parametrize("scale", ["raw", "embedding"])
def test_a_model_that_multiplies_its_input_embeddings_reads_the_token_at_the_stated_scale(scale):
    """Granite does so in its forward, unlike Gemma, whose embedding layer does."""
    granite = AutoModelForCausalLM.from_config(
        GraniteConfig(**SIZES, embedding_multiplier=12.0), dtype=torch.float32
    )
    lm = dataclasses.replace(load_model("tiny-llama", "cpu"), model=granite.requires_grad_(False))
    explainer = Explainer(lm, dataclasses.replace(SETTINGS, vector_scale=scale), 32, BLOCKS)
    batch = explainer.collate(encode(explainer, make_examples(3)))
    token, v = seen_by_first_layer(explainer, batch)[batch.places], batch.vectors
    if scale == "embedding":
        norm = lm.model.get_input_embeddings().weight.norm(dim=-1).mean() * 12
        v = v / v.norm(dim=-1, keepdim=True) * norm
    torch.testing.assert_close(token, v, rtol=1e-4, atol=1e-4)


def test_a_model_that_adds_to_its_input_embeddings_is_refused():
    lm = load_model("tiny-llama", "cpu")
    layer = lm.model.get_decoder().layers[0]
    layer.register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))
    with pytest.raises(UserError, match="changes its input embeddings before layer 0"):
        Explainer(lm, SETTINGS, 32, BLOCKS)


# --- one base, two uses


@pytest.mark.parametrize("tuning", ["lora", "full", "frozen"])
def test_nothing_that_an_explainer_does_alters_a_model_that_somebody_else_holds(tmp_path, tuning):
    """Training, loading, merging while it answers, and a second explainer on the same base."""
    base, ids = load_model("tiny-llama", "cpu"), torch.arange(24).view(2, 12)
    before = base.model(ids).logits
    asked = [example.question for example in make_examples()]
    settings, how = SETTINGS, dataclasses.replace(TRAINING, epochs=2)
    if tuning == "frozen":
        settings = dataclasses.replace(SETTINGS, projection="frozen")
    else:
        how = dataclasses.replace(how, tuning=tuning)
    first = Explainer(base, settings, 32, BLOCKS)
    train(first, make_examples(), how, tmp_path / "first")
    said = first.explain(asked)
    other = Explainer(base, settings, 32, BLOCKS)
    train(other, make_examples(seed=1), how, tmp_path / "other", seed=1)
    loaded = Explainer.load(tmp_path / "first", "cpu", base=base)
    assert loaded.explain(asked) == said == first.explain(asked) != other.explain(asked)
    assert torch.equal(base.model(ids).logits, before)
    assert not any(p.requires_grad for p in base.model.parameters())


def test_an_explainer_on_a_given_base_takes_no_second_copy_of_its_weights(tmp_path):
    explainer = make_explainer()
    train(explainer, make_examples(), TRAINING, tmp_path)
    base = load_model("tiny-llama", "cpu")
    loaded = Explainer.load(tmp_path, "cpu", base=base)
    shared = {weight.data_ptr() for weight in base.model.parameters()}
    own = {p.data_ptr() for name, p in loaded.named_parameters() if "lora_" not in name}
    assert own == shared
    held = weakref.ref(base.model)  # and it keeps no other model alive
    del base
    gc.collect()
    assert held() is None


def test_full_tuning_holds_one_copy_of_the_weights(tmp_path):
    lm = load_model("tiny-llama", "cpu")
    first = weakref.ref(lm.model.get_input_embeddings().weight.untyped_storage())
    explainer = Explainer(lm, SETTINGS, 32, BLOCKS)
    del lm
    train(explainer, make_examples(), dataclasses.replace(TRAINING, tuning="full"), tmp_path)
    gc.collect()
    assert first() is None and explainer.explain([ASKED])


# --- saving and loading

KINDS = {
    "lora": ("tiny-llama", {}, {}),
    "lora, projection, center": ("tiny-gemma3", {"vector_center": True}, {}),
    "lora, rank-capped projection": (
        "tiny-llama",
        {"projection": "always", "projection_rank": 2},
        {},
    ),
    "full": ("tiny-qwen3", {}, {"tuning": "full"}),
    "full, projection, center": ("tiny-gemma3", {"vector_center": True}, {"tuning": "full"}),
    "lora, added tokens": ("tiny-llama", {}, {}),
    "lora, from the identity": ("tiny-llama", {"projection": "identity"}, {}),
    "frozen": ("tiny-llama", {"projection": "frozen"}, {}),
    "frozen, other width": ("tiny-gemma3", {"projection": "frozen"}, {}),
    "frozen, scale": ("tiny-qwen3", {"projection": "frozen-scale"}, {}),
    "full, added tokens": ("tiny-llama", {}, {"tuning": "full"}),
}


@pytest.fixture(scope="module", params=list(KINDS))
def saved(request, tmp_path_factory):
    """(a trained explainer, the folder it was saved in)."""
    name, asked, training = KINDS[request.param]
    folder = tmp_path_factory.mktemp("saved") / "out"
    with pytest.MonkeyPatch.context() as patch:
        if "added" in request.param:
            use_special_tokens(patch, [])
        explainer = make_explainer(name, seed=3, **asked)
        settings = dataclasses.replace(TRAINING, **training)
        trained = train(explainer, make_examples(), settings, folder, seed=3)
        assert trained.checkpoint == folder
        yield explainer, folder


def test_a_saved_explainer_is_loaded_as_it_was(saved):
    explainer, folder = saved
    loaded = Explainer.load(folder, "cpu")
    examples = make_examples(6, seed=9)
    assert not loaded.training and not loaded.model.training
    assert torch.equal(
        logits(explainer, explainer.collate(encode(explainer, examples))),
        logits(loaded, loaded.collate(encode(loaded, examples))),
    )
    questions = [example.question for example in examples]
    assert loaded.explain(questions) == explainer.explain(questions)
    loaded.save(folder.parent / "again")  # and once more
    assert Explainer.load(folder.parent / "again").explain(questions) == explainer.explain(
        questions
    )


def test_a_saved_explainer_is_an_ordinary_folder(saved):
    explainer, folder = saved
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja"}
    batch = explainer.collate(encode(explainer, make_examples(4)))
    inputs = {"inputs_embeds": explainer.embeddings(batch).detach(), "attention_mask": batch.mask}
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        held = sum(path.stat().st_size for path in folder.glob("adapter_model*"))
        assert held < 4 * 1.5 * sum(
            p.numel() for n, p in explainer.named_parameters() if "lora_" in n
        )  # no embeddings in it
        model = PeftModel.from_pretrained(load_model(explainer.lm.name, "cpu").model, folder)
    elif explainer.frozen:
        assert not (folder / "config.json").exists()
        model = load_model(explainer.lm.name, "cpu").model
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert (
            tokenizer.convert_tokens_to_ids(
                explainer.lm.tokenizer.convert_ids_to_tokens(explainer.placeholder)
            )
            == explainer.placeholder
        )
    with torch.no_grad():
        hidden = model.eval().get_base_model() if hasattr(model, "get_base_model") else model
        expected = explainer.model(**inputs, output_hidden_states=True).hidden_states[-1]
        assert torch.equal(hidden(**inputs, output_hidden_states=True).hidden_states[-1], expected)


def test_what_an_earlier_explainer_left_in_a_folder_is_not_taken_for_this_one(tmp_path):
    adapted = make_explainer("tiny-gemma3")
    add_lora(adapted, TRAINING, 0)
    adapted.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    plain = make_explainer("tiny-llama", vector_scale="raw")
    plain.embed.weight.data.mul_(2)
    plain.save(tmp_path)
    loaded = Explainer.load(tmp_path, "cpu")
    assert loaded.explain([ASKED]) == plain.explain([ASKED]) and loaded.projection is None
    assert torch.equal(loaded.embed.weight, plain.embed.weight)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_without_an_explainer_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="no explainer at"):
        Explainer.load(tmp_path)


@pytest.mark.parametrize("means", [torch.zeros(1, 32), torch.full((2, 32), float("nan"))])
def test_means_that_are_not_this_explainers_are_refused(tmp_path, means):
    make_explainer(projection="frozen").save(tmp_path)
    save_file({"center": means}, tmp_path / "vectors.safetensors")
    with pytest.raises(UserError, match="does not hold 2 means of finite numbers"):
        Explainer.load(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("adapter_config.json", {"lora_alpha": 1}),
        ("adapter_config.json", {"use_rslora": True}),
        ("explainer.json", {"token_norm": 1.0}),
    ],
)
def test_the_hash_of_a_checkpoint_is_of_the_settings_beside_its_weights_too(tmp_path, file, change):
    trained = train(make_explainer(), make_examples(), TRAINING, tmp_path)
    described = json.loads((tmp_path / file).read_text())
    same = {"peft_version": "0"}
    if "target_modules" in described:
        same["target_modules"] = described["target_modules"][::-1]
    (tmp_path / file).write_text(json.dumps(described | same))
    gates.check_checkpoint(tmp_path, trained.sha256)
    (tmp_path / file).write_text(json.dumps(described | change))
    with pytest.raises(UserError, match="has changed since its explainer was trained"):
        gates.check_checkpoint(tmp_path, trained.sha256)


# --- vectors at the ends of float32


@pytest.mark.parametrize("factor", [2.0**100, 2.0**-100, 1e25, 1e35, 1e-20, 1e-44])
@pytest.mark.parametrize("projection", ["when-needed", "always"])
def test_a_vector_comes_at_the_stated_scale_however_long_it_is(factor, projection):
    explainer = make_explainer(projection=projection)
    v, layer = 100 * vectors(3), torch.tensor([0, 1, 0])
    v[2] = 0
    token = explainer.continuous_token(v, layer)
    scaled = explainer.continuous_token(factor * v, layer)
    norms = scaled.norm(dim=-1) / explainer.token_norm
    torch.testing.assert_close(norms, torch.tensor([1.0, 1.0, 0.0]))
    if factor in (2.0**100, 2.0**-100):
        assert torch.equal(scaled, token)  # nothing is rounded otherwise
    elif factor > 1e-30:
        torch.testing.assert_close(scaled, token)


def test_a_vector_that_its_dtype_does_not_hold_is_an_error():
    explainer = make_explainer(dtype="float16", vector_scale="raw")
    question = ASKED.with_vector(torch.full((32,), 1e5))
    with pytest.raises(UserError, match="a vector outgrows torch.float16 as the input of tiny-"):
        explainer.explain([question])
    assert explainer.explain([question.with_vector(torch.full((32,), 1e2))])
