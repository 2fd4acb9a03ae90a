"""Milstein: strong order 1 for diagonal, commuting and other noise, with its limit."""

import itertools
import math

import pytest
import torch

import sdegen as sg
from sdegen.core.commutators import commutes, noise_on_noise, own_slope
from sdegen.core.step_noise import FreshDraws, JoinedDraws, StepNoise

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
FINE = torch.linspace(0, 1, 513, dtype=F64)
STEPS = (8, 16, 32, 64)
X = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1]], dtype=F64)

# dX = A0 X dt + Σ_k A_k X dW_k: no two of the three A_k commute
A0 = torch.tensor([[-0.5, 0.3], [-0.2, -0.4]], dtype=F64)
MIXED = torch.tensor(
    [[[0.5, 0.0], [0.0, -0.3]], [[0.0, -0.6], [0.5, 0.0]], [[0.2, 0.3], [0.0, 0.1]]], dtype=F64
)
# and these do, since they are polynomials of one matrix
ONE = torch.tensor([[0.3, -0.5], [0.4, 0.1]], dtype=F64)
EYE = torch.eye(2, dtype=F64)
COMMUTING = torch.stack([ONE, ONE @ ONE - 0.2 * EYE, 0.4 * EYE])


def linear(A):
    """The equation with these matrices: G_ik = (A_k x)_i."""
    return sg.ItoProcess(
        lambda x: x @ A0.T, lambda x: torch.einsum("kij,bj->bik", A, x), channels=len(A)
    )


