"""Energies, forces and exact densities; the mixture is judged by torch's own."""

import math

import pytest
import torch
from scipy import integrate, stats
from torch import distributions

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
SDES = {
    "VP": VP,
    "SubVP": sg.SubVP(sg.CosineBeta()),
    "VE": sg.VE(sg.GeometricSigma(0.01, 5.0)),
    "rectified flow": sg.RectifiedFlow(),
    "EDM": sg.EDM(t_max=5.0),
}

WEIGHTS = [0.2, 0.5, 0.3]
MEANS = [[-2.0, 0.5], [0.0, -1.0], [1.5, 2.0]]
COVARIANCES = torch.tensor(
    [[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.9]], [[1.0, 0.0], [0.0, 0.05]]], dtype=F64
)
FULL = sg.GaussianMixture(WEIGHTS, MEANS, covariances=COVARIANCES)
# in three dimensions principal axes are no symmetric matrix, and which way they turn is seen
_FACTORS = torch.tensor(
    [
        [[1.0, 0.0, 0.0], [0.5, 0.6, 0.0], [-0.4, 0.3, 0.5]],
        [[0.4, 0.0, 0.0], [0.1, 0.9, 0.0], [0.7, 0.2, 0.3]],
    ],
    dtype=F64,
)
SOLID_COVARIANCES = _FACTORS @ _FACTORS.mT
SOLID = sg.GaussianMixture(
    [0.4, 0.6], [[-1.0, 0.0, 0.5], [0.7, 1.0, -0.3]], covariances=SOLID_COVARIANCES
)
ISOTROPIC = sg.GaussianMixture([2.0, 5.0, 3.0], MEANS, stds=[0.3, 1.0, 0.7])
LINE = sg.GaussianMixture([0.3, 0.7], [-1.0, 0.8], stds=[0.3, 0.4])

every_mixture = pytest.mark.parametrize(
    "mixture", [FULL, SOLID, ISOTROPIC, LINE], ids=["full", "solid", "isotropic", "line"]
)
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())


def _points(d, n=50, scale=3.0):
    return scale * torch.randn(n, d, dtype=F64, generator=torch.Generator().manual_seed(0))


def _torch_mixture(weights, means, covariances):
    return distributions.MixtureSameFamily(
        distributions.Categorical(torch.as_tensor(weights, dtype=F64)),
        distributions.MultivariateNormal(torch.as_tensor(means, dtype=F64), covariances),
    )


def _covariances(mixture):
    """Σ_k, from what the mixture was made of."""
    if mixture in (FULL, SOLID):
        return COVARIANCES if mixture is FULL else SOLID_COVARIANCES
    stds, d = {ISOTROPIC: ([0.3, 1.0, 0.7], 2), LINE: ([0.3, 0.4], 1)}[mixture]
    return torch.tensor(stds, dtype=F64).square()[:, None, None] * torch.eye(d, dtype=F64)


def _gradient(log_prob, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(log_prob(x).sum(), x)[0]


# --- forces are gradients


@pytest.mark.parametrize(
    "potential",
    [sg.Quadratic(2.0, -0.5), sg.DoubleWell(), sg.DoubleWell(0.7, 2.0), FULL, ISOTROPIC],
    ids=["quadratic", "well", "deep well", "full mixture", "mixture"],
)
def test_the_force_is_minus_the_gradient_of_the_energy(potential):
    x = _points(2, scale=1.0)
    expected = -_gradient(potential.energy, x)
    torch.testing.assert_close(potential.force(x), expected, rtol=1e-12, atol=1e-12)


def test_energies_sum_over_all_axes_of_an_event():
    x = _points(6).reshape(-1, 3, 2)
    for potential in (sg.Quadratic(2.0, 0.5), sg.DoubleWell()):
        flat = potential.energy(x.reshape(-1, 1)).reshape(-1, 6).sum(1)
        torch.testing.assert_close(potential.energy(x), flat, rtol=1e-14, atol=1e-14)
        assert potential.force(x).shape == x.shape


# --- exact Boltzmann densities


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_trap_is_gaussian(temperature):
    x = _points(3)
    normal = distributions.Normal(torch.tensor(-0.5, dtype=F64), math.sqrt(temperature / 2.0))
    expected = normal.log_prob(x).sum(1)
    ours = sg.Quadratic(2.0, -0.5).log_prob(x, temperature)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 20.0])
