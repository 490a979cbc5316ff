"""The reference, which all else is tested against, against arithmetic by hand and by others."""

import warnings

import numpy as np
import pytest

from fastdiv.batch import Scores
from fastdiv_kernels import exact, reference
from fastdiv_kernels.contract import (
    BFLOAT16,
    BINS,
    CORRECT,
    DYNAMICS,
    PRESENT,
    TIE,
    TOP5,
    UNNORMALIZED,
    Cell,
    Count,
    Kind,
    LossSum,
    PairCount,
    Reason,
    TallySum,
    as_float,
    dtype_name,
    widest,
)

INF = np.inf
LN2 = 0.6931471805599453
LN3 = 1.0986122886681098
LN4 = 1.3862943611198906
LN5 = 1.6094379124341003
LN10 = 2.302585092994046


def score(predictions, labels, kind, dtype="f8"):
    if dtype == "bf16":
        x = (np.asarray(predictions, "f4").view("u4") >> 16).astype(BFLOAT16)
    else:
        x = np.asarray(predictions, dtype)
    scores = Scores.empty(len(x), x.dtype)
    reference.score(x, np.asarray(labels, np.int32), kind, *scores.arrays())
    return scores


# (kind, values, label) -> (loss, predicted, confidence, margin, brier, rank, status)
HAND = {
    "two classes, p = 1/4 and 3/4, right": (
        (Kind.LOGITS, [0, LN3], 1),
        # −ln 3/4; ln 3/4 − ln 1/4; (1/4)² + (1/4)²
        (LN4 - LN3, 1, 0.75, LN3, 0.125, 0, 0),
    ),
    "two classes, p = 1/4 and 3/4, wrong": (
        (Kind.LOGITS, [0, LN3], 0),
        # −ln 1/4; (3/4)² + (3/4)²
        (LN4, 1, 0.75, -LN3, 1.125, 1, 0),
    ),
    "three classes": (
        (Kind.LOGITS, [0, LN3, 0], 1),  # p = 1/5, 3/5, 1/5
        # (1/5)² + (2/5)² + (1/5)² = 6/25
        (LN5 - LN3, 1, 0.6, LN3, 0.24, 0, 0),
    ),
    "logits far from zero": (
        (Kind.LOGITS, [1000, 1000, -1000], 1),  # p = 1/2, 1/2, 0
        (LN2, 0, 0.5, 0, 0.5, 1, TIE),
    ),
    "a masked class": (
        (Kind.LOGITS, [0, -INF, LN3], 2),
        (LN4 - LN3, 2, 0.75, LN3, 0.125, 0, 0),
    ),
    "a label that is masked": (
        (Kind.LOGITS, [0, -INF, LN3], 1),
        # 1² + (1/4)² + (3/4)² = 13/8; behind both others
        (INF, 2, 0.75, -INF, 1.625, 2, 0),
    ),
    "all other classes masked": ((Kind.LOGITS, [-INF, 7, -INF], 1), (0, 1, 1, INF, 0, 0, 0)),
    "a tie, the label comes first": (
        (Kind.LOGITS, [0, 0], 0),
        (LN2, 0, 0.5, 0, 0.5, 0, TIE),
    ),
    "a tie, the label comes second": (
        (Kind.LOGITS, [0, 0], 1),
        (LN2, 0, 0.5, 0, 0.5, 1, TIE),
    ),
    "a tie of others, below the maximum": (
        (Kind.LOGITS, [0, LN2, 0], 2),  # p = 1/4, 1/2, 1/4; class 0 is ahead by its index
        # (1/4)² + (1/2)² + (3/4)² = 14/16
        (LN4, 1, 0.5, -LN2, 0.875, 2, 0),
    ),
    "probabilities": (
        (Kind.PROBS, [0.2, 0.3, 0.5], 1),
        # 0.2² + 0.7² + 0.5² = 0.04 + 0.49 + 0.25
        (LN10 - LN3, 2, 0.5, LN3 - LN5, 0.78, 1, 0),
    ),
    "probabilities that sum to 4/5 are not mended": (
        (Kind.PROBS, [0.2, 0.6], 1),
        # ln 5/3; ln 3; 0.2² + 0.4²
        (LN5 - LN3, 1, 0.6, LN3, 0.2, 0, UNNORMALIZED),
    ),
    "probability zero": (
        (Kind.PROBS, [0, 0.25, 0.75], 0),
        # 1 + 1/16 + 9/16
        (INF, 2, 0.75, -INF, 1.625, 2, 0),
    ),
    "probability one": ((Kind.PROBS, [0, 1, 0], 1), (0, 1, 1, INF, 0, 0, 0)),
    "log-probabilities": (
        (Kind.LOGPROBS, [-LN4, LN3 - LN4], 0),
        (LN4, 1, 0.75, -LN3, 1.125, 1, 0),
    ),
    "log-probabilities that sum to 1/2 are not mended": (
        (Kind.LOGPROBS, [-LN4, -LN4], 1),
        # (1/4)² + (3/4)² = 10/16
        (LN4, 0, 0.25, 0, 0.625, 1, UNNORMALIZED | TIE),
    ),
    "a log-probability of nothing": (
        (Kind.LOGPROBS, [-INF, 0], 0),
        (INF, 1, 1, -INF, 2, 1, 0),
    ),
}


