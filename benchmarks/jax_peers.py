"""The full set by JAX, compiled by XLA for the CPU; a file of its own, as torch has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.array_peers import Means
    from benchmarks.data import Arrays


def full(arrays: Arrays) -> Callable[[], Means]:
    """Score all rows at once: XLA has threads of its own, and fuses what it can."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def scores(x: Any, y: Any) -> tuple[Any, ...]:
        log_p = jax.nn.log_softmax(x, axis=1)
        p = jnp.exp(log_p)
        is_label = jnp.arange(x.shape[1])[None, :] == y[:, None]
        log_p_label = jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
        margin = log_p_label - jnp.where(is_label, -jnp.inf, log_p).max(axis=1)
        brier = jnp.square(p - is_label).sum(axis=1)
        return -log_p_label, x.argmax(axis=1) == y, p.max(axis=1), margin, brier

    x, y = jnp.asarray(arrays.logits), jnp.asarray(arrays.labels)

    def run() -> Means:
        loss, correct, *_ = jax.block_until_ready(scores(x, y))
        return np.asarray(loss), np.asarray(correct)

    return run
