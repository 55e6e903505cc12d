"""Simulator scores (eq. 2): predictions for descriptions x sequences, against one sequence at a
time and delphi's form.

delphi (eai-delphi 0.1.3, scorers/simulator/simulation) imports vLLM, so its form is written out
here after its source: a prompt for each sequence, of few-shot examples, the description, and every
token followed by a tab, "unknown" and a line break; the log-probabilities of the whole vocabulary
at all of them; of the 15 likeliest tokens behind each tab, the expected value of those that are
numbers. The few-shot part passes once, as under vLLM's prefix caching, and prompts are batched.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.timing import Comparison, Peer, decoder_macs, main
from introspect_utils.data import text
from introspect_utils.features.exemplars import Exemplars
from introspect_utils.models.contexts import contexts
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import pad_left, positions
from introspect_utils.scores.simulator import PROMPT, VALUES, Simulator
from introspect_utils.scores.simulator_scores import simulate

LAYERS, K, LENGTH, BATCH = (
    12,
    5,
    32,
    16,
)  # as in `small`: layers, sequences of a description, their tokens; descriptions at once
FEW_SHOT = 827  # tokens of delphi's system prompt and three examples, by SmolLM2's tokenizer
DELPHI = (
    "Neuron 4\nExplanation of neuron 4 behavior: the main thing this neuron does is find {}\n"
    "Activations: \n<start>\n"
)
TOP = 15


def compare(lm: LanguageModel, n: int) -> Comparison:
    """n descriptions on five sequences of 32 tokens each, in the first twelve layers of the model.
    The head is random."""
    torch.manual_seed(0)
    simulator = Simulator(lm, lm, min(LAYERS, lm.n_layers)).eval()
    torch.nn.init.normal_(simulator.head.weight)
    texts = text.corpus_texts("packaged", 0)
    corpus = contexts(lm, texts, LENGTH, n * K)
    zeros = torch.zeros(n)
    exemplars = Exemplars(
        corpus, torch.arange(n * K).view(n, K), torch.zeros(n, K, LENGTH), zeros, zeros, K
    )
    said = [" ".join(other.split()[:6]) for other in texts[-n:]]
    few_shot = contexts(lm, [" ".join(texts[:40])], FEW_SHOT, 1)

    def ours() -> Tensor:
        return simulate(simulator, said, exemplars, range(n), BATCH)

    def one_by_one() -> Tensor:
        predicted = [
            simulator.expected([said[row // K]], tokens[None, None])
            for row, tokens in enumerate(corpus)
        ]
        return torch.cat(predicted).view(n, K, LENGTH)

    def same(ours: Tensor, its: Tensor) -> None:
        torch.testing.assert_close(its, ours, rtol=0, atol=2e-3)

    def same_shape(
        ours: Tensor, its: Tensor
    ) -> None:  # another simulator: only the work is the same
        assert its.shape == ours.shape and bool(((its >= 0) & (its < VALUES)).all())

    peers = (
        Peer(
            "delphi's form",
            lambda: delphi(simulator.lm, said, corpus, few_shot),
            n * K,
            10,
            same_shape,
        ),
        Peer("one sequence at a time", one_by_one, n * K, 3, same),
    )
    prompts = sum(len(lm.encode(PROMPT.format(description))) for description in said)
    macs = decoder_macs(simulator.lm, prompts + n * K * LENGTH)
    return Comparison("simulator", "score of a sequence", ours, n * K, peers, macs)


@torch.inference_mode()
def delphi(
    lm: LanguageModel, descriptions: Sequence[str], corpus: Tensor, few_shot: Tensor
) -> Tensor:
    """Expected activations [descriptions, K, LENGTH] in delphi's form, BATCH prompts at once."""
    encode = lambda part: lm.tokenizer(part, add_special_tokens=False)["input_ids"]  # noqa: E731
    tab, unknown = encode("\t"), encode("\tunknown\n")
    digit = torch.full((lm.model.config.vocab_size,), -1.0)
    for value in range(VALUES):
        digit[encode(str(value))[0]] = value
    shared = DynamicCache()
    lm.model(input_ids=few_shot, past_key_values=shared, logits_to_keep=1)
    found = []
    for start in range(0, len(corpus), BATCH):
        rows = range(start, min(start + BATCH, len(corpus)))
        begun = [encode(DELPHI.format(descriptions[row // K])) for row in rows]
        spelt = [[i for token in corpus[row].tolist() for i in (token, *unknown)] for row in rows]
        asked = [begin + tokens for begin, tokens in zip(begun, spelt, strict=True)]
        ids, mask = pad_left(asked, lm.tokenizer.pad_token_id)
        mask = torch.cat([mask.new_ones(len(ids), FEW_SHOT), mask], 1)
        cache = DynamicCache()
        for layer, part in enumerate(shared.layers):
            cache.update(
                part.keys.expand(len(ids), -1, -1, -1),
                part.values.expand(len(ids), -1, -1, -1),
                layer,
            )
        places = positions(mask)[:, FEW_SHOT:]
        logprobs = lm.model(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache
        ).logits.log_softmax(-1)
        at = (
            -len(unknown) * LENGTH - LENGTH + 1 + torch.arange(LENGTH) * (len(unknown) + 1)
        )  # the tabs, counted from the end
        assert len(tab) == 1 and bool((ids[:, at] == tab[0]).all())
        p, tokens = logprobs[:, at].topk(TOP, dim=-1)
        p = p.exp() * (digit[tokens] >= 0)
        found.append((p * digit[tokens].clamp(min=0)).sum(-1) / p.sum(-1).clamp(min=1e-9))
    return torch.cat(found).view(len(descriptions), K, LENGTH)


if __name__ == "__main__":
    main(compare, n=64, check=2, unit="descriptions")
