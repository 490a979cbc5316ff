"""Imbalance, reports by class and confusions, against scikit-learn."""

import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
from sides import pair_of, side_of
from sklearn import metrics

from fastdiv.errors import UsageError
from fastdiv.explain.classes.confusions import confusions
from fastdiv.explain.classes.imbalance import change_by_class, class_report, imbalance

EXACT = 1e-12


def drawn(n=400, c=5, seed=0, absent=(), dtype="f8"):
    """Return logits that know something of unequal classes, and labels."""
    r = np.random.default_rng(seed)
    shares = r.dirichlet(np.ones(c))
    shares[list(absent)] = 0.0
    labels = r.choice(c, n, p=shares / shares.sum())
    logits = r.normal(size=(n, c)) + 1.5 * np.eye(c)[labels] + np.log(shares + 1e-3)
    return logits.astype(dtype), labels


def probabilities(logits):
    p = np.exp(logits - logits.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True)


def quiet(function, *args, **kwargs):
    """Call what warns of classes that were never predicted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@pytest.mark.parametrize(("n", "c", "absent"), [(400, 5, ()), (60, 12, (3, 7)), (200, 2, ())])
def test_imbalance_is_what_scikit_learn_finds(n, c, absent):
    logits, y = drawn(n, c, absent=absent)
    side = side_of(logits, y)
    found = imbalance(side)
    guess = side.predicted
    shares = np.bincount(y, minlength=c) / n
    loss = metrics.log_loss(y, probabilities(logits), labels=range(c))
    constant = metrics.log_loss(y, np.tile(shares, (n, 1)), labels=range(c))
    majority = shares.max()
    wanted = {
        "prior_entropy": constant,
        "effective_classes": np.exp(constant),
        "prior_deficit": np.log(c) - constant,
        "majority_accuracy": majority,
        "accuracy": metrics.accuracy_score(y, guess),
        "accuracy_skill": (np.mean(y == guess) - majority) / (1 - majority),
        "loss": loss,
        "d2": metrics.d2_log_loss_score(y, probabilities(logits), labels=list(range(c))),
        "balanced_accuracy": quiet(metrics.balanced_accuracy_score, y, guess),
        "adjusted_balanced_accuracy": quiet(
            metrics.balanced_accuracy_score, y, guess, adjusted=True
        ),
        "mcc": metrics.matthews_corrcoef(y, guess),
        "kappa": metrics.cohen_kappa_score(y, guess),
    }
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=EXACT, abs=EXACT), name
    assert found.d2 == found.d2_finite
    assert (found.n, found.classes, found.classes_present) == (n, c, len(np.unique(y)))
    assert found.majority_class == shares.argmax()
    json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("zero_division", [None, 0.0, 1.0])
def test_the_report_is_that_of_scikit_learn(beta, zero_division):
    logits, y = drawn(60, 12, absent=(3, 7))
    side = side_of(logits, y)
    table = class_report(side, beta=beta, zero_division=zero_division)
    nothing = np.nan if zero_division is None else zero_division
    shared = {"labels": list(range(12)), "zero_division": nothing}
    guess = side.predicted
    for name, b in (("f1", 1.0), ("fbeta", beta)):
        for average in (None, "micro", "macro", "weighted"):
            rows = table.filter(
                table["average"].is_null() if average is None
                else np.array([x == average for x in table["average"].to_pylist()])
            )  # fmt: skip
            wanted = metrics.precision_recall_fscore_support(
                y, guess, beta=b, average=average, **shared
            )
            for column, values in zip(("precision", "recall", name), wanted, strict=False):
                got = rows[column].to_numpy()
                np.testing.assert_allclose(got, np.atleast_1d(values), rtol=EXACT, err_msg=column)
    assert table["support"].to_pylist()[:12] == np.bincount(y, minlength=12).tolist()
    assert table["predicted"].to_pylist()[:12] == np.bincount(guess, minlength=12).tolist()
    assert table["support"].to_pylist()[12:] == [60, 60, 60]
    assert table["precision"].null_count == (
        0 if zero_division is not None else sum(~np.isin(range(12), guess))
    )


def test_names_stand_for_classes():
    logits, y = drawn(50, 3)
    names = ("ant", "bee", "cat")
    table = class_report(side_of(logits, y), class_names=names)
    assert table["class"].to_pylist() == [*names, None, None, None]
    assert table["average"].to_pylist() == [None, None, None, "micro", "macro", "weighted"]
    with pytest.raises(UsageError, match="2 names for 3 classes"):
        class_report(side_of(logits, y), class_names=("ant", "bee"))
    with pytest.raises(UsageError, match="beta is -1"):
        class_report(side_of(logits, y), beta=-1)


@pytest.mark.parametrize("c", [2, 3, 40])
def test_confusions_are_the_cells_of_the_matrix_that_are_not_zero(c):
    logits, y = drawn(300, c)
    side = side_of(logits, y)
    table = confusions(side)
    matrix = metrics.confusion_matrix(y, side.predicted, labels=range(c))
    np.fill_diagonal(matrix, 0)
    rows = list(zip(*(table[x].to_pylist() for x in ("n", "label", "predicted")), strict=True))
    assert sorted(rows) == sorted((matrix[i, j], i, j) for i, j in np.argwhere(matrix))
    assert rows == sorted(rows, key=lambda row: (-row[0], *row[1:]))
    for row in table.to_pylist():
        cell = (y == row["label"]) & (side.predicted == row["predicted"])
        assert row["loss"] == pytest.approx(side.loss[cell].mean(), rel=EXACT)
        assert row["share_of_label"] == row["n"] / (y == row["label"]).sum()
    assert confusions(side, most=2).equals(table.slice(0, 2))
    names = [f"class {k}" for k in range(c)]
    named = confusions(side, names)
    assert named["label"].to_pylist() == [names[k] for k in table["label"].to_pylist()]
    with pytest.raises(UsageError, match="most is -1"):
        confusions(side, most=-1)


def test_confusions_of_very_many_classes_do_not_overflow():
    side = side_of(np.eye(3)[[0, 1]] * 5, [1, 1])
    far = replace(
        side, classes=100_000, labels=np.array([99_999, 7], "i4"),
        predicted=np.array([99_998, 7], "i4"),
    )  # fmt: skip
    (row,) = confusions(far).to_pylist()
    assert (row["label"], row["predicted"], row["n"], row["share_of_label"]) == (
        99_999,
        99_998,
        1,
        1,
    )


def test_classes_add_up_to_the_change():
    logits, y = drawn(500, 6, absent=(2,))
    later = logits + np.random.default_rng(1).normal(size=logits.shape)
    pair = pair_of(logits, later, y)
    table = change_by_class(pair)
    right = pair.after.correct.mean() - pair.before.correct.mean()
    total = metrics.log_loss(y, probabilities(later), labels=range(6)) - metrics.log_loss(
        y, probabilities(logits), labels=range(6)
    )
    assert sum(table["delta_loss"].to_pylist()) == pytest.approx(total, rel=1e-10)
    assert sum(table["delta_accuracy"].to_pylist()) == pytest.approx(right, rel=EXACT)
    assert sum(table["share_of_delta_loss"].to_pylist()) == pytest.approx(1, rel=EXACT)
    for k, row in enumerate(table.to_pylist()):
        of = y == k
        assert (row["n"], row["n_infinite"]) == (of.sum(), 0)
        if not of.any():
            assert row["loss_before"] is row["recall_after"] is None
            assert row["delta_loss"] == row["delta_accuracy"] == 0
            continue
        change = row["loss_after"] - row["loss_before"]
        assert row["delta_loss"] == pytest.approx(change * of.mean(), abs=EXACT)
        assert row["recall_before"] == pair.before.correct[of].mean()
        assert row["recall_after"] == pair.after.correct[of].mean()
        moved = pair.after.correct[of].astype(int) - pair.before.correct[of]
        assert (row["n_wr"], row["n_rw"]) == ((moved > 0).sum(), (moved < 0).sum())


def test_infinite_losses_are_counted_and_leave_the_rest_finite():
    before = np.array([[0.0, 1, 0], [0.2, 0.5, 0.3], [0, 0.1, 0.9], [0.6, 0.2, 0.2]])
    after = np.array([[0.0, 1, 0], [0.1, 0.8, 0.1], [1, 0, 0], [0.7, 0.2, 0.1]])
    y = np.array([0, 1, 2, 0])
    pair = pair_of(before, after, y, "probs", class_names=("a", "b", "c"))
    table = change_by_class(pair).to_pylist()
    assert [row["class"] for row in table] == ["a", "b", "c"]
    assert [row["n_infinite"] for row in table] == [1, 0, 1]
    total = (np.log(0.5 / 0.8) + np.log(0.6 / 0.7)) / 2
    assert sum(row["delta_loss"] for row in table) == pytest.approx(total, rel=1e-12)
    assert sum(row["delta_accuracy"] for row in table) == -0.25
    found = imbalance(pair.before)
    assert (found.n_infinite, found.loss, found.d2) == (1, np.inf, -np.inf)
    finite = metrics.d2_log_loss_score(y[1:], before[1:])
    assert found.d2_finite == pytest.approx(finite, rel=EXACT)
    assert confusions(pair.before)["loss"].to_pylist() == [np.inf]


def test_nothing_one_sample_and_one_class():
    nothing = imbalance(side_of(np.zeros((0, 3)), []))
    assert (nothing.n, nothing.classes) == (0, 3)
    assert nothing.accuracy is nothing.prior_entropy is nothing.mcc is nothing.loss is None
    empty = pair_of(np.zeros((0, 3)), np.zeros((0, 3)), [])
    assert change_by_class(empty)["share_of_delta_loss"].null_count == 3
    assert confusions(empty.before).num_rows == 0
    report = class_report(empty.before)
    assert report["precision"].null_count == report.num_rows == 6
    assert class_report(empty.before, zero_division=0)["f1"].to_pylist() == [0.0] * 6

    one = imbalance(side_of(np.array([[2.0, 0, 0]]), [0]))
    assert (one.accuracy, one.prior_entropy, one.effective_classes, one.mcc) == (1, 0, 1, 0)
    assert one.d2 is one.kappa is one.accuracy_skill is one.adjusted_balanced_accuracy is None

    alike = imbalance(side_of(np.array([[2.0, 0, 0], [0, 1, 0]]), [1, 1]))
    assert (alike.accuracy, alike.majority_class, alike.balanced_accuracy) == (0.5, 1, 0.5)
    assert (alike.mcc, alike.kappa, alike.d2) == (0, 0, None)


def test_ninety_percent_of_one_class_earn_no_skill():
    y = np.repeat([0, 1], [90, 10])
    constant = np.tile(np.log([0.9, 0.1]), (100, 1))
    found = imbalance(side_of(constant, y))
    assert found.accuracy == found.majority_accuracy == 0.9
    assert found.accuracy_skill == found.kappa == found.mcc == found.adjusted_balanced_accuracy == 0
    assert found.d2 == pytest.approx(0, abs=1e-12)
    assert found.effective_classes == pytest.approx(0.9**-0.9 * 0.1**-0.1)
