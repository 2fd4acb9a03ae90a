"""Advice on what certificates of stored states tell, at the command line and of diffusers."""

from types import SimpleNamespace

import numpy as np
import torch

import sdegen as sg
from sdegen import plots
from tests.cures.common import F64, OU
from tests.cures.places import command

_TIMES = torch.linspace(0.0, 2.0, 101, dtype=F64)
_MIXED = sg.LinearSDE(-torch.eye(2, dtype=F64), torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=F64))
_STILL = sg.ItoProcess(lambda x: 1 - x, 0.0)
_TABLE = SimpleNamespace(alphas_cumprod=torch.linspace(0.99, 0.1, 9, dtype=F64))
_LATENTS = [torch.full((3, 2), float(k), dtype=F64) for k in range(4)]


def _judged(sde, d=1):
    path = sg.simulate(
        sde, torch.zeros(20, d, dtype=F64), _TIMES, solver=sg.EulerMaruyama(), rng=0
    )
    return sg.certify(sde, path=path, false_alarm=1e-6)


def _on_grid():
    grid = sg.Grid(-5.0, 5.0, 60)
    return sg.certify(OU, grid, 0.0, [0.0, 0.5], trajectories=200, solver=sg.Heun(20), rng=0)


def _passed(name):
    checks = {check.name: check for check in _judged(_MIXED, 2).checks}
    assert checks[name].verdict == "passed"


def _read(latents=_LATENTS, timesteps=(8, 7, 6, 5), scheduler=_TABLE, **options):
    return sg.diffusers_states(latents, timesteps, scheduler, **options)


def _times(states, *times):
    torch.testing.assert_close(states.times, torch.tensor(times, dtype=F64))


def _skipped(**options):
    return _read(timesteps=(8, 6, 4, 2), **options)


def _walked():
    rng = np.random.default_rng(0)
    x = np.zeros((301, 10, 2))
    for k in range(300):
        z = rng.standard_normal(x[0].shape)
        x[k + 1] = x[k] - 0.01 * x[k] + np.sqrt(0.02) * z
    return x


def _verify(flags, sde=" --sde mine.py:ou", dt=" --dt 0.01"):
    """States of mine.py:ou, judged by the command line."""

    def runs():
        line = f"verify traj.npy{sde}{dt} {flags}"
        assert command(lambda: np.save("traj.npy", _walked()), line)["p_value"] > 1e-3

    return runs


FOLLOWED = {
    "an innovation on a grid": (
        "there are no innovations in a certificate on a grid; draw it by plots.certificate",
        lambda: plots.innovations(_on_grid()),
        lambda: plots.certificate(_on_grid()),
    ),
    "an innovation of steps without noise": (
        "there is no noise in these steps to draw; print the certificate",
        lambda: plots.innovations(_judged(_STILL)),
        lambda: str(_judged(_STILL)),
    ),
    "the drift error of noise that mixes coordinates": (
        "the noise mixes coordinates, or positions with velocities",
        lambda: _judged(_MIXED, 2).steps.drift_error(),
        lambda: _passed("drift as a function of the state"),
    ),
    "no latents": (
        "latents are empty; pass the state after each step",
        lambda: _read([]),
        lambda: _times(_read(), 8 / 9, 7 / 9, 6 / 9),
    ),
    "latents of another number": (
        r"latents are \{\}, but there are \{\} timesteps",
        lambda: _read(timesteps=(8, 7)),
        lambda: _times(_read(timesteps=(8, 7, 6)), 1.0, 8 / 9, 7 / 9),
    ),
    "latents of two shapes": (
        r"latents must have one shape, but have \{\} and \{\}; pass those of one run",
        lambda: _read([*_LATENTS[:3], torch.zeros(3, 3)]),
        _read,
    ),
    "timesteps that increase": (
        "timesteps must decrease within 0 … ",
        lambda: _read(timesteps=(5, 6, 7, 8)),
        lambda: _read(timesteps=(8, 7, 6, 5)),
    ),
    "a chain that skips levels": (
        r"a chain takes every level, but timesteps are \{\}; pass chain=False",
        lambda: _skipped(chain=True),
        lambda: _times(_skipped(chain=False), 7 / 9, 5 / 9, 3 / 9),
    ),
    "a scheduler without a table": (
        "scheduler must be one of diffusers with a table of ᾱ",
        lambda: _read(scheduler=SimpleNamespace()),
        lambda: sg.read_states(torch.stack(_LATENTS), times=[0.4, 0.3, 0.2, 0.1]),
    ),
    "a scheduler in other units": (
        "keeps states in units in which noise begins at",
        lambda: _read(scheduler=SimpleNamespace(**vars(_TABLE), init_noise_sigma=14.6)),
        lambda: sg.read_states(torch.stack(_LATENTS) / 14.6, times=[0.4, 0.3, 0.2, 0.1]),
    ),
    "sdegen verify of states without an SDE": (
        "the SDE that states should follow is missing; pass --sde",
        _verify("", sde=""),
        _verify(""),
    ),
    "sdegen verify with substeps of no solver": (
        "substeps are steps of a solver; pass --solver",
        _verify("--substeps 2"),
        _verify("--substeps 1 --solver euler-maruyama"),
    ),
    "sdegen verify with substeps of exact transitions": (
        "has no substeps; leave --substeps out",
        _verify("--solver exact --substeps 2"),
        _verify("--solver exact"),
    ),
    "sdegen verify with one end": (
        "boundary, low and high go together; pass all three of them, or none",
        _verify("--low -50"),
        _verify("--low -50 --high 50 --boundary no-flux"),
    ),
    "sdegen verify with a coordinate of no boundary": (
        "coordinate is that of a boundary; pass --boundary, --low and --high",
        _verify("--coordinate 0"),
        _verify("--coordinate 0 --boundary no-flux --low -50 --high 50"),
    ),
    "sdegen verify without a step": (
        "pass --dt, the step of the solver, or --times, the name of their array",
        _verify("", dt=""),
        _verify(""),
    ),
}
