"""Laws of x given a latent: what the output of a decoder means.

gaussian      log N(x; output, diag std²)
bernoulli     Σ x log s + (1 − x) log(1 − s),     s = sigmoid(output)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from sdegen.core.shapes import State
from sdegen.variational.networks import check_like

Likelihood = Literal["gaussian", "bernoulli"]


def log_prob_of(x: State, output: Tensor, likelihood: Likelihood, log_std: Tensor) -> Tensor:
    """Return log p(x | z) of what a decoder puts out, in nats, shape (batch,), float64.

    Args:
        x: Shape (batch, *event).
        output: Means, or logits of Bernoulli pixels, of the same shape.
        likelihood: Which of them.
        log_std: Logarithm of a Gaussian's standard deviation, shape () or (*event,).

    Raises:
        ValueError: If the shapes differ, or x is not 0 or 1 where its pixels are Bernoulli.
    """
    check_like("decoder", output, x)
    if likelihood == "bernoulli":
        check_binary(x)
        ones: Tensor = x * nn.functional.logsigmoid(output)
        terms = ones + (1 - x) * nn.functional.logsigmoid(-output)
        return terms.flatten(1).sum(1).double()
    check_spread(log_std, x)
    white: Tensor = (x - output).double() * torch.exp(-log_std)
    volume = log_std.expand(x.shape[1:]).sum() + 0.5 * x[0].numel() * math.log(2 * math.pi)
    return -0.5 * white.square().flatten(1).sum(1) - volume


def check_spread(log_std: Tensor, x: State) -> None:
    """Refuse standard deviations that are neither a number nor one for each number of an x."""
    if log_std.shape not in ((), x.shape[1:]):
        raise ValueError(
            f"std must be a number or have an event's shape {tuple(x.shape[1:])}, but has "
            f"{tuple(log_std.shape)}."
        )


def check_pixels(likelihood: Likelihood, x: Tensor) -> None:
    """Refuse data that pixels of this law cannot be, as `check_binary` says it."""
    if likelihood == "bernoulli":
        check_binary(x)


def check_binary(x: Tensor, name: str = "x") -> None:
    """Refuse data that are not 0 or 1.

    Raises:
        ValueError: With the first that is not.
    """
    bad = ~((x == 0) | (x == 1))
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name} must be 0 or 1 for Bernoulli pixels, but is {float(x[where]):g} at {where}; "
            "pass (x > threshold).to(x.dtype), or take likelihood='gaussian'."
        )
