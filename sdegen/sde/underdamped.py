"""Underdamped Langevin dynamics: positions and velocities, with noise on velocities alone.

    dx = v dt,        dv = [F(x, t)/m − γ v] dt + √(2γT/m) dW,        F = −∇U

The friction γ is a rate, 1/γ the time in which a velocity is forgotten (the friction coefficient
of `GeneralizedLangevin` is m γ). At rest the density is e^{−(U + m v²/2)/T}/Z, whatever γ is, also
where γ(x) depends on the position: noise and friction then balance at each x, and since noise
moves v alone, g(x) dW has one interpretation and no drift of its own. For γ → ∞ at fixed times
m γ t it is overdamped Langevin dynamics, for γ = 0 Newton's equation.

**Phase space.** A state is (batch, 2, *event): positions [:, 0] and velocities [:, 1], each of
shape (batch, *event). `state(x, v)` joins them, `position` and `velocity` are views. What works
on numbers in a row, a plane of a density, a matrix of a linear process, has the positions first,
then the velocities.

Reference:
    Kramers 1940, Physica 7, 284, eq. (7); Pavliotis 2014, Stochastic Processes and Applications,
    chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_int
from sdegen.core.kernel import GaussianKernel
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import (
    as_number,
    as_numbers,
    as_parameter,
    as_state,
    as_time,
    check_state,
    value_of,
)
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import Numbers, State, Time
from sdegen.core.signature import Signature
from sdegen.core.update import Number
from sdegen.sde.kernels import kernel_of_pairs
from sdegen.sde.potentials import (
    AnyPotential,
    DrivenPotential,
    Potential,
    Quadratic,
    as_any_potential,
    check_force_of,
    check_start_of,
    energy_of,
    force_by,
    force_of,
)

Field = Callable[[State], Tensor]

_CURES = {
    "mass": "pass a positive one, or take Langevin(potential, temperature), without inertia",
    "friction": "pass the rate at which velocities decay, or 0.0 for Newton's equation",
    "temperature": "pass it in units of energy, or 0.0 for no noise",
}


class UnderdampedLangevin(SDE):
    """Langevin dynamics in phase space, of states (batch, 2, *event): positions and velocities.

        dx = v dt,   dv = [−∇U/m − γ v] dt + √(2γT/m) dW
        p(x, v) = e^{−(U(x) + m v²/2)/T}/Z at rest

    Args:
        potential: U and its force, as `Langevin` takes it: a `Potential`, a function U(x), or one
            of U(x, t) that a protocol drives; of positions (batch, *event).
        friction: γ ≥ 0, in units of inverse time: a number; one for each coordinate, shape of the
            event; or a function γ(x) of positions, which returns one number for each trajectory,
            shape (batch, 1, …), or x's shape.
        temperature: T ≥ 0, in units of energy (k_B = 1).
        mass: m > 0, a number or one for each coordinate.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If a number is out of its range.

    Example:
        >>> trap = sg.UnderdampedLangevin(lambda x: 2 * x**2, friction=0.5, mass=2.0)
        >>> state = trap.state([[1.0]], [[3.0]])
        >>> trap.drift(state, torch.tensor(0.0)).flatten().tolist()  # v and −4 x/m − γ v
        [3.0, -3.5]
    """

    autonomous: bool | None = True
    phase_space = True
    _counted = "force"
    _kernel: GaussianKernel | None = None

    def __init__(
        self,
        potential: Potential | DrivenPotential | Callable[..., Tensor],
        friction: Numbers | Field = 1.0,
        temperature: Number = 1.0,
        mass: Numbers = 1.0,
    ) -> None:
        self.potential: AnyPotential = as_any_potential(potential)
        still = False
        self.friction: float | Tensor | Field
        if callable(friction) and not isinstance(friction, Tensor):
            if Signature.of(friction, "friction").of_time:
                raise TypeError(
                    "friction must be a function γ(x) of positions alone, but takes a time too."
                )
            self.friction = friction
        else:
            self.friction = _field("friction", friction, zero=True)
            still = _is_zero(self.friction)
        self.temperature: float | Tensor = as_parameter("temperature", temperature)
        _check("temperature", self.temperature, zero=True)
        self.mass: float | Tensor = _field("mass", mass, zero=False)
        if isinstance(self.potential, DrivenPotential):
            self.autonomous = False
        if still or value_of(self.temperature) == 0:
            self.noise = "none"
        else:
            self.noise: NoiseKind = "multiplicative" if callable(self.friction) else "additive"

    def state(self, x: Numbers | Tensor, v: Numbers | Tensor) -> Tensor:
        """Return the state of positions and velocities, shape (batch, 2, *event).

        Args:
            x: Positions, shape (batch, *event).
            v: Velocities, of the same shape, or broadcast to it: 0.0 is at rest.

        Raises:
            TypeError, ValueError: If they are no states, or have two shapes.
        """
        x = check_state(x, name="x")
        v = as_numbers("v", v, expected="velocities of the shape of x, or a number").to(x)
        if v.ndim and v.shape != x.shape:
            raise ValueError(
                f"v must be a number or have the shape of x, {tuple(x.shape)}, but has shape "
                f"{tuple(v.shape)}."
            )
        return torch.stack([x, v.expand_as(x)], 1)

    def position(self, state: State) -> Tensor:
        """Return x, a view of shape (batch, *event)."""
        return self._checked(state)[:, 0]

    def velocity(self, state: State) -> Tensor:
        """Return v, a view of shape (batch, *event)."""
        return self._checked(state)[:, 1]

    def draw_velocities(self, x: State, rng: Rng = None) -> State:
        """Return velocities from Maxwell's distribution N(0, T/m), shape of x.

        Args:
            x: Positions, whose shape and dtype they have.
            rng: Seed, generator or None.

        Raises:
            TypeError, ValueError: If x are no states.
        """
        x = check_state(x, name="x")
        z = stream(rng, "velocities").normal(tuple(x.shape), dtype=x.dtype, device=x.device)
        spread = torch.as_tensor(self.temperature, dtype=torch.float64) / self._mass_like(x)
        return z * spread.sqrt().to(x)

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return (2, n), the event of so many numbers.

        Raises ValueError if they are odd.
        """
        if check_int("numbers", numbers) % 2 or numbers < 2:
            raise ValueError(
                f"a phase space has as many velocities as positions, but {numbers} numbers are "
                "asked for; pass an even number."
            )
        return (2, numbers // 2)

    @property
    def noise_kernel(self) -> GaussianKernel | None:
        """The law of (x_t, v_t) given x_0, v_0 ~ N(0, T/m), in a `Quadratic` potential; else None.

        So positions are noised: a state has velocities beside them, and the score in v is learned.
        """
        linear = type(self.potential) is Quadratic and not callable(self.friction)
        if not linear or self.noise != "additive" or self.own_methods("drift", "diffusion"):
            return None
        assert isinstance(self.potential, Quadratic)
        if self._kernel is None:
            numbers = (
                self.potential.stiffness,
                self.potential.center,
                self.friction,
                self.temperature,
                self.mass,
            )
            parts = [torch.as_tensor(n, dtype=torch.float64).detach() for n in numbers]
            if not bool((parts[2] > 0).all()):
                return None  # a coordinate without noise
            self._kernel = kernel_of_pairs(*parts)
        return self._kernel

    def force(self, x: State, t: Time) -> State:
        """F = −∇U(x, t), shape of the positions x."""
        return force_of(self.potential, as_state("x", x), t)

    def friction_at(self, x: State) -> Tensor:
        """γ at positions x, broadcastable to them; float64 unless it is a function.

        Raises:
            ValueError: If γ(x) is negative, or of another shape.
        """
        x = as_state("x", x)
        if not callable(self.friction):
            return _fitting("friction", self.friction, x)
        rate = torch.as_tensor(self.friction(x))
        fits = rate.ndim == 0 or (
            rate.ndim == x.ndim
            and rate.shape[0] in (1, len(x))
            and all(a in (1, b) for a, b in zip(rate.shape[1:], x.shape[1:], strict=True))
        )
        if not fits:
            raise ValueError(
                f"friction(x) must return one number for each trajectory, shape ({len(x)}, 1, …), "
                f"or x's shape {tuple(x.shape)}, but returned shape {tuple(rate.shape)}."
            )
        if bool((rate < 0).any()):
            raise ValueError(
                f"friction(x) must be ≥ 0, but is {float(rate.detach().min()):g} at some x; "
                "return its absolute value, or clamp it."
            )
        return rate

    def kinetic_energy(self, state: State) -> Tensor:
        """Σ m v²/2, shape (batch,)."""
        v = self.velocity(state)
        return 0.5 * (self._mass_like(v).to(v) * v.square()).flatten(1).sum(1)

    def energy(self, state: State, t: Time | float = 0.0) -> Tensor:
        """U(x, t) + Σ m v²/2, shape (batch,)."""
        place = self.position(state)
        return energy_of(self.potential, place, as_time(t)) + self.kinetic_energy(state)

    def drift(self, x: State, t: Time) -> State:
        """(v, F(x, t)/m − γ v), shape (batch, 2, *event)."""
        place, v = self._checked(x).unbind(1)
        mass, rate = self.mass, self.friction_at(place)
        mass = self._mass_like(place).to(place) if isinstance(mass, Tensor) and mass.ndim else mass
        force = self.force(place, t)
        return torch.stack([v, force / mass - rate.to(v) * v], 1)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """(0, √(2γT/m)), broadcastable to x."""
        place = self._checked(x)[:, 0]
        square = 2 * self.friction_at(place) * self.temperature / self._mass_like(place)
        g = square.to(place).sqrt()
        if g.ndim < place.ndim:  # one for all trajectories
            g = g.reshape((1,) * (place.ndim - g.ndim) + g.shape)
        return torch.stack([torch.zeros_like(g), g], 1)

    def covariance_divergence(self, x: State, t: Time) -> State:
        """0: noise moves velocities, and does not depend on them."""
        return torch.zeros_like(x)

    def check_start(self, x: State, periods: Tensor | None, t: Time) -> None:
        """Refuse positions that the potential at the first time refuses to start from."""
        of_places = None if periods is None else periods[0]
        check_start_of(self.potential, self.position(x), of_places, t)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the force of a potential that is a function with differences of its energy."""
        check_force_of(self.potential, self.position(x).contiguous(), t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the force is found at these states, of a potential that is a function."""
        return force_by(self.potential, self.position(x).contiguous(), t)

    def own_methods(self, *names: str) -> list[str]:
        """Return which of these methods a subclass has made its own.

        What knows dynamics by their force and friction would pass over them.

        Args:
            names: Of methods, such as "drift".
        """
        kind = type(self)
        return [n for n in names if getattr(kind, n) is not getattr(UnderdampedLangevin, n)]

    def _mass_like(self, x: State) -> Tensor:
        """Return m in float64, where x is."""
        return _fitting("mass", self.mass, x)

    def _checked(self, state: State) -> State:
        """Return a state, or refuse one that is no phase space."""
        state = as_state("state", state)
        if state.ndim < 3 or state.shape[1] != 2:
            raise ValueError(
                f"a state of {type(self).__name__} has shape (batch, 2, *event), positions and "
                f"velocities, but has shape {tuple(state.shape)}: make it by sde.state(x, v), "
                "with x and v of shape (batch, *event)."
            )
        return state


def _field(name: str, value: object, *, zero: bool) -> float | Tensor:
    """Return a number, or one for each coordinate in float64.

    Raises:
        TypeError: If it is neither.
        ValueError: If one is negative, or 0 where it may not be, or not finite.
    """
    if isinstance(value, float | int) or getattr(value, "ndim", 1) == 0:
        number = as_parameter(name, value)
        _check(name, number, zero=zero)
        return number
    values = as_numbers(name, value, expected="a number, or one for each coordinate")
    _check(name, values, zero=zero)
    return values.to(torch.float64)


def _fitting(name: str, value: float | Tensor, x: Tensor) -> Tensor:
    """Return a number, or one for each coordinate, in float64 where positions x are.

    Raises:
        ValueError: If there is not one for each coordinate of x.
    """
    values = torch.as_tensor(value, dtype=torch.float64, device=x.device)
    event = x.shape[1:]
    pairs = zip(reversed(values.shape), reversed(event), strict=False)
    if values.ndim > len(event) or not all(one in (1, size) for one, size in pairs):
        raise ValueError(
            f"{name} must be a number or one for each coordinate of a position, shape "
            f"{tuple(event)}, but has shape {tuple(values.shape)}; pass a number, or positions "
            "that have as many coordinates."
        )
    return values


def _check(name: str, value: float | Tensor, *, zero: bool) -> None:
    """Refuse numbers that are not finite, negative, or 0 unless that is one."""
    values = torch.as_tensor(value, dtype=torch.float64).detach()
    good = values.isfinite() & ((values >= 0) if zero else (values > 0))
    if not bool(good.all()):
        bad = as_number(name, values[~good].flatten()[0])
        least = "≥ 0" if zero else "> 0"
        raise ValueError(f"{name} must be finite and {least}, but is {bad:g}; {_CURES[name]}.")


def _is_zero(value: float | Tensor) -> bool:
    """Return whether all numbers are 0."""
    return not bool((torch.as_tensor(value).detach() != 0).any())
