"""Grids of times for generation: where the steps from t_max down to t_min go.

A grid is uniform in some function of t that says how hard a stretch is. For a Gaussian path with
kernel α, σ that is often the noise-to-signal ratio σ/α, which grows with t, or λ = log(α/σ), half
the log of the signal-to-noise ratio. Every grid is a float64 tensor of steps + 1 times, decreasing
from t_max to t_min, both met exactly, and goes to `simulate` as `times`.

A rule was made for one path and one range of σ/α, and is another rule on another: `auto` makes the
grid from the flow itself, with the help of a pilot batch (`pilot.py`), and takes the best rule of
the others where nothing is gained.

Assumed: σ/α increases in t. The t of a σ/α is found by bisection, down to the last bit.

Example:
    >>> path = sg.EDM(t_min=1.0, t_max=4.0)  # σ/α = t
    >>> sg.timesteps.log_snr(path, 2).tolist()
    [4.0, 2.0, 1.0]
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_positive
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.kernel import times_between
from sdegen.core.noise import Rng
from sdegen.core.shapes import State
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.pilot import Pilot, check_flow, check_solver, members
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.signal import check_signal

__all__ = [
    "MadeGrid",
    "angle",
    "auto",
    "karras",
    "log_snr",
    "made_for",
    "power",
    "quadratic",
    "uniform",
]

_PILOT = 48  # states
_MOST_PLACED = 50  # steps up to which each node is placed; longer grids are that of 50, filled in


def uniform(sde: GaussianPath, steps: int) -> Tensor:
    """Return equal steps in t.

        t_i = t_max + (i/N)(t_min − t_max)

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or steps not an int.
        ValueError: If steps < 1.

    Reference:
        Song et al. 2021, the grid of appendix G, arXiv:2011.13456.

    Example:
        >>> sg.timesteps.uniform(sg.EDM(t_min=1.0, t_max=3.0), 2).tolist()
        [3.0, 2.0, 1.0]
    """
    return check_gaussian_path(sde).time_grid(steps)


def quadratic(sde: GaussianPath, steps: int) -> Tensor:
    """Return equal steps in √t, more near the data.

        t_i = (√t_max + (i/N)(√t_min − √t_max))²

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or steps not an int.
        ValueError: If steps < 1.

    Reference:
        Song, Meng and Ermon 2021, appendix D.2 ("quadratic"), arXiv:2010.02502.

    Example:
        >>> sg.timesteps.quadratic(sg.EDM(t_min=1.0, t_max=9.0), 2).tolist()  # 3², 2², 1²
        [9.0, 4.0, 1.0]
    """
    return power(sde, steps, rho=2.0)


def power(sde: GaussianPath, steps: int, rho: float = 2.5) -> Tensor:
    """Return equal steps in t^{1/ρ}.

        t_i = (t_max^{1/ρ} + (i/N)(t_min^{1/ρ} − t_max^{1/ρ}))^ρ

    ρ = 1 is `uniform`, ρ = 2 `quadratic`. ρ = 5/2 is the one rule that benchmarks/samplers.py
    takes for the flow of a VP-SDE of linear β, from 1 to 200 evaluations.

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.
        rho: ρ > 0.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or rho not a number.
        ValueError: If rho is not finite and > 0.

    Example:
        >>> grid = sg.timesteps.power(sg.EDM(t_min=1.0, t_max=27.0), 2, rho=3.0)
        >>> [round(t, 6) for t in grid.tolist()]  # 3³, 2³, 1³
        [27.0, 8.0, 1.0]
    """
    check_gaussian_path(sde)
    check_positive("rho", rho)
    check_count("steps", steps)
    return powers(sde.t_max, sde.t_min, steps, rho)


def log_snr(sde: GaussianPath, steps: int) -> Tensor:
    """Return equal steps in half the log of the signal-to-noise ratio.

        λ_i = λ_0 + (i/N)(λ_N − λ_0),   λ = log(α/σ)

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or steps not an int.
        ValueError: If steps < 1, or no signal is left at t_max.

    Reference:
        Lu et al. 2022, section 3.4 of DPM-Solver ("uniform λ"), arXiv:2206.00927.

    Example:
        >>> sg.timesteps.log_snr(sg.EDM(t_min=1.0, t_max=4.0), 2).tolist()  # σ/α = t
        [4.0, 2.0, 1.0]
    """
    return _spaced(sde, steps, torch.clone, torch.clone)


def karras(sde: GaussianPath, steps: int, rho: float = 7.0) -> Tensor:
    """Return equal steps in r^{1/ρ}, r = σ/α.

        r_i = (r_max^{1/ρ} + (i/N)(r_min^{1/ρ} − r_max^{1/ρ}))^ρ

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.
        rho: ρ > 0; 1 is uniform in r, large ρ tends to `log_snr`.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or rho not a number.
        ValueError: If rho is not finite and > 0, or no signal is left at t_max.

    Reference:
        Karras et al. 2022, eq. (5), arXiv:2206.00364, r being its σ.

    Example:
        >>> grid = sg.timesteps.karras(sg.EDM(t_min=1.0, t_max=9.0), 2, rho=2.0)
        >>> [round(t, 6) for t in grid.tolist()]  # 3², 2², 1²
        [9.0, 4.0, 1.0]
    """
    check_positive("rho", rho)
    return _spaced(sde, steps, torch.exp, torch.log, rho)


def angle(sde: GaussianPath, steps: int, data_std: float = 1.0) -> Tensor:
    """Return equal steps in the angle of `AngularAdams`.

        φ_i = φ_0 + (i/N)(φ_N − φ_0),   φ = arctan(σ/(s α))

    Args:
        sde: Any Gaussian path.
        steps: N ≥ 1.
        data_std: s > 0, standard deviation of the data.

    Returns:
        The nodes, shape (N + 1,), float64.

    Raises:
        TypeError: If sde is not a GaussianPath, or data_std not a number.
        ValueError: If data_std is not finite and > 0.

    Reference:
        Liu et al. 2022 (PNDM), where diffusers' IPNDM has it, arXiv:2202.09778.

    Example:
        >>> path = sg.EDM(t_min=3**-0.5, t_max=3**0.5)  # φ from 60° to 30°
        >>> [round(t, 4) for t in sg.timesteps.angle(path, 2).tolist()]
        [1.7321, 1.0, 0.5774]
    """
    check_positive("data_std", data_std)
    return _spaced(
        sde, steps, lambda u: (u.exp() / data_std).atan(), lambda phi: (data_std * phi.tan()).log()
    )


@dataclass(frozen=True, eq=False)
class MadeGrid:
    """A grid that was made for one flow and one solver, and what is known of it.

        error = √⟨|x_N − x(t_min)|²⟩/α(t_min)

    Attributes:
        times: Nodes, shape (steps + 1,), float64, for `simulate`.
        solver: What it was made for.
        rule: Name of the rule that it was made from.
        error: Root-mean-square distance of the pilot states to the accurate flow, in units of the
            data, in as many steps or, for a longer grid, in 50. Six numbers of the grid were
            fitted to it: on other states it is a little larger.
        evaluations: Of the score, for each pilot state, that it took to make the grid.
        pilot: States in the pilot batch.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> normal = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(path)
        >>> flow = sg.ReverseSDE(path, normal.score, eta=0.0)
        >>> made = sg.timesteps.made_for(flow, 2, solver=sg.DDIM(), rng=0)
        >>> [f"{t:.1g}" for t in made.times], made.pilot
        (['1', '0.1', '0.001'], 48)
    """

    times: Tensor
    solver: FixedStep
    rule: str
    error: float
    evaluations: int
    pilot: int


def auto(
    flow: ReverseSDE,
    steps: int,
    x_T: State | None = None,
    *,
    solver: FixedStep | None = None,
    rng: Rng = None,
) -> Tensor:
    """Return the grid of `made_for`, made from the flow itself, for any path.

        t_0 … t_N ≈ arg min √⟨|x_N − x(t_min)|²⟩/α(t_min) over a pilot batch

    It costs 400 evaluations of the score for each of 48 pilot states, and about 50 N more, or 90 N
    without a solver, with N ≤ 50 steps.

    Args:
        flow: The probability flow, ReverseSDE(sde, score, eta=0.0).
        steps: N ≥ 1.
        x_T: Pilot states at t_max, shape (batch, *event).
        solver: What will take the steps.
        rng: Seed, generator or None, of the pilot states where they are not given.

    Returns:
        The nodes, shape (N + 1,), float64.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> normal = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(path)
        >>> flow = sg.ReverseSDE(path, normal.score, eta=0.0)
        >>> grid = sg.timesteps.auto(flow, 2, solver=sg.DDIM(), rng=0)
        >>> [f"{t:.1g}" for t in grid]  # t_max, where the steps are worth most, t_min
        ['1', '0.1', '0.001']
    """
    return made_for(flow, steps, x_T, solver=solver, rng=rng).times


def made_for(
    flow: ReverseSDE,
    steps: int,
    x_T: State | None = None,
    *,
    solver: FixedStep | None = None,
    rng: Rng = None,
) -> MadeGrid:
    """Make a grid for one flow, and for the solver that will use it.

        t_0 … t_N ≈ arg min √⟨|x_N − x(t_min)|²⟩/α(t_min) over a pilot batch

    The nodes are those of the best of some rules: uniform, power, Karras (ρ = 3, 7, 15), log-SNR,
    equal angles, and equal shares of the third derivative of ε̂; judged by the error of the solver
    on a pilot batch, and moved by six smooth changes that make it least. `pilot.py` has the
    theory.

    Args:
        flow: The probability flow, ReverseSDE(sde, score, eta=0.0) of a Gaussian path.
        steps: N ≥ 1. More than 50 are those of 50, with nodes put between.
        x_T: Pilot states at t_max, shape (batch, *event). None draws 48 of the prior, where the
            shape of an event is known: of a trained or loaded `ScoreModel`, an `MLP`'s, the law of
            a mixture.
        solver: What will take the steps, a solver of fixed steps without noise. None takes the
            best on the pilot of a few; the result has it.
        rng: Seed, generator or None, of the pilot states where they are not given.

    Returns:
        The grid, its solver, its error on the pilot, and what it cost.

    Raises:
        TypeError: If flow is not a ReverseSDE, or solver not one of fixed steps.
        ValueError: If the flow is noisy or has no kernel, the solver draws noise or does not solve
            it, or the shape of an event is not known.

    Example:
        >>> path = sg.VP(sg.LinearBeta(0.1, 20.0))
        >>> normal = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(path)
        >>> flow = sg.ReverseSDE(path, normal.score, eta=0.0)
        >>> made = sg.timesteps.made_for(flow, 2, solver=sg.DDIM(), rng=0)
        >>> made.rule, f"{made.error:.2f}"
        ('angle', '0.23')
    """
    check_count("steps", steps)
    sde = check_flow("flow", flow, "made_for")
    if x_T is None:
        event = getattr(flow.score, "event_shape", None)
        if event is None:
            raise ValueError(
                "the shape of an event is not known of this score: pass pilot states, such as "
                "x_T=sde.prior((48, 2)) for points in the plane."
            )
        x_T = sde.prior((_PILOT, *event), rng=rng, dtype=torch.float64)
    if solver is not None:
        check_solver(solver, flow, "made_for")
        solver.check(flow, solver.nodes(sde.time_grid(steps)))
    pilot = Pilot(flow, x_T)
    looked_at = min(steps, _MOST_PLACED)
    rules = {
        "equal shares of the third derivative": pilot.hard_stretches(looked_at),
        "angle": angle(sde, looked_at, pilot.data_std),
        "log_snr": log_snr(sde, looked_at),
        "karras": karras(sde, looked_at),
        "karras, rho = 3": karras(sde, looked_at, 3.0),
        "karras, rho = 15": karras(sde, looked_at, 15.0),
        "power": power(sde, looked_at),
        "uniform": uniform(sde, looked_at),
    }
    names, grids = list(rules), list(rules.values())
    solvers = members(looked_at, pilot.data_std) if solver is None else (solver,)
    chosen, i, error = pilot.best(solvers, grids)
    times = pilot.improved(chosen, grids[i])
    error = min(error, pilot.error(chosen, times))
    if steps > _MOST_PLACED:
        inner = np.interp(
            np.linspace(0, 1, steps + 1),
            np.linspace(0, 1, _MOST_PLACED + 1),
            sde.kernel.log_ratio(times),
        )
        times = pilot.times_at(torch.from_numpy(inner))
    return MadeGrid(times, chosen, names[i], error, pilot.evaluations, len(x_T))


def powers(first: float, last: float, steps: int, rho: float) -> Tensor:
    """Return (first^{1/ρ} + (i/N)(last^{1/ρ} − first^{1/ρ}))^ρ, both ends met exactly; N ≥ 1."""
    a, b = first ** (1 / rho), last ** (1 / rho)
    fraction = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
    values = torch.pow(a + fraction * (b - a), rho)
    values[0], values[-1] = first, last
    return values


def _spaced(
    sde: GaussianPath,
    steps: int,
    of_log_ratio: Callable[[Tensor], Tensor],
    log_ratio_of: Callable[[Tensor], Tensor],
    rho: float = 1.0,
) -> Tensor:
    """Return equal steps in c^{1/ρ} of some c(log σ/α), which is given with its inverse."""
    check_gaussian_path(sde)
    check_count("steps", steps)
    check_signal(sde, "a grid of levels of log SNR")
    ends = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
    low, high = of_log_ratio(sde.kernel.log_ratio(ends)).tolist()
    levels = log_ratio_of(powers(high, low, steps, rho))
    return times_between(sde.kernel, levels, sde.t_max, sde.t_min)
