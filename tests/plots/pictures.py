"""Every public picture, called with a small real result: what the tests of style draw.

`PICTURES` has a row for each function of `sdegen.plots`; a row draws one figure, or several where
a function draws several kinds. Films are drawn as their first frame.
"""

import functools
import math

import torch

import sdegen as sg
from sdegen.plots import density as density_room
from sdegen.plots import particle_box
from sdegen.verification.budget import ErrorBudget, ErrorTerm

F64 = torch.float64
WELL = sg.ItoProcess(drift=lambda x: x - x**3 + 0.1, diffusion=0.7)
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
GRID = sg.Grid(-3.0, 3.0, 100)
SOLVER = sg.FokkerPlanck(WELL, GRID)
X = GRID.nodes
ENERGY = X**4 / 4 - X**2 / 2 - 0.1 * X
TIMES = torch.linspace(0, 4, 21, dtype=F64)


@functools.cache
def density():
    return SOLVER.solve(GRID.gaussian(-1.0, 0.2), TIMES)


@functools.cache
def path(event=(1,), trajectories=300):
    x0 = -1 + 0.2 * torch.randn(
        trajectories, *event, generator=torch.Generator().manual_seed(0), dtype=F64
    )
    return sg.simulate(WELL, x0, TIMES, solver=sg.EulerMaruyama(4), rng=0)


@functools.cache
def model():
    score = sg.ScoreModel(sg.MLP(1, width=8, depth=1, rng=0), VP, sg.EpsPrediction())
    data = torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
    config = sg.TrainConfig(steps=60, batch_size=32, warmup=5, validate_every=20)
    return score, data, sg.train(score, data, config, rng=0, validation=data[:50])


def observed(observable, steps=200, dt=0.05):
    times = torch.arange(steps + 1, dtype=F64) * dt
    options = {"solver": sg.EulerMaruyama(), "observables": [observable], "rng": 0}
    starts = math.sqrt(0.5) * torch.randn(
        300, 1, generator=torch.Generator().manual_seed(6), dtype=F64
    )  # at rest
    ensemble = sg.run_ensemble(OU, starts, times, trajectories=300, **options)
    return ensemble.observables[observable.name]


def stored(wrong=1.4, event=(2,), trajectories=12):
    times = torch.linspace(0, 2, 101, dtype=F64)
    x0 = torch.zeros(trajectories, *event, dtype=F64)
    moved = sg.simulate(
        sg.OrnsteinUhlenbeck(1.0, 0.5, wrong), x0, times, solver=sg.EulerMaruyama(), rng=0
    )
    return sg.certify(OU, path=moved, solver=sg.EulerMaruyama())


def on_a_grid():
    wrong = sg.OrnsteinUhlenbeck(1.0, 1.0, 1.0)
    grid = sg.Grid(-5.0, 5.0, 100)
    options = {"solver": sg.EulerMaruyama(20), "trajectories": 300, "rng": 0}
    return sg.certify(OU, grid, grid.gaussian(0.0, 0.5), [0.0, 1.0], simulated=wrong, **options)


def budget(scale):
    x = torch.linspace(-1, 1, 5, dtype=F64)
    law = sg.Density(x, torch.ones(5, dtype=F64) / 2)
    names = ("early stopping", "prior mismatch", "score error", "time discretisation")
    parts = tuple(
        ErrorTerm(name, (i * scale) ** 2, i * scale / 2, 0.0) for i, name in enumerate(names)
    )
    return ErrorBudget(parts, ErrorTerm("whole", 9 * scale, scale, scale), (law,) * 5, 1e-7)


def currents():
    densities = {f"t = {float(TIMES[k]):g}": density().at(k) for k in (1, 10)}
    return sg.plots.current(densities, {k: SOLVER.current(p) for k, p in densities.items()})


def turning():
    turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]], dtype=F64)
    sde = sg.ItoProcess(drift=lambda x: -x - x @ turn.T, diffusion=1.0)
    grid = sg.Grid(-4.5, 4.5, 48)
    solver = sg.FokkerPlanck2D(sde, (grid, grid))
    at_rest = solver.stationary()
    return sg.plots.plane(at_rest, solver.current(at_rest))


def passages(barrier=False):
    if barrier:
        well, grid = sg.Langevin(sg.DoubleWell(), temperature=0.1), sg.Grid(-3.0, 1.0, 100)
        energy = sg.DoubleWell().energy(grid.nodes[:, None]).flatten()
        found = sg.FokkerPlanck(well, grid, ("no-flux", "absorbing")).first_passage()
        return sg.plots.first_passage(found, energy=energy)
    grid = sg.Grid(-1.2, 1.2, 60)
    return sg.plots.first_passage(sg.FokkerPlanck(WELL, grid, "absorbing").first_passage())


