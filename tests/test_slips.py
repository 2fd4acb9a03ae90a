"""Slips: wrong kinds, shapes and orders of every argument of the calls that users make.

Each call of README's programs and table is made with each of its arguments replaced by a float,
an int, a NumPy array, a list, a function, None, a word, an array of another shape, and with two
neighbours exchanged. It works, or ends in a `raise` of the package, with a text of ours: no error
of torch, NumPy or Python comes through.
"""

import dis
import functools
import itertools
import shutil
import tempfile
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import sdegen as sg

PACKAGE = str(Path(sg.__file__).parent)
F64 = torch.float64
VP = sg.VP(sg.LinearBeta(0.1, 20.0))
OU = sg.OrnsteinUhlenbeck()
DAMPED = sg.ScoreModel(sg.MLP(2, width=4, depth=1, rng=0), sg.UnderdampedLangevin(sg.Quadratic()))
GRID = sg.Grid(-8.0, 8.0, 40)
TIMES = torch.tensor([0.0, 0.1, 0.2], dtype=F64)
X0 = torch.zeros(6, 1, dtype=F64)
X2 = torch.zeros(5, 2, dtype=F64)
START = GRID.gaussian(0.0, 1.0)
FP = sg.FokkerPlanck(OU, GRID)
SIDE = sg.Grid(-1.0, 6.0, 40)
EXIT = sg.FokkerPlanck(
    sg.Langevin(sg.DoubleWell(), 0.3), sg.Grid(-3.0, 0.0, 60), ("no-flux", "absorbing")
)
PLANE = sg.FokkerPlanck2D(OU, (sg.Grid(-5.0, 5.0, 12),) * 2)
MIXTURE = sg.GaussianMixture([0.5, 0.5], [[-0.5], [0.5]], stds=0.5)
LAW = MIXTURE.noised(VP)
JUDGED = MIXTURE.sample(100, rng=0, dtype=F64)
FOUND = sg.score_residuals(VP, LAW.score, JUDGED, levels=2, rng=0)
MEASURED = sg.LinearMeasurement(torch.ones(1, 1, dtype=F64), torch.ones(1, dtype=F64), 0.5)
CHAIN = sg.DDPM.discretize(VP, 4)
UP = sg.LinearGaussian([[0.8]], 0.36)
LADDER = sg.HierarchicalVAE([UP], [UP], (1, 1))
MODEL = sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1), VP)
TELLS = sg.ScoreModel(
    sg.MLP(dim=1, width=4, depth=1, variance=True, rng=0), VP, sg.LearnedVariance()
)
TOLD = sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1, conditions=2, rng=0), VP)
CLASSED = sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1, classes=3), VP)
FLOW = sg.ReverseSDE(VP, LAW.score, 0.0)
NOISE = VP.prior((8, 1), rng=0)
ROOT = sg.ItoProcess(lambda x: 1 - x, torch.sqrt)
QUICK = sg.Heun(2)
BROWNIAN = sg.BrownianMotion()
STORED = torch.randn(40, 5, 1, generator=torch.Generator().manual_seed(0)).cumsum(0)

BIAS = sg.step_bias(OU, {"x": lambda x: x[:, 0]}, dt=0.1, x0=X0, t=0.2, trajectories=30, rng=0)


class LeastSquares(sg.Loss):
    """(module(x) − y)²."""

    def __call__(self, module, batch, noise):
        return (module(batch.rows) - batch.labels).square().sum(1)


POINTS = torch.linspace(-1, 1, 8)[:, None]
FIT = sg.FitConfig(steps=2, batch_size=4)
ENERGY = sg.EnergyModel(torch.nn.Linear(1, 1, bias=False), base_std=1.0)
MACHINE = sg.RBM(3, 2, rng=0)
COINS = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
FEW = sg.TrainConfig(steps=2, batch_size=4)


def drift(x, t):
    return -x


def model():
    """A model of its own for each training."""
    return sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1), VP)


def asserted(**arguments):
    """Whether states follow an SDE; that they do not is no slip."""
    try:
        return sg.assert_follows(**arguments).passed
    except AssertionError:
        return False


def trained(model, data, config):
    return sg.train(model, data, config, rng=0)


