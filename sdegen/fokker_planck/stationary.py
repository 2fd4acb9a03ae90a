"""The stationary density, solved for and never waited for.

**Between walls without flux** nothing flows: log p_{i+1} = log p_i + w_i, a cumulative sum. The
cost is O(N), and a barrier of any height costs no digits.

**On a ring** a constant current J flows, J = a_i (p_i − e^{−w_i} p_{i+1}). Once around,

    p_i = J S_i / (1 − e^{−W}),    S_i = Σ_{k=0}^{N−1} e^{−(w_i + … + w_{i+k−1})} / a_{i+k},    W
    = Σ w

S_i is a sum of positive terms, hence has all its digits; it is two cumulative sums.

Reference:
    Risken 1989, The Fokker–Planck Equation, eqs. (5.12) and (11.28); Stratonovich 1967 for the
    ring.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sdegen.fokker_planck.checks import check_confined, check_poles
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.ends import Ends
from sdegen.fokker_planck.fluxes import Fluxes, Landscape, find_poles, fluxes
from sdegen.fokker_planck.grid import Grid

__all__ = ["density", "on_a_line", "on_a_ring"]

_GENTLE = 0.69  # gain of log p over a cell below which a density at most doubles


def density(land: Landscape, ends: Ends, grid: Grid, open_ends: tuple[bool, bool]) -> Density:
    """The stationary density in a landscape, of mass 1.

    Args:
        land: The landscape.
        ends: Its walls, none of which absorbs.
        grid: Its grid.
        open_ends: Which ends only end the grid.

    Raises:
        NotNormalizableError: If it grows towards an end.
        ValueError: If it has no nodal value at a wall, or leans on one that only ends the grid.
    """
    if ends.ring:
        log_p = on_a_ring(fluxes(land))
    else:
        log_p = on_a_line(land.w)
        if ends.exponents != (None, None):
            check_poles(find_poles(land.coefficients, grid.nodes), grid)
        check_confined(log_p.detach(), grid, open_ends)
    p = ends.filled(log_p.exp())
    if grid.smooth and float(land.w.detach().abs().max()) < _GENTLE:
        return Density(grid.nodes, p / (grid.weights @ p))  # no slope is limited
    return Density(grid.nodes, p).normalized()


def on_a_line(w: Tensor) -> Float[Tensor, "... nodes"]:
    """log p from the gains w of the cells, up to a constant, its largest value 0."""
    log_p = torch.nn.functional.pad(w.cumsum(-1), (1, 0))
    return log_p - log_p.detach().amax(-1, keepdim=True)


def on_a_ring(flux: Fluxes) -> Float[Tensor, "... nodes"]:
    """log p up to a constant, its largest value 0, both ends included."""
    phi = torch.nn.functional.pad(flux.w.cumsum(-1), (1, 0))
    total = phi[..., -1:]
    term = -phi[..., :-1] - flux.a.log()
    ahead = torch.logcumsumexp(term.flip(-1), -1).flip(-1)  # Σ_{j ≥ i}
    before = torch.logcumsumexp(term, -1)[..., :-1] - total  # Σ_{j < i}, one turn later
    log_s = phi[..., :-1] + torch.cat(
        [ahead[..., :1], torch.logaddexp(ahead[..., 1:], before)], -1
    )
    log_s = torch.cat([log_s, log_s[..., :1]], -1)
    return log_s - log_s.detach().amax(-1, keepdim=True)
