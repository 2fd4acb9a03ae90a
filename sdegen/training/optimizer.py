"""Optimizer: how far a step goes, and what is averaged.

The average is w̄ ← d w̄ + (1 − d) w with d = min(ema_decay, (1 + k)/(10 + k)) after step k: it
remembers about the last tenth of a young run, and forgets the first weights.

**Autocast.** torch keeps the weights that it has cast until the outermost autocast is left. Around
a whole training these would be the weights of the first step for ever, so that a step neither
reads nor fills that store, whoever has switched autocast on.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.training.config import FitConfig, TrainPrecision

_Tensors = tuple[Tensor, ...] | list[Tensor]


def lr_factor(step: int, config: FitConfig) -> float:
    """Return the learning rate as a share of its largest: linear warm-up, half a cosine to zero.

    >>> lr_factor(0, FitConfig(warmup=4)), lr_factor(4, FitConfig(warmup=4))
    (0.25, 1.0)
    """
    if step < config.warmup:
        return (step + 1) / config.warmup
    return 0.5 * (
        1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup))
    )


def moving_average(decay: float) -> Callable[[_Tensors, _Tensors, Tensor | int], None]:
    """Return the update of averaged weights, w̄ ← w̄ + (1 − d_k)(w − w̄).

    Args:
        decay: The largest d_k; d_k = min(decay, (1 + k)/(10 + k)).
    """

    @torch.no_grad()
    def average(averaged: _Tensors, current: _Tensors, count: Tensor | int) -> None:
        k = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + k) / (10 + k)))

    return average


def autocast(device: torch.device, precision: TrainPrecision) -> torch.autocast:
    """Return the autocast of a step: the configuration's, or that which is on; without its store.

    Args:
        device: Where the module is.
        precision: "bf16" casts to bfloat16.
    """
    kind, bf16 = device.type, precision == "bf16"
    return torch.autocast(
        kind,
        dtype=torch.bfloat16 if bf16 else torch.get_autocast_dtype(kind),
        enabled=bf16 or torch.is_autocast_enabled(kind),
        cache_enabled=False,
    )
