"""The law of steps that are known by their answers: polynomials of one normal a coordinate.

A solver is asked what it makes of z = 0, 1, −1 for all coordinates at once,

    x'(z) = a + b z + c z²

and of other draws, whether that is all. With c = 0 (DDIM at any η, exponential methods, ancestral
steps) z = (x' − a)/b. With c ≠ 0 (Milstein's method of diagonal noise) two draws lead to one x',

    P(X' ≤ x') = Φ(z₊) − Φ(z₋) for c > 0,

and the innovation is the normal of this probability: as good as the noise itself for every test
of the law of a step given the state before it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.core.fixed_steps import FixedStep
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory
from sdegen.verification.given_draws import GivenDraws
from sdegen.verification.innovations.law import Innovations, StepLaw, is_even, joined
from sdegen.verification.innovations.normal import log_density, normal_between
from sdegen.verification.innovations.update_law import of_diagonal

_ROWS = 64  # of which it is looked at whether a polynomial is all
_NEVER = -700.0  # log-density where there is none
_SAME = {torch.float64: 1e-9, torch.float32: 1e-4}


class ProbedLaw(StepLaw):
    """The law of a solver whose step is a polynomial in one normal for each coordinate.

    Args:
        sde: What moves, by belief.
        solver: How it moves.
        nodes: Times of the states, shape (steps + 1,).
        one_by_one: Whether each step is one of its own, though dynamics are the same.

    Raises:
        ValueError: From `innovations`, if a step is no such polynomial.
    """

    by_coordinate = True

    def __init__(
        self, sde: SDE, solver: FixedStep, nodes: Tensor, *, one_by_one: bool = False
    ) -> None:
        self.name: str = type(solver).__name__
        self._sde = sde
        self._solver = solver
        self.alike: bool = bool(sde.autonomous) and is_even(nodes) and not one_by_one
        nodes = nodes[:2] if self.alike else nodes
        self.memory: Memory = solver.begin(sde, nodes)
        self._lengths = nodes.diff().tolist()
        self._looked, self._noisy = False, solver.is_stochastic(sde)

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Return z of transitions; x and after have shape (n, *event)."""
        i = 0 if self.alike else i
        start = self._after(x, 0.0, i)
        up, down = self._after(x, 1.0, i) - start, self._after(x, -1.0, i) - start
        b, c = 0.5 * (up - down), 0.5 * (up + down)
        size = float(start.abs().max() + b.abs().max())
        c = torch.where(c.abs() <= _SAME[x.dtype] * (b.abs() + 1e-3 * size), 0.0, c)
        self._look(x, start, b, c, i)
        left, moved = after.reshape(len(x), -1) - start, start - x.reshape(len(x), -1)
        if not bool((c != 0).any()):
            if self._noisy and not bool((b != 0).any()):  # a step without noise among others
                none = torch.zeros(len(x), dtype=torch.bool)
                return Innovations(0 * left, moved, none.double(), judged=none)
            return of_diagonal(b, left, moved, x)
        return _quadratic(left, moved, b, c)

    def _after(self, x: State, z: float | Tensor, i: int) -> Tensor:
        """Return where draws lead, shape (n, d)."""
        if isinstance(z, float):
            z = torch.full_like(x, z)
        noise = GivenDraws(z.reshape(len(x), -1), None, tuple(x.shape[1:]), self._lengths[i])
        noise.shared = True
        draws = noise if self._solver.is_stochastic(self._sde) else None
        y = self._solver.step(self._sde, x, i, draws, self.memory)[0]
        if noise.drawn > x[0].numel():
            raise ValueError(
                f"{self.name} draws more than one normal for each coordinate, so that its noise "
                "cannot be told from its states."
            )
        return y.reshape(len(x), -1)

    def remembering(self, x: State, i: int) -> Memory:
        """Return what the solver remembers after step i from states x."""
        noise = None
        if self._solver.is_stochastic(self._sde):
            silent = torch.zeros(len(x), x[0].numel(), dtype=x.dtype)
            noise = GivenDraws(silent, None, tuple(x.shape[1:]), self._lengths[i])
            noise.shared = True
        return self._solver.step(self._sde, x, i, noise, self.memory)[1]

    def _look(self, x: State, start: Tensor, b: Tensor, c: Tensor, i: int) -> None:
        """Refuse steps that are not this polynomial, by draws that differ between coordinates."""
        if self._looked or (self._noisy and not bool((b != 0).any())):
            return
        self._looked, few = True, slice(0, _ROWS)
        d = x[0].numel()
        z = torch.linspace(-2.3, 1.9, d * min(len(x), _ROWS), dtype=x.dtype).reshape(-1, d)
        z = z[torch.arange(len(z)).flip(0)]
        got = self._after(x[few], z.reshape(x[few].shape), i)
        off = (got - (start[few] + b[few] * z + c[few] * z * z)).abs().max()
        size = (start[few].abs() + 3 * b[few].abs() + 5 * c[few].abs()).max()
        if not off <= 10 * _SAME[x.dtype] * size:
            raise ValueError(
                f"a step of {self.name} is no polynomial of one normal for each coordinate (off "
                f"by {float(off):.2g}), so that its noise cannot be told from its states."
            )


