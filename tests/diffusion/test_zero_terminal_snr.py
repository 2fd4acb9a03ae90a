"""Paths on which no signal is left: schedules, first steps in x0, laws, bounds and training."""

import itertools
import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
LINEAR = sg.LinearBeta(0.1, 20.0)
SDE = sg.VP(sg.ZeroTerminalSNR(LINEAR))
CHAIN = sg.DDPM.discretize(SDE, 12)
MEAN, STD = 0.7, 0.5
LAW = sg.GaussianMixture([1.0], [[MEAN]], stds=STD).noised(SDE)


def spread(k, chain=CHAIN):
    """Standard deviation of x_k."""
    return (chain.alphas[k] ** 2 * STD**2 + chain.sigmas[k] ** 2).sqrt()


class Velocity(torch.nn.Module):
    """v of data N(MEAN, STD²), exactly."""

    def __init__(self, sde=SDE):
        super().__init__()
        self.sde, self.weight = sde, torch.nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x, t):
        alpha, sigma = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None]
        off = (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
        return alpha * sigma * off - sigma * (MEAN + alpha * STD**2 * off) + self.weight


MODEL = sg.ScoreModel(Velocity(), SDE, sg.VPrediction())
MODEL.event_shape = (1,)


@pytest.mark.parametrize("beta", [LINEAR, sg.CosineBeta(), sg.ConstantBeta(3.0, t_max=2.0)])
def test_what_is_left_at_the_end_is_taken_from_all_levels(beta):
    """α' = (α − c)/(1 − c): ratios of Lin et al.'s algorithm 1; 0 in any dtype."""
    path, plain = sg.VP(sg.ZeroTerminalSNR(beta)), sg.VP(beta)
    t = torch.linspace(0.0, beta.t_max, 41, dtype=F64)
    alpha, c = plain.alpha(t), plain.alpha(t[-1])
    torch.testing.assert_close(path.alpha(t), (alpha - c) / (1 - c), rtol=1e-12, atol=1e-15)
    first, roots = plain.alpha(t[1]), alpha[1:]
    theirs = first * (roots - c) / (first - c)
    ours = path.alpha(t[1:])
    torch.testing.assert_close(ours / ours[0], theirs / first, rtol=1e-12, atol=1e-15)
    for dtype in (torch.float32, F64):
        end = torch.tensor(beta.t_max, dtype=dtype)
        assert float(path.alpha(end)) == 0
        assert float(path.sigma(end)) == 1
    path.check_rates()
    assert path.ends_without_signal
    assert not plain.ends_without_signal


def test_the_first_step_of_a_chain_is_the_limit_of_little_signal():
    """β_N → 1: means, and those of a learned variance, differ by O(α_N), at slope 1."""
    x = torch.tensor([[-1.3], [0.2], [2.1]], dtype=F64)
    gaps = {"beta": [], "posterior": []}
    for left in (1e-2, 1e-3, 1e-4):
        for variance, found in gaps.items():
            steps = []
            for last in (1.0, 1 - left**2):
                chain = sg.DDPM([0.2, 0.5, last])
                score = Levels(chain)
                back = chain.reverse(score, variance)
                steps.append(x - back.drift(x, 3))
                assert float(back.diffusion(x, 3)) > 0
            found.append(float((steps[0] - steps[1]).abs().max()))
    for found in gaps.values():
        slopes = [math.log10(a / b) for a, b in itertools.pairwise(found)]
        assert all(abs(slope - 1) < 0.05 for slope in slopes), found


class Levels:
    """The score of N(MEAN, STD²) on the levels of a chain, and what it says of x0."""

    def __init__(self, chain):
        self.chain = chain

    def _at(self, t):
        k = int((self.chain.times - t).abs().argmin())
        return self.chain.alphas[k], self.chain.sigmas[k]

    def __call__(self, x, t):
        alpha, sigma = self._at(t)
        return -(x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)

    def x0(self, x, t):
        alpha, sigma = self._at(t)
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x - alpha * MEAN)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_the_first_step_of_ddim_is_the_limit_of_little_signal(eta):
    x, gaps = torch.tensor([[-1.3], [0.2], [2.1]], dtype=F64), []
    flow = sg.ReverseSDE(SDE, LAW.score, eta)
    exact = sg.simulate(flow, x, [1.0, 0.7], solver=sg.DDIM(), rng=0).final
    for h in (1e-2, 1e-3, 1e-4):
        near = sg.simulate(flow, x, [1 - h, 0.7], solver=sg.DDIM(), rng=0).final
        gaps.append(float((near - exact).abs().max()))
    slopes = [math.log10(a / b) for a, b in itertools.pairwise(gaps)]
    assert all(abs(slope - 1) < 0.2 for slope in slopes), gaps


