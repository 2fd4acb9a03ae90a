"""Networks: an MLP for vectors, a small U-Net for images; both of a state and a time.

A network is any `torch.nn.Module` called as network(x, t), x (batch, *event) scaled to order one,
t (batch,), that returns a tensor of x's shape. These two are enough for vectors and for
thumbnails.

**Time.** A score changes fast where there is little noise: between t = 10⁻³ and 10⁻² as much as
between 10⁻¹ and 1. So the networks see t through harmonics of t and of log t, whatever the
schedule.

**Skip.** At large noise ε̂ is nearly the state itself, at small noise nearly unrelated to it. Each
network therefore adds to its output a(t) x, with a(t) learned, and the rest is left to learn what
is not linear. The last layers start from zero: an untrained network is the zero function.

**Class.** A network made with classes=n is also told a label 0 … n − 1, or n for "none", which is
what it hears where no label is given: network(x, t, labels). A row of numbers for each, zero at
first, is added to what it knows of the time.

**Condition.** One with an attribute `condition_shape` is told numbers or an image in the place of
a label, one for each row: network(x, t, condition). MLP(dim, conditions=n) adds a map of n numbers
to what it knows of the time, zero at first; UNet(channels, condition_channels=n) sees n more
channels. A condition is always given: there is no score without one.

**Variance.** One made with variance=True puts out twice as many numbers, the second half of them
for `LearnedVariance`: of an event (c, …) shape (batch, 2 c, …). They too start from zero.

Weights are drawn from `rng`, and torch's global generator is neither read nor moved.

Reference:
    Time added to every layer after Ho et al. 2020, appendix B, arXiv:2006.11239; the U-Net's
    residual blocks and zero last layers after Dhariwal and Nichol 2021, arXiv:2105.05233.
"""

import torch
from torch import Tensor, nn

from sdegen.core.noise import Rng, Stream, stream
from sdegen.core.shapes import State
from sdegen.score.layers import (
    Padding,
    TimeFeatures,
    add_labels,
    as_flag,
    as_padding,
    as_size,
    check_alternatives,
    check_condition,
    conv,
    embedding,
    linear,
)

_GROUPS = 4  # of the group normalisation


