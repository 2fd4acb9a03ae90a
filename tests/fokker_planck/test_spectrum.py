import math

import numpy as np
import pytest
import torch
from scipy import special

import sdegen as sg
from sdegen.fokker_planck.density import integral

ARANGE = torch.arange(5, dtype=torch.float64)


def test_ornstein_uhlenbeck_and_hermite():
    modes = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-10.0, 10.0, 800)).spectrum(5)
    assert float((modes.rates - ARANGE).abs().max()) < 1e-9
    assert modes.relaxation_time == pytest.approx(1.0, abs=1e-11)
    x = modes.x[240:561]
    hermite = [torch.ones_like(x), x, (x**2 - 1) / math.sqrt(2), (x**3 - 3 * x) / math.sqrt(6)]
    for got, polynomial in zip(modes.observables[:, 240:561], hermite, strict=False):
        assert float((got - polynomial).abs().max()) < 1e-6
    normal = torch.exp(-(modes.x**2) / 2) / math.sqrt(2 * math.pi)
    assert float((modes.densities[0] - normal).abs().max()) < 1e-10
    assert float((modes.densities[1] - modes.x * normal).abs().max()) < 1e-8


def test_a_grid_that_cuts_the_density_has_no_spectrum_of_the_line():
    trap, grid = sg.OrnsteinUhlenbeck(), sg.Grid(-1.0, 1.0, 200)
    with pytest.raises(ValueError, match=r"x = -1, is 0\.607 of its peak: the grid cuts it"):
        sg.FokkerPlanck(trap, grid).spectrum()
    for boundary in (("no-flux", "absorbing"), ("absorbing", "no-flux")):
        with pytest.raises(ValueError, match=r"is 0\.607 of its peak: the grid cuts it"):
            sg.FokkerPlanck(trap, grid, boundary).spectrum()
    # between walls: φ′ = 0 at ±1 and D φ″ − x φ′ = −λφ, odd: x M(½(1 − λ), 3/2, x²/2)
    rate = float(sg.FokkerPlanck(trap, grid, physical_walls=True).spectrum(2).rates[1])
    a = 0.5 * (1 - rate)
    slope_at_wall = special.hyp1f1(a, 1.5, 0.5) + a / 1.5 * special.hyp1f1(a + 1, 2.5, 0.5)
    assert abs(slope_at_wall) < 1e-7
    hill = sg.ItoProcess(drift=lambda x: x, diffusion=1.0)
    with pytest.raises(sg.NotNormalizableError, match="no spectrum that belongs to the line"):
        sg.FokkerPlanck(hill, sg.Grid(-3.0, 3.0, 200)).spectrum()


def test_modes_are_orthonormal():
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=0.7)
    modes = sg.FokkerPlanck(sde, sg.Grid(-3.0, 3.0, 400)).spectrum(5)
    gram = integral(modes.x, modes.observables[:, None] * modes.densities[None])
    assert float((gram - torch.eye(5, dtype=torch.float64)).abs().max()) < 1e-6


def test_wright_fisher():
    theta, mu, nu = 1.3, 0.4, 0.15
    sde = sg.ItoProcess(
        drift=lambda x: theta * (mu - x),
        diffusion=lambda x: torch.sqrt(2 * theta * nu * x * (1 - x)),
    )
    modes = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 800)).spectrum(4)
    n = ARANGE[:4]
    exact = theta * n * (1 + nu * (n - 1))
    assert float((modes.rates - exact).abs().max()) < 1e-5


def test_a_box_with_absorbing_walls():
    length, d = 2.0, 0.5
    grid = sg.Grid(0.0, length, 400)
    modes = sg.FokkerPlanck(sg.BrownianMotion(1.0), grid, "absorbing").spectrum(4)
    exact = d * (math.pi / length * torch.arange(1, 5, dtype=torch.float64)) ** 2
    assert float((modes.rates / exact - 1).abs().max()) < 1e-8
    assert float(modes.observables[:, [0, -1]].abs().max()) == 0


def test_a_free_ring_has_pairs():
    grid = sg.Grid(0.0, 2 * math.pi, 200)
    modes = sg.FokkerPlanck(sg.BrownianMotion(math.sqrt(2)), grid, "periodic").spectrum(5)
    np.testing.assert_allclose(modes.rates.numpy(), [0, 1, 1, 4, 4], atol=1e-6)


