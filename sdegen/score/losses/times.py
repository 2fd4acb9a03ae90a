"""Times: at which noise levels a loss is computed, and what a row there counts.

    L = (1/Z) ∫ w(t) ℓ(t) dt = E_{t ~ q} [w(t)/(Z q(t)) ℓ(t)]

The objective is w; the density q of the times decides how noisy one batch is, and nothing else:
the ratio w/(Z q) is that of the density that is drawn from. "importance" is q = w/Z, whose ratio
is 1; "uniform" is uniform in t, "log-snr" uniform in log SNR; a density of one's own is a function
q(t) > 0, of any size. Densities are tables of a few thousand cells in which q is constant, and
where it is w itself that is drawn from, cells are its only error: of an integral 2e-5, of EDM's
weight 1e-4.

**Stratified.** A batch of n has one time in each n-th of the distribution, with one common random
offset. Independent times are the other choice.

**Steps of a chain.** With a DDPM the times are those of k = 1 … N, and sums stand for integrals:
with "simple" that is algorithm 1 of Ho et al.

Reference:
    Kingma et al. 2021, appendix I.1, arXiv:2107.00630, for the common offset; Ho et al. 2020,
    algorithm 1, arXiv:2006.11239.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.kernel import times_between
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting
from sdegen.score.losses.weights import (
    EDM_MEAN,
    EDM_STD,
    WeightFn,
    chain_weights,
    checked,
    path_weight,
)

TimeWord = Literal["importance", "uniform", "log-snr"]

_FLAT = ("simple", "flow-matching")
_BY_LEVEL = ("likelihood", "variational", "edm")
_NODES = 4096
_CELLS = 2048  # of a table by quadrature, of equal lengths in t and of equal lengths in log t
_SAME = 1e-6  # relative difference of α² of a chain and of the path that it should be of
# of Gauss and Legendre on [0, 1], exact for polynomials of degree 7
_POINTS = (0.06943184420297371, 0.33000947820757187, 0.6699905217924281, 0.9305681557970263)
_SHARES = (0.17392742256872692, 0.32607257743127307, 0.32607257743127307, 0.17392742256872692)


@dataclass(frozen=True)
class TimeTable:
    """A distribution of times whose density is constant in cells.

    Args:
        edges: Of the cells, increasing, float64, shape (n + 1,).
        cumulative: Share of the times below each edge, shape (n + 1,), from 0 to 1; None where
            all cells have the same.
    """

    edges: Tensor
    cumulative: Tensor | None = None

    def cell(self, u: Tensor) -> Tensor:
        """Return the index of the cell of a quantile, shape of u."""
        last = len(self.edges) - 2
        if self.cumulative is None:
            return (u * (last + 1)).floor().clamp(0, last).long()
        return (torch.searchsorted(self.cumulative, u, right=True) - 1).clamp(0, last)

    def quantile(self, u: Tensor) -> Tensor:
        """Return the time below which a share u of all times lies."""
        if len(self.edges) == 2:
            return self.edges[0] + (self.edges[1] - self.edges[0]) * u
        i = self.cell(u)
        if self.cumulative is None:
            part = u * (len(self.edges) - 1) - i
        else:
            low, high = self.cumulative[i], self.cumulative[i + 1]
            part = ((u - low) / (high - low)).clamp(0, 1)
        return torch.lerp(self.edges[i], self.edges[i + 1], part)

    def density(self, u: Tensor) -> Tensor:
        """Return q at the time of a quantile, shape of u."""
        i = self.cell(u)
        lengths = self.edges[i + 1] - self.edges[i]
        if self.cumulative is None:
            return 1 / ((len(self.edges) - 1) * lengths)
        return (self.cumulative[i + 1] - self.cumulative[i]) / lengths


class TimeSampler:
    """Times of a weighting in [t_min, t_max], and what a row at each counts.

    Args:
        sde: The noising path; None where `weight` and `span` say what it would.
        weighting: A word, or a function w(t).
        times: A word, or a function q(t): the density that is drawn from.
        weight: w(t), in the place of the word's.
        span: t_min and t_max, in the place of the path's.

    Attributes:
        total: Z = ∫ w dt.

    Raises:
        ValueError: If a weight or density is negative or not finite, or all weights are 0.
    """

    def __init__(
        self,
        sde: GaussianPath | None,
        weighting: Weighting | WeightFn,
        times: TimeWord | WeightFn = "importance",
        *,
        weight: WeightFn | None = None,
        span: tuple[float, float] | None = None,
    ) -> None:
        self.sde = sde
        if span is None:
            assert sde is not None
            span = (sde.t_min, sde.t_max)
        self.span = span
        if weight is None:
            assert sde is not None
            weight = path_weight(sde, weighting)
        self._weight = weight
        edges, masses = _quadrature(weight, span)
        self.total: float = float(masses.sum())
        if not self.total > 0:
            raise ValueError(
                f"weighting(t) is 0 from t_min = {span[0]:g} to t_max = {span[1]:g}, so that no "
                "noise level counts; give weights > 0 somewhere."
            )
        word = weighting if isinstance(weighting, str) and sde is not None else ""
        self._ratio_is_one = times == "importance" or (times == "uniform" and word in _FLAT)
        if times == "uniform" or (times == "importance" and word in _FLAT):
            self._table = TimeTable(torch.tensor(span, dtype=torch.float64))
        elif times == "log-snr" or (times == "importance" and word in _BY_LEVEL):
            assert sde is not None
            self._table = _by_level(sde, "likelihood" if times == "log-snr" else word)
        elif times == "importance":
            self._table = _by_mass(edges, masses)
        else:
            density = checked(times, "times", positive=True)
            self._table = _by_mass(*_quadrature(density, span))

    def quantile(self, u: Tensor) -> Tensor:
        """Return the time below which a share u of all times lies; float64, shape of u."""
        return self._table.quantile(u)

    def ratio(self, u: Tensor, t: Tensor) -> Tensor | None:
        """Return w/(Z q) at the times t of quantiles u, shape of u; None where it is 1."""
        if self._ratio_is_one:
            return None
        return self._weight(t) / (self.total * self._table.density(u))

    def per_density(self, u: Tensor) -> Tensor:
        """Return 1/(Z q) at the times of quantiles u, where the weight is in the error."""
        return 1 / (self.total * self._table.density(u))


class StepSampler:
    """Steps k = 1 … N of a chain in the place of times, and what a row at each counts.

    Args:
        sde: The path that the model is of.
        chain: The chain.
        weighting: A word, or a function w(t).
        times: A word, or a function q(t): what the probability of a step is proportional to.

    Attributes:
        total: Z = Σ w_k.

    Raises:
        ValueError: If the chain is not that of the path, or the weighting has none.
    """

    def __init__(
        self,
        sde: GaussianPath,
        chain: DDPM,
        weighting: Weighting | WeightFn,
        times: TimeWord | WeightFn = "importance",
    ) -> None:
        self.times: Tensor = chain.times[1:]
        alphas = sde.alpha(self.times).double()
        _check_chain(sde, chain, alphas)
        self.weights: Tensor = chain_weights(chain, alphas, weighting)
        self.total: float = float(self.weights.sum())
        if not self.total > 0:
            raise ValueError("weighting(t) is 0 at all steps of the chain; give weights > 0.")
        if times == "importance":
            chances = self.weights
        elif times == "uniform":
            chances = torch.ones_like(self.weights)
        elif times == "log-snr":
            chances = chain_weights(chain, alphas, "log-snr")
        else:
            chances = checked(times, "times", positive=True)(self.times)
        self._chances = chances / chances.sum()
        self._cumulative = self._chances.cumsum(0)

    def steps(self, u: Tensor) -> Tensor:
        """Return the step k, 1 … N, below which a share u of all lies; integers, shape of u."""
        last = int(self._chances.nonzero()[-1])
        return torch.searchsorted(self._cumulative, u, right=True).clamp(max=last) + 1

    def chances(self, u: Tensor) -> Tensor:
        """Return the probability of the steps of quantiles u, shape of u."""
        return self._chances[self.steps(u) - 1]

    def quantile(self, u: Tensor) -> Tensor:
        """Return the continuous time of that step; float64, shape of u."""
        return self.times[self.steps(u) - 1]

    def ratio(self, u: Tensor, t: Tensor) -> Tensor | None:
        """Return w_k/(Z q_k) of the steps of quantiles u, shape of u."""
        k = self.steps(u) - 1
        return self.weights[k] / (self.total * self._chances[k])


def _by_level(sde: GaussianPath, weighting: str) -> TimeTable:
    """Return equal shares of the log of the noise-to-signal ratio, or of EDM's normal of it."""
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    ends = sde.kernel.log_ratio(ends).detach().double().cpu()
    shares = torch.linspace(0, 1, _NODES, dtype=torch.float64)
    levels = torch.lerp(ends[:1], ends[1:], shares)
    if weighting == "edm":  # between which equal shares of N(−1.2, 1.2²) lie
        low, high = torch.special.ndtr((ends - EDM_MEAN) / EDM_STD)
        levels = EDM_MEAN + EDM_STD * torch.special.ndtri(torch.lerp(low, high, shares))
    return TimeTable(times_between(sde.kernel, levels, sde.t_min, sde.t_max))


