"""The certificate: what simulated trajectories are worth, with a reason for every doubt.

What is assumed is given apart from what is simulated, and the way from one to the other is cut
into pieces that fail for one cause each:

    trajectories ──sampling──► law of the chain ──step──► law of the SDE ──reference──► U or p

- *Sampling*: the trajectories against the exact law of the chain that the assumed SDE gives under
  the solver (`ChainDensity`). There is no bias in this comparison, however long the step, so that
  what fails is a mistake: another drift, another noise, another step. Where a solver has no such
  law, the density of the SDE stands for it. The mistake is looked for among the usual ones.
- *Step*: total variation between the law of the chain and the Fokker–Planck density, a number
  without chance: the bias that remains however many trajectories are drawn.
- *Reference*: the Fokker–Planck density against a Boltzmann density or one that was given.
- *Grid*: the density at its ends, and what a refinement changes. If these fail, nothing else is
  judged. Between walls the ends are part of the problem: states are folded back, wrapped or
  stopped in simulation, chain and density alike; where some are absorbed, it is counted how many
  are left, and those are judged.

`false_alarm` is the chance that an exact simulation is refused, for the certificate as a whole: it
is shared out evenly between the tests (Bonferroni).
"""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.enclosure import BoundaryLike
from sdegen.core.errors import SdegenError
from sdegen.core.gradients import check_no_gradient
from sdegen.core.noise import Rng, seed_of, stream
from sdegen.core.noise_structure import check_diagonal
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.door import check_dynamics, check_times
from sdegen.engine.simulate import simulate
from sdegen.fokker_planck.checks import check_start
from sdegen.fokker_planck.density import Density, DensityPath
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.grid_boundary import GridBoundary, GridBoundaryLike, boundary_of_grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.sde.potentials import Potential, as_potential
from sdegen.core.shapes import State
from sdegen.engine.door import check_dynamics, check_times
from sdegen.engine.simulate import simulate
from sdegen.core.solver import Solver
from sdegen.solvers.native import EulerMaruyama
from sdegen.core.trajectory import Trajectory
from sdegen.verification.chain import edge_ratio, start_point
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation
from sdegen.verification.fault_hypotheses import matching_hypotheses
from sdegen.verification.reference import (
    Energy,
    boltzmann_checks,
    check_reference,
    density_check,
)
from sdegen.verification.refined import chain_law, refined
from sdegen.verification.sampling import (
    TESTS,
    sampling_checks,
    smallest_seen,
    survivors_check,
)

__all__ = ["Certificate", "certify"]

_OWN_CHECK = 1.0  # densities do not refine themselves: the grid has a check of its own
_FAR = 100.0  # ends of the grid: moments of what has exploded say nothing


@dataclass(frozen=True)
class Certificate:
    """The checks of a simulation, and what they say.

    Attributes:
        checks: All of them, in the order from the grid to the trajectories.
        law: The law that trajectories were compared with, at all times.
        density: The Fokker–Planck density, or None where there is none.
        path: The trajectories.
        summary: What is wrong and what to change, or that nothing is.
    """

    checks: tuple[Check, ...]
    law: DensityPath | None
    density: DensityPath | None
    path: Trajectory | None
    summary: str

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")

    def __str__(self) -> str:
        return "\n".join([self.summary, *map(str, self.checks)])


