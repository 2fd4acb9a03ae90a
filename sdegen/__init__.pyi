# Public names, by room. This file is read at run time by lazy_loader and by type checkers.

__all__: list[str]
__version__: str

# the update and what it is made of
from .core.accuracy import ErrorEstimate as ErrorEstimate
from .core.accuracy import Trust as Trust
from .core.boundary import Absorbing as Absorbing
from .core.boundary import Boundary as Boundary
from .core.boundary import BoundaryStep as BoundaryStep
from .core.boundary import Periodic as Periodic
from .core.boundary import PositionBoundary as PositionBoundary
from .core.boundary import Reflecting as Reflecting
from .core.conditions import BoundaryCondition as BoundaryCondition
from .core.brownian import BrownianPath as BrownianPath
from .core.errors import AccuracyWarning as AccuracyWarning
from .core.errors import CheckpointError as CheckpointError
from .core.errors import Interrupted as Interrupted
from .core.errors import NonFiniteError as NonFiniteError
from .core.errors import NotNormalizableError as NotNormalizableError
from .core.errors import RankError as RankError
from .core.errors import SdegenError as SdegenError
from .core.errors import SolverError as SolverError
from .core.noise import Noise as Noise
from .core.step_noise import StepNoise as StepNoise
from .core.update import update as update
from .core.trajectory import Trajectory as Trajectory
from .core.retired import Walls as Walls

# what moves
from .core.sde import SDE as SDE
from .core.alpha_stable import AlphaStable as AlphaStable
from .core.jumps import CompoundPoisson as CompoundPoisson
from .core.ito_process import ItoProcess as ItoProcess
from .diffusion.ddpm import DDPM as DDPM
from .diffusion.ddpm import AncestralChain as AncestralChain
from .diffusion.gaussian_path import VE as VE
from .diffusion.gaussian_path import VP as VP
from .diffusion.gaussian_path import GaussianPath as GaussianPath
from .diffusion.gaussian_path import SubVP as SubVP
from .diffusion.blurring import Blurring as Blurring
from .diffusion.paths import EDM as EDM
from .diffusion.paths import RectifiedFlow as RectifiedFlow
from .sde.active_matter import ActiveBrownian as ActiveBrownian
from .sde.fields import StochasticHeat as StochasticHeat
from .sde.jump_diffusion import JumpDiffusion as JumpDiffusion
from .sde.coloured import Coloured as Coloured
from .sde.generalized_langevin import GeneralizedLangevin as GeneralizedLangevin
from .sde.generalized_langevin import PronySeries as PronySeries
from .sde.linear import LinearSDE as LinearSDE
from .sde.pair_forces import PairForces as PairForces
from .sde.pair_potentials import GaussianCore as GaussianCore
from .sde.pair_potentials import HarmonicRepulsion as HarmonicRepulsion
from .sde.pair_potentials import LennardJones as LennardJones
from .sde.pair_potentials import PairPotential as PairPotential
from .sde.pair_potentials import WCA as WCA
from .sde.pair_potentials import Yukawa as Yukawa
from .sde.potentials import DoubleWell as DoubleWell
from .diffusion.mixtures import GaussianMixture as GaussianMixture
from .sde.potentials import Potential as Potential
from .sde.potentials import Quadratic as Quadratic
from .sde.potentials import DrivenPotential as DrivenPotential
from .sde.stationary import StationarySDE as StationarySDE
from .sde.underdamped import UnderdampedLangevin as UnderdampedLangevin
from .sde.processes import BrownianMotion as BrownianMotion
from .sde.processes import Langevin as Langevin
from .sde.processes import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from .sde.processes import RateNetwork as RateNetwork
from .diffusion.mismatch import PriorMismatch as PriorMismatch
from .diffusion.mismatch import prior_mismatch as prior_mismatch
from .diffusion.priors import DensityPrior as DensityPrior
from .diffusion.priors import GaussianPrior as GaussianPrior
from .diffusion.priors import Prior as Prior
from .diffusion.priors import SamplePrior as SamplePrior
from .diffusion.relaxation import NoisingTime as NoisingTime
from .diffusion.reverse import ReverseSDE as ReverseSDE
from .diffusion.schedules import BetaSchedule as BetaSchedule
from .diffusion.schedules import ConstantBeta as ConstantBeta
from .diffusion.schedules import CosineBeta as CosineBeta
from .diffusion.schedules import GeometricSigma as GeometricSigma
from .diffusion.schedules import LinearBeta as LinearBeta
from .diffusion.schedules import QuadraticBeta as QuadraticBeta
from .diffusion.schedules import ZeroTerminalSNR as ZeroTerminalSNR
from .diffusion.tables import TabulatedBeta as TabulatedBeta

