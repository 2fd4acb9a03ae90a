"""Laws that are known by redrawn steps: what is right passes, factors of 2 and 5 % are seen."""

import pytest
import torch

import sdegen as sg
from sdegen.verification.battery.comparison import compared
from sdegen.verification.battery.finding import of_normals, of_variance
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.local_laws import LocalLaw
from sdegen.verification.innovations.redrawn_law import RedrawnLaw

F64 = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def well(d, drift=1.0, noise=1.0):
    """Double wells in a ring of springs."""

    def f(x):
        return drift * (x - x**3 + (0.3 * (x.roll(1, -1) - x) if d > 1 else 0.0))

    return sg.ItoProcess(f, 0.7 * noise, autonomous=True)


def states(sde, d, solver, spacing, rng=0, batch=64, frames=65):
    times = torch.arange(frames, dtype=F64) * spacing
    return sg.simulate(sde, normals(batch, d), times, solver=solver, rng=rng).states


def test_the_equation_made_linear_is_exact_where_it_is():
    """Of A x with A of 2 × 2 the mean and the covariance are those of the transition."""
    A = torch.tensor([[1.0, 0.4], [-0.3, 0.8]], dtype=F64)
    B = torch.tensor([[0.7, 0.0], [-0.9, 0.5]], dtype=F64)
    linear = sg.LinearSDE(A.tolist(), B.tolist(), [0.5, -0.2])
    nodes = torch.tensor([0.0, 0.05], dtype=F64)
    x, after = normals(20, 2), normals(20, 2, seed=1)
    found = LocalLaw(linear, nodes).innovations(x, after, 0)
    step = linear.transition(0.0, 0.05)
    exact = torch.distributions.MultivariateNormal(step.mean(x), step.covariance).log_prob(after)
    # (h |A|)⁵/120 is left of the series
    torch.testing.assert_close(found.log_density, exact, rtol=1e-5, atol=1e-5)


