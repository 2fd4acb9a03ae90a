# Public names, by room. This file is read at run time by lazy_loader and by type checkers.

__version__: str

# the update and what it is made of
from .accuracy import ErrorEstimate as ErrorEstimate
from .accuracy import Trust as Trust
from .boundary import Absorbing as Absorbing
from .boundary import Periodic as Periodic
from .boundary import Reflecting as Reflecting
from .brownian import BrownianPath as BrownianPath
from .errors import AccuracyWarning as AccuracyWarning
from .errors import CheckpointError as CheckpointError
from .errors import Interrupted as Interrupted
from .errors import NonFiniteError as NonFiniteError
from .errors import NotNormalizableError as NotNormalizableError
from .errors import RankError as RankError
from .errors import SdegenError as SdegenError
from .errors import SolverError as SolverError
from .noise import Noise as Noise
from .step import update as update
from .trajectory import Trajectory as Trajectory
from .core.retired import Walls as Walls

# what moves
from .sde.base import SDE as SDE
from .core.ito_process import ItoProcess as ItoProcess
from .sde.ddpm import DDPM as DDPM
from .sde.ddpm import AncestralChain as AncestralChain
from .sde.linear import VE as VE
from .sde.linear import VP as VP
from .sde.linear import GaussianPath as GaussianPath
from .sde.linear import SubVP as SubVP
from .sde.paths import EDM as EDM
from .sde.paths import RectifiedFlow as RectifiedFlow
from .sde.potentials import DoubleWell as DoubleWell
from .sde.potentials import GaussianMixture as GaussianMixture
from .sde.potentials import Potential as Potential
from .sde.potentials import Quadratic as Quadratic
from .sde.processes import BrownianMotion as BrownianMotion
from .sde.processes import Langevin as Langevin
from .sde.processes import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from .sde.processes import RateNetwork as RateNetwork
from .sde.reverse import ReverseSDE as ReverseSDE
from .sde.schedules import BetaSchedule as BetaSchedule
from .sde.schedules import ConstantBeta as ConstantBeta
from .sde.schedules import CosineBeta as CosineBeta
from .sde.schedules import GeometricSigma as GeometricSigma
from .sde.schedules import LinearBeta as LinearBeta
from .sde.schedules import QuadraticBeta as QuadraticBeta
from .sde.tables import TabulatedBeta as TabulatedBeta

# how it moves
from .solvers.angular import AngularAdams as AngularAdams
from .solvers.base import FixedStep as FixedStep
from .solvers.base import Solver as Solver
from .solvers.base import integrate as integrate
from .solvers.adaptive import AdaptiveHeun as AdaptiveHeun
from .solvers.churn import DPM2 as DPM2
from .solvers.churn import Churn as Churn
from .solvers.churn import KarrasHeun as KarrasHeun
from .solvers.exponential import Coefficients as Coefficients
from .solvers.torch_diffeq import TorchDiffEq as TorchDiffEq
from .solvers.torch_sde import TorchSDE as TorchSDE
from .solvers.last import FinalDenoising as FinalDenoising
from .solvers.metropolis import MetropolisCorrector as MetropolisCorrector
from .solvers.multistep import ExponentialAdams as ExponentialAdams
from .solvers.multistep import ExponentialAdamsMoulton as ExponentialAdamsMoulton
from .solvers.multistep import LinearMultistep as LinearMultistep
from .solvers.native import DDIM as DDIM
from .solvers.native import EulerMaruyama as EulerMaruyama
from .solvers.native import Heun as Heun
from .solvers.native import PredictorCorrector as PredictorCorrector

# running it
from .simulation.calibration import Calibration as Calibration
from .simulation.calibration import calibrate as calibrate
from .simulation.currents import ProbabilityCurrent as ProbabilityCurrent
from .simulation.ensemble import Ensemble as Ensemble
from .simulation.ensemble import run_ensemble as run_ensemble
from .simulation.observables import Accumulator as Accumulator
from .simulation.observables import Block as Block
from .simulation.observables import Observable as Observable
from .simulation.observables import Partial as Partial
from .simulation.passages import FirstPassage as FirstPassage
from .simulation.ranks import joined_ranks as joined_ranks
from .simulation.simulate import simulate as simulate
from .simulation.statistics import Histogram as Histogram
from .simulation.statistics import Moments as Moments
from .simulation.statistics import TimeCorrelation as TimeCorrelation

# the same drift and diffusion seen as a density
from .fokker_planck.density import Density as Density
from .fokker_planck.density import DensityPath as DensityPath
from .fokker_planck.family import FokkerPlanckFamily as FokkerPlanckFamily
from .fokker_planck.feller import classify_end as classify_end
from .fokker_planck.grid import Grid as Grid
from .fokker_planck.plane import FokkerPlanck2D as FokkerPlanck2D
from .fokker_planck.plane import PlaneDensity as PlaneDensity
from .fokker_planck.solver import FokkerPlanck as FokkerPlanck
from .fokker_planck.transient import BackwardEuler as BackwardEuler
from .fokker_planck.transient import Exponential as Exponential

# the learned term
from .score.config import TrainConfig as TrainConfig
from .score.inverse import LinearMeasurement as LinearMeasurement
from .score.model import ScoreModel as ScoreModel
from .score.networks import MLP as MLP
from .score.networks import UNet as UNet
from .score.parameterization import EpsPrediction as EpsPrediction
from .score.parameterization import ScorePrediction as ScorePrediction
from .score.parameterization import VPrediction as VPrediction
from .score.parameterization import X0Prediction as X0Prediction
from .score.preconditioning import DenoiserPrediction as DenoiserPrediction
from .score.preconditioning import EDMPrediction as EDMPrediction
from .score.preconditioning import FlowPrediction as FlowPrediction
from .score.training import TrainResult as TrainResult
from .score.training import train as train

# networks trained elsewhere, and ours given to others
from .adaptors.azula import from_azula as from_azula
from .adaptors.azula import to_azula as to_azula
from .adaptors.denoisers import from_denoiser as from_denoiser
from .adaptors.denoisers import to_denoiser as to_denoiser
from .adaptors.diffusers import from_diffusers as from_diffusers
from .adaptors.diffusers import to_diffusers as to_diffusers

# likelihoods
from .likelihood.bound import EvidenceBound as EvidenceBound
from .likelihood.bound import continuous_elbo as continuous_elbo
from .likelihood.bound import elbo as elbo
from .likelihood.divergence import Hutchinson as Hutchinson
from .likelihood.divergence import HutchPlusPlus as HutchPlusPlus
from .likelihood.flow import Likelihood as Likelihood
from .likelihood.flow import log_likelihood as log_likelihood

# what a simulation or a sampler is worth
from .verification.budget import ErrorBudget as ErrorBudget
from .verification.budget import error_budget as error_budget
from .verification.budget import error_budgets as error_budgets
from .verification.certificate import Certificate as Certificate
from .verification.certificate import certify as certify
from .verification.chain import ChainDensity as ChainDensity
from .verification.noising import certify_noising as certify_noising
from .verification.residual import fp_residual as fp_residual

# data, distances, pictures, grids of times
from . import data as data
from . import metrics as metrics
from . import plots as plots
from . import report as report
from .score import composition as composition
from .solvers import timesteps as timesteps
