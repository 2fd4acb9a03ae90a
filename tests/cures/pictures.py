"""Advice on times, arrays, metrics, data, pictures and reports, followed."""

import dataclasses
import io
import math

import torch
from matplotlib.figure import Figure

import sdegen as sg
from sdegen import plots
from sdegen.app.report import Claim, Report
from sdegen.observables.passages import Passages
from sdegen.plots import style
from sdegen.plots.tiles import tiles
from sdegen.verification.budget import ErrorBudget, ErrorTerm
from sdegen.verification.noising import certify_noising
from tests.cures.common import BM, F64, FLOW, GRID, OU, TWO, VP, T, column, simulate
from tests.cures.places import near

_SPREAD = torch.linspace(-1.0, 1.0, 50, dtype=F64)[:, None]
_PASSED = Passages(T, torch.arange(10, -1, -1), 10, 5.0, 5.0, 3.0)
_EXPLODES = sg.ItoProcess(lambda x: x**3, 0.0)


def _normals(std):
    return std * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)


def _panel():
    return style.panels("A", 3.0, 3.0)[1]["A"]


def _walked(brownian):
    """Ten and twenty steps of one path: their distance is that of the steps, O(dt)."""
    coarse, fine = (
        simulate(OU, column(0.5, 400), [0.0, 1.0], solver=sg.EulerMaruyama(n), brownian=brownian)
        for n in (10, 20)
    )
    apart = (coarse.final - fine.final).square().mean().sqrt()
    assert 0.001 < float(apart) < 0.05


def _frozen(finite):
    """Of two starts one is lost: the distance of the other from where it is, is 0."""
    x0 = torch.tensor([[0.1], [20.0]], dtype=F64)
    path = sg.simulate(_EXPLODES, x0, T, on_nonfinite="freeze")
    assert path.nonfinite.tolist() == [False, True]
    states = (
        path.finite[-1]
        if finite
        else torch.where(
            path.nonfinite[:, None], torch.full_like(path.final, math.nan), path.final
        )
    )
    near(sg.metrics.wasserstein_1d(states, path.states[-1, :1]), 0.0, 1e-15)


def _absorbed():
    """Half of what starts in the middle of [0, 1] has been absorbed."""
    box = sg.Grid(0.0, 1.0, 100)
    solver = sg.FokkerPlanck(BM, box, "absorbing")
    return solver.solve(box.gaussian(0.5, 0.05), [0.0, 0.15]).final


def _counted():
    density = _absorbed()
    path = sg.simulate(
        BM,
        0.5 + _normals(0.05),
        [0.0, 0.15],
        solver=sg.EulerMaruyama(30),
        boundary=sg.Absorbing(0.0, 1.0),
        rng=0,
    )
    floor = sg.metrics.total_variation_floor(density, 4000)
    assert sg.metrics.total_variation(path.final, density) < 1.5 * floor


def _levels(levels):
    """Integers come back from their bins."""
    values = torch.arange(300).reshape(100, 3)
    x = sg.data.dequantise(values, levels, rng=0, dtype=F64)
    assert torch.equal(((x + 1) / 2 * levels).floor().long(), values)


def _images(keep_path):
    flow = sg.ItoProcess(lambda x: -x, 0.0)
    return simulate(flow, torch.ones(3, 1, 4, 4, dtype=F64), keep_path=keep_path)


def _plane():
    return simulate(OU, torch.zeros(50, 2, dtype=F64))


def _density(times):
    return sg.FokkerPlanck(OU, GRID).solve(GRID.gaussian(0.5, 0.3), times)


def _two_of(path):
    return dataclasses.replace(path, states=path.states[..., :2])


def _drawn(figure):
    assert isinstance(figure, Figure)
    assert figure.axes
    return figure


def _budget():
    density = GRID.gaussian(0.0, 1.0)
    part = ErrorTerm("whole", 0.1, 0.1, 0.1)
    return ErrorBudget((part,) * 4, part, (density,) * 5, 1e-3)


def _reported(kind):
    picture = io.BytesIO()
    _drawn(plots.histogram(_SPREAD[:, 0], quantity="x")).savefig(picture, format=kind)
    report = Report("A report")
    report.figure(picture.getvalue(), "A picture")
    assert "data:image/png;base64" in report.html


def _noised_chain():
    chain = sg.DDPM.discretize(VP, 10)
    return certify_noising(chain, VP, chain.times)


def _printed():
    text = str(_noised_chain())
    assert _noised_chain().summary in text


def _claim(**bounds):
    assert Claim("the mean", 0.5, **bounds).holds


def _gradient(means, leaf):
    law = sg.GaussianMixture([0.5, 0.5], means, stds=0.5)
    (slope,) = torch.autograd.grad(law.log_prob(torch.zeros(1, 1, dtype=F64)).sum(), leaf)
    return float(slope)


