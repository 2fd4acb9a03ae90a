"""What rests in the plane: the null vector of the operator.

Where log(a/b) adds up to nothing around every mesh there is a density without current, in detailed
balance, and it is a sum of these: exact behind barriers of any height.

The M-matrix of the lumped form has one by theory, positive; it comes from inverse iteration with
one sparse factorisation. The compact one is the solution of

    (−A + μ v wᵀ) p = μ v,    wᵀA = 0, wᵀp = 1

with v the lumped form's, found by GMRES with the same factorisation as its preconditioner, which
inverts the lumped form in the same equation exactly. The number of iterations grows like the root
of the numerical diffusion of the lumped form over that of the process.

Reference:
    Saad 2003, Iterative methods for sparse linear systems, section 6.5, for GMRES.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, SuperLU, gmres, splu

from sdegen.fokker_planck.density2d.channel_fluxes import ChannelFluxes
from sdegen.fokker_planck.density2d.operator import PlaneFluxes
from sdegen.fokker_planck.discretization.arrays import Array

_SHIFT = 1e-13  # of the largest rate: how near to 0 inverse iteration looks for its null vector
_ITERATIONS = 4
_RESTART, _CYCLES = 80, 2
_TOLERANCE = 1e-11  # of the peak
_ALIKE = 1e-4  # of the peak: what two starts may differ by
_BALANCED = 1e-8  # of log p: what may be left of it around a mesh, times the number of nodes


def balanced(fluxes: PlaneFluxes) -> Array | None:
    """Return the density without current, its peak 1, if there is one; else None.

    log p gains w = log(a/b) over a cell; that is a function of the place if it adds up to nothing
    around every mesh, and around rings.
    """
    first, second = fluxes.gains  # shapes (nx − 1, uy), (ux, ny − 1)
    along, across = fluxes.mesh.lines
    if any(wall.absorbs for wall in along.conditions + across.conditions):
        return None
    nx, ny = (len(line.grid.nodes) for line in (along, across))
    # up along the middle, and from there along each line
    middle = second.shape[0] // 2
    start = np.concatenate([[0.0], np.cumsum(second[middle])])
    wide = np.concatenate([first, first[:, :1]], 1) if across.ring else first
    steps = np.concatenate([np.zeros((1, ny)), np.cumsum(wide, 0)])
    log_p = steps - steps[middle] + start
    ux, uy = fluxes.mesh.shape
    miss = np.abs(np.diff(log_p, axis=1)[:ux] - second).max()
    if along.ring:
        miss = max(miss, np.abs(log_p[0] - log_p[-1]).max())
    if across.ring:
        miss = max(miss, np.abs(log_p[:, 0] - log_p[:, -1]).max())
    if not miss * max(nx, ny) <= _BALANCED:
        return None
    log_p = log_p[:ux, :uy]
    p: Array = np.exp(log_p - log_p.max())
    return p.ravel()


def null_vectors(
    fluxes: PlaneFluxes | ChannelFluxes, *, compact: bool
) -> tuple[Array | None, Array, bool]:
    """Find the densities at rest of both forms, of mass 1.

    Args:
        fluxes: Both operators, whose left null vectors are the volumes of their mesh.
        compact: Whether the density of high order is wanted.

    Returns:
        Densities at the unknowns; None in place of the compact one if GMRES did not find it, which
        happens where the grid does not resolve it. And whether two starts of the iteration came
        to one end: behind a barrier that is so high that its rate is lost in rounding they do not.
    """
    lumped_volumes = fluxes.mesh.lumped_volumes
    v, sure, factors, scale = lumped_null_vector(fluxes.lumped, lumped_volumes)
    if not compact:
        return None, v, sure
    size, matrix, volumes = len(v), fluxes.compact, fluxes.mesh.volumes

    def inverse(r: Array) -> Array:
        """Return (−B + μ v wᵀ)⁻¹ r, B the lumped form and w its volumes."""
        whole = float(lumped_volumes @ r)
        y: Array = factors.solve(r - whole * v)
        y += (whole / scale - float(lumped_volumes @ y)) * v
        return y

    def product(p: Array) -> Array:
        return inverse(scale * float(volumes @ p) * v - matrix @ p)

    right = inverse(scale * v) - product(v)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    atol = _TOLERANCE * float(np.linalg.norm(v))
    change, failed = gmres(operator, right, rtol=0.0, atol=atol, restart=_RESTART, maxiter=_CYCLES)
    if failed or not np.isfinite(change).all():
        return None, v, sure
    p = v + change
    return p / float(volumes @ p), v, sure


def lumped_null_vector(
    lumped: sparse.spmatrix, volumes: Array
) -> tuple[Array, bool, SuperLU, float]:
    """Find the density at rest of an M-matrix, of mass 1.

    Args:
        lumped: The M-matrix.
        volumes: Its left null vector.

    Returns:
        The density, whether two starts came to it, factors of the shifted matrix and its scale.
    """
    size = len(volumes)
    scale = float(abs(lumped.diagonal()).max())
    # the structure is symmetric, and the diagonal dominates: no pivots, less fill
    shifted = (_SHIFT * scale * sparse.identity(size) - lumped).tocsc()
    options = {"SymmetricMode": True}
    factors = splu(shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    starts = np.stack([np.ones(size), np.linspace(0.0, 1.0, size) ** 2], 1)
    for _ in range(_ITERATIONS):
        starts = factors.solve(starts)
        starts /= volumes @ starts
    v = np.maximum(starts[:, 0], 0.0)
    sure = bool(np.abs(starts[:, 1] - v).max() < _ALIKE * v.max())
    return v, sure, factors, scale


def compact_null_vector(fluxes: ChannelFluxes) -> tuple[Array | None, bool]:
    """Find the density at rest of the compact form of a matrix, by factors of its own.

    The lumped form is no near one where the drift is strong beside D's smallest eigenvalue.

    Returns:
        The density, of mass 1, None if there is none; and whether two starts came to it.
    """
    matrix, volumes = fluxes.compact, fluxes.mesh.volumes
    size, scale = len(volumes), float(abs(matrix.diagonal()).max())
    try:
        factors = splu((_SHIFT * scale * sparse.identity(size) - matrix).tocsc())
    except RuntimeError:  # singular
        return None, False
    starts = np.stack([np.ones(size), np.linspace(0.0, 1.0, size) ** 2], 1)
    for _ in range(_ITERATIONS):
        starts = factors.solve(starts)
        starts /= volumes @ starts
    if not np.isfinite(starts).all():
        return None, False
    v = starts[:, 0]
    return v, bool(np.abs(starts[:, 1] - v).max() < _ALIKE * v.max())
