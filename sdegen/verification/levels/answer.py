"""Answer: how much of some averages is due to the step, in numbers and in sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.core.requests import as_number
from sdegen.core.shown import Labelled
from sdegen.verification.check import Check
from sdegen.verification.levels.expansion import Expansion

_SMALL = 0.1  # of the standard deviation: an average below it is no unit of its own bias
_FINER = 10.0  # of dt: the other step that a sentence speaks of


@dataclass(frozen=True)
class BiasAt:
    """The bias of averages at one step.

    Attributes:
        dt: The step.
        value: A(dt) − A(0) by observable, 0-d or of shape (k,), float64.
        error: Half widths of the intervals value ± error, likewise.
        relative: value over `StepBias.scale`.
        relative_error: error over it.
    """

    dt: float
    value: dict[str, Tensor]
    error: dict[str, Tensor]
    relative: dict[str, Tensor]
    relative_error: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class StepBias(Labelled):
    """How much of averages is due to the step, with intervals.

        A(dt) = A(0) + C dtᵖ + O(dtᵖ⁺¹)

    Printed, it is a sentence for each observable.

    Attributes:
        dt: The step.
        average: Averages at dt by observable, 0-d or of shape (k,), float64.
        scale: What relative numbers are relative to: |A(0)|, the average without the bias; or the
            standard deviation of the observable, where |A(0)| is below a tenth of it.
        expansions: Differences between dt, dt/2 and dt/4, and what follows from them.
        order: Weak order of the solver.
        at_rest: Whether averages are at rest, or at a time.
        trajectories: How many walked at all three steps.
        steps: Steps of dt that each took, those included that were left out at first.
        confidence: How often the intervals hold the bias.
        seed: What to pass as rng to get the same bits again.

    Example:
        >>> decay, x0 = sg.ItoProcess(lambda x: -x, 0.0), torch.ones(1, 1, dtype=torch.float64)
        >>> bias = sg.step_bias(decay, {"x": lambda x: x[:, 0]}, dt=0.1, x0=x0, t=1.0)
        >>> f"{bias.average['x']:.4f} {bias.extrapolated['x']:.4f}"  # 0.9¹⁰, and e⁻¹ = 0.3679
        '0.3487 0.3679'
    """

    dt: float
    average: dict[str, Tensor]
    scale: dict[str, Tensor]
    expansions: dict[str, Expansion]
    order: float
    at_rest: bool
    trajectories: int
    steps: int
    confidence: float
    seed: int

    def at(self, dt: float) -> BiasAt:
        """Return the bias at another step, predicted by the expansion, with its error.

        Args:
            dt: The step, in (0, self.dt].

        Raises:
            TypeError: If dt is no number.
            ValueError: If dt ≤ 0, or larger than the steps that were taken.
        """
        step = as_number("dt", dt)
        if not 0 < step <= self.dt * (1 + 1e-9):
            raise ValueError(
                f"dt must lie in (0, {self.dt:g}], but is {step:g}: nothing was seen of larger "
                "steps; call step_bias with that dt."
            )
        return self._at(step)

    @property
    def value(self) -> dict[str, Tensor]:
        """A(dt) − A(0) by observable."""
        return self._at(self.dt).value

    @property
    def error(self) -> dict[str, Tensor]:
        """Half widths of the intervals, by observable: of sampling and of the extrapolation."""
        return self._at(self.dt).error

    @property
    def interval(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Both ends of the intervals, by observable."""
        here = self._at(self.dt)
        return {n: (v - here.error[n], v + here.error[n]) for n, v in here.value.items()}

    @property
    def relative(self) -> dict[str, Tensor]:
        """The bias over `scale`, by observable."""
        return self._at(self.dt).relative

    @property
    def extrapolated(self) -> dict[str, Tensor]:
        """The averages without the bias, by observable."""
        return {n: self.average[n] - v for n, v in self.value.items()}

    @property
    def sentence(self) -> dict[str, str]:
        """What is found, in words, by observable; a line for each of its k numbers."""
        here, finer = self._at(self.dt), self._at(self.dt / _FINER)
        return {name: self._sentence(name, here, finer) for name in self.average}

    def checks(self, limit: float = 0.01) -> list[Check]:
        """Judge the bias of each observable; a large one is the step's, and no mistake.

        "passed" where the whole interval is within the limit, "failed" where all of it is beyond,
        "not judged" where it lies on both sides.

        Args:
            limit: The largest relative bias that passes.

        Raises:
            TypeError: If limit is no number.
            ValueError: If it is not > 0.
        """
        allowed = as_number("limit", limit)
        if not allowed > 0:
            raise ValueError(f"limit must be > 0, but is {allowed:g}; pass limit=0.01.")
        here = self._at(self.dt)
        return [
            self._check(
                title,
                float(here.relative[name].flatten()[k]),
                float(here.relative_error[name].flatten()[k]),
                allowed,
            )
            for name in self.average
            for k, title in enumerate(self._titles(name))
        ]

    def __str__(self) -> str:
        return "\n".join(self.sentence.values())

    def _at(self, dt: float) -> BiasAt:
        """Return the bias at any step."""
        s = dt / self.dt

        def each(of: Callable[[Expansion], Tensor]) -> dict[str, Tensor]:
            return {n: of(e).reshape(self.average[n].shape) for n, e in self.expansions.items()}

        value, error = each(lambda e: e.value(s)), each(lambda e: e.error(s))
        return BiasAt(dt, value, error, self._over(value), self._over(error))

    def _over(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return values over their scales; 0 of what has neither."""
        return {n: torch.where(v == 0, 0.0, v / self.scale[n]) for n, v in values.items()}

    def _titles(self, name: str) -> list[str]:
        """Return the names of the numbers of an observable."""
        average = self.average[name]
        if average.ndim == 0:
            return [f"⟨{name}⟩"]
        return [f"⟨{name}[{k}]⟩" for k in range(len(average))]

    def _sentence(self, name: str, here: BiasAt, finer: BiasAt) -> str:
        """Return what is found of one observable."""
        values, errors, later, doubt = (
            100 * part[name].flatten()
            for at in (here, finer)
            for part in (at.relative, at.relative_error)
        )
        mean = (self.average[name] - here.value[name]).abs().flatten()
        spread = (self.scale[name].flatten() > mean * (1 + 1e-12)).tolist()
        lines = []
        for k, title in enumerate(self._titles(name)):
            value, error = float(values[k]), float(errors[k])
            of = " of its standard deviation" if spread[k] else ""
            if abs(value) <= error:
                lines.append(
                    f"{title} shows no bias of the step: {in_digits(value, error)} % ± "
                    f"{in_digits(error, error)} %{of} at dt = {self.dt:g}"
                )
                continue
            way = "large" if value > 0 else "small"
            lines.append(
                f"{title} is {in_digits(abs(value), error)} % ± {in_digits(error, error)} %{of} "
                f"too {way} because of the step; at dt = {finer.dt:.6g} it would be "
                f"{in_digits(abs(float(later[k])), float(doubt[k]))} %"
            )
        return "\n".join(lines)

    def _check(self, title: str, value: float, error: float, limit: float) -> Check:
        """Return the verdict on one number."""
        name = f"bias of {title} by the step, relative"
        if abs(value) - error > limit:
            smaller = self.dt * (limit / abs(value)) ** (1 / self.order)
            why = (
                f"{abs(value):.2g} ± {error:.2g}: because of the step, no mistake; it falls as "
                f"dt^{self.order:g}, to {limit:g} at about dt = {smaller:.2g}"
            )
            return Check(name, abs(value), limit, "failed", 1 - self.confidence, remark=why)
        if abs(value) + error > limit:
            return Check.skipped(
                name, limit, f"{abs(value):.2g} ± {error:.2g}: pass more trajectories, or steps"
            )
        return Check(name, abs(value), limit, "passed", 1 - self.confidence)


def scale_of(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return what a bias is relative to: an average, or a spread beside which it is small."""
    return torch.where(mean.abs() < _SMALL * deviation, deviation, mean.abs())


def in_digits(value: float, error: float) -> str:
    """Return a number as far as its error lets it be known: one digit of it, two of 1.

    >>> in_digits(2.1341, 0.21), in_digits(2.1341, 0.013), in_digits(210.0, 30.0)
    ('2.1', '2.134', '210')
    """
    if not (math.isfinite(error) and error > 0):
        return f"{value:.3g}".replace("-", "−")
    places = -math.floor(math.log10(error))
    if f"{error:.1e}"[0] == "1":
        places += 1
    return f"{value:.{max(0, places)}f}".replace("-", "−")
