"""Plots: results as figures, to save.

Nothing is computed here and nothing is shown: a function takes results and returns a `Figure`.
Units are the reduced ones of the SDE, with k_B = 1. `samples` draws trajectories, samples,
losses and curves, `images` sheets of images, `observables` what is measured along paths,
`particle_box` particles to scale, `fields` fields over time and phase spaces, `density`
densities in time, `fokker_planck` what else a Fokker–Planck solver finds, `estimates`
estimates beside exact values, `verification` certificates and error budgets, `innovations`
certificates of stored states, `scores` residuals of scores, `reverse` reverse kernels; all
have the look of `style`.

Trajectories that were lost are left out of every picture, and their number is written on it.

Example:
    >>> figure = sg.plots.convergence({"Euler": [(10, 0.1), (20, 0.05)]}, slope=-1.0)
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('number of steps N', 'error')
"""

from sdegen.plots.density import (
    density_and_particles,
    density_gif,
    density_heatmap,
    density_ridge,
    relaxation_gif,
)
from sdegen.plots.estimates import estimates
from sdegen.plots.fields import phase_space, space_time
from sdegen.plots.fokker_planck import current, first_passage, plane, spectrum, stationary
from sdegen.plots.images import denoising_strip, image_sheet
from sdegen.plots.innovations import innovations
from sdegen.plots.observables import (
    correlation,
    displacement,
    power_spectrum,
    radial_distribution,
    survival,
)
from sdegen.plots.particle_box import particles, particles_gif
from sdegen.plots.reverse import reverse_kernels
from sdegen.plots.samples import (
    convergence,
    histogram,
    loss_by_level,
    loss_curve,
    pareto,
    paths,
    samples_2d,
)
from sdegen.plots.scores import score_residuals
from sdegen.plots.verification import certificate, error_budget

__all__ = [
    "certificate",
    "convergence",
    "correlation",
    "current",
    "denoising_strip",
    "density_and_particles",
    "density_gif",
    "density_heatmap",
    "density_ridge",
    "displacement",
    "error_budget",
    "estimates",
    "first_passage",
    "histogram",
    "image_sheet",
    "innovations",
    "loss_by_level",
    "loss_curve",
    "pareto",
    "particles",
    "particles_gif",
    "paths",
    "phase_space",
    "plane",
    "power_spectrum",
    "radial_distribution",
    "relaxation_gif",
    "reverse_kernels",
    "samples_2d",
    "score_residuals",
    "space_time",
    "spectrum",
    "stationary",
    "survival",
]
