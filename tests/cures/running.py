"""Advice on states, dynamics, solvers and steps, followed."""

import math
import re
import warnings

import pytest
import torch

import sdegen as sg
from tests.cures.common import F64, FLOW, VP, column, simulate, warned
from tests.cures.places import near, ours


def _decays(path, rate=1.0):
    """A run of dx = −rate x dt from its start, in ten steps of 0.1."""
    torch.testing.assert_close(path.final, path.states[0] * (1 - 0.1 * rate) ** 10)


class _Noisy(sg.SDE):
    """dx = −x dt + g dW, which says of its noise what it is told."""

    def __init__(self, noise, g, constant=None):
        self.noise, self._g, self.constant_noise = noise, g, constant

    def drift(self, x, t):
        return -x

    def diffusion(self, x, t):
        return torch.as_tensor(self._g, dtype=x.dtype)


def _spread(sde):
    """The variance of ten steps: dt (1 − a²ⁿ)/(1 − a²) g², to 4.4 standard errors."""
    x = simulate(sde, column(0.0, 4000)).final
    right = 0.1 * (1 - 0.9**20) / (1 - 0.81) * float(sde._g) ** 2
    near(float(x.var()), right, 4.4 * right * math.sqrt(2 / 4000))


def _advised_substeps(sde, x0, times, warns):
    """The substeps that a pilot names are taken, and nothing is said of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sg.AccuracyWarning if warns else ValueError) as told:
            sg.simulate(sde, x0, times, rng=0)
        found = re.search(r"substeps=(\d+) \(dt", str(told.value))
        return sg.simulate(sde, x0, times, rng=0, solver=sg.EulerMaruyama(int(found[1])))


def _strict(program):
    """The program, whose warnings are errors of ours."""
    return ours(lambda: warned(program), sg.AccuracyWarning)


_STIFF = sg.ItoProcess(lambda x: -100.0 * (x - 1.0), 1.0)
_QUIET = sg.ItoProcess(lambda x: -100.0 * (x - 1.0), 0.0, linear_part=100.0)
_COARSE = sg.ItoProcess(lambda x: -x, 1.0)
_CREEP = sg.ItoProcess(lambda x: 0.001 + 0 * x, 0.0)
_OFFSET = {"times": [0.0, 200.0], "solver": sg.EulerMaruyama(20_000)}


def _crept(path, start):
    near(float(path.final[0, 0]) - start, 0.2, 1e-3)


_ONES = torch.ones(6, 3, dtype=F64)
_PRIOR = VP.prior((4, 1), rng=0, dtype=F64)
_FIVE = torch.linspace(0.0, 1.0, 6, dtype=F64)


def _counted_rows(k):
    return sg.ItoProcess(lambda x, t, k: -k * x, 0.0, parameters={"k": k})


def _rates(rows=4):
    return torch.full((rows, 1), 2.0, dtype=F64)


_BY_PLACE = torch.linspace(1.0, 2.0, 8, dtype=F64)[:, None]


def _by_place(path):
    torch.testing.assert_close(path.final, (1 - 0.1 * _BY_PLACE) ** 10)


def _on_meta(x):
    return -torch.ones(x.shape, dtype=x.dtype, device="meta")


_CHAIN = sg.DDPM.discretize(VP, 10)
_BACKWARDS = sg.ReverseSDE(VP, lambda x, t: -x, eta=0.0)

UNSEEN = {
    "steps that explode",
    "steps that move the mean",
    "a drift of one column",
    "noise of a matrix",
    "one parameter for each row",
    "the end of a path",
    "a drift in the place of an SDE",
    "the class of a solver",
    "a chain backwards",
}
"""Rows whose text is put together, or says what to do without one of the verbs."""

_CUBE = sg.ItoProcess(lambda x: x**3, 0.0)
_JUMP = sg.ItoProcess(lambda x: -torch.sign(x - 0.3), 0.0)


def _held(solver):
    return float(sg.simulate(_JUMP, column(1.0, 1), [0.0, 1.0], solver=solver).final.mean())


FOLLOWED = {
    # --- states, dynamics and solvers
    "states of integers": (
        r"must be float32 or float64, but has dtype \{\}; pass",
        lambda: simulate(FLOW, torch.ones(4, 1, dtype=torch.int64)),
        lambda: _decays(simulate(FLOW, torch.ones(4, 1, dtype=torch.int64).to(torch.float32))),
    ),
    "an integrator of densities": (
        "is an integrator of densities, for FokkerPlanck",
        lambda: simulate(_STIFF, solver=sg.BackwardEuler(5)),
        lambda: (
            near(
                float(
                    simulate(_STIFF, column(1.0, 1000), solver=sg.EulerMaruyama(50)).final.std()
                ),
                (0.002 / (1 - 0.8**2)) ** 0.5,
                4.4 * 0.075 / math.sqrt(2000),
            ),
            near(float(simulate(_QUIET, solver=sg.SKROCK(stages=5)).final[0, 0]), 1.0, 1e-2),
            near(float(simulate(_QUIET, solver=sg.ImplicitEuler()).final[0, 0]), 1.0, 1e-9),
        ),
    ),
    "parameters of other rows": (
        r"the parameters of \{\} have \{\} rows for \{\} trajectories",
        lambda: simulate(_counted_rows(_rates(3))),
        lambda: _decays(simulate(_counted_rows(_rates(4))), 2.0),
    ),
    "noise that was denied": (
        r"says noise = 'none', but its diffusion is",
        lambda: _spread(_Noisy("none", 1.0)),
        lambda: (_spread(_Noisy("additive", 1.0)), _spread(_Noisy("multiplicative", 1.0))),
    ),
    "constant noise that is another": (
        r"says constant_noise = \{\}, but its diffusion",
        lambda: _spread(_Noisy("additive", 2.0, 1.0)),
        lambda: _spread(_Noisy("additive", 2.0, None)),
    ),
    "a drift that is a number": (
        r"must return a tensor, but returned \{\}; use torch.full_like",
        lambda: simulate(sg.ItoProcess(lambda x: 1.0, 0.0)),
        lambda: near(
            float(simulate(sg.ItoProcess(lambda x: torch.full_like(x, 1.0), 0.0)).final[0, 0]),
            1.5,
            1e-12,
        ),
    ),
    "constants on another device": (
        r"returned a tensor on \{\} for x on \{\}; move its constants",
        lambda: simulate(sg.ItoProcess(_on_meta, 0.0)),
        lambda: _decays(
            simulate(sg.ItoProcess(lambda x: -x * torch.ones(1).to(x.device).to(x.dtype), 0.0))
        ),
    ),
    "a drift of one column": (
        r"no drift is broadcast in silence",
        lambda: simulate(sg.ItoProcess(lambda x: -_BY_PLACE, 0.0), column(1.0, 8)),
        lambda: _by_place(
            simulate(
                sg.ItoProcess(lambda x, t, k: -k * x, 0.0, parameters={"k": _BY_PLACE}),
                column(1.0, 8),
            )
        ),
    ),
    "one parameter for each row": (
        r"drift or diffusion takes all \{\} rows of x0",
        lambda: simulate(sg.ItoProcess(lambda x: -_BY_PLACE * x, 0.0), column(1.0, 8)),
        lambda: (
            _by_place(
                simulate(
                    sg.ItoProcess(lambda x, t, k: -k * x, 0.0, parameters={"k": _BY_PLACE}),
                    column(1.0, 8),
                )
            ),
            _by_place(
                simulate(
                    sg.ItoProcess(lambda x: -_BY_PLACE * x, 0.0), column(1.0, 8), interacting=True
                )
            ),
        ),
    ),
    "noise of a matrix": (
        r"a noise matrix is declared, by channels=m",
        lambda: simulate(sg.ItoProcess(lambda x: -x, lambda x, t: torch.eye(3).to(x)), _ONES),
        lambda: simulate(
            sg.ItoProcess(lambda x: -x, lambda x, t: torch.ones(3).to(x), noise="additive"), _ONES
        ),
    ),
    "the end of a path": (
        "at t = 0 the score does not exist: end at t_min, as sde.time_grid",
        lambda: simulate(_BACKWARDS, times=[1.0, 0.0]),
        lambda: (
            simulate(_BACKWARDS, _PRIOR, times=VP.time_grid(20)),
            simulate(_BACKWARDS, _PRIOR, times=[1.0, VP.t_min]),
        ),
    ),
    "a drift in the place of an SDE": (
        "a drift of your own becomes one with ItoProcess",
        lambda: simulate(lambda x: -x),
        lambda: _decays(simulate(sg.ItoProcess(drift=lambda x: -x, diffusion=0.0))),
    ),
    "the class of a solver": (
        "solver must be a Solver object",
        lambda: simulate(FLOW, solver=sg.Heun),
        lambda: (
            simulate(FLOW, solver=sg.Heun()),
            near(
                float(simulate(FLOW, solver=sg.EulerMaruyama(substeps=10)).final[0, 0]),
                0.5 * 0.99**100,
                1e-12,
            ),
        ),
    ),
    "a chain backwards": (
        r"is a noisy chain meant for increasing time: its inverse",
        lambda: simulate(_CHAIN, times=torch.arange(11.0).flip(0)),
        lambda: simulate(
            _CHAIN.reverse(_BACKWARDS.score), _PRIOR, times=torch.arange(11.0).flip(0)
        ),
    ),
    # --- steps
    "rounding that takes the increments": (
        r"rounding takes increments away: at x",
        _strict(lambda: sg.simulate(_CREEP, torch.full((5, 1), 1000.0), **_OFFSET)),
        lambda: (
            _crept(warned(lambda: sg.simulate(_CREEP, column(1000.0), **_OFFSET)), 1000.0),
            _crept(warned(lambda: sg.simulate(_CREEP, torch.zeros(5, 1), **_OFFSET)), 0.0),
        ),
    ),
    "a solution that explodes": (
        r"seems to explode before t = ",
        _strict(lambda: sg.simulate(_CUBE, column(1.0, 4), [0.1 * i for i in range(7)])),
        lambda: near(
            float(
                sg.simulate(
                    _CUBE, column(1.0, 4), [0.0, 0.2, 0.4], solver=sg.Heun(50)
                ).final.mean()
            ),
            1 / math.sqrt(1 - 0.8),
            1e-2,
        ),
    ),
    "a jump that holds": (
        r"A drift that jumps may hold trajectories where it does",
        lambda: _held(sg.TorchDiffEq("adaptive_heun", rtol=1e-12, atol=1e-12)),
        lambda: (
            near(_held(sg.TorchDiffEq("adaptive_heun", rtol=1e-3, atol=1e-3)), 0.3, 1e-2),
            near(_held(sg.Heun(200)), 0.3, 1e-2),
        ),
    ),
    "steps that explode": (
        "are too large for ItoProcess: half of them change",
        lambda: sg.simulate(_STIFF, column(1.0, 500), _FIVE, rng=0),
        lambda: near(
            float(_advised_substeps(_STIFF, column(1.0, 500), _FIVE, False).final.mean()),
            1.0,
            4.4 * 0.075 / math.sqrt(500),
        ),
    ),
    "steps that move the mean": (
        "are large for ItoProcess: half of them move",
        _strict(lambda: sg.simulate(_COARSE, column(3.0, 500), [0.0, 0.5, 1.0], rng=0)),
        lambda: near(
            float(
                _advised_substeps(_COARSE, column(3.0, 500), [0.0, 0.5, 1.0], True).final.mean()
            ),
            3 * math.exp(-1.0),
            4.4 * 0.66 / math.sqrt(500) + 0.1 * 0.66,
        ),
    ),
}
