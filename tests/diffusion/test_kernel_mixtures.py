"""Mixtures under kernels: exact scores, samplers in a kernel's own basis, reversal in phase space.

Statistical tests are asked at 4.4 standard errors of each number, a false alarm of 1.1e-5 where it
is normal. How far steps are off by themselves is known without sampling, from `ChainMoments`.
"""

import dataclasses

import pytest
import torch

import sdegen as sg
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.kernel import ReverseStructure
from sdegen.diffusion.samplers.modal import tables_of

F64 = torch.float64
PLANE = sg.GaussianMixture(
    [1.0, 2.0],
    [[1.0, -1.0], [-1.0, 0.5]],
    covariances=[[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.1]]],
)


def field_law(sde, components=1):
    """A mixture of fields whose numbers are correlated."""
    d, g = sde.noise_kernel.alpha(torch.tensor(0.1)).numel(), torch.Generator().manual_seed(0)
    roots = [
        0.2 * torch.randn(d, d, generator=g, dtype=F64) + torch.eye(d, dtype=F64)
        for _ in range(components)
    ]
    means = torch.randn(components, d, generator=g, dtype=F64)
    covariances = torch.stack([0.3 * root @ root.T for root in roots])
    return sg.GaussianMixture([1.0] * components, means, covariances=covariances)


HEAT = sg.StochasticHeat((2, 3), 0.7, 0.5, 0.8)
BLUR = sg.Blurring((2, 3), 3.0)
LINEAR = sg.LinearSDE([[1.0, 0.4], [-0.3, 0.8]], [[0.7, 0.0], [-0.9, 0.5]], [0.5, -0.2])
DAMPED = sg.UnderdampedLangevin(sg.Quadratic(4.0), 4.0)
LAWS = {
    "OrnsteinUhlenbeck": PLANE.noised(sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9)),
    "heat": field_law(HEAT, 2).noised(HEAT),
    "blurring": field_law(BLUR, 2).noised(BLUR),
    "LinearSDE": PLANE.noised(LINEAR),
    "damped": PLANE.noised(DAMPED),
}


@pytest.mark.parametrize("name", LAWS)
def test_scores_of_mixtures_are_gradients_and_solve_fokker_planck(name):
    law = LAWS[name]
    x = law.sample(8, 0.4, rng=0, dtype=F64).requires_grad_()
    (slope,) = torch.autograd.grad(law.log_prob(x, 0.4).sum(), x)
    torch.testing.assert_close(law.score(x.detach(), 0.4), slope, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(law.log_prob(x, 0.4), law.at(0.4).log_prob(x.flatten(1)))

    def log_p(y, t):
        return law.log_prob(y[None], t)[0]

    y, h = x[0].detach(), 1e-5
    sde, t = law.sde, torch.tensor(0.4, dtype=F64)
    change = (log_p(y, t + h) - log_p(y, t - h)) / (2 * h)
    # ∂_t log p = −∇·f − f·s + ½ tr[GGᵀ (∇s + s sᵀ)]
    f = lambda z: sde.drift(z[None], t)[0]  # noqa: E731
    s = lambda z: law.score(z[None], t)[0]  # noqa: E731
    n, score = y.numel(), s(y)
    of_f = torch.autograd.functional.jacobian(f, y).reshape(n, n)
    of_s = torch.autograd.functional.jacobian(s, y).reshape(n, n)
    outer = of_s + score.flatten()[:, None] * score.flatten()
    rows = sde.covariance_times(y.expand(n, *y.shape), t, outer.reshape(n, *y.shape))
    expected = -of_f.trace() - (f(y) * score).sum() + 0.5 * rows.reshape(n, n).trace()
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["OrnsteinUhlenbeck", "heat", "blurring"])
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (sg.DDIM(), 1),
        (sg.ExponentialAdams(2), 2),
        (sg.ExponentialAdams(3), 3),
        (sg.ExponentialAdams(2, prediction="v"), 2),
        (sg.ExponentialAdamsMoulton(3), 3),
        (sg.ExponentialAdams(4), 4),
        (sg.AngularAdams(2), 2),
    ],
    ids=repr,
)
def test_methods_in_modes_keep_their_order_on_the_exact_flow(name, solver, order):
    """Where modes of a Gaussian do not mix, the flow moves each by the ratio of its spreads.

    Modes of a blurring decay at rates far apart, and its errors fall by their order from 160 steps
    on: of the third by 2.84 and 2.89, of the fourth by 3.97.
    """
    sde = LAWS[name].sde
    d = LAWS[name].mixture.dim
    kernel = sde.noise_kernel
    g = torch.Generator().manual_seed(0)
    event = sde.event_of(d)
    stds = (0.3 + torch.rand(event, generator=g, dtype=F64)).expand(event)
    t1 = 0.9 if name == "blurring" else 2.0

    def spread(t):
        alpha, sigma, _ = kernel.coefficients(torch.as_tensor(t, dtype=F64), stds[None])
        return ((alpha * stds).square() + sigma.square()).sqrt()

    def score(x, t):
        _, _, shift = kernel.coefficients(torch.as_tensor(t, dtype=F64), x)
        y = kernel.basis.to_modes(x)
        y = y if shift is None else y - shift
        return -kernel.basis.from_modes(y / spread(t).square())

    def shift(t):
        return kernel.mean(torch.zeros(1, *event, dtype=F64), torch.as_tensor(t, dtype=F64))

    x = torch.randn(3, *event, generator=g, dtype=F64)
    y = kernel.basis.to_modes(x - shift(t1)) * spread(0.05) / spread(t1)
    exact = kernel.basis.from_modes(y) + shift(0.05)
    flow, errors = sg.ReverseSDE(sde, score, 0.0), []
    for n in (160, 320) if name == "blurring" else (40, 80):
        times = torch.linspace(t1**0.5, 0.05**0.5, n + 1, dtype=F64) ** 2
        out = sg.simulate(flow, x, times, solver=solver, keep_path=False).final
        errors.append(float((out - exact).square().mean().sqrt()))
    slope = torch.tensor(errors[0] / errors[1]).log2()
    assert errors[1] < 0.05
    assert slope > order - (0.2 if name == "blurring" else 0.45), (errors, float(slope))


