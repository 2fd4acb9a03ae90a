"""Displacements: sums by hand, exact laws of chains, and errors that are those of trajectories."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.observables.displacement import _transformed, squared_displacements

F64 = torch.float64
PLANE = sg.ItoProcess(lambda x: torch.stack([x[:, 1], -x[:, 0] - 0.3 * x[:, 1]], 1), 0.7)


def walk(sde, x0, times, *observables, n=2000, **options):
    """Results of observables in an ensemble."""
    options = {"solver": sg.EulerMaruyama(), "rng": 3} | options
    run = sg.run_ensemble(
        sde, x0, times, trajectories=n, observables=observables, progress=False, **options
    )
    found = [run.observables[o.name] for o in observables]
    return found[0] if len(found) == 1 else found


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_displacements_are_those_of_the_states(dtype, small_blocks):
    """By hand in NumPy, over all origins and from the start, with the spread of trajectories."""
    times, n = torch.linspace(0, 1, 11), 1500
    x0 = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=F64).to(dtype)
    every, start = walk(
        PLANE, x0, times, sg.MeanSquaredDisplacement(lags=[0.1, 0.2, 0.5]),
        sg.MeanSquaredDisplacement(origins="start", name="start"), n=n,
    )  # fmt: skip
    path = sg.simulate(PLANE, x0, times, solver=sg.EulerMaruyama(), rng=3)
    x = path.states.double().numpy()
    assert start.lags.tolist() == pytest.approx(np.linspace(0.1, 1, 10))
    each = {
        "all": [(x[m:] - x[:-m]).transpose(1, 0, 2) for m in (1, 2, 5)],
        "start": [(x[m : m + 1] - x[:1]).transpose(1, 0, 2) for m in range(1, 11)],
    }
    for found, gaps in ((every, each["all"]), (start, each["start"])):
        assert (found.count, found.lost, found.dimensions) == (n, 0, 2)
        square = np.stack([(gap**2).mean(1) for gap in gaps])  # (K, rows, 2)
        mean = np.stack([gap.mean(1) for gap in gaps])
        total = square.sum(2)
        np.testing.assert_allclose(found.total, total.mean(1), rtol=1e-12)
        np.testing.assert_allclose(found.square, square.mean(1), rtol=1e-12)
        np.testing.assert_allclose(found.mean, mean.mean(1), rtol=1e-10, atol=1e-14)
        root = math.sqrt(n)
        np.testing.assert_allclose(found.total_error, total.std(1, ddof=1) / root, rtol=1e-10)
        np.testing.assert_allclose(found.square_error, square.std(1, ddof=1) / root, rtol=1e-10)
        np.testing.assert_allclose(found.mean_error, mean.std(1, ddof=1) / root, rtol=1e-10)
        np.testing.assert_allclose(found.covariance, np.cov(total) / n, rtol=1e-9)
    # from the start, the spread is the variance of the displacement
    gap = np.stack([(x[m] - x[0]) for m in range(1, 11)])
    np.testing.assert_allclose(start.spread, gap.var(1, ddof=1).sum(1), rtol=1e-11)
    # and a function of the path has the same formula
    again = sg.mean_squared_displacement(path, lags=[0.1, 0.2, 0.5])
    torch.testing.assert_close(again.total, every.total, rtol=1e-12, atol=0)
    torch.testing.assert_close(again.covariance, every.covariance, rtol=1e-9, atol=0)


def test_the_transform_is_the_sum_to_rounding():
    """Both of |x|² ε; a sign or an origin off by one would be O(1)."""
    x = torch.randn(700, 3, 2, generator=torch.Generator().manual_seed(1), dtype=F64).cumsum(0) + 5
    steps = torch.arange(700)
    direct = torch.stack([(x[m:] - x[: 700 - m]).square().mean(0) for m in range(700)])
    largest = float((x - x.mean(0)).square().max())
    for found in (_transformed(x), squared_displacements(x, steps)):
        assert float((found - direct).abs().max()) < 1e-14 * largest * math.log2(1400)
    few = squared_displacements(x, steps[[1, 6, 300]])
    assert torch.equal(few, direct[[1, 6, 300]])


def test_a_stationary_chain_has_its_own_displacement(small_blocks):
    """X' = a X + noise: MSD of m steps is 2 s² (1 − a^m), s² its variance; 5 errors, 1e-6 each."""
    k, dt, n = 1.0, 0.1, 4000

    def chain(steps, dt):
        a = 1 - k * dt
        return 2 * (2 * k * dt / (1 - a * a)) * (1 - a**steps)

    # 2 (D/k)(1 − e^{−kτ}) in the limit of short steps
    assert chain(10**6, 1e-6) == pytest.approx(2 * (1 - math.exp(-1)), rel=1e-5)
    s = math.sqrt(chain(10**4, dt) / 2)
    found = walk(
        sg.OrnsteinUhlenbeck(rate=k, sigma=math.sqrt(2 * k)),
        lambda rows, rng: s * torch.randn(rows, 1, generator=rng, dtype=F64),
        torch.linspace(0, 6, 61), sg.MeanSquaredDisplacement(), n=n,
    )  # fmt: skip
    steps = (found.lags / dt).round()
    assert steps.tolist() == list(range(1, 16))  # up to a quarter of the run
    exact = chain(steps, dt)
    assert float(((found.total - exact) / found.total_error).abs().max()) < 5


