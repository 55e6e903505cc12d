"""Results do not depend on how they are computed: batch sizes, one seed again.
Tiny models, float32."""

import pytest
import torch
from explaining import WIDTHS, encode, make_examples, make_explainer, training_settings

from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (1, 7, 32)


@pytest.fixture(scope="module", params=list(WIDTHS))
def explainer(request):
    return make_explainer(request.param, projection="always")


def test_the_loss_is_the_same_in_every_batch_size(explainer):
    """Of all 33 rows, summed over the tokens of the explanations."""
    rows, totals = encode(explainer, make_examples(33)), {}
    for size in SIZES:
        starts = range(0, len(rows), size)
        batches = [explainer.collate(rows[start : start + size]) for start in starts]
        with torch.no_grad():
            sums = [explainer.loss(batch) * (batch.labels != -100).sum() for batch in batches]
        totals[size] = torch.stack(sums).double().sum().item()
    first = totals[1]
    assert first > 0 and all(
        total == pytest.approx(first, rel=1e-5) for total in totals.values()
    ), totals


def test_explanations_are_the_same_in_every_batch_size(explainer):
    questions = [example.question for example in make_examples(33)]
    said = [generate(explainer, questions, size, 6) for size in SIZES]
    assert said[0] == said[1] == said[2] and len(set(said[0])) > 2


def test_one_seed_gives_the_very_same_predictions_and_another_seed_others(tmp_path):
    def run(name, seed):
        explainer = make_explainer(projection="always", seed=seed)
        wanted = training_settings(epochs=3, learning_rate=3e-3, lora_dropout=0.1)
        trained = train(explainer, make_examples(12), wanted, tmp_path / name, seed)
        said = generate(
            explainer, [example.question for example in make_examples(12, seed=5)], 4, 6
        )
        return said, trained.losses, trained.sha256

    first, again, other = run("a", 0), run("b", 0), run("c", 1)
    assert first == again
    assert first[0] != other[0] and first[1] != other[1] and first[2] != other[2]
