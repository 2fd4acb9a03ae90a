"""How long to noise: the time after which KL(p_t ‖ π) is below a tolerance.

π is the stationary law, or N(0, prior_std² I) of a Gaussian path. The divergence falls for good,
at the end as e^{−2λt} with the slowest rate λ that the start excites. It is found

    of a linear process   by its exact law. Of samples or a mixture p_t is a mixture of Gaussians:
                          KL of its mean and covariance in closed form, and the rest of its
                          shape, which falls faster, by draws from it
    on a line, a plane    by Fokker–Planck
    else                  by a simulation: the divergence of its states from those at late times
                          by `prior_mismatch`, and λ from the autocorrelation at rest, λ = −log ρ/τ
                          with the largest generalised eigenvalue ρ of its coordinates and their
                          squares (a lower bound of ρ, so that λ is rather too large), by which
                          the divergence is carried on below what samples show

Reference:
    Risken 1989, section 6.1 (the divergence falls); Noé and Nüske 2013, Multiscale Model. Simul.
    11, 635, eq. (19) (the eigenvalue).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.errors import SolverError
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_number, as_times, check_kind, check_state, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Times
from sdegen.core.solver import Solver
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.diffusion.priors import GaussianPrior
from sdegen.diffusion.relaxation import NoisingTime
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.sde.linear import LinearSDE
from sdegen.sde.transitions import LinearProcess
from sdegen.verification import noised_laws
from sdegen.verification.plane_laws import by_plane

_PRECISION, _COARSE = 1e-6, 1e-4  # relative, of the time: of formulas, of draws and grids
_DOUBLINGS = 60
_FALLS = 1e-9  # KL below which an integral on a grid is rounding


@torch.no_grad()
def noising_time(
    sde: SDE,
    start: State | GaussianMixture | Density | PlaneDensity | float,
    *,
    tolerance: float = 1e-2,
    grid: Grid | tuple[Grid, Grid] | None = None,
    times: Times | None = None,
    solver: Solver | None = None,
    rng: int = 0,
) -> NoisingTime:
    """Return the time after which KL(p_t ‖ π) ≤ tolerance, π the stationary law.

    Args:
        sde: The noising process.
        start: The law of X_0: samples, shape (n, *event), of which one row is a point; a
            `GaussianMixture`; on a line also a `Density` or a number, a point; in the plane a
            `PlaneDensity`. Since KL is convex, no law does worse than the worst point that it
            holds.
        tolerance: KL in nats.
        grid: Of a process on a line that is not linear; None is `Grid.covering(sde)`. Of one of
            two numbers a pair of grids, on which `FokkerPlanck2D` solves it.
        times: Of a simulation: increasing from 0, the last of them long after rest; needed where
            the process is neither linear nor on a line, and no pair of grids is given.
        solver: Of a simulation, as in `simulate`.
        rng: Seed of the draws.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If there is no stationary law, the process changes in time, is a chain or runs
            backwards, a Gaussian path ends before the time, or `times` are needed.
        NotNormalizableError: If a density on a line has no stationary law.
        SolverError: If a simulation was not at rest by its last times, or the tolerance is below
            what can be told.

    Example:
        >>> T = sg.noising_time(sg.OrnsteinUhlenbeck(), torch.tensor([[3.0]]), tolerance=0.01)
        >>> round(T.time, 3), round(T.kl, 6)  # ½ 9 e^{−2t} and a little
        (3.055, 0.01)
    """
    check_kind("sde", sde, SDE, "an SDE, such as OrnsteinUhlenbeck()")
    tolerance = as_number("tolerance", tolerance)
    check_positive("tolerance", tolerance)
    check_no_jumps(sde, "noising_time")
    if sde.is_discrete or sde.direction != 1:
        raise ValueError(
            f"{type(sde).__name__} is a chain or runs backwards in time, and noises nothing: pass "
            "the forward SDE."
        )
    law = _start(start)
    if isinstance(grid, tuple) or isinstance(law, PlaneDensity):
        if times is not None or isinstance(law, Density):
            raise ValueError(
                "a density on a line and times are not for a pair of grids: leave times out, and "
                "pass samples, a GaussianMixture or a PlaneDensity."
            )
        return by_plane(sde, law, tolerance, _pair(grid, law))
    if grid is not None:
        check_kind(
            "grid", grid, Grid, "a Grid, such as Grid(-4.0, 4.0, cells=200), or two of them"
        )
    if times is not None:
        return noised_laws.by_simulation(sde, law, tolerance, as_times(times), solver, rng)
    linear = None if grid is not None or isinstance(law, Density) else _linear(sde, law)
    if linear is not None and not isinstance(law, Density):
        return _by_exact_laws(sde, linear, law, tolerance, rng)
    on_line = isinstance(law, Density) or noised_laws.event_of(law) == (1,)
    if on_line:
        return _on_a_line(sde, law, tolerance, grid)
    raise ValueError(
        f"times are needed, since {type(sde).__name__} is neither linear nor on a line: pass "
        "times=torch.linspace(0.0, T, 41) of a simulation, T long after it is at rest; or, of two "
        "numbers, grid=(Grid(…), Grid(…)) for Fokker–Planck in the plane."
    )


def _by_exact_laws(
    sde: SDE, linear: LinearProcess, law: Tensor | GaussianMixture, tolerance: float, rng: int
) -> NoisingTime:
    """Return the time of a linear process."""
    kl_at = noised_laws.ExactDivergence(sde, linear, law, rng)
    rate = None if isinstance(sde, GaussianPath) else _rate(sde, linear)
    name = "exact law of a linear process"
    if isinstance(sde, GaussianPath):
        last = kl_at(sde.t_max)
        if last > tolerance:
            raise ValueError(
                f"the prior has not been reached at t_max = {sde.t_max:g}: KL(p_t ‖ prior) = "
                f"{last:.3g} nats, above {tolerance:g}. Pass a schedule with more noise, or a "
                "larger tolerance."
            )
        high = sde.t_max
    else:
        high = _first_below(kl_at, 1.0 / (rate or 1.0), tolerance)
    time = _crossing(kl_at, high, tolerance, _COARSE if kl_at.drawn else _PRECISION)
    error = kl_at.standard_error(time)
    if error > 0:
        name += ", its shape by draws"
        error /= 2 * _local_rate(kl_at, time) * kl_at(time)
    return NoisingTime(time, name, rate, kl_at(time), tolerance, error, kl_at)


def _on_a_line(
    sde: SDE, law: Tensor | GaussianMixture | Density, tolerance: float, grid: Grid | None
) -> NoisingTime:
    """Return the time of a process on a line, by Fokker–Planck."""
    if tolerance < _FALLS:
        raise SolverError(
            f"a divergence below {_FALLS:g} is rounding on a grid: pass a larger tolerance than "
            f"{tolerance:g}."
        )
    solver = FokkerPlanck(sde, Grid.covering(sde) if grid is None else grid)
    rest = solver.stationary()
    begin = noised_laws.density_on(solver.grid, law)
    rate = float(solver.spectrum(2).rates[1])

    def kl_at(t: float) -> float:
        return noised_laws.divergence_on_nodes(solver.solve(begin, [0.0, t]).final, rest)

    high = _first_below(kl_at, 1.0 / rate, tolerance)
    time = _crossing(kl_at, high, tolerance, _COARSE)
    return NoisingTime(time, "Fokker–Planck", rate, kl_at(time), tolerance, 0.0, kl_at)


def _first_below(kl_at: Callable[[float], float], guess: float, tolerance: float) -> float:
    """Return a time at which the divergence is below, by doubling."""
    t = guess
    for _ in range(_DOUBLINGS):
        if kl_at(t) <= tolerance:
            return t
        t *= 2
    raise SolverError(f"KL(p_t ‖ prior) is still above {tolerance:g} at t = {t:.3g}.")


def _crossing(
    kl_at: Callable[[float], float], high: float, tolerance: float, precision: float
) -> float:
    """Return the time at which the divergence falls to the tolerance, by bisection."""
    low = 0.0
    while high - low > precision * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if kl_at(middle) <= tolerance else (middle, high)
        if high < 1e-12:
            break
    return high


def _local_rate(kl_at: Callable[[float], float], t: float) -> float:
    """Return half the rate at which the divergence falls."""
    before, after = kl_at(0.99 * t), kl_at(t)
    return max(math.log(before / after) / (0.02 * t), 1e-12)


def _rate(sde: SDE, linear: LinearProcess) -> float:
    """Return the slowest rate of a linear process, or refuse one without a stationary law."""
    found = linear if isinstance(linear, LinearSDE) else LinearSDE.of(sde, 1)
    rate: float = found._slowest()
    return rate


def _pair(grid: object, law: Tensor | GaussianMixture | PlaneDensity) -> tuple[Grid, Grid]:
    """Return the grids of the plane, those of a density where none are given."""
    if grid is None and isinstance(law, PlaneDensity):
        return Grid.of(law.x), Grid.of(law.y)
    if not isinstance(grid, tuple) or len(grid) != 2:
        raise ValueError(f"grid must be a Grid, or a pair of them in the plane, but is {grid!r}.")
    for one in grid:
        check_kind("grid", one, Grid, "a Grid, such as Grid(-4.0, 4.0, cells=60)")
    numbers = 2 if isinstance(law, PlaneDensity) else math.prod(noised_laws.event_of(law))
    if numbers != 2:
        raise ValueError(f"a pair of grids is for states of two numbers, but start has {numbers}.")
    return grid


def _start(start: object) -> Tensor | GaussianMixture | Density | PlaneDensity:
    """Return what a start was given as."""
    if isinstance(start, GaussianMixture | Density | PlaneDensity):
        return start
    if isinstance(start, Sequence) or hasattr(start, "shape"):
        return check_state(start, name="start").detach().double()
    try:
        return torch.tensor([[as_number("start", start)]], dtype=torch.float64)
    except TypeError:
        raise TypeError(
            "start must be the law of X_0: samples of shape (n, *event), a GaussianMixture, a "
            f"Density or a point, but is {kind_of(start)}."
        ) from None


def _linear(sde: SDE, law: Tensor | GaussianMixture) -> LinearProcess | None:
    """Return an SDE as a linear process, or None where it is none."""
    event = noised_laws.event_of(law)
    if isinstance(sde, LinearProcess):
        linear: LinearProcess = sde
    elif sde.noise != "additive" or sde.autonomous is False:
        return None
    else:
        try:
            linear = LinearSDE.of(sde, math.prod(event))
        except (ValueError, TypeError):
            return None
    GaussianPrior.stationary(sde, event)  # refuses what never rests, and other shapes
    return linear
