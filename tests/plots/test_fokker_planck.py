"""Pictures of densities in time and of what a solver finds hold the numbers of the results."""

import math

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.quiver import Quiver
from PIL import Image

import sdegen as sg
from sdegen.plots.ticks import scientific
from tests.plots.test_samples import is_publishable, panels

WELL = sg.ItoProcess(drift=lambda x: x - x**3 + 0.1, diffusion=0.7)
GRID = sg.Grid(-3.0, 3.0, 150)
SOLVER = sg.FokkerPlanck(WELL, GRID)
X = GRID.nodes
ENERGY = X**4 / 4 - X**2 / 2 - 0.1 * X


@pytest.fixture(scope="module")
def path():
    times = torch.linspace(0, 4, 21, dtype=torch.float64)
    return SOLVER.solve(GRID.gaussian(-1.0, 0.2), times)


def test_ridge_stands_on_its_times_and_has_one_scale(path):
    figure = sg.plots.density_ridge(path, count=5)
    (panel,) = panels(figure).values()
    curves = sorted(panel.lines, key=lambda line: line.get_ydata().min())
    shown = [0, 5, 10, 15, 20]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["0", "1", "2", "3", "4"]
    heights = np.stack([line.get_ydata() - row for row, line in enumerate(curves)])
    p = path.p[shown].numpy()
    np.testing.assert_allclose(heights / heights.max(), p / p.max(), rtol=0, atol=1e-12)
    assert all(np.array_equal(line.get_xdata(), X) for line in curves)
    # the earliest in front, where it hides those behind it
    orders = [line.get_zorder() for line in curves]
    assert orders == sorted(orders, reverse=True)
    highest, error = f"highest {float(path.p[0].max()):.3g}", float(path.error["p"].max())
    told = f"error of p ≤ {scientific(error)} of its peak"
    assert panel.get_title() == f"density p(x, t), {highest}, {told}"
    assert is_publishable(figure)
    with pytest.raises(ValueError, match="needs two times or more, but the density has 1"):
        sg.plots.density_ridge(sg.DensityPath(path.times[:1], path.p[:1], path.x))


