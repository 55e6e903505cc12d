"""The explanation procedures T(M, q) -> E, the questions in words, and how answers are read.

Every module `task_*.py` here holds one task as `TASK`; `TASKS` has them all, in the order of their
notebooks.
"""

import importlib
import pkgutil

from introspect_utils.tasks.task import Task


def _registered() -> dict[str, Task]:
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [
        importlib.import_module(f"{__name__}.{name}") for name in names if name.startswith("task_")
    ]
    tasks = sorted((module.TASK for module in modules), key=lambda task: task.train)
    return {task.name: task for task in tasks}


TASKS = _registered()
