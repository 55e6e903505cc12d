"""The sections of a profile as frozen dataclasses.

A new setting is a field here and a line in each profile of params/. An annotation beside a type is
a check: it returns what is wrong with the value, or None.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from introspect_utils.settings.names import explainer_name, model_name


def must(fits: Callable[[Any], bool], message: str):
    """A check: `message`, VALUE in it replaced, for a value that does not fit."""
    return lambda value: None if fits(value) else message.replace("VALUE", repr(value))


def at_least(lowest: float):
    return must(lambda value: value >= lowest, f"must be at least {lowest}, got VALUE")


def place(*words: str):
    """One of `words`, a hub id or a folder."""
    given = "".join(f"{word!r}, or " for word in words) + "a hub id such as owner/name or a folder"
    return must(lambda value: value in words or "/" in value, f"got VALUE; give {given}")


def facts_source(value: str) -> str | None:
    if value.endswith((".json", ".jsonl")):
        return None if Path(value).is_file() else f"there is no file {value}"
    given = "'packaged', a CounterFact .json or .jsonl file, or a hub id such as owner/name"
    return None if value == "packaged" or "/" in value else f"got {value!r}; give {given}"


dictionary_source = must(
    lambda v: v == "trained" or ("/" in v and v.count("{}") == 1),
    "got VALUE; give 'trained', or a SAELens release and id, as llama_scope_lxr_32x/l{}r_32x",
)
wording = must(lambda v: v.count("{}") == 1, "must hold {} once, where the letter goes, got VALUE")
Count = Annotated[int, at_least(1)]
Number0 = Annotated[int, at_least(0)]
Rate = Annotated[float, must(lambda value: value > 0, "must be above 0, got VALUE")]
Share = Annotated[float, must(lambda x: 0 <= x < 1, "must be at least 0 and below 1, got VALUE")]
Text = Annotated[str, place("packaged")]
Tuning = Literal["lora", "full"]
Dtype = Literal["auto", "float32", "bfloat16"]
# Conditions of explainers in another basis than the target's.
PROJECTED = ("pretrained-projection", "capped-projection")
# Conditions that say how the projection of any explainer starts, or that nothing else is trained.
STARTED = ("random-projection", "identity-projection", "frozen", "frozen-scale")
ABLATED = ("no-vector", "no-layer", "no-token", "locate")
Condition = Literal["full", *ABLATED, "untrained", "few-shot", *PROJECTED, *STARTED]
# how explainers are asked (tasks/prompts.yaml)
Form = Literal["chat", "base", "authors-base", "authors-llama", "authors-qwen"]


@dataclass(frozen=True)
class Section:
    """The settings of every task: which of its runs there are, and how its explainers are trained
    if that differs from `explainer` and `training`."""

    targets: tuple[Annotated[str, model_name], ...]
    explainers: tuple[Annotated[str, explainer_name], ...]
    conditions: tuple[Condition, ...]
    sizes: tuple[Count, ...]  # training rows (directions of all layers together)
    n_test: Count  # test rows (held-out SAE features of each layer)
    published: Annotated[str, place()] | None  # what the authors published, in place of own data
    prompt: Form | None
    tuning: Tuning | None
    learning_rate: Rate | None
    batch_size: Count | None
    epochs: Count | None


@dataclass(frozen=True)
class OwnTask(Section):
    """A task of your own (docs/adding.md)."""

    options: dict[str, Any] | None  # whatever its module asks for


@dataclass(frozen=True)
class Patching(Section):
    """Section 5.1: how the question-answer pairs of T_patch (eq. 4-6) are made."""

    facts: Annotated[str, facts_source]
    known_only: bool  # keep the facts that the target answers
    max_facts: Count  # facts the target is asked
    max_pairs: Count  # counterfactual pairs (x, x') searched
    demonstrations: Number0  # solved examples before x in the target's prompt
    options: bool  # list the answer options in the target's prompt (E.2)
    blocks: Count  # layer blocks


@dataclass(frozen=True)
class Ablation(Section):
    """Section 5.2: how the question-answer pairs of T_input (eq. 7, 8) are made."""

    conditions: tuple[Literal["full", "untrained", "few-shot"], ...]
    questions: Text
    max_words: Count  # of a question with its options
    excluded_subjects: tuple[str, ...]
    # Wordings; of several, the one that changes nearest to half of the answers.
    hints: tuple[Annotated[str, wording], ...]
    n_tried: Count  # training questions on which the wordings are tried
    answer_prefix: str  # what the target's answer begins with; the letter follows
    calibrated: bool  # take the letters' mean log-probabilities off


@dataclass(frozen=True)
class SimulatorSettings:
    """The simulator of eq. 2: a checkpoint, or how one is trained in two stages (section 2.2, after
    Choi et al. 2024)."""

    checkpoint: Annotated[str, place("trained")]
    layers: Count  # of the target, its first ones, that are kept
    lora_r: Count
    learning_rate: Rate
    batch_size: Count  # descriptions a step, each with all its exemplars
    steps_random: Count  # first stage: a random candidate for each direction
    steps_best: Number0  # second: the candidate that the simulator of the first stage scores best
    compute_dtype: Dtype
    scored: Count  # candidates of a direction that it scores: the best of the pre-ranking
    schedule: ClassVar[str] = "constant"  # whatever that of the explainers


@dataclass(frozen=True)
class Features(Section):
    """Sections 2.2 and 3: how directions, exemplars and descriptions (T_feat, eq. 2) are made."""

    # "lora" is "full" beside one whose tuning is full.
    conditions: tuple[Literal["full", "no-vector", "untrained", "lora", *PROJECTED, *STARTED], ...]
    n_act: Count  # full activations of each layer, and as many activation differences
    act_center: bool  # take the layer's mean residual off the full activations
    text: Text
    context: Count  # tokens of a context
    n_contexts: Count
    layers: tuple[Number0, ...]
    dictionaries: Annotated[str, dictionary_source]
    d_sae: Count  # features of a dictionary
    k: Count  # of them active at once
    n_samples: Count  # residual vectors a dictionary is trained on
    n_top: Count  # exemplars of a direction: the sequences that activate it most
    n_random: Number0  # and random ones
    descriptions: Literal["rules", "chat"]  # where candidate descriptions come from
    candidates: Count  # of a direction
    simulator: SimulatorSettings
    judge: Literal["embedding", "openai"]
    chat_model: str  # for "chat" and "openai", at OPENAI_BASE_URL with OPENAI_API_KEY
    selfie_scales: tuple[Rate, ...]


@dataclass(frozen=True)
class Variants:
    """Explainers made from the target (`introspect_utils.explainer.variants`), and the projections
    fitted before training (section 3.1)."""

    text: Text
    context: Count  # tokens
    rotation_seed: Number0
    sibling_steps: Count  # in which the sibling is trained further, on text of its own
    sibling_batch_size: Count  # contexts
    sibling_learning_rate: Rate
    aligned_contexts: Count  # contexts that a pre-trained projection is fitted on


@dataclass(frozen=True)
class ExplainerSettings:
    """How a vector enters an explainer as a continuous token, and how questions are worded."""

    vector_center: bool  # take the mean of the training vectors of the same layers off first
    vector_scale: Literal["raw", "embedding", "residual"]  # whose norm it is brought to
    projection: Literal["when-needed", "always", "identity", "frozen", "frozen-scale"]
    projection_rank: Number0  # 0: trained in full
    prompt: Form


# Settings of Training that change no result.
NEUTRAL = ("checkpoint_minutes", "processes", "sharded", "gradient_checkpointing", "log_with")


@dataclass(frozen=True)
class Training:
    tuning: Tuning
    compute_dtype: Dtype  # of the products; what is trained stays in float32
    lora_r: Count
    lora_alpha: Count
    lora_dropout: Share
    learning_rate: Rate
    schedule: Literal["constant", "linear"]  # linear: from the learning rate down to zero
    batch_size: Count
    epochs: Count
    weight_decay: Annotated[float, at_least(0)]
    max_grad_norm: Rate
    checkpoint_minutes: Annotated[float, at_least(0)] = field(repr=False)  # between two
    processes: Count = field(repr=False)  # that train together, each on its GPU and share of rows
    sharded: bool = field(repr=False)  # FSDP: weights and moments divided among them, not copied
    gradient_checkpointing: bool = field(repr=False)
    log_with: Literal["none", "tensorboard", "wandb"] = field(repr=False)
    loss: ClassVar[str] = "tokens"  # eq. 1 is a mean over the tokens of the explanations
    weights: ClassVar[str] = "float32"  # in which the model's weights that are trained are kept
    order: ClassVar[str] = "shuffled"  # of the rows

    def deciding(self) -> dict:
        """The settings that the result of a training depends on."""
        return {name: value for name, value in asdict(self).items() if name not in NEUTRAL}


class AsReleased(Training):
    """Training as in the authors' code, where that is done otherwise here (docs/deviations.md)."""

    loss = "padded"  # a mean over the padded rows: its scale falls with padding
    weights = "bfloat16"  # small updates are rounded away
    order = "file"


