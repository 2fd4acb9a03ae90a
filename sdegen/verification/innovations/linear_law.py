"""The law of linear steps, however many of them lie between two stored states.

Exact transitions of a linear process, and chains of any solver that is affine in state and noise,

    x' = Φ x + m + r,        r ~ N(0, Σ),

have innovations z = L⁻¹ r with the Cholesky factor Σ = L Lᵀ of what the noise moves. Directions
that it does not move are eigenvectors of Σ, in units of what each coordinate's noise is, with the
eigenvalue 0: there r must be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep, OneStep
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.sde.transitions import LinearProcess, Transition
from sdegen.verification.chain_moments import strided_transition
from sdegen.verification.innovations.law import Innovations, StepLaw, is_even, size_of

Transitions = Callable[[float, float], Transition]  # of times t and s

_NOTHING = 1e-11  # relative eigenvalue of a correlation: what is left of none by rounding
_LOOKED = 1e-9  # relative: by how much a drift may fail to be linear


@dataclass(frozen=True)
class _Whitened:
    """What the innovations of one transition need.

    Attributes:
        white: W with W Σ Wᵀ = 1, shape (k, d); a number where coordinates are alike.
        carried: W (Φ − 1), like white.
        moved: W m, shape (k,), or a number.
        log_scale: ½ log det Σ over what the noise moves.
        null: Directions without noise, shape (q, d); None where there are none.
        null_carried, null_moved: The same of them.
    """

    white: Tensor
    carried: Tensor
    moved: Tensor
    log_scale: float
    null: Tensor | None = None
    null_carried: Tensor | None = None
    null_moved: Tensor | None = None


class LinearLaw(StepLaw):
    """The law of transitions x' ~ N(Φ x + m, Σ).

    Args:
        name: What it is the law of.
        nodes: Times of the states, shape (steps + 1,).
        transition: The law of X_s given X_t, from t and s.
        alike: Whether a transition depends on s − t alone.
    """

    def __init__(self, name: str, nodes: Tensor, transition: Transitions, *, alike: bool) -> None:
        self.name: str = name
        self._nodes = nodes.tolist()
        self._transition = transition
        self.alike: bool = alike and is_even(nodes)
        self._known: tuple[int, int, _Whitened] | None = None  # of the last step, and its width

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        rows, then = x.reshape(len(x), -1), after.reshape(len(x), -1)
        law = self._whitened(0 if self.alike else i, rows.shape[1])
        step = then - rows
        pull = _product(rows, law.carried) + law.moved.to(rows)
        z = _product(step, law.white) - pull
        log_scale = torch.full((len(x),), law.log_scale, dtype=torch.float64)
        if law.null is None or law.null_carried is None or law.null_moved is None:
            return Innovations(z, pull, log_scale)
        null, carried, moved = (
            one.to(rows) for one in (law.null, law.null_carried, law.null_moved)
        )
        gap = step @ null.T - rows @ carried.T - moved
        size = size_of(then, step) @ null.abs().T + rows.abs() @ (null.abs() + carried.abs()).T
        return Innovations(z, pull, log_scale, gap, size)

    def _whitened(self, i: int, d: int) -> _Whitened:
        """Return what step i needs, which is remembered until another one is asked for."""
        if self._known is None or self._known[:2] != (i, d):
            law = self._transition(self._nodes[i], self._nodes[i + 1])
            self._known = (i, d, _whitened(law, d))
        return self._known[2]


def exact_law(sde: SDE, nodes: Tensor) -> LinearLaw:
    """Return the law of states that the exact transitions of a linear process made.

    Raises:
        ValueError: If the process has no transition, or times decrease.
    """
    if not isinstance(sde, LinearProcess):
        raise ValueError(  # noqa: TRY004, a question that does not fit the SDE
            f"solver='exact' is for a process whose transitions are Gaussian and known, such as "
            f"OrnsteinUhlenbeck or LinearSDE, and {type(sde).__name__} has none; pass the solver "
            "that made the states, such as EulerMaruyama()."
        )
    if float(nodes[-1]) < float(nodes[0]):
        raise ValueError(
            f"solver='exact' takes the transitions of {type(sde).__name__} forwards, but times "
            "decrease; pass states and times in increasing order."
        )
    return LinearLaw("the exact transitions", nodes, sde.transition, alike=bool(sde.autonomous))


def strided_law(
    sde: SDE, solver: FixedStep, nodes: Tensor, event: tuple[int, ...]
) -> LinearLaw | None:
    """Return the law of `substeps` steps of a solver on linear dynamics; None of any other.

    Args:
        sde: What moves, by belief.
        solver: How it moves.
        nodes: Times of the states.
        event: Shape of the event.
    """
    if strided_transition_of(sde, solver, nodes, event) is None:
        return None

    def chain(t: float, s: float) -> Transition:
        with torch.no_grad():
            return strided_transition(sde, solver, event, t, s)

    alike = bool(sde.autonomous) and isinstance(solver, OneStep)
    name = type(solver).__name__
    if solver.substeps > 1:
        name = f"{name}, {solver.substeps} to a stored one"
    return LinearLaw(name, nodes, chain, alike=alike)


def strided_transition_of(
    sde: SDE, solver: FixedStep, nodes: Tensor, event: tuple[int, ...]
) -> Transition | None:
    """Return the law of the first of such transitions; None where dynamics are not linear."""
    if sde.noise == "multiplicative" or not _is_linear(sde, nodes, event):
        return None
    with torch.no_grad():
        try:
            return strided_transition(sde, solver, event, float(nodes[0]), float(nodes[1]))
        except (ValueError, TypeError, NotImplementedError):
            return None  # it remembers, or is affine in none of its draws


def _is_linear(sde: SDE, nodes: Tensor, event: tuple[int, ...]) -> bool:
    """Return whether a drift may be linear: f(u) + f(v) = f(u + v) + f(0) at two states."""
    wave = torch.arange(1, 1 + int(torch.Size(event).numel()), dtype=torch.float64)
    u, v = (0.7 * wave).sin().reshape(event), (1.3 * wave).cos().reshape(event)
    rows = torch.stack([u, v, u + v, torch.zeros_like(u)])
    with torch.no_grad():
        try:
            f = sde.drift(rows, nodes[0]).reshape(4, -1)
        except (RuntimeError, ValueError, TypeError):  # of other states than these
            return False
    off = (f[0] + f[1] - f[2] - f[3]).abs().max()
    return bool(off <= _LOOKED * f.abs().max())  # false of NaN


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return M x of rows, or c x."""
    matrix = matrix.to(rows)
    return rows * matrix if matrix.ndim == 0 else rows @ matrix.T


