"""Channels: m independent Wiener processes, each with a vector of its own.

    dX_i = f_i dt + Σ_k G_ik(X, t) dW_k,        D = ½ G Gᵀ

G has shape (batch or 1, *event, m), and z, one number for each process, (batch, m). The law of X
depends on D alone: G R with a rotation R(x) is the same noise, if it is read as Itô's or by
`"klimontovich"`.

**Interpretations.** Each is the Itô equation with a drift that is added to f:

    "ito"             0
    "stratonovich"    ½ Σ_jk G_jk ∂_j G_ik      the limit of noise with a short memory
    "klimontovich"    ½ Σ_j ∂_j (G Gᵀ)_ij       ∇·D: f = −D∇U/T then leaves e^{−U/T} at rest
    "post_point"      Σ_jk G_jk ∂_j G_ik        G at the end of each step

For diagonal noise, whose g_i depends on x_i alone, the last two are one; for a matrix they differ,
and "post_point" and "stratonovich" depend on G itself, not on D alone.

Derivatives along a direction come from two passes of reverse-mode autograd: forward mode keeps one
level for the whole process, and blocks run on several threads. What autograd does not see, or
where it gives NaN, is found by central differences.

Reference:
    Gardiner 2009, Stochastic Methods, eq. (4.3.43) for "stratonovich"; Klimontovich 1990, Physica
    A 163, 515, for ∇·D; Hütter and Öttinger 1998, J. Chem. Soc. Faraday Trans. 94, 1403.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.derivatives import STEP, tracked
from sdegen.core.shapes import State, Time, Values, as_column

if TYPE_CHECKING:
    from sdegen.core.sde import SDE
    from sdegen.core.update import Number

_COLUMNS = 16  # of G Gᵀ that are differentiated at once
_UNCORRELATED = 1e-5  # of two rows of G: below it, a correlation is rounding
_UNROLLED = 16  # processes whose sum is written out where a step is compiled
_WIDE, _MANY = 12, 2048  # columns from which a product is fast, and rows for which it matters


def times(G: Tensor, z: Tensor) -> State:
    """Return Σ_k G_ik z_k, shape (batch, *event).

    Args:
        G: Shape (batch or 1, *event, m).
        z: Shape (batch, m).
    """
    if torch.compiler.is_compiling() and G.shape[-1] <= _UNROLLED:
        # a sum in one loop over the state; a matrix product would be a call of its own
        total = G[..., 0] * as_column(z[:, 0], G[..., 0])
        for k in range(1, G.shape[-1]):
            total = total + G[..., k] * as_column(z[:, k], G[..., k])
        return total
    flat = G.flatten(1, -2)
    one = len(flat) == 1
    product = z @ flat[0].T if one else torch.matmul(flat, z.unsqueeze(-1)).squeeze(-1)
    return product if G.ndim == 3 else product.reshape(len(z), *G.shape[1:-1])


def add_times(after: State, G: Tensor, z: Tensor, root_dt: Number) -> State:
    """Return after + √|dt| G z, in place where it can be.

    Args:
        after: What `update` returned, shape (batch, *event), a tensor of the step's own.
        G: Shape (batch or 1, *event, m).
        z: Shape (batch, m).
        root_dt: √|dt|, of the kind of the step's dt.
    """
    if not isinstance(root_dt, float) or G.ndim != 3 or torch.compiler.is_compiling():
        return after + root_dt * times(G, z)
    if len(G) == 1:
        return _add_product(after, z, G[0].T, root_dt)
    # one call: a product that is made first costs as much again
    return torch.baddbmm(after.unsqueeze(-1), G, z.unsqueeze(-1), alpha=root_dt).squeeze(-1)


def _add_product(after: State, z: Tensor, M: Tensor, scale: float) -> State:
    """Return after + scale · z M in place, M of shape (m, d).

    On a CPU a product with a small matrix takes several times as long as its numbers: rows are
    taken together, k of them as one of k·d numbers, and k copies of M stand on a diagonal.
    """
    rows, (m, d) = len(z), M.shape
    few = rows < _MANY or not 1 < d <= _WIDE // 2 or m > _WIDE // 2 or z.is_cuda
    if few or not (after.is_contiguous() and z.is_contiguous()):
        return after.addmm_(z, M, alpha=scale)
    k = -(-_WIDE // d)
    tile = M.new_zeros(k, m, k, d)
    tile.diagonal(0, 0, 2).copy_(M.unsqueeze(-1))
    whole = rows // k * k
    after[:whole].view(-1, k * d).addmm_(
        z[:whole].view(-1, k * m), tile.view(k * m, k * d), alpha=scale
    )
    if whole < rows:
        after[whole:].addmm_(z[whole:], M, alpha=scale)
    return after


def transposed_times(G: Tensor, v: State) -> Tensor:
    """Return Σ_i G_ik v_i, shape (batch, m).

    Args:
        G: Shape (batch or 1, *event, m).
        v: Shape (batch, *event).
    """
    flat = G.flatten(1, -2)
    if len(flat) == 1:
        return v.flatten(1) @ flat[0]
    return torch.matmul(v.flatten(1).unsqueeze(1), flat).squeeze(1)


def noise_matrix(sde: SDE, x: State, t: Time) -> Tensor:
    """Return G as a matrix at each state, shape (batch, d, m); m = d if noise is diagonal.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        x: States, shape (batch, *event), of d numbers each.
        t: Time.
    """
    if sde.channels is not None:
        return check_matrix(sde, sde.diffusion(x, t), x).flatten(1, -2).expand(len(x), -1, -1)
    return torch.diag_embed(sde.diffusion(x, t).to(x).expand_as(x).flatten(1))


def covariance_matrix(sde: SDE, x: State, t: Time) -> Tensor:
    """Return G Gᵀ = 2D at each state, shape (batch, d, d), for any structure of noise.

    Args:
        sde: Dynamics.
        x: States, shape (batch, *event), of d numbers each.
        t: Time.
    """
    if sde.noise_structure == "general":
        columns = [sde.covariance_times(x, t, e).flatten(1) for e in units(x)]
        return torch.stack(columns, -1)
    G = noise_matrix(sde, x, t)
    return G @ G.mT


def deviation(sde: SDE, x: State, t: Time) -> Tensor:
    """Return √(G Gᵀ)_ii, the strength of the noise of each coordinate by itself.

    Of diagonal noise, and of one channel, that is g itself, with its sign.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        x: States, shape (batch, *event).
        t: Time.

    Returns:
        Broadcastable to x.
    """
    g = sde.diffusion(x, t)
    if sde.channels is None:
        return g
    # a norm has a gradient where it is 0, a root of a sum has none
    return g[..., 0] if sde.channels == 1 else torch.linalg.vector_norm(g, dim=-1)


def are_correlated(
    sde: SDE, x: State, t: Time, some: Sequence[int], others: Sequence[int]
) -> bool:
    """Return whether the noise of some coordinates is correlated with that of others, anywhere.

    Args:
        sde: Dynamics whose noise is diagonal or has channels.
        x: States, shape (batch, *event).
        t: Time.
        some: Coordinates of the flattened event.
        others: Those with which each is compared, itself left out.
    """
    if sde.channels is None:
        return False
    G = sde.diffusion(x, t).flatten(1, -2)
    mine, theirs = G[:, list(some)], G[:, list(others)]
    sizes = mine.norm(dim=-1)[:, :, None] * theirs.norm(dim=-1)[:, None, :]
    apart = torch.tensor([[i != j for j in others] for i in some], device=G.device)
    return bool((((mine @ theirs.mT).abs() > _UNCORRELATED * sizes) & apart).any())


def check_matrix(sde: SDE, G: object, x: State) -> Tensor:
    """Return G if it has a matrix for each state, or one for all.

    Args:
        sde: Dynamics with channels.
        G: What its diffusion returned at x.
        x: States, shape (batch, *event).

    Raises:
        TypeError: If it is no tensor.
        ValueError: With both shapes.
    """
    name, m = type(sde).__name__, sde.channels
    if not isinstance(G, Tensor):
        raise TypeError(f"diffusion of {name} must return a tensor, but is {type(G).__name__}.")
    event = tuple(x.shape[1:])
    if tuple(G.shape) in ((len(x), *event, m), (1, *event, m)):
        return G
    one = f"; for one matrix of all trajectories return G[None], shape {(1, *event, m)}"
    raise ValueError(
        f"diffusion of {name} must have shape (batch or 1, *event, channels), here "
        f"{(len(x), *event, m)}, as it has channels = {m}, but has shape {tuple(G.shape)}"
        f"{one if tuple(G.shape) == (*event, m) else ''}."
    )


def units(x: State) -> list[State]:
    """Return the directions of the coordinates, each of shape (batch, *event)."""
    eye = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)
    return [e.reshape(x.shape[1:]).expand_as(x) for e in eye]


def directional(function: Values, x: State, v: State) -> tuple[Tensor, Tensor]:
    """Return f(x) and its derivative along v, Σ_j v_j ∂f/∂x_j, both of the value's shape.

    Args:
        function: Of states (batch, *event), one value of any shape for each.
        x: States.
        v: Directions, like x.
    """
    value, (slope,) = directionals(function, x, lambda _: [v])
    return value, slope


def directionals(
    function: Values, x: State, directions: Callable[[Tensor], Sequence[State]]
) -> tuple[Tensor, list[Tensor]]:
    """Return f(x) and its derivatives along several directions; see `directional`.

    Jᵀu is linear in u, so that its derivative along u is J v. All directions share one graph of f
    and of Jᵀu. Gradients flow where they are recorded.

    Args:
        function: Of states (batch, *event), one value of any shape for each.
        x: States.
        directions: Those, from f(x).
    """
    recorded = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        y, value = tracked(function, x, recorded)
        pulled = None
        if value is not None:
            u = torch.zeros_like(value, requires_grad=True)
            (pulled,) = torch.autograd.grad(
                value, y, u, create_graph=True, retain_graph=True, allow_unused=True
            )
        if value is None or pulled is None:
            with torch.set_grad_enabled(recorded):
                value = function(x)
                return value, [_difference(function, x, v) for v in directions(value)]
        at = value if recorded else value.detach()
        vs = directions(at)
        slopes = [_along(pulled, u, v, recorded) for v in vs]
    with torch.set_grad_enabled(recorded):
        pairs = zip(vs, slopes, strict=True)
        return at, [_or_difference(function, x, v, slope) for v, slope in pairs]


def _along(pulled: Tensor, u: Tensor, v: Tensor, recorded: bool) -> Tensor:
    """Return the derivative of Jᵀu along u, which is J v, by one pass back."""
    if not pulled.requires_grad:  # a function of steps, whose slope is 0 everywhere
        return torch.zeros_like(u)
    (slope,) = torch.autograd.grad(
        pulled,
        u,
        v.expand_as(pulled),
        create_graph=recorded,
        retain_graph=True,
        allow_unused=True,
    )
    return torch.zeros_like(u) if slope is None else slope


def _or_difference(function: Values, x: State, v: State, slope: Tensor) -> Tensor:
    """Return a derivative, and the central difference where autograd gave NaN."""
    finite = slope.isfinite()
    return slope if bool(finite.all()) else torch.where(finite, slope, _difference(function, x, v))


def _difference(function: Values, x: State, v: State) -> Tensor:
    """Return the central difference along v, in float64 where the function takes it."""
    x, v = x.detach(), v.detach()
    wide = x.double()
    try:
        function(wide)
    except Exception:  # parameters in single precision; what is wrong with x's own raises below
        wide = x
    relative, least = STEP.get(wide.dtype, STEP[torch.float32])
    size = v.flatten(1).to(wide).norm(dim=1)
    step = (relative * wide.flatten(1).norm(dim=1)).clamp(min=least)
    share = torch.where(size > 0, step / size, 0.0)
    way = as_column(share, wide) * v.to(wide)
    up, down = function(wide + way), function(wide - way)
    scale = as_column(torch.where(share > 0, share, 1.0), up)
    slope = (up - down) / (2 * scale)
    if not bool(slope.isfinite().all()):  # beside the end of its space: from one side
        value = function(wide)
        one_sided = torch.where(up.isfinite(), up - value, value - down) / scale
        slope = torch.where(slope.isfinite(), slope, one_sided)
    return torch.where(as_column(share, slope) > 0, slope, 0.0).to(x.dtype)


def interpretation_drift(diffusion: Values, x: State, interpretation: str) -> State:
    """Return the drift that an interpretation adds to that of the Itô equation; shape of x.

    Args:
        diffusion: G of states, shape (batch or 1, *event, m).
        x: States, shape (batch, *event).
        interpretation: "stratonovich", "klimontovich" or "post_point", as on this page.
    """
    if interpretation == "klimontovich":
        return 0.5 * divergence(diffusion, x)
    factor = 0.5 if interpretation == "stratonovich" else 1.0

    def columns(G: Tensor) -> list[State]:
        return [column.expand_as(x) for column in G.unbind(-1)]

    _, slopes = directionals(lambda y: diffusion(y).expand(len(y), *y.shape[1:], -1), x, columns)
    own = [slope[..., k] for k, slope in enumerate(slopes)]
    return factor * torch.stack(own).sum(0)


def divergence(diffusion: Values, x: State) -> State:
    """Return ∇·(G Gᵀ), Σ_j ∂(G Gᵀ)_ij/∂x_j, shape of x.

    The slopes are those of G Gᵀ, which has one where G = √x has none.

    Args:
        diffusion: G of states, shape (batch or 1, *event, m).
        x: States, shape (batch, *event).
    """
    every, total = units(x), torch.zeros_like(x).flatten(1)
    for first in range(0, len(every), _COLUMNS):
        part = slice(first, first + _COLUMNS)

        def columns(y: State, part: slice = part) -> Tensor:
            G = diffusion(y).flatten(1, -2)
            return (G @ G[:, part].mT).expand(len(y), -1, -1)

        def own(_: Tensor, part: slice = part) -> Sequence[State]:
            return every[part]

        _, slopes = directionals(columns, x, own)
        total = total + sum(slope[..., k] for k, slope in enumerate(slopes))
    return total.reshape(x.shape)
