"""A chat model, where it answers, and whether it is the one that did."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from introspect_utils.settings import paths

CONCURRENCY = "INTROSPECT_CHAT_CONCURRENCY"  # environment variable
OPENAI = "https://api.openai.com/v1"
# what an answering model's name may hold behind the name it was asked by: a date, a version
EXACTLY = r"([-@:_.]v?\d{3}[\d-]*|:latest|:free)?"


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

    def is_named(self, answered: str) -> bool:
        """Whether the model that answered, by its own account, is the one that was asked: a server
        may add its vendor, or the model's date."""
        asked, own = (name.lower().rpartition("/")[2] for name in (self.model, answered))
        name = re.escape(asked.removesuffix("-latest").removesuffix(":free"))
        return own == asked or bool(re.fullmatch(name + EXACTLY, own))

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def key(self, prompt: str) -> tuple:
        """What a reply depends on."""
        return self.model, self.address, prompt, self.max_tokens, self.temperature
