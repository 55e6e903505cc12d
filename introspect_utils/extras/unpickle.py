"""Files of other people's archives, read without running what is in them.

A pickle is a program: it may name any importable function and call it. Here only the names that
arrays, tensors and plain containers need are allowed; the first other name ends the reading. We
write no pickles.
"""

import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from introspect_utils.settings.errors import UserError

ALLOWED = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list set str tuple",
    "collections": "OrderedDict defaultdict",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "torch._utils": "_rebuild_parameter _rebuild_tensor_v2",
}
REPLACED = {
    # the original would unpickle anything that the bytes hold
    "torch.storage._load_from_bytes": lambda data: _tensors(io.BytesIO(data)),
    # how bytes are written by pickle's protocols 0 to 2
    "_codecs.encode": lambda text, _encoding: text.encode("latin-1"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # as Python 2 and NumPy 1 called them
        module = module.replace("__builtin__", "builtins").replace("numpy.core.", "numpy._core.")
        if f"{module}.{name}" in REPLACED:
            return REPLACED[f"{module}.{name}"]
        if name not in ALLOWED.get(module, "").split():
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")  # as torch says it
        return super().find_class(module, name)


def _tensors(file: Any) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _pickled(path: Path) -> Any:
    with path.open("rb") as file:
        return _Unpickler(file).load()


READERS = {
    ".pkl": _pickled,
    ".pt": _tensors,
    ".json": lambda path: json.loads(path.read_text("utf-8")),
    ".npy": lambda path: np.load(path, mmap_mode="r", allow_pickle=False),
}


def read(path: Path) -> Any:
    """What a file of an archive holds, by its ending: .pkl (arrays, tensors and plain containers),
    .pt (of `torch.save`), .json, or .npy, which is memory-mapped. Tensors are on the CPU.

    Raises `UserError` when it is missing, damaged, or names what none of these needs.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: unpack the authors' whole archive there")
    try:
        return READERS[path.suffix](path)
    except Exception as error:  # a damaged pickle is a damaged program: it may raise anything
        if refused := re.search(r"GLOBAL (\w[\w.]*)", str(error)):
            raise UserError(
                f"{path} was not read: it names {refused[1]}, which arrays and plain containers "
                "have no use for; get the file from its authors"
            ) from error
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is truncated or damaged ({reason}): unpack or download it again"
        ) from error
