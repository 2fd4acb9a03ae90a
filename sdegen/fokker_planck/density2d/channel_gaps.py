"""What grids that agree may both miss of a diffusion matrix: jumps beside nodes, and of G.

∫ a·dl sees a jump that lies between a node and the Gauss point next to it at the node, on every
grid that keeps the node (`gaps`). And ∇·D, by autograd, sees no jump of G at all: ∮ D n around a
cell, which does, is compared with ∫ ∇·D in it.
"""

from __future__ import annotations

import numpy as np
import torch

from sdegen.fokker_planck.density2d.channel_reader import ChannelReader
from sdegen.fokker_planck.density2d.operator import beside
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.coefficients import GAUSS_NODES, GAUSS_WEIGHTS

_JUMP = 0.3  # of log p: more than that in a cell is refused
_points, _weights = np.polynomial.legendre.leggauss(3)
_SHARES, _WEIGHTS = 0.5 * (1 + _points), 0.5 * _weights  # inside a cell


def hidden(reader: ChannelReader, time: float) -> list[Array]:
    """Return what ∫ a·dl may miss beside the nodes of the lines along each coordinate.

    Args:
        reader: Of the dynamics.
        time: When.

    Returns:
        For each coordinate of log p, shape (lines, nodes).

    Raises:
        ValueError: If G jumps.
    """
    mesh = reader.lattice.mesh
    inside, at_nodes = mesh.along_lines(torch.from_numpy(reader.slope(mesh.points.numpy(), time)))
    jumps, found = check_divergence(reader, time), []
    for axis, line in enumerate(mesh.lines):
        across = mesh.lines[1 - axis]
        lines = across.grid.nodes[across.interior].numpy()

        def ask_on(number: int, places: Array, axis: int = axis, lines: Array = lines) -> Array:
            along = places.ravel()
            both = along, np.full_like(along, lines[number])
            states = np.stack(both if axis == 0 else both[::-1], 1)
            return reader.slope(states, time)[:, axis].reshape(places.shape)

        off = beside(line, inside[axis].numpy(), at_nodes[axis].numpy(), ask_on)
        if jumps is not None:  # of the cells on both sides of a line, at their upper nodes
            each = jumps[axis] if axis == 1 else jumps[axis].T
            sides = np.pad(each, ((1, 1), (1, 0)))
            off = off + np.maximum(sides[:-1], sides[1:])[across.interior]
        found.append(off)
    return found


def check_divergence(reader: ChannelReader, time: float) -> tuple[Array, Array] | None:
    """Refuse a ∇·D that is not the derivative of D.

    Args:
        reader: Of the dynamics.
        time: When.

    Returns:
        What it may miss of log p in each cell, along both coordinates, shape (cells x, cells y);
        None where D does not depend on the place.

    Raises:
        ValueError: If that is more than 0.3 somewhere.
    """
    if reader.sde.noise != "multiplicative":
        return None
    x, y = (line.grid.nodes.numpy() for line in reader.lattice.mesh.lines)
    h = np.diff(x)[:, None], np.diff(y)[None, :]
    level = _on(reader, _inside(x, GAUSS_NODES.numpy()), y, time)  # sides along x
    level = np.einsum("cpnk,p->cnk", level.reshape(len(x) - 1, -1, len(y), 3), GAUSS_WEIGHTS)
    upright = _on(reader, x, _inside(y, GAUSS_NODES.numpy()), time)
    upright = np.einsum("ncpk,p->nck", upright.reshape(len(x), len(y) - 1, -1, 3), GAUSS_WEIGHTS)
    shape = len(x) - 1, len(_SHARES), len(y) - 1, len(_SHARES), 2
    within = reader.divergence(_grid(_inside(x, _SHARES), _inside(y, _SHARES)), time)
    mean = np.einsum("ipjqk,p,q->ijk", within.reshape(shape), _WEIGHTS, _WEIGHTS)
    d = 0.25 * (level[:, :-1] + level[:, 1:] + upright[:-1] + upright[1:])
    around = [
        np.diff(upright[..., i], axis=0) / h[0] + np.diff(level[..., i + 1], axis=1) / h[1]
        for i in (0, 1)
    ]
    first, second = (side - mean[..., i] for i, side in enumerate(around))
    determinant = d[..., 0] * d[..., 2] - d[..., 1] ** 2
    missed = (
        np.abs(d[..., 2] * first - d[..., 1] * second) / determinant * h[0],
        np.abs(d[..., 0] * second - d[..., 1] * first) / determinant * h[1],
    )
    worst = np.maximum(*missed)
    if not worst.max() <= _JUMP:
        i, j = np.unravel_index(int(worst.argmax()), worst.shape)
        raise ValueError(
            f"D = G Gᵀ/2 changes between ({x[i]:g}, {y[j]:g}) and ({x[i + 1]:g}, {y[j + 1]:g}) by "
            "what its derivative, ∇·D, does not tell: G jumps there, or within less than a cell. "
            "Make it smooth over a few cells, or take more of them."
        )
    return missed


def _on(reader: ChannelReader, x: Array, y: Array, time: float) -> Array:
    """Return D_xx, D_xy and D_yy at all pairs, shape (len(x), len(y), 3)."""
    return reader.matrices(_grid(x, y), time).reshape(len(x), len(y), 3)


def _inside(nodes: Array, shares: Array) -> Array:
    """Return places in every cell, shape (cells · shares,)."""
    return np.asarray((nodes[:-1, None] + np.diff(nodes)[:, None] * shares).ravel())


def _grid(x: Array, y: Array) -> Array:
    """Return all pairs, shape (len(x) · len(y), 2)."""
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
