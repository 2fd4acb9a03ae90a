"""Labelled tables of results, by xarray and pandas, which are optional.

Both are made from the same labels, and hold the numbers of the result, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from sdegen.core.fingerprint import versions
from sdegen.core.optional import needed
from sdegen.plots.results.labelled import Attribute, Labels, Variable, labels, sizes_of

if TYPE_CHECKING:
    import pandas
    import xarray

Array = np.ndarray[Any, np.dtype[Any]]


def to_xarray(result: object) -> xarray.Dataset:
    """Return a result as a data set with named dimensions; see `Labelled.to_xarray`."""
    library = needed("xarray", by="to_xarray", extra="io")
    held = labels(result)
    arrays: dict[str, object] = {}
    for name, variable in held.variables.items():
        said = _said(variable.text, variable.unit)
        arrays[name] = (variable.dims, array_of(variable.values), said)
        if variable.error is not None:
            said = _said(f"{variable.error_text} of {variable.text}", variable.unit)
            arrays[f"{name}_error"] = (variable.dims, array_of(variable.error), said)
    coords = {
        name: (c.dims, array_of(c.values), _said(c.text, c.unit))
        for name, c in held.coords.items()
    }
    dataset: xarray.Dataset = library.Dataset(arrays, coords, attrs=_attributes(result, held))
    return dataset


def to_dataframe(result: object) -> pandas.DataFrame:
    """Return a result as a tidy table; see `Labelled.to_dataframe`."""
    library = needed("pandas", by="to_dataframe", extra="io")
    held = labels(result)
    columns, said = _long(held) if held.long else _wide(held)
    frame: pandas.DataFrame = library.DataFrame(columns)
    frame.attrs.update(_attributes(result, held), columns=said)
    return frame


def array_of(values: Tensor | Sequence[str]) -> Array:
    """Return values as an array, wherever they are."""
    if isinstance(values, Tensor):
        array: Array = values.detach().cpu().numpy()
        return array
    return np.array(list(values), dtype=object)


def _attributes(result: object, held: Labels) -> dict[str, Attribute]:
    made = {"kind": type(result).__name__, "title": held.title, **held.attrs}
    return made | versions("sdegen", "torch")


def _said(text: str, unit: str) -> dict[str, str]:
    return {"long_name": text} | ({"units": unit} if unit else {})


def _in_words(text: str, unit: str) -> str:
    return f"{text}, {unit}" if unit else text


def _wide(held: Labels) -> tuple[dict[str, Array], dict[str, str]]:
    """Return columns of one row for each place, and what they are."""
    names = list(held.variables) if held.columns is None else list(held.columns)
    variables = {name: held.variables[name] for name in names}
    sizes = sizes_of(variables)
    shape = tuple(sizes.values())
    columns: dict[str, Array] = {}
    said: dict[str, str] = {}
    for place, dim in enumerate(sizes):
        at = np.expand_dims(_places(held, dim, sizes[dim]), _others(place, len(shape)))
        columns[dim] = np.broadcast_to(at, shape).ravel()
        said[dim] = _place_in_words(held, dim)
    for name, variable in variables.items():
        axes = tuple(k for k, dim in enumerate(sizes) if dim not in variable.dims)
        order = [variable.dims.index(dim) for dim in sizes if dim in variable.dims]
        for title, values, text in _with_error(name, variable):
            values = np.expand_dims(np.transpose(values, order), axes)
            columns[title] = np.broadcast_to(values, shape).ravel()
            said[title] = _in_words(text, variable.unit)
    return columns, said


def _long(held: Labels) -> tuple[dict[str, Array], dict[str, str]]:
    """Return columns of one row for each number, and what they are."""
    dims = list(sizes_of(held.variables))
    parts: dict[str, list[Array]] = {name: [] for name in ("quantity", *dims, "value", "error")}
    for name, variable in held.variables.items():
        sizes = sizes_of({name: variable})
        rows, said = _wide(Labels(held.title, {name: variable}, held.coords))
        count = len(rows[name])
        parts["quantity"].append(np.array([name] * count, dtype=object))
        for dim in dims:
            empty = np.full(count, np.nan)
            parts[dim].append(rows[dim] if dim in sizes else empty)
        parts["value"].append(rows[name])
        parts["error"].append(rows.get(f"{name}_error", np.full(count, np.nan)))
    columns = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    said = {"quantity": "name of the quantity", "value": "its value", "error": "standard error"}
    said |= {dim: _place_in_words(held, dim) for dim in dims}
    return columns, {name: said[name] for name in columns}


def _with_error(name: str, variable: Variable) -> list[tuple[str, Array, str]]:
    rows = [(name, array_of(variable.values), variable.text)]
    if variable.error is not None:
        text = f"{variable.error_text} of {variable.text}"
        rows.append((f"{name}_error", array_of(variable.error), text))
    return rows


def _others(place: int, count: int) -> tuple[int, ...]:
    return tuple(k for k in range(count) if k != place)


def _places(held: Labels, dim: str, size: int) -> Array:
    """Return where the places along an axis are; they are counted where nothing is said."""
    return array_of(held.coords[dim].values) if dim in held.coords else np.arange(size)


def _place_in_words(held: Labels, dim: str) -> str:
    if dim not in held.coords:
        return f"number of the {dim.replace('_', ' ')}"
    return _in_words(held.coords[dim].text, held.coords[dim].unit)
