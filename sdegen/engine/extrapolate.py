"""Extrapolation: an average without the leading error of the steps, by Talay and Tubaro.

The error of an average by a method of weak order p has an expansion in the step. Two runs, at
steps h and h/2, tell its first term, which is then taken away:

    ⟨f⟩_h = ⟨f⟩ + C hᵖ + O(hᵖ⁺¹)

    ⟨f⟩ ≈ (2ᵖ ⟨f⟩_{h/2} − ⟨f⟩_h)/(2ᵖ − 1)

which for Euler–Maruyama is 2 ⟨f⟩_{h/2} − ⟨f⟩_h, of weak order 2 where drift, noise and f are
smooth. The expansion fails at a boundary, for an f with a jump, and where the steps are unstable.

**Variance.** Each trajectory walks one Brownian path twice: with z₁, z₂ for two steps of h/2, the
step of h takes (z₁ + z₂)/√2. With variances V of f at either step and their correlation ρ the
variance of what is averaged is V (1 + 4 (1 − ρ)) for p = 1, where two independent runs of as many
trajectories have 5 V: less wherever ρ > 0, and V itself for ρ → 1, which fine steps come near.
`Extrapolation.correlation` says what it was. The trajectories at h/2 are those of
`simulate(…)` at half the steps and the same seed.

Reference:
    Talay and Tubaro 1990, Stoch. Anal. Appl. 8, 483, theorem 1 and eq. (2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdegen.core.accuracy import Trust
from sdegen.core.checks import check_count
from sdegen.core.errors import Interrupted, NonFiniteError
from sdegen.core.fixed_steps import refine
from sdegen.core.interrupt import DeferredInterrupt
from sdegen.core.jumps import check_no_jumps
from sdegen.core.noise import Noise, Rng, Streams, seed_of
from sdegen.core.requests import check_function, check_state, kind_of
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, Values
from sdegen.core.shown import Labelled
from sdegen.core.solver import Solver, integrate
from sdegen.core.step_noise import FreshDraws, shared
from sdegen.engine.blocks import block_rows, check_blocks
from sdegen.engine.callables import survey, validate_callables
from sdegen.engine.plan import EnsembleSpec
from sdegen.engine.pool import check_threads, map_blocks, progress_bar
from sdegen.engine.starts import Start, example_states, pilot_starts
from sdegen.engine.validation import validate_request
from sdegen.observables.base import Block, PairwiseReduction, Partial
from sdegen.observables.moments import Moments

_AVERAGE = "; run an ensemble in its place: run_ensemble(…, observables=[Moments()])."
_MOMENTS = Moments(covariance=False, errors=False)


@dataclass(frozen=True, eq=False)
class Extrapolation(Labelled):
    """An average without the leading error of the steps.

        value = (2ᵖ fine − coarse)/(2ᵖ − 1)

    Attributes:
        value: (2ᵖ fine − coarse)/(2ᵖ − 1), of the shape of one value of f.
        standard_error: Of value, from the spread over the trajectories.
        coarse: Mean of f at the steps h of the run.
        fine: Mean of f at steps of h/2.
        removed: Estimated error of `fine` by the size of its steps, fine − value.
        removed_error: Standard error of `removed`.
        correlation: Of f at h and at h/2, over the trajectories.
        order: p, the weak order that the solver declares for this noise.
        trajectories: How many walked both.
        nfe: Evaluations of the drift that one trajectory took, at both steps.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> decay, x0 = sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0), torch.ones(1, 1)
        >>> run = sg.extrapolate(decay, x0, [0.0, 0.5, 1.0], lambda x: x[:, 0], trajectories=2)
        >>> run.value.item(), run.removed.item()  # 2 · ¾⁴ − ½², of e⁻¹ = 0.368; ¾⁴ − value
        (0.3828125, -0.06640625)
    """

    value: Tensor
    standard_error: Tensor
    coarse: Tensor
    fine: Tensor
    removed: Tensor
    removed_error: Tensor
    correlation: Tensor
    order: float
    trajectories: int
    nfe: int
    seed: int

    def trust(self) -> Trust:
        """Return what is known of its errors, a row for each cause."""
        gone = float(self.removed.abs().max())
        return Trust.of(
            "extrapolated average",
            step=f"order {self.order:g} removed, {gone:.1e} at h/2; the next is not estimated",
            grid="none",
            truncation="none",
            sampling=f"standard error {float(self.standard_error.max()):.1e} "
            f"({self.trajectories} trajectories)",
        )


def extrapolate(
    sde: SDE,
    x0: Start | NDArray[np.floating],
    times: Tensor | NDArray[np.floating] | Sequence[float],
    f: Values,
    *,
    trajectories: int,
    solver: Solver | None = None,
    threads: int | None = None,
    rng: Rng = None,
    interacting: bool | None = None,
    progress: bool = True,
) -> Extrapolation:
    """Return ⟨f(X_T)⟩ from runs at steps h and h/2, without the leading error of the steps.

        ⟨f⟩ ≈ (2ᵖ ⟨f⟩_{h/2} − ⟨f⟩_h)/(2ᵖ − 1)

    Args:
        sde: What moves.
        x0: States at times[0], as `run_ensemble` takes them.
        times: Times of the coarse run, of which only the last is looked at, shape (T,).
        f: A function of states (batch, *event) with one value of any shape for each, (batch, …).
        trajectories: How many walk both runs, ≥ 2.
        solver: How it moves, with one increment a step; EulerMaruyama() unless said, BAOAB() of
            positions and velocities.
        threads: CPU threads; the cores that the process may use, unless said.
        rng: Seed, generator, or None for fresh entropy.
        interacting: Whether trajectories depend on each other; None finds out by a probe.
        progress: Whether a progress bar is shown on a terminal.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If something does not fit: a solver without a declared weak order, or with more
            than one increment a step; an f of another shape; steps that are part of the model.
        NonFiniteError: If states or values of f are not finite at the end.
        Interrupted: On Ctrl-C.

    Reference:
        Talay and Tubaro 1990, Stoch. Anal. Appl. 8, 483, eq. (2.3).

    Example:
        >>> decay = sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0)
        >>> run = sg.extrapolate(decay, torch.ones(1, 1), [0.0, 0.5, 1.0], lambda x: x[:, 0],
        ...                   trajectories=2)
        >>> float(run.coarse), float(run.fine)  # ½² and ¾⁴; the answer is e⁻¹ = 0.3679
        (0.25, 0.31640625)
        >>> float(run.value)
        0.3828125
    """
    check_no_jumps(sde, "extrapolate", _AVERAGE)
    check_count("trajectories", trajectories, 2)
    threads, seed = check_threads(threads), seed_of(rng)
    check_function("f", f, "a function of states (batch, *event), such as lambda x: x[:, 0]")
    with torch.no_grad():
        if not callable(x0) or isinstance(x0, Tensor):
            x0 = check_state(x0)
        states = example_states(x0, trajectories, seed)
        request = validate_request(
            sde,
            solver,
            states,
            times,
            boundary=None,
            walls=None,
            on_nonfinite="raise",
            interacting=interacting,
            flags={"progress": progress},
            trajectories=trajectories,
        )
        order = _weak_order(sde, request.solver)
        network = validate_callables(request, whole=interacting is True)
        _values(f, states)
        check_blocks(trajectories, block_rows(states))
        pilot = replace(request, x0=pilot_starts(x0, states, trajectories, seed))
        seen = survey(pilot, seed=seed, network=network)
        rows = trajectories if seen.together else min(block_rows(states), trajectories)
        spec = EnsembleSpec(request, seen, x0, (), rows, seed, None, None, False)
        total, nfe = _run(spec, f, order, threads, progress)
    return _extrapolation(total, order, nfe, seed)


def _weak_order(sde: SDE, solver: Solver) -> float:
    """Return the weak order that a solver declares for the noise of some dynamics.

    Raises:
        ValueError: If it declares none, or its steps cannot be halved on one path.
    """
    name = type(solver).__name__
    if not sde.halves_steps or sde.is_discrete:
        raise ValueError(
            f"the steps of {type(sde).__name__} are part of the model, and half of them are those "
            "of another: its averages are those of run_ensemble(…), as they are."
        )
    if solver.chooses_steps or solver.requires_full_batch or solver.returns_x0:
        raise ValueError(
            f"{name} takes no steps that can be halved: take EulerMaruyama(substeps=…) or "
            "Heun(substeps=…)."
        )
    if sde.noise != "none":
        solver.check_asked("brownian")
    order = declared_weak_order(sde, solver)
    if order is None:
        raise ValueError(
            f"{name} declares no weak order for {sde.noise} noise like that of "
            f"{type(sde).__name__}: take EulerMaruyama(substeps=…)."
        )
    return order


def declared_weak_order(sde: SDE, solver: Solver) -> float | None:
    """Return the weak order that a solver declares for the noise of some dynamics, or None."""
    orders = solver.orders
    if orders is None:
        return None
    if sde.noise == "none":
        return orders.flow
    of_noise = orders.additive
    if sde.noise == "multiplicative":
        one = sde.channels in (None, 1)  # one Wiener process commutes with itself
        of_noise = orders.multiplicative if one else orders.channels
    return None if of_noise is None else of_noise[0]


def _values(f: Values, x: State) -> Tensor:
    """Return f at some states, in double precision.

    Raises:
        TypeError: If it is no tensor of numbers.
        ValueError: If it has not one value for each state.
    """
    values = f(x)
    if not isinstance(values, Tensor) or values.is_complex():
        raise TypeError(f"f must return a tensor of real numbers, but returned {kind_of(values)}.")
    if values.ndim == 0 or len(values) != len(x):
        raise ValueError(
            f"f must return one value for each state, shape ({len(x)}, …) for {len(x)} of them, "
            f"but returned shape {tuple(values.shape)}; a mean over them is taken here."
        )
    return values.detach().double()


def _run(
    spec: EnsembleSpec, f: Values, order: float, threads: int, progress: bool
) -> tuple[Partial, int]:
    """Return the moments of f over all trajectories, and evaluations of the drift of each."""
    tree: PairwiseReduction[Partial] = PairwiseReduction(spec.blocks, _MOMENTS.merge)
    done = nfe = 0
    total = spec.blocks if progress else None
    with (
        DeferredInterrupt() as interrupt,
        progress_bar(total, "extrapolate", on_terminal=True) as on_progress,
    ):
        results = map_blocks(
            lambda b: _moments_of_block(spec, b, f, order, interrupt),
            range(spec.blocks),
            threads=1 if spec.request.x0.is_cuda else threads,
            interrupt=interrupt,
        )
        with suppress(KeyboardInterrupt), closing(results):
            for b, result in results:
                if result is None:
                    break  # cut by Ctrl-C
                tree.add(0, b, result[0])
                done, nfe = done + 1, result[1]
                if on_progress is not None:
                    on_progress()
    if done < spec.blocks:
        raise Interrupted(f"interrupted: {done} of {spec.blocks} blocks are done.")
    return tree.total(), nfe


def _moments_of_block(
    spec: EnsembleSpec, b: int, f: Values, order: float, interrupt: DeferredInterrupt
) -> tuple[Partial, int] | None:
    """Return the moments of (f at h, f at h/2, extrapolated, their sum); None on Ctrl-C."""
    request, x0, counter = spec.request, spec.start(b), CallCounter()
    own = request.sde.of_rows(slice(b * spec.rows, (b + 1) * spec.rows))
    pair = x0, x0
    for both in _walks(own.with_counter(counter), request.solver, x0, spec, b):
        if interrupt.pending:
            return None
        pair = both
    for x in pair:
        if not bool(x.isfinite().all()):
            lost = int((~x.isfinite().flatten(1).all(1)).sum())
            raise NonFiniteError(
                f"{lost} of {len(x)} trajectories of block {b} are not finite at t = "
                f"{float(spec.times[-1]):g}: take shorter steps, substeps=…."
            )
    coarse, fine = (_values(f, x) for x in pair)
    if not bool((coarse.isfinite() & fine.isfinite()).all()):
        raise NonFiniteError(f"f is not finite at states of block {b} that are.")
    factor = 2.0**order
    value = fine + (fine - coarse) / (factor - 1)
    seen = torch.stack([coarse, fine, value, coarse + fine, fine - value], 1)
    stream = Streams(spec.seed, "observable extrapolate").block(b)
    accumulator = _MOMENTS.begin(Block(own, spec.times[-1:], spec.times[-1:], None, stream))
    accumulator.see(0, seen)
    return accumulator.partial(), counter.calls


def _walks(
    sde: SDE, solver: Solver, x0: State, spec: EnsembleSpec, b: int
) -> Iterator[tuple[State, State]]:
    """Yield the states at the nodes of the coarse walk: at its steps, and at half of them."""
    nodes = solver.nodes(spec.times)
    halves, short, long = refine(nodes, 2), None, None
    if solver.is_stochastic(sde):
        noise = Noise(x0, Streams(spec.seed, "dynamics").block(b), channels=sde.channels)
        short, long = shared(noise, halves)
    fine = integrate(sde, solver, x0, halves, short)
    coarse = integrate(sde, solver, x0, nodes, long)
    for i in range(len(nodes) - 1):
        next(fine)
        after = next(fine)
        yield next(coarse), after
        if short is not None:
            assert isinstance(short.draws, FreshDraws)
            short.draws.forget(2 * i + 2)


def _extrapolation(total: Partial, order: float, nfe: int, seed: int) -> Extrapolation:
    """Return the result, from the moments over all trajectories."""
    moments = _MOMENTS.result(total, torch.zeros(1))
    coarse, fine, value, _, removed = moments.mean[0].unbind(0)
    v_coarse, v_fine, _, v_sum, _ = moments.variance[0].unbind(0)
    errors = moments.mean_error[0]
    product = (v_coarse * v_fine).sqrt()
    correlation = torch.where(product > 0, 0.5 * (v_sum - v_coarse - v_fine) / product, 1.0)
    return Extrapolation(
        value=value,
        standard_error=errors[2],
        coarse=coarse,
        fine=fine,
        removed=removed,
        removed_error=errors[4],
        correlation=correlation,
        order=order,
        trajectories=moments.count,
        nfe=nfe,
        seed=seed,
    )
