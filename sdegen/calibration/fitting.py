"""Fitting a sampler to a model: the unknowns, their methods, the descent.

The theory is in `calibrate.py`. Here are the parts: `Unknowns` turns numbers without constraint
into nodes and coefficients, `on_circle` and `multistep` change between the coefficients of a
method and those that do not depend on where its nodes are, `Fit` compares trial runs with the flow
and descends by L-BFGS, with an eye on what was held out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.kernel import Kernel
from sdegen.core.shapes import State
from sdegen.diffusion.pilot import walk
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.angular_adams import Circle
from sdegen.diffusion.samplers.linear_multistep import LinearMultistep

_HELD_OUT = 3  # every third state of the pilot batch
_ROUND = 20  # iterations between two looks at the held-out part
_IDLE = 4  # rounds without a gain, after which the descent ends
_MET = 1e-12  # of the whole, below which two nodes are one
_GAIN = 0.99  # a round is a gain if it brings the held-out error below this part of the best


@dataclass(frozen=True)
class Unknowns:
    """What is searched for, as numbers without constraint.

    Attributes:
        gaps: Shape (steps,); gap i is its share of the softmax.
        weights: w and u, shape (2, steps, K), or None where the solver's coefficients stay.
    """

    gaps: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, nodes: Tensor, weights: Tensor | None = None) -> Unknowns:
        """Return those of a grid, and of coefficients where there are some."""
        return cls((nodes.diff() / (nodes[-1] - nodes[0])).log(), weights)

    def nodes(self, first: float, last: float) -> Tensor:
        """Return first + (last − first) Σ softmax(gaps), both ends met exactly; (steps + 1,)."""
        inner = first + (last - first) * torch.softmax(self.gaps, 0).cumsum(0)[:-1]
        return torch.cat([inner.new_tensor([first]), inner, inner.new_tensor([last])])

    @property
    def have_met(self) -> bool:
        """Whether a gap has no width, so that two nodes are one."""
        return bool((torch.softmax(self.gaps.detach(), 0) < _MET).any())

    def tensors(self) -> list[Tensor]:
        """Return the tensors whose gradients are taken."""
        return [self.gaps] if self.weights is None else [self.gaps, self.weights]

    def copied(self, *, requires_grad: bool) -> Unknowns:
        """Return a copy of the numbers."""
        copies = [x.detach().clone().requires_grad_(requires_grad) for x in self.tensors()]
        return Unknowns(copies[0], copies[1] if len(copies) > 1 else None)


def held_out_rows(count: int) -> Tensor:
    """Return which of so many states are held out: every third."""
    return torch.arange(count) % _HELD_OUT == 0


def distance(x: State, y: State) -> Tensor:
    """√(mean_i |x_i − y_i|²), 0-d."""
    return (x - y).flatten(1).square().sum(1).mean().sqrt()


def multistep(kernel: Kernel, nodes: Tensor, weights: Tensor) -> LinearMultistep:
    """Return the method of these weights on these nodes.

    y_{i+1} = y_i + (φ_{i+1} − φ_i) Σ_j (w_ij v̂_{i−j} + u_ij y_{i−j})

    Args:
        kernel: α and σ.
        nodes: Shape (steps + 1,).
        weights: w and u, shape (2, steps, K).
    """
    circle, scale, behind = _places(kernel, nodes, weights.shape[2])
    w, u = scale * weights
    decay = circle.radius[1:] / circle.radius[:-1]
    table = Coefficients(
        decay,
        w * circle.of_state[behind] + u / circle.radius[behind],
        w * circle.of_score[behind],
        torch.zeros_like(decay),
    )
    return LinearMultistep(nodes, table, kernel)


def on_circle(kernel: Kernel, nodes: Tensor, table: Coefficients, remembered: int) -> Tensor:
    """Return the weights w and u of a method given by its coefficients, shape (2, steps, K).

    Args:
        kernel: α and σ.
        nodes: Shape (steps + 1,).
        table: Coefficients on these nodes.
        remembered: Nodes to make room for, the method's own at the least.
    """
    width = table.scores.shape[1]
    circle, scale, behind = _places(kernel, nodes, width)
    w = table.scores / (scale * circle.of_score[behind])
    u = (table.states / scale - w * circle.of_state[behind]) * circle.radius[behind]
    turned = circle.radius[1:] / circle.radius[:-1]
    u[:, 0] += (table.decay - turned) * circle.radius[:-1] / scale[:, 0]
    return pad(torch.stack([w, u]), (0, max(remembered - width, 0)))


def _places(kernel: Kernel, nodes: Tensor, remembered: int) -> tuple[Circle, Tensor, Tensor]:
    """Return the circle; s_{i+1} Δφ_i, shape (steps, 1); and max(i − j, 0), shape (steps, K)."""
    circle = Circle(kernel, nodes)
    scale = (circle.radius[1:] * circle.phi.diff())[:, None]
    steps = len(nodes) - 1
    behind = (torch.arange(steps)[:, None] - torch.arange(remembered)).clamp(min=0)
    return circle, scale, behind


@dataclass(frozen=True, eq=False)
class Fit:
    """A pilot batch, where the flow carries it, and how far a trial run ends from there.

    Every third state is held out: no descent sees it.

    Attributes:
        dynamics: The probability flow.
        kernel: Its α and σ.
        x_T: The pilot batch, shape (batch, *event).
        exact: Where the flow carries it, x_T's shape.
    """

    dynamics: ReverseSDE
    kernel: Kernel
    x_T: State
    exact: State

    @property
    def held(self) -> Tensor:
        """Which states are held out, shape (batch,)."""
        return held_out_rows(len(self.x_T))

    def nodes(self, unknowns: Unknowns) -> Tensor:
        """Return the nodes of unknowns, from t_max to t_min."""
        return unknowns.nodes(*self.dynamics.time_range[::-1])

    def error(self, unknowns: Unknowns, rows: Tensor, method: FixedStep) -> Tensor:
        """Return the distance to the flow over these rows."""
        nodes = self.nodes(unknowns)
        if unknowns.weights is not None:
            method = multistep(self.kernel, nodes, unknowns.weights)
        return distance(walk(method, self.dynamics, nodes, self.x_T[rows]), self.exact[rows])

    def held_out(self, unknowns: Unknowns, method: FixedStep) -> float:
        """Return the distance over the states held out."""
        with torch.no_grad():
            return float(self.error(unknowns, self.held, method))

    def descend(self, start: Unknowns, method: FixedStep, rounds: int, bar: tqdm) -> Unknowns:
        """L-BFGS on log(error²), kept where it was best on what was held out.

        Args:
            start: Where it begins.
            method: What takes the steps, where coefficients are not free.
            rounds: At most so many rounds of 20 iterations.
            bar: Told of each round.

        Returns:
            The best unknowns; those before a step after which nodes meet, where there is one.
        """
        best, least, idle = start, self.held_out(start, method), 0
        now = start.copied(requires_grad=True)
        tensors = now.tensors()
        optimiser = torch.optim.LBFGS(
            tensors, max_iter=_ROUND, history_size=50, line_search_fn="strong_wolfe",
            tolerance_grad=0.0, tolerance_change=0.0,
        )  # fmt: skip

        def closure() -> Tensor:
            with torch.enable_grad():
                value = 2 * self.error(now, ~self.held, method).log()
                gradients = torch.autograd.grad(value, tensors)
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = gradient
            return value.detach()

        for _ in range(rounds):
            try:
                optimiser.step(closure)  # type: ignore[no-untyped-call]
                error = self.held_out(now, method)
            except ValueError:
                if not now.have_met:
                    raise
                break  # many a solver refuses such nodes; the descent has nowhere to go
            bar.update()
            bar.set_postfix_str(f"held-out error {error:.3g}")
            idle = 0 if error < _GAIN * least else idle + 1
            if error < least:
                best, least = now.copied(requires_grad=False), error
            if idle == _IDLE or not error < float("inf"):
                break
        return best
