"""SRA: strong order 3/2 for additive noise, weak order 2, with their limits."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline

import sdegen as sg
from sdegen.core.step_noise import Draws, StepNoise
from tests.solvers.test_milstein import Path, order_of

F64 = torch.float64
FINE = torch.linspace(0, 1, 257, dtype=F64)
STEPS = (4, 8, 16, 32)
G = torch.tensor([[0.3, 0.0, 0.9], [-0.9, 0.6, 0.0]], dtype=F64)


def _errors(path, sde, x, truth):
    gaps = [path.end(sde, sg.SRA(), x, n) - truth for n in STEPS]
    return [float(gap.square().sum(1).mean().sqrt()) for gap in gaps]


@pytest.mark.parametrize(
    ("g", "slope"),
    [(lambda t: torch.ones_like(t), lambda t: 0 * t), (lambda t: 1 + t * t, lambda t: 2 * t)],
    ids=["constant", "of time"],
)
def test_the_limit_of_a_linear_drift(g, slope):
    # dX = −X dt + g(t) dW: X = ∫ c(s) dW, c = e^{s − 1} g, and over an interval h
    # ∫ c dW = c ΔW + c' (h ΔW − J) up to h^{5/2}
    sde = sg.ItoProcess(lambda x: -x, lambda t: g(t).to(F64))
    x = torch.zeros(2000, 1, dtype=F64)
    path = Path(x, None, 2, FINE)
    noise, h, truth = path.noise(256), float(FINE[1]), 0 * x
    for i, t in enumerate(FINE[:-1]):
        w, j, e = noise.increment(i), noise.space_time_area(i), torch.exp(t - 1)
        truth = truth + e * g(t) * w + e * (g(t) + slope(t)) * (h * w - j)
    errors = _errors(path, sde, x, truth)
    # of order 2, since the drift has no second derivative; with h ΔW − J for J it would be 1
    assert abs(order_of(errors, STEPS) - 2) < 0.1
    assert errors[-1] < STEPS[-1] ** -2


@pytest.mark.parametrize("constant", [True, False])
def test_strong_order_three_halves_of_channels(constant):
    # drifts that bend, and little else, so that what leaves order 3/2 is seen at these steps
    def drift(x):
        a, b = x.unbind(1)
        return 0.3 * torch.stack([b.cos(), a.sin() + b.cos()], 1)

    sde = sg.ItoProcess(drift, G if constant else lambda t: G * (1 - 0.2 * t), channels=3)
    x = torch.full((1000, 2), 0.5, dtype=F64)
    path = Path(x, 3, 3, FINE)
    finest = path.end(sde, sg.SRA(), x, 256)
    errors = _errors(path, sde, x, finest)
    assert abs(order_of(errors, STEPS) - 1.5) < 0.1
    # the limit is that of Euler's method on the same path, which is of order 1
    gaps = [float((path.end(sde, sg.EulerMaruyama(), x, n) - finest).norm()) for n in (64, 256)]
    assert abs(math.log(gaps[0] / gaps[1]) / math.log(4) - 1) < 0.1


class _Nodes(Draws):
    """The nodes of a quadrature in z and η, the same in each step."""

    def __init__(self, z, eta):
        self._z, self._eta = z, eta

    def z(self, i):
        return self._z

    def integral(self, i):
        return 0.5 * self._z + self._eta / math.sqrt(12)

    def areas(self, i):
        raise AssertionError


def _expected(n, x0, quantity):
    """E of a quantity after n steps of dX = tanh X dt + dW to t = 1, by quadrature, no chance."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    z, eta = (torch.tensor(a.ravel()) for a in np.meshgrid(nodes, nodes))
    weight = np.outer(weights, weights).ravel() / weights.sum() ** 2
    grid = torch.linspace(-14, 14, 281, dtype=F64)
    x = grid.repeat_interleave(len(z))[:, None]
    benes, times = sg.ItoProcess(torch.tanh, 1.0), torch.tensor([0.0, 1 / n], dtype=F64)
    draws = _Nodes(*(a.repeat(len(grid))[:, None] for a in (z, eta)))
    draws.normal = None
    noise = StepNoise.of(draws, times, None, sg.Noise(x, rng=0).stream)
    (after,) = sg.integrate(benes, sg.SRA(), x, times, noise)
    after = after.numpy().reshape(len(grid), -1).clip(-14, 14)
    values = quantity(grid.numpy())
    for _ in range(n):
        values = make_interp_spline(grid.numpy(), values, k=5)(after) @ weight
    return float(make_interp_spline(grid.numpy(), values, k=5)(x0))


@pytest.mark.parametrize("power", [1, 2])
def test_weak_order_two(power):
    # of Beneš' diffusion, X = x0 ± t + N(0, t) with weights e^{±x0}/(2 cosh x0)
    x0, up = 0.5, math.exp(0.5) / (2 * math.cosh(0.5))
    moments = {m: (m, m * m + 1) for m in (x0 + 1, x0 - 1)}
    exact = up * moments[x0 + 1][power - 1] + (1 - up) * moments[x0 - 1][power - 1]
    errors = [abs(_expected(n, x0, lambda x: x**power) - exact) for n in (8, 16, 32)]
    assert abs(math.log2(errors[0] / errors[2]) / 2 - 2) < 0.15
    assert errors[2] < 0.3 * 32**-2


def test_without_noise_it_is_ralstons_method_of_order_two():
    flow, x = sg.ItoProcess(lambda x: -x * x, 0.0), torch.ones(1, 1, dtype=F64)
    errors = []
    for n in (20, 40, 80):
        *_, end = sg.integrate(flow, sg.SRA(), x, torch.linspace(0, 1, n + 1, dtype=F64))
        errors.append(abs(float(end) - 0.5))
    assert abs(math.log2(errors[0] / errors[2]) / 2 - 2) < 0.1
    assert errors[2] < 1e-4


def test_walked_backwards_it_is_the_run_in_reversed_time():
    # dX = −X dt + g dW from t = 1 to 0 is the same as a drift of the other sign from 0 to 1
    class Backwards(sg.ItoProcess):
        direction = -1

    x = torch.ones(5, 1, dtype=F64)
    times = torch.linspace(0, 1, 5, dtype=F64)
    back = Backwards(lambda x: -x, lambda t: 1 + t)
    forth = sg.ItoProcess(lambda x: x, lambda t: 2 - t)
    ends = [
        list(sg.integrate(sde, sg.SRA(), x, nodes, sg.Noise(x, rng=0)))[-1]
        for sde, nodes in ((back, times.flip(0)), (forth, times))
    ]
    torch.testing.assert_close(*ends)


def test_torchsde_walks_the_same_path():
    """An independent implementation of the method, with the areas of the path."""
    path = sg.BrownianPath(0, FINE)
    sde, x = sg.ItoProcess(lambda x: -x + x.sin(), 0.7), torch.ones(20, 1, dtype=F64)
    ends = [
        sg.simulate(sde, x, [0.0, 1.0], solver=solver, brownian=path, rng=0).final
        for solver in (sg.SRA(8), sg.TorchSDE("srk", 8))
    ]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_multiplicative_noise_is_refused():
    x = torch.ones(3, 1, dtype=F64)
    with pytest.raises(
        ValueError, match=r"additive noise, but that of ItoProcess .* Milstein\(\)"
    ):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, lambda x: x), x, [0.0, 0.1], solver=sg.SRA(), rng=0
        )
