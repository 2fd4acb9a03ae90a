"""Likelihoods by the probability flow, against densities in closed form.

Under a Gaussian N(0, C) the flow is linear: x_T = Σ_T^½ Σ_t^−½ x and log det ∂x_T/∂x = tr A with
A = ½ log(Σ_T Σ_t⁻¹), so that the latent, the density and the variance of every estimate are known.
Statistical tests allow 4.42 standard errors: each fails by chance once in 10⁵ seeds.
"""

import itertools
import math

import pytest
import torch

import sdegen as sg

SDES = {
    "VP": sg.VP(sg.LinearBeta(0.1, 20.0)),
    "SubVP": sg.SubVP(sg.LinearBeta(0.1, 20.0)),
    "VE": sg.VE(sg.GeometricSigma(0.05, 8.0)),
    "rectified flow": sg.RectifiedFlow(t_min=0.02),
    "EDM": sg.EDM(t_min=0.02, t_max=8.0),
}
VP = SDES["VP"]
FINE = sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9)


def time(t):
    return torch.tensor(t, dtype=torch.float64)


def planar(sde):
    """A mixture of unequal, tilted parts."""
    tilted = torch.tensor([[[0.20, 0.12], [0.12, 0.10]], [[0.05, -0.02], [-0.02, 0.3]]])
    return sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], covariances=tilted).noised(
        sde
    )


def gaussian(d, sde=VP):
    """N(0, C) with eigenvalues 0.1 … 0.9 along random axes, and C at t_min and t_max."""
    axes, _ = torch.linalg.qr(
        torch.randn(d, d, generator=torch.Generator().manual_seed(d)).double()
    )
    v = torch.linspace(0.1, 0.9, d, dtype=torch.float64)
    law = sg.GaussianMixture(
        [1.0], torch.zeros(1, d), covariances=(axes * v @ axes.T)[None]
    ).noised(sde)

    def variances(t):
        return sde.alpha(time(t)) ** 2 * v + sde.sigma(time(t)) ** 2

    return law, axes, variances(sde.t_min), variances(sde.t_max)


def at(law, t):
    return lambda y: law.log_prob(y, time(t))


@pytest.mark.parametrize("name", SDES)
def test_log_prob_of_a_mixture_with_its_exact_score(name, device):
    sde = SDES[name]
    law = planar(sde)
    x = law.sample(100, time(sde.t_min), rng=1, dtype=torch.float64).to(device)
    prior = at(law, sde.t_max)
    found = sg.log_likelihood(sde, law.score, x, solver=FINE, prior_log_prob=prior)
    error = found.log_prob - law.log_prob(x, time(sde.t_min))
    assert error.abs().max() < 1e-6
    assert found.log_prob.dtype == torch.float64
    assert torch.equal(found.standard_error, torch.zeros_like(error))


def test_default_solver_is_good_for_a_mean(device, dtype):
    """1e-6 in the root mean square over the batch: the mean is better than the worst point."""
    law = planar(VP)
    x = law.sample(200, time(VP.t_min), rng=1, dtype=torch.float64).to(device, dtype)
    found = sg.log_likelihood(VP, law.score, x, prior_log_prob=at(law, VP.t_max))
    error = found.log_prob - law.log_prob(x.double(), time(VP.t_min))
    assert error.mean().abs() < 2e-5
    assert error.abs().max() < 1e-2
    assert found.latent.dtype == dtype
    assert found.latent.device.type == found.log_prob.device.type == device.type


def test_gaussian_latent_and_density():
    law, axes, v_min, v_max = gaussian(3)
    x = law.sample(50, time(VP.t_min), rng=2, dtype=torch.float64)
    found = sg.log_likelihood(VP, law.score, x, solver=FINE)
    latent = x @ (axes * (v_max / v_min).sqrt()) @ axes.T
    torch.testing.assert_close(found.latent, latent, rtol=0, atol=1e-8)
    log_det = 0.5 * (v_max / v_min).log().sum()
    expected = VP.prior_log_prob(latent) + log_det
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-7)


