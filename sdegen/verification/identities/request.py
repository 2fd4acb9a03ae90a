"""What identities are asked with: a solver or a word for one, and densities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.core.requests import check_kind
from sdegen.core.sde import SDE
from sdegen.core.shapes import State
from sdegen.core.solver import Solver
from sdegen.sde.transitions import GaussianLaw
from sdegen.verification.identities.fluctuation import LogDensity
from sdegen.verification.path_certificate import solver_for

_WORDS = ("exact", "unknown")  # in place of a solver


def solver_of(sde: SDE, solver: Solver | str | None) -> Solver | str:
    """Return the solver, or a word for one.

    Raises:
        TypeError, ValueError: If it is neither.
    """
    if solver is None:
        return solver_for(sde)
    if isinstance(solver, str):
        if solver not in _WORDS:
            raise ValueError(
                f"solver must be a solver such as EulerMaruyama(), 'exact' or 'unknown', but is "
                f"{solver!r}."
            )
        return solver
    check_kind("solver", solver, Solver, "a solver such as EulerMaruyama(), 'exact' or 'unknown'")
    return solver


def log_density_of(start: object) -> LogDensity:
    """Return log ρ of an object that has it.

    Raises:
        TypeError: If it has none.
    """
    log_prob: Callable[[State], Tensor] | None = getattr(start, "log_prob", None)
    if not callable(log_prob):
        raise TypeError(
            f"start must have log_prob(x) of states x, such as a GaussianMixture, but is "
            f"{type(start).__name__}; pass the density that the states have."
        )

    def log_density(x: State) -> Tensor:
        value: Tensor = log_prob(x)
        return value.reshape(len(x), -1).sum(1)

    return log_density


def gaussian(law: GaussianLaw) -> LogDensity:
    """Return the log density of a law at rest, up to a constant."""
    inverse = torch.linalg.inv(law.covariance)

    def log_density(x: State) -> Tensor:
        off = x.reshape(len(x), -1).double() - law.mean
        exponent: Tensor = -0.5 * ((off @ inverse) * off).sum(1)
        return exponent

    return log_density
