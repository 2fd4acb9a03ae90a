"""Methods in the basis of a kernel: each mode takes the step that belongs to its α and σ.

    y = Q x − m,    y_{i+1} = A_i y_i + Σ_j [P_ij y_{i−j} + Q_ij (Q score)_{i−j}] + S_i Q z

A method that knows numbers α(t) and σ(t) is asked for its coefficients once for each rate, and
its steps are taken mode by mode. Over a step back in time a mode grows by α_s/α_t, and with it the
rounding of its score: where that leaves less than two digits, shorter steps are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.bases import Basis
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.kernel import Kernel, ReverseStructure
from sdegen.core.noise import Noise
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.diffusion.samplers.adams_coefficients import Coefficients

LEAST_LOG = -700.0  # log α, next to the smallest float64: below it a mode stands still
_LEAST_SNR = 1e-150  # α/σ, whose inverse is squared in coefficients
_LOST = 1e-2  # relative rounding of a mode, from which shorter steps are asked for


class ModalMemory(NamedTuple):
    """What a method in modes hands on.

    Attributes:
        score: score(x, i) at node i.
        basis: Whose modes.
        shift: m at the nodes, shape (nodes, *modes), or None.
        table: Coefficients with the shape of the modes behind those of numbers.
        growth: The largest α_s/α_t of a mode in each step.
        seen: Modes of states and scores at the last nodes, the newest first.
    """

    score: ScoreAt
    basis: Basis
    shift: Tensor | None
    table: Coefficients
    growth: list[float]
    seen: tuple[tuple[State, State], ...] = ()


@dataclass(frozen=True)
class _Mode(SDE):
    """Reverse dynamics of one mode, which a method asks for its kernel."""

    structure: ReverseStructure

    @property
    def denoising(self) -> ReverseStructure:
        """The structure."""
        return self.structure

    def drift(self, x: State, t: Time) -> State:
        """Refuse: nothing moves by it."""
        raise NotImplementedError

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Refuse: nothing moves by it."""
        raise NotImplementedError


def begin_modes(
    inner: ReverseStructure, kernel: DiagonalKernel, nodes: Tensor, table: Coefficients
) -> ModalMemory:
    """Return the memory of a run in modes, with the coefficients of each."""
    log_alpha = kernel.alpha(nodes).log().clamp(min=LEAST_LOG)
    growth = (log_alpha[1:] - log_alpha[:-1]).reshape(len(nodes) - 1, -1).amax(1).exp()
    shift = None if kernel.shift is None else kernel.shift(nodes)
    return ModalMemory(inner.along(nodes), kernel.basis, shift, table, growth.tolist())


def tables_of(
    coefficients: Callable[[SDE, Tensor], Coefficients],
    inner: ReverseStructure,
    kernel: DiagonalKernel,
    nodes: Tensor,
) -> Coefficients:
    """Return the coefficients of each mode, asked for once for each pair of α and σ.

    Raises:
        ValueError: If a mode has decayed so far that its coefficients are not finite.
    """
    alpha, sigma = kernel.alpha(nodes), kernel.sigma(nodes)
    sigma = sigma.reshape(_behind(sigma, alpha)).expand_as(alpha)
    least = float((alpha / sigma).detach().min())
    if least < _LEAST_SNR:
        raise ValueError(
            f"the fastest mode has decayed to {least:.2g} of its noise at t = "
            f"{float(nodes[0]):g}, so far that the coefficients of this method are not finite: "
            "begin at an earlier t_max, or take DDIM() or EulerMaruyama()."
        )
    modes = alpha.shape[1:]
    both = torch.stack([alpha, sigma]).reshape(2, len(nodes), -1)
    distinct, which = torch.unique(both, dim=2, return_inverse=True)
    parts = []
    for k in range(distinct.shape[2]):
        a, s = distinct[0, :, k], distinct[1, :, k]
        one = Kernel(lambda t, a=a: a, lambda t, s=s: s)  # type: ignore[misc]
        structure = ReverseStructure(inner.score, inner.eta, one, one)
        parts.append(coefficients(_Mode(structure), nodes))

    def joined(pieces: list[Tensor]) -> Tensor:
        whole = torch.stack(pieces, -1)[..., which]
        return whole.reshape(*whole.shape[:-1], *modes)

    again = [part.again for part in parts if part.again is not None]
    return Coefficients(
        joined([part.decay for part in parts]),
        joined([part.states for part in parts]),
        joined([part.scores for part in parts]),
        joined([part.noise for part in parts]),
        joined(again) if again else None,
    )


def step_modes(
    x: State, i: int, noise: Noise | None, memory: ModalMemory
) -> tuple[State, ModalMemory]:
    """Take one step of every mode.

    Raises:
        ValueError: If the step is so long that rounding eats up a mode.
    """
    basis, table, shift = memory.basis, memory.table, memory.shift
    if memory.growth[i] * torch.finfo(x.dtype).eps > _LOST:
        raise ValueError(
            f"step {i} lets the fastest mode grow by {memory.growth[i]:.2g}, and with it its "
            f"rounding in {x.dtype}: take shorter steps there, or states of float64."
        )

    def modes(state: State) -> State:
        y = basis.to_modes(state)
        return y if shift is None else y - shift[i].to(state)

    y, s = modes(x), basis.to_modes(memory.score(x, i))
    width = table.states.shape[1]
    seen = ((y, s), *memory.seen[: width - 1])
    if i == 1 and table.again is not None:
        better = _plus(y, table.again[0], table.again[1], seen)
        state = better if shift is None else better + shift[i].to(x)
        again = basis.to_modes(memory.score(basis.from_modes(state), i))
        seen = ((better, again), *seen[1:])
    after = _plus(table.decay[i].to(x) * y, table.states[i], table.scores[i], seen)
    if noise is not None:
        after = after + table.noise[i].to(x) * basis.to_modes(noise.normal())
    if shift is not None:
        after = after + shift[i + 1].to(x)
    return basis.from_modes(after), memory._replace(seen=seen)


def _plus(
    total: State, states: Tensor, scores: Tensor, seen: tuple[tuple[State, State], ...]
) -> State:
    """Add multiples of the past states and scores that exist."""
    for j, (y, s) in enumerate(seen):
        if j < len(states):
            total = total + states[j].to(total) * y + scores[j].to(total) * s
    return total


def _behind(c: Tensor, like: Tensor) -> tuple[int, ...]:
    """Return the shape of one number for each node that meets those of modes."""
    return (len(c), *(1,) * (like.ndim - c.ndim), *c.shape[1:])
