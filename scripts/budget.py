"""How long to train: an explainer trained for different numbers of epochs on 95 % of the training
rows of a profile, and what it says of the other 5 % (whole clusters, as test rows are: fact pairs,
subjects). No test row is read.

    python scripts/budget.py small 05_train_features smollm2-135m-instruct self 1000 --epochs 1 3 6 10

Prints a Markdown table: the loss of the last tenth of the steps and of the held-out rows (nats per
token), and of the answers to held-out rows the share that only name a word, how many are distinct,
the share of the most frequent, and the score: the judge's mean of features, else exact match.
Needs the data of the profile.
"""

import argparse
import random
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from itertools import product

from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import held_out_loss, train
from introspect_utils.runs.session import open_run

WORD = "the word "
HEAD = "rate batch epochs training held-out one-word distinct most-frequent score".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("profile", "notebook", "target", "explainer"):
        parser.add_argument(name)
    parser.add_argument("n_train", type=int)
    parser.add_argument("--condition", default="full")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 6, 10])
    parser.add_argument("--rates", type=float, nargs="+", default=[])
    parser.add_argument("--batches", type=int, nargs="+", default=[])
    asked = parser.parse_args()
    about = (asked.target, asked.explainer, asked.condition, asked.n_train, 0)
    run = open_run(asked.profile, asked.notebook, *about)
    examples = run.examples("train", asked.condition)
    labels = [example.explanation for example in examples]

    def scored(rows: list[int], said: list[str]) -> float:
        """In per cent, of answers to these training rows."""
        gold = [labels[row] for row in rows]
        right = (
            run.judge.rate(list(zip(said, gold, strict=True)))
            if run.task.simulated
            else [text == label for text, label in zip(said, gold, strict=True)]
        )
        return 100 * sum(right) / len(right)

    groups = (
        range(len(labels))
        if run.task.simulated
        else run.task.predictions(run.rows["train"], labels, asked.explainer, asked.condition)[
            run.task.clusters[0]
        ]
    )
    held_out, kept = split([g if label else None for g, label in zip(groups, labels, strict=True)])
    print(f"{asked.profile}, {asked.explainer}: {len(kept)} rows to train on, {len(held_out)} held")
    print("\n| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    gold = [labels[row] for row in held_out]
    asked_of = [examples[row] for row in held_out]
    show("", "", "labels", "", "", gold, scored(held_out, gold))
    rates = asked.rates or [run.training.learning_rate]
    batches = asked.batches or [run.training.batch_size]
    for rate, batch, epochs in product(rates, batches, asked.epochs):
        settings = replace(run.training, learning_rate=rate, batch_size=batch, epochs=epochs)
        explainer = run.make_explainer(examples)
        folder = run.checkpoint.with_name(f"budget-{run.id}-{rate}-{batch}-{epochs}")
        losses = train(explainer, [examples[row] for row in kept], settings, folder).losses
        last = losses[-max(1, len(losses) // 10) :]
        loss = held_out_loss(explainer.eval(), asked_of)
        said = generate(explainer, [e.question for e in asked_of], **run.generation)
        score = scored(held_out, said)
        show(f"{rate:g}", batch, epochs, f"{sum(last) / len(last):.2f}", f"{loss:.2f}", said, score)


def split(groups: list[Hashable | None]) -> tuple[list[int], list[int]]:
    """(held out, kept): rows of whole groups drawn at random until they are 5 % of all, and the
    others; a row of None is in neither."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        if group is not None:
            rows.setdefault(group, []).append(row)
    order = list(rows)
    random.Random(0).shuffle(order)
    held_out: list[int] = []
    while 20 * len(held_out) < sum(group is not None for group in groups):
        held_out += rows.pop(order.pop())
    return held_out, [row for own in rows.values() for row in own]


def show(rate, batch, epochs, training, held_out, said: list[str], score: float) -> None:
    """A row of the table."""
    word = sum(text.startswith(WORD) for text in said) / len(said)
    counts = Counter(said)
    most = counts.most_common(1)[0][1] / len(said)
    row = (rate, batch, epochs, training, held_out)
    row += (f"{word:.2f}", len(counts), f"{most:.2f}", f"{score:.1f}")
    print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
