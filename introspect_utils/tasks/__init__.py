"""The explanation procedures T(M, q) -> E, the questions in words, and how answers are read.

Every module `task_*.py` here holds one task as `TASK`; `TASKS` has them all, in the order of their
notebooks.
"""

import importlib
import pkgutil

from introspect_utils.tasks.task import Task

_names = [module.name for module in pkgutil.iter_modules(__path__, f"{__name__}.")]
_tasks = [importlib.import_module(name).TASK for name in _names if ".task_" in name]
TASKS: dict[str, Task] = {task.name: task for task in sorted(_tasks, key=lambda task: task.train)}
