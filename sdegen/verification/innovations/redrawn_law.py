"""The law of steps whose noise cannot be told from them: known by steps that are taken anew.

Several steps of a nonlinear chain lie between two stored states, or a step has more normals than
the state has numbers, or it is not known what made the states. An approximate law still turns
transitions into numbers z that are nearly standard normals; what is left to be known is how
nearly. It is found out by the believed simulation itself: from each stored state one more
transition is *redrawn*, with fresh noise, and turned into a z in the same way. Given the states
before, both have one law if the belief is right, whatever the approximation is worth: statistics
of the two are compared (`battery/comparison.py`), and it costs power, never soundness.

Of a simulator that is not known there are two beliefs, and it is right if it is anywhere between:

- *coarse*: the update, one step from a stored state to the next;
- *fine*: four steps of a method of weak order 2 for it.

In a phase space such a simulator is judged by its velocities: what noise does to a position within
one step is an affair of the method.

**z.** Of full noise and few coordinates the equation is made linear (Shoji and Ozaki) midway along
the path without noise, which ends at y after h = |s − t|: with its slopes J there and Q = g gᵀ,

    m = y + ¼ h² Σ_i Q_ii ∂_i² f,
    Σ = Σ_n hⁿ⁺¹/(n+1)! Q_n,       Q_0 = Q,   Q_{n+1} = J Q_n + Q_n Jᵀ;

in a phase space that of a step without noise, with positions and velocities in pairs; else that of
the update. Then z is whitened once more, by the covariance of redrawn transitions.

Reference:
    Shoji and Ozaki 1998, Stoch. Anal. Appl. 16, 733, for the first; Besag and Clifford 1989,
    Biometrika 76, 633, for tests by simulations that are exchangeable with the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, refine
from sdegen.core.noise import Noise, stream
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory
from sdegen.core.step_noise import FreshDraws, StepNoise
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.dri1 import DRI1
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.splitting import BAOAB
from sdegen.verification.innovations.law import Innovations, StepLaw
from sdegen.verification.innovations.local_laws import LocalLaw, PairedLaw
from sdegen.verification.innovations.update_law import UpdateLaw

_FEW = 16  # numbers of a state of which all slopes are asked
_FINE = 4  # steps of the fine belief
_FINEST = 16  # where it is the update
_PILOT = 2**13  # transitions that are redrawn for a covariance
_FULL = 64  # numbers of a z that are whitened together


@dataclass(frozen=True)
class Belief:
    """A way in which a stored state may have come from the one before.

    Attributes:
        solver: How it moves, with its substeps.
        times: How often each transition is redrawn.
    """

    solver: FixedStep
    times: int


class LaterNoise(StepNoise):
    """The noise of some steps of a run, which are asked for by their numbers in it."""

    first = 0

    @classmethod
    def beginning(cls, noise: Noise, nodes: Tensor, first: int, steps: int) -> LaterNoise:
        """Return the noise of steps between nodes, of which the first has a number in a run.

        Args:
            noise: What draws.
            nodes: Of these steps.
            first: Number of the first.
            steps: Of the whole run, which areas go by.
        """
        draws = FreshDraws(noise, steps)
        made = cls.of(draws, nodes, noise.channels, noise.stream)
        assert isinstance(made, LaterNoise)
        made.first = first
        return made

    def increment(self, i: int) -> Tensor:
        """Return ΔW of step i of the run."""
        return super().increment(i - self.first)

    def space_time_area(self, i: int) -> Tensor:
        """Return J of step i of the run."""
        return super().space_time_area(i - self.first)

    def space_time_moment(self, i: int) -> Tensor:
        """Return M of step i of the run."""
        return super().space_time_moment(i - self.first)

    def areas(self, i: int) -> Tensor:
        """Return A of step i of the run."""
        return super().areas(i - self.first)


class RedrawnLaw(StepLaw):
    """An approximate law of transitions, and the ways to redraw them.

    Args:
        name: What it is the law of.
        sde: What moves, by belief.
        beliefs: One; or two, between which the truth may be.
        nodes: Times of the states, shape (steps + 1,).
        event: Shape of the event.
        near: The law that gives z before it is whitened.
    """

    def __init__(
        self,
        name: str,
        sde: SDE,
        beliefs: tuple[Belief, ...],
        nodes: Tensor,
        near: StepLaw,
    ) -> None:
        self.name: str = name
        self._sde = sde
        self._nodes = nodes
        self._near = near
        self.beliefs: tuple[Belief, ...] = beliefs
        self.alike: bool = near.alike
        self._white: Tensor | None = None
        self._known: dict[int, Memory] = {}

    @property
    def redraws(self) -> tuple[int, ...]:
        """How often each transition is redrawn by each belief."""
        return tuple(belief.times for belief in self.beliefs)

    def redraw(self, x: State, i: int, way: int, seed: int, turn: int) -> State:
        """Return states at times[i + 1] of a belief, from those at times[i], with fresh noise."""
        i = 0 if self.alike else i
        solver, k = self.beliefs[way].solver, self.beliefs[way].solver.substeps
        nodes = refine(self._nodes[i : i + 2], k)
        memory = self._memory(way)
        source = stream(seed, f"redrawn {way} {turn}")
        noise = Noise(x, source, channels=self._sde.channels)
        if solver.needs:
            noise = LaterNoise.beginning(noise, nodes, i * k, k * (len(self._nodes) - 1))
        draws = noise if solver.is_stochastic(self._sde) else None
        for j in range(i * k, (i + 1) * k):
            x, memory = solver.step(self._sde, x, j, draws, memory)
        return x

    def _memory(self, way: int) -> Memory:
        """Return what a solver knows before the first step of the whole run."""
        if way not in self._known:
            solver = self.beliefs[way].solver
            nodes = self._nodes[:2] if self.alike else self._nodes
            self._known[way] = solver.begin(self._sde, refine(nodes, solver.substeps))
        return self._known[way]

    def calibrate(self, states: StoredStates, seed: int) -> None:
        """Find how z is whitened, from transitions that are redrawn from some stored states."""
        z = self._pilot(states, seed)
        if z is None:  # the equation made linear has no law here
            self._near = UpdateLaw(self._sde, self._nodes)
            z = self._pilot(states, seed)
        assert z is not None
        self._white = _whitening(z, paired=isinstance(self._near, PairedLaw))

    def _pilot(self, states: StoredStates, seed: int) -> Tensor | None:
        """Return z of redrawn transitions, (n, k); None where most of them have no law."""
        steps, batch = states.shape[0] - 1, states.shape[1]
        rows = max(1, min(steps, -(-_PILOT // batch)))
        chosen = sorted(set(torch.linspace(0, steps - 1, rows).long().tolist()))
        stride = max(1, batch * len(chosen) // _PILOT)
        parts, count = [], 0
        with torch.no_grad():
            for turn, i in enumerate(chosen):
                x = states.block(i, i + 1)[0][turn % stride :: stride]
                if len(x):
                    after = self.redraw(x, i, 0, seed, -1 - turn)
                    found = self._near.innovations(x, after, i)
                    count += len(x)
                    parts.append(found.z if found.judged is None else found.z[found.judged])
        z = torch.cat(parts).double()
        return None if isinstance(self._near, LocalLaw) and len(z) < count / 2 else z

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        near = self._near.innovations(x, after, i)
        white = self._white
        if white is None or white.numel() == 0:
            return Innovations(near.z, near.pull, near.log_scale, judged=near.judged)
        turned = white.to(near.z)
        if turned.ndim == 1:
            z, pull, change = near.z * turned, near.pull * turned, white.log().sum()
        elif turned.ndim == 3:  # pairs (2, 2) of a position and a velocity
            z, pull = _of_pairs(near.z, turned), _of_pairs(near.pull, turned)
            change = torch.linalg.slogdet(white)[1].sum()
        else:
            z, pull = near.z @ turned.T, near.pull @ turned.T
            change = torch.linalg.slogdet(white)[1]
        return Innovations(z, pull, near.log_scale - change, judged=near.judged)


def redrawn_law(sde: SDE, solver: FixedStep, nodes: Tensor, event: tuple[int, ...]) -> RedrawnLaw:
    """Return the law of a solver's steps, `substeps` from a stored state to the next.

    Args:
        sde: What moves, by belief.
        solver: How it moves, remembering nothing.
        nodes: Times of the states.
        event: Shape of the event.
    """
    name = type(solver).__name__
    if solver.substeps > 1:
        name = f"{name}, {solver.substeps} to a stored one"
    near: StepLaw = UpdateLaw(sde, nodes)
    if solver.substeps > 1:
        near = _near(sde, nodes, event, positions=True)
    return RedrawnLaw(name, sde, (Belief(solver, 2),), nodes, near)


def unknown_law(sde: SDE, nodes: Tensor, event: tuple[int, ...]) -> RedrawnLaw:
    """Return the law of a simulator that is not known.

    Args:
        sde: What moves, by belief.
        nodes: Times of the states.
        event: Shape of the event.
    """
    fine: FixedStep
    if isinstance(sde, UnderdampedLangevin) and not sde.own_methods("drift", "diffusion"):
        fine = BAOAB(_FINE)
    elif sde.noise != "multiplicative" and sde.noise_structure != "general":
        fine = Heun(_FINE)
    elif sde.noise_structure != "general":
        fine = DRI1(_FINE)
    else:
        fine = EulerMaruyama(_FINEST)
    beliefs = Belief(fine, 1), Belief(EulerMaruyama(), 1)
    near = _near(sde, nodes, event, positions=False)
    return RedrawnLaw("a method that is not known", sde, beliefs, nodes, near)


def _near(sde: SDE, nodes: Tensor, event: tuple[int, ...], *, positions: bool) -> StepLaw:
    """Return a law that turns transitions into nearly standard normals."""
    if sde.phase_space:
        return PairedLaw(sde, nodes) if positions else UpdateLaw(sde, nodes)
    full = sde.channels is None or sde.channels >= math.prod(event)
    if math.prod(event) <= _FEW and full and sde.noise != "none":
        return LocalLaw(sde, nodes)
    return UpdateLaw(sde, nodes)


def _whitening(z: Tensor, *, paired: bool) -> Tensor:
    """Return what makes numbers (n, k) have the covariance 1: (k, k), (k,) or (k/2, 2, 2)."""
    n, k = z.shape
    if k == 0:
        return z.new_zeros(0)
    if not bool(z.isfinite().all()):
        raise ValueError(
            "transitions that are redrawn from stored states are not finite: the step from one "
            "to the next is too long for the SDE; store more of them, and pass the solver that "
            "made them, with its substeps."
        )
    if paired:
        pairs = torch.stack(z.chunk(2, 1), 1).permute(2, 1, 0)  # (k/2, 2, n)
        inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(pairs @ pairs.mT / n))
        return inverse
    if k > _FULL or n < 20 * k:
        return z.square().mean(0).clamp(min=1e-300).rsqrt()
    factor, info = torch.linalg.cholesky_ex(z.T @ z / n)
    if bool(info):
        return z.square().mean(0).clamp(min=1e-300).rsqrt()
    white: Tensor = torch.linalg.inv(factor)
    return white


def _of_pairs(z: Tensor, white: Tensor) -> Tensor:
    """Return pairs of positions and velocities, whitened each by a matrix of its own."""
    pairs = torch.stack(z.chunk(2, 1), 1).permute(2, 1, 0)
    return (white @ pairs).permute(2, 1, 0).flatten(1)