def test_the_double_well_is_normalised(temperature):
    well = sg.DoubleWell(0.7, 2.0)

    def p(y):
        return float(well.log_prob(torch.tensor([[y]], dtype=F64), temperature).exp())

    bottom = math.sqrt(2.0 / 1.4)
    mass, _ = integrate.quad(p, 0, 12, points=[bottom], epsrel=1e-12, limit=500)
    assert 2 * mass == pytest.approx(1, abs=1e-10)
    two = well.log_prob(torch.tensor([[0.4, -1.1]], dtype=F64), temperature)
    assert float(two.exp()) == pytest.approx(p(0.4) * p(-1.1), rel=1e-12)


def test_no_barrier_overflows():
    # b²/4aT = 10⁶ kT: in each well a Gaussian of variance T/U″, U″ = 4 b, to O(T)
    well, temperature = sg.DoubleWell(0.25, 0.5), 2.5e-7
    bottom = torch.tensor([[1.0]], dtype=F64)
    expected = math.log(0.5) - 0.5 * math.log(2 * math.pi * temperature / 2.0)
    assert float(well.log_prob(bottom, temperature)) == pytest.approx(expected, abs=1e-6)


# --- the mixture


@every_mixture
def test_log_prob_is_that_of_torch(mixture):
    x = _points(mixture.dim)
    theirs = _torch_mixture(mixture.weights, mixture.means, _covariances(mixture))
    torch.testing.assert_close(mixture.log_prob(x), theirs.log_prob(x), rtol=1e-12, atol=1e-12)


def test_weights_are_normalised():
    assert ISOTROPIC.weights.tolist() == pytest.approx(WEIGHTS, rel=1e-15)


def test_far_from_everything_the_score_is_that_of_the_widest():
    # where every density underflows, log p and its gradient are still right
    x = torch.tensor([[1e4, 0.0]], dtype=F64)
    score = ISOTROPIC.force(x)
    expected = -(x - torch.tensor(MEANS[1], dtype=F64)) / 1.0**2
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=1e-12)


