"""Mistakes in a phase space: mass, friction, temperature, and the order of kicks and flights.

What keeps the method and changes the dynamics is a copy of the SDE. What changes the method is a
`Scheme`: two equations for the next position and velocity that are linear in one normal, with the
force at the states before and after, or at the middle of a flight.
"""

from __future__ import annotations

import copy
import math

import torch
from scipy import optimize
from torch import Tensor

from sdegen.core.shapes import State, Time
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.model import Alternative, Fitted, evaluated, gain_of, of_law
from sdegen.verification.diagnosis.schemes import scheme_alternatives
from sdegen.verification.diagnosis.transitions import Transitions, evaluate
from sdegen.verification.innovations.law import StepLaw

_KIND = "phase space"
_LOG_FRICTIONS = (-6.0, 6.0)  # of a factor that is fitted


def kinetic_alternatives(belief: Belief) -> list[Alternative]:
    """Return mistakes of positions and velocities; none where there are no velocities."""
    sde = belief.sde
    if not isinstance(sde, UnderdampedLangevin) or sde.noise == "none":
        return []
    if sde.own_methods("drift", "diffusion") or getattr(belief.solver, "substeps", 1) > 1:
        return []
    table = [*_frictions(belief), *_masses(belief), *_forces(belief), *_solvers(belief)]
    return table if belief.positions else table + scheme_alternatives(belief)


def altered(
    sde: UnderdampedLangevin,
    *,
    force: float | Tensor = 1.0,
    friction: float | Tensor = 1.0,
    temperature: float | Tensor = 1.0,
    mass: float | Tensor | None = None,
) -> UnderdampedLangevin:
    """Return the dynamics with force, friction or temperature by a factor, or another mass."""
    clone = copy.copy(sde)
    own, rate = sde.force, sde.friction
    if not (isinstance(force, float) and force == 1.0):

        def scaled(x: State, t: Time) -> State:
            return own(x, t) * (force.to(x) if isinstance(force, Tensor) else force)

        clone.force = scaled  # type: ignore[method-assign]
    if callable(rate) and not isinstance(rate, Tensor):
        clone.friction = lambda x: friction * rate(x)
    else:
        clone.friction = friction * rate
    clone.temperature = temperature * sde.temperature
    if mass is not None:
        clone.mass = mass
    return clone


def _of(belief: Belief, name: str, words: str, family: str = "", **changes: object) -> Alternative:
    """Return the alternative of altered dynamics under the same solver."""

    def law() -> StepLaw:
        sde = belief.sde
        assert isinstance(sde, UnderdampedLangevin)
        return belief.law_with(sde=altered(sde, **changes))  # type: ignore[arg-type]

    return of_law(name, _KIND, words, law, family=family)


def _masses(belief: Belief) -> list[Alternative]:
    """Return masses that are left out; none where they are 1."""
    m = belief.sde.mass  # type: ignore[attr-defined]
    if bool((torch.as_tensor(m) == 1).all()):
        return []
    return [
        _of(belief, "mass missing in the force", "the force were not divided by the mass",
            force=m),
        _of(belief, "mass missing in the noise", "the noise had √(2γT) for √(2γT/m)",
            temperature=m),
        _of(belief, "mass missing", "the mass were 1, in force and noise", mass=1.0),
        _of(belief, "mass missing in the friction", "the friction were a rate where it is divided "
            "by the mass, with its noise", friction=m),
        _of(belief, "friction divided by the mass", "the rate of friction were divided by the "
            "mass once more, with its noise", friction=1 / m),
        _of(belief, "friction divided by the mass", "the rate of friction were divided by the "
            "mass once more, and its noise were not", friction=1 / m, temperature=m),
        _of(belief, "noise divided by the mass", "the noise had √(2γT)/m for √(2γT/m)",
            temperature=1 / m),
        _of(belief, "force divided by the mass twice", "the force were divided by the mass twice",
            force=1 / m),
    ]  # fmt: skip


