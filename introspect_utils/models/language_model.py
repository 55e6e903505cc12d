"""A causal language model with its tokenizer, and how texts become its token ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect_utils.models.chat_template import chat_form, plain, render
from introspect_utils.models.tokens import defused, token_ids
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer: a target or the base of an explainer."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        """Every pass is checked, whoever calls it: its length as by `check_length`, and that its
        logits are finite. In training they may not be: its loss is checked instead."""
        decoder, name = self.model.get_decoder(), self.name  # without self: copies share the hooks
        head = self.model.get_output_embeddings()

        def check(module: nn.Module, args: tuple, given: dict) -> None:
            cache, places = given.get("past_key_values"), given.get("position_ids")
            read = (*args, given.get("input_ids"), given.get("inputs_embeds"))
            n = next(part for part in read if part is not None).shape[1]
            n += cache.get_seq_length() if cache is not None else 0
            if n > (getattr(module.config, "max_position_embeddings", None) or n):
                # columns of padding do not count
                n = n if places is None else int(places.max()) + 1
                _check_length(name, module.config, n, "a text")

        if not hasattr(decoder, "checks_length"):
            decoder.register_forward_pre_hook(check, with_kwargs=True)
            decoder.checks_length = True
        if head is not None and not hasattr(head, "checks_logits"):
            head.register_forward_hook(lambda module, args, logits: _check_finite(name, logits))
            head.checks_logits = True

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
        """How many tokens back every layer sees."""
        config = self.model.config
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None) or ["sliding_attention"]  # Mistral names none
        windowed = window and "sliding_attention" in types
        return window if windowed else config.max_position_embeddings

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of `text` behind exactly one BOS (none if the tokenizer has none). `special`:
        special tokens in it are meant, as in what `chat` and `plain` return. Raises `UserError`
        when they are more than the model reads."""
        ids, bos = token_ids(self.tokenizer, text, special), self.tokenizer.bos_token_id
        ids = ids if bos is None or ids[:1] == [bos] else [bos, *ids]
        self.check_length(len(ids), f"the text {text[:80]!r}")
        return ids

    def answer_token(self, prompt: str, answer: str, special: bool = False) -> int:
        """The next token behind `prompt` that begins `answer`, as it is read there. Behind a space
        that the tokenizer would join to the answer, the answer begins as it does alone. Raises
        `UserError` when no such token tells the answer from others: the tokenizer joins it to the
        prompt, or it is only a space."""
        before, whole = self.encode(prompt, special), self.encode(prompt + answer, special)
        begins = whole[len(before) :][:1]
        joined = whole[: len(before)] != before
        if joined and prompt != prompt.rstrip():
            begins, joined = token_ids(self.tokenizer, answer)[:1], False
        if joined or not self.tokenizer.decode(begins).strip():
            raise UserError(
                f"no next token behind {prompt[-40:]!r} says {answer!r}: the tokenizer of "
                f"{self.name} joins the two, or begins with a space alone; use another wording"
            )
        return begins[0]

    def check_length(self, n: int, what: str) -> None:
        """Raises `UserError` when `what`, of `n` tokens, is longer than the model reads."""
        _check_length(self.name, self.model.config, n, what)

    def plain(self, user: str, system: str = "") -> str:
        """A prompt without roles, for `encode(..., special=True)`: `user` below `system`."""
        return defused(self.tokenizer, plain(user, system))

    def chat(self, user: str, system: str = "") -> str:
        """`user` as the only turn of a chat that awaits the assistant, for
        `encode(..., special=True)`: no default system prompt, no thinking, the date of no day.

        A template without a system role gets the system prompt above the user's text. Raises
        `UserError` for a base model without a chat template, and for a template that fails, leaves
        a text out or cannot be used (`chat_form`).
        """
        if not self.tokenizer.chat_template:
            raise UserError(
                f"{self.name} has no chat template: set explainer.prompt: base, or take an "
                "instruction-tuned model"
            )
        user, system = (defused(self.tokenizer, text) for text in (user, system))
        form = chat_form(self.tokenizer, str(self.tokenizer.chat_template))
        if system and not form.takes_system:
            user, system = plain(user, system), ""
        turns = [] if not system and form.no_system is None else [system or form.no_system]
        prompt = render(self.tokenizer, *(("system", text) for text in turns), ("user", user)) or ""
        whole = user.strip() in prompt and system.strip() in prompt and prompt.endswith(form.tail)
        if form.wrong or not prompt or not whole:
            raise UserError(
                f"the chat template of {self.name} {form.wrong or 'fails or leaves out a text'} "
                f"({user[:80]!r}): set explainer.prompt: base, or mend the template in "
                "tokenizer_config.json"
            )
        return self._one_bos(prompt.removesuffix(form.tail) + form.answer)

    def _one_bos(self, prompt: str) -> str:
        """A template's text with one BOS at most where it begins, and nothing before it."""
        bos = re.escape(self.tokenizer.bos_token or "")
        return re.sub(rf"\A(\s*{bos})+", self.tokenizer.bos_token, prompt) if bos else prompt


def _check_finite(name: str, logits: Tensor) -> None:
    """Raises `UserError` for logits [batch, length, vocabulary] with a value that is not finite."""
    import torch

    if logits.requires_grad or logits.sum(dtype=torch.float32).isfinite():
        return
    row = int((~logits.isfinite()).flatten(1).any(1).nonzero()[0])
    raise UserError(
        f"the logits of {name} for text {row} of its batch are not finite: the model is damaged, "
        "its numbers outgrow its dtype (set dtype: float32), or a vector put into it is not finite"
    )


def _check_length(name: str, config: PretrainedConfig, n: int, what: str) -> None:
    most = getattr(config, "max_position_embeddings", None) or n
    if n > most:
        raise UserError(
            f"{what} has {n:,} tokens, and {name} reads at most {most:,}: shorten it, or take "
            "another model"
        )
