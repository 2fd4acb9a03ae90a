import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.density2d.operator import Mesh
from sdegen.fokker_planck.density2d.rest import balanced, null_vectors
from sdegen.fokker_planck.density2d.transient import PlaneGenerator
from sdegen.fokker_planck.discretization.reconstruction import Line
from tests.exact import slope

NO_FLUX, PERIODIC = BoundaryCondition.NO_FLUX, BoundaryCondition.PERIODIC
WALLS = (NO_FLUX, NO_FLUX)


def fluxes_of(sde, cells, reach=4.5, walls=WALLS):
    grid = sg.Grid(-reach, reach, cells)
    mesh = Mesh((Line(grid, walls), Line(grid, walls)))
    return mesh, PlaneGenerator(sde, mesh).fluxes(0.0)


def rotating(omega):
    return sg.ItoProcess(lambda z: -z + omega * torch.stack([z[:, 1], -z[:, 0]], 1), 1.0)


def test_both_forms_have_their_orders():
    """Of N(0, ½) under a rotation: sixth order, and second with a numerical diffusion."""
    compact, lumped = [], []
    for cells in (24, 48):
        mesh, fluxes = fluxes_of(rotating(2.0), cells, 6.0)
        found = null_vectors(fluxes, compact=True)
        x = mesh.lines[0].grid.nodes.numpy()
        exact = (np.exp(-(x[:, None] ** 2) - x**2) / math.pi).ravel()
        assert found[2]
        compact.append(np.abs(found[0] - exact).max())
        lumped.append(np.abs(found[1] - exact).max())
        assert found[1].min() > 0
    assert slope([1 / 24, 1 / 48], compact) > 5
    assert slope([1 / 24, 1 / 48], lumped) == pytest.approx(2, abs=0.4)


def test_detailed_balance_is_a_sum_on_lines_and_rings():
    """U = cos x + sin y + ½ cos (x + y) on a torus, and in a box; not with a wind around it."""

    def pull(z, wind=0.0):
        both = torch.sin(z[:, 0] + z[:, 1]) / 2
        return torch.stack([torch.sin(z[:, 0]) + both + wind, both - torch.cos(z[:, 1])], 1)

    for walls in (WALLS, (PERIODIC, PERIODIC)):
        mesh, fluxes = fluxes_of(sg.ItoProcess(pull, math.sqrt(2)), 48, math.pi, walls)
        x = mesh.lines[0].grid.nodes[mesh.lines[0].interior].numpy()
        u = np.cos(x)[:, None] + np.sin(x) + 0.5 * np.cos(x[:, None] + x)
        exact = np.exp(-u - (-u).max())
        np.testing.assert_allclose(balanced(fluxes).reshape(mesh.shape), exact, rtol=1e-7)
    windy = sg.ItoProcess(lambda z: pull(z, 0.5), math.sqrt(2))
    assert balanced(fluxes_of(windy, 48, math.pi)[1]) is not None  # a tilt, between walls
    assert balanced(fluxes_of(windy, 48, math.pi, (PERIODIC, PERIODIC))[1]) is None


def test_wells_that_do_not_exchange_are_not_sure():
    def force(z):
        x, y = z.unbind(1)
        return torch.stack([-160 * x * (x**2 - 1) + y, -2 * y - 160 * x * (x**2 - 1)], 1)

    fluxes = fluxes_of(sg.ItoProcess(force, math.sqrt(2)), 40, 2.5)[1]
    assert not null_vectors(fluxes, compact=False)[2]
