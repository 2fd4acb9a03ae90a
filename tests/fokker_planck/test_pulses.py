"""Pulses of any width that looks meet, anywhere in a run: right to 1 %, or warned of."""

import math
import warnings

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdegen as sg

RUN = 10.0
widths = st.floats(-3.0, -0.7).map(lambda power: RUN * 10**power)
places = st.floats(0.05, 0.95)


def pulse(width, place, *, smooth):
    """A push of impulse 1 in a window, and its beginning."""
    start = place * (RUN - width)

    def push(t):
        shape = 2 * torch.sin(math.pi * (t - start) / width) ** 2 if smooth else 1.0
        return (t >= start) * (t < start + width) * shape / width

    return push, start


def mean(width, start, *, smooth):
    """E X at the end of dX = (u − X) dt + dW from a mean of 0: ∫ e^{s − RUN} u(s) ds."""
    area = math.expm1(width) / width
    if smooth:  # ∫ e^s (1 − cos 2πs/w) ds/w from 0 to w
        turn = 2 * math.pi / width
        area *= 1 - 1 / (1 + turn**2)
    return math.exp(start - RUN) * area


def judged(solve):
    """What solve() returns, and whether it warned."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = solve()
    return found, any(issubclass(w.category, sg.AccuracyWarning) for w in told)


@settings(max_examples=6, derandomize=True, deadline=None)
@given(width=widths, place=places, smooth=st.booleans())
def test_a_pulse_on_a_line_is_right_or_warned_of(width, place, smooth):
    push, start = pulse(width, place, smooth=smooth)
    grid = sg.Grid(-8.0, 8.0, 120)
    fp = sg.FokkerPlanck(sg.ItoProcess(lambda x, t: push(t) - x, 1.0), grid)
    p, warned = judged(lambda: fp.solve(grid.gaussian(0.0, 0.5**0.5), [0.0, RUN]).final)
    off = abs(float(p.mean) - mean(width, start, smooth=smooth)) / 0.5**0.5
    assert warned or (off < 0.01 and abs(float(p.variance) - 0.5) < 0.005)


@settings(max_examples=2, derandomize=True, deadline=None)
@given(width=widths, place=places, smooth=st.booleans())
def test_a_pulse_in_the_plane_is_right_or_warned_of(width, place, smooth):
    push, start = pulse(width, place, smooth=smooth)
    grid = sg.Grid(-6.0, 6.0, 24)
    sde = sg.ItoProcess(lambda x, t: torch.stack([push(t) - x[:, 0], -x[:, 1]], -1), 1.0)
    fp = sg.FokkerPlanck2D(sde, (grid, grid))
    first = fp.gaussian((0.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
    p, warned = judged(lambda: fp.solve(first, [0.0, RUN])[-1])
    off = abs(float(p.mean[0]) - mean(width, start, smooth=smooth)) / 0.5**0.5
    assert warned or off < 0.01


@settings(max_examples=3, derandomize=True, deadline=None)
@given(width=widths, place=places)
def test_survival_of_a_pulse_is_that_of_three_pieces(width, place):
    push, start = pulse(width, place, smooth=False)
    grid, boundary = sg.Grid(-6.0, 2.0, 120), ("no-flux", "absorbing")

    def carried(p, force, length):
        """A density after a time in which nothing changes."""
        fp = sg.FokkerPlanck(sg.ItoProcess(lambda x: force - x, 1.0), grid, boundary)
        after, _ = judged(lambda: fp.solve(p, [0.0, length]).final)
        return sg.Density(grid.nodes, after.p)

    first = grid.gaussian(0.0, 0.5)
    p = carried(first, 0.0, start)
    p = carried(carried(p, 1 / width, width), 0.0, RUN - width - start)
    fp = sg.FokkerPlanck(sg.ItoProcess(lambda x, t: push(t) - x, 1.0), grid, boundary)
    found, warned = judged(lambda: fp.solve(first, [0.0, RUN]).final)
    assert warned or abs(float(found.mass) - float(p.mass)) < 0.01 * max(float(p.mass), 1e-3)


def test_a_burst_between_the_nodes_of_a_window_of_the_plane_is_met():
    # of all times of a window of sixteen looks two see it, and none of the window's nine nodes
    push, start = pulse(0.0107, 4.962 / (RUN - 0.0107), smooth=True)
    grid = sg.Grid(-6.0, 6.0, 24)
    sde = sg.ItoProcess(lambda x, t: torch.stack([push(t) - x[:, 0], -x[:, 1]], -1), 1.0)
    fp = sg.FokkerPlanck2D(sde, (grid, grid))
    first = fp.gaussian((0.0, 0.0), [[0.5, 0.0], [0.0, 0.5]])
    p = fp.solve(first, [0.0, RUN])[-1]
    assert abs(float(p.mean[0]) / mean(0.0107, start, smooth=True) - 1) < 1e-3
