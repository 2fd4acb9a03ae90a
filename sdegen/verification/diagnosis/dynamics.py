"""Other dynamics than those that are believed: readings of the noise, powers of g, solvers, times.

What changes the noise of each number by a known factor, or the drift by a known pull, is compared
by the innovations that are there; the rest has a law of its own.

Solvers that read multiplicative noise in the middle of a step, and so move what is Itô, are

    x̃ = x + dt f(x) + √dt g(x) z,        x' = x + dt f̄ + √dt ½ [g(x) + g(x̃)] z

with f̄ = f(x) (Euler–Heun) or the mean of both ends (Heun). They solve Stratonovich's equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.fixed_steps import Interval, OneStep
from sdegen.core.noise import Noise
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.core.update import diffuse, update
from sdegen.diffusion.samplers.ddim import DDIM
from sdegen.sde.transitions import LinearProcess
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.milstein import Milstein
from sdegen.verification.diagnosis.altered import AlteredSDE, noise_induced_drift
from sdegen.verification.diagnosis.belief import Belief
from sdegen.verification.diagnosis.factors import (
    DRIFT_FACTORS,
    NOISE_FACTORS,
    drift_and_noise,
    fitted_drift,
    residual_of,
)
from sdegen.verification.diagnosis.model import (
    RARE,
    Alternative,
    Fitted,
    log_normal,
    of_law,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Transitions
from sdegen.verification.innovations.implicit_law import ImplicitLaw
from sdegen.verification.innovations.law import StepLaw
from sdegen.verification.innovations.update_law import UpdateLaw

_FAMILIES = {"noise without g": "g constant", "noise of constant strength": "g constant"}
_JACOBIANS = 16  # coordinates up to which the determinant of a step is found


def dynamics_alternatives(belief: Belief) -> list[Alternative]:
    """Return other dynamics that could be simulated by mistake."""
    sde = belief.sde
    table = [*_powers(), *_solvers(belief)]
    if sde.noise == "multiplicative" and not sde.phase_space:
        table += _readings(belief)
    if not sde.phase_space:
        words = "the drift were that of the state before, not of the present one"
        table.append(Alternative("drift of the state before", "drift", words, _stale))
    if not belief.law.alike and belief.by_update:
        table += _retimed(belief)
    if isinstance(belief.solver, Milstein) and sde.noise == "multiplicative":
        table += _bent(belief)
    return table


def _bent(belief: Belief) -> list[Alternative]:
    """Return factors of the drift and of g in steps that are not linear in their noise."""
    table = []
    for kind, factors in (("drift", DRIFT_FACTORS), ("noise", NOISE_FACTORS)):
        for name, words, factor in factors:
            if not isinstance(factor, float):
                continue
            changes = {kind: factor}

            def law(changes: dict[str, float] = changes) -> StepLaw:
                return belief.law_with(sde=AlteredSDE(belief.sde, **changes))  # type: ignore[arg-type]

            family = {"drift": "drift by a factor", "noise": "noise variance by a factor"}[kind]
            table.append(of_law(name, kind, words, law, family=family))
    return table


def _powers() -> list[Alternative]:
    """Return noise by a power of g, or of the standard deviation of a step."""
    table: list[tuple[str, str, float, Callable[[Tensor, Tensor], Tensor]]] = [
        ("g² for g", "the noise were g² dW, not g dW", 0.0, lambda g, _: g),
        ("√g for g", "the noise were √g dW, not g dW", RARE, lambda g, _: g.rsqrt()),
        ("g²/2 for g", "the noise had D = g²/2 for g", 0.0, lambda g, _: 0.5 * g),
        ("√(g/2) for g", "the noise had √(g/2) for g", RARE, lambda g, _: (2 * g).rsqrt()),
        ("√(2 g) for g", "the noise were √(2 g) dW, as if g were D", 0.0,
         lambda g, _: (2 / g).sqrt()),
        ("variance for standard deviation", "noise were multiplied by its variance", 0.0,
         lambda g, r: g * r),
        ("standard deviation for variance", "the root of a standard deviation were taken", 0.0,
         lambda g, r: (g * r).rsqrt()),
        ("noise without g", "the noise were dW, without g", 0.0, lambda g, _: 1 / g),
        ("noise of constant strength", "g did not change with state and time", RARE,
         lambda g, _: g.mean((0, 1)) / g),
    ]  # fmt: skip
    return [
        Alternative(name, "noise", words, _scaled(ratio), _FAMILIES.get(name, ""), charge=charge)
        for name, words, charge, ratio in table
    ]


def _scaled(
    ratio: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Transitions], Fitted | None]:
    """Return the fit of noise by a factor that depends on g and √|dt|."""

    def fit(data: Transitions) -> Fitted | None:
        if data.base.z.shape[2] == 0:
            return None
        g = data.diffusion.clamp(min=1e-150)
        c = ratio(g, data.lengths.sqrt()[:, None, None]).expand(g.shape)
        if bool(((c - 1).abs() < 1e-9).all()):
            return None
        z = data.base.z / c
        log_ratio = log_normal(z) - log_normal(data.base.z) - c.log()
        evaluation = with_noise(data, z, log_ratio)
        gain = float((evaluation.log_p - data.base.log_p).sum())
        return Fitted(gain, lambda: evaluation)

    return fit


def _readings(belief: Belief) -> list[Alternative]:
    """Return other interpretations of multiplicative noise, as parts of the drift."""
    sde = belief.sde
    plain = belief.by_update and sde.noise_structure == "diagonal"
    if not plain:
        return []

    def pull(data: Transitions) -> Tensor | None:
        if "reading" not in data.kept:
            parts = []
            for part, t, s in data.blocks():
                moved = float(s - t) * noise_induced_drift(sde, data.x[part].flatten(0, 1), t)
                parts.append(moved.detach().double().flatten(1))
            scale = data.diffusion * data.lengths.sqrt()[:, None, None]
            pulls = torch.cat(parts).reshape(scale.shape)
            data.kept["reading"] = pulls / scale.clamp(min=1e-150)
        pull_of_reading: Tensor = data.kept["reading"]
        return pull_of_reading

    table = [
        ("Stratonovich for Itô", "the noise were read in the middle of a step, not at its start "
         "(½ g g′ were added to the drift)", 1.5),
        ("Itô for Stratonovich", "½ g g′ were missing in the drift (Itô for Stratonovich)", 0.5),
        ("Klimontovich for Itô", "the noise were read at the end of a step (g g′ were added to "
         "the drift)", 2.0),
        ("Itô for Klimontovich", "g g′ were missing in the drift (Itô for Klimontovich)", 0.0),
    ]  # fmt: skip
    kind, family = "interpretation", "interpretation of the noise"
    alternatives = [
        drift_and_noise(name, kind, words, factor, 1.0, family=family, pull=pull)
        for name, words, factor in table
    ]
    words = "the drift held {a} − 1 times g g′ too much"
    alternatives.append(
        fitted_drift("interpretation of the noise", kind, words, family=family, pull=pull)
    )
    if math.prod(belief.states.event) <= _JACOBIANS and belief.boundary is None:
        for name, words, law in reading_laws(belief):
            alternatives.append(of_law(name, kind, words, law, family=family))
    return alternatives


@dataclass(frozen=True)
class MidpointNoise(OneStep):
    """Euler–Heun, or Heun's method of multiplicative noise.

    Args:
        both: Whether the drift is averaged too.
    """

    both: bool = False

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: list[Interval]
    ) -> tuple[State, list[Interval]]:
        """Predict with the update, then average g over the step."""
        t, s, dt, root_dt = memory[i]
        assert noise is not None
        f, g, z = sde.drift(x, t), sde.diffusion(x, t), noise.normal()
        ahead = update(x, f, dt) + root_dt * g * z
        f = 0.5 * (f + sde.drift(ahead, s)) if self.both else f
        return diffuse(update(x, f, dt), z, root_dt, 0.5 * (g + sde.diffusion(ahead, s))), memory


def reading_laws(belief: Belief) -> list[tuple[str, str, Callable[[], StepLaw]]]:
    """Return the laws of steps that average g."""
    times = belief.states.times

    def law(both: bool) -> Callable[[], StepLaw]:
        return lambda: ImplicitLaw(belief.sde, MidpointNoise(both=both), times)

    words = "the noise were read in the middle of a step, by {}, as Stratonovich has it"
    return [
        ("Stratonovich for Itô", words.format("Euler–Heun steps"), law(False)),
        ("Stratonovich for Itô", words.format("Heun's steps"), law(True)),
    ]


def _solvers(belief: Belief) -> list[Alternative]:
    """Return the solvers that are taken for each other."""
    sde = belief.sde
    solvers: list[Solver] = [EulerMaruyama()]
    if sde.noise == "additive" and math.prod(belief.states.event) <= _JACOBIANS:
        solvers.append(Heun())
    if sde.noise == "multiplicative" and not sde.phase_space:
        solvers.append(Milstein())
    if sde.denoising is not None:
        solvers.append(DDIM())
    table = []
    for solver in solvers:
        if type(solver) is type(belief.solver):
            continue
        name = type(solver).__name__
        words = f"the steps were those of {name}, not of {belief.law.name}"

        def law(solver: Solver = solver) -> StepLaw:
            return belief.law_with(solver=solver)

        table.append(of_law(f"steps of {name}", "solver", words, law))
    if isinstance(sde, LinearProcess) and belief.solver != "exact":
        words = "each step were drawn from the exact law"
        table.append(
            of_law("exact steps", "solver", words, lambda: belief.law_with(solver="exact"))
        )
    return table


def _stale(data: Transitions) -> Fitted | None:
    """Return steps with the drift of the state before: the pull of one step earlier."""
    base = data.base
    if not bool((base.pull != 0).any()):
        return None
    if base.z.shape[2] != data.x[0, 0].numel():
        return None
    scale = data.diffusion * data.lengths.sqrt()[:, None, None]
    moved = base.pull * scale
    before = moved.clone()
    for part in data.stretches:
        before[part.start + 1 : part.stop] = moved[part.start : part.stop - 1]
    shift = (before - moved) / scale.clamp(min=1e-150)
    evaluation = residual_of(data, shift, 2.0, 1.0)
    return Fitted(float((evaluation.log_p - base.log_p).sum()), lambda: evaluation)


def _retimed(belief: Belief) -> list[Alternative]:
    """Return drift and noise at another time than that of the step."""
    times = belief.states.times
    first, last = times[0], times[-1]
    kind = "time"

    def shifted(by: int) -> Callable[[Tensor], Tensor]:
        def retimed(t: Tensor) -> Tensor:
            i = int((times - t).abs().argmin())
            return times[min(max(i + by, 0), len(times) - 1)]

        return retimed

    def same(t: Tensor) -> Tensor:
        return t

    changes: list[tuple[str, str, Callable[[Tensor], Tensor]]] = [
        ("time off by one", "drift and noise were those of the next step's time", shifted(1)),
        ("time off by one", "drift and noise were those of the time one step before",
         shifted(-1)),
        ("time reversed", "time ran the wrong way in drift and noise",
         lambda t: first + last - t),
        ("time frozen", "drift and noise stayed those of the first time", lambda t: first),
        ("time frozen at the end", "drift and noise were those of the last time", lambda t: last),
    ]  # fmt: skip
    table = []
    for name, words, change in changes:
        for own in (None, same):

            def law(
                change: Callable[[Tensor], Tensor] = change,
                own: Callable[[Tensor], Tensor] | None = own,
            ) -> StepLaw:
                return UpdateLaw(AlteredSDE(belief.sde, retimed=change, noise_retimed=own), times)

            said = words.replace("drift and noise", "the drift alone") if own else words
            table.append(of_law(name, kind, said, law))
    return table
