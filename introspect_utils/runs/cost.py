"""What a run will take: hours on an H100, GPU memory, disk, downloads, and what the chat model
costs.

An estimate, not a measurement: nothing here has been timed. Its use is to tell an hour from a week,
and 20 GB from 200.

hours     FLOPs / (share x `PEAK`) / 3600. FLOPs a token: 6 N to train all N parameters, 4 N to
          train a LoRA (the frozen weights are passed through both ways, and get no gradient of
          their own), 2 N to read, and 2 N more with gradient checkpointing. The share of the peak
          is `READING` where whole sequences are read, trained on or not, and `WRITING` where text
          is written token by token. memory    bytes on each GPU. Trained in full: 16 N, the
          weights, gradients and AdamW's two moments in float32. LoRA: 2 N in bfloat16, and 16 for
          each of `LORA` x rank x N parameters. Sharded, that is divided among the processes. Either
          way `ACTIVATIONS` x N for each token of a process's part of a batch, with gradient
          checkpointing `CHECKPOINTED` of it; and 2 M for the simulator, where there is one (M:
          parameters of the target). At least 2.2 N, to test on one GPU. disk      bytes that stay:
          8 for each trained parameter (the checkpoint, and its twin to resume from). `scratch`: 16
          more while training (the moments, and a second copy while one is written), and the model
          where several processes train it. dollars   tokens sent and received x the price of the
          paper's judge; nan for another chat model, whose price is not known here.

Runs of models below `BIG` parameters, which need no GPU, are not estimated, nor are those of a
model whose size is not known here or of the notebooks that run no model (09, 11, 12).
"""

import math
from dataclasses import dataclass

from introspect_utils.explainer.published import is_published, trained_from
from introspect_utils.runs.run import PUBLISHED, Run
from introspect_utils.settings.names import MODELS, VARIANTS, variant
from introspect_utils.settings.profile import Profile
from introspect_utils.settings.sections import Features
from introspect_utils.tasks import TASKS, task_ablation

PEAK = 989e12  # FLOP/s of an H100 SXM in bfloat16, dense
READING, WRITING = 0.4, 0.05
BIG = 1e9
# parameters of a LoRA on all linear layers over rank x N: of an 8B Llama; a larger model has fewer
LORA = 3.3e-4
ACTIVATIONS = (
    7e-4  # bytes a token and parameter: of an 8B Llama, 34 bytes x width x layers, and the logits
)
CHECKPOINTED = 0.1  # of them: 2 of the 34 bytes, and all of one layer
WIDTH = 4096  # of a residual stream: of Llama-3.1-8B and Qwen3-8B; Gemma-2-9B's is 3584
DESCRIPTION, SELFIE = (
    20,
    70,
)  # tokens: of a description in the simulator's prompt; of SelfIE's prompt and answer
STATEMENT, PATCHED = (
    40,
    30,
)  # tokens of a prompt of patching, and positions of it that are patched (E.2's options included)
JUDGED = (290, 1)  # tokens to and from the chat model for one pair that it judges (A.2)
WRITTEN = (330, 15)  # for one candidate description, besides its five excerpts
SHOWN = 5  # excerpts
ADAPTER = 3.2e9  # bytes of a published LoRA with its embeddings
ARCHIVE = 26.9e9  # of the authors' features
TASK = {task.train: task for task in TASKS.values()}
TEXT = 3000  # bytes of a text of FineWeb


@dataclass(frozen=True)
class Estimate:
    hours: float = 0.0  # of one H100
    memory: float = 0.0  # bytes on each GPU
    disk: float = 0.0  # bytes that stay
    scratch: float = 0.0  # bytes more while it runs
    dollars: float = 0.0
    gpus: int = 1


def size(name: str, target: str) -> float:
    """Parameters of a target, or of an explainer of `target`; nan where they are not known."""
    name = target if variant(name)[0] in VARIANTS else trained_from(name) or name
    return MODELS[name].parameters if name in MODELS else math.nan


