"""ItoProcess: what a user's functions become, and the three readings of multiplicative noise."""

import functools
import math

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.scores import CallCounter, along

F64 = torch.float64
ALPHA = {"ito": 0.0, "stratonovich": 0.5, "klimontovich": 1.0}
every_reading = pytest.mark.parametrize("reading", ALPHA)
T = torch.tensor(0.7, dtype=F64)


def _x(d=1, n=5):
    return torch.linspace(0.3, 1.9, n * d, dtype=F64).reshape(n, d)


# --- readings of the noise


@every_reading
@pytest.mark.parametrize("d", [1, 3])
def test_geometric_brownian_motion_drifts_at_mu_plus_alpha_sigma_squared(reading, d):
    # E x = x0 e^{(μ + α σ²) t} follows, since the Itô drift is linear
    mu, sigma, x = 0.3, 0.8, _x(d)
    sde = sg.ItoProcess(lambda x: mu * x, lambda x: sigma * x, interpretation=reading)
    expected = (mu + ALPHA[reading] * sigma**2) * x
    torch.testing.assert_close(sde.drift(x, T), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(sde.diffusion(x, T), sigma * x, rtol=0, atol=0)


@every_reading
def test_the_mean_of_geometric_brownian_motion_follows(reading, device):
    # the chain's own moments: E x_n = (1 + a dt)^n, E x_n² = ((1 + a dt)² + σ² dt)^n
    mu, sigma, n, steps, dt = -0.5, 0.6, 40_000, 20, 0.05
    sde = sg.ItoProcess(lambda x: mu * x, lambda x: sigma * x, interpretation=reading)
    x0 = torch.ones(n, 1, dtype=F64, device=device)
    path = sg.simulate(sde, x0, torch.arange(steps + 1.0) * dt, rng=0, keep_path=False)
    growth = 1 + (mu + ALPHA[reading] * sigma**2) * dt
    mean, second = growth**steps, (growth**2 + sigma**2 * dt) ** steps
    error = float(path.final.mean()) - mean
    assert abs(error) < 4.42 * math.sqrt((second - mean**2) / n)  # false alarm 1e-5


@every_reading
def test_the_noise_induced_drift_is_alpha_g_times_its_slope(reading):
    x = _x(2)
    sde = sg.ItoProcess(
        lambda x, t: -x,
        lambda x, t: (1 + t) * (1 + torch.sin(x) ** 2),
        interpretation=reading,
    )
    g, slope = (1 + T) * (1 + torch.sin(x) ** 2), (1 + T) * torch.sin(2 * x)
    expected = -x + ALPHA[reading] * g * slope
    torch.testing.assert_close(sde.drift(x, T), expected, rtol=1e-14, atol=1e-15)


@every_reading
def test_one_g_for_all_coordinates_of_a_trajectory(reading):
    # g(x) = 1 + |x|²: g ∂g/∂x_j = (1 + |x|²) 2 x_j
    x = _x(3)
    sde = sg.ItoProcess(
        lambda x: -x, lambda x: 1 + (x * x).sum(1, keepdim=True), interpretation=reading
    )
    expected = -x + ALPHA[reading] * (1 + (x * x).sum(1, keepdim=True)) * 2 * x
    torch.testing.assert_close(sde.drift(x, T), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "g",
    [
        lambda x: x + 0.1 * x.flip(1),  # coordinates
        lambda x: x + 0.1 * x.mean(0),  # trajectories
        lambda x: (x * x).sum(1, keepdim=True).expand_as(x) + 0.0 * x,  # one g, not said to be
    ],
)
def test_a_g_that_mixes_is_refused_by_the_readings_that_need_its_slope(g):
    x = _x(3)
    for reading in ("stratonovich", "klimontovich"):
        with pytest.raises(ValueError, match="mixes coordinates or trajectories: component i"):
            sg.ItoProcess(lambda x: -x, g, interpretation=reading).drift(x, T)
    assert torch.equal(sg.ItoProcess(lambda x: -x, g).drift(x, T), -x)


def test_many_coordinates_that_mix_with_their_neighbours_are_seen():
    x = torch.rand(1000, 100, generator=torch.Generator().manual_seed(0))
    sde = sg.ItoProcess(
        lambda x: -x, lambda x: x + 0.1 * x.roll(1, 1), interpretation="stratonovich"
    )
    with pytest.raises(ValueError, match="mixes coordinates"):
        sde.drift(x, T)


def test_a_reading_changes_nothing_where_the_noise_is_additive():
    x = _x()
    for diffusion, noise in ((0.7, None), (lambda x, t: t.expand(5, 1), "additive")):
        sde = sg.ItoProcess(lambda x: -x, diffusion, interpretation="klimontovich", noise=noise)
        assert torch.equal(sde.drift(x, T), -x)


def test_a_multiplicative_g_may_be_constant_in_x():
    # its graph does not reach x, with and without a parameter that requires grad
    x, theta = _x(), torch.tensor(0.3, dtype=F64, requires_grad=True)
    for g in (lambda x: torch.ones_like(x), lambda x: theta * torch.ones_like(x)):
        sde = sg.ItoProcess(lambda x: -x, g, interpretation="stratonovich")
        assert torch.equal(sde.drift(x, T), -x)


def test_the_noise_induced_drift_needs_no_gradients_around_it():
    x = _x()
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: x, interpretation="stratonovich")
    with torch.no_grad():
        drift = sde.drift(x, T)
    assert not drift.requires_grad
    torch.testing.assert_close(drift, 0.5 * x)


