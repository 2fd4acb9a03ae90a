"""The rooms core, sde, solvers and diffusion."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}
NO_SHAPES: dict[str, str] = {
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}

TO_DO = """
ActiveBrownian AdaptiveHeun AncestralChain AngularAdams BAOAB BetaSchedule Blurring BrownianMotion
Churn Coefficients Coloured ConstantBeta CosineBeta DDIM DDPM DPM2 DRI1 DensityPrior DoubleWell
DrivenPotential EDM EulerMaruyama ExponentialAdams ExponentialAdamsMoulton FinalDenoising
GaussianCore GaussianMixture GaussianPath GaussianPrior GeneralizedLangevin GeometricSigma
HarmonicRepulsion Heun ImplicitEuler JumpAdapted JumpDiffusion KarrasHeun Langevin LennardJones
LinearBeta LinearMultistep LinearSDE Metropolis MetropolisCorrector Milstein NoisingTime OBABO
OrnsteinUhlenbeck PairForces PairPotential Potential PredictorCorrector Prior PriorMismatch
PronySeries QUICSORT Quadratic QuadraticBeta RateNetwork RectifiedFlow ReverseSDE SKROCK SRA
SamplePrior StationarySDE StochasticHeat SubVP TabulatedBeta TorchDiffEq TorchSDE
UnderdampedLangevin VE VP WCA Yukawa ZeroTerminalSNR prior_mismatch timesteps timesteps.MadeGrid
timesteps.angle timesteps.auto timesteps.karras timesteps.log_snr timesteps.made_for
timesteps.power timesteps.quadratic timesteps.uniform
"""