# name: (call, arguments that are right)
CALLS = {
    "ItoProcess": (
        lambda drift, diffusion: sg.simulate(sg.ItoProcess(drift, diffusion), X0, TIMES, rng=0),
        {"drift": drift, "diffusion": 0.7},
    ),
    "ItoProcess, words": (
        lambda **a: sg.ItoProcess(drift, lambda x: 1 + x**2, **a),
        {"interpretation": "ito", "noise": None, "autonomous": None, "diffusion_derivative": None},
    ),
    "simulate": (
        lambda **a: sg.simulate(**a),
        {
            "sde": OU,
            "x0": X0,
            "times": TIMES,
            "solver": None,
            "rng": 0,
            "keep_path": True,
            "interacting": None,
            "threads": 1,
        },
    ),
    "EulerMaruyama": (sg.EulerMaruyama, {"substeps": 10}),
    "Heun": (sg.Heun, {"substeps": 10}),
    "Grid": (sg.Grid, {"low": -3.0, "high": 3.0, "cells": 20}),
    "Grid.gaussian": (GRID.gaussian, {"mean": 0.0, "std": 1.0}),
    "Density": (sg.Density, {"x": GRID.nodes, "p": START.p}),
    "FokkerPlanck": (
        sg.FokkerPlanck,
        {"sde": OU, "grid": GRID, "boundary": "no-flux"},
    ),
    "FokkerPlanck.solve": (FP.solve, {"p0": START, "times": TIMES}),
    "FokkerPlanck.spectrum": (FP.spectrum, {"count": 4}),
    "FokkerPlanck.current": (FP.current, {"density": START}),
    "FokkerPlanck.first_passage": (EXIT.first_passage().at, {"x0": -1.0}),
    "FokkerPlanck.survival": (EXIT.survival, {"x0": -1.0, "times": TIMES}),
    "FokkerPlanck.correlation": (
        FP.correlation,
        {"f": lambda x: x, "times": [0.0, 1.0], "g": lambda x: x},
    ),
    "FokkerPlanck.entropy_production": (FP.entropy_production, {"density": START}),
    "FokkerPlanckBatch": (sg.FokkerPlanckBatch, {"sdes": [OU, OU], "grid": GRID}),
    "FokkerPlanck2D": (sg.FokkerPlanck2D, {"sde": OU, "grids": (SIDE, SIDE)}),
    "FokkerPlanck2D.gaussian": (
        PLANE.gaussian,
        {"mean": (0.0, 0.0), "covariance": [[1.0, 0.0], [0.0, 1.0]]},
    ),
    "certify": (
        lambda **a: sg.certify(**a, trajectories=200, rng=0),
        {
            "sde": OU,
            "grid": GRID,
            "p0": START,
            "times": TIMES,
            "solver": sg.EulerMaruyama(),
            "potential": None,
            "temperature": 1.0,
        },
    ),
    "certify, stored states": (
        sg.certify,
        {
            "sde": OU,
            "path": STORED,
            "dt": 0.1,
            "solver": None,
            "boundary": None,
            "false_alarm": 1e-6,
        },
    ),
    "assert_follows": (
        asserted,
        {
            "sde": BROWNIAN,
            "path": STORED,
            "dt": 1.0,
            "times": None,
            "solver": None,
            "boundary": None,
            "false_alarm": 1e-6,
        },
    ),
    "step_bias": (
        lambda **a: sg.step_bias(**a, trajectories=30, steps=64, rng=0),
        {
            "sde": OU,
            "observables": {"x": lambda x: x[:, 0]},
            "dt": 0.1,
            "path": STORED,
            "solver": None,
            "boundary": None,
            "confidence": 0.9,
        },
    ),
    "step_bias, at a time": (
        lambda **a: sg.step_bias(OU, {"x": lambda x: x[:, 0]}, **a),
        {"dt": 0.1, "x0": X0, "t": 0.2, "trajectories": 30, "rng": 0},
    ),
    "StepBias.at": (BIAS.at, {"dt": 0.05}),
    "StepBias.checks": (BIAS.checks, {"limit": 0.01}),
    "ChainDensity": (
        sg.ChainDensity,
        {"dynamics": OU, "grid": GRID, "solver": sg.EulerMaruyama()},
    ),
    "ChainDensity.run": (sg.ChainDensity(OU, GRID).run, {"p0": START, "times": TIMES}),
    "metrics.total_variation": (
        sg.metrics.total_variation,
        {"samples": X0 + torch.linspace(-1, 1, 6, dtype=F64)[:, None], "density": START},
    ),
    "metrics.sliced_wasserstein": (sg.metrics.sliced_wasserstein, {"x": X2, "y": X2}),
    "cite": (sg.cite, {"method": "BAOAB"}),
    "metrics.energy_distance": (sg.metrics.energy_distance, {"x": X2, "y": X2}),
    "metrics.mmd": (
        sg.metrics.mmd,
        {"x": X2, "y": X2, "kernel": "gaussian", "scale": 1.0},
    ),
    "plots.density_and_particles": (
        sg.plots.density_and_particles,
        {"density": FP.solve(START, TIMES), "path": sg.simulate(OU, X0, TIMES, rng=0)},
    ),
    "data.two_moons": (sg.data.two_moons, {"n": 5, "noise": 0.05, "rng": 0}),
    "LinearBeta": (sg.LinearBeta, {"beta_min": 0.1, "beta_max": 20.0}),
    "VP": (lambda **a: sg.VP(**a), {"beta": sg.LinearBeta(0.1, 20.0), "t_min": 1e-3}),
    "VE": (lambda **a: sg.VE(**a), {"schedule": sg.GeometricSigma(0.1, 2.0), "t_min": 1e-3}),
    "EDM": (lambda **a: sg.EDM(**a), {"t_min": 0.01, "t_max": 8.0}),
    "RectifiedFlow": (lambda **a: sg.RectifiedFlow(**a), {"t_min": 0.01, "t_max": 0.9}),
    "MLP": (lambda **a: sg.MLP(**a), {"dim": 2, "width": 4, "depth": 1}),
    "ScoreModel": (
        sg.ScoreModel,
        {"network": MODEL.network, "sde": VP, "parameterization": sg.EpsPrediction()},
    ),
    "ScoreModel.score": (MODEL.score, {"x_t": X0, "t": 0.5}),
    "ScoreModel.conditional": (CLASSED.conditional, {"labels": 1}),
    "MeanPrediction": (sg.MeanPrediction, {"sde": VP, "steps": 4}),
    "predictor_weights": (
        sg.variational.predictor_weights,
        {"chain": CHAIN.reverse(LAW.score, "beta"), "parameterization": sg.X0Prediction()},
    ),
    "predictor_terms": (
        sg.variational.predictor_terms,
        {"chain": CHAIN.reverse(LAW.score, "beta"), "x0": X0, "eps": X0, "k": 2},
    ),
    "EDMPrediction": (sg.EDMPrediction, {"sigma_data": 0.5}),
    "train": (
        lambda data, config: trained(model(), data, FEW if config is None else config),
        {"data": POINTS, "config": FEW},
    ),
    "train, model": (
        lambda model: trained(model, POINTS, FEW),
        {"model": MODEL},
    ),
    "train, labels": (
        lambda **a: sg.train(model(), POINTS, FEW, rng=0, **a),
        {"labels": None, "validation": None},
    ),
    "train, loss": (
        lambda loss: sg.train(model(), POINTS, FEW, rng=0, loss=loss),
        {"loss": sg.DenoisingLoss()},
    ),
    "EnergyModel": (sg.EnergyModel, {"network": torch.nn.Linear(1, 1), "base_std": 1.0}),
    "EnergyModel.energy": (ENERGY.energy, {"x": X0}),
    "EnergyModel.score": (ENERGY.score, {"x": X0}),
    "EnergyModel.log_partition": (ENERGY.log_partition, {"grids": GRID}),
    "ContrastiveDivergence": (
        sg.ContrastiveDivergence,
        {
            "steps": 2,
            "chains": 8,
            "restart": 0.1,
            "step_size": 0.1,
            "start": "data",
            "metropolis": True,
            "hottest": 2.0,
        },
    ),
    "ContrastiveDivergence, fit": (
        lambda **a: sg.fit(config=FIT, rng=0, **a),
        {"module": ENERGY, "data": torch.zeros(8, 1), "loss": sg.ContrastiveDivergence(2)},
    ),
    "GibbsDivergence": (
        sg.energy.GibbsDivergence,
        {"steps": 2, "chains": 8, "restart": 0.1},
    ),
    "RBM": (sg.RBM, {"visible": 3, "hidden": 2, "rng": 0}),
    "RBM.free_energy": (MACHINE.free_energy, {"v": COINS}),
    "RBM.log_likelihood": (MACHINE.log_likelihood, {"v": COINS, "log_partition": 1.0}),
    "RBM.sample": (MACHINE.sample, {"n": 2, "steps": 2, "start": COINS, "rng": 0}),
    "annealed_log_partition": (
        sg.energy.annealed_log_partition,
        {"machine": MACHINE, "chains": 4, "temperatures": 3, "data": COINS, "rng": 0},
    ),
    "log_partition_gradient": (
        sg.energy.log_partition_gradient,
        {"model": MACHINE, "samples": COINS},
    ),
    "fit": (
        lambda **a: sg.fit(**({"config": FIT, "labels": torch.ones(8, 1)} | a), rng=0),
        {
            "module": torch.nn.Linear(1, 1),
            "data": torch.zeros(8, 1),
            "loss": LeastSquares(),
        },
    ),
    "fit, config": (
        lambda config: sg.fit(
            torch.nn.Linear(1, 1),
            torch.zeros(8, 1),
            LeastSquares(),
            FIT if config is None else config,
            labels=torch.ones(8, 1),
            rng=0,
        ),
        {"config": FIT},
    ),
    "FitConfig": (
        lambda **a: sg.FitConfig(**a),
        {"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
    ),
    "DenoisingLoss": (
        sg.DenoisingLoss,
        {
            "weighting": "simple",
            "label_dropout": 0.1,
            "times": "uniform",
            "stratified": True,
            "steps": CHAIN,
        },
    ),
    "HybridLoss": (
        sg.HybridLoss,
        {"weighting": "simple", "times": "uniform", "steps": CHAIN, "vlb_weight": 0.01},
    ),
    "LearnedVariance": (sg.LearnedVariance, {"mean": sg.VPrediction()}),
    "DDPM.reverse, learned": (CHAIN.reverse, {"score": TELLS.score, "variance": "learned"}),
    "ImplicitLoss": (sg.ImplicitLoss, {"weighting": "simple", "label_dropout": 0.1, "at": 0.5}),
    "SlicedLoss": (
        sg.SlicedLoss,
        {"at": 0.5, "projections": 2, "variance_reduced": True, "directions": "gaussian"},
    ),
    "StableTargetLoss": (sg.StableTargetLoss, {"weighting": "simple", "references": 4}),
    "TransitionMatching": (
        sg.TransitionMatching,
        {"kind": "malliavin", "window": 0.2, "step": 0.01, "paths": 16, "reads": 4, "reuse": 2.0},
    ),
    "TrainConfig": (
        lambda **a: sg.TrainConfig(**a),
        {"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
    ),
    "VP.alpha": (VP.alpha, {"t": 0.5}),
    "VP.perturb": (VP.perturb, {"x0": X0, "t": 0.5}),
    "VP.prior": (VP.prior, {"shape": (4, 2), "rng": 1}),
    "VP.time_grid": (VP.time_grid, {"steps": 5}),
    "ReverseSDE": (sg.ReverseSDE, {"forward": VP, "score": LAW.score, "eta": 1.0}),
    "ReverseSDE, run": (
        lambda score: sg.simulate(sg.ReverseSDE(VP, score), X0, VP.time_grid(3), rng=0),
        {"score": LAW.score},
    ),
    "position_bound": (
        lambda **a: sg.position_bound(**a, solver=QUICK, rng=0),
        {"sde": DAMPED.sde, "score": DAMPED.score, "x": X0, "samples": 2, "importance": 2},
    ),
    "log_likelihood": (
        lambda **a: sg.log_likelihood(**a, solver=QUICK, rng=0),
        {"sde": VP, "score": LAW.score, "x": X0, "divergence": "exact"},
    ),
    "log_likelihood, solver": (
        lambda solver: sg.log_likelihood(VP, LAW.score, X0, solver=solver),
        {"solver": QUICK},
    ),
    "Hutchinson": (sg.Hutchinson, {"probes": 4, "noise": "rademacher"}),
    "HutchPlusPlus": (sg.HutchPlusPlus, {"probes": 4}),
    "DDPM": (sg.DDPM, {"betas": [0.1, 0.2]}),
    "DDPM.discretize": (sg.DDPM.discretize, {"sde": VP, "steps": 5}),
    "DDPM.discretize, times": (
        lambda times: sg.DDPM.discretize(VP, times=times),
        {"times": [0.1, 0.5, 1.0]},
    ),
    "DDPM.reverse": (CHAIN.reverse, {"score": LAW.score, "variance": "posterior"}),
    "elbo": (
        lambda **a: sg.elbo(**a, rng=0),
        {"chain": CHAIN.reverse(LAW.score, "beta"), "x": X0},
    ),
    "LearnedSchedule": (sg.LearnedSchedule, {"low": -5.0, "high": 5.0, "width": 3}),
    "LearnedSchedule.between": (sg.LearnedSchedule.between, {"sde": VP, "width": 3}),
    "LearnedSchedule.path": (sg.LearnedSchedule(-5.0, 5.0).path, {"nodes": 8}),
    "LearnedSchedule.rescheduled": (
        sg.LearnedSchedule(-5.0, 5.0).rescheduled,
        {
            "model": sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1), VP, sg.EDMPrediction()),
            "nodes": 8,
        },
    ),
    "VariationalDiffusion": (
        sg.VariationalDiffusion,
        {
            "model": sg.ScoreModel(sg.MLP(dim=1, width=4, depth=1), VP, sg.EDMPrediction()),
            "width": 3,
        },
    ),
    "ScheduleLoss": (sg.ScheduleLoss, {"sde": VP, "score": LAW.score}),
    "timed_bound": (
        lambda **a: sg.timed_bound(**a, rng=0),
        {
            "sde": VP,
            "score": LAW.score,
            "x": X0,
            "times": "uniform",
            "stratified": True,
            "steps": 4,
            "samples": 2,
            "decoder_std": None,
        },
    ),
    "LinearGaussian": (
        sg.LinearGaussian,
        {"matrix": [[0.5, 0.0], [0.0, 0.5]], "covariance": [0.5, 0.5], "shift": [0.0, 1.0]},
    ),
    "LinearGaussian.inverse": (UP.inverse, {"law": sg.Gaussian([0.0])}),
    "HierarchicalVAE": (
        sg.HierarchicalVAE,
        {"encoders": [UP], "decoders": [UP], "sizes": [1, 1], "prior": None},
    ),
    "HierarchicalVAE.sample": (LADDER.sample, {"n": 3, "rng": 0}),
    "hierarchical_bound": (
        lambda **a: sg.hierarchical_bound(**a, rng=0),
        {
            "model": LADDER,
            "x": X0,
            "form": "denoising",
            "analytic": True,
            "samples": 2,
            "decoder_std": None,
        },
    ),
    "exact_decoders": (
        sg.variational.exact_decoders,
        {"law": sg.Gaussian([0.0]), "encoders": [UP]},
    ),
    "independent_consistency": (
        lambda **a: sg.variational.independent_consistency(**a, rng=0),
        {"model": LADDER, "x": X0, "samples": 2},
    ),
    "continuous_elbo": (
        lambda **a: sg.continuous_elbo(**a, strata=2, rng=0),
        {"sde": VP, "score": LAW.score, "x": X0},
    ),
    "run_ensemble": (
        lambda **a: sg.run_ensemble(**a, progress=False),
        {
            "sde": OU,
            "x0": X0[:1],
            "times": TIMES,
            "trajectories": 6,
            "solver": sg.EulerMaruyama(),
            "observables": [sg.Moments()],
            "rng": 0,
        },
    ),
    "entropy_production": (
        sg.entropy_production,
        {
            "sde": OU,
            "states": X0,
            "score": lambda x, t: -x,
            "log_density": None,
            "time": 0.0,
            "odd": None,
        },
    ),
    "force_field": (
        # None is a training of many seconds
        lambda config, **a: sg.force_field(
            config=sg.FitConfig(steps=1, batch_size=4) if config is None else config, **a
        )(torch.zeros(3, 1)),
        {
            "samples": torch.randn(70, 1, generator=torch.Generator().manual_seed(0)),
            "diffusivity": 0.5,
            "config": sg.FitConfig(steps=1, batch_size=4),
            "rng": 0,
        },
    ),
    "local_velocity": (
        sg.local_velocity,
        {"sde": OU, "states": X0, "score": lambda x, t: -x, "time": 0.0},
    ),
    "current": (
        sg.current,
        {
            "sde": OU,
            "states": X0,
            "score": lambda x, t: -x,
            "log_density": lambda x, t: -x[:, 0].square(),
            "time": 0.0,
        },
    ),
    "FirstPassage": (sg.FirstPassage, {"above": 1.0, "below": None, "between": None}),
    "Moments": (sg.Moments, {"covariance": None, "name": "moments"}),
    "Histogram": (sg.Histogram, {"low": -1.0, "high": 1.0, "bins": 4}),
    "Langevin": (
        lambda **a: sg.simulate(sg.Langevin(**a), X0, TIMES, rng=0),
        {"potential": sg.DoubleWell(), "temperature": 0.5},
    ),
    "StochasticHeat": (
        sg.StochasticHeat,
        {"shape": (2, 3), "diffusivity": 1.0, "mass_squared": 0.5, "temperature": 2.0},
    ),
    "StochasticHeat, ends": (
        lambda ends: sg.StochasticHeat((4,), ends=ends),
        {"ends": "periodic"},
    ),
    "Blurring": (
        lambda **a: sg.Blurring(**a),
        {"shape": (4, 4), "blur": 2.0, "least": 0.1, "beta": sg.CosineBeta(), "t_min": 1e-3},
    ),
    "OrnsteinUhlenbeck": (sg.OrnsteinUhlenbeck, {"rate": 1.0, "mean": 0.0, "sigma": 1.0}),
    "DoubleWell": (sg.DoubleWell, {"quartic": 0.25, "quadratic": 0.5}),
    "error_budget": (
        lambda **a: sg.error_budget(**a),
        {
            "sde": VP,
            "law": LAW,
            "score": LAW.score,
            "grid": sg.Grid(-8.0, 8.0, 400),
            "times": VP.time_grid(40),
        },
    ),
    "calibrate": (
        lambda **a: sg.calibrate(**a, rounds=1),
        {
            "dynamics": FLOW,
            "solver": sg.AngularAdams(2),
            "steps": 2,
            "x_T": VP.prior((8, 1), rng=0),
        },
    ),
    "from_denoiser": (
        lambda **a: sg.from_denoiser(**a),
        {"denoiser": lambda x, sigma: x / (1 + sigma**2)},
    ),
    "composition.product": (
        lambda **a: sg.composition.product(**a)(X0, torch.tensor(0.5)),
        {"scores": [LAW.score, LAW.score], "weights": [1.0, 0.5]},
    ),
    "composition.mixture": (
        lambda **a: sg.composition.mixture(**a)(X0, torch.tensor(0.5)),
        {"scores": [LAW.score], "log_densities": [LAW.log_prob], "weights": [1.0]},
    ),
    "composition.guided": (
        lambda **a: sg.composition.guided(**a)(X0, torch.tensor(0.5)),
        {"conditional": LAW.score, "unconditional": LAW.score, "guidance": 1.5},
    ),
    "LinearMeasurement": (
        sg.LinearMeasurement,
        {"operator": torch.ones(1, 2), "value": torch.ones(1), "noise_std": 0.1},
    ),
    "LinearMeasurement.posterior_score": (
        lambda **a: MEASURED.posterior_score(**a)(X0, torch.tensor(0.5, dtype=F64)),
        {"sde": VP, "score": LAW.score, "covariance": "tweedie"},
    ),
    "Measurement": (
        lambda **a: sg.Measurement(**a).posterior_score(VP, LAW.score)(X0, 0.5),
        {"operator": torch.sin, "value": torch.ones(1, dtype=F64), "noise_std": 0.5},
    ),
    "inpaint": (
        lambda **a: sg.inpaint(**a, steps=2, resamplings=2),
        {
            "sde": VP,
            "score": lambda x, t: -x,
            "known": torch.zeros(1, 2, dtype=F64),
            "mask": torch.tensor([True, False]),
            "n": 2,
        },
    ),
    "train, options": (
        lambda **a: sg.train(model(), POINTS, FEW, rng=0, **a),
        {"optimizer": torch.optim.SGD, "schedule": lambda k: 1.0, "callbacks": [lambda r: None]},
    ),
    "fit, options": (
        lambda **a: sg.fit(
            torch.nn.Linear(1, 1), POINTS, LeastSquares(), FIT, labels=POINTS, rng=0, **a
        ),
        {"optimizer": torch.optim.SGD, "schedule": lambda k: 1.0, "callbacks": [lambda r: None]},
    ),
    "sample, condition": (
        lambda condition: sg.sample(TOLD, 3, condition=condition, steps=2, rng=0),
        {"condition": torch.zeros(3, 2)},
    ),
    "sample": (
        lambda **a: sg.sample(**a, steps=2, rng=0),
        {"model": CLASSED, "n": 3, "labels": 1, "guidance": 0.5},
    ),
    "LinearMeasurement.posterior": (MEASURED.posterior, {"prior": MIXTURE}),
    "GaussianMixture": (
        lambda **a: sg.GaussianMixture(**a),
        {"weights": [0.5, 0.5], "means": [[-1.0], [1.0]], "stds": 0.5},
    ),
    "GaussianMixture.sample": (lambda **a: MIXTURE.sample(**a), {"n": 4, "rng": 0}),
    "GaussianMixture.noised": (MIXTURE.noised, {"sde": VP}),
    "NoisedMixture.score": (LAW.score, {"x": X0, "t": 0.5}),
    "ExponentialAdamsMoulton": (sg.ExponentialAdamsMoulton, {"order": 2, "prediction": "v"}),
    "AngularAdams": (sg.AngularAdams, {"order": 2}),
    "timesteps.log_snr": (sg.timesteps.log_snr, {"sde": VP, "steps": 4}),
}

