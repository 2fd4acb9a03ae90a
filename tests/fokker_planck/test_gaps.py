"""A jump beside a node, which all grids that keep the node see as one at the node."""

import numpy as np
import pytest
import torch

import sdegen as sg

_OFF = (-0.06, -0.01, 0.001, 0.03, 0.065)  # of a cell: where Gauss points see nothing


def _switching(place, low=3.0, high=-3.0):
    return sg.ItoProcess(lambda x: torch.where(x < place, low, high).to(x), 1.0)


def _rest(place):
    """Mean and variance of p ∝ exp(−6 |x − a|) on the line; 6 = 2 f/g²."""
    return place, 2 / 6**2


@pytest.mark.parametrize("off", _OFF)
@pytest.mark.parametrize("node", [0.0, 0.1])  # one is on every other node too
def test_a_density_at_rest_knows_what_a_jump_beside_a_node_does_to_it(off, node):
    place = node + 0.1 * off
    rest = sg.FokkerPlanck(_switching(place), sg.Grid(-6.0, 6.0, 120)).stationary()
    mean, variance = _rest(place)
    told = rest.error
    assert abs(float(rest.mean) - mean) / variance**0.5 <= 3 * float(told["mean"])
    assert abs(float(rest.variance) / variance - 1) <= 3 * float(told["variance"])
    assert float(told) < 1e-3


def _mean_passage(place, c=3.0, low=-5.0, high=1.0):
    """E τ from `low`, which reflects, to `high`: drift c below the place, −c above it; D = ½.

    T = ∫ s(y) ∫_low^y 2 m dz dy, with s = e^{−2cy} below and s = e^{2cy} above the place at 0.
    """
    a, b, k = place - low, high - place, 2 * c
    below = 2 * (a / k - (1 - np.exp(-k * a)) / k**2)
    mass = 2 * (1 - np.exp(-k * a)) / k  # of m up to the place, m there 1
    above = mass * np.expm1(k * b) / k + 2 * (np.expm1(k * b) / k**2 - b / k)
    return below + above


@pytest.mark.parametrize("off", _OFF)
def test_passages_know_it_and_are_refused_where_more_is_asked(off):
    place = 0.1 + 0.1 * off
    solver = sg.FokkerPlanck(_switching(place), sg.Grid(-5.0, 1.0, 60), ("no-flux", "absorbing"))
    passage = solver.first_passage(moments=1)
    apart = abs(float(passage.mean[0]) / _mean_passage(place) - 1)
    assert 1e-6 < apart <= 3 * float(passage.error["mean"][0])


def test_a_tolerance_is_refused_where_the_finest_grid_hides_a_jump():
    place = 0.1 + 0.1 / 640 * 0.03
    solver = sg.FokkerPlanck(_switching(place), sg.Grid(-5.0, 1.0, 60), ("no-flux", "absorbing"))
    with pytest.raises(sg.SolverError, match="was not found to 1e-10"):
        solver.first_passage(moments=1, rtol=1e-10)


def test_a_jump_on_a_node_is_no_error():
    solver = sg.FokkerPlanck(_switching(0.1), sg.Grid(-5.0, 1.0, 60), ("no-flux", "absorbing"))
    passage = solver.first_passage(moments=1)
    assert abs(float(passage.mean[0]) / _mean_passage(0.1) - 1) < 1e-11
    assert float(passage.error["mean"].max()) < 1e-10


@pytest.mark.parametrize("off", [*_OFF, 0.2, 0.45])
def test_rates_of_a_double_well_know_it(off):
    """V = −3 |x − a| between reflecting walls: the rate from tan k L = k L, and e^{6 L} slow."""
    place = 0.05 * off
    sde, walls = _switching(place, -3.0, 3.0), "no-flux"
    rough = sg.FokkerPlanck(sde, sg.Grid(-2.0, 2.0, 80), walls, truncation_is_physical=True)
    nodes = torch.cat([torch.linspace(-2, place, 201), torch.linspace(place, 2, 201)[1:]])
    exact = sg.FokkerPlanck(sde, sg.Grid.of(nodes.double()), walls, truncation_is_physical=True)
    got, right = rough.spectrum(2), exact.spectrum(2)
    assert abs(float(got.rates[1] / right.rates[1]) - 1) <= 3 * float(got.error["rates"][1])


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("off", [-0.3, -0.06, 0.001, 0.08, 1.03])
def test_densities_in_time_know_it(off, noise):
    place = 0.1 + 0.05 * off
    sde = _switching(place)
    if noise:
        sde = sg.ItoProcess(lambda x: -x, lambda x: torch.where(x < place, 1.0, 2.0).to(x))
    nodes = torch.cat([torch.linspace(-5, place, 601), torch.linspace(place, 5, 601)[1:]]).double()
    grids = sg.Grid(-5.0, 5.0, 200), sg.Grid.of(nodes)
    got, right = (
        sg.FokkerPlanck(sde, g, truncation_is_physical=True)
        .solve(g.gaussian(1.0, 0.5), [0.0, 0.5])
        .final
        for g in grids
    )
    apart = abs(float(got.mean - right.mean)) / float(right.std)
    assert apart <= 3 * float(got.error["mean"]) + 1e-6


