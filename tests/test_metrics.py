"""Distances against closed forms, other libraries, and the axioms they must obey."""

import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import sdegen as sg
from sdegen.core.noise import stream


@dataclass(frozen=True)
class Cells:
    """The least that the metrics ask of a density; F linear within a cell."""

    x: torch.Tensor
    cell_masses: torch.Tensor

    def cdf(self, points):
        steps = torch.cat([torch.zeros(1).double(), self.cell_masses.cumsum(0)])
        return torch.from_numpy(np.interp(points.numpy(), self.x.numpy(), steps.numpy()))


def gaussian_cells(low=-6.0, high=6.0, cells=200, mean=0.0):
    x = torch.linspace(low, high, cells + 1, dtype=torch.float64)
    return Cells(x, torch.special.ndtr(x - mean).diff())


def normal(*shape, rng=0):
    return stream(rng, "test").normal(shape, dtype=torch.float64)


# total variation


def test_total_variation_counts_by_hand():
    x = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    density = Cells(x, torch.tensor([0.5, 0.5], dtype=torch.float64))
    samples = torch.tensor([[0.5], [0.9], [0.1], [1.0]])  # a node belongs to the cell on its right
    assert sg.metrics.total_variation(samples, density) == pytest.approx(0.25, abs=1e-15)
    outside = torch.tensor([[0.5], [2.0], [-7.0], [3.5]])  # ½(¼ + ¼ + ½)
    assert sg.metrics.total_variation(outside, density) == pytest.approx(0.5, abs=1e-15)
    assert sg.metrics.total_variation(outside - 100, density) == pytest.approx(1.0, abs=1e-15)


def test_total_variation_counts_what_a_wall_absorbed():
    x = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    density = Cells(x, torch.tensor([0.25, 0.25], dtype=torch.float64))  # half has left
    stuck = torch.tensor([[0.0], [2.0], [0.3], [1.7]])  # absorbed ones sit on the walls
    assert sg.metrics.total_variation(stuck, density) == pytest.approx(0.0, abs=1e-15)
    alive = torch.tensor([[0.4], [1.2], [0.3], [1.7]])
    assert sg.metrics.total_variation(alive, density) == pytest.approx(0.5, abs=1e-15)


def test_total_variation_of_shifted_gaussians_is_the_closed_form():
    # TV(N(0,1), N(δ,1)) = 2Φ(δ/2) − 1; n points at the quantiles of N(δ, 1) have no sampling noise
    n, delta = 400_000, 1.0
    points = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n) + delta
    found = sg.metrics.total_variation(points[:, None], gaussian_cells(cells=400))
    exact = 2 * float(torch.special.ndtr(torch.tensor(delta / 2, dtype=torch.float64))) - 1
    # each of 401 cells is off by a point at most, and one cell, of mass .012, has both signs
    assert found == pytest.approx(exact, abs=401 / n / 2 + 1e-4)


def test_floor_against_exact_sums():
    masses = torch.tensor([0.3, 0.05, 0.65, 0.0], dtype=torch.float64)
    for n in (1, 2, 7, 20, 100):
        exact = sum(
            0.5 * sum(abs(k / n - m) * stats.binom.pmf(k, n, m) for k in range(n + 1))
            for m in masses.tolist()
        )
        assert sg.metrics.total_variation_floor(masses, n) == pytest.approx(exact, rel=1e-11)


@pytest.mark.slow
def test_floor_at_a_hundred_thousand_against_the_binomial_law():
    n, density = 100_000, gaussian_cells()
    exact = 0.0
    for m in density.cell_masses.tolist():
        k = torch.arange(0, n + 1, dtype=torch.float64).numpy()
        exact += 0.5 * float((abs(k / n - m) * stats.binom.pmf(k, n, m)).sum())
    # the logarithms of factorials are of size 10⁶: eleven digits are left
    assert sg.metrics.total_variation_floor(density, n) == pytest.approx(exact, rel=1e-8)