def _leaf():
    return torch.tensor(-1.0, dtype=F64, requires_grad=True)


def _stacked():
    """∂/∂a log p(0) of ½ N(a, s²) + ½ N(1, s²) is −a/(2 s²) at a = −1."""
    leaf = _leaf()
    one = torch.tensor(1.0, dtype=F64)
    near(_gradient(torch.stack([leaf, one])[:, None], leaf), 0.5 / 0.25, 1e-9)


def _listed():
    leaf = _leaf()
    return _gradient([leaf, 1.0], leaf)


def _ends(times):
    """dx = −x dt from 0.5 in ten steps."""
    near(float(simulate(FLOW, times=times).final[0, 0]), 0.5 * 0.9**10, 1e-12)


def _learned():
    times = torch.linspace(0.0, 1.0, 11, dtype=F64)
    return times.requires_grad_()


UNSEEN = {
    "nodes of a path the other way",
    "numbers without an axis",
    "three coordinates on a track",
    "images without a channel",
    "a law that is none",
}
"""Rows whose text says what to do without one of the verbs."""

FOLLOWED = {
    # --- times and arrays
    "times that are a number": (
        r"\{\} must be a tensor or a list of numbers, but is",
        lambda: simulate(FLOW, times=1.0),
        lambda: _ends(torch.linspace(0.0, 1.0, 11)),
    ),
    "times that require grad": (
        r"\{\} is a tensor that requires grad, which is not carried",
        lambda: simulate(FLOW, times=_learned()),
        lambda: _ends(_learned().detach()),
    ),
    "times that are words": (
        r"\{\} must be numbers: \{\}; pass torch.linspace",
        lambda: simulate(FLOW, times=["now", "then"]),
        lambda: _ends(torch.linspace(0.0, 1.0, 11)),
    ),
    "one time": (
        r"\{\} must be a list of at least two times, but has shape",
        lambda: simulate(FLOW, times=[1.0]),
        lambda: _ends(torch.linspace(0.0, 1.0, 11)),
    ),
    "a list of what requires grad": (
        "is a list of tensors that require grad, which would lose it",
        _listed,
        _stacked,
    ),
    "a number that requires grad": (
        "pass its value, .item()",
        lambda: sg.Grid(torch.tensor(0.0, requires_grad=True), 1.0, 10),
        lambda: near(sg.Grid(torch.tensor(0.0, requires_grad=True).item(), 1.0, 10).low, 0, 0),
    ),
    "a Brownian path without the nodes": (
        r"the steps of this run meet at t = \{\}, which is not among",
        lambda: _walked(sg.BrownianPath(0, torch.linspace(0, 1, 11))),
        lambda: _walked(sg.BrownianPath(0, torch.linspace(0, 1, 21))),
    ),
    "nodes of a path the other way": (
        "its times must be as fine as the steps, and in the direction of",
        lambda: _walked(sg.BrownianPath(0, torch.linspace(1, 0, 21))),
        lambda: _walked(sg.BrownianPath(0, torch.linspace(0, 1, 21))),
    ),
    # --- metrics and data
    "samples that were lost": (
        r"a distance cannot count them: report them, and pass path.finite",
        lambda: _frozen(False),
        lambda: _frozen(True),
    ),
    "a density that has lost mass": (
        "it has no distribution function to compare with; use total_variation",
        lambda: sg.metrics.wasserstein_1d(_SPREAD, _absorbed()),
        _counted,
    ),
    "numbers without an axis": (
        r"with n ≥ 1, but has shape \{\}; numbers on a line are",
        lambda: sg.metrics.wasserstein_1d(_SPREAD[:, 0], _SPREAD),
        lambda: near(sg.metrics.wasserstein_1d(_SPREAD[:, 0][:, None] + 1, _SPREAD), 1.0, 1e-12),
    ),
    "a law that is none": (
        "a Density, such as FokkerPlanck.sde, grid..stationary.. returns, but is",
        lambda: sg.metrics.wasserstein_1d(_SPREAD, lambda x: x),
        lambda: near(
            sg.metrics.wasserstein_1d(_normals(0.5**0.5), sg.FokkerPlanck(OU, GRID).stationary()),
            0.0,
            0.05,
        ),
    ),
    "integers beyond the levels": (
        r"values must lie in 0 … \{\}, but reach from",
        lambda: _levels(256),
        lambda: _levels(300),
    ),
    # --- pictures and reports
    "a strip of one time": (
        "denoising_strip needs the path, but it has one time",
        lambda: plots.denoising_strip(_images(False)),
        lambda: _drawn(plots.denoising_strip(_images(True))),
    ),
    "images without a channel": (
        r"images must have shape \(n, 1, height, width\), but have \{\}; reshape",
        lambda: plots.image_sheet({"flat": torch.zeros(4, 16)}),
        lambda: _drawn(plots.image_sheet({"flat": torch.zeros(4, 16).reshape(4, 1, 4, 4)})),
    ),
    "a curve of single numbers": (
        r"must be a list of \(x, y\), or of \(x, y, standard error\), but has points of",
        lambda: plots.convergence({"Heun": [(0.3,), (0.1,)]}, slope=-1),
        lambda: _drawn(plots.convergence({"Heun": [(10, 0.3), (20, 0.1)]}, slope=-1)),
    ),
    "three coordinates on a track": (
        r"but these have shape \{\}; pick two of them",
        lambda: plots.paths(simulate(OU, torch.zeros(9, 3, dtype=F64))),
        lambda: _drawn(plots.paths(_two_of(simulate(OU, torch.zeros(9, 3, dtype=F64))))),
    ),
    "no common time": (
        "density and path have no common time: the density's are",
        lambda: plots.density_and_particles(_density([0.0, 0.1]), simulate(OU, times=T + 0.55)),
        lambda: _drawn(
            plots.density_and_particles(_density(T), simulate(OU, column(0.5, 50), times=T))
        ),
    ),
    "particles in the plane": (
        r"a density over x needs states of shape \(T, n, 1\)",
        lambda: plots.density_and_particles(_density(T), _plane()),
        lambda: (
            _drawn(plots.paths(_plane())),
            _drawn(plots.samples_2d({"here": _plane().final}, _plane().final)),
        ),
    ),
    "a field of one time": (
        "with two times and two sites or more, but states are",
        lambda: plots.space_time(simulate(OU, TWO, keep_path=False)),
        lambda: _drawn(plots.space_time(simulate(OU, TWO, keep_path=True))),
    ),
    "places that are no sites": (
        r"pass torch\.linspace\(low, high, sites\)",
        lambda: plots.space_time(simulate(OU, TWO), places=[0.0, 1.0, 2.0]),
        lambda: _drawn(plots.space_time(simulate(OU, TWO), places=torch.linspace(0.0, 1.0, 2))),
    ),
    "a phase space of several coordinates": (
        r"choose one coordinate, states\[:, :, 0\]",
        lambda: plots.phase_space(torch.zeros(9, 2, 3)),
        lambda: _drawn(plots.phase_space(torch.zeros(9, 2, 3)[:, :, 0])),
    ),
    "no observables": (
        r"must have a result, but is empty; pass \{'name': result\}",
        lambda: plots.survival({}),
        lambda: _drawn(plots.survival({"name": _PASSED})),
    ),
    "tiles of another shape": (
        r"images must have shape \(n, height, width\), but have",
        lambda: tiles(_panel(), torch.zeros(4, 16)),
        lambda: tiles(_panel(), torch.zeros(4, 16).reshape(4, 4, 4)),
    ),
    "no estimates": (
        r"must have an estimate, but is empty; pass",
        lambda: plots.estimates({}),
        lambda: _drawn(plots.estimates({"name": (0.1, 0.2, 0.0)})),
    ),
    "an estimate without its exact value": (
        r"must be \(estimate, standard error, exact\), but is",
        lambda: plots.estimates({"name": (0.1, 0.2)}),
        lambda: _drawn(plots.estimates({"name": (0.1, 0.2, 0.0)})),
    ),
    "an estimate without an error": (
        "must be finite with a standard error > 0, but is",
        lambda: plots.estimates({"name": (0.1, 0.0, 0.0), "other": (0.1, 0.2, 0.0)}),
        lambda: _drawn(plots.estimates({"other": (0.1, 0.2, 0.0)})),
    ),
    "particles on a line": (
        "choose two of their coordinates",
        lambda: plots.particles(torch.zeros(9, 4), diameter=0.1),
        lambda: _drawn(plots.particles(torch.zeros(9, 4)[:, :2], diameter=0.1)),
    ),
    "a box of other sides": (
        r"of them, but is \{\}; pass box=10\.0",
        lambda: plots.particles(torch.zeros(9, 2), diameter=0.1, box=[1.0, 1.0, 1.0]),
        lambda: _drawn(plots.particles(torch.zeros(9, 2), diameter=0.1, box=10.0)),
    ),
    "a certificate without densities": (
        "there are no densities to draw in this certificate; print it",
        lambda: plots.certificate(_noised_chain()),
        _printed,
    ),
    "no budgets": (
        "there are no budgets to draw; pass a mapping from N",
        lambda: plots.error_budget({}),
        lambda: _drawn(plots.error_budget({10: _budget(), 20: _budget()})),
    ),
    "a picture of another kind": (
        "a picture must be a PNG or a GIF, but begins with",
        lambda: _reported("svg"),
        lambda: _reported("png"),
    ),
    "a claim without a bound": (
        "a claim needs a bound, and low ≤ high, but",
        lambda: _claim(),
        lambda: (_claim(low=0.0), _claim(high=1.0), _claim(low=0.0, high=1.0)),
    ),
}
