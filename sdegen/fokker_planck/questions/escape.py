"""Escape over a barrier: the exact rate, and beside it Kramers' formula with its error.

From a well at x_w to an absorbing wall far behind a barrier at x_b the rate is k = 1/⟨τ⟩,
exactly. Where the barrier is high, Laplace's method in ⟨τ⟩ = ∫ s ∫ m gives the formula of Kramers
for overdamped motion,

    k ≈ √(|(log s)″_b| · |(log m)″_w|) / (2π) · 1/(s_b m_w)

with s = exp(−∫ f/D) and m = 1/(sD); for a potential U and constant D it is √(|U″_b| U″_w)/(2π) ·
e^{−ΔU/D}. It is an asymptotic statement: at ΔU = 2.5 kT it is 22 % off.

Reference:
    Kramers 1940, Physica 7, 284, eq. (17); Hänggi, Talkner and Borkovec 1990, Rev. Mod. Phys. 62,
    251, eq. (4.56c).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate
from sdegen.fokker_planck.discretization.fluxes import Landscape
from sdegen.fokker_planck.questions.passage import PassageTimes
from sdegen.fokker_planck.questions.stationary import on_a_line
from sdegen.fokker_planck.questions.two_grids import Answer


@dataclass(frozen=True)
class Escape(Answer):
    """The escape from a well.

    Args:
        rate: 1/⟨τ⟩ from the bottom of the well to the absorbing wall, in units of 1/time.
        kramers: Kramers' formula for it.
        well: x_w.
        barrier: x_b.
        height: The barrier in units of kT, log of m_w D_w/(m_b D_b).
        error: Estimated relative error of `rate`; that of Kramers' formula is `kramers_error`.
    """

    rate: float
    kramers: float
    well: float
    barrier: float
    height: float
    _title = "escape"

    @property
    def kramers_error(self) -> float:
        """What is wrong with Kramers' formula here: kramers/rate − 1."""
        return self.kramers / self.rate - 1


def escape(
    x: Float[Tensor, " nodes"],
    land: Landscape,
    passage: PassageTimes,
    *,
    to_high: bool,
) -> Escape:
    """Return the rate and formula.

    Args:
        x: Nodes.
        land: What drift and diffusion make of the cells between them.
        passage: ⟨τ⟩ from each node to the absorbing wall.
        to_high: Whether the absorbing wall is the upper one.

    Returns:
        The escape from the deepest well.

    Raises:
        ValueError: If there is no barrier between the deepest well and the wall.
    """
    log_m = on_a_line(land.w)
    log_s = -log_m - land.log_d
    w = int(log_m[1:-1].argmax()) + 1
    beyond = slice(w, len(x) - 1) if to_high else slice(1, w + 1)
    b = int(log_s[beyond].argmax()) + (beyond.start or 0)
    between = log_s[min(w, b) : max(w, b) + 1]
    edge = b >= len(x) - 2 if to_high else b <= 1
    if edge or float(between.max() - between.min()) <= 0:
        raise ValueError(
            f"there is no barrier between the well at x = {float(x[w]):g} and the absorbing wall; "
            "move the wall behind it."
        )
    x_w, top_m, bend_m = _extremum(x, log_m, w)
    x_b, top_s, bend_s = _extremum(x, log_s, b)
    formula = (abs(bend_s) * abs(bend_m)) ** 0.5 / (2 * torch.pi)
    kramers = formula * float(torch.exp(torch.tensor(-top_s - top_m, dtype=torch.float64)))
    mean = passage.mean
    value, slope, bend = _parabola(x, mean, w)
    shift = x_w - float(x[w])
    tau = value + slope * shift + bend * shift**2 / 2
    at_nodes = passage.error["mean"]
    assert isinstance(at_nodes, Tensor)
    # ⟨τ⟩ is level at the bottom: the parabola moves it by what it does not know
    error = float(at_nodes[max(w - 1, 0) : w + 2].max()) + 0.1 * abs(tau / float(mean[w]) - 1)
    told = ErrorEstimate({"rate": error}, "two grids")
    return Escape(1 / tau, kramers, x_w, x_b, float(-log_s[w] + log_s[b]), error=told)


def _parabola(x: Tensor, y: Tensor, i: int) -> tuple[float, float, float]:
    """Return the value, slope and curvature at x_i of the parabola through three nodes."""
    left, right = float(x[i] - x[i - 1]), float(x[i + 1] - x[i])
    down, up = float(y[i] - y[i - 1]) / left, float(y[i + 1] - y[i]) / right
    slope = (right * down + left * up) / (left + right)
    return float(y[i]), slope, 2 * (up - down) / (left + right)


def _extremum(x: Tensor, y: Tensor, i: int) -> tuple[float, float, float]:
    """Return the place, value and curvature of the extremum of the parabola at a node."""
    value, slope, bend = _parabola(x, y, i)
    shift = -slope / bend if bend != 0 else 0.0
    return float(x[i]) + shift, value + slope * shift + bend * shift**2 / 2, bend
