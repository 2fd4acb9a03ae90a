"""simulate: what it returns, what it repeats, what it says when trajectories are lost."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.core.boundary_words import of_words

F64 = torch.float64
TIMES = torch.linspace(0, 1, 81, dtype=F64)


def _decay(k=1.0):
    return sg.ItoProcess(lambda x: -k * x, 0.0)


# --- the path


def test_times_are_what_comes_back_and_substeps_walk_between_them(device, dtype):
    x0 = torch.tensor([[1.0], [2.0]], dtype=dtype, device=device)
    times = [0.0, 0.3, 1.0]
    path = sg.simulate(_decay(), x0, times, solver=sg.EulerMaruyama(substeps=7))
    expected = [1.0, (1 - 0.3 / 7) ** 7, (1 - 0.3 / 7) ** 7 * (1 - 0.1) ** 7]
    factor = torch.tensor(expected, dtype=dtype, device=device)
    torch.testing.assert_close(path.states, factor[:, None, None] * x0)
    assert (path.times.tolist(), path.times.dtype) == (times, F64)
    assert (path.states.dtype, path.states.device) == (x0.dtype, x0.device)
    assert path.nfe == 14
    assert not path.nonfinite.any()


def test_without_the_path_the_last_state_alone_is_kept():
    x0, times = torch.ones(3, 2, dtype=F64), torch.linspace(0, 1, 9)
    sde = sg.OrnsteinUhlenbeck()
    whole, last = (sg.simulate(sde, x0, times, rng=0, keep_path=k) for k in (True, False))
    assert last.states.shape == (1, 3, 2)
    assert torch.equal(last.final, whole.final)
    assert (last.times.tolist(), last.nfe) == ([1.0], whole.nfe)


def test_the_start_is_left_alone():
    x0 = torch.ones(3, 1, dtype=F64)
    path = sg.simulate(sg.OrnsteinUhlenbeck(), x0, [0.0, 1.0], rng=0)
    assert torch.equal(path.states[0], torch.ones(3, 1, dtype=F64))
    path.states[0] += 1
    assert torch.equal(x0, torch.ones(3, 1, dtype=F64))


def test_a_drift_gets_a_0d_float64_time_on_the_cpu(device):
    seen = []

    def drift(x, t):
        seen.append((t.dtype, tuple(t.shape), t.device.type, float(t)))
        return -x * t

    x0 = torch.ones(2, 1, dtype=torch.float32, device=device)
    path = sg.simulate(sg.ItoProcess(drift, 0.5), x0, [0.25, 0.5, 1.0], rng=0)
    assert {about[:3] for about in seen} == {(F64, (), "cpu")}
    assert [t for *_, t in seen[-2:]] == [
        0.25,
        0.5,
    ]  # after probe and pilot
    assert path.final.dtype == torch.float32


def test_events_of_any_shape(device, dtype):
    x0 = torch.linspace(-1, 1, 24, dtype=dtype, device=device).reshape(2, 3, 2, 2)
    path = sg.simulate(_decay(), x0, [0.0, 0.5])
    torch.testing.assert_close(path.final, 0.5 * x0)


def test_progress_is_shown_on_request(capsys):
    sg.simulate(_decay(), torch.ones(1, 1), [0.0, 0.5, 1.0], progress=True)
    shown = capsys.readouterr().err
    assert "simulate: 100%" in shown
    assert "2/2" in shown
    sg.simulate(_decay(), torch.ones(1, 1), [0.0, 0.5, 1.0])
    assert capsys.readouterr().err == ""


# --- the law


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_chain_of_ornstein_and_uhlenbeck_has_its_stationary_variance(dtype, device):
    # f = −x, g = √2: 1/(1 − dt/2), of which 1 is no part at this step
    n, dt = 60_000, 0.2
    x0 = torch.zeros(n, 1, dtype=dtype, device=device)
    path = sg.simulate(
        sg.OrnsteinUhlenbeck(),
        x0,
        [0.0, 20.0],
        solver=sg.EulerMaruyama(substeps=100),
        rng=1,
        keep_path=False,
    )
    variance = 1 / (1 - dt / 2)
    x = path.final[:, 0].double().cpu().numpy()
    assert abs(x.var() / variance - 1) < 4.42 * math.sqrt(2 / n)  # false alarm 1e-5
    d = stats.kstest(x / math.sqrt(variance), "norm").statistic
    assert math.sqrt(n) * d < 2.470  # false alarm 1e-5


def test_increments_are_independent_in_time():
    n = 40_000
    x0 = torch.zeros(n, 1, dtype=F64)
    path = sg.simulate(sg.BrownianMotion(), x0, torch.linspace(0, 1, 5, dtype=F64), rng=2)
    dx = path.states.diff(dim=0)[:, :, 0]
    r = torch.corrcoef(dx).triu(1).abs().max()
    assert float(r) < stats.norm.isf(1e-5 / 6 / 2) / math.sqrt(n)
    assert bool((dx.var(1) * 4 - 1).abs().max() < 4.8 * math.sqrt(2 / n))


# --- repeatability


def test_the_recorded_seed_repeats_the_bits():
    x0, times, sde = torch.zeros(5, 1, dtype=F64), [0.0, 0.5, 1.0], sg.BrownianMotion()
    for rng in (None, 3, torch.Generator().manual_seed(4)):
        path = sg.simulate(sde, x0, times, rng=rng)
        again = sg.simulate(sde, x0, times, rng=path.seed)
        assert torch.equal(path.states, again.states)
        assert again.seed == path.seed
    one, other = (sg.simulate(sde, x0, times) for _ in range(2))
    assert one.seed != other.seed
    assert not torch.equal(one.states, other.states)


def test_a_generator_is_drawn_from_once():
    x0, sde = torch.zeros(5, 1), sg.BrownianMotion()
    one, other = (torch.Generator().manual_seed(4) for _ in range(2))
    first = sg.simulate(sde, x0, [0.0, 1.0], rng=one)
    sg.simulate(sde, x0, torch.linspace(0, 1, 100), rng=other)
    assert torch.equal(one.get_state(), other.get_state())  # however long the run
    assert first.seed != sg.simulate(sde, x0, [0.0, 1.0], rng=one).seed


def test_start_and_dynamics_of_one_seed_are_unrelated():
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    x0 = sde.prior((1000, 1), rng=1, dtype=F64)
    moved = sg.simulate(sg.BrownianMotion(), 0 * x0, [0.0, 1.0], rng=1).final
    assert not torch.isin(x0, moved).any()
    assert abs(float(torch.corrcoef(torch.cat([x0, moved], 1).T)[0, 1])) < 4.42 / math.sqrt(1000)


@pytest.mark.parametrize(
    "solver",
    [sg.EulerMaruyama(), sg.Heun(), sg.DDIM(), sg.PredictorCorrector(), sg.TorchSDE("srk")],
)
def test_global_random_state_is_neither_read_nor_set(solver):
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    reverse, grid = sg.ReverseSDE(vp, lambda x, t: -x), vp.time_grid(5)
    x0 = torch.zeros(10, 1, dtype=torch.float32)
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 (the state under watch)
    first = sg.simulate(reverse, x0, grid, solver=solver, rng=0)
    sg.simulate(reverse, x0, grid, solver=solver)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002
    try:
        torch.random.default_generator.manual_seed(99)
        again = sg.simulate(reverse, x0, grid, solver=solver, rng=0)
        assert torch.equal(first.states, again.states)
    finally:
        torch.set_rng_state(torch_state)


# --- drifts that take derivatives themselves


def _by_autograd(x):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return -torch.autograd.grad((y**4 / 4 - y**2 / 2).sum(), y)[0]


def _by_jacobian(x):
    # which gives zeros, and no error, where torch does not record what was done
    def energy(y):
        return (y**4 / 4 - y**2 / 2).sum()

    return -torch.autograd.functional.jacobian(energy, x / 1.0)


def _by_func(x):
    return -torch.func.grad(lambda y: (y**4 / 4 - y**2 / 2).sum())(x)


@pytest.mark.parametrize("drift", [_by_autograd, _by_jacobian, _by_func])
def test_a_drift_that_takes_derivatives_gets_them(drift):
    # all start where the derivative is zero
    x0, solver = torch.zeros(9, 1, dtype=F64), sg.EulerMaruyama(substeps=60)
    found = sg.simulate(sg.ItoProcess(drift, 0.7), x0, [0.0, 1.0], solver=solver, rng=0)
    plain = sg.ItoProcess(lambda x: -(x**3 - x), 0.7)
    expected = sg.simulate(plain, x0, [0.0, 1.0], solver=solver, rng=0)
    torch.testing.assert_close(found.final, expected.final, rtol=1e-13, atol=1e-13)


# --- trajectories that are lost


def _blow_up(lost, of):
    """dx/dt = x²: from 10⁶⁰ infinite after three steps, from −1 it decays for ever."""
    x0 = torch.full((of, 1), -1.0, dtype=F64)
    x0[::7][:lost] = 1e60
    return sg.ItoProcess(lambda x: x * x, 0.0), x0


def test_an_explosion_says_how_many_when_and_what_to_do():
    sde, x0 = _blow_up(137, 1000)
    message = (
        r"^137 of 1000 trajectories non-finite by t = 0\.4; the largest .* 1\.95e\+234.*substeps="
    )
    with pytest.raises(sg.NonFiniteError, match=message) as caught:
        sg.simulate(sde, x0, TIMES)
    path = caught.value.result
    assert path.states.shape == (3, 1000, 1)
    assert torch.equal(path.times, TIMES[:3])
    assert bool(path.states.isfinite().all())
    assert int(path.nonfinite.sum()) == 137
    torch.testing.assert_close(path.states[1], x0 + x0 * x0 / 80, rtol=1e-15, atol=0)


@pytest.mark.parametrize("ensemble", [False, True])
def test_what_a_drift_itself_makes_is_said_with_where(ensemble):
    x0 = torch.tensor([[0.35], [5.0]], dtype=F64)
    times = torch.linspace(0, 1, 11, dtype=F64)
    about = {"trajectories": 2, "observables": [sg.Moments()], "progress": False}
    run = functools.partial(sg.run_ensemble, **about) if ensemble else sg.simulate
    late = sg.ItoProcess(lambda x, t: -1 + 0 * x + torch.where(t > 0.35, torch.nan, 0.0), 0.0)
    message = (
        r"The drift is not finite at t = 0\.4, where the states are, for 2 of 2 of them: look"
    )
    with pytest.raises(sg.NonFiniteError, match=message):
        run(late, x0, times)
    # √x of a state that has passed 0: no step is small enough
    message = r"The diffusion is not finite beyond x = 0, .* pass boundary=Reflecting\(low=0\)"
    with pytest.raises(sg.NonFiniteError, match=message):
        run(sg.ItoProcess(lambda x: -1 + 0 * x, torch.sqrt), x0, times, rng=0)


def test_an_explosion_at_the_end_is_not_missed():
    # fewer steps than between two checks, path kept or not
    sde, x0 = _blow_up(3, 100)
    for keep_path in (True, False):
        with pytest.raises(sg.NonFiniteError, match=r"3 of 100 .* by t = 0\.05") as caught:
            sg.simulate(sde, x0, TIMES[:5], keep_path=keep_path)
        assert (caught.value.result is not None) == keep_path


def test_an_explosion_in_a_later_block_keeps_the_blocks_before():
    sde, x0 = _blow_up(0, 70_000)
    x0[-2:] = 1e60
    with pytest.raises(sg.NonFiniteError, match=r"2 of 70000 .* by t = 0\.4") as caught:
        sg.simulate(sde, x0, TIMES)
    path = caught.value.result
    assert path.states.shape == (3, 70_000, 1)
    assert path.nonfinite.nonzero().flatten().tolist() == [69_998, 69_999]


def test_frozen_the_lost_stay_and_the_others_go_on_as_if_alone():
    lost = torch.zeros(1000, dtype=torch.bool)
    lost[::7] = True
    sde = sg.ItoProcess(lambda x: x * x - 4 * x, 0.3)
    x0 = torch.full((1000, 1), -1.0, dtype=F64)
    calm = sg.simulate(sde, x0, TIMES, rng=0)
    wild = sg.simulate(
        sde, torch.where(lost[:, None], 1e60, x0), TIMES, rng=0, on_nonfinite="freeze"
    )
    assert torch.equal(wild.nonfinite, lost)
    assert torch.equal(wild.states[:, ~lost], calm.states[:, ~lost])
    assert torch.equal(wild.finite, calm.states[:, ~lost])
    assert bool(wild.states.isfinite().all())
    # held where they last were finite
    assert torch.equal(wild.states[5, lost], wild.final[lost])
    assert float(wild.final[lost].min()) > 1e200


@pytest.mark.parametrize("kind", ["no-flux", "absorbing", "periodic"])
def test_walls_hide_no_explosion(kind):
    # from 1 to beyond any number in one step
    sde = sg.ItoProcess(lambda x, t: torch.full_like(x, 1e308) * (10.0 * t), 0.0)
    with pytest.raises(sg.NonFiniteError, match="2 of 2 trajectories non-finite by t = 4"):
        sg.simulate(
            sde,
            torch.ones(2, 1, dtype=F64),
            [0.0, 2.0, 4.0],
            boundary=of_words(kind, 0.0, 2.0),
        )


# --- gradients


def test_gradients_flow_on_request_only():
    x0 = torch.ones(3, 1, dtype=F64, requires_grad=True)
    k = torch.tensor(0.5, dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: -k * x, 0.3)
    assert not sg.simulate(sde, x0, [0.0, 1.0], rng=0).states.requires_grad
    assert sg.simulate(sde, x0, [0.0, 1.0], rng=0, differentiable=True).states.requires_grad
    assert torch.is_grad_enabled()


def test_gradients_of_a_decay_are_those_of_the_chain():
    # x_N = (1 − k dt)^N x0
    n, dt = 20, 0.05
    x0 = torch.tensor([[1.0], [-2.0]], dtype=F64, requires_grad=True)
    k = torch.tensor(0.8, dtype=F64, requires_grad=True)
    path = sg.simulate(
        sg.ItoProcess(lambda x: -k * x, 0.0),
        x0,
        dt * torch.arange(n + 1, dtype=F64),
        differentiable=True,
    )
    to_x0, to_k = torch.autograd.grad(path.final.sum(), (x0, k))
    factor = (1 - 0.8 * dt) ** n
    torch.testing.assert_close(to_x0, torch.full_like(x0, factor), rtol=1e-12, atol=0)
    expected = -n * dt * (1 - k * dt) ** (n - 1) * x0.sum()
    torch.testing.assert_close(to_k, expected.detach(), rtol=1e-12, atol=0)


def test_gradients_with_noise_are_those_of_the_path():
    """For OU, x_N is linear in the noise; E x_N and its slope in k are those without it."""
    n_paths, n, dt = 20_000, 20, 0.05
    k, sigma = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.8, 0.5))
    x0 = torch.ones(n_paths, 1, dtype=F64)
    sde = sg.ItoProcess(lambda x: -k * x, lambda x, t: sigma, noise="additive")
    times = dt * torch.arange(n + 1, dtype=F64)
    path = sg.simulate(sde, x0, times, rng=0, differentiable=True)
    to_k, to_sigma = torch.autograd.grad(path.final.mean(), (k, sigma), retain_graph=True)
    a = 1 - 0.8 * dt
    # exactly: ∂x_N/∂σ = (x_N − a^N x0)/σ
    torch.testing.assert_close(to_sigma, (path.final.mean() - a**n) / sigma, rtol=1e-10, atol=0)
    # in the mean: −N dt a^{N−1}, with the standard error of ∂x_N/∂k = −dt Σ_j (N−1−j) a^{N−2−j}
    # b_j
    j = np.arange(n - 1)
    spread = (
        dt * 0.5 * math.sqrt(dt) * math.sqrt(float((((n - 1 - j) * a ** (n - 2 - j)) ** 2).sum()))
    )
    assert abs(float(to_k) + n * dt * a ** (n - 1)) < 4.42 * spread / math.sqrt(n_paths)


def test_gradients_pass_through_walls():
    x0 = torch.tensor([[0.25], [0.75]], dtype=F64, requires_grad=True)
    sde = sg.ItoProcess(lambda x: torch.ones_like(x), 0.0)
    path = sg.simulate(sde, x0, [0.0, 0.5], boundary=sg.Reflecting(0.0, 1.0), differentiable=True)
    (slope,) = torch.autograd.grad(path.final.sum(), x0)
    assert path.final[:, 0].tolist() == [0.75, 0.75]
    assert slope[:, 0].tolist() == [1.0, -1.0]  # the second has been reflected
