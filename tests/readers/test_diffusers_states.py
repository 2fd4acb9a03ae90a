"""What schedulers of diffusers make of noise, with an exact score, is judged by its steps."""

from types import SimpleNamespace

import pytest
import torch

import sdegen as sg

diffusers = pytest.importorskip("diffusers")
F64 = torch.float64
N = 60


def scheduler_of(kind, **words):
    made = getattr(diffusers, f"{kind}Scheduler")(
        num_train_timesteps=N, beta_start=1e-3, beta_end=0.2, **({"clip_sample": False} | words)
    )
    made.alphas_cumprod, made.one = made.alphas_cumprod.double(), torch.ones((), dtype=F64)
    return made


def sampled(scheduler, steps=N, **words):
    """The path, the law of a mixture on it, and the latents of a run, the first one included."""
    path = sg.VP(sg.TabulatedBeta(scheduler.alphas_cumprod), t_min=1 / N)
    law = sg.GaussianMixture([0.4, 0.6], [[-1.5, 0.0], [1.0, 1.0]], stds=0.5).noised(path)
    scheduler.set_timesteps(steps)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=rng, dtype=F64)
    latents = [x]
    for k in scheduler.timesteps:
        t = (k.double() + 1) / N
        eps = -path.sigma(t) * law.score(x, t)
        x = scheduler.step(eps, k, x, generator=rng, **words).prev_sample
        latents.append(x)
    return path, law, latents


def chain_of(scheduler, law, variance):
    table = torch.cat([torch.ones(1, dtype=F64), scheduler.alphas_cumprod])
    return sg.DDPM(1 - table[1:] / table[:-1]).reverse(law.score, variance)


@pytest.mark.parametrize(
    ("theirs", "ours", "other"),
    [("fixed_small", "posterior", "beta"), ("fixed_large", "beta", "posterior")],
)
def test_a_ddpm_loop_is_our_chain_and_none_of_another_variance(theirs, ours, other):
    scheduler = scheduler_of("DDPM", variance_type=theirs)
    _, law, latents = sampled(scheduler)
    states = sg.diffusers_states(latents, scheduler.timesteps, scheduler, chain=True)
    torch.testing.assert_close(states.times, torch.arange(N, -1, -1, dtype=F64))
    assert sg.certify(chain_of(scheduler, law, ours), path=states, false_alarm=1e-6).passed
    failed = sg.certify(chain_of(scheduler, law, other), path=states, diagnose=False).failed
    assert "variance of the noise" in [check.name for check in failed]
    # the last step has no noise, and is tested for equality
    latents[-1] = latents[-1] + 1e-3
    states = sg.diffusers_states(latents, scheduler.timesteps, scheduler, chain=True)
    failed = sg.certify(chain_of(scheduler, law, ours), path=states, diagnose=False).failed
    assert [check.name for check in failed] == ["equations without noise, in units of rounding"]
    assert f"at step {N - 1}" in failed[0].remark


def test_our_chain_is_judged_to_its_end():
    scheduler = scheduler_of("DDPM")
    _, law, _ = sampled(scheduler, 2)
    chain = chain_of(scheduler, law, "posterior")
    x0 = torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    run = sg.simulate(chain, x0, range(N, -1, -1), rng=0)
    certificate = sg.certify(chain, path=run, false_alarm=1e-6)
    assert certificate.passed
    # and drawn, in units of the drift; 24 parts exceed 5.5 once in 10⁶
    curve = certificate.steps.drift_error(1)
    assert float((curve.error / curve.standard_error).abs().max()) < 5.5
    assert len(sg.plots.innovations(certificate).axes) > 8


