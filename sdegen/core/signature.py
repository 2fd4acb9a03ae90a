"""The signature of a function of the user's: which of its arguments is the state, and which t.

A drift, a diffusion or a score is f(x, t), f(x) or f(t). Functions are read by the names of their
arguments, since a function alone does not say what it expects:

    f(x, t)     state and time, whatever the two are called
    f(x)        state alone: a function of one argument with any name but t
    f(t)        time alone: a function of one argument that is called t
    f(t, y)     refused: the order of torchsde, torchdiffeq, diffrax and SciPy

The last would be called with the state for t and the time for y; both are tensors that broadcast,
so that nothing else would tell.

Arguments that have a default keep it, and those that `parameters=` names are passed by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.core.shapes import State, Time, expand

_TIMES = ("t", "time")
_CLOCKS = (*_TIMES, "timestep", "timesteps", "sigma")  # what a score or a network may call it
_STATES = ("x", "y", "state", "states", "x_t", "y_t")  # what no time is called
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Signature:
    """A function of the user's, read by its arguments.

    Attributes:
        function: It, as field(x, t, **parameters).
        of_state: Whether it takes the state.
        of_time: Whether it takes the time.
        parameters: The names of those parameters that it takes.
    """

    function: Callable[..., Tensor]
    of_state: bool
    of_time: bool
    parameters: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, function: Callable[..., Tensor], name: str, parameters: Collection[str] = ()
    ) -> Signature:
        """Read a function.

        Args:
            function: f(x, t), f(x) or f(t), with further arguments for parameters.
            name: What its caller calls it, such as "drift".
            parameters: Names of the parameters that are passed by name.

        Raises:
            TypeError: If it takes no argument, t before the state, or an argument that is neither
                the state, nor the time, nor a parameter.
        """
        arguments = _arguments(function)
        if arguments is None:  # a builtin without a signature, such as torch.neg
            return cls(lambda x, t: function(x), of_state=True, of_time=False)
        everything = any(p.kind is p.VAR_KEYWORD for p in arguments)
        named = {p.name for p in arguments if p.kind in _NAMED}
        taken = tuple(k for k in parameters if k in named or everything)
        arguments = [p for p in arguments if p.name not in taken]
        positional = [p for p in arguments if p.kind in _POSITIONAL]
        required = _required(positional)
        variadic = any(p.kind is p.VAR_POSITIONAL for p in arguments)
        _refuse_order(function, required, name, _TIMES)
        if len(required) > 2 or not (positional or variadic):
            _refuse_arguments(name, required)
        keywords = [p for p in arguments if p.kind is p.KEYWORD_ONLY]
        missing = [p for p in keywords if p.default is p.empty and p.name not in _TIMES]
        if missing:
            _refuse_arguments(name, [*required, *missing])
        timed = next((p.name for p in keywords if p.name in _TIMES), None)
        if timed is not None:  # f(x, *, t)
            at = timed
            return cls(lambda x, t, **k: function(x, **{at: t}, **k), True, True, taken)
        if len(required) == 1 and required[0].name in _TIMES:
            return cls(_Spread(function), of_state=False, of_time=True, parameters=taken)
        # a second argument with a default is a parameter of the user's, unless it is called t
        of_time = any(p.name == "t" for p in positional)
        if len(required) == 1 and not variadic and not of_time:
            if not taken:
                return cls(lambda x, t: function(x), of_state=True, of_time=False)
            return cls(lambda x, t, **k: function(x, **k), True, False, taken)
        if taken and len(positional) > 1 and positional[1].kind in _NAMED:
            # by name: a parameter may stand before it
            at = positional[1].name
            return cls(lambda x, t, **k: function(x, **{at: t}, **k), True, True, taken)
        return cls(function, of_state=True, of_time=True, parameters=taken)


def at_times(
    function: Callable[..., Any], t: Time, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the value of a function of time: of times of shape (batch,) that of each.

    A function that knows one time may multiply an array by it, and would take a batch of as many
    times as that array has numbers for its last axis.

    Args:
        function: f(t, **parameters), of a time of shape ().
        t: Time, shape () or (batch,).
        parameters: Tensors by name, of the trajectories: with them it is called once.
    """
    if t.ndim == 0 or parameters:
        return torch.as_tensor(function(t, **(parameters or {})))
    first = torch.as_tensor(function(t[0]))
    if first.ndim == 0:
        value = torch.as_tensor(function(t))
        if value.shape == t.shape:
            return value
    return torch.stack([first, *(torch.as_tensor(function(one)) for one in t[1:].unbind())])


