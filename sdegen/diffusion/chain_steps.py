"""Steps of a chain: coefficients at integer times, and the variances of those that go back."""

from __future__ import annotations

from torch import Tensor

from sdegen.core.requests import as_time
from sdegen.core.shapes import State, Time


def posterior_stds(b: Tensor, sigmas: Tensor) -> Tensor:
    """Return b̃_k = b_k σ_{k−1}/σ_k of k = 1 … N, the posterior's of a point; shape (N,)."""
    return b * sigmas[:-1] / sigmas[1:]


def variance_ends(b: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Return b̃_k and b_k of k = 1 … N, between which a learned variance lies; shapes (N,).

    Where b̃_1 = 0, since x_0 are data, b̃_2 stands for it, as in the code of Nichol and Dhariwal;
    in a chain of one step, b_1.
    """
    low, high = posterior_stds(b, sigmas).clone(), b
    if not float(low[0]) > 0:
        low[0] = low[1] if len(low) > 1 else high[0]
    return low, high


def between(low: Tensor, high: Tensor, fraction: State) -> State:
    """Return high^w low^{1−w}, the standard deviation w of the way from low to high in the log."""
    return high**fraction * low ** (1 - fraction)


def coefficient_at(coefficients: Tensor, k: Time | float, offset: int = 0) -> Tensor:
    """Return the coefficient of the step that starts at integer k, coefficients[k + offset].

    Args:
        coefficients: Shape (N,).
        k: Time, shape () or (batch,).
        offset: 0 for a step up from k, −1 for a step down.

    Returns:
        float64 for one time, k's dtype for one each.

    Raises:
        ValueError: If no step of the chain starts at k.
    """
    k, n = as_time(k), len(coefficients)
    at = int(k) + offset if k.ndim == 0 else k.long().cpu() + offset
    low, high = (at, at) if isinstance(at, int) else (int(at.min()), int(at.max()))
    if low < 0 or high >= n:
        wrong = (low if low < 0 else high) - offset
        raise ValueError(
            f"a step of this chain of N = {n} starts at k = {-offset} … {n - 1 - offset}, but was "
            f"asked for at k = {wrong}; a chain ends at k = {'0' if offset else 'N'}."
        )
    values = coefficients[at]
    return values if values.ndim == 0 else values.to(k)
