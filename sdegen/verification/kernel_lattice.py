"""A forward kernel and the densities around it, on a lattice: what `reverse_kernel` sums over.

    K_ij = p(X_t = x_i | X_{t−dt} = x_j),        Σ_j K_ij p_{t−dt}(x_j) w_j = p_t(x_i)

The points are even in u = ∫ dx/g and w_j = x′(u_j) Δu: the sum is the trapezoidal rule of a
smooth function that falls off at both ends, whose error is exp(−2π² s²/Δu²) for a Gaussian of
standard deviation s.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from torch import Tensor

from sdegen.core.derivatives import slope_of
from sdegen.core.errors import AccuracyWarning, SolverError
from sdegen.core.requests import as_number
from sdegen.core.sde import SDE
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.sde.transitions import LinearProcess, Transition

_SPACING = 0.7  # standard deviations of what is narrowest: the sum's error is e⁻⁴⁰
_WIDE = 9.5  # standard deviations to either side
_PER_WIDTH = 16  # nodes of a propagated kernel in its standard deviation: 4e-7 of its peak
_LEAST, _MOST = 48, 4000  # points
_NOTHING = 1e-13  # of the peak of a density: no kernel is propagated from there
_LEANS = 1e-10  # of the peak of a kernel, at an end of its own nodes


@dataclass(frozen=True, eq=False)
class Lattice:
    """A kernel on a lattice of n points.

    Attributes:
        x: Points, shape (n,).
        weight: w, shape (n,).
        kernel: K, shape (n, n); rows are X_t.
        before: p_{t−dt}, shape (n,).
        after: p_t, found without K, shape (n,).
        step_variance: Var(X_t | X_{t−dt} = x), shape (n,).
        beta_tilde: Var(X_{t−dt} | X_t, X_0), where it is one number; else None.
        beta_tilde_local: The same of the process linearised at each point, shape (n,).
    """

    x: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    kernel: Float[Tensor, "n n"]
    before: Float[Tensor, " n"]
    after: Float[Tensor, " n"]
    step_variance: Float[Tensor, " n"]
    beta_tilde: float | None
    beta_tilde_local: Float[Tensor, " n"]


def exact_lattice(
    sde: LinearProcess, law: GaussianMixture | float, t: float, dt: float, grid: Grid | None
) -> Lattice:
    """Return the lattice of a linear process, all in closed form."""
    step, until = sde.transition(t - dt, t), sde.transition(0.0, t - dt)
    before = _carried(law, until)
    after = _carried(law, sde.transition(0.0, t))
    phi, shift, spread = _numbers(step)
    if not spread > 0:
        raise ValueError(f"{type(sde).__name__} has no noise between {t - dt:g} and {t:g}.")
    width = math.sqrt(spread) / phi  # of K in its start
    # the posterior of one component is narrower than the kernel and the component
    narrowest = (1 / width**2 + 1 / float(before.variances.min())) ** -0.5
    laws = (before, after)
    low = min(float((m.means - _WIDE * m.variances.sqrt()).min()) for m in laws)
    high = max(float((m.means + _WIDE * m.variances.sqrt()).max()) for m in laws)
    if grid is not None:
        low, high = grid.low, grid.high
    # x_t is looked for on the same points: 1/Φ of a step is near 1, and p_t is no narrower
    count = _count((high - low) / (_SPACING * narrowest), dt)
    x = torch.linspace(low, high, count, dtype=torch.float64)
    weight = torch.full_like(x, (high - low) / (count - 1))
    off = x[:, None] - (phi * x + shift)
    kernel = torch.exp(-0.5 * off.square() / spread) / math.sqrt(2 * math.pi * spread)
    beginning = _numbers(until)[2]
    whole = phi**2 * beginning + spread
    return Lattice(
        x, weight, kernel,
        before.log_prob(x[:, None]).exp(),
        after.log_prob(x[:, None]).exp(),
        torch.full_like(x, spread),
        spread * beginning / whole,
        torch.full_like(x, spread * beginning / whole),
    )  # fmt: skip


def propagated_lattice(
    sde: SDE, law: GaussianMixture | Density | float, t: float, dt: float, grid: Grid | None
) -> Lattice:
    """Return the lattice of any SDE, its kernel propagated by `FokkerPlanck` from each point."""
    low, high = _ends(sde, law, grid)
    nodes, slope, stride, step = _nodes(sde, t, dt, low, high, _narrowest(law))
    x, weight = nodes[::stride], slope[::stride]
    whole = FokkerPlanck(sde, Grid.of(nodes))
    if isinstance(law, GaussianMixture):
        start: Density | float = Density(nodes, law.log_prob(nodes[:, None]).exp()).normalized()
    elif isinstance(law, Density):
        start = Density(nodes, law.at(nodes)).normalized()
    else:
        start = as_number("law", law)
    times = [0.0, t] if dt == t else [0.0, t - dt, t]
    path = whole.solve(start, times)
    before, after = path.at(-2).p[::stride].clamp(min=0.0), path.at(-1).p[::stride]
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)
    starts = (before > _NOTHING * before.max()).nonzero().flatten().tolist()
    for j in starts:
        first, values = _from_point(sde, nodes, step, stride * j, t, dt)
        at = torch.arange(len(values)) + first
        seen = at % stride == 0
        kernel[at[seen] // stride, j] = values[seen]
    mass = weight @ kernel
    mean = (weight * x) @ kernel
    square = weight @ (kernel * (x[:, None] - mean).square())
    spread, local = square / mass.clamp(min=_NOTHING), _local(sde, x, t, dt)
    return Lattice(x, weight, kernel, before, after, spread, None, local)


def _local(sde: SDE, x: Tensor, t: float, dt: float) -> Tensor:
    """Return V(dt) V(t − dt)/V(t), V(s) = g² (1 − e^{−2ks})/2k, k = −f′ and g at x, shape (n,)."""
    at, states = torch.tensor(t, dtype=torch.float64), x[:, None]
    k = -slope_of(lambda y: sde.drift(y, at), states)[:, 0]
    g = sde.diffusion(states, at).expand_as(states)[:, 0]

    def spread(s: float) -> Tensor:
        still = k.abs() * s < 1e-9
        rate = torch.where(still, 1.0, k)
        return g.square() * torch.where(still, s, -torch.expm1(-2 * rate * s) / (2 * rate))

    return spread(dt) * spread(t - dt) / spread(t)


def _from_point(
    sde: SDE, nodes: Tensor, step: float, start: int, t: float, dt: float
) -> tuple[int, Tensor]:
    """Return the first node of a kernel's own, and its values at them.

    Args:
        sde: What moves.
        nodes: All nodes.
        step: Their distance in standard deviations of a kernel.
        start: Index of the node where it starts.
        t: Time of the kernel.
        dt: Time since its start.
    """
    x0, began = nodes[start : start + 1, None], torch.tensor(t - dt, dtype=torch.float64)
    g = float(sde.diffusion(x0, began).abs().reshape(-1)[0])
    f = float(sde.drift(x0, began).abs().reshape(-1)[0])
    reach = _WIDE + f * math.sqrt(dt) / g
    while True:
        count = math.ceil(reach / step)
        first, last = max(start - count, 0), min(start + count, len(nodes) - 1)
        own = FokkerPlanck(sde, Grid.of(nodes[first : last + 1]), truncation_is_physical=True)
        with warnings.catch_warnings():
            # its error is looked at as a whole, by the p_t that it makes
            warnings.simplefilter("ignore", AccuracyWarning)
            found = own.solve(float(nodes[start]), [t - dt, t]).final
        p = found.p
        if found.fine is None and found.compared is not None:
            finer = found.compared.p[::2]
            if finer.shape == p.shape:
                p = p + (finer - p) * (16 / 15)  # both are of fourth order
        low = 0.0 if first == 0 else float(p[0])
        high = 0.0 if last + 1 == len(nodes) else float(p[-1])
        if max(abs(low), abs(high)) <= _LEANS * float(p.max()):
            return first, p
        reach *= 1.5


def _nodes(
    sde: SDE, t: float, dt: float, low: float, high: float, narrow: float
) -> tuple[Tensor, Tensor, int, float]:
    """Return nodes even in u = ∫ dx/(g √dt), x′ Δu of the lattice there, its stride, their step.

    Args:
        sde: What moves.
        t: Time at which g is asked.
        dt: The step.
        low: First node.
        high: Last node.
        narrow: The narrowest standard deviation in the law of the start.
    """
    at = torch.tensor(t, dtype=torch.float64)

    def g(x: np.ndarray) -> np.ndarray:
        states = torch.as_tensor(np.atleast_1d(x), dtype=torch.float64)[:, None]
        values: np.ndarray = sde.diffusion(states, at).abs().expand_as(states)[:, 0].numpy()
        return values

    probe = g(np.linspace(low, high, 2001))
    if not bool((probe > 1e-6 * probe.max()).all()):
        raise ValueError(
            f"the noise of {type(sde).__name__} vanishes between {low:g} and {high:g}, where its "
            "kernel has no width: pass grid= with ends inside of that point, or change to a "
            "coordinate in which it does not."
        )
    length = float(np.trapezoid(1 / probe, np.linspace(low, high, 2001))) / math.sqrt(dt)
    finest = length * max(1.0, float(probe.max()) * math.sqrt(dt) / narrow)
    count = max(_count(finest / _SPACING, dt), _LEAST)
    stride = max(1, math.ceil(_PER_WIDTH * finest / (count - 1)))
    total = stride * (count - 1)
    if np.ptp(probe) <= 1e-14 * probe.max():
        x = np.linspace(low, high, total + 1)
        slope = np.full_like(x, (high - low) / (count - 1))
        return torch.from_numpy(x), torch.from_numpy(slope), stride, length / total

    def flow(_: float, x: np.ndarray) -> np.ndarray:
        return g(x)

    def end(_: float, x: np.ndarray) -> float:
        return float(x[0] - high)

    end.terminal = True  # type: ignore[attr-defined]
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13}
    there = solve_ivp(flow, (0, 1e9), [low], events=end, **options).t_events[0][0]
    u = np.linspace(0.0, there, total + 1)
    x = solve_ivp(flow, (0, there), [low], t_eval=u, **options).y[0]
    slope = g(x) * there / (count - 1)
    return torch.from_numpy(x.copy()), torch.from_numpy(slope), stride, length / total


def _ends(
    sde: SDE, law: GaussianMixture | Density | float, grid: Grid | None
) -> tuple[float, float]:
    """Return between which states are looked for."""
    if grid is not None:
        return grid.low, grid.high
    if isinstance(law, Density):
        return float(law.x[0]), float(law.x[-1])
    raise ValueError(
        f"grid is needed, since {type(sde).__name__} is not linear and {law!r} does not say where "
        "its states are: pass grid=Grid(low, high, cells), with ends that hold all of the density."
    )


def _narrowest(law: GaussianMixture | Density | float) -> float:
    """Return the narrowest standard deviation in a law, of a Density as its nodes can show it."""
    if isinstance(law, GaussianMixture):
        return math.sqrt(float(law.variances.min()))
    return 4 * float(law.x.diff().min()) if isinstance(law, Density) else math.inf


def _carried(law: GaussianMixture | float, by: Transition) -> GaussianMixture:
    """Return the law of X_s, s after the start."""
    phi, shift, spread = _numbers(by)
    if isinstance(law, GaussianMixture):
        variances = law.variances[:, 0] * phi**2 + spread
        return GaussianMixture(law.weights, phi * law.means + shift, stds=variances.sqrt())
    return GaussianMixture([1.0], [phi * as_number("law", law) + shift], stds=math.sqrt(spread))


def _numbers(transition: Transition) -> tuple[float, float, float]:
    """Return Φ, m and Σ of one coordinate."""
    parts = (transition.matrix, transition.shift, transition.covariance)
    for part in parts:
        if part.numel() != 1:
            raise ValueError(
                f"sde must be of one dimension, but its transition has shape {tuple(part.shape)}."
            )
    phi, shift, spread = (float(part) for part in parts)
    return phi, shift, spread


def _count(points: float, dt: float) -> int:
    """Return how many points, or refuse more than there can be."""
    if points > _MOST:
        raise SolverError(
            f"a step dt = {dt:g} makes kernels so narrow that {math.ceil(points)} points would be "
            f"needed, and {_MOST} are the most: take a longer step, at "
            "which all is near its limit already, or pass grid= with ends that are closer."
        )
    return max(math.ceil(points) + 1, 9)
