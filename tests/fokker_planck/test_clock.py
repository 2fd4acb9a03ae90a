import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.discretization import time_dependence as clock

X = torch.linspace(-3.0, 3.0, 8, dtype=torch.float64)[:, None]
ONE = torch.tensor(1.0, dtype=torch.float64)


def look(drift, first=0.0, last=21.0, noise=lambda x, t: ONE):
    return clock.look(lambda x, t: (drift(x, t), noise(x, t)), X, first, last, 0.05)


def at_once(x, t):
    return -x + 5 * ((t >= 20.4) & (t < 20.6)).to(x)


def one_by_one(x, t):
    return -x + (5.0 if 20.4 <= float(t) < 20.6 else 0.0)


@pytest.mark.parametrize("drift", [at_once, one_by_one])
def test_jumps_are_found_to_the_last_bit(drift):
    looks = look(drift)
    assert looks.jumps == (20.4, 20.6)
    assert (looks.shaped is None) is (drift is one_by_one)
    assert looks.isolated is None
    assert all(looks.still(a, b) for a, b in ((0.0, 20.3), (20.45, 20.55), (20.7, 21.0)))
    assert not looks.still(20.3, 20.5)
    assert not looks.still(21.0, 0.0)


def test_what_never_changes_is_still_and_takes_any_step():
    looks = look(lambda x, t: -x)
    assert looks.still(0.0, 21.0)
    assert (looks.longest(0.0, 21.0), looks.longest(21.0, 3.0)) == (21.0, 18.0)


def test_steps_are_kept_short_beside_what_is_narrow_in_both_senses_of_time():
    looks = look(lambda x, t: -x + 5 * torch.exp(-(((t - 7.0) / 0.02) ** 2)))
    assert looks.jumps == ()
    for start, end in ((6.9, 21.0), (7.1, 0.0)):
        t = start
        assert looks.longest(t, end) < 0.4
    for start, end in ((0.0, 21.0), (21.0, 0.0)):
        assert abs(end - start) / 10 < looks.longest(start, end) < 14


def test_jumps_of_the_noise_and_a_square_wave():
    stepped = look(lambda x, t: -x, noise=lambda x, t: torch.where(t < math.pi, 1.0, 2.0))
    assert stepped.jumps == pytest.approx((math.pi,), abs=1e-14)
    wave = look(lambda x, t: -x + torch.sign(torch.sin(t)), 0.5, 20.5)
    assert wave.jumps == pytest.approx([k * math.pi for k in range(1, 7)], abs=1e-14)


def test_a_change_that_one_look_alone_meets_is_isolated():
    apart = 21.0 / 2048
    met = 1000 * apart
    looks = look(lambda x, t: -x + ((t - met).abs() < 0.2 * apart).to(x))
    assert looks.isolated == pytest.approx(met)
    assert len(looks.jumps) == 2
    assert look(lambda x, t: -x + torch.sin(3 * t)).isolated is None


def test_a_polynomial_goes_through_some_looks_and_meets_all_of_one():
    nodes, matrix = clock._interpolation(16)
    y = np.linspace(-1, 1, 17)
    for power in range(7):
        np.testing.assert_allclose(matrix @ (y[nodes] ** power), y**power, atol=1e-12)


def test_a_run_asks_at_many_times_at_once():
    """So it does where shapes are checked, too: one after the other would be 2049 questions."""
    asked = []

    def pull(x, t):
        asked.append(tuple(t.shape))
        return torch.sin(t) - x

    grid = sg.Grid(-6.0, 6.0, 60)
    solver = sg.FokkerPlanck(sg.ItoProcess(pull, 1.0), grid)
    solver.solve(grid.gaussian(0.0, 0.7), [0.0, 1.0])
    assert (2049 * clock.POINTS, 1) in asked
    assert len(asked) < 500
