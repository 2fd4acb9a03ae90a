"""The reverse kernel q(x_{t−dt} | x_t) of a one-dimensional SDE, exactly, by Bayes.

    q(y | x) = K(x | y) p_{t−dt}(y) / p_t(x),        K(x | y) = p(X_t = x | X_{t−dt} = y)

A sampler that draws a Gaussian in each step, as DDPM does, assumes that q is one. Its mean,
variance, skewness and kurtosis, and KL(q ‖ N(mean, variance)) say at what step that holds. With
b the drift of the reverse dynamics, b = −f + (g²)′ + g² ∂ log p, and small dt,

    additive noise        skewness → g b″ dt^{3/2},  kurtosis → g² b‴ dt²,  KL → E[g² b″²] dt³/12
    multiplicative noise  skewness → ∓3 g′ dt^{1/2},                        KL → ¾ E[g′²] dt

so that any additive noise has a Gaussian reverse at a small step, to third order, and
multiplicative noise to first order only: there x is better changed to ∫ dx/g.

K of a linear process is its transition; of any other it is propagated by `FokkerPlanck` from
each of a lattice of points. The lattice is even in u = ∫ dx/g, in which K is as wide everywhere,
and sums over it converge faster than any power of its spacing.

Two variances are those that DDPM offers: β, that of the forward step, which is q's where p is
the stationary law, and β̃, that of q(x_{t−dt} | x_t, x_0), which is q's where the data are a
point. The variance of q lies between: β̃ + Var E[x_{t−dt} | x_t, x_0] for a Gaussian path. Where
the drift is nonlinear or noise multiplicative, the variance given x_t and x_0 depends on both, and
no β̃ is defined; what DDPM would assume at x_t is that of the process linearised there,

    V(dt) V(t − dt)/V(t),        V(s) = g² (1 − e^{−2ks})/2k,    k = −f′(x_t), g = g(x_t)

which tends to q's for a point as start and small t.

Reference:
    Ho et al. 2020, section 3.2, arXiv:2006.11239; Bao et al. 2022 (Analytic-DPM), theorem 1,
    arXiv:2201.06503.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.core.accuracy import ErrorEstimate, Trust, in_words, warn_inaccurate
from sdegen.core.checks import check_positive
from sdegen.core.jumps import check_no_jumps
from sdegen.core.requests import as_number, as_numbers, check_kind, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shown import Labelled
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.sde.transitions import LinearProcess
from sdegen.verification.kernel_lattice import Lattice, exact_lattice, propagated_lattice

_SHOWN = 1e-6  # of the probability that is left out on either side of x


@dataclass(frozen=True, eq=False)
class ReverseKernel(Labelled):
    """The moments of a step back at points x_t, and how far it is from a Gaussian.

        q(x_{t−dt} | x_t) = p(x_t | x_{t−dt}) p_{t−dt}(x_{t−dt})/p_t(x_t)

    Attributes:
        t: t.
        dt: dt.
        x: Points x_t, shape (n,); all of p_t but 10⁻⁶ on either side.
        masses: Probability of each under p_t, which sum to 1, shape (n,).
        mean: E[x_{t−dt} | x_t], shape (n,).
        variance: Var[x_{t−dt} | x_t], shape (n,).
        skewness: Third standardised cumulant, shape (n,); 0 of a Gaussian.
        kurtosis: Fourth standardised cumulant (excess), shape (n,); 0 of a Gaussian.
        kl: KL(q ‖ N(mean, variance)) in nats, shape (n,).
        beta: β, the variance of the forward step from x, shape (n,).
        beta_tilde: β̃, where the process is linear; else None, as it is not defined.
        beta_tilde_local: β̃ of the process linearised at each x, shape (n,); of a linear one β̃.
        mean_variance: E Var[x_{t−dt} | x_t]: what a step of the reversal draws.
        variance_of_mean: Var E[x_{t−dt} | x_t]: what x_t already tells.
        total_variance: Var x_{t−dt}, the sum of these two, found without q.
        error: Estimated relative error of p_t: Bayes' normaliser against p_t itself.

    Example:
        >>> rest = sg.GaussianMixture([1.0], [0.0], stds=1.0)
        >>> ou = sg.OrnsteinUhlenbeck(rate=1.0, mean=0.0, sigma=2**0.5)
        >>> q = sg.reverse_kernel(ou, rest, 1.0, 0.1)
        >>> f"{q.mean_variance:.4f} + {q.variance_of_mean:.4f}"  # 1 − e^−0.2, e^−0.2; Var x = 1
        '0.1813 + 0.8187'
    """

    t: float
    dt: float
    x: Float[Tensor, " n"]
    masses: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    variance: Float[Tensor, " n"]
    skewness: Float[Tensor, " n"]
    kurtosis: Float[Tensor, " n"]
    kl: Float[Tensor, " n"]
    beta: Float[Tensor, " n"]
    beta_tilde: float | None
    beta_tilde_local: Float[Tensor, " n"]
    mean_variance: float
    variance_of_mean: float
    total_variance: float
    error: ErrorEstimate

    @property
    def mean_kl(self) -> float:
        """KL(q ‖ N(mean, variance)), averaged over p_t, in nats."""
        return float(self.masses @ self.kl)

    @property
    def mean_kurtosis(self) -> float:
        """The excess kurtosis, averaged over p_t."""
        return float(self.masses @ self.kurtosis)

    def kl_with(self, variance: Tensor | float) -> float:
        """Return KL(q ‖ N(mean, v)) averaged over p_t, where v is another variance, in nats.

        Args:
            variance: v > 0, such as `beta` or `beta_tilde_local`; a number, or shape (n,).

        Raises:
            ValueError: If it is not positive.
        """
        v = as_numbers("variance", variance, expected="a number, or one for each x")
        if v.shape not in ((), self.x.shape) or not bool(((v > 0) & v.isfinite()).all()):
            raise ValueError(
                f"variance must be finite and > 0, a number or of shape {tuple(self.x.shape)}, "
                f"but is {kind_of(v)}: {v.flatten()[:4].tolist()} …"
            )
        ratio = self.variance / v
        return self.mean_kl + float(self.masses @ (0.5 * (ratio - 1 - ratio.log())))

    def trust(self) -> Trust:
        """Return what is known of its errors."""
        return Trust.on_grid(
            f"reverse kernel at t = {self.t:g}, dt = {self.dt:g}",
            f"{in_words(self.error)}, {len(self.x)} points",
            step="within that of the grid",
            truncation=f"{_SHOWN:g} of p_t on either side",
        )


@torch.no_grad()
def reverse_kernel(
    sde: SDE,
    law: GaussianMixture | Density | float,
    t: float,
    dt: float,
    *,
    grid: Grid | None = None,
) -> ReverseKernel:
    """Return the reverse kernel of a one-dimensional SDE, exactly by Bayes.

        q(x_{t−dt} | x_t) = p(x_t | x_{t−dt}) p_{t−dt}(x_{t−dt})/p_t(x_t)

    Args:
        sde: Dynamics with a state of shape (batch, 1), noise that vanishes nowhere on the grid,
            additive or multiplicative, and with or without a time dependence.
        law: The law of X_0: a `GaussianMixture` of one dimension, a `Density`, or a point.
        t: t > 0.
        dt: The step, in (0, t]; a point needs dt < t.
        grid: Its ends are where states are looked for; its nodes are not used. None takes those
            of a Density, and for a linear process nine standard deviations.

    Raises:
        TypeError: If an argument is of another kind.
        ValueError: If dt is not in (0, t], the noise vanishes, the process jumps, is a chain or a
            reversal, or grid is needed and not given.
        SolverError: If the kernel is narrower than can be propagated.

    Example:
        >>> import math
        >>> rest = sg.GaussianMixture([1.0], [0.0], stds=1.0)
        >>> q = sg.reverse_kernel(sg.OrnsteinUhlenbeck(), rest, 1.0, 0.1)
        >>> round(float(q.variance[0]), 6), round(1 - math.exp(-0.2), 6)  # at rest it is forward's
        (0.181269, 0.181269)
    """
    check_kind("sde", sde, SDE, "an SDE, such as OrnsteinUhlenbeck()")
    _check_law(law)
    t, dt = as_number("t", t), as_number("dt", dt)
    check_positive("t", t)
    check_positive("dt", dt)
    _check_dynamics(sde)
    point = not isinstance(law, GaussianMixture | Density)
    if dt > t or (point and dt == t):
        raise ValueError(
            f"dt must lie in (0, t{')' if point else ']'}, since the law is that of X_0, but "
            f"dt = {dt:g} and t = {t:g}."
        )
    if grid is not None:
        check_kind("grid", grid, Grid, "a Grid, such as Grid(-4.0, 4.0, cells=200)")
    if isinstance(sde, LinearProcess) and not isinstance(law, Density):
        lattice = exact_lattice(sde, law, t, dt, grid)
    else:
        lattice = propagated_lattice(sde, law, t, dt, grid)
    result = _moments(lattice, t, dt)
    warn_inaccurate(
        result.error, "the reverse kernel", "Pass grid= with ends that hold all of the density."
    )
    return result


def _moments(lattice: Lattice, t: float, dt: float) -> ReverseKernel:
    """Return what Bayes makes of a kernel and a density on a lattice."""
    y, weight = lattice.x, lattice.weight
    joint = lattice.kernel * (lattice.before * weight)  # rows x_t, columns x_{t−dt}
    p_t = joint.sum(1)
    mass = p_t * weight
    below = mass.cumsum(0)
    kept = (below > _SHOWN) & (below < below[-1] - _SHOWN)
    kept &= p_t > 0
    q = joint[kept] / p_t[kept, None]
    x = y[kept]
    away = y - x[:, None]  # from x_t, so that little is subtracted
    shift = (q * away).sum(1)
    centred = away - shift[:, None]
    variance, third, fourth = ((q * centred**k).sum(1) for k in (2, 3, 4))
    normal = torch.exp(-0.5 * centred.square() / variance[:, None])
    normal = normal * weight / (2 * math.pi * variance).sqrt()[:, None]
    # q log(q/N) − q + N: no term is negative, and nothing cancels where q is nearly N
    positive = (q > 0) & (normal > 0)
    ratio = torch.where(positive, q / normal.where(positive, normal.new_ones(())), 1.0)
    kl = (normal * _rise(ratio)).where(positive, (normal - q).clamp(min=0.0)).sum(1)
    mean_before = (lattice.before * weight * y).sum()
    # over all points: far out a moment of q has few digits, but hardly any weight
    first = (joint @ y) / p_t.clamp(min=1e-300)
    within = (joint * (y - first[:, None]).square()).sum(1) @ weight
    between = mass @ (first - mean_before).square()
    peak = float(lattice.after.max())
    error = float((p_t - lattice.after).abs().max()) / peak
    masses = mass[kept] / mass[kept].sum()
    return ReverseKernel(
        t, dt, x, masses, x + shift, variance, third / variance**1.5, fourth / variance**2 - 3, kl,
        beta=lattice.step_variance[kept],
        beta_tilde=lattice.beta_tilde,
        beta_tilde_local=lattice.beta_tilde_local[kept],
        mean_variance=float(within),
        variance_of_mean=float(between),
        total_variance=float((lattice.before * weight * (y - mean_before) ** 2).sum()),
        error=ErrorEstimate({"density": error}, "Bayes' normaliser against p_t"),
    )  # fmt: skip


def _rise(ratio: Tensor) -> Tensor:
    """Return r log r − r + 1, also near r = 1, where its digits would cancel."""
    small = ratio - 1
    near = small.square() * (0.5 - small / 6 + small.square() / 12 - small**3 / 20)
    return torch.where(small.abs() < 1e-3, near, ratio * ratio.log() - small)


def _check_law(law: object) -> None:
    """Refuse what is no law of X_0 on a line."""
    if isinstance(law, GaussianMixture):
        if law.dim != 1:
            raise ValueError(f"law must be of one dimension, but has {law.dim}.")
    elif not isinstance(law, Density):
        if isinstance(law, str | bool) or law is None:
            as_number("law", law, cure="pass a GaussianMixture, a Density or a point")
        try:
            as_number("law", law)
        except TypeError:
            raise TypeError(
                "law must be the law of X_0: a GaussianMixture, a Density or a point, but is "
                f"{kind_of(law)}."
            ) from None


def _check_dynamics(sde: SDE) -> None:
    """Refuse dynamics that have no forward kernel with a density on a line."""
    check_no_jumps(sde, "reverse_kernel")
    name = type(sde).__name__
    if sde.is_discrete or sde.direction != 1:
        raise ValueError(
            f"{name} is a chain or runs backwards in time: pass the forward SDE, whose reverse "
            "kernel is asked for."
        )
    if sde.noise == "none":
        raise ValueError(f"{name} has no noise, so that its reverse kernel is a point.")