@every_sde
@every_mixture
@pytest.mark.parametrize("t", [1e-3, 0.2, 0.9])
def test_noised_it_is_the_mixture_of_noised_components(mixture, sde, t):
    x, time = _points(mixture.dim), torch.tensor(t, dtype=F64)
    alpha, sigma = sde.alpha(time), sde.sigma(time)
    spread = alpha**2 * _covariances(mixture) + sigma**2 * torch.eye(mixture.dim, dtype=F64)
    theirs = _torch_mixture(mixture.weights, alpha * mixture.means, spread)
    noised = mixture.noised(sde)
    torch.testing.assert_close(
        noised.log_prob(x, time), theirs.log_prob(x), rtol=1e-11, atol=1e-11
    )
    torch.testing.assert_close(noised.at(t).log_prob(x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)
    expected = _gradient(theirs.log_prob, x)
    scale = float(expected.abs().max())
    torch.testing.assert_close(noised.score(x, time), expected, rtol=1e-9, atol=1e-11 * scale)


def test_each_point_has_its_own_time():
    # batch == dim == 2
    noised, x = FULL.noised(VP), torch.tensor([[0.5, -1.0], [2.0, 0.3]], dtype=F64)
    t = torch.tensor([0.1, 0.8], dtype=F64)
    for i in range(2):
        one = x[i : i + 1]
        torch.testing.assert_close(noised.score(x, t)[i], noised.score(one, t[i])[0])
        torch.testing.assert_close(noised.log_prob(x, t)[i], noised.log_prob(one, t[i])[0])


def test_the_score_keeps_the_dtype_of_the_state(device):
    x = torch.ones(3, 2, dtype=torch.float32, device=device)
    for t in (torch.tensor(0.5, dtype=F64), torch.full((3,), 0.5, dtype=F64)):
        score = FULL.noised(VP).score(x, t)
        assert (score.dtype, score.device) == (x.dtype, x.device)


@every_mixture
def test_moments_are_those_of_the_law(mixture):
    theirs = _torch_mixture(mixture.weights, mixture.means, _covariances(mixture))
    torch.testing.assert_close(mixture.mean, theirs.mean)
    torch.testing.assert_close(mixture.covariance.diagonal(), theirs.variance)
    centred = mixture.means - mixture.mean
    full = _covariances(mixture) + centred[:, :, None] * centred[:, None, :]
    torch.testing.assert_close(
        mixture.covariance, (mixture.weights[:, None, None] * full).sum(0), rtol=1e-13, atol=1e-13
    )


def _mixture_cdf(mixture, direction):
    """F of the projection on a direction."""
    means = (mixture.means @ direction).numpy()
    variances = torch.einsum("i,kij,j->k", direction, _covariances(mixture), direction)
    stds, w = variances.sqrt().numpy(), mixture.weights.numpy()
    return lambda y: sum(w[k] * stats.norm.cdf(y, means[k], stds[k]) for k in range(len(w)))


@every_mixture
def test_samples_have_the_law(mixture, device):
    n = 40_000
    x = mixture.sample(n, rng=7, dtype=F64, device=device).cpu()
    direction = torch.tensor([0.6, -0.8, 0.3][: mixture.dim], dtype=F64)
    d = stats.kstest((x @ direction).numpy(), _mixture_cdf(mixture, direction)).statistic
    assert math.sqrt(n) * d < 2.470  # false alarm 1e-5
    # a mean of n: 4.42 standard errors
    assert bool(
        (
            (x.mean(0) - mixture.mean).abs() < 4.42 * (mixture.covariance.diagonal() / n).sqrt()
        ).all()
    )


@every_sde
def test_noised_samples_have_the_law(sde):
    n, t = 40_000, 0.3
    x = LINE.noised(sde).sample(n, torch.tensor(t, dtype=F64), rng=8, dtype=F64)[:, 0].numpy()
    law = LINE.noised(sde).at(t)
    means, stds = law.means[:, 0].numpy(), law.variances.sqrt()[:, 0].numpy()
    w = law.weights.numpy()
    d = stats.kstest(
        x, lambda y: sum(w[k] * stats.norm.cdf(y, means[k], stds[k]) for k in range(2))
    ).statistic
    assert math.sqrt(n) * d < 2.470  # false alarm 1e-5


def test_samples_repeat_and_take_a_dtype():
    assert torch.equal(FULL.sample(10, rng=1), FULL.sample(10, rng=1))
    assert not torch.equal(FULL.sample(10, rng=1), FULL.sample(10, rng=2))
    assert FULL.sample(10, rng=1).dtype == torch.float32
    assert FULL.noised(VP).sample(10, torch.tensor(0.1), rng=1, dtype=F64).dtype == F64


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (([1.0], [[0.0], [1.0]]), {"stds": 1.0}, r"weights \(K,\) and means \(K, d\) must agree"),
        (([0.5, 0.0], [0.0, 1.0]), {"stds": 1.0}, "weights must be finite and > 0"),
        (([1.0], [[math.nan]]), {"stds": 1.0}, "means must be finite"),
        (([1.0], [[0.0]]), {}, "give either stds or covariances"),
        (([1.0], [[0.0]]), {"stds": -1.0}, "stds must be finite and > 0"),
        (
            ([0.5, 0.5], [0.0, 1.0]),
            {"stds": [1.0, 1.0, 1.0]},
            r"stds must be a number or have shape \(2,\)",
        ),
        (([1.0], [[0.0, 0.0]]), {"covariances": torch.eye(2)}, r"must have shape \(1, 2, 2\)"),
        (
            ([1.0], [[0.0, 0.0]]),
            {"covariances": torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])},
            "covariances must be finite and symmetric",
        ),
        (
            ([1.0], [[0.0, 0.0]]),
            {"covariances": torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])},
            "every spread must be > 0, but the smallest variance is -1",
        ),
    ],
)
def test_what_is_no_mixture_is_refused(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        sg.GaussianMixture(*arguments, **keywords)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.Quadratic(0.0), "stiffness must be finite and > 0 to confine, but is 0"),
        (
            lambda: sg.DoubleWell(-1.0, 1.0),
            "a double well needs a, b > 0, finite, but a = -1, b = 1",
        ),
        (lambda: sg.Quadratic().log_prob(_points(1), 0.0), "temperature must be finite and > 0"),
        (lambda: sg.DoubleWell().log_prob(_points(1), -1.0), "temperature must be .* but is -1"),
    ],
)
def test_what_confines_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------- functions as potentials