def test_around_a_ring_displacements_are_on_the_line(small_blocks):
    """Drift and diffusion exact at any step: MSD = 2Dτ + v²τ², D from its spread; 4.9 errors."""
    v, n, times = 0.8, 20_000, [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
    sde = sg.ItoProcess(lambda x: torch.full_like(x, v), 1.0)
    x0 = torch.full((1, 1), 0.5, dtype=F64)
    wanted = sg.MeanSquaredDisplacement(origins="start")
    found = walk(sde, x0, times, wanted, n=n, boundary=sg.Periodic(0.0, 1.0))
    line = walk(sde, x0, times, wanted, n=n)
    torch.testing.assert_close(found.total, line.total, rtol=1e-10, atol=0)
    tau = found.lags
    assert float(((found.total - tau - v * v * tau**2) / found.total_error).abs().max()) < 4.9
    assert float(((found.mean[:, 0] - v * tau) / found.mean_error[:, 0]).abs().max()) < 4.9
    exact_error = tau * math.sqrt(2 / (n - 1))  # of a variance of normal numbers
    assert float(((found.spread - tau) / exact_error).abs().max()) < 4.9
    measured = found.spread_covariance.diagonal().sqrt()
    torch.testing.assert_close(measured, exact_error, rtol=0.05, atol=0)
    d = sg.diffusion_coefficient(found, drift=True)
    assert abs(d.coefficient - 0.5) < 4.9 * d.error
    assert d.error < 0.01
    with pytest.warns(sg.AccuracyWarning, match=r"no straight line .* drift=True"):
        assert sg.diffusion_coefficient(found).coefficient > 1.5


def test_positions_alone_count_in_a_phase_space(small_blocks):
    times = torch.linspace(0, 1, 6)
    sde = sg.UnderdampedLangevin(sg.Quadratic(), friction=0.5)
    x0 = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(4), dtype=F64)
    found = walk(sde, x0, times, sg.MeanSquaredDisplacement(origins="start"), n=50, solver=None)
    path = sg.simulate(sde, x0, times, rng=3)
    gap = path.x[1:] - path.x[0]
    torch.testing.assert_close(found.total, gap.square().sum(2).mean(1), rtol=1e-12, atol=0)
    again = sg.mean_squared_displacement(path, origins="start")
    torch.testing.assert_close(again.total, found.total, rtol=1e-12, atol=0)
    assert found.square.shape == (5, 3)


def test_particles_and_coordinates(small_blocks):
    """D of 30 particles in the plane is that of one; one coordinate has half of the MSD."""
    times, n = torch.linspace(0, 1, 21), 60
    x0 = torch.zeros(1, 30, 2, dtype=F64)
    together, first, alone = walk(
        sg.BrownianMotion(1.0), x0, times, sg.MeanSquaredDisplacement(particles=True),
        sg.MeanSquaredDisplacement(particles=True, coordinates=[1], name="one"),
        sg.MeanSquaredDisplacement(coordinates=[1, 3], name="alone"), n=n,
    )  # fmt: skip
    assert together.square.shape == (5, 2)
    assert (together.dimensions, first.dimensions, alone.dimensions) == (2, 1, 2)
    torch.testing.assert_close(first.total, together.square[:, 1], rtol=1e-12, atol=0)
    path = sg.simulate(sg.BrownianMotion(1.0), x0.expand(n, -1, -1), times, rng=3,
                       solver=sg.EulerMaruyama())  # fmt: skip
    gap = (path.states[2:] - path.states[:-2]).square()
    assert float(together.total[1]) == pytest.approx(float(gap.sum(3).mean()), rel=1e-12)
    assert float(alone.total[1]) == pytest.approx(
        float(gap.flatten(2)[..., [1, 3]].sum(2).mean()), rel=1e-12
    )
    d = sg.diffusion_coefficient(together)
    assert abs(d.coefficient - 0.5) < 4.9 * d.error
    assert d.error < 0.02


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.MeanSquaredDisplacement(lags=[0.0, 1.0]), ValueError, "must be finite, > 0"),
        (lambda: sg.MeanSquaredDisplacement(lags=[2.0, 1.0]), ValueError, "and increasing"),
        (lambda: sg.MeanSquaredDisplacement(lags=[]), ValueError, "one lag or more"),
        (lambda: sg.MeanSquaredDisplacement(lags=1.0), ValueError, r"pass lags=\[0.1, 1.0\]"),
        (lambda: sg.MeanSquaredDisplacement(lags="short"), TypeError, "must be a list of lags"),
        (lambda: sg.MeanSquaredDisplacement(origins="some"), ValueError, "'all' or 'start'"),
        (lambda: sg.MeanSquaredDisplacement(coordinates=0), TypeError, r"pass coordinates=\[0\]"),
        (lambda: sg.MeanSquaredDisplacement(coordinates=[1, 1]), ValueError, "each once"),
        (lambda: sg.MeanSquaredDisplacement(particles=1), TypeError, "particles must be True or"),
        (
            lambda: _short(sg.MeanSquaredDisplacement(), times=[0.0, 1.0, 3.0]),
            ValueError,
            r"steps go from 1 to 2: all origins .* or pass origins=.start.",
        ),
        (
            lambda: _short(sg.MeanSquaredDisplacement(lags=[0.15])),
            ValueError,
            r"lags\[0\] = 0.15 is no time .* the nearest is 0.1, the longest 0.2",
        ),
        (
            lambda: _short(sg.MeanSquaredDisplacement(coordinates=[2])),
            ValueError,
            r"coordinates of 'displacement' are \(2,\), but there are 0 … 0",
        ),
        (
            lambda: _short(sg.MeanSquaredDisplacement(particles=True)),
            ValueError,
            r"particles=True .* \(particles, dim\), but they have shape \(1,\); leave it out",
        ),
    ],
)  # fmt: skip
def test_refusals(make, kind, told, as_user):
    with pytest.raises(kind, match=told):
        make()


def _short(observable, times=(0.0, 0.1, 0.2)):
    return walk(sg.BrownianMotion(), torch.zeros(1, 1, dtype=F64), times, observable, n=3)
