"""Advice on methods for any noise, stiff drifts and averages of two runs, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, OU, column, near, simulate, warned

_STIFF = {"linear_part": 500.0}


def _stiff(**words):
    return sg.ItoProcess(lambda x: -500.0 * (x - 0.5), 0.0, **words)


def _rests(path):
    near(path.final, torch.full_like(path.final, 0.5), 1e-3)


def _grows(solver):
    """dx = 20 x dt with its linear part, up to e²."""
    sde = sg.ItoProcess(lambda x: 20.0 * x, 0.0, linear_part=-20.0)
    return sg.simulate(sde, column(1.0), [0.0, 0.1], solver=solver).final


def _of_size(L):
    sde = sg.ItoProcess(lambda x: -x, 0.0, linear_part=L)
    return sg.simulate(sde, torch.ones(4, 2, dtype=F64), [0.0, 1.0], solver=sg.ImplicitEuler())


def _extrapolated(solver, sde=OU, times=(0.0, 0.5, 1.0)):
    return sg.extrapolate(
        sde, column(1.0, 1), list(times), lambda x: x[:, 0], trajectories=2000, solver=solver,
        rng=0,
    )  # fmt: skip


class _Undeclared(sg.EulerMaruyama):
    orders = None


def _near_decay(run):
    near(run.value, 0.3679, 4.4 * float(run.standard_error) / 0.3679 + 0.05)


_CUBIC = sg.ItoProcess(lambda x: -40 * x**3, 0.01)


def _cubic(substeps):
    return sg.extrapolate(
        _CUBIC, column(3.0, 1), torch.linspace(0, 0.1, 9, dtype=F64), lambda x: x[:, 0],
        trajectories=10, solver=sg.EulerMaruyama(substeps), rng=0, interacting=False,
    )  # fmt: skip


_TRAP = sg.UnderdampedLangevin(sg.Quadratic(), 1.0)
_RUBBED = sg.UnderdampedLangevin(sg.Quadratic(), lambda x: 1 + x**2)
_PHASES = torch.ones(4, 2, 1, dtype=F64)


def _by_hand(times):
    return [*sg.integrate(_TRAP, sg.BAOAB(), _PHASES, times, sg.Noise(_PHASES, rng=0))]


def _heated(solver):
    return simulate(_TRAP, _PHASES, torch.linspace(0, 30, 11, dtype=F64), solver=solver)


def _mean_of(solver):
    return sg.expectation(
        _TRAP, _PHASES[:1], 0.5, lambda s: s[:, 0, 0], tolerance=0.1, solver=solver, rng=0
    )


FOLLOWED = {
    "BAOAB without velocities": (
        r"moves positions and velocities, but \{\} is no UnderdampedLangevin",
        lambda: simulate(OU, solver=sg.BAOAB()),
        lambda: (simulate(OU, solver=sg.EulerMaruyama(2)), simulate(_TRAP, _PHASES)),
    ),
    "BAOAB against time": (
        r"draws the noise of \{\} forwards in time, but times decrease",
        lambda: _by_hand([1.0, 0.0]),
        lambda: _by_hand([0.0, 1.0]),
    ),
    "QUICSORT with friction of x": (
        "QUICSORT solves a constant friction exactly",
        lambda: simulate(_RUBBED, _PHASES, solver=sg.QUICSORT()),
        lambda: simulate(_RUBBED, _PHASES, solver=sg.BAOAB(2)),
    ),
    "Euler heats a phase space": (
        "make a temperature of",
        lambda: warned(lambda: _heated(sg.EulerMaruyama(10))),
        lambda: warned(lambda: (_heated(sg.BAOAB(10)), _heated(sg.EulerMaruyama(200)))),
    ),
    "levels of QUICSORT": (
        "takes moments of the noise over a step, which levels do not share",
        lambda: _mean_of(sg.QUICSORT()),
        lambda: _mean_of(sg.BAOAB()),
    ),
    "implicit without a linear part": (
        "ImplicitEuler takes the linear part of the drift at the end",
        lambda: simulate(_stiff(), solver=sg.ImplicitEuler()),
        lambda: (
            _rests(simulate(_stiff(**_STIFF), solver=sg.ImplicitEuler())),
            _rests(simulate(_stiff(), solver=sg.SKROCK(stages=10))),
        ),
    ),
    "a mode that grows too fast": (
        r"a mode of the linear part of \{\} grows by more than a step of",
        lambda: _grows(sg.ImplicitEuler()),
        lambda: near(_grows(sg.ImplicitEuler(substeps=2000)), column(7.389), 3e-3),
    ),
    "a linear part of another size": (
        r"the linear part of \{\} has shape",
        lambda: _of_size([1.0, 1.0, 1.0]),
        lambda: [
            near(_of_size(L).final, torch.full((4, 2), 0.5))
            for L in (1.0, [1.0, 1.0], torch.eye(2))
        ],
    ),
    "too many stages": (
        r"stages must be ≤ \{\}",
        lambda: sg.SKROCK(stages=400),
        lambda: _rests(simulate(_stiff(), solver=sg.SKROCK(2, stages=6))),
    ),
    "an average of undeclared order": (
        r"declares no weak order for \{\} noise",
        lambda: _extrapolated(_Undeclared()),
        lambda: _near_decay(_extrapolated(sg.EulerMaruyama(substeps=2))),
    ),
    "an average by steps that cannot be halved": (
        r"takes no steps that can be halved",
        lambda: _extrapolated(sg.TorchDiffEq(), sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0)),
        lambda: [
            near(_extrapolated(one, sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0)).value, 0.36788, 5e-2)
            for one in (sg.EulerMaruyama(substeps=2), sg.Heun(substeps=2))
        ],
    ),
    "an average of lost states": (
        r"of \{\} trajectories of block \{\} are not finite at t = \{\}: take shorter",
        lambda: _cubic(1),
        lambda: near(_cubic(200).value, 3 / (1 + 80 * 9 * 0.1) ** 0.5, 0.02),
    ),
}
