"""Weightings, densities of t and losses: optima, identities and gradients on a Gaussian."""

import itertools
import math

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.score.losses import TimeSampler
from sdegen.score.losses.implicit import implicit_objective, sliced_objective
from sdegen.score.losses.times import StepSampler
from sdegen.score.losses.weights import path_weight
from sdegen.training import Batch, BatchNoise

F64 = torch.float64
SPREAD = 0.6
SDES = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
}
VP = SDES["VP"]
WORDS = ("simple", "likelihood", "variational", "min-snr")
READINGS = {
    "eps": sg.EpsPrediction(),
    "x0": sg.X0Prediction(),
    "v": sg.VPrediction(),
    "score": sg.ScorePrediction(),
    "flow": sg.FlowPrediction(),
    "edm": sg.EDMPrediction(SPREAD),
}


def early(t):
    """Weights of a user: early times count."""
    return 0.1 + (1.5 - t) ** 2


def noise(n, seed=0):
    return BatchNoise(Streams(seed, "test").block(0), n)


def gaussian(n, d=1, seed=0):
    return SPREAD * torch.randn(n, d, dtype=F64, generator=torch.Generator().manual_seed(seed))


class Reads(nn.Module):
    """Puts out what is read as ε̂ = c(α, σ, t) x_t; is told t itself."""

    def __init__(self, sde, how, c):
        super().__init__()
        self.sde, self.how, self.c = sde, how, c

    def forward(self, x, t):
        t = t[:, None]
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        x_t = x * self.how.scale(alpha, sigma)
        eps = self.c(alpha, sigma, t) * x_t
        return self.how.target((x_t - sigma * eps) / alpha, eps, alpha, sigma)


def told(sde, how, c):
    """Return a model whose network is told t, whatever number stands for it else."""
    clock = type(how.__class__.__name__, (type(how),), {"c_noise": lambda self, t, *_: t})
    how = clock(**vars(how))
    return sg.ScoreModel(Reads(sde, how, c), sde, how)


def best(alpha, sigma):
    """E[ε | x_t] = c x_t for data N(0, SPREAD²)."""
    return sigma / (alpha**2 * SPREAD**2 + sigma**2)


# --- what the words mean


@pytest.mark.parametrize("name", SDES)
def test_the_words_are_the_weights_of_their_papers(name):
    """SNR by α and σ; rates of log SNR by autograd: to rounding."""
    sde = SDES[name]
    t = torch.linspace(sde.t_min, 0.95 * sde.t_max, 40, dtype=F64, requires_grad=True)
    snr = (sde.alpha(t) / sde.sigma(t)).square()
    (slope,) = torch.autograd.grad(snr.log().sum(), t)
    t, snr = t.detach(), snr.detach()
    g_sigma = (sde.diffusion_rate(t) / sde.sigma(t)).square()
    torch.testing.assert_close(path_weight(sde, "likelihood")(t), g_sigma)
    torch.testing.assert_close(path_weight(sde, "likelihood")(t), -slope)
    torch.testing.assert_close(path_weight(sde, "variational")(t), -0.5 * slope)
    # of x0 the weight is min(SNR, 5), of v min(SNR, 5)/(SNR + 1): errors of ε are √SNR of x0's,
    # and √(SNR/(1 + SNR))^-1 … of v's
    of_x0, of_v = snr.clamp(max=5), snr.clamp(max=5) / (snr + 1)
    torch.testing.assert_close(path_weight(sde, "min-snr")(t), of_x0 / snr)
    torch.testing.assert_close(path_weight(sde, "min-snr")(t), of_v * (1 + snr) / snr)
    assert float(path_weight(sde, "simple")(t).std()) == 0


