"""The SDE: a drift f and a diffusion g, and in which sense of time they are meant.

    dX = f(X, t) dt + g(X, t) dW        (Itô)

f and g are functions of a state (batch, *event) and a time. Noise is diagonal unless a class
declares otherwise: W has one independent component for each coordinate, and g is a number, a
number for each trajectory, or one for each coordinate. With `channels = m` there are m Wiener
processes, and g is a matrix G (`channels.py`). Units are reduced: k_B = mobility = 1, D = g²/2,
and a temperature T enters as g = √(2T).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.alpha_stable import AlphaStable
from sdegen.core.channels import add_times, divergence, times, transposed_times
from sdegen.core.derivatives import MIXED_DIVERGENCE, noise_induced
from sdegen.core.jumps import CompoundPoisson
from sdegen.core.kernel import GaussianKernel, Kernel, ReverseStructure
from sdegen.core.noise import Noise
from sdegen.core.noise_structure import NoiseStructure, check_not_general, declare
from sdegen.core.scores import CallCounter
from sdegen.core.shapes import State, Time
from sdegen.core.update import Number, diffuse

NoiseKind = Literal["none", "additive", "multiplicative"]
Rows = slice | Tensor


@runtime_checkable
class ChecksStart(Protocol):
    """A drift that knows from which states it can start."""

    def check_start(self, x: State, periods: Tensor | None) -> None:
        """Refuse states at which it is not finite and periods that are not its own."""


class SDE(ABC):
    """Stochastic dynamics of states (batch, *event), by a drift and a diffusion, in the Itô sense.

        dX = f(X, t) dt + g(X, t) dW

    A subclass defines `drift(x, t)`, of x's shape, and `diffusion(x, t)`, which broadcasts to it.

    Attributes:
        noise: "none" (g = 0), "additive" (g depends on t alone) or, the default, which assumes
            nothing, "multiplicative" (g depends on x).
        channels: Number of independent Wiener processes, where `diffusion` returns a matrix;
            None: one for each coordinate.
        noise_structure: "diagonal" (an independent component for each coordinate), "channels", or
            "general": what `add_noise` and `covariance_times` of a subclass say; it has no
            `diffusion`.
        constant_noise: g, where it is one number for all x and t, which saves asking for it in
            every step; None else.
        jumps: What makes it jump beside drift and noise (`JumpDiffusion`); None, the default,
            where nothing does. What reads drift and diffusion alone refuses jumps by name.
        autonomous: Whether f and g do not depend on t; None, the default: it is not known.
        phase_space: Whether a state is positions and velocities, shape (batch, 2, *event).
        linear_part: L of a drift −L x + r(x, t), where it is known: what `ImplicitEuler` solves
            for. Shape (), (d,) or (d, d), for states of d numbers.
        direction: Sense of time in which the noisy equation is meant: +1 or −1. A noisy SDE run
            against its direction is not its time reversal; noise-free dynamics run both ways.
        is_discrete: Whether it is a Markov chain on integer times, whose steps have dt = ±1.
        halves_steps: Whether smaller steps are nearer to what is meant, so that a pilot may halve
            them: not where a step is part of the model, nor for reverse dynamics.
        time_range: Times at which f and g exist.
        score_range: Those of them at which p_t has a score.

    Example:
        >>> class Decay(sg.SDE):
        ...     noise = "none"
        ...     def drift(self, x, t):
        ...         return -x
        ...     def diffusion(self, x, t):
        ...         return torch.zeros(())
        >>> times = torch.linspace(0, 1, 101)
        >>> end = sg.simulate(Decay(), torch.ones(1, 1), times, solver=sg.Heun()).final
        >>> f"{end.item():.4f}"  # 1/e
        '0.3679'
    """

    noise: NoiseKind = "multiplicative"
    channels: int | None = None
    noise_structure: NoiseStructure = "diagonal"
    constant_noise: float | None = None
    jumps: tuple[CompoundPoisson | AlphaStable, ...] | None = None
    autonomous: bool | None = None
    phase_space: bool = False
    linear_part: Tensor | None = None
    direction: Literal[1, -1] = 1
    is_discrete: ClassVar[bool] = False
    halves_steps: ClassVar[bool] = True
    _counted: ClassVar[str] = "drift"  # whose calls are the cost of a run

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse noise of one's own that is not declared."""
        super().__init_subclass__(**options)
        declare(cls, SDE)
        said = next(c for c in cls.__mro__ if issubclass(c, SDE) and "autonomous" in vars(c))
        if said.autonomous is True and not cls._moves_as(said):
            cls.autonomous = None  # was said of another drift or diffusion

    @classmethod
    def _moves_as(cls, kind: type[SDE]) -> bool:
        """Return whether drift and noise are the methods of another class."""
        names = ("drift", "diffusion", "add_noise")
        return all(getattr(cls, name) is getattr(kind, name) for name in names)

    @property
    def time_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the dynamics are defined."""
        return (-float("inf"), float("inf"))

    @property
    def score_range(self) -> tuple[float, float]:
        """Earliest and latest time at which the score of p_t is asked for."""
        return self.time_range

    @property
    def kernel(self) -> Kernel | None:
        """The Gaussian kernel of numbers α(t) and σ(t), where there is one."""
        return None

    @property
    def noise_kernel(self) -> GaussianKernel | None:
        """The law of X_t given X_0, where it is Gaussian: numbers, one for each mode, or matrices.

        What noises data by it, and learns its score, takes any kind.
        """
        return self.kernel

    @property
    def denoising(self) -> ReverseStructure | None:
        """The score and η of reverse dynamics; None for forward ones."""
        return None

    @property
    def trajectories(self) -> int | None:
        """How many trajectories it holds parameters for, one row each; None: any number."""
        return None

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the shape of the event that holds so many numbers, as where they are in a row."""
        return (numbers,)

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some trajectories: a slice, indices, or booleans."""
        return self

    @abstractmethod
    def drift(self, x: State, t: Time) -> State:
        """f(x, t), same shape as x."""

    @abstractmethod
    def diffusion(self, x: State, t: Time) -> Tensor:
        """g(x, t), a tensor that broadcasts to x; or G, (batch or 1, *event, channels)."""

    def diffusion_column(self, x: State, t: Time, k: int) -> Tensor:
        """Return column k of G(x, t), broadcastable to x: what the k-th Wiener process moves.

        Methods that ask for one column at a state call it; define it where a column costs less
        than G.
        """
        return self.diffusion(x, t)[..., k]

    def diffusion_times(self, x: State, t: Time, z: Tensor) -> State:
        """Return g z, or Σ_k G_ik z_k of channels, shape of x.

        Args:
            x: States, shape (batch, *event).
            t: Time.
            z: Like x; of channels one number for each, shape (batch, channels).
        """
        g = self.diffusion(x, t)
        return g * z if self.channels is None else times(g.to(x), z)

    def add_noise(self, after: State, x: State, t: Time, root_dt: Number, noise: Noise) -> State:
        """Add √|dt| g(x, t) z, z ~ N(0, I), to what `update` returned; a solver calls it.

        Of channels that is √|dt| Σ_k G_ik z_k, with one z for each.

        Args:
            after: x + dt f, a tensor of the step's own: it is written to, unless gradients flow
                through the step or it is compiled.
            x: State at which g is asked, shape (batch, *event).
            t: Time, 0-d or shape (batch,).
            root_dt: √|dt|, of the kind of the step's dt.
            noise: What draws z.

        Returns:
            The next state.
        """
        sigma = self.constant_noise
        if sigma is None:
            if self.channels is not None:
                return add_times(after, self.diffusion(x, t), noise.normal(), root_dt)
            return diffuse(after, noise.normal(), root_dt, self.diffusion(x, t))
        if isinstance(root_dt, float):  # as `diffuse` has it, without a call
            return after.add_(noise.normal(), alpha=root_dt * sigma)
        return diffuse(after, noise.normal(), root_dt, sigma)

    def covariance_times(self, x: State, t: Time, v: State, scale: float = 1.0) -> State:
        """Return scale · g gᵀ v, shape of x: how reversal, flows and residuals see the noise."""
        g = self.diffusion(x, t)
        if self.channels is not None:
            product = times(g.to(x), transposed_times(g.to(x), v))
            return scale * product if scale != 1.0 else product
        return (scale * g * g) * v if scale != 1.0 else g * g * v

    def covariance_divergence(self, x: State, t: Time) -> State:
        """Return ∇·(g gᵀ) = Σ_j ∂(g gᵀ)_ij/∂x_j, shape of x: 0 unless noise is multiplicative.

        Raises ValueError if the g_i of diagonal noise depends on x_j, j ≠ i, or the noise is
        multiplicative and general.
        """
        if self.noise != "multiplicative":
            return torch.zeros_like(x)
        if self.channels is not None:
            return divergence(lambda y: self.diffusion(y, t), x)
        check_not_general(self, "the derivative of g gᵀ (define covariance_divergence(x, t))")
        refusal = MIXED_DIVERGENCE.format(name=type(self).__name__, d=x[0].numel())
        return 2 * noise_induced(lambda y: self.diffusion(y, t), x, refusal=refusal)

    def check_derivatives(self, x: State, t: Time) -> None:  # noqa: B027, most take none
        """Refuse a derivative that is not that of its function, by finite differences.

        Args:
            x: Two states, shape (2, *event): what is compared lies on the way between them.
            t: Time, 0-d.
        """

    def check_start(  # noqa: B027, most take any
        self, x: State, periods: Tensor | None, t: Time
    ) -> None:
        """Refuse a start, where more can be said than that f is not finite or not periodic.

        Args:
            x: States at the first time, shape (batch, *event).
            periods: Of the boundary, shape (*event,), 0 where a coordinate has none; None where
                no coordinate has one.
            t: The first time, 0-d.
        """

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that drift or diffusion need is found at some states.

        "none" where none is needed, "given", "autograd", or "differences" where autograd does not
        see it or gives NaN at one of the states.
        """
        return "none"

    def with_counter(self, counter: CallCounter) -> Self:
        """Return a copy whose calls of the drift, or of the score, are counted by `counter`."""
        clone = copy.copy(self)
        object.__setattr__(clone, self._counted, counter.wrap(getattr(self, self._counted)))
        return clone
