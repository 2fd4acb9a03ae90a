"""Eight strange faults, which nobody would list: is it said that they are unknown?"""

import math

import numpy as np

from benchmarks.zoo_faults.base import planted
from benchmarks.zoo_faults.problems import posterior, pull, well


def outside(sentence, **options):
    """Declare a fault that belongs to no class."""
    return planted("outside", sentence, **options)


@outside("Each noise keeps the sign of the one before it in 3 of 5 cases, not in half of them.")
def persistent_sign(run):
    last = {}

    def draw(k, shape):
        z = run.rng.standard_normal(shape)
        if last:
            keep = run.rng.random(shape) < 0.6
            z = np.abs(z) * last["sign"] * np.where(keep, 1.0, -1.0)
        last["sign"] = np.sign(z)
        return z

    return well().euler(run, draw=draw)


@outside(
    "At every seventh step the drift is that of a state whose coordinates are shuffled.",
    dims=(2, 3, 10, 100),
)
def shuffled_coordinates(run):
    calls = {"k": 0}
    problem = posterior(run.dim, 0.2)

    def drift(x, t):
        calls["k"] += 1
        f = problem.drift(x, t)
        return f if calls["k"] % 7 else f[:, run.rng.permutation(run.dim)]

    return problem.euler(run, drift=drift)


@outside("A force pulls at a leaky memory of where the trajectory was in the last second.")
def leaky_memory(run):
    memory = {}
    problem = pull()

    def drift(x, t):
        kept = memory.get("x", np.zeros_like(x))
        memory["x"] = kept + problem.dt * (x - kept)
        return problem.drift(x, t) - 0.8 * (kept - 0.5)

    return problem.euler(run, drift=drift)


@outside("Two noises of a hundred are four times as large, and the others smaller in return.")
def heavy_admixture(run):
    small = math.sqrt(1 / (0.98 + 0.02 * 16))

    def draw(k, shape):
        large = np.where(run.rng.random(shape) < 0.02, 4.0, 1.0)
        return small * large * run.rng.standard_normal(shape)

    return well().euler(run, draw=draw)


@outside("The temperature goes up and down by a fifth, as slowly as a clock's hand.")
def clock(run):
    def draw(k, shape):
        heat = 1 + 0.2 * math.sin(2 * math.pi * k / 120)
        return math.sqrt(heat) * run.rng.standard_normal(shape)

    return well().euler(run, draw=draw)


@outside("Every fifth trajectory is hotter by a quarter.")
def hot_trajectories(run):
    def draw(k, shape):
        z = run.rng.standard_normal(shape)
        z[::5] *= math.sqrt(1.25)
        return z

    return pull().euler(run, draw=draw)


@outside("Large noises are followed by large ones, small by small, with variance 1 throughout.")
def clustered_noise(run):
    level = {}

    def draw(k, shape):
        heat = level.get("h", np.ones(shape))
        z = np.sqrt(heat) * run.rng.standard_normal(shape)
        level["h"] = 0.5 + 0.3 * heat + 0.2 * z**2
        return z

    return pull().euler(run, draw=draw)


@outside("Every fiftieth step kicks each trajectory away from the origin by half a unit.")
def kicks(run):
    def after(k, x, ahead):
        return ahead + 0.5 * np.sign(x) if k % 50 == 49 else ahead

    return pull(mean=0.0).euler(run, after=after)
