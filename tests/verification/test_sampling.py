"""Five tests of samples: the p-values of exact ones are uniform, and their floors are right."""

import math

import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.verification.chain import ChainDensity
from sdegen.verification.sampling import sampling_checks

GRID = sg.Grid(-3.2, 3.2, cells=160)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)


@pytest.fixture(scope="module")
def clean():
    """The checks of 200 clean simulations: 2,000 trajectories, 8 long steps, the exact law."""
    solver, times = sg.EulerMaruyama(8), [0.0, 1.0]
    law = ChainDensity(WELL, GRID, solver).run(-1.0, times).final
    start = torch.full((2_000, 1), -1.0, dtype=torch.float64)
    runs = []
    for seed in range(200):
        path = sg.simulate(WELL, start, times, solver=solver, rng=seed, keep_path=False)
        runs.append(sampling_checks(path.final, law, false_alarm=2e-6))
    return runs


@pytest.mark.slow
def test_200_clean_runs_raise_no_alarm(clean):
    """1000 tests of 2e-6: one alarm in 500 such sets of seeds, at most."""
    assert all(check.verdict == "passed" for checks in clean for check in checks)


@pytest.mark.parametrize("k", [0, 1, 2], ids=["KS", "chi2", "Neyman"])
def test_p_values_of_clean_runs_are_uniform(clean, k):
    """By Kolmogorov-Smirnov over 200 seeds, at a false-alarm rate of 1e-5."""
    p_values = [checks[k].p_value for checks in clean]
    assert stats.kstest(p_values, "uniform").pvalue > 1e-5


@pytest.mark.parametrize("k", [3, 4], ids=["W1", "TV"])
def test_distances_have_their_floors_and_bounds(clean, k):
    """The mean of 200 is the floor to 5 standard errors; a bound is never below its chance."""
    values = torch.tensor([checks[k].value for checks in clean])
    floor = clean[0][k].floor
    # W1's floor holds for many samples: the next term is 1/√n beside it
    assert float(values.mean()) == pytest.approx(
        floor, abs=5 * float(values.std()) / math.sqrt(200) + 0.02 * floor
    )
    p_values = torch.tensor([checks[k].p_value for checks in clean])
    for level in (0.5, 0.2, 0.05):
        assert float((p_values < level).double().mean()) < level + 5 * math.sqrt(level / 200)


def test_a_shift_and_a_spread_that_kolmogorov_does_not_see_are_seen_by_neyman():
    """N(0, 1.03²) at n = 20,000, drawn without chance at the quantiles of its own law."""
    grid = sg.Grid(-8.0, 8.0, 400)
    law = grid.gaussian(0.0, 1.0)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = 1.03 * math.sqrt(2) * torch.erfinv(2 * u - 1)[:, None]
    checks = sampling_checks(x, law, false_alarm=1e-3)
    assert checks[0].verdict == "passed"
    assert checks[2].verdict == "failed"
    exact = sampling_checks(x / 1.03, law, false_alarm=1e-3)
    assert exact[0].value == pytest.approx(0.5 / 20_000, rel=1e-2)
    assert exact[2].value < 1e-3
    assert checks[3].value == pytest.approx(0.03 * math.sqrt(2 / math.pi), rel=2e-3)
