"""Priors: the laws from which generation starts, at the time where the noising ends.

    X_T ~ π,        KL(p_T ‖ π) is what the start costs

`GaussianPrior` is N(μ, C), which a linear process reaches; its stationary law is that of
`GaussianPrior.stationary`. `DensityPrior` is a density on a line, such as
`FokkerPlanck(sde, grid).stationary()`. `SamplePrior` draws again from states that are there, such
as the end points of a long simulation: it has samples and no density, and what asks for
`log_prob` refuses it by name.

What a prior misses of p_T is the number of `prior_mismatch`; after which time little is missed,
that of `noising_time`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_numbers, as_state, check_kind, check_state, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import Numbers, State
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.sde.linear import LinearSDE
from sdegen.sde.transitions import GaussianLaw

_MASS_TOLERANCE = 1e-6  # of a density that should hold 1


@runtime_checkable
class LineDensity(Protocol):
    """A density on a line that can be drawn from: `Density` of a Fokker–Planck solve."""

    @property
    def mass(self) -> Tensor:
        """∫ p dx."""

    def at(self, x: Tensor) -> Tensor:
        """Return p(x)."""

    def quantile(self, q: Tensor) -> Tensor:
        """Return x at which the share q of the mass lies below."""

    def expect(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ∫ f p dx."""


