"""An SDE with channels in every room: each takes it, and is right, or refuses it by name."""

import math

import pytest
import torch
from sdes import turning

import sdegen as sg
from sdegen.core.channels import are_correlated, deviation, times
from sdegen.core.fingerprint import to_spec
from sdegen.core.noise import stream
from sdegen.engine.compiled import _Noise

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
MATRIX = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], dtype=F64)
X = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1], [0.0, 2.0]], dtype=F64)
TIMES = torch.linspace(0.0, 1.0, 11, dtype=F64)
LINE = sg.Grid(-4.0, 4.0, cells=160)
OF_X = sg.ItoProcess(torch.sin, turning, channels=3)
MOMENTS = {"observables": [sg.Moments()], "rng": 0, "progress": False}


def path(**options):
    return sg.simulate(OF_X, X, TIMES, rng=0, **options)


REFUSED = {  # room: what it says, the name of what refuses first
    "a density on a line": (
        "FokkerPlanck is for one coordinate.* take FokkerPlanck2D",
        lambda: sg.FokkerPlanck(sg.ItoProcess(lambda x: -x, MATRIX, channels=3), LINE),
    ),
    "a family of densities": (
        "FokkerPlanckBatch is for one coordinate",
        lambda: sg.FokkerPlanckBatch([sg.ItoProcess(lambda x: -x, MATRIX, channels=3)], LINE),
    ),
    "a grid that covers": (
        "Grid.covering is for one coordinate",
        lambda: sg.Grid.covering(sg.ItoProcess(lambda x: -x, MATRIX, channels=3)),
    ),
    "an end": (
        "classify_boundary is for one coordinate",
        lambda: sg.classify_boundary(sg.ItoProcess(lambda x: -x, MATRIX, channels=3), 0.0),
    ),
    "a sampler": (
        "DDIM needs",
        lambda: sg.simulate(
            sg.ReverseSDE(OF_X, lambda x, t: -x), X, TIMES.flip(0), solver=sg.DDIM(), rng=0
        ),
    ),
    "a likelihood without the density at the end": (
        "the density at which its noising ends is not known: pass",
        lambda: sg.log_likelihood(OF_X, lambda x, t: -x, X),
    ),
    "an adaptive sampler": ("AdaptiveHeun", lambda: path(solver=sg.AdaptiveHeun())),
    "TorchSDE of several noises": (
        r"TorchSDE\('milstein'\) takes multiplicative noise of one",
        lambda: path(solver=sg.TorchSDE("milstein")),
    ),
    "a corner of absorbing ends": (
        r"coordinates \(0, 1\) have absorbing ends, and their noises, of ItoProcess, are corr",
        lambda: path(boundary=sg.Absorbing(-5.0, 5.0, coordinates="all")),
    ),
    "an absorbing end and a passage": (
        r"first_passage draws passages of coordinate 0 .* correlated with that of \[1\]",
        lambda: sg.run_ensemble(
            OF_X,
            X,
            TIMES,
            trajectories=4,
            observables=[sg.FirstPassage(above=3.0)],
            boundary={1: sg.Absorbing(-5.0, 5.0)},
            rng=0,
            progress=False,
        ),
    ),
    "one kind of end on each side": (
        r"Absorbing with Reflecting sends coordinates \(0,\) back one by one, but their noise",
        lambda: path(boundary={0: (sg.Reflecting(-5.0), sg.Absorbing(high=5.0))}),
    ),
    "a reflecting end without noise": (
        r"where the noise vanishes takes a step .* coordinates \(0, 1\) of ItoProcess is correl",
        lambda: sg.simulate(
            sg.ItoProcess(lambda x: 1 - x, lambda x: x[..., None], channels=1),
            X.abs() + 0.1,
            TIMES,
            rng=0,
            boundary=sg.Reflecting(0.0, coordinates="all"),
        ),
    ),
}


@pytest.mark.parametrize("room", REFUSED)
def test_rooms_that_refuse_say_so_by_name(room):
    message, run = REFUSED[room]
    with pytest.raises((TypeError, ValueError), match=message):
        run()


def two_noises(x):
    """One coordinate, two noises: g (cos a, sin a), whose law is that of g."""
    g, angle = 0.6 + 0.2 * x.cos(), 0.7 * x
    return torch.stack([g * angle.cos(), g * angle.sin()], -1)


