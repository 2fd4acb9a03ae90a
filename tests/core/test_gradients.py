"""A gradient flows, or the tensor that has one is refused by name; under no_grad nothing is."""

import math

import pytest
import torch

import sdegen as sg

F64 = torch.float64
RING = sg.Grid(0.0, 2 * math.pi, 40)
LINE = sg.Grid(-3.0, 3.0, 60)
SQUARE = (sg.Grid(-4.0, 4.0, 16),) * 2


def held(k):
    return sg.ItoProcess(lambda x: k * (x - x**3), 0.7)


def around(k):
    return sg.ItoProcess(lambda x: k * torch.sin(x) + 0.3, 0.7)


def left(k):
    return sg.FokkerPlanck(held(k), sg.Grid(-3.0, 0.8, 60), ("no-flux", "absorbing"))


def plane(k):
    return sg.FokkerPlanck2D(sg.ItoProcess(lambda z: -k * z, 0.7), SQUARE)


def gaussian(k):
    return plane(1.0).gaussian((0.0, 0.0), [[0.25, 0.0], [0.0, 0.25]])


def ensemble(k, **words):
    return sg.run_ensemble(
        held(k), torch.zeros(1, 1, dtype=F64), [0.0, 0.01], trajectories=4, rng=0,
        observables=[sg.Moments()], progress=False, **words,
    )  # fmt: skip


def rest(k):
    with torch.no_grad():
        return sg.FokkerPlanck(held(k), LINE).stationary()


LOST = {
    "current": lambda k: sg.FokkerPlanck(held(k), LINE).current(rest(k)),
    "entropy_production": lambda k: sg.FokkerPlanck(held(k), LINE).entropy_production(rest(k)),
    "free_energy": lambda k: sg.FokkerPlanck(held(k), LINE).free_energy(rest(k)),
    "spectrum": lambda k: sg.FokkerPlanck(held(k), LINE).spectrum(2),
    "correlation": lambda k: sg.FokkerPlanck(held(k), LINE).correlation(lambda x: x, [0.0, 0.1]),
    "turning_spectrum": lambda k: sg.FokkerPlanck(around(k), RING, "periodic").turning_spectrum(2),
    "transport": lambda k: sg.FokkerPlanck(around(k), RING, "periodic").transport(),
    "survival": lambda k: left(k).survival(-1.0, [0.0, 0.5]),
    "escape": lambda k: left(k).escape(),
    "plane at rest": lambda k: plane(k).stationary(),
    "plane in time": lambda k: plane(k).solve(gaussian(k), [0.0, 0.1]),
    "plane current": lambda k: plane(k).current(gaussian(k)),
    "plane entropy production": lambda k: plane(k).entropy_production(gaussian(k)),
    "ensemble": ensemble,
    "certificate": lambda k: sg.certify(
        held(k), LINE, 0.0, [0.0, 0.01], trajectories=200, rng=0
    ),
    "distance": lambda k: sg.metrics.wasserstein_1d(
        k * torch.linspace(-1, 1, 9)[:, None], torch.linspace(-1, 1, 9)[:, None]
    ),
}  # fmt: skip


@pytest.mark.parametrize("ask", LOST.values(), ids=LOST)
@pytest.mark.filterwarnings("ignore::sdegen.AccuracyWarning", "ignore::UserWarning")
def test_a_tensor_that_requires_grad_is_refused_where_nothing_flows(ask):
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    with pytest.raises(TypeError, match=r"requires grad, and an? .* would lose its gradient"):
        ask(k)
    with torch.no_grad():
        ask(k)  # as the message says


def test_what_is_differentiable_flows_or_is_asked_for_numbers():
    """False is an answer in numbers; True has the derivative of the formula, ⟨x²⟩ = 1/(2 k)."""
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    trap = sg.FokkerPlanck(sg.ItoProcess(lambda x: -k * x, 1.0), sg.Grid(-4.0, 4.0, 120))
    assert not trap.stationary().p.requires_grad
    p = trap.stationary(differentiable=True)
    (slope,) = torch.autograd.grad(p.variance, k)
    assert float(slope) == pytest.approx(-1 / (2 * 2.0**2), rel=1e-6)
    with pytest.raises(TypeError, match="the density is, or depends on"):
        trap.entropy_production(trap.stationary(differentiable=True))


def test_quantiles_have_the_gradient_of_the_density():
    """Of N(0, 1/(2k)) they are z/√(2k)."""
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    trap = sg.FokkerPlanck(sg.ItoProcess(lambda x: -k * x, 1.0), sg.Grid(-4.0, 4.0, 120))
    q = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    x = trap.stationary(differentiable=True).quantile(q)
    slopes = torch.stack([torch.autograd.grad(one, k, retain_graph=True)[0] for one in x])
    exact = -0.5 * torch.special.ndtri(q) / (2 * 2.0**3) ** 0.5
    assert torch.allclose(x.detach(), torch.special.ndtri(q) / 2, atol=1e-5)
    assert torch.allclose(slopes, exact, atol=1e-4)