# how it moves
from .diffusion.samplers.angular_adams import AngularAdams as AngularAdams
from .core.fixed_steps import FixedStep as FixedStep
from .core.solver import Solver as Solver
from .core.solver import integrate as integrate
from .diffusion.samplers.adaptive import AdaptiveHeun as AdaptiveHeun
from .diffusion.samplers.karras import DPM2 as DPM2
from .diffusion.samplers.karras import Churn as Churn
from .diffusion.samplers.karras import KarrasHeun as KarrasHeun
from .diffusion.samplers.adams_coefficients import Coefficients as Coefficients
from .engine.which_solver import SolverTable as SolverTable
from .engine.which_solver import which_solver as which_solver
from .solvers.dri1 import DRI1 as DRI1
from .solvers.implicit_euler import ImplicitEuler as ImplicitEuler
from .solvers.sk_rock import SKROCK as SKROCK
from .solvers.torch_diffeq import TorchDiffEq as TorchDiffEq
from .solvers.torch_sde import TorchSDE as TorchSDE
from .diffusion.samplers.final_denoising import FinalDenoising as FinalDenoising
from .diffusion.samplers.metropolis import MetropolisCorrector as MetropolisCorrector
from .diffusion.samplers.multistep import ExponentialAdams as ExponentialAdams
from .diffusion.samplers.multistep import ExponentialAdamsMoulton as ExponentialAdamsMoulton
from .diffusion.samplers.linear_multistep import LinearMultistep as LinearMultistep
from .diffusion.samplers.ddim import DDIM as DDIM
from .solvers.euler import EulerMaruyama as EulerMaruyama
from .solvers.heun import Heun as Heun
from .solvers.jump_adapted import JumpAdapted as JumpAdapted
from .solvers.metropolis import Metropolis as Metropolis
from .solvers.milstein import Milstein as Milstein
from .solvers.quicsort import QUICSORT as QUICSORT
from .solvers.splitting import BAOAB as BAOAB
from .solvers.splitting import OBABO as OBABO
from .solvers.sra import SRA as SRA
from .diffusion.samplers.predictor_corrector import PredictorCorrector as PredictorCorrector

# running it
from .averages.expectation import expectation as expectation
from .averages.result import Expectation as Expectation
from .calibration.result import Calibration as Calibration
from .calibration.calibrate import calibrate as calibrate
from .observables.currents import ProbabilityCurrent as ProbabilityCurrent
from .observables.displacement import MeanSquaredDisplacement as MeanSquaredDisplacement
from .observables.residence import ResidenceTimes as ResidenceTimes
from .measurements.passages import first_passages as first_passages
from .measurements.residence import residence_times as residence_times
from .observables.spectrum import PowerSpectrum as PowerSpectrum
from .measurements.spectrum import power_spectrum as power_spectrum
from .measurements.displacement import diffusion_coefficient as diffusion_coefficient
from .measurements.displacement import mean_squared_displacement as mean_squared_displacement
from .engine.ensemble_result import Ensemble as Ensemble
from .engine.contain import contain as contain
from .engine.ensemble import run_ensemble as run_ensemble
from .engine.extrapolate import Extrapolation as Extrapolation
from .engine.extrapolate import extrapolate as extrapolate
from .measurements.autocorrelation import (
    integrated_autocorrelation_time as integrated_autocorrelation_time,
)
from .measurements.blocking import block_average as block_average
from .measurements.time_average import time_average as time_average
from .measurements.time_average import time_covariance as time_covariance
from .observables.base import Accumulator as Accumulator
from .observables.base import Block as Block
from .observables.base import Observable as Observable
from .observables.base import Partial as Partial
from .observables.particles import OfSystems as OfSystems
from .observables.particles import PairEnergy as PairEnergy
from .observables.particles import Pressure as Pressure
from .observables.particles import RadialDistribution as RadialDistribution
from .observables.structure_factor import StructureFactor as StructureFactor
from .observables.particles import SystemMean as SystemMean
from .observables.passages import FirstPassage as FirstPassage
from .engine.ranks import distributed_context as distributed_context
from .engine.samples import sample as sample
from .engine.samples import Samples as Samples
from .engine.inpaint import inpaint as inpaint
from .engine.simulate import simulate as simulate
from .observables.functionals import Functional as Functional
from .observables.functionals import Increments as Increments
from .observables.histogram import Histogram as Histogram
from .observables.local_time import LocalTime as LocalTime
from .observables.path_integrals import StochasticIntegral as StochasticIntegral
from .observables.path_integrals import TimeIntegral as TimeIntegral
from .observables.thermodynamics import Heat as Heat
from .observables.thermodynamics import MediumEntropy as MediumEntropy
from .observables.thermodynamics import Work as Work
from .observables.moments import Moments as Moments
from .observables.correlation import TimeCorrelation as TimeCorrelation
from .measurements.current import current as current
from .measurements.current import local_velocity as local_velocity
from .measurements.entropy_production import entropy_production as entropy_production
from .measurements.free_energy import crooks as crooks
from .measurements.free_energy import jarzynski as jarzynski

