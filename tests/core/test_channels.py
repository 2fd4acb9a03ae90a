"""Channels: matrices of noise, their readings, and what a run makes of them."""

import functools

import numpy as np
import pytest
import torch
from sdes import turning

import sdegen as sg
from sdegen.core.channels import add_times, covariance_matrix, directional, noise_matrix
from sdegen.core.noise import Given

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
X = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1], [0.0, 2.0]], dtype=F64)
WORDS = ("ito", "stratonovich", "klimontovich", "post_point")
MATRIX = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)


def turned(x):
    """G R(x), with a rotation of the three noises: the same D."""
    angle = 0.7 * x[:, 0] - x[:, 1]
    c, s = angle.cos(), angle.sin()
    one, zero = torch.ones_like(c), torch.zeros_like(c)
    rows = ([c, -s, zero], [s, c, zero], [zero, zero, one])
    return turning(x) @ torch.stack([torch.stack(row, -1) for row in rows], 1)


def drift_added(G, word, x=X):
    return sg.ItoProcess(lambda x: 0 * x, G, channels=3, interpretation=word).drift(x, ZERO)


def all_derivatives():
    """∂_j G_ik at each state, shape (n, 2, 3, 2), row by row of a Jacobian by reverse mode."""
    rows = [torch.autograd.functional.jacobian(lambda y: turning(y[None])[0], x) for x in X]
    return torch.stack(rows)


def by_jacobian(word):
    """Formulas of each reading with all ∂_j G_ik, from a Jacobian of each state."""
    G = turning(X)
    jacobian = all_derivatives()
    along = torch.einsum("njk,nikj->ni", G, jacobian)
    spread = torch.einsum("nik,njkj->ni", G, jacobian)
    return {
        "ito": torch.zeros_like(X),
        "stratonovich": 0.5 * along,
        "klimontovich": 0.5 * (along + spread),
        "post_point": along,
    }[word]


@pytest.mark.parametrize("word", WORDS)
def test_readings_of_a_matrix(word):
    expected = by_jacobian(word)
    torch.testing.assert_close(drift_added(turning, word), expected, rtol=1e-12, atol=1e-13)
    others = [by_jacobian(other) for other in WORDS if other != word]
    assert min(float((expected - other).abs().max()) for other in others) > 0.03


@pytest.mark.parametrize("word", WORDS)
def test_what_a_rotation_of_the_noises_changes(word):
    """G R(x) has the same D: Itô and Klimontovich do not see it, the other two do."""
    x = X.clone()
    gap = (drift_added(turned, word, x) - drift_added(turning, word, x)).detach().abs().max()
    same = word in ("ito", "klimontovich")
    assert float(gap) < 1e-12 if same else float(gap) > 0.1
    processes = (sg.ItoProcess(torch.sin, G, channels=3) for G in (turning, turned))
    torch.testing.assert_close(*(covariance_matrix(sde, X, ZERO) for sde in processes))


def test_klimontovich_leaves_boltzmann():
    """f = −D∇U and ∇·D: the current f p − ∇·(D p) of p = e^{−U} is 0."""

    def d_of(x):
        G = turning(x)
        return 0.5 * G @ G.mT

    sde = sg.ItoProcess(
        lambda x: -(d_of(x) @ x[..., None])[..., 0],
        turning,
        channels=3,
        interpretation="klimontovich",
    )
    # J_i/p = f_i − ∂_j D_ij + D_ij ∂_j U with U = x²/2
    current = sde.drift(X, ZERO) - 0.5 * sde.covariance_divergence(X, ZERO)
    torch.testing.assert_close(current, -(d_of(X) @ X[..., None])[..., 0])


@pytest.mark.parametrize("word", WORDS)
def test_a_diagonal_matrix_is_diagonal_noise(word):
    """Channels of a diagonal G: the same drift, and the same path with the same seed."""

    def g(x):
        return 1 + 0.3 * x.sin()

    flat = sg.ItoProcess(lambda x: -x, g, interpretation=word)
    matrix = sg.ItoProcess(
        lambda x: -x, lambda x: torch.diag_embed(g(x)), channels=2, interpretation=word
    )
    torch.testing.assert_close(matrix.drift(X, ZERO), flat.drift(X, ZERO))
    torch.testing.assert_close(
        matrix.covariance_divergence(X, ZERO), flat.covariance_divergence(X, ZERO)
    )
    torch.testing.assert_close(noise_matrix(matrix, X, ZERO), noise_matrix(flat, X, ZERO))
    times = torch.linspace(0, 1, 21, dtype=F64)
    paths = [sg.simulate(sde, X, times, rng=0).states for sde in (flat, matrix)]
    torch.testing.assert_close(*paths, rtol=1e-9, atol=1e-12)


