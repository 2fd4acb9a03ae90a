"""Classes: networks that are told a label, what they learn, and labels that cannot go astray."""

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.score.model import with_labels
from sdegen.score.spec import from_class_spec

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
MAKE = {
    "MLP": lambda classes: sg.MLP(4, width=16, depth=1, classes=classes, rng=0),
    "UNet": lambda classes: sg.UNet(1, width=8, levels=2, classes=classes, rng=0),
}


@pytest.fixture(params=MAKE.values(), ids=MAKE.keys())
def make(request):
    return request.param


def awake(network):
    """The network with its zero layers drawn, so that labels matter."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.double()


def states(network, n=5):
    event = (4,) if isinstance(network, sg.MLP) else (1, 4, 4)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, *event, generator=generator, dtype=torch.float64)


T = torch.full((5,), 0.3, dtype=torch.float64)


def test_classes_change_no_other_weight_and_untrained_nothing(make):
    """The table of labels starts from zero and draws nothing."""
    plain, classy = make(0).state_dict(), make(3).state_dict()
    assert set(classy) - set(plain) == {"labels.weight"}
    assert all(torch.equal(plain[name], classy[name]) for name in plain)
    assert classy["labels.weight"].shape[0] == 4
    assert not classy["labels.weight"].any()


def test_a_label_is_a_row_of_the_table(make):
    network = awake(make(3))
    x = states(network)
    labels = torch.tensor([0, 1, 2, 3, 1])
    found = network(x, T, labels)
    for label in range(4):
        rows = labels == label
        alone = network(x[rows], T[rows], labels[rows])
        torch.testing.assert_close(found[rows], alone)
        # a network without classes whose bias is shifted by that row says the same
        twin = awake(make(0))
        weights = {k: v for k, v in network.state_dict().items() if k != "labels.weight"}
        name = "shift.bias" if isinstance(network, sg.MLP) else "embed.bias"
        weights[name] = weights[name] + network.labels.weight[label]
        twin.load_state_dict(weights)
        torch.testing.assert_close(found[rows], twin(x[rows], T[rows]))
    assert (network(x, T) - network(x, T, torch.full((5,), 3))).abs().max() < 1e-14
    assert (found[0] - network(x, T, torch.full((5,), 1))[0]).abs().max() > 1e-4


def test_a_model_that_was_told_a_class_is_not_saved(make, tmp_path):
    model = sg.ScoreModel(make(3), VP)
    with pytest.raises(ValueError, match=r"told labels with conditional\(…\), .* save the model"):
        model.conditional(1).save(tmp_path / "told.safetensors")
    assert not list(tmp_path.iterdir())
    model.save(tmp_path / "model.safetensors")
    sg.ScoreModel.load(tmp_path / "model.safetensors").conditional(1)


def test_one_label_for_all_is_that_label_for_each(make):
    model = sg.ScoreModel(awake(make(3)), VP)
    x = states(model.network)
    t = torch.tensor(0.3, dtype=torch.float64)
    one = model.conditional(2).score(x, t)
    each = model.conditional(torch.full((5,), 2)).score(x, t)
    torch.testing.assert_close(one, each)
    torch.testing.assert_close(with_labels(model, torch.tensor(3)).score(x, t), model.score(x, t))
    assert (one - model.score(x, t)).abs().max() > 1e-4
    assert model.conditional(2).x0(x, t).shape == x.shape


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_labels_go_with_their_rows_through_blocks(eta):
    """4096 rows of 32 numbers are two blocks: each row is what it would be run in one piece."""
    network = awake(sg.MLP(32, width=8, depth=1, classes=3, rng=0))
    model = sg.ScoreModel(network, VP)
    n = 4_096
    labels = torch.arange(n) % 3
    x_T = VP.prior((n, 32), rng=0, dtype=torch.float64)
    reverse = sg.ReverseSDE(VP, model.conditional(labels).score, eta=eta)
    times = VP.time_grid(3)
    assert reverse.trajectories == n
    how = {"on_nonfinite": "freeze", "rng": 0}
    found = sg.simulate(reverse, x_T, times, **how).final
    if eta == 0:
        whole = sg.simulate(reverse, x_T, times, interacting=True, **how).final
        torch.testing.assert_close(whole, found, rtol=1e-9, atol=1e-9)
        chain = sg.DDPM.discretize(VP, 3)
        back = chain.reverse(model.conditional(labels).score)
        assert back.of_rows(slice(2, 5)).trajectories == 3
    for label in range(3):
        alone = sg.ReverseSDE(VP, model.conditional(label).score, eta=eta)
        rows = labels == label
        same = sg.simulate(alone, x_T if eta else x_T[rows], times, **how).final
        torch.testing.assert_close(found[rows], same[rows] if eta else same, rtol=1e-9, atol=1e-9)
    half = sg.ReverseSDE(VP, model.conditional(labels[:2048]).score, eta=eta)
    with pytest.raises(ValueError, match="have 2048 rows for 4096 trajectories"):
        sg.simulate(half, x_T, times)
    with pytest.raises(ValueError, match="labels for 2048 trajectories, but a call with 4096"):
        model.conditional(labels[:2048]).score(x_T, torch.tensor(0.5))


def test_composed_scores_keep_the_labels_of_their_rows():
    """Guidance of 4096 rows in two blocks: as one row after the other."""
    network = awake(sg.MLP(32, width=8, depth=1, classes=3, rng=0))
    model = sg.ScoreModel(network, VP)
    labels = torch.arange(4_096) % 3
    x_T = VP.prior((4_096, 32), rng=0, dtype=torch.float64)
    how = {"on_nonfinite": "freeze", "rng": 0}
    guide = sg.composition.guided(model.conditional(labels).score, model.score, 0.5)
    found = sg.simulate(sg.ReverseSDE(VP, guide), x_T, VP.time_grid(2), **how).final
    one = sg.composition.guided(model.conditional(2).score, model.score, 0.5)
    same = sg.simulate(sg.ReverseSDE(VP, one), x_T, VP.time_grid(2), **how).final
    torch.testing.assert_close(found[labels == 2], same[labels == 2], rtol=1e-9, atol=1e-9)


class Shifted(nn.Module):
    """ε̂ of data N(c, 0.36) of a condition c, exactly, but for a learned factor of c."""

    condition_shape = (2,)

    def __init__(self, start=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, x, t, c):
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        return sigma * (x - alpha * self.factor * c) / (alpha**2 * 0.36 + sigma**2)


def test_a_condition_for_each_row_trains_samples_and_has_a_likelihood():
    """x = c + 0.6 z: the factor of c is learned; log p(x | c) is that of N(c, 0.36 I) to 1e-5."""
    generator = torch.Generator().manual_seed(0)
    c = 2 * torch.randn(1_000, 2, generator=generator, dtype=torch.float64)
    x = c + 0.6 * torch.randn(1_000, 2, generator=generator, dtype=torch.float64)
    model = sg.ScoreModel(Shifted(0.2), VP)
    config = sg.TrainConfig(steps=120, batch_size=512, learning_rate=0.1, warmup=2, ema_decay=0.9)
    sg.train(model, x, config, labels=c, rng=0)
    # of least squares: 0.6/(2 √2000) over data, and more by noise
    assert float(model.network.factor.detach()) == pytest.approx(1, abs=0.05)
    exact = sg.ScoreModel(Shifted(), VP)
    score = exact.conditional(c[:300]).score

    def law(t):  # at t, of x = c + 0.6 z
        t = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = VP.alpha(t), VP.sigma(t)
        return torch.distributions.Normal(alpha * c[:300], (alpha**2 * 0.36 + sigma**2).sqrt())

    log_p = sg.log_likelihood(
        VP, score, x[:300], prior_log_prob=lambda y: law(VP.t_max).log_prob(y).sum(1)
    ).log_prob
    expected = law(VP.t_min).log_prob(x[:300]).sum(1)
    torch.testing.assert_close(log_p, expected, rtol=0, atol=1e-3)
    end = sg.simulate(sg.ReverseSDE(VP, score, 0.0), VP.prior((300, 2), rng=1), VP.time_grid(100))
    z = (end.final - law(VP.t_min).mean) / 0.6
    assert float(z.mean()) == pytest.approx(0, abs=4.4 / 600**0.5)
    assert float(z.square().mean()) == pytest.approx(1, abs=4.4 * (2 / 600) ** 0.5 + 0.02)
    # one condition for all rows
    one = exact.conditional(c[0]).score
    assert one.trajectories is None
    torch.testing.assert_close(
        one(x[:5], torch.tensor(0.3)), exact.conditional(c[:1].repeat(5, 1)).score(x[:5], 0.3)
    )


@pytest.mark.parametrize("kind", ["MLP", "UNet"])
def test_networks_of_the_library_take_conditions(kind):
    if kind == "MLP":
        network, x = sg.MLP(3, width=8, depth=1, conditions=2, rng=0), torch.ones(4, 3)
        c = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
        plain = sg.MLP(3, width=8, depth=1, rng=0)
    else:
        network, x = sg.UNet(1, width=8, condition_channels=2, rng=0), torch.ones(4, 1, 4, 4)
        c = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        plain = None
    network = awake(network)
    x, c = x.double(), c.double()
    model = sg.ScoreModel(network, VP)
    each = model.conditional(c).score(x, torch.tensor(0.3))
    assert (each[0] - each[1]).abs().max() > 1e-4
    for i in range(4):
        one = model.conditional(c[i]).score(x[i : i + 1], torch.tensor(0.3))
        torch.testing.assert_close(one, each[i : i + 1])
    if plain is not None:  # a condition of zeros changes nothing
        weights = {k: v for k, v in network.state_dict().items() if not k.startswith("told")}
        weights["shift.bias"] = weights["shift.bias"] + network.told.bias
        plain.double().load_state_dict(weights)
        torch.testing.assert_close(
            plain(x, T[:4]), network(x, T[:4], torch.zeros(4, 2, dtype=torch.float64))
        )
    with pytest.raises(
        ValueError, match=r"has no score without: take model\.conditional\(condition\)"
    ):
        model.score(x, torch.tensor(0.3))
    with pytest.raises(TypeError, match="labels must be floats, a condition, but have dtype"):
        model.conditional(torch.ones_like(c).long())
    with pytest.raises(ValueError, match=r"one condition of shape .* but have shape"):
        model.conditional(c[:, :1])
    with pytest.raises(ValueError, match="labels must be finite"):
        model.conditional(c * torch.nan)
    with pytest.raises(ValueError, match=r"condition of shape .* but no labels were given"):
        sg.train(model, x, sg.TrainConfig(steps=1))
    with pytest.raises(ValueError, match="a network has classes or a condition, but classes = 2"):
        sg.MLP(2, classes=2, conditions=1) if kind == "MLP" else sg.UNet(
            classes=2, condition_channels=1
        )


@pytest.fixture(scope="module")
def taught():
    """Two classes, N(−1, 0.3²) and N(1.5, 0.5²), a third and two thirds of the data."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(6_000, generator=generator) < 2 / 3).long()
    z = torch.randn(6_000, 1, generator=generator)
    means, stds = torch.tensor([-1.0, 1.5]), torch.tensor([0.3, 0.5])
    data = means[labels][:, None] + stds[labels][:, None] * z
    model = sg.ScoreModel(sg.MLP(1, width=32, depth=2, classes=2, rng=0), VP)
    config = sg.TrainConfig(steps=1_200, batch_size=256, learning_rate=1e-2, label_dropout=0.3)
    sg.train(model, data, config, rng=0, labels=labels)
    return model


