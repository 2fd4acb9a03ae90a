"""Which form a process has, decided once where a model is made."""

from __future__ import annotations

from typing import Literal

from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.kernel import Kernel
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.core.requests import kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn
from sdegen.diffusion.ddpm import DDPM, AncestralChain
from sdegen.diffusion.gaussian_path import GaussianPath, check_gaussian_path
from sdegen.diffusion.reverse import ReverseSDE
from sdegen.score.forms.base import Form
from sdegen.score.forms.matrices import MatrixForm
from sdegen.score.forms.modes import DiagonalForm
from sdegen.score.forms.scalar import ScalarForm
from sdegen.score.forms.simulated import SimulatedForm


def form_of(sde: SDE, base: ScoreFn | Literal[0] | None = None) -> Form:
    """Return how a network of a process is asked, and its answer read.

    Args:
        sde: The noising process.
        base: A score that the network's output is added to, where the form has one.

    Raises:
        TypeError: If nothing can be learned of it, with what to pass instead.
        ValueError: If a base is given where the form has none.
    """
    if isinstance(sde, SDE) and _is_simulated(sde):
        return SimulatedForm(sde, base)
    kernel = sde.noise_kernel if isinstance(sde, SDE) and sde.direction == 1 else None
    if not isinstance(sde, GaussianPath) and kernel is None:
        check_gaussian_path(sde, cure=_cure(sde))
    if base is not None:
        raise ValueError(
            f"base is a score that a network is added to where the noise is simulated, but "
            f"{type(sde).__name__} has a kernel, and its network needs none; leave base out."
        )
    if isinstance(sde, GaussianPath):
        return ScalarForm(sde)
    if isinstance(kernel, Kernel):
        kernel = DiagonalKernel.of(kernel)
    if isinstance(kernel, DiagonalKernel):
        return DiagonalForm(sde, kernel)
    if isinstance(kernel, MatrixKernel):
        return MatrixForm(sde, kernel)
    raise TypeError(
        f"the noise_kernel of {type(sde).__name__} must be a Kernel, a DiagonalKernel or a "
        f"MatrixKernel, but is {kind_of(kernel)}."
    )


def _is_simulated(sde: SDE) -> bool:
    """Return whether a process has no kernel, and its paths are simulated."""
    return (
        sde.kernel is None
        and sde.noise_kernel is None
        and not isinstance(sde, DDPM | AncestralChain | ReverseSDE)
    )


def _cure(sde: object) -> str:
    """Return what to pass in the place of dynamics without a Gaussian kernel."""
    if isinstance(sde, DDPM | AncestralChain):
        return " A chain has the score of the SDE that it discretises: give the model that SDE."
    if isinstance(sde, ReverseSDE):
        return " A reverse SDE has the score of its forward one: give the model that, sde.forward."
    return ""
