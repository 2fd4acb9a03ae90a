"""Gaussians: their algebra, by which every bound of a linear model is in closed form.

    KL(p ‖ q) = ½ [tr(Q⁻¹ P) + (m_q − m_p)ᵀ Q⁻¹ (m_q − m_p) − d + log det Q − log det P]
    N(x; a, A) N(x; b, B) = N(a; b, A + B) N(x; c, C),      C = A (A + B)⁻¹ B
                                                            c = a + A (A + B)⁻¹ (b − a)
    x_u | x_o ~ N(m_u + C_uo C_oo⁻¹ (x_o − m_o),  C_uu − C_uo C_oo⁻¹ C_ou)
    M x + b + N(0, R) ~ N(M m + b, M C Mᵀ + R)

A `Gaussian` is one law or a batch of them, with variances or with matrices; gradients flow through
all of it. Two laws meet by broadcasting over their batches.

Reference:
    Bishop 2006, Pattern Recognition and Machine Learning, eqs. (2.81)-(2.82) and (2.115)-(2.116);
    Kullback and Leibler 1951; the product: Petersen and Pedersen 2012, The Matrix Cookbook,
    section 8.1.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_int
from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_numbers, check_kind, kind_of
from sdegen.core.shapes import Numbers

_ASYMMETRIC = 1e-6  # relative: what single precision leaves of a covariance's symmetry


@dataclass(frozen=True, eq=False, init=False)
class Gaussian:
    """N(m, C) of d numbers, or a batch of such laws.

        log p(x) = −½ (x − m)ᵀ C⁻¹ (x − m) − ½ log det 2πC

    Args:
        mean: m, shape (*batch, d).
        covariance: C: the variances, shape (*batch, d), or matrices, shape (*batch, d, d); a
            number is the variance of each coordinate. Read by its number of axes: one more than
            mean has is a matrix.

    Raises:
        TypeError: If one of them is no array of numbers.
        ValueError: If shapes do not fit, a number is not finite, or a covariance is not symmetric
            and positive definite, with the first that is not.

    Example:
        >>> p, q = sg.Gaussian([0.0], [1.0]), sg.Gaussian([1.0], [1.0])
        >>> p.kl(q)
        tensor(0.5000, dtype=torch.float64)
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, mean: Numbers, covariance: Numbers = 1.0) -> None:
        m = as_numbers("mean", mean, expected="an array, shape (*batch, d)")
        c = as_numbers("covariance", covariance, expected="variances, matrices or a number")
        if m.ndim == 0 or m.numel() == 0:
            raise ValueError(
                f"mean must have shape (*batch, d), such as (2,), but has {tuple(m.shape)}."
            )
        c = c.to(m.device)
        c = c.expand(m.shape) if c.ndim == 0 else c
        if c.shape not in (m.shape, (*m.shape, m.shape[-1])):
            raise ValueError(
                f"covariance must be a number, variances of shape {tuple(m.shape)} as mean has "
                f"it, or matrices of shape {(*m.shape, m.shape[-1])}, but has shape "
                f"{tuple(c.shape)}."
            )
        for name, value in (("mean", m), ("covariance", c)):
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} must be finite, but is not in {_first_bad(value)}.")
        object.__setattr__(self, "mean", m)
        object.__setattr__(self, "covariance", c)
        object.__setattr__(self, "covariance", _checked(c, is_diagonal=self.is_diagonal))

    @property
    def dim(self) -> int:
        """d."""
        return self.mean.shape[-1]

    @property
    def is_diagonal(self) -> bool:
        """Whether the covariance is held as variances."""
        return self.covariance.ndim == self.mean.ndim

    def matrix(self) -> Tensor:
        """Return C as matrices, shape (*batch, d, d)."""
        return self.covariance.diag_embed() if self.is_diagonal else self.covariance

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log N(x; m, C) in nats, shape (*batch,); x has shape (*batch, d)."""
        x = self._points("x", x)
        square, log_det = self._square(x - self.mean), self._log_det()
        return -0.5 * (square + log_det + self.dim * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """Return ½ log det(2πe C) in nats, shape (*batch,)."""
        return 0.5 * (self._log_det() + self.dim * (1 + math.log(2 * math.pi)))

    def cross_entropy(self, other: Gaussian) -> Tensor:
        """Return −E_p log q in nats, shape (*batch,).

        Args:
            other: q, of the same dimension.
        """
        return self.entropy() + self.kl(other)

    def kl(self, other: Gaussian) -> Tensor:
        """Return KL(p ‖ q) in nats, of this law p from another q; shape (*batch,).

        Args:
            other: q, of the same dimension.

        Raises:
            TypeError: If it is no Gaussian.
            ValueError: If it has another dimension.
        """
        self._check_like(other)
        shift = other._square(other.mean - self.mean)
        if self.is_diagonal and other.is_diagonal:
            ratio = self.covariance / other.covariance
            return 0.5 * ((ratio - 1 - ratio.log()).sum(-1) + shift)
        # with Q = L Lᵀ the eigenvalues of L⁻¹ P L⁻ᵀ are the ratios of variances
        root = torch.linalg.cholesky(other.matrix())
        half = torch.linalg.solve_triangular(root, self.matrix(), upper=False)
        white: Tensor = torch.linalg.solve_triangular(root, half.mT, upper=False)
        trace = white.diagonal(dim1=-2, dim2=-1).sum(-1)
        volume = other._log_det() - self._log_det()
        return 0.5 * (trace - self.dim + volume + shift)

    def product(self, other: Gaussian) -> tuple[Gaussian, Tensor]:
        """Return the law that is proportional to the product of two densities, and log ∫ p q dx.

        Args:
            other: The second, of the same dimension.

        Returns:
            N(c, C), and log N(a; b, A + B), shape (*batch,): their sum of logs is log p + log q.

        Raises:
            TypeError: If it is no Gaussian.
            ValueError: If it has another dimension.
        """
        self._check_like(other)
        a, b = self.mean, other.mean
        if self.is_diagonal and other.is_diagonal:
            total = self.covariance + other.covariance
            gain = self.covariance / total
            c = Gaussian(a + gain * (b - a), gain * other.covariance)
            return c, Gaussian(b.expand_as(total), total).log_prob(a)
        total = self.matrix() + other.matrix()
        gain = torch.linalg.solve(total, self.matrix()).mT  # A (A + B)⁻¹, both symmetric
        mean = a + (gain @ (b - a)[..., None])[..., 0]
        spread = gain @ other.matrix()
        c = Gaussian(mean, 0.5 * (spread + spread.mT))
        return c, Gaussian(b.expand(total.shape[:-1]), total).log_prob(a)

    def marginal(self, indices: Sequence[int]) -> Gaussian:
        """Return the law of some coordinates, in this order.

        Args:
            indices: Which ones, each once.

        Raises:
            ValueError: If one is out of range or named twice.
        """
        kept = self._indices(indices)
        if self.is_diagonal:
            return Gaussian(self.mean[..., kept], self.covariance[..., kept])
        rows = self.covariance[..., kept, :]
        return Gaussian(self.mean[..., kept], rows[..., kept])

    def condition(self, indices: Sequence[int], values: Numbers) -> Gaussian:
        """Return the law of the other coordinates, in their order, where some are known.

        Args:
            indices: Which are known, each once, and not all.
            values: What they are, shape (*batch, len(indices)).

        Raises:
            ValueError: If an index is out of range, named twice or none is left, or values have
                another number of coordinates.
        """
        known = self._indices(indices)
        rest = [i for i in range(self.dim) if i not in known]
        if not rest:
            raise ValueError(
                "no coordinate is left where all are known; leave one out of indices."
            )
        x = as_numbers("values", values, expected="numbers, one for each known coordinate")
        if x.ndim == 0 or x.shape[-1] != len(known):
            raise ValueError(
                f"values must hold {len(known)} numbers in their last axis, one for each index, "
                f"but have shape {tuple(x.shape)}."
            )
        mean, free = self.mean[..., rest], x.to(self.mean.device) - self.mean[..., known]
        if self.is_diagonal:
            mean = mean + 0 * free[..., :1]  # a law for each row of values
            return Gaussian(mean, self.covariance[..., rest].expand_as(mean))
        c = self.covariance
        cross, inner = c[..., rest, :][..., known], c[..., known, :][..., known]
        gain = torch.linalg.solve(inner, cross.mT).mT
        spread = c[..., rest, :][..., rest] - gain @ cross.mT
        mean = mean + (gain @ free[..., None])[..., 0]
        return Gaussian(mean, 0.5 * (spread + spread.mT).expand(*mean.shape, -1))

    def transform(self, matrix: Numbers, shift: Numbers = 0.0, noise: Numbers = 0.0) -> Gaussian:
        """Return the law of M x + b + z, z ~ N(0, R) independent of x.

        Args:
            matrix: M, shape (n, d).
            shift: b, shape (n,) or a number.
            noise: R: a variance, variances (n,) or a matrix (n, n); 0 is none.

        Raises:
            ValueError: If shapes do not fit, or what comes out has no density.
        """
        m = as_numbers("matrix", matrix, expected="a matrix, shape (n, d)").to(self.mean.device)
        if m.ndim != 2 or m.shape[1] != self.dim:
            raise ValueError(
                f"matrix must have shape (n, {self.dim}), as the law has {self.dim} coordinates, "
                f"but has shape {tuple(m.shape)}."
            )
        b, r = as_numbers("shift", shift).to(m), as_numbers("noise", noise).to(m)
        n = len(m)
        for name, value, shapes in (("shift", b, [(), (n,)]), ("noise", r, [(), (n,), (n, n)])):
            if tuple(value.shape) not in shapes:
                raise ValueError(
                    f"{name} must have one of the shapes {shapes}, as matrix has {n} rows, but "
                    f"has {tuple(value.shape)}."
                )
        if r.ndim < 2:
            r = r.expand(n).diag()
        mean = self.mean @ m.T + b
        spread = m @ self.matrix() @ m.T + r
        return Gaussian(mean, 0.5 * (spread + spread.mT))

    def sample(
        self, n: int | None = None, *, rng: Rng = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Draw m + L z with gradients to m and C, C = L Lᵀ (reparametrised).

        Args:
            n: How many of each law, a first axis; None draws one, without that axis.
            rng: Seed, generator or None.
            dtype: Of the result; float64 unless said.

        Returns:
            Shape (n, *batch, d) or (*batch, d).
        """
        if n is not None:
            check_count("n", n)
        shape = self.mean.shape if n is None else (n, *self.mean.shape)
        z = stream(rng, "gaussian").normal(
            tuple(shape), dtype=self.mean.dtype, device=self.mean.device
        )
        if self.is_diagonal:
            x = self.mean + self.covariance.sqrt() * z
        else:
            root = torch.linalg.cholesky(self.covariance)
            x = self.mean + (root @ z[..., None])[..., 0]
        return x if dtype is None else x.to(dtype)

    def _square(self, deviation: Tensor) -> Tensor:
        """Return rᵀ C⁻¹ r, shape (*batch,)."""
        if self.is_diagonal:
            scaled: Tensor = deviation.square() / self.covariance
            return scaled.sum(-1)
        root = torch.linalg.cholesky(self.covariance)
        column = (deviation + 0 * self.mean)[..., None]  # a row for each law
        white: Tensor = torch.linalg.solve_triangular(root, column, upper=False)
        return white[..., 0].square().sum(-1)

    def _log_det(self) -> Tensor:
        """Return log det C, shape (*batch,)."""
        if self.is_diagonal:
            return self.covariance.log().sum(-1)
        root: Tensor = torch.linalg.cholesky(self.covariance)
        return 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _points(self, name: str, x: object) -> Tensor:
        """Return points of its dimension in float64, or refuse them."""
        points = as_numbers(name, x, expected=f"points of shape (*batch, {self.dim})")
        if points.ndim == 0 or points.shape[-1] != self.dim:
            raise ValueError(
                f"{name} must have shape (*batch, {self.dim}), as the law has it, but has shape "
                f"{tuple(points.shape)}."
            )
        return points.to(self.mean.device)

    def _check_like(self, other: object) -> None:
        """Refuse what is no Gaussian of this dimension."""
        check_kind("other", other, Gaussian, "a Gaussian(mean, covariance)")
        if isinstance(other, Gaussian) and other.dim != self.dim:
            raise ValueError(
                f"both must have one dimension, but have {self.dim} and {other.dim} coordinates."
            )

    def _indices(self, indices: Sequence[int]) -> list[int]:
        """Return which coordinates are meant, or refuse them."""
        if isinstance(indices, str) or not isinstance(indices, Sequence | range) or not indices:
            raise TypeError(
                f"indices must be a list of whole numbers, such as [0, 2], but is "
                f"{kind_of(indices)}."
            )
        wanted = [check_int("each of indices", i) for i in indices]
        if len(set(wanted)) < len(wanted) or not all(0 <= i < self.dim for i in wanted):
            raise ValueError(
                f"indices must each be in 0 … {self.dim - 1}, and there once, but are {wanted}."
            )
        return wanted


