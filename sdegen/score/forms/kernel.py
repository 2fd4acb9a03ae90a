"""The form of a Gaussian kernel that is not of numbers: what all such kernels share.

x_t = Φ x0 + m + L ε,        score = −L⁻ᵀ E[ε | x_t]

A network is given x_t − m in units of its standard deviation for data of unit variance, in real
space, and the time. Where the kernel is diagonal in a basis these units are those of each mode
(`forms.modes`), else those of each coordinate (`forms.matrices`).

**Times.** A process that does not end by itself is run until its slowest mode has decayed to e⁻⁵,
as VP(LinearBeta(0.1, 20.0)) has at t = 1, and is asked for a score from the time on at which its
noise has a hundredth of its final size. Else pass times=(t_min, t_max).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.diagonal_kernel import DiagonalKernel, GaussianModes
from sdegen.core.matrix_kernel import GaussianBlocks, MatrixKernel
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_time
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Time
from sdegen.score.forms.advice import gap_of, note_prior, some_of, warn_scale
from sdegen.score.forms.base import Form, as_states
from sdegen.score.parameterization import EpsPrediction, Parameterization

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel

_TIMES = 5.0  # 1/rate of the slowest mode, until t_max
_LEFT = 7e-3  # of the start at t_max, where modes couple
_FINE = 0.01  # of the final noise at t_min


class KernelForm(Form):
    """The form of a process with a Gaussian kernel of modes or matrices.

    Args:
        sde: The process.
        kernel: Its kernel.
    """

    kernel: DiagonalKernel | MatrixKernel

    def __init__(self, sde: SDE) -> None:
        self.sde = sde

    def default(self) -> Parameterization:
        """Return `EpsPrediction()`."""
        return EpsPrediction()

    def times(self) -> tuple[float, float] | None:
        """Return t_min and t_max of the process, where it has them."""
        low, high = getattr(self.sde, "t_min", None), getattr(self.sde, "t_max", None)
        return None if low is None or high is None else (low, high)

    def default_times(self) -> tuple[float, float]:
        """Return times from the slowest rate and the size of the noise.

        Raises:
            ValueError: If there is no slowest rate.
        """
        if self.kernel.slowest is None:
            raise ValueError(
                f"{type(self.sde).__name__} does not say when its noising has ended, as its rates "
                "change in time, or a mode does not decay: pass ScoreModel(…, times=(t_min, "
                "t_max))."
            )
        high = _TIMES / self.kernel.slowest
        while self.remaining(high) > _LEFT:
            high *= 1.1
        wanted, below, above = _FINE * self.noise(high), 0.0, high
        for _ in range(60):
            middle = 0.5 * (below + above)
            below, above = (middle, above) if self.noise(middle) < wanted else (below, middle)
        return (above, high)

    @abstractmethod
    def remaining(self, t: float) -> float:
        """Return how much of a start is left at a time, relative to the noise at rest."""

    @abstractmethod
    def noise(self, t: float) -> float:
        """Return the root mean square of the noise that data have at a time."""

    def precompute(self, model: ScoreModel, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i])."""
        ts = times.unbind()
        return lambda x_t, i: self.score(model, x_t, ts[i])

    def noised(self, model: ScoreModel, x0: Tensor, t: Tensor, eps: State) -> State:
        """Return Φ x0 + m + L ε."""
        return self.kernel.mean(x0, t) + self.kernel.spread(eps, t)

    def prepare(self, model: ScoreModel, data: State) -> None:
        """Warn of data of another scale, and of a prior that is not reached."""
        assert model.times is not None  # the model saw to it
        told = warn_scale(data, 1.0, "a network")
        end = torch.tensor(model.times[1], dtype=torch.float64)
        found = gap_of(*self.in_units_of_prior(self.kernel.mean(some_of(data), end), end))
        numbers = math.prod(self.state_shape(tuple(data.shape[1:])))
        cure = "Pass ScoreModel(…, times=(t_min, t_max)) with a later t_max."
        note_prior(model, found, numbers, cure, told=told)

    @abstractmethod
    def in_units_of_prior(self, means: State, end: Tensor) -> tuple[Tensor, Tensor]:
        """Return whitened means, and the covariance of the noise at T, as `gap_of` takes them.

        Args:
            means: Where data are at T but for the noise, shape (n, *event), float64.
            end: T, 0-d.
        """

    def prior(
        self, model: ScoreModel, n: int, rng: Rng, dtype: torch.dtype | None, device: torch.device
    ) -> State:
        """Draw from the law at rest; where there is none, from that of X_t_max from x0 = 0."""
        shape = self.state_shape(model.sample_shape())
        dtype = torch.get_default_dtype() if dtype is None else dtype
        z = stream(rng, "prior").normal((n, *shape), dtype=dtype, device=device)
        return self.prior_law(model).draw(z)

    def prior_law(self, model: ScoreModel) -> GaussianModes | GaussianBlocks:
        """Return the law from which samples begin."""
        assert model.times is not None  # the model saw to it
        return self.kernel.end(model.times[1])

    def asked_at(self, model: ScoreModel, x_t: State, t: Time | float) -> tuple[State, Time]:
        """Return states and times as tensors, or refuse them."""
        x_t, t = as_states(x_t), as_time(t)
        if t.ndim == 0 and t.device.type == "cpu" and not float(t.detach()) > 0:
            low = 0.0 if model.times is None else model.times[0]
            raise ValueError(
                f"the score does not exist at t = {float(t):g}; stop at t_min = {low:g}."
            )
        return x_t, t
