"""Fields that several commands share: the words they may be, and what is refused of them."""

from typing import Literal

from sdegen.app.user_code import is_reference
from sdegen.core.conditions import BoundaryCondition

Precision = Literal["float32", "float64"]
Reading = Literal["ito", "stratonovich", "klimontovich"]
CompiledSolverName = Literal["euler-maruyama", "heun"]
TorchSDEName = Literal["torchsde-euler", "torchsde-milstein", "torchsde-srk", "torchsde-heun"]
NoisySolverName = Literal[CompiledSolverName, "milstein", "sra", "dri1", TorchSDEName]
SolverName = Literal[NoisySolverName, "dopri5"]


def check_seed(seed: int | None) -> None:
    """Raise if a seed is out of range."""
    if seed is not None and not 0 <= seed < 2**63:
        raise ValueError(f"seed must lie in [0, 2**63), but is {seed}.")


def check_increasing(t0: float, t1: float) -> None:
    """Raise if times do not increase."""
    if t0 >= t1:
        raise ValueError(f"t1 must exceed t0 = {t0:g}, but is {t1:g}.")


def check_boundary(boundary: str | None) -> None:
    """Refuse what names no boundary: neither a word, nor a class in a file."""
    if boundary is None or boundary in set(BoundaryCondition) or is_reference(boundary):
        return
    words = ", ".join(repr(condition) for condition in BoundaryCondition)
    raise ValueError(
        f"boundary must be one of {words}, or file.py:Class of a boundary of your own, but is "
        f"{boundary!r}."
    )


def check_ends(low: float, high: float) -> None:
    """Raise if a grid has no inside."""
    if low >= high:
        raise ValueError(f"low must be below high = {high:g}, but is {low:g}.")
