"""One explainer trained on every task at once, beside those that are trained on one task each
(notebook 14)."""

import pandas as pd

from introspect_utils.models.chat import Endpoint
from introspect_utils.runs.session import Session
from introspect_utils.scores.descriptions import scored
from introspect_utils.scores.judge import load_judge
from introspect_utils.scores.simulator import load_simulator
from introspect_utils.tasks import TASKS

SCORED_AS = ("self", "joint")  # the explainer and the condition of its predictions


def parts(run: Session) -> list[Session]:
    """The runs of the tasks within a joint one, each with the training rows of its largest
    self-explainer."""
    folders = [path.parent.name for path in run.run.outputs]
    names = [task for task in TASKS if any(folder.startswith(f"{task}-") for folder in folders)]
    return [run.part(name) for name in names]


def score(part: Session, generations: list[str]) -> tuple[pd.DataFrame, dict]:
    """The predictions of a task's test answers, and what its statistics say of the scoring."""
    if not part.task.simulated:
        table = part.task.predictions(part.rows["test"], generations, *SCORED_AS, None)
        says = table.get("predicted_changed")
        return table, {} if says is None else {"unparseable": int(says.isna().sum())}
    judge = load_judge(part.section.judge, Endpoint(part.section.chat_model), part.settings.device)
    simulator = load_simulator(part.settings, part.target_lm)

    def rate(directions, said, gold, scoring):
        return scored(directions, said, gold, judge, simulator, scoring)

    by = {"judge": f"{judge.name}: {judge.model}", "simulator": simulator.sha256()[:16]}
    table = part.task.predictions(part.rows["test"], generations, *SCORED_AS, rate)
    return table, by | {"token_match": {}}