def test_derivatives_by_autograd_and_by_differences():
    """One derivative along v, with a G that autograd does not see, and one that it half sees."""
    v = torch.tensor([[1.0, 0.5]], dtype=F64).expand_as(X)
    jacobian = all_derivatives()
    expected = torch.einsum("nikj,nj->nik", jacobian, v)
    for G, tolerance in ((turning, 1e-12), (lambda x: turning(x.detach()), 1e-6)):
        _, slope = directional(G, X, v)
        torch.testing.assert_close(slope, expected, rtol=tolerance, atol=tolerance)
    table = np.linspace(-5, 5, 20001)

    def looked_up(x):
        first = torch.from_numpy(np.interp(x[:, 0].numpy(), table, np.sin(table)))
        return torch.stack([first, 1 + 0 * first], -1)[:, None, :].expand(-1, 2, -1)

    sde = sg.ItoProcess(lambda x: -x, looked_up, channels=2, interpretation="stratonovich")
    added = sde.drift(X, ZERO) + X
    expected = 0.5 * (X[:, :1].sin() * X[:, :1].cos()).expand(-1, 2)
    torch.testing.assert_close(added, expected, rtol=1e-5, atol=1e-6)
    assert sde.slope_by(X, ZERO) == "differences"


def test_gradients_flow_through_a_reading():
    """∂/∂a of the Stratonovich drift of a G(x; a), against differences."""

    def added(a):
        return drift_added(lambda x: turning(a * x), "stratonovich").sum()

    a, h = torch.tensor(1.0, dtype=F64, requires_grad=True), 1e-5
    (slope,) = torch.autograd.grad(added(a), a)
    with torch.no_grad():
        expected = (added(a + h) - added(a - h)) / (2 * h)
    assert float(slope) == pytest.approx(float(expected), rel=1e-6)


def chain_covariance(steps, dt):
    """Of Euler's chain for dX = −X dt + G dW: C' = (1 − dt)² C + dt G Gᵀ."""
    square, c = MATRIX @ MATRIX.T, torch.zeros(2, 2, dtype=F64)
    for _ in range(steps):
        c = (1 - dt) ** 2 * c + dt * square
    return c


@pytest.mark.parametrize("kind", ["matrix", "of t", "of x"])
def test_the_covariance_of_three_noises(kind):
    """Within 4.4 standard errors of the chain's own; two coordinates, correlation −0.4."""
    G = {
        "matrix": MATRIX,
        "of t": lambda t: MATRIX,
        "of x": lambda x: MATRIX.expand(len(x), -1, -1),
    }[kind]
    sde, n = sg.ItoProcess(lambda x: -x, G, channels=3), 40_000
    solver, x0 = sg.EulerMaruyama(substeps=20), torch.zeros(n, 2, dtype=F64)
    x = sg.simulate(sde, x0, [0.0, 2.0], rng=5, solver=solver).final
    expected, c = chain_covariance(20, 0.1), torch.cov(x.T, correction=0)
    spread = torch.outer(expected.diag(), expected.diag()) + expected.square()
    assert bool(((c - expected).abs() < 4.4 * (spread / n).sqrt()).all())
    assert float(expected[0, 1]) < -0.02


def test_threads_and_hands_give_the_same_bits():
    sde = sg.ItoProcess(torch.sin, turning, channels=3, interpretation="stratonovich")
    x0, times = torch.zeros(60_000, 2), [0.0, 0.05, 0.1]
    runs = [sg.simulate(sde, x0, times, rng=1, threads=threads) for threads in (1, 2)]
    assert torch.equal(runs[0].states, runs[1].states)
    few = x0[:100]
    noise = sg.Noise(few, rng=1, channels=3)
    with torch.no_grad():
        *_, by_hand = sg.integrate(sde, sg.EulerMaruyama(), few, times, noise)
    assert torch.equal(by_hand, sg.simulate(sde, few, times, rng=1).final)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (2, 5), (3, 3), (3, 1), (6, 6), (7, 2), (2, 9)])
