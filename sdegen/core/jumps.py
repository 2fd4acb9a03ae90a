"""Jumps: what moves a state at once, at random times, beside drift and Wiener processes.

    dX = f(X, t) dt + g(X, t) dW + dJ,        dJ = Σ_i s(X(t_i−), t_i, u_i) δ(t − t_i) dt

In a **compound Poisson process** jumps come at a rate λ(x, t), and each has a size of its own, by
a uniform number u: s(u) is the quantile function of sizes, and s(x, u) may depend on the state
before the jump. All that is random is in t_i and u_i, so that sizes are functions like drift and
diffusion, and a run is reproduced from its seed.

A rate that depends on the state is **thinned**: candidates come at a constant rate, a bound Λ that
the user states, and one at (x, t) is a jump with chance λ(x, t)/Λ, which is exact as long as
λ ≤ Λ. That it is, is looked at before the run at its start, and in the run at the beginning of
each step and at every candidate.

An **α-stable** motion (`alpha_stable.py`) jumps at infinitely many times in any interval, and is
known by its increments.

What reads drift and diffusion of an SDE alone refuses jumps by name (`check_no_jumps`).

Reference:
    Lewis and Shedler 1979, Naval Res. Logistics 26, 403, for thinning; Cont and Tankov 2004,
    Financial Modelling with Jump Processes, section 3.2.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdegen.core.checks import check_finite, check_not_negative, check_positive
from sdegen.core.requests import as_number, check_function, kind_of, refuse_lost_gradient
from sdegen.core.shapes import State, Time, as_column
from sdegen.core.signature import Signature

if TYPE_CHECKING:
    from sdegen.core.sde import SDE

Sizes = float | Distribution | Callable[..., Tensor]

_ROUNDED = 1e-6  # relative: what a rate in float32 may be above its bound
_PROBED = (0.5, 0.1, 0.9)


def check_no_jumps(sde: object, name: str, instead: str = "") -> None:
    """Refuse an SDE with jumps, where drift and diffusion alone are read.

    Args:
        sde: Dynamics; what declares no jumps has none.
        name: What reads drift and diffusion alone.
        instead: What takes jumps, as the end of a sentence.

    Raises:
        ValueError: Naming both.
    """
    jumps = getattr(sde, "jumps", None)
    if jumps is not None:
        listed = ", ".join(type(each).__name__ for each in jumps)
        raise ValueError(
            f"{name} reads drift and diffusion alone, but {type(sde).__name__} jumps ({listed})"
            + (
                instead
                or "; its trajectories are those of simulate(sde, …, solver=JumpAdapted())."
            )
        )


def continuous_part(sde: SDE) -> SDE:
    """Return the same drift and noise without jumps."""
    if sde.jumps is None:
        return sde
    part = copy.copy(sde)
    part.jumps = None
    return part


@dataclass(frozen=True, eq=False)
class CompoundPoisson:
    """Jumps at a rate λ, each of a size of its own.

        dJ = Σ_i s(X(t_i−), t_i, u_i) δ(t − t_i) dt,   P(a jump in [t, t + dt]) = λ(X, t) dt

    A trajectory has one clock: all its coordinates jump at the same times. For clocks of their own
    pass several to `JumpDiffusion`.

    Args:
        rate: λ, a number ≥ 0 in units of 1/time; or λ(x, t), λ(x) or λ(t), which returns one
            number for each trajectory, shape (batch,) or (batch, 1, …), and is given t of shape
            (batch,).
        sizes: A number; a `torch.distributions` object with `icdf` (Normal, Exponential, Laplace,
            Uniform, …), of a state's shape where that has several coordinates; or s(u), s(x, u)
            or s(x, t, u), a function of uniform numbers u in (0, 1), float64, of x's shape: the
            quantile function of sizes. X(e^Y − 1) of Merton is
            `lambda x, u: x * torch.expm1(Normal(m, d).icdf(u))`. What it returns is added to x.
        bound: Λ, which λ(x, t) never exceeds; for a rate that is a function. Candidates come at
            this rate, so that a large one costs.

    Raises:
        TypeError: If an argument is of another kind, or a distribution has no icdf.
        ValueError: If the rate is negative or not finite, a function has no bound, or the bound
            is not positive.

    Example:
        >>> jumps = sg.CompoundPoisson(2.0, torch.distributions.Laplace(0.0, 1.0))
        >>> x, t, u = torch.zeros(1, 1), torch.tensor(0.0), torch.full((1, 1), 0.75)
        >>> jumps.rates(x, t).item(), f"{jumps.size(x, t, u).item():.3f}"  # λ, log 2
        (2.0, '0.693')
    """

    rate: float | Callable[..., Tensor]
    sizes: Sizes
    bound: float | None = None

    def __post_init__(self) -> None:
        if callable(self.rate) and not isinstance(self.rate, type | Tensor):
            Signature.of(self.rate, "rate")
            if self.bound is None:
                raise ValueError(
                    "a rate that is a function needs a bound that it never exceeds, for thinning; "
                    "pass bound=."
                )
            check_positive("bound", as_number("bound", self.bound))
        else:
            rate = as_number("rate", self.rate)
            check_not_negative("rate", rate)
            object.__setattr__(self, "rate", rate)
            if self.bound is not None:
                raise ValueError(
                    f"bound= goes with a rate that is a function, but rate is {rate:g}; leave it "
                    "out."
                )
        self._size_read  # noqa: B018  (what is no size is refused here)

    @property
    def most(self) -> float:
        """Λ, the rate of candidates."""
        return float(self.rate) if self.bound is None else float(self.bound)  # type: ignore[arg-type]

    @property
    def is_thinned(self) -> bool:
        """Whether a candidate need not be a jump."""
        return self.bound is not None

    @property
    def autonomous(self) -> bool:
        """Whether neither rate nor sizes take t."""
        timed = self.is_thinned and self._rate_read.of_time
        return not timed and self._size_read[1] < 3

    @property
    def is_additive(self) -> bool:
        """Whether sizes do not depend on the state."""
        return self._size_read[1] < 2

    def rates(self, x: State, t: Time) -> Tensor:
        """Return λ(x, t), shape (batch,), float64.

        Args:
            x: States before a jump, shape (batch, *event).
            t: Time, 0-d or shape (batch,).

        Raises:
            ValueError: If it has another shape, is negative or not finite, or above its bound,
                with the numbers; where x itself is not finite it is 0.
        """
        if not self.is_thinned:
            return torch.full((len(x),), self.most, dtype=torch.float64, device=x.device)
        t = torch.as_tensor(t).to(x).expand(len(x))
        state = x if self._rate_read.of_state else x.flatten(1)[:, :1]
        value = self._rate_read.function(state, t)
        if not isinstance(value, Tensor) or value.shape not in (
            (len(x),),
            (len(x), *(1,) * (x.ndim - 1)),
        ):
            raise ValueError(
                f"rate must return one number for each trajectory, shape ({len(x)},) or "
                f"({len(x)}, 1), for x of shape {tuple(x.shape)} and t of shape {tuple(t.shape)}, "
                f"but returned {kind_of(value)}; write x[:, 0] for the first coordinate."
            )
        refuse_lost_gradient("rate", value, "a run whose jumps depend on it")
        value = value.detach().reshape(-1).to(torch.float64)
        # a state that is lost already is for the run to tell of
        value = torch.where(x.flatten(1).isfinite().all(1), value, 0.0)
        bad = ~((value >= 0) & (value <= self.most * (1 + _ROUNDED)))
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            rate, at = float(value[i]), x[i].flatten()[:4].tolist()
            where = f"at t = {float(t[i]):g} and x = {at}"
            if rate > self.most:
                raise ValueError(
                    f"rate is {rate:.6g} {where}, above its bound {self.most:g}: thinning would "
                    "lose jumps; pass a larger bound=, or a rate that is cut off there."
                )
            raise ValueError(f"rate must be finite and ≥ 0, but is {rate:g} {where}.")
        return value

    def size(self, x: State, t: Time, u: Tensor) -> State:
        """Return the sizes of jumps, shape and dtype of x.

        Args:
            x: States before the jump, shape (batch, *event).
            t: Time, 0-d or shape (batch,).
            u: Uniform numbers in (0, 1), shape of x.

        Raises:
            TypeError: If a function returns no tensor.
            ValueError: If one law is said for several coordinates, they have another shape, or
                are not finite where x is.
        """
        function, count = self._size_read
        if self._is_one_law and x[0].numel() > 1:
            raise ValueError(
                f"sizes is one law for a state of shape {tuple(x.shape[1:])}, of which it does "
                "not say what jumps; pass one for each coordinate, such as Normal(torch.zeros(2), "
                "torch.ones(2)), or a function (x, u) that is 0 where nothing jumps."
            )
        given = ((u,), (x, u), (x, torch.as_tensor(t).to(x).expand(len(x)), u))[count - 1]
        value = function(*given)
        if not isinstance(value, Tensor):
            raise TypeError(f"sizes must return a tensor, but returned {kind_of(value)}.")
        if value.shape != x.shape:
            raise ValueError(
                f"sizes returned shape {tuple(value.shape)} for x and u of shape "
                f"{tuple(x.shape)}; a jump is added to x: return one of x's shape."
            )
        bad = ~value.isfinite() & x.isfinite()
        if bool(bad.any()):
            i = int(bad.flatten(1).any(1).nonzero()[0])
            raise ValueError(
                f"sizes must be finite, but are {value[i].detach().flatten()[:4].tolist()} at x = "
                f"{x[i].detach().flatten()[:4].tolist()} and u = {u[i].flatten()[:4].tolist()}."
            )
        return value.to(x.dtype)

    def check(self, x: State, t: Time) -> None:
        """Refuse rates and sizes that do not fit some states, before a run.

        Args:
            x: A few states, shape (batch, *event).
            t: Time, 0-d.

        Raises:
            TypeError, ValueError: As `rates` and `size` do.
        """
        x = x.detach()
        x = x if len(x) > 1 else x.expand(2, *x.shape[1:])  # two rows tell shapes apart
        self.rates(x, t)
        for u in _PROBED:
            self.size(x, t, torch.full_like(x, u, dtype=torch.float64))

    def fields(self) -> dict[str, Callable[[State, Time], Tensor]]:
        """Return what depends on the state, by name, as functions (x, t) of x's shape."""
        fields: dict[str, Callable[[State, Time], Tensor]] = {}
        if self.is_thinned:
            fields["rate"] = lambda x, t: as_column(self.rates(x, t), x).to(x.dtype).expand_as(x)
        if not self.is_additive:
            fields["sizes"] = lambda x, t: self.size(x, t, torch.full_like(x, 0.7).double())
        return fields

    @cached_property
    def _rate_read(self) -> Signature:
        assert callable(self.rate)
        return Signature.of(self.rate, "rate")

    @cached_property
    def _is_one_law(self) -> bool:
        """Whether sizes are said for one coordinate."""
        sizes = self.sizes
        return not sizes.batch_shape if isinstance(sizes, Distribution) else not callable(sizes)

    @cached_property
    def _size_read(self) -> tuple[Callable[..., Tensor], int]:
        """The quantile function, and how many arguments it takes."""
        sizes = self.sizes
        if isinstance(sizes, Distribution):
            return _quantiles(sizes), 1
        if isinstance(sizes, Real) or (isinstance(sizes, Tensor) and sizes.ndim == 0):
            number = as_number("sizes", sizes)
            check_finite("sizes", number)
            return (lambda u: torch.full_like(u, number)), 1
        expected = (
            "a number, a torch.distributions object with icdf, or a function (u), (x, u) or "
            "(x, t, u) of uniform numbers u"
        )
        check_function("sizes", sizes, expected)
        return sizes, _arguments(sizes, expected)  # type: ignore[return-value,arg-type]


def _quantiles(sizes: Distribution) -> Callable[[Tensor], Tensor]:
    """Return the quantile function of a distribution.

    Raises:
        TypeError: If it has none.
    """
    try:
        value = sizes.icdf(torch.tensor(0.5, dtype=torch.float64))
    except NotImplementedError:
        value = torch.tensor(math.nan)
    if not bool(value.isfinite().all()):
        raise TypeError(
            f"sizes is a {type(sizes).__name__}, which has no quantile function icdf; pass a "
            "function of uniform numbers, such as lambda u: torch.as_tensor(scipy.stats.gamma.ppf"
            "(u, 2.0))."
        )
    return sizes.icdf


def _arguments(function: Callable[..., Tensor], expected: str) -> int:
    """Return how many of (x, t, u) a function takes.

    Raises:
        TypeError: If it takes none, more than three, or u before x.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1  # a builtin without a signature, such as torch.logit
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in places and p.default is p.empty]
    if not 1 <= len(names) <= 3 or (len(names) > 1 and names[0] in ("u", "t")):
        raise TypeError(f"sizes must be {expected}, but takes ({', '.join(names)}).")
    return len(names)
