"""Denoisers both ways: Karras et al.'s identities, and k-diffusion itself where it is installed.

The network is mostly the exact one of a mixture, whose answers are known.
"""

import pytest
import torch
from exact import OracleNoise, Replay, solved
from torch import nn

import sdegen as sg
from benchmarks import bare
from sdegen.core.noise import stream

F64 = torch.float64
MIXTURE = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.4], [0.8, -0.5]], stds=[0.25, 0.4])
PATHS = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def denoised(x, sigma):
    """E[x0 | x0 + σ ε = x] of the mixture, by Tweedie: x + σ² ∇ log p_σ(x), in closed form."""
    score = MIXTURE.noised(sg.EDM()).score(x, sigma.to(F64))
    return x + (sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2) * score


class Exact(nn.Module):
    """The exact denoiser as a module, with the noise levels it says it was made for."""

    def __init__(self, sigma_min=0.01, sigma_max=20.0):
        super().__init__()
        self.sigma_min, self.sigma_max = sigma_min, torch.tensor(sigma_max)
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=F64))

    def forward(self, x, sigma):
        assert sigma.shape == x.shape[:1]
        return self.weight * denoised(x, sigma)


def points(path, t, n=20):
    return MIXTURE.noised(path).sample(n, t, rng=1, dtype=F64)


@every_path
def test_a_denoiser_is_the_score_of_every_path(path):
    model = sg.from_denoiser(denoised, path)
    for t in sg.timesteps.log_snr(path, 6):
        x = points(path, t)
        alpha, sigma = path.alpha(t), path.sigma(t)
        exact = MIXTURE.noised(path).score(x, t)
        # (α D − x)/σ² cancels where there is little noise: rounding over σ²
        size = float(1 / sigma**2 + 1 / sigma) * float(x.abs().max())
        torch.testing.assert_close(model.score(x, t), exact, rtol=1e-9, atol=1e-14 * size)
        expected = (x + sigma**2 * exact) / alpha
        size = float(1 + sigma / alpha) * float(x.abs().max() / alpha)
        torch.testing.assert_close(model.x0(x, t), expected, rtol=1e-9, atol=1e-14 * size)


@every_path
def test_a_model_of_any_path_is_the_denoiser(path):
    denoiser = sg.to_denoiser(sg.ScoreModel(OracleNoise(MIXTURE, path), path))
    low, high = denoiser.sigma_min, denoiser.sigma_max
    ends = torch.tensor([path.t_min, path.t_max], dtype=F64)
    ratio = path.sigma(ends) / path.alpha(ends)
    assert (low, high) == pytest.approx(ratio.tolist(), rel=1e-12)
    for share in torch.linspace(0, 1, 7, dtype=F64):
        s = low * (high / low) ** share
        x = MIXTURE.sample(9, rng=2, dtype=F64) + s * stream(3, "x").normal((9, 2), dtype=F64)
        # the last step divides by α what was rounded at the size of x
        tolerance = 1e-12 * float(1 + s)
        torch.testing.assert_close(
            denoiser(x, s), denoised(x, s.expand(9)), rtol=1e-9, atol=tolerance
        )
        torch.testing.assert_close(denoiser(x, s.expand(9)), denoiser(x, s), rtol=0, atol=0)


def test_each_row_has_its_own_noise():
    denoiser = sg.to_denoiser(sg.ScoreModel(OracleNoise(MIXTURE, PATHS["VP"]), PATHS["VP"]))
    x, sigma = torch.tensor([[0.3, 0.1], [2.0, -1.0]], dtype=F64), torch.tensor([0.2, 5.0])
    for i in range(2):
        one = denoiser(x[i : i + 1], sigma[i].double())[0]
        torch.testing.assert_close(denoiser(x, sigma.double())[i], one, rtol=1e-9, atol=1e-12)


@every_path
def test_there_and_back_is_the_same_score(path):
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    again = sg.from_denoiser(sg.to_denoiser(model), path)
    for t in sg.timesteps.log_snr(path, 4):
        x = points(path, t)
        size = float(1 / path.sigma(t) ** 2 + 1) * float(x.abs().max() / path.alpha(t))
        torch.testing.assert_close(
            again.score(x, t), model.score(x, t), rtol=1e-9, atol=1e-13 * size
        )


def test_the_path_follows_what_the_denoiser_says_of_its_noise():
    narrow = sg.from_denoiser(Exact(0.01, 20.0)).sde
    assert (narrow.t_min, narrow.t_max) == pytest.approx((0.01, 20.0), rel=1e-6)
    wide = sg.from_denoiser(Exact(0.0, float("inf"))).sde  # as EDM's own networks say it
    plain = sg.from_denoiser(denoised).sde
    for path in (wide, plain):
        assert (path.t_min, path.t_max) == (0.002, 80.0)


