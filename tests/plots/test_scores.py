"""Pictures of scores hold the numbers that they were given."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import sdegen as sg

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LAW = sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], stds=[0.3, 0.5]).noised(VP)
TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)


def test_errors_of_a_score_are_drawn_by_noise_level_with_two_standard_errors():
    data = LAW.mixture.sample(200, rng=0, dtype=torch.float64)
    found = sg.score_residuals(
        VP, lambda x, t: LAW.score(x, t) + 0.3 * x @ TURN, data, times=[0.01, 0.5, 0.9], rng=0
    )
    figure = sg.plots.score_residuals(found)
    FigureCanvasAgg(figure).draw()
    error, factor, slopes = figure.axes
    bars, *_ = factor.containers
    np.testing.assert_array_equal(bars[0].get_ydata(), found.factor)
    np.testing.assert_array_equal(bars[0].get_xdata(), found.log_snr)
    ends = np.array([segment[:, 1] for segment in bars[2][0].get_segments()])
    np.testing.assert_allclose(
        ends[:, 1] - ends[:, 0], 4 * found.factor_bars, rtol=1e-6, atol=1e-12
    )
    told = found.error > 2 * found.error_bars
    np.testing.assert_array_equal(error.containers[0][0].get_ydata(), found.error[told])
    names = {container.get_label() for container in slopes.containers}
    assert names == {"curl", "Fokker–Planck equation"}
    assert "wrong" in figure.get_supxlabel()


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="result must be ScoreResiduals"):
        sg.plots.score_residuals(LAW)
