"""The rooms core, sde, solvers and diffusion."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {}
NO_SHAPES: dict[str, str] = {}

TO_DO = """
Absorbing AccuracyWarning ActiveBrownian AdaptiveHeun AlphaStable AncestralChain AngularAdams
BAOAB BetaSchedule Blurring Boundary BoundaryCondition BoundaryStep BrownianMotion BrownianPath
CheckpointError Churn Coefficients Coloured CompoundPoisson ConstantBeta CosineBeta DDIM DDPM DPM2
DRI1 DensityPrior DoubleWell DrivenPotential EDM ErrorEstimate EulerMaruyama ExponentialAdams
ExponentialAdamsMoulton FinalDenoising FixedStep GaussianCore GaussianMixture GaussianPath
GaussianPrior GeneralizedLangevin GeometricSigma HarmonicRepulsion Heun ImplicitEuler Interrupted
ItoProcess JumpAdapted JumpDiffusion KarrasHeun Langevin LennardJones LinearBeta LinearMultistep
LinearSDE Metropolis MetropolisCorrector Milstein Noise NoisingTime NonFiniteError
NotNormalizableError OBABO OrnsteinUhlenbeck PairForces PairPotential Periodic PositionBoundary
Potential PredictorCorrector Prior PriorMismatch PronySeries QUICSORT Quadratic QuadraticBeta
RankError RateNetwork RectifiedFlow Reflecting ReverseSDE SDE SKROCK SRA SamplePrior SdegenError
Solver SolverError StationarySDE StepNoise StochasticHeat SubVP TabulatedBeta TorchDiffEq TorchSDE
Trajectory Trust UnderdampedLangevin VE VP WCA Walls Yukawa ZeroTerminalSNR integrate
prior_mismatch timesteps timesteps.MadeGrid timesteps.angle timesteps.auto timesteps.karras
timesteps.log_snr timesteps.made_for timesteps.power timesteps.quadratic timesteps.uniform update
"""
