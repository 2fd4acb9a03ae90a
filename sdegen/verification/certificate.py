"""The certificate: what simulated trajectories are worth, with a reason for every doubt.

What is believed is given apart from what is simulated, and the way from one to the other is cut
into pieces that fail for one cause each:

    trajectories ──sampling──► law of the chain ──step──► law of the SDE ──belief──► U or p

- *Sampling*: the trajectories against the exact law of the chain that the believed SDE gives under
  the solver (`ChainDensity`). There is no bias in this comparison, however long the step, so that
  what fails is a mistake: another drift, another noise, another step. Where a solver has no such
  law, the density of the SDE stands for it. The mistake is looked for among the usual ones.
- *Step*: total variation between the law of the chain and the Fokker–Planck density, a number
  without chance: the bias that remains however many trajectories are drawn.
- *Belief*: the Fokker–Planck density against a Boltzmann density or one that was given.
- *Grid*: the density at its ends, and what a refinement changes. If these fail, nothing else is
  judged.

`false_alarm` is the chance that an exact simulation is refused, for the certificate as a whole: it
is shared out evenly between the tests (Bonferroni).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.errors import SdegenError
from sdegen.fokker_planck.checks import check_start
from sdegen.fokker_planck.density import Density, DensityPath
from sdegen.fokker_planck.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.noise import Rng, seed_of, stream
from sdegen.sde.base import SDE
from sdegen.simulation.door import check_dynamics, check_times
from sdegen.simulation.simulate import simulate
from sdegen.solvers.base import Solver
from sdegen.solvers.native import EulerMaruyama
from sdegen.trajectory import Trajectory
from sdegen.verification.belief import (
    Energy,
    boltzmann_checks,
    check_belief,
    density_check,
)
from sdegen.verification.chain import edge_ratio
from sdegen.verification.check import Check, Limits
from sdegen.verification.distances import total_variation
from sdegen.verification.refined import chain_law, refined
from sdegen.verification.sampling import TESTS, sampling_checks
from sdegen.verification.suspects import suspects_that_fit

__all__ = ["Certificate", "certify"]

_FAR = 100.0  # ends of the grid: moments of what has exploded say nothing


@dataclass(frozen=True)
class Certificate:
    """The checks of a simulation, and what they say.

    Attributes:
        checks: All of them, in the order from the grid to the trajectories.
        law: The law that trajectories were compared with, at all times.
        density: The Fokker–Planck density, or None where there is none.
        path: The trajectories.
        sentence: What is wrong and what to change, or that nothing is.
    """

    checks: tuple[Check, ...]
    law: DensityPath | None
    density: DensityPath | None
    path: Trajectory | None
    sentence: str

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "failed")

    def __str__(self) -> str:
        return "\n".join([self.sentence, *map(str, self.checks)])


def certify(
    sde: SDE,
    grid: Grid,
    p0: Density | float,
    times: Tensor | Sequence[float],
    *,
    solver: Solver | None = None,
    simulated: SDE | None = None,
    path: Trajectory | None = None,
    potential: Energy | None = None,
    temperature: float = 1.0,
    density: Density | None = None,
    trajectories: int = 10_000,
    limits: Limits | None = None,
    false_alarm: float = 1e-5,
    rng: Rng = None,
) -> Certificate:
    """Certifies trajectories, or a solver, against what is believed of them.

    Args:
        sde: The equation that the trajectories should follow, with a state of shape (batch, 1).
        grid: Uniform nodes on which densities are computed.
        p0: Density at times[0] on the grid, or a point.
        times: Times at which trajectories are judged, the first being the start.
        solver: How the trajectories move; EulerMaruyama() unless said.
        simulated: What is simulated, if it is not `sde` itself.
        path: Trajectories that were simulated at these times, from p0; if None, they are now.
        potential: U of a stationary density e^{−U/T} that is believed: a `Potential`, or whatever
            has an energy(x).
        temperature: T of that density.
        density: Density that is believed at the last time.
        trajectories: How many are simulated.
        limits: What is allowed where no chance is in it.
        false_alarm: Chance to refuse an exact simulation, of all tests together.
        rng: Seed, generator or None.

    Returns:
        The certificate.

    Raises:
        ValueError: If arguments contradict each other, or something is refused that `simulate`,
            `ChainDensity` or `FokkerPlanck` refuse.
    """
    ts, solver = check_times(times), EulerMaruyama() if solver is None else solver
    limits = Limits() if limits is None else limits
    for dynamics in (sde, simulated or sde):
        check_dynamics(dynamics, solver, ts, None)
    _check_start(p0, grid)
    _check(path, simulated, ts, false_alarm, trajectories, limits)
    check_belief(density, potential, temperature, grid)
    chain, no_chain = _chain_law(sde, grid, solver, p0, ts)
    exact, no_density, refined = _density(sde, grid, p0, ts)
    law = chain if chain is not None else exact
    if law is None:
        raise ValueError(
            f"there is no law to compare with: of the chain, since {no_chain} Of the SDE, since "
            f"{no_density}"
        )
    checks = [_edge(law, grid, limits), _resolution(exact, refined, no_density, limits)]
    sound = checks[0].verdict == "passed"
    checks.append(_step(chain, exact, no_chain or no_density, solver, ts, limits, sound))
    if density is not None:
        checks.append(density_check(density, exact, grid, limits))
    if potential is not None:
        checks += boltzmann_checks(potential, temperature, sde, exact, grid, limits)
    if path is None:
        path = _simulated(simulated or sde, p0, ts, solver, trajectories, seed_of(rng))
    checks.append(_finite(path))
    if sound:
        checks += _samples(path, law, false_alarm / (TESTS * (len(ts) - 1)))
    else:
        checks.append(Check.skipped("samples", false_alarm, "the grid cuts the law."))
    sentence = _sentence(checks, law, path)
    if any(check.verdict == "failed" and check.time is not None for check in checks):
        fits = _suspects(path, sde, solver, grid, p0, ts) if chain is not None else []
        sentence += f" They behave as if {', or as if '.join(fits)}." if fits else ""
    return Certificate(tuple(checks), law, exact, path, sentence)


def _check_start(p0: object, grid: object) -> None:
    """Refuses a grid that is none, and a start that is none on it."""
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
    """Refuses arguments that are none, or contradict each other."""
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm must lie in (0, 1), but is {false_alarm:g}.")
    if isinstance(trajectories, bool) or not isinstance(trajectories, int):
        raise TypeError(f"trajectories must be an int, but is {type(trajectories).__name__}.")
    if not hasattr(limits, "relaxation"):
        raise TypeError(
            f"limits must be Limits(…) or None, but is {type(limits).__name__}; pass "
            "Limits(step=0.02)."
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


def _chain_law(
    sde: SDE, grid: Grid, solver: Solver, p0: Density | float, times: Tensor
) -> tuple[DensityPath | None, str]:
    """The law of the chain, or why there is none."""
    try:
        return chain_law(sde, grid, solver, p0, times), ""  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return None, str(error)


def _density(
    sde: SDE, grid: Grid, p0: Density | float, times: Tensor
) -> tuple[DensityPath | None, str, DensityPath | None]:
    """The Fokker–Planck density, or why there is none, and the same on half the spacing."""
    fine = Grid(grid.low, grid.high, 2 * grid.cells)
    start = p0 if isinstance(p0, int | float) else refined(p0, fine)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the edges have a check of their own
            paths = [
                FokkerPlanck(sde, g, physical_walls=True).solve(p, times)
                for g, p in ((grid, p0), (fine, start))
            ]
        return paths[0], "", paths[1]
    except (TypeError, ValueError, SdegenError) as error:
        return None, str(error), None


def _edge(law: DensityPath, grid: Grid, limits: Limits) -> Check:
    """How much of the law the grid cuts."""
    ratio = edge_ratio(law)
    high = bool((law.p[:, -1] > law.p[:, 0])[int(ratio.argmax())])
    return Check.of_value(
        "density at the ends of the grid, of its peak",
        float(ratio.max()),
        limits.edge,
        f"The grid [{grid.low:g}, {grid.high:g}] is too small: widen it towards "
        f"{'high' if high else 'low'} x.",
    )


def _resolution(
    exact: DensityPath | None, refined: DensityPath | None, why: str, limits: Limits
) -> Check:
    """What half the spacing changes."""
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
) -> Check:
    """The bias of the step."""
    name = "total variation between the chain and the SDE"
    if chain is None or exact is None:
        return Check.skipped(name, limits.step, why)
    if not sound:
        return Check.skipped(name, limits.step, "the grid cuts the law.")
    bias = max(total_variation(chain.at(k), exact.at(k)) for k in range(1, len(chain)))
    dt = float(solver.nodes(times).diff().abs().max())
    return Check.of_value(
        name,
        bias,
        limits.step,
        f"The step is too long: with dt = {dt:.3g} the law is off by {bias:.2g} in total "
        f"variation, however many trajectories are drawn; the bias falls with dt: take dt ≤ "
        f"{dt * limits.step / bias if bias > 0 else dt:.2g}.",
    )


def _simulated(
    sde: SDE, p0: Density | float, times: Tensor, solver: Solver, count: int, seed: int
) -> Trajectory:
    """Trajectories from p0, which is drawn from by its quantiles."""
    if isinstance(p0, int | float):
        x0 = torch.full((count,), float(p0), dtype=torch.float64)
    else:
        source = stream(seed, "certificate").generator()
        x0 = p0.quantile(torch.rand(count, generator=source, dtype=torch.float64))
    return simulate(sde, x0[:, None], times, solver=solver, rng=seed, on_nonfinite="freeze")


def _finite(path: Trajectory) -> Check:
    """Trajectories that were lost."""
    lost = int((path.nonfinite | ~path.states.isfinite().all(0)[:, 0]).sum())
    return Check.of_value(
        "share of trajectories that were lost",
        lost / len(path.nonfinite),
        0.0,
        f"{lost} of {len(path.nonfinite)} trajectories became NaN or infinite: take a shorter "
        "step, and look for a drift that does not confine.",
    )


def _kept(path: Trajectory) -> Tensor:
    """The states of trajectories that were not lost, shape (T, kept, 1)."""
    return path.states[:, ~path.nonfinite & path.states.isfinite().all(0)[:, 0]]


def _samples(path: Trajectory, law: DensityPath, false_alarm: float) -> list[Check]:
    """The tests of all times but the first."""
    states = _kept(path)
    if states.shape[1] == 0:
        return []
    return [
        check
        for k in range(1, len(law))
        for check in sampling_checks(
            states[k], law.at(k), false_alarm=false_alarm, time=float(law.times[k])
        )
    ]


def _suspects(
    path: Trajectory, sde: SDE, solver: Solver, grid: Grid, p0: Density | float, times: Tensor
) -> list[str]:
    """Mistakes whose law the trajectories follow."""
    states = _kept(path)
    if states.shape[1] == 0:
        return []
    return suspects_that_fit(states[-1], sde, solver, grid, p0, times)  # type: ignore[arg-type]


def _sentence(checks: list[Check], law: DensityPath, path: Trajectory) -> str:
    """What the checks say together."""
    failed = [check for check in checks if check.verdict == "failed"]
    n = len(path.nonfinite)
    if not failed:
        step = next((check.value for check in checks if "the chain and" in check.name), None)
        bias = "" if step is None or math.isnan(step) else f" (bias of the step: {step:.1g})"
        skipped = [
            f"{check.name} ({check.remark})" for check in checks if check.value != check.value
        ]
        rest = f" Not judged: {'; '.join(skipped)}" if skipped else ""
        return f"{n} trajectories follow the law that is believed{bias}.{rest}"
    remarks = list(dict.fromkeys(check.remark for check in failed if check.remark))
    sampled = [check for check in failed if check.time is not None]
    if sampled:
        worst = sampled[-1]
        k = int((law.times - (worst.time or 0.0)).abs().argmin())
        x = _kept(path)[k]
        names = ", ".join(dict.fromkeys(check.name for check in sampled))
        moments = ""
        if float(x.abs().max()) < _FAR * float(law.x.abs().max()):
            moments = (
                f": their mean is {float(x.mean()):.4g}, not {float(law.at(k).mean):.4g}, and "
                f"their standard deviation {float(x.std()):.4g}, not {float(law.at(k).std):.4g}"
            )
        remarks.append(
            f"{n} trajectories do not follow the law that is believed at t = {worst.time:g} "
            f"({names}){moments}. Check the drift, the noise and the step that are simulated."
        )
    return " ".join(remarks)
