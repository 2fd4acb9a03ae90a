"""Chains of cells: what the shooting of a mode goes through.

With the speed density m and the scale density s, a mode of the backward equation and its current
obey J′ = λ m φ and φ′ = −s J. Through a cell both are carried by a matrix of determinant 1, whose
entries are power series in λ of integrals of s and m that are all positive,

    φ_{i+1} = A φ_i − B J_i,    A = 1 − λ ∫s∫m + …,    B = ∫s − λ ∫s∫m∫s + …
    J_{i+1} = C φ_i + D J_i,    C = λ ∫m − λ² ∫m∫s∫m + …,    D = 1 − λ ∫m∫s + …

A chain is that of a line, less tails too faint to matter, or a ring cut open at a node. Cells with
|∫ f/D| > 3 are too steep for four Gauss points. They carry their mass at their two nodes.

Reference:
    Pruess 1973, SIAM J. Numer. Anal. 10, 55.
"""

from __future__ import annotations

import numpy as np

from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.boundary_nodes import BoundaryNodes
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS
from sdegen.fokker_planck.discretization.fluxes import CUMULATIVE, STEEPEST, Fluxes
from sdegen.fokker_planck.discretization.operator import wall_weights
from sdegen.fokker_planck.questions.shooting import DEEPEST, Chain

_TERMS = 4  # of the power series in λ; the first that is left out is (λh²/D)⁵/10!
_FAINT = -230.0  # of log m below its peak: a tail beyond it carries no digit of any rate
_LINEAR = 1e-3  # |u| below which a series is exact to rounding


def chain(flux: Fluxes, ends: BoundaryNodes) -> Chain:
    """Return the chain of a line.

    Args:
        flux: Fluxes of the cells.
        ends: Its walls, not periodic.
    """
    w, a, b = flux.w.numpy(), flux.a.numpy(), flux.b.numpy()
    right, left = cell_loads(flux)
    absorbs = tuple(kind.absorbs for kind in ends.conditions)
    first, last = int(ends.exponents[0] is not None), len(w) - int(ends.exponents[1] is not None)
    walls = _walls(flux, ends)
    log_m = np.concatenate([[0.0], np.cumsum(w)])
    inside = np.flatnonzero(log_m > log_m.max() + _FAINT)
    if not absorbs[0] and inside[0] > first:
        first, walls = int(inside[0]), ((0.0, 0.0), walls[1])
    if not absorbs[1] and inside[-1] < last:
        last, walls = int(inside[-1]), (walls[0], (0.0, 0.0))
    kept = slice(first, last)
    volumes = np.append(right[kept], 0.0) + np.append(0.0, left[kept])
    volumes[0] += walls[0][0] + walls[0][1]
    volumes[-1] += walls[1][0] + walls[1][1]
    return Chain(
        first,
        (absorbs[0], absorbs[1]),
        _series(flux, right, left)[:, :, kept],
        w[kept],
        volumes,
        np.stack([a, b])[:, kept],
        walls,
    )


def around(flux: Fluxes, node: int) -> Chain:
    """Return the chain of a ring without a current, from a node around to it, φ = 0 there.

    Args:
        flux: Fluxes of the cells.
        node: Where the ring is cut.
    """
    right, left = cell_loads(flux)
    series = np.roll(_series(flux, right, left), -node, -1)
    right, left = np.roll(right, -node), np.roll(left, -node)
    w = flux.w.numpy()
    volumes = np.append(right, 0.0) + np.append(0.0, left)
    bonds = np.roll(np.stack([flux.a.numpy(), flux.b.numpy()]), -node, -1)
    nowhere = ((0.0, 0.0), (0.0, 0.0))
    return Chain(0, (True, True), series, np.roll(w - w.mean(), -node), volumes, bonds, nowhere)