def certify(
    sde: SDE,
    grid: Grid,
    p0: Density | float,
    times: Tensor | Sequence[float],
    *,
    solver: Solver | None = None,
    simulated: SDE | None = None,
    path: Trajectory | None = None,
    potential: Energy | Callable[[State], Tensor] | None = None,
    temperature: float = 1.0,
    density: Density | None = None,
    boundary: GridBoundaryLike | None = None,
    trajectories: int = 10_000,
    limits: Limits | None = None,
    false_alarm: float = 1e-5,
    rng: Rng = None,
    progress: bool = False,
) -> Certificate:
    """Certify trajectories, or a solver, against the laws that their SDE implies.

    Args:
        sde: The equation that the trajectories should follow, with a state of shape (batch, 1).
        grid: Uniform nodes on which densities are computed.
        p0: Density at times[0] on the grid, or a point.
        times: Times at which trajectories are judged, the first being the start.
        solver: How the trajectories move; EulerMaruyama() by default.
        simulated: What is simulated, if it is not `sde` itself.
        path: Trajectories that were simulated at these times, from p0; if None, they are now.
        potential: U of an assumed stationary density e^{−U/T}: a `Potential`, or any object that
            has an energy(x).
        temperature: T of that density.
        density: The assumed density at the last time.
        boundary: What walls at the ends of the grid do, or a pair (lower, upper): "no-flux",
            "absorbing" or "periodic"; None if the state is free. A path must have been simulated
            with the same boundary, such as Reflecting(grid.low, grid.high).
        trajectories: How many are simulated.
        limits: What is allowed where no chance is in it.
        false_alarm: Chance to refuse an exact simulation, of all tests together.
        rng: Seed, generator or None.
        progress: Whether a line on stderr says what is being computed.

    Returns:
        The certificate.

    Raises:
        ValueError: If arguments contradict each other, or something is refused that `simulate`,
            `ChainDensity` or `FokkerPlanck` refuse.
    """
    ts, solver = check_times(times), EulerMaruyama() if solver is None else solver
    started = time.monotonic()

    def tell(what: str) -> None:
        if progress:
            sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {what}\n")
            sys.stderr.flush()

    limits = Limits() if limits is None else limits
    for dynamics in (sde, simulated or sde):
        check_dynamics(dynamics, solver, ts, None)
        check_diagonal(dynamics, "certify")
    point = start_point(p0)
    p0 = p0 if point is None else point
    _check_start(p0, grid)
    for dynamics in (sde, simulated or sde):
        check_no_gradient(
            dynamics, grid.nodes[1:-1:8, None], ts[0], "a certificate", networks=True
        )
    ends = None if boundary is None else boundary_of_grid(boundary, grid, physical_walls=True)
    absorbs = ends is not None and any(ends.absorbs)
    unbridged = ends is not None and absorbs and not any(ends.bridged)
    _check(path, simulated, ts, false_alarm, trajectories, limits)
    _check_inside(ends, path, density)
    energy: Energy | None
    if callable(potential) and not isinstance(potential, Potential):
        energy = as_potential(potential)  # a function U(x)
    else:
        energy = potential
    check_reference(density, energy, temperature, grid)
    tell("the law of the chain")
    chain, no_chain = _chain_law(sde, grid, solver, p0, ts, boundary)
    tell("the Fokker–Planck density")
    exact, no_density, refined = _density(sde, grid, p0, ts, boundary)
    law = chain if chain is not None else exact
    if law is None:
        raise ValueError(
            f"there is no law to compare with: of the chain, since {no_chain} Of the SDE, since "
            f"{no_density}"
        )
    edge = [] if ends is not None else [_edge(law, grid, limits)]
    checks = [*edge, _resolution(exact, refined, no_density, limits)]
    sound = all(check.verdict == "passed" for check in edge)
    checks.append(
        _step(chain, exact, no_chain or no_density, solver, ts, limits, sound, unbridged)
    )
    if density is not None:
        checks.append(density_check(density, exact, grid, limits))
    if energy is not None:
        checks += boltzmann_checks(energy, temperature, sde, exact, grid, limits, boundary)
    if path is None:
        tell(f"{trajectories} trajectories")
        inside = None if ends is None else ends.boundary
        path = _simulated(simulated or sde, p0, ts, solver, trajectories, seed_of(rng), inside)
    checks.append(_finite(path))
    tests = TESTS + absorbs
    each = false_alarm / (tests * (len(ts) - 1))
    if sound:
        checks += _samples(path, law, each, ends)
    else:
        checks.append(Check.skipped("samples", false_alarm, "the grid cuts the law."))
    summary = _summary(checks, law, path, each, ends)
    if any(check.verdict == "failed" and check.time is not None for check in checks):
        if chain is not None:
            tell("what mistake explains the samples")
        fits = (
            _fault_hypotheses(path, sde, solver, grid, p0, ts, boundary)
            if chain is not None
            else []
        )
        summary += f" They behave as if {', or as if '.join(fits)}." if fits else ""
    return Certificate(tuple(checks), law, exact, path, summary)


