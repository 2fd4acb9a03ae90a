"""The law of a chain that remembers: linear multistep methods on reverse dynamics.

    x_{i+1} = A x_i + Σ_j [P_j x_{i−j} + Q_j score(x_{i−j}, t_{i−j})] + S z

**With noise**, and one state remembered, it is the pair (x_{i−1}, x_i) that has the Markov
property. With F(v) = (A + P_0) v + Q_0 score(v, t_i) and G(u) = P_1 u + Q_1 score(u, t_{i−1}),

    p_{i+1}(v, w) = ∫ p_i(u, v) N(w; F(v) + G(u), S²) du

on a tensor grid. Since v enters the kernel as a shift alone, the integral is one product of
matrices, R(c, v) = ∫ N(c; G(u), S²) p_i(u, v) du, and p_{i+1}(v, w) = R(w − F(v), v), interpolated
in c, in which R has the width S. A method that remembers two states or more would need three axes:
it is refused.

**Without noise** each x_{i−j} is a function of x_i on the line, carried along, and a step is a
map, however much is remembered.

A node at which the score is asked twice is one more map, before the step that begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
import torch
from scipy.interpolate import BSpline, make_interp_spline
from torch import Tensor

from sdegen.core.shapes import ScoreFn
from sdegen.diffusion.samplers.adams_coefficients import Coefficients
from sdegen.verification.kernel import DEGREE, REACH, Array, Moments, TransitionOperator, normal

Field = Callable[[Array], Array]

_SPACING = 1 / 7  # of the points between which R is interpolated, in units of S: an error of 1e-12
_BLOCK, _BORDER = 32, 8  # nodes v at a time, and beside them
_MARGIN = 8  # nodes beyond those that are alive whose past is carried along


def propagate_two_step(
    operator: TransitionOperator,
    steps: Coefficients,
    score: ScoreFn,
    times: Tensor,
    p0: Array,
    point: float | None,
) -> Iterator[Array]:
    """Yield the densities of x_1, x_2, … of a method that remembers one state, with noise.

    Args:
        operator: Nodes, and what a step does on them.
        steps: Coefficients, K = 2; or K = 1, of a one-step method.
        score: ∇ log p_t(x).
        times: Nodes in time, shape (steps + 1,).
        p0: Density of x_0, shape (n,).
        point: Where x_0 is, if it is a point.

    Raises:
        ValueError: If a step has no noise, or the grid is too coarse.
    """
    joint, pair, p = None, None, p0
    for i, spread in enumerate(steps.noise.tolist()):
        if spread == 0:
            raise ValueError("it has no noise, so that two successive states have no density.")
        start, current, *behind = _fields(steps, score, times, i)
        past = behind[0] if behind else np.zeros_like

        def now(x: Array, start: Field = start, current: Field = current) -> Array:
            return start(x) + current(x)

        if joint is not None:
            pair = _Pair(operator, joint if pair is None else pair.joint, now, past, spread)
            yield pair.marginal()
            continue
        # nothing is remembered yet, or it is known where x_0 was
        shift = float(past(np.array([point]))[0]) if i == 1 else 0.0
        step = _gaussian(now, shift, spread)
        if i == 0 and point is not None:
            p, _ = operator.from_point(point, step)
        else:
            joint = p[:, None] * normal(operator.x, now(operator.x) + shift, spread).T
            p = operator.after(p, step)
        yield p


def propagate_noise_free(
    operator: TransitionOperator, steps: Coefficients, score: ScoreFn, times: Tensor, p0: Array
) -> Iterator[Array]:
    """Yield the densities of x_1, x_2, … of a method on noise-free dynamics; arguments as above.

    Raises:
        ValueError: If a step is not one to one, or the grid is too coarse.
    """
    p, past = p0, [operator.x]  # x_{i−j} where x_i is at the nodes
    for i in range(len(steps.decay)):
        start = operator.x
        if i == 1 and steps.again is not None:
            states, scores = steps.again.tile(2, 1, 1).unbind(1)
            again = Coefficients(torch.ones_like(steps.decay), states, scores, steps.noise)
            p, past = _moved(operator, p, past, operator.x, _fields(again, score, times, i))
            start = past.pop(1)
        p, past = _moved(operator, p, past, start, _fields(steps, score, times, i))
        yield p


def _moved(
    operator: TransitionOperator, p: Array, past: list[Array], start: Array, fields: list[Field]
) -> tuple[Array, list[Array]]:
    """Return the density after a noise-free step, and the past of each node.

    Args:
        operator: Nodes, and what a step does on them.
        p: Density of the state at which the score is asked.
        past: That state, at the nodes, and those before it as functions of it.
        start: The state that the step starts from, as a function of it.
        fields: What the start adds to the next state, and each of the past.
    """
    window = operator.support(p, _MARGIN)
    operator.check_resolved(p)
    m = fields[0](start[window])
    for field, state in zip(fields[1:], past, strict=False):
        m = m + field(state[window])
    p, inverse = operator.mapped(p, m, window)
    low, high = sorted((float(m[0]), float(m[-1])))
    inside = np.clip(operator.x, low, high)
    # beyond the image nothing is alive: any monotone continuation will do
    back = np.asarray(inverse(inside)) + (operator.x - inside)
    behind = [operator.x, back]
    for function in past[1:]:
        spline = make_interp_spline(operator.x, function, k=DEGREE)
        behind.append(spline(np.clip(back, operator.x[0], operator.x[-1])))
    return p, behind[: len(fields)]


def _fields(steps: Coefficients, score: ScoreFn, times: Tensor, i: int) -> list[Field]:
    """Return A x, then P_j x + Q_j score(x, t_{i−j}) for each j."""
    decay = float(steps.decay[i])
    columns = range(min(i + 1, steps.states.shape[1]))
    return [lambda x: decay * x, *(_field(steps, score, times, i, j) for j in columns)]


def _field(steps: Coefficients, score: ScoreFn, times: Tensor, i: int, j: int) -> Field:
    """Return P_j x + Q_j score(x, t_{i−j})."""
    factor, weight, t = float(steps.states[i, j]), float(steps.scores[i, j]), times[i - j]

    def field(x: Array) -> Array:
        if weight == 0:
            return np.asarray(factor * x)
        with torch.no_grad():
            s = score(torch.from_numpy(np.ascontiguousarray(x))[:, None], t)[:, 0].double().numpy()
        if not np.isfinite(s).all():
            raise ValueError(
                f"the score at x = {float(x[~np.isfinite(s)][0]):g}, t = {float(t):g} is not "
                "finite; choose a grid on which it exists."
            )
        return np.asarray(factor * x + weight * s)

    return field


def _gaussian(now: Field, shift: float, spread: float) -> Moments:
    """Return the moments of a step from one number alone."""
    return lambda x: (now(x) + shift, np.full_like(x, spread))


class _Pair:
    """p_{i+1}(v, w) from p_i(u, v), some v at a time: of u and c only a part concerns them.

    Args:
        operator: Nodes, and what a step does on them.
        before: p_i(u, v) at nodes × nodes.
        now: F.
        past: G.
        spread: S.

    Raises:
        ValueError: If the grid is too coarse for p_i as a function of u, or for the kernel.
    """

    def __init__(
        self, operator: TransitionOperator, before: Array, now: Field, past: Field, spread: float
    ) -> None:
        operator.check_resolved(before)
        self.operator, self.before = operator, before
        self.now, self.past, self.spread = now, past, spread
        self.support = operator.support(before.max(0))

    @cached_property
    def joint(self) -> Array:
        """p_{i+1}(v, w) at nodes × nodes."""
        out = np.zeros_like(self.before)
        for first in range(self.support.start, self.support.stop, _BLOCK):
            some = slice(first, min(first + _BLOCK, self.support.stop))
            spline = self._spline(some)
            out[some] = self._at(self.operator.x[some], spline, spline.c.T)
        return out

    def marginal(self) -> Array:
        """Return ∫ p_{i+1}(v, w) dv at nodes w, on v as fine as the kernel asks."""
        operator, total = self.operator, np.zeros(len(self.operator.x))
        refine = operator.refinement(self.now(operator.x[self.support]), self.spread)
        if refine == 1:
            return np.asarray(self.joint.sum(0) * operator.h)
        for first in range(self.support.start, self.support.stop, _BLOCK):
            last = min(first + _BLOCK, self.support.stop)
            # with a margin, so that a spline in v joins what is on either side
            wide = slice(max(first - _BORDER, 0), min(last + _BORDER, len(operator.x)))
            spline = self._spline(wide)
            v = operator.x[first] + np.arange((last - first) * refine) * (operator.h / refine)
            v = v[v <= operator.x[-1]]
            between = make_interp_spline(operator.x[wide], spline.c.T, k=DEGREE)
            total += self._at(v, spline, between(v)).sum(0)
        return total * (operator.h / refine)

    def _spline(self, some: slice) -> BSpline:
        """Return R(c, v) in c, for the nodes v of a slice."""
        operator, columns = self.operator, self.before[:, some]
        window = operator.support(columns.max(1), _BORDER)
        u, weight = operator.x[window], columns[window] * operator.h
        refine = operator.refinement(self.past(u), self.spread)
        if refine > 1:
            u = np.linspace(u[0], u[-1], (len(u) - 1) * refine + 1)
            weight = make_interp_spline(operator.x[window], weight, k=DEGREE)(u) / refine
        m, s = self.past(u), self.spread
        c = np.arange(m.min() - REACH * s, m.max() + (REACH + 1) * s, _SPACING * s)
        return make_interp_spline(c, normal(c, m, s) @ weight, k=DEGREE)

    def _at(self, v: Array, spline: BSpline, coefficients: Array) -> Array:
        """Return R(w − F(v), v), given the coefficients of a spline in c for each v."""
        out = np.zeros((len(v), len(self.operator.x)))
        low, high = spline.t[0], spline.t[-1]
        for k, shift in enumerate(self.now(v)):
            c = self.operator.x - shift
            inside = slice(*np.searchsorted(c, (low, high)))
            out[k, inside] = BSpline(spline.t, coefficients[k], DEGREE)(c[inside])
        return out
