"""Stable targets: denoising with what many examples say of a noised state, not the one behind it.

    ε̄ = Σ_j w_j ε_j,     ε_j = L⁻¹ (x_t − Φ x_j − m),     w_j ∝ exp(−½ ‖ε_j‖²)

In denoising score matching a state x_t = Φ x_0 + m + L ε is regressed on its own ε, which is one
draw from all that could have led there. Let x_1, …, x_n be further examples, drawn as x_0 was.
Given the set {x_0, …, x_n} and x_t, the example behind x_t is the j-th with probability w_j, so
that ε̄ is the mean of ε given both, and the mean of ε̄ given x_t is that of ε:

    E[ε̄ | x_t] = E[ε | x_t] = −Lᵀ ∇ log p_t(x_t),        Var[ε̄ | x_t] ≤ Var[ε | x_t]

The minimiser is therefore that of `DenoisingLoss`, for every n, provided that x_0 is among the
references; what is left out is noise of the gradient. How much is left out is decided by how many
examples could have led to x_t: nearly all where noise is as large as the data, none but x_0 where
it is small beside the distance of neighbours, as of images at small t.

Measured, the loss that training ends with: of three Gaussians in the plane (the rotating trap of
`benchmarks/scores.py`) 0.34 by one example and 0.003 by 512 references.

Reference:
    Xu, Tong and Jaakkola 2023, arXiv:2302.00670, eq. (5), the *stable target field*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.kernel import Kernel
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.losses.denoising import DenoisingLoss
from sdegen.score.model import ScoreModel
from sdegen.training.loss import Batch, BatchNoise


@dataclass(frozen=True)
class StableTargetLoss(DenoisingLoss):
    """Denoising score matching on the mean of ε over many examples that may be behind x_t.

        L = (1/Z) ∫ w(t) E ‖ε̂(x_t, t) − ε̄‖²/d dt,     ε̄ = Σ_j w_j ε_j,   w_j ∝ exp(−½ ‖ε_j‖²)

    Its minimiser is that of `DenoisingLoss`; its gradients have less noise, and its values are
    smaller by that noise. Validation is by `DenoisingLoss`, so that its values compare.

    Args:
        weighting: As `DenoisingLoss` has it.
        label_dropout: The same.
        times: The same.
        stratified: The same.
        steps: The same.
        references: n ≥ 1, examples of a step that are held against every state, drawn with
            replacement. The cost of a step is that of two products of matrices, (batch, d) with
            (d, n); of a kernel of matrices, (batch, d²) with (d², n).

    Raises:
        TypeError: If it is asked for a module that is no `ScoreModel`, or references are no int.
        ValueError: If references < 1, if labels are conditions of floats, or as `DenoisingLoss`.

    Reference:
        Xu, Tong and Jaakkola 2023, arXiv:2302.00670, eq. (5).

    Example:
        >>> x = torch.special.ndtri((torch.arange(1000.0) + 0.5) / 1000)[:, None]  # N(0, 1)
        >>> model = sg.ScoreModel(sg.MLP(1, width=4, depth=1, rng=0), sg.VP(sg.ConstantBeta(2.0)))
        >>> config, loss = sg.TrainConfig(steps=1, batch_size=4096), sg.StableTargetLoss("simple")
        >>> losses = sg.train(model, x, config, loss=loss, rng=0).losses
        >>> f"{losses.item():.1f}"  # untrained: E ε̄² = ∫ σ² dt = 0.57, not E ε² = 1
        '0.6'
    """

    references: int = field(default=1024, kw_only=True)
    needs_all_rows: ClassVar[bool] = True
    _all: Batch | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("references", self.references)

    def prepare(self, module: nn.Module, batch: Batch) -> Self:
        """Return the loss with its times and all rows; refuse what does not suit."""
        if batch.labels is not None and batch.labels.is_floating_point():
            raise ValueError(
                "StableTargetLoss looks for other examples of the same label, of which a "
                "condition of floats has none; pass loss=DenoisingLoss()."
            )
        prepared = super().prepare(module, batch)
        object.__setattr__(prepared, "_all", batch)
        return prepared

    def explained(
        self, model: ScoreModel, batch: Batch, t: Tensor, eps: State, noise: BatchNoise
    ) -> tuple[Tensor, State]:
        """Return the means of x_0 and of ε over the examples that may be behind x_t."""
        if not model.training:
            return batch.rows, eps
        rows = batch if self._all is None else self._all
        generator = noise.block(1)[1].child("references").generator()
        which = torch.randint(len(rows), (self.references,), generator=generator)
        which = which.to(rows.rows.device)
        allowed = None
        if batch.labels is not None and rows.labels is not None and model.labels is not None:
            classes = int(cast(int, model.network.classes))
            told = model.labels[:, None]
            allowed = (told == rows.labels[which]) | (told == classes)
        return posterior_means(model, batch.rows, t, eps, rows.rows[which], allowed)


def posterior_means(
    model: ScoreModel,
    x0: Tensor,
    t: Tensor,
    eps: State,
    references: Tensor,
    allowed: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Return x̄ = Σ_j w_j x_j and ε̄ = L⁻¹ (x_t − Φ x̄ − m) over x0 and references.

    Args:
        model: Whose process has a Gaussian kernel.
        x0: The example of each row, shape (batch, *event).
        t: Its time, shape (batch,), on the CPU.
        eps: The ε of its state, of the state's shape.
        references: Other examples, shape (n, *event).
        allowed: Which of them may be behind which row, shape (batch, n); None is all.
    """
    t = t.to(device=x0.device, dtype=x0.dtype)
    kernel = kernel_of(model.sde)
    x_t = model.form.noised(model, x0, t, eps)
    logits = -0.5 * kernel.squared_distances(x_t, t, references)
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    own = -0.5 * eps.flatten(1).square().sum(1, keepdim=True).to(logits)
    weights = torch.cat([own, logits], 1).softmax(1).to(x0)
    others = (weights[:, 1:] @ references.flatten(1)).reshape(x0.shape)
    mean = others + weights[:, 0].reshape(-1, *(1,) * (x0.ndim - 1)) * x0
    return mean, kernel.whiten(x_t - kernel.mean(mean, t), t)


def kernel_of(sde: SDE) -> DiagonalKernel | MatrixKernel:
    """Return the kernel of a process that has one; that of a Gaussian path as a diagonal one."""
    if isinstance(sde, GaussianPath):
        return DiagonalKernel(sde.alpha, sde.sigma)
    kernel = sde.noise_kernel
    if isinstance(kernel, Kernel):
        return DiagonalKernel.of(kernel)
    assert isinstance(kernel, DiagonalKernel | MatrixKernel)  # the form of the model saw to it
    return kernel
