"""From the sums of LANES rows to their Scores, as vectors; see `score_few`.

The same arithmetic as `finish`, but sums here have the other maxima in them where some are tied.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from fastdiv_kernels.contract import HIGHEST_PROB, LOWEST_PROB, TIE, UNNORMALIZED, Reason
from fastdiv_kernels.cpu.control import SIZE
from fastdiv_kernels.cpu.finish import CANCELS, HIGHEST_LOGPROB, LOGITS, PROBS
from fastdiv_kernels.cpu.vectors import INTS, Vectors, float_below


@dataclass
class Tile:
    """What the first pass knows of LANES rows; all are vectors of their lanes."""

    label: Any  # int32, 0 where it is out of range
    labelled: Any  # whether it is in range
    highest: Any
    first: Any  # the lowest class that attains the maximum, int32
    of_label: Any
    second: Any = None  # the highest beside `first`; equal to `highest` where that is tied
    rank: Any = None  # int32
    right: Any = None  # whether the label is `first`
    first_number: Any = None  # `first` as float, which compares in fewer instructions
    label_number: Any = None  # the label as float
    under_label: Any = None  # the number just below the label's


# Scores as they are being made: loss, confidence, margin, brier, UNNORMALIZED or 0, and a mask:
# whether the row may be invalid.
Made = list[Any]


class TileScores:
    """Emits what is done once a tile, for a kind (i64) and a tolerance (float)."""

    def __init__(self, v: Vectors, kind: Any, tolerance: Any) -> None:
        self.v, self.kind, self.tolerance = v, kind, tolerance
        self.one, self.zero = v.real(1), v.real(0)

    def is_kind(self, kind: int) -> Any:
        """Tell, in one bit, whether predictions are of a kind."""
        return self.v.builder.icmp_signed("==", self.kind, ir.Constant(SIZE, kind))

    def margin(self, tile: Tile) -> Any:
        """Return the label's lead over the highest other."""
        v = self.v
        return v.sub(tile.of_label, v.choose(tile.right, tile.second, tile.highest))

    def beside_label(self, tile: Tile, s: Any, q: Any, u: Any) -> tuple[Any, Any]:
        """Return the sum of all weights beside the label's own, u, and of their squares."""
        v = self.v
        rest = v.choose(tile.right, s, v.sub(v.add(self.one, s), u))
        square = v.sub(v.add(self.one, q), v.mul(u, u))
        return rest, v.choose(tile.right, q, square)

    def of_exps(self, tile: Tile, s: Any, q: Any, u: Any, nan: Any) -> Made:
        """Make Scores of logits or log-probabilities; s and q sum exp(x - m), u is the label's."""
        v = self.v
        endless = v.not_below_or_nan(v.magnitude(tile.highest), v.real(np.inf))
        bad = v.either(nan, endless, v.builder.not_(tile.labelled))
        rest, squares = self.beside_label(tile, s, q, u)

        def of_logits() -> Made:
            log_total, share = v.log1p(s)
            loss = v.add(v.sub(tile.highest, tile.of_label), log_total)
            brier = v.mul(v.mul(v.fma(rest, rest, squares), share), share)
            return [loss, share, brier, v.whole(0), bad]

        def of_logprobs() -> Made:
            loss = v.sub(self.zero, tile.of_label)
            confidence = v.exp(tile.highest)
            series = v.fma(loss, v.real(-1 / 6), v.real(0.5))
            series = v.mul(loss, v.fma(v.sub(self.zero, loss), series, self.one))
            near = v.above(v.real(float(CANCELS)), v.magnitude(loss))
            miss = v.choose(near, series, v.sub(self.one, v.exp(tile.of_label)))
            square = v.mul(v.mul(squares, confidence), confidence)
            mass = v.fma(confidence, s, confidence)
            contradicts = v.above(tile.highest, v.real(float_below(HIGHEST_LOGPROB)))
            made = [loss, confidence, v.fma(miss, miss, square)]
            return [*made, self.off(mass), v.either(bad, contradicts)]

        loss, confidence, brier, off, bad = v.branch(self.is_kind(LOGITS), of_logits, of_logprobs)
        return [loss, confidence, self.margin(tile), brier, off, bad]

    def off(self, mass: Any) -> Any:
        """Return UNNORMALIZED where a sum of probabilities is off by more than the tolerance."""
        v = self.v
        off = v.above(v.magnitude(v.sub(mass, self.one)), v.everywhere(self.tolerance))
        return v.choose(off, v.whole(UNNORMALIZED), v.whole(0))

    def of_probs(self, tile: Tile, s: Any, q: Any, lowest: Any, nan: Any) -> Made:
        """Make Scores of probabilities; s and q sum these, `lowest` is the least of them."""
        v, b = self.v, self.v.builder
        highest = tile.highest
        low = v.above(v.real(-float_below(-LOWEST_PROB)), lowest)
        high = v.above(highest, v.real(float_below(HIGHEST_PROB)))
        empty = b.not_(v.above(highest, self.zero))
        bad = v.either(nan, low, high, empty, b.not_(tile.labelled))
        p = v.larger(tile.of_label, self.zero)
        other = v.larger(v.choose(tile.right, tile.second, highest), self.zero)
        # Near a tie the difference of the logarithms would cancel; p - other is exact there.
        near = b.and_(v.above(v.add(other, other), p), v.above(v.add(p, p), other))
        lead = v.divide(v.sub(p, other), v.choose(near, other, self.one))
        lead = v.choose(near, lead, self.zero)
        log_lead, _ = v.log1p(lead)
        log_p = v.log(p)
        margin = v.choose(near, log_lead, v.sub(log_p, v.log(other)))
        miss = v.sub(self.one, p)
        squares = v.sub(v.fma(highest, highest, q), v.mul(p, p))
        brier = v.fma(miss, miss, v.choose(tile.right, q, squares))
        loss = v.sub(self.zero, log_p)
        return [loss, highest, margin, brier, self.off(v.add(highest, s)), bad]

    # -- validity and output ------------------------------------------------------------------

    def checked(
        self, tile: Tile, second: Any, rank: Any, made: Made, reasons: Callable[[], Any]
    ) -> list[Any]:
        """Return all Scores in the contract's order, those of invalid rows marked.

        `reasons` is emitted into a branch that is taken where a row of the tile may be invalid.
        """
        v, b = self.v, self.v.builder
        loss, confidence, margin, brier, off, bad = made
        nothing = v.whole(0)
        tie = v.choose(v.equal(second, tile.highest), v.whole(TIE), nothing)
        status = b.or_(tie, off)
        right = b.zext(tile.right, INTS)
        scores = [loss, right, tile.first, confidence, margin, brier, rank, status]

        def mark() -> list[Any]:
            reason = reasons()
            valid = b.icmp_signed("==", reason, nothing)
            nan, none = v.real(np.nan), v.whole(-1)
            marks = [nan, nothing, none, nan, nan, nan, none, reason]
            pairs = zip(scores, marks, strict=True)
            return [v.choose(valid, score, mark) for score, mark in pairs]

        return v.branch(v.any(bad), mark, lambda: scores)

    def reasons(self, tile: Tile, lowest: Any, nan: Any) -> Any:
        """Return each row's Reason, the first that applies; nan is an int32, not 0 where one is."""
        v, b = self.v, self.v.builder
        highest = tile.highest
        probs, logits = (v.everywhere(self.is_kind(kind)) for kind in (PROBS, LOGITS))
        low = v.above(v.real(-float_below(-LOWEST_PROB)), lowest)
        high = v.above(highest, v.real(float_below(HIGHEST_PROB)))
        high_log = v.above(highest, v.real(float_below(HIGHEST_LOGPROB)))
        contradicts = v.choose(probs, v.either(low, high), b.and_(high_log, b.not_(logits)))
        least = v.choose(probs, self.zero, v.real(-np.inf))
        conditions = [
            (Reason.NAN, b.icmp_signed("!=", nan, v.whole(0))),
            (Reason.POSITIVE_INFINITY, v.equal(highest, v.real(np.inf))),
            (Reason.CONTRADICTS_KIND, contradicts),
            (Reason.NO_MASS, b.not_(v.above(highest, least))),
            (Reason.LABEL, b.not_(tile.labelled)),
        ]
        reason = v.whole(Reason.VALID)
        for which, where in reversed(conditions):
            reason = v.choose(where, v.whole(which), reason)
        return reason
