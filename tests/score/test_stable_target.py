"""Stable targets: means over examples that may be behind a state, without bias.

Statistical tests have a false-alarm rate of at most 1e-5 each.
"""

import itertools

import pytest
import torch

import sdegen as sg
from sdegen.score.losses.stable import kernel_of, posterior_means

F64 = torch.float64
SDES = {
    "VP": (sg.VP(sg.LinearBeta(0.1, 20.0)), (2,)),
    "OrnsteinUhlenbeck": (sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), (2,)),
    "full": (sg.LinearSDE([[1.0, 0.4], [-0.3, 0.8]], 0.6, [0.5, -0.2]), (2,)),
    "damped": (sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0, 0.7), (2,)),
    "heat": (sg.StochasticHeat((2, 2), 0.7, 0.5), (2, 2)),
}


@pytest.fixture(params=SDES.values(), ids=SDES.keys())
def problem(request):
    """A model, starts and times of rows, ε and three references, in float64."""
    sde, event = request.param
    numbers = torch.zeros(event).numel() * (2 if sde.phase_space else 1)
    model = sg.ScoreModel(sg.MLP(numbers, width=4, depth=1, rng=0).double(), sde)
    g = torch.Generator().manual_seed(0)
    x0, references = (torch.randn(n, *event, generator=g, dtype=F64) for n in (5, 3))
    t = torch.linspace(0.2, 0.8, 5, dtype=F64)
    shape = model.form.like_state(x0).shape
    return model, x0, t, torch.randn(shape, generator=g, dtype=F64), references


def test_distances_are_those_of_the_noise_that_each_start_would_need(problem):
    """‖L⁻¹ (x_t − Φ x_j − m)‖², asked one by one of `whiten`, which knows nothing of squares."""
    model, x0, t, eps, references = problem
    kernel, x_t = kernel_of(model.sde), model.form.noised(model, x0, t, eps)
    found = kernel.squared_distances(x_t, t, references)
    for j, start in enumerate(references):
        rest = x_t - kernel.mean(start.expand_as(x0), t)
        by_hand = kernel.whiten(rest, t).flatten(1).square().sum(1)
        torch.testing.assert_close(found[:, j].double(), by_hand, rtol=1e-5, atol=1e-4)
    own = torch.stack([kernel.squared_distances(x_t, t, x0)[i, i] for i in range(len(x0))])
    torch.testing.assert_close(own.double(), eps.flatten(1).square().sum(1), rtol=1e-5, atol=1e-4)


def test_the_state_stays_where_it_was(problem):
    """Φ x̄ + m + L ε̄ = x_t, so that the network is asked at the same state."""
    model, x0, t, eps, references = problem
    mean, noise = posterior_means(model, x0, t, eps, references)
    x_t = model.form.noised(model, x0, t, eps)
    torch.testing.assert_close(model.form.noised(model, mean, t, noise), x_t)


def test_targets_have_no_bias_for_any_number_of_references(problem):
    """Summed over all that p_0 = two points can draw, E[ε̄ | x_t] = E[ε | x_t] to rounding."""
    model, points, t, eps, _ = problem
    points, kernel = points[:2], kernel_of(model.sde)
    x_t = model.form.noised(model, points[:1], t[:1], eps[:1])
    noises = [kernel.whiten(x_t - kernel.mean(x[None], t[:1]), t[:1]) for x in points]
    chances = torch.stack([torch.exp(-0.5 * e.square().sum()) for e in noises])
    exact = sum(p * e for p, e in zip(chances, noises, strict=True)) / chances.sum()
    found = torch.zeros_like(exact)
    for own, *drawn in itertools.product(range(2), repeat=4):  # x_0 and three references
        _, mean = posterior_means(model, points[own][None], t[:1], noises[own], points[drawn])
        found += chances[own] * mean / chances.sum() / 2**3
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)


