import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.density2d.solver import FokkerPlanck2D

TURN = 2 * math.pi
BOX = (sg.Grid(0.0, 1.0, 40),) * 2
CIRCLE = (sg.Grid(0.0, TURN, 40), sg.Grid(-4.5, 4.5, 40))
AROUND = [sg.Periodic(0.0, TURN), None]


def on_a_circle(tilt=0.0, center=1.0):
    """dθ = (F − κ sin(θ − c)) dt + dW beside an Ornstein–Uhlenbeck process."""
    return sg.ItoProcess(
        lambda z: torch.stack([tilt - 1.5 * torch.sin(z[:, 0] - center), -z[:, 1]], 1), 1.0
    )


def test_a_particle_on_a_circle_beside_a_trap():
    """von Mises(κ/D) times N(0, ½), through the seam of the ring."""
    p = FokkerPlanck2D(on_a_circle(center=0.1), CIRCLE, AROUND).stationary()
    exact = torch.exp(3.0 * torch.cos(p.x - 0.1))[:, None] * torch.exp(-(p.y**2))
    assert float((p.p / p.p.max() - exact / exact.max()).abs().max()) < 1e-10
    assert float(p.mass) == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(p.p[0], p.p[-1])
    assert float(p.error["p"]) < 1e-3


def test_a_tilted_washboard_beside_a_trap():
    """Density, current and entropy production are those of the ring alone."""
    solver = FokkerPlanck2D(on_a_circle(tilt=1.0), CIRCLE, AROUND)
    p = solver.stationary()
    one = sg.ItoProcess(lambda x: 1.0 - 1.5 * torch.sin(x - 1.0), 1.0)
    ring = sg.FokkerPlanck(one, sg.Grid(0.0, TURN, 640), "periodic")
    line = ring.stationary()
    assert float((p.marginal(0).p - line.p[::16]).abs().max() / line.p.max()) < 1e-9
    across = p.weights.sum(0) / p.weights.sum() * (p.y[-1] - p.y[0])
    current = solver.current(p)[0] @ across
    expected = torch.full_like(current, float(ring.current(line).mean()))
    torch.testing.assert_close(current, expected, rtol=1e-7, atol=0)
    assert float(solver.entropy_production(p)) == pytest.approx(
        float(ring.entropy_production(line)), rel=1e-6
    )


@pytest.mark.parametrize("x0", [2.0, 0.05])
def test_a_point_on_a_ring_spreads_through_its_seam(x0):
    """Diffusion in a wind from a point: a wrapped Gaussian times a Gaussian."""
    windy = sg.ItoProcess(lambda z: torch.stack([0.8 + 0 * z[:, 0], -z[:, 1]], 1), 1.0)
    t = 0.7
    (final,) = FokkerPlanck2D(windy, CIRCLE, AROUND).solve((x0, 0.4), [0.0, t])[1:]
    turns = torch.arange(-5, 6)[:, None] * TURN
    first = torch.exp(-((final.x - x0 - 0.8 * t + turns) ** 2) / (2 * t)).sum(0)
    var = 0.5 * (1 - math.exp(-2 * t))
    second = torch.exp(-((final.y - 0.4 * math.exp(-t)) ** 2) / (2 * var))
    exact = torch.outer(first, second) / (TURN * (t * var) ** 0.5)
    assert float((final.p - exact).abs().max() / exact.max()) < 1e-3
    assert final.error["p"] < 1e-3


def test_a_gaussian_goes_around_a_ring():
    solver = FokkerPlanck2D(on_a_circle(), CIRCLE, AROUND)
    p = solver.gaussian((0.1, 0.0), [[0.3, 0.0], [0.0, 0.3]])
    assert torch.equal(p.p[0], p.p[-1])
    back, on = 0.1 + TURN / 20, TURN / 20 - 0.1
    assert float(p.p[38, 20] / p.p[2, 20]) == pytest.approx(
        math.exp((on**2 - back**2) / 0.6), rel=1e-6
    )