FLAT = sg.ItoProcess(lambda x: -x, lambda x: 0.6 + 0.2 * x.cos(), interpretation="klimontovich")
TWO = sg.ItoProcess(lambda x: -x, two_noises, channels=2, interpretation="klimontovich")


ON_A_LINE = {
    "at rest": lambda sde: sg.FokkerPlanck(sde, LINE).stationary().p,
    "over time": lambda sde: sg.FokkerPlanck(sde, LINE).solve(0.5, [0.0, 0.3]).p[-1],
    "a passage": lambda sde: torch.as_tensor(
        sg.FokkerPlanck(sde, LINE, sg.Absorbing(-4.0, 4.0)).first_passage().mean
    ),
    "a family": lambda sde: sg.FokkerPlanckBatch([sde], LINE).stationary(),
    "the chain": lambda sde: (
        sg.ChainDensity(sde, LINE, sg.EulerMaruyama(5)).run(0.5, [0.0, 0.5]).final.p
    ),
    "a grid": lambda sde: sg.Grid.covering(sde).nodes[[0, -1]],
}


@pytest.mark.parametrize("answer", ON_A_LINE)
def test_two_noises_of_one_coordinate_are_one(answer):
    one, two = (torch.as_tensor(ON_A_LINE[answer](sde)) for sde in (FLAT, TWO))
    tolerance = 1e-3 if answer == "a grid" else 1e-8  # its points follow an adaptive walk
    torch.testing.assert_close(two, one, rtol=tolerance, atol=1e-12)


def test_ends_of_two_noises_are_those_of_one():
    root = sg.ItoProcess(
        lambda x: 0.2 - x, lambda x: torch.stack([0.6 * x.sqrt(), 0.8 * x.sqrt()], -1), channels=2
    )
    assert sg.classify_boundary(root, 0.0) == "regular"
    assert sg.classify_boundary(root, math.inf) == "natural"


@pytest.mark.slow
def test_a_certificate_of_two_noises():
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 2000, "rng": 0}
    certificate = sg.certify(TWO, LINE, 0.5, [0.0, 0.3], **options)
    assert certificate.passed
    wrong = sg.ItoProcess(lambda x: -x, lambda x: 1.4 * two_noises(x), channels=2)
    assert not sg.certify(TWO, LINE, 0.5, [0.0, 0.3], simulated=wrong, **options).passed


# Boundaries


def test_a_wall_of_correlated_noise_sends_back_along_the_conormal():
    """Brownian motion above x₀ = 0: x₁ − (C₁₀/C₀₀) x₀ is free, and independent of x₀ = |a + W|."""
    n, C = 40_000, MATRIX @ MATRIX.T
    slope = float(C[1, 0] / C[0, 0])
    x0 = torch.tensor([[0.2, 0.0]], dtype=F64).expand(n, 2).contiguous()
    sde = sg.ItoProcess(lambda x: 0 * x, MATRIX, channels=3)
    x = sg.simulate(
        sde, x0, [0.0, 2.0], rng=0, solver=sg.EulerMaruyama(4), boundary={0: sg.Reflecting(0.0)}
    ).final
    assert float(x[:, 0].min()) >= 0
    rest = x[:, 1] - slope * x[:, 0] + slope * 0.2
    variance = 2 * float(C[1, 1] - C[1, 0] ** 2 / C[0, 0])
    assert abs(float(rest.mean())) < 4.4 * math.sqrt(variance / n)
    assert abs(float(rest.var()) - variance) < 4.4 * variance * math.sqrt(2 / n)
    correlation = float(torch.corrcoef(torch.stack([rest, x[:, 0]]))[0, 1])
    assert abs(correlation) < 4.4 / math.sqrt(n)
    spread = 2 * float(C[0, 0])  # E|a + W| of a normal
    mean = math.sqrt(2 * spread / math.pi) * math.exp(-0.04 / (2 * spread))
    mean += 0.2 * math.erf(0.2 / math.sqrt(2 * spread))
    assert abs(float(x[:, 0].mean()) - mean) < 4.4 * math.sqrt(spread / n)