def file_of(profile: Profile, run: Run) -> Profile:
    """The file of the profile whose run it is."""
    return next(
        file for file in (profile, *profile.parts) if file.source == run.parameters["profile"]
    )


def estimate(profile: Profile, run: Run) -> Estimate | None:
    """What `run` will take; None where its models are small or of unknown size, or where it has
    none to run."""
    target = run.parameters.get("target")
    sizes = [
        size(name, target) for name in (target, run.parameters.get("explainer", target)) if name
    ]
    if run.notebook not in KINDS or math.isnan(sum(sizes)) or max(sizes) < BIG:
        return None
    return KINDS[run.notebook](file_of(profile, run), run)


def hours(flops: float, share: float) -> float:
    return flops / (share * PEAK) / 3600


def training(settings: dict, n: float, rows: int, tokens: int) -> Estimate:
    """Training a model of `n` parameters on `rows` examples of `tokens` tokens, by its settings
    (`Training`)."""
    full = settings["tuning"] == "full"
    trained = n if full else LORA * settings["lora_r"] * n
    again, gpus = settings["gradient_checkpointing"], settings["processes"]
    flops = ((6 if full else 4) + 2 * again) * n * rows * tokens * settings["epochs"]
    held = (16 * n if full else 2 * n + 16 * trained) / (gpus if settings["sharded"] else 1)
    activations = (
        ACTIVATIONS * (CHECKPOINTED if again else 1) * n * settings["batch_size"] * tokens / gpus
    )
    return Estimate(
        hours(flops, READING),
        held + activations,
        8 * trained,
        16 * trained + 2 * n * (gpus > 1),
        gpus=gpus,
    )


def _scored(wanted: Features, n: int) -> int:
    """Tokens the simulator reads to score `n` descriptions, each on half of its direction's
    exemplars."""
    return n * (wanted.n_top + wanted.n_random) // 2 * (wanted.context + DESCRIPTION)


def _chat(wanted: Features, calls: int, tokens: tuple[float, float]) -> float:
    """US dollars for `calls` of the chat model."""
    from introspect_utils.scores.judge import GPT_4_1_MINI

    price = (
        (GPT_4_1_MINI.price_in, GPT_4_1_MINI.price_out)
        if wanted.chat_model == GPT_4_1_MINI.model
        else (math.nan,) * 2
    )
    return calls * sum(count * of_one for count, of_one in zip(tokens, price, strict=True)) / 1e6


def _judge(wanted: Features, sets: int) -> float:
    """US dollars for judging `sets` descriptions of every held-out SAE feature."""
    return (
        _chat(wanted, sets * wanted.n_test * len(wanted.layers), JUDGED)
        if wanted.judge == "openai"
        else 0.0
    )


def _tested(wanted: Features) -> int:
    return (wanted.n_test + 2 * wanted.n_act) * len(wanted.layers)


def _described(wanted: Features) -> int:
    """Directions that are described: a tenth more than are trained on (notebook 01), and the
    held-out ones."""
    return round(1.1 * max(wanted.sizes)) + wanted.n_test * len(wanted.layers)


def _feature_data(file: Profile, run: Run) -> Estimate:
    wanted, n = file.features, size(run.parameters["target"], "")
    tokens = round(1.05 * wanted.n_contexts) * wanted.context  # a twentieth more is held out
    by_layer = 2 * WIDTH * len(wanted.layers)  # FLOPs for one vector and each token
    flops = tokens * (2 * n + by_layer * (wanted.d_sae + _described(wanted) / len(wanted.layers)))
    if wanted.dictionaries == "trained":
        flops += 6 * by_layer * wanted.d_sae * wanted.n_samples
    exemplars = (wanted.n_top + wanted.n_random) * wanted.context
    disk = 2 * tokens * WIDTH * len(wanted.layers) + 4 * _described(wanted) * (WIDTH + exemplars)
    calls = wanted.candidates * _described(wanted) if wanted.descriptions == "chat" else 0
    dollars = (
        _chat(wanted, calls, (WRITTEN[0] + SHOWN * wanted.context, WRITTEN[1])) if calls else 0.0
    )
    return Estimate(hours(flops, READING), 2.2 * n, disk, 0.0, dollars)


