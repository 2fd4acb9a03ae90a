"""One coordinate of a state, and bins along it."""

from torch import Tensor

from sdegen.core.checks import check_count, check_finite
from sdegen.core.shapes import State

_MOST_BINS = 10**8  # a gigabyte for each of the times


def coordinate_of(x: State, coordinate: int, name: str) -> Tensor:
    """Return one coordinate of the flattened event, shape (rows,).

    Raises:
        ValueError: If there is no such coordinate, naming the observable.
    """
    flat = x.flatten(1)
    if not 0 <= coordinate < flat.shape[1]:
        raise ValueError(
            f"observable {name!r} is of coordinate {coordinate}, but an event of shape "
            f"{tuple(x.shape[1:])} has coordinates 0 … {flat.shape[1] - 1}."
        )
    return flat[:, coordinate]


def check_bins(of: str, low: float, high: float, name: str, count: int) -> None:
    """Refuse an interval that is empty, or cut into nothing.

    Args:
        of: What is counted in the bins.
        low: First edge.
        high: Last edge.
        name: What the bins are called.
        count: How many.

    Raises:
        TypeError: If count is no int.
        ValueError: If an edge is not finite, low ≥ high, or count < 1 or too large.
    """
    check_finite("low", low)
    check_finite("high", high)
    check_count(name, count)
    if count > _MOST_BINS:
        raise ValueError(
            f"{name} is {count:.3g}, and each of them is a number at each time: a {of} takes "
            f"{_MOST_BINS:.0e} at most."
        )
    if not low < high:
        raise ValueError(f"a {of} needs low < high, but low = {low:g}, high = {high:g}.")
