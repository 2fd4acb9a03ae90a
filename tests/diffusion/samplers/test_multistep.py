"""Exponential multistep methods: orders on exact flows, coefficients against closed forms."""

import math

import pytest
import torch
from exact import Replay, mixture_flow, noised_gaussian, slope, solved, walked

import sdegen as sg
from sdegen.core.noise import stream

F64 = torch.float64
PREDICTIONS = ("eps", "x0", "v")
MEMBERS = [sg.ExponentialAdams(k, p) for k in (1, 2, 3, 4) for p in PREDICTIONS]
MEMBERS += [sg.ExponentialAdams(2, p, rule="midpoint") for p in PREDICTIONS]
MEMBERS += [sg.ExponentialAdamsMoulton(k, p) for k in (2, 3, 4) for p in PREDICTIONS]


def name(value):
    return (
        f"{type(value).__name__}-{value.order}-{value.prediction}-{getattr(value, 'rule', '')}"
        if isinstance(value, sg.FixedStep)
        else None
    )


def noised_mixture(t_min=0.1, std=0.7):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=t_min)
    return sde, sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=std).noised(sde)


# order


@pytest.mark.parametrize("grid", ["log_snr", "quadratic", "karras"])
@pytest.mark.parametrize("solver", MEMBERS, ids=name)
def test_orders_on_a_flow_are_as_claimed_and_the_limit_is_the_exact_map(solver, grid, as_user):
    sde, noised = noised_mixture()
    sde.t_max = 0.8
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-2, 2.1, 9, dtype=F64)[:, None]
    exact = mixture_flow(noised, x, sde.t_max, sde.t_min)
    steps = [400, 800] if solver.order == 4 else [200, 400]
    ends = [
        sg.simulate(flow, x, getattr(sg.timesteps, grid)(sde, n), solver=solver, keep_path=False)
        for n in steps
    ]
    off = [(end.final - exact).abs().max() for end in ends]
    assert slope([1 / n for n in steps], off) == pytest.approx(solver.order, abs=0.15)
    # the limit: Richardson removes the leading term, and leaves the next, smaller by O(h)
    factor = 2.0**solver.order
    left = (factor * ends[1].final - ends[0].final) / (factor - 1) - exact
    assert float(left.abs().max()) < max(0.15 * float(off[1]), 1e-11)
    extra = 1 if solver.order == 4 else 0
    assert [end.nfe for end in ends] == [n + extra for n in steps]


@pytest.mark.slow
@pytest.mark.parametrize("solver", MEMBERS, ids=name)
def test_orders_on_a_flow_run_forwards(solver, as_user):
    # from data to noise, as a likelihood or an encoding goes
    sde, noised = noised_mixture()
    sde.t_max = 0.8
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-1.5, 1.6, 5, dtype=F64)[:, None]
    exact = mixture_flow(noised, x, sde.t_min, sde.t_max)
    errors = []
    for n in (200, 400):
        times = sg.timesteps.quadratic(sde, n).flip(0)
        end = sg.simulate(flow, x, times, solver=solver, keep_path=False).final
        errors.append(float((end - exact).abs().max()))
    assert slope([1 / 200, 1 / 400], errors) == pytest.approx(solver.order, abs=0.15)


@pytest.mark.parametrize("solver", MEMBERS, ids=name)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_one_step_is_a_legal_number_and_is_that_of_order_one(solver, eta):
    sde, noised = noised_mixture(t_min=1e-3)
    dynamics = sg.ReverseSDE(sde, noised.score, eta)
    x = stream(0, "x").normal((16, 1), dtype=F64)
    first = sg.ExponentialAdams(1, solver.prediction)
    one = {"rng": 3, "on_nonfinite": "freeze"}  # ends of one noisy step are far from any data
    end = sg.simulate(dynamics, x, sde.time_grid(1), solver=solver, **one)
    same = sg.simulate(dynamics, x, sde.time_grid(1), solver=first, **one)
    assert end.nfe == 1
    torch.testing.assert_close(end.final, same.final, rtol=1e-12, atol=1e-12)
    if eta == 0 or (eta == 1 and solver.prediction == "x0"):
        ddim = sg.simulate(dynamics, x, sde.time_grid(1), solver=sg.DDIM(), **one)
        torch.testing.assert_close(end.final, ddim.final, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sde", [
    sg.VP(sg.LinearBeta(0.1, 20.0)), sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    sg.VE(sg.GeometricSigma(0.01, 50.0)), sg.VP(sg.CosineBeta()),
], ids=["VP", "SubVP", "VE", "cosine"])  # fmt: skip
def test_order_one_is_ddim_whatever_is_predicted(sde, prediction):
    noised = sg.GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], stds=0.25).noised(sde)
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = sde.prior((16, 1), rng=0, dtype=F64)
    times = sg.timesteps.karras(sde, 12)
    ours = sg.simulate(flow, x, times, solver=sg.ExponentialAdams(1, prediction))
    ddim = sg.simulate(flow, x, times, solver=sg.DDIM())
    torch.testing.assert_close(ours.states, ddim.states, rtol=1e-10, atol=1e-12)


