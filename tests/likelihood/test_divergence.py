"""A flow and its divergence: against the trace of the Jacobian, taken another way."""

import itertools

import pytest
import torch

import sdegen as sg
from sdegen.likelihood.divergence import FlowWithDivergence


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
EYE = torch.eye(3, dtype=torch.float64)[:, None]


def augmented(f, probes, *, summed):
    state = torch.cat([X, X.new_zeros(5, 1 if summed else len(probes))], 1)
    return FlowWithDivergence(Flow(f), X.shape[1:], probes, summed=summed).drift(state, T)


def trace(f):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: f(y[None], T)[0]))(X)
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


def test_divergence_is_the_trace_of_the_jacobian():
    moved = augmented(network, EYE, summed=True)
    torch.testing.assert_close(moved[:, :3], network(X, T))
    torch.testing.assert_close(moved[:, 3], trace(network), rtol=0, atol=1e-13)


def test_all_signs_average_to_the_trace():
    """E vᵀJv = tr J, with the expectation taken in full: over all 2³ Rademacher probes."""
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    terms = augmented(network, signs[:, None], summed=False)[:, 3:]
    assert terms.std(1).min() > 0.1  # no one of them is the trace
    torch.testing.assert_close(terms.mean(1), trace(network), rtol=0, atol=1e-13)


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
    one_by_one = augmented(lambda x, t: Unbatchable.apply(network(x, t)), EYE, summed=True)
    batched = augmented(lambda x, t: torch.tanh(network(x, t)), EYE, summed=True)
    torch.testing.assert_close(one_by_one, batched, rtol=0, atol=1e-14)


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
