"""A page shows the numbers of its result, their errors, its seed and a picture, and no more."""

import base64
import functools
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from results import F64, OU, all_kinds, simulated

import sdegen as sg
from sdegen.plots.results import html as pages
from sdegen.plots.results.summaries import in_figures

_SMALL = 40_000  # bytes of a picture in base64
_VOID = {"img"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags are closed, its cells have numbers."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.images, self.text, self.links = [], [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [v for k, v in attrs if k in ("href", "src") or "url(" in (v or "")]
        if tag == "img":
            self.images.append(given["src"])
        if "data-value" in given:
            error = given.get("data-error")
            self.cells.append((float(given["data-value"]), error and float(error)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.fixture(scope="module")
def kinds():
    return all_kinds()


QUICK = [
    "Trajectory", "Ensemble", "DensityPath", "TrainResult", "ErrorBudget", "StepBias",
    "SolverTable",
]  # fmt: skip


@pytest.mark.parametrize("names", [QUICK, pytest.param(None, marks=pytest.mark.slow)])
def test_every_page_is_whole_small_and_has_a_picture(kinds, names):
    for name in kinds if names is None else names:
        page = Page(page_of(name))
        assert "no picture" not in page.text, name
        assert len(page.images) == 1, name
        assert page.links == page.images, name  # nothing is fetched
        kind, _, data = page.images[0].partition(",")
        assert kind == "data:image/png;base64"
        assert len(data) <= _SMALL, name
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.width >= 150, name
        assert len(np.unique(np.asarray(image))) > 3, name  # something is drawn


@functools.cache
def page_of(name):
    return all_kinds()[name]._repr_html_()


def cells(result):
    return Page(result._repr_html_()).cells


def test_numbers_of_a_trajectory_are_those_of_its_states():
    path = simulated(2)
    x, page = path.final, Page(path._repr_html_())
    error = x.std(0) / 20**0.5
    means = list(zip(x.mean(0).tolist(), error.tolist(), strict=True))
    assert page.cells == [*means, *((s, None) for s in x.std(0).tolist())]
    assert "rng=7, nfe=5" in page.text
    assert "20 trajectories of 2 coordinates" in page.text
    assert f"{in_figures(*means[0])} units of x" in page.text
    assert str(path.trust().rows[-1][1]) in page.text


def test_lost_trajectories_are_counted_and_left_out():
    path = simulated(1)
    nonfinite = torch.arange(20) < 3
    lost = type(path)(path.times, path.states, path.nfe, path.seed, nonfinite)
    found = cells(lost)
    assert found[0][0] == float(path.states[-1, 3:].mean())
    assert found[-1] == (3.0, None)


def test_numbers_of_densities_have_errors_in_their_units(kinds):
    rest = kinds["Density"]
    mass, mean, std = cells(rest)
    assert mass == (float(rest.mass), None)
    assert mean == (float(rest.mean), rest.error["mean"] * max(abs(float(rest.mean)), rest.std))
    assert std == (float(rest.std), rest.error["variance"] * float(rest.std) / 2)
    path = kinds["DensityPath"]
    assert cells(path)[1][0] == float(path.final.mean)


def test_numbers_of_an_ensemble_are_those_of_its_observables(kinds):
    result = kinds["Ensemble"]
    page, moments = Page(result._repr_html_()), result.observables["moments"]
    expected = (float(moments.mean[-1, 1]), float(moments.mean_error[-1, 1]))
    assert expected in page.cells
    passages = result.observables["first_passage"]
    assert (passages.rate, passages.rate_error) in page.cells
    assert "rng=3" in page.text


def test_numbers_of_other_kinds(kinds):
    average, bias, budget = kinds["TimeAverage"], kinds["StepBias"], kinds["ErrorBudget"]
    assert cells(average)[0] == (float(average.mean[0]), float(average.standard_error[0]))
    found = [(float(bias.value["x"][k]), float(bias.error["x"][k])) for k in range(2)]
    assert cells(bias) == found
    assert cells(budget)[4] == (budget.whole.total_variation, None)
    expectation = kinds["Expectation"]
    assert cells(expectation)[0] == (expectation.mean, expectation.half_width)
    training = kinds["TrainResult"]
    assert cells(training)[2][0] == float(training.validation_losses.min())
    residuals = kinds["ScoreResiduals"]
    assert (residuals.kl, residuals.kl_bar) in cells(residuals)
    likelihood = kinds["Likelihood"]
    assert cells(likelihood)[0][0] == float(likelihood.log_prob.mean())


def test_a_certificate_says_its_verdict_and_its_sentence(kinds):
    for name in ("Certificate", "Certificate on a grid"):
        result = kinds[name]
        page = Page(page_of(name))
        assert result.summary in page.text
        assert page.text.count("✓ passed") == sum(c.verdict == "passed" for c in result.checks)
    assert "rng=11" in page_of("Certificate on a grid")


def test_what_a_picture_says_is_not_said_twice(kinds):
    figure = kinds["Certificate on a grid"].plot()
    assert figure.get_supxlabel()
    drawn = []

    def seen(figure):
        drawn.append(figure.get_supxlabel())
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "png_of", seen)
        kinds["Certificate on a grid"]._repr_html_()
    assert drawn == [""]


def test_a_picture_that_fails_leaves_the_numbers_and_says_why(monkeypatch):
    path = simulated(1)

    def broken(result):
        raise RuntimeError("<b>no</b> & no")

    expected = cells(path)
    monkeypatch.setattr(pages, "picture", broken)
    page = path._repr_html_()
    assert "no picture: RuntimeError: &lt;b&gt;no&lt;/b&gt; &amp; no" in page
    assert Page(page).cells == expected


def test_words_are_escaped():
    x = torch.zeros(1, 1, dtype=F64)
    observable = sg.Moments(name="<script>&")
    run = sg.run_ensemble(OU, x, [0.0, 1.0], trajectories=4, observables=[observable], rng=0)
    page = run._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;&amp;: mean" in page


def test_a_picture_keeps_its_hues():
    """What is said to be orange is orange in a small picture too."""
    image = Image.open(io.BytesIO(pages.png_of(simulated(1).plot()))).convert("RGB")
    red, _, blue = np.asarray(image).astype(int).transpose(2, 0, 1)
    assert (red - blue > 150).sum() > 100
    assert (blue - red > 60).sum() > 100
    assert (np.asarray(image)[:3] == 255).all()  # paper is white


def test_a_large_picture_is_made_small():
    figure = Figure(figsize=(12, 8))
    noise = np.random.default_rng(0).random((400, 600))
    figure.subplots().imshow(noise, cmap="viridis")
    assert len(pages.png_of(figure)) <= pages.BYTES


def test_a_score_model_says_what_it_is():
    model = sg.ScoreModel(sg.MLP(1, width=8, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
    page = Page(model._repr_html_())
    weights = sum(p.numel() for p in model.network.parameters())
    for words in (f"MLP, {weights:,} weights", "VP (LinearBeta)", "EpsPrediction", "(1,)"):
        assert words in page.text
    assert len(page.images) == 1


def test_a_score_without_a_picture_says_so():
    process = sg.LinearSDE(-torch.eye(4, dtype=F64), torch.eye(4, dtype=F64))
    model = sg.ScoreModel(sg.MLP(4, width=8, rng=0), process, times=(0.01, 3.0))
    page = Page(model._repr_html_())
    assert "no picture: ValueError: a score of LinearSDE for samples of shape (4,)" in page.text
    with pytest.raises(ValueError, match="has no picture; read numbers"):
        model.plot()


@pytest.mark.parametrize("name", ["Trajectory", "Density"])
def test_a_result_is_what_it_was_after_it_was_shown(name):
    result = all_kinds()[name]
    kept = {key: value for key, value in vars(result).items() if isinstance(value, torch.Tensor)}
    copies = {key: value.clone() for key, value in kept.items()}
    result._repr_html_()
    assert all(torch.equal(kept[key], copies[key]) for key in kept)
