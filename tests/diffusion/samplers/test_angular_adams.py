"""Adams in the angle: textbook coefficients, exact cases, the order by slope and by limit."""

import math

import pytest
import torch
from exact import walked

import sdegen as sg

F = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = {"vp": VP, "ve": sg.VE(sg.GeometricSigma(0.01, 5.0)), "sub-vp": sg.SubVP(VP.beta)}


def gaussian(mean, std, sde):
    """The flow of Gaussian data, starts, and where they end: a map that keeps quantiles."""
    oracle = sg.GaussianMixture([1.0], [[mean]], stds=std).noised(sde)
    first, last = oracle.at(sde.t_max), oracle.at(sde.t_min)
    x = torch.linspace(-2.0, 2.0, 21, dtype=F)[:, None] * first.covariance.sqrt() + first.mean
    end = last.mean + (x - first.mean) * (last.covariance / first.covariance).sqrt()
    return sg.ReverseSDE(sde, oracle.score, eta=0.0), x, end


def equal_angles(sde, steps):
    low, high = (
        math.atan(float(sde.kernel.log_ratio(torch.tensor(t, dtype=F)).exp()))
        for t in (sde.t_min, sde.t_max)
    )
    phi = torch.linspace(high, low, steps + 1, dtype=F)
    t = sde.kernel.time_of_log_nsr(torch.tan(phi).log(), sde.t_min, sde.t_max)
    t[0], t[-1] = sde.t_max, sde.t_min
    return t


@pytest.mark.parametrize(
    ("order", "predict", "correct"),
    [
        (1, [1.0], [1 / 2, 1 / 2]),
        (2, [3 / 2, -1 / 2], [5 / 12, 8 / 12, -1 / 12]),
        (3, [23 / 12, -16 / 12, 5 / 12], [9 / 24, 19 / 24, -5 / 24, 1 / 24]),
        (
            4,
            [55 / 24, -59 / 24, 37 / 24, -9 / 24],
            [251 / 720, 646 / 720, -264 / 720, 106 / 720, -19 / 720],
        ),
    ],
)
def test_on_equal_angles_the_coefficients_are_those_of_the_book(order, predict, correct):
    """Hairer, Nørsett and Wanner 1993, section III.1, tables 1.1 and 1.2."""
    nodes = equal_angles(VP, 12)
    flow = gaussian(0.0, 1.0, VP)[0]
    table = sg.AngularAdams(order).coefficients(flow, nodes)
    phi = torch.atan2(VP.sigma(nodes), VP.alpha(nodes))
    h = phi[1] - phi[0]
    # P_ij = −sin φ/α · weight for VP, where √(α² + σ²) = 1
    i = 9
    behind = i - torch.arange(order + 1)
    weights = table.states[i] / -(torch.sin(phi) / VP.alpha(nodes))[behind] / h
    book = torch.zeros(order + 1, dtype=F)
    book[:order] += torch.tensor(predict, dtype=F)
    book += torch.tensor(correct, dtype=F)
    book[1:] -= torch.tensor(predict, dtype=F)
    assert float((weights - book).abs().max()) < 1e-10


def test_data_of_unit_variance_stand_still():
    flow, x, end = gaussian(0.0, 1.0, VP)
    out = sg.simulate(flow, x, sg.timesteps.power(VP, 3), solver=sg.AngularAdams(6))
    assert out.nfe == 3
    assert float((out.final - end).abs().max()) < 1e-12


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_one_step_is_a_turn_of_the_circle(sde):
    """y_1 = y_0 + Δφ v/s, whatever the order."""
    flow, x, _ = gaussian(0.3, 0.5, sde)
    times = sde.time_grid(1)
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    eps = -sigma[0] * flow.score(x, times[0])
    x0 = (x - sigma[0] * eps) / alpha[0]
    s, phi = torch.sqrt(alpha**2 + sigma**2), torch.atan2(sigma, alpha)
    velocity = (alpha[0] * eps - sigma[0] * x0) / s[0]
    expected = s[1] * (x / s[0] + (phi[1] - phi[0]) * velocity)
    for order in (1, 4):
        out = sg.simulate(flow, x, times, solver=sg.AngularAdams(order))
        assert out.nfe == 1
        assert float((out.final - expected).abs().max()) < 1e-12


