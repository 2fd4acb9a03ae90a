"""Training: the step by hand, a known score learned, the same bits after an interruption."""

import copy
import dataclasses
import math
import os
import re
import signal
import textwrap

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.score.losses import TimeSampler
from sdegen.storage import load_tensors
from sdegen.training import BatchNoise
from tests.score.denoising import denoising_loss

VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SHORT = sg.TrainConfig(steps=12, batch_size=16, warmup=3, checkpoint_every=4, validate_every=5)


def points(n=200, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


def a_model(width=8):
    return sg.ScoreModel(sg.MLP(2, width=width, depth=1, rng=0), VP)


def same(one, other):
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_one_run_by_hand():
    """AdamW and the moving average written out, fed by the streams that training promises.

    In float64; the two orders of the same sums agree to 1e-11.
    """
    config = sg.TrainConfig(
        steps=9, batch_size=32, learning_rate=1e-2, warmup=3, weight_decay=0.1,
        max_grad_norm=0.05, ema_decay=0.6, weighting="simple",
    )  # fmt: skip
    data = points().double()
    model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0).double(), VP)
    twin = copy.deepcopy(model)
    result = sg.train(model, data, config, rng=5)

    parameters = list(twin.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    average, losses, clipped = [], [], 0
    for k in range(config.steps):
        generator = Streams(5, "train").block(k).generator()
        rows = torch.randint(len(data), (32,), generator=generator)
        offset = torch.rand((), generator=generator, dtype=torch.float64)
        t = VP.t_min + (VP.t_max - VP.t_min) * (torch.arange(32) + offset) / 32
        loss = denoising_loss(twin, data[rows], t, rng=generator).mean()
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        shrink = min(1.0, config.max_grad_norm / (norm + 1e-6))
        clipped += shrink < 1
        pace = (k + 1) / 3 if k < 3 else 0.5 * (1 + math.cos(math.pi * (k - 3) / 6))
        rate = config.learning_rate * pace
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
                g = g * shrink
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.mul_(1 - rate * 0.1)
                m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.999 ** (k + 1))
                p.sub_(rate * m_hat / (v_hat.sqrt() + 1e-8))
            if k == 0:
                average = [p.clone() for p in parameters]
            decay = min(0.6, (1 + k) / (10 + k))
            average = [
                decay * a + (1 - decay) * p for a, p in zip(average, parameters, strict=True)
            ]
    assert 0 < clipped <= config.steps
    assert result.losses.tolist() == pytest.approx(losses, rel=1e-11)
    for found, expected in zip(model.parameters(), average, strict=True):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)
    assert result.seed == 5
    assert result.selected_step == 9
    assert not model.training


def test_the_linear_score_of_a_gaussian_is_learned():
    """Data N(μ, C): score −(α² C + σ²)⁻¹ (x − α μ), learned to 3 % of its mean square."""
    generator = torch.Generator().manual_seed(0)
    mean, root = torch.tensor([0.5, -0.3]), torch.tensor([[0.9, 0.0], [0.5, 0.4]])
    data = mean + torch.randn(5000, 2, generator=generator) @ root.T
    model = a_model(width=32)
    config = sg.TrainConfig(steps=600, batch_size=256, learning_rate=1e-2)
    sg.train(model, data, config, rng=0)
    for t in (0.05, 0.3, 0.8):
        time_ = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = float(VP.alpha(time_)), float(VP.sigma(time_))
        marginal = alpha**2 * root @ root.T + sigma**2 * torch.eye(2)
        x = (
            alpha * mean
            + torch.randn(2000, 2, generator=generator) @ torch.linalg.cholesky(marginal).T
        )
        exact = -torch.linalg.solve(marginal, (x - alpha * mean).T).T
        with torch.no_grad():
            error = (model.score(x, time_) - exact).square().mean() / exact.square().mean()
        assert float(error) < 0.03, t


