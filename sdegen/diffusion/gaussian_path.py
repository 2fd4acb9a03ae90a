"""Gaussian paths: linear SDEs that noise data, with a kernel of scalar α(t) and σ(t).

    dX = a(t) X dt + b(t) dW,        X_t | X_0 ~ N(α(t) X_0, σ(t)² I)

with d log α/dt = a and dσ²/dt = 2 a σ² + b². `drift_rate` is a, `diffusion_rate` is b. Data sit
at t = 0, noise at t_max. The kernel at t = 0 is a point, so that its score does not exist there:
whatever needs a score starts at `t_min`.

α and σ determine the rates, and `GaussianPath` derives them by autograd: a path of one's own needs
α(t) and σ(t) alone. Where a subclass gives rates, by formulas that are faster or do not cancel,
they are compared once with differences of its α and σ, when the SDE is reversed, put on a grid,
learned or asked for a likelihood.

σ is computed with expm1, never by subtracting from 1: at t = 10⁻³ a float32 subtraction has lost
three digits.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.core.checks import check_count
from sdegen.core.kernel import Kernel
from sdegen.core.noise import Rng, normal_like, stream
from sdegen.core.requests import as_number, as_state, as_time, check_kind, first_true, kind_of
from sdegen.core.retired import refuse_old_methods
from sdegen.core.sde import NoiseKind
from sdegen.core.shapes import State, Time, expand
from sdegen.diffusion.schedules import BetaSchedule, GeometricSigma
from sdegen.sde.linear import LinearSDE
from sdegen.sde.transitions import Transition

# where rates are compared with differences, as parts of the range: no nodes of a table; the steps
# of the differences, as parts of it; and the relative error that passes
_LOOKED_AT = (0.0171, 0.1236, 0.3093, 0.5279, 0.7639, 0.9271)
_STEPS, _SAME = (1e-5, 5e-6), 1e-3


class GaussianPath(LinearSDE):
    """A linear SDE that noises data by a Gaussian kernel.

        X_t | X_0 ~ N(α(t) X_0, σ(t)² I)
        dX = a X dt + b dW,   a = d log α/dt,   b² = dσ²/dt − 2 a σ²

    A subclass gives `alpha` and `sigma`, of t's shape; the rates follow, unless it gives them.

    Args:
        t_min: Smallest time at which the score is asked for, > 0.
        t_max: Time at which the prior is reached.

    Raises:
        ValueError: Unless 0 < t_min < t_max.

    Example:
        >>> class Rotation(sg.GaussianPath):
        ...     def alpha(self, t):
        ...         return (0.5 * torch.pi * t).cos()
        ...     def sigma(self, t):
        ...         return (0.5 * torch.pi * t).sin()
        >>> f"{Rotation().drift_rate(0.5):.4f}"  # −(π/2) tan(πt/2)
        '-1.5708'
    """

    noise: NoiseKind = "additive"
    autonomous: bool | None = None
    _has_scalar_kernel: ClassVar[bool] = True

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse the rates' names of version 0.1, which nobody would call."""
        super().__init_subclass__(**options)
        refuse_old_methods(cls, {"rate": "drift_rate", "noise_rate": "diffusion_rate"})

    def __init__(self, t_min: float = 1e-3, t_max: float = 1.0) -> None:
        t_min, t_max = as_number("t_min", t_min), as_number("t_max", t_max)
        if not 0 < t_min < t_max < math.inf:
            raise ValueError(
                f"t_min must lie in (0, t_max) = (0, {t_max:g}), but is {t_min:g}; at t = 0 the "
                "score does not exist."
            )
        self.t_min: float = t_min
        self.t_max: float = t_max

    @abstractmethod
    def alpha(self, t: Time | float) -> Tensor:
        """α(t), the factor of X_0 in the mean; shape of t."""

    @abstractmethod
    def sigma(self, t: Time | float) -> Tensor:
        """σ(t), the standard deviation of the kernel; shape of t."""

    def drift_rate(self, t: Time | float) -> Tensor:
        """a(t) = d log α/dt; shape of t."""
        return _derivative(lambda s: self.alpha(s).log(), as_time(t))

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """b(t), with b² = dσ²/dt − 2 a σ²; shape of t."""
        t = as_time(t)
        grown = _derivative(lambda s: self.sigma(s).square(), t)
        return torch.sqrt(grown - 2 * self.drift_rate(t) * self.sigma(t).square())

    def check_rates(self) -> None:
        """Refuse rates that do not belong to α and σ, compared with differences at a few times.

        Raises:
            ValueError: Naming the rate, the time and both numbers.
        """
        span = self.t_max - self.t_min
        t = self.t_min + span * torch.tensor(_LOOKED_AT, dtype=torch.float64)
        with torch.no_grad():
            a, b = self.drift_rate(t), self.diffusion_rate(t)
            steps = [step * span for step in _STEPS]  # of central differences
            slope, finer_slope = (
                (self.alpha(t + h).log() - self.alpha(t - h).log()) / (2 * h) for h in steps
            )
            growth, finer_growth = (
                (self.sigma(t + h).square() - self.sigma(t - h).square()) / (2 * h) for h in steps
            )
            two = self.sigma(t).square() * 2
        square, finer_square = growth - two * slope, finer_growth - two * finer_slope
        size = growth.abs() + (two * slope).abs()
        for name, formula, given, expected, finer, scale in (
            ("drift_rate", "d log α/dt", a, slope, finer_slope, slope.abs() + 1 / t),
            (
                "diffusion_rate²",
                "dσ²/dt − 2 drift_rate σ²",
                b * b.abs(),
                square,
                finer_square,
                size,
            ),
        ):
            # at a kink of a table the differences themselves do not agree, and nothing is said
            smooth = (expected - finer).abs() <= 0.1 * _SAME * scale
            off = smooth & ~((given - expected).abs() <= _SAME * scale)
            if (i := first_true(off)) is not None:
                raise ValueError(
                    f"the {name} of this {type(self).__name__} does not belong to its α and σ: at "
                    f"t = {float(t[i]):.4g} it is {float(given[i]):.6g}, but {formula} is "
                    f"{float(expected[i]):.6g}. Leave drift_rate and diffusion_rate out, and they "
                    "are derived."
                )

    @property
    def prior_std(self) -> float:
        """Standard deviation of the Gaussian that stands for p at t_max."""
        return 1.0

    @property
    def ends_without_signal(self) -> bool:
        """Whether α(t_max) = 0: nothing of the data is left there, and rates diverge."""
        end = torch.tensor(self.t_max, dtype=torch.float64)
        return float(self.alpha(end).detach()) == 0

    @property
    def kernel(self) -> Kernel:
        """α(t) and σ(t)."""
        return Kernel(self.alpha, self.sigma)

    @property
    def noise_kernel(self) -> Kernel:
        """α(t) and σ(t), as `kernel` has them."""
        return self.kernel

    @property
    def time_range(self) -> tuple[float, float]:
        """[0, t_max]."""
        return (0.0, self.t_max)

    @property
    def score_range(self) -> tuple[float, float]:
        """[t_min, t_max]: at t = 0 the kernel is a point."""
        return (self.t_min, self.t_max)

    def drift(self, x: State, t: Time | float) -> State:
        """f(x, t) = a(t) x."""
        return expand(self.drift_rate(t), x) * x

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """g(t) = b(t), broadcastable to x."""
        return expand(self.diffusion_rate(t), x)

    def transition(self, t: Time | float, s: Time | float) -> Transition:
        """Return the law of X_s given X_t: Φ = α_s/α_t and the variance σ_s² − Φ² σ_t².

        Args:
            t: Earlier time, 0-d.
            s: Later time, 0-d.

        Raises:
            ValueError: If s < t.
        """
        t, s = as_time(t), as_time(s)
        if float(s) < float(t):
            raise ValueError(f"s must not be before t, but s = {float(s):g} and t = {float(t):g}.")
        factor = self.alpha(s) / self.alpha(t)
        grown = self.sigma(s).square() - (factor * self.sigma(t)).square()
        return Transition(factor, torch.zeros_like(factor), grown.clamp(min=0.0))

    def _slowest(self) -> float:
        """Refuse to look for a stationary law."""
        raise ValueError(
            f"{type(self).__name__} has rates that depend on time, and no stationary law; at "
            "t_max it is near N(0, prior_std²), from which prior(shape) draws."
        )

    def perturb(self, x0: State, t: Time | float, *, rng: Rng = None) -> tuple[State, State]:
        """Draws from the kernel, x_t = α(t) x0 + σ(t) ε.

        Args:
            x0: Data, shape (batch, *event).
            t: Time, shape () or (batch,).
            rng: Seed, generator or None.

        Returns:
            x_t and the ε ~ N(0, I) in it, both of x0's shape.
        """
        t, x0 = as_time(t), as_state("x0", x0)
        eps = normal_like(x0, stream(rng, "perturb"))
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps, eps

    def prior(
        self,
        shape: tuple[int, ...],
        *,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> State:
        """Draws x_T ~ N(0, prior_std² I), shape (batch, *event)."""
        if not isinstance(shape, Sequence) or not all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape
        ):
            raise TypeError(
                f"shape must be a tuple of whole numbers, (batch, *event), but is {shape!r}."
            )
        z = stream(rng, "prior").normal(tuple(shape), dtype=dtype, device=device)
        return self.prior_std * z

    def prior_log_prob(self, x: State) -> Tensor:
        """log N(x; 0, prior_std² I) in nats, shape (batch,)."""
        flat = x.flatten(1)
        constant = flat.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(self.prior_std))
        return -0.5 * (flat / self.prior_std).square().sum(1) - constant

    def time_grid(self, steps: int) -> Tensor:
        """Equal steps from t_max to t_min: steps + 1 times, float64, as generation goes."""
        check_count("steps", steps)
        return torch.linspace(self.t_max, self.t_min, steps + 1, dtype=torch.float64)


