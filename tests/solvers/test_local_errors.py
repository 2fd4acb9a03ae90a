"""One step on nonlinear dynamics: its averages are those of the generator, to the order declared.

E f(X_h) = f + h Lf + ½ h² L²f + O(h³), L = ∂_t + Σ f_i ∂_i + ½ Σ (G Gᵀ)_ij ∂_i ∂_j, against the
average over all draws of one step of the solver itself: a method of weak order p is off by
O(h^{p+1}). Nothing is sampled, and second derivatives of drift and noise are there, which linear
dynamics have not.
"""

import numpy as np
import pytest
import torch
from exact import slope
from torch.func import jacrev, vmap

import sdegen as sg
from sdegen.core.noise import Given

F64 = torch.float64
# as in `exact.py`, of degree 7: nodes at which ⌊4 z⌋ turns from odd to even
_NODES = {0.0: 7 / 18, 1.0: 1 / 4, 2.0: 1 / 20, 3.0: 1 / 180}
_SIGNED = {sign * z: w for z, w in _NODES.items() for sign in ((1, -1) if z else (1,))}


def normals(draws):
    """All z and their weights, on either side of each node."""
    one = [(z + side, w / 2) for z, w in _SIGNED.items() for side in (1e-13, -1e-13)]
    z, w = (np.array(v) for v in zip(*one, strict=True))
    grid = np.stack(np.meshgrid(*[z] * draws)).reshape(draws, -1)
    weight = np.stack(np.meshgrid(*[w] * draws)).reshape(draws, -1).prod(0)
    return torch.tensor(grid.T.copy()), torch.tensor(weight)


def f(x, t):
    return torch.stack([x[:, 1] - torch.sin(x[:, 0]) * (1 + t), -x[:, 1] + 0.5 * x[:, 0] ** 2], 1)


def G(x, t):
    a, b = x.unbind(1)
    first = torch.stack([0.6 + 0.3 * torch.sin(b), 0.4 * a * (1 + t)], 1)
    second = torch.stack([0.3 * b, 0.5 * torch.cos(a)], 1)
    third = torch.stack([0.4 * a * b, 0.3 + 0.2 * a**2], 1)
    return torch.stack([first, second, third], -1)


def separate(x, t):
    return 0.5 + 0.3 * torch.sin(x) * (1 + t)


def mixed(x, t):
    return 0.5 + 0.3 * torch.sin(x + 0.7 * x.flip(1)) * (1 + t)


def observable(x):
    a, b = x.unbind()
    return torch.stack([a**2 * b + torch.sin(a), a * b, b**3, a**2, b])


CASES = {
    "channels": (G, 3),
    "one channel": (lambda x, t: G(x, t)[..., 2:], 1),
    "diagonal": (separate, None),
    "diagonal that mixes": (mixed, None),
}
SOLVERS = [sg.EulerMaruyama(), sg.DRI1(), sg.SKROCK(stages=4), sg.ImplicitEuler()]


def generator(u, noise):
    """L u of a function u(x, t) of one state."""

    def Lu(x, t):
        g = noise(x[None], t)[0]
        g = torch.diag(g) if g.ndim == 1 else g
        second = 0.5 * (g @ g.T * jacrev(jacrev(u))(x, t)).sum((1, 2))
        return jacrev(u, 1)(x, t) + jacrev(u)(x, t) @ f(x[None], t)[0] + second

    return Lu


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_off_by_one_order_more_than_the_method(name, solver):
    noise, channels = CASES[name]
    sde = sg.ItoProcess(f, noise, channels=channels, linear_part=[[0.8, -1.0], [0.0, 1.0]])
    z, weight = normals(channels or 2)
    x = torch.tensor([0.7, -0.4], dtype=F64)
    t = torch.tensor(0.3, dtype=F64)

    def u(x, t):
        return observable(x) + 0 * t

    Lu = generator(u, noise)
    value, first, second = u(x, t), Lu(x, t), generator(Lu, noise)(x, t)
    steps, errors = (0.01, 0.005, 0.0025), []
    for h in steps:
        nodes = torch.stack([t, t + h])
        rows = x.expand(len(z), 2).contiguous()
        with torch.no_grad():
            after, _ = solver.step(sde, rows, 0, Given(z), solver.begin(sde, nodes))
            mean = weight @ vmap(observable)(after)
        errors.append(float((mean - (value + h * first + 0.5 * h * h * second)).norm()))
    weak = solver.orders.channels[0]
    assert slope(steps, errors) == pytest.approx(weak + 1, abs=0.15)
