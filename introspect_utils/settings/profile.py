"""Settings of a profile: `params/*.yaml` as frozen dataclasses, checked whole before anything runs.

Every setting of a task stands in every file: there are no defaults and no merging, so a profile
file says all there is to say. A task's section may be left out whole, and then the task is not run;
so may `published`, and then data are made here. A new setting is a field here and a line in each
file.

A file has one list of explainers x conditions a task, all trained alike. Where explainers are
trained differently, as the paper's are, each way has a file of its own, as whole as the first:
`params/paper/*.yaml` are the parts of `params/paper.yaml`. Their runs are runs of the profile
`paper`, and lie in its folders.
"""

import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml

from introspect_utils.settings.errors import UserError
from introspect_utils.settings.paths import REPO
from introspect_utils.settings.reading import UniqueKeys, nearest, read_dataclass


def model_name(value: str) -> str | None:
    """What is wrong with `value` as the name of a model; a hub id or a folder (with a slash) is
    taken as it is."""
    from introspect_utils.settings.names import MODELS

    return (
        None
        if value in MODELS or "/" in value
        else f"no model is called {value!r}; {nearest(value, list(MODELS))}"
    )


def explainer_name(value: str) -> str | None:
    """What is wrong with `value` as an explainer: the target ("self"), a variant of it (rotated,
    sibling@0.5) or a model."""
    from introspect_utils.settings.names import VARIANTS

    kind, at, share = value.partition("@")
    if kind not in VARIANTS:
        return model_name(value)
    fits = not at or (kind != "self" and re.fullmatch(r"0\.\d*[1-9]", share))
    return (
        None
        if fits
        else f"got {value!r}; after the @ of sibling or rotated stands a share between 0 and 1, as in {kind}@0.5"
    )


def facts_source(value: str) -> str | None:
    """What is wrong with `value` as the place of the facts."""
    sources = "give 'packaged', a CounterFact .json file, or a hub id such as owner/name"
    if value.endswith(".json") and not Path(value).is_file():
        return f"there is no file {value}"
    return (
        None
        if value == "packaged" or value.endswith(".json") or "/" in value
        else f"got {value!r}; {sources}"
    )


def hint_wording(value: str) -> str | None:
    """What is wrong with `value` as the wording of a hint."""
    return (
        None
        if value.count("{}") == 1
        else f"must hold {{}} once, where the letter goes, got {value!r}"
    )


def dictionary_source(value: str) -> str | None:
    """What is wrong with `value` as the sparse dictionaries: trained here, or released ones that
    SAELens knows."""
    fits = value == "trained" or (value.count("/") and value.count("{}") == 1)
    return (
        None
        if fits
        else f"got {value!r}; give 'trained', or a SAELens release and id, as llama_scope_lxr_32x/l{{}}r_32x"
    )


def hub_or(word: str = ""):
    """What is wrong with a value as a place: a hub id or a folder (with a slash) is taken as it is,
    and so is `word`."""
    given = (
        f"{word!r}, or " * bool(word)
        + "a hub id such as owner/name, or a folder, which has a slash too"
    )
    return lambda value: (
        None if (word and value == word) or "/" in value else f"got {value!r}; give {given}"
    )


def at_least(lowest: float):
    return lambda value: None if value >= lowest else f"must be at least {lowest}, got {value}"


def above_zero(value: float) -> str | None:
    return None if value > 0 else f"must be above 0, got {value}"


def fraction(value: float) -> str | None:
    return None if 0 <= value < 1 else f"must be at least 0 and below 1, got {value}"


Count = Annotated[int, at_least(1)]
Number0 = Annotated[int, at_least(0)]
Published = Annotated[
    str, hub_or()
]  # what the authors published, read in place of data made here (`published_data`)
PROJECTED = (
    "pretrained-projection",
    "capped-projection",
)  # conditions of explainers in another basis than the target's
Condition = Literal["full", "no-vector", "no-layer", "no-token", "untrained", "locate", *PROJECTED]


@dataclass(frozen=True)
class Patching:
    """Section 5.1: which runs, and how the question-answer pairs of T_patch (eq. 4-6) are made."""

    targets: tuple[Annotated[str, model_name], ...]
    explainers: tuple[Annotated[str, explainer_name], ...]
    conditions: tuple[Condition, ...]
    sizes: tuple[Count, ...]  # training rows
    n_test: Count
    facts: Annotated[str, facts_source]
    known_only: bool  # keep the facts that the target answers
    max_facts: Count  # facts the target is asked
    max_pairs: Count  # counterfactual pairs (x, x') searched
    demonstrations: Number0  # solved examples before x in the target's prompt
    options: bool  # list the answer options in the target's prompt (E.2)
    blocks: Count  # layer blocks
    published: Published | None  # rows; left out: they are made here


