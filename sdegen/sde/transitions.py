"""Transitions: the Gaussian law of a linear process a time later, and what follows from it.

    X_s | X_t ~ N(Φ X_t + m, Σ)

A law (mean, C) of X_t becomes (Φ mean + m, Φ C Φᵀ + Σ), and two transitions one after the other
are one. Of constant A, Q = B Bᵀ and c,

    Φ = e^{−Ah},    m = ∫₀ʰ e^{−Au} c du,    Σ = ∫₀ʰ e^{−Au} Q e^{−Aᵀu} du,    h = s − t

come of one matrix exponential (Van Loan) over a time in which |A| h ≤ 1, which is then doubled,
Σ(2h) = Σ + Φ Σ Φᵀ: a sum of positive matrices loses no digits, however stiff A is, and where A has
modes that rest, oscillate or coincide (critical damping) it holds as well. Coordinates are scaled
first, by powers of two, so that their units do not matter.

Reference:
    Van Loan 1978, IEEE Trans. Autom. Control 23, 395; Gardiner 2009, section 4.5.6.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import numpy as np
import scipy
import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.noise import Rng, normal_like, seed_of, stream
from sdegen.core.requests import as_number, as_numbers, as_state, as_times
from sdegen.core.sde import SDE
from sdegen.core.shapes import Numbers, State, Time, Times, rows_nonfinite
from sdegen.core.trajectory import Trajectory

_ASYMMETRIC = 1e-6  # relative: what single precision leaves of a covariance's symmetry


@dataclass(frozen=True, eq=False)
class GaussianLaw:
    """The mean and covariance of d numbers.

    Attributes:
        mean: Shape (d,).
        covariance: Shape (d, d).
    """

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]

    @classmethod
    def of(cls, mean: Numbers, covariance: Numbers = 0.0) -> GaussianLaw:
        """Return a law from what users pass.

        Args:
            mean: Shape (d,), or a number, d = 1.
            covariance: Shape (d, d), or a number: the variance of each; 0 is a point.

        Raises:
            TypeError: If one of them is no array of numbers.
            ValueError: If shapes do not fit, a number is not finite, or the covariance is not
                symmetric with eigenvalues ≥ 0.
        """
        m = as_numbers("mean", mean, expected="a number, or one for each coordinate")
        m = m.reshape(1) if m.ndim == 0 else m
        if m.ndim != 1 or len(m) == 0:
            raise ValueError(f"mean must have shape (d,), but has shape {tuple(m.shape)}.")
        d = len(m)
        c = as_numbers("covariance", covariance, expected="a matrix, or a number")
        if c.ndim == 0:
            c = c * torch.eye(d, dtype=c.dtype, device=c.device)
        if c.shape != (d, d):
            raise ValueError(
                f"covariance must be a number or have shape ({d}, {d}), as mean has {d} "
                f"coordinates, but has shape {tuple(c.shape)}."
            )
        for name, value in (("mean", m), ("covariance", c)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, but is {value.tolist()}.")
        size = _ASYMMETRIC * float(c.detach().abs().max())
        lowest = float(torch.linalg.eigvalsh(c.detach()).min())
        if bool(((c - c.T).abs() > size).any()) or lowest < -d * size:
            raise ValueError(
                "covariance must be symmetric with eigenvalues ≥ 0, but is "
                f"{c.tolist()}, whose lowest is {lowest:.4g}."
            )
        return cls(m, 0.5 * (c + c.T))


@dataclass(frozen=True, eq=False)
class MomentsPath:
    """Means and covariances at times, of a linear process or of a chain on it.

    Attributes:
        times: Shape (T,).
        means: Shape (T, d).
        covariances: Shape (T, d, d).
    """

    times: Float[Tensor, " T"]
    means: Float[Tensor, "T d"]
    covariances: Float[Tensor, "T d d"]

    @property
    def final(self) -> GaussianLaw:
        """The law at the last time."""
        return GaussianLaw(self.means[-1], self.covariances[-1])


@dataclass(frozen=True, eq=False)
class Transition:
    """The law X_s | X_t ~ N(Φ X_t + m, Σ) of a linear process.

    Attributes:
        matrix: Φ, shape (d, d); a number where it is the same for every coordinate.
        shift: m, shape (d,), or a number.
        covariance: Σ, shape (d, d), or a number: the variance of each coordinate.
    """

    matrix: Tensor
    shift: Tensor
    covariance: Tensor

    def mean(self, x: State) -> State:
        """Return Φ x + m, shape of x."""
        matrix, shift = self.matrix.to(x), self.shift.to(x)
        return matrix * x + shift if matrix.ndim == 0 else x @ matrix.T + shift

    def draw(self, x: State, z: State) -> State:
        """Return Φ x + m + √Σ z, shape of x.

        Args:
            x: States at t, shape (batch, *event).
            z: Standard normals, shape of x.
        """
        if self.covariance.ndim == 0:
            return self.mean(x) + self.covariance.sqrt().to(x) * z
        return self.mean(x) + z @ root(self.covariance).to(x).T

    def after(self, law: GaussianLaw) -> GaussianLaw:
        """Return the law of X_s where that of X_t is given.

        Raises:
            ValueError: If it has another number of coordinates.
        """
        matrix, added = self.matrix.to(law.mean), self.covariance.to(law.mean)
        if matrix.ndim == 0:
            eye = torch.eye(len(law.mean), dtype=law.mean.dtype, device=law.mean.device)
            spread = matrix.square() * law.covariance + added * eye
        elif len(matrix) != len(law.mean):
            raise ValueError(
                f"mean must have {len(matrix)} coordinates, as the process has, but has "
                f"{len(law.mean)}."
            )
        else:
            spread = matrix @ law.covariance @ matrix.T + added
        return GaussianLaw(self.mean(law.mean[None])[0], 0.5 * (spread + spread.T))

    def then(self, later: Transition) -> Transition:
        """Return this transition and a later one of the same process, as one."""
        if self.matrix.ndim == 0:
            spread = later.matrix.square() * self.covariance + later.covariance
            shift = later.matrix * self.shift + later.shift
            return Transition(later.matrix * self.matrix, shift, spread)
        spread = later.matrix @ self.covariance @ later.matrix.mT + later.covariance
        return Transition(
            later.matrix @ self.matrix,
            (later.matrix @ self.shift[..., None])[..., 0] + later.shift,
            0.5 * (spread + spread.mT),
        )


class LinearProcess(SDE):
    """An SDE whose `transition` is Gaussian at any distance in time: exact paths and moments."""

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse the laws of another drift or diffusion than the own one."""
        super().__init_subclass__(**options)
        own = [name for name in ("drift", "diffusion", "add_noise") if name in cls.__dict__]
        if not own:
            return

        def refuse(self: LinearProcess, *times: Time | float) -> NoReturn:
            raise ValueError(
                f"{cls.__name__} has its own {own[0]}, and no transition that belongs to it: "
                "define transition(t, s), or use simulate."
            )

        for name in ("transition", "_slowest"):  # the second leads to what is at rest
            if hasattr(cls, name) and name not in cls.__dict__:
                setattr(cls, name, refuse)

    @abstractmethod
    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t.

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t.
        """

    def sample(self, x0: State, times: Times, *, rng: Rng = None) -> Trajectory:
        """Draw paths from the exact transitions, whatever the distance of the times.

        Args:
            x0: States at times[0], shape (batch, *event).
            times: Increasing, shape (T,).
            rng: Seed, generator or None.

        Raises:
            ValueError: If times do not increase.
        """
        x, ts, seed = as_state("x0", x0), increasing(times), seed_of(rng)
        source, states = stream(seed, "transition"), [x]
        for t, s in pairwise(ts):
            x = self.transition(t, s).draw(x, normal_like(x, source))
            states.append(x)
        return Trajectory(ts, torch.stack(states), 0, seed, rows_nonfinite(x))

    def moments(self, mean: Numbers, covariance: Numbers, times: Times) -> MomentsPath:
        """Return the exact means and covariances of the process at times.

        Args:
            mean: Mean at times[0], shape (d,).
            covariance: Covariance there, shape (d, d), or a number: the variance of each; 0 is a
                start at a point.
            times: Increasing, shape (T,).

        Raises:
            ValueError: If mean or covariance do not fit, or times do not increase.
        """
        law, ts = GaussianLaw.of(mean, covariance), increasing(times)
        laws = [law]
        for t, s in pairwise(ts):
            law = self.transition(t, s).after(law)
            laws.append(law)
        return path_of(ts, laws)


def path_of(times: Tensor, laws: list[GaussianLaw]) -> MomentsPath:
    """Return laws at times in one piece."""
    means = torch.stack([law.mean for law in laws])
    return MomentsPath(times, means, torch.stack([law.covariance for law in laws]))


def increasing(times: Times) -> Tensor:
    """Return times as a tensor, shape (T,).

    Raises:
        ValueError: If they do not increase.
    """
    ts = as_times(times)
    if not bool((ts.diff() > 0).all()):
        raise ValueError(f"times must increase, but are {ts.tolist()[:4]} …")
    return ts


def elapsed(t: Time | float, s: Time | float) -> float:
    """Return s − t.

    Raises:
        TypeError: If one of them is no number.
        ValueError: If s is before t, or one of them is not finite.
    """
    h = as_number("s", s) - as_number("t", t)
    if not 0 <= h < math.inf:
        raise ValueError(f"s must not be before t, but s − t = {h:g}.")
    return h


def constant_law(A: Tensor, square: Tensor, c: Tensor, h: float) -> Transition:
    """Return the transition of constant rates over a time h ≥ 0.

    Args:
        A: Shape (*, d, d): one, or one for each of several.
        square: B Bᵀ, shape (*, d, d).
        c: Shape (*, d).
        h: Time.
    """
    d, unit = A.shape[-1], _units(A)
    A, c = A * (unit / unit[:, None]), c / unit
    square = square / (unit * unit[:, None])
    sizes = torch.linalg.matrix_norm(A.detach(), 1) * h
    size = float(sizes.max())
    doublings = max(0, math.ceil(math.log2(size))) if size > 0 else 0
    h = h / 2**doublings
    # Σ and m are linear in them, and beside a larger norm Φ would lose its digits
    much, far = _power_of_two(square.flatten(-2) * h), _power_of_two(c * h)
    block = A.new_zeros(*A.shape[:-2], 2 * d + 1, 2 * d + 1)
    block[..., :d, :d], block[..., :d, d : 2 * d] = -A * h, square * (h / much[..., None])
    block[..., :d, 2 * d], block[..., d : 2 * d, d : 2 * d] = c * (h / far), A.mT * h
    whole = torch.linalg.matrix_exp(block)
    matrix, shift = whole[..., :d, :d], whole[..., :d, 2 * d] * far
    covariance = whole[..., :d, d : 2 * d] @ matrix.mT * much[..., None]
    for _ in range(doublings):
        covariance = covariance + matrix @ covariance @ matrix.mT
        shift = shift + (matrix @ shift[..., None])[..., 0]
        matrix = matrix @ matrix
    covariance = 0.5 * (covariance + covariance.mT) * (unit * unit[:, None])
    return Transition(matrix * (unit[:, None] / unit), shift * unit, covariance)


def _units(A: Tensor) -> Tensor:
    """Return a unit for each coordinate, a power of two, in which rows of A are as its columns.

    Fewer doublings are then needed: of a position and a velocity |A| is a frequency, not its
    square.
    """
    sizes = A.detach().abs().reshape(-1, *A.shape[-2:]).amax(0).cpu().numpy()
    _, (scale, _) = scipy.linalg.matrix_balance(sizes, permute=False, separate=True)
    return torch.from_numpy(np.asarray(scale, dtype=np.float64)).to(A)


def _power_of_two(values: Tensor) -> Tensor:
    """Return a power of two that is not far below the largest of some values, and not below 1."""
    _, exponent = torch.frexp(values.detach().abs().amax(-1, keepdim=True))
    return torch.ldexp(torch.ones_like(values[..., :1]), exponent.clamp(min=0)).detach()


def root(covariance: Tensor) -> Tensor:
    """Return R with R Rᵀ = Σ, also of a Σ that is singular."""
    spread = covariance.detach().diagonal().clamp(min=0.0).sqrt()
    unit = torch.where(spread > 0, spread, 1.0)  # a small variance keeps its digits beside others
    values, vectors = torch.linalg.eigh(covariance / torch.outer(unit, unit))
    found: Tensor = unit[:, None] * vectors * values.clamp(min=0.0).sqrt()
    return found
