"""Peak memory of training an explainer with a vocabulary of 262,144 tokens, against transformers'
Trainer with PEFT."""

from dataclasses import replace

from transformers import AutoModelForCausalLM, Gemma3TextConfig

from benchmarks import training
from benchmarks.timing import Comparison, main, peak_memory
from introspect_utils.models.language_model import LanguageModel

GEMMA3_270M = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
}
GEMMA3_270M |= {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256}


def compare(lm: LanguageModel, n: int, shape: dict = GEMMA3_270M) -> Comparison:
    """One step of n rows in a random model of Gemma 3 270M's shape: MB that the process holds at
    most, the model's included."""
    ids = {
        f"{name}_token_id": getattr(lm.tokenizer, f"{name}_token_id")
        for name in ("bos", "eos", "pad")
    }
    model = (
        AutoModelForCausalLM.from_config(Gemma3TextConfig(**shape, **ids))
        .eval()
        .requires_grad_(False)
    )
    lm = LanguageModel("gemma3-270m, random", model, lm.tokenizer)
    rows = training.one_epoch(lm, n, n, peak_memory, target=2)
    peers = [replace(rows.peers[0], n=1)]  # the other would do the same step
    return replace(rows, name="training_memory", unit="step", n=1, peers=peers)


if __name__ == "__main__":
    main(compare, n=16, check=16, unit="rows")
