import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import sdegen as sg
from sdegen.core.conditions import BoundaryCondition
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, Coefficients
from sdegen.fokker_planck.discretization.fluxes import landscape
from sdegen.fokker_planck.discretization.reconstruction import Line, combinations, scale_means

NO_FLUX, ABSORBING, PERIODIC = BoundaryCondition
WALLS = (NO_FLUX, NO_FLUX)


def constant(grid, f, d):
    """f/D on one line with f and D the same everywhere."""
    cells, points = grid.cells, len(GAUSS_NODES)
    full = torch.ones(1, cells, points, dtype=torch.float64)
    nodal = d * torch.ones(1, cells + 1, dtype=torch.float64)
    c = Coefficients(f * full, d * full, nodal, torch.zeros(2, dtype=torch.float64))
    return landscape(c, grid.nodes)


@pytest.mark.parametrize("u", [0.0, 1e-6, 0.3, -2.0, 3.99, 4.01, -15.0, 60.0, -800.0])
def test_moments_are_those_of_an_exponential(u):
    got = scale_means(constant(sg.Grid(0.0, 5.0, 5), u, 1.0))[1][:, 0, 2]

    # the larger end of e^{−uξ} is 1, against overflow; half the mass lies within 1/|u| of it
    def weight(s):
        return math.exp(-u * s + min(u, 0.0))

    near = [min(1.0, 3 / abs(u)) if u > 0 else max(0.0, 1 - 3 / abs(u))] if u else [0.5]
    whole = quad(weight, 0, 1, points=near, epsabs=0, epsrel=1e-13)[0]
    for m in range(5):
        exact = quad(lambda s, m=m: s**m * weight(s), 0, 1, points=near, epsabs=0)[0] / whole
        assert got[m] == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("size", [0.5, 6.0, 20.0, 30.0, 300.0])
@pytest.mark.parametrize("sense", [1, -1])
def test_scale_densities_that_are_no_exponentials(size, sense):
    """f/D = ± size (1 + ξ/2 − ξ²/4) in a cell: against adaptive quadrature."""
    xi = GAUSS_NODES
    f = sense * size * (1 + xi / 2 - xi**2 / 4).reshape(1, 1, 4)
    one = torch.ones(1, 1, 4, dtype=torch.float64)
    c = Coefficients(f, one, torch.ones(1, 2, dtype=torch.float64), torch.zeros(2))
    ratio, moments = scale_means(landscape(c, torch.tensor([0.0, 1.0], dtype=torch.float64)))
    rise = sense * size * np.array([1, 0.25, -1 / 12])
    u = rise.sum()

    top = max(0.0, -u)

    def s(x):
        return math.exp(-(rise[0] * x + rise[1] * x**2 + rise[2] * x**3) - top)

    near = [min(0.5, 5 / size) if sense > 0 else max(0.5, 1 - 5 / size)]
    whole = quad(s, 0, 1, points=near, epsrel=1e-13, epsabs=0)[0]
    line = quad(lambda x: math.exp(-u * x - top), 0, 1, points=near, epsabs=0)[0]
    assert ratio[0, 0] == pytest.approx(line / whole, rel=2e-4)
    for m in range(5):
        exact = quad(lambda x, m=m: x**m * s(x), 0, 1, points=near, epsabs=0)[0] / whole
        assert moments[m, 0, 0] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(
    "walls",
    [
        WALLS,
        (ABSORBING, NO_FLUX),
        (PERIODIC, PERIODIC),
    ],
)
@pytest.mark.parametrize("u", [0.0, 0.5, -8.0, 300.0])
def test_the_divergence_of_a_polynomial_current_is_exact(u, walls):
    """From exact means of J, degree 4, in cells of any Péclet number; between the walls' rows."""
    grid = sg.Grid(0.0, 20.0, 20)
    line = Line(grid, walls)
    moments = scale_means(constant(grid, u, 1.0))[1]
    power = np.array([0.3, -0.2, 0.05, 0.01, -0.002])
    x = grid.nodes.numpy()
    means = np.stack(  # of (x_i + ξ)^m in each cell
        [
            sum(math.comb(m, j) * x[:-1] ** (m - j) * moments[j, 0] for j in range(m + 1))
            for m in range(5)
        ]
    )
    flux = np.concatenate([[0.0], power @ means, [0.0]])
    weights = combinations(line, moments, line.face_moments)[:, 0]
    taken = np.clip(line.neighbours, -1, grid.cells) + 1
    faces = sum(weights[k] * flux[taken[:, k]] for k in range(len(weights)))
    slope = sum(m * power[m] * x ** (m - 1) for m in range(1, 5))
    inside = slice(7, -7)
    got = (np.diff(faces) / line.volumes[1:-1])[6:-6]
    np.testing.assert_allclose(got, slope[inside], rtol=1e-9, atol=1e-9)


def test_volumes_are_a_quadrature_of_fourth_order():
    line = Line(sg.Grid(0.0, 1.0, 24), WALLS)
    x = line.grid.nodes.numpy()
    for power in range(4):
        assert line.volumes @ x**power == pytest.approx(1 / (power + 1), rel=1e-13)
    ring = Line(sg.Grid(0.0, 1.0, 24), (PERIODIC, PERIODIC))
    np.testing.assert_allclose(ring.volumes[1:-1], 1 / 24, rtol=1e-12)
    assert ring.volumes[0] == pytest.approx(1 / 48)
    assert ring.volumes.sum() == pytest.approx(1.0, rel=1e-14)


def test_a_wall_without_flux_is_known_to_have_none():
    """J = x (1 − x) from its means, at the nodes: zero at both walls, exact between them."""
    grid = sg.Grid(0.0, 1.0, 12)
    line, moments = Line(grid, WALLS), scale_means(constant(grid, 30.0, 1.0))[1]
    x, h = grid.nodes.numpy(), 1 / 12
    first = x[:-1] + h * moments[1, 0]
    second = x[:-1] ** 2 + 2 * x[:-1] * h * moments[1, 0] + h**2 * moments[2, 0]
    flux = np.concatenate([[0.0], first - second, [0.0]])
    weights = combinations(line, moments, line.node_moments)
    low, high = sum(part[:, 0] * flux[line.neighbours[:, k] + 1] for k, part in enumerate(weights))
    np.testing.assert_allclose(low, (x * (1 - x))[:-1], atol=1e-13)
    np.testing.assert_allclose(high, (x * (1 - x))[1:], atol=1e-13)
