"""The simulator: a language model that predicts a_v(x, l, t) from a description of v and the text x
(section 2.2, eq. 2).

    ## Neuron Description: {E}

     ## Input: <the text's tokens>

At each token of the text a head gives a distribution over the values 0..10 (`Exemplars.binned`);
the prediction is its expected value. The score of a description is the mean Pearson correlation
between predicted and true activations (eq. 2).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import choose_dtype, load_model
from introspect_utils.models.residual import decoder_layers, pad_left, positions
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir
from introspect_utils.settings.profile import Profile

PROMPT = "## Neuron Description: {}\n\n ## Input: "
VALUES = 11  # activations are predicted as 0, 1, ..., 10
SETTINGS, HEAD = "simulator.json", "head.safetensors"
# Special tokens of which the published simulator reads copies, in the order of their copies behind
# the vocabulary and <PAD>
COPIED = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHUNK = 64  # batches of candidates scored between two lines of the file that keeps their scores


class Simulator(nn.Module):
    """A simulator for the directions of `target`, made from the first `n_layers` (all, if None)
    layers of `lm`.

    The final norm stands before the head. The weights are those of `lm`, in memory too: the two
    share them, and training leaves them as they are. Raises `UserError` when `lm` has another
    tokenizer than the target (the text comes as the target's tokens) or fewer layers.
    `compute_dtype`: "float32" or "bfloat16" (autocast).
    """

    def __init__(
        self, lm: LanguageModel, target: LanguageModel, n_layers: int | None = None
    ) -> None:
        super().__init__()
        if not target.tokenizer.get_vocab().items() <= lm.tokenizer.get_vocab().items():
            raise UserError(
                f"the tokenizer of the simulator ({lm.name}) is not that of its target "
                f"({target.name}): take a sibling"
            )
        self.n_layers = lm.n_layers if n_layers is None else n_layers
        if not 1 <= self.n_layers <= lm.n_layers:
            raise UserError(
                f"a simulator of {n_layers} layers cannot be made from {lm.name}, which has "
                f"{lm.n_layers}: ask for fewer"
            )
        self.lm = replace(lm, model=first_layers(lm.model, self.n_layers))
        self.model = self.lm.model
        self.head = nn.Linear(lm.width, VALUES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(lm.device)
        self.copies: dict[
            int, int
        ] = {}  # token -> what is read in its place (only in the published simulator)
        self.compute_dtype = "float32"

    def logits(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """tokens [m, k, T] of the text, k sequences for each of the m descriptions -> [m, k, T,
        11].

        A description's prompt passes once: its keys and values then stand before each of its k
        sequences. Gradients flow.
        """
        m, k, length = tokens.shape
        decoder, cache = self.lm.model.get_decoder(), DynamicCache()
        prompts = [self.lm.encode(PROMPT.format(description)) for description in descriptions]
        ids, mask = pad_left(prompts, self.lm.tokenizer.pad_token_id, self.lm.device)
        places = positions(mask)
        decoder(
            self._read(ids),
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        )
        cache.batch_repeat_interleave(k)
        mask = torch.cat([mask, mask.new_ones(m, length)], 1).repeat_interleave(k, 0)
        hidden = decoder(
            self._read(tokens.to(self.lm.device).flatten(0, 1)),
            attention_mask=mask,
            position_ids=positions(mask)[:, -length:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        with torch.autocast(
            self.lm.device.type, enabled=False
        ):  # 11 logits cost nothing in float32
            return self.head(hidden.float()).unflatten(0, (m, k))

    def _read(self, ids: Tensor) -> Tensor:
        for token, other in self.copies.items():
            ids = torch.where(ids == token, other, ids)
        return ids

    @torch.inference_mode()
    def expected(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """The predicted activations: expected values 0..10, [m, k, T] float32, of tokens [m, k,
        T]."""
        with torch.autocast(
            self.lm.device.type, torch.bfloat16, enabled=self.compute_dtype == "bfloat16"
        ):
            logits = self.logits(descriptions, tokens)
        return logits.softmax(-1) @ torch.arange(VALUES, dtype=torch.float32, device=logits.device)

    def loss(self, descriptions: Sequence[str], tokens: Tensor, binned: Tensor) -> Tensor:
        """Cross-entropy of the true values `binned` [m, k, T], averaged over the tokens of the
        text."""
        logits = self.logits(descriptions, tokens)
        return nn.functional.cross_entropy(
            logits.flatten(0, -2), binned.to(logits.device).flatten()
        )

    def sha256(self) -> str:
        """Of what makes this simulator's predictions: the model's name and layers, the adapter and
        the head."""
        digest = hashlib.sha256(repr((self.lm.name, self.n_layers, self.compute_dtype)).encode())
        for name, parameter in self.named_parameters():
            if "lora_" in name or name.startswith("head."):
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """The adapter in PEFT's format, the head in safetensors, the rest in JSON."""
        folder = Path(folder)
        self.model.save_pretrained(
            folder, save_embedding_layers=False
        )  # frozen; "auto" would ask the hub about them
        save_file(
            {name: part.contiguous() for name, part in self.head.state_dict().items()},
            folder / HEAD,
        )
        described = {
            "base": self.lm.name,
            "n_layers": self.n_layers,
            "compute_dtype": self.compute_dtype,
        }
        (folder / SETTINGS).write_text(json.dumps(described, indent=1))

    @classmethod
    def load(cls, folder: str | Path, target: LanguageModel) -> Simulator:
        """A trained simulator from the folder that `save` wrote; it shares the weights of `target`
        where that is its model.

        Raises `UserError` where there is none.
        """
        from peft import PeftModel

        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise UserError(
                f"no simulator at {folder} (no {SETTINGS} in it): train one with "
                "notebooks/04_simulator.ipynb"
            )
        described = json.loads((folder / SETTINGS).read_text())
        own = described["base"] != target.name
        lm = (
            load_model(described["base"], target.device.type, str(target.model.dtype).split(".")[1])
            if own
            else target
        )
        simulator = cls(lm, target, described["n_layers"])
        simulator.model = PeftModel.from_pretrained(simulator.lm.model, folder)
        simulator.head.load_state_dict(load_file(folder / HEAD))
        simulator.compute_dtype = described["compute_dtype"]
        return simulator.eval()

    @classmethod
    def load_published(
        cls, path_or_hub: str, target: LanguageModel, dtype: str = "auto"
    ) -> Simulator:
        """The authors' simulator (`Transluce/features_explain_llama3.1_8b_simulator`): a plain
        causal model, all weights trained.

        Known from their inference code (`FinetunedSimulator`): the prompt above behind one BOS,
        padded on the left; the text as the target's token ids; the 11 values are the first 11
        entries of the logits (not the tokens "0".."10"), read at the token itself, not at the one
        before; behind the target's vocabulary stand <PAD> and copies of four special tokens
        (COPIED) that are read in their place wherever they stand, BOS included. Assumed: that the
        checkpoint has the rows of the copies (where it lacks one, the token is read as it is), and
        that it was trained as its inference code reads it. Raises `UserError` when it cannot be
        loaded or has a smaller vocabulary than the target.
        """
        where, tokenizer = target.device, target.tokenizer
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path_or_hub, dtype=choose_dtype(dtype, where.type)
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot load the simulator {path_or_hub} ({reason}): check the name and the "
                "network"
            ) from error
        known, rows = len(tokenizer), model.get_input_embeddings().num_embeddings
        if rows < known:
            raise UserError(
                f"{path_or_hub} knows {rows} tokens, {target.name} has {known}: it is no simulator "
                "for this target"
            )
        model.to(where).eval().requires_grad_(False)
        simulator = cls(LanguageModel(path_or_hub, model, tokenizer), target)
        simulator.head.weight.data = model.get_output_embeddings().weight[:VALUES].float()
        copies = {
            token: known + 1 + i for i, token in enumerate(COPIED) if known + 1 + i < rows
        }  # `known` is <PAD>
        vocabulary = tokenizer.get_vocab()
        simulator.copies = {
            vocabulary[token]: other for token, other in copies.items() if token in vocabulary
        }
        return simulator.eval()


