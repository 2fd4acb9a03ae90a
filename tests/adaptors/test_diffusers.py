"""diffusers both ways, against diffusers: its tables, its steps, its U-Net, its pipelines.

Tables are set to float64 where a number is compared to 1e-8; its own are float32. The network is
the exact one of a mixture where the answer is to be known, and diffusers' U-Net where it is not.
"""

import sys

import diffusers
import pytest
import torch
from exact import OracleNoise, Replay, solved
from torch import nn

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64
N = 100
ALPHA_BARS = (1 - torch.linspace(1e-3, 0.1, N, dtype=F64)).cumprod(0)
MEANS, STDS = torch.tensor([[-0.3, 0.2], [0.4, -0.1]], dtype=F64), [0.1, 0.2]
MIXTURE = sg.GaussianMixture([0.3, 0.7], MEANS, stds=STDS)
PATHS = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(t_max=20.0),
}


def at(alpha_bar):
    """The mixture at a level ᾱ, by hand."""
    spread = (alpha_bar * torch.tensor(STDS, dtype=F64) ** 2 + 1 - alpha_bar).sqrt()
    return sg.GaussianMixture([0.3, 0.7], alpha_bar.sqrt() * MEANS, stds=spread)


class OfTimestep(nn.Module):
    """What a perfectly trained DDPM network puts out, at integer timesteps."""

    def __init__(self, kind="epsilon"):
        super().__init__()
        self.kind = kind
        self.asked = []

    def forward(self, x, k):
        self.asked.append(k)
        assert bool((k == k[0].round()).all())
        alpha_bar = ALPHA_BARS[int(k[0])]
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        eps = -sigma * at(alpha_bar).force(x)
        x0 = (x - sigma * eps) / alpha
        return {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[self.kind]


def in_double(scheduler, alpha_bars=ALPHA_BARS):
    """The scheduler with these ᾱ in float64."""
    previous = torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    scheduler.alphas_cumprod, scheduler.alphas = alpha_bars, alpha_bars / previous
    scheduler.betas = 1 - scheduler.alphas
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    return scheduler


def ddpm(**words):
    """A DDPM scheduler of N steps with our table."""
    return in_double(diffusers.DDPMScheduler(num_train_timesteps=N, clip_sample=False, **words))


# ------------------------------------------------------------------------------ theirs → ours


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_score_at_every_timestep_is_that_of_the_mixture(kind):
    model = sg.from_diffusers(OfTimestep(kind), ddpm(prediction_type=kind))
    assert (model.sde.t_min, model.sde.t_max) == (1 / N, 1.0)
    for k in range(N):
        t = torch.tensor((k + 1) / N, dtype=F64)
        assert float(model.sde.alpha(t) ** 2) == pytest.approx(float(ALPHA_BARS[k]), rel=1e-14)
        law = at(ALPHA_BARS[k])
        x = law.sample(5, rng=k, dtype=F64)
        torch.testing.assert_close(model.score(x, t), law.force(x), rtol=1e-9, atol=1e-9)
        # one time for each row, in single precision, is the same timestep
        each = model.score(x.float(), t.float().expand(5))
        torch.testing.assert_close(each.double(), law.force(x), rtol=2e-4, atol=2e-3)


def test_between_timesteps_the_network_is_told_a_fraction():
    asked = []
    model = sg.from_diffusers(lambda x, k: (asked.append(k), x)[1], ddpm())
    for k, w in ((0, 0.25), (41, 0.5), (N - 2, 0.9)):
        t = torch.tensor((k + 1 + w) / N, dtype=F64)
        low, high = ALPHA_BARS[k + 1], ALPHA_BARS[k]
        assert low < float(model.sde.alpha(t)) ** 2 < high
        model.score(torch.zeros(2, 2, dtype=F64), t)
        assert asked[-1].tolist() == pytest.approx([k + w] * 2, rel=1e-12)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_our_ddim_is_that_of_its_scheduler(eta):
    """Same network, grid and noise: ≤ 1e-8 at every step, the last being the denoised state."""
    model = sg.from_diffusers(OfTimestep(), ddpm())
    scheduler = in_double(diffusers.DDIMScheduler.from_config(ddpm().config))
    scheduler.set_timesteps(10)
    steps = scheduler.timesteps.tolist()
    nodes = (torch.tensor(steps, dtype=F64) + 1) / N
    x = stream(0, "x").normal((4, 2), dtype=F64)
    z = [stream(i, "z").normal((4, 2), dtype=F64) for i in range(10)]
    path = solved(
        sg.DDIM(),
        sg.ReverseSDE(model.sde, model.score, eta),
        x,
        nodes,
        noise=Replay(z) if eta else None,
        keep_path=True,
    )
    network = OfTimestep()
    for i, k in enumerate(steps):
        output = network(x, torch.tensor([k]))
        noise = z[i] if eta else None
        stepped = scheduler.step(output, k, x, eta=eta, variance_noise=noise)
        x = stepped.prev_sample
        if i + 1 < len(steps):
            assert float((path.states[i + 1] - x).abs().max()) <= 1e-8
    # it steps from k = 0 to ᾱ = 1
    denoised = model.x0(path.states[-1], nodes[-1])
    assert float((denoised - stepped.pred_original_sample).abs().max()) <= 1e-8


def test_ancestral_sampling_of_its_network_is_the_chain_of_its_scheduler():
    model = sg.from_diffusers(OfTimestep(), ddpm())
    chain = sg.DDPM.discretize(model.sde, N)
    torch.testing.assert_close(chain.betas, ddpm().betas, rtol=1e-10, atol=0)
    scheduler = ddpm()
    x = stream(0, "x").normal((4, 2), dtype=F64)
    generator, twin = (torch.Generator().manual_seed(5) for _ in range(2))
    z = [torch.randn((4, 2), generator=twin, dtype=F64) for _ in range(N)]
    k = torch.arange(N, -1, -1, dtype=F64)
    path = solved(
        sg.EulerMaruyama(), chain.reverse(model.score), x, k, noise=Replay(z), keep_path=True
    )
    network = OfTimestep()
    for i in range(N):
        at_k = N - 1 - i
        x = scheduler.step(
            network(x, torch.tensor([at_k])), at_k, x, generator=generator
        ).prev_sample
        assert float((path.states[i + 1] - x).abs().max()) <= 1e-8


@pytest.mark.slow
def test_likelihood_of_its_network_is_that_of_the_mixture():
    """Of a network that knows the fractions of its timesteps, to the tolerance of the solver."""
    path = sg.VP(sg.TabulatedBeta(ALPHA_BARS), t_min=1 / N)

    def network(x, k):
        alpha = path.alpha((k[0] + 1) / N)
        return -(1 - alpha**2).sqrt() * at(alpha**2).force(x)

    model = sg.from_diffusers(network, ddpm())
    x = at(ALPHA_BARS[0]).sample(30, rng=0, dtype=F64)
    found = sg.log_likelihood(
        model.sde,
        model.score,
        x,
        solver=sg.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-8),
        prior_log_prob=at(ALPHA_BARS[-1]).log_prob,
    )
    torch.testing.assert_close(found.log_prob, at(ALPHA_BARS[0]).log_prob(x), rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def unet():
    """Its U-Net, of 8×8 images, with weights drawn at random."""
    before = torch.get_rng_state()
    made = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    torch.set_rng_state(before)  # its layers draw from torch's own generator
    return made.eval()


def test_its_u_net_is_asked_the_same_question(unet):
    """The model's ε is the U-Net's output at k, bit for bit, whatever the precision of t."""
    model = sg.from_diffusers(unet, diffusers.DDPMScheduler(num_train_timesteps=1000))
    x = stream(0, "x").normal((2, 1, 8, 8))
    with torch.no_grad():
        for k in (0, 17, 500, 999):
            expected = unet(x, k).sample
            t = torch.tensor((k + 1) / 1000, dtype=F64)
            scale = (model.sde.alpha(t) ** 2 + model.sde.sigma(t) ** 2).sqrt()
            assert float(scale) == pytest.approx(1, abs=1e-15)
            torch.testing.assert_close(model.eps(x, t), expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                model.eps(x, t.float().expand(2)), expected, rtol=1e-5, atol=1e-6
            )


def test_its_pipeline_and_our_solver_draw_the_same_images(unet):
    """DDIMPipeline with its float32 tables against our DDIM in float32: 1e-4 of images of 1."""
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    pipeline = diffusers.DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator, twin = (torch.Generator().manual_seed(0) for _ in range(2))
    theirs = pipeline(3, generator=generator, num_inference_steps=10, output_type="pt").images
    model = sg.from_diffusers(unet, scheduler)
    x = torch.randn((3, 1, 8, 8), generator=twin)
    nodes = (pipeline.scheduler.timesteps.to(F64) + 1) / 1000
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    with torch.no_grad():
        out = sg.simulate(flow, x, nodes, solver=sg.DDIM(), keep_path=False).final
        ours = model.x0(out, nodes[-1])
    assert float((theirs - (ours / 2 + 0.5).clamp(0, 1)).abs().max()) < 1e-4


@pytest.mark.parametrize(("kind", "sign"), [("epsilon", 1), ("v_prediction", -1)])
def test_edm_networks_are_preconditioned_as_its_scheduler_does(kind, sign):
    def network(x, c_noise):
        return torch.sin(1.3 * x + c_noise[:, None]) + 0.2 * x

    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.7, prediction_type=kind)
    model = sg.from_diffusers(network, scheduler)
    assert (model.sde.t_min, model.sde.t_max) == (0.002, 80.0)
    x = stream(0, "x").normal((4, 2), dtype=F64)
    for sigma in torch.tensor([0.002, 0.3, 5.0, 80.0], dtype=F64):
        output = network(
            scheduler.precondition_inputs(x, sigma),
            scheduler.precondition_noise(sigma).expand(4),
        )
        expected = scheduler.precondition_outputs(x, output, sigma)
        torch.testing.assert_close(model.x0(x, sigma), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["FlowMatchEuler", "DPMSolverMultistep"])
