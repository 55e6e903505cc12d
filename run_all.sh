#!/usr/bin/env bash
# Runs every notebook of a profile and writes its tables and figures: ./run_all.sh [PROFILE] [extra Snakemake arguments]
#   ./run_all.sh                        the profile mini
#   ./run_all.sh small --dry-run        list the runs of small, run nothing
#   ./run_all.sh mini --forcerun tables make a run anew, and all that follows from it
#   ./run_all.sh ask                    open notebook 13 with the explainer that comes trained; run nothing
# Makes .venv first if need be; PYTHON=/path/to/python3.11 chooses the interpreter.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$ROOT/scripts/setup.sh"
case "${1:-}" in
ask) exec "$VENV_PYTHON" -m jupyterlab "${@:2}" "$ROOT/notebooks/13_ask_the_explainer.ipynb" ;;
rehearsal*) exec "$VENV_PYTHON" "$ROOT/scripts/rehearsal" "$@" ;;
esac
exec "$VENV_PYTHON" -P -m introspect_utils.runs.run_all "$@"
