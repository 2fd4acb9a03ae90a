"""identities: laws of stored states without a density, against exact answers and planted faults.

Statistical tests are seeded; right runs are asked at a false-alarm rate of 1e-5 of all checks
together, and biases may be off by 5 standard errors, 6e-7 of a normal.
"""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.verification.identities.currents import current_rows, features_of
from sdegen.verification.identities.ends import ends_of
from sdegen.verification.identities.excerpt import excerpt_of
from sdegen.verification.identities.linear import linear_chain_of

F64 = torch.float64
RARE = 1e-5
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, math.sqrt(2.0))
WELL = sg.Langevin(sg.DoubleWell(), 1.0)
OSCILLATOR = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=1.0)
WALLS = sg.Reflecting(-1.2, 1.2)
RING = sg.Periodic(0.0, 2 * math.pi)


class Flat:
    """A density that is the same everywhere."""

    def log_prob(self, x):
        return torch.zeros(len(x), dtype=F64)


class Cold:
    """Positions and velocities of N(0, 1/4), up to a constant."""

    def log_prob(self, x):
        return -2 * x.square().flatten(1).sum(1)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def grid(dt, steps):
    return torch.arange(steps + 1, dtype=F64) * dt


def spinning(omega):
    return sg.LinearSDE([[1.0, -omega], [omega, 1.0]], math.sqrt(2.0))


def at_rest(law, rows, seed=0):
    root = torch.linalg.cholesky(law.covariance)
    return normals(rows, len(law.mean), seed=seed) @ root.T + law.mean


def row_of(found, words):
    (row,) = [row for row in found.biases if words in row.name]
    return row


def check_of(found, words):
    (check,) = [check for check in found.checks if words in check.name]
    return check


def near(row, value, errors=5.0):
    assert abs(row.value - value) < errors * row.standard_error, row.sentence
    assert row.standard_error > 0


def failed(found):
    return [check.name for check in found.failed]


# where steps lead


def test_right_steps_of_every_kind_pass():
    x = normals(100, 2)
    runs = [
        (OU, sg.EulerMaruyama(), x, None),
        (WELL, sg.Heun(), x, None),
        (WELL, sg.EulerMaruyama(substeps=3), x, None),
        (sg.ItoProcess(lambda x: -x, lambda x: 0.5 + 0.1 * x.sin()), sg.Milstein(), x, None),
        (spinning(2.0), sg.EulerMaruyama(), x, None),
        (sg.LinearSDE(torch.eye(2), [[1.0, 0.5], [0.0, 1.0]]), sg.EulerMaruyama(), x, None),
        (OSCILLATOR, sg.BAOAB(), x.reshape(100, 2, 1), None),
        (OSCILLATOR, sg.OBABO(), x.reshape(100, 2, 1), None),
        (WELL, sg.EulerMaruyama(), x[:, :1].clamp(-1, 1), WALLS),
        (OSCILLATOR, sg.BAOAB(), x.clamp(-1, 1).reshape(100, 2, 1), WALLS),
        (sg.ItoProcess(lambda x: 0.5 + x.sin(), 1.0), sg.EulerMaruyama(), x[:, :1] % 6, RING),
        (OU, sg.EulerMaruyama(), x[:, :1].abs(), sg.Reflecting(0.0)),
    ]
    for sde, solver, start, boundary in runs:
        path = sg.simulate(sde, start, grid(0.05, 60), solver=solver, boundary=boundary, rng=1)
        found = sg.identities(
            sde, path, solver=solver, boundary=boundary, at_rest=False, false_alarm=RARE
        )
        assert check_of(found, "where steps lead").verdict == "passed", (sde, solver, str(found))
        assert found.passed, str(found)


