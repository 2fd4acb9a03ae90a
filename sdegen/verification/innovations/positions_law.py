"""Positions alone of underdamped Langevin dynamics: the velocity is hidden, and filtered.

A step of each method is, for each coordinate and with a hidden u that velocity and force make up,

    x_{k+1} = x_k + α u_k + β z_k,        u_{k+1} = c u_k + σ z_k + κ_k,

where κ is known from the positions:

| method | u | α | β | c | σ | κ_k |
| --- | --- | --- | --- | --- | --- | --- |
| BAOAB | v + h F/2m | h (1 + c)/2 | h σ/2 | e^{−γh} | √((1 − c²) T/m) | h F_{k+1}/m |
| OBABO | v in the flight | h | 0 | e^{−γh} | √((1 − c²) T/m) | h (1 + c) F_{k+1}/2m |
| EulerMaruyama | v | h | 0 | 1 − γh | √(2γTh/m) | h F_k/m |

so that second differences of x have noise that is correlated over two steps, of BAOAB
(h/2) σ (z_k + z_{k+1}). With u_k ~ N(û, p) given all positions up to x_k, the next one is
N(x_k + α û, S), and

    S = α² p + β²,    K = (α c p + β σ)/S,    ν_k = x_{k+1} − x_k − α û_k,    z̃_k = ν_k/√S,
    û' = c û + K ν + κ,        p' = c² p + σ² − K² S,

and z̃ are independent standard normals: Kalman's filter, whose p depends on no data. Nothing is
assumed of the first velocity: the first step tells it, û = c d/α + κ and p = (σ − c β/α)² with
d = x_1 − x_0, and is not judged. Then p = σ² where β = 0, and of BAOAB, after n steps,

    p = (β/α)²/n,        S = β² (n + 1)/n,        c − K α = −n/(n + 1):

what the first step left open is forgotten as 1/n, and in no number of steps altogether.

Several steps of linear dynamics between two stored positions are filtered in the same way, by the
matrices of the chain.

Reference:
    Kalman 1960, J. Basic Eng. 82, 35; Durbin and Koopman 2012, Time Series Analysis by State Space
    Methods, chapter 5, for starts of which nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.sde.transitions import Transition
from sdegen.sde.underdamped import UnderdampedLangevin
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.splitting import BAOAB, OBABO
from sdegen.verification.innovations.law import Innovations, StepLaw, is_even
from sdegen.verification.innovations.linear_law import strided_transition_of

_SETTLED = 1e-14  # relative: by which p may change in a step once it is at rest


@dataclass(frozen=True)
class _Recurrence:
    """The numbers of a method, each of the shape of a position's numbers, (d,).

    Attributes:
        alpha, beta, c, sigma: As on this page.
        before, after: Of F_k and F_{k+1} in κ_k.
    """

    alpha: Tensor
    beta: Tensor
    c: Tensor
    sigma: Tensor
    before: Tensor
    after: Tensor


class _Hidden(NamedTuple):
    """What is known of the hidden velocity at the end of a block.

    Attributes:
        steps: Steps since the stretch began.
        mean: û, shape (B, d).
        slope: ∂û/∂δ of a drift that is (1 + δ) times as strong.
    """

    steps: int
    mean: Tensor
    slope: Tensor


class PositionsLaw(StepLaw):
    """The law of positions alone, one step of a method apart.

    Args:
        sde: Underdamped Langevin dynamics, of constant friction and mass.
        solver: BAOAB(), OBABO() or EulerMaruyama().
        nodes: Times of the positions, evenly spaced.
        event: Shape of a position.

    Raises:
        ValueError: If friction is a function, times are uneven or decrease, or the solver has no
            such recurrence.
    """

    remembers = True

    def __init__(
        self, sde: UnderdampedLangevin, solver: FixedStep, nodes: Tensor, event: tuple[int, ...]
    ) -> None:
        self.name: str = f"{type(solver).__name__}, positions"
        self._sde = sde
        self._nodes = nodes
        self.alike: bool = bool(sde.autonomous)
        self._numbers = _recurrence(sde, solver, float(nodes[1] - nodes[0]), event)

    @property
    def takes_centre(self) -> bool:
        """Yes: each z is that of one coordinate."""
        return True

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Refuse single steps, of which the velocity is not known."""
        raise NotImplementedError

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return z of the steps between frames x, (F + 1, B, *event), and what is known then."""
        r = self._numbers
        frames, batch = x.shape[:2]
        force = self._forces(x, first).detach().reshape(frames, batch, -1).double()
        rows = x.reshape(frames, batch, -1).double()
        d = rows.diff(dim=0)
        kicks = r.before * force[:-1] + r.after * force[1:]
        judged = torch.ones(frames - 1, batch, dtype=torch.bool)
        if isinstance(memory, _Hidden):
            hidden = memory
        else:  # the first step tells the velocity
            hidden = _Hidden(1, r.c * d[0] / r.alpha + kicks[0], kicks[0])
            judged[0] = False
        begun = int(not isinstance(memory, _Hidden))
        count = len(d) - begun
        if count == 0:
            return _nothing(d), hidden
        steps = hidden.steps + torch.arange(count, dtype=torch.float64)
        spread, gain = _moments(r, steps)
        told = gain[:, None] * d[begun:] + kicks[begun:]
        mean, last = _filtered(hidden.mean, r, steps, told)
        slope, steep = _filtered(hidden.slope, r, steps, kicks[begun:])
        z = torch.zeros_like(d)
        pull = torch.zeros_like(d)
        log_scale = torch.zeros(frames - 1, dtype=torch.float64)
        root = spread.sqrt()[:, None]
        z[begun:] = (d[begun:] - r.alpha * mean) / root
        pull[begun:] = r.alpha * slope / root
        log_scale[begun:] = 0.5 * spread.log().sum(1)
        found = Innovations(
            z.flatten(0, 1),
            pull.flatten(0, 1),
            log_scale[:, None].expand(-1, batch).flatten(),
            judged=None if bool(judged.all()) else judged.flatten(),
        )
        return found, _Hidden(hidden.steps + count, last, steep)

    def _forces(self, x: State, first: int) -> Tensor:
        """Return F of all frames."""
        if self._sde.autonomous:
            return self._sde.force(x.flatten(0, 1), self._nodes[0]).reshape(x.shape)
        each = [self._sde.force(y, self._nodes[first + k]) for k, y in enumerate(x)]
        return torch.stack(each)


def _nothing(d: Tensor) -> Innovations:
    """Return innovations of a first step alone."""
    z = torch.zeros_like(d).flatten(0, 1)
    none = torch.zeros(len(z), dtype=torch.float64)
    return Innovations(z, z, none, judged=torch.zeros(len(z), dtype=torch.bool))


def _moments(r: _Recurrence, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Return S and K of the steps 1, 2, … of a stretch, each (n, d)."""
    p = r.sigma.square() + 0 * steps[:, None]
    if bool((r.beta > 0).all()):
        p = (r.beta / r.alpha).square() / steps[:, None]
    spread = r.alpha.square() * p + r.beta.square()
    return spread, (r.alpha * r.c * p + r.beta * r.sigma) / spread


