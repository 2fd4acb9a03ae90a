"""All other rooms, and the functions of the public modules."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "SolverTable": "a table of what solvers declare",
    "which_solver": "a table of what solvers declare",
    "distributed_context": "joins processes",
}
NO_SHAPES: dict[str, str] = {
    "SolverTable": "its rows are words and numbers",
    "which_solver": "its rows are words and numbers",
    "distributed_context": "joins processes",
}

TO_DO = """
Cause Certificate ChainDensity2D ChainMoments Diagnosis ErrorBudget ForceField Identities
ReverseKernel SamplerErrors ScoreLimits ScoreResiduals StepBias TrainResult calibrate certify
certify_noising composition composition.Product composition.guided composition.prior_factor
composition.product composition.tempered composition.warn_collapse data data.Digits
data.checkerboard data.dequantise data.digits data.eight_gaussians data.redequantise
data.swiss_roll data.to_levels data.two_moons error_budget error_budgets fp_residual identities
metrics metrics.NodalDensity metrics.energy_distance metrics.kolmogorov_smirnov metrics.mmd
metrics.nearest_distance metrics.sliced_wasserstein metrics.total_variation metrics.wasserstein_1d
report report.Claim report.Report report.Verdict reverse_kernel sampler_errors save_certificate
score_residuals step_bias training.Callback training.JSONLines training.StepReport
training.TensorBoard variational.DivergenceEstimate
"""