def test_the_score_of_each_class_and_of_all_is_learned(taught):
    """Within 6 % of their mean squares at three noise levels."""
    parts = [sg.GaussianMixture([1.0], [m], stds=s) for m, s in ((-1.0, 0.3), (1.5, 0.5))]
    both = sg.GaussianMixture([1 / 3, 2 / 3], [-1.0, 1.5], stds=[0.3, 0.5])
    models = [taught.conditional(0), taught.conditional(1), taught]
    for t in (0.05, 0.2, 0.5):
        now = torch.tensor(t, dtype=torch.float64)
        for law, model in zip([*parts, both], models, strict=True):
            noised = law.noised(VP)
            x = noised.sample(2_000, now, rng=1, dtype=torch.float64)
            exact = noised.score(x, now)
            with torch.no_grad():
                error = (model.score(x, now) - exact).square().mean() / exact.square().mean()
            assert float(error) < 0.06


def test_guided_sampling_of_a_learned_class(taught):
    """w = 0 gives the class; w = 2 moves away from the other one."""
    x_T = VP.prior((2_000, 1), rng=0, dtype=torch.float64)
    means = []
    for guidance in (0.0, 2.0):
        score = sg.composition.guided(taught.conditional(0).score, taught.score, guidance)
        flow = sg.ReverseSDE(VP, score, eta=0.0)
        x = sg.simulate(flow, x_T, sg.timesteps.log_snr(VP, 20), solver=sg.Heun()).final
        means.append(float(x.mean()))
    assert means[0] == pytest.approx(-1.0, abs=0.1)
    assert means[1] < means[0] - 0.1