def test_flow_matching_networks_give_the_velocity_of_the_flow(kind):
    """Drift of our probability flow = output at timestep 1000 t: ẋ of the straight path."""

    def network(x, k):
        return torch.sin(1.3 * x + 0.01 * k[:, None]) + 0.2 * x

    scheduler = (
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
        if kind == "FlowMatchEuler"
        else diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True
        )
    )
    model = sg.from_diffusers(network, scheduler)
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    x = stream(0, "x").normal((4, 2), dtype=F64)
    for t in torch.tensor([0.001, 0.0313, 0.5, 0.9, 0.999], dtype=F64):
        velocity = network(x, (1000 * t).expand(4))
        # towards t = 1 two terms of size 1/(1 − t) cancel
        torch.testing.assert_close(flow.drift(x, t), velocity, rtol=1e-9, atol=1e-11)


def test_euler_steps_of_flow_matching_are_ours():
    """Its scheduler works in float32: to 1e-5."""

    def network(x, k):
        return torch.sin(1.3 * x + 0.01 * k[:, None]) + 0.2 * x

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.99, 0.8, 0.5, 0.2, 0.05])
    model = sg.from_diffusers(network, scheduler)
    x = stream(0, "x").normal((4, 2), dtype=F64)
    nodes = scheduler.sigmas[:-1].to(F64)
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    ours = sg.simulate(flow, x, nodes, solver=sg.EulerMaruyama()).states
    y = x.float()
    for i, k in enumerate(scheduler.timesteps[:-1]):
        y = scheduler.step(network(y, k.expand(4)), k, y).prev_sample
        assert float((ours[i + 1] - y).abs().max()) < 1e-5


