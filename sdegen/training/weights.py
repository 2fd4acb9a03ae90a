"""Weights: those of a module that are trained, and examples brought to where they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdegen.training.loss import Batch


def trained_weights(module: nn.Module) -> list[Tensor]:
    """Return the weights that are trained, or refuse a module that has none."""
    parameters: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the network has no parameters to train.")
    if parameters[0].dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the network's weights are {parameters[0].dtype}, too coarse for the steps of an "
            "optimizer; train it in float32 or float64."
        )
    return parameters


def like_weights(examples: Batch, weight: Tensor) -> Batch:
    """Return examples where the weights are: rows and targets in their dtype, classes in int64."""
    labels = examples.labels
    if labels is not None:
        dtype = weight.dtype if labels.is_floating_point() else torch.int64
        labels = labels.to(weight.device, dtype)
    return Batch(examples.rows.to(weight), labels)


def has_lost(weights: list[Tensor]) -> bool:
    """Return whether a weight is no number."""
    return not all(bool(p.isfinite().all()) for p in weights)
