"""The one error that is shown to people as a single line."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right. The message says what was wrong, where, and what to do, in
    one line."""


def command(main: Callable[[], int | None]) -> None:
    """Run a command-line entry point: a `UserError` becomes `error: <message>` on stderr and exit
    status 1."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")
