"""What a step should have made of a wave: φ(x_{k+1}) − E[φ(x_{k+1}) | x_k], which has the mean 0.

- *Normal steps*, of the update with any noise or of a linear process: E φ in closed form, as it is
  with reflecting walls and periods, which waves obey.
- *Other steps*: the solver takes the step once more from the same state with noise of its own, and
  φ of where that leads stands for E φ. Nothing has to be known of the solver, whatever its
  substeps, boundaries and noise; the variance is twice as large.

Both are martingale differences under the law that is believed, with no bias of the step in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.channels import covariance_matrix
from sdegen.core.fixed_steps import FixedStep, Interval, OneStep
from sdegen.core.noise import Noise, Streams
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory, integrate
from sdegen.core.step_noise import StepNoise
from sdegen.core.update import update
from sdegen.engine.contain import contain
from sdegen.readers.stored_states import StoredStates
from sdegen.sde.transitions import Transition
from sdegen.solvers.euler import EulerMaruyama
from sdegen.verification.identities.ends import Ends
from sdegen.verification.identities.waves import Waves
from sdegen.verification.innovations.law import flat, is_even
from sdegen.verification.innovations.sample import bits_of
from sdegen.verification.innovations.update_law import UpdateLaw


class StepMeans(ABC):
    """What steps between stored states make of waves, on average.

    Attributes:
        alike: Whether all steps have one law, so that those of many frames are taken at once.
    """

    alike: bool

    @abstractmethod
    def differences(self, x: State, after: State, i: int, waves: Waves) -> tuple[Tensor, Tensor]:
        """Return φ(x′) − E φ of transitions, and sizes of it, each of shape (n, m).

        Args:
            x: States at times[i], shape (n, *event).
            after: States at times[i + 1].
            i: Number of the step.
            waves: The φ.

        Returns:
            Differences, and the conditional variances that they have, or their own squares.
        """


class UpdateMeans(StepMeans):
    """Those of Euler–Maruyama's steps, and of a chain's.

    Args:
        sde: What moves, by belief.
        times: Of the states, shape (T,).
    """

    def __init__(self, sde: SDE, times: Tensor) -> None:
        self._sde = sde
        self._steps: list[Interval] = EulerMaruyama().begin(sde, times)
        self.alike: bool = UpdateLaw(sde, times).alike

    def differences(self, x: State, after: State, i: int, waves: Waves) -> tuple[Tensor, Tensor]:
        """Return differences from E φ in closed form, and their variances."""
        t, _, dt, _ = self._steps[0 if self.alike else i]
        mean = update(x, self._sde.drift(x, t), dt).reshape(len(x), -1)
        variance = self._variance(x, t, waves.k) * abs(float(dt))
        average, spread = waves.means(mean, variance)
        return waves(after.reshape(len(x), -1)) - average, spread

    def _variance(self, x: State, t: Tensor, k: Tensor) -> Tensor:
        """Return kᵀ G Gᵀ k, shape (n or 1, m)."""
        sde = self._sde
        if sde.noise == "none":
            return torch.zeros(1, len(k), dtype=torch.float64)
        if sde.constant_noise is not None:
            return sde.constant_noise**2 * k.square().sum(1)[None]
        if sde.noise_structure == "general":
            return torch.einsum("mi,nij,mj->nm", k, covariance_matrix(sde, x, t).double(), k)
        if sde.channels is not None:
            G = sde.diffusion(x, t).flatten(1, -2).double()
            return torch.einsum("mi,nic->nmc", k, G).square().sum(-1)
        return flat(sde.diffusion(x, t), x).double().square() @ k.square().T


class LinearMeans(StepMeans):
    """Those of a linear process without a step, at the distances of the stored states.

    Args:
        transitions: The law of step i.
        alike: Whether all steps have one law.
    """

    def __init__(self, transitions: Callable[[int], Transition], alike: bool) -> None:
        self._transitions = transitions
        self.alike: bool = alike

    def differences(self, x: State, after: State, i: int, waves: Waves) -> tuple[Tensor, Tensor]:
        """Return differences from E φ in closed form, and their variances."""
        law = self._transitions(0 if self.alike else i)
        mean = law.mean(x.reshape(len(x), -1).double())
        spread = law.covariance.double()
        if spread.ndim == 0:
            variance = spread * waves.k.square().sum(1)
        else:
            variance = ((waves.k @ spread) * waves.k).sum(1)
        average, sizes = waves.means(mean, variance[None])
        return waves(after.reshape(len(x), -1)) - average, sizes


class RedrawnMeans(StepMeans):
    """Those of any solver that remembers nothing, by steps that are taken once more.

    Args:
        sde: What moves, by belief.
        solver: How it moves.
        times: Of the states, shape (T,).
        boundary: As `simulate` takes it.
        ends: Where that is.
        seed: Of the noise of these steps.
    """

    def __init__(
        self, sde: SDE, solver: FixedStep, times: Tensor, boundary: object, ends: Ends, seed: int
    ) -> None:
        self._sde, self._solver, self._times = sde, solver, times
        self._boundary, self._ends = boundary, ends
        self._streams, self._blocks = Streams(seed, "steps taken once more"), 0
        self.alike: bool = bool(sde.autonomous) and is_even(times) and not sde.is_discrete

    def differences(self, x: State, after: State, i: int, waves: Waves) -> tuple[Tensor, Tensor]:
        """Return differences from φ of another step, and their squares."""
        i = 0 if self.alike else i
        nodes = self._solver.nodes(self._times[i : i + 2])
        self._blocks += 1
        source = self._streams.block(self._blocks)
        noise = None
        if self._solver.is_stochastic(self._sde):
            noise = Noise(x, source, channels=self._sde.channels)
        inside, start = None, x.clone()
        if self._boundary is not None:
            start = self._contained(start)
            inside = contain(self._boundary, self._sde, start, nodes, self._blocks)  # type: ignore[arg-type]
        again = start
        for again in integrate(self._sde, self._solver, start, nodes, noise, inside):  # noqa: B007
            pass
        difference = waves(after.reshape(len(x), -1)) - waves(again.reshape(len(x), -1))
        return difference, difference.square()

    def _contained(self, x: State) -> State:
        """Return states that lie inside, where rounding has left some beyond an end."""
        low, high = self._ends.low, self._ends.high
        flat_x = x.reshape(len(x), -1)
        return flat_x.clamp(low.to(x), high.to(x)).reshape(x.shape)


def step_means_of(
    sde: SDE, solver: object, states: StoredStates, boundary: object, ends: Ends
) -> StepMeans | str:
    """Return what steps make of waves, or why that is not known."""
    name = type(solver).__name__
    if type(solver) is EulerMaruyama and solver.substeps == 1:
        return UpdateMeans(sde, states.times)
    if not isinstance(solver, FixedStep):
        return f"{name} chooses its own steps, whose law is not known."
    x = states.block(0, 1)[0]
    if not isinstance(solver, OneStep) and _remembers(sde, solver, x, states.times[:3]):
        return f"a step of {name} remembers others, and one alone has no law that is known."
    return RedrawnMeans(sde, solver, states.times, boundary, ends, bits_of(x))


def _remembers(sde: SDE, solver: FixedStep, x: State, nodes: Tensor) -> bool:
    """Return whether a step with the same noise depends on whether one was taken before."""
    if len(nodes) < 3:
        return False

    def step(x: State, i: int, memory: Memory) -> tuple[State, Memory]:
        noise = None
        if solver.is_stochastic(sde):
            noise = Noise(x, 0, channels=sde.channels)
            noise = StepNoise(noise, nodes) if solver.needs else noise
        return solver.step(sde, x, i, noise, memory)

    with torch.no_grad():
        fresh, _ = step(x, 1, solver.begin(sde, nodes))
        _, memory = step(x + 0.01 * (1 + x.abs()), 0, solver.begin(sde, nodes))
        return not torch.equal(step(x, 1, memory)[0], fresh)
