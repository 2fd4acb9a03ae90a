import math

import numpy as np
import pytest
import torch
from scipy import special

import sdegen as sg
from sdegen.fokker_planck.discretization.cubics import integral

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
    rate = float(sg.FokkerPlanck(trap, grid, truncation_is_physical=True).spectrum(2).rates[1])
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
    # fourth order, extrapolated from two grids: sixth
    assert errors[-1] < 1e-7
    assert 5.7 < math.log2(errors[0] / errors[1]) < 6.3


def test_a_turning_mode_moves_as_its_rate_says():
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + 1.5, diffusion=1.0)
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 2 * math.pi, 240), "periodic")
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
    turning, real = solver.turning_spectrum(4, rtol=1e-9), solver.spectrum(4)
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


def half_passage_time(u, temperature, low, wall, points=20_001):
    """Half the mean time from a well to its mirror image, from ∫ e^{U/T} ∫ e^{−U/T} in logs."""
    x = np.linspace(low, wall, points)
    h = x[1] - x[0]
    energy = u(x) / temperature
    # Simpson's weights to every node: the rule of the inner integral is a cumulative one
    inner = np.logaddexp.accumulate(-energy + math.log(h))
    inner = np.logaddexp(inner[:-1], inner[1:]) - math.log(2)
    middle = u(0.5 * (x[1:] + x[:-1])) / temperature
    start = int(np.argmin(np.abs(x + wall)))
    terms = (middle + inner)[start:] + math.log(h / temperature)
    return 0.5 * math.exp(np.logaddexp.reduce(terms))


@pytest.mark.parametrize(
    ("temperature", "tau"), [(0.015, 3.938e7), (0.012, 2.527e9), (0.010, 1.625e11)]
)
def test_the_slowest_rate_behind_high_barriers(temperature, tau):
    # with barriers of 17 to 25 kT 1/λ_1 is half the mean first passage time to 10⁻⁷ and better
    exact = half_passage_time(lambda x: x**4 / 4 - x**2 / 2, temperature, -2.0, 1.0)
    assert exact == pytest.approx(tau, rel=5e-4)
    well = sg.Langevin(sg.DoubleWell(), temperature=temperature)
    for cells in (200, 400, 1000):
        modes = sg.FokkerPlanck(well, sg.Grid(-2.0, 2.0, cells)).spectrum(3)
        assert modes.relaxation_time == pytest.approx(exact, rel=1e-6)
        assert float(modes.error) < 1e-6
        assert float(modes.rates[2]) > 0.9


def test_a_double_well_has_one_spectrum_on_every_grid():
    well = sg.Langevin(sg.DoubleWell(), temperature=0.04)
    found = []
    for cells in (300, 400, 500, 600, 800, 1000, 1200, 1400):
        solver = sg.FokkerPlanck(well, sg.Grid(-3.0, 3.0, cells))
        for count in (2, 3, 4, 8):
            found.append(solver.spectrum(count).rates[:2])
    rate = torch.stack(found)[:, 1]
    assert float(rate[0]) == pytest.approx(8.087e-4, rel=1e-4)
    assert float((rate / rate[0] - 1).abs().max()) < 1e-9
    assert float(torch.stack(found)[:, 0].abs().max()) == 0


def washboard(periods, height, *, force=0.0, length=6.0):
    k = 2 * math.pi * periods / length
    return sg.ItoProcess(
        drift=lambda x: 0.5 * height * k * torch.sin(k * x) + force, diffusion=math.sqrt(2)
    )


@pytest.mark.parametrize("height", [2.0, 20.0, 40.0])
@pytest.mark.parametrize("periods", [3, 6])
def test_a_washboard_between_walls_is_the_same_on_all_grids_and_for_all_counts(height, periods):
    rates = []
    for cells in (200, 600):
        solver = sg.FokkerPlanck(
            washboard(periods, height), sg.Grid(-3.0, 3.0, cells), truncation_is_physical=True
        )
        for count in (2, 3, 4, 8):
            rates.append(solver.spectrum(count).rates[1:4])
    four = torch.stack([r for r in rates if len(r) == 3])
    for found in rates:
        assert float((found / four[0, : len(found)] - 1).abs().max()) < 1e-9
    assert float(four.min()) > 0


