"""The bound of a Markovian hierarchy in its two forms, and three estimates of it.

    −bound = −E log p(x_0 | x_1)                                        reconstruction
           + E KL(q(x_T | x_{T−1}) ‖ p(x_T))                            prior matching
           + Σ_{t=1}^{T−1} E [log q(x_t | x_{t−1}) − log p(x_t | x_{t+1})]      consistency

    −bound = −E log p(x_0 | x_1)
           + KL(q(x_T | x_0) ‖ p(x_T))
           + Σ_{t=2}^{T} E KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t))         denoising matching

One is the other by Bayes' rule, q(x_t | x_{t−1}) = q(x_{t−1} | x_t, x_0) q(x_t | x_0)/q(x_{t−1} |
x_0), whose last ratio telescopes. So as logarithms of ratios along one path they are equal path by
path. They differ in what can be averaged beforehand: of consistency the entropy of q(x_t |
x_{t−1}), of denoising the whole divergence, given x_t: one variable is drawn where consistency
draws three, and its variance is the smaller (on a Gaussian 2.0 for 10 nats² at T = 20, 2.2 for 50
at T = 100). Along a path nothing is averaged, but at the exact model the ratio is p(x_0) for every
path, and has no variance at all.

**The triple is one path.** Consistency asks log p(x_t | x_{t+1}) at the x_t that x_{t+1} was made
from. E KL(q(x_t | x_{t−1}) ‖ p(x_t | x_{t+1})) over independent x_{t−1} and x_{t+1}, as it is
sometimes written, is another number, and no bound that is worth having: `independent_consistency`
computes it, to be looked at.

**A diffusion model** is such a hierarchy: `hierarchical_bound` of an `AncestralChain` is `elbo`,
and its other forms are those of the chain written out, level by level.

Reference:
    Luo 2022, Understanding Diffusion Models, eqs. (45) and (58), arXiv:2208.11970; Ho, Jain and
    Abbeel 2020, appendix A, arXiv:2006.11239.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_flag, check_word
from sdegen.core.noise import Rng, Streams, seed_of
from sdegen.core.requests import check_kind, check_state, kind_of
from sdegen.core.shapes import State
from sdegen.diffusion.ddpm import AncestralChain
from sdegen.likelihood.bound import elbo
from sdegen.likelihood.bound_terms import EvidenceBound
from sdegen.training.loss import Batch, BatchNoise, Loss
from sdegen.variational.chain_hierarchy import as_hierarchy
from sdegen.variational.hierarchy import Draw, EncodedPath, HierarchicalVAE

Form = Literal["denoising", "consistency"]


@dataclass(frozen=True)
class _Terms:
    """The parts of −bound along one path of each row, shape (n,), those between (T − 1, n)."""

    prior: Tensor
    matching: Tensor
    reconstruction: Tensor

    def total(self) -> Tensor:
        """Return −bound, shape (n,)."""
        return self.prior + self.matching.sum(0) + self.reconstruction


def hierarchical_bound(
    model: HierarchicalVAE | AncestralChain,
    x: State,
    *,
    form: Form = "denoising",
    analytic: bool = True,
    samples: int = 16,
    decoder_std: float | None = None,
    rng: Rng = None,
) -> EvidenceBound:
    """Estimate the evidence lower bound of a hierarchy, term by term, in nats.

        −bound = −E log p(x_0 | x_1) + KL(q(x_T | x_0) ‖ p(x_T))
                 + Σ_{t ≥ 2} E KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t))

    Args:
        model: A `HierarchicalVAE`, or the chain of a diffusion model, chain.reverse(score).
        x: Points, shape (batch, k_0); of a chain (batch, *event). Float32 or float64.
        form: "denoising", of linear encoders, or "consistency", of any.
        analytic: Whether what is known is averaged beforehand: divergences, or in the consistency
            form entropies. Without, logarithms of ratios along paths, the same for both forms.
        samples: Paths for each x; one has no estimate of the error.
        decoder_std: Of a chain: the standard deviation of its last step, as `elbo` has it.
        rng: Seed, generator or None.

    Returns:
        The bound and its terms: `.prior`, `.diffusion`, the T − 1 terms between, from the data
        upwards, and `.reconstruction`. Its `.standard_error`² · samples is the variance of one
        path. `.nfe` counts the calls of the decoders.

    Raises:
        TypeError: If the model is neither, or an argument of the wrong kind.
        ValueError: If the denoising form is asked of an encoder that is not linear; if x is of
            another size or not finite.
        NonFiniteError: If the bound is not finite.

    Example:
        >>> encoders = [sg.LinearGaussian([[0.8]], 0.36)] * 3
        >>> decoders, prior = sg.variational.exact_decoders(sg.Gaussian([0.0], 2.0), encoders)
        >>> model = sg.HierarchicalVAE(encoders, decoders, (1, 1, 1, 1), prior)
        >>> bound = sg.hierarchical_bound(model, torch.ones(1, 1), analytic=False, rng=0)
        >>> exact = sg.Gaussian([0.0], 2.0).log_prob(torch.ones(1, 1))
        >>> bool((bound.log_prob - exact).abs() < 1e-12)
        True
    """
    check_word("form", form, get_args(Form))
    check_flag("analytic", analytic)
    if isinstance(model, AncestralChain):
        if form == "denoising" and analytic:
            return elbo(model, x, samples=samples, decoder_std=decoder_std, rng=rng)
        x = check_state(x, name="x")
        model = as_hierarchy(model, x.shape[1:], decoder_std)
        x = x.flatten(1)
    elif not isinstance(model, HierarchicalVAE):
        raise TypeError(
            "model must be a HierarchicalVAE or a chain, chain.reverse(score), but is "
            f"{kind_of(model)}."
        )
    elif decoder_std is not None:
        raise ValueError("decoder_std is that of a chain; leave it out, decoders have their own.")
    x = check_state(x, name="x")
    model.check_data(x)
    check_count("samples", samples)
    seed = seed_of(rng)
    with torch.no_grad():
        rows = x.repeat(samples, 1)
        path = model.encode(rows, _drawer(seed, "hierarchical bound"))
        terms = _terms(model, path, form, analytic=analytic)
    return _result(terms, x, samples, seed)


def independent_consistency(
    model: HierarchicalVAE, x: State, *, samples: int = 16, rng: Rng = None
) -> Tensor:
    """Return what consistency with independent expectations gives in the place of the bound.

        J = −(reconstruction + prior matching + Σ_t E KL(q(x_t | x_{t−1}) ‖ p(x_t | x_{t+1})))

    with x_{t−1} and x_{t+1} of two paths. It is not the bound: see `hierarchical_bound`.

    Args:
        model: A `HierarchicalVAE`.
        x: Points, shape (batch, k_0).
        samples: Pairs of paths for each x.
        rng: Seed, generator or None.

    Returns:
        The number for each x, shape (batch,), in nats.

    Raises:
        TypeError: If the model is none.
        ValueError: If x is of another size or not finite.

    Example:
        >>> encoders = [sg.LinearGaussian([[0.8]], 0.36)] * 3
        >>> decoders, prior = sg.variational.exact_decoders(sg.Gaussian([0.0], 2.0), encoders)
        >>> model = sg.HierarchicalVAE(encoders, decoders, (1, 1, 1, 1), prior)
        >>> x = torch.ones(1, 1)
        >>> J = sg.variational.independent_consistency(model, x, samples=64, rng=0)
        >>> bool(J < sg.Gaussian([0.0], 2.0).log_prob(x) - 1)  # the bound is log p(x) itself
        True
    """
    check_kind("model", model, HierarchicalVAE, "a HierarchicalVAE")
    x = check_state(x, name="x")
    model.check_data(x)
    check_count("samples", samples)
    seed = seed_of(rng)
    with torch.no_grad():
        rows = x.repeat(samples, 1)
        path = model.encode(rows, _drawer(seed, "hierarchical bound"))
        decoded = model.decoded(model.encode(rows, _drawer(seed, "another path")))
        ends = _terms(model, path, "consistency", analytic=True)
        total = ends.prior + ends.reconstruction
        for t in range(1, model.levels):
            total = total + path.laws[t - 1].kl(decoded[t])
    return -total.reshape(samples, len(x)).mean(0)


@dataclass(frozen=True)
class HierarchicalLoss(Loss):
    """The negative bound of a `HierarchicalVAE`, in nats, shape (n,): what `fit` makes small.

        ℓ = −log p(x_0 | x_1) + KL(q(x_T | x_0) ‖ p(x_T))
            + Σ_{t ≥ 2} KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t))

    Its terms "prior", "matching" and "reconstruction" are recorded for each step.

    Args:
        form: "denoising", of linear encoders, or "consistency", of any.
        analytic: Whether what is known is averaged beforehand.

    Raises:
        TypeError: If it is asked for a module that is no `HierarchicalVAE`.
        ValueError: If the denoising form is asked of an encoder that is not linear, or data are of
            another size.

    Example:
        >>> encoders = [sg.LinearGaussian([[0.8]], 0.36)] * 3
        >>> decoders, prior = sg.variational.exact_decoders(sg.Gaussian([0.0], 2.0), encoders)
        >>> model = sg.HierarchicalVAE(encoders, decoders, (1, 1, 1, 1), prior)
        >>> loss = sg.HierarchicalLoss(analytic=False)
        >>> losses = sg.fit(model, torch.ones(4, 1), loss, sg.FitConfig(1), rng=0).losses
        >>> f"{losses.item():.4f}"  # −log N(1; 0, 2) = ½ log 4π + ¼
        '1.5155'
    """

    form: Form = "denoising"
    analytic: bool = True

    def __post_init__(self) -> None:
        check_word("form", self.form, get_args(Form))
        check_flag("analytic", self.analytic)

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no hierarchy, and data and encoders that do not suit."""
        check_kind("module", module, HierarchicalVAE, "a HierarchicalVAE(encoders, decoders, …)")
        model = cast(HierarchicalVAE, module)
        model.check_data(batch.rows, "data")
        if self.form == "denoising":
            model.check_linear()
        return self

    def __call__(
        self, module: nn.Module, batch: Batch, noise: BatchNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return −bound of one path of each row, shape (n,), and its terms."""
        model = cast(HierarchicalVAE, module)
        path = model.encode(batch.rows, noise.normal_like)
        terms = _terms(model, path, self.form, analytic=self.analytic)
        return terms.total(), {
            "prior": terms.prior,
            "matching": terms.matching.sum(0),
            "reconstruction": terms.reconstruction,
        }


def _terms(model: HierarchicalVAE, path: EncodedPath, form: Form, *, analytic: bool) -> _Terms:
    """Return the parts of −bound along a path."""
    x, decoded = path.states, model.decoded(path)
    top, reconstruction = model.top(len(x[0])), -decoded[0].log_prob(x[0])
    if form == "denoising":
        marginals = model.marginals(x[0])
        # at index t − 2 both are laws of x_{t−1}, t = 2 … T
        before, last = model.posteriors(path, marginals), marginals[-1]
        pairs = list(zip(x[1:-1], before, decoded[1:], strict=True))
        if analytic:
            matching = [q.kl(p) for _, q, p in pairs]
        else:
            matching = [q.log_prob(y) - p.log_prob(y) for y, q, p in pairs]
    else:
        last = path.laws[-1]
        pairs = list(zip(x[1:-1], path.laws[:-1], decoded[1:], strict=True))
        matching = [
            (-q.entropy() if analytic else q.log_prob(y)) - p.log_prob(y) for y, q, p in pairs
        ]
    prior = last.kl(top) if analytic else last.log_prob(x[-1]) - top.log_prob(x[-1])
    between = torch.stack(matching) if matching else prior.new_zeros(0, len(prior))
    return _Terms(prior, between, reconstruction)


def _result(terms: _Terms, x: Tensor, samples: int, seed: int) -> EvidenceBound:
    """Return means over the paths of each point, with the error of their sum."""
    batch = len(x)

    def mean(term: Tensor) -> Tensor:
        return term.reshape(samples, batch).mean(0)

    totals = -terms.total().reshape(samples, batch)
    error = (
        totals.std(0) / math.sqrt(samples)
        if samples > 1
        else totals[0].new_full((batch,), torch.inf)
    )
    matching = [mean(term) for term in terms.matching]
    between = torch.stack(matching, 1) if matching else totals.new_zeros(batch, 0)
    return EvidenceBound(
        totals.mean(0),
        error,
        mean(terms.prior),
        between,
        mean(terms.reconstruction),
        x.shape[1],
        samples * (len(matching) + 1),
        seed,
    ).checked()


def _drawer(seed: int, purpose: str) -> Draw:
    """Return a function that draws standard normals like a tensor, others by each call."""
    streams, calls = Streams(seed, purpose), iter(range(2**31))

    def draw(like: Tensor) -> Tensor:
        source = streams.block(next(calls))
        return source.normal(tuple(like.shape), dtype=like.dtype, device=like.device)

    return draw