def test_noise_that_the_network_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"Exact knows noise levels σ/α in \[0.01, 20\], but th"):
        sg.from_denoiser(Exact(), sg.VP(sg.LinearBeta(0.1, 20.0)))
    denoiser = sg.to_denoiser(sg.from_denoiser(Exact()))
    for sigma in (0.005, 21.0, float("nan")):
        with pytest.raises(ValueError, match=r"sigma must lie in \[0.01, 20\], the noise levels"):
            denoiser(torch.zeros(1, 2, dtype=F64), torch.tensor(sigma))
    with pytest.raises(TypeError, match=r"denoiser must be called with .x, sigma., but is 0\.3"):
        sg.from_denoiser(0.3)


def test_likelihood_of_a_denoiser_is_that_of_the_mixture():
    """With p at t_max exact, the flow's NLL is that of p at t_min, to the solver's tolerance."""
    model = sg.from_denoiser(Exact(), sg.RectifiedFlow(t_min=0.02, t_max=0.95))
    law = MIXTURE.noised(model.sde)
    x = points(model.sde, torch.tensor(0.02, dtype=F64), 50)
    end = torch.tensor(0.95, dtype=F64)
    found = sg.log_likelihood(
        model.sde,
        model.score,
        x,
        solver=sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9),
        prior_log_prob=lambda y: law.log_prob(y, end),
    )
    exact = law.log_prob(x, torch.tensor(0.02, dtype=F64))
    torch.testing.assert_close(found.log_prob, exact, rtol=0, atol=1e-6)


def test_its_file_needs_the_network_again(tmp_path):
    model, path = sg.from_denoiser(Exact()), tmp_path / "m.safetensors"
    with torch.no_grad():
        model.network.weight.fill_(0.5)
    model.save(path)
    with pytest.raises(sg.CheckpointError, match=r"its network is a .*Exact, which sdegen cannot"):
        sg.ScoreModel.load(path)
    again = sg.ScoreModel.load(path, network=Exact())
    x, t = torch.tensor([[0.3, 0.1]], dtype=F64), torch.tensor(0.7, dtype=F64)
    assert torch.equal(again.score(x, t), model.score(x, t))
    assert (again.sde.t_min, again.parameterization) == (model.sde.t_min, model.parameterization)


# ------------------------------------------------------------------------- k-diffusion itself


@pytest.fixture(scope="module")
def k_diffusion():
    return bare.k_diffusion() or pytest.skip("k-diffusion is not installed")


def levels(n=12, low=0.02, high=15.0):
    """A grid of σ, decreasing, and no zero at its end."""
    return high * (low / high) ** torch.linspace(0, 1, n, dtype=F64)


@pytest.mark.parametrize("sampler", ["sample_euler", "sample_heun", "sample_euler_ancestral"])
def test_its_samplers_with_our_model_and_ours_take_the_same_path(k_diffusion, sampler):
    """Same network, grid and noise: ≤ 1e-8. Their Euler is our DDIM, their ancestral η = 1."""
    path, sigmas = sg.EDM(), levels()
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    x = 15 * stream(0, "x").normal((6, 2), dtype=F64)
    z = [stream(i, "z").normal((6, 2), dtype=F64) for i in range(len(sigmas))]
    noise, words = iter(z), {"disable": True}
    if sampler == "sample_euler_ancestral":
        words["noise_sampler"] = lambda *_: next(noise)
    theirs = getattr(k_diffusion.sampling, sampler)(sg.to_denoiser(model), x, sigmas, **words)
    eta = 1.0 if "ancestral" in sampler else 0.0
    solver = sg.Heun() if sampler == "sample_heun" else sg.DDIM()
    ours = solved(
        solver,
        sg.ReverseSDE(path, model.score, eta),
        x,
        sigmas,
        noise=Replay(z) if eta else None,
        keep_path=False,
    ).states[-1]
    assert float((ours - theirs).abs().max()) <= 1e-8


@pytest.mark.parametrize("kind", ["DiscreteEpsDDPMDenoiser", "DiscreteVDDPMDenoiser"])
@pytest.mark.parametrize("quantize", [False, True])
def test_its_discrete_wrappers_are_read(k_diffusion, kind, quantize):
    """Their D at every σ, and the score of our VP path from it."""
    alpha_bars = (1 - torch.linspace(1e-3, 0.1, 100, dtype=F64)).cumprod(0)

    def network(x, k):
        return torch.sin(1.3 * x + 0.01 * k[:, None].to(x)) + 0.2 * x

    wrapper = getattr(k_diffusion.external, kind)(network, alpha_bars, quantize)
    model = sg.from_denoiser(wrapper)
    assert model.sde.t_min == pytest.approx(float(wrapper.sigma_min), rel=1e-12)
    assert model.sde.t_max == pytest.approx(float(wrapper.sigma_max), rel=1e-12)
    x = stream(1, "x").normal((5, 2), dtype=F64)
    for sigma in (0.07, 0.5, 3.0):
        t = torch.tensor(sigma, dtype=F64)
        assert torch.equal(model.x0(x, t), wrapper(x, t.expand(5)))


