"""Networks of latent-variable models: any module, asked in one place."""

from __future__ import annotations

from torch import Tensor, nn

from sdegen.core.requests import kind_of


def ask(name: str, network: nn.Module, x: Tensor) -> Tensor:
    """Return what a network says of a batch.

    Args:
        name: What its user calls it.
        network: Any module.
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
