"""Fits of any module with a loss of one's own: minimisers that are known, bits, refusals."""

import dataclasses
import json
import math
import re
import signal

import numpy as np
import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.training import Batch, BatchNoise
from sdegen.training.optimizer import clip_gradients

F64 = torch.float64
SHORT = sg.FitConfig(steps=12, batch_size=16, warmup=3, checkpoint_every=4, validate_every=5)


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


class Line(nn.Module):
    """x w + b in float64, from zero."""

    def __init__(self, inputs, outputs=1):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs, dtype=F64))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=F64))

    def forward(self, x):
        return x @ self.weight + self.bias


class Constant(nn.Module):
    """One number for all rows."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value], dtype=F64))

    def forward(self, x):
        return self.value.expand(len(x))


class Square(sg.Loss):
    """(module(x) − y)²; y are the labels, or the first column of the rows."""

    def __call__(self, module, batch, noise):
        target = batch.rows[:, :1] if batch.labels is None else batch.labels
        return (module(batch.rows).reshape(target.shape) - target).square().sum(1)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


# --- minimisers that are known


def test_least_squares_ends_at_the_normal_equations():
    """One batch alone would end 0.1/√4096 = 1.6e-3 from them; the truth is twice as far."""
    x = drawn(300, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=F64) + 0.3 + 0.1 * drawn(300, 1, seed=1)
    ones = torch.cat([x, torch.ones(300, 1, dtype=F64)], 1)
    exact = torch.linalg.solve(ones.T @ ones, ones.T @ y)
    line = Line(3)
    config = sg.FitConfig(steps=300, batch_size=4096, learning_rate=0.1, warmup=10, ema_decay=0.9)
    result = sg.fit(line, x, Square(), config, labels=y, rng=0)
    found = torch.cat([line.weight, line.bias[:, None]]).detach()
    truth = torch.tensor([[1.0], [-2.0], [0.5], [0.3]], dtype=F64)
    assert (exact - truth).abs().max() > 3e-3
    assert (found - exact).abs().max() < 1.6e-3
    # squares of normals: 50 batches scatter by √(2/(50·4096))
    rest = float((ones @ exact - y).square().mean())
    assert float(result.losses[-50:].mean()) == pytest.approx(rest, rel=4.4 * (1e-5**0.5))


class Pinball(sg.Loss):
    """Its minimiser is a quantile."""

    def __init__(self, share):
        self.share = share

    def __call__(self, module, batch, noise):
        error = batch.rows[:, 0] - module(batch.rows)
        return torch.maximum(self.share * error, (self.share - 1) * error)


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_the_pinball_loss_ends_at_a_quantile(share):
    """Of an exponential law, −log(1 − share), from 1000 numbers at the quantiles (k + ½)/1000."""
    ranks = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    data = -torch.log1p(-ranks)[:, None]
    module = Constant(1.0)
    config = sg.FitConfig(
        steps=400, batch_size=4096, learning_rate=0.05, warmup=10, ema_decay=0.95
    )
    sg.fit(module, data, Pinball(share), config, rng=0)
    # the quantile of one batch: √(s(1 − s)/4096) over the density e^{−q} = 1 − s
    scatter = math.sqrt(share * (1 - share) / 4096) / (1 - share)
    assert module.value.item() == pytest.approx(-math.log1p(-share), abs=scatter)


HUBER = """
import sdegen as sg
from dataclasses import dataclass


@dataclass(frozen=True)
class Huber(sg.DenoisingLoss):
    delta: float = 0.3

    def distance(self, error):
        size = error.abs()
        costs = (0.5 * size**2).where(size < self.delta, self.delta * (size - self.delta / 2))
        return costs.flatten(1).mean(1)
