"""What `noising_time` asks of a noised law: its divergence from the prior at a time.

Of a linear process X_t | X_0 ~ N(Φ X_0 + m, Σ), so that samples of X_0 and mixtures are mixtures
at t, and with N_t the Gaussian of p_t's mean and covariance

    KL(p_t ‖ π) = KL(N_t ‖ π) + KL(p_t ‖ N_t)

The first is exact; the second is 0 of a point and of a Gaussian, else the mean of log r + 1/r − 1,
r = p_t/N_t, over draws from p_t, the same ones at each t: no term is negative, and E 1/r = 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.core.errors import SolverError
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.diffusion.mismatch import gaussian_kl
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.diffusion.priors import GaussianPrior
from sdegen.diffusion.relaxation import NoisingTime, noising_time_of, rest_of
from sdegen.engine.simulate import simulate
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid, control_volumes
from sdegen.sde.transitions import LinearProcess

_COMPONENTS = 500  # of a mixture of samples
_LEAST_DRAWS, _MOST_DRAWS, _PAIRS = 4000, 100_000, 2_000_000  # from it, and with components
_TRAJECTORIES = 4000  # of a simulation


def event_of(law: Tensor | GaussianMixture | Density) -> tuple[int, ...]:
    """Return the shape of one state."""
    if isinstance(law, GaussianMixture):
        return (law.dim,)
    return (1,) if isinstance(law, Density) else tuple(law.shape[1:])


class ExactDivergence:
    """KL(p_t ‖ π) of a linear process, called with t.

    Args:
        sde: The process.
        linear: The same as one with a transition.
        law: Samples or a mixture.
        rng: Seed of the draws.
    """

    def __init__(
        self, sde: SDE, linear: LinearProcess, law: Tensor | GaussianMixture, rng: int
    ) -> None:
        self._linear, event = linear, event_of(law)
        flat = GaussianPrior.stationary(sde, event)
        self._prior = GaussianPrior(flat.mean.flatten(), flat.matrix())
        source = stream(rng, "noising time")
        if isinstance(law, GaussianMixture):
            self._weights, self._means = law.weights, law.means
            c = torch.einsum("kij,kj,klj->kil", law.axes, law.variances, law.axes)
            self._mean, self._covariance, self._own = law.mean, law.covariance, c
        else:
            x = law.flatten(1)
            self._mean = x.mean(0)
            off = x - self._mean
            self._covariance = off.T @ off / len(x)
            if len(x) > _COMPONENTS:
                x = x[torch.randperm(len(x), generator=source.generator())[:_COMPONENTS]]
            self._weights = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
            self._means, self._own = x, torch.zeros(1, x.shape[1], x.shape[1], dtype=torch.float64)
        self.drawn: bool = len(self._weights) > 1
        if self.drawn:
            many = min(max(_PAIRS // len(self._weights), _LEAST_DRAWS), _MOST_DRAWS)
            draws, d = source.generator(), self._means.shape[1]
            self._which = torch.multinomial(self._weights, many, replacement=True, generator=draws)
            self._z = torch.randn(many, d, generator=draws, dtype=torch.float64)

    def __call__(self, t: float) -> float:
        """Return the divergence in nats; ∞ where p_t has no density."""
        gaussian, rest = self._parts(t)
        return gaussian if rest is None else gaussian + max(float(rest.mean()), 0.0)

    def standard_error(self, t: float) -> float:
        """Return that of the divergence; 0 where nothing is drawn."""
        rest = self._parts(t)[1]
        return 0.0 if rest is None else float(rest.std()) / math.sqrt(len(rest))

    def _parts(self, t: float) -> tuple[float, Tensor | None]:
        """Return the Gaussian part, and each draw's part of the rest."""
        step, d = self._linear.transition(0.0, t), len(self._mean)
        eye = torch.eye(d, dtype=torch.float64)
        phi, spread = (m * eye if m.ndim == 0 else m for m in (step.matrix, step.covariance))
        mean = step.mean(self._mean[None])[0]
        covariance = phi @ self._covariance @ phi.T + spread
        gaussian = gaussian_kl(mean, covariance, self._prior)
        own = phi @ self._own @ phi.T + spread
        roots, failed = torch.linalg.cholesky_ex(own)
        if bool(failed.any()):
            return math.inf, None
        if not self.drawn or not math.isfinite(gaussian):
            return gaussian, None
        means = step.mean(self._means)
        which = self._which if len(roots) > 1 else torch.zeros_like(self._which)
        x = means[self._which] + (roots[which] @ self._z[..., None])[..., 0]
        log_p = self._log_density(x, means, roots)
        whole = torch.linalg.cholesky(covariance)
        white = torch.linalg.solve_triangular(whole, (x - mean).T, upper=False)
        log_n = -0.5 * white.square().sum(0) - whole.diagonal().log().sum()
        # of two estimates of one mean: where p_t is far from Gaussian, 1/r has a heavy tail
        excess = log_p - log_n
        other = excess + torch.expm1(-excess)
        return gaussian, min((excess, other), key=lambda each: float(each.std()))

    def _log_density(self, x: Tensor, means: Tensor, roots: Tensor) -> Tensor:
        """Return log p_t but for the factor (2π)^{−d/2}, shape (draws,)."""
        if len(roots) == 1:  # all components have one covariance: distances between whitened
            white = torch.linalg.solve_triangular(roots[0], x.T, upper=False).T
            centres = torch.linalg.solve_triangular(roots[0], means.T, upper=False).T
            squares = torch.cdist(white, centres).square()
        else:
            off = (x[None] - means[:, None]).mT
            squares = torch.linalg.solve_triangular(roots, off, upper=False).square().sum(1).T
        volume = roots.diagonal(dim1=1, dim2=2).log().sum(1)
        return torch.logsumexp(self._weights.log() - 0.5 * squares - volume, 1)


