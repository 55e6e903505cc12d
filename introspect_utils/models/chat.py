"""Any OpenAI-compatible chat endpoint: many prompts at once, each answered and paid for once.

    endpoint = Endpoint("gpt-4.1-mini", price_in=0.40, price_out=1.60)
    replies = complete(prompts, endpoint, parse=lambda reply: reply.strip() or None)

The key is read from OPENAI_API_KEY; a server of one's own needs none.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

from tqdm import tqdm

from introspect_utils.models.chat_cache import Cache, Reply
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")

CONCURRENCY = "INTROSPECT_CHAT_CONCURRENCY"  # environment variable
OPENAI = "https://api.openai.com/v1"
ATTEMPTS = 5  # calls for one prompt until its reply can be parsed
REASK_TEMPERATURE = 1.0  # at 0 an unusable reply would only come again
MORE = 4  # times the tokens for the next attempt, after a reply that was cut at the limit
MAX_RETRIES = 10  # of a failed call, by the client: a minute, or as the server's Retry-After says
MOST_MISSING = 0.01  # share of prompts that may stay without an answer
CHARACTERS_PER_TOKEN = 4  # of English, for the estimate


@dataclass(frozen=True)
class Endpoint:
    """A chat model, where it answers, and how it is asked."""

    model: str
    base_url: str | None = None  # None: OPENAI_BASE_URL, else OpenAI's own
    # calls at once
    concurrency: int = field(default_factory=lambda: int(os.environ.get(CONCURRENCY, 16)))
    max_tokens: int = 64
    temperature: float = 0.0
    timeout: float = 60.0  # seconds without a byte from the server
    price_in: float = 0.0  # US dollars per million tokens
    price_out: float = 0.0
    # of the replies of all models and servers
    cache_folder: Path = field(default_factory=lambda: paths.ROOT / "artifacts" / "chat")

    @property
    def url(self) -> str:
        """Where the model is asked."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")

    @property
    def address(self) -> str:
        """`url` without a user's name and password: for the cache and for records."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def label(self) -> str:
        """The model for records, with its server's address if that is not OpenAI's own."""
        return self.model if self.address == OPENAI else f"{self.model} at {self.address}"

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def key(self, prompt: str) -> tuple:
        """What a reply depends on."""
        return self.model, self.address, prompt, self.max_tokens, self.temperature


def complete(
    prompts: Sequence[str], endpoint: Endpoint, parse: Callable[[str], T | None], whole: bool = True
) -> list[T | None]:
    """The parsed reply to each prompt (one user turn), in order. Equal prompts are asked once,
    cached ones not at all. Prints an estimate of the cost before, the cost after.

    `parse` sees a reply without its thoughts (`<think>`) and returns None where it cannot be used:
    the prompt is then asked again, up to `ATTEMPTS` calls in all runs together. A reply that was
    cut at the limit is unusable unless `whole` is False, and the next attempt may be longer. A
    prompt that the server refuses (HTTP 400) or that never gets a usable reply gives None, at most
    `MOST_MISSING` of the prompts (one of few, never all).

    Every reply is cached as it comes. After an interrupt or an error the calls under way are still
    waited for. Raises `UserError` when there is no key, more prompts than that have no answer, the
    endpoint refuses every call, or stays out of reach.
    """
    unique = dict.fromkeys(prompts)
    with closing(Cache(endpoint.cache_folder)) as cache:
        asking = _Asking(endpoint, parse, whole, cache, len(unique))
        to_ask = [prompt for prompt in unique if not asking.is_known(prompt)]
        if to_ask and not asking.too_many_missing:
            asking.run(to_ask)
        asking.check_missing()
    return [asking.answers[prompt] for prompt in prompts]


def answer_in(reply: str) -> str:
    """`reply` without its thoughts; empty where they do not end."""
    return re.sub(r"^(.*</think(ing)?>|.*<think(ing)?>.*)", "", reply, flags=re.DOTALL).strip()


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
        unusable = ("length", "content_filter", "refused") if self.whole else ("refused",)
        text = "" if reply.finish in unusable else answer_in(reply.text)
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
        import openai

        key = self.endpoint.key(prompt)
        reply, answer = self.cache.read(*key), None
        while answer is None and reply.attempts < ATTEMPTS:
            try:
                reply = self._call(client, prompt, reply)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                reply = self.refused[prompt] = Reply(str(error), ATTEMPTS, "refused")
                break
            answer = self._usable(reply)
            self.cache.write(reply, *key)
            self._spend(unusable=answer is None)
        return prompt, answer, reply

    def _call(self, client: OpenAI, prompt: str, last: Reply) -> Reply:
        """One more reply to the prompt after the `last`: it may be longer if that was cut, and is
        drawn at random, so that it is another one."""
        import openai

        more = MORE**last.attempts if last.finish == "length" else 1
        settings = {self.limit: self.endpoint.max_tokens * more}
        if self.heated:
            again = last.attempts > 0
            settings["temperature"] = REASK_TEMPERATURE if again else self.endpoint.temperature
        ask, turn = client.chat.completions.create, {"role": "user", "content": prompt}
        try:
            response = ask(model=self.endpoint.model, messages=[turn], **settings)
        except openai.BadRequestError as error:
            said = str(error)
            if "max_tokens" in settings and "max_completion_tokens" in said:
                self.limit = "max_completion_tokens"
            elif "temperature" in settings and "temperature" in said and "support" in said:
                self.heated = False
            else:
                raise
            return self._call(client, prompt, last)
        except json.JSONDecodeError:
            response = None
        if not getattr(response, "choices", None):
            what = f"{client.base_url} answered with something that is no chat completion"
            raise UserError(f"{what}: check base_url (it ends in /v1)")
        self._spend(calls=1)
        if usage := response.usage:
            self._spend(tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens)
        [choice, *_] = response.choices
        text, finish = choice.message.content or "", choice.finish_reason or "stop"
        return Reply(text, last.attempts + 1, finish)

    def _spend(self, **amounts: int) -> None:
        with self.lock:
            self.spent.update(amounts)


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else "..." + text[-length:]
