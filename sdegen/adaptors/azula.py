"""azula: its denoisers as our scores, and our scores as its denoisers.

azula's schedule gives α and σ at t in [0, 1], and its denoiser the mean of q(X | x_t). In x_t/α
and σ/α, where no path is seen, that mean is a denoiser D(x; σ), which goes on as in
`sdegen.adaptors.denoisers`. The other way its time 0 … 1 is our t_min … t_max.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdegen.adaptors.denoisers import check_levels, from_denoiser
from sdegen.core.kernel import Kernel
from sdegen.core.optional import needed
from sdegen.core.requests import check_kind
from sdegen.core.shapes import State, Time, expand
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.paths import EDM
from sdegen.score.model import ScoreModel


class _Posterior(Protocol):
    """What an azula denoiser returns."""

    mean: Tensor


class AzulaDenoiser(Protocol):
    """An azula denoiser: denoiser(x_t, t).mean is E[x0 | x_t], denoiser.schedule(t) is (α, σ)."""

    @property
    def schedule(self) -> Any:  # noqa: ANN401, azula's
        """Called with t, gives α and σ."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Any:  # noqa: ANN401, azula's
        """Return the posterior of x0, with its mean."""


class _Denoise(nn.Module):
    """D(x; σ) of an azula denoiser."""

    def __init__(self, denoiser: AzulaDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.kernel = _kernel(denoiser)

    def forward(self, x: State, sigma: Tensor) -> State:
        """Return the posterior's mean at x_t = α x and at the t with σ(t)/α(t) = σ."""
        levels = sigma.to(device="cpu", dtype=torch.float64).log()
        t = self.kernel.time_of_log_nsr(levels, 0.0, 1.0).to(x)
        answer: _Posterior = self.denoiser(expand(self.kernel.alpha(t), x) * x, t)
        return answer.mean


def from_azula(denoiser: AzulaDenoiser, sde: GaussianPath | None = None) -> ScoreModel:
    """Return a `ScoreModel` made of an azula denoiser.

        D(x; σ) = E[x0 | x_t],     x_t = α x of shape (batch, *event) at the t with σ(t)/α(t) = σ

    Args:
        denoiser: The denoiser, with its schedule.
        sde: The path to sample on; any within the noise levels of the schedule. None is `EDM` with
            just these.

    Returns:
        The model. Its file holds the weights and not the network: `ScoreModel.load(path,
        network=…)`.

    Raises:
        TypeError: If it has no schedule.
        ValueError: If the path has noise levels that the schedule has not.

    Example:
        >>> import types
        >>> class Known(torch.nn.Module):  # of data N(0, 1), with the face of azula's
        ...     def schedule(self, t):
        ...         return torch.ones_like(t), 0.01 + t
        ...     def forward(self, x_t, t):
        ...         return types.SimpleNamespace(mean=x_t / (1 + (0.01 + t)[:, None] ** 2))
        >>> sg.from_azula(Known()).score(torch.tensor([[1.0]]), 0.5)  # −x/(1 + σ²) at σ = ½
        tensor([[-0.8000]])
    """
    if not callable(denoiser) or not callable(getattr(denoiser, "schedule", None)):
        raise TypeError(
            "denoiser must be one of azula's, called with (x_t, t) and with a .schedule, but is "
            f"{type(denoiser).__name__}; a function D(x, σ) goes to from_denoiser."
        )
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    low, high = _kernel(denoiser).log_ratio(ends).exp().tolist()
    sde = EDM(t_min=low, t_max=high) if sde is None else sde
    check_levels(sde, low, high, type(denoiser).__name__)
    return from_denoiser(_Denoise(denoiser), sde)


def to_azula(model: ScoreModel) -> AzulaDenoiser:
    """Return an azula denoiser, for azula's samplers and guidance, made of a `ScoreModel`.

        denoiser(x_t, t).mean = E[x0 | x_t],     shape (batch, *event)

    Args:
        model: The model, on any Gaussian path.

    Returns:
        A denoiser whose schedule at t in [0, 1] is α and σ at t_min + t (t_max − t_min).

    Raises:
        ImportError: If azula is not installed.

    Example:
        >>> import azula
        >>> model = sg.ScoreModel(sg.MLP(1, rng=0), sg.RectifiedFlow(t_min=0.1, t_max=0.9))
        >>> denoiser = sg.to_azula(model)
        >>> alpha, sigma = denoiser.schedule(torch.tensor(0.0))  # at t_min
        >>> round(alpha.item(), 3), round(sigma.item(), 3)
        (0.9, 0.1)
    """
    check_kind("model", model, ScoreModel, "a ScoreModel")
    denoise, noise = (
        needed(f"azula.{part}", "to_azula", extra="azula") for part in ("denoise", "noise")
    )
    sde = model.path

    def ours(t: Tensor) -> Tensor:
        return sde.t_min + (sde.t_max - sde.t_min) * t

    class Schedule(noise.Schedule):  # type: ignore[misc, name-defined]
        """α and σ of the model's SDE."""

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return sde.alpha(ours(t)), sde.sigma(ours(t))

    class Denoiser(denoise.Denoiser):  # type: ignore[misc, name-defined]
        """The model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.schedule = Schedule()

        def forward(self, x_t: State, t: Time) -> Any:  # noqa: ANN401, azula's
            return denoise.DiracPosterior(mean=self.model.x0(x_t, ours(t)))

    made: AzulaDenoiser = Denoiser()
    return made


def _kernel(denoiser: AzulaDenoiser) -> Kernel:
    """Return α and σ of an azula schedule."""
    return Kernel(lambda t: denoiser.schedule(t)[0], lambda t: denoiser.schedule(t)[1])
