"""One token of a text, and what can be said of it (notebook 13): a function for each thing
asked."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.generate import generate
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.features.lexicon import mark_name
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.residual import clean_run, pad_left, patched_logits
from introspect_utils.models.residual_store import layer_means, token_activations
from introspect_utils.models.tokens import token_ids, token_spans
from introspect_utils.runs.beside import self_explainer
from introspect_utils.runs.plan import plan
from introspect_utils.runs.pretrained import restore
from introspect_utils.runs.run import checkpoint
from introspect_utils.scores.simulator import Simulator, load_simulator
from introspect_utils.scores.simulator_scores import score_predictions
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.profile import Profile
from introspect_utils.tasks import outcome, task_features, task_patching
from introspect_utils.tasks.patching import pieces
from introspect_utils.tasks.task_features import Described


@dataclass(frozen=True, eq=False)
class Models:
    """All that answers, in memory.

    `training`: the directions that `explainer` was trained on; `held_out`: those it is tested on,
    with their exemplars. `means`: layer -> the mean residual [d_target], which is taken off an
    activation if `center`. `patching`: the explainer of activation patching, if one is trained.
    `max_new_tokens`: of an explanation.
    """

    target: LanguageModel
    explainer: Explainer
    simulator: Simulator
    training: Described
    held_out: Described
    means: dict[int, Tensor]
    center: bool
    patching: Explainer | None
    max_new_tokens: int


class Simulated(NamedTuple):
    """a_v on a text, true (binned) and simulated [T] 0..10, and their correlation r (eq. 2)."""

    true: Tensor
    predicted: Tensor
    r: float


class Patched(NamedTuple):
    """A patch of `block` (layers) at `token`: the answer `before` it (a token), and what it does to
    the answer, `real` and `predicted` (eq. 5), None where no explainer is trained."""

    block: tuple[int, ...]
    token: str
    before: str
    real: str
    predicted: str | None
    right: bool | None


def load(profile: Profile, target: str) -> Models:
    """The models of a profile's largest self-explainers of `target`, from the files of notebooks
    01, 04, 05 and 06, or those that came with the repository.

    Raises `UserError` naming the notebook that makes what is missing; the explainer of activation
    patching may be.
    """
    restore(profile)
    runs = plan(profile)
    explained, patching = (self_explainer(runs, task, target) for task in ("features", "patching"))
    if explained is None:
        raise UserError(
            f"profile {profile.name} trains no self-explainer of features of {target}: add self to "
            "features.explainers"
        )
    asked = explained.parameters
    rows = task_features.read(profile, target, asked["n_train"], asked["seed"])
    lm = load_model(target, profile.device, profile.dtype, profile.seeds[0])
    simulator = load_simulator(profile, lm)
    stored = task_features.TASK.folder(profile, target) / "residuals"
    layers = profile.features.layers
    # the publications give no mean; it is 0 in their exemplars, too (`archives.make_exemplars`)
    zeros = dict.fromkeys(layers, torch.zeros(lm.width))
    means = zeros if profile.features.published else layer_means(stored, layers)
    trained = patching and checkpoint(profile, patching.id).is_file()
    return Models(
        target=lm,
        explainer=_load_explainer(profile, explained.id, lm),
        simulator=simulator,
        training=rows["train"],
        held_out=rows["test"],
        means={layer: mean.to(lm.device) for layer, mean in means.items()},
        center=profile.features.act_center,
        patching=_load_explainer(profile, patching.id, lm) if trained else None,
        max_new_tokens=profile.generation.max_new_tokens,
    )


def _load_explainer(profile: Profile, run_id: str, target: LanguageModel) -> Explainer:
    """A self-explainer on the target's weights, in float32 with its adapters folded in for good: to
    fold them anew for every answer takes as long as the answer. bfloat16 would round them away."""
    folder = checkpoint(profile, run_id).parent
    explainer = Explainer.load(folder, profile.device, profile.dtype, base=target)
    if hasattr(explainer.model, "merge_and_unload") and explainer.model.dtype == torch.float32:
        explainer.model = explainer.model.merge_and_unload(safe_merge=True)
    return explainer


def token_texts(target: LanguageModel, text: str) -> list[str]:
    """The tokens of a text as strings that join to it, BOS left out: what is clicked on."""
    return pieces(text, token_spans(target.tokenizer, text)[1])


@torch.inference_mode()
def activations(models: Models, text: str, layer: int) -> Tensor:
    """v [T, d_target]: h(l, t) of every token, less the layer's mean where the full activations of
    notebook 01 are."""
    h = token_activations(models.target, text, layer)
    return h - models.means[layer] if models.center else h


def explanation(models: Models, v: Tensor, layer: int | Sequence[int]) -> list[str] | str:
    """What the explainer says v encodes, or each of v [n, d_target], at one or at n layers."""
    return models.explainer.describe(v, layer, max_new_tokens=models.max_new_tokens)


def likeliest(models: Models, v: Tensor, layer: int, n: int = 3) -> list[str]:
    """The `n` likeliest explanations of v that a beam search finds, the likeliest first."""
    question = models.explainer.question(v, layer)
    said = generate(models.explainer, [question], max_new_tokens=models.max_new_tokens, beams=n)
    return [task_features.description(text) for text in said]


def echoes(description: str, token: str) -> bool:
    """Whether a description names the token that it is of, a mark also by its name ("commas"):
    perhaps that is all it was read from."""
    token = token.strip()
    names = {token, mark_name(token)} if token else set()
    return any(re.search(rf"(?<!\w){re.escape(n)}(?!\w)", description, re.I) for n in names)


def nearest_features(models: Models, v: Tensor, layer: int, n: int = 5) -> pd.DataFrame:
    """The `n` training features of the layer most like v, the most similar first (its description
    is NN-layer's answer): `nearest training feature`, `description` and `cosine`."""
    directions = models.training.directions
    rows = directions.where(layer=layer)
    cosines = torch.cosine_similarity(directions.vectors[rows], v[None].cpu())
    names = [directions.names[row] for row in rows]
    descriptions = [models.training.gold[row] for row in rows]
    found = {"nearest training feature": names, "description": descriptions, "cosine": cosines}
    return pd.DataFrame(found).nlargest(n, "cosine")


@torch.inference_mode()
def simulated(models: Models, text: str, v: Tensor, layer: int, description: str) -> Simulated:
    """a_v = <h(l, t), v> on the text, true and as the simulator has it from a description of v.

    0 is the mean of a_v over the corpus, 10 its peak in the text.
    """
    a = token_activations(models.target, text, layer) @ v
    tokens = torch.tensor([token_ids(models.target.tokenizer, text)])
    mean, peak = (models.means[layer] @ v)[None].cpu(), a.max()[None].cpu()
    sequence = torch.zeros(1, 1, dtype=torch.int64)
    own = Exemplars(tokens, sequence, a[None, None].cpu(), mean, peak, n_top=1)
    predicted = models.simulator.expected([description], tokens[None]).cpu()
    r = score_predictions(predicted, own, [0]).r.item()
    return Simulated(own.binned()[0, 0], predicted[0, 0], r)


def patched(models: Models, text: str, position: int, layer: int, into: str) -> Patched:
    """T_patch (eq. 4, 5) with the text as x' and `into` as x, the token counted from the end in
    both, and the patching explainer's prediction.

    Patched is the block of layers that the explainer knows `layer` in, without an explainer the
    layer alone. Raises `UserError` where `into` has no token so far from its end.
    """
    known = models.patching.layers if models.patching else ()
    block = next((block for block in known if layer in block), (layer,))
    from_end = len(token_texts(models.target, text)) - position
    target, spans = models.target, token_spans(models.target.tokenizer, into)[1]
    if from_end > len(spans):
        raise UserError(
            f"{into!r} has no token number {from_end} from its end to be patched: click a later "
            "token, or lengthen it"
        )
    pad, device = target.tokenizer.pad_token_id, target.device
    batches = [pad_left([target.encode(read)], pad, device) for read in (into, text)]
    clean, source = (clean_run(target.model, *batch, layers=block) for batch in batches)
    # avg over the block of h(l, t)(x')
    v = torch.stack([source.residual[layer][0, -from_end] for layer in block]).mean(0)
    first = torch.tensor([0], device=device)
    after = patched_logits(target.model, clean, block, from_end, first, v[None]).argmax(-1)
    token, before = into[slice(*spans[-from_end])], target.tokenizer.decode(clean.next_token)
    place = {"orig_text_token": token, "intervention_vector": v.float().cpu().numpy()}
    row = {  # of `patching.patch_outcomes`, with what a question and its answer are made of
        "layer": list(block),
        "input_tokens": pieces(into, spans),
        "original_continuation": [before],
        "ablated_continuation": [target.tokenizer.decode(after)],
        "is_different": bool(after != clean.next_token),
        "patch_position": place,
    }
    real, predicted, right = task_patching.answer(row), None, None
    if models.patching:
        form = models.patching.settings.prompt
        question = task_patching.question(row, "full", task_patching.TEMPLATES[0], form)
        [predicted] = models.patching.explain([question], max_new_tokens=models.max_new_tokens)
        changed, content = outcome.parse(predicted)
        same = outcome.same(content, row["ablated_continuation"][0])
        right = changed == row["is_different"] and same
    return Patched(block, token, before, real, predicted, right)