def test_the_same_seed_gives_the_same_bits_and_touches_nothing_else():
    before = torch.get_rng_state()
    results = {}
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        model = a_model()
        results[name] = (model, sg.train(model, points(), SHORT, rng=seed))
        torch.rand(5) if name == "other" else None
    assert same(results["one"][0], results["again"][0])
    assert torch.equal(results["one"][1].losses, results["again"][1].losses)
    assert not same(results["one"][0], results["other"][0])
    assert not torch.equal(torch.get_rng_state(), before)  # that was the torch.rand above
    torch.set_rng_state(before)
    sg.train(a_model(), points(), SHORT)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_recorded_seed_repeats_a_run_that_had_none():
    model, again = a_model(), a_model()
    result = sg.train(model, points(), SHORT)
    sg.train(again, points(), SHORT, rng=result.seed)
    assert same(model, again)


def test_an_average_without_memory_is_the_last_weights():
    """ema_decay = 0: what the model ends with is what the checkpoint holds as its last step."""
    model = a_model()
    config = sg.TrainConfig(steps=5, batch_size=16, ema_decay=0.0)
    sg.train(model, points(), config, rng=0)
    other = a_model()
    sg.train(other, points(), sg.TrainConfig(steps=5, batch_size=16, ema_decay=0.9), rng=0)
    assert not same(model, other)


# The same bits after an interruption


class Presses:
    """An augmentation that changes nothing, and presses Ctrl-C at its n-th call."""

    def __init__(self, at, times=1):
        self.calls, self.at, self.times = 0, at, times

    def __call__(self, rows, source):
        self.calls += 1
        if self.calls == self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return rows


def arguments(**more):
    return {"rng": 3, "validation": points(50, seed=9), **more}


@pytest.mark.parametrize("keep", ["last", "best"])
def test_ctrl_c_saves_the_step_and_the_rest_ends_in_the_same_bits(tmp_path, keep):
    config = sg.TrainConfig(
        steps=30, batch_size=16, warmup=3, checkpoint_every=8, validate_every=5, keep=keep
    )
    whole, cut = a_model(), a_model()
    expected = sg.train(whole, points(), config, augment=Presses(at=None), **arguments())
    with pytest.raises(KeyboardInterrupt):
        sg.train(cut, points(), config, augment=Presses(at=14), folder=tmp_path, **arguments())
    # the step during which it was pressed is done and saved
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000008.safetensors", "step-00000014.safetensors",
    ]  # fmt: skip
    resumed = a_model(width=8)
    nn.init.ones_(resumed.network.enter.weight)  # whatever it holds is replaced
    counting = Presses(at=None)
    result = sg.train(
        resumed, points(), config, augment=counting, folder=tmp_path, resume=True, **arguments()
    )
    assert counting.calls == 30 - 14
    assert same(resumed, whole)
    assert torch.equal(result.losses, expected.losses)
    assert torch.equal(result.validation_losses, expected.validation_losses)
    assert result.validation_steps.tolist() == [5, 10, 15, 20, 25, 30]
    assert (result.selected_step, result.seed) == (expected.selected_step, 3)


