"""One result of each kind that shows itself, small, with numbers that a test can know."""

import functools

import torch

import sdegen as sg
from sdegen.averages.result import Expectation
from sdegen.calibration.result import Calibration
from sdegen.core.accuracy import ErrorEstimate
from sdegen.diffusion.mismatch import PriorMismatch
from sdegen.diffusion.relaxation import NoisingTime
from sdegen.engine.extrapolate import Extrapolation
from sdegen.engine.samples import Samples
from sdegen.fokker_planck.density2d.density import PlaneDensity
from sdegen.fokker_planck.kinetic.spectrum import KineticSpectrum
from sdegen.fokker_planck.questions.circulation import ComplexSpectrum
from sdegen.fokker_planck.questions.escape import Escape
from sdegen.fokker_planck.questions.passage import PassageTimes
from sdegen.fokker_planck.questions.spectrum import Spectrum
from sdegen.fokker_planck.questions.survival import Survival
from sdegen.fokker_planck.questions.transport import Transport
from sdegen.likelihood.bound_terms import EvidenceBound
from sdegen.likelihood.flow import Likelihood
from sdegen.likelihood.phase_space import PositionBound
from sdegen.measurements.autocorrelation import AutocorrelationTime
from sdegen.measurements.blocking import BlockAverage
from sdegen.measurements.displacement import DiffusionEstimate
from sdegen.measurements.entropy_production import EntropyEstimate
from sdegen.measurements.free_energy import CrooksEstimate, FreeEnergy
from sdegen.measurements.time_average import TimeAverage, TimeCovariance
from sdegen.observables.correlation import Correlation
from sdegen.observables.currents import Current
from sdegen.observables.displacement import Displacements
from sdegen.observables.functional_estimate import FunctionalEstimate
from sdegen.observables.histogram import HistogramCounts
from sdegen.observables.moments import MomentEstimate
from sdegen.observables.particles import SystemMean
from sdegen.observables.passages import Passages
from sdegen.observables.residence import Stays
from sdegen.observables.spectrum import Spectrum as PowerSpectrum
from sdegen.score.levels import LevelLosses
from sdegen.training.result import TrainResult
from sdegen.variational.timed_bound import TimedBound
from sdegen.variational.vae import VariationalBound
from sdegen.verification.budget import ErrorBudget, ErrorBudgets, ErrorTerm
from sdegen.verification.levels.answer import StepBias
from sdegen.verification.levels.expansion import Expansion
from sdegen.verification.reverse_kernel import ReverseKernel
from sdegen.verification.scores.sampler_errors import SamplerError, SamplerErrors

F64 = torch.float64
OU = sg.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
GRID = sg.Grid(-4.0, 4.0, 80)


