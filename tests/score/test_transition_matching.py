"""Scores learned from simulated paths, against exact laws; what is kept, resumed and refused."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.errors import CheckpointError
from sdegen.training.loss import Batch, BatchNoise

F64 = torch.float64
OU = sg.ItoProcess(lambda x: -x, 1.0)  # no kernel is known: its paths are simulated
DATA = 1.5 + 0.5 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
FEW = sg.TrainConfig(steps=6, batch_size=64, warmup=1, checkpoint_every=4)
SMALL = {"paths": 64, "step": 0.05, "window": 1.0}
LABELS = (DATA[:, 0] > 1.5).long()


def exact(x, t):
    """The score of N(1.5 e^{−t}, ½ − ¼ e^{−2t})."""
    return -(x - 1.5 * math.exp(-t)) / (0.5 - 0.25 * math.exp(-2 * t))


def a_model(sde=OU, dim=1, **options):
    return sg.ScoreModel(sg.MLP(dim, width=16, depth=1, rng=0), sde, times=(0.05, 2.0), **options)


def trained(model=None, data=DATA, config=FEW, loss=None, **options):
    model = a_model() if model is None else model
    loss = sg.TransitionMatching(**SMALL) if loss is None else loss
    return model, sg.train(model, data, config, loss=loss, rng=0, **options)


@pytest.fixture(scope="module")
def learned():
    model = a_model()
    config = sg.TrainConfig(steps=800, batch_size=1024, learning_rate=5e-3, ema_decay=0.99)
    loss = sg.TransitionMatching(paths=2048, step=0.02, window=2.0)
    result = sg.train(model, DATA, config, loss=loss, rng=0)
    return model, result


def test_the_score_of_a_gaussian_is_learned(learned):
    model, _ = learned
    for t in (0.2, 0.5, 2.0):
        std = math.sqrt(0.5 - 0.25 * math.exp(-2 * t))
        x = 1.5 * math.exp(-t) + std * torch.linspace(-2, 2, 41)[:, None]
        with torch.no_grad():
            error = model.score(x, torch.tensor(t)) - exact(x, t)
        # 3.3, 0.9 and 2.7 %: of the data's own moments 2 %, of steps 1 %, of the training the rest
        assert error.square().mean().sqrt() < 0.05 * exact(x, t).square().mean().sqrt()


def test_samples_of_the_reversed_process_are_the_data(learned):
    model, _ = learned
    start = model.draw_prior(4000, rng=1)
    times = torch.linspace(2.0, 0.05, 101)
    for eta in (1.0, 0.0):
        out = sg.simulate(sg.ReverseSDE(OU, model.score, eta), start, times, rng=2).final
        assert abs(float(out.mean()) - 1.5 * math.exp(-0.05)) < 0.06
        assert abs(float(out.std()) - math.sqrt(0.5 - 0.25 * math.exp(-0.1))) < 0.04


def test_a_network_of_zeros_loses_one_and_is_the_base():
    _model, result = trained()
    assert abs(float(result.losses[0]) - 1) < 0.5
    fresh = a_model()
    fresh.form.prepare(fresh, DATA)
    x = torch.randn(5, 1, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(fresh.score(x, 1.0), -2 * x)
    own = a_model(base=lambda x, t: -3 * x)
    own.form.prepare(own, DATA)
    torch.testing.assert_close(own.score(x, 1.0), -3 * x)
    whole = a_model(base=0)  # the network is all of the score
    whole.form.prepare(whole, DATA)
    assert torch.equal(whole.score(x, 1.0), torch.zeros_like(x))
    with pytest.raises(TypeError, match=r"base must be a function .* or 0 for none"):
        a_model(base=1)


def test_the_base_of_multiplicative_noise_has_no_current():
    sde = sg.ItoProcess(lambda x: -x, lambda x: 0.5 + 0.2 * x.sin(), autonomous=True)
    model, x = a_model(sde), torch.linspace(-2, 2, 9, dtype=F64)[:, None]
    b = model.form.base_score(model, x, torch.tensor(1.0, dtype=F64))
    g, slope = 0.5 + 0.2 * x.sin(), 0.2 * x.cos()
    torch.testing.assert_close(b, (-2 * x - 2 * g * slope) / g**2)


def test_a_training_that_was_resumed_ends_in_the_same_bits(tmp_path):
    whole, result = trained(folder=tmp_path / "whole")
    for file in (tmp_path / "whole").glob("*6*"):
        file.unlink()
    again, resumed = trained(folder=tmp_path / "whole", resume=True)
    assert torch.equal(result.losses, resumed.losses)
    for name, one in whole.state_dict().items():
        assert torch.equal(one, again.state_dict()[name])


def test_a_block_is_that_of_its_first_step():
    from sdegen.core.noise import Streams

    streams = Streams(0, "train")
    noises = [BatchNoise(streams.block(k), 4, steps=(streams, k)) for k in (5, 6, 9)]
    blocks = [noise.block(3) for noise in noises]
    assert [number for number, _ in blocks] == [1, 2, 3]
    draws = [source.normal((2,)) for _, source in blocks]
    again = BatchNoise(streams.block(7), 4, steps=(streams, 7)).block(3)[1].normal((2,))
    assert torch.equal(draws[1], again)
    assert not torch.equal(draws[0], draws[1])


def test_validation_is_on_other_paths_and_the_same_each_time():
    config = sg.TrainConfig(steps=2, batch_size=64, warmup=1, validate_every=1)
    result = trained(validation=DATA[:64], config=config)[1]
    assert len(result.validation_losses) == 2
    assert bool(((result.validation_losses - 1).abs() < 0.6).all())


def test_classes_have_scores_of_their_own():
    model = sg.ScoreModel(sg.MLP(1, width=8, depth=1, classes=2, rng=0), OU, times=(0.05, 2.0))
    trained(model, labels=LABELS)
    x = DATA[:4]
    assert model.conditional(1).score(x, 0.5).shape == x.shape
    assert not torch.equal(model.conditional(1).score(x, 0.5), model.conditional(0).score(x, 0.5))


@pytest.mark.parametrize("kind", ["one-step", "linearised", "malliavin", "reverse-flow"])
def test_every_kind_trains_and_is_kept(kind, tmp_path):
    window = None if kind == "one-step" else 0.5
    loss = sg.TransitionMatching(kind, paths=64, step=0.05, window=window)
    model, result = trained(loss=loss)
    assert bool(result.losses.isfinite().all())
    model.save(tmp_path / "model.safetensors")
    back = sg.ScoreModel.load(tmp_path / "model.safetensors", sde=OU)
    x = DATA[:5]
    assert back.times == (0.05, 2.0)
    assert torch.equal(back.score(x, 0.7), model.score(x, 0.7))
    assert torch.equal(back.draw_prior(70, rng=0), model.draw_prior(70, rng=0))
    with pytest.raises(CheckpointError, match="made without a base"):
        sg.ScoreModel.load(tmp_path / "model.safetensors", sde=OU, base=lambda x, t: -x)


def test_no_base_is_kept_and_asked_for_again(tmp_path):
    model, _ = trained(a_model(base=0))
    model.save(tmp_path / "model.safetensors")
    back = sg.ScoreModel.load(tmp_path / "model.safetensors", sde=OU, base=0)
    assert torch.equal(back.score(DATA[:5], 0.7), model.score(DATA[:5], 0.7))


def test_a_base_is_asked_for_again(tmp_path):
    model, _ = trained(a_model(base=lambda x, t: -x))
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="base of your own"):
        sg.ScoreModel.load(tmp_path / "model.safetensors", sde=OU)


NEEDS_KERNEL = "needs a Gaussian kernel, which ItoProcess has not"
REFUSED = {
    "a prediction": (lambda: a_model(parameterization=sg.EpsPrediction()), "EpsPrediction reads"),
    "a weighting": (lambda: sg.train(a_model(), DATA, loss="simple"), "weighting 'simple'"),
    "ε": (lambda: a_model().eps(DATA, 0.5), NEEDS_KERNEL),
    "v": (lambda: a_model().v(DATA, 0.5), NEEDS_KERNEL),
    "before training": (lambda: a_model().score(DATA, 0.5), "has no score yet"),
    "no noise": (lambda: a_model(sg.ItoProcess(lambda x: -x, 0.0)), "has none; give it"),
    "an explosion": (
        lambda: trained(a_model(sg.ItoProcess(lambda x: 9 * x**3, 1.0))),
        "not finite at steps",
    ),
    "a window of one step": (
        lambda: sg.TransitionMatching("one-step", window=0.1),
        "has the last step alone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_simulated_process_has_not_is_refused(name):
    program, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        program()


@pytest.mark.parametrize(
    ("drift", "whole"), [(lambda x: -x, True), (lambda x: 4 * x - 4 * x**3, False)]
)
def test_the_window_is_the_whole_path_where_flows_contract(drift, whole):
    """On −x windows have more variance than the whole path; over a barrier tails are heavy."""
    sde = sg.ItoProcess(drift, 1.0, noise="additive", autonomous=True)
    model = a_model(sde)
    data = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0))
    model.form.prepare(model, data)
    loss = sg.TransitionMatching(step=0.02).prepare(model, Batch(data))
    assert (loss._plan.target.rate == 0) is whole
