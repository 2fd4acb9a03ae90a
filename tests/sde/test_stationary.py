"""Dynamics of a given law: drifts in closed form, Fokker–Planck on a line and a plane, paths."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
X = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1]], dtype=F64)


def quartic(x):
    return -(x**4) / 4 + x**2 / 2


def ring(x):
    """A double well in x, stretched and coupled to y."""
    return -((x[:, 0] ** 2 - 1) ** 2) / 2 - (x[:, 1] - 0.3 * x[:, 0]).square()


def test_drifts_are_those_of_the_formula():
    law = sg.GaussianMixture([0.4, 0.6], [[-1.0, 0.0], [1.0, 0.5]], stds=0.8)
    plain = sg.StationarySDE(law.log_prob)
    assert torch.allclose(plain.drift(X, ZERO), law.force(X), rtol=1e-12)
    assert plain.constant_noise == math.sqrt(2)
    assert torch.allclose(plain.stationary_score(X), law.force(X), rtol=1e-12)

    def M(x):
        return torch.stack([
            torch.stack([1 + x[:, 0] ** 2, 0.2 * x[:, 1]], 1),
            torch.stack([0.2 * x[:, 1], 2 + x[:, 1].sin()], 1),
        ], 1)  # fmt: skip

    def R(x):
        r = x[:, 0] * x[:, 1]
        return torch.stack([torch.stack([0 * r, r], 1), torch.stack([-r, 0 * r], 1)], 1)

    both = sg.StationarySDE(law.log_prob, M, R, channels=2)
    div_M = torch.stack([2 * X[:, 0] + 0.2, X[:, 1].cos()], 1)
    div_R = torch.stack([X[:, 0], -X[:, 1]], 1)
    force = law.force(X)[..., None]
    expected = ((M(X) + R(X)) @ force)[..., 0] + div_M + div_R
    assert torch.allclose(both.drift(X, ZERO), expected, rtol=1e-10)
    G = both.diffusion(X, ZERO)
    assert torch.allclose(G @ G.mT, 2 * M(X), rtol=1e-12)
    assert torch.allclose(both.covariance_divergence(X, ZERO), 2 * div_M, rtol=1e-10)
    for mobility, divergence in (
        (lambda x: 1 + x[:, 0] ** 2 + x[:, 1], torch.stack([2 * X[:, 0], 1 + 0 * X[:, 0]], 1)),
        (lambda x: 2 + x.sin() * x.flip(1), X.cos() * X.flip(1)),
    ):
        sde = sg.StationarySDE(law.log_prob, mobility)
        assert torch.allclose(sde.covariance_divergence(X, ZERO), 2 * divergence, rtol=1e-10)


@pytest.mark.parametrize("mobility", [0.7, lambda x: 0.5 + x**2 / (1 + x**2)], ids=["M", "M(x)"])
def test_on_a_line_the_law_is_at_rest(mobility):
    sde, grid = sg.StationarySDE(quartic, mobility), sg.Grid(-4.0, 4.0, 300)
    density = sg.FokkerPlanck(sde, grid).stationary()
    p = torch.exp(quartic(grid.nodes))
    expected = sg.Density(grid.nodes, p).normalized().p
    assert float((density.p - expected).abs().max()) < 1e-7
    assert float(sg.FokkerPlanck(sde, grid).current(density).abs().max()) < 1e-9


@pytest.mark.parametrize("turning", [False, True], ids=["R", "R(x)"])
def test_in_the_plane_it_rotates_and_leaves_the_law(turning):
    R = torch.tensor([[0.0, 1.5], [-1.5, 0.0]], dtype=F64)
    rotation = (lambda x: x[:, :1, None].sin() * R) if turning else R
    sde = sg.StationarySDE(ring, rotation=rotation)
    grids = (sg.Grid(-2.8, 2.8, 64), sg.Grid(-5.0, 5.0, 72))
    plane = sg.FokkerPlanck2D(sde, grids)
    density = plane.stationary()
    x, y = torch.meshgrid(grids[0].nodes, grids[1].nodes, indexing="ij")
    p = torch.exp(ring(torch.stack([x.flatten(), y.flatten()], 1))).reshape(x.shape)
    p = p / (p * density.weights).sum()
    assert float((density.p - p).abs().max() / p.max()) < 2e-3
    # J = ∇·(R p), R = ρ(x) [[0, 1], [−1, 0]]: (ρ ∂_y p, −∂_x (ρ p))
    rate = 1.5 * (x.sin() if turning else torch.ones_like(x))
    jx = -rate * p * 2 * (y - 0.3 * x)
    J = plane.current(density)
    assert float((J[0] - jx).abs().max() / jx.abs().max()) < 1e-3
    jy = -torch.gradient(rate * p, spacing=(grids[0].nodes,), dim=0)[0]
    assert float((J[1] - jy).abs().max() / jy.abs().max()) < 0.03


def test_in_three_dimensions_a_long_simulation_has_the_law():
    C = torch.tensor([[1.0, 0.3, 0.0], [0.3, 0.8, -0.2], [0.0, -0.2, 0.6]], dtype=F64)
    P = torch.linalg.inv(C)
    R = torch.tensor([[0.0, 1.0, -0.5], [-1.0, 0.0, 0.8], [0.5, -0.8, 0.0]], dtype=F64)
    sde = sg.StationarySDE(
        lambda x: -0.5 * ((x @ P.to(x)) * x).sum(1),
        lambda x: 0.6 + 0.2 * x[:, 0].sin(),
        lambda x: (1 + 0.3 * x[:, 1, None, None].cos()) * R.to(x),
    )
    x0 = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    x0 = x0 @ torch.linalg.cholesky(C).T
    x = sg.simulate(sde, x0, [0.0, 2.0], solver=sg.EulerMaruyama(200), rng=2, keep_path=False)
    S = torch.cov(x.final.T)
    size = ((C.diag()[:, None] * C.diag() + C**2) / len(x0)).sqrt()
    assert float(((S - C).abs() / size).max()) < 4.9
    assert float((x.final.mean(0).abs() / (C.diag() / len(x0)).sqrt()).max()) < 4.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotation": [[0.0, 1.0], [1.0, 0.0]]}, "rotation must be antisymmetric"),
        ({"rotation": [[0.5, 1.0], [-1.0, 0.0]]}, "rotation must be antisymmetric"),
        ({"mobility": -1.0}, "mobility must be positive"),
        ({"mobility": [[1.0, 2.0], [2.0, 1.0]]}, "mobility must be positive.* -1"),
        ({"mobility": [[1.0, 0.5], [0.0, 1.0]]}, "mobility must be symmetric"),
        ({"mobility": 1.0, "channels": 2}, "leave it out"),
    ],
    ids=["symmetric", "diagonal", "negative", "indefinite", "asymmetric", "channels"],
)
def test_what_leaves_no_law_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sg.StationarySDE(ring, **arguments)


def test_functions_that_return_something_else_are_refused():
    def at(**arguments):
        sg.StationarySDE(**({"log_density": ring} | arguments)).drift(X, ZERO)

    with pytest.raises(ValueError, match=r"log_density must return one number.*shape \(3, 1\)"):
        at(log_density=lambda x: -x.square().sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"log_density must return .*shape \(\)"):
        at(log_density=lambda x: -x.square().sum())
    with pytest.raises(TypeError, match="log_density must be a function"):
        sg.StationarySDE(1.0)
    with pytest.raises(ValueError, match="mobility must be > 0"):
        at(mobility=lambda x: x[:, 0])
    with pytest.raises(ValueError, match=r"pass channels=2"):
        at(mobility=lambda x: torch.eye(2, dtype=F64).expand(3, 2, 2))
    with pytest.raises(ValueError, match="row 1 it is"):
        at(mobility=lambda x: torch.diag_embed(x + 1), channels=2)
    with pytest.raises(ValueError, match="rotation must be antisymmetric"):
        at(rotation=lambda x: torch.ones(1, 2, 2, dtype=F64))
    with pytest.raises(ValueError, match="rotation has 3 rows"):
        at(rotation=torch.zeros(3, 3))
    for growing in (lambda x: x.square().sum(1), lambda x: -0.9 * (1 + x.square().sum(1)).log()):
        with pytest.raises(sg.NotNormalizableError, match="cannot be normalised"):
            sg.simulate(sg.StationarySDE(growing), X, [0.0, 0.1], rng=0)
    heavy = sg.StationarySDE(lambda x: -1.6 * (1 + x.square().sum(1)).log())  # of a finite mass
    sg.simulate(heavy, X, [0.0, 0.1], rng=0)
