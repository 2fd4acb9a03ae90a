"""Linear SDEs: kernels by other ways, rates of time, correlations, and what is refused."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.sde import magnus

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
SPRING = [[0.0, -1.0], [1.0, 2.0]]  # critically damped
JORDAN = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]  # one eigenvalue, one vector
A3 = [[1.0, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.2, 0.0, 1.5]]
B3 = [[0.7, 0.1], [-0.9, 0.5], [0.3, 0.4]]
C3 = [0.5, -0.2, 1.0]


def tensor(values):
    return torch.tensor(np.array(values.tolist(), dtype=float), dtype=F64)


def van_loan(A, B, c, h):
    """Φ, m and Σ of constants in 60 digits."""
    d = len(A)
    with mp.workdps(60):
        block = mp.zeros(2 * d + 1)
        B = mp.matrix(B)
        square = B * B.T
        for i in range(d):
            block[i, 2 * d] = c[i]
            for j in range(d):
                block[i, j], block[d + i, d + j] = -mp.mpf(A[i][j]), mp.mpf(A[j][i])
                block[i, d + j] = square[i, j]
        whole = mp.expm(block * mp.mpf(h))
        matrix = whole[:d, :d]
        return (
            tensor(matrix),
            tensor(whole[:d, 2 * d])[:, 0],
            tensor(whole[:d, d : 2 * d] * matrix.T),
        )


def by_ode(A, B, c, t, s):
    """The same of functions of time, by an explicit method of order 8 at 1e-13."""
    d = len(A(t))

    def slope(u, y):
        a, b = np.array(A(u), dtype=float), np.array(B(u), dtype=float)
        matrix, shift, spread = np.split(y, [d * d, d * d + d])
        matrix, spread = matrix.reshape(d, d), spread.reshape(d, d)
        spread = -a @ spread - spread @ a.T + b @ b.T
        return np.concatenate([(-a @ matrix).ravel(), c(u) - a @ shift, spread.ravel()])

    start = np.concatenate([np.eye(d).ravel(), np.zeros(d + d * d)])
    end = solve_ivp(slope, (t, s), start, "DOP853", rtol=1e-13, atol=1e-15, max_step=0.05).y[:, -1]
    matrix, shift, spread = (torch.from_numpy(y) for y in np.split(end, [d * d, d * d + d]))
    return matrix.reshape(d, d), shift, spread.reshape(d, d)


def gaps(told, expected):
    """Largest relative errors of Φ, m and Σ."""
    pairs = zip((told.matrix, told.shift, told.covariance), expected, strict=True)
    return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]


@pytest.mark.parametrize(
    ("A", "B", "c", "h"),
    [
        (SPRING, [[0.0], [1.0]], [0.0, 1.0], 3.0),
        (JORDAN, [[0.3, 0.1], [0.5, -0.2], [1.0, 0.7]], [1.0, 0.0, 2.0], 5.0),
        (A3, B3, C3, 0.7),
        ([[0.0, -1.0], [0.0, 0.0]], [[0.0], [1.0]], [0.0, 0.3], 2.0),
        ([[0.0, -10.0], [10.0, 0.0]], [[0.5, 0.0], [0.0, 0.5]], [0.0, 0.3], 20.0),
        ([[1e3, 0.0], [1.0, 1.0]], [[20.0, 1.0], [0.0, 1.0]], [1.0, 2.0], 0.05),
        # noise and a force far larger than the rates
        (SPRING, [[0.0], [1e6]], [0.0, 1e8], 3.0),
        (SPRING, [[0.0], [1e-8]], [0.0, 1e-9], 3.0),
    ],
)
def test_kernels_of_constants_are_exact(A, B, c, h):
    told = sg.LinearSDE(A, B, c).transition(0.3, 0.3 + h)
    assert max(gaps(told, van_loan(A, B, c, h))) < 1e-12


@pytest.mark.parametrize("w", [1.7, 1e6])
def test_critical_damping_is_the_formula(w):
    """q' = p, p' = −ω²q − 2ωp + σξ: both modes decay by ω, and Φ has a t e^{−ωt}; in any units."""
    sigma, t = 0.8, 1.53 / w
    told = sg.LinearSDE([[0.0, -1.0], [w * w, 2 * w]], [[0.0], [sigma]]).transition(0.0, t)
    e = math.exp(-w * t)
    phi = torch.tensor([[1 + w * t, t], [-w * w * t, 1 - w * t]], dtype=F64) * e
    x = w * t
    var_q = sigma**2 / (4 * w**3) * (1 - e * e * (1 + 2 * x + 2 * x * x))
    var_p = sigma**2 / (4 * w) * (1 - e * e * (1 - 2 * x + 2 * x * x))
    both = 0.5 * sigma**2 * t * t * e * e
    torch.testing.assert_close(told.matrix, phi, rtol=1e-13, atol=0.0)
    spread = torch.tensor([[var_q, both], [both, var_p]], dtype=F64)
    torch.testing.assert_close(told.covariance, spread, rtol=1e-12, atol=0.0)
    n, variances = 40_000, spread.diag()
    x = told.draw(torch.zeros(n, 2, dtype=F64), stream(0, "test").normal((n, 2), dtype=F64))
    error = ((torch.outer(variances, variances) + spread.square()) / n).sqrt()
    assert bool(((torch.cov(x.T) - spread).abs() < 4.4 * error).all())


VARYING = {
    "smooth": (
        lambda t: [[1 + 0.5 * math.sin(3 * t), 0.4], [-0.3, 0.8 + t]],
        lambda t: [[1.0, 0.2 * t, 0.1], [0.3, math.cos(t), 0.0]],
        lambda t: [math.cos(2 * t), 1.0],
    ),
    "parametric oscillator": (
        lambda t: [[0.0, -1.0], [4 + 2 * math.cos(3 * t), 0.2]],
        lambda t: [[0.0], [1.0 + 0.5 * math.sin(t)]],
        lambda t: [0.0, math.sin(7 * t)],
    ),
    "pulse of a force": (
        lambda t: [[1.0, 0.0], [0.5, 2.0]],
        lambda t: [[1.0], [1.0]],
        lambda t: [math.exp(-(((t - 1.0) / 0.05) ** 2)), 0.0],
    ),
    "three coordinates": (
        lambda t: (np.array(A3) * (1 + 0.3 * math.sin(t))).tolist(),
        lambda t: (np.array(B3) * math.exp(-t)).tolist(),
        lambda t: C3,
    ),
}


@pytest.mark.parametrize("name", VARYING)
def test_kernels_of_functions_of_time(name):
    A, B, c = VARYING[name]
    told = sg.LinearSDE(A, B, c).transition(0.2, 2.2)
    assert max(gaps(told, by_ode(A, B, c, 0.2, 2.2))) < 1e-10


def test_jumps_of_rates_are_closed_in_on():
    """A(t) = 1 and then 3, at no node: Φ = e^{−∫A}, m and Σ of the two parts."""
    at = 1.1234
    sde = sg.LinearSDE(lambda t: [[1.0 if t < at else 3.0]], 1.0, 0.5)
    told = sde.transition(0.0, 2.0)
    parts = [sg.LinearSDE([[k]], 1.0, 0.5).transition(0.0, h) for k, h in ((1, at), (3, 2 - at))]
    expected = parts[0].then(parts[1])
    assert max(gaps(told, (expected.matrix, expected.shift, expected.covariance))) < 1e-10


def test_the_magnus_step_has_order_6():
    """Its error falls by 2⁶ as a panel is halved, of both parts, and its limit is the law."""
    A, B, c = VARYING["smooth"]
    rates = sg.LinearSDE(A, B, c)._rates
    exact, errors = by_ode(A, B, c, 0.0, 0.8), []
    for n in (2, 4, 8):
        edges = torch.linspace(0.0, 0.8, n + 1, dtype=F64)
        laws = magnus._Generator(rates).laws(edges[:-1], edges[1:])
        whole = magnus._part(magnus._composed(laws, None), 0)
        errors.append(gaps(whole, exact))
    for rough, fine in zip(errors[1], errors[2], strict=True):
        assert 5.7 < math.log2(rough / fine) < 6.6
    assert max(errors[2]) < 1e-6


def test_what_is_not_known_to_ten_digits_is_refused(monkeypatch):
    monkeypatch.setattr(magnus, "_MOST", 60)
    fast = sg.LinearSDE(lambda t: [[1 + math.sin(500 * t)]], 1.0)
    with pytest.raises(sg.SolverError, match=r"t = 0 to 5 is not known to 1e-10.*nearer to each"):
        fast.transition(0.0, 5.0)
    near = fast.transition(0.0, 0.01)
    expected = math.exp(-0.01 - (1 - math.cos(5.0)) / 500)
    assert float(near.matrix) == pytest.approx(expected, rel=1e-11)


def test_drift_and_noise_of_functions_take_a_time_for_each_row():
    A, B, c = VARYING["smooth"]
    sde = sg.LinearSDE(A, B, c)
    x = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1]], dtype=F64)
    ts = torch.tensor([0.1, 0.7, 0.1], dtype=F64)
    assert (sde.noise_structure, sde.channels, sde.autonomous) == ("channels", 3, None)
    assert sde.diffusion(x, ts).shape == (3, 2, 3)
    for k, t in enumerate(ts):
        one = torch.tensor(c(t), dtype=F64) - x[k] @ torch.tensor(A(t), dtype=F64).T
        torch.testing.assert_close(sde.drift(x, ts)[k], one, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(sde.diffusion(x, ts)[k], torch.tensor(B(t), dtype=F64))
    number = sg.LinearSDE(A, lambda t: 1 + t, lambda t: t)
    assert torch.equal(number.diffusion(x, ts), (1 + ts)[:, None])
    one = number.drift(x, ts) - sg.LinearSDE(A, 1.0).drift(x, ts)
    torch.testing.assert_close(one, ts[:, None].expand(3, 2))


def test_gradients_flow_through_rates_of_time():
    """dΦ/dk of A = k(1 + t): −∫(1 + t) Φ; and a coefficient in a list keeps its gradient."""
    k = torch.tensor(0.7, dtype=F64, requires_grad=True)
    told = sg.LinearSDE(lambda t: [[k * (1 + t)]], 1.0).transition(0.0, 1.5)
    (slope,) = torch.autograd.grad(told.matrix.sum(), k)
    way = 1.5 + 1.5**2 / 2
    assert float(slope) == pytest.approx(-way * math.exp(-0.7 * way), rel=1e-10)


def test_stationary_correlations_are_the_response_times_the_covariance():
    """e^{−Aτ} C at τ = 0 is C, and its slope −A C; at rest it is that of the two-time law."""
    sde = sg.LinearSDE(A3, B3, C3)
    cov = sde.stationary_covariance()
    there = sde.stationary_correlation([0.0, 1e-6, 0.8])
    torch.testing.assert_close(there[0], cov, rtol=1e-13, atol=1e-14)
    slope = (there[1] - there[0]) / 1e-6
    torch.testing.assert_close(slope, -sde.A @ cov, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(there[2], sde.transition(0.0, 0.8).matrix @ cov)
    with pytest.raises(ValueError, match="times must be ≥ 0"):
        sde.stationary_correlation([-1.0, 0.0])


def test_moments_are_carried_by_transitions_and_come_to_rest():
    sde = sg.LinearSDE(A3, B3, C3)
    start = [[0.5, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.0]]
    path = sde.moments([1.0, 0.0, -1.0], start, [0.0, 0.3, 1.0, 100.0])
    whole = sde.transition(0.0, 1.0)
    mean = whole.matrix @ path.means[0] + whole.shift
    cov = whole.matrix @ path.covariances[0] @ whole.matrix.T + whole.covariance
    torch.testing.assert_close(path.means[2], mean, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(path.covariances[2], cov, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(path.final.mean, sde.stationary_mean(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(path.final.covariance, sde.stationary_covariance())
    at_rest = sde.moments(sde.stationary_mean(), sde.stationary_covariance(), [0.0, 0.7])
    torch.testing.assert_close(at_rest.final.covariance, sde.stationary_covariance())
    # of one number for all coordinates
    ou = sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9).moments([1.0, 0.0], 0.25, [0.0, 0.5]).final
    e = math.exp(-1.3 * 0.5)
    assert float(ou.mean[0]) == pytest.approx(0.2 + 0.8 * e)
    assert float(ou.covariance[0, 0]) == pytest.approx(0.25 * e * e + 0.81 / 2.6 * (1 - e * e))
    assert float(ou.covariance[0, 1]) == 0.0


@pytest.mark.parametrize("rate", [1.3, 1e-5, 0.0, -0.5, 300.0])
def test_processes_with_a_name_have_the_transition_of_their_matrices(rate):
    for h in (1e-3, 0.7, 2.0):
        told = sg.OrnsteinUhlenbeck(rate, 0.2, 0.9).transition(0.3, 0.3 + h)
        linear = sg.LinearSDE([[rate]], 0.9, rate * 0.2).transition(0.3, 0.3 + h)
        for one, other in (
            (told.matrix, linear.matrix),
            (told.shift, linear.shift),
            (told.covariance, linear.covariance),
        ):
            assert float(one) == pytest.approx(float(other), rel=1e-12, abs=1e-15)
    brown = sg.BrownianMotion(0.7).transition(1.0, 3.0)
    assert [float(v) for v in (brown.matrix, brown.shift)] == [1.0, 0.0]
    assert float(brown.covariance) == pytest.approx(0.98)


def test_the_slope_of_a_transition_at_rate_zero():
    k = torch.tensor(0.0, dtype=F64, requires_grad=True)
    variance = sg.OrnsteinUhlenbeck(k, 0.0, 0.9).transition(0.0, 2.0).covariance
    (slope,) = torch.autograd.grad(variance, k)  # of σ² h (1 − k h + …)
    assert float(slope) == pytest.approx(-0.81 * 4, rel=1e-14)


def test_exact_paths_of_an_ornstein_uhlenbeck_process():
    """Variance at rest after one step of any length, within 4.4 standard errors."""
    n, sde = 40_000, sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9)
    x = sde.sample(torch.zeros(n, 1, dtype=F64), [0.0, 0.4, 30.0], rng=3).states[..., 0]
    law = sde.moments(0.0, 0.0, [0.0, 0.4, 30.0])
    for k in (1, 2):
        mean, var = float(law.means[k]), float(law.covariances[k])
        assert abs(float(x[k].mean()) - mean) < 4.4 * math.sqrt(var / n)
        assert abs(float(x[k].var()) - var) < 4.4 * var * math.sqrt(2 / n)


SQUARE = torch.tensor([[1.0, 0.6], [0.6, 2.0]], dtype=F64)


class Correlated(sg.SDE):
    """General noise, told by its covariance."""

    noise, noise_structure, autonomous = "additive", "general", True

    def drift(self, x, t):
        return -x

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * noise.normal() @ torch.linalg.cholesky(SQUARE).T

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v @ SQUARE


def test_a_linear_sde_is_read_off_another():
    """A, B and c of processes with a name, of the user's own, of a network, and of time."""
    ou = sg.LinearSDE.of(sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), 2)
    torch.testing.assert_close(ou.A, 1.3 * torch.eye(2, dtype=F64))
    torch.testing.assert_close(ou.c, torch.full((2,), 0.26, dtype=F64))
    assert (ou.noise_structure, ou.B.tolist()) == ("diagonal", [0.9, 0.9])
    weights = [[0.0, 1.5], [-1.0, 0.3]]
    network = sg.RateNetwork(weights, [0.1, 0.2], 0.4, activation=lambda x: x)
    eye = torch.eye(2, dtype=F64)
    torch.testing.assert_close(
        sg.LinearSDE.of(network, 2).A, eye - torch.tensor(weights, dtype=F64)
    )
    trap = sg.LinearSDE.of(sg.Langevin(sg.Quadratic(2.0, 1.0), 0.5), 1)
    assert float(trap.stationary_covariance()) == pytest.approx(0.25, rel=1e-13)
    assert float(trap.stationary_mean()) == pytest.approx(1.0, rel=1e-13)
    timed = sg.LinearSDE.of(sg.ItoProcess(lambda x, t: -x * (1 + t), lambda t: 1 + t), 1)
    expected = sg.LinearSDE(lambda t: [[1 + t]], lambda t: 1 + t).transition(0.0, 1.0)
    told = timed.transition(0.0, 1.0)
    assert max(gaps(told, (expected.matrix, ZERO + 1, expected.covariance))[::2]) < 1e-12
    G = torch.tensor(B3, dtype=F64)
    general = sg.LinearSDE.of(Correlated(), 2)
    torch.testing.assert_close(general.B @ general.B.T, SQUARE, rtol=1e-13, atol=1e-14)
    own = sg.ItoProcess(lambda x: -x @ torch.tensor(A3, dtype=F64).T, G, channels=2)
    assert torch.equal(sg.LinearSDE.of(own, 3).B, G)
    path = sg.LinearSDE.of(sg.VP(sg.LinearBeta(0.1, 20.0)), 1).transition(0.1, 0.6)
    vp = sg.VP(sg.LinearBeta(0.1, 20.0)).transition(0.1, 0.6)
    assert float(path.covariance) == pytest.approx(float(vp.covariance), rel=1e-10)
    for bad, said in (
        (sg.ItoProcess(lambda x: x - x**3, 0.7), "the drift of ItoProcess is not linear: at"),
        (sg.ItoProcess(lambda x: -x, lambda x: x), "noise that does not depend on x"),
    ):
        with pytest.raises(ValueError, match=said):
            sg.LinearSDE.of(bad, 1)
    with pytest.raises(TypeError, match="sde must be an SDE"):
        sg.LinearSDE.of("OU", 1)


