"""The update with one of its parts taken out: what each is for, on two moons.

    x_{k+1} = x_k + dt f_θ(x_k, t_k) + √dt g_θ(t_k) z_k,      k = 0 … 99, dt = 1/100, x_0 ~ N(0, I)

    the whole    as above
    noise off    x_{k+1} = x_k + dt f_θ(x_k, t_k): steps of an ordinary differential equation
    drift off    x_{k+1} = x_k + √dt g_θ(t_k) z_k
    X_t off      x_{k+1} = dt f_θ(x_k, t_k) + √dt g_θ(t_k) z_k: a noisy recurrent network

All four are trained alike, end to end: gradients of the energy distance, a proper score, of the
ends of the chains to data go back through all 100 steps. Each has the better of two learning
rates. The whole has a second training, denoising score matching, which it alone allows, and the
one without noise flow matching; both stand in the table of models.

A gradient that reaches x_0 is compared with the one at x_100: ‖Jᵀ v‖/‖v‖ of J = ∂x_100/∂x_0 and
random v, before training and after it. A mode is covered if it has a quarter of its share of the
samples, of chains that begin at N(0, I), as they are trained, or all at 0.
"""

import copy
import time

import torch
from torch import nn

import sdegen as sg
from benchmarks.held_out import moons

STEPS = 100
WITHOUT = ("the whole", "noise off", "drift off", "X_t off")


class Chain(nn.Module):
    """A hundred steps of the update, or of what is left of it."""

    def __init__(self, without):
        super().__init__()
        self.without = without
        self.drift = sg.variational.Perceptron(3, 2, width=32, rng=0)
        self.log_g = nn.Parameter(torch.zeros(STEPS))

    def forward(self, x, normal):
        """Return the ends of chains that begin at x."""
        dt = 1 / STEPS
        for k in range(STEPS):
            after = torch.zeros_like(x) if self.without == "X_t off" else x
            if self.without != "drift off":
                t = torch.full_like(x[:, :1], k * dt)
                after = sg.update(after, self.drift(torch.cat([x, t], 1)), dt)
            if self.without != "noise off":
                after = after + dt**0.5 * self.log_g[k].exp() * normal(x)
            x = after
        return x


class EnergyScore(sg.Loss):
    """The energy distance of a batch of ends to a batch of data, up to a constant."""

    def __call__(self, module, batch, noise):
        x = module(noise.normal_like(batch.rows), noise.normal_like)
        return _energy_score(x, batch.rows)


def _energy_score(x, data):
    n = len(x)
    apart = (x[:, None] - x).square().sum(2).add(1e-12).sqrt()
    return 2 * torch.cdist(x, data).mean() - apart.sum() / (n * (n - 1))


def _normal(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def carried(chain):
    """‖Jᵀ v‖/‖v‖ in the median over 500 chains."""
    chain, normal = copy.deepcopy(chain).double(), _normal(0)  # of what is below 1e-38 too
    x_0 = normal(torch.empty(500, 2, dtype=torch.float64)).requires_grad_()
    end = chain(x_0, normal)
    v = normal(end)
    (back,) = torch.autograd.grad((end * v).sum(), x_0, allow_unused=True, materialize_grads=True)
    return float((back.norm(dim=1) / v.norm(dim=1)).median())


def covered(law, samples):
    """How many of the modes have a quarter of their share of the samples."""
    nearest = torch.cdist(samples.double(), law.means.double()).argmin(1)
    counts = torch.bincount(nearest, minlength=len(law.means))
    return int((counts >= 0.25 * len(samples) / len(law.means)).sum())


def rows(quick):
    """One row for each part that is taken out."""
    law = moons()
    data, unseen = law.sample(20_000, rng=1), law.sample(4_000, rng=2)
    found = []
    for without in WITHOUT:
        begun, best = time.process_time(), None
        before = carried(Chain(without))
        for rate in (3e-3, 3e-2)[: 1 if quick else 2]:
            chain, steps = Chain(without), 2 if quick else 200
            config = sg.FitConfig(
                steps, batch_size=256, learning_rate=rate, warmup=0, ema_decay=0.8
            )
            result = sg.fit(chain, data, EnergyScore(), config, rng=0)
            last = float(result.losses[-10:].mean())
            if best is None or last < best[0]:
                best = last, rate, chain
        with torch.no_grad():
            normal = _normal(1)
            made = best[2](normal(torch.empty(4_000, 2)), normal)
            from_zero = best[2](torch.zeros(4_000, 2), normal)
        distance = sg.metrics.sliced_wasserstein(made, unseen)
        found.append(
            {
                "part taken out": without,
                "learning rate": best[1],
                "CPU seconds": time.process_time() - begun,
                "gradient at x_0 over that at x_100, untrained": before,
                "trained": carried(best[2]),
                "sliced W2": distance,
                "of fresh data": sg.metrics.sliced_wasserstein(law.sample(4_000, rng=3), unseen),
                "energy distance": sg.metrics.energy_distance(made, unseen),
                "modes covered, of 24": covered(law, made),
                "from x_0 = 0": covered(law, from_zero),
                "nearest data, mean distance": sg.metrics.nearest_distance(made, unseen),
            }
        )
        print(found[-1], flush=True)
    return found
