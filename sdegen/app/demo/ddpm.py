"""Act 3: DDPM is a discretised VP-SDE up to O(1/N), measured without sampling noise.

The data are a one-dimensional Gaussian mixture, so that the score is known exactly at every t and
nothing is learned. Forward, the chain of DDPM on a grid t_0 < … < t_N *is* the noising SDE seen at
those times, ᾱ_k = Π(1 − β_j) = α(t_k)². Backward there is a gap. On one grid, from the same
N(0, 1), both down to t_min, each sampler is a chain of Gaussian steps over Δt = t_k − t_{k−1},

    reverse SDE, Euler-Maruyama    x − Δt (f − g² score) + √Δt g z
    DDPM, variance "beta"          (x + b² score)/a + b z
    DDPM, variance "posterior"     (x + b² score)/a + b (σ_{k−1}/σ_k) z

whose density after N steps `ChainDensity` finds by quadrature. Between two of them, and between
each and the exact p at t_min, W1 = ∫ |F − G| dx is measured.

**Slopes.** With variance "beta" the steps of the two chains differ by O(Δt²) everywhere, and
W1 ∝ 1/N. The posterior's variance is smaller by b² (1 − σ²_{k−1}/σ²_k) ≈ (β Δt)² α²/σ². Near the
data σ² ≈ β t, and the sum of these over the grid is Δt β Σ Δt/t, with a logarithm of N in it as
long as Δt > t_min. So the slope between N = 100 and 1000 is flatter than −1, to which it tends
when Δt ≪ t_min.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import cumulative_trapezoid, trapezoid
from torch import Tensor
from tqdm import tqdm

from sdegen.core.sde import SDE
from sdegen.diffusion.ddpm import DDPM
from sdegen.diffusion.gaussian_path import VP
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.schedules import LinearBeta
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.verification.chain import ChainDensity

FIT_FROM = 100  # steps; slopes are fitted from here on

_MIXTURE = GaussianMixture([0.3, 0.7], [-1.0, 0.8], stds=[0.3, 0.4])
_REACH = 8.0  # of the grid to both sides of 0: N(0, 2), after one of ten steps, has 2e-8 beyond it


@dataclass(frozen=True)
class ChainGap:
    """Distances in W1 between the laws of three chains of N steps, and to the exact law.

    Attributes:
        steps: N.
        beta: DDPM with variance "beta" to the reverse SDE.
        posterior: DDPM with variance "posterior" to the reverse SDE.
        reverse_sde_error: Reverse SDE by Euler-Maruyama to the exact p at t_min.
        beta_error: DDPM with variance "beta" to the exact p at t_min.
        posterior_error: DDPM with variance "posterior" to the exact p at t_min.
    """

    steps: int
    beta: float
    posterior: float
    reverse_sde_error: float
    beta_error: float
    posterior_error: float


@dataclass(frozen=True)
class Comparison:
    """What Act 3 found.

    Attributes:
        gaps: One entry for each N, increasing.
        beta_slope: d log W1/d log N of `gaps.beta`, fitted from N = 100 on.
        posterior_slope: The same of `gaps.posterior`.
        forward_error: max |Π(1 − β_j)/α(t_k)² − 1| over the longest grid.
        mass_error: Largest |∫p − 1| of all final densities: what the quadrature lost.
        x: Nodes of the densities, shape (nodes,).
        exact: p at t_min there.
        seconds: What it took.
    """

    gaps: tuple[ChainGap, ...]
    beta_slope: float
    posterior_slope: float
    forward_error: float
    mass_error: float
    x: Tensor
    exact: Tensor
    seconds: float


def compare(steps: Sequence[int], *, cells: int, progress: bool = False) -> Comparison:
    """Measure the gap between DDPM and the reverse VP-SDE for growing numbers of steps.

    Args:
        steps: Values of N, increasing; at least two of them ≥ 100.
        cells: Cells of the grid of the densities.
        progress: Whether a progress bar is shown.

    Returns:
        Gaps, slopes, and how exact they are. Nothing is random.
    """
    started = time.perf_counter()
    sde = VP(LinearBeta(0.1, 20.0))
    noised = _MIXTURE.noised(sde)
    grid = Grid(-_REACH, _REACH, cells)
    x = grid.nodes[:, None]
    exact = noised.log_prob(x, torch.tensor(sde.t_min, dtype=torch.float64)).exp()
    prior = Density(grid.nodes, sde.prior_log_prob(x).exp())
    gaps, lost = [], 0.0
    with tqdm(total=3 * sum(steps), disable=not progress, unit="step", desc="laws") as bar:
        for n in steps:
            chain = DDPM.discretize(sde, times=sde.time_grid(n))
            countdown = torch.arange(n, -1, -1, dtype=torch.float64)
            samplers: list[tuple[SDE, Tensor]] = [
                (ReverseSDE(sde, noised.score), sde.time_grid(n)),
                (chain.reverse(noised.score, "beta"), countdown),
                (chain.reverse(noised.score, "posterior"), countdown),
            ]
            laws = []
            for dynamics, times in samplers:
                laws.append(ChainDensity(dynamics, grid).run(prior, times).p[-1])
                bar.update(n)
            song, beta, posterior = laws
            to_song = [_w1(grid.nodes, p, song) for p in (beta, posterior)]
            to_exact = [_w1(grid.nodes, p, exact) for p in laws]
            gaps.append(ChainGap(n, *to_song, *to_exact))
            masses = [float(trapezoid(p.numpy(), grid.nodes.numpy())) for p in laws]
            lost = max(lost, *(abs(mass - 1) for mass in masses))
    fitted = [gap for gap in gaps if gap.steps >= FIT_FROM]
    ns = [gap.steps for gap in fitted]
    return Comparison(
        gaps=tuple(gaps),
        beta_slope=slope(ns, [gap.beta for gap in fitted]),
        posterior_slope=slope(ns, [gap.posterior for gap in fitted]),
        forward_error=_forward_error(sde, max(steps)),
        mass_error=lost,
        x=grid.nodes,
        exact=exact,
        seconds=time.perf_counter() - started,
    )


def slope(n: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of log y over log n, by least squares.

    >>> round(slope([1, 10, 100], [3.0, 0.3, 0.03]), 12)
    -1.0
    """
    return float(np.polyfit(np.log(n), np.log(y), 1)[0])


def _forward_error(sde: VP, steps: int) -> float:
    """Return the relative error of the running product of 1 − β_k as α(t_k)², on DDPM's grid."""
    chain = DDPM.discretize(sde, steps)
    product = (1 - chain.betas).cumprod(0)
    return float((product / sde.alpha(chain.times[1:]).square() - 1).abs().max())


def _w1(x: Tensor, p: Tensor, q: Tensor) -> float:
    """Return ∫ |F − G| dx of two densities on the same nodes."""
    difference = cumulative_trapezoid((p - q).numpy(), x.numpy(), initial=0.0)
    return float(trapezoid(np.abs(difference), x.numpy()))
