"""Coloured noise: laws at rest, the limit of short memory, and what is refused."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
G = [[0.7, 0.1], [-0.9, 0.5], [0.3, 0.4]]


@pytest.mark.parametrize("tau", [2.0, 0.5, 0.01])
def test_the_law_at_rest_of_a_coloured_trap(tau):
    """σ²/(2k(1 + kτ)) and ⟨x η⟩ = σ√(τ/2)/(1 + kτ); for τ → 0 that of white noise."""
    k, sigma = 1.3, 0.9
    sde = sg.Coloured(sg.OrnsteinUhlenbeck(k, 0.2, sigma), tau)
    linear = sg.LinearSDE.of(sde, 2)
    cov = linear.stationary_covariance()
    both = sigma * math.sqrt(tau / 2) / (1 + k * tau)
    expected = [[sigma**2 / (2 * k * (1 + k * tau)), both], [both, 1.0]]
    torch.testing.assert_close(cov, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(linear.stationary_mean(), torch.tensor([0.2, 0.0], dtype=F64))


def test_the_noise_has_the_correlation_that_it_says():
    """⟨ζ(t) ζ(0)⟩ = e^{−t/τ}/(2τ), the integral of which is one."""
    tau, times = 0.3, torch.tensor([0.0, 0.1, 1.0], dtype=F64)
    sde = sg.LinearSDE.of(sg.Coloured(sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0), tau), 2)
    zeta = sde.stationary_correlation(times)[:, 1, 1] / (2 * tau)
    torch.testing.assert_close(zeta, torch.exp(-times / tau) / (2 * tau))


def test_a_matrix_has_one_coloured_noise_for_each_channel():
    """A C + C Aᵀ = B Bᵀ of the whole, solved by its parts; short memories give the white law."""
    A = torch.tensor([[1.0, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.2, 0.0, 1.5]], dtype=F64)
    matrix, taus = torch.tensor(G, dtype=F64), torch.tensor([0.3, 1.1], dtype=F64)
    white = sg.LinearSDE(A, matrix)
    cov = sg.LinearSDE.of(sg.Coloured(white, taus), 5).stationary_covariance()
    # (A + 1/τ_k) ⟨x η_k⟩ = G_k/√(2τ_k), and A C + C Aᵀ = Σ_k sym(⟨x η_k⟩ G_kᵀ) √(2/τ_k)/…
    eye, right = torch.eye(3, dtype=F64), torch.zeros(3, 3, dtype=F64)
    for k in range(2):
        g = matrix[:, k] / (2 * taus[k]).sqrt()
        both = torch.linalg.solve(A + eye / taus[k], g)
        torch.testing.assert_close(cov[:3, 3 + k], both, rtol=1e-12, atol=1e-14)
        right += torch.outer(both, g) + torch.outer(g, both)
    kron = torch.kron(A, eye) + torch.kron(eye, A)
    places = torch.linalg.solve(kron, right.flatten()).reshape(3, 3)
    torch.testing.assert_close(cov[:3, :3], places, rtol=1e-12, atol=1e-14)
    gaps = [
        float(
            (
                sg.LinearSDE.of(sg.Coloured(white, tau), 5).stationary_covariance()[:3, :3]
                - white.stationary_covariance()
            ).norm()
        )
        for tau in (0.02, 0.01)
    ]
    assert 1.9 < gaps[0] / gaps[1] < 2.1


def test_short_memories_give_the_stratonovich_reading():
    """dX = X ζ: ⟨X⟩ = e^{(t − τ(1 − e^{−t/τ}))/2} → e^{t/2}, where Itô's is 1; 4.4 σ."""
    n, tau, t = 40_000, 0.2, 1.0
    white = sg.ItoProcess(lambda x: 0 * x, lambda x: x, interpretation="stratonovich")
    sde = sg.Coloured(white, tau)
    start = sde.start(torch.ones(n, 1, dtype=F64), rng=0)
    assert (start.shape, bool((sde.position(start) == 1).all())) == ((n, 2), True)
    times = torch.linspace(0.0, t, 41, dtype=F64)
    path = sg.simulate(sde, start, times, solver=sg.Heun(), rng=1)
    x = sde.position(path.states)[-1, :, 0]
    variance = t - tau * (1 - math.exp(-t / tau))
    mean, error = math.exp(variance / 2), math.exp(variance) * math.sqrt(math.expm1(variance) / n)
    # Heun's own bias is 60 times smaller, by ChainMoments
    assert abs(float(x.mean()) - mean) < 4.4 * error
    assert abs(float(x.log().var()) - variance) < 4.4 * variance * math.sqrt(2 / n)


