"""Potentials: energies U(x) with force −∇U, and the exact Boltzmann density where there is one.

At temperature T the density is e^{−U/T}/Z (k_B = 1). States are (batch, *event); an energy has
shape (batch,). An energy U(x, t) that a protocol changes is a `DrivenPotential`; its value and its
force at a time are those of an ordinary potential, `at(t)`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import scipy
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_finite, check_positive
from sdegen.core.derivatives import gradient_of, is_seen
from sdegen.core.requests import (
    as_number,
    as_numbers,
    as_parameter,
    as_state,
    as_time,
    check_function,
    kind_of,
    value_of,
)
from sdegen.core.shapes import State, Time, as_column, expand
from sdegen.core.signature import Signature
from sdegen.core.slope_checks import check_slope


class Potential(ABC):
    """An energy landscape U(x), in the units of the temperature (k_B = 1).

        F(x) = −∇U(x),   p(x) = e^{−U(x)/T}/Z at temperature T

    A subclass defines `energy`, of shape (batch,), and `force`, of the shape (batch, *event) of x.

    Example:
        >>> class Slope(sg.Potential):
        ...     def energy(self, x):
        ...         return 2 * x.sum(1)
        ...     def force(self, x):
        ...         return torch.full_like(x, -2.0)
        >>> sg.Langevin(Slope()).drift(torch.zeros(1, 2), torch.tensor(0.0)).tolist()
        [[-2.0, -2.0]]
    """

    @abstractmethod
    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,)."""

    @abstractmethod
    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""

    def check_start(self, x: State, periods: Tensor | None) -> None:  # noqa: B027, most take any
        """Refuse states at which the force is not finite, and periods not its own; or neither."""


class FunctionPotential(Potential):
    """U(x) from a function of your own; its force is found by autograd, or else by differences.

    Args:
        function: U of states (batch, *event): one energy for each, shape (batch,), or x's shape,
            of which the coordinates are summed. In torch; of a function that autograd does not
            see, such as a table by NumPy, the force is a finite difference.
    """

    def __init__(self, function: Callable[[State], Tensor]) -> None:
        self.function = function

    def energy(self, x: State) -> Tensor:
        """U(x), shape (batch,).

        Raises:
            TypeError: If the function returns no numbers.
            ValueError: If it returns neither one for each state nor one for each coordinate.
        """
        value: object = self.function(x)
        if not isinstance(value, Tensor):
            value = as_numbers("what the potential U(x) returns", value).to(x)
        if value.shape == x.shape[:1]:
            return value
        if value.shape == x.shape or (value.ndim == x.ndim and value.shape[0] == len(x)):
            return value.flatten(1).sum(1)
        raise ValueError(
            f"a potential must return one energy for each state, shape ({len(x)},), or x's shape "
            f"{tuple(x.shape)}, but returned shape {tuple(value.shape)}; sum over the coordinates "
            "alone, such as (x**4 / 4).sum(1)."
        )

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""
        return -gradient_of(self.energy, x)

    def of_columns(self, x: State) -> Tensor:
        """U(x), one number for each state, shape (batch, 1, …)."""
        return as_column(self.energy(x), x)

    def check_force(self, ends: State) -> None:
        """Compare the force with differences of U on the way between two states.

        Raises:
            ValueError: If they are not the same, such as where U is hidden from autograd in part.
        """
        check_slope(
            self.of_columns,
            lambda y: gradient_of(self.energy, y),
            ends,
            name="the potential U(x)",
            cure="If a part of it is hidden from autograd (.detach(), no_grad, NumPy), take that "
            "out or hide all of it; if it jumps, make it continuous.",
        )


