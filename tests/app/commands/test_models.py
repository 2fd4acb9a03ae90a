"""Train, sample, likelihood: the library's own numbers, and exact ones for a score that is known.

An untrained MLP is the zero function. As a prediction of ε it is the score 0, for which every
route backwards has a law in closed form.
"""

import json
import math
import signal

import pytest
import torch
from waiting import wait_for

import sdegen as sg
from sdegen.app.cli import main
from sdegen.core.noise import Streams, stream
from sdegen.engine.blocks import solve
from sdegen.storage import load_tensors

BETAS = (0.1, 2.0)
TRAIN = (
    "train --steps 60 --batch-size 64 --width 16 --depth 1 --samples 500 --validation 100 "
    "--validate-every 20 --checkpoint-every 20 --seed 5"
)


@pytest.fixture
def zero(here):
    """The file of a model whose score is 0, and its SDE."""
    sde = sg.VP(sg.LinearBeta(*BETAS))
    sg.ScoreModel(sg.MLP(2, 8, 1, rng=0), sde).save(here / "zero.safetensors")
    return sde


def at(function, t):
    return float(function(torch.tensor(t, dtype=torch.float64)))


def test_training_is_the_librarys(here, call):
    found = call(TRAIN, "--parameterization v --family subvp --schedule cosine --out r")
    assert (found.status, found.err) == (0, [])
    from sdegen.app.commands.datasets import training_data

    sets = training_data(
        "two_moons",
        samples=500,
        validation=100,
        seed=5,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    model = sg.ScoreModel(sg.MLP(2, 16, 1, rng=5), sg.SubVP(sg.CosineBeta()), sg.VPrediction())
    config = sg.TrainConfig(steps=60, batch_size=64, validate_every=20)
    same = sg.train(model, sets.train, config, rng=5, validation=sets.validation)
    loaded = sg.ScoreModel.load(here / "r" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert type(loaded.sde) is sg.SubVP
    assert type(loaded.parameterization) is sg.VPrediction
    assert torch.equal(found.tensors["losses"], same.losses)
    assert torch.equal(found.tensors["validation_losses"], same.validation_losses)
    assert found.metrics["event_shape"] == [2]
    assert found.metrics["loss"] == pytest.approx(float(same.losses[-3:].mean()))
    assert {"model.safetensors", "losses.safetensors", "losses.png", "checkpoints"} <= found.files


@pytest.mark.parametrize(
    ("flags", "sde", "network"),
    [
        ("--schedule constant --beta-min 3", "VP ConstantBeta 3.0", "MLP"),
        ("--schedule quadratic", "VP QuadraticBeta 0.1 20.0", "MLP"),
        ("--family ve --sigma-max 9", "VE GeometricSigma 0.01 9.0", "MLP"),
        ("--data digits", "VP LinearBeta 0.1 20.0", "MLP"),
        ("--data digits --network unet", "VP LinearBeta 0.1 20.0", "UNet"),
        ("--data digits --network unet --width 8 --depth 1", "VP LinearBeta 0.1 20.0", "UNet"),
    ],
)
def test_families_schedules_networks(here, call, flags, sde, network):
    found = call("train --steps 2 --batch-size 8 --seed 0 --out r", flags)
    assert (found.status, found.err) == (0, [])
    model = sg.ScoreModel.load(here / "r" / "model.safetensors")
    schedule = model.sde.schedule if sde.startswith("VE") else model.sde.beta
    numbers = [str(v) for k, v in vars(schedule).items() if k.split("_")[0] in ("beta", "sigma")]
    assert " ".join([type(model.sde).__name__, type(schedule).__name__, *numbers]) == sde
    assert type(model.network).__name__ == network
    if "--width" not in flags:  # the library's own sizes
        like = {"MLP": sg.MLP(64), "UNet": sg.UNet()}[network]
        assert model.network.width == like.width


@pytest.mark.parametrize(
    ("family", "how", "sde", "read"),
    [
        ("rectified-flow", "flow", sg.RectifiedFlow(), sg.FlowPrediction()),
        ("edm", "edm", sg.EDM(t_min=0.01, t_max=9.0), sg.EDMPrediction(2.0)),
    ],
)
def test_straight_paths_and_their_networks(here, call, family, how, sde, read):
    weighting = {"flow": "flow-matching"}.get(how, how)
    flags = f"--family {family} --parameterization {how} --weighting {weighting}"
    sizes = "--sigma-min 0.01 --sigma-max 9 --sigma-data 2"
    found = call("train --steps 2 --batch-size 8 --seed 0 --out r", f"{flags} {sizes}")
    assert (found.status, found.err) == (0, [])
    model = sg.ScoreModel.load(here / "r" / "model.safetensors")
    assert type(model.sde) is type(sde)
    assert (model.sde.t_min, model.sde.t_max) == (sde.t_min, sde.t_max)
    assert model.parameterization == read


def test_a_repeated_training_has_the_same_bits(here, call):
    first = call(TRAIN, "--keep best --out r")
    again = call("run r/config.toml --out again")
    assert (again.status, again.err) == (0, [])
    for name in ("model.safetensors", "losses.safetensors"):
        assert (here / "r" / name).read_bytes() == (here / "again" / name).read_bytes()
    assert first.metrics["selected_step"] == again.metrics["selected_step"]


# the command line, but behind the third checkpoint it waits for what cuts it, however late that is
HELD = """
import signal, sys, time
from sdegen.app.cli import main
from sdegen.training.checkpoints import Checkpoints
save = Checkpoints.save
def held(self, step, *rest):
    save(self, step, *rest)
    while step >= 60 and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        time.sleep(0.01)
Checkpoints.save = held
sys.exit(main(sys.argv[1:]))
"""
LONG = f"{TRAIN} --steps 200"


def _begun(programs, arguments, folder):
    """A training process, once it has written a checkpoint."""
    threads = str(torch.get_num_threads())
    process = programs.start(*arguments.split(), code=HELD, OMP_NUM_THREADS=threads)
    wait_for(lambda: list(folder.glob("checkpoints/step-*.safetensors")), process)
    return process


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training that nothing cut."""
    folder = tmp_path_factory.mktemp("training") / "whole"
    assert main([*LONG.split(), "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_cut_training_resumes_to_the_same_bits(programs, here, call, whole, how):
    process = _begun(programs, f"{LONG} --out cut", here / "cut")
    process.send_signal(how)
    out, err = process.communicate()
    assert not (here / "cut" / "model.safetensors").exists()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines() == ["sdegen train: interrupted; what is done is in cut."]
        assert out.splitlines()[-1] == "cut"
        assert json.loads((here / "cut" / "metrics.json").read_text())["status"] == "interrupted"
    resumed = call("train --resume cut")
    assert (resumed.status, resumed.err) == (0, [])
    assert resumed.metrics["steps"] == 200
    for name in ("model.safetensors", "losses.safetensors"):
        assert (here / "cut" / name).read_bytes() == (whole / name).read_bytes()


def test_what_resume_refuses(here, call):
    assert call(TRAIN, "--out r").status == 0
    for flags, told in (
        ("--learning-rate 1", "the checkpoint is of another run: config.learning_rate is "),
        (
            "--out x",
            "--resume goes on in its own folder; --out and --overwrite do not go with it.",
        ),
    ):
        found = call("train --resume r", flags)
        assert (found.status, found.out, len(found.err)) == (2, [], 1)
        assert told in found.err[0]
    assert (here / "r" / "model.safetensors").exists()
    (here / "well.py").write_text("import sdegen as sg\nou = sg.OrnsteinUhlenbeck()\n")
    assert call("simulate --sde well.py:ou --out s").status == 0
    found = call("train --resume s")
    assert found.err == ["sdegen train: resume = 's' holds a run of simulate, not of train."]


def test_a_damaged_checkpoint_is_named(here, call):
    assert call(TRAIN, "--out r").status == 0
    path = here / "r" / "checkpoints" / "step-00000060.safetensors"
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))
    found = call("train --resume r")
    assert found.status == 1
    assert len(found.err) == 1
    assert "step-00000060.safetensors is damaged in its key" in found.err[0]
    assert "The newest good one is" in found.err[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "route",
    [
        "flow-ddim", "flow-dopri5", "flow-heun", "flow-adams", "flow-dpmpp",
        "sde", "sde-torchsde", "sde-adams", "sde-dpmpp", "ddpm",
    ],
)  # fmt: skip
def test_routes_have_the_law_of_a_zero_score(zero, call, route):
    """With score 0 the flow is x α(t_min)/α(1) exactly; a noisy route adds ∫ β α(t_min)²/α² dt.

    Variances within 4.4 √(2/n); at 200 steps what Euler-Maruyama adds is below 1 %.
    """
    n = 5_000
    found = call(
        f"sample --model zero.safetensors --shape 2 --samples {n} --route {route} --steps 200",
        "--seed 3 --dtype float64 --tolerance 1e-8",
    )
    assert (found.status, found.err) == (0, [])
    x = found.tensors["samples"]
    x_T = zero.prior((n, 2), rng=3, dtype=torch.float64)
    ratio = at(zero.alpha, zero.t_min) / at(zero.alpha, 1.0)
    if route.startswith("flow"):
        tolerance = {"flow-ddim": 1e-12, "flow-dopri5": 1e-6, "flow-heun": 1e-4}
        tolerance |= {"flow-adams": 1e-4, "flow-dpmpp": 1e-3}
        assert torch.allclose(x, ratio * x_T, rtol=tolerance[route], atol=0)
        told = {"flow-ddim": 200, "flow-heun": 400, "flow-adams": 200, "flow-dpmpp": 200}
        assert found.metrics["nfe"] == told.get(route, found.metrics["nfe"])
        return
    # backwards dX = −½βX dt + √β dW̄: with A = α(end)/α(t) the variance is A(1)² + ∫ β A² dt
    end = 0.0 if route == "ddpm" else zero.t_min
    t = torch.linspace(end, 1, 100_001, dtype=torch.float64)
    spread = zero.beta(t) * (at(zero.alpha, end) / zero.alpha(t)) ** 2
    if route == "ddpm":
        # the posterior's variance is b²σ²_{k−1}/σ²_k, exactly propagated
        chain = sg.DDPM.discretize(zero, 200)
        variance = 1.0
        for k in reversed(range(200)):
            kept = float(chain.b[k] * chain.sigmas[k] / chain.sigmas[k + 1])
            variance = variance / float(chain.a[k]) ** 2 + kept**2
        bias = 1e-9
    else:
        variance = (at(zero.alpha, end) / at(zero.alpha, 1.0)) ** 2 + float(
            torch.trapezoid(spread, t)
        )
        bias = 0.01
    assert float(x.var()) == pytest.approx(variance, rel=4.4 / math.sqrt(n) + bias)
    assert found.metrics["nfe"] == (400 if route == "sde-torchsde" else 200)


def test_sampling_is_the_librarys(here, call):
    assert call(TRAIN, "--out r").status == 0
    found = call("sample --model r --samples 50 --steps 20 --seed 8 --data two_moons")
    assert found.files == {"config.toml", "metrics.json", "samples.safetensors", "samples.png"}
    model = sg.ScoreModel.load(here / "r" / "model.safetensors")
    x_T = model.sde.prior((50, 2), rng=8)
    short = sg.sample(model, 50, steps=20, rng=8)
    assert torch.equal(found.tensors["samples"], short.x)
    assert found.metrics["nfe"] == 20
    assert found.metrics["how"] == str(short)
    of_sde = call("sample --model r --samples 50 --steps 20 --seed 8 --route sde")
    same = sg.simulate(sg.ReverseSDE(model.sde, model.score), x_T, model.sde.time_grid(20), rng=8)
    assert torch.equal(of_sde.tensors["samples"], same.final)
    from sdegen.app.commands.datasets import held_out

    data = held_out(
        "two_moons", samples=None, seed=8, dtype=torch.float32, device=torch.device("cpu")
    )
    assert found.metrics["sliced_wasserstein"] == sg.metrics.sliced_wasserstein(short.x, data)
    assert found.metrics["energy_distance"] == sg.metrics.energy_distance(short.x, data)
    floor = sg.metrics.energy_distance(data[:500], data[500:])
    assert found.metrics["energy_distance_floor"] == floor
    again = call("run", here / found.out[-1] / "config.toml --out again")
    assert torch.equal(again.tensors["samples"], short.x)


def test_digits_are_drawn_as_images(here, call):
    line = "train --data digits --steps 2 --batch-size 8 --width 8 --seed 0 --out r"
    assert call(line).status == 0
    found = call("sample --model r --samples 6 --steps 3 --seed 0 --data digits")
    assert found.tensors["samples"].shape == (6, 1, 8, 8)
    assert "samples.png" in found.files


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_likelihood_of_a_zero_score(zero, here, call, divergence):
    """The flow scales x by r = α(1)/α(t_min), so that p(x) = r² N(r x; 0, 1) exactly.

    The drift is linear and its derivative a multiple of 1: Hutchinson's estimate is exact too.
    """
    (here / "points.py").write_text(
        "import torch\nx = torch.linspace(-3, 3, 600).reshape(300, 2)\n"
    )
    found = call(
        "likelihood --model zero.safetensors --data points.py:x --dtype float64 --tolerance 1e-9",
        f"--seed 1 --bin-width 0.5 --divergence {divergence}",
    )
    assert (found.status, found.err) == (0, [])
    x = torch.linspace(-3, 3, 600).reshape(300, 2).double()
    r = at(zero.alpha, 1.0) / at(zero.alpha, zero.t_min)
    exact = 2 * math.log(r) - 0.5 * (r * x).square().sum(1) - math.log(2 * math.pi)
    assert torch.allclose(found.tensors["log_prob"], exact, rtol=0, atol=1e-6)
    bits = -exact / (2 * math.log(2)) + 1
    assert torch.allclose(found.tensors["bits_per_dim"], bits, rtol=0, atol=1e-6)
    assert found.metrics["log_prob"] == pytest.approx(float(exact.mean()), abs=1e-6)
    error = float(exact.std()) / math.sqrt(300)
    assert found.metrics["log_prob_standard_error"] == pytest.approx(error, abs=1e-6)
    assert found.files >= {"likelihood.safetensors", "likelihood.png"}


def test_blocks_of_a_likelihood_have_probes_of_their_own(zero, here, call):
    """The same rows twice, 256 apart: the estimates differ, and each is the library's."""
    (here / "points.py").write_text(
        "import torch\nx = torch.linspace(-1, 1, 512).reshape(256, 2).repeat(2, 1)\n"
    )
    model = sg.ScoreModel(sg.MLP(2, 8, 1, rng=0), zero)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    model.save(here / "random.safetensors")
    line = "likelihood --model random.safetensors --data points.py:x --seed 4"
    found = call(line, "--divergence hutchinson --probes 2")
    log_prob = found.tensors["log_prob"]
    assert not torch.allclose(log_prob[:256], log_prob[256:])
    model.eval()
    x = torch.linspace(-1, 1, 512).reshape(256, 2)
    for b in (0, 1):
        same = sg.log_likelihood(
            model.sde,
            model.score,
            x,
            divergence=sg.Hutchinson(2),
            rng=Streams(4, "likelihood").block(b).generator(),
        )
        assert torch.equal(log_prob[256 * b : 256 * (b + 1)], same.log_prob)


def test_the_digits_know_their_bins(here, call):
    line = "train --data digits --steps 2 --batch-size 8 --width 8 --seed 0 --out r"
    assert call(line).status == 0
    found = call("likelihood --model r --data digits --samples 2 --divergence hutchinson --seed 0")
    assert found.metrics["bin_width"] == 2 / 17
    exact = -found.metrics["log_prob"] / (64 * math.log(2)) - math.log2(2 / 17)
    assert found.metrics["bits_per_dim"] == pytest.approx(exact)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sample --model absent", "absent; name a model.safetensors, or the run folder of"),
        ("sample --model zero.safetensors", "does not tell the shape of one sample; say it"),
        ("sample --model zero.safetensors --shape 0", "shape must be ≥ 1, but is 0."),
        (
            "sample --model zero.safetensors --shape 3 --data two_moons",
            "data = 'two_moons' has rows of shape (2,), but shape is (3,).",
        ),
        ("likelihood --model zero.safetensors --data moons", "data must be one of two_moons,"),
        ("train --network unet", "'unet' takes images of shape (channels, height, width), but"),
        ("train --keep best", "keep = 'best' asks for the best weights on validation data;"),
        ("train --steps 0", "steps must be ≥ 1, but is 0."),
        ("train --width 0", "width must be ≥ 1, but is 0."),
        ("train --beta-min 0", "beta_min must be finite and > 0, but is 0."),
        ("train --data digits --validation 5000", "validation must leave images to train on"),
    ],
)
def test_refusals(zero, here, call, line, told):
    found = call(line)
    assert (found.status, found.out, len(found.err)) == (2, [], 1)
    assert told in found.err[0]
    assert not list(here.glob("runs/*"))


