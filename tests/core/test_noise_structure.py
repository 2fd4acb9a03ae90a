"""Noise is declared: a general one runs exactly, and is refused where g is read by coordinates."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.core.gradients import check_no_gradient
from sdegen.core.noise import Given
from sdegen.core.noise_structure import check_diagonal
from sdegen.engine.callables import validate_callables
from sdegen.engine.validation import Request

F64 = torch.float64
A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
L = torch.tensor([[0.7, 0.0], [-0.9, 0.5]], dtype=F64)
TIMES = torch.linspace(0.0, 1.0, 11, dtype=F64)
MOMENTS = {"observables": [sg.Moments()], "rng": 0, "progress": False}
X = torch.tensor([[1.0, -0.5], [0.2, 0.3], [0.0, 2.0], [1.5, 1.0]], dtype=F64)


class Correlated(sg.SDE):
    """dX = −A X dt + L dW in two dimensions."""

    noise = "additive"
    noise_structure = "general"
    autonomous = True

    def drift(self, x, t):
        return -x @ A.to(x).T

    def add_noise(self, after, x, t, root_dt, noise):
        return after + root_dt * noise.normal() @ L.to(x).T

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v @ (L @ L.T).to(x)


class WrongCovariance(Correlated):
    """The covariance of other noise."""

    def covariance_times(self, x, t, v, scale=1.0):
        return scale * v @ L.T.to(x)


def euler_covariance(steps, dt):
    """Of the chain itself: C' = (1 − A dt) C (1 − A dt)ᵀ + dt L Lᵀ."""
    step, c = torch.eye(2, dtype=F64) - dt * A, torch.zeros(2, 2, dtype=F64)
    for _ in range(steps):
        c = step @ c @ step.T + dt * L @ L.T
    return c


def test_euler_solves_correlated_noise():
    """Covariances against those of the chain, within 4.4 standard errors, and near Lyapunov's."""
    n, dt = 40_000, 0.05
    x0, solver = torch.zeros(n, 2, dtype=F64), sg.EulerMaruyama(substeps=160)
    x = sg.simulate(Correlated(), x0, [0.0, 8.0], rng=3, solver=solver).final
    expected, c = euler_covariance(160, dt), torch.cov(x.T, correction=0)
    spread = torch.outer(expected.diag(), expected.diag()) + expected.square()
    assert bool(((c - expected).abs() < 4.4 * (spread / n).sqrt()).all())
    assert float(expected[0, 1]) < -0.2  # what diagonal noise would miss
    # Lyapunov: A C + C Aᵀ = L Lᵀ, to which the chain converges with dt
    eye = torch.eye(2, dtype=F64)
    exact = torch.linalg.solve(torch.kron(A, eye) + torch.kron(eye, A), (L @ L.T).reshape(4))
    gaps = [
        float((euler_covariance(round(8 / h), h) - exact.reshape(2, 2)).abs().max())
        for h in (0.05, 0.025)
    ]
    assert 1.9 < gaps[0] / gaps[1] < 2.1


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_one_path_through_every_door(dtype):
    """simulate, integrate, blocks of an ensemble and gradients: the same step."""
    sde, x0 = Correlated(), X.to(dtype)
    path = sg.simulate(sde, x0, TIMES, rng=0)
    noise = sg.Noise(x0, rng=0)
    *_, by_hand = sg.integrate(sde, sg.EulerMaruyama(), x0, TIMES, noise)
    torch.testing.assert_close(by_hand, path.final)
    moments = sg.run_ensemble(sde, x0, TIMES, trajectories=4, **MOMENTS).observables["moments"]
    torch.testing.assert_close(moments.mean[-1], path.final.double().mean(0))
    start = x0.clone().requires_grad_()
    end = sg.simulate(sde, start, TIMES, rng=0, differentiable=True).final
    (slope,) = torch.autograd.grad(end.sum(), start)
    step = torch.eye(2, dtype=F64) - 0.1 * A
    expected = torch.ones(2, dtype=F64) @ torch.linalg.matrix_power(step, 10)
    torch.testing.assert_close(slope.double(), expected.expand(4, 2), rtol=1e-4, atol=1e-6)