def test_after_ctrl_c_the_model_has_its_averaged_weights():
    """As much as a run of that many steps of the same schedule would have."""
    model, config = a_model(), sg.TrainConfig(steps=30, batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        sg.train(model, points(), config, augment=Presses(at=1), rng=0)
    twin = a_model()
    # after one step of warm-up the average is the first weights
    first = sg.TrainConfig(steps=1, batch_size=16)
    sg.train(twin, points(), first, rng=0)
    assert same(model, twin)


def test_a_second_ctrl_c_leaves_in_the_middle_of_a_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sg.train(
            a_model(), points(), SHORT, augment=Presses(at=6, times=2), folder=tmp_path, rng=0
        )
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000004.safetensors"]


KILLED = """
    import os, pathlib, signal, sys, time, torch, sdegen as sg
    torch.set_num_threads(1)
    here = pathlib.Path(sys.argv[1])
    data = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))

    def start(folder, hold=False):
        child = os.fork()
        if child:
            return child
        calls = []
        def augment(rows, source):
            calls.append(1)
            time.sleep(3600 if hold and len(calls) == 10 else 0)  # killed by then, and not done
            return rows + 0.01 * source.normal(tuple(rows.shape), dtype=rows.dtype)
        sde = sg.VP(sg.LinearBeta(0.1, 20.0))
        model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0), sde)
        config = sg.TrainConfig(steps=60, batch_size=16, checkpoint_every=3)
        sg.train(model, data, config, rng=1, augment=augment, folder=here / folder, resume=True)
        model.save(here / f"{folder}.safetensors")
        os._exit(0)

    victim = start("cut", hold=True)
    while not (here / "cut" / "step-00000006.safetensors").exists():
        time.sleep(0.003)
    os.kill(victim, signal.SIGKILL)
    assert os.waitpid(victim, 0)[1] == signal.SIGKILL
    assert not (here / "cut" / "step-00000060.safetensors").exists()
    for folder in ("cut", "whole"):
        assert os.waitpid(start(folder), 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
def test_a_killed_run_ends_in_the_same_bits(programs, tmp_path):
    """kill −9 at some step after the sixth, in a process of its own; then the same call again."""
    programs.run(tmp_path, code=textwrap.dedent(KILLED))
    cut, _ = load_tensors(tmp_path / "cut.safetensors")
    whole, _ = load_tensors(tmp_path / "whole.safetensors")
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_the_newest_two_checkpoints_stay(tmp_path):
    sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)
    names = sorted(path.name for path in tmp_path.glob("step-*"))
    assert names == ["step-00000008.safetensors", "step-00000012.safetensors"]


def test_a_finished_run_is_not_done_again(tmp_path):
    model, again, augment = a_model(), a_model(), Presses(at=None)
    result = sg.train(model, points(), SHORT, rng=0, folder=tmp_path, augment=Presses(at=None))
    repeated = sg.train(
        again, points(), SHORT, rng=0, folder=tmp_path, resume=True, augment=augment
    )
    assert augment.calls == 0
    assert same(model, again)
    assert torch.equal(result.losses, repeated.losses)


def test_resume_without_a_seed_takes_the_runs_own(tmp_path):
    result = sg.train(a_model(), points(), SHORT, folder=tmp_path)
    again = sg.train(a_model(), points(), SHORT, folder=tmp_path, resume=True)
    assert again.seed == result.seed


def test_how_often_it_is_saved_may_change(tmp_path):
    sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)
    rarer = sg.TrainConfig(steps=12, batch_size=16, warmup=3, checkpoint_every=6, validate_every=5)
    sg.train(a_model(), points(), rarer, rng=0, folder=tmp_path, resume=True)


def test_another_run_is_refused_by_the_difference(tmp_path):
    sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)

    def resume(model=None, data=None, config=SHORT, rng=0, **more):
        sg.train(
            model or a_model(), points() if data is None else data, config, rng=rng,
            folder=tmp_path, resume=True, **more,
        )  # fmt: skip

    longer = sg.TrainConfig(
        steps=24, batch_size=16, warmup=3, checkpoint_every=4, validate_every=5
    )
    with pytest.raises(ValueError, match=r"another run: config\.steps is 12 there and 24 here"):
        resume(config=longer)
    with pytest.raises(ValueError, match="another run: its data were others"):
        resume(data=points(seed=1))
    with pytest.raises(ValueError, match="another run: its validation were others"):
        resume(validation=points(seed=1))
    with pytest.raises(ValueError, match="another run: seed is 0 there and 1 here"):
        resume(rng=1)
    with pytest.raises(ValueError, match=r"another run: network\.width is 8 there and 16 here"):
        resume(model=a_model(width=16))
    with pytest.raises(ValueError, match=r"config\.precision is 'full' there and 'bf16' here"):
        resume(config=dataclasses.replace(SHORT, precision="bf16"))
    # with labels the configuration says more, but they are what differs
    classed = sg.ScoreModel(sg.MLP(2, width=8, depth=1, classes=2), a_model().sde)
    with pytest.raises(ValueError, match="another run: its labels were others"):
        resume(model=classed, labels=torch.zeros(len(points()), dtype=torch.long))
    with pytest.raises(ValueError, match="another run: augment is False there and True here"):
        resume(augment=Presses(at=None))
    slower = sg.ScoreModel(a_model().network, sg.VP(sg.LinearBeta(0.1, 10.0)))
    with pytest.raises(ValueError, match=r"run: sde\.beta\.beta_max is 20.0 there and 10.0 here"):
        resume(model=slower)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)
    with pytest.raises(ValueError, match=r"already holds a training run \(step 12\); pass resume"):
        sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)
    with pytest.raises(ValueError, match="resume=True needs the folder"):
        sg.train(a_model(), points(), SHORT, rng=0, resume=True)


def test_a_damaged_checkpoint_is_named_and_so_is_the_newest_good_one(tmp_path):
    sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path)
    newest = tmp_path / "step-00000012.safetensors"
    content = bytearray(newest.read_bytes())
    content[-5] ^= 16
    newest.write_bytes(content)
    message = (
        rf"{re.escape(str(newest))} is damaged in its key '.*'.* The newest good one is "
        r".*step-00000008\.safetensors; remove the damaged file to go on"
    )
    model = a_model()
    before = copy.deepcopy(model)
    with pytest.raises(sg.CheckpointError, match=message):
        sg.train(model, points(), SHORT, rng=0, folder=tmp_path, resume=True)
    assert same(model, before)
    newest.unlink()
    whole = a_model()
    sg.train(model, points(), SHORT, rng=0, folder=tmp_path, resume=True)
    sg.train(whole, points(), SHORT, rng=0)
    assert same(model, whole)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(sg.CheckpointError, match="There is no good one beside it"):
        sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path, resume=True)


# Validation


def test_the_best_weights_are_those_of_the_least_validation_loss():
    """Five points are soon known by heart: the loss on others falls, then rises."""
    config = sg.TrainConfig(
        steps=600, batch_size=64, learning_rate=1e-2, validate_every=50, keep="best", warmup=0
    )
    validation = points(300, seed=2)
    model = a_model(width=64)
    result = sg.train(model, points(5), config, rng=0, validation=validation)
    losses = result.validation_losses
    assert result.validation_steps.tolist() == list(range(50, 601, 50))
    best = int(losses.argmin())
    assert result.selected_step == result.validation_steps[best]
    assert best < 11, "the premise: the last is not the best"
    assert losses[-1] > 1.05 * losses[best]
    # the model's own loss on those data, with other times and noise, is the recorded one
    t = TimeSampler(VP, "likelihood").quantile(
        BatchNoise(Streams(1, "test").block(0), 300 * 64).stratified()
    )
    t = t[torch.randperm(len(t), generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        errors = denoising_loss(model, validation.repeat_interleave(64, 0), t, rng=5)
    scatter = float(errors.std()) * math.sqrt(1 / len(errors) + 1 / (300 * 8))
    assert float(errors.mean()) == pytest.approx(float(losses[best]), abs=4.4 * scatter)


def test_looking_at_validation_data_changes_no_step():
    seen, blind = a_model(), a_model()
    sg.train(seen, points(), SHORT, rng=0, validation=points(30, seed=4))
    sg.train(blind, points(), SHORT, rng=0)
    assert same(seen, blind)


# What is refused, and what fails on the way


def test_bad_data_are_refused_by_row():
    holed = points()
    holed[[7, 12], 1] = torch.tensor([float("nan"), float("inf")])
    with pytest.raises(ValueError, match=r"data has 2 of 200 rows.*first of them row 7"):
        sg.train(a_model(), holed, SHORT)
    with pytest.raises(ValueError, match="validation has 2 of 200 rows"):
        sg.train(a_model(), points(), SHORT, validation=holed)
    with pytest.raises(ValueError, match=r"data must have shape \(n, \*event\).*\(0, 2\)"):
        sg.train(a_model(), points(0), SHORT)
    with pytest.raises(ValueError, match=r"data must have shape \(n, \*event\).*\(200,\)"):
        sg.train(a_model(), points()[:, 0], SHORT)
    with pytest.raises(
        TypeError, match=r"data must be floating point, but is torch.uint8; dequant"
    ):
        sg.train(a_model(), torch.zeros(5, 2, dtype=torch.uint8), SHORT)
    with pytest.raises(ValueError, match=r"validation must hold events of shape \(2,\).*\(3,\)"):
        sg.train(a_model(), points(), SHORT, validation=torch.zeros(5, 3))


def test_best_without_validation_is_refused():
    with pytest.raises(ValueError, match="keep='best' asks for the best weights on the valid"):
        sg.train(a_model(), points(), sg.TrainConfig(keep="best"))


def test_a_network_without_parameters_is_refused():
    class Nothing(nn.Module):
        def forward(self, x, t):
            return x

    with pytest.raises(ValueError, match="the network has no parameters to train"):
        sg.train(sg.ScoreModel(Nothing(), VP), points(), SHORT)


def test_a_loss_that_is_not_finite_stops_with_what_was_learned():
    calls = []

    def poison(rows, source):
        calls.append(1)
        return rows * float("nan") if len(calls) == 6 else rows

    model, twin = a_model(), a_model()
    with pytest.raises(
        sg.NonFiniteError, match=r"the loss is nan in step 5, after .* lower learning_rate"
    ) as caught:
        sg.train(model, points(), SHORT, rng=0, augment=poison)
    result = caught.value.result
    assert len(result.losses) == 5
    assert bool(result.losses.isfinite().all())
    assert result.selected_step == 5
    # the weights are those of the five good steps
    with pytest.raises(KeyboardInterrupt):
        sg.train(twin, points(), SHORT, rng=0, augment=Presses(at=5))
    assert same(model, twin)


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    """√p at p = 0: the loss is finite, its gradient is not."""

    class Edge(nn.Module):
        def __init__(self):
            super().__init__()
            self.p = nn.Parameter(torch.zeros(1))

        def forward(self, x, t):
            return self.p.sqrt() + 0 * x

    model = sg.ScoreModel(Edge(), VP)
    with pytest.raises(sg.NonFiniteError, match=r"the gradient is .* in step 0, after a"):
        sg.train(model, points(), SHORT, rng=0)
    assert model.network.p.item() == 0


def test_with_best_what_is_kept_after_a_failure_is_the_best_so_far():
    calls = []

    def poison(rows, source):
        calls.append(1)
        return rows * float("nan") if len(calls) == 12 else rows

    config = dataclasses.replace(SHORT, keep="best")
    with pytest.raises(sg.NonFiniteError) as caught:
        sg.train(a_model(), points(), config, rng=0, augment=poison, validation=points(40, seed=1))
    result = caught.value.result
    assert result.validation_steps.tolist() == [5, 10]
    best = int(result.validation_losses.argmin())
    assert result.selected_step == result.validation_steps[best]


def test_half_precision_weights_are_refused():
    model = a_model().to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"weights are torch.bfloat16, too coarse.*float32"):
        sg.train(model, points(), SHORT)


def test_an_augmentation_that_changes_the_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"the shape it is given, \(16, 2\), but returned \(8, 2\)"
    ):
        sg.train(a_model(), points(), SHORT, augment=lambda rows, source: rows[:8])


def test_a_file_that_is_no_training_is_not_resumed(tmp_path):
    a_model().save(tmp_path / "step-00000004.safetensors")
    with pytest.raises(sg.CheckpointError, match="holds a ScoreModel, not a training"):
        sg.train(a_model(), points(), SHORT, rng=0, folder=tmp_path, resume=True)


def test_an_error_of_the_augmentation_passes_through_with_its_step():
    def wrong(rows, source):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        sg.train(a_model(), points(), SHORT, rng=0, augment=wrong)
    assert caught.value.__notes__ == ["in step 0 of the training, in augment"]


def test_a_progress_bar_is_shown_when_asked(capsys):
    sg.train(a_model(), points(), SHORT, rng=0)
    assert capsys.readouterr().err == ""
    sg.train(a_model(), points(), SHORT, rng=0, progress=True)
    assert "12/12" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_model_on_a_gpu_learns_there():
    model = a_model(width=32).to("cuda")
    config = sg.TrainConfig(steps=300, batch_size=256, learning_rate=1e-2)
    result = sg.train(model, points(2000), config, rng=0)
    assert next(model.parameters()).is_cuda
    # N(0, I) stays N(0, I) under VP: the score is −x
    x = points(500, seed=1).cuda()
    with torch.no_grad():
        error = (model.score(x, torch.tensor(0.4, dtype=torch.float64)) + x).square().mean()
    assert float(error) < 0.03
    assert result.losses[-50:].mean() < result.losses[0]


# --- what else draws, casts and shares


class Dropped(nn.Module):
    """A network that draws: half of what it knows is dropped while it is trained."""

    def __init__(self):
        super().__init__()
        self.inner = sg.MLP(2, width=8, depth=1, rng=0)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t):
        return self.inner(self.drop(x), t)


def test_dropout_draws_from_rng_and_leaves_the_global_generator_alone(tmp_path):
    """The same rng, the same losses, whatever the global seed; and resumed to the bit."""
    config = dataclasses.replace(SHORT, validate_every=50)
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # noqa: TID251
        before = torch.get_rng_state()
        model = sg.ScoreModel(Dropped(), VP)
        runs.append((sg.train(model, points(), config, rng=3).losses, model))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0][0], runs[1][0])
    assert same(runs[0][1], runs[1][1])
    # half of the numbers are dropped: the losses are not those of a network in evaluation mode
    cut = sg.ScoreModel(Dropped(), VP)
    sg.train(cut, points(), config, rng=3, folder=tmp_path)
    newest = max(tmp_path.glob("*.safetensors"))
    newest.unlink()
    torch.manual_seed(5)  # noqa: TID251
    gone_on = sg.ScoreModel(Dropped(), VP)
    sg.train(gone_on, points(), config, rng=3, folder=tmp_path, resume=True)
    assert same(gone_on, runs[0][1])


def test_autocast_around_training_learns_as_much_as_without():
    """torch keeps what it has cast until autocast is left: the loss had stayed at 1."""
    config = sg.TrainConfig(steps=150, batch_size=64, learning_rate=1e-2, warmup=10)
    data = 0.3 * points(400)
    losses = {}
    for name in ("plain", "around", "within"):
        model = sg.ScoreModel(sg.MLP(2, width=16, depth=1, rng=0), VP)
        if name == "around":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses[name] = sg.train(model, data, config, rng=0).losses
        else:
            here = dataclasses.replace(config, precision="bf16" if name == "within" else "full")
            losses[name] = sg.train(model, data, here, rng=0).losses
        assert next(model.parameters()).dtype == torch.float32
    ends = {name: float(values[-30:].mean()) for name, values in losses.items()}
    assert ends["plain"] < 0.5 * float(losses["plain"][0])
    # bfloat16 has 8 bits: 0.4 % of what a layer says
    assert ends["around"] == pytest.approx(ends["plain"], rel=0.03)
    assert torch.equal(losses["around"], losses["within"])
    assert not torch.equal(losses["plain"], losses["within"])
    with pytest.raises(ValueError, match="precision must be 'full' or 'bf16', but is 'half'"):
        sg.TrainConfig(precision="half")


def test_data_of_another_scale_are_told_with_the_numbers():
    """As data × 100 + 300 were not; following the advice cures it."""
    config = dataclasses.replace(SHORT, steps=1)
    data = 100 * points() + 300
    with pytest.warns(sg.AccuracyWarning, match=r"mean 30\d and .*deviation 9\d.*0 ± 1") as told:
        sg.train(a_model(), data, config, rng=0)
    mean, std = map(
        float, re.search(r"\(data - ([\d.]+)\)/([\d.]+)", str(told[0].message)).groups()
    )
    sg.train(a_model(), (data - mean) / std, config, rng=0)
    edm = sg.ScoreModel(sg.MLP(2, width=8, depth=1), sg.EDM(), sg.EDMPrediction(0.5))
    with pytest.warns(sg.AccuracyWarning, match="expects about 0 ± 0.5"):
        sg.train(edm, 0.01 * points(), config, rng=0)
    short = sg.ScoreModel(sg.MLP(2, width=8, depth=1), sg.VE(sg.GeometricSigma(0.01, 3.0)))
    with pytest.warns(
        sg.AccuracyWarning,
        match=r"at t = 1: KL\(p_T ‖ prior\) = 1\.1 nats.*deviation 4\.\d+: train",
    ):
        sg.train(short, 4.5 * points(), config, rng=0)


RANKS = """
import os, sys, torch, sdegen as sg
torch.set_num_threads(1)
data = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
network = sg.MLP(2, width=8, depth=1, rng=int(os.environ["RANK"]))
model = sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0)))
config = sg.TrainConfig(steps=12, batch_size=17, warmup=3, checkpoint_every=4)
try:
    sg.train(model, data, config, rng=5)
