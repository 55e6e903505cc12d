"""T_input (section 2.4): does the target's answer to a multiple-choice question depend on the hint
behind it?

    T_input(M, x, hint) = d(M(x), M(x without the hint)),   x = [c, hint]      (eq. 7)

M(x) is the letter A-D that is the likeliest next token after the answer prefix. What both runs of a
question, and all questions, have in common passes through the target once.

The calibrated reading takes an offset off the letters' log-probabilities: their mean over training
questions *without* a hint. The same offset serves both runs: eq. 7 compares only the hint.
"""

import random
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import DynamicCache

from introspect_utils.data.mmlu import LETTERS, MultipleChoice
from introspect_utils.models import residual
from introspect_utils.models.language_model import LanguageModel
from introspect_utils.models.tokens import token_ids
from introspect_utils.settings.errors import UserError
from introspect_utils.tasks.task_ablation import ASK, SYSTEM


def user_prompt(question: MultipleChoice, hint: str = "") -> str:
    """What the target is asked (appendix D), `hint` as it is worded: "Hint: B"."""
    return f"Question: {question.text}" + (f"\n{hint}" if hint else "")


def full_prompt(target: LanguageModel, user: str, answer_prefix: str) -> str:
    """All that the target reads before its letter; without a chat template it is plain text."""
    chat = target.tokenizer.chat_template
    asked = target.chat(user, SYSTEM) if chat else target.plain(user, SYSTEM) + "\n"
    return asked + answer_prefix


def letter_tokens(target: LanguageModel, answer_prefix: str) -> list[int]:
    """The token of each letter behind the answer prefix: " A" behind a word or its colon, "A"
    behind a line break, a bracket, a quotation mark. Raises `UserError` for a prefix that ends in a
    space, which belongs to the letter's token, and where they are not four different ones."""
    if answer_prefix.endswith((" ", "\t")):
        raise UserError(
            f"ablation.answer_prefix {answer_prefix!r} ends in a space: leave it out, the letter's "
            "token has it"
        )
    last, prompt = answer_prefix[-1:], full_prompt(target, "?", answer_prefix)
    space = " " if last.isalnum() or last in tuple(":.,;?!=>") else ""
    ids = [target.answer_token(prompt, space + letter, special=True) for letter in LETTERS]
    if len(set(ids)) < len(LETTERS):
        raise UserError(
            f"the tokenizer of {target.name} does not tell A, B, C and D apart after "
            f"{answer_prefix!r}: change ablation.answer_prefix"
        )
    return ids


def letter_logprobs(
    target: LanguageModel,
    prompts: Sequence[Sequence[str]],
    answer_prefix: str,
    batch_size: int = 32,
) -> Tensor:
    """Log-probabilities of A-D as the next token, [questions, variants, 4], of
    `prompts[question][variant]` (users' turns). The common beginning of a question's variants is
    read once. Raises `UserError` for a prompt that is longer than the target reads."""
    letters = letter_tokens(target, answer_prefix)
    ids = [
        [target.encode(full_prompt(target, user, answer_prefix), special=True) for user in variants]
        for variants in prompts
    ]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i][0]))
    logprobs = torch.empty(len(ids), len(ids[0]), len(LETTERS))
    for start in range(0, len(ids), batch_size):
        batch = order[start : start + batch_size]
        logprobs[batch] = _batch_logprobs(target, [ids[i] for i in batch], letters)
    return logprobs


