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

import torch
from torch import Tensor

from sdegen.core.noise_structure import noise_field
from sdegen.core.requests import refuse_lost_gradient
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time


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
    x = x.detach()
    for name, field in (("drift", sde.drift), noise_field(sde)):
        value = field(x, t)
        if not value.requires_grad:
            continue
        again = field(x, t)
        # a function may make tensors of its own that require grad, such as to differentiate U
        first, second = _leaves(value), _leaves(again)
        held = [first[key] for key in first.keys() & second.keys()]
        if any(not (networks and isinstance(leaf, torch.nn.Parameter)) for leaf in held):
            refuse_lost_gradient(f"the {name}", value, what, instead)


def _leaves(value: Tensor) -> dict[int, Tensor]:
    """Return the tensors to which a value has a gradient, by their ids."""
    leaves: dict[int, Tensor] = {}
    seen, left = set(), [value.grad_fn]
    if value.is_leaf:
        leaves[id(value)] = value
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)  # of what accumulates the gradient of a leaf
        if leaf is not None:
            leaves[id(leaf)] = leaf
        left += [following for following, _ in node.next_functions]
    return leaves
