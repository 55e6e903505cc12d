"""scripts/setup.sh, without installing anything."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_environment_of_another_folder_is_not_emptied_through_a_link(tmp_path):
    """`venv --clear` follows a link: a clone whose .venv is a link once emptied its owner's."""
    (tmp_path / "requirements.lock").write_text("torch\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/.installed").write_text("of another folder\n")
    (tmp_path / ".venv").symlink_to(tmp_path / "other")
    script = f"ROOT={tmp_path}; source {ROOT}/scripts/setup.sh"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "remove the link" in ended.stderr
    assert (tmp_path / "other/.installed").read_text() == "of another folder\n"
