import math

import pytest
import torch

import sdegen as sg

TIME = 0.02


def box(x):
    """Heat between walls from p = ½ + x, which leans on both with a slope."""
    k = torch.arange(1, 60, 2, dtype=torch.float64)
    decay = torch.exp(-0.5 * (math.pi * k) ** 2 * TIME)
    return 1 - torch.cos(math.pi * x[:, None] * k) @ (4 / (math.pi * k) ** 2 * decay)


def ring(x):
    """Heat on a ring from p = ½ + x, which jumps at the seam."""
    k = torch.arange(1, 60, dtype=torch.float64)
    decay = torch.exp(-0.5 * (2 * math.pi * k) ** 2 * TIME)
    return 1 - torch.sin(2 * math.pi * x[:, None] * k) @ (1 / (math.pi * k) * decay)


def error(boundary, law, cells):
    grid = sg.Grid(0.0, 1.0, cells)
    start = sg.Density(grid.nodes, 0.5 + grid.nodes)
    sde = sg.ItoProcess(lambda x: 0 * x, 1.0)
    solver = sg.FokkerPlanck(sde, grid, boundary, form="compact", truncation_is_physical=True)
    p = solver.solve(start, [0.0, TIME], rtol=0.5).final
    assert float(p.error) >= float((p.p - law(grid.nodes)).abs().max() / p.p.max()) / 3
    return float((p.p - law(grid.nodes)).abs().max())


@pytest.mark.parametrize(("boundary", "law"), [("no-flux", box), ("periodic", ring)])
@pytest.mark.parametrize("cells", [40, 41])
def test_a_start_that_no_wall_would_leave_keeps_the_fourth_order(boundary, law, cells):
    coarse, fine = error(boundary, law, cells), error(boundary, law, 2 * cells)
    assert 12 < coarse / fine < 20
    assert fine < 1e-6
