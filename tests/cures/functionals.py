"""Advice on functionals along a path and on free energies, followed."""

import math

import torch

import sdegen as sg
from tests.cures.common import BM, F64, FLOW, OU, WELL, T, column, ensemble, near, warned

TRAP = sg.Langevin(lambda x, t: (x - t) ** 2 / 2)
_ONE = sg.TimeIntegral(lambda x: torch.ones_like(x[:, 0]), name="clock")


def _of(functional, sde=WELL, x0=None, times=T, **options):
    """The values of a functional at the end of a run."""
    x0 = column(0.5) if x0 is None else x0
    path = sg.simulate(sde, x0, times, functionals=[functional], rng=0, **options)
    return path.functionals[functional.name][-1]


def _stored(times, keep_path=True, substeps=1):
    solver = sg.EulerMaruyama(substeps)
    return sg.simulate(
        WELL, column(0.5, 40), times, rng=0, solver=solver, keep_path=keep_path
    )  # fmt: skip


def _near_heat(values):
    """Heat of the well −x²/2 + x⁴/4 from ½ by states that are a thousandth apart."""
    path = _stored(torch.linspace(0.0, 1.0, 1001, dtype=F64))
    found = sg.Heat().along(path, WELL)[-1]
    energy = (path.states**4 / 4 - path.states**2 / 2)[..., 0]
    near(found, energy[-1] - energy[0], 0.05)
    assert bool(values.isfinite().all())


_FAR, _ONCE = [0.0, 2.0, 4.0], [0.0, 1.0]
_FINE = torch.linspace(0.0, 1.0, 201, dtype=F64)
_CUBE = sg.StochasticIntegral(lambda x: x**3, "stratonovich")


def _taken_in_the_run(functional, times):
    values = _of(functional, times=times, solver=sg.EulerMaruyama(500), x0=column(0.5, 40))
    assert bool(values.isfinite().all())


class _ForceAlone:
    def force(self, x):
        return -x


class _Whole(_ForceAlone):
    def energy(self, x):
        return x.square().flatten(1).sum(1) / 2


class _Columns(sg.Potential):
    def energy(self, x):
        return x.square() / 2

    def force(self, x):
        return -x


class _Steep(sg.Potential):
    """An energy that is not that of its force."""

    def energy(self, x):
        return x.square().flatten(1).sum(1)

    def force(self, x):
        return -x


def _falls(values, x0=0.5):
    """Of a particle without noise in x²/2 the heat is −∫ x² dt, (e^{−2t} − 1) x0²/2."""
    near(values.mean(), (math.exp(-2) - 1) * x0**2 / 2, 0.15)


def _window(sde, **options):
    """The local time of a flow from ½ down to 0.18 at 0.3, 1/|drift|, by a window of 0.02."""
    one = sg.TimeIntegral(lambda x: ((x - 0.3).abs() < 0.02).double()[:, 0] / 0.04)
    near(_of(one, sde, solver=sg.EulerMaruyama(200), **options), column(1 / 0.3)[:, 0], 0.05)


def _lost():
    work = torch.tensor([0.1, torch.nan, 0.3], dtype=F64)
    return work, work.isnan()


def _gaussian(n, sigma):
    """Forward and backward works with ΔF = 0 and T = 1."""
    rng = torch.Generator().manual_seed(0)
    return sigma**2 / 2 + sigma * torch.randn(2, n, generator=rng, dtype=F64)


def _zero(found):
    assert abs(found.difference) < 4.42 * found.error


def _compiled(**options):
    return lambda: _of(
        _ONE, BM, boundary=sg.Absorbing(0.0, 1.0), solver=sg.EulerMaruyama(**options)
    )  # fmt: skip


_NAN = sg.TimeIntegral(lambda x, t: torch.where(t > 0.5, torch.nan, 1.0) + 0 * x[:, 0])
_TWO = {"histogram": (-9.0, 9.0, 5)}
_UPTO = sg.Langevin(lambda x, t: torch.where(t > 0.5, torch.nan, 1.0) * x**2)

