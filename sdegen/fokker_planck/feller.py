"""Feller's classification of an end: whether a diffusion reaches it, and whether it leaves it.

With ξ the distance from a finite end, or x itself on the way to ∞, the drift and D are read as
powers, and so are the scale density s = exp(−∫ f/D) and the speed density m = 1/(sD). The end can
be reached in finite time if ∫ (∫s) m is finite there, and started from if ∫ (∫m) s is:

    regular     both: a wall may be put there, absorbing or reflecting
    exit        it is reached, and not left
    entrance    it is left, and never reached
    natural     neither

Reference:
    Feller 1952, Ann. Math. 55, 468; Karlin and Taylor 1981, A Second Course in Stochastic
    Processes, section 15.6.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from sdegen.sde.base import SDE

__all__ = ["EndKind", "classify_end"]

EndKind = Literal["regular", "exit", "entrance", "natural"]

_NEAR, _FAR = (1e-6, 1e-5), (1e4, 1e5)
_TIE = 1e-2  # exponents are read from two decades; nearer than this they are equal


def classify_end(sde: SDE, end: float, *, inward: float, t: float) -> EndKind:
    """Feller's class of one end.

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        end: Its position; ±∞ for no end.
        inward: +1 for a lower end, −1 for an upper one.
        t: Time.

    Returns:
        The class.

    Raises:
        ValueError: If drift or D are no powers beside the end, or not finite there.
    """
    finite = math.isfinite(end)
    distance = torch.tensor(_NEAR if finite else _FAR, dtype=torch.float64)
    x = end + inward * distance if finite else -inward * distance
    time = torch.tensor(t, dtype=torch.float64)
    with torch.no_grad():
        f = sde.drift(x[:, None], time).double()[:, 0] * inward
        g = sde.diffusion(x[:, None], time).double().expand(2, 1)[:, 0]
    d = 0.5 * g**2
    if not bool(torch.isfinite(f).all() & torch.isfinite(d).all() & (d > 0).all()):
        raise ValueError(
            f"the end x = {end:g} cannot be classified: at x = {x.tolist()} the drift is "
            f"{f.tolist()} and D is {d.tolist()}."
        )
    beta = _power(d, distance)
    if bool((f == 0).all()):
        alpha, c = -math.inf, 0.0
    else:
        alpha, c = _power(f.abs(), distance), float(f[0] / d[0])
    if finite:
        return _finite(alpha, beta, c * float(distance[0]))
    return _infinite(alpha, beta, c * float(distance[0]))


def _power(values: torch.Tensor, distance: torch.Tensor) -> float:
    """Exponent between two distances."""
    if bool((values == 0).any()):
        return -math.inf
    return float((values[1] / values[0]).log() / (distance[1] / distance[0]).log())


def _finite(alpha: float, n: float, nu: float) -> EndKind:
    """f ∝ ξ^α inward, D ∝ ξ^n, with ξ f/D → ν if α = n − 1: s ∝ ξ^{−ν}, m ∝ ξ^{ν−n}."""
    if alpha < n - 1 - _TIE and nu != 0:  # the drift overwhelms the noise: e^{±ξ^{α−n+1}}
        arrives = alpha < 1 - _TIE
        if nu > 0:
            return "entrance" if arrives else "natural"
        return "exit" if arrives else "natural"
    nu = nu if abs(alpha - (n - 1)) <= _TIE else 0.0
    if n >= 2 - _TIE:
        return "natural"
    if nu >= 1 - 1e-9:
        return "entrance"
    return "regular" if nu > n - 1 else "exit"


def _infinite(alpha: float, beta: float, c: float) -> EndKind:
    """f ∝ x^α inward, D ∝ x^β, with x f/D → c if α = β − 1."""
    if alpha > beta - 1 + _TIE:  # the drift rules: s or m is exponentially large
        if alpha <= 1 + _TIE:
            return "natural"
        return "entrance" if c > 0 else "exit"
    c = c if abs(alpha - (beta - 1)) <= _TIE else 0.0
    if beta <= 2 + _TIE:
        return "natural"
    # s ∝ x^c, m ∝ x^{−c−β}: finite for c < −1, and for c > 1 − β
    if c >= -1:
        return "entrance"
    return "regular" if c > 1 - beta else "exit"