def _check_start(p0: object, grid: object) -> None:
    """Raise if grid is not a grid, or the start not one on it."""
    if not hasattr(grid, "nodes") or not hasattr(grid, "point"):
        raise TypeError(
            f"grid must be a Grid, but is {type(grid).__name__}; pass Grid(low, high, cells)."
        )
    if isinstance(p0, int | float):
        grid.point(p0)  # says if it lies outside
    else:
        check_start(p0, grid, may_lack=False)  # type: ignore[arg-type]


def _check(
    path: Trajectory | None,
    simulated: SDE | None,
    times: Tensor,
    false_alarm: float,
    trajectories: int,
    limits: Limits,
) -> None:
    """Raise if arguments have wrong types, or contradict each other."""
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must lie in (0, 1), but is {false_alarm:g}.")
    if isinstance(trajectories, bool) or not isinstance(trajectories, int):
        raise TypeError(f"trajectories must be an int, but is {type(trajectories).__name__}.")
    if not hasattr(limits, "relaxation"):
        raise TypeError(
            f"limits must be Limits(…) or None, but is {type(limits).__name__}; pass "
            "sdegen.verification.check.Limits(step=0.02)."
        )
    if trajectories < 100:
        raise ValueError(f"trajectories must be at least 100 for a test, but is {trajectories}.")
    if path is None:
        return
    if not hasattr(path, "nonfinite"):
        raise TypeError(
            f"path must be a Trajectory, as simulate returns it, but is {type(path).__name__}."
        )
    if simulated is not None:
        raise ValueError("give simulated, or the path that came of it, one of the two.")
    if path.times.shape != times.shape or not torch.allclose(path.times.double(), times):
        raise ValueError(
            f"path has {len(path.times)} times from {float(path.times[0]):g} to "
            f"{float(path.times[-1]):g}, but {len(times)} from {float(times[0]):g} to "
            f"{float(times[-1]):g} are to be judged; pass times=path.times."
        )
    if path.states.ndim != 3 or path.states.shape[2] != 1:
        raise ValueError(
            "path must hold one-dimensional states, shape (T, batch, 1), but has shape "
            f"{tuple(path.states.shape)}."
        )


def _check_inside(
    ends: GridBoundary | None, path: Trajectory | None, density: Density | None
) -> None:
    """Refuse a path that leaves the boundary, and an assumed density where mass is absorbed."""
    if ends is None:
        return
    if path is not None:
        low, high = (float(end) for end in _kept(path).aminmax())
        if low < ends.low or high > ends.high:
            raise ValueError(
                f"path reaches from {low:g} to {high:g}, but boundary is for states between "
                f"{ends.low:g} and {ends.high:g}; simulate it with "
                f"boundary={ends.boundary!r}, or leave the boundary "
                "out."
            )
    if density is not None and any(ends.absorbs):
        raise ValueError(
            "density must have mass 1, and behind an absorbing wall the law has less; leave it "
            "out, or pass another boundary."
        )


def _chain_law(
    sde: SDE,
    grid: Grid,
    solver: Solver,
    p0: Density | float,
    times: Tensor,
    boundary: GridBoundaryLike | None,
) -> tuple[DensityPath | None, str]:
    """Return the law of the chain, or why there is none."""
    try:
        return chain_law(sde, grid, solver, p0, times, boundary), ""  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return None, str(error)


