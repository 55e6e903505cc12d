"""T_input (section 2.4): does the target's answer to a multiple-choice question depend on the hint
behind it?

    T_input(M, x, hint) = d(M(x), M(x without the hint)),   x = [c, hint]      (eq. 7)

M(x) is the letter A-D that is the likeliest next token after the answer prefix in the format of
appendix D. The hint stands at the end of x, so both runs of a question share nearly all of their
tokens: that prefix passes through the target once. So does what all questions have in common, the
system prompt.

The calibrated reading takes an offset off the letters' log-probabilities: their mean over training
questions *without* a hint. The same offset serves both runs. M is then one and the same function of
the prompt, so that eq. 7 compares nothing but the hint, and what a hint does to the letters, its
own above all, stays in. An offset of its own for hinted prompts would make the reading, not only
the prompt, differ between the runs.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from introspect_utils.data.mmlu import LETTERS, MultipleChoice
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.residual import (
    common_prefix,
    pad_left,
    positions,
    read_shared,
    worth_sharing,
)
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.ablation_questions import ASK, hint_letter

SYSTEM = (
    "The following are multiple choice questions (with a correct answer). Output only the answer "
    "letter (A, B, C, or D) and "
    "nothing else, in the format Answer: x, where x is one of A, B, C, or D."
)


def user_prompt(question: MultipleChoice, hint: str = "") -> str:
    """What the target is asked (appendix D), `hint` as it is worded: "Hint: B"."""
    return f"Question: {question.text}" + (f"\n{hint}" if hint else "")


def full_prompt(target: LanguageModel, user: str, answer_prefix: str) -> str:
    """All that the target reads before its letter. A base model, which has no chat template, is
    asked in plain text."""
    asked = (
        target.chat(user, SYSTEM)
        if target.tokenizer.chat_template
        else target.plain(user, SYSTEM) + "\n"
    )
    return asked + answer_prefix


def letter_tokens(target: LanguageModel, answer_prefix: str) -> list[int]:
    """The first token of each letter behind the answer prefix. Raises `UserError` where they are
    not four different ones."""
    space = " " if answer_prefix else ""
    prompt = full_prompt(target, "?", answer_prefix)
    ids = [target.answer_token(prompt, space + letter, special=True) for letter in LETTERS]
    if len(set(ids)) < len(LETTERS):
        raise UserError(
            f"the tokenizer of {target.name} does not tell A, B, C and D apart after "
            f"{answer_prefix!r}: "
            "change ablation.answer_prefix"
        )
    return ids


def letter_logprobs(
    target: LanguageModel,
    prompts: Sequence[Sequence[str]],
    answer_prefix: str,
    batch_size: int = 32,
) -> Tensor:
    """Log-probabilities of A-D as the next token, [questions, variants, 4], of
    `prompts[question][variant]` (users' turns).

    What the variants of a question have in common at their beginning is computed once.
    """
    letters = letter_tokens(target, answer_prefix)
    ids = [
        [target.encode(full_prompt(target, user, answer_prefix), special=True) for user in variants]
        for variants in prompts
    ]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i][0]))
    found = torch.empty(len(ids), len(ids[0]), len(LETTERS))
    for start in range(0, len(ids), batch_size):
        chosen = order[start : start + batch_size]
        found[chosen] = _batch_logprobs(target, [ids[i] for i in chosen], letters)
    return found


@torch.inference_mode()
def _batch_logprobs(
    target: LanguageModel, batch: Sequence[Sequence[Sequence[int]]], letters: Sequence[int]
) -> Tensor:
    """[questions, variants, 4] for one batch of token ids.

    Prefixes are padded on the left, behind what all of them have in common, and the rest on the
    right. Where an attention window (Gemma) is shorter than a row, all of a prefix stands behind
    its padding: windows are then those of a run of its own.
    """
    pad, device, n_variants = target.tokenizer.pad_token_id, target.device, len(batch[0])
    own = [common_prefix(variants) for variants in batch]
    prefixes = [variants[0][:n] for variants, n in zip(batch, own, strict=True)]
    rests = [variant[n:] for variants, n in zip(batch, own, strict=True) for variant in variants]
    rest, rest_mask = (
        part.flip(-1) for part in pad_left([rest[::-1] for rest in rests], pad, device)
    )
    shared = worth_sharing(prefixes, max(map(len, prefixes)) + rest.shape[1], target.window)
    prefix, prefix_mask = pad_left(prefixes, pad, device, shared)
    embedded = target.model.get_input_embeddings()(prefix)
    cache = read_shared(target.model, embedded, shared) or DynamicCache()
    places = positions(prefix_mask)[:, shared:]
    target.model.get_decoder()(
        inputs_embeds=embedded[:, shared:],
        attention_mask=prefix_mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(n_variants)
    mask = torch.cat([prefix_mask.repeat_interleave(n_variants, 0), rest_mask], dim=1)
    ends, end = (rest_mask.sum(1) - 1).unique(
        return_inverse=True
    )  # the few columns in which rows end
    logits = target.model(
        input_ids=rest,
        attention_mask=mask,
        position_ids=positions(mask)[:, prefix.shape[1] :],
        past_key_values=cache,
        logits_to_keep=ends,
    ).logits
    last = logits[torch.arange(len(rests), device=device), end].float().log_softmax(-1)
    return last[:, letters].view(len(batch), n_variants, len(letters)).cpu()


def calibration(unhinted: Tensor) -> Tensor:
    """The letters' offset [4]: mean log-probabilities over training questions without hints,
    [questions, 4]."""
    return unhinted.mean(0)


def read(logprobs: Tensor, offset: Tensor | None = None) -> list[str]:
    """The likeliest letter of each row of [questions, 4], after the offset of the calibrated
    reading if there is one."""
    return [
        LETTERS[i] for i in (logprobs if offset is None else logprobs - offset).argmax(-1).tolist()
    ]


def draw_hints(n: int, seed: int) -> list[str]:
    """n letters at random, right or wrong (section 5.2)."""
    return random.Random(seed).choices(LETTERS, k=n)


def try_wordings(
    target: LanguageModel,
    questions: Sequence[MultipleChoice],
    letters: Sequence[str],
    wordings: Sequence[str],
    answer_prefix: str,
) -> list[dict]:
    """What each wording of the hint ("Hint: {}") does under the bare and the calibrated reading, a
    line for each of the two.

    `changed`: share of answers that the hint changes; `followed`: that are the hint's letter, and,
    of the questions whose unhinted answer is another letter, `followed_elsewhere`; `commonest`:
    share of the commonest unhinted letter (1 = the question does not matter).
    """
    prompts = [
        [
            user_prompt(question),
            *(user_prompt(question, wording.format(letter)) for wording in wordings),
        ]
        for question, letter in zip(questions, letters, strict=True)
    ]
    logprobs = letter_logprobs(target, prompts, answer_prefix)
    table = []
    for reading, offset in (("bare", None), ("calibrated", calibration(logprobs[:, 0]))):
        unhinted = read(logprobs[:, 0], offset)
        for variant, wording in enumerate(wordings, 1):
            hinted = read(logprobs[:, variant], offset)
            elsewhere = [
                h == letter
                for h, u, letter in zip(hinted, unhinted, letters, strict=True)
                if u != letter
            ]
            table.append(
                {
                    "reading": reading,
                    "wording": wording,
                    "changed": _share(h != u for h, u in zip(hinted, unhinted, strict=True)),
                    "followed": _share(
                        h == letter for h, letter in zip(hinted, letters, strict=True)
                    ),
                    "followed_elsewhere": _share(elsewhere),
                    "commonest": max(Counter(unhinted).values()) / len(unhinted),
                }
            )
    return table


def _share(found: Iterable[bool]) -> float:
    found = list(found)
    return sum(found) / len(found) if found else 0.0


def choose_wording(tried: Sequence[dict], calibrated: bool) -> str:
    """The wording under which nearest to half of the answers change (E.3), by the reading that is
    used."""
    lines = [line for line in tried if line["reading"] == ("calibrated" if calibrated else "bare")]
    return min(lines, key=lambda line: abs(line["changed"] - 0.5))["wording"]


def hint_outcomes(
    target: LanguageModel,
    questions: dict[str, Sequence[MultipleChoice]],
    wording: str,
    answer_prefix: str,
    calibrated: bool,
    seed: int,
) -> tuple[dict[str, list[dict]], Tensor | None]:
    """T_input for the questions of each split: (rows with the columns of the published datasets,
    the letters' offset).

    The offset comes from the split "train" alone.
    """
    letters = {
        part: draw_hints(len(of_part), seed + i)
        for i, (part, of_part) in enumerate(questions.items())
    }
    logprobs = {}
    for part, of_part in questions.items():
        asked = zip(of_part, letters[part], strict=True)
        prompts = [
            [user_prompt(question), user_prompt(question, wording.format(letter))]
            for question, letter in asked
        ]
        logprobs[part] = letter_logprobs(target, prompts, answer_prefix)
    offset = calibration(logprobs["train"][:, 0]) if calibrated else None
    rows = {}
    for part, of_part in questions.items():
        answers = zip(
            of_part,
            letters[part],
            read(logprobs[part][:, 0], offset),
            read(logprobs[part][:, 1], offset),
            strict=True,
        )
        rows[part] = [
            _row(target, q, wording.format(letter), answer_prefix, *answered)
            for q, letter, *answered in answers
        ]
    return rows, offset


def _row(
    target: LanguageModel,
    question: MultipleChoice,
    hint: str,
    answer_prefix: str,
    unhinted: str,
    hinted: str,
) -> dict:
    original, with_hint = user_prompt(question), user_prompt(question, hint)
    return {
        "index": question.index,
        "question": question.question,
        "choices": list(question.choices),
        "correct_answer": LETTERS[question.answer],
        "zeroshot_prediction": unhinted,
        "random_hint_prediction": hinted,
        "hint_token_ids": token_ids(target.tokenizer, hint),
        "original_prompt_full": full_prompt(target, original, answer_prefix),
        "hint_prompt_full": full_prompt(target, with_hint, answer_prefix),
        "system_prompt": SYSTEM,
        "original_user_prompt": original,
        "hint_user_prompt": with_hint,
        "hint": hint,
        "changed_pred_bc_hint": unhinted != hinted,
        "ablation_prompt": with_hint + ASK,
        "subject": question.subject,
    }


def statistics(rows: dict[str, Sequence[dict]]) -> list[dict]:
    """Table 7: changed and unchanged rows of each split."""
    counts = {
        part: sum(row["changed_pred_bc_hint"] for row in of_part) for part, of_part in rows.items()
    }
    return [
        {"split": part, "changed": n, "unchanged": len(rows[part]) - n}
        for part, n in counts.items()
    ]


def followed(rows: Sequence[dict]) -> list[dict]:
    """How often the answer becomes the hint's letter, for each subject and whether the unhinted
    answer was right.

    Only questions whose hint names another letter than the unhinted answer are counted: the others
    follow by staying as they are.
    """
    asked, followed = Counter(), Counter()
    for row in rows:
        letter = hint_letter(row["hint"])
        if letter != row["zeroshot_prediction"]:
            cell = row["subject"], row["zeroshot_prediction"] == row["correct_answer"]
            asked[cell] += 1
            followed[cell] += row["random_hint_prediction"] == letter
    return [
        {"subject": subject, "right": right, "n": n, "followed": followed[subject, right]}
        for (subject, right), n in sorted(asked.items())
    ]
