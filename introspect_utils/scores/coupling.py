"""Is what an explainer says about the target as it was, or about what the explainer has become?
(Footnote 2 of the paper; arXiv 2606.32038.)"""

from collections.abc import Sequence

from introspect_utils.explainer.explainer import Explainer
from introspect_utils.tasks.ablation import calibration, letter_logprobs, read

OFFSET_ROWS = 600  # of the training rows, for the letters' mean log-probabilities


def measured_again(
    explainer: Explainer, rows: Sequence[dict], answer_prefix: str, train: Sequence[dict] = ()
) -> list[dict]:
    """T_input (eq. 7) of the trained explainer itself: `rows` of input ablation with its answers in
    place of the target's. Explanations scored against both say which they follow.

    `train`: rows for the offset of the calibrated reading, if the target was read so; at most
    `OFFSET_ROWS` of them are asked.
    """

    def logprobs(rows: Sequence[dict], *prompts: str):
        asked = [[row[prompt] for prompt in prompts] for row in rows]
        return letter_logprobs(explainer.lm, asked, answer_prefix)

    some = train[:: max(1, -(-len(train) // OFFSET_ROWS))]
    offset = calibration(logprobs(some, "original_user_prompt")[:, 0]) if train else None
    found = logprobs(rows, "original_user_prompt", "hint_user_prompt")
    without, hinted = read(found[:, 0], offset), read(found[:, 1], offset)
    names = "zeroshot_prediction", "random_hint_prediction", "changed_pred_bc_hint"
    return [
        row | dict(zip(names, (a, b, a != b), strict=True))
        for row, a, b in zip(rows, without, hinted, strict=True)
    ]
