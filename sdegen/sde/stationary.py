"""From a law to its SDEs: all dynamics of one stationary density, by autograd.

    dX = [(M + R) ∇ log p + ∇·(M + R)] dt + √(2M) dW,      (∇·M)_i = Σ_j ∂_j M_ij

leaves p at rest for every mobility M(x), symmetric and positive, and every rotation R(x),
antisymmetric: the Fokker–Planck current is J = R ∇p + p ∇·R = ∇·(R p), whose divergence is
Σ_ij ∂_i ∂_j (R_ij p) = 0. Without R it vanishes: the dynamics are reversible. With M = 1 and no R
they are those of `Langevin` at T = 1. R is what a non-equilibrium drift adds: it turns the state
around lines of p, produces entropy, and may relax faster.

Derivatives of log p, M and R are those of autograd, or differences where it does not see them.

Reference:
    Ma, Chen and Fox 2015, eqs. (2)–(3), arXiv:1506.04696; Pavliotis 2014, section 4.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.channels import directionals, units
from sdegen.core.checks import check_count
from sdegen.core.derivatives import gradient_of, is_seen
from sdegen.core.errors import NotNormalizableError
from sdegen.core.noise_structure import NoiseStructure
from sdegen.core.requests import as_numbers, check_function, kind_of
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import Numbers, State, Time, as_column
from sdegen.core.slope_checks import check_directional, check_slope

Field = Callable[[State], Tensor]

_ASYMMETRIC = 1e-6  # relative: what single precision leaves of a matrix's symmetry
_FAR = (1e2, 1e4, 1e6)  # distances in units of the start's, where a density must have fallen
_RAYS = 8
_CURE = "If a part of it is hidden from autograd (.detach(), no_grad, NumPy), take that out."


class StationarySDE(SDE):
    """The SDE of a stationary density p: reversible, with a mobility of its own, or rotating.

        dX = [(M + R) ∇ log p + ∇·(M + R)] dt + √(2M) dW        (Itô)

    Args:
        log_density: log p(x) up to a constant, of states (batch, *event), in torch: one number
            for each, shape (batch,), such as `GaussianMixture.log_prob`, or x's shape, of which
            the coordinates are summed.
        mobility: M: a number > 0; one for each coordinate, shape (d,); a symmetric positive
            matrix, (d, d). Or a function of states: one number for each, shape (batch,), x's
            shape, or with `channels` a matrix for each, (batch or 1, d, d).
        rotation: R, an antisymmetric matrix of constants, shape (d, d), or a function of states
            that returns one for each, (batch or 1, d, d). None: the dynamics are reversible.
        channels: d, where mobility is a function that returns matrices.

    Raises:
        TypeError: If log_density is no function, or mobility or rotation are neither.
        ValueError: If the mobility is not symmetric and positive, or the rotation not
            antisymmetric; of functions where they are evaluated.
        NotNormalizableError: From a start, if p does not fall off far away from it.

    Example:
        >>> turn = [[0.0, 2.0], [-2.0, 0.0]]
        >>> spin = sg.StationarySDE(lambda x: -x.square().sum(1) / 2, rotation=turn)
        >>> spin.drift(torch.tensor([[1.0, 0.0]]), torch.tensor(0.0)).tolist()  # −(1 + R) x
        [[-1.0, 2.0]]
    """

    autonomous: bool | None = True

    def __init__(
        self,
        log_density: Field,
        mobility: Numbers | Field = 1.0,
        rotation: Numbers | Field | None = None,
        *,
        channels: int | None = None,
    ) -> None:
        expected = "a function log p(x), such as lambda x: -x**4 / 4, or mixture.log_prob"
        check_function("log_density", log_density, expected)
        self.log_density: Field = log_density
        self.mobility: Numbers | Field = mobility
        self.rotation: Numbers | Field | None = rotation
        self._M: Tensor | None = None
        self._R = None if rotation is None or callable(rotation) else _rotation(rotation)
        if rotation is not None and callable(rotation):
            check_function("rotation", rotation, "a matrix, or a function of states")
        if callable(mobility):
            check_function("mobility", mobility, "a number, an array or a function of states")
            self.noise = "multiplicative"
            if channels is not None:
                check_count("channels", channels)
                self.noise_structure, self.channels = "channels", channels
            return
        if channels is not None:
            raise ValueError(
                "channels is the number of coordinates where mobility is a function that returns "
                "matrices; leave it out, since a number or an array says it."
            )
        self.noise: NoiseKind = "additive"
        self._M = _mobility(mobility)
        if self._M.ndim == 0 and not self._M.requires_grad:
            self.constant_noise: float | None = math.sqrt(2 * float(self._M))
        elif self._M.ndim == 2:
            self.noise_structure: NoiseStructure = "channels"
            self.channels: int | None = len(self._M)

    def stationary_log_density(self, x: State) -> Tensor:
        """Return log p(x) up to a constant, shape (batch,).

        Raises:
            TypeError: If `log_density` returns no tensor.
            ValueError: If it returns another shape.
        """
        value: object = self.log_density(x)
        if not isinstance(value, Tensor):
            raise TypeError(f"log_density must return a tensor, but returned {kind_of(value)}.")
        if value.shape == x.shape[:1]:
            return value
        if value.shape == x.shape:
            return value.flatten(1).sum(1)
        raise ValueError(
            f"log_density must return one number for each state, shape ({len(x)},), or x's shape "
            f"{tuple(x.shape)}, but returned shape {tuple(value.shape)}; sum over the coordinates "
            "alone, such as (-x**4 / 4).sum(1)."
        )

    def stationary_score(self, x: State) -> State:
        """Return ∇ log p(x), shape of x."""
        return gradient_of(self.stationary_log_density, x)

    def drift(self, x: State, t: Time) -> State:
        """(M + R) ∇ log p + ∇·(M + R), shape of x."""
        score = self.stationary_score(x)
        if self._M is not None and self._M.ndim < 2:
            drift = self._M.to(x) * score  # not by its root, which rounds
        else:
            drift = self.covariance_times(x, t, score, 0.5)
            drift = drift + 0.5 * self.covariance_divergence(x, t)
        if self.rotation is None:
            return drift
        turned = (self._rotation_at(x) @ score.flatten(1)[..., None])[..., 0].reshape(x.shape)
        if self._R is None:
            turned = turned + _divergence(self._rotation_at, x)
        return drift + turned

    def diffusion(self, x: State, t: Time) -> Tensor:
        """√(2M), which broadcasts to x; of matrices the G of G Gᵀ = 2M, lower triangular."""
        if self._M is not None:
            M = self._M.to(x)
            return self._root(M[None]) if M.ndim == 2 else (2 * M).sqrt()
        M = self._mobility_at(x)
        return self._root(M) if self.channels is not None else (2 * M).sqrt()

    def covariance_divergence(self, x: State, t: Time) -> State:
        """Return 2 ∇·M, shape of x."""
        if self._M is not None:
            return torch.zeros_like(x)
        if self.channels is not None:
            return 2 * _divergence(self._mobility_at, x)
        if self._mobility_at(x[:1]).shape[1:].numel() == 1 and x[0].numel() > 1:
            return 2 * gradient_of(lambda y: self._mobility_at(y).flatten(1)[:, 0], x)
        return 2 * _divergence(lambda y: torch.diag_embed(self._mobility_at(y).flatten(1)), x)

    def check_start(self, x: State, periods: Tensor | None, t: Time) -> None:
        """Refuse a density that does not fall off far away; on a circle all may be normalised.

        Along rays from the start r^d p(x) must fall, as ∫ p dx needs it to.
        """
        if periods is not None and bool((periods != 0).any()):
            return
        with torch.no_grad():
            self._check_falls(x.detach()[:_RAYS].double())

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the derivatives of log p, M and R with differences of their functions."""
        check_slope(
            lambda y: as_column(self.stationary_log_density(y), y),
            self.stationary_score, x, name="log_density", cure=_CURE,
        )  # fmt: skip
        for field in (self._mobility_at if self.channels else None, self._rotation_at):
            given = self.rotation if field == self._rotation_at else self.mobility
            if field is not None and callable(given):
                check_directional(field, x, cure=_CURE)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how ∇ log p is found at these states."""
        seen = is_seen(lambda y: as_column(self.stationary_log_density(y), y), x)
        return "autograd" if seen else "differences"

    def _root(self, M: Tensor) -> Tensor:
        """Return the lower triangular G of G Gᵀ = 2M."""
        G: Tensor
        G, failed = torch.linalg.cholesky_ex(2 * M)
        if bool(failed.any()):
            raise ValueError(
                "mobility must be symmetric and positive definite at every state, but in row "
                f"{int(failed.nonzero()[0])} it is {M[int(failed.nonzero()[0])].tolist()}."
            )
        return G

    def _mobility_at(self, x: State) -> Tensor:
        """Return M of a function: one number for each state or coordinate, or matrices."""
        M = cast(Field, self.mobility)(x)
        d = x[0].numel()
        if self.channels is not None:
            if self.channels != d:
                raise ValueError(
                    f"channels must be {d}, the number of coordinates, but is {self.channels}."
                )
            return _square("mobility", M, x, 1)
        if isinstance(M, Tensor) and M.shape == x.shape[:1]:
            M = as_column(M, x)
        if not isinstance(M, Tensor) or M.shape not in (x.shape, (len(x), *[1] * (x.ndim - 1))):
            raise ValueError(
                f"mobility must return one number for each state, shape ({len(x)},), or x's shape "
                f"{tuple(x.shape)}, but returned {kind_of(M)}; of matrices pass channels={d}."
            )
        if not bool((M > 0).all()):
            raise ValueError(
                f"mobility must be > 0 at every state, but its least is {float(M.min()):.4g}."
            )
        return M

    def _rotation_at(self, x: State) -> Tensor:
        """Return R, shape (batch or 1, d, d)."""
        if self._R is None:
            return _square("rotation", cast(Field, self.rotation)(x), x, -1)
        if len(self._R) != x[0].numel():
            raise ValueError(
                f"rotation has {len(self._R)} rows, but a state has {x[0].numel()} coordinates."
            )
        return self._R.to(x)[None]

    def _check_falls(self, x: State) -> None:
        """Refuse log p + d log r that grows on a ray."""
        d = x[0].numel()
        turn = torch.arange(d, dtype=torch.float64)
        size = 1 + x.flatten(1).norm(dim=1)
        for k in range(2 * min(d, _RAYS)):
            # each axis in both senses, and beyond eight of them a diagonal of many signs
            ray = (turn == k // 2).double() if d <= _RAYS else torch.cos((k + 1) * turn).sign()
            ray = (ray if k % 2 else -ray) / ray.norm()
            heights = [
                self.stationary_log_density(x + (r * size[:, None] * ray).reshape(x.shape))
                + d * (r * size).log()
                for r in _FAR
            ]
            grows = (heights[1] >= heights[0]) & (heights[2] >= heights[1])
            if bool(grows.any()):
                raise NotNormalizableError(
                    "the density of log_density cannot be normalised: along a ray from the start "
                    f"log p + {d} log r grows from {float(heights[0][grows][0]):.4g} at r = "
                    f"{_FAR[0]:g} to {float(heights[2][grows][0]):.4g} at r = {_FAR[2]:g}. Add a "
                    "confining term, or a boundary that makes states periodic."
                )


def _divergence(field: Field, x: State) -> State:
    """Return Σ_j ∂_j F_ij of matrices F(x), shape of x."""
    _, slopes = directionals(lambda y: field(y).expand(len(y), -1, -1), x, lambda _: units(x))
    return torch.stack([s[..., j] for j, s in enumerate(slopes)]).sum(0).reshape(x.shape)


def _mobility(value: Numbers) -> Tensor:
    """Return a mobility of constants, or refuse it."""
    M = as_numbers("mobility", value, expected="a number, an array, or a function of states")
    if M.ndim > 2 or (M.ndim == 2 and M.shape[0] != M.shape[1]) or M.numel() == 0:
        raise ValueError(
            "mobility must be a number, one for each coordinate, shape (d,), or a matrix, "
            f"(d, d), but has shape {tuple(M.shape)}."
        )
    if not bool(M.isfinite().all()):
        raise ValueError(f"mobility must be finite, but is {M.tolist()}.")
    if M.ndim == 2:
        _check_symmetry("mobility", M[None], 1)
        lowest = float(torch.linalg.eigvalsh(M.detach()).min())
    else:
        lowest = float(M.min())
    if not lowest > 0:
        raise ValueError(f"mobility must be positive, but its least eigenvalue is {lowest:.4g}.")
    return M


def _rotation(value: Numbers) -> Tensor:
    """Return a rotation of constants, or refuse it."""
    R = as_numbers("rotation", value, expected="an antisymmetric matrix, or a function of states")
    if R.ndim != 2 or R.shape[0] != R.shape[1] or R.numel() == 0:
        raise ValueError(f"rotation must have shape (d, d), but has shape {tuple(R.shape)}.")
    _check_symmetry("rotation", R[None], -1)
    return R


def _square(name: str, matrix: object, x: State, sign: int) -> Tensor:
    """Return the matrices of a function, checked."""
    d = x[0].numel()
    shapes = ((1, d, d), (len(x), d, d))
    if not isinstance(matrix, Tensor) or tuple(matrix.shape) not in shapes:
        raise ValueError(
            f"{name} must return matrices of shape ({len(x)}, {d}, {d}), one for each state, but "
            f"returned {kind_of(matrix)}."
        )
    _check_symmetry(name, matrix, sign)
    return matrix


def _check_symmetry(name: str, matrices: Tensor, sign: int) -> None:
    """Refuse matrices that are not symmetric, sign 1, or antisymmetric, −1."""
    with torch.no_grad():
        off = (matrices - sign * matrices.mT).abs().amax((1, 2))
        bad = ~(off <= _ASYMMETRIC * matrices.abs().amax((1, 2)))
    if bool(bad.any()):
        word = "symmetric" if sign == 1 else "antisymmetric, Rᵀ = −R"
        raise ValueError(f"{name} must be {word}, but is {matrices[bad][0].tolist()}.")
