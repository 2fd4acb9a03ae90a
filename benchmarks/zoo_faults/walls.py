"""Faults of walls and periodic boxes."""

import math

import numpy as np
import torch

import sdegen as sg
from benchmarks.zoo_faults.base import STEPS, Planted, grid, planted, walk

DT = 0.05


def sediment(run, walls, contain):
    """Plant a run that falls on walls: f = −1, g = 1, in each coordinate of `walls`.

    Args:
        run: What is asked for.
        walls: The coordinates that have one, a slice.
        contain: contain(k, x, x′) of a faulty run, in place of reflection.
    """
    down = np.zeros(run.dim)
    down[walls] = -1.0
    push = torch.from_numpy(down)
    sde = sg.ItoProcess(lambda x: push.to(x) + 0 * x, 1.0)

    def step(k, x):
        ahead = x + DT * down + math.sqrt(DT) * run.normal(x.shape)
        if run.faulty:
            return contain(k, x, ahead)
        ahead[:, walls] = np.abs(ahead[:, walls])
        return ahead

    shape = (run.batch(STEPS), run.dim)
    x = run.rng.standard_normal(shape)
    x[:, walls] = run.rng.exponential(0.5, x[:, walls].shape)
    if walls == slice(None):
        boundary = sg.Reflecting(0.0, coordinates="all" if run.dim > 1 else None)
    else:
        boundary = {run.dim - 1: sg.Reflecting(0.0)}
    return Planted(sde, sg.EulerMaruyama(), grid(STEPS, DT), walk(x, STEPS, step), boundary, 100)


@planted(
    "wall: clipped for reflected",
    "Rates were floored at 0 in each step, where another scheme at the boundary was promised.",
    project="JuliaActuary/FinanceModels.jl",
    issue=277,
    checked=True,
)
def floored(run):
    return sediment(run, slice(None), lambda k, x, ahead: np.maximum(ahead, 0))


@planted(
    "wall: absorbed for reflected",
    "Particles that met the sea floor were reflected and froze there, slightly above it.",
    project="OpenDrift/opendrift",
    issue=800,
    checked=True,
)
def frozen_above_the_floor(run):
    frozen = {}

    def contain(k, x, ahead):
        stays = frozen.setdefault("rows", np.zeros(len(x), dtype=bool))
        hit = ahead[:, -1] < 0
        ahead[:, -1] = np.abs(ahead[:, -1])
        ahead = np.where(stays[:, None], x, ahead)
        stays |= hit
        return ahead

    return sediment(run, slice(run.dim - 1, None), contain)


def discs(run, image):
    """Plant soft discs in a periodic box, in two dimensions if there are five or more.

    Args:
        run: What is asked for.
        image: image(turns) of a faulty run is what distances are moved by, in boxes; `turns` are
            the nearest ones, shape (batch, particles, particles, space).
    """
    space = 2 if run.dim >= 10 else 1
    particles = run.dim // space
    length = max(2.2, 0.8 * particles if space == 1 else math.sqrt(1.6 * particles))
    stiffness, temperature, dt = 8.0, 0.2, 0.02
    pairs = sg.PairForces(sg.HarmonicRepulsion(stiffness, 1.0), box=length)
    sde = sg.Langevin(pairs, temperature)

    def force(x):
        apart = x[:, :, None] - x[:, None]
        turns = np.round(apart / length)
        apart = apart - length * (image(turns) if run.faulty else turns)
        r = np.sqrt((apart**2).sum(-1, keepdims=True))
        r[:, np.arange(particles), np.arange(particles)] = 1.0
        return (stiffness * np.maximum(1 - r, 0) / r * apart).sum(2)

    def step(k, x):
        z = run.normal(x.shape)
        ahead = x + dt * force(x) + math.sqrt(2 * temperature * dt) * z
        return ahead - length * np.floor(ahead / length)

    x = length * run.rng.random((run.batch(STEPS), particles, space))
    boundary = sg.Periodic(0.0, length, coordinates="all")
    return Planted(sde, sg.EulerMaruyama(), grid(STEPS, dt), walk(x, STEPS, step), boundary)


@planted(
    "periodic box: minimum image missing",
    "Energies and forces differed between wrapped and unwrapped positions of the same system.",
    project="TorchSim/torch-sim",
    issue=423,
    checked=True,
    dims=(2, 3, 10, 100),
)
def wrapped_and_unwrapped(run):
    return discs(run, np.zeros_like)


@planted(
    "periodic box: image of another coordinate",
    "The box images of y and z, for distances of pairs, were those of x.",
    project="MaginnGroup/Cassandra",
    issue=95,
    checked=True,
    dims=(10, 100),
)
def image_of_x(run):
    return discs(run, lambda turns: np.broadcast_to(turns[..., :1], turns.shape))