def test_networks_are_sampled_and_certified_without_no_grad():
    """Their weights always require grad; that asks for nothing."""
    model = sg.ScoreModel(sg.MLP(dim=1, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
    run = sg.run_ensemble(
        sg.ReverseSDE(model.sde, model.score), model.sde.prior((1, 1), rng=0), [1.0, 0.9],
        trajectories=4, rng=0, observables=[sg.Moments()], progress=False,
    )  # fmt: skip
    assert not run.observables["moments"].mean.requires_grad


def test_places_of_boundaries_and_injections_do_not_flow():
    k = torch.tensor(1.0, dtype=F64, requires_grad=True)
    free, x = sg.ItoProcess(lambda x: 0 * x, 1.0), torch.zeros(4, 1, dtype=F64)
    with pytest.raises(TypeError, match="a bound is, or depends on, a tensor that requires grad"):
        sg.simulate(
            free, x, [0.0, 0.1], rng=0, boundary=sg.Absorbing(high=lambda t: k + 0 * t),
            differentiable=True,
        )  # fmt: skip
    p = LINE.gaussian(0.0, 0.5)
    injected = sg.FokkerPlanck(held(1.0), LINE, killing=1.0, injection=sg.Density(p.x, p.p * k))
    with pytest.raises(TypeError, match="injection is, or depends on, a tensor that requires"):
        injected.stationary(differentiable=True)


def test_who_asked_first_changes_no_gradient():
    """Errors and quantiles are found without a graph; what they keep for others has one."""
    k = torch.tensor(2.0, dtype=F64, requires_grad=True)
    trap = sg.FokkerPlanck(sg.ItoProcess(lambda x: -k * (x - 0.5), 1.0), sg.Grid(-4.0, 4.0, 60))
    found, y = [], torch.tensor(0.1, dtype=F64)
    for ask in (lambda p: None, lambda p: p.error, lambda p: p.quantile(0.3), sg.Density.trust):
        p = trap.stationary(differentiable=True)
        with torch.no_grad():
            ask(p)
        answers = (p.mean, p.variance, p.entropy, p.cdf(y), p.at(y), p.expect(torch.cos))
        found.append([float(torch.autograd.grad(a, k, retain_graph=True)[0]) for a in answers])
    assert found[1:] == [pytest.approx(found[0], abs=1e-9)] * 3


def test_a_force_by_autograd_is_no_gradient_that_is_lost():
    """What a function makes for itself, to differentiate it, nobody can have a gradient to."""

    def force(x):
        with torch.enable_grad():
            y = x.clone().requires_grad_()
            return -torch.autograd.grad((0.5 * y**2).sum(), y, create_graph=True)[0]

    def seen(x):
        return 1 + 0.1 * torch.tanh(x)

    for sde in (
        sg.Langevin(lambda x: 0.5 * x**2),
        sg.ItoProcess(force, 1.0),
        sg.ItoProcess(lambda x: -x, seen, interpretation="stratonovich"),
    ):
        sg.FokkerPlanck(sde, sg.Grid(-6.0, 6.0, 60)).spectrum(2)
    k = torch.tensor(0.5, dtype=F64, requires_grad=True)
    with pytest.raises(TypeError, match="the drift is, or depends on"):
        sg.FokkerPlanck(sg.Langevin(lambda x: k * x**2), sg.Grid(-6.0, 6.0, 60)).spectrum(2)


def test_a_derivative_inside_a_drift_is_asked_for_where_there_is_a_graph():
    """Runs are without one: torch's own error had said that element 0 does not require grad."""

    def force(x):
        y = x.detach().requires_grad_()
        return -torch.autograd.grad((y**4 / 4).sum(), y)[0]

    def cured(x):
        with torch.enable_grad():
            return force(x)

    asks = (
        lambda f: sg.simulate(sg.ItoProcess(f, 0.5), torch.ones(4, 1), [0.0, 0.01], rng=0),
        lambda f: sg.FokkerPlanck(sg.ItoProcess(f, 0.5), LINE).stationary(),
        lambda f: sg.FokkerPlanck2D(sg.ItoProcess(f, 1.0), SQUARE),
    )
    for ask in asks:
        with pytest.raises(ValueError, match="enable_grad"):
            ask(force)
        ask(cured)


def test_a_point_in_the_plane_on_few_cells():
    """A start without width had ended in a division by zero; the variance is that of the trap."""
    trap = sg.FokkerPlanck2D(sg.ItoProcess(lambda z: -1.3 * z, 0.7), (sg.Grid(-4.0, 4.0, 24),) * 2)
    p = trap.solve((0.0, 0.0), [0.0, 1.0])[-1]
    assert float(p.covariance[0, 0]) == pytest.approx(0.49 / 2.6 * (1 - math.exp(-2.6)), rel=1e-3)
