"""Faults of random numbers: their law, and who shares them, also over restarts and ranks."""

import math

import numpy as np

from benchmarks.zoo_faults.base import STEPS, planted
from benchmarks.zoo_faults.problems import posterior, pull, well


@planted(
    "noise uniform on [0, 1)",
    "An Ornstein–Uhlenbeck noise drew from random(), uniform on [0, 1), which is not centred.",
    project="udacity/deep-reinforcement-learning",
    issue=20,
    checked=True,
)
def random_for_normal(run):
    return pull(mean=0.0).euler(run, draw=lambda k, shape: run.rng.random(shape))


@planted(
    "noise uniform",
    "Steps of diffusion had uniform increments, of the right mean and variance.",
    project="Parcels-code/Parcels",
    issue=967,
    checked=True,
)
def bounded_increments(run):
    half = math.sqrt(3)
    return well(0.1).heun(run, draw=lambda k, shape: run.rng.uniform(-half, half, shape))


@planted(
    "noise uniform",
    "A fluid on the GPU was kept at its temperature by uniform random numbers.",
    project="espressomd/espresso",
    issue=2357,
    checked=True,
)
def uniform_on_the_gpu(run):
    half = math.sqrt(3)
    return pull().euler(run, draw=lambda k, shape: run.rng.uniform(-half, half, shape))


@planted(
    "noise a product of normals",
    "The diffusion coefficient drew a normal itself, and the step multiplied it by another.",
    project="eje24/iap-diffusion-labs",
    issue=17,
    checked=True,
)
def coefficient_draws(run):
    def draw(k, shape):
        return run.rng.standard_normal(shape) * run.rng.standard_normal(shape)

    return well().euler(run, draw=draw)


@planted(
    "noise shared between coordinates",
    "Translation and rotation of a particle were given one and the same random numbers.",
    project="espressomd/espresso",
    issue=3343,
    checked=True,
    dims=(2, 3, 10, 100),
)
def translation_and_rotation(run):
    half = run.dim // 2

    def draw(k, shape):
        z = run.rng.standard_normal(shape)
        z[:, half : 2 * half] = z[:, :half]
        return z

    return posterior(run.dim).euler(run, draw=draw)


@planted(
    "noise shared between trajectories",
    "A Langevin thermostat had fixed random numbers, the same in every run.",
    project="brucefan1983/GPUMD",
    issue=191,
    checked=True,
)
def fixed_numbers(run):
    runs = 4

    def draw(k, shape):
        one = run.rng.standard_normal((-(-shape[0] // runs), *shape[1:]))
        return np.concatenate([one] * runs)[: shape[0]]

    return well().euler(run, draw=draw)


@planted(
    "noise shared between trajectories",
    "A simulator that was called in a fast loop began from the same random state each time.",
    project="lnccbrown/ssm-simulators",
    issue=63,
    checked=True,
)
def fast_loop(run):
    def draw(k, shape):
        one = run.rng.standard_normal(shape)
        one[1::2] = one[: len(one[1::2]) * 2 : 2]  # two calls within the clock's resolution
        return one

    return pull().euler(run, draw=draw)


@planted(
    "noise shared between trajectories, shifted in time",
    "A thermostat's seed was the lag at which its one sequence of random numbers begins.",
    project="espressomd/espresso",
    issue=4848,
    checked=True,
)
def seed_is_a_lag(run):
    sequence = {}

    def draw(k, shape):
        if not sequence:
            sequence["z"] = run.rng.standard_normal((STEPS + shape[0], *shape[1:]))
        return sequence["z"][k : k + shape[0]]

    return well().euler(run, draw=draw)


@planted(
    "noise reused in every step",
    "A generator was made anew from its seed in each call, so that all steps had one noise.",
    project="reservoirpy/reservoirpy",
    issue=97,
    checked=True,
)
def generator_in_the_call(run):
    seed = int(run.rng.integers(2**32))

    def draw(k, shape):
        return np.random.default_rng(seed).standard_normal(shape)

    return pull().euler(run, draw=draw)


@planted(
    "noise replayed after a restart",
    "Checkpoints did not hold the state of the random numbers: a restart drew them again.",
    project="ComputationalRadiationPhysics/picongpu",
    issue=2664,
    checked=True,
)
def checkpoint_without_generator(run):
    seed, length = int(run.rng.integers(2**32)), STEPS // 4
    generator = {}

    def draw(k, shape):
        if k % length == 0:
            generator["at"] = np.random.default_rng(seed)
        return generator["at"].standard_normal(shape)

    return well().euler(run, draw=draw)


@planted(
    "noise missing in a coordinate",
    "A far-field Brownian velocity was multiplied out for 6 of its 11 components alone.",
    project="GeZhouyang/FSD",
    issue=5,
    checked=True,
    dims=(2, 3, 10, 100),
)
def six_of_eleven(run):
    kept = max(1, 6 * run.dim // 11)

    def draw(k, shape):
        z = run.rng.standard_normal(shape)
        z[:, kept:] = 0
        return z

    return well().euler(run, draw=draw)
