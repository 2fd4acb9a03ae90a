"""The loss of denoising at given times, for the tests of losses and of training."""

from sdegen.core.noise import normal_like, stream
from sdegen.score.losses import denoising_error


def denoising_loss(model, x0, t, *, weighting="simple", rng=None):
    """‖ε̂(x_t, t) − ε‖²/d of each row, with x_t drawn from the kernel; about 1 for ε̂ = 0."""
    eps = normal_like(x0, stream(rng, "perturb"))
    return denoising_error(model, x0, t, eps, weighting).square().flatten(1).mean(1)
