"""Back from t = 0.9 to 0.3 by the score that a Fokker–Planck solution has.

A linear process Y of three noises is bent, X = T(Y): its G(x), drift and density are exact.
"""

import math
from dataclasses import replace

import numpy as np
import torch

import sdegen as sg

F64 = torch.float64
A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
B = torch.tensor([[0.7, 0.1, 0.3], [-0.5, 0.6, 0.2]], dtype=F64)
COVARIANCE, START = B @ B.T, torch.tensor([0.6, -0.3], dtype=F64)
GRIDS = (sg.Grid(-7.0, 9.0, 108), sg.Grid(-4.2, 7.0, 98))
FIRST, LAST = 0.3, 0.9


def moments(t):
    """Mean and covariance of Y from a point: C = S − e^{−At} S e^{−Aᵀt}, Lyapunov's S."""
    flow = torch.matrix_exp(-A * t)
    rate = torch.kron(A, torch.eye(2).to(A)) + torch.kron(torch.eye(2).to(A), A)
    rest = torch.linalg.solve(rate, COVARIANCE.reshape(4)).reshape(2, 2)
    return flow @ START, rest - flow @ rest @ flow.mT


def straight(x):
    first = x[:, 0].asinh()
    return torch.stack([first, x[:, 1] - 0.5 * first**2], 1)


def matrix(x):
    """J B, with the Jacobian [[cosh y₀, 0], [y₀, 1]] of the bend."""
    first = straight(x)[:, :1]
    return torch.stack([first.cosh() * B[0], first * B[0] + B[1]], 1)


def drift(x):
    """J (−A y) + ½ C_jk ∂_j ∂_k T, by Itô's formula."""
    y = straight(x)
    f, bend = -y @ A.T, 0.5 * COVARIANCE[0, 0]
    cosh, sinh = y[:, 0].cosh(), y[:, 0].sinh()
    return torch.stack([cosh * f[:, 0] + bend * sinh, y[:, 0] * f[:, 0] + f[:, 1] + bend], 1)


def density(x, t):
    y = straight(x)
    mean, covariance = moments(t)
    square = ((y - mean) @ torch.linalg.inv(covariance) * (y - mean)).sum(1)
    return (
        torch.exp(-0.5 * square)
        / y[:, 0].cosh()
        / torch.linalg.det(2 * math.pi * covariance) ** 0.5
    )


BENT = sg.ItoProcess(drift, matrix, channels=3)


def test_nothing_grows_at_the_corners_of_the_form_of_high_order():
    """No eigenvalue of the operator is positive, where D_xy varies along the walls."""
    for grids in ((sg.Grid(-6.0, 7.0, 18), sg.Grid(-3.5, 5.5, 16)), (sg.Grid(-2.0, 2.5, 16),) * 2):
        solver = sg.FokkerPlanck2D(BENT, grids)
        rates = np.linalg.eigvals(solver._level.generator.fluxes(0.0).compact.toarray())
        assert rates.real.max() < 1e-9


def test_marginals_come_back_by_the_score_of_a_solution():
    """Means, variances and correlation of Y within 4.4 standard errors, n = 10⁵."""
    solver = sg.FokkerPlanck2D(BENT, GRIDS)
    times = torch.linspace(FIRST, LAST, 9, dtype=F64)
    blank = solver._blank
    nodes = torch.cartesian_prod(blank.x, blank.y)
    start = replace(blank, p=density(nodes, FIRST).reshape(blank.p.shape))
    path = solver.solve(start, times)
    exact = density(nodes, LAST).reshape(blank.p.shape)
    assert path[-1].form == "compact"
    assert float((path[-1].p - exact).abs().max() / exact.max()) < 5e-4
    n, generator = 100_000, torch.Generator().manual_seed(0)
    mean, covariance = moments(LAST)
    y = (
        mean
        + torch.randn(n, 2, dtype=F64, generator=generator) @ torch.linalg.cholesky(covariance).T
    )
    x = torch.stack([y[:, 0].sinh(), y[:, 1] + 0.5 * y[:, 0] ** 2], 1)
    reverse = sg.ReverseSDE(BENT, sg.PlaneScore(path, times))
    options = {"rng": 1, "solver": sg.DRI1(8)}
    back = straight(sg.simulate(reverse, x, [LAST, FIRST], **options).final)
    mean, covariance = moments(FIRST)
    variances = covariance.diag()
    off = (back.mean(0) - mean) / (variances / n).sqrt()
    assert float(off.abs().max()) < 4.4
    off = (back.var(0) - variances) / (variances * math.sqrt(2 / n))
    assert float(off.abs().max()) < 4.4
    together = (back - back.mean(0)).prod(1).mean()
    spread = ((variances.prod() + covariance[0, 1] ** 2) / n).sqrt()
    assert float((together - covariance[0, 1]).abs() / spread) < 4.4