# the same drift and diffusion seen as a density
from .fokker_planck.density import Density as Density
from .fokker_planck.density_path import DensityPath as DensityPath
from .fokker_planck.batch import FokkerPlanckBatch as FokkerPlanckBatch
from .fokker_planck.questions.feller import classify_boundary as classify_boundary
from .fokker_planck.discretization.grid import Grid as Grid
from .fokker_planck.density2d.solver import FokkerPlanck2D as FokkerPlanck2D
from .fokker_planck.density2d.density import PlaneDensity as PlaneDensity
from .fokker_planck.density2d.score import PlaneScore as PlaneScore
from .fokker_planck.solver import FokkerPlanck as FokkerPlanck
from .fokker_planck.questions.transient import BackwardEuler as BackwardEuler
from .fokker_planck.questions.transient import Exponential as Exponential

# the learned term
from .score.force_field import ForceField as ForceField
from .score.force_field import force_field as force_field
from .score.config import TrainConfig as TrainConfig
from .score.losses import DenoisingLoss as DenoisingLoss
from .score.losses import HybridLoss as HybridLoss
from .score.losses import ImplicitLoss as ImplicitLoss
from .score.losses import SlicedLoss as SlicedLoss
from .score.losses import StableTargetLoss as StableTargetLoss
from .score.inverse import LinearMeasurement as LinearMeasurement
from .score.measurement import Measurement as Measurement
from .score.levels import LevelLosses as LevelLosses
from .score.levels import loss_by_level as loss_by_level
from .score.equivariant import ParticleNet as ParticleNet
from .score.learned_variance import LearnedVariance as LearnedVariance
from .score.mean_prediction import MeanPrediction as MeanPrediction
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
from .score.training import train as train
from .score.transition_matching import TransitionMatching as TransitionMatching

# a module trained on data with a loss of its own
from .training.config import FitConfig as FitConfig
from .training.fitting import fit as fit
from .training.loss import Loss as Loss
from .training.result import TrainResult as TrainResult

# networks trained elsewhere, and ours given to others
from .adaptors.azula import from_azula as from_azula
from .adaptors.azula import to_azula as to_azula
from .adaptors.denoisers import from_denoiser as from_denoiser
from .adaptors.denoisers import to_denoiser as to_denoiser
from .adaptors.diffusers import diffusers_network as diffusers_network
from .adaptors.diffusers import from_diffusers as from_diffusers
from .adaptors.diffusers_unet import to_diffusers as to_diffusers
from .app.hub import HubScoreModel as HubScoreModel

# likelihoods
from .likelihood.bound_terms import EvidenceBound as EvidenceBound
from .likelihood.bound import continuous_elbo as continuous_elbo
from .likelihood.bound import elbo as elbo
from .likelihood.divergence import Hutchinson as Hutchinson
from .likelihood.divergence import HutchPlusPlus as HutchPlusPlus
from .likelihood.flow import Likelihood as Likelihood
from .likelihood.flow import log_likelihood as log_likelihood
from .likelihood.phase_space import PositionBound as PositionBound
from .likelihood.phase_space import position_bound as position_bound

