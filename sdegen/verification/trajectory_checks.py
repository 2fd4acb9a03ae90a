"""Trajectories of a certificate, and the tests of their states against a law."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.noise import stream
from sdegen.core.sde import SDE
from sdegen.core.trajectory import Trajectory
from sdegen.engine.simulate import simulate
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundary
from sdegen.verification.check import Check
from sdegen.verification.problem import Problem
from sdegen.verification.sampling import sampling_checks, survivors_check


def simulate_from(problem: Problem, sde: SDE, count: int, seed: int) -> Trajectory:
    """Simulate trajectories of an SDE as the problem says; quantiles of p0 are the starts."""
    if isinstance(problem.p0, int | float):
        x0 = torch.full((count,), float(problem.p0), dtype=torch.float64)
    else:
        source = stream(seed, "certificate").generator()
        x0 = problem.p0.quantile(torch.rand(count, generator=source, dtype=torch.float64))
    return simulate(
        sde,
        x0[:, None],
        problem.times,
        solver=problem.solver,
        rng=seed,
        boundary=None if problem.ends is None else problem.ends.boundary,
        on_nonfinite="freeze",
    )


def finite_check(path: Trajectory) -> Check:
    """Check that no trajectory diverged."""
    lost = int((path.nonfinite | ~path.states.isfinite().all(0)[:, 0]).sum())
    return Check.of_value(
        "share of trajectories that were lost",
        lost / len(path.nonfinite),
        0.0,
        f"{lost} of {len(path.nonfinite)} trajectories became NaN or infinite: take a shorter "
        "step, and look for a drift that does not confine.",
    )


def valid_states(path: Trajectory) -> Tensor:
    """Return the states of finite trajectories, shape (T, finite, 1)."""
    return path.states[:, ~path.nonfinite & path.states.isfinite().all(0)[:, 0]]


def sample_checks(
    path: Trajectory, law: DensityPath, false_alarm: float, ends: GridBoundary | None
) -> list[Check]:
    """Test the samples at all times but the first."""
    states, checks = valid_states(path), []
    for k in range(1, len(law)):
        when, left = float(law.times[k]), unabsorbed(states[k], ends)
        if ends is not None and any(ends.absorbs):
            count, mass = len(states[k]), float(law.at(k).mass)
            checks.append(survivors_check(len(left), count, mass, false_alarm, when))
        if len(left) > 0:
            checks += sampling_checks(left, law.at(k), false_alarm=false_alarm, time=when)
    return checks


def unabsorbed(x: Tensor, ends: GridBoundary | None) -> Tensor:
    """Return the states of shape (n, 1) that sit on no absorbing wall."""
    if ends is None:
        return x
    inside = torch.ones(len(x), dtype=torch.bool)
    if ends.absorbs[0]:
        inside &= x[:, 0] > ends.low
    if ends.absorbs[1]:
        inside &= x[:, 0] < ends.high
    return x[inside]
