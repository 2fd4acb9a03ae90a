"""What is believed: SDEs of sdegen, and the same drift and noise written with NumPy.

An `Overdamped` problem is walked by Euler–Maruyama, Heun or Milstein, a `Trap` in phase space by
BAOAB or Euler–Maruyama. What is passed besides a run replaces a part of the step in a faulty run,
and nothing in its clean twin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import sdegen as sg
from benchmarks.zoo_faults.base import STEPS, Planted, grid, walk


@dataclass(frozen=True)
class Overdamped:
    """dX = f dt + g dW with diagonal noise.

    Attributes:
        sde: As sdegen has it.
        drift: f(x, t).
        g: g(x, t).
        dt: The step.
        start: start(rng, shape) draws the first states.
        gap: As `Planted` has it.
        at_rest: Whether e^{∫ 2f/g²} is the law at rest.
    """

    sde: Any
    drift: Callable[..., np.ndarray]
    g: Callable[..., Any]
    dt: float
    start: Callable[..., np.ndarray]
    gap: int | None = None
    at_rest: bool = False

    def euler(self, run, **changes):
        """Plant a run of Euler–Maruyama; `changes` are those of `_step`."""
        return self._planted(run, sg.EulerMaruyama(), self._step(run, **changes))

    def _step(self, run, *, drift=None, noise=None, draw=None, after=None, dt=None):
        """Return step(k, x) of Euler–Maruyama.

        Args:
            run: What is asked for.
            drift: f(x, t) of a faulty run.
            noise: What z is multiplied by in a faulty run, of (x, t).
            draw: draw(k, shape) of a faulty run, in place of normals.
            after: after(k, x, x′) of a faulty run, in place of x′.
            dt: The step of a faulty run, in drift and noise.
        """
        h = self.dt if dt is None or not run.faulty else dt
        f = drift if drift and run.faulty else self.drift
        amplitude = noise if noise and run.faulty else lambda x, t: math.sqrt(h) * self.g(x, t)

        def step(k, x):
            t = k * self.dt
            z = draw(k, x.shape) if draw and run.faulty else run.normal(x.shape)
            ahead = x + h * f(x, t) + amplitude(x, t) * z
            return after(k, x, ahead) if after and run.faulty else ahead

        return step

    def heun(self, run, *, draw=None):
        """Plant a run of Heun's method, for noise that depends on nothing."""
        root = math.sqrt(self.dt)

        def step(k, x):
            t, s = k * self.dt, (k + 1) * self.dt
            z = draw(k, x.shape) if draw and run.faulty else run.normal(x.shape)
            kick, f = root * self.g(x, t) * z, self.drift(x, t)
            ahead = x + self.dt * f + kick
            return x + 0.5 * self.dt * (f + self.drift(ahead, s)) + kick

        return self._planted(run, sg.Heun(), step)

    def milstein(self, run, g_slope, *, times=1.0):
        """Plant a run of Milstein's method; g g′ is g_slope(x), and g `times` as large."""
        factor = times if run.faulty else 1.0

        def step(k, x):
            w = math.sqrt(self.dt) * run.normal(x.shape)
            ahead = x + self.dt * self.drift(x, k * self.dt) + factor * self.g(x, 0.0) * w
            return ahead + 0.5 * factor**2 * g_slope(x) * (w**2 - self.dt)

        return self._planted(run, sg.Milstein(), step)

    def _planted(self, run, solver, step, steps=STEPS):
        """Walk, and say what is believed."""
        x = self.start(run.rng, (run.batch(steps), run.dim))
        states = walk(x, steps, step)
        score = None
        if self.at_rest:

            def score(x):
                return 2 * self.drift(x, 0.0) / self.g(x, 0.0) ** 2

        times = grid(steps, self.dt)
        return Planted(self.sde, solver, times, states, gap=self.gap, score=score)


def spread(mean=0.0, std=1.0):
    """Return a start from N(mean, std²)."""
    return lambda rng, shape: mean + std * rng.standard_normal(shape)


def well(dt=0.05):
    """A double well in each coordinate, which are drawn to their mean."""
    sde = sg.ItoProcess(lambda x: x - x**3 + 0.3 * (x.mean(1, keepdim=True) - x), 0.7)

    def drift(x, t):
        return x - x**3 + 0.3 * (x.mean(1, keepdims=True) - x)

    return Overdamped(sde, drift, lambda x, t: 0.7, dt, spread(std=0.8), 100, at_rest=True)


