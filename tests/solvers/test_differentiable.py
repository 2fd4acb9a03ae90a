"""Gradients through every solver, against central differences with the same random numbers.

A drift that depends on t, on x and on a parameter θ; a score with a parameter for those that solve
reverse dynamics. Fixed steps: relative 1e-6. Adaptive ones choose other steps at θ ± h: their own
tolerance is in the difference.
"""

import pytest
import torch

import sdegen as sg

F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
X0 = torch.tensor([[0.4], [-1.1], [0.9]], dtype=F64)
TIMES = torch.linspace(0, 1, 5, dtype=F64)
DOWN = sg.timesteps.log_snr(VP, 8)
LAW = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.4).noised(VP)


def own(noisy):
    """dX = (θ sin 3t − X³) dt + θ (1 + X²/4) dW, or without noise."""

    def sde(theta):
        noise = (lambda x: 0.2 * theta * (1 + 0.25 * x**2)) if noisy else 0.0
        return sg.ItoProcess(lambda x, t: theta * torch.sin(3 * t) - x**3, noise)

    return sde, TIMES


def reverse(eta):
    """Reverse dynamics of θ times an exact score."""
    return (lambda theta: sg.ReverseSDE(VP, lambda x, t: theta * LAW.score(x, t), eta)), DOWN


def chain(theta):
    return sg.DDPM.discretize(VP, 5).reverse(lambda x, t: theta * LAW.score(x, t))


def log_p(x, t):
    return LAW.log_prob(x, t)


def channels(theta):
    """Two Wiener processes for one coordinate."""
    G = lambda x: 0.2 * theta * torch.stack([1 + 0.25 * x**2, torch.sin(theta * x)], -1)  # noqa: E731
    return sg.ItoProcess(lambda x, t: theta * torch.sin(3 * t) - x**3, G, channels=2)


def linear(theta):
    """A drift with a linear part that has a parameter."""
    L = torch.as_tensor(3 * theta, dtype=F64)
    return sg.ItoProcess(lambda x, t: -L * x - x**3, 0.3, linear_part=L)


def jumping(theta):
    """Jumps whose times and sizes do not depend on the parameter."""
    sizes = torch.distributions.Normal(torch.tensor(0.0, dtype=F64), 0.5)
    return sg.JumpDiffusion(own(noisy=True)[0](theta), sg.CompoundPoisson(3.0, sizes))


def phase_space(theta):
    """A driven oscillator whose friction and mass have a parameter."""
    pull = lambda x, t: theta * x**4 / 4 - x * torch.sin(3 * t)  # noqa: E731
    return sg.UnderdampedLangevin(pull, 0.8 * theta, 0.5, 1.0 + theta)


def rubbed(theta):
    """A friction that depends on x, with a parameter."""
    return sg.UnderdampedLangevin(sg.Quadratic(), lambda x: 0.3 + theta * x**2, 0.5 * theta)


