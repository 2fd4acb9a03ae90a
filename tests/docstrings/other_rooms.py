"""All other rooms, and the functions of the public modules."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {}
NO_SHAPES: dict[str, str] = {}

TO_DO = """
BackwardEuler Calibration Cause Certificate ChainDensity2D ChainMoments Density DensityPath
Diagnosis Ensemble ErrorBudget EvidenceBound Expectation Exponential Extrapolation FokkerPlanck
FokkerPlanck2D FokkerPlanckBatch ForceField Grid HutchPlusPlus Hutchinson Identities Likelihood
PlaneDensity PlaneScore PositionBound ReverseKernel SamplerErrors Samples ScoreLimits
ScoreResiduals SolverTable StepBias TrainResult block_average calibrate certify certify_noising
classify_boundary composition composition.Product composition.guided composition.prior_factor
composition.product composition.tempered composition.warn_collapse contain continuous_elbo crooks
data data.Digits data.checkerboard data.dequantise data.digits data.eight_gaussians
data.redequantise data.swiss_roll data.to_levels data.two_moons diffusion_coefficient
distributed_context elbo entropy_production error_budget error_budgets extrapolate first_passages
fp_residual identities inpaint mean_squared_displacement metrics metrics.NodalDensity
metrics.energy_distance metrics.kolmogorov_smirnov metrics.mmd metrics.nearest_distance
metrics.sliced_wasserstein metrics.total_variation metrics.wasserstein_1d plots plots.certificate
plots.convergence plots.correlation plots.current plots.denoising_strip
plots.density_and_particles plots.density_gif plots.density_heatmap plots.density_ridge
plots.displacement plots.error_budget plots.first_passage plots.histogram plots.image_sheet
plots.innovations plots.loss_by_level plots.loss_curve plots.pareto plots.particles
plots.particles_gif plots.paths plots.phase_space plots.plane plots.power_spectrum
plots.radial_distribution plots.relaxation_gif plots.reverse_kernels plots.samples_2d
plots.score_residuals plots.space_time plots.spectrum plots.stationary plots.survival
position_bound power_spectrum report report.Claim report.Report report.Verdict residence_times
reverse_kernel run_ensemble sample sampler_errors save_certificate score_residuals step_bias
time_average time_covariance training.Callback training.JSONLines training.StepReport
training.TensorBoard variational.DivergenceEstimate which_solver
"""