@pytest.mark.parametrize("case", HAND)
def test_a_row_worked_out_by_hand(case):
    (kind, values, label), wanted = HAND[case]
    s = score([values], [label], kind)
    got = (s.loss, s.predicted, s.confidence, s.margin, s.brier, s.rank, s.status)
    names = ("loss", "predicted", "confidence", "margin", "brier", "rank", "status")
    for name, value, true in zip(names, got, wanted, strict=True):
        rtol = 1e-14 if name == "loss" else 1e-7
        np.testing.assert_allclose(value[0], true, rtol=rtol, atol=1e-15, err_msg=name)
    assert s.correct[0] == (wanted[5] == 0) == (wanted[1] == label)


@pytest.mark.parametrize(
    ("kind", "values", "label", "reason"),
    [
        (Kind.LOGITS, [0, np.nan], 0, Reason.NAN),
        (Kind.LOGITS, [INF, np.nan], -1, Reason.NAN),
        (Kind.LOGITS, [0, INF], 0, Reason.POSITIVE_INFINITY),
        (Kind.LOGITS, [-INF, -INF], 0, Reason.NO_MASS),
        (Kind.LOGITS, [0, 1], 2, Reason.LABEL),
        (Kind.LOGITS, [0, 1], -1, Reason.LABEL),
        (Kind.PROBS, [0, 0], 0, Reason.NO_MASS),
        (Kind.PROBS, [-0.0, 0], 0, Reason.NO_MASS),
        (Kind.PROBS, [-2e-6, 1], 0, Reason.CONTRADICTS_KIND),
        (Kind.PROBS, [-1e-6, 1], 0, Reason.VALID),
        (Kind.PROBS, [0, 1.011], 0, Reason.CONTRADICTS_KIND),
        (Kind.PROBS, [0, 1.01], 0, Reason.VALID),
        (Kind.PROBS, [-1e-7, -1e-7], 0, Reason.NO_MASS),
        (Kind.LOGPROBS, [-INF, -INF], 0, Reason.NO_MASS),
        (Kind.LOGPROBS, [0.00995, -9], 0, Reason.VALID),  # ln 1.01 = 0.0099503…
        (Kind.LOGPROBS, [0.00996, -9], 0, Reason.CONTRADICTS_KIND),
        (Kind.LOGPROBS, [-800, -800], 0, Reason.VALID),  # far from normalised, but no mistake
    ],
)
def test_reasons_by_hand(kind, values, label, reason):
    scores = score([values], [label], kind)
    assert scores.status[0] & 7 == reason
    if reason != Reason.VALID:
        assert scores.status[0] == reason
        assert (scores.predicted[0], scores.rank[0], scores.correct[0]) == (-1, -1, False)
        for name in ("loss", "confidence", "margin", "brier"):
            assert np.isnan(getattr(scores, name)[0])


