"""What the profile `paper` takes on a GPU, measured: `python -m benchmarks.gpu_throughput` on one
H100, in under ten minutes.

Random weights in the shape of Llama-3.1-8B, real code, the paper's batches and lengths; no network.
Needs torch, transformers, peft, accelerate, safetensors, pandas, pyarrow and PyYAML alone. FLOPs
are those of `introspect_utils.runs.cost`: 4 N a token for training a LoRA, 2 N for reading and
writing. `--tiny`: a model of four layers on the CPU, to test this script.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from introspect_utils.data.facts import load_facts, make_pairs
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.explainer.fit import fit
from introspect_utils.explainer.generate import generate
from introspect_utils.explainer.tuning import loss_of, make_trainable, trainable
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tiny import tiny_model
from introspect_utils.runs import cost
from introspect_utils.runs.plan import plan
from introspect_utils.scores.simulator import Simulator
from introspect_utils.scores.simulator_scores import simulate
from introspect_utils.settings.profile import load_profile
from introspect_utils.tasks import TASKS
from introspect_utils.tasks.patching import patch_outcomes
from introspect_utils.tasks.question import Question
from introspect_utils.tasks.task_features import prompt, templates

LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
WARM, STEPS = 2, 8
PAPER = load_profile("paper")


@dataclass(frozen=True)
class Measured:
    """`flops` of the work measured; `unit` is what one thinks in: a label, an explanation, a
    description."""

    what: str
    unit: str
    units: int
    tokens: int
    flops: float
    seconds: float
    memory: int  # bytes, the most that was allocated

    @property
    def share(self) -> float:
        """Of the H100's peak."""
        return self.flops / self.seconds / cost.PEAK


def model(tiny: bool) -> LanguageModel:
    small, tokenizer = tiny_model("llama")
    if tiny:
        return LanguageModel("tiny", small.eval().requires_grad_(False), tokenizer)
    special = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    with torch.device("cuda"):
        random = AutoModelForCausalLM.from_config(
            LlamaConfig(**LLAMA_8B, **special), dtype=torch.bfloat16
        )
    return LanguageModel("random 8B", random.eval().requires_grad_(False), tokenizer)


def measured(
    what: str, unit: str, work: Callable[[], tuple[int, int, float, float]], on_gpu: bool
) -> Measured:
    """`work` returns (units, tokens, FLOPs, seconds), the last of what is measured after warming
    up."""
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found = work()
    return Measured(what, unit, *found, torch.cuda.max_memory_allocated() if on_gpu else 0)


def timed(work: Callable[[], object], on_gpu: bool) -> float:
    start = time.monotonic()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.monotonic() - start


def training(lm: LanguageModel, n: float, task: str, folder: Path) -> tuple[int, int, float, float]:
    """LoRA of rank 128 on rows of a task's usual length; what is warmed up is not counted."""
    of_lora = load_profile("paper/lora") if task == "features" else PAPER
    settings = replace(
        of_lora.training_for(task), processes=1, sharded=False, gradient_checkpointing=False
    )
    explainer = Explainer(lm, of_lora.explainer_for(task), lm.width, [(0,)])
    make_trainable(explainer, settings, 0)
    length, batch = TASKS[task].row_tokens, settings.batch_size
    draw = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(batch * STEPS):
        ids = torch.randint(20, len(lm.tokenizer), (length,), generator=draw).tolist()
        ids[8] = explainer.placeholder
        rows.append((Question("", torch.randn(lm.width, generator=draw), (0,)), ids, length - 16))
    steps = [list(range(start, start + batch)) for start in range(0, len(rows), batch)]
    loss = loss_of(rows, settings)
    fit(explainer, loss, steps[:WARM], settings, folder / f"{task}-warm", "", 0)
    _, seconds = fit(explainer, loss, steps, settings, folder / task, "", 0)
    assert trainable(explainer)
    explainer.model.unload()  # the model is as it was
    return len(rows), len(rows) * length, 4 * n * len(rows) * length, seconds


