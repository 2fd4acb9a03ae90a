"""The density of splitting methods in phase space: exact moments, quadratures, biases at rest."""

import math

import numpy as np
import pytest
import torch
from scipy.special import gamma

import sdegen as sg
from sdegen.core.noise import Given

F64 = torch.float64
SQUARE = sg.Grid(-4.0, 4.0, 64), sg.Grid(-5.0, 5.0, 64)
TRAP = sg.UnderdampedLangevin(sg.Quadratic(2.0), 0.7, 0.4, 1.5)
MEAN, COVARIANCE = (0.5, -0.3), [[0.2, 0.05], [0.05, 0.3]]
KINDS = (sg.BAOAB, sg.OBABO)
QUARTIC = sg.Grid(-4.5, 4.5, 64), sg.Grid(-9.0, 9.0, 72)
EXACT = 2 * gamma(0.75) / gamma(0.25)  # ⟨x²⟩ of e^{−x⁴/4}
each = pytest.mark.parametrize("kind", KINDS, ids=["BAOAB", "OBABO"])


def gaussian(grids, mean, covariance):
    """A Gaussian of unit mass at the nodes."""
    x, v = (grid.nodes - m for grid, m in zip(grids, mean, strict=True))
    z = torch.stack(torch.meshgrid(x, v, indexing="ij"), -1)
    matrix = torch.tensor(covariance, dtype=F64)
    power = torch.einsum("xvi,ij,xvj->xv", z, torch.linalg.inv(matrix), z)
    p = torch.exp(-0.5 * power) / (2 * math.pi * torch.linalg.det(matrix).sqrt())
    return sg.PlaneDensity(*(grid.nodes for grid in grids), p)


@each
def test_on_an_oscillator_moments_are_those_of_the_chain(kind):
    """At rest at a step near the largest stable one, and on the way, of `ChainMoments`."""
    rest = sg.ChainDensity2D(TRAP, SQUARE, kind()).stationary(0.9)
    law = sg.ChainMoments(TRAP, 2, kind()).stationary(0.9)
    torch.testing.assert_close(rest.covariance, law.covariance, rtol=0, atol=1e-11)
    assert float(rest.mass) == pytest.approx(1.0, abs=1e-13)
    assert rest.phase_space
    times = [0.0, 0.5, 1.7]
    path = sg.ChainDensity2D(TRAP, SQUARE, kind(3)).run(gaussian(SQUARE, MEAN, COVARIANCE), times)
    exact = sg.ChainMoments(TRAP, 2, kind(3)).run(MEAN, COVARIANCE, times)
    for p, mean, covariance in zip(path, exact.means, exact.covariances, strict=True):
        torch.testing.assert_close(p.mean, mean, rtol=0, atol=1e-11)
        torch.testing.assert_close(p.covariance, covariance, rtol=0, atol=1e-11)


def test_a_driven_trap_is_kicked_by_the_force_of_both_ends_of_a_step():
    driven = sg.UnderdampedLangevin(lambda x, t: (1 + t) * (x - t) ** 2 / 2, 0.7, 0.4)
    times = [0.0, 0.3, 0.7]
    path = sg.ChainDensity2D(driven, SQUARE).run(gaussian(SQUARE, MEAN, COVARIANCE), times)
    exact = sg.ChainMoments(driven, 2, sg.BAOAB()).run(MEAN, COVARIANCE, times)
    torch.testing.assert_close(path[-1].mean, exact.final.mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(path[-1].covariance, exact.final.covariance, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match=r"this UnderdampedLangevin depends on time; ask for run"):
        sg.ChainDensity2D(driven, SQUARE).stationary(0.1)


@pytest.mark.parametrize("friction", [1.0, lambda x: 0.3 + x**2], ids=["constant", "of x"])
@each
def test_a_step_on_a_quartic_potential_is_that_of_the_solver(kind, friction):
    """What the grid does in a step, beside the solver's own step by quadrature."""
    solver, h = kind(), 0.3
    well = sg.UnderdampedLangevin(lambda x: x**4 / 4, friction)
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    axes = np.meshgrid(0.5 + 0.4 * nodes, nodes / math.sqrt(2) - 0.3, nodes, nodes, indexing="ij")
    x, v, z, other = (torch.tensor(a.ravel())[:, None] for a in axes)
    weight = torch.tensor(np.einsum("i,j,k,l->ijkl", *[weights] * 4).ravel()).unsqueeze(1)
    noise = Given(torch.stack([other, z], 1))
    with torch.no_grad():
        (after,) = sg.integrate(well, solver, well.state(x, v), [0.0, h], noise)
    start = gaussian(QUARTIC, (0.5, -0.3), [[0.16, 0.0], [0.0, 0.5]])
    p = sg.ChainDensity2D(well, QUARTIC, solver).run(start, [0.0, h])[-1]
    for i, j in ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0)):
        value = after[:, 0] ** i * after[:, 1] ** j
        expected = float((weight * value).sum() / weight.sum())
        found = float((p.weights * p.p * p.x[:, None] ** i * p.y**j).sum())
        assert abs(found - expected) < (1e-8 if friction == 1.0 else 1e-5), (i, j)


