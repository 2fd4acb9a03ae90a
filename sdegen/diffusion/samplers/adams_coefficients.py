"""Coefficients of the exponential Adams methods: reverse dynamics with the score as a polynomial.

In y = x/α, on the clock r = σ/α, the reverse dynamics of a Gaussian path are

    dy = c ε dr + η dB,      c = 1 + η²,      B of variance |d(r²)|,      ε = −σ score = (y − x0)/r

so that all there is to know is ε along the way. Part of it can be taken from the state: for any
function m(r), with μ = d log m/d log r,

    ε = (μ/r) y − (μ/r) x0 + (1 − μ) ε

The part in y is solved exactly, together with its noise; x0 and ε are what a network is asked
for, and become polynomials in λ = −log r. So m is what a *prediction* amounts to: it says which
multiple of the state, x/(α m), the method follows.

    eps   m = 1          follows x/α         polynomial in ε
    x0    m = r          follows x/σ         polynomial in x0
    v     m = √(1 + r²)  follows x/√(α²+σ²)  polynomial in both, as they stand in v = α ε − σ x0

From t to s, with L_j the Lagrange polynomials of the nodes λ_j that are remembered,

    x_s = A x_t + Σ_j (X_j x0_j + E_j ε_j) + S z
    A   = (α_s/α_t) (m_s/m_t)^c
    X_j =  c α_s ∫_t^s (m_s/m)^c μ L_j dλ
    E_j = −c α_s ∫_t^s (m_s/m)^c (1 − μ) r L_j dλ
    S²  = 2 η² α_s² ∫_t^s (m_s/m)^{2c} r² dλ

The integrals are by a composite Gauss–Legendre rule, exact to rounding for steps up to Δλ = 20:
the closed forms (φ-functions) cancel where steps are short. All of it is computed once, before
the loop, in float64. With one node, L_0 = 1, the three predictions agree for η = 0: X_0 and E_0
are then those of DDIM, whatever m is.

What is assumed: σ/α is strictly monotone along the nodes, and the SDE is a Gaussian path.

References:
    Zhang and Chen 2023 (DEIS), eqs. (11) and (15), arXiv:2204.13902; Lu et al. 2022, eq. (9) of
    DPM-Solver++, arXiv:2211.01095; Gonzalez et al. 2023 (SEEDS), section 4, arXiv:2305.14267.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from sdegen.core.kernel import Kernel
from sdegen.core.requests import first_true

Prediction = Literal["eps", "x0", "v"]
Rule = Literal["exact", "midpoint"]

_POINTS = 32
_LONGEST, _MOST = 5.0, 4  # Δλ of a panel, and panels of a step

# log m and μ of a prediction, as functions of λ
_LOG_SCALE: dict[str, Callable[[Tensor], Tensor]] = {
    "eps": torch.zeros_like,
    "x0": torch.neg,
    "v": lambda lam: 0.5 * softplus(-2 * lam),
}
_SHARE: dict[str, Callable[[Tensor], Tensor]] = {
    "eps": torch.zeros_like,
    "x0": torch.ones_like,
    "v": lambda lam: torch.sigmoid(-2 * lam),
}


@dataclass(frozen=True, eq=False)
class Coefficients:
    """A linear multistep method on states and scores, float64 on the CPU, K nodes remembered.

        x_{i+1} = A_i x_i + Σ_j [P_ij x_{i−j} + Q_ij score(x_{i−j}, t_{i−j})] + S_i z

    Attributes:
        decay: A, shape (steps,).
        states: P, shape (steps, K); column j belongs to node i − j.
        scores: Q, shape (steps, K).
        noise: S, shape (steps,).
        again: P' and Q', shape (2, K), where node 1 is evaluated twice: x_1, corrected by
            Σ_j [P'_j x_{1−j} + Q'_j score_{1−j}], stands for x_1 in all sums then. Else None.

    Example:
        >>> path, score = sg.EDM(t_min=1.0, t_max=3.0), lambda x, t: -x / (1 + t**2)  # of N(0, 1)
        >>> flow, x_T = sg.ReverseSDE(path, score, eta=0.0), torch.full((1, 1), 10.0)
        >>> table = sg.ExponentialAdams(order=1).coefficients(flow, torch.tensor([3.0, 1.0]))
        >>> f"{table.decay.item() + table.states.item():.4f}, {table.scores.item():.4f}"
        '1.0000, 6.0000'
    """

    decay: Tensor
    states: Tensor
    scores: Tensor
    noise: Tensor
    again: Tensor | None = None


class Integrals:
    """The integrals of a run: decay, noise, and the weights of x0 and ε between its nodes.

    Args:
        kernel: α and σ.
        eta: η of the reverse dynamics.
        nodes: Shape (steps + 1,), float64.
        prediction: "eps", "x0" or "v".

    Raises:
        ValueError: If σ/α is not strictly monotone along the nodes.
    """

    def __init__(self, kernel: Kernel, eta: float, nodes: Tensor, prediction: Prediction) -> None:
        self.alpha: Tensor = kernel.alpha(nodes)
        self.sigma: Tensor = kernel.sigma(nodes)
        self.lam: Tensor = torch.log(self.alpha) - torch.log(self.sigma)
        self.eta: float = eta
        self._c = 1 + eta**2
        self._log_scale, self._share = _LOG_SCALE[prediction], _SHARE[prediction]
        lam, t = self.lam.detach(), nodes.detach()
        slope = lam.diff()
        if (i := first_true(~(slope * slope.sum().sign() > 0))) is not None:
            raise ValueError(
                f"σ/α must be strictly monotone along the nodes, but t = {float(t[i]):g} and "
                f"{float(t[i + 1]):g} have λ = log(α/σ) = {float(lam[i]):g} and "
                f"{float(lam[i + 1]):g}: does the schedule stand still there?"
            )

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.lam) - 1

    def decay(self, start: Tensor, end: Tensor) -> Tensor:
        """Return A from node `start` to node `end`, index tensors of one shape."""
        scale = self._log_scale(self.lam)
        growth = torch.exp(self._c * (scale[end] - scale[start]))
        return self.alpha[end] / self.alpha[start] * growth

    def noise(self) -> Tensor:
        """Return S of each step, shape (steps,)."""
        if self.eta == 0:
            return torch.zeros_like(self.lam[:-1])
        i = torch.arange(self.steps)
        lam, weight, scale = self._points(i, i + 1)
        squared = (weight * torch.exp(2 * self._c * scale - 2 * lam)).sum(1)
        return self.eta * self.alpha[1:] * torch.sqrt(2 * squared)

    def weights(self, start: Tensor, end: Tensor, seen: Tensor, rule: Rule = "exact") -> Tensor:
        """Return X_j and E_j of steps from node `start` to node `end`.

        Args:
            start: Indices of nodes, shape (m,).
            end: Likewise.
            seen: Indices of the nodes that are interpolated, shape (m, k).
            rule: "exact", or "midpoint": L_j is frozen at the middle of the step.

        Returns:
            Shape (2, m, k): X and E.
        """
        lam, weight, scale = self._points(start, end)
        share = self._share(lam)
        kernel = self._c * self.alpha[end][:, None] * weight * torch.exp(self._c * scale)
        both = torch.stack([kernel * share, -kernel * (1 - share) * torch.exp(-lam)])
        if rule == "midpoint":
            middle = 0.5 * (self.lam[start] + self.lam[end])
            return both.sum(2)[:, :, None] * _lagrange(self.lam[seen], middle[:, None])[:, 0]
        return torch.einsum("bmg,mgk->bmk", both, _lagrange(self.lam[seen], lam))

    def on_states_and_scores(self, weights: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return P and Q from X and E, with x0 = (x + σ² score)/α and ε = −σ score."""
        alpha, sigma = self.alpha[seen], self.sigma[seen]
        of_x0, of_eps = weights
        return of_x0 / alpha, of_x0 * sigma.square() / alpha - of_eps * sigma

    def _points(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return points λ, weights dλ, and log(m_s/m) of the quadrature, shape (m, points)."""
        first, last = self.lam[start][:, None], self.lam[end][:, None]
        longest = float((last - first).detach().abs().max()) if len(first) else 0.0
        fractions, weights = _composite(min(max(math.ceil(longest / _LONGEST), 1), _MOST))
        lam = first + fractions * (last - first)
        return lam, weights * (last - first), self._log_scale(last) - self._log_scale(lam)


def _lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """Return L_j of nodes (m, k) at points (m, g), shape (m, g, k)."""
    k = nodes.shape[1]
    gaps = nodes[:, :, None] - nodes[:, None, :]
    basis = []
    for j in range(k):
        others = [i for i in range(k) if i != j]
        factors = (at[:, :, None] - nodes[:, None, others]) / gaps[:, None, j, others]
        basis.append(factors.prod(2))
    return torch.stack(basis, 2)


@cache
def _composite(panels: int) -> tuple[Tensor, Tensor]:
    """Return points in [0, 1] and weights of a composite Gauss–Legendre rule."""
    x, w = np.polynomial.legendre.leggauss(_POINTS)
    points = (np.arange(panels)[:, None] + 0.5 * (x + 1)) / panels
    weights = np.tile(0.5 * w / panels, panels)
    return torch.from_numpy(points.reshape(-1)), torch.from_numpy(weights)