def budgets():
    yield sg.plots.error_budget({100: budget(0.01), 10: budget(0.1)})
    yield sg.plots.error_budget({n: budget(1 / n) for n in (10, 20, 50, 100, 200, 500)})


def convergences():
    orders = {"Euler–Maruyama": -1, "DRI1, weak order 2": -2, "Milstein": -1.1}
    curves = {k: [(n, 3 * n**p, 0.3 * n**p) for n in (8, 16, 32, 64)] for k, p in orders.items()}
    yield sg.plots.convergence(curves, slope=-1, quantity="weak error of E X²")
    yield sg.plots.convergence({"a": [(10, 3e-4), (20, 2.2e-4)]}, slope=-0.5)
    wide = {"a": [(n, 1 / n**2) for n in (10, 100, 1_000, 10_000)]}
    yield sg.plots.convergence(wide, slope=-2, quantity="W1")


def paretos():
    curves = {
        "DDPM ancestral": [(25, 0.09, 0.01), (100, 0.05, 0.01)],
        "flow, torchdiffeq dopri5": [(32, 0.07), (140, 0.06)],
    }
    yield sg.plots.pareto(curves, floor=0.021, quantity="energy distance")
    yield sg.plots.pareto({"a": [(1, 3.0), (200, 1e-7)]}, quantity="distance, rms")


def images():
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1


def strip():
    times = torch.linspace(1, 0.001, 31, dtype=F64)
    x = images()[:8]
    states = torch.stack([x + float(t) * torch.randn(x.shape) for t in times])
    nonfinite = torch.zeros(8, dtype=torch.bool)
    return sg.plots.denoising_strip(
        sg.Trajectory(times=times, states=states, nfe=1, seed=0, nonfinite=nonfinite)
    )


def ridges():
    yield sg.plots.density_ridge(density())
    point = sg.FokkerPlanck(WELL, GRID).solve(-1.0, TIMES)
    yield sg.plots.density_ridge(point, count=5)


def together():
    yield sg.plots.density_and_particles(density(), path())
    point = sg.FokkerPlanck(WELL, GRID).solve(-1.0, TIMES)
    yield sg.plots.density_and_particles(point, path(), [0.0, 0.2, 0.4, 1.0, 2.0, 4.0])


def spectra():
    yield sg.plots.spectrum(SOLVER.spectrum(5), SOLVER.stationary(), energy=ENERGY)
    yield sg.plots.spectrum(SOLVER.spectrum(3), SOLVER.stationary())


def at_rest():
    rest = SOLVER.stationary()
    exact = sg.Langevin(sg.Quadratic(1.0), temperature=1.0)
    harmonic = sg.FokkerPlanck(exact, sg.Grid(-6.0, 6.0, 80)).stationary()
    normal = torch.exp(-(harmonic.x**2) / 2) / math.sqrt(2 * math.pi)
    yield sg.plots.stationary(harmonic, normal, energy=harmonic.x**2 / 2)
    yield sg.plots.stationary(rest, rest.p * (1 + 1e-3 * (X > 0.01)))


def moving():
    states = torch.stack([1 + 8 * TIMES / 4, 5 + 0 * TIMES], 1)[:, None, None]
    return sg.Trajectory(
        times=TIMES, states=states, nfe=1, seed=0, nonfinite=torch.zeros(1, dtype=torch.bool)
    )


def boxes():
    cloud = torch.rand(40, 2, generator=torch.Generator().manual_seed(3), dtype=F64) * 8
    yield sg.plots.particles(cloud, diameter=0.8, box=8.0)
    yield sg.plots.particles(moving(), diameter=0.8, box=(10.0, 10.0))
    deep = torch.rand(40, 3, generator=torch.Generator().manual_seed(4), dtype=F64)
    yield sg.plots.particles(deep, diameter=0.1)


def fields():
    x = torch.linspace(0, 6, 13, dtype=F64)
    states = torch.sin(x - 2 * TIMES[:, None])[:, None]
    field = sg.Trajectory(
        times=TIMES, states=states, nfe=1, seed=0, nonfinite=torch.zeros(1, dtype=torch.bool)
    )
    yield sg.plots.space_time(field, places=x, quantity="h")
    yield sg.plots.space_time(field)


def phases():
    trap = sg.UnderdampedLangevin(sg.Quadratic(1.0))
    x0 = torch.randn(400, 2, 1, generator=torch.Generator().manual_seed(5), dtype=F64)
    yield sg.plots.phase_space(sg.simulate(trap, x0, [0.0, 1.0], solver=sg.BAOAB(10), rng=0))
    grid = sg.Grid(-4.0, 4.0, 40)
    v = grid.nodes
    p = torch.exp(-0.5 * (v[:, None] ** 2 + v**2)) / (2 * math.pi)
    yield sg.plots.phase_space(sg.PlaneDensity(v, v, p))


