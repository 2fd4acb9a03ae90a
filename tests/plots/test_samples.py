"""Figures hold the numbers that were given to them, are labelled, and nothing on them overlaps."""

import io
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.plots import density as plots_density
from tests.plots.readable import faults

TIMES = torch.linspace(0, 2, 21, dtype=torch.float64)


def normal(*shape, rng=0):
    return stream(rng, "test").normal(shape, dtype=torch.float64)


def moments(t):
    """Of the Ornstein-Uhlenbeck process dX = −X dt + √2·0.5 dW from N(−2, 0.3²)."""
    return -2 * math.exp(-t), math.sqrt(0.25 + (0.09 - 0.25) * math.exp(-2 * t))


@pytest.fixture(scope="module")
def density():
    x = torch.linspace(-4, 3, 141, dtype=torch.float64)
    rows = [
        torch.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        for mean, std in map(moments, TIMES.tolist())
    ]
    return sg.DensityPath(times=TIMES, p=torch.stack(rows), x=x)


def trajectory(states, times=TIMES, lost=()):
    nonfinite = torch.zeros(states.shape[1], dtype=torch.bool)
    nonfinite[list(lost)] = True
    return sg.Trajectory(times=times, states=states, nfe=1, seed=0, nonfinite=nonfinite)


@pytest.fixture(scope="module")
def path():
    z = normal(5_000, 1, rng=1)
    states = [mean + std * z for mean, std in map(moments, TIMES.tolist())]
    return trajectory(torch.stack(states))


def panels(figure):
    return {axes.get_label(): axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def is_publishable(figure):
    """Nothing overlaps or is cut off, and every axis says what it is."""
    assert faults(figure) == []
    return True


def test_a_histogram_has_area_one_and_shows_the_mean():
    values = 3 + 2 * normal(4_000, rng=5)
    figure = sg.plots.histogram(values, quantity="log p, nats")
    panel = panels(figure)["P"]
    (patch,) = panel.patches
    height, edges, _ = patch.get_data()
    # √n bins would be 63; 60 is the most there are
    assert len(height) == 60
    assert float((height * np.diff(edges)).sum()) == pytest.approx(1, abs=1e-12)
    inside = ((values >= edges[20]) & (values < edges[30])).double().mean()
    assert float((height * np.diff(edges))[20:30].sum()) == pytest.approx(float(inside), abs=1e-12)
    assert panel.lines[0].get_xdata()[0] == pytest.approx(float(values.mean()), abs=1e-12)
    assert panel.get_xlabel() == "log p, nats"
    is_publishable(figure)
    for bad in (torch.tensor([1.0, math.nan]), torch.zeros(3, 2)):
        with pytest.raises(ValueError, match=r"^a histogram needs finite values of shape \(n,\)"):
            sg.plots.histogram(bad, quantity="x")


def test_density_and_particles_holds_both(density, path):
    times = [0.0, 0.5, 2.0]
    figure = sg.plots.density_and_particles(density, path, times)
    axes = panels(figure)
    assert list(axes) == ["T", "A", "B", "C"]
    for panel, t, k in zip((axes[c] for c in "ABC"), times, (0, 5, 20), strict=True):
        assert panel.get_title() == f"t = {t:g}"
        (line,) = panel.lines
        assert np.array_equal(line.get_xydata(), np.stack([density.x, density.p[k]], 1))
        heights, edges, _ = panel.patches[0].get_data()
        assert set(edges) <= set(density.x.tolist())  # bins are whole cells
        assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=1e-12)
        particles = path.states[k, :, 0].numpy()
        counts = [((a <= particles) & (particles < b)).sum() for a, b in itertools.pairwise(edges)]
        assert np.allclose(heights * np.diff(edges) * 5_000, counts, atol=1e-9)
        # and so the histogram is that of the law: the mass of every bin, within 5.5 deviations
        mean, std = moments(t)
        mass = torch.special.ndtr((torch.from_numpy(edges) - mean) / std).diff().numpy()
        slack = 5.5 * np.sqrt(mass * (1 - mass) / 5_000) + 5 / 5_000
        assert (np.abs(heights * np.diff(edges) - mass) < slack).all()
    top = axes["T"]
    assert np.array_equal(top.collections[0].get_array().reshape(141, 21), density.p.T)
    assert [line.get_xdata()[0] for line in top.lines] == times
    assert (top.get_xlabel(), top.get_ylabel()) == ("time t", "position x")
    assert axes["A"].get_ylabel() == "density p(x, t)"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["5,000 particles", "Fokker–Planck"]
    assert is_publishable(figure)


