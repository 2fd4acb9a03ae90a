"""The form of a kernel of matrices, and of phase space.

ε, x0 and the score are each a matrix times another, x_t = Φ x0 + m + L ε and score = −L⁻ᵀ ε, so
that a network may predict any of the three. What mixes x0 and ε coordinate by coordinate (v, flow
matching, EDM) is refused: α and σ are no numbers here.

**Phase space.** Data are positions (n, *event), states (batch, 2, *event). A network is given
positions and velocities along the first axis of the event, (batch, 2 C, …) of an event (C, …): an
MLP(2 d) or a UNet(channels=2 C); it returns that shape. Of `EpsPrediction` and `ScorePrediction`
the velocities' half is read, of `X0Prediction` the positions' half. What is learned is ε_v, and
∇_v log p_t = −ε_v/ℓ_vv; the score has zeros in the place of ∇_x log p_t, which neither a reversal
nor its flow asks for, as noise moves v alone.

Reference:
    Dockhorn, Vahdat and Kreis 2022, section 3.1, arXiv:2112.07068.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from sdegen.core.matrix_kernel import Matrices, MatrixKernel, apply
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.score.forms.base import ask
from sdegen.score.forms.kernel import KernelForm
from sdegen.score.parameterization import (
    EpsPrediction,
    Parameterization,
    ScorePrediction,
    X0Prediction,
)

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel

_TAKEN = (EpsPrediction, X0Prediction, ScorePrediction)


class MatrixForm(KernelForm):
    """The form of a kernel of matrices.

    Args:
        sde: The process.
        kernel: Its kernel.
    """

    def __init__(self, sde: SDE, kernel: MatrixKernel) -> None:
        super().__init__(sde)
        self.kernel: MatrixKernel = kernel

    def check(self, parameterization: Parameterization) -> None:
        """Refuse what mixes x0 and ε by numbers α and σ."""
        if type(parameterization) not in _TAKEN:
            names = ", ".join(f"{kind.__name__}()" for kind in _TAKEN)
            raise ValueError(
                f"{type(parameterization).__name__} needs numbers α and σ for each coordinate or "
                f"mode, but the kernel of {type(self.sde).__name__} is of matrices: take one of "
                f"{names}."
            )

    def remaining(self, t: float) -> float:
        """Return the norm of Φ in units of the standard deviations at rest."""
        assert self.kernel.rest is not None  # a slowest rate has a law at rest
        phi = self.kernel.law(torch.tensor([t], dtype=torch.float64))[0][0]
        unit = self.kernel.rest[1].diagonal(dim1=-2, dim2=-1).sqrt()
        of = unit[:, None, :1] if self.kernel.phase_space else unit[:, None, :]
        return float(torch.linalg.matrix_norm(phi * of / unit[..., None], 2).max())

    def noise(self, t: float) -> float:
        """Return the root mean square of the standard deviations, in phase space of positions."""
        covariance = self.kernel.law(torch.tensor([t], dtype=torch.float64))[2]
        variances = covariance.diagonal(dim1=-2, dim2=-1)
        of = variances[..., :1] if self.kernel.phase_space else variances
        return float(of.mean().clamp(min=0.0).sqrt())

    def in_units_of_prior(self, means: State, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return blocks."""
        law = self.kernel.end(float(end))
        inverse = torch.linalg.inv(law.root)
        white = apply(inverse[None], self.kernel.blocks(means) - law.mean)
        return white, inverse @ self.kernel.law(end[None])[2][0] @ inverse.mT

    def like_state(self, x0: State) -> Tensor:
        """Return a tensor like the states that data are noised to."""
        return self.kernel.like_state(x0)

    def state_shape(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a state: in phase space (2, *event)."""
        return (2, *event) if self.kernel.phase_space else event

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the shape of a sample of an MLP of so many numbers."""
        if not self.kernel.phase_space:
            return (numbers,)
        if numbers % 2:
            raise ValueError(
                f"a network of a phase space takes positions and velocities, an even number, but "
                f"this MLP takes {numbers}: make it with MLP(dim=2 d) for positions of d numbers."
            )
        return (numbers // 2,)

    def output(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network, shape of the state x_t."""
        x_t, t = self.asked_at(model, x_t, t)
        if self.kernel.phase_space and (x_t.ndim < 3 or x_t.shape[1] != 2):
            raise ValueError(
                f"a state of {type(self.sde).__name__} has shape (batch, 2, *event), positions "
                f"and velocities, but x_t has shape {tuple(x_t.shape)}; sde.state(x, v) makes one."
            )
        at = self.kernel.matrices(t)
        variance = at.phi.square().sum(-1) + at.root.square().sum(-1)
        blocks = (self.kernel.blocks(x_t) - at.shift.to(x_t)) / variance.sqrt().to(x_t)
        scaled = self.kernel.of_blocks(blocks, x_t)
        like = next(model.network.parameters(), x_t)
        if not self.kernel.phase_space:
            return ask(model.network, scaled, 1.0, t, like)
        return ask(model.network, scaled.flatten(1, 2), 1.0, t, like).reshape(x_t.shape)

    def score(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return −L⁻ᵀ ε, in phase space with zeros for positions."""
        x_t, t = self.asked_at(model, x_t, t)
        output = self.output(model, x_t, t)
        if isinstance(model.parameterization, ScorePrediction):
            return self._half(output)
        return self._half(-self.kernel.pull_back(self._eps(model, output, x_t, t), t))

    def estimates(self, model: ScoreModel, x_t: State, t: Time | float) -> tuple[Tensor, Tensor]:
        """Return x0 and ε; in phase space x0 has the shape of positions."""
        x_t, t = self.asked_at(model, x_t, t)
        output, kernel, how = self.output(model, x_t, t), self.kernel, model.parameterization
        if isinstance(how, X0Prediction):
            x0 = self._data(output)
            return x0, kernel.whiten(x_t - kernel.mean(x0, t), t)
        eps = self._eps(model, output, x_t, t)
        if not kernel.phase_space:
            return kernel.start(x_t - kernel.spread(eps, t), t), eps
        return self._pair(x_t, eps, kernel.matrices(t))

    def v(self, model: ScoreModel, x_t: State, t: Time | float) -> NoReturn:
        """Refuse: v = α ε − σ x0 is of numbers."""
        raise ValueError(
            f"v = α ε − σ x0 needs numbers α and σ, but the kernel of {type(self.sde).__name__} "
            "is of matrices; ask for model.eps or model.x0."
        )

    def error(
        self, model: ScoreModel, x0: Tensor, t: Tensor, eps: State, *, in_output: bool
    ) -> State:
        """Return ε̂ − ε, in phase space of the velocities; or the error of the output."""
        kernel, how = self.kernel, model.parameterization
        output = self.output(model, self.noised(model, x0, t, eps), t)
        if isinstance(how, X0Prediction):
            off = self._data(output) - x0
            if in_output:
                return self._half(kernel.like_state(off), of_data=True)
            moved = kernel.mean(off, t) - kernel.mean(torch.zeros_like(off), t)
            return self._half(-kernel.whiten(moved, t))
        if isinstance(how, EpsPrediction):
            return self._half(output - eps)
        error = self._half(output + kernel.pull_back(eps, t))
        return error if in_output else self._half(-kernel.push_forward(error, t))

    def _eps(self, model: ScoreModel, output: State, x_t: State, t: Time) -> State:
        """Return the ε that an output stands for, in phase space with zeros for positions."""
        how, kernel = model.parameterization, self.kernel
        if isinstance(how, EpsPrediction):
            return self._half(output)
        if isinstance(how, X0Prediction):
            return self._half(kernel.whiten(x_t - kernel.mean(self._data(output), t), t))
        return self._half(-kernel.push_forward(self._half(output), t))

    def _data(self, output: Tensor) -> Tensor:
        """Return the half of an output that stands for data."""
        return output[:, 0] if self.kernel.phase_space else output

    def _half(self, state: Tensor, *, of_data: bool = False) -> Tensor:
        """Return a state, in phase space with zeros in place of its positions or velocities."""
        if not self.kernel.phase_space:
            return state
        zero, kept = torch.zeros_like(state[:, 0]), state[:, 0 if of_data else 1]
        return torch.stack([kept, zero] if of_data else [zero, kept], 1)

    def _pair(self, x_t: State, eps: State, at: Matrices) -> tuple[Tensor, Tensor]:
        """Return x0 and ε from ε_v: two equations for x0 and ε_x."""
        kernel = self.kernel
        place, v = (kernel.blocks(x_t) - at.shift.to(x_t)).unbind(-1)
        of_v = kernel.blocks(eps)[..., 1]
        phi, root = at.phi.to(x_t), at.root.to(x_t)
        slope = root[..., 1, 0] / root[..., 0, 0]
        x0 = (v - slope * place - root[..., 1, 1] * of_v) / (
            phi[..., 1, 0] - slope * phi[..., 0, 0]
        )
        of_x = (place - phi[..., 0, 0] * x0) / root[..., 0, 0]
        whole = kernel.of_blocks(torch.stack([of_x, of_v], -1), x_t)
        return x0.reshape(x_t[:, 0].shape), whole
