"""Normalizing flows: a density by an invertible network, exact, sampled in one pass.

    u = T(x),  u ~ N(0, I)
    log p(x) = log N(T(x); 0, I) + log |det ∂T/∂x|

The transforms are those of the library zuko; weights and samples come from `rng`.

    name                    step of one transform                        log |det|      sampling
    "nice"                  x_b + m(x_a), then one scale per number      Σ s            1 pass
    "real nvp"              x_b e^{s(x_a)} + m(x_a)                      Σ s(x_a)       1 pass
    "masked autoregressive" x_i e^{s(x_<i)} + m(x_<i)                    Σ s(x_<i)      d passes
    "spline"                a rational-quadratic spline of x_b, by x_a   Σ log slope    1 pass

A flow is a model by itself, trained by `FlowLikelihood`; the prior of a `VAE`, trained with it; or
the last part of its posterior, `VAE(…, flow=Flow(…))`. Between ±5 in its units a spline bends, and
outside it leaves numbers alone: `mean` and `std` bring data there.

Reference:
    NICE: Dinh, Krueger and Bengio 2014, arXiv:1410.8516, with its scales; Real NVP: Dinh,
    Sohl-Dickstein and Bengio 2017, eqs. (4)-(8), arXiv:1605.08803; masked autoregressive:
    Papamakarios, Pavlakou and Murray 2017, eqs. (3)-(4), arXiv:1705.07057; splines: Durkan et al.
    2019, arXiv:1906.04032; flows in posteriors: Rezende and Mohamed 2015, arXiv:1505.05770.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from sdegen.core.checks import check_count, check_word
from sdegen.core.noise import Rng, Stream, stream
from sdegen.core.optional import needed
from sdegen.core.requests import as_numbers, check_kind, kind_of
from sdegen.core.shapes import Numbers
from sdegen.training.loss import Batch, BatchNoise, Loss

FlowName = Literal["nice", "real nvp", "masked autoregressive", "spline"]
_BINS = 8  # of a spline between −5 and 5


class Flow(nn.Module):
    """A normalizing flow of d numbers, x of shape (batch, d), with a context or without.

        log p(x) = log N(T(x); 0, I) + log |det ∂T/∂x|

    Args:
        name: "nice", "real nvp", "masked autoregressive" or "spline".
        dim: d.
        transforms: How many, one after the other.
        width: Units of each hidden layer of each transform's network.
        depth: Hidden layers of it.
        context: Numbers that the flow is told beside x, such as what an encoder puts out.
        mean: What is taken from x first: a number, or d of them.
        std: What it is then divided by, > 0: a number, or d of them.
        rng: Seed of the weights, generator or None.

    Raises:
        ImportError: If zuko is not installed.
        TypeError: If a count is no int.
        ValueError: If a count is too small, the name another, or mean or std make no sense.

    Example:
        >>> flow = sg.Flow("real nvp", 2, rng=0)
        >>> axis = torch.linspace(-8, 8, 81)
        >>> density = flow.log_prob(torch.cartesian_prod(axis, axis)).exp()
        >>> f"{density.sum() * 0.2**2:.3f}"  # ∫ p dx
        '1.000'
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: FlowName,
        dim: int,
        *,
        transforms: int = 4,
        width: int = 64,
        depth: int = 2,
        context: int = 0,
        mean: Numbers = 0.0,
        std: Numbers = 1.0,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        check_word("name", name, get_args(FlowName))
        counts = {"dim": dim, "transforms": transforms, "width": width, "depth": depth}
        for what, count in counts.items():
            check_count(what, count)
        check_count("context", context, 0)
        self.name = name
        self.dim: int = dim
        self.context: int = context
        source = stream(rng, "flow")
        with torch.random.fork_rng(devices=[]):  # torch's constructors draw, and are drawn anew
            self.transforms: nn.Module = _transforms(
                name, dim, transforms, context, [width] * depth, source
            )
        _draw(self.transforms, source)
        self.log_scale: nn.Parameter | None = (
            nn.Parameter(torch.zeros(dim)) if name == "nice" else None
        )
        for what, value in (("mean", mean), ("std", std)):
            given = as_numbers(what, value, expected=f"a number, or {dim} of them").detach()
            if given.shape not in ((), (dim,)) or not bool(given.isfinite().all()):
                raise ValueError(
                    f"{what} must be a finite number, or {dim} of them, but is {kind_of(value)}."
                )
            self.register_buffer(what, given.to(torch.get_default_dtype()))
        if not bool((self.std > 0).all()):
            raise ValueError(f"every std must be > 0, but the least is {self.std.min():g}.")

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return log p(x) in nats, exactly; shape (batch,), float64.

        Args:
            x: Points, shape (batch, d).
            context: What each is told, shape (batch, context); None of a flow without.

        Raises:
            TypeError: If an argument is no tensor.
            ValueError: If a shape does not fit.
        """
        self._check("x", x, self.dim)
        u = (x.to(self.mean) - self.mean) / self.std
        u, volume = self._composed(len(x), context).call_and_ladj(u)
        if self.log_scale is not None:
            u = u * self.log_scale.exp()
            volume = volume + self.log_scale.sum()
        log_p: Tensor = _log_normal(u) + volume.double() - self._log_std()
        return log_p

    def push(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return x = T⁻¹(z) and log |det ∂x/∂z|, shape (batch,), float64, with gradients.

        Args:
            z: Shape (batch, d), standard normal for a sample of the flow.
            context: What each is told, shape (batch, context); None of a flow without.

        Raises:
            TypeError: If an argument is no tensor.
            ValueError: If a shape does not fit.
        """
        self._check("z", z, self.dim)
        u, volume = z.to(self.mean), torch.zeros((), dtype=torch.float64, device=z.device)
        if self.log_scale is not None:
            u, volume = u * (-self.log_scale).exp(), volume - self.log_scale.double().sum()
        u, gained = self._composed(len(z), context).inv.call_and_ladj(u)
        return self.mean + self.std * u, volume + gained.double() + self._log_std()

    def sample(
        self,
        n: int,
        *,
        context: Tensor | None = None,
        rng: Rng = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw from the flow: standard normals, pushed through the inverse transforms.

        Args:
            n: How many.
            context: What each is told, shape (n, context); None of a flow without.
            rng: Seed, generator or None.
            dtype: Of the result; the weights' unless said.

        Returns:
            Shape (n, d), without gradients.
        """
        check_count("n", n)
        source = stream(rng, "flow sample")
        z = source.normal((n, self.dim), dtype=self.mean.dtype, device=self.mean.device)
        with torch.no_grad():
            x = self.push(z, context)[0]
        return x if dtype is None else x.to(dtype)

    def _composed(self, rows: int, context: Tensor | None) -> Any:  # noqa: ANN401, of zuko
        """Return the transform of so many rows, or refuse their context."""
        if (context is None) != (self.context == 0):
            wanted = f"shape (batch, {self.context})" if self.context else "None"
            raise ValueError(
                f"context must be {wanted}, as Flow(…, context={self.context}) was made, but is "
                f"{kind_of(context)}."
            )
        if context is None:
            return self.transforms(None)
        self._check("context", context, self.context)
        if len(context) != rows:
            raise ValueError(f"context must have {rows} rows, but has {len(context)}.")
        return self.transforms(context.to(self.mean))

    def _log_std(self) -> Tensor:
        """Return Σ log std, over the d numbers."""
        return self.std.double().log().expand(self.dim).sum()

    @staticmethod
    def _check(name: str, x: object, numbers: int) -> None:
        """Refuse what is no batch of so many numbers."""
        check_kind(name, x, Tensor, f"a tensor of shape (batch, {numbers})")
        if cast(Tensor, x).ndim != 2 or cast(Tensor, x).shape[1] != numbers:
            raise ValueError(f"{name} must have shape (batch, {numbers}), but is {kind_of(x)}.")


@dataclass(frozen=True)
class FlowLikelihood(Loss):
    """The negative log-likelihood of a `Flow`, in nats: what `fit` makes small.

        ℓ(x) = −log p(x),     shape (n,)

    Its least value is the entropy of the data. Labels are the context of a flow that has one.

    Raises:
        TypeError: If it is asked for a module that is no `Flow`.
        ValueError: If rows or labels do not have the flow's shapes.

    Example:
        >>> flow, x = sg.Flow("nice", 2, rng=0), torch.ones(4, 2)
        >>> said = -flow.log_prob(x)[0].item()
        >>> losses = sg.fit(flow, x, sg.FlowLikelihood(), sg.FitConfig(1), rng=0).losses
        >>> abs(losses.item() - said) < 1e-5
        True
    """

    def prepare(self, module: nn.Module, batch: Batch) -> Loss:
        """Refuse what is no flow."""
        check_kind("module", module, Flow, 'a Flow("spline", dim)')
        return self

    def __call__(self, module: nn.Module, batch: Batch, noise: BatchNoise) -> Tensor:
        """Return −log p of each row, shape (n,)."""
        return -cast(Flow, module).log_prob(batch.rows.flatten(1), batch.labels)


def _log_normal(u: Tensor) -> Tensor:
    """Return log N(u; 0, I), shape (batch,), float64."""
    u = u.double()
    return -0.5 * (u.square().sum(1) + u.shape[1] * math.log(2 * math.pi))


def _transforms(
    name: FlowName, dim: int, count: int, context: int, hidden: list[int], source: Stream
) -> nn.Module:
    """Return the transforms of a flow, whose order of coordinates alternates."""
    zuko = _zuko()
    networks = {"hidden_features": hidden, "activation": nn.SiLU}
    univariate: dict[str, Any] = {}
    if name == "nice":
        univariate = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
    if name == "spline":
        univariate = {
            "univariate": functools.partial(zuko.transforms.MonotonicRQSTransform, slope=1e-3),
            "shapes": [(_BINS,), (_BINS,), (_BINS - 1,)],
        }
    layers, ranks = [], torch.arange(dim)
    for i in range(count):
        if i % 2 == 0 and i > 0:  # the first pair is in the order of the numbers, others in any
            ranks = torch.randperm(dim, generator=source.generator())
        order = dim - 1 - ranks if i % 2 else ranks
        if name == "masked autoregressive":
            layer = zuko.flows.autoregressive.MaskedAutoregressiveTransform(
                dim, context, order=order, **networks
            )
        else:
            half = (order < dim / 2) if dim > 1 else None
            options = networks if dim > 1 or context else {}
            layer = zuko.flows.coupling.GeneralCouplingTransform(
                dim, context, half, **univariate, **options
            )
        layers.append(layer)
    composed: nn.Module = zuko.lazy.LazyComposedTransform(*layers)
    return composed


def _draw(transforms: nn.Module, source: Stream) -> None:
    """Draw all weights from a stream: of layers uniformly within 1/√inputs, others small."""
    done = set()
    for layer in transforms.modules():
        if isinstance(layer, nn.Linear):
            edge = layer.in_features**-0.5
            for weight in (layer.weight, layer.bias):
                nn.init.uniform_(weight, -edge, edge, generator=source.generator())
                done.add(weight)
    for weight in transforms.parameters():  # of a single number without context
        if weight not in done:
            nn.init.normal_(weight, 0.0, 0.1, generator=source.generator())


def _zuko() -> ModuleType:
    """Import zuko, and give torch back what its import switches off for all distributions."""
    base: Any = torch.distributions.Distribution
    names = ("_validate_args", "arg_constraints")
    before = {name: base.__dict__[name] for name in names}
    zuko = needed("zuko", "Flow", extra="flows")
    for name, value in before.items():
        setattr(base, name, value)
    return zuko
