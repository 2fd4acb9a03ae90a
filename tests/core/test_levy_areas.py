"""Lévy areas and space-time areas: Chen's relation, exactly, and Lévy's law."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.levy_areas import AreaDraws, Draw, joined, modes_of, wedge
from sdegen.core.noise import Stream

F64 = torch.float64
SURE = 4.42  # standard errors: false alarm 1e-5


def _drawn(n, m, modes, seed=0):
    """z, H and areas of n steps, over their scale."""
    source = Stream(seed)
    z, eta = (source.normal((n, m), dtype=F64) for _ in range(2))
    draws = AreaDraws(source, z, modes)
    return z, eta / math.sqrt(12), draws.areas(draws.draw(), z, eta)


def _is_mean(values, expected):
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < SURE * error


@pytest.mark.parametrize("modes", [1, 2, 9])
def test_variances_are_exact_for_any_number_of_modes(modes):
    z, bridge, areas = _drawn(100_000, 3, modes)
    assert torch.equal(areas, -areas.mT)
    a = areas[:, 0, 1]
    _is_mean(a.square(), 1 / 4)
    _is_mean(areas[:, 0, 1] * areas[:, 0, 2], 0.0)
    # given ΔW: 1/12 + (z_1² + z_2²)/12, which three moments of it tell
    r = z[:, 0].square() + z[:, 1].square()
    given = (1 + r) / 12
    for weight in (torch.ones_like(r), r, r.square()):
        _is_mean(weight * (a.square() - given), 0.0)
    # and given ΔW and J the mean is H_1 z_2 − z_1 H_2, whose sign a wrong convention would turn
    _is_mean(a * bridge[:, 0] * z[:, 1], 1 / 12)
    _is_mean(a * bridge[:, 1] * z[:, 0], -1 / 12)


@pytest.mark.parametrize("modes", [3, 12])
def test_the_characteristic_function_is_levys(modes):
    # E exp(iλA/h) = 1/cosh(λ/2); of an area of |z| = r it is
    # x/sinh x exp(−r²/2 (x coth x − 1)) with x = λ/2 (Lévy 1951, eq. (1.3.4))
    z, _, areas = _drawn(200_000, 2, modes)
    a, r2 = areas[:, 0, 1], z.square().sum(1)
    for size in (0.7, 2.0, 5.0):
        x = size / 2
        _is_mean(torch.cos(size * a), 1 / math.cosh(x))
        given = x / math.sinh(x) * torch.exp(-0.5 * r2 * (x / math.tanh(x) - 1))
        for weight in (torch.exp(-r2), r2 * torch.exp(-0.5 * r2)):
            _is_mean(weight * (torch.cos(size * a) - given), 0.0)


def test_steps_are_joined_by_chens_relation():
    # of a path in straight pieces all three are sums, by any pieces
    n, m = 12, 3
    pieces = Stream(1).normal((n, 5, m), dtype=F64)
    h = torch.linspace(0.5, 1.5, n, dtype=F64)
    w = torch.cat([torch.zeros(1, 5, m, dtype=F64), pieces.cumsum(0)])
    area = 0.5 * sum(wedge(w[i], pieces[i]) for i in range(n))
    integral = sum(h[i] * (w[i] + w[i + 1]) / 2 for i in range(n))

    def straight(i):
        return Draw(pieces[i] / h[i] ** 0.5, 0.5 * pieces[i] / h[i] ** 0.5, torch.zeros(5, m, m))

    def of(first, last):
        if last == first + 1:
            return straight(first)
        middle = first + max(1, (last - first) // 3)
        share = float(h[first:middle].sum() / h[first:last].sum())
        return joined(of(first, middle), of(middle, last), share)

    whole, length = of(0, n), float(h.sum())
    torch.testing.assert_close(whole.z * length**0.5, w[-1])
    torch.testing.assert_close(whole.integral * length**1.5, integral)
    torch.testing.assert_close(whole.areas * length, area)


def test_the_law_of_joined_steps_is_that_of_a_step():
    # areas of two unequal steps make one with the same law: given ΔW, and with H
    n = 100_000
    first, second = (
        Draw(z, 0.5 * z + bridge, areas)
        for z, bridge, areas in (_drawn(n, 2, 1, seed) for seed in (3, 4))
    )
    whole = joined(first, second, 0.3)
    z, bridge, a = whole.z, whole.integral - 0.5 * whole.z, whole.areas[:, 0, 1]
    r = z.square().sum(1)
    _is_mean(bridge[:, 0].square(), 1 / 12)
    _is_mean(bridge[:, 0] * z[:, 0], 0.0)
    for weight in (torch.ones_like(r), r):
        _is_mean(weight * (a.square() - (1 + r) / 12), 0.0)
    _is_mean(a * bridge[:, 0] * z[:, 1], 1 / 12)


def test_areas_come_nearer_to_those_of_the_same_path_with_more_modes():
    # the modes of a bridge are those of one path: with the rest left out, its variance is left
    for modes in (1, 4, 16):
        draws = AreaDraws(Stream(0), torch.zeros(1, 2, dtype=F64), modes)
        rest = 1 / 12 - sum(1 / (2 * math.pi**2 * r**2) for r in range(1, modes + 1))
        assert math.isclose(draws.remainder, rest)
        assert rest < 1 / (2 * math.pi**2 * modes)
    assert [modes_of(n) for n in (1, 2, 4, 5, 100, 101)] == [1, 2, 2, 3, 10, 11]


def test_memory_of_many_modes_is_bounded_and_leaves_the_bits(monkeypatch):
    whole = _drawn(10, 3, 20)[2]
    monkeypatch.setattr("sdegen.core.levy_areas._AT_ONCE", 200)
    torch.testing.assert_close(_drawn(10, 3, 20)[2], whole)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_areas_have_the_kind_of_the_state(dtype, device):
    x = torch.zeros(6, 2, dtype=dtype, device=device)
    noise = sg.StepNoise(sg.Noise(x, rng=0, channels=3), [0.0, 1.0])
    for value in (noise.increment(0), noise.space_time_area(0), noise.areas(0)):
        assert value.dtype == dtype
        assert value.device.type == x.device.type
