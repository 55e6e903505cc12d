"""How long `import introspect_utils` takes, and the modules a command begins with: processor's
seconds, fresh interpreter."""

import json
import statistics
import subprocess
import sys

from benchmarks.timing import RESULTS, machine

MODULES = (
    "introspect_utils",
    "introspect_utils.settings.profile",
    "introspect_utils.models.load",
    "introspect_utils.runs.run_all",
)
TIMED = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"
TARGET = 0.3  # seconds, of the first


def import_seconds(module: str, rounds: int = 5) -> list[float]:
    command = [sys.executable, "-c", TIMED.format(module)]
    return [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    ]


if __name__ == "__main__":
    found = {module: import_seconds(module) for module in MODULES}
    for module, times in found.items():
        print(
            f"import {module}: {statistics.median(times):.3f} s ({min(times):.3f} to "
            f"{max(times):.3f})"
        )
    record = {"name": "import_time", "seconds": found, "target": TARGET} | machine()
    (RESULTS / "import_time.json").write_text(json.dumps(record, indent=1) + "\n")