def test_density_and_particles_chooses_four_times(density, path):
    figure = sg.plots.density_and_particles(density, path)
    titles = [panels(figure)[c].get_title() for c in "ABCD"]
    assert titles == ["t = 0", "t = 0.2", "t = 0.9", "t = 2"]  # (T − 1)(j/3)²
    assert is_publishable(figure)
    # times that only some of both have: float32 ones are the same times
    some = trajectory(path.states[::5], TIMES[::5].float().double())
    figure = sg.plots.density_and_particles(density, some)
    titles = [panels(figure)[c].get_title() for c in "ABC"]
    assert titles == ["t = 0", "t = 1", "t = 2"]


def test_lost_trajectories_are_left_out_and_counted(density, path):
    broken = path.states.clone()
    broken[5:, :40] = 50.0  # where a lost trajectory stays is nobody's density
    figure = sg.plots.density_and_particles(density, trajectory(broken, lost=range(40)), [2.0])
    panel = panels(figure)["A"]
    heights, edges, _ = panel.patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=1e-12)
    assert "(40 of 5,000 trajectories lost)" in panels(figure)["T"].get_title()
    assert figure.legends[0].get_texts()[0].get_text() == "4,960 particles"


def test_what_a_wall_absorbed_has_no_bin_but_counts(density, path):
    stuck = path.states.clone()
    stuck[:, :1_000] = -4.0
    figure = sg.plots.density_and_particles(density, trajectory(stuck), [2.0])
    heights, edges, _ = panels(figure)["A"].patches[0].get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(0.8, abs=1e-12)


def test_density_and_particles_bad_requests(density, path):
    with pytest.raises(ValueError, match=r"time 0\.33 is not among .* the nearest is 0\.3"):
        sg.plots.density_and_particles(density, path, [0.33])
    late = trajectory(path.states, TIMES + 10)
    with pytest.raises(
        ValueError, match=r"density's are 0 … 2, the path's 10 … 12; give the same"
    ):
        sg.plots.density_and_particles(density, late)
    with pytest.raises(
        ValueError, match=r"states of shape \(T, n, 1\), but these are \(21, 7, 2\)"
    ):
        sg.plots.density_and_particles(density, trajectory(torch.zeros(21, 7, 2)))
    with pytest.raises(ValueError, match="at most 6 times, but got 7"):
        sg.plots.density_and_particles(density, path, TIMES[:7].tolist())
    short = sg.DensityPath(times=TIMES[:1], p=density.p[:1], x=density.x)
    with pytest.raises(ValueError, match="two times or more, but the density has 1"):
        sg.plots.density_heatmap(short)


def test_density_heatmap_is_the_density(density):
    figure = sg.plots.density_heatmap(density)
    mesh = panels(figure)["P"].collections[0]
    assert np.array_equal(mesh.get_array().reshape(141, 21), density.p.T)
    corners = mesh.get_coordinates()
    assert np.array_equal(corners[0, :, 0], TIMES)
    assert np.array_equal(corners[:, 0, 1], density.x)
    assert is_publishable(figure)


