"""Boundaries by their words: "no-flux", "absorbing" and "periodic", where a grid has the ends."""

from __future__ import annotations

from sdegen.core.boundary import Absorbing, Boundary, Periodic, Reflecting
from sdegen.core.bounds import Bound
from sdegen.core.conditions import BoundaryCondition, condition_of

_NAMED: dict[BoundaryCondition, type[Boundary]] = {
    kind.condition: kind for kind in (Reflecting, Absorbing, Periodic)
}


def of_words(
    words: str | tuple[str, str], low: Bound, high: Bound
) -> Boundary | tuple[Boundary, Boundary]:
    """Return the boundary that words name, where its ends are known.

    Args:
        words: A word, or a pair (lower, upper).
        low: Lower end.
        high: Upper end.

    Raises:
        ValueError: If a word names none, or only one end is periodic.

    Example:
        >>> of_words("absorbing", 0.0, 1.0)
        Absorbing(low=0.0, high=1.0, coordinates=None, bridge=True)
    """
    lower, upper = (
        condition_of(word, "boundary")
        for word in ((words, words) if isinstance(words, str) else words)
    )
    if lower is upper:
        return _NAMED[lower](low, high)
    if lower.wraps or upper.wraps:
        raise ValueError(f"a periodic wall needs its partner, but boundary is {words!r}.")
    return _NAMED[lower](low), _NAMED[upper](high=high)