def test_a_learned_variance_is_dropped():
    def network(x, k):
        return torch.cat([torch.sin(x), 100 + x], dim=1)

    scheduler = diffusers.DDPMScheduler(num_train_timesteps=N, variance_type="learned_range")
    model = sg.from_diffusers(network, scheduler)
    x = stream(0, "x").normal((2, 3, 4, 4))
    torch.testing.assert_close(model.eps(x, torch.tensor(0.5, dtype=F64)), torch.sin(x))


def test_a_scheduler_of_ones_own_is_read_as_what_it_was_made_of():
    class Mine(diffusers.DDPMScheduler):
        pass

    assert sg.from_diffusers(lambda x, k: x, Mine(num_train_timesteps=N)).sde.t_min == 1 / N


@pytest.mark.parametrize(
    "name",
    [
        "LCMScheduler",
        "TCDScheduler",
        "ScoreSdeVeScheduler",
        "CMStochasticIterativeScheduler",
        "DDPMWuerstchenScheduler",
    ],
)
def test_schedulers_that_say_no_score_are_refused_by_name(name):
    scheduler = getattr(diffusers, name)()
    with pytest.raises(TypeError, match=f"^{name} cannot be converted: it is not one of the"):
        sg.from_diffusers(lambda x, k: x, scheduler)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        *(("v-prediction", "v_prediction"), ("velocity", "v_prediction")),
        *(("epsilom", "epsilon"), ("xyz", None)),
    ],
)
def test_a_misspelt_prediction_type_is_met_with_a_suggestion(said, hint):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=N, prediction_type=said)
    message = f"prediction_type must be one of epsilon, v_prediction, sample, but is '{said}'"
    end = rf"; did you mean '{hint}'\?$" if hint else r"\.$"
    with pytest.raises(ValueError, match=message + end):
        sg.from_diffusers(lambda x, k: x, scheduler)