def test_stationary_shows_the_difference():
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)
    exact = torch.exp(-x.square())
    off = sg.Density(x, exact * (1 + 1e-3 * (x > 0.01).double()))
    for energy in (None, x.square()):
        figure = sg.plots.stationary(off, exact, energy=energy)
        axes = panels(figure)
        assert axes["E"].get_title() == "largest relative difference 10⁻³"
        y = axes["E"].lines[0].get_ydata()
        assert np.isnan(y[:51]).all()  # nothing to be seen on a logarithm
        assert np.allclose(y[51:], 1e-3, rtol=1e-9)
        curves = {line.get_label(): line.get_ydata() for line in axes["A"].lines}
        assert np.array_equal(curves["exact"], exact)
        assert np.array_equal(curves["Fokker–Planck"], off.p)
        assert is_publishable(figure)
    assert np.array_equal(axes["U"].lines[0].get_ydata(), x.square())
    # the landscape is shown where the density is above a thousandth of its peak: up to x = 2.58
    assert axes["U"].get_ylim()[1] == pytest.approx(2.58**2 * 1.08, rel=1e-9)


def test_film_follows_the_density(density, path, tmp_path):
    file = tmp_path / "relax.gif"
    sg.plots.relaxation_gif(density, path, file, fps=20)
    assert [p.name for p in tmp_path.iterdir()] == ["relax.gif"]
    film = Image.open(io.BytesIO(file.read_bytes()))
    assert film.n_frames == len(TIMES)
    middles, lasting = [], []
    for k in range(film.n_frames):
        film.seek(k)
        lasting.append(film.info["duration"])
        rgb = np.asarray(film.convert("RGB")).astype(int)
        assert (rgb[0, 0] == 255).all()
        # bars are the colour that has much more red than blue; their middle is the mean of the law
        orange = (rgb[..., 0] - rgb[..., 2] > 60) & (np.arange(rgb.shape[1]) < 0.7 * rgb.shape[1])
        middles.append(np.nonzero(orange)[1].mean())
    assert lasting == [50] * 20 + [1_500]
    assert (np.diff(middles) > 0).all()  # −2 e^{−t} moves to the right, ever more slowly
    means = np.array([moments(t)[0] for t in TIMES.tolist()])
    fit = np.polyfit(means, middles, 1)
    assert np.abs(np.polyval(fit, means) - middles).max() < 2  # pixels


