"""DDPM: a linear SDE on a grid exactly, and its inverse exactly where Bayes can say it."""

import math

import exact
import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.scores import CallCounter
from sdegen.core.shapes import expand
from sdegen.verification.chain import ChainDensity

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = {
    "VP linear": VP,
    "VP cosine": sg.VP(sg.CosineBeta()),
    "SubVP": sg.SubVP(sg.QuadraticBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 5.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(t_max=5.0),
}
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
every_variance = pytest.mark.parametrize("variance", ["posterior", "beta"])


def _grids(sde):
    yield torch.arange(51, dtype=F64) * (sde.t_max / 50)
    yield sde.time_grid(40).flip(0)
    yield sde.t_max * torch.linspace(0.02, 1, 30, dtype=F64) ** 2


def _point(sde, x0):
    """Exact score of data that are one point."""

    def score(x, t):
        return -(x - sde.alpha(t) * x0) / sde.sigma(t) ** 2

    return score


# --- the forward chain is the SDE at the times of the grid


@every_sde
def test_alpha_bars_are_the_alphas_of_the_sde(sde):
    for grid in _grids(sde):
        chain = sg.DDPM.discretize(sde, times=grid)
        torch.testing.assert_close(
            chain.alpha_bars, sde.alpha(grid[1:]).square(), rtol=1e-12, atol=0
        )
        # and the chain of √ᾱ_k/√ᾱ_{k−1}, multiplied up
        product = sde.alpha(grid[0]) * chain.a.cumprod(0)
        torch.testing.assert_close(product.square(), chain.alpha_bars, rtol=1e-12, atol=0)


def test_the_betas_of_a_vp_are_those_of_ddpm():
    chain = sg.DDPM.discretize(VP, steps=1000)
    alpha_bars = VP.alpha(chain.times).square()
    expected = 1 - alpha_bars[1:] / alpha_bars[:-1]
    torch.testing.assert_close(chain.betas, expected, rtol=1e-11, atol=0)
    same = sg.DDPM(chain.betas, times=chain.times)
    for name in ("a", "b", "sigmas", "alpha_bars"):
        torch.testing.assert_close(getattr(same, name), getattr(chain, name), rtol=1e-12, atol=0)


@every_sde
def test_mean_and_variance_walk_along_the_kernel(sde):
    for grid in _grids(sde):
        chain = sg.DDPM.discretize(sde, times=grid)
        k = torch.arange(len(grid), dtype=F64)
        start = (float(sde.alpha(grid[0])) * 1.3, float(sde.sigma(grid[0])) ** 2)
        moments = exact.linear_chain_moments(sg.EulerMaruyama(), chain, k, *start)
        torch.testing.assert_close(moments[:, 0], 1.3 * sde.alpha(grid), rtol=1e-12, atol=0)
        torch.testing.assert_close(moments[:, 1], sde.sigma(grid).square(), rtol=1e-11, atol=0)


def test_small_steps_keep_their_digits():
    # b² = σ_k² − a² σ_{k−1}² of a short step, against −expm1 of the integral over it
    grid = torch.tensor([0.5, 0.5 + 1e-9], dtype=F64)
    b2 = sg.DDPM.discretize(sg.VP(sg.ConstantBeta(3.0)), times=grid).betas
    expected = -torch.expm1(-3.0 * grid.diff())
    # σ itself has 16 digits, a difference of 3e-9 of it 8: half of them are lost without care
    torch.testing.assert_close(b2, expected, rtol=2e-7, atol=0)


def test_the_first_beta_is_that_of_the_first_step():
    chain = sg.DDPM([0.1, 0.2, 0.4])
    assert chain.alpha_bars.tolist() == pytest.approx([0.9, 0.72, 0.432], rel=1e-15)
    assert chain.times.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert chain.sigmas.tolist() == pytest.approx([0.0, *(1 - chain.alpha_bars).sqrt().tolist()])
    x, reverse = torch.ones(1, 1, dtype=F64), chain.reverse(lambda x, t: 0 * x)
    for k, beta in enumerate([0.1, 0.2, 0.4]):
        forward_at = torch.tensor(float(k), dtype=F64)
        back_at = torch.tensor(float(k + 1), dtype=F64)
        # forward from k and back from k + 1 use the same β_{k+1}
        assert float(chain.drift(x, forward_at)) == pytest.approx(math.sqrt(1 - beta) - 1)
        assert float(chain.diffusion(x, forward_at)) == pytest.approx(math.sqrt(beta))
        assert float(x - reverse.drift(x, back_at)) == pytest.approx(1 / math.sqrt(1 - beta))


def test_each_trajectory_may_be_at_its_own_step():
    chain, x = sg.DDPM([0.1, 0.2, 0.4]), torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    reverse = chain.reverse(lambda x, t: -x * expand(t, x))
    for sde, k in ((chain, [0.0, 2.0]), (reverse, [1.0, 3.0])):
        both = torch.tensor(k, dtype=F64)
        for i in range(2):
            one, at = x[i : i + 1], torch.tensor(k[i], dtype=F64)
            torch.testing.assert_close(sde.drift(x, both)[i], sde.drift(one, at)[0])
            g = sde.diffusion(x, both).expand_as(x)[i]
            torch.testing.assert_close(g, sde.diffusion(one, at).expand(2))


def test_the_score_is_asked_at_the_continuous_time():
    asked = []

    def score(x, t):
        asked.append(float(t))
        return -x

    chain = sg.DDPM.discretize(VP, steps=4)
    sg.simulate(chain.reverse(score), torch.ones(1, 1), [4.0, 3.0, 2.0, 1.0, 0.0], rng=0)
    assert asked[-4:] == [1.0, 0.75, 0.5, 0.25]


# --- the inverse is Bayes'


def _bayes(chain, k, x0, x_k):
    """Mean and variance of p(x_{k−1} | x_k, x_0) by quadrature, for x_0 a point and k > 1."""
    a, b = float(chain.a[k - 1]), float(chain.b[k - 1])
    mean = math.sqrt(float(chain.alpha_bars[k - 2])) * x0
    std = float(chain.sigmas[k - 1])
    centre = (mean / std**2 + a * x_k / b**2) / (1 / std**2 + a**2 / b**2)
    width = 1 / math.sqrt(1 / std**2 + a**2 / b**2)
    x = np.linspace(centre - 12 * width, centre + 12 * width, 20_001)  # trapezoid: spectral here
    log_p = -0.5 * ((x - mean) / std) ** 2 - 0.5 * ((x_k - a * x) / b) ** 2
    p = np.exp(log_p - log_p.max())
    m = (p * x).sum() / p.sum()
    return m, (p * (x - m) ** 2).sum() / p.sum()


@every_sde
@pytest.mark.parametrize("k", [2, 3, 25, 50])
def test_one_ancestral_step_is_the_posterior_of_bayes(sde, k):
    x0, x_k = 0.8, -0.6
    chain = sg.DDPM.discretize(sde, steps=50)
    reverse = chain.reverse(_point(sde, x0))
    x, at = torch.tensor([[x_k]], dtype=F64), torch.tensor(float(k), dtype=F64)
    mean, variance = _bayes(chain, k, x0, x_k)
    assert float(x - reverse.drift(x, at)) == pytest.approx(mean, abs=1e-8, rel=1e-8)
    assert float(reverse.diffusion(x, at)) ** 2 == pytest.approx(variance, abs=1e-8, rel=1e-8)


@every_sde
def test_ancestral_sampling_of_a_point_ends_in_the_point(sde):
    # with the exact score and the posterior's variance every marginal is exact, down to k = 0
    x0, chain = 0.8, sg.DDPM.discretize(sde, steps=30)
    k = torch.arange(31, dtype=F64).flip(0)
    reverse = chain.reverse(_point(sde, x0))
    start = (float(sde.alpha(chain.times[-1])) * x0, float(chain.sigmas[-1]) ** 2)
    moments = exact.linear_chain_moments(sg.EulerMaruyama(), reverse, k, *start)
    times = chain.times.flip(0)
    torch.testing.assert_close(moments[:, 0], x0 * sde.alpha(times), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments[:, 1], sde.sigma(times).square(), rtol=1e-9, atol=1e-12)
    assert float(moments[-1, 1]) < 1e-20


def test_beta_is_the_posterior_of_standard_normal_data():
    # x_{k−1} | x_k is then N(a x_k, 1 − a²), and the score of every p_k is −x
    chain = sg.DDPM.discretize(VP, steps=30)
    reverse = chain.reverse(lambda x, t: -x, variance="beta")
    k = torch.arange(31, dtype=F64).flip(0)
    moments = exact.linear_chain_moments(sg.EulerMaruyama(), reverse, k, 0.0, 1.0)
    # but for the last step, which adds none of the noise b_1² of the data's law
    ones = torch.ones(31, dtype=F64)
    ones[-1] -= chain.betas[0]
    torch.testing.assert_close(moments[:, 1], ones, rtol=1e-12, atol=0)
    x = torch.ones(1, 1, dtype=F64)
    for i in (1, 15, 30):
        at = torch.tensor(float(i), dtype=F64)
        mean = float(x - reverse.drift(x, at))
        assert mean == pytest.approx(float(chain.a[i - 1]), rel=1e-12)


@every_variance
def test_the_two_variances(variance):
    chain = sg.DDPM.discretize(VP, steps=10)
    reverse = chain.reverse(lambda x, t: -x, variance)
    x = torch.ones(1, 1, dtype=F64)
    alpha_bars = torch.cat([torch.ones(1, dtype=F64), chain.alpha_bars])
    for k in range(1, 11):
        tilde = chain.betas[k - 1] * (1 - alpha_bars[k - 1]) / (1 - alpha_bars[k])
        # the step that ends at the data adds no noise: algorithm 2 of Ho et al.
        expected = tilde if variance == "posterior" or k == 1 else chain.betas[k - 1]
        g = reverse.diffusion(x, torch.tensor(float(k), dtype=F64))
        assert float(g) ** 2 == pytest.approx(float(expected), rel=1e-9, abs=1e-15)


@every_variance
@every_sde
def test_the_step_that_ends_at_the_data_returns_tweedies_mean(sde, variance):
    """E[x0 | x_1] = (x_1 + σ_1² score)/α_1, whatever is drawn: algorithm 2 of Ho et al."""
    chain = sg.DDPM.discretize(sde, steps=5)
    x = torch.linspace(-2, 2, 7, dtype=F64)[:, None]

    def score(x, t):
        return torch.sin(2 * x) - x

    found = sg.simulate(chain.reverse(score, variance), x, [1.0, 0.0], rng=3).final
    t = chain.times[1]
    wanted = (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@every_variance
def test_a_chain_that_ends_at_t_min_has_the_noise_of_t_min(variance):
    """Its last state belongs to t_min, where the law has noise in it: s_1 > 0."""
    chain = sg.DDPM.discretize(VP, times=VP.time_grid(6))
    stds = chain.reverse(lambda x, t: -x, variance).stds
    wanted = chain.b * (1 if variance == "beta" else chain.sigmas[:-1] / chain.sigmas[1:])
    torch.testing.assert_close(stds, wanted, rtol=1e-14, atol=0)


@pytest.mark.slow
def test_ancestral_samples_are_as_near_to_the_data_as_their_law():
    """W1 of the whole chain's law to the data, by the exact law: √β_1 z had made it 0.0140."""
    mixture = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.05)
    chain = sg.DDPM.discretize(VP, steps=200)
    grid = sg.Grid(-6.0, 6.0, 1200)
    laws = [
        ChainDensity(chain.reverse(mixture.noised(VP).score, "beta"), grid)
        .run(grid.gaussian(0.0, 1.0), torch.arange(201.0).flip(0))
        .p[k]
        for k in (-1, -2)
    ]
    p, before = laws
    h = float(grid.nodes[1] - grid.nodes[0])
    exact = mixture.log_prob(grid.nodes[:, None]).exp()
    w1 = [float((law - exact).cumsum(0).abs().sum()) * h * h for law in (p, before)]
    assert w1[0] < 0.6 * w1[1]


def test_calls_of_the_score_are_counted():
    counter = CallCounter()
    twin = sg.DDPM([0.1, 0.2]).reverse(lambda x, t: -x).with_counter(counter)
    at = torch.tensor(2.0, dtype=F64)
    twin.drift(torch.ones(1, 1, dtype=F64), at)
    twin.diffusion(torch.ones(1, 1, dtype=F64), at)
    assert counter.calls == 1


# --- DDPM and the reverse SDE are the same sampler to O(1/N)


def _end(dynamics, nodes, mean, variance):
    """Mean and variance at nodes[-1] of the updates of linear dynamics, exactly."""
    t, dt = nodes[:-1], nodes.diff()
    zero = torch.zeros(len(t), 1, dtype=F64)
    f0, f1 = dynamics.drift(zero, t)[:, 0], dynamics.drift(zero + 1, t)[:, 0]
    g = dynamics.diffusion(zero, t)[:, 0]
    steps = (1 + dt * (f1 - f0), dt * f0, dt.abs() * g.square())
    for a, c, b2 in zip(*(s.tolist() for s in steps), strict=True):
        mean, variance = a * mean + c, a * a * variance + b2
    return mean, variance


def _gaps(sde, variance, counts):
    """W2 between the two samplers at t_min, on the same grid, for Gaussian data: exact moments."""
    noised = sg.GaussianMixture([1.0], [[0.4]], stds=0.5).noised(sde)
    start = (float(noised.at(sde.t_max).mean), float(noised.at(sde.t_max).covariance))
    gaps = []
    for n in counts:
        grid = sde.time_grid(n)
        reverse = sg.DDPM.discretize(sde, times=grid).reverse(noised.score, variance)
        m1, v1 = _end(reverse, torch.arange(n + 1, dtype=F64).flip(0), *start)
        m2, v2 = _end(sg.ReverseSDE(sde, noised.score), grid, *start)
        gaps.append(math.hypot(m1 - m2, math.sqrt(v1) - math.sqrt(v2)))
    return gaps


COUNTS = (100, 178, 316, 562, 1000)


def test_with_variance_beta_the_gap_falls_as_one_over_n():
    gaps = _gaps(VP, "beta", COUNTS)
    assert exact.slope(COUNTS, gaps) == pytest.approx(-1, abs=0.05)
    assert gaps[-1] < 1e-3


def test_with_the_posteriors_variance_the_gap_falls_a_little_slower_at_first():
    """The slope is −0.93, since the noise that the posterior leaves out has a logarithm in it.

    A posterior step has less variance than an Euler-Maruyama step, by b² (1 − σ²_{k−1}/σ²_k) ≈ (β
    Δt)² α²/σ². Near the data σ² ≈ β t, so that the sum over the grid is Δt · β Σ Δt/t ≈ Δt · β
    log(1/max(Δt, t_min)): as long as Δt > t_min, a longer grid also sees smaller t. N = 100 … 1000
    with t_min = 10⁻³ is that stretch. It ends where Δt ≪ t_min, and is not there if t_min is
    large; then the slope is −1.
    """
    assert exact.slope(COUNTS, _gaps(VP, "posterior", COUNTS)) == pytest.approx(-0.93, abs=0.06)
    late = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=0.05)
    slope = exact.slope(COUNTS, _gaps(late, "posterior", COUNTS))
    assert slope == pytest.approx(-1, abs=0.02)
    further = (5000, 50_000)  # Δt = t_min/5 … t_min/50
    assert exact.slope(further, _gaps(VP, "posterior", further)) == pytest.approx(-1, abs=0.02)


