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
from introspect_utils.settings.sections import Features
from introspect_utils.tasks import TASKS

PEAK, READING, WRITING = 989e12, 0.4, 0.05  # FLOP/s of an H100 SXM in bfloat16; shares of it
BIG = 1e9  # models below it need no GPU, and are not estimated
LORA = 3.3e-4  # parameters of a LoRA on all linear layers over rank x those of an 8B Llama
ACTIVATIONS, CHECKPOINTED = 7e-4, 0.1  # bytes a token and parameter; the share that is kept
WIDTH = 4096  # of a residual stream
DESCRIPTION = 20  # tokens; of a pair of statements patched at every position, for each block:
PATCHED, HINTED = 500, 512  # and of a question with a hint and without
PRICES = {"gpt-4.1-mini": (0.40, 1.60)}  # US dollars for a million tokens to and from
ASKED, ANSWERED = 330, 15  # tokens to and from a chat model that describes, beside five contexts
ADAPTER, ARCHIVE, TEXT = 3.2e9, 26.9e9, 3000  # bytes: a published LoRA, the archive, a text
TRAIN = {task.train: task for task in TASKS.values()}
BESIDE = {"05_train_features": 1, "10_similarity": 1, "13_ask_the_explainer": 3}  # models
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
    hours = flops / (READING * PEAK) / 3600
    return Estimate(hours, held, 8 * trained, 16 * trained, gpus=gpus)


def estimate(profile: Profile, run: Run) -> Estimate | None:
    """What `run` will take; None if it runs no model, small or unknown ones, or several tasks."""
    asked, file = run.parameters, file_of(profile, run)
    target = asked.get("target", "")
    compared = [name for name, _ in run.settings.get("compared", ())]
    m = size(target)
    n = max(size(name, target) for name in compared or [asked.get("explainer", target)])
    small = profile_of(profile.source) or math.isnan(m + n) or max(m, n) < BIG
    if run.notebook in LEFT_OUT or small:  # a rehearsal has stand-ins for the big ones
        return None
    made, (read, written) = _training(file, run, m, n), _tokens(file, run)
    seconds = 2 * n * (read / READING + written / WRITING) / PEAK
    disk, dollars = _data(file, run)
    memory = max(made.memory, 2.2 * n) + 2.2 * m * BESIDE.get(run.notebook, 0)
    memory = 0.0 if run.notebook == PUBLISHED else memory
    hours = made.hours + seconds / 3600
    return Estimate(hours, memory, made.disk + disk, made.scratch, dollars, made.gpus)


def _training(file: Profile, run: Run, m: float, n: float) -> Estimate:
    """What a run's training takes, if it trains."""
    f = file.features
    if run.notebook in TRAIN and run.settings["training"]:
        settings = vars(file.training) | run.settings["training"]
        return training(settings, n, run.parameters["n_train"], TRAIN[run.notebook].row_tokens)
    if run.notebook != "04_simulator" or f.simulator.checkpoint != "trained":
        return Estimate()
    batch = f.simulator.batch_size * (f.n_top + f.n_random)
    rows = (f.simulator.steps_random + f.simulator.steps_best) * batch
    own = {"tuning": "lora", "epochs": 1, "processes": 1, "batch_size": batch}
    settings = vars(file.training_for("simulator")) | own
    return training(settings, m, rows, f.context + DESCRIPTION)


def _tokens(file: Profile, run: Run) -> tuple[float, float]:
    """Tokens that a run reads and writes beside its training."""
    f, task = file.features, TRAIN.get(run.notebook)
    tested = (f.n_test + 2 * f.n_act) * len(f.layers) if f else 0
    if task:
        rows = tested if task.simulated else file.section(task.name).n_test
        rows *= 1 + len(task.controls) * (run.parameters["condition"] == "full")
        read = rows * (task.row_tokens + (_scored(f) if task.simulated else 0))
        return read, rows * file.generation.max_new_tokens
    match run.notebook:
        case "01_data_features":  # exemplars and dictionaries take twice as long as reading
            return 3 * f.n_contexts * f.context, 0
        case "02_data_activation_patching":
            return 0, PATCHED * file.patching.max_pairs * file.patching.blocks
        case "03_data_input_ablation":
            return HINTED * (max(file.ablation.sizes) + file.ablation.n_test), 0
        case "04_simulator":
            return f.simulator.scored * _described(f) * _scored(f), 0
        case "08_baselines":
            return (7 + len(f.selfie_scales)) * tested * _scored(f), 0
        case "10_similarity":
            contexts = file.variants.aligned_contexts + f.n_test * len(f.layers) * f.n_top
            return contexts * f.context * len(run.settings["compared"]), 0
        case "13_ask_the_explainer":
            return 0, file.generation.max_new_tokens
    return 0, 0


def _scored(f: Features) -> float:
    """Tokens that the simulator reads to score a description, on half of the exemplars."""
    return (f.n_top + f.n_random) / 2 * (f.context + DESCRIPTION)


def _described(f: Features) -> float:
    """Features that get a description: a tenth more than are trained on, and those of the test."""
    return 1.1 * max(f.sizes) + f.n_test * len(f.layers)


def _data(file: Profile, run: Run) -> tuple[float, float]:
    """Bytes of data that a run leaves, and US dollars for a chat model that describes features."""
    f = file.features
    if run.notebook == PUBLISHED:
        simulated = TASKS[run.parameters["task"]].simulated
        return ARCHIVE if simulated else sum(downloads(file, run).values()), 0.0
    if run.notebook != "01_data_features":
        return 0.0, 0.0
    to, back = PRICES.get(f.chat_model, (math.nan, math.nan))
    each = ((ASKED + 5 * f.context) * to + ANSWERED * back) / 1e6
    dollars = f.candidates * _described(f) * each if f.descriptions == "chat" else 0.0
    return 2 * WIDTH * f.n_contexts * f.context * len(f.layers), dollars


def machine_memory(made: Estimate) -> float:
    """Bytes of memory beside the GPUs: one and a half times theirs."""
    return 1.5 * made.gpus * made.memory


def resources(profile: Profile, run: Run) -> dict[str, int]:
    """What a cluster is asked for: GPUs, the machine's memory in MB, minutes (twice the time).
    Nothing for a run that is not estimated."""
    made = estimate(profile, run)
    if made is None or not made.memory:
        return {}
    memory = round(machine_memory(made) / 1e6)
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
