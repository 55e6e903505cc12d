"""The explainer: a causal language model that reads a vector of the target as one continuous token
(section 2.2).

    question: "If feature [s] v [e] at layer ... , how would the output change?"
    embeddings:            e(If) e(feature) e([s]) Pi_l v e([e]) e(at) ...

The vector takes the place of a placeholder token's input embedding. Where the widths of target and
explainer differ, a linear projection Pi_l, one for each layer (or block of layers) l of the target,
maps it first (eq. 3).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from introspect_utils.explainer.continuous_token import reserve_tokens, token_norm
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import pad_left, positions, read_shared, worth_sharing
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import ExplainerSettings
from introspect_utils.tasks.question import FORMS, VECTOR, Question

SETTINGS, VECTORS, PROJECTION = "explainer.json", "vectors.safetensors", "projection.safetensors"


class Projection(nn.Module):
    """Pi_l: one matrix [d_explainer, d_target] for each of `n` layers (or blocks) of the target, at
    random at first.

    With a `rank` above 0 they stay as they were drawn, plus a trained product of that rank: what
    became of the projection in the authors' code, where it is a LoRA target.
    """

    def __init__(
        self, n: int, d_target: int, d_explainer: int, rank: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(
            torch.randn(n, d_explainer, d_target, generator=draw) / d_target**0.5,
            requires_grad=not rank,
        )
        self.rank = rank
        if rank:
            self.A = nn.Parameter(torch.randn(n, rank, d_target, generator=draw) / d_target**0.5)
            self.B = nn.Parameter(torch.zeros(n, d_explainer, rank))

    def forward(self, v: Tensor, layer: Tensor) -> Tensor:
        """v [batch, d_target], layer [batch] -> [batch, d_explainer]."""
        projected = torch.einsum("bed,bd->be", self.weight[layer], v)
        if self.rank:
            projected = projected + torch.einsum("ber,brd,bd->be", self.B[layer], self.A[layer], v)
        return projected


class Batch(NamedTuple):
    """Rows padded on one side; `vectors` fill `places` in reading order. The first `shared` columns
    are the same in all rows (a system prompt, say), before any vector; padding on the left stands
    behind them."""

    ids: Tensor  # [batch, length]
    mask: Tensor  # [batch, length]
    labels: Tensor  # [batch, length]: -100 except on the explanation and its EOS
    places: Tensor  # [batch, length] bool: the placeholder of a row with a vector
    vectors: Tensor  # [rows with a vector, d_target]
    layer: Tensor  # [rows with a vector]: index of the question's layers
    shared: int = 0


class Explainer(nn.Module):
    """A language model with the continuous token. `layers` lists the target's layers (or blocks)
    that vectors can come from.

    It is empty where the questions have no vector, and then there is no projection.
    """

    def __init__(
        self,
        lm: LanguageModel,
        settings: ExplainerSettings,
        d_target: int,
        layers: Sequence[tuple[int, ...]],
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.lm, self.settings, self.d_target, self.layers = (
            lm,
            settings,
            d_target,
            tuple(map(tuple, layers)),
        )
        self.model = lm.model
        self.begin, self.placeholder, self.end = reserve_tokens(lm)
        self.layer_index = {layer: index for index, layer in enumerate(self.layers)}
        width, n = lm.width, len(self.layers)
        needed = n > 0 and (settings.projection == "always" or d_target != width)
        self.projection = (
            Projection(n, d_target, width, settings.projection_rank, seed) if needed else None
        )
        self.register_buffer("center", torch.zeros(n, d_target))
        self.to(lm.device)
        self.token_norm = token_norm(
            lm, settings.vector_scale
        )  # taken before training, which may change it
        self.longest_explanation = (
            0  # tokens of the longest it was trained on, which it must have the room to give
        )

    @property
    def embed(self) -> nn.Module:
        return self.lm.model.get_input_embeddings()

    def fit_center(self, questions: Sequence[Question]) -> None:
        """Take the mean of the training vectors of each layer; without `vector_center` it stays
        zero."""
        if self.settings.vector_center:
            for layer, index in self.layer_index.items():
                vectors = [
                    question.vector
                    for question in questions
                    if question.layers == layer and question.vector is not None
                ]
                if vectors:
                    self.center[index] = torch.stack(vectors).mean(0)

    def continuous_token(self, v: Tensor, layer: Tensor) -> Tensor:
        """Pi_l (v - mean_l) at the stated scale: v [batch, d_target] -> [batch, width]. A zero
        vector stays zero."""
        v = torch.where(v.any(-1, keepdim=True), v - self.center[layer], v)
        token = self.projection(v, layer) if self.projection is not None else v
        if self.token_norm is not None:
            token = token * (self.token_norm / token.norm(dim=-1, keepdim=True).clamp(min=1e-6))
        return token

    def encode(
        self, question: Question, explanation: str | None = None, prompt: str | None = None
    ) -> tuple[list[int], int]:
        """(ids, length of the prompt): the prompt, then the explanation and EOS if there is one.
        Exactly one BOS.

        A model without a chat template (a base model) is asked in plain text, whatever the settings
        say.

        Raises `UserError` when the vector and its mark in the text do not go together, the vector
        is not [d_target] finite numbers, or the whole is longer than the model reads.
        """
        text, form = question.text, prompt or question.prompt or self.settings.prompt
        chat = FORMS[form]["roles"] and bool(self.lm.tokenizer.chat_template)
        if text.count(VECTOR) != (question.vector is not None):
            raise UserError(
                f"a question with a vector holds {VECTOR} once, one without does not: "
                f"{text[:200]!r}"
            )
        if question.vector is not None and question.vector.shape != (self.d_target,):
            shape = list(question.vector.shape)
            raise UserError(
                f"a vector is {shape} where the target's width is {self.d_target}: of another "
                f"target? {text[:200]!r}"
            )
        if question.vector is not None and not question.vector.isfinite().all():
            raise UserError(
                f"a vector has values that are not finite: leave this question out or make it "
                f"anew: {text[:200]!r}"
            )
        tokenizer = self.lm.tokenizer
        triple = tokenizer.convert_ids_to_tokens([self.begin, self.placeholder, self.end])
        asked = (self.lm.chat if chat else self.lm.plain)(text, question.system)
        ids = self.lm.encode(asked.replace(VECTOR, "".join(triple)), special=True)
        n_prompt = len(ids)
        if explanation is not None:
            answer = explanation if chat or text[-1].isspace() else f" {explanation}"
            ids = [*ids, *token_ids(tokenizer, answer), tokenizer.eos_token_id]
        self.lm.check_length(len(ids), f"the question {question.text[:80]!r}")
        return ids, n_prompt

    def collate(
        self, rows: Sequence[tuple[Question, list[int], int]], padding_side: str = "left"
    ) -> Batch:
        """Rows (question, ids, length of the prompt) as one batch on the model's device."""
        device, pad = self.lm.device, self.lm.tokenizer.pad_token_id
        starts = [
            tokens[: n if asked.vector is None else min(n, tokens.index(self.placeholder))]
            for asked, tokens, n in rows
        ]
        shared = worth_sharing(starts, max(len(tokens) for _, tokens, _ in rows), self.lm.window)
        if padding_side == "left":
            ids, mask = pad_left([ids for _, ids, _ in rows], pad, device, shared)
        else:
            ids, mask = (
                part.flip(-1) for part in pad_left([ids[::-1] for _, ids, _ in rows], pad, device)
            )
        labels = torch.full_like(ids, -100)
        places = torch.zeros_like(ids, dtype=torch.bool)
        for row, (question, tokens, n_prompt) in enumerate(rows):
            start = ids.shape[1] - len(tokens) if padding_side == "left" else 0
            labels[row, start + n_prompt : start + len(tokens)] = ids[
                row, start + n_prompt : start + len(tokens)
            ]
            if question.vector is not None:
                places[row, start + tokens.index(self.placeholder)] = True
        asked = [question for question, _, _ in rows if question.vector is not None]
        layer = torch.tensor(
            [self._index(question.layers) for question in asked], dtype=torch.long, device=device
        )
        vectors = (
            torch.stack([question.vector for question in asked])
            if asked
            else torch.zeros(0, self.d_target)
        )
        return Batch(ids, mask, labels, places, vectors.to(device), layer, shared)

    def _index(self, layers: tuple[int, ...]) -> int:
        if layers not in self.layer_index:
            raise UserError(
                f"this explainer knows no vectors from layers {layers}: it was trained on "
                f"{list(self.layers)}"
            )
        return self.layer_index[layers]

    def embeddings(self, batch: Batch) -> Tensor:
        """Input embeddings [batch, length, width] in which each vector has taken its placeholder's
        place."""
        embedded = self.embed(batch.ids)
        token = self.continuous_token(batch.vectors, batch.layer).to(embedded.dtype)
        where = batch.places.unsqueeze(-1).expand_as(embedded)
        return embedded.masked_scatter(
            where, token
        )  # out of place: this is the tensor that goes on

    def logits(self, batch: Batch, columns: Tensor) -> Tensor:
        """Logits of the tokens behind the columns [n] of a batch, [batch, n, vocabulary]; the
        shared ones are read once."""
        embedded = self.embeddings(batch)
        shared = (
            0 if self.lm.model.is_activation_checkpointing else batch.shared
        )  # which goes without keys and values
        return self.model(
            inputs_embeds=embedded[:, shared:],
            attention_mask=batch.mask,
            position_ids=positions(batch.mask)[:, shared:],
            past_key_values=read_shared(self.lm.model, embedded, shared),
            logits_to_keep=columns - shared,
            use_cache=shared > 0,
        ).logits

    def forward(self, rows: Sequence[tuple[Question, list[int], int]]) -> Tensor:
        """The loss of rows, as for `collate`: what training calls, so that DDP and FSDP see it."""
        return self.loss(self.collate(rows))

    def loss(self, batch: Batch) -> Tensor:
        """Eq. 1: the cross-entropy averaged over the tokens of the explanations, whatever the
        padding.

        Logits are computed only at the positions before a label. They are given as numbers: a slice
        of the hidden states would not be contiguous, and its product with the head takes 1.6 times
        as long.
        """
        said = (batch.labels != -100).any(0).nonzero()[:, 0]  # the labels' positions, in any row
        logits = self.logits(batch, said - 1)
        return nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch.labels[:, said].flatten()
        )

    def explain(
        self, questions: Sequence[Question], batch_size: int = 32, max_new_tokens: int = 24
    ) -> list[str]:
        """The explanations E(q), decoded greedily."""
        from introspect_utils.explainer.generate import generate

        return generate(self, questions, batch_size, max_new_tokens)

    def describe(self, v: Tensor, layer: int, **settings) -> list[str] | str:
        """What the direction v [d_target] of a target's layer encodes, or each of v [n, d_target]
        (section 2.2).

        `settings` as for `explain`. Raises `UserError` for a layer that the explainer was not
        trained on.
        """
        from introspect_utils.tasks.task_features import description, prompt, templates

        form = self.settings.prompt
        asked = [
            Question(prompt(templates(form)[0], layer, form), row, (layer,))
            for row in v.view(-1, self.d_target)
        ]
        said = [description(text) for text in self.explain(asked, **settings)]
        return said if v.dim() > 1 else said[0]

    def save(self, folder: str | Path) -> None:
        """A PEFT or transformers folder, with the projection and the means in safetensors, and the
        settings in JSON."""
        folder = Path(folder)
        if (
            folder / SETTINGS
        ).is_file():  # no part of an earlier explainer may be taken for a part of this one
            for old in (
                folder / SETTINGS,
                folder / "adapter_config.json",
                folder / "config.json",
                *folder.glob("*.safetensors"),
            ):
                old.unlink(missing_ok=True)
        if hasattr(self.model, "peft_config"):
            self.model.save_pretrained(
                folder, save_embedding_layers=False
            )  # frozen; "auto" would ask the hub about them
        else:
            self.model.save_pretrained(folder)
            self.lm.tokenizer.save_pretrained(folder)
        save_file({"center": self.center.contiguous()}, folder / VECTORS)
        if self.projection is not None:
            save_file(
                {name: part.contiguous() for name, part in self.projection.state_dict().items()},
                folder / PROJECTION,
            )
        described = {
            "base": self.lm.name,
            "d_target": self.d_target,
            "layers": self.layers,
            "longest_explanation": self.longest_explanation,
            "token_norm": self.token_norm,
            "settings": asdict(self.settings),
        }
        (folder / SETTINGS).write_text(json.dumps(described, indent=1))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        base: LanguageModel | None = None,
    ) -> Explainer:
        """A trained explainer from the folder that `save` wrote. Raises `UserError` where there is
        none.

        `base`: what its adapters belong to, where that is a variant of the target
        (`explainers.explainer_model` makes it).
        """
        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise UserError(
                f"no explainer at {folder} (no {SETTINGS} in it): train one with notebooks/05, 06 "
                "or 07"
            )
        described = json.loads((folder / SETTINGS).read_text())
        adapted = (folder / "adapter_config.json").is_file()
        if adapted and base is None and " " in described["base"]:  # "smollm2-135m-instruct rotated"
            raise UserError(
                f"{folder} adapts {described['base']}: make that with explainers.explainer_model, "
                "and give it as base"
            )
        base = base or load_model(
            described["base"] if adapted else str(folder.resolve()), device, dtype
        )
        layers = [tuple(layer) for layer in described["layers"]]
        explainer = cls(
            base, ExplainerSettings(**described["settings"]), described["d_target"], layers
        )
        if adapted:
            from peft import PeftModel

            explainer.model = PeftModel.from_pretrained(base.model, folder)
        explainer.token_norm = described["token_norm"]
        explainer.longest_explanation = described["longest_explanation"]
        explainer.center.copy_(load_file(folder / VECTORS)["center"])
        if explainer.projection is not None:
            explainer.projection.load_state_dict(load_file(folder / PROJECTION))
        return explainer.eval()
