"""What tells a model from others of its name and shape: some of its weights.

Names are no proof: a folder is trained again, a tiny model drawn from another seed, an adapter put
on another base.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from introspect_utils.models.language_model import LanguageModel
from introspect_utils.settings.errors import UserError

SAMPLED = 4  # values of each parameter
ROUNDED = 0.1  # share of the values that the way through another dtype may round otherwise


def _sample(lm: LanguageModel) -> Tensor:
    """Some values of each parameter in turn, [n] float32 on the CPU."""
    flat = [p.detach().flatten() for p in lm.model.parameters()]
    some = [p[:: max(1, len(p) // SAMPLED - 1)][:SAMPLED].float() for p in flat]
    return torch.cat(some).cpu()


def identity(lm: LanguageModel) -> str:
    """For a cache of what `lm` computes: its name, its dtype and a digest of its weights."""
    digest = hashlib.sha256(_sample(lm).numpy().tobytes()).hexdigest()
    return f"{lm.name} {lm.model.dtype} {digest[:16]}"


def fingerprint(lm: LanguageModel) -> str:
    """For a file that belongs to `lm`: some of its weights in bfloat16, the same whatever dtype it
    was loaded in, as hexadecimal digits."""
    return _sample(lm).bfloat16().view(torch.int16).numpy().tobytes().hex()


def check_base(lm: LanguageModel, folder: Path, name: str, kept: str | None) -> None:
    """Raises `UserError` when `lm` is not the model that the files in `folder` belong to: of this
    `name` and this `fingerprint` (None in files of earlier versions, where the name decides)."""
    named = lm.name == name
    same = named
    if kept is not None:
        ours, theirs = (np.frombuffer(bytes.fromhex(x), np.int16) for x in (fingerprint(lm), kept))
        differ = (ours != theirs).mean() if len(ours) == len(theirs) else 1
        same = differ <= (ROUNDED if named else 0)
    if not same:
        other = "has other weights now" if named else f"is not {lm.name}"
        raise UserError(
            f"{folder} was trained on {name}, which {other}: give it the model that it was trained "
            "on (a rotated one or a sibling in the same dtype), or train it again"
        )
