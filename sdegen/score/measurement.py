"""Inverse problems with a measurement that is a function: y = A(x_0) + N(0, s² I).

A mask, a blur, a norm, an image of a telescope: A is called with states and need be neither linear
nor a matrix. With the mean x̂_0 and the covariance V of x_0 given x_t (`sdegen.score.inverse`) and
A linearised about x̂_0, J = ∂A/∂x_0 there,

    y | x ~ N(A(x̂_0), s² I + J V Jᵀ)
    ∇ log p_t(y | x) ≈ (∂x̂_0/∂x)ᵀ Jᵀ (s² I + J V Jᵀ)⁻¹ (y − A(x̂_0))

V and J are held fixed where this is derived. Where A is linear it is what `LinearMeasurement` has,
to rounding. Jᵀ v is a derivative by autograd, and J v one of that: A needs nothing but torch.

    "isotropic" V = σ²/(α² + σ²) I (ΠGDM): conjugate gradients on s² I + r² J Jᵀ, a product with J
                and one with Jᵀ for each of their steps, one product with the Jacobian of the score
    "tweedie"   V = (σ²/α) ∂x̂_0/∂x: m products with the Jacobian for m measurements
    "none"      V = 0: nearly DPS; one product

**How far from the exact posterior** (`benchmarks/posteriors.py`): sliced W2 over the posterior's
standard deviation, 4,000 samples by 200 steps of DDIM with η = 1, mixtures with their exact score;
a second set of exact samples is 0.03 to 0.05 away.

    | data, measurement                | "none" | "isotropic" | "tweedie" |
    | -------------------------------- | ------ | ----------- | --------- |
    | one Gaussian, d = 2, linear      | 0.25   | 0.05        | 0.03      |
    | 5 parts, d = 2, one number       | 0.15   | 0.24        | 0.26      |
    | 8 parts, d = 8, three numbers    | 0.68   | 0.58        | 0.48      |
    | 5 parts, x_1 with s = 0.05       | 24     | 0.34        | 0.36      |
    | 5 parts, d = 2, abs(x)² with 0.5 | 1.12   | 0.77        | 0.69      |
    | 2 parts, d = 1, tanh 2x with 0.3 | 0.19   | 0.53        | 0.53      |

So none of them is exact but for Gaussian data, and none is the best of all.

Reference:
    Chung et al. 2022, theorem 1 and eq. (16), arXiv:2209.14687 ("none", nonlinear A); Song et al.
    2023, eqs. (6)-(8), ICLR ("isotropic"); Boys et al. 2023, section 3, arXiv:2310.06721
    ("tweedie"); Hestenes and Stiefel 1952, J. Res. NBS 49, 409, eqs. (3:1), conjugate gradients.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_number, as_numbers, check_function
from sdegen.core.shapes import ScoreFn, State
from sdegen.core.slope_checks import check_seen
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.inverse import Covariance, Guess, lift, posterior_score

_RELATIVE = 1e-10  # residual of conjugate gradients, in units of y − A(x̂_0), in float64
_MOST = 200  # steps of conjugate gradients


@dataclass(frozen=True, eq=False)
class Measurement:
    """A measurement y = A(x_0) + s ε, ε ~ N(0, I), with A a function.

    Args:
        operator: A, called with states (batch, *event), row by row; returns (batch, *shape of y),
            differentiable by autograd.
        value: y, of any shape, one for all trajectories; or one for each, (batch, *shape), with
            which `simulate` must be told interacting=True.
        noise_std: s > 0.

    Raises:
        TypeError: If operator is no function, or value no numbers.
        ValueError: If value is not finite or s not positive; in a call, if A returns another
            shape than y's, or has no derivative that autograd sees.

    Example:
        The square of a number is measured as 1 ± 0.1.

        >>> square = sg.Measurement(lambda x: x**2, torch.ones(1), noise_std=0.1)
        >>> square.log_prob(torch.tensor([[1.0], [-1.0], [1.1]])).round(decimals=2)
        tensor([ 1.3800,  1.3800, -0.8200])
    """

    operator: Callable[[State], Tensor]
    value: Tensor
    noise_std: float

    def __post_init__(self) -> None:
        check_function("operator", self.operator, "a function of states (batch, *event)")
        if not isinstance(self.value, Tensor):
            object.__setattr__(self, "value", as_numbers("value", self.value))
        object.__setattr__(self, "noise_std", as_number("noise_std", self.noise_std))
        if (
            self.value.ndim == 0
            or self.value.numel() == 0
            or not bool(self.value.isfinite().all())
        ):
            raise ValueError(
                "value must be finite numbers of at least one axis, but has shape "
                f"{tuple(self.value.shape)}; pass value[None] for one number."
            )
        check_positive("noise_std", self.noise_std)

    def log_prob(self, x0: State) -> Tensor:
        """log p(y | x_0) in nats, shape (batch,)."""
        _, off = self._off(x0)
        constant = off.shape[1] * math.log(2 * math.pi * self.noise_std**2)
        return -0.5 * ((off / self.noise_std).square().sum(1) + constant)

    def posterior_score(
        self, sde: GaussianPath, score: ScoreFn, covariance: Covariance = "isotropic"
    ) -> ScoreFn:
        """Return the score of x_t given y, approximately: score + ∇ log p_t(y | x).

        Args:
            sde: The forward SDE.
            score: ∇ log p_t(x) of the data, differentiable in x.
            covariance: V, what is taken for the covariance of x_0 given x_t: "isotropic",
                "tweedie" or "none".

        Returns:
            The score; each call asks `score` once and pulls back through it. It can be
            differentiated again: "isotropic" then takes m products with Jᵀ in place of
            conjugate gradients.

        Raises:
            ValueError: If covariance is misspelt or, in a call, A does not fit, or A or the score
                has no derivative.
        """
        return posterior_score(sde, score, covariance, self._likelihood_score)

    def _off(self, x0: State) -> tuple[Tensor, Tensor]:
        """Return A(x_0) and y − A(x_0), both flat, shape (batch, m)."""
        made: object = self.operator(x0)
        shape, y = tuple(self.value.shape), self.value.to(x0)
        got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        if got == (len(x0), *shape):
            y = y.expand(len(x0), *shape)
        elif got != shape:
            raise ValueError(
                f"operator must return shape {(len(x0), *shape)} for {len(x0)} states, that of "
                f"value for each, or {shape} where there is one value for each, but returned "
                f"{got}; if trajectories were cut into blocks, pass interacting=True to simulate."
            )
        assert isinstance(made, Tensor)
        return made.flatten(1), (y - made).flatten(1)

    def _likelihood_score(self, guess: Guess) -> Tensor:
        """Return (∂x̂_0/∂x)ᵀ Jᵀ (s² I + J V Jᵀ)⁻¹ (y − A(x̂_0)), flat."""
        made, off = self._off(guess.x0)
        if not made.requires_grad:
            check_seen(lambda x: self.operator(x).flatten(1).sum(1), guess.x0[:1], "operator")
            return torch.zeros_like(guess.x0.flatten(1))  # A does not depend on x at all
        return guess.pulled(made, self._weights(guess, made, off))

    def _weights(self, guess: Guess, made: Tensor, off: Tensor) -> Tensor:
        """Return (s² I + J V Jᵀ)⁻¹ (y − A(x̂_0)), shape (batch, m)."""
        s2 = self.noise_std**2
        if guess.covariance == "none":
            return off / s2
        m = off.shape[1]
        x0, at = guess.x0, made
        if not guess.differentiable:
            x0 = guess.x0.detach().requires_grad_()
            at = self.operator(x0).flatten(1)

        def back(v: Tensor) -> Tensor:
            """Jᵀ v, flat."""
            (pulled,) = torch.autograd.grad(
                at, x0, v, retain_graph=True, create_graph=guess.differentiable
            )
            return pulled.flatten(1)

        identity = s2 * torch.eye(m).to(off)
        if guess.covariance == "tweedie" or guess.differentiable:
            units = torch.eye(m).to(off).unbind()
            jacobian = torch.stack([back(one.expand_as(off)) for one in units], 1)
            if guess.covariance == "isotropic":
                inner = guess.isotropic() * (jacobian @ jacobian.mT)
            else:
                rows = torch.stack([guess.pulled(made, e.expand_as(off)) for e in units], 1)
                inner = guess.tweedie() * (rows @ jacobian.mT)
                inner = 0.5 * (inner + inner.mT)
                inner = inner + lift(inner.detach())
            weights: Tensor = torch.linalg.solve(identity + inner, off[:, :, None])
            return weights[:, :, 0]
        probe = torch.zeros_like(at, requires_grad=True)
        (through,) = torch.autograd.grad(at, x0, probe, create_graph=True)
        r2 = guess.isotropic()[:, :, 0].detach()

        def times(v: Tensor) -> Tensor:
            """(s² I + r² J Jᵀ) v."""
            u = back(v).reshape(x0.shape)
            if not through.requires_grad:  # Jᵀ v does not depend on v: J is zero
                return s2 * v
            (forward,) = torch.autograd.grad(through, probe, u, retain_graph=True)
            return s2 * v + r2 * forward

        return conjugate_gradients(times, off.detach())


def conjugate_gradients(times: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """Solve C w = b for symmetric positive C, row by row, to a relative residual of 1e-10.

    Args:
        times: Returns C v, shape (batch, m), for v of that shape.
        b: Shape (batch, m).

    Returns:
        w, shape (batch, m); of float32 to 1e-5.

    Raises:
        ValueError: If 200 steps do not do: the noise of the measurement is too small beside what
            A makes of the data.

    Reference:
        Hestenes and Stiefel 1952, eqs. (3:1a)-(3:1f).
    """
    close = (_RELATIVE if b.dtype == torch.float64 else 1e-5) * b.norm(dim=1, keepdim=True)
    w, r = torch.zeros_like(b), b.clone()
    p, old = r, r.square().sum(1, keepdim=True)
    for _ in range(_MOST):
        if bool((old.sqrt() <= close).all()):
            return w
        c = times(p)
        step = old / (p * c).sum(1, keepdim=True).clamp_min(torch.finfo(b.dtype).tiny)
        w, r = w + step * p, r - step * c
        new = r.square().sum(1, keepdim=True)
        p = r + p * new / old.clamp_min(torch.finfo(b.dtype).tiny)
        old = new
    raise ValueError(
        f"the covariance of the measurement was not inverted in {_MOST} steps: residual "
        f"{float((old.sqrt() / b.norm(dim=1, keepdim=True)).max()):.1e}. Use a larger noise_std, "
        "or covariance='tweedie'."
    )
