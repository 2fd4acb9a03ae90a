"""Fields on a lattice as what is noised: each mode has a rate of its own.

    dφ = (κ Δ − m²) φ dt + √(2T) dW,        dφ_k = −(κ k̂² + m²) φ_k dt + √(2T) dW_k

with k̂² = Σ_a 4 sin²(k_a/2), Δ the nearest-neighbour Laplacian, and one Wiener process for each
site. At rest the field is free, ⟨φ_k²⟩ = T/(κ k̂² + m²), whatever it was: fine structure is
forgotten first, and last the mean, at the rate m². So noising by it goes from fine to coarse, and
generation from coarse to fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sdegen.core.bases import Cosines, Waves
from sdegen.core.checks import check_not_negative, check_positive, check_word
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.requests import as_number, kind_of
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time
from sdegen.sde.kernels import kernel_of_rates

Ends = Literal["periodic", "reflecting"]


class StochasticHeat(SDE):
    """The stochastic heat equation on a lattice, of states (batch, …, *shape).

        dφ = (κ Δ − m²) φ dt + √(2T) dW,   dφ_k = −(κ k̂² + m²) φ_k dt + √(2T) dW_k

    with k̂² = Σ_a 4 sin²(k_a/2).

    Args:
        shape: Sites along each axis, which are the last axes of an event; axes before them, such
            as channels, are fields of their own.
        diffusivity: κ ≥ 0, in units of sites²/time.
        mass_squared: m² > 0, the rate at which the mean is forgotten.
        temperature: T > 0.
        ends: "periodic", or "reflecting": no flux through the ends, as for images.

    Raises:
        TypeError: If shape are no whole numbers, or another argument no number.
        ValueError: If a number is out of its range, or ends is another word.

    Reference:
        Hairer 2009, An introduction to stochastic PDEs, section 2.1, arXiv:0907.4178.

    Example:
        >>> ring = sg.StochasticHeat((4,), diffusivity=2.0, mass_squared=1.0)
        >>> [round(rate.item(), 6) for rate in ring.rates]  # at k = 0, ±π/2, π
        [1.0, 5.0, 5.0, 9.0]
    """

    noise: NoiseKind = "additive"
    autonomous: bool | None = True

    def __init__(
        self,
        shape: Sequence[int],
        diffusivity: float = 1.0,
        mass_squared: float = 1.0,
        temperature: float = 1.0,
        *,
        ends: Ends = "periodic",
    ) -> None:
        self.shape: tuple[int, ...] = as_shape("shape", shape)
        self.diffusivity: float = as_number("diffusivity", diffusivity)
        self.mass_squared: float = as_number("mass_squared", mass_squared)
        self.temperature: float = as_number("temperature", temperature)
        check_not_negative("diffusivity", self.diffusivity)
        check_positive("mass_squared", self.mass_squared)
        check_positive("temperature", self.temperature)
        check_word("ends", ends, ("periodic", "reflecting"))
        self.ends: Ends = ends
        self.constant_noise: float | None = math.sqrt(2 * self.temperature)
        self._basis = (Waves if ends == "periodic" else Cosines)(len(self.shape))

    @property
    def rates(self) -> Tensor:
        """κ k̂² + m² of each mode of `noise_kernel.basis`, float64, the shape of the lattice."""
        return self.diffusivity * self._basis.laplacian(self.shape) + self.mass_squared

    @property
    def noise_kernel(self) -> DiagonalKernel:
        """One α and σ for each mode."""
        noise = torch.tensor(self.constant_noise, dtype=torch.float64)
        return kernel_of_rates(self.rates, noise, basis=self._basis)

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the shape of the lattice, with fields before it where there are several.

        Raises ValueError if so many numbers are no whole number of fields.
        """
        sites = math.prod(self.shape)
        if numbers % sites or numbers < sites:
            raise ValueError(
                f"a field of {type(self).__name__} has {sites} sites, but {numbers} numbers are "
                "asked for; pass a multiple."
            )
        return self.shape if numbers == sites else (numbers // sites, *self.shape)

    def drift(self, x: State, t: Time) -> State:
        """(κ Δ − m²) φ, shape of φ."""
        lattice = len(self.shape)
        if x.ndim <= lattice or tuple(x.shape[-lattice:]) != self.shape:
            sizes = ", ".join(map(str, self.shape))
            raise ValueError(
                f"a state of this {type(self).__name__} has shape (batch, …, {sizes}), but has "
                f"shape {tuple(x.shape)}."
            )
        out = -self.mass_squared * x
        for axis in range(-lattice, 0):
            if self.ends == "periodic":
                out = out + self.diffusivity * (x.roll(1, axis) + x.roll(-1, axis) - 2 * x)
            else:
                flux = x.diff(dim=axis)
                zero = torch.zeros_like(x.narrow(axis, 0, 1))
                padded = torch.cat([zero, flux, zero], axis)
                out = out + self.diffusivity * padded.diff(dim=axis)
        return out

    def diffusion(self, x: State, t: Time) -> Tensor:
        """√(2T), 0-d."""
        return torch.tensor(self.constant_noise, dtype=torch.float64)


def as_shape(name: str, shape: object) -> tuple[int, ...]:
    """Return a shape as a tuple, or refuse what is none.

    Raises:
        TypeError: If it is no sequence of whole numbers.
        ValueError: If it is empty, or one is below 1.
    """
    given = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else None
    if given is None or any(isinstance(n, bool) or not isinstance(n, int) for n in given):
        raise TypeError(
            f"{name} must be a tuple of whole numbers, such as (16, 16), but is {kind_of(shape)}."
        )
    if not given or min(given) < 1:
        raise ValueError(f"{name} must hold sizes of 1 or more, but is {tuple(given)}.")
    return tuple(given)