@dataclass(frozen=True)
class Ablation:
    """Section 5.2: which runs, and how the question-answer pairs of T_input (eq. 7, 8) are made.

    `tuning` and the next three stand in for those of `training`: the paper trains all weights for
    this task, at a lower rate.
    """

    targets: tuple[Annotated[str, model_name], ...]
    explainers: tuple[Annotated[str, explainer_name], ...]
    conditions: tuple[Literal["full", "untrained"], ...]
    sizes: tuple[Count, ...]  # training rows
    n_test: Count
    questions: Annotated[str, hub_or("packaged")]
    max_words: Count  # of a question with its options
    excluded_subjects: tuple[str, ...]
    hints: tuple[
        Annotated[str, hint_wording], ...
    ]  # wordings; of several, the one that changes nearest to half of the answers
    n_tried: Count  # training questions on which the wordings are tried
    answer_prefix: str  # what the target's answer begins with; the letter follows
    calibrated: bool  # take the letters' mean log-probabilities off
    tuning: Literal["lora", "full"]
    learning_rate: Annotated[float, above_zero]
    batch_size: Count
    epochs: Count
    published: Published | None  # rows; left out: they are made here


@dataclass(frozen=True)
class SimulatorSettings:
    """The simulator of eq. 2: a checkpoint, or how one is trained in two stages (section 2.2, after
    Choi et al. 2024)."""

    checkpoint: Annotated[str, hub_or("trained")]
    layers: Count  # of the target, its first ones, that are kept
    lora_r: Count
    learning_rate: Annotated[float, above_zero]
    batch_size: Count  # descriptions a step, each with all its exemplars
    steps_random: Count  # first stage: a random candidate for each direction
    steps_best: Number0  # second: the candidate that the simulator of the first stage scores best
    compute_dtype: Literal["auto", "float32", "bfloat16"]
    scored: Count  # candidates of a direction that it scores: the best of the pre-ranking
    schedule: ClassVar[str] = "constant"  # whatever that of the explainers


@dataclass(frozen=True)
class Features:
    """Sections 2.2 and 3: which runs, and how directions, exemplars and descriptions (T_feat, eq.
    2) are made."""

    targets: tuple[Annotated[str, model_name], ...]
    explainers: tuple[Annotated[str, explainer_name], ...]
    conditions: tuple[
        Literal["full", "untrained", "lora", *PROJECTED], ...
    ]  # lora: `full`, beside one whose tuning is full
    sizes: tuple[Count, ...]  # training directions, of all layers together
    n_test: Count  # held-out SAE features of each layer
    n_act: Count  # full activations of each layer, and as many activation differences
    act_center: bool  # take the layer's mean residual off the full activations
    text: Annotated[str, hub_or("packaged")]
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
    selfie_scales: tuple[Annotated[float, above_zero], ...]
    prompt: Literal["chat", "base"]  # in place of that under explainer
    tuning: Literal["lora", "full"]  # this and the next three stand in for those of `training`
    learning_rate: Annotated[float, above_zero]
    batch_size: Count
    epochs: Count
    published: (
        Published | None
    )  # the folder with the authors' archives, unpacked; left out: directions are made here


@dataclass(frozen=True)
class Variants:
    """Explainers made from the target (`introspect_utils.explainer.variants`), and the projections
    fitted before training (section 3.1)."""

    text: Annotated[str, hub_or("packaged")]
    context: Count  # tokens
    rotation_seed: Number0
    # in which the sibling is trained further, on text that the target's corpus leaves out
    sibling_steps: Count
    sibling_batch_size: Count  # contexts
    sibling_learning_rate: Annotated[float, above_zero]
    aligned_contexts: Count  # contexts that a pre-trained projection is fitted on


@dataclass(frozen=True)
class ExplainerSettings:
    """How a vector enters an explainer as a continuous token, and how questions are worded."""

    vector_center: bool  # take the mean of the training vectors of the same layers off first
    vector_scale: Literal[
        "raw", "embedding", "residual"
    ]  # to the norm of embeddings, of the explainer's residual stream
    projection: Literal["when-needed", "always"]
    projection_rank: Number0  # 0: trained in full
    prompt: Literal["chat", "base"]


HOW = (
    "checkpoint_steps",
    "processes",
    "sharded",
    "gradient_checkpointing",
    "log_with",
)  # of Training: they change no result


@dataclass(frozen=True)
class Training:
    tuning: Literal["lora", "full"]
    compute_dtype: Literal[
        "auto", "float32", "bfloat16"
    ]  # of the products; what is trained stays in float32
    lora_r: Count
    lora_alpha: Count
    lora_dropout: Annotated[float, fraction]
    learning_rate: Annotated[float, above_zero]
    schedule: Literal["constant", "linear"]  # linear: from the learning rate down to zero
    batch_size: Count
    epochs: Count
    weight_decay: Annotated[float, at_least(0)]
    max_grad_norm: Annotated[float, above_zero]
    checkpoint_steps: Count
    processes: Count = field(
        repr=False
    )  # that train together, each on its GPU and its share of every batch
    sharded: bool = field(
        repr=False
    )  # FSDP: weights, gradients and moments are divided among them, not copied (DDP)
    gradient_checkpointing: bool = field(repr=False)
    log_with: Literal["none", "tensorboard", "wandb"] = field(repr=False)
    loss: ClassVar[str] = "tokens"  # eq. 1 is a mean over the tokens of the explanations
    weights: ClassVar[str] = "float32"  # in which the model's weights that are trained are kept
    order: ClassVar[str] = "shuffled"  # of the rows; as_released.py has the authors' ways

    def deciding(self) -> dict:
        """The settings that the result of a training depends on."""
        return {name: value for name, value in asdict(self).items() if name not in HOW}