class VP(GaussianPath):
    """Variance-preserving SDE, an Ornstein-Uhlenbeck process with rate β(t)/2.

        dX = −½ β(t) X dt + √β(t) dW,   α(t) = exp(−½∫₀ᵗβ),   σ(t)² = 1 − α(t)²

    Args:
        beta: Noise rate β(t) > 0, of the shape of t, in units of inverse time.
        t_min: Smallest time at which the score is asked for.

    Reference:
        Song et al. 2021, eqs. (11) and (29), arXiv:2011.13456.

    Example:
        >>> path = sg.VP(sg.ConstantBeta(2.0))
        >>> f"{path.alpha(1.0):.4f}, {path.sigma(1.0):.4f}"  # e⁻¹ and √(1 − e⁻²)
        '0.3679, 0.9299'
    """

    def __init__(self, beta: BetaSchedule, *, t_min: float = 1e-3) -> None:
        schedule = "a schedule β(t), such as LinearBeta(0.1, 20.0) or ConstantBeta(2.0)"
        check_kind("beta", beta, BetaSchedule, schedule)
        super().__init__(t_min, beta.t_max)
        self.beta = beta

    def alpha(self, t: Time | float) -> Tensor:
        """α(t) = e^{−B/2}."""
        return torch.exp(-0.5 * self.beta.integral(as_time(t)))

    def sigma(self, t: Time | float) -> Tensor:
        """σ(t) = √(1 − e^{−B})."""
        return torch.sqrt(-torch.expm1(-self.beta.integral(as_time(t))))

    def drift_rate(self, t: Time | float) -> Tensor:
        """−β/2."""
        return -0.5 * self.beta(as_time(t))

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """√β."""
        return torch.sqrt(self.beta(as_time(t)))


