"""The law of a chain that remembers, against the moments of its answer to every draw."""

import numpy as np
import pytest
import torch
from exact import noised_gaussian, normal_density, walked

import sdegen as sg
from sdegen.core.update import update
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.diffusion.samplers.multistep import (
    ExponentialAdams,
    ExponentialAdamsMoulton,
    Multistep,
)
from sdegen.verification.chain import ChainDensity
from sdegen.verification.distances import total_variation

VP, NOISED = noised_gaussian(mean=1.0, std=0.5, t_min=1e-2)
GRID = sg.Grid(-9.0, 9.0, cells=500)


class AdamsBashforth(Multistep):
    """x' = x + dt (3/2 f − ½ f_before) + √|dt| g z on a ReverseSDE; told and taken."""

    depth = 2

    def weights(self, i):
        return (1.0,) if i == 0 else (1.5, -0.5)

    def coefficients(self, sde, nodes):
        one, dt = torch.ones(1, 1, dtype=torch.float64), nodes.diff()
        states, scores = (torch.zeros(len(dt), self.depth).double() for _ in range(2))
        noise = torch.zeros(len(dt), dtype=torch.float64)
        for i, t in enumerate(nodes[:-1]):
            noise[i] = dt[i].abs().sqrt() * sde.diffusion(one, t)
            for j, weight in enumerate(self.weights(i)):
                g = sde.forward.diffusion(one, nodes[i - j])
                states[i, j] = weight * dt[i] * sde.forward.drift(one, nodes[i - j])[0, 0]
                scores[i, j] = -weight * dt[i] * 0.5 * (1 + sde.eta**2) * g * g
        return Coefficients(torch.ones_like(dt), states, scores, noise)

    def begin(self, sde, nodes):
        return nodes, {}

    def step(self, sde, x, i, noise, memory):
        nodes, past = memory
        past = past | {i: sde.drift(x, nodes[i])}
        f = sum(weight * past[i - j] for j, weight in enumerate(self.weights(i)))
        dt = nodes[i + 1] - nodes[i]
        after = update(x, f, dt)
        if noise is not None:
            after = sde.add_noise(after, x, nodes[i], dt.abs().sqrt(), noise)
        return after, (nodes, past)


class ThreeStep(AdamsBashforth):
    depth = 3

    def weights(self, i):
        return super().weights(i) if i < 2 else (23 / 12, -16 / 12, 5 / 12)


def moments(solver, sde, times, mean, var):
    """Mean and variance at each time of a chain that is affine in its start and its draws.

    Row 0 of a batch starts at 0 and draws nothing, row 1 starts at 1, and each other row draws 1
    in one step: what the solver makes of them is the answer to each.
    """
    nodes = solver.nodes(times)
    steps = len(nodes) - 1
    x = torch.zeros(steps + 2, 1, dtype=torch.float64)
    x[1] = 1.0
    draws = torch.eye(steps + 2, dtype=torch.float64)[2:, :, None]
    x = walked(solver, sde, nodes, x, None if sde.noise == "none" else draws)
    x = x[:: solver.substeps, :, 0]
    answer = x - x[:, :1]
    spread = answer[:, 1] ** 2 * var + (answer[:, 2:] ** 2).sum(1)
    return (x[:, 0] + answer[:, 1] * mean).tolist(), spread.tolist()


