"""Layers of the networks, whose weights are drawn from a stream.

torch's constructors draw from its global generator, which is neither read nor moved here.
"""

import math

from torch import nn
from torch.nn.utils import skip_init

from sdegen.core.checks import check_count
from sdegen.core.noise import Stream


def as_size(name: str, value: int, least: int = 1) -> int:
    """Return an int, or refuse it by name."""
    check_count(name, value, least)
    return value


def linear(inputs: int, outputs: int, source: Stream, *, zero: bool = False) -> nn.Linear:
    """Return a linear layer drawn from a stream."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    _draw(layer, inputs, source, zero)
    return layer


def conv(
    inputs: int, outputs: int, source: Stream, *, size: int = 3, zero: bool = False
) -> nn.Conv2d:
    """Return a convolution that keeps the resolution, drawn from a stream."""
    padding = size // 2
    layer: nn.Conv2d = skip_init(nn.Conv2d, inputs, outputs, size, padding=padding)  # type: ignore[no-untyped-call]
    _draw(layer, inputs * size**2, source, zero)
    return layer


def _draw(layer: nn.Linear | nn.Conv2d, fan_in: int, source: Stream, zero: bool) -> None:
    """Draws weights uniformly with variance 1/fan_in, or sets them to zero; biases are zero."""
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        bound = math.sqrt(3 / fan_in)
        nn.init.uniform_(layer.weight, -bound, bound, generator=source.generator())
