"""A flow and its divergence: against the trace of the Jacobian, taken another way."""

import itertools

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import stream
from sdegen.likelihood.divergence import ExactTrace, FlowWithDivergence


def network(x, t):
    """Something nonlinear that mixes coordinates."""
    weights = torch.tensor([[0.5, -1.0, 0.3], [0.8, 0.2, -0.6], [-0.4, 0.9, 1.1]]).to(x)
    return torch.tanh(x @ weights + t) @ weights - x


class Flow(sg.SDE):
    noise = "none"

    def __init__(self, f):
        self.f = f

    def drift(self, x, t):
        return self.f(x, t)

    def diffusion(self, x, t):
        return x.new_zeros(())


X = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)
T = torch.tensor(0.3, dtype=torch.float64)


def augmented(f, how, vectors, x=X):
    state = torch.cat([x, x.new_zeros(len(x), how.num_accumulators(x.shape[1]))], 1)
    return FlowWithDivergence(Flow(f), x.shape[1:], how, vectors).drift(state, T)


def drawn(f, how, x=X, seed=0):
    """Estimates of the divergence with vectors drawn from a seed, shape (batch, columns)."""
    return augmented(f, how, how.draw(x, stream(seed, "test")), x)[:, x.shape[1] :]


def trace(f):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: f(y[None], T)[0]))(X)
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


def test_divergence_is_the_trace_of_the_jacobian():
    exact = ExactTrace()
    moved = augmented(network, exact, exact.draw(X, stream(0, "none")))
    torch.testing.assert_close(moved[:, :3], network(X, T))
    torch.testing.assert_close(moved[:, 3], trace(network), rtol=0, atol=1e-13)


def test_all_signs_average_to_the_trace():
    """E vᵀJv = tr J, with the expectation taken in full: over all 2³ Rademacher probes."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    terms = torch.cat(
        [augmented(network, sg.Hutchinson(1), v[None, None])[:, 3:] for v in signs], 1
    )
    assert terms.std(1).min() > 0.1  # no one of them is the trace
    torch.testing.assert_close(terms.mean(1), trace(network), rtol=0, atol=1e-13)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_as_many_probes_as_dimensions_are_the_same_mean_with_a_known_variance(noise):
    """J is not symmetric. The variance by moments: E over all signs, or Σ_ij (J_ij + J_ji)²/2."""
    how = sg.Hutchinson(4, noise)
    v = how.draw(X, stream(3, "test"))
    found, error = how.estimate(augmented(network, how, v)[:, 3:], v)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: network(y[None], T)[0]))(X)
    expected = torch.einsum("nbi,bij,nbj->nb", v, jacobian, v)
    torch.testing.assert_close(found, expected.mean(0), rtol=0, atol=1e-13)

    if noise == "rademacher":
        signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
        variance = torch.einsum("ni,bij,nj->nb", signs, jacobian, signs).var(0, correction=0)
    else:
        variance = 0.5 * (jacobian + jacobian.mT).square().sum((1, 2))
    torch.testing.assert_close(error, (variance / 4).sqrt(), rtol=1e-12, atol=0)


def test_fewer_probes_than_dimensions_tell_their_error_by_their_spread():
    how = sg.Hutchinson(2)
    v = how.draw(X, stream(3, "test"))
    sums = augmented(network, how, v)[:, 3:]
    found, error = how.estimate(sums, v)
    assert torch.equal(found, sums.mean(1))
    torch.testing.assert_close(error, (sums[:, 0] - sums[:, 1]).abs() / 2)


class Unbatchable(torch.autograd.Function):
    """tanh, with a derivative that looks at numbers and cannot be vmapped."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(torch.tanh(x))
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y**2) if grad.abs().sum().item() >= 0 else grad


def test_score_without_batched_derivative():
    one_by_one = drawn(lambda x, t: Unbatchable.apply(network(x, t)), ExactTrace())
    batched = drawn(lambda x, t: torch.tanh(network(x, t)), ExactTrace())
    torch.testing.assert_close(one_by_one, batched, rtol=0, atol=1e-14)