def test_images_of_64_numbers(device):
    """Any event shape; 64 unit vectors for each of 150 do not go at once."""
    law, *_ = gaussian(64)
    x = law.sample(150, time(VP.t_min), rng=3, dtype=torch.float64).to(device)

    def score(y, t):
        return law.score(y.flatten(1), t).unflatten(1, (1, 8, 8))

    def prior(y):
        return law.log_prob(y.flatten(1), time(VP.t_max))

    images = x.unflatten(1, (1, 8, 8))
    found = sg.log_likelihood(VP, score, images, prior_log_prob=prior)
    assert found.latent.shape == (150, 1, 8, 8)
    error = found.log_prob - law.log_prob(x, time(VP.t_min))
    assert error.abs().max() < 1e-3
    bits = found.bits_per_dim(bin_width=0.5)
    torch.testing.assert_close(bits, -found.log_prob / (64 * math.log(2)) + 1)


def test_heun_converges_with_order_two_to_the_same():
    law = planar(VP)
    x = law.sample(50, time(VP.t_min), rng=4, dtype=torch.float64)
    exact = law.log_prob(x, time(VP.t_min))
    prior = at(law, VP.t_max)
    errors = []
    for steps in (120, 240, 480):
        heun = sg.Heun(substeps=steps)
        found = sg.log_likelihood(VP, law.score, x, solver=heun, prior_log_prob=prior)
        assert found.nfe == 2 * steps
        errors.append((found.log_prob - exact).abs().mean())
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([2, 2], abs=0.1)
    assert errors[-1] < 1e-4


X = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)


@pytest.mark.parametrize("probes", [2, 8], ids=["spread", "known"])
@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_hutchinson_is_unbiased_and_knows_its_error(noise, probes, device):
    """vᵀAv has mean tr A and variance 2 Σ_ij A_ij² or 2 Σ_{i≠j} A_ij²; α ≤ 2e-5 for each case.

    2 probes in three dimensions tell their variance without bias, 8 exactly.
    """
    law, axes, v_min, v_max = gaussian(3)
    n = 4_000
    x = law.sample(n, time(VP.t_min), rng=5, dtype=torch.float64).to(device)
    solver = sg.TorchDiffEq(rtol=1e-7, atol=1e-7)
    how = sg.Hutchinson(probes, noise)
    found = sg.log_likelihood(VP, law.score, x, solver=solver, divergence=how, rng=6)
    a = axes * (0.5 * (v_max / v_min).log()) @ axes.T
    variance = 2 * (
        a.square().sum() - (a.diagonal().square().sum() if noise == "rademacher" else 0)
    )

    estimate = (found.log_prob - VP.prior_log_prob(found.latent)).cpu()
    z = (estimate.mean() - a.trace()) / (variance / probes / n).sqrt()
    assert abs(z) < 4.42
    squared = found.standard_error.square().cpu()
    if probes > 3:
        expected = (variance / probes).expand(n)
        torch.testing.assert_close(squared, expected, rtol=1e-5, atol=0)
    else:
        z = (squared.mean() - variance / probes) / (squared.std() / math.sqrt(n))
        assert abs(z) < 4.42


def test_signs_are_exact_where_the_jacobian_is_diagonal():
    """Rademacher v has v_i² = 1; a Gaussian v has not."""
    law = sg.GaussianMixture([1.0], torch.zeros(1, 4), stds=0.5).noised(VP)
    x = law.sample(20, time(VP.t_min), rng=7, dtype=torch.float64)
    prior = at(law, VP.t_max)
    how = {"solver": FINE, "prior_log_prob": prior, "rng": 8}
    signs = sg.log_likelihood(VP, law.score, x, divergence=sg.Hutchinson(2), **how)
    torch.testing.assert_close(signs.log_prob, law.log_prob(x, time(VP.t_min)), rtol=0, atol=1e-7)
    assert signs.standard_error.max() < 1e-12
    normals = sg.log_likelihood(VP, law.score, x, divergence=sg.Hutchinson(2, "gaussian"), **how)
    assert normals.standard_error.min() > 1e-6


def in_sixteen():
    """Four unequal, tilted parts in 16 dimensions."""
    generator = torch.Generator().manual_seed(16)
    means = 0.8 * torch.randn(4, 16, generator=generator, dtype=torch.float64)
    axes, _ = torch.linalg.qr(torch.randn(4, 16, 16, generator=generator, dtype=torch.float64))
    v = torch.linspace(0.05, 0.6, 16, dtype=torch.float64)
    covariances = axes * v @ axes.mT
    symmetric = 0.5 * (covariances + covariances.mT)
    return sg.GaussianMixture([0.1, 0.2, 0.3, 0.4], means, covariances=symmetric).noised(VP)


