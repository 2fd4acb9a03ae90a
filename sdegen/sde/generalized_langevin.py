"""Generalised Langevin dynamics: friction with a memory, and the noise that belongs to it.

    dx = v dt,    m dv/dt = −∇U(x) − γ v − ∫₀ᵗ K(t − u) v(u) du + R(t) + white noise

with the noise of fluctuation and dissipation, ⟨R(t) R(s)⟩ = T K(|t − s|) and 2γT of the white one
(k_B = 1). A memory that is a Prony series, damped cosines included,

    K(t) = Σ_k c_k e^{−t/τ_k} cos ω_k t,        c_k > 0

is Markovian with one more number s for each term, or two where ω_k ≠ 0:

    m dv = (−∇U − γ v + Σ √c_k s_k) dt + √(2γT) dW
    ds_k  = (−s_k/τ_k − ω_k s̃_k − √c_k v) dt + √(2T/τ_k) dW_k
    ds̃_k = (−s̃_k/τ_k + ω_k s_k) dt + √(2T/τ_k) dW̃_k

At rest x has the density e^{−U/T}, and v ~ N(0, T/m) and s ~ N(0, T) are independent of it and of
each other, whatever the memory. A series of short τ_k is friction Σ c_k τ_k/(1 + ω_k² τ_k²).

Reference:
    Mori 1965, Prog. Theor. Phys. 33, 423; Ceriotti, Bussi and Parrinello 2010, J. Chem. Theory
    Comput. 6, 1170, section 2, of which the matrix is block diagonal here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_not_negative, check_positive
from sdegen.core.derivatives import is_seen
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_number, as_numbers, as_state, as_time, check_kind
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import Numbers, State, Time
from sdegen.sde.potentials import FunctionPotential, Potential, as_potential


class PronySeries:
    """A memory kernel, a sum of exponentials and damped cosines.

        K(t) = Σ_k c_k e^{−t/τ_k} cos ω_k t,   ∫₀^∞ K dt = Σ_k c_k τ_k/(1 + ω_k² τ_k²)

    Args:
        amplitudes: c_k > 0, shape (n,), or a number; of K, in units of friction per time.
        decay_times: τ_k > 0, likewise.
        frequencies: ω_k ≥ 0, likewise; 0, the default, is an exponential.

    Raises:
        TypeError: If one of them is no array of numbers.
        ValueError: If their lengths differ, or a number is out of its range.

    Example:
        >>> kernel = sg.PronySeries([2.0, 0.5], [1.0, 4.0])
        >>> kernel.friction, float(kernel(0.0))  # Σ c_k τ_k and Σ c_k
        (4.0, 2.5)
    """

    def __init__(
        self, amplitudes: Numbers, decay_times: Numbers, frequencies: Numbers = 0.0
    ) -> None:
        given = {"amplitudes": amplitudes, "decay_times": decay_times, "frequencies": frequencies}
        read = {
            name: as_numbers(name, value, expected="a number, or one for each term").detach()
            for name, value in given.items()
        }
        sizes = {len(value) for value in read.values() if value.ndim == 1} or {1}
        if len(sizes) > 1 or 0 in sizes or any(value.ndim > 1 for value in read.values()):
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in read.items())
            raise ValueError(
                f"a Prony series has one number for each term, shape (n,), but has {shapes}."
            )
        for name, value in read.items():
            good = value >= 0 if name == "frequencies" else value > 0
            if not bool((good & value.isfinite()).all()):
                least = "≥" if name == "frequencies" else ">"
                raise ValueError(
                    f"{name} must be finite and {least} 0, but are {value.tolist()}: each term "
                    "is a friction with a noise of its own."
                )
        n = sizes.pop()
        self.amplitudes: Tensor = read["amplitudes"].expand(n)
        self.decay_times: Tensor = read["decay_times"].expand(n)
        self.frequencies: Tensor = read["frequencies"].expand(n)

    def __call__(self, t: Time | float) -> Tensor:
        """K(t) at |t|, shape of t."""
        t = as_time(t).abs()[..., None]
        damped = torch.exp(-t / self.decay_times) * torch.cos(self.frequencies * t)
        return (self.amplitudes * damped).sum(-1)

    @property
    def friction(self) -> float:
        """∫₀^∞ K dt = Σ_k c_k τ_k/(1 + ω_k² τ_k²)."""
        tau, turn = self.decay_times, self.frequencies * self.decay_times
        return float((self.amplitudes * tau / (1 + turn.square())).sum())


class GeneralizedLangevin(SDE):
    """Langevin dynamics of positions and velocities with a memory kernel, in a potential.

        m dv/dt = −∇U(x) − γ v − ∫₀ᵗ K(t − u) v(u) du + R(t) + white noise
        ⟨R(t) R(s)⟩ = T K(|t − s|)

    Its state is (batch, (2 + n) d): d positions, d velocities, then d numbers for each of n
    memory variables, one for an exponential and two for a damped cosine. `start` makes it of
    positions, `position` and `velocity` read it.

    Args:
        potential: U and its force: a `Potential`, or a function U(x) of positions (batch, d).
        memory: K, a `PronySeries`.
        temperature: T ≥ 0, in units of energy (k_B = 1).
        mass: m > 0.
        friction: γ ≥ 0, without memory, beside K.

    Raises:
        TypeError: If potential or memory are something else, or one of the numbers is none.
        ValueError: If a number is out of its range.

    Example:
        >>> memory, trap = sg.PronySeries(2.0, 0.5), sg.Quadratic(4.0)
        >>> sde = sg.GeneralizedLangevin(trap, memory, temperature=0.8, mass=2.0)
        >>> cov = sg.LinearSDE.of(sde, 3).stationary_covariance()
        >>> [round(v.item(), 6) for v in cov.diag()]  # T/k, T/m, T
        [0.2, 0.4, 0.8]
    """

    autonomous: bool | None = True

    def __init__(
        self,
        potential: Potential | Callable[[State], Tensor],
        memory: PronySeries,
        temperature: float = 1.0,
        *,
        mass: float = 1.0,
        friction: float = 0.0,
    ) -> None:
        check_kind("memory", memory, PronySeries, "a kernel, such as PronySeries(2.0, 0.5)")
        self.potential: Potential = as_potential(potential)
        self.memory: PronySeries = memory
        self.temperature: float = as_number("temperature", temperature)
        self.mass: float = as_number("mass", mass)
        self.friction: float = as_number("friction", friction)
        check_not_negative("temperature", self.temperature)
        check_positive("mass", self.mass)
        check_not_negative("friction", self.friction)
        self.noise: NoiseKind = "additive" if self.temperature > 0 else "none"
        self._coupling, self._decay, rates = _variables(memory)
        strengths = [0.0, math.sqrt(2 * self.friction * self.temperature) / self.mass]
        strengths += [math.sqrt(2 * self.temperature * rate) for rate in rates]
        self._strengths = torch.tensor(strengths, dtype=torch.float64)

    def drift(self, x: State, t: Time) -> State:
        """(v, (−∇U − γ v + Σ √c s)/m, −M s − √c v), shape of x."""
        place, v, s = self._split(x)
        coupling, decay = self._coupling.to(x), self._decay.to(x)
        force = self.potential.force(place) - self.friction * v
        pull = force + (coupling[:, None] * s).sum(1)
        change = -(decay @ s) - coupling[:, None] * v[:, None]
        return torch.cat([v, pull / self.mass, change.flatten(1)], 1)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """0 of positions, √(2γT)/m of velocities, √(2T/τ) of the memory; one for each number."""
        return self._strengths.to(x).repeat_interleave(self._size(x.shape[1]))

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the force of a potential that is a function with differences of its energy."""
        if isinstance(self.potential, FunctionPotential):
            self.potential.check_force(self.position(x).contiguous())

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how the force is found at these states, of a potential that is a function."""
        if not isinstance(self.potential, FunctionPotential):
            return "none"
        seen = is_seen(self.potential.of_columns, self.position(x).contiguous())
        return "autograd" if seen else "differences"

    def start(self, x0: Tensor, v0: Tensor | None = None, *, rng: Rng = None) -> Tensor:
        """Return states with the memory at rest, s ~ N(0, T), shape (batch, (2 + n) d).

        Args:
            x0: Positions, shape (batch, d).
            v0: Velocities, likewise; if None, v ~ N(0, T/m).
            rng: Seed, generator or None.

        Raises:
            ValueError: If shapes are others.
        """
        x0 = as_state("x0", x0)
        if x0.ndim != 2 or not x0.is_floating_point():
            raise ValueError(
                "x0 must be floats of shape (batch, d), but has shape "
                f"{tuple(x0.shape)} and dtype {x0.dtype}."
            )
        n, (rows, d) = len(self._coupling), x0.shape
        z = stream(rng, "memory").normal((1 + n, rows, d), dtype=x0.dtype, device=x0.device)
        root = math.sqrt(self.temperature)
        if v0 is None:
            v0 = root / math.sqrt(self.mass) * z[0]
        v0 = as_state("v0", v0).to(x0)
        if v0.shape != x0.shape:
            raise ValueError(
                f"v0 must have the shape of x0, {tuple(x0.shape)}, but has {tuple(v0.shape)}."
            )
        return torch.cat([x0, v0, *(root * z[1:])], 1)

    def position(self, states: Tensor) -> Tensor:
        """Return positions, shape (*, d), of states of shape (*, (2 + n) d)."""
        return states[..., : self._size(states.shape[-1])]

    def velocity(self, states: Tensor) -> Tensor:
        """Return velocities, shape (*, d), of states of shape (*, (2 + n) d)."""
        d = self._size(states.shape[-1])
        return states[..., d : 2 * d]

    def _size(self, numbers: int) -> int:
        """Return d, of the numbers of a state."""
        parts = 2 + len(self._coupling)
        if numbers % parts or numbers == 0:
            raise ValueError(
                f"the state of this GeneralizedLangevin has {parts} numbers for each coordinate: "
                f"position, velocity and {parts - 2} of the memory, but x has {numbers}; pass "
                "start(x0, rng=0) of x0 with shape (batch, d)."
            )
        return numbers // parts

    def _split(self, x: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions and velocities, (batch, d), and the memory, (batch, n, d)."""
        if x.ndim != 2:
            raise ValueError(
                f"x must have shape (batch, numbers), but has shape {tuple(x.shape)}; pass "
                "start(x0, rng=0) of x0 with shape (batch, d)."
            )
        d = self._size(x.shape[1])
        return x[:, :d], x[:, d : 2 * d], x[:, 2 * d :].reshape(len(x), -1, d)


def _variables(memory: PronySeries) -> tuple[Tensor, Tensor, list[float]]:
    """Return √c of each variable, the matrix M of ds = −M s dt, and 1/τ of each."""
    couplings, blocks, rates = list[float](), list[Tensor](), list[float]()
    terms = (memory.amplitudes, memory.decay_times, memory.frequencies)
    for c, tau, w in zip(*(term.tolist() for term in terms), strict=True):
        turning = [[1 / tau, w], [-w, 1 / tau]] if w > 0 else [[1 / tau]]
        blocks.append(torch.tensor(turning, dtype=torch.float64))
        couplings += [math.sqrt(c), 0.0][: len(turning)]
        rates += [1 / tau] * len(turning)
    coupling = torch.tensor(couplings, dtype=torch.float64)
    decay = torch.zeros(len(rates), len(rates), dtype=torch.float64)
    at = 0
    for block in blocks:
        decay[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return coupling, decay, rates