def test_a_level_without_signal_at_the_end_is_left_out():
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=N, rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    table = scheduler.alphas_cumprod.double()
    assert float(table[-1]) == 0
    asked = []

    def of_normal_data(x, k):  # E[v | x] = 0 for data N(0, I)
        asked.append(float(k[0]))
        return 0 * x

    model = sg.from_diffusers(of_normal_data, scheduler)
    assert model.sde.beta.alpha_bars == tuple(table[:-1].tolist())
    x = torch.tensor([[0.3, -1.2]], dtype=F64)
    for k in (0, 50, N - 2):
        score = model.score(x, torch.tensor((k + 1) / (N - 1), dtype=F64))
        torch.testing.assert_close(score, -x, rtol=1e-12, atol=0)
    assert asked == [0, 50, N - 2]


ZERO_SNR = {
    "DDIM": {},
    "DDPM": {"clip_sample": False},
    "EulerDiscrete": {"timestep_spacing": "leading"},
    "EulerAncestralDiscrete": {"timestep_spacing": "leading"},
    "DPMSolverMultistep": {"timestep_spacing": "leading", "solver_order": 1},
    "UniPCMultistep": {"timestep_spacing": "leading", "solver_order": 1},
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs
@pytest.mark.parametrize("name", ZERO_SNR)
def test_zero_terminal_snr_of_any_scheduler_is_left_out_and_its_step_is_ours(name):
    """The first of ten steps: its own on its float32 table, ours in float64; |x| ~ 2, ≤ 2e-5.

    Euler's, DPM-Solver's and UniPC's schedulers hold 2⁻²⁴ where the others hold 0, above ᾱ of the
    level before. DDIM, Euler, and the first orders of DPM-Solver++ and UniPC take one and the
    same deterministic step; DDPM and ancestral Euler one and the same random one.
    """
    make = getattr(diffusers, f"{name}Scheduler")
    scheduler = make(rescale_betas_zero_snr=True, prediction_type="v_prediction", **ZERO_SNR[name])
    table = scheduler.alphas_cumprod.double().clone()

    def network(x, k):
        alpha_bar = table[int(k.flatten()[0])]
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        eps = -sigma * at(alpha_bar).force(x)
        return alpha * eps - sigma * (x - sigma * eps) / alpha

    model = sg.from_diffusers(network, scheduler)
    assert model.sde.beta.alpha_bars == tuple(table[:-1].tolist())
    scheduler.set_timesteps(10)
    high, low = scheduler.timesteps[:2].long().tolist()
    scale = table[[high, low]].rsqrt() if "Euler" in name else torch.ones(2, dtype=F64)
    x = stream(0, "x").normal((4, 2), dtype=F64)
    generator, twin = (torch.Generator().manual_seed(5) for _ in range(2))
    z = torch.randn((4, 2), generator=twin, dtype=F64)
    words = {"generator": generator} if name in ("DDPM", "EulerAncestralDiscrete") else {}
    sample = x * scale[0]
    scheduler.scale_model_input(sample, scheduler.timesteps[0])  # Euler's ask to be asked
    output = network(x, torch.tensor([high]))
    theirs = scheduler.step(output, scheduler.timesteps[0], sample, **words).prev_sample / scale[1]

    times = (torch.tensor([high, low], dtype=F64) + 1) / 999
    if words:
        dynamics, nodes = sg.DDPM.discretize(model.sde, times=times).reverse(model.score), [1, 0]
        solver, noise = sg.EulerMaruyama(), Replay([z])
    else:
        dynamics, nodes = sg.ReverseSDE(model.sde, model.score, 0.0), times
        solver, noise = sg.DDIM(), None
    nodes = torch.as_tensor(nodes, dtype=F64)
    ours = solved(solver, dynamics, x, nodes, noise=noise, keep_path=False).states[-1]
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=2e-5)


