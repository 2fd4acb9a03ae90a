"""Denoising score matching, with the weightings of the field.

    L = (1/Z) ∫ w(t) E_{x0, ε} ‖ε̂(x_t, t) − ε‖²/d dt,        x_t = α x0 + σ ε

Its minimiser is E[ε | x_t] = −σ ∇ log p_t at every t, whatever the weights w: a regression has the
same solution under any positive weights. Which errors a network of finite size prefers to make
does depend on w. `weights.py` has the table of them, `times.py` how times are drawn. By default a
weighting *is* the density of t, q = w/Z, and no term of the loss is larger than others by its
weight.

    "simple"       uniform in t. Good samples.
    "likelihood"   uniform in log-SNR: it bounds the negative log-likelihood. Good densities.
    "variational"  on a chain its ELBO; in continuous time the same as "likelihood".
    "min-snr"      "simple" with less of little noise, where SNR > 5.

Measured: on a mixture in the plane, after 2,500 steps, the learned density lost 0.020 nats by
"likelihood" and 0.027 by "simple"; digits drawn by an MLP were 1.9 sampling floors from held-out
ones by "simple" and 2.1 by "likelihood".

In these the error is counted in ε however the network's output is read, by the exact factor
∂ε/∂output. A parameterization therefore changes what is easy to learn, and not what is asked for.

Two more are the losses of their own methods, where the error is counted **in the output itself**:

    "flow-matching"   uniform in t; with `FlowPrediction` E ‖û − (ε − x0)‖², with `VPrediction`
    E ‖v̂ − v‖², the loss of Salimans and Ho, and of Lin et al. where no signal is left at t_max.
    "edm"   log(σ/α) ~ N(−1.2, 1.2²), cut to [t_min, t_max]; with `EDMPrediction` E ‖F̂ − F‖², which
    is Karras et al.'s λ(σ) ‖D − x0‖², λ = 1/c_out².

In ε these are weights of 1/(1 − t)² for a rectified flow and of 1 + σ²/σ_d² for EDM. They diverge
towards the noise, and to meet them by the density of t would put all times there.

The noise of ε itself, given x_t, is most of the loss. `StableTargetLoss` has the same minimiser
with less of it, where examples are of a few numbers (`stable.py`).

The error need not be squared: `distance` is what it costs, and a class that derives from
`DenoisingLoss` may define another. Its minimiser is then another location of ε given x_t, such as
the median, and is −σ ∇ log p_t only where the law of ε given x_t is symmetric.

Reference:
    Vincent 2011, Neural Computation 23, 1661; Ho et al. 2020, eq. (14), arXiv:2006.11239; Song,
    Durkan et al. 2021, theorem 1, arXiv:2101.09258; flow matching: Lipman et al. 2023, eq. (23),
    arXiv:2210.02747; EDM: Karras et al. 2022, eq. (8) and table 1, arXiv:2206.00364.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from sdegen.core.shapes import State
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.config import Weighting
from sdegen.score.losses.timed import TimedLoss
from sdegen.score.losses.times import TimeSampler
from sdegen.score.losses.weights import IN_OUTPUT, SCORE_WORDS, WeightFn, noise_of_error
from sdegen.score.model import ScoreModel
from sdegen.training.loss import Batch, BatchNoise


@dataclass(frozen=True)
class DenoisingLoss(TimedLoss):
    """Denoising score matching.

        L = (1/Z) ∫ w(t) E ‖ε̂(x_t, t) − ε‖²/d dt,     x_t = α x0 + σ ε of shape (batch, *event)

    Args:
        weighting: Which noise levels count: "simple" (uniform in t), "likelihood" (g²/σ², uniform
            in log-SNR), "variational" (the ELBO, half of that but on a chain), "min-snr"
            (min(1, 5/SNR)), "flow-matching" or "edm", where the error is that of the output, not
            of ε; or w(t), a function of times, float64 and of shape (n,).
        label_dropout: Share of the rows of a step whose label is kept from the network, so that
            it learns the score without a label too; where there are labels.
        times: From which density times are drawn: "importance" (of the weighting), "uniform",
            "log-snr", or q(t) > 0, a function like w, of any size. The loss is the same by the
            ratio w/q; its noise is not.
        stratified: Whether a batch of n has one time in each n-th of the density; else they are
            independent.
        steps: A `DDPM` chain of the model's SDE: t is drawn from its steps 1 … N, and sums over
            them stand for the integral. DenoisingLoss("simple", steps=chain) is Ho et al.'s
            algorithm 1.

    Raises:
        TypeError: If it is asked for a module that is no `ScoreModel`; if weighting or times are
            neither words nor functions, or steps no chain.
        ValueError: If a word is unknown, the share is outside [0, 1], weights are negative or all
            0, the chain is of another SDE, or the model's SDE lacks the α and σ that a word needs.

    Reference:
        Vincent 2011, Neural Computation 23, 1661; the chain: Ho et al. 2020, algorithm 1,
        arXiv:2006.11239; label dropout: Ho and Salimans 2022, algorithm 1, arXiv:2207.12598.

    Example:
        >>> loss = sg.DenoisingLoss("simple")
        >>> loss.distance(torch.tensor([[3.0, 4.0]]))  # (3² + 4²)/2
        tensor([12.5000])
        >>> model = sg.ScoreModel(sg.MLP(2, width=4, depth=1, rng=0), sg.VP(sg.ConstantBeta(9.0)))
        >>> config = sg.TrainConfig(steps=1, batch_size=4096)
        >>> losses = sg.train(model, torch.eye(2), config, loss=loss, rng=0).losses
        >>> f"{losses.item():.1f}"  # untrained, ε̂ = 0: E ‖ε‖²/d
        '1.0'
    """

    def distance(self, error: State) -> Tensor:
        """Return what errors cost, one number for each row: ‖error‖²/d, shape (batch,)."""
        return error.square().flatten(1).mean(1)

    def explained(
        self, model: ScoreModel, batch: Batch, t: Tensor, eps: State, noise: BatchNoise
    ) -> tuple[Tensor, State]:
        """Return the x0 and the ε that states are explained by: those that they were made of."""
        return batch.rows, eps

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return the loss of each row, shape (n,); of ε̂ = 0 it is about 1."""
        model, x0 = cast(ScoreModel, module), batch.rows
        t, ratio, u = self.draw(model, batch, noise)
        model = self.told(model, batch, noise)
        eps = noise.normal_like(model.form.like_state(x0))
        x0, eps = self.explained(model, batch, t, eps, noise)
        error = denoising_error(model, x0, t, eps, self.weighting)
        if not isinstance(model.sde, GaussianPath) and self.weighting in SCORE_WORDS:
            times = self.sampler(model, batch) if self._times is None else self._times
            size = error[0].numel()
            error = noise_of_error(model.sde, error, error, t.to(error))
            # d numbers of ε have m of the score in G, and the mean is over d
            share = error[0].numel() / size
            ratio = cast(TimeSampler, times).per_density(u) * share
        loss = self.distance(error)
        return loss if ratio is None else loss * ratio.to(loss)


def denoising_error(
    model: ScoreModel, x0: Tensor, t: Tensor, eps: State, weighting: Weighting | WeightFn
) -> State:
    """Return ε̂(x_t, t) − ε, or the error of the output, at x_t = α x0 + σ ε."""
    t = t.to(device=x0.device, dtype=x0.dtype)
    return model.form.error(model, x0, t, eps, in_output=weighting in IN_OUTPUT)