def _filtered(
    start: Tensor, r: _Recurrence, steps: Tensor, added: Tensor
) -> tuple[Tensor, Tensor]:
    """Return û before each step, (n, B, d), and after the last: û' = (c − K α) û + added."""
    if not bool((r.beta > 0).all()):
        whole = torch.cat([start[None], added])
        return whole[:-1], whole[-1]
    # c − K α = −n/(n + 1), so that (−1)ⁿ n û is a sum
    n = torch.cat([steps, steps[-1:] + 1])[:, None, None]
    sign = 1 - 2 * (n % 2)
    terms = torch.cat([start[None], added]) * sign * n
    whole = terms.cumsum(0) * sign / n
    return whole[:-1], whole[-1]


def _recurrence(
    sde: UnderdampedLangevin, solver: FixedStep, h: float, event: tuple[int, ...]
) -> _Recurrence:
    """Return the numbers of a method on some dynamics."""

    def of_all(value: float | Tensor) -> Tensor:
        tensor = torch.as_tensor(value, dtype=torch.float64).detach()
        return tensor.expand(event).reshape(-1)

    assert not callable(sde.friction)  # as `positions_law` has seen
    rate, mass = of_all(sde.friction), of_all(sde.mass)
    heat = of_all(sde.temperature) / mass
    zero = torch.zeros_like(rate)
    if isinstance(solver, EulerMaruyama):
        sigma = (2 * rate * heat * h).sqrt()
        return _Recurrence(zero + h, zero, 1 - rate * h, sigma, h / mass, zero)
    c = (-rate * h).exp()
    sigma = (-(-2 * rate * h).expm1() * heat).sqrt()
    if isinstance(solver, OBABO):
        return _Recurrence(zero + h, zero, c, sigma, zero, 0.5 * h * (1 + c) / mass)
    return _Recurrence(0.5 * h * (1 + c), 0.5 * h * sigma, c, sigma, zero, h / mass)