def test_a_damaged_model_is_named(zero, here, call):
    content = bytearray((here / "zero.safetensors").read_bytes())
    content[-1] ^= 4
    (here / "zero.safetensors").write_bytes(bytes(content))
    found = call("sample --model zero.safetensors --shape 2 --out r")
    assert found.status == 1
    assert "zero.safetensors is damaged in its key" in found.err[0]


def test_losses_that_explode_are_kept(here, call):
    found = call(TRAIN, "--learning-rate 1e30 --max-grad-norm 1e30 --out r")
    assert found.status == 1
    assert "the loss is" in found.err[0]
    losses, _ = load_tensors(here / "r" / "losses.safetensors")
    assert losses["losses"].isfinite().all()
    assert found.metrics["status"] == "failed"


def test_ctrl_c_keeps_the_blocks_of_a_likelihood_that_are_done(zero, here, call, monkeypatch):
    from sdegen.app.commands import likelihood

    (here / "points.py").write_text("import torch\nx = torch.ones(600, 2)\n")
    line = "likelihood --model zero.safetensors --data points.py:x --seed 1"
    whole = call(line, "--out whole")
    compute, calls = likelihood.log_likelihood, iter(range(9))

    def second_is_cut(*arguments, **named):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return compute(*arguments, **named)

    monkeypatch.setattr(likelihood, "log_likelihood", second_is_cut)
    cut = call(line, "--out cut")
    assert (cut.status, cut.metrics["status"]) == (130, "interrupted")
    assert cut.err == ["sdegen likelihood: interrupted; what is done is in cut."]
    assert torch.equal(cut.tensors["log_prob"], whole.tensors["log_prob"][:256])