"""


class Shaped(nn.Module):
    """ε̂ = w σ x/(α² s² + σ²): w = 1 is the best, for data of mean square s²; float64."""

    def __init__(self, path, square):
        super().__init__()
        self.path, self.square = path, square
        self.weight = nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x, t):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        return self.weight * sigma / (alpha**2 * self.square + sigma**2) * x


def test_a_loss_whose_code_was_changed_is_not_resumed(tmp_path):
    config = sg.TrainConfig(steps=3, batch_size=8)
    for text in (HUBER, HUBER, HUBER.replace("0.5 *", "0.4 *")):
        names = {"__name__": "losses_of_mine"}
        exec(text, names)
        model = sg.ScoreModel(sg.MLP(1, width=4, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
        given = {"loss": names["Huber"](), "rng": 0, "folder": tmp_path, "resume": True}
        if "0.4 *" in text:
            with pytest.raises(ValueError, match=r"the loss\..*code is another; pass the loss t"):
                sg.train(model, drawn(20, 1), config, **given)
        else:
            sg.train(model, drawn(20, 1), config, **given)


@pytest.mark.parametrize("name", ["likelihood", "Huber"])
def test_a_loss_in_a_file_of_the_users_trains_a_score(name, tmp_path):
    """ε given x_t is Gaussian for Gaussian data: every symmetric distance ends at its mean.

    A batch alone would end at w = 1 ± 2 %; those of 250 steps are averaged.
    """
    (tmp_path / "losses_of_mine.py").write_text(HUBER)
    names = {}
    exec((tmp_path / "losses_of_mine.py").read_text(), names)
    loss = sg.DenoisingLoss() if name == "likelihood" else names["Huber"]("simple")
    data, path = 0.6 * drawn(4000, 1), sg.VP(sg.LinearBeta(0.1, 20.0))
    model = sg.ScoreModel(Shaped(path, float(data.square().mean())), path)
    config = sg.TrainConfig(
        steps=250, batch_size=2048, learning_rate=0.05, warmup=10, ema_decay=0.95
    )
    result = sg.train(model, data, config, loss=loss, rng=0)
    assert model.network.weight.item() == pytest.approx(1, abs=0.01)
    # from ε̂ = 0: E ε² = 1, and E huber(ε) = ½ E min(ε², …) of the normal, 0.209 for δ = 0.3
    first = 1.0 if name == "likelihood" else 0.209
    assert float(result.losses[0]) == pytest.approx(first, rel=0.15)


def test_a_word_for_a_loss_is_the_object():
    data = drawn(60, 2)
    ends = []
    for config, loss in (
        (sg.TrainConfig(steps=5, batch_size=8, weighting="simple"), None),
        (sg.TrainConfig(steps=5, batch_size=8), "simple"),
        (sg.TrainConfig(steps=5, batch_size=8, weighting="simple"), "simple"),
        (sg.TrainConfig(steps=5, batch_size=8), sg.DenoisingLoss("simple")),
    ):
        model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
        ends.append((model, sg.train(model, data, config, loss=loss, rng=0).losses))
    for model, losses in ends[1:]:
        assert same(model, ends[0][0])
        assert torch.equal(losses, ends[0][1])
    with pytest.raises(ValueError, match=r"loss must be 'simple' or 'likelihood' or .* 'snr'"):
        sg.train(model, data, loss="snr")
    with pytest.raises(TypeError, match=r"loss must be a DenoisingLoss, or an object.*function"):
        sg.train(model, data, loss=lambda module, batch, noise: batch.rows.sum(1))
    with pytest.raises(TypeError, match="module must be a ScoreModel, whose SDE adds the noise"):
        sg.fit(Line(2), data, sg.DenoisingLoss(), SHORT, rng=0)


class Energy(nn.Module):
    """U = ½ k x²."""

    def __init__(self):
        super().__init__()
        self.k = nn.Parameter(torch.ones((), dtype=F64))

    def forward(self, x):
        return 0.5 * self.k * x.square().sum(1)


class Contrastive(sg.Loss):
    """E_data U − E_model U, with samples of the model by Langevin steps from the data."""

    def __call__(self, module, batch, noise):
        langevin = sg.ItoProcess(lambda x: -module.k.detach() * x, 2**0.5)
        steps = torch.linspace(0, 0.5, 11)
        path = sg.simulate(langevin, batch.rows, steps, rng=noise.seed(), keep_path=False)
        data, model = module(batch.rows), module(path.final)
        return data - model, {"data": data, "model": model.mean()}


@pytest.mark.filterwarnings("ignore::sdegen.core.errors.AccuracyWarning")
def test_an_energy_is_learned_by_contrast():
    """The gradient, ½ (⟨x²⟩_data − ⟨x²⟩_model), vanishes where the two variances are equal.

    Steps of h = 0.05 sample the variance 1/(k (1 − h k/2)): k is 5 % above 1/⟨x²⟩. The variance of
    a batch scatters by √(2/512) = 6 %, and those of the last 20 steps are averaged.
    """
    data = 0.7 * drawn(2000, 1)
    module = Energy()
    config = sg.FitConfig(steps=80, batch_size=512, learning_rate=0.1, warmup=5, ema_decay=0.9)
    result = sg.fit(module, data, Contrastive(), config, rng=0)
    square, h = float(data.square().mean()), 0.05
    exact = (1 - math.sqrt(1 - 2 * h / square)) / h
    assert module.k.item() == pytest.approx(exact, rel=4.4 * math.sqrt(2 / 512 / 20))
    assert torch.allclose(result.logs["data"] - result.logs["model"], result.losses, atol=1e-12)


# --- the same bits


class Drawing(sg.Loss):
    """A loss that draws of every kind, and names its terms."""

    validation_passes = 3

    def __call__(self, module, batch, noise):
        x, y = batch.rows, batch.labels
        u = noise.stratified().to(x) if module.training else noise.uniform().to(x)
        x = x + 0.1 * u[:, None] * noise.normal_like(x)
        errors = (module(x) - y).square().sum(1)
        seeded = torch.Generator().manual_seed(noise.seed() % 2**32)
        penalty = 1e-3 * torch.rand((), generator=seeded, dtype=F64) * module.weight.square().sum()
        return errors + penalty, {"errors": errors, "penalty": penalty}


class Presses:
    """An augmentation that changes nothing, and presses Ctrl-C at its n-th call."""

    def __init__(self, at=None):
        self.calls, self.at = 0, at

    def __call__(self, rows, stream):
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        return rows


@pytest.fixture
def own_interrupt():
    """Python's own handler, which a parent that ignores SIGINT takes away."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_an_interrupted_fit_ends_in_the_same_bits(tmp_path, keep, own_interrupt):
    config = dataclasses.replace(SHORT, keep=keep)
    x, y = drawn(50, 3), drawn(50, 2, seed=1)
    given = {
        "labels": y, "validation": drawn(9, 3, seed=2), "validation_labels": drawn(9, 2, seed=3),
        "rng": 7,
    }  # fmt: skip
    whole, cut, again = Line(3, 2), Line(3, 2), Line(3, 2)
    expected = sg.fit(whole, x, Drawing(), config, augment=Presses(), **given)
    with pytest.raises(KeyboardInterrupt):
        sg.fit(cut, x, Drawing(), config, augment=Presses(6), folder=tmp_path, **given)
    count = Presses()
    result = sg.fit(
        again, x, Drawing(), config, augment=count, folder=tmp_path, resume=True, **given
    )
    assert count.calls == 12 - 6
    assert same(again, whole)
    assert keep == "best" or not same(cut, whole)
    assert torch.equal(result.losses, expected.losses)
    assert torch.equal(result.validation_losses, expected.validation_losses)
    assert result.validation_steps.tolist() == [5, 10, 12]
    assert (result.selected_step, result.seed) == (expected.selected_step, 7)
    assert sorted(result.logs) == ["errors", "penalty"]
    for name, values in expected.logs.items():
        assert torch.equal(result.logs[name], values)
    sums = result.logs["errors"] + result.logs["penalty"]
    assert torch.allclose(sums, result.losses, rtol=1e-12)