@pytest.mark.parametrize("height", [10.0, 20.0, 40.0])
def test_the_band_of_a_ring_of_wells_is_that_of_hops(height):
    # hops of rate k to both neighbours: λ_q = 2k (1 − cos 2πq/n), and D_eff = k l²
    periods = 6
    for cells in (200, 500):
        solver = sg.FokkerPlanck(washboard(periods, height), sg.Grid(-3.0, 3.0, cells), "periodic")
        modes = solver.spectrum(6)
        q = np.array([0, 1, 1, 2, 2, 3])
        band = 2 * solver.transport().diffusion * (1 - np.cos(2 * math.pi * q / periods))
        np.testing.assert_allclose(modes.rates.numpy()[1:], band[1:], rtol=3e-4)
        # symmetric: partners are equal, and orthogonal
        np.testing.assert_allclose(modes.rates.numpy()[[1, 3]], modes.rates.numpy()[[2, 4]])
        gram = integral(modes.x, modes.observables[:, None] * modes.densities[None])
        assert float((gram - torch.eye(6, dtype=torch.float64)).abs().max()) < 1e-4
    small = 1.0 if height < 40 else 1e-14
    assert 0 < float(modes.rates[1]) < small


def test_wells_of_equal_rates_have_modes_of_their_own():
    # two equal wells behind 40 kT: the modes within them come in pairs that differ by 10⁻¹⁸
    solver = sg.FokkerPlanck(
        washboard(2, 40.0), sg.Grid(-3.0, 3.0, 500), truncation_is_physical=True
    )
    modes = solver.spectrum(8)
    gram = integral(modes.x, modes.observables[:, None] * modes.densities[None])
    assert float((gram - torch.eye(8, dtype=torch.float64)).abs().max()) < 1e-4
    assert bool((modes.rates.diff() >= -1e-9 * modes.rates[1:]).all())


def test_between_absorbing_walls_the_first_rate_is_that_of_an_escape():
    # behind a barrier of 40 kT the rate is 1/⟨τ⟩ to e^{−40}
    d = 0.25 / 40
    sde = sg.ItoProcess(drift=lambda x: x - x**3, diffusion=math.sqrt(2 * d))
    for walls in (("no-flux", "absorbing"), ("absorbing", "no-flux")):
        low, high = (-1.8, 0.8) if walls[0] == "no-flux" else (-0.8, 1.8)
        solver = sg.FokkerPlanck(sde, sg.Grid(low, high, 520), walls)
        mean = solver.first_passage(moments=1).at(-1.0 if low < -1 else 1.0).mean
        rate = solver.spectrum(2).rates[0]
        assert float(rate * mean) == pytest.approx(1, rel=1e-7)
        assert float(rate) < 1e-15


def test_rates_below_the_smallest_number_are_refused():
    steep = sg.Langevin(sg.DoubleWell(), temperature=2.5e-4)  # a barrier of 1,000 kT
    with pytest.raises(sg.SolverError, match=r"the rate of mode 1 is below 1e-270.*600 kT"):
        sg.FokkerPlanck(steep, sg.Grid(-1.5, 1.5, 4000)).spectrum(2)


@pytest.mark.parametrize("force", [1.0, -1.0, 1e-3, 5.0])
def test_a_tilted_ring_of_high_barriers_turns_as_hops_do(force):
    # λ_q = k₊ (1 − e^{iq}) + k₋ (1 − e^{−iq}), k₊/k₋ = e^{F l}
    periods, length = 4, 6.0
    solver = sg.FokkerPlanck(
        washboard(periods, 40.0, force=force), sg.Grid(-3.0, 3.0, 300), "periodic"
    )
    modes = solver.turning_spectrum(4)
    step = length / periods
    forward, back = 1 / (1 + math.exp(-force * step)), 1 / (1 + math.exp(force * step))
    q = 2 * math.pi / periods * np.array([1, 1, 2])
    shape = forward * (1 - np.exp(1j * q)) + back * (1 - np.exp(-1j * q))
    found = modes.rates.numpy()[1:]
    scale = found[2].real / shape[2].real
    assert 1e-17 < scale < 1e-12
    np.testing.assert_allclose(found.real, scale * shape.real, rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.imag[:2]), np.abs(scale * shape.imag[:2]), rtol=1e-5)


