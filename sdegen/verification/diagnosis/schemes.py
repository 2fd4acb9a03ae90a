"""Schemes of phase space: one step as two equations, linear in one normal.

With the accelerations A at the state before and A' at the state after, a kick, a flight, friction
and noise, a flight and a kick are

    v₁ = v + κ ½ h A,   v₂ = c v₁ + s z,   x' = x + ½ h (v₁ + v₂),   v' = v₂ + κ' ½ h A'

so that z follows from v', and the equation of x' has no noise. Other schemes are written likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.mirrors import enclosure_for
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.splitting import BAOAB
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import RARE, Alternative, Fitted, gain_of
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions, gathered
from sdegen.verification.innovations.law import Innovations, log_of_sum

_KIND = "phase space"


@dataclass(frozen=True)
class Phase:
    """Transitions as schemes take them, all of shape (n, d) in float64.

    Attributes:
        x, v, x1, v1: Positions and velocities before and after, the latter at nearest images.
        A, A1, before, middle: Accelerations F/m at x, at x1, at the state one step earlier, and
            at x + ½ h v.
        h: Step.
        c, s: Factor and noise of friction over a step.
        rate, g: γ and √(2γT/m).
    """

    x: Tensor
    v: Tensor
    x1: Tensor
    v1: Tensor
    A: Tensor
    A1: Tensor
    before: Tensor
    middle: Tensor
    h: Tensor
    c: Tensor
    s: Tensor
    rate: Tensor
    g: Tensor


Equations = tuple[Tensor, Tensor, Tensor]  # z, its scale ∂/∂z, the gap of the other equation
Scheme = Callable[[Phase], Equations]


def scheme_alternatives(belief: Belief) -> list[Alternative]:
    """Return the schemes that are taken for a step of BAOAB, or of Euler–Maruyama."""
    by_splitting = isinstance(belief.solver, BAOAB)
    table = [*_other_flights(), *(_other_kicks() if by_splitting else _other_updates())]
    alternatives = [
        Alternative(
            name,
            _KIND,
            words,
            _fit(scheme),
            costly=True,
            charge=RARE * name.startswith("steps of"),
        )
        for name, words, scheme in table
    ]
    words = "neither friction nor noise acted (velocity Verlet)"
    alternatives.append(
        Alternative("thermostat missing", _KIND, words, _fit(_verlet), costly=True)
    )
    if by_splitting:
        family = "force by a factor"
        alternatives.append(Alternative(family, _KIND, "", _fitted_force, family, costly=True))
    return alternatives


Row = tuple[str, str, Scheme]


def _other_flights() -> list[Row]:
    """Return schemes that are taken for any other."""
    return [
        ("flights with the new velocity", "positions moved by the new velocity (the symplectic "
         "Euler method)", lambda p: _euler(p, 1.0)),
        ("flights with the mean velocity", "positions moved by the mean of both velocities",
         lambda p: _euler(p, 0.5)),
        ("flights with the old velocity", "positions moved by the old velocity",
         lambda p: _euler(p, 0.0)),
        ("steps of ABOBA", "the steps were half a flight, kick, friction, kick, half a flight",
         _aboba),
        ("steps of Grønbech-Jensen and Farago", "the steps were those of Grønbech-Jensen and "
         "Farago", _gjf),
        ("thermostat on positions", "friction and noise acted on positions",
         _on_positions),
        ("noise on positions", "noise acted on positions, and friction on velocities",
         lambda p: _on_positions(p, friction=True)),
    ]  # fmt: skip


def _other_kicks() -> list[Row]:
    """Return steps of BAOAB with kicks, friction or noise that differ."""
    return [
        ("stale force", "the first kick had the force of the step before",
         lambda p: _kicks(p, first=p.before)),
        ("stale force", "the last kick had the force of the state before",
         lambda p: _kicks(p, last=p.A)),
        ("whole kicks for half kicks", "both half kicks were whole ones",
         lambda p: _kicks(p, 2.0, 2.0)),
        ("a half kick missing", "the last half kick were missing",
         lambda p: _kicks(p, 1.0, 0)),
        ("a half kick missing", "the first half kick were missing",
         lambda p: _kicks(p, 0, 1.0)),
        ("a half kick whole", "the last half kick were a whole one",
         lambda p: _kicks(p, 1.0, 2.0)),
        ("a half kick whole", "the first half kick were a whole one",
         lambda p: _kicks(p, 2.0, 1.0)),
        ("one whole kick", "the first half kick were a whole one, and the last were missing",
         lambda p: _kicks(p, 2.0, 0)),
        ("noise of the linearised friction", "friction and noise were 1 − γ dt and "
         "√(2γT dt/m)",
         lambda p: _kicks(p, c=1 - p.rate * p.h, s=p.g * p.h.sqrt())),
        ("noise of the linearised friction", "the noise had √(2γT dt/m), whose friction is "
         "exact", lambda p: _kicks(p, s=p.g * p.h.sqrt())),
        ("thermostat of half a step", "friction and noise acted for half of the step",
         lambda p: _kicks(p, c=p.c.sqrt(), s=p.s * (1 + p.c).rsqrt())),
        ("noise of 1 − c for 1 − c²", "the noise had √(1 − c) for √(1 − c²)",
         lambda p: _kicks(p, s=p.s * (1 + p.c).rsqrt())),
        ("noise of 1 − c for √(1 − c²)", "the noise had 1 − c for √(1 − c²)",
         lambda p: _kicks(p, s=p.s * ((1 - p.c) / (1 + p.c)).sqrt())),
    ]  # fmt: skip


def _other_updates() -> list[Row]:
    """Return updates with kicks that differ."""
    return [
        ("stale force", "the force were that of the step before",
         lambda p: _euler(p, 0.0, force=p.before)),
        ("half a kick", "a kick had half of the step",
         lambda p: _euler(p, 0.0, force=p.A / 2)),
    ]  # fmt: skip


def _kicks(
    p: Phase, first_kick: float = 1.0, last_kick: float = 1.0, *, first: Tensor | None = None,
    last: Tensor | None = None, c: Tensor | None = None, s: Tensor | None = None,
) -> Equations:  # fmt: skip
    """Return kick, flight, friction and noise, flight, kick."""
    c, s = p.c if c is None else c, p.s if s is None else s
    v1 = p.v + first_kick * 0.5 * p.h * (p.A if first is None else first)
    v2 = p.v1 - last_kick * 0.5 * p.h * (p.A1 if last is None else last)
    gap = p.x1 - p.x - 0.5 * p.h * (v1 + v2)
    return (v2 - c * v1) / s, s.expand(v2.shape), gap


def _euler(p: Phase, share: float, force: Tensor | None = None) -> Equations:
    """Return the update, with flights by a share of the new velocity."""
    A = p.A if force is None else force
    s = (p.g * p.h.sqrt()).expand(p.v.shape)
    z = (p.v1 - p.v - p.h * (A - p.rate * p.v)) / s
    return z, s, p.x1 - p.x - p.h * (share * p.v1 + (1 - share) * p.v)


def _aboba(p: Phase) -> Equations:
    """Return half a flight, half a kick, friction and noise, half a kick, half a flight."""
    kick = 0.5 * p.h * p.middle
    z = (p.v1 - kick - p.c * (p.v + kick)) / p.s
    return z, p.s.expand(z.shape), p.x1 - p.x - 0.5 * p.h * (p.v + p.v1)


def _gjf(p: Phase) -> Equations:
    """Return the scheme of Grønbech-Jensen and Farago 2013, eqs. (17) and (18)."""
    half = 0.5 * p.rate * p.h
    b, a = 1 / (1 + half), (1 - half) / (1 + half)
    noise = b * p.g * p.h.sqrt()
    left = p.v1 - a * p.v - 0.5 * p.h * (a * p.A + p.A1)
    z = left / noise
    gap = p.x1 - p.x - b * p.h * (p.v + 0.5 * p.h * p.A) - 0.5 * p.h * left
    return z, noise.expand(z.shape), gap


def _on_positions(p: Phase, *, friction: bool = False) -> Equations:
    """Return kick, flight, noise on the position, flight, kick."""
    c = p.c if friction else torch.ones_like(p.c)
    v1 = c * (p.v + 0.5 * p.h * p.A)
    middle = p.x + 0.5 * p.h * v1
    factor = torch.ones_like(p.c) if friction else p.c
    z = (p.x1 - 0.5 * p.h * v1 - factor * middle) / p.s
    return z, p.s.expand(z.shape), p.v1 - v1 - 0.5 * p.h * p.A1


def _verlet(p: Phase) -> Equations:
    """Return velocity Verlet: two equations without noise, of which one stands for a normal."""
    gap = p.v1 - p.v - 0.5 * p.h * (p.A + p.A1)
    other = p.x1 - p.x - p.h * p.v - 0.5 * p.h.square() * p.A
    return gap[:, :0], p.s[:, :0], torch.cat([gap, other], 1)


def phase_of(data: Transitions) -> Phase:
    """Return transitions as schemes take them."""
    if "phase" in data.kept:
        kept: Phase = data.kept["phase"]
        return kept
    with torch.no_grad():
        data.kept["phase"] = phase = _phase(data)
    return phase


def _phase(data: Transitions) -> Phase:
    """Return forces and coefficients of all transitions."""
    sde = data.belief.sde
    assert isinstance(sde, UnderdampedLangevin)
    m = torch.as_tensor(sde.mass, dtype=torch.float64)
    temperature = torch.as_tensor(sde.temperature, dtype=torch.float64)
    parts: list[tuple[Tensor, ...]] = []
    for part, t, s in data.blocks():
        now = data.x[part].flatten(0, 1).double()
        then = _nearest(data, now, data.after[part].flatten(0, 1).double())
        before = data.earlier[part].flatten(0, 1).double()[:, 0]
        (x, v), (x1, v1), h = now.unbind(1), then.unbind(1), s - t
        rate = sde.friction_at(x).double()
        spread = (-torch.expm1(-2 * rate * h) * temperature / m).sqrt()
        forces = [sde.force(place, at) / m for place, at in
                  ((x, t), (x1, s), (before, t), (x + 0.5 * h * v, t))]  # fmt: skip
        numbers = (h, (-rate * h).exp(), spread, rate, (2 * rate * temperature / m).sqrt())
        row = (x, v, x1, v1, *forces, *numbers)
        parts.append(tuple(q.double().expand(x.shape).reshape(len(x), -1) for q in row))
    return Phase(*(torch.cat(list(q)) for q in zip(*parts, strict=True)))


def _nearest(data: Transitions, x: Tensor, after: Tensor) -> Tensor:
    """Return next states at the images that are nearest."""
    if data.belief.boundary is None:
        return after
    enclosure = enclosure_for(data.belief.sde, data.belief.boundary, data.event)
    if enclosure is None or not enclosure.wraps:
        return after
    period = enclosure.periods().to(x)
    safe = torch.where(period > 0, period, 1.0)
    moved = after.clone()
    turns = torch.where(period > 0, ((after - x) / safe).round(), 0.0)
    return moved - turns * period


def _fit(scheme: Scheme) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of a scheme without free numbers."""

    def fit(data: Transitions) -> Fitted | None:
        return _fitted(data, phase_of(data), scheme)

    return fit


