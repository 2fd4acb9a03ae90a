"""Advice on averages to a tolerance, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import BM, F64, FLOW, REVERSE, VP, T, column, warned
from tests.cures.places import near, patched

_ONE, _MANY = column(1.0, 1), torch.tensor([[0.0], [2.0]], dtype=F64)
_DECAY = math.exp(-1)


def _first(x):
    return x[:, 0]


def _average(sde=FLOW, x0=_ONE, t=1.0, f=_first, tolerance=0.02, exact=_DECAY, **options):
    """An average, and that it is right; twice the half width is 4 standard errors."""
    given = {"rng": 0, "threads": 1, "progress": False} | options
    result = sg.expectation(sde, x0, t, f, tolerance=tolerance, **given)
    near(result.mean, exact, 2 * result.half_width)
    return result


def _drawn(rows, rng):
    return _MANY[torch.randint(2, (rows,), generator=rng)]


def _ensemble(sde, x0, times, exact, error, **options):
    """The mean that an ensemble has in its place."""
    given = {"trajectories": 4000, "rng": 0, "progress": False} | options
    run = sg.run_ensemble(sde, x0, times, observables=[sg.Moments()], **given)
    near(float(run.observables["moments"].mean[-1, 0]), exact, error)


def _clamped(x):
    return x[:, 0].abs().clamp(min=1.0)


def _jump(x):
    return x[:, 0] > 2


def _smooth(x):
    return torch.sigmoid(4 * (x[:, 0] - 2))


_GROWTH = sg.ItoProcess(lambda x: x, lambda x: 0.8 * x)
_EULER = {"solver": sg.EulerMaruyama(), "tolerance": 0.03}
_SMOOTH = 0.5053  # the mean of the smooth one over e^{0.36 + 0.8 z}: by a rule of 200 nodes
_PULL = sg.ItoProcess(lambda x: x.mean(0) - x, 1.0)
_CUBE = sg.ItoProcess(lambda x: x**3, 0.1)
_WELL = sg.ItoProcess(lambda x: x - x**3, 0.1)
_RATES = sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters={"k": torch.ones(3, 1, dtype=F64)})
_FAST = sg.ItoProcess(lambda x, t: torch.sin(1024 * math.pi * t) ** 2 + 0 * x, 0.1)
_JUMPS = sg.JumpDiffusion(sg.ItoProcess(torch.zeros_like, 0.0), sg.CompoundPoisson(1.0, 1.0))
_CHAIN = sg.DDPM.discretize(VP, 20)


class _Matrix(sg.SDE):
    """Noise of a matrix, as a class of its own."""

    noise_structure, noise = "general", "additive"

    def drift(self, x, t):
        return -x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * noise.normal()

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v


class _WithAreas(sg.EulerMaruyama):
    needs = ("areas",)


def _few(name, value, program):
    return patched(f"sdegen.averages.estimate.{name}", value, program)


def _reverse():
    """Data N(0, 0.5²) at two numbers of steps, from the prior."""
    for steps in (100, 200):
        x0 = VP.prior((4000, 1), rng=0, dtype=F64)
        _ensemble(REVERSE, x0, VP.time_grid(steps), 0.0, 4.4 * 0.5 / math.sqrt(4000))


FOLLOWED = {
    "an average to no tolerance": (
        r"tolerance must be finite and > 0, the half width .* pass a hundredth of the spread of f",
        lambda: _average(tolerance=0.0),
        lambda: _average(BM, tolerance=0.01, exact=1.0),
    ),
    "an average with a confidence in per cent": (
        r"confidence must lie between 0 and 1, but is \{\}; pass confidence=0.95",
        lambda: _average(confidence=95),
        lambda: _average(confidence=0.95),
    ),
    "an average at several times": (
        "average is of one time: call expectation for each",
        lambda: _average(t=[0.0, 0.5, 1.0]),
        lambda: [_average(t=t, exact=math.exp(-t)) for t in (0.5, 1.0)],
    ),
    "an average after no time": (
        r"another time than that of the start, but goes from .* pass t=1.0",
        lambda: _average(t=0.0),
        lambda: (_average(t=1.0), _average(t=(0.0, 1.0))),
    ),
    "an average over given starts": (
        "levels draw as many trajectories as they need: pass one state where all start",
        lambda: _average(x0=_MANY),
        lambda: (_average(x0=_MANY[1:], exact=2 / math.e), _average(x0=_drawn)),
    ),
    "an average over a mean field": (
        "cannot be drawn level by level: run them together, by run_ensemble",
        lambda: _average(_PULL),
        lambda: _ensemble(_PULL, _ONE, T, 1.0, 4.4 / math.sqrt(4000), interacting=True),
    ),
    "an average of a chain on integers": (
        "a Markov chain on integer times, whose steps cannot be halved: take run_ensemble",
        lambda: _average(_CHAIN),
        lambda: _ensemble(
            _CHAIN,
            _ONE,
            torch.arange(21.0),
            float(_CHAIN.alpha_bars[-1].sqrt()),
            4.4 / math.sqrt(4000),
        ),
    ),
    "an average of a reverse process": (
        r"is a reverse process, for which levels are not built: take run_ensemble",
        lambda: _average(REVERSE),
        _reverse,
    ),
    "an average of jumps": (
        r"; take run_ensemble\(…, observables=\[Moments\(\)\], solver=JumpAdapted\(\)\)",
        lambda: _average(_JUMPS),
        lambda: _ensemble(_JUMPS, _ONE, T, 2.0, 4.4 / math.sqrt(4000), solver=sg.JumpAdapted()),
    ),
    "an average over parameters": (
        "write the parameters of one of them into drift and diffusion",
        lambda: _average(_RATES),
        lambda: _average(sg.ItoProcess(lambda x: -1.0 * x, 0.0)),
    ),
    "an average of general noise": (
        r"of which nobody says how two steps make one: give it as ItoProcess\(f, G, channels=m\)",
        lambda: _average(_Matrix()),
        lambda: (
            _average(sg.ItoProcess(lambda x: -x, torch.eye(1, dtype=F64), channels=1)),
            _ensemble(_Matrix(), _ONE, T, 0.9**10, 4.4 * 0.7 / math.sqrt(4000)),
        ),
    ),
    "an average of an f of another shape": (
        "take a coordinate, as in lambda x: x",
        lambda: _average(f=lambda x: x),
        lambda: (
            _average(f=lambda x: x[:, 0]),
            _average(f=lambda x: x.square().sum(1), exact=math.exp(-2)),
        ),
    ),
    "an average of an f that writes": (
        r"f changed x in place; write x = x \+ …",
        lambda: _average(f=lambda x: x.add_(1)[:, 0]),
        lambda: _average(f=lambda x: (x + 1)[:, 0], exact=1 + math.exp(-1)),
    ),
    "an average of an f of all rows": (
        "f of a state depends on the other states of its batch, such as by their mean; let",
        lambda: _average(f=lambda x: x[:, 0] - x.mean()),
        lambda: _average(f=lambda x: x[:, 0] - 1, exact=math.exp(-1) - 1),
    ),
    "an average of an f that is not finite": (
        "an average of it is not finite; let f return a finite number there",
        lambda: _average(BM, f=lambda x: x[:, 0].log(), tolerance=0.5),
        lambda: _average(
            BM, f=lambda x: x[:, 0].abs().clamp(min=1.0), tolerance=0.05, exact=1.407433
        ),
    ),
    "an average by a solver of its own steps": (
        r"solver must be a solver of fixed steps, such as EulerMaruyama\(\), or None, which",
        lambda: _average(solver=sg.TorchDiffEq()),
        lambda: (_average(solver=sg.EulerMaruyama()), _average(solver=None)),
    ),
    "an average by a class of solvers": (
        r"such as EulerMaruyama\(\), or None, which chooses, but is \{\}",
        lambda: _average(solver=sg.Heun),
        lambda: _average(solver=sg.Heun()),
    ),
    "an average by substeps": (
        r"the levels are steps of each size; leave substeps out of \{\}\(\)",
        lambda: _average(solver=sg.Heun(substeps=2)),
        lambda: _average(solver=sg.Heun()),
    ),
    "an average by a solver of areas": (
        "takes Lévy areas, which levels do not share: leave solver out",
        lambda: _average(solver=_WithAreas()),
        lambda: _average(),
    ),
    "an average of what explodes": (
        "Take an earlier t, or a drift that brings trajectories back",
        _few("_STEPS_TO_STAY", 5, lambda: _average(_CUBE)),
        _few(
            "_STEPS_TO_STAY",
            5,
            # x/√(1 − 2 x² t) of the flow, and the noise moves its mean by 2e-3
            lambda: (_average(_CUBE, t=0.2, exact=1 / math.sqrt(0.6)), _average(_WELL, exact=1.0)),
        ),
    ),
    "an average whose bias stays": (
        r"steps, and the tolerance \{\}: ask for a larger tolerance, or an earlier t",
        _few("_FINEST", 6, lambda: _average(tolerance=1e-3)),
        _few(
            "_FINEST",
            6,
            lambda: (
                _average(tolerance=0.02),
                _average(t=0.1, tolerance=1e-3, exact=math.exp(-0.1)),
            ),
        ),
    ),
    "an average in single precision": (
        r"pass x0.double\(\), or ask for a larger tolerance",
        lambda: _average(x0=_ONE.float(), tolerance=1e-6),
        lambda: (
            _average(x0=_ONE.float().double(), tolerance=1e-4),
            _average(x0=_ONE.float(), tolerance=1e-2),
        ),
    ),
    "an average below all rounding": (
        r"(\{\}|steps): ask for a larger tolerance\.$",
        lambda: _average(tolerance=1e-15),
        lambda: _average(tolerance=1e-3),
    ),
    "an average of a jump by Euler's method": (
        "Take an f without jumps, such as a smoothed one, or an earlier t",
        lambda: warned(lambda: _average(_GROWTH, f=_jump, exact=0.4935, **_EULER)),
        lambda: warned(lambda: _average(_GROWTH, f=_smooth, exact=_SMOOTH, **_EULER)),
    ),
    "an average of what turns faster than steps": (
        "and is not in the half width. Ask for the average over shorter times",
        lambda: warned(lambda: _average(_FAST, t=1.0, tolerance=0.05, exact=1 + 0.5)),
        lambda: warned(lambda: _average(_FAST, t=0.125, tolerance=0.05, exact=1 + 0.0625)),
    ),
    "an average of what never happened": (
        "rarely holds, take a smooth f in its place, which is not flat where they end",
        lambda: warned(lambda: _average(_GROWTH, f=lambda x: x[:, 0] > 1e3, exact=0.0)),
        lambda: warned(lambda: _average(_GROWTH, f=_smooth, exact=_SMOOTH)),
    ),
}

# of messages that hold no verb of the list, or share a row with others
UNSEEN = {
    "an average of an f that writes",
    "an average of an f of all rows",
    "an average of an f that is not finite",
    "an average by a solver of its own steps",
    "an average by a class of solvers",
}