PHASES, RUBBED = (phase_space, TIMES), (rubbed, TIMES)
CHANNELS, LINEAR, JUMPS = (channels, TIMES), (linear, TIMES), (jumping, TIMES)
OWN, ODE, SDE, FLOW = own(noisy=True), own(noisy=False), reverse(1.0), reverse(0.0)
CASES = {
    "Euler": (sg.EulerMaruyama(2), OWN),
    "Euler, reverse": (sg.EulerMaruyama(), SDE),
    "Euler, chain": (sg.EulerMaruyama(), (chain, torch.arange(6.0, dtype=F64).flip(0))),
    "Heun": (sg.Heun(2), ODE),
    "DRI1": (sg.DRI1(2), OWN),
    "DRI1, channels": (sg.DRI1(), CHANNELS),
    "Milstein": (sg.Milstein(2), OWN),
    "Milstein, channels": (sg.Milstein(), CHANNELS),
    "SRA": (sg.SRA(2), LINEAR),
    "BAOAB": (sg.BAOAB(2), PHASES),
    "BAOAB, friction of x": (sg.BAOAB(2), RUBBED),
    "OBABO": (sg.OBABO(2), PHASES),
    "QUICSORT": (sg.QUICSORT(2), PHASES),
    "SKROCK": (sg.SKROCK(stages=3), OWN),
    "JumpAdapted": (sg.JumpAdapted(sg.EulerMaruyama(2)), JUMPS),
    "ImplicitEuler": (sg.ImplicitEuler(), LINEAR),
    "Heun, reverse": (sg.Heun(), SDE),
    "AdaptiveHeun": (sg.AdaptiveHeun(rtol=1e-4, atol=1e-4), FLOW),
    "TorchDiffEq": (sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9), ODE),
    "TorchDiffEq, flow": (sg.TorchDiffEq("dopri5", rtol=1e-9, atol=1e-9), FLOW),
    "TorchSDE milstein": (sg.TorchSDE("milstein", substeps=2), OWN),
    "TorchSDE srk": (sg.TorchSDE("srk", substeps=2), OWN),
    "TorchSDE srk, reverse": (sg.TorchSDE("srk"), SDE),
    "DDIM": (sg.DDIM(), SDE),
    "ExponentialAdams": (sg.ExponentialAdams(3), FLOW),
    "ExponentialAdamsMoulton": (sg.ExponentialAdamsMoulton(3), SDE),
    "AngularAdams": (sg.AngularAdams(3), FLOW),
    "KarrasHeun": (sg.KarrasHeun(), FLOW),
    "KarrasHeun, churned": (sg.KarrasHeun(sg.Churn(amount=2.0)), FLOW),
    "DPM2": (sg.DPM2(), FLOW),
    "PredictorCorrector": (sg.PredictorCorrector(), SDE),
    "MetropolisCorrector": (sg.MetropolisCorrector(log_p), SDE),
    "FinalDenoising": (sg.FinalDenoising(sg.DDIM()), SDE),
}

TOLERANCE = {"AdaptiveHeun": (3e-3, 1e-2), "TorchDiffEq": (1e-4, 1e-3)}  # relative, and the step


def final(name, theta, x0, **words):
    solver, (sde, times) = CASES[name]
    if sde(theta).phase_space:
        x0 = torch.stack([x0, 0.3 * x0], 1)
    return sg.simulate(sde(theta), x0, times, solver=solver, rng=0, **words).states[-1].sum()


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_central_differences(name):
    tolerance, step = TOLERANCE.get(name.partition(",")[0], (1e-6, 1e-5))
    theta = torch.tensor(0.8, dtype=F64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    of_theta, of_x = torch.autograd.grad(final(name, theta, x0, differentiable=True), (theta, x0))
    difference = float(final(name, 0.8 + step, X0) - final(name, 0.8 - step, X0)) / (2 * step)
    assert float(of_theta) == pytest.approx(difference, rel=tolerance)
    shift = torch.tensor([[step], [0.0], [0.0]], dtype=F64)
    difference = float(final(name, 0.8, X0 + shift) - final(name, 0.8, X0 - shift)) / (2 * step)
    assert float(of_x[0, 0]) == pytest.approx(difference, rel=tolerance, abs=tolerance)


# steps that are chosen, or draw more than normals, cannot be repeated
UNREPEATED = ("Milstein", "SRA", "QUICSORT", "JumpAdapted", "AdaptiveHeun", "TorchDiffEq")


@pytest.mark.parametrize("name", CASES)
def test_steps_that_are_repeated_give_the_same_gradients(name):
    theta = torch.tensor(0.8, dtype=F64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    if name.partition(",")[0] in UNREPEATED:
        with pytest.raises(ValueError, match="takes known steps twice"):
            final(name, theta, x0, differentiable="checkpointed")
        return
    plain = torch.autograd.grad(final(name, theta, x0, differentiable=True), (theta, x0))
    again = final(name, theta, x0, differentiable="checkpointed", keep_path=False)
    for a, b in zip(torch.autograd.grad(again, (theta, x0)), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_no_solver_is_left_out():
    """Every public solver is in the list; a LinearMultistep is what calibration makes of them.

    Metropolis refuses gradients.
    """
    public = {getattr(sg, name) for name in sg.__all__}
    solvers = {v for v in public if isinstance(v, type) and issubclass(v, sg.Solver)}
    tried = {type(solver) for solver, _ in CASES.values()}
    assert solvers - tried == {sg.FixedStep, sg.LinearMultistep, sg.Metropolis, sg.Solver}
