"""The SDE: a drift f and a diffusion g, and in which sense of time they are meant.

    dX = f(X, t) dt + g(X, t) dW        (Itô, diagonal noise)

f and g are functions of a state (batch, *event) and a time; W has one independent component for
each coordinate, so g is a number, a number for each trajectory, or one for each coordinate, and
never a matrix. Units are reduced: k_B = mobility = 1, D = g²/2, and a temperature T enters as g =
√(2T).

**Readings of multiplicative noise.** Where g depends on x, "g dW" needs a convention, α: 0
evaluates g before the step (Itô), ½ in the middle (Stratonovich), 1 after it (Klimontovich,
Hänggi). All are the Itô equation with drift f + α g ∂g/∂x, which is what `ItoProcess` hands to
every solver, so that they all solve the same equation.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import (
    ClassVar,
    Literal,
    Protocol,
    Self,
    get_args,
    runtime_checkable,
)

import torch
from torch import Tensor

from sdegen.accuracy import SlopeBy
from sdegen.noise import Noise
from sdegen.requests import is_word
from sdegen.sde.derivatives import MIXES, check_slope, is_seen, mixes_coordinates, noise_induced
from sdegen.sde.signature import Signature
from sdegen.shapes import ScoreFn, State, Time
from sdegen.step import Number, diffuse

__all__ = [
    "SDE",
    "Counter",
    "Denoising",
    "Interpretation",
    "ItoProcess",
    "Kernel",
    "NoiseKind",
    "PreparedScore",
    "Rows",
    "ScoreAt",
    "along",
]

NoiseKind = Literal["none", "additive", "multiplicative"]
Interpretation = Literal["ito", "stratonovich", "klimontovich"]
Field = Callable[..., Tensor]
ScoreAt = Callable[[State, int], State]
Rows = slice | Tensor

_ALPHA: dict[str, float] = {"ito": 0.0, "stratonovich": 0.5, "klimontovich": 1.0}
_HALVINGS = 80  # of an interval of times: past the last bit of a float64


@runtime_checkable
class PreparedScore(Protocol):
    """A score that knows how to prepare itself for a run: `model.score` does.

    Any function (x, t) -> ∇ log p_t(x) is a score. One that has `precompute` computes there what
    depends on the times alone; one that has `sde` is compared with the process that it is used
    for, and one that has `event_shape` tells the shape of a sample.
    """

    def __call__(self, x: State, t: Time) -> State:
        """∇ log p_t(x), same shape as x."""

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return at(x, i) = score(x, times[i]).

        Args:
            times: Shape (n,), float64, on the CPU.
        """


class Counter:
    """Counts the calls of a function, so that a reported cost is what really happened."""

    def __init__(self) -> None:
        self.calls = 0

    def counting(self, function: Callable[[State, Time], State]) -> Callable[[State, Time], State]:
        """The same function; each call adds one to `calls`."""

        def counted(x: State, t: Time) -> State:
            self.calls += 1
            return function(x, t)

        if isinstance(function, PreparedScore):
            return _CountedScore(self, counted, function)
        return counted


class _CountedScore:
    """A score that prepares itself, whose calls are counted."""

    def __init__(self, counter: Counter, counted: ScoreFn, score: PreparedScore) -> None:
        self._counter, self._counted, self._score = counter, counted, score

    def __call__(self, x: State, t: Time) -> State:
        return self._counted(x, t)

    def precompute(self, times: Tensor) -> ScoreAt:
        """Return the prepared score, whose calls are counted."""
        at, counter = self._score.precompute(times), self._counter

        def counted_at(x: State, i: int) -> State:
            counter.calls += 1
            return at(x, i)

        return counted_at


def along(score: ScoreFn, nodes: Tensor) -> ScoreAt:
    """A score at the nodes of a run: at(x, i) = score(x, nodes[i]).

    What depends on the times alone is computed here, once, by a `PreparedScore`; any other is
    asked with nodes[i].

    Args:
        score: ∇ log p_t(x).
        nodes: Shape (n,), float64, on the CPU.

    >>> at = along(lambda x, t: -x / t, torch.tensor([0.5, 0.25]))
    >>> at(torch.ones(1, 1), 1)
    tensor([[-4.]])
    """
    if isinstance(score, PreparedScore):
        return score.precompute(nodes)
    ts = nodes.unbind()
    return lambda x, i: score(x, ts[i])