# --- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sg.DDPM([1.0, 0.1]),
            r"every β must lie in \(0, 1\), and the last may be 1, but betas\[0\] = 1",
        ),
        (lambda: sg.DDPM([0.1, 0.2, -0.1]), r"but betas\[2\] = -0\.1"),
        (lambda: sg.DDPM([math.nan]), r"but betas\[0\] = nan"),
        (lambda: sg.DDPM([]), "betas must be a non-empty list"),
        (
            lambda: sg.DDPM([0.1], times=torch.arange(3.0)),
            r"times must have shape \(2,\), one for",
        ),
        (
            lambda: sg.DDPM([0.1, 0.1], times=torch.tensor([0.0, 1.0, 1.0])),
            r"times must increase, but times\[1\] = 1 is followed by 1",
        ),
        (lambda: sg.DDPM.discretize(VP), "give steps, or times of your own, one of the two"),
        (lambda: sg.DDPM.discretize(VP, 3, times=torch.ones(2)), "one of the two"),
        (lambda: sg.DDPM.discretize(VP, 0), "steps must be ≥ 1, but is 0"),
        (
            lambda: sg.DDPM.discretize(VP, times=torch.tensor([0.5, 1.5])),
            r"times must lie in \[0, t_max\] = \[0, 1\], but span 0\.5 … 1\.5",
        ),
        (
            lambda: sg.DDPM.discretize(VP, times=torch.tensor([0.0, math.nan])),
            r"times must be finite, but times\[1\] = nan",
        ),
        (
            lambda: sg.DDPM.discretize(VP, times=torch.tensor([0.5])),
            "times must be a list of at least two times",
        ),
    ],
)
def test_what_is_no_chain_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_whose_alpha_bar_does_not_decrease_is_refused():
    class Dip(sg.BetaSchedule):
        def __call__(self, t):
            return torch.cos(2 * math.pi * t)

        def integral(self, t):
            return torch.sin(2 * math.pi * t) / (2 * math.pi)

    with pytest.raises(ValueError, match=r"every step must add noise, but step 3 of 10, t = 0\.2"):
        sg.DDPM.discretize(sg.VP(Dip()), times=torch.linspace(0, 0.45, 11, dtype=F64) * 20 / 9)