def test_rows_keep_their_parameters():
    k = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)
    sde = sg.Coloured(sg.ItoProcess(lambda x, k: -k * x, 1.0, parameters={"k": k}), 0.5)
    x = torch.ones(3, 2, dtype=F64)
    t = torch.tensor(0.0, dtype=F64)
    assert sde.trajectories == 3
    assert torch.equal(sde.of_rows(slice(1, 3)).drift(x[1:], t), sde.drift(x, t)[1:])
    # f + η/√(2τ), τ = ½
    torch.testing.assert_close(sde.drift(x, t)[:, :1], 1 - k)


class Own(sg.ItoProcess):
    """A drift that is not the one that was written."""

    def drift(self, x, t):
        return -x


def test_what_cannot_be_coloured_is_refused():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    for sde, tau, kind, said in (
        ("OU", 0.5, TypeError, "sde must be an SDE"),
        (ou, "short", TypeError, "correlation_time must be a number τ > 0"),
        (ou, 0.0, ValueError, "correlation_time must be finite and > 0, but is 0"),
        (ou, math.inf, ValueError, "correlation_time must be finite and > 0"),
        (ou, [[1.0]], ValueError, "correlation_time must be a number, or one for each noise"),
        (sg.LinearSDE([[1.0]], [[1.0, 1.0]]), [1.0], ValueError, r"shape \(2,\), but has"),
        (sg.ItoProcess(lambda x: -x, 0.0), 0.5, ValueError, "no noise that could be coloured"),
        (sg.ItoProcess(lambda x: -x, lambda x: x), 0.5, ValueError, "tends to the Stratonovich"),
        (
            Own(lambda x: x, lambda x: x, interpretation="stratonovich"),
            0.5,
            ValueError,
            "tends to the Stratonovich",
        ),
        (sg.ReverseSDE(vp, lambda x, t: -x), 0.5, ValueError, "is a reverse SDE"),
        (sg.DDPM.discretize(vp, 5), 0.5, ValueError, "is a Markov chain"),
    ):
        with pytest.raises(kind, match=said):
            sg.Coloured(sde, tau)
    sde, t = sg.Coloured(ou, 0.5), torch.tensor(0.0, dtype=F64)
    for x, said in (
        (torch.zeros(4, 3, dtype=F64), "has d coordinates and one η for each"),
        (torch.zeros(4, 1, 2, dtype=F64), r"x must have shape \(batch, d \+ m\)"),
    ):
        with pytest.raises(ValueError, match=said):
            sde.drift(x, t)
    with pytest.raises(ValueError, match=r"x0 must be floats of shape \(batch, d\)"):
        sde.start(torch.zeros(4, dtype=F64))
    two = sg.Coloured(ou, [0.5, 1.0, 2.0])
    with pytest.raises(ValueError, match="or one for each of 2 noises"):
        two.drift(torch.zeros(4, 4, dtype=F64), t)
    one = sg.Coloured(sg.LinearSDE([[1.0]], [[1.0, 1.0]]), 0.5)
    with pytest.raises(ValueError, match="m = 2 noises, but x has 2 numbers"):
        one.drift(torch.zeros(4, 2, dtype=F64), t)
