"""The Fokker–Planck operator of the plane for a diffusion matrix, in two forms.

    p_t = −∇·J,    J = D (a p − ∇p) = Σ_e ρ_e e j_e,    j_e = e·a p − e·∇p,    D = Σ_e ρ_e e eᵀ

**Lumped.** Along an edge e of D's decomposition the flux is exponentially fitted, with w = ∫ a·dl
along it,

    F = c (B(−w) p_i − B(w) p_j),    B(z) = z/(e^z − 1)

so that no entry off the diagonal is negative, what leaves a node enters another one, and e^{−U} is
at rest, exactly, where a = −∇U. It is of second order in the cells, of first where |w| is large.

**Compact.** Of high order, positive to its accuracy: `channel_compact`.

What rests without a current: log p gains w along every edge, found by least squares, exact behind
barriers of any height.

The entropy production of the lumped form is Σ F (w − log p_j/p_i) ≥ 0 over edges, ∫ F²/(c p) along
each: of second order, and 0 without a current. Its currents at nodes add j_e over both edges along
each e; near walls, where one is left out, over the nearest ones inside: there they are of first
order.

Reference:
    Scharfetter and Gummel 1969, IEEE Trans. Electron Devices 16, 64, for F; Fehrenbach and
    Mirebeau 2014, J. Math. Imaging Vis. 49, 123, for the offsets.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from sdegen.core.dissipation import dissipation, edge_dissipation
from sdegen.core.sde import SDE
from sdegen.fokker_planck.density2d.channel_compact import CompactChannels
from sdegen.fokker_planck.density2d.channel_reader import ChannelReader
from sdegen.fokker_planck.density2d.density import PlaneForm
from sdegen.fokker_planck.density2d.offset_edges import Edges, Lattice
from sdegen.fokker_planck.density2d.operator import Mesh
from sdegen.fokker_planck.density2d.selling import Integers, decomposed
from sdegen.fokker_planck.discretization.arrays import Array
from sdegen.fokker_planck.discretization.fluxes import bernoullis

FAINT = 1e-12  # of the peak: a density below it, or below ten times what is negative, is not felt
_NOTHING = 1e-9  # of what diffusion carries: a smaller current of the edges is none
_REMEMBERED = 12
_BALANCED = 1e-8  # of log p: what may be left of it along an edge, times the number of nodes


class ChannelFluxes:
    """The fluxes along edges at one time, and the operator made of them.

    Args:
        reader: What reads a and D.
        high: What the operators of high order share.
        time: When.
        d: D at the nodes, shape (nodes, 3).
        edges: The edges.
        gains: w of each.
    """

    def __init__(
        self,
        reader: ChannelReader,
        high: CompactChannels,
        time: float,
        d: Array,
        edges: Edges,
        gains: Array,
    ) -> None:
        self.mesh: Mesh = reader.lattice.mesh
        self._lattice = reader.lattice
        self._reader, self._high, self._time, self._d = reader, high, time, d
        self.edges: Edges = edges
        self.gains: Array = gains
        with np.errstate(over="ignore"):  # where e^w is ∞, 1/∞ is right
            ahead, back = bernoullis(gains)
        self._out, self._back = edges.conductance * ahead, edges.conductance * back

    @property
    def steepest(self) -> float:
        """The largest edge Péclet number |w|."""
        return float(np.abs(self.gains).max())

    @cached_property
    def compact(self) -> sparse.dia_matrix:
        """The operator of high order, on the unknowns."""
        return self._high.operator(self._reader, self._d, self._time)

    @cached_property
    def lumped(self) -> sparse.csr_matrix:
        """The M-matrix, on the unknowns."""
        edges, volumes = self.edges, self.mesh.lumped_volumes
        start = self._lattice.unknowns[edges.start]
        leaves = sparse.coo_matrix((-self._out, (start, start)), shape=(len(volumes),) * 2)
        both = edges.end >= 0
        i, j = start[both], self._lattice.unknowns[edges.end[both]]
        out, back = self._out[both], self._back[both]
        values, rows, columns = (
            np.concatenate(v) for v in ((-back, out, back), (j, j, i), (j, i, j))
        )
        enters = sparse.coo_matrix((values, (rows, columns)), shape=leaves.shape)
        return sparse.csr_matrix(sparse.diags(1 / volumes) @ (leaves + enters))

    def balanced(self) -> Array | None:
        """Return the density without current, its peak 1, if there is one; else None."""
        edges, unknowns = self.edges, self._lattice.unknowns
        if (edges.end < 0).any():
            return None
        i, j, c = unknowns[edges.start], unknowns[edges.end], edges.conductance
        count = len(edges.start)
        ones, each = np.ones(count), np.arange(count)
        gain = sparse.csr_matrix(
            (np.concatenate([-ones, ones]), (np.tile(each, 2), np.concatenate([i, j]))),
            shape=(count, len(self.mesh.lumped_volumes)),
        )
        weighed = gain.T @ sparse.diags(c)
        log_p = np.zeros(gain.shape[1])
        normal = (weighed @ gain)[1:, 1:].tocsc()  # the first is 0
        factors = splu(
            normal,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        for _ in range(2):
            log_p[1:] += factors.solve((weighed @ (self.gains - gain @ log_p))[1:])
        miss = float(np.abs(gain @ log_p - self.gains).max())
        if not miss * max(self._lattice.shape) <= _BALANCED:
            return None
        return np.asarray(np.exp(log_p - log_p.max()))

    def production(self, p: Tensor, form: PlaneForm) -> tuple[float, float]:
        """Return σ of a density at the nodes, and what diffusion by itself produces.

        Args:
            p: Density at the nodes, shape (nx, ny).
            form: "lumped" for the sum over edges, Σ F (w − Δ log p), else ∫ J·D⁻¹J/p where that
                is not 0.
        """
        values, edges = self._at_nodes(p), self.edges
        felt = values > max(FAINT * float(values.max()), -10 * float(values.min()))
        some = (edges.end >= 0) & felt[edges.start] & felt[edges.end]
        first, second = values[edges.start[some]], values[edges.end[some]]
        fall = np.log(first) - np.log(second)
        flux = self._out[some] * first - self._back[some] * second
        force = torch.from_numpy(self.gains[some] + fall)
        total = edge_dissipation(torch.from_numpy(flux), force)
        scale = float(edges.conductance[some] * (first - second) @ fall)
        if form == "lumped" or total <= _NOTHING * scale:
            return total, scale
        nodal = p.detach().numpy()
        felt = nodal > max(FAINT * float(nodal.max()), -10 * float(nodal.min()))
        current = np.moveaxis(self._high.currents(self._reader, self._d, self._time, p), 0, -1)
        d = np.stack([self._lattice.widened(part) for part in self._d.T], -1)
        square = dissipation(*map(torch.from_numpy, (current, d[..., [[0, 1], [1, 2]]])))
        areas = np.outer(*(line.volumes for line in self.mesh.lines))
        return float((areas * square.numpy() / np.where(felt, nodal, np.inf)).sum()), scale

    def currents(self, p: Tensor, form: PlaneForm) -> tuple[Array, float]:
        """Return (J_x, J_y) at the nodes, shape (2, nx, ny), and the most that diffusion carries.

        Args:
            p: Density at the nodes, shape (nx, ny).
            form: "lumped" for those of the edges, else those of high order where they are not 0.
        """
        lattice, values = self._lattice, self._at_nodes(p)
        offsets, weights = decomposed(lattice.in_cells(self._d))
        whole, diffusive = np.zeros((2, *lattice.steps.shape))
        for k in range(3):
            e = offsets[:, k]
            carried = 0.5 * weights[:, k, None] * e * lattice.steps
            for back in (0, 1):
                first, second, gains = self._beside(e, back)
                with np.errstate(over="ignore"):
                    ahead, against = bernoullis(gains)
                p_i, p_j = values[first], values[second]
                whole += carried * (ahead * p_i - against * p_j)[:, None]
                diffusive += carried * (p_i - p_j)[:, None]
        one_way = float(np.abs(diffusive).max())
        if form != "lumped" and float(np.abs(whole).max()) > _NOTHING * one_way:
            return self._high.currents(self._reader, self._d, self._time, p), one_way
        nodal = np.stack([lattice.widened(part) for part in whole.T])
        for axis, line in enumerate(self.mesh.lines):
            for wall, at in zip(line.conditions, (0, -1), strict=True):
                if wall.reflects:
                    nodal[axis].swapaxes(0, axis)[at] = 0.0
        return nodal, one_way

    def _beside(self, e: Integers, back: int) -> tuple[Integers, Integers, Array]:
        """Return the ends of the edge along an offset that starts, or ends, at every node, and w.

        Where it would leave the grid it is moved inside.
        """
        lattice, start = self._lattice, []
        for axis, line in enumerate(self.mesh.lines):
            at, step = lattice.indices[axis] - back * e[:, axis], e[:, axis]
            if not line.ring:
                low, high = np.maximum(-step, 0), line.grid.cells - np.maximum(step, 0)
                at = np.clip(at, low, high)
            start.append(at)
        ends = start, [at + step for at, step in zip(start, e.T, strict=True)]
        first, second = (lattice.number(i, j) for i, j in ends)
        places = [lattice.placed(i.astype(np.float64), j.astype(np.float64)) for i, j in ends]
        ones = np.ones(len(e))
        edges = Edges(first, second, ones, places[0], places[1] - places[0])
        return first, second, self._reader.exponents(edges, self._time)

    def _at_nodes(self, p: Tensor) -> Array:
        """Return values at the nodes of the lattice, a ring's ends once, shape (nodes,)."""
        nx, ny = self._lattice.shape
        return np.asarray(p.detach().numpy()[:nx, :ny]).ravel()


