"""Solvers of reverse dynamics: methods that ask for a score, and for α and σ.

What they look at is the score, η, and the Gaussian kernel of the forward process, none of which is
ever missing where a method declares that it needs it.
"""

from typing import ClassVar

from torch import Tensor

from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.kernel import Kernel, ReverseStructure
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Memory, Solver

Stepped = tuple[State, Memory]  # the state at the next node, and the memory of the next step


class DiffusionSolver(Solver):
    """A solver of the `ReverseSDE` of a process with a Gaussian kernel.

    Attributes:
        asks_for: What it asks of the dynamics, in words.
        largest_eta: The largest η that it takes; None for any.
        takes_modes: Whether it takes a kernel that is diagonal in a basis, in that basis.
        takes_no_signal: Whether it can begin where no signal is left, α = 0.
        eta_refusal: What it says of a larger one, after its name.
    """

    asks_for: ClassVar[str] = "the α and σ of a kernel"
    largest_eta: ClassVar[float | None] = None
    takes_modes: ClassVar[bool] = False
    takes_no_signal: ClassVar[bool] = False
    eta_refusal: ClassVar[str] = "needs 0 ≤ eta ≤ {most:g}, but eta is {eta:g}."

    def check(self, sde: SDE, nodes: Tensor) -> None:
        """Refuse dynamics other than the ReverseSDE of a process with a kernel, and η too large.

        Raises:
            ValueError: Saying what to pass.
        """
        super().check(sde, nodes)
        inner = sde.denoising
        if inner is None or self.modes(inner) is None:
            inner = self.reversal(sde)[0]
        if not self.takes_no_signal and inner.kernel is not None:
            start = nodes.max()
            if float(inner.kernel.alpha(start).detach()) == 0:
                raise ValueError(
                    f"{type(self).__name__} divides by α(t), but at t = {float(start):g} of this "
                    "path no signal is left, α = 0: take DDIM(), whose first step is in x0, or "
                    "EulerMaruyama() of chain.reverse(model.score)."
                )
        eta = inner.eta
        if self.largest_eta is not None and eta > self.largest_eta:
            words = self.eta_refusal.format(eta=eta, most=self.largest_eta)
            raise ValueError(f"{type(self).__name__} {words}")

    def modes(self, inner: ReverseStructure) -> DiagonalKernel | None:
        """Return the kernel in whose modes the steps are taken; None: α and σ are numbers."""
        kernel = inner.noise_kernel
        if self.takes_modes and inner.kernel is None and isinstance(kernel, DiagonalKernel):
            return kernel
        return None

    def reversal(self, sde: SDE) -> tuple[ReverseStructure, Kernel]:
        """Return what the reverse dynamics are made of, and their kernel; refuse other dynamics.

        Raises:
            ValueError: Saying what to pass.
        """
        inner = sde.denoising
        if inner is not None and inner.kernel is None and inner.noise_kernel is not None:
            diagonal = isinstance(inner.noise_kernel, DiagonalKernel)
            kind = "has one α and σ for each mode" if diagonal else "is of matrices"
            others = "DDIM(), ExponentialAdams(), AngularAdams(), " if diagonal else ""
            raise ValueError(
                f"{type(self).__name__} needs {self.asks_for}, numbers for all coordinates, but "
                f"the kernel of this process {kind}: take {others}EulerMaruyama(), Heun() or "
                "SRA()."
            )
        if inner is None or inner.kernel is None:
            raise ValueError(
                f"{type(self).__name__} needs {self.asks_for}: pass ReverseSDE(linear_sde, score, "
                f"eta), not {type(sde).__name__}."
            )
        return inner, inner.kernel