class Path:
    """A Brownian path that is drawn once, and walked at any steps."""

    def __init__(self, x, channels, seed=0, nodes=FINE):
        self.channels, self.nodes = channels, nodes
        self.fine = FreshDraws(sg.Noise(x, rng=seed, channels=channels), len(nodes) - 1, keep=True)

    def noise(self, n):
        places = list(range(0, len(self.nodes), (len(self.nodes) - 1) // n))
        lengths = self.nodes.diff().tolist()
        draws = JoinedDraws(lambda: self.fine, lengths, places)
        return StepNoise.of(draws, self.nodes[places], self.channels, sg.Noise(X, rng=0).stream)

    def end(self, sde, solver, x, n):
        nodes = self.nodes[:: (len(self.nodes) - 1) // n]
        with torch.no_grad():
            *_, end = sg.integrate(sde, solver, x, nodes, self.noise(n))
        return end


def order_of(errors, steps=STEPS):
    return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])


def of_errors(path, sde, solver, x, truth):
    gaps = [path.end(sde, solver, x, n) - truth for n in STEPS]
    return [float(gap.square().flatten(1).sum(1).mean().sqrt()) for gap in gaps]


def exponentials(A, path, x):
    """The path's solution by exponentials of each fine step's signature of two levels.

    X' = exp(B h + Σ_k A_k ΔW_k + Σ_{k<l} [A_l, A_k] A_kl) X, B = A0 − ½ Σ_k A_k², which has the
    Lévy areas in another form: Castell and Gaines 1996, Ann. IHP 32, 231.
    """
    noise, h = path.noise(len(FINE) - 1), float(FINE[1])
    drift = A0 - 0.5 * (A @ A).sum(0)
    y = x
    for i in range(len(FINE) - 1):
        w, areas = noise.increment(i), noise.areas(i)
        log = drift * h + torch.einsum("bk,kij->bij", w, A)
        for k, j in itertools.combinations(range(len(A)), 2):
            log = log + areas[:, k, j, None, None] * (A[j] @ A[k] - A[k] @ A[j])
        y = (torch.linalg.matrix_exp(log) @ y.unsqueeze(-1)).squeeze(-1)
    return y


@pytest.mark.parametrize(("A", "together"), [(COMMUTING, True), (MIXED, False)])
def test_strong_order_one_of_channels(A, together):
    sde, x = linear(A), torch.ones(400, 2, dtype=F64)
    assert commutes(sde, X, ZERO) is together
    path = Path(x, len(A))
    if together:  # one exponential of the whole path: its law needs no areas
        w = path.noise(1).increment(0)
        log = A0 - 0.5 * (A @ A).sum(0) + torch.einsum("bk,kij->bij", w, A)
        truth = (torch.linalg.matrix_exp(log) @ x.unsqueeze(-1)).squeeze(-1)
        sde = sg.ItoProcess(lambda x: x @ B0.T, sde.diffusion, channels=len(A))
        log = B0 - 0.5 * (A @ A).sum(0) + torch.einsum("bk,kij->bij", w, A)
        truth = (torch.linalg.matrix_exp(log) @ x.unsqueeze(-1)).squeeze(-1)
    else:
        truth = exponentials(A, path, x)
    errors = of_errors(path, sde, sg.Milstein(), x, truth)
    assert abs(order_of(errors) - 1) < 0.1
    assert errors[-1] < 1.5 / STEPS[-1]
    # without them, or with their sign turned, it is ½
    halves = of_errors(path, sde, sg.EulerMaruyama(), x, truth)
    assert abs(order_of(halves) - 0.5) < 0.12


B0 = -0.4 * EYE + 0.5 * ONE  # commutes with ONE


DIAGONAL = {
    "own": (lambda x: 0.8 * x, lambda x: 0.64 * x),
    "square root": (lambda x: 0.5 * (1 + x * x).sqrt(), lambda x: 0.25 * x),
}


@pytest.mark.parametrize("name", DIAGONAL)
def test_diagonal_noise_is_corrected_by_its_own_slope(name):
    g, expected = DIAGONAL[name]
    sde = sg.ItoProcess(lambda x: 0 * x, g)
    torch.testing.assert_close(own_slope(sde, X, ZERO), expected(X), rtol=1e-12, atol=1e-13)
    noise = sg.StepNoise(sg.Noise(X, rng=0), [0.0, 0.1])
    w = noise.increment(0)
    (after,) = sg.integrate(sde, sg.Milstein(), X, [0.0, 0.1], noise)
    by_hand = X + g(X) * w + 0.5 * expected(X) * (w.square() - 0.1)
    torch.testing.assert_close(after, by_hand, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("word", ["ito", "stratonovich"])
def test_strong_order_one_of_diagonal_noise(word):
    # X = exp((a − σ²/2) t + σ W), of the very path; a = μ, or μ + σ²/2
    mu, sigma, n = 0.5, 0.5, 4000
    sde = sg.ItoProcess(lambda x: mu * x, lambda x: sigma * x, interpretation=word)
    a, s2 = mu + (0.5 * sigma**2 if word == "stratonovich" else 0.0), sigma**2
    x = torch.ones(n, 1, dtype=F64)
    path = Path(x, None, 1)
    truth = torch.exp(a - 0.5 * s2 + sigma * path.noise(1).increment(0))
    errors = of_errors(path, sde, sg.Milstein(), x, truth)
    assert abs(order_of(errors) - 1) < 0.1
    for steps in STEPS:
        # E(X' − X)² of N factors M = 1 + a h + σ ΔW + σ²(ΔW² − h)/2 and their exponentials
        h = 1 / steps
        squares = ((1 + a * h) ** 2 + s2 * h + 0.5 * s2**2 * h**2) ** steps
        product = (math.exp(a * h) * (1 + a * h + s2 * h + 0.5 * s2**2 * h**2)) ** steps
        expected = squares - 2 * product + math.exp(2 * a + s2)
        gaps = (path.end(sde, sg.Milstein(), x, steps) - truth).square()
        error = float(gaps.std()) / math.sqrt(n)
        assert abs(float(gaps.mean()) - expected) < 4.42 * error  # false alarm 1e-5


@pytest.mark.parametrize(
    "g", [lambda x: 0.8 * x.flip(1), lambda x: 0.8 * x[:, :1]], ids=["mixes", "one for all"]
)
def test_diagonal_noise_that_mixes_coordinates_takes_areas(g):
    # as the matrix that it is; its own slope alone would leave order ½
    A = torch.zeros(2, 2, 2, dtype=F64)
    A[0, 0] = torch.tensor([0.0, 0.8]) if g(X)[0, 0] == 0.8 * X[0, 1] else torch.tensor([0.8, 0.0])
    A[1, 1] = torch.tensor([0.8, 0.0])
    diagonal, matrix = sg.ItoProcess(lambda x: x @ A0.T, g), linear(A)
    torch.testing.assert_close(noise_on_noise(diagonal, X, ZERO), noise_on_noise(matrix, X, ZERO))
    assert own_slope(diagonal, X, ZERO) is None
    assert not commutes(diagonal, X, ZERO)
    x, times = torch.ones(5, 2, dtype=F64), FINE[::128]
    ends = [
        list(sg.integrate(sde, sg.Milstein(), x, times, sg.Noise(x, rng=0, channels=m)))[-1]
        for sde, m in ((diagonal, None), (matrix, 2))
    ]
    torch.testing.assert_close(*ends)
    assert not torch.allclose(
        ends[0], list(sg.integrate(diagonal, sg.EulerMaruyama(), x, times, sg.Noise(x, rng=0)))[-1]
    )


@pytest.mark.parametrize("method", ["milstein", "srk"])
def test_torchsde_takes_a_g_of_each_coordinate_alone(method):
    solver, times = sg.TorchSDE(method), [0.0, 0.1]
    for g in (lambda x: 0.8 * x.flip(1), lambda x: 0.8 * x[:, :1]):
        with pytest.raises(ValueError, match=r"needs a g_i\(x\) that depends on x_i alone"):
            sg.simulate(sg.ItoProcess(lambda x: -x, g), X, times, solver=solver, rng=0)
    # a start at which no slope is to be seen
    even, at_rest = sg.ItoProcess(lambda x: -x, lambda x: (1 + x.flip(1) ** 2).sqrt()), 0 * X
    with pytest.raises(ValueError, match=r"needs a g_i\(x\) that depends on x_i alone"):
        sg.simulate(even, at_rest, times, solver=solver, rng=0)
    if method == "milstein":  # and there it is ours
        sde, path = sg.ItoProcess(lambda x: -x, lambda x: 0.8 * x), sg.BrownianPath(0, times)
        ends = [
            sg.simulate(sde, X, times, solver=one, brownian=path, rng=0).final
            for one in (solver, sg.Milstein())
        ]
        torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


def test_noise_on_noise_is_the_sum_over_coordinates():
    A, x = MIXED, X
    expected = torch.einsum("lij,kjm,bm->bikl", A, A, x)
    torch.testing.assert_close(noise_on_noise(linear(A), x, ZERO), expected)


def test_a_step_that_is_an_area_is_exact():
    # dX_3 = (X_1 dW_2 − X_2 dW_1)/2 is the area of the whole path, at any steps: Chen's relation
    def G(x):
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        rows = ([one, zero], [zero, one], [-0.5 * x[:, 1], 0.5 * x[:, 0]])
        return torch.stack([torch.stack(row, 1) for row in rows], 1)

    sde, x = sg.ItoProcess(lambda x: 0 * x, G, channels=2), torch.zeros(50, 3, dtype=F64)
    path = sg.BrownianPath(0, FINE[::8])
    whole = path.noise(x, FINE[[0, -1]], channels=2)
    w, area = whole.increment(0), whole.areas(0)[:, 0, 1]
    for n in (1, 4, 64):
        end = sg.simulate(sde, x, [0.0, 1.0], solver=sg.Milstein(n), brownian=path, rng=0).final
        torch.testing.assert_close(end[:, :2], w, rtol=0, atol=1e-12)
        torch.testing.assert_close(end[:, 2], area, rtol=0, atol=1e-12)


def test_areas_are_drawn_only_where_channels_do_not_commute(monkeypatch):
    asked = []
    areas = StepNoise.areas
    monkeypatch.setattr(StepNoise, "areas", lambda self, i: asked.append(i) or areas(self, i))
    for A, expected in ((COMMUTING, []), (MIXED, [0, 1, 2])):
        asked.clear()
        noise = sg.Noise(X, rng=0, channels=3)
        list(sg.integrate(linear(A), sg.Milstein(), X, [0.0, 0.1, 0.2, 0.3], noise))
        assert asked == expected
    # a special place: at rest in 0 there is no noise, and no area; they are drawn from there on
    leaving = sg.ItoProcess(lambda x: torch.ones_like(x), linear(MIXED).diffusion, channels=3)
    asked.clear()
    list(sg.integrate(leaving, sg.Milstein(), 0 * X, [0.0, 0.1, 0.2, 0.3], noise))
    assert asked == [1, 2]


def test_additive_noise_is_that_of_the_update_and_no_noise_is_eulers():
    G = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)
    for sde, m in (
        (sg.ItoProcess(lambda x: -x, G, channels=3), 3),
        (sg.ItoProcess(lambda x: -x, 0.5), None),
        (sg.ItoProcess(lambda x: -x, 0.0), None),
    ):
        noise = [sg.Noise(X, rng=0, channels=m) for _ in range(2)]
        pairs = zip((sg.Milstein(), sg.EulerMaruyama()), noise, strict=True)
        ends = [list(sg.integrate(sde, s, X, FINE[::64], z))[-1] for s, z in pairs]
        torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


def test_a_given_derivative_is_used_and_checked():
    words = {"diffusion_derivative": lambda x: 2 * x}
    hidden = sg.ItoProcess(lambda x: 0 * x, lambda x: 1 + (x * x).detach(), **words)
    torch.testing.assert_close(own_slope(hidden, X, ZERO), 2 * X * (1 + X * X))
    assert hidden.slope_by(X, ZERO) == "given"
    wrong = sg.ItoProcess(lambda x: -x, lambda x: 1 + x * x, diffusion_derivative=lambda x: x)
    with pytest.raises(ValueError, match="Let diffusion_derivative= return ∂g/∂x"):
        sg.simulate(wrong, X, [0.0, 0.01], solver=sg.Milstein(), rng=0)
    with pytest.raises(ValueError, match="multiplicative, but noise is 'additive'"):
        sg.ItoProcess(lambda x: -x, 1.0, **words)


def test_gradients_flow_through_a_step():
    size = torch.tensor(0.5, dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: -x, lambda x: size * x.flip(1).unsqueeze(-1), channels=1)
    noise = sg.StepNoise(sg.Noise(X, rng=0, channels=1), [0.0, 0.1])
    (end,) = sg.integrate(sde, sg.Milstein(), X, [0.0, 0.1], noise)
    (slope,) = torch.autograd.grad(end.sum(), size)
    w = noise.increment(0)
    # G = s P x: the correction is s² x (ΔW² − h)/2
    expected = (X.flip(1) * w + 0.5 * X * (w.square() - 0.1)).sum() + 0.5 * (
        (2 * 0.5 - 1) * X * (w.square() - 0.1)
    ).sum()
    torch.testing.assert_close(slope, expected)


class _General(sg.SDE):
    """Noise of which no G is known."""

    noise_structure = "general"

    def drift(self, x, t):
        return -x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * noise.normal()

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v


def test_what_it_does_not_solve_is_refused():
    with pytest.raises(ValueError, match="Milstein needs diagonal noise or channels"):
        sg.simulate(_General(), X, [0.0, 0.1], solver=sg.Milstein(), rng=0)
    with pytest.raises(ValueError, match="Milstein takes more of the noise than one normal"):
        sg.ChainDensity(sg.OrnsteinUhlenbeck(), sg.Grid(-3.0, 3.0, 60), sg.Milstein())


HIDDEN = {
    "diagonal": sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.5 * x + (x * x).detach()),
    "mixed": sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.5 * x.flip(1) + (x * x).detach()),
    "channels": sg.ItoProcess(
        lambda x: -x, lambda x: (x + (x * x).detach())[..., None], channels=1
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_slope_of_which_autograd_sees_a_part_is_refused(name):
    sde = HIDDEN[name]
    with pytest.raises(ValueError, match=r"the derivative of .* is not that of the function"):
        sg.simulate(sde, X, [0.0, 0.01], solver=sg.Milstein(), rng=0)
    sg.simulate(sde, X, [0.0, 0.01], solver=sg.EulerMaruyama(), rng=0)  # which needs none


def test_a_function_that_autograd_does_not_see_is_differentiated_by_differences():
    x, times = X.clone(), [0.0, 0.1]
    for m, g in ((None, lambda x: 1 + x * x), (1, lambda x: (x * x.flip(1))[..., None])):
        seen = sg.ItoProcess(lambda x: -x, g, channels=m)
        unseen = sg.ItoProcess(lambda x: -x, lambda x, g=g: g(x.detach()), channels=m)
        ends = [
            sg.simulate(sde, x, times, solver=sg.Milstein(), rng=0).final for sde in (seen, unseen)
        ]
        torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)
