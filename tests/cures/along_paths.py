"""Advice on what is measured along paths, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import BM, F64, T, ensemble, simulate, warned

_PATH = sg.simulate(BM, torch.zeros(40, 2, dtype=F64), T, rng=0, solver=sg.EulerMaruyama())
_BOX = sg.Absorbing(-0.5, 1.5)
_BOXED = simulate(BM, solver=sg.EulerMaruyama(), boundary=sg.Absorbing(-1.0, 0.9))
_X = _PATH.states[..., :1]


def _msd(path=_X, times=T, **options):
    return sg.mean_squared_displacement(path, times, **options)


def _walk(steps):
    """Brownian motion of diffusion coefficient ½, in steps of 0.1."""
    rng = torch.Generator().manual_seed(0)
    return math.sqrt(0.1) * torch.randn(steps, 1, 1, dtype=F64, generator=rng).cumsum(0)


def _near_half(found):
    """Diffusion coefficients of Brownian motion; 4.9 errors, 1e-6."""
    assert abs(found.coefficient - 0.5) < 4.9 * found.error


def _drifted(**options):
    return sg.diffusion_coefficient(_msd(_X + 3 * T[:, None, None], lags=T[1:9]), **options)


FOLLOWED = {
    "covariances that were not kept": (
        "the covariance of {} lags was not kept",
        lambda: sg.diffusion_coefficient(_msd(torch.ones(11, 2, 600))),
        lambda: _near_half(sg.diffusion_coefficient(_msd(_PATH, None), offset=False)),
    ),
    "one trajectory without parts": (
        "there are no errors, as the displacements are those of {} trajectory",
        lambda: sg.diffusion_coefficient(_msd(_X[:, :1])),
        lambda: _near_half(
            sg.diffusion_coefficient(
                _msd(_walk(800), 0.1 * torch.arange(800), parts=16)
            )
        ),
    ),
    "a window with too few lags": (
        "lags are in .*, and a fit needs",
        lambda: sg.diffusion_coefficient(_msd()),
        lambda: _near_half(sg.diffusion_coefficient(_msd(lags=T[1:6]))),
    ),
    "a drift that counts as diffusion": (
        "the MSD is no straight line",
        lambda: warned(_drifted),
        lambda: _near_half(warned(lambda: _drifted(drift=True))),
    ),
    "times beside a trajectory": (
        "times came beside a Trajectory",
        lambda: _msd(_PATH, T),
        lambda: _msd(_PATH, None),
    ),
    "a path without trajectories": (
        r"path must be states of shape \(T, batch, \*event\)",
        lambda: _msd(_X[:, 0, 0]),
        lambda: _msd(_X[:, 0, 0][:, None]),
    ),
    "a path without times": (
        "times must be the times of the states",
        lambda: _msd(_X, None),
        lambda: _msd(_X, torch.linspace(0, 1, 11)),
    ),
    "a path of other times": (
        "states along its first axis",
        lambda: _msd(_X[-1:]),
        lambda: _msd(sg.simulate(BM, torch.zeros(4, 1), T, rng=0, keep_path=True), None),
    ),
    "a lag without a list": (
        "lags must be a list of one lag or more",
        lambda: sg.MeanSquaredDisplacement(lags=0.1),
        lambda: ensemble(sg.MeanSquaredDisplacement(lags=[0.1, 1.0])),
    ),
    "events that are no particles": (
        r"particles=True of {} needs events",
        lambda: ensemble(sg.MeanSquaredDisplacement(particles=True)),
        lambda: ensemble(sg.MeanSquaredDisplacement()),
    ),
    "times that are not equally spaced": (
        'times must be equally spaced, but steps go from|^pass origins="start"',
        lambda: ensemble(sg.MeanSquaredDisplacement(), times=[0.0, 0.1, 0.4]),
        lambda: (
            ensemble(sg.MeanSquaredDisplacement(), times=torch.linspace(0, 1, 11)),
            ensemble(sg.MeanSquaredDisplacement(origins="start"), times=[0.0, 0.1, 0.4]),
        ),
    ),
    "coordinates without a list": (
        "{} must be a list of ints, but is",
        lambda: sg.MeanSquaredDisplacement(coordinates=0),
        lambda: ensemble(sg.MeanSquaredDisplacement(coordinates=[0])),
    ),
    "a window that is none": (
        "is none of scipy.signal.get_window",
        lambda: sg.PowerSpectrum(window="kaiser"),
        lambda: [sg.power_spectrum(_X, T, window=w) for w in ("boxcar", ("kaiser", 8.0))],
    ),
    "a segment longer than a path": (
        "a segment of {} states is longer than a trajectory",
        lambda: sg.power_spectrum(_X, T, segment=20),
        lambda: (
            sg.power_spectrum(_X, T, segment=4),
            sg.power_spectrum(_walk(40), torch.arange(40), segment=20, parts=2),
        ),
    ),
    "a spectrum of the absorbed": (
        "of a stationary process, and absorbed trajectories|one of a stationary process; drop",
        lambda: ensemble(sg.PowerSpectrum(), boundary=_BOX),
        lambda: (
            ensemble(sg.PowerSpectrum()),
            sg.power_spectrum(_BOXED.states[:, ~_BOXED.absorbed[-1]], times=_BOXED.times),
        ),
    ),
    "stays at one edge": (
        "a path of noise that is there crosses it without end",
        lambda: ensemble(sg.ResidenceTimes((0.0, 1.0))),
        lambda: (
            ensemble(sg.ResidenceTimes((0.0, 1.0), region=(-1.0, 2.0))),
            ensemble(sg.ResidenceTimes((0.0, 1.0), bridge=False)),
        ),
    ),
    "stays of the absorbed": (
        "does not know stays of absorbed|were absorbed, and their stays are not known",
        lambda: ensemble(sg.ResidenceTimes((0.0, 0.7), (-0.2, 1.2)), boundary=_BOX),
        lambda: (
            ensemble(sg.ResidenceTimes((0.0, 0.7), (-0.2, 1.2))),
            ensemble(sg.FirstPassage(below=-0.2, above=1.2), boundary=_BOX),
        ),
    ),
    "an edge that is no function of t": (
        "or a function of t alone that returns one",
        lambda: ensemble(sg.FirstPassage(above=lambda x, t: 1 - t)),
        lambda: ensemble(sg.FirstPassage(above=lambda t: 1.5 - t)),
    ),
}  # fmt: skip
