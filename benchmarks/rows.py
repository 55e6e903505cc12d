"""Examples of the patching task for benchmarks of the explainer: real prompts and lengths, without
the target's runs."""

import random
from dataclasses import replace

import torch

from introspect_utils.data import facts
from introspect_utils.data.prompts import target_prompt
from introspect_utils.explainer.explainer import Explainer
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import token_spans
from introspect_utils.settings.profile import load_profile
from introspect_utils.settings.sections import Training
from introspect_utils.tasks import patching, task_patching
from introspect_utils.tasks.question import Example


def patching_examples(lm: LanguageModel, n: int, seed: int = 0) -> list[Example]:
    """n examples, each about a patch of a pair of its own. Vector and outcome are made up: half of
    the answers change, to the object of x'. They cost what true ones cost.
    """
    rng, everything = random.Random(seed), facts.load_facts("packaged")
    demonstrations = patching.choose_demonstrations(everything, 2, seed)
    v, rows = torch.randn(n, lm.width, generator=torch.Generator().manual_seed(seed)), []
    for i, pair in enumerate(facts.make_pairs(facts.sample_facts(everything, 2500, seed), n, seed)):
        prompt = target_prompt(pair.original, demonstrations[pair.original.relation])
        pieces = patching.pieces(prompt.text, token_spans(lm.tokenizer, prompt.text)[1])
        outcome = {
            "is_different": i % 2 == 0,
            "ablated_continuation": [f" {(pair.counterfactual, pair.original)[i % 2].object}"],
        }
        place = {"orig_text_token": rng.choice(pieces[-8:]), "intervention_vector": v[i].numpy()}
        block = list(rng.choice(patching.layer_blocks(lm.n_layers, 4)))
        rows.append(outcome | {"layer": block, "input_tokens": pieces, "patch_position": place})
    return task_patching.examples(rows, "full", seed)


def untrained_explainer(lm: LanguageModel) -> Explainer:
    """A self-explainer with the settings of `small`."""
    return Explainer(
        lm,
        load_profile("small").explainer_for("patching"),
        lm.width,
        patching.layer_blocks(lm.n_layers, 4),
    )


def training_settings(**changes) -> Training:
    """LoRA as in `small`, in float32 unless `changes` say otherwise."""
    changes = {"compute_dtype": "float32"} | changes
    return replace(load_profile("small").training_for("patching"), **changes)