def numbers(*shape, seed=0):
    """Positive numbers that are all different."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + torch.rand(shape, dtype=F64, generator=generator)


def simulated(dim=1, *, dtype=F64):
    times = torch.linspace(0, 1, 6, dtype=F64)
    return sg.simulate(OU, torch.full((20, dim), 0.5, dtype=dtype), times, rng=7)


@functools.cache
def solver():
    return sg.FokkerPlanck(OU, GRID)


def _sampled():
    """What moves."""
    times = torch.linspace(0, 1, 6, dtype=F64)
    observables = [sg.Moments(), sg.Histogram(-2.0, 2.0, 8), sg.FirstPassage(above=1.0)]
    x, levels = numbers(3, 2), torch.tensor([8, 16])
    return {
        "Trajectory": simulated(2),
        "Ensemble": sg.run_ensemble(
            OU, torch.zeros(1, 2, dtype=F64), times, trajectories=50, observables=observables,
            rng=3,
        ),
        "Samples": Samples(x, sg.EulerMaruyama(), torch.tensor([1.0, 0.5, 0.1], dtype=F64),
                           1.0, 2, 5),
        "Expectation": Expectation(
            0.5, 0.02, 0.95, 0.008, 0.004, levels, torch.tensor([100, 50]), numbers(2),
            numbers(2, seed=1), torch.tensor([800.0, 1600.0]), 2400, 1.0, 1.0, "shared noise", 4,
        ),
        "Extrapolation": Extrapolation(*(numbers(2, seed=k) for k in range(7)), 1.0, 100, 30, 2),
        "SolverTable": sg.which_solver(OU),
        "Calibration": Calibration(
            torch.tensor([1.0, 0.3, 0.01], dtype=F64), sg.EulerMaruyama(), numbers(2, 2, 3),
            0.01, 0.05, 200, 64, {},
        ),
    }  # fmt: skip


def _observed():
    """What observables find."""
    t, lags, edges = torch.linspace(0, 2, 5, dtype=F64), numbers(4).cumsum(0), numbers(6).cumsum(0)
    counts = HistogramCounts(t, edges, torch.arange(25).reshape(5, 5), t.long(), 8 - t.long())
    return {
        "MomentEstimate": MomentEstimate(
            t, 90, numbers(5, 2), numbers(5, 2, seed=1), numbers(5, 2, 2), numbers(5, 2, seed=2)
        ),
        "HistogramCounts": counts,
        "Correlation": Correlation(lags, *(numbers(4, 2, seed=k) for k in range(3)), 90),
        "Displacements": Displacements(
            lags, numbers(4), numbers(4, seed=1) / 9, *(numbers(4, 2, seed=k) for k in range(4)),
            numbers(4, seed=5), numbers(4, 4), None, 90,
        ),
        "Passages": Passages(t, torch.tensor([10, 8, 5, 2, 0]), 10, 9.0, 9.0, 11.0),
        "PowerSpectrum": PowerSpectrum(lags, numbers(4, 1), numbers(4, 1, seed=1) / 9, 90, 8),
        "Current": Current(t, edges, numbers(4, 5), numbers(4, 5, seed=1) / 9),
        "FunctionalEstimate": FunctionalEstimate(
            t, 90, numbers(5), numbers(5, seed=1), numbers(5, seed=2), counts, 1.0, numbers(5),
            numbers(5, seed=3), numbers(5),
        ),
        "Stays": Stays(edges, torch.tensor([9, 5, 3, 2, 1]), torch.tensor([1, 0, 1, 0, 1]), 2, 1,
                       20, 30.0, 10),
        "SystemMean": SystemMean(t, numbers(5, 3), numbers(5, 3, seed=1), numbers(3), numbers(3),
                                 12, lags[:3]),
    }  # fmt: skip


def told(**estimates):
    return {"error": ErrorEstimate(estimates, "two grids")}


def _solved():
    """What a Fokker–Planck solver finds."""
    x, v, y = GRID.nodes, torch.linspace(-2, 2, 5, dtype=F64), torch.linspace(-1, 1, 6, dtype=F64)
    turning = torch.complex(numbers(3), numbers(3, seed=1))
    rates = told(rates=numbers(3), relaxation_time=1e-3)
    return {
        "Density": solver().stationary(),
        "DensityPath": solver().solve(GRID.gaussian(0.5, 0.4), torch.tensor([0.0, 0.5, 1.0])),
        "PlaneDensity": PlaneDensity(y, v, numbers(6, 5), **told(mean=1e-3, covariance=1e-2)),
        "Spectrum": Spectrum(x, numbers(3), numbers(3, 81), numbers(3, 81, seed=1), **rates),
        "ComplexSpectrum": ComplexSpectrum(x, turning, numbers(3, 81) + 0j, **rates),
        "KineticSpectrum": KineticSpectrum(y, v, turning, numbers(3, 6, 5) + 0j, **rates),
        "PassageTimes": PassageTimes(
            y, torch.stack([numbers(6), 2 + numbers(6)]), numbers(6),
            **told(mean=numbers(6) / 9, std=numbers(6) / 99, to_high=numbers(6) / 99),
        ),
        "Survival": Survival(
            v + 2, numbers(5), numbers(5, seed=1), 0.5,
            **told(probability=numbers(5), density=numbers(5)),
        ),
        "Escape": Escape(0.02, 0.021, -1.0, 0.0, 4.0, **told(rate=1e-3)),
        "Transport": Transport(0.3, 0.7, 0.1, **told(velocity=1e-3, diffusion=1e-2, current=1e-3)),
    }  # fmt: skip


def _measured():
    """What is measured of series, works and likelihoods."""
    two, three = (lambda k: numbers(2, seed=k)), (lambda k: numbers(3, seed=k))
    return {
        "TimeAverage": TimeAverage(two(0), two(1), two(2), two(3), two(4), two(5) > 0.5, 100, 4),
        "TimeCovariance": TimeCovariance(two(0), *(numbers(2, 2, seed=k) for k in range(3))),
        "AutocorrelationTime": AutocorrelationTime(two(0), two(1), two(2), two(3), 100, 0.1),
        "BlockAverage": BlockAverage(
            two(0), two(1), two(2), two(3), three(0).cumsum(0), numbers(3, 2), numbers(3, 2) / 9
        ),
        "DiffusionEstimate": DiffusionEstimate(0.5, 0.01, 0.0, 0.1, 2.0, 90),
        "EntropyEstimate": EntropyEstimate(0.5, 0.01, 0.002, three(0)),
        "FreeEnergy": FreeEnergy(1.0, 0.1, 0.4, 300.0, 1000),
        "CrooksEstimate": CrooksEstimate(1.0, 0.1, 0.98, 0.03, 0.6, three(0), three(1), three(2)),
        "PriorMismatch": PriorMismatch(1e-5, 1e-6, "samples"),
        "NoisingTime": NoisingTime(2.0, "spectrum", 1.0, 1e-4, 1e-3, 0.0, lambda t: t),
        "Likelihood": Likelihood(three(0), numbers(3, 2), 50, three(1), 3),
        "EvidenceBound": EvidenceBound(
            three(0), three(1), three(2), numbers(3, 4), three(3), 2, 50, 3
        ),
        "TimedBound": TimedBound(*(three(k) for k in range(6)), 2, 50, 3),
        "VariationalBound": VariationalBound(*(three(k) for k in range(4)), 2, 1, 3),
        "PositionBound": PositionBound(three(0), three(1), 2, 50, 3),
    }


def _learned():
    """What is learned."""
    steps = torch.tensor([2, 4, 6])
    return {
        "TrainResult": TrainResult(
            numbers(6), steps, numbers(3, seed=1), 4, 9, {"kl": numbers(6, seed=2)}
        ),
        "LevelLosses": LevelLosses(
            *(numbers(4, seed=k).cumsum(0) for k in range(3)), numbers(4), numbers(4), numbers(4)
        ),
    }


def budget(scale):
    x = torch.linspace(-1, 1, 5, dtype=F64)
    law = sg.Density(x, torch.ones(5, dtype=F64) / 2)
    names = ("early stopping", "prior mismatch", "score error", "time discretisation")
    parts = tuple(
        ErrorTerm(name, scale * (k + 1), 2 * scale, 3 * scale) for k, name in enumerate(names)
    )
    return ErrorBudget(parts, ErrorTerm("whole", 9 * scale, 9 * scale, scale), (law,) * 5, 1e-6)


def _judged():
    """What simulations, scores and samplers are worth."""
    mixture = sg.GaussianMixture([0.5, 0.5], [-1.0, 1.0], stds=0.3)
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    path = simulated(2)
    long = sg.simulate(OU, torch.zeros(20, 1, dtype=F64), [0.02 * k for k in range(60)], rng=1)
    expansion = Expansion(1.0, numbers(2, 2), numbers(2, 2, 2), 2.0)
    errors = [SamplerError(name, 0.1, 0.01, 0.2, 0.02) for name in ("prior", "score", "steps")]
    return {
        "Certificate on a grid": sg.certify(
            OU, GRID, GRID.gaussian(0.5, 0.4), [0.0, 1.0], solver=sg.EulerMaruyama(20),
            trajectories=200, rng=11,
        ),
        "Certificate": sg.certify(OU, path=path, diagnose=False),
        "PathVerdict": sg.certify(OU, path=path, diagnose=False).steps,
        "Identities": sg.identities(OU, long),
        "ErrorBudget": budget(1e-3),
        "ErrorBudgets": ErrorBudgets({20: budget(1e-3), 10: budget(2e-3)}),
        "ScoreResiduals": sg.score_residuals(
            vp, mixture.noised(vp).score, mixture.sample(200, rng=0), levels=3, rng=2
        ),
        "SamplerErrors": SamplerErrors(
            tuple(errors), SamplerError("whole", 0.3, 0.01), None, numbers(4, 2), 6
        ),
        "StepBias": StepBias(
            0.1, {"x": numbers(2)}, {"x": numbers(2)}, {"x": expansion}, 1.0, True, 100, 50,
            0.95, 8,
        ),
        "ReverseKernel": ReverseKernel(
            0.5, 0.1, numbers(4).cumsum(0), *(numbers(4, seed=k) for k in range(7)), None,
            numbers(4), 0.1, 0.2, 0.3, ErrorEstimate({"p": 1e-4}, "Bayes"),
        ),
    }  # fmt: skip


@functools.cache
def all_kinds():
    """A result of each kind, by the name of its class and what is particular of it."""
    groups = (_sampled, _observed, _solved, _measured, _learned, _judged)
    return {name: result for group in groups for name, result in group().items()}
