"""Kramers' double well by a Galerkin method of Hermite functions in both coordinates.

    p_t = −v p_x + U' p_v + γ ∂_v(v p + T p_v),    U = x⁴/4 − x²/2,    m = 1

With p = √(e^{−U/T} M) b the operator is √T (a† A† − a A) − γ a†a. There a is the ladder operator
of the velocity, and A = ∂_x + F/(2T) acts on the position, with a force that is a polynomial:
Hermite functions of x have exact elements by ladder operators too. No grid, and no quadrature.

Reference:
    Risken 1989, The Fokker–Planck Equation, sections 10.2 and 10.3.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigs

RATES = {0.2: 5.156393e-3, 1.0: 4.844442e-3, 5.0: 1.445387e-3, 50.0: 1.488519e-4}
TEMPERATURE = 1 / 16  # a barrier of ΔU = 1/4 is 4 T


def rates(friction, count=3, *, temperature=TEMPERATURE, positions=90, velocities=90, scale=0.35):
    """Return the slowest rates, that at rest first.

    Args:
        friction: γ.
        count: How many.
        temperature: T.
        positions: Hermite functions of x.
        velocities: Hermite functions of v.
        scale: Width of those of x.
    """
    size = positions + 6  # products of three are exact in the block that is kept
    a = _ladder(size)
    x, slope = scale * (a + a.T) / 2**0.5, (a - a.T) / (2**0.5 * scale)
    force = x - x @ x @ x
    down = (slope + force / (2 * temperature))[:positions, :positions]
    step = _ladder(velocities)
    streaming = sparse.kron(step.T, down.T) - sparse.kron(step, down)
    decay = sparse.kron(
        sparse.diags_array(np.arange(float(velocities))), sparse.eye_array(positions)
    )
    operator = (temperature**0.5 * streaming - friction * decay).tocsc()
    start = np.random.default_rng(1).standard_normal(positions * velocities)
    found = eigs(operator, k=count, sigma=1e-6, v0=start, return_eigenvectors=False)
    return np.sort(-found.real)


def _ladder(count):
    """Return a, of a ψ_n = √n ψ_{n−1}."""
    return sparse.diags_array(np.sqrt(np.arange(1, count)), offsets=1).tocsr()
