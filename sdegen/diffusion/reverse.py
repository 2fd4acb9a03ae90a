"""The reverse process: a diffusion run backwards with the help of its score.

    dX = [f − ½ (1 + η²) (∇·(G Gᵀ) + G Gᵀ ∇ log p_t)] dt + η G dW̄    (time runs down, dt < 0)

For every η ≥ 0 the marginals are those of the forward process, since in p_t the drift ½ η² (∇·(G
Gᵀ) + G Gᵀ score) undoes what the noise η G does: η = 1 is the reverse SDE, η = 0 the probability
flow, an ODE. G is a matrix of noise channels, or diagonal; where it does not depend on x, its
divergence is 0.
"""

import copy
from typing import ClassVar, Literal, Self

from torch import Tensor

from sdegen.core.accuracy import SlopeBy
from sdegen.core.checks import check_not_negative
from sdegen.core.derivatives import is_seen
from sdegen.core.jumps import check_no_jumps
from sdegen.core.kernel import ReverseStructure
from sdegen.core.noise_structure import NoiseStructure, check_not_general
from sdegen.core.requests import as_number, as_time, check_function, kind_of
from sdegen.core.scores import score_of_rows, trajectories_of
from sdegen.core.sde import SDE, NoiseKind, Rows
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.signature import check_order
from sdegen.core.slope_checks import check_divergence
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.origin import check_origin
from sdegen.diffusion.signal import check_signal


class ReverseSDE(SDE):
    """The time reversal of a forward SDE, written in the same t and run with dt < 0.

        dX = [f − ½ (1 + η²) (∇·(G Gᵀ) + G Gᵀ score)] dt + η G dW,   dt < 0

    Args:
        forward: SDE with noise, additive or multiplicative, diagonal or of channels. A diagonal g
            is one number for each trajectory, or its component i depends on x_i alone.
        score: ∇ log p_t(x), learned or exact, of x's shape (batch, *event).
        eta: η ≥ 0; 1 is the reverse SDE, 0 the probability flow.

    Raises:
        TypeError: If score is not callable.
        ValueError: If the forward noise is general or absent, if forward is a Markov chain or a
            reverse process itself, or η < 0; or if the score is that of a model, or of a noised
            law, with another α or σ.

    Reference:
        Anderson 1982; Song et al. 2021, eqs. (6) and (13), for G(x, t) eqs. (15) and (16),
        arXiv:2011.13456; for η, Zhang and Chen 2023, section 2 (λ there), arXiv:2204.13902.

    Example:
        >>> path, x, t = sg.VP(sg.ConstantBeta(2.0)), torch.tensor([[3.0]]), torch.tensor(0.5)
        >>> normal = lambda x, t: -x  # the score of N(0, 1), which this path keeps
        >>> [round(sg.ReverseSDE(path, normal, eta).drift(x, t).item(), 4) for eta in (0.5, 1.0)]
        [0.75, 3.0]
    """

    direction: Literal[1, -1] = -1
    halves_steps: ClassVar[bool] = False
    _counted: ClassVar[str] = "score"

    def __init__(self, forward: SDE, score: ScoreFn, eta: float = 1.0) -> None:
        if not isinstance(forward, SDE):
            raise TypeError(
                f"forward must be an SDE such as VP(LinearBeta(0.1, 20.0)), but is "
                f"{kind_of(forward)}; ReverseSDE(sde, score, eta)."
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
        check_no_jumps(forward, "ReverseSDE")
        check_not_general(forward, "ReverseSDE")
        check_function("score", score, "a function (x, t) -> ∇ log p_t(x)")
        check_order(score, "score")
        eta = as_number("eta", eta)
        check_not_negative("eta", eta)
        check_origin(score, forward)
        self.forward: SDE = forward
        self.score: ScoreFn = score
        self.eta: float = eta
        ends = isinstance(forward, GaussianPath) and forward.ends_without_signal
        self._end = forward.time_range[1] if ends else None  # where rates diverge
        self.noise: NoiseKind = "none" if eta == 0 else forward.noise
        if eta > 0 and forward.channels is not None:  # a flow has no noise, of any structure
            self.channels: int | None = forward.channels
            self.noise_structure: NoiseStructure = forward.noise_structure

    @property
    def time_range(self) -> tuple[float, float]:
        """The times at which there is a score, [t_min, t_max]: of the process, and of a model."""
        low, high = self.forward.score_range
        first, last = getattr(self.score, "score_range", None) or (low, high)
        return (max(low, first), min(high, last))

    @property
    def phase_space(self) -> bool:  # type: ignore[override]
        """Whether a state of the forward process is positions and velocities."""
        return self.forward.phase_space

    @property
    def trajectories(self) -> int | None:
        """How many trajectories the forward process or the score hold something for."""
        forward = self.forward.trajectories
        return trajectories_of(self.score) if forward is None else forward

    def event_of(self, numbers: int) -> tuple[int, ...]:
        """Return the event of the forward process that holds so many numbers."""
        return self.forward.event_of(numbers)

    def of_rows(self, rows: Rows) -> Self:
        """Return the reversal of some of the trajectories, with their parameters alone."""
        if self.trajectories is None:
            return self
        clone = copy.copy(self)
        clone.forward = self.forward.of_rows(rows)
        clone.score = score_of_rows(self.score, rows)
        return clone

    @property
    def denoising(self) -> ReverseStructure:
        """The score, η and the forward kernels."""
        forward = self.forward
        return ReverseStructure(self.score, self.eta, forward.kernel, forward.noise_kernel)

    def drift(self, x: State, t: Time | float) -> State:
        """f − ½ (1 + η²) (∇·(G Gᵀ) + G Gᵀ score), same shape as x."""
        t = as_time(t)
        if self._end is not None and bool((t >= self._end).any()):
            check_signal(self.forward, f"the drift of ReverseSDE at t = {self._end:g}")
        weight = 0.5 * (1 + self.eta**2)
        f = self.forward.drift(x, t)
        drift = f - self.forward.covariance_times(x, t, self.score(x, t), weight)
        if self.forward.noise != "multiplicative":
            return drift
        return drift - weight * self.forward.covariance_divergence(x, t)

    def diffusion(self, x: State, t: Time | float) -> Tensor:
        """η g, broadcastable to x; or η G, (batch or 1, *event, channels), where η > 0."""
        if self.channels != self.forward.channels:
            return x.new_zeros(())
        return self.eta * self.forward.diffusion(x, as_time(t))

    def diffusion_column(self, x: State, t: Time, k: int) -> Tensor:
        """Return column k of η G, broadcastable to x."""
        return self.eta * self.forward.diffusion_column(x, t, k)

    def check_derivatives(self, x: State, t: Time) -> None:
        """Compare the derivatives of the forward process, and ∇·(G Gᵀ), with differences."""
        self.forward.check_derivatives(x, t)
        if self.forward.noise == "multiplicative":
            check_divergence(self.forward, x, t)

    def slope_by(self, x: State, t: Time) -> SlopeBy:
        """Return how derivatives of the forward process and of its G are found at some states."""
        own = self.forward.slope_by(x, t)
        if self.forward.noise != "multiplicative" or own == "differences":
            return own
        seen = is_seen(lambda y: self.forward.diffusion(y, t), x)
        return "autograd" if seen else "differences"