def tracks():
    yield sg.plots.paths(path())
    yield sg.plots.paths(path(event=(2,), trajectories=5))


def clouds():
    data = sg.data.two_moons(400, rng=0)
    names = ["reverse SDE, Euler–Maruyama, 1000 steps", "DDIM", "b", "c"]
    yield sg.plots.samples_2d(dict.fromkeys(names, data + 0.1), data)
    yield sg.plots.samples_2d({"DDIM": data}, data)


def residuals():
    law = sg.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.5]], stds=[0.3, 0.5]).noised(VP)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=F64)
    data = law.mixture.sample(200, rng=0, dtype=F64)
    return sg.plots.score_residuals(
        sg.score_residuals(
            VP, lambda x, t: law.score(x, t) + 0.3 * x @ turn, data, times=[0.01, 0.5, 0.9], rng=0
        )
    )


def kernels():
    law = sg.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], stds=[0.3, 0.3])
    row = [sg.reverse_kernel(VP, law, 0.5, dt) for dt in (0.01, 0.03, 0.1)]
    return sg.plots.reverse_kernels({"VP, two Gaussians": row})


def levels():
    score, data, _ = model()
    return sg.plots.loss_by_level(sg.loss_by_level(score, data[:100], data[100:], levels=6, rng=0))


def survivals():
    found = observed(sg.FirstPassage(above=1.5), dt=0.02, steps=150)
    yield sg.plots.survival({"above 1.5": found})
    yield sg.plots.survival(found, log=False, exact=torch.exp(-0.2 * found.times))


def radial():
    r = torch.linspace(0.05, 5, 80, dtype=F64)
    g = (1 + torch.exp(-r) * torch.cos(6 * r)) * (r > 0.6)
    return sg.plots.radial_distribution(r, g, 0.1 + 0 * r)


def innovations():
    yield sg.plots.innovations(stored())
    yield sg.plots.innovations(stored(1.0, (1,), 3))


def in_time(observable, name, **options):
    return getattr(sg.plots, name)(observed(observable), **options)


def framed(room, draw):
    """Return the first frame of a film, as a figure; nothing is written."""
    frames = []

    def first(figure, panel, moving, draw, *rest):
        draw(0)
        frames.append(figure)

    written, room.write_film = room.write_film, first
    try:
        draw()
    finally:
        room.write_film = written
    (figure,) = frames
    return figure


PICTURES = {
    "certificate": lambda: sg.plots.certificate(on_a_grid()),
    "convergence": convergences,
    "correlation": lambda: in_time(sg.TimeCorrelation(), "correlation"),
    "current": currents,
    "denoising_strip": strip,
    "density_and_particles": together,
    "density_gif": lambda: framed(density_room, lambda: sg.plots.density_gif(density(), "no.gif")),
    "density_heatmap": lambda: sg.plots.density_heatmap(density()),
    "density_ridge": ridges,
    "displacement": lambda: in_time(sg.MeanSquaredDisplacement(), "displacement"),
    "error_budget": budgets,
    "estimates": lambda: sg.plots.estimates(
        {"mean": (0.52, 0.02, 0.5), "rate": (-1.25e-3, 1e-4, -1e-3), "large": (3e7, 1e6, 3e7)}
    ),
    "first_passage": lambda: iter((passages(), passages(barrier=True))),
    "histogram": lambda: sg.plots.histogram(path().final[:, 0], quantity="position x"),
    "image_sheet": lambda: sg.plots.image_sheet({"test digits": images(), "made": images()}),
    "innovations": innovations,
    "loss_by_level": levels,
    "loss_curve": lambda: sg.plots.loss_curve(model()[2]),
    "pareto": paretos,
    "particles": boxes,
    "particles_gif": lambda: framed(
        particle_box, lambda: sg.plots.particles_gif(moving(), "no.gif", diameter=0.8, box=10.0)
    ),
    "paths": tracks,
    "phase_space": phases,
    "plane": turning,
    "power_spectrum": lambda: in_time(sg.PowerSpectrum(50), "power_spectrum"),
    "radial_distribution": radial,
    "relaxation_gif": lambda: framed(
        density_room, lambda: sg.plots.relaxation_gif(density(), path(), "no.gif")
    ),
    "reverse_kernels": kernels,
    "samples_2d": clouds,
    "score_residuals": residuals,
    "space_time": fields,
    "spectrum": spectra,
    "stationary": at_rest,
    "survival": survivals,
}


def drawn(name):
    """Return the figures of a picture."""
    figures = PICTURES[name]()
    return list(figures) if hasattr(figures, "__iter__") else [figures]
