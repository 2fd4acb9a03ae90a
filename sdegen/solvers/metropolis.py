"""Metropolis-adjusted Langevin: steps whose stationary law is exact, at any size.

A Langevin step proposes from x, with score = ∇ log p and z ~ N(0, I),

    x' = x + h score(x) + √(2h) z

and is accepted with probability min(1, a),

    log a = log p(x') − log p(x) + log q(x | x') − log q(x' | x),
    log q(x' | x) = −|x' − x − h score(x)|²/4h,

else x stays. Then p is stationary, whatever h is: the step size buys speed and costs acceptance,
never exactness. `Metropolis` takes this step in dX = −∇U dt + √(2T) dW, where score = −∇U/T,
log p = −U/T and h = T dt, so that the proposal is the update itself.

**What is not finite.** A proposal at which score or density is NaN is refused, as one that is
lost. A score that is not finite where a trajectory *is* loses the trajectory, as in any solver; a
density that is NaN or +∞ there is an error: all proposals would be refused, and nobody would see a
step that does nothing. A density of zero, log p = −∞, is left by the first proposal.

Reference:
    Roberts and Tweedie 1996, Bernoulli 2, 341, section 1.4.1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.errors import AccuracyWarning, NonFiniteError
from sdegen.core.fixed_steps import Interval, intervals_of, refine
from sdegen.core.noise import Noise
from sdegen.core.requests import first_true, value_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.solver import Solver
from sdegen.core.update import diffuse, update
from sdegen.sde.potentials import DrivenPotential, Potential, energy_of
from sdegen.sde.processes import Langevin

LogDensity = Callable[[State, Time], Tensor]

_JUDGED, _STUCK = 1_000, 0.01  # proposals of a run from which its acceptance is told, and how low


def mala_step(
    x: State, t: Tensor, score: ScoreFn, log_prob: LogDensity, h: Tensor, z: State, u: State
) -> tuple[State, Tensor]:
    """Take one Metropolis-adjusted Langevin step in p_t.

    Args:
        x: States, shape (batch, *event).
        t: Time, 0-d.
        score: ∇ log p_t(x).
        log_prob: log p_t(x) up to a constant, shape (batch,).
        h: Step size, 0-d, > 0.
        z: Standard normals of x's shape, for the proposal.
        u: Standard normals of x's shape, of which the first of each trajectory decides.

    Returns:
        The next states, NaN where the score is not finite at a finite x; and which proposals were
        accepted, shape (batch,).

    Raises:
        ValueError: If log_prob returns another shape.
        NonFiniteError: If log_prob is NaN or +∞ at a finite x whose score is finite.
    """
    root_two = torch.full_like(h, 2.0).sqrt()
    grad, log_p = score(x, t), log_prob(x, t)
    lost = _lost(x, grad, log_p, t)
    ahead = diffuse(update(x, grad, h), z, h.abs().sqrt(), root_two)
    # |x' − x − h score|² = 2h |z|²
    forth = -0.5 * z.flatten(1).square().sum(1)
    back = -(x - update(ahead, score(ahead, t), h)).flatten(1).square().sum(1)
    log_ratio = log_prob(ahead, t) - log_p + back / (4 * h) - forth
    uniform = torch.special.ndtr(u.flatten(1)[:, 0])
    accepted = uniform.log() < log_ratio  # False for a NaN: a proposal that is lost is refused
    shape = (-1, *(1,) * (x.ndim - 1))
    moved = torch.where(accepted.view(shape), ahead, x)
    return torch.where(lost.view(shape), torch.nan, moved), accepted


def _lost(x: State, score: State, log_prob: Tensor, t: Tensor) -> Tensor:
    """Mark trajectories without a finite score, shape (batch,); raises if log_prob is NaN or ∞."""
    if log_prob.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob must return shape ({len(x)},), one number for each state, but returned "
            f"{tuple(log_prob.shape)}."
        )
    lost = ~score.isfinite().flatten(1).all(1)
    bad = (log_prob.isnan() | log_prob.isposinf()) & ~lost & x.isfinite().flatten(1).all(1)
    if (i := first_true(bad)) is not None:
        raise NonFiniteError(
            f"log_prob is {float(log_prob[i]):g} at t = {float(t):g} for {int(bad.sum())} of "
            f"{len(x)} states; the first is row {i}, {x[i].flatten()[:4].tolist()}. It must be "
            "finite, or −∞ where there is no density."
        )
    return lost


class _Walked(NamedTuple):
    """Intervals of all steps, and how many proposals were made and accepted so far."""

    intervals: list[Interval]
    proposed: int
    accepted: Tensor


@dataclass(frozen=True)
class Metropolis(Solver):
    """Langevin steps that are accepted or refused, so that e^{−U/T} is stationary at any step.

        x' = x − dt ∇U(x) + √(2T dt) z with probability min(1, a), else x
        log a = [U(x) − U(x')]/T + log q(x | x') − log q(x' | x)

    with q the density of the proposal and x of shape (batch, *event). Two evaluations of force and
    energy a step. A path is that of a Markov chain with the law of `Langevin`, not of its
    trajectories: what moves at long steps is refused, so that times are those of small ones.

    Args:
        substeps: Equal steps between any two of the times.

    Raises:
        TypeError: If substeps is no int.
        ValueError: If substeps < 1.

    Warns:
        AccuracyWarning: If hardly a proposal of a run was accepted.

    Reference:
        Roberts and Tweedie 1996, Bernoulli 2, 341, section 1.4.1.

    Example:
        >>> trap = sg.Langevin(sg.Quadratic())
        >>> start = sg.GaussianPrior([0.0]).sample(20_000, rng=0)
        >>> end = sg.simulate(trap, start, torch.arange(9.0), solver=sg.Metropolis(), rng=0).final
        >>> f"{end.var():.1f}"  # T/k; Euler's variance is 2 at steps of 1
        '1.0'
    """

    substeps: int = 1

    evaluations: ClassVar[int | None] = 2
    noise_evaluations: ClassVar[str] = "0"
    when: ClassVar[str] = (
        "Samples of e^{−U/T}, without an error of the step; of `Langevin`, whose energy is known."
    )

    def __post_init__(self) -> None:
        check_count("substeps", self.substeps)

    def nodes(self, times: Tensor) -> Tensor:
        """Return times, with substeps − 1 more between any two."""
        return refine(times, self.substeps)

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse what is no `Langevin` of a known energy at T > 0, and times that decrease."""
        super().check(sde, nodes)
        potential = sde.potential if isinstance(sde, Langevin) else None
        known = isinstance(potential, Potential | DrivenPotential)
        if not isinstance(sde, Langevin) or not (known or hasattr(potential, "energy")):
            raise ValueError(
                "Metropolis accepts by an energy, which Langevin(U) with an energy(x) has, but "
                f"the dynamics are {type(sde).__name__}; take EulerMaruyama(substeps=…)."
            )
        if value_of(sde.temperature) == 0:
            raise ValueError(
                "Metropolis samples e^{−U/T}, of which there is none at T = 0; take "
                "EulerMaruyama(substeps=…), whose steps go downhill."
            )
        if nodes.numel() > 1 and float(nodes[-1]) < float(nodes[0]):
            raise ValueError("Metropolis takes steps dt > 0, but the times decrease; flip them.")

    def begin(self, sde: SDE, nodes: Tensor) -> _Walked:
        """Return the intervals, and that nothing was proposed."""
        return _Walked(intervals_of(sde, nodes), 0, torch.zeros((), dtype=torch.int64))

    def step(
        self, sde: SDE, x: State, i: int, noise: Noise | None, memory: _Walked
    ) -> tuple[State, _Walked]:
        """Propose the update, and accept or refuse it for each trajectory.

        Raises:
            ValueError: If gradients would flow through it.
        """
        assert noise is not None  # T > 0: check() saw to it
        assert isinstance(sde, Langevin)
        t, _, dt, _ = memory.intervals[i]
        beta = 1 / value_of(sde.temperature)
        potential = sde.potential
        z, u = noise.normal(), noise.normal()
        x, accepted = mala_step(
            x,
            t,
            lambda y, t: beta * sde.drift(y, t),
            lambda y, t: -beta * energy_of(potential, y, t),
            torch.as_tensor(dt / beta, dtype=x.dtype, device=x.device),
            z,
            u,
        )
        if x.requires_grad:
            raise ValueError(
                "gradients through Metropolis would miss what accepting depends on: leave out "
                "differentiable=True, step under torch.no_grad(), or take "
                "EulerMaruyama(substeps=…)."
            )
        count = memory.accepted.to(x.device) + accepted.sum()
        memory = memory._replace(proposed=memory.proposed + len(x), accepted=count)
        if i + 1 == len(memory.intervals):
            _warn_if_stuck(memory)
        return x, memory


def _warn_if_stuck(memory: _Walked) -> None:
    """Warn of a run in which hardly a proposal was accepted."""
    share = float(memory.accepted) / memory.proposed
    if memory.proposed >= _JUDGED and share < _STUCK:
        dt = max(interval[2] for interval in memory.intervals)
        warnings.warn(
            f"Metropolis accepted {100 * share:.2g} % of {memory.proposed} proposals, so that "
            f"states hardly move: dt = {dt:.3g} is too long; take Metropolis(substeps=…).",
            AccuracyWarning,
            stacklevel=2,
        )