def test_errors_of_rates_stand_beside_them():
    well = sg.Langevin(sg.DoubleWell(), temperature=0.05)
    fine = sg.FokkerPlanck(well, sg.Grid(-3.0, 3.0, 1600)).spectrum(4).rates[1:]
    rough = sg.FokkerPlanck(well, sg.Grid(-3.0, 3.0, 60))
    for rtol in (None, 1e-10):
        modes = rough.spectrum(4, rtol=rtol)
        true = (modes.rates[1:] / fine - 1).abs()
        assert bool((3 * modes.error["rates"][1:] >= true - 1e-12).all())
        assert float(modes.error) <= (rtol or 1e-7)
    # a drift that jumps costs the order, and is told
    jump = sg.ItoProcess(drift=lambda x: -x + 3 * (x > 0.1234567).to(x), diffusion=1.0)
    modes = sg.FokkerPlanck(jump, sg.Grid(-4.0, 7.0, 101)).spectrum(2)
    finer = sg.FokkerPlanck(jump, sg.Grid(-4.0, 7.0, 20_011)).spectrum(2)
    assert abs(float(modes.rates[1] / finer.rates[1]) - 1) <= 3 * float(modes.error)
    with pytest.raises(sg.SolverError, match="was not found to rtol = 1e-12"):
        sg.FokkerPlanck(jump, sg.Grid(-4.0, 7.0, 101)).spectrum(2, rtol=1e-12)
    assert modes.assumed_autonomous is False
    takes_t = sg.ItoProcess(drift=lambda x, t: -x + 0 * t, diffusion=1.0)
    assert sg.FokkerPlanck(takes_t, sg.Grid(-6.0, 6.0, 100)).spectrum(2).assumed_autonomous


def test_of_a_pair_that_the_count_splits_the_forward_partner_is_given():
    sde = sg.ItoProcess(drift=lambda x: 2 * torch.cos(x) + 1.5, diffusion=1.0)
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 2 * math.pi, 100), "periodic")
    whole = solver.turning_spectrum(5).rates
    assert float(whole[3].imag) > 0
    for count in (2, 4):
        torch.testing.assert_close(
            solver.turning_spectrum(count).rates, whole[:count], rtol=1e-7, atol=1e-9
        )


def _misses(rate, f, g):
    """How far a rate is from the root of the exact condition next to it, D = ½, relative.

    On each half of the ring p is a sum of two exponentials; p and f p − p′/2 are continuous.
    """
    import mpmath as mp

    mp.mp.dps = 200

    def condition(rate):
        def half(drift, x):
            root = mp.sqrt(drift**2 - 2 * rate)
            each = [(drift + s * root, mp.exp((drift + s * root) * x)) for s in (1, -1)]
            return [[e for _, e in each], [(drift - r / 2) * e for r, e in each]]

        low, high = half(f, 0.5), half(g, 0)
        start, end = half(f, 0), half(g, 0.5)
        rows = [[*a, *(-v for v in b)] for a, b in ((low[0], high[0]), (low[1], high[1]))]
        rows += [[*a, *(-v for v in b)] for a, b in ((start[0], end[0]), (start[1], end[1]))]
        return mp.det(mp.matrix(rows))

    root = mp.findroot(condition, (mp.mpf(rate), mp.mpf(rate) * (1 + mp.mpf("1e-6"))))
    return float(abs(root / rate - 1))


def test_a_strong_drive_does_not_drown_its_modes_in_rounding():
    """Sides as steep as 400 and 100 kT on a ring: rates were ±1e-7, where all are above 5000."""
    sde = sg.ItoProcess(lambda x: torch.where((x % 1.0) < 0.5, 400.0, -100.0).to(x), 1.0)
    modes = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 64), "periodic").turning_spectrum(4)
    assert float(modes.rates.imag.abs().max()) < 1e-3
    for rate, told in zip(modes.rates.real[1:], modes.error["rates"][1:], strict=True):
        assert _misses(float(rate), 400, -100) <= 3 * float(told) < 1e-6


@pytest.mark.parametrize("height", [60.0, 100.0])
def test_a_ring_of_wells_behind_barriers_that_hardly_let_pass(height):
    """Rates of hops between 8 wells: rounding of the energy made 1e-23 of 4e-40, told to 5 %.

    Those of modes 1 and 2 are one pair, that of mode 4 is ½ sin⁻²(π/8) of them: λ ∝ 1 − cos 2πk/8.
    """
    wells = 8
    a = math.pi * wells * height
    sde = sg.ItoProcess(lambda x: -a * torch.sin(2 * math.pi * wells * x), math.sqrt(2.0))
    modes = sg.FokkerPlanck(sde, sg.Grid(0.0, 1.0, 480), "periodic").spectrum(4)
    hop = math.pi * wells**2 * height * math.exp(-height)  # Kramers, which 1/(4·height) mends
    first = 2 * hop * (1 - math.cos(2 * math.pi / wells))
    assert float(modes.rates[1]) == pytest.approx(first * (1 - 0.5 / height), rel=1e-3)
    told = 3 * float(modes.error["rates"].max())
    assert told < 1e-3
    assert float(modes.rates[2] / modes.rates[1]) == pytest.approx(1, rel=told)
    ratio = 1 / (1 - math.cos(math.pi / 4))
    assert float(modes.rates[3] / modes.rates[1]) == pytest.approx(ratio, rel=told)
