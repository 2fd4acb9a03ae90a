"""Where no signal is left: what divides by α(t) refuses a path that ends with α = 0."""

from sdegen.diffusion.gaussian_path import GaussianPath


def check_signal(sde: object, name: str) -> None:
    """Refuse a path on which no signal is left at t_max, in the name of what divides by α.

    Raises:
        ValueError: With what knows such paths.
    """
    if isinstance(sde, GaussianPath) and sde.ends_without_signal:
        raise ValueError(
            f"{name} divides by α(t), but at t_max = {sde.t_max:g} of this path no signal is "
            "left, α = 0: take DDIM() or chain.reverse(model.score), on equal steps, which know "
            "that level, or elbo(chain, x) for a likelihood."
        )
