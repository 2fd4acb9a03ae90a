"""The identities of variational inference, term by term.

    log p(x) = L + KL(q(z) ‖ p(z | x))              the gap is the distance to the posterior
    L = E_q log p(x | z) − KL(q(z) ‖ p(z))          what is explained, and what it takes
    L = E_q log p(x, z) + H(q)                      energy and entropy

hold for every q, whatever it is. Here each term is computed by itself, so that the sums say
something: in closed form for a linear Gaussian model, by quadrature for any other of one or two
latents. Gradients flow to q and to the model in the first.

Reference:
    Jordan et al. 1999, Mach. Learn. 37, 183; Bishop 2006, eqs. (9.70)-(9.72) and (2.113)-(2.117).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.requests import as_numbers, check_function, check_kind
from sdegen.core.shapes import Numbers
from sdegen.variational.divergences import Grids, cells_of, check_mass, log_density
from sdegen.variational.gaussians import Gaussian


@dataclass(frozen=True, eq=False)
class BoundTerms:
    """What log p(x) is made of under a q(z), in nats; each shape (batch,) or ().

        log p(x) = E_q log p(x | z) − KL(q(z) ‖ p(z)) + KL(q(z) ‖ p(z | x))

    Attributes:
        log_evidence: log p(x).
        posterior_kl: KL(q(z) ‖ p(z | x)).
        expected_log_likelihood: E_q log p(x | z).
        prior_kl: KL(q(z) ‖ p(z)).
        expected_log_joint: E_q log p(x, z).
        entropy: H(q).

    Example:
        >>> model = sg.variational.LinearGaussianModel([[1.0]])  # x = z + N(0, 1)
        >>> terms = model.terms([[2.0]], sg.Gaussian([[0.0]]))
        >>> gap = terms.log_evidence - terms.bound - terms.posterior_kl
        >>> f"{terms.posterior_kl.item():.4f}", abs(gap.item()) < 1e-12
        ('1.1534', True)
    """

    log_evidence: Tensor
    posterior_kl: Tensor
    expected_log_likelihood: Tensor
    prior_kl: Tensor
    expected_log_joint: Tensor
    entropy: Tensor

    @property
    def bound(self) -> Tensor:
        """L = E_q log p(x | z) − KL(q(z) ‖ p(z))."""
        return self.expected_log_likelihood - self.prior_kl


class LinearGaussianModel:
    """z ~ N(m, C), x = A z + b + N(0, R): the model in which everything is known.

    Probabilistic PCA is m = 0, C = I, R = σ² I.

    Args:
        matrix: A, shape (d, k).
        shift: b, shape (d,), or a number.
        noise: R: a variance > 0, variances (d,) or a matrix (d, d).
        prior: N(m, C) of k numbers; None is N(0, I).

    Raises:
        TypeError: If prior is no `Gaussian`.
        ValueError: If shapes do not fit, or a covariance is not positive definite.

    Reference:
        Tipping and Bishop 1999, J. R. Stat. Soc. B 61, 611, eqs. (3)-(6).

    Example:
        >>> model = sg.variational.LinearGaussianModel([[1.0]])  # z ~ N(0, 1), x = z + N(0, 1)
        >>> law = model.posterior([[2.0]])
        >>> law.mean.item(), law.covariance.item()  # x/2 ± √½
        (1.0, 0.5)
    """

    def __init__(
        self,
        matrix: Numbers,
        shift: Numbers = 0.0,
        noise: Numbers = 1.0,
        prior: Gaussian | None = None,
    ) -> None:
        a = as_numbers("matrix", matrix, expected="a matrix, shape (d, k)")
        if a.ndim != 2 or a.numel() == 0:
            raise ValueError(f"matrix must have shape (d, k), but has {tuple(a.shape)}.")
        zero = torch.zeros(a.shape[1], dtype=a.dtype, device=a.device)
        self.prior: Gaussian = Gaussian(zero) if prior is None else prior
        check_kind("prior", self.prior, Gaussian, "a Gaussian of k numbers, or None for N(0, I)")
        if self.prior.mean.shape != (a.shape[1],):
            raise ValueError(
                f"prior must be one law of {a.shape[1]} numbers, as matrix has columns, but has a "
                f"mean of shape {tuple(self.prior.mean.shape)}."
            )
        b = as_numbers("shift", shift).to(a)
        if tuple(b.shape) not in ((), (len(a),)):
            raise ValueError(
                f"shift must be a number or have shape ({len(a)},), as matrix has rows, but has "
                f"{tuple(b.shape)}."
            )
        r = as_numbers("noise", noise).to(a)
        self.matrix: Tensor = a
        self.shift: Tensor = b.expand(len(a))
        self.noise: Gaussian = Gaussian(torch.zeros(len(a), dtype=a.dtype, device=a.device), r)

    @property
    def evidence(self) -> Gaussian:
        """p(x) = N(A m + b, A C Aᵀ + R)."""
        return self.prior.transform(self.matrix, self.shift, self.noise.matrix())

    def posterior(self, x: Numbers) -> Gaussian:
        """Return p(z | x), a law for each row.

        Σ = (C⁻¹ + Aᵀ R⁻¹ A)⁻¹,      μ = m + C Aᵀ (A C Aᵀ + R)⁻¹ (x − A m − b)

        Args:
            x: Shape (batch, d), or (d,).
        """
        points = self.evidence._points("x", x)
        c, a, total = self.prior.matrix(), self.matrix, self.evidence
        gain = torch.linalg.solve(total.matrix(), a @ c).mT  # C Aᵀ S⁻¹
        mean = self.prior.mean + (points - total.mean) @ gain.T
        eye = torch.eye(len(c), dtype=c.dtype, device=c.device)
        # the form that stays positive in rounding
        left = eye - gain @ a
        spread = left @ c @ left.T + gain @ self.noise.matrix() @ gain.T
        return Gaussian(mean, 0.5 * (spread + spread.T).expand(*mean.shape, -1))

    def terms(self, x: Numbers, q: Gaussian) -> BoundTerms:
        """Return every term, each in its own closed form.

        Args:
            x: Shape (batch, d), or (d,).
            q: q(z), a law for each row, or one for all.
        """
        points = self.evidence._points("x", x)
        check_kind("q", q, Gaussian, "a Gaussian of the latents")
        if q.dim != self.prior.dim or q.mean.shape[:-1] not in ((), points.shape[:-1]):
            raise ValueError(
                f"q must be a law of {self.prior.dim} latents, one for each point or one for all, "
                f"but has a mean of shape {tuple(q.mean.shape)}."
            )
        likelihood = self._expected(points, q)
        cross = -q.cross_entropy(self.prior)
        return BoundTerms(
            self.evidence.log_prob(points),
            q.kl(self.posterior(points)),
            likelihood,
            q.kl(self.prior),
            likelihood + cross,
            q.entropy(),
        )

    def _expected(self, x: Tensor, q: Gaussian) -> Tensor:
        """Return E_q log N(x; A z + b, R) = log N(x; A μ + b, R) − ½ tr(R⁻¹ A Σ Aᵀ)."""
        at_mean = self.noise.log_prob(x - q.mean @ self.matrix.T - self.shift)
        spread = self.matrix @ q.matrix() @ self.matrix.T
        inner: Tensor = torch.linalg.solve(self.noise.matrix(), spread)
        return at_mean - 0.5 * inner.diagonal(dim1=-2, dim2=-1).sum(-1)


def bound_terms(
    prior: object, log_likelihood: Callable[[Tensor], Tensor], q: object, grids: Grids
) -> BoundTerms:
    """Return every term of log p(x) for one x, by quadrature over one or two latents.

        log p(x) = E_q log p(x | z) − KL(q(z) ‖ p(z)) + KL(q(z) ‖ p(z | x))

    Args:
        prior: p(z), with `log_prob(z)` of latents (n, k).
        log_likelihood: log p(x | z) of latents (n, k), for the x that is meant; shape (n,).
        q: q(z), with `log_prob(z)`.
        grids: A `Grid`, or a pair, that holds p(z | x) and q.

    Returns:
        The terms, each shape ().

    Raises:
        TypeError: If a law is none, or log_likelihood no function.
        ValueError: If shapes do not fit, or the grid cuts q off.

    Example:
        >>> prior, x = sg.Gaussian([0.0]), 2.0
        >>> likelihood = lambda z: -0.5 * (x - z[:, 0]) ** 2  # of x = z + N(0, 1), up to ½ log 2π
        >>> grid = sg.Grid(-10.0, 10.0, cells=400)
        >>> terms = sg.variational.bound_terms(prior, likelihood, sg.Gaussian([1.0], 0.5), grid)
        >>> f"{terms.bound.item():.4f}"  # −x²/4 − ½ log 2, since q = p(z | x)
        '-1.3466'
    """
    check_function("log_likelihood", log_likelihood, "a function z -> log p(x | z), of (n, k)")
    z, area = cells_of(grids)
    log_prior, log_q = log_density(prior, "prior", z), log_density(q, "q", z)
    given = log_likelihood(z)
    if not isinstance(given, Tensor) or given.shape != z.shape[:1]:
        raise ValueError(
            f"log_likelihood must return one number for each latent, shape ({len(z)},), but "
            f"returned {tuple(getattr(given, 'shape', ()))}."
        )
    joint, mass = given.detach().double() + log_prior, area * log_q.exp()
    check_mass(float(mass.sum()), "q")
    log_evidence = torch.logsumexp(joint + area.log(), 0)
    seen = mass > 0  # elsewhere 0 · −∞ is 0
    mass, log_prior, log_q, joint = mass[seen], log_prior[seen], log_q[seen], joint[seen]
    return BoundTerms(
        log_evidence,
        mass @ (log_q - (joint - log_evidence)),
        mass @ (joint - log_prior),
        mass @ (log_q - log_prior),
        mass @ joint,
        -mass @ log_q,
    )
