"""Rates of a linear SDE: numbers, or a function of time that returns them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.requests import as_numbers, check_function
from sdegen.core.shapes import Numbers, Time

RateFunction = Callable[[Tensor], Numbers]
RateLike = Numbers | RateFunction


class Rate:
    """A, B or c of a linear SDE, at any time.

    Args:
        name: What the user calls it.
        given: Numbers; or a function of a time, a 0-d float64 tensor, that returns them.
        expected: What it should be, in words.
        start: Where a function is called to learn its shape.

    Attributes:
        varies: Whether it is a function.
        value: Its numbers, at `start` if it is a function.

    Raises:
        TypeError: If it is neither, or a function returns no numbers.
        ValueError: If a number is not finite.
    """

    def __init__(self, name: str, given: RateLike, expected: str, start: float) -> None:
        self.name: str = name
        self.expected: str = expected
        self.varies: bool = callable(given)
        self._function: RateFunction | None = None
        self._width: int | None = None
        self.value: Tensor
        if not callable(given):
            self.value = as_numbers(name, given, expected=expected)
        else:
            check_function(name, given, f"{expected}, or a function {name}(t)")
            self._function = given
            self.value = self._called(torch.tensor(start, dtype=torch.float64))
        if not bool(self.value.isfinite().all()):
            where = f"({start:g})" if self.varies else ""
            cure = "; say where it is with time_range=(low, high)" if self.varies else ""
            raise ValueError(f"{name}{where} must be finite, but is {self.value.tolist()}{cure}.")

    @property
    def given(self) -> RateFunction | Tensor:
        """The function that was given, or the numbers as a tensor."""
        return self.value if self._function is None else self._function

    def widen(self, d: int) -> None:
        """Let one number stand for d."""
        if self.value.ndim == 0:
            self._width = d
            self.value = self.value.expand(d)

    def at(self, t: Time | float) -> Tensor:
        """Return the numbers at a time; with a leading axis for times of shape (batch,).

        Raises:
            ValueError: If a function returns another shape than before.
        """
        if self._function is None:
            return self.value
        t = torch.as_tensor(t, dtype=torch.float64)
        if t.ndim == 0:
            return self._called(t)
        times, of_row = torch.unique(t, return_inverse=True)
        return torch.stack([self._called(one) for one in times.unbind()])[of_row]

    def finite_at(self, t: float) -> Tensor:
        """Return the numbers at a time, or refuse them.

        Raises:
            ValueError: If one is not finite.
        """
        value = self.at(t)
        if self.varies and not bool(value.isfinite().all()):
            raise ValueError(f"{self.name}({t:g}) must be finite, but is {value.tolist()}.")
        return value

    def _called(self, t: Tensor) -> Tensor:
        """Return what the function returns at a time, 0-d."""
        assert self._function is not None
        given = self._function(t)
        if _has_gradient(given):
            given = _stacked(given)
        value = as_numbers(f"what {self.name}(t) returns", given, expected=self.expected)
        if self._width is not None and value.ndim == 0:
            value = value.expand(self._width)
        old = getattr(self, "value", value)
        if value.shape != old.shape:
            raise ValueError(
                f"{self.name}(t) must return one shape at every t, but returned "
                f"{tuple(old.shape)} and, at t = {float(t):g}, {tuple(value.shape)}."
            )
        return value


def _has_gradient(given: object) -> bool:
    """Return whether a tensor in nested lists requires grad, which a list would lose."""
    if isinstance(given, list | tuple):
        return any(_has_gradient(one) for one in given)
    return isinstance(given, Tensor) and given.requires_grad


def _stacked(given: object) -> Tensor:
    """Return nested lists of numbers and tensors as one tensor, with its gradient."""
    if isinstance(given, list | tuple):
        return torch.stack([_stacked(one) for one in given])
    return torch.as_tensor(given, dtype=torch.float64)
