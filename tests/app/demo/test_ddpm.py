"""Act 3: the gap between DDPM and the reverse SDE, its slope, and the gap that particles see."""

import pytest
import torch

import sdegen as sg
from sdegen.app.demo import ddpm
from sdegen.app.demo.ddpm import compare, slope


@pytest.fixture(scope="module")
def found():
    return compare((20, 100, 200), cells=500)


def test_forward_chain_is_the_sde(found):
    assert found.forward_error <= 1e-12


def test_slopes(found):
    assert found.beta_slope == pytest.approx(-1.0, abs=0.05)
    assert found.posterior_slope == pytest.approx(-0.93, abs=0.06)
    # the posterior's logarithm: flatter than with variance β, at every pair
    assert found.posterior_slope > found.beta_slope + 0.02


def test_errors_tend_to_zero_with_the_steps(found):
    for name in ("reverse_sde_error", "beta_error", "posterior_error"):
        errors = [getattr(gap, name) for gap in found.gaps]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.02


def test_distances_obey_the_triangle_inequality(found):
    for gap in found.gaps:
        assert gap.beta_error <= gap.beta + gap.reverse_sde_error
        assert gap.reverse_sde_error <= gap.beta + gap.beta_error
        assert gap.posterior_error <= gap.posterior + gap.reverse_sde_error


def test_no_probability_is_lost(found):
    assert found.mass_error < 1e-6
    h = float(found.x[1] - found.x[0])
    assert float(found.exact.sum()) * h == pytest.approx(1, abs=1e-12)


@pytest.fixture(scope="module")
def song():
    """An SDE, its score, draws of the prior, times, and where the reverse SDE takes them."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    score = ddpm._MIXTURE.noised(sde).score
    x_T = sde.prior((200_000, 1), rng=0)
    times = sde.time_grid(20)
    ends = sg.simulate(sg.ReverseSDE(sde, score), x_T, times, rng=1, keep_path=False).final
    return sde, score, x_T, times, ends


@pytest.mark.parametrize(("variance", "name"), [("beta", "beta"), ("posterior", "posterior")])
def test_particles_see_the_same_gap(found, song, variance, name):
    """W1 between 200,000 particles of each chain, whose own floor is about 0.003."""
    sde, score, x_T, times, ends = song
    chain = sg.DDPM.discretize(sde, times=times).reverse(score, variance)
    down = torch.arange(20, -1, -1.0)
    ancestral = sg.simulate(chain, x_T, down, rng=2, keep_path=False).final
    gap = sg.metrics.wasserstein_1d(ancestral, ends)
    # √n W1 of n exact samples of unit spread is 1.29 ± 0.44; of two sets, √2 times that
    noise = (1.29 + 5 * 0.44) * (2 / 200_000) ** 0.5
    assert gap == pytest.approx(getattr(found.gaps[0], name), abs=noise)


def test_w1_of_a_shift_is_the_shift():
    x = torch.linspace(-8, 8, 801, dtype=torch.float64)
    p, q = torch.exp(-0.5 * x**2), torch.exp(-0.5 * (x - 0.3) ** 2)
    assert ddpm._w1(x, p, q) / (2 * torch.pi) ** 0.5 == pytest.approx(0.3, abs=1e-12)


def test_slope_is_a_power():
    assert slope([10, 20, 80], [5 * n**-1.5 for n in (10, 20, 80)]) == pytest.approx(
        -1.5, abs=1e-12
    )
