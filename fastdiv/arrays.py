"""Arrays of any library as NumPy arrays, without a copy: NumPy, DLPack, what has `__array__`."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np

from fastdiv.errors import UsageError
from fastdiv_kernels.contract import BFLOAT16, Array

INT32 = np.iinfo(np.int32)
CUDA, MANAGED = 2, 13  # DLPack's devices
ON_THE_HOST = (1, 3, MANAGED)  # those whose memory NumPy can read: CPU, pinned, managed


def address(array: Array) -> int:
    """Return where an array begins; it keeps nothing alive."""
    return int(array.__array_interface__["data"][0])


def on_device(values: Any) -> bool:
    """Say whether values lie in the memory of a GPU that CUDA knows."""
    if type(values) is np.ndarray:
        return False
    if not hasattr(values, "__dlpack_device__"):
        return hasattr(values, "__cuda_array_interface__")
    kind = int(values.__dlpack_device__()[0])  # torch's other attribute may raise
    return kind == CUDA or (kind == MANAGED and hasattr(values, "__cuda_array_interface__"))


def as_array(values: Any, what: str) -> tuple[Array, bool]:
    """Return values as an array, and whether its 16-bit words are bfloat16.

    Parameters
    ----------
    values
        A NumPy array, anything with DLPack (torch, JAX, CuPy on the host, TensorFlow) or
        ``__array__``, or a sequence.
    what : str
        What the values are, for errors.
    """
    if type(values) is np.ndarray and values.dtype.isbuiltin == 1:
        return values, False
    if hasattr(values, "detach"):  # a tensor of torch may belong to a graph, which DLPack refuses
        values = values.detach()
    if hasattr(values, "__dlpack_device__") and not isinstance(values, np.ndarray):
        device, number = values.__dlpack_device__()
        if int(device) not in ON_THE_HOST:
            raise UsageError(
                f"{what} lie on a device (DLPack type {int(device)}, number {number}), which the "
                "CPU cannot read: pass them from host memory, as x.cpu() gives them"
            )
        if str(getattr(values, "dtype", "")) == "torch.bfloat16":  # NumPy has no such dtype
            return np.from_dlpack(values.view(sys.modules["torch"].int16)).view(BFLOAT16), True
        # NumPy finds another way for dtypes that DLPack has not, or says that there is none.
        with suppress(BufferError, RuntimeError, TypeError):
            values = np.from_dlpack(values)
    if isinstance(values, np.ma.MaskedArray):
        whole = values.dtype.kind in "iu"
        values = np.where(values.mask, -1 if whole else np.nan, values.data)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} are no array: {error}") from None
    if array.dtype.name == "bfloat16":  # of ml_dtypes, as JAX uses it
        return array.view(BFLOAT16), True
    return array, False


def as_predictions(predictions: Any, dtype: str | None = None) -> Array:
    """Return predictions as kernels take them, or say what is wrong with them.

    `dtype` says what 16-bit words are: float16 or bfloat16.
    """
    x, bfloat16 = as_array(predictions, "predictions")
    if x.ndim != 2:
        raise UsageError(f"predictions must have shape (n, c), not {x.shape}")
    if not bfloat16 and x.dtype.kind in "iuV" and x.dtype.itemsize == 2 and dtype is not None:
        x, bfloat16 = _words(x, dtype)
    if not bfloat16 and (x.dtype.kind != "f" or x.dtype.itemsize not in (2, 4, 8)):
        raise UsageError(
            f"predictions must be float16, bfloat16, float32 or float64, not {x.dtype}"
        )
    if x.shape[1] < 2:
        raise UsageError(
            f"predictions have {x.shape[1]} class(es): at least 2 are needed "
            "(for one score p of the positive class, pass the two columns 1 - p and p)"
        )
    if x.flags.c_contiguous and x.dtype.isnative:
        return x
    return np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("="))


def _words(x: Array, dtype: str) -> tuple[Array, bool]:
    """Take 16-bit words for what the user says they are."""
    if dtype not in ("float16", "bfloat16"):
        raise UsageError(f"predictions are 16-bit words, which cannot be {dtype}")
    bfloat16 = dtype == "bfloat16"
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    return x.view(BFLOAT16 if bfloat16 else np.float16), bfloat16


def integer_labels(labels: Any, n: int) -> Array:
    """Return labels (n,) as the integers that they are, or say what is wrong with them."""
    y, _ = as_array(labels, "labels")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n,):
        raise UsageError(f"labels must have shape ({n},) like the predictions, not {y.shape}")
    if y.dtype == np.bool_:
        y = y.astype(np.int32)
    if y.dtype.kind not in "iu":
        raise UsageError(f"labels must be integers, not {y.dtype}")
    return y


def as_int32(y: Array) -> Array:
    """Return integers (n,) as int32 in C order, those that do not fit as -1."""
    if y.dtype == np.int32 and y.dtype.isnative and y.flags.c_contiguous:
        return y
    if y.dtype.itemsize > 4 or y.dtype == np.uint32:
        # What is negative is large without its sign: one look at each instead of five.
        unsigned = y.view(np.dtype(f"u{y.dtype.itemsize}").newbyteorder(y.dtype.byteorder))
        if len(y) and unsigned.max() > INT32.max:
            y = np.where((y < 0) | (y > INT32.max), -1, y)
    return np.ascontiguousarray(y, dtype=np.int32)
