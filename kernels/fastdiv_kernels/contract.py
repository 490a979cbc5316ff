"""What a backend provides: functions, shapes, dtypes, status codes.

Letters in shapes: ``n`` rows, ``c`` classes, ``k`` limbs of an exact sum (see
`fastdiv_kernels.exact`). A backend is a module with the functions of `Backend`; `reference` is
the executable specification, and every other backend is tested against it.

Definitions, for a row with values ``v`` (c,) of some kind, label ``y``, and ``log p`` its
log-probabilities (logits minus their log-sum-exp; the logarithm of a probability; a
log-probability as it is; probabilities are never renormalised):

loss
    ``-log p[y]`` in nats, unclipped, possibly infinite.
predicted, correct
    the lowest index that attains the maximum; whether it is the label.
rank
    how many classes stand ahead of the label, ties ahead when their index is lower;
    ``rank == 0`` exactly where ``correct``.
confidence
    ``p[predicted]``.
margin
    ``log p[y] - max(log p[j] for j != y)``; for logits the difference of the logits.
brier
    ``sum((p - onehot(y))**2)``.
profile
    What is kept of the vector, in 16 bits, so that the loss at any temperature can be had later.
    With ``x = log p - max(log p)`` (c,), whose softmax is the prediction, and
    ``s(beta) = log(sum(exp(beta * x)))``, the loss of ``softmax(beta * x)`` is
    ``s(beta) + beta * gap``, where ``gap = max(0, -margin)``. For two classes x is
    ``(0, -|margin|)`` and nothing more is kept. Up to `VECTORS_UP_TO` classes x itself is;
    beyond, s at each inverse temperature of `GRID` and, after these, its derivatives by
    ``log(beta)``, ``beta * sum(softmax(beta * x) * x)``. A class of probability exactly 0 is -inf
    in x and adds nothing to s or its derivative; what is finite in x stays so.

NumPy has no bfloat16: its predictions are uint16 words (`BFLOAT16`), each the upper half of the
float32 that it stands for. A word is NaN where its low 15 bits are above 0x7F80, +inf is 0x7F80,
-inf 0xFF80. A backend scores words as it would score the float32 numbers, but allows their sum
the tolerance of 16-bit input.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Dtype = np.dtype[Any]

BFLOAT16: Final = np.dtype(np.uint16)  # bfloat16, as words; no prediction is an unsigned integer


def dtype_name(dtype: Dtype) -> str:
    """Name the dtype of predictions as people do."""
    return "bfloat16" if dtype == BFLOAT16 else dtype.name


def as_float(predictions: Array) -> NDArray[np.floating[Any]]:
    """Return predictions as real numbers: words as float32, exactly; all others as they are.

    A signalling NaN stays one, and NumPy warns when it casts that to float64.
    """
    if predictions.dtype != BFLOAT16:
        return predictions
    bits: NDArray[np.uint32] = np.left_shift(predictions, 16, dtype=np.uint32)
    return bits.view(np.float32)


def widest(a: Dtype, b: Dtype) -> Dtype:
    """Return the narrowest dtype that holds predictions of both without loss."""
    if a == b:
        return a
    return np.promote_types(*(np.float32 if dtype == BFLOAT16 else dtype for dtype in (a, b)))


class Kind(IntEnum):
    """What the numbers of a prediction vector are."""

    LOGITS = 0
    PROBS = 1
    LOGPROBS = 2


class Reason(IntEnum):
    """Why a row is invalid; the low three bits of its status."""

    VALID = 0
    NAN = 1
    POSITIVE_INFINITY = 2
    CONTRADICTS_KIND = 3
    NO_MASS = 4
    LABEL = 5
    NULL = 6
    LENGTH = 7


REASON: Final = 0b0000_0111  # mask of the reason in a status
UNNORMALIZED: Final = 0b0000_1000  # probabilities whose sum is off by more than the tolerance
TIE: Final = 0b0001_0000  # the maximum is attained more than once
# Bits that only stored flags carry, above those of a status:
CORRECT: Final = 0b0010_0000
TOP5: Final = 0b0100_0000  # rank < 5
PRESENT: Final = 0b1000_0000  # the sample was seen in this epoch

LOWEST_PROB: Final = -1e-6  # beyond these two the data contradicts its kind
HIGHEST_PROB: Final = 1.01
SUM_TOLERANCE: Final = 1e-3  # on a row's sum of probabilities ...
SUM_TOLERANCE_16_BIT: Final = 1e-2  # ... and for 16-bit input

# Inverse temperatures at which losses are kept or summed: all are powers of one exponential.
GRID: Final = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
VECTORS_UP_TO: Final = 16  # classes, for which a profile is the vector itself
LOWEST_KEPT: Final = -65504.0  # of finite differences of logits: the lowest of 16 bits
HIGHEST_SUMMED: Final = 2.0**30  # nats: no more is added of one sample at one temperature


def profile_width(classes: int) -> int:
    """Return how many numbers a profile has."""
    if classes == 2:
        return 0
    return classes if classes <= VECTORS_UP_TO else 2 * len(GRID)


BINS: Final = 15  # equal-width bins of confidence: clip(ceil(15 * confidence) - 1, 0, 14)


# Bins of the pictures of an epoch, see `Backend.distributions`: i holds edges[i] <= x < edges[i+1].
CONFIDENCE_EDGES: Final = np.linspace(0.0, 1.0, 51)
# Nats: four bins to each octave from 2**-14 to 2**6, one below and one above.
LOSS_EDGES: Final = np.array(
    [0.0, *(2.0**k * (1 + j / 4) for k in range(-14, 6) for j in range(4)), 64.0, np.inf]
)
MARGIN_EDGES: Final = np.array([-np.inf, *np.linspace(-20.0, 20.0, 81), np.inf])


class Count(IntEnum):
    """Positions in the counts of `Backend.tally`; the first eight are rows by `Reason`."""

    VALID = 0
    NAN = 1
    POSITIVE_INFINITY = 2
    CONTRADICTS_KIND = 3
    NO_MASS = 4
    LABEL = 5
    NULL = 6
    LENGTH = 7
    INFINITE = 8  # valid rows with an infinite loss
    UNNORMALIZED = 9
    TIES = 10
    RIGHT = 11
    TOP5 = 12
    FINITE_MARGIN = 13


class TallySum(IntEnum):
    """Positions in the float32 sums of `Backend.tally`; bins of confidence follow the last."""

    CONFIDENCE = 0
    MARGIN = 1  # finite margins only
    BRIER = 2
    BIN_CONFIDENCE = 3


class LossSum(IntEnum):
    """Positions in the loss sums of `Backend.tally` (finite losses only)."""

    RIGHT = 0
    WRONG = 1


class Cell(IntEnum):
    """Where a sample went between two epochs; positions in counts and sums of `transitions`."""

    RR = 0  # right, then right
    RW = 1
    WR = 2
    WW_SAME = 3  # wrong twice, with the same prediction
    WW_CHANGED = 4


class PairCount(IntEnum):
    """Positions in the counts of `Backend.transitions`; the first five are the cells."""

    RR = 0
    RW = 1
    WR = 2
    WW_SAME = 3
    WW_CHANGED = 4
    INFINITE = 5  # in a cell, but its loss is infinite in one epoch at least
    INVALID = 6
    RELABELLED = 7
    ONLY_FROM = 8
    ONLY_TO = 9


# The history of a sample; all zero before its first valid epoch.
DYNAMICS: Final = np.dtype(
    [
        ("mean_p", np.float64),  # running mean of the probability of the label
        ("m2_p", np.float64),  # running sum of squared deviations from it (Welford)
        ("margin_sum", np.float64),
        ("last_loss", np.float64),
        ("first_right", np.int64),  # epoch; means something only where n_right > 0
        ("n_epochs", np.int32),
        ("n_right", np.int32),
        ("n_margin", np.int32),  # epochs with a finite margin
        ("forgetting", np.int32),
        ("last_predicted", np.int32),
        ("label", np.int32),  # of the last valid epoch
    ]
)


class Backend(Protocol):
    """The functions of a backend. All write into arrays that the caller owns."""

    name: str
    copies: bool  # arrays of the host go to a device and back: the fewer calls, the better

    def describe(self) -> str:
        """Instruction set or device, as the summary names it."""
        ...

    def score(
        self,
        predictions: Array,  # (n, c) float16, BFLOAT16, float32 or float64, C order
        labels: Array,  # (n,) int32; any value, out of [0, c) makes the row invalid
        kind: Kind,
        loss: Array,  # (n,) float32; float64 for float64 predictions
        correct: Array,  # (n,) bool
        predicted: Array,  # (n,) int32; -1 where invalid
        confidence: Array,  # (n,) float32; like loss, margin and brier NaN where invalid
        margin: Array,  # (n,) float32
        brier: Array,  # (n,) float32
        rank: Array,  # (n,) int32; -1 where invalid
        status: Array,  # (n,) uint8: a Reason, and UNNORMALIZED and TIE
    ) -> None:
        """Score each row, whose result depends on nothing but the row, its label and the kind."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Make an array of the host, of the memory that this backend had best write to."""
        ...

    def write_flags(
        self,
        correct: Array,  # (n,) bool
        rank: Array,  # (n,) int32
        status: Array,  # (n,) uint8
        flags: Array,  # (n,) uint8
    ) -> None:
        """Write what is stored of scores beside them: status, CORRECT, TOP5 and PRESENT."""
        ...

    def in_tiles(
        self, groups: Sequence[Callable[[], None]], steps: Sequence[tuple[int, int, int, int]]
    ) -> bool:
        """Make calls for some rows after others, or say False, having done nothing.

        Each group, when it is called, calls functions of this backend with arrays of all rows and
        does nothing else: it is asked which ones, and then each step calls them for a tile. A
        step is the number of a group, the tile's first row, how many it has, and the address of
        its predictions, whatever the group gives: they may lie in pieces of one dtype, aligned or
        not, in C order. What is added to, and not written by row, is the same in all steps.
        Predictions that lie on a device are taken where they lie.
        """
        ...

    def profile(
        self,
        predictions: Array,  # (n, c), see `score`
        kind: Kind,
        predicted: Array,  # (n,) int32, as `score` found it; rows that are invalid have -1
        profile: Array,  # (n, profile_width(c)) float16; 0 where invalid
    ) -> None:
        """Keep of each row what its loss at other temperatures is made from; c > 2."""
        ...

    def tally_temperatures(
        self,
        loss: Array,  # (n,) float32 or float64; rows with an infinite loss are passed over
        margin: Array,  # (n,) float32
        flags: Array,  # (n,) uint8; rows that are invalid or not PRESENT are passed over
        profile: Array,  # (n, profile_width(classes)) float16
        classes: int,
        counts: Array,  # (1,) int64, added to: rows
        sums: Array,  # (2 * len(GRID), LIMBS_FIXED) int64, added to: losses at the inverse
        #               temperatures of GRID, then their derivatives by log(beta)
    ) -> None:
        """Add the losses of one epoch at each temperature of the grid to its totals."""
        ...

    def temper(
        self,
        margin: Array,  # (n,) float32, finite or not; of two classes, where NaN gives NaN
        profile: Array,  # (n, profile_width(classes)) float16
        classes: int,
        beta: float,
        tempered: Array,  # (n, 3) float64: s(beta), its first and second derivative by log(beta)
    ) -> None:
        """Tell each row's log-partition function at an inverse temperature, from its profile.

        From vectors exactly; between temperatures of the grid by the polynomials of lowest degree
        through the four nearest values and derivatives; beyond the grid's ends, as at them.
        """
        ...

    def tally(
        self,
        loss: Array,  # (n,) float32 or float64
        confidence: Array,  # (n,) float32
        margin: Array,  # (n,) float32
        brier: Array,  # (n,) float32
        flags: Array,  # (n,) uint8; rows that are not PRESENT are passed over
        counts: Array,  # (len(Count),) int64, added to
        bins: Array,  # (BINS, 2) int64, added to: rows, right rows
        loss_sums: Array,  # (len(LossSum), k) int64, added to; k by the dtype of loss
        sums: Array,  # (BIN_CONFIDENCE + BINS, k32) int64, added to
    ) -> None:
        """Add the stored scores of one epoch to its totals."""
        ...

    def tally_classes(
        self,
        loss: Array,  # (n,)
        predicted: Array,  # (n,) int32
        labels: Array,  # (n,) int32
        flags: Array,  # (n,) uint8
        counts: Array,  # (c, 4) int64, added to: support, predicted, true positive, infinite
        loss_sums: Array,  # (c, k) int64, added to
    ) -> None:
        """Add the stored scores of one epoch to its totals by class."""
        ...

    def distributions(
        self,
        loss: Array,  # (n,) float32 or float64
        confidence: Array,  # (n,) float32
        margin: Array,  # (n,) float32
        flags: Array,  # (n,) uint8; rows that are invalid or not PRESENT are passed over
        counts: Array,  # (2,) int64, added to: rows, rows whose loss is not finite
        confidences: Array,  # (2, 50) int64, added to: wrong rows, then right ones
        losses: Array,  # (2, 82) int64, added to: those with a finite loss, wrong, then right
        margins: Array,  # (2, 82) int64, added to: wrong, then right
        bins: Array,  # (BINS, 2) int64, added to as by `tally`: rows, right rows
        loss_sums: Array,  # (82, k) int64, added to: finite losses; k by the dtype of loss
        confidence_sums: Array,  # (BINS, k32) int64, added to
    ) -> None:
        """Add the stored scores of one epoch to how confidence, loss and margin are distributed.

        Numbers fall into the bins of CONFIDENCE_EDGES, LOSS_EDGES and MARGIN_EDGES as they are
        in float64. What lies below the lowest edge is in the first bin (a loss is below 0 where
        probabilities sum to more than 1), what lies on or above the highest in the last, and so
        is NaN, which no valid row has; NaN is not added to sums.
        """
        ...

    def transitions(
        self,
        loss_from: Array,  # (n,)
        predicted_from: Array,  # (n,) int32
        labels_from: Array,  # (n,) int32
        flags_from: Array,  # (n,) uint8
        loss_to: Array,
        predicted_to: Array,
        labels_to: Array,
        flags_to: Array,
        counts: Array,  # (len(PairCount),) int64, added to
        delta_sums: Array,  # (len(Cell), k) int64, added to: loss_to - loss_from
    ) -> None:
        """Add the same samples in two epochs to the cells of their transition table."""
        ...

    def dynamics(
        self,
        epoch: int,
        loss: Array,  # (n,)
        margin: Array,  # (n,) float32
        predicted: Array,  # (n,) int32
        labels: Array,  # (n,) int32
        flags: Array,  # (n,) uint8
        records: Array,  # (n,) DYNAMICS, updated
    ) -> None:
        """Carry each sample's history on by one epoch; epochs must come in order."""
        ...