def test_what_else_cannot_be_converted():
    continuous = diffusers.EulerDiscreteScheduler(timestep_type="continuous")
    with pytest.raises(ValueError, match=r"EulerDiscreteScheduler with timestep_type = 'continu"):
        sg.from_diffusers(lambda x, k: x, continuous)
    inverted = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    with pytest.raises(ValueError, match="counts its noise from 1 down"):
        sg.from_diffusers(lambda x, k: x, inverted)
    with pytest.raises(TypeError, match=r"network must be called with .x, timestep., but is 3"):
        sg.from_diffusers(3, ddpm())
    with pytest.raises(TypeError, match="dict cannot be converted"):
        sg.from_diffusers(lambda x, k: x, {})


def test_its_file_needs_the_network_again(tmp_path, unet):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    model, path = sg.from_diffusers(unet, scheduler), tmp_path / "m.safetensors"
    model.save(path)
    with pytest.raises(sg.CheckpointError, match=r"its network is a .*DiffusersNetwork, which"):
        sg.ScoreModel.load(path)
    other = diffusers.UNet2DModel.from_config(unet.config)
    again = sg.ScoreModel.load(path, network=sg.from_diffusers(other, scheduler).network)
    x, t = stream(0, "x").normal((1, 1, 8, 8)), torch.tensor(0.3, dtype=F64)
    with torch.no_grad():
        assert torch.equal(again.score(x, t), model.score(x, t))
    grid = torch.linspace(0.001, 1, 50, dtype=F64)
    assert torch.equal(again.sde.alpha(grid), model.sde.alpha(grid))


# ------------------------------------------------------------------------------ ours → theirs


def images(pipeline, **words):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    return pipeline(4, generator=generator, output_type="pt", **words).images


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_ddpm_pipeline_with_our_model_draws_what_our_chain_draws(path):
    """Any path, the same network, levels and noise: ≤ 1e-8 after 60 steps."""
    model, n = sg.ScoreModel(OracleNoise(MIXTURE, path), path), 60
    grid = sg.timesteps.log_snr(path, n - 1)
    unet, scheduler = sg.to_diffusers(model, (2,), times=grid)
    theirs = images(diffusers.DDPMPipeline(unet, scheduler), num_inference_steps=n)

    generator = torch.Generator().manual_seed(3)
    x = torch.randn((4, 2), generator=generator, dtype=F64)
    z = [torch.randn((4, 2), generator=generator, dtype=F64) for _ in range(n)]
    chain = sg.DDPM.discretize(path, times=torch.cat([torch.zeros(1, dtype=F64), grid.flip(0)]))
    end = torch.tensor(path.t_max, dtype=F64)
    spread = (path.alpha(end) ** 2 + path.sigma(end) ** 2).sqrt()
    # their state is x/√(α² + σ²), and so is their noise, at all levels
    k = torch.arange(n, -1, -1, dtype=F64)
    with torch.no_grad():
        ours = solved(
            sg.EulerMaruyama(),
            chain.reverse(model.score),
            spread * x,
            k,
            noise=Replay(z),
            keep_path=False,
        )
    ours = ours.states[-1]
    assert float((theirs - (ours / 2 + 0.5).clamp(0, 1)).abs().max()) <= 1e-8


