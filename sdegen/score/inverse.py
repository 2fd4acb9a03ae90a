"""Linear inverse problems: the score of what is measured, y = A x_0 + N(0, s² I).

    ∇ log p_t(x | y) = ∇ log p_t(x) + ∇ log p_t(y | x)
    p_t(y | x) = ∫ p(y | x_0) p(x_0 | x_t = x) dx_0

The second term needs p(x_0 | x_t), of which a score knows the mean and the covariance,

    x̂_0 = (x + σ² score)/α,     V = (σ²/α) ∂x̂_0/∂x        (Tweedie, twice)

With a Gaussian in its place y | x ~ N(A x̂_0, s² I + A V Aᵀ), and

    ∇ log p_t(y | x) ≈ (∂x̂_0/∂x)ᵀ Aᵀ (s² I + A V Aᵀ)⁻¹ (y − A x̂_0)

where V is not differentiated. Three choices of V have names:

    "tweedie"   V itself, m products with the Jacobian for m measurements; exact for Gaussian data
    "isotropic" σ²/(α² + σ²) I, that of data N(0, I): ΠGDM; one product
    "none"      0: nearly DPS, whose step sizes absorb what is missing; one product

**Of a network** V is no covariance: the Jacobian of a denoiser that was learned is not symmetric,
and its eigenvalues are negative where it is wrong, down to −3 on a U-Net of digits, so that
s² I + A V Aᵀ is indefinite and its inverse anything. "tweedie" takes the symmetric part and
raises every eigenvalue of A V Aᵀ to −λ_min: no better than that is V known. Upper halves of digits
(noise 0.05) continued by an MLP that was trained for 15 s, in 100 steps of DDIM with η = 1, came
with "tweedie" within 0.32 of the truth, with "isotropic" 0.38, and, of V as it is, 21. "none"
explodes there, which is an error.

All are **approximations** where the data are not Gaussian: at intermediate t a posterior of
several modes is not N(x̂_0, V). For a `GaussianMixture` the posterior is a mixture again, and
`posterior` gives it exactly: the answer to judge them by.

Reference:
    Boys et al. 2023, section 3, arXiv:2310.06721 ("tweedie"); Song et al. 2023, eqs. (6)-(8), ICLR
    ("isotropic"); Chung et al. 2022, theorem 1, arXiv:2209.14687 ("none").
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sdegen.core.checks import check_positive, check_word
from sdegen.core.requests import as_number, as_numbers, as_time, check_function, kind_of
from sdegen.core.shapes import ScoreFn, State, Time, expand
from sdegen.core.slope_checks import check_seen
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.score.model_checks import check_derivative

Covariance = Literal["tweedie", "isotropic", "none"]


@dataclass(frozen=True, eq=False)
class PosteriorScore:
    """The score of what is measured, as `LinearMeasurement.posterior_score` returns it.

    Attributes:
        prior: That of all data, measured or not.
        total: With that of the measurement.
    """

    prior: ScoreFn
    total: ScoreFn

    def __call__(self, x: State, t: Time | float) -> State:
        """Return ∇ log p_t(x | y), approximately; same shape as x."""
        return self.total(x, as_time(t))


@dataclass(frozen=True, eq=False)
class Guess:
    """What a score knows of x_0 given x_t.

    Attributes:
        x: States x_t, which require grad.
        x0: x̂_0, with its graph.
        alpha: α(t), ready to multiply x.
        sigma: σ(t), likewise.
        covariance: What is taken for the covariance of x_0.
        differentiable: Whether the answer is to be differentiated again.
    """

    x: State
    x0: State
    alpha: Tensor
    sigma: Tensor
    covariance: Covariance
    differentiable: bool

    def pulled(self, of: Tensor, v: Tensor) -> Tensor:
        """Return vᵀ ∂(of)/∂x, flat, for v like `of`, which was made of x0."""
        (grad,) = torch.autograd.grad(
            of, self.x, v, retain_graph=True, create_graph=self.differentiable
        )
        return grad.flatten(1)

    def tweedie(self) -> Tensor:
        """Return σ²/α, which makes V of ∂x̂_0/∂x, shape (batch or 1, 1, 1)."""
        # a 0-d float64 promotes once it has axes
        return (self.sigma**2 / self.alpha).reshape(-1, 1, 1).to(self.x)

    def isotropic(self) -> Tensor:
        """Return σ²/(α² + σ²), shape (batch or 1, 1, 1)."""
        r2 = self.sigma**2 / (self.alpha**2 + self.sigma**2)
        return r2.reshape(-1, 1, 1).to(self.x)


@dataclass(frozen=True, eq=False)
class LinearMeasurement:
    """A measurement y = A x_0 + s ε, ε ~ N(0, I), of data of d numbers.

    Args:
        operator: A, shape (m, d); events are flattened.
        value: y, shape (m,), one measurement for all trajectories; or one for each, (batch, m),
            with which `simulate` must be told interacting=True.
        noise_std: s > 0.

    Raises:
        TypeError: If operator or value is no tensor, such as a function: a blur or a mask must be
            given as a matrix, or to `Measurement`.
        ValueError: If shapes disagree, or s is not positive.

    Example:
        The sum of two numbers, measured as 1 ± 0.1.

        >>> total = sg.LinearMeasurement(torch.ones(1, 2), torch.ones(1), noise_std=0.1)
        >>> prior = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0)
        >>> total.posterior(prior).means.round(decimals=3)
        tensor([[0.4980, 0.4980]], dtype=torch.float64)
    """

    operator: Tensor
    value: Tensor
    noise_std: float

    def __post_init__(self) -> None:
        for name in ("operator", "value"):
            given: object = getattr(self, name)
            if callable(given) and not isinstance(given, Tensor):
                raise TypeError(
                    f"{name} must be a tensor, but is {type(given).__name__}; pass a function to "
                    "Measurement(operator, value, noise_std)."
                )
            if not isinstance(given, Tensor):
                object.__setattr__(self, name, as_numbers(name, given))
        object.__setattr__(self, "noise_std", as_number("noise_std", self.noise_std))
        if (
            self.operator.ndim != 2
            or self.value.ndim not in (1, 2)
            or self.value.shape[-1] != len(self.operator)
        ):
            raise ValueError(
                "operator (m, d) and value (m,) or (batch, m) must agree, but have shapes "
                f"{tuple(self.operator.shape)} and {tuple(self.value.shape)}."
            )
        if not (bool(self.operator.isfinite().all()) and bool(self.value.isfinite().all())):
            raise ValueError("operator and value must be finite.")
        check_positive("noise_std", self.noise_std)

    def log_prob(self, x0: State) -> Tensor:
        """log p(y | x_0) in nats, shape (batch,)."""
        a, flat = self.operator.to(x0), x0.flatten(1)
        off = self._off(flat) / self.noise_std
        constant = len(a) * math.log(2 * math.pi * self.noise_std**2)
        return -0.5 * (off.square().sum(1) + constant)

    def posterior(self, prior: GaussianMixture) -> GaussianMixture:
        """Return the law of x_0 given y, exactly, where the prior is a mixture of Gaussians.

        With C = s² I + A Σ_k Aᵀ and K = Σ_k Aᵀ C⁻¹ each part has the mean μ_k + K (y − A μ_k), the
        covariance Σ_k − K A Σ_k, and a weight ∝ w_k N(y; A μ_k, C).

        Raises:
            ValueError: If the prior has another dimension than A, or there are several y.
        """
        if not isinstance(prior, GaussianMixture):
            raise TypeError(
                f"prior must be a GaussianMixture, but is {kind_of(prior)}; for a learned score "
                "take posterior_score(sde, score)."
            )
        if self.value.ndim != 1:
            raise ValueError(
                f"the posterior of a mixture is that of one y, but value has shape "
                f"{tuple(self.value.shape)}: make a measurement for each row."
            )
        a, y = self.operator.to(prior.means), self.value.to(prior.means)
        if prior.dim != a.shape[1]:
            raise ValueError(
                f"operator has shape {tuple(a.shape)}, but the prior has {prior.dim} dimensions."
            )
        sigma = torch.einsum("kij,kj,klj->kil", prior.axes, prior.variances, prior.axes)
        c = a @ sigma @ a.T + self.noise_std**2 * torch.eye(len(y)).to(a)
        off = y - prior.means @ a.T
        gain = torch.linalg.solve(c, a @ sigma).mT  # Σ Aᵀ C⁻¹, C symmetric
        means = prior.means + torch.einsum("kdm,km->kd", gain, off)
        # Joseph's form: symmetric and positive definite whatever is rounded
        kept = torch.eye(prior.dim).to(a) - gain @ a
        covariances = kept @ sigma @ kept.mT + self.noise_std**2 * gain @ gain.mT
        log_w = prior.weights.log() - 0.5 * (
            torch.einsum("km,km->k", off, torch.linalg.solve(c, off)) + torch.logdet(c)
        )
        weights = torch.softmax(log_w, 0).clamp_min(torch.finfo(torch.float64).tiny)
        return GaussianMixture(weights, means, covariances=0.5 * (covariances + covariances.mT))

    def posterior_score(
        self, sde: GaussianPath, score: ScoreFn, covariance: Covariance = "tweedie"
    ) -> ScoreFn:
        """Return the score of x_t given y, approximately: score + ∇ log p_t(y | x).

        Args:
            sde: The forward SDE.
            score: ∇ log p_t(x) of the data, differentiable in x.
            covariance: V, what is taken for the covariance of x_0 given x_t: "tweedie",
                "isotropic" or "none".

        Returns:
            The score; each call asks `score` once and pulls back through it.

        Raises:
            ValueError: If covariance is misspelt or, in a call, x has another dimension than A or
                the score has no derivative.
        """
        return posterior_score(sde, score, covariance, self._likelihood_score)

    def _off(self, flat: Tensor) -> Tensor:
        """y − A x_0, shape (batch, m), for flat states of shape (batch, d)."""
        y = self.value.to(flat)
        if y.ndim == 2 and len(y) != len(flat):
            raise ValueError(
                f"there are measurements of {len(y)} trajectories, but a call with {len(flat)}: "
                "trajectories are cut into blocks, which know nothing of measurements. Pass "
                "interacting=True to simulate, so that all run together, or one y for all."
            )
        return y - flat @ self.operator.to(flat).T

    def _likelihood_score(self, guess: Guess) -> Tensor:
        """Return (∂x̂_0/∂x)ᵀ Aᵀ (s² I + A V Aᵀ)⁻¹ (y − A x̂_0), flat."""
        flat = guess.x0.flatten(1)
        a = self.operator.to(flat)
        if flat.shape[1] != a.shape[1]:
            raise ValueError(
                f"operator has shape {tuple(a.shape)}, for events of {a.shape[1]} numbers, but x "
                f"has shape {tuple(guess.x0.shape)}."
            )
        off = self._off(flat)
        inner = self.noise_std**2 * torch.eye(len(a)).to(flat)
        if guess.covariance == "tweedie":
            # rows of A ∂x̂_0/∂x; V and its Jacobian are symmetric up to what a network gets wrong
            rows = torch.stack([guess.pulled(flat, row.expand_as(flat)) for row in a], 1)
            spread = guess.tweedie() * rows @ a.T
            spread = 0.5 * (spread + spread.mT)
            inner = inner + spread + lift(spread.detach())
            weights = torch.linalg.solve(inner, off[:, :, None])
            pull: Tensor = rows.mT @ weights
            return pull[:, :, 0]
        if guess.covariance == "isotropic":
            inner = inner + guess.isotropic() * (a @ a.T)
        weights = torch.linalg.solve(inner.expand(len(flat), -1, -1), off[:, :, None])[:, :, 0]
        return guess.pulled(flat, weights @ a)


def posterior_score(
    sde: GaussianPath,
    score: ScoreFn,
    covariance: Covariance,
    likelihood_score: Callable[[Guess], Tensor],
) -> PosteriorScore:
    """Return score + ∇ log p_t(y | x), for any measurement.

    Args:
        sde: The forward SDE.
        score: ∇ log p_t(x) of the data, differentiable in x.
        covariance: What is taken for the covariance of x_0 given x_t.
        likelihood_score: ∇ log p_t(y | x), flat, of what is known of x_0.

    Raises:
        TypeError, ValueError: If an argument is not what it should be.
    """
    check_gaussian_path(sde)
    check_function("score", score, "a function (x, t) -> ∇ log p_t(x), such as model.score")
    check_word("covariance", covariance, get_args(Covariance))
    seen = False

    def posterior(x: State, t: Time | float) -> State:
        nonlocal seen
        t = as_time(t)
        alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
        differentiable = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            y = x if differentiable else x.detach().clone().requires_grad_()
            prior = score(y, t)
            check_derivative(score, prior, y, t, "the likelihood of a measurement")
            if not seen:  # once: what a score hides of itself does not change
                one = t if t.ndim == 0 else t[:1]
                check_seen(lambda z: score(z, one), y[:1], "score")
                seen = True
            x0 = (y + sigma**2 * prior) / alpha
            guess = Guess(y, x0, alpha, sigma, covariance, differentiable)
            total = prior + likelihood_score(guess).reshape(x.shape)
        return total if differentiable else total.detach()

    return PosteriorScore(score, posterior)


def lift(spread: Tensor) -> Tensor:
    """Return what makes symmetric matrices positive, shape (batch, m, m): zero where they are so.

    Every eigenvalue is raised to −λ_min at least, if the least is negative. A covariance has no
    negative one, so that by so much the Jacobian of the network is wrong.
    """
    values, axes = torch.linalg.eigh(spread)
    wrong = (-values[:, :1]).clamp_min(0)
    raised: Tensor = (wrong - values).clamp_min(0) * (wrong > 0)
    lift: Tensor = axes @ torch.diag_embed(raised) @ axes.mT
    return lift
