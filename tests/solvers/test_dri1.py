"""DRI1: orders by the exact moments of its chain, for every structure of noise it takes."""

import math

import numpy as np
import pytest
import torch
from exact import (
    geometric_errors,
    moments_of_linear_chain,
    moments_of_linear_sde,
    slope,
    strong_error_ou,
)

import sdegen as sg
from sdegen.engine import half_steps
from sdegen.solvers.dri1 import _crossed

F64 = torch.float64
F = torch.tensor([[-0.7, 0.5], [-0.4, -0.9]], dtype=F64)
# three matrices, no two of which commute
B = torch.tensor(
    [[[0.3, 0.4], [-0.2, 0.1]], [[0.2, 0.5], [0.4, -0.3]], [[-0.3, 0.2], [0.5, 0.35]]], dtype=F64
)
STEPS = (8, 16, 32, 64)
EYE = torch.eye(2, dtype=F64)


def homogeneous(matrix, constant=None):
    """The matrix on (x, 1)."""
    whole = torch.zeros(3, 3, dtype=F64)
    whole[:2, :2] = matrix
    if constant is not None:
        whole[:2, 2] = constant
    return whole


def errors_of(solver, sde, drift, noises, draws):
    """Errors of the first and second moments at t = 1, a row for each number of steps."""
    exact = moments_of_linear_sde(drift, noises, 1.0)
    rows = []
    for n in STEPS:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        chain = moments_of_linear_chain(solver, sde, nodes, 2, draws)
        rows.append([float((c - e).abs().max()) for c, e in zip(chain, exact, strict=True)])
    return np.array(rows)


def linear(x):
    return x @ F.T


def columns(x):
    """B_k x, shape (batch, 2, 3)."""
    return torch.einsum("kij,nj->nik", B, x)


@pytest.mark.parametrize("interpretation", ["ito", "stratonovich"])
def test_weak_order_two_with_three_processes_that_do_not_commute(interpretation):
    """d = 2, m = 3: second moments at t = 1 against the matrix of the generator."""
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert float((B[i] @ B[j] - B[j] @ B[i]).abs().max()) > 0.1
    sde = sg.ItoProcess(linear, columns, channels=3, interpretation=interpretation)
    drift = F + 0.5 * sum(b @ b for b in B) if interpretation == "stratonovich" else F
    errors = errors_of(sg.DRI1(), sde, homogeneous(drift), [homogeneous(b) for b in B], 3)
    h = [1 / n for n in STEPS]
    assert slope(h, errors[:, 0]) == pytest.approx(3.0, abs=0.1)  # Kutta's, without noise
    assert slope(h, errors[:, 1]) == pytest.approx(2.0, abs=0.1)
    assert errors[-1, 1] < 1e-5  # of moments of size 1
    # the limit: what Richardson leaves is of third order
    exact = moments_of_linear_sde(homogeneous(drift), [homogeneous(b) for b in B], 1.0)[1]
    grids = [torch.linspace(0, 1, n + 1, dtype=F64) for n in STEPS[-2:]]
    coarse, fine = (moments_of_linear_chain(sg.DRI1(), sde, g, 2, 3)[1] for g in grids)
    assert float(((4 * fine - coarse) / 3 - exact).abs().max()) < 2e-7


