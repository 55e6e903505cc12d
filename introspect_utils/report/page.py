"""What notebook 12 shows, and so what report.html is: the answer first, then what it rests on."""

import base64
import re
from collections import Counter
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from introspect_utils.report import drawings, drawn_examples, hero, other_figures, style, tables
from introspect_utils.report import result_figures as plot
from introspect_utils.report.claims import CLAIMS
from introspect_utils.report.figures import PEAK, shaded
from introspect_utils.report.paper import PATCHING_METRICS as OUTCOMES
from introspect_utils.report.records import write_results
from introspect_utils.report.result_figures import of_differences, of_table
from introspect_utils.report.scaling import figure_scaling
from introspect_utils.report.similarity import METRICS, figure_6
from introspect_utils.report.table import Score, Table, save_table
from introspect_utils.report.table_rows import self_explained
from introspect_utils.runs.plan import plan
from introspect_utils.runs.record import read_runs
from introspect_utils.runs.run_notebook import clock
from introspect_utils.settings.names import variant
from introspect_utils.settings.paths import REPO, figures_dir
from introspect_utils.settings.profile import load_profile
from introspect_utils.settings.rehearsal import profile_of
from introspect_utils.tasks import TASKS

COLUMNS = tables.COLUMNS
FIGURES = {  # of records
    "hero": hero.hero,
    "figure_features": partial(of_table, tables=("1", "4"), columns=COLUMNS, rival="nn-all"),
    "figure_6": figure_6,
    "figure_6_all": partial(figure_6, metrics=METRICS, columns=COLUMNS),
    "figure_8": plot.figure_8,
    "figure_patching": partial(of_table, tables=("2",), columns=OUTCOMES, rival="shuffled-vector"),
    "figure_hints": partial(of_table, tables=("3",), columns=OUTCOMES, rival="other"),
    "figure_matrix": other_figures.figure_matrix,
    "figure_ablation": other_figures.figure_ablation,
    "figure_privileged": partial(of_differences, tables=("1-paired", "4-paired"), columns=COLUMNS),
    "figure_privileged_outcomes": partial(
        of_differences, tables=("2-paired", "3-paired"), columns=OUTCOMES
    ),
}