@pytest.mark.filterwarnings("ignore::sdegen.core.errors.AccuracyWarning")
@pytest.mark.parametrize("off", [-0.04, 0.001, 0.03, 0.35])
def test_survival_knows_it(off):
    place = 0.1 + 0.1 * off
    sde, walls = _switching(place), ("no-flux", "absorbing")
    nodes = torch.cat([torch.linspace(-5, place, 401), torch.linspace(place, 1, 401)[1:]]).double()
    grids = sg.Grid(-5.0, 1.0, 60), sg.Grid.of(nodes)
    got, right = (sg.FokkerPlanck(sde, g, walls).survival(-1.0, [0.0, 0.5, 3.0]) for g in grids)
    apart = (got.probability / right.probability - 1).abs()
    assert bool((apart <= 3 * got.error["probability"]).all())
    with pytest.raises(sg.SolverError, match="survival was not found to rtol = 1e-06"):
        sg.FokkerPlanck(sde, grids[0], walls).survival(-1.0, [0.0, 3.0], rtol=1e-6)


@pytest.mark.parametrize("off", [-0.01, 0.03])
def test_currents_know_it(off):
    """∫ s of a cell of width h with the jump at δ: (1 − e^{−6δ} + (e^{6(h−δ)} − 1) e^{−6δ})/6."""
    h = 0.1
    place = 0.1 + h * off
    grid = sg.Grid(-6.0, 6.0, 120)
    p = grid.gaussian(0.3, 0.5)
    j = sg.FokkerPlanck(_switching(place), grid).current(p)
    cell = 61 if off > 0 else 60
    share = off * h if off > 0 else h * (1 + off)
    below, above = -np.expm1(-6 * share) / 6, np.expm1(6 * (h - share)) * np.exp(-6 * share) / 6
    a = 0.5 / (below + above)
    b = a * np.exp(-6 * share + 6 * (h - share))
    right = a * float(p.p[cell]) - b * float(p.p[cell + 1])
    scale = max(float(j.abs().max()), a * float(p.p.max()))
    assert abs(float(j[cell]) - right) / scale <= 3 * float(j.error["J"])
    assert float(j.error["J"]) < 1e-3


@pytest.mark.filterwarnings("ignore::sdegen.core.errors.AccuracyWarning")
@pytest.mark.parametrize("off", [-0.03, 0.01, 0.05])
@pytest.mark.parametrize("axis", [0, 1])
def test_densities_of_the_plane_know_it(off, axis):
    """p ∝ e^{−3 |x − a|} along one coordinate and a normal density along the other."""
    place = 0.25 * off

    def drift(x):
        switching = torch.where(x[:, axis] < place, 1.5, -1.5).to(x)
        return torch.stack((switching, -x[:, 1]) if axis == 0 else (-x[:, 0], switching), -1)

    long, short = sg.Grid(-6.0, 6.0, 48), sg.Grid(-4.0, 4.0, 28)
    grids = (long, short) if axis == 0 else (short, long)
    solver = sg.FokkerPlanck2D(sg.ItoProcess(drift, 1.0), grids)
    rest = solver.stationary()
    apart = abs(float(rest.mean[axis]) - place) / (2 / 9) ** 0.5
    assert 1e-3 < apart <= 3 * float(rest.error["mean"])
    if off == 0.01 and axis == 0:
        start = solver.gaussian((0.0, 0.0), [[0.3, 0.0], [0.0, 0.3]])
        late = solver.solve(start, [0.0, 3.0])[-1]  # λ ≥ 9/8: at rest to 3 % of the place
        assert abs(float(late.mean[0]) - place) / (2 / 9) ** 0.5 <= 3 * float(late.error["mean"])