# further than README; `update` is left out: it is the inner formula, and takes tensors as they are
BEYOND = {
    "Reflecting": (lambda **a: sg.Reflecting(**a), {"low": 0.0, "high": 1.0}),
    "Absorbing": (lambda **a: sg.Absorbing(**a), {"low": 0.0, "high": 1.0}),
    "Periodic": (lambda **a: sg.Periodic(**a), {"low": 0.0, "high": 1.0}),
    "CompoundPoisson": (
        lambda **a: sg.simulate(sg.JumpDiffusion(OU, sg.CompoundPoisson(**a)), X0, TIMES, rng=0),
        {"rate": 2.0, "sizes": torch.distributions.Normal(0.0, 0.5)},
    ),
    "CompoundPoisson, bound": (
        lambda **a: sg.CompoundPoisson(lambda x: x[:, 0] ** 2, 0.5, **a),
        {"bound": 4.0},
    ),
    "AlphaStable": (sg.AlphaStable, {"alpha": 1.5, "scale": 0.3, "beta": 0.1}),
    "JumpDiffusion": (sg.JumpDiffusion, {"sde": OU, "jumps": sg.AlphaStable(1.5)}),
    "JumpAdapted": (lambda **a: sg.JumpAdapted(**a), {"solver": sg.EulerMaruyama(2)}),
    "SubVP": (lambda **a: sg.SubVP(**a), {"beta": sg.LinearBeta(0.1, 20.0), "t_min": 1e-3}),
    "ConstantBeta": (lambda **a: sg.ConstantBeta(**a), {"beta": 0.5, "t_max": 2.0}),
    "CosineBeta": (lambda **a: sg.CosineBeta(**a), {"offset": 0.008, "t_max": 0.9}),
    "ZeroTerminalSNR": (sg.ZeroTerminalSNR, {"beta": sg.LinearBeta(0.1, 20.0)}),
    "QuadraticBeta": (lambda **a: sg.QuadraticBeta(**a), {"beta_min": 0.1, "beta_max": 20.0}),
    "TabulatedBeta": (sg.TabulatedBeta, {"alpha_bars": [0.9, 0.5, 0.1]}),
    "GeometricSigma": (sg.GeometricSigma, {"sigma_min": 0.1, "sigma_max": 2.0}),
    "LinearBeta.integral": (sg.LinearBeta(0.1, 20.0).integral, {"t": 0.5}),
    "BrownianMotion": (sg.BrownianMotion, {"sigma": 1.0}),
    "expectation": (
        lambda **a: sg.expectation(**a, progress=False),
        {
            "sde": OU,
            "x0": X0[:1],
            "t": 1.0,
            "f": lambda x: x[:, 0],
            "tolerance": 0.5,
            "confidence": 0.9,
            "solver": sg.EulerMaruyama(),
            "rng": 0,
        },
    ),
    "Quadratic": (sg.Quadratic, {"stiffness": 1.0, "center": 0.0}),
    "Quadratic.log_prob": (sg.Quadratic().log_prob, {"x": X0, "temperature": 1.0}),
    "RateNetwork": (
        lambda **a: sg.simulate(sg.RateNetwork(**a), X2, TIMES, rng=0),
        {"weights": torch.eye(2, dtype=F64), "inputs": 0.5, "sigma": 0.1},
    ),
    "LinearSDE": (
        lambda **a: sg.LinearSDE(**a).transition(0.0, 0.5),
        {"A": [[1.0, 0.2], [0.0, 2.0]], "B": [[1.0], [0.5]], "c": 0.3},
    ),
    "LinearSDE.transition": (sg.LinearSDE([[1.0]], 1.0).transition, {"t": 0.0, "s": 0.5}),
    "LinearSDE.moments": (
        sg.LinearSDE([[1.0]], 1.0).moments,
        {"mean": 0.0, "covariance": 1.0, "times": TIMES},
    ),
    "LinearSDE.of": (sg.LinearSDE.of, {"sde": OU, "dimension": 1}),
    "ChainMoments": (
        sg.ChainMoments,
        {"dynamics": OU, "dimension": 1, "solver": sg.EulerMaruyama()},
    ),
    "ChainMoments.run": (
        sg.ChainMoments(OU, 1).run,
        {"mean": 0.0, "covariance": 1.0, "times": TIMES},
    ),
    "Coloured": (sg.Coloured, {"sde": OU, "correlation_time": 0.5}),
    "Coloured.start": (sg.Coloured(OU, 0.5).start, {"x0": X0}),
    "PronySeries": (
        sg.PronySeries,
        {"amplitudes": [1.0, 2.0], "decay_times": [0.5, 1.0], "frequencies": 0.0},
    ),
    "ActiveBrownian": (
        lambda **a: sg.ActiveBrownian(**a),
        {
            "speed": 1.0,
            "translational_diffusion": 0.1,
            "rotational_diffusion": 0.5,
            "angular_velocity": 0.2,
            "potential": sg.Quadratic(),
        },
    ),
    "GeneralizedLangevin": (
        lambda **a: sg.GeneralizedLangevin(**a),
        {
            "potential": sg.Quadratic(),
            "memory": sg.PronySeries(1.0, 0.5),
            "temperature": 0.5,
            "mass": 2.0,
            "friction": 0.1,
        },
    ),
    "GeneralizedLangevin.start": (
        sg.GeneralizedLangevin(sg.Quadratic(), sg.PronySeries(1.0, 0.5)).start,
        {"x0": X0, "v0": X0},
    ),
    "AncestralChain": (
        sg.AncestralChain,
        {"chain": CHAIN, "score": LAW.score, "variance": "posterior"},
    ),
    "AdaptiveHeun": (sg.AdaptiveHeun, {"rtol": 0.1, "atol": 0.1}),
    "Churn": (sg.Churn, {"amount": 1.0, "low": 0.0, "high": 1.0, "scale": 1.0}),
    "KarrasHeun": (sg.KarrasHeun, {"churn": sg.Churn(1.0)}),
    "DPM2": (sg.DPM2, {"churn": sg.Churn(1.0)}),
    "TorchDiffEq": (sg.TorchDiffEq, {"method": "dopri5", "rtol": 1e-6, "atol": 1e-6}),
    "TorchSDE": (sg.TorchSDE, {"method": "srk", "substeps": 2}),
    "FinalDenoising": (sg.FinalDenoising, {"solver": sg.DDIM()}),
    "MetropolisCorrector": (
        sg.MetropolisCorrector,
        {"log_prob": LAW.log_prob, "predictor": sg.EulerMaruyama(), "corrector_steps": 1},
    ),
    "Metropolis": (sg.Metropolis, {"substeps": 2}),
    "PredictorCorrector": (
        sg.PredictorCorrector,
        {"predictor": sg.EulerMaruyama(), "corrector_steps": 1},
    ),
    "ExponentialAdams": (sg.ExponentialAdams, {"order": 2, "prediction": "x0", "rule": "exact"}),
    "ProbabilityCurrent": (
        lambda **a: sg.ProbabilityCurrent(**a),
        {"low": -1.0, "high": 1.0, "cells": 4},
    ),
    "TimeCorrelation": (lambda **a: sg.TimeCorrelation(**a), {"name": "correlation"}),
    "MeanSquaredDisplacement": (
        lambda **a: sg.MeanSquaredDisplacement(**a),
        {"lags": [0.1], "origins": "all", "coordinates": [0], "particles": False},
    ),
    "PowerSpectrum": (
        lambda **a: sg.PowerSpectrum(**a),
        {"segment": 8, "overlap": 0.5, "window": "hann", "detrend": True},
    ),
    "ResidenceTimes": (
        lambda **a: sg.ResidenceTimes(**a),
        {"core": (0.0, 1.0), "region": (-1.0, 2.0), "longest": 4.0, "bins": 3, "coordinate": 0},
    ),
    "mean_squared_displacement": (
        lambda **a: sg.mean_squared_displacement(**a),
        {"path": STORED, "times": torch.arange(40), "lags": [1.0], "parts": 2},
    ),
    "power_spectrum": (
        lambda **a: sg.power_spectrum(**a),
        {"path": STORED, "times": torch.arange(40), "segment": 8, "parts": 2},
    ),
    "residence_times": (
        lambda **a: sg.residence_times(**a),
        {"path": STORED, "times": torch.arange(40), "core": (0.0, 1.0), "region": (-1.0, 2.0)},
    ),
    "first_passages": (
        lambda **a: sg.first_passages(**a),
        {"path": STORED, "times": torch.arange(40), "above": 0.5, "coordinate": 0},
    ),
    "diffusion_coefficient": (
        lambda **a: sg.diffusion_coefficient(**a),
        {"msd": sg.mean_squared_displacement(STORED, torch.arange(40)), "low": 0.0, "high": 9.0},
    ),
    "Grid.of": (sg.Grid.of, {"nodes": torch.linspace(0, 1, 9)}),
    "Grid.sinh": (
        lambda **a: sg.Grid.sinh(**a),
        {"low": -3.0, "high": 3.0, "cells": 20, "center": 0.0, "width": 0.5},
    ),
    "Grid.point": (GRID.point, {"x0": 0.0}),
    "Density.at": (START.at, {"x": torch.zeros(3)}),
    "Density.cdf": (START.cdf, {"x": torch.zeros(3)}),
    "Density.quantile": (START.quantile, {"q": 0.5}),
    "Density.expect": (START.expect, {"f": torch.square}),
    "DensityPath.at": (FP.solve(START, TIMES).at, {"k": 0}),
    "classify_boundary": (lambda **a: sg.classify_boundary(**a), {"sde": ROOT, "end": 0.0}),
    "BackwardEuler": (lambda **a: sg.BackwardEuler(**a), {}),
    "FokkerPlanck2D.point": (PLANE.point, {"x0": 0.0, "y0": 0.0}),
    "FokkerPlanck2D.solve": (
        PLANE.solve,
        {"p0": PLANE.gaussian((0.0, 0.0), [[1.0, 0.0], [0.0, 1.0]]), "times": [0.0, 0.01]},
    ),
    "UNet": (lambda **a: sg.UNet(**a), {"channels": 1, "condition_channels": 2}),
    "ParticleNet": (lambda **a: sg.ParticleNet(**a), {"width": 4, "layers": 1}),
    "diffusers_network": (sg.diffusers_network, {"network": torch.nn.Identity(), "steps": 10}),
    "loss_by_level": (
        sg.loss_by_level,
        {"model": MODEL, "data": torch.linspace(-1, 1, 8)[:, None], "levels": 2},
    ),
    "to_denoiser": (sg.to_denoiser, {"model": MODEL}),
    "GaussianPrior": (
        lambda **a: sg.GaussianPrior(**a).log_prob(X2),
        {"mean": [0.0, 1.0], "covariance": [[1.0, 0.2], [0.2, 1.0]]},
    ),
    "GaussianPrior.stationary": (sg.GaussianPrior.stationary, {"sde": OU, "event_shape": (2,)}),
    "GaussianPrior.sample": (sg.GaussianPrior([0.0]).sample, {"n": 3, "rng": 0}),
    "GaussianPrior.log_prob": (sg.GaussianPrior([0.0]).log_prob, {"x": X0}),
    "DensityPrior": (sg.DensityPrior, {"density": START}),
    "DensityPrior.sample": (sg.DensityPrior(START).sample, {"n": 3, "rng": 0}),
    "DensityPrior.log_prob": (sg.DensityPrior(START).log_prob, {"x": X0}),
    "SamplePrior": (sg.SamplePrior, {"states": X0}),
    "SamplePrior.sample": (sg.SamplePrior(X0).sample, {"n": 3, "rng": 0}),
    "reverse_kernel": (
        lambda **a: sg.reverse_kernel(**a),
        {"sde": OU, "law": MIXTURE, "t": 1.0, "dt": 0.5, "grid": GRID},
    ),
    "ReverseKernel.kl_with": (
        sg.reverse_kernel(OU, MIXTURE, 1.0, 0.5).kl_with,
        {"variance": 0.5},
    ),
    "plots.reverse_kernels": (
        sg.plots.reverse_kernels,
        {"kernels": {"OU": [sg.reverse_kernel(OU, MIXTURE, 1.0, 0.5)]}},
    ),
    "noising_time": (
        lambda **a: sg.noising_time(**a),
        {"sde": OU, "start": torch.ones(3, 1), "tolerance": 0.1, "grid": None, "rng": 0},
    ),
    "noising_time, on a line": (
        lambda **a: sg.noising_time(sg.ItoProcess(lambda x: x - x**3, 1.0), tolerance=0.1, **a),
        {"start": 1.0, "grid": sg.Grid(-5.0, 5.0, 60)},
    ),
    "noising_time, simulated": (
        lambda **a: sg.noising_time(OU, torch.ones(1, 1), tolerance=0.1, **a),
        {"times": torch.linspace(0.0, 8.0, 17), "solver": sg.EulerMaruyama()},
    ),
    "NoisingTime.kl_at": (sg.noising_time(OU, 1.0).kl_at, {"t": 1.0}),
    "NoisingTime.warn_before": (sg.noising_time(OU, 1.0).warn_before, {"t": 9.0}),
    "prior_mismatch": (
        sg.prior_mismatch,
        {
            "final": torch.randn(100, 1, generator=torch.Generator().manual_seed(0)),
            "prior": sg.GaussianPrior([0.0]),
            "tolerance": 0.5,
        },
    ),
    "StationarySDE": (
        lambda **a: sg.simulate(sg.StationarySDE(**a), X2, [0.0, 0.01], rng=0),
        {
            "log_density": lambda x: -x.square().sum(1) / 2,
            "mobility": 1.0,
            "rotation": [[0.0, 1.0], [-1.0, 0.0]],
            "channels": None,
        },
    ),
    "fp_residual": (
        sg.fp_residual,
        {"score": LAW.score, "sde": VP, "x": X0, "t": torch.tensor(0.5, dtype=F64)},
    ),
    "score_residuals": (
        lambda **a: sg.score_residuals(**a, rng=0),
        {
            "sde": VP,
            "score": LAW.score,
            "data": JUDGED,
            "times": TIMES[1:],
            "levels": 2,
            "limits": None,
            "false_alarm": 1e-3,
        },
    ),
    "ScoreLimits": (sg.ScoreLimits, {"error": 0.02, "curl": 0.02, "equation": 0.05}),
    "sampler_errors": (
        lambda **a: sg.sampler_errors(**a, residuals=FOUND, rng=0),
        {
            "sde": VP,
            "score": LAW.score,
            "data": JUDGED,
            "times": VP.time_grid(4),
            "eta": 1.0,
            "solver": None,
            "prior": None,
            "finer": 2,
        },
    ),
    "data.eight_gaussians": (sg.data.eight_gaussians, {"n": 5, "noise": 0.1, "rng": 0}),
    "data.swiss_roll": (sg.data.swiss_roll, {"n": 5, "noise": 0.1, "rng": 0}),
    "data.checkerboard": (sg.data.checkerboard, {"n": 5, "rng": 0}),
    "data.dequantise": (
        sg.data.dequantise,
        {"values": torch.zeros(3, 2, dtype=torch.long), "levels": 17, "rng": 0},
    ),
    "composition.tempered": (
        lambda **a: sg.composition.tempered(**a)(X0, torch.tensor(0.5)),
        {"score": LAW.score, "beta": 2.0},
    ),
    "composition.prior_factor": (sg.composition.prior_factor, {"weights": [1.0, 1.0]}),
    "timesteps.karras": (sg.timesteps.karras, {"sde": VP, "steps": 4, "rho": 7.0}),
    "timesteps.uniform": (sg.timesteps.uniform, {"sde": VP, "steps": 4}),
    "timesteps.power": (sg.timesteps.power, {"sde": VP, "steps": 4}),
    "timesteps.quadratic": (sg.timesteps.quadratic, {"sde": VP, "steps": 4}),
    "metrics.bits_per_dim": (
        sg.metrics.bits_per_dim,
        {"log_prob": torch.zeros(3), "dimensions": 2, "bin_width": 1.0},
    ),
    "metrics.kolmogorov_smirnov": (
        sg.metrics.kolmogorov_smirnov,
        {"samples": X0 + torch.linspace(-1, 1, 6, dtype=F64)[:, None], "density": START},
    ),
}

