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
AdaptiveHeun AncestralChain AngularAdams BAOAB BetaSchedule Blurring Churn Coefficients
ConstantBeta CosineBeta DDIM DDPM DPM2 DRI1 DensityPrior EDM EulerMaruyama ExponentialAdams
ExponentialAdamsMoulton FinalDenoising GaussianMixture GaussianPath GaussianPrior GeometricSigma
Heun ImplicitEuler JumpAdapted KarrasHeun LinearBeta LinearMultistep Metropolis
MetropolisCorrector Milstein NoisingTime OBABO PredictorCorrector Prior PriorMismatch QUICSORT
QuadraticBeta RectifiedFlow ReverseSDE SKROCK SRA SamplePrior SubVP TabulatedBeta TorchDiffEq
TorchSDE VE VP ZeroTerminalSNR prior_mismatch timesteps timesteps.MadeGrid timesteps.angle
timesteps.auto timesteps.karras timesteps.log_snr timesteps.made_for timesteps.power
timesteps.quadratic timesteps.uniform
"""
