"""Family: the SDEs that sliders reach, and how one of them is written in a program.

What becomes a slider:

- of a function that returns an SDE, each parameter that is annotated `float` or has a float
  default, or a default of 1 where it has none. `Annotated[float, (0.1, 2.0)]` gives the ends of
  its slider, and a Google docstring's `Args:` its label;
- of an SDE object of the library, each number that its class was called with; of a potential
  that it was given, likewise. An object that its class does not make again from its attributes
  has no sliders but those of the start and the step, and a note on the page says so.

A slider goes from 0 to 3 times its value, from −1 to 1 where that is 0.
"""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch

import sdegen as sg
from sdegen.app.explore.well import double_well
from sdegen.app.user_code import load_object, source_file
from sdegen.core.requests import kind_of

Made = Any  # an SDE or a potential, made again of its class

_STEPS = 150  # of a slider


@dataclass(frozen=True)
class Slider:
    """A number that is moved on the page.

    Args:
        name: Of the parameter.
        label: What the page says beside it.
        value: Where it is at first.
        low: Lower end.
        high: Upper end.
    """

    name: str
    label: str
    value: float
    low: float
    high: float

    @property
    def step(self) -> float:
        """The step of the slider, a round number."""
        rough = (self.high - self.low) / _STEPS
        power = 10.0 ** math.floor(math.log10(rough))
        return min((1, 2, 5, 10), key=lambda m: abs(m * power - rough)) * power


@dataclass(frozen=True)
class Family:
    """SDEs, one for each setting of their parameters.

    Args:
        title: What the page is headed with.
        sliders: The parameters.
        make: Returns the SDE of some parameters.
        write: Returns the lines of a program that make that SDE, and call it `sde`.
        note: What a user should know, such as why there are no sliders.
    """

    title: str
    sliders: tuple[Slider, ...]
    make: Callable[[Mapping[str, float]], sg.SDE]
    write: Callable[[Mapping[str, float]], str]
    note: str = ""


def family_of(reference: str | None) -> Family:
    """Return the family that a reference names; the double well where it is None.

    Raises:
        TypeError: If what is named is neither an SDE nor a function.
        ValueError: If nothing is named, or a parameter has neither a default nor a float type.
    """
    if reference is None:
        source = textwrap.dedent(inspect.getsource(double_well))
        return _of_function("double well", double_well, source.rstrip(), "double_well")
    named: Any = load_object(reference, "sde")
    title = reference.rpartition(":")[2]
    place = _import_of(reference)
    if isinstance(named, sg.SDE):
        return _of_object(title, named, f"{place}\nnamed = {_got(title)}")
    if not callable(named):
        raise TypeError(
            f"sde = {reference!r} is {kind_of(named)}; expected an SDE, or a function of float "
            "parameters that returns one: def well(height: float = 1.0) -> sg.SDE."
        )
    return _of_function(title, named, f"{place}\nnamed = {_got(title)}", "named")


def _got(title: str) -> str:
    """Return the expression of what is looked up in the module, dots and all."""
    return f"module.{title}"


def _import_of(reference: str) -> str:
    """Return the lines of a program that import the module of a reference."""
    file = source_file(reference)
    place = reference.rpartition(":")[0]
    folder, module = (Path.cwd(), place) if file is None else (file.parent, file.stem)
    if file is not None and "." in module:
        raise ValueError(
            f"sde: {file.name} has a dot in its name, so that no program can import it; rename it."
        )
    return (
        "import importlib\nimport sys\n\n"
        f"sys.path.insert(0, {str(folder)!r})\nmodule = importlib.import_module({module!r})"
    )


def _of_function(title: str, function: Callable[..., Any], source: str, name: str) -> Family:
    """Return the family of a function of float parameters."""
    sliders = tuple(_sliders(title, function))

    def make(values: Mapping[str, float]) -> sg.SDE:
        made = function(**{slider.name: values[slider.name] for slider in sliders})
        if not isinstance(made, sg.SDE):
            raise TypeError(
                f"{title} returned {kind_of(made)}, not an SDE; a drift f(x, t) becomes one by "
                "sg.ItoProcess(drift, diffusion)."
            )
        return made

    def write(values: Mapping[str, float]) -> str:
        given = ", ".join(f"{slider.name}={values[slider.name]!r}" for slider in sliders)
        return f"{source}\n\n\nsde = {name}({given})"

    return Family(title, sliders, make, write)