def test_another_loss_or_module_is_not_resumed(tmp_path):
    x = drawn(50, 1)
    sg.fit(Constant(), x, Pinball(0.5), SHORT, rng=0, folder=tmp_path)

    def resume(module=None, loss=None, **more):
        module, loss = module or Constant(), loss or Pinball(0.5)
        sg.fit(module, x, loss, SHORT, rng=0, folder=tmp_path, resume=True, **more)

    resume()
    with pytest.raises(ValueError, match=r"run: loss\.share is 0.5 there and 0.9 here"):
        resume(loss=Pinball(0.9))
    with pytest.raises(ValueError, match=r"loss\.class is 'Pinball' there and 'Square' here"):
        resume(loss=Square())
    with pytest.raises(ValueError, match=r"module\.\w+ is .* there and .* here"):
        resume(module=Line(1))
    with pytest.raises(ValueError, match="another run: its labels were others"):
        resume(labels=x)


def test_a_row_draws_the_same_whoever_computes_it():
    """Of one batch and of its two halves: the ranks of a training draw what one process draws."""
    x = drawn(11, 2)

    def all_draws(rows):
        noise = BatchNoise(Streams(3, "train").block(5), 11, rows)
        return noise.normal_like(x[rows]), noise.uniform(), noise.stratified()

    parts = [all_draws(slice(0, 5)), all_draws(slice(5, 11))]
    for whole, halves in zip(all_draws(slice(None)), zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(halves), whole)
    u = all_draws(slice(None))[2]
    assert ((u * 11).floor() == torch.arange(11)).all()
    noise = BatchNoise(Streams(3, "train").block(5), 11)
    assert noise.permutation().sort().values.tolist() == list(range(11))