@pytest.mark.parametrize(
    ("dtype", "p", "flagged"),
    [("f8", 0.5009, False), ("f8", 0.5011, True), ("f4", 0.5011, True), ("f4", 0.4989, True),
     ("f2", 0.509, False), ("f2", 0.511, True), ("bf16", 0.5078125, False),
     ("bf16", 0.51171875, True)],
)  # fmt: skip
def test_tolerance_of_a_sum_is_wider_for_16_bits(dtype, p, flagged):
    assert bool(score([[0.5, p]], [0], Kind.PROBS, dtype).status[0] & UNNORMALIZED) == flagged


def test_loss_down_to_1e_300_is_not_rounded_away():
    lead = np.array([10.0, 30.0, 69.0, 690.0])
    scores = score(np.stack([lead, 0 * lead, 0 * lead], axis=1), [0] * 4, Kind.LOGITS)
    # ln(1 + 2 e^−lead) = 2 e^−lead − 2 e^−2·lead + …
    u = 2 * np.exp(-lead)
    np.testing.assert_allclose(scores.loss, u - u * u / 2 + u**3 / 3, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 7, 3000])
def test_blocks_of_rows_do_not_show(monkeypatch, n):
    rng = np.random.default_rng(n)
    x, labels = rng.normal(size=(n, 7)), rng.integers(0, 7, n)
    whole = score(x, labels, Kind.LOGITS)
    monkeypatch.setattr(reference, "BLOCK_VALUES", 20)
    for a, b in zip(score(x, labels, Kind.LOGITS).arrays(), whole.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("dtype", "row"),
    [
        ("f4", [3e38, -3e38]),  # 6e38 is beyond float32
        ("f8", [1e300, 0]),  # a margin of 1e300 too
        ("f8", [1.7e308, -1.7e308]),
        ("f2", [65504, -65504]),
        ("f4", [np.nan, INF]),
        ("f4", [-INF, -INF]),
        ("f4", [1e-45, -1e-45]),
        ("bf16", [3e38, -3e38]),
        ("bf16", [np.nan, INF]),
    ],
)
@pytest.mark.parametrize("kind", list(Kind))
def test_no_row_makes_numpy_warn(kind, dtype, row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score([row, row[::-1]], [0, 0], kind, dtype)


# -- bfloat16 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (0x0000, 0.0),
        (0x8000, -0.0),
        (0x3F80, 1.0),
        (0xC049, -3.140625),  # the first 8 bits of pi, 201 / 64
        (0x3DCD, 0.10009765625),  # 205 / 2048
        (0x7F7F, 255 * 2.0**120),  # the largest
        (0x0080, 2.0**-126),  # the smallest normal number
        (0x0001, 2.0**-133),  # the smallest
        (0x807F, -127 * 2.0**-133),
        (0x7F80, INF),
        (0xFF80, -INF),
        (0x7FC0, np.nan),
        (0xFFFF, np.nan),
        (0x7F81, np.nan),  # signalling
    ],
)
def test_a_word_of_bfloat16_by_hand(word, wanted):
    got = as_float(np.array([[word, 0]], BFLOAT16))
    assert got.dtype == np.float32
    assert got.shape == (1, 2)
    np.testing.assert_array_equal(got, [[wanted, 0]])
    assert np.isnan(wanted) or np.signbit(got[0, 0]) == np.signbit(wanted)


def test_every_word_is_the_upper_half_of_its_float32():
    words = np.arange(1 << 16, dtype=BFLOAT16)
    halves = as_float(words).view(np.uint32)
    np.testing.assert_array_equal(halves >> 16, words)
    assert not (halves & 0xFFFF).any()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_real_numbers_are_left_as_they_are(dtype):
    x = np.ones((3, 2), dtype)
    assert as_float(x) is x


@pytest.mark.parametrize("kind", list(Kind))
def test_a_signalling_nan_is_a_nan_and_makes_nothing_warn(kind):
    words = np.array([[0x7F81, 0], [0xFFBF, 0x7F80]], BFLOAT16)
    for x in (words, as_float(words)):
        scores = Scores.empty(2, x.dtype)
        reference.score(x, np.array([0, 1], np.int32), kind, *scores.arrays())
        assert scores.status.tolist() == [Reason.NAN, Reason.NAN]


