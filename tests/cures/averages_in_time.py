"""Advice on averages over series and on their errors, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import F64, OU, column, warned
from tests.cures.places import near

_STEPS = torch.linspace(0.0, 40.0, 401, dtype=F64)


def _path(n=4, **options):
    return sg.simulate(OU, column(0.0, n), _STEPS, rng=0, **options)


def _noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def _held(average, truth=0.0):
    near(float(average.mean), truth, 5 * float(average.standard_error))


def _lost():
    x = _noise(400, 3)
    x[7, 1] = math.nan
    return x


def _slow(n, rows=1, phi=0.98):
    """An AR(1) process of variance 1, at rest."""
    x = _noise(n, rows)
    for k in range(1, n):
        x[k] = phi * x[k - 1] + math.sqrt(1 - phi**2) * x[k]
    return x


def _relaxing():
    """Trajectories whose starts are remembered by 2000 states, and then by none."""
    far = 0.4 * torch.linspace(-1, 1, 40, dtype=F64)
    return _slow(4000, 40, 0.6) + far * (torch.arange(4000) < 2000)[:, None]


FOLLOWED = {
    "a series with times twice": (
        "times are those of the Trajectory; leave times= out",
        lambda: sg.time_average(_path(), times=_STEPS),
        lambda: _held(sg.time_average(_path(), lambda x: x[:, 0])),
    ),
    "a complex series": (
        "take its real and imaginary parts, two series",
        lambda: sg.time_average(_noise(400) + 1j),
        lambda: [_held(sg.time_average(part)) for part in (_noise(400), _noise(400).neg())],
    ),
    "a series with lost trajectories": (
        "leave these trajectories out, as path.finite does",
        lambda: sg.time_average(_lost()),
        lambda: _held(sg.time_average(_lost()[:, [0, 2]])),
    ),
    "a series that is constant": (
        "has no correlation time, and its average no error; leave it out",
        lambda: sg.time_average(torch.stack([_noise(400), torch.ones(400)], 1)[:, None]),
        lambda: _held(sg.time_average(_noise(400))),
    ),
    "a series that never forgets": (
        r"not known from it; run it longer",
        lambda: sg.integrated_autocorrelation_time(_slow(40, 2000)),
        lambda: near(float(sg.integrated_autocorrelation_time(_slow(4000, 20)).tau), 49.5, 10),
    ),
    "a series that alternates": (
        r"take block_average\(series\), which needs no sum",
        lambda: sg.time_average(_slow(4000, phi=-0.9)),
        lambda: _held(sg.block_average(_slow(4000, phi=-0.9))),
    ),
    "a series of few correlation times": (
        r"run it \{\} times as long, or take more trajectories",
        lambda: warned(lambda: sg.time_average(_slow(1000))),
        lambda: [
            _held(sg.time_average(x)) for x in (_slow(8000), _slow(1000, 8).reshape(1000, 8))
        ],
    ),
    "covariances of many components": (
        r"take at most \{\} of them, as in function",
        lambda: sg.time_covariance(_noise(100, 2, 65)),
        lambda: near(
            float(sg.time_covariance(_noise(100, 2, 65), lambda x: x[:, :3]).variance[0]), 1, 0.5
        ),
    ),
    "trajectories that are not at rest": (
        r"run them longer, or leave the relaxation out, as in series\[k:\]",
        lambda: warned(lambda: sg.time_average(_relaxing()[:2000])),
        lambda: _held(sg.time_average(_relaxing()[2000:])),
    ),
    "a series without a block": (
        r"\(quantity \{\}\); run it longer, or take more trajectories",
        lambda: sg.block_average(_slow(200)),
        lambda: [_held(sg.block_average(x)) for x in (_slow(20_000), _slow(200, 100))],
    ),
}