def test_floor_is_what_exact_samples_show():
    n, repeats, density = 2_000, 300, gaussian_cells()
    draws = normal(repeats, n, 1)
    shown = torch.tensor([sg.metrics.total_variation(x, density) for x in draws])
    floor = sg.metrics.total_variation_floor(density, n)
    z = (float(shown.mean()) - floor) / (float(shown.std()) / math.sqrt(repeats))
    assert abs(z) < 4.5  # false alarm 7e-6


def test_floor_of_certain_cells_is_zero():
    sure = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert sg.metrics.total_variation_floor(sure, 50) == 0.0


def test_floor_counts_what_a_wall_absorbed():
    whole = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
    assert sg.metrics.total_variation_floor(whole[:2], 30) == pytest.approx(
        sg.metrics.total_variation_floor(whole, 30), rel=1e-14
    )


# on the line


def test_kolmogorov_smirnov_against_scipy():
    density = gaussian_cells(cells=2_000)
    samples = normal(5_000, 1, rng=1) + 0.05
    theirs = stats.kstest(samples[:, 0].numpy(), "norm").statistic
    # F linear within a cell of h = .006: off by h² max|p′|/8 = 1.1e-6
    assert sg.metrics.kolmogorov_smirnov(samples, density) == pytest.approx(theirs, abs=2e-6)


def test_metrics_of_a_nodal_density():
    # the same, with the density that a solver returns: its cdf is of fourth order, h = .06 here
    density = sg.Grid(-6.0, 6.0, cells=200).gaussian(mean=0.0, std=1.0)
    samples = normal(3_000, 1, rng=20) * 1.1
    theirs = stats.kstest(samples[:, 0].numpy(), "norm").statistic
    assert sg.metrics.kolmogorov_smirnov(samples, density) == pytest.approx(theirs, abs=1e-7)
    fine = sg.metrics.wasserstein_1d(samples, gaussian_cells(cells=20_000))
    assert sg.metrics.wasserstein_1d(samples, density) == pytest.approx(fine, rel=1e-3)
    cells = gaussian_cells()
    assert sg.metrics.total_variation(samples, density) == pytest.approx(
        sg.metrics.total_variation(samples, cells), abs=1e-6
    )
    assert sg.metrics.total_variation_floor(density, 100) == pytest.approx(
        sg.metrics.total_variation_floor(cells, 100), rel=1e-6
    )


def test_kolmogorov_smirnov_of_the_very_quantiles():
    n = 50
    uniform = Cells(torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0]).double())
    points = (torch.arange(n).double()[:, None] + 0.5) / n
    assert sg.metrics.kolmogorov_smirnov(points, uniform) == pytest.approx(1 / (2 * n), rel=1e-12)
    assert sg.metrics.kolmogorov_smirnov(points + 2, uniform) == pytest.approx(1.0, abs=1e-15)


def test_wasserstein_1d_against_scipy():
    x, y = normal(400, 1, rng=2), 1.5 * normal(277, 1, rng=3) + 0.2
    theirs = stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sg.metrics.wasserstein_1d(x, y) == pytest.approx(theirs, rel=1e-12)


def test_wasserstein_1d_to_a_density_by_hand():
    uniform = Cells(torch.tensor([0.0, 0.5, 1.0]).double(), torch.tensor([0.5, 0.5]).double())
    for a in (-1.0, 0.0, 0.3, 0.5, 2.0):
        # all mass moves to a: ∫₀¹ |u − a| du
        exact = abs(a - 0.5) if not 0 < a < 1 else 0.5 * (a * a + (1 - a) ** 2)
        point = torch.full((3, 1), a, dtype=torch.float64)
        assert sg.metrics.wasserstein_1d(point, uniform) == pytest.approx(exact, rel=1e-12)
    n = 20  # at the midpoints of n equal pieces: every piece moves 1/(4n) on average
    points = (torch.arange(n).double()[:, None] + 0.5) / n
    assert sg.metrics.wasserstein_1d(points, uniform) == pytest.approx(1 / (4 * n), rel=1e-12)


