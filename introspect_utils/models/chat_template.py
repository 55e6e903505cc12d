"""Chat templates: what a tokenizer's own template makes of a system prompt and one user turn."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DAY = date(2024, 7, 26)  # templates that write the day's date (Llama 3.1) always write this one
NOW = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
USER, SYSTEM = "The text of\nthe user", "The text of\nthe system"
# what an always-thinking template ends with: <think>, [THINK], <|START_THINKING|>, ...
THOUGHT = re.compile(r"([<\[◁]\|?)(START_)?(think|thinking|thought|reasoning)(\|?[>\]▷])\s*$", re.I)


def plain(user: str, system: str = "") -> str:
    """A prompt without roles: the system prompt, if there is one, stands above the user's text."""
    return "\n\n".join(filter(None, (system, user)))


def render(
    tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str], answers: bool = True
) -> str | None:
    """The template's text of turns (role, content), and with `answers` up to where the assistant
    answers; None where the template fails."""
    from jinja2 import TemplateError

    def frozen(call: re.Match) -> str:
        return repr(DAY.strftime(call[2]))

    template = NOW.sub(frozen, str(tokenizer.get_chat_template()))
    if "strftime_now(" in template:  # of a format that is computed
        return None
    try:
        return tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=answers,
            enable_thinking=False,
            date_string=DAY.strftime("%d %b %Y"),
        )
    except (TemplateError, TypeError, ValueError):
        return None


@lru_cache(maxsize=16)
def chat_form(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[bool, bool]:
    """(does the template show a system turn, does it need an empty one, to show no prompt of its
    own). An empty turn is needed where it makes the text shorter (Qwen2.5, SmolLM2)."""
    user = ("user", USER)
    alone, empty = render(tokenizer, user), render(tokenizer, ("system", ""), user)
    whole = render(tokenizer, ("system", SYSTEM), user) or ""
    shown = SYSTEM in whole and USER in whole[whole.index(SYSTEM) :]
    return shown, empty is not None and (alone is None or len(empty) < len(alone))


def without_thoughts(prompt: str) -> str:
    """`prompt` with the thought closed that its template opens for the assistant, if it does."""
    opened = THOUGHT.search(prompt)
    if not opened:
        return prompt
    left, start, word, right = opened.groups()
    closed = left + ("END_" if start else "/") + word + right
    return f"{prompt[: opened.end(4)]}\n\n{closed}\n\n"
