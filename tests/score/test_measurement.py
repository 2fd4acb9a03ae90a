"""Measurements by functions: exact where the data are Gaussian and A linear, and as A is said."""

import pytest
import torch

import sdegen as sg
from sdegen.score.measurement import conjugate_gradients

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
LAW = sg.GaussianMixture([0.4, 0.6], [[-1.0, 0.5, 0.0], [0.8, -0.3, 1.0]], stds=0.5).noised(VP)
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], dtype=F64)
Y = torch.tensor([0.7, -0.2], dtype=F64)
X = torch.tensor([[0.3, -0.4, 0.9], [-1.2, 0.1, 0.5], [0.0, 0.7, -0.3]], dtype=F64)
T = torch.tensor(0.4, dtype=F64)


@pytest.mark.parametrize("covariance", ["none", "isotropic", "tweedie"])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_linear_function_is_its_matrix(covariance, differentiable):
    by_matrix = sg.LinearMeasurement(A, Y, 0.3)
    by_function = sg.Measurement(lambda x: x @ A.T, Y, 0.3)
    x = X.clone().requires_grad_(differentiable)
    scores = [
        one.posterior_score(VP, LAW.score, covariance)(x, T) for one in (by_matrix, by_function)
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(by_function.log_prob(X), by_matrix.log_prob(X))
    if differentiable:
        one, other = (torch.autograd.grad(s.sin().sum(), x)[0] for s in scores)
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)


def test_a_nonlinear_function_of_one_number():
    """Data N(0, 1): x̂_0 = α x, V = σ² for VP; ∇ = α h′ (s² + V h′²)⁻¹ (y − h) by hand."""
    normal, s = (lambda x, t: -x), 0.2
    sine = sg.Measurement(torch.sin, torch.tensor([0.3], dtype=F64), s)
    x = torch.tensor([[0.4], [-1.1], [2.0]], dtype=F64)
    a, v = VP.alpha(T), VP.sigma(T) ** 2
    h, slope = torch.sin(a * x), torch.cos(a * x)
    for covariance, spread in (("none", 0.0), ("isotropic", v), ("tweedie", v)):
        expected = -x + a * slope * (0.3 - h) / (s**2 + spread * slope**2)
        found = sine.posterior_score(VP, normal, covariance)(x, T)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("covariance", ["none", "isotropic", "tweedie"])
def test_the_score_of_a_nonlinear_measurement_can_be_differentiated(covariance):
    radius = sg.Measurement(
        lambda x: x.square().sum(1, keepdim=True), torch.ones(1, dtype=F64), 0.4
    )
    score = radius.posterior_score(VP, LAW.score, covariance)
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(score(x, T)[:, 0].sum(), x)
    step = torch.zeros_like(X)
    step[:, 1] = 1e-5
    difference = (score(X + step, T) - score(X - step, T))[:, 0] / 2e-5
    torch.testing.assert_close(slope[:, 1], difference, rtol=1e-5, atol=1e-6)


def test_shapes_of_events_and_measurements_are_free():
    """A blurred image, of which every second pixel is seen: the matrix of the same."""
    image = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=F64)

    def seen(x):
        return torch.nn.functional.conv2d(x, kernel, padding=1)[:, :, ::2]

    matrix = torch.func.jacrev(lambda v: seen(v.reshape(1, 1, 4, 4)).flatten())(image[0].flatten())
    y = seen(image[:1])[0] + 0.1
    flat = sg.LinearMeasurement(matrix, y.flatten(), 0.2)
    normal = lambda x, t: -x  # noqa: E731
    expected = flat.posterior_score(VP, normal, "isotropic")(image.flatten(1), T)
    found = sg.Measurement(seen, y, 0.2).posterior_score(VP, normal)(image, T)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-9, atol=1e-10)


def test_gaussian_data_have_their_exact_posterior():
    """One Gaussian, a linear function: the flow ends with the posterior's mean and covariance."""
    prior = sg.GaussianMixture([1.0], [[0.3, -0.2, 0.5]], stds=0.7)
    score = sg.Measurement(lambda x: x @ A.T, Y, 0.3).posterior_score(
        VP, prior.noised(VP).score, "tweedie"
    )
    exact = sg.LinearMeasurement(A, Y, 0.3).posterior(prior).noised(VP)
    torch.testing.assert_close(score(X, T), exact.score(X, T), rtol=1e-8, atol=1e-9)


def test_one_value_for_each_row():
    rows = sg.Measurement(lambda x: x @ A.T, Y.expand(3, 2), 0.3).posterior_score(VP, LAW.score)
    one = sg.Measurement(lambda x: x @ A.T, Y, 0.3).posterior_score(VP, LAW.score)
    torch.testing.assert_close(rows(X, T), one(X, T))
    with pytest.raises(ValueError, match="pass interacting=True"):
        rows(X[:2], T)


def test_conjugate_gradients_solve_each_row():
    c = torch.stack(
        [torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=F64)) + 0.5, torch.eye(3, dtype=F64)]
    )
    w = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], dtype=F64)
    times = lambda v: torch.einsum("bij,bj->bi", c, v)  # noqa: E731
    torch.testing.assert_close(conjugate_gradients(times, times(w)), w, rtol=1e-9, atol=1e-10)
    assert not conjugate_gradients(times, torch.zeros(2, 3, dtype=F64)).any()


def test_a_function_that_hides_its_derivative_is_refused():
    hidden = sg.Measurement(lambda x: x.detach() @ A.T, Y, 0.3)
    with pytest.raises(ValueError, match="operator"):
        hidden.posterior_score(VP, LAW.score)(X, T)
    constant = sg.Measurement(lambda x: torch.ones(len(x), 2, dtype=F64), Y, 0.3)
    torch.testing.assert_close(constant.posterior_score(VP, LAW.score)(X, T), LAW.score(X, T))


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ({"operator": A}, TypeError, "operator must be a function of states"),
        ({"value": torch.tensor(1.0)}, ValueError, r"at least one axis.*pass value\[None\]"),
        ({"value": torch.tensor([torch.nan])}, ValueError, "value must be finite"),
        ({"noise_std": 0.0}, ValueError, "noise_std"),
    ],
)
def test_what_is_no_measurement_is_refused(words, kind, told):
    right = {"operator": lambda x: x @ A.T, "value": Y, "noise_std": 0.3}
    with pytest.raises(kind, match=told):
        sg.Measurement(**(right | words))


def test_another_shape_than_the_value_has_is_refused():
    short = sg.Measurement(lambda x: x[:, :1], Y, 0.3)
    with pytest.raises(ValueError, match=r"operator must return shape \(3, 2\) for 3 states"):
        short.posterior_score(VP, LAW.score)(X, T)
