"""Problems of the sampler benchmark: mixtures with exact scores and flows, and trained models.

A mixture in d dimensions has five components of one covariance, uncorrelated, whose standard
deviations fall geometrically by a factor of 8 from the first coordinate to the last: data have
wide and narrow directions. Their means are drawn so that two of them are about 4 standard
deviations apart, by seed 1000 + d; the whole is then shifted and scaled to mean 0 and unit
variance, as data for a VP-SDE should be. Grid rule and members were chosen on mixtures of other
seeds: nobody had looked at these before they were published.
"far modes" is another kind: three round ones in the plane, 7 to 20 standard deviations apart,
whose flow all but jumps between them, so that a root-mean-square counts the few starts that end in
the wrong mode.

Starts are exact samples of p at t_max. The exact flow to t_min is dopri8 at 10⁻¹⁰ per step.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

import sdegen as sg

__all__ = ["FAR", "SDE", "TIGHT", "Problem", "digits_model", "mixture", "moons_model", "problem"]

SDE = sg.VP(sg.LinearBeta(0.1, 20.0))
TIGHT = sg.TorchDiffEq("dopri8", rtol=1e-10, atol=1e-10)
FAR = "2, far modes"
_COMPONENTS, _APART, _SPREAD = 5, 4.0, 8.0


@dataclass(frozen=True)
class Problem:
    """A law, its probability flow, starts, and where the exact flow takes them."""

    law: sg.GaussianMixture
    score: object
    flow: sg.ReverseSDE
    x_T: torch.Tensor
    exact: torch.Tensor

    def distance(self, x):
        """√(mean |x − exact|²), the Euclidean distance of whole states; inf if not finite."""
        off = float((x - self.exact).square().sum(1).mean().sqrt())
        return off if math.isfinite(off) else math.inf

    def starts(self, n, seed):
        """Other starts, for a pilot batch."""
        return _starts(self.law.noised(SDE), n, seed)


def mixture(dim, seed=1000):
    """The mixture in so many dimensions, or the one of far modes; its means by seed + dim."""
    if dim == FAR:
        return sg.GaussianMixture(
            [0.3, 0.5, 0.2], [[-1.0, 0.0], [1.0, 0.5], [0.0, -1.0]], stds=[0.15, 0.25, 0.1]
        )
    rng = torch.Generator().manual_seed(seed + dim)
    weights = 0.5 + torch.rand(_COMPONENTS, generator=rng, dtype=torch.float64)
    weights = weights / weights.sum()
    stds = (1 / _SPREAD) ** torch.linspace(0, 1, dim, dtype=torch.float64)
    means = torch.randn(_COMPONENTS, dim, generator=rng, dtype=torch.float64)
    means = means * stds * _APART / math.sqrt(2 * dim)
    means = means - weights @ means
    scale = (weights @ means.square() + stds**2).mean().sqrt()
    covariances = torch.diag((stds / scale) ** 2).expand(_COMPONENTS, dim, dim)
    return sg.GaussianMixture(weights, means / scale, covariances=covariances)


@functools.cache
def problem(dim, starts):
    """The problem in so many dimensions."""
    law = mixture(dim)
    oracle = law.noised(SDE)
    x_T = _starts(oracle, starts, 0)
    flow = sg.ReverseSDE(SDE, oracle.score, eta=0.0)
    exact = sg.simulate(flow, x_T, SDE.time_grid(1), solver=TIGHT, keep_path=False).final
    return Problem(law, oracle.score, flow, x_T, exact)


def _starts(oracle, n, seed):
    t = torch.tensor(SDE.t_max, dtype=torch.float64)
    return oracle.sample(n, t, rng=seed, dtype=torch.float64)


def moons_model(steps):
    """Two moons, scaled to unit variance, and a score trained on the first half of them."""
    data = sg.data.two_moons(20_000, rng=0)
    data = (data - data.mean(0)) / data.std(0)
    half = len(data) // 2
    model = sg.ScoreModel(sg.MLP(dim=2, rng=0), SDE, sg.EpsPrediction())
    sg.train(model, data[:half], sg.TrainConfig(steps=steps), rng=0)
    return model, data[:half], data[half:]


def digits_model(steps, width):
    """Handwritten digits, the recipe of the demonstration, and its score."""
    images = sg.data.digits(rng=0)
    model = sg.ScoreModel(sg.MLP(64, width=width, rng=0), SDE, sg.VPrediction())
    config = sg.TrainConfig(
        steps=steps, batch_size=256, learning_rate=2e-3, weight_decay=1.0, weighting="simple",
        keep="best", validate_every=min(100, steps),
    )  # fmt: skip
    sg.train(
        model, images.train, config, rng=0, validation=images.validation,
        augment=sg.data.redequantise,
    )  # fmt: skip
    return model, images
