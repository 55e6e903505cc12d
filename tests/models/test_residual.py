import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, MistralConfig

from introspect_utils.data.facts import load_facts, make_pairs
from introspect_utils.data.prompts import target_prompt
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import (
    clean_run,
    decoder_layers,
    layer_hooks,
    pad_left,
    patched_logits,
    positions,
    with_layers,
)
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import MODELS
from introspect_utils.tasks.patching import choose_demonstrations, layer_blocks, patch_outcomes

TINY = [name for name in MODELS if name.startswith("tiny-")]
TEXTS = [
    "Rome is the capital of",
    "Oslo's profession was",
    "Christchurch is located in the country of",
]


def n_hooks(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def batch_of(lm, texts=TEXTS):
    rows = [lm.encode(text) for text in texts]
    assert len(set(map(len, rows))) > 1  # there is padding
    return rows, pad_left(rows, lm.tokenizer.pad_token_id)


# --- batches


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=5))
def test_pad_left_lines_up_the_ends(rows):
    ids, mask = pad_left(rows, 0)
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, i, m, p in zip(rows, ids, mask, positions(mask), strict=True):
        n = len(row)
        assert i[-n:].tolist() == row and m.sum() == m[-n:].sum() == n
        assert p[-n:].tolist() == list(range(n))


# --- reading


@pytest.mark.parametrize("name", TINY)
def test_clean_run_reads_what_the_model_computes_without_padding(name):
    lm = load_model(name, "cpu")
    rows, (ids, mask) = batch_of(lm)
    run = clean_run(lm.model, ids, mask, layers=range(lm.n_layers))
    for i, row in enumerate(rows):
        with torch.inference_mode():
            alone = lm.model(torch.tensor([row]), output_hidden_states=True)
            last = lm.model.get_decoder().norm(run.residual[lm.n_layers - 1][i, -len(row) :])
        assert run.next_token[i] == alone.logits[0, -1].argmax()
        for layer in range(
            lm.n_layers - 1
        ):  # hidden_states[0] is the embedding, the last one has passed the final norm
            residual = run.residual[layer][i, -len(row) :]
            torch.testing.assert_close(
                residual, alone.hidden_states[layer + 1][0], rtol=1e-4, atol=1e-4
            )
        torch.testing.assert_close(last, alone.hidden_states[-1][0], rtol=1e-4, atol=1e-4)


def test_only_the_layers_asked_for_are_kept():
    lm = load_model("tiny-llama", "cpu")
    run = clean_run(lm.model, *batch_of(lm)[1], layers=[2])
    assert list(run.residual) == [2] and run.cache.get_seq_length() == run.mask.shape[1]


# --- nothing is left behind


def test_hooks_are_gone_after_use_and_after_an_exception():
    lm = load_model("tiny-llama", "cpu")
    before, (ids, mask) = n_hooks(lm.model), batch_of(lm)[1]
    with layer_hooks(lm.model, {0: lambda output: None, 3: lambda output: None}):
        assert n_hooks(lm.model) == before + 2
    assert n_hooks(lm.model) == before

    def fail(output):
        raise RuntimeError("in the hook")

    with (
        pytest.raises(RuntimeError, match="in the hook"),
        layer_hooks(lm.model, {0: lambda output: None, 1: fail}),
    ):
        lm.model(input_ids=ids, attention_mask=mask)
    with pytest.raises(UserError, match="there is no layer 99: the model has 4 layers, 0 to 3"):
        clean_run(lm.model, ids, mask, layers=[0, 99])
    assert n_hooks(lm.model) == before


def test_layers_are_restored_also_after_an_exception():
    lm = load_model("tiny-llama", "cpu")
    layers, own = decoder_layers(lm.model), list(decoder_layers(lm.model))
    with pytest.raises(RuntimeError), with_layers(lm.model, decoder_layers(lm.model)[1:]):
        assert list(decoder_layers(lm.model)) == own[1:]
        raise RuntimeError
    assert decoder_layers(lm.model) is layers and list(layers) == own


def test_a_failing_patch_leaves_the_model_as_it_was():
    lm = load_model("tiny-llama", "cpu")
    ids, mask = batch_of(lm)[1]
    clean = clean_run(lm.model, ids, mask, layers=[0])
    layers, before = decoder_layers(lm.model), n_hooks(lm.model)
    clean.residual[0] = clean.residual[0][
        ..., :-1
    ]  # too narrow for the layers above: fails inside the forward pass
    with pytest.raises(RuntimeError):
        patched_logits(lm.model, clean, (0, 1), 2, torch.tensor([0]), torch.zeros(1, lm.width - 1))
    assert decoder_layers(lm.model) is layers and n_hooks(lm.model) == before
    assert torch.equal(clean_run(lm.model, ids, mask).next_token, clean.next_token)