UNSEEN = {
    "an observable in the place of a functional",
    "jumps beside a bath",
    "an energy that is not that of its force",
    "a protocol that is not finite",
}
"""Rows whose text is put together, or says what to do without one of the verbs."""

AT_REST = sg.UnderdampedLangevin(sg.Quadratic(1.0))
PHASE = torch.zeros(4, 2, 1, dtype=F64)


def _near_level(a, w):
    """Time near a level, over its width."""
    return sg.TimeIntegral(lambda z: ((z.flatten(1)[:, 0] - a).abs() < w).double() / (2 * w))


_STIFFER = sg.Langevin(lambda x, t: torch.where(t < 0.5, 1.0, 4.0) * x**2 / 2, 0.0)


def _before_and_after():
    """Two runs, with the work of the jump between them, 3 x²/2, by hand; x = e^{−t} until then."""
    before = sg.simulate(sg.Langevin(sg.Quadratic(), 0.0), column(1.0), _HALF, solver=sg.Heun(400))
    after = sg.simulate(
        sg.Langevin(sg.Quadratic(4.0), 0.0), before.final, [0.5, 1.0], solver=sg.Heun(400)
    )
    work = sg.Quadratic(4.0).energy(before.final) - sg.Quadratic(1.0).energy(before.final)
    near(work, torch.full_like(work, 1.5 * math.exp(-1.0)), 1e-5)
    near(after.final, column(math.exp(-2.5)), 1e-4)


