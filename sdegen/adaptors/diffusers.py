"""diffusers: its networks as our scores, and our scores as its networks.

What a scheduler holds is two things: how the network was *trained*, and how it is to be sampled.
Only the first is read here. It is one of three:

    schedulers                            path                      network is told    output
    DDPM, DDIM, PNDM, DPM-Solver,         VP(TabulatedBeta(ᾱ)),     k = N t − 1        ε, v or x0
    DEIS, UniPC, Euler, Heun, LMS, …      t = (k + 1)/N
    FlowMatchEuler, FlowMatchHeun         RectifiedFlow             N t                ε − x0
    EDMEuler, EDMDPMSolver                EDM                       ¼ log t            F

**Timesteps.** diffusers counts k = 0 … N − 1, a chain here counts 1 … N, and t = (k + 1)/N. At
these times the path has exactly their ᾱ_k. Between them k is a fraction, and the path the smooth
one of `TabulatedBeta`. t_min = 1/N is the least noise that the network knows.

**Zero terminal SNR.** With `rescale_betas_zero_snr` the last ᾱ is 0, or 2⁻²⁴ in its place, and
leaves nothing to take a score of. The path ends one level earlier, and the network is asked for
k = 0 … N − 2.

**The other way** is `to_diffusers` (`diffusers_unet.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sdegen.adaptors.denoisers import Conditional
from sdegen.core.checks import check_count
from sdegen.core.requests import check_function, check_kind
from sdegen.core.shapes import State
from sdegen.core.signature import check_order
from sdegen.diffusion.gaussian_path import VP
from sdegen.diffusion.paths import EDM, RectifiedFlow
from sdegen.diffusion.tables import TabulatedBeta
from sdegen.score import parameterization
from sdegen.score.model import ScoreModel
from sdegen.score.preconditioning import EDMPrediction, FlowPrediction

_DISCRETE = {
    f"{name}Scheduler"
    for name in (
        *("DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "SASolver"),
        *("DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"),
        *("DPMSolverSDE", "DEISMultistep", "UniPCMultistep", "HeunDiscrete", "LMSDiscrete"),
        *("EulerDiscrete", "EulerAncestralDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"),
    )
}
_FLOW = {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"}
_EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}
_OF_ALPHA_BARS: dict[str, parameterization.Parameterization] = {
    "epsilon": parameterization.EpsPrediction(),
    "v_prediction": parameterization.VPrediction(),
    "sample": parameterization.X0Prediction(),
}
# ᾱ of the last level under `rescale_betas_zero_snr`: 0, or what Euler's, DPM-Solver's and UniPC's
# schedulers write there so that σ stays finite. It may lie above the level before
_NO_SIGNAL = (0.0, 2.0**-24)
_Network = Callable[..., Any]


class Scheduler(Protocol):
    """A diffusers scheduler, of which the configuration is read, and ᾱ where it has them."""

    @property
    def config(self) -> Any:  # noqa: ANN401, diffusers'
        """Its configuration."""


class DiffusersNetwork(nn.Module):
    """A diffusers network called as ours are: network(x, t) with t of a path.

    Args:
        network: Called as network(x, timestep), or network(x, timestep, class_labels) with labels;
            returns a tensor or an object with `.sample`.
        factor: timestep = factor · t + offset.
        offset: See factor.
        sign: −1 where the output is read with the other sign.
        learned_variance: Whether the second half of the channels is a variance, to be dropped.
    """

    def __init__(
        self,
        network: _Network,
        *,
        factor: float = 1.0,
        offset: float = 0.0,
        sign: float = 1.0,
        learned_variance: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.factor: float = factor
        self.offset: float = offset
        self.sign: float = sign
        self.learned_variance = learned_variance

    def forward(self, x: State, t: Tensor, labels: Tensor | None = None) -> State:
        """Return the output, like x, for states x, times t and labels of shape (batch,)."""
        k = self.factor * t + self.offset
        # a float32 time moves k = 999 by 6e-5, and an embedding sees it
        rounding = 2 * torch.finfo(t.dtype).eps * self.factor
        k = torch.where((k - k.round()).abs() <= rounding, k.round(), k)
        answer = self.network(x, k) if labels is None else self.network(x, k, class_labels=labels)
        output: Tensor = answer if isinstance(answer, Tensor) else answer.sample
        if self.learned_variance:
            output = output.chunk(2, dim=1)[0]
        return self.sign * output


def diffusers_network(network: nn.Module, *, steps: int = 1000) -> nn.Module:
    """Return a network of diffusers as a network of ours, to be trained here.

        network(x, t) = diffusers(x, steps · t).sample,     x of shape (batch, channels, h, w)

    ScoreModel(diffusers_network(UNet2DModel(…)), VP(LinearBeta(0.1, 20.0))), and `train`. One with
    num_class_embeds = n + 1 knows n classes, whose last row is the label for none, as
    `label_dropout` trains it.

    Args:
        network: A `UNet2DModel` with as many channels out as in, or another module with the same
            face and configuration.
        steps: The timestep is this times what the parameterization tells of t: 1000 for t in
            [0, 1], as the network's embedding of times expects.

    Raises:
        TypeError: If network is no module, or steps no int.
        ValueError: If channels in and out differ, or it embeds one class alone.

    Example:
        >>> class Told(torch.nn.Module):  # with the face of diffusers: returns the timestep
        ...     def forward(self, x, timestep):
        ...         return x + timestep[:, None, None, None]
        >>> network = sg.diffusers_network(Told(), steps=1000)
        >>> network(torch.zeros(1, 1, 2, 2), torch.tensor([0.25])).max().item()
        250.0
    """
    check_kind("network", network, nn.Module, "a diffusers network, such as UNet2DModel(…)")
    check_count("steps", steps)
    config: Any = getattr(network, "config", SimpleNamespace())
    inside, outside = (getattr(config, f"{side}_channels", None) for side in ("in", "out"))
    if inside != outside:
        raise ValueError(
            f"network must put out what it is given, but has in_channels = {inside} and "
            f"out_channels = {outside}; make it with the same."
        )
    wrapped = DiffusersNetwork(network, factor=float(steps))
    rows = getattr(config, "num_class_embeds", None)
    if rows is None:
        return wrapped
    if rows < 2:
        raise ValueError(
            f"network has num_class_embeds = {rows}, of which the last is the label for none; "
            "make it with one more than there are classes."
        )
    return Conditional(wrapped, rows - 1, rows - 1)


def from_diffusers(
    network: _Network, scheduler: Scheduler, *, classes: int = 0, none: int | None = None
) -> ScoreModel:
    """Return a `ScoreModel` made of a network trained with diffusers.

        ∇ log p_t(x_t) = −ε̂/σ,     α² = ᾱ, σ² = 1 − ᾱ of the scheduler's timesteps

    Args:
        network: A `UNet2DModel`, or anything called as network(x, timestep) that returns a tensor
            or an object with `.sample`. One that wants a prompt is given as a function of
            (x, timestep) that has it inside.
        scheduler: The scheduler of its training, or any other made from its configuration.
        classes: Labels that it takes as `class_labels`, 0 for a network without;
            `model.conditional` tells them.
        none: Its own label for none, where it has one: `classes` itself for a DiT.

    Returns:
        The model, in evaluation mode, on the path of the training. It is sampled, and asked for
        likelihoods, like any other. Its file holds the weights and not the network:
        `ScoreModel.load(path, network=…)` takes the `.network` of this model.

    Raises:
        TypeError: If the scheduler is not one of diffusers, or of a kind from which no score
            follows, by name.
        ValueError: If its prediction type or its timesteps are unknown, or if no signal is left at
            a level other than the last.

    Example:
        >>> import diffusers
        >>> scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
        >>> alpha_bars = scheduler.alphas_cumprod
        >>> known = lambda x, k: (1 - alpha_bars[k.long()]).sqrt()[:, None] * x  # data N(0, 1)
        >>> model = sg.from_diffusers(known, scheduler)
        >>> model.score(torch.tensor([[2.0]]), torch.tensor(0.5))  # −ε̂/σ = −x
        tensor([[-2.]])
    """
    check_function("network", network, "called with (x, timestep)")
    check_order(network, "network")
    config: Any = getattr(scheduler, "config", None)
    names = {kind.__name__ for kind in type(scheduler).__mro__}  # theirs, and classes made of them
    if names & _EDM:
        model = _of_edm(network, config)
    elif names & _FLOW or (names & _DISCRETE and config.prediction_type == "flow_prediction"):
        model = _of_flow(network, config, type(scheduler).__name__)
    elif names & _DISCRETE:
        model = _of_alpha_bars(network, scheduler, config)
    else:
        known = sorted(word.removesuffix("Scheduler") for word in _DISCRETE | _FLOW | _EDM)
        raise TypeError(
            f"{type(scheduler).__name__} cannot be converted: it is not one of the schedulers "
            f"that say how a score follows from a network, {', '.join(known)}. If the network "
            "predicts the noise of a DDPM, pass the DDPMScheduler of its training."
        )
    if classes != 0:
        model.network = Conditional(model.network, classes, none)
    model.eval()
    return model


def _of_alpha_bars(network: _Network, scheduler: Scheduler, config: Any) -> ScoreModel:  # noqa: ANN401
    """Return the model of a network of integer timesteps and a table of ᾱ."""
    how = _known(getattr(config, "prediction_type", "epsilon"), _OF_ALPHA_BARS)
    if getattr(config, "timestep_type", "discrete") != "discrete":
        raise ValueError(
            f"{type(scheduler).__name__} with timestep_type = {config.timestep_type!r} tells its "
            "network a noise level, not a timestep; give the network as a denoiser D(x, σ) to "
            "from_denoiser."
        )
    table: Tensor = scheduler.alphas_cumprod  # type: ignore[attr-defined]
    if len(table) > 2 and float(table[-1]) in _NO_SIGNAL:
        table = table[:-1]  # zero terminal SNR: what is asked there tells x0, but no score
    beta = TabulatedBeta(table)
    learned = str(getattr(config, "variance_type", "")).startswith("learned")
    wrapped = DiffusersNetwork(
        network, factor=float(beta.steps), offset=-1.0, learned_variance=learned
    )
    return ScoreModel(wrapped, VP(beta, t_min=1 / beta.steps), how)


def _of_flow(network: _Network, config: Any, name: str) -> ScoreModel:  # noqa: ANN401
    """Return the model of a network of the velocity ε − x0; timesteps 0 … N are t in [0, 1]."""
    if getattr(config, "invert_sigmas", False):
        raise ValueError(
            f"{name} counts its noise from 1 down (invert_sigmas); give a network that turns time "
            f"and velocity round, lambda x, k: -network(x, {config.num_train_timesteps} - k), and "
            "a scheduler without it."
        )
    wrapped = DiffusersNetwork(network, factor=float(config.num_train_timesteps))
    return ScoreModel(wrapped, RectifiedFlow(), FlowPrediction())


def _of_edm(network: _Network, config: Any) -> ScoreModel:  # noqa: ANN401
    """Return the model of a network F of Karras et al., or of −F, diffusers' v_prediction."""
    sign = _known(config.prediction_type, {"epsilon": 1.0, "v_prediction": -1.0})
    path = EDM(t_min=config.sigma_min, t_max=config.sigma_max)
    how = EDMPrediction(config.sigma_data)
    return ScoreModel(DiffusersNetwork(network, sign=sign), path, how)


def _known(said: str | None, words: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return what stands for a prediction type; raises with the nearest word if it is unknown."""
    if said in words:
        return words[str(said)]
    known = {one: one for one in words} | {"velocity": "v_prediction", "noise": "epsilon"}
    close = difflib.get_close_matches(str(said), known, n=1)
    hint = f"; did you mean {known[close[0]]!r}?" if close else "."
    raise ValueError(f"prediction_type must be one of {', '.join(words)}, but is {said!r}{hint}")