def test_a_step_with_labels_by_hand():
    """Without dropout the labels are told, with all of it none are: the losses say so."""
    data, labels = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), torch.arange(64)
    losses = {}
    for name, dropout in (("told", 0.0), ("hidden", 1.0)):
        network = sg.MLP(2, width=8, depth=1, classes=64, rng=0)
        config = sg.TrainConfig(steps=300, batch_size=64, label_dropout=dropout)
        model = sg.ScoreModel(network, VP)
        before = network.labels.weight.detach().clone()
        losses[name] = float(
            sg.train(model, data, config, rng=0, labels=labels).losses[-50:].mean()
        )
        moved = (network.labels.weight != before).any(1)
        assert moved[:64].any() == (name == "told")
        assert bool(moved[64]) == (name == "hidden")
    assert losses["told"] < losses["hidden"]  # 64 points, each with a name of its own


def test_training_with_labels_goes_on_to_the_same_bits(tmp_path):
    data, labels = (
        torch.randn(50, 2, generator=torch.Generator().manual_seed(0)),
        torch.arange(50) % 3,
    )
    validation = {"validation": data[:9], "validation_labels": labels[:9]}

    def run(folder=None, labels=labels):
        model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, classes=3, rng=0), VP)
        config = sg.TrainConfig(steps=8, batch_size=16, checkpoint_every=4, validate_every=3)
        result = sg.train(
            model, data, config, rng=1, labels=labels, folder=folder,
            resume=folder is not None, **validation,
        )  # fmt: skip
        return model, result

    whole, first = run()
    _, second = run(tmp_path)
    assert torch.equal(first.losses, second.losses)
    for file in sorted(tmp_path.glob("*8*")):
        file.unlink()
    again, third = run(tmp_path)
    assert torch.equal(first.losses, third.losses)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="its labels were others"):
        run(tmp_path, labels=(labels + 1) % 3)