@pytest.mark.parametrize("kind", list(Kind))
def test_words_are_scored_as_the_float32_numbers_that_they_stand_for(kind):
    rng = np.random.default_rng(0)
    words, labels = rng.integers(0, 1 << 16, (500, 3)).astype(BFLOAT16), rng.integers(-1, 4, 500)
    words[::2] = (rng.random((250, 3), "f4") / 2).view("u4") >> 16
    got, wanted = (Scores.empty(500, words.dtype) for _ in range(2))
    assert got.loss.dtype == np.float32
    for x, scores in ((words, got), (as_float(words), wanted)):
        reference.score(x, labels.astype(np.int32), kind, *scores.arrays())
        scores.status &= np.uint8(~UNNORMALIZED & 0xFF)  # whose tolerances differ
    for a, b in zip(got.arrays(), wanted.arrays(), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "float32", "float32"),
        ("bfloat16", "float64", "float64"),
        ("float16", "float16", "float16"),
        ("float16", "float32", "float32"),
        ("float32", "float64", "float64"),
    ],
)
def test_widest_holds_both_without_loss(a, b, both):
    of = {dtype_name(dtype): dtype for dtype in (BFLOAT16, *map(np.dtype, ("f2", "f4", "f8")))}
    assert dtype_name(widest(of[a], of[b])) == both
    assert widest(of[b], of[a]) == widest(of[a], of[b])


# -- against others ---------------------------------------------------------------------------


def outcomes(n=400, c=8):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(n, c)) * 3, rng.integers(0, c, n)
    labels[:c] = range(c)
    return logits, labels


def test_agrees_with_scipy_log_softmax():
    special = pytest.importorskip("scipy.special")
    logits, labels = outcomes()
    logp = special.log_softmax(logits, axis=1)
    s = score(logits, labels, Kind.LOGITS)
    rows = np.arange(len(labels))
    np.testing.assert_allclose(s.loss, -logp[rows, labels], rtol=1e-12)
    np.testing.assert_allclose(s.confidence, np.exp(logp.max(axis=1)), rtol=1e-6)
    again = score(logp, labels, Kind.LOGPROBS)
    np.testing.assert_allclose(again.loss, s.loss, rtol=1e-12)


def test_rank_agrees_with_scipy_rankdata():
    stats = pytest.importorskip("scipy.stats")
    logits, labels = outcomes()
    logits = np.round(logits)  # many ties
    ranks = stats.rankdata(-logits, method="ordinal", axis=1) - 1  # equals by their index
    s = score(logits, labels, Kind.LOGITS)
    np.testing.assert_array_equal(s.rank, ranks[np.arange(len(labels)), labels])


def test_means_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = outcomes()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    s = score(p, labels, Kind.PROBS)
    c = p.shape[1]
    assert s.loss.mean() == pytest.approx(metrics.log_loss(labels, p), rel=1e-12)
    assert s.correct.mean() == metrics.accuracy_score(labels, s.predicted)
    for k in (1, 2, 5):
        top = metrics.top_k_accuracy_score(labels, p, k=k, labels=range(c))
        assert (s.rank < k).mean() == pytest.approx(top, abs=1e-15)
    of_class = [metrics.brier_score_loss(labels == j, p[:, j]) for j in range(c)]
    assert s.brier.mean() == pytest.approx(sum(of_class), rel=1e-6)


# -- totals of stored scores ------------------------------------------------------------------

RIGHT = PRESENT | CORRECT | TOP5
WRONG = PRESENT | TOP5
GONE = 0


def totals(loss, confidence, margin, brier, flags):
    counts, bins = np.zeros(len(Count), np.int64), np.zeros((BINS, 2), np.int64)
    loss_sums = exact.zeros(len(LossSum), np.dtype("f4"))
    sums = exact.zeros(TallySum.BIN_CONFIDENCE + BINS, np.dtype("f4"))
    columns = [np.array(x, "f4") for x in (loss, confidence, margin, brier)]
    reference.tally(*columns, np.array(flags, np.uint8), counts, bins, loss_sums, sums)
    return counts, bins, loss_sums, sums


