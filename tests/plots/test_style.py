"""All pictures have one look: readable axes and legends, colours that all readers tell apart."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import sdegen as sg
from sdegen.core.accuracy import ErrorEstimate
from sdegen.plots import style
from sdegen.plots.ticks import log_ticks, scientific
from tests.plots.pictures import PICTURES, drawn, images, strip
from tests.plots.readable import DEFICIENCIES, faults, lab

WIDTHS = {style.HAIR, style.THIN, style.LINE}


def test_every_public_picture_has_a_row():
    assert set(PICTURES) == set(sg.plots.__all__)


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_can_be_read_and_changes_no_setting(name):
    before = dict.copy(mpl.rcParams)
    for i, figure in enumerate(drawn(name)):
        assert faults(figure) == [], f"figure {i}"
        lines = [line for axes in figure.axes for line in axes.get_lines()]
        drawn_widths = {line.get_linewidth() for line in lines if line.get_linestyle() != "None"}
        assert drawn_widths - {0.0} <= WIDTHS | {3 * style.LINE}, f"figure {i}"
    after = dict.copy(mpl.rcParams)
    del before["backend"], after["backend"]  # a sentinel, until somebody asks
    assert after == before


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_of_curves_are_told_apart_by_all_readers(deficiency):
    """CIE 1976 distances; 2.3 is just noticeable, and 15 is told at a glance."""
    seen = {colour: lab(colour, deficiency) for colour in style.CYCLE}
    least = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen.values(), 2))
    assert least > 15
    assert lab("#FFFFFF", deficiency) == pytest.approx([100, 0, 0], abs=0.1)
    # on white paper, all but the palest of text-free marks
    assert all(np.linalg.norm(c - lab("#FFFFFF", deficiency)) > 35 for c in seen.values())


def test_a_simulated_deficiency_makes_red_and_green_alike():
    """The measure can fail: pure red and a green of its lightness, which protanopes confuse."""
    red, green = "#B00000", "#5A4A00"
    apart = {k: np.linalg.norm(lab(red, k) - lab(green, k)) for k in DEFICIENCIES}
    assert apart["none"] > 40
    assert apart["protanopia"] < 0.5 * apart["none"]


def test_curves_of_one_colour_have_another_marker():
    looks = [style.look(i) for i in range(49)]
    assert len(set(looks)) == 7
    assert len({marker for marker, _ in looks[:7]}) == len({c for _, c in looks[:7]}) == 7


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1e-8, 1, ["10⁻⁸", "10⁻⁶", "10⁻⁴", "10⁻²", "1"]),
        (0.8, 130, ["1", "10", "100"]),
        (8, 130, ["10", "20", "50", "100"]),
        (24, 145, ["30", "50", "70", "100"]),
        (0.3, 0.75, ["0.3", "0.5", "0.7"]),
        (1.1e-4, 3.4e-4, ["2·10⁻⁴", "3·10⁻⁴"]),
        (2.03e-9, 2.0300001e-9, None),
        (900, 2e5, ["1,000", "10,000", "100,000"]),
    ],
)
def test_logarithmic_axes_have_ticks_that_can_be_read(low, high, shown):
    figure = Figure(figsize=(5, 3))
    panel = figure.subplots()
    panel.set(xscale="log", xlim=(low, high))
    log_ticks(panel.xaxis)
    FigureCanvasAgg(figure).draw()
    labels = [text.get_text() for text in panel.get_xticklabels()]
    if shown is None:  # widened to a factor of two
        a, b = panel.get_xlim()
        assert b / a == pytest.approx(2)
        assert a < low < high < b
    elif low > 8e2:
        assert labels == ["10³", "10⁴", "10⁵"]
    elif low < 1e-7:
        assert labels == [text if text != "1" else "10⁰" for text in shown]
    elif shown == ["2·10⁻⁴", "3·10⁻⁴"]:
        assert set(shown) <= set(labels)
    else:
        assert labels == shown
    assert 2 <= len(labels) <= 7
    assert len(set(labels)) == len(labels)


def test_ticks_follow_a_zoom():
    figure = Figure(figsize=(5, 3))
    panel = figure.subplots()
    panel.set(yscale="log", ylim=(1e-6, 1))
    log_ticks(panel.yaxis)
    panel.set_ylim(0.01, 1)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in panel.get_yticklabels()] == ["0.01", "0.1", "1"]
    minor = panel.yaxis.get_minorticklocs()
    assert set(np.round([0.02, 0.05, 0.5, 0.9], 9)) <= set(np.round(minor, 9))


def test_numbers_are_written_in_plain_characters():
    for value, digits, text in (
        (1.23456e-7, 3, "1.23·10⁻⁷"), (1e-7, 2, "10⁻⁷"), (-3.14159, 3, "−3.14"),
        (12345, 2, "12,345"), (0.00101, 2, "0.001"), (-2e-9, 2, "−2·10⁻⁹"), (3e7, 1, "3·10⁷"),
        (math.inf, 2, "∞"),
    ):  # fmt: skip
        assert scientific(value, digits) == text


def test_errors_are_said_where_they_are_known():
    error = ErrorEstimate({"p": 2.3e-6, "mean": math.nan}, "two grids")
    assert style.error_in_words(error, "p", "its peak") == "error of p ≤ 2.3·10⁻⁶ of its peak"
    assert style.error_in_words(error, "p") == "relative error of p ≤ 2.3·10⁻⁶"
    for nothing in ((None, "p"), (error, "variance"), (error, "mean")):
        assert style.error_in_words(*nothing, "its peak") == ""


def test_bars_of_counts_are_binomial_errors():
    _, panel = style.one_panel(4, 3)
    height, edges = np.array([0.2, 0.0, 0.3]), np.array([0.0, 1.0, 2.0, 4.0])
    style.counting_errors(panel, height, edges, 400)
    (bars,) = panel.collections
    low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
    expected = np.sqrt([0.2 * 0.8 / 400, 0.6 * 0.4 / 400]) / [1.0, 2.0]
    np.testing.assert_allclose((high - low) / 2, expected)
    np.testing.assert_allclose([s[0, 0] for s in bars.get_segments()], [0.5, 3.0])


def test_pixels_of_images_are_whole_pixels_of_the_picture():
    """A square of k × k pixels of one grey each, nothing between them but white lines."""
    sheets = sg.plots.image_sheet({"a": images(), "b": images()}, rows=2, columns=3)
    for figure in (sheets, strip()):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        grey = np.asarray(canvas.buffer_rgba())[..., 0].astype(float)
        for axes in figure.axes:
            sheet = axes.images[0].get_array().filled(1e9)
            box = axes.get_window_extent()
            scale = box.width / sheet.shape[1]
            assert scale == pytest.approx(round(scale), abs=1e-6)
            assert box.height / sheet.shape[0] == pytest.approx(scale, abs=1e-6)
            k = round(scale)
            x, y = round(box.x0), len(grey) - round(box.y1)
            assert (x, y) == (pytest.approx(box.x0, abs=1e-6), pytest.approx(len(grey) - box.y1))
            part = grey[y : y + k * sheet.shape[0], x : x + k * sheet.shape[1]]
            blocks = part.reshape(sheet.shape[0], k, sheet.shape[1], k)
            assert (blocks == blocks[:, :1, :, :1]).all()
            image = sheet < 1e8
            expected = 255 * (1 - (np.clip(sheet, -1, 1) + 1) / 2)
            assert np.abs(blocks[:, 0, :, 0] - expected)[image].max() <= 2  # of 256 greys
            assert (blocks[:, 0, :, 0][~image] == 255).all()
