"""The certificate: what simulated trajectories are worth, with a reason for every doubt.

Stored states of any simulator, in any dimension, are judged by the noise of their steps: that is
`certify(sde, path=states, dt=…)`, see `path_certificate.py`. On a grid of one dimension more is
known, and the rest of this page is about it.

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from sdegen.core.checks import check_flag
from sdegen.core.noise import Rng, seed_of
from sdegen.core.reduction import reduced
from sdegen.core.requests import as_time_grid
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.trajectory import Trajectory
from sdegen.engine.validation import check_dynamics
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.discretization.grid_boundary import GridBoundary
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.certificate_request import (
    as_energy,
    check_arguments,
    check_equations,
    check_false_alarm,
    check_inside,
)
from sdegen.verification.check import Check, Checked, Limits
from sdegen.verification.diagnosis.result import Diagnosis
from sdegen.verification.fault_hypotheses import matching_hypotheses
from sdegen.verification.identities.identities import identities_of
from sdegen.verification.identities.result import Identities
from sdegen.verification.law_checks import Laws, edge_checks, resolution_check, step_check
from sdegen.verification.path_certificate import PathVerdict, diagnosis_of, judge_path
from sdegen.verification.problem import Problem
from sdegen.verification.reference import Energy, boltzmann_checks, check_reference, density_check
from sdegen.verification.reporting.record import record_of
from sdegen.verification.sampling import TESTS, smallest_seen
from sdegen.verification.trajectory_checks import (
    finite_check,
    sample_checks,
    simulate_from,
    unabsorbed,
    valid_states,
)

_ON_GRID, _BY_STEPS = 1e-5, 1e-3  # false-alarm rates unless said
_FAR = 100.0  # ends of the grid: moments of what has exploded say nothing


@dataclass(frozen=True)
class Certificate(Checked):
    """The checks of a simulation, and what they say; of states of shape (T, batch, *event).

    Attributes:
        checks: All of them, in the order from the grid to the trajectories.
        law: The law that trajectories were compared with, at all times.
        density: The Fokker–Planck density, or None where there is none.
        path: The trajectories.
        summary: What is wrong and what to change, or that nothing is.
        steps: What the noise of stored steps says, where states were judged without a grid.
        diagnosis: Which mistake explains stored steps that failed; None where none did.
        identities: What averages of them say, where that was asked for.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> x0, times = torch.zeros(100, 1), [0.01 * k for k in range(101)]
        >>> run = sg.simulate(ou, x0, times, rng=0)
        >>> certificate = sg.certify(ou, path=run)
        >>> certificate.passed, len(certificate.failed), len(certificate.checks)
        (True, 0, 14)
    """

    checks: tuple[Check, ...]
    law: DensityPath | None
    density: DensityPath | None
    path: Trajectory | None
    summary: str
    steps: PathVerdict | None = None
    diagnosis: Diagnosis | None = None
    identities: Identities | None = None

    def __str__(self) -> str:
        biases = [] if self.identities is None else self.identities.lines()
        return "\n".join([self.summary, *map(str, self.checks), *biases])

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as a dictionary of JSON's kinds; what is not finite is None.

        Keys are format, passed, sentence, diagnosis, checks, versions and judged; of stored states
        also p_value, false_alarm, smallest_errors and findings. `sdegen.save_certificate` writes
        it to a file.
        """
        return record_of(self)


