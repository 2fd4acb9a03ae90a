import math

import pytest
import torch
from exact import noised_gaussian

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.solvers.metropolis import mala_step

F64 = torch.float64
T = torch.tensor(0.3, dtype=F64)


def mixture():
    return sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], stds=0.6)


def law(x, t):
    return mixture().log_prob(x)


def score(x, t):
    return mixture().force(x)


def walk(h, steps, adjusted, n=40_000):
    """States after some steps from the very law, and the share that was accepted."""
    x, source = mixture().sample(n, rng=0, dtype=F64), stream(1, "mala")
    h, share = torch.tensor(h, dtype=F64), 0.0
    for _ in range(steps):
        z, u = (source.normal(tuple(x.shape), dtype=F64) for _ in range(2))
        if adjusted:
            x, accepted = mala_step(x, T, score, law, h, z, u)
            share += float(accepted.double().mean()) / steps
        else:
            x = sg.update(x, score(x, T), h) + torch.sqrt(2 * h) * z
    return x, share


def off(x):
    """Largest deviation of first and second moments from the exact ones, in standard errors."""
    g, n = mixture(), len(x)
    products = torch.stack([x[:, 0] ** 2, x[:, 1] ** 2, x[:, 0] * x[:, 1]], 1)
    second = g.covariance + g.mean[:, None] * g.mean
    exact = torch.cat([g.mean, second[[0, 1, 0], [0, 1, 1]]])
    seen = torch.cat([x, products], 1)
    return float(((seen.mean(0) - exact).abs() / (seen.std(0) / math.sqrt(n))).max())


def test_the_law_is_stationary_with_the_metropolis_step_and_not_without_it():
    # 5 moments at 4.9 standard errors: false alarm 5e-6
    for h, least, most in ((0.05, 0.9, 1.0), (0.4, 0.3, 0.9)):
        x, share = walk(h, 20, adjusted=True)
        assert off(x) < 4.9
        assert least < share < most
    x, _ = walk(0.4, 20, adjusted=False)
    assert off(x) > 30


def test_acceptance_of_a_gaussian_is_the_closed_form():
    # p = N(0, 1): log a = −h²/4 (x'² − x²)/... , averaged by Gauss–Hermite over x and z
    h, n = 0.7, 200_000
    x = stream(0, "x").normal((n, 1), dtype=F64)
    z, u = (stream(k, "zu").normal((n, 1), dtype=F64) for k in (1, 2))
    _, accepted = mala_step(
        x, T, lambda x, t: -x, lambda x, t: -0.5 * x[:, 0] ** 2, torch.tensor(h, dtype=F64), z, u
    )
    ahead = (1 - h) * x + math.sqrt(2 * h) * z
    # log a = (h/4) (|score(x)|² − |score(x')|²) for a Gaussian of variance 1
    expected = torch.exp(0.25 * h * (x**2 - ahead**2)).clamp(max=1.0)
    assert abs(float(accepted.double().mean() - expected.mean())) < 4.4 * 0.5 / math.sqrt(n)


def test_detailed_balance_holds_pointwise():
    # p(x) q(x'|x) a(x, x') = p(x') q(x|x') a(x', x): the two log-ratios are opposite, and
    # min(1, a) follows. Both are read off by a bisection of the deciding draw.
    h, x = torch.tensor(0.3, dtype=F64), torch.tensor([[0.4, -0.2]], dtype=F64)
    z = torch.tensor([[0.7, -1.1]], dtype=F64)
    root = torch.sqrt(2 * h)
    ahead = x + h * score(x, T) + root * z
    back = (x - ahead - h * score(ahead, T)) / root

    def acceptance(a, noise):
        low, high = -9.0, 9.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            u = torch.full((1, 2), middle, dtype=F64)
            if bool(mala_step(a, T, score, law, h, noise, u)[1]):
                low = middle
            else:
                high = middle
        return float(torch.special.ndtr(torch.tensor(low, dtype=F64)))

    def density(a, noise):
        return float((law(a, T) - 0.5 * noise.square().sum()).exp())

    there = density(x, z) * acceptance(x, z)
    assert there == pytest.approx(density(ahead, back) * acceptance(ahead, back), rel=1e-9)


def test_corrector_leaves_the_marginals_of_coarse_steps_better():
    sde, noised = noised_gaussian(mean=0.0, std=0.1, t_min=1e-2)
    m, v = noised.moments(sde.t_min)

    def log_prob(x, t):
        mean, variance = noised.moments(t)
        return -0.5 * (x[:, 0] - mean) ** 2 / variance

    n, times = 20_000, sg.timesteps.log_snr(sde, 12)
    x = sde.prior((n, 1), rng=0, dtype=F64)
    errors = []
    for solver in (
        sg.DDIM(),
        sg.MetropolisCorrector(log_prob, predictor=sg.DDIM(), corrector_steps=10, step_size=1.0),
    ):
        for eta in (0.0, 1.0):
            dynamics = sg.ReverseSDE(sde, noised.score, eta)
            run = sg.simulate(dynamics, x, times, solver=solver, rng=1, keep_path=False)
            errors.append(float((run.final - m).square().mean() / v - 1))
            assert run.nfe == (12 if solver == sg.DDIM() else 12 + 12 * 20)
    alone, mended = errors[:2], errors[2:]
    # 4.4 standard errors of a variance from n draws: false alarm 1e-5
    assert all(abs(e) > 0.1 for e in alone)
    assert all(abs(e) < 4.4 * math.sqrt(2 / n) for e in mended)