def test_long_films_skip_frames(path, density, tmp_path, monkeypatch):
    monkeypatch.setattr(plots_density, "FRAMES", 6)
    sg.plots.relaxation_gif(density, path, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 6


def test_paths_are_the_states(path):
    figure = sg.plots.paths(path, count=5)
    lines = panels(figure)["P"].lines
    drawn = [line.get_ydata() for line in lines]
    assert np.array_equal(drawn[::-1], path.states[:, :5, 0].T)  # the first is drawn last, on top
    assert np.array_equal(lines[0].get_xdata(), TIMES)
    assert "5 of 5,000 trajectories" in panels(figure)["P"].get_title()
    assert is_publishable(figure)
    plane = normal(21, 3, 2, rng=2)
    figure = sg.plots.paths(trajectory(plane, lost=[1]))
    tracks = [line.get_xydata() for line in panels(figure)["P"].lines if len(line.get_xdata()) > 1]
    assert np.array_equal(tracks, plane[:, [2, 0]].transpose(0, 1))
    assert "1 of 3 trajectories lost" in panels(figure)["P"].get_title()
    assert is_publishable(figure)
    with pytest.raises(ValueError, match=r"one or two coordinates, but these have shape \(3,\)"):
        sg.plots.paths(trajectory(torch.zeros(21, 2, 3)))


def test_samples_2d_holds_all_clouds():
    data = sg.data.two_moons(500, rng=0)
    broken = data.clone()
    broken[3] = math.nan
    names = ["reverse SDE, Euler–Maruyama, 1000 steps", "b", "c", "d"]
    figure = sg.plots.samples_2d(
        dict(zip(names, [data + 1, broken, data, data], strict=True)), data
    )
    axes = panels(figure)
    assert list(axes) == list("ABCDE")
    assert np.array_equal(axes["A"].lines[0].get_xydata(), data)
    assert np.array_equal(axes["B"].lines[0].get_xydata(), data + 1)
    assert axes["A"].get_title() == "data"
    assert axes["C"].get_title() == "b\n1 of 500 lost"
    assert len(axes["C"].lines[0].get_xdata()) == 499
    limits = {panel.get_xlim() + panel.get_ylim() for panel in axes.values()}
    assert len(limits) == 1
    assert is_publishable(figure)


def test_image_sheet_places_every_image():
    images = (
        torch.arange(6, dtype=torch.float64)[:, None, None, None] / 6 - normal(6, 1, 3, 2) / 50
    )
    figure = sg.plots.image_sheet({"made": images, "real": images[:4]}, rows=2, columns=3)
    axes = panels(figure)
    assert [axes[c].get_title() for c in "AB"] == ["made", "real"]
    sheet = axes["A"].images[0].get_array().filled(np.nan)
    assert sheet.shape == (2 * 4 - 1, 3 * 3 - 1)
    for i in range(6):
        top, left = 4 * (i // 3), 3 * (i % 3)
        assert np.array_equal(sheet[top : top + 3, left : left + 2], images[i, 0])
    assert np.isnan(sheet[3]).all()  # a white line between rows
    assert np.isnan(axes["B"].images[0].get_array().filled(np.nan)[4:, 3:]).all()
    assert is_publishable(figure)
    with pytest.raises(ValueError, match=r"shape \(n, 1, height, width\), but have \(5, 64\)"):
        sg.plots.image_sheet({"flat": torch.zeros(5, 64)})


def test_denoising_strip_runs_from_first_to_last():
    times = torch.linspace(1, 0.001, 101, dtype=torch.float64)
    states = normal(101, 4, 1, 8, 8, rng=3)
    figure = sg.plots.denoising_strip(trajectory(states, times, lost=[0]), rows=2, columns=5)
    panel = panels(figure)["P"]
    sheet = panel.images[0].get_array().filled(np.nan)
    for row, i in enumerate([1, 2]):  # trajectory 0 was lost
        for column, k in enumerate([0, 44, 75, 94, 100]):
            top, left = 9 * row, 9 * column
            assert np.array_equal(sheet[top : top + 8, left : left + 8], states[k, i, 0])
    labels = [text.get_text() for text in panel.get_xticklabels()]
    assert labels == ["1", "0.56", "0.25", "0.061", "0.001"]
    assert "1 of 4 trajectories lost" in panel.get_xlabel()
    assert is_publishable(figure)
    with pytest.raises(ValueError, match="simulate with keep_path=True"):
        sg.plots.denoising_strip(trajectory(states[-1:], times[-1:]))


def test_pareto_has_a_line_for_each_route_and_the_floor():
    routes = {
        "reverse SDE, Euler–Maruyama": [(100, 0.1), (10, 0.9)],
        "DDIM": [(20, 0.2), (1_000, 0.03)],
        "probability flow, dopri5": [(150, 0.04)],
    }
    figure = sg.plots.pareto(routes, floor=0.02, quantity="sliced W2")
    panel = panels(figure)["P"]
    lines = {line.get_label(): line for line in panel.lines}
    assert np.array_equal(
        lines["reverse SDE, Euler–Maruyama"].get_xydata(), [(10, 0.9), (100, 0.1)]
    )
    assert lines["floor: exact samples"].get_ydata() == [0.02, 0.02]
    assert panel.get_ylim()[0] < 0.02
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    assert panel.get_ylabel() == "sliced W2"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(lines)
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= panel.get_window_extent().x1  # beside the curves, not on them
    assert is_publishable(figure)


def test_convergence_has_a_line_of_the_slope_below_the_curves():
    steps = [10, 30, 100, 1_000]
    curves = {"a": [(n, 3 / n) for n in steps], "b": [(n, 2 / n**0.93) for n in steps]}
    figure = sg.plots.convergence(curves, slope=-1, quantity="W1")
    lines = {line.get_label(): line.get_xydata() for line in panels(figure)["P"].lines}
    (x0, y0), (x1, y1) = lines["slope −1"]
    assert math.log(y1 / y0) / math.log(x1 / x0) == pytest.approx(-1, abs=1e-12)
    assert (x0, x1) == (10, 1_000)
    for name in curves:
        assert np.array_equal(lines[name], curves[name])
        assert all(y0 * (n / x0) ** -1 < error for n, error in curves[name])
    assert is_publishable(figure)


def test_loss_curve_is_the_losses_and_their_running_mean():
    losses = torch.linspace(5, 0.5, 1_000, dtype=torch.float64)
    result = sg.TrainResult(
        losses=losses,
        validation_steps=torch.tensor([500, 1_000]),
        validation_losses=torch.tensor([2.0, 1.0], dtype=torch.float64),
        selected_step=1_000,
        seed=0,
    )
    figure = sg.plots.loss_curve(result)
    lines = {line.get_label(): line.get_xydata() for line in panels(figure)["P"].lines}
    assert np.array_equal(lines["one step"][:, 1], losses)
    mean = lines["mean of 10 steps"]  # of a straight line: its value 4.5 steps ago
    assert np.allclose(mean[:, 1], losses[9:] + 4.5 * 4.5 / 999, atol=1e-12)
    assert (mean[0, 0], mean[-1, 0]) == (10, 1_000)
    assert np.array_equal(lines["validation"], [(500, 2.0), (1_000, 1.0)])
    assert lines["weights kept"][0, 0] == 1_000
    assert is_publishable(figure)


def test_figures_save_alike_twice_and_stay_nowhere(density, path):
    before = dict(Gcf.figs)
    contents = []
    for _ in range(2):
        file = io.BytesIO()
        sg.plots.density_and_particles(density, path).savefig(file)
        contents.append(file.getvalue())
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"\x89PNG")
    assert Gcf.figs == before


def test_no_backend_is_chosen_for_the_user():
    code = "import sys, sdegen; sdegen.plots.paths; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_start_at_a_point_does_not_flatten_what_follows():
    grid, times = sg.Grid(-3.0, 3.0, 120), torch.linspace(0, 4, 9)
    sde = sg.ItoProcess(lambda x: x - x**3, 0.7)
    density = sg.FokkerPlanck(sde, grid).solve(-1.0, times)
    path = sg.simulate(sde, torch.full((500, 1), -1.0), times, solver=sg.EulerMaruyama(20), rng=0)
    figure = sg.plots.density_and_particles(density, path)
    panels = {axes.get_title(): axes for axes in figure.axes}
    top = next(axes for title, axes in panels.items() if title == "t = 4").get_ylim()[1]
    assert float(density.final.p.max()) < top < 4 * float(density.final.p.max())
    assert any(title.startswith("t = 0, up to ") for title in panels)


@pytest.mark.parametrize("draw", ["pareto", "convergence"])
def test_a_third_number_is_an_error_bar(draw):
    options = {"quantity": "W1"} | ({"slope": -1} if draw == "convergence" else {})
    curves = {"a": [(10, 0.3, 0.1), (20, 0.1, 0.2)], "b": [(10, 0.2), (20, 0.1)]}
    figure = getattr(sg.plots, draw)(curves, **options)
    panel = panels(figure)["P"]
    (container,) = panel.containers
    low, high = np.array([segment[:, 1] for segment in container[2][0].get_segments()]).T
    np.testing.assert_allclose(high, [0.4, 0.3])
    np.testing.assert_allclose(low, [0.2, 0.0001])  # 0 has no logarithm
    assert panel.get_ylim()[0] >= 0.0299  # and the axis is not stretched to it
    assert is_publishable(figure)
    for bad in ([(1,)], [(1, 2), (1, 2, 3)], []):
        with pytest.raises(ValueError, match=r"^curves\['a'\] must be a list of \(x, y\), or"):
            getattr(sg.plots, draw)({"a": bad}, **options)
