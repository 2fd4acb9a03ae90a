"""Optimizers, schedules, parts of a step, callbacks and metrics: the same bits, told once."""

import dataclasses
import json
import math
import os
import sys
import types
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

import sdegen as sg
from sdegen.storage import load_tensors
from sdegen.training import Callback, JSONLines, TensorBoard

F64 = torch.float64
SHORT = sg.FitConfig(steps=9, batch_size=16, checkpoint_every=4, validate_every=5)
X = torch.randn(50, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
BOARD = "torch.utils.tensorboard"


class Square(sg.Loss):
    """(module(x) − x₁)², with noise on x."""

    def __call__(self, module, batch, noise):
        x = batch.rows + 0.1 * noise.normal_like(batch.rows)
        errors = (module(x) - x[:, :1]).square().sum(1) + noise.uniform().to(x)
        return errors, {"size": x.square().sum(1)}


class Curved(nn.Module):
    """A network of which sums in another order differ."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        for i, p in enumerate(self.parameters()):
            with torch.no_grad():
                p.copy_(torch.linspace(-1, 1 + i, p.numel()).view_as(p))

    def forward(self, x):
        return self.layers(x)


def fitted(config=SHORT, loss=None, module=None, **options):
    module = Curved() if module is None else module
    result = sg.fit(module, X, loss or Square(), config, rng=5, **options)
    return torch.cat([p.detach().flatten() for p in module.parameters()]), result


def alike(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1].losses, other[1].losses)


def stops(at):
    """An augmentation that changes nothing, and fails at its n-th call."""
    calls = []

    def augment(rows, stream):
        calls.append(1)
        if len(calls) == at:
            raise ZeroDivisionError
        return rows

    return augment


def resumed(folder, config=SHORT, **options):
    """What is resumed from step 4 after a failure in the seventh."""
    with pytest.raises(ZeroDivisionError):
        fitted(config, folder=folder, augment=stops(7), **options)
    return fitted(config, folder=folder, augment=stops(0), resume=True, **options)


# --- parts of a step


@pytest.mark.parametrize("parts", [2, 5, 16])
def test_parts_of_a_step_add_up_to_the_step(parts):
    """The rows and noise of one batch, whatever the parts are: to rounding."""
    config = dataclasses.replace(SHORT, steps=20)
    whole, cut = fitted(config), fitted(dataclasses.replace(config, accumulate=parts))
    torch.testing.assert_close(cut[0], whole[0], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(cut[1].losses, whole[1].losses, rtol=1e-12, atol=0)
    size = cut[1].logs["size"]
    torch.testing.assert_close(size, whole[1].logs["size"], rtol=1e-12, atol=0)


class Counts(Square):
    """A loss that keeps how many rows it is given."""

    def __init__(self):
        self._sizes = []

    def __call__(self, module, batch, noise):
        self._sizes.append(len(batch))
        return super().__call__(module, batch, noise)


class Mean(Square):
    """One number for all rows."""

    def __call__(self, module, batch, noise):
        return super().__call__(module, batch, noise)[0].mean()


def test_a_part_has_its_rows_alone(tmp_path):
    loss = Counts()
    fitted(dataclasses.replace(SHORT, accumulate=5), loss)
    assert loss._sizes == [3, 3, 3, 3, 4] * 9
    with pytest.raises(ValueError, match="one number for all rows, which ranks or parts of a"):
        fitted(dataclasses.replace(SHORT, accumulate=2), Mean())
    with pytest.raises(ValueError, match=r"accumulate must be ≤ batch_size = 16, .* but is 17"):
        sg.FitConfig(batch_size=16, accumulate=17)


def test_bf16_in_parts_has_the_loss_of_bf16():
    """The network alone is of 8 bits: parts of a batch see its rows as the batch does."""
    config = dataclasses.replace(SHORT, precision="bf16", steps=3)
    module = nn.Linear(3, 1)
    half = nn.Linear(3, 1)
    half.load_state_dict(module.state_dict())
    cut = fitted(dataclasses.replace(config, accumulate=4), module=module)[1].losses
    whole = fitted(config, module=half)[1].losses
    assert float(cut[0]) == pytest.approx(float(whole[0]), rel=1e-6)
    assert next(module.parameters()).dtype == torch.float32


# --- optimizers and schedules


def test_sgd_with_a_schedule_by_hand():
    """w ← w − lr f(k) v, v ← 0.9 v + g, on ½ (w − 1)²: the recursion of one weight."""

    class Half(sg.Loss):
        def __call__(self, module, batch, noise):
            return 0.5 * (module.weight - 1).square().sum() + 0 * batch.rows.sum(1)

    line = nn.Linear(3, 1, bias=False, dtype=F64)
    nn.init.zeros_(line.weight)
    config = sg.FitConfig(
        steps=6, batch_size=4, learning_rate=0.2, ema_decay=0.0, max_grad_norm=1e9
    )
    sg.fit(
        line, X, Half(), config, rng=0, optimizer=partial(torch.optim.SGD, momentum=0.9),
        schedule=lambda k: 1 / (1 + k),
    )  # fmt: skip
    w, v = 0.0, 0.0
    for k in range(6):
        v = 0.9 * v + (w - 1)
        w -= 0.2 / (1 + k) * v
    assert line.weight.tolist()[0] == pytest.approx([w] * 3, rel=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        (partial(torch.optim.SGD, momentum=0.9), lambda k: 1 / (1 + k)),
        (torch.optim.NAdam, partial(StepLR, step_size=3)),
        (
            lambda w: torch.optim.RMSprop(w, lr=0.01, momentum=0.5),
            partial(OneCycleLR, max_lr=0.1, total_steps=40),
        ),
        (torch.optim.Adafactor, None),
        (torch.optim.ASGD, None),
    ],
    ids=["SGD", "NAdam", "RMSprop", "Adafactor", "ASGD"],
)
def test_what_an_optimizer_remembers_is_resumed_to_the_bit(optimizer, schedule, tmp_path):
    options = {"optimizer": optimizer, "schedule": schedule}
    whole = fitted(**options)
    assert alike(resumed(tmp_path, **options), whole)
    assert not alike(fitted(), whole)


@pytest.mark.parametrize("schedule", [lambda k: 0.9**k, partial(StepLR, step_size=3)])
def test_a_longer_run_ends_in_the_bits_of_one_that_was_as_long_from_the_start(schedule, tmp_path):
    options = {"schedule": schedule, "validation": X[:9], "callbacks": [JSONLines(every=1)]}
    longer = dataclasses.replace(SHORT, steps=14)
    whole = fitted(longer, **options, folder=tmp_path / "whole")
    fitted(**options, folder=tmp_path / "run")
    again = fitted(longer, **options, folder=tmp_path / "run", resume=True)
    assert alike(again, whole)
    # the shorter one was validated at its end too
    assert again[1].validation_steps.tolist() == [5, 10, 14]
    assert torch.equal(again[1].validation_losses, whole[1].validation_losses)
    best = dataclasses.replace(longer, keep="best")
    fitted(dataclasses.replace(best, steps=9), **options, folder=tmp_path / "best")
    with pytest.raises(ValueError, match=r"ended at step 9 with a validation that a longer one"):
        fitted(best, **options, folder=tmp_path / "best", resume=True)
    with pytest.raises(ValueError, match=r"config\.steps is 14 there and 9 here"):
        fitted(**options, folder=tmp_path / "run", resume=True)


def test_the_cosine_cannot_be_made_longer(tmp_path):
    fitted(folder=tmp_path)
    longer = dataclasses.replace(SHORT, steps=14)
    with pytest.raises(ValueError, match=r"steps is 9 there and 14 here, and .* cosine that ends"):
        fitted(longer, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"another run: schedule is None there"):
        fitted(longer, folder=tmp_path, resume=True, schedule=lambda k: 1.0)
    with pytest.raises(ValueError, match=r"another run: optimizer is None there"):
        fitted(folder=tmp_path, resume=True, optimizer=torch.optim.SGD)


class Remembers(torch.optim.SGD):
    """An optimizer that keeps a list."""

    def step(self, closure=None):
        super().step(closure)
        self.state[self.param_groups[0]["params"][0]]["history"] = [1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "SGD"}, TypeError, "optimizer must be a class of torch.optim, .* 'SGD'"),
        ({"optimizer": lambda w: None}, TypeError, "what optimizer makes must be .*but is None"),
        ({"optimizer": torch.optim.LBFGS}, ValueError, "LBFGS asks for the loss several times"),
        (
            {"optimizer": lambda w: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)},
            ValueError,
            "must hold the weights that are trained, and no others; make it in a function",
        ),
        (
            {"optimizer": torch.optim.SGD, "config": sg.FitConfig(weight_decay=0.1)},
            ValueError,
            "config asks for weight_decay = 0.1 too; say it to the optimizer",
        ),
        (
            {
                "optimizer": partial(torch.optim.SGD, lr=0.1),
                "config": sg.FitConfig(learning_rate=0.2),
            },
            ValueError,
            "says its own lr, and config asks for learning_rate = 0.2 too; say one",
        ),
        ({"schedule": 0.5}, TypeError, "schedule must be a function k -> factor, .* but is 0.5"),
        ({"schedule": ReduceLROnPlateau}, ValueError, "ReduceLROnPlateau follows a loss"),
        ({"schedule": lambda k: -1.0}, ValueError, r"schedule\(0\) must be finite and ≥ 0.*-1"),
        ({"schedule": lambda k: "x"}, TypeError, r"schedule\(0\) must be a number, but is 'x'"),
        (
            {"schedule": lambda k: 1.0, "config": sg.FitConfig(warmup=3)},
            ValueError,
            "config asks for warmup = 3 too; say it in the schedule",
        ),
        ({"callbacks": print}, TypeError, "callbacks must be a list .*but is a function; pass"),
        ({"callbacks": [3]}, TypeError, r"callbacks\[0\] must be a function of a report.* 3"),
        ({"callbacks": [JSONLines()]}, ValueError, "JSONLines has no place to write to; pass its"),
    ],
)
def test_what_takes_no_steps_is_refused(options, error, message, as_user):
    with pytest.raises(error, match=message):
        fitted(**({"config": SHORT} | options))


def test_a_memory_that_no_file_holds_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Remembers remembers history, a list, which a checkpoint"):
        fitted(optimizer=Remembers, folder=tmp_path)


# --- callbacks and metrics


class Meddles(Callback):
    """Draws from everything, switches modes, and takes gradients of its own."""

    def __init__(self):
        self.told, self.steps = [], []

    def begin(self, step, folder):
        self.told.append(("begin", step))

    def __call__(self, report):
        torch.rand(3)
        report.module.eval()
        report.averaged.train()
        report.module(X).sum().backward()
        self.steps.append(report)

    def end(self):
        self.told.append(("end", len(self.steps)))


def test_callbacks_are_told_of_each_step_and_change_no_bit():
    plain = fitted(validation=X[:9])
    meddles, losses = Meddles(), []
    bits = fitted(validation=X[:9], callbacks=[meddles, lambda report: losses.append(report.loss)])
    assert alike(bits, plain)
    assert losses == plain[1].losses.tolist()
    assert meddles.told == [("begin", 0), ("end", 9)]
    assert [one.step for one in meddles.steps] == list(range(1, 10))
    seen = [one.validation_loss for one in meddles.steps]
    assert [i + 1 for i, value in enumerate(seen) if value is not None] == [5, 9]
    assert [seen[4], seen[8]] == plain[1].validation_losses.tolist()
    assert meddles.steps[2].logs["size"] == float(plain[1].logs["size"][2])
    assert all(one.rows_per_second > 0 and one.gradient_norm > 0 for one in meddles.steps)
    rates = [one.learning_rate for one in meddles.steps]
    assert rates == pytest.approx([3e-3 * (k + 1) / 100 for k in range(9)])

    def wrong(report):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fitted(callbacks=[wrong])
    assert caught.value.__notes__ == ["in a callback, after step 1 of the training"]


def lines_of(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "rows_per_second"} for line in lines]


def test_metrics_tell_each_step_once_after_a_kill(tmp_path):
    """Lines beyond the checkpoint, the last of them cut, are taken away by the resume."""
    options = {"callbacks": [JSONLines(every=2)], "validation": X[:9]}
    whole = fitted(folder=tmp_path / "whole", **options)
    expected = lines_of(tmp_path / "whole")
    assert [line["step"] for line in expected] == [2, 4, 5, 6, 8, 9]
    assert expected[1]["loss"] == pytest.approx(float(whole[1].losses[2:4].mean()), rel=1e-15)
    assert expected[2]["validation_loss"] == float(whole[1].validation_losses[0])
    assert expected[0]["logs"] == {"size": float(whole[1].logs["size"][1])}
    with pytest.raises(ZeroDivisionError):
        fitted(folder=tmp_path / "cut", augment=stops(7), **options)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    fitted(folder=tmp_path / "cut", augment=stops(0), resume=True, **options)
    assert lines_of(tmp_path / "cut") == expected
    fitted(folder=tmp_path / "plain")
    assert [line["step"] for line in lines_of(tmp_path / "plain")] == [9]
    with pytest.raises(ValueError, match="every must be ≥ 1, but is 0"):
        JSONLines(every=0)


def test_tensorboard_gets_the_numbers_of_the_lines(tmp_path, monkeypatch):
    """By a writer in its place: what is asked of it, and where it is not installed."""

    made = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.folder, self.purge_step, self.points, self.closed = folder, purge_step, [], False
            made.append(self)

        def add_scalar(self, name, value, step):
            self.points.append((name, value, step))

        def close(self):
            self.closed = True

    module = types.ModuleType(BOARD)
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, BOARD, module)
    board = TensorBoard(every=3)
    result = fitted(folder=tmp_path, callbacks=[board])[1]
    (writer,) = made
    assert (writer.folder, writer.purge_step, writer.closed) == (
        str(tmp_path / "tensorboard"),
        1,
        True,
    )
    losses = [(value, step) for name, value, step in writer.points if name == "loss"]
    expected = [(float(result.losses[k : k + 3].mean()), k + 3) for k in (0, 3, 6)]
    assert losses == expected
    names = {name for name, _, _ in writer.points}
    assert names == {"loss", "learning_rate", "gradient_norm", "rows_per_second", "logs/size"}
    monkeypatch.setitem(sys.modules, BOARD, None)
    with pytest.raises(ImportError, match=r"TensorBoard needs .*pip install 'sdegen\[tensorboard"):
        TensorBoard()


# --- what is not a number


class Poisoned(Square):
    """NaN in its n-th call."""

    def __init__(self, at):
        self._calls, self._at = 0, at

    def __call__(self, module, batch, noise):
        self._calls += 1
        factor = math.nan if self._calls == self._at else 1.0
        return super().__call__(module, batch, noise)[0] * factor


def test_a_loss_that_is_lost_keeps_the_last_good_checkpoint(tmp_path):
    """Also where its step was a checkpoint: those weights have given NaN."""
    config = dataclasses.replace(SHORT, checkpoint_every=2)
    with pytest.raises(sg.NonFiniteError, match=r"step 6, .* last good checkpoint is \S*00004\.s"):
        fitted(config, Poisoned(7), folder=tmp_path)
    assert sorted(p.name[5:13] for p in tmp_path.glob("step-*")) == ["00000004", "00000006"]


def test_weights_that_are_lost_are_never_saved(tmp_path):
    """A step of 1e308 · 10 overflows: no loss has been NaN yet, and the average stays finite."""
    module = Curved()

    def schedule(k):
        return 1.0 if k < 7 else 1e308

    config = dataclasses.replace(SHORT, learning_rate=10.0, checkpoint_every=4, max_grad_norm=1e3)
    config = dataclasses.replace(config, steps=8)
    options = {"optimizer": torch.optim.SGD, "schedule": schedule, "module": module}
    with pytest.raises(sg.NonFiniteError, match=r"the weight \S+ is nan .*checkpoint is \S*00004"):
        fitted(config, folder=tmp_path, **options)
    assert [p.name[5:13] for p in tmp_path.glob("step-*")] == ["00000004"]
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    saved, _ = load_tensors(tmp_path / "step-00000004.safetensors")
    assert all(bool(t.isfinite().all()) for t in saved.values())


# --- kill −9

KILLED = """
import sys
sys.path.insert(0, {root!r})
from benchmarks import killed_training
print(killed_training.main(quick=True)[0]["same bits"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks")
def test_trainings_that_are_killed_end_in_the_same_bits(programs, tmp_path):
    """Three, at random moments; `benchmarks/killed_training.py` kills twenty."""
    root = str(Path(__file__).parents[2])
    told = programs.run(code=KILLED.format(root=root), folder=tmp_path)
    assert told.split()[-1] == "3"
