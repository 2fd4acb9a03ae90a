"""The law of linear steps, against densities of the same Gaussians and draws that are known."""

import pytest
import torch
from torch.distributions import MultivariateNormal

import sdegen as sg
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.linear_law import LinearLaw

F64 = torch.float64
A = [[1.0, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.2, 0.0, 1.5]]
B = [[0.7, 0.1], [-0.9, 0.5], [0.3, 0.4]]  # d = 3, m = 2
SDE = sg.LinearSDE(A, B, [0.5, -0.2, 1.0])
OU = sg.OrnsteinUhlenbeck(1.3, 0.4, 0.8)
TRAP = sg.UnderdampedLangevin(sg.Quadratic(2.0, 0.0), friction=1.5, temperature=0.7, mass=2.0)
NODES = torch.linspace(0.0, 0.8, 5, dtype=F64)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_draws_of_exact_transitions_are_recovered():
    x, z = normals(200, 4), normals(200, 4, seed=1)
    after = OU.transition(0.2, 0.4).draw(x, z)
    found = law_of(OU, "exact", NODES, (4,)).innovations(x, after, 0)
    torch.testing.assert_close(found.z, z, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", ["exact", sg.EulerMaruyama(substeps=4), sg.Heun(substeps=2)])
def test_density_is_that_of_the_gaussian_of_a_transition(solver):
    x, after = normals(50, 3), normals(50, 3, seed=1)
    law = law_of(SDE, solver, NODES, (3,))
    assert isinstance(law, LinearLaw)
    assert law.alike
    chain = SDE if solver == "exact" else sg.ChainMoments(SDE, 3, solver)
    step = chain.transition(0.0, 0.2)
    exact = MultivariateNormal(step.mean(x), step.covariance).log_prob(after)
    found = law.innovations(x, after, 0)
    torch.testing.assert_close(found.log_density, exact, rtol=1e-10, atol=1e-10)
    # without noise the mean is where z = 0 leads, and pull is how far that is from x
    still = law.innovations(x, step.mean(x), 0)
    torch.testing.assert_close(still.z, torch.zeros(50, 3, dtype=F64), rtol=0, atol=1e-12)
    held = law.innovations(x, x, 0)
    torch.testing.assert_close(held.z, -held.pull, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("solver", [sg.BAOAB, sg.OBABO, sg.EulerMaruyama])
def test_stored_strides_of_a_trap_in_phase_space_have_standard_innovations(solver, k):
    x = TRAP.state(normals(2000, 2), normals(2000, 2, seed=1))
    states = sg.simulate(TRAP, x, NODES, solver=solver(substeps=k), rng=3).states
    law = law_of(TRAP, solver(substeps=k), NODES, (2, 2))
    z = torch.cat([law.innovations(states[i], states[i + 1], i).z for i in range(4)])
    n = len(z)
    assert z.shape[1] == 4
    # each of 4 means and 10 second moments is a normal: 6 of its standard deviations, 1e-8 in all
    assert float((z.mean(0) * n**0.5).abs().max()) < 6
    second = (z.T @ z / n - torch.eye(4, dtype=F64)) * n**0.5
    assert float(second.abs().max()) < 6 * 2**0.5


def test_directions_without_noise_are_equations():
    x = normals(300, 3)
    solver = sg.EulerMaruyama(substeps=1)  # two channels of three coordinates, in one step
    law = LinearLaw("", NODES, lambda t, s: sg.ChainMoments(SDE, 3).transition(t, s), alike=True)
    after = sg.simulate(SDE, x, NODES[:2], solver=solver, rng=0).final
    found = law.innovations(x, after, 0)
    assert found.z.shape == (300, 2)
    assert found.gap.shape == (300, 1)
    assert float((found.gap / found.scale).abs().max()) < 1e-14
    wrong = law.innovations(x, after + 1e-6, 0)
    assert float(wrong.gap.abs().min()) > 1e-7
    # the density along what is moved: that of z, by the volume √det(BᵀB) of a step
    volume = torch.logdet(0.2 * torch.tensor(B, dtype=F64).T @ torch.tensor(B, dtype=F64)) / 2
    torch.testing.assert_close(found.log_scale, volume.expand(300), rtol=1e-10, atol=1e-10)


def test_a_linear_score_has_strides_of_ddim_and_of_the_update():
    process = sg.VP(sg.LinearBeta(0.1, 20.0))
    data = sg.GaussianMixture([1.0], [[0.5, -0.5]], stds=0.8)
    reverse = sg.ReverseSDE(process, data.noised(process).score)
    times = torch.linspace(0.9, 0.1, 5, dtype=F64)
    x = normals(3000, 2)
    for solver in (sg.DDIM(substeps=3), sg.EulerMaruyama(substeps=3)):
        states = sg.simulate(reverse, x, times, solver=solver, rng=1).states
        law = law_of(reverse, solver, times, (2,))
        assert isinstance(law, LinearLaw)
        assert not law.alike
        for i in range(4):
            z = law.innovations(states[i], states[i + 1], i).z
            assert float((z.square().sum(0) - 3000).abs().max()) < 6 * 6000**0.5
            assert float(z.sum(0).abs().max()) < 6 * 3000**0.5


def test_it_judges_stored_states_and_sees_a_wrong_rate():
    states = sg.simulate(
        OU, normals(100, 2), torch.linspace(0, 20, 101, dtype=F64),
        solver=sg.EulerMaruyama(substeps=5), rng=0,
    ).states  # fmt: skip
    solver = sg.EulerMaruyama(substeps=5)
    right = sg.certify(OU, path=states, dt=0.04, solver=solver)
    assert right.passed
    assert right.steps.judged_as == "EulerMaruyama, 5 to a stored one"
    wrong = sg.OrnsteinUhlenbeck(1.0, 0.4, 0.8)
    assert not sg.certify(wrong, path=states, dt=0.04, solver=solver).passed
    exact = OU.sample(normals(100, 2), torch.linspace(0, 20, 101, dtype=F64), rng=1).states
    assert sg.certify(OU, path=exact, dt=0.2, solver="exact").passed
    # the update's variance is another one by 10 %
    assert not sg.certify(OU, path=exact, dt=0.2).passed


def test_a_thousand_coordinates_take_one_whitening():
    stiffness = torch.linspace(0.5, 2.0, 500, dtype=F64)
    trap = sg.UnderdampedLangevin(lambda x: 0.5 * (stiffness * x**2).sum(-1), friction=1.0)
    law = law_of(trap, sg.BAOAB(substeps=2), NODES, (2, 500))
    x = trap.state(normals(40, 500), normals(40, 500, seed=1))
    after = sg.simulate(trap, x, NODES[:2], solver=sg.BAOAB(substeps=2), rng=0).final
    z = law.innovations(x, after, 0).z
    assert z.shape == (40, 1000)
    assert abs(float(z.square().sum()) - 40_000) < 5 * (2 * 40_000) ** 0.5


def test_what_has_no_transition_is_refused():
    well = sg.ItoProcess(lambda x: x - x**3, 0.7)
    with pytest.raises(ValueError, match="solver='exact' is for a process whose transitions"):
        law_of(well, "exact", NODES, (1,))
    with pytest.raises(ValueError, match="times decrease"):
        law_of(OU, "exact", NODES.flip(0), (1,))
    with pytest.raises(ValueError, match="'exact' or 'unknown', but is 'precise'"):
        law_of(OU, "precise", NODES, (1,))