def test_ddim_pipeline_with_our_model_is_our_ddim():
    """With its tables in float64 to 1e-8; as it makes them, in float32, to 1e-4."""
    path, n = PATHS["VP"], 100
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    unet, scheduler = sg.to_diffusers(model, (2,), n)
    pipeline = diffusers.DDIMPipeline(unet, scheduler)
    rough = images(pipeline, num_inference_steps=20)
    in_double(pipeline.scheduler, scheduler.alphas_cumprod)
    fine = images(pipeline, num_inference_steps=20)
    nodes = unet.times[pipeline.scheduler.timesteps]
    x = torch.randn((4, 2), generator=torch.Generator().manual_seed(3), dtype=F64)
    flow = sg.ReverseSDE(path, model.score, eta=0.0)
    out = sg.simulate(flow, x, nodes, solver=sg.DDIM(), keep_path=False).final
    with torch.no_grad():
        ours = (model.x0(out, nodes[-1]) / 2 + 0.5).clamp(0, 1)
    assert float((fine - ours).abs().max()) <= 1e-8
    assert float((rough - ours).abs().max()) <= 1e-4


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_its_faster_schedulers_take_our_model():
    """EulerDiscrete with Karras levels asks for fractions of a timestep: the flow's map."""
    path = PATHS["VP"]
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    unet, scheduler = sg.to_diffusers(model, (2,), 1000)
    z, ends = stream(0, "x").normal((6, 2), dtype=F64), []
    for steps in (100, 200):
        theirs = diffusers.EulerDiscreteScheduler.from_config(
            scheduler.config, use_karras_sigmas=True, timestep_spacing="linspace"
        )
        theirs.set_timesteps(steps)
        assert bool((theirs.timesteps != theirs.timesteps.round()).any())
        x = theirs.init_noise_sigma * z
        for k in theirs.timesteps:
            with torch.no_grad():
                eps = unet(theirs.scale_model_input(x, k), k).sample
            x = theirs.step(eps, k, x).prev_sample
        ends.append(x)
    flow = sg.ReverseSDE(path, model.score, eta=0.0)
    end = sg.simulate(flow, z, path.time_grid(1), solver=sg.TorchDiffEq("dopri5", 1e-7, 1e-7))
    # their last step goes from the last level to x0
    with torch.no_grad():
        exact = model.x0(end.final, torch.tensor(path.t_min, dtype=F64))
    coarse, fine = (x - exact for x in ends)
    assert float(coarse.norm() / fine.norm()) == pytest.approx(2, rel=0.05)  # first order
    # and the limit, up to the second order: 8e-4 with 60 and 120 steps, a 2.8th of it with these
    assert float((2 * fine - coarse).abs().max()) < 4e-4


def test_the_levels_are_those_of_the_path():
    for path in PATHS.values():
        model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
        unet, scheduler = sg.to_diffusers(model, (2,), 50)
        assert (float(unet.times[0]), float(unet.times[-1])) == (path.t_min, path.t_max)
        alpha, sigma = path.alpha(unet.times), path.sigma(unet.times)
        expected = alpha**2 / (alpha**2 + sigma**2)
        torch.testing.assert_close(scheduler.alphas_cumprod, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            (1 - scheduler.betas).cumprod(0), expected, rtol=1e-9, atol=1e-15
        )
        assert scheduler.config.clip_sample is False


def test_there_and_back_is_the_same_score():
    path = PATHS["EDM"]
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    grid = sg.timesteps.log_snr(path, 40)
    again = sg.from_diffusers(*sg.to_diffusers(model, (2,), times=grid))
    for k in (0, 7, 40):
        there, here = torch.tensor((k + 1) / 41, dtype=F64), grid.flip(0)[k]
        spread = (path.alpha(here) ** 2 + path.sigma(here) ** 2).sqrt()
        x = MIXTURE.noised(path).sample(5, here, rng=1, dtype=F64)
        torch.testing.assert_close(
            again.score(x / spread, there), spread * model.score(x, here), rtol=1e-9, atol=1e-8
        )


def test_the_face_of_a_u_net():
    model = sg.ScoreModel(sg.UNet(3, width=8, rng=0), PATHS["VP"])
    unet, _ = sg.to_diffusers(model, (3, 8, 8), 10)
    assert (unet.config.in_channels, unet.config.sample_size, unet.dtype) == (3, 8, torch.float32)
    assert sg.to_diffusers(model, (3, 8, 16), 10)[0].config.sample_size == (8, 16)
    x = stream(0, "x").normal((2, 3, 8, 8))
    with torch.no_grad():
        (plain,) = unet(x, 4, return_dict=False)
        assert torch.equal(unet(x, torch.tensor([4, 4])).sample, plain)