@pytest.mark.parametrize(
    "solver",
    [sg.DDIM(), sg.ExponentialAdams(3), sg.ExponentialAdamsMoulton(4), sg.AngularAdams(3)],
    ids=repr,
)
def test_a_diagonal_kernel_of_equal_entries_gives_the_scalar_result(solver):
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))

    class Same(sg.GaussianPath):
        """VP, with one α and σ for each coordinate, all of them equal."""

        kernel = None  # so that nothing takes the way of numbers

        def alpha(self, t):
            return vp.alpha(t)

        def sigma(self, t):
            return vp.sigma(t)

        @property
        def noise_kernel(self):
            each = torch.ones(2, dtype=F64)
            return DiagonalKernel(
                lambda t: vp.alpha(t)[..., None] * each, lambda t: vp.sigma(t)[..., None] * each
            )

    exact = PLANE.noised(vp)
    score = lambda x, t: exact.score(x, t)  # noqa: E731, without an sde that is compared
    x, times = torch.randn(5, 2, dtype=F64), vp.time_grid(12)
    for eta in (0.0,) if isinstance(solver, sg.AngularAdams) else (0.0, 1.0):
        one, each = (
            sg.simulate(sg.ReverseSDE(sde, score, eta), x, times, solver=solver, rng=0).final
            for sde in (vp, Same(vp.t_min, vp.t_max))
        )
        torch.testing.assert_close(one, each, rtol=1e-11, atol=1e-11)


def test_what_is_not_diagonal_is_refused_by_name():
    for name in ("LinearSDE", "damped"):
        law = LAWS[name]
        x = law.sample(4, 1.0, rng=0)
        flow = sg.ReverseSDE(law.sde, law.score, 0.0)
        for solver in (sg.DDIM(), sg.ExponentialAdams(2), sg.AngularAdams(2)):
            with pytest.raises(ValueError, match=r"is of matrices: take EulerMaruyama\(\)"):
                sg.simulate(flow, x, [1.0, 0.5], solver=solver)
    flow = sg.ReverseSDE(HEAT, LAWS["heat"].score, 0.0)
    with pytest.raises(ValueError, match=r"one α and σ for each mode: take DDIM\(\)"):
        sg.simulate(flow, torch.zeros(2, 2, 3), [1.0, 0.5], solver=sg.AdaptiveHeun())


def test_steps_over_which_a_mode_loses_its_digits_are_refused():
    law = LAWS["heat"]
    flow = sg.ReverseSDE(HEAT, law.score, 0.0)
    with pytest.raises(ValueError, match=r"lets the fastest mode grow by .*take shorter steps"):
        sg.simulate(flow, torch.zeros(2, 2, 3), [9.0, 0.5], solver=sg.DDIM())
    far = sg.StochasticHeat((2, 3), 90.0, 0.5)
    flow = sg.ReverseSDE(far, field_law(far).noised(far).score, 0.0)
    with pytest.raises(ValueError, match=r"so far that the coefficients .* are not finite"):
        sg.simulate(flow, torch.zeros(2, 2, 3), [9.0, 0.5], solver=sg.ExponentialAdams(2))