@pytest.mark.parametrize("law", [planar(VP), in_sixteen()], ids=["2", "16"])
def test_every_sample_of_a_mixture_to_1e_6(law):
    """Exact trace, exact score, exact p_T."""
    x = law.sample(100, time(VP.t_min), rng=1, dtype=torch.float64)
    prior = at(law, VP.t_max)
    found = sg.log_likelihood(VP, law.score, x, solver=FINE, prior_log_prob=prior)
    error = found.log_prob - law.log_prob(x, time(VP.t_min))
    assert error.abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "how", "least"),
    [
        (planar(VP), sg.Hutchinson(16), 97),
        (planar(VP), sg.Hutchinson(16, "gaussian"), 97),
        (in_sixteen(), sg.Hutchinson(16), 97),
        (in_sixteen(), sg.Hutchinson(16, "gaussian"), 97),
        (in_sixteen(), sg.Hutchinson(12), 93),
        (in_sixteen(), sg.HutchPlusPlus(28), 90),
    ],
    ids=["2 signs", "2 normals", "16 signs", "16 normals", "spread", "sketch"],
)
def test_three_standard_errors_cover(law, how, least):
    """Each of 100 rows has probes of its own: 100 repeats, of which at least 97 are covered.

    With as many probes as dimensions the standard error is known and the estimate a little skewed:
    .2 % (signs) to .7 % (normals in the plane) are missed, more than 3 of 100 once in 200 seeds.
    From the spread of 12 probes a Student t of 11 degrees of freedom misses 1.2 %, more than 7 of
    100 once in 3e4; of 7 sketched estimates 2.4 %, more than 10 as rarely.
    """
    x = law.sample(100, time(VP.t_min), rng=3, dtype=torch.float64)
    solver = sg.TorchDiffEq(rtol=1e-7, atol=1e-7)
    prior = at(law, VP.t_max)
    found = sg.log_likelihood(
        VP, law.score, x, solver=solver, divergence=how, prior_log_prob=prior, rng=4
    )
    error = (found.log_prob - law.log_prob(x, time(VP.t_min))).abs()
    assert int((error <= 3 * found.standard_error).sum()) >= least
    assert error.max() > 0.01  # there is something to cover


@pytest.mark.parametrize("law", [planar(VP), in_sixteen()], ids=["2", "16"])
def test_sums_of_a_known_variance_leave_the_tolerance_to_the_path(law):
    """136 sums beside 16 coordinates: the latents are as good as those of one sum, ∇·F itself."""
    x = law.sample(40, time(VP.t_min), rng=1, dtype=torch.float64)
    fine = sg.log_likelihood(VP, law.score, x, solver=FINE).latent
    exact, probed = (
        sg.log_likelihood(VP, law.score, x, divergence=how, rng=2).latent - fine
        for how in ("exact", sg.Hutchinson(16))
    )
    assert probed.square().mean() < 1.5 * exact.square().mean()


def test_sketch_along_a_flow_of_low_rank():
    """N(0, ½ I + u uᵀ): the flow's Jacobian is a multiple of the identity plus rank one."""
    u = torch.linspace(0.1, 1.0, 20, dtype=torch.float64)
    covariance = 0.5 * torch.eye(20, dtype=torch.float64) + torch.outer(u, u)
    law = sg.GaussianMixture([1.0], torch.zeros(1, 20), covariances=covariance[None]).noised(VP)
    x = law.sample(20, time(VP.t_min), rng=7, dtype=torch.float64)
    options = {"solver": sg.Heun(substeps=60), "prior_log_prob": at(law, VP.t_max), "rng": 8}
    exact = sg.log_likelihood(VP, law.score, x, **options)
    sketched = sg.log_likelihood(VP, law.score, x, divergence=sg.HutchPlusPlus(8), **options)
    torch.testing.assert_close(sketched.log_prob, exact.log_prob, rtol=0, atol=1e-9)
    assert sketched.standard_error.max() < 1e-9
    signs = sg.log_likelihood(VP, law.score, x, divergence=sg.Hutchinson(8), **options)
    assert (signs.log_prob - exact.log_prob).abs().min() > 1e-4


def test_one_probe_does_not_know_its_error():
    found = sg.log_likelihood(VP, lambda x, t: -x, X, divergence=sg.Hutchinson(1), rng=0)
    assert torch.isinf(found.standard_error).all()


