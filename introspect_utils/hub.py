"""Data sets on the hub."""

from collections.abc import Iterable

from introspect_utils.errors import UserError


def hub_rows(what: str, source: str, split: str, config: str | None = None) -> Iterable[dict]:
    """Rows of the data set `source`; `what` they are is for the `UserError` where it cannot be loaded."""
    import datasets

    try:
        return datasets.load_dataset(source, config, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # not found, no network, no such split, damaged
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot load {what} {source!r} ({reason}): check the id and the network") from error
