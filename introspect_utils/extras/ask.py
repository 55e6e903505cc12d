"""One token of a text, and what can be said of it (notebook 13): a function for each thing asked.

models = load(profile, "smollm2-135m-instruct") v = activation(models, text, position, layer)
models.explainer.describe(v, layer)                      # the explanation nearest_features(models,
v, layer)                       # what NN-layer would say simulated(models, text, v, layer,
description)           # a_v as the description has it, beside the true one patched(models, text,
position, layer, into)             # eq. 4, and what the patching explainer says of it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.features.directions import Directions
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import clean_run, pad_left, patched_logits
from introspect_utils.models.residual_store import mean_residual, open_residuals, token_activations
from introspect_utils.models.tokens import token_ids, token_spans
from introspect_utils.runs.beside import self_explainer
from introspect_utils.runs.plan import plan
from introspect_utils.runs.run import checkpoint
from introspect_utils.scores.neighbours import nearest
from introspect_utils.scores.simulator import Simulator, load_simulator
from introspect_utils.scores.simulator_scores import score_predictions
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import outcome, task_features, task_patching
from introspect_utils.tasks.patching import pieces


@dataclass(frozen=True, eq=False)
class Models:
    """All that answers, in memory.

    `training`: the directions that `explainer` was trained on, `descriptions` theirs. `means`:
    layer -> the mean residual [d_target], which is taken off an activation if `center`. `patching`:
    the explainer of activation patching, if one is trained. `max_new_tokens`: of an explanation.
    """

    target: LanguageModel
    explainer: Explainer
    simulator: Simulator
    training: Directions
    descriptions: list[str]
    means: dict[int, Tensor]
    center: bool
    patching: Explainer | None
    max_new_tokens: int


class Neighbour(NamedTuple):
    """A training feature: its name, its description, its cosine with v."""

    name: str
    description: str
    cosine: float


class Simulated(NamedTuple):
    """a_v on a text, true (binned) and simulated [T] 0..10, and their correlation r (eq. 2)."""

    true: Tensor
    predicted: Tensor
    r: float


class Patched(NamedTuple):
    """A patch of `block` (layers) at `token`: the answer before it, what it does to the answer, and
    what the explainer says.

    `before` is a token; `real` and `predicted` are explanations (eq. 5), `predicted` None where no
    explainer is trained.
    """

    block: tuple[int, ...]
    token: str
    before: str
    real: str
    predicted: str | None
    right: bool | None


def load(profile: Profile, target: str) -> Models:
    """The models of a profile's largest self-explainers of `target`, from the files of notebooks
    01, 04, 05 and 06.

    Raises `UserError` naming the notebook that makes what is missing; the explainer of activation
    patching may be.
    """
    runs = plan(profile)
    explained, patching = (
        self_explainer(runs, task.name, target) for task in (task_features.TASK, task_patching.TASK)
    )
    if explained is None:
        raise UserError(
            f"profile {profile.name} trains no self-explainer of features of {target}: add self to "
            "features.explainers"
        )
    folder = task_features.TASK.folder(profile, target)
    directions = Directions.load(folder / "directions.safetensors")
    lm = load_model(target, profile.device, profile.dtype, profile.seeds[0])
    simulator = load_simulator(profile, lm)
    gold = task_features.chosen_descriptions(profile, target)
    rows = task_features.split(
        directions, gold, explained.parameters["n_train"], explained.parameters["seed"]
    )["train"]
    training = directions.take(rows)
    layers = profile.features.layers
    return Models(
        target=lm,
        explainer=_load_explainer(profile, explained.id),
        simulator=simulator,
        training=training,
        descriptions=[gold[name] for name in training.names],
        means={
            layer: mean_residual(open_residuals(folder / "residuals", layer)).to(lm.device)
            for layer in layers
        },
        center=profile.features.act_center,
        patching=_load_explainer(profile, patching.id)
        if patching and checkpoint(profile, patching.id).is_file()
        else None,
        max_new_tokens=profile.generation.max_new_tokens,
    )


def _load_explainer(profile: Profile, run_id: str) -> Explainer:
    """An explainer with its adapters folded in for good: to fold them anew for every answer takes
    as long as the answer."""
    explainer = Explainer.load(checkpoint(profile, run_id).parent, profile.device, profile.dtype)
    if hasattr(explainer.model, "merge_and_unload"):
        explainer.model = explainer.model.merge_and_unload()
    return explainer


def token_texts(target: LanguageModel, text: str) -> list[str]:
    """The tokens of a text as strings that join to it, BOS left out: what is clicked on."""
    return pieces(text, token_spans(target.tokenizer, text)[1])


@torch.inference_mode()
def activation(models: Models, text: str, position: int, layer: int) -> Tensor:
    """v [d_target]: h(l, t) of a token, less the layer's mean where the full activations of
    notebook 01 are."""
    h = token_activations(models.target, text, layer)[position]
    return h - models.means[layer] if models.center else h


def explanation(models: Models, v: Tensor, layer: int) -> str:
    """What the explainer says v encodes."""
    return models.explainer.describe(v, layer, max_new_tokens=models.max_new_tokens)


def nearest_features(models: Models, v: Tensor, layer: int, n: int = 5) -> list[Neighbour]:
    """The `n` training features of the layer most like v, by cosine, the most similar first: the
    first is NN-layer's answer."""
    allowed = torch.tensor([of_feature == layer for of_feature in models.training.layers])
    found = []
    for _ in range(min(n, int(allowed.sum()))):
        [row], [cosine] = nearest(models.training.vectors, v[None].cpu(), allowed=allowed)
        found.append(Neighbour(models.training.names[row], models.descriptions[row], cosine.item()))
        allowed[row] = False
    return found