def test_wasserstein_1d_to_a_density_against_scipy():
    x = 1.3 * normal(200, 1, rng=4) + 0.4
    grid = torch.linspace(-9, 9, 400_001, dtype=torch.float64)
    steps = (x.sort(0).values[:, 0][None] <= grid[:, None]).double().mean(1)
    integrand = (steps - torch.special.ndtr(grid)).abs()
    by_quadrature = float(torch.trapezoid(integrand, grid))
    ours = sg.metrics.wasserstein_1d(x, gaussian_cells(-9, 9, 4_000))
    # quadrature: 200 jumps of 1/200, each placed within 4.5e-5/2; cells: h² ∫|p′|/12 = 1.3e-6
    assert ours == pytest.approx(by_quadrature, abs=2.5e-5)


def test_distribution_functions_need_the_whole_mass():
    half = Cells(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.75]).double())
    for metric in (sg.metrics.kolmogorov_smirnov, sg.metrics.wasserstein_1d):
        with pytest.raises(ValueError, match=r"holds a mass of 0\.75, not 1"):
            metric(torch.ones(3, 1), half)


# in any dimension


@pytest.mark.parametrize("event", [(1,), (2,), (3,), (1, 4, 4)])
def test_sliced_wasserstein_of_a_translation(event, device, dtype):
    x = normal(300, *event, rng=5).to(device=device, dtype=dtype)
    shift = normal(*event, rng=6).to(device=device, dtype=dtype)
    d = shift.numel()
    exact = float(shift.norm()) / math.sqrt(d)
    # E(θ·δ)² = |δ|²/d, and whole orthonormal frames give it without Monte Carlo
    found = sg.metrics.sliced_wasserstein(x, x + shift, projections=3 * d)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert found == pytest.approx(exact, rel=tolerance)


def test_sliced_wasserstein_of_a_scaled_copy():
    # W2(θx, 3θx)² = 4 mean (θx)², which a frame of directions turns into 4 mean |x|²/d
    x = normal(500, 5, rng=7)
    x = x / x.norm(dim=1, keepdim=True)
    found = sg.metrics.sliced_wasserstein(x, 3 * x, projections=10)
    assert found == pytest.approx(2 * math.sqrt(1 / 5), rel=1e-10)


def test_sliced_wasserstein_of_correlated_gaussians_is_the_closed_form():
    # N(0, I) against N(0, diag(a², 1)) in the plane: E (√(1 + (a² − 1)cos²φ) − 1)²
    n, a = 40_000, 3.0
    phi = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)[:-1]
    exact = math.sqrt(float(((1 + (a * a - 1) * phi.cos() ** 2).sqrt() - 1).square().mean()))
    x, y = normal(n, 2, rng=8), normal(n, 2, rng=9) * torch.tensor([a, 1.0], dtype=torch.float64)
    found = sg.metrics.sliced_wasserstein(x, y, projections=32)
    # 32 even directions integrate a smooth periodic function to 1e-9; what is left is the spread
    # of an empirical W2, at most that of a sample's standard deviation, √(a² + 1)/√(2n) = .011
    assert found == pytest.approx(exact, abs=4.5 * 0.0112)


def test_sliced_wasserstein_of_unequal_numbers():
    x, y = normal(60, 3, rng=10), normal(45, 3, rng=11) + 0.3
    # the same laws with every point repeated: 60·3 = 45·4 points each, matched in order
    even = sg.metrics.sliced_wasserstein(x.repeat(3, 1), y.repeat(4, 1), projections=30)
    assert sg.metrics.sliced_wasserstein(x, y, projections=30) == pytest.approx(even, rel=1e-10)


def test_sliced_wasserstein_is_reproducible_and_chunks_agree(monkeypatch):
    x, y = normal(50, 4, rng=12), normal(70, 4, rng=13)
    whole = sg.metrics.sliced_wasserstein(x, y)
    assert whole == sg.metrics.sliced_wasserstein(x, y, rng=0)
    assert whole != sg.metrics.sliced_wasserstein(x, y, rng=1)
    monkeypatch.setattr(sg.metrics.samples, "_CHUNK", 7 * 120)
    assert sg.metrics.sliced_wasserstein(x, y) == pytest.approx(whole, rel=1e-13)


