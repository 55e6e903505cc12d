"""Randomly initialised four-layer models with a real tokenizer: the test of every code path, in
milliseconds."""

from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from introspect_utils.data.facts import load_facts

# The special tokens that the real families have: (BOS, EOS, and those of the continuous token).
LLAMA3 = [f"<|reserved_special_token_{number}|>" for number in (10, 12, 11)]
QWEN3 = ["<|vision_start|>", "<|vision_pad|>", "<|vision_end|>"]
FAMILIES = {
    "llama": (LlamaConfig, "<|begin_of_text|>", "<|end_of_text|>", LLAMA3),
    "qwen3": (Qwen3Config, None, "<|im_end|>", QWEN3),
    "gemma3": (Gemma3TextConfig, "<bos>", "<eos>", ["<unused0>", "<unused1>", "<unused2>"]),
}
WIDTHS = {"llama": 32, "qwen3": 32, "gemma3": 48}  # two of equal width, one that needs a projection
CHAT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{% if message['content'] %}"
    "[{{ message['role'] }}] {{ message['content'] }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@cache
def _bpe(special: tuple[str, ...]) -> str:
    """A byte-level BPE of 1,200 tokens learned from the packaged facts, as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    settings = {"vocab_size": 1200, "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=list(special), initial_alphabet=alphabet, **settings
    )
    texts = (f"{fact.prompt} {fact.object}." for fact in load_facts("packaged"))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def tiny_model(family: str, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A four-layer model of a family with random fp32 weights, and its tokenizer."""
    config, bos, eos, continuous = FAMILIES[family]
    special = tuple(token for token in ("<pad>", bos, eos) if token) + tuple(continuous)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bpe(special)),
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        extra_special_tokens=continuous,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )
    width = WIDTHS[family]
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "initializer_range": 0.2,  # large enough that a patch changes the argmax
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config(**sizes), dtype=torch.float32), tokenizer
