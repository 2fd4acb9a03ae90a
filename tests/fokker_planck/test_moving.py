import math

import numpy as np
import pytest
import torch
from scipy import special

import sdegen as sg

BROWNIAN = sg.BrownianMotion(1.0)


@pytest.mark.slow
def test_a_linear_bound_is_the_inverse_gaussian_law():
    # W meets 1 − v t as W + v t meets 1
    v, times = 0.5, torch.linspace(0, 1.8, 10, dtype=torch.float64)
    t = times[1:].numpy()
    root = np.sqrt(2 * t)
    gone = 0.5 * special.erfc((1 - v * t) / root)
    gone = gone + 0.5 * math.exp(2 * v) * special.erfc((1 + v * t) / root)
    density = np.exp(-((1 - v * t) ** 2) / (2 * t)) / np.sqrt(2 * math.pi * t**3)
    for high, grid in (
        (lambda t: 1 - v * t, sg.Grid(-8.0, 1.0, 200)),
        (lambda t: 1 - v * float(t), sg.Grid.sinh(-8.0, 1.0, 200, width=2.0)),
    ):
        law = sg.FokkerPlanck(BROWNIAN, grid, sg.Absorbing(high=high)).survival(0.0, times)
        np.testing.assert_allclose(law.probability.numpy()[1:], 1 - gone, rtol=1e-5)
        np.testing.assert_allclose(law.density.numpy()[1:], density, atol=3e-5)
    # mirrored: an end that comes from below
    low = sg.FokkerPlanck(
        BROWNIAN, sg.Grid(-1.0, 8.0, 200), sg.Absorbing(low=lambda t: -1 + v * t)
    ).survival(0.0, times)
    np.testing.assert_allclose(low.probability.numpy()[1:], 1 - gone, rtol=1e-5)


def daniels(t):
    """The bound ½ − t log ¼(1 + √(1 + 8 e^{−1/t})) of Daniels 1969, by images at 1 and 2."""
    t = max(float(t), 1e-12)
    return 0.5 - t * math.log(0.25 * (1 + math.sqrt(1 + 8 * math.exp(-1 / t))))


def test_the_bound_of_daniels_and_the_density_below_it():
    times = torch.linspace(0, 1.0, 6, dtype=torch.float64)
    solver = sg.FokkerPlanck(BROWNIAN, sg.Grid(-6.0, 1.0, 200), sg.Absorbing(high=daniels))
    law, path = solver.survival(0.0, times), solver.solve(0.0, times)
    for k in range(1, 6):
        t = float(times[k])
        bound, root = daniels(t), math.sqrt(t)
        inside = special.ndtr(bound / root)
        inside -= 0.5 * special.ndtr((bound - 1) / root) + 0.5 * special.ndtr((bound - 2) / root)
        assert float(law.probability[k]) == pytest.approx(inside, rel=1e-5)
        x = path.x.numpy()
        p = np.exp(-(x**2) / (2 * t)) - 0.5 * np.exp(-((x - 1) ** 2) / (2 * t))
        p = (p - 0.5 * np.exp(-((x - 2) ** 2) / (2 * t))) / math.sqrt(2 * math.pi * t)
        assert np.abs(path.p[k].numpy() - np.where(x < bound, p, 0.0)).max() < 1e-4


def test_collapsing_bounds_of_a_decision_against_a_chain_of_small_steps():
    # a drift diffusion between ±(1 − t/2), by a lattice walk that errs by O(dt)
    drift, times = 0.8, torch.linspace(0, 1.0, 6, dtype=torch.float64)
    solver = sg.FokkerPlanck(
        sg.ItoProcess(drift=lambda x: torch.full_like(x, drift), diffusion=1.0),
        sg.Grid(-1.0, 1.0, 150),
        sg.Absorbing(lambda t: -(1 - t / 2), lambda t: 1 - t / 2),
    )
    law = solver.survival(0.1, times)

    def lattice(cells):
        # implicit Euler with dt = h² on the fixed nodes of y = x/b(t)
        y = np.linspace(-1, 1, cells + 1)
        h = y[1] - y[0]
        steps = 5 * round(0.2 / h**2)
        dt = 1.0 / steps
        p = np.interp(y, [0.1 - h, 0.1, 0.1 + h], [0, 1 / h, 0])
        p, kept = p / (p.sum() * h), []
        eye = np.eye(cells - 1)
        up, down = np.eye(cells - 1, k=1), np.eye(cells - 1, k=-1)
        for k in range(steps):
            b = 1 - (k + 1) * dt / 2
            f = (drift + 0.5 * y[1:-1]) / b
            d = 0.5 / b**2
            matrix = d / h**2 * (up + down - 2 * eye) - (up - down) * f / (2 * h)
            p[1:-1] = np.linalg.solve(eye - dt * matrix, p[1:-1])
            if (k + 1) % (steps // 5) == 0:
                kept.append(p.sum() * h)
        return np.array(kept)

    coarse, fine = lattice(20), lattice(40)
    np.testing.assert_allclose(law.probability.numpy()[1:], fine + (fine - coarse) / 3, atol=1e-3)


def test_an_end_that_stands_still_as_a_function_is_one_that_stands_still():
    sde, times = sg.OrnsteinUhlenbeck(), torch.linspace(0, 2, 5, dtype=torch.float64)
    grid = sg.Grid(-6.0, 1.0, 200)
    still = sg.FokkerPlanck(sde, grid, ("no-flux", "absorbing"))
    moving = sg.FokkerPlanck(sde, grid, sg.Absorbing(high=lambda t: 1.0))
    one, other = (s.survival(-0.5, times).probability for s in (still, moving))
    assert float((one - other).abs().max()) < 1e-7
    start = grid.gaussian(-1.0, 0.4)
    late, early = (s.solve(start, times).final.p for s in (still, moving))
    assert float((late - early).abs().max()) < 1e-4  # the start's tail at the wall is cut off


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda s: s(lambda t: 1 - t).survival(0.0, [0.0, 4.0]),
            r"outside of the grid|the absorbing ends meet: at t = 4",
        ),
        (lambda s: s(lambda t: 1 + t).survival(0.0, [0.0, 1.0]), "high end is at x = .*outside"),
        (lambda s: s(lambda t: 1 - t).survival(2.0, [0.0, 1.0]), "does not lie between the ends"),
        (
            lambda s: s(lambda t: 1 - t).first_passage(),
            "between absorbing ends that move; ask for",
        ),
        (lambda s: s(lambda t: 1 - t).spectrum(), "between absorbing ends that move"),
        (lambda s: s(lambda t: math.nan).survival(0.0, [0.0, 1.0]), "a bound must be finite"),
    ],
)
def test_refusals(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(lambda b: sg.FokkerPlanck(BROWNIAN, sg.Grid(-3.0, 1.0, 100), sg.Absorbing(high=b)))
