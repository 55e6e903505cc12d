"""`./run_all.sh rehearsal`: the profile `paper` with a stand-in for each model and download
(files.py), served by a hub (hub.py) and a chat server (chat.py) on this machine.
`rehearsal-published` and `rehearsal-paper-lite` rehearse those profiles. What the run itself does
is the profile's own code: only the addresses of the hub and of the chat model differ."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack

from chat import Chat
from files import write_all
from hub import Hub
from verify import verify

from introspect_utils.settings.paths import REPO, artifacts_dir


def main() -> int:
    name, *extra = sys.argv[1:]
    folder = artifacts_dir("rehearsal") / "stand-ins"
    if not (folder / "done").is_file():
        print(f"Writing the stand-ins into {folder}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        write_all(folder)
        (folder / "done").touch()
    with ExitStack() as open_ones:
        hub = open_ones.enter_context(Hub(folder))
        # Finished runs say at which address they were judged: go on at the same one.
        kept = artifacts_dir(name) / "chat-port"
        chat = open_ones.enter_context(Chat(int(kept.read_text()) if kept.is_file() else 0))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(str(chat.server_port))
        given = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hub-cache"),
            "HF_TOKEN": "hf_none",
        }
        given |= {"OPENAI_BASE_URL": chat.url, "OPENAI_API_KEY": "none"}
        offline = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"}
        given |= {key: value for key, value in os.environ.items() if key not in {*given, *offline}}
        command = [sys.executable, "-P", "-m", "introspect_utils.runs.run_all", name, *extra]
        status = subprocess.run(command, env=given, cwd=REPO).returncode
        print(f"The chat model's replies: {dict(chat.said)}")
    faults = [] if status or "--dry-run" in extra else verify(name)
    print(*(f"FAULT: {fault}" for fault in faults), sep="\n", end="\n" * bool(faults))
    return status or bool(faults)


if __name__ == "__main__":
    raise SystemExit(main())
