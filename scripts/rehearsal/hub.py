"""A model hub on loopback: serves a folder of repositories to huggingface_hub, transformers and
datasets as the real one does (HF_ENDPOINT).

    <root>/models/<owner>/<name>/...      <root>/datasets/<owner>/<name>/...
"""

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

from loopback import Answers, Server

KINDS = ("models", "datasets")


class Hub(Server):
    """The server of the repositories in `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__(Handler)
        self.root = root


class Handler(Answers):
    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "api":
            return self.about(parts[1:])
        kind, parts = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        if len(parts) > 4 and parts[2] == "resolve":  # owner, name, "resolve", revision, path
            return self.file(self.repository(kind, parts), "/".join(parts[4:]))
        return self.missing("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """/api/<kind>/<owner>/<name>/paths-info/<revision>"""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        kind, *parts = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")[1:]]
        repository = self.repository(kind, parts)
        if repository is None or parts[2:3] != ["paths-info"]:
            return self.missing("RepoNotFound")
        found = [repository / path for path in asked.get("paths", [])]
        return self.json([entry(repository, path) for path in found if path.exists()])

    def about(self, parts: list[str]) -> None:
        """What the hub says of a repository, or of a folder in it."""
        kind, parts = parts[0], parts[1:]
        repository = self.repository(kind, parts) if kind in KINDS else None
        if repository is None:
            return self.missing("RepoNotFound")
        what, rest = (parts[2], parts[4:]) if len(parts) > 3 else ("revision", [])
        if what == "tree":
            folder = repository.joinpath(*rest)
            if not folder.is_dir():
                return self.missing("EntryNotFound")
            paths = folder.rglob("*") if "recursive=true" in self.path.lower() else folder.iterdir()
            return self.json([entry(repository, path) for path in sorted(paths)])
        files = [p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()]
        name, sha = "/".join(parts[:2]), commit(repository)
        about = {"_id": sha[:24], "id": name, "sha": sha, "private": False, "gated": False}
        about |= {"siblings": [{"rfilename": file} for file in sorted(files)], "tags": []}
        return self.json(about | {"downloads": 0, "disabled": False, "cardData": {}})

    def repository(self, kind: str, parts: list[str]) -> Path | None:
        folder = self.server.root.joinpath(kind, *parts[:2])
        return folder if len(parts) > 1 and folder.is_dir() else None

    def file(self, repository: Path | None, name: str) -> None:
        path = repository and repository / name
        if not path or not path.is_file():
            return self.missing("EntryNotFound" if repository else "RepoNotFound")
        body = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Repo-Commit": commit(repository)}
        status, whole = 200, len(body)
        if span := self.headers.get("Range"):
            first, last = span.removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last or whole - 1), whole - 1)
            body, status = body[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{whole}"
        return self.send(status, body, "application/octet-stream", headers)

    def json(self, value) -> None:
        self.send(200, json.dumps(value).encode(), "application/json")

    def missing(self, code: str) -> None:
        self.send(404, b"", "text/plain", {"X-Error-Code": code, "X-Error-Message": code})


def commit(repository: Path) -> str:
    return hashlib.sha1(str(repository).encode(), usedforsecurity=False).hexdigest()


def entry(repository: Path, path: Path) -> dict:
    """A file or folder as the hub lists it."""
    name = path.relative_to(repository).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
    digest = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    return {"type": "file", "oid": digest, "size": path.stat().st_size, "path": name}
