"""Arrays of any library as tensors, without a copy where their memory can be shared."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from sdegen.core.requests import kind_of, refuse_lost_gradient

_HALF = (torch.float16, torch.bfloat16)


def is_array(value: object) -> bool:
    """Return whether a value is an array of some library."""
    return not isinstance(value, type) and (
        isinstance(value, Tensor) or hasattr(value, "__array__") or hasattr(value, "__dlpack__")
    )


def tensor_of(name: str, value: Any) -> Tensor:  # noqa: ANN401, an array of any library
    """Return an array of floats as a tensor; half precision stays as it is.

    Args:
        name: What it is, in the plural.
        value: A tensor, or an array of NumPy, JAX, xarray, HDF5 or Zarr.

    Raises:
        TypeError: If it holds integers, complex numbers, objects or text, or requires grad.
        ValueError: If some of its numbers are masked.
    """
    if isinstance(value, Tensor):
        refuse_lost_gradient(name, value, "a verdict on stored states")
        return _checked(name, value.detach())
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        try:
            return _checked(name, from_dlpack(value))
        except (BufferError, RuntimeError, ValueError, AttributeError):
            pass  # on a device that is not torch's, or of a dtype that it does not share
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError):  # rows of several lengths
        raise TypeError(
            f"{name} must be an array of floats, but is {kind_of(value)} of which NumPy makes "
            "none; pass rows of one length."
        ) from None
    return _checked(name, _shared(name, array))


def _shared(name: str, array: NDArray[Any]) -> Tensor:
    """Return a NumPy array as a tensor, of the same memory where torch can use it."""
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} have {np.ma.count_masked(array)} masked numbers, which are not known; leave "  # type: ignore[no-untyped-call]
            "out the trajectories that they are of."
        )
    if array.dtype.kind in "OSUVMm":
        words = {"O": "objects", "S": "text", "U": "text", "V": "records"}
        raise TypeError(
            f"{name} must be floats, but have dtype {array.dtype}, "
            f"{words.get(array.dtype.kind, 'dates')}; pass an array of float64, "
            "np.array(…, dtype=float)."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} have dtype {array.dtype}, which torch does not know; pass .astype('float64')."
        )
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)  # never written to


def _checked(name: str, x: Tensor) -> Tensor:
    """Refuse what are no floats."""
    if x.is_complex():
        raise TypeError(
            f"{name} have dtype {x.dtype}; pass real and imaginary parts as two coordinates, "
            "torch.view_as_real."
        )
    if not x.is_floating_point():
        raise TypeError(
            f"{name} have dtype {x.dtype}, and an SDE moves by fractions of an integer; pass the "
            "floats that they were rounded from, or .astype('float64') with rounding=0.5."
        )
    if x.dtype not in (*_HALF, torch.float32, torch.float64):
        raise TypeError(f"{name} have dtype {x.dtype}, which holds no state; pass float32.")
    return x


def at_least_single(x: Tensor) -> Tensor:
    """Return half precision as float32, and all else as it is."""
    return x.float() if x.dtype in _HALF else x


def numbers_of(name: str, value: object, expected: str) -> Tensor:
    """Return numbers or truth values as a tensor on the CPU.

    Raises:
        TypeError: If it is neither a number nor an array of them.
    """
    if isinstance(value, Tensor):
        refuse_lost_gradient(name, value, "a verdict on stored states")
        return value.detach().cpu()
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return torch.tensor(array.tolist() if array.ndim == 0 else np.array(array))
    except (TypeError, ValueError, RuntimeError):
        pass
    raise TypeError(f"{name} must be {expected}, but is {kind_of(value)}.")
