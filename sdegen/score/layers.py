"""Layers of the networks, whose weights are drawn from a stream.

torch's constructors draw from its global generator, which is neither read nor moved here.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sdegen.core.checks import check_count, check_flag, check_word
from sdegen.core.noise import Stream

Padding = Literal["zeros", "circular"]

_HARMONICS = 8
_SMALLEST_TIME = 1e-5


class TimeFeatures(nn.Module):
    """u, cos(π k u), sin(π k u), k = 1 … 8, of u = t and u = log t / log 10⁻⁵: 34 numbers."""

    size = 2 * (1 + 2 * _HARMONICS)

    def forward(self, t: Tensor) -> Tensor:
        """Return features of t, shape (batch, 34), or (1, 34) if t is one number expanded."""
        if t.stride() == (0,):  # a solver has one time for all rows: embed it once
            t = t[:1]
        u = torch.stack([t, t.clamp_min(_SMALLEST_TIME).log() / math.log(_SMALLEST_TIME)], dim=-1)
        k = torch.arange(1, _HARMONICS + 1, dtype=t.dtype, device=t.device)
        angle = math.pi * u[:, :, None] * k
        return torch.cat([u, angle.cos().flatten(1), angle.sin().flatten(1)], dim=-1)


def as_size(name: str, value: int, least: int = 1) -> int:
    """Return an int, or refuse it by name."""
    check_count(name, value, least)
    return value


def as_flag(name: str, value: bool) -> bool:
    """Return True or False, or refuse what is neither by name."""
    check_flag(name, value)
    return value


def as_padding(value: Padding) -> Padding:
    """Return what convolutions see beyond the ends, or refuse another word."""
    check_word("padding", value, get_args(Padding))
    return value


def check_alternatives(classes: int, name: str, count: int) -> None:
    """Refuse a network with classes and a condition."""
    if classes and count:
        raise ValueError(
            f"a network has classes or a condition, but classes = {classes} and {name} = {count}; "
            "write a class as numbers of the condition, 1 in its place and 0 elsewhere."
        )


def embedding(classes: int, size: int) -> nn.Embedding | None:
    """Return a row of zeros for each class, and one for none of them; None without classes."""
    if classes == 0:
        return None
    table: nn.Embedding = skip_init(nn.Embedding, classes + 1, size)  # type: ignore[no-untyped-call]
    nn.init.zeros_(table.weight)
    return table


def linear(inputs: int, outputs: int, source: Stream, *, zero: bool = False) -> nn.Linear:
    """Return a linear layer drawn from a stream."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    _draw(layer, inputs, source, zero)
    return layer


def conv(
    inputs: int,
    outputs: int,
    source: Stream,
    padding: Padding = "zeros",
    *,
    size: int = 3,
    zero: bool = False,
) -> nn.Conv2d:
    """Return a convolution that keeps the resolution, drawn from a stream."""
    around = {"padding": size // 2, "padding_mode": padding}
    layer: nn.Conv2d = skip_init(nn.Conv2d, inputs, outputs, size, **around)  # type: ignore[no-untyped-call]
    _draw(layer, inputs * size**2, source, zero)
    return layer


def _draw(layer: nn.Linear | nn.Conv2d, fan_in: int, source: Stream, zero: bool) -> None:
    """Draw weights uniformly with variance 1/fan_in, or set them to zero; biases are zero."""
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        bound = math.sqrt(3 / fan_in)
        nn.init.uniform_(layer.weight, -bound, bound, generator=source.generator())


def add_labels(
    known: Tensor, table: nn.Embedding | None, classes: int, labels: Tensor | None
) -> Tensor:
    """Return features of time and label; shape (1, size) where both are one for all rows."""
    if table is None:
        if labels is not None:
            raise ValueError(
                "this network knows no classes, but was given labels; make it with classes=…"
            )
        return known
    if labels is None:
        labels = torch.full((1,), classes, device=known.device)
    elif labels.stride() == (0,):  # one label for all rows: look it up once
        labels = labels[:1]
    row: Tensor = table(labels)
    return known + row


def check_condition(condition: Tensor | None, size: int) -> Tensor:
    """Return the condition of a network that is never without, or refuse its absence."""
    if condition is None:
        raise ValueError(
            f"this network is told a condition of {size} numbers or channels for each row, and "
            "has no score without: take model.conditional(condition)."
        )
    if condition.ndim < 2 or condition.shape[1] != size:
        raise ValueError(
            f"a condition must have shape (batch, {size}, …), but has {tuple(condition.shape)}."
        )
    return condition
