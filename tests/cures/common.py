"""What the programs of advice share: processes, grids and short calls."""

import math
import warnings

import torch

import sdegen as sg

F64 = torch.float64


def column(value, n=4):
    return torch.full((n, 1), float(value), dtype=F64)


T = torch.linspace(0.0, 1.0, 11, dtype=F64)
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
BM = sg.BrownianMotion(1.0)
WELL = sg.ItoProcess(lambda x: x - x**3, 0.7)
FLOW = sg.ItoProcess(lambda x: -x, 0.0)
CIR = sg.ItoProcess(lambda x: 0.5 - x, lambda x: 1.5 * x.sqrt())
TIMED = sg.ItoProcess(lambda x, t: -x + torch.cos(6 * t), 1.0)
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
GAUSS = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(VP)
REVERSE = sg.ReverseSDE(VP, GAUSS.score)
PROBABILITY_FLOW = sg.ReverseSDE(VP, GAUSS.score, eta=0.0)
GRID = sg.Grid(-6.0, 6.0, 120)
BOX = sg.Grid(0.0, 1.0, 100)
SINE = sg.ItoProcess(lambda x: 0.3 - torch.sin(x), 1.0)
RING = sg.Grid(0.0, 2 * math.pi, 100)
TWO = torch.zeros(4, 2, dtype=F64)


def simulate(sde, x0=None, times=T, **options):
    return sg.simulate(sde, column(0.5) if x0 is None else x0, times, rng=0, **options)


def ensemble(observable, sde=BM, times=T, **options):
    given = {"trajectories": 8, "rng": 0, "progress": False} | options
    return sg.run_ensemble(sde, column(0.5, 1), times, observables=[observable], **given)


def fp(sde=OU, grid=GRID, *boundary, **options):
    return sg.FokkerPlanck(sde, grid, *boundary, **options)


def warned(call):
    """The call, whose warning is the message."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


def told(call, *, only_text=False):
    """The call, whose warning is raised as an error of the same text; or that text alone."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    text = " ".join(str(w.message) for w in caught if issubclass(w.category, sg.AccuracyWarning))
    if only_text:
        return text
    raise ValueError(text)


def near(found, expected, tolerance=1e-12):
    """Numbers that agree, relative to the largest."""
    found = torch.as_tensor(found, dtype=F64)
    expected = torch.as_tensor(expected, dtype=F64)
    gap = float((found - expected).abs().max())
    assert gap <= tolerance * float(expected.abs().max()), f"{gap:.3g} off"