def test_energy_distance_of_two_points():
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert sg.metrics.energy_distance(a, b) == pytest.approx(10.0, abs=1e-14)  # 2·5 − 0 − 0
    both = torch.cat([a, b])
    assert sg.metrics.energy_distance(both, a) == pytest.approx(2.5, abs=1e-14)  # 5 − 2.5 − 0


def test_energy_distance_is_the_square_of_scipys():
    x, y = normal(150, 1, rng=14), 1.4 * normal(90, 1, rng=15) + 0.5
    theirs = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert sg.metrics.energy_distance(x, y) == pytest.approx(theirs**2, rel=1e-10)


def test_on_the_line_by_sorting_it_is_the_mean_over_all_pairs():
    """Ties, unequal numbers, and a shift by 10⁶ that would cancel; nearest neighbours likewise."""
    x, y = normal(150, 1).round(decimals=1), 0.7 * normal(201, 1, rng=3).round(decimals=1) + 0.2
    for shift in (0.0, 1e6):
        a, b = x + shift, y + shift
        means = [(p - q.T).abs().mean() for p, q in ((a, b), (a, a), (b, b))]
        pairs = 2 * means[0] - means[1] - means[2]
        assert sg.metrics.energy_distance(a, b) == pytest.approx(float(pairs), rel=1e-9)
        nearest = float((a - b.T).abs().amin(1).mean())
        assert sg.metrics.nearest_distance(a, b) == pytest.approx(nearest, rel=1e-12)
    assert sg.metrics.energy_distance(x, x) == 0.0


def test_a_million_numbers_are_compared():
    """3·10¹² pairs; N(0, 1) and N(1, 1) are 2 E|D₁| − 2 E|D₀| apart, D ~ N(δ, 2)."""
    x, y = normal(1_000_000, 1), normal(1_000_000, 1, rng=1) + 1
    root, pdf = math.sqrt(2), math.exp(-0.25) / math.sqrt(2 * math.pi)
    apart = 2 * root * pdf + (2 * stats.norm.cdf(1 / root) - 1)
    expected = 2 * apart - 4 / math.sqrt(math.pi)
    # its standard error is about 2/√n
    assert sg.metrics.energy_distance(x, y) == pytest.approx(expected, abs=4.42 * 2e-3)
    assert sg.metrics.wasserstein_1d(x, y) == pytest.approx(1.0, abs=4.42 * 1.5e-3)


def test_energy_distance_of_exact_samples_is_its_floor():
    # E|X − X′| = 2/√π for N(0, 1); the mean of 400 repetitions
    n, m, repeats = 30, 50, 400
    pairs = zip(normal(repeats, n, 1, rng=16), normal(repeats, m, 1, rng=17), strict=True)
    shown = torch.tensor([sg.metrics.energy_distance(x, y) for x, y in pairs])
    floor = (1 / n + 1 / m) * 2 / math.sqrt(math.pi)
    z = (float(shown.mean()) - floor) / (float(shown.std()) / math.sqrt(repeats))
    assert abs(z) < 5.0  # false alarm 6e-7, times a few for the skewed law


def test_distances_do_not_depend_on_the_chunk(monkeypatch):
    x, y = normal(33, 2, 3, rng=18), normal(41, 2, 3, rng=19)
    whole = sg.metrics.energy_distance(x, y), sg.metrics.nearest_distance(x, y)
    monkeypatch.setattr(sg.metrics.samples, "_CHUNK", 100)
    assert sg.metrics.energy_distance(x, y) == pytest.approx(whole[0], rel=1e-12)
    assert sg.metrics.nearest_distance(x, y) == pytest.approx(whole[1], rel=1e-14)


