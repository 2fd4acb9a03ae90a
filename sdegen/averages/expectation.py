"""expectation: ⟨f(X_t)⟩ to a tolerance, by multilevel Monte Carlo.

An average over N trajectories of n steps has a standard error ∝ 1/√N and a bias ∝ 1/n, so that a
tolerance ε costs ε⁻³. Here most samples are of few steps, and differences between n and n/2 steps
on the same noise, whose variance falls with n, make up for what these lack:

    ⟨f(X_L)⟩ = ⟨f(X_s)⟩ + Σ_l ⟨f(X_l) − f(X_{l−1})⟩,        level l: 2^l steps

Where the variance of the differences falls faster than the cost of a step grows, V ∝ dt^β with
β > 1, the tolerance costs ε⁻²; the finest steps cost next to nothing.

A pilot looks at 2, 4, 8, … steps, from the coarsest on, and finds where it pays to begin: steps
so long that a drift explodes are left out, as soon as one trajectory is lost, or ends ten times
farther out than any that takes steps of half the length. (Under a drift that grows faster than x,
Euler's steps of any length explode at last, and averages of them diverge: Hutzenthaler, Jentzen
and Kloeden 2013, Ann. Appl. Probab. 23, 1913.) Then samples are added where they lower the error
most, and a finer level when the bias asks for it, until the interval is as narrow as was asked
(`allocation.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sdegen.averages.bar import EvaluationsBar
from sdegen.averages.estimate import Cut, Estimate
from sdegen.averages.result import Expectation
from sdegen.averages.sampling import Sampler
from sdegen.averages.validation import accuracy_of, validate
from sdegen.core.errors import Interrupted
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.noise import Rng
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.engine.pool import check_threads, torch_threads
from sdegen.engine.starts import Start


def expectation(
    sde: SDE,
    x0: Start | NDArray[np.floating],
    t: float | Sequence[float],
    f: Callable[[State], Tensor],
    *,
    tolerance: float,
    confidence: float = 0.95,
    solver: FixedStep | None = None,
    rng: Rng = None,
    threads: int | None = None,
    progress: bool = True,
) -> Expectation:
    """Return ⟨f(X_t)⟩ of dX = f dt + g dW, within a tolerance, at a cost of about tolerance⁻².

    Numbers of steps and of trajectories are found on the way. The interval mean ± half_width holds
    the average with the confidence that is asked for, the bias of finite steps included.

    Args:
        sde: What moves: noise-free, or with diagonal noise or channels.
        x0: Where all start, shape (1, *event); or a function x0(rows, rng=generator) that draws
            starts, shape (rows, *event), as `run_ensemble` takes it.
        t: Time of the average, of a start at 0; or the pair of both times.
        f: Of states (batch, *event), one number for each, shape (batch,). It may be a condition,
            such as lambda x: x[:, 0] > 0, whose average is a probability.
        tolerance: The most that half_width may be, in the units of f.
        confidence: Probability with which the interval holds the average.
        solver: What takes the steps, one that draws one increment for each. If None,
            EulerMaruyama() for additive noise and none, and Milstein's method else.
        rng: Seed, generator, or None for fresh entropy; the result records the seed.
        threads: How many blocks are computed at a time; None takes the cores that the process may
            use. They do not change a bit of the result.
        progress: Whether a progress bar is shown on a terminal.

    Returns:
        The average, its interval, and what each level added and cost.

    Warns:
        AccuracyWarning: If the variance of the differences falls more slowly than their cost
            grows: the interval still holds, but costs more than tolerance⁻². And if f is one
            number for all trajectories, of which fewer may do something else; or drift or noise
            change with time faster than 1024 steps see.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit; said before the first step, but for a tolerance
            below the rounding of x0's dtype.
        NonFiniteError: If trajectories explode however short the steps are, or f is not finite.
        SolverError: If the bias is not below the tolerance at 2²² steps; `.result` has the
            average as far as it is known.
        Interrupted: On Ctrl-C; `.result` likewise. A second one leaves at once.

    Reference:
        Giles 2008, Oper. Res. 56, 607, eqs. (1) to (12); Giles 2015, Acta Numerica 24, 259.

    Example:
        >>> import torch, math, sdegen as sg
        >>> growth = sg.ItoProcess(lambda x: x, lambda x: 0.2 * x)
        >>> x0 = torch.ones(1, 1, dtype=torch.float64)
        >>> average = sg.expectation(growth, x0, 1.0, lambda x: x[:, 0], tolerance=0.05, rng=0)
        >>> abs(average.mean - math.e) < average.half_width <= 0.05
        True
    """
    wanted = accuracy_of(tolerance, confidence)
    threads = check_threads(threads)
    problem = validate(sde, x0, t, f, solver=solver, rng=rng, progress=progress)
    if problem.example.is_cuda:
        threads = 1
    # each block on one core, so that no sum depends on how many there are
    with EvaluationsBar(progress) as bar, DeferredInterrupt() as interrupt, torch_threads(1):
        sampler = Sampler(problem, threads, interrupt, bar.done)
        estimate = Estimate(sampler, problem, wanted, bar.expect)
        # a KeyboardInterrupt is a second Ctrl-C, or somebody else's handler
        with suppress(Cut, KeyboardInterrupt):
            estimate.run()
            return estimate.result()
    done = f"interrupted: {sampler.evaluations:,} evaluations of the drift are done"
    raise Interrupted(
        f"{done}, {estimate.reached()}.", estimate.result() if estimate.begun else None
    )
