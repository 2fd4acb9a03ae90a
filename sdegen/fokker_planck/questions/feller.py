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
from collections.abc import Iterator
from typing import Literal

import torch

from sdegen.core.jumps import check_no_jumps
from sdegen.core.reduction import reduced
from sdegen.core.requests import as_number, check_kind
from sdegen.core.sde import SDE
from sdegen.fokker_planck.discretization import time_dependence as clock

BoundaryClass = Literal["regular", "exit", "entrance", "natural"]

_NEAR, _FAR = (1e-6, 1e-5), (1e4, 1e5)
_NOT_FAR = 10.0  # nearer than this nothing is known about ∞
_TIE = 1e-2  # exponents are read from two decades; nearer than this they are equal


def classify_boundary(
    sde: SDE, end: float, *, inward: Literal[1, -1] | None = None, t: float | None = None
) -> BoundaryClass:
    """Return Feller's class of one end of the states of a one-dimensional SDE.

        s′(x) = exp(−∫ f/D dx),     m′(x) = 1/(D s′),     D = g²/2

    Args:
        sde: Dynamics with a state of shape (batch, 1).
        end: Its position; ±∞ for no end. It need not be the end of a grid, nor one that a grid can
            have.
        inward: +1 for a lower end, −1 for an upper one; None takes the side on which drift and
            noise exist.
        t: Time at which drift and diffusion are taken; None takes one at which they exist.

    Returns:
        The class.

    Raises:
        ValueError: If drift or D are no powers beside the end, or not finite there, or the process
            exists on both sides of it.

    Reference:
        Karlin and Taylor 1981, section 15.6.

    Example:
        >>> import math
        >>> root = sg.ItoProcess(drift=lambda x: 0.2 - x, diffusion=lambda x: x.sqrt())
        >>> sg.classify_boundary(root, 0.0), sg.classify_boundary(root, math.inf)
        ('regular', 'natural')
    """
    check_kind("sde", sde, SDE, "an SDE, such as ItoProcess(drift, diffusion)")
    check_no_jumps(sde, "classify_boundary")
    sde = reduced(sde, "classify_boundary")
    end = as_number("end", end)
    t = clock.start(sde) if t is None else t
    if inward is None:
        inward = _side(sde, end, t)
    for x, distance in _approaches(end, inward):  # noqa: B007 (the last one is used)
        f, d = _read(sde, x, inward, t)
        if bool(torch.isfinite(f).all() & torch.isfinite(d).all() & (d > 0).all()):
            break  # else: nearer, a drift may overflow or a noise vanish on the way to ∞
    else:
        raise ValueError(
            f"the end x = {end:g} cannot be classified: at x = {x.tolist()} the drift is "
            f"{f.tolist()} and D is {d.tolist()}."
        )
    beta = _power(d, distance)
    if bool((f == 0).all()):
        alpha, c = -math.inf, 0.0
    else:
        alpha, c = _power(f.abs(), distance), float(f[0] / d[0])
    classify = _finite if math.isfinite(end) else _infinite
    return classify(alpha, beta, c * float(distance[0]))


def _approaches(end: float, inward: float) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield two places beside the end, and their distances; nearer ones towards ∞ if asked."""
    if math.isfinite(end):
        distance = torch.tensor(_NEAR, dtype=torch.float64)
        yield end + inward * distance, distance
        return
    distance = torch.tensor(_FAR, dtype=torch.float64)
    while float(distance[0]) > _NOT_FAR:
        yield -inward * distance, distance
        distance = 0.5 * distance


def _read(sde: SDE, x: torch.Tensor, inward: float, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return f inward, and D."""
    time = torch.tensor(t, dtype=torch.float64)
    with torch.no_grad():
        f = sde.drift(x[:, None], time).double()[:, 0] * (inward * sde.direction)
        g = sde.diffusion(x[:, None], time).double().expand(len(x), 1)[:, 0]
    return f, 0.5 * g**2


def _side(sde: SDE, end: float, t: float) -> Literal[1, -1]:
    """Return the side of an end on which drift and noise exist."""
    if not math.isfinite(end):
        return 1 if end < 0 else -1
    distance = torch.tensor(_NEAR, dtype=torch.float64)
    sides: list[Literal[1, -1]] = []
    for side in (1, -1):
        f, d = _read(sde, end + side * distance, side, t)
        if bool(torch.isfinite(f).all() & torch.isfinite(d).all() & (d > 0).all()):
            sides.append(1 if side > 0 else -1)
    if len(sides) == 1:
        return sides[0]
    where = "on both sides" if sides else "on neither side"
    raise ValueError(
        f"drift and noise exist {where} of x = {end:g}; pass inward=1 for a lower end, inward=-1 "
        "for an upper one."
    )


def _power(values: torch.Tensor, distance: torch.Tensor) -> float:
    """Return the exponent between two distances."""
    if bool((values == 0).any()):
        return -math.inf
    return float((values[1] / values[0]).log() / (distance[1] / distance[0]).log())


def _finite(alpha: float, n: float, nu: float) -> BoundaryClass:
    """Return f ∝ ξ^α inward, D ∝ ξ^n, with ξ f/D → ν if α = n − 1: s ∝ ξ^{−ν}, m ∝ ξ^{ν−n}."""
    half = round(2 * n) / 2  # x(1 − x) is x beside 0, where 0 and n − 1 are to be told apart
    n = half if abs(n - half) < _TIE else n
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


def _infinite(alpha: float, beta: float, c: float) -> BoundaryClass:
    """Return f ∝ x^α inward, D ∝ x^β, with x f/D → c if α = β − 1."""
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