GRID = sg.Grid(-3.0, 3.0, cells=40)
PASSAGE = sg.FirstPassage(above=1.5)


def run(**options):
    return sg.simulate(Correlated(), X, TIMES, rng=0, **options)


ROOMS = {
    "Heun": lambda: run(solver=sg.Heun()),
    "TorchSDE": lambda: run(solver=sg.TorchSDE("milstein")),
    "TorchSDE ": lambda: run(solver=sg.TorchSDE("srk")),
    "TorchSDE  ": lambda: run(solver=sg.TorchSDE("euler")),
    "AdaptiveHeun": lambda: run(solver=sg.AdaptiveHeun()),
    r"EulerMaruyama\(compile=True\)": lambda: run(solver=sg.EulerMaruyama(compile=True)),
    "boundary=": lambda: run(boundary={0: sg.Reflecting(-3.0, 3.0)}),
    "boundary= ": lambda: run(boundary={0: sg.Absorbing(-3.0, 3.0)}),
    "boundary=  ": lambda: run(boundary={0: sg.Periodic(-3.0, 3.0)}),
    "FokkerPlanck": lambda: sg.FokkerPlanck(Correlated(), GRID),
    "FokkerPlanckBatch": lambda: sg.FokkerPlanckBatch([Correlated()], GRID),
    "Grid.covering": lambda: sg.Grid.covering(Correlated()),
    "classify_boundary": lambda: sg.classify_boundary(Correlated(), 0.0),
    "ReverseSDE": lambda: sg.ReverseSDE(Correlated(), lambda x, t: -x),
    "ChainDensity": lambda: sg.ChainDensity(Correlated(), GRID, sg.EulerMaruyama()),
    "certify": lambda: sg.certify(Correlated(), GRID, 0.0, TIMES),
    r"FirstPassage\(bridge=True\)": lambda: sg.run_ensemble(
        Correlated(), X, TIMES, observables=[PASSAGE], trajectories=4, rng=0, progress=False
    ),
    r"diffusion\(x, t\)": lambda: Correlated().diffusion(X, TIMES[0]),
}


@pytest.mark.parametrize("room", ROOMS)
def test_general_noise_is_refused_by_name(room):
    with pytest.raises(ValueError, match=rf"{room.strip()} needs diagonal noise.*Correlated"):
        ROOMS[room]()


def test_likelihoods_need_the_density_at_the_end():
    with pytest.raises(
        (TypeError, ValueError), match="density at which its noising ends is not known: pass"
    ):
        sg.log_likelihood(Correlated(), lambda x, t: -x, X)


def test_general_noise_makes_no_pilot():
    """Its draws need not be those that two walks share; so no step error is told."""
    assert sg.simulate(Correlated(), X, TIMES, rng=0).step_error is None
    check_no_gradient(Correlated(), X, TIMES[0], "an answer")


def test_what_declares_by_half_is_refused_as_it_is_made():
    body = {"drift": lambda self, x, t: -x, "diffusion": lambda self, x, t: 0.1 + 0 * x}
    own = {"add_noise": Correlated.add_noise}
    covariance = {"covariance_times": Correlated.covariance_times}
    general, word = {"noise_structure": "general"}, {"noise_structure": "matrix"}
    for missing, said in (
        (body | own, "does not declare its structure"),
        (body | own | general, "define add_noise.* and covariance_times"),
        (body | covariance | general, "define add_noise.* and covariance_times"),
        (
            body | own | covariance | word,
            "must be 'diagonal', 'channels' or 'general', but Mine has 'matrix'",
        ),
    ):
        with pytest.raises(TypeError, match=said):
            type("Mine", (sg.SDE,), missing)
    made = type("Mine", (sg.SDE,), body | own | {"noise_structure": "diagonal"})
    check_diagonal(made(), "this test")
    # a subclass of what is declared keeps the declaration
    assert type("Other", (Correlated,), own)().noise_structure == "general"


