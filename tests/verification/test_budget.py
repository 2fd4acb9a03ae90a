"""The error budget: all four parts of a Gaussian are known; causes do not mix."""

import itertools
import math

import numpy as np
import pytest
import torch
from exact import (
    affine_run_moments,
    linear_chain_moments,
    noised_gaussian,
    normal_density,
)
from scipy.integrate import solve_ivp

import sdegen as sg
from sdegen.diffusion.samplers.multistep import ExponentialAdams
from sdegen.verification.budget import error_budget, error_budgets
from sdegen.verification.chain import ChainDensity
from sdegen.verification.characteristics import carried_by_flow

VP, NOISED = noised_gaussian(mean=0.6, std=0.5)
GRID, COARSE = sg.Grid(-8.0, 8.0, cells=320), sg.Grid(-8.0, 8.0, cells=160)
FACTOR = 1.05  # of the score that is judged


class Law:
    """N(0.6, 0.25) under VP, with what a budget asks for."""

    score = staticmethod(NOISED.score)

    @staticmethod
    def log_prob(x, t):
        mean, var = NOISED.moments(t)
        return (-0.5 * (x - mean) ** 2 / var - 0.5 * torch.log(2 * math.pi * var))[:, 0]


def wrong_score(x, t):
    return FACTOR * NOISED.score(x, t)


def continuous_moments(eta, factor, start, end, mean, var):
    """Mean and variance of the reverse dynamics with `factor` times the exact score."""

    def rate(t, moments):
        t = torch.tensor(t, dtype=torch.float64)
        beta = float(VP.beta(t))
        m, v = (float(value) for value in NOISED.moments(t))
        pull = 0.5 * (1 + eta**2) * beta * factor / v
        slope = -0.5 * beta + pull
        return [slope * moments[0] - pull * m, 2 * slope * moments[1] - eta**2 * beta]

    found = solve_ivp(rate, (start, end), [mean, var], rtol=1e-10, atol=1e-12, method="DOP853")
    return found.y[:, -1]


def distances(one, other):
    """Total variation and Wasserstein-1 of two normal laws, on nodes ten times finer."""
    x = np.linspace(-8, 8, 3201)
    gap = normal_density(x, *one) - normal_density(x, *other)
    h = x[1] - x[0]
    return 0.5 * np.abs(gap).sum() * h, np.abs(np.cumsum(gap) * h).sum() * h


@pytest.mark.parametrize(
    ("eta", "solver"),
    [(1.0, sg.EulerMaruyama()), (1.0, sg.DDIM()), (0.0, sg.Heun())],
    ids=["reverse SDE", "DDIM", "flow"],
)
def test_all_parts_of_a_gaussian_are_those_of_its_moments(eta, solver):
    times = VP.time_grid(20)
    # a prior that is off, so that its part is no small number
    budget = error_budget(
        VP, Law, wrong_score, GRID, times, eta=eta, solver=solver, prior=GRID.gaussian(0.2, 0.8)
    )
    end = float(times[-1])
    laws = [
        (0.6, 0.25),
        [float(value) for value in NOISED.moments(end)],
        continuous_moments(eta, 1.0, 1.0, end, 0.2, 0.64),
        continuous_moments(eta, FACTOR, 1.0, end, 0.2, 0.64),
        linear_chain_moments(solver, sg.ReverseSDE(VP, wrong_score, eta), times, 0.2, 0.64)[
            -1
        ].tolist(),
    ]
    assert budget.accuracy < 2e-6
    pairs = [*itertools.pairwise(laws), (laws[0], laws[-1])]
    for part, (one, other) in zip((*budget.parts, budget.whole), pairs, strict=True):
        tv, w1 = distances(one, other)
        # of two Gaussians |p − q| has kinks: the trapezoidal rule errs by h² |p' − q'|/12 at each
        near = budget.accuracy + 2e-3 * tv
        assert part.total_variation == pytest.approx(tv, abs=near), part.cause
        assert part.wasserstein == pytest.approx(w1, abs=near), part.cause
        (m, v), (n, w) = one, other
        kl = 0.5 * (v / w + (m - n) ** 2 / w - 1 + math.log(w / v))
        assert part.kl == pytest.approx(kl, rel=1e-3, abs=1e-9), part.cause


@pytest.fixture(scope="module")
def base():
    return error_budget(VP, Law, wrong_score, COARSE, VP.time_grid(20))


