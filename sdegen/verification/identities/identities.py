"""identities: averages of stored states that need no density, in any dimension.

- *Exact for right steps*, so that a failure is a mistake: where steps lead on average
  (`martingales`), linear dynamics over many steps (`linear`), their currents (`currents`), the
  fluctuation theorem from a known density (`fluctuation`).
- *Exact for the SDE*, and broken by every step a little: averages of the generator (`generator`),
  temperatures (`thermal`), detailed balance of what is not linear. They are reported as the bias
  of the step, and judged only where the caller says what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from torch import Tensor

from sdegen.core.checks import check_flag, check_not_negative
from sdegen.core.jumps import check_no_jumps
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.readers.read import read_states
from sdegen.readers.stored_states import StoredStates
from sdegen.verification.battery.finding import Finding, of_family, of_smallest
from sdegen.verification.certificate_request import check_false_alarm
from sdegen.verification.check import Check
from sdegen.verification.identities.bias import Bias
from sdegen.verification.identities.currents import current_rows, features_of, lag_of
from sdegen.verification.identities.ends import Ends, ends_of
from sdegen.verification.identities.excerpt import Excerpt, excerpt_of, labels_of
from sdegen.verification.identities.fluctuation import LogDensity, fluctuation_row
from sdegen.verification.identities.generator import generator_rows, seems_at_rest
from sdegen.verification.identities.linear import LinearChain, linear_chain_of, moments_findings
from sdegen.verification.identities.martingales import step_finding
from sdegen.verification.identities.request import gaussian, log_density_of, solver_of
from sdegen.verification.identities.result import Identities
from sdegen.verification.identities.steps import LinearMeans, StepMeans, step_means_of
from sdegen.verification.identities.thermal import Thermal, thermal_of, thermal_rows
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.path_certificate import boundary_of
from sdegen.verification.path_request import are_positions, check_equation, spacing_of

_STEPS, _MOMENTS = (
    "where steps lead, on average over waves",
    "means and covariances over many steps",
)
_CURRENTS, _THEOREM = "currents of pairs", "the fluctuation theorem"
_INSIDE = "part of the states that is outside the boundary"


def identities(
    sde: SDE,
    path: object,
    *,
    dt: float | None = None,
    times: Tensor | Sequence[float] | None = None,
    solver: Solver | str | None = None,
    boundary: object = None,
    at_rest: bool | None = None,
    start: object = None,
    allowed: float | None = None,
    false_alarm: float = 1e-3,
) -> Identities:
    """Return what averages of stored states say of the SDE that they should follow.

        d⟨h⟩/dt = ⟨L h⟩,  0 at rest,     L h = f·∇h + ½ C:∇∇h,  C = G Gᵀ

    Args:
        sde: What they should follow.
        path: Stored states, as `read_states` takes them.
        dt: Step of the solver; where solver has substeps, frames are so many steps apart.
        times: Times of the frames, if dt is not the same for all.
        solver: How they moved; None: BAOAB() of positions and velocities, else EulerMaruyama().
            "exact": as a linear process itself does, at any distance of the frames; "unknown":
            nothing is asked of single steps.
        boundary: What they were kept inside of, as `simulate` takes it.
        at_rest: Whether their law does not change from frame to frame; None: their first quarter
            and their last half tell it, and an SDE that depends on time is not.
        start: Density of the states, at rest of all and else of the first frame: an object with
            log_prob(x) of states (n, *event), shape (n,), normalised or not.
        allowed: The relative bias of a step that is let pass: each row of `biases` is then a
            check too. None: biases are reported, and none is judged.
        false_alarm: Chance that right states fail a check, of all of them together.

    Returns:
        Checks, and biases with their errors.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If states do not fit the SDE, an end absorbs or is of a kind of its own, or a
            solver refuses the dynamics.

    Example:
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=1.0)
        >>> x0 = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 0.5**0.5
        >>> states = sg.simulate(ou, x0, [0.01 * k for k in range(101)], rng=0).states
        >>> sg.identities(ou, states, dt=0.01).passed
        True
    """
    check_equation(sde)
    check_no_jumps(sde, "identities")
    check_false_alarm(false_alarm)
    if at_rest is not None:
        check_flag("at_rest", at_rest)
    if allowed is not None:
        check_not_negative("allowed", allowed)
    states = read_states(path, dt=spacing_of(dt, solver_of(sde, solver)), times=times)
    return identities_of(
        sde,
        states,
        solver,
        boundary,
        at_rest=at_rest,
        start=start,
        allowed=allowed,
        false_alarm=false_alarm,
    )


def identities_of(
    sde: SDE,
    states: StoredStates,
    solver: Solver | str | None,
    boundary: object,
    *,
    at_rest: bool | None = None,
    start: object = None,
    allowed: float | None = None,
    false_alarm: float = 1e-3,
) -> Identities:
    """Return the identities of states that were read; arguments as for `identities`."""
    solver, boundary = solver_of(sde, solver), boundary_of(states, boundary)
    if are_positions(sde, states):
        raise ValueError(
            f"averages of {type(sde).__name__} are of positions and velocities, but path has "
            "positions alone; pass read_states(x, velocities=v, …), or judge the steps, "
            "certify(sde, path=…)."
        )
    if sde.phase_space and not states.phase_space:  # an array that says nothing of velocities
        states = replace(states, phase_space=True)
    question = _Question(sde, states, solver, boundary, at_rest)
    log_density = None if start is None else log_density_of(start)
    found: list[Finding | Check] = [
        question.of_steps(), question.of_moments(), *question.of_currents(),
    ]  # fmt: skip
    theorem = question.of_theorem(log_density)
    biases = question.biases()
    if isinstance(theorem, Bias):
        biases.append(theorem)
    else:
        found.append(theorem)
    judged = [f for f in found if isinstance(f, Finding)]
    rows = [] if allowed is None else [row for row in biases if not math.isnan(row.p_value)]
    each = false_alarm / max(1, len(judged) + bool(rows))
    checks = [f if isinstance(f, Check) else _check(f, each) for f in found]
    if question.ends.walled.any():
        checks.append(_inside(question))
    if allowed is not None:
        checks += [_allowed(row, allowed, each / max(1, len(rows))) for row in rows]
    name = solver if isinstance(solver, str) else type(solver).__name__
    words = {"exact": "the process itself", "unknown": "an unknown solver"}
    return Identities(
        tuple(checks), tuple(biases), question.at_rest, words.get(name, name), states
    )


class _Question:
    """What is asked of stored states.

    Args:
        sde: What moves, by belief.
        states: What was stored.
        solver: How it moved, "exact" or "unknown".
        boundary: As `simulate` takes it.
        at_rest: Whether the law of the states does not change; None: the states tell it.
    """

    def __init__(
        self,
        sde: SDE,
        states: StoredStates,
        solver: Solver | str,
        boundary: object,
        at_rest: bool | None,
    ) -> None:
        self.sde, self.states, self.solver, self.boundary = sde, states, solver, boundary
        self.ends: Ends = ends_of(sde, states, boundary)
        self.labels = labels_of(states)
        self.autonomous = bool(sde.autonomous) and not sde.is_discrete
        self.thermal: Thermal | None = thermal_of(sde, states)
        self.chain: LinearChain | None = None
        if boundary is None and states.periods is None:
            self.chain = linear_chain_of(sde, solver, states)
        if at_rest is None:
            at_rest = self.autonomous and seems_at_rest(sde, self.spread, self.ends)
        self.at_rest = at_rest

    @cached_property
    def spread(self) -> Excerpt:
        """Frames of the whole run."""
        return excerpt_of(self.states, in_a_row=False, autonomous=self.autonomous)

    def of_steps(self) -> Finding | Check:
        """Return whether steps lead where they should."""
        means = self._means()
        if isinstance(means, str):
            return Check.skipped(_STEPS, math.nan, means)
        found = step_finding(self.states, means, self.ends, self.labels)
        return Check.skipped(_STEPS, math.nan, found) if isinstance(found, str) else found

    def _means(self) -> StepMeans | str:
        """Return what steps make of waves, or why that is not known."""
        if self.solver == "unknown":
            return "the solver is unknown."
        if self.solver == "exact":
            if self.chain is None:
                return "the dynamics are not linear, or have ends."
            law = self.chain.step
            return LinearMeans(lambda i: law, True)
        return step_means_of(self.sde, self.solver, self.states, self.boundary, self.ends)

    def of_moments(self) -> Finding | Check:
        """Return whether linear dynamics have their means and covariances after many steps."""
        if self.chain is None:
            return Check.skipped(_MOMENTS, math.nan, "the law of many steps is not known.")
        found = moments_findings(self.states, self.chain, at_rest=self.at_rest)
        if isinstance(found, str):
            return Check.skipped(_MOMENTS, math.nan, found)
        return of_family(found)

    def of_currents(self) -> list[Finding | Check]:
        """Return whether linear dynamics at rest have the currents of their chain."""
        if not self.at_rest or self.chain is None or self.chain.rest is None:
            return []
        rows = [row for row in self._currents(self.chain) if not math.isnan(row.p_value)]
        if not rows:
            return []
        least = min(rows, key=lambda row: row.p_value)
        p = of_smallest(least.p_value, len(rows))
        off = least.value - least.expected
        return [Finding(_CURRENTS, "current", off, p, least.sentence)]

    def _currents(self, chain: LinearChain | None) -> list[Bias]:
        """Return the currents of pairs."""
        excerpt = self.spread
        positions = math.prod(self.states.place)
        features = features_of(excerpt, self.ends, self.labels, positions)
        if len(features) < 2 or len(excerpt.frames) < 16:
            return []
        lag = lag_of(features)
        steps = lag * int(excerpt.frames[1] - excerpt.frames[0])
        return current_rows(features, lag, steps, chain)

    def of_theorem(self, log_density: LogDensity | None) -> Finding | Check | Bias:
        """Return the fluctuation theorem: a finding of a known density, else a bias."""
        everywhere, exact = self.at_rest, True
        if log_density is None and self.at_rest:
            if self.chain is not None and self.chain.rest is not None:
                log_density = gaussian(self.chain.rest)
            elif self.thermal is not None:
                log_density, exact = self._boltzmann(self.thermal), False
        if log_density is None:
            return Check.skipped(_THEOREM, math.nan, "no density is known; pass start=.")
        if self.solver == "unknown":
            return Check.skipped(_THEOREM, math.nan, "the density of a step is not known.")
        try:
            law = law_of(
                self.sde, self.solver, self.states.times, self.states.event, self.boundary
            )
            row = fluctuation_row(self.states, law, log_density, everywhere=everywhere)
        except ValueError as refused:
            row = str(refused)
        if isinstance(row, str):
            return Check.skipped(_THEOREM, math.nan, row)
        if not exact:
            return row
        return Finding(_THEOREM, row.name, row.value, row.p_value, row.sentence)

    def _boltzmann(self, thermal: Thermal) -> LogDensity:
        """Return −H/T of states, up to a constant."""
        sde = self.sde
        if thermal.mass is not None:
            return lambda x: -sde.energy(x) / thermal.temperature  # type: ignore[attr-defined]
        potential = sde.potential  # type: ignore[attr-defined]
        return lambda x: -potential.energy(x) / thermal.temperature

    def biases(self) -> list[Bias]:
        """Return what the SDE obeys and a step only nearly."""
        if self.sde.is_discrete:
            return []  # a chain has no generator in continuous time
        excerpt = (
            self.spread
            if self.at_rest
            else excerpt_of(self.states, in_a_row=True, autonomous=self.autonomous)
        )
        rows = generator_rows(
            self.sde, excerpt, self.ends, self.labels,
            at_rest=self.at_rest, autonomous=self.autonomous,
            without_squares=self.thermal is not None,
        )  # fmt: skip
        if self.at_rest and self.thermal is not None:
            rows += thermal_rows(self.thermal, excerpt, self.ends, self.labels, self.states)
            if self.chain is None:
                rows += self._currents(None)
        return rows


def _check(finding: Finding, false_alarm: float) -> Check:
    """Return the check of a finding."""
    failed = finding.p_value < false_alarm
    detail = f"{finding.name}{f', {finding.where}' if finding.where else ''}"
    return Check(
        finding.family,
        finding.value,
        math.nan,
        "failed" if failed else "passed",
        false_alarm,
        finding.p_value,
        remark=detail if failed else "",
    )


def _allowed(row: Bias, allowed: float, false_alarm: float) -> Check:
    """Return the check of a bias against what is allowed."""
    p = row.p_beyond(allowed)
    failed = p < false_alarm
    return Check(
        row.name,
        abs(row.share),
        allowed,
        "failed" if failed else "passed",
        false_alarm,
        p,
        remark=row.sentence if failed else "",
    )


def _inside(question: _Question) -> Check:
    """Return whether all states lie between the walls."""
    x, ends = question.spread.flat.double(), question.ends
    outside = ((x < ends.low) | (x > ends.high)).any(-1)
    share = float(outside.double().mean())
    return Check.of_value(
        _INSIDE, share, 0.0, "walls are elsewhere, or states are not brought back inside them."
    )
