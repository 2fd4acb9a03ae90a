"""Pair potentials: the energy U(r) of two particles at a distance r.

A potential that ends has a range beyond which U = 0, which `PairForces` takes for its cutoff;
others need one. In the units of the temperature (k_B = 1) and of length:

    HarmonicRepulsion    ½ k (σ − r)², r < σ          discs and spheres that may overlap
    WCA                  4ε[(σ/r)¹² − (σ/r)⁶] + ε, r < 2^{1/6} σ          nearly hard ones
    LennardJones         4ε[(σ/r)¹² − (σ/r)⁶]         attraction; cut at 2.5 σ by custom
    GaussianCore         ε e^{−r²/σ²}                 polymer coils
    Yukawa               ε (σ/r) e^{−κ r}             screened charges

One of your own is a function U(r) in torch, whose slope is found by autograd; or a subclass with
`energy` and `slope`.

Reference:
    Weeks, Chandler and Andersen 1971, eq. (4), J. Chem. Phys. 54, 5237; Allen and Tildesley 2017,
    section 1.4; Likos 2001, Physics Reports 348, 267, sections 3 and 5.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.checks import check_finite, check_not_negative, check_positive
from sdegen.core.derivatives import gradient_of
from sdegen.core.requests import as_numbers, as_parameter, kind_of, value_of
from sdegen.core.signature import Signature
from sdegen.core.slope_checks import check_slope
from sdegen.core.update import Number


class PairPotential(ABC):
    """An energy U(r) of two particles at a distance r; of your own: define `energy` and `slope`.

        F = −U′(r) on each of the two, away from the other

    Both take distances of any shape, (P,) for P pairs, and return one number for each.

    Attributes:
        range: Distance beyond which U = 0; infinite where there is none.

    Example:
        >>> class InversePower(sg.PairPotential):
        ...     def energy(self, r):
        ...         return r**-3
        ...     def slope(self, r):
        ...         return -3 * r**-4
        >>> pairs = sg.PairForces(InversePower())
        >>> pairs.force(torch.tensor([[[0.0], [1.0]]])).flatten().tolist()
        [-3.0, 3.0]
    """

    range: float = math.inf

    @abstractmethod
    def energy(self, r: Tensor) -> Tensor:
        """U(r), shape of r."""

    @abstractmethod
    def slope(self, r: Tensor) -> Tensor:
        """U′(r), shape of r; the force on each of the two is −U′, away from the other."""


class FunctionPair(PairPotential):
    """U(r) from a function of your own, whose slope is found by autograd, or by differences.

    Args:
        function: U of distances, a tensor of shape (P,); returns one energy for each.

    Raises:
        TypeError: If it takes anything else.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        if Signature.of(function, "potential").of_time:
            raise TypeError(
                "a pair potential must be a function U(r) of distances alone, but takes a second "
                "argument; bind it, as in lambda r: U(r, 2.0)."
            )

    def energy(self, r: Tensor) -> Tensor:
        """U(r), shape of r.

        Raises:
            ValueError: If the function returns another shape.
        """
        value: object = self.function(r)
        if not isinstance(value, Tensor):
            value = as_numbers("what the pair potential U(r) returns", value)
        if value.shape != r.shape:
            raise ValueError(
                f"a pair potential must return one energy for each distance, shape "
                f"{tuple(r.shape)}, but returned shape {tuple(value.shape)}; it is U(r) of the "
                "distance of two particles, such as lambda r: (1 - r) ** 2 / 2."
            )
        return value.to(r)

    def slope(self, r: Tensor) -> Tensor:
        """U′(r), shape of r."""
        if len(r) == 0:
            return torch.zeros_like(r)
        # autograd's graph is of use where something has a gradient
        wanted = r.requires_grad or self.energy(r[:1]).requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
            return gradient_of(lambda y: self.energy(y[:, 0]), r[:, None])[:, 0]

    def check(self, cutoff: float) -> None:
        """Compare the slope with differences of U up to the cutoff.

        Raises:
            ValueError: If they differ, or U is not finite there.
        """
        top = cutoff if cutoff < math.inf else 1.0
        ends = torch.tensor([[0.5 * top], [top]], dtype=torch.float64)
        value = self.energy(ends[:, 0])
        if not bool(value.isfinite().all()):
            raise ValueError(
                f"a pair potential must be finite up to the cutoff, but is {value.tolist()} at "
                f"r = {ends[:, 0].tolist()}."
            )
        check_slope(
            lambda y: self.energy(y[:, 0])[:, None],
            lambda y: self.slope(y[:, 0])[:, None],
            ends,
            name="the pair potential U(r)",
            cure="If a part of U(r) is hidden from autograd (.detach(), no_grad, NumPy), take "
            "that out or hide all of it; if it jumps below the cutoff, make it continuous.",
        )


