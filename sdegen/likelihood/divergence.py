"""Divergences of a flow, added up along its paths: exact, or estimated with random vectors.

    ∇·F = tr J = Σ_i e_iᵀ J e_i = E vᵀ J v,        J = ∂F/∂x,   E vvᵀ = I

All that is asked of F are products vᵀJ, each of which costs about as much as an evaluation of the
score; several are made together.

    ExactTrace       d products, the unit vectors; right up to some hundred dimensions
    Hutchinson       a mean over random v
    HutchPlusPlus    the trace on a subspace that holds most of J, and random v in its complement

Random vectors are drawn once and held fixed for the whole solve, so that an estimate is an ODE
like any other. Each v has a sum ℓ of its own, and their spread tells the error; unless there are
so many of them that all vᵀMv, M = ∫ J dt, follow from fewer sums, those of M itself.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from sdegen.core.checks import check_count, check_word
from sdegen.core.noise import Stream
from sdegen.core.scores import CallCounter
from sdegen.core.sde import SDE, NoiseKind
from sdegen.core.shapes import State, Time

# numbers that are pulled back together: of more, a CPU's cache no longer holds the layers between
_NUMBERS = {"cpu": 2**16}
_NUMBERS_ON_DEVICE = 2**21
_UNIT_VECTORS = 64

Pull = Callable[[Tensor], Tensor]


class Divergence(ABC):
    """How the divergence of a flow is found from products vᵀJ."""

    @abstractmethod
    def num_accumulators(self, dimensions: int) -> int:
        """Return the number of integrals that a state of d numbers needs."""

    @abstractmethod
    def draw(self, x: State, source: Stream) -> Tensor:
        """Draw the vectors of a solve for flat states x (batch, d), shape (K, batch or 1, d)."""

    @abstractmethod
    def integrands(self, pull: Pull, vectors: Tensor) -> Tensor:
        """Return the integrands, functions of J, shape (num_accumulators, batch).

        Args:
            pull: Takes v, shape (K, batch, d), to vᵀJ of the same shape.
            vectors: What `draw` returned.
        """

    @abstractmethod
    def estimate(self, sums: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence along the path, and the standard error of this estimate.

        Args:
            sums: Integrals of `integrands`, shape (batch, num_accumulators).
            vectors: What `draw` returned.

        Returns:
            ∫ tr J dt and its standard error over the draws of the vectors, shape (batch,): 0 where
            it is exact, infinite where it is not known.
        """