class DrivenPotential:
    """An energy that a protocol changes: a trap that moves, a field that is switched on.

        F(x, t) = −∇U(x, t)

    Args:
        function: U(x, t) of states (batch, *event) and a time, in torch, which returns what that
            of a `FunctionPotential` does; or a function of t alone that returns a `Potential`,
            whose force is then its own: lambda t: Quadratic(1.0, center=0.5 * t).

    Raises:
        TypeError: If it is no function of a time.

    Example:
        >>> trap = sg.DrivenPotential(lambda x, t: (x - 2 * t) ** 2 / 2)
        >>> trap.energy_at(torch.zeros(1, 1), torch.tensor(1.5)).item()  # (2t)²/2
        4.5
    """

    def __init__(self, function: Callable[..., object]) -> None:
        check_function("function", function, "a function U(x, t), or one of t that gives U")
        self.function = function
        read = Signature.of(function, "function")  # type: ignore[arg-type]
        if not read.of_time:
            raise TypeError(
                "a driven potential depends on time, but its function takes x alone: pass "
                "lambda x, t: …, or the function itself where nothing drives it."
            )
        self._energy = read.function if read.of_state else None

    def at(self, t: Time) -> Potential:
        """Return the potential at a time, 0-d or one for each state.

        Raises:
            TypeError: If t is no time, or the function is one of t alone and returns no potential.
            ValueError: What the potential refuses, such as a centre that is not finite; a note
                says at what t.
        """
        t, energy = as_time(t), self._energy
        if energy is None:
            try:
                return as_potential(self.function(t))
            except (TypeError, ValueError) as error:
                error.add_note(
                    f"in the potential that a function of t alone gives at t = {t.tolist()}"
                )
                raise
        return FunctionPotential(lambda x: energy(x, expand(t, x)))

    def energy_at(self, x: State, t: Time) -> Tensor:
        """U(x, t), shape (batch,)."""
        return self.at(t).energy(as_state("x", x))

    def force_at(self, x: State, t: Time) -> State:
        """−∇U(x, t), same shape as x."""
        return self.at(t).force(as_state("x", x))


AnyPotential = Potential | DrivenPotential


def energy_of(potential: AnyPotential, x: State, t: Time) -> Tensor:
    """Return U of a potential that may be driven, shape (batch,)."""
    if isinstance(potential, DrivenPotential):
        return potential.energy_at(x, t)
    return potential.energy(x)


def force_of(potential: AnyPotential, x: State, t: Time) -> State:
    """Return −∇U of a potential that may be driven, same shape as x."""
    if isinstance(potential, DrivenPotential):
        return potential.force_at(x, t)
    return potential.force(x)


def check_start_of(potential: AnyPotential, x: State, periods: Tensor | None, t: Time) -> None:
    """Refuse a start, or periods, that a potential at its time refuses."""
    potential = potential.at(t) if isinstance(potential, DrivenPotential) else potential
    if isinstance(potential, Potential):
        potential.check_start(x, periods)


def check_force_of(potential: AnyPotential, x: State, t: Time) -> None:
    """Compare the force of a potential that is a function with differences of its energy.

    Raises:
        ValueError: If they are not the same.
    """
    potential = potential.at(t) if isinstance(potential, DrivenPotential) else potential
    if isinstance(potential, FunctionPotential):
        potential.check_force(x)


def force_by(potential: AnyPotential, x: State, t: Time) -> SlopeBy:
    """Return how the force is found at some states, of a potential that is a function."""
    potential = potential.at(t) if isinstance(potential, DrivenPotential) else potential
    if not isinstance(potential, FunctionPotential):
        return "none"
    return "autograd" if is_seen(potential.of_columns, x) else "differences"


@runtime_checkable
class _HasForce(Protocol):
    """What Langevin dynamics need of a potential."""

    def force(self, x: State) -> State:
        """−∇U(x), same shape as x."""


def as_potential(potential: object) -> Potential:
    """Return a potential, made of a function U(x) where it is one.

    Raises:
        TypeError: If it is neither.

    >>> as_potential(lambda x: x**2 / 2).energy(torch.tensor([[3.0]]))
    tensor([4.5000])
    """
    if isinstance(potential, Potential):
        return potential
    if isinstance(potential, type):
        raise TypeError(
            f"potential must be an object, but is the class {potential.__name__}: pass "
            f"{potential.__name__}()."
        )
    if isinstance(potential, _HasForce):
        return potential  # type: ignore[return-value]  # all that is asked of it
    if callable(potential):
        return FunctionPotential(potential)
    raise TypeError(
        "potential must be a Potential such as DoubleWell(), or a function U(x) such as "
        f"lambda x: x**4 / 4, but is {kind_of(potential)}."
    )


def as_any_potential(potential: object) -> AnyPotential:
    """Return a potential that may be driven, made of U(x) or U(x, t) where it is a function.

    Raises:
        TypeError: If it is neither.

    >>> type(as_any_potential(lambda x, t: (x - t) ** 2)).__name__
    'DrivenPotential'
    """
    if isinstance(potential, DrivenPotential):
        return potential
    bare = not isinstance(potential, Potential | type) and not isinstance(potential, _HasForce)
    if bare and callable(potential) and Signature.of(potential, "potential").of_time:
        return DrivenPotential(potential)
    return as_potential(potential)