@pytest.mark.parametrize(
    ("solver", "eta", "steps"),
    [
        (AdamsBashforth(), 1.0, 15),
        (AdamsBashforth(substeps=2), 1.0, 10),
        (AdamsBashforth(), 0.6, 10),
        (AdamsBashforth(), 0.0, 6),
        (AdamsBashforth(), 0.0, 20),
        (ThreeStep(), 0.0, 20),
        (ExponentialAdams(2, "x0"), 1.0, 10),
        (ExponentialAdams(2, "eps"), 0.5, 10),
        (ExponentialAdams(2, "x0", rule="midpoint"), 1.0, 10),
        (ExponentialAdams(1, "x0"), 1.0, 10),
        (ExponentialAdamsMoulton(2, "x0"), 1.0, 10),
        (ExponentialAdams(3, "eps"), 0.0, 10),
        (ExponentialAdams(4, "x0"), 0.0, 10),
        (ExponentialAdamsMoulton(3, "x0"), 0.0, 10),
        (ExponentialAdamsMoulton(4, "v"), 0.0, 10),
    ],
    ids=lambda value: str(value).replace("Exponential", ""),
)
def test_with_an_exact_gaussian_score_it_is_the_gaussian_of_its_moments(solver, eta, steps):
    reverse, times = sg.ReverseSDE(VP, NOISED.score, eta), VP.time_grid(steps)
    law = ChainDensity(reverse, GRID, solver).run(GRID.gaussian(0.0, 1.0), times)
    means, variances = moments(solver, reverse, times, 0.0, 1.0)
    for k in range(1, steps + 1):
        exact = normal_density(GRID.nodes.numpy(), means[k], variances[k])
        assert np.abs(law.at(k).p.numpy() - exact).max() < 1e-10


def test_a_start_at_a_point():
    reverse, times = sg.ReverseSDE(VP, NOISED.score), VP.time_grid(15)
    law = ChainDensity(reverse, GRID, AdamsBashforth()).run(0.7, times)
    means, variances = moments(AdamsBashforth(), reverse, times, 0.7, 0.0)
    for k in range(1, 16):
        exact = normal_density(GRID.nodes.numpy(), means[k], variances[k])
        assert np.abs(law.at(k).p.numpy() - exact).max() < 1e-10


MIXTURE = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.25)


@pytest.mark.slow
def test_on_a_mixture_it_converges_with_the_grid_and_trajectories_follow_it():
    """10⁵ trajectories; Kolmogorov–Smirnov at a false-alarm rate of 1e-5."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
    reverse, times = sg.ReverseSDE(sde, MIXTURE.noised(sde).score), sde.time_grid(12)
    laws = {}
    for cells in (400, 600, 800):
        grid = sg.Grid(-7.5, 7.5, cells)
        chain = ChainDensity(reverse, grid, AdamsBashforth())
        laws[cells] = chain.run(grid.gaussian(0.0, 1.0), times).final
    gap = [float((laws[c].p[:: c // 200] - laws[800].p[::4]).abs().max()) for c in (400, 600)]
    assert gap[0] < 1e-7
    assert gap[1] < 1e-9
    path = sg.simulate(
        reverse,
        sde.prior((100_000, 1), rng=0, dtype=torch.float64),
        times,
        solver=AdamsBashforth(),
        rng=1,
        keep_path=False,
    )
    u = laws[800].cdf(path.final[:, 0]).sort().values
    steps = torch.arange(100_001, dtype=torch.float64) / 100_000
    gap = float(torch.maximum(steps[1:] - u, u - steps[:-1]).max())
    assert gap * 100_000**0.5 < 2.470
    # and the two-step law is not that of the one-step method
    one = ChainDensity(reverse, grid).run(grid.gaussian(0.0, 1.0), times)
    assert total_variation(one.final, laws[800]) > 0.02


def test_what_is_not_built_is_refused_by_name():
    reverse, times = sg.ReverseSDE(VP, NOISED.score), VP.time_grid(10)
    flow = sg.ReverseSDE(VP, NOISED.score, 0.0)
    start = GRID.gaussian(0.0, 1.0)
    with pytest.raises(ValueError, match="ThreeStep remembers 2 states, and with noise the law"):
        ChainDensity(reverse, GRID, ThreeStep()).run(start, times)
    with pytest.raises(ValueError, match="a start at a point stays a point"):
        ChainDensity(flow, GRID, AdamsBashforth()).run(0.5, times)
    coarse = sg.Grid(-9.0, 9.0, 80)
    with pytest.raises(ValueError, match=r"step \d+ of AdamsBashforth, at .*too coarse"):
        ChainDensity(reverse, coarse, AdamsBashforth()).run(
            coarse.gaussian(0.0, 1.0), VP.time_grid(40)
        )