# --- validation


def test_the_best_weights_are_those_nearest_to_the_validation_data():
    """The data are 1, the validation data ½: weights pass by ½ on their way, and stay there."""
    config = sg.FitConfig(
        steps=60, batch_size=8, learning_rate=0.05, warmup=0, validate_every=1, keep="best"
    )
    module = Constant()
    data, others = torch.ones(20, 1, dtype=F64), torch.full((5, 1), 0.5, dtype=F64)
    result = sg.fit(module, data, Square(), config, rng=0, validation=others)
    best = int(result.validation_losses.argmin())
    assert result.selected_step == best + 1
    assert 0 < best < 55
    kept = module.value.item()
    assert (kept - 0.5) ** 2 == pytest.approx(float(result.validation_losses[best]), rel=1e-12)
    assert abs(kept - 0.5) < 0.05
    last = Constant()
    config = dataclasses.replace(config, keep="last")
    sg.fit(last, data, Square(), config, rng=0, validation=others)
    assert last.value.item() > 0.9


class Modes(sg.Loss):
    """A loss that records how it was called."""

    validation_passes = 4

    def __init__(self):
        self._calls = []

    def __call__(self, module, batch, noise):
        drawn = noise.uniform()
        self._calls.append((module.training, torch.is_grad_enabled(), len(batch), drawn))
        return (module(batch.rows) - batch.rows[:, 0]).square()


def test_validation_calls_the_loss_in_evaluation_mode_with_the_same_draws():
    loss = Modes()
    sg.fit(Constant(), drawn(30, 1), loss, SHORT, rng=0, validation=drawn(5, 1))
    steps = [call for call in loss._calls if call[0]]
    looks = [call for call in loss._calls if not call[0]]
    assert [call[1:3] for call in steps] == [(True, 16)] * 12
    assert [call[1:3] for call in looks] == [(False, 4 * 5)] * 3
    assert all(torch.equal(call[3], looks[0][3]) for call in looks)
    assert not torch.equal(steps[0][3], steps[1][3])


# --- what is refused


class Returns(sg.Loss):
    """What a function of the error makes of it."""

    def __init__(self, of):
        self._of = of

    def __call__(self, module, batch, noise):
        return self._of(module(batch.rows) - batch.labels)


class Ignores(sg.Loss):
    def __call__(self, module, batch, noise):
        return self._weight * batch.rows.sum(1)

    _weight = torch.ones((), dtype=F64, requires_grad=True)


class Renames(sg.Loss):
    _calls = 0

    def __call__(self, module, batch, noise):
        self._calls += 1
        errors = module(batch.rows).square().sum(1)
        return errors, {f"term {self._calls}": errors}


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (Returns(lambda e: e.square()), ValueError, r"\(16,\), one number .* but has \(16, 1\)"),
        (
            Returns(lambda e: (e[:, 0] - e).square()),
            ValueError,
            r"has \(16, 16\).*\(n,\) and \(n, 1\) broadcast to \(n, n\)",
        ),
        (Returns(lambda e: e.mean().item()), TypeError, "a tensor of floats, but is -?[0-9.]+"),
        (Returns(lambda e: e[:, 0] > 0), TypeError, "a tensor of floats, but is a tensor"),
        (Returns(lambda e: None), TypeError, "a tensor of floats, but is None"),
        (Returns(lambda e: (e[:, 0], 3)), TypeError, "a dict of its terms by name, but .* 3"),
        (
            Returns(lambda e: (e[:, 0], {"kl": e})),
            ValueError,
            r"kl that Returns returns must have shape",
        ),
        (
            Returns(lambda e: e.detach().square().sum(1)),
            ValueError,
            "Returns returned a value without a gradient: call the module in it",
        ),
        (Ignores(), ValueError, "Ignores does not depend on the weights of the Line: call the m"),
        (Renames(), ValueError, r"named \['term 2'\] in step 1, but \['term 1'\] before"),
        (lambda module, batch, noise: 0, TypeError, "loss must be an object of a class derived"),
        (Square, TypeError, "derived from sdegen.Loss, but is the class Square"),
    ],
)
def test_what_no_loss_returns_is_refused(loss, error, message, as_user):
    x = drawn(30, 2)
    with pytest.raises(error, match=message):
        sg.fit(Line(2), x, loss, SHORT, labels=drawn(30, 1), rng=0)