def test_steps_and_score_of_another_kind_are_refused(as_user):
    with pytest.raises(TypeError, match="steps must be an int, but is float"):
        sg.DDPM.discretize(VP, 10.0)
    with pytest.raises(TypeError, match=r"score must be a function \(x, t\) .* but is None"):
        sg.DDPM([0.1]).reverse(None)
    with pytest.raises(
        ValueError, match="variance must be 'posterior' or 'beta' or 'learned', but is 'fixed'"
    ):
        sg.DDPM([0.1]).reverse(lambda x, t: -x, variance="fixed")


X = torch.ones(2, 1)


@pytest.mark.parametrize(
    ("times", "solver", "message"),
    [
        (
            [0.0, 1.0, 2.0],
            sg.EulerMaruyama(substeps=2),
            "times must be consecutive integers and sub",
        ),
        (
            [0.0, 0.5, 1.0],
            None,
            "consecutive integers and substeps 1, but the nodes begin 0, 0.5, 1",
        ),
        ([0.0, 2.0], None, "consecutive integers"),
        ([0.0, 1.0], sg.Heun(), r"Heun solves differential equations: use EulerMaruyama\(\)"),
        ([2.0, 1.0], None, r"times decrease, but DDPM .* its inverse is chain\.reverse\(score\)"),
        (
            [2.0, 3.0, 4.0],
            None,
            r"times must lie in \[0, 3\], where DDPM is defined, but span 2 … 4",
        ),
    ],
)
def test_half_steps_of_a_chain_mean_nothing(times, solver, message):
    with pytest.raises(ValueError, match=message):
        sg.simulate(sg.DDPM([0.1, 0.2, 0.4]), X, times, solver=solver, rng=0)


