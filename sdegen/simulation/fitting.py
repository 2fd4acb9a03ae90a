"""Fitting a sampler to a model: the unknowns, the run that is differentiated, the descent.

The theory is in `calibration.py`. Here are the parts: `Unknowns` turns numbers without constraint
into nodes and coefficients, `traced` reads the coefficients of a method off by running it on
symbols, `descend` is L-BFGS with an eye on what was held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from sdegen.sde.base import Kernel
from sdegen.sde.reverse import ReverseSDE
from sdegen.shapes import State, Time
from sdegen.solvers.base import FixedStep
from sdegen.solvers.exponential import Coefficients
from sdegen.solvers.multistep import LinearMultistep

__all__ = ["Unknowns", "descend", "distance", "multistep", "run", "traced"]

_ROUND = 20  # iterations between two looks at the held-out part
_IDLE = 4  # rounds without a gain, after which the descent ends
_GAIN = 0.99  # a round is a gain if it brings the held-out error below this part of the best
_ROUNDING = 1e-8


@dataclass(frozen=True)
class Unknowns:
    """What is searched for, as numbers without constraint.

    Attributes:
        gaps: Shape (steps,); gap i is its share of the softmax.
        weights: w, shape (steps, K), or None where the solver's coefficients stay as they are.
    """

    gaps: Tensor
    weights: Tensor | None

    @classmethod
    def of(cls, nodes: Tensor, weights: Tensor | None) -> Unknowns:
        """Those of a grid, and of coefficients that there are."""
        return cls((nodes.diff() / (nodes[-1] - nodes[0])).log(), weights)

    def nodes(self, first: float, last: float) -> Tensor:
        """first + (last − first) Σ softmax(gaps), both ends met exactly; (steps + 1,)."""
        share = torch.softmax(self.gaps, 0).cumsum(0)[:-1]
        return pad(first + (last - first) * share, (1, 1)) + _ends(len(self.gaps), first, last)

    def tensors(self) -> list[Tensor]:
        """What gradients are taken of."""
        return [self.gaps] if self.weights is None else [self.gaps, self.weights]

    def copied(self, *, requires_grad: bool) -> Unknowns:
        """The same numbers, by themselves."""
        copies = [x.detach().clone().requires_grad_(requires_grad) for x in self.tensors()]
        return Unknowns(copies[0], copies[1] if len(copies) > 1 else None)


def run(solver: FixedStep, dynamics: ReverseSDE, nodes: Tensor, x: State) -> State:
    """The state at nodes[-1]; gradients flow, and the flow has no noise to draw."""
    step = solver.stepper(dynamics, nodes)
    for i in range(len(nodes) - 1):
        x = step(i, x, lambda: None)
    return x


def distance(x: State, y: State) -> Tensor:
    """√(mean_i |x_i − y_i|²), 0-d."""
    return (x - y).flatten(1).square().sum(1).mean().sqrt()


def multistep(kernel: Kernel, nodes: Tensor, weights: Tensor) -> LinearMultistep:
    """y_{i+1} = y_i + (r_{i+1} − r_i) Σ_j w_ij ε̂_{i−j} as a solver for these nodes."""
    steps, remembered = weights.shape
    alpha, sigma = kernel.alpha(nodes), kernel.sigma(nodes)
    ratio = sigma / alpha
    behind = (torch.arange(steps)[:, None] - torch.arange(remembered)).clamp(min=0)
    scores = -(alpha[1:] * ratio.diff())[:, None] * weights * sigma[behind]
    decay = alpha[1:] / alpha[:-1]
    table = Coefficients(decay, torch.zeros_like(scores), scores, torch.zeros_like(decay))
    return LinearMultistep(nodes, table)


def traced(solver: FixedStep, dynamics: ReverseSDE, nodes: Tensor) -> Tensor:
    """The weights w of a solver on a grid, by running it on symbols; shape (steps, steps).

    The first component of a state is the coefficient of y_0, component k + 1 that of ε̂_k.

    Raises:
        ValueError: If the solver does not evaluate once a step at its node, or does not solve the
            linear part of the dynamics exactly.
    """
    steps = len(nodes) - 1
    kernel = dynamics.denoising.kernel
    assert kernel is not None  # calibrate() saw to it
    alpha, sigma = kernel.alpha(nodes), kernel.sigma(nodes)
    rows: list[Tensor] = []

    def symbol(x: State, t: Time) -> State:
        k = len(rows)
        if k >= steps or float(t) != float(nodes[k]):
            raise ValueError(
                f"free coefficients need one evaluation a step, at the node it begins from, but "
                f"{solver!r} evaluates at t = {float(t):g} in evaluation {k + 1} of {steps} "
                "steps; pass ExponentialAdams(order=3), or free_coefficients=False."
            )
        rows.append(x[0] / alpha[k])
        unit = torch.zeros_like(x)
        unit[0, k + 1] = -1.0 / sigma[k]
        return unit

    start = torch.zeros(1, steps + 2, dtype=torch.float64)
    start[0, 0] = alpha[0]
    with torch.no_grad():
        twin = ReverseSDE(dynamics.forward, symbol, eta=0.0)
        final = run(solver, twin, nodes, start)
    table = torch.stack([*rows, final[0] / alpha[-1]])
    off = (table[:, 0] - 1).abs().max()
    if len(rows) != steps or not bool(off < _ROUNDING):
        raise ValueError(
            "free coefficients need a solver that evaluates once a step and solves the linear "
            f"part of the dynamics exactly, but {solver!r} evaluates {len(rows)} times in {steps} "
            f"steps and carries x/α to {float(table[-1, 0]):.6g} of itself; pass "
            "ExponentialAdams(order=3), or free_coefficients=False."
        )
    increments = table.diff(dim=0)[:, 1:-1] / (sigma / alpha).diff()[:, None]
    behind = torch.arange(steps)[:, None] - torch.arange(steps)
    return torch.where(behind >= 0, increments.gather(1, behind.clamp(min=0)), 0.0)


def descend(
    start: Unknowns,
    loss: Callable[[Unknowns], Tensor],
    held_out: Callable[[Unknowns], float],
    rounds: int,
    bar: tqdm,  # type: ignore[type-arg]
) -> Unknowns:
    """L-BFGS on log(loss²), kept where it was best on what was held out.

    Args:
        start: Where it begins.
        loss: Error on the pilot batch, differentiable.
        held_out: Error on what was held out.
        rounds: At most so many rounds of 20 iterations.
        bar: Told of each round.

    Returns:
        The best unknowns.
    """
    best, least, idle = start, held_out(start), 0
    now = start.copied(requires_grad=True)
    tensors = now.tensors()
    optimiser = torch.optim.LBFGS(
        tensors, max_iter=_ROUND, history_size=50, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip

    def closure() -> Tensor:
        with torch.enable_grad():
            value = 2 * loss(now).log()
            gradients = torch.autograd.grad(value, tensors)
        for tensor, gradient in zip(tensors, gradients, strict=True):
            tensor.grad = gradient
        return value.detach()

    for _ in range(rounds):
        optimiser.step(closure)
        found = held_out(now)
        bar.update()
        bar.set_postfix_str(f"held-out error {found:.3g}")
        idle = 0 if found < _GAIN * least else idle + 1
        if found < least:
            best, least = now.copied(requires_grad=False), found
        if idle == _IDLE or not found < float("inf"):
            break
    return best


def _ends(steps: int, first: float, last: float) -> Tensor:
    ends = torch.zeros(steps + 1, dtype=torch.float64)
    ends[0], ends[-1] = first, last
    return ends
