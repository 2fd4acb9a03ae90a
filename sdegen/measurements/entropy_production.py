"""Entropy production of samples, by the score of their density, and of trajectories.

    σ = ⟨νᵀ D⁻¹ ν⟩,    ν = f_irr − ∇·D − D ∇log p          of samples of p (`core.dissipation`)
    σ = ⟨∫ D⁻¹(f_irr − ∇·D) ∘ (dX − f_rev dt) − Δ log p⟩/t   of trajectories over a time t

in units of k_B per time. Both have the standard error of the mean, over samples or over
trajectories, which are taken to be independent. A wrong score makes the first wrong, by ∫ D (∇log
p − s)² p and by what that does to the current; at rest the second needs no density at all, since
⟨Δ log p⟩ = 0 there.

**Steps.** The sum over stored times is Stratonovich's, ½ (h_k + h_{k+1}) · (X_{k+1} − X_k). Its
error is of first order in the time between them; the distance to the sum over every other time
tells its size.

Reference:
    Seifert 2012, Rep. Prog. Phys. 75, 126001, sections 2.4 and 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import Trust
from sdegen.core.channels import directional
from sdegen.core.checks import check_int
from sdegen.core.dissipation import (
    diffusivity_of,
    local_production,
    medium_force,
    parts_of_drift,
    reversed_in_time,
)
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_number, as_state, check_function, check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.shown import Labelled
from sdegen.core.trajectory import Trajectory
from sdegen.measurements.current import (
    LogDensity,
    checked_log_density,
    checked_score,
    checked_states,
)

_FEW = 8  # states at which what is declared of time reversal is looked at
_ALIKE = {torch.float32: 1e-3, torch.float64: 1e-7}


@dataclass(frozen=True, eq=False)
class EntropyEstimate(Labelled):
    """The entropy that dynamics produce, per time, and what is known of its error.

    Attributes:
        rate: σ, in units of k_B per time.
        error: Its standard error, by the spread of samples or of trajectories; NaN of one alone.
        step_error: How far the sum over every other stored time is from it, of trajectories; NaN
            where there are fewer than three times; None of samples.
        each: Of every sample νᵀD⁻¹ν; of every trajectory the entropy that it produced, Δs,
            shape (n,).
    """

    rate: float
    error: float
    step_error: float | None
    each: Float[Tensor, " n"]

    def __float__(self) -> float:
        return self.rate

    def trust(self) -> Trust:
        """Return what is known of its error, a row for each cause."""
        step = "none" if self.step_error is None else f"{self.step_error:.1e} by half of the times"
        sampling = f"standard error {self.error:.1e} ({len(self.each)} rows)"
        return Trust.of("entropy production", step=step, grid="none", sampling=sampling)


def entropy_production(
    sde: SDE,
    states: Tensor | Trajectory,
    score: ScoreFn | None = None,
    *,
    log_density: LogDensity | None = None,
    time: float = 0.0,
    odd: Sequence[int] | None = None,
) -> EntropyEstimate:
    """Return the entropy production σ of samples or of trajectories, in units of k_B per time.

        σ = ⟨νᵀ D⁻¹ ν⟩,     ν = f_irr − ∇·D − D ∇log p

    Args:
        sde: Dynamics, with a D that can be inverted wherever something irreversible moves.
        states: Independent samples of a density, shape (n, *event), with its score; or the
            trajectories of a run, all of whose stored times are used.
        score: ∇log p(x, t) of the samples, like x; None for trajectories.
        log_density: log p(x, t) along the trajectories, shape (batch,); None at rest, where it
            adds nothing on average.
        time: When samples are taken.
        odd: Which numbers of the flattened state are velocities, whose sign time reversal changes;
            None: those that the SDE knows of.

    Returns:
        σ with its standard error, and that of the steps of trajectories.

    Raises:
        TypeError: If samples come without a score, or trajectories with one.
        ValueError: If D is singular, the SDE has jumps or no noise, trajectories were absorbed, or
            time reversal is none of the noise.

    Example:
        >>> trap = sg.ItoProcess(lambda x: -x, 2**0.5)  # at rest N(0, 1): nothing is produced
        >>> x = torch.tensor([[0.5], [-1.0], [2.0]])
        >>> sg.entropy_production(trap, x, lambda x, t: -x).rate
        0.0
    """
    check_kind("sde", sde, SDE, "an SDE, such as Langevin(DoubleWell())")
    if isinstance(states, Trajectory):
        if score is not None:
            raise TypeError(
                "score is for samples of one time, but states is a Trajectory; pass "
                "log_density=, or its states at one time, path.states[k]."
            )
        if log_density is not None:
            check_function(
                "log_density", log_density, "a function (x, t) -> log p, shape (batch,)"
            )
        return _of_trajectories(sde, states, log_density, odd)
    x = as_state("states", states)
    if score is None or log_density is not None:
        raise TypeError(
            f"samples need score=, a function (x, t) -> ∇log p, but score is {kind_of(score)} and "
            f"log_density is {kind_of(log_density)}; a Trajectory needs none of them."
        )
    check_function("score", score, "a function (x, t) -> ∇log p, like x")
    t = torch.tensor(as_number("time", time), dtype=torch.float64)
    turned = _checked(sde, x, t, odd)
    with torch.no_grad():
        each = local_production(sde, x, t, checked_score(score, x, t), turned).double()
    return _estimate(each, each, None)


def _of_trajectories(
    sde: SDE, path: Trajectory, log_density: LogDensity | None, odd: Sequence[int] | None
) -> EntropyEstimate:
    """Return σ of the trajectories that were not lost."""
    if len(path.times) < 2:
        raise ValueError(
            "entropy production needs the path, but it has one time; simulate with keep_path=True."
        )
    if path.absorbed is not None and bool(path.absorbed.any()):
        raise ValueError(
            f"entropy production needs trajectories that go on, but {int(path.absorbed[-1].sum())}"
            f" of {len(path.nonfinite)} were absorbed; simulate with a boundary that keeps them."
        )
    kept, ts = ~path.nonfinite, path.times.unbind()
    states, places = path.states[:, kept], path.unwrapped[:, kept]
    turned = _checked(sde, states[0], ts[0], odd)
    if odd:
        _check_volumes(sde, states[0, :_FEW], ts[0], turned)
    even = len(ts) - 1 - (len(ts) - 1) % 2  # the last time that every other one reaches
    with torch.no_grad():
        whole = torch.zeros(states.shape[1], dtype=torch.float64, device=states.device)
        fine, coarse = whole.clone(), whole.clone()
        points: list[_Point] = []
        for k, t in enumerate(ts):
            force, reversible = medium_force(sde, states[k], t, turned)
            points = [*points[-2:], _Point(float(t), places[k], force, reversible)]
            if k > 0:
                whole = whole + _stratonovich(points[-2], points[-1])
            if k > 0 and k % 2 == 0:
                coarse = coarse + _stratonovich(points[-3], points[-1])
            fine = whole if k == even else fine
        if log_density is not None:
            whole = whole + checked_log_density(log_density, states[0], ts[0])
            whole = whole - checked_log_density(log_density, states[-1], ts[-1])
    span = float((path.times[-1] - path.times[0]).abs())
    half = float((path.times[even] - path.times[0]).abs())
    apart = float((fine - coarse).mean().abs()) / half if even else math.nan
    return _estimate(whole, whole / span, apart)


@dataclass(frozen=True)
class _Point:
    """A time of a path: where it is, h, and f_rev."""

    t: float
    x: State
    force: State
    reversible: State | None


def _stratonovich(a: _Point, b: _Point) -> Tensor:
    """Return ½ (h_a + h_b) · (x_b − x_a − ½ (f_a + f_b) dt), shape (batch,)."""
    step = b.x.double() - a.x.double()
    if a.reversible is not None and b.reversible is not None:
        step = step - 0.5 * abs(b.t - a.t) * (a.reversible.double() + b.reversible.double())
    return 0.5 * ((a.force.double() + b.force.double()) * step).flatten(1).sum(1)


def _checked(sde: SDE, x: State, t: Tensor, odd: Sequence[int] | None) -> tuple[int, ...]:
    """Return which numbers are odd under time reversal; refuse what has no entropy production."""
    check_no_jumps(sde, "entropy production")
    if sde.noise == "none" or sde.is_discrete:
        raise ValueError(
            f"entropy production needs noise in continuous time, but {type(sde).__name__} has "
            f"{'integer times' if sde.is_discrete else 'none'}; take an SDE whose D = g gᵀ/2 can "
            "be inverted."
        )
    numbers = checked_states("entropy production", x)[0].numel()
    if odd is None:
        turned = _odd_of(sde, numbers)
    else:
        check_kind("odd", odd, (list, tuple), "a list of indices such as [1]")
        turned = tuple(check_int("odd", i) for i in odd)
    if any(not 0 <= i < numbers for i in turned) or len(set(turned)) < len(turned):
        raise ValueError(
            f"odd must name different numbers of the state, 0 to {numbers - 1}, but is {turned}."
        )
    if turned:
        with torch.no_grad():
            _check_reversal(sde, x[:_FEW], t, turned)
    return turned


def _odd_of(sde: SDE, numbers: int) -> tuple[int, ...]:
    """Return which numbers of a flattened state are velocities: the second half in phase space."""
    return tuple(range(numbers // 2, numbers)) if sde.phase_space else ()


def _check_reversal(sde: SDE, x: State, t: Tensor, odd: tuple[int, ...]) -> None:
    """Refuse noise that time reversal changes.

    Raises:
        ValueError: With the difference.
    """
    tolerance = _ALIKE.get(x.dtype, 1e-3)
    d, turned = (diffusivity_of(sde, y, t) for y in (x, reversed_in_time(x, odd)))
    if turned.ndim == 3:  # a covariance of an odd and an even coordinate changes its sign
        sign = reversed_in_time(torch.ones_like(x[:1]), odd).flatten(1)
        turned = turned * sign[..., None] * sign[..., None, :]
    if float((d - turned).abs().max()) > tolerance * float(d.abs().max()):
        raise ValueError(
            "entropy production needs noise that time reversal leaves, but D of "
            f"{type(sde).__name__} differs by {float((d - turned).abs().max()):.3g} where the "
            f"numbers {odd} of the state have the other sign; say odd=() if they are none of "
            "motion."
        )


@torch.no_grad()
def _check_volumes(sde: SDE, x: State, t: Tensor, odd: tuple[int, ...]) -> None:
    """Refuse a reversible drift that does not keep volumes, of a user's own odd coordinates.

    Raises:
        ValueError: With its divergence.
    """

    def reversible(y: State) -> State:
        _, part = parts_of_drift(sde, y, t, odd)
        assert part is not None
        return part.flatten(1)

    tolerance = 100 * _ALIKE.get(x.dtype, 1e-3)
    divergence, size = torch.zeros(len(x)).to(x), 1.0
    for i in range(x[0].numel()):
        unit = torch.zeros_like(x).flatten(1)
        unit[:, i] = 1.0
        _, slope = directional(reversible, x, unit.reshape(x.shape))
        divergence = divergence + slope[:, i]
        size = max(size, float(slope.abs().max()))
    if float(divergence.abs().max()) > tolerance * size:
        raise ValueError(
            "entropy production along a path needs a reversible drift that keeps volumes, but "
            f"∇·f_rev of {type(sde).__name__} is {float(divergence.abs().max()):.3g}; take the "
            "states of one time, with their score."
        )


def _estimate(each: Tensor, rates: Tensor, step_error: float | None) -> EntropyEstimate:
    """Return the mean of rates, and its standard error."""
    n = len(rates)
    error = float(rates.std()) / math.sqrt(n) if n > 1 else math.nan
    return EntropyEstimate(float(rates.mean()), error, step_error, each)