@pytest.mark.parametrize(
    ("solver", "friction", "order", "tolerance", "size"),
    [
        (sg.BAOAB(), 50.0, 4, 0.35, -0.022),
        (sg.BAOAB(), 1.0, 2, 0.3, -0.026),
        (sg.OBABO(), 50.0, 2, 0.25, 0.0473),
        (sg.OBABO(), 1.0, 2, 0.25, 0.099),
    ],
    ids=["BAOAB, high friction", "BAOAB", "OBABO, high friction", "OBABO"],
)
def test_the_bias_at_rest_on_a_quartic_potential(solver, friction, order, tolerance, size):
    """⟨x²⟩ without sampling, h = 0.2 … 0.4; high friction gives BAOAB two orders more."""
    well = sg.UnderdampedLangevin(lambda x: x**4 / 4, friction)
    chain, steps = sg.ChainDensity2D(well, QUARTIC, solver), (0.2, 0.25, 0.3, 0.35, 0.4)
    errors = []
    for h in steps:
        p = chain.stationary(h)
        errors.append(float((p.weights * p.p * p.x[:, None] ** 2).sum()) - EXACT)
    assert len({math.copysign(1, e) for e in errors}) == 1
    slope = np.polyfit(np.log(steps), np.log(np.abs(errors)), 1)[0]
    assert abs(slope - order) < tolerance
    assert abs(errors[0] / steps[0] ** order / size - 1) < 0.03


def test_a_chain_that_comes_to_rest_slowly(monkeypatch):
    """From Boltzmann's density, in two restarts: found at a long step, not at a short one."""
    monkeypatch.setattr("sdegen.verification.phase_space_chain._RESTARTS", 2)
    chain = sg.ChainDensity2D(TRAP, SQUARE)
    with pytest.raises(sg.SolverError, match=r"steps of 0\.02 was not found in 2 restarts"):
        chain.stationary(0.02)
    assert float(chain.stationary(1.2).covariance[0, 0]) == pytest.approx(0.2, rel=1e-9)


def test_grids_that_cut_or_are_coarse_are_told():
    """What flights carry over the ends of x, kicks over those of v, and a packet of two nodes."""
    p0 = gaussian(SQUARE, MEAN, COVARIANCE)
    thin = sg.Grid(-4.0, 4.0, 64), sg.Grid(-3.0, 3.0, 40)
    strong = sg.UnderdampedLangevin(sg.Quadratic(8.0), 0.7, 0.4)
    with pytest.raises(ValueError, match=r"grid of the velocity by the force\. Widen it"):
        sg.ChainDensity2D(strong, thin).run(gaussian(thin, MEAN, COVARIANCE), [0.0, 0.6])
    free = sg.UnderdampedLangevin(lambda x: 0 * x, 1e-3, 0.4)
    with pytest.raises(ValueError, match=r"grid of the position by free flight\. Widen it"):
        sg.ChainDensity2D(free, SQUARE, sg.BAOAB(10)).run(p0, [0.0, 5.0])
    with pytest.warns(sg.AccuracyWarning, match="by free flight"):
        sg.ChainDensity2D(free, SQUARE, sg.BAOAB(10)).run(p0, [0.0, 1.1])
    packet = gaussian(SQUARE, (0.0, 0.0), [[0.012, 0.0], [0.0, 0.3]])
    with pytest.raises(ValueError, match=r"in waves as short as nodes are near\. Take more cells"):
        sg.ChainDensity2D(TRAP, SQUARE).run(packet, [0.0, 0.1])


def test_what_has_no_such_law_is_refused():
    two = sg.UnderdampedLangevin(sg.Quadratic(), mass=[1.0, 2.0])
    uneven = sg.Grid.sinh(-4.0, 4.0, 40, width=1.0)
    for call, kind, told in (
        (lambda: sg.ChainDensity2D(sg.OrnsteinUhlenbeck(), SQUARE), TypeError, "dynamics must be"),
        (lambda: sg.ChainDensity2D(TRAP, SQUARE[0]), TypeError, "grids must be a pair of grids"),
        (lambda: sg.ChainDensity2D(TRAP, (uneven, SQUARE[1])), ValueError, "needs uniform nodes"),
        (
            lambda: sg.ChainDensity2D(TRAP, SQUARE, sg.QUICSORT()),
            TypeError,
            r"built for BAOAB and OBABO, but solver is QUICSORT; pass BAOAB\(substeps",
        ),
        (lambda: sg.ChainDensity2D(TRAP, SQUARE).stationary(0.0), ValueError, "step must be"),
        (lambda: sg.ChainDensity2D(TRAP, SQUARE).run(0.0, [0.0, 1.0]), TypeError, "p0 must be"),
        (lambda: sg.ChainDensity2D(two, SQUARE).stationary(0.1), ValueError, "mass"),
        (
            lambda: sg.ChainDensity2D(
                sg.UnderdampedLangevin(sg.Quadratic(), 0.0), SQUARE
            ).stationary(0.1),
            ValueError,
            "has no friction or no temperature; ask for run",
        ),
        (
            lambda: sg.ChainDensity2D(
                sg.UnderdampedLangevin(lambda x: x.log()), SQUARE
            ).stationary(0.1),
            ValueError,
            "the force",
        ),
    ):
        with pytest.raises(kind, match=told):
            call()
