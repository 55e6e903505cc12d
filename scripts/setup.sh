# Sourced by run_all.sh and run_tests.sh, with ROOT set: makes ROOT/.venv with everything in requirements.lock and this package,
# unless it is there already, and leaves its interpreter's path in VENV_PYTHON.
#
# The stamp says for which lock file and folder .venv was made. It is written last and removed first, so an install that was cut
# short is begun again from an empty .venv: what pip leaves behind when it is killed can look whole and not be.

# Container images often set this. Without bytecode on disk each run compiles 3,600 modules again: 11 s in place of 5.
unset PYTHONDONTWRITEBYTECODE

VENV_PYTHON=$ROOT/.venv/bin/python
stamp=$ROOT/.venv/.installed

wanted_stamp() {
    { printf '%s\n' "$ROOT"; cat "$ROOT/requirements.lock"; } | cksum
}

is_installed() {
    [ -x "$VENV_PYTHON" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_stamp)" ]
}

find_python() { # the interpreter that makes .venv: $PYTHON, or the first on the PATH that is new enough
    local candidate candidates=(python3 python3.11 python3.12 python3.13 python3.14)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed, and ${PYTHON:-python3} is '$("${PYTHON:-python3}" -V 2>&1)';" \
        "install one, or name one: PYTHON=/path/to/python3.11 $0" >&2
    return 1
}

install() { # with the interpreter $1
    if [ -L "$ROOT/.venv" ]; then # venv --clear would empty what it points to
        echo "error: $ROOT/.venv is a link to $(readlink "$ROOT/.venv"), made for another folder or lock file;" \
            "remove the link, and start again" >&2
        return 1
    fi
    rm -f "$stamp"
    echo "Installing into $ROOT/.venv (once; some minutes, more on a slow network)"
    if ! "$1" -m venv --clear "$ROOT/.venv"; then
        echo "error: $1 cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)" >&2
        return 1
    fi
    if ! pip_install -r "$ROOT/requirements.lock" || ! pip_install --no-deps --no-build-isolation -e "$ROOT"; then
        echo "error: the installation failed (see above); start again when the cause is mended" >&2
        return 1
    fi
    wanted_stamp >"$stamp"
}

pip_install() {
    # Without bytecode, which Python writes at the first import: of most of these files nothing is ever imported.
    "$VENV_PYTHON" -m pip install --quiet --quiet --disable-pip-version-check --no-compile "$@"
}

if ! is_installed; then
    python=$(find_python) || exit 1
    # One set-up at a time: the lock is on descriptor 9, which this shell and its children hold, and ends with them.
    exec 9>"$ROOT/.setup.lock"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2>/dev/null ||
        echo "warning: $ROOT cannot be locked (a network file system?): start no second set-up beside this one" >&2
    is_installed || install "$python" || exit 1
    exec 9>&-
fi
