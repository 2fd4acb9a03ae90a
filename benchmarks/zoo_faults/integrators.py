"""Faults of integrators: sizes of noise and drift, and what is asked of them where."""

import math

import numpy as np
import torch

import sdegen as sg
from benchmarks.zoo_faults.base import planted
from benchmarks.zoo_faults.problems import Overdamped, posterior, pull, spread, well


@planted(
    "noise: variance halved",
    "Box–Muller without the 2 under its root, so that normals have variance ½.",
    project="ivanseidel/Gaussian",
    issue=6,
    checked=True,
)
def box_muller(run):
    def draw(k, shape):
        radius = np.sqrt(-np.log(1 - run.rng.random(shape)))
        return radius * np.cos(2 * np.pi * run.rng.random(shape))

    return well().euler(run, draw=draw)


@planted(
    "noise: variance doubled",
    "The random displacement had √(2Tγ) where √(2T/γ) belongs, here at γ = √2.",
    project="lammps/lammps",
    issue=2970,
    checked=True,
)
def friction_in_the_numerator(run):
    friction, temperature = math.sqrt(2), 0.5
    g = math.sqrt(2 * temperature / friction)
    sde = sg.ItoProcess(lambda x: -(x**3) / friction, g)
    problem = Overdamped(
        sde,
        lambda x, t: -(x**3) / friction,
        lambda x, t: g,
        0.05,
        spread(std=0.7),
        100,
        at_rest=True,
    )
    wrong = math.sqrt(2 * temperature * friction * problem.dt)
    return problem.euler(run, noise=lambda x, t: wrong)


@planted(
    "noise: amplitude doubled",
    "Of several noises each was multiplied by the sum of all amplitudes; here two equal ones.",
    project="brian-team/brian2",
    issue=330,
    checked=True,
)
def two_sources(run):
    s = 0.5  # of both together, each has s/√2

    def g(x, t):
        return s * np.sqrt(1 + x**2)

    sde = sg.ItoProcess(lambda x: -x, lambda x: s * (1 + x**2).sqrt())
    problem = Overdamped(sde, lambda x, t: -x, g, 0.05, spread(std=0.4), 80)
    # (g₁ + g₂)(w₁ + w₂), g₁ = g₂ = g/√2, is 2 g w
    return problem.milstein(run, lambda x: s**2 * x, times=2.0)


@planted(
    "noise: dt for √dt",
    "Stochastic gradient Langevin steps had noise of standard deviation ε, not √ε.",
    project="blei-lab/edward",
    issue=722,
    checked=True,
)
def learning_rate_as_scale(run):
    problem = posterior(run.dim)
    return problem.euler(run, noise=lambda x, t: problem.dt)


@planted(
    "noise: dt for √dt",
    "Langevin steps multiplied gradient and noise by one step size together.",
    project="google-research/ibc",
    issue=6,
    checked=True,
)
def one_step_size(run):
    problem = well(0.1)
    return problem.euler(run, noise=lambda x, t: problem.dt * 0.7)


@planted(
    "noise: √dt left out",
    "The noise of a Cox–Ingersoll–Ross rate was not scaled by √dt.",
    project="jamesmawm/Mastering-Python-for-Finance-source-codes",
    issue=7,
    checked=True,
    dims=(1, 2, 3, 10),
)
def unscaled_rates(run):
    def g(x, t):
        return 0.08 * np.sqrt(np.maximum(x, 0))

    sde = sg.ItoProcess(lambda x: 1 - x, lambda x: 0.08 * x.clamp(min=0).sqrt())
    problem = Overdamped(sde, lambda x, t: 1 - x, g, 0.05, spread(1.0, 0.05), 80)
    return problem.euler(run, noise=g)


@planted(
    "step: dt left out",
    "An Ornstein–Uhlenbeck noise for exploration took steps without dt, whatever it was.",
    project="rll/rllab",
    issue=194,
    checked=True,
)
def exploration(run):
    return pull(dt=0.2, rate=0.15, mean=0.0, sigma=0.3).euler(run, dt=1.0)