@pytest.mark.parametrize("rows", [1, 7, 2047, 2048, 2051])
def test_one_matrix_for_many_rows(shape, rows):
    """Rows are taken together where there are many of them, and some may be left over."""
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=F64)
    after, z, G = draw(rows, shape[0]), draw(rows, shape[1]), draw(1, *shape)
    expected = after + 0.3 * torch.einsum("ik,bk->bi", G[0], z)
    torch.testing.assert_close(add_times(after.clone(), G, z, 0.3), expected, rtol=0, atol=1e-13)
    strided = after.T.contiguous().T
    torch.testing.assert_close(add_times(strided, G, z, 0.3), expected, rtol=0, atol=1e-13)
    given = G.requires_grad_(), z.requires_grad_()
    slopes = torch.autograd.grad(add_times(after.clone(), *given, 0.3).sum(), given)
    column = 0.3 * G.detach().sum(1)
    torch.testing.assert_close(slopes[0][0, 0], 0.3 * z.detach().sum(0), rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(slopes[1], column.expand(rows, -1), rtol=1e-12, atol=1e-13)


def test_one_noise_for_all_coordinates():
    """m = 1: dX_i = x_i dW with one W keeps x_1/x_2 for ever."""
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: x[..., None], channels=1)
    x0 = torch.tensor([[1.0, 2.0]], dtype=F64).expand(1000, 2).contiguous()
    x = sg.simulate(sde, x0, [0.0, 0.5], solver=sg.EulerMaruyama(substeps=20), rng=0).final
    torch.testing.assert_close(x[:, 1] / x[:, 0], torch.full((1000,), 2.0, dtype=F64))
    assert float(x.std()) > 0.5


def test_an_event_of_two_axes():
    """State (batch, 2, 3): G has one axis more, and Σ_k G_ik z_k is that of the flat state."""
    G = torch.arange(12.0, dtype=F64).reshape(2, 3, 2)
    sde, x = sg.ItoProcess(lambda x: -x, G, channels=2), torch.zeros(4, 2, 3, dtype=F64)
    z = torch.tensor([[1.0, -2.0]], dtype=F64).expand(4, 2)
    added = sde.add_noise(torch.zeros_like(x), x, ZERO, 0.5, Given(z))
    assert torch.equal(added[0], 0.5 * (G[..., 0] - 2 * G[..., 1]))
    assert sg.simulate(sde, x, [0.0, 0.1], rng=0).final.shape == (4, 2, 3)


def simulated(G, m=3, **options):
    return sg.simulate(sg.ItoProcess(lambda x: -x, G, channels=m, **options), X, [0.0, 0.1], rng=0)


class Half(sg.SDE):
    """Sets channels of an object, and not its structure."""

    def __init__(self):
        self.channels = 2

    def drift(self, x, t):
        return -x

    def diffusion(self, x, t):
        return torch.diag_embed(x)


@pytest.mark.parametrize(
    ("run", "kind", "message"),
    [
        (lambda: simulated(MATRIX, 2), ValueError, r"as channels = 2, but has shape \(2, 3\)"),
        (lambda: simulated(MATRIX[0], 3), ValueError, r"channels = 3, but has shape \(3,\)"),
        (lambda: simulated(MATRIX, 0), ValueError, "channels must be ≥ 1"),
        (lambda: simulated(MATRIX, 3.0), TypeError, "channels must be an int"),
        (lambda: simulated(turning, 2), ValueError, r"here \(4, 2, 2\), as it has channels = 2"),
        (lambda: simulated(lambda x: MATRIX), ValueError, r"return G\[None\], shape \(1, 2, 3\)"),
        (lambda: simulated(lambda x: turning(x)[:3]), ValueError, r"has shape \(3, 2, 3\)"),
        (lambda: simulated(lambda x: 0.3), TypeError, "must return a tensor, but is float"),
        (lambda: simulated(MATRIX / 0), ValueError, "diffusion must be finite"),
        (lambda: simulated(lambda x: turning(x).log()), ValueError, "diffusion is not finite"),
        (
            lambda: simulated(lambda x: (5 * turning(x)).round(), interpretation="stratonovich"),
            ValueError,
            "derivative of G is not that of the function",
        ),
        (
            lambda: simulated(
                lambda x: turning(torch.stack([x[:, 0], x[:, 1].detach()], 1)),
                interpretation="klimontovich",
            ),
            ValueError,
            "derivative of G is not that of the function",
        ),
        (
            lambda: simulated(turning, interpretation="post_point", diffusion_derivative=turning),
            ValueError,
            "diffusion_derivative is ∂g/∂x of diagonal noise, but channels = 3",
        ),
        (lambda: simulated(turning, noise="additive"), ValueError, "says noise = 'additive'"),
        (lambda: simulated(MATRIX, noise="multiplicative"), ValueError, "must be 'additive'"),
        (
            lambda: sg.simulate(Half(), X, [0.0, 0.1], rng=0),
            ValueError,
            "channels = 2 and noise_s",
        ),
        (
            lambda: next(
                sg.integrate(
                    sg.ItoProcess(lambda x: -x, MATRIX, channels=3),
                    sg.EulerMaruyama(),
                    X,
                    [0.0, 0.1],
                    sg.Noise(X, rng=0),
                )
            ),
            ValueError,
            r"draws for channels = None; pass Noise\(x, rng=0, channels=3\)",
        ),
    ],
)
def test_what_is_no_matrix_of_noise_is_refused(run, kind, message, as_user):
    with pytest.raises(kind, match=message):
        run()