def _numpy(x):
    return torch.as_tensor((x.numpy() ** 4 / 4).sum(1)).to(x)


FUNCTIONS = {
    "each coordinate": lambda x: x**4 / 4,
    "each state": lambda x: (x**4 / 4).sum(1),
    "numpy": _numpy,
    "an array": lambda x: x.detach().numpy() ** 4 / 4,
    "no_grad": lambda x: x.detach() ** 4 / 4,
}


@pytest.mark.parametrize("u", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_function_is_a_potential_with_the_force_of_its_gradient(u, dtype):
    """−x³, by autograd or by differences (1e-8), and in any mode of autograd."""
    x = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=dtype)
    sde = sg.Langevin(u, temperature=0.5)
    t = torch.tensor(0.0)
    torch.testing.assert_close(sde.drift(x, t), -(x**3), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(sde.drift(x, t), -(x**3), rtol=1e-6, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(sde.drift(x.clone(), t), -(x**3), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(sde.potential.energy(x), (x**4 / 4).sum(1), rtol=1e-6, atol=0)
    sg.simulate(sde, x, [0.0, 0.01], rng=0)


def test_a_function_gives_what_its_potential_gives():
    """Trajectories, the density at rest, and a belief of `certify`."""
    well = sg.DoubleWell()
    mine = sg.Langevin(lambda x: 0.25 * x**4 - 0.5 * x**2, temperature=0.2)
    named = sg.Langevin(well, temperature=0.2)
    x0 = torch.zeros(5, 1, dtype=torch.float64)
    ours, theirs = (sg.simulate(sde, x0, [0.0, 0.1, 0.2], rng=0) for sde in (mine, named))
    torch.testing.assert_close(ours.states, theirs.states, rtol=1e-12, atol=1e-14)
    grid = sg.Grid(-3.0, 3.0, 200)
    ours, theirs = (sg.FokkerPlanck(sde, grid).stationary().p for sde in (mine, named))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_gradients_flow_through_a_function():
    x = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    force = sg.Langevin(lambda y: k * y**4 / 4).drift(x, torch.tensor(0.0))
    of_x, of_k = torch.autograd.grad(force.sum(), (x, k))
    assert float(of_x) == pytest.approx(-6 * 0.25, rel=1e-12)
    assert float(of_k) == pytest.approx(-0.125, rel=1e-12)


def test_a_function_that_is_no_potential_is_refused():
    sde = sg.Langevin(lambda x: x.sum())
    with pytest.raises(ValueError, match=r"one energy for each state, shape \(3,\), or x's shape"):
        sde.potential.energy(torch.zeros(3, 2))
    half = sg.Langevin(lambda x: x**2 + x.detach() ** 2)
    with pytest.raises(ValueError, match=r"the potential U\(x\) is not that of the function"):
        sg.simulate(half, torch.zeros(3, 2), [0.0, 0.1], rng=0)


def test_parameters_of_potentials_keep_their_gradients():
    """∂/∂k of −k x, of −log N(x; 0, T/k), and of a double well's force; log Z refuses."""
    x = torch.tensor([[0.5]], dtype=torch.float64)
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sg.Quadratic(k).force(x).sum(), k)
    assert float(slope) == -0.5
    (slope,) = torch.autograd.grad(sg.Quadratic(k).log_prob(x).sum(), k)
    assert float(slope) == pytest.approx(-0.125 + 0.25, rel=1e-12)
    (slope,) = torch.autograd.grad(sg.DoubleWell(k).force(x).sum(), k)
    assert float(slope) == pytest.approx(-4 * 0.125, rel=1e-12)
    with pytest.raises(TypeError, match=r"quartic is a tensor that requires grad, .*energy\(x\)"):
        sg.DoubleWell(k).log_prob(x)
    sg.DoubleWell(float(k.detach())).log_prob(x)
