"""Quantities: the user's observables of a state, as the columns of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sdegen.averages.validation import apart_from
from sdegen.core.errors import NonFiniteError
from sdegen.core.evaluation import are_alike, check_repeatable
from sdegen.core.noise import Stream
from sdegen.core.requests import check_function, kind_of
from sdegen.core.shapes import State

_ALONE = 1e-6  # relative: an observable of a row, alone and among others
_EXPECTED = "a function of states (batch, *event), such as lambda x: x[:, 0].square()"


class Quantities:
    """Observables φ(x) by their names, evaluated together.

    Args:
        functions: What returns (batch,) or (batch, k) for states (batch, *event).
        x: A few states.
        noise: What puts them apart.

    Attributes:
        widths: How many numbers each returns; None for one without an axis.

    Raises:
        TypeError: If functions is no dict of names and functions, or one returns no real tensor.
        ValueError: If there is none, one returns another shape, changes x, draws, or looks at
            other rows.
    """

    def __init__(self, functions: object, x: State, noise: Stream) -> None:
        if not isinstance(functions, Mapping) or not all(isinstance(n, str) for n in functions):
            raise TypeError(
                "observables must be a dict of names and functions, such as "
                f'{{"x²": lambda x: x[:, 0].square()}}, but is {kind_of(functions)}.'
            )
        if not functions:
            raise ValueError(
                'observables has no entry; pass such as {"x²": lambda x: x[:, 0].square()}.'
            )
        self._functions: dict[str, Callable[[State], Tensor]] = dict(functions)
        self.widths: dict[str, int | None] = {}
        apart = apart_from(x, noise)
        for name, function in self._functions.items():
            check_function(f'observables["{name}"]', function, _EXPECTED)
            self._look(name, x, apart)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return sum(1 if width is None else width for width in self.widths.values())

    def __call__(self, x: State) -> Tensor:
        """Return all of them, shape (batch, width), float64."""
        columns = [self._value(name, x) for name in self._functions]
        return torch.cat([c[:, None] if c.ndim == 1 else c for c in columns], 1)

    def columns(self) -> dict[str, slice | int]:
        """Return where each stands among the columns: a number for one without an axis."""
        places: dict[str, slice | int] = {}
        first = 0
        for name, width in self.widths.items():
            places[name] = first if width is None else slice(first, first + width)
            first += 1 if width is None else width
        return places

    def refuse_nonfinite(self, x: State, values: Tensor) -> None:
        """Raise NonFiniteError for the first value that is not finite, at states that are.

        Args:
            x: States.
            values: What was returned for them.
        """
        row, column = (int(i) for i in (~values.isfinite()).nonzero()[0])
        name = next(
            name
            for name, place in self.columns().items()
            if (place == column if isinstance(place, int) else place.start <= column < place.stop)
        )
        raise NonFiniteError(
            f'observables["{name}"] is {float(values[row, column])} at x = '
            f"{x[row].flatten()[:4].tolist()}, where a chain has come: its average is not finite; "
            "let it return a finite number there."
        )

    def _value(self, name: str, x: State) -> Tensor:
        """Return one of them, shape (batch,) or (batch, k), float64."""
        value: object = self._functions[name](x)
        if not isinstance(value, Tensor) or value.is_complex():
            what = value.dtype if isinstance(value, Tensor) else kind_of(value)
            raise TypeError(
                f'observables["{name}"] must return a tensor of real numbers, but returned {what}.'
            )
        shape = tuple(value.shape)
        known = name in self.widths
        expected = None if not known else self.widths[name]
        fits = value.ndim in (1, 2) and shape[0] == len(x) and 0 not in shape[1:]
        if not fits or (known and shape[1:] != (() if expected is None else (expected,))):
            raise ValueError(
                f'observables["{name}"] must return one number or k of them for each state, shape '
                f"({len(x)},) or ({len(x)}, k), but returned shape {shape} for x of shape "
                f"{tuple(x.shape)}; take a coordinate, as in lambda x: x[:, 0], or flatten the "
                "event, as in lambda x: x.flatten(1)."
            )
        return value.detach().to(torch.float64)

    def _look(self, name: str, x: State, apart: State) -> None:
        """Refuse one that does not fit, at a few states."""
        given = x.clone()
        first = self._value(name, given)
        self.widths[name] = None if first.ndim == 1 else first.shape[1]
        if not torch.equal(given, x):
            raise ValueError(
                f'observables["{name}"] changed x in place; write x = x + … instead of x += … '
                "inside it."
            )
        check_repeatable(f'observable "{name}"', first, self._value(name, x.clone()))
        try:
            values, alone = (
                self._value(name, part) for part in (apart.clone(), apart[:1].clone())
            )
        except Exception:  # no state of a chain need be here: what raises there too says so itself
            return
        if not are_alike(values[:1], alone, _ALONE):
            raise ValueError(
                f'observables["{name}"] of a state depends on the other states of its batch, such '
                "as by their mean; let it be a function of each row alone: a mean over them is "
                "taken here."
            )