@torch.inference_mode()
def simulated(models: Models, text: str, v: Tensor, layer: int, description: str) -> Simulated:
    """a_v = <h(l, t), v> on the text, true and as the simulator has it from a description of v.

    0 is the mean of a_v over the corpus, 10 its peak in the text.
    """
    a = token_activations(models.target, text, layer) @ v
    tokens = torch.tensor([token_ids(models.target.tokenizer, text)])
    moments = (models.means[layer] @ v, a.max())
    own = Exemplars(
        tokens,
        torch.zeros(1, 1, dtype=torch.int64),
        a[None, None].cpu(),
        *(m[None].cpu() for m in moments),
        n_top=1,
    )
    predicted = models.simulator.expected([description], tokens[None]).cpu()
    return Simulated(
        own.binned()[0, 0], predicted[0, 0], score_predictions(predicted, own, [0]).r.item()
    )


def patched(models: Models, text: str, position: int, layer: int, into: str) -> Patched:
    """T_patch (eq. 4, 5) with the text as x' and `into` as x, and the patching explainer's
    prediction.

    The token is counted from the end in both. Patched is the block of layers that the explainer
    knows `layer` in, without an explainer the layer alone. Raises `UserError` where `into` has no
    token so far from its end.
    """
    known = models.patching.layers if models.patching else ()
    block = next((block for block in known if layer in block), (layer,))
    from_end = len(token_texts(models.target, text)) - position
    row = _patch(models.target, text, into, from_end, block)
    real, predicted, right = task_patching.answer(row), None, None
    if models.patching:
        form = models.patching.settings.prompt
        question = task_patching.question(row, "full", task_patching.TEMPLATES[0], form)
        [predicted] = models.patching.explain([question], max_new_tokens=models.max_new_tokens)
        changed, content = outcome.parse(predicted)
        right = changed == row["is_different"] and outcome.same(
            content, row["ablated_continuation"][0]
        )
    return Patched(
        block,
        row["patch_position"]["orig_text_token"],
        row["original_continuation"][0],
        real,
        predicted,
        right,
    )


def _patch(
    target: LanguageModel, text: str, into: str, from_end: int, block: tuple[int, ...]
) -> dict:
    """One row as `patching.patch_outcomes` gives them, with the columns that a question and its answer
    are made of."""
    spans = token_spans(target.tokenizer, into)[1]
    ids = target.encode(into)
    if from_end > len(token_texts(target, into)):
        raise UserError(
            f"{into!r} has no token number {from_end} from its end to be patched: click a later "
            "token, or lengthen it"
        )
    pad, device = target.tokenizer.pad_token_id, target.device
    clean = clean_run(target.model, *pad_left([ids], pad, device), layers=block[:1])
    source = clean_run(target.model, *pad_left([target.encode(text)], pad, device), layers=block)
    v = torch.stack([source.residual[layer][0, -from_end] for layer in block]).mean(
        0
    )  # avg over the block of h(l, t)(x')
    row = torch.tensor([0], device=device)
    token = patched_logits(target.model, clean, block, from_end, row, v[None]).argmax(-1)
    return {
        "layer": list(block),
        "input_tokens": pieces(into, spans),
        "original_continuation": [target.tokenizer.decode(clean.next_token)],
        "ablated_continuation": [target.tokenizer.decode(token)],
        "is_different": bool(token != clean.next_token),
        "patch_position": {
            "orig_text_token": into[slice(*spans[-from_end])],
            "intervention_vector": v.float().cpu().numpy(),
        },
    }
