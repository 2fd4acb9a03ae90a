"""Gradients that an answer would lose: refused, or said to be none.

Numbers, and tensors without a graph, are constants in the eyes of autograd: in a loss that has
other terms such a one is passed over without a word. So where the line is:

- What takes `differentiable=` returns a graph with True, and with False, as nobody asked, numbers.
- What does not take it refuses drift, diffusion or samples that depend on a tensor which requires
  grad. Under `torch.no_grad()` nobody can expect a gradient, and nothing is refused.
- Sampling and certifying by a network is inference, with or without `no_grad`: the weights of a
  network always require grad.
"""

from __future__ import annotations

from functools import partial

import torch

from sdegen.requests import refuse_lost_gradient
from sdegen.sde.base import SDE
from sdegen.sde.evaluation import watched
from sdegen.shapes import State, Time

__all__ = ["check_no_gradient"]


def check_no_gradient(
    sde: SDE, x: State, t: Time, what: str, instead: str = "", *, networks: bool = False
) -> None:
    """Refuse dynamics that depend on a tensor whose gradient an answer would lose.

    Args:
        sde: What moves.
        x: A few states at which drift and diffusion can be evaluated.
        t: Time, 0-d.
        what: The answer.
        instead: What has a gradient, if something does.
        networks: Whether the parameters of a network are passed over.

    Raises:
        TypeError: If gradients are recorded, and drift or diffusion have one.
    """
    if not torch.is_grad_enabled():
        return
    for name, field in (("drift", sde.drift), ("diffusion", sde.diffusion)):
        value, network, _ = watched(partial(field, x.detach(), t), x.device)
        if not (network and networks):
            refuse_lost_gradient(f"the {name}", value, what, instead)