IMAGES = sg.ScoreModel(sg.UNet(width=4, levels=1, rng=0), VP)


class OfAzula(torch.nn.Module):
    """What is asked of a denoiser of azula's."""

    def schedule(self, t):
        return torch.ones_like(t), 0.1 + t

    def forward(self, x, t):
        return SimpleNamespace(mean=x)


PUBLISHED = "a folder"  # stands for one that is made when it is asked for

BEYOND |= {
    "UNet, sizes": (
        lambda **a: sg.UNet(**a),
        {"channels": 1, "width": 4, "levels": 1, "classes": 0, "padding": "zeros", "rng": 0},
    ),
    "UNet, score": (IMAGES.score, {"x_t": torch.zeros(2, 1, 4, 4), "t": 0.5}),
    "from_azula": (sg.from_azula, {"denoiser": OfAzula(), "sde": None}),
    "HubScoreModel": (
        lambda **a: sg.HubScoreModel(**a).generate_model_card(),
        {
            "model": MODEL,
            "data": "Two moons.",
            "license": "mit",
            "errors": FOUND,
            "certificate": None,
            "training": FEW,
        },
    ),
    "HubScoreModel.from_pretrained": (
        lambda name, **a: sg.HubScoreModel.from_pretrained(
            published().name if name is PUBLISHED else name, local_files_only=True, **a
        ),
        {
            "name": PUBLISHED,
            "network": None,
            "sde": None,
            "parameterization": None,
        },
    ),
    "to_diffusers": (sg.to_diffusers, {"model": IMAGES, "shape": (1, 4, 4), "steps": 5}),
    "to_diffusers, times": (
        lambda times: sg.to_diffusers(IMAGES, (1, 4, 4), times=times),
        {"times": VP.time_grid(4)},
    ),
    "certify_noising": (sg.certify_noising, {"chain": CHAIN, "sde": VP, "times": CHAIN.times}),
    "error_budgets": (
        sg.error_budgets,
        {
            "sde": VP,
            "law": LAW,
            "score": LAW.score,
            "grid": sg.Grid(-8.0, 8.0, 400),
            "runs": [VP.time_grid(40)],
        },
    ),
    "BrownianPath": (sg.BrownianPath, {"rng": 0, "times": TIMES}),
    "simulate, brownian": (
        lambda brownian: sg.simulate(OU, X0, TIMES, rng=0, brownian=brownian),
        {"brownian": sg.BrownianPath(0, TIMES)},
    ),
}

