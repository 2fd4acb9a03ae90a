"""From one density to the next in time.

**Exponential.** If drift and diffusion do not depend on time, p(t) = e^{tM⁻¹K} p(0) to thirteen
digits, without a step. If they do, the commutator-free Magnus integrator of fourth order takes a
step dt as two exponentials,

    p ← e^{dt (w₂ L₁ + w₁ L₂)} e^{dt (w₁ L₁ + w₂ L₂)} p,    w = ¼ ± √3/6,    L₁,₂ = L(t + (½ ∓
    √3/6) dt)

where a sum of generators is the generator of the sum of their f and D. Left to itself it picks
its steps: a step is compared with two of half its length.

**Backward Euler.** (M − dt K) p′ = M p with lumped M: the inverse of an M-matrix, so that p′ ≥ 0
and no mass is lost, whatever dt. First order in dt. It is for who wants that guarantee; no method
of higher order has it for every dt (Bolley and Crouzeix 1978). Crank–Nicolson is not offered:
from a point start it rings.

Reference:
    Blanes and Moan 2006, Appl. Numer. Math. 56, 1519, eq. (43).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.errors import SolverError
from sdegen.fokker_planck import tridiagonal
from sdegen.fokker_planck.coefficients import Coefficients
from sdegen.fokker_planck.generator import Generator
from sdegen.fokker_planck.operator import Operator
from sdegen.fokker_planck.rounding import extremes, rings, without_rounding

__all__ = ["BackwardEuler", "Exponential", "Integrator", "carried"]

_TOLERANCE = 1e-9  # of the peak, in each step that is chosen here
_MOST_STEPS = 100_000
_HEAVY, _LIGHT = 0.25 + math.sqrt(3) / 6, 0.25 - math.sqrt(3) / 6
_EARLY, _LATE = 0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6
_WINDING = (
    4.0  # v²t/D of one exponential on a ring: beyond it the spectrum leaves the axis (3e-11)
)
_REACH = 10.0  # v²t/D of one exponential that starts far from where the density will be (1e-10)
_AMPLIFIED = math.exp(7.0)  # the amplification that is let pass: 10⁻¹⁴ e⁷ = 10⁻¹¹
_FAINT = 1e-12  # of the peak: a density below it is not looked at
_RELAXED = 1e-14


@dataclass(frozen=True)
class Exponential:
    """The exponential of the operator; Magnus steps of fourth order where time matters.

    Args:
        substeps: Magnus steps between two times; None picks them so that a step errs by less than
            1e-9 of the peak. Without a time dependence there are no steps, and this is not used.

    Raises:
        ValueError: If substeps is less than 1.
    """

    substeps: int | None = None

    def __post_init__(self) -> None:
        if self.substeps is not None and self.substeps < 1:
            raise ValueError(f"substeps must be at least 1, but is {self.substeps}.")

    @property
    def lumped_only(self) -> bool:
        """Whether the guarantee of this integrator needs the lumped form."""
        return False

    def path(
        self, generator: Generator, p: Tensor, times: Tensor, *, varies: bool
    ) -> list[Tensor]:
        """Unknowns at all times, the first included."""
        kept = [p]
        if not varies:
            operator = generator.operator_at(float(times[0]))
            for dt in _steps(times):
                kept.append(_flow(operator, dt, kept[-1]))
            return kept
        dt = float(times[-1] - times[0])
        for t0, t1 in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            if self.substeps is not None:
                h = (t1 - t0) / self.substeps
                p = kept[-1]
                for i in range(self.substeps):
                    p = _checked(_magnus(generator, p, t0 + i * h, h), t0 + i * h)
                kept.append(p)
            else:
                p, dt = _adaptive(generator, kept[-1], t0, t1, dt)
                kept.append(p)
        return kept


@dataclass(frozen=True)
class BackwardEuler:
    """Implicit steps of the lumped form: positive and conservative, first order.

    Args:
        substeps: Steps between two times.

    Raises:
        ValueError: If substeps is less than 1.
    """

    substeps: int = 1

    def __post_init__(self) -> None:
        if self.substeps < 1:
            raise ValueError(f"substeps must be at least 1, but is {self.substeps}.")

    @property
    def lumped_only(self) -> bool:
        """Whether the guarantee of this integrator needs the lumped form."""
        return True

    def path(
        self, generator: Generator, p: Tensor, times: Tensor, *, varies: bool
    ) -> list[Tensor]:
        """Unknowns at all times, the first included."""
        kept = [p]
        operator = generator.operator_at(float(times[0]))
        for t0, t1 in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            h = (t1 - t0) / self.substeps
            p = kept[-1]
            for i in range(self.substeps):
                if varies:  # the operator of the step's end
                    operator = generator.operator(generator.coefficients(t0 + (i + 1) * h))
                p = tridiagonal.solve(
                    operator.mass - abs(h) * operator.rates, tridiagonal.multiply(operator.mass, p)
                )
            kept.append(p)
        return kept


Integrator = Exponential | BackwardEuler


def carried(
    generator: Generator,
    start: Float[Tensor, "*members nodes"],
    sharp: Float[Tensor, "*members nodes"],
    times: Float[Tensor, " T"],
    integrator: Integrator,
    *,
    varies: bool,
    fallback: Generator | None,
    restored: bool,
) -> Float[Tensor, "T *members nodes"]:
    """Densities at times.

    Args:
        generator: What carries them.
        start: The first of them.
        sharp: How the generator's operator is to see it.
        times: Times, the start's first.
        integrator: How they are carried.
        varies: Whether the generator depends on time.
        fallback: What carries them instead, and from `start`, where they go below zero; None to
            leave them as they are.
        restored: Whether their mass is that of the start.

    Returns:
        Nodal values.
    """
    p = _nodal(generator, start, sharp, times, integrator, varies=varies)
    span = extremes(p)
    if fallback is not None and rings(span):
        p = _nodal(fallback, start, start, times, integrator, varies=varies)
        span = extremes(p)
    return without_rounding(p, span, generator.grid, restored=restored)


def _nodal(
    generator: Generator,
    start: Tensor,
    sharp: Tensor,
    times: Tensor,
    integrator: Integrator,
    *,
    varies: bool,
) -> Tensor:
    """Nodal values at all times, of a start that the operator sees as `sharp`."""
    ends = generator.ends
    path = integrator.path(generator, ends.restrict(sharp), times, varies=varies)
    return torch.stack([start, *map(ends.widen, path[1:])])


def _steps(times: Tensor) -> list[float]:
    """Lengths of the steps; all the same where they differ by the rounding of times alone."""
    ts = times.tolist()
    steps = [abs(after - before) for before, after in itertools.pairwise(ts)]
    rounding = 2 * np.finfo(np.float64).eps * max(abs(ts[0]), abs(ts[-1]))
    if max(steps) - min(steps) > rounding:
        return steps
    return [abs(ts[-1] - ts[0]) / len(steps)] * len(steps)


def _flow(operator: Operator, dt: float, p: Tensor) -> Tensor:
    """e^{dt M⁻¹K} p, in pieces where one exponential would lose digits."""
    left = dt
    for _ in range(_MOST_STEPS):
        piece = min(left, _longest(operator, p.detach()))
        moved = operator.moved(p, piece)
        left -= piece
        if left <= 1e-14 * dt:
            return moved
        change = (moved - p).detach().abs().max() / p.detach().abs().max()
        if float(change) < _RELAXED and piece * operator.circulation > _WINDING / 2:
            return moved  # a current that runs in a density that rests
        p = moved
    raise SolverError(
        f"{_MOST_STEPS} pieces did not carry the density over dt = {dt:g}: {left:.3g} is left. "
        "The drift is strong "
        "beside the noise; take shorter times."
    )


def _longest(operator: Operator, p: Tensor) -> float:
    """The longest time that one exponential carries p without amplifying its 10⁻¹⁴ beyond 10⁻¹¹.

    In the scalar product of e^{−Φ} the operator is symmetric and errors stay small; at x they are
    amplified by e^{Φ/2}, against a start that is e^{−Φ/2} p. A start far out, against a strong
    force, makes that ratio κ huge. Within v²t/D ≲ 10 of the place where it sits an error does not
    reach across.
    """
    longest = _WINDING / operator.circulation if operator.circulation > 0 else math.inf
    values = p.numpy()
    peak = np.maximum.reduce(values, -1, keepdims=True)
    raised = values * operator.amplification
    least = np.maximum.reduce(raised, -1, keepdims=True)  # of what is faint too
    if not np.count_nonzero(least > _AMPLIFIED * peak):
        return longest
    seen = values > _FAINT * peak
    strong = np.maximum.reduce(raised * seen, -1, keepdims=True) > _AMPLIFIED * peak
    if not np.count_nonzero(strong):
        return longest
    height = np.where(
        seen, np.log(np.where(seen, values, 1.0)) - 0.5 * operator.phi.detach().numpy(), -math.inf
    )
    at = height.argmax(-1)[..., None]
    fastest = np.where(strong, np.take_along_axis(operator.speed.numpy(), at, -1), 0.0).max()
    return float(min(longest, _REACH / fastest)) if fastest > 0 else longest


def _magnus(generator: Generator, p: Tensor, t: float, h: float) -> Tensor | None:
    """One step; None where it is so long that a combined D is negative."""
    c1, c2 = generator.coefficients(t + _EARLY * h), generator.coefficients(t + _LATE * h)
    for first, second in ((_HEAVY, _LIGHT), (_LIGHT, _HEAVY)):
        c = c1.combined(first, c2, second)
        if not _is_diffusive(c):
            return None
        p = _flow(generator.operator(c), abs(h), p)
    return p


def _is_diffusive(c: Coefficients) -> bool:
    """Whether D > 0."""
    return bool((c.diffusivity > 0).all()) and bool((c.nodal_diffusivity >= 0).all())


def _checked(p: Tensor | None, t: float) -> Tensor:
    if p is None:
        raise SolverError(
            f"the diffusion changes by more than a factor of 14 in the step from t = {t:g}; take "
            "more substeps, or leave "
            "substeps=None."
        )
    return p


def _adaptive(
    generator: Generator, p: Tensor, t0: float, t1: float, dt: float
) -> tuple[Tensor, float]:
    """Steps from t0 to t1; also returns the step that was last thought right."""
    sense = 1.0 if t1 > t0 else -1.0
    t, h = t0, min(abs(dt), abs(t1 - t0))
    for _ in range(_MOST_STEPS):
        left = abs(t1 - t)
        ends = h >= left * (1 - 1e-12)
        step = sense * (left if ends else h)
        once = _magnus(generator, p, t, step)
        half = _magnus(generator, p, t, step / 2) if once is not None else None
        twice = _magnus(generator, half, t + step / 2, step / 2) if half is not None else None
        if once is None or twice is None:
            h = abs(step) / 4
            continue
        error = float((twice - once).detach().abs().max()) / (
            15 * float(twice.detach().abs().max())
        )
        ideal = abs(step) * min(4.0, max(0.2, 0.9 * (_TOLERANCE / max(error, 1e-300)) ** 0.2))
        if error <= _TOLERANCE:
            p, t = twice, t + step
            if ends:
                return p, max(ideal, h)
            h = ideal
        else:
            h = min(ideal, 0.5 * abs(step))
            if h < 1e-12 * abs(t1 - t0):
                break
    raise SolverError(
        f"no step at t = {t:g} is short enough for an error below {_TOLERANCE:g}: does drift or "
        "diffusion jump in time? "
        "Put the jump on one of times, or pass Exponential(substeps=…)."
    )
