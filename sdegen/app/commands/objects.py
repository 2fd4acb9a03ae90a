"""Objects: from the words of a config to the objects of the library."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdegen.app.configs.fields import SolverName
from sdegen.app.user_code import is_reference, load_object
from sdegen.core.boundary import Boundary
from sdegen.core.boundary_words import of_words
from sdegen.core.fixed_steps import FixedStep
from sdegen.core.ito_process import Interpretation, ItoProcess
from sdegen.core.requests import kind_of
from sdegen.core.sde import SDE
from sdegen.core.solver import Solver
from sdegen.solvers.dri1 import DRI1
from sdegen.solvers.euler import EulerMaruyama
from sdegen.solvers.heun import Heun
from sdegen.solvers.milstein import Milstein
from sdegen.solvers.sra import SRA
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.solvers.torch_sde import TorchSDE


def boundary_of(name: str, low: float, high: float) -> Boundary | tuple[Boundary, Boundary]:
    """Return the boundary that a word, or a reference to a class, names.

    Args:
        name: A word, or a reference to a class that is called with both ends.
        low: Lower end.
        high: Upper end.

    Raises:
        TypeError: If what is named is no class of a boundary.
    """
    if not is_reference(name):
        return of_words(name, low, high)
    kind = load_object(name, "boundary")
    if not (isinstance(kind, type) and issubclass(kind, Boundary)):
        raise TypeError(
            f"boundary = {name!r} is {kind_of(kind)}; expected a class that derives from "
            "sdegen.Boundary, which is called with low and high."
        )
    return kind(low, high)


def sde_of(reference: str, diffusion: float | str | None, interpretation: Interpretation) -> SDE:
    """Return the SDE that a reference names.

    Args:
        reference: An SDE, a function without arguments that returns one, or, with a diffusion, a
            drift f(x, t) or f(x).
        diffusion: A number, a text of one, or a reference to a g(x, t); None for an SDE that has
            its own.
        interpretation: Reading of multiplicative noise.

    Raises:
        TypeError: If what is named is none of these.
        ValueError: If nothing is named, or a diffusion goes with an SDE that has its own.
    """
    named: Any = load_object(reference, "sde")
    if isinstance(named, SDE):
        if diffusion is not None:
            raise ValueError(
                f"sde = {reference!r} is an SDE with a diffusion of its own; leave --diffusion "
                "out."
            )
        return named
    if diffusion is not None:
        return ItoProcess(named, _diffusion_of(diffusion), interpretation=interpretation)
    if not callable(named):
        raise TypeError(
            f"sde = {reference!r} is a {type(named).__name__}; expected an SDE, a function "
            "without arguments that returns one, or a drift f(x, t) with --diffusion."
        )
    if not _needs_nothing(named):
        raise ValueError(
            f"sde = {reference!r} takes arguments, as a drift does; give its noise with "
            "--diffusion, say --diffusion 0.7, or name a function without arguments that "
            "returns an SDE."
        )
    made = named()
    if not isinstance(made, SDE):
        raise TypeError(f"sde = {reference!r} returned a {type(made).__name__}, not an SDE.")
    return made


_FIXED: dict[str, type[FixedStep]] = {
    "euler-maruyama": EulerMaruyama,
    "heun": Heun,
    "milstein": Milstein,
    "sra": SRA,
    "dri1": DRI1,
}


def solver_of(name: SolverName, substeps: int, tolerance: float) -> Solver:
    """Return the solver that a word names.

    Args:
        name: Its word in a config.
        substeps: Steps between two of the times, where they are fixed.
        tolerance: Relative and absolute tolerance, where they are not.
    """
    if name == "dopri5":
        return TorchDiffEq("dopri5", rtol=tolerance, atol=tolerance)
    if name in _FIXED:
        return _FIXED[name](substeps=substeps)
    return TorchSDE(name.removeprefix("torchsde-"), substeps=substeps)


def device_of(name: str) -> torch.device:
    """Return a device that exists.

    Raises:
        ValueError: If it is not.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'cuda:1', but is {name!r}.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("no CUDA device; pass --device cpu.")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ValueError(
            f"no CUDA device {index}: there are {torch.cuda.device_count()}, counted from 0."
        )
    return torch.device(name)


def dtype_of(name: str) -> torch.dtype:
    """Return torch.float32 or torch.float64."""
    return {"float32": torch.float32, "float64": torch.float64}[name]


def _diffusion_of(diffusion: float | str) -> float | Callable[..., Tensor]:
    """Return a number, or the function that a reference names."""
    if isinstance(diffusion, str) and is_reference(diffusion):
        function: Any = load_object(diffusion, "diffusion")
        return function if callable(function) else float(function)
    try:
        return float(diffusion)
    except ValueError:
        raise ValueError(
            f"diffusion must be a number, file.py:name or module:name, but is {diffusion!r}; no "
            "formula is evaluated."
        ) from None


def _needs_nothing(function: Callable[..., object]) -> bool:
    """Return whether a callable can be called without arguments."""
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)