def test_a_table_read_by_us_is_the_same_as_their_wrapper(k_diffusion):
    """At timesteps to 1e-9; between them log σ is a line there and a cubic here, N = 100: 1e-4."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=100, clip_sample=False)
    scheduler.alphas_cumprod = (1 - torch.linspace(1e-3, 0.1, 100, dtype=F64)).cumprod(0)

    def network(x, k):
        return torch.sin(1.3 * x + 0.01 * k[:, None]) + 0.2 * x

    ours = sg.from_diffusers(network, scheduler)
    wrapper = k_diffusion.external.DiscreteEpsDDPMDenoiser(
        network, scheduler.alphas_cumprod, quantize=False
    )
    theirs = sg.from_denoiser(wrapper, ours.sde)
    x = stream(1, "x").normal((5, 2), dtype=F64)
    for t, tolerance in ((0.01, 1e-9), (0.5, 1e-9), (1.0, 1e-9), (0.0137, 1e-4), (0.31415, 1e-4)):
        time = torch.tensor(t, dtype=F64)
        torch.testing.assert_close(
            ours.x0(x, time), theirs.x0(x, time), rtol=tolerance, atol=tolerance
        )


def test_its_preconditioner_is_edm_prediction(k_diffusion):
    """Denoiser(F, σ_d) of theirs and EDMPrediction(σ_d) of ours around the same F."""

    def network(x, k):
        return torch.sin(1.3 * x + k[:, None]) + 0.2 * x

    class F(nn.Module):
        def forward(self, x, k):
            return network(x, 4 * k)

    wrapper = k_diffusion.layers.Denoiser(lambda x, sigma: network(x, sigma.log()), sigma_data=0.7)
    theirs = sg.from_denoiser(wrapper)
    ours = sg.ScoreModel(F(), sg.EDM(), sg.EDMPrediction(0.7))
    x = stream(1, "x").normal((5, 2), dtype=F64)
    for sigma in (0.01, 0.5, 30.0):
        t = torch.tensor(sigma, dtype=F64)
        torch.testing.assert_close(ours.x0(x, t), theirs.x0(x, t), rtol=1e-10, atol=1e-10)


def awake(network):
    """The network with its zero layers drawn, rows of labels among them."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


def test_labels_cross_there_and_back():
    """A denoiser of our conditional model, read again: one label, one for each row, and none."""
    model = sg.ScoreModel(awake(sg.MLP(2, width=16, classes=3, rng=0)).double(), PATHS["VP"])
    denoiser, sigma = sg.to_denoiser(model), torch.tensor(0.7, dtype=F64)
    back = sg.from_denoiser(denoiser, PATHS["VP"], classes=3, none=3)
    t = PATHS["VP"].kernel.time_of_log_nsr(sigma.log(), 1e-3, 1.0)
    x = stream(0, "x").normal((4, 2), dtype=F64)
    scores = []
    for labels in (torch.tensor(1), torch.tensor([0, 2, 1, 2]), None):
        pair = [m if labels is None else m.conditional(labels) for m in (model, back)]
        scores.append(pair[0].score(x, t))
        torch.testing.assert_close(pair[1].score(x, t), scores[-1], rtol=1e-9, atol=1e-9)
        direct = denoiser(x, sigma, labels)
        expected = pair[0].x0(PATHS["VP"].alpha(t) * x, t)
        torch.testing.assert_close(direct, expected, rtol=1e-9, atol=1e-9)
    assert (scores[0] - scores[2]).abs().min() > 1e-3  # a label says something
    nothing = denoiser(x, sigma, torch.full((4,), 3))
    assert torch.equal(nothing, denoiser(x, sigma))


def test_a_denoiser_without_a_label_for_none_must_be_asked_with_one():
    model = sg.from_denoiser(lambda x, sigma, labels: x * labels[:, None], classes=2)
    x, t = torch.ones(3, 1, dtype=F64), torch.tensor(0.5, dtype=F64)
    torch.testing.assert_close(model.conditional(1).score(x, t), 0 * x)
    torch.testing.assert_close(model.conditional(0).score(x, t), -x / 0.25)
    with pytest.raises(ValueError, match=r"2 classes and no label for none: ask model\.cond"):
        model.score(x, t)
    with pytest.raises(ValueError, match="labels must lie in 0 … 1, the classes of the network"):
        model.conditional(2)
    with pytest.raises(ValueError, match="classes must be ≥ 1, but is -1"):
        sg.from_denoiser(lambda x, sigma, labels: x, classes=-1)
    with pytest.raises(ValueError, match="labels were given, but the MLP knows no classes"):
        sg.to_denoiser(sg.ScoreModel(sg.MLP(1), PATHS["EDM"]))(x, t, torch.tensor(1))


def test_a_noise_level_may_be_a_number():
    denoiser = sg.to_denoiser(sg.from_denoiser(lambda x, sigma: x / (1 + sigma[:, None] ** 2)))
    x = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, 1.0), x / 2)