def _sliders(title: str, function: Callable[..., Any]) -> list[Slider]:
    """Return a slider for each float parameter of a function."""
    hints = get_type_hints(function, include_extras=True) if inspect.isfunction(function) else {}
    labels = _labels(inspect.getdoc(function) or "")
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint, default = hints.get(name), parameter.default
        ends = get_args(hint)[1] if get_origin(hint) is not None and len(get_args(hint)) > 1 else 0
        is_float = hint is float or (isinstance(ends, tuple) and get_args(hint)[0] is float)
        is_float |= isinstance(default, float)
        if not is_float and default is parameter.empty:
            raise ValueError(
                f"{title} takes {name}, which is no float and has no default, so that there is "
                "no slider for it; annotate it float, or give it a default. A drift f(x, t) "
                "becomes an SDE by sg.ItoProcess(drift, diffusion)."
            )
        if is_float:
            value = 1.0 if default is parameter.empty else float(default)
            low, high = ends if isinstance(ends, tuple) else _ends(value)
            found.append(Slider(name, labels.get(name, name), value, float(low), float(high)))
    return found


def _ends(value: float) -> tuple[float, float]:
    """Return the ends of the slider of a number."""
    if value == 0:
        return -1.0, 1.0
    return (0.0, 3 * value) if value > 0 else (3 * value, 0.0)


def _labels(doc: str) -> dict[str, str]:
    """Return what the Args: of a docstring say of each parameter, in its first sentence."""
    part = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", doc, re.MULTILINE)
    if part is None:
        return {}
    lines = re.findall(r"^\s*(\w+)(?: \([^)]*\))?: (.+)$", part.group(1), re.MULTILINE)
    return {name: text.split(". ")[0].rstrip(".") for name, text in lines}


def _of_object(title: str, sde: sg.SDE, lines: str) -> Family:
    """Return the family of an SDE object: its class with other numbers, where that can be said."""
    numbers = _numbers(sde)
    if numbers:
        sliders = tuple(
            Slider(name, name.replace(".", ": "), value, *_ends(value))
            for name, value in numbers.items()
        )
        if _is_same(sde, _remade(sde, numbers)):

            def write(values: Mapping[str, float]) -> str:
                return f"{lines}\nsde = {_written(sde, values, 'named')}"

            return Family(title, sliders, lambda values: _remade(sde, values), write)
    note = (
        f"{title} is an object whose numbers cannot be changed from outside: name a function "
        f"with float parameters that returns it, and each becomes a slider."
    )
    return Family(title, (), lambda values: sde, lambda values: f"{lines}\nsde = named", note)


def _arguments(item: object) -> dict[str, Any] | None:
    """Return what a library object was called with, from its attributes; None if not all there."""
    if not type(item).__module__.startswith("sdegen."):
        return None
    names = [
        name
        for name, p in inspect.signature(type(item)).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not names or not all(hasattr(item, name) for name in names):
        return None
    return {name: getattr(item, name) for name in names}


def _numbers(item: object, prefix: str = "") -> dict[str, float]:
    """Return the numbers that an object, and what it was given, were called with."""
    found: dict[str, float] = {}
    for name, value in (_arguments(item) or {}).items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            found[prefix + name] = float(value)
        elif isinstance(value, sg.Potential):
            found |= _numbers(value, f"{prefix}{name}.")
    return found


def _remade(item: Made, values: Mapping[str, float], prefix: str = "") -> Made:
    """Return an object of the same class, called with other numbers."""
    given = {}
    for name, value in (_arguments(item) or {}).items():
        if prefix + name in values:
            given[name] = values[prefix + name]
        elif isinstance(value, sg.Potential) and _numbers(value):
            given[name] = _remade(value, values, f"{prefix}{name}.")
        else:
            given[name] = value
    return type(item)(**given)


def _written(item: Made, values: Mapping[str, float], place: str, prefix: str = "") -> str:
    """Return the call that `_remade` makes."""
    words = []
    for name, value in (_arguments(item) or {}).items():
        if prefix + name in values:
            words.append(f"{name}={values[prefix + name]!r}")
        elif isinstance(value, sg.Potential) and _numbers(value):
            inner = _written(value, values, f"{place}.{name}", f"{prefix}{name}.")
            words.append(f"{name}={inner}")
        else:
            words.append(f"{name}={place}.{name}")
    return f"type({place})({', '.join(words)})"


def _is_same(sde: sg.SDE, other: sg.SDE) -> bool:
    """Return whether two SDEs have the same drift and diffusion at some states of a line."""
    x, t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)[:, None], torch.tensor(0.5)
    try:
        with torch.no_grad():
            pairs = [
                (getattr(sde, name)(x, t), getattr(other, name)(x, t))
                for name in ("drift", "diffusion")
            ]
    except Exception:  # of another shape: what is compared then are the numbers
        return _numbers(sde) == _numbers(other)
    return all(torch.equal(a, b) for a, b in pairs)