def test_methods_of_another_noise_than_the_diffusion_are_refused():
    turns = torch.tensor(
        [[[0.0, 1.0], [-1.0, 0.0]], [[0.5, 0.2], [0.1, 0.4]]], dtype=torch.float64
    )

    class Turned(sg.SDE):
        channels = 2

        def drift(self, x, t):
            return -x

        def diffusion(self, x, t):
            return torch.einsum("kij,bj->bik", turns, x)

        def diffusion_column(self, x, t, k):
            return x @ turns[k].T

    class Twice(Turned):  # whose columns are inherited
        def diffusion(self, x, t):
            return 2 * super().diffusion(x, t)

    class Still(Turned):
        def diffusion_times(self, x, t, z):
            return 0 * x

    class Other(Turned):
        def covariance_times(self, x, t, v, scale=1.0):
            return 2 * super().covariance_times(x, t, v, scale)

    x0 = torch.ones(5, 2, dtype=torch.float64)
    assert sg.simulate(Turned(), x0, [0.0, 0.1], rng=0, solver=sg.DRI1()).final.isfinite().all()
    for kind, name in (
        (Twice, "diffusion_column"), (Still, "diffusion_times"), (Other, "covariance_times"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} of {kind.__name__} is not that of its dif"):
            sg.simulate(kind(), x0, [0.0, 0.1], rng=0)


def test_a_reading_is_that_of_the_diffusion_of_a_subclass():
    class Twice(sg.ItoProcess):
        def diffusion(self, x, t):
            return 2 * super().diffusion(x, t)

    # ½ g g' of g = 2x is 2x
    x, t = torch.tensor([[1.0], [3.0]], dtype=torch.float64), torch.tensor(0.0)
    for g, m in ((lambda x: x, None), (lambda x: x[..., None], 1)):
        sde = Twice(lambda x: 0 * x, g, channels=m, interpretation="stratonovich")
        torch.testing.assert_close(sde.drift(x, t).detach(), 2 * x)


def test_noise_of_other_trajectories_is_refused_where_an_order_would_be_lost():
    def mean(x):
        return x.mean(0, keepdim=True).expand_as(x)

    x0, times = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None], [0.0, 0.01]
    matrix = sg.ItoProcess(lambda x: 0 * x, lambda x: mean(x)[..., None], channels=1)
    read = sg.ItoProcess(
        lambda x: 0 * x, lambda x: mean(x)[..., None], channels=1, interpretation="stratonovich"
    )
    diagonal = sg.ItoProcess(lambda x: 0 * x, mean)
    for sde, solver in (
        (read, sg.EulerMaruyama()), (matrix, sg.Milstein()), (diagonal, sg.Milstein()),
        (matrix, sg.DRI1()), (diagonal, sg.DRI1()), (diagonal, sg.TorchSDE("milstein")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"depends on the others \(a mean field\)"):
            sg.simulate(sde, x0, times, solver=solver, rng=0)
    # the update takes them, and a mean field in the drift harms nobody
    path = sg.BrownianPath(0, times)
    moved = sg.simulate(matrix, x0, times, brownian=path).final - x0
    w = path.noise(x0, times, channels=1).increment(0)
    torch.testing.assert_close(moved, mean(x0) * w)
    pulled = sg.ItoProcess(lambda x: mean(x) - x, lambda x: x)
    sg.simulate(pulled, x0, times, solver=sg.DRI1(), rng=0)


def test_noise_that_depends_on_the_state_later_is_not_additive():
    """g = t x and G = t x vanish at the start, where they are the same for every x."""
    for g, m in ((lambda x, t: t * x, None), (lambda x, t: t * x[..., None], 1)):
        sde = sg.ItoProcess(lambda x: -x, g, channels=m, noise="additive")
        with pytest.raises(ValueError, match=r"another at x \+ 1 than at x, at t = 0\.6"):
            sg.simulate(sde, X, [0.0, 1.0], rng=0)
