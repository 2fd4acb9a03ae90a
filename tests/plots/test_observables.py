"""Curves of observables, boxes of particles and fields hold what they were given."""

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_rgba
from PIL import Image

import sdegen as sg
from sdegen.observables.correlation import Correlation
from sdegen.observables.displacement import Displacements
from sdegen.observables.passages import Passages
from sdegen.observables.spectrum import Spectrum
from tests.plots.test_samples import is_publishable, normal, panels, trajectory

F64 = torch.float64


def correlation(points):
    lags = torch.linspace(0, 3, points, dtype=F64)
    c = torch.stack([torch.exp(-lags), 2 * torch.exp(-2 * lags)], 1)
    return Correlation(lags, c, 0.03 + 0 * c, c / c[0], 500)


def displacements(points, d=0.5):
    lags = torch.logspace(-2, 2, points, dtype=F64)
    total = 4 * d * lags
    halves = total[:, None].expand(-1, 2) / 2
    return Displacements(
        lags, total, 0.4 * total, halves, 0.1 * halves, 0 * halves, 0.1 + 0 * halves, total, None,
        None, 40,
    )  # fmt: skip


def bars_of(panel):
    (container,) = panel.containers
    line, _, (bars,) = container
    low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
    return line.get_xydata(), low, high


def test_a_correlation_has_error_bars_and_an_exact_curve():
    result = correlation(25)
    exact = 2 * torch.exp(-2 * result.lags)
    figure = sg.plots.correlation(result, coordinate=1, exact=exact)
    panel = panels(figure)["P"]
    points, low, high = bars_of(panel)
    np.testing.assert_allclose(points, np.stack([result.lags, result.covariance[:, 1]], 1))
    np.testing.assert_allclose(high - points[:, 1], 0.03)
    np.testing.assert_allclose(points[:, 1] - low, 0.03)
    drawn = next(line for line in panel.lines if line.get_label() == "exact")
    assert np.array_equal(drawn.get_xydata(), np.stack([result.lags, exact], 1))
    assert "τ" in panel.get_xlabel()
    assert "x²" in panel.get_ylabel()
    assert is_publishable(figure)
    many = panels(sg.plots.correlation({"a": correlation(200), "b": correlation(9)}))["P"]
    band = next(c for c in many.collections if isinstance(c, PolyCollection))
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(1.03)
    texts = [text.get_text() for text in many.get_legend().get_texts()]
    assert sorted(texts) == ["a", "b"]
    with pytest.raises(ValueError, match="exact must have one number for each point"):
        sg.plots.correlation(result, exact=exact[1:])
    with pytest.raises(ValueError, match="coordinate must be below 2"):
        sg.plots.correlation(result, coordinate=2)
    with pytest.raises(ValueError, match="result must have a result, but is empty"):
        sg.plots.correlation({})


def test_displacements_are_drawn_on_logarithmic_axes():
    result = displacements(20)
    figure = sg.plots.displacement(result, exact=2 * result.lags)
    panel = panels(figure)["P"]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    points, low, high = bars_of(panel)
    np.testing.assert_allclose(points[:, 1], result.total)
    np.testing.assert_allclose(high / points[:, 1], 1.4)
    np.testing.assert_allclose(low / points[:, 1], 0.6)
    assert is_publishable(figure)
    # an error as large as the value does not reach 0, which has no logarithm
    wide = Displacements(**{**vars(result), "total_error": 3 * result.total})
    _, low, _ = bars_of(panels(sg.plots.displacement(wide))["P"])
    assert (low > 0).all()


def test_a_spectrum_is_drawn_without_its_mean():
    f = torch.linspace(0, 10, 201, dtype=F64)
    density = (2 / (1 + (2 * math.pi * f) ** 2))[:, None]
    result = Spectrum(f, density, 0.1 * density, 20, 8)
    figure = sg.plots.power_spectrum(result, exact=density[:, 0])
    panel = panels(figure)["P"]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log")
    curves = [line.get_xydata() for line in panel.lines]
    for curve in curves[:1] + curves[-1:]:
        np.testing.assert_allclose(curve[-200:], np.stack([f, density[:, 0]], 1)[1:])
    (band,) = (c for c in panel.collections if isinstance(c, PolyCollection))
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(1.1 * float(density[1, 0]))
    assert panel.get_xlim()[0] > 0
    assert is_publishable(figure)