@pytest.mark.slow
def test_probes_are_held_fixed_and_seeded():
    """A probe drawn anew in every step would leave no smooth ODE; the seed gives the same bits."""
    law = planar(VP)
    x = law.sample(10, time(VP.t_min), rng=9, dtype=torch.float64)
    how = {"divergence": sg.Hutchinson(3, "gaussian"), "solver": sg.Heun(substeps=50)}
    a = sg.log_likelihood(VP, law.score, x, rng=None, **how)
    b = sg.log_likelihood(VP, law.score, x, rng=a.seed, **how)
    c = sg.log_likelihood(VP, law.score, x, rng=a.seed + 1, **how)
    assert torch.equal(a.log_prob, b.log_prob)
    assert not torch.equal(a.log_prob, c.log_prob)
    fine = [
        sg.log_likelihood(VP, law.score, x, rng=1, divergence=sg.Hutchinson(3), solver=solver)
        for solver in (FINE, sg.Heun(substeps=1_000))
    ]
    torch.testing.assert_close(fine[0].log_prob, fine[1].log_prob, rtol=0, atol=1e-4)


def test_learned_score_in_float32_meets_a_float64_point():
    """A network that is exactly the score of N(0, I): ε̂ = σ x."""

    class Normal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, t):
            return self.one * VP.sigma(t)[:, None] * x

    model = sg.ScoreModel(Normal(), VP, sg.EpsPrediction())
    expected = VP.prior_log_prob(X)
    for x in (X, X.float()):
        found = sg.log_likelihood(VP, model.score, x)
        torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=2e-5)
    assert model.network.one.grad is None


def test_runs_in_inference_mode_and_leaves_gradients_off():
    with torch.inference_mode():
        found = sg.log_likelihood(VP, lambda x, t: -x, torch.zeros(2, 2))
        assert not torch.is_grad_enabled()
    assert found.log_prob.tolist() == pytest.approx([-math.log(2 * math.pi)] * 2, abs=1e-6)
    assert not found.latent.requires_grad


def normal(x, t):
    return -x


def detached(x, t):
    return -x.detach()


def centred(x, t):
    return -(x - x.mean(0))


@pytest.mark.parametrize(
    ("sde", "score", "x", "error", "message"),
    [
        (VP, normal, X[0], ValueError, r"x must have shape \(batch, \*event\), but has .*\(3,\)"),
        (VP, normal, X * torch.nan, ValueError, "x is not finite in 5 of 5 rows"),
        (VP, normal, X.half(), TypeError, r"x has dtype torch\.float16"),
        (VP, normal, "five", TypeError, "x must be a tensor"),
        (VP, "score", X, TypeError, "score must be a function"),
        (VP, lambda x, t: x / 0, X, ValueError, r"score is not finite at t_min = 0\.001: row 0"),
        (VP, lambda x, t: x[:, :1], X, ValueError, r"x's shape \(4, 3\), but returned \(4, 1\)"),
        (VP, detached, X, ValueError, "score has no derivative in x"),
        (VP, centred, X, ValueError, r"changes with the others in its batch.*model\.eval"),
        (sg.ReverseSDE(VP, normal), normal, X, ValueError, "sde must be the forward SDE"),
        (
            sg.ItoProcess(normal, lambda x: x),
            normal,
            X,
            ValueError,
            "pass log_likelihood.*prior_log_p",
        ),
        (sg.BrownianMotion(), normal, X, ValueError, "no t_min and t_max of its own"),
        (0.1, normal, X, TypeError, "sde must be a GaussianPath"),
    ],
)
def test_bad_requests(as_user, sde, score, x, error, message):
    with pytest.raises(error, match=message):
        sg.log_likelihood(sde, score, x)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"divergence": "hutchinson"},
            r"must be 'exact', Hutchinson\(probes.* but is 'hutchinson'",
        ),
        ({"prior_log_prob": lambda y: y}, r"prior_log_prob must return shape \(5,\)"),
        ({"solver": sg.TorchSDE()}, "noise-free"),
    ],
)
def test_bad_options(option, message):
    with pytest.raises(ValueError, match=message):
        sg.log_likelihood(VP, normal, X, **option)


