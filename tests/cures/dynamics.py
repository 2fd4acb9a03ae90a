"""Advice on processes, potentials and chains, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import (
    BM,
    F64,
    GAUSS,
    GRID,
    TWO,
    VP,
    column,
    fp,
    near,
    simulate,
)

RATES = torch.tensor([[0.5], [1.0], [2.0], [4.0]], dtype=F64)


def scales_of_two_coordinates():
    """A noise matrix that is diagonal: each coordinate walks its own multiple of one path."""
    scales = torch.tensor([0.5, 2.0], dtype=F64)
    both = sg.ItoProcess(
        lambda x: 0 * x, lambda x, t: torch.tensor([0.5, 2.0]).to(x), noise="additive"
    )
    near(simulate(both, TWO).final, scales * simulate(BM, TWO).final)


def decays(rates, drift, parameters=None):
    """ẋ = −k x ends at e^{−k}."""
    process = sg.ItoProcess(drift, 0.0, parameters=parameters)
    near(simulate(process, column(1.0), solver=sg.Heun(40)).final, torch.exp(-rates), 1e-4)


class WrongRates(sg.VP):
    """Rates of another path than its α and σ."""

    def drift_rate(self, t):
        return 2 * super().drift_rate(t)


class DerivedRates(sg.VP):
    """The same without rates of its own."""

    drift_rate = sg.GaussianPath.drift_rate
    diffusion_rate = sg.GaussianPath.diffusion_rate


def derived_rates():
    path = DerivedRates(VP.beta)
    path.check_rates()
    t = torch.tensor([0.1, 0.7], dtype=F64)
    near(path.drift_rate(t), VP.drift_rate(t))
    near(path.diffusion_rate(t), VP.diffusion_rate(t))


def gradient_of_a_run(drift):
    """d x(1)/d x(0) of ẋ = −x (1 + x²/10) by Heun, or a refusal."""
    x0 = column(0.5, 1).requires_grad_()
    path = simulate(sg.ItoProcess(drift, 0.0), x0, solver=sg.Heun(4), differentiable=True)
    (slope,) = torch.autograd.grad(path.final.sum(), x0)
    return float(slope)


def seen_by_autograd():
    up, down = (
        simulate(
            sg.ItoProcess(lambda x: -x * (1 + x**2 / 10), 0.0),
            column(0.5 + h, 1),
            solver=sg.Heun(4),
        )
        for h in (1e-4, -1e-4)
    )
    slope = gradient_of_a_run(lambda x: -x * (1 + x**2 / 10))
    near(slope, float((up.final - down.final) / 2e-4), 1e-7)


def twice_the_noise(**declared):
    """A Brownian motion of σ = 2 that adds its noise itself."""

    def add_noise(self, after, x, t, root_dt, noise):
        return after + 2 * root_dt * noise.normal()

    return type("Twice", (sg.BrownianMotion,), {"add_noise": add_noise} | declared)(2.0)


def score_of_another_path():
    """A model of its own path, and one that is meant to be asked on another."""
    model = sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1, rng=0), VP)
    other = sg.VP(sg.LinearBeta(0.1, 10.0))
    with torch.no_grad():
        own = sg.ReverseSDE(model.sde, model.score)
        near(own.score(column(1.0), 0.5), model(column(1.0), 0.5))
    meant = sg.ReverseSDE(other, lambda x, t: model.score(x, t))
    assert bool(simulate(meant, times=[0.9, 0.5]).final.isfinite().all())


def family_of_parameters():
    """One density for each trajectory: σ²/2k of an Ornstein–Uhlenbeck process."""
    each = [sg.OrnsteinUhlenbeck(float(k)) for k in RATES[1:3]]
    law = sg.FokkerPlanckBatch(each, GRID).stationary()
    near([float(sg.Density(GRID.nodes, p).variance) for p in law], [1.0, 0.5], 1e-3)


def noise_induced(g, **given):
    """What a Stratonovich process adds to a drift of 0 at x = 2, once a run has looked at it."""
    process = sg.ItoProcess(lambda x: 0 * x, g, interpretation="stratonovich", **given)
    simulate(process, column(2.0), [0.0, 1e-6])
    return process.drift(column(2.0), torch.tensor(0.0, dtype=F64)).detach()


def noise_seen():
    """½ g g' = x (1 + x²) of g = 1 + x², with autograd or a derivative that is given."""
    near(noise_induced(lambda x: 1 + x**2), 10.0)
    hidden = noise_induced(
        lambda x: 1 + x * x.detach(), diffusion_derivative=lambda x: 2 * x.detach()
    )
    near(hidden, 10.0)
    # a step from 1 to 2 at x = 2, as a slope of length 0.2: ½ (1.5) (5)
    near(noise_induced(lambda x: 1 + (5 * (x - 1.9)).clamp(0, 1)), 3.75, 1e-6)


