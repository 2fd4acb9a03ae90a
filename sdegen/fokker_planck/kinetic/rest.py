"""What rests: the Boltzmann density where it solves the discrete equation, or a null vector."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import splu

from sdegen.fokker_planck.kinetic.level import Kinetic, KineticLevel

_ROUNDING = 1e-11  # of what each equation adds up: a residual that is rounding
_ITERATIONS = 5
_SHIFT = 1e-7  # of the slower of friction and crossing: beside the eigenvalue 0
_ALIKE = 1e-9  # of the largest coefficient: two iterations in a row


def at_rest(level: KineticLevel) -> Kinetic:
    """Return the density at rest.

    Without a tilt e^{−(U + m v²/2)/T} is put into the equation, and is the answer if it solves it;
    it is the only one where friction is > 0. Else iterations of the inverse start from it.
    """
    operator = level.operator()
    h = operator.equilibrium
    each = abs(operator.matrix) @ abs(h)
    if float(abs(operator.matrix @ h).max()) <= _ROUNDING * float(each.max()):
        return Kinetic(operator, h)
    factors = splu((operator.matrix - _SHIFT * operator.slowest * operator.mass).tocsc())
    for _ in range(_ITERATIONS):
        last, h = h, factors.solve(operator.mass @ h)
        h /= operator.total(h)
        if float(np.abs(h - last).max()) <= _ALIKE * float(np.abs(h).max()):
            break
    return Kinetic(operator, h)