def test_the_parts_bound_the_whole(base):
    assert base.whole.total_variation <= sum(p.total_variation for p in base.parts) + 1e-15
    assert base.whole.wasserstein <= sum(p.wasserstein for p in base.parts) + 1e-15


def test_a_cause_made_worse_raises_its_part_and_none_before_it(base):
    coarse = error_budget(VP, Law, wrong_score, COARSE, VP.time_grid(10))
    assert coarse.parts[:3] == base.parts[:3]
    assert coarse.parts[3].total_variation > 1.5 * base.parts[3].total_variation

    worse = error_budget(VP, Law, lambda x, t: 1.2 * Law.score(x, t), COARSE, VP.time_grid(20))
    assert worse.parts[:2] == base.parts[:2]
    assert worse.parts[2].total_variation > 2 * base.parts[2].total_variation

    prior = COARSE.gaussian(0.3, 1.0)
    off = error_budget(VP, Law, wrong_score, COARSE, VP.time_grid(20), prior=prior)
    assert off.parts[:1] == base.parts[:1]
    assert off.parts[1].total_variation > 1.5 * base.parts[1].total_variation

    early = error_budget(VP, Law, wrong_score, COARSE, torch.linspace(1.0, 0.02, 21))
    assert early.parts[0].total_variation > 2 * base.parts[0].total_variation
    assert early.densities[0].p.equal(base.densities[0].p)


def test_an_exact_score_costs_nothing():
    budget = error_budget(VP, Law, Law.score, COARSE, VP.time_grid(20))
    assert budget.parts[2].total_variation == 0.0
    assert budget.parts[2].kl == 0.0


def test_a_flow_carries_a_density_with_its_stretching():
    """dx = x (1 − x) dt, a logistic curve: y = x e^t/(1 − x + x e^t), and back."""
    grid = sg.Grid(0.05, 0.95, cells=200)
    logistic = sg.ItoProcess(lambda x: x * (1 - x), 0.0)
    start = grid.gaussian(0.4, 0.05)
    law = carried_by_flow(logistic, start, 0.0, 1.0)
    y = grid.nodes.numpy()
    x = y * math.exp(-1) / (1 - y + y * math.exp(-1))
    scale = float(start.p[80]) / normal_density(float(grid.nodes[80]), 0.4, 0.0025)
    exact = scale * normal_density(x, 0.4, 0.0025) * x * (1 - x) / (y * (1 - y))
    np.testing.assert_allclose(law.p.numpy(), exact, atol=1e-7)
    again = carried_by_flow(logistic, law, 1.0, 0.0)
    np.testing.assert_allclose(again.p.numpy(), start.p.numpy(), atol=1e-6)


def test_a_grid_that_does_not_hold_the_law_is_refused():
    with pytest.raises(
        ValueError, match=r"the law at t = 0.001 has a mass of 0\.\d+ on \[-1, 1\]"
    ):
        error_budget(VP, Law, Law.score, sg.Grid(-1.0, 1.0, 100), VP.time_grid(5))


def gap(one, other):
    return 0.5 * float(torch.trapezoid((one.p - other.p).abs(), one.x))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_an_ancestral_chain_has_a_budget(variance):
    """Its end is the Gaussian of its moments; what is before the steps is that of the SDE."""
    chain = sg.DDPM.discretize(VP, 20)
    back = torch.arange(21.0, dtype=torch.float64).flip(0)
    sampler, prior = chain.reverse(wrong_score, variance), COARSE.gaussian(0.2, 0.8)
    budget = error_budget(VP, Law, wrong_score, COARSE, back, prior=prior, sampler=sampler)
    mean, var = linear_chain_moments(sg.EulerMaruyama(), sampler, back, 0.2, 0.64)[-1].tolist()
    last = budget.densities[-1]
    np.testing.assert_allclose(
        last.p.numpy(), normal_density(last.x.numpy(), mean, var), atol=1e-10
    )
    same = error_budget(VP, Law, wrong_score, COARSE, VP.time_grid(20), prior=prior)
    assert budget.parts[:3] == same.parts[:3]
    tv, _ = distances(continuous_moments(1.0, FACTOR, 1.0, 1e-3, 0.2, 0.64), (mean, var))
    assert budget.parts[3].total_variation == pytest.approx(tv, rel=8e-3)  # the kinks, as above
    assert budget.whole.total_variation <= sum(p.total_variation for p in budget.parts) + 1e-15
    assert budget.whole.wasserstein <= sum(p.wasserstein for p in budget.parts) + 1e-15
    with pytest.raises(ValueError, match="sampler must use the score that is judged"):
        error_budget(VP, Law, Law.score, COARSE, back, sampler=sampler)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_multistep_sampler_has_a_budget(eta):
    """Other steps change their own part, and leave those before it equal to the bit."""
    fine = sg.Grid(-8.0, 8.0, cells=320 if eta else 160)
    times = VP.time_grid(8) if eta else sg.timesteps.log_snr(VP, 10)
    budgets = [
        error_budget(VP, Law, wrong_score, fine, times, eta=eta, solver=solver)
        for solver in (sg.DDIM(), ExponentialAdams(2, "v"))
    ]
    one, two = budgets
    assert one.parts[:3] == two.parts[:3]
    if eta == 0:
        assert two.parts[3].total_variation < 0.75 * one.parts[3].total_variation
    assert two.parts[3] != one.parts[3]
    for budget in budgets:
        total = sum(p.total_variation for p in budget.parts)
        assert budget.whole.total_variation <= total + 1e-15
        assert budget.whole.wasserstein <= sum(p.wasserstein for p in budget.parts) + 1e-15


