"""The rooms core, sde, solvers, diffusion and plots."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}
NO_SHAPES: dict[str, str] = {
    "NoisingTime": "it holds numbers",
    "PriorMismatch": "it holds numbers",
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}

TO_DO = """
plots plots.certificate plots.convergence plots.correlation plots.current plots.denoising_strip
plots.density_and_particles plots.density_gif plots.density_heatmap plots.density_ridge
plots.displacement plots.error_budget plots.first_passage plots.histogram plots.image_sheet
plots.innovations plots.loss_by_level plots.loss_curve plots.pareto plots.particles
plots.particles_gif plots.paths plots.phase_space plots.plane plots.power_spectrum
plots.radial_distribution plots.relaxation_gif plots.reverse_kernels plots.samples_2d
plots.score_residuals plots.space_time plots.spectrum plots.stationary plots.survival
"""
