"""The oracle itself, against tables worked out by hand and against scikit-learn."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from oracle import KEYS, Epoch, assert_tables, expect
from scipy.special import log_softmax
from sklearn import metrics

LN2 = 0.6931471805599453
LN4 = 1.3862943611198906
LN8 = 2.0794415416798357
INF = float("inf")

# Ten samples, three classes, epochs 3 and 8. Each line: id, label, three probabilities.
EPOCH_3 = [
    (1, 0, 0.5, 0.25, 0.25),  # right, ln 2
    (2, 1, 0.5, 0.25, 0.25),  # wrong (0), ln 4
    (3, 2, 0.5, 0.5, 0.0),  # wrong (0, a tie), infinite
    (4, 1, 0.25, 0.5, 0.25),  # right, ln 2
    (5, 3, 0.25, 0.5, 0.25),  # no such class
    (6, 0, 0.25, 0.25, 0.5),  # wrong (2), ln 4
    (7, 0, 0.5, 0.25, 0.25),  # right, ln 2; not seen again
    (9, 1, 0.25, 0.5, 0.25),  # right, ln 2; another label later
    (10, 2, 0.25, 0.5, 0.25),  # wrong (1), ln 4
]
EPOCH_8 = [
    (10, 2, 0.5, 0.25, 0.25),  # wrong (0), ln 4: 0 since before, another class
    (9, 0, 0.25, 0.5, 0.25),  # wrong (1), ln 4
    (8, 2, 0.25, 0.25, 0.5),  # right, ln 2; new
    (6, 0, 0.125, 0.125, 0.75),  # wrong (2), ln 8: + ln 2, the same class
    (5, 1, 0.25, 0.5, 0.25),  # right, ln 2
    (4, 1, 0.25, 0.5, 0.25),  # right, ln 2: 0 since before
    (3, 2, 0.125, 0.125, 0.75),  # right, ln 4/3
    (2, 1, 0.25, 0.5, 0.25),  # right, ln 2: - ln 2
    (1, 0, 0.125, 0.5, 0.375),  # wrong (1), ln 8: + ln 4
]


def epoch(rows, kind="probs", dtype=np.float64):
    table = np.array(rows, dtype)
    return Epoch(table[:, 2:], table[:, 1], kind, table[:, 0].astype(int))


def by_hand():
    return expect({(None, 8): epoch(EPOCH_8), (None, 3): epoch(EPOCH_3)})


def assert_row(found, **wanted):
    for key, value in wanted.items():
        close = pytest.approx(value, rel=1e-14, abs=1e-16) if type(value) is float else value
        assert found[key] == close, key


def test_epochs_by_hand():
    first, second = by_hand()["epochs"]
    assert_row(
        first,
        split=None, epoch=3, n=9, n_invalid=1, n_infinite=1, n_unnormalized=0, n_ties=1,
        loss=INF,
        loss_finite=1.4285714285714286 * LN2,  # (1 + 2 + 1 + 2 + 1 + 1 + 2) / 7 = 10/7
        accuracy=0.5,  # 1, 4, 7 and 9 of eight
        confidence=0.5,
        brier=0.703125,  # right (4): 1/4 + 2/16; wrong (3): 1/4 + 9/16 + 1/16; tie: 3/2; 5.625 / 8
        margin=0.14285714285714285 * LN2,  # (4 · 1 - 3 · 1) / 7, without the infinite one
        loss_right=LN2,
        loss_wrong=INF,
        top5_accuracy=None,
        ece=0.0,  # one bin: half of them right at confidence one half
    )  # fmt: skip
    assert_row(
        second,
        epoch=8, n=9, n_invalid=0, n_infinite=0, n_ties=0,
        loss=1.1101936222545573,  # ((2 + 2 + 1 + 3 + 1 + 1 + 1 + 3) ln 2 + ln 4/3) / 9
        accuracy=0.5555555555555556,  # 8, 5, 4, 3, 2 of nine
        confidence=0.5555555555555556,  # (7 · 1/2 + 2 · 3/4) / 9
        # four right: .375; 10 and 9: .875; 6: 49/64 + 1/64 + 9/16; 3: 2/64 + 1/16;
        # 1: 49/64 + 1/4 + 9/64. (1.5 + 1.75 + 1.34375 + .09375 + 1.15625) / 9
        brier=0.6493055555555556,
        # four right +1, two wrong -1, 6: -log2 6, 3: +log2 6, 1: -2; all over 9: 0
        margin=0.0,
        loss_right=0.6120541589383124,  # (4 ln 2 + ln 4/3) / 5
        loss_wrong=1.7328679513998633,  # (2 + 2 + 3 + 3) / 4 ln 2
        # bin 7 holds .5 seven times, 4 right; bin 11 holds .75 twice, 1 right: (.5 + .5) / 9
        ece=0.1111111111111111,
    )  # fmt: skip


def test_transitions_by_hand():
    (row,) = by_hand()["transitions"]
    assert_row(
        row,
        split=None, epoch_from=3, epoch_to=8,
        n=6,  # 1, 2, 3, 4, 6, 10
        n_infinite=1, n_invalid=1, n_relabelled=1, n_only_from=1, n_only_to=1,
        rr=1, rw=1, wr=2, ww_same=1, ww_changed=1,
        delta_accuracy=0.16666666666666666,  # (2 - 1) / 6
        delta_loss=0.4 * LN2,  # (0 + 2 - 1 + 1 + 0) / 5
        delta_loss_rr=0.0, delta_loss_rw=0.4 * LN2, delta_loss_wr=-0.2 * LN2,
        delta_loss_ww_same=0.2 * LN2, delta_loss_ww_changed=0.0,
        # 1.1101936222545573 - 10/7 ln 2 - .4 ln 2
        delta_loss_membership=-0.1572755079121999,
        churn=0.6666666666666666,  # rw, wr, ww_changed: 4 of 6
        negative_flip_rate=0.16666666666666666,
    )  # fmt: skip


def test_samples_by_hand():
    samples = {row["sample_id"]: row for row in by_hand()["samples"]}
    assert list(samples) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert_row(
        samples[1],  # right at 1/2, then wrong at 1/8
        label=0, n_epochs=2, n_correct=1, learned=True, first_learned=3, forgetting_events=1,
        confidence=0.3125, variability=0.1875, aum=-0.5 * LN2,  # (1 - 2) / 2
        last_loss=LN8, last_predicted=1, last_correct=False,
    )  # fmt: skip
    assert_row(
        samples[3],  # infinite, then right: no finite margin but the last, ln 6
        n_correct=1, first_learned=8, forgetting_events=0,
        confidence=0.375, variability=0.375, aum=1.791759469228055,
        last_loss=0.2876820724517809, last_predicted=2, last_correct=True,
    )  # fmt: skip
    assert_row(samples[5], label=1, n_epochs=1, first_learned=8, confidence=0.5, variability=0.0)
    assert_row(samples[6], learned=False, first_learned=None, forgetting_events=0, n_correct=0)
    assert_row(samples[9], label=0, n_epochs=2, forgetting_events=1, last_loss=LN4)


def test_a_sample_never_valid():
    (row,) = expect({(None, 0): epoch([(4, -1, 0.5, 0.5)])})["samples"]
    nulls = ["label", "first_learned", "confidence", "variability", "aum"]
    nulls += ["last_loss", "last_predicted", "last_correct"]
    assert [row[name] for name in nulls] == [None] * 8
    assert_row(row, n_epochs=0, n_correct=0, learned=False, forgetting_events=0)


def test_classes_by_hand():
    rows = expect({("val", 3): epoch(EPOCH_3)}, class_names=["a", "b", "c"])["classes"]
    assert [list(row.values()) for row in rows] == [
        # 1, 6, 7: (1 + 2 + 1) / 3 ln 2; precision, recall, F1
        ["val", 3, "a", 3, 4, 2, pytest.approx(LN4 * 2 / 3), 1 / 2, 2 / 3, 4 / 7],
        # 2, 4, 9: (2 + 1 + 1) / 3 ln 2
        ["val", 3, "b", 3, 3, 2, pytest.approx(LN4 * 2 / 3), 2 / 3, 2 / 3, 2 / 3],
        ["val", 3, "c", 2, 1, 0, INF, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("kind", "values", "label"),
    [
        ("probs", [0.5, np.nan], 0),
        ("probs", [0.0, 0.0], 0),
        ("probs", [0.0, -0.0], 0),
        ("probs", [1.02, 0.0], 0),
        ("probs", [1.0, -2e-6], 0),
        ("logits", [np.inf, 0.0], 1),
        ("logits", [-np.inf, -np.inf], 0),
        ("logprobs", [0.5, -1.0], 0),
        ("logits", [1.0, 2.0], 2),
        ("logits", [1.0, 2.0], -1),
    ],
)
def test_invalid_rows(kind, values, label):
    table = expect({(None, 0): Epoch(np.array([values, [-1, -1]]), [label, 5], kind)})
    row = table["epochs"][0]
    assert_row(row, n=2, n_invalid=2, n_infinite=0, n_ties=0, n_unnormalized=0)
    assert [row[name] for name in ("loss", "loss_finite", "accuracy", "ece", "margin")] == [
        None
    ] * 5


def test_edges_of_a_row():
    masked = Epoch(np.array([[2.0, -np.inf, 2.0 - LN2], [-40.0, 0.0, 2.0]]), [0, 1], "logits")
    assert masked.loss == pytest.approx([np.log(1.5), 2 + np.log1p(np.exp(-2))], rel=1e-15)
    assert masked.margin == pytest.approx([LN2, -2.0], rel=1e-15)
    sure = Epoch(np.array([[60.0, 0.0]]), [0], "logits")
    assert sure.loss == pytest.approx([np.exp(-60)], rel=1e-15, abs=0)
    half = Epoch(np.array([[0.5, 0.495]], np.float16), [0], "probs")
    assert (half.unnormalized, half.valid) == (False, True)
    single = Epoch(np.array([[0.5, 0.495]], np.float32), [0], "probs")
    assert (single.unnormalized, single.valid) == (True, True)
    assert Epoch(np.array([[1.0, 0.0]]), [1], "probs", clip=1e-3).loss == -np.log(1e-3)
    tie = Epoch(np.array([[0.1, 0.3, 0.3, 0.3]] * 4), range(4), "probs")
    assert (tie.rank.tolist(), tie.right.tolist()) == ([3, 0, 1, 2], [False, True, False, False])


@pytest.mark.parametrize("kind", ["logits", "probs", "logprobs"])
def test_against_scikit_learn(kind):
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 3, (2000, 7))
    labels = np.where(rng.random(2000) < 0.6, logits.argmax(1), rng.integers(0, 7, 2000))
    logp = log_softmax(logits, axis=1)
    p = np.exp(logp)
    assert p.min() > 1e-12  # scikit-learn clips at 2.2e-16; none of these gets there
    e = Epoch({"logits": logits, "probs": p, "logprobs": logp}[kind], labels, kind)
    tables = expect({(None, 0): e})
    assert_row(
        tables["epochs"][0],
        loss=metrics.log_loss(labels, p),
        accuracy=metrics.accuracy_score(labels, p.argmax(1)),
        top5_accuracy=metrics.top_k_accuracy_score(labels, p, k=5),
        # one binary Brier score a class, added up
        brier=sum(metrics.brier_score_loss(labels == k, p[:, k]) for k in range(7)),
    )
    matrix = metrics.confusion_matrix(labels, p.argmax(1))
    support = metrics.precision_recall_fscore_support(labels, p.argmax(1))[3]
    for k, row in enumerate(tables["classes"]):
        mine = labels == k
        loss = metrics.log_loss(labels[mine], p[mine], labels=range(7))
        assert_row(
            row, support=support[k], predicted=matrix[:, k].sum(), true_positive=matrix[k, k]
        )
        assert_row(row, loss=loss)
    assert metrics.top_k_accuracy_score(labels, p, k=2) == (e.rank < 2).mean()


def as_run(tables):
    """Return ``tables`` as a run would hold them."""
    small = {"class": pa.int32(), "label": pa.int32(), "last_predicted": pa.int32()}
    run = {}
    for name in KEYS:
        rows = [{k: v for k, v in row.items() if k != "_scale"} for row in tables[name]]
        table = pa.Table.from_pylist(rows)
        fields = [f.with_type(small.get(f.name, f.type)) for f in table.schema]
        run[name] = table.cast(pa.schema(fields))
    return SimpleNamespace(**run)


def test_assert_tables_sees_a_difference():
    wanted = by_hand()
    assert_tables(as_run(wanted), wanted, rel=1e-14)
    for name in KEYS:
        for column, value in by_hand()[name][0].items():
            if column != "_scale":
                wrong = by_hand()
                wrong[name][0][column] = 77 if value is None else None
                with pytest.raises((AssertionError, pa.ArrowInvalid)):
                    assert_tables(as_run(wrong), wanted)
    for name, column in [("epochs", "loss_finite"), ("transitions", "delta_loss_ww_same")]:
        wrong = by_hand()
        wrong[name][0][column] *= 1 + 2e-5
        with pytest.raises(AssertionError):
            assert_tables(as_run(wrong), wanted)