def test_distances_of_little_noise_keep_their_digits():
    """σ = 10⁻³ of 3,000 numbers: squares of 10⁹, of which float32 would leave nothing."""
    sde = sg.VE(sg.GeometricSigma(1e-3, 50.0))
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(1, 3000, generator=g, dtype=F64)
    t = torch.tensor([sde.t_min], dtype=F64)
    sigma = float(sde.sigma(t[0]))
    x_t = x0 + sigma * torch.ones_like(x0)
    found = kernel_of(sde).squared_distances(x_t, t, x0)
    assert float(found) == pytest.approx(3000, rel=1e-4)


def test_a_label_is_held_against_examples_of_its_own():
    """Two classes, far apart within one: a told row has the mean of its class, others of all."""
    sde = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    network = sg.MLP(1, width=4, depth=1, classes=2, rng=0).double()
    model = sg.ScoreModel(network, sde)
    x0, references = torch.zeros(2, 1, dtype=F64), torch.tensor([[1.0], [-1.0]], dtype=F64)
    t, eps = torch.full((2,), 3.0, dtype=F64), torch.zeros(2, 1, dtype=F64)
    allowed = torch.tensor([[True, False], [True, True]])
    mean, _ = posterior_means(model, x0, t, eps, references, allowed)
    assert float(mean[0]) == pytest.approx(0.5, abs=0.01)
    assert float(mean[1]) == pytest.approx(0.0, abs=1e-6)


OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)


@pytest.mark.parametrize("references", [1, 16, 1024])
def test_means_are_nearer_the_more_references_there_are(references):
    """Data N(0, 1): E[ε | x_t] = σ x/v, v = α² + σ², of which one ε is off by α²/v, ε̄ by less."""
    model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0).double(), OU)
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(4096, 1, generator=g, dtype=F64) for _ in range(2))
    t = torch.full((4096,), 0.5, dtype=F64)
    others = torch.randn(references, 1, generator=g, dtype=F64)
    _, mean = posterior_means(model, x0, t, eps, others)
    alpha, sigma = OU.noise_kernel.alpha(t[0]), OU.noise_kernel.sigma(t[0])
    x_t, v = alpha * x0 + sigma * eps, alpha**2 + sigma**2
    off = mean - sigma * x_t / v
    share = float(off.square().mean() / (alpha**2 / v))
    assert {1: 0.4, 16: 0.05, 1024: 0.0}[references] <= share
    assert share < {1: 0.95, 16: 0.4, 1024: 0.02}[references]


def test_the_loss_regresses_on_the_means():
    """A network that says 0 at data N(0, 1), "simple": its loss is the mean of σ²/(α² + σ²)."""
    data = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0), OU, times=(0.1, 3.0))
    config = sg.TrainConfig(steps=1, batch_size=8192)
    loss = sg.StableTargetLoss("simple", references=2048)
    found = float(sg.train(model, data, config, loss=loss, rng=0).losses[0])
    t = torch.linspace(0.1, 3.0, 2001, dtype=F64)
    alpha, sigma = OU.noise_kernel.alpha(t).square(), OU.noise_kernel.sigma(t).square()
    expected = float((sigma / (alpha + sigma)).mean())
    # ε̄² = c² x² has a variance of 2 c⁴ v² ≤ 2, over 8,192 rows; 2,048 references are off by 2 %
    assert found == pytest.approx(expected, abs=4.5 * (2 / 8192) ** 0.5 + 0.02)
    assert expected < 0.85  # where one ε would give 1


def test_conditions_of_floats_have_no_others():
    model = sg.ScoreModel(sg.MLP(1, conditions=2, rng=0), SDES["VP"][0])
    with pytest.raises(ValueError, match=r"same label, of which a condition of floats has none"):
        sg.train(
            model,
            torch.randn(8, 1),
            sg.TrainConfig(steps=1, batch_size=4),
            loss=sg.StableTargetLoss(),
            labels=torch.randn(8, 2),
        )