def mixed(x):
    """1 + |x|²/10 for each coordinate: it depends on the others, too."""
    return (1 + 0.1 * (x**2).sum(1, keepdim=True)).expand_as(x)


def drift_of_ones_own():
    """The noise-induced drift by hand is that of one number for each trajectory."""
    x, t = torch.tensor([[1.0, 2.0]], dtype=F64), torch.tensor(0.0, dtype=F64)
    own = sg.ItoProcess(lambda x: 0.5 * mixed(x) * 0.2 * x, mixed)
    simulate(own, TWO)
    one = sg.ItoProcess(lambda x: 0 * x, lambda x: mixed(x)[:, :1], interpretation="stratonovich")
    near(own.drift(x, t), one.drift(x, t).detach())


def force_of(potential):
    """The force at x = 2, once a run has looked at it."""
    process = sg.Langevin(potential)
    simulate(process, column(2.0), [0.0, 1e-6])
    return process.drift(column(2.0), torch.tensor(0.0, dtype=F64)).detach()


def by_numpy(x):
    """U = x⁴/4 + x², of which autograd sees nothing."""
    x = x.detach().numpy()
    return torch.from_numpy(x**4 / 4 + x**2)


def parameters_of_rows():
    """ẋ = −k x with k of each trajectory, by name or in one piece."""
    decays(RATES, lambda x, t, k: -k * x, {"k": RATES})
    path = simulate(
        sg.ItoProcess(lambda x: -RATES * x, 0.0), column(1.0), solver=sg.Heun(40), interacting=True
    )
    near(path.final, torch.exp(-RATES), 1e-4)