def test_ctrl_c_keeps_the_samples_that_are_done(zero, here, call, monkeypatch):
    """25,000 planar samples make a block; the second one, of 15,000, is cut."""

    def second_is_cut(sde, solver, x0, *arguments, **named):
        if len(x0) == 15_000:
            raise KeyboardInterrupt
        return solve(sde, solver, x0, *arguments, **named)

    line = "sample --model zero.safetensors --shape 2 --samples 40000 --steps 3 --seed 1"
    whole = call(line, "--out whole")
    monkeypatch.setattr("sdegen.engine.blocks.solve", second_is_cut)
    cut = call(line, "--out cut")
    assert (cut.status, cut.metrics["status"]) == (130, "interrupted")
    assert torch.equal(cut.tensors["samples"], whole.tensors["samples"][:25000])


def test_classes_from_train_to_sample(here, call):
    """The digits' labels are told; a class is sampled, and overstated, as the library does it."""
    pytest.importorskip("sklearn")
    options = "--data digits --classes --steps 30 --width 16 --depth 1 --seed 0 --batch-size 64"
    trained = call(f"train {options} --validation 50 --validate-every 10 --out r")
    assert (trained.status, trained.err) == (0, [])
    assert trained.metrics["classes"] == 10
    model = sg.ScoreModel.load(here / "r" / "model.safetensors")
    digits = sg.data.digits(validation=50)
    same = sg.ScoreModel(sg.MLP(64, 16, 1, classes=10, rng=0), model.sde)
    config = sg.TrainConfig(steps=30, batch_size=64, validate_every=10)
    sg.train(
        same,
        digits.train,
        config,
        rng=0,
        labels=digits.train_labels,
        validation=digits.validation,
        validation_labels=digits.validation_labels,
        augment=sg.data.redequantise,
    )
    for name, tensor in same.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    line = "sample --model r --samples 8 --route flow-ddim --steps 5 --seed 1"
    x_T = model.sde.prior((8, 1, 8, 8), rng=1)
    for extra, guidance in (("--label 3", 0.0), ("--label 3 --guidance 1.5", 1.5)):
        found = call(line, extra, "--overwrite --out s")
        score = sg.composition.guided(model.conditional(3).score, model.score, guidance)
        flow = sg.ReverseSDE(model.sde, score, eta=0.0)
        source = stream(1, "pilot of a grid").generator()
        pilot = model.sde.prior((48, 1, 8, 8), rng=source)
        grid = sg.timesteps.auto(flow, 5, pilot, solver=sg.DDIM())
        expected = sg.simulate(flow, x_T, grid, solver=sg.DDIM()).final
        torch.testing.assert_close(found.tensors["samples"], expected)
    refused = call(line, "--label 10 --out t")
    assert refused.status == 2
    assert "labels must lie in 0 … 9" in refused.err[-1]
    refused = call(line, "--guidance 2 --out t")
    assert refused.status == 2
    assert "guidance overstates a class; say which, --label 3" in refused.err[-1]
    refused = call("train --classes --steps 1 --out u")
    assert refused.status == 2
    assert "classes: two_moons has no labels" in refused.err[-1]
