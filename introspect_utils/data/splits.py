"""Training and test rows are about different things."""

from collections.abc import Hashable, Iterable

from introspect_utils.settings.errors import UserError


def check_disjoint(
    train: Iterable[Hashable], test: Iterable[Hashable], what: str, where: str
) -> None:
    """Training and test rows share no `what`: a question, a fact, a direction. `where` they come
    from is for the error."""
    train, test = set(train), set(test)
    both = train & test
    if both:
        shown = f", for example {min(both)!r:.80}" if isinstance(next(iter(both)), str) else ""
        raise UserError(
            f"{where}: {len(both)} of {len(test)} {what}s of the test rows stand among the "
            f"training rows too{shown}: "
            "scores would measure memory; split the data again"
        )