def test_a_loss_that_is_not_finite_stops_with_what_was_learned():
    class Poisoned(Square):
        _calls = 0

        def __call__(self, module, batch, noise):
            self._calls += 1
            return super().__call__(module, batch, noise) * (math.nan if self._calls == 6 else 1)

    line = Line(2)
    with pytest.raises(sg.NonFiniteError, match=r"the loss is nan in step 5, after a") as caught:
        sg.fit(line, drawn(30, 2), Poisoned(), SHORT, labels=drawn(30, 1), rng=0)
    assert len(caught.value.result.losses) == caught.value.result.selected_step == 5
    assert bool(line.weight.isfinite().all())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"module": lambda x: x}, TypeError, "module must be a torch.nn.Module.*a function"),
        ({"module": nn.Identity()}, ValueError, "has no parameters to train"),
        ({"config": sg.TrainConfig()}, TypeError, r"must be a FitConfig, but is a TrainConfig"),
        ({"config": {"steps": 3}}, TypeError, "config must be a FitConfig or None, but is a dict"),
        ({"labels": torch.zeros(29, 1)}, ValueError, r"labels must have shape \(30, …\).*\(29, 1"),
        ({"labels": torch.full((30, 1), math.nan)}, ValueError, "labels has 30 of 30 rows that"),
        ({"labels": "y"}, TypeError, "labels must be a tensor"),
        ({"validation": torch.zeros(4, 2)}, ValueError, "labels were given without validation_l"),
        ({"validation_labels": torch.zeros(4, 1)}, ValueError, "given without validation; pass b"),
        (
            {"validation": torch.zeros(4, 2), "validation_labels": torch.zeros(4, 3)},
            ValueError,
            r"must have shape \(4, 1\) like labels, but have \(4, 3\)",
        ),
        ({"validation": torch.zeros(4, 3)}, ValueError, r"events of shape \(2,\) like data"),
        ({"resume": True}, ValueError, "resume=True needs the folder"),
    ],
)
def test_what_no_fit_can_take_is_refused(change, error, message, as_user):
    given = {
        "module": Line(2), "data": drawn(30, 2), "loss": Square(), "config": SHORT,
        "labels": drawn(30, 1), "rng": 0,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        sg.fit(**(given | change))


# --- ranks

RANKS = """
import sys, torch, sdegen as sg
sys.path.insert(0, sys.argv[1])
from losses_of_mine import Mean, Noisy
torch.set_num_threads(1)
x = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
config = sg.FitConfig(steps=10, batch_size=17, warmup=2)
line = torch.nn.Linear(2, 1, dtype=torch.float64)
with torch.no_grad():
    line.weight.fill_(0.5), line.bias.fill_(0.0)
with sg.distributed_context() as ranks:
    try:
        sg.fit(line, x, Mean(), config, rng=5)
    except ValueError as error:
        print("refused:", error)
    found = sg.fit(line, x, Noisy(), config, rng=5)
torch.save([line.state_dict(), found.losses, found.logs], f"{sys.argv[1]}/{ranks.rank}.pt")
"""
LOSSES = """
import sdegen as sg


class Noisy(sg.Loss):
    def __call__(self, module, batch, noise):
        x = batch.rows + 0.1 * noise.normal_like(batch.rows)
        errors = (module(x)[:, 0] - noise.uniform().to(x)).square()
        return errors, {"size": x.square().sum(1)}


class Mean(Noisy):
    def __call__(self, module, batch, noise):
        return super().__call__(module, batch, noise)[0].mean()
"""


def test_ranks_fit_one_module_together(programs, tmp_path):
    """What one process learns, to rounding; one number for all rows cannot be shared."""
    (tmp_path / "losses_of_mine.py").write_text(LOSSES)
    both = programs.ranks(2, tmp_path, code=RANKS)
    for process in both:
        told, wrong = process.communicate()
        assert process.returncode == 0, wrong
        assert re.search(r"refused: the loss Mean returned one number for all rows", told)
    names = {}
    exec(LOSSES, names)
    line = nn.Linear(2, 1, dtype=F64)
    with torch.no_grad():
        line.weight.fill_(0.5), line.bias.fill_(0.0)
    config = sg.FitConfig(steps=10, batch_size=17, warmup=2)
    result = sg.fit(line, drawn(60, 2), names["Noisy"](), config, rng=5)
    for rank in (0, 1):
        state, losses, logs = torch.load(tmp_path / f"{rank}.pt")
        for name, tensor in line.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(losses, result.losses, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(logs["size"], result.logs["size"], rtol=1e-12, atol=1e-12)


# --- what a loss says of itself


def test_a_loss_says_what_it_is():
    class Own(sg.Loss):
        def __init__(self):
            self.power, self.table, self.how = 2, torch.ones(2), abs

        def __call__(self, module, batch, noise):
            return batch.rows.sum(1)

    spec = Own().spec()
    assert spec["power"] == 2
    assert {"table", "how"} <= set(spec)
    assert json.loads(json.dumps(spec)) == Own().spec()
    one, other = {"__name__": "losses_of_mine"}, {"__name__": "losses_of_mine"}
    exec(HUBER, one)
    exec(HUBER.replace("0.5 *", "0.4 *"), other)
    assert one["Huber"]().spec() == one["Huber"]().spec()
    assert one["Huber"]().spec() != other["Huber"]().spec()
    assert sg.DenoisingLoss("edm").spec() == {
        "class": "DenoisingLoss", "label_dropout": 0.1, "weighting": "edm",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"weighting must be .*, but is 'snr'"):
        sg.DenoisingLoss("snr")
    with pytest.raises(ValueError, match=r"label_dropout must lie in \[0, 1\], but is 2"):
        sg.DenoisingLoss(label_dropout=2)


def test_a_batch_repeats_its_rows_with_their_labels():
    batch = Batch(torch.tensor([[1.0], [2.0]]), torch.tensor([3, 4])).repeated(2)
    assert batch.rows[:, 0].tolist() == [1, 1, 2, 2]
    assert batch.labels.tolist() == [3, 3, 4, 4]
    assert Batch(torch.zeros(2, 1)).repeated(3).labels is None


def test_numbers_of_numpy_are_plain_in_a_checkpoint(tmp_path):
    """float32 of NumPy is no JSON: the training would die at its first save."""
    config = dataclasses.replace(SHORT, learning_rate=np.float32(0.25))
    assert type(config.learning_rate) is float
    sg.fit(Constant(), drawn(64, 1), Square(), config, folder=tmp_path / "run", rng=0)
    assert list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"warmup": 2.5}, "warmup must be an int, but is float"),
        ({"depth": True}, "depth must be an int, but is bool"),
        ({"rate": "0.1"}, "rate must be a number, but is .0.1."),
        ({"ema_decay": None}, "ema_decay must be a number, but is NoneType"),
    ],
)
def test_fields_of_a_config_of_ones_own_are_checked_too(fields, words):
    @dataclasses.dataclass(frozen=True)
    class Own(sg.FitConfig):
        depth: int = -1
        rate: float = -0.5

    with pytest.raises(TypeError, match=words):
        Own(**fields)


@pytest.mark.parametrize("most", [math.inf, 10.0, 0.3])
def test_gradients_are_cut_as_torch_cuts_them(most):
    """To the same bits, of the same length; a gradient that is short enough is not touched."""
    generator = torch.Generator().manual_seed(0)
    twins = [[torch.nn.Parameter(torch.zeros(3, 4)), torch.nn.Parameter(torch.zeros(5))]]
    twins.append([torch.nn.Parameter(p.detach().clone()) for p in twins[0]])
    for ours, theirs in zip(*twins, strict=True):
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.clone()
    length = clip_gradients(twins[0], most)
    assert length == float(torch.nn.utils.clip_grad_norm_(twins[1], most))
    for ours, theirs in zip(*twins, strict=True):
        assert torch.equal(ours.grad, theirs.grad)