def test_budgets_of_several_runs_are_those_of_each(base):
    runs = [VP.time_grid(10), VP.time_grid(20)]
    budgets = error_budgets(VP, Law, wrong_score, COARSE, runs)
    assert list(budgets) == [10, 20]
    assert budgets[20].parts == base.parts
    assert budgets[20].accuracy == base.accuracy
    with pytest.raises(ValueError, match=r"start and end together, but runs\[0\] goes from 1 to"):
        error_budgets(VP, Law, wrong_score, COARSE, [runs[0], runs[0][:-1]])
    with pytest.raises(ValueError, match="runs is empty"):
        error_budgets(VP, Law, wrong_score, COARSE, [])


class Linear(torch.nn.Module):
    """The network whose ε is that of N(0.6, 0.25) at t = ½, in the precision of its weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.9, -0.05]))

    def forward(self, x, t):
        return self.weight[0] * x + self.weight[1]


def test_a_model_in_float32_is_asked_in_float64():
    model = sg.ScoreModel(Linear(), VP)
    twin = sg.ScoreModel(Linear().double(), VP)
    times = VP.time_grid(10)
    one, two = (error_budget(VP, Law, m.score, COARSE, times) for m in (model, twin))
    assert one.parts == two.parts
    assert next(model.parameters()).dtype == torch.float32
    single = ChainDensity(sg.ReverseSDE(VP, model.score), COARSE)
    law = single.run(COARSE.gaussian(0.0, 1.0), times).final
    assert gap(law, one.densities[-1]) < 1e-5


def test_a_score_in_float32_that_cannot_be_copied_is_refused():
    with pytest.raises(ValueError, match=r"computed in float32.*such as model\.score"):
        error_budget(
            VP, Law, lambda x, t: Law.score(x.float(), t).double(), COARSE, VP.time_grid(5)
        )


@pytest.mark.parametrize(
    ("eta", "solver"),
    [
        (1.0, sg.FinalDenoising(sg.EulerMaruyama())),
        (0.0, sg.KarrasHeun(churn=sg.Churn(4.0))),
    ],
    ids=["denoised", "churned"],
)
def test_a_budget_counts_what_a_last_denoising_and_churn_do(eta, solver):
    """The samples' law is that of the run's exact moments; the four causes stay four."""
    times, grid = VP.time_grid(12), sg.Grid(-11.0, 11.0, cells=440)
    budget = error_budget(VP, Law, NOISED.score, grid, times, eta=eta, solver=solver)
    dynamics = sg.ReverseSDE(VP, NOISED.score, eta)
    mean, var = affine_run_moments(solver, dynamics, times, 0.0, 1.0).tolist()
    samples = budget.densities[-1]
    assert np.abs(samples.p.numpy() - normal_density(samples.x.numpy(), mean, var)).max() < 1e-9
    q2 = continuous_moments(eta, 1.0, 1.0, VP.t_min, 0.0, 1.0)
    tv, w1 = distances(q2, (mean, var))
    near = budget.accuracy + 2e-3 * tv  # as above
    assert budget.parts[3].total_variation == pytest.approx(tv, abs=near)
    assert budget.parts[3].wasserstein == pytest.approx(w1, abs=near)
    assert budget.whole.total_variation <= sum(part.total_variation for part in budget.parts)
