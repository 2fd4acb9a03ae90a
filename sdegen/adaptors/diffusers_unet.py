"""A model of ours as a network and a scheduler of diffusers.

A `ScoreModel` becomes a module with the face of a `UNet2DModel` that predicts ε,
and a `DDPMScheduler` with its noise levels. Any linear path will do: in x_t/√(α² + σ²) each is
variance-preserving, with ᾱ = α²/(α² + σ²).

**Tables.** diffusers keeps ᾱ in float32, and its numbers are taken as they are. `to_diffusers`
makes tables in float64; a scheduler that is made anew `from_config` has float32 ones again.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.adaptors.denoisers import conditioned_on
from sdegen.core.checks import check_count
from sdegen.core.optional import needed
from sdegen.core.requests import as_time_grid, check_kind
from sdegen.core.shapes import State, expand
from sdegen.diffusion.signal import check_signal
from sdegen.score.model import ScoreModel


@dataclass
class _Output:
    """What a diffusers network returns."""

    sample: Tensor


class DiffusersUNet(nn.Module):
    """A `ScoreModel` with the face of a diffusers `UNet2DModel` that predicts ε.

    Args:
        model: The model.
        times: The time of each timestep, increasing, shape (N,), float64.
        shape: Shape of one sample, (channels, height, width).
    """

    def __init__(self, model: ScoreModel, times: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.model: ScoreModel = model
        self.times: Tensor = times
        check_signal(model.path, "a table of levels")
        self.levels: Tensor = model.path.kernel.log_ratio(times)
        size = tuple(shape[1:])
        square = len(size) == 2 and size[0] == size[1]
        self.config: SimpleNamespace = SimpleNamespace(
            in_channels=shape[0], out_channels=shape[0], sample_size=size[0] if square else size
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
        return next(self.model.parameters(), torch.empty(0)).dtype

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.model.parameters(), torch.empty(0)).device

    def forward(
        self,
        sample: State,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> _Output | tuple[State]:
        """Return E[ε | x_t]; `.sample` has sample's shape.

        Args:
            sample: x_t/√(α² + σ²), shape (batch, *event).
            timestep: k in [0, N − 1], shape () or (batch,); a fraction is a noise level between.
            class_labels: Classes that a conditional model is told, shape () or (batch,); None, or
                the number `classes`, is none of them.
            return_dict: False returns a tuple, as diffusers has it.
        """
        t = self._time(torch.as_tensor(timestep, dtype=torch.float64, device="cpu"))
        sde = self.model.path
        t = t.to(sample) if t.ndim else t
        spread = (sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt()
        model = conditioned_on(self.model, "class_labels", class_labels)
        eps = model.eps(expand(spread, sample) * sample, t)
        return _Output(eps) if return_dict else (eps,)

    def _time(self, k: Tensor) -> Tensor:
        """Return the time of a timestep: from the table, or where log(σ/α) is as far between."""
        last = len(self.times) - 1
        if not bool(((k >= 0) & (k <= last)).all()):
            raise ValueError(
                f"timestep must lie in [0, {last}], the noise levels of this model, but is "
                f"{k.tolist()}."
            )
        if bool((k == k.round()).all()):
            return self.times[k.long()]
        left = k.floor().clamp(max=last - 1)
        level = torch.lerp(self.levels[left.long()], self.levels[left.long() + 1], k - left)
        return self.model.path.kernel.time_of_log_nsr(
            level, float(self.times[0]), float(self.times[-1])
        )


def to_diffusers(
    model: ScoreModel, shape: tuple[int, ...], steps: int = 1000, *, times: Tensor | None = None
) -> tuple[DiffusersUNet, Any]:
    """Return a diffusers network and scheduler, for its pipelines, made of a `ScoreModel`.

        ᾱ = α²/(α² + σ²) at the scheduler's times

    DDPMPipeline(*to_diffusers(model, (1, 28, 28))) draws images.

    Args:
        model: The model, on any Gaussian path.
        shape: Shape of one sample, (channels, height, width).
        steps: Noise levels N of the scheduler, at equal times from t_min to t_max.
        times: Or N times of your own, in either order: `timesteps.log_snr(sde, N − 1)`, say.

    Returns:
        The network, and a `DDPMScheduler` with ᾱ = α²/(α² + σ²) at these times, float64, without
        clipping. All other schedulers are made `from_config(scheduler.config)`, with float32
        tables, in which a 1 − ᾱ below 10⁻⁴ has lost digits.

    Raises:
        ImportError: If diffusers is not installed.
        TypeError: If steps is not an int.
        ValueError: If there are fewer than two times, or they are not monotone in [t_min, t_max].

    Example:
        >>> import diffusers
        >>> path = sg.VP(sg.ConstantBeta(2.0))  # α = e^−t
        >>> model = sg.ScoreModel(sg.UNet(width=4, rng=0), path)
        >>> times = torch.tensor([0.1, 0.5, 1.0])
        >>> network, scheduler = sg.to_diffusers(model, (1, 8, 8), times=times)
        >>> [f"{level:.4f}" for level in scheduler.alphas_cumprod.tolist()]  # e^−2t
        ['0.8187', '0.3679', '0.1353']
    """
    check_kind("model", model, ScoreModel, "a ScoreModel")
    check_kind("shape", shape, (tuple, list), "that of one sample, (channels, height, width)")
    if not shape:
        raise ValueError("shape must be that of one sample, (channels, height, width).")
    for size in shape:
        check_count("shape", size)
    diffusers = needed("diffusers", "to_diffusers", extra="diffusers")
    sde = model.path
    if times is None:
        check_count("steps", steps, least=2)
        times = sde.time_grid(steps - 1)
    nodes = as_time_grid(times)
    nodes = nodes.flip(0) if nodes[0] > nodes[-1] else nodes
    if nodes[0] < sde.t_min * (1 - 1e-7) or nodes[-1] > sde.t_max * (1 + 1e-7):
        raise ValueError(
            f"times must be monotone within [t_min, t_max] = [{sde.t_min:g}, {sde.t_max:g}], but "
            f"span {nodes[0]:g} … {nodes[-1]:g}; pass sde.time_grid(steps)."
        )
    unet = DiffusersUNet(model, nodes, tuple(shape))
    log_alpha_bars = torch.nn.functional.logsigmoid(-2 * unet.levels)
    before = torch.cat([log_alpha_bars.new_zeros(1), log_alpha_bars[:-1]])
    betas = -torch.expm1(log_alpha_bars - before)
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=len(nodes),
        trained_betas=betas.tolist(),
        clip_sample=False,
        prediction_type="epsilon",
    )
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = log_alpha_bars.exp()
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return unet, scheduler