class ChannelGenerator:
    """The fluxes of an SDE with channels at any time, remembered as long as coefficients stay.

    Args:
        sde: The dynamics.
        mesh: Where they are read.
    """

    def __init__(self, sde: SDE, mesh: Mesh) -> None:
        self.sde: SDE = sde
        self.mesh: Mesh = mesh
        self.reader: ChannelReader = ChannelReader(sde, Lattice(mesh))
        self._high = CompactChannels(mesh)
        self._edges: list[tuple[Array, Edges]] = []
        self._made: list[ChannelFluxes] = []
        self._at: dict[float, ChannelFluxes] = {}

    def forget(self) -> None:
        """Forget which times were read: what the SDE holds may have changed."""
        self._at.clear()

    def fluxes(self, time: float) -> ChannelFluxes:
        """Return the fluxes at a time; the same object as long as coefficients are the same."""
        if time not in self._at:
            if len(self._at) >= _REMEMBERED:
                self._at.pop(next(iter(self._at)))
            self._at[time] = self._read(time)
        return self._at[time]

    def _read(self, time: float) -> ChannelFluxes:
        """Return the fluxes at a time that was not read."""
        d = self.reader.diffusivity(time)
        known = next((edges for seen, edges in self._edges if np.array_equal(seen, d)), None)
        if known is None:
            known = self.reader.lattice.edges(d)
            self._edges = [(d, known), *self._edges[: _REMEMBERED - 1]]
        gains = self.reader.exponents(known, time)
        for made in self._made:
            if made.edges is known and np.array_equal(made.gains, gains):
                return made
        fluxes = ChannelFluxes(self.reader, self._high, time, d, known, gains)
        self._made = [fluxes, *self._made[: _REMEMBERED - 1]]
        return fluxes
