"""Loss, correctness and more by torch, op by op and compiled: the strongest peer in memory.

Rows are taken in pieces, on as many threads as all others have: the (n, c) temporaries then stay
in cache. Measured: op by op 1.1 to 3 times as fast as all rows at once, the full set compiled as
fast with few classes and twice as fast with 1,000. Compiled for two numbers alone there are no
such temporaries, and pieces only cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.kernel_peers import at_half_and_double, in_batches
from benchmarks.turns import pieces_of, shared
from fastdiv_kernels.contract import GRID

if TYPE_CHECKING:
    from benchmarks.array_peers import Means, Run
    from benchmarks.data import Arrays
    from benchmarks.kernel_peers import Run as BatchesRun
    from benchmarks.kernel_peers import Tempered

PIECE_BYTES = 4 << 20  # of logits; measured: the best of 0.25, 1, 2 and 4 MB, as a whole
TWO, FULL = 2, 5  # outputs

Function = Callable[..., tuple[Any, ...]]  # of logits (n, c) and labels (n,)
Outputs = Callable[[slice], list[Any]]  # where the outputs of some rows go


class UnavailableError(Exception):
    """A peer is installed but cannot do its work on this machine; the text says why."""


def eager_two(arrays: Arrays) -> Run:
    return _into_arrays(arrays, _into(two), TWO)


def eager_full(arrays: Arrays) -> Run:
    return _into_arrays(arrays, _into(full), FULL)


def compile_two(arrays: Arrays) -> Run:
    import torch

    torch.set_num_threads(arrays.threads)
    x, y = _tensors(arrays)
    function = _compiled(two)
    _first_call(lambda: function(x, y))
    return lambda: function(x, y)


def compile_full(arrays: Arrays) -> Run:
    return _into_arrays(arrays, _compiled(_into(full)), FULL)


def compile_full_batches(arrays: Arrays) -> BatchesRun:
    """Write into buffers that are used again, as `kernel_peers.fastdiv_score` does."""
    step = _step(arrays)

    def outputs_of_a_thread() -> Outputs:
        buffers = _empty(step, FULL)
        return lambda rows: [values[: rows.stop - rows.start] for values in buffers]

    places = [outputs_of_a_thread() for _ in range(arrays.threads)]
    run, works = _in_pieces(arrays, _compiled(_into(full)), places)
    return in_batches(run, lambda rows: works[0](rows)[:2], len(arrays.labels), step)


def compile_temperatures(arrays: Arrays) -> Callable[[], Tempered]:
    """Add up losses alone; each thread has totals of its own."""
    import torch

    totals = [torch.zeros(len(GRID), dtype=torch.float64) for _ in range(arrays.threads)]
    places: list[Outputs] = [lambda rows, own=own: [own] for own in totals]  # type: ignore[misc]
    run_all, _ = _in_pieces(arrays, _compiled(add_losses), places)

    def run() -> Tempered:
        for total in totals:
            total.zero_()
        run_all()
        return at_half_and_double((torch.stack(totals).sum(0) / len(arrays.labels)).tolist())

    return run


def _into_arrays(arrays: Arrays, function: Callable[..., None], outputs: int) -> Run:
    """Write into one array for each output."""
    out = _empty(len(arrays.labels), outputs)
    places: list[Outputs] = [lambda rows: [values[rows] for values in out]] * arrays.threads
    work, _ = _in_pieces(arrays, function, places)

    def run() -> Means:
        work()
        return out[0], out[1]

    return run


def _in_pieces(
    arrays: Arrays, function: Callable[..., None], places: list[Outputs]
) -> tuple[Callable[[], None], list[Callable[[slice], list[Any]]]]:
    """Return a call that scores all rows, and what each thread of it does with some."""
    _one_thread()
    x, y = _tensors(arrays)

    def scoring(place: Outputs) -> Callable[[slice], list[Any]]:
        def work(rows: slice) -> list[Any]:
            out = place(rows)
            function(x[rows], y[rows], out)
            return out

        return work

    works = [scoring(place) for place in places]
    pieces = pieces_of(len(y), _step(arrays))
    _first_call(lambda: [works[0](rows) for rows in (pieces[0], pieces[-1])])
    return shared(works, len(y), _step(arrays), _one_thread), works


def _step(arrays: Arrays) -> int:
    classes: int = arrays.logits.shape[1]
    return max(1, PIECE_BYTES // (4 * classes))


def _one_thread() -> None:
    """Have this thread compute by itself: a setting of each, which compiled code depends on."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def _tensors(arrays: Arrays) -> tuple[Any, Any]:
    import torch

    return torch.from_numpy(arrays.logits), torch.from_numpy(arrays.labels.astype(np.int64))


def _empty(n: int, outputs: int) -> list[Any]:
    import torch

    dtypes = [torch.float32, torch.bool, torch.float32, torch.float32, torch.float32]
    return [torch.empty(n, dtype=dtype) for dtype in dtypes[:outputs]]


def two(x: Any, y: Any) -> tuple[Any, ...]:
    from torch.nn.functional import cross_entropy

    return cross_entropy(x, y, reduction="none"), x.argmax(1) == y


def full(x: Any, y: Any) -> tuple[Any, ...]:
    """Return the full set; the margin by a masked maximum, which beats topk."""
    import torch

    log_p = torch.log_softmax(x, 1)
    p = log_p.exp()
    at_label = y[:, None]
    log_p_label = log_p.gather(1, at_label)[:, 0]
    is_label = torch.arange(x.shape[1], device=x.device)[None, :] == at_label
    confidence = p.amax(1)
    margin = log_p_label - log_p.masked_fill(is_label, -torch.inf).amax(1)
    brier = (p - is_label.to(p.dtype)).square().sum(1)
    return -log_p_label, x.argmax(1) == y, confidence, margin, brier


def add_losses(x: Any, y: Any, out: list[Any]) -> None:
    """Add the losses at the inverse temperatures of `GRID`.

    Measured: `cross_entropy(x * beta, y)` for each takes up to 3 times as long as the maximum
    once for all; `logsumexp` is between the two.
    """
    import torch

    x = x - x.amax(1, keepdim=True)
    at_label = x.gather(1, y[:, None])[:, 0]
    losses = [((x * beta).exp().sum(1).log() - beta * at_label).sum() for beta in GRID]
    out[0].add_(torch.stack(losses))


def _into(function: Function) -> Callable[..., None]:
    """Make a function write into given tensors; compiled, it then makes no others of its own."""

    def write(x: Any, y: Any, out: list[Any]) -> None:
        for values, result in zip(out, function(x, y), strict=True):
            values.copy_(result)

    return write


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import torch

    compiled: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    return compiled


def _first_call(call: Callable[[], Any]) -> None:
    """Call for the first time: no compiler, no headers, all outside our reach, show up here."""
    try:
        call()
    except RuntimeError as error:  # as all of torch's own are
        lines = (line.strip() for line in str(error).splitlines())
        text = f"{type(error).__name__}: {next(filter(None, lines), '')}"[:200]
        raise UnavailableError(f"it does not run here: {text}") from error