@pytest.mark.parametrize("how", READINGS.values(), ids=READINGS.keys())
@pytest.mark.parametrize("weighting", [*WORDS, early], ids=[*WORDS, "own"])
def test_one_number_however_the_output_is_read(weighting, how):
    """ε̂ = ½ x_t by any reading has one loss, to 1e-10; that by hand is w/(Z q) (½ x_t − ε)²."""
    n, x0 = 64, gaussian(64)
    for times in ("importance", "uniform"):
        loss = sg.DenoisingLoss(weighting, times=times)
        model = told(VP, how, lambda *_: 0.5).train()
        found = loss(model, Batch(x0), noise(n))
        draws = noise(n)
        u = draws.stratified()
        sampler = TimeSampler(VP, weighting, times)
        t = sampler.quantile(u)
        x_t, eps = VP.perturb(x0, t, rng=0)
        eps = draws.normal_like(x0)
        x_t = VP.alpha(t)[:, None] * x0 + VP.sigma(t)[:, None] * eps
        expected = (0.5 * x_t - eps).square()[:, 0]
        if times == "uniform":
            s = torch.linspace(VP.t_min, VP.t_max, 400_001, dtype=F64)
            total = torch.trapezoid(path_weight(VP, weighting)(s), s)
            expected = expected * path_weight(VP, weighting)(t) * (VP.t_max - VP.t_min) / total
            assert sampler.total == pytest.approx(float(total), rel=3e-6)
            expected = expected * float(total) / sampler.total
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("weighting", [*WORDS, "edm", early], ids=[*WORDS, "edm", "own"])
def test_the_objective_is_the_same_for_every_density_of_times(name, weighting):
    """By the error of ε̂ = x_t, known in closed form, at 200,000 quantiles."""
    sde = SDES[name]
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000

    def error(t):
        return (sde.alpha(t) * SPREAD).square() / (1 + sde.sigma(t) ** 2) + (t - 0.3) ** 2

    values = []
    for times in ("importance", "uniform", "log-snr", lambda t: 0.2 + t.sin() ** 2):
        sampler = TimeSampler(sde, weighting, times)
        t = sampler.quantile(u)
        ratio = sampler.ratio(u, t)
        assert (ratio is None) == (
            times == "importance" or (times == "uniform" and weighting == "simple")
        )
        values.append(float((error(t) * (1 if ratio is None else ratio)).mean()))
    # t of even steps in its logarithm, which all these weights are smooth in
    s = torch.logspace(0, 1, 100_001, base=sde.t_max / sde.t_min, dtype=F64) * sde.t_min
    w = path_weight(sde, weighting)(s) * s
    direct = float(torch.trapezoid(w * error(s), s.log()) / torch.trapezoid(w, s.log()))
    assert values[1:] == pytest.approx([direct] * 3, rel=2e-5)
    assert values[2:] == pytest.approx([values[1]] * 2, rel=2e-6)
    # the weight is drawn from as a table of cells, and EDM's are wide in the tail
    assert values[0] == pytest.approx(direct, rel=1e-4 if weighting == "edm" else 2e-5)


def test_the_variational_loss_is_the_integral_of_the_elbo():
    """d Z L = ½ ∫ g² ‖ŝ − s*‖² dt, s* that of the kernel; and Z the half of the range of λ."""
    sampler = TimeSampler(VP, "variational")
    ends = torch.tensor([VP.t_min, VP.t_max], dtype=F64)
    gap = 2 * VP.kernel.log_ratio(ends).diff()
    assert sampler.total == pytest.approx(float(gap) / 2, rel=1e-9)
    s = torch.logspace(-3, 0, 200_001, dtype=F64)
    alpha, sigma = VP.alpha(s), VP.sigma(s)
    # ŝ = −x_t/2 and s* = −ε/σ: E (ŝ − s*)² with x_t = α x0 + σ ε
    square = (0.5 * alpha * SPREAD) ** 2 + (0.5 * sigma - 1 / sigma) ** 2
    direct = torch.trapezoid(0.5 * VP.diffusion_rate(s) ** 2 * square * s, s.log())
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    t = sampler.quantile(u)
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    of_eps = (0.5 * sigma * alpha * SPREAD) ** 2 + (0.5 * sigma**2 - 1) ** 2
    assert float(of_eps.mean()) * sampler.total == pytest.approx(float(direct), rel=2e-6)


# --- chains


def test_the_steps_of_a_chain_are_drawn_as_in_algorithm_1():
    """A stratified batch of N rows has each step once; unit weights."""
    chain = sg.DDPM.discretize(VP, steps=50)
    sampler = StepSampler(VP, chain, "simple")
    u = noise(50).stratified()
    assert sampler.steps(u).tolist() == list(range(1, 51))
    assert torch.equal(sampler.quantile(u), chain.times[1:])
    torch.testing.assert_close(sampler.ratio(u, u), torch.ones(50, dtype=F64))
    seen = []

    class Watches(nn.Module):
        def forward(self, x, t):
            seen.append(t)
            return 0 * x

    model = sg.ScoreModel(Watches(), VP).train()
    sg.DenoisingLoss("simple", steps=chain)(model, Batch(gaussian(50)), noise(50))
    assert torch.equal(seen[0], chain.times[1:])


