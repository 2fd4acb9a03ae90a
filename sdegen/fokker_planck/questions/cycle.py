"""Modes of a ring without a current, by shooting once around.

The ring is cut at a node c, whose value is held. From there to there the cells are a chain with
φ = 0 at both ends (`shooting`), whose ratios r = J/(m φ) give the current that a value φ_c = 1
draws into the cut,

    S(λ) = r↑ − r↓ + 2 g,    g = the current that one end sends to the other

g being a product of ratios. The rates below λ are those of the chain and one more where S > 0
(Sturm and Haynsworth): bisection finds every rate, those of equal pairs too, and a rate of 10⁻¹⁷
to as many digits as one of 1, since nothing is subtracted but at the rate itself.

A mode is followed from a cut where it is large. Of modes with one rate, functions from several
cuts are made orthogonal.

Reference:
    Pryce 1993, Numerical Solution of Sturm–Liouville Problems, section 3.4; Haynsworth 1968,
    Linear Algebra Appl. 1, 73, for the count.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg

from sdegen.core.errors import SolverError
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.fluxes import Fluxes
from sdegen.fokker_planck.questions.chains import around
from sdegen.fokker_planck.questions.shooting import Chain, summed

_WIDER = 0.3  # by as much the lumped chain's rates may miss those of the cells
_ROUNDING = 1e-13
_CLOSE = 0.03  # relative; modes of rates that differ by less are found together
_COUNTED = 1e-5  # relative; what a count beside a neighbour may miss
_OFF = 1e-4  # what a function may miss its equation by, over the rate
_CUTS = 12
_PARALLEL = 1e-3  # of a function: what must be left of it beside others


@dataclass(frozen=True, eq=False)
class Cycle:
    """A ring.

    Args:
        flux: Fluxes of its cells, which leave no current.
    """

    flux: Fluxes
    _chains: dict[int, Chain] = field(default_factory=dict, repr=False)

    @cached_property
    def _home(self) -> int:
        """The node where most of the density sits."""
        return int(np.argmax(self.log_m[:-1]))

    @cached_property
    def log_m(self) -> Array:
        """log m at the nodes, both ends included, its peak 0."""
        w = self.flux.w.numpy()
        log_m = np.concatenate([[0.0], np.cumsum(w - w.mean())])
        return log_m - float(log_m.max())

    def _cut(self, node: int) -> Chain:
        """Return the chain from a node around to it."""
        if node not in self._chains:
            self._chains[node] = around(self.flux, node)
        return self._chains[node]

    def rates(self, count: int, guesses: Array | None) -> Array:
        """Return the slowest rates, the first of which is 0, and the next where it is close.

        Args:
            count: How many.
            guesses: Them, to some digits; None finds them from nothing.
        """
        held = self._cut(self._home)
        if guesses is None:
            bound = np.concatenate([[0.0], held.first_guesses(count + 1)])
        found = [0.0]
        for index in range(1, count + 1 if guesses is None else len(guesses)):
            if guesses is None:
                low, high = bound[index - 1] * (1 - _WIDER), bound[index] * (1 + _WIDER)
                low = max(low, found[-1] * (1 - 1e-6), 1e-6 * high if index == 1 else 0.0)
            else:
                low, high = guesses[index] * (1 - 1e-4), guesses[index] * (1 + 1e-4)
            found.append(self._bisected(held, index, low, high))
        close = len(found) > count and found[-1] - found[-2] < _CLOSE * found[-1]
        return np.array(found if close else found[:count])

    def _bisected(self, held: Chain, index: int, low: float, high: float) -> float:
        """Return the rate of a mode between two, which are moved apart where it is not."""
        for _ in range(1100):
            if _below(held, low) <= index:
                break
            low *= 0.5
        for _ in range(60):
            if _below(held, high) > index:
                break
            high *= 2
        while high - low > _ROUNDING * high:
            middle = math.sqrt(low * high) if low < 0.5 * high else 0.5 * (low + high)
            if _below(held, middle) <= index:
                low = middle
            else:
                high = middle
        return 0.5 * (low + high)

    def modes(self, rates: Array) -> tuple[Array, Array, Array, Array]:
        """Return rates, log |φ| and the sign of φ at the nodes, and what rounding left of rates.

        Beside a neighbour the count is decided by rounding. The rates of modes that lie so close
        are those of the energy in the plane of their functions (Rayleigh and Ritz). Behind 50 kT
        and more the energy is rounding itself, since φ hardly changes within a well: there they
        are as they were counted.

        Args:
            rates: As they were counted.
        """
        count, size = len(rates), len(self.log_m)
        rates = rates.copy()
        log_phi, sign = np.zeros((count, size)), np.ones((count, size))
        rounding = np.zeros(count)
        parted = np.flatnonzero(np.diff(rates[1:]) >= _CLOSE * rates[2:]) + 2
        for first, last in itertools.pairwise([1, *parted.tolist(), count]):
            members = slice(first, last)
            basis = self._basis(rates[members])
            if last - first > 1:
                energies, turned = self._parted(float(rates[members].mean()), basis)
                if (np.abs(energies / rates[members] - 1) < _COUNTED).all():
                    rates[members], basis = energies, turned
                else:
                    rounding[members] = _COUNTED
            with np.errstate(divide="ignore"):
                log_phi[members] = np.log(np.abs(basis)) - 0.5 * self.log_m
            sign[members] = np.sign(basis)
        return rates, log_phi, sign, rounding

    def _basis(self, rates: Array) -> Array:
        """Return √m φ of modes of close rates, orthonormal, shape (modes, nodes)."""
        count = len(rates)
        size, half = len(self.log_m) - 1, 0.5 * self.log_m
        spread = [(self._home + k * size // _CUTS) % size for k in range(_CUTS)]
        candidates: list[tuple[float, Array]] = []
        chosen: list[Array] = []
        for cut in dict.fromkeys(spread):
            held = self._cut(cut)
            for log_phi, sign, residual in itertools.chain(*(_functions(held, r) for r in rates)):
                y = half + np.append(np.roll(log_phi[:-1], cut), log_phi[(-cut) % size])
                plus = np.append(np.roll(sign[:-1], cut), sign[(-cut) % size])
                candidates.append((residual, plus * np.exp(y - y.max())))
            chosen = self._independent(candidates, count)
            if len(chosen) == count:
                return np.stack(chosen)
        raise SolverError(
            f"{count} modes near the rate {rates[0]:.3g} were not told apart. Ask for fewer, or "
            "take a finer grid."
        )

    def _independent(self, candidates: list[tuple[float, Array]], count: int) -> list[Array]:
        """Return the best of them, made orthonormal."""
        chosen: list[Array] = []
        for residual, vector in sorted(candidates, key=lambda c: c[0]):
            if residual > _OFF or len(chosen) == count:
                break
            y = vector / math.sqrt(vector[:-1] ** 2 @ self.volumes)
            for other in chosen:
                y = y - ((y * other)[:-1] @ self.volumes) * other
            length = math.sqrt(y[:-1] ** 2 @ self.volumes)
            if length > _PARALLEL:
                chosen.append(y / length)
        return chosen

    def _parted(self, rate: float, basis: Array) -> tuple[Array, Array]:
        """Return the rates in the plane of some functions √m φ, and the functions that have them.

        In a cell (A φ_i² − 2 φ_i φ_{i+1} + D φ_{i+1}²)/B is (φ_i − φ_{i+1})²/B less λ times a
        mass, and both are positive.
        """
        series, w = self._cut(0).series, self.flux.w.numpy()
        over = np.exp(-0.5 * (w - w.mean()))  # √m of the left node over that of the right one
        left, right = basis[:, :-1], basis[:, 1:] * over
        rates = np.full(len(basis), rate)
        turned = basis.copy()
        for _ in range(4):
            for k in range(len(basis)):
                b = summed(series[2], rates[k])
                far = summed(series[3], rates[k], 1) / over**2
                energy = ((left - right)[:, None] * (left - right)[None] / b).sum(-1)
                mass = (left[:, None] * left[None] * (summed(series[0], rates[k], 1) / b)).sum(-1)
                mass += (right[:, None] * right[None] * (far / b)).sum(-1)
                values, vectors = linalg.eigh(energy, mass)
                rates[k] = values[k]
                turned[k] = vectors[:, k] @ basis if _ == 3 else turned[k]
        return rates, turned

    @cached_property
    def volumes(self) -> Array:
        """Mass of each node over m there, once around."""
        home = self._cut(0).volumes
        volumes: Array = home[:-1].copy()
        volumes[0] += home[-1]
        return volumes


def _below(held: Chain, rate: float) -> int:
    """Return how many rates of the ring, 0 included, lie below one."""
    up, grow, down, _ = held.ways(rate)
    return int(np.count_nonzero(grow[1:] < 0)) + int(_drawn(held, up, grow, down, rate) > 0)


def _drawn(held: Chain, up: Array, grow: Array, down: Array, rate: float) -> float:
    """Return S, over m at the cut."""
    b = float(held.cells(rate)[2][0])
    with np.errstate(divide="ignore", over="ignore"):
        across = np.prod(np.sign(grow[1:])) * np.exp(-np.log(np.abs(grow[1:])).sum()) / b
    return float(up[-1] - down[0] + 2 * across)


def _functions(held: Chain, rate: float) -> list[tuple[Array, Array, float]]:
    """Return functions near a mode from one cut, with their residuals over the rate.

    One is held at the cut and fails by S there; the other vanishes there, and fails by the kink
    that it has at the cut and where it was glued.
    """
    up, grow, down, _ = held.ways(rate)
    s = _drawn(held, up, grow, down, rate)
    found = []
    # φ_i = (φ_{i+1} + B g_i)/grow_i, from one end of the cut to the other
    _, _, b, _ = held.cells(rate)
    with np.errstate(divide="ignore"):
        log_g = np.concatenate([[0.0], -np.log(np.abs(grow[1:])).cumsum()]) - math.log(b[0])
    g_sign = np.concatenate([[1.0], np.sign(grow[1:]).cumprod()])
    fall = np.cumsum(held.w)
    phi = np.ones(len(grow) + 1)
    for i in range(len(grow) - 1, 0, -1):
        sent = g_sign[i - 1] * math.exp(min(log_g[i - 1] - fall[i - 1], 700.0)) * b[i]
        phi[i] = (phi[i + 1] + sent) / grow[i]
    weight = np.exp(held.log_m - held.log_m[0])
    mass = float((weight * phi**2) @ held.volumes)
    if math.isfinite(mass) and np.isfinite(phi).all():
        with np.errstate(divide="ignore"):
            found.append((np.log(np.abs(phi)), np.sign(phi), abs(s) / (mass * rate)))
    shot = held.shot(rate)
    top = held.log_m + 2 * shot.log_phi
    norm = float(np.exp(top - top.max()) @ held.volumes)
    log_kink = 2 * shot.log_phi[[1, -2]] + held.log_m[[1, -2]] - top.max()
    # J at both ends of the cut, from φ of the nodes beside it
    values = (
        shot.sign[[1, -2]]
        * np.exp(0.5 * log_kink)
        * np.exp(0.5 * (held.log_m[[0, -1]] - held.log_m[[1, -2]]))
    )
    bonds = np.array([held.bonds[0, 0], held.bonds[1, -1]])
    kink = float(np.abs((values * bonds).sum()))
    size = math.sqrt(norm * held.volumes[0])
    found.append((shot.log_phi, shot.sign, kink / (size * rate) + abs(shot.rate / rate - 1)))
    return found