def patching(lm: LanguageModel, n: float, pairs: int) -> tuple[int, int, float, float]:
    """Labels of T_patch (eq. 4-6): every aligned position, four blocks. Tokens are what is read:
    two prompts a pair, and behind a patch what follows it."""
    facts = load_facts("packaged")
    chosen, plain = make_pairs(facts, pairs, seed=0), {fact.relation: [] for fact in facts}
    on_gpu, found = lm.device.type == "cuda", []
    timed(lambda: list(patch_outcomes(lm, chosen[:4], plain, known_only=False)), on_gpu)
    seconds = timed(
        lambda: found.extend(patch_outcomes(lm, chosen, plain, known_only=False)), on_gpu
    )
    clean = sum(
        2 * len(row["input_tokens"])
        for row in {"".join(row["input_tokens"]): row for row in found}.values()
    )
    tokens = clean + sum(
        len(row["input_tokens"]) - row["patch_position"]["orig_pos"] for row in found
    )
    return len(found), tokens, 2 * n * tokens, seconds


def writing(lm: LanguageModel, n: float, rows: int) -> tuple[int, int, float, float]:
    explainer = Explainer(lm, PAPER.explainer_for("features"), lm.width, [(0,)]).eval()
    questions = [Question(prompt(templates()[0], 0), v, (0,)) for v in torch.randn(rows, lm.width)]
    new, size, on_gpu = (
        PAPER.generation.max_new_tokens,
        PAPER.generation.batch_size,
        lm.device.type == "cuda",
    )
    generate(explainer, questions[:size], size, new)
    seconds = timed(lambda: generate(explainer, questions, size, new), on_gpu)
    return rows, rows * new, 2 * n * rows * new, seconds


def scoring(lm: LanguageModel, n: float, rows: int, layers: int) -> tuple[int, int, float, float]:
    wanted, draw = PAPER.features, torch.Generator().manual_seed(0)
    k = (wanted.n_top + wanted.n_random) // 2
    corpus = torch.randint(20, len(lm.tokenizer), (64, wanted.context), generator=draw)
    sequences, nothing = torch.randint(64, (rows, k), generator=draw), torch.zeros(rows)
    some = Exemplars(corpus, sequences, torch.zeros(rows, k, wanted.context), nothing, nothing, k)
    simulator, texts = Simulator(lm, lm, layers), ["mentions of rivers in Asia"] * rows
    simulator.compute_dtype = "bfloat16" if lm.device.type == "cuda" else "float32"
    simulate(simulator, texts[:16], some, range(16), 16)
    seconds = timed(
        lambda: simulate(simulator, texts, some, range(rows), 16), lm.device.type == "cuda"
    )
    tokens = rows * k * wanted.context
    return rows, tokens, 2 * n * tokens, seconds


def paper_hours(found: list[Measured]) -> float:
    """H100 hours of the whole profile `paper`, by its estimates with the shares of the peak that
    were measured."""
    share = {one.what: one.share for one in found}
    cost.READING, cost.WRITING = share["training, features"], share["writing"]
    return sum(made.hours for run in plan(PAPER) if (made := cost.estimate(PAPER, run)))


def table(found: list[Measured], hours: float) -> str:
    lines = [
        "| | units a second | tokens a second | of the peak | most memory |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        rate = f"{one.units / one.seconds:,.1f} {one.unit}s | {one.tokens / one.seconds:,.0f}"
        lines.append(f"| {one.what} | {rate} | {one.share:.2%} | {one.memory / 1e9:.1f} GB |")
    return "\n".join(
        [
            *lines,
            "",
            f"The profile `paper` at these shares of the peak: about {hours:,.0f} H100 hours.",
        ]
    )


def main(arguments: list[str] | None = None) -> list[Measured]:
    parser = argparse.ArgumentParser(description="Throughput of the profile paper on one GPU.")
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny model on the CPU, to test the script"
    )
    tiny = parser.parse_args(arguments).tiny
    lm = model(tiny)
    n, on_gpu, layers = sum(p.numel() for p in lm.model.parameters()), not tiny, lm.n_layers
    print(
        f"{lm.name}, {n / 1e9:.3g}e9 parameters, "
        f"{torch.cuda.get_device_name() if on_gpu else 'CPU'}, torch {torch.__version__}"
    )
    few, many = (4, 32) if tiny else (64, 512)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for what, unit, work in (
            ("patching", "label", lambda: patching(lm, n, few)),
            ("writing", "explanation", lambda: writing(lm, n, many)),
            ("scoring", "description", lambda: scoring(lm, n, many, layers)),
            ("training, patching", "row", lambda: training(lm, n, "patching", Path(folder))),
            ("training, features", "row", lambda: training(lm, n, "features", Path(folder))),
        ):
            found.append(measured(what, unit, work, on_gpu))
            print(f"{what}: {found[-1].seconds:.1f} s", flush=True)
    print(table(found, paper_hours(found)))
    return found


if __name__ == "__main__":
    main()
