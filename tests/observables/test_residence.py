"""Residence times: exact survival, and what is cut off at both ends."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64
INF = math.inf
EULER = sg.EulerMaruyama


def stays(sde, x0, times, wanted, n, steps=1, **options):
    run = sg.run_ensemble(
        sde, x0, times, trajectories=n, solver=EULER(steps), observables=[wanted], rng=5,
        progress=False, **options,
    )  # fmt: skip
    return run.observables["residence"]


def exact_survival(edges):
    """Brownian motion from 1 in (0, 2), reflected at 0: from the eigenfunctions."""
    n = np.arange(60)
    rates = 0.5 * ((2 * n + 1) * math.pi / 4) ** 2
    parts = 4 / math.pi * (-1.0) ** n / (2 * n + 1) * np.cos((2 * n + 1) * math.pi / 4)
    return np.exp(-np.outer(edges, rates)) @ parts


def test_stays_of_brownian_motion_in_a_box(small_blocks):
    """Steps and bridge are exact; S of stays in the midst of a run, 4.9 errors, 1e-6 each."""
    found = stays(
        sg.BrownianMotion(1.0), torch.full((1, 1), 1.5, dtype=F64), [0.0, 24.0],
        sg.ResidenceTimes((-INF, 1.0), (-INF, 2.0), longest=6.0, bins=12), 600, 600,
        boundary=sg.Reflecting(0.0, 3.0),
    )  # fmt: skip
    exact = torch.tensor(exact_survival(found.edges.numpy()))
    off = (found.survival - exact)[1:] / found.survival_error[1:]
    assert float(off.abs().max()) < 4.9
    assert float(found.survival_error.max()) < 0.012
    share = -exact.diff() / 0.5
    assert float(((found.density - share) / found.density_error).abs().max()) < 4.9
    assert found.unbegun == 0  # 1.5 is in no core
    assert found.total > 1800
    assert int(found.cut.sum()) > 180


def test_where_all_begin_at_the_start_it_is_a_first_passage(small_blocks):
    """The survival of FirstPassage, by the same bridge."""
    n, times = 2000, torch.linspace(0, 3, 7)
    wanted = sg.ResidenceTimes((0.9, 1.0), (-INF, 2.0), longest=3.0, bins=6, from_start=True)
    x0 = torch.full((1, 1), 1.0, dtype=F64)
    ring = {"boundary": sg.Reflecting(0.0, 3.0)}
    late = stays(sg.BrownianMotion(1.0), x0, times, wanted, n, 20, **ring)
    other = sg.run_ensemble(
        sg.BrownianMotion(1.0), x0, times, trajectories=n, solver=EULER(20), rng=6,
        observables=[sg.FirstPassage(above=2.0)], progress=False, **ring,
    ).observables["first_passage"]  # fmt: skip
    assert late.unbegun == 0
    both = (late.survival_error**2 + other.survival_error**2).sqrt()[1:]
    assert float(((late.survival - other.survival)[1:] / both).abs().max()) < 4.9
    without = stays(
        sg.BrownianMotion(1.0), x0, times,
        sg.ResidenceTimes((0.9, 1.0), (-INF, 2.0), longest=3.0, bins=6), n, 20, **ring,
    )  # fmt: skip
    assert without.unbegun == n


def test_stays_in_a_well_leave_it_as_the_density_does(small_blocks):
    """ΔU/T = 2: from −1 to 1, by the solver; 4.9 errors and 0.015 for O(dt) of the chain."""
    well = sg.Langevin(sg.DoubleWell(), 1 / 8)
    found = stays(
        well, torch.full((1, 1), -1.0, dtype=F64), [0.0, 60.0],
        sg.ResidenceTimes((-INF, -1.0), (-INF, 1.0), longest=50.0, bins=5, from_start=True),
        300, 1200,
    )  # fmt: skip
    left = sg.FokkerPlanck(well, sg.Grid(-3.0, 1.0, 200), ("no-flux", "absorbing"))
    solved = left.survival(-1.0, found.edges).probability
    off = (found.survival - solved)[1:].abs()
    assert bool((off < 4.9 * found.survival_error[1:] + 0.015).all())
    assert float(found.survival_error.max()) < 0.035
    assert 0.1 < float(solved[-1]) < 0.5


def test_the_observable_sees_what_the_function_sees(small_blocks):
    times = torch.linspace(0, 20, 201)
    well = sg.ItoProcess(lambda x: x - x**3, 0.7)
    x0 = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for start in (False, True):
        options = {"coordinate": 1, "longest": 8.0, "bins": 16, "from_start": start}
        wanted = sg.ResidenceTimes((-INF, -0.6), (-INF, 0.6), bridge=False, **options)
        found = stays(well, x0, times, wanted, 300)
        path = sg.simulate(well, x0, times, solver=EULER(), rng=5)
        again = sg.residence_times(path, core=(-INF, -0.6), region=(-INF, 0.6), **options)
        for key, value in vars(found).items():
            expected = getattr(again, key)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, expected)
            else:
                assert value == pytest.approx(expected, rel=1e-12), key
        assert found.total > 130


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda: sg.ResidenceTimes((1.0, 1.0)), ValueError, r"core must be a pair low < high"),
        (lambda: sg.ResidenceTimes(1.0), TypeError, r"a pair \(low, high\), but is 1"),
        (lambda: sg.ResidenceTimes((0.0, 1.0), (0.5, 2.0)), ValueError, "must hold the core"),
        (lambda: sg.ResidenceTimes((0.0, math.nan)), ValueError, "core must be a pair low < high"),
        (lambda: sg.ResidenceTimes((0.0, 1.0), longest=0.0), ValueError, "longest must be finite"),
        (lambda: sg.ResidenceTimes((0.0, 1.0), bins=0), ValueError, "bins must be ≥ 1"),
        (lambda: sg.ResidenceTimes((0.0, 1.0), bridge=1), TypeError, "bridge must be True or"),
        (
            lambda: _short(sg.ResidenceTimes((0.0, 1.0), (0.0, 2.0))),
            ValueError,
            r"begin and end at 0, .* give a region= .* or pass bridge=False",
        ),
        (
            lambda: _short(sg.ResidenceTimes((0.0, 0.5), (-1.0, 2.0), coordinate=3)),
            ValueError,
            "of coordinate 3, but an event",
        ),
        (
            lambda: _short(sg.ResidenceTimes((0, 0.5), (-1, 2)), boundary=sg.Absorbing(-2, 3)),
            ValueError,
            r"stays of absorbed trajectories; drop .* or use FirstPassage",
        ),
    ],
)  # fmt: skip
def test_refusals(make, kind, told, as_user):
    with pytest.raises(kind, match=told):
        make()


def _short(wanted, **options):
    return stays(
        sg.BrownianMotion(), torch.full((1, 1), 0.5, dtype=F64), [0.0, 0.1], wanted, 3, **options
    )