def _density(
    sde: SDE,
    grid: Grid,
    p0: Density | float,
    times: Tensor,
    boundary: GridBoundaryLike | None,
) -> tuple[DensityPath | None, str, DensityPath | None]:
    """Return the Fokker–Planck density, or why there is none, and the same on half the spacing."""
    fine = Grid(grid.low, grid.high, 2 * grid.cells)
    start = p0 if isinstance(p0, int | float) else refined(p0, fine)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the edges have a check of their own
            paths = [
                FokkerPlanck(sde, g, boundary or "no-flux", physical_walls=True).solve(
                    p, times, rtol=_OWN_CHECK
                )
                for g, p in ((grid, p0), (fine, start))
            ]
        return paths[0], "", paths[1]
    except (TypeError, ValueError, SdegenError) as error:
        return None, str(error), None


def _edge(law: DensityPath, grid: Grid, limits: Limits) -> Check:
    """Check how much of the law the grid cuts."""
    ratio = edge_ratio(law)
    high = bool((law.p[:, -1] > law.p[:, 0])[int(ratio.argmax())])
    return Check.of_value(
        "density at the ends of the grid, of its peak",
        float(ratio.max()),
        limits.edge,
        f"The grid [{grid.low:g}, {grid.high:g}] is too small: widen it towards "
        f"{'high' if high else 'low'} x, or pass boundary=… if its ends are walls.",
    )


def _resolution(
    exact: DensityPath | None, refined: DensityPath | None, why: str, limits: Limits
) -> Check:
    """Check what half the spacing changes."""
    name = "total variation when the grid is refined"
    if exact is None or refined is None:
        return Check.skipped(name, limits.resolution, why)
    change = max(
        total_variation(exact.at(k), Density(exact.x, refined.p[k, ::2]))
        for k in range(1, len(exact))
    )
    return Check.of_value(
        name,
        change,
        limits.resolution,
        f"The grid of {len(exact.x) - 1} cells is too coarse for the density: take more.",
    )


def _step(
    chain: DensityPath | None,
    exact: DensityPath | None,
    why: str,
    solver: Solver,
    times: Tensor,
    limits: Limits,
    sound: bool,
    unbridged: bool,
) -> Check:
    """Check the bias of the step."""
    name = "total variation between the chain and the SDE"
    if chain is None or exact is None:
        return Check.skipped(name, limits.step, why)
    if not sound:
        return Check.skipped(name, limits.step, "the grid cuts the law.")
    bias = max(total_variation(chain.at(k), exact.at(k)) for k in range(1, len(chain)))
    dt = float(solver.nodes(times).diff().abs().max())
    # without bridges, paths that touch a wall between two steps are not absorbed
    order = 0.5 if unbridged else 1.0
    enough = dt * (limits.step / bias) ** (1 / order) if bias > 0 else dt
    return Check.of_value(
        name,
        bias,
        limits.step,
        f"The step is too long: with dt = {dt:.3g} the law is off by {bias:.2g} in total "
        f"variation, however many trajectories are drawn; the bias falls with "
        f"{'dt' if order == 1 else '√dt'}: take dt ≤ {enough:.2g}.",
    )


def _simulated(
    sde: SDE,
    p0: Density | float,
    times: Tensor,
    solver: Solver,
    count: int,
    seed: int,
    boundary: BoundaryLike | None,
) -> Trajectory:
    """Simulate trajectories from p0, whose quantiles are the starts."""
    if isinstance(p0, int | float):
        x0 = torch.full((count,), float(p0), dtype=torch.float64)
    else:
        source = stream(seed, "certificate").generator()
        x0 = p0.quantile(torch.rand(count, generator=source, dtype=torch.float64))
    return simulate(
        sde, x0[:, None], times, solver=solver, rng=seed, boundary=boundary, on_nonfinite="freeze"
    )


def _finite(path: Trajectory) -> Check:
    """Check that no trajectory diverged."""
    lost = int((path.nonfinite | ~path.states.isfinite().all(0)[:, 0]).sum())
    return Check.of_value(
        "share of trajectories that were lost",
        lost / len(path.nonfinite),
        0.0,
        f"{lost} of {len(path.nonfinite)} trajectories became NaN or infinite: take a shorter "
        "step, and look for a drift that does not confine.",
    )