def pull(dt=0.05, rate=1.0, mean=0.5, sigma=0.8):
    """An Ornstein–Uhlenbeck process in each coordinate."""
    sde = sg.OrnsteinUhlenbeck(rate, mean, sigma)
    law = spread(mean, sigma / math.sqrt(2 * rate))
    gap = round(4 / (rate * dt))
    return Overdamped(
        sde, lambda x, t: -rate * (x - mean), lambda x, t: sigma, dt, law, gap, at_rest=True
    )


def posterior(dim, dt=0.05):
    """Langevin dynamics ½ ∇log p dt + dW of a Gaussian whose neighbours are correlated."""
    A = np.eye(dim) + 0.3 * (np.eye(dim, k=1) + np.eye(dim, k=-1))
    precision = torch.from_numpy(A)
    sde = sg.ItoProcess(lambda x: -0.5 * (x @ precision.to(x)), 1.0)
    return Overdamped(sde, lambda x, t: -0.5 * x @ A, lambda x, t: 1.0, dt, spread(), 100, True)


class Quartic(sg.Potential):
    """U = Σ x²/2 + x⁴/4."""

    def energy(self, x):
        """U(x), shape (batch,)."""
        return (x**2 / 2 + x**4 / 4).flatten(1).sum(1)

    def force(self, x):
        """−x − x³."""
        return -x - x**3


@dataclass(frozen=True)
class Trap:
    """Particles with a mass in a quartic trap, with friction and noise.

    Attributes:
        friction: γ.
        temperature: T.
        mass: m, a number or one for each coordinate.
        dt: The step.
    """

    friction: float = 1.0
    temperature: float = 0.5
    mass: Any = 2.0
    dt: float = 0.1

    @staticmethod
    def force(x):
        """−x − x³."""
        return -x - x**3

    def baoab(self, run, *, friction=None, spread=None, inverse_mass=None, stale=False):
        """Plant a run of BAOAB, of which a faulty run has another part.

        Args:
            run: What is asked for.
            friction: Another γ.
            spread: What z is multiplied by in a step.
            inverse_mass: What the force is multiplied by.
            stale: Whether the first kick has the force of the step before.
        """
        faulty, h = run.faulty, self.dt
        rate = friction if friction is not None and faulty else self.friction
        kick = (inverse_mass if inverse_mass is not None and faulty else 1 / self.mass) * h / 2
        c = math.exp(-rate * h)
        width = np.sqrt((1 - c * c) * self.temperature / self.mass)
        width = spread if spread is not None and faulty else width
        last = {}

        def step(k, state):
            x, v = state[:, 0], state[:, 1]
            force = self.force(x)
            first = last.get("force", force) if stale and faulty else force
            last["force"] = force
            v = v + kick * first
            x = x + 0.5 * h * v
            v = c * v + width * run.normal(v.shape)
            x = x + 0.5 * h * v
            return np.stack([x, v + kick * self.force(x)], 1)

        return self._planted(run, sg.BAOAB(), step)

    def euler(self, run, *, noise=1.0):
        """Plant a run of Euler–Maruyama, whose noise is `noise` times as large."""
        h, factor = self.dt, noise if run.faulty else 1.0
        width = factor * math.sqrt(2 * self.friction * self.temperature / self.mass * h)

        def step(k, state):
            x, v = state[:, 0], state[:, 1]
            z = run.normal(state.shape)[:, 1]  # the noise of positions is 0
            pull = self.force(x) / self.mass - self.friction * v
            return np.stack([x + h * v, v + h * pull + width * z], 1)

        return self._planted(run, sg.EulerMaruyama(), step)

    def _planted(self, run, solver, step, steps=STEPS):
        """Walk, and say what is believed."""
        mass = torch.as_tensor(self.mass) if np.ndim(self.mass) else self.mass
        sde = sg.UnderdampedLangevin(
            Quartic(), friction=self.friction, temperature=self.temperature, mass=mass
        )
        shape = (run.batch(steps, 2 * run.dim), run.dim)
        x = 0.5 * run.rng.standard_normal(shape)
        v = np.sqrt(self.temperature / self.mass) * run.rng.standard_normal(shape)
        states = walk(np.stack([x, v], 1), steps, step)

        def score(state):
            x, v = np.split(state, 2, 1)
            return np.concatenate([self.force(x), -self.mass * v], 1) / self.temperature

        return Planted(sde, solver, grid(steps, self.dt), states, gap=100, score=score)