class HarmonicRepulsion(PairPotential):
    """Harmonic repulsion: soft discs or spheres of diameter σ.

        U(r) = ½ k (σ − r)² for r < σ,   0 beyond

    Args:
        stiffness: k > 0, in units of energy over length².
        diameter: σ > 0, which is its range.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If one is out of its range, or not finite.

    Example:
        >>> sg.HarmonicRepulsion(4.0).energy(torch.tensor([0.5, 1.5])).tolist()  # r of any shape
        [0.5, 0.0]
    """

    def __init__(self, stiffness: Number = 1.0, diameter: float = 1.0) -> None:
        self.stiffness: float | Tensor = _positive("stiffness", stiffness)
        check_positive("diameter", diameter)
        self.diameter: float = float(diameter)
        self.range: float = self.diameter

    def energy(self, r: Tensor) -> Tensor:
        """½ k (σ − r)², 0 from σ on."""
        return 0.5 * self.stiffness * (self.diameter - r).clamp(min=0.0).square()

    def slope(self, r: Tensor) -> Tensor:
        """−k (σ − r)."""
        return -self.stiffness * (self.diameter - r).clamp(min=0.0)


class LennardJones(PairPotential):
    """The Lennard-Jones potential, with a minimum of −ε at 2^{1/6} σ.

        U(r) = 4ε [(σ/r)¹² − (σ/r)⁶]

    Args:
        epsilon: ε > 0, in units of energy.
        sigma: σ > 0, where U = 0.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If one is out of its range, or not finite.

    Example:
        >>> r = torch.tensor([1.0, 2 ** (1 / 6)])  # of any shape
        >>> [f"{u:.3f}" for u in sg.LennardJones(2.0).energy(r)]
        ['0.000', '-2.000']
    """

    def __init__(self, epsilon: Number = 1.0, sigma: float = 1.0) -> None:
        self.epsilon: float | Tensor = _positive("epsilon", epsilon)
        check_positive("sigma", sigma)
        self.sigma: float = float(sigma)

    def energy(self, r: Tensor) -> Tensor:
        """4ε [(σ/r)¹² − (σ/r)⁶]."""
        sixth = self._sixth(r)
        return 4 * self.epsilon * sixth * (sixth - 1)

    def slope(self, r: Tensor) -> Tensor:
        """−24ε [2 (σ/r)¹² − (σ/r)⁶]/r."""
        sixth = self._sixth(r)
        return -24 * self.epsilon * sixth * (2 * sixth - 1) / r

    def _sixth(self, r: Tensor) -> Tensor:
        """Return (σ/r)⁶, by products: powers of tensors take their time."""
        ratio = self.sigma / r
        cube = ratio * ratio * ratio
        return cube * cube


