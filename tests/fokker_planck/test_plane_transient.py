import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D
from tests.exact import noised_gaussian, slope
from tests.fokker_planck.test_plane import OMEGA, ROTATING, D, K, gaussian, square


def spiralled(t, var0):
    """Mean e^{−kt} R(t) (1.5, 0), variance (D/k)(1 − e^{−2kt}) + v0 e^{−2kt}."""
    decay = math.exp(-K * t)
    mean = (decay * 1.5 * math.cos(OMEGA * t), -decay * 1.5 * math.sin(OMEGA * t))
    return mean, D / K * (1 - decay**2) + var0 * decay**2


def test_a_density_that_spirals_in():
    t, errors = 0.6, []
    mean, var = spiralled(t, 0.2)
    for cells in (60, 100):
        solver = FokkerPlanck2D(ROTATING, square(cells))
        start = solver.gaussian((1.5, 0.0), [[0.2, 0.0], [0.0, 0.2]])
        final = solver.solve(start, [0.0, t])[-1]
        exact = gaussian(final.x, final.y, mean, var)
        errors.append(float((final.p - exact).abs().max() / exact.max()))
        assert final.form == "compact"
        assert errors[-1] / 3 < final.error["p"] < 100 * errors[-1]
        assert float(final.p.min()) >= 0
        assert abs(float(final.mass) - 1) < 1e-4
    assert slope([1 / 60, 1 / 100], errors) > 4
    assert errors[-1] < 1e-5
    torch.testing.assert_close(final.mean, torch.tensor(mean).double(), atol=1e-6, rtol=0)
    assert final.covariance[0, 0] == pytest.approx(var, rel=1e-5)
    assert float(final.error) < 1e-3


def test_a_start_at_a_point():
    solver = FokkerPlanck2D(ROTATING, square(90))
    t = 0.5
    start, final = solver.solve((0.123, -1.07), [0.0, t])
    assert float(start.p.min()) >= 0
    c, s = math.cos(OMEGA * t), math.sin(OMEGA * t)
    turned = math.exp(-K * t) * torch.tensor([0.123 * c - 1.07 * s, -0.123 * s - 1.07 * c])
    torch.testing.assert_close(final.mean, turned.double(), atol=1e-4, rtol=0)
    assert final.covariance[0, 0] == pytest.approx(D / K * (1 - math.exp(-2 * K * t)), rel=1e-3)
    assert final.error["p"] < 1e-3


def test_coarse_cells_are_refined_inside_or_said():
    """A start of half a cell: its values at these nodes come from a finer grid."""
    solver = FokkerPlanck2D(ROTATING, square(30, 5.0))
    t = 0.3
    mean, var = spiralled(t, 0.03)
    start = solver.gaussian((1.5, 0.0), [[0.03, 0.0], [0.0, 0.03]])
    with pytest.warns(sg.AccuracyWarning, match="the density at t = 0.3: the estimated"):
        (final,) = solver.solve(start, [0.0, t])[1:]
    exact = gaussian(final.x, final.y, mean, var)
    miss = float((final.p - exact).abs().max() / exact.max())
    assert miss < 5e-3
    assert miss / 3 < final.error["p"]


def test_the_positive_form_is_positive_and_knows_its_error():
    solver = FokkerPlanck2D(ROTATING, square(40, 5.0), form="lumped")
    start = solver.gaussian((1.5, 0.0), [[0.2, 0.0], [0.0, 0.2]])
    with pytest.warns(sg.AccuracyWarning, match="the density at t = 0.6: the estimated relative"):
        final = solver.solve(start, [0.0, 0.6])[-1]
    mean, var = spiralled(0.6, 0.2)
    exact = gaussian(final.x, final.y, mean, var)
    miss = float((final.p - exact).abs().max() / exact.max())
    assert final.form == "lumped"
    assert float(final.p.min()) >= 0
    assert miss / 3 < final.error["p"] < 20 * miss