def _whitened(law: Transition, d: int) -> _Whitened:
    """Return what whitens a transition of d numbers."""
    parts = (law.matrix, law.shift, law.covariance)
    phi, shift, spread = (part.detach().double() for part in parts)
    if phi.ndim == 0 and float(spread) > 0:
        one = 1 / spread.sqrt()
        return _Whitened(one, one * (phi - 1), one * shift, 0.5 * d * float(spread.log()))
    eye = torch.eye(d, dtype=torch.float64)
    if phi.ndim == 0:
        phi, spread = phi * eye, spread * eye
    shift = shift.expand(d)
    unit = spread.diagonal().clamp(min=0.0).sqrt()
    unit = torch.where(unit > 0, unit, 1.0)
    scaled = spread / torch.outer(unit, unit)
    less = phi - eye
    factor, info = torch.linalg.cholesky_ex(scaled)
    if not bool(info) and float(factor.diagonal().square().min()) > _NOTHING:
        white = torch.linalg.solve_triangular(factor, torch.diag(1 / unit), upper=False)
        log_scale = float(factor.diagonal().log().sum() + unit.log().sum())
        return _Whitened(white, white @ less, white @ shift, log_scale)
    values, vectors = torch.linalg.eigh(scaled)
    noisy = values > _NOTHING
    base, null = vectors[:, noisy] * unit[:, None], vectors[:, ~noisy].T / unit
    null = null / null.norm(dim=1, keepdim=True)
    inner = vectors[:, noisy].T / unit
    white = inner / values[noisy].sqrt()[:, None]
    # the volume of what the noise moves, in the units of the state
    gram = base.T @ base
    log_scale = 0.5 * float(values[noisy].log().sum() + torch.logdet(gram))
    return _Whitened(
        white, white @ less, white @ shift, log_scale, null, null @ less, null @ shift
    )