@torch.inference_mode()
def _batch_logprobs(
    target: LanguageModel, batch: Sequence[Sequence[Sequence[int]]], letters: Sequence[int]
) -> Tensor:
    """[questions, variants, 4] for one batch of token ids.

    Prefixes are padded on the left, behind what all have in common, and the rest on the right.
    Where an attention window is shorter than a row, padding stands before all of the prefix.
    """
    pad, device, n_variants = target.tokenizer.pad_token_id, target.device, len(batch[0])
    lengths = [residual.common_prefix(variants) for variants in batch]
    prefixes = [variants[0][:n] for variants, n in zip(batch, lengths, strict=True)]
    rests = [ids[n:] for variants, n in zip(batch, lengths, strict=True) for ids in variants]
    turned = residual.pad_left([ids[::-1] for ids in rests], pad, device)
    rest, rest_mask = (part.flip(-1) for part in turned)
    longest = max(map(len, prefixes)) + rest.shape[1]
    shared = residual.worth_sharing(prefixes, longest, target.window)
    prefix, prefix_mask = residual.pad_left(prefixes, pad, device, shared)
    embedded = target.model.get_input_embeddings()(prefix)
    cache = residual.read_shared(target.model, embedded, shared) or DynamicCache()
    target.model.get_decoder()(
        inputs_embeds=embedded[:, shared:],
        attention_mask=prefix_mask,
        position_ids=residual.positions(prefix_mask)[:, shared:],
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(n_variants)
    mask = torch.cat([prefix_mask.repeat_interleave(n_variants, 0), rest_mask], dim=1)
    # the few columns in which rows end
    ends, end = (rest_mask.sum(1) - 1).unique(return_inverse=True)
    logits = target.model(
        input_ids=rest,
        attention_mask=mask,
        position_ids=residual.positions(mask)[:, prefix.shape[1] :],
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
    """The likeliest letter of each row of [questions, 4], less the offset if there is one."""
    best = (logprobs if offset is None else logprobs - offset).argmax(-1)
    return [LETTERS[i] for i in best.tolist()]


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
    """What each wording of the hint ("Hint: {}") does under either reading.

    `changed`: share of answers that the hint changes; `followed`: that are the hint's letter, and,
    of the questions whose unhinted answer is another letter, `followed_elsewhere`; `commonest`:
    share of the commonest unhinted letter (1 = the question does not matter).
    """
    prompts = [
        [user_prompt(question, hint) for hint in ("", *(w.format(letter) for w in wordings))]
        for question, letter in zip(questions, letters, strict=True)
    ]
    logprobs = letter_logprobs(target, prompts, answer_prefix)
    hint, table = pd.Series(list(letters)), []
    for reading, offset in (("bare", None), ("calibrated", calibration(logprobs[:, 0]))):
        unhinted = pd.Series(read(logprobs[:, 0], offset))
        for variant, wording in enumerate(wordings, 1):
            hinted = pd.Series(read(logprobs[:, variant], offset))
            elsewhere = (hinted == hint)[unhinted != hint]
            shares = {
                "changed": (hinted != unhinted).mean(),
                "followed": (hinted == hint).mean(),
                "followed_elsewhere": elsewhere.mean() if len(elsewhere) else 0.0,
                "commonest": unhinted.value_counts(normalize=True).max(),
            }
            table.append({"reading": reading, "wording": wording} | shares)
    return table


def choose_wording(tried: Sequence[dict], calibrated: bool) -> str:
    """The wording under which nearest to half of the answers change (E.3)."""
    reading = "calibrated" if calibrated else "bare"
    lines = [line for line in tried if line["reading"] == reading]
    return min(lines, key=lambda line: abs(line["changed"] - 0.5))["wording"]


def hint_outcomes(
    target: LanguageModel,
    questions: dict[str, Sequence[MultipleChoice]],
    wording: str,
    answer_prefix: str,
    calibrated: bool,
    seed: int,
) -> tuple[dict[str, list[dict]], Tensor | None]:
    """T_input for the questions of each split: (rows with the columns of the published datasets and
    ours, the letters' offset). The offset comes from the split "train" alone."""

    def row(question: MultipleChoice, letter: str, unhinted: str, hinted: str) -> dict:
        hint = wording.format(letter)
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
            "ablation_prompt": f"{with_hint}\n\n{ASK}",
            "subject": question.subject,
            "hint_letter": letter,
        }

    letters, logprobs, rows = {}, {}, {}
    for number, (split, asked) in enumerate(questions.items()):
        letters[split] = draw_hints(len(asked), seed + number)
        pairs = zip(asked, map(wording.format, letters[split]), strict=True)
        prompts = [[user_prompt(question), user_prompt(question, hint)] for question, hint in pairs]
        logprobs[split] = letter_logprobs(target, prompts, answer_prefix)
    offset = calibration(logprobs["train"][:, 0]) if calibrated else None
    for split, asked in questions.items():
        unhinted, hinted = (read(logprobs[split][:, variant], offset) for variant in (0, 1))
        rows[split] = list(map(row, asked, letters[split], unhinted, hinted))
    return rows, offset


def statistics(rows: dict[str, Sequence[dict]]) -> list[dict]:
    """Table 7: changed and unchanged rows of each split."""
    changed = {split: sum(r["changed_pred_bc_hint"] for r in part) for split, part in rows.items()}
    return [
        {"split": split, "changed": n, "unchanged": len(rows[split]) - n}
        for split, n in changed.items()
    ]


def followed(rows: Sequence[dict]) -> list[dict]:
    """How often the answer becomes the hint's letter, for each subject and whether the unhinted
    answer was right, in questions whose hint names another letter than the unhinted answer."""
    table = pd.DataFrame(rows)
    table["right"] = table["zeroshot_prediction"] == table["correct_answer"]
    table["follows"] = table["random_hint_prediction"] == table["hint_letter"]
    asked = table[table["hint_letter"] != table["zeroshot_prediction"]]
    groups = asked.groupby(["subject", "right"])["follows"].agg(n="size", followed="sum")
    return groups.reset_index().to_dict("records")
