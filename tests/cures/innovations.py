"""Advice on the steps of stored states, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, GRID, OU, REVERSE, VP, WELL, T, simulate

_X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
_COLUMN = _X[:, :1]
_TRAP = sg.UnderdampedLangevin(lambda x: (x**4 / 4).sum(1))
_ROUGH = sg.UnderdampedLangevin(lambda x: (x**4 / 4).sum(1), lambda x: 1 + x**2)
_TWO_PEAKS = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.3).noised(VP)
_FROZEN = sg.ReverseSDE(VP, _TWO_PEAKS.score, eta=0.0)
_ADAMS = sg.ExponentialAdams(2, "x0")
_CHURNED = sg.KarrasHeun(churn=sg.Churn(5.0))


def _path(sde=OU, x=_X, times=T, **options):
    return simulate(sde, x, times, **options)


def _swung(sde=_TRAP, solver=None, times=T):
    """Positions and velocities."""
    return simulate(sde, sde.state(_X, _X.flip(0)), times, solver=solver or sg.BAOAB()).states


def _judged(sde=OU, path=None, **options):
    return sg.certify(
        sde, path=_path().states if path is None else path, **({"dt": 0.1} | options)
    )


def _passes(*given, **options):
    assert _judged(*given, **options).passed


def _with_velocities(states, sde=_TRAP, **options):
    x, v = states[:, :, 0], states[:, :, 1]
    _passes(sde, sg.read_states(x, velocities=v, dt=0.1), dt=None, **options)


def _denoised(sde, solver, judged=None, every=1):
    """Samples of a score, judged as those of a solver."""
    times = VP.time_grid(20)
    path = simulate(sde, _COLUMN, times, solver=solver)
    found = path.states[::every]
    return sg.certify(sde, path=found, times=times[::every], solver=judged or solver)


def _rounded(decimals):
    states = (_path().states * 10**decimals).round() / 10**decimals
    return sg.certify(OU, path=sg.read_states(states, dt=0.1, rounding=0.5 * 10.0**-decimals))


def _centred(shape):
    """States of particles that do not move but by noise, whose centre is held."""
    noise = torch.randn(60, *shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    x = (0.1**0.5 * noise).cumsum(0)
    x = x - x.mean(2, keepdim=True)
    return sg.read_states(x, dt=0.1, centre_removed=True)


def _mass_of(mass):
    sde = sg.UnderdampedLangevin(lambda x: x.square().sum((1, 2)), 1.0, mass=mass)
    x = torch.randn(60, 20, 2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    states = sg.read_states(x, dt=0.1, phase_space=True, centre_removed=True)
    return sg.certify(sde, path=states)


class _Columns(sg.SDE):
    """Two coordinates, moved by given columns."""

    channels = 2
    autonomous = True
    noise = "additive"

    def __init__(self, *columns):
        self.columns = torch.tensor(columns, dtype=F64).T[None]
        self.channels = len(columns)
        self.coupled([[1.0, 0.0], [0.0, 1.0]])

    def coupled(self, matrix):
        """The same with a drift that takes two coordinates."""
        self.matrix = torch.tensor(matrix, dtype=F64)
        return self

    def drift(self, x, t):
        return -x @ self.matrix

    def diffusion(self, x, t):
        return self.columns


FOLLOWED = {
    "neither a grid nor states": (
        r"certify judges stored states, path=…, or a simulation on a grid",
        lambda: sg.certify(OU),
        lambda: (_passes(), sg.certify(OU, GRID, 0.5, T)),
    ),
    "densities without a grid": (
        r"is for a certificate on a grid, but grid is None",
        lambda: _judged(p0=0.5),
        lambda: (_passes(), sg.certify(OU, GRID, 0.5, T)),
    ),
    "a grid without a start": (
        r"a certificate on a grid needs",
        lambda: sg.certify(OU, GRID),
        lambda: (_passes(), sg.certify(OU, GRID, 0.5, T)),
    ),
    "positions of no solver": (
        r"positions alone are judged as steps of a method, but solver is",
        lambda: _judged(_TRAP, _swung()[:, :, 0], solver="unknown"),
        lambda: (
            _passes(_TRAP, _swung()[:, :, 0], solver=sg.BAOAB()),
            _with_velocities(_swung(), solver="unknown"),
        ),
    ),
    "positions without their velocities": (
        r"store velocities as well, and pass read_states",
        lambda: _judged(_ROUGH, _swung(_ROUGH)[:, :, 0]),
        lambda: _with_velocities(_swung(_ROUGH), _ROUGH),
    ),
    "steps that a solver chooses": (
        r"chooses its own steps, so that the law of one is not known",
        lambda: _judged(solver=sg.TorchSDE("euler")),
        lambda: (_passes(solver=sg.EulerMaruyama()), _passes(solver="unknown")),
    ),
    "every second state of a method that remembers": (
        r"remembers earlier steps, and its noise cannot be told from the states",
        lambda: _denoised(REVERSE, _ADAMS, sg.ExponentialAdams(2, "x0", substeps=2), 2),
        lambda: _denoised(REVERSE, _ADAMS).passed,
    ),
    "noise beside dynamics without any": (
        r"draws noise of its own beside",
        lambda: _denoised(_FROZEN, _CHURNED),
        lambda: _denoised(_FROZEN, sg.KarrasHeun()).passed,
    ),
    "a flow of an unknown method": (
        r"and nothing is left open to judge it by",
        lambda: _denoised(_FROZEN, sg.DDIM(), "unknown"),
        lambda: _denoised(_FROZEN, sg.DDIM()).passed,
    ),
    "exact transitions that are not known": (
        r"solver='exact' is for a process whose transitions are Gaussian",
        lambda: _judged(WELL, _path(WELL).states, solver="exact"),
        lambda: _passes(WELL, _path(WELL).states, solver=sg.EulerMaruyama()),
    ),
    "exact transitions backwards": (
        r"solver='exact' takes the transitions of \{\} forwards",
        lambda: sg.certify(OU, path=_X[None].repeat(5, 1, 1), times=T[:5].flip(0), solver="exact"),
        lambda: _passes(OU, OU.sample(_X, T, rng=0).states, solver="exact"),
    ),
    "steps that are too long to be redrawn": (
        r"transitions that are redrawn from stored states are not finite",
        lambda: _judged(
            sg.ItoProcess(lambda x: -500 * x**3, 1.0), 3 * _path().states, dt=1.0, solver="unknown"
        ),
        lambda: _passes(solver=sg.EulerMaruyama()),
    ),
    "too few digits": (
        r"store them to \{\} decimals, or in single precision",
        lambda: _rounded(0),
        lambda: (_rounded(2), _passes(path=_path().states.float())),
    ),
    "a centre of what are no particles": (
        r"centre_removed=True is for particles, of positions",
        lambda: sg.certify(sg.BrownianMotion(1.0), path=_centred((20, 6))),
        lambda: sg.certify(sg.BrownianMotion(1.0), path=_centred((20, 3, 2))),
    ),
    "a centre of a law that mixes coordinates": (
        r"the motion of the centre can be left out where each number of the noise",
        lambda: sg.certify(sg.BrownianMotion(1.0), path=_centred((20, 3, 2)), solver="unknown"),
        lambda: sg.certify(
            sg.BrownianMotion(1.0), path=_centred((20, 3, 2)), solver=sg.EulerMaruyama()
        ),
    ),
    "masses of dimensions": (
        r"the centre of particles has one mass for each",
        lambda: _mass_of([[1.0, 2.0]] * 3),
        lambda: _mass_of([[1.0]] * 3),
    ),
    "channels that repeat others": (
        r"channels of this SDE span less than",
        lambda: _judged(_Columns([1.0, 0.5], [2.0, 1.0])),
        lambda: _judged(_Columns([1.0, 0.5])),
    ),
    "velocities of an SDE that has none": (
        r"path holds positions and velocities, but",
        lambda: sg.certify(OU, path=sg.read_states(_swung(), dt=0.1, phase_space=True)),
        lambda: (
            _passes(OU, _path().states),
            sg.certify(_TRAP, path=sg.read_states(_swung(), dt=0.1, phase_space=True)),
        ),
    ),
    "more channels than coordinates, and no more directions than one": (
        r"the noise of this SDE is singular in a direction",
        lambda: _judged(_Columns([1.0, 0.5], [2.0, 1.0], [1.0, 0.5])),
        lambda: _judged(_Columns([6.0**0.5, 1.5**0.5])),
    ),
    "steps beside an end that moves": (
        r"are judged between ends that do not move, but one is",
        lambda: _judged(boundary={0: sg.Absorbing(lambda t: -9.0 - t, 9.0)}),
        lambda: _passes(boundary=None),
    ),
    "states that a drift does not take": (
        r"path has states of shape \{\}, which the drift of \{\} does not take",
        lambda: _judged(_Columns([1.0, 0.5]), _X[:, None].repeat(1, 4, 3)),
        lambda: _judged(_Columns([1.0, 0.5]), _path().states),
    ),
    "a drift that broadcasts": (
        r"path has states of shape \{\}, for which the drift of \{\} returned shape",
        lambda: _judged(
            sg.ItoProcess(lambda x: -x * torch.ones(2, dtype=F64), 1.0), _path().states[..., :1]
        ),
        lambda: _passes(
            sg.ItoProcess(lambda x: -x * torch.ones(2, dtype=F64), 1.0), _path().states
        ),
    ),
}

# rows whose messages are put together from parts
UNSEEN = ("too few digits", "a centre of a law that mixes coordinates")
