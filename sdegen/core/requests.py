"""Requests: what users pass, turned into what the library computes with, where it enters.

    a number     int, float, a NumPy scalar, an array or tensor of one number without axes
    an array     a tensor, a NumPy array, a list, a number
    a state      a tensor, a NumPy array or a list of floats, shape (batch, *event)
    a time       a number, or an array of one number for each trajectory
    times        a tensor, an array or a list of two numbers or more

Whatever else comes is refused by the argument's name, with what was expected. A tensor that
requires grad is kept where its gradient can flow, and refused where a number is needed: `float()`
would drop it without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from types import BuiltinFunctionType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor


def kind_of(value: object) -> str:
    """Return what came, in words: its type, and the shape of an array."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        name = "tensor" if isinstance(value, Tensor) else "NumPy array"
        return f"a {name} of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, FunctionType | MethodType | BuiltinFunctionType):
        return "a function"
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIO' or name == 'MLP' else 'a'} {name}"


def check_kind(name: str, value: object, kind: type | tuple[type, ...], cure: str) -> None:
    """Refuse what is no object of a kind.

    Args:
        name: What the caller calls it.
        value: What came.
        kind: What it should be.
        cure: What it should be in words, with an example.

    Raises:
        TypeError: With both.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {cure}, but is {kind_of(value)}.")


def check_function(name: str, value: object, expected: str) -> None:
    """Refuse what cannot be called, and a class, which would be made when it is called.

    Args:
        name: What the caller calls it.
        value: What came.
        expected: What it should be, such as "a function (x, t) -> ∇ log p_t(x)".

    Raises:
        TypeError: With both.
    """
    if not callable(value) or isinstance(value, type | Tensor):
        raise TypeError(f"{name} must be {expected}, but is {kind_of(value)}.")


def is_word(value: object, words: Iterable[str]) -> bool:
    """Return whether a value is one of some words; an array is none, and compares with none."""
    return isinstance(value, str) and value in tuple(words)


def as_parameter(name: str, value: object) -> float | Tensor:
    """Return a number as a float, or as the 0-d tensor that it is where that requires grad.

    Args:
        name: What the caller calls it.
        value: A number, or an array or tensor of one number without axes.

    Raises:
        TypeError: If it is anything else.

    >>> as_parameter("rate", torch.tensor(0.5))
    0.5
    """
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex():
        return value if value.requires_grad else float(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, but is {kind_of(value)}.")
    return float(value)


def value_of(parameter: float | Tensor) -> float:
    """Return the value of what `as_parameter` returned, for checks alone."""
    return float(parameter.detach()) if isinstance(parameter, Tensor) else parameter


def as_number(name: str, value: object, *, cure: str = "pass its value, .item()") -> float:
    """Return a number as a float.

    Args:
        name: What the caller calls it.
        value: A number, or an array or tensor of one number without axes.
        cure: What to do where it is a tensor that requires grad.

    Raises:
        TypeError: If it is anything else, or a tensor that requires grad.
    """
    number = as_parameter(name, value)
    if isinstance(number, Tensor):
        raise TypeError(
            f"{name} is a tensor that requires grad, and a number would lose its gradient; {cure}."
        )
    return number


def refuse_lost_gradient(name: str, value: object, what: str, instead: str = "") -> None:
    """Refuse a tensor whose gradient an answer would lose.

    Args:
        name: What it is, at the beginning of a sentence.
        value: The tensor; what is none has no gradient.
        what: The answer.
        instead: What has a gradient, if something does: the end of a sentence.

    Raises:
        TypeError: If gradients are recorded and the tensor has one.
    """
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"{name} is, or depends on, a tensor that requires grad, and {what} would lose its "
            f"gradient; detach it, or ask for {what} under torch.no_grad(){instead}."
        )


def as_numbers(name: str, value: object, *, expected: str = "numbers") -> Tensor:
    """Return numbers as a float64 tensor; one that is a tensor keeps its device and its gradient.

    Args:
        name: What the caller calls it.
        value: A tensor, NumPy array, list or number.
        expected: What it should be, in words.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(value, Tensor):
        if not value.is_complex():
            return value.to(torch.float64)
    elif isinstance(value, np.ndarray | Sequence | Real) and not isinstance(value, str | bool):
        if isinstance(value, Sequence) and any(
            isinstance(one, Tensor) and one.requires_grad for one in value
        ):
            raise TypeError(
                f"{name} is a list of tensors that require grad, which would lose it; pass "
                "torch.stack(…) of them."
            )
        try:
            return torch.as_tensor(value, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            pass  # words, objects, or rows of several lengths
    raise TypeError(f"{name} must be {expected}, but is {kind_of(value)}.")


def first_true(mask: Tensor) -> int | None:
    """Return the index of the first True in a row of bools; None where there is none.

    >>> first_true(torch.tensor([1.0, -2.0, -3.0]) < 0)
    1
    """
    return int(mask.nonzero()[0]) if bool(mask.any()) else None


def as_state(name: str, x: object) -> Tensor:
    """Return states as a tensor: what is one, a NumPy array in its own dtype, or a list.

    Args:
        name: What the caller calls it.
        x: States, shape (batch, *event).

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray | list | tuple):
        try:
            return torch.as_tensor(x)
        except (TypeError, ValueError, RuntimeError):
            pass  # words, objects, or rows of several lengths
    raise TypeError(
        f"{name} must be a tensor of shape (batch, *event), or a NumPy array, but is {kind_of(x)}."
    )


def as_time(t: object) -> Tensor:
    """Return a time as a tensor of floats, shape () or (batch,); a number in float64.

    A 0-d float64 tensor promotes nothing that it multiplies.

    Args:
        t: A tensor, a number, or a NumPy array or list of one time for each trajectory.

    Raises:
        TypeError: If it is anything else.

    >>> as_time(0.5)
    tensor(0.5000, dtype=torch.float64)
    """
    if isinstance(t, Tensor) and t.is_floating_point():
        return t
    return as_numbers("t", t, expected="a time, a number or one for each trajectory")


def check_state(x0: object, *, name: str = "x0") -> Tensor:
    """Return a batch of finite float32 or float64 states; refuse anything else.

    Args:
        x0: What should be one.
        name: What its caller calls it.

    Raises:
        TypeError: If x0 is no tensor, or not of floats of at least 32 bits.
        ValueError: If it has no batch axis, no rows, or a row that is not finite.
    """
    x0 = as_state(name, x0)
    if x0.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} has dtype {x0.dtype}, in which √dt · z is lost beside x; keep the state in "
            "float32 or float64 and run the "
            "network under torch.autocast."
        )
    if not x0.is_floating_point():
        raise TypeError(
            f"{name} must be float32 or float64, but has dtype {x0.dtype}; pass "
            f"{name}.to(torch.float32)."
        )
    if x0.ndim < 2:
        raise ValueError(
            f"{name} must have shape (batch, *event), but has shape {tuple(x0.shape)}; "
            "one-dimensional physics is "
            f"(batch, 1): pass {name}[:, None]."
        )
    if x0.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(x0.shape)}.")
    bad = ~torch.isfinite(x0).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} is not finite in {int(bad.sum())} of {len(x0)} rows, the first is row "
            f"{int(bad.nonzero()[0])}."
        )
    return x0


def as_times(times: object, name: str = "times") -> Tensor:
    """Return two times or more, in any order, as a float64 tensor on the CPU, shape (T,).

    Args:
        times: A tensor, an array or a list.
        name: What the caller calls them.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are fewer than two, or one is not finite; naming the index.

    >>> as_times([0, 0.5])
    tensor([0.0000, 0.5000], dtype=torch.float64)
    """
    if isinstance(times, str) or not (
        isinstance(times, Tensor | Sequence) or hasattr(times, "__array__")
    ):
        raise TypeError(
            f"{name} must be a tensor or a list of numbers, but is {type(times).__name__}; "
            "pass torch.linspace(t_start, t_end, n)."
        )
    if isinstance(times, Tensor) and times.requires_grad:
        raise TypeError(
            f"{name} is a tensor that requires grad, which is not carried through a run; pass "
            f"{name}.detach(), and let calibrate fit times."
        )
    try:
        # in one go: a list would be rounded to float32 on its way
        ts = torch.as_tensor(times, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be numbers: {error}; pass torch.linspace(t_start, t_end, n)."
        ) from None
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(
            f"{name} must be a list of at least two times, but has shape {tuple(ts.shape)}; "
            "pass torch.linspace(t_start, t_end, n)."
        )
    bad = ~np.isfinite(ts.numpy())
    if np.count_nonzero(bad):
        i = int(bad.argmax())
        raise ValueError(f"{name} must be finite, but {name}[{i}] = {float(ts[i])}.")
    return ts


def as_time_grid(times: object, name: str = "times") -> Tensor:
    """Return times as a strictly monotone float64 tensor on the CPU, shape (T,).

    Args:
        times: A tensor, an array or a list.
        name: What the caller calls them.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are fewer than two, one is not finite, or they are not strictly
            monotone; naming the index.
    """
    ts = as_times(times, name)
    sense = torch.sign(ts[-1] - ts[0])
    wrong = ts.diff() * (sense if sense != 0 else 1) <= 0
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} must be strictly monotone, but {name}[{i}]={float(ts[i]):g} is followed by "
            f"{float(ts[i + 1]):g}; pass torch.linspace(t_start, t_end, n)."
        )
    return ts
