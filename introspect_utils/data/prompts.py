"""Facts as prompts to a target (section E.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from introspect_utils.data.facts import Fact

# E.2; "Answer:" is ours, without it a base model goes on with a newline
OPTIONS = "\nRespond with one of {} and nothing else.\nAnswer:"


@dataclass(frozen=True)
class Prompt:
    """A target's input. `subject` and `options` are character spans of `text` (`options`: answer ->
    span)."""

    text: str
    subject: tuple[int, int]
    statement_end: int
    options: dict[str, tuple[int, int]]


def target_prompt(
    fact: Fact, demonstrations: Sequence[Fact] = (), options: Sequence[str] = ()
) -> Prompt:
    """Solved examples, one a line; the statement up to its object; and the answer options of E.2
    where there are any."""
    before = "".join(f"{demo.prompt} {demo.object}.\n" for demo in demonstrations)
    start = len(before) + fact.start
    text, spans = before + fact.prompt, {}
    end = len(text)
    if options:
        at = end + OPTIONS.index("{}")
        for option in options:
            spans[option] = (at, at + len(option))
            at += len(option) + len(" or ")
        text += OPTIONS.format(" or ".join(options))
    return Prompt(text, (start, start + len(fact.subject)), end, spans)


def statement(text: str) -> str:
    """The fact in a prompt of the target, without solved examples and answer options."""
    return text.partition(OPTIONS.partition("{}")[0])[0].rpartition("\n")[2]