class ConditionedNetwork(nn.Module):
    """A network with the same labels or conditions in every call: network(x, t, labels).

    Args:
        network: Takes labels, and has `classes`, how many it knows, or `condition_shape`.
        labels: One for all rows, or one for each: of classes shape () or (batch,), 0 … classes;
            of conditions (*condition_shape,) or (batch, *condition_shape), floats.
    """

    def __init__(self, network: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.labels: Tensor = labels
        shape = condition_shape(network)
        self._axes = 0 if shape is None else len(shape)

    @property
    def rows(self) -> int | None:
        """How many rows there is one label for each of; None where one is for all."""
        return len(self.labels) if self.labels.ndim > self._axes else None

    def forward(self, x: State, t: Tensor) -> Tensor:
        """Return the output for x and t with the labels, same shape as x.

        Raises:
            ValueError: If there is one label for each of another number of rows.
        """
        labels = self.labels.to(x.device)
        if labels.is_floating_point():
            labels = labels.to(x.dtype)
        if self.rows is None:
            labels = labels.expand(len(x), *labels.shape)
        elif self.rows != len(x):
            raise ValueError(
                f"there are labels for {len(labels)} trajectories, but a call with {len(x)} rows; "
                "give one label for each row, or one label for all."
            )
        output: Tensor = self.network(x, t, labels)
        return output


def condition_shape(network: nn.Module) -> tuple[int | None, ...] | None:
    """Return the shape of one condition that a network is told, or None where it is told none.

    An axis of any length is None.
    """
    shape: tuple[int | None, ...] | None = getattr(network, "condition_shape", None)
    return shape


class MLP(nn.Module):
    """A residual multilayer perceptron for states of `dim` numbers, of whatever event shape.

        h ← silu(W x + b(t)),   then `depth` times   h ← h + silu(W h + b(t)),   out = W h + a(t) x

    Called as network(x, t) or network(x, t, labels): x (batch, *event), t and labels (batch,).

    Args:
        dim: Numbers in one state.
        width: Units of a layer.
        depth: Residual layers.
        classes: Labels that it can be told; 0 is a network without.
        conditions: Numbers of a condition that it is told; 0 is a network without.
        variance: Whether it puts out as many numbers again, for `LearnedVariance`.
        rng: Seed of the weights, generator or None.

    Raises:
        TypeError: If a size is not an int.
        ValueError: If a size is below 1, or there are both classes and conditions.

    Example:
        >>> network = sg.MLP(2, width=4, depth=1, classes=3, rng=0)
        >>> x, t = torch.linspace(-1, 1, 10).reshape(5, 2), torch.full((5,), 0.5)
        >>> _ = torch.nn.init.constant_(network.leave.weight, 0.1)  # 0 before training
        >>> none = network(x, t, torch.full((5,), 3))  # the label `classes` stands for none
        >>> torch.equal(network(x, t), none), bool(none.any())
        (True, True)
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 3,
        *,
        classes: int = 0,
        conditions: int = 0,
        variance: bool = False,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        self.dim: int = as_size("dim", dim)
        self.width: int = as_size("width", width)
        self.depth: int = as_size("depth", depth)
        source = stream(rng, "network")
        self.features: TimeFeatures = TimeFeatures()
        self.shift: nn.Linear = linear(TimeFeatures.size, (depth + 1) * width, source)
        self.gate: nn.Linear = linear(TimeFeatures.size, 1, source, zero=True)
        self.enter: nn.Linear = linear(dim, width, source)
        self.layers: nn.ModuleList = nn.ModuleList(
            linear(width, width, source) for _ in range(depth)
        )
        self.leave: nn.Linear = linear(
            width, (1 + as_flag("variance", variance)) * dim, source, zero=True
        )
        self.classes: int = as_size("classes", classes, least=0)
        self.labels: nn.Embedding | None = embedding(classes, (depth + 1) * width)
        if as_size("conditions", conditions, least=0):
            check_alternatives(self.classes, "conditions", conditions)
            self.condition_shape: tuple[int] = (conditions,)
            self.told: nn.Linear = linear(conditions, (depth + 1) * width, source, zero=True)

    @property
    def variance(self) -> bool:
        """Whether it puts out as many numbers again, for `LearnedVariance`."""
        return self.leave.out_features != self.dim

    @property
    def conditions(self) -> int:
        """Numbers of a condition that it is told; 0 without."""
        return _condition_size(self)

    def forward(self, x: State, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the output for states x, times and labels of shape (batch,); x's shape.

        With variance=True shape (batch, 2 c, …) for states (batch, c, …).

        Of a network with conditions labels are floats, shape (batch, conditions).
        """
        flat = x.flatten(1)
        if flat.shape[1] != self.dim:
            raise ValueError(
                f"this MLP takes states of {self.dim} numbers, but was given shape "
                f"{tuple(x.shape)}; make it with MLP(dim={flat.shape[1]})."
            )
        time = self.features(t)
        if self.conditions:
            condition = check_condition(labels, self.conditions)
            shift = self.shift(time) + self.told(condition)
        else:
            shift = add_labels(self.shift(time), self.labels, self.classes, labels)
        shifts = torch.split(shift, self.width, dim=1)
        h = nn.functional.silu(self.enter(flat) + shifts[0])
        for layer, shift in zip(self.layers, shifts[1:], strict=True):
            h = h + nn.functional.silu(layer(h) + shift)
        out: Tensor = self.leave(h)
        if self.variance:
            mean, fraction = out.chunk(2, 1)
            out = torch.cat([mean + self.gate(time) * flat, fraction], 1)
            return out.reshape(len(x), 2 * x.shape[1], *x.shape[2:])
        out = out + self.gate(time) * flat
        return out.reshape(x.shape)


class UNet(nn.Module):
    """A small convolutional U-Net for images (batch, channels, height, width).

        h_l = block(pool h_{l−1}, t),  u_l = block([h_l, up u_{l+1}], t),  out = conv(u_0) + a(t) x

    Each level halves the resolution. Called as network(x, t) or network(x, t, labels), t and
    labels of shape (batch,); it returns the shape of x.

    Args:
        channels: Channels of an image; 1 is grey.
        width: Channels of the first level; deeper ones have twice as many.
        levels: Resolutions; height and width must be divisible by 2^(levels − 1).
        classes: Labels that it can be told; 0 is a network without.
        condition_channels: Channels of an image of the same height and width that it is told,
            beside those of x; 0 is a network without.
        variance: Whether it puts out as many channels again, for `LearnedVariance`.
        padding: What convolutions see beyond the ends: "zeros", or "circular", the other end of a
            periodic lattice. The network then commutes with its translations, by multiples of
            2^(levels − 1) sites.
        rng: Seed of the weights, generator or None.

    Raises:
        TypeError: If a size is not an int.
        ValueError: If a size is below 1, width not a multiple of 4, there are both classes and a
            condition, or padding is another word.

    Example:
        >>> network = sg.UNet(width=4, levels=2, padding="circular", rng=0)
        >>> _ = torch.nn.init.constant_(network.leave.weight, 0.1)  # 0 before training
        >>> x, t = torch.arange(128.0).sin().reshape(2, 1, 8, 8), torch.full((2,), 0.5)
        >>> moved = network(x.roll(2, -1), t)  # by 2^(levels − 1) sites
        >>> torch.allclose(moved, network(x, t).roll(2, -1), atol=1e-5)
        True
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        levels: int = 2,
        *,
        classes: int = 0,
        condition_channels: int = 0,
        variance: bool = False,
        padding: Padding = "zeros",
        rng: Rng = None,
    ) -> None:
        super().__init__()
        self.channels: int = as_size("channels", channels)
        self.width: int = as_size("width", width)
        self.levels: int = as_size("levels", levels)
        if width % _GROUPS:
            raise ValueError(f"width must be a multiple of {_GROUPS}, but is {width}.")
        source = stream(rng, "network")
        widths = [width] + [2 * width] * (levels - 1)
        self.features: TimeFeatures = TimeFeatures()
        self.embed: nn.Linear = linear(TimeFeatures.size, 4 * width, source)
        self.gate: nn.Linear = linear(4 * width, 1, source, zero=True)
        if as_size("condition_channels", condition_channels, least=0):
            check_alternatives(
                as_size("classes", classes, least=0), "condition_channels", condition_channels
            )
            self.condition_shape: tuple[int, None, None] = (condition_channels, None, None)
        self.enter: nn.Conv2d = conv(
            channels + condition_channels, width, source, as_padding(padding)
        )
        before = [width, *widths[:-1]]
        self.down: nn.ModuleList = nn.ModuleList(
            _Block(i, o, 4 * width, source, padding) for i, o in zip(before, widths, strict=True)
        )
        self.middle: _Block = _Block(widths[-1], widths[-1], 4 * width, source, padding)
        above = [widths[0], *widths[:-1]]
        self.up: nn.ModuleList = nn.ModuleList(
            _Block(2 * i, o, 4 * width, source, padding)
            for i, o in zip(widths[::-1], above[::-1], strict=True)
        )
        self.norm: nn.GroupNorm = nn.GroupNorm(_GROUPS, width)
        outputs = (1 + as_flag("variance", variance)) * channels
        self.leave: nn.Conv2d = conv(width, outputs, source, padding, zero=True)
        self.classes: int = as_size("classes", classes, least=0)
        self.labels: nn.Embedding | None = embedding(classes, 4 * width)

    @property
    def variance(self) -> bool:
        """Whether it puts out as many channels again, for `LearnedVariance`."""
        return self.leave.out_channels != self.channels

    @property
    def padding(self) -> str:
        """What convolutions see beyond the ends, "zeros" or "circular"."""
        return self.enter.padding_mode

    @property
    def condition_channels(self) -> int:
        """Channels of an image that it is told; 0 without."""
        return _condition_size(self)

    def forward(self, x: State, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Output for images x, times t and labels of shape (batch,); same shape as x.

        Of a network with a condition labels are images, (batch, condition_channels, h, w).
        """
        factor = 2 ** (self.levels - 1)
        if x.ndim != 4 or x.shape[1] != self.channels or any(n % factor for n in x.shape[2:]):
            raise ValueError(
                f"this UNet takes images of shape (batch, {self.channels}, height, width), height "
                f"and width divisible by {factor}, but was given {tuple(x.shape)}."
            )
        known = self.embed(self.features(t))
        if self.condition_channels:
            image = check_condition(labels, self.condition_channels)
            if image.shape[2:] != x.shape[2:]:
                raise ValueError(
                    f"the condition must be images of {tuple(x.shape[2:])} like x, but has shape "
                    f"{tuple(image.shape)}."
                )
            time, h = nn.functional.silu(known), self.enter(torch.cat([x, image], dim=1))
        else:
            time = nn.functional.silu(add_labels(known, self.labels, self.classes, labels))
            h = self.enter(x)
        seen = []
        for level, block in enumerate(self.down):
            if level:
                h = nn.functional.avg_pool2d(h, 2)
            h = block(h, time)
            seen.append(h)
        h = self.middle(h, time)
        for level, block in enumerate(self.up):
            if level:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = block(torch.cat([h, seen.pop()], dim=1), time)
        out: Tensor = self.leave(nn.functional.silu(self.norm(h)))
        gate = self.gate(time)[:, :, None, None]
        if self.variance:
            mean, fraction = out.chunk(2, 1)
            return torch.cat([torch.addcmul(mean, gate, x), fraction], 1)
        return torch.addcmul(out, gate, x)


class _Block(nn.Module):
    """Two convolutions around which the state can pass; the time scales and shifts between."""

    def __init__(
        self, inputs: int, outputs: int, known: int, source: Stream, padding: Padding
    ) -> None:
        super().__init__()
        self.norm1: nn.GroupNorm = nn.GroupNorm(_GROUPS, inputs)
        self.norm2: nn.GroupNorm = nn.GroupNorm(_GROUPS, outputs)
        self.conv1: nn.Conv2d = conv(inputs, outputs, source, padding)
        self.modulate: nn.Linear = linear(known, 2 * outputs, source)
        self.conv2: nn.Conv2d = conv(outputs, outputs, source, padding, zero=True)
        alike = inputs == outputs
        self.around: nn.Identity | nn.Conv2d = (
            nn.Identity() if alike else conv(inputs, outputs, source, size=1)
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        # after the norm, which takes away what is added to a whole group of channels
        scale, shift = self.modulate(time)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(nn.functional.silu(self.norm1(x))))
        h = torch.addcmul(h + shift, h, scale)
        out: Tensor = self.around(x) + self.conv2(nn.functional.silu(h))
        return out


def _condition_size(network: nn.Module) -> int:
    """Return the first size of a network's condition; 0 of one that takes none."""
    shape: tuple[int, ...] = getattr(network, "condition_shape", (0,))
    return shape[0]
