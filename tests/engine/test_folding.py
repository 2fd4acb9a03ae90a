"""What a step does at an end, against reflections made one by one and the exact laws of a box."""

import math

import exact
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import sdegen as sg
from sdegen.core.boundary_words import of_words
from sdegen.core.enclosure import enclosure_of
from sdegen.engine.containment import contained_by_position

F64 = torch.float64
LOW, HIGH = -1.5, 2.0
ANYWHERE = st.floats(-60.0, 60.0)
INSIDE = st.floats(LOW, HIGH)


def contain(kind, low, high, before, after):
    enclosure = enclosure_of(of_words(kind, low, high), (1,))
    return contained_by_position(enclosure, before, after)


def _contain(kind, before, after, low=LOW, high=HIGH):
    column = torch.tensor([[before], [0.0 if low < 0 < high else 0.5 * (low + high)]], dtype=F64)
    moved = torch.tensor([[after], [float(column[1])]], dtype=F64)
    return float(contain(kind, low, high, column, moved)[0, 0])


def _reflected(x, low=LOW, high=HIGH):
    while not low <= x <= high:
        x = 2 * low - x if x < low else 2 * high - x
    return x


@given(INSIDE, ANYWHERE)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_no_flux_is_reflection_after_reflection(before, after):
    assert _contain("no-flux", before, after) == pytest.approx(_reflected(after), abs=1e-13)


@given(INSIDE, ANYWHERE)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_periodic_moves_by_whole_boxes(before, after):
    x = _contain("periodic", before, after)
    turns = (x - after) / (HIGH - LOW)
    assert LOW <= x <= HIGH
    assert turns == pytest.approx(round(turns), abs=1e-13)


@given(INSIDE, ANYWHERE)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_absorbing_stops_at_the_wall_for_good(before, after):
    x = _contain("absorbing", before, after)
    if before in (LOW, HIGH):
        assert x == before
    else:
        assert x == min(max(after, LOW), HIGH)


@given(INSIDE, ANYWHERE)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_one_wall_of_each_kind(before, after):
    x = _contain(("absorbing", "no-flux"), before, after)
    mirror = _contain(("no-flux", "absorbing"), LOW + HIGH - before, LOW + HIGH - after)
    # followed one by one: what meets the absorbing wall on its way stays there
    y = after
    while not LOW <= y <= HIGH:
        y = 2 * HIGH - y if y > HIGH else LOW
    assert x == pytest.approx(before if before == LOW else y, abs=1e-13)
    if LOW < before < HIGH:
        assert mirror == pytest.approx(LOW + HIGH - x, abs=1e-13)


@pytest.mark.parametrize("kind", ["no-flux", "periodic", "absorbing"])
def test_inside_not_one_bit_changes(kind):
    x = torch.linspace(0.1, 0.7, 1001, dtype=torch.float32)[1:-1, None]
    assert torch.equal(contain(kind, -1000.0, 0.7, x, x), x)


@pytest.mark.parametrize("kind", ["no-flux", "periodic"])
def test_rounding_never_leaves_the_box(kind):
    low, high = 0.1, 0.7
    x = torch.cat([torch.linspace(-5, 5, 100_001), torch.tensor([-1e-9, 0.1 - 1e-9])])[:, None]
    inside = contain(kind, low, high, x, x)
    assert bool(((inside >= low) & (inside <= high)).all())


def test_an_absorbed_trajectory_stays_with_all_its_coordinates():
    before = torch.tensor([[0.5, 0.4], [1.0, 0.4]], dtype=F64)
    after = torch.tensor([[1.2, 0.3], [0.9, 0.3]], dtype=F64)
    stopped = contain("absorbing", 0.0, 1.0, before, after)
    assert stopped.tolist() == [[1.0, 0.3], [1.0, 0.4]]


@pytest.mark.parametrize("kind", ["no-flux", "absorbing", "periodic", ("absorbing", "no-flux")])
def test_what_exploded_has_not_arrived_at_a_wall(kind):
    x = torch.zeros(3, 1, dtype=F64)
    after = torch.tensor([[math.inf], [-math.inf], [math.nan]], dtype=F64)
    assert bool(contain(kind, -1.0, 1.0, x, after).isnan().all())


def test_reflected_brownian_motion_keeps_the_uniform_law(device):
    # the uniform law is that of the chain itself, at any step: folding maps it onto itself
    n = 40_000
    u = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).uniform(-1, 2, (n, 1))).to(device)
    times = torch.linspace(0, 2, 9)
    path = sg.simulate(sg.BrownianMotion(1.3), u, times, boundary=sg.Reflecting(-1.0, 2.0), rng=1)
    d = stats.kstest(path.final[:, 0].cpu().numpy(), stats.uniform(-1, 3).cdf).statistic
    assert math.sqrt(n) * d < 2.470  # false alarm 1e-5


@pytest.mark.parametrize("kind", ["no-flux", "periodic"])
def test_brownian_motion_in_a_box_has_the_law_of_the_box(kind, device):
    # folded or wrapped, the chain of any step samples the law exactly: reflection commutes with it
    n, length, sigma, t, start = 40_000, 1.0, 0.5, 0.3, 0.2
    x0 = torch.full((n, 1), start, dtype=F64, device=device)
    box = of_words(kind, 0.0, length)
    path = sg.simulate(sg.BrownianMotion(sigma), x0, [0.0, 0.1, t], boundary=box, rng=2)
    x = path.final[:, 0].cpu().numpy()
    cdf = exact.box_cdf(kind, length, 0.5 * sigma**2, start, t)
    assert math.sqrt(n) * stats.kstest(x, cdf).statistic < 2.470  # false alarm 1e-5


def test_absorption_without_the_bridge_tends_to_the_exact_survival_from_above(device):
    # between two steps a wall is touched unseen: the error falls as √dt, half of it with dt / 4
    n, sigma, t, start = 100_000, 1.0, 0.2, 0.5
    x0 = torch.full((n, 1), start, dtype=F64, device=device)
    survival = exact.box_survival(1.0, 0.5 * sigma**2, start, t)
    errors = []
    for steps in (25, 100, 400):
        path = sg.simulate(
            sg.BrownianMotion(sigma), x0, torch.linspace(0, t, 2), rng=3, keep_path=False,
            solver=sg.EulerMaruyama(steps), boundary=sg.Absorbing(0.0, 1.0, bridge=False),
        )  # fmt: skip
        left = ((path.final > 0) & (path.final < 1)).double().mean()
        errors.append(float(left) - survival)
    noise = 4.42 * math.sqrt(survival * (1 - survival) / n)  # false alarm 1e-5
    assert errors[0] > errors[1] > errors[2] > -noise
    # √dt, moved outwards by 0.5826 σ√dt on either side (Broadie, Glasserman and Kou 1997)
    for steps, error in zip((25, 100, 400), errors, strict=True):
        shift = 0.5826 * sigma * math.sqrt(t / steps)
        wider = exact.box_survival(1.0 + 2 * shift, 0.5 * sigma**2, start + shift, t)
        assert abs(error + survival - wider) < noise + 0.3 * t / steps * math.pi**2
