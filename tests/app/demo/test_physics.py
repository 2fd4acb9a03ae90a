"""Act 1: particles, density and Boltzmann's law agree, and a planted mistake does not pass."""

import numpy as np
import pytest
import torch

from sdegen.app.demo.physics import NOISE, SPREAD, START, floor_spread, relax
from sdegen.metrics import kolmogorov_smirnov, total_variation_floor


@pytest.fixture(scope="module")
def found():
    return relax(20_000, substeps=10, seed=3)


def test_particles_are_as_near_to_the_density_as_exact_samples(found):
    # 20,000 samples in some 100 cells: the ratio is 1 ± 0.06, so that 1.3 is five deviations
    for agreement in found.agreements:
        assert 0.7 < agreement.ratio < 1.3


def test_the_floor_scatters_as_counts_of_exact_samples_do(found):
    """Of 2,000 draws a standard deviation is known to 1.6 %; 5 of these, and 2 % of theory."""
    density, n = found.density.at(50), 5_000
    m = density.cell_masses / density.cell_masses.sum()
    counts = np.random.default_rng(0).multinomial(n, m.numpy(), size=2_000)
    distances = 0.5 * np.abs(counts / n - m.numpy()).sum(1)
    assert distances.mean() == pytest.approx(total_variation_floor(density, n), rel=0.01)
    assert distances.std() == pytest.approx(floor_spread(density, n), rel=0.10)


def test_a_lost_factor_of_two_does_not_pass(found):
    for agreement in found.agreements:
        assert agreement.mistaken > 3 * agreement.floor


def test_stationary_density_is_boltzmann_s(found):
    assert found.boltzmann_error <= 1e-10
    # log p(x)/p(y) = (U(y) − U(x))/D with D = g²/2, between the well and the top of the barrier
    x, p = found.stationary.x, found.stationary.p
    energy = x**4 / 4 - x**2 / 2
    well, top = int((x - 1).abs().argmin()), int(x.abs().argmin())
    expected = float(energy[top] - energy[well]) / (NOISE**2 / 2)
    assert float((p[well] / p[top]).log()) == pytest.approx(expected, abs=1e-11)


def test_both_start_from_the_same_law(found):
    # once in 10⁵; the density is linear between nodes 0.03 apart, which costs 1e-3 at most
    n = found.path.states.shape[1]
    assert kolmogorov_smirnov(found.path.states[0], found.density.at(0)) < 2.470 / n**0.5 + 1e-3
    exact = torch.exp(-0.5 * ((found.density.x - START) / SPREAD) ** 2)
    p = found.density.p[0]
    torch.testing.assert_close(p / p.max(), exact / exact.max(), rtol=0, atol=1e-12)


def test_the_film_starts_left_and_ends_in_both_wells(found):
    left = (found.path.states[:, :, 0] < 0).double().mean(1)
    assert float(left[0]) > 0.999
    # by t = 10 many have crossed, as the density says
    x, mass = found.density.x, found.density.at(100).cell_masses
    expected = float(mass[(x[1:] <= 1e-9)].sum())
    assert float(left[-1]) == pytest.approx(expected, abs=4.4 * (0.25 / 20_000) ** 0.5)