def _by_mass(edges: Tensor, masses: Tensor) -> TimeTable:
    """Return cells with the masses given, of any size."""
    cumulative = torch.cat([masses.new_zeros(1), masses.cumsum(0)])
    return TimeTable(edges, cumulative / cumulative[-1])


def _quadrature(w: WeightFn, span: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return edges of cells and ∫ w of each, by four points in each cell."""
    low, high = span
    even = torch.linspace(low, high, _CELLS + 1, dtype=torch.float64)
    fine = torch.logspace(0, 1, _CELLS + 1, base=high / low, dtype=torch.float64) * low
    edges = torch.unique(torch.cat([even, fine[1:-1]]))
    points = torch.tensor(_POINTS, dtype=torch.float64)
    lengths = edges.diff()
    at = edges[:-1, None] + lengths[:, None] * points
    values = w(at.flatten()).detach().double().cpu().reshape(at.shape)
    return edges, lengths * (values * torch.tensor(_SHARES, dtype=torch.float64)).sum(1)


def _check_chain(sde: GaussianPath, chain: DDPM, alphas: Tensor) -> None:
    """Refuse a chain whose noise levels are not those of the path."""
    off = (alphas.square() - chain.alpha_bars).abs() > _SAME * chain.alpha_bars.clamp(min=1e-30)
    sigmas = sde.sigma(chain.times[1:]).double()
    off |= (sigmas - chain.sigmas[1:]).abs() > _SAME * sigmas
    if bool(off.any()):
        k = int(off.nonzero()[0])
        mine = f"α² = {float(alphas[k].square()):.6g} and σ = {float(sigmas[k]):.6g}"
        theirs = f"α² = {float(chain.alpha_bars[k]):.6g} and σ = {float(chain.sigmas[k + 1]):.6g}"
        raise ValueError(
            f"steps are those of another process: at k = {k + 1}, t = "
            f"{float(chain.times[k + 1]):g}, this chain has {theirs}, but the "
            f"{type(sde).__name__} of the model {mine}; make it by "
            "DDPM.discretize(model.sde, steps=…)."
        )