def test_a_covariance_of_other_noise_is_refused():
    with pytest.raises(ValueError, match="covariance_times of WrongCovariance is not that of its"):
        sg.simulate(WrongCovariance(), X, TIMES, rng=0)
    constant = type("Constant", (Correlated,), {"constant_noise": 0.5})
    with pytest.raises(ValueError, match="its constant_noise must be None"):
        sg.simulate(constant(), X, TIMES, rng=0)
    deaf = type("Deaf", (Correlated,), {"add_noise": lambda self, after, x, t, dt, noise: after})
    with pytest.raises(ValueError, match="nothing of the z"):
        sg.simulate(deaf(), X, TIMES, rng=0)

    def triple(self, after, x, t, root_dt, noise):
        return after + 3 * root_dt * noise.normal()

    triple = {"add_noise": triple, "noise_structure": "diagonal"}
    with pytest.raises(ValueError, match=r"covariance_times of Triple .* it is 2 where .* is 18"):
        sg.simulate(type("Triple", (sg.BrownianMotion,), triple)(1.0), X, TIMES, rng=0)
    said = {"covariance_times": lambda self, x, t, v, scale=1.0: 9 * scale * v}
    with pytest.raises(ValueError, match=r"g² v of diffusion of Triple .* it is 2 where .* is 18"):
        sg.simulate(type("Triple", (sg.BrownianMotion,), triple | said)(1.0), X, TIMES, rng=0)
    wrong = {"covariance_times": lambda self, x, t, v, scale=1.0: (1 + x**2) * v}
    wrong["add_noise"] = lambda self, after, x, t, dt, noise: (
        after + dt * (1 + x**2).sqrt() * noise.normal()
    )
    with pytest.raises(ValueError, match="says noise = 'additive'"):
        sg.simulate(type("Claims", (Correlated,), wrong)(), X, TIMES, rng=0)


class MatrixOf(sg.SDE):
    """A subclass whose diffusion is a matrix, not declared."""

    noise = "additive"
    shape: ClassVar[tuple[int, ...]] = ()

    def drift(self, x, t):
        return -x

    def diffusion(self, x, t):
        d = x.shape[1]
        matrix = torch.eye(d, dtype=x.dtype) + 0.3
        return matrix if len(self.shape) == 0 else matrix.expand(len(x), d, d)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("d", [2, 4])
def test_a_matrix_that_is_not_declared_is_refused_at_every_batch_size(rows, d):
    """Also where it happens to broadcast: 4 × 4 with 4 trajectories."""
    matrix = torch.eye(d, dtype=F64) + 0.3
    x0 = torch.randn(rows, d, dtype=F64, generator=torch.Generator().manual_seed(rows))
    batched = type("Batched", (MatrixOf,), {"shape": (1,)})
    for make in (
        lambda: sg.ItoProcess(lambda x: -x, matrix),
        lambda: sg.ItoProcess(lambda x: -x, matrix.numpy()),
        lambda: sg.ItoProcess(lambda x: -x, matrix.tolist()),
        lambda: sg.ItoProcess(lambda x: -x, lambda x, t: matrix, noise="additive"),
        lambda: sg.ItoProcess(lambda x: -x, lambda x: matrix),
        lambda: sg.ItoProcess(lambda x: -x, lambda t: matrix),
        lambda: sg.ItoProcess(lambda x: -x, lambda x: matrix * x[:, :, None]),
        lambda: sg.ItoProcess(lambda x: -x, lambda x: matrix.expand(len(x), d, d)),
        lambda: sg.ItoProcess(lambda x: -x, lambda x: matrix.numpy()),
        lambda: sg.ItoProcess(lambda x: -x, lambda x: matrix.tolist()),
        MatrixOf,
        batched,
    ):
        for interacting in (False, True):
            with pytest.raises((TypeError, ValueError)):
                sg.simulate(make(), x0, TIMES, rng=0, interacting=interacting)
        with pytest.raises((TypeError, ValueError)):
            sg.run_ensemble(make(), x0, TIMES, trajectories=rows, **MOMENTS)