def test_saved_and_loaded_with_classes(tmp_path, make):
    model = sg.ScoreModel(awake(make(3)), VP)
    model.save(tmp_path / "model.safetensors")
    again = sg.ScoreModel.load(tmp_path / "model.safetensors")
    x, t = states(model.network), torch.tensor(0.2, dtype=torch.float64)
    assert torch.equal(again.conditional(1).score(x, t), model.conditional(1).score(x, t))


def test_a_description_from_before_there_were_classes():
    old = {"class": "MLP", "dim": 2, "width": 8, "depth": 1}
    assert from_class_spec(old, "file").classes == 0


PLAIN = sg.ScoreModel(sg.MLP(2, width=8, depth=1), VP)
CLASSY = sg.ScoreModel(sg.MLP(2, width=8, depth=1, classes=3), VP)
DATA = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PLAIN.conditional(0), ValueError, "the MLP knows no classes; make it with class"),
        (lambda: CLASSY.conditional(3), ValueError, "0 … 2, the classes of the network, but rea"),
        (lambda: CLASSY.conditional(-1), ValueError, "reach from -1 to -1"),
        (lambda: CLASSY.conditional(0.5), TypeError, r"labels must be integers.*float32"),
        (lambda: CLASSY.conditional(torch.zeros(2, 2).long()), ValueError, r"shape \(2, 2\)"),
        (lambda: sg.MLP(2, classes=-1), ValueError, "classes must be ≥ 0, but is -1"),
        (lambda: sg.MLP(2, classes=1.5), TypeError, "classes must be an int, but is float"),
        (lambda: sg.train(CLASSY, DATA), ValueError, "classes = 3, but no labels were given"),
        (
            lambda: sg.train(PLAIN, DATA, labels=torch.zeros(4).long()),
            ValueError,
            "labels were given, but the MLP knows no classes",
        ),
        (
            lambda: sg.train(CLASSY, DATA, labels=torch.zeros(3).long()),
            ValueError,
            r"labels must have shape \(4, …\), one for each row, but have \(3,\)",
        ),
        (
            lambda: sg.train(CLASSY, DATA, labels=torch.full((4,), 3)),
            ValueError,
            "labels must lie in 0 … 2",
        ),
        (
            lambda: sg.train(CLASSY, DATA, labels=torch.zeros(4).long(), validation=DATA),
            ValueError,
            "no validation_labels were given",
        ),
        (
            lambda: sg.TrainConfig(label_dropout=1.5),
            ValueError,
            r"label_dropout must lie in \[0, 1",
        ),
        (
            lambda: PLAIN.network(DATA, DATA[:, 0], torch.zeros(4).long()),
            ValueError,
            "knows no classes, but was given labels",
        ),
    ],
)
def test_bad_requests(as_user, call, error, message):
    with pytest.raises(error, match=message):
        call()