@dataclass(frozen=True)
class Kernel:
    """The Gaussian kernel X_t | X_0 ~ N(α(t) X_0, σ(t)² I) of a linear SDE.

    Attributes:
        alpha: α(t), shape of t.
        sigma: σ(t), shape of t.
    """

    alpha: Callable[[Time], Tensor]
    sigma: Callable[[Time], Tensor]

    def log_ratio(self, t: Tensor) -> Tensor:
        """log(σ/α) = −λ, of the noise-to-signal ratio; shape of t."""
        return torch.log(self.sigma(t)) - torch.log(self.alpha(t))

    def time_at(self, log_ratio: Tensor, low: float, high: float) -> Tensor:
        """The times in [low, high] at which log(σ/α) takes these values, by bisection.

        Args:
            log_ratio: Values of log(σ/α), which increases in t; float64, any shape.
            low: Earliest time.
            high: Latest time.
        """
        below, above = torch.full_like(log_ratio, low), torch.full_like(log_ratio, high)
        for _ in range(_HALVINGS):
            middle = 0.5 * (below + above)
            less = self.log_ratio(middle) < log_ratio
            below, above = torch.where(less, middle, below), torch.where(less, above, middle)
        return 0.5 * (below + above)


@dataclass(frozen=True)
class Denoising:
    """What a sampler that looks inside reverse dynamics finds there.

    Attributes:
        score: ∇ log p_t(x).
        eta: η of the family of reverse dynamics: 0 the flow, 1 the reverse SDE.
        kernel: Kernel of the forward SDE, or None where it is not Gaussian.
    """

    score: ScoreFn
    eta: float
    kernel: Kernel | None

    def along(self, nodes: Tensor) -> ScoreAt:
        """The score at the nodes of a run, as `along` has it."""
        return along(self.score, nodes)