def dynamics_and_law(t_min=1e-2):
    sde, noised = noised_gaussian(t_min=t_min)

    def log_prob(x, t):
        mean, variance = noised.moments(t)
        return -0.5 * (x[:, 0] - mean) ** 2 / variance

    return sde, noised.score, log_prob


def test_a_score_that_the_corrector_finds_lost_is_a_loss():
    sde, score, log_prob = dynamics_and_law()

    def broken(x, t):
        # one trajectory in four, at times that the predictor, which asks before, never sees
        return torch.where((t < 0.02) & (x > x.quantile(0.75)), torch.nan, score(x, t))

    dynamics, x = sg.ReverseSDE(sde, broken, eta=0.0), sde.prior((40, 1), rng=0, dtype=F64)
    times, solver = sde.time_grid(8), sg.MetropolisCorrector(log_prob)
    said = (
        r"^10 of 40 trajectories non-finite by t = 0\.01; .* The score is not finite at t = 0\.01"
    )
    with pytest.raises(sg.NonFiniteError, match=said):
        sg.simulate(dynamics, x, times, solver=solver, rng=1)
    run = sg.simulate(dynamics, x, times, solver=solver, rng=1, on_nonfinite="freeze")
    assert int(run.nonfinite.sum()) == 10


def test_a_density_that_is_none_where_a_state_is_is_named():
    sde, score, log_prob = dynamics_and_law()
    dynamics, x = sg.ReverseSDE(sde, score), sde.prior((40, 1), rng=0, dtype=F64)

    def run(density):
        solver = sg.MetropolisCorrector(density)
        return sg.simulate(dynamics, x, sde.time_grid(4), solver=solver, rng=1)

    for value in (torch.nan, torch.inf):
        with pytest.raises(
            sg.NonFiniteError, match=rf"log_prob is {value:g} at t = 0\.505 for 40"
        ):
            run(lambda x, t, v=value: torch.where(t < 0.6, v, log_prob(x, t)))
    with pytest.raises(ValueError, match=r"must return shape \(40,\), .* but returned \(\)\."):
        run(lambda x, t: log_prob(x, t).sum())
    with pytest.raises(ValueError, match=r"must return shape \(40,\), .* returned \(40, 1\)\."):
        run(lambda x, t: log_prob(x, t)[:, None])


def test_a_proposal_at_which_nothing_is_known_is_refused_and_no_density_is_left():
    h, x = torch.tensor(0.5, dtype=F64), torch.tensor([[0.9], [-1.5]], dtype=F64)
    z, u = torch.tensor([[3.0], [2.0]], dtype=F64), torch.zeros(2, 1, dtype=F64)

    def inside(x, t):
        return torch.where(x[:, 0].abs() < 1, 0.0, -torch.inf)

    def flat(x, t):
        return torch.where(x < 2, 0.0, torch.nan)  # NaN at the first proposal, 0.9 + 3

    ahead, accepted = mala_step(x, T, flat, inside, h, z, u)
    assert accepted.tolist() == [False, True]
    assert ahead.flatten().tolist() == pytest.approx([0.9, -1.5 + 2.0])


def test_refusals(as_user):
    with pytest.raises(TypeError, match=r"log_prob must be a function.*but is 'log_prob'"):
        sg.MetropolisCorrector("log_prob")
    with pytest.raises(ValueError, match="corrector_steps must be ≥ 1, but is 0"):
        sg.MetropolisCorrector(law, corrector_steps=0)
    with pytest.raises(TypeError, match=r"corrector_steps must be an int, but is float"):
        sg.MetropolisCorrector(law, corrector_steps=1.5)
    with pytest.raises(TypeError, match=r"predictor must be a solver, .* class: pass DDIM\(\)"):
        sg.MetropolisCorrector(law, sg.DDIM)
    with pytest.raises(TypeError, match=r"predictor must be .* fixed steps.* is AdaptiveHeun"):
        sg.MetropolisCorrector(law, sg.AdaptiveHeun())
    with pytest.raises(ValueError, match=r"predictor must end .* which FinalDenoising replaces"):
        sg.MetropolisCorrector(law, sg.FinalDenoising())
    with pytest.raises(ValueError, match=r"step_size must be finite and > 0, but is -1"):
        sg.MetropolisCorrector(law, step_size=-1.0)
    with pytest.raises(ValueError, match=r"predictor\.substeps must be 1, but is 3"):
        sg.MetropolisCorrector(law, predictor=sg.DDIM(substeps=3))
    with pytest.raises(ValueError, match=r"needs a score and the σ of a kernel.*ItoProcess"):
        sg.simulate(
            sg.ItoProcess(lambda x: -x, 1.0), torch.zeros(2, 2), [0.0, 1.0],
            solver=sg.MetropolisCorrector(law),
        )  # fmt: skip
