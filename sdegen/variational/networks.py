"""Networks of latent-variable models: any module, asked in one place, and a plain one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import kind_of
from sdegen.score.layers import linear


def ask(name: str, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what a network says of a batch.

    Args:
        name: What its user calls it.
        network: Any module, or a function.
        x: Shape (batch, *event).

    Raises:
        TypeError: If it returns no tensor.
        ValueError: If it cannot take states of this shape.
    """
    try:
        output = network(x)
    except RuntimeError as error:  # of a layer: torch says which shapes, and not whose
        raise ValueError(f"{name} does not take {kind_of(x)}: {error}") from error
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} must return a tensor, but returned {kind_of(output)}.")
    return output


def check_like(name: str, output: Tensor, x: Tensor) -> None:
    """Refuse what a network returned in another shape than that of x.

    Args:
        name: What its user calls the network.
        output: What it returned.
        x: States, shape (batch, *event).

    Raises:
        ValueError: With both shapes.
    """
    if output.shape != x.shape:
        raise ValueError(
            f"{name} must return x's shape {tuple(x.shape)}, but returned {kind_of(output)}."
        )


class Perceptron(nn.Module):
    """A plain multilayer perceptron, from events of any shape to events of any shape.

        h ← silu(W h + b) `depth` times,     y = W h + b of shape (batch, *outputs)

    Args:
        inputs: Numbers of one event that comes in, which is flattened.
        outputs: Numbers of what goes out, or its shape.
        width: Units of a hidden layer.
        depth: Hidden layers.
        rng: Seed of the weights, generator or None.

    Raises:
        TypeError: If a size is no int.
        ValueError: If a size is below 1.

    Example:
        >>> network = sg.variational.Perceptron(3, 2, width=4, depth=1, rng=0)
        >>> sum(p.numel() for p in network.parameters())  # 4 (3 + 1) + 2 (4 + 1)
        26
    """

    def __init__(
        self,
        inputs: int,
        outputs: int | tuple[int, ...],
        width: int = 128,
        depth: int = 2,
        *,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        shape = outputs if isinstance(outputs, tuple) else (outputs,)
        for name, size in (("inputs", inputs), ("width", width), ("depth", depth)):
            check_count(name, size)
        for size in shape:
            check_count("each of outputs", size)
        source = stream(rng, "network")
        sizes = [inputs, *[width] * depth, math.prod(shape)]
        self.layers: nn.ModuleList = nn.ModuleList(
            linear(a, b, source) for a, b in pairwise(sizes)
        )
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of each row, shape (batch, *outputs)."""
        h = x.flatten(1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        out: Tensor = self.layers[-1](h)
        return out.reshape(len(x), *self.shape)