def well_of_parameters():
    """dU/da of a double well is x⁴; of its normalised law the value is told."""
    a = torch.tensor(0.25, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(sg.DoubleWell(a).energy(column(2.0, 1)).sum(), a)
    near(slope, 16.0)
    grid = torch.linspace(-6, 6, 2001, dtype=F64)
    law = sg.DoubleWell(a.item()).log_prob(grid[:, None]).exp()
    near(torch.trapezoid(law, grid), 1.0, 1e-6)


FOLLOWED = {
    # --- processes of one's own
    "a noise matrix": (
        r"for a matrix G of shape \(\*event, m\) pass channels=m too",
        lambda: sg.ItoProcess(lambda x: -x, torch.diag(torch.tensor([0.5, 2.0]))),
        scales_of_two_coordinates,
    ),
    "a parameter that is one number": (
        "but is one number: write it into the function itself",
        lambda: sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters={"k": 0.5}),
        lambda: decays(torch.tensor(0.5), lambda x: -0.5 * x),
    ),
    "a parameter that nobody takes": (
        "but neither drift nor diffusion takes an argument of that name",
        lambda: sg.ItoProcess(lambda x: -x, 0.0, parameters={"k": RATES}),
        lambda: decays(RATES, lambda x, t, k: -k * x, {"k": RATES}),
    ),
    "a slope that nothing needs": (
        "diffusion_derivative goes with a g",
        lambda: sg.ItoProcess(
            lambda x: -x, 0.5, diffusion_derivative=lambda x: torch.ones_like(x)
        ),
        lambda: near(sg.ItoProcess(lambda x: -x, 0.5).drift(column(2.0), torch.tensor(0.0)), -2.0),
    ),
    "a derivative that autograd does not see": (
        "changes with x in a way that autograd does not see",
        lambda: gradient_of_a_run(lambda x: -x * (1 + x.detach() ** 2 / 10)),
        seen_by_autograd,
    ),
    "rates that do not belong": (
        "does not belong to its α and σ",
        lambda: sg.ReverseSDE(WrongRates(VP.beta), GAUSS.score),
        derived_rates,
    ),
    "a potential that is a class": (
        r"potential must be an object, but is the class",
        lambda: sg.Langevin(sg.DoubleWell),
        lambda: near(sg.Langevin(sg.DoubleWell()).drift(column(2.0), torch.tensor(0.0)), -6.0),
    ),
    "two spreads of a mixture": (
        "give either stds or covariances",
        lambda: sg.GaussianMixture([1.0], [[0.0]], stds=0.5, covariances=[[[0.25]]]),
        lambda: near(
            sg.GaussianMixture([1.0], [[0.0]], stds=0.5).log_prob(column(1.0)),
            sg.GaussianMixture([1.0], [[0.0]], covariances=[[[0.25]]]).log_prob(column(1.0)),
        ),
    ),
    "an activation that is a word": (
        "activation must be a function",
        lambda: sg.RateNetwork(torch.eye(2), activation="tanh"),
        lambda: near(
            sg.RateNetwork(torch.eye(2), activation=torch.tanh).drift(
                torch.ones(1, 2, dtype=F64), torch.tensor(0.0)
            ),
            math.tanh(1.0) - 1.0,
        ),
    ),
    "parameters of trajectories in a density": (
        "and each of them has a density of its own",
        lambda: fp(sg.ItoProcess(lambda x, k: -k * x, 1.0, parameters={"k": RATES[:2]})),
        family_of_parameters,
    ),
    "noise that autograd sees in part": (
        "If a part of g is hidden from autograd",
        lambda: noise_induced(lambda x: 1 + x * x.detach()),
        noise_seen,
    ),
    "noise that mixes coordinates": (
        "Add the noise-induced drift yourself",
        lambda: simulate(
            sg.ItoProcess(lambda x: 0 * x, mixed, interpretation="stratonovich"), TWO + 1
        ),
        drift_of_ones_own,
    ),
    "one energy for all states": (
        "a potential must return one energy for each state",
        lambda: force_of(lambda x: (x**4 / 4).sum()),
        lambda: near(force_of(lambda x: (x**4 / 4).sum(1)), -8.0),
    ),
    "a potential that autograd sees in part": (
        "If a part of it is hidden from autograd",
        lambda: force_of(lambda x: x**4 / 4 + x.detach() ** 2),
        lambda: (
            near(force_of(lambda x: x**4 / 4 + x**2), -12.0),
            near(force_of(by_numpy), -12.0, 1e-6),
        ),
    ),
    "a normalised law that wants a gradient": (
        r"energy\(x\) keeps it, or pass its value",
        lambda: sg.DoubleWell(torch.tensor(0.25, requires_grad=True)).log_prob(column(2.0)),
        well_of_parameters,
    ),
    "a field that knows its rows": (
        "If it holds one parameter for each trajectory, pass it as",
        lambda: simulate(sg.ItoProcess(lambda x: -RATES * x, 0.0), column(1.0)),
        parameters_of_rows,
    ),
    "a table that ends without signal": (
        "leave that level out of the table",
        lambda: sg.TabulatedBeta([0.9, 0.5, 0.0]),
        lambda: near(sg.TabulatedBeta([0.9, 0.5]).integral(1.0), -math.log(0.5), 1e-6),
    ),
    # --- chains and tables
    "steps and times of a chain": (
        "give steps, or times of your own",
        lambda: sg.DDPM.discretize(VP, 4, times=[0.0, 0.5, 1.0]),
        lambda: near(
            sg.DDPM.discretize(VP, 4).alpha_bars,
            sg.DDPM.discretize(VP, times=torch.linspace(0, 1, 5)).alpha_bars,
        ),
    ),
    "an SDE in the place of a chain": (
        "chain must be a DDPM chain",
        lambda: sg.AncestralChain(VP, GAUSS.score),
        lambda: near(
            sg.AncestralChain(sg.DDPM.discretize(VP, steps=9), GAUSS.score).chain.alpha_bars[-1],
            VP.alpha(torch.tensor(1.0, dtype=F64)) ** 2,
        ),
    ),
    "a table that wants a gradient": (
        "alpha_bars is a tensor that requires grad",
        lambda: sg.TabulatedBeta(torch.tensor([0.9, 0.5, 0.1], requires_grad=True)),
        lambda: near(
            sg.TabulatedBeta(torch.tensor([0.9, 0.5, 0.1], requires_grad=True).detach()).integral(
                2 / 3
            ),
            -math.log(0.5),
            1e-6,
        ),
    ),
    "noise of one's own that is not declared": (
        "defines add_noise, but does not declare its structure",
        lambda: twice_the_noise(),
        lambda: near(
            simulate(twice_the_noise(noise_structure="diagonal"), TWO).final,
            simulate(sg.BrownianMotion(2.0), TWO).final,
        ),
    ),
    "rates by their names of 0.1": (
        "since version 0.2: call it",
        lambda: type("OldRates", (sg.VP,), {"rate": lambda self, t: 0 * t}),
        lambda: near(
            type("NewRates", (sg.VP,), {"drift_rate": lambda self, t: 3 * t})(VP.beta).drift_rate(
                torch.tensor(2.0)
            ),
            6.0,
        ),
    ),
    "a score of another path": (
        "the score is that of another SDE",
        lambda: sg.ReverseSDE(sg.VP(sg.LinearBeta(0.1, 10.0)), GAUSS.score),
        score_of_another_path,
    ),
}
