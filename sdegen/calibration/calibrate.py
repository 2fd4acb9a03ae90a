"""Calibration: a grid, and the coefficients of a multistep method, made for one model.

A grid rule serves all models, and the coefficients of Adams's methods are those that are exact for
polynomials. A given model is neither. A pilot batch x_T is carried to the data once, accurately,

    x_i → X(x_i),      the probability flow,

and then the few numbers that a run of N evaluations depends on are chosen such that the same
batch, sampled in N evaluations, ends where it should:

    min over t_1 … t_{N−1}, w      mean_i |x_N(x_i; t, w) − X(x_i)|²

by gradients through the solver (L-BFGS, strong Wolfe). It begins from a grid that is made for the
solver (`timesteps.made_for`), or from the best of a few other solvers on its own such grid, and
what it ends with is never worse, on the states held out, than any of these. The nodes are t_0 plus
a softmax of the unknowns, summed up: positive gaps, both ends fixed. The coefficients are those of
the given method to begin with. On the circle y = x/√(α² + σ²), φ = arctan(σ/α)
(`solvers/angular.py`) a linear multistep method with one evaluation a step, with or without a
corrector, reads

    y_{i+1} = y_i + (φ_{i+1} − φ_i) Σ_j (w_ij v̂_{i−j} + u_ij y_{i−j}),    v̂ = v/√(α² + σ²)

where w and u are of order one; Adams's methods for v have u = 0.

**Not by heart.** A third of the batch is held out: never optimised on, looked at after every round
of iterations; what was best on it is kept, and the run ends when it no longer improves. N steps
with K nodes remembered have N (2K + 1) unknowns against batch × dimension equations.

**What it costs, and when it pays.** `Calibration.evaluations` counts evaluations of the score for
one pilot state: the accurate solve once, and N for each of the few hundred trial runs, each of
which is also differentiated, about as costly as two evaluations more. It pays where many samples
are drawn from one model with few evaluations: benchmarks/README.md has measured numbers.

What is assumed: the probability flow (η = 0). Of starts that the pilot batch does not represent,
such as rare modes or another guidance weight, nothing is promised.

Reference:
    The idea of solvers fitted to a model by its own accurate paths: Watson et al. 2022,
    arXiv:2202.05830; Shaul et al. 2024, arXiv:2403.01329.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from tqdm import tqdm

from sdegen.calibration.fitting import Unknowns, descend, distance, multistep, on_circle
from sdegen.core.checks import check_count
from sdegen.core.errors import CheckpointError
from sdegen.core.kernel import Kernel
from sdegen.core.noise import stream
from sdegen.core.scores import CallCounter
from sdegen.core.shapes import State
from sdegen.core.solver import FixedStep, Solver, check_inner
from sdegen.diffusion.pilot import walk
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.multistep import Multistep
from sdegen.diffusion.timesteps import made_for, powers
from sdegen.engine.door import check_dynamics, check_state, check_times
from sdegen.engine.simulate import simulate
from sdegen.score.checks import check_derivative
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.storage import load_tensors, save_tensors

__all__ = ["Calibration", "calibrate"]

_STARTS = (1.0, 2.0, 3.0, 5.0)  # ρ of the grids, equal steps in t^{1/ρ}, of which the best begins
_HELD_OUT = 3  # every third state of the pilot batch
_LOOKED_AT = 48  # states for which a grid to begin from is made, of those not held out
_FEWEST = 6
_REMEMBERED = 8  # nodes that a step with free coefficients looks back to, at most
_FIRST_ROUNDS = 2  # for the nodes alone, before the coefficients join
_PROBED_ROWS, _PROBED_TIMES, _SAME = 4, 3, 1e-3


@dataclass(frozen=True, eq=False)
class Calibration:
    """A grid and a solver for one model and one number of steps.

    Sample with `simulate(dynamics, x_T, calibration.times, solver=calibration.solver)`.

    Attributes:
        times: Nodes, shape (steps + 1,), float64.
        solver: The one that was given or, with free coefficients, a `LinearMultistep`.
        weights: Free coefficients w and u, shape (2, steps, K), or None.
        error: Root-mean-square distance to the accurate flow, over the held-out states. They also
            choose which round is kept, so that it is too kind where the batch is small for the
            dimension or the flow has heavy tails: for a mixture in the plane, 5 steps and 96
            states it was 0.0017, on unseen ones 0.033, and with 768 states 0.0118 on both.
        error_before: The same of what it began from: a solver, and a grid made for it.
        evaluations: Of the score, for each pilot state, all told; see the module.
        pilot: States in the pilot batch, the held-out ones included.
        identity: What the model is known by: its α, σ and score at a few points.
    """

    times: Tensor
    solver: Solver
    weights: Tensor | None
    error: float
    error_before: float
    evaluations: int
    pilot: int
    identity: dict[str, Tensor]

    def save(self, path: str | Path) -> None:
        """Writes it, whole or not at all, with a sha256; see `sdegen.storage`.

        Args:
            path: The file, usually *.safetensors beside the model's; its folder must exist.
        """
        free = {} if self.weights is None else {"weights": self.weights}
        told = {
            "kind": "Calibration",
            "solver": repr(self.solver) if self.weights is None else None,
            **{name: getattr(self, name) for name in _TOLD},
        }
        save_tensors(path, {"times": self.times, **free, **self.identity}, told)

    @classmethod
    def load(
        cls, path: str | Path, dynamics: ReverseSDE, *, solver: FixedStep | None = None
    ) -> Self:
        """Reads what `save` wrote, and sees to it that it was made for these dynamics.

        Args:
            path: The file.
            dynamics: The probability flow that it shall be used for.
            solver: The one whose nodes were calibrated; None where coefficients were free.

        Raises:
            TypeError: If dynamics are no ReverseSDE.
            FileNotFoundError: If there is no such file.
            CheckpointError: If it is damaged, of another kind, or made for another model, SDE or
                solver; says what differs.
        """
        _check_reverse(dynamics)
        tensors, told = load_tensors(path)
        if told.get("kind") != "Calibration":
            raise CheckpointError(f"{path} holds a {told.get('kind')}, not a Calibration.")
        times, weights = tensors.pop("times"), tensors.pop("weights", None)
        _check_identity(path, tensors, dynamics)
        kernel = dynamics.denoising.kernel
        found: Solver
        if weights is not None and kernel is not None:
            if solver is not None:
                raise CheckpointError(
                    f"{path} brings coefficients of its own: load it without solver={solver!r}."
                )
            found = multistep(kernel, times, weights)
        elif solver is None or repr(solver) != told["solver"]:
            raise CheckpointError(
                f"{path} has the nodes of {told['solver']}, but solver is {solver!r}; pass "
                f"solver={told['solver']}."
            )
        else:
            found = solver
        return cls(times, found, weights, identity=tensors, **{name: told[name] for name in _TOLD})


_TOLD = ("error", "error_before", "evaluations", "pilot")


def calibrate(
    dynamics: ReverseSDE,
    solver: FixedStep,
    steps: int,
    x_T: State,
    *,
    times: Tensor | None = None,
    free_coefficients: bool = True,
    reference: Solver | None = None,
    rounds: int = 20,
    progress: bool = False,
) -> Calibration:
    """Fits the nodes of a solver, and its coefficients, to one model.

    min over t_1 … t_{N−1}, w of mean_i |x_N(x_i; t, w) − X(x_i)|², X the flow solved accurately

    Args:
        dynamics: The probability flow, ReverseSDE(sde, score, eta=0.0).
        solver: What it begins from. With free coefficients a multistep method of one evaluation a
            step, such as AngularAdams(); without, any solver of fixed steps.
        steps: N ≥ 1.
        x_T: Pilot batch at t_max, such as `sde.prior(…)`, shape (batch, *event); float64 lets
            the descent go furthest. Every third state is held out.
        times: Grid to begin from, shape (N + 1,). None takes the best of five: equal steps in t,
            t^{1/2}, t^{1/3} and t^{1/5}, and `timesteps.made_for` this solver; with free
            coefficients it may also begin from another solver, on the grid made for that.
        free_coefficients: Whether the coefficients are fitted too, or the nodes alone.
        reference: Solves the flow accurately; TorchDiffEq("dopri5") with tolerances of 1e-6
            unless said. What it gets wrong no calibration can get right.
        rounds: At most so many rounds of 20 iterations; it ends sooner where nothing is gained.
        progress: Whether a progress bar is shown.

    Returns:
        Times and solver for `simulate`, and their error on the held-out states, which is often
        below that on other states: see `Calibration.error`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If the dynamics are noisy or the solver draws noise or has substeps, steps < 1,
            the batch has fewer than 6 states, the score has no derivative, or the solver does not
            go with free coefficients.
    """
    kernel = _checked(dynamics, solver, steps, x_T, rounds, free_coefficients)
    counter = CallCounter()
    counted = dynamics.with_counter(counter)
    low, high = dynamics.time_range
    ends = torch.tensor([high, low], dtype=torch.float64)
    held = torch.zeros(len(x_T), dtype=torch.bool)
    held[::_HELD_OUT] = True
    with torch.inference_mode(False), torch.enable_grad():
        rows = x_T[:_FEWEST].detach().clone().requires_grad_()
        check_derivative(dynamics.score, dynamics.score(rows, ends[0]), rows, ends[0], "calibrate")
    starts: list[tuple[FixedStep, Tensor]]
    looked = 0
    if times is None:
        starts = [(solver, powers(high, low, steps, rho)) for rho in _STARTS]
        for given in (solver, None) if free_coefficients else (solver,):
            made = made_for(dynamics, steps, x_T[~held][:_LOOKED_AT], solver=given)
            starts.append((made.solver, made.times))
            looked += made.evaluations
    else:
        starts = [(solver, _checked_grid(times, steps, low, high))]
    for _, grid in starts:
        check_dynamics(dynamics, solver, grid, None)
    if free_coefficients:
        _weights(solver, dynamics, kernel, starts[0][1])  # or a refusal, before anything is run
    accurate = TorchDiffEq("dopri5", rtol=1e-6, atol=1e-6) if reference is None else reference
    exact = simulate(counted, x_T, ends, solver=accurate, keep_path=False).final

    def error(unknowns: Unknowns, rows: Tensor, method: FixedStep) -> Tensor:
        nodes = unknowns.nodes(high, low)
        if unknowns.weights is not None:
            method = multistep(kernel, nodes, unknowns.weights)
        return distance(walk(method, counted, nodes, x_T[rows]), exact[rows])

    def held_out(unknowns: Unknowns, method: FixedStep) -> float:
        with torch.no_grad():
            return float(error(unknowns, held, method))

    begun = [(method, Unknowns.of(grid, None)) for method, grid in starts]
    with torch.no_grad():
        method, start = min(begun, key=lambda pair: float(error(pair[1], ~held, pair[0])))
    before = held_out(start, method)
    with tqdm(total=rounds, disable=not progress, unit="round", desc="calibrate") as bar:
        first = min(_FIRST_ROUNDS, rounds) if free_coefficients else rounds
        best = descend(
            start, lambda u: error(u, ~held, method), lambda u: held_out(u, method), first, bar
        )
        if free_coefficients:
            freed = Unknowns(best.gaps, _weights(method, dynamics, kernel, best.nodes(high, low)))
            best = descend(
                freed,
                lambda u: error(u, ~held, method),
                lambda u: held_out(u, method),
                rounds - first,
                bar,
            )
    # what was best to begin with on the states held out may be another start than was taken
    other, kept = min(begun, key=lambda pair: held_out(pair[1], pair[0]))
    if held_out(kept, other) < held_out(best, method):
        method, best = other, kept
    nodes = best.nodes(high, low).detach()
    fitted = None if best.weights is None else best.weights.detach()
    return Calibration(
        times=nodes,
        solver=method if fitted is None else multistep(kernel, nodes, fitted),
        weights=fitted,
        error=held_out(best, method),
        error_before=before,
        evaluations=counter.calls + looked,
        pilot=len(x_T),
        identity=_identity(dynamics, x_T.shape[1:], x_T.dtype),
    )


def _checked(
    dynamics: object, solver: object, steps: object, x_T: State, rounds: object, free: bool
) -> Kernel:
    """The kernel, once nothing is found that does not fit."""
    dynamics = _check_reverse(dynamics)
    if dynamics.eta != 0:
        raise ValueError(
            f"calibrate compares paths with those of the flow, but dynamics has eta = "
            f"{dynamics.eta:g}; pass ReverseSDE(sde, score, eta=0.0)."
        )
    kernel = dynamics.denoising.kernel
    if kernel is None:
        raise ValueError(
            "calibrate needs the α and σ of a kernel: pass the ReverseSDE of a linear SDE, not of "
            f"{type(dynamics.forward).__name__}."
        )
    check_inner("solver", solver)
    assert isinstance(solver, FixedStep)
    if solver.substeps != 1:
        raise ValueError(
            f"calibrate places every node itself, but solver.substeps is {solver.substeps}: leave "
            f"it at 1, and pass steps={solver.substeps} × as many for that many evaluations."
        )
    if solver.is_stochastic(dynamics):
        raise ValueError(
            f"calibrate compares paths with those of the flow, but {solver!r} draws noise: pass "
            "it without churn or corrector."
        )
    if free and not isinstance(solver, Multistep):
        raise TypeError(
            "free coefficients need a linear multistep method of one evaluation a step, but "
            f"solver is {solver!r}; pass AngularAdams(), or free_coefficients=False."
        )
    check_count("steps", steps)
    check_count("rounds", rounds)
    if len(check_state(x_T, name="x_T")) < _FEWEST:
        raise ValueError(
            f"x_T has {len(x_T)} states, of which every third is held out; pass at least "
            f"{_FEWEST}, and hundreds to be of use."
        )
    return kernel


def _check_reverse(dynamics: object) -> ReverseSDE:
    """The dynamics, once they are seen to be reverse ones."""
    if not isinstance(dynamics, ReverseSDE):
        raise TypeError(
            "dynamics must be the probability flow, ReverseSDE(sde, score, eta=0.0), but is "
            f"{type(dynamics).__name__}."
        )
    return dynamics


def _weights(solver: FixedStep, dynamics: ReverseSDE, kernel: Kernel, nodes: Tensor) -> Tensor:
    """The coefficients of a multistep method, ready to be freed."""
    assert isinstance(solver, Multistep)  # _checked() saw to it
    table = solver.coefficients(dynamics, nodes)
    if table.again is not None:
        raise ValueError(
            f"free coefficients need one evaluation a step, but {solver!r} evaluates twice in its "
            "second; pass AngularAdams(), or free_coefficients=False."
        )
    return on_circle(kernel, nodes, table, min(len(nodes) - 1, _REMEMBERED))


def _checked_grid(times: object, steps: int, low: float, high: float) -> Tensor:
    """A grid to begin from, from t_max to t_min in `steps` steps."""
    grid = check_times(times)
    ends = float(grid[0]), float(grid[-1])
    if len(grid) != steps + 1 or ends != (high, low):
        raise ValueError(
            f"times must be {steps + 1} times from {high:g} to {low:g}, but are {len(grid)} from "
            f"{ends[0]:g} to {ends[1]:g}."
        )
    return grid


def _identity(
    dynamics: ReverseSDE, event: torch.Size | tuple[int, ...], dtype: torch.dtype
) -> dict[str, Tensor]:
    """α, σ and the score at a few times and states that are the same in every process."""
    kernel = dynamics.denoising.kernel
    assert kernel is not None  # calibrate() and load() saw to it
    low, high = dynamics.time_range
    at = powers(high, low, _PROBED_TIMES - 1, 2.0)
    alpha, sigma = kernel.alpha(at), kernel.sigma(at)
    z = stream(0, "calibration").normal((_PROBED_ROWS, *event), dtype=torch.float64)
    spread = torch.sqrt(alpha**2 + sigma**2)
    with torch.no_grad():
        scores = [
            dynamics.score((c * z).to(dtype), t).double() for c, t in zip(spread, at, strict=True)
        ]
    return {"probe_t": at, "alpha": alpha, "sigma": sigma, "score": torch.stack(scores)}


def _check_identity(path: str | Path, there: dict[str, Tensor], dynamics: ReverseSDE) -> None:
    """Refuses dynamics that are not those of the file, naming the first difference."""
    if dynamics.denoising.kernel is None or dynamics.eta != 0:
        raise CheckpointError(
            f"{path} is for a probability flow with a kernel, ReverseSDE(sde, score, eta=0.0), "
            f"but dynamics has eta = {dynamics.eta:g}."
        )
    event = tuple(there["score"].shape[2:])
    try:
        here = _identity(dynamics, event, torch.float64)
    except (RuntimeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path} was made for a model of states of shape (batch, "
            f"{', '.join(map(str, event))}), which this score does not take: {error}"
        ) from error
    ours, theirs = ((float(x["probe_t"][0]), float(x["probe_t"][-1])) for x in (here, there))
    if ours != theirs:
        raise CheckpointError(
            f"{path} was made for another SDE: from t = {theirs[0]:g} to {theirs[1]:g}, but these "
            f"dynamics go from {ours[0]:g} to {ours[1]:g}."
        )
    for name, symbol in (("alpha", "α"), ("sigma", "σ")):
        for t, now, then in zip(there["probe_t"], here[name], there[name], strict=True):
            if not bool((now - then).abs() <= _SAME * then.abs()):
                raise CheckpointError(
                    f"{path} was made for another SDE: at t = {float(t):g} its {symbol} is "
                    f"{float(then):.6g}, but here it is {float(now):.6g}."
                )
    for t, now, then in zip(there["probe_t"], here["score"], there["score"], strict=True):
        # ≤, since the score of a fresh network may be 0 everywhere
        if not bool((now - then).norm() <= _SAME * then.norm()):
            off = float((now - then).norm() / then.norm())
            raise CheckpointError(
                f"{path} was made for another model: at t = {float(t):g} its score differs from "
                f"this one by {100 * off:.3g} %."
            )
