"""Any OpenAI-compatible chat endpoint: many prompts at once, each answered once and paid for once.

    endpoint = Endpoint("gpt-4.1-mini", price_in=0.40, price_out=1.60)
    replies = complete(prompts, endpoint, parse=lambda reply: reply.strip() or None)

The key is read from OPENAI_API_KEY; a server of one's own (`base_url`) needs none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from tqdm import tqdm

from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

T = TypeVar("T")

ATTEMPTS = 5  # calls for one prompt until its reply can be parsed
REASK_TEMPERATURE = 1.0  # at temperature 0 an unusable reply would only come again
MAX_RETRIES = 10  # of a failed call: about a minute, or as long as the server's Retry-After says
CHARACTERS_PER_TOKEN = 4  # of English, for the estimate


@dataclass(frozen=True)
class Endpoint:
    """A chat model, where it answers, and how it is asked.

    `base_url`: None for OpenAI's own. `timeout`: seconds without a byte from the server.
    `price_in`, `price_out`: US dollars per million tokens. `cache_folder` holds one file per
    answer, named by model, prompt, `max_tokens` and `temperature`: give two servers that answer
    differently under one model name a folder each.
    """

    model: str
    base_url: str | None = None
    concurrency: int = 16
    max_tokens: int = 64
    temperature: float = 0.0
    timeout: float = 60.0
    price_in: float = 0.0
    price_out: float = 0.0
    cache_folder: Path = field(default_factory=lambda: paths.ROOT / "artifacts" / "chat")

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def _file(self, prompt: str) -> Path:
        settings = json.dumps([self.model, prompt, self.max_tokens, self.temperature])
        name = hashlib.sha256(settings.encode()).hexdigest()
        return self.cache_folder / name[:2] / f"{name}.json"

    def read(self, prompt: str) -> str | None:
        """The cached reply."""
        file = self._file(prompt)
        return json.loads(file.read_text("utf-8"))["reply"] if file.is_file() else None

    def write(self, prompt: str, reply: str) -> None:
        """Cache a reply, whole or not at all."""
        file = self._file(prompt)
        file.parent.mkdir(parents=True, exist_ok=True)
        with paths.replaced(file) as temporary:
            temporary.write_text(
                json.dumps({"model": self.model, "prompt": prompt, "reply": reply}, indent=1)
                + "\n",
                "utf-8",
            )


def complete(
    prompts: Sequence[str], endpoint: Endpoint, parse: Callable[[str], T | None]
) -> list[T]:
    """The parsed reply to each prompt (one user turn), in order. Equal prompts are asked once,
    cached ones not at all.

    `parse` returns None for a reply that cannot be used: it is asked for again, up to `ATTEMPTS`
    calls, and never replaced by a default. Every usable reply is cached as it comes; after an
    interrupt or an error the calls under way are still waited for, since they are paid for, and a
    second run asks only what is missing. Prints an estimate of the cost before, the cost after.
    Raises `UserError` when there is no key, the endpoint refuses, stays out of reach, or gives no
    usable reply to a prompt.
    """
    cached = {
        prompt: reply
        for prompt in dict.fromkeys(prompts)
        if (reply := endpoint.read(prompt)) is not None
    }
    answers = {
        prompt: answer for prompt, reply in cached.items() if (answer := parse(reply)) is not None
    }
    missing = deque(prompt for prompt in dict.fromkeys(prompts) if prompt not in answers)
    if missing:
        _Asking(endpoint, parse, missing, answers).run()
    return [answers[prompt] for prompt in prompts]


@dataclass
class _Asking(Generic[T]):
    """The prompts still to ask, the answers so far, and what they took."""

    endpoint: Endpoint
    parse: Callable[[str], T | None]
    queue: deque[str]
    answers: dict[str, T]
    calls: int = 0
    unusable: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def run(self) -> None:
        """Ask everything in the queue. The event loop has a thread of its own: that of a notebook
        already runs one."""
        if not self.endpoint.base_url and not os.environ.get("OPENAI_API_KEY"):
            raise UserError(
                f"no key for {self.endpoint.model}: set OPENAI_API_KEY, or base_url to an "
                "OpenAI-compatible server of your own"
            )
        self._print_estimate()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._work())
        try:
            with closing(loop), ThreadPoolExecutor(1) as thread:
                try:
                    thread.submit(loop.run_until_complete, work).result()
                except KeyboardInterrupt:
                    loop.call_soon_threadsafe(
                        self.queue.clear
                    )  # ask nothing more; leaving the block waits for the rest
                    raise
        finally:
            self._print_cost()

    async def _work(self) -> None:
        import openai

        key = os.environ.get("OPENAI_API_KEY") or "none"
        options = {
            "api_key": key,
            "base_url": self.endpoint.base_url,
            "timeout": self.endpoint.timeout,
        }
        bar = tqdm(
            total=len(self.queue),
            desc=f"asking {self.endpoint.model}",
            unit="prompt",
            mininterval=1,
        )
        with bar:
            async with openai.AsyncOpenAI(**options, max_retries=MAX_RETRIES) as client:
                workers = [
                    self._worker(client, bar)
                    for _ in range(min(self.endpoint.concurrency, len(self.queue)))
                ]
                outcomes = await asyncio.gather(*workers, return_exceptions=True)
        for error in filter(None, outcomes):
            if isinstance(error, openai.OpenAIError):
                raise UserError(
                    f"{self.endpoint.model} at {client.base_url} failed ({error}): put it right "
                    "and run this again; "
                    f"the answers so far are kept in {self.endpoint.cache_folder}"
                ) from error
            raise error

    async def _worker(self, client: AsyncOpenAI, bar: tqdm) -> None:
        while self.queue:
            prompt = self.queue.popleft()
            try:
                self.answers[prompt] = await self._ask(client, prompt)
            except BaseException:
                self.queue.clear()  # the other workers finish what they have begun
                raise
            bar.update()

    async def _ask(self, client: AsyncOpenAI, prompt: str) -> T:
        for attempt in range(ATTEMPTS):
            temperature = REASK_TEMPERATURE if attempt else self.endpoint.temperature
            response = await self._call(client, prompt, temperature)
            self.calls += 1
            if response.usage:
                self.tokens_in += response.usage.prompt_tokens
                self.tokens_out += response.usage.completion_tokens
            reply = response.choices[0].message.content or ""
            answer = self.parse(reply)
            if answer is not None:
                self.endpoint.write(prompt, reply)
                return answer
            self.unusable += 1
        raise UserError(
            f"{self.endpoint.model} gave no usable reply to {_short(prompt)!r} in {ATTEMPTS} "
            "calls, the last one "
            f"{_short(reply)!r}: try another model, or a higher max_tokens if replies are cut short"
        )

    async def _call(self, client: AsyncOpenAI, prompt: str, temperature: float) -> ChatCompletion:
        settings = {
            "model": self.endpoint.model,
            "max_tokens": self.endpoint.max_tokens,
            "temperature": temperature,
        }
        try:
            response = await client.chat.completions.create(
                messages=[{"role": "user", "content": prompt}], **settings
            )
        except json.JSONDecodeError:
            response = None
        if not getattr(response, "choices", None):
            raise UserError(
                f"{client.base_url} answered with something that is no chat completion: check "
                "base_url (it ends in /v1)"
            )
        return response

    def _print_estimate(self) -> None:
        n, n_cached = len(self.queue), len(self.answers)
        tokens_in = sum(map(len, self.queue)) // CHARACTERS_PER_TOKEN
        tokens_out = n * self.endpoint.max_tokens
        print(
            f"{self.endpoint.model}: {n:,} prompts to ask, {n_cached:,} in the cache; about "
            f"{tokens_in:,} tokens in and at most "
            f"{tokens_out:,} out: at most about ${self.endpoint.cost(tokens_in, tokens_out):.4f}"
        )

    def _print_cost(self) -> None:
        print(
            f"{self.endpoint.model}: {self.calls:,} calls, {self.unusable:,} of them with an "
            f"unusable reply; {self.tokens_in:,} "
            f"tokens in and {self.tokens_out:,} out: "
            f"${self.endpoint.cost(self.tokens_in, self.tokens_out):.4f}"
        )


def _short(text: str, length: int = 160) -> str:
    """The end of a text: a prompt's end is what is its own."""
    return text if len(text) <= length else "..." + text[-length:]
