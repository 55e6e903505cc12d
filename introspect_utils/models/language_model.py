"""A causal language model with its tokenizer, and how texts become its token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def plain(user: str, system: str = "") -> str:
    """A prompt without roles: the system prompt, if there is one, stands above the user's text."""
    return "\n\n".join(filter(None, (system, user)))


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer: a target or the base of an explainer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def n_layers(self) -> int:
        return self.model.config.num_hidden_layers

    @property
    def width(self) -> int:
        return self.model.config.hidden_size

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def window(self) -> int:
        """How many tokens back every layer sees: the length of attention windows (Gemma), else all
        that the model reads."""
        config = self.model.config
        types, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
        windows = types is None or "sliding_attention" in types  # Mistral names no types
        return window if window and windows else config.max_position_embeddings

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` behind exactly one BOS (none if the tokenizer has none or the text, a
        chat, brings its own)."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def check_length(self, n: int, what: str) -> None:
        """Raises `UserError` when `what`, of `n` tokens, is longer than the model was made to
        read."""
        most = self.model.config.max_position_embeddings
        if n > most:
            raise UserError(
                f"{what} has {n:,} tokens, and {self.name} reads at most {most:,}: shorten it, or "
                "take another model"
            )

    def chat(self, user: str, system: str = "") -> str:
        """`user` as the only turn of a chat that awaits the assistant: no default system prompt,
        thinking off (Qwen3).

        Gemma 2 has no system role: there a system prompt stands above the user's text. Raises
        `UserError` for a base model without a chat template.
        """
        if not self.tokenizer.chat_template:
            raise UserError(
                f"{self.name} has no chat template: set explainer.prompt: base, or take an "
                "instruction-tuned model"
            )
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        # Llama 3.1 writes the day's date into its prompt, which is to be the same tomorrow
        settings = {
            "tokenize": False,
            "add_generation_prompt": True,
            "enable_thinking": False,
            "date_string": "26 Jul 2024",
        }
        if "System role not supported" in self.tokenizer.chat_template:
            turns = [{"role": "user", "content": plain(user, system)}]
        return self.tokenizer.apply_chat_template(turns, **settings)
