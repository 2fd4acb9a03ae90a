"""Losses: denoising score matching, and which noise levels it dwells on.

    L = E_t E_{x0, ε} ‖ε̂(x_t, t) − ε‖²/d,        x_t = α x0 + σ ε

Its minimiser is E[ε | x_t] = −σ ∇ log p_t at every t, whatever the density q(t) of the times: a
regression has the same solution under any positive weights. Which errors a network of finite size
prefers to make does depend on q. So a weighting *is* a density of t:

    "simple"       q(t) uniform: Ho et al.'s L_simple. Good samples.
    "likelihood"   q(t) ∝ g(t)²/σ(t)²: ½ ∫ g² ‖ŝ − s‖² dt, which bounds the negative
    log-likelihood. Good densities.

For any linear SDE g²/σ² = d log(σ²/α²)/dt, so that the second is uniform in the log of the
noise-to-signal ratio: the weight is met by importance sampling, exactly, and no term of the loss
is larger than others by its weight. Measured: on a mixture in the plane, after 2,500 steps, the
learned density lost 0.020 nats by the second and 0.027 by the first; digits drawn by an MLP were
1.9 sampling floors from held-out ones by the first and 2.1 by the second.

In these two the error is counted in ε however the network's output is read, by the exact factor
∂ε/∂output. A parameterization therefore changes what is easy to learn, and not what is asked for.

Two more are the losses of their own methods, where the error is counted **in the output itself**:

    "flow-matching"   q(t) uniform; with `FlowPrediction` E ‖û − (ε − x0)‖².
    "edm"   log(σ/α) ~ N(−1.2, 1.2²), cut to [t_min, t_max]; with `EDMPrediction` E ‖F̂ − F‖², which
    is Karras et al.'s λ(σ) ‖D − x0‖², λ = 1/c_out².

In ε these are weights of 1/(1 − t)² for a rectified flow and of 1 + σ²/σ_d² for EDM. They diverge
towards the noise, and to meet them by the density of t would put all times there.

Times are **stratified**: a batch of n has one time in each n-th of the distribution, with one
common random offset.

Reference:
    Vincent 2011, Neural Computation 23, 1661; Ho et al. 2020, eq. (14), arXiv:2006.11239; Song,
    Durkan et al. 2021, theorem 1, arXiv:2101.09258; the common offset: Kingma et al. 2021,
    appendix I.1, arXiv:2107.00630; flow matching: Lipman et al. 2023, eq. (23), arXiv:2210.02747;
    EDM: Karras et al. 2022, eq. (8) and table 1, arXiv:2206.00364.
"""

import torch
from torch import Tensor

from sdegen.core.noise import Rng, Stream
from sdegen.core.shapes import State, expand
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting
from sdegen.score.model import ScoreModel

__all__ = ["TimeSampler", "denoising_errors"]

_NODES = 4096
_EDM_MEAN, _EDM_STD = -1.2, 1.2  # P_mean and P_std of Karras et al.
_IN_OUTPUT = ("flow-matching", "edm")


class TimeSampler:
    """Draws times in [t_min, t_max] with the density that a weighting asks for, stratified.

    Args:
        sde: The noising SDE.
        weighting: "simple", "likelihood", "flow-matching" or "edm".
    """

    def __init__(self, sde: GaussianPath, weighting: Weighting) -> None:
        self.sde = sde
        self._nodes: Tensor | None = None
        if weighting in ("likelihood", "edm"):
            spread = _equally if weighting == "likelihood" else _normally
            self._nodes = _times_at(sde, spread(*sde.kernel.log_ratio(_ends(sde)).tolist()))

    def quantile(self, u: Tensor) -> Tensor:
        """The time below which a share u of all times lies; float64, shape of u."""
        if self._nodes is None:
            return self.sde.t_min + (self.sde.t_max - self.sde.t_min) * u
        place = u * (_NODES - 1)
        left = place.floor().clamp(0, _NODES - 2)
        return torch.lerp(self._nodes[left.long()], self._nodes[left.long() + 1], place - left)

    def draw(self, n: int, source: Stream) -> Tensor:
        """N stratified times in increasing order, float64 on the CPU, shape (n,)."""
        offset = torch.rand((), generator=source.generator(), dtype=torch.float64)
        return self.quantile((torch.arange(n, dtype=torch.float64) + offset) / n)


def denoising_errors(
    model: ScoreModel,
    x0: State,
    t: Tensor,
    *,
    weighting: Weighting = "simple",
    rng: Rng = None,
    rows: slice = slice(None),
) -> Tensor:
    """‖ε̂(x_t, t) − ε‖²/d, one for each row, with x_t drawn from the kernel.

    Args:
        model: The model.
        x0: Data, shape (batch, *event).
        t: Times, shape (batch,).
        weighting: With "flow-matching" and "edm" the errors are those of the output, not of ε.
        rng: Seed, generator or None, for ε.
        rows: Those whose errors are wanted, of ranks that share a batch; the ε of each row is the
            same whichever are.

    Returns:
        Squared errors of ε, each a mean over the event, one for each of the rows. For pure
        guessing, ε̂ = 0, about 1.
    """
    t = t.to(device=x0.device, dtype=x0.dtype)
    x_t, eps = model.sde.perturb(x0, t, rng=rng)
    x0, t, x_t, eps = x0[rows], t[rows], x_t[rows], eps[rows]
    alpha, sigma = expand(model.sde.alpha(t), x0), expand(model.sde.sigma(t), x0)
    how = model.parameterization
    error = model.output(x_t, t) - how.target(x0, eps, alpha, sigma)
    if weighting not in _IN_OUTPUT:
        error = how.slope(alpha, sigma) * error
    errors: Tensor = error.square().flatten(1).mean(1)
    return errors


def _ends(sde: GaussianPath) -> Tensor:
    """t_min and t_max."""
    return torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)


def _equally(first: float, last: float) -> Tensor:
    """Levels from first to last by equal amounts."""
    ends = torch.tensor([first, last], dtype=torch.float64)
    return torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, _NODES, dtype=torch.float64))


def _normally(first: float, last: float) -> Tensor:
    """Levels from first to last between which equal shares of N(−1.2, 1.2²) lie."""
    ends = (torch.tensor([first, last], dtype=torch.float64) - _EDM_MEAN) / _EDM_STD
    low, high = torch.special.ndtr(ends)
    shares = torch.lerp(low, high, torch.linspace(0, 1, _NODES, dtype=torch.float64))
    deviations: Tensor = torch.special.ndtri(shares)
    return _EDM_MEAN + _EDM_STD * deviations


def _times_at(sde: GaussianPath, levels: Tensor) -> Tensor:
    """Times at which log σ/α has increasing values; the ends are t_min, t_max."""
    nodes = sde.kernel.time_of_log_nsr(levels, sde.t_min, sde.t_max)
    nodes[0], nodes[-1] = sde.t_min, sde.t_max
    return nodes