class SDE(ABC):
    """Stochastic dynamics dX = f(X, t) dt + g(X, t) dW, Itô, diagonal noise.

    Attributes:
        noise: "none" (g = 0), "additive" (g depends on t alone) or "multiplicative" (g depends on
            x), which assumes the least and holds unless said.
        constant_noise: g, where it is one number for all x and t, which saves asking for it in
            every step; None else.
        autonomous: Whether f and g are known not to depend on t, or known to; None where neither
            is known, which assumes the least and holds unless said.
        direction: Sense of time in which the noisy equation is meant: +1 or −1. A noisy SDE run
            against its direction is not its time reversal; noise-free dynamics run both ways.
        clock: "continuous", or "integer" for a Markov chain whose steps have dt = ±1.
        halves_steps: Whether smaller steps are nearer to what is meant, so that a run may be tried
            with half of them before it; not so where a step is part of the model, nor for reverse
            dynamics, which have few steps on purpose.
        time_range: Times at which f and g exist.
        score_range: Those of them at which p_t has a score.
    """

    noise: NoiseKind = "multiplicative"
    constant_noise: float | None = None
    autonomous: bool | None = None
    direction: Literal[1, -1] = 1
    clock: ClassVar[Literal["continuous", "integer"]] = "continuous"
    halves_steps: ClassVar[bool] = True

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
        """The Gaussian kernel, where there is one."""
        return None

    @property
    def denoising(self) -> Denoising | None:
        """The score and η of reverse dynamics; None for forward ones."""
        return None

    @property
    def trajectories(self) -> int | None:
        """How many trajectories it holds parameters for, one row each; None: any number."""
        return None

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some of the trajectories, where each has its own parameters.

        Args:
            rows: Which, a slice or a tensor of indices or of booleans, on the parameters' device.
        """
        return self

    @abstractmethod
    def drift(self, x: State, t: Time) -> State:
        """f(x, t), same shape as x."""

    @abstractmethod
    def diffusion(self, x: State, t: Time) -> Tensor:
        """g(x, t), broadcastable to x; always a tensor."""

    def add_noise(self, after: State, x: State, t: Time, root_dt: Number, noise: Noise) -> State:
        """Add √|dt| g(x, t) z, z ~ N(0, I), to what `update` returned; a solver calls it.

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
            return diffuse(after, noise.normal(), root_dt, self.diffusion(x, t))
        if isinstance(root_dt, float):  # as `diffuse` has it, without a call
            return after.add_(noise.normal(), alpha=root_dt * sigma)
        return diffuse(after, noise.normal(), root_dt, sigma)

    def check_derivatives(self, x: State, t: Time) -> None:  # noqa: B027, most take none
        """Refuse dynamics that use a derivative which is not that of their function.

        Args:
            x: Two states, shape (2, *event): derivatives are compared with finite differences on
                the way from one to the other.
            t: Time, 0-d.

        Raises:
            ValueError: Naming the derivative, a state and both values.
        """

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that drift or diffusion need is found at some states.

        Args:
            x: States, shape (batch, *event).
            t: Time, shape () or (batch,).

        Returns:
            "none" where none is needed, "given", "autograd", or "differences" where autograd does
            not see it or gives NaN at one of the states.
        """
        return "none"

    def counted(self, counter: Counter) -> Self:
        """The same dynamics, whose costly evaluations `counter` counts: those of the drift."""
        twin = copy.copy(self)
        object.__setattr__(twin, "drift", counter.counting(self.drift))
        return twin


class ItoProcess(SDE):
    """An SDE from a drift and a diffusion of your own.

    dX = f(X, t) dt + g(X, t) ∘_α dW, handed on as Itô with drift f + α g ∂g/∂x

    Args:
        drift: f(x, t), f(x), or f(t): one argument that is called t. It returns a tensor of x's
            shape; f(t) one of shape () or *event. A second argument that has a default is a
            parameter of yours and keeps it, unless it is called t.
        diffusion: A number σ ≥ 0 (additive; 0 is an ODE), or g(x, t), g(x), or g(t), which is
            additive.
            Diagonal: where it depends on x, it is either one number for each trajectory, shape
            (batch, 1, …), or coordinate i of g depends on coordinate i of x alone, unless the
            reading is "ito".
        interpretation: Reading of multiplicative noise: "ito", "stratonovich" or "klimontovich".
        noise: What a callable diffusion is, "multiplicative" unless said. Say "additive" for a
            g(x, t) that depends on t alone: solvers are then cheaper and of higher order.
        autonomous: Whether drift and diffusion are the same at every t, whatever arguments they
            take. If None, those that take no t are; of others it is not known: runs over time
            read them at every step, and what is asked of them at rest (a stationary density, a
            spectrum, a first passage) assumes it where they answered alike at some times.
        diffusion_derivative: ∂g/∂x of (x, t) or (x), coordinate by coordinate, x's shape, which a
            reading other than "ito" needs. If None, autograd finds it; where autograd does not see
            it (a table by NumPy, `.detach()`) or gives NaN (√x at 0), it is the finite
            difference of g²/2. `check_derivatives` compares either with g before a run.
        parameters: Tensors by name, with one row for each trajectory: shape (trajectories, …).
            Drift and diffusion get each of them by its name, as f(x, t, k) or f(x, k) for
            {"k": k}, cut to the rows of x: where trajectories run in blocks, those of the block.
            `simulate` and `run_ensemble` then take as many trajectories as there are rows.

    Raises:
        TypeError: If the drift is not callable or takes (t, x), the diffusion is a matrix, a
            parameter is no tensor, or autonomous is neither a bool nor None.
        ValueError: If a word is misspelt or does not go with the diffusion, or the number is
            negative or not finite.

    Reference:
        Gardiner 2009, Stochastic Methods, section 4.4, for α = ½; Hänggi and Thomas 1982 for α =
        1.

    >>> well = ItoProcess(drift=lambda x, t: x - x**3, diffusion=0.7)
    >>> well.drift(torch.tensor([[2.0]]), torch.tensor(0.0))
    tensor([[-6.]])
    >>> k = torch.tensor([[1.0], [2.0]])
    >>> decays = ItoProcess(lambda x, k: -k * x, diffusion=0.0, parameters={"k": k})
    >>> decays.drift(torch.ones(2, 1), torch.tensor(0.0)).flatten()
    tensor([-1., -2.])
    """

    parameters: Mapping[str, Tensor] | None = None

    def __init__(
        self,
        drift: Field,
        diffusion: float | Field,
        *,
        interpretation: Interpretation = "ito",
        noise: NoiseKind | None = None,
        autonomous: bool | None = None,
        diffusion_derivative: Field | None = None,
        parameters: Mapping[str, Tensor] | None = None,
    ) -> None:
        if not callable(drift):
            raise TypeError(
                f"drift must be a function f(x, t) or f(x), but is {type(drift).__name__}."
            )
        if not is_word(interpretation, _ALPHA):
            words = ", ".join(map(repr, _ALPHA))
            raise ValueError(f"interpretation must be one of {words}, but is {interpretation!r}.")
        if noise is not None and not is_word(noise, get_args(NoiseKind)):
            words = ", ".join(map(repr, get_args(NoiseKind)))
            raise ValueError(f"noise must be one of {words}, but is {noise!r}.")
        if autonomous is not None and not isinstance(autonomous, bool):
            raise TypeError(
                "autonomous must be True where drift and diffusion do not depend on t, False "
                f"where they do, or None, but is {autonomous!r}."
            )
        tensors = None if parameters is None else _check_parameters(parameters)
        read = Signature.of(drift, "drift", tuple(tensors or ()))
        self._drift, timed = _bound(read, tensors), read.of_time
        taken = set(read.parameters)
        assumed: NoiseKind
        if callable(diffusion):
            read = Signature.of(diffusion, "diffusion", tuple(tensors or ()))
            self._diffusion, timed = _bound(read, tensors), timed or read.of_time
            taken.update(read.parameters)
            assumed = "multiplicative" if read.of_state or read.parameters else "additive"
            if noise == "none":
                raise ValueError("noise='none' means g = 0: pass diffusion=0.0 with it.")
        else:
            sigma = self.constant_noise = _number(diffusion)
            value = torch.tensor(sigma, dtype=torch.float64)
            self._diffusion = lambda x, t: value
            assumed = "none" if sigma == 0 else "additive"
            if noise not in (None, assumed):
                raise ValueError(
                    f"noise must be {assumed!r} for diffusion = {sigma:g}, but is {noise!r}."
                )
        if tensors is not None:
            self.parameters = tensors
            if unused := [name for name in tensors if name not in taken]:
                raise ValueError(
                    f"parameters has {unused[0]!r}, but neither drift nor diffusion takes an "
                    f"argument of that name: write f(x, t, {unused[0]})."
                )
        self.noise = noise or assumed
        self.autonomous = autonomous if autonomous is not None or timed else True
        self.interpretation = interpretation
        self._alpha = _ALPHA[interpretation] if self.noise == "multiplicative" else 0.0
        self._slope: Callable[[State, Time], Tensor] | None = None
        if diffusion_derivative is not None:
            if not callable(diffusion_derivative):
                raise TypeError(
                    "diffusion_derivative must be a function (x, t) or (x) that returns ∂g/∂x, "
                    f"but is {type(diffusion_derivative).__name__}."
                )
            if self._alpha == 0.0:
                raise ValueError(
                    "diffusion_derivative goes with a g(x, t) that is multiplicative and read as "
                    f"'stratonovich' or 'klimontovich', but noise is {self.noise!r} and "
                    f"interpretation {interpretation!r}, which need no ∂g/∂x; leave it out."
                )
            read = Signature.of(diffusion_derivative, "diffusion_derivative", tuple(tensors or ()))
            self._slope = _bound(read, tensors)
            if read.of_time and autonomous is None:
                self.autonomous = None

    @property
    def trajectories(self) -> int | None:
        """How many trajectories it holds parameters for, one row each; None: any number."""
        if self.parameters is None:
            return None
        return len(next(iter(self.parameters.values())))

    def of_rows(self, rows: Rows) -> Self:
        """Return the dynamics of some of the trajectories, with their parameters alone."""
        if self.parameters is None:
            return self
        twin = copy.copy(self)
        twin.parameters = {name: value[rows] for name, value in self.parameters.items()}
        for name in ("_drift", "_diffusion", "_slope"):
            field = getattr(self, name)
            if isinstance(field, _Bound):
                setattr(
                    twin,
                    name,
                    _Bound(field.function, {k: twin.parameters[k] for k in field.parameters}),
                )
        return twin

    def drift(self, x: State, t: Time) -> State:
        """f + α g ∂g/∂x: the Itô drift, same shape as x."""
        if self._alpha == 0.0:
            return self._drift(x, t)
        return self._drift(x, t) + self._alpha * self._noise_induced(x, t)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """g(x, t), broadcastable to x."""
        return self._diffusion(x, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the slope of g that the reading needs with finite differences of g²/2."""
        if self._alpha == 0.0:
            return
        t = t.clone() if t.is_inference() else t

        def diffusivity(y: State) -> Tensor:
            g = self._diffusion(y, t)
            return 0.5 * g * g

        if mixes_coordinates(diffusivity, x):
            raise ValueError(MIXES)
        given = self._slope is not None
        check_slope(
            diffusivity,
            lambda y: self._noise_induced(y, t),
            x,
            name="g²/2 (g times diffusion_derivative)" if given else "g²/2",
            cure="Let diffusion_derivative= return ∂g/∂x."
            if given
            else "If a part of g is hidden from autograd (.detach(), no_grad, NumPy), take it out "
            "or pass diffusion_derivative=; if g jumps, make it continuous, such as by "
            "interpolation.",
        )

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the slope of g that the reading needs is found at these states.

        Args:
            x: States, shape (batch, *event).
            t: Time, shape () or (batch,).

        Returns:
            "none" where no slope is needed, "given" for `diffusion_derivative`, "autograd", or
            "differences" where autograd does not see g or gives NaN at one of the states.
        """
        if self._alpha == 0.0:
            return "none"
        if self._slope is not None:
            return "given"
        return "autograd" if is_seen(lambda y: self._diffusion(y, t), x) else "differences"

    def _noise_induced(self, x: State, t: Time) -> State:
        """Return g ∂g/∂x, coordinate by coordinate."""
        slope = self._slope
        if slope is not None:
            return (self._diffusion(x, t) * slope(x, t)).expand_as(x)
        return noise_induced(lambda y: self._diffusion(y, t), x)


class _Bound:
    """A drift or diffusion with its parameters: field(x, t)."""

    def __init__(self, function: Field, parameters: dict[str, Tensor]) -> None:
        self.function, self.parameters = function, parameters

    def __call__(self, x: State, t: Time) -> Tensor:
        return self.function(x, t, **self.parameters)


def _bound(read: Signature, tensors: Mapping[str, Tensor] | None) -> Field:
    """Return the function that was read with those of the parameters that it takes."""
    if not read.parameters or tensors is None:
        return read.function
    return _Bound(read.function, {name: tensors[name] for name in read.parameters})


def _check_parameters(parameters: object) -> dict[str, Tensor]:
    """Return the parameters of trajectories as tensors with one number of rows.

    Raises:
        TypeError: If they are no mapping of names to tensors or arrays.
        ValueError: If there are none, a name is that of the state or the time, or they have
            different numbers of rows.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(
            "parameters must be a mapping of names to tensors, such as {'k': k}, but is "
            f"{type(parameters).__name__}."
        )
    tensors: dict[str, Tensor] = {}
    for name, value in parameters.items():
        if name in ("x", "t"):
            raise ValueError(
                f"parameters has {name!r}, which is the name of the state or the time."
            )
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"parameters[{name!r}] must be a tensor or an array: {error}."
            ) from None
        if tensor.ndim == 0:
            raise ValueError(
                f"parameters[{name!r}] must have one row for each trajectory, shape "
                "(trajectories, …), but is one number: write it into the function itself."
            )
        tensors[name] = tensor
    rows = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ValueError(
            "parameters must have one row for each trajectory, but have "
            f"{rows or 'no entry'} rows."
        )
    return tensors


def _number(diffusion: object) -> float:
    """A non-negative number, or a refusal."""
    if isinstance(diffusion, Tensor) and diffusion.ndim == 0:
        if diffusion.requires_grad:
            raise TypeError(
                "diffusion is a tensor that requires grad, and a number would lose its gradient; "
                "pass diffusion=lambda x, t: sigma with noise='additive'."
            )
        diffusion = float(diffusion)
    if isinstance(diffusion, bool) or not isinstance(diffusion, Real):
        raise TypeError(
            "diffusion must be a number or a function g(x, t), but is "
            f"{type(diffusion).__name__}; noise is diagonal, "
            "a noise matrix is not built: for one scale per coordinate pass "
            "diffusion=lambda x, t: torch.tensor([...]).to(x) with noise='additive'."
        )
    sigma = float(diffusion)
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"diffusion must be finite and ≥ 0, but is {sigma:g}.")
    return sigma