def test_a_drift_that_depends_on_time_carries_the_density():
    """dX = (sin 3t − X) dt + dW_x, dY = (cos 2t − Y) dt + dW_y: Gaussian, means by quadrature."""

    def pull(x, t):
        return torch.stack([torch.sin(3 * t), torch.cos(2 * t)]).to(x) - x

    t, s = 1.0, torch.linspace(0, 1, 2001, dtype=torch.float64)
    kernel = torch.exp(s - t)
    mean = (
        0.5 * math.exp(-t) + float(torch.trapezoid(kernel * torch.sin(3 * s), s)),
        float(torch.trapezoid(kernel * torch.cos(2 * s), s)),
    )
    var = 0.5 + (0.3 - 0.5) * math.exp(-2 * t)
    solver = FokkerPlanck2D(sg.ItoProcess(pull, 1.0), square(60, reach=5.0))
    start = solver.gaussian((0.5, 0.0), [[0.3, 0.0], [0.0, 0.3]])
    for substeps in (1, 3):
        final = solver.solve(start, [0.0, t], substeps=substeps)[-1]
        exact = gaussian(final.x, final.y, mean, var)
        miss = float((final.p - exact).abs().max() / exact.max())
        assert miss < 1e-4
        assert miss / 3 < final.error["p"] < 1e-3
        torch.testing.assert_close(final.mean, torch.tensor(mean).double(), atol=3e-6, rtol=0)


@pytest.mark.slow
def test_twenty_periods_between_two_times_are_resolved():
    """E X = 2 (sin 3t − 3 cos 3t + 3 e^{−t})/10 under 2 sin 3t − x, with no time in between."""
    sde = sg.ItoProcess(
        lambda x, t: torch.stack([-x[:, 0] + 2 * torch.sin(3 * t), -2 * x[:, 1]], -1), 0.7
    )
    solver = FokkerPlanck2D(sde, (sg.Grid(-4.0, 4.0, 48),) * 2)
    final = solver.solve(solver.gaussian((0.0, 0.0), [[0.2, 0.0], [0.0, 0.2]]), [0.0, 20.0])[-1]
    right = 0.2 * (math.sin(60) - 3 * math.cos(60) + 3 * math.exp(-20))
    assert right == pytest.approx(0.510, abs=1e-3)
    assert final.mean[0] == pytest.approx(right, abs=1e-5)
    assert final.covariance[0, 0] == pytest.approx(0.245, rel=1e-4)
    assert final.covariance[1, 1] == pytest.approx(0.1225, rel=1e-4)
    assert max(final.error.values()) < 1e-3


def kicked(kick, times, cells=24, **options):
    """Density of dX = (u(t) − X) dt + dW in both coordinates, the second pulled half as much."""

    def pull(x, t):
        return torch.stack([kick(t) - x[:, 0], -0.5 * kick(t) - 1.5 * x[:, 1]], 1)

    solver = FokkerPlanck2D(sg.ItoProcess(pull, 1.0), square(cells, 6.0))
    start = solver.gaussian((0.0, 0.0), [[0.4, 0.0], [0.0, 0.4]])
    return solver.solve(start, times, **options)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_pulses_between_two_times_are_seen(seed):
    """Of area ± ½ … 2, widths down to 1e-3 of the run: right to 1 %, or warned of."""
    rng = np.random.default_rng(seed)
    end = 10 ** rng.uniform(-0.5, 1.0)
    width = end * 10 ** rng.uniform(-3, -0.7)
    at, area = rng.uniform(0, end - width), rng.uniform(0.5, 2) * rng.choice([-1, 1])

    def pulse(t):
        inside = (t >= at) & (t < at + width)
        shape = 1.0 if seed % 2 else 2 * torch.sin(math.pi * (t - at) / width) ** 2
        return inside * shape * area / width

    s, w = np.polynomial.legendre.leggauss(80)
    s = at + 0.5 * width * (1 + s)
    kick = pulse(torch.from_numpy(s)).numpy() * w * 0.5 * width
    exact = [float(kick @ np.exp(s - end)), -0.5 * float(kick @ np.exp(1.5 * (s - end)))]
    final = kicked(pulse, [0.0, end])
    for mean, right in zip(final.mean.tolist(), exact, strict=True):
        assert mean == pytest.approx(right, abs=0.01 * max(abs(right), 0.6))


def test_a_narrower_pulse_wants_breakpoints():
    """One of 1e-5 of the run, which nothing can find, is met by the breakpoints it is given."""
    at, width, area, end = 0.3712345, 1e-5, 1.0, 1.0

    def pulse(t):
        return ((t >= at) & (t < at + width)) * area / width

    found = kicked(pulse, [0.0, end], cells=60, breakpoints=[at, at + width])
    exact = area * (1 - math.exp(-width)) / width * math.exp(at + width - end)
    assert found.mean[0] == pytest.approx(exact, rel=1e-2)