def test_nearest_distance_by_hand():
    reference = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    x = torch.tensor([[3.0, 4.0], [10.0, 1.0]])
    assert sg.metrics.nearest_distance(x, reference) == pytest.approx(3.0, abs=1e-14)
    assert sg.metrics.nearest_distance(reference, torch.cat([x, reference])) == 0.0


# axioms


points = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8)
DISTANCES = {
    "W1": sg.metrics.wasserstein_1d,
    "SW2": lambda x, y: sg.metrics.sliced_wasserstein(x, y, projections=2),
    "energy": lambda x, y: math.sqrt(sg.metrics.energy_distance(x, y)),
}


@pytest.mark.parametrize("name", DISTANCES)
@given(a=points, b=points, c=points)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_metric_axioms(name, a, b, c):
    distance = DISTANCES[name]
    x, y, z = (torch.tensor(p, dtype=torch.float64)[:, None] for p in (a, b, c))
    # a squared distance is known to 1e-13 of the squares in it: its root to 1e-5 in units of 100
    tolerance = 1e-4
    assert distance(x, x) <= tolerance
    assert distance(x, y) >= 0
    assert distance(x, y) == pytest.approx(distance(y, x), abs=tolerance)
    assert distance(x, z) <= distance(x, y) + distance(y, z) + tolerance
    shifted = distance(x + 1, y + 1)
    assert shifted == pytest.approx(distance(x, y), abs=tolerance)


@given(a=points, masses=st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_distances_to_a_density_are_bounded(a, masses):
    masses = torch.tensor(masses, dtype=torch.float64)
    density = Cells(torch.tensor([-50.0, 0.0, 20.0, 60.0]).double(), masses / masses.sum())
    x = torch.tensor(a, dtype=torch.float64)[:, None]
    assert 0 <= sg.metrics.total_variation(x, density) <= 1 + 1e-12
    assert 0.5 / len(x) - 1e-12 <= sg.metrics.kolmogorov_smirnov(x, density) <= 1 + 1e-12
    # Kantorovich: W1 is at least the difference of the means
    middles = (density.x[1:] + density.x[:-1]) / 2
    means = abs(float(x.mean()) - float((density.cell_masses * middles).sum()))
    assert sg.metrics.wasserstein_1d(x, density) >= means - 1e-9


# bad input


NAN = torch.tensor([[0.0], [math.nan], [1.0], [math.inf]])


@pytest.mark.parametrize(
    "metric",
    [
        lambda x: sg.metrics.total_variation(x, gaussian_cells()),
        lambda x: sg.metrics.kolmogorov_smirnov(x, gaussian_cells()),
        lambda x: sg.metrics.wasserstein_1d(x, gaussian_cells()),
        lambda x: sg.metrics.wasserstein_1d(torch.ones(3, 1), x),
        lambda x: sg.metrics.sliced_wasserstein(x, torch.ones(3, 1)),
        lambda x: sg.metrics.energy_distance(torch.ones(3, 1), x),
        lambda x: sg.metrics.nearest_distance(x, torch.ones(3, 1)),
    ],
)
def test_lost_samples_are_refused_and_counted(metric):
    with pytest.raises(ValueError, match=r"2 of 4 rows of \w+ are NaN or infinite, .* row 1"):
        metric(NAN)
    with pytest.raises(ValueError, match=r"shape \(n, \*event\) with n ≥ 1.*\(0, 1\)"):
        metric(torch.zeros(0, 1))


def test_other_bad_requests():
    with pytest.raises(
        ValueError, match=r"one-dimensional, shape \(n, 1\), but has shape \(5, 2\)"
    ):
        sg.metrics.total_variation(torch.zeros(5, 2), gaussian_cells())
    with pytest.raises(ValueError, match=r"same event shape, but x has \(2,\) and y \(3,\)"):
        sg.metrics.sliced_wasserstein(torch.zeros(5, 2), torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"x has \(2,\) and reference \(1, 2\)"):
        sg.metrics.nearest_distance(torch.zeros(5, 2), torch.zeros(5, 1, 2))
    with pytest.raises(ValueError, match="projections must be ≥ 1, but is 0"):
        sg.metrics.sliced_wasserstein(torch.zeros(5, 2), torch.zeros(5, 2), projections=0)
    with pytest.raises(ValueError, match="n must be ≥ 1 samples, but is 0"):
        sg.metrics.total_variation_floor(torch.tensor([1.0]), 0)
    with pytest.raises(ValueError, match=r"minimum -0\.5, sum 1"):
        sg.metrics.total_variation_floor(torch.tensor([1.5, -0.5]), 3)
    with pytest.raises(ValueError, match="dimensions must be ≥ 1, but is 0"):
        sg.metrics.bits_per_dim(torch.zeros(2), 0)
    with pytest.raises(ValueError, match="bin_width must be finite and > 0, but is 0"):
        sg.metrics.bits_per_dim(torch.zeros(2), 3, bin_width=0.0)


def test_missing_pot_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"pip install 'sdegen\[metrics\]'"):
        sg.metrics.sliced_wasserstein(torch.zeros(5, 2), torch.zeros(5, 2))


