import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.discretization.collocation import NODES, ORDER, collocated, walked
from tests.exact import slope


@pytest.mark.parametrize("boundary", ["no-flux", "absorbing", "periodic"])
def test_a_step_of_what_does_not_change_is_its_exponential(boundary):
    grid = sg.Grid(-math.pi, math.pi, 120)
    sde = sg.ItoProcess(lambda x: 0.5 - torch.sin(x), 1.0)
    generator = sg.FokkerPlanck(sde, grid, boundary)._compact
    with torch.no_grad():
        operator = generator.operator_at(0.0)
    p = generator.ends.restrict(grid.gaussian(0.0, 0.5).p)
    rates = np.stack([operator.rates.numpy()] * len(NODES))
    got = collocated(operator.mass.numpy(), rates, 0.02, p.numpy())
    assert float(np.abs(got - operator.moved(p, 0.02).numpy()).max()) < 1e-11
    far, _ = walked(operator.mass, operator.rates, 2.0, p)
    assert float((far - operator.moved(p, 2.0)).abs().max()) < 1e-9


def test_order_and_damping():
    # p' = λ(t) p with λ = −3 + cos t on each node by itself: rates are a diagonal
    def after(steps):
        p, h = np.ones(5), 2.0 / steps
        for i in range(steps):
            at = (i + NODES) * h
            rates = np.zeros((len(NODES), 3, 5))
            rates[:, 1] = (-3 + np.cos(at))[:, None]
            p = collocated(np.broadcast_to([[0.0], [1.0], [0.0]], (3, 5)), rates, h, p)
        return p[2]

    exact = math.exp(-6 + math.sin(2))
    counts = (1, 2)
    errors = [abs(after(n) - exact) for n in counts]
    assert abs(slope([1 / n for n in counts], errors) - ORDER) < 1.5
    stiff = np.zeros((len(NODES), 3, 5))
    stiff[:, 1] = -1e9
    damped = collocated(np.broadcast_to([[0.0], [1.0], [0.0]], (3, 5)), stiff, 1.0, np.ones(5))
    assert float(np.abs(damped).max()) < 1e-7