def test_tally_by_hand():
    nan = np.nan
    counts, bins, loss_sums, sums = totals(
        loss=[0.5, 2.0, INF, nan, 9.0, 0.25],
        confidence=[0.75, 0.5, 1.0, nan, 9.0, 1.0],
        margin=[1.5, -2.0, -INF, nan, 9.0, INF],
        brier=[0.25, 1.5, 2.0, nan, 9.0, 0.0],
        flags=[RIGHT, PRESENT | TIE, WRONG, PRESENT | Reason.LABEL, GONE, RIGHT | UNNORMALIZED],
    )
    named = {Count.VALID: 4, Count.LABEL: 1, Count.INFINITE: 1, Count.UNNORMALIZED: 1}
    named |= {Count.TIES: 1, Count.RIGHT: 2, Count.TOP5: 3, Count.FINITE_MARGIN: 2}
    assert {c: int(counts[c]) for c in Count if counts[c]} == named
    # 0.75 → ceil(11.25) − 1 = 11; 0.5 → ceil(7.5) − 1 = 7; 1 → 14
    assert {b: bins[b].tolist() for b in range(BINS) if bins[b].any()} == {
        7: [1, 0], 11: [1, 1], 14: [2, 1],
    }  # fmt: skip
    assert exact.value(loss_sums[LossSum.RIGHT]) == 0.75  # 0.5 + 0.25
    assert exact.value(loss_sums[LossSum.WRONG]) == 2  # the infinite one left out
    assert exact.value(sums[TallySum.CONFIDENCE]) == 3.25
    assert exact.value(sums[TallySum.MARGIN]) == -0.5
    assert exact.value(sums[TallySum.BRIER]) == 3.75
    assert exact.value(sums[TallySum.BIN_CONFIDENCE + 14]) == 2


@pytest.mark.parametrize(
    ("confidence", "b"),
    [(0.0, 0), (1e-30, 0), (0.06, 0), (0.07, 1), (0.2, 3), (0.4, 6), (0.6, 9), (0.8, 12),
     (1.0, 14), (1.01, 14)],
)  # fmt: skip
def test_bin_of_a_confidence(confidence, b):
    # float32(0.2) is 0.200000003: 15 × that is just above 3, so the bin is ceil(3 + ε) − 1 = 3.
    bins = totals([0], [confidence], [0], [0], [RIGHT])[1]
    assert bins[:, 0].argmax() == b


def test_tally_of_classes_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    logits, labels = outcomes()
    s = score(logits, labels, Kind.LOGITS)
    flags = np.where(s.correct, RIGHT, WRONG).astype(np.uint8)
    counts, sums = np.zeros((8, 4), np.int64), exact.zeros(8, np.dtype("f8"))
    labels = labels.astype(np.int32)
    reference.tally_classes(s.loss, s.predicted, labels, flags, counts, sums)
    confusion = metrics.confusion_matrix(labels, s.predicted)
    np.testing.assert_array_equal(counts[:, 0], confusion.sum(axis=1))
    np.testing.assert_array_equal(counts[:, 1], confusion.sum(axis=0))
    np.testing.assert_array_equal(counts[:, 2], np.diag(confusion))
    for j in range(8):
        assert float(exact.value(sums[j])) == pytest.approx(s.loss[labels == j].sum(), rel=1e-12)