@pytest.mark.parametrize(("factor", "rows"), [(0.95, 10), (1.05, 100)])
def test_a_temperature_that_is_off_by_five_percent_is_caught(factor, rows):
    steps = 100_000 // rows
    start = normals(rows, 1).clamp(-1, 1)
    path = sg.simulate(WELL, start, grid(0.02, steps), boundary=WALLS, rng=2)
    believed = sg.Langevin(sg.DoubleWell(), factor)
    found = sg.identities(believed, path, boundary=WALLS)
    assert failed(found) == ["where steps lead, on average over waves"]


def test_wrong_walls_are_caught():
    path = sg.simulate(WELL, normals(100, 1).clamp(-1, 1), grid(0.02, 400), boundary=WALLS, rng=3)
    assert sg.identities(WELL, path, boundary=WALLS, false_alarm=RARE).passed
    wide = sg.identities(WELL, path, boundary=sg.Reflecting(-1.3, 1.3))
    assert failed(wide) == ["where steps lead, on average over waves"]
    narrow = sg.identities(WELL, path, boundary=sg.Reflecting(-1.1, 1.1))
    assert "part of the states that is outside the boundary" in failed(narrow)


def test_half_a_drift_is_caught_in_a_hundred_dimensions_and_in_single_precision():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    path = sg.simulate(ou, 0.7 * normals(80, 100).float(), grid(0.1, 200), rng=4)
    assert path.states.dtype == torch.float32
    assert sg.identities(ou, path, false_alarm=RARE).passed
    half = sg.OrnsteinUhlenbeck(0.5, 0.0, 1.0)
    assert "where steps lead, on average over waves" in failed(sg.identities(half, path))


# linear dynamics


def test_states_of_a_process_itself_are_judged_at_any_stride():
    process = spinning(1.0)
    path = process.sample(normals(40, 2), grid(0.7, 300), rng=5)
    found = sg.identities(process, path, solver="exact", false_alarm=RARE)
    assert found.passed
    assert found.at_rest
    assert all(check.verdict == "passed" for check in found.checks[:3])
    slower = sg.LinearSDE([[0.9, -1.0], [1.0, 0.9]], math.sqrt(2.0))
    assert "where steps lead, on average over waves" in failed(
        sg.identities(slower, path, solver="exact")
    )


def test_noise_that_remembers_is_seen_over_many_steps():
    z = normals(4001, 100, 1, seed=6)
    z = (z[1:] + 0.1 * z[:-1]) / math.sqrt(1 + 0.1**2)  # by steps alone hardly correlated
    x = [normals(100, 1)]
    for k in range(4000):
        x.append(x[-1] * 0.99 + math.sqrt(0.02) * z[k])
    found = sg.identities(OU, torch.stack(x)[::1], dt=0.01, at_rest=False)
    assert "means and covariances over many steps" in failed(found)


@pytest.mark.parametrize("omega", [0.0, 3.0])
def test_the_current_of_a_spinning_pair_is_that_of_its_matrices(omega):
    process, tau = spinning(omega), 0.25
    path = process.sample(normals(100, 2), grid(tau, 60), rng=7)
    states = sg.read_states(path)
    chain = linear_chain_of(process, "exact", states)
    ends = ends_of(process, states, None)
    excerpt = excerpt_of(states, in_a_row=False, autonomous=True)
    features = features_of(excerpt, ends, ["x", "y"], 2)
    (row,) = current_rows(features, 1, 1, chain)
    # ⟨x(t) y(t + τ) − y(t) x(t + τ)⟩ of a rotation by ωτ that decays
    exact = -2 * math.exp(-tau) * math.sin(omega * tau)
    assert row.expected == pytest.approx(exact, abs=1e-12)
    near(row, exact)
    A, C = process.linear_part, process.stationary_covariance()
    slow = linear_chain_of(process, "exact", sg.read_states(path.states, dt=1e-6))
    (row,) = current_rows(features, 1, 1, slow)
    assert row.expected / 1e-6 == pytest.approx(float((A @ C - C @ A.T)[0, 1]), abs=1e-4)


