"""Companion library to "Training Language Models to Explain Their Own Computations" (arXiv
2511.08579).

What notebooks use is here too, from the rooms named below: modules, and a few functions. It is
imported when it is first asked for.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
    "data": ("facts", "mmlu", "text"),
    "models": ("contexts", "residual"),
    "features": ("candidates", "chat_candidates", "dictionaries", "directions", "exemplars"),
    "tasks": ("ablation", "outcome", "patching", "task_ablation", "task_features"),
    "scores": ("descriptions", "floors", "neighbours", "selfie", "similarity", "surface"),
    "report": ("figures", "paper", "result_figures", "scaling", "seen", "tables"),
    "extras": ("ask", "ask_widget", "error_analysis", "labelling", "published_data"),
}
_PLACES = {name: f"{room}.{name}" for room, names in _MODULES.items() for name in names}
_PLACES |= {
    "Explainer": "explainer.explainer",
    "Simulator": "scores.simulator",
    "Words": "features.words",
    "aligned_contexts": "explainer.make",
    "best_of": "scores.selfie",
    "generate": "explainer.generate",
    "generate_tokens": "models.weights",
    "held_out_loss": "explainer.train",
    "load_model": "models.load",
    "make_explainer": "explainer.make",
    "mean_residual": "models.residual_store",
    "measured_again": "scores.coupling",
    "open_run": "runs.session",
    "read_runs": "runs.record",
    "records": "report.records",
    "rollouts": "explainer.generate",
    "simulator_scores": "scores.simulator_scores",
    "simulator_training": "scores.simulator_training",
    "train": "explainer.train",
}


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"introspect_utils has no {name}")
    module = importlib.import_module(f"introspect_utils.{_PLACES[name]}")
    return getattr(module, name, module)  # a module's function of its own name, if it has one


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