def survival(x0, t, reflecting):
    """Sine series of a unit interval that absorbs at 1 and at 0, or reflects at 0."""
    length, at = (2.0, x0 + 1) if reflecting else (1.0, x0)
    total = 0.0
    for k in range(1, 100, 2):
        rate = (k * math.pi / length) ** 2 / 2
        total += 4 / (k * math.pi) * math.sin(k * math.pi * at / length) * math.exp(-rate * t)
    return total


def test_an_absorbing_box_is_survived_as_its_sides_are():
    """The mass that is left is the product of two survivals on a line."""
    boundary = {0: sg.Absorbing(0.0, 1.0), 1: (sg.Reflecting(0.0), sg.Absorbing(high=1.0))}
    solver = FokkerPlanck2D(sg.BrownianMotion(1.0), BOX, boundary)
    times = [0.0, 0.05, 0.3]
    for t, p in zip(times[1:], solver.solve((0.5, 0.4), times)[1:], strict=True):
        exact = survival(0.5, t, reflecting=False) * survival(0.4, t, reflecting=True)
        miss = abs(float(p.mass) / exact - 1)
        assert miss < 1e-5
        assert miss / 3 < p.error["mass"] < 1e-3
        assert float(p.p[0].abs().max()) == float(p.p[-1].abs().max()) == 0.0
        assert float(p.p[:, 0].max()) > 0
    with pytest.raises(sg.NotNormalizableError, match="leaves through the absorbing wall"):
        solver.stationary()


def test_a_reflecting_box_has_real_walls():
    """Named walls are real: nothing is said of a density that leans on them."""
    sde = sg.ItoProcess(lambda z: torch.stack([-2.0 + 0 * z[:, 0], 0 * z[:, 1]], 1), 1.0)
    p = FokkerPlanck2D(sde, BOX, [sg.Reflecting(0.0, 1.0)] * 2).stationary()
    exact = 4 * torch.exp(-4 * p.x) / (1 - math.exp(-4))
    torch.testing.assert_close(p.p, exact[:, None].expand_as(p.p), rtol=1e-4, atol=0)


def test_a_current_along_walls_is_resolved():
    """f = (∂_y ψ, −∂_x ψ), ψ = sin πx sin πy turns in a box, whose density stays even."""
    pi = math.pi

    def swirl(z):
        x, y = z.unbind(1)
        return 30 * torch.stack(
            [torch.sin(pi * x) * torch.cos(pi * y), -torch.cos(pi * x) * torch.sin(pi * y)], 1
        )

    sde = sg.ItoProcess(swirl, 1.0)
    p = FokkerPlanck2D(sde, BOX, [sg.Reflecting(0.0, 1.0)] * 2).stationary()
    miss = float((p.p - 1).abs().max())
    assert miss < 5e-4
    assert miss / 3 < p.error["p"]


def test_boundaries_that_are_none_are_refused():
    sde = on_a_circle()
    with pytest.raises(ValueError, match=r"\[0, 6\] is no period of the drift"):
        FokkerPlanck2D(sde, (sg.Grid(0.0, 6.0, 40), CIRCLE[1]), [sg.Periodic(0.0, 6.0), None])
    with pytest.raises(ValueError, match=r"boundary of coordinate 0 ends at 0, its grid at -4\.5"):
        FokkerPlanck2D(sde, (CIRCLE[1], CIRCLE[1]), [sg.Periodic(0.0, 6.0), None])
    with pytest.raises(TypeError, match="an end of coordinate 1 is a function of t"):
        FokkerPlanck2D(sde, CIRCLE, {1: sg.Absorbing(high=lambda t: 4.5 + t)})
    with pytest.raises(TypeError, match="a word does not say where its ends are"):
        FokkerPlanck2D(sde, CIRCLE, "periodic")
    with pytest.raises(ValueError, match="one box"):
        FokkerPlanck2D(sde, CIRCLE, sg.Reflecting(0.0, 1.0))
    with pytest.raises(ValueError, match="grids must have at least 8 cells"):
        FokkerPlanck2D(sde, (sg.Grid(0.0, TURN, 7), CIRCLE[1]))
    FokkerPlanck2D(sde, (sg.Grid(0.0, TURN, 8), CIRCLE[1]))