SCALES = torch.tensor([0.5, 0.8], dtype=F64)
S = B[0]
OTHERS = {
    "one process, two coordinates": (lambda x: (x @ S.T)[..., None], 1, [S]),
    "diagonal": (
        lambda x: SCALES * x,
        None,
        [SCALES[k] * torch.outer(EYE[k], EYE[k]) for k in (0, 1)],
    ),
    "diagonal that mixes": (lambda x: x @ S.T, None, [torch.outer(EYE[k], S[k]) for k in (0, 1)]),
    "a number for each trajectory": (
        lambda x: 0.5 * x.sum(1, keepdim=True),
        None,
        [0.5 * torch.outer(EYE[k], torch.ones(2, dtype=F64)) for k in (0, 1)],
    ),
    "processes that commute": (
        lambda x: torch.stack([x @ S.T, x @ (S @ S).T], -1),
        2,
        [S, S @ S],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_weak_order_two_for_every_structure(name):
    noise, channels, matrices = OTHERS[name]
    sde = sg.ItoProcess(linear, noise, channels=channels)
    errors = errors_of(
        sg.DRI1(), sde, homogeneous(F), [homogeneous(b) for b in matrices], channels or 2
    )
    h = [1 / n for n in STEPS]
    assert slope(h, errors[:, 1]) == pytest.approx(2.0, abs=0.1)
    assert errors[-1, 1] < 1e-5


@pytest.mark.parametrize(
    ("dtype", "g"),
    [
        (torch.float32, lambda x, t: (1 + x.flip(-1) ** 2).sqrt()),
        (F64, lambda x, t: 0.5 + t * x.flip(-1)),
    ],
)
def test_diagonal_noise_that_mixes_is_seen_from_special_states_and_times(dtype, g):
    # at x = 0, and at t = 0, neither has a slope; written with channels it is the same noise
    ends = [
        sg.simulate(
            sg.ItoProcess(lambda x: -x, noise, channels=m), torch.zeros(500, 2, dtype=dtype),
            [0.0, 0.5, 1.0], solver=sg.DRI1(), rng=0,
        ).final
        for noise, m in ((g, None), (lambda x, t: torch.diag_embed(g(x, t)), 2))
    ]  # fmt: skip
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("channels", [None, 3])
def test_weak_order_two_for_noise_of_time(channels):
    """G(t), G(1 + t²), by the exact integral of e^{F(1−t)} G Gᵀ e^{Fᵀ(1−t)}."""
    G = torch.tensor([[0.5, 0.0, 0.2], [-0.3, 0.4, 0.6]], dtype=F64) if channels else SCALES

    def noise(t):
        return (1 + t * t) * G

    sde = sg.ItoProcess(linear, noise, channels=channels)
    assert sde.noise == "additive"
    z, w = np.polynomial.legendre.leggauss(20)
    exact = torch.zeros(2, 2, dtype=F64)
    for t, weight in zip(0.5 * (1 + z), 0.5 * w, strict=True):
        g = torch.matrix_exp(F * (1 - t)) @ (noise(t) if channels else torch.diag(noise(t)))
        exact += weight * g @ g.T
    errors = []
    for n in STEPS:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        _, second = moments_of_linear_chain(sg.DRI1(), sde, nodes, 2, channels or 2)
        start = torch.tensor([0.0, 0.0, 1.0], dtype=F64)  # x = 0, and the constant 1
        covariance = (second @ torch.kron(start, start)).reshape(3, 3)[:2, :2]
        errors.append(float((covariance - exact).abs().max()))
    assert slope([1 / n for n in STEPS], errors) == pytest.approx(2.0, abs=0.1)
    assert errors[-1] < 5e-5


def test_order_three_on_a_flow_and_the_right_limit():
    """x' = x − x³ with its closed form."""
    ode = sg.ItoProcess(lambda x: x - x**3, 0.0)
    x0 = torch.tensor([[0.3], [1.7]], dtype=F64)
    exact = x0 / (x0**2 + (1 - x0**2) * math.exp(-2)).sqrt()
    errors, steps = [], (64, 128, 256)
    for n in steps:
        nodes = torch.linspace(0, 1, n + 1, dtype=F64)
        errors.append(float(([*sg.integrate(ode, sg.DRI1(), x0, nodes)][-1] - exact).abs().max()))
    assert slope([1 / n for n in steps], errors) == pytest.approx(3.0, abs=0.1)
    assert errors[-1] < 1e-7


def test_strong_order_one_where_noise_commutes():
    steps = [16, 32, 64, 128]
    additive = [strong_error_ou(sg.DRI1(), n) for n in steps]
    assert slope([1 / n for n in steps], additive) == pytest.approx(1.0, abs=0.05)
    coarsenings = [8, 16, 32]
    errors = geometric_errors(sg.DRI1(), coarsenings, paths=1000)
    assert slope(coarsenings, errors) == pytest.approx(1.0, abs=0.1)
    assert errors[0] < 3e-3


def test_strong_order_one_half_where_it_does_not():
    """On one Brownian path, against steps 16 times as short."""
    sde = sg.ItoProcess(linear, columns, channels=3)
    path = sg.BrownianPath(0, torch.linspace(0, 1, 257, dtype=F64))
    x0 = torch.ones(300, 2, dtype=F64)

    def end(n):
        times = torch.linspace(0, 1, n + 1, dtype=F64)
        run = sg.simulate(sde, x0, times, solver=sg.DRI1(), brownian=path, keep_path=False)
        return run.final

    reference = end(256)
    errors = [float((end(n) - reference).square().mean().sqrt()) for n in (4, 8, 16)]
    # 300 paths of 2: each error to 5 %
    assert slope([1 / 4, 1 / 8, 1 / 16], errors) == pytest.approx(0.5, abs=0.12)
    assert errors[-1] < 0.15


def test_double_integrals_have_the_moments_of_weak_order_two():
    """E[J_kl J_k'l'] = δδ/2, with z_k z_l as the true ones; one sign for a pair would not do."""
    one = [(z + side, w / 2) for z, w in ((0.0, 2 / 3), (1.75, 1 / 6), (-1.75, 1 / 6))
           for side in (1e-12, -1e-12)]  # fmt: skip
    values, weights = (torch.tensor(v, dtype=F64) for v in zip(*one, strict=True))
    grid = torch.cartesian_prod(values, values, values)
    weight = torch.cartesian_prod(weights, weights, weights).prod(1)
    square = float((weight * grid[:, 0] ** 2).sum())
    units = torch.eye(3, dtype=F64)[:, None]  # D_l along coordinate l: what is summed is J_kl
    J = torch.cat([*_crossed(units, grid.T[:, :, None])], 1)
    mean = weight @ J
    assert float(mean.abs().max()) < 1e-12
    second = torch.einsum("n,na,nb->ab", weight, J, J)
    pairs = [(k, l) for k in range(3) for l in range(3)]  # noqa: E741
    for a, (k, l) in enumerate(pairs):  # noqa: E741
        for b, (i, j) in enumerate(pairs):
            same = 0.25 * (square**2 + 1) if (k, l) == (i, j) else 0.0
            other = 0.25 * (square**2 - 1) if (k, l) == (j, i) else 0.0
            expected = same + other if k != l and i != j else 0.0
            assert float(second[a, b]) == pytest.approx(expected, abs=1e-11)
            # J_kl z_k z_l = ½, J with other products 0
            product = float((weight * J[:, a] * grid[:, i] * grid[:, j]).sum())
            matches = k != l and {k, l} == {i, j}
            assert product == pytest.approx(0.5 * square**2 * matches, abs=1e-11)


def test_the_sign_of_a_normal_is_independent_of_its_moments():
    """E[χ zᵏ] by the midpoint rule within each cell of ¼."""
    n = 2**14
    z = (torch.arange(-10 * n, 10 * n, dtype=F64) + 0.5) / n
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / n
    sign = 1 - 2 * torch.remainder(torch.floor(4 * z), 2)
    for k in range(7):
        assert abs(float((sign * z**k * density).sum())) < 1e-9
    assert float((sign * density)[z > 0].sum()) != 0.0  # it is of one normal and no other number


def test_columns_are_asked_four_times_each():
    calls = []

    class Asked(sg.SDE):
        channels = 3
        autonomous = True

        def drift(self, x, t):
            return linear(x)

        def diffusion(self, x, t):
            calls.append("G")
            return columns(x)

        def diffusion_column(self, x, t, k):
            calls.append(k)
            return x @ B[k].T

    x = torch.ones(5, 2, dtype=F64)
    own = [*sg.integrate(Asked(), sg.DRI1(), x, [0.0, 0.1], sg.Noise(x, 0, channels=3))][-1]
    assert [calls.count(k) for k in range(3)] == [5, 5, 5]
    assert calls.count("G") == 1
    written = sg.ItoProcess(linear, columns, channels=3)
    same = [*sg.integrate(written, sg.DRI1(), x, [0.0, 0.1], sg.Noise(x, 0, channels=3))][-1]
    torch.testing.assert_close(own, same, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_noise_that_mixes_coordinates_is_seen_from_a_start_where_it_does_not_show(dtype):
    """g = 1 + x₁x₂ at x = 0; g_i of x_i alone is not mistaken for it."""
    x = torch.zeros(3, 2, dtype=dtype)
    nodes = torch.tensor([0.0, 0.1, 0.2], dtype=F64)
    for noise, mixed in (
        (lambda x: 1 + x.prod(1, keepdim=True).expand_as(x), True),
        (lambda x: 1 + x * x, False),
    ):
        sde = sg.ItoProcess(lambda x: -x, noise)
        memory = sg.DRI1().begin(sde, nodes)
        _, memory = sg.DRI1().step(sde, x, 0, sg.Noise(x, 0), memory)
        assert memory.is_mixed is mixed


def test_parameters_of_trajectories_and_blocks_and_float32():
    """Each trajectory with its own noise, in two blocks, is what it is alone."""
    k = torch.linspace(0.1, 0.5, 300, dtype=torch.float32)[:, None]

    def sde(k):
        return sg.ItoProcess(
            lambda x, k: -x,
            lambda x, k: torch.stack([k * x, 0.3 * x.flip(1)], -1),
            channels=2,
            parameters={"k": k},
        )

    x0, times = torch.ones(300, 200), [0.0, 0.1, 0.2]
    run = sg.simulate(sde(k), x0, times, solver=sg.DRI1(), rng=3)
    assert run.states.dtype == torch.float32
    assert bool(run.states.isfinite().all())
    first = sg.simulate(sde(k[:256]), x0[:256], times, solver=sg.DRI1(), rng=3)
    assert torch.equal(run.states[:, :256], first.states)


def test_a_reflecting_boundary_keeps_it_inside():
    sde = sg.ItoProcess(lambda x: -x, lambda x: 0.5 * (1 + 0.1 * x**2))
    x0, walls = torch.zeros(500, 1, dtype=F64), sg.Reflecting(-0.5, 0.5)
    run = sg.simulate(sde, x0, torch.linspace(0, 2, 41), solver=sg.DRI1(), boundary=walls, rng=0)
    assert float(run.states.abs().max()) <= 0.5
    assert 0.2 < float(run.final.std()) < 0.35  # ½/√3 = 0.29 without a drift


def test_the_pilot_sees_steps_that_are_too_large_and_names_those_that_do(monkeypatch):
    monkeypatch.setattr(half_steps, "_SECONDS", 60.0)  # of a pilot, on a machine that is busy
    sde = sg.ItoProcess(lambda x: -100 * x, lambda x: 1 + 0.1 * torch.sin(x))
    x0 = torch.ones(50, 1, dtype=F64)
    with pytest.raises(ValueError, match=r"steps of 0\.1 are too large .* substeps="):
        sg.simulate(sde, x0, torch.linspace(0, 2, 21), solver=sg.DRI1(), rng=0)


def test_general_noise_is_refused():
    class General(sg.SDE):
        noise_structure = "general"

        def drift(self, x, t):
            return -x

        def add_noise(self, after, x, t, root_dt, noise):
            return after + root_dt * noise.normal() * x.norm(dim=1, keepdim=True)

        def covariance_times(self, x, t, v, scale=1.0):
            return scale * x.square().sum(1, keepdim=True) * v

    with pytest.raises(ValueError, match="DRI1 needs diagonal noise or channels"):
        sg.simulate(General(), torch.ones(4, 2), [0.0, 0.1], solver=sg.DRI1(), rng=0)