def test_a_radial_distribution_is_drawn_about_1():
    r = torch.linspace(0.05, 5, 80, dtype=F64)
    g = (1 + torch.exp(-r) * torch.cos(6 * r)) * (r > 0.6)
    figure = sg.plots.radial_distribution(r, g, 0.1 + 0 * r)
    panel = panels(figure)["P"]
    curve = next(line for line in panel.lines if len(line.get_xdata()) == 80)
    assert np.array_equal(curve.get_xydata(), np.stack([r, g], 1))
    (band,) = (c for c in panel.collections if isinstance(c, PolyCollection))
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(float(g.max()) + 0.1)
    assert panel.get_ylim()[0] == 0
    assert is_publishable(figure)
    assert is_publishable(sg.plots.radial_distribution(r, g))
    with pytest.raises(ValueError, match="g must have one number for each distance"):
        sg.plots.radial_distribution(r, g[1:])


def test_survival_falls_on_its_exact_curve():
    times = torch.linspace(0, 5, 61, dtype=F64)
    waiting = (1000 * torch.exp(-2 * times)).long()
    result = Passages(times, waiting, 1000, 500.0, 400.0, 300.0)
    figure = sg.plots.survival(result, exact=torch.exp(-2 * times))
    panel = panels(figure)["P"]
    assert panel.get_yscale() == "log"
    line = panel.lines[0].get_xydata()
    seen = waiting > 0
    np.testing.assert_allclose(line, np.stack([times[seen], result.survival[seen]], 1))
    assert 0 < panel.get_ylim()[0] < 1e-3 < 1 < panel.get_ylim()[1]
    assert is_publishable(figure)
    linear = panels(sg.plots.survival({"of a box": result}, log=False))["P"]
    assert linear.get_yscale() == "linear"
    assert len(linear.lines[0].get_xdata()) == 61


def discs(figure):
    panel = panels(figure)["P"]
    (found,) = (c for c in panel.collections if isinstance(c, EllipseCollection))
    return panel, found


def test_discs_have_their_size_and_enter_at_the_opposite_edge():
    places = torch.tensor([[0.2, 5.0], [5.0, 5.0], [9.9, 9.9], [-3.0, 12.0]], dtype=F64)
    figure = sg.plots.particles(places, diameter=1.0, box=10.0)
    panel, found = discs(figure)
    assert panel.get_xlim() == panel.get_ylim() == (0.0, 10.0)
    assert set(map(tuple, found.get_offsets().round(9))) == {
        (0.2, 5.0), (10.2, 5.0), (5.0, 5.0), (7.0, 2.0),
        (9.9, 9.9), (-0.1, 9.9), (9.9, -0.1), (-0.1, -0.1),
    }  # fmt: skip
    # the first, and its image, are orange and drawn last
    colours = found.get_facecolor()
    assert np.allclose(colours[-2:], to_rgba("#D55E00"))
    assert not np.allclose(colours[:-2], to_rgba("#D55E00"))
    assert is_publishable(figure)


def test_a_disc_is_as_wide_on_paper_as_its_diameter_on_the_axis():
    figure = sg.plots.particles(torch.full((1, 2), 5.0), diameter=2.0, box=10.0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    orange = np.abs(picture - [0xD5, 0x5E, 0x00]).sum(-1) < 60
    ends = panels(figure)["P"].transData.transform([[4, 4], [6, 6]])
    for axis, expected in enumerate(ends[1] - ends[0]):
        assert orange.any(axis).sum() == pytest.approx(expected, abs=4)


def test_without_a_box_all_discs_are_seen_and_depth_is_pale():
    places = normal(30, 2, rng=3)
    figure = sg.plots.particles(places, diameter=0.3)
    panel, found = discs(figure)
    assert len(found.get_offsets()) == 30
    low, high = panel.get_xlim()
    assert low < float(places[:, 0].min()) - 0.15 < float(places[:, 0].max()) + 0.15 < high
    assert is_publishable(figure)
    deep = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 2.0], [3.0, 1.0, 1.0]], dtype=F64)
    _, found = discs(sg.plots.particles(deep, diameter=0.3, box=(4.0, 4.0, 4.0)))
    assert found.get_offsets().tolist() == [[1.0, 1.0], [3.0, 1.0], [1.0, 1.0]]  # behind first
    pale = found.get_facecolor()[:, :3].sum(1)
    assert pale[0] > pale[1] > pale[2]