def test_a_wall_keeps_what_all_reactions_conserve():
    """A ⇌ B by one noise: x₀ + x₁ stays, also where a wall sends back."""
    sde = sg.ItoProcess(
        lambda x: torch.stack([x[:, 1] - x[:, 0], x[:, 0] - x[:, 1]], 1),
        torch.tensor([[0.7], [-0.7]], dtype=F64),
        channels=1,
    )
    x0 = torch.tensor([[0.1, 0.9]], dtype=F64).expand(500, 2).contiguous()
    run = sg.simulate(sde, x0, TIMES, rng=0, boundary=sg.Reflecting(0.0, coordinates="all"))
    assert float(run.states.min()) >= 0
    torch.testing.assert_close(run.states.sum(2), torch.ones_like(run.states[..., 0]))


def test_a_box_of_correlated_noise_is_uniform_at_rest():
    """No flux through any wall: started uniform, a square stays uniform, without correlations."""
    n, G = 20_000, torch.tensor([[0.5, 0.0], [0.3, 0.4]], dtype=F64)
    x0 = stream(1, "x").normal((n, 2), dtype=F64).mul(0.5**0.5).erf().add(1).div(2)
    sde = sg.ItoProcess(lambda x: 0 * x, G, channels=2)
    walls = sg.Reflecting(0.0, 1.0, coordinates="all")
    x = sg.simulate(sde, x0, [0.0, 1.0], rng=0, solver=sg.EulerMaruyama(150), boundary=walls).final
    correlation = float(torch.corrcoef(x.T)[0, 1])
    assert abs(correlation) < 4.4 / math.sqrt(n)
    assert bool(((x.mean(0) - 0.5).abs() < 4.4 * math.sqrt(1 / 12 / n)).all())


def test_an_absorbing_end_has_the_bridge_of_its_own_coordinate():
    """Survival below x₀ = 1 of a correlated Brownian motion, erf(1/√(2 C₀₀ t)), in few steps."""
    n, variance = 40_000, float((MATRIX @ MATRIX.T)[0, 0])
    sde = sg.ItoProcess(lambda x: 0 * x, MATRIX, channels=3)
    x0, t, ends = torch.zeros(n, 2, dtype=F64), 8.0, {0: sg.Absorbing(high=1.0)}
    options = {"solver": sg.EulerMaruyama(4), "rng": 0}
    absorbed = sg.simulate(sde, x0, [0.0, t], boundary=ends, **options).absorbed[-1]
    passage = sg.run_ensemble(
        sde,
        x0,
        [0.0, t],
        trajectories=n,
        observables=[sg.FirstPassage(above=1.0)],
        progress=False,
        **options,
    ).observables["first_passage"]
    survival = math.erf(1 / math.sqrt(2 * variance * t))
    error = 4.4 * math.sqrt(survival * (1 - survival) / n)
    assert abs(1 - float(absorbed.double().mean()) - survival) < error
    assert abs(float(passage.survival[-1]) - survival) < error


def test_ends_whose_noises_are_independent_are_taken():
    G = torch.tensor([[0.3, 0.4, 0.0], [0.0, 0.0, 0.2]], dtype=F64)
    sde = sg.ItoProcess(lambda x: -x, G, channels=3)
    assert not are_correlated(sde, X, ZERO, [0, 1], [0, 1])
    assert are_correlated(OF_X, X, ZERO, [0], [1])
    inside = 0.1 * X
    box = sg.Absorbing(-0.5, 0.5, coordinates="all")
    assert bool(sg.simulate(sde, inside, TIMES, rng=0, boundary=box).absorbed.any())
    # one that is correlated has no bridge
    ends = {0: sg.Absorbing(-0.5, 0.5), 1: sg.Absorbing(-0.5, 0.5, bridge=False)}
    flat = sg.ItoProcess(lambda x: -x, MATRIX, channels=3)
    assert bool(sg.simulate(flat, inside, TIMES, rng=0, boundary=ends).absorbed.any())


def test_a_positive_step_of_two_noises_is_that_of_one():
    """dx = (0.2 − x) dt + √x dW by two noises: the mean is that of the chain, and none is < 0."""
    n = 20_000
    x0 = torch.full((n, 1), 0.05, dtype=F64)
    sde = sg.ItoProcess(
        lambda x: 0.2 - x,
        lambda x: torch.stack([0.6 * x.clamp(min=0).sqrt(), 0.8 * x.clamp(min=0).sqrt()], -1),
        channels=2,
    )
    x = sg.simulate(
        sde, x0, [0.0, 1.0], rng=0, solver=sg.EulerMaruyama(20), boundary=sg.Reflecting(0.0)
    ).final
    mean = 0.2 + (0.05 - 0.2) * 0.95**20
    assert float(x.min()) >= 0
    assert abs(float(x.mean()) - mean) < 4.4 * float(x.std()) / math.sqrt(n)