class WCA(LennardJones):
    """The Weeks–Chandler–Andersen potential: Lennard-Jones without its attraction.

        U(r) = 4ε [(σ/r)¹² − (σ/r)⁶] + ε for r < 2^{1/6} σ,   0 beyond

    Args:
        epsilon: ε > 0.
        sigma: σ > 0; its range is 2^{1/6} σ.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If one is out of its range, or not finite.

    Example:
        >>> sg.WCA(2.0).energy(torch.tensor([1.0, 1.5])).tolist()  # r of any shape
        [2.0, 0.0]
    """

    def __init__(self, epsilon: Number = 1.0, sigma: float = 1.0) -> None:
        super().__init__(epsilon, sigma)
        self.range: float = 2 ** (1 / 6) * self.sigma

    def energy(self, r: Tensor) -> Tensor:
        """4ε [(σ/r)¹² − (σ/r)⁶] + ε, 0 from 2^{1/6} σ on."""
        return torch.where(r < self.range, super().energy(r) + self.epsilon, 0.0)

    def slope(self, r: Tensor) -> Tensor:
        """−24ε [2 (σ/r)¹² − (σ/r)⁶]/r, 0 from 2^{1/6} σ on."""
        return torch.where(r < self.range, super().slope(r), 0.0)


class GaussianCore(PairPotential):
    """Gaussian cores: particles that pass through each other.

        U(r) = ε e^{−r²/σ²}

    Args:
        epsilon: ε, negative where they attract each other.
        sigma: σ > 0.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If one is out of its range, or not finite.

    Example:
        >>> r = torch.tensor([0.0, 1.0])  # of any shape
        >>> [f"{u:.4f}" for u in sg.GaussianCore(2.0).energy(r)]  # ε and ε/e
        ['2.0000', '0.7358']
    """

    def __init__(self, epsilon: Number = 1.0, sigma: float = 1.0) -> None:
        self.epsilon: float | Tensor = as_parameter("epsilon", epsilon)
        check_finite("epsilon", value_of(self.epsilon))
        check_positive("sigma", sigma)
        self.sigma: float = float(sigma)

    def energy(self, r: Tensor) -> Tensor:
        """ε e^{−r²/σ²}."""
        return self.epsilon * torch.exp(-(r / self.sigma).square())

    def slope(self, r: Tensor) -> Tensor:
        """−(2 r/σ²) U."""
        return -2 / self.sigma**2 * r * self.energy(r)


class Yukawa(PairPotential):
    """The Yukawa potential: charges that others screen; Coulomb's 1/r for κ = 0.

        U(r) = ε (σ/r) e^{−κ r}

    Args:
        epsilon: ε, negative where they attract each other.
        sigma: σ > 0.
        kappa: κ ≥ 0, one over the screening length.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If one is out of its range, or not finite.

    Example:
        >>> r = torch.tensor([1.0, 2.0])  # of any shape
        >>> [f"{u:.4f}" for u in sg.Yukawa().energy(r)]  # e⁻¹ and e⁻²/2
        ['0.3679', '0.0677']
    """

    def __init__(self, epsilon: Number = 1.0, sigma: float = 1.0, kappa: float = 1.0) -> None:
        self.epsilon: float | Tensor = as_parameter("epsilon", epsilon)
        check_finite("epsilon", value_of(self.epsilon))
        check_positive("sigma", sigma)
        check_not_negative("kappa", kappa)
        self.sigma: float = float(sigma)
        self.kappa: float = float(kappa)

    def energy(self, r: Tensor) -> Tensor:
        """ε (σ/r) e^{−κ r}."""
        return self.epsilon * self.sigma * torch.exp(-self.kappa * r) / r

    def slope(self, r: Tensor) -> Tensor:
        """−(κ + 1/r) U."""
        return -(self.kappa + 1 / r) * self.energy(r)


def as_pair_potential(potential: object) -> PairPotential:
    """Return a pair potential, made of a function U(r) where it is one.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(potential, PairPotential):
        return potential
    if isinstance(potential, type):
        raise TypeError(
            f"a pair potential must be an object, but is the class {potential.__name__}: pass "
            f"{potential.__name__}()."
        )
    if callable(potential):
        return FunctionPair(potential)
    raise TypeError(
        "potential must be a pair potential such as HarmonicRepulsion(), or a function U(r) of "
        f"distances such as lambda r: (1 - r) ** 2 / 2, but is {kind_of(potential)}."
    )


def _positive(name: str, value: object) -> float | Tensor:
    """Return a parameter that is positive, a number or a 0-d tensor with its gradient."""
    parameter = as_parameter(name, value)
    check_positive(name, value_of(parameter))
    return parameter
