"""Entropy production against closed forms: circulations, temperatures, velocities, and at rest."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov

import sdegen as sg
from sdegen.core.dissipation import dissipation, edge_dissipation
from sdegen.core.noise import stream
from tests import exact

F64 = torch.float64
OFF = 4.9  # standard errors: 1e-6 each


def normal(*shape, rng=0):
    return stream(rng, "test").normal(shape, dtype=F64)


class Linear(sg.SDE):
    """dX = −A X dt + G dW, with G diagonal or a matrix."""

    noise = "additive"

    def __init__(self, A, g):
        self.A, self.g = torch.as_tensor(A, dtype=F64), torch.as_tensor(g, dtype=F64)
        if self.g.ndim == 2:
            self.channels, self.noise_structure = self.g.shape[1], "channels"

    def drift(self, x, t):
        return -x @ self.A.T

    def diffusion(self, x, t):
        return self.g[None]

    @property
    def covariance(self):
        g = self.g if self.g.ndim == 2 else torch.diag(self.g)
        return torch.from_numpy(solve_continuous_lyapunov(self.A.numpy(), (g @ g.T).numpy()))

    def at_rest(self, n, rng=0):
        """Samples at rest, their exact score and log-density (of any mass)."""
        root, inverse = torch.linalg.cholesky(self.covariance), torch.linalg.inv(self.covariance)
        x = normal(n, len(self.A), rng=rng) @ root.T
        return x, lambda x, t: -x @ inverse, lambda x, t: -0.5 * ((x @ inverse) * x).sum(1)


def rotation(k=1.0, w=2.0, D=0.5):
    return Linear([[k, w], [-w, k]], [math.sqrt(2 * D)] * 2)


def gyrator(hot=3.0, cold=1.0, turn=0.0):
    """Two coordinates that a spring joins, each with a temperature; noise turned as G R is one."""
    c, s = math.cos(turn), math.sin(turn)
    g = np.diag([math.sqrt(2 * hot), math.sqrt(2 * cold)]) @ np.array([[c, -s], [s, c]])
    return Linear([[1.5, -0.8], [-0.8, 1.1]], g if turn else np.diag(g).copy())


def by_heat(sde, temperatures):
    """σ = Σ −Q̇_i/T_i with Q̇_i = −⟨f_i ∘ dx_i⟩/dt: from the antisymmetric part of A Σ."""
    C, A = sde.covariance, sde.A
    # ⟨f_i ∘ ẋ_i⟩ = ½ (A (A C − C Aᵀ))_ii
    power = 0.5 * (A @ (C @ A.T - A @ C)).diagonal()
    return float((power / torch.tensor(temperatures, dtype=F64)).sum())


def within(result, answer, slack=0.0):
    assert abs(result.rate - answer) < OFF * result.error + slack, (result.rate, answer)
    assert result.error < 0.1 * abs(answer) + 1e-9


def test_the_formula_is_that_of_a_current_over_its_noise():
    nu, D = (
        torch.tensor([[1.0, 2.0]], dtype=F64),
        torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=F64),
    )
    # D⁻¹ = [[1, −1], [−1, 2]]
    assert float(dissipation(nu, D[None])) == pytest.approx(1 - 4 + 8, rel=1e-14)
    assert float(dissipation(nu, torch.tensor([[2.0, 4.0]], dtype=F64))) == pytest.approx(1.5)
    # an edge is a one-dimensional cell: F A = J² h/(D p) where both ends have nearly one p
    there, back = torch.tensor([1.001], dtype=F64), torch.tensor([1.0], dtype=F64)
    sigma = edge_dissipation(there - back, (there / back).log())
    assert sigma == pytest.approx(1e-6, rel=1e-3)


def test_a_rotation_in_a_trap_makes_two_omega_squared_over_k():
    sde = rotation()
    x, score, log_p = sde.at_rest(20_000)
    found = sg.entropy_production(sde, x, score)
    within(found, 8.0)
    assert found.step_error is None
    # of each: ω² |x|²/D
    torch.testing.assert_close(found.each, 8.0 * x.square().sum(1))
    path = sg.simulate(sde, x[:3000], torch.linspace(0, 1, 41), solver=sg.Heun(substeps=4), rng=1)
    moving = sg.entropy_production(sde, path)
    within(moving, 8.0, 2 * moving.step_error)
    whole = sg.entropy_production(sde, path, log_density=log_p)
    within(whole, 8.0, 2 * whole.step_error)
    assert "standard error" in str(moving.trust())


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_two_temperatures_make_entropy_by_the_heat_that_flows(turn):
    sde = gyrator(turn=turn)
    answer = by_heat(sde, [3.0, 1.0])
    drive = -sde.A + torch.diag(torch.tensor([3.0, 1.0], dtype=F64)) @ torch.linalg.inv(
        sde.covariance
    )
    other = torch.trace(
        drive.T @ torch.diag(torch.tensor([1 / 3, 1.0], dtype=F64)) @ drive @ sde.covariance
    )
    assert answer == pytest.approx(float(other), rel=1e-12)
    x, score, log_p = sde.at_rest(20_000)
    within(sg.entropy_production(sde, x, score), answer)
    path = sg.simulate(sde, x[:4000], torch.linspace(0, 2, 81), solver=sg.Heun(substeps=4), rng=1)
    found = sg.entropy_production(sde, path, log_density=log_p)
    within(found, answer, 2 * found.step_error)
    # Seifert's integral fluctuation theorem, which holds of the whole entropy alone
    weights = torch.exp(-found.each)
    assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / 4000**0.5 + 0.01
    assert sg.entropy_production(sde, path).rate != found.rate


@pytest.mark.filterwarnings("ignore:the stored states are too far apart")
def test_along_a_path_it_is_the_entropy_of_the_medium_and_of_the_system():
    """What `MediumEntropy` adds up along stored states is the same sum, less Δ log p."""
    sde = gyrator(turn=0.7)
    x, _, log_p = sde.at_rest(50)
    path = sg.simulate(sde, x, torch.linspace(0, 1, 21), solver=sg.Heun(), rng=1)
    medium = sg.MediumEntropy().along(path, sde)[-1]
    whole = sg.entropy_production(sde, path, log_density=log_p).each
    change = log_p(path.states[-1], None) - log_p(path.states[0], None)
    torch.testing.assert_close(whole, medium - change, rtol=1e-11, atol=1e-12)
    assert sg.entropy_production(sde, path).each.tolist() == pytest.approx(medium.tolist())


def test_a_density_of_phase_space_makes_what_its_samples_make():
    """N(0, diag(s_x, s_v)) with m s_v ≠ T: σ = (mγ/T) s_v (1 − T/(m s_v))²."""
    gamma, T, m, s_x, s_v = 0.9, 0.8, 1.5, 0.7, 0.9
    sde = sg.UnderdampedLangevin(sg.Quadratic(), friction=gamma, temperature=T, mass=m)
    answer = m * gamma / T * s_v * (1 - T / (m * s_v)) ** 2
    x, v = sg.Grid(-6.0, 6.0, 64), sg.Grid(-5.5, 5.5, 96)
    p = torch.outer(x.gaussian(0.0, s_x**0.5).p, v.gaussian(0.0, s_v**0.5).p)
    solver = sg.FokkerPlanck2D(sde, (x, v))
    by_grid = solver.entropy_production(sg.PlaneDensity(x.nodes, v.nodes, p))
    assert float(by_grid) == pytest.approx(answer, rel=1e-6)
    z = normal(40_000, 2, 1) * torch.tensor([s_x, s_v], dtype=F64).sqrt()[:, None]
    width = torch.tensor([s_x, s_v], dtype=F64)[:, None]
    within(sg.entropy_production(sde, z, lambda z, t: -z / width), answer)


def test_at_equilibrium_nothing_is_made():
    sde = gyrator(hot=1.0)
    x, score, log_p = sde.at_rest(1000)
    assert sg.entropy_production(sde, x, score).rate < 1e-24
    path = sg.simulate(sde, x, torch.linspace(0, 1, 41), solver=sg.Heun(), rng=1)
    # the midpoint sum of a gradient of second degree is its difference: nothing is left at all
    found = sg.entropy_production(sde, path, log_density=log_p)
    assert float(found.each.abs().max()) < 1e-11


def test_a_density_away_from_rest_makes_what_it_loses():
    """N(0, s) in the trap k, D: σ = (k s − D)²/(D s)."""
    k, D, s = 1.5, 0.4, 0.9
    sde = sg.ItoProcess(lambda x: -k * x, math.sqrt(2 * D))
    x = normal(20_000, 1) * math.sqrt(s)
    within(sg.entropy_production(sde, x, lambda x, t: -x / s), (k * s - D) ** 2 / (D * s))


def test_multiplicative_noise_counts_its_divergence():
    """D(x) = 1 + x²/4 with f = ∇·D − D U′ rests at e^{−U}; a force F more makes F²⟨1/D⟩."""

    def g(x):
        return (2 + x**2 / 2).sqrt()

    def drift(force):
        return lambda x: x / 2 - (1 + x**2 / 4) * x + force

    x = normal(40_000, 1)
    still = sg.entropy_production(sg.ItoProcess(drift(0.0), g), x, lambda x, t: -x)
    assert still.rate < 1e-20
    pushed = sg.entropy_production(sg.ItoProcess(drift(0.6), g), x, lambda x, t: -x)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    answer = 0.36 * float((weights / (1 + nodes**2 / 4)).sum() / math.sqrt(2 * math.pi))
    within(pushed, answer)
    path = sg.simulate(sg.ItoProcess(drift(0.0), g), x[:2000], torch.linspace(0, 1, 201), rng=3)
    whole = sg.entropy_production(
        sg.ItoProcess(drift(0.0), g), path, log_density=lambda x, t: -0.5 * x[:, 0] ** 2
    )
    assert abs(whole.rate) < OFF * whole.error + 2 * whole.step_error + 0.01


def test_a_tilted_landscape_makes_force_times_velocity_over_temperature():
    force, D = 2.5, 0.8
    velocity, _ = exact.washboard(force, D)
    sde = sg.ItoProcess(lambda x: force + 2 * torch.cos(x), math.sqrt(2 * D))
    ring = sg.Periodic(0.0, 2 * math.pi)
    x0 = 2 * math.pi * torch.rand(1500, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    times = torch.linspace(0, 10, 601)
    path = sg.simulate(sde, x0, times, rng=1, boundary=ring)
    late = sg.Trajectory(
        times=path.times[200:],
        states=path.states[200:],
        nfe=path.nfe,
        seed=1,
        nonfinite=path.nonfinite,
        windings=path.windings[200:],
        periods=path.periods,
    )
    found = sg.entropy_production(sde, late)
    within(found, force * velocity / D, 2 * found.step_error)
    assert found.step_error < 0.02 * found.rate
    solver = sg.FokkerPlanck(sde, sg.Grid(0.0, 2 * math.pi, 256), "periodic")
    rest = solver.stationary()
    by_grid = solver.entropy_production(rest)
    assert by_grid == pytest.approx(force * velocity / D, rel=1e-6)
    # samples with the score of the solver: D ∂ log p = f − J/p
    current = float(solver.current(rest).mean())
    inside = path.states[-1]
    score = lambda x, t: (force + 2 * x.cos() - current / rest.at(x)) / D  # noqa: E731
    within(sg.entropy_production(sde, inside, score), float(by_grid))


class Swirl(sg.Potential):
    """A trap of strength k whose force also turns by ω: no potential has it."""

    def __init__(self, k=1.0, w=0.8):
        self.k, self.w = k, w

    def energy(self, x):
        return 0.5 * self.k * x.square().sum(1)

    def force(self, x):
        return -self.k * x + self.w * torch.stack([-x[:, 1], x[:, 0]], 1)


def in_phase_space(gamma, T, m, k, w):
    """(A, g) of the swirl with numbers x, y, v_x, v_y."""
    K = np.array([[k, w], [-w, k]]) / m
    A = np.block([[np.zeros((2, 2)), -np.eye(2)], [K, gamma * np.eye(2)]])
    return Linear(A, [0.0, 0.0, *[math.sqrt(2 * gamma * T / m)] * 2])


@pytest.mark.parametrize("w", [0.0, 0.8])
def test_underdamped_motion_makes_the_entropy_of_its_irreversible_current(w):
    gamma, T, m = 1.4, 0.7, 2.0
    flat = in_phase_space(gamma, T, m, 1.0, w)
    x, score, log_p = flat.at_rest(20_000)
    C = flat.covariance
    # the heat into the bath over T: γ (m ⟨v²⟩ − 2T)/T
    answer = gamma * float(m * C.diagonal()[2:].sum() - 2 * T) / T
    sde = sg.UnderdampedLangevin(Swirl(1.0, w), friction=gamma, temperature=T, mass=m)
    states = x.reshape(-1, 2, 2)
    found = sg.entropy_production(
        sde, states, lambda z, t: score(z.flatten(1), t).reshape(z.shape)
    )
    flattened = sg.entropy_production(flat, x, score, odd=[2, 3])
    assert found.rate == pytest.approx(flattened.rate, rel=1e-10, abs=1e-20)
    path = sg.simulate(flat, x[:4000], torch.linspace(0, 2, 81), solver=sg.Heun(substeps=4), rng=1)
    walked = sg.entropy_production(flat, path, odd=[2, 3], log_density=log_p)
    if w == 0:
        assert answer == pytest.approx(0, abs=1e-12)
        assert found.rate < 1e-24
        assert float(walked.each.abs().max()) < 0.2  # of the sums; |Δ log p| reaches 10
        assert abs(walked.rate) < OFF * walked.error + 2 * walked.step_error
    else:
        within(found, answer)
        within(walked, answer, 2 * walked.step_error + 1e-3)
        weights = torch.exp(-walked.each)
        assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / 4000**0.5 + 0.01


def test_velocities_at_two_temperatures_carry_heat():
    gamma, temperatures = 0.7, (1.0, 3.0)
    K = np.array([[2.3, -1.3], [-1.3, 2.3]])
    A = np.block([[np.zeros((2, 2)), -np.eye(2)], [K, gamma * np.eye(2)]])
    sde = Linear(A, [0.0, 0.0, *(math.sqrt(2 * gamma * T) for T in temperatures)])
    C = sde.covariance
    answer = sum(gamma * (float(C[2 + i, 2 + i]) - T) / T for i, T in enumerate(temperatures))
    x, score, _ = sde.at_rest(20_000)
    within(sg.entropy_production(sde, x, score, odd=(2, 3)), answer)


def test_a_run_towards_smaller_times_is_read_in_its_own_sense():
    class Backwards(Linear):
        direction = -1

        def drift(self, x, t):
            return x @ self.A.T

    forward, back = gyrator(), Backwards(gyrator().A, gyrator().g)
    x, score, _ = forward.at_rest(2000)
    there = sg.entropy_production(forward, x, score)
    assert sg.entropy_production(back, x, score).rate == pytest.approx(there.rate, rel=1e-13)
    path = sg.simulate(back, x, torch.linspace(1, 0, 41), solver=sg.Heun(substeps=2), rng=1)
    found = sg.entropy_production(back, path)
    assert (
        abs(found.rate - by_heat(forward, [3.0, 1.0])) < OFF * found.error + 3 * found.step_error
    )


def test_the_error_of_the_steps_is_told():
    sde = rotation(w=1.0)
    x, _, _ = sde.at_rest(4000)
    path = sg.simulate(sde, x, torch.linspace(0, 1, 5), solver=sg.Heun(substeps=100), rng=1)
    found = sg.entropy_production(sde, path)
    # ½ ⟨(h_0 + h_1) · (x_1 − x_0)⟩ = 2 (ω/k) e^{−k dt} sin(ω dt)·… of the circulation
    bias = 2 * math.exp(-0.25) * math.sin(0.25) / 0.25 - 2.0
    assert abs(found.rate - 2.0 - bias) < OFF * found.error + 1e-3
    assert 0.5 * abs(bias) < found.step_error < 2 * abs(bias)
    assert math.isnan(sg.entropy_production(sde, path_of(path, 2)).step_error)


def path_of(path, times):
    return sg.Trajectory(
        path.times[:times], path.states[:times], path.nfe, path.seed, path.nonfinite
    )


def test_trajectories_that_were_lost_are_left_out():
    sde = rotation()
    x, _, _ = sde.at_rest(50)
    path = sg.simulate(sde, x, torch.linspace(0, 1, 11), rng=1)
    whole = sg.entropy_production(sde, path)
    lost = path.nonfinite.clone()
    lost[7] = True
    spoiled = path.states.clone()
    spoiled[3:, 7] = math.nan
    some = sg.entropy_production(sde, sg.Trajectory(path.times, spoiled, path.nfe, 1, lost))
    torch.testing.assert_close(some.each, whole.each[~lost])


def test_what_has_no_entropy_production_is_refused_by_name():
    sde = rotation()
    x, score, _ = sde.at_rest(100)
    path = sg.simulate(sde, x, [0.0, 0.1], rng=1)
    flat = in_phase_space(1.0, 1.0, 1.0, 1.0, 0.0)
    z, slope, _ = flat.at_rest(100)
    with pytest.raises(ValueError, match="coordinate 0 has D = 0 and a velocity of up to"):
        sg.entropy_production(flat, z, slope)
    one = Linear(np.eye(2), [[1.0], [1.0]])
    with pytest.raises(ValueError, match="smallest eigenvalue of the noises' correlations is"):
        sg.entropy_production(one, x, score)
    with pytest.raises(ValueError, match="odd must name different numbers of the state, 0 to 1"):
        sg.entropy_production(sde, x, score, odd=[2])
    with pytest.raises(TypeError, match="samples need score="):
        sg.entropy_production(sde, x)
    with pytest.raises(TypeError, match="score is for samples of one time"):
        sg.entropy_production(sde, path, score)
    with pytest.raises(ValueError, match="needs the path, but it has one time"):
        sg.entropy_production(sde, path_of(path, 1))
    with pytest.raises(ValueError, match="needs noise in continuous time"):
        sg.entropy_production(sg.ItoProcess(lambda x: -x, 0.0), x, score)
    with pytest.raises(ValueError, match=r"score must return a tensor of shape \(100, 2\)"):
        sg.entropy_production(sde, x, lambda x, t: x[:, 0])
    with pytest.raises(ValueError, match=r"log_density must return a tensor of shape \(100,\)"):
        sg.entropy_production(sde, path, log_density=lambda x, t: x)
    with pytest.raises(ValueError, match="1 of them not finite"):
        sg.entropy_production(sde, torch.tensor([[1.0, math.nan]]), score)
    jumps = sg.JumpDiffusion(sde, sg.CompoundPoisson(1.0, lambda z: z))
    with pytest.raises(ValueError, match="reads drift and diffusion alone"):
        sg.entropy_production(jumps, x, score)


def test_odd_coordinates_that_cannot_be_are_refused():
    uneven = sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.3 * torch.sigmoid(x))
    x = normal(50, 1)
    with pytest.raises(ValueError, match="needs noise that time reversal leaves"):
        sg.entropy_production(uneven, x, lambda x, t: -x, odd=[0])
    bent = sg.ItoProcess(lambda x: -x + 0.4 * x**2, 1.0)
    path = sg.simulate(bent, 0.1 * x, [0.0, 0.1, 0.2], rng=1)
    with pytest.raises(ValueError, match="needs a reversible drift that keeps volumes"):
        sg.entropy_production(bent, path, odd=[0])


def test_the_error_bar_of_the_lumped_form_holds_where_errors_change_their_sign():
    """D of ratio 100: two grids agree where the error crosses 0; a third one tells."""
    from tests.fokker_planck.test_plane_channels import gaussian, linear, rotated

    A = np.array([[1.0, -0.6], [0.4, 1.2]])
    for degrees in (30.0, 45.0):
        G = rotated(100.0, degrees)
        D = (G @ G.T).numpy() / 2
        C = solve_continuous_lyapunov(A, 2 * D)
        drive = D @ np.linalg.inv(C) - A
        right = np.trace(drive.T @ np.linalg.inv(D) @ drive @ C)
        grids = tuple(sg.Grid(-5 * s, 5 * s, 56) for s in C.diagonal() ** 0.5)
        solver = sg.FokkerPlanck2D(linear(G), grids, form="lumped")
        x, y = (grid.nodes for grid in grids)
        p = sg.PlaneDensity(x, y, gaussian(x, y, (0, 0), C))
        with pytest.warns(sg.AccuracyWarning, match="the entropy production"):
            sigma = solver.entropy_production(p)
        miss = abs(float(sigma) / right - 1)
        assert miss < float(sigma.error) < 10 * miss
