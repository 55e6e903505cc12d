"""Any OpenAI-compatible chat endpoint: many prompts at once, each answered and paid for once.

    endpoint = Endpoint("gpt-4.1-mini", price_in=0.40, price_out=1.60)
    replies = complete(prompts, endpoint, parse=lambda reply: reply.strip() or None)

The key is read from OPENAI_API_KEY; a server of one's own needs none.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from tqdm import tqdm

from introspect_utils.models.chat_cache import Cache, Reply
from introspect_utils.models.chat_template import answer_in
from introspect_utils.models.endpoint import OPENAI, Endpoint
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")

ATTEMPTS = 5  # calls for one prompt until its reply can be parsed
REASK_TEMPERATURE = 1.0  # at 0 an unusable reply would only come again
MORE = 4  # times the tokens for the next attempt, after a reply that was cut at the limit
MAX_RETRIES = 10  # of a failed call, by the client: a minute, or as the server's Retry-After says
MOST_MISSING = 0.01  # share of prompts that may stay without an answer
CHARACTERS_PER_TOKEN = 4  # of English, for the estimate
WHOLE = ("stop", "eos", "eos_token", "stop_sequence", "end_turn")  # how a whole reply ends
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")  # how one without room does
# statuses that tell of one prompt: it is too long, a filter does not like it, ...
REFUSALS = (400, 403, 413, 422, 451)
REFUSED = "refused"  # in place of a finish reason
WAIT = 0.25  # seconds after a reply that is no chat completion, then twice as long, ...

# by label: the names of the models that answered, by their own account; of all that this process
# has asked, for the records of runs
ANSWERED: dict[str, list[str]] = {}


def complete(
    prompts: Sequence[str], endpoint: Endpoint, parse: Callable[[str], T | None], whole: bool = True
) -> list[T | None]:
    """The parsed reply to each prompt (one user turn), in order. Equal prompts are asked once,
    cached ones not at all. Prints an estimate of the cost before, the cost after.

    `parse` sees a reply without its thoughts (`<think>`) and returns None where it cannot be used:
    the prompt is then asked again, up to `ATTEMPTS` calls in all runs together. A reply is usable
    if its finish reason says that it is `WHOLE`, or, unless `whole`, that it was cut at the limit;
    after such a one the next attempt may be longer. A prompt that the server refuses (`REFUSALS`)
    or that never gets a usable reply gives None, at most `MOST_MISSING` of the prompts (one of few,
    never all).

    Every reply is cached as it comes. After an interrupt or an error the calls under way are still
    waited for. Raises `UserError` when there is no key, another model answers than was asked, more
    prompts than that have no answer, the endpoint refuses every call, or stays out of reach.
    """
    prompts = [_valid(prompt) for prompt in prompts]
    unique = dict.fromkeys(prompts)
    with closing(Cache(endpoint.cache_folder)) as cache:
        asking = _Asking(endpoint, parse, whole, cache, len(unique))
        to_ask = [prompt for prompt in unique if not asking.is_known(prompt)]
        if to_ask and not asking.too_many_missing:
            asking.run(to_ask)
        asking.check_missing()
        ANSWERED[endpoint.label] = cache.names(endpoint.label)
    return [asking.answers[prompt] for prompt in prompts]


@dataclass
class _Asking(Generic[T]):
    """The answers so far, and what they took."""

    endpoint: Endpoint
    parse: Callable[[str], T | None]
    whole: bool
    cache: Cache
    n: int  # different prompts
    answers: dict[str, T | None] = field(default_factory=dict)
    refused: dict[str, Reply] = field(default_factory=dict)  # by prompt; not in the cache yet
    missing: int = 0
    reason: str = ""  # why the last prompt without an answer has none
    spent: Counter = field(default_factory=Counter)  # calls, unusable, tokens_in, tokens_out
    limit: str = "max_tokens"  # or max_completion_tokens, which newer models ask for
    heated: bool = True  # does the model take a temperature?
    lock: threading.Lock = field(default_factory=threading.Lock)  # of `spent`

    @property
    def most_missing(self) -> int:
        return min(max(self.n - 1, 0), max(1, int(MOST_MISSING * self.n)))

    @property
    def too_many_missing(self) -> bool:
        return self.missing > self.most_missing

    def is_known(self, prompt: str) -> bool:
        """Whether the cache has an answer to a prompt, which is taken, or it is not asked again."""
        reply = self.cache.read(*self.endpoint.key(prompt))
        answer = self._usable(reply)
        if answer is None and reply.attempts < ATTEMPTS:
            return False
        self._take(prompt, answer, reply)
        return True

    def _usable(self, reply: Reply) -> T | None:
        usable = WHOLE if self.whole else (*WHOLE, *CUT)
        text = answer_in(reply.text) if reply.finish.lower() in usable else ""
        return self.parse(text) if text else None

    def _take(self, prompt: str, answer: T | None, reply: Reply) -> None:
        self.answers[prompt] = answer
        if answer is None:
            self.missing += 1
            self.reason = f"{_short(prompt)!r} was answered {_short(reply.text)!r}"

    def check_missing(self) -> None:
        """Raises `UserError` when too many prompts have no answer. Else what was refused is cached
        too, and not asked again."""
        if self.too_many_missing:
            raise UserError(
                f"{self.endpoint.model} gave no usable reply to {self.missing:,} of {self.n:,} "
                f"prompts, where {self.most_missing:,} may be missing: {self.reason}; take another "
                "model, or a higher max_tokens if replies are cut short"
            )
        for prompt, reply in self.refused.items():
            self.cache.write(reply, *self.endpoint.key(prompt))
        if self.missing:
            missing = f"{self.missing:,} of {self.n:,} prompts have no answer"
            print(f"{self.endpoint.model}: {missing}; the last one: {self.reason}")

    def run(self, prompts: Sequence[str]) -> None:
        """Ask these, until all are answered or too many answers are missing."""
        import openai

        endpoint, key, n = self.endpoint, os.environ.get("OPENAI_API_KEY"), len(prompts)
        if endpoint.url == OPENAI and not key:
            own = "or base_url to an OpenAI-compatible server of your own"
            raise UserError(f"no key for {endpoint.model}: set OPENAI_API_KEY, {own}")
        tokens = sum(map(len, prompts)) // CHARACTERS_PER_TOKEN, n * endpoint.max_tokens
        print(
            f"{endpoint.model}: {n:,} prompts to ask, {len(self.answers):,} in the cache; about "
            f"{tokens[0]:,} tokens in and at most {tokens[1]:,} out: at most about "
            f"${endpoint.cost(*tokens):.4f}"
        )
        settings = {"timeout": endpoint.timeout, "max_retries": MAX_RETRIES}
        client = openai.OpenAI(api_key=key or "none", base_url=endpoint.url, **settings)
        bar = tqdm(total=n, desc=f"asking {endpoint.model}", unit="prompt", mininterval=1)
        try:
            with client, bar, ThreadPoolExecutor(endpoint.concurrency) as threads:
                asked = [threads.submit(self._ask, client, prompt) for prompt in prompts]
                try:
                    for done in as_completed(asked):
                        self._take(*done.result())
                        bar.update()
                        if self.too_many_missing:
                            break
                finally:
                    threads.shutdown(cancel_futures=True)  # waits for the calls under way
        except openai.OpenAIError as error:
            raise UserError(
                f"{endpoint.model} at {endpoint.address} failed ({error}): put it right and run "
                f"this again; the answers so far are kept in {self.cache.path}"
            ) from error
        finally:
            tokens = self.spent["tokens_in"], self.spent["tokens_out"]
            print(
                f"{endpoint.model}: {self.spent['calls']:,} calls, {self.spent['unusable']:,} of "
                f"them with an unusable reply; {tokens[0]:,} tokens in and {tokens[1]:,} out: "
                f"${endpoint.cost(*tokens):.4f}"
            )

    def _ask(self, client: OpenAI, prompt: str) -> tuple[str, T | None, Reply]:
        """(prompt, its answer if there is one, the last reply)."""
        key = self.endpoint.key(prompt)
        reply, answer = self.cache.read(*key), None
        while answer is None and reply.attempts < ATTEMPTS:
            reply = self._call(client, prompt, reply)
            if reply.finish == REFUSED:
                self.refused[prompt] = reply
                break
            answer = self._usable(reply)
            self.cache.write(reply, *key)
            self._spend(unusable=answer is None)
        return prompt, answer, reply

    def _call(self, client: OpenAI, prompt: str, last: Reply) -> Reply:
        """One more reply to the prompt after the `last`: it may be longer if that was cut, and is
        drawn at random, so that it is another one."""
        import openai

        endpoint = self.endpoint
        more = MORE**last.attempts if last.finish.lower() in CUT else 1
        settings = {self.limit: endpoint.max_tokens * more}
        if self.heated:
            again = last.attempts > 0
            settings["temperature"] = REASK_TEMPERATURE if again else endpoint.temperature
        turn = {"role": "user", "content": prompt}
        try:
            response = self._completion(client, model=endpoint.model, messages=[turn], **settings)
        except openai.APIStatusError as error:
            said = str(error)
            if "max_tokens" in settings and "max_completion_tokens" in said:
                self.limit = "max_completion_tokens"
            elif "temperature" in settings and "temperature" in said and "support" in said:
                self.heated = False
            elif error.status_code in REFUSALS:
                return Reply(_valid(said), ATTEMPTS, REFUSED)
            else:
                raise
            return self._call(client, prompt, last)
        if not getattr(response, "choices", None):
            return Reply(_valid(f"no chat completion: {response}"), ATTEMPTS, REFUSED)
        self._spend(calls=1)
        if usage := response.usage:
            self._spend(tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens)
        answered = response.model or endpoint.model
        if not endpoint.is_named(answered):
            raise UserError(
                f"{endpoint.address} was asked for {endpoint.model}, and {answered} answered: ask "
                "it by that name (chat_model), or take another server (OPENAI_BASE_URL)"
            )
        self.cache.note(endpoint.label, answered)
        [choice, *_] = response.choices
        text, finish = choice.message.content or "", choice.finish_reason or "stop"
        if not isinstance(text, str):  # a list of parts
            text = "".join(part.get("text") or "" for part in text)
        return Reply(_valid(text), last.attempts + 1, finish)

    def _completion(self, client: OpenAI, **asked) -> object:
        """The server's answer, the last of `ATTEMPTS` where it gives no chat completion: a server
        may be busy. Raises `UserError` where it has not given any yet."""
        response = None
        for attempt in range(ATTEMPTS):
            time.sleep(attempt and WAIT * 2**attempt)
            try:
                response = client.chat.completions.create(**asked)
            except json.JSONDecodeError as error:
                response = error.doc
            if getattr(response, "choices", None):
                return response
        if not self.spent["calls"]:
            what = f"{client.base_url} answered with something that is no chat completion"
            raise UserError(f"{what}: check base_url (it ends in /v1)")
        return response

    def _spend(self, **amounts: int) -> None:
        with self.lock:
            self.spent.update(amounts)


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else "..." + text[-length:]


def _valid(text: str) -> str:
    """`text` with halves of characters (lone surrogates), which no file can hold, made whole or
    replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
