"""Spec: the SDE, the network and the parameterization of a model as JSON, and back.

What these objects hold are the arguments they were made from, under the same names. So a class
name and those numbers are all there is to write, and nothing but a public class of sdegen is ever
made from a file.
"""

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sdegen
from sdegen.core.errors import CheckpointError
from sdegen.diffusion.blurring import Blurring
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.diffusion.schedules import BetaSchedule, GeometricSigma
from sdegen.score.parameterization import Parameterization
from sdegen.sde.fields import StochasticHeat
from sdegen.sde.linear import LinearSDE
from sdegen.sde.potentials import Quadratic
from sdegen.sde.processes import BrownianMotion, OrnsteinUhlenbeck
from sdegen.sde.underdamped import UnderdampedLangevin

Spec = dict[str, Any]

# what a model is made of; the public classes of these kinds are made from a file, and no others
_KINDS = (
    GaussianPath,
    LinearSDE,
    BrownianMotion,
    OrnsteinUhlenbeck,
    UnderdampedLangevin,
    StochasticHeat,
    Blurring,
    Quadratic,
    BetaSchedule,
    GeometricSigma,
    Parameterization,
    torch.nn.Module,
)
# arguments that files of before do not know, with the value of which they are not written
_UNTOLD = {"conditions": 0, "condition_channels": 0, "variance": False, "padding": "zeros"}
_LATER = {"classes", *_UNTOLD}


def _public(name: str) -> type | None:
    """Return the public class of this name that a model may be made of, or None."""
    kind = getattr(sdegen, name) if name in dir(sdegen) else None
    return kind if isinstance(kind, type) and issubclass(kind, _KINDS) else None


def class_spec(thing: object) -> Spec:
    """Return a class name and the arguments that make its like; the name alone if not ours.

    >>> class_spec(sg.LinearBeta(0.1, 20.0))
    {'class': 'LinearBeta', 'beta_min': 0.1, 'beta_max': 20.0}
    """
    kind = type(thing)
    if _public(kind.__name__) is not kind:
        return {"class": f"{kind.__module__}.{kind.__qualname__}"}
    spec: Spec = {"class": kind.__name__}
    for name in _arguments(kind):
        value = getattr(thing, name)
        if name in _UNTOLD and value == _UNTOLD[name]:
            continue
        if isinstance(value, Tensor | np.ndarray):
            value = value.tolist()
        value = list(value) if isinstance(value, tuple) else value  # a table of numbers
        spec[name] = value if isinstance(value, int | float | str | list) else class_spec(value)
    return spec


def from_class_spec(spec: Spec, where: str) -> Any:  # noqa: ANN401, one of the classes above
    """Make the thing that `class_spec` told.

    Args:
        spec: What `class_spec` returned.
        where: Names the file and the key in an error.

    Raises:
        CheckpointError: If the class is none of ours, or its arguments are not.
    """
    if not isinstance(spec, dict):
        raise CheckpointError(f"{where} is not described, but is {spec!r}.")
    name = spec.get("class")
    kind = _public(str(name))
    if kind is None:
        raise CheckpointError(
            f"{where} is a {name}, which sdegen cannot rebuild; make it yourself and pass it to "
            "load or from_pretrained: network=…, sde=…, parameterization=…."
        )
    given = {key: value for key, value in spec.items() if key != "class"}
    expected = _arguments(kind)
    if set(given) - set(expected) or set(expected) - set(given) - _LATER:
        raise CheckpointError(
            f"{where}: {name} takes {expected}, but the file gives {sorted(given)}."
        )
    arguments = {
        key: from_class_spec(value, f"{where}.{key}") if isinstance(value, dict) else value
        for key, value in given.items()
    }
    try:
        return kind(**arguments)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where} is not a {name}: {error}") from error


def _arguments(kind: type) -> list[str]:
    """Return the names of a constructor's arguments, less the seed of its weights."""
    if kind.__init__ is object.__init__:  # type: ignore[misc]
        return []
    return [name for name in inspect.signature(kind).parameters if name != "rng"]
