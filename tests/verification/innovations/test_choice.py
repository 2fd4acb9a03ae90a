"""Each solver: its law is found, right states pass by it, and others do not."""

import pytest
import torch
from exact import ReplayedNoise

import sdegen as sg
from sdegen.verification.innovations.choice import law_of
from sdegen.verification.innovations.probed_law import RememberingLaw

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
DATA = sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.0, 0.0]], stds=0.5)
BROAD = sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.0, 0.0]], stds=1.5)
NOISY, FLOW = (sg.ReverseSDE(VP, DATA.noised(VP).score, eta=eta) for eta in (1.0, 0.0))
WRONG, ELSEWHERE = (sg.ReverseSDE(VP, BROAD.noised(VP).score, eta=eta) for eta in (1.0, 0.0))
TIMES = VP.time_grid(30)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def well(noise=0.7):
    return sg.ItoProcess(lambda x: x - x**3, noise, autonomous=True)


def relaxing(noise=0.7):
    return sg.ItoProcess(lambda x: -2 * x + x.sin(), noise, linear_part=2.0)


def geometric(noise=0.5):
    return sg.ItoProcess(lambda x: -x, lambda x: noise * (1 + 0.5 * x.sin()), autonomous=True)


def swinging(friction=1.0):
    return sg.UnderdampedLangevin(lambda x: (x**4 / 4).sum(1), friction)


CASES = [
    (sg.EulerMaruyama(), NOISY, WRONG),
    (sg.DDIM(), NOISY, WRONG),
    (sg.ExponentialAdams(2, "x0"), NOISY, WRONG),
    (sg.ExponentialAdams(3, "x0"), NOISY, WRONG),
    (sg.DPM2(), NOISY, WRONG),
    (sg.PredictorCorrector(corrector_steps=1), NOISY, WRONG),
    (sg.FinalDenoising(sg.DDIM()), NOISY, WRONG),
    (sg.FinalDenoising(sg.SRA()), NOISY, WRONG),
    (sg.DDIM(substeps=2), NOISY, WRONG),
    (sg.DDIM(), FLOW, ELSEWHERE),
    (sg.ExponentialAdams(3, "v"), FLOW, ELSEWHERE),
    (sg.ExponentialAdamsMoulton(3, "v"), FLOW, ELSEWHERE),
    (sg.AngularAdams(3), FLOW, ELSEWHERE),
    (sg.KarrasHeun(), FLOW, ELSEWHERE),
    (sg.Heun(substeps=3), FLOW, ELSEWHERE),
    (sg.Milstein(), geometric(), geometric(0.6)),
    (sg.DRI1(), geometric(), geometric(0.6)),
    (sg.SRA(), well(), well(0.8)),
    (sg.SKROCK(stages=3), well(), well(0.8)),
    (sg.ImplicitEuler(), relaxing(), relaxing(0.8)),
    (sg.Heun(), swinging(), swinging(2.0)),
    (sg.QUICSORT(), swinging(), swinging(2.0)),
    (sg.BAOAB(), swinging(0.0), swinging(0.1)),
]


@pytest.mark.parametrize(
    ("solver", "sde", "wrong"),
    CASES,
    ids=[f"{type(s).__name__} {i}" for i, (s, _, _) in enumerate(CASES)],
)
def test_states_of_a_solver_follow_its_law_and_no_other(solver, sde, wrong):
    """False alarms of right states: once in a thousand each, of a seed that passes."""
    x = normals(150, 2)
    if isinstance(sde, sg.UnderdampedLangevin):
        x = sde.state(x, normals(150, 2, seed=1))
    times = TIMES if isinstance(sde, sg.ReverseSDE) else torch.linspace(0, 1.5, 31, dtype=F64)
    path = sg.simulate(sde, x, times, solver=solver, rng=2)
    assert sg.certify(sde, path=path, solver=solver).passed
    try:
        found = sg.certify(wrong, path=path, solver=solver)
    except ValueError as refusal:  # a noise that there was none of
        assert "noise" in str(refusal)  # noqa: PT017, it may also be judged
    else:
        assert not found.passed


@pytest.mark.parametrize("order", [1, 2, 3])
def test_draws_of_a_method_that_remembers_are_recovered(order):
    solver, x = sg.ExponentialAdams(order, "x0"), normals(20, 2)
    draws = [normals(20, 2, seed=k) for k in range(30)]
    states, memory, noise = [x], solver.begin(NOISY, TIMES), ReplayedNoise(draws)
    for i in range(30):
        x, memory = solver.step(NOISY, x, i, noise, memory)
        states.append(x)
    law = law_of(NOISY, solver, TIMES, (2,), states=states[0])
    if order > 1:
        assert isinstance(law, RememberingLaw)
    if law.remembers:
        parts, memory = [], None
        for a, b in ((0, 7), (7, 30)):
            found, memory = law.along(torch.stack(states[a : b + 1]), a, memory)
            parts.append(found.z)
        z = torch.cat(parts)
    else:
        z = torch.cat([law.innovations(states[i], states[i + 1], i).z for i in range(30)])
    torch.testing.assert_close(z, torch.cat(draws), rtol=1e-9, atol=1e-9)


def test_equations_of_a_method_that_remembers_are_seen_to_fail():
    path = sg.simulate(FLOW, normals(20, 2), TIMES, solver=sg.AngularAdams(3)).states
    moved = path.clone()
    moved[17, 3] += 1e-6
    found = sg.certify(FLOW, path=moved, times=TIMES, solver=sg.AngularAdams(3))
    assert next(check.name for check in found.failed).startswith("equations without noise")


def test_what_has_no_law_is_refused_with_a_cure():
    x, times = normals(4, 2), torch.linspace(0, 1, 5, dtype=F64)
    adams = sg.ExponentialAdams(2, "x0", substeps=2)
    for sde, solver, nodes, match in (
        (NOISY, adams, TIMES, "remembers earlier steps, .* solver='unknown'"),
        (FLOW, sg.KarrasHeun(churn=sg.Churn(5.0)), TIMES, "draws noise of its own"),
        (well(), sg.TorchSDE("srk", 2), times, "chooses its own steps, .* solver='unknown'"),
        (FLOW, "unknown", TIMES, "has no noise"),
    ):
        with pytest.raises(ValueError, match=match):
            law_of(sde, solver, nodes, (2,), states=x)
