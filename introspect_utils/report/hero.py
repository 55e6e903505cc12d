"""Figure 1D: what is found, at a glance."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.figure import Figure

from introspect_utils.report import result_figures as plot
from introspect_utils.report import style


@style.STYLED
def hero(records: list[dict]) -> Figure | None:
    """Figure 1D: each task's self-explainer among a few rows, beside the paper's."""
    drawn, said = [], []
    for spec in style.WORDS["hero"]:
        table, name = spec["table"], spec["column"]
        for _, target in plot.targets(records, table)[:1]:
            found, paper = plot.lines(records, table, target, [name]), plot.paper_of(table, target)
            by_key = {(style.kind(*line.key), line.key[1]): line for line in reversed(found)}
            by_key |= {line.key: line for line in found}
            shown = []
            for label, (ours, quoted) in spec["rows"].items():
                if line := by_key.get(tuple(ours.split(" "))):
                    of_paper = paper.get(tuple((quoted or "").split(" ")), {})
                    shown.append(plot.Line(label, line.key, line.record, line.ours, of_paper))
            if not shown:  # no explainer is done yet
                continue
            rivals = [line for line in shown if line.name in spec["rivals"]]
            against = [(r.name, plot.difference(records, table, target, r, name)) for r in rivals]
            if both := plot.both_ways(records, table, name):
                against = [("another model, both ways together", both)]
            said.append(f"{spec['name']}: {verdict(against)}")
            head = f"{spec['name']}\n{style.LABELS[name]}, n = {shown[0].ours[name]['n']}"
            quoted = {line.paper[name]["target"] for line in shown if name in line.paper}
            head += f"\n◇ of {', '.join(quoted)}" * bool(quoted)
            drawn.append((head, shown, name, plot.floor(found, name)))
    if not drawn:
        return None
    title = fill(f"{target} explains itself. {'; '.join(said)}", 105)
    made, grid = plot.figure(style.PAGE, 2.8, title, 1, len(drawn))
    for axes, (head, *rest) in zip(grid[0], drawn, strict=True):
        plot.draw(axes, *rest)
        axes.set(title=head, xlim=(-3, 102))
    plot.legend(made, plot.marks(plot.FLOOR_NAME), title=plot.ONE_SEED)
    return made


def verdict(against: Sequence[tuple[str, dict | None]]) -> str:
    """How self stands to some rivals (name, paired difference): a verdict only where training seeds
    were compared."""
    compared = [(name.replace("Self,", "itself with a"), r) for name, r in against if r]
    if compared and all(plot.one_seed(r) for _, r in compared):
        return "no verdict (one seed)"
    told = [f"{plot.word(r).removeprefix('is ')} {name.lower()}" for name, r in compared]
    return ", ".join(told) or "not compared"