class SubVP(VP):
    """Sub-variance-preserving SDE: VP's drift with less noise.

        dX = −½ β(t) X dt + √(β(t) (1 − e^{−2B(t)})) dW,   α(t) = e^{−B/2},   σ(t) = 1 − e^{−B}

    Args:
        beta: Noise rate β(t) > 0, of the shape of t, in units of inverse time.
        t_min: Smallest time at which the score is asked for.

    Reference:
        Song et al. 2021, eqs. (14) and (29), arXiv:2011.13456.

    Example:
        >>> f"{sg.SubVP(sg.ConstantBeta(2.0)).sigma(1.0):.4f}"  # 1 − e⁻², the square of VP's
        '0.8647'
    """

    def sigma(self, t: Time | float) -> Tensor:
        """σ(t) = 1 − e^{−B}."""
        return -torch.expm1(-self.beta.integral(as_time(t)))

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """√(β (1 − e^{−2B}))."""
        t = as_time(t)
        return torch.sqrt(-self.beta(t) * torch.expm1(-2 * self.beta.integral(t)))


class ExplodingPath(GaussianPath):
    """A path on which noise is added to the data, and nothing else happens: α(t) = 1."""

    @property
    def prior_std(self) -> float:
        """σ(t_max); the spread of the data is neglected beside it."""
        return float(self.sigma(torch.tensor(self.t_max, dtype=torch.float64)))

    def alpha(self, t: Time | float) -> Tensor:
        """1."""
        return torch.ones_like(as_time(t))

    def drift_rate(self, t: Time | float) -> Tensor:
        """0."""
        return torch.zeros_like(as_time(t))


