"""Orders of the methods of phase space: weak by moments and quadrature, strong along paths."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.step_noise import Draws, StepNoise
from tests.solvers.test_splitting import DYNAMICS, METHODS, QUARTIC, SPLITTINGS, oscillator, starts

F64 = torch.float64


def _finite_time(sde, solver, n):
    """Mean and covariance of the chain at t = 1, from a point, less those of the SDE."""
    start, times = [1.0, -0.5], torch.linspace(0, 1, n + 1, dtype=F64)
    law = sg.ChainMoments(sde, 2, solver).run(start, 0.0, times).final
    exact = sg.LinearSDE.of(sde, 2).moments(start, 0.0, [0.0, 1.0]).final
    return float((law.mean - exact.mean).norm()), float((law.covariance - exact.covariance).norm())


@pytest.mark.parametrize(
    ("solver", "limits"),
    [
        (SPLITTINGS[0], (0.3154, 0.2655)),
        (SPLITTINGS[1], (0.3774, 0.1978)),
        (METHODS[2], (0.0371, 0.00521)),
    ],
    ids=["BAOAB", "OBABO", "QUICSORT"],
)
def test_weak_order_on_an_oscillator(solver, limits):
    """By the exact moments of the chain, mean and covariance, with the limits of error/h^p."""
    order = solver.orders.additive[0]
    errors = [_finite_time(oscillator(1.4, 0.6), solver, n) for n in (16, 32, 64)]
    for kind, limit in zip(zip(*errors, strict=True), limits, strict=True):
        assert abs(math.log2(kind[0] / kind[2]) / 2 - order) < 0.15
        assert abs(kind[2] * 64**order / limit - 1) < 0.03


class Nodes(Draws):
    """The nodes of a quadrature over z, η and κ of velocities, the same in each step."""

    def __init__(self, z, eta, kappa):
        self._z, self._eta, self._kappa = z, eta, kappa
        self.normal = lambda: z

    def z(self, i):
        return self._z

    def integral(self, i):
        return 0.5 * self._z + self._eta / math.sqrt(12)

    def moment(self, i):
        eta = self._eta / (2 * math.sqrt(12))
        return self._z / 3 + eta - self._kappa / math.sqrt(720)

    def areas(self, i):
        raise AssertionError


def _expansion(friction, x, v, h, power, terms=12):
    """E[X_h^i V_h^j] by the series of the generator on polynomials, U = x⁴/4, T = 0.8, m = 1."""
    f, value = {power: 1.0}, 0.0
    for k in range(terms):
        value += h**k / math.factorial(k) * sum(c * x**i * v**j for (i, j), c in f.items())
        g = {}
        for (i, j), c in f.items():
            for key, more in (
                ((i - 1, j + 1), i),
                ((i + 3, j - 1), -j),
                ((i, j), -friction * j),
                ((i, j - 2), friction * 0.8 * j * (j - 1)),
            ):
                if more:
                    g[key] = g.get(key, 0.0) + more * c
        f = g
    return value


@pytest.mark.parametrize("power", [(1, 0), (0, 1), (2, 0), (1, 1)])
def test_weak_order_three_on_a_quartic_potential(power):
    """The error of one step, by quadrature and by the generator, no chance: of order 3 + 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    axes = np.meshgrid(nodes, nodes, nodes, indexing="ij")
    draws = [torch.tensor(a.ravel()).reshape(-1, 1, 1).expand(-1, 2, 1) for a in axes]
    weight = torch.tensor(np.einsum("i,j,k->ijk", *[weights] * 3).ravel())
    sde = sg.UnderdampedLangevin(lambda x: x**4 / 4, 0.9, 0.8)
    state = sde.state(torch.full((1000, 1), 0.7, dtype=F64), 0.4)
    errors = []
    for h in (0.2, 0.1, 0.05):
        times = torch.tensor([0.0, h], dtype=F64)
        noise = StepNoise.of(Nodes(*draws), times, None, sg.Noise(state, rng=0).stream)
        with torch.no_grad():
            (after,) = sg.integrate(sde, sg.QUICSORT(), state, times, noise)
        value = after[:, 0, 0] ** power[0] * after[:, 1, 0] ** power[1]
        found = float((weight * value).sum() / weight.sum())
        errors.append(abs(found - _expansion(0.9, 0.7, 0.4, h, power)))
    assert abs(math.log2(errors[1] / errors[2]) - 4) < 0.15
    assert errors[2] < 0.3 * 0.05**4


@pytest.mark.parametrize(
    ("sde", "solver", "limit"),
    [
        (DYNAMICS["constant"], SPLITTINGS[0], 0.2),
        (DYNAMICS["friction of x"], SPLITTINGS[0], 0.5),
        (DYNAMICS["constant"], SPLITTINGS[1], 0.5),
        (DYNAMICS["constant"], METHODS[2], 0.05),
    ],
    ids=["BAOAB", "BAOAB, friction of x", "OBABO", "QUICSORT"],
)
def test_strong_orders_along_a_brownian_path(sde, solver, limit):
    order = 3 if isinstance(solver, sg.QUICSORT) else 1
    fine = torch.linspace(0, 1, 129, dtype=F64)
    path, state, ends = sg.BrownianPath(3, fine), 0.7 * starts(500), {}
    for steps in (16, 32, 64, 128):
        times = fine[:: 128 // steps]
        run = sg.simulate(sde, state, times, solver=solver, brownian=path, rng=0)
        ends[steps] = run.final
    gaps = [float((ends[2 * n] - ends[n]).square().mean().sqrt()) for n in (16, 32, 64)]
    assert abs(math.log2(gaps[0] / gaps[2]) / 2 - order) < 0.15
    assert gaps[2] < limit * 64.0**-order


def test_the_same_path_gives_three_methods_one_limit():
    fine = torch.linspace(0, 1, 257, dtype=F64)
    path, state = sg.BrownianPath(3, fine), starts(100)
    ends = [
        sg.simulate(QUARTIC, state, fine, solver=one, brownian=path, rng=0).final
        for one in (*METHODS, sg.Heun())
    ]
    for one in ends[:2] + ends[3:]:
        assert float((one - ends[2]).square().mean().sqrt()) < 4e-3