SEEN = FP.solve(START, TIMES)
WALK = sg.simulate(OU, X0, TIMES, rng=0)
CURVES = {"a": ([1, 2], [0.1, 0.01])}
FIELD = sg.simulate(OU, X2, TIMES, rng=0)
SEEN_CORRELATION, SEEN_DISPLACEMENT, SEEN_PASSAGES = sg.run_ensemble(
    OU, X0[:1], TIMES, trajectories=6, rng=0, progress=False,
    observables=[sg.TimeCorrelation(), sg.MeanSquaredDisplacement(), sg.FirstPassage(above=1.0)],
).observables.values()  # fmt: skip

SEEN_SPECTRUM = sg.power_spectrum(torch.zeros(16, 3, 1, dtype=F64), torch.arange(16))
# films are left out: each that a slip lets through takes a second
BEYOND |= {
    "plots.paths": (sg.plots.paths, {"path": WALK, "count": 3}),
    "plots.samples_2d": (sg.plots.samples_2d, {"samples": {"a": X2}, "data": X2}),
    "plots.image_sheet": (
        lambda **a: sg.plots.image_sheet(**a),
        {"images": {"a": torch.zeros(2, 1, 4, 4)}, "rows": 1, "columns": 2},
    ),
    "plots.denoising_strip": (
        lambda **a: sg.plots.denoising_strip(**a),
        {
            "path": sg.simulate(OU, torch.zeros(4, 1, 4, 4, dtype=F64), TIMES, rng=0),
            "rows": 1,
            "columns": 2,
        },
    ),
    "plots.pareto": (
        lambda **a: sg.plots.pareto(**a, quantity="W1"),
        {"curves": CURVES, "floor": 0.01},
    ),
    "plots.convergence": (
        lambda **a: sg.plots.convergence(**a, quantity="W1"),
        {"curves": CURVES, "slope": -1.0},
    ),
    "plots.histogram": (
        lambda values: sg.plots.histogram(values, quantity="x"),
        {"values": torch.linspace(0, 1, 9)},
    ),
    "plots.estimates": (
        sg.plots.estimates,
        {"rows": {"mean": (0.1, 0.2, 0.0)}},
    ),
    "plots.loss_by_level": (
        sg.plots.loss_by_level,
        {"result": sg.loss_by_level(MODEL, torch.linspace(-1, 1, 8)[:, None], levels=2, rng=0)},
    ),
    "plots.score_residuals": (sg.plots.score_residuals, {"result": FOUND}),
    "plots.loss_curve": (
        sg.plots.loss_curve,
        {"result": trained(model(), torch.linspace(-1, 1, 8)[:, None], FEW)},
    ),
    "plots.correlation": (
        lambda **a: sg.plots.correlation(**a),
        {"result": SEEN_CORRELATION, "coordinate": 0, "exact": SEEN_CORRELATION.lags},
    ),
    "plots.displacement": (
        lambda **a: sg.plots.displacement(**a),
        {"result": SEEN_DISPLACEMENT, "exact": SEEN_DISPLACEMENT.lags},
    ),
    "plots.power_spectrum": (
        lambda **a: sg.plots.power_spectrum(**a),
        {"result": SEEN_SPECTRUM, "coordinate": 0, "exact": SEEN_SPECTRUM.frequencies},
    ),
    "plots.radial_distribution": (
        sg.plots.radial_distribution,
        {"r": TIMES, "g": TIMES, "error": TIMES},
    ),
    "plots.survival": (
        lambda **a: sg.plots.survival(**a),
        {"result": SEEN_PASSAGES, "exact": TIMES, "log": True},
    ),
    "plots.particles": (
        lambda **a: sg.plots.particles(**a),
        {"positions": X2, "diameter": 0.1, "box": 2.0, "trajectory": 0, "time": 0},
    ),
    "plots.space_time": (
        lambda **a: sg.plots.space_time(**a),
        {"path": FIELD, "places": X2[:2, 0] + torch.arange(2), "trajectory": 0},
    ),
    "plots.phase_space": (sg.plots.phase_space, {"states": X2}),
    "plots.density_heatmap": (sg.plots.density_heatmap, {"density": SEEN}),
    "plots.density_ridge": (
        lambda **a: sg.plots.density_ridge(**a),
        {"density": SEEN, "count": 2},
    ),
    "plots.stationary": (sg.plots.stationary, {"density": START, "exact": START.p}),
    "plots.current": (
        sg.plots.current,
        {"densities": {"a": START}, "currents": {"a": FP.current(START)}},
    ),
    "plots.first_passage": (sg.plots.first_passage, {"passage": EXIT.first_passage()}),
    "plots.plane": (
        lambda density: sg.plots.plane(density),
        {"density": PLANE.gaussian((0.0, 0.0), [[1.0, 0.0], [0.0, 1.0]])},
    ),
    "plots.innovations": (
        sg.plots.innovations,
        {"result": sg.certify(BROWNIAN, path=STORED, dt=1.0)},
    ),
    "plots.error_budget": (
        sg.plots.error_budget,
        {
            "budgets": sg.error_budgets(
                VP, LAW, LAW.score, sg.Grid(-8.0, 8.0, 400), [VP.time_grid(40)]
            )
        },
    ),
}

