"""ParticleNet: a small network for particles, equivariant under E(n) and permutations.

    m_ij = φ_e(h_i, h_j, ‖x_i − x_j‖²)
    h_i ← h_i + φ_h(h_i, Σ_j m_ij)
    v_i = Σ_layers Σ_{j ≠ i} (x_i − x_j) φ_x(m_ij)/(n − 1) + a(t) (x_i − x̄),   less its mean over i

States are (batch, particles, dim). A rotation or reflection of x turns v with it, another order
of the particles orders v so, and a translation leaves it as it is: the score of a law has the
symmetries of the law. Positions enter through distances alone and are not moved between layers.

A law in a trap, or noise on the common centre, is not invariant under translations, and its score
is not either. With `translations=False` the network sees ‖x_i‖² too and adds x_i φ_o(h_i): what
is left is O(n), about the origin.

Reference:
    Satorras, Hoogeboom and Welling 2021, eqs. (3)-(6), arXiv:2102.09844.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from sdegen.core.checks import check_count, check_flag
from sdegen.core.noise import Rng, Stream, stream
from sdegen.core.shapes import State
from sdegen.score.layers import TimeFeatures


class ParticleNet(nn.Module):
    """A network for states of particles (batch, n, dim), of any n ≥ 2 and dim.

        v_i = Σ_layers Σ_{j ≠ i} (x_i − x_j) φ_x(m_ij)/(n − 1) + a(t) (x_i − x̄) − mean

    with messages m_ij = φ_e(h_i, h_j, ‖x_i − x_j‖²): v turns and permutes as x does.
    Called as network(x, t), t of shape (batch,); it returns the shape of x.

    Args:
        width: Units of a layer.
        layers: Rounds of messages.
        translations: Whether a translation changes nothing; False is for particles in a trap, or
            whose centre is noised.
        rng: Seed of the weights, generator or None.

    Raises:
        TypeError: If a size is not an int.
        ValueError: If a size is below 1.

    Example:
        >>> network = sg.ParticleNet(width=8, layers=1, rng=0)
        >>> _ = [p.data.fill_(0.1) for p in network.parameters()]  # untrained, its output is 0
        >>> x, t = torch.arange(8.0).sin().reshape(1, 4, 2), torch.tensor([0.5])
        >>> turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        >>> torch.allclose(network(x @ turn.T, t), network(x, t) @ turn.T, atol=1e-4)
        True
    """

    def __init__(
        self, width: int = 32, layers: int = 3, *, translations: bool = True, rng: Rng = None
    ) -> None:
        super().__init__()
        check_count("width", width)
        check_count("layers", layers)
        check_flag("translations", translations)
        self.width: int = width
        self.layers: int = layers
        self.translations: bool = translations
        source = stream(rng, "network")
        self.features: TimeFeatures = TimeFeatures()
        self.embed: nn.Linear = _linear(TimeFeatures.size + (not translations), width, source)
        self.gate: nn.Linear = _linear(TimeFeatures.size, 1, source, zero=True)
        self.edges: nn.ModuleList = nn.ModuleList(
            _Pair(2 * width + 2, width, width, source) for _ in range(layers)
        )
        self.nodes: nn.ModuleList = nn.ModuleList(
            _Pair(2 * width, width, width, source) for _ in range(layers)
        )
        self.pulls: nn.ModuleList = nn.ModuleList(
            _Pair(width, width, 1, source, zero=True) for _ in range(layers)
        )
        self.outward: nn.Linear | None = (
            None if translations else _linear(width, 1, source, zero=True)
        )

    def forward(self, x: State, t: Tensor) -> State:
        """Return the output for states (batch, n, dim) and times (batch,); x's shape."""
        if x.ndim != 3 or x.shape[1] < 2:
            raise ValueError(
                f"this ParticleNet takes states (batch, particles, dim) of 2 particles or more, "
                f"but was given shape {tuple(x.shape)}."
            )
        n = x.shape[1]
        time = self.features(t).expand(len(x), -1)
        known = time[:, None, :].expand(-1, n, -1)
        if not self.translations:
            known = torch.cat([known, x.square().sum(-1, keepdim=True).log1p()], -1)
        h = nn.functional.silu(self.embed(known))
        apart = x[:, :, None] - x[:, None]
        square = apart.square().sum(-1, keepdim=True)
        distances = torch.cat([square.log1p(), torch.exp(-0.5 * square)], -1)
        others = 1 - torch.eye(n, dtype=x.dtype, device=x.device)[:, :, None]
        out = torch.zeros_like(x)
        for edge, node, pull in zip(self.edges, self.nodes, self.pulls, strict=True):
            pairs = [h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1)]
            message = others * nn.functional.silu(edge(torch.cat([*pairs, distances], -1)))
            out = out + (apart * pull(message)).sum(2) / (n - 1)
            h = h + node(torch.cat([h, message.sum(2) / (n - 1)], -1))
        own = x - x.mean(1, keepdim=True) if self.translations else x
        out = out + self.gate(time)[:, :, None] * own
        if self.outward is None:  # a law that no translation changes moves no centre
            still: Tensor = out - out.mean(1, keepdim=True)
            return still
        moved: Tensor = out + self.outward(h) * x
        return moved


class _Pair(nn.Module):
    """Two linear layers with a silu between."""

    def __init__(
        self, inputs: int, width: int, outputs: int, source: Stream, *, zero: bool = False
    ) -> None:
        super().__init__()
        self.first = _linear(inputs, width, source)
        self.second = _linear(width, outputs, source, zero=zero)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(nn.functional.silu(self.first(x)))
        return out


def _linear(inputs: int, outputs: int, source: Stream, *, zero: bool = False) -> nn.Linear:
    """Return a linear layer drawn from a stream."""
    layer: nn.Linear = skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    nn.init.zeros_(layer.bias)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        bound = (3 / inputs) ** 0.5
        nn.init.uniform_(layer.weight, -bound, bound, generator=source.generator())
    return layer
