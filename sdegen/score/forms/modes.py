"""The form of a diagonal kernel: each mode of a basis has its own α and σ.

output ──Q──► modes ──parameterization, mode by mode──► (x0, ε) ──Qᵀ──► score = −Qᵀ ε/σ

So every parameterization works here as it does for numbers α and σ. A network that is told no t
but a noise level is told that of all modes together, with the root mean squares of α and σ. Of a
mode of which nothing is left in x_t, in the precision of x_t, x0 is taken for 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.bases import Coordinates
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.score.forms.base import ask
from sdegen.score.forms.kernel import KernelForm
from sdegen.score.parameterization import Estimates, Parameterization, score_of, v_of
from sdegen.score.preconditioning import DenoiserPrediction

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel


class DiagonalForm(KernelForm):
    """The form of a diagonal kernel.

    Args:
        sde: The process.
        kernel: Its kernel.
    """

    def __init__(self, sde: SDE, kernel: DiagonalKernel) -> None:
        super().__init__(sde)
        self.kernel: DiagonalKernel = kernel

    def check(self, parameterization: Parameterization) -> None:
        """Refuse a denoiser of one noise level."""
        if parameterization.outputs != 1:
            raise ValueError(
                f"{type(parameterization).__name__} learns the variance of a DDPM chain, which "
                f"{type(self.sde).__name__} has not: take EpsPrediction(), or a GaussianPath such "
                "as VP for the sde."
            )
        if isinstance(parameterization, DenoiserPrediction):
            raise ValueError(  # noqa: TRY004, of another kind of process
                f"{type(parameterization).__name__} reads a denoiser of one noise level, but the "
                f"modes of {type(self.sde).__name__} have one each; take X0Prediction()."
            )

    def remaining(self, t: float) -> float:
        """Return 0: modes decay by themselves."""
        return 0.0

    def noise(self, t: float) -> float:
        """Return the root mean square of σ."""
        sigma = self.kernel.sigma(torch.tensor(t, dtype=torch.float64))
        return float(sigma.detach().square().mean().sqrt())

    def in_units_of_prior(self, means: State, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return modes, each a block of its own."""
        law = self.kernel.end(float(end))
        white = ((self.kernel.basis.to_modes(means) - law.mean) / law.std).flatten(1)
        noise = (self.kernel.sigma(end) / law.std).square().expand(means.shape[1:])
        return white[..., None], noise.flatten()[:, None, None]

    def output(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network."""
        return self._asked(model, x_t, t)[0]

    def score(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return −Qᵀ ε/σ."""
        output, y, alpha, sigma = self._asked(model, x_t, t)
        eps = model.parameterization.eps(self.kernel.basis.to_modes(output), y, alpha, sigma)
        return self.kernel.basis.from_modes(score_of(eps, sigma))

    def estimates(self, model: ScoreModel, x_t: State, t: Time | float) -> Estimates:
        """Return x0 and ε."""
        x0, eps, _, _ = self._decoded(model, x_t, t)
        return self.kernel.basis.from_modes(x0), self.kernel.basis.from_modes(eps)

    def v(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return α ε − σ x0, mode by mode."""
        return self.kernel.basis.from_modes(v_of(*self._decoded(model, x_t, t)))

    def error(
        self, model: ScoreModel, x0: State, t: Tensor, eps: State, *, in_output: bool
    ) -> State:
        """Return ε̂ − ε, or the error of the output."""
        basis, how = self.kernel.basis, model.parameterization
        alpha, sigma, _ = self.kernel.coefficients(t, x0)
        output = self.output(model, self.noised(model, x0, t, eps), t)
        target = how.target(basis.to_modes(x0), basis.to_modes(eps), alpha, sigma)
        error = basis.to_modes(output) - target
        return basis.from_modes(error if in_output else how.d_eps_d_output(alpha, sigma) * error)

    def _decoded(
        self, model: ScoreModel, x_t: State, t: Time | float
    ) -> tuple[State, State, Tensor, Tensor]:
        """Return the modes of x0 and ε, α and σ."""
        output, y, alpha, sigma = self._asked(model, x_t, t)
        modes = self.kernel.basis.to_modes(output)
        x0, eps = model.parameterization.decode(modes, y, alpha, sigma)
        gone = alpha.abs() < torch.finfo(x0.dtype).tiny
        return torch.where(gone, 0.0, x0), eps, alpha, sigma

    def _asked(
        self, model: ScoreModel, x_t: State, t: Time | float
    ) -> tuple[State, State, Tensor, Tensor]:
        """Return the output of the network, the modes of x_t − m, α and σ."""
        x_t, t = self.asked_at(model, x_t, t)
        kernel, how = self.kernel, model.parameterization
        alpha, sigma, shift = kernel.coefficients(t, x_t)
        y, scale = self._centred(x_t, shift), how.scale(alpha, sigma)
        like = next(model.network.parameters(), x_t)
        clock = how.c_noise(t, _level(kernel.alpha(t), t), _level(kernel.sigma(t), t))
        if isinstance(kernel.basis, Coordinates):
            return ask(model.network, y, scale, clock, like), y, alpha, sigma
        scaled = kernel.basis.from_modes(y / scale)
        return ask(model.network, scaled, 1.0, clock, like), y, alpha, sigma

    def _centred(self, x_t: State, shift: Tensor | None) -> State:
        """Return the modes of x_t less their shift."""
        y = self.kernel.basis.to_modes(x_t)
        return y if shift is None else y - shift


def _level(c: Tensor, t: Time) -> Tensor:
    """Return the root mean square over modes, shape of t."""
    if c.ndim == t.ndim:
        return c
    return c.flatten(t.ndim).square().mean(-1).sqrt()