def _frictions(belief: Belief) -> list[Alternative]:
    """Return frictions by a factor, with their noise or without."""
    family = "friction by a factor"
    table = []
    for name, factor in (("twice", 2.0), ("half", 0.5), ("ten times", 10.0), ("a tenth", 0.1)):
        words = f"the friction were {name} what it should be"
        table.append(_of(belief, f"friction {name}", words + ", with its noise", family,
                         friction=factor))  # fmt: skip
        table.append(
            _of(belief, f"friction {name}, noise as it was", words + ", and its noise were not",
                "friction alone by a factor", friction=factor,
                temperature=_kept_noise(belief, factor))
        )  # fmt: skip
    words = "there were no friction, and noise as with it"
    table.append(_of(belief, "friction missing", words, friction=1e-9,
                     temperature=_kept_noise(belief, 1e-9)))  # fmt: skip
    words = "the friction had the wrong sign"
    table.append(_of(belief, "friction of the wrong sign", words, friction=-1.0,
                     temperature=_kept_noise(belief, -1.0)))  # fmt: skip
    table.append(Alternative(family, _KIND, "", _fitted_friction, family, costly=True))
    return table


def _kept_noise(belief: Belief, factor: float) -> float:
    """Return the factor of T that keeps the noise, where the friction is changed by a factor."""
    sde = belief.sde
    assert isinstance(sde, UnderdampedLangevin)
    if isinstance(belief.solver, EulerMaruyama) or callable(sde.friction):
        return 1 / factor
    h = float(belief.states.times[1] - belief.states.times[0])
    h = 0.5 * h if isinstance(belief.solver, OBABO) else h
    rate = float(torch.as_tensor(sde.friction).double().mean())
    return math.expm1(-2 * rate * h) / math.expm1(-2 * factor * rate * h)


def _fitted_friction(data: Transitions) -> Fitted | None:
    """Fit the friction, with its noise, by the transitions of a first look."""
    belief, few = data.belief, data.few(2**13)
    sde = belief.sde
    assert isinstance(sde, UnderdampedLangevin)

    def law(log_factor: float) -> StepLaw:
        return belief.law_with(sde=altered(sde, friction=math.exp(log_factor)))

    def loss(log_factor: float, of: Transitions) -> float:
        return -float(evaluate(law(log_factor), of).log_p[of.base.judged].sum())

    first = optimize.minimize_scalar(
        lambda y: loss(y, few), bounds=_LOG_FRICTIONS, method="bounded", options={"maxiter": 20}
    )
    # the bottom of a parabola through three points of all transitions
    at, h = float(first.x), 0.02
    low, middle, high = (loss(at + j * h, data) for j in (-1, 0, 1))
    bend = low - 2 * middle + high
    at -= 0.5 * h * (high - low) / bend if bend > 0 else 0.0
    factor = math.exp(at)
    if min(abs(at - end) for end in _LOG_FRICTIONS) < 0.1:
        return None
    evaluation = evaluated(law(at), data)
    error = factor * h / math.sqrt(bend) if bend > 0 else None
    words = f"the friction were {factor:.3g} times what it should be, with its noise"
    return Fitted(gain_of(evaluation, data), lambda: evaluation, 1, 0.0, factor, error, words)


def _forces(belief: Belief) -> list[Alternative]:
    """Return forces by a factor: velocities feel them, and flights do not."""
    family = "force by a factor"
    return [
        _of(belief, "force of the wrong sign", "the force had the wrong sign", family, force=-1.0),
        _of(belief, "force missing", "there were no force", family, force=0.0),
        _of(belief, "force twice", "the force were twice what it should be", family, force=2.0),
        _of(belief, "force half", "the force were half of what it should be", family, force=0.5),
    ]


def _solvers(belief: Belief) -> list[Alternative]:
    """Return the other methods of phase space."""
    table = []
    for solver in (EulerMaruyama(), BAOAB(), OBABO()):
        if type(solver) is type(belief.solver) or isinstance(solver, EulerMaruyama):
            continue  # steps of Euler–Maruyama are in the table of all dynamics

        def law(solver: BAOAB | OBABO = solver) -> StepLaw:
            return belief.law_with(solver=solver)

        name = type(solver).__name__
        words = f"the steps were those of {name}, not of {belief.law.name}"
        table.append(of_law(f"steps of {name}", "solver", words, law))
    return table
