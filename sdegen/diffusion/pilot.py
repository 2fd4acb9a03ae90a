"""A pilot: a few states carried to the data once, accurately, by which grids of times are judged.

The probability flow is solved in 400 steps from a pilot batch x_T (48 states unless given), which
tells two things. Along the way, how hard each stretch is: a multistep method continues ε̂ by a
polynomial in u = log(σ/α) = −λ, and what it neglects is the third derivative,

    w(u) = (rms_i |∂³ε̂_i/∂u³| σ/α)^{1/4} + a tenth of its mean,

so that nodes between which w has equal integrals share the error of a method of third order, and
the tenth keeps them from being far apart anywhere. At the end, where each state must arrive: any
grid is then judged by the run that it is made for, its solver's own, on the pilot,

    error(t) = √(mean_i |x_N(x_i; t) − X(x_i)|²).

The best of some grids is improved by smooth changes of the lengths h_i of its steps in u,

    log h_i → log h_i + Σ_k c_k cos(π k (i + ½)/N),       k = 1 … 6,

the c_k by Levenberg and Marquardt on the residuals x_N − X, with finite differences: six numbers
against 48 states leave little to learn by heart. Nothing is differentiated, so that a score
without derivatives will do, and a grid costs a few dozen runs of N evaluations where a calibration
(`calibration/calibrate.py`) takes hundreds, differentiated.

Reference:
    Zhou et al. 2024, arXiv:2312.00094, and Xue et al. 2024, arXiv:2402.17376, optimise grids for a
    model too, of other errors. Levenberg–Marquardt: Nocedal and Wright 2006, section 10.3.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sdegen.core.failure import add_step_note
from sdegen.core.fixed_steps import FixedStep, check_inner
from sdegen.core.kernel import Kernel, times_between
from sdegen.core.requests import check_kind
from sdegen.core.scores import CallCounter
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.solver import integrate
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.diffusion.samplers.angular_adams import AngularAdams
from sdegen.diffusion.samplers.multistep import ExponentialAdams, ExponentialAdamsMoulton
from sdegen.diffusion.signal import check_signal

_FINE = 400  # steps of the accurate solve
_ORDER, _FLOOR = 3, 0.1  # of the derivative of ε̂; the part of its mean that is added
_WAVES, _ROUNDS, _TRIALS = 6, 5, 3  # cosines, rounds of the descent, and its tries in a round
_STEP, _LONGEST = 0.02, 1.0  # of a finite difference in c_k, and the most that one may change
_GAIN = 0.02  # a round that gains less of the squared error is the last
_FEW = 7  # evaluations up to which order 4 is the better of the angular ones


def members(steps: int, data_std: float) -> tuple[FixedStep, ...]:
    """Solvers of one evaluation a step, of which one is near the best for any score.

    The first is for exact scores and smooth networks, the others do not mind a rough one.

    Args:
        steps: Evaluations.
        data_std: Standard deviation of the data.
    """
    return (
        AngularAdams(4 if steps <= _FEW else 6, data_std=data_std),
        AngularAdams(2, data_std=data_std),
        ExponentialAdamsMoulton(3, "v"),
        ExponentialAdams(2, "x0", "midpoint"),
    )


def walk(solver: FixedStep, flow: ReverseSDE, nodes: Tensor, x: State) -> State:
    """Return the state at nodes[-1] of a flow, which has no noise to draw; gradients flow."""
    i = 0
    try:
        memory = solver.begin(flow, nodes)  # what integrate checks has no gradient
        for i, x in enumerate(integrate(flow, solver, x, nodes, memory=memory), 1):  # noqa: B007, B020
            pass
    except Exception as error:
        add_step_note(error, i, nodes.detach())
        raise
    return x


def check_flow(name: str, flow: ReverseSDE, asked_by: str) -> GaussianPath:
    """Return the forward SDE of a probability flow with a kernel, or refuse other dynamics.

    Args:
        name: What the caller calls it.
        flow: What should be a flow, ReverseSDE(sde, score, eta=0.0).
        asked_by: What needs one.

    Raises:
        TypeError: If it is no ReverseSDE.
        ValueError: If it is noisy, or the reverse of no Gaussian path.
    """
    check_kind(name, flow, ReverseSDE, "the probability flow, ReverseSDE(sde, score, eta=0.0)")
    if flow.eta != 0:
        raise ValueError(
            f"{asked_by} compares paths with those of the flow, but {name} has eta = "
            f"{flow.eta:g}: pass ReverseSDE(sde, score, eta=0.0)."
        )
    if not isinstance(flow.forward, GaussianPath):
        raise ValueError(  # noqa: TRY004 (a ReverseSDE is of the right kind)
            f"{asked_by} needs the α and σ of a kernel: pass the ReverseSDE of a GaussianPath, "
            f"not of {type(flow.forward).__name__}."
        )
    check_signal(flow.forward, asked_by)
    return flow.forward


def check_solver(solver: FixedStep, flow: ReverseSDE, asked_by: str) -> None:
    """Refuse what cannot take a flow in fixed steps without noise; arguments as in `check_flow`.

    Raises:
        TypeError: If it is no solver of fixed steps.
        ValueError: If it draws noise, or ends with a denoised state.
    """
    if check_inner("solver", solver).is_stochastic(flow):
        raise ValueError(
            f"{asked_by} compares paths with those of the flow, but {solver!r} draws noise: pass "
            "it without churn or corrector."
        )


class Pilot:
    """A pilot batch, its accurate way to the data, and the error of any grid on it.

    Args:
        flow: The probability flow of a linear SDE, ReverseSDE(sde, score, eta=0.0).
        x_T: States at t_max, shape (batch, *event).

    Attributes:
        end: Where the flow takes them, at t_min.
        data_std: Standard deviation of the numbers of the ends, in units of the data.
    """

    def __init__(self, flow: ReverseSDE, x_T: State) -> None:
        kernel = flow.denoising.kernel
        assert kernel is not None  # who asks for a pilot sees to it
        self._kernel: Kernel = kernel
        self._counter = CallCounter()
        self._flow = flow.with_counter(self._counter)
        self._x_T = x_T.detach()
        self._low, self._high = flow.time_range
        ends = torch.tensor([self._high, self._low], dtype=torch.float64)
        first, last = kernel.log_ratio(ends).tolist()
        self._levels = torch.linspace(first, last, _FINE + 1, dtype=torch.float64)
        seen: list[State] = []
        solver, times = AngularAdams(4), self.times_at(self._levels)
        watched = ReverseSDE(flow.forward, _watched(self._flow.score, kernel, seen), eta=0.0)
        with torch.no_grad():
            self.end: State = walk(solver, watched, times, self._x_T)
        self._alpha = float(kernel.alpha(times[-1]))
        spread = (self.end / self._alpha).double()
        found = float((spread - spread.mean(0)).square().mean().sqrt())
        # of data that are one point, what noise is left
        self.data_std: float = max(found, math.exp(last)) if math.isfinite(found) else 1.0
        self._noise = torch.stack(seen).flatten(1).double().cpu()

    @property
    def evaluations(self) -> int:
        """Of the score, for each pilot state, so far."""
        return self._counter.calls

    def times_at(self, levels: Tensor) -> Tensor:
        """Return the times at which log(σ/α) takes these values; the ends are t_max and t_min."""
        return times_between(self._kernel, levels, self._high, self._low)

    def hard_stretches(self, steps: int) -> Tensor:
        """Return the grid between whose nodes w, the density on the page, has equal integrals.

        Args:
            steps: N ≥ 1.
        """
        h = float(self._levels[0] - self._levels[1])
        bent = self._noise
        for _ in range(_ORDER):
            bent = bent.diff(dim=0) / h
        middle = self._levels[: len(bent)] - 0.5 * _ORDER * h
        strength = (bent.square().mean(1).sqrt() * middle.exp()) ** (1 / (_ORDER + 1))
        density = np.atleast_1d(
            np.interp(-self._levels, -middle, strength + _FLOOR * strength.mean())
        )
        share = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
        if not 0 < share[-1] < math.inf:  # ε̂ is a straight line, as that of Gaussian data may be
            share = np.linspace(0.0, 1.0, len(share))
        wanted = np.linspace(0.0, share[-1], steps + 1)
        return self.times_at(torch.from_numpy(np.interp(wanted, share, self._levels)))

    def error(self, solver: FixedStep, times: Tensor) -> float:
        """√(mean_i |x_N − X|²) of a solver on a grid, in units of x/α; inf where a state is lost.

        Args:
            solver: Takes the flow, and draws no noise.
            times: From t_max to t_min.
        """
        return float(self._off(solver, times).square().sum(1).mean().sqrt())

    def improved(self, solver: FixedStep, times: Tensor) -> Tensor:
        """Return a grid of as many steps whose error on the pilot is not larger, see the page.

        Args:
            solver: As for `error`.
            times: Grid to begin from.
        """
        levels = self._kernel.log_ratio(times)
        steps = len(times) - 1
        waves = min(_WAVES, steps - 1)
        if waves == 0:
            return times
        place = torch.arange(steps, dtype=torch.float64) + 0.5
        k = torch.arange(1, waves + 1, dtype=torch.float64)
        shapes = torch.cos(math.pi / steps * k[:, None] * place)
        lengths, whole = (-levels.diff()).log(), levels[0] - levels[-1]

        def grid(c: Tensor) -> Tensor:
            share = torch.softmax(lengths + c @ shapes, 0).cumsum(0)
            return self.times_at(torch.cat([levels[:1], levels[0] - whole * share]))

        def residual(c: Tensor) -> Tensor:
            return self._off(solver, grid(c)).flatten()

        c = torch.zeros(waves, dtype=torch.float64)
        off = residual(c)
        least, damping, best = float(off.square().sum()), 1e-2, times
        for _ in range(_ROUNDS if math.isfinite(least) else 0):
            moved = [residual(c + _STEP * e) for e in torch.eye(waves, dtype=torch.float64)]
            slope = (torch.stack(moved, 1) - off[:, None]) / _STEP
            if not bool(slope.isfinite().all()):
                break
            curvature, downhill = slope.T @ slope, -slope.T @ off
            scale = torch.diag(curvature.diagonal() + 1e-12 * curvature.diagonal().max() + 1e-300)
            before = least
            for _ in range(_TRIALS):
                change = torch.linalg.solve(curvature + damping * scale, downhill)
                change = change * min(1.0, _LONGEST / max(float(change.abs().max()), 1e-300))
                tried = residual(c + change)
                found = float(tried.square().sum())
                if found < least:
                    c, off, least, damping = c + change, tried, found, max(damping / 5, 1e-6)
                    best = grid(c)
                    break
                damping *= 8
            if not least < (1 - _GAIN) * before:
                break
        return best

    def best(
        self, solvers: Sequence[FixedStep], grids: Sequence[Tensor]
    ) -> tuple[FixedStep, int, float]:
        """Return the solver and the grid, by its number, of the least error, and that error."""
        pairs = itertools.product(range(len(solvers)), range(len(grids)))
        error, j, i = min((self.error(solvers[j], grids[i]), j, i) for j, i in pairs)
        return solvers[j], i, error

    def _off(self, solver: FixedStep, times: Tensor) -> Tensor:
        """(x_N − X)/α for each state, flat, float64 on the CPU; infinite where one is lost."""
        with torch.no_grad():
            reached = walk(solver, self._flow, solver.nodes(times), self._x_T)
        off = ((reached - self.end) / self._alpha).flatten(1).double().cpu()
        return torch.where(off.isfinite(), off, math.inf)


def _watched(score: ScoreFn, kernel: Kernel, seen: list[State]) -> ScoreFn:
    """Return the same score, which appends every ε̂ = −σ score to `seen`."""

    def watching(x: State, t: Time) -> State:
        value = score(x, t)
        seen.append(-kernel.sigma(t).to(value) * value)
        return value

    return watching