@dataclass(frozen=True)
class Generation:
    batch_size: Count
    max_new_tokens: Count


@dataclass(frozen=True)
class Section:
    """The settings of a task of your own (README, "A task")."""

    targets: tuple[Annotated[str, model_name], ...]
    explainers: tuple[Annotated[str, explainer_name], ...]
    conditions: tuple[Condition, ...]
    sizes: tuple[Count, ...]  # training rows
    n_test: Count
    prompt: Literal["chat", "base"] | None  # these five stand in for those under explainer and
    tuning: Literal["lora", "full"] | None  # training
    learning_rate: Annotated[float, above_zero] | None
    batch_size: Count | None
    epochs: Count | None
    published: Published | None
    options: dict[str, Any] | None  # its own


SECTIONS = ("features", "patching", "ablation")


@dataclass(frozen=True)
class Profile:
    # the file's stem, of a part its folder's; names the folders under artifacts/ and figures/
    name: str
    # what `load_profile` finds this file by: mini, paper/qwen, or the path of a file outside
    # params/
    source: str
    parts: tuple["Profile", ...]
    as_released: bool  # as in the authors' code (as_released.py)
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "float32", "bfloat16"]
    seeds: tuple[Number0, ...]
    features: Features | None  # a task that the file leaves out is not run
    patching: Patching | None
    explainer: ExplainerSettings
    training: Training
    generation: Generation
    ablation: Ablation | None
    joint: bool  # train one self-explainer on all tasks at once, too
    variants: Variants
    tasks: dict[str, Section] | None  # of tasks beside the three above

    def section(self, task: str) -> Any:
        """The settings of a task; None if the profile leaves it out."""
        return getattr(self, task) if task in SECTIONS else (self.tasks or {}).get(task)

    def explainer_for(self, task: str) -> ExplainerSettings:
        """The explainer's settings for a task: `explainer`, with the prompt that the section, if
        there is one, has of its own."""
        capped = self.as_released and self.training_for(task).tuning == "lora"
        rank = self.training.lora_r if capped else self.explainer.projection_rank
        prompt = getattr(self.section(task), "prompt", None) or self.explainer.prompt
        return replace(self.explainer, prompt=prompt, projection_rank=rank)

    def training_for(self, task: str) -> Training:
        """The training settings of a task, or of the "simulator": `training`, with what the
        section, if any, has of its own."""
        section = self.features.simulator if task == "simulator" else self.section(task)
        own = {f.name: getattr(section, f.name, None) for f in fields(Training)}
        return replace(self.training, **{k: v for k, v in own.items() if v is not None})


def load_profile(name_or_path: str | Path) -> Profile:
    """The profile `params/<name>.yaml` with its parts, one of the parts ("paper/qwen"), or the
    profile in a .yaml file.

    Raises `UserError` naming every mistake in it.
    """
    from introspect_utils.settings.as_released import as_released

    text, params = str(name_or_path), REPO / "params"
    files = sorted([*params.glob("*.yaml"), *params.glob("*/*.yaml")])
    known = {path.relative_to(params).with_suffix("").as_posix(): path for path in files}
    path = Path(text).resolve() if text.endswith((".yaml", ".yml")) else known.get(text)
    if path is None:
        raise UserError(f"there is no profile {text!r}; {nearest(text, list(known))}")
    source = next((name for name, file in known.items() if file == path), str(path))
    if source not in known and path.stem in known:
        raise UserError(
            f"{path} has the name of a profile in params/, whose results it would overwrite; "
            "rename the file"
        )
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise UserError(
            f"{path}: a profile's file name may hold letters, digits, '.', '_' and '-' only; it "
            "names folders"
        )
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeys)
    except OSError as error:
        raise UserError(f"cannot read the profile {path}: {error.strerror}") from None
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as error:  # no UTF-8, an impossible date; nested without end
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    mistakes: list[str] = []
    name = source.partition("/")[0] if source in known else path.stem
    parts = tuple(load_profile(part) for part in known if part.startswith(f"{source}/"))
    profile = read_dataclass(Profile, settings, "", mistakes, name=name, source=source, parts=parts)
    if mistakes:
        raise UserError(
            f"{path}: "
            + (mistakes[0] if len(mistakes) == 1 else "".join(f"\n  {line}" for line in mistakes))
        )
    return as_released(profile) if profile.as_released else profile
