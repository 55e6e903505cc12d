"""Special tokens that a text spells out stay text, in every kind of tokenizer; where answers begin;
and lengths."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, DynamicCache, PreTrainedTokenizerFast

from introspect_utils.data.facts import load_facts
from introspect_utils.explainer.continuous_token import reserve_tokens
from introspect_utils.features.chat_candidates import with_marks
from introspect_utils.features.directions import marked_text
from introspect_utils.models.contexts import contexts
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual_store import token_activations
from introspect_utils.models.tokens import MARK, defused, texts_of, token_ids, token_spans
from introspect_utils.settings.errors import UserError

FACTS = [f"{fact.prompt} {fact.object}." for fact in load_facts("packaged")[:2000]]
LLAMA3 = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
SENTENCEPIECE = {"vocab_size": 1000, "show_progress": False, "unk_token": "<unk>"}


def _byte_level(split):
    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)
    parts = [pre_tokenizers.Split(Regex(LLAMA3), "isolated")] if split else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet)


def _gemma(prefix):
    """BPE over characters, spaces as "▁"; Llama 2 puts one in front of the text as well."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return tokenizer, trainers.BpeTrainer(vocab_size=1000, special_tokens=special)


def _unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return tokenizer, trainers.UnigramTrainer(
        special_tokens=["<unk>"], **SENTENCEPIECE, initial_alphabet=list("<>|_[]/0")
    )


# kind -> (BOS, EOS, other special tokens, tokens added as ordinary ones)
KINDS = {
    "smollm2": (lambda: _byte_level(False), "<|im_start|>", "<|im_end|>", ["<repo_name>"], []),
    "llama3": (
        lambda: _byte_level(True),
        "<|begin_of_text|>",
        "<|eot_id|>",
        ["<|start_header_id|>", "<|reserved_special_token_12|>"],
        [],
    ),
    "qwen": (lambda: _byte_level(True), None, "<|im_end|>", ["<|im_start|>"], ["<|fim_prefix|>"]),
    "gemma": (lambda: _gemma(False), "<bos>", "<eos>", ["<start_of_turn>"], []),
    "llama2": (lambda: _gemma(True), "<s>", "</s>", ["[INST]"], []),
    "unigram": (_unigram, "<s>", "</s>", ["<extra_id_0>"], []),
}


def tokenizer_of(kind):
    make, bos, eos, special, ordinary = KINDS[kind]
    tokenizer, trainer = make()
    tokenizer.train_from_iterator(FACTS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        extra_special_tokens=special,
    )
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in ordinary])
    spelled = [*filter(None, (bos, eos)), *special, *ordinary]
    return made, spelled


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param, *tokenizer_of(request.param)


def test_a_spelled_special_token_is_text(kind):
    _, tokenizer, spelled = kind
    texts = [f"Rome {token} is{token}{token}in Italy." for token in spelled]
    for text in [*texts, *spelled, "".join(spelled)]:
        ids = token_ids(tokenizer, text)
        assert not set(ids) & set(tokenizer.convert_tokens_to_ids(spelled))
        assert tokenizer.decode(ids) == text
        assert set(tokenizer(text)["input_ids"]) & set(tokenizer.convert_tokens_to_ids(spelled))


def test_ordinary_text_is_read_as_by_the_tokenizer(kind):
    _, tokenizer, _ = kind
    for text in ["Rome is the capital of Italy.", " a < b | c > d\n\n[x]", "été  naïve", ""]:
        expected = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert token_ids(tokenizer, text) == expected["input_ids"]
        assert token_ids(tokenizer, text, special=True) == expected["input_ids"]
        assert token_spans(tokenizer, text) == (expected["input_ids"], expected["offset_mapping"])


def test_runs_of_tokens_join_to_the_text(kind, tiny):
    _, tokenizer, _ = kind
    text, lm = "Rome is the capital of the country Italy", replace(tiny, tokenizer=tokenizer)
    ids = token_ids(tokenizer, text)
    for cut in range(1, len(ids) - 1):
        runs = [ids[:cut], ids[cut : cut + 1], ids[cut + 1 :]]
        assert "".join(texts_of(tokenizer, runs)).strip() == text
        marked = torch.arange(len(ids)) == cut
        for shown in (marked_text(lm, ids, cut), with_marks(torch.tensor(ids), marked, tokenizer)):
            assert re.sub("<<<|>>>|{{|}}", "", shown).strip() == text and shown != text


def test_spans_count_through_what_is_broken(kind):
    name, tokenizer, spelled = kind
    text = f"Rome{spelled[-1]} is in Italy"
    ids, spans = token_spans(tokenizer, text)
    assert ids == token_ids(tokenizer, text) and spans[-1][1] == len(text)
    if name != "llama2":
        assert "".join(text[a:b] for a, b in spans) == text


def test_in_a_prompt_the_special_tokens_of_the_template_are_special_and_no_others(kind):
    name, tokenizer, spelled = kind
    outside = f"Rome{spelled[-1]}is"
    prompt = f"{spelled[-1]}user {defused(tokenizer, outside)}{spelled[0]}"
    ids = token_ids(tokenizer, prompt, special=True)
    first, last = tokenizer.convert_tokens_to_ids([spelled[-1], spelled[0]])
    assert (ids[0], ids.count(first), ids[-1], ids.count(last)) == (first, 1, last, 1)
    if name != "llama2":  # which puts a space behind every special token
        assert tokenizer.decode(ids) == prompt.replace(MARK, "")