def test_a_ring_of_channels():
    """Two angles that one noise drives, beside one of their own: turns are counted."""
    G = torch.tensor([[1.0, 0.5], [1.0, 0.0]], dtype=F64)
    sde = sg.ItoProcess(lambda x: x.sin(), G, channels=2)
    ring = sg.Periodic(0.0, 2 * math.pi, coordinates="all")
    run = sg.simulate(sde, X.remainder(2 * math.pi), TIMES, rng=0, boundary=ring)
    free = sg.simulate(sde, X.remainder(2 * math.pi), TIMES, rng=0)
    torch.testing.assert_close(run.unwrapped, free.states, rtol=1e-9, atol=1e-9)
    other = sg.ItoProcess(lambda x: x.sin(), lambda x: x[..., None], channels=1)
    with pytest.raises(ValueError, match="is no period of the diffusion"):
        sg.simulate(other, X.remainder(2 * math.pi), TIMES, rng=0, boundary=ring)


# Runs


def test_where_a_matrix_ends_is_told():
    root = sg.ItoProcess(lambda x: -x, lambda x: torch.diag_embed(x.sqrt()), channels=2)
    x0 = torch.full((200, 2), 0.05, dtype=F64)
    with pytest.raises(sg.NonFiniteError, match=r"diffusion is not finite beyond x = 0 in coord"):
        sg.simulate(root, x0, TIMES, rng=0)
    late = sg.ItoProcess(
        lambda x: -x, lambda x, t: turning(x) / (0.45 - t).sqrt()[None], channels=3
    )
    with pytest.raises(sg.NonFiniteError, match=r"The diffusion is \[nan"):
        sg.simulate(late, X, TIMES, rng=0)


def test_what_a_run_was_is_told_by_its_matrix():
    each = (MATRIX, MATRIX.clone(), 2 * MATRIX)
    one, same, other = (sg.ItoProcess(lambda x: -x, G, channels=3) for G in each)
    assert to_spec(one) == to_spec(same) != to_spec(other)
    fewer = sg.ItoProcess(lambda x: -x, MATRIX[:, :2], channels=2)
    assert to_spec(fewer)["channels"] == 2


def test_a_store_holds_the_same_bits_and_knows_its_matrix(tmp_path):
    x0, options = torch.zeros(60_000, 2), MOMENTS | {"trajectories": 60_000}
    sde = sg.ItoProcess(torch.sin, turning, channels=3, interpretation="stratonovich")
    times = [0.0, 0.05, 0.1]
    whole = sg.run_ensemble(sde, x0, times, **options)

    sg.run_ensemble(sde, x0, times, store=tmp_path / "run", **options)
    again = sg.run_ensemble(sde, x0, times, store=tmp_path / "run", resume=True, **options)
    for key in ("mean", "variance"):
        first, second = (getattr(r.observables["moments"], key) for r in (whole, again))
        assert torch.equal(first, second)
    other = sg.ItoProcess(torch.sin, lambda x: 2 * turning(x), channels=3)
    with pytest.raises(ValueError, match="holds another run"):
        sg.run_ensemble(other, x0, times, store=tmp_path / "run", resume=True, **options)


def test_gradients_reach_a_matrix():
    """∂/∂s of Σ x after ten steps of s G, through simulate, against a difference."""

    def end(s):
        sde = sg.ItoProcess(torch.sin, lambda x: s * turning(x), channels=3)
        return sg.simulate(sde, X, TIMES, rng=0, differentiable=True).final.sum()

    s, h = torch.tensor(0.8, dtype=F64, requires_grad=True), 1e-6
    (slope,) = torch.autograd.grad(end(s), s)
    with torch.no_grad():
        expected = (end(s + h) - end(s - h)) / (2 * h)
    assert float(slope) == pytest.approx(float(expected), rel=1e-6)