_HALF = [0.0, 0.5]
FOLLOWED = {
    "a protocol that jumps": (
        "in that step work and heat are right to first order in its length alone",
        lambda: warned(lambda: _of(sg.Work(), _STIFFER, column(1.0), _ONCE, solver=sg.Heun(400))),
        _before_and_after,
    ),
    "a functional of compiled runs that are absorbed": (
        "ends where a trajectory is absorbed",
        _compiled(compile=True),
        lambda: near(_compiled()().clamp(max=1.0), _compiled()()),
    ),
    "an exponential average that was not asked for": (
        "was not gathered; pass temperature=T to the functional",
        lambda: ensemble(_ONE).observables["clock"].exponential,
        lambda: near(
            ensemble(sg.TimeIntegral(lambda x: 1 + 0 * x[:, 0], name="clock", temperature=1.0))
            .observables["clock"]
            .exponential[-1],
            math.exp(-1),
        ),
    ),
    "a histogram of several numbers": (
        "= is of functionals of one number",
        lambda: ensemble(sg.TimeIntegral(lambda x: torch.cat([x, x], 1), **_TWO)),
        lambda: near(
            ensemble(sg.TimeIntegral(lambda x: x[:, 0], **_TWO))
            .observables["time_integral"]
            .histogram.counts[-1]
            .sum(),
            8,
        ),
    ),
    "a functional that is not finite": (
        "is not finite from t = ",
        lambda: warned(lambda: ensemble(_NAN)),
        lambda: near(
            ensemble(_NAN, times=[0.0, 0.2, 0.4]).observables["time_integral"].mean[-1], 0.4
        ),
    ),
    "a path of last states": (
        "is added up over the steps of a path, but this one has",
        lambda: sg.Heat().along(_stored(T, keep_path=False), WELL),
        lambda: (
            _near_heat(sg.Heat().along(_stored(_FINE), WELL)),
            _taken_in_the_run(sg.Heat(), T),
        ),
    ),
    "a path of one interval": (
        "of one interval alone",
        lambda: warned(lambda: sg.Heat().along(_stored(_ONCE, substeps=50), WELL)),
        lambda: (
            _near_heat(warned(lambda: sg.Heat().along(_stored(_FINE), WELL))),
            _taken_in_the_run(sg.Heat(), _ONCE),
        ),
    ),
    "stored states too far apart": (
        "the stored states are too far apart for",
        lambda: warned(lambda: _CUBE.along(_stored(_FAR, substeps=500), WELL)),
        lambda: (
            warned(lambda: _CUBE.along(_stored(torch.linspace(0, 4, 4001, dtype=F64)), WELL)),
            _taken_in_the_run(_CUBE, _FAR),
        ),
    ),
    "one functional for a list": (
        "functionals must be a list of Functionals",
        lambda: sg.simulate(WELL, column(0.5), T, functionals=sg.Heat()),
        lambda: _taken_in_the_run(sg.Heat(), T),
    ),
    "an observable in the place of a functional": (
        r"pass it to run_ensemble\(…, observables=\[…\]\)",
        lambda: sg.simulate(WELL, column(0.5), T, functionals=[sg.Moments()]),
        lambda: near(ensemble(sg.Moments(), FLOW).observables["moments"].mean[0], 0.5),
    ),
    "two functionals of one name": (
        "two functionals are called",
        lambda: sg.simulate(WELL, column(0.5), T, functionals=[_ONE, _ONE]),
        lambda: sg.simulate(
            WELL,
            column(0.5),
            T,
            functionals=[_ONE, sg.TimeIntegral(lambda x: x[:, 0], name="other")],
        ),
    ),
    "local time without noise": (
        "LocalTime is that of a diffusion",
        lambda: _of(sg.LocalTime(0.3), FLOW),
        lambda: _window(FLOW),
    ),
    "local time of a position in phase space": (
        "LocalTime is that of a coordinate with noise",
        lambda: sg.simulate(AT_REST, PHASE, T, functionals=[sg.LocalTime(0.5)], rng=0),
        lambda: sg.simulate(AT_REST, PHASE, T, functionals=[_near_level(0.5, 0.1)], rng=0),
    ),
    "local time at a wall": (
        "from an end of the boundary, where a",
        lambda: _of(sg.LocalTime(0.25), BM, boundary=sg.Reflecting(0.0)),
        lambda: (
            _of(sg.LocalTime(0.25), BM, boundary=sg.Reflecting(0.0), solver=sg.EulerMaruyama(150)),
            _of(sg.LocalTime(4.0), BM, boundary=sg.Reflecting(0.0)),
        ),
    ),
    "a potential with a force alone": (
        "has a force alone; give it energy",
        lambda: _of(sg.Heat(), sg.Langevin(_ForceAlone(), 0.0)),
        lambda: _falls(_of(sg.Heat(), sg.Langevin(_Whole(), 0.0))),
    ),
    "an energy for each coordinate": (
        r"an energy must have shape \(batch,\)",
        lambda: _of(sg.Heat(), sg.Langevin(_Columns(), 0.0)),
        lambda: _falls(_of(sg.Heat(), sg.Langevin(_Whole(), 0.0))),
    ),
    "an energy that is not that of its force": (
        r"Let force\(x\) return −∇U of what energy\(x\) returns",
        lambda: _of(sg.Heat(), sg.Langevin(_Steep(), 0.0)),
        lambda: _falls(_of(sg.Heat(), sg.Langevin(_Whole(), 0.0))),
    ),
    "a protocol that is not finite": (
        "the potential is {} at t = {}, where the run will be",
        lambda: _of(sg.Work(), _UPTO),
        lambda: near(_of(sg.Work(), _UPTO, times=[0.0, 0.1, 0.2]), torch.zeros(4), 0),
    ),
    "an integrand with a number for each trajectory": (
        "one number for each coordinate, but returned shape",
        lambda: _of(sg.StochasticIntegral(lambda x: x[:, 0], "ito"), BM),
        lambda: _of(sg.StochasticIntegral(lambda x: x[:, 0].reshape(x.shape), "ito"), BM),
    ),
    "work that nothing does": (
        "Work is done by a potential that changes with time",
        lambda: _of(sg.Work(), OU),
        lambda: (
            near(_of(sg.Work(lambda x, t: 3 * t + 0 * x), OU), column(3.0)[:, 0]),
            _of(sg.Work(force=lambda x: torch.ones_like(x)), OU),
        ),
    ),
    "heat of multiplicative noise": (
        "of dynamics without a potential needs additive noise",
        lambda: _of(sg.Heat(), sg.ItoProcess(lambda x: -x, 0.0)),
        lambda: (
            _falls(_of(sg.Heat(), sg.Langevin(sg.Quadratic(1.0), 0.0))),
            _of(
                sg.Heat(),
                sg.UnderdampedLangevin(sg.Quadratic(1.0), friction=lambda x: 1 + x**2),
                torch.zeros(4, 2, 1, dtype=F64),
            ),
        ),
    ),
    "heat of noise on velocities": (
        "needs noise on all coordinates, but D = ",
        lambda: _of(
            sg.Heat(),
            sg.ItoProcess(
                lambda x: torch.stack([x[:, 1], -x[:, 0] - x[:, 1]], 1),
                lambda t: torch.tensor([0.0, 1.0], dtype=F64),
            ),
            column(0.5).repeat(1, 2),
        ),
        lambda: _of(
            sg.Heat(),
            sg.UnderdampedLangevin(sg.Quadratic(1.0), temperature=0.5),
            column(0.5).repeat(1, 2)[..., None],
        ),
    ),
    "jumps beside a bath": (
        "what a jump takes from a bath is not said; leave it out",
        lambda: _of(
            sg.Heat(),
            sg.JumpDiffusion(BM, sg.CompoundPoisson(1.0, lambda n, rng: torch.ones(n, 1))),
        ),
        lambda: near(_of(sg.Heat(), BM), torch.zeros(4), 0),
    ),
    "heat of reverse dynamics": (
        "is that of an SDE that runs forwards",
        lambda: _of(sg.Heat(), sg.DDPM(torch.full((9,), 0.1, dtype=F64)), times=torch.arange(4.0)),
        lambda: near(
            _of(_ONE, sg.DDPM(torch.full((9,), 0.1, dtype=F64)), times=torch.arange(4.0)),
            column(3.0)[:, 0],
        ),
    ),
    "an average that few works carry": (
        "rests on {} of them, as",
        lambda: warned(lambda: sg.jarzynski(_gaussian(400, 3.0)[0], 1.0)),
        lambda: (
            _zero(warned(lambda: sg.jarzynski(_gaussian(400_000, 2.0)[0], 1.0))),
            _zero(warned(lambda: sg.jarzynski(_gaussian(400, 0.5)[0], 1.0))),
            _zero(warned(lambda: sg.crooks(*_gaussian(400, 2.0), 1.0))),
        ),
    ),
    "works that hardly overlap": (
        "the works of both sides hardly overlap",
        lambda: warned(lambda: sg.crooks(*_gaussian(100, 5.0), 1.0)),
        lambda: (
            _zero(warned(lambda: sg.crooks(*_gaussian(100, 1.0), 1.0))),
            _zero(warned(lambda: sg.crooks(*_gaussian(20_000, 5.0), 1.0))),
        ),
    ),
    "works of no row": (
        "must have the work of each of two trajectories or more",
        lambda: sg.jarzynski(_gaussian(400, 0.5), 1.0),
        lambda: sg.jarzynski(
            sg.simulate(TRAP, column(0.0, 500), T, functionals=[sg.Work()], rng=0).functionals[
                "work"
            ][-1],
            1.0,
        ),
    ),
    "works of lost trajectories": (
        "leave out trajectories that were lost",
        lambda: sg.jarzynski(_lost()[0], 1.0),
        lambda: (lambda work, lost: near(work[~lost].mean(), 0.2))(*_lost()),
    ),
    "a temperature that is missing": (
        "temperature is missing: pass that of the bath",
        lambda: sg.jarzynski(_gaussian(400, 0.5)[0]),
        lambda: _zero(sg.jarzynski(_gaussian(400, 0.5)[0], 1.0)),
    ),
    "an ensemble without its exponential average": (
        "the result of the ensemble has",
        lambda: sg.jarzynski(ensemble(sg.Work(), TRAP).observables["work"], 1.0),
        lambda: sg.jarzynski(
            ensemble(sg.Work(temperature=1.0), TRAP, trajectories=500).observables["work"]
        ),
    ),
}