def _published_data(file: Profile, run: Run) -> Estimate:
    """What is fetched stays; of the archive, which is there, a converted copy and the vectors that
    are used."""
    if not TASKS[run.parameters["task"]].simulated:
        return Estimate(disk=sum(downloads(file, run).values()))
    return Estimate(disk=ARCHIVE + 4 * WIDTH * (max(file.features.sizes) + _tested(file.features)))


def _simulator(file: Profile, run: Run) -> Estimate:
    wanted, n = file.features, size(run.parameters["target"], "")
    settings = run.settings["simulator"]
    scoring = hours(2 * n * _scored(wanted, settings["scored"] * _described(wanted)), READING)
    if settings["checkpoint"] != "trained":
        return Estimate(scoring, 2.2 * n)
    exemplars = wanted.n_top + wanted.n_random
    rows = (settings["steps_random"] + settings["steps_best"]) * settings["batch_size"] * exemplars
    each = vars(file.training_for("simulator")) | {"tuning": "lora", "epochs": 1, "processes": 1}
    each["batch_size"] *= exemplars
    trained = training(each, n, rows, wanted.context + DESCRIPTION)
    return Estimate(trained.hours + scoring, trained.memory, trained.disk, trained.scratch)


def _explainer(file: Profile, run: Run) -> Estimate:
    task, target = TASK[run.notebook], run.parameters["target"]
    wanted, n, m = (
        file.section(task.name),
        size(run.parameters["explainer"], target),
        size(target, target),
    )
    settings = run.settings["training"]
    trained = Estimate(memory=2.2 * n)
    if settings:
        trained = training(
            vars(file.training) | settings, n, run.parameters["n_train"], task.row_tokens
        )
    held = max(trained.memory, 2.2 * n)
    asked = 1 + len(task.controls) * (run.parameters["condition"] == "full")
    rows = asked * (_tested(wanted) if task.simulated else wanted.n_test)
    testing = hours(2 * n * rows * file.generation.max_new_tokens, WRITING) + hours(
        2 * n * rows * task.row_tokens, READING
    )
    if not task.simulated:
        return Estimate(
            trained.hours + testing, held, trained.disk, trained.scratch, gpus=trained.gpus
        )
    scoring = hours(2 * m * _scored(wanted, rows), READING)
    dollars = _judge(wanted, asked)
    all_hours = trained.hours + testing + scoring
    return Estimate(all_hours, held + 2 * m, trained.disk, trained.scratch, dollars, trained.gpus)


def _baselines(file: Profile, run: Run) -> Estimate:
    wanted, n = file.features, size(run.parameters["target"], "")
    largest = run.parameters["n_train"] == max(wanted.sizes)
    scales = len(wanted.selfie_scales) if largest else 0
    sets = (
        7 if largest else 5
    )  # four of nearest neighbours, the most frequent; SelfIE's and the gold ones
    selfie = hours(2 * n * SELFIE * scales * _tested(wanted), WRITING)
    scoring = hours(2 * n * _scored(wanted, (sets + scales) * _tested(wanted)), READING)
    return Estimate(selfie + scoring, 2.2 * n, dollars=_judge(wanted, sets))


def _similarity(file: Profile, run: Run) -> Estimate:
    wanted, m = file.features, size(run.parameters["target"], "")
    sizes = [size(name, run.parameters["target"]) for name, _ in run.settings["compared"]]
    aligned = file.variants.aligned_contexts * file.variants.context
    tokens = aligned + wanted.n_test * len(wanted.layers) * wanted.n_top * wanted.context
    return Estimate(
        sum(hours(2 * (m + n) * tokens, READING) for n in sizes), 2.2 * (m + max(sizes))
    )