@pytest.mark.parametrize("name", ["VP", "VE"])
def test_the_variational_weights_of_a_chain_are_its_divergences(name):
    """w_k ‖ε̂ − ε‖² = KL(q(x_{k−1} | x_k, x0) ‖ p) of two Gaussians, by their densities: 1e-10."""
    sde = SDES[name]
    chain = sg.DDPM.discretize(sde, steps=30)
    sampler = StepSampler(sde, chain, "variational")
    x0, eps = torch.tensor([[0.7]], dtype=F64), torch.tensor([[-0.4]], dtype=F64)
    for k in range(1, 31):
        t = chain.times[k]
        x_k = sde.alpha(t) * x0 + sde.sigma(t) * eps
        back = chain.reverse(lambda x, t: -(eps + 0.3) / sde.sigma(t))  # ε̂ = ε + 0.3
        mean = x_k - back.drift(x_k, torch.tensor(float(k), dtype=F64))
        a, b2 = chain.a[k - 1], chain.b[k - 1] ** 2
        low = chain.sigmas[k - 1] ** 2
        before = sde.alpha(chain.times[k - 1]) * x0
        if k == 1:
            variance, truth = b2, before  # −log p(x0 | x_1) less its constant
        else:
            variance = 1 / (a**2 / b2 + 1 / low)
            truth = variance * (a * x_k / b2 + before / low)
            assert float(variance) == pytest.approx(float(back.stds[k - 1]) ** 2, rel=1e-9)
        divergence = float((mean - truth).square() / (2 * variance))
        assert float(sampler.weights[k - 1]) * 0.09 == pytest.approx(divergence, rel=1e-8)
    # and half the ratios of SNR, less one
    snr = (sde.alpha(chain.times[1:]) / chain.sigmas[1:]).square()
    torch.testing.assert_close(
        sampler.weights[1:], 0.5 * (snr[:-1] / snr[1:] - 1), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("weighting", [*WORDS, early], ids=[*WORDS, "own"])
def test_every_probability_of_steps_has_the_same_sum(weighting):
    chain = sg.DDPM.discretize(VP, steps=20)
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    values = []
    for times in ("importance", "uniform", "log-snr", lambda t: 1 + t):
        sampler = StepSampler(VP, chain, weighting, times)
        t = sampler.quantile(u)
        values.append(float((sampler.ratio(u, t) * t.cos()).mean()))
    direct = float((sampler.weights * chain.times[1:].cos()).sum() / sampler.weights.sum())
    assert values == pytest.approx([direct] * 4, rel=1e-3)


# --- optima


class Signs(BatchNoise):
    """±1 in the place of normals, of which the means of squares and products are the same."""

    def normal_like(self, x):
        return 1 - 2.0 * (torch.arange(len(x)) // 2 % 2).to(x)[:, None]


def newton(loss, sde, how):
    """Minimise a loss that is quadratic in θ of ε̂ = (θ_0 + θ_1 t/t_max) c*(t) x_t."""
    n = 8192
    x0 = SPREAD * (1 - 2.0 * (torch.arange(n, dtype=F64) % 2))[:, None]
    theta = torch.zeros(2, dtype=F64, requires_grad=True)

    def c(alpha, sigma, t):
        return (theta[0] + theta[1] * t / sde.t_max) * best(alpha, sigma)

    model = told(sde, how, c).train()
    value = loss(model, Batch(x0), Signs(Streams(0, "test").block(0), n)).mean()
    (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
    rows = [torch.autograd.grad(g, theta, retain_graph=True)[0] for g in gradient]
    return -torch.linalg.solve(torch.stack(rows), gradient.detach())


CASES = [
    *itertools.product(["VP"], READINGS, [*WORDS, "own"]),
    *itertools.product(["VE"], ["eps", "v"], WORDS),
    ("rectified flow", "flow", "flow-matching"),
    ("VP", "v", "flow-matching"),
    ("VP", "edm", "edm"),
]


@pytest.mark.parametrize(("name", "reading", "weighting"), CASES)
def test_the_optimum_is_the_exact_score(name, reading, weighting):
    """Relative error of the score ≤ 1e-2 at every t; the means are exact, by signs."""
    sde = SDES[name]
    loss = sg.DenoisingLoss(early if weighting == "own" else weighting)
    theta = newton(loss, sde, READINGS[reading])
    assert (theta[0] + theta[1] * torch.tensor([0.0, 1.0]) - 1).abs().max() < 1e-2, theta


@pytest.mark.parametrize("loss", [sg.ImplicitLoss("likelihood"), sg.SlicedLoss("min-snr")])
def test_without_noise_to_be_told_the_optimum_is_the_same(loss):
    theta = newton(loss, VP, sg.EpsPrediction())
    assert (theta[0] + theta[1] * torch.tensor([0.0, 1.0]) - 1).abs().max() < 1e-2, theta


# --- implicit and sliced


class Bent(nn.Module):
    """A network that is not linear, with one weight for each row, whose gradients are its own."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x, t):
        mixed = x + 0.5 * x.roll(1, -1) if x.shape[-1] > 1 else x
        return self.weight * torch.sin(1.5 * mixed) + 0.3 * x * t[:, None]


def test_sliced_averaged_over_all_signs_is_implicit():
    """E v vᵀ = I over {±1}³ exactly, in both forms: 1e-12."""
    model = sg.ScoreModel(Bent(torch.full((1, 1), 0.7, dtype=F64)), VP)
    x, t = gaussian(9, 3), torch.linspace(0.1, 0.9, 9, dtype=F64)
    implicit = implicit_objective(model, x, t).detach()
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=F64)
    directions = [v.expand(9, 3) for v in signs]
    for reduced in (True, False):
        sliced = sliced_objective(model, x, t, directions, variance_reduced=reduced)
        torch.testing.assert_close(sliced, implicit, rtol=1e-12, atol=1e-12)
    # by hand: the Jacobian of the score at each row
    for i in range(9):
        jacobian = torch.autograd.functional.jacobian(
            lambda y, i=i: model.score(y[None], t[i : i + 1])[0], x[i]
        )
        by_hand = 0.5 * model.score(x[i : i + 1], t[i : i + 1]).square().sum() + jacobian.trace()
        assert float(implicit[i]) == pytest.approx(float(by_hand.detach()), rel=1e-12)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.9])
@torch.no_grad()
def test_denoising_is_implicit_and_one(t):
    """E (ε̂ − ε)² = 2 σ² J + 1, both by quadrature of Gauss and Hermite: 1e-9."""
    nodes, weights = (torch.as_tensor(a) for a in _hermite(120))
    time = torch.tensor(t, dtype=F64)
    alpha, sigma = VP.alpha(time), VP.sigma(time)
    model = sg.ScoreModel(Bent(torch.full((1, 1), 0.7, dtype=F64)), VP)
    x0, eps = (a.reshape(-1, 1) for a in torch.meshgrid(SPREAD * nodes, nodes, indexing="ij"))
    both = (weights[:, None] * weights).flatten()
    error = model.form.error(model, x0, time.expand(len(x0)), eps, in_output=False)
    denoising = float((both * error.square()[:, 0]).sum())
    spread = (alpha**2 * SPREAD**2 + sigma**2).sqrt()
    x_t = (spread * nodes)[:, None]
    implicit = float((weights * implicit_objective(model, x_t, time.expand(len(x_t)))).sum())
    assert denoising == pytest.approx(float(2 * sigma**2) * implicit + 1, rel=1e-9)


def _hermite(n):
    from numpy.polynomial.hermite_e import hermegauss

    nodes, weights = hermegauss(n)
    return nodes, weights / weights.sum()


def test_implicit_sliced_and_denoising_gradients_agree():
    """In expectation over data, times and noise, within 4.4 standard errors: 1e-5 each."""
    n, means, errors = 60_000, {}, {}
    x0 = gaussian(n, 2)
    for seed, loss in enumerate((
        sg.DenoisingLoss("simple"),
        sg.ImplicitLoss("simple"),
        sg.SlicedLoss("simple"),
        sg.SlicedLoss("simple", directions="gaussian", projections=2),
        sg.SlicedLoss("simple", directions="sphere", variance_reduced=False),
        sg.ImplicitLoss("simple", times="log-snr"),
        sg.DenoisingLoss("simple", stratified=False),
    )):  # fmt: skip
        network = Bent(torch.full((n, 1), 0.7, dtype=F64))
        model = sg.ScoreModel(network, VP).train()
        loss(model, Batch(x0), noise(n, seed=seed)).sum().backward()
        gradient = network.weight.grad[:, 0]
        means[seed], errors[seed] = float(gradient.mean()), float(gradient.std()) / math.sqrt(n)
    assert errors[0] < 0.01 < abs(means[0])
    for seed in range(1, 7):
        # rows are common to all, which makes the difference smaller than this
        joint = math.hypot(errors[0], errors[seed])
        assert means[seed] == pytest.approx(means[0], abs=4.4 * joint), seed


def test_states_of_a_known_time_have_the_loss_of_hyvarinen():
    """½ a² x² − a of the score −a x, for a number, for labels, and for any weight of times."""

    class Steep(nn.Module):
        def forward(self, x, t):
            return -2.0 * x

    class Linear(sg.ScorePrediction):
        def scale(self, alpha, sigma):
            return torch.ones_like(alpha)

    model = sg.ScoreModel(Steep(), VP, Linear()).train()
    x, t = gaussian(30), torch.linspace(0.1, 0.9, 30, dtype=F64)
    expected = 2 * x.square()[:, 0] - 2
    found = sg.ImplicitLoss(at=0.4)(model, Batch(x), noise(30))
    torch.testing.assert_close(found, expected)
    by_label = sg.ImplicitLoss(lambda t: 1 + t, at="labels")(model, Batch(x, t), noise(30))
    torch.testing.assert_close(by_label, expected * (1 + t))
    for kind in (sg.ImplicitLoss, sg.SlicedLoss):
        with torch.no_grad():  # as in a validation
            value = kind(at=0.4)(model.eval(), Batch(x), noise(30))
        torch.testing.assert_close(value, expected)
        assert not value.requires_grad


def test_samples_alone_are_enough_to_learn_a_score():
    """Of variance 0.36, at one t by `fit`, and by the time of each row: s = −x/0.36."""

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros((), dtype=F64))

        def forward(self, x, t):
            return self.weight * x

    class Linear(sg.ScorePrediction):
        def scale(self, alpha, sigma):
            return torch.ones_like(alpha)

    data = gaussian(64).sign() * SPREAD  # whose squares are the same in every batch
    config = sg.FitConfig(steps=60, batch_size=16, learning_rate=0.5, warmup=2, ema_decay=0.8)
    for loss, labels in (
        (sg.ImplicitLoss(at=0.5), None),
        (sg.SlicedLoss(at="labels"), torch.full((64,), 0.5, dtype=F64)),
    ):
        model = sg.ScoreModel(Line(), VP, Linear())
        sg.fit(model, data, loss, config, labels=labels, rng=0)
        assert model.network.weight.item() == pytest.approx(-1 / SPREAD**2, rel=1e-2)


# --- refusals


def test_what_cannot_be_weighed_is_refused_by_name():
    model = sg.ScoreModel(sg.MLP(1, width=4, rng=0).double(), VP)
    batch = Batch(gaussian(8))
    for loss, words in (
        (
            sg.DenoisingLoss(lambda t: t - 0.5),
            r"weighting\(t\) must be finite and ≥ 0, but is -0.4",
        ),
        (
            sg.DenoisingLoss(lambda t: 0 * t),
            r"weighting\(t\) is 0 from t_min = 0.001 to t_max = 1",
        ),
        (sg.DenoisingLoss(lambda t: t.sum()), r"one number for each time, shape .* returned \(\)"),
        (sg.DenoisingLoss(times=lambda t: 0 * t), r"times\(t\) must be finite and > 0, but is 0"),
        (sg.DenoisingLoss(steps=sg.DDPM([0.1, 0.2])), r"steps are those of another process: at k"),
        (
            sg.DenoisingLoss("edm", steps=sg.DDPM.discretize(VP, 10)),
            r"weighting = 'edm' is a loss in continuous time",
        ),
        (sg.ImplicitLoss(at="labels"), "reads the time of each row from labels; pass labels="),
    ):
        with pytest.raises(ValueError, match=words):
            loss.prepare(model, batch)(model, batch, noise(8))
    with pytest.raises(TypeError, match=r"weighting\(t\) must return a tensor .* returned float"):
        sg.DenoisingLoss(lambda t: 1.0).prepare(model, batch)
    with pytest.raises(ValueError, match="of at most 64, but there are 65; take SlicedLoss"):
        sg.ImplicitLoss().prepare(model, Batch(torch.zeros(2, 65)))
    for make, words in (
        (
            lambda: sg.ImplicitLoss("edm"),
            "counts errors of an output, which ImplicitLoss does not",
        ),
        (lambda: sg.ImplicitLoss("likelihood", at=0.5), "weighs times that are drawn, but at"),
        (lambda: sg.ImplicitLoss(at=-1.0), "at must be a time > 0, but is -1"),
        (lambda: sg.SlicedLoss(at=0.5, times="uniform"), "none are drawn"),
        (
            lambda: sg.SlicedLoss(directions="cube"),
            "directions must be 'rademacher' or 'gaussian'",
        ),
        (lambda: sg.SlicedLoss(projections=0), "projections must be ≥ 1"),
        (lambda: sg.DenoisingLoss(times="often"), "times must be 'importance' or 'uniform' or"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    with pytest.raises(TypeError, match=r"steps must be a DDPM chain, such as .*, but is 1000"):
        sg.DenoisingLoss(steps=1000)