def slope(order, mean, std, grid, steps):
    """log2 of the error at `steps` over that at twice as many."""
    flow, x, end = gaussian(mean, std, VP)
    errors = []
    for n in (steps, 2 * steps):
        out = sg.simulate(flow, x, grid(VP, n), solver=sg.AngularAdams(order))
        assert out.nfe == n
        errors.append(float((out.final - end).square().mean().sqrt()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("order", "mean", "std", "steps"),
    [
        (1, 0.0, 0.5, 128),
        (2, 0.0, 0.5, 128),
        (3, 0.0, 0.5, 128),
        (4, 0.7, 1.5, 64),
        (5, 0.7, 1.5, 64),
    ],
)
def test_nodes_that_predict_and_one_that_corrects_make_order_plus_one(order, mean, std, steps):
    """Where the start is next to nothing, as from t_max on a power grid."""
    assert slope(order, mean, std, sg.timesteps.power, steps) == pytest.approx(order + 1, abs=0.15)


@pytest.mark.parametrize("order", [3, 4, 5, 6])
def test_a_ramp_has_order_three_in_the_limit(order):
    """Where the first steps count as the others do: a Euler step corrected by trapezium."""
    assert slope(order, 0.7, 1.5, equal_angles, 256) == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_the_limit_is_the_exact_map(sde):
    flow, x, end = gaussian(0.3, 0.5, sde)
    out = sg.simulate(flow, x, equal_angles(sde, 400), solver=sg.AngularAdams(5))
    assert float((out.final - end).abs().max()) < 1e-8


def test_gradients_flow_through_the_nodes():
    flow, x, _ = gaussian(0.3, 0.5, VP)
    inner = sg.timesteps.power(VP, 5)[1:-1].requires_grad_()

    def final(inner):
        nodes = torch.cat([torch.ones(1, dtype=F), inner, torch.full((1,), VP.t_min, dtype=F)])
        return walked(sg.AngularAdams(3), flow, nodes, x[:3])[-1]

    assert torch.autograd.gradcheck(final, (inner,))


@pytest.mark.usefixtures("as_user")
class TestBadRequests:
    def test_order(self):
        for order in (0, 7):
            with pytest.raises(ValueError, match=rf"order must be 1 … 6, but is {order}\."):
                sg.AngularAdams(order)
        with pytest.raises(TypeError, match="order must be an int, but is float"):
            sg.AngularAdams(2.0)

    def test_noisy_dynamics(self):
        flow, x, _ = gaussian(0.3, 0.5, VP)
        with pytest.raises(ValueError, match="AngularAdams is for the probability flow"):
            sg.simulate(
                sg.ReverseSDE(VP, flow.score), x, VP.time_grid(3), solver=sg.AngularAdams(), rng=0
            )

    def test_dynamics_without_a_kernel(self):
        ode = sg.ItoProcess(drift=lambda x: -x, diffusion=0.0)
        with pytest.raises(ValueError, match="AngularAdams needs the α and σ of a kernel"):
            sg.simulate(ode, torch.ones(2, 1), [0.0, 1.0], solver=sg.AngularAdams())


@pytest.mark.parametrize("order", [2, 6])
def test_data_of_another_scale_are_the_same_data_in_other_units(order):
    """x0 s under σ s is x0 under σ, times s: with data_std=s the same steps, to rounding."""
    s, sde, small = 0.25, sg.EDM(t_min=0.01, t_max=40.0), sg.EDM(t_min=0.0025, t_max=10.0)
    laws = [sg.GaussianMixture([0.3, 0.7], [[-c], [c]], stds=0.3 * c) for c in (1.0, s)]
    pairs = zip((sde, small), laws, strict=True)
    flows = [sg.ReverseSDE(e, law.noised(e).score, eta=0.0) for e, law in pairs]
    x = sde.prior((50, 1), rng=0, dtype=F)
    times = sg.timesteps.karras(sde, 12)
    one = sg.simulate(flows[0], x, times, solver=sg.AngularAdams(order)).final
    other = sg.simulate(
        flows[1], s * x, s * times, solver=sg.AngularAdams(order, data_std=s)
    ).final
    torch.testing.assert_close(other, s * one, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="data_std must be finite and > 0"):
        sg.AngularAdams(2, data_std=0.0)
