import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from tests.fokker_planck.test_plane import ROTATING, D, K, square
from tests.fokker_planck.test_plane_channels import gaussian, linear, moved, rotated
from tests.fokker_planck.test_plane_transient import spiralled

F64 = torch.float64
X = torch.tensor([[0.3, -0.6], [-0.4, 0.4], [0.9, 1.1], [0.0, 0.2]], dtype=F64)
TIMES = torch.linspace(0.0, 0.6, 7)


@pytest.fixture(scope="module")
def spiral():
    solver = FokkerPlanck2D(ROTATING, square(60, 5.0))
    start = solver.gaussian((1.5, 0.0), [[0.2, 0.0], [0.0, 0.2]])
    return solver.solve(start, TIMES)


def test_the_score_of_a_density_that_spirals_in(spiral):
    score = sg.PlaneScore(spiral, TIMES)
    for t in (0.1, 0.17, 0.35, 0.6):  # at times of densities, and between them
        mean, var = spiralled(t, 0.2)
        exact = -(X - torch.tensor(mean, dtype=F64)) / var
        got = score(X, torch.tensor(t))
        torch.testing.assert_close(got, exact, atol=2e-3 * float(exact.abs().max()), rtol=0)
    assert 1e-3 < float(score.error) < 0.05
    each = score(X, torch.tensor([0.1, 0.35, 0.1, 0.6]))
    for k, t in enumerate((0.1, 0.35, 0.1, 0.6)):
        torch.testing.assert_close(each[k], score(X, torch.tensor(t))[k], rtol=1e-12, atol=0)
    assert score(X.float(), 0.2).dtype == torch.float32


def test_the_gradient_of_a_score_is_its_derivative(spiral):
    score, t = sg.PlaneScore(spiral, TIMES), torch.tensor(0.25)
    assert torch.autograd.gradcheck(lambda x: score(x, t), X.clone().requires_grad_())
    x = X.clone().requires_grad_()
    slope = torch.autograd.grad(score(x, t)[:, 0].sum(), x)[0]
    exact = torch.tensor([-1 / spiralled(0.25, 0.2)[1], 0.0], dtype=F64)
    torch.testing.assert_close(slope, exact.expand_as(slope), atol=0.02, rtol=0)


def test_the_score_of_a_matrix_knows_its_error():
    G, start = rotated(8.0, 30.0), [[0.3, 0.1], [0.1, 0.2]]
    solver = FokkerPlanck2D(linear(G), square(80, 4.5), form="lumped")
    with pytest.warns(sg.AccuracyWarning, match="the estimated relative error"):
        path = solver.solve(solver.gaussian((1.0, 0.5), start), TIMES)
    score = sg.PlaneScore(path, TIMES)
    t, k = float(TIMES[4]), 4
    mean, covariance = moved(G, t, (1.0, 0.5), start)
    x, y = torch.meshgrid(path[k].x, path[k].y, indexing="ij")
    states = torch.stack([x.flatten(), y.flatten()], 1)
    exact = -(states - torch.from_numpy(mean)) @ torch.from_numpy(np.linalg.inv(covariance))
    p = gaussian(path[k].x, path[k].y, mean, covariance).flatten()[:, None]
    miss = ((score(states, t) - exact).square() * p).sum() / (exact.square() * p).sum()
    assert float(miss.sqrt()) < float(score.error["score"][k]) < 20 * float(miss.sqrt())
    assert float(miss.sqrt()) < 0.05


def test_far_out_a_score_points_back():
    """Where p is below 1e-9 of its peak, and beyond the grid, it stays as it was nearer."""
    p = FokkerPlanck2D(ROTATING, square(60, 6.0)).stationary()
    score = sg.PlaneScore([p])
    far = torch.tensor([[5.9, 0.0], [0.0, -7.0], [-5.5, -5.5]], dtype=F64)
    edge = math.sqrt(2 * D / K * math.log(1e9)) * K / D
    got = score(far, 0.0)
    assert (got * far < 0).any(1).all()
    assert float(got.norm(dim=1).max()) < 1.6 * edge
    assert float(got[0, 0]) == pytest.approx(-edge, rel=0.15)  # two nodes inside
    near = torch.tensor([[3.0, 0.0]], dtype=F64)
    torch.testing.assert_close(score(near, 3.0), -near * K / D, atol=5e-3, rtol=0)


def test_a_score_on_a_ring_goes_through_its_seam():
    """Of e^{κ cos(x − c) − y²}."""
    turn = 2 * math.pi
    sde = sg.ItoProcess(lambda z: torch.stack([-1.5 * torch.sin(z[:, 0] - 0.1), -z[:, 1]], 1), 1.0)
    grids = (sg.Grid(0.0, turn, 40), sg.Grid(-4.5, 4.5, 40))
    score = sg.PlaneScore(
        [FokkerPlanck2D(sde, grids, [sg.Periodic(0.0, turn), None]).stationary()]
    )
    x = torch.tensor([[0.02, 0.5], [-0.3, 0.5], [turn + 0.05, -1.0], [3.0, 0.0]], dtype=F64)
    exact = torch.stack([-3.0 * torch.sin(x[:, 0] - 0.1), -2 * x[:, 1]], 1)
    torch.testing.assert_close(score(x, 0.0), exact, atol=2e-3, rtol=0)


def test_scores_that_cannot_be_known_are_refused(spiral):
    score = sg.PlaneScore(spiral, TIMES)
    with pytest.raises(
        ValueError, match=r"is known from t = 0 to 0\.6, but was asked for at 0\.7"
    ):
        score(X, 0.7)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\)"):
        score(X[:, :1], 0.1)
    with pytest.raises(ValueError, match="times must be one for each of 7 densities"):
        sg.PlaneScore(spiral, TIMES[:-1])
    with pytest.raises(ValueError, match="strictly monotone"):
        sg.PlaneScore(spiral[:2], [0.1, 0.1])
    with pytest.raises(ValueError, match="one at least"):
        sg.PlaneScore([])
    with pytest.raises(TypeError, match=r"densities\[0\]"):
        sg.PlaneScore([torch.ones(3, 3)], [0.0])
    elsewhere = FokkerPlanck2D(ROTATING, square(60, 6.0))
    other = elsewhere.gaussian((0.0, 0.0), [[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="share their nodes"):
        sg.PlaneScore([spiral[0], other], [0.0, 0.1])
    with pytest.raises(ValueError, match="leave out a start at a point"):
        sg.PlaneScore([elsewhere.point(0.0, 0.0)])
    assert isinstance(replace(other, p=other.p), PlaneDensity)
