#!/usr/bin/env bash
# Runs the tests, with the set-up of run_all.sh: ./run_tests.sh [--slow] [pytest arguments]
# Without arguments all of them, in as many processes as there are cores, at most four.
# --slow (first) runs the slow tests and no others: kills, a full disk, more examples of the fuzzed readers.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$ROOT/scripts/setup.sh"
cd "$ROOT"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1 WANDB_MODE=disabled TOKENIZERS_PARALLELISM=false
if [ $# = 0 ]; then
    export OMP_NUM_THREADS=1
    set -- --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
fi
[ "${1:-}" != --slow ] || set -- -m slow "${@:2}"
exec "$VENV_PYTHON" -m pytest -q "$@"