class Prior(ABC):
    """A law to draw starts from: `sample` and, where it has a density, `log_prob`.

        x_T ~ π,   log π(x) in nats

    A class of your own defines both.

    Attributes:
        event_shape: Shape of one state.

    Example:
        >>> class Sure(sg.Prior):
        ...     event_shape = (1,)
        ...     def sample(self, n, *, rng=None, dtype=None, device="cpu"):
        ...         return torch.full((n, 1), 2.0, dtype=dtype, device=device)
        ...     def log_prob(self, x):
        ...         raise TypeError("a point has no density")
        >>> Sure().sample(3).flatten().tolist()
        [2.0, 2.0, 2.0]
    """

    event_shape: tuple[int, ...]

    @abstractmethod
    def sample(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw n independent states.

        Args:
            n: How many.
            rng: Seed, generator or None.
            dtype: Of the states; None is torch's default.
            device: Where they are.

        Returns:
            Shape (n, *event_shape).
        """

    @abstractmethod
    def log_prob(self, x: State) -> Tensor:
        """Return log π(x) in nats, shape (batch,).

        Args:
            x: States, shape (batch, *event_shape).

        Raises:
            TypeError: If it has samples alone.
            ValueError: If the states have another shape.
        """

    def _states(self, x: State) -> State:
        """Return states of its event, or refuse them."""
        x = as_state("x", x)
        if tuple(x.shape[1:]) != self.event_shape or not x.ndim:
            shape = ", ".join(map(str, ("batch", *self.event_shape)))
            raise ValueError(
                f"x must have shape ({shape}), as {type(self).__name__} has it, but has shape "
                f"{tuple(x.shape)}."
            )
        return x


class GaussianPrior(Prior):
    """A Gaussian law of states of any shape.

        π(x) = N(x; μ, C)

    Args:
        mean: μ, shape of one state; `torch.zeros(2)` for states (batch, 2).
        covariance: C: the variance of every coordinate, a number; of each, shape of mean; or a
            matrix of the d coordinates in their order, shape (d, d).

    Raises:
        TypeError: If one of them is no array of numbers.
        ValueError: If shapes do not fit, or C is not symmetric and positive definite.

    Example:
        >>> prior = sg.GaussianPrior([0.0, 0.0])
        >>> f"{prior.log_prob(torch.zeros(1, 2)).item():.4f}"  # −log 2π
        '-1.8379'
    """

    def __init__(self, mean: Numbers, covariance: Numbers = 1.0) -> None:
        m = as_numbers("mean", mean, expected="an array of the shape of one state")
        c = as_numbers("covariance", covariance, expected="a matrix, or a number for each or all")
        if m.ndim == 0 or m.numel() == 0 or not bool(m.isfinite().all()):
            raise ValueError(
                "mean must have the shape of one state, such as (1,), and be finite, but is "
                f"{kind_of(m)}, {m.tolist()}."
            )
        d = m.numel()
        if c.shape not in ((), m.shape, (d, d)):
            raise ValueError(
                f"covariance must be a number or have shape {tuple(m.shape)}, as mean has it, or "
                f"({d}, {d}), but has shape {tuple(c.shape)}."
            )
        self.mean: Tensor = m
        self.covariance: Tensor = c.to(m.device)
        self.event_shape: tuple[int, ...] = tuple(m.shape)
        self._diagonal = c.ndim == 0 or c.shape == m.shape
        if self._diagonal:
            if not bool(((c > 0) & c.isfinite()).all()):
                raise ValueError(f"every variance must be finite and > 0, but is {c.tolist()}.")
            self._root = self.covariance.sqrt()
            return
        checked = GaussianLaw.of(m.flatten(), c).covariance
        lowest = float(torch.linalg.eigvalsh(checked.detach()).min())
        if not lowest > 0:
            raise ValueError(
                "covariance must be positive definite, for a density to exist, but its lowest "
                f"eigenvalue is {lowest:.4g}."
            )
        self._root = torch.linalg.cholesky(checked)

    @classmethod
    def stationary(cls, sde: SDE, event_shape: Sequence[int]) -> GaussianPrior:
        """Return the stationary law of a linear process, or what a `GaussianPath` ends at.

        Args:
            sde: A `LinearSDE`, `OrnsteinUhlenbeck`, or another SDE with a linear drift and
                additive noise, such as `UnderdampedLangevin(Quadratic(), …)`; of a `GaussianPath`
                it is N(0, prior_std² I), which p is near at t_max.
            event_shape: Shape of one state.

        Raises:
            TypeError: If sde is no SDE, or event_shape no tuple of whole numbers.
            ValueError: If the process is not linear, or has no stationary law.
        """
        check_kind("sde", sde, SDE, "an SDE, such as OrnsteinUhlenbeck()")
        shape = _shape(event_shape)
        if isinstance(sde, GaussianPath):
            return cls(torch.zeros(shape, dtype=torch.float64), sde.prior_std**2)
        d = math.prod(shape)
        linear = sde if isinstance(sde, LinearSDE) else LinearSDE.of(sde, d)
        try:
            mean = linear.stationary_mean()
        except ValueError as error:  # which may speak of what it was turned into
            raise ValueError(f"{type(sde).__name__} has no stationary law: {error}") from None
        if len(mean) != d:
            raise ValueError(
                f"event_shape must hold {len(mean)} numbers, as {type(sde).__name__} has them, "
                f"but is {shape}."
            )
        covariance = linear.stationary_covariance()
        if torch.equal(covariance, covariance.diag().diag()):
            return cls(mean.reshape(shape), covariance.diag().reshape(shape))
        return cls(mean.reshape(shape), covariance)

    def sample(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw μ + √C z, z ~ N(0, I), shape (n, *event_shape); arguments as of `Prior`."""
        check_count("n", n)
        dtype = dtype or torch.get_default_dtype()
        z = stream(rng, "prior").normal((n, *self.event_shape), dtype=dtype, device=device)
        mean, scale = self.mean.to(z), self._root.to(z)
        if self._diagonal:
            return mean + scale * z
        return mean + (z.flatten(1) @ scale.T).reshape(z.shape)

    def log_prob(self, x: State) -> Tensor:
        """Return log N(x; μ, C) in nats, shape (batch,); errors as of `Prior`."""
        x = self._states(x)
        centred, scale, d = x - self.mean.to(x), self._root.to(x), self.mean.numel()
        if self._diagonal:
            white = (centred / scale).flatten(1)
            volume = scale.log().expand(self.event_shape).sum()
        else:
            flat = centred.flatten(1).T
            white = torch.linalg.solve_triangular(scale, flat, upper=False).T
            volume = scale.diagonal().log().sum()
        return -0.5 * white.square().sum(1) - volume - 0.5 * d * math.log(2 * math.pi)

    def matrix(self) -> Tensor:
        """Return C as a matrix of the d coordinates, shape (d, d), float64."""
        if self._diagonal:
            return self.covariance.expand(self.event_shape).flatten().diag()
        return self.covariance


class DensityPrior(Prior):
    """A density on a line, such as the stationary one of `FokkerPlanck`.

        x = Q(u), u uniform on [0, 1],   π(x) = p(x)

    Samples are quantiles of uniform numbers, of the law that `density.at` shows; beyond its nodes
    `log_prob` is −∞. States have shape (batch, 1).

    Args:
        density: A `Density` of mass 1.

    Raises:
        TypeError: If it is none.
        ValueError: If its mass is not 1.

    Example:
        >>> rest = sg.FokkerPlanck(sg.OrnsteinUhlenbeck(), sg.Grid(-8.0, 8.0, 200)).stationary()
        >>> prior = sg.DensityPrior(rest)  # N(0, 1)
        >>> f"{prior.log_prob(torch.zeros(1, 1)).item():.4f}"  # −½ log 2π
        '-0.9189'
    """

    def __init__(self, density: LineDensity) -> None:
        if isinstance(density, type) or not isinstance(density, LineDensity):
            raise TypeError(
                "density must be a Density, such as FokkerPlanck(sde, grid).stationary() returns, "
                f"but is {kind_of(density)}."
            )
        mass = float(density.mass.detach())
        if not abs(mass - 1) < _MASS_TOLERANCE:
            raise ValueError(
                f"density must hold a mass of 1, but holds {mass:.6g}; pass density.normalized()."
            )
        self.density: LineDensity = density
        self.event_shape: tuple[int, ...] = (1,)

    def sample(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw quantiles of uniform numbers, shape (n, 1); arguments as of `Prior`."""
        check_count("n", n)
        source = stream(rng, "prior").generator()
        levels = torch.rand(n, generator=source, dtype=torch.float64)
        x = self.density.quantile(levels)[:, None]
        return x.to(device=device, dtype=dtype or torch.get_default_dtype())

    def log_prob(self, x: State) -> Tensor:
        """Return log p(x) in nats, shape (batch,); errors as of `Prior`."""
        x = self._states(x)
        return self.density.at(x[:, 0].double()).log().to(x)


class SamplePrior(Prior):
    """States that are there, drawn again: the end points of a long simulation.

        π(x) = (1/n) Σ_i δ(x − x_i)

    Every draw is one of them, none twice before all have been drawn, so that their number bounds
    what can be drawn: n states of a law show its averages to about 1/√n.

    Args:
        states: Shape (n, *event), finite floats, n ≥ 2.

    Raises:
        TypeError: If they are no floats.
        ValueError: If they have no batch axis, are not finite, or are fewer than two.

    Example:
        >>> prior = sg.SamplePrior(torch.tensor([[1.0], [2.0], [3.0]]))
        >>> sorted(prior.sample(3, rng=0).flatten().tolist())  # each once
        [1.0, 2.0, 3.0]
    """

    def __init__(self, states: State) -> None:
        x = check_state(states, name="states").detach()
        if len(x) < 2:
            raise ValueError(
                "states must be two or more, which stand for a law, but there is one; of a point "
                "every draw is the same."
            )
        self.states: Tensor = x
        self.event_shape: tuple[int, ...] = tuple(x.shape[1:])

    def sample(
        self,
        n: int,
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draw states in random order, and again where n is larger, shape (n, *event_shape)."""
        check_count("n", n)
        source, count = stream(rng, "prior").generator(), len(self.states)
        rounds = [torch.randperm(count, generator=source) for _ in range(-(-n // count))]
        drawn = self.states[torch.cat(rounds)[:n].to(self.states.device)]
        return drawn.to(device=device, dtype=dtype or torch.get_default_dtype())

    def log_prob(self, x: State) -> Tensor:
        """Refuse: samples have no density."""
        raise TypeError(
            "a SamplePrior has samples and no density, and a likelihood needs log π(x): pass a "
            "GaussianPrior, or the DensityPrior of a Fokker–Planck density."
        )


def check_prior(prior: object, name: str = "prior") -> Prior:
    """Refuse what is no `Prior`.

    Args:
        prior: What should be one.
        name: What its caller calls it.

    Raises:
        TypeError: If it is none, with what to pass instead.
    """
    if isinstance(prior, Prior):
        return prior
    raise TypeError(
        f"{name} must be a Prior, such as GaussianPrior(torch.zeros(2)), DensityPrior(density) or "
        f"SamplePrior(states), but is {kind_of(prior)}."
    )


def _shape(event_shape: object) -> tuple[int, ...]:
    """Return the shape of one state, or refuse what is none."""
    if (
        not isinstance(event_shape, Sequence)
        or isinstance(event_shape, str)
        or not len(event_shape)
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in event_shape)
    ):
        raise TypeError(
            "event_shape must be a tuple of whole numbers > 0, the shape of one state, such as "
            f"(2,), but is {event_shape!r}."
        )
    return tuple(event_shape)
