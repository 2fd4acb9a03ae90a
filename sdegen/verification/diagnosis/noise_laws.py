"""Noise of another law: uniform, of two values, with heavy tails.

Each law has its density, and its distribution function, by which what follows it becomes normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from sdegen.verification.diagnosis.model import (
    TWICE,
    Alternative,
    Fitted,
    log_normal,
    with_noise,
)
from sdegen.verification.diagnosis.transitions import Evaluation, Transitions

_NEVER = -40.0  # log-density where a law has none
_ROOT_THREE = math.sqrt(3.0)
_DEGREES = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 30.0)


@dataclass(frozen=True)
class Law:
    """A law of the numbers that are drawn: a density and a distribution function."""

    log_density: Callable[[Tensor], Tensor]
    cdf: Callable[[Tensor], Tensor]


def noise_law_alternatives() -> list[Alternative]:
    """Return the laws that are drawn from by mistake."""
    return [
        _fixed("uniform noise of unit variance", "the noise were uniform, of the right variance",
               _uniform(-_ROOT_THREE, _ROOT_THREE)),
        _fixed("uniform noise on [−1, 1]", "the noise were uniform on [−1, 1]", _uniform(-1, 1)),
        _fixed("uniform noise on [0, 1]", "the noise were uniform on [0, 1]", _uniform(0, 1)),
        _fixed("uniform noise on [−½, ½]", "the noise were uniform on [−½, ½]",
               _uniform(-0.5, 0.5)),
        Alternative("noise of two values", "noise law", "", _two_values),
        Alternative("noise of three values", "noise law",
                    "the noise were ±√3 and 0, with chances 1/6, 1/6 and 2/3", _three_values),
        _fixed("Laplace noise of unit variance", "the noise had Laplace's law of unit variance",
               _scipy(stats.laplace(scale=math.sqrt(0.5)))),
        _fixed("Laplace noise of unit scale", "the noise had Laplace's law of scale 1",
               _scipy(stats.laplace())),
        _fixed("logistic noise", "the noise had the logistic law",
               _scipy(stats.logistic(scale=_ROOT_THREE / math.pi))),
        _fixed("exponential noise", "the noise were exponential, less its mean",
               _scipy(stats.expon(loc=-1))),
        _fixed("noise of one sign", "the noise were positive, |z| for z",
               _scipy(stats.halfnorm())),
        _fixed("noise a sum of twelve uniforms", "the noise were a sum of twelve uniform numbers",
               _irwin_hall(12)),
        _fixed("noise a sum of two uniforms", "the noise were a sum of two uniform numbers",
               _irwin_hall(2)),
        _fixed("noise a product of two normals", "the noise were a product of two normals",
               Law(_log_of_product, _below_product)),
        Alternative("Student noise", "noise law", "the noise had heavy tails", _student),
        Alternative("noise cut off", "noise law", "large numbers of the noise were cut", _cut),
    ]  # fmt: skip


def _fixed(name: str, words: str, law: Law) -> Alternative:
    return Alternative(name, "noise law", words, lambda data: _fit(data, law))


def _fit(
    data: Transitions, law: Law, parameters: int = 0, charge: float = 0.0,
    value: float | None = None, words: str = "",
) -> Fitted | None:  # fmt: skip
    """Return what a law of all numbers gains."""
    z = data.base.z
    if z.shape[2] == 0:
        return None
    mask = data.base.judged[..., None]
    ratio = law.log_density(z).clamp(min=_NEVER) - log_normal(z)
    gain = float(torch.where(mask, ratio, 0.0).sum())

    def residual() -> Evaluation:
        u = law.cdf(z).clamp(1e-16, 1 - 1e-16)
        return with_noise(data, torch.special.ndtri(u), ratio)

    return Fitted(gain, residual, parameters, charge, value, None, words)


def _scipy(law: object) -> Law:
    """Return a law of scipy."""

    def of(name: str) -> Callable[[Tensor], Tensor]:
        return lambda z: torch.from_numpy(np.asarray(getattr(law, name)(z.numpy())))

    return Law(of("logpdf"), of("cdf"))


def _uniform(low: float, high: float) -> Law:
    margin = 1e-3 * (high - low)  # states are rounded

    def log_density(z: Tensor) -> Tensor:
        inside = (z >= low - margin) & (z <= high + margin)
        return torch.where(inside, -math.log(high - low), _NEVER).double()

    return Law(log_density, lambda z: ((z - low) / (high - low)).clamp(1e-9, 1 - 1e-9))


def _irwin_hall(count: int) -> Law:
    """Return the law of a sum of uniform numbers, of unit variance, by convolution."""
    nodes = 2**11
    one = np.full(nodes, 1.0)
    density, width = one, 1.0 / nodes
    for _ in range(count - 1):
        density = np.convolve(density, one) * width
    edges = (np.arange(len(density) + 1) + 0.5 * (count - 1)) * width
    scale = math.sqrt(12 / count)
    middle = (0.5 * (edges[1:] + edges[:-1]) - 0.5 * count) * scale
    mass = density / density.sum()
    log_p = np.log(np.maximum(mass / (width * scale), 1e-17))
    below = np.cumsum(mass) - 0.5 * mass

    def read(values: np.ndarray, left: float, right: float) -> Callable[[Tensor], Tensor]:
        return lambda z: torch.from_numpy(np.interp(z.numpy(), middle, values, left, right))

    return Law(read(log_p, _NEVER, _NEVER), read(below, 0.0, 1.0))


def _log_of_product(z: Tensor) -> Tensor:
    """Return log K₀(|z|)/π, the density of the product of two normals."""
    size = z.abs().clamp(min=1e-12).numpy()
    return torch.from_numpy(np.log(special.k0e(size)) - size - math.log(math.pi))


def _below_product(z: Tensor) -> Tensor:
    """Return ½ + sign z ∫₀^|z| K₀/π."""
    part = special.iti0k0(z.abs().numpy())[1] / math.pi
    return 0.5 + z.sign() * torch.from_numpy(np.minimum(part, 0.5))


def _student(data: Transitions) -> Fitted | None:
    """Fit the degrees of freedom, of unit scale or of unit variance."""
    some = data.base.z.flatten()[:20_000]
    tried = [(nu, 1.0) for nu in _DEGREES]
    tried += [(nu, math.sqrt((nu - 2) / nu)) for nu in _DEGREES if nu > 2]
    nu, scale = max(tried, key=lambda t: float(np.sum(stats.t(t[0], scale=t[1]).logpdf(some))))
    words = (
        f"the noise had Student's law of {nu:g} degrees of freedom, with heavy tails"
        f"{'' if scale == 1.0 else ', of the right variance'}"
    )
    return _fit(data, _scipy(stats.t(nu, scale=scale)), 0, math.log(len(tried)), nu, words)


def _cut(data: Transitions) -> Fitted | None:
    """Fit a level at which numbers are drawn again."""
    z = data.base.z
    if z.numel() < 1000:
        return None
    level = float(z.abs().max()) * (1 + 1e-9)
    if not 0.5 < level < 4.5:
        return None
    law = stats.truncnorm(-level, level)
    words = f"numbers of the noise beyond ±{level:.3g} were drawn again"
    return _fit(data, _scipy(law), 1, 0.0, level, words)


def _two_values(data: Transitions) -> Fitted | None:
    """Fit |z| = 1, or another constant."""
    return _atoms(data, (-1.0, 1.0), (0.5, 0.5), "the noise were +1 or −1")


def _three_values(data: Transitions) -> Fitted | None:
    """Return z = 0, ±√3, of the weak method."""
    return _atoms(data, (-_ROOT_THREE, 0.0, _ROOT_THREE), (1 / 6, 2 / 3, 1 / 6), "")


def _atoms(
    data: Transitions, values: tuple[float, ...], chances: tuple[float, ...], words: str
) -> Fitted | None:
    """Return noise of few values, to rounding."""
    z, k = data.base.z, data.base.z.shape[2]
    width = data.resolution
    if k == 0 or width > 0.05:
        return None
    atoms = torch.tensor(values, dtype=torch.float64)
    distance, which = (z[..., None] - atoms).abs().min(-1)
    chance = torch.tensor(chances, dtype=torch.float64)
    log_p = torch.where(
        distance <= width, chance[which].log() - math.log(2 * width), torch.tensor(_NEVER).double()
    )
    ratio = log_p - log_normal(z)
    gain = float(torch.where(data.base.judged[..., None], ratio, 0.0).sum())
    below = torch.cat([torch.zeros(1, dtype=torch.float64), chance.cumsum(0)])[which]

    def residual() -> Evaluation:
        u = torch.rand(z.shape, generator=data.fresh, dtype=torch.float64)
        share = (below + u * chance[which]).clamp(1e-16, 1 - 1e-16)
        return with_noise(data, torch.special.ndtri(share), ratio)

    return Fitted(gain, residual, words=words, excused=(TWICE,))
