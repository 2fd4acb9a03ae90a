"""Times that training finds, priors that are not reached, and what `fit` prepares by itself."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.score.forms.noising import noising_times

F64 = torch.float64
WELL = sg.ItoProcess(lambda x: x - x**3, 1.0)
OU = sg.ItoProcess(lambda x: -x, 1.0)  # no kernel is known: its paths are simulated
DATA = 0.2 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)) - 1
FEW = sg.TrainConfig(steps=2, batch_size=32, warmup=1)
SMALL = {"paths": 64, "step": 0.05, "window": 1.0}


def a_model(sde=WELL, dim=1, **options):
    return sg.ScoreModel(sg.MLP(dim, width=8, depth=1, rng=0), sde, **options)


def trained(model, data=DATA, **options):
    return sg.train(model, data, FEW, loss=sg.TransitionMatching(**SMALL), rng=0, **options)


def test_a_training_finds_the_noising_time(tmp_path):
    model = a_model()
    assert model.times is None
    result = trained(model, folder=tmp_path / "run")
    assert result.times == model.times == model.score_range
    exact = sg.noising_time(WELL, sg.GaussianMixture([1.0], [-1.0], stds=0.2), tolerance=0.01)
    # λ of 2048 trajectories; 4 % in ten seeds
    assert model.times[1] == pytest.approx(exact.time, rel=0.15)
    # the noise at t_min is a twentieth of the data's width
    assert math.sqrt(model.times[0]) == pytest.approx(0.05 * float(DATA.std()), rel=1e-3)
    assert model.unreached is None
    model.save(tmp_path / "model.safetensors")
    back = sg.ScoreModel.load(tmp_path / "model.safetensors", sde=WELL)
    assert back.times == model.times
    again = a_model()
    assert trained(again, folder=tmp_path / "run", resume=True).times == model.times
    assert trained(a_model(times=(0.01, 6.0))).times is None
    with pytest.raises(
        ValueError, match=r"another run: times is .* there and \[0\.01, 6\.0\] here"
    ):
        trained(a_model(times=(0.01, 6.0)), folder=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("drift", "sigma", "data"),
    [
        (lambda x: -x, 1.0, 0.5 * DATA + 2),
        (lambda x: -100 * x, 10.0, 0.5 * DATA + 2),
        (lambda x: -x, lambda x: (0.5 + 0.5 * x**2).sqrt(), DATA),
        (lambda x: x - x**3, 1.0, -torch.ones(100, 1)),
    ],
    ids=["Ornstein-Uhlenbeck", "a hundred times as fast", "multiplicative", "from a point"],
)
def test_times_are_those_of_fokker_planck(drift, sigma, data):
    sde = sg.ItoProcess(drift, sigma)
    low, high = noising_times(sde, data)
    found = sg.noising_time(sde, data[:300].double())
    assert high == pytest.approx(found.time, rel=0.15)
    assert 0 < low < 0.02 * high


def test_a_prior_that_is_not_reached_is_told_by_training_and_by_sampling(tmp_path):
    model, m, v = a_model(OU, times=(0.02, 0.3)), 2.0, 0.09
    data = m + 0.3 * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))

    def law(t):
        return m * math.exp(-t), 0.5 + (v - 0.5) * math.exp(-2 * t)

    (m1, v1), (m2, v2) = law(0.3), law(0.6)
    exact = 0.5 * ((m1 - m2) ** 2 / v2 + v1 / v2 - 1 - math.log(v1 / v2))
    with pytest.warns(sg.AccuracyWarning, match=r"not been reached at t = 0\.3: KL.*Noise for"):
        trained(model, data)
    # by neighbours in 2048 samples: standard error 0.03
    assert model.unreached == pytest.approx(exact, abs=0.13)
    model.save(tmp_path / "model.safetensors")
    back = sg.ScoreModel.load(tmp_path / "model.safetensors", sde=OU)
    with pytest.warns(sg.AccuracyWarning, match=rf"is up to {model.unreached:.3g} nats"):
        sg.sample(back, 8, steps=2, rng=0)
    start = back.draw_prior(8, rng=0)
    backwards = sg.ReverseSDE(OU, back.score)
    with pytest.warns(sg.AccuracyWarning, match="had not reached the prior"):
        sg.simulate(backwards, start, [0.3, 0.29], rng=0)
    sg.simulate(backwards, start, [0.29, 0.28], rng=0)  # from elsewhere nothing is known
    trained(a_model(OU, times=(0.02, 5.0)), data)
    assert len(torch.unique(back.draw_prior(5000, rng=0))) > 4990  # all different


@pytest.mark.parametrize(
    ("sde", "dim", "why"),
    [
        (sg.ItoProcess(lambda x: 0 * x, 1.0), 1, "no drift that brings it to rest"),
        (sg.ItoProcess(lambda x, t: -t * x, 1.0, autonomous=False), 1, "changes in time"),
        (sg.ItoProcess(lambda x: -x, 1.0), 65, "65 numbers are more than the 64"),
        (sg.ItoProcess(lambda x: x, 1.0), 1, "not finite at steps"),
    ],
    ids=["no drift", "in time", "many numbers", "unstable"],
)
def test_times_that_are_not_found_are_asked_for(sde, dim, why):
    with pytest.raises(ValueError, match=why):
        trained(a_model(sde, dim), torch.randn(64, dim))


def test_fit_prepares_a_simulated_model_by_itself():
    """Of N(0.5 t, (1 + t)²): a network of zeros has the mean and width of p_t from the rows."""
    generator = torch.Generator().manual_seed(2)
    t = 0.1 + torch.rand(20_000, generator=generator, dtype=F64)
    x = (0.5 * t + (1 + t) * torch.randn(20_000, generator=generator, dtype=F64))[:, None]
    model = a_model(OU)
    config = sg.FitConfig(steps=2, batch_size=64, warmup=1)
    loss = sg.ImplicitLoss(at="labels")
    sg.fit(model, x.float(), loss, config, labels=t.float(), rng=0)
    assert model.times == pytest.approx((float(t.min()), float(t.max())), rel=1e-6)
    for at in (0.3, 0.6, 0.9):
        mean, std = model.tables.at(x[:1], torch.tensor(at, dtype=F64))
        n = 20_000 / 64
        assert abs(float(mean) - 0.5 * at) < 4.5 * (1 + at) / math.sqrt(n)
        assert abs(float(std) / (1 + at) - 1) < 4.5 / math.sqrt(2 * n)
    assert float(model.draw_prior(200, rng=0).std()) == pytest.approx(2.1, rel=0.25)
    one = a_model(OU)
    sg.train(one, x[:500].float(), FEW, loss=sg.ImplicitLoss(at=0.5), rng=0)
    assert one.times is None
    assert float(one.tables.at(x[:1], torch.tensor(0.5))[1]) == pytest.approx(float(x[:500].std()))
    paths = a_model(OU, times=(0.05, 4.0))
    sg.fit(paths, DATA, sg.TransitionMatching(**SMALL), config, rng=0)
    assert float(paths.tables.at(x[:1], torch.tensor(4.0))[1]) == pytest.approx(0.5**0.5, rel=0.05)