def test_transitions_by_hand():
    bad = PRESENT | Reason.NAN
    # (loss, predicted, label, flags) before and after; label 0 unless it changes
    samples = [
        ((0.5, 0, 0, RIGHT), (0.25, 0, 0, RIGHT)),  # rr, −0.25
        ((0.5, 0, 0, RIGHT), (3.0, 1, 0, WRONG)),  # rw, +2.5
        ((2.0, 1, 0, WRONG), (0.5, 0, 0, RIGHT)),  # wr, −1.5
        ((2.0, 1, 0, WRONG), (2.5, 1, 0, WRONG)),  # ww_same, +0.5
        ((2.0, 1, 0, WRONG), (2.25, 2, 0, WRONG)),  # ww_changed, +0.25
        ((INF, 1, 0, WRONG), (2.25, 2, 0, WRONG)),  # ww_changed, but infinite
        ((2.0, 1, 0, WRONG), (INF, 1, 0, WRONG)),  # ww_same, but infinite
        ((np.nan, -1, 0, bad), (2.25, 2, 0, WRONG)),  # invalid before
        ((2.25, 2, 0, WRONG), (np.nan, -1, 0, bad)),  # invalid after
        ((np.nan, -1, 5, bad), (np.nan, -1, 0, bad)),  # invalid twice, whatever the label
        ((2.0, 1, 0, WRONG), (0.5, 1, 1, RIGHT)),  # relabelled: in no cell
        ((2.0, 1, 0, WRONG), (9.0, 0, 0, GONE)),  # only from
        ((9.0, 0, 0, GONE), (2.0, 1, 0, WRONG)),  # only to
        ((9.0, 0, 0, GONE), (np.nan, -1, 0, bad)),  # only to, though invalid
        ((9.0, 0, 0, GONE), (9.0, 0, 1, GONE)),  # of another epoch
    ]
    sides = []
    for side in zip(*samples, strict=True):
        loss, predicted, labels, flags = zip(*side, strict=True)
        sides += [np.array(loss, "f4"), np.array(predicted, "i4"), np.array(labels, "i4")]
        sides += [np.array(flags, "u1")]
    counts, sums = np.zeros(len(PairCount), np.int64), exact.zeros(len(Cell), np.dtype("f4"))
    reference.transitions(*sides, counts, sums)
    assert {c.name: int(counts[c]) for c in PairCount} == {
        "RR": 1, "RW": 1, "WR": 1, "WW_SAME": 2, "WW_CHANGED": 2, "INFINITE": 2, "INVALID": 3,
        "RELABELLED": 1, "ONLY_FROM": 1, "ONLY_TO": 2,
    }  # fmt: skip
    assert [float(exact.value(s)) for s in sums] == [-0.25, 2.5, -1.5, 0.5, 0.25]


def history(*epochs):
    """Carry one sample through epochs (number, loss, margin, predicted, label, flags)."""
    records = np.zeros(1, DYNAMICS)
    for epoch, loss, margin, predicted, label, flags in epochs:
        columns = (np.array([x], t) for x, t in ((loss, "f8"), (margin, "f4"), (predicted, "i4")))
        labels, flag = np.array([label], "i4"), np.array([flags], "u1")
        reference.dynamics(epoch, *columns, labels, flag, records)
    return records[0]


def test_dynamics_by_hand():
    r = history(
        (2, LN4, -1.0, 1, 0, WRONG),  # p = 1/4
        (4, LN2, 0.5, 0, 0, RIGHT),  # p = 1/2
        (5, np.nan, np.nan, -1, 0, PRESENT | Reason.NAN),  # invalid: as if it were not there
        (6, 9.0, 9.0, 0, 0, GONE),
        (7, INF, -INF, 2, 0, WRONG),  # p = 0; forgotten
        (9, LN4, 2.0, 0, 0, RIGHT),  # p = 1/4
        (10, LN2, 4.5, 2, 0, WRONG),  # p = 1/2; forgotten again
        (11, LN2, 1.0, 1, 3, WRONG),  # p = 1/2; wrong again: not forgotten a third time
    )
    p = np.array([1 / 4, 1 / 2, 0, 1 / 4, 1 / 2, 1 / 2])
    assert r["n_epochs"] == 6
    assert r["mean_p"] == pytest.approx(2 / 6, rel=1e-14)
    assert r["m2_p"] == pytest.approx(((p - p.mean()) ** 2).sum(), rel=1e-14)
    assert (r["n_margin"], r["margin_sum"]) == (5, -1 + 0.5 + 2 + 4.5 + 1)
    assert (r["n_right"], r["first_right"], r["forgetting"]) == (2, 4, 2)
    assert (r["last_loss"], r["last_predicted"], r["label"]) == (LN2, 1, 3)


def test_dynamics_of_a_sample_never_valid():
    r = history((0, np.nan, np.nan, -1, 7, PRESENT | Reason.LABEL), (1, 0.5, 0.5, 0, 0, GONE))
    assert r == np.zeros(1, DYNAMICS)[0]  # no history
