"""A causal language model that reads a vector of the target as one continuous token (section 2.2).

    question: "If feature [s] v [e] at layer ... , how would the output change?"
    embeddings:            e(If) e(feature) e([s]) Pi_l v e([e]) e(at) ...

The vector replaces a placeholder token's input embedding. Where the widths of target and explainer
differ, a linear projection Pi_l of each layer (or block of layers) l of the target maps it first
(eq. 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from introspect_utils.explainer.continuous_token import input_scale, reserve_tokens, token_norm
from introspect_utils.explainer.projection import Projection, Scale
from introspect_utils.models.fingerprint import fingerprint
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import pad_left, positions, read_shared, worth_sharing
from introspect_utils.models.tokens import token_ids
from introspect_utils.models.weights import sharing_weights
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import ExplainerSettings
from introspect_utils.tasks.question import FORMS, VECTOR, Question

Row = tuple[Question, list[int], int]  # a question, its token ids, the length of its prompt


class Batch(NamedTuple):
    """Rows padded on the left; `vectors` fill `places` in reading order. The first `shared` columns
    are the same in all rows (a system prompt, say); the padding stands behind them."""

    ids: Tensor  # [batch, length]
    mask: Tensor  # [batch, length]
    labels: Tensor  # [batch, length]: -100 except on the explanation and its EOS
    places: Tensor  # [batch, length] bool: the placeholder of a row with a vector
    vectors: Tensor  # [rows with a vector, d_target]
    layer: Tensor  # [rows with a vector]: index of the question's layers
    shared: int = 0


class QuestionModel(nn.Module):
    """A language model with the continuous token. `layers` are the target's layers (or blocks) that
    vectors can come from; without any there is no projection.

    It shares the weights of `lm` in memory, under modules of its own: training it, adapters in it
    and tokens added to it leave `lm` as it is.
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
        self.fingerprint = fingerprint(lm)  # of the base: tokens are added, adapters trained
        self.lm, ids = reserve_tokens(sharing_weights(lm))
        self.begin, self.placeholder, self.end = ids
        self.model, self.settings, self.d_target = self.lm.model, settings, d_target
        self.layers = tuple(map(tuple, layers))
        self.layer_index = {layer: index for index, layer in enumerate(self.layers)}
        self.projection = self._projection(seed) if self.layers else None
        self.register_buffer("center", torch.zeros(len(self.layers), d_target))
        self.to(lm.device)
        # both are taken before training, which may change them
        self.token_norm = token_norm(self.lm, settings.vector_scale)
        self.input_scale = input_scale(self.lm)
        self.longest_explanation = 0  # tokens of the longest that it was trained on

    def _projection(self, seed: int) -> nn.Module | None:
        kind, n, width = self.settings.projection, len(self.layers), self.lm.width
        same = self.d_target == width
        if kind in ("identity", "frozen-scale") and not same:
            raise UserError(
                f"projection: {kind} is for a target as wide as the explainer, and these are "
                f"{self.d_target} and {width} wide: take another condition"
            )
        if kind == "frozen-scale":
            return Scale(n, width)
        if kind == "when-needed" and same:
            return None
        identity = kind == "identity" or (self.frozen and same)
        rank = self.settings.projection_rank
        return Projection(n, self.d_target, width, rank, seed, identity, bias=self.frozen)

    @property
    def frozen(self) -> bool:
        """Whether the model stays as it is, and the map in front of it alone is trained."""
        return self.settings.projection.startswith("frozen")

    @property
    def embed(self) -> nn.Module:
        return self.lm.model.get_input_embeddings()

    def fit_center(self, questions: Sequence[Question]) -> None:
        """Set the mean of the training vectors of each layer, if `vector_center`."""
        for layer, index in self.layer_index.items() if self.settings.vector_center else ():
            of_layer = [q.vector for q in questions if q.layers == layer and q.vector is not None]
            if of_layer:
                self.center[index] = torch.stack(of_layer).mean(0)

    def continuous_token(self, v: Tensor, layer: Tensor) -> Tensor:
        """Pi_l (v - mean_l) at the stated scale: v [batch, d_target] -> [batch, width]. A zero
        vector stays zero. Before a frozen model the map may change the scale, so it acts on vectors
        of norm 1: a step of its bias then is as large, beside the token, as one of its matrix."""
        v = torch.where(v.any(-1, keepdim=True), v - self.center[layer], v)
        project = self.projection or (lambda v, layer: v)
        if self.frozen:
            norm = self.token_norm or 1.0
            token = norm * project(self._scaled(v) / norm, layer)
        else:
            token = self._scaled(project(v, layer))
        return token / self.input_scale

    def _scaled(self, token: Tensor) -> Tensor:
        if self.token_norm is None or not token.numel():
            return token
        # by a power of two, which rounds nothing: else the norm of some vectors is 0 or infinite
        largest = token.detach().abs().amax(-1, keepdim=True).float().clamp(min=1e-38)
        token = token * (largest.frexp().mantissa / largest).to(token.dtype)
        return token * (self.token_norm / token.norm(dim=-1, keepdim=True).clamp(min=1e-6))

    def encode(
        self, question: Question, explanation: str | None = None, prompt: str | None = None
    ) -> tuple[list[int], int]:
        """(ids, length of the prompt): the prompt, then the explanation and EOS if there is one.
        Exactly one BOS. A model without a chat template is asked in plain text, whatever `prompt`.
        Raises `UserError` when the vector and its mark in the text do not go together, the vector
        is not [d_target] finite numbers, or the whole is longer than the model reads."""
        v, text, tokenizer, wrong = question.vector, question.text, self.lm.tokenizer, ""
        if text.count(VECTOR) != (v is not None):
            wrong = f"a question with a vector holds {VECTOR} once, one without does not"
        elif v is not None and v.shape != (self.d_target,):
            wrong = f"a vector is {list(v.shape)} and the target's width {self.d_target}"
        elif v is not None and not v.isfinite().all():
            wrong = "a vector has values that are not finite; leave the question out"
        if wrong:
            raise UserError(f"{wrong}: {text[:200]!r}")
        form = prompt or question.prompt or self.settings.prompt
        chat = FORMS[form]["roles"] and bool(tokenizer.chat_template)
        tokens = tokenizer.convert_ids_to_tokens([self.begin, self.placeholder, self.end])
        asked = (self.lm.chat if chat else self.lm.plain)(text, question.system)
        ids = self.lm.encode(asked.replace(VECTOR, "".join(tokens)), special=True)
        n_prompt = len(ids)
        if explanation is not None:
            answer = explanation if chat or text[-1:].isspace() else f" {explanation}"
            ids = [*ids, *token_ids(tokenizer, answer), tokenizer.eos_token_id]
        self.lm.check_length(len(ids), f"the question {text[:80]!r}")
        return ids, n_prompt

    def collate(self, rows: Sequence[Row], ahead: int = 0) -> Batch:
        """Rows as one batch on the model's device; `ahead`: how many tokens may be said behind
        them."""
        device, every = self.lm.device, [ids for _, ids, _ in rows]
        longest = max(map(len, every))
        starts = [
            ids[: n if q.vector is None else ids.index(self.placeholder)] for q, ids, n in rows
        ]
        shared = worth_sharing(starts, longest + ahead, self.lm.window)
        ids, mask = pad_left(every, self.lm.tokenizer.pad_token_id, device, shared)
        labels = torch.full_like(ids, -100)
        for row, (_, of_row, n_prompt) in enumerate(rows):
            start = longest - len(of_row) + n_prompt
            labels[row, start:] = ids[row, start:]
        places = (ids == self.placeholder) & mask.bool()  # a model may pad with its placeholder
        asked = [question for question, _, _ in rows if question.vector is not None]
        unknown = [q.layers for q in asked if q.layers not in self.layer_index]
        if unknown:
            raise UserError(
                f"this explainer knows no vectors from layers {unknown[0]}: it was trained on "
                f"{list(self.layers)}"
            )
        none = torch.zeros(0, self.d_target)
        vectors = torch.stack([question.vector for question in asked]) if asked else none
        layer = torch.tensor([self.layer_index[q.layers] for q in asked], dtype=torch.long)
        return Batch(ids, mask, labels, places, vectors.to(device), layer.to(device), shared)

    def embeddings(self, batch: Batch) -> Tensor:
        """Input embeddings [batch, length, width], each vector at its placeholder's place."""
        embedded = self.embed(batch.ids)
        token = self.continuous_token(batch.vectors, batch.layer).to(embedded.dtype)
        if not token.isfinite().all():
            raise UserError(
                f"a vector outgrows {embedded.dtype} as the input of {self.lm.name}: take shorter "
                "vectors, dtype: float32, or a vector_scale other than raw"
            )
        # not in place: the tensor returned is the one that goes on
        return embedded.masked_scatter(batch.places.unsqueeze(-1).expand_as(embedded), token)

    def logits(self, batch: Batch, columns: Tensor) -> Tensor:
        """Next-token logits at the columns [n] of a batch, [batch, n, vocabulary]. The shared
        columns are read once, except under gradient checkpointing, which drops the cache."""
        embedded = self.embeddings(batch)
        shared = 0 if self.lm.model.is_activation_checkpointing else batch.shared
        return self.model(
            inputs_embeds=embedded[:, shared:],
            attention_mask=batch.mask,
            position_ids=positions(batch.mask)[:, shared:],
            past_key_values=read_shared(self.lm.model, embedded, shared),
            logits_to_keep=columns - shared,
            use_cache=shared > 0,
        ).logits

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """The loss of rows: what training calls, so that DDP and FSDP see it."""
        return self.loss(self.collate(rows))

    def loss(self, batch: Batch) -> Tensor:
        """Eq. 1: the cross-entropy averaged over the tokens of the explanations, whatever the
        padding. Logits are computed only at the positions before a label."""
        labelled = (batch.labels != -100).any(0).nonzero()[:, 0]  # columns with a label in any row
        logits = self.logits(batch, labelled - 1).float().flatten(0, 1)
        return nn.functional.cross_entropy(logits, batch.labels[:, labelled].flatten())
