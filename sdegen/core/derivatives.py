"""Derivatives of a user's function: by autograd where it sees them, by differences where not.

An interpretation of multiplicative noise other than Itô's needs

    g ∂g/∂x = ∂D/∂x,    D = g²/2

and a potential its force, −∇U. Autograd gives both, unless the function leaves torch (a table by
`numpy.interp`, `.detach()`, `no_grad`): then it sees nothing, which is not the same as a slope of
zero. And it gives 0 · ∞ = NaN where D has a slope but g has none: √x at x = 0, or the branch of
`torch.where` that is not taken.

So what autograd does not see is found by central differences, one-sided where a neighbour is not
finite. The slope of D is taken, not that of g: for g = √x it is ½ everywhere. Steps are 2⁻¹⁴ |x|
(float64; 2⁻⁸ in single precision), at least 2⁻²⁰, with a relative error of about 1e-9.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.shapes import State, Values, as_column

STEP = {torch.float64: (2.0**-14, 2.0**-20), torch.float32: (2.0**-8, 2.0**-14)}
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, spread evenly and never meet
MIXES = (
    "g(x, t) mixes coordinates or trajectories: component i of the diffusion may depend on "
    "component i of x alone, or be one number for each trajectory, shape (batch, 1, …), unless "
    "interpretation='ito'. Add the noise-induced drift yourself."
)

MIXED_DIVERGENCE = (
    "the diagonal g(x, t) of {name} mixes coordinates, and ∇·(g gᵀ) is needed: component i may "
    "depend on component i of x alone, or be one number for each trajectory, shape (batch, 1, …); "
    "or write it as channels, G = torch.diag_embed(g), channels={d}."
)


class MixedNoiseError(ValueError):
    """Component i of a diagonal g depends on another coordinate than its own."""


def noise_induced(diffusion: Values, x: State, *, refusal: str = MIXES) -> State:
    """Return g ∂g/∂x, coordinate by coordinate, x's shape.

    Args:
        diffusion: g of a state, diagonal: g_i depends on x_i alone, or g is one number for each
            trajectory.
        x: States, shape (batch, *event).
        refusal: What to say of a g that mixes coordinates.

    Raises:
        MixedNoiseError: If g mixes coordinates or trajectories, as far as autograd sees it.
    """
    seen = value_and_slope(diffusion, x, refusal=refusal)
    return _or_differences(
        seen and seen[0] * seen[1], lambda: differences(diffusivity(diffusion), x)
    )


def diffusivity(diffusion: Values) -> Values:
    """Return D = g²/2 as a function of states."""

    def half_square(x: State) -> Tensor:
        g = diffusion(x)
        return 0.5 * g * g

    return half_square


def is_seen(function: Values, x: State) -> bool:
    """Return whether autograd gives a finite slope of g²/2, or of a matrix G, at these states.

    Args:
        function: g or G of states.
        x: States, shape (batch, *event).
    """
    with torch.no_grad():
        seen = value_and_slope(function, x)
        if seen is None:
            return False
        value, slope = seen
        return bool((slope if value.ndim > x.ndim else value * slope).isfinite().all())


def slope_of(function: Values, x: State) -> State:
    """Return the slope of a diagonal function, by autograd or else by differences; x's shape.

    Args:
        function: As `differences` takes it.
        x: States, shape (batch, *event).
    """
    with torch.no_grad():
        seen = value_and_slope(function, x)
    return _or_differences(seen and seen[1], lambda: differences(function, x)).detach()


def gradient_of(energy: Values, x: State) -> State:
    """Return ∇U(x), by autograd or else by differences; x's shape.

    Args:
        energy: U of states, shape (batch,).
        x: States, shape (batch, *event).
    """
    seen = value_and_slope(energy, x)
    return _or_differences(
        seen and seen[1], lambda: differences(lambda y: as_column(energy(y), y), x)
    )


def with_slope(function: Values, y: State) -> Tensor:
    """Return the value at y, of which autograd sees a slope: its own, or that of differences.

    Args:
        function: As `differences` takes it.
        y: States that require grad, shape (batch, *event).
    """
    value = _with_graph(function, y)
    if value is not None:
        return value
    with torch.no_grad():
        x = y.detach()
        value, slope = function(x), differences(function, x)
    return value + slope * (y - x)  # y − x is 0, and its derivative 1


def differences(function: Values, x: State) -> State:
    """Return the slope of a diagonal function by differences, x's shape and dtype.

    What else the function depends on, such as a parameter, keeps its gradient.

    Args:
        function: Of states; component i of its value depends on x_i alone, or it is one number for
            each trajectory, shape (batch, 1, …). It is asked in float64 if it can be.
        x: States, shape (batch, *event).
    """
    x = x.detach()
    try:
        wide = x.double()
        value = function(wide)
    except Exception:  # parameters in single precision; what is wrong with x's own raises below
        wide = x
        value = function(wide)
    if not is_per_trajectory(value, wide):
        return _slope(function, wide, value, torch.ones_like(wide)).to(x.dtype)
    each = torch.eye(wide[0].numel(), dtype=wide.dtype, device=wide.device)
    directions = each.reshape(-1, *wide.shape[1:])
    along = [_slope(function, wide, value, one) * one for one in directions]
    return torch.stack(along).sum(0).to(x.dtype)


def in_double(x: State, *functions: Values) -> State:
    """Return states in float64, where all of some functions take them so; else as they are."""
    if x.dtype == torch.float64:
        return x
    try:
        for function in functions:
            function(x.double())
    except Exception:  # parameters in single precision; what is wrong with x's own raises later
        return x
    return x.double()


def _slope(function: Values, x: State, value: Tensor, direction: Tensor) -> Tensor:
    """Return the central difference along a direction of ones; one-sided beside what is lost."""
    relative, least = STEP.get(x.dtype, STEP[torch.float32])
    step = (relative * x.abs()).clamp(min=least) * direction
    ahead, behind = x + step, x - step
    up, down = function(ahead), function(behind)
    central = (up - down) / (ahead - behind)
    forward, backward = (up - value) / (ahead - x), (value - down) / (x - behind)
    one_sided = torch.where(torch.isfinite(forward), forward, backward)
    slope = torch.where(torch.isfinite(central), central, one_sided)
    return torch.where(direction.expand_as(slope) != 0, slope, 0.0)


def _pulled_back(g: Tensor, y: State, weights: Tensor, *, create_graph: bool) -> State | None:
    """Return Σ_i w_i ∂g_i/∂y, shape of y; None where autograd sees no way from y to g."""
    slope: State | None
    (slope,) = torch.autograd.grad(
        g, y, weights, create_graph=create_graph, retain_graph=True, allow_unused=True
    )
    return slope


def value_and_slope(
    function: Values, x: State, *, refusal: str | None = None
) -> tuple[Tensor, State] | None:
    """Return a value and Σ_i ∂value_i/∂x, or None where autograd sees nothing of x in it.

    One pass back: where component i depends on x_i alone, or one number serves all coordinates of
    a trajectory, that is ∂value_j/∂x_j. Both have a graph where gradients are recorded. With a
    `refusal` a value of which that is not so is refused, in these words.
    """
    differentiable = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        y, value = tracked(function, x, differentiable)
        if value is None:
            return None
        slope = _pulled_back(value, y, torch.ones_like(value), create_graph=differentiable)
        if slope is None:
            return None
        if refusal is not None and value.numel() > 1:
            _check_diagonal(value, y, slope, refusal)
    return value, slope


def _or_differences(seen: State | None, by_differences: Callable[[], State]) -> State:
    """Return what autograd saw, and differences where it saw nothing or gave NaN."""
    if seen is None:
        return by_differences()
    seen = seen if torch.is_grad_enabled() else seen.detach()
    finite = torch.isfinite(seen)
    return seen if bool(finite.all()) else torch.where(finite, seen, by_differences())


def tracked(function: Values, x: State, differentiable: bool) -> tuple[State, Tensor | None]:
    """Return states that require grad and the value there, None where autograd sees none of it.

    Args:
        function: Of states.
        x: States.
        differentiable: Whether gradients are to flow on to what x itself came from.
    """
    y = x
    if not (differentiable and x.requires_grad):
        y = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
    return y, _with_graph(function, y)


def _with_graph(function: Values, y: State) -> Tensor | None:
    """Return the value at y with its graph, or None where autograd sees none of it."""
    try:
        value = function(y)
    except RuntimeError:  # NumPy takes no tensor that requires grad; other errors come again
        return None
    return value if value.requires_grad else None


def is_per_trajectory(value: Tensor, x: State) -> bool:
    """Return whether a value is one number for each trajectory of several coordinates."""
    return value.ndim == x.ndim and x[0].numel() > 1 and value[0].numel() == 1


def _check_diagonal(g: Tensor, y: State, slope: State, refusal: str) -> None:
    """Refuse a g_i that depends on an x_j: there Σ_i w_i ∂g_i/∂x_j is not w_j ∂g_j/∂x_j."""
    weights = torch.arange(g.numel(), dtype=torch.float64, device=g.device)
    # multiples of the golden ratio: no two near each other in the state have near weights
    weights = (1 + torch.frac(weights * GOLDEN)).to(g.dtype).view_as(g)
    weighted = _pulled_back(g, y, weights, create_graph=True)  # g's graph is needed again
    assert weighted is not None  # as slope is not
    gap = (weighted - weights * slope).detach().abs().nan_to_num()
    scale = slope.detach().abs().nan_to_num(posinf=0.0)
    if bool((gap > 1e3 * torch.finfo(g.dtype).eps * scale.max()).any()):
        raise MixedNoiseError(refusal)
