"""Reversal of multiplicative noise and of channels: the family of η shares the marginals.

A linear process Y of three noises is bent, X = T(Y): its G(x), drift and score are exact.
"""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
B = torch.tensor([[0.7, 0.1, 0.3], [-0.5, 0.6, 0.2]], dtype=F64)
COVARIANCE = B @ B.T
START = torch.tensor([1.0, -0.5], dtype=F64)
EYE = torch.eye(2, dtype=F64)
T = torch.tensor(0.6, dtype=F64)
X = torch.tensor([[0.3, -0.6], [-0.4, 0.4], [0.9, 1.1], [0.0, 0.2]], dtype=F64)


def moments(t):
    """Mean and covariance of Y from a point: C = S − e^{−At} S e^{−Aᵀt}, with Lyapunov's S."""
    flow = torch.matrix_exp(-A * t)
    rate = torch.kron(A, EYE) + torch.kron(EYE, A)
    rest = torch.linalg.solve(rate, COVARIANCE.reshape(4)).reshape(2, 2)
    return flow @ START, rest - flow @ rest @ flow.mT


def bent(y):
    return torch.stack([y[:, 0].sinh(), y[:, 1] + 0.5 * y[:, 0] ** 2], 1)


def straight(x):
    first = x[:, 0].asinh()
    return torch.stack([first, x[:, 1] - 0.5 * first**2], 1)


def matrix(x):
    """J B, with the Jacobian [[cosh y₀, 0], [y₀, 1]] of the bend."""
    first = straight(x)[:, :1]
    return torch.stack([first.cosh() * B[0], first * B[0] + B[1]], 1)


def drift(x):
    """J (−A y) + ½ C_jk ∂_j ∂_k T, by Itô's formula."""
    y = straight(x)
    f, bend = -y @ A.T, 0.5 * COVARIANCE[0, 0]
    cosh, sinh = y[:, 0].cosh(), y[:, 0].sinh()
    return torch.stack([cosh * f[:, 0] + bend * sinh, y[:, 0] * f[:, 0] + f[:, 1] + bend], 1)


def log_density(x, t):
    y = straight(x)
    mean, covariance = moments(t)
    square = ((y - mean) @ torch.linalg.inv(covariance) * (y - mean)).sum(1)
    return -0.5 * square - 0.5 * torch.logdet(covariance) - y[:, 0].cosh().log()


def score(x, t):
    """J⁻ᵀ (−C⁻¹ (y − m) − ∇ log cosh y₀)."""
    y = straight(x)
    mean, covariance = moments(t.reshape(-1)[0])  # all at one time
    first, second = (-(y - mean) @ torch.linalg.inv(covariance)).unbind(1)
    return torch.stack([(first - y[:, 0].tanh() - y[:, 0] * second) / y[:, 0].cosh(), second], 1)


BENT = sg.ItoProcess(drift, matrix, channels=3)