@pytest.mark.parametrize(("kind", "eta"), [("DDPM", 1.0), ("DDIM", 1.0), ("DDIM", 0.5)])
def test_a_loop_of_few_steps_is_our_ddim(kind, eta):
    scheduler = scheduler_of(kind)
    path, law, latents = sampled(scheduler, 15, **({} if kind == "DDPM" else {"eta": eta}))
    states = sg.diffusers_states(latents, scheduler.timesteps, scheduler)
    torch.testing.assert_close(states.times, (scheduler.timesteps.double() + 1) / N)
    right = sg.ReverseSDE(path, law.score, eta)
    assert sg.certify(right, path=states, solver=sg.DDIM(), false_alarm=1e-6).passed
    wrong = sg.ReverseSDE(path, law.score, 0.8)
    assert not sg.certify(wrong, path=states, solver=sg.DDIM(), diagnose=False).passed
    # what a callback tells lacks the state before the first step
    told = sg.diffusers_states(latents[1:], scheduler.timesteps, scheduler)
    assert torch.equal(told.block(0, 14), states.block(1, 15))
    assert torch.equal(told.times, states.times[1:])


def test_samples_that_are_clipped_are_refused():
    scheduler = scheduler_of("DDPM", clip_sample=True)
    path, law, latents = sampled(scheduler, 15)
    states = sg.diffusers_states(latents, scheduler.timesteps, scheduler)
    reverse = sg.ReverseSDE(path, law.score)
    certificate = sg.certify(reverse, path=states, solver=sg.DDIM(), diagnose=False)
    assert "drift as a function of the state" in [check.name for check in certificate.failed]


def test_latents_in_half_precision_are_read_with_their_rounding():
    scheduler = scheduler_of("DDPM")
    path, law, latents = sampled(scheduler, 15)
    halves = [x.half() for x in latents]
    states = sg.diffusers_states(halves, scheduler.timesteps, scheduler)
    assert (states.precision, states.dtype) == (torch.float16, torch.float32)
    reverse = sg.ReverseSDE(path, law.score)
    assert sg.certify(reverse, path=states, solver=sg.DDIM(), false_alarm=1e-6).passed


@pytest.mark.parametrize(
    ("changed", "kind", "told"),
    [
        ({"latents": []}, ValueError, "latents are empty; pass the state after each step"),
        ({"latents": 3}, TypeError, "latents must be a list of tensors, one after each step"),
        ({"latents": [1.0] * 4}, TypeError, "each of latents must be a tensor of shape"),
        ({"latents": [torch.zeros(2, 2)] * 7}, ValueError, "latents are 7, but there are 4 times"),
        (
            {"latents": [torch.zeros(2, 2)] * 3 + [torch.zeros(2, 3)]},
            ValueError,
            r"have \(2, 2\) and \(2, 3\); pass those of one run",
        ),
        ({"timesteps": [0, 1, 2, 3]}, ValueError, "decrease within 0 … 59, but are 0, 1, 2, 3;"),
        ({"timesteps": [70, 3, 2, 1]}, ValueError, "decrease within 0 … 59, but are 70, 3"),
        ({"timesteps": [9, 6, 3, 0], "chain": True}, ValueError, "a chain takes every level, but"),
        ({"chain": 1}, TypeError, "chain must be True or False"),
        ({"scheduler": None}, TypeError, "with a table of ᾱ, such as DDPMScheduler, but is NoneT"),
    ],
)
def test_what_does_not_go_together_is_refused(changed, kind, told, as_user):
    given = {
        "latents": [torch.zeros(2, 2)] * 4,
        "timesteps": [3, 2, 1, 0],
        "scheduler": scheduler_of("DDPM"),
    }
    with pytest.raises(kind, match=told):
        sg.diffusers_states(**(given | changed))


def test_states_in_other_units_and_levels_without_signal_are_refused():
    euler = diffusers.EulerDiscreteScheduler(num_train_timesteps=N)
    given = [torch.zeros(2, 2)] * 3
    with pytest.raises(ValueError, match="EulerDiscreteScheduler keeps states in units in which"):
        sg.diffusers_states(given, [2, 1, 0], euler)
    flow = SimpleNamespace(alphas_cumprod=None)
    with pytest.raises(TypeError, match="with a table of ᾱ"):
        sg.diffusers_states(given, [2, 1, 0], flow)
    zero = scheduler_of("DDIM", rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match=r"decrease within 0 … 58, but are 59, 58, 57"):
        sg.diffusers_states(given, [N - 1, N - 2, N - 3], zero)
