"""Advice on measurements, inpainting and samples, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, GAUSS, VP, column

ONE = torch.ones(1, dtype=F64)
T = torch.tensor(0.5, dtype=F64)
MASK = torch.tensor([True, False])
MODEL = sg.ScoreModel(sg.MLP(1, width=4, depth=1, classes=2), VP)


def measured(value=ONE, noise_std=0.5, rows=4, covariance="isotropic", operator=torch.sin):
    score = sg.Measurement(operator, value, noise_std).posterior_score(VP, GAUSS.score, covariance)
    assert bool(score(column(0.5, rows), T).isfinite().all())


def together(**options):
    """Values of 2,000 rows, which are cut into blocks."""
    each = sg.Measurement(torch.sin, torch.ones(2_000, 100, dtype=F64), 0.5)
    reverse = sg.ReverseSDE(VP, each.posterior_score(VP, lambda x, t: -x))
    x_T = VP.prior((2_000, 100), rng=0, dtype=F64)
    sg.simulate(reverse, x_T, [1.0, 0.9], rng=0, **options)


def many(noise_std, covariance="isotropic"):
    """A measurement of 300 numbers of very different sizes."""
    sizes = torch.logspace(-6, 6, 300, dtype=F64)
    one = sg.Measurement(lambda x: x * sizes, sizes, noise_std)
    score = one.posterior_score(VP, lambda x, t: -x, covariance)
    assert bool(score(torch.ones(1, 300, dtype=F64), T).isfinite().all())


def inpainted(score=lambda x, t: -x, mask=MASK, steps=4, **options):
    known = torch.zeros(1, 2, dtype=F64)
    found = sg.inpaint(VP, score, known, mask, 3, steps=steps, resamplings=1, rng=0, **options)
    assert bool(found.x.isfinite().all())


FOLLOWED = {
    "a function for a matrix": (
        r"pass a function to Measurement\(operator, value, noise_std\)",
        lambda: sg.LinearMeasurement(torch.sin, ONE, 0.5),
        lambda: sg.Measurement(torch.sin, ONE, 0.5),
    ),
    "a measured number without an axis": (
        r"pass value\[None\] for one number",
        lambda: sg.Measurement(torch.sin, torch.tensor(1.0), 0.5),
        lambda: sg.Measurement(torch.sin, torch.tensor(1.0)[None], 0.5),
    ),
    "values of rows that are cut": (
        "if trajectories were cut into blocks, pass interacting=True",
        together,
        lambda: together(interacting=True),
    ),
    "a measurement that is not inverted": (
        "Use a larger noise_std, or covariance='tweedie'",
        lambda: many(1e-8),
        lambda: (many(1e7), many(1e-8, "tweedie")),
    ),
    "a solver that remembers, for inpainting": (
        r"pass solver=DDIM\(\) or EulerMaruyama\(\)",
        lambda: inpainted(solver=sg.ExponentialAdams(2)),
        lambda: (inpainted(solver=sg.DDIM()), inpainted(solver=sg.EulerMaruyama())),
    ),
    "a mask of numbers": (
        "pass mask > 0",
        lambda: inpainted(mask=MASK.double()),
        lambda: inpainted(mask=MASK.double() > 0),
    ),
    "samples of a score": (
        r"for a score of your own simulate ReverseSDE\(sde, score\)",
        lambda: sg.sample(GAUSS.score, 4),
        lambda: sg.simulate(
            sg.ReverseSDE(VP, GAUSS.score),
            VP.prior((4, 1), rng=0, dtype=F64),
            VP.time_grid(100),
            rng=0,
        ),
    ),
    "guidance without labels": (
        "labels is None: pass labels=",
        lambda: sg.sample(MODEL, 4, guidance=1.0),
        lambda: sg.sample(MODEL, 4, guidance=1.0, labels=1, steps=4),
    ),
}