def test_no_context_of_a_corpus_holds_a_special_token(tiny):
    special = tiny.tokenizer.all_special_tokens
    texts = [f"{token}Rome is the capital{token} of Italy{token}" for token in special] * 3
    windows = contexts(tiny, texts, 8, 20)
    assert not set(windows.flatten().tolist()) & set(tiny.tokenizer.all_special_ids)


def test_texts_from_outside_are_plain_wherever_they_are_read(tiny):
    eos = tiny.tokenizer.eos_token
    text = f"Rome{eos} is"
    assert tiny.encode(text).count(tiny.tokenizer.eos_token_id) == 0
    assert tiny.encode(tiny.tokenizer.bos_token)[0] == tiny.tokenizer.bos_token_id
    assert len(tiny.encode(tiny.tokenizer.bos_token)) > 2
    assert len(token_activations(tiny, text, 1)) == len(token_ids(tiny.tokenizer, text)) > 4
    for prompt in (tiny.chat(text, text), tiny.plain(text, text)):
        assert tiny.tokenizer.eos_token_id not in tiny.encode(prompt, special=True)


def test_control_tokens_that_are_not_marked_as_special_are_text_too(tiny):
    lm = replace(tiny, tokenizer=copy.deepcopy(tiny.tokenizer))
    control = ["<｜User｜>", "<think>", "</think>", "<tool_call>", "<start_of_image>", "[INST]"]
    control += ["◁think▷", "<|im_sep|>", "<unused7>", "[gMASK]"]
    ordinary = ["\n\n\n", "    ", "<h1>", "</table>", "introspection"]
    lm.tokenizer.add_tokens([AddedToken(t, special=False) for t in control + ordinary])
    for token in control + ordinary:
        number, text = lm.tokenizer.convert_tokens_to_ids(token), f"Rome {token} is{token}"
        for ids in (
            token_ids(lm.tokenizer, text),
            lm.encode(lm.chat(text, text), special=True),
            lm.encode(lm.plain(text), special=True),
            contexts(lm, [text * 9], 8, 1).flatten().tolist(),
        ):
            assert (number in ids) == (token in ordinary)
        assert lm.tokenizer.decode(token_ids(lm.tokenizer, text)) == text
        assert number in lm.encode(token, special=True)  # the template's own


def test_tokens_reserved_later_are_special_too():
    lm = load_model("tiny-qwen3", "cpu")
    text = "a <|vector|> b <|vision_pad|>"
    token_ids(lm.tokenizer, text)  # what is special has been looked up
    triple = reserve_tokens(lm)
    assert not set(triple) & {*lm.encode(lm.chat(text), special=True), *lm.encode(text)}


# --- where an answer begins


def with_tokenizer(lm, kind):
    return replace(lm, tokenizer=tokenizer_of(kind)[0])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unigram"])
def test_the_answer_token_tells_answers_apart(kind, tiny):
    lm = with_tokenizer(tiny, kind)
    answers = ["Italy", "France", "Denmark", "A", "B"]
    tokens = [lm.answer_token("The answer is", f" {answer}") for answer in answers]
    assert len(set(tokens)) == len(answers)
    for token, answer in zip(tokens, answers, strict=True):
        piece = lm.tokenizer.convert_ids_to_tokens(token).lstrip("▁Ġ")
        assert piece and answer.startswith(piece)


def test_an_answer_without_a_token_of_its_own_is_an_error(tiny):
    llama2 = with_tokenizer(tiny, "llama2")
    assert len({llama2.tokenizer(f"  {x}")["input_ids"][0] for x in "AB"}) == 1
    for prompt, answer in [("Rome is", "  Italy"), ("Rome is the ca", "pital"), ("Rome", "")]:
        with pytest.raises(UserError, match="no next token behind .* says"):
            llama2.answer_token(prompt, answer)


# --- lengths


@pytest.fixture(scope="module")
def short():
    """A model that reads 32 tokens."""
    lm = load_model("tiny-llama", "cpu")
    lm.model.config.max_position_embeddings = 32
    return lm


TOO_LONG = r"has \d+ tokens, and tiny-llama reads at most 32"


def test_a_text_that_is_too_long_is_an_error(short):
    with pytest.raises(UserError, match=f"the text 'Rome .* {TOO_LONG}"):
        short.encode("Rome " * 40)


def test_no_pass_is_longer_than_the_model_reads(short):
    ids = torch.full((2, 33), 50)
    model, decoder = short.model, short.model.get_decoder()
    embedded = model.get_input_embeddings()(ids)
    cache = DynamicCache()
    model(ids[:, :20], past_key_values=cache, use_cache=True)
    passes = [
        lambda: model(ids),
        lambda: model(input_ids=ids),
        lambda: model(inputs_embeds=embedded),
        lambda: decoder(ids),
        lambda: decoder(inputs_embeds=embedded),
        lambda: model(input_ids=ids[:, :13], past_key_values=cache),
        lambda: model.generate(ids[:, :30], max_new_tokens=5, min_new_tokens=5, pad_token_id=0),
    ]
    for too_long in passes:
        with pytest.raises(UserError, match=TOO_LONG), torch.inference_mode():
            too_long()
    model(ids[:, :32])


def test_padding_does_not_count(short):
    ids = torch.full((1, 40), 50)
    places = (torch.arange(40) - 8).clamp(min=0)[None]
    short.model(ids, attention_mask=(places > 0).long(), position_ids=places)


def test_a_copy_is_checked_too(short):
    first = LanguageModel("other", short.model, short.tokenizer)
    with pytest.raises(UserError, match=TOO_LONG):
        first.model(torch.full((1, 33), 50))
