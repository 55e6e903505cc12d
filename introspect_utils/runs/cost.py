"""What runs take by estimate: hours of an H100, GPU memory, disk, downloads and US dollars. None of
it has been measured: it tells an hour from a week.

FLOPs a token and parameter: 2 to read or write, 6 to train all weights, 4 to train a LoRA, 2 more
with gradient checkpointing. Bytes a parameter on each GPU: 2.2 to read; trained in full 16, float32
weights, gradients and AdamW's moments; with a LoRA 2, and 16 for each of its own. Bytes on disk for
each trained parameter: 8, and 16 more while it trains.
"""

import math
from dataclasses import dataclass

from introspect_utils.explainer.published import is_published, trained_from
from introspect_utils.runs.run import PUBLISHED, Run
from introspect_utils.settings.names import MODELS, VARIANTS, variant
from introspect_utils.settings.profile import Profile
from introspect_utils.settings.rehearsal import profile_of
from introspect_utils.tasks import TASKS, task_ablation

PEAK, READING, WRITING = 989e12, 0.4, 0.05  # FLOP/s of an H100 SXM in bfloat16; shares of it
BIG = 1e9  # models below it need no GPU, and are not estimated
LORA = 3.3e-4  # parameters of a LoRA on all linear layers over rank x those of an 8B Llama
ACTIVATIONS, CHECKPOINTED = 7e-4, 0.1  # bytes a token and parameter; the share that is kept
WIDTH = 4096  # of a residual stream
DESCRIPTION, SELFIE = 20, 70  # tokens of a description; of SelfIE's prompt and answer
STATEMENT, PATCHED = 40, 30  # tokens of a prompt of patching; its positions that are patched
JUDGED, WRITTEN = (290, 1), (330, 15)  # tokens to and from the chat model; to describe, 5 excerpts
PRICES = {"gpt-4.1-mini": (0.40, 1.60)}  # US dollars for a million tokens to and from
ADAPTER, ARCHIVE, TEXT = 3.2e9, 26.9e9, 3000  # bytes: a published LoRA, the archive, a text
TRAIN = {task.train: task for task in TASKS.values()}
LEFT_OUT = ("09_scaling", "11_error_analysis", "12_tables_and_figures", "14_joint_training")


@dataclass(frozen=True)
class Estimate:
    hours: float = 0.0
    memory: float = 0.0  # bytes on each GPU
    disk: float = 0.0  # bytes that stay
    scratch: float = 0.0  # bytes more while it runs
    dollars: float = 0.0
    gpus: int = 1


def size(name: str, target: str = "") -> float:
    """Parameters of a target, or of an explainer of `target`; nan if they are not known."""
    name = target if variant(name)[0] in VARIANTS else trained_from(name) or name
    return MODELS[name].parameters if name in MODELS else math.nan


def file_of(profile: Profile, run: Run) -> Profile:
    """The file of the profile whose run it is."""
    files = (profile, *profile.parts)
    return next(file for file in files if file.source == run.parameters["profile"])


def training(settings: dict, n: float, rows: int, tokens: int) -> Estimate:
    """Training a model of `n` parameters on `rows` examples of `tokens` tokens (`Training`)."""
    full, gpus = settings["tuning"] == "full", settings["processes"]
    again, batch = settings["gradient_checkpointing"], settings["batch_size"] * tokens
    trained = n if full else LORA * settings["lora_r"] * n
    flops = ((6 if full else 4) + 2 * again) * n * rows * tokens * settings["epochs"]
    held = (16 * n if full else 2 * n + 16 * trained) / (gpus if settings["sharded"] else 1)
    held += ACTIVATIONS * (CHECKPOINTED if again else 1) * n * batch / gpus
    scratch = 16 * trained + 2 * n * (gpus > 1)  # the model is handed over as a file
    return Estimate(flops / (READING * PEAK) / 3600, held, 8 * trained, scratch, gpus=gpus)


def estimate(profile: Profile, run: Run) -> Estimate | None:
    """What `run` will take; None if it runs no model, small or unknown ones, or several tasks."""
    asked, file = run.parameters, file_of(profile, run)
    target = asked.get("target", "")
    m, n = size(target), size(asked.get("explainer", target), target)
    small = profile_of(profile.source) or math.isnan(m + n) or max(m, n) < BIG
    if run.notebook in LEFT_OUT or small:  # a rehearsal has stand-ins for the big ones
        return None
    made = _training(file, run, m, n)
    read, written, disk, calls, others = _work(file, run, m, n)
    flops = 2 * (read / READING + written / WRITING)
    prices = PRICES.get(file.features.chat_model if file.features else "", (math.nan, math.nan))
    dollars = sum(tokens * price for tokens, price in zip(calls, prices, strict=True)) / 1e6
    return Estimate(
        made.hours + flops / PEAK / 3600,
        0.0 if run.notebook == PUBLISHED else max(made.memory, 2.2 * n) + others,
        made.disk + disk,
        made.scratch,
        dollars if any(calls) else 0.0,
        made.gpus,
    )


def _training(file: Profile, run: Run, m: float, n: float) -> Estimate:
    """What a run's training takes, if it trains."""
    f = file.features
    if run.notebook in TRAIN and run.settings["training"]:
        settings = vars(file.training) | run.settings["training"]
        tokens = TRAIN[run.notebook].row_tokens
        return training(settings, n, run.parameters["n_train"], tokens)
    if run.notebook == "04_simulator" and f.simulator.checkpoint == "trained":
        exemplars = f.n_top + f.n_random
        batch = f.simulator.batch_size * exemplars
        rows = (f.simulator.steps_random + f.simulator.steps_best) * batch
        own = {"tuning": "lora", "epochs": 1, "processes": 1, "batch_size": batch}
        settings = vars(file.training_for("simulator")) | own
        return training(settings, m, rows, f.context + DESCRIPTION)
    return Estimate()


