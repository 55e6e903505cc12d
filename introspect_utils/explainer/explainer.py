"""The explainer (section 2.2): a model that is asked about vectors, its answers and its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.question_model import QuestionModel
from introspect_utils.models.fingerprint import check_base
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import load_model
from introspect_utils.models.weights import read_adapter
from introspect_utils.settings.errors import UserError
from introspect_utils.settings.sections import ExplainerSettings
from introspect_utils.tasks.question import Question
from introspect_utils.tasks.task_features import description, prompt, templates

SETTINGS, VECTORS, PROJECTION = "explainer.json", "vectors.safetensors", "projection.safetensors"


class Explainer(QuestionModel):
    """A `QuestionModel` that explains. Its folder has the format of PEFT or transformers."""

    def explain(
        self, questions: Sequence[Question], batch_size: int = 32, max_new_tokens: int = 24
    ) -> list[str]:
        """The explanations E(q), decoded greedily."""
        return generate(self, questions, batch_size, max_new_tokens)

    def describe(self, v: Tensor, layer: int | Sequence[int], **settings) -> list[str] | str:
        """What the direction v [d_target] of a target's layer encodes, or each of v [n, d_target],
        whose layers may be one or n (section 2.2); `settings` as for `explain`."""
        rows = v.view(-1, self.d_target)
        layers = [layer] * len(rows) if isinstance(layer, int) else layer
        asked = [self.question(*of) for of in zip(rows, layers, strict=True)]
        said = [description(text) for text in self.explain(asked, **settings)]
        return said if v.dim() > 1 else said[0]

    def question(self, v: Tensor, layer: int) -> Question:
        """What a direction v [d_target] of a target's layer encodes, asked in the form that this
        explainer was trained with."""
        form = self.settings.prompt
        return Question(prompt(templates(form)[0], layer, form), v, (layer,))

    def save(self, folder: str | Path) -> None:
        """A PEFT or transformers folder, with the projection and the means in safetensors, and the
        settings in JSON. Of an explainer saved there before nothing is left."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SETTINGS).is_file():
            names = (SETTINGS, "adapter_config.json", "config.json")
            for old in (*map(folder.joinpath, names), *folder.glob("*.safetensors")):
                old.unlink(missing_ok=True)
        if hasattr(self.model, "peft_config"):  # "auto" would ask the hub about the embeddings
            self.model.save_pretrained(folder, save_embedding_layers=False)
        elif not self.frozen:
            self.model.save_pretrained(folder)
            self.lm.tokenizer.save_pretrained(folder)
        save_file({"center": self.center}, folder / VECTORS)
        if self.projection is not None:
            save_file(self.projection.state_dict(), folder / PROJECTION)
        described = {"base": self.lm.name, "weights": self.fingerprint}
        for name in ("d_target", "layers", "longest_explanation", "token_norm"):
            described[name] = getattr(self, name)
        described["settings"] = asdict(self.settings)
        (folder / SETTINGS).write_text(json.dumps(described, indent=1))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        base: LanguageModel | None = None,
    ) -> Explainer:
        """A trained explainer from the folder that `save` wrote. `base`: what its adapters belong
        to, where that is a variant of the target (`explainer.make.explainer_model`). Raises
        `UserError` where there is none, or its weights are not whole."""
        folder = Path(folder)
        if not (folder / SETTINGS).is_file():
            raise UserError(f"no explainer at {folder}: train one with notebooks/05, 06 or 07")
        described = json.loads((folder / SETTINGS).read_text())
        settings = ExplainerSettings(**described["settings"])
        adapted, name = (folder / "adapter_config.json").is_file(), described["base"]
        whole = not adapted and not settings.projection.startswith("frozen")
        if not whole and base is None and " " in name:  # "smollm2-135m-instruct rotated"
            raise UserError(
                f"{folder} adapts {name}: make that with explainer.make.explainer_model, and give "
                "it as base"
            )
        if whole or base is None:
            base = load_model(str(folder.resolve()) if whole else name, device, dtype)
        if not whole:
            check_base(base, folder, name, described.get("weights"))
        explainer = cls(base, settings, described["d_target"], described["layers"])
        if adapted:
            explainer.model = read_adapter(explainer.lm.model, folder)
        explainer.token_norm = described["token_norm"]
        explainer.longest_explanation = described["longest_explanation"]
        center = load_file(folder / VECTORS)["center"]
        if center.shape != explainer.center.shape or not center.isfinite().all():
            raise UserError(
                f"{folder / VECTORS} does not hold {len(explainer.layers)} means of finite "
                "numbers: it is damaged, or another explainer's; get it again"
            )
        explainer.center.copy_(center)
        if explainer.projection is not None:
            explainer.projection.load_state_dict(load_file(folder / PROJECTION))
        return explainer.eval()