# models with latent variables
from .variational.continuous_flows import ContinuousFlowLikelihood as ContinuousFlowLikelihood
from .variational.flows import Flow as Flow
from .variational.flows import FlowLikelihood as FlowLikelihood
from .variational.gaussians import Gaussian as Gaussian
from .variational.schedule import LearnedSchedule as LearnedSchedule
from .variational.schedule import ScheduleLoss as ScheduleLoss
from .variational.schedule import VariationalDiffusion as VariationalDiffusion
from .variational.schedule import VariationalDiffusionLoss as VariationalDiffusionLoss
from .variational.timed_bound import timed_bound as timed_bound
from .variational.vae import VAE as VAE
from .variational.vae import VAELoss as VAELoss
from .variational.hierarchical_bound import HierarchicalLoss as HierarchicalLoss
from .variational.hierarchical_bound import hierarchical_bound as hierarchical_bound
from .variational.hierarchy import HierarchicalVAE as HierarchicalVAE
from .variational.levels import LinearGaussian as LinearGaussian
from .variational.relatives.adversarial import GAN as GAN
from .variational.relatives.adversarial import GANLoss as GANLoss
from .variational.relatives.adversarial_prior import (
    AdversarialAutoencoder as AdversarialAutoencoder,
)
from .variational.relatives.adversarial_prior import AdversarialLoss as AdversarialLoss
from .variational.relatives.autoencoder import Autoencoder as Autoencoder
from .variational.relatives.discrepancy import MMDLoss as MMDLoss
from .variational.relatives.quantised import VQVAE as VQVAE
from .variational.relatives.quantised import VQLoss as VQLoss
from .variational.relatives.vae_gan import VAEGAN as VAEGAN
from .variational.relatives.vae_gan import VAEGANLoss as VAEGANLoss

# energies that are sampled and learned
from .energy.boltzmann import RBM as RBM
from .energy.contrastive import ContrastiveDivergence as ContrastiveDivergence
from .energy.model import EnergyModel as EnergyModel

# what a simulation or a sampler is worth
from .verification.budget import ErrorBudget as ErrorBudget
from .verification.budget import error_budget as error_budget
from .verification.budget import error_budgets as error_budgets
from .verification.certificate import Certificate as Certificate
from .verification.certificate import certify as certify
from .verification.chain import ChainDensity as ChainDensity
from .verification.chain_moments import ChainMoments as ChainMoments
from .verification.phase_space_chain import ChainDensity2D as ChainDensity2D
from .verification.identities.identities import identities as identities
from .verification.identities.result import Identities as Identities
from .verification.diagnosis.result import Cause as Cause
from .verification.diagnosis.result import Diagnosis as Diagnosis
from .verification.noising import certify_noising as certify_noising
from .verification.noising_time import noising_time as noising_time
from .verification.residual import fp_residual as fp_residual
from .verification.levels.answer import StepBias as StepBias
from .verification.step_bias import step_bias as step_bias
from .verification.reporting.assertion import assert_follows as assert_follows
from .verification.score_residuals import ScoreResiduals as ScoreResiduals
from .verification.score_residuals import score_residuals as score_residuals
from .verification.scores.level_checks import ScoreLimits as ScoreLimits
from .verification.scores.sampler_errors import SamplerErrors as SamplerErrors
from .verification.scores.sampler_errors import sampler_errors as sampler_errors
from .verification.reverse_kernel import ReverseKernel as ReverseKernel
from .verification.reverse_kernel import reverse_kernel as reverse_kernel

# stored states of any program
from .readers.read import read_states as read_states
from .readers.diffusers_states import diffusers_states as diffusers_states
from .readers.stored_states import StoredStates as StoredStates

# data, distances, pictures, grids of times
from . import data as data
from . import metrics as metrics
from . import plots as plots
from .app import report as report
from .app.cite import cite as cite
from .app.certificate_page import save_certificate as save_certificate
from . import training as training
from . import variational as variational
from . import energy as energy
from .score import composition as composition
from .diffusion import timesteps as timesteps
