"""Chat templates: what a tokenizer's own template makes of a system prompt and one user turn."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DAY = date(2024, 7, 26)  # templates that write the day's date (Llama 3.1) always write this one
CODES = [f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcdDeFhHIjmMpSTuUVwWxXyYZ"]
# put before a template, in place of the function that tells it the time
FROZEN = (
    "{% macro strftime_now(form) %}{{ form"
    + "".join(f"|replace({code!r}, {DAY.strftime(code)!r})" for code in CODES)
    + " }}{% endmacro %}{{ '' }}"
)
USER, SYSTEM, ANSWER = (f"The text of\nthe {role}" for role in ("user", "system", "assistant"))
# what opens a thought, and what closes it: <think>, [THINK], <|START_THINKING|>, <seed:think>,
# <|begin_of_thought|>, ...
WORD = r"((?:\w+:)?(?:think|thinking|thoughts?|reasoning|analysis|reflection))"
LEFT, RIGHT = r"([<\[◁]\|?)", r"(\|?[>\]▷])"
CLOSES = {"": "/", "start_": "END_", "begin_of_": "end_of_"}
CHANNEL = "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"
THOUGHT = re.compile(rf"{LEFT}(START_|begin_of_|){WORD}{RIGHT}|{re.escape(CHANNEL[0])}", re.I)
ENDED = re.compile(rf"{LEFT}(?:/|END_|end_of_){WORD}{RIGHT}|<\|channel\|>final<\|message\|>", re.I)


def plain(user: str, system: str = "") -> str:
    """A prompt without roles: the system prompt, if there is one, stands above the user's text."""
    return "\n\n".join(filter(None, (system, user)))


def render(
    tokenizer: PreTrainedTokenizerBase, *turns: tuple[str, str], answers: bool = True
) -> str | None:
    """The template's text of turns (role, content), and with `answers` up to where the assistant
    answers; None where the template fails."""
    from jinja2 import TemplateError

    template = str(tokenizer.get_chat_template())
    try:
        return tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns],
            chat_template=FROZEN * ("strftime_now" in template) + template,
            tokenize=False,
            add_generation_prompt=answers,
            enable_thinking=False,
            date_string=DAY.strftime("%d %b %Y"),
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return None


class ChatForm(NamedTuple):
    """How a template is used. `wrong`: why it cannot be."""

    takes_system: bool = False  # does it show a system turn?
    no_system: str | None = None  # the system turn that shows none; None: none at all
    tail: str = ""  # what it writes behind the user's text
    answer: str = ""  # what is put in place of `tail`: thoughts that it opens are closed
    wrong: str = ""


@lru_cache(maxsize=16)
def chat_form(tokenizer: PreTrainedTokenizerBase, template: str) -> ChatForm:
    """The form of a template, from what it makes of marked texts. Without a system prompt it is
    given the system turn (none, empty or blank) that makes the shortest text: one that has a
    default prompt writes it for the others."""
    user, turns = ("user", USER), {None: []} | {text: [("system", text)] for text in ("", " ")}
    made = {text: render(tokenizer, *turn, user) for text, turn in turns.items()}
    made = {text: prompt for text, prompt in made.items() if prompt is not None}
    if not made:
        return ChatForm(wrong="fails")
    no_system = min(made, key=lambda text: len(made[text]))
    asked, prompt = (*turns[no_system], user), made[no_system]
    before, shown, tail = prompt.rpartition(USER)
    head, takes_system, rest = (render(tokenizer, ("system", SYSTEM), user) or "").partition(SYSTEM)
    between, follows, _ = rest.partition(USER)
    said = render(tokenizer, *asked, ("assistant", ANSWER), answers=False) or ""
    begins = said.partition(ANSWER)[0].rpartition(USER)[2].strip() if ANSWER in said else ""
    unasked = render(tokenizer, *asked, answers=False)
    wrong = ""
    if render(tokenizer, *asked) != prompt:
        wrong = "writes another text each time"
    elif not shown or USER in before:
        wrong = "does not write a user's text once"
    elif not tail.strip() or (unasked == prompt and begins not in ("", tail.strip())):
        wrong = "does not write where the assistant's answer begins"
    elif follows and _inside(before, head, between).strip():
        wrong = "shows a system prompt of its own"
    takes_system = bool(takes_system and follows)
    return ChatForm(takes_system, no_system, tail, without_thoughts(tail), wrong)


def _inside(text: str, head: str, end: str) -> str:
    """What stands between `head` and `end` in `text`; nothing where it has not both."""
    both = text.startswith(head) and text.endswith(end)
    return text[len(head) : len(text) - len(end)] if both else ""


def without_thoughts(tail: str) -> str:
    """`tail`, the end of a prompt, with the thought closed that it leaves open, if it does."""
    opened = max(THOUGHT.finditer(tail), key=re.Match.end, default=None)
    if opened is None or ENDED.search(tail, opened.end()):
        return tail
    if not opened[1]:
        return tail.rstrip() + CHANNEL[1]
    left, start, word, right = opened.groups()
    return f"{tail.rstrip()}\n\n{left}{CLOSES[start.lower()]}{word}{right}\n\n"


def answer_in(reply: str) -> str:
    """A model's `reply` without its thoughts; empty where they do not end."""
    end = max((match.end() for match in ENDED.finditer(reply)), default=0)
    return "" if THOUGHT.search(reply, end) else reply[end:].strip()
