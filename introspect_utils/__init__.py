"""Companion library to "Training Language Models to Explain Their Own Computations" (arXiv
2511.08579).

What most notebooks use is here too: `open_run`, `make_explainer`, `train`, `generate`,
`load_model`, `Explainer`. It is imported when it is first asked for.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "Explainer": "explainer.explainer",
    "generate": "explainer.generate",
    "load_model": "models.load",
    "make_explainer": "explainer.make",
    "open_run": "runs.session",
    "train": "explainer.train",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"introspect_utils has no {name}")
    return getattr(importlib.import_module(f"introspect_utils.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