def test_a_current_where_none_should_be_is_caught():
    process = spinning(0.3)
    chain = sg.ChainMoments(process, 2)
    start = at_rest(chain.stationary(0.02), 50)
    path = sg.simulate(process, start, grid(0.02, 2000), rng=8)
    assert sg.identities(process, path, false_alarm=RARE).passed
    assert "currents of pairs" in failed(sg.identities(spinning(0.0), path))


# biases


@pytest.mark.parametrize("solver", [sg.BAOAB(), sg.EulerMaruyama()])
def test_the_kinetic_temperature_of_an_oscillator_is_that_of_its_chain(solver):
    step = 0.5 if solver == sg.BAOAB() else 0.2
    law = sg.ChainMoments(OSCILLATOR, 2, solver).stationary(step)
    start = at_rest(law, 100, seed=9).reshape(-1, 2, 1)
    with nullcontext() if solver == sg.BAOAB() else pytest.warns(sg.AccuracyWarning):
        path = sg.simulate(OSCILLATOR, start, grid(step, 1000), solver=solver, rng=10)
    found = sg.identities(OSCILLATOR, path, solver=solver, at_rest=True, false_alarm=RARE)
    assert found.passed, str(found)
    C = law.covariance
    near(row_of(found, "kinetic"), float(C[1, 1]))
    near(row_of(found, "virial"), float(C[0, 0]))
    near(row_of(found, "configurational"), float(C[0, 0]))
    near(row_of(found, "x v"), float(C[0, 1]))
    assert row_of(found, "kinetic").p_value < 1e-6  # the bias is seen, and is no mistake
    judged = sg.identities(OSCILLATOR, path, solver=solver, at_rest=True, allowed=0.002)
    assert "the kinetic temperature" in failed(judged)
    lenient = sg.identities(OSCILLATOR, path, solver=solver, at_rest=True, allowed=1.0)
    assert lenient.passed


def test_states_of_an_unknown_solver_are_judged_with_an_allowance():
    path = sg.simulate(WELL, normals(200, 2), grid(0.01, 2000), rng=11)
    late = sg.read_states(path.states[1000::20], dt=0.2)
    found = sg.identities(WELL, late, solver="unknown", allowed=0.05)
    assert found.passed, str(found)
    assert found.at_rest
    hot = sg.Langevin(sg.DoubleWell(), 1.25)
    names = failed(sg.identities(hot, late, solver="unknown", allowed=0.05))
    assert any("virial" in name for name in names), names


def test_the_configurational_temperature_is_that_of_second_derivatives():
    path = sg.simulate(WELL, normals(64, 3), grid(0.05, 200), rng=12)
    found = sg.identities(WELL, path, at_rest=True)
    x = path.states
    force = x**3 - x
    exact = force.square().sum(-1).mean() / (3 * x.square() - 1).sum(-1).mean()
    row = row_of(found, "configurational")
    assert row.value == pytest.approx(float(exact), rel=1e-6)
    wide = sg.simulate(WELL, normals(64, 20), grid(0.05, 200), rng=12)  # along random signs
    found = sg.identities(WELL, wide, at_rest=True)
    x = wide.states
    force = x**3 - x
    exact = force.square().sum(-1).mean() / (3 * x.square() - 1).sum(-1).mean()
    assert row_of(found, "configurational").value == pytest.approx(float(exact), rel=1e-6)


def test_a_change_in_time_is_that_of_the_generator():
    decay = sg.OrnsteinUhlenbeck(1.0, 0.0, 0.0)
    h = 0.1
    path = sg.simulate(decay, torch.full((70, 1), 2.0, dtype=F64), grid(h, 3), rng=0)
    found = sg.identities(decay, path, at_rest=False)
    x = path.states[:, 0, 0]
    left = (x[1:] - x[:-1]) / h + 0.5 * (x[1:] + x[:-1])
    assert row_of(found, "mean of x less").value == pytest.approx(float(left.mean()), abs=1e-12)
    left = (x[1:] ** 2 - x[:-1] ** 2) / h + (x[1:] ** 2 + x[:-1] ** 2)
    assert row_of(found, "mean of x² less").value == pytest.approx(float(left.mean()), abs=1e-12)