def product_of_experts(laws: Sequence[Gaussian]) -> tuple[Gaussian, Tensor]:
    """Return the law of a product of densities, and the log of the integral of that product.

        p ∝ Π_k N(x; m_k, C_k)

    Args:
        laws: One or more, of one dimension.

    Returns:
        The law, and log ∫ Π_k p_k dx in nats, shape (*batch,).

    Raises:
        TypeError: If one is no Gaussian.
        ValueError: If there are none, or their dimensions differ.

    Reference:
        Hinton 2002, Neural Computation 14, 1771, eq. (1).

    Example:
        >>> experts = [sg.Gaussian([0.0]), sg.Gaussian([2.0])]
        >>> law, log_mass = sg.variational.product_of_experts(experts)
        >>> law.mean.item(), law.covariance.item(), f"{log_mass.item():.4f}"  # log N(2; 0, 2)
        (1.0, 0.5, '-2.2655')
    """
    if isinstance(laws, Gaussian) or not isinstance(laws, Sequence) or not laws:
        raise ValueError(f"laws must be a list of one or more Gaussians, but is {kind_of(laws)}.")
    for law in laws:
        check_kind("each of laws", law, Gaussian, "a Gaussian(mean, covariance)")
    total, log_integral = laws[0], laws[0].mean.new_zeros(laws[0].mean.shape[:-1])
    for law in laws[1:]:
        total, log_factor = total.product(law)
        log_integral = log_integral + log_factor
    return total, log_integral