def test_a_patch_does_not_write_into_the_clean_run():
    lm = load_model("tiny-qwen3", "cpu")
    clean = clean_run(lm.model, *batch_of(lm)[1], layers=[0])
    kept, keys = clean.residual[0].clone(), clean.cache.layers[2].keys.clone()
    patched_logits(lm.model, clean, (0, 1, 2), 3, torch.tensor([0, 2]), torch.ones(2, lm.width))
    assert torch.equal(clean.residual[0], kept) and torch.equal(clean.cache.layers[2].keys, keys)


# --- oracle 1: the whole forward pass, one row, no padding, no cache


def slow_patched_logits(model, row, block, position, v):
    """Eq. 4 as it stands: run all of the model and overwrite `position` behind every layer of the
    block."""

    def write(module, args, output):
        output = output.clone()
        output[0, position] = v
        return output

    handles = [decoder_layers(model)[layer].register_forward_hook(write) for layer in block]
    with torch.inference_mode():
        logits = model(torch.tensor([row]), use_cache=False).logits[0, -1]
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("name", TINY)
def test_patching_equals_the_whole_forward_pass_with_overwritten_positions(name):
    lm = load_model(name, "cpu")
    rows, (ids, mask) = batch_of(lm)
    clean = clean_run(lm.model, ids, mask, layers=range(lm.n_layers))
    draw = torch.Generator().manual_seed(0)
    changed = 0
    for block in [block for n in (1, 2, 4) for block in layer_blocks(lm.n_layers, n)]:
        for from_end in range(1, max(map(len, rows)) + 1):
            index = [
                i for i in (2, 0, 1) if len(rows[i]) >= from_end
            ]  # some of the rows, out of order
            v = clean.residual[block[0]].std() * torch.randn(len(index), lm.width, generator=draw)
            args = (lm.model, clean, block, from_end, torch.tensor(index), v)
            logits = patched_logits(*args)
            for k, i in enumerate(index):
                expected = slow_patched_logits(
                    lm.model, rows[i], block, len(rows[i]) - from_end, v[k]
                )
                torch.testing.assert_close(logits[k], expected, rtol=1e-3, atol=1e-3)
                assert logits[k].argmax() == expected.argmax()
                changed += int(expected.argmax() != clean.next_token[i])
    assert changed > 20  # the patches are felt


# --- oracle 2: TransformerLens


def lens(folder):
    """An independent copy of the model in `folder` under TransformerLens."""
    from transformer_lens.model_bridge.bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(
        str(folder), device="cpu", hf_model=model, tokenizer=tokenizer
    )


@torch.inference_mode()
def lens_outcomes(bridge, ids, other_ids, blocks, places):
    """{(block, position of x): (next token, v)}, the `places` [(position of x, position of x')] as
    the rows of one batch."""
    _, cache = bridge.run_with_cache(torch.tensor([other_ids]))
    outcomes = {}
    for block in blocks:
        at = torch.arange(len(places)), torch.tensor([position for position, _ in places])
        v = torch.stack([cache[f"blocks.{layer}.hook_resid_post"][0] for layer in block]).mean(0)[
            [other for _, other in places]
        ]

        def write(residual, hook, at=at, v=v):
            residual[at] = v
            return residual

        hooks = [(f"blocks.{layer}.hook_resid_post", write) for layer in block]
        tokens = (
            bridge.run_with_hooks(torch.tensor([ids] * len(places)), fwd_hooks=hooks)[:, -1]
            .argmax(-1)
            .tolist()
        )
        for (position, _), token, vector in zip(places, tokens, v, strict=True):
            outcomes[block, position] = token, vector
    return outcomes


