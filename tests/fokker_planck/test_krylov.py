import numpy as np
import pytest
from scipy.linalg import expm
from scipy.sparse import diags, eye

import sdegen as sg
from sdegen.fokker_planck.discretization.krylov import exponential_action


@pytest.mark.parametrize("wind", [0.0, 40.0])
def test_it_is_the_exponential(wind):
    """Of a diffusion with a wind, stiff and far from normal, to the tolerance asked for."""
    n = 120
    a = diags([400.0 + wind * 10, -800.0, 400.0 - wind * 10], [-1, 0, 1], shape=(n, n)).tocsr()
    v = np.exp(-((np.arange(n) - 40.0) ** 2) / 50)
    exact = expm(0.7 * a.toarray()) @ v
    for tolerance in (1e-5, 1e-9):
        got = exponential_action(a, v, 0.7, tolerance)
        assert np.linalg.norm(got - exact) < 3 * tolerance * np.linalg.norm(v)


def test_small_spaces_are_exact():
    v = np.array([1.0, 2.0, 3.0, 4.0])
    assert exponential_action(-2 * eye(4, format="csr"), v, 0.5, 1e-8) == pytest.approx(v / np.e)
    np.testing.assert_array_equal(
        exponential_action(eye(4, format="csr"), np.zeros(4), 1.0, 1e-8), np.zeros(4)
    )
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    got = exponential_action(turn, np.array([1.0, 0.0]), 100.0, 1e-10)
    assert got == pytest.approx([np.cos(100.0), np.sin(100.0)], abs=1e-9)


def test_what_is_not_finite_is_refused():
    with pytest.raises(sg.SolverError, match="not finite"):
        exponential_action(np.eye(3), np.array([1.0, np.nan, 0.0]), 1.0, 1e-8)
