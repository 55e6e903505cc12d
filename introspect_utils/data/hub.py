"""Data sets on the hub."""

from collections.abc import Iterable

from introspect_utils.settings.errors import UserError


def hub_rows(
    what: str, source: str, split: str, config: str | None = None, instead: str = "packaged"
) -> Iterable[dict]:
    """Rows of the data set `source`; `what` they are, and what there is `instead`, the `UserError`
    says."""
    import datasets

    try:
        return datasets.load_dataset(source, config, split=split)
    # not found, no network, no such split, damaged
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0]
        mend = "check the id and the network" + (f", or use {instead!r}" if instead else "")
        raise UserError(f"cannot load {what} {source!r} ({reason}): {mend}") from error