class RememberingLaw(StepLaw):
    """The law of a multistep solver: what it remembers is told by the states before.

    Args:
        sde: What moves, by belief.
        solver: How it moves.
        nodes: Times of the states, shape (steps + 1,), from the first step on.
    """

    alike = False
    remembers = True
    starts_anywhere = False

    def __init__(self, sde: SDE, solver: FixedStep, nodes: Tensor) -> None:
        self._probed = ProbedLaw(sde, solver, nodes, one_by_one=True)
        self.name: str = type(solver).__name__
        self._start = self._probed.memory

    def innovations(self, x: State, after: State, i: int) -> Innovations:
        """Refuse single steps, whose past is not known."""
        raise NotImplementedError

    def along(self, x: State, first: int, memory: Memory) -> tuple[Innovations, Memory]:
        """Return z of the steps between frames x, (F + 1, B, *event), and what is remembered."""
        probed, parts = self._probed, []
        probed.memory = self._start if first == 0 else memory
        for k in range(len(x) - 1):
            parts.append(probed.innovations(x[k], x[k + 1], first + k))
            probed.memory = probed.remembering(x[k], first + k)
        return joined(parts), probed.memory


def _quadratic(left: Tensor, moved: Tensor, b: Tensor, c: Tensor) -> Innovations:
    """Return normals of P(X' ≤ x') where x' − a = b z + c z², each coordinate by itself."""
    left, b, c = left.double(), b.double(), c.double()
    flip = c < 0  # of −x' the parabola opens upwards
    y, beta, gamma = torch.where(flip, -left, left), torch.where(flip, -b, b), c.abs()
    bent = gamma > 0
    safe = torch.where(bent, gamma, 1.0)
    square = beta.square() + 4 * safe * y
    root = square.clamp(min=0.0).sqrt()
    high, low = (-beta + root) / (2 * safe), (-beta - root) / (2 * safe)
    z = normal_between(low, high)
    # density of y: both draws lead to it
    log_p = torch.logaddexp(log_density(high), log_density(low)) - root.clamp(min=1e-300).log()
    log_p = torch.where(square < 0, _NEVER, log_p)  # no draw leads beyond the vertex
    straight = torch.where(bent, 1.0, b)
    z = torch.where(bent, torch.where(flip, -z, z), left / straight)
    log_p = torch.where(bent, log_p, log_density(z) - straight.abs().log())
    log_scale = log_density(z).sum(1) - log_p.sum(1)
    return Innovations(z, moved.double() / (b.square() + 2 * c.square()).sqrt(), log_scale)