def test_a_driven_run_is_looked_at_in_time():
    driven = sg.ItoProcess(lambda x, t: -(x - t.sin()), 1.0)
    path = sg.simulate(driven, normals(200, 1), grid(0.05, 100), rng=13)
    found = sg.identities(driven, path, false_alarm=RARE)
    assert not found.at_rest
    assert found.passed
    for row in found.biases:
        assert abs(row.value) < 5 * row.standard_error + 0.02, row.sentence
    wrong = sg.ItoProcess(lambda x, t: -(x + t.sin()), 1.0)
    assert failed(sg.identities(wrong, path)) == ["where steps lead, on average over waves"]


def test_a_centre_that_was_taken_out_has_no_temperature():
    x = normals(2000, 1, 5, 3, seed=14)
    v = normals(2000, 1, 5, 3, seed=15)
    x, v = x - x.mean(2, keepdim=True), v - v.mean(2, keepdim=True)
    states = sg.read_states(x, velocities=v, dt=1.0, centre_removed=True)
    springs = sg.UnderdampedLangevin(lambda x: 0.5 * (x - x.mean(1, keepdim=True)).square())
    found = sg.identities(springs, states, solver="unknown", at_rest=True)
    near(row_of(found, "kinetic temperature, all"), 1.0)
    near(row_of(found, "virial temperature ⟨x ∂U⟩, all"), 1.0)
    near(row_of(found, "configurational"), 1.0)


# the fluctuation theorem


def test_the_fluctuation_theorem_holds_on_a_driven_ring_and_away_from_rest():
    ring = sg.ItoProcess(lambda x: 1.0 + x.sin(), 1.0)
    start = (
        2 * math.pi * torch.rand(4000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    )
    path = sg.simulate(ring, start, grid(0.02, 20), boundary=RING, rng=16)
    found = sg.identities(ring, path, boundary=RING, start=Flat(), at_rest=False)
    check = check_of(found, "fluctuation")
    assert check.verdict == "passed"
    assert check.p_value > RARE
    # told to turn the other way the steps are more likely backwards than forwards
    other = sg.ItoProcess(lambda x: -3.0 + x.sin(), 1.0)
    found = sg.identities(other, path, boundary=RING, start=Flat(), at_rest=False)
    assert check_of(found, "fluctuation").verdict == "failed"
    cold = sg.Quadratic(4.0)  # its log_prob is N(0, 1/4)
    path = sg.simulate(OU, 0.5 * normals(4000, 1), grid(0.05, 20), rng=17)
    found = sg.identities(OU, path, start=cold, at_rest=False)
    assert check_of(found, "fluctuation").p_value > RARE
    found = sg.identities(OU, path, start=sg.Quadratic(2.0), at_rest=False)
    assert check_of(found, "fluctuation").verdict == "failed"


def test_velocities_are_odd_in_the_fluctuation_theorem():
    cold = 0.5 * normals(4000, 2, 1, seed=18)
    path = sg.simulate(OSCILLATOR, cold, grid(0.1, 20), solver=sg.BAOAB(), rng=18)
    found = sg.identities(OSCILLATOR, path, start=Cold(), at_rest=False)
    check = check_of(found, "fluctuation")
    assert check.p_value > RARE
    assert check.value == pytest.approx(1.0, abs=0.1)
    # a force of the wrong sign
    hill = sg.UnderdampedLangevin(lambda x: -2 * x.square(), friction=1.0)
    found = sg.identities(hill, path, start=Cold(), at_rest=False)
    assert check_of(found, "fluctuation").verdict in ("failed", "not judged")


# p-values and the page


def p_values(make, runs):
    found = {}
    for k in range(runs):
        for check in make(k).checks:
            if check.p_value is not None:
                found.setdefault(check.name, []).append(check.p_value)
    return found


def many(k):
    start = at_rest(sg.ChainMoments(spinning(2.0), 2).stationary(0.02), 100, seed=k)
    return sg.identities(
        spinning(2.0), sg.simulate(spinning(2.0), start, grid(0.02, 80), rng=k), at_rest=True
    )


def few(k):
    start = at_rest(sg.ChainMoments(OU, 1).stationary(0.05), 3, seed=k)
    return sg.identities(OU, sg.simulate(OU, start, grid(0.05, 2000), rng=k), at_rest=True)


def walled(k):
    path = sg.simulate(
        WELL, normals(100, 1, seed=k).clamp(-1, 1), grid(0.02, 80), boundary=WALLS, rng=k
    )
    return sg.identities(WELL, path, boundary=WALLS, at_rest=False)


@pytest.mark.slow
@pytest.mark.parametrize("make", [many, few, walled], ids=lambda f: f.__name__)
def test_p_values_of_right_runs_are_uniform(make):
    for name, p in p_values(make, 200).items():
        # Kolmogorov–Smirnov at 1e-5
        assert stats.kstest(p, "uniform").pvalue > RARE, (name, np.sort(p)[:5])
        assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.16)  # 4.5 σ