def _checked(c: Tensor, *, is_diagonal: bool) -> Tensor:
    """Return covariances, made symmetric to the bit, or refuse those that are none."""
    if is_diagonal:
        if not bool((c > 0).all()):
            where = _first_bad(torch.where(c > 0, 0.0, math.nan))
            raise ValueError(
                f"every variance must be > 0, but the smallest is {float(c.min()):g}, in {where}."
            )
        return c
    lowest = torch.linalg.eigvalsh(c.detach())[..., 0]
    size = c.detach().abs().amax((-2, -1))
    skewed = (c - c.mT).detach().abs().amax((-2, -1)) > _ASYMMETRIC * size
    bad = skewed | ~(lowest > 0)
    if bool(bad.any()):
        i = tuple(bad.nonzero()[0].tolist())
        which = f" at index {i} of the batch" if i else ""
        fault = "is not symmetric" if skewed[i] else f"has a lowest eigenvalue of {lowest[i]:.4g}"
        raise ValueError(
            f"every covariance must be symmetric and positive definite, but that{which} {fault}."
        )
    return 0.5 * (c + c.mT)


def _first_bad(value: Tensor) -> str:
    """Return where a tensor is not finite first, in words."""
    return f"entry {tuple((~value.isfinite()).nonzero()[0].tolist())}"