def test_order_one_in_x0_at_eta_one_is_the_ancestral_chain():
    sde, noised = noised_mixture(t_min=1e-3)
    times = sg.timesteps.log_snr(sde, 20)
    x = stream(0, "x").normal((16, 1), dtype=F64)
    z = [stream(i, "z").normal((16, 1), dtype=F64) for i in range(20)]
    ours = solved(
        sg.ExponentialAdams(1, "x0"),
        sg.ReverseSDE(sde, noised.score),
        x,
        times,
        noise=Replay(z),
        keep_path=True,
    )
    chain = sg.DDPM.discretize(sde, times=times).reverse(noised.score)
    k = torch.arange(20, -1, -1, dtype=F64)
    theirs = solved(sg.EulerMaruyama(), chain, x, k, noise=Replay(z), keep_path=True)
    torch.testing.assert_close(ours.states, theirs.states, rtol=1e-11, atol=1e-11)


# coefficients


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0, 1.5])
def test_coefficients_are_the_closed_forms(eta):
    sde, noised = noised_mixture(t_min=1e-3)
    nodes = sg.timesteps.log_snr(sde, 4)  # steps of Δλ ≈ 2.4
    dynamics = sg.ReverseSDE(sde, noised.score, eta)
    alpha, sigma = sde.alpha(nodes), sde.sigma(nodes)
    h, c = (alpha / sigma).log().diff(), 1 + eta**2
    for_x0 = sg.ExponentialAdams(2, "x0").coefficients(dynamics, nodes)
    # ∫ c e^{−c(h − τ)} dτ and ∫ c e^{−c(h − τ)} τ/h₀ dτ, h₀ the step before
    flat = -torch.expm1(-c * h)
    ramp = (h[1:] - flat[1:] / c) / h[:-1]
    torch.testing.assert_close(for_x0.decay, sigma[1:] / sigma[:-1] * torch.exp(-(eta**2) * h))
    torch.testing.assert_close(
        for_x0.states[1:, 1], -alpha[2:] * ramp / alpha[:-2], rtol=1e-12, atol=0.0
    )
    torch.testing.assert_close(
        for_x0.scores[1:, 0],
        alpha[2:] * (flat[1:] + ramp) * sigma[1:-1] ** 2 / alpha[1:-1],
        rtol=1e-12, atol=0.0,
    )  # fmt: skip
    squared = sigma[1:] ** 2 * -torch.expm1(-2 * eta**2 * h)
    torch.testing.assert_close(for_x0.noise, squared.sqrt(), rtol=1e-12, atol=0.0)
    for_eps = sg.ExponentialAdams(2, "eps").coefficients(dynamics, nodes)
    grown = torch.expm1(h)
    steep = (grown[1:] - h[1:]) / h[:-1]
    torch.testing.assert_close(for_eps.decay, alpha[1:] / alpha[:-1])
    torch.testing.assert_close(
        for_eps.scores[1:, 1], -c * sigma[2:] * steep * sigma[:-2], rtol=1e-12, atol=0.0
    )
    r = sigma / alpha
    squared = (eta * alpha[1:]) ** 2 * (r[:-1] ** 2 - r[1:] ** 2)
    torch.testing.assert_close(for_eps.noise, squared.sqrt(), rtol=1e-12, atol=0.0)
    assert float(for_eps.states.abs().max()) == 0.0
    for_v = sg.ExponentialAdams(1, "v").coefficients(dynamics, nodes)
    # VP: α = cos θ, σ = sin θ; with frozen x0 and ε their weights for η = 0 are those of DDIM
    if eta == 0:
        torch.testing.assert_close(for_v.decay, torch.ones(4, dtype=F64))
        of_x0 = for_v.states[:, 0] * alpha[:-1]
        torch.testing.assert_close(of_x0, alpha.diff(), rtol=1e-12, atol=1e-14)
    squared = 1 - alpha[:-1].div(alpha[1:]) ** (2 * eta**2)
    torch.testing.assert_close(for_v.noise, squared.sqrt(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_noise_is_exact_for_data_that_are_one_point(prediction, eta):
    # there the score is −(x − α μ)/σ²; with x0 known, one long step of x0 lands on the very law
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    dynamics = sg.ReverseSDE(sde, lambda x, t: -x / sde.sigma(t) ** 2, eta)
    n = 1 if prediction == "x0" else 4000
    times = sg.timesteps.log_snr(sde, n)
    table = sg.ExponentialAdams(1, prediction).coefficients(dynamics, times)
    variance = sde.sigma(times[0]) ** 2
    for i in range(n):
        factor = (
            table.decay[i] + table.states[i, 0] - table.scores[i, 0] / sde.sigma(times[i]) ** 2
        )
        variance = factor**2 * variance + table.noise[i] ** 2
    tolerance = 1e-12 if prediction == "x0" else 20 / n
    assert math.isclose(float(variance), float(sde.sigma(times[-1]) ** 2), rel_tol=tolerance)


def test_gradients_flow_through_the_nodes():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    inner = sg.timesteps.log_snr(sde, 4)

    for solver in (sg.ExponentialAdams(3, "v"), sg.ExponentialAdamsMoulton(3, "eps")):

        def end(middle, solver=solver):
            nodes = torch.cat([inner[:1], middle, inner[-1:]])
            return walked(solver, flow, nodes, x)[-1].sum()

        assert torch.autograd.gradcheck(end, inner[1:-1].clone().requires_grad_(), atol=1e-7)


def test_a_table_of_ones_own_runs_on_its_grid_alone():
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    grid = sg.timesteps.log_snr(sde, 6)
    made = sg.ExponentialAdamsMoulton(3, "x0")
    own = sg.LinearMultistep(grid, made.coefficients(flow, grid), sde.kernel)
    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    ours = sg.simulate(flow, x, grid, solver=own)
    assert torch.equal(ours.states, sg.simulate(flow, x, grid, solver=made).states)
    with pytest.raises(ValueError, match=r"made for 6 steps, but times have 5"):
        sg.simulate(flow, x, sg.timesteps.log_snr(sde, 5), solver=own)
    with pytest.raises(ValueError, match=r"another grid: times\[1\] = .* but its own is"):
        sg.simulate(flow, x, sde.time_grid(6), solver=own)
    with pytest.raises(ValueError, match=r"6 rows, but the grid 3 steps"):
        sg.LinearMultistep(grid[:4], own.table, sde.kernel)


def test_a_table_of_ones_own_is_for_one_eta_and_one_sde():
    sde, noised = noised_gaussian()
    made, grid = sg.ExponentialAdams(2, "x0"), sg.timesteps.log_snr(sde, 6)
    x = torch.linspace(-1, 1, 4, dtype=F64)[:, None]
    flow, noisy = (sg.ReverseSDE(sde, noised.score, eta=eta) for eta in (0.0, 1.0))
    own = sg.LinearMultistep(grid, made.coefficients(noisy, grid), sde.kernel, eta=1.0)
    ours, theirs = (sg.simulate(noisy, x, grid, solver=s, rng=0).final for s in (own, made))
    assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match=r"for eta = 1, but the dynamics have 0; .*eta=1\.0"):
        sg.simulate(flow, x, grid, solver=own)
    own = sg.LinearMultistep(grid, made.coefficients(flow, grid), sde.kernel)
    with pytest.raises(ValueError, match=r"for eta = 0, but the dynamics have 1; .*eta=0\.0"):
        sg.simulate(noisy, x, grid, solver=own)
    # sub-VP of the same β: α is the same, σ² = (1 − α²)² is not
    other = sg.ReverseSDE(sg.SubVP(sde.beta, t_min=sde.t_min), lambda x, t: -x, eta=0.0)
    t = grid[0]
    one = 1 - float(sde.alpha(t)) ** 2
    said = rf"another SDE: at times\[0\] = {float(t):g} its σ is {one**0.5:.6g}, .* is {one:.6g}"
    with pytest.raises(ValueError, match=said):
        sg.simulate(other, x, grid, solver=own)


# bad input


class Flat(sg.VP):
    """A schedule that stands still below t = ½."""

    def alpha(self, t):
        return super().alpha(t.clamp(min=0.5))

    def sigma(self, t):
        return super().sigma(t.clamp(min=0.5))

    def drift_rate(self, t):
        return super().drift_rate(t) * (t > 0.5)

    def diffusion_rate(self, t):
        return super().diffusion_rate(t) * (t > 0.5)


def test_refusals(as_user):
    sde, noised = noised_gaussian()
    flow = sg.ReverseSDE(sde, noised.score, eta=0.0)
    x = torch.zeros(2, 1, dtype=F64)
    with pytest.raises(ValueError, match=r"'eps', 'x0', 'v', but is 'esp'; did you mean 'eps'\?"):
        sg.ExponentialAdams(2, "esp")
    with pytest.raises(ValueError, match=r"but is 'X0'; did you mean 'x0'\?"):
        sg.ExponentialAdamsMoulton(2, "X0")
    with pytest.raises(ValueError, match=r"but is 'mid'; did you mean 'midpoint'\?"):
        sg.ExponentialAdams(2, rule="mid")
    with pytest.raises(ValueError, match=r"order must be 1 … 4, but is 5"):
        sg.ExponentialAdams(5)
    with pytest.raises(ValueError, match=r"order must be 2 … 4, but is 1"):
        sg.ExponentialAdamsMoulton(1)
    with pytest.raises(TypeError, match="order must be an int, but is float"):
        sg.ExponentialAdams(2.0)
    with pytest.raises(ValueError, match="goes with order 1 or 2, but order is 3"):
        sg.ExponentialAdams(3, rule="midpoint")
    with pytest.raises(ValueError, match=r"needs the α and σ of a kernel.*not ItoProcess"):
        sg.simulate(sg.ItoProcess(lambda x: -x, 0.0), x, [1.0, 0.5], solver=sg.ExponentialAdams())
    with pytest.raises(ValueError, match="cannot keep a state inside a boundary"):
        sg.simulate(
            flow, x, [1.0, 0.5], solver=sg.ExponentialAdams(), boundary=sg.Reflecting(-3, 3)
        )
    for steps, message in ((0, "steps must be ≥ 1, but is 0"), (-3, "≥ 1, but is -3")):
        with pytest.raises(ValueError, match=message):
            sg.timesteps.log_snr(sde, steps)
    with pytest.raises(TypeError, match="steps must be an int, but is float"):
        sg.timesteps.karras(sde, 2.5)
    with pytest.raises(ValueError, match=r"strictly monotone, but times\[1\]=0\.5 is followed by"):
        sg.simulate(flow, x, [1.0, 0.5, 0.6, 0.1], solver=sg.ExponentialAdams())
    with pytest.raises(ValueError, match=r"times must lie in \[0\.001, 1\].*span 0 … 1"):
        sg.simulate(flow, x, [1.0, 0.5, 0.0], solver=sg.ExponentialAdams())
    frozen = sg.ReverseSDE(Flat(sde.beta), lambda x, t: -x, eta=0.0)
    with pytest.raises(ValueError, match=r"σ/α must be strictly monotone.*t = 0\.5 and 0\.4"):
        sg.simulate(frozen, x, [1.0, 0.5, 0.4], solver=sg.ExponentialAdams())


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("v_prediction", "v"), ("velocity", "v"), ("sample", "x0")),
        *(("noise", "eps"), ("epsilon", "eps")),
    ],
)
def test_words_of_diffusers_are_met_with_ours(said, meant, as_user):
    for solver in (sg.ExponentialAdams, sg.ExponentialAdamsMoulton):
        with pytest.raises(ValueError, match=rf"but is '{said}'; did you mean '{meant}'\?"):
            solver(2, said)
    with pytest.raises(ValueError, match=r"but is 'heun'; did you mean 'exact'\?"):
        sg.ExponentialAdams(2, rule="heun")