def test_its_moments_in_a_well_are_those_of_fine_steps():
    sde, h = well(1), 0.05
    nodes = torch.tensor([0.0, h], dtype=F64)
    for start in (-1.3, 0.0, 0.6):
        x = torch.full((100_000, 1), start, dtype=F64)
        after = sg.simulate(sde, x, nodes, solver=sg.Heun(substeps=20), rng=1).final
        z = LocalLaw(sde, nodes).innovations(x, after, 0).z
        # what is left of h^{2.5} in the mean and h² in the variance, and 5 standard errors
        assert abs(float(z.mean())) < 5 / 1e5**0.5 + h**2.5
        assert abs(float(z.var()) - 1) < 5 * (2 / 1e5) ** 0.5 + h**2


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("d", "k"), [(1, 5), pytest.param(3, 10, marks=_SLOW), pytest.param(10, 20, marks=_SLOW)]
)
def test_strides_of_the_update_pass_and_faults_are_seen(d, k):
    solver = sg.EulerMaruyama(substeps=k)
    path = states(well(d), d, solver, 0.01 * k, batch=256 // d + 32)
    right = sg.certify(well(d), path=path, dt=0.01, solver=solver)
    assert right.passed
    assert right.steps.judged_as == f"EulerMaruyama, {k} to a stored one"
    for wrong in (well(d, drift=2.0), well(d, noise=1.05)):
        assert not sg.certify(wrong, path=path, dt=0.01, solver=solver).passed


@pytest.mark.parametrize(
    "solver",
    [
        sg.EulerMaruyama(),
        pytest.param(sg.Heun(), marks=_SLOW),
        pytest.param(sg.Heun(substeps=5), marks=_SLOW),
    ],
)
def test_a_simulator_that_is_not_known_is_right_from_the_update_to_the_equation(solver):
    path = states(well(3), 3, solver, 0.05)
    assert sg.certify(well(3), path=path, dt=0.05, solver="unknown").passed
    for wrong in (well(3, drift=2.0), well(3, noise=2**0.5), well(3, drift=-1.0)):
        assert not sg.certify(wrong, path=path, dt=0.05, solver="unknown").passed


def test_exact_paths_of_a_process_are_those_of_an_unknown_simulator():
    ou = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    path = ou.sample(normals(100, 2), torch.arange(101, dtype=F64) * 0.1, rng=1).states
    assert sg.certify(ou, path=path, dt=0.1, solver="unknown").passed
    twice = sg.OrnsteinUhlenbeck(2.0, 0.0, 1.0)
    assert not sg.certify(twice, path=path, dt=0.1, solver="unknown").passed


@pytest.mark.parametrize(
    "solver",
    [
        pytest.param(sg.BAOAB(), marks=_SLOW),
        pytest.param(sg.OBABO(), marks=_SLOW),
        pytest.param(sg.EulerMaruyama(), marks=_SLOW),
    ],
)
def test_unknown_simulators_of_phase_space_are_judged_by_velocities(solver):
    fall = sg.UnderdampedLangevin(lambda x: (0.25 * x**4 - 0.5 * x**2).sum(1), 1.0)
    x = fall.state(normals(100, 2), normals(100, 2, seed=1))
    path = sg.simulate(fall, x, torch.arange(101, dtype=F64) * 0.05, solver=solver, rng=2)
    right = sg.certify(fall, path=path.states, dt=0.05, solver="unknown")
    assert right.passed
    assert right.steps.sample.z.shape[2] == 2
    for wrong in ({"temperature": 2.0}, {"friction": 2.0}, {"mass": 2.0}):
        other = sg.UnderdampedLangevin(fall.potential, **({"friction": 1.0} | wrong))
        assert not sg.certify(other, path=path.states, dt=0.05, solver="unknown").passed, wrong


def test_strides_in_phase_space_are_judged_by_positions_and_velocities():
    fall = sg.UnderdampedLangevin(lambda x: (0.25 * x**4 - 0.5 * x**2).sum(1), 1.0)
    x, solver = fall.state(normals(100, 2), normals(100, 2, seed=1)), sg.BAOAB(substeps=5)
    times = torch.arange(101, dtype=F64) * 0.25
    path = sg.simulate(fall, x, times, solver=solver, rng=2).states
    right = sg.certify(fall, path=path, dt=0.05, solver=solver)
    assert right.passed
    z = right.steps.sample.z.flatten(0, 1)
    assert z.shape[1] == 4
    # 10⁴ rows, whitened on average by 8192 redrawn ones: a hundredth each, and the well bends
    assert float((z.T @ z / len(z) - torch.eye(4, dtype=F64)).abs().max()) < 0.08
    other = sg.UnderdampedLangevin(fall.potential, 1.0, temperature=1.1)
    assert not sg.certify(other, path=path, dt=0.05, solver=solver).passed


def swirl(strength=1.0):
    """One Wiener process that moves two coordinates by what they are."""

    class Swirl(sg.SDE):
        channels = 1
        autonomous = True

        def drift(self, x, t):
            return -x

        def diffusion(self, x, t):
            return (
                strength
                * torch.stack([1 + 0.3 * x[:, 1].sin(), 0.5 * x[:, 0].cos()], 1)[..., None]
            )

    return Swirl()


@pytest.mark.parametrize(
    "solver",
    [sg.Milstein(), pytest.param(sg.DRI1(), marks=_SLOW), pytest.param(sg.SKROCK(), marks=_SLOW)],
)
def test_solvers_whose_noise_cannot_be_told_are_redrawn(solver):
    times = torch.arange(65, dtype=F64) * 0.05
    path = sg.simulate(swirl(), normals(64, 2), times, solver=solver, rng=3).states
    law = law_of(swirl(), solver, times, (2,))
    assert isinstance(law, RedrawnLaw)
    assert sg.certify(swirl(), path=path, dt=0.05, solver=solver).passed
    assert not sg.certify(swirl(2**0.5), path=path, dt=0.05, solver=solver).passed


def test_redrawn_noise_is_fresh_and_the_same_again():
    law = law_of(well(2), sg.EulerMaruyama(substeps=3), torch.arange(5, dtype=F64) * 0.1, (2,))
    x = normals(10, 2)
    one, same, other = (law.redraw(x, 0, 0, 7, turn) for turn in (0, 0, 1))
    assert torch.equal(one, same)
    assert bool((one != other).all())


def test_a_difference_of_findings_is_a_normal_whatever_they_expect():
    """Squares and means of numbers that are no normals of variance 1: uniform p-values."""
    generator = torch.Generator().manual_seed(0)
    p_values = []
    for _ in range(400):
        z = 0.3 + 1.2 * torch.randn(3, 1000, generator=generator, dtype=F64)
        found = [
            [
                of_normals("a", "mean", row.sum()[None] / (1.44 * 1000) ** 0.5),
                of_variance("b", "variance", (row / 1.2).square().sum()[None], 1000, ""),
            ]
            for row in z
        ]
        p_values += [f.p_value for f in compared(found[0], [found[1:]])]
    p = torch.tensor(p_values).sort().values
    gap = (p - (torch.arange(800) + 0.5) / 800).abs().max()
    assert float(gap) < 2.6 / 800**0.5  # Kolmogorov: once in 10⁵


def test_between_two_beliefs_nothing_is_found():
    def found(value):
        return [of_normals("a", "mean", torch.tensor([value, 0.0]))]

    data = found(10.0)
    # √2 is the error of one redrawn statistic
    assert compared(data, [[found(0.0)], [found(20.0)]])[0].p_value == 1.0
    assert compared(data, [[found(0.0)], [found(10.0)]])[0].p_value == 1.0
    far = compared(data, [[found(0.0)], [found(1.0)]])[0]
    assert far.p_value == pytest.approx(2 * 2 * 9.87e-11, rel=0.01)  # 9/√2


def test_a_step_that_is_too_long_is_refused():
    path = states(well(1), 1, sg.Heun(substeps=50), 2.0, frames=33)
    stiff = sg.ItoProcess(lambda x: -500 * x**3, 0.7, autonomous=True)
    with pytest.raises(ValueError, match="too long for the SDE"):
        sg.certify(stiff, path=path, dt=2.0, solver="unknown")