SPRING = sg.UnderdampedLangevin(sg.DoubleWell(), 0.5, 0.4)
PHASE = SPRING.state(X0, X0)
KINETIC = sg.FokkerPlanck2D(SPRING, (sg.Grid(-2.5, 2.5, 24), sg.Grid(-3.5, 3.5, 24)))
SOFT = sg.PairForces(sg.HarmonicRepulsion(), box=4.0)
FLUID = torch.tensor([[[0.0, 0.0], [0.5, 0.2], [2.0, 2.0]]], dtype=F64)
DRAGGED = sg.Langevin(lambda x, t: (x - t) ** 2 / 2)
WORKS = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=F64)


@functools.cache
def published():
    """A folder with a model, for the whole of these tests."""
    folder = tempfile.TemporaryDirectory()
    sg.HubScoreModel(MODEL).save_pretrained(folder.name)
    return folder


def along(functional, sde=DRAGGED):
    """A functional, added up over two steps of a few trajectories."""
    return sg.simulate(sde, X0, TIMES, rng=0, functionals=[functional])


def measured(observable, sde=None, start=FLUID):
    """An observable of a run of two steps."""
    return sg.run_ensemble(
        sg.Langevin(SOFT) if sde is None else sde, start, TIMES,
        trajectories=4, observables=[observable], rng=0, progress=False,
    )  # fmt: skip


@functools.cache
def finished():
    """A folder with a finished store, for the whole of these tests."""
    folder = tempfile.TemporaryDirectory()
    sg.run_ensemble(OU, times=TIMES[:2], rng=0, **in_store(f"{folder.name}/a.zarr"))
    return folder


@functools.cache
def table():
    """A table of four times, for the whole of these tests."""
    path = Path(finished().name, "x.csv")
    path.write_text("t,x,y\n0.0,1.5,2.5\n0.1,1.25,2.0\n0.2,1.0,2.5\n0.3,1.5,2.75\n")
    return path


def in_store(path):
    about = {"x0": X0[:1], "trajectories": 4, "observables": [sg.Moments()]}
    return about | {"store": path, "progress": False}