@dataclass(frozen=True)
class Generation:
    batch_size: Count
    max_new_tokens: Count


TASK_SECTIONS = ("features", "patching", "ablation")


@dataclass(frozen=True)
class Profile:
    name: (
        str  # of its folders under artifacts/ and figures/: the file's stem, of a part its folder's
    )
    source: str  # what `load_profile` finds this file by: mini, paper/qwen, or a path
    parts: tuple["Profile", ...]
    as_released: bool  # as in the authors' code
    device: Literal["auto", "cpu", "cuda"]
    dtype: Dtype
    seeds: tuple[Number0, ...]
    features: Features | None
    patching: Patching | None
    explainer: ExplainerSettings
    training: Training
    generation: Generation
    ablation: Ablation | None
    joint: bool  # train one self-explainer on all tasks at once, too
    variants: Variants
    tasks: dict[str, OwnTask] | None  # of your own, beside the three above

    def section(self, task: str) -> Any:
        """The settings of a task; None if the profile leaves it out."""
        return getattr(self, task) if task in TASK_SECTIONS else (self.tasks or {}).get(task)

    def explainer_for(self, task: str) -> ExplainerSettings:
        """The explainer's settings for a task: `explainer`, with the prompt of the task's section
        if it has one."""
        capped = self.as_released and self.training_for(task).tuning == "lora"
        rank = self.training.lora_r if capped else self.explainer.projection_rank
        prompt = getattr(self.section(task), "prompt", None) or self.explainer.prompt
        return replace(self.explainer, prompt=prompt, projection_rank=rank)

    def training_for(self, task: str) -> Training:
        """The training settings of a task, or of the "simulator": `training`, with what the
        section has of its own."""
        section = self.features.simulator if task == "simulator" else self.section(task)
        own = {field.name: getattr(section, field.name, None) for field in fields(Training)}
        return replace(self.training, **{k: v for k, v in own.items() if v is not None})
