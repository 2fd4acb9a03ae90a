"""Advice on particles, followed."""

import torch

import sdegen as sg
from tests.cures.common import F64, T, near, simulate

DISCS = sg.HarmonicRepulsion(4.0)
PAIRS = sg.PairForces(DISCS, box=5.0)
# two rows of three, three quarters apart
X = 0.75 * torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0)).to(F64)[None]
LINE = torch.tensor([[0.25, 4.75]], dtype=F64)
SHORT = T[:3] / 10


def _run(pairs, x=X, **options):
    return simulate(sg.Langevin(pairs), x, SHORT, **options)


def _on_a_line():
    near(PAIRS.force(LINE[..., None]).flatten(), [2.0, -2.0])


FOLLOWED = {
    "a pair potential that is hidden in part": (
        "If a part of U.r. is hidden from autograd",
        lambda: sg.PairForces(lambda r: r**2 + 9 * r.detach(), cutoff=1.0),
        lambda: sg.PairForces(lambda r: r**2 + 9 * r, cutoff=1.0),
    ),
    "a box without a cutoff": (
        "a box needs a cutoff, beyond which pairs do not interact",
        lambda: sg.PairForces(sg.Yukawa(), box=5.0),
        lambda: _run(sg.PairForces(sg.Yukawa(), box=5.0, cutoff=2.5)),
    ),
    "a box of less than two cutoffs": (
        "box must be at least two cutoffs long",
        lambda: sg.PairForces(DISCS, box=1.8),
        lambda: sg.PairForces(DISCS, box=1.8, cutoff=0.9),
    ),
    "pressure without a box": (
        "the pressure is that of a periodic box, but box is None",
        lambda: sg.PairForces(DISCS).pressure(X, 1.0),
        lambda: sg.PairForces(DISCS, box=5.0).pressure(X, 1.0),
    ),
    "pressure in a trap": (
        "the pressure is that of the pairs in a box that is scaled",
        lambda: sg.PairForces(DISCS, box=5.0, external=sg.Quadratic()).pressure(X, 1.0),
        lambda: sg.PairForces(DISCS, box=5.0).pressure(X, 1.0),
    ),
    "a trap that moves": (
        "external must not depend on time, but is a function of t too",
        lambda: sg.PairForces(DISCS, external=lambda x, t: (x - t) ** 2),
        lambda: _run(
            sg.DrivenPotential(
                lambda t: sg.PairForces(DISCS, external=lambda x: (x - float(t)) ** 2)
            )
        ),
    ),
    "shells beyond the box": (
        "r_max must be at most half of the box",
        lambda: sg.RadialDistribution(5.0, 3.0),
        lambda: sg.RadialDistribution(5.0, 2.5).each(X),
    ),
    "too many waves": (
        "wave vectors of the box, of at most",
        lambda: sg.StructureFactor((5.0, 5.0), 1e4),
        lambda: sg.StructureFactor((5.0, 5.0), 1e1).each(X),
    ),
    "particles that coincide": (
        "the force between particles",
        lambda: _run(PAIRS, 0 * X),
        lambda: _run(PAIRS, X),
    ),
    "a period that is not the box": (
        "the boundary has the period",
        lambda: _run(PAIRS, boundary=sg.Periodic(0.0, 4.0, coordinates="all")),
        lambda: _run(PAIRS, boundary=sg.Periodic(0.0, 5.0, coordinates="all")),
    ),
    "interacting particles on a line": (
        "; on a line, dim is 1: pass x",
        lambda: PAIRS.force(LINE),
        _on_a_line,
    ),
}