except ValueError as error:
    print("refused:", error)
with sg.distributed_context() as ranks:
    try:
        sg.train(model, data[ranks.rank :], config, rng=5)
    except sg.RankError as error:
        print("refused:", error)
    found = sg.train(model, data, config, rng=5, folder=sys.argv[1] + "/run")
model.save(f"{sys.argv[1]}/{ranks.rank}.safetensors")
torch.save(found.losses, f"{sys.argv[1]}/{ranks.rank}.losses")
"""


def test_ranks_train_one_model_together(programs, tmp_path):
    """What one process learns, to rounding, on both; and not joined they are refused."""
    both = programs.ranks(2, tmp_path, code=RANKS)
    ends = [process.communicate() for process in both]
    for rank, (told, wrong) in enumerate(ends):
        assert both[rank].returncode == 0, wrong
        assert re.search(
            rf"refused: this is rank {rank} of 2 .*with sg\.distributed_context\(\)", told
        )
        assert "data of rank 1 differs from that of rank 0" in told
    alone = a_model()
    config = sg.TrainConfig(steps=12, batch_size=17, warmup=3)
    result = sg.train(alone, points(), config, rng=5)
    models = [sg.ScoreModel.load(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    assert same(*models)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(models[0].state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    losses = torch.load(tmp_path / "1.losses")
    torch.testing.assert_close(losses, result.losses, rtol=1e-5, atol=1e-6)
    assert len(list((tmp_path / "run").glob("*.safetensors"))) > 0


def test_training_does_not_depend_on_no_grad_around_it():
    """It had ended in torch's own error; nothing is learned in inference mode."""
    losses = []
    for recorded in (True, False):
        model = sg.ScoreModel(sg.MLP(dim=1, width=8, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
        with torch.set_grad_enabled(recorded):
            run = sg.train(model, torch.randn(64, 1), sg.TrainConfig(steps=3, batch_size=8), rng=0)
        losses.append(len(run.losses))
    assert losses[0] == losses[1]
    with torch.inference_mode(), pytest.raises(ValueError, match="call it outside"):
        sg.train(model, points(8)[:, :1], sg.TrainConfig(steps=1, batch_size=4), rng=0)
