"""What else computes losses of logits on a GPU, as calls over the inputs that take turns.

Peers that are not installed, or do not run on this device, are left out, and that is said. Those
that compute less than fastdiv say what in their names.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Call = Callable[[int], Any]  # given which of the inputs is to be taken
MOST_LIGER = 1 << 31  # elements: rows are at 32-bit offsets
FAILURES = (ImportError, RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError)


def peers(cupy: Any, dtype: str, inputs: list[tuple[Any, Any]]) -> Iterator[tuple[str, Call]]:
    """Yield names and calls, each of which has been tried once."""
    if dtype == "float64":
        return
    if dtype == "float32":
        yield "CuPy", lambda i: with_cupy(cupy, *inputs[i])
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        return
    tensors = [(_tensor(torch, x, dtype), torch.from_dlpack(y).long()) for x, y in inputs]
    for name, make in (
        (f"torch {torch.__version__}: loss, correct", _eager_two),
        (f"torch {torch.__version__}: full set", _eager_full),
        (f"torch.compile {torch.__version__}: full set", _compiled_full),
        (f"Liger {_version('liger-kernel')}: loss, correct", _liger),
        (f"quack {_version('quack-kernels')}: loss", _quack),
    ):
        try:
            call = make(tensors)
            call(0)
            torch.cuda.synchronize()
        except FAILURES as error:
            print(f"{name} does not run here: {str(error).strip().splitlines()[:1]}")
            continue
        yield name, call


def _tensor(torch: Any, x: Any, dtype: str) -> Any:
    if dtype != "bfloat16":
        return torch.from_dlpack(x)
    return torch.from_dlpack(x.view("int16")).view(torch.bfloat16)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _eager_two(tensors: list[tuple[Any, Any]]) -> Call:
    from benchmarks.torch_peers import two

    return lambda i: two(*tensors[i])


def _eager_full(tensors: list[tuple[Any, Any]]) -> Call:
    from benchmarks.torch_peers import full

    return lambda i: full(*tensors[i])


def _compiled_full(tensors: list[tuple[Any, Any]]) -> Call:
    import torch

    from benchmarks.torch_peers import full

    compiled = torch.compile(full, fullgraph=True, dynamic=False)
    return lambda i: compiled(*tensors[i])


def _liger(tensors: list[tuple[Any, Any]]) -> Call:
    """Losses and whether predictions are right; without gradients, as none is asked for."""
    from liger_kernel.ops.cross_entropy import cross_entropy_forward

    if tensors[0][0].numel() >= MOST_LIGER:
        raise ValueError("more elements than it can address")

    def call(i: int) -> Any:
        x, y = tensors[i]
        return cross_entropy_forward(
            x, y, None, -100, 0.0, 0.0, "none", None, False, return_token_accuracy=True
        )

    return call


def _quack(tensors: list[tuple[Any, Any]]) -> Call:
    from quack.cross_entropy import cross_entropy_fwd

    return lambda i: cross_entropy_fwd(*tensors[i])


def with_cupy(cupy: Any, x: Any, y: Any) -> tuple[Any, ...]:
    """Compute the full set as one writes it with arrays."""
    rows = cupy.arange(len(x))
    m = x.max(axis=1, keepdims=True)
    u = cupy.exp(x - m)
    p = u / u.sum(axis=1, keepdims=True)
    of_label = p[rows, y]
    predicted = x.argmax(axis=1)
    label = x[rows, y].copy()
    others = x.copy()
    others[rows, y] = -np.inf
    margin = label - others.max(axis=1)
    brier = (p * p).sum(axis=1) - 2 * of_label + 1
    rank = (x > label[:, None]).sum(axis=1)
    return -cupy.log(of_label), predicted == y, p[rows, predicted], margin, brier, rank
