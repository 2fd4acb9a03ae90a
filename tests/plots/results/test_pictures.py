"""The picture of a result holds its numbers; what has too many coordinates is drawn in part."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from results import F64, OU, all_kinds, numbers, simulated

import sdegen as sg
from sdegen.core.shown import Labelled
from sdegen.engine.samples import Samples
from sdegen.plots.results import Labels, Variable, labels
from sdegen.plots.results.drawing import of_labels


@pytest.fixture(scope="module")
def kinds():
    return all_kinds()


def lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 2]


def bars(axes):
    """Points of error bars, and their errors."""
    point, _, (spread,) = axes.containers[0].lines
    ends = np.array([np.ptp(segment, axis=0).max() / 2 for segment in spread.get_segments()])
    return point, ends


def test_every_kind_draws_a_figure_with_named_axes(kinds):
    for name, result in kinds.items():
        figure = result.plot()
        assert isinstance(figure, Figure)
        panels = [panel for panel in figure.axes if panel.get_label() != "<colorbar>"]
        assert all(p.get_xlabel() or len(panels) > 1 for p in panels), name


def test_tracks_are_the_states():
    path = simulated(1)
    drawn = simulated(1).plot().axes[0].get_lines()
    assert len(drawn) == 16
    np.testing.assert_array_equal(drawn[-1].get_ydata(), path.states[:, 0, 0])


def test_many_coordinates_have_moments_in_time():
    path = simulated(9)
    mean, spread = path.plot().axes
    assert len(lines(mean)) == 6
    np.testing.assert_array_equal(lines(mean)[2].get_ydata(), path.states.mean(1)[:, 2])
    np.testing.assert_array_equal(
        lines(spread)[5].get_ydata(), path.states.std(1, correction=0)[:, 5]
    )
    assert mean.get_title() == "6 of 9 coordinates"


def test_last_states_alone_are_pairs_of_coordinates():
    times = torch.linspace(0, 1, 6, dtype=F64)
    path = sg.simulate(OU, torch.zeros(30, 4, dtype=F64), times, rng=0, keep_path=False)
    panels = path.plot().axes
    for panel, (i, j) in zip(panels, [(0, 1), (0, 2), (1, 2)], strict=True):
        np.testing.assert_array_equal(panel.get_lines()[0].get_xdata(), path.final[:, i])
        np.testing.assert_array_equal(panel.get_lines()[0].get_ydata(), path.final[:, j])
    assert panels[0].get_title() == "3 of 4 coordinates"


def test_one_coordinate_alone_is_a_histogram_of_area_one():
    x = numbers(200, 1)
    result = Samples(x, sg.EulerMaruyama(), torch.tensor([1.0, 0.1], dtype=F64), 1.0, 1, 0)
    (patch,) = result.plot().axes[0].patches
    heights, edges, _ = patch.get_data()
    assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=1e-12)
    assert (edges[0], edges[-1]) == (float(x.min()), float(x.max()))


def test_images_are_drawn_as_images():
    x = numbers(5, 1, 8, 8)
    result = Samples(x, sg.EulerMaruyama(), torch.tensor([1.0, 0.1], dtype=F64), 1.0, 1, 0)
    (image,) = result.plot().axes[0].get_images()
    np.testing.assert_array_equal(image.get_array()[:8, :8], x[0, 0])


def test_a_run_whose_trajectories_are_all_lost_is_refused():
    path = simulated(1)
    lost = type(path)(path.times, path.states, path.nfe, path.seed, ~path.nonfinite)
    with pytest.raises(ValueError, match="all trajectories of this run were lost"):
        lost.plot()


def test_densities_are_drawn_at_their_nodes(kinds):
    rest = kinds["Density"]
    np.testing.assert_array_equal(rest.plot().axes[0].get_lines()[0].get_ydata(), rest.p)
    spectrum = kinds["Spectrum"]
    panel = spectrum.plot().axes[0]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [
        f"{rate:.4g}" for rate in spectrum.rates.tolist()
    ]


def test_a_histogram_is_drawn_with_its_errors(kinds):
    result = kinds["HistogramCounts"]
    panel = result.plot().axes[0]
    last = panel.containers[-1].lines[0]
    np.testing.assert_array_equal(last.get_ydata(), result.density[-1])
    assert panel.get_legend().get_texts()[-1].get_text() == "t = 2"


def test_an_ensemble_has_a_panel_for_each_quantity(kinds):
    result = kinds["Ensemble"]
    figure = result.plot()
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [
        "moments mean", "moments variance", "histogram density", "first passage survival"
    ]  # fmt: skip
    moments, counts = result.observables["moments"], result.observables["histogram"]
    point, error = bars(figure.axes[0])
    np.testing.assert_array_equal(point.get_ydata(), moments.mean[:, 0])
    np.testing.assert_allclose(error, moments.mean_error[:, 0], rtol=1e-12)
    point, _ = bars(figure.axes[2])
    np.testing.assert_array_equal(point.get_ydata(), counts.density[-1])
    assert figure.axes[2].get_xlabel() == "position x, units of x"


def test_single_numbers_are_points_with_error_bars(kinds):
    result = kinds["DiffusionEstimate"]
    point, error = bars(result.plot().axes[0])
    assert point.get_xdata().item() == result.coefficient
    assert error.item() == pytest.approx(result.error, rel=1e-12)


def test_causes_are_rows(kinds):
    budget = kinds["ErrorBudget"]
    panel = budget.plot().axes[0]
    names = [text.get_text() for text in panel.get_yticklabels()]
    assert names == [*(part.cause for part in budget.parts), "whole"]
    point = panel.containers[0].lines[0]
    assert point.get_xdata()[-1] == budget.whole.total_variation
    assert panel.get_xscale() == "log"


def test_checks_are_drawn_without_a_density(kinds):
    result = kinds["Identities"]
    panel = result.plot().axes[0]
    judged = [check for check in result.checks if check.verdict != "not judged"]
    assert len(panel.patches) == len(judged)
    beyond = [bar.get_x() + bar.get_width() > 1 for bar in panel.patches][::-1]
    assert beyond == [check.verdict == "failed" for check in judged]


def test_a_score_is_drawn_where_it_is_asked():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    model = sg.ScoreModel(sg.MLP(1, width=8, rng=0), vp)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(0.1)
    model.train()
    model.network.eval()
    drawn = model.plot().axes[0].get_lines()
    assert model.training
    assert not model.network.training
    x = torch.as_tensor(drawn[0].get_xdata())[:, None]
    expected = model.score(x, torch.tensor(vp.t_max, dtype=F64)).detach()
    np.testing.assert_array_equal(drawn[0].get_ydata(), expected[:, 0])
    plane = sg.ScoreModel(sg.MLP(2, width=8, rng=0), vp)
    assert [panel.get_title() for panel in plane.plot().axes[:3]] == [
        "t = 1", "t = 0.401", "t = 0.101"
    ]  # fmt: skip
    large = sg.ScoreModel(sg.MLP(5, width=8, rng=0), vp).plot().axes[0].get_lines()
    t = torch.linspace(vp.t_min, vp.t_max, 200, dtype=F64)
    np.testing.assert_array_equal(large[1].get_ydata(), vp.sigma(t))


def test_a_model_without_times_is_refused_before_training():
    model = sg.ScoreModel(sg.MLP(2, width=8, rng=0), sg.Langevin(sg.Quadratic(1.0), 1.0))
    with pytest.raises(ValueError, match="are not known before training"):
        model.plot()


class Heights(Labelled):
    """A result of one's own."""

    values = numbers(5)


def test_a_kind_of_ones_own_joins_with_its_labels():
    with pytest.raises(TypeError, match=r"no axes are known of Heights; register"):
        Heights().plot()

    @labels.register
    def _(result: Heights) -> Labels:
        height = Variable(result.values, ("place",), "height", "m", result.values / 9)
        return Labels("Heights", {"height": height})

    point, error = bars(Heights().plot().axes[0])
    np.testing.assert_array_equal(point.get_ydata(), Heights.values)
    np.testing.assert_allclose(error, Heights.values / 9, rtol=1e-12)
    assert Heights().to_dataframe()["height_error"].tolist() == (Heights.values / 9).tolist()
    assert "Heights" in Heights()._repr_html_()


def test_what_has_no_numbers_is_refused():
    with pytest.raises(ValueError, match="nothing to draw in this words; read its numbers"):
        of_labels(Labels("words", {"name": Variable(["a"], ("i",), "n")}))