@pytest.mark.parametrize("x_requires_grad", [False, True])
def test_the_noise_induced_drift_is_differentiable(x_requires_grad):
    # g = θ x²: α g g' = ½ θ² 2 x³, d/dθ = 2 θ x³, d/dx = 3 θ² x²
    theta = torch.tensor(0.3, dtype=F64, requires_grad=True)
    x = _x().requires_grad_(x_requires_grad)
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x: theta * x * x, interpretation="stratonovich")
    drift = sde.drift(x, T)
    (slope,) = torch.autograd.grad(drift.sum(), theta, retain_graph=True)
    torch.testing.assert_close(slope, (2 * theta * x**3).sum())
    if x_requires_grad:
        (slope,) = torch.autograd.grad(drift.sum(), x)
        torch.testing.assert_close(slope, 3 * theta**2 * x**2)


# --- signatures


class _Net(torch.nn.Module):
    def forward(self, x, t):
        return x * t


class _OfState(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class _Owner:
    def of_state(self, x):
        return 3 * x

    def of_both(self, x, t):
        return 3 * x * t

    def __call__(self, x, t):
        return 4 * x * t


def _scaled(scale, x, t):
    return scale * x * t


def _with_default(x, k=2.0):
    return k * x


def _with_time(x, t=None):
    return x * t


def _variadic(*args):
    x, t = args
    return x * t


SIGNATURES = {
    "f(x, t)": (lambda x, t: x * t, 0.7),
    "f(x)": (lambda x: 5 * x, 5.0),
    "f(x, k=2)": (_with_default, 2.0),
    "f(x, t=None)": (_with_time, 0.7),
    "f(*args)": (_variadic, 0.7),
    "partial(f, scale)": (functools.partial(_scaled, 3.0), 2.1),
    "partial(f, k=3)": (functools.partial(_with_default, k=3.0), 3.0),
    "torch.neg": (torch.neg, -1.0),
    "torch.exp2, bound": (torch.Tensor.neg, -1.0),
    "method of x": (_Owner().of_state, 3.0),
    "method of x, t": (_Owner().of_both, 2.1),
    "callable object": (_Owner(), 2.8),
    "module of x, t": (_Net(), 0.7),
    "module of x": (_OfState(), 2.0),
    "sequence of modules": (torch.nn.Sequential(_OfState(), _OfState()), 4.0),
}


@pytest.mark.parametrize(("function", "factor"), SIGNATURES.values(), ids=SIGNATURES.keys())
def test_what_a_function_takes_is_read_off_it(function, factor):
    x = _x(2)
    sde = sg.ItoProcess(function, function)
    torch.testing.assert_close(sde.drift(x, T), factor * x, rtol=1e-15, atol=0)
    torch.testing.assert_close(sde.diffusion(x, T), factor * x, rtol=1e-15, atol=0)


def test_three_arguments_are_refused():
    with pytest.raises(
        TypeError, match=r"takes \(x, t\), \(x\) or \(t\), but this one takes \(x, t, k\)"
    ):
        sg.ItoProcess(lambda x, t, k: x, 1.0)


# --- kinds of noise


@pytest.mark.parametrize(
    ("diffusion", "noise", "kind"),
    [
        (0.7, None, "additive"),
        (1, None, "additive"),
        (0.0, None, "none"),
        (torch.tensor(0.7), None, "additive"),
        (np.float64(0.7), None, "additive"),
        (np.float32(0.5), None, "additive"),
        (lambda x, t: t, None, "multiplicative"),
        (lambda x, t: t, "additive", "additive"),
        (0.7, "additive", "additive"),
    ],
)
def test_the_kind_of_noise(diffusion, noise, kind, as_user):
    assert sg.ItoProcess(lambda x: -x, diffusion, noise=noise).noise == kind


def test_a_number_is_the_diffusion():
    assert float(sg.ItoProcess(lambda x: -x, 0.7).diffusion(_x(), T)) == 0.7


@pytest.mark.parametrize(
    ("keywords", "kind", "message"),
    [
        ({"drift": 1.0}, TypeError, r"drift must be a function f\(x, t\) or f\(x\), but is 1\.0"),
        ({"diffusion": -0.1}, ValueError, r"diffusion must be finite and ≥ 0, but is -0\.1"),
        ({"diffusion": math.inf}, ValueError, "diffusion must be finite and ≥ 0, but is inf"),
        ({"diffusion": math.nan}, ValueError, "diffusion must be finite and ≥ 0, but is nan"),
        (
            {"diffusion": torch.eye(2)},
            TypeError,
            r"but is Tensor; for a matrix G of shape \(\*event, m\) pass channels=m",
        ),
        ({"diffusion": True}, TypeError, r"diffusion must be a number or a function .* is bool"),
        (
            {"diffusion": torch.tensor(1.0, requires_grad=True)},
            TypeError,
            "requires grad, and a number would lose its gradient",
        ),
        ({"interpretation": "itô"}, ValueError, "interpretation must be 'ito' or 'strat"),
        ({"noise": "diagonal"}, ValueError, "noise must be 'none' or 'additive' or 'multi"),
        ({"noise": "none"}, ValueError, r"noise must be 'additive' for diffusion = 0\.7, but is"),
        ({"diffusion": torch.neg, "noise": "none"}, ValueError, "noise='none' means g = 0"),
    ],
)
def test_what_makes_no_process_is_refused(keywords, kind, message, as_user):
    arguments = {"drift": lambda x: -x, "diffusion": 0.7} | keywords
    with pytest.raises(kind, match=message):
        sg.ItoProcess(**arguments)


# --- counting


def test_calls_of_the_drift_are_counted_and_the_original_is_left_alone():
    sde, counter = sg.ItoProcess(lambda x: -x, 0.7), CallCounter()
    twin = sde.with_counter(counter)
    x = _x()
    assert torch.equal(twin.drift(x, T), sde.drift(x, T))
    twin.drift(x, T)
    twin.diffusion(x, T)
    assert counter.calls == 2


def test_calls_of_a_score_along_a_run_are_counted_however_it_is_prepared():
    nodes, x = torch.tensor([0.5, 0.25], dtype=torch.float64), _x()
    model = sg.ScoreModel(sg.MLP(x.shape[1], rng=0).double(), sg.VP(sg.ConstantBeta(2.0)))
    for score in (model.score, lambda x, t: -x / t):
        counter = CallCounter()
        at = along(counter.wrap(score), nodes)
        assert counter.calls == 0
        for i, t in enumerate(nodes):
            assert torch.equal(at(x, i), score(x, t))
        assert counter.calls == 2


def test_an_sde_of_ones_own_is_taken_to_be_multiplicative():
    class Own(sg.SDE):
        def drift(self, x, t):
            return -x

        def diffusion(self, x, t):
            return x

    own = Own()
    assert (own.noise, own.direction, own.is_discrete) == ("multiplicative", 1, False)
    assert (own.kernel, own.denoising) == (None, None)
    assert own.time_range == own.score_range == (-math.inf, math.inf)


def test_what_is_said_of_time_settles_whether_a_process_depends_on_it():
    still, timed = (lambda x: -x), (lambda x, t: -x)
    assert sg.ItoProcess(still, 1.0).autonomous is True
    assert sg.ItoProcess(still, lambda x: 1 + x * x).autonomous is True
    assert sg.ItoProcess(timed, 1.0).autonomous is None
    assert sg.ItoProcess(still, lambda x, t: x).autonomous is None
    for said in (True, False):
        assert sg.ItoProcess(timed, 1.0, autonomous=said).autonomous is said
        assert sg.ItoProcess(still, 1.0, autonomous=said).autonomous is said
    with pytest.raises(TypeError, match=r"autonomous must be True .* but is 'yes'"):
        sg.ItoProcess(timed, 1.0, autonomous="yes")


def test_at_rest_what_answered_alike_is_assumed_not_to_depend_on_time_unless_it_is_said():
    grid = sg.Grid(-8.0, 8.0, 100)
    late = lambda x, t: -x + torch.where(t > 50, 1.0, 0.0)  # noqa: E731
    changing = lambda x, t: -x + torch.sin(t)  # noqa: E731
    assumed = sg.FokkerPlanck(sg.ItoProcess(late, 1.0), grid)
    assert float(assumed.stationary().mean) == pytest.approx(0.0, abs=1e-9)
    assert assumed._frozen.assumed_autonomous
    for drift, said in ((late, False), (changing, False), (changing, None)):
        with pytest.raises(ValueError, match="depend on time"):
            sg.FokkerPlanck(sg.ItoProcess(drift, 1.0, autonomous=said), grid).stationary()
    # said, it is not overruled by answers: that of the first time is taken
    known = sg.FokkerPlanck(sg.ItoProcess(changing, 1.0, autonomous=True), grid)
    assert float(known.stationary().mean) == pytest.approx(0.0, abs=1e-9)
    assert not known._frozen.assumed_autonomous
    assert known.solve(grid.gaussian(0.0, 0.7), [0.0, 9.0]).final.mean.abs() < 1e-9
