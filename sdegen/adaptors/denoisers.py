"""Denoisers: D(x; σ) = E[x0 | x0 + σ ε = x], the form in which k-diffusion and EDM know a network.

    ours → theirs     D(x; σ) = x0(α x, t)        at the t with σ(t)/α(t) = σ
    theirs → ours     x0(x_t, t) = D(x_t/α; σ/α)      on any linear path

Both are exact, since x_t/α of any linear path is x0 + (σ/α) ε. The score follows from x0.

**Classes.** A network of ours is told labels 0 … n − 1, and n for none, which it assumes. One from
elsewhere may have another number for none, or know of none; `Conditional` stands between. What
wants a prompt or a mask is given as a function of (x, σ) that has them inside.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.requests import check_function, check_kind
from sdegen.core.shapes import State, Time, expand
from sdegen.core.signature import check_order
from sdegen.core.tolerances import IN_FLOAT32
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.paths import EDM
from sdegen.diffusion.signal import check_signal
from sdegen.score.model import ScoreModel, with_labels
from sdegen.score.model_checks import check_labels
from sdegen.score.preconditioning import DenoiserPrediction


class Function(nn.Module):
    """A function of (x, t) as a module.

    Args:
        function: The function; its parameters, where it is a module, are this module's.
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: State, t: Tensor) -> State:
        """Return what the function gives."""
        return self.function(x, t)


class Conditional(nn.Module):
    """A conditional network from elsewhere, told labels as ours are.

    Args:
        network: Called as network(x, t, labels), labels (batch,) int64.
        classes: How many it knows, n ≥ 1.
        none: Its own label for none; None where it has none, and must be asked with labels.

    Raises:
        TypeError: If classes is not an int.
        ValueError: If it is below 1.
    """

    def __init__(
        self, network: Callable[[Tensor, Tensor, Tensor], Tensor], classes: int, none: int | None
    ) -> None:
        super().__init__()
        check_count("classes", classes)
        self.network = network
        self.classes: int = classes
        self.none: int | None = none

    def forward(self, x: State, t: Tensor, labels: Tensor | None = None) -> State:
        """Ask the network with labels 0 … n, shape (batch,), or with its label for none.

        Raises:
            ValueError: If it needs labels and gets none.
        """
        if self.none is not None:
            if labels is None:
                labels = torch.full((len(x),), self.classes, device=x.device)
            labels = torch.where(labels == self.classes, self.none, labels)
        elif labels is None:
            raise ValueError(
                f"this network knows {self.classes} classes and no label for none: ask "
                "model.conditional(label), or say none=… if it has one."
            )
        return self.network(x, t, labels)


