"""Advice on averages of stored states, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, GRID, T, simulate

_OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 2.0**0.5)
_COLD = sg.Quadratic(4.0)  # log_prob is that of N(0, 1/4)
_STARTS = 0.5 * torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
_PATH = simulate(_OU, _STARTS, T)


_TRAP = sg.UnderdampedLangevin(sg.Quadratic(1.0))
_MOVED = simulate(_TRAP, _TRAP.state(_STARTS, 0.0), solver=sg.BAOAB())


class _Stopping(sg.PositionBoundary):
    """What goes beyond an end stops at it, and goes on from there."""

    step_law = sg.BoundaryCondition.NO_FLUX

    def contain(self, x, low, high):
        return x.clamp(low, high)


def _with_velocities(x, v):
    assert sg.identities(_TRAP, sg.read_states(x, velocities=v, dt=0.1)).passed


def _theorem(**options):
    """What the fluctuation theorem says of these states."""
    found = sg.identities(_OU, _PATH, at_rest=False, **options)
    (check,) = [check for check in found.checks if "fluctuation" in check.name]
    return check


def _judged(**options):
    assert _theorem(**options).verdict == "passed"


def _of_steps():
    """Between absorbing ends, by the steps of those that are left."""
    ends = sg.Absorbing(-9.0, 9.0)
    assert sg.certify(_OU, path=_PATH.states, dt=0.1, boundary=ends).passed


FOLLOWED = {
    "a density without log_prob": (
        r"start must have log_prob\(x\) of states x, such as a GaussianMixture",
        lambda: _theorem(start=1.0),
        lambda: _judged(start=_COLD),
    ),
    "a theorem of no density": (
        r"no density is known; pass start=",
        lambda: _raised(_theorem()),
        lambda: _judged(start=_COLD),
    ),
    "averages of those that are left": (
        r"averages over those that are left obey no identity; judge their steps",
        lambda: sg.identities(_OU, _PATH, boundary=sg.Absorbing(-9.0, 9.0)),
        _of_steps,
    ),
    "averages beside a grid": (
        r"identities are of stored states that are judged without a grid; leave out grid",
        lambda: sg.certify(_OU, GRID, 0.5, T, identities=True),
        lambda: sg.certify(_OU, path=_PATH, identities=True),
    ),
    "averages at an end of one's own": (
        r"averages obey identities between walls that reflect, and with a period",
        lambda: sg.identities(_OU, _PATH, boundary=_Stopping(-9.0, 9.0)),
        _of_steps,
    ),
    "averages of positions alone": (
        r"averages of \{\} are of positions and velocities, but path has positions alone",
        lambda: sg.identities(_TRAP, _MOVED.states[:, :, 0], dt=0.1),
        lambda: _with_velocities(_MOVED.states[:, :, 0], _MOVED.states[:, :, 1]),
    ),
}


def _raised(check):
    """Say as an error what a check says of itself."""
    if check.remark:
        raise ValueError(check.remark)


# rows whose messages are put together from parts
UNSEEN = ("averages of those that are left", "averages at an end of one's own")