def certify(
    sde: SDE,
    grid: Grid | None = None,
    p0: Density | float | None = None,
    times: Tensor | Sequence[float] | None = None,
    *,
    path: Any = None,  # noqa: ANN401, states as any simulator stores them
    dt: float | None = None,
    solver: Solver | Literal["exact", "unknown"] | None = None,
    simulated: SDE | None = None,
    potential: Energy | Callable[[State], Tensor] | None = None,
    temperature: float = 1.0,
    density: Density | None = None,
    boundary: Any = None,  # noqa: ANN401, of a grid, or as `simulate` takes it
    identities: bool = False,
    trajectories: int = 10_000,
    limits: Limits | None = None,
    false_alarm: float | None = None,
    rng: Rng = None,
    progress: bool = False,
    diagnose: bool = True,
) -> Certificate:
    """Certify trajectories, or a solver, against the laws that their SDE implies.

        X_{k+1} = X_k + f dt + g √dt Z:     Z of stored states is N(0, I), step by step

    Without a grid, the states of `path` are judged by the noise of their steps: in any dimension,
    of any simulator, as `read_states` takes them. With a grid, of one dimension, densities are
    computed, and trajectories are compared with them.

    Args:
        sde: The equation that the trajectories should follow; with a grid, of one dimension.
        grid: Uniform nodes on which densities are computed; None: `path` is judged by its steps.
        p0: Density at times[0] on the grid, or a point.
        times: Times at which trajectories are judged, the first being the start; without a grid
            those of the stored states, if they do not tell them and dt is not the same for all.
        path: Stored states: a Trajectory, an array of shape (T, batch, *event), a StoredStates.
            With a grid, a Trajectory simulated at these times, from p0; if None, it is now.
        dt: Step of the solver, without a grid; with substeps, states are so many steps apart.
        solver: How the trajectories move; EulerMaruyama() by default, BAOAB() in a phase space.
            Without a grid also "exact", by the transitions of a linear process; and "unknown":
            states that are between the update and the SDE itself are right.
        simulated: What is simulated, if it is not `sde` itself.
        potential: U of an assumed stationary density e^{−U/T}: a `Potential`, or any object that
            has an energy(x).
        temperature: T of that density.
        density: The assumed density at the last time.
        boundary: What walls at the ends of the grid do, or a pair (lower, upper): "no-flux",
            "absorbing" or "periodic"; None if the state is free. A path must have been simulated
            with the same boundary, such as Reflecting(grid.low, grid.high). Without a grid, what
            `simulate` would be given.
        identities: Whether averages of stored states are looked at too, as `sdegen.identities`
            does: more mistakes are seen, and the bias of the step is told.
        trajectories: How many are simulated.
        limits: What is allowed where no chance is in it.
        false_alarm: Chance to refuse an exact simulation, of all tests together; 1e-5 unless
            said, and 1e-3 without a grid.
        rng: Seed, generator or None.
        progress: Whether a line on stderr says what is being computed.
        diagnose: Whether the usual mistakes are refitted where the tests fail, and the likeliest
            is named.

    Returns:
        The certificate.

    Raises:
        ValueError: If arguments contradict each other, or something is refused that `simulate`,
            `ChainDensity` or `FokkerPlanck` refuse; if path or steps are of another kind.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> times = [0.01 * k for k in range(101)]
        >>> states = sg.simulate(ou, torch.zeros(100, 3), times, rng=0).states
        >>> sg.certify(ou, path=states, dt=0.01).passed
        True
        >>> wrong = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.1)
        >>> [check.name for check in sg.certify(wrong, path=states, dt=0.01).failed][0]
        'variance of the noise'
    """
    if grid is None:
        given: dict[str, object] = {
            "p0": p0, "simulated": simulated, "potential": potential, "density": density,
        }  # fmt: skip
        asked = diagnose, identities
        return _of_steps(sde, path, given, dt, times, solver, boundary, false_alarm, *asked)
    p0, ts, solver = _needed_on_grid(sde, p0, times, dt, solver, identities)
    false_alarm = _ON_GRID if false_alarm is None else false_alarm
    limits, tell = Limits() if limits is None else limits, _clock(progress)
    p0 = check_equations((sde, simulated or sde), solver, ts, p0, grid)
    problem = Problem(reduced(sde, "certify"), solver, grid, p0, ts, boundary)
    ends = problem.ends
    check_arguments(path, simulated, ts, false_alarm, trajectories, limits)
    check_inside(ends, path, density)
    energy = as_energy(potential)
    check_reference(density, energy, temperature, grid)
    laws = Laws.of(problem, tell)
    law, edge = laws.law, edge_checks(laws, limits)
    sound = all(check.verdict == "passed" for check in edge)
    checks = [*edge, resolution_check(laws, limits), step_check(laws, limits, sound=sound)]
    if density is not None:
        checks.append(density_check(density, laws, limits))
    if energy is not None:
        checks += boltzmann_checks(energy, temperature, laws, limits)
    if path is None:
        tell(f"{trajectories} trajectories")
        path = simulate_from(problem, simulated or sde, trajectories, seed_of(rng))
    checks.append(finite_check(path))
    each = false_alarm / ((TESTS + problem.absorbs) * (len(ts) - 1))
    if sound:
        checks += sample_checks(path, law, each, ends)
    else:
        checks.append(Check.skipped("samples", false_alarm, "the grid cuts the law."))
    summary = _summary(checks, law, path, each, ends)
    sampled = any(check.verdict == "failed" and check.time is not None for check in checks)
    if diagnose and sampled and laws.chain is not None:
        summary += _explanation(path, problem, tell)
    return Certificate(tuple(checks), law, laws.exact, path, summary)