def test_the_inverse_chain_goes_down():
    reverse = sg.DDPM([0.1, 0.2, 0.4]).reverse(lambda x, t: -x)
    with pytest.raises(
        ValueError, match=r"times increase, but AncestralChain is a reverse process"
    ):
        sg.simulate(reverse, X, [0.0, 1.0], rng=0)
    with pytest.raises(ValueError, match=r"times must lie in \[0, 3\], where AncestralChain"):
        sg.simulate(reverse, X, [4.0, 3.0], rng=0)


def test_many_numbers_do_not_ask_a_chain_at_its_end():
    """A state that is cut into blocks is probed for coupling, at times from which a step starts.

    Var x_N = σ_N² from x_0 = 0; 96,000 numbers, 5 standard errors of a variance (5e-7).
    """
    chain = sg.DDPM.discretize(sg.VP(sg.LinearBeta(0.1, 20.0)), steps=50)
    x0, k = torch.zeros(1500, 1, 8, 8), torch.arange(51.0)
    tolerance = 5 * math.sqrt(2 / x0.numel())
    for times in (k, k[:2]):
        final = sg.simulate(chain, x0, times, rng=0, keep_path=False).final
        exact = float(chain.sigmas[int(times[-1])]) ** 2
        assert float(final.double().square().mean()) == pytest.approx(exact, rel=tolerance)
    run = sg.run_ensemble(
        chain, x0[:1], k, trajectories=1500, observables=[sg.Moments(covariance=False)], rng=0
    )
    assert run.trajectories == 1500
    back = chain.reverse(lambda x, t: -x, "beta")  # of N(0, I), which the chain keeps
    final = sg.simulate(back, VP.prior((1500, 1, 8, 8), rng=1), k.flip(0), rng=0)
    assert float(final.final.double().square().mean()) == pytest.approx(1, rel=tolerance)


def test_a_time_at_which_no_step_starts_is_refused():
    chain = sg.DDPM([0.1, 0.2, 0.4])
    reverse = chain.reverse(lambda x, t: -x)
    for sde, wrong, steps in (
        (chain, 3.0, "0 … 2"),
        (chain, -1.0, "0 … 2"),
        (reverse, 0.0, "1 … 3"),
    ):
        for t in (torch.tensor(wrong), torch.full((len(X),), wrong)):
            for field in (sde.drift, sde.diffusion):
                with pytest.raises(
                    ValueError, match=f"starts at k = {steps}, .* at k = {wrong:g};"
                ):
                    field(X, t)
