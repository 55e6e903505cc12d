"""Other people's pickles, read without running what is in them.

A pickle is a program: it may name any importable function and call it. Here only the names that
arrays, tensors and plain containers need are allowed; the first other name ends the reading. We
write no pickles.
"""

import io
import pickle
import re
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from introspect_utils.settings.errors import UserError


def _storage(data: bytes) -> Any:
    """In place of `torch.storage._load_from_bytes`, which would unpickle anything that `data`
    holds."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _encode(text: str, _encoding: str) -> bytes:
    """In place of `_codecs.encode`: how bytes are written by pickle's protocols 0 to 2."""
    return text.encode("latin-1")


# NumPy's own functions for its arrays and scalars, asked of NumPy: their module was renamed in
# version 2.
_NUMPY = [
    np.zeros(1).__reduce__()[0],
    np.zeros(1).__reduce_ex__(5)[0],
    np.float32(0).__reduce__()[0],
    np.ndarray,
    np.dtype,
]
_PLAIN = [
    bool,
    bytearray,
    bytes,
    complex,
    dict,
    float,
    frozenset,
    int,
    list,
    set,
    str,
    tuple,
    OrderedDict,
    defaultdict,
]
_TORCH = [_rebuild_parameter, _rebuild_tensor_v2]
ALLOWED = {(thing.__module__, thing.__name__): thing for thing in [*_NUMPY, *_PLAIN, *_TORCH]} | {
    ("torch.storage", "_load_from_bytes"): _storage,
    ("_codecs", "encode"): _encode,
}
RENAMED = {
    "__builtin__": "builtins",
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
}


def _refused(path: Path, name: str) -> UserError:
    return UserError(
        f"{path} was not read: it names {name}, which arrays and plain containers have no use for; "
        "get the file from its authors"
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path):
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        found = ALLOWED.get((RENAMED.get(module, module), name))
        if found is None:
            raise _refused(self.path, f"{module}.{name}")
        return found


def read_pickle(path: Path) -> Any:
    """What a pickle of arrays, tensors (on the CPU) and plain containers holds.

    Raises `UserError` when it is missing, damaged, or names anything else; the message says what it
    names.
    """
    return _read(path, lambda file: _Unpickler(file, path).load())


def read_tensor_file(path: Path) -> Any:
    """What a file of `torch.save` holds, read with `weights_only`. Raises `UserError` as
    `read_pickle` does."""
    return _read(path, lambda file: torch.load(file, map_location="cpu", weights_only=True))


def _read(path: Path, load: Any) -> Any:
    if not path.is_file():
        raise UserError(f"{path} is missing: unpack the authors' whole archive there")
    with path.open("rb") as file:
        try:
            return load(file)
        except UserError:
            raise
        except Exception as error:  # a damaged pickle is a damaged program: it may raise anything
            refused = re.search(r"GLOBAL (\w[\w.]*)", str(error))  # of torch's own allow-list
            if refused:
                raise _refused(path, refused[1]) from error
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{path} is truncated or damaged ({reason}): unpack or download it again"
            ) from error
