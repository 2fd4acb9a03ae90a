"""Slopes: the derivatives of a field along a direction, and against a covector, at one state.

    push(v) = J v,     pull(c) = Jᵀ c,     curve(v) = Σ_ij v_i v_j ∂_i ∂_j f,        J = ∂f/∂x

All by reverse-mode autograd: Jᵀ u is linear in u, so that its derivative along u is J v. With one
coordinate two passes give f′ and f″, of which all three are products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.shapes import State, Values


class Slopes:
    """The value and the derivatives of a field at some states.

    Args:
        function: Of states, shape (batch, *event); of the same shape, row by row.
        x: States.
    """

    def __init__(self, function: Values, x: State) -> None:
        with torch.enable_grad():
            self._x = x.detach().requires_grad_()
            self._value = function(self._x)
        self.value: State = self._value.detach()
        self._line = x[0].numel() == 1
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._u: Tensor | None = None
        self._pulled: Tensor | None = None

    @property
    def is_seen(self) -> bool:
        """Whether autograd sees that the field depends on the state."""
        return self._value.requires_grad

    def pull(self, c: State) -> State:
        """Return Jᵀ c."""
        if not self.is_seen:
            return torch.zeros_like(c)
        if self._line:
            return self.first * c
        return self._grad(self._value, self._x, c)

    def push(self, v: State) -> State:
        """Return J v."""
        if not self.is_seen:
            return torch.zeros_like(v)
        if self._line:
            return self.first * v
        return self._push(v, keep=False)

    def curve(self, v: State) -> State:
        """Return the second derivative along v, twice."""
        if not self.is_seen:
            return torch.zeros_like(v)
        if self._line:
            return self.second * v * v
        with torch.enable_grad():
            slope = self._push(v, keep=True)
            if not slope.requires_grad:
                return torch.zeros_like(v)
            u = torch.zeros_like(slope, requires_grad=True)
            (pulled,) = torch.autograd.grad(
                slope, self._x, u, create_graph=True, retain_graph=True, allow_unused=True
            )
        if pulled is None or not pulled.requires_grad:  # a linear field
            return torch.zeros_like(v)
        return self._grad(pulled, u, v)

    @property
    def first(self) -> Tensor:
        """f′ of a field of one coordinate, shape of x."""
        if self._first is None:
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(
                    self._value.sum(), self._x, create_graph=True, allow_unused=True
                )
            self._graph = torch.zeros_like(self.value) if slope is None else slope
            self._first = self._graph.detach()
        return self._first

    @property
    def second(self) -> Tensor:
        """f″ of a field of one coordinate, shape of x."""
        if self._second is None:
            first = self.first
            self._second = torch.zeros_like(first)
            if self._graph.requires_grad:
                self._second = self._grad(self._graph, self._x, torch.ones_like(first))
        return self._second

    def _push(self, v: State, *, keep: bool) -> State:
        """Return J v, with its graph if it is kept."""
        if self._pulled is None:
            with torch.enable_grad():
                self._u = torch.zeros_like(self._value, requires_grad=True)
                (pulled,) = torch.autograd.grad(
                    self._value,
                    self._x,
                    self._u,
                    create_graph=True,
                    retain_graph=True,
                    allow_unused=True,
                )
                self._pulled = torch.zeros_like(v) if pulled is None else pulled
        assert self._u is not None
        if not self._pulled.requires_grad:
            return torch.zeros_like(v)
        return self._grad(self._pulled, self._u, v, keep=keep)

    def _grad(self, value: Tensor, x: Tensor, c: Tensor, *, keep: bool = False) -> Tensor:
        """Return (∂value/∂x)ᵀ c; the graph stays for what is asked next."""
        (slope,) = torch.autograd.grad(
            value, x, c, retain_graph=True, create_graph=keep, allow_unused=True
        )
        return torch.zeros_like(x) if slope is None else slope