def test_p_values_of_a_few_right_runs_are_uniform():
    for name, p in p_values(many, 30).items():
        assert stats.kstest(p, "uniform").pvalue > RARE, (name, np.sort(p)[:5])


def test_the_page_says_what_each_average_is_and_should_be():
    path = sg.simulate(WELL, normals(100, 1), grid(0.05, 400), rng=19)
    text = str(sg.identities(WELL, path, at_rest=True))
    assert "bias of the step  the virial temperature ⟨x ∂U⟩ is 0.9" in text or "is 1.0" in text
    assert " ± " in text
    assert text.count(" for 1") >= 2


def test_a_certificate_tells_the_bias_of_the_step_beside_its_checks():
    law = sg.ChainMoments(OSCILLATOR, 2, sg.BAOAB()).stationary(0.5)
    start = at_rest(law, 100, seed=21).reshape(-1, 2, 1)
    path = sg.simulate(OSCILLATOR, start, grid(0.5, 400), solver=sg.BAOAB(), rng=21)
    right = sg.certify(OSCILLATOR, path=path, identities=True, false_alarm=RARE)
    assert right.passed
    near(row_of(right.identities, "kinetic"), float(law.covariance[1, 1]))
    assert "bias of the step  the kinetic temperature is 0.9" in str(right)
    assert right.to_dict()["passed"]
    heavy = sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=1.0, mass=1.1)
    wrong = sg.certify(heavy, path=path, identities=True)
    assert not wrong.identities.passed
    assert "Averages fail: " in wrong.summary
    assert len(wrong.failed) > len(wrong.identities.failed)


def test_states_on_their_way_are_not_taken_to_rest():
    path = sg.simulate(WELL, normals(1000, 10), grid(0.02, 200), rng=22)
    assert not sg.identities(WELL, path).at_rest
    chain = sg.ChainMoments(OU, 3).stationary(0.1)
    path = sg.simulate(OU, at_rest(chain, 100), grid(0.1, 200), rng=23)
    assert sg.identities(OU, path).at_rest


def test_what_is_refused_names_a_cure():
    path = sg.simulate(OU, normals(100, 1), grid(0.05, 40), rng=20)
    with pytest.raises(ValueError, match="absorbing end takes trajectories out"):
        sg.identities(OU, path, boundary=sg.Absorbing(-9.0, 9.0))
    with pytest.raises(ValueError, match="'exact' or 'unknown'"):
        sg.identities(OU, path, solver="euler")
    with pytest.raises(TypeError, match="log_prob"):
        sg.identities(OU, path, start=1.0)
    few = sg.identities(OU, path.states[:3, :2], dt=0.05)
    assert {check.verdict for check in few.checks} == {"not judged"}
