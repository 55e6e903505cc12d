"""The script that is to run on a lent GPU, on the CPU with a tiny model."""

import subprocess
import sys

from introspect_utils.settings.paths import REPO

CODE = """if True:
    import sys
    for name in ("datasets", "openai", "snakemake", "papermill", "sklearn", "scipy", "matplotlib", "sae_lens", "IPython"):
        sys.modules[name] = None  # importing it fails
    from benchmarks import gpu_throughput
    gpu_throughput.WARM, gpu_throughput.STEPS = 1, 2
    found = gpu_throughput.main(["--tiny"])
    assert len(found) == 5 and all(one.units > 0 and one.tokens > one.units and one.seconds > 0 for one in found)
    assert found[1].tokens == 32 * 50 and found[3].units == 2 * 32
"""


def test_it_runs_with_the_core_packages_alone_and_prints_its_table():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=REPO, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (
        done.stdout.count("\n| ") == 6
        and "H100 hours." in done.stdout
        and "| training, patching | " in done.stdout
    )