@planted(
    "noise: variance for standard deviation",
    "Noise added to gradients was scaled by the variance that was asked for, not by its root.",
    project="google-deepmind/optax",
    issue=281,
    checked=True,
)
def variance_as_scale(run):
    problem = pull(dt=0.05, sigma=0.8)
    variance = 0.8**2 * problem.dt
    return problem.euler(run, noise=lambda x, t: variance)


@planted(
    "noise: variance for standard deviation",
    "An Ornstein–Uhlenbeck price was drawn with the variance of its step as standard deviation.",
    project="jpmorganchase/abides-jpmc-public",
    issue=10,
    checked=True,
    dims=(1, 2, 3),
)
def fundamental_value(run):
    problem = pull(dt=0.1, rate=0.5, mean=1.0, sigma=0.6)
    variance = 0.6**2 * problem.dt
    return problem.euler(run, noise=lambda x, t: variance)


@planted(
    "drift missing",
    "Brownian motion that was asked for at given times came without its drift.",
    project="crflynn/stochastic",
    issue=15,
    checked=True,
)
def at_given_times(run):
    sde = sg.ItoProcess(lambda x: 0 * x + 0.6, 1.0)
    problem = Overdamped(sde, lambda x, t: 0.6 + 0 * x, lambda x, t: 1.0, 0.05, spread())
    return problem.euler(run, drift=lambda x, t: 0 * x)


@planted(
    "drift: constant part missing",
    "The update of an Ornstein–Uhlenbeck process returned to 0, whatever mean was passed.",
    project="cbherbert/stochrare",
    issue=26,
    checked=True,
)
def mean_ignored(run):
    return pull(mean=0.5).euler(run, drift=lambda x, t: -x)


@planted(
    "state forgotten",
    "Equations of noise alone were stepped as x = noise, not x = x + noise.",
    project="brian-team/brian2",
    issue=686,
    checked=True,
)
def noise_alone(run):
    root = 0.8 * math.sqrt(0.05)
    problem = Overdamped(
        sg.BrownianMotion(0.8), lambda x, t: 0 * x, lambda x, t: 0.8, 0.05, spread()
    )
    return problem.euler(run, after=lambda k, x, ahead: root * run.rng.standard_normal(x.shape))


@planted(
    "drift: that of the noise missing",
    "A random walk in a diffusivity K(x) had no drift K′(x), and gathered where K is small.",
    project="Parcels-code/Parcels",
    issue=68,
    checked=True,
)
def varying_diffusivity(run):
    sde = sg.ItoProcess(
        lambda x: -x,
        lambda x: (2 * (1 + 0.8 * x.sin())).sqrt(),
        interpretation="klimontovich",
    )
    problem = Overdamped(
        sde,
        lambda x, t: -x + 0.8 * np.cos(x),
        lambda x, t: np.sqrt(2 * (1 + 0.8 * np.sin(x))),
        0.05,
        spread(),
        80,
    )
    return problem.euler(run, drift=lambda x, t: -x)


@planted(
    "schedule: held at its start",
    "A Langevin thermostat kept the first temperature of a ramp for the whole run.",
    project="brucefan1983/GPUMD",
    issue=408,
    checked=True,
)
def temperature_ramp(run):
    def g(x, t):
        return math.sqrt(2 * (1 - 0.08 * t))

    sde = sg.ItoProcess(lambda x: -x, lambda t: (2 * (1 - 0.08 * t)).sqrt())
    problem = Overdamped(sde, lambda x, t: -x, g, 0.05, spread())
    root = math.sqrt(problem.dt)
    return problem.euler(run, noise=lambda x, t: root * g(x, 0.0))


@planted(
    "noise where there is none",
    "Brownian steps moved particles out of the plane that they were bound to.",
    project="anyuzx/Lammps_brownian",
    issue=1,
    checked=True,
    dims=(2, 3, 10, 100),
)
def out_of_the_plane(run):
    amplitudes = np.full(run.dim, 0.6)
    amplitudes[-1] = 0.0
    given = torch.from_numpy(amplitudes)
    sde = sg.ItoProcess(lambda x: -x, lambda x, t: given.to(x), noise="additive")
    problem = Overdamped(sde, lambda x, t: -x, lambda x, t: amplitudes, 0.05, spread(std=0.4))
    wrong = 0.6 * math.sqrt(problem.dt)
    return problem.euler(run, noise=lambda x, t: wrong)
