"""Divergences by three routes, against closed forms and each other."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.variational import jensen_shannon, kl_divergence

F64 = torch.float64
P = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], stds=[0.5, 0.8])
Q = sg.GaussianMixture([0.6, 0.4], [[-0.5], [1.0]], stds=[0.7, 1.0])
LINE = sg.Grid(-9.0, 9.0, 400)


def _density(law, cells=2000):
    grid = sg.Grid(-9.0, 9.0, cells)
    return sg.Density(grid.nodes, law.log_prob(grid.nodes[:, None]).exp()).normalized()


def test_quadrature_finds_the_closed_form_on_a_line_and_in_the_plane():
    p, q = sg.Gaussian([0.2], [0.8]), sg.Gaussian([-0.5], [1.4])
    found = kl_divergence(p, q, grids=LINE)
    assert found.value == pytest.approx(float(p.kl(q)), abs=1e-12)
    assert found.error < 1e-9
    assert found.method == "quadrature"
    assert kl_divergence(p, q).value == pytest.approx(found.value, abs=1e-12)
    p = sg.Gaussian([0.2, 0.0], [[0.8, 0.3], [0.3, 0.5]])
    q = sg.Gaussian([-0.5, 0.4], [1.4, 0.9])
    plane = kl_divergence(p, q, grids=(sg.Grid(-8, 8, 80), sg.Grid(-8, 8, 80)))
    assert plane.value == pytest.approx(float(p.kl(q)), abs=1e-9)


def test_a_density_of_nodes_is_the_law_that_it_is_of():
    exact = kl_divergence(P, Q, grids=LINE)
    assert kl_divergence(_density(P), _density(Q)).value == pytest.approx(exact.value, abs=1e-6)
    assert kl_divergence(_density(P), Q).value == pytest.approx(exact.value, abs=1e-6)
    assert kl_divergence(P, _density(Q, 1500)).value == pytest.approx(exact.value, abs=1e-6)
    js = jensen_shannon(_density(P), _density(Q))
    assert js.value == pytest.approx(jensen_shannon(P, Q, grids=LINE).value, abs=1e-6)


def test_a_density_in_the_plane():
    grids = (sg.Grid(-6, 6, 120), sg.Grid(-6, 6, 120))
    solver = sg.FokkerPlanck2D(sg.OrnsteinUhlenbeck(), grids)
    p = solver.gaussian((0.3, 0.0), [[0.5, 0.1], [0.1, 0.4]])
    q = solver.gaussian((0.0, 0.2), [[0.6, 0.0], [0.0, 0.7]])
    exact = sg.Gaussian([0.3, 0.0], [[0.5, 0.1], [0.1, 0.4]]).kl(sg.Gaussian([0, 0.2], [0.6, 0.7]))
    for second in (q, sg.Gaussian([0.0, 0.2], [0.6, 0.7])):
        found = kl_divergence(p, second)
        assert abs(found.value - float(exact)) < 1e-6
        assert abs(found.value - float(exact)) < found.error + 1e-9


def test_relaxation_lowers_the_divergence_at_the_known_rate():
    """KL(p_t ‖ p_∞) of an OU process started off its mean is μ²e^{−2t}/2 once C is at rest."""
    sde = sg.OrnsteinUhlenbeck()
    grid = sg.Grid(-9.0, 9.0, 600)
    solver = sg.FokkerPlanck(sde, grid)
    start = sg.Density(grid.nodes, sg.Gaussian([2.0]).log_prob(grid.nodes[:, None]).exp())
    path = solver.solve(start.normalized(), torch.tensor([0.0, 0.5, 1.0], dtype=F64))
    for t, p in zip((0.0, 0.5, 1.0), path.p, strict=True):
        found = kl_divergence(sg.Density(grid.nodes, p), sg.Gaussian([0.0]))
        assert found.value == pytest.approx(2.0 * math.exp(-2 * t), rel=1e-4)


@pytest.mark.parametrize("ask", [kl_divergence, jensen_shannon])
def test_samples_agree_with_quadrature(ask):
    """Within 4.4 standard errors: one false alarm in 10⁵ seeds."""
    exact = ask(P, Q, grids=LINE).value
    found = ask(P, Q, samples=40_000, rng=0)
    assert found.method == "samples"
    assert 0 < found.error < 0.02
    assert abs(found.value - exact) < 4.4 * found.error
    assert ask(P, Q, samples=40_000, rng=0) == found


def test_jensen_shannon_is_symmetric_bounded_and_an_entropy_of_which():
    there, back = (jensen_shannon(a, b, grids=LINE).value for a, b in ((P, Q), (Q, P)))
    assert there == pytest.approx(back, abs=1e-14)
    far = sg.Gaussian([-60.0]), sg.Gaussian([60.0])
    wide = sg.Grid(-80, 80, 2000)
    assert jensen_shannon(*far, grids=wide).value == pytest.approx(math.log(2), abs=1e-12)
    assert jensen_shannon(*far, samples=100, rng=0).value == pytest.approx(math.log(2), abs=1e-12)
    # the information that x has on the law that it came from, H(m) − ½ H(p) − ½ H(q)
    m = sg.GaussianMixture([0.15, 0.35, 0.3, 0.2], [[-1.0], [1.5], [-0.5], [1.0]],
                           stds=[0.5, 0.8, 0.7, 1.0])  # fmt: skip
    entropies = [float(_density(law, 4000).entropy) for law in (m, P, Q)]
    assert there == pytest.approx(entropies[0] - 0.5 * sum(entropies[1:]), abs=1e-6)


def test_where_q_is_nothing_the_divergence_is_infinite_but_not_for_rounding():
    x = sg.Grid(-4.0, 4.0, 800).nodes
    box = sg.Density(x, (x.abs() < 1).double()).normalized()
    assert kl_divergence(_density(sg.Gaussian([0.0], [0.04])), box).value == math.inf
    inner = sg.Density(x, torch.where(x.abs() < 0.9, (2.0 - x), 1e-20)).normalized()
    assert math.isfinite(kl_divergence(inner, box).value)


def test_a_grid_that_cuts_a_law_off_is_refused():
    with pytest.raises(ValueError, match=r"mass of 0\.\d+ of p, not 1: it cuts the law off"):
        kl_divergence(sg.Gaussian([0.0], [9.0]), sg.Gaussian([0.0]), grids=sg.Grid(-3, 3, 100))
    with pytest.raises(TypeError, match="there is no closed form; pass grids=Grid"):
        kl_divergence(P, Q)
    with pytest.raises(ValueError, match="give grids or samples"):
        kl_divergence(P, Q, grids=LINE, samples=100)
    with pytest.raises(TypeError, match="q must be a Gaussian, a density or an object"):
        kl_divergence(P, 3.0, grids=LINE)


def test_a_nan_is_named():
    class Broken:
        def log_prob(self, x):
            return torch.where(x[:, 0] > 1, math.nan, 0.0)

    with pytest.raises(sg.NonFiniteError, match=r"q\.log_prob is nan at x = \[1\.\d+\]"):
        kl_divergence(P, Broken(), grids=LINE)