def test_coefficients_are_asked_for_once_for_each_rate():
    asked = []
    solver = sg.ExponentialAdams(2)

    def counted(sde, nodes):
        asked.append(1)
        return solver.coefficients(sde, nodes)

    sde = sg.StochasticHeat((4, 4))
    kernel = sde.noise_kernel
    inner = ReverseStructure(lambda x, t: -x, 0.0, None, kernel)
    table = tables_of(counted, inner, kernel, torch.linspace(2.0, 0.1, 5, dtype=F64))
    assert len(asked) <= len(sde.rates.unique())
    assert table.decay.shape == (4, 4, 4)
    assert table.states.shape == (4, 2, 4, 4)


START = sg.GaussianMixture([1.0], [[0.6, -0.4]], covariances=[[[0.5, 0.2], [0.2, 0.3]]])
ROWS = 40_000  # of phase space
# they shrink towards 0: x at t_min is x0 but for the noise there
BACK = torch.linspace(2.0**0.5, 0.02**0.5, 161, dtype=F64) ** 2


def standard_errors(law):
    """Those of 4 means and 10 covariances of ROWS draws from a Gaussian in phase space."""
    covariance, variance = law.covariance, law.covariance.diag()
    spread = (covariance.square() + variance[:, None] * variance).sqrt()
    return torch.cat([variance.sqrt(), spread[torch.triu_indices(4, 4).unbind()]]) / ROWS**0.5


def moments(mean, covariance):
    """Return 4 means and 10 covariances, one after the other."""
    upper = covariance[torch.triu_indices(4, 4).unbind()]
    return torch.cat([mean, upper])


def agrees(states, law):
    """Mean and covariance of states are those of a Gaussian, each within 4.4 standard errors."""
    x = states.flatten(1).double()
    found = moments(x.mean(0), (x - law.mean).T @ (x - law.mean) / len(x))
    off = (found - moments(law.mean, law.covariance)) / standard_errors(law)
    assert float(off.abs().max()) < 4.4


@pytest.mark.parametrize(("solver", "eta"), [(sg.Heun(), 0.0), (sg.SRA(), 1.0)])
def test_steps_back_in_phase_space_have_no_bias_to_see(solver, eta):
    """The law of the chain itself, exactly: off by less than 0.05 standard errors of ROWS."""
    law = START.noised(DAMPED)
    chain = sg.ChainMoments(sg.ReverseSDE(DAMPED, law.score, eta), 4, solver)
    out = chain.run(law.at(2.0).mean, law.at(2.0).covariance, BACK).final
    exact = law.at(0.02)
    bias = moments(out.mean, out.covariance) - moments(exact.mean, exact.covariance)
    assert float((bias / standard_errors(exact)).abs().max()) < 0.05


@pytest.mark.slow
def test_critically_damped_langevin_forwards_and_back():
    """The joint law in phase space of 2 × 2 numbers: 4 means and 10 covariances, each way.

    False alarm 1.1e-5 a moment, 6e-4 for all 56 of another seed.
    """
    law = START.noised(DAMPED)
    x0 = START.sample(ROWS, rng=1)
    rest = DAMPED.state(x0, DAMPED.draw_velocities(x0, rng=2))
    out = sg.simulate(
        DAMPED, rest, [0.0, 0.7], rng=3, solver=sg.BAOAB(substeps=40), keep_path=False
    )
    agrees(out.final, law.at(0.7))
    noised = DAMPED.noise_kernel
    eps = torch.randn(ROWS, 2, 2, generator=torch.Generator().manual_seed(4))
    t = torch.tensor(0.7)
    agrees(noised.mean(x0, t) + noised.spread(eps, t), law.at(0.7))
    end = law.sample(ROWS, 2.0, rng=5)
    for solver, eta in ((sg.Heun(), 0.0), (sg.SRA(), 1.0)):
        reverse = sg.ReverseSDE(DAMPED, law.score, eta)
        back = sg.simulate(reverse, end, BACK, solver=solver, rng=6, keep_path=False)
        agrees(back.final, law.at(0.02))


