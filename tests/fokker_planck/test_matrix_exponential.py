import numpy as np
import pytest
import scipy.linalg
import torch

from sdegen.fokker_planck.discretization.matrix_exponential import Systems, expm_action


def scalar(z):
    """e^z by the rational approximation: a diagonal operator."""
    zero = torch.zeros_like(z)
    mass = torch.stack([zero, torch.ones_like(z), zero])
    return expm_action(mass, torch.stack([zero, z, zero]), torch.ones_like(z))


# so few that all poles are solved for at once, and so many that they are not
@pytest.mark.parametrize("count", [500, 9000])
def test_error_on_the_negative_axis(count):
    z = -torch.cat(
        [torch.zeros(1, dtype=torch.float64), torch.logspace(-8, 8, count, dtype=torch.float64)]
    )
    assert float((scalar(z) - z.exp()).abs().max()) < 1e-13


def test_against_a_dense_exponential_with_a_mass_matrix():
    n = 30
    rates = np.diag(np.full(n - 1, 1.1), -1) + np.diag(np.full(n - 1, 0.9), 1)
    rates -= np.diag(rates.sum(0))
    mass = (
        np.eye(n) * 10 / 12
        + np.diag(np.full(n - 1, 1 / 12), 1)
        + np.diag(np.full(n - 1, 1 / 12), -1)
    )
    p = np.exp(-0.1 * (np.arange(n) - 9.0) ** 2)
    exact = scipy.linalg.expm(5.0 * np.linalg.solve(mass, rates)) @ p

    def bands(a):
        lower, upper = np.zeros(n), np.zeros(n)
        lower[1:], upper[:-1] = np.diag(a, -1), np.diag(a, 1)
        return torch.from_numpy(np.stack([lower, np.diag(a), upper]))

    got = expm_action(bands(mass), 5.0 * bands(rates), torch.from_numpy(p))
    np.testing.assert_allclose(got.numpy(), exact, rtol=0, atol=1e-12)
    systems = Systems(bands(mass).numpy(), bands(rates).numpy())
    for dt in (0.1, 5.0):  # a second time on what the first has laid out
        at_dt = systems.action(p, dt)
    np.testing.assert_allclose(at_dt, got, rtol=0, atol=1e-14)
    factors = systems.factors(5.0)
    for _ in range(2):
        again = systems.action(p, 5.0, factors=factors)
        np.testing.assert_allclose(again, got, rtol=0, atol=1e-14)