@pytest.mark.parametrize(
    "solver",
    [
        *(sg.DDIM(), sg.ExponentialAdams(), sg.AngularAdams(), sg.AdaptiveHeun(), sg.DPM2()),
        *(sg.PredictorCorrector(), sg.FinalDenoising(sg.Heun())),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_solvers_that_ask_the_score_alone_are_refused_by_name(solver):
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    said = rf"^{type(solver).__name__} does not solve .* any drift, TorchDiffEq.*Heun.*Euler"
    with pytest.raises(ValueError, match=said):
        sg.log_likelihood(sde, lambda x, t: -x, torch.zeros(1, 2), solver=solver)


def test_score_that_fails_on_the_way():
    def lost(x, t):
        return -x if t < 0.5 else x * torch.nan

    with pytest.raises(sg.SolverError, match=r"could not go on at t = 0\.[0-4].*5 of 5"):
        sg.log_likelihood(VP, lost, X)


def test_prior_that_excludes_a_latent():
    def nowhere(y):
        return torch.full_like(y[:, 0], -torch.inf)

    with pytest.raises(sg.NonFiniteError, match=r"for 5 of 5 points, .* row 0: log p_T = -inf"):
        sg.log_likelihood(VP, normal, X, prior_log_prob=nowhere)


# ---------------------------------------------------------------------------- gradients of log p


def test_gradient_of_log_p_in_x_is_the_score():
    """Where x requires grad: d log p/dx = (0.5, 0)/0.16 = (3.125, 0) at the centre.

    To 1e-7 it is the score at t_min, where log p is taken, if the prior is the law's own: 3.1230.
    N(0, I) at t_max neglects the mean α_T/2 = 0.0033 there, and x_T grows as x/0.4: 0.0082 less.
    """
    law = sg.GaussianMixture([1.0], [[0.5, 0.0]], stds=0.4).noised(VP)
    x = torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    found = sg.log_likelihood(VP, law.score, x)
    (slope,) = torch.autograd.grad(found.log_prob.sum(), x)
    neglected = 0.5 * float(VP.alpha(time(1.0))) / 0.4
    assert slope[0].tolist() == pytest.approx([3.123 - neglected, 0.0], abs=1e-3)
    exact = sg.log_likelihood(VP, law.score, x, solver=FINE, prior_log_prob=at(law, VP.t_max))
    (slope,) = torch.autograd.grad(exact.log_prob.sum(), x)
    assert slope[0].tolist() == pytest.approx([3.125, 0.0], rel=1e-3, abs=1e-6)
    torch.testing.assert_close(slope, law.score(x.detach(), time(VP.t_min)), rtol=1e-7, atol=1e-7)
    again = sg.log_likelihood(VP, law.score, x.detach())
    torch.testing.assert_close(again.log_prob, found.log_prob.detach(), rtol=0, atol=0)
    assert not again.log_prob.requires_grad
    assert not sg.log_likelihood(VP, law.score, x, differentiable=False).log_prob.requires_grad
    with torch.no_grad():
        assert not sg.log_likelihood(VP, law.score, x).log_prob.requires_grad


@pytest.mark.parametrize("how", ["exact", sg.Hutchinson(1), sg.Hutchinson(3), sg.HutchPlusPlus(4)])
@pytest.mark.parametrize("solver", [FINE, sg.Heun(substeps=40)], ids=["dopri8", "Heun"])
def test_gradient_of_log_p_in_what_the_score_holds(how, solver):
    """Of a score −θ₁ x − θ₂ x³, central differences of log p to 1e-5, whatever the divergence."""
    x = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)

    def log_p(theta, differentiable=None):
        def score(y, t):
            return -theta[0] * y - theta[1] * y**3

        return sg.log_likelihood(
            VP, score, x, solver=solver, divergence=how, rng=0, differentiable=differentiable
        ).log_prob[0]

    theta = torch.tensor([0.9, 0.05], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_p(theta, differentiable=True), theta)
    for i in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[i] = 1e-4
        at_theta = theta.detach()
        difference = float(log_p(at_theta + step) - log_p(at_theta - step)) / 2e-4
        assert float(slope[i]) == pytest.approx(difference, rel=1e-5)


def test_gradient_of_log_p_reaches_the_weights_of_a_network():
    model = sg.ScoreModel(sg.MLP(dim=2), VP)
    x = torch.tensor([[0.3, -0.2]])
    found = sg.log_likelihood(VP, model.score, x, solver=sg.Heun(2), differentiable=True)
    found.log_prob.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert not sg.log_likelihood(VP, model.score, x, solver=sg.Heun(2)).log_prob.requires_grad


def test_gradients_that_cannot_flow_are_refused(as_user):
    law = sg.GaussianMixture([1.0], [[0.5, 0.0]], stds=0.4).noised(VP)
    x = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad(), pytest.raises(ValueError, match="gradients are switched off"):
        sg.log_likelihood(VP, law.score, x, differentiable=True)
    with pytest.raises(TypeError, match="differentiable must be True, False or None"):
        sg.log_likelihood(VP, law.score, x, differentiable="yes")
