"""The certificate of stored states: what somebody's simulation is worth, in any dimension.

The steps of the stored states are turned into the noise that they must have had under the law that
is believed (`innovations`), and this noise is asked whether it is what it should be (`battery`):
no density, no grid and no reference simulation is needed. Where it is not, mistakes of the usual
kinds are refitted as models of their own, and the likeliest is named with its odds
(`diagnosis`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from scipy import stats
from torch import Tensor

from sdegen.core.boundary import Periodic
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.readers.read import read_states
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.splitting import BAOAB
from sdegen.verification.battery.battery import FAMILIES, checks_of, findings_beside
from sdegen.verification.battery.finding import Finding, combined, families_of, of_family
from sdegen.verification.check import Check, Checked
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.diagnose import diagnose
from sdegen.verification.diagnosis.result import Diagnosis
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.dither import dithered
from sdegen.verification.innovations.internal_law import internal_law
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.rounded_law import rounded_law
from sdegen.verification.innovations.sample import Gatherer, Sample, Totals, bits_of, totals_of
from sdegen.verification.path_request import (
    are_positions,
    check_equation,
    has_velocities,
    spacing_of,
)
from sdegen.verification.reporting.error_curves import ErrorCurve, ErrorCurves

_FEWEST = 30  # numbers of noise below which nothing can be said
_POWER = 0.9
_LOOKED_AT = 4  # states at which a solver is asked what it does


@dataclass(frozen=True)
class PathVerdict(Checked):
    """What the steps of stored states say.

    Attributes:
        checks: One for each question.
        findings: All statistics, each with its p-value.
        p_value: Chance that a right simulation shows the least likely of them.
        sample: The innovations that the tests looked at.
        totals: Sums over all of them.
        states: What was judged.
        smallest_drift, smallest_noise: The relative errors of the drift and of the standard
            deviation of the noise that are seen nine times in ten.
        judged_as: The solver whose steps they were taken for.
        sde: What they should follow.
        law: The law of their steps, by belief.
        false_alarm: Chance that right states are refused.
        limits: What was not there to be judged, or not looked at, in words.
    """

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    p_value: float
    sample: Sample
    totals: Totals
    states: StoredStates
    smallest_drift: float
    smallest_noise: float
    judged_as: str
    sde: SDE
    law: StepLaw
    false_alarm: float
    limits: str = ""

    @cached_property
    def curves(self) -> ErrorCurves:
        """Errors as functions of coordinates."""
        phase_space = self.sde.phase_space and has_velocities(self.states)
        return ErrorCurves(self.sample, self.states, self.law, phase_space=phase_space)

    def drift_error(self, coordinate: int = 0, along: int | None = None) -> ErrorCurve:
        """Return by how much the simulated drift exceeds the one that is believed.

        Args:
            coordinate: Of which coordinate; its number among those that have noise, from 0, which
                in a phase space are the velocities.
            along: Number of the coordinate of a state, flattened, that it is a function of; the
                same one unless said, and in a phase space the position of it.

        Returns:
            (x, error, standard_error), each of shape (parts,), in units of the drift: means over
            parts of the sample with equally many states.

        Raises:
            ValueError: If there is no such coordinate, there are fewer than 20 transitions, or
                the noise mixes coordinates.
        """
        return self.curves.drift(coordinate, along)

    def noise_error(self, coordinate: int = 0, along: int | None = None) -> ErrorCurve:
        """Return the relative error of the variance of the noise, (σ'/σ)² − 1.

        Args, result and errors are those of `drift_error`, but for the units.
        """
        return self.curves.noise(coordinate, along)

    def summary(self) -> str:
        """Say what was judged, what is wrong, and what would not have been seen."""
        steps, batch = self.states.shape[0] - 1, self.states.shape[1]
        count = f"{steps} steps of {batch} {'trajectory' if batch == 1 else 'trajectories'}"
        count += self.limits
        if self.failed:
            reasons = "; ".join(
                f"{check.name} ({check.remark.rstrip('.')})" if check.remark else check.name
                for check in self.failed
            )
            return (
                f"{count} do not follow the SDE that is believed, taken as steps of "
                f"{self.judged_as}: {reasons}."
            )
        if self.smallest_noise == math.inf:
            return (
                f"{count} follow the equation without noise that is believed, as steps of "
                f"{self.judged_as}, to rounding."
            )
        seen = f"its noise, if its standard deviation is off by {_percent(self.smallest_noise)}"
        if self.smallest_drift < math.inf:
            drift = f"1 ± {self.smallest_drift:.2g}"
            seen = f"its drift, if it is off by a factor of {drift}, and {seen}"
        return (
            f"{count} follow the SDE that is believed, as steps of {self.judged_as}. Nine "
            f"times in ten would be seen: {seen}; less may be unseen."
        )


def judge_path(
    sde: SDE,
    path: object,
    *,
    dt: float | None,
    times: Tensor | Sequence[float] | None,
    solver: Solver | str | None,
    boundary: object,
    false_alarm: float,
) -> PathVerdict:
    """Judge stored states by the noise of their steps.

    Args:
        sde: What they should follow.
        path: Them, as `read_states` takes it.
        dt: Step of the solver; where solver has substeps, frames are so many steps apart.
        times: Times of the frames, if dt is not the same for all.
        solver: How they moved; None: BAOAB of positions and velocities, else EulerMaruyama;
            "exact": by the transitions of a linear process; "unknown".
        boundary: What they were kept inside of.
        false_alarm: Chance that right states are refused.

    Raises:
        ValueError: If states do not fit the SDE, or there are too few.
    """
    check_equation(sde)
    solver = solver_for(sde) if solver is None else solver
    states = read_states(path, dt=spacing_of(dt, solver), times=times)
    states = dithered(states, bits_of(states.block(0, 2)))
    positions = are_positions(sde, states)
    law = law_of(
        sde,
        solver,
        states.times,
        states.event,
        boundary_of(states, boundary),
        positions=positions,
        states=states.block(0, 1)[0][:_LOOKED_AT],
        determinant=False,
    )
    law = internal_law(rounded_law(law, states), sde, states)
    gatherer = Gatherer(states, law)
    sample = gatherer.sample()
    totals = totals_of(sample) if law.redraws else gatherer.totals()
    k = sample.z.shape[2]
    _check_enough(totals.count, k, false_alarm)
    findings = findings_beside(sample, totals, gatherer.redrawn(sample))
    checks = checks_of(findings, sample, totals, false_alarm)
    families = [of_family(group) for group in families_of(findings).values()]
    # beside redrawn transitions, which have chance in them too
    wider = math.sqrt(1 + 1 / min(law.redraws)) if law.redraws else 1.0
    return PathVerdict(
        tuple(checks),
        tuple(findings),
        combined([family.p_value for family in families]) if families else 1.0,
        sample,
        totals,
        states,
        _smallest_drift(totals, false_alarm) * wider,
        _smallest_noise(totals.count * k, false_alarm) * wider,
        law.name,
        sde,
        law,
        false_alarm,
        _limits(sample, states, law, positions=positions),
    )


def _check_enough(count: int, k: int, false_alarm: float) -> None:
    """Refuse so few numbers of noise that nothing can be said."""
    if k and count * k < _FEWEST:
        raise ValueError(
            f"path has {count} steps of {k} numbers, too few to say anything: with "
            f"{-(-1000 // k)} steps a standard deviation that is off by "
            f"{_percent(_smallest_noise(1000, false_alarm))} is seen nine times in ten."
        )


def _limits(sample: Sample, states: StoredStates, law: StepLaw, *, positions: bool) -> str:
    """Say what was not judged."""
    words = []
    if positions:
        words.append("velocities were not stored, and are those that the positions tell")
    if law.redraws and not sample.whole:
        shape = f"{len(sample.steps)} steps of {len(sample.trajectories)}"
        words.append(f"{shape} were looked at, each beside some that were simulated anew")
    return f" ({'; '.join(words)})" if words else ""


def diagnosis_of(
    verdict: PathVerdict, sde: SDE, solver: Solver | str | None, boundary: object
) -> Diagnosis | None:
    """Return which mistake explains states that failed; None where none did, or none has noise.

    Args:
        verdict: What was judged.
        sde: What they should follow.
        solver: As `judge_path` was given it.
        boundary: As `judge_path` was given it.
    """
    if verdict.passed:
        return None
    states, solver = verdict.states, solver_for(sde) if solver is None else solver
    positions = are_positions(sde, states)
    belief = Belief(sde, solver, states, boundary_of(states, boundary), positions)
    with torch.no_grad():  # forces by autograd record their own gradients
        return diagnose(belief, verdict.sample)


def solver_for(sde: SDE) -> Solver:
    """Return what `simulate` takes where no solver is said."""
    known = isinstance(sde, UnderdampedLangevin) and not sde.own_methods("drift", "diffusion")
    return BAOAB() if known else EulerMaruyama()


def boundary_of(states: StoredStates, boundary: object) -> object:
    """Return the boundary, or the periods in which states are folded."""
    if boundary is not None or states.periods is None or not states.wrapped:
        return boundary
    lengths = states.periods.flatten().tolist()
    return {i: Periodic(0.0, float(length)) for i, length in enumerate(lengths) if length > 0}


def _smallest_drift(totals: Totals, false_alarm: float) -> float:
    """Return the relative error of the drift that is seen nine times in ten."""
    return _levels(false_alarm) / math.sqrt(totals.pull_square) if totals.pull_square else math.inf


def _smallest_noise(count: int, false_alarm: float) -> float:
    """Return the relative error of a standard deviation that is seen nine times in ten."""
    return _levels(false_alarm) / math.sqrt(2 * count) if count else math.inf


def _levels(false_alarm: float) -> float:
    """Return how many standard errors an effect must be."""
    each = false_alarm / FAMILIES / 2  # two statistics of the family
    return float(stats.norm.isf(each / 2) + stats.norm.isf(1 - _POWER))


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
