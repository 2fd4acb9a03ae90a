"""The reverse process: a diffusion run backwards with the help of its score.

    dX = [f − ½ (1 + η²) g² ∇ log p_t] dt + η g dW̄        (time runs from t_max down, dt < 0)

For every η ≥ 0 the marginals are those of the forward process, since in p_t the drift ½ η² g²
score undoes what the noise η g does: η = 1 is the reverse SDE, η = 0 the probability flow, an ODE.
What is assumed: additive noise. With g(x, t) the drift needs a further ∇·(g²) term, which is not
built.
"""

import copy
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_not_negative
from sdegen.core.jumps import check_no_jumps
from sdegen.core.kernel import ReverseStructure
from sdegen.core.noise_structure import check_diagonal
from sdegen.core.requests import as_number, as_time, check_function, kind_of
from sdegen.core.sde import SDE, Rows
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.signature import check_order
from sdegen.core.tolerances import SAME_MODEL
from sdegen.diffusion.gaussian_path import GaussianPath


class ReverseSDE(SDE):
    """The time reversal of a forward SDE, written in the same t and run with dt < 0.

    drift = f − ½ (1 + η²) g² score,   diffusion = η g

    Args:
        forward: SDE with additive noise.
        score: ∇ log p_t(x), learned or exact.
        eta: η ≥ 0; 1 is the reverse SDE, 0 the probability flow.

    Raises:
        TypeError: If score is not callable.
        ValueError: If the forward noise is multiplicative or absent, if forward is a Markov chain
            or a reverse process itself, or η < 0; or if the score is that of a model, or of a
            noised law, with another α or σ.

    Reference:
        Anderson 1982; Song et al. 2021, eqs. (6) and (13), arXiv:2011.13456; for η, Zhang and Chen
        2023, section 2 (λ there), arXiv:2204.13902.
    """

    direction = -1
    halves_steps: ClassVar[bool] = False
    _counted: ClassVar[str] = "score"

    def __init__(self, forward: SDE, score: ScoreFn, eta: float = 1.0) -> None:
        if not isinstance(forward, SDE):
            raise TypeError(
                f"forward must be an SDE such as VP(LinearBeta(0.1, 20.0)), but is "
                f"{kind_of(forward)}; ReverseSDE(sde, score, eta)."
            )
        if forward.noise == "multiplicative":
            raise ValueError(
                "ReverseSDE needs additive noise: with g(x, t) the reverse drift has a further "
                "term ∇·(g²), which is not built; if g depends on t alone, say so with "
                "ItoProcess(..., noise='additive')."
            )
        if forward.noise == "none":
            raise ValueError(
                "a noise-free SDE is reversed by running it with decreasing times; it needs no "
                "ReverseSDE."
            )
        if forward.is_discrete:
            raise ValueError(
                f"{type(forward).__name__} is a Markov chain on integer times, not a differential "
                "equation; its inverse is chain.reverse(score)."
            )
        if forward.direction != 1:
            raise ValueError(f"{type(forward).__name__} is a reverse process already.")
        check_diagonal(forward, "ReverseSDE")
        check_no_jumps(forward, "ReverseSDE")
        check_function("score", score, "a function (x, t) -> ∇ log p_t(x)")
        check_order(score, "score")
        eta = as_number("eta", eta)
        check_not_negative("eta", eta)
        check_origin(score, forward)
        self.forward, self.score, self.eta = forward, score, eta
        self.noise: Literal["none", "additive"] = "none" if eta == 0 else "additive"

    @property
    def time_range(self) -> tuple[float, float]:
        """The times at which the forward process has a score, [t_min, t_max]."""
        return self.forward.score_range

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the forward process holds parameters for."""
        return self.forward.trajectories

    def of_rows(self, rows: Rows) -> Self:
        """Return the reversal of some of the trajectories, with their parameters alone."""
        if self.forward.trajectories is None:
            return self
        clone = copy.copy(self)
        clone.forward = self.forward.of_rows(rows)
        return clone

    @property
    def denoising(self) -> ReverseStructure:
        """The score, η and the forward kernel."""
        return ReverseStructure(self.score, self.eta, self.forward.kernel)

    def drift(self, x: State, t: Time | float) -> State:
        """f − ½ (1 + η²) g² score, same shape as x."""
        t = as_time(t)
        weight = 0.5 * (1 + self.eta**2)
        f = self.forward.drift(x, t)
        return f - self.forward.covariance_times(x, t, self.score(x, t), weight)

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """η g, broadcastable to x."""
        return self.eta * self.forward.diffusion(x, as_time(t))

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how a derivative that the forward process needs is found at some states."""
        return self.forward.slope_by(x, t)


def check_origin(score: ScoreFn, forward: SDE) -> None:
    """Refuses a score of another α or σ, of an object with an `sde`, and rates that do not belong.

    Args:
        score: ∇ log p_t(x); one that has an `sde`, such as `model.score`, or the model itself.
        forward: The SDE that it is to be the score of.

    Raises:
        ValueError: Naming the first time at which they differ, or at which the forward SDE has
            rates other than those of its α and σ.
    """
    if isinstance(forward, GaussianPath):
        forward.check_rates()
    own = getattr(score, "sde", None)
    there, here = getattr(own, "kernel", None), forward.kernel
    if own is forward or there is None or here is None:
        return
    low, high = forward.score_range
    for t in (high, 0.5 * (low + high), low):
        at = torch.tensor(t, dtype=torch.float64)
        for symbol in ("alpha", "sigma"):
            with torch.no_grad():
                ours, its = (float(getattr(kernel, symbol)(at)) for kernel in (here, there))
            if not abs(ours - its) <= SAME_MODEL * abs(ours):
                raise ValueError(
                    f"the score is that of another SDE, a {type(own).__name__}: at t = {t:g} its "
                    f"{symbol} is {its:.6g}, but that of this {type(forward).__name__} is "
                    f"{ours:.6g}. Pass its own, model.sde; or, if it is meant, the score as a "
                    "function, lambda x, t: model.score(x, t)."
                )