def _work(file: Profile, run: Run, m: float, n: float) -> tuple:
    """(read, written: parameters x tokens; disk: bytes; tokens to and from the chat model; bytes of
    models beside the run's own). `m` parameters of the target, `n` of the explainer."""
    read = written = disk = others = 0.0
    calls, f, new = (0, 0), file.features, file.generation.max_new_tokens
    if f:
        layers, exemplars = len(f.layers), f.n_top + f.n_random
        tested = (f.n_test + 2 * f.n_act) * layers
        described = round(1.1 * max(f.sizes)) + f.n_test * layers  # a tenth more than trained on
        scored = exemplars / 2 * (f.context + DESCRIPTION)  # tokens: half of the exemplars
        judged = [f.n_test * layers * tokens * (f.judge == "openai") for tokens in JUDGED]
    match run.notebook:
        case "01_data_features":
            tokens = round(1.05 * f.n_contexts) * f.context  # a twentieth is held out
            read = tokens * (m + WIDTH * (f.d_sae * layers + described))
            read += 6 * WIDTH * layers * f.d_sae * f.n_samples * (f.dictionaries == "trained")
            disk = 2 * tokens * WIDTH * layers + 4 * described * (WIDTH + exemplars * f.context)
            texts = f.candidates * described * (f.descriptions == "chat")
            calls = (texts * (WRITTEN[0] + 5 * f.context), texts * WRITTEN[1])
        case "02_data_activation_patching":
            s = file.patching
            read = m * STATEMENT * (2 * s.max_pairs + s.max_facts * s.known_only)
            written = m * s.max_pairs * s.blocks * (PATCHED**2 // 2)  # what is behind, each time
            disk = 4 * WIDTH * (max(s.sizes) + s.n_test)
        case "03_data_input_ablation":
            rows = max(file.ablation.sizes) + file.ablation.n_test
            read = m * 2 * rows * task_ablation.TASK.row_tokens
        case "04_simulator":
            read = m * f.simulator.scored * described * scored
        case "08_baselines":
            largest = run.parameters["n_train"] == max(f.sizes)
            sets, scales = (7, len(f.selfie_scales)) if largest else (5, 0)
            read, written = m * (sets + scales) * tested * scored, m * SELFIE * scales * tested
            calls = tuple(sets * tokens for tokens in judged)
        case "10_similarity":
            tokens = file.variants.aligned_contexts * file.variants.context
            tokens += f.n_test * layers * f.n_top * f.context
            sizes = [size(name, run.parameters["target"]) for name, _ in run.settings["compared"]]
            read, others = sum((m + size) * tokens for size in sizes), 2.2 * max(sizes)
        case "13_ask_the_explainer":  # the target, two explainers and the simulator
            written, others = m * new, 3 * 2.2 * m
        case notebook if notebook == PUBLISHED and TASKS[run.parameters["task"]].simulated:
            disk = ARCHIVE + 4 * WIDTH * (max(f.sizes) + tested)
        case notebook if notebook == PUBLISHED:
            disk = sum(downloads(file, run).values())
        case notebook if notebook in TRAIN:
            task = TRAIN[notebook]
            rows = tested if task.simulated else file.section(task.name).n_test
            times = 1 + len(task.controls) * (run.parameters["condition"] == "full")
            read, written = n * times * rows * task.row_tokens, n * times * rows * new
            if task.simulated:
                read += m * times * rows * scored
                others, calls = 2 * m, tuple(times * tokens for tokens in judged)
    return read, written, disk, calls, others


def resources(profile: Profile, run: Run) -> dict[str, int]:
    """What a cluster is asked for: GPUs, the machine's memory in MB (one and a half times that of
    the GPUs), minutes (twice the time). Nothing for a run that is not estimated."""
    made = estimate(profile, run)
    if made is None or not made.memory:
        return {}
    memory = round(1.5 * made.gpus * made.memory / 1e6)
    return {"gpu": made.gpus, "mem_mb": memory, "runtime": round(30 + 120 * made.hours / made.gpus)}


def downloads(profile: Profile, run: Run) -> dict[str, float]:
    """{name: bytes} of what `run` reads from the hub: weights at 2 bytes a parameter, dictionaries
    at 4, texts, rows."""
    if profile_of(profile.source):
        return {}
    file = file_of(profile, run)
    task, target, explainer = (run.parameters.get(k, "") for k in ("task", "target", "explainer"))
    if run.notebook == PUBLISHED:
        section, row_bytes = file.section(task), TASKS[task].published_row_bytes
        rows = max(section.sizes) + section.n_test
        return {section.published: row_bytes * rows} if row_bytes else {}
    adapts = is_published(explainer) and TRAIN[run.notebook].published_adapters
    base = trained_from(explainer) if adapts else explainer
    models = [MODELS[name] for name in (target, base) if name in MODELS]
    needed = {model.hub: 2 * model.parameters for model in models if model.hub}
    if is_published(explainer):
        needed[explainer] = ADAPTER if adapts else 2 * size(explainer, target)
    f, simulated = file.features, ("04_simulator", "05_train_features", "08_baselines")
    if run.notebook == "01_data_features":
        if f.dictionaries != "trained":
            needed[f.dictionaries.split("/")[0]] = 4 * 2 * WIDTH * f.d_sae * len(f.layers)
        if f.text != "packaged":
            needed[f.text] = TEXT * f.n_contexts
    elif run.notebook in simulated and f.simulator.checkpoint != "trained":
        needed[f.simulator.checkpoint] = 2 * size(target)
    return needed