def _of_steps(
    sde: SDE,
    path: object,
    given: dict[str, object],
    dt: float | None,
    times: Tensor | Sequence[float] | None,
    solver: Solver | str | None,
    boundary: object,
    false_alarm: float | None,
    diagnose: bool,
    identities: bool,
) -> Certificate:
    """Return the certificate of stored states, without a grid."""
    check_flag("identities", identities)
    if path is None:
        raise ValueError(
            "certify judges stored states, path=…, or a simulation on a grid; pass "
            "certify(sde, path=states, dt=…), or certify(sde, grid, p0, times)."
        )
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise ValueError(
            f"{' and '.join(extra)} is for a certificate on a grid, but grid is None; pass "
            "certify(sde, grid, p0, times, path=…), or leave it out."
        )
    chance = _BY_STEPS if false_alarm is None else false_alarm
    check_false_alarm(chance)
    chance = chance / 2 if identities else chance  # one half for each
    verdict = judge_path(
        sde, path, dt=dt, times=times, solver=solver, boundary=boundary, false_alarm=chance
    )
    stored = path if isinstance(path, Trajectory) else None
    summary = verdict.summary()
    diagnosis = diagnosis_of(verdict, sde, solver, boundary) if diagnose else None
    if diagnosis is not None:
        summary += f" {diagnosis.sentence}"
    checks, found = verdict.checks, None
    if identities:
        found = identities_of(sde, verdict.states, solver, boundary, false_alarm=chance)
        checks, summary = (*checks, *found.checks), found.beside(summary)
    return Certificate(checks, None, None, stored, summary, verdict, diagnosis, found)


def _needed_on_grid(
    sde: SDE,
    p0: Density | float | None,
    times: Tensor | Sequence[float] | None,
    dt: float | None,
    solver: Solver | str | None,
    identities: bool,
) -> tuple[Density | float, Tensor, Solver]:
    """Return start, times and solver; refuse a request that lacks them, or has a step."""
    if isinstance(solver, str) and solver == "exact":
        raise ValueError(
            f"solver={solver!r} is for stored states that are judged without a grid; on a grid "
            "pass what made the trajectories, such as EulerMaruyama(substeps=…)."
        )
    if p0 is None or times is None:
        missing = [name for name, value in (("p0", p0), ("times", times)) if value is None]
        raise ValueError(
            f"a certificate on a grid needs {' and '.join(missing)}; pass certify(sde, grid, p0, "
            "times), or leave out grid to judge path=… by its steps."
        )
    if identities:
        raise ValueError(
            "identities are of stored states that are judged without a grid; leave out grid, or "
            "call sdegen.identities(sde, path, …)."
        )
    if dt is not None:
        raise ValueError(
            "dt is the step of stored states that are judged without a grid; on a grid pass "
            "solver=EulerMaruyama(substeps=…) with times=…"
        )
    solver = EulerMaruyama() if solver is None else solver
    ts = as_time_grid(times)
    if isinstance(solver, str):
        check_dynamics(sde, solver, ts, None)  # a word names no solver
    assert not isinstance(solver, str)
    return p0, ts, solver


def _clock(progress: bool) -> Callable[[str], None]:
    """Return a function that says on stderr what is computed, and after how many seconds."""
    started = time.monotonic()

    def tell(what: str) -> None:
        if progress:
            sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {what}\n")

    return tell


def _explanation(path: Trajectory, problem: Problem, tell: Callable[[str], None]) -> str:
    """Say which of the usual mistakes explains the samples; nothing where none does."""
    tell("what mistake explains the samples")
    fits = matching_hypotheses(valid_states(path)[-1], problem)
    return f" They behave as if {', or as if '.join(fits)}." if fits else ""


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
        left = len(unabsorbed(valid_states(path)[-1], ends))
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
        x = unabsorbed(valid_states(path)[k], ends)
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
