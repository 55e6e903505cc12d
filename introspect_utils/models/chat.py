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
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
MAX_RETRIES = 10  # of a failed call: about a minute, or as long as the server's Retry-After says
MOST_MISSING = 0.01  # share of prompts that may stay without an answer
CHARACTERS_PER_TOKEN = 4  # of English, for the estimate


@dataclass(frozen=True)
class Endpoint:
    """A chat model, where it answers, and how it is asked.

    `base_url`: None for OPENAI_BASE_URL, else OpenAI's own. `concurrency`: calls at once, by
    default INTROSPECT_CHAT_CONCURRENCY or 16. `timeout`: seconds without a byte from the server.
    `price_in`, `price_out`: US dollars per million tokens. `cache_folder` holds the replies of all
    models and servers.
    """

    model: str
    base_url: str | None = None
    concurrency: int = field(default_factory=lambda: int(os.environ.get(CONCURRENCY, 16)))
    max_tokens: int = 64
    temperature: float = 0.0
    timeout: float = 60.0
    price_in: float = 0.0
    price_out: float = 0.0
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
        asking.read(unique)
        if asking.queue:
            asking.run()
        asking.check_missing()
    return [asking.answers[prompt] for prompt in prompts]


def answer_in(reply: str) -> str:
    """`reply` without its thoughts; empty where they do not end."""
    return re.sub(r"^(.*</think(ing)?>|.*<think(ing)?>.*)", "", reply, flags=re.DOTALL).strip()


@dataclass
class _Asking(Generic[T]):
    """The prompts still to ask, the answers so far, and what they took."""

    endpoint: Endpoint
    parse: Callable[[str], T | None]
    whole: bool
    cache: Cache
    n: int  # different prompts
    queue: deque[str] = field(default_factory=deque)
    answers: dict[str, T | None] = field(default_factory=dict)
    refused: dict[str, Reply] = field(default_factory=dict)  # by prompt; not in the cache yet
    missing: int = 0
    reason: str = ""  # why the last prompt without an answer has none
    calls: int = 0
    unusable: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    limit: str = "max_tokens"  # or max_completion_tokens, which newer models ask for
    heated: bool = True  # does the model take a temperature?
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def most_missing(self) -> int:
        return min(max(self.n - 1, 0), max(1, int(MOST_MISSING * self.n)))

    def read(self, prompts: Iterable[str]) -> None:
        """Take the cached answers; the other prompts are queued."""
        for prompt in prompts:
            reply = self.cache.read(*self.endpoint.key(prompt))
            answer = self._usable(reply) if reply else None
            if answer is None and (not reply or reply.attempts < ATTEMPTS):
                self.queue.append(prompt)
            else:
                self._answered(prompt, answer, reply)

    def _usable(self, reply: Reply) -> T | None:
        unusable = ("length", "content_filter", "refused") if self.whole else ("refused",)
        text = "" if reply.finish in unusable else answer_in(reply.text)
        return self.parse(text) if text else None

    def _answered(self, prompt: str, answer: T | None, reply: Reply) -> None:
        with self.lock:
            self.answers[prompt] = answer
            if answer is None:
                self.missing += 1
                self.reason = f"{_short(prompt)!r} was answered {_short(reply.text)!r}"
                if self.missing > self.most_missing:
                    self.queue.clear()

    def check_missing(self) -> None:
        """Raises `UserError` when too many prompts have no answer. Else what was refused is cached
        too, and not asked again."""
        if self.missing > self.most_missing:
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

    def run(self) -> None:
        """Ask everything in the queue."""
        import openai

        endpoint, key, n = self.endpoint, os.environ.get("OPENAI_API_KEY"), len(self.queue)
        if endpoint.url == OPENAI and not key:
            own = "or base_url to an OpenAI-compatible server of your own"
            raise UserError(f"no key for {endpoint.model}: set OPENAI_API_KEY, {own}")
        self._print_estimate()
        settings = {"timeout": endpoint.timeout, "max_retries": MAX_RETRIES}
        client = openai.OpenAI(api_key=key or "none", base_url=endpoint.url, **settings)
        bar = tqdm(total=n, desc=f"asking {endpoint.model}", unit="prompt", mininterval=1)
        n_threads = min(endpoint.concurrency, n)
        try:
            with client, bar, ThreadPoolExecutor(n_threads) as threads:
                work = [threads.submit(self._work, client, bar) for _ in range(n_threads)]
                try:
                    for worker in work:
                        worker.result()
                finally:
                    self.queue.clear()  # leaving the block waits for the calls under way
        except openai.OpenAIError as error:
            raise UserError(
                f"{endpoint.model} at {endpoint.address} failed ({error}): put it right and run "
                f"this again; the answers so far are kept in {self.cache.path}"
            ) from error
        finally:
            self._print_cost()

    def _work(self, client: OpenAI, bar: tqdm) -> None:
        while True:
            try:
                prompt = self.queue.popleft()
            except IndexError:
                return
            try:
                self._ask(client, prompt)
            except BaseException:
                self.queue.clear()  # the other threads finish what they have begun
                raise
            bar.update()

    def _ask(self, client: OpenAI, prompt: str) -> None:
        import openai

        key = self.endpoint.key(prompt)
        reply, answer = self.cache.read(*key) or Reply("", 0), None
        while answer is None and reply.attempts < ATTEMPTS:
            try:
                reply = self._call(client, prompt, reply)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                reply = self.refused[prompt] = Reply(str(error), ATTEMPTS, "refused")
                break
            answer = self._usable(reply)
            self.cache.write(reply, *key)
            with self.lock:
                self.unusable += answer is None
        self._answered(prompt, answer, reply)

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
        with self.lock:
            self.calls += 1
            if response.usage:
                self.tokens_in += response.usage.prompt_tokens
                self.tokens_out += response.usage.completion_tokens
        choice = response.choices[0]
        return Reply(
            choice.message.content or "", last.attempts + 1, choice.finish_reason or "stop"
        )

    def _print_estimate(self) -> None:
        asked, endpoint = self.queue, self.endpoint
        tokens_in = sum(map(len, asked)) // CHARACTERS_PER_TOKEN
        cost = endpoint.cost(tokens_in, tokens_out := len(asked) * endpoint.max_tokens)
        print(
            f"{endpoint.model}: {len(asked):,} prompts to ask, {len(self.answers):,} in the cache; "
            f"about {tokens_in:,} tokens in and at most {tokens_out:,} out: at most about ${cost:.4f}"
        )

    def _print_cost(self) -> None:
        cost = self.endpoint.cost(self.tokens_in, self.tokens_out)
        calls = f"{self.calls:,} calls, {self.unusable:,} of them with an unusable reply"
        tokens = f"{self.tokens_in:,} tokens in and {self.tokens_out:,} out: ${cost:.4f}"
        print(f"{self.endpoint.model}: {calls}; {tokens}")


def _short(text: str, length: int = 160) -> str:
    return text if len(text) <= length else "..." + text[-length:]
