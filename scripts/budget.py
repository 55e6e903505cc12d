"""How long to train: an explainer trained for different numbers of epochs on 95 % of the training
rows of a profile, and what it says of the other 5 %. No test row is read.

    python scripts/budget.py small 05_train_features smollm2-135m-instruct self 1000 --epochs 1 3 6 10

Prints a Markdown table: the loss of the last tenth of the steps and of the held-out rows (nats per
token), and of the answers to held-out rows the share that only name a word, how many are distinct,
the share of the most frequent, and of features the judge's mean, beside the same of their labels.
Needs the data of the profile.
"""

import argparse
import random
from collections import Counter
from dataclasses import replace

from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import held_out_loss, train
from introspect_utils.runs.session import open_run

WORD = "the word "
HEAD = "rate epochs training held-out one-word distinct most-frequent judge".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("profile", "notebook", "target", "explainer"):
        parser.add_argument(name)
    parser.add_argument("n_train", type=int)
    parser.add_argument("--condition", default="full")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 6, 10])
    parser.add_argument("--rates", type=float, nargs="+", default=[])
    asked = parser.parse_args()
    about = (asked.target, asked.explainer, asked.condition, asked.n_train, 0)
    run = open_run(asked.profile, asked.notebook, *about)
    examples = [e for e in run.examples("train", asked.condition) if e.explanation]
    random.Random(0).shuffle(examples)
    n = max(1, len(examples) // 20)
    held_out, kept = examples[:n], examples[n:]
    print(f"{asked.profile}, {asked.explainer}: {len(kept)} rows to train on, {n} held out\n")
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    labels = [example.explanation for example in held_out]

    def judged(said: list[str]) -> str:
        if not run.task.simulated:
            return ""
        ratings = run.judge.rate(list(zip(said, labels, strict=True)))
        return f"{100 * sum(ratings) / len(ratings):.1f}"

    show("", "labels", "", "", labels, judged(labels))
    for rate in asked.rates or [run.training.learning_rate]:
        for epochs in asked.epochs:
            settings = replace(run.training, learning_rate=rate, epochs=epochs)
            explainer = run.make_explainer(examples)
            folder = run.checkpoint.with_name(f"budget-{run.id}-{rate}-{epochs}")
            losses = train(explainer, kept, settings, folder).losses
            last = losses[-max(1, len(losses) // 10) :]
            loss = held_out_loss(explainer.eval(), held_out)
            said = generate(explainer, [e.question for e in held_out], **run.generation)
            mean = f"{sum(last) / len(last):.2f}"
            show(f"{rate:g}", str(epochs), mean, f"{loss:.2f}", said, judged(said))


def show(
    rate: str, epochs: str, training: str, held_out: str, said: list[str], judged: str
) -> None:
    """A row of the table."""
    word = sum(text.startswith(WORD) for text in said) / len(said)
    counts = Counter(said)
    most = counts.most_common(1)[0][1] / len(said)
    row = (rate, epochs, training, held_out, f"{word:.2f}", str(len(counts)))
    row += (f"{most:.2f}", judged)
    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
