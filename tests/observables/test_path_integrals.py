"""Integrals along a path: identities path by path, and exact laws."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
N = 20_000
BM = sg.BrownianMotion(1.3)


def along(sde, x0, times, functionals, solver=None, **options):
    solver = sg.EulerMaruyama(20) if solver is None else solver
    return sg.simulate(
        sde, x0, times, solver=solver, functionals=functionals, rng=0, **options
    )  # fmt: skip


def identity(x):
    return x


def test_ito_and_stratonovich_path_by_path():
    """∫ X ∘ dX = (X_t² − X_0²)/2 exactly; ∫ X dX less half the sum of squares of the steps."""
    times = torch.linspace(0, 1, 201, dtype=F64)
    x0 = torch.randn(50, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    wanted = [
        sg.StochasticIntegral(identity, "stratonovich", name="s"),
        sg.StochasticIntegral(identity, "ito", name="i"),
    ]
    path = along(BM, x0, times, wanted, sg.EulerMaruyama())
    half = (path.states.square() - x0.square()).sum(2) / 2
    squares = torch.zeros_like(half)
    squares[1:] = path.states.diff(dim=0).square().sum(2).cumsum(0)
    torch.testing.assert_close(path.functionals["s"], half, rtol=0, atol=1e-13)
    torch.testing.assert_close(path.functionals["i"], half - squares / 2, rtol=0, atol=1e-13)
    # and the sum of squares is 2 σ² t within its spread, √(2 σ⁴ dt t) for each coordinate:
    # 50 paths, alarm beyond 5.3 of it is 1e-5 for all
    spread = 1.3**2 * math.sqrt(2 * 2 / 200)
    assert float((squares[-1] - 2 * 1.3**2).abs().max()) < 5.3 * spread


def test_the_sense_is_that_of_the_integral_for_multiplicative_noise():
    """dX = X dW, Itô: ∫ dX/X = W_t in the sense of Itô, ∫ ∘ dX/X = log X_t = W_t − t/2."""
    sde = sg.ItoProcess(lambda x: 0 * x, identity)
    wanted = [
        sg.StochasticIntegral(lambda x: 1 / x, word, name=word) for word in ("ito", "stratonovich")
    ]
    path = along(sde, torch.ones(2000, 1, dtype=F64), [0.0, 1.0], wanted, sg.EulerMaruyama(500))
    gap = path.functionals["stratonovich"][-1] - path.final[:, 0].log()
    assert float(gap.square().mean().sqrt()) < 0.01
    differ = path.functionals["ito"][-1] - path.functionals["stratonovich"][-1]
    # of each −dW²/2 + dt/2 … is left: spread √(t dt/2) = 0.032 over 2,000; alarm 1e-5
    assert float(differ.mean()) == pytest.approx(0.5, abs=4.42 * 0.032 / math.sqrt(2000) + 2e-3)


def test_a_time_integral_of_ornstein_uhlenbeck_has_its_gaussian_law():
    """From rest, k = σ²/2 = 1: ∫ X dt ~ N(0, 2(t − 1 + e^{−t})); chain and trapezoid to 1e-3."""
    t = 2.0
    x0 = torch.randn(N, 1, dtype=F64, generator=torch.Generator().manual_seed(1))
    one = sg.TimeIntegral(lambda x: x[:, 0])
    found = along(sg.OrnsteinUhlenbeck(1.0), x0, [0.0, t], [one], sg.Heun(100))
    values = found.functionals["time_integral"][-1]
    variance = 2 * (t - 1 + math.exp(-t))
    assert abs(float(values.mean())) < 4.42 * math.sqrt(variance / N)
    assert abs(float(values.var()) / variance - 1) < 4.42 * math.sqrt(2 / N) + 1e-3
    z = values.sort().values / math.sqrt(variance)
    cdf = torch.special.ndtr(z)
    ecdf = torch.arange(1, N + 1, dtype=F64) / N
    ks = float(torch.maximum((ecdf - cdf).abs(), (ecdf - 1 / N - cdf).abs()).max())
    assert math.sqrt(N) * ks < 2.470  # false alarm 1e-5


def test_time_integrals_are_exact_for_what_is_linear_in_time():
    several = sg.TimeIntegral(lambda x, t: torch.stack([t + 0 * x[:, 0], 1 + 0 * x[:, 0]], 1))
    path = along(BM, torch.zeros(3, 1, dtype=F64), [0.0, 0.5, 2.0], [several])
    values = path.functionals["time_integral"]
    assert values.shape == (3, 3, 2)
    expected = torch.tensor([[0.0, 0.0], [0.125, 0.5], [2.0, 2.0]], dtype=F64)
    torch.testing.assert_close(values, expected[:, None].expand(3, 3, 2), rtol=1e-12, atol=1e-13)
    # against time dt < 0
    back = along(sg.ItoProcess(lambda x: 0 * x, 0.0), torch.zeros(1, 1, dtype=F64), [1.0, 0.0],
                 [sg.TimeIntegral(lambda x: 1 + x[:, 0])])  # fmt: skip
    assert float(back.functionals["time_integral"][-1]) == pytest.approx(-1.0)


def test_on_a_ring_paths_go_on_the_line():
    ring, length = sg.ItoProcess(lambda x: 3 + 0 * x, 0.5), 1.0
    wanted = [
        sg.StochasticIntegral(lambda x: torch.ones_like(x), "ito"),
        sg.TimeIntegral(lambda x: (x[:, 0] >= 0.5).double(), unwrapped=False, name="half"),
        sg.TimeIntegral(lambda x: (x[:, 0] >= 0.5).double(), name="line"),
    ]
    path = along(
        ring, torch.full((200, 1), 0.2, dtype=F64), [0.0, 4.0], wanted, sg.EulerMaruyama(400),
        boundary=sg.Periodic(0.0, length),
    )  # fmt: skip
    moved = path.unwrapped[-1] - path.unwrapped[0]
    torch.testing.assert_close(path.functionals["stochastic_integral"][-1], moved[:, 0])
    assert float(moved.mean()) == pytest.approx(12, abs=0.5)
    assert float(path.functionals["half"][-1].mean()) == pytest.approx(2, abs=0.1)
    assert float(path.functionals["line"][-1].mean()) > 3.5


@pytest.mark.parametrize(
    ("h", "kind", "told"),
    [
        (lambda x: x[:, 0], ValueError, r"h must return x's shape \(2, 1\).*end it with \.resh"),
        (lambda x: x.sum(), ValueError, r"but returned shape \(\)"),
        (lambda x: None, TypeError, "h must return a tensor of floats.*returned None"),
        (lambda x: x > 0, TypeError, "a tensor of torch.bool"),
        (lambda t, x: x, TypeError, "h takes .t, x., time before the state"),
        (3.0, TypeError, "h must be a function"),
    ],
)
def test_wrong_functions_are_refused(h, kind, told):
    x0 = torch.zeros(4, 1, dtype=F64)
    with pytest.raises(kind, match=told):
        along(BM, x0, [0.0, 1.0], [sg.StochasticIntegral(h, "ito")])
    if not (callable(h) and "x's shape" in told):
        with pytest.raises(kind):
            along(BM, x0, [0.0, 1.0], [sg.TimeIntegral(h)])


def test_the_interpretation_must_be_said():
    with pytest.raises(TypeError, match="interpretation"):
        sg.StochasticIntegral(identity)
    with pytest.raises(ValueError, match="interpretation must be 'ito' or 'stratonovich'"):
        sg.StochasticIntegral(identity, "midpoint")


def test_a_middle_of_a_jump_is_refused():
    jumps = sg.JumpDiffusion(BM, sg.CompoundPoisson(1.0, lambda n, rng: torch.ones(n, 1)))
    times, x0 = [0.0, 0.5, 1.0], torch.zeros(4, 1, dtype=F64)
    with pytest.raises(ValueError, match="takes h before a jump: interpretation='ito'"):
        sg.simulate(
            jumps, x0, times, functionals=[sg.StochasticIntegral(identity, "stratonovich")]
        )