def same_labels_as_lens(lm, bridge, pair, demonstrations, n_blocks, with_options):
    """Compare every label of one pair; returns the number of labels and of changed ones."""
    rows = list(
        patch_outcomes(lm, [pair], demonstrations, n_blocks, with_options, known_only=False)
    )
    shown, options = demonstrations[pair.original.relation], pair.options if with_options else ()
    ids, other_ids = (
        lm.encode(target_prompt(fact, shown, options).text)
        for fact in (pair.original, pair.counterfactual)
    )
    with torch.inference_mode():
        original = bridge(torch.tensor([ids]))[0, -1].argmax().item()
    places = sorted(
        {
            (row["patch_position"]["orig_pos"], row["patch_position"]["counterfact_pos"])
            for row in rows
        }
    )
    expected = lens_outcomes(bridge, ids, other_ids, layer_blocks(lm.n_layers, n_blocks), places)
    assert len(rows) == len(expected)
    for row in rows:
        token, v = expected[tuple(row["layer"]), row["patch_position"]["orig_pos"]]
        assert row["original_continuation"] == [lm.tokenizer.decode([original])]
        assert row["ablated_continuation"] == [lm.tokenizer.decode([token])]
        assert row["is_different"] == (token != original)
        vector = torch.from_numpy(row["patch_position"]["intervention_vector"])
        torch.testing.assert_close(vector, v, rtol=1e-3, atol=1e-3 * v.abs().max().item())
    return len(rows), sum(row["is_different"] for row in rows)


@pytest.mark.parametrize("with_options", [False, True])
def test_transformer_lens_gives_the_same_labels_for_a_tiny_model(tmp_path, with_options):
    lm = load_model("tiny-llama", "cpu")
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    bridge = lens(tmp_path)
    facts = load_facts("packaged")
    demonstrations = choose_demonstrations(facts, 1, seed=0)
    counts = [
        same_labels_as_lens(lm, bridge, pair, demonstrations, 2, with_options)
        for pair in make_pairs(facts, 2, seed=0)
    ]
    labels, changed = map(sum, zip(*counts, strict=True))
    assert labels > changed > 0


@pytest.mark.real
def test_transformer_lens_gives_the_same_labels_for_the_real_model(smollm2):
    bridge = lens(smollm2.model.config._name_or_path)
    facts = [
        fact
        for fact in load_facts("packaged")
        if fact.relation in ("country_capital", "city_country")
    ]
    [pair] = make_pairs(facts, 1, seed=1)
    demonstrations = choose_demonstrations(facts, 1, seed=0)
    labels, changed = same_labels_as_lens(smollm2, bridge, pair, demonstrations, 4, False)
    assert labels > changed > 0


# --- attention windows (20.5)


def windowed(config, **more):
    """A random model of four layers that see 16 tokens back, all of them or the first and last."""
    sizes = dict(vocab_size=60, hidden_size=24, intermediate_size=32, num_hidden_layers=4)
    heads = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=12, initializer_range=0.4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sized = config(**sizes, **heads, sliding_window=16, pad_token_id=0, **more)
        return AutoModelForCausalLM.from_config(sized, dtype=torch.float32).eval()


SLIDING, FULL = "sliding_attention", "full_attention"
WINDOWED = {
    "gemma3": windowed(Gemma3TextConfig, layer_types=[SLIDING] * 4),
    "gemma3, mixed": windowed(Gemma3TextConfig, layer_types=[SLIDING, FULL, FULL, SLIDING]),
    "gemma2": windowed(Gemma2Config),
    "mistral": windowed(MistralConfig),  # its settings name no types of layers
}


@pytest.mark.parametrize("name", WINDOWED)
@settings(max_examples=8)
@given(st.data())
def test_a_patch_is_that_of_a_plain_pass_whatever_the_length_and_the_window(name, data):
    model = WINDOWED[name]
    lengths = data.draw(st.lists(st.integers(2, 40), min_size=1, max_size=3))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    rows = [torch.randint(1, 60, (n,), generator=draw).tolist() for n in lengths]
    clean = clean_run(model, *pad_left(rows, 0), layers=range(4))
    block = data.draw(st.sampled_from([(0, 1), (2, 3), (1,), (0, 1, 2, 3)]))
    from_end = data.draw(st.integers(1, min(lengths)))
    v = 3 * torch.randn(len(rows), 24, generator=draw)
    patched = patched_logits(model, clean, block, from_end, torch.arange(len(rows)), v)
    for row, vector, logits in zip(rows, v, patched, strict=True):

        def write(output, vector=vector):
            output[0, -from_end] = vector
            return output

        with layer_hooks(model, dict.fromkeys(block, write)), torch.inference_mode():
            expected = model(torch.tensor([row]), use_cache=False).logits[0, -1]
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_the_window_of_a_model():
    windows = {name: LanguageModel(name, model, None).window for name, model in WINDOWED.items()}
    assert set(windows.values()) == {16}
    assert load_model("tiny-llama", "cpu").window == 2048