def test_a_switch_that_is_known_not_to_be_one_is_not_read():
    """autonomous=True is never overruled: the drift is that of the first time."""
    sde = sg.ItoProcess(lambda x, t: (t > 0.5) * 1.0 - x, 1.0, autonomous=True)
    solver = FokkerPlanck2D(sde, square(40, 5.0))
    start = solver.gaussian((0.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
    final = solver.solve(start, [0.0, 2.0])[-1]
    torch.testing.assert_close(final.mean, torch.zeros(2).double(), atol=1e-9, rtol=0)
    assert not final.assumed_autonomous


def test_a_t_that_changes_nothing_changes_nothing():
    known = FokkerPlanck2D(sg.ItoProcess(lambda x: -x, 1.0), square(40, 5.0))
    asked = FokkerPlanck2D(sg.ItoProcess(lambda x, t: -x + 0 * t, 1.0), square(40, 5.0))
    start = known.gaussian((1.0, 0.0), [[0.3, 0.0], [0.0, 0.3]])
    first, second = (s.solve(start, [0.0, 0.5, 1.5])[-1].p for s in (known, asked))
    assert float((first - second).abs().max()) < 1e-8


def test_a_reverse_sde_in_the_plane_comes_back_to_the_data():
    """Of Gaussian data the score is known; p_T is carried back to N(α μ, α² s² + σ²)."""
    sde, noised = noised_gaussian(mean=0.8, std=0.6)
    solver = FokkerPlanck2D(sg.ReverseSDE(sde, noised.score), square(40, reach=5.0))
    start, end = 1.0, 0.1
    (m, v), (n, w) = (
        [float(moment) for moment in noised.moments(torch.tensor(t))] for t in (start, end)
    )
    p0 = solver.gaussian((m, m), [[v, 0.0], [0.0, v]])
    final = solver.solve(p0, [start, end])[-1]
    miss = float((final.p - gaussian(final.x, final.y, (n, n), w)).abs().max())
    assert miss < 1e-3 * float(final.p.max())
    assert final.mean[0] == pytest.approx(n, abs=1e-4)


def test_rtol_refines_in_space():
    solver = FokkerPlanck2D(ROTATING, square(32, 5.0))
    start = solver.gaussian((1.0, 0.0), [[0.4, 0.0], [0.0, 0.4]])
    final = solver.solve(start, [0.0, 0.5], rtol=1e-4)[-1]
    decay = math.exp(-0.5)
    mean, var = (decay * math.cos(1.0), -decay * math.sin(1.0)), 0.5 - 0.1 * decay**2
    exact = gaussian(final.x, final.y, mean, var)
    assert max(final.error.values()) < 1e-4
    assert float((final.p - exact).abs().max() / exact.max()) < 1e-4
    again = solver.solve_refined(start, [0.0, 0.5])[-1]
    assert float((again.p - exact).abs().max() / exact.max()) < 1e-4


def test_what_is_not_resolved_is_refused_and_handed_over():
    """Noise of 1e-3 in a box of ± 6: the density is narrower than any cell that is tried."""
    solver = FokkerPlanck2D(sg.ItoProcess(lambda x: -x, 1e-3), square(12, 6.0))
    with pytest.raises(sg.SolverError, match=r"the density at t = 3 is not resolved") as raised:
        solver.solve((2.0, 0.0), [0.0, 3.0])
    assert isinstance(raised.value.result[-1], PlaneDensity)


def test_a_change_that_only_finer_nodes_see_is_walked_through():
    """Every other node sees dynamics at rest, and takes one exponential; the others do not."""

    def drift(z, t):
        beside = ((z - 0.125) ** 2).sum(1, keepdim=True)
        return -z + torch.exp(-beside / 2e-6) * torch.sin(3 * t)

    solver = FokkerPlanck2D(sg.ItoProcess(drift, 0.8), square(64, 4.0))
    start = solver.gaussian((0.7, 0.2), [[0.3, 0.05], [0.05, 0.2]])
    final = solver.solve(start, [0.0, 0.5])[-1]
    expected = math.exp(-0.5) * torch.tensor([0.7, 0.2]).double()
    torch.testing.assert_close(final.mean, expected, atol=1e-4, rtol=0)