def extended(**given):
    """A finished store, taken on to later times."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(f"{finished().name}/a.zarr", f"{folder}/a.zarr")
        sg.run_ensemble(OU, rng=0, **in_store(f"{folder}/a.zarr") | given)


# phase space, particles, and what is measured along a path
BEYOND |= {
    "UnderdampedLangevin": (
        lambda **a: sg.simulate(sg.UnderdampedLangevin(**a), PHASE, TIMES, rng=0),
        {"potential": sg.DoubleWell(), "friction": 0.5, "temperature": 0.4, "mass": 2.0},
    ),
    "UnderdampedLangevin.state": (SPRING.state, {"x": X0, "v": X0}),
    "UnderdampedLangevin.draw_velocities": (SPRING.draw_velocities, {"x": X0, "rng": 0}),
    "UnderdampedLangevin.energy": (SPRING.energy, {"state": PHASE, "t": 0.0}),
    "UnderdampedLangevin.kinetic_energy": (SPRING.kinetic_energy, {"state": PHASE}),
    "UnderdampedLangevin.position": (SPRING.position, {"state": PHASE}),
    "UnderdampedLangevin.velocity": (SPRING.velocity, {"state": PHASE}),
    "UnderdampedLangevin.force": (SPRING.force, {"x": X0, "t": 0.0}),
    "UnderdampedLangevin.friction_at": (SPRING.friction_at, {"x": X0}),
    "UnderdampedLangevin.event_of": (SPRING.event_of, {"numbers": 4}),
    "simulate, phase space": (
        lambda **a: sg.simulate(SPRING, **a, rng=0),
        {"x0": PHASE, "times": TIMES, "solver": sg.BAOAB(), "boundary": None},
    ),
    "simulate, functionals": (
        lambda **a: sg.simulate(DRAGGED, X0, TIMES, rng=0, **a),
        {"functionals": [sg.Work()]},
    ),
    "DrivenPotential": (
        lambda function: sg.simulate(sg.Langevin(sg.DrivenPotential(function)), X0, TIMES, rng=0),
        {"function": lambda x, t: (x - t) ** 2 / 2},
    ),
    "DrivenPotential.energy_at": (DRAGGED.potential.energy_at, {"x": X0, "t": 0.5}),
    "DrivenPotential.force_at": (DRAGGED.potential.force_at, {"x": X0, "t": 0.5}),
    "BAOAB": (sg.BAOAB, {"substeps": 2}),
    "OBABO": (sg.OBABO, {"substeps": 2}),
    "QUICSORT": (sg.QUICSORT, {"substeps": 2}),
    "PairForces": (
        lambda **a: sg.simulate(sg.Langevin(sg.PairForces(**a)), FLUID, TIMES, rng=0),
        {
            "potential": sg.HarmonicRepulsion(),
            "box": 4.0,
            "cutoff": 1.0,
            "external": sg.Quadratic(),
        },
    ),
    "PairForces.energy": (SOFT.energy, {"x": FLUID}),
    "PairForces.force": (SOFT.force, {"x": FLUID}),
    "PairForces.virial": (SOFT.virial, {"x": FLUID}),
    "PairForces.pressure": (SOFT.pressure, {"x": FLUID, "temperature": 1.0}),
    "PairForces.volume": (SOFT.volume, {"dim": 2}),
    "PairForces.check_start": (SOFT.check_start, {"x": FLUID, "periods": None}),
    "HarmonicRepulsion": (
        lambda **a: sg.PairForces(sg.HarmonicRepulsion(**a)).force(FLUID),
        {"stiffness": 1.0, "diameter": 1.0},
    ),
    "LennardJones": (
        lambda **a: sg.PairForces(sg.LennardJones(**a)).force(FLUID),
        {"epsilon": 1.0, "sigma": 0.5},
    ),
    "WCA": (
        lambda **a: sg.PairForces(sg.WCA(**a)).force(FLUID),
        {"epsilon": 1.0, "sigma": 0.5},
    ),
    "GaussianCore": (
        lambda **a: sg.PairForces(sg.GaussianCore(**a)).force(FLUID),
        {"epsilon": 1.0, "sigma": 0.5},
    ),
    "Yukawa": (
        lambda **a: sg.PairForces(sg.Yukawa(**a)).force(FLUID),
        {"epsilon": 1.0, "sigma": 0.5, "kappa": 1.0},
    ),
    "PairEnergy": (
        lambda **a: measured(sg.PairEnergy(**a)),
        {"pairs": SOFT, "name": "energy", "origin": 0},
    ),
    "Pressure": (
        lambda **a: measured(sg.Pressure(**a)),
        {"pairs": SOFT, "temperature": 1.0, "name": "pressure", "origin": 0},
    ),
    "RadialDistribution": (
        lambda **a: measured(sg.RadialDistribution(**a)),
        {"box": 4.0, "r_max": 2.0, "bins": 4, "name": "g", "origin": 0},
    ),
    "StructureFactor": (
        lambda **a: measured(sg.StructureFactor(**a)),
        {"box": (4.0, 4.0), "k_max": 5.0, "bins": 3, "name": "S", "origin": 0},
    ),
    "Pressure.each": (sg.Pressure(SOFT, 1.0).each, {"x": FLUID}),
    "PairEnergy.each": (sg.PairEnergy(SOFT).each, {"x": FLUID}),
    "RadialDistribution.each": (sg.RadialDistribution(4.0, 2.0, 4).each, {"x": FLUID}),
    "StructureFactor.each": (sg.StructureFactor((4.0, 4.0), 5.0).each, {"x": FLUID}),
    "Work": (
        lambda **a: along(sg.Work(**a)),
        {
            "potential": lambda x, t: (x - t) ** 2,
            "force": lambda x, t: 1.0 + 0 * x,
            "name": "w",
            "histogram": (-1.0, 1.0, 4),
            "temperature": 1.0,
        },
    ),
    "Work, ensemble": (
        lambda **a: measured(sg.Work(**a), DRAGGED, X0[:1]),
        {"name": "w", "histogram": (-1.0, 1.0, 4), "temperature": 1.0},
    ),
    "Work.along": (
        sg.Work().along,
        {"path": sg.simulate(DRAGGED, X0, TIMES, rng=0), "sde": DRAGGED, "rng": 0},
    ),
    "Heat": (
        lambda **a: along(sg.Heat(**a)),
        {"name": "q", "histogram": (-1.0, 1.0, 4), "temperature": 1.0},
    ),
    "MediumEntropy": (
        lambda **a: along(sg.MediumEntropy(**a)),
        {"name": "s", "histogram": (-1.0, 1.0, 4), "temperature": 1.0},
    ),
    "TimeIntegral": (
        lambda **a: along(sg.TimeIntegral(**a)),
        {"h": lambda x, t: x[:, 0] ** 2, "name": "a", "unwrapped": True},
    ),
    "StochasticIntegral": (
        lambda **a: along(sg.StochasticIntegral(**a)),
        {"h": lambda x, t: x, "interpretation": "ito", "name": "a"},
    ),
    "LocalTime": (
        lambda **a: along(sg.LocalTime(**a)),
        {"level": 0.0, "coordinate": 0, "name": "l"},
    ),
    "LocalTime.along": (
        sg.LocalTime(0.0).along,
        {"path": sg.simulate(OU, X0, TIMES, rng=0), "sde": OU, "rng": 0},
    ),
    "jarzynski": (sg.jarzynski, {"work": WORKS, "temperature": 1.0}),
    "crooks": (
        sg.crooks,
        {"forward": WORKS, "backward": WORKS, "temperature": 1.0},
    ),
    "crooks, bins": (lambda bins: sg.crooks(WORKS, WORKS, 1.0, bins=bins), {"bins": 4}),
    "entropy_production, path": (
        sg.entropy_production,
        {"sde": OU, "states": WALK, "score": None, "log_density": None, "odd": None},
    ),
    "time_average": (
        lambda **a: sg.time_average(**a),
        {"series": STORED, "function": torch.square, "times": torch.arange(40)},
    ),
    "time_covariance": (
        lambda **a: sg.time_covariance(**a),
        {"series": STORED, "function": torch.square, "times": torch.arange(40)},
    ),
    "block_average": (
        lambda **a: sg.block_average(**a),
        {"series": STORED, "function": torch.square, "times": torch.arange(40)},
    ),
    "integrated_autocorrelation_time": (
        lambda **a: sg.integrated_autocorrelation_time(**a),
        {"series": WORKS, "times": torch.arange(60)},
    ),
    "interval": (sg.time_average(WORKS).interval, {"confidence": 0.9}),
    "interval, autocorrelation": (
        sg.integrated_autocorrelation_time(WORKS).interval,
        {"confidence": 0.9},
    ),
    "identities": (
        lambda **a: sg.identities(**a),
        {
            "sde": OU,
            "path": STORED,
            "dt": 0.1,
            "times": None,
            "solver": sg.EulerMaruyama(),
            "boundary": None,
            "at_rest": True,
            "start": None,
            "allowed": 0.1,
            "false_alarm": 1e-3,
        },
    ),
    "diffusers_states": (
        sg.diffusers_states,
        {
            "latents": [torch.zeros(3, 2), torch.ones(3, 2), torch.zeros(3, 2)],
            "timesteps": [3, 2, 1],
            "scheduler": SimpleNamespace(alphas_cumprod=torch.linspace(0.99, 0.1, 4)),
            "chain": False,
        },
    ),
    "read_states": (
        lambda **a: sg.read_states(**a),
        {
            "source": STORED,
            "dt": 0.1,
            "times": None,
            "layout": None,
            "key": None,
            "columns": None,
            "velocities": None,
            "phase_space": False,
            "periods": None,
            "wrapped": None,
            "fixed": None,
            "centre_removed": False,
            "rounding": None,
            "units": None,
            "format": None,
        },
    ),
    "read_states, a table": (
        lambda **a: sg.read_states(table(), **a),
        {
            "dt": 0.1,
            "times": "t",
            "layout": None,
            "columns": ["x", "y"],
            "velocities": ["y", "x"],
            "periods": [1.0, 2.0],
            "rounding": 0.1,
            "units": {"length": 2.0},
            "format": "csv",
        },
    ),
    "read_states, a Trajectory": (sg.read_states, {"source": WALK}),
    "StoredStates": (
        lambda **a: sg.StoredStates(**a),
        {
            "times": torch.arange(40),
            "states": STORED,
            "rounding": 0.0,
            "digits": None,
            "unit": 1.0,
            "precision": None,
            "phase_space": False,
            "periods": None,
            "wrapped": False,
            "fixed": None,
            "centre_removed": False,
        },
    ),
    "StoredStates.block": (
        sg.read_states(STORED, dt=0.1).block,
        {"first": 2, "last": 5},
    ),
    "StoredStates.rounding_at": (
        sg.read_states(STORED, dt=0.1).rounding_at,
        {"x": STORED},
    ),
    "FokkerPlanck2D, phase space": (
        lambda **a: sg.FokkerPlanck2D(SPRING, **a),
        {"grids": (sg.Grid(-2.5, 2.5, 12), sg.Grid(-3.0, 3.0, 12)), "boundary": None},
    ),
    "FokkerPlanck2D.spectrum, phase space": (KINETIC.spectrum, {"count": 2}),
    "FokkerPlanck2D.solve, phase space": (
        KINETIC.solve,
        {"p0": KINETIC.gaussian((0.0, 0.0), [[0.3, 0.0], [0.0, 0.4]]), "times": [0.0, 0.01]},
    ),
    "FokkerPlanck2D.current, phase space": (
        KINETIC.current,
        {"density": KINETIC.stationary()},
    ),
    "ChainDensity2D": (
        sg.ChainDensity2D,
        {"dynamics": SPRING, "grids": KINETIC.grids, "solver": sg.OBABO()},
    ),
    "ChainDensity2D.run": (
        sg.ChainDensity2D(SPRING, KINETIC.grids).run,
        {"p0": KINETIC.gaussian((0.0, 0.0), [[0.1, 0.0], [0.0, 0.2]]), "times": [0.0, 0.01]},
    ),
    "ChainDensity2D.stationary": (
        sg.ChainDensity2D(SPRING, (sg.Grid(-4.0, 4.0, 64), sg.Grid(-6.0, 6.0, 48))).stationary,
        {"step": 0.1},
    ),
    "plots.phase_space, density": (sg.plots.phase_space, {"states": KINETIC.stationary()}),
    "run_ensemble, extend": (
        extended,
        {"times": TIMES, "extend": True},
    ),
}

LATENT, KNOWN = sg.Gaussian([0.0, 0.0], [[1.0, 0.2], [0.2, 0.5]]), sg.Gaussian([1.0, 0.0])
LINES = sg.variational.LinearGaussianModel([[1.0, 0.0], [0.5, 1.0]], 0.0, 0.3)
AUTO = sg.VAE(nn.Linear(3, 4), nn.Linear(2, 3), 2)
BENT = sg.Flow("real nvp", 2, width=4, depth=1, context=1, rng=0)
CODED = sg.VQVAE(nn.Linear(3, 2), nn.Linear(2, 3), 4, 2, rng=0)
PLAYERS = sg.GAN(nn.Linear(2, 3), nn.Linear(3, 1), 2)
JUDGED = sg.AdversarialAutoencoder(AUTO, nn.Linear(2, 1))
LEARNED = sg.VAEGAN(nn.Linear(3, 4), nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1), 2)
SPEAKERS = sg.variational.MixtureOfExperts(
    nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1))), 2
)
X3 = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
BEYOND |= {
    "Gaussian": (sg.Gaussian, {"mean": [0.0, 1.0], "covariance": [1.0, 2.0]}),
    "Gaussian.log_prob": (LATENT.log_prob, {"x": [[0.0, 1.0]]}),
    "Gaussian.kl": (LATENT.kl, {"other": KNOWN}),
    "Gaussian.product": (LATENT.product, {"other": KNOWN}),
    "Gaussian.marginal": (LATENT.marginal, {"indices": [1]}),
    "Gaussian.condition": (LATENT.condition, {"indices": [1], "values": [0.3]}),
    "Gaussian.transform": (
        LATENT.transform,
        {"matrix": [[1.0, 2.0]], "shift": 0.5, "noise": 0.1},
    ),
    "Gaussian.sample": (LATENT.sample, {"n": 3, "rng": 0}),
    "product_of_experts": (sg.variational.product_of_experts, {"laws": [LATENT, KNOWN]}),
    "kl_divergence": (
        sg.variational.kl_divergence,
        {"p": MIXTURE, "q": sg.Gaussian([0.0], [4.0]), "samples": 16, "rng": 0},
    ),
    "jensen_shannon": (
        sg.variational.jensen_shannon,
        {"p": MIXTURE, "q": sg.Gaussian([0.0]), "grids": sg.Grid(-12.0, 12.0, 100)},
    ),
    "LinearGaussianModel": (
        sg.variational.LinearGaussianModel,
        {"matrix": [[1.0], [0.5]], "shift": 0.0, "noise": 0.3, "prior": sg.Gaussian([0.0])},
    ),
    "LinearGaussianModel.posterior": (LINES.posterior, {"x": [[0.0, 1.0]]}),
    "LinearGaussianModel.terms": (LINES.terms, {"x": [[0.0, 1.0]], "q": KNOWN}),
    "bound_terms": (
        sg.variational.bound_terms,
        {
            "prior": sg.Gaussian([0.0]),
            "log_likelihood": lambda z: -z[:, 0].square(),
            "q": sg.Gaussian([0.1]),
            "grids": sg.Grid(-8.0, 8.0, 60),
        },
    ),
    "VAE": (
        lambda **a: sg.VAE(**a).bound(X3, samples=2, rng=0),
        {
            "encoder": nn.Linear(3, 4),
            "decoder": nn.Linear(2, 3),
            "latents": 2,
            "likelihood": "gaussian",
            "std": 0.5,
            "learn_std": False,
            "prior": sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0),
            "flow": sg.Flow("nice", 2, width=4, rng=0),
        },
    ),
    "Flow": (
        sg.Flow,
        {
            "name": "spline",
            "dim": 2,
            "transforms": 2,
            "width": 4,
            "depth": 1,
            "context": 1,
            "mean": 0.5,
            "std": [1.0, 2.0],
            "rng": 0,
        },
    ),
    "ContinuousFlowLikelihood": (
        sg.ContinuousFlowLikelihood,
        {"solver": sg.TorchDiffEq(), "divergence": sg.Hutchinson(2)},
    ),
    "Flow.log_prob": (BENT.log_prob, {"x": X3[:, :2], "context": X3[:, 2:]}),
    "Flow.push": (BENT.push, {"z": X3[:, :2], "context": X3[:, 2:]}),
    "Flow.sample": (BENT.sample, {"n": 6, "context": X3[:, 2:], "rng": 0}),
    "VAE.bound": (
        AUTO.bound,
        {"x": X3, "samples": 2, "importance": 2, "rng": 0, "differentiable": False},
    ),
    "VAE.sample": (AUTO.sample, {"n": 2, "rng": 0}),
    "VAELoss": (
        lambda **a: sg.fit(AUTO, X3, sg.VAELoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0),
        {"beta": 1.0, "importance": 1},
    ),
    "Autoencoder": (
        lambda **a: sg.Autoencoder(**a).sample(2, rng=0),
        {
            "encoder": nn.Linear(3, 2),
            "decoder": nn.Linear(2, 3),
            "latents": 2,
            "likelihood": "gaussian",
            "std": 0.5,
            "prior": sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=1.0),
        },
    ),
    "MMDLoss": (
        lambda **a: sg.fit(AUTO, X3, sg.MMDLoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0),
        {"weight": 1.0, "kernel": "gaussian", "scale": 1.0},
    ),
    "VQVAE": (
        lambda **a: sg.VQVAE(**a).indices(X3),
        {
            "encoder": nn.Linear(3, 2),
            "decoder": nn.Linear(2, 3),
            "count": 4,
            "width": 2,
            "positions": (),
            "likelihood": "gaussian",
            "std": 0.5,
            "rng": 0,
        },
    ),
    "VQVAE.indices": (CODED.indices, {"x": X3}),
    "VQVAE.decode": (CODED.decode, {"indices": torch.tensor([0, 3])}),
    "VQVAE.spread": (CODED.spread, {"x": X3}),
    "VQVAE.sample": (CODED.sample, {"n": 2, "rng": 0}),
    "VQVAE.perplexity": (CODED.perplexity, {"x": X3}),
    "VQLoss": (
        lambda **a: sg.fit(CODED, X3, sg.VQLoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0),
        {"commitment": 0.25},
    ),
    "GAN": (
        lambda **a: sg.GAN(**a).sample(2, rng=0),
        {"generator": nn.Linear(2, 3), "critic": nn.Linear(3, 1), "latents": 2},
    ),
    "GAN.sample": (PLAYERS.sample, {"n": 2, "rng": 0}),
    "GAN.log_ratio": (PLAYERS.log_ratio, {"x": X3}),
    "GANLoss": (
        lambda **a: sg.fit(
            PLAYERS, X3, sg.GANLoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0
        ),
        {"r1": 1.0},
    ),
    "AdversarialAutoencoder": (
        lambda **a: sg.AdversarialAutoencoder(**a).sample(2, rng=0),
        {"autoencoder": AUTO, "critic": nn.Linear(2, 1)},
    ),
    "AdversarialAutoencoder.log_ratio": (JUDGED.log_ratio, {"z": X3[:, :2]}),
    "AdversarialLoss": (
        lambda **a: sg.fit(
            JUDGED, X3, sg.AdversarialLoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0
        ),
        {"weight": 1.0, "r1": 1.0},
    ),
    "VAEGAN": (
        lambda **a: sg.VAEGAN(**a).sample(2, rng=0),
        {
            "encoder": nn.Linear(3, 4),
            "decoder": nn.Linear(2, 3),
            "features": nn.Linear(3, 5),
            "head": nn.Linear(5, 1),
            "latents": 2,
        },
    ),
    "VAEGAN.sample": (LEARNED.sample, {"n": 2, "rng": 0}),
    "VAEGAN.log_ratio": (LEARNED.log_ratio, {"x": X3}),
    "VAEGANLoss": (
        lambda **a: sg.fit(
            LEARNED, X3, sg.VAEGANLoss(**a), sg.FitConfig(steps=1, batch_size=4), rng=0
        ),
        {"weight": 1.0, "r1": 1.0},
    ),
    "MixtureOfExperts": (
        lambda **a: sg.variational.MixtureOfExperts(**a).log_gate(X3),
        {
            "gate": nn.Linear(3, 2),
            "experts": nn.Linear(3, 2),
            "count": 2,
            "std": 0.5,
        },
    ),
}

SLIPS = {
    "a float": 0.5,
    "an int": 3,
    "an array": np.array([0.5, 1.0]),
    "a list": [0.5, 1.0],
    "a function": lambda *a: a[0],
    "None": None,
    "a word": "word",
    "another shape": torch.zeros(2, 3),
    "a class": sg.EDM,
}


def slipped(arguments):
    """Every call with one argument replaced, or two exchanged; with what was done."""
    for name in arguments:
        for kind, value in SLIPS.items():
            yield f"{name} is {kind}", {**arguments, name: value}
    names = list(arguments)
    for a, b in itertools.pairwise(names):
        yield f"{a} and {b} exchanged", {**arguments, a: arguments[b], b: arguments[a]}


def is_ours(error):
    """Whether an error was made by a `raise` of the package, and is no assertion."""
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    if not code.co_filename.startswith(PACKAGE) or isinstance(error, AssertionError):
        return False
    return dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS" and bool(str(error))


def bare_errors(call, arguments):
    """What came through of the errors of torch, NumPy and Python."""
    found = []
    for slip, given in slipped(arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                call(**given)
            except Exception as error:
                if not is_ours(error):
                    at = traceback.extract_tb(error.__traceback__)[-1]
                    where = f"{at.filename}:{at.lineno}"
                    found.append(f"{slip}: {type(error).__name__}: {error} ({where})")
    return found


@pytest.mark.parametrize("name", [*CALLS, *BEYOND])
def test_a_slip_works_or_ends_in_our_own_words(name, as_user):
    call, arguments = (CALLS | BEYOND)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # grids are coarse here
        call(**arguments)
    assert bare_errors(call, arguments) == []
