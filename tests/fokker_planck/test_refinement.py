import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.discretization.generator import Generator
from sdegen.fokker_planck.discretization.reader import Reader
from sdegen.fokker_planck.discretization.refinement import bisected, coarsened, halved, positions


def geometric():
    return sg.Grid.sinh(-30.0, 20.0, 61, center=1.0, width=0.5)


@pytest.mark.parametrize("grid", [sg.Grid(-1.0, math.pi, 37), geometric()])
def test_finer_grids_keep_every_node(grid):
    chosen = torch.zeros(grid.cells, dtype=torch.bool)
    chosen[[0, 5, -1]] = True
    for finer in (halved(grid), bisected(grid, chosen), halved(bisected(grid, chosen))):
        assert torch.equal(finer.nodes[positions(grid, finer)], grid.nodes)
    assert bisected(grid, chosen).cells == grid.cells + 3
    assert halved(grid).cells == 2 * grid.cells


def test_halving_and_coarsening_undo_each_other():
    grid = sg.Grid(-2.0, 1.0, 40)
    assert torch.equal(coarsened(halved(grid)).nodes, grid.nodes)
    assert coarsened(sg.Grid(0.0, 1.0, 9)).nodes.tolist()[-3:] == [6 / 9, 7 / 9, 1.0]


def test_new_nodes_keep_a_smooth_spacing_smooth():
    # x = 1 + sinh(s)/2: at half-numbered s to the fourth order of the spacing in s
    grid = geometric()
    s = np.linspace(math.asinh(-62.0), math.asinh(38.0), 123)
    off = np.abs(halved(grid).nodes.numpy() - 1 - 0.5 * np.sinh(s))[3:-3]
    assert (off < 2e-3 * np.diff(halved(grid).nodes.numpy())[3:-2]).all()
    assert halved(grid).smooth


def test_a_reader_on_a_finer_grid_reads_the_same_sde():
    sde = sg.ItoProcess(lambda x: x - x**3, lambda x: torch.sqrt(1 + x**2))
    grid = sg.Grid(-3.0, 3.0, 20)
    fine = Generator(Reader(sde, grid), ("no-flux", "no-flux"), compact=True).on(halved(grid))
    direct = Reader(sde, halved(grid)).at(0.0)
    assert torch.equal(fine.coefficients(0.0).diffusivity, direct.diffusivity)
    assert torch.equal(fine.coefficients(0.0).drift, direct.drift)