@pytest.mark.parametrize("t", [0.4, 2.0])
def test_every_mode_of_a_free_field_has_its_mean_square(t):
    """Each of 64 modes of an 8 × 8 lattice within 4.4 standard errors, of 4,000 fields.

    False alarm 1.2e-5 a mode, 8e-4 for all 64 of another seed; 1e-5 for their sum of squares. The
    law of the steps themselves, exactly, is off by less than 0.05 standard errors.
    """
    sde = sg.StochasticHeat((8, 8), 0.8, 0.5, 1.3)
    solver, n = sg.SRA(substeps=round(t / 0.01)), 4_000
    kernel, at = sde.noise_kernel, torch.tensor(t, dtype=F64)
    start = torch.full((n, 8, 8), 0.7)
    mean, sigma = kernel.mean(start[:1].double(), at), kernel.sigma(at)
    centre = kernel.basis.to_modes(mean)[0]
    square = sigma.square() + centre.square()
    error = ((2 * sigma.pow(4) + 4 * (centre * sigma).square()) / n).sqrt()

    end = sg.simulate(sde, start, [0.0, t], solver=solver, rng=0, keep_path=False).final
    off = (kernel.basis.to_modes(end.double()).square().mean(0) - square) / error
    assert float(off.abs().max()) < 4.4
    assert float(off.square().sum()) < 124.1  # χ² of 64

    chain = sg.ChainMoments(sde, 64, solver)
    out = chain.run(torch.full((64,), 0.7, dtype=F64), 0.0, [0.0, t]).final
    columns = kernel.basis.to_modes(torch.eye(64, dtype=F64).reshape(64, 8, 8)).reshape(64, 64)
    made = (columns.T @ out.covariance @ columns).diag() + (out.mean @ columns).square()
    assert float(((made.reshape(8, 8) - square) / error).abs().max()) < 0.05


def test_a_free_field_at_rest_has_the_temperature_in_every_mode():
    sde = sg.StochasticHeat((8, 8), 0.8, 0.5, 1.3)
    torch.testing.assert_close(sde.noise_kernel.end(9.0).std.square(), 1.3 / sde.rates)


def test_fields_have_any_number_of_axes_and_channels():
    for shape, event in (((5,), (5,)), ((3, 4), (2, 3, 4)), ((2, 3, 4), (2, 3, 4))):
        for ends in ("periodic", "reflecting"):
            sde = sg.StochasticHeat(shape, 0.7, 0.5, ends=ends)
            x = torch.randn(2, *event, dtype=F64, generator=torch.Generator().manual_seed(0))
            kernel = sde.noise_kernel
            by_modes = -kernel.basis.from_modes(sde.rates * kernel.basis.to_modes(x))
            torch.testing.assert_close(sde.drift(x, torch.tensor(0.0)), by_modes)
    with pytest.raises(ValueError, match=r"has shape \(batch, …, 3, 4\)"):
        sg.StochasticHeat((3, 4)).drift(torch.zeros(2, 4, 3), torch.tensor(0.0))


def test_blurring_is_that_of_hoogeboom_and_salimans():
    sde = sg.Blurring((1, 6, 4), 2.0, 0.01)
    t = torch.tensor(0.4, dtype=F64)
    vp = sg.VP(sg.CosineBeta())
    tau = 0.5 * (2.0 * torch.sin(t * torch.pi / 2 / sde.t_max) ** 2) ** 2
    i, j = torch.arange(6.0, dtype=F64) / 6, torch.arange(4.0, dtype=F64) / 4
    lam = torch.pi**2 * (i[:, None] ** 2 + j**2)
    expected = vp.alpha(t) * (0.99 * torch.exp(-lam * tau) + 0.01)
    torch.testing.assert_close(sde.noise_kernel.alpha(t), expected)
    torch.testing.assert_close(sde.noise_kernel.sigma(t), vp.sigma(t))
    z = torch.randn(3, 24, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(3, 1, 6, 4, dtype=F64)
    whole = (sde.diffusion(x, t).reshape(24, 24) @ z.T).T.reshape(x.shape)
    torch.testing.assert_close(sde.diffusion_times(x, t, z), whole)
    assert dataclasses.is_dataclass(sde.noise_kernel)


@pytest.mark.parametrize("name", LAWS)
def test_rows_at_times_of_their_own_are_those_of_each_time(name, monkeypatch):
    """In one go, and in pieces of a few rows."""
    law = LAWS[name]
    t = torch.tensor([0.3, 0.7, 0.3, 0.5, 0.9, 0.41, 0.42], dtype=F64)
    x = torch.cat([law.sample(1, float(one), rng=k, dtype=F64) for k, one in enumerate(t)])
    scores = torch.cat([law.score(x[k : k + 1], t[k]) for k in range(len(t))])
    logs = torch.cat([law.log_prob(x[k : k + 1], t[k]) for k in range(len(t))])
    for numbers in (2**22, 2 * x[0].numel() ** 2 * law.mixture.weights.numel()):
        monkeypatch.setattr("sdegen.diffusion.kernel_mixtures._NUMBERS", numbers)
        torch.testing.assert_close(law.score(x, t), scores, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(law.log_prob(x, t), logs, rtol=1e-10, atol=1e-10)