class _Spread:
    """A function of time alone, as one of (x, t): the same value for every trajectory.

    What it returns for one time has shape () or that of an event; for one time of each
    trajectory, shape (batch,).
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, x: State, t: Time, **parameters: Tensor) -> State:
        if t.ndim == 0:  # as in every step, where a call more would be seen
            value = torch.as_tensor(self.function(t, **parameters))
        else:
            value = at_times(self.function, t, parameters)
        if t.ndim > 0 and value.shape == t.shape:
            value = expand(value, x)
        elif t.ndim > 0 and not parameters:  # one of an event for each
            lacking = x.ndim - value.ndim
            value = value.reshape(len(value), *(1,) * lacking, *value.shape[1:])
        elif value.ndim >= x.ndim and value.shape[0] > 1 and len(set(value.shape)) == 1:
            # it would broadcast to as many trajectories as there are coordinates
            raise ValueError(
                f"a function of t alone returned a matrix of shape {tuple(value.shape)} for a "
                f"state of shape {tuple(x.shape)}; it has one value for all trajectories, of "
                f"shape () or {tuple(x.shape[1:])}, and a noise matrix is declared, by channels=m."
            )
        return value.to(x).expand_as(x)


class Bound:
    """A drift or diffusion with its parameters: field(x, t)."""

    __qualname__ = "_Bound"  # by which stores of earlier versions know it

    def __init__(self, function: Callable[..., Any], parameters: dict[str, Tensor]) -> None:
        self.function = function
        self.parameters: dict[str, Tensor] = parameters

    def __call__(self, x: State, t: Time) -> Tensor:
        """Return its value, with the parameters by name."""
        given = self.parameters
        if len(x) > 1 and any(len(value) == 1 for value in given.values()):
            # of one trajectory, asked at many states
            given = {name: value.expand(len(x), *value.shape[1:]) for name, value in given.items()}
        value: Tensor = self.function(x, t, **given)
        return value


def bound(read: Signature, tensors: Mapping[str, Tensor] | None) -> Callable[..., Tensor]:
    """Return the function that was read with those of the parameters that it takes."""
    if not read.parameters or tensors is None:
        return read.function
    return Bound(read.function, {name: tensors[name] for name in read.parameters})


def check_order(function: object, name: str) -> None:
    """Refuse a function of the user's that takes the time before the state.

    Args:
        function: f(x, t, …), called with the state first.
        name: What its caller calls it, such as "score".

    Raises:
        TypeError: Saying how to turn it.

    >>> check_order(lambda x, t: -x, "score") is None
    True
    """
    arguments = _arguments(function) if callable(function) else None
    if arguments is not None:
        _refuse_order(function, _required(arguments), name, _CLOCKS)


def _arguments(function: object) -> list[inspect.Parameter] | None:
    """Return the arguments of a function; None where Python does not know them."""
    module = isinstance(function, torch.nn.Module)
    try:
        # a module's own signature is (*args, **kwargs), whatever its forward takes
        signature = inspect.signature(function.forward if module else function)  # type: ignore
    except (TypeError, ValueError):
        return None
    return list(signature.parameters.values())


def _required(arguments: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return those that are passed by place and have no default."""
    return [p for p in arguments if p.kind in _POSITIONAL and p.default is p.empty]


def _refuse_order(
    function: object, required: list[inspect.Parameter], name: str, times: tuple[str, ...]
) -> None:
    """Refuse (t, y), (s, y) and (x, y)."""
    if len(required) < 2 or required[1].name in times:
        return
    names = ", ".join(p.name for p in required)
    first, second = required[0].name, required[1].name
    if first in times or (second in _STATES and first not in _STATES):
        given = getattr(function, "__name__", "f")
        given = given if given.isidentifier() else "f"
        raise TypeError(
            f"{name} takes ({names}), time before the state, but is called with (x, t): pass "
            f"lambda x, t: {given}(t, x), or write the state first."
        )
    if second in _STATES:
        raise TypeError(
            f"{name} takes ({names}), but its second argument is the time t: a state of two "
            "coordinates is one tensor x of shape (batch, 2); take x[:, 0] and x[:, 1]."
        )


def _refuse_arguments(name: str, required: list[inspect.Parameter]) -> None:
    """Refuse arguments that nobody passes."""
    names = ", ".join(p.name for p in required)
    raise TypeError(
        f"{name} takes (x, t), (x) or (t), but this one takes ({names}). What has one value for "
        f"each trajectory is passed by name: parameters={{{required[-1].name!r}: tensor}}."
        if required
        else f"{name} takes (x, t), (x) or (t), but this one takes no argument."
    )