def cell_loads(flux: Fluxes) -> tuple[Array, Array]:
    """Return ∫ φ m dx over each cell, of its falling hat over m_i and its rising one over m_{i+1}.

    For a constant f/D and D they are h (1 − e) and h e, e = 1/u − 1/(e^u − 1). Four Gauss points
    correct that for what f/D and D do within the cell, unless it is too steep for them.

    Args:
        flux: Fluxes of the cells.
    """
    h, u, w = flux.h.numpy(), flux.u.numpy(), flux.w.numpy()
    steep = np.abs(u) > STEEPEST
    near = np.abs(u) < _LINEAR
    z = np.where(near, 1.0, u)
    with np.errstate(over="ignore"):
        share = np.where(near, 0.5 - u / 12 + u**3 / 720, 1 / z - 1 / np.expm1(z))
    gentle = np.where(steep, 0.0, u)
    weights, points = GAUSS_WEIGHTS.numpy(), GAUSS_NODES.numpy()
    inner = CUMULATIVE.numpy().T
    m = np.exp(np.where(steep[:, None], 0.0, flux.log_m.numpy())) * weights
    hats = flux.hats.numpy()
    # the same rule for the constant f/D
    fall = np.exp(-gentle[:, None] * points)
    line_hats = 1 - (fall @ inner) / (fall @ weights)[:, None]
    line = weights / fall
    right = (m * hats).sum(-1) / (line * line_hats).sum(-1)
    left = (m * (1 - hats)).sum(-1) / (line * (1 - line_hats)).sum(-1)
    left = left * np.exp(gentle - np.where(steep, 0.0, w))
    return (h * (1 - share) * np.where(steep, 1.0, right), h * share * np.where(steep, 1.0, left))


def _walls(flux: Fluxes, ends: BoundaryNodes) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the weights of walls where D = 0; zeros where there is none."""
    h, w = flux.h, flux.w
    found = []
    for q, wall, cell, gain in (
        (ends.exponents[0], h[0], h[1], w[1]),
        (ends.exponents[1], h[-1], h[-2], -w[-2]),
    ):
        if q is None:
            found.append((0.0, 0.0))
            continue
        at_one, at_two = wall_weights(wall, cell, q)
        found.append((float(at_one), float(at_two * gain.exp())))
    return found[0], found[1]


def _series(flux: Fluxes, right: Array, left: Array) -> Array:
    """Return the coefficients of the entries in powers of −λ, shape (4, terms, cells)."""
    h, w, a = flux.h.numpy(), flux.w.numpy(), flux.a.numpy()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bond = 1 / a
        fall = np.exp(np.clip(-w, -DEEPEST, DEEPEST))
        s = flux.shares.numpy() / GAUSS_WEIGHTS.numpy() * bond[:, None]  # per unit of the cell
        m = np.exp(np.minimum(flux.log_m.numpy(), DEEPEST)) * h[:, None]
        out = np.zeros((4, _TERMS + 1, len(h)))
        out[0, 0] = out[3, 0] = 1
        inner, weights = CUMULATIVE.numpy().T, GAUSS_WEIGHTS.numpy()
        y, z = m, s  # what is integrated next, of φ = 1 and of J = 1 at the left node
        for term in range(_TERMS + 1):
            out[1, term], out[2, term] = y @ weights, z @ weights
            y, z = s * (y @ inner), m * (z @ inner)
            if term < _TERMS:
                out[0, term + 1], out[3, term + 1] = y @ weights, z @ weights
                y, z = m * (y @ inner), s * (z @ inner)
        steep = (np.abs(flux.u.numpy()) > STEEPEST) | (np.abs(w) > STEEPEST)
        lumped = np.zeros_like(out)
        far = left / fall  # over m of the left node
        lumped[0, 0] = lumped[3, 0] = 1
        lumped[0, 1], lumped[3, 1] = right * bond, far * bond
        lumped[1, 0], lumped[1, 1] = right + far, far * right * bond
        lumped[2, 0] = bond
        out = np.where(steep, lumped, out)
        out[1] *= fall
        out[3] *= fall
    return out
