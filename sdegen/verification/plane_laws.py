"""The noising time of a process of two numbers, by Fokker–Planck in the plane.

p_t is carried on a grid, over times that are doubled, until KL(p_t ‖ π) is a thirtieth of the
tolerance; π is the density at rest on the same grid. λ is half the rate at which KL falls between
the tolerance and there: the real part of the slowest rate that the start excites.
"""

from __future__ import annotations

import math

import torch
from scipy import optimize
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.errors import SolverError
from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.diffusion.relaxation import NoisingTime
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from sdegen.fokker_planck.discretization.grid import Grid

_POINTS = 500  # of samples that are a start
_BEYOND = 30.0  # of the tolerance, until which a divergence is followed
_LOOKS, _DOUBLINGS = 8, 20  # times in a doubling, and doublings
_FALLS = 1e-7  # KL below which what is left is of the grid
_CLOSE = 1e-4  # of the time


def by_plane(
    sde: SDE,
    law: Tensor | GaussianMixture | PlaneDensity,
    tolerance: float,
    grids: tuple[Grid, Grid],
) -> NoisingTime:
    """Return the noising time of a process in the plane.

    Args:
        sde: Forward dynamics of two numbers, or an `UnderdampedLangevin` of one position.
        law: The start: samples, a mixture or a density.
        tolerance: KL in nats.
        grids: The grid of each number.
    """
    if tolerance < _FALLS * _BEYOND:
        raise SolverError(
            f"a divergence below {_FALLS * _BEYOND:g} is that of the grid in the plane: pass a "
            f"larger tolerance than {tolerance:g}."
        )
    solver = FokkerPlanck2D(sde, grids)
    rest = solver.stationary()
    seen = [(0.0, _density_on(solver, law))]
    kls = [_divergence(seen[0][1], rest)]
    end = _first_time(sde, rest)
    for _ in range(_DOUBLINGS):
        t, p = seen[-1]
        times = torch.linspace(t, end, _LOOKS + 1, dtype=torch.float64)
        seen += list(zip(times[1:].tolist(), solver.solve(_onward(p), times)[1:], strict=True))
        kls = [*kls, *(_divergence(p, rest) for _, p in seen[len(kls) :])]
        if kls[-1] <= tolerance / _BEYOND:
            break
        end *= 2
    else:
        raise SolverError(f"KL(p_t ‖ prior) is still above {tolerance:g} at t = {end / 2:.3g}.")

    def kl_at(t: float) -> float:
        before = max(k for k, (s, _) in enumerate(seen) if s <= t)
        s, p = seen[before]
        if t == s:
            return kls[before]
        return _divergence(solver.solve(_onward(p), [s, t])[-1], rest)

    below = next(k for k, kl in enumerate(kls) if kl <= tolerance)
    time = 0.0
    if below:
        low, high = seen[below - 1][0], seen[below][0]
        time = float(
            optimize.brentq(
                lambda t: math.log(max(kl_at(t), 1e-300) / tolerance), low, high, rtol=_CLOSE
            )
        )
    kl, span = kl_at(time), seen[-1][0] - time
    rate = 0.5 * math.log(kl / kls[-1]) / span
    return NoisingTime(time, "Fokker–Planck in the plane", rate, kl, tolerance, 0.0, kl_at)


def _first_time(sde: SDE, rest: PlaneDensity) -> float:
    """Return tr Cov/tr D at rest: the relaxation time of a process that turns in no way."""
    middle = rest.mean[None] if not sde.phase_space else rest.mean.reshape(1, 2, 1)
    spread = covariance_matrix(sde, middle, torch.zeros((), dtype=torch.float64))[0] / 2
    return float(rest.covariance.trace() / spread.double().trace())


def _density_on(
    solver: FokkerPlanck2D, law: Tensor | GaussianMixture | PlaneDensity
) -> PlaneDensity:
    """Return a start at the nodes of a solver; samples are shared between nodes."""
    if isinstance(law, PlaneDensity):
        return law
    if isinstance(law, GaussianMixture):
        blank = solver.gaussian(tuple(law.mean.tolist()), law.covariance)
        x, y = torch.meshgrid(blank.x, blank.y, indexing="ij")
        p = law.log_prob(torch.stack([x, y], -1).reshape(-1, 2)).exp().reshape(x.shape)
        return _normalized(blank, p)
    points = law.flatten(1)
    if len(points) > _POINTS:
        source = stream(0, "noising time in the plane").generator()
        points = points[torch.randperm(len(points), generator=source)[:_POINTS]]
    each = [solver.point(x, y) for x, y in points.tolist()]
    return _normalized(each[0], torch.stack([one.p for one in each]).mean(0))


def _normalized(like: PlaneDensity, p: Tensor) -> PlaneDensity:
    """Return values at the nodes of a density as one of mass 1."""
    mass = float((like.weights * p).sum())
    return PlaneDensity(like.x, like.y, p / mass, rings=like.rings, phase_space=like.phase_space)


def _onward(p: PlaneDensity) -> PlaneDensity:
    """Return a density as a start, without what is below 0 to its accuracy."""
    return _normalized(p, p.p.clamp(min=0.0))


def _divergence(p: PlaneDensity, rest: PlaneDensity) -> float:
    """Return KL(p ‖ rest) of two densities on the same nodes."""
    kept = rest.p > 0
    a, b, weight = p.p[kept].clamp(min=0.0), rest.p[kept], rest.weights[kept]
    ratio = (a / p.mass) / (b / rest.mass)
    # r log r − r + 1, of which no term is negative
    each = torch.where(ratio > 0, torch.xlogy(ratio, ratio) - ratio + 1, 1.0)
    return float((weight * b * each).sum())