def _patching_data(file: Profile, run: Run) -> Estimate:
    wanted, n = file.patching, size(run.parameters["target"], "")
    clean = 2 * wanted.max_pairs * STATEMENT + wanted.max_facts * STATEMENT * wanted.known_only
    patched = (
        wanted.max_pairs * wanted.blocks * PATCHED * PATCHED // 2
    )  # what lies behind the position is read anew
    disk = 4 * WIDTH * (max(wanted.sizes) + wanted.n_test)
    return Estimate(hours(2 * n * clean, READING) + hours(2 * n * patched, WRITING), 2.2 * n, disk)


def _ablation_data(file: Profile, run: Run) -> Estimate:
    wanted, n = file.ablation, size(run.parameters["target"], "")
    return Estimate(
        hours(
            2 * n * 2 * (max(wanted.sizes) + wanted.n_test) * task_ablation.TASK.row_tokens, READING
        ),
        2.2 * n,
    )


def _asked(file: Profile, run: Run) -> Estimate:
    """A few answers; the target, two explainers and the simulator lie in memory at once."""
    n = size(run.parameters["target"], "")
    return Estimate(hours(2 * n * file.generation.max_new_tokens, WRITING), 4 * 2.2 * n)


KINDS = {
    PUBLISHED: _published_data,
    "01_data_features": _feature_data,
    "02_data_activation_patching": _patching_data,
    "03_data_input_ablation": _ablation_data,
    "04_simulator": _simulator,
    **dict.fromkeys(TASK, _explainer),
    "08_baselines": _baselines,
    "10_similarity": _similarity,
    "13_ask_the_explainer": _asked,
}


def resources(profile: Profile, run: Run) -> dict[str, int]:
    """What a cluster is asked for: GPUs, the machine's memory in MB, minutes; nothing for a run of
    no model, or not estimated.

    Half as much memory again as on all GPUs, since a process reads its model, and writes
    checkpoints, through it; twice the time.
    """
    made = estimate(profile, run)
    if made is None or not made.memory:
        return {}
    minutes = 30 + 2 * 60 * made.hours / made.gpus
    return {
        "gpu": made.gpus,
        "mem_mb": round(1.5 * made.gpus * made.memory / 1e6),
        "runtime": round(minutes),
    }


def downloads(profile: Profile, run: Run) -> dict[str, float]:
    """{name: bytes} of what `run` reads from the hub: weights at 2 bytes a parameter, dictionaries
    at 4, texts, rows."""
    file = file_of(profile, run)
    task, target, explainer = (
        run.parameters.get(name, "") for name in ("task", "target", "explainer")
    )
    if run.notebook == PUBLISHED:
        section, row_bytes = file.section(task), TASKS[task].published_row_bytes
        rows = max(section.sizes) + section.n_test
        return {section.published: row_bytes * rows} if row_bytes else {}
    adapts = is_published(explainer) and TASK[run.notebook].published_adapters
    names = {
        name
        for name in (target, trained_from(explainer) if adapts else explainer)
        if name in MODELS
    }
    found = {MODELS[name].hub: 2 * MODELS[name].parameters for name in names if MODELS[name].hub}
    if is_published(explainer):
        found[explainer] = ADAPTER if adapts else 2 * size(explainer, target)
    wanted = file.features
    if run.notebook == "01_data_features":
        if wanted.dictionaries != "trained":
            found[wanted.dictionaries.split("/")[0]] = (
                4 * 2 * WIDTH * wanted.d_sae * len(wanted.layers)
            )
        if wanted.text != "packaged":
            found[wanted.text] = TEXT * wanted.n_contexts
    if (
        run.notebook in ("04_simulator", "05_train_features", "08_baselines")
        and wanted.simulator.checkpoint != "trained"
    ):
        found[wanted.simulator.checkpoint] = 2 * size(target, "")
    return found