def test_the_score_is_that_of_the_density():
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_density(x, T).sum(), x)
    torch.testing.assert_close(score(X, T), slope, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_density_obeys_the_equation_of_its_reversal(eta):
    """∂_t p = −∂_i(b_i p) − ½ ∂_i∂_j(η² C_ij p), pointwise, where b is the reverse drift."""
    reverse = sg.ReverseSDE(BENT, score, eta)

    def density(x, t):
        return log_density(x, t).exp()

    def covariance(x):
        G = eta * matrix(x)
        return G @ G.mT

    def current(x):
        """b p + ½ ∂_j(η² C_ij p), by a Jacobian of all of it."""
        x = x[None]
        spread = torch.autograd.functional.jacobian(
            lambda y: (covariance(y[None]) * density(y[None], T))[0], x[0], create_graph=True
        )
        diffused = 0.5 * torch.einsum("ijj->i", spread)
        return reverse.drift(x, T)[0] * density(x, T) + diffused

    t = T.clone().requires_grad_()
    for x in X:
        (rate,) = torch.autograd.grad(density(x[None], t).sum(), t)
        with torch.enable_grad():
            spread = torch.autograd.functional.jacobian(current, x)
        assert float(rate) == pytest.approx(-float(spread.trace()), rel=1e-9)
        assert abs(float(rate)) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_reverse_runs_end_in_the_law_of_the_data(eta):
    """From t = 0.8 to 0.2: mean and covariance of Y within 4.4 standard errors."""
    n, generator = 30_000, torch.Generator().manual_seed(0)
    mean, covariance = moments(torch.tensor(0.8, dtype=F64))
    z = torch.randn(n, 2, dtype=F64, generator=generator)
    x = bent(mean + z @ torch.linalg.cholesky(covariance).T)
    reverse, times = sg.ReverseSDE(BENT, score, eta), [0.8, 0.2]
    solver = sg.Heun(16) if eta == 0 else sg.DRI1(16)
    y = straight(sg.simulate(reverse, x, times, rng=1, solver=solver).final)
    check_law(y, *moments(torch.tensor(0.2, dtype=F64)))


def check_law(y, mean, covariance):
    """States against a normal law: moments within 4.4 standard errors, marginals by Kolmogorov."""
    n, variances = len(y), covariance.diag()
    assert bool(((y.mean(0) - mean).abs() < 4.4 * (variances / n).sqrt()).all())
    error = ((torch.outer(variances, variances) + covariance.square()) / n).sqrt()
    assert bool(((torch.cov(y.T) - covariance).abs() < 4.4 * error).all())
    uniform = torch.special.ndtr((y - mean) / variances.sqrt()).sort(0).values
    place = torch.arange(1, n + 1, dtype=F64)[:, None] / n
    assert float((uniform - place).abs().max()) < 2.6 / math.sqrt(n)  # by chance 3e-6


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_linear_process_of_three_noises_runs_back_to_its_law(eta):
    """Of a linear score the reversal is linear: dC/dt = M C + C Mᵀ − η² B Bᵀ is that forwards."""
    forward = sg.ItoProcess(lambda x: -x @ A.T, B, channels=3)
    mean, covariance = moments(T)

    def gaussian(x, t):
        return -torch.linalg.solve(covariance, (x - mean).T).T

    reverse = sg.ReverseSDE(forward, gaussian, eta)
    assert (reverse.noise, reverse.channels) == (("additive", 3) if eta else ("none", None))
    at = torch.cat([torch.zeros(1, 2, dtype=F64), EYE])
    f = reverse.drift(at, T)
    M, c = (f[1:] - f[0]).T, f[0]
    G = reverse.diffusion(at, T)[0] if eta else 0 * B
    torch.testing.assert_close(G, eta * B)
    forwards = -A @ covariance - covariance @ A.T + COVARIANCE
    torch.testing.assert_close(M @ covariance + covariance @ M.T - G @ G.T, forwards)
    torch.testing.assert_close(M @ mean + c, -A @ mean)


def geometric(x, t):
    """Score of geometric Brownian motion: log X ~ N((μ − σ²/2) t, σ² (t + 0.2))."""
    t = t.reshape(-1, 1)
    gap = x.log() - (0.3 - 0.5 * 0.4**2) * t
    return -(1 + gap / (0.4**2 * (t + 0.2))) / x


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("word", ["ito", "stratonovich"])
def test_diagonal_multiplicative_noise_stays_diagonal(eta, word):
    """f − ½ (1 + η²) (∂g² + g² score), in closed form; and its Fokker–Planck solution."""
    shift = 0.0 if word == "ito" else 0.5 * 0.4**2
    forward = sg.ItoProcess(lambda x: (0.3 - shift) * x, lambda x: 0.4 * x, interpretation=word)
    reverse = sg.ReverseSDE(forward, geometric, eta)
    assert reverse.channels is None
    x = torch.tensor([[0.5], [1.0], [2.0]], dtype=F64)
    weight = 0.5 * (1 + eta**2)
    expected = 0.3 * x - weight * 0.16 * (2 * x + x**2 * geometric(x, T))
    torch.testing.assert_close(reverse.drift(x, T), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(reverse.diffusion(x, T), 0.4 * eta * x)
    reversed_by = "none" if eta == 0 else "multiplicative"
    assert (reverse.noise, reverse.slope_by(x, T)) == (reversed_by, "autograd")


def test_the_density_of_a_multiplicative_reversal():
    """Carried back from t = 0.6 to 0.3 on a grid, the law is the forward one, in the mean too."""
    forward = sg.ItoProcess(lambda x: 0.3 * x, lambda x: 0.4 * x)
    grid = sg.Grid(0.1, 9.0, cells=240)

    def law(t):
        def p(x):
            gap, variance = x.log() - (0.3 - 0.08) * t, 0.16 * (t + 0.2)
            return (-0.5 * gap**2 / variance).exp() / (x * math.sqrt(2 * math.pi * variance))

        return p

    reverse = sg.ReverseSDE(forward, geometric)
    answer = sg.FokkerPlanck(reverse, grid).solve(
        sg.Density(grid.nodes, law(0.6)(grid.nodes)), [0.6, 0.3]
    )
    assert float((answer.p[-1] - law(0.3)(answer.x)).abs().max()) < 4e-3


def test_a_g_that_has_no_divergence_is_refused():
    def mixed(x):
        return 1 + x.flip(1) ** 2

    x0 = torch.ones(4, 2, dtype=F64)
    for forward, message in (
        (
            sg.ItoProcess(torch.sin, mixed),
            r"mixes coordinates.*torch\.diag_embed\(g\), channels=2",
        ),
        (
            sg.ItoProcess(torch.sin, lambda x: x.detach() + 0.3 * x),
            r"derivative of g²/2 is not that.*A reversal needs ∇·\(G Gᵀ\)",
        ),
        (
            sg.ItoProcess(torch.sin, lambda x: torch.diag_embed(x).round(), channels=2),
            r"derivative of G is not that.*A reversal needs ∇·\(G Gᵀ\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            sg.simulate(sg.ReverseSDE(forward, lambda x, t: -x), x0, [1.0, 0.5], rng=0)
    channels = sg.ItoProcess(torch.sin, lambda x: torch.diag_embed(mixed(x)), channels=2)
    reverse = sg.ReverseSDE(channels, lambda x, t: -x)
    assert sg.simulate(reverse, x0, [1.0, 0.9], rng=0).final.shape == (4, 2)


def test_the_score_of_a_matrix_noise_has_no_residual():
    """ε = 0 for the exact score of the bent process; not for that of another noise, or law."""
    for x in X.split(1):
        assert float(sg.fp_residual(score, BENT, x, T).abs().max()) < 1e-9
    for other in (
        sg.ItoProcess(drift, lambda x: 1.1 * matrix(x), channels=3),
        sg.ItoProcess(lambda x: drift(x) + 0.1, matrix, channels=3),
    ):
        assert float(sg.fp_residual(score, other, X[:1], T).abs().max()) > 0.05
    constant = sg.ItoProcess(lambda x: -x @ A.T, B, channels=3)

    def gaussian(x, t):
        mean, covariance = moments(t.reshape(-1)[0])
        return -(x - mean) @ torch.linalg.inv(covariance)

    assert float(sg.fp_residual(gaussian, constant, X[:1], T).abs().max()) < 1e-9
    hidden = sg.ItoProcess(drift, lambda x: matrix(x.detach()), channels=3)
    with pytest.raises(ValueError, match="the diffusion changes with x in a way that autograd"):
        sg.fp_residual(score, hidden, X[:1], T)


def test_diagonal_multiplicative_noise_has_no_residual():
    forward = sg.ItoProcess(lambda x: 0.3 * x, lambda x: 0.4 * x)
    x = torch.tensor([[0.5], [1.0], [2.0]], dtype=F64)
    assert float(sg.fp_residual(geometric, forward, x, T).abs().max()) < 1e-9


def wavy(x):
    """A smooth G(x) with a full matrix D, between 0.2 and 2."""
    a, b = x.unbind(-1)
    rows = [1 + 0.3 * a.sin(), 0.5 * b.cos(), 0.4 * (a - b).sin(), 0.8 + 0 * a]
    return torch.stack(rows, -1).reshape(-1, 2, 2)


class WithoutDivergence(sg.ReverseSDE):
    """What the reversal of additive noise would be."""

    def drift(self, x, t):
        weight = 0.5 * (1 + self.eta**2)
        return super().drift(x, t) + weight * self.forward.covariance_divergence(x, t)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the estimated relative error:UserWarning")
def test_a_score_from_the_plane_leads_back_to_the_start():
    """G(x) of which no law is known: forward to t = 0.5 and back to the Gaussian, n = 10⁵."""
    n, times = 100_000, torch.linspace(0, 0.5, 9, dtype=F64)
    forward = sg.ItoProcess(lambda x: -x @ A.T, wavy, channels=2)
    mean = torch.tensor([0.5, -0.3], dtype=F64)
    covariance = torch.tensor([[0.3, 0.1], [0.1, 0.25]], dtype=F64)
    plane = sg.FokkerPlanck2D(forward, (sg.Grid(-5.5, 5.5, 64),) * 2)
    start = plane.gaussian(tuple(mean.tolist()), covariance.tolist())
    score = sg.PlaneScore(plane.solve(start, times), times)
    z = torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    x0 = mean + z @ torch.linalg.cholesky(covariance).T
    ends = [0.0, 0.5]
    x = sg.simulate(forward, x0, ends, rng=1, solver=sg.DRI1(8)).final
    for eta, solver in ((1.0, sg.DRI1(8)), (0.0, sg.Heun(8))):
        reverse = sg.ReverseSDE(forward, score, eta)
        check_law(
            sg.simulate(reverse, x, ends[::-1], rng=2, solver=solver).final, mean, covariance
        )
    flow = WithoutDivergence(forward, score, 0.0)
    lost = sg.simulate(flow, x[:10_000], ends[::-1], solver=sg.Heun(8)).final
    error = (covariance.diag() / 10_000).sqrt()
    assert float(((lost.mean(0) - mean).abs() / error).max()) > 10