# maximum mean discrepancy


@pytest.mark.parametrize("kernel", ["gaussian", "inverse-multiquadric"])
def test_mmd_of_two_gaussians_is_its_closed_form_and_has_no_bias(kernel):
    """E exp(−s r²/2h²) is a Gaussian integral, and the other kernel is its mean over e^{−s}.

    Mean of 300 estimates; within 4.9 standard errors, one false alarm in 10⁶ seeds.
    """
    d, h, shift, spread = 3, 1.3, 0.7, 1.6

    def mean_kernel(variance, distance):  # of k(X, Y), where X − Y ~ N(distance/√d 1, variance I)
        def gaussian(s):
            widened = 1 + s * variance / h**2
            return widened ** (-d / 2) * math.exp(-s * distance**2 / (2 * h**2 * widened))

        if kernel == "gaussian":
            return gaussian(1.0)
        return integrate.quad(lambda s: math.exp(-s) * gaussian(s), 0, np.inf)[0]

    exact = mean_kernel(2.0, 0.0) + mean_kernel(2 * spread**2, 0.0)
    exact -= 2 * mean_kernel(1 + spread**2, shift * math.sqrt(d))
    found = torch.tensor(
        [
            sg.metrics.mmd(
                normal(40, d, rng=2 * i),
                shift + spread * normal(30, d, rng=2 * i + 1),
                kernel=kernel,
                scale=h,
            )
            for i in range(300)
        ]
    )
    assert abs(float(found.mean()) - exact) < 4.9 * float(found.std()) / math.sqrt(300)
    assert float(found.std()) / math.sqrt(300) < 0.03 * exact


def test_mmd_of_one_law_is_below_zero_as_often_as_above_and_blocks_change_nothing(monkeypatch):
    x, y = normal(60, 2, rng=1), normal(70, 2, rng=2)
    whole = sg.metrics.mmd(x, y)
    by_hand = np.zeros(3)
    for k, (a, b) in enumerate(((x, x), (y, y), (x, y))):
        r2 = ((a[:, None] - b[None]) ** 2).sum(2).numpy()
        values = 1 / (1 + r2 / 4)  # h = √2
        by_hand[k] = values.mean() if k == 2 else values[~np.eye(len(a), dtype=bool)].mean()
    assert whole == pytest.approx(by_hand @ [1, 1, -2], abs=1e-14)
    monkeypatch.setattr("sdegen.metrics.samples._CHUNK", 100)
    assert sg.metrics.mmd(x, y) == pytest.approx(whole, abs=1e-14)
    found = [sg.metrics.mmd(normal(30, 2, rng=i), normal(30, 2, rng=999 - i)) for i in range(200)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 4.9 * error  # one false alarm in 10⁶ seeds
    with pytest.raises(ValueError, match="y must hold two samples or more"):
        sg.metrics.mmd(x, y[:1])
