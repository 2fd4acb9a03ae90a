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
(`angular_adams.py`) a linear multistep method with one evaluation a step, with or without a
corrector, reads

    y_{i+1} = y_i + (φ_{i+1} − φ_i) Σ_j (w_ij v̂_{i−j} + u_ij y_{i−j}),    v̂ = v/√(α² + σ²)

where w and u are of order one; Adams's methods for v have u = 0.

**No overfitting.** A third of the batch is held out: never optimised on, looked at after every
round of iterations; what was best on it is kept, and the run ends when it no longer improves. N
steps with K nodes remembered have N (2K + 1) unknowns against batch × dimension equations.

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

import torch
from torch import Tensor
from tqdm import tqdm

from sdegen.calibration.fitting import Fit, Unknowns, held_out_rows, multistep, on_circle
from sdegen.calibration.result import Calibration, identity_of
from sdegen.core.checks import check_count
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.kernel import Kernel
from sdegen.core.requests import as_time_grid, check_state
from sdegen.core.scores import CallCounter
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.diffusion.pilot import check_flow, check_solver
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.linear_multistep import Multistep
from sdegen.diffusion.timesteps import made_for, powers
from sdegen.engine.simulate import simulate
from sdegen.engine.validation import check_dynamics
from sdegen.score.model_checks import check_derivative
from sdegen.solvers.torch_diffeq import TorchDiffEq

_STARTS = (1.0, 2.0, 3.0, 5.0)  # ρ of the grids, equal steps in t^{1/ρ}, of which the best begins
_LOOKED_AT = 48  # states for which a grid to begin from is made, of those not held out
_FEWEST = 6
_REMEMBERED = 8  # nodes that a step with free coefficients looks back to, at most
_FIRST_ROUNDS = 2  # for the nodes alone, before the coefficients join


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
    """Fit the nodes of a solver, and its coefficients, to one model.

        (t, w) = argmin mean_i |x_N(x_i; t, w) − X(x_i)|²,     X the flow solved accurately

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

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> data = sg.GaussianMixture([1.0], [0.5], stds=0.2)
        >>> flow = sg.ReverseSDE(path, data.noised(path).score, eta=0.0)
        >>> x_T = path.prior((30, 1), rng=0, dtype=torch.float64)
        >>> found = sg.calibrate(flow, sg.DDIM(), 3, x_T, free_coefficients=False, rounds=1)
        >>> found.error < found.error_before
        True
    """
    kernel = _checked(dynamics, solver, steps, x_T, rounds, free_coefficients)
    counter = CallCounter()
    counted = dynamics.with_counter(counter)
    starts, pilot_evaluations = _starts(dynamics, solver, steps, x_T, times, free_coefficients)
    if free_coefficients:
        _weights(solver, dynamics, kernel, starts[0][1])  # or a refusal, before anything is run
    accurate = TorchDiffEq("dopri5", rtol=1e-6, atol=1e-6) if reference is None else reference
    ends = torch.tensor(dynamics.time_range[::-1], dtype=torch.float64)
    exact = simulate(counted, x_T, ends, solver=accurate, keep_path=False).final
    fit = Fit(counted, kernel, x_T, exact)
    begun = [(method, Unknowns.of(grid)) for method, grid in starts]
    with torch.no_grad():
        method, start = min(begun, key=lambda pair: float(fit.error(pair[1], ~fit.held, pair[0])))
    before = fit.held_out(start, method)
    with tqdm(total=rounds, disable=not progress, unit="round", desc="calibrate") as bar:
        first = min(_FIRST_ROUNDS, rounds) if free_coefficients else rounds
        best = fit.descend(start, method, first, bar)
        if free_coefficients:
            table = _weights(method, dynamics, kernel, fit.nodes(best))
            best = fit.descend(Unknowns(best.gaps, table), method, rounds - first, bar)
    # what was best to begin with on the states held out may be another start than was taken
    other, unfitted = min(begun, key=lambda pair: fit.held_out(pair[1], pair[0]))
    if fit.held_out(unfitted, other) < fit.held_out(best, method):
        method, best = other, unfitted
    nodes = fit.nodes(best).detach()
    fitted = None if best.weights is None else best.weights.detach()
    return Calibration(
        times=nodes,
        solver=method if fitted is None else multistep(kernel, nodes, fitted),
        weights=fitted,
        error=fit.held_out(best, method),
        error_before=before,
        evaluations=counter.calls + pilot_evaluations,
        pilot=len(x_T),
        identity=identity_of(dynamics, x_T.shape[1:], x_T.dtype),
    )


def _starts(
    dynamics: ReverseSDE,
    solver: FixedStep,
    steps: int,
    x_T: State,
    times: Tensor | None,
    free_coefficients: bool,
) -> tuple[list[tuple[FixedStep, Tensor]], int]:
    """Return solvers with the grids to begin from, and the evaluations that finding them took."""
    low, high = dynamics.time_range
    with torch.inference_mode(False), torch.enable_grad():
        rows = x_T[:_FEWEST].detach().clone().requires_grad_()
        t = torch.tensor(high, dtype=torch.float64)
        check_derivative(dynamics.score, dynamics.score(rows, t), rows, t, "calibrate")
    made = []
    if times is None:
        pilot = x_T[~held_out_rows(len(x_T))][:_LOOKED_AT]
        grids = [powers(high, low, steps, rho) for rho in _STARTS]
        for given in (solver, None) if free_coefficients else (solver,):
            made.append(made_for(dynamics, steps, pilot, solver=given))
    else:
        grids = [as_time_grid(times)]
        count, first, last = len(grids[0]), float(grids[0][0]), float(grids[0][-1])
        if (count, first, last) != (steps + 1, high, low):
            raise ValueError(
                f"times must be {steps + 1} times from {high:g} to {low:g}, but are {count} from "
                f"{first:g} to {last:g}."
            )
    starts = [(solver, grid) for grid in grids] + [(one.solver, one.times) for one in made]
    for _, grid in starts:
        check_dynamics(dynamics, solver, grid, None)
    return starts, sum(one.evaluations for one in made)


def _checked(
    dynamics: ReverseSDE, solver: FixedStep, steps: int, x_T: State, rounds: int, free: bool
) -> Kernel:
    """Return the kernel, or refuse what does not fit."""
    kernel = check_flow("dynamics", dynamics, "calibrate").kernel
    check_solver(solver, dynamics, "calibrate")
    if solver.substeps != 1:
        raise ValueError(
            f"calibrate places every node itself, but solver.substeps is {solver.substeps}: leave "
            f"it at 1, and pass steps={solver.substeps} × as many for that many evaluations."
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


def _weights(solver: FixedStep, dynamics: ReverseSDE, kernel: Kernel, nodes: Tensor) -> Tensor:
    """Return the coefficients of a multistep method, ready to be freed."""
    assert isinstance(solver, Multistep)  # _checked() saw to it
    table = solver.coefficients(dynamics, nodes)
    if table.again is not None:
        raise ValueError(
            f"free coefficients need one evaluation a step, but {solver!r} evaluates twice in its "
            "second; pass AngularAdams(), or free_coefficients=False."
        )
    return on_circle(kernel, nodes, table, min(len(nodes) - 1, _REMEMBERED))