def test_autocorrelation_of_a_trap_is_exponential():
    solver = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(rate=2.0), sg.Grid(-8.0, 8.0, 800))
    times = torch.tensor([0.0, 0.3, 1.0, 2.0], dtype=torch.float64)
    got = solver.correlation(lambda x: x, times)
    assert float((got - 0.5 * torch.exp(-2 * times)).abs().max()) < 1e-9
    # x² decays twice as fast, from Var x² = 2 (D/k)²
    square = solver.correlation(lambda x: x**2, times)
    assert float((square - 0.5 * torch.exp(-4 * times)).abs().max()) < 1e-9
    assert float(solver.correlation(lambda x: x, times, lambda x: x**2).abs().max()) < 1e-12


def test_correlation_is_the_sum_over_modes():
    sde = sg.ItoProcess(drift=lambda x: x - x**3 + 0.2, diffusion=0.7)
    solver = sg.FokkerPlanck(sde, sg.Grid(-3.0, 3.0, 400))
    times = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    got = solver.correlation(lambda x: x, times)
    modes = solver.spectrum(30)
    weights = integral(modes.x, modes.x * modes.densities)[1:] ** 2
    summed = (weights * torch.exp(-modes.rates[1:] * times[:, None])).sum(1)
    assert float((got - summed).abs()[1:].max()) < 1e-6


def test_a_free_drift_turns_its_modes():
    # λ = D q² ± i v q on a ring, q = 2πn/ℓ
    v, d, length = 1.5, 0.2, 3.0
    sde = sg.ItoProcess(drift=lambda x: torch.full_like(x, v), diffusion=math.sqrt(2 * d))
    errors = []
    for cells in (50, 100):
        modes = sg.FokkerPlanck(sde, sg.Grid(0.0, length, cells), "periodic").turning_spectrum(5)
        q = 2 * math.pi / length * np.array([0, 1, 1, 2, 2])
        exact = d * q**2 + 1j * v * q * np.array([0, 1, -1, 1, -1])
        errors.append(np.abs(modes.rates.numpy() - exact).max())
        assert modes.rates[0] == 0
        # a plane wave has the same weight everywhere
        assert float((modes.densities.abs() ** 2 * length - 1).abs().max()) < 1e-8
    assert errors[-1] < 1e-4
    assert 3.8 < math.log2(errors[0] / errors[1]) < 4.2


def test_a_turning_mode_moves_as_its_rate_says():
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + 1.5, diffusion=1.0)
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 2 * math.pi, 200), "periodic")
    modes, rest = solver.turning_spectrum(4), solver.stationary()
    assert float(modes.rates[1].imag) > 0.5
    torch.testing.assert_close(modes.rates[2], modes.rates[1].conj(), rtol=1e-9, atol=0)
    psi, t = modes.densities[1], 0.8
    start = sg.Density(rest.x, rest.p + 0.02 * psi.real)
    moved = solver.solve(start, [0.0, t]).final.p - rest.p
    expected = 0.02 * (torch.exp(-modes.rates[1] * t) * psi).real
    assert float((moved - expected).abs().max()) < 1e-9
    # without a current it is the real spectrum
    still = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x), diffusion=1.0)
    solver = sg.FokkerPlanck(still, sg.Grid(0.0, 2 * math.pi, 200), "periodic")
    turning, real = solver.turning_spectrum(4), solver.spectrum(4)
    assert float((turning.rates - real.rates).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: solver().turning_spectrum(), "complex on a ring only, but boundary is"),
        (lambda: solver().spectrum(1), "count must lie between 2 and 24"),
        (lambda: solver().spectrum(40), "count must lie between 2 and 24"),
        (lambda: solver().correlation(lambda x: x, [1.0, 2.0]), r"times\[0\] = 1"),
        (
            lambda: solver(lambda x: 1 + torch.cos(0.2 * math.pi * x), "periodic").spectrum(),
            r"a current runs around the ring.* ask for turning_spectrum\(\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def solver(drift=lambda x: -x, boundary="no-flux"):
    sde = sg.ItoProcess(drift=drift, diffusion=1.0)
    return sg.FokkerPlanck(sde, sg.Grid(-5.0, 5.0, 100), boundary)