class Quadratic(Potential):
    """The harmonic trap.

        U(x) = ½ k |x − μ|²,   p(x) = N(x; μ, T/k) at temperature T

    States have shape (batch, *event), energies shape (batch,).

    Args:
        stiffness: k > 0, in units of energy/length².
        center: μ, the same for every coordinate.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If stiffness is not finite and > 0, or center not finite.

    Example:
        >>> x, trap = torch.tensor([[3.0]]), sg.Quadratic(stiffness=2.0, center=1.0)
        >>> trap.energy(x).item(), trap.force(x).item()  # ½ · 2 · 2² and −2 · 2
        (4.0, -4.0)
    """

    def __init__(self, stiffness: float | Tensor = 1.0, center: float | Tensor = 0.0) -> None:
        self.stiffness: float | Tensor = as_parameter("stiffness", stiffness)
        self.center: float | Tensor = as_parameter("center", center)
        k = value_of(self.stiffness)
        if not 0 < k < math.inf:
            raise ValueError(f"stiffness must be finite and > 0 to confine, but is {k:g}.")
        check_finite("center", value_of(self.center))

    def energy(self, x: State) -> Tensor:
        """½ k |x − μ|², shape (batch,)."""
        return 0.5 * self.stiffness * (x - self.center).flatten(1).square().sum(1)

    def force(self, x: State) -> State:
        """−k (x − μ)."""
        return -self.stiffness * (x - self.center)

    def log_prob(self, x: State, temperature: float = 1.0) -> Tensor:
        """log of N(x; μ, T/k), shape (batch,)."""
        x = as_batch(x)
        check_positive("temperature", temperature)
        ratio = 2 * math.pi * temperature / self.stiffness
        log_ratio = ratio.log() if isinstance(ratio, Tensor) else math.log(ratio)
        return -self.energy(x) / temperature - 0.5 * x[0].numel() * log_ratio


class DoubleWell(Potential):
    """Two wells in each coordinate, at ±√(b/2a), with a barrier b²/4a between them.

        U(x) = Σ_i (a x_i⁴ − b x_i²)

    States have shape (batch, *event), energies shape (batch,).

    Args:
        quartic: a > 0.
        quadratic: b > 0.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is not finite and > 0.

    Example:
        >>> sg.DoubleWell().energy(torch.tensor([[-1.0], [0.0], [1.0]])).tolist()  # a = ¼, b = ½
        [-0.25, 0.0, -0.25]
    """

    def __init__(self, quartic: float | Tensor = 0.25, quadratic: float | Tensor = 0.5) -> None:
        self.quartic: float | Tensor = as_parameter("quartic", quartic)
        self.quadratic: float | Tensor = as_parameter("quadratic", quadratic)
        a, b = value_of(self.quartic), value_of(self.quadratic)
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(f"a double well needs a, b > 0, finite, but a = {a:g}, b = {b:g}.")

    def energy(self, x: State) -> Tensor:
        """Σ_i (a x_i⁴ − b x_i²), shape (batch,)."""
        square = x.flatten(1).square()
        return (square * (self.quartic * square - self.quadratic)).sum(1)

    def force(self, x: State) -> State:
        """−4 a x³ + 2 b x."""
        return x * (2 * self.quadratic - 4 * self.quartic * x.square())

    def log_prob(self, x: State, temperature: float = 1.0) -> Tensor:
        """log(e^{−U/T}/Z), shape (batch,).

        Z = (π/2) √(b/2a) e^z [I_{−¼}(z) + I_{¼}(z)] for each coordinate, z = b²/8aT.

        Raises:
            TypeError: If a or b is a tensor that requires grad, of which log Z would lose it.
        """
        x = as_batch(x)
        check_positive("temperature", temperature)
        cure = "energy(x) keeps it, or pass its value, .item(), to DoubleWell"
        a = as_number("quartic", self.quartic, cure=cure)
        b = as_number("quadratic", self.quadratic, cure=cure)
        z = b * b / (8 * a * temperature)
        # ive(ν, z) = I_ν(z) e^{−z}: no barrier overflows
        bessel = float(scipy.special.ive(-0.25, z) + scipy.special.ive(0.25, z))
        log_z = math.log(0.5 * math.pi * math.sqrt(b / (2 * a)) * bessel) + 2 * z
        return -self.energy(x) / temperature - x[0].numel() * log_z


def as_batch(x: State) -> State:
    """Return states as a tensor with a batch axis, or refuse them."""
    x = as_state("x", x)
    if x.ndim < 2:
        raise ValueError(
            f"x must have shape (batch, *event), but has shape {tuple(x.shape)}; one-dimensional "
            "physics is (batch, 1): pass x[:, None]."
        )
    return x