def _kept(path: Trajectory) -> Tensor:
    """Return the states of finite trajectories, shape (T, finite, 1)."""
    return path.states[:, ~path.nonfinite & path.states.isfinite().all(0)[:, 0]]


def _samples(
    path: Trajectory, law: DensityPath, false_alarm: float, ends: GridBoundary | None
) -> list[Check]:
    """Test the samples at all times but the first."""
    states, checks = _kept(path), []
    for k in range(1, len(law)):
        when, left = float(law.times[k]), _unabsorbed(states[k], ends)
        if ends is not None and any(ends.absorbs):
            checks.append(
                survivors_check(
                    len(left),
                    len(states[k]),
                    float(law.at(k).mass),
                    false_alarm=false_alarm,
                    time=when,
                )
            )
        if len(left) > 0:
            checks += sampling_checks(left, law.at(k), false_alarm=false_alarm, time=when)
    return checks


def _unabsorbed(x: Tensor, ends: GridBoundary | None) -> Tensor:
    """Return the states of shape (n, 1) that sit on no absorbing wall."""
    if ends is None:
        return x
    inside = torch.ones(len(x), dtype=torch.bool)
    if ends.absorbs[0]:
        inside &= x[:, 0] > ends.low
    if ends.absorbs[1]:
        inside &= x[:, 0] < ends.high
    return x[inside]


def _fault_hypotheses(
    path: Trajectory,
    sde: SDE,
    solver: Solver,
    grid: Grid,
    p0: Density | float,
    times: Tensor,
    boundary: GridBoundaryLike | None,
) -> list[str]:
    """Return the mistakes whose law the trajectories follow."""
    states = _kept(path)
    if states.shape[1] == 0:
        return []
    return matching_hypotheses(
        states[-1],
        sde,
        solver,  # type: ignore[arg-type]
        grid,
        p0,
        times,
        boundary,
    )


def _summary(
    checks: list[Check],
    law: DensityPath,
    path: Trajectory,
    false_alarm: float,
    ends: GridBoundary | None,
) -> str:
    """Sum up the checks, and what they could not have detected."""
    failed = [check for check in checks if check.verdict == "failed"]
    n = len(path.nonfinite)
    if not failed:
        step = next((check.value for check in checks if "the chain and" in check.name), None)
        bias = "" if step is None or math.isnan(step) else f" (bias of the step: {step:.1g})"
        skipped = [
            f"{check.name} ({check.remark})" for check in checks if check.value != check.value
        ]
        rest = f" Not judged: {'; '.join(skipped)}" if skipped else ""
        seen = ""
        left = len(_unabsorbed(_kept(path)[-1], ends))
        if left > 0 and any(check.time is not None for check in checks):
            shift, spread = smallest_seen(law.final, left, false_alarm=false_alarm)
            seen = (
                f" At t = {float(law.times[-1]):g} {left} of them show a mean that is off by "
                f"{shift:.2g}, or a standard deviation by {100 * spread:.2g} %, nine times in "
                "ten; less may be unseen."
            )
        return f"{n} trajectories follow the law that is believed{bias}.{seen}{rest}"
    remarks = list(dict.fromkeys(check.remark for check in failed if check.remark))
    sampled = [check for check in failed if check.time is not None]
    if sampled:
        worst = sampled[-1]
        k = int((law.times - (worst.time or 0.0)).abs().argmin())
        x = _unabsorbed(_kept(path)[k], ends)
        names = ", ".join(dict.fromkeys(check.name for check in sampled))
        moments = ""
        if len(x) > 1 and float(x.abs().max()) < _FAR * float(law.x.abs().max()):
            moments = (
                f": their mean is {float(x.mean()):.4g}, not {float(law.at(k).mean):.4g}, and "
                f"their standard deviation {float(x.std()):.4g}, not {float(law.at(k).std):.4g}"
            )
        remarks.append(
            f"{n} trajectories do not follow the law that is believed at t = {worst.time:g} "
            f"({names}){moments}. Check the drift, the noise and the step that are simulated."
        )
    return " ".join(remarks)