def test_the_law_of_a_chain_is_exact():
    """`ChainMoments` beside Bayes, step by step: x_{k−1} on x_k is a line, plus s_k² of noise."""
    for score in (LAW.score, MODEL.score):
        back = CHAIN.reverse(score, "beta")
        times = torch.arange(13.0).flip(0)
        path = sg.ChainMoments(back, 1).run([0.0], 1.0, times)
        mean, variance = torch.tensor(0.0, dtype=F64), torch.tensor(1.0, dtype=F64)
        for k in range(12, 0, -1):
            slope = CHAIN.a[k - 1] * spread(k - 1) ** 2 / spread(k) ** 2
            mean = CHAIN.alphas[k - 1] * MEAN + slope * (mean - CHAIN.alphas[k] * MEAN)
            variance = slope**2 * variance + back.stds[k - 1] ** 2
            torch.testing.assert_close(path.means[13 - k, 0], mean, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(
                path.covariances[13 - k, 0, 0], variance, rtol=1e-9, atol=1e-12
            )
        # noise alone is where it begins, so that the mean is right whatever the steps
        assert abs(float(mean) - MEAN) < 1e-12


def test_the_law_of_ddim_is_exact():
    """A flow of Gaussian data in steps of DDIM: the mean is exact, the width that of its steps."""
    times = SDE.time_grid(40)
    flow = sg.ReverseSDE(SDE, MODEL.score, 0.0)
    law = sg.ChainMoments(flow, 1, sg.DDIM()).run([0.0], 1.0, times).final
    alpha, sigma = SDE.alpha(times), SDE.sigma(times)
    width = torch.tensor(1.0, dtype=F64)
    for i in range(40):  # x_s = α_s x̂0 + σ_s ε̂, both lines in x_t
        v = alpha[i] ** 2 * STD**2 + sigma[i] ** 2
        width = width * (alpha[i + 1] * alpha[i] * STD**2 + sigma[i + 1] * sigma[i]) / v
    torch.testing.assert_close(law.covariance[0, 0], width**2, rtol=1e-9, atol=0)
    torch.testing.assert_close(law.mean[0], alpha[-1] * MEAN, rtol=1e-9, atol=1e-12)
    drawn = sg.sample(MODEL, 4000, rng=0, dtype=F64)
    assert drawn.solver == sg.DDIM()
    assert drawn.nfe == 50
    # 4.5 standard errors: a false alarm of 7e-6
    assert abs(float(drawn.x.mean()) - MEAN) < 4.5 * STD / 4000**0.5


@pytest.mark.parametrize("variance", ["beta", "learned"])
def test_the_bound_has_no_term_of_the_prior(variance):
    """With the best variance the bound is log p on average: the prior is met exactly."""

    class Both(Velocity):
        """v, and o of the best variance."""

        def forward(self, x, t):
            k = (CHAIN.times - t[:, None]).abs().argmin(1)
            b, sigmas = CHAIN.b[k - 1], CHAIN.sigmas
            low = b * sigmas[k - 1] / sigmas[k]
            low = torch.where(k == 1, CHAIN.b[1] * sigmas[1] / sigmas[2], low)
            best = b * spread(k - 1) / spread(k)
            share = (best / low).log() / (b / low).log()
            # between two ends that nearly meet, any share is as good
            share = torch.where((b / low).log().abs() < 1e-12, 0.0, share)
            return torch.cat([super().forward(x, t), (2 * share - 1)[:, None].expand_as(x)], 1)

    model = sg.ScoreModel(Both(), SDE, sg.LearnedVariance(sg.VPrediction()))
    x = MEAN + STD * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    bound = sg.elbo(CHAIN.reverse(model.score, variance), x, rng=0)
    assert float(bound.prior.abs().max()) == 0
    gap = bound.log_prob - torch.distributions.Normal(MEAN, STD).log_prob(x[:, 0])
    error = float(gap.std()) / math.sqrt(len(x))
    if variance == "learned":
        assert abs(float(gap.mean())) < 4.5 * error < 0.03
    else:
        assert float(gap.mean()) < -4.5 * error


def test_guidance_tells_x0_too():
    score = sg.composition.guided(LAW.score, MODEL.score, 1.5)
    x = torch.tensor([[-1.0], [2.0]], dtype=F64)
    both = [CHAIN.reverse(s, "beta").drift(x, 12) for s in (score, LAW.score)]
    torch.testing.assert_close(*both)  # both say the mean
    counted = sg.simulate(CHAIN.reverse(MODEL.score), x, torch.arange(13.0).flip(0), rng=0)
    assert counted.nfe == 12


def test_times_of_their_own_are_asked_row_by_row():
    back, x = CHAIN.reverse(LAW.score, "beta"), torch.tensor([[-1.0], [2.0], [0.3]], dtype=F64)
    k = torch.tensor([12.0, 5.0, 12.0])
    rows = [back.drift(x[i : i + 1], int(k[i])) for i in range(3)]
    torch.testing.assert_close(back.drift(x, k.double()), torch.cat(rows))


def test_a_training_learns_the_mean_from_noise_alone(tmp_path):
    """At t_max the best x̂0 is the mean of the data; by the loss of v on a chain."""
    generator = torch.Generator().manual_seed(0)
    data = MEAN + STD * torch.randn(2000, 1, generator=generator)
    model = sg.ScoreModel(sg.MLP(1, width=16, depth=1, rng=0), SDE, sg.VPrediction())
    config = sg.TrainConfig(steps=400, batch_size=256, learning_rate=5e-3)
    sg.train(model, data, config, loss=sg.DenoisingLoss("flow-matching", steps=CHAIN), rng=0)
    noise = torch.randn(500, 1, generator=generator)
    off = model.x0(noise, 1.0).detach() - data.mean()
    assert float(off.abs().max()) < 0.1
    model.save(tmp_path / "m.safetensors")
    again = sg.ScoreModel.load(tmp_path / "m.safetensors")
    assert float(again.path.alpha(torch.tensor(1.0))) == 0
    torch.testing.assert_close(again.x0(noise, 1.0), model.x0(noise, 1.0))