def test_film_of_a_density_moves_and_rests_on_its_last_frame(path, tmp_path):
    sg.plots.density_gif(path, tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 21
        frames = []
        for k in (0, 10, 20):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
            assert film.info["duration"] == (1500 if k == 20 else 100)
    blue = [np.abs(frame - [0, 0x72, 0xB2]).sum(-1) < 60 for frame in frames]
    # the highest pixel of the curve: its peak falls from 2.0 as the density spreads
    tops = [int(mask.any(1).argmax()) for mask in blue]
    bottom = int(blue[0].any(1).nonzero()[0].max())
    heights = [(bottom - top) / (bottom - tops[0]) for top in tops]
    peaks = [float(path.p[k].max() / path.p[0].max()) for k in (0, 10, 20)]
    assert heights == pytest.approx(peaks, abs=0.03)


def test_spectrum_holds_modes_and_rates():
    modes, rest = SOLVER.spectrum(5), SOLVER.stationary()
    figure = sg.plots.spectrum(modes, rest, energy=ENERGY, count=4)
    axes = panels(figure)
    assert list(axes) == ["U", "M", "P"]
    assert np.array_equal(axes["P"].lines[0].get_xydata(), np.stack([X, rest.p], 1))
    assert np.array_equal(axes["U"].lines[0].get_ydata(), ENERGY)
    curves = axes["M"].lines[1::2]
    assert len(curves) == 4
    for n, line in enumerate(curves):
        psi = modes.densities[n].numpy()
        np.testing.assert_allclose(line.get_ydata() - n, 0.42 * psi / np.abs(psi).max(), atol=1e-9)
    labels = [text.get_text() for text in axes["M"].get_yticklabels()]
    assert labels == [f"{float(rate):.4g}" for rate in modes.rates[:4]]
    assert labels[0] == "0"
    assert f"{modes.relaxation_time:.4g}" in axes["M"].get_title()
    assert is_publishable(figure)
    assert list(panels(sg.plots.spectrum(modes, rest))) == ["P", "M"]


def test_currents_are_drawn_at_the_middle_of_cells(path):
    densities = {f"t = {float(path.times[k]):g}": path.at(k) for k in (1, 10)}
    currents = {name: SOLVER.current(density) for name, density in densities.items()}
    figure = sg.plots.current(densities, currents)
    axes = panels(figure)
    for i, name in enumerate(densities):
        assert np.array_equal(axes["P"].lines[i].get_ydata(), densities[name].p)
        x, j = axes["J"].lines[i].get_data()
        assert np.array_equal(j, currents[name])
        np.testing.assert_allclose(x, 0.5 * (X[1:] + X[:-1]), atol=1e-15)
    texts = [text.get_text() for text in axes["P"].get_legend().get_texts()]
    assert texts == ["t = 0.2", "t = 2"]
    assert is_publishable(figure)
    with pytest.raises(ValueError, match="densities and currents need the same names"):
        sg.plots.current(densities, {"t = 1": currents["t = 2"]})


def test_first_passage_holds_mean_band_and_committor():
    grid = sg.Grid(-1.2, 1.2, 80)
    passage = sg.FokkerPlanck(WELL, grid, "absorbing").first_passage()
    x = grid.nodes
    figure = sg.plots.first_passage(passage, energy=x**4 / 4 - x**2 / 2 - 0.1 * x)
    axes = panels(figure)
    assert list(axes) == ["U", "T", "Q"]
    assert np.array_equal(axes["T"].lines[0].get_xydata(), np.stack([x, passage.mean], 1))
    assert np.array_equal(axes["Q"].lines[0].get_ydata(), passage.to_high)
    band = axes["T"].collections[0].get_paths()[0].vertices
    top = (passage.mean + passage.std).numpy()
    assert band[:, 1].max() == pytest.approx(top.max(), abs=1e-12)
    assert band[:, 1].min() == 0  # a time is never negative
    assert is_publishable(figure)


def test_plane_holds_the_density_and_its_current_turns():
    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
    sde = sg.ItoProcess(drift=lambda x: -x - x @ turn.T, diffusion=1.0)
    grid = sg.Grid(-4.5, 4.5, 48)
    solver = sg.FokkerPlanck2D(sde, (grid, grid))
    density = solver.stationary()
    current = solver.current(density)
    figure = sg.plots.plane(density, current)
    panel = panels(figure)["P"]
    (mesh,) = (c for c in panel.collections if isinstance(c, QuadMesh))
    (arrows,) = (c for c in panel.collections if isinstance(c, Quiver))
    assert np.array_equal(mesh.get_array().reshape(49, 49), density.p.T)
    # the drift −ω(−y, x) turns clockwise: J ∝ (y, −x)
    along = arrows.U * arrows.Y - arrows.V * arrows.X
    assert (along > 0).all()
    largest = float(current.norm(dim=0).max())
    drawn = np.hypot(arrows.U, arrows.V)
    assert 0.02 * 0.9 * largest < drawn.min() < drawn.max() <= largest
    assert drawn.max() > 0.8 * largest
    assert math.isclose(arrows.scale * 0.95 * 3 * 9 / 48, drawn.max(), rel_tol=1e-9)
    assert is_publishable(figure)
    assert not any(isinstance(c, Quiver) for c in panels(sg.plots.plane(density))["P"].collections)


def test_the_modes_of_a_ring_with_a_current_are_drawn_on_their_own_nodes():
    """A constant drift v on a ring: λ_1 = D q² ± i v q, so that 1/Re λ_1 is known."""
    ring = sg.ItoProcess(drift=lambda x: 0 * x + 1.5, diffusion=1.0)
    length = 2 * math.pi
    modes = sg.FokkerPlanck(ring, sg.Grid(0.0, length, 80), "periodic").turning_spectrum(3)
    assert modes.relaxation_time == pytest.approx(2.0, rel=1e-4)
    coarse = sg.Grid(0.0, length, 40)
    rest = sg.Density(coarse.nodes, torch.full((41,), 1 / length, dtype=torch.float64))
    right = sg.plots.spectrum(modes, rest).axes[1]
    np.testing.assert_array_equal(right.get_lines()[1].get_xdata(), modes.x)
    assert right.get_title().startswith("relaxation time 1/λ = 2, relative error of rates ≤ ")


def test_a_density_that_is_infinite_at_a_wall_is_drawn():
    sde = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 20.0, 200))
    rest = solver.stationary()
    figure = sg.plots.current({"rest": rest}, {"rest": solver.current(rest)})
    figure.canvas.draw()
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_a_barrier_is_seen_beside_the_walls_of_its_landscape():
    well, grid = sg.Langevin(sg.DoubleWell(), temperature=0.1), sg.Grid(-3.0, 1.0, 200)
    passage = sg.FokkerPlanck(well, grid, ("no-flux", "absorbing")).first_passage()
    energy = sg.DoubleWell().energy(grid.nodes[:, None]).flatten()  # 15.75 at the end, barrier ¼
    low, high = sg.plots.first_passage(passage, energy=energy).axes[0].get_ylim()
    assert low < -0.25 < 0.0 < high < 0.25