def test_its_conditional_u_net_is_told_our_labels():
    """Two classes and a third row for none: one answer however it is asked."""
    before = torch.get_rng_state()
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"), num_class_embeds=3,
    ).double().eval()  # fmt: skip
    torch.set_rng_state(before)
    model = sg.from_diffusers(network, ddpm(), classes=2, none=2)
    x, k = stream(0, "x").normal((3, 1, 8, 8), dtype=F64), 40
    t = torch.tensor((k + 1) / N, dtype=F64)
    with torch.no_grad():
        seen = []
        for labels, theirs in ((torch.tensor([0, 1, 1]),) * 2, (None, torch.full((3,), 2))):
            expected = network(x, k, class_labels=theirs).sample
            told = model if labels is None else model.conditional(labels)
            seen.append(told.eps(x, t))
            # its embedding of k is in float32
            torch.testing.assert_close(seen[-1], expected, rtol=1e-6, atol=1e-6)
        assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_our_conditional_model_takes_class_labels():
    network = sg.UNet(1, width=8, classes=2, rng=0)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    model = sg.ScoreModel(network, PATHS["VP"])
    unet, _ = sg.to_diffusers(model, (1, 8, 8), 10)
    x, labels = stream(0, "x").normal((2, 1, 8, 8)), torch.tensor([1, 0])
    with torch.no_grad():
        found = unet(x, 4, class_labels=labels).sample
        torch.testing.assert_close(found, model.conditional(labels).eps(x, unet.times[4]))
        torch.testing.assert_close(unet(x, 4, torch.tensor([2, 2])).sample, unet(x, 4).sample)
        assert (found - unet(x, 4).sample).abs().max() > 1e-3
        with pytest.raises(ValueError, match="class_labels must lie in 0 … 1"):
            unet(x, 4, torch.tensor([0, 5]))


def test_bad_requests():
    model = sg.ScoreModel(OracleNoise(MIXTURE, PATHS["VP"]), PATHS["VP"])
    with pytest.raises(ValueError, match="steps must be ≥ 2, but is 1"):
        sg.to_diffusers(model, (2,), 1)
    with pytest.raises(TypeError, match="steps must be an int, but is float"):
        sg.to_diffusers(model, (2,), 10.0)
    with pytest.raises(ValueError, match=r"monotone within .* = \[0.001, 1\], but span 0 … 1"):
        sg.to_diffusers(model, (2,), times=torch.linspace(0, 1, 5))
    with pytest.raises(ValueError, match=r"shape must be that of one sample"):
        sg.to_diffusers(model, (), 10)
    unet, _ = sg.to_diffusers(model, (2,), 10)
    with pytest.raises(ValueError, match=r"timestep must lie in \[0, 9\], the noise levels of"):
        unet(torch.zeros(1, 2, dtype=F64), 10)


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    model = sg.ScoreModel(OracleNoise(MIXTURE, PATHS["VP"]), PATHS["VP"])
    with pytest.raises(ImportError, match=r"to_diffusers needs diffusers.*'sdegen\[diffusers\]'"):
        sg.to_diffusers(model, (2,))


def test_a_unet_of_theirs_is_trained_here_with_classes():
    """Its timestep is 1000 t, its last row of classes the label for none; training moves it."""
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, num_class_embeds=3,
    )  # fmt: skip
    network = sg.diffusers_network(unet)
    assert network.classes == 2
    model = sg.ScoreModel(network, sg.VP(sg.LinearBeta(0.1, 20.0))).eval()
    x, t = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(0.3)
    labels = torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        theirs = unet(x, torch.full((4,), 300.0), class_labels=labels).sample
        none = unet(x, torch.full((4,), 300.0), class_labels=torch.full((4,), 2)).sample
        torch.testing.assert_close(model.conditional(labels).eps(x, t), theirs)
        torch.testing.assert_close(model.eps(x, t), none)
    before = [p.clone() for p in unet.parameters()]
    config = sg.TrainConfig(steps=2, batch_size=4, warmup=1, learning_rate=1e-3)
    sg.train(model, x, config, labels=labels, rng=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, unet.parameters(), strict=True))
    wide = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=2, block_out_channels=(8,), norm_num_groups=4,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    with pytest.raises(ValueError, match="has in_channels = 1 and out_channels = 2"):
        sg.diffusers_network(wide)
