"""Pictures of estimates show how far each is from what it should be, in errors of its own."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import sdegen as sg
from sdegen.plots import style

ROWS = {"mean": (0.52, 0.02, 0.5), "rate": (-1.25e-3, 1e-4, -1e-3), "large": (3e7, 1e6, 3e7)}


def test_estimates_stand_at_their_deviations_and_say_their_numbers():
    figure = sg.plots.estimates(ROWS)
    FigureCanvasAgg(figure).draw()
    (panel,) = figure.axes
    (dots,) = [line for line in panel.lines if len(line.get_xdata()) == 3]
    assert np.allclose(dots.get_xdata(), [1.0, -2.5, 0.0])
    assert dots.get_ydata().tolist() == [2, 1, 0]  # the first on top
    (bars,) = panel.containers[0].lines[2]
    assert np.allclose([np.diff(ends[:, 0]) for ends in bars.get_segments()], 2.0)
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [
        "mean\n0.520 ± 0.020, exact 0.500",
        "rate\n−0.00125 ± 0.00010, exact −0.00100",
        "large\n3e+07 ± 1e+06, exact 3e+07",
    ]
    low, high = panel.get_xlim()
    assert -low == high > 3


def test_they_are_drawn_on_a_panel_that_is_given():
    figure, axes = style.panels("AB", 8.0, 3.0)
    assert sg.plots.estimates(ROWS, reference="simulated", panel=axes["B"]) is figure
    assert not axes["A"].lines
    assert axes["B"].get_xlabel() == "(estimate − simulated)/standard error"
    assert axes["B"].get_yticklabels()[0].get_text() == "mean\n0.520 ± 0.020, simulated 0.500"
    with pytest.raises(TypeError, match=r"panel must be one of the axes that plots.style"):
        sg.plots.estimates(ROWS, panel=3)
