"""Faults of precision: steps that are lost beside the state, or before."""

from dataclasses import replace

import numpy as np

from benchmarks.zoo_faults.base import planted
from benchmarks.zoo_faults.problems import pull, well


@planted(
    "step: nothing moves",
    "A small dt was cast so that the displacements of Brownian particles were 0 throughout.",
    project="jax-md/jax-md",
    issue=218,
    checked=True,
)
def dt_was_cast(run):
    return pull(dt=1e-8).euler(run, dt=0.0)


@planted(
    "state: rounded",
    "Intermediate states of a sampler were kept in half precision.",
    project="Comfy-Org/ComfyUI",
    issue=13099,
    checked=False,
)
def half_precision_states(run):
    def after(k, x, ahead):
        return ahead.astype(np.float16).astype(np.float64)

    # in so short a run nothing comes to rest
    return replace(well(1e-6), gap=None, at_rest=False).euler(run, after=after)
