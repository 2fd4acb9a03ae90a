"""The judge of learned scores: two methods agree, grids are refined, and its error is an error."""

import dataclasses

import pytest
import torch
from scipy.linalg import expm

import sdegen as sg
from benchmarks import score_problems as judge
from benchmarks.score_problems import PROBLEMS, TIMES

F64 = torch.float64


def on_another_grid(problem, low, high, cells):
    """log p_t at nodes by an upwind-free central scheme and a dense matrix exponential."""
    x = torch.linspace(low, high, cells + 1, dtype=F64)
    h = float(x[1] - x[0])
    f = problem.sde.drift(x[:, None], torch.tensor(0.0, dtype=F64))[:, 0]
    g = problem.sde.diffusion(x[:, None], torch.tensor(0.0, dtype=F64)).expand(len(x), 1)[:, 0]
    D = g.square() / 2
    L = torch.diag(-2 * D / h**2)
    L += torch.diag(D[1:] / h**2 - f[1:] / (2 * h), 1)
    L += torch.diag(D[:-1] / h**2 + f[:-1] / (2 * h), -1)
    step = torch.from_numpy(expm(0.1 * L.numpy()))
    each = [torch.exp(problem.start.log_prob(x[:, None]))]
    for _ in range(round(10 * TIMES[-1])):
        each.append(step @ each[-1])
    return x, [each[round(10 * t)] for t in TIMES]


@pytest.mark.parametrize(
    ("name", "low", "high"), [("double well", -4.0, 4.0), ("multiplicative noise", -5.0, 5.0)]
)
def test_another_scheme_comes_to_the_truth_with_the_square_of_its_cells(name, low, high):
    problem = PROBLEMS[name]
    missed = []
    for cells in (160, 320):
        x, each = on_another_grid(problem, low, high, cells)
        worst = 0.0
        for truth, p in zip(problem.truths(), each, strict=True):
            s = (p[2:].log() - p[:-2].log()) / (2 * (x[1] - x[0]))
            i, j = torch.isclose(truth.x, x[None, 1:-1], atol=1e-9, rtol=0).nonzero().unbind(1)
            w, right = truth.weights[i], truth.score[i, 0]
            worst = max(worst, float((w @ (s[j] - right) ** 2 / (w @ right**2)).sqrt()))
        missed.append(worst)
    assert missed[1] < 1e-2
    assert 3.6 < missed[0] / missed[1] < 4.4  # to 0 with h²


def test_told_errors_are_small_beside_what_is_judged():
    for name, problem in PROBLEMS.items():
        if name != "Maier–Stein":  # see below: its own grid takes 10 s
            assert max(truth.error for truth in problem.truths()) < 1e-6


def test_a_line_and_a_mixture_agree():
    trap = sg.LinearSDE([[0.8]], 1.1)
    pair = PROBLEMS["double well"].start
    problem = dataclasses.replace(PROBLEMS["double well"], sde=trap, start=pair)
    for truth in judge.on_a_line(-7.0, 7.0, 800)(problem):
        law = judge.linear_mixture(pair, trap, truth.t)
        assert truth.distance(law.force(truth.x)) < 1e-6
        assert truth.error < 1e-5


def test_the_plane_and_a_mixture_agree_and_the_told_error_covers_what_is_missed():
    trap = PROBLEMS["rotating trap"]
    solve = judge.in_the_plane((-4.5, -4.5), (4.5, 4.5), 48)
    for truth in solve(trap):
        law = judge.linear_mixture(trap.start, trap.sde, truth.t)
        missed = truth.distance(law.force(truth.x))
        assert missed < 0.03
        assert truth.error > missed / 3


def test_samples_of_a_mixture_are_of_the_law_that_is_simulated():
    problem = PROBLEMS["10-D linear"]
    n, t = 2000, 0.5
    path = sg.simulate(
        problem.sde,
        problem.start.sample(n, rng=1, dtype=F64),
        [0.0, t],
        solver=sg.Heun(substeps=20),
        rng=2,
    )
    law = judge.linear_mixture(problem.start, problem.sde, t)
    off = (path.final.mean(0) - law.mean) / (law.covariance.diag() / n).sqrt()
    assert float(off.abs().max()) < 5.0  # ten means: once in 10⁵ runs, and steps of 0.025
    spread = path.final.T.cov().diag() / law.covariance.diag()
    assert float((spread - 1).abs().max()) < 0.2
    # Stein: E s xᵀ = −I
    truth = problem.truths()[1]
    stein = truth.score.T @ truth.x / len(truth.x)
    assert float((stein + torch.eye(10)).abs().max()) < 0.1


def test_the_error_of_a_score_is_relative_and_weighted():
    for truth in PROBLEMS["rotating trap"].truths():
        assert truth.distance(1.1 * truth.score) == pytest.approx(0.1, rel=1e-12)
        assert truth.judge(lambda x, t: 0 * x) == pytest.approx(1.0, rel=1e-12)
        assert float(truth.weights.sum()) == pytest.approx(1.0, rel=1e-12)
