"""Preconditioning: parameterizations that know no path, only the noise in the state.

At one noise-to-signal ratio r = σ/α all linear paths have the same x_t/α = x0 + r ε, and hence the
same E[x0 | x_t]. A network that is given the state in units that do not tell the path, and r for
the time, is therefore one network for all paths: trained on `EDM` it may be sampled on a
`RectifiedFlow` or a VP-SDE, with another `ScoreModel` around the same weights.

    parameterization     x_t divided by      time told          output
    FlowPrediction       α + σ               σ/(α + σ)          ε − x0
    EDMPrediction        √(σ² + α² σ_d²)     ¼ log r            (r x0 − σ_d² ε)/(σ_d √(r² + σ_d²))
    DenoiserPrediction   α                   r                  x0

On its own path each is what its field calls it. For `RectifiedFlow` the state of a flow network is
x_t, its time t, and its output the velocity dx_t/dt. For `EDM` these are c_in, c_noise and F of
Karras et al., and D(x; σ).

**Two things called v.** v = α ε − σ x0 of `VPrediction` (Salimans and Ho) is the velocity on the
circle of (α, σ), that of a VP-SDE in its angle. ε − x0 is the velocity on the straight line. A
network of one read as the other gives a wrong score.
"""

from dataclasses import dataclass

from torch import Tensor

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_number
from sdegen.core.shapes import State, Time
from sdegen.score.parameterization import Estimates, Parameterization, X0Prediction


@dataclass(frozen=True)
class FlowPrediction(Parameterization):
    """The network predicts the velocity of the straight line from data to noise, u = ε − x0.

        x0 = (x_t − σ u)/(α + σ),     ε = (x_t + α u)/(α + σ)

    The output has the shape of x_t, (batch, *event).

    The loss of flow matching is TrainConfig(weighting="flow-matching"). Not `VPrediction`: see
    `sdegen.score.preconditioning`.

    Reference:
        Lipman et al. 2023, eq. (23) with σ_min = 0 and time the other way round, arXiv:2210.02747.

    Example:
        >>> reads, t = sg.FlowPrediction(), torch.tensor(0.25)
        >>> x0, eps = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> reads.target(x0, eps, 1 - t, t)
        tensor([[2.]])
        >>> x_t = (1 - t) * x0 + t * eps  # 1.5, a quarter of the way
        >>> reads.decode(torch.tensor([[2.0]]), x_t, 1 - t, t)
        (tensor([[1.]]), tensor([[3.]]))
    """

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from ε − x0."""
        total = alpha + sigma
        return (x_t - sigma * output) / total, (x_t + alpha * output) / total

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """Return ε − x0."""
        return eps - x0

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return α/(α + σ)."""
        return alpha / (alpha + sigma)

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return α + σ, which is 1 for `RectifiedFlow`."""
        return alpha + sigma

    def c_noise(self, t: Time, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return σ/(α + σ), which is t for `RectifiedFlow`."""
        return sigma / (alpha + sigma)


@dataclass(frozen=True)
class EDMPrediction(Parameterization):
    """The network is F of Karras et al., whose input and target have unit variance at every noise.

        D(x; σ) = c_skip x + c_out F(c_in x; c_noise)
        c_skip = σ_d²/(σ² + σ_d²),   c_out = σ σ_d/√(σ² + σ_d²),   c_in = 1/√(σ² + σ_d²),
        c_noise = ¼ log σ

    F and x have the shape of x_t, (batch, *event),
    with x_t/α and r = σ/α in the place of x and σ off α = 1. Its loss is
    TrainConfig(weighting="edm"). For σ_d = 1 it is `VPrediction` of the other sign.

    Args:
        sigma_data: σ_d > 0, the standard deviation of the data.

    Raises:
        ValueError: Unless sigma_data is finite and > 0.

    Reference:
        Karras et al. 2022, eqs. (7) and (8) and table 1, arXiv:2206.00364.

    Example:
        >>> reads = sg.EDMPrediction(sigma_data=0.5)
        >>> x, sigma = torch.tensor([[1.0]]), torch.tensor(0.5)
        >>> reads.decode(torch.zeros(1, 1), x, torch.tensor(1.0), sigma)[0]  # F = 0: c_skip x
        tensor([[0.5000]])
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_data", as_number("sigma_data", self.sigma_data))
        check_positive("sigma_data, the standard deviation of the data,", self.sigma_data)

    def decode(self, output: State, x_t: State, alpha: Tensor, sigma: Tensor) -> Estimates:
        """Return (x0, ε) from F."""
        d, scale = self.sigma_data, self.scale(alpha, sigma)
        x0 = (alpha * d * d / scale * x_t + sigma * d * output) / scale
        # not (x_t − α x0)/σ, which cancels where there is little noise
        eps = (sigma / scale * x_t - alpha * d * output) / scale
        return x0, eps

    def target(self, x0: State, eps: State, alpha: Tensor, sigma: Tensor) -> State:
        """F = (x0 − c_skip x)/c_out."""
        d = self.sigma_data
        return (sigma * x0 - alpha * d * d * eps) / (d * self.scale(alpha, sigma))

    def d_eps_d_output(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return −α σ_d/√(σ² + α² σ_d²)."""
        return -alpha * self.sigma_data / self.scale(alpha, sigma)

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return √(σ² + α² σ_d²), the spread of x_t: c_in = α/scale in the units of x_t/α."""
        return (sigma**2 + (alpha * self.sigma_data) ** 2).sqrt()

    def c_noise(self, t: Time, alpha: Tensor, sigma: Tensor) -> Tensor:
        """c_noise = ¼ log(σ/α)."""
        return 0.25 * (sigma / alpha).log()


@dataclass(frozen=True)
class DenoiserPrediction(X0Prediction):
    """The network is a denoiser D(x; r) = E[x0 | x0 + r ε = x] that scales its input itself.

        E[x0 | x_t] = D(x_t/α; σ/α),     shapes (batch, *event)

    For denoisers that were made elsewhere, with whatever preconditioning inside. One to be trained
    is easier to learn by `EDMPrediction`.

    Reference:
        Karras et al. 2022, eqs. (2) and (3), arXiv:2206.00364.

    Example:
        >>> reads, alpha, sigma = sg.DenoiserPrediction(), torch.tensor(0.8), torch.tensor(0.6)
        >>> c_noise = reads.c_noise(torch.tensor(0.5), alpha, sigma)  # r = σ/α
        >>> f"x_t is divided by {reads.scale(alpha, sigma):.2f}, the time told is {c_noise:.2f}"
        'x_t is divided by 0.80, the time told is 0.75'
    """

    def scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return α."""
        return alpha

    def c_noise(self, t: Time, alpha: Tensor, sigma: Tensor) -> Tensor:
        """r = σ/α."""
        return sigma / alpha
