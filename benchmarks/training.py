"""Training an explainer (eq. 1) on patching rows: samples a second, against transformers' Trainer
with PEFT."""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from benchmarks.rows import patching_examples, training_settings, untrained_explainer
from benchmarks.timing import Comparison, Peer, decoder_macs, main, seconds
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import fit
from introspect_utils.explainer.question_model import Batch
from introspect_utils.explainer.tuning import add_lora, batches, loss_of, trainable
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.load import choose_compute_dtype
from introspect_utils.models.residual import common_prefix

BATCH = 8


def compare(lm: LanguageModel, n: int) -> Comparison:
    """One epoch over n rows, a multiple of the batch: Trainer on the same rows a step, and in a
    random order of its own."""
    return one_epoch(replace(lm, model=copy.deepcopy(lm.model)), n, BATCH, seconds, target=1.5)


def one_epoch(
    lm: LanguageModel, n: int, batch_size: int, measure: Callable, target: float
) -> Comparison:
    """The comparison, in this very model, which is given adapters."""
    explainer = untrained_explainer(lm)
    dtype = choose_compute_dtype("auto", "cpu")  # what the profiles train in here
    settings = training_settings(batch_size=batch_size, schedule="constant", compute_dtype=dtype)
    tolerance = 2e-3 if dtype == "float32" else 1e-2
    rows = [
        (example.question, *explainer.encode(example.question, example.explanation))
        for example in patching_examples(lm, n)
    ]
    steps = list(batches([len(ids) for _, ids, _ in rows], batch_size, epochs=1, seed=0))
    add_lora(explainer, settings, seed=0)
    start = {name: weight.detach().clone() for name, weight in trainable(explainer).items()}

    def afresh() -> None:
        for name, weight in trainable(explainer).items():
            weight.data.copy_(start[name])

    def ours() -> list[float]:
        afresh()
        with TemporaryDirectory() as folder:
            return fit(
                explainer,
                loss_of(rows, settings),
                steps,
                settings,
                Path(folder, "state.safetensors"),
                "",
                seed=0,
            )[0]

    def theirs(order: Sequence[int]) -> list[float]:
        afresh()
        return trainer_losses(explainer, [rows[i] for i in order], settings)

    def same_curve(ours: list[float], its: list[float]) -> None:
        torch.testing.assert_close(
            torch.tensor(its), torch.tensor(ours), rtol=tolerance, atol=tolerance
        )

    def like_curve(ours: list[float], its: list[float]) -> None:
        assert abs(sum(its) / sum(ours) - 1) < 0.1, (ours, its)  # other rows in each step

    in_step, shuffled = [i for step in steps for i in step], random.Random(1).sample(range(n), n)
    peers = (
        Peer(
            "Trainer + PEFT, the same rows a step", lambda: theirs(in_step), n, target, same_curve
        ),
        Peer(
            "Trainer + PEFT, rows in random order", lambda: theirs(shuffled), n, target, like_curve
        ),
    )
    said = sum(len(ids) - n_prompt for _, ids, n_prompt in rows)
    read = sum(len(ids) for _, ids, _ in rows) - (n - len(steps)) * common_prefix(
        [ids for _, ids, _ in rows]
    )
    macs = 2 * decoder_macs(lm, read, logits=said)  # forward, and backward to the inputs
    return Comparison("training", "row", ours, n, peers, macs, measure, dtype)


class Wrapped(nn.Module):
    """The explainer as Trainer calls a model: labels in, the loss of transformers over logits at
    all positions out."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__()
        self.explainer, self.config = explainer, explainer.lm.model.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        vector: Tensor,
        layer: Tensor,
        **loss,
    ):
        places = input_ids == self.explainer.placeholder
        embedded = self.explainer.embeddings(
            Batch(input_ids, attention_mask, labels, places, vector, layer)
        )
        return self.explainer.model(
            inputs_embeds=embedded, attention_mask=attention_mask, labels=labels, **loss
        )


def trainer_losses(explainer: Explainer, rows: Sequence[tuple], settings) -> list[float]:
    """The loss at each step of Trainer over the rows in their order, batches padded by its
    collator."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    items = [
        {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [-100] * n_prompt + ids[n_prompt:],
        }
        | {"vector": question.vector.tolist(), "layer": explainer.layer_index[question.layers]}
        for question, ids, n_prompt in rows
    ]
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
            bf16=settings.compute_dtype == "bfloat16",
        )
        collator = DataCollatorForSeq2Seq(explainer.lm.tokenizer)
        trainer = Trainer(Wrapped(explainer), arguments, collator, train_dataset=items)
        trainer.log = lambda logs, *_: trainer.state.log_history.append(logs)  # without printing
        trainer.train()
        return [line["loss"] for line in trainer.state.log_history if "loss" in line]


if __name__ == "__main__":
    main(compare, n=64, check=BATCH, unit="rows")