def first_layers(model: PreTrainedModel, n: int) -> PreTrainedModel:
    """A model of the first n layers: its modules are its own, so that adapters go into it alone,
    and its weights are shared."""
    model = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
    model.get_decoder().layers = decoder_layers(model)[:n]
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:n]
    model.config.num_hidden_layers = n
    return model


@dataclass(frozen=True, eq=False)
class Scores:
    """Of m descriptions: eq. 2's mean Pearson correlation `r` [m], that of its absolute value
    `abs_r` [m] (what the authors' code computes), and how many of the exemplars had a constant side
    and entered both means as 0, `constant` [m]."""

    r: Tensor
    abs_r: Tensor
    constant: Tensor


def pearson(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(r, constant), both [...], of a and b [..., T] along T: correlations in float64; 0 and True
    where one side is constant."""
    constant = (a.amax(-1) == a.amin(-1)) | (b.amax(-1) == b.amin(-1))
    a, b = (side.double() - side.double().mean(-1, keepdim=True) for side in (a, b))
    r = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return r.masked_fill(constant, 0).clip(-1, 1), constant


def load_simulator(profile: Profile, target: LanguageModel) -> Simulator:
    """The simulator of a profile for one of its targets: the one that notebook 04 trained, or the
    published one."""
    checkpoint = profile.features.simulator.checkpoint
    if checkpoint == "trained":
        folder = (
            artifacts_dir(profile.name) / "checkpoints" / f"simulator-{folder_name(target.name)}"
        )
        return Simulator.load(folder, target)
    return Simulator.load_published(checkpoint, target, profile.dtype)


def score_predictions(predicted: Tensor, exemplars: Exemplars, rows: Sequence[int]) -> Scores:
    """Scores of any predictions [m, k, T]; the i-th is of direction rows[i]."""
    r, constant = pearson(predicted, exemplars.take(rows).activations)
    return Scores(r.mean(1), r.abs().mean(1), constant.sum(1))


def simulate(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
) -> Tensor:
    """Predictions [m, k, T] float32 of description i on the k exemplars of direction rows[i],
    `batch_size` texts at once."""
    with _progress(len(descriptions)) as progress:
        return _simulate(simulator, descriptions, exemplars, rows, batch_size, progress)


def _progress(n: int, done: int = 0) -> tqdm:
    return tqdm(total=n, initial=done, desc="simulating", unit="description", mininterval=10)


def _simulate(simulator, descriptions, exemplars, rows, batch_size, progress: tqdm) -> Tensor:
    """Descriptions of like length go together, which changes no prediction and saves padding."""
    sequences = exemplars.sequences[torch.as_tensor(rows, dtype=torch.int64)]  # [m, k]
    predicted = torch.empty(*sequences.shape, exemplars.tokens.shape[1])
    order = sorted(range(len(descriptions)), key=lambda i: len(descriptions[i]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        predicted[batch] = simulator.expected(
            [descriptions[i] for i in batch], exemplars.tokens[sequences[batch]]
        ).cpu()
        progress.update(len(batch))
    return predicted


def score(
    simulator: Simulator,
    descriptions: Sequence[str],
    exemplars: Exemplars,
    rows: Sequence[int],
    batch_size: int,
) -> Scores:
    """The simulator score (eq. 2) of description i on all given exemplars of direction rows[i]
    (mind `Exemplars.scoring`)."""
    return score_predictions(
        simulate(simulator, descriptions, exemplars, rows, batch_size), exemplars, rows
    )


def score_candidates(
    simulator: Simulator,
    candidates: Sequence[Sequence[str]],
    exemplars: Exemplars,
    path: Path,
    batch_size: int,
) -> list[list[float]]:
    """Eq. 2 of every candidate description of every direction: the scores r in the shape of
    `candidates`.

    They are written to `path` as they come (JSON lines); called again, it goes on from there.
    """
    pairs = [(row, text) for row, texts in enumerate(candidates) for text in texts]
    made_from = hashlib.sha256(repr((simulator.sha256(), batch_size, pairs)).encode())
    for part in (exemplars.tokens, exemplars.sequences, exemplars.activations):
        made_from.update(part.numpy().tobytes())
    header = json.dumps({"made_from": made_from.hexdigest()})
    lines = (
        path.read_text().split("\n")[:-1] if path.is_file() else []
    )  # without a last line cut short
    done = lines[1:] if lines[:1] == [header] else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *done, ""]))
    scores = [r for line in done for r in json.loads(line)]
    with path.open("a") as file, _progress(len(pairs), len(scores)) as progress:
        while len(scores) < len(pairs):
            rows, texts = zip(*pairs[len(scores) : len(scores) + CHUNK * batch_size], strict=True)
            predicted = _simulate(simulator, texts, exemplars, rows, batch_size, progress)
            r = score_predictions(predicted, exemplars, rows).r.tolist()
            file.write(json.dumps(r) + "\n")
            file.flush()
            scores += r
    ready = iter(scores)
    return [[next(ready) for _ in texts] for texts in candidates]