def density_on(grid: Grid, law: Tensor | GaussianMixture | Density) -> Density | float:
    """Return a start on a grid: a point, or a density; samples are shared between nodes."""
    x = grid.nodes
    if isinstance(law, GaussianMixture):
        return Density(x, law.log_prob(x[:, None]).exp()).normalized()
    if isinstance(law, Density):
        return Density(x, law.at(x)).normalized()
    points = law.flatten()
    if len(points) == 1:
        return float(points[0])
    low, high = float(points.min()), float(points.max())
    if not grid.low < low <= high < grid.high:
        raise ValueError(
            f"start reaches from {low:g} to {high:g}, beyond the grid from {grid.low:g} to "
            f"{grid.high:g}: pass grid= with ends that hold it."
        )
    cell = (torch.searchsorted(x, points, right=True) - 1).clamp(0, grid.cells - 1)
    share = (points - x[cell]) / grid.widths[cell]
    masses = torch.zeros_like(x).index_add(0, cell, 1 - share).index_add(0, cell + 1, share)
    return Density(x, masses / control_volumes(grid.widths)).normalized()


def divergence_on_nodes(p: Density, rest: Density) -> float:
    """Return KL(p ‖ rest) of two densities on the same nodes."""
    weight = control_volumes(rest.x.diff())
    kept = rest.p > 0
    a, b = p.p[kept].clamp(min=0.0), rest.p[kept]
    ratio = a / b
    # r log r − r + 1, of which no term is negative
    each = torch.where(ratio > 0, torch.xlogy(ratio, ratio) - ratio + 1, 1.0)
    return float((weight[kept] * b * each).sum())


def by_simulation(
    sde: SDE,
    law: Tensor | GaussianMixture | Density,
    tolerance: float,
    times: Tensor,
    solver: Solver | None,
    rng: int,
) -> NoisingTime:
    """Return the noising time of any process, by trajectories."""
    if float(times[0]) != 0 or not bool((times.diff() > 0).all()) or len(times) < 8:
        raise ValueError(
            "times of a simulation must increase from 0 and be eight or more, but are "
            f"{times.tolist()[:4]} …"
        )
    source = stream(rng, "noising time, simulation")
    seeds = [source.child(f"{k}").key % 2**63 for k in range(3)]
    starts = [_drawn(law, _TRAJECTORIES, seed) for seed in seeds[:2]]
    options = {"solver": solver, "threads": 1}
    path = simulate(sde, starts[0], times, rng=seeds[2], **options)  # type: ignore[arg-type]
    other = simulate(  # what p_t is compared with is not of the same trajectories
        sde,
        starts[1],
        times,
        rng=seeds[0],
        keep_path=False,
        **options,  # type: ignore[arg-type]
    )
    rest = rest_of(path.states, times)
    if not rest.reached:
        raise SolverError(
            f"{type(sde).__name__} was not at rest by t = {float(times[-1]) - rest.span:.3g}: a "
            f"mean has moved by {rest.moved:.2g} standard errors until t = {float(times[-1]):.3g}"
            f", in which it forgets by e^−{rest.rate * rest.span:.2g}. Pass longer times; it may "
            "have no stationary law."
        )
    found = noising_time_of(path.states, other.final, times, rest, tolerance)
    if found is None:
        raise SolverError(
            f"KL(p_t ‖ prior) is below what {_TRAJECTORIES} trajectories show at all times from "
            f"t = {float(times[1]):.3g} on: pass times that begin earlier."
        )
    return found


def _drawn(law: Tensor | GaussianMixture | Density, n: int, seed: int) -> Tensor:
    """Draw starts."""
    if isinstance(law, GaussianMixture):
        return law.sample(n, rng=seed, dtype=torch.float64)
    draws = stream(seed, "starts").generator()
    if isinstance(law, Density):
        return law.quantile(torch.rand(n, generator=draws, dtype=torch.float64))[:, None]
    return law[torch.randint(len(law), (n,), generator=draws)]