class StridedPositionsLaw(StepLaw):
    """The law of positions alone, several steps of linear dynamics apart.

    Args:
        name: What it is the law of.
        nodes: Times of the positions, evenly spaced.
        transition: The law of positions and velocities from one stored position to the next.
    """

    remembers = True
    alike = True

    def __init__(self, name: str, transition: Transition) -> None:
        self.name = name
        n = len(transition.shift) // 2
        self._n, self._shift = n, transition.shift
        self._phi, self._spread = transition.matrix, transition.covariance
        self._known: list[tuple[Tensor, Tensor, Tensor]] = []  # S, gain and p after it

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Refuse single steps, of which the velocity is not known."""
        raise NotImplementedError

    def along(self, x: State, first: int, memory: object) -> tuple[Innovations, object]:
        """Return z of the steps between frames x, (F + 1, B, *event), and what is known then."""
        n, phi = self._n, self._phi
        frames, batch = x.shape[:2]
        rows = x.reshape(frames, batch, -1).double()
        still = rows[:-1] @ phi[:, :n].T + self._shift  # of what is seen
        z, pull = torch.zeros_like(rows[1:]), torch.zeros_like(rows[1:])
        log_scale = torch.zeros(frames - 1, dtype=torch.float64)
        judged = torch.ones(frames - 1, batch, dtype=torch.bool)
        known = memory if isinstance(memory, _Hidden) else None
        for k in range(frames - 1):
            place, v = still[k, :, :n], still[k, :, n:]
            if known is None:
                carried = torch.linalg.solve(phi[:n, n:].T, phi[n:, n:].T)
                mean = v + (rows[k + 1] - place) @ carried
                known, judged[k] = _Hidden(0, mean, mean), False
                continue
            lower, gain = self._step(known.steps)
            ahead = place + known.mean @ phi[:n, n:].T
            nu = rows[k + 1] - ahead
            both = torch.cat([nu, ahead - rows[k]])
            white = torch.linalg.solve_triangular(lower, both.T, upper=False).T
            z[k], pull[k] = white.split(batch)
            log_scale[k] = lower.diagonal().log().sum()
            mean = v + known.mean @ phi[n:, n:].T + nu @ gain.T
            known = _Hidden(known.steps + 1, mean, mean)
        found = Innovations(
            z.flatten(0, 1),
            pull.flatten(0, 1),
            log_scale[:, None].expand(-1, batch).flatten(),
            judged=None if bool(judged.all()) else judged.flatten(),
        )
        return found, known

    def _step(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of S, and the gain, of a step of a stretch."""
        n, phi, spread = self._n, self._phi, self._spread
        if not self._known:
            C = torch.linalg.solve(phi[:n, n:].T, phi[n:, n:].T).T
            one = torch.cat([-C, torch.eye(n, dtype=C.dtype)], 1)
            self._known.append((C, C, one @ spread @ one.T))
        while len(self._known) <= count + 1:
            p = self._known[-1][2]
            carried = phi[:, n:] @ p @ phi[:, n:].T + spread
            lower = torch.linalg.cholesky(carried[:n, :n])
            gain = torch.cholesky_solve(carried[:n, n:], lower).T
            after = carried[n:, n:] - gain @ carried[:n, n:]
            self._known.append((lower, gain, 0.5 * (after + after.T)))
            if bool(((after - p).abs() <= _SETTLED * p.diagonal().max()).all()):
                break
        lower, gain, _ = self._known[min(count + 1, len(self._known) - 1)]
        return lower, gain


def positions_law(sde: SDE, solver: FixedStep, nodes: Tensor, event: tuple[int, ...]) -> StepLaw:
    """Return the law of positions that were stored without their velocities.

    Args:
        sde: What moves, by belief.
        solver: How it moves.
        nodes: Times of the positions.
        event: Shape of a position.

    Raises:
        ValueError: Saying what to store, or to pass.
    """
    gaps = nodes.diff()
    cure = "store velocities as well, and pass read_states(x, velocities=v, …)"
    if not isinstance(sde, UnderdampedLangevin) or sde.own_methods("drift", "diffusion"):
        raise ValueError(
            f"{type(sde).__name__} moves positions and velocities, and path has states of shape "
            f"{event}, positions alone, which are judged for UnderdampedLangevin; {cure}."
        )
    if callable(sde.friction) or sde.noise == "none":
        what = "depends on the position" if callable(sde.friction) else "or temperature is 0"
        raise ValueError(
            f"positions alone are judged where friction is constant and there is noise, but the "
            f"friction {what}; {cure}."
        )
    if not is_even(nodes) or float(gaps[0]) < 0:
        raise ValueError(
            "positions alone are judged where they are evenly spaced in increasing times, but "
            f"steps are {float(gaps.min()):g} … {float(gaps.max()):g}; {cure}."
        )
    if type(solver) not in (BAOAB, OBABO, EulerMaruyama):
        raise ValueError(
            f"positions alone are judged as steps of BAOAB(), OBABO() or EulerMaruyama(), but "
            f"solver is {type(solver).__name__}; {cure}."
        )
    if solver.substeps == 1:
        return PositionsLaw(sde, solver, nodes, event)
    law = strided_transition_of(sde, solver, nodes, (2, *event))
    if law is None:
        raise ValueError(
            f"positions alone are judged one step apart, but {solver.substeps} steps of a force "
            f"that is not linear lie between two of them; {cure}, or store each step."
        )
    return StridedPositionsLaw(f"{type(solver).__name__}, positions", law)