@pytest.mark.parametrize("d", [1, 2])
def test_a_matrix_is_refused_where_densities_and_reversals_read_g(d):
    matrix = torch.eye(2, dtype=F64) + 0.3
    sde = sg.ItoProcess(lambda x: -x, lambda x, t: matrix, noise="additive")
    small = sg.Grid(-3.0, 3.0, cells=16)
    density = sg.FokkerPlanck if d == 1 else sg.FokkerPlanck2D
    with pytest.raises((TypeError, ValueError)):
        density(sde, small if d == 1 else (small, small)).stationary()
    for rows in (1, 2, 3):
        x = torch.randn(rows, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
        reverse = sg.ReverseSDE(sde, lambda x, t: -x)
        with pytest.raises((TypeError, ValueError)):
            sg.simulate(reverse, x, TIMES.flip(0), rng=0)


def test_one_number_for_a_row_and_one_for_a_coordinate_are_no_matrices():
    one = np.sqrt(2.0)
    for g in (
        lambda x: torch.full((1, 4), one, dtype=F64),
        lambda x: torch.full((4,), one, dtype=F64),
        lambda x: torch.full((len(x), 1), one, dtype=F64),
        lambda x: torch.full_like(x, one),
        lambda x: torch.tensor(one, dtype=F64),
    ):
        sde = sg.ItoProcess(lambda x: -x, g)
        for rows in (1, 4, 5):
            x = torch.zeros(rows, 4, dtype=F64)
            end = sg.simulate(sde, x, TIMES, rng=0).final
            same = sg.simulate(sg.ItoProcess(lambda x: -x, math.sqrt(2.0)), x, TIMES, rng=0).final
            torch.testing.assert_close(end, same)


def test_the_covariance_of_diagonal_noise():
    """g² v and ∂g², for noise that is additive, for one g a row, and by autograd."""
    t, v = TIMES[3], torch.tensor([1.0, -2.0], dtype=F64).expand(4, 2)
    sde = sg.ItoProcess(lambda x: -x, lambda x: 0.5 * (1 + x**2))
    g = 0.5 * (1 + X**2)
    assert torch.equal(sde.covariance_times(X, t, v), g * g * v)
    assert torch.equal(sde.covariance_times(X, t, v, 0.625), (0.625 * g * g) * v)
    torch.testing.assert_close(sde.covariance_divergence(X, t), X * (1 + X**2))
    row = sg.ItoProcess(lambda x: -x, lambda x: 1 + x.square().sum(1, keepdim=True))
    torch.testing.assert_close(
        row.covariance_divergence(X, t), 4 * X * (1 + X.square().sum(1, keepdim=True))
    )
    additive = sg.ItoProcess(lambda x: -x, lambda t: 1 + t)
    assert torch.equal(additive.covariance_divergence(X, t), torch.zeros_like(X))
    mixed = sg.ItoProcess(lambda x: -x, lambda x: 1 + x.flip(1) ** 2)
    with pytest.raises(ValueError, match="mixes coordinates"):
        mixed.covariance_divergence(X, t)
    general = type("General", (Correlated,), {"noise": "multiplicative"})
    with pytest.raises(ValueError, match="define covariance_divergence"):
        general().covariance_divergence(X, t)


def _request(sde):
    return Request(sde, sg.EulerMaruyama(), X, TIMES, len(X), None, "raise", None)


def test_the_door_evaluates_general_noise_at_a_few_rows():
    """A batch that is not cut too; and a NaN in the covariance is told before the first step."""
    assert validate_callables(_request(Correlated()), whole=True) is False
    lost = {"covariance_times": lambda self, x, t, v, scale=1.0: v * torch.nan}
    with pytest.raises(ValueError, match="covariance_times is not finite"):
        validate_callables(_request(type("Lost", (Correlated,), lost)()), whole=False)
    z = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    added = Correlated().add_noise(torch.zeros_like(X), X, TIMES[0], 2.0, Given(z))
    torch.testing.assert_close(added, 2 * z @ L.T)
