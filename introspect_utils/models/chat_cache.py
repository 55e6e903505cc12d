"""The replies of chat models, all in one SQLite file."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple

from introspect_utils.settings.errors import UserError

TABLE = """create table if not exists replies (
    key text primary key, model text, address text, prompt text,
    reply text, attempts integer, finish text) without rowid"""
NAMES = "create table if not exists names (label text, name text, primary key (label, name))"


class Reply(NamedTuple):
    """The last reply to a prompt, out of so many attempts. `finish`: why it ended ("stop",
    "length", ...), or "refused", and then the text is the reason."""

    text: str
    attempts: int
    finish: str = "stop"


class Cache:
    """Replies by model, address, prompt and settings, of which the first three can be read in the
    file. Threads and processes may share it; what has been written outlives the process."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.lock = folder / "replies.sqlite", threading.Lock()
        settings = {"timeout": 60, "isolation_level": None, "check_same_thread": False}
        self.file = sqlite3.connect(self.path, **settings)
        try:
            self.file.execute("pragma synchronous = normal")
            self.file.execute(TABLE)
            self.file.execute(NAMES)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{self.path} is damaged ({error}): delete it") from error

    def close(self) -> None:
        self.file.close()

    def read(self, *key: object) -> Reply:
        """The reply; of no attempts where there is none."""
        query = "select reply, attempts, finish from replies where key = ?"
        with self.lock:
            row = self.file.execute(query, [_digest(key)]).fetchone()
        return Reply(*row) if row else Reply("", 0)

    def write(self, reply: Reply, *key: object) -> None:
        row = [_digest(key), *key[:3], *reply]
        with self.lock:
            self.file.execute("replace into replies values (?, ?, ?, ?, ?, ?, ?)", row)

    def note(self, label: str, name: str) -> None:
        """The endpoint of this label was answered by a model that calls itself `name`."""
        with self.lock:
            self.file.execute("insert or ignore into names values (?, ?)", [label, name])

    def names(self, label: str) -> list[str]:
        with self.lock:
            found = self.file.execute("select name from names where label = ?", [label])
            return sorted(name for [name] in found)


def _digest(key: tuple) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()
