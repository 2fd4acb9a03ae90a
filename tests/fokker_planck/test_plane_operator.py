import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.density2d.operator import Mesh
from sdegen.fokker_planck.density2d.transient import PlaneGenerator
from sdegen.fokker_planck.discretization.reconstruction import Line
from tests.exact import slope

NO_FLUX, ABSORBING, RING = (
    (BoundaryCondition.NO_FLUX,) * 2,
    (BoundaryCondition.ABSORBING,) * 2,
    (BoundaryCondition.PERIODIC,) * 2,
)


def mesh_of(cells, first, second, walls=(NO_FLUX, NO_FLUX)):
    grids = sg.Grid(*first, cells[0]), sg.Grid(*second, cells[1])
    return Mesh((Line(grids[0], walls[0]), Line(grids[1], walls[1])))


def swirl(omega):
    return sg.ItoProcess(lambda z: -z + omega * torch.stack([z[:, 1], -z[:, 0]], 1), 1.0)


@pytest.mark.parametrize("walls", [(NO_FLUX, NO_FLUX), (NO_FLUX, ABSORBING), (RING, NO_FLUX)])
def test_both_forms_keep_mass_and_one_is_an_m_matrix(walls):
    mesh = mesh_of((20, 14), (-3.0, 3.0), (-2.0, 2.5), walls)
    fluxes = PlaneGenerator(swirl(10.0), mesh).fluxes(0.0)
    for matrix, volumes in ((fluxes.compact, mesh.volumes), (fluxes.lumped, mesh.lumped_volumes)):
        gained = (matrix.T @ volumes).reshape(mesh.shape)
        if ABSORBING in walls:  # what is left is lost beside the walls
            gained = gained[:, 8:-8] if matrix is fluxes.compact else gained[:, 1:-1]
        assert np.abs(gained).max(initial=0.0) < 1e-12 * np.abs(matrix.data).max()
    off = fluxes.lumped.toarray()
    np.fill_diagonal(off, 0.0)
    assert off.min() >= 0


def test_the_compact_form_is_of_fifth_order_or_more_whatever_the_drift():
    """−∇·J of p = e^{sin x + cos 2y} on a torus, by autograd; D varies, and axes differ."""

    def density(z):
        return torch.exp(torch.sin(z[:, 0]) + torch.cos(2 * z[:, 1]) / 2)

    def drift(z):
        return 20 * torch.stack([torch.cos(z[:, 1]), torch.sin(z[:, 0] + z[:, 1])], 1)

    def noise(z):
        return torch.stack([1 + 0.3 * torch.sin(z[:, 0]), 1 + 0.2 * torch.cos(z[:, 1])], 1)

    def derivative(values, z, axis):
        return torch.autograd.grad(values.sum(), z, create_graph=True)[0][:, axis]

    turn, errors = 2 * math.pi, []
    for cells in ((24, 30), (48, 60)):
        mesh = mesh_of(cells, (0.0, turn), (0.0, turn), (RING, RING))
        x, y = (line.grid.nodes[:-1] for line in mesh.lines)
        z = torch.cartesian_prod(x, y).requires_grad_()
        p = density(z)
        change = torch.zeros_like(p)
        for axis in (0, 1):
            d = noise(z)[:, axis] ** 2 / 2
            current = drift(z)[:, axis] * p - derivative(d * p, z, axis)
            change = change - derivative(current, z, axis)
        operator = PlaneGenerator(sg.ItoProcess(drift, noise), mesh).fluxes(0.0).compact
        exact = change.detach().numpy()
        errors.append(np.abs(operator @ p.detach().numpy() - exact).max() / np.abs(exact).max())
    assert slope([1 / 24, 1 / 48], errors) > 4.5
    assert errors[-1] < 2e-4


def test_unknowns_are_the_nodes_that_are_not_lost_or_met_twice():
    mesh = mesh_of((6, 5), (0.0, 1.0), (0.0, 1.0), (RING, ABSORBING))
    assert mesh.shape == (6, 4)
    p = torch.rand(7, 6, dtype=torch.float64)
    p[-1] = p[0]
    p[:, 0] = p[:, -1] = 0
    assert torch.equal(mesh.widen(mesh.restrict(p)), p)
    assert mesh.volumes.sum() < 1


def test_currents_at_nodes():
    """J = −D ∇p of p = 1 + x²(1 − x)² + y/2 at rest of nothing: a line in y, a quartic in x."""
    mesh = mesh_of((16, 12), (0.0, 1.0), (0.0, 1.0))
    x, y = (line.grid.nodes for line in mesh.lines)
    p = (1 + x**2 * (1 - x) ** 2)[:, None] + 0 * y
    first, second = PlaneGenerator(sg.BrownianMotion(math.sqrt(2)), mesh).fluxes(0.0).currents(p)
    exact = -(2 * x * (1 - x) ** 2 - 2 * x**2 * (1 - x))
    np.testing.assert_allclose(first, exact[:, None].expand_as(p), atol=1e-12)
    np.testing.assert_allclose(second, 0.0, atol=1e-13)