class VE(ExplodingPath):
    """Variance-exploding SDE, a Brownian motion with growing pace.

        dX = √(dσ²/dt) dW,   α(t) = 1

    Args:
        schedule: σ(t)² and its rate, of the shape of t; starts from zero variance.
        t_min: Smallest time at which the score is asked for.

    Reference:
        Song et al. 2021, eqs. (9) and (29), arXiv:2011.13456.

    Example:
        >>> f"{sg.VE(sg.GeometricSigma(1.0, 2.0)).sigma(1.0):.4f}"  # √(2² − 1²)
        '1.7321'
    """

    def __init__(self, schedule: GeometricSigma, *, t_min: float = 1e-3) -> None:
        expected = "one of σ(t), such as GeometricSigma(0.01, 50.0)"
        check_kind("schedule", schedule, GeometricSigma, expected)
        super().__init__(t_min, schedule.t_max)
        self.schedule = schedule

    def sigma(self, t: Time | float) -> Tensor:
        """σ(t)."""
        return torch.sqrt(self.schedule.variance(as_time(t)))

    def diffusion_rate(self, t: Time | float) -> Tensor:
        """√(dσ²/dt)."""
        return torch.sqrt(self.schedule.variance_rate(as_time(t)))


def check_gaussian_path(sde: object, *, name: str = "sde", cure: str = "") -> GaussianPath:
    """Refuse what has no Gaussian kernel α(t), σ(t).

    Args:
        sde: What should be a Gaussian path.
        name: What its caller calls it.
        cure: What to pass instead, where there is more to say.

    Raises:
        TypeError: If it is none, with what to pass instead.
    """
    if isinstance(sde, GaussianPath):
        return sde
    raise TypeError(
        f"{name} must be a GaussianPath, which noises data to a known kernel α(t), σ(t), such as "
        f"VP(LinearBeta(0.1, 20.0)), VE, RectifiedFlow() or EDM(), but is {kind_of(sde)}.{cure}"
    )


def _derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """df/dt of a function of the time alone, of t's shape, by autograd in float64."""
    graph = torch.is_grad_enabled() and t.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        at = t.double() if graph else t.detach().clone().double().requires_grad_()
        value = function(at)
        if not value.requires_grad:
            return torch.zeros_like(t)
        (slope,) = torch.autograd.grad(value.sum(), at, create_graph=graph, allow_unused=True)
    return torch.zeros_like(t) if slope is None else slope.to(t.dtype)
