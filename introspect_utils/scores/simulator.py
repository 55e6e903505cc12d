"""The simulator: a language model that predicts a_v(x, l, t) from a description of v and the text x
(section 2.2, eq. 2).

    ## Neuron Description: {E}

     ## Input: <the text's tokens>

At each token of the text a head gives a distribution over the values 0..10 (`Exemplars.binned`);
the prediction is its expected value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, DynamicCache

from introspect_utils.models.fingerprint import check_base, fingerprint, identity
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import choose_dtype, load_model
from introspect_utils.models.residual import decoder_layers, pad_left, positions
from introspect_utils.models.weights import read_adapter, read_model, sharing_weights
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.names import folder_name
from introspect_utils.settings.paths import artifacts_dir
from introspect_utils.settings.profile import Profile

PROMPT = "## Neuron Description: {}\n\n ## Input: "
VALUES = 11  # activations are predicted as 0, 1, ..., 10
SETTINGS, HEAD = "simulator.json", "head.safetensors"
# Special tokens of which the published simulator reads copies, which stand in this order behind the
# target's vocabulary and <PAD>
COPIED = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


class Simulator(nn.Module):
    """A simulator for `target`: the first `n_layers` (None: all) of `lm`, whose weights it shares,
    and a head. `compute_dtype`: "float32" or "bfloat16" (autocast).

    Raises `UserError` when `lm` has another tokenizer than the target, or fewer layers.
    """

    def __init__(self, lm: LanguageModel, target: LanguageModel, n_layers: int | None = None):
        super().__init__()
        if not target.tokenizer.get_vocab().items() <= lm.tokenizer.get_vocab().items():
            raise UserError(f"{lm.name} has another tokenizer than its target {target.name}")
        self.n_layers = lm.n_layers if n_layers is None else n_layers
        if not 1 <= self.n_layers <= lm.n_layers:
            raise UserError(f"{lm.name} has {lm.n_layers} layers: none of {n_layers} can be made")
        self.base, self.fingerprint = identity(lm), fingerprint(lm)
        self.lm = first_layers(lm, self.n_layers)
        self.model = self.lm.model
        self.head = nn.Linear(lm.width, VALUES, device=lm.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.copies: dict[int, int] = {}  # of the published one: token -> what is read in its place
        self.compute_dtype = "float32"

    def hidden(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """What the head reads at tokens [m, k, T], k texts for each of m descriptions.

        [m k, T, width]. A prompt passes once, for all texts; under gradient checkpointing, where
        transformers drops the cache, with each.
        """
        m, k, length = tokens.shape
        prompts = [self.lm.encode(PROMPT.format(description)) for description in descriptions]
        ids, mask = pad_left(prompts, self.lm.tokenizer.pad_token_id, self.lm.device)
        whole = torch.cat([mask, mask.new_ones(m, length)], 1).repeat_interleave(k, 0)
        text = tokens.to(self.lm.device).flatten(0, 1)
        layers = self.lm.model.get_decoder().modules()
        if self.training and any(getattr(part, "gradient_checkpointing", False) for part in layers):
            return self._pass(torch.cat([ids.repeat_interleave(k, 0), text], 1), whole)[:, -length:]
        cache = DynamicCache()
        self._pass(ids, mask, cache)
        cache.batch_repeat_interleave(k)
        return self._pass(text, whole, cache)

    def _pass(self, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None) -> Tensor:
        for token, other in self.copies.items():
            ids = torch.where(ids == token, other, ids)
        places = positions(mask)[:, -ids.shape[1] :]
        settings = {"past_key_values": cache, "use_cache": cache is not None}
        decoder = self.lm.model.get_decoder()
        return decoder(ids, attention_mask=mask, position_ids=places, **settings).last_hidden_state

    def logits(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """Of the values 0..10 at tokens [m, k, T]: [m, k, T, 11]. Gradients flow."""
        hidden = self.hidden(descriptions, tokens).float()
        with torch.autocast(self.lm.device.type, enabled=False):  # the head costs nothing
            return self.head(hidden).unflatten(0, tokens.shape[:2])

    @torch.inference_mode()
    def expected(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """The predicted activations at tokens [m, k, T]: expected values 0..10, float32."""
        bfloat16 = self.compute_dtype == "bfloat16"
        with torch.autocast(self.lm.device.type, torch.bfloat16, enabled=bfloat16):
            logits = self.logits(descriptions, tokens)
        return logits.softmax(-1) @ torch.arange(VALUES, dtype=torch.float32, device=logits.device)

    def loss(self, descriptions: Sequence[str], tokens: Tensor, binned: Tensor) -> Tensor:
        """Mean cross-entropy of the true values `binned` [m, k, T] at the text's tokens."""
        logits = self.logits(descriptions, tokens).flatten(0, -2)
        return nn.functional.cross_entropy(logits, binned.to(logits.device).flatten())

    def sha256(self) -> str:
        """For records: of the model's name and layers, the adapter and the head (not of the base's
        weights, which `load` compares)."""
        digest = hashlib.sha256(repr((self.lm.name, self.n_layers, self.compute_dtype)).encode())
        for name, parameter in self.named_parameters():
            if "lora_" in name or name.startswith("head."):
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """The adapter in PEFT's format, the head in safetensors, the rest in JSON."""
        self.model.save_pretrained(folder, save_embedding_layers=False)  # else it asks the hub
        head = {name: part.contiguous() for name, part in self.head.state_dict().items()}
        save_file(head, folder / HEAD)
        made = {"n_layers": self.n_layers, "compute_dtype": self.compute_dtype}
        made |= {"base": self.lm.name, "weights": self.fingerprint}
        (folder / SETTINGS).write_text(json.dumps(made, indent=1))

    @classmethod
    def load(cls, folder: Path, target: LanguageModel) -> Simulator:
        """What `save` wrote, on the weights of `target` if that is its model. Raises `UserError`
        where there is none."""
        if not (folder / SETTINGS).is_file():
            raise UserError(f"no simulator at {folder}: notebooks/04_simulator.ipynb trains one")
        settings = json.loads((folder / SETTINGS).read_text())
        lm, dtype = target, str(target.model.dtype).split(".")[1]
        if settings["base"] != target.name:
            lm = load_model(settings["base"], target.device.type, dtype)
        check_base(lm, folder, settings["base"], settings.get("weights"))
        simulator = cls(lm, target, settings["n_layers"])
        simulator.model = read_adapter(simulator.lm.model, folder)
        simulator.head.load_state_dict(load_file(folder / HEAD))
        simulator.compute_dtype = settings["compute_dtype"]
        return simulator.eval()

    @classmethod
    def load_published(cls, source: str, target: LanguageModel, dtype: str = "auto") -> Simulator:
        """The authors' simulator, a full model (Transluce/features_explain_llama3.1_8b_simulator).

        Known from their inference code: the prompt above behind one BOS; the 11 values are the
        first 11 entries of the logits, read at the token itself; copies of four special tokens
        (COPIED) are read in their place. Assumed: the checkpoint has the copies' rows (a token
        without one is read as it is). Raises `UserError` when it cannot be loaded, or has a
        smaller or another vocabulary than the target.
        """
        try:
            model = read_model(source, choose_dtype(dtype, target.device.type))
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot load the simulator {source} ({reason})") from error
        vocabulary, known = target.tokenizer.get_vocab(), len(target.tokenizer)
        if not vocabulary.items() <= _own_vocabulary(source, vocabulary).items():
            raise UserError(f"{source} has another tokenizer than its target {target.name}")
        if (rows := model.get_input_embeddings().num_embeddings) < known:
            raise UserError(f"{source} knows {rows} tokens, {target.name} has {known}")
        model.to(target.device).eval().requires_grad_(False)
        simulator = cls(LanguageModel(source, model, target.tokenizer), target)
        simulator.head.weight.data = model.get_output_embeddings().weight[:VALUES].float()
        places = zip(COPIED, range(known + 1, rows), strict=False)  # `known` is <PAD>
        simulator.copies = {vocabulary[t]: place for t, place in places if t in vocabulary}
        return simulator.eval()


def _own_vocabulary(source: str, default: dict[str, int]) -> dict[str, int]:
    """{token: id} of a model's own tokenizer, `default` where its files have none."""
    try:
        return AutoTokenizer.from_pretrained(source).get_vocab()
    except (OSError, ValueError):
        return default


def first_layers(lm: LanguageModel, n: int) -> LanguageModel:
    """The first n layers of a model, with modules of their own and shared weights."""
    lm = sharing_weights(lm)
    lm.model.get_decoder().layers = decoder_layers(lm.model)[:n]
    if getattr(lm.model.config, "layer_types", None):
        lm.model.config.layer_types = lm.model.config.layer_types[:n]
    lm.model.config.num_hidden_layers = n
    return lm


def load_simulator(profile: Profile, target: LanguageModel) -> Simulator:
    """A profile's simulator for one of its targets: that of notebook 04, or the published one."""
    checkpoint = profile.features.simulator.checkpoint
    if checkpoint != "trained":
        return Simulator.load_published(checkpoint, target, profile.dtype)
    name = f"simulator-{folder_name(target.name)}"
    return Simulator.load(artifacts_dir(profile.name) / "checkpoints" / name, target)
