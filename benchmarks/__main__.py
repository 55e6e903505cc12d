"""All comparisons, one after another, and the table in benchmarks/README.md."""

import subprocess
import sys

from benchmarks import table

NAMES = (
    "patching",
    "training",
    "training_memory",
    "simulator",
    "exemplars",
    "neighbours",
    "generation",
    "ablation",
)

if __name__ == "__main__":
    for name in (*NAMES, "import_time", "growth"):
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    table.main()