class Denoiser(nn.Module):
    """A `ScoreModel` as D(x; σ): what k-diffusion and EDM's own samplers call.

    Args:
        model: The model.

    Attributes:
        sigma_min: Smallest noise level that the model knows, σ/α at t_min.
        sigma_max: Largest one, σ/α at t_max.
    """

    def __init__(self, model: ScoreModel) -> None:
        super().__init__()
        check_kind("model", model, ScoreModel, "a ScoreModel")
        self.model = model
        self.sigma_min: float
        self.sigma_max: float
        self.sigma_min, self.sigma_max = noise_levels(model.path)

    def forward(self, x: State, sigma: Time | float, labels: Tensor | None = None) -> State:
        """Return E[x0 | x0 + σ ε = x], same shape as x.

        Args:
            x: Noisy state, shape (batch, *event).
            sigma: σ within [sigma_min, sigma_max], a number, or of shape () or (batch,).
            labels: Classes that a conditional model is told, shape () or (batch,); `classes`, or
                None for all of them, is none. k-diffusion hands on extra_args={"labels": …}.

        Raises:
            TypeError: If labels are not integers.
            ValueError: If σ leaves that interval, or the model does not know the labels.
        """
        sde = self.model.path
        levels = torch.as_tensor(sigma).detach().to(device="cpu", dtype=torch.float64)
        low, high = self.sigma_min * (1 - IN_FLOAT32), self.sigma_max * (1 + IN_FLOAT32)
        bad = ~((levels >= low) & (levels <= high))
        if bool(bad.any()):
            raise ValueError(
                f"sigma must lie in [{self.sigma_min:g}, {self.sigma_max:g}], the noise levels of "
                f"this model, but is {float(levels[bad].flatten()[0]):g}."
            )
        t = sde.kernel.time_of_log_nsr(levels.log(), sde.t_min, sde.t_max)
        if t.ndim == 1 and bool((t == t[:1]).all()):
            t = t[0]  # one level for all rows, as samplers have it: in double, whatever x is
        elif t.ndim:
            t = t.to(x)
        return conditioned_on(self.model, "labels", labels).x0(expand(sde.alpha(t), x) * x, t)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest level of the model: σ itself, for its levels are continuous."""
        return torch.as_tensor(sigma)


def to_denoiser(model: ScoreModel) -> Denoiser:
    """Return a denoiser D(x; σ), for k-diffusion's samplers and EDM's, made of a `ScoreModel`.

        D(x; σ) = E[x0 | x0 + σ ε = x],     shape (batch, *event)

    Args:
        model: The model, on any Gaussian path.

    Returns:
        A module that is called with x0 + σ ε and σ.

    Reference:
        Karras et al. 2022, eqs. (2) and (3), arXiv:2206.00364.

    Example:
        >>> known = lambda x, sigma: x / (1 + sigma[:, None] ** 2)  # of data N(0, 1)
        >>> model = sg.from_denoiser(known, sg.VP(sg.LinearBeta(0.1, 20.0)))
        >>> sg.to_denoiser(model)(torch.tensor([[5.0]]), torch.tensor([2.0]))  # 5/(1 + 2²)
        tensor([[1.]])
    """
    return Denoiser(model)


def conditioned_on(model: ScoreModel, name: str, labels: Tensor | None) -> ScoreModel:
    """Return the model conditional on labels 0 … `classes`; `name` is the caller's word for them.

    Raises:
        TypeError: If they are not integers.
        ValueError: If it knows no labels, or not these.
    """
    if labels is None:
        return model
    values = torch.as_tensor(labels)
    known = values[values != getattr(model.network, "classes", -1)]
    if known.numel() > 0:
        check_labels(name, known, model.network)
    return with_labels(model, values.long())


def from_denoiser(
    denoiser: Callable[..., Tensor],
    sde: GaussianPath | None = None,
    *,
    classes: int = 0,
    none: int | None = None,
) -> ScoreModel:
    """Return a `ScoreModel` made of a denoiser D(x; σ): EDM's networks, k-diffusion's, wrappers.

        ∇ log p(x; σ) = (D(x; σ) − x)/σ²

    Args:
        denoiser: Called as denoiser(x, σ) with x = x0 + σ ε, shape (batch, *event), and σ of shape
            (batch,); returns E[x0 | x]. A module or a function.
        sde: The path to sample on; any. None is `EDM()`, within the [sigma_min, sigma_max] that
            the denoiser says it was made for.
        classes: Labels that it knows, 0 for a denoiser without; it is then called as
            denoiser(x, σ, labels), labels (batch,) int64, and `model.conditional` tells them.
        none: Its own label for none, where it has one.

    Returns:
        The model. It is sampled, and asked for likelihoods, like any other. Its file holds the
        weights and not the network: `ScoreModel.load(path, network=…)`.

    Raises:
        TypeError: If denoiser is not callable.
        ValueError: If the path has noise levels that the denoiser was not made for.

    Example:
        >>> model = sg.from_denoiser(lambda x, sigma: x / (1 + sigma[:, None] ** 2))  # of N(0, 1)
        >>> model.score(torch.tensor([[2.0]]), torch.tensor(1.0))
        tensor([[-1.]])
    """
    check_function("denoiser", denoiser, "called with (x, sigma)")
    check_order(denoiser, "denoiser")
    low = float(getattr(denoiser, "sigma_min", 0.0))
    high = float(getattr(denoiser, "sigma_max", math.inf))
    if sde is None:
        usual = EDM()
        sde = EDM(t_min=max(low, usual.t_min), t_max=min(high, usual.t_max))
    check_levels(sde, low, high, type(denoiser).__name__)
    network: nn.Module
    if classes != 0:
        network = Conditional(denoiser, classes, none)
    else:
        network = denoiser if isinstance(denoiser, nn.Module) else Function(denoiser)
    return ScoreModel(network, sde, DenoiserPrediction())


def noise_levels(sde: GaussianPath) -> tuple[float, float]:
    """Return σ/α at t_min and at t_max."""
    check_signal(sde, "a denoiser of levels σ/α")
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    low, high = sde.kernel.log_ratio(ends).exp().tolist()
    return low, high


def check_levels(sde: GaussianPath, low: float, high: float, name: str) -> None:
    """Refuse a path with noise levels outside [low, high], which a network does not know."""
    first, last = noise_levels(check_gaussian_path(sde))
    if first < low * (1 - IN_FLOAT32) or last > high * (1 + IN_FLOAT32):
        levels = torch.tensor([max(low, first), min(high, last)], dtype=torch.float64)
        start, end = sde.kernel.time_of_log_nsr(levels.log(), sde.t_min, sde.t_max).tolist()
        part = f", or let it reach from t_min={start:.9g} to t_max={end:.9g}" * (start < end)
        raise ValueError(
            f"{name} knows noise levels σ/α in [{low:g}, {high:g}], but those of "
            f"{type(sde).__name__} span [{first:g}, {last:g}]; leave sde out, for EDM within "
            f"them{part}."
        )
