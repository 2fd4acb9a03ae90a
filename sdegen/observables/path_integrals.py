"""Integrals along a path: ∫ h(X, t) dt, and ∫ h(X, t) · dX in the sense of Itô or Stratonovich.

    ∫ h dt            Σ ½ (h_i + h_{i+1}) Δt_i           the trapezoidal rule
    ∫ h ∘ dX          Σ ½ (h_i + h_{i+1}) · ΔX_i         Stratonovich: h in the middle of the step
    ∫ h dX            Σ h_i · ΔX_i                       Itô: h before the step

with h_i = h(X_i, t_i). They differ by ½ ∫ tr(D_h g gᵀ) dt, in one dimension ½ ∫ h′ g² dt: of
Brownian motion ∫ X ∘ dX = (X_t² − X_0²)/2 and ∫ X dX = (X_t² − X_0² − t)/2. The sense is that of
the integral, whatever interpretation the noise of the dynamics has: both are read from states.

Where time runs backwards, dt < 0. With jumps, ∫ h dX takes h before a jump, and ∫ h ∘ dX is
refused: what a middle of a jump is, is not said.

Reference:
    Gardiner 2009, Stochastic Methods, eqs. (4.2.5) and (4.4.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from sdegen.core.checks import check_word
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import check_function
from sdegen.core.shapes import State
from sdegen.core.signature import Signature
from sdegen.observables.base import Block
from sdegen.observables.functionals import Functional, Increments, check_value

Sense = Literal["ito", "stratonovich"]


@dataclass(frozen=True)
class TimeIntegral(Functional):
    """The time integral of a function along each path, by the trapezoidal rule over the steps.

        A_t = ∫ h(X_s, s) ds

    Args:
        h: h(x, t), h(x) or h(t) of states (batch, *event), shape (batch,), or (batch, …) for
            several numbers at once.
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: T, where an ensemble averages e^{−A/T} too.
        unwrapped: Whether h sees a periodic coordinate on the line; False: within the period, as
            for the time spent in a part of it.

    Raises:
        TypeError: If h is no function.

    Example:
        >>> wind = sg.ItoProcess(lambda x: 0 * x + 1.0, 0.0)
        >>> asked = sg.TimeIntegral(lambda x: x[:, 0])
        >>> x0, times = torch.zeros(2, 1), [0.0, 1.0, 2.0]
        >>> run = sg.run_ensemble(wind, x0, times, trajectories=2, observables=[asked])
        >>> run.observables["time_integral"].mean.tolist()  # ½ t²
        [0.0, 0.5, 2.0]
    """

    h: Callable[..., Tensor]
    name: str = field(default="time_integral", kw_only=True)
    unwrapped: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_function("h", self.h, "a function h(x, t) or h(x)")
        Signature.of(self.h, "h")

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block."""
        return _InTime(self, block)


@dataclass(frozen=True)
class StochasticIntegral(Functional):
    """The integral of a function over the steps of each path, summed over the coordinates.

        A_t = ∫ h(X, s) ∘ dX     or     ∫ h(X, s) dX

    Args:
        h: h(x, t), h(x) or h(t) of states, of their shape (batch, *event).
        interpretation: "stratonovich" for ∫ h ∘ dX, or "ito" for ∫ h dX.
        name: What the result is called.
        histogram: (low, high, bins), where an ensemble counts the values too.
        temperature: T, where an ensemble averages e^{−A/T} too.

    Raises:
        TypeError: If h is no function.
        ValueError: If interpretation is another word.

    Example:
        >>> decay = sg.ItoProcess(lambda x: -x, 0.0)
        >>> asked = [sg.StochasticIntegral(lambda x: x, "stratonovich")]
        >>> x0, times = torch.ones(2, 1), [0.0, 0.5]
        >>> run = sg.run_ensemble(decay, x0, times, trajectories=2, observables=asked)
        >>> run.observables["stochastic_integral"].mean.tolist()  # ½ (½² − 1²)
        [0.0, -0.375]
    """

    h: Callable[..., Tensor]
    interpretation: Sense
    name: str = field(default="stochastic_integral", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_function("h", self.h, "a function h(x, t) or h(x)")
        Signature.of(self.h, "h")
        check_word("interpretation", self.interpretation, ("ito", "stratonovich"))

    @property
    def sensitivity(self) -> float:
        """What every second state may change of a value: sums of Itô converge like √dt."""
        return 0.3 if self.interpretation == "ito" else super().sensitivity

    def increments(self, block: Block) -> Increments:
        """Return what adds up a block.

        Raises:
            ValueError: If the dynamics jump and the integral is Stratonovich's.
        """
        field_ = Signature.of(self.h, "h").function
        if self.interpretation == "ito":
            return ItoSum(field_, block)
        why = "; the integral in the sense of Itô takes h before a jump: interpretation='ito'."
        check_no_jumps(block.sde, "StochasticIntegral(h, 'stratonovich')", why)
        return StratonovichSum(field_, block)


class _InTime(Increments):
    """Σ ½ (h_i + h_{i+1}) Δt."""

    def __init__(self, about: TimeIntegral, block: Block) -> None:
        self._h, self._ts = Signature.of(about.h, "h").function, block.nodes
        self._dts: list[float] = block.nodes.diff().tolist()

    def _value(self, x: State, i: int) -> Tensor:
        expected = f"one number for each state, shape ({len(x)},)"
        return check_value("h", self._h(x, self._ts[i]), x, expected).double()

    def start(self, x: State) -> Tensor:
        self._h_i = self._value(x, 0)
        return self._h_i.detach() * 0.0

    def step(self, i: int, before: State, after: State) -> Tensor:
        h_next = self._value(after, i + 1)
        increment = (self._h_i + h_next) * (self._dts[i] / 2)
        self._h_i = h_next
        return increment


class ItoSum(Increments):
    """Σ h_i · ΔX_i of a field h(x, t) of the shape of x.

    Args:
        h: The field.
        block: What is seen.
        name: What messages call h.
    """

    def __init__(self, h: Callable[..., Any], block: Block, name: str = "h") -> None:
        self._h, self._ts, self._name = h, block.nodes, name

    def _value(self, x: State, i: int) -> Tensor:
        shape = f"x's shape {tuple(x.shape)}"
        value = check_value(self._name, self._h(x, self._ts[i]), x, shape)
        if value.shape != x.shape:
            raise ValueError(
                f"{self._name} must return {shape}, one number for each coordinate, but returned "
                f"shape {tuple(value.shape)}; end it with .reshape(x.shape), if it means that."
            )
        return value.double()

    def step(self, i: int, before: State, after: State) -> Tensor:
        """Return h_i · ΔX."""
        return _product(self._value(before, i), after, before)


class StratonovichSum(ItoSum):
    """Σ ½ (h_i + h_{i+1}) · ΔX_i of a field h(x, t) of the shape of x."""

    def start(self, x: State) -> Tensor:
        """Return 0, and keep h at nodes[0]."""
        self._h_i = self._value(x, 0)
        return super().start(x)

    def step(self, i: int, before: State, after: State) -> Tensor:
        """Return ½ (h_i + h_{i+1}) · ΔX."""
        h_next = self._value(after, i + 1)
        increment = _product((self._h_i + h_next) / 2, after, before)
        self._h_i = h_next
        return increment


def _product(h: Tensor, after: State, before: State) -> Tensor:
    """Return h · ΔX of each trajectory, shape (rows,)."""
    return (h * (after.double() - before.double())).flatten(1).sum(1)