class Cubed(sg.OrnsteinUhlenbeck):
    """Another drift, of which no transition is known."""

    def drift(self, x, t):
        return -(x**3)


def test_a_transition_is_not_inherited_by_another_drift():
    kicked = type("Kicked", (sg.LinearSDE,), {"drift": lambda self, x, t: -(x**3)})([[1.0]], 1.0)
    x0 = torch.zeros(2, 1, dtype=F64)
    for ask in (
        lambda: Cubed().transition(0.0, 1.0),
        lambda: Cubed().sample(x0, [0.0, 1.0], rng=0),
        lambda: kicked.transition(0.0, 1.0),
        kicked.stationary_covariance,
        lambda: kicked.stationary_correlation([0.0, 1.0]),
    ):
        with pytest.raises(ValueError, match="has its own drift, and no transition"):
            ask()


def test_functions_of_time_that_are_none():
    for given, kind, said in (
        ((lambda t: [[1.0 / t]], 1.0), ValueError, r"A\(0\) must be finite.*time_range"),
        ((lambda t: "A", 1.0), TypeError, r"what A\(t\) returns must be a square matrix"),
        (([[1.0]], lambda t: [1.0, 2.0]), ValueError, "B must have 1 rows as A has"),
        (([[1.0]], 1.0, sg.OrnsteinUhlenbeck), TypeError, "c must be a number, or one for"),
    ):
        with pytest.raises(kind, match=said):
            sg.LinearSDE(*given)
    grows = sg.LinearSDE([[1.0]], 1.0, lambda t: [1.0] if t < 1 else [1.0, 2.0])
    with pytest.raises(ValueError, match=r"c\(t\) must return one shape at every t"):
        grows.transition(0.0, 2.0)
    late = sg.LinearSDE(lambda t: [[1.0 / t]], 1.0, time_range=(0.5, 2.0))
    assert late.time_range == (0.5, 2.0)
    assert float(late.transition(0.5, 2.0).matrix) == pytest.approx(0.25, rel=1e-11)
    with pytest.raises(ValueError, match=r"t and s must lie in \[0.5, 2\]"):
        late.transition(0.1, 1.0)
    with pytest.raises(ValueError, match="rates that depend on time, and no stationary law"):
        late.stationary_covariance()
    with pytest.raises(ValueError, match="time_range must increase"):
        sg.LinearSDE([[1.0]], 1.0, time_range=(1.0, 0.0))
    with pytest.raises(TypeError, match="time_range must be a pair"):
        sg.LinearSDE([[1.0]], 1.0, time_range=3.0)
    hole = sg.LinearSDE(lambda t: [[1.0 if t < 1 else math.nan]], 1.0)
    with pytest.raises(ValueError, match="must be finite, but is"):
        hole.transition(0.0, 2.0)


def test_laws_that_are_none():
    sde = sg.LinearSDE(A3, B3)
    for mean, cov, kind, said in (
        ([[1.0]], 0.0, ValueError, r"mean must have shape \(d,\)"),
        ([1.0, 2.0, 3.0], [[1.0]], ValueError, r"covariance must be a number or have shape"),
        ([1.0, math.nan, 3.0], 0.0, ValueError, "mean must be finite"),
        ([1.0, 2.0, 3.0], -1.0, ValueError, "covariance must be symmetric with eigenvalues ≥ 0"),
        ("mean", 0.0, TypeError, "mean must be a number"),
    ):
        with pytest.raises(kind, match=said):
            sde.moments(mean, cov, [0.0, 1.0])
    with pytest.raises(ValueError, match="times must increase"):
        sde.moments([0.0, 0.0, 0.0], 0.0, [1.0, 0.0])