def test_observables_see_channels():
    """Moments, histogram, correlation and currents of an ensemble, against those of its states."""
    x0 = torch.zeros(4000, 2, dtype=F64)
    sde = sg.ItoProcess(lambda x: -x, MATRIX, channels=3)
    run = sg.run_ensemble(sde, x0, TIMES, trajectories=4000, **MOMENTS)
    states = sg.simulate(sde, x0, TIMES, rng=0).states
    torch.testing.assert_close(run.observables["moments"].mean, states.mean(1))


def test_a_sum_that_is_compiled_is_that_of_a_matrix_product(monkeypatch):
    z = stream(0, "z").normal((4, 3), dtype=F64)
    products = [times(G, z) for G in (turning(X), MATRIX[None])]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for G, product in zip((turning(X), MATRIX[None]), products, strict=True):
        torch.testing.assert_close(times(G, z), product)


def test_the_noise_of_compiled_runs_has_its_numbers_by_process():
    """Integers of a run, shape (pairs, 2, rows, m), however runs are cut; m numbers together."""
    z = torch.zeros(5, 3)
    cut, whole = (_Noise(z, stream(0, "z"), columns=True) for _ in range(2))
    first, second = whole.take(0, 8, 8), whole.take(0, 8, 8)
    assert first.shape == (4, 2, 5, 3)
    assert first.stride()[-2] == 1
    assert whole.zeros(8).stride() == first.stride()
    parts = torch.cat([cut.take(0, 4, 8)[:2], cut.take(0, 8, 8), cut.take(0, 4, 8)[:2]])
    assert torch.equal(parts, torch.cat([first, second]))


COMPILED = """
import torch
import sdegen as sg

M = torch.tensor([[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]])


def turned(x):
    c, s = x[:, :1, None].cos(), x[:, :1, None].sin()
    first, second, third = M.split(1, 1)
    return torch.cat([c * first - s * second, s * first + c * second, third + 0 * c], 2)


n, dt, steps = 20_000, 0.2, 2
sde, x0 = sg.ItoProcess(lambda x: -x, turned, channels=3), torch.zeros(n, 2)
solver = sg.EulerMaruyama(steps, compile=True)
runs = [sg.simulate(sde, x0, [0.0, dt * steps], rng=3, solver=solver).final for _ in range(2)]
assert torch.equal(*runs)
square, c = M @ M.T, torch.zeros(2, 2)
for _ in range(steps):
    c = (1 - dt) ** 2 * c + dt * square
error = ((torch.outer(c.diag(), c.diag()) + c.square()) / n).sqrt()
print(bool(((torch.cov(runs[0].T) - c).abs() < 4.4 * error).all()))
"""


@pytest.mark.slow
def test_compiled_runs_have_the_law_of_channels(programs):
    """Covariance of Euler's chain, G(x) turned, within 4.4 standard errors; the same bits again.

    In a process of its own: the run-time checks of the suite are not compiled with it.
    """
    assert programs.run(code=COMPILED).strip() == "True"


def test_the_strength_of_one_channel_keeps_its_sign():
    one = sg.ItoProcess(lambda x: -x, lambda x: -x[..., None], channels=1)
    assert torch.equal(deviation(one, X, ZERO), -X)
    root = deviation(OF_X, X, ZERO)
    torch.testing.assert_close(root.square(), turning(X).square().sum(-1))


def test_general_noise_has_a_residual_too():
    """ε = 0 for the score of dX = −X dt + L dW, of which only L Lᵀ v is known."""
    L = torch.tensor([[0.7, 0.0], [-0.9, 0.5]], dtype=F64)

    class Correlated(sg.SDE):
        noise = "additive"
        noise_structure = "general"

        def drift(self, x, t):
            return -x

        def add_noise(self, after, x, t, root_dt, noise):
            return after + root_dt * noise.normal() @ L.T

        def covariance_times(self, x, t, v, scale=1.0):
            return scale * v @ (L @ L.T)

    def score(x, t):  # covariance ½ (1 − e^{−2t}) L Lᵀ from the origin
        return -2 / (1 - torch.exp(-2 * t.reshape(-1, 1))) * x @ torch.linalg.inv(L @ L.T)

    t = torch.tensor(0.7, dtype=F64)
    assert float(sg.fp_residual(score, Correlated(), X, t).abs().max()) < 1e-9
    assert (
        float(sg.fp_residual(lambda x, t: 1.2 * score(x, t), Correlated(), X, t).abs().max()) > 0.1
    )