def test_particles_of_a_trajectory_are_those_of_the_time_that_is_asked_for():
    x = normal(4, 2, 2, 5, 2, rng=1)  # positions and velocities of two systems of five
    path = trajectory(x, times=torch.linspace(0, 3, 4, dtype=F64))
    figure = sg.plots.particles(path, diameter=0.1, trajectory=1, time=2)
    panel, found = discs(figure)
    drawn = np.array(sorted(found.get_offsets().tolist()))
    np.testing.assert_allclose(drawn, sorted(x[2, 1, 0].tolist()))
    assert panel.get_title() == "5 particles, t = 2"
    for bad in ({"trajectory": 2}, {"time": 4}, {"diameter": 0.0}, {"box": [1.0, 1.0, 1.0]}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must"):
            sg.plots.particles(path, **{"diameter": 0.1} | bad)
    with pytest.raises(ValueError, match="particles are drawn at finite positions"):
        sg.plots.particles(normal(3, 1), diameter=0.1)


def test_a_film_of_particles_moves_its_discs(tmp_path):
    t = torch.linspace(0, 1, 5, dtype=F64)
    states = torch.stack([1 + 8 * t, 5 + 0 * t], 1)[:, None, None]
    path = trajectory(states, times=t)
    sg.plots.particles_gif(path, tmp_path / "a.gif", diameter=1.0, box=10.0, fps=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5
        middles = []
        for k in range(5):
            film.seek(k)
            frame = np.asarray(film.convert("RGB")).astype(int)
            orange = np.abs(frame - [0xD5, 0x5E, 0x00]).sum(-1) < 60
            middles.append(orange.nonzero()[1].mean())
    steps = np.diff(middles)
    assert (steps > 5).all()
    assert steps == pytest.approx(steps.mean(), rel=0.05)


def test_a_field_is_white_where_it_is_0():
    t, x = torch.linspace(0, 2, 9, dtype=F64), torch.linspace(0, 6, 13, dtype=F64)
    field = torch.sin(x - 2 * t[:, None])
    figure = sg.plots.space_time(trajectory(field[:, None], times=t), places=x, quantity="h")
    panel = panels(figure)["P"]
    (mesh,) = (c for c in panel.collections if isinstance(c, QuadMesh))
    assert np.array_equal(mesh.get_array().reshape(13, 9), field.T)
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert np.allclose(mesh.cmap(0.5), (1, 1, 1, 1), atol=0.02)
    assert is_publishable(figure)
    positive = trajectory(field[:, None].square(), times=t)
    (mesh,) = panels(sg.plots.space_time(positive))["P"].collections
    assert mesh.norm.vmin == 0
    with pytest.raises(ValueError, match="places must be 13 increasing numbers"):
        sg.plots.space_time(positive, places=x[1:])
    with pytest.raises(ValueError, match="with two times and two sites or more"):
        sg.plots.space_time(positive, trajectory=1)


def test_phase_space_holds_a_density_or_a_histogram_of_samples():
    x, v = torch.linspace(-3, 3, 41, dtype=F64), torch.linspace(-4, 4, 31, dtype=F64)
    p = torch.exp(-0.5 * (x[:, None] ** 2 + v**2)) / (2 * math.pi)
    figure = sg.plots.phase_space(sg.PlaneDensity(x, v, p))
    panel = panels(figure)["P"]
    (mesh,) = panel.collections
    assert np.array_equal(mesh.get_array().reshape(31, 41), p.T)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("position x", "velocity v")
    assert is_publishable(figure)
    states = normal(1, 4000, 2, 1, rng=2) * torch.tensor([1.0, 0.2], dtype=F64)[:, None]
    figure = sg.plots.phase_space(trajectory(states, times=torch.zeros(1), lost=[3]))
    panel = panels(figure)["P"]
    (mesh,) = panel.collections
    area = np.diff(mesh.get_coordinates()[0, :, 0])[:, None] * np.diff(
        mesh.get_coordinates()[:, 0, 1]
    )
    assert float((mesh.get_array().reshape(area.T.shape) * area.T).sum()) == pytest.approx(1)
    assert panel.get_xlim()[1] > 2 > 1 > panel.get_ylim()[1]
    assert "1 of 4,000 trajectories lost" in panel.get_title()
    assert is_publishable(figure)
    with pytest.raises(ValueError, match="phase_space draws one position and one velocity"):
        sg.plots.phase_space(normal(10, 2, 3))