@dataclass(frozen=True)
class ExactTrace(Divergence):
    """Σ_i e_iᵀ J e_i over the d unit vectors: d products."""

    def num_accumulators(self, dimensions: int) -> int:
        """Return 1."""
        return 1

    def draw(self, x: State, source: Stream) -> Tensor:
        """Return the unit vectors, shape (d, 1, d), without a draw."""
        return _unit_vectors(x)

    def integrands(self, pull: Pull, vectors: Tensor) -> Tensor:
        """Return the trace, shape (1, batch)."""
        # some at a time: the whole Jacobians of a batch of images would not fit
        some = torch.split(vectors, _UNIT_VECTORS)
        return torch.stack([(e * pull(e)).sum((0, 2)) for e in some]).sum(0, keepdim=True)

    def estimate(self, sums: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum, without an error."""
        return sums[:, 0], torch.zeros_like(sums[:, 0])


@dataclass(frozen=True)
class Hutchinson(Divergence):
    """An unbiased estimate of the divergence of F at states (batch, d).

        ∇·F = E vᵀ(∂F/∂x)v,     E vvᵀ = I

    The mean over n probes v of vᵀMv, M = ∫ ∂F/∂x dt along the path, has variance

        2 ‖S‖²/n             "gaussian",       S the symmetric part of M, ‖S‖² = Σ_ij S_ij²
        2 (‖S‖² − Σ_i S_ii²)/n    "rademacher"

    **Standard error.** With n < d probes it is taken from their spread, which is a rough measure
    where few directions count: what the estimate is off, the spread is off with it. ("gaussian":
    the third moment of vᵀMv − tr M is 8 tr S³, and the products of two probes, whose squares have
    the mean ‖S‖² as well, share that covariance.) With n ≥ d probes it need not be estimated: the
    d unit vectors are pulled back in place of the probes, for less, S is added up, and the
    standard error is the formula above. The trace is known then, too; divergence="exact" gives it
    for as many products.

    Three standard errors of 16 probes covered the error of 99.6 of 100 points, 98 in the worst of
    20 repeats, on mixtures in 2 and in 16 dimensions and for both laws of v. From their spread it
    was 95 ("gaussian") and 98 in 2 dimensions, and in 24 it is 99.

    A state carries n more numbers, or d (d + 1)/2 where n ≥ d; the vectors take n d.

    Args:
        probes: Number n of v for each x; one of d > 1 says nothing about its own error.
        noise: Law of v: "gaussian", or "rademacher", signs, of smaller variance.

    Raises:
        TypeError: If probes is not an int.
        ValueError: If probes < 1 or the noise is misspelt.

    Reference:
        Hutchinson 1989, doi:10.1080/03610918908812806; Grathwohl et al. 2019, section
        3.1, arXiv:1810.01367.

    Example:
        >>> path, x = sg.VP(sg.LinearBeta(0.1, 20.0)), torch.zeros(1, 4)
        >>> score = lambda x, t: -x / (1 + 3 * path.alpha(t) ** 2)  # of N(0, 4 I)
        >>> found = sg.log_likelihood(path, score, x, divergence=sg.Hutchinson(2), rng=0)
        >>> f"{found.log_prob.item():.2f} ± {found.standard_error.item():.2f}"  # S is diagonal
        '-6.45 ± 0.00'
    """

    probes: int = 1
    noise: Literal["gaussian", "rademacher"] = "rademacher"

    def __post_init__(self) -> None:
        check_count("probes", self.probes)
        check_word("noise", self.noise, ("gaussian", "rademacher"))

    def num_accumulators(self, dimensions: int) -> int:
        """Return the number of probes, or of entries of S on and above its diagonal."""
        return self.probes if self.probes < dimensions else dimensions * (dimensions + 1) // 2

    def draw(self, x: State, source: Stream) -> Tensor:
        """Draw v for flat states x (batch, d), shape (probes, batch, d)."""
        v = source.normal((self.probes, *x.shape), dtype=x.dtype, device=x.device)
        return torch.where(v < 0, -1.0, 1.0).to(v) if self.noise == "rademacher" else v

    def integrands(self, pull: Pull, vectors: Tensor) -> Tensor:
        """Return VᵀJv for each v, shape (probes, batch), or √d times the symmetric part of J."""
        d = vectors.shape[2]
        if self.probes < d:
            return (vectors * pull(vectors)).sum(2)
        j = pull(_unit_vectors(vectors[0]))
        i, k = torch.triu_indices(d, d, device=j.device)
        # a tolerance is for the root mean square over the state, in which d²/2 small entries of S
        # would hide the error of x: √d makes up for their number
        return 0.5 * math.sqrt(d) * (j[i, :, k] + j[k, :, i])

    def estimate(self, sums: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over probes, and its standard error: from their spread, or from S."""
        n, _, d = vectors.shape
        if n < d:
            return sums.mean(1), _spread(sums)
        i, k = torch.triu_indices(d, d, device=sums.device)
        s = sums.new_zeros(len(sums), d, d)
        s[:, i, k] = s[:, k, i] = sums / math.sqrt(d)
        estimates = torch.einsum("nbi,bij,nbj->nb", vectors, s, vectors)
        if self.noise == "rademacher":
            s = s - torch.diag_embed(s.diagonal(dim1=1, dim2=2))
        return estimates.mean(0), torch.sqrt(2 / n * s.square().sum((1, 2)))


@dataclass(frozen=True)
class HutchPlusPlus(Divergence):
    """The trace on a sketched subspace, exactly, and Hutchinson's estimate in its complement.

        tr J = tr QᵀJQ + E gᵀJg,     Q an orthonormal basis of [S, JᵀS],     J of shape (d, d)

    S has k random columns; g is uniform among the vectors of length √(d − 2k) that are orthogonal
    to Q. Where J is a multiple of the identity plus a matrix of rank ≤ k this is exact. The
    Jacobian of a score is nearly of that kind: one number along the directions in which there is
    noise alone, others along the few in which the data vary. With a Q of JᵀS alone, as in the
    paper, only a J of low rank is met exactly. Measured with 24 products on −(C + σ²)⁻¹ in 64
    dimensions, six of them wide, σ = 0.1: 62 nats of error by Hutchinson's signs, 171 by the
    paper's, 2e-12 by this; where the 58 narrow variances differ by 5 % of σ², 66, 161 and 20; by
    twice σ², 56, 104 and 78, and nothing is gained.

    S and g are held fixed for the solve; Q is made anew at each evaluation. A quarter of the
    products make JᵀS, half of them QᵀJ, a quarter gᵀJ.

    Args:
        probes: Products at each evaluation, 4k; less than 2d. With 4 the error is not known.

    Raises:
        TypeError: If probes is not an int.
        ValueError: If probes is not a positive multiple of 4, or half of it reaches d.

    Reference:
        Meyer, Musco, Musco and Woodruff 2021, algorithm 1, arXiv:2010.09649; g of fixed length:
        Epperly, Tropp and Webber 2024, section 2.3, arXiv:2301.07825.

    Example:
        >>> path, x = sg.VP(sg.LinearBeta(0.1, 20.0)), torch.zeros(1, 6)
        >>> score = lambda x, t: -x / (1 + 3 * path.alpha(t) ** 2)  # of N(0, 4 I)
        >>> found = sg.log_likelihood(path, score, x, divergence=sg.HutchPlusPlus(8), rng=0)
        >>> f"{found.log_prob.item():.2f} ± {found.standard_error.item():.2f}"  # J = −c I
        '-9.67 ± 0.00'
    """

    probes: int

    def __post_init__(self) -> None:
        check_count("probes", self.probes)
        if self.probes % 4:
            raise ValueError(
                f"probes must be a multiple of 4, but is {self.probes}: a quarter sketches, half "
                "take the trace on the sketch, and a quarter estimate the rest."
            )

    def num_accumulators(self, dimensions: int) -> int:
        """Return k, one for each g."""
        return self.probes // 4

    def draw(self, x: State, source: Stream) -> Tensor:
        """Draw S and g for flat states x (batch, d), shape (2k, batch, d)."""
        if self.probes >= 2 * x.shape[1]:
            most = (2 * x.shape[1] - 1) // 4 * 4
            fewer = f", or HutchPlusPlus({most})" if most else ""
            raise ValueError(
                f"HutchPlusPlus({self.probes}) sketches {self.probes // 2} dimensions, and a "
                f"state has {x.shape[1]}: take divergence='exact'{fewer}."
            )
        return source.normal((self.probes // 2, *x.shape), dtype=x.dtype, device=x.device)

    def integrands(self, pull: Pull, vectors: Tensor) -> Tensor:
        """Return the trace on Q and, for each g, the rest of it; shape (k, batch)."""
        sketch, g = vectors.chunk(2)
        spanning = torch.cat([sketch, pull(sketch)]).permute(1, 2, 0)
        q = torch.linalg.qr(spanning).Q  # (batch, d, 2k)
        g = g - torch.einsum("ndi,nei,kne->knd", q, q, g)
        length = math.sqrt(g.shape[2] - q.shape[2])
        g = g * (length / torch.linalg.vector_norm(g, dim=2, keepdim=True))
        q = q.permute(2, 0, 1)
        terms = (torch.cat([q, g]) * pull(torch.cat([q, g]))).sum(2)
        return terms[: len(q)].sum(0) + terms[len(q) :]

    def estimate(self, sums: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean over g, and its standard error from their spread."""
        return sums.mean(1), _spread(sums)


class FlowWithDivergence(SDE):
    """A noise-free flow and the divergence that it meets, as one flow of the state (x, ℓ).

    dx/dt = F(x, t),   dℓ_k/dt = rate k of `divergence`

    Args:
        flow: F, noise-free dynamics that move every trajectory by itself.
        event: Shape of one x, of d numbers.
        divergence: How ∇·F is found.
        vectors: What it drew for this solve.
        differentiable: Whether gradients flow through drift and divergence, to x and to whatever
            the flow holds.

    Reference:
        Chen et al. 2018, theorem 1, arXiv:1806.07366; Song et al. 2021, eq. (39),
        arXiv:2011.13456, for the flow of a diffusion.
    """

    noise: NoiseKind = "none"

    halves_steps: ClassVar[bool] = False

    def __init__(
        self,
        flow: SDE,
        event: torch.Size,
        divergence: Divergence,
        vectors: Tensor,
        *,
        differentiable: bool = False,
    ) -> None:
        self.flow: SDE = flow
        self.event: torch.Size = event
        self.divergence: Divergence = divergence
        self.vectors: Tensor = vectors
        self.differentiable = differentiable

    @property
    def time_range(self) -> tuple[float, float]:
        """That of the flow."""
        return self.flow.time_range

    def drift(self, x: State, t: Time) -> State:
        """Return (F, integrands), flat: shape (batch, d + num_accumulators)."""
        graph = self.differentiable and torch.is_grad_enabled()
        # simulate runs without gradients, and its caller perhaps in inference mode
        with torch.inference_mode(False), torch.enable_grad():
            y = x[:, : self.vectors.shape[-1]]
            if not (graph and y.requires_grad):
                y = y.detach().clone().requires_grad_()
            f = self.flow.drift(y.reshape(-1, *self.event), t).flatten(1)
            terms = self.divergence.integrands(
                lambda v: _pulled_back(f, y, v, create_graph=graph), self.vectors
            )
        return torch.cat([f if graph else f.detach(), terms.T], dim=1)

    def diffusion(self, x: State, t: Time) -> Tensor:
        """Return 0."""
        return x.new_zeros(())

    def with_counter(self, counter: CallCounter) -> Self:
        """Return a copy whose calls of the score are counted by `counter`."""
        twin = copy.copy(self)
        twin.flow = self.flow.with_counter(counter)
        return twin


def _pulled_back(f: Tensor, y: Tensor, v: Tensor, *, create_graph: bool) -> Tensor:
    """Return vᵀ ∂f/∂y for each of many v, shape (K, batch, d), some at a time."""

    def pull(weights: Tensor, *, batched: bool) -> Tensor:
        (pulled,) = torch.autograd.grad(
            f, y, weights, retain_graph=True, create_graph=create_graph, is_grads_batched=batched
        )
        return pulled

    def pull_together(some: Tensor) -> Tensor:
        if len(some) > 1:
            try:
                return pull(some, batched=True)
            except RuntimeError:
                pass  # an operation of the score has no batched derivative: one v at a time
        return torch.stack([pull(one, batched=False) for one in some])

    together = max(1, _NUMBERS.get(y.device.type, _NUMBERS_ON_DEVICE) // y.numel())
    parts = torch.split(v.expand(-1, *y.shape), together)
    return torch.cat([pull_together(some) for some in parts])


def _unit_vectors(x: State) -> Tensor:
    """Return the unit vectors of flat states (batch, d), shape (d, 1, d)."""
    return torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[:, None]


def _spread(values: Tensor) -> Tensor:
    """Return the standard error of the mean over columns; infinite for one column."""
    count = values.shape[1]
    if count == 1:
        return torch.full_like(values[:, 0], torch.inf)
    return values.std(1) / math.sqrt(count)