def _fitted(
    data: Transitions, p: Phase, scheme: Scheme, parameters: int = 0,
    value: float | None = None, words: str = "",
) -> Fitted | None:  # fmt: skip
    """Return what a scheme gains."""
    z, scale, gap = scheme(p)
    size = p.x.abs() + p.h * p.v.abs() + 1e-3 * p.v.abs()
    if gap.shape[1] > size.shape[1]:
        size = torch.cat([p.v.abs() + p.h * p.A.abs(), size], 1)
    elif scheme is _on_positions:
        size = p.v.abs() + p.h * p.A.abs()
    frames = tuple(data.x.shape[:2])
    k = z.shape[1]
    log_scale = log_of_sum(scale) if k else torch.zeros(len(gap), dtype=torch.float64)
    judged = data.base.judged.flatten()
    part = Innovations(z, torch.zeros_like(z), log_scale, gap, size, judged)
    evaluation = _filled(gathered([part], data, (frames[0], frames[1])), data)
    return Fitted(
        gain_of(evaluation, data), lambda: evaluation, parameters, 0.0, value, None, words
    )


def _filled(evaluation: Evaluation, data: Transitions) -> Evaluation:
    """Return an evaluation with one column at least, of fresh normals."""
    if evaluation.z.shape[2]:
        return evaluation
    shape = (*evaluation.log_p.shape, 1)
    z = torch.randn(shape, generator=data.fresh, dtype=torch.float64)
    return Evaluation(
        z, torch.zeros_like(z), evaluation.log_p, evaluation.judged, evaluation.log_scale,
        evaluation.gap,
    )  # fmt: skip


def _fitted_force(data: Transitions) -> Fitted | None:
    """Fit the force by the flights, which tell it to all digits: x' − x − ½ h (v + v')."""
    p = phase_of(data)
    left = p.x1 - p.x - 0.5 * p.h * (p.v + p.v1)
    push = 0.25 * p.h.square() * (p.A - p.A1)
    square = float(push.square().sum())
    if not square > 0:
        return None
    a = float((left * push).sum()) / square
    if not math.isfinite(a):
        return None
    words = f"the force were {a:.6g} times what it should be"
    return _fitted(data, p, lambda q: _kicks(q, a, a), 1, a, words)
