"""azula both ways, against azula's own samplers: same numbers to 1e-8."""

import sys

import pytest
import torch
from exact import OracleNoise, Replay, solved

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64
MIXTURE = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.4], [0.8, -0.5]], stds=[0.25, 0.4])
PATHS = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.01, 50.0)),
    "rectified flow": sg.RectifiedFlow(),
}


@pytest.fixture(scope="module")
def azula():
    return pytest.importorskip("azula.denoise"), pytest.importorskip("azula.sample")


def exact_of(azula, schedule):
    """The exact denoiser of the mixture under an azula schedule, as one of azula's."""
    denoise, _ = azula

    class Exact(denoise.Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, t):
            alpha, sigma = (c.to(F64).expand(len(x_t)) for c in schedule(t))
            y, ratio = x_t / alpha[:, None], sigma / alpha
            score = MIXTURE.noised(sg.EDM()).score(y, ratio)
            return denoise.DiracPosterior(mean=y + ratio[:, None] ** 2 * score)

    return Exact()


def schedules():
    noise = pytest.importorskip("azula.noise")
    return [
        noise.VPSchedule(),
        noise.CosineSchedule(alpha_min=1e-2, sigma_min=1e-2),
        noise.RectifiedSchedule(),
        noise.VESchedule(sigma_min=1e-2, sigma_max=50.0),
    ]


@pytest.mark.parametrize("which", range(4))
def test_its_denoiser_is_the_score_of_the_mixture(azula, which):
    schedule = schedules()[which]
    model = sg.from_azula(exact_of(azula, schedule))
    ends = schedule(torch.tensor([0.0, 1.0], dtype=F64))
    assert [model.sde.t_min, model.sde.t_max] == pytest.approx(
        (ends[1] / ends[0]).tolist(), rel=1e-12
    )
    for t in sg.timesteps.log_snr(model.sde, 5):
        x = MIXTURE.noised(model.sde).sample(9, t, rng=1, dtype=F64)
        exact = MIXTURE.noised(model.sde).score(x, t)
        size = float(1 / t**2 + 1 / t) * float(x.abs().max())  # (x0 − x)/σ² cancels
        torch.testing.assert_close(model.score(x, t), exact, rtol=1e-8, atol=1e-13 * size)


@pytest.mark.parametrize("which", range(4))
def test_its_ddim_and_ours_take_the_same_path(azula, which):
    """On σ/α of its grid, whatever the schedule: DDIM knows no path, ours walks EDM's."""
    _, sample = azula
    schedule = schedules()[which]
    denoiser = exact_of(azula, schedule)
    sampler = sample.DDIMSampler(denoiser, eta=0.0, steps=12, silent=True, dtype=F64)
    alpha, sigma = schedule(sampler.timesteps)
    z = stream(0, "x").normal((6, 2), dtype=F64)
    model = sg.from_azula(denoiser)
    flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
    start = sigma[0] / alpha[0]
    ours = sg.simulate(flow, start * z, sigma / alpha, solver=sg.DDIM(), keep_path=False).final
    theirs = sampler(sigma[0] * z)
    assert float((alpha[-1] * ours - theirs).abs().max()) <= 1e-8


def test_another_path_may_be_chosen_within_its_noise(azula):
    denoiser = exact_of(azula, schedules()[0])  # σ/α from 10⁻³ to 10³
    path = sg.VP(sg.LinearBeta(0.1, 20.0))
    model = sg.from_azula(denoiser, path)
    t = torch.tensor(0.4, dtype=F64)
    x = MIXTURE.noised(path).sample(9, t, rng=1, dtype=F64)
    torch.testing.assert_close(
        model.score(x, t), MIXTURE.noised(path).score(x, t), rtol=1e-9, atol=1e-9
    )
    with pytest.raises(ValueError, match=r"Exact knows noise levels σ/α in"):
        sg.from_azula(exact_of(azula, schedules()[3]), path)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_its_samplers_with_our_model_draw_what_we_draw(azula, monkeypatch, path, eta):
    _, sample = azula
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    z = [stream(i, "z").normal((6, 2), dtype=F64) for i in range(13)]
    draws = iter(z[1:])
    sampler = sample.DDIMSampler(sg.to_azula(model), eta=eta, steps=12, silent=True, dtype=F64)
    monkeypatch.setattr(sample.torch, "randn_like", lambda x: next(draws))
    x = path.prior_std * z[0]
    theirs = sampler(x)
    ours = solved(
        sg.DDIM(),
        sg.ReverseSDE(path, model.score, eta),
        x,
        path.time_grid(12),
        noise=Replay(z[1:]) if eta else None,
        keep_path=False,
    )
    assert float((ours.states[-1] - theirs).abs().max()) <= 1e-8


def test_there_and_back_is_the_same_score(azula):
    path = PATHS["VP"]
    model = sg.ScoreModel(OracleNoise(MIXTURE, path), path)
    again = sg.from_azula(sg.to_azula(model), path)
    for t in sg.timesteps.log_snr(path, 4):
        x = MIXTURE.noised(path).sample(9, t, rng=1, dtype=F64)
        torch.testing.assert_close(
            again.score(x, t), model.score(x, t), rtol=1e-8, atol=1e-11 / float(path.sigma(t)) ** 2
        )


def test_what_is_no_denoiser_of_its_is_refused():
    with pytest.raises(TypeError, match=r"with a .schedule, but is function; a function D"):
        sg.from_azula(lambda x, t: x)


def test_without_azula_the_extra_is_named(monkeypatch):
    for name in ("azula", "azula.denoise", "azula.noise"):
        monkeypatch.setitem(sys.modules, name, None)
    model = sg.ScoreModel(OracleNoise(MIXTURE, PATHS["VP"]), PATHS["VP"])
    with pytest.raises(ImportError, match=r"to_azula needs azula.*'sdegen\[azula\]'"):
        sg.to_azula(model)
