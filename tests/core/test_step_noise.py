"""The noise of steps: what coarse and fine runs share, its law, and who may ask when."""

import itertools
import math

import pytest
import torch

import sdegen as sg
from sdegen.core.levy_areas import wedge
from sdegen.core.step_noise import shared

F64 = torch.float64
SURE = 4.42  # standard errors: false alarm 1e-5
UNEQUAL = torch.tensor([0.0, 0.1, 0.15, 0.4, 0.5, 0.8, 1.0], dtype=F64)
NAMES = ("increment", "space_time_area", "areas", "space_time_moment")


def _all(noise, steps):
    return [tuple(getattr(noise, name)(i) for name in NAMES) for i in range(steps)]


def _sums(parts, lengths):
    """Chen's relation, in the units of time."""
    w, j, a, m = parts[0]
    s = lengths[0]
    for (dw, dj, da, dm), h in zip(parts[1:], lengths[1:], strict=True):
        a = a + da + 0.5 * wedge(w.flatten(1), dw.flatten(1))
        m = m + dm + s * dj + (s * h + h**2 / 2) * w
        j = j + dj + h * w
        w = w + dw
        s = s + h
    return w, j, a, m


@pytest.mark.parametrize("channels", [1, 3, None])
def test_a_path_adds_up_under_refinement(channels):
    x, path = torch.zeros(4, 2, dtype=F64), sg.BrownianPath(0, UNEQUAL)
    fine = _all(path.noise(x, UNEQUAL, channels=channels), 6)
    for places in ([0, 6], [0, 2, 3, 6], [1, 5], [2, 3, 4]):
        nodes = UNEQUAL[places]
        coarse = _all(path.noise(x, nodes, channels=channels), len(places) - 1)
        for k, (a, b) in enumerate(itertools.pairwise(places)):
            expected = _sums(fine[a:b], UNEQUAL.diff()[a:b])
            for value, sum_ in zip(coarse[k], expected, strict=True):
                torch.testing.assert_close(value, sum_, rtol=0, atol=4e-15)


def test_a_path_that_is_walked_backwards_adds_up():
    x, times = torch.zeros(4, 2, dtype=F64), UNEQUAL.flip(0)
    path = sg.BrownianPath(0, times)
    fine = _all(path.noise(x, times, channels=2), 6)
    ((*coarse,),) = _all(path.noise(x, [1.0, 0.0], channels=2), 1)
    for value, sum_ in zip(coarse, _sums(fine, times.diff().abs()), strict=True):
        torch.testing.assert_close(value, sum_, rtol=0, atol=4e-15)


def test_two_runs_share_what_one_has_drawn_in_any_order():
    x, nodes = torch.zeros(4, 2, dtype=F64), torch.linspace(0, 1, 7, dtype=F64)
    for first in (0, 1):
        pair = shared(sg.Noise(x, rng=2, channels=2), nodes, 3)
        seen = {k: _all(pair[k], 6 if k == 0 else 2) for k in (first, 1 - first)}
        for k in range(2):
            parts, lengths = seen[0][3 * k : 3 * k + 3], nodes.diff()[:3]
            for value, sum_ in zip(seen[1][k], _sums(parts, lengths), strict=True):
                torch.testing.assert_close(value, sum_, rtol=0, atol=4e-15)
    # and what normal() hands on is the increment
    short, long = shared(sg.Noise(x, rng=2, channels=2), nodes, 3)
    z = [short.normal() for _ in range(6)]
    torch.testing.assert_close(z[4] / math.sqrt(6), short.increment(4))
    torch.testing.assert_close(long.normal(), sum(z[:3]) / math.sqrt(3))