def linear(matrix):
    return lambda x, t: x @ matrix.to(x).T


def random_matrix(d, spectrum, seed=0):
    """A symmetric matrix with given eigenvalues (padded with zeros) along random axes."""
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    v = torch.zeros(d, dtype=torch.float64)
    v[: len(spectrum)] = torch.as_tensor(spectrum, dtype=torch.float64)
    return axes * v @ axes.T


Y = torch.zeros(3, 40, dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.0, -7.0], ids=["low rank", "identity plus low rank"])
def test_sketch_is_exact_on_the_identity_plus_low_rank(shift):
    """Rank 3 ≤ k = 4; not symmetric. Hutchinson with as many products is off by its spread."""
    skew = random_matrix(40, [1.0], seed=1) @ random_matrix(40, [5.0], seed=2)
    matrix = random_matrix(40, [3.0, -2.0]) + skew
    matrix = matrix + shift * torch.eye(40, dtype=torch.float64)
    found = drawn(linear(matrix), sg.HutchPlusPlus(16), Y)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, matrix.trace().expand_as(found), rtol=0, atol=1e-11)
    plain = drawn(linear(matrix), sg.Hutchinson(16), Y)
    assert (plain - matrix.trace()).abs().min() > 1e-3


def test_sketch_is_unbiased_where_it_is_not_exact():
    """Full rank, not symmetric: the mean over 4,000 draws; α = 1e-5."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    rows = torch.zeros(4_000, 12, dtype=torch.float64)
    found = drawn(linear(matrix), sg.HutchPlusPlus(8), rows).mean(1)
    assert float(found.std()) > 0.1
    assert abs(float(found.mean() - matrix.trace())) < 4.42 * float(found.std()) / 4_000**0.5


def test_sketch_has_less_variance_for_as_many_products():
    """A score's Jacobian at σ = 0.1: −1/(v_i + σ²), six directions wide, 58 narrow."""
    narrow = torch.linspace(0.0, 0.0005, 58, dtype=torch.float64)
    wide = torch.linspace(0.3, 1.5, 6, dtype=torch.float64)
    matrix = random_matrix(64, -1 / (torch.cat([wide, narrow]) + 0.01))
    rows = torch.zeros(500, 64, dtype=torch.float64)
    spread = {}
    for how in (sg.Hutchinson(32, "gaussian"), sg.Hutchinson(32), sg.HutchPlusPlus(32)):
        errors = drawn(linear(matrix), how, rows).mean(1) - matrix.trace()
        spread[how] = float(errors.square().mean().sqrt())
    gaussian, signs, sketched = spread.values()
    assert sketched < signs / 3
    assert sketched < gaussian / 10


def test_a_sketch_must_leave_something(as_user):
    with pytest.raises(
        ValueError, match=r"sketches 8 dimensions, and a state has 8: take .*exact"
    ):
        sg.HutchPlusPlus(16).draw(torch.zeros(1, 8), stream(0, "test"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "probes must be ≥ 1, but is 0"),
        ((2.5,), TypeError, "probes must be an int, but is float"),
        ((2, "uniform"), ValueError, "noise must be 'gaussian' or 'rademacher', but is 'uniform'"),
    ],
)
def test_bad_probes(arguments, error, message):
    with pytest.raises(error, match=message):
        sg.Hutchinson(*arguments)


@pytest.mark.parametrize(
    ("probes", "error", "message"),
    [
        (0, ValueError, "probes must be ≥ 1, but is 0"),
        (True, TypeError, "probes must be an int, but is bool"),
        (10, ValueError, "probes must be a multiple of 4, but is 10"),
    ],
)
def test_bad_sketches(probes, error, message):
    with pytest.raises(error, match=message):
        sg.HutchPlusPlus(probes)