class Report:
    """The results of a profile: `results.json` is written, and every table and figure is saved as
    it is shown. `files`: what has been written."""

    def __init__(self, profile: str):
        self.profile = load_profile(profile)
        self.folder = figures_dir(self.profile.name)
        self.runs, self.records = read_runs(profile), write_results(profile)
        self.examples = drawn_examples.find_examples(self.profile, self.runs)
        self.claims = [(claim, v) for claim in CLAIMS for v in claim.check(self.records)]
        self.files = [self.folder / "results.json", self.folder / "examples.json"]
        self.shown: set[str] = set()

    def answer(self) -> Markdown:
        """What is asked, of which models, and how far the answer is decided."""
        counts = Counter(verdict.outcome for _, verdict in self.claims)
        verdicts = ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
        finished, planned = {run["id"] for run, _ in self.runs}, plan(self.profile)[:-1]
        said = (
            "**Can a model learn to explain its own computations?** The findings below are what "
            f"these runs show. The paper’s {len(CLAIMS)} claims ask for more: every column, two "
            "training seeds, every way to count rows. As checks, task by task, they come out as "
            f"{verdicts}. {len(finished)} of {len(planned)} runs of the profile "
            f"`{self.profile.name}` are finished.\n"
        )
        for task in TASKS.values():
            asked = [run for run in planned if run.notebook == task.train and run.id in finished]
            made = [run.parameters for run in asked if run.parameters["n_train"]]
            if made:
                models = [
                    {variant(run[key])[0]: 0 for run in made} for key in ("target", "explainer")
                ]
                both = " explained by ".join(map(", ".join, models))
                most = max(run["n_train"] for run in made)
                name = style.LABELS.get(task.name, task.name)
                said += f"\n- {name}: {both}, trained on at most {most:,} rows"
        return Markdown(said)

    def findings(self) -> Markdown:
        """What was found in a reader's words; sentences whose numbers are missing are left out."""
        said = []
        for sentence in style.WORDS["findings"]:
            with suppress(LookupError):
                said.append("- " + re.sub(r"\{([^}]*)\}", self._number, sentence))
        return Markdown("\n".join(said))

    def _number(self, place: re.Match) -> str:
        """A record's number, or what it says of self. Raises LookupError where it is missing."""
        form, table, explainer, condition, name = place[1].split("|")
        for _, target in plot.targets(self.records, table)[:1]:
            kinds = ((r, style.kind(r["explainer"])) for r in self.records)
            found = [r for r, kind in kinds if explainer in (r["explainer"], kind)]
            r = plot.pick(found, name, table=table, target=target, condition=condition)
            if explainer == "both ways":
                r = plot.both_ways(self.records, table.removesuffix("-interaction"), name)
            if explainer == "floor":
                r = plot.floor(plot.lines(self.records, table, target, [name]), name)
            if r and form == "word":
                return plot.word(r)
            if r and form == "name":
                return style.label(r["explainer"], r["condition"])
            if r:
                return str(Score(r["value"], r["stderr"], signed="-" in table))
        raise LookupError(place[1])

    def predictions(self) -> HTML:
        """Test rows drawn at random: of features the most active contexts, what was to be said, and
        what the self-explainer says."""
        for task in TASKS:
            if explained := self_explained(self.runs, task):
                rows, contexts = [], self.examples.get(task, {}).get("at_random", {})
                for _, row in drawn_examples.at_random(explained[1]).iterrows():
                    shown = contexts.get(row.get("feature"), [])
                    texts = [shaded([t for t, _ in c], [PEAK * s for _, s in c]) for c in shown]
                    right = row.get("gold") or row.get("content") or ""
                    said = [escape(str(text)) for text in (right, row["generation"])]
                    rows.append(["<br>".join(texts), *said, drawn_examples.verdict(row)])
                head = ["Most active in", "To be said", "The explainer says", "Scores"]
                frame = pd.DataFrame(rows, columns=head)
                frame = frame if any(frame["Most active in"]) else frame.iloc[:, 1:]
                with pd.option_context("display.max_colwidth", None):
                    return HTML(frame.to_html(escape=False, index=False, border=0))
        return HTML("No self-explainer has been trained.")

    def claims_table(self) -> Table:
        """The paper's claims, task by task: the verdict, how many comparisons hold, and what
        decides it."""
        rows = []
        for claim, verdict in self.claims:
            deciding = verdict.deciding
            reason = ": ".join(filter(None, (deciding.what, deciding.numbers, deciding.reason)))
            counted = f"{verdict.holding} of {len(verdict.comparisons)}"
            task = style.LABELS.get(verdict.task, verdict.task)
            told = (task, verdict.outcome, counted, reason, claim.rule, claim.where)
            rows.append((claim.sentence, *told))
        header = ("Claim", "Task", "Verdict", "Comparisons that hold")
        header += ("Reason", "Rule", "In the paper")
        return Table("The paper's claims.", header, tuple(rows))

    def show_tables(self, *names: str) -> None:
        """Save and show tables of `tables.yaml`, as far as there are records of them."""
        for name in names:
            self.shown.add(name)
            if table := tables.table(name, self.records):
                self.files += save_table(table, self.folder / "tables", name)
                display(table)
            else:
                _remove(self.folder / "tables", name)

    def show_other_tables(self) -> None:
        """The tables that have not been shown: of tasks that the paper has not."""
        self.show_tables(*(name for name in tables.SPECS if name not in self.shown))

    def show_figures(self, *names: str) -> None:
        """Save and show figures, as far as there is something to show."""
        for name in names:
            if figure := self._figure(name):
                png, svg, pdf = files = style.save_figure(figure, self.folder, name)
                self.files += files
                caption = escape(style.WORDS["captions"][name])
                source = f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
                links = ", ".join(f'<a href="{p.name}">{p.suffix[1:].upper()}</a>' for p in files)
                image = f'<div><img src="{source}" alt="{caption}"></div>'
                below = f"<figcaption>{caption} ({links})</figcaption>"
                wide = "page" if figure.get_figwidth() > style.COLUMN else "column"
                display(HTML(f'<figure class="{wide}">{image}{below}</figure>'))
            else:
                _remove(self.folder, name)

    def _figure(self, name: str) -> Figure | None:
        features = self.profile.features
        if name in drawings.DRAWINGS:
            return drawings.drawing(name, self.examples)
        if name in FIGURES:
            return FIGURES[name](self.records)
        if not features:
            return None
        columns = COLUMNS[:1] if name == "figure_5" else COLUMNS[1:]
        return figure_scaling(self.records, features.targets[0], columns, len(features.layers))

    def show_runs(self) -> None:
        """What made the numbers, and the settings as a file."""
        rows = []
        for run, _ in self.runs:
            name = f'<a href="runs/{escape(run["id"])}/run.json">{escape(run["id"])}</a>'
            made = [run["n_train"], run["seed"], clock(run["seconds"]), run["peak_memory_mb"]]
            rows.append([name, *made, escape(run["device"]), escape(run["commit"])])
        header = ["Run", "Training rows", "Seed", "Time", "Memory, MB", "Machine", "Commit"]
        frame = pd.DataFrame(rows, columns=header, dtype=object)
        display(HTML(frame.to_html(escape=False, index=False, border=0, na_rep="–")))
        files = [profile_of(f.source) or f.source for f in (self.profile, *self.profile.parts)]
        names = [source + ".yaml" * (not source.endswith(("yaml", "yml"))) for source in files]
        texts = [(REPO / "params" / name).read_text("utf-8") for name in names]
        self.files.append(self.folder / "settings.yaml")
        self.files[-1].write_text("---\n".join(texts), "utf-8")
        display(HTML('All settings: <a href="settings.yaml" download>settings.yaml</a>'))


def _remove(folder: Path, name: str) -> None:
    """A table or figure of earlier results, of which there is nothing now."""
    for path in folder.glob(f"{name}.*"):
        path.unlink()
