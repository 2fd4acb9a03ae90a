"""Pictures of certificates and budgets hold the numbers that they were given."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import sdegen as sg
from sdegen.verification.budget import ErrorBudget, ErrorTerm
from sdegen.verification.certificate import certify
from sdegen.verification.noising import certify_noising


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def test_a_certificate_shows_the_law_the_particles_and_every_check():
    ou, grid = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), sg.Grid(-5.0, 5.0, 100)
    options = {"solver": sg.EulerMaruyama(50), "trajectories": 500, "rng": 0}
    wrong = sg.OrnsteinUhlenbeck(1.0, 1.0, 1.0)
    start = grid.gaussian(0.0, 0.5)
    result = certify(ou, grid, start, [0.0, 1.0], simulated=wrong, **options)
    figure = drawn(sg.plots.certificate(result))
    left, right = figure.axes
    law, density = left.get_lines()
    np.testing.assert_array_equal(law.get_ydata(), result.law.p[-1])
    np.testing.assert_array_equal(density.get_ydata(), result.density.p[-1])
    bars = right.patches
    assert len(bars) == len(result.checks) == 9
    beyond = [bar.get_x() + bar.get_width() > 1 for bar in bars]
    assert beyond == [check.verdict == "failed" for check in result.checks]
    assert right.get_title() == f"{len(result.failed)} of 9 checks failed"
    assert len(result.failed) == 5
    assert "do not follow" in figure.get_supxlabel().replace("\n", " ")


def test_a_certificate_without_densities_is_refused():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    chain = sg.DDPM.discretize(vp, 10)
    with pytest.raises(ValueError, match="no densities to draw"):
        sg.plots.certificate(certify_noising(chain, vp, chain.times))


def budget(scale):
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    law = sg.Density(x, torch.ones(5, dtype=torch.float64) / 2)
    names = ("early stopping", "prior mismatch", "score error", "time discretisation")
    parts = tuple(
        ErrorTerm(name, (i * scale) ** 2, i * scale / 2, 0.0) for i, name in enumerate(names)
    )
    return ErrorBudget(parts, ErrorTerm("whole", 9 * scale, scale, scale), (law,) * 5, 1e-7)


def test_a_budget_shows_each_part_against_the_steps():
    figure = drawn(sg.plots.error_budget({100: budget(0.01), 10: budget(0.1)}))
    left, right = figure.axes
    curves = {line.get_label(): line for line in left.get_lines()}
    assert list(curves) == [
        "prior mismatch",
        "score error",
        "time discretisation",
        "whole",
        "accuracy",
    ]
    np.testing.assert_array_equal(curves["score error"].get_xdata(), [10, 100])
    np.testing.assert_allclose(curves["score error"].get_ydata(), [0.04, 0.0004])
    np.testing.assert_allclose(right.get_lines()[1].get_ydata(), [0.1, 0.01])
    with pytest.raises(ValueError, match="no budgets to draw"):
        sg.plots.error_budget({})
