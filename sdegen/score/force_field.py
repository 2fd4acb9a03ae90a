"""The force field of samples in equilibrium: f = D ∇log p, with the score learned of them.

    dX = f dt + √(2D) dW at rest without a current:    f = D ∇log p,    p the law of the samples

A number or a matrix D is what samples at one time do not tell: the same law rests under every D,
with forces D times as large. Where a current flows, D ∇log p is not the force; the difference is
`local_velocity`.

**How.** The samples are parted in two halves. On each a network learns the score by implicit
score matching, which smooths nothing, and the averaged weights are kept that are best on the
other half. The answer is the mean of the two.

**Its error** is estimated by half of the distance of the two, √(E‖f₁ − f₂‖²)/2 over √(E‖f‖²),
under the law of the samples: what other samples and other weights would change. What both
networks cannot represent is not in it.

Reference:
    Hyvärinen 2005, theorem 1, JMLR 6, 695.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_numbers, as_state, check_kind, kind_of
from sdegen.core.shapes import State, Time
from sdegen.diffusion.gaussian_path import VE
from sdegen.diffusion.schedules import GeometricSigma
from sdegen.score.losses import ImplicitLoss, SlicedLoss
from sdegen.score.model import ScoreModel
from sdegen.score.networks import MLP
from sdegen.training.config import FitConfig
from sdegen.training.fitting import fit

_FEWEST = 64  # samples
_PATH, _AT = VE(GeometricSigma(0.5, 2.0)), 0.5  # a time of the network at which its σ is 1.3
_MOST = 8  # numbers of a state whose divergence is exact
_WIDTH, _DEPTH = 64, 2
CONFIG = FitConfig(steps=2_000, batch_size=512, keep="best", validate_every=100)


@dataclass(frozen=True, eq=False)
class ForceField:
    """The force field of samples, called with states (batch, d).

        f(x) = D ∇log p(x)

    Attributes:
        halves: A score of each half of the samples, of states (x − mean)/std.
        mean: Of the samples, shape (d,).
        std: Their standard deviations, shape (d,).
        diffusivity: D, shape (d, d).
        error: Estimated relative error, √(E‖δf‖²/E‖f‖²) under the law of the samples.

    Example:
        >>> x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> quick = sg.FitConfig(steps=20, keep="best", validate_every=10)
        >>> force = sg.force_field(x, 0.5, config=quick, rng=0)
        >>> torch.equal(force(x), 0.5 * force.score(x)), len(force.halves)  # D ∇log p, of two fits
        (True, 2)
    """

    halves: tuple[ScoreModel, ScoreModel]
    mean: Tensor
    std: Tensor
    diffusivity: Tensor
    error: float

    def __call__(self, x: State, t: Time | float = 0.0) -> State:
        """Return D ∇log p, shape of x, (batch, d), at every t: it may stand for a drift."""
        return self.score(x, t) @ self.diffusivity.to(x).T

    def score(self, x: State, t: Time | float = 0.0) -> State:
        """Return ∇log p of the samples, shape of x, (batch, d)."""
        first, second = self.scores(x)
        return 0.5 * (first + second)

    def scores(self, x: State) -> tuple[State, State]:
        """Return the score as each half of the samples has it, shape of x."""
        x = as_state("x", x)
        if x.shape[1:] != self.mean.shape:
            raise ValueError(
                f"x must have shape (batch, {len(self.mean)}), as the samples have it, but has "
                f"{tuple(x.shape)}."
            )
        scaled, std = (x - self.mean.to(x)) / self.std.to(x), self.std.to(x)
        first, second = (half.score(scaled, _AT) / std for half in self.halves)
        return first, second


def force_field(
    samples: State,
    diffusivity: float | Tensor,
    *,
    config: FitConfig | None = None,
    rng: Rng = None,
) -> ForceField:
    """Learn f = D ∇log p of independent samples in equilibrium.

    Args:
        samples: Shape (n, d), n ≥ 64, of a smooth density that falls off at infinity.
        diffusivity: D > 0, a number, one for each coordinate, or a matrix, symmetric and positive.
        config: How each half is trained; None is 2,000 steps of 512 rows, keep="best".
        rng: Seed, generator or None.

    Returns:
        The force, a function of x, with its error.

    Raises:
        TypeError: If an argument is of another kind; D may not be a function of x.
        ValueError: If samples are too few, not finite or constant in a coordinate, or D is not
            positive.

    Example:
        >>> x = torch.randn(4_000, 1, generator=torch.Generator().manual_seed(0))
        >>> quick = sg.FitConfig(steps=200, keep="best", validate_every=50)
        >>> force = sg.force_field(x, 0.5, config=quick, rng=0)  # of a trap, −x/2
        >>> bool((force(torch.tensor([[1.0]])) + 0.5).abs() < 0.1)
        True
    """
    x = _checked_samples(samples)
    D = _checked_diffusivity(diffusivity, x.shape[1])
    check_kind("config", config, (FitConfig, type(None)), "a FitConfig or None")
    config = CONFIG if config is None else config
    source = stream(rng, "force field")
    mean, std = x.mean(0), x.std(0)
    order = torch.randperm(len(x), generator=source.generator())
    scaled = ((x - mean) / std)[order.to(x.device)]
    parts = scaled[: len(x) // 2], scaled[len(x) // 2 :]
    loss = ImplicitLoss(at=_AT) if x.shape[1] <= _MOST else SlicedLoss(at=_AT)
    halves = []
    for k, (mine, other) in enumerate((parts, parts[::-1])):
        own = source.child(f"half {k}")
        network = MLP(x.shape[1], _WIDTH, _DEPTH, rng=own.generator())
        model = ScoreModel(network.to(x.device), _PATH)
        fit(model, mine, loss, config, rng=own.generator(), validation=other)
        halves.append(model)
    field = ForceField((halves[0], halves[1]), mean, std, D, 0.0)
    with torch.no_grad():
        first, second = (s @ D.to(s).T for s in field.scores(x))
    apart = float((first - second).square().sum(1).mean() / 4)
    size = float((0.5 * (first + second)).square().sum(1).mean())
    return ForceField((halves[0], halves[1]), mean, std, D, (apart / size) ** 0.5)


def _checked_samples(samples: object) -> Tensor:
    """Return samples, or refuse what a score cannot be learned from."""
    x = as_state("samples", samples)
    if x.ndim != 2 or not x.is_floating_point() or len(x) < _FEWEST:
        raise ValueError(
            f"samples must be floats of shape (n, d) with n ≥ {_FEWEST}, but are {kind_of(x)} of "
            f"{x.dtype}."
        )
    if not bool(x.isfinite().all()):
        raise ValueError(
            f"samples must be finite, but {int((~x.isfinite()).any(1).sum())} of {len(x)} are not."
        )
    still = (x.std(0) == 0).nonzero()
    if len(still):
        raise ValueError(
            f"samples must vary in every coordinate, but coordinate {int(still[0])} is always "
            f"{float(x[0, still[0]]):g}: nothing is told of a force there."
        )
    return x


def _checked_diffusivity(diffusivity: object, d: int) -> Tensor:
    """Return D as a matrix, or refuse what is none."""
    D = as_numbers("diffusivity", diffusivity, expected="a number D > 0, d of them or a matrix")
    if D.shape not in ((), (d,), (d, d)):
        raise ValueError(
            f"diffusivity must be a number or have shape ({d},) or ({d}, {d}), as samples have "
            f"{d} coordinates, but has {tuple(D.shape)}."
        )
    D = D.double().cpu()
    D = D if D.ndim == 2 else D.expand(d).diag()
    if not bool(D.isfinite().all()) or not torch.allclose(D, D.T) or not _is_positive(D):
        raise ValueError(
            f"diffusivity must be symmetric and positive, D = g gᵀ/2, but is {D.tolist()}."
        )
    return D


def _is_positive(D: Tensor) -> bool:
    return bool((torch.linalg.eigvalsh(D) > 0).all())
