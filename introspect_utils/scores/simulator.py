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
from transformers import DynamicCache

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
    """A simulator for `target` from the first `n_layers` (None: all) layers of `lm`, and a head.

    It shares the weights of `lm`, which training leaves as they are. `compute_dtype`: "float32" or
    "bfloat16" (autocast). Raises `UserError` when `lm` has another tokenizer than the target, whose
    tokens the text is, or fewer layers.
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
        transformers drops the cache, with each. Raises `UserError` for more tokens than the
        model reads.
        """
        m, k, length = tokens.shape
        prompts = [self.lm.encode(PROMPT.format(description)) for description in descriptions]
        self.lm.check_length(max(map(len, prompts)) + length, "a description with its text")
        ids, mask = pad_left(prompts, self.lm.tokenizer.pad_token_id, self.lm.device)
        ids, text = self._read(ids), self._read(tokens.to(self.lm.device).flatten(0, 1))
        decoder, cache = self.lm.model.get_decoder(), None
        checkpointing = any(getattr(m, "gradient_checkpointing", False) for m in decoder.modules())
        if self.training and checkpointing:
            text = torch.cat([ids.repeat_interleave(k, 0), text], 1)
        else:
            cache = DynamicCache()
            decoder(
                ids,
                attention_mask=mask,
                position_ids=positions(mask),
                past_key_values=cache,
                use_cache=True,
            )
            cache.batch_repeat_interleave(k)
        mask = torch.cat([mask, mask.new_ones(m, length)], 1).repeat_interleave(k, 0)
        output = decoder(
            text,
            attention_mask=mask,
            position_ids=positions(mask)[:, -text.shape[1] :],
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state[:, -length:]

    def logits(self, descriptions: Sequence[str], tokens: Tensor) -> Tensor:
        """Of the values 0..10 at tokens [m, k, T]: [m, k, T, 11]. Gradients flow."""
        hidden = self.hidden(descriptions, tokens).float()
        with torch.autocast(self.lm.device.type, enabled=False):  # the head costs nothing
            return self.head(hidden).unflatten(0, tokens.shape[:2])

    def _read(self, ids: Tensor) -> Tensor:
        for token, other in self.copies.items():
            ids = torch.where(ids == token, other, ids)
        return ids

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
        """Of what makes the predictions: the model's name and layers, the adapter and the head."""
        digest = hashlib.sha256(repr((self.lm.name, self.n_layers, self.compute_dtype)).encode())
        for name, parameter in self.named_parameters():
            if "lora_" in name or name.startswith("head."):
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """The adapter in PEFT's format, the head in safetensors, the rest in JSON."""
        folder = Path(folder)
        self.model.save_pretrained(folder, save_embedding_layers=False)  # else it asks the hub
        head = {name: part.contiguous() for name, part in self.head.state_dict().items()}
        save_file(head, folder / HEAD)
        settings = {
            "base": self.lm.name,
            "n_layers": self.n_layers,
            "compute_dtype": self.compute_dtype,
        }
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1))

    @classmethod
    def load(cls, folder: str | Path, target: LanguageModel) -> Simulator:
        """What `save` wrote; it shares the weights of `target` where that is its model.

        Raises `UserError` where there is none.
        """
        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise UserError(
                f"no simulator at {folder} (no {SETTINGS} in it): train one with "
                "notebooks/04_simulator.ipynb"
            )
        settings = json.loads((folder / SETTINGS).read_text())
        lm, dtype = target, str(target.model.dtype).split(".")[1]
        if settings["base"] != target.name:
            lm = load_model(settings["base"], target.device.type, dtype)
        simulator = cls(lm, target, settings["n_layers"])
        simulator.model = read_adapter(simulator.lm.model, folder)
        simulator.head.load_state_dict(load_file(folder / HEAD))
        simulator.compute_dtype = settings["compute_dtype"]
        return simulator.eval()

    @classmethod
    def load_published(
        cls, path_or_hub: str, target: LanguageModel, dtype: str = "auto"
    ) -> Simulator:
        """The authors' simulator (`Transluce/features_explain_llama3.1_8b_simulator`), all weights
        of which are trained.

        Known from their inference code (`FinetunedSimulator`): the prompt above behind one BOS,
        padded on the left; the 11 values are the first 11 entries of the logits, read at the token
        itself; the copies of four special tokens (COPIED) are read in their place. Assumed: the
        checkpoint has the rows of the copies (a token without one is read as it is). Raises
        `UserError` when it cannot be loaded or has a smaller vocabulary than the target.
        """
        where, tokenizer = target.device, target.tokenizer
        try:
            model = read_model(path_or_hub, choose_dtype(dtype, where.type))
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
        copies = zip(COPIED, range(known + 1, rows), strict=False)  # `known` is <PAD>
        vocabulary = tokenizer.get_vocab()
        simulator.copies = {
            vocabulary[token]: copy_ for token, copy_ in copies if token in vocabulary
        }
        return simulator.eval()


def first_layers(lm: LanguageModel, n: int) -> LanguageModel:
    """The first n layers of `lm`: modules of its own, which adapters go into, and shared weights."""
    lm = sharing_weights(lm)
    config, lm.model.get_decoder().layers = lm.model.config, decoder_layers(lm.model)[:n]
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:n]
    config.num_hidden_layers = n
    return lm


def load_simulator(profile: Profile, target: LanguageModel) -> Simulator:
    """A profile's simulator for one of its targets: that of notebook 04, or the published one."""
    checkpoint = profile.features.simulator.checkpoint
    if checkpoint != "trained":
        return Simulator.load_published(checkpoint, target, profile.dtype)
    name = f"simulator-{folder_name(target.name)}"
    return Simulator.load(artifacts_dir(profile.name) / "checkpoints" / name, target)
