"""Matrix kernels: Φ(t) and L(t) as matrices, of a whole event or of the pairs of a phase space.

    X_t | X_0 ~ N(Φ X_0 + m, L Lᵀ),        L lower triangular

An event is read in a row, or as blocks: in phase space (batch, 2, *event) each coordinate has its
pair (x, v), and Φ and L are 2 × 2. There data are positions x_0 alone, velocities v_0 ~ N(0, T/m)
are averaged over, and Φ is 2 × 1. In the order (x, v) the last row of score = −L⁻ᵀ ε is

    ∇_v log p_t = −ε_v/ℓ_vv

which is all that a reversal asks for, as noise moves v alone.

Reference:
    Dockhorn, Vahdat and Kreis 2022, section 3.1 (hybrid score matching) and appendix B,
    arXiv:2112.07068.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.kernel import GaussianKernel, quadratic
from sdegen.core.shapes import State, Time

_KEPT = 4096  # times whose matrices are remembered


class Matrices(NamedTuple):
    """The matrices of a kernel at times, float64.

    Attributes:
        phi: Φ, shape (*times, blocks, d, columns).
        shift: m, shape (*times, blocks, d).
        root: L, shape (*times, blocks, d, d).
        inverse: L⁻¹, likewise.
    """

    phi: Tensor
    shift: Tensor
    root: Tensor
    inverse: Tensor


@dataclass(frozen=True, eq=False)
class MatrixKernel(GaussianKernel):
    """A Gaussian kernel of matrices.

    Attributes:
        law: Φ, m and L Lᵀ at times (n,), float64: shapes (n, blocks, d, columns), (n, blocks, d)
            and (n, blocks, d, d), blocks being 1 or the coordinates of an event.
        phase_space: Whether blocks are the pairs (x, v) of states (batch, 2, *event), and data
            positions; else a block is the whole event in a row.
        rest: Mean and covariance at rest, shapes (blocks, d) and (blocks, d, d), or None.
        slowest: The rate of the slowest mode; None where rates change, or a mode does not decay.
    """

    law: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    phase_space: bool = False
    rest: tuple[Tensor, Tensor] | None = None
    slowest: float | None = None
    _seen: dict[float, Matrices] = field(default_factory=dict, init=False, repr=False)
    _batch: list[tuple[Tensor, Matrices]] = field(default_factory=list, init=False, repr=False)

    def matrices(self, t: Time) -> Matrices:
        """Return Φ, m, L and L⁻¹, shape (1 or batch, blocks, …), float64, on the CPU.

        Raises:
            ValueError: If L Lᵀ is singular at one of the times, as where noise does not reach
                every coordinate.
        """
        if t.ndim:
            return self._of_batch(t.detach().double().cpu())
        key = float(t.detach())
        if key not in self._seen:
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            at = torch.tensor([key], dtype=torch.float64)
            with torch.inference_mode(False):
                self._seen[key] = _factored(*self.law(at), at)
        return self._seen[key]

    def _of_batch(self, t: Tensor) -> Matrices:
        """Return the matrices at times of rows; a loss asks for those of a step several times."""
        last = self._batch[-1:]  # a copy: other threads may be at theirs
        if last and torch.equal(last[0][0], t):
            return last[0][1]
        with torch.inference_mode(False):
            found = _factored(*self.law(t), t)
        self._batch[:] = [(t.clone(), found)]
        return found

    def mean(self, x0: State, t: Time) -> Tensor:
        """Return Φ x0 + m: of positions (batch, *event) a state (batch, 2, *event)."""
        at = self.matrices(t)
        data = x0.flatten(1)[..., None] if self.phase_space else x0.flatten(1)[:, None]
        return self._state(apply(at.phi, data) + at.shift.to(x0), x0)

    def spread(self, eps: State, t: Time) -> State:
        """Return L ε, shape of eps."""
        return self.of_blocks(apply(self.matrices(t).root, self.blocks(eps)), eps)

    def whiten(self, deviation: State, t: Time) -> State:
        """Return L⁻¹ r, shape of r."""
        return self.of_blocks(apply(self.matrices(t).inverse, self.blocks(deviation)), deviation)

    def pull_back(self, eps: State, t: Time) -> State:
        """Return L⁻ᵀ ε, shape of eps."""
        return self.of_blocks(apply(self.matrices(t).inverse.mT, self.blocks(eps)), eps)

    def push_forward(self, pulled: State, t: Time) -> State:
        """Return Lᵀ u, the ε of which u is L⁻ᵀ ε; shape of u."""
        return self.of_blocks(apply(self.matrices(t).root.mT, self.blocks(pulled)), pulled)

    def start(self, mean: State, t: Time) -> State:
        """Return Φ⁻¹ (u − m), the x0 of a mean u; not of a phase space. Shape of u."""
        at = self.matrices(t)
        centred = self.blocks(mean) - at.shift.to(mean)
        return self.of_blocks(apply(torch.linalg.inv(at.phi), centred), mean)

    def squared_distances(self, x_t: State, t: Tensor, x0: Tensor) -> Tensor:
        """Return ‖L⁻¹ (x_t − Φ x0 − m)‖² of states and starts, shape (batch, n).

        Args:
            x_t: Shape (batch, *event), in phase space (batch, 2, *event).
            t: Time of each, shape (batch,).
            x0: Shape (n, *event), in phase space of positions.
        """
        at, wide = self.matrices(t), x0.double().cpu()
        slope = at.inverse @ at.phi  # (batch, blocks, d, columns)
        white = apply(at.inverse, self.blocks(x_t.double().cpu()) - at.shift)
        linear = apply(slope.mT, white).flatten(1)
        square = (slope.mT @ slope).expand(-1, white.shape[1], -1, -1).flatten(1)
        points = wide.flatten(1)[..., None] if self.phase_space else wide.flatten(1)[:, None]
        products = (points[..., :, None] * points[..., None, :]).flatten(1)
        constant = white.square().flatten(1).sum(1)
        return quadratic(constant, linear, square, points.flatten(1), products).to(x_t.device)

    def end(self, t: float) -> GaussianBlocks:
        """Return the law at rest, or of X_t from x0 = 0 where it does not come to rest."""
        if self.rest is not None:
            return GaussianBlocks(self.rest[0], torch.linalg.cholesky(self.rest[1]), self)
        at = self.matrices(torch.tensor(t, dtype=torch.float64))
        return GaussianBlocks(at.shift[0], at.root[0], self)

    def blocks(self, state: State) -> Tensor:
        """Return a state as blocks, shape (batch, blocks, d)."""
        return state.flatten(2).mT if self.phase_space else state.flatten(1)[:, None]

    def of_blocks(self, blocks: Tensor, like: Tensor) -> Tensor:
        """Return the state of blocks, shape of `like`."""
        return (blocks.mT if self.phase_space else blocks).reshape(like.shape)

    def like_state(self, x0: State) -> Tensor:
        """Return a tensor of the shape of the states that data x0 are noised to."""
        return x0[:, None].expand(-1, 2, *x0.shape[1:]) if self.phase_space else x0

    def _state(self, blocks: Tensor, x0: State) -> Tensor:
        """Return the state of blocks that data x0 are noised to."""
        return self.of_blocks(blocks, self.like_state(x0))


@dataclass(frozen=True, eq=False)
class GaussianBlocks:
    """A Gaussian whose blocks are independent.

    Attributes:
        mean: Shape (blocks, d).
        root: L, shape (blocks, d, d), lower triangular.
        kernel: Says what a block is.
    """

    mean: Tensor
    root: Tensor
    kernel: MatrixKernel

    def draw(self, z: State) -> State:
        """Return states from standard normals z, shape of z."""
        return self.kernel.of_blocks(
            apply(self.root[None], self.kernel.blocks(z)) + self.mean.to(z), z
        )

    def size(self, x: State) -> float:
        """Return the root mean square of states, in standard deviations from the mean."""
        blocks = self.kernel.blocks(x) - self.mean.to(x)
        return float(apply(torch.linalg.inv(self.root)[None], blocks).square().mean().sqrt())

    def log_prob(self, x: State) -> Tensor:
        """Return log of the density in nats, shape (batch,)."""
        blocks = self.kernel.blocks(x)
        white = apply(torch.linalg.inv(self.root)[None], blocks - self.mean.to(x))
        volume = self.root.diagonal(dim1=-2, dim2=-1).log().to(x).expand(blocks.shape[1:]).sum()
        volume = volume + 0.5 * x[0].numel() * math.log(2 * math.pi)
        return -0.5 * white.flatten(1).square().sum(1) - volume


def apply(matrix: Tensor, blocks: Tensor) -> Tensor:
    """Return matrices (1 or batch, 1 or blocks, i, j) times blocks (batch, blocks, j)."""
    matrix = matrix.to(blocks)
    if matrix.shape[:2] == (1, 1):
        return blocks @ matrix[0, 0].T
    return (matrix @ blocks[..., None])[..., 0]


def _factored(phi: Tensor, shift: Tensor, covariance: Tensor, t: Tensor) -> Matrices:
    """Return the matrices of a kernel, with L by Cholesky in units of the standard deviations."""
    unit = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
    safe = torch.where(unit > 0, unit, 1.0)
    scaled = covariance / safe[..., :, None] / safe[..., None, :]
    root, failed = torch.linalg.cholesky_ex(scaled)
    if bool(failed.any()):
        first = float(t[(failed > 0).flatten(1).any(1)][0])
        raise ValueError(
            f"the law of X_t given X_0 has no density at t = {first:g}: its covariance is "
            "singular to rounding, and there is no score. Noise must reach every coordinate, and "
            "t must be > 0 and not too small."
        )
    eye = torch.eye(root.shape[-1], dtype=root.dtype).expand_as(root)
    inverse = torch.linalg.solve_triangular(root, eye, upper=False) / safe[..., None, :]
    return Matrices(phi, shift, root * safe[..., :, None], inverse)
