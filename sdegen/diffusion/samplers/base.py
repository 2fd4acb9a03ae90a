"""Solvers of reverse dynamics: methods that ask for a score, and for α and σ.

What they look at is a `Reversal`: the score, η, and the Gaussian kernel of the forward process,
none of which is ever missing where a method declares that it needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sdegen.core.kernel import Kernel
from sdegen.core.scores import ScoreAt, along
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn
from sdegen.core.solver import Solver


@dataclass(frozen=True)
class Reversal:
    """What a method finds inside the reverse dynamics of a process with a Gaussian kernel.

    Attributes:
        score: ∇ log p_t(x).
        eta: η of the family of reverse dynamics: 0 the flow, 1 the reverse SDE.
        kernel: α and σ of the forward process.
    """

    score: ScoreFn
    eta: float
    kernel: Kernel

    def along(self, nodes: Tensor) -> ScoreAt:
        """Return the score at the nodes of a run, as `sdegen.core.scores.along` has it."""
        return along(self.score, nodes)


class DiffusionSolver(Solver):
    """A solver of the `ReverseSDE` of a process with a Gaussian kernel.

    Attributes:
        asks_for: What it asks of the dynamics, in words.
        largest_eta: The largest η that it takes; None for any.
    """

    asks_for: ClassVar[str] = "the α and σ of a kernel"
    largest_eta: ClassVar[float | None] = None

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics other than the ReverseSDE of a process with a kernel, and η too large.

        Raises:
            ValueError: Saying what to pass.
        """
        super().check(sde, nodes)
        inner, name = sde.denoising, type(self).__name__
        if inner is None or inner.kernel is None:
            raise ValueError(
                f"{name} needs {self.asks_for}: pass ReverseSDE(linear_sde, score, eta), not "
                f"{type(sde).__name__}."
            )
        if self.largest_eta is not None and inner.eta > self.largest_eta:
            raise ValueError(
                f"{name} needs 0 ≤ eta ≤ {self.largest_eta:g}, but eta is {inner.eta:g}."
            )

    def reversal(self, sde: SDE) -> Reversal:
        """Return the score, η and the kernel of dynamics that `check` has passed."""
        inner = sde.denoising
        assert inner is not None  # check() saw to it
        assert inner.kernel is not None
        return Reversal(inner.score, inner.eta, inner.kernel)