@pytest.mark.parametrize("place", ["run", "path"])
def test_space_time_areas_have_their_covariance(place):
    # var J = h³/3, cov(J, ΔW) = h²/2, var M = 2h⁵/15, cov(M, ΔW) = h³/3, cov(M, J) = 5h⁴/24, all
    # integrals of min(s, u); steps and channels are independent
    n, nodes = 100_000, torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    x = torch.zeros(n, 1, dtype=F64)
    if place == "run":
        noise = sg.StepNoise(sg.Noise(x, rng=1, channels=2), nodes)
    else:
        times = torch.tensor([0.0, 0.2, 0.3, 0.5, 1.0], dtype=F64)
        noise = sg.BrownianPath(1, times).noise(x, nodes, channels=2)
    first, second = _all(noise, 2)
    for (w, j, _, m), h in ((first, 0.3), (second, 0.7)):
        for values, expected in (
            (m[:, 0].square(), 2 * h**5 / 15),
            (m[:, 1] * w[:, 1], h**3 / 3),
            (m[:, 0] * j[:, 0], 5 * h**4 / 24),
            (m[:, 0] * j[:, 1], 0.0),
            (w[:, 0].square(), h),
            (j[:, 1].square(), h**3 / 3),
            (j[:, 0] * w[:, 0], h**2 / 2),
            (j[:, 0] * w[:, 1], 0.0),
            (first[1][:, 0] * second[1][:, 0], 0.0),
        ):
            error = float(values.std()) / math.sqrt(n)
            assert abs(float(values.mean()) - expected) < SURE * error


def test_what_is_asked_for_changes_nothing_else():
    """Bits of normal() are those without areas; areas do not depend on when they are asked for."""
    x, nodes = torch.zeros(5, 2, dtype=F64), torch.linspace(0, 1, 6, dtype=F64)
    plain = sg.Noise(x, rng=7, channels=3)
    z = [plain.normal() for _ in range(5)]
    noise = sg.StepNoise(sg.Noise(x, rng=7, channels=3), nodes)
    parts = _all(noise, 5)
    for (w, *_), expected in zip(parts, z, strict=True):
        torch.testing.assert_close(w, expected * 0.2**0.5, rtol=1e-14, atol=0)
    again = sg.StepNoise(sg.Noise(x, rng=7, channels=3), nodes)
    for i, name in (
        (0, "space_time_moment"),
        (1, "areas"),
        (1, "increment"),
        (3, "space_time_area"),
        (4, "areas"),
    ):
        assert torch.equal(getattr(again, name)(i), parts[i][NAMES.index(name)])
    mixed = sg.StepNoise(sg.Noise(x, rng=7, channels=3), nodes)
    mixed.normal()
    assert torch.equal(mixed.normal(), z[1])
    assert torch.equal(mixed.space_time_area(1), parts[1][1])


def test_blocks_have_noise_of_their_own():
    x, path = torch.zeros(5, 1, dtype=F64), sg.BrownianPath(0, UNEQUAL)
    one, two = (_all(path.noise(x, UNEQUAL, channels=2, block=b), 6)[0] for b in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    children = sg.Noise(x, rng=0).stream
    a, b = children.child("a"), children.child("b")
    assert children.child("a") is a
    assert not torch.equal(a.normal((9,)), b.normal((9,)))


def test_gradients_flow_through_the_lengths_of_steps():
    t = torch.tensor(0.25, dtype=F64, requires_grad=True)
    nodes = torch.stack([torch.zeros((), dtype=F64), t, torch.ones((), dtype=F64)])
    noise = sg.StepNoise(sg.Noise(torch.zeros(1, 1, dtype=F64), rng=0), nodes)
    w = noise.increment(0)
    w.sum().backward()
    assert math.isclose(float(t.grad), float(w.detach()) / (2 * 0.25))


def test_bad_requests_are_refused():
    x, path = torch.zeros(3, 1, dtype=F64), sg.BrownianPath(0, UNEQUAL)
    noise = path.noise(x, UNEQUAL)
    noise.increment(2)
    with pytest.raises(ValueError, match="step 1 is asked for after that of step 2: steps go in"):
        noise.increment(1)
    for i in (-1, 6):
        with pytest.raises(IndexError, match=f"step must be in 0 … 5, but is {i}"):
            noise.areas(i)
    with pytest.raises(TypeError, match=r"noise must be a Noise, such as Noise\(x, rng=0\)"):
        sg.StepNoise(0, UNEQUAL)
    with pytest.raises(ValueError, match=r"nodes\[1\]=0.5 is followed by 0.2"):
        sg.StepNoise(sg.Noise(x, rng=0), [0.0, 0.5, 0.2])
    with pytest.raises(ValueError, match=r"meet at t = 0\.3, which is not among the times"):
        path.noise(x, [0.0, 0.3])
    # the noise of other steps
    sde = sg.BrownianMotion()
    with pytest.raises(ValueError, match="noise is that of 2 steps from t = 0 to 1, but the run"):
        next(sg.integrate(sde, sg.EulerMaruyama(), x, UNEQUAL, path.noise(x, [0.0, 0.5, 1.0])))
