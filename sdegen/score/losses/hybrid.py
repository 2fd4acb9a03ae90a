"""The hybrid loss: an error of the noise, and the bound that teaches a variance.

    L = L_simple + λ L_vlb

L_simple is the denoising loss, which knows no variance. L_vlb is the variational bound of a chain
whose reverse steps have the variance Σ_θ that the network tells, without the term of the prior,
which nothing is learned from. Its gradient is stopped in the mean: it teaches the variance alone,
and the mean is what L_simple makes of it. At its minimum Σ_θ is, coordinate by coordinate,

    E[(x_{k−1} − μ_θ(x_k))² | x_k],

the variance of the reverse step where the mean is right, and with a wrong mean as much more as
makes the bound best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_positive
from sdegen.core.requests import as_number
from sdegen.core.shapes import State, expand
from sdegen.diffusion.chain_steps import between, posterior_stds, variance_ends
from sdegen.diffusion.ddpm import DDPM
from sdegen.score.config import Weighting
from sdegen.score.forms.scalar import ScalarForm
from sdegen.score.learned_variance import LearnedVariance
from sdegen.score.losses.timed import TimedLoss, check_score_model
from sdegen.score.losses.times import StepSampler, TimeSampler
from sdegen.score.losses.weights import IN_OUTPUT, WeightFn
from sdegen.score.model import ScoreModel
from sdegen.training.loss import Batch, BatchNoise, LossValue


@dataclass(frozen=True)
class HybridLoss(TimedLoss):
    """L_simple + λ L_vlb of a model with `LearnedVariance`, on the steps of a DDPM chain.

        L_vlb = Σ_{k ≥ 2} E KL(q(x_{k−1} | x_k, x_0) ‖ p(x_{k−1} | x_k)) − E log p(x_0 | x_1)

    in nats for each number of x_0, shape (batch, *event), is estimated at the step that a row drew
    for L_simple, and its gradient is that of the variance alone. Nichol and Dhariwal count it in
    bits: their λ is ln 2 times as large. Both terms are recorded, as "simple" and "vlb".

    Args:
        weighting: Of L_simple, as `DenoisingLoss` has it: "simple" is theirs.
        label_dropout: Share of the rows of a step whose label is kept from the network.
        times: From which density steps are drawn; the loss is the same, its noise is not.
        stratified: Whether a batch of n has one step in each n-th of the density.
        steps: The chain, whose variance is learned; it must be given.
        vlb_weight: λ > 0.

    Raises:
        TypeError: If steps is no chain, or it is asked for a module that is no `ScoreModel`.
        ValueError: If steps is missing, λ is not > 0, or the model's parameterization is another.

    Reference:
        Nichol and Dhariwal 2021, eq. (16) and section 3.1, arXiv:2102.09672.

    Example:
        >>> path = sg.VP(sg.ConstantBeta(9.0))
        >>> network = sg.MLP(1, width=4, depth=1, variance=True, rng=0)
        >>> model = sg.ScoreModel(network, path, sg.LearnedVariance())
        >>> loss = sg.HybridLoss(steps=sg.DDPM.discretize(path, steps=10), vlb_weight=0.5)
        >>> result = sg.train(model, torch.eye(2, 1), sg.TrainConfig(1), loss=loss, rng=0)
        >>> rest = result.losses - result.logs["simple"] - 0.5 * result.logs["vlb"]
        >>> f"{rest.item():.4f}", sorted(result.logs)
        ('0.0000', ['simple', 'vlb'])
    """

    weighting: Weighting | WeightFn = "simple"
    vlb_weight: float = field(default=0.001, kw_only=True)
    teaches_variance: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vlb_weight", as_number("vlb_weight", self.vlb_weight))
        check_positive("vlb_weight", self.vlb_weight)
        if self.steps is None:
            raise ValueError(
                "HybridLoss teaches the variance of the steps of a chain, but steps is None; pass "
                "HybridLoss(steps=DDPM.discretize(model.sde, steps=1000))."
            )

    def sampler(self, module: nn.Module, batch: Batch) -> TimeSampler | StepSampler:
        """Return the distribution of steps, or refuse a module that tells no variance.

        Args:
            module: The model.
            batch: Rows, of which one is looked at.

        Raises:
            TypeError: If it is no `ScoreModel`.
            ValueError: If its network has no outputs for a variance.
        """
        how = check_score_model(module).parameterization
        if not isinstance(how, LearnedVariance):
            raise ValueError(  # noqa: TRY004, it is a model
                f"HybridLoss teaches a variance, but {type(how).__name__} reads none: make the "
                f"model with LearnedVariance({type(how).__name__}()) and a network of twice as "
                "many outputs, such as MLP(dim, variance=True), or take DenoisingLoss()."
            )
        return super().sampler(module, batch)

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> LossValue:
        """Return the loss of each row, shape (n,), and its two terms."""
        model, x0 = cast(ScoreModel, module), batch.rows
        steps = self.sampler(model, batch) if self._times is None else self._times
        sampler = cast(StepSampler, steps)
        t, ratio, u = self.draw(model, batch, noise)
        model = self.told(model, batch, noise)
        eps = noise.normal_like(x0)
        t = t.to(x0)
        form = cast(ScalarForm, model.form)
        error, of_x0, fraction = form.errors(model, x0, t, eps)
        if self.weighting not in IN_OUTPUT:
            alpha, sigma = form.kernel(x0, t)
            error = model.parameterization.d_eps_d_output(alpha, sigma) * error
        simple = error.square().flatten(1).mean(1)
        simple = simple if ratio is None else simple * ratio.to(simple)
        assert self.steps is not None
        k = sampler.steps(u) - 1
        vlb = _terms(self.steps, k, of_x0.detach(), fraction) / sampler.chances(u).to(simple)
        return simple + self.vlb_weight * vlb, {"simple": simple, "vlb": vlb}


def _terms(chain: DDPM, k: Tensor, error: State, fraction: State) -> Tensor:
    """Return L_k for each row, in nats for each number, shape (n,).

    Args:
        chain: The chain.
        k: Where the reverse step of each row ends, shape (n,).
        error: x̂0 − x0, shape (n, *event).
        fraction: w, same shape.
    """
    low, high = (expand(end[k].to(error), error) for end in variance_ends(chain.b, chain.sigmas))
    variance = between(low, high, fraction).square()
    weights = chain.alphas[:-1] * (chain.b / chain.sigmas[1:]).square()
    known = posterior_stds(chain.b, chain.sigmas)[k].to(error)
    posterior = expand(known, error).square()
    change = (expand(weights[k].to(error), error) * error).square()
    ends = posterior == 0  # at the data: the density of the last step
    # log b̃²/Σ where there is a posterior, −log 2πΣ where it is a point
    scale = torch.where(ends, 1 / (2 * math.pi * math.e), posterior)
    terms = (posterior + change) / variance - 1 - torch.log(scale / variance)
    # ½ (m²/Σ + log 2πΣ): the constants above make the same of posterior = 0
    return 0.5 * terms.flatten(1).mean(1)
