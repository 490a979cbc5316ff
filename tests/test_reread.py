"""One epoch read again: confident joint, class-wise calibration and curves of many classes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, as_kind, make, spoil, table, to_bytes, write, write_files
from sklearn.metrics import average_precision_score, roc_auc_score

import fastdiv
from fastdiv.errors import DataError, UsageError
from fastdiv.explain.calibration import by_class
from fastdiv.explain.calibration.by_class import Block, ByClass, blocks
from fastdiv.explain.calibration.errors import calibration
from fastdiv.explain.labels.joint import class_thresholds, confident_joint
from fastdiv.rereading.epoch_rows import Once
from fastdiv.rereading.reread import Reread, reread
from fastdiv_kernels.contract import BINS, Kind

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
KINDS = {"logits": Kind.LOGITS, "probs": Kind.PROBS, "logprobs": Kind.LOGPROBS}


def noisy(n, c, seed=0, dtype=np.float32, wrong=0.2, epochs=(3, 7)):
    """Return {epoch: Rows} of logits that have learned, with some labels wrong."""
    dump = make(epochs=epochs, n=n, c=c, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for rows in dump.values():
        rows.x[np.arange(n), rows.y] += dtype(4.0)
    y = next(iter(dump.values())).y
    other = np.where(rng.random(n) < wrong, rng.integers(0, c, n), y)
    for rows in dump.values():
        rows.y = other
    return dump


def probabilities(rows, kind):
    """Return float64 probabilities of rows as they are in the dump."""
    x = rows.x.astype(np.float64)
    if kind == "probs":
        return x
    p = np.exp(x - x.max(axis=1, keepdims=True)) if kind == "logits" else np.exp(x)
    return p / p.sum(axis=1, keepdims=True) if kind == "logits" else p


def in_id_order(rows):
    return rows.take(np.argsort(rows.ids))


def source_of(dump):
    return {epoch: rows.arrays() for epoch, rows in dump.items()}


def assert_same_joint(found, wanted):
    for name in ("label", "latent", "count", "calibrated", "support", "issues"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    assert found.n_confident == wanted.n_confident
    np.testing.assert_allclose(found.thresholds, wanted.thresholds, rtol=1e-6)


def assert_same(a: Reread, b: Reread):
    """Compare to the byte."""
    assert (a.epoch, a.split, a.n, a.n_invalid) == (b.epoch, b.split, b.n, b.n_invalid)
    assert_same_joint(a.confident_joint, b.confident_joint)
    assert a.confident_joint.thresholds.tobytes() == b.confident_joint.thresholds.tobytes()
    assert a.issue_ids.equals(b.issue_ids)
    assert a.classwise_ece == b.classwise_ece
    assert to_bytes(a.classwise) == to_bytes(b.classwise)
    assert (a.ranking is None) == (b.ranking is None)
    if a.ranking is not None:
        assert to_bytes(a.ranking) == to_bytes(b.ranking)


# Against definitions and peers ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c", "dtype"), [(20, np.float32), (50, np.float64), (20, np.float16)])
def test_joint_equals_that_of_vectors_in_memory(kind, c, dtype):
    dump = {e: as_kind(rows, kind) for e, rows in noisy(1500, c, dtype=dtype).items()}
    run = fastdiv.analyze(source_of(dump), kind=kind)
    rows = in_id_order(dump[7])
    wanted = confident_joint(rows.y, probabilities(rows, kind))
    found = reread(source_of(dump), run, 7)
    assert len(wanted.issues) > 50
    assert_same_joint(found.confident_joint, wanted)
    assert found.issue_ids.to_pylist() == rows.ids[wanted.issues].tolist()
    assert run.split().ids(7).take(pa.array(found.confident_joint.issues)).equals(found.issue_ids)
    assert (found.epoch, found.split, found.n, found.n_invalid) == (7, None, 1500, 0)
    assert found.ranking is None


@pytest.mark.parametrize("c", [20, 50])
def test_joint_equals_that_of_cleanlab(c):
    count = pytest.importorskip("cleanlab.count")
    rows = as_kind(noisy(2000, c, seed=c, dtype=np.float64)[7], "probs")
    run = fastdiv.analyze({7: rows.arrays()})
    joint = reread({7: rows.arrays()}, run, 7).confident_joint
    rows = in_id_order(rows)
    raw = count.compute_confident_joint(rows.y, rows.x, calibrate=False)
    assert np.array_equal(joint.dense(), raw)
    np.testing.assert_allclose(
        joint.thresholds, count.get_confident_thresholds(rows.y, rows.x), rtol=1e-12
    )
    assert len(joint.issues) == count.num_label_issues(rows.y, rows.x)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real predictions in {DATA}")
def test_joint_of_real_predictions_equals_that_of_cleanlab():
    """20news: 20 classes, 7532 samples, float64 probabilities out of sample."""
    count = pytest.importorskip("cleanlab.count")
    p = np.load(DATA / "label_errors" / "20news_test_set_pyx.npy")
    y = np.load(DATA / "label_errors" / "20news_test_set_original_labels.npy")
    p = p / p.sum(axis=1, keepdims=True)
    run = fastdiv.analyze((p, y), kind="probs")
    found = reread((p, y), run, 0, curves="all")
    assert np.array_equal(
        found.confident_joint.dense(), count.compute_confident_joint(y, p, calibrate=False)
    )
    assert len(found.confident_joint.issues) == count.num_label_issues(y, p)
    assert_same_joint(found.confident_joint, confident_joint(y, p))
    check_classwise(found, p, y)
    # 74 % of the probabilities are 0, tied in one bin: that they are, bounds cannot know.
    check_ranking(found.ranking, p, y, range(20), widest=1e-2)


def check_classwise(found, p, y, atol=1e-9):
    """Compare with the definition, a class and a bin at a time."""
    n, c = p.shape
    t = found.classwise
    assert t["class"].to_pylist() == list(range(c))
    assert t["support"].to_pylist() == np.bincount(y, minlength=c).tolist()
    eces = np.zeros(c)
    for k in range(c):
        bins = np.clip(np.ceil(BINS * p[:, k]) - 1, 0, BINS - 1)
        for b in np.unique(bins):
            held = bins == b
            eces[k] += held.sum() / n * abs(p[held, k].mean() - (y[held] == k).mean())
    np.testing.assert_allclose(t["ece"], eces, rtol=0, atol=atol)
    np.testing.assert_allclose(t["probability"], p.mean(axis=0), rtol=0, atol=atol)
    np.testing.assert_allclose(t["frequency"], np.bincount(y, minlength=c) / n, rtol=1e-15)
    np.testing.assert_allclose(
        t["gap"], p.mean(axis=0) - np.bincount(y, minlength=c) / n, rtol=0, atol=atol
    )
    assert found.classwise_ece == pytest.approx(eces.mean(), abs=atol)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("c", [3, 20, 70])
def test_classwise_calibration_by_its_definition(kind, c):
    rows = as_kind(noisy(800, c, seed=3)[7], kind)
    run = fastdiv.analyze({7: rows.arrays()}, kind=kind)
    check_classwise(reread({7: rows.arrays()}, run, 7), probabilities(rows, kind), rows.y)


def test_probabilities_on_the_edges_of_bins():
    """Fifteenths lie in the bin below them, as `binned` has it, whatever fixed point makes."""
    p = np.arange(16)[:, None] / 15
    p = np.concatenate([p, 1 - p, np.zeros((16, 15))], axis=1)
    y = np.arange(16) % 2
    run = fastdiv.analyze((p, y), kind="probs")
    check_classwise(reread((p, y), run, 0), p, y)


def test_classwise_of_two_classes_is_that_of_the_stored_scores():
    rows = noisy(500, 2)[7]
    run = fastdiv.analyze({7: rows.arrays()})
    stored = calibration(run.split().side(7)).classwise
    found = reread({7: rows.arrays()}, run, 7).classwise
    assert found.schema == stored.schema
    for name in stored.column_names:
        np.testing.assert_allclose(found[name], stored[name], rtol=0, atol=1e-7)


def check_ranking(found, p, y, classes, widest=2e-3):
    """Compare with scikit-learn, class by class; bounds must hold, and be close."""
    rows = found.to_pylist()
    assert [row["class"] for row in rows] == [*classes, None, None]
    assert [row["average"] for row in rows[-2:]] == ["macro", "weighted"]
    aucs = []
    for row, k in zip(rows[:-2], classes, strict=True):
        positive = y == k
        assert row["positives"] == positive.sum()
        if not positive.any():
            assert row["roc_auc"] is None
            continue
        aucs.append(roc_auc_score(positive, p[:, k]))
        assert abs(row["roc_auc"] - aucs[-1]) <= row["roc_auc_error"] + 1e-12
        assert row["roc_auc_error"] < widest
        precision = average_precision_score(positive, p[:, k])
        low, high = row["average_precision_low"], row["average_precision_high"]
        assert low - 1e-12 <= precision <= high + 1e-12
        assert high - low < 0.05
    assert rows[-2]["roc_auc"] == pytest.approx(np.mean(aucs), abs=widest)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_against_scikit_learn(kind):
    c = 24
    rows = as_kind(noisy(1200, c, seed=5)[7], kind)
    rows.y = np.where(rows.y == 4, 5, rows.y)  # a class without samples
    run = fastdiv.analyze({7: rows.arrays()}, kind=kind)
    some = reread({7: rows.arrays()}, run, 7, curves=[9, "0", 4, 9]).ranking
    p = probabilities(rows, kind)
    check_ranking(some, p, rows.y, [9, 0, 4])
    every = reread({7: rows.arrays()}, run, 7, curves="all").ranking
    check_ranking(every, p, rows.y, range(c))
    by_index = {row["class"]: row for row in every.to_pylist() if row["class"] is not None}
    assert all(by_index[k] == row for k, row in zip([9, 0, 4], some.to_pylist(), strict=False))


def test_curves_are_those_of_stored_vectors():
    rows = noisy(700, 10, seed=2)[7]
    run = fastdiv.analyze({7: rows.arrays()})
    stored, found = run.split().ranking(7), reread({7: rows.arrays()}, run, 7, curves="all").ranking
    assert found.schema == stored.schema
    for name in ("roc_auc", "average_precision", "best_f1", "best_accuracy"):
        np.testing.assert_allclose(found[name].to_pylist(), stored[name].to_pylist(), atol=2e-3)


def test_logits_rank_where_probabilities_round_to_one():
    """Logits of 40 to 60 against the rest: p is 1 in float64, and tied."""
    n = 400
    rng = np.random.default_rng(0)
    x = np.zeros((n, 20))
    x[:, 0] = rng.uniform(40, 60, n)
    y = np.where(rng.random(n) < (x[:, 0] - 40) / 20, 0, 1)
    run = fastdiv.analyze((x, y), kind="logits")
    (row, *_) = reread((x, y), run, 0, curves=0).ranking.to_pylist()
    wanted = roc_auc_score(y == 0, x[:, 0])
    assert wanted > 0.7
    assert abs(row["roc_auc"] - wanted) <= row["roc_auc_error"] < 2e-3
    logp = (x - x[:, :1]).astype(np.float64)
    logp[:, 0] = -19 * np.exp(-x[:, 0])  # its log-softmax, to rounding
    run = fastdiv.analyze((logp, y), kind="logprobs")
    (row, *_) = reread((logp, y), run, 0, curves=0).ranking.to_pylist()
    assert abs(row["roc_auc"] - wanted) <= row["roc_auc_error"] < 2e-3


# Order, threads, layouts ------------------------------------------------------------------------


def test_neither_threads_nor_row_groups_nor_order_change_a_bit(tmp_path):
    dump = noisy(900, 30)
    wanted = None
    for rows_in_group in (900, 100, 37):
        folder = write_files(tmp_path / str(rows_in_group), dump, row_group_size=rows_in_group)
        run = fastdiv.analyze(folder)
        for threads in (1, 2, 5):
            found = reread(folder, run, 7, curves=range(5), threads=threads)
            wanted = wanted or found
            assert_same(found, wanted)
    shuffled = {e: rows.shuffled(e) for e, rows in dump.items()}
    assert_same(reread(source_of(shuffled), run, 7, curves=range(5)), wanted)


def test_nor_do_blocks_and_when_sums_are_carried(monkeypatch):
    rows = noisy(600, 20)[7]
    run = fastdiv.analyze({7: rows.arrays()})
    wanted = reread({7: rows.arrays()}, run, 7, curves=[3])
    monkeypatch.setattr(by_class, "VALUES_AT_ONCE", 7 * 20)
    monkeypatch.setattr(by_class, "MOST_UNCARRIED", 10)
    monkeypatch.setattr(by_class, "MOST_PENDING", 5)
    assert_same(reread({7: rows.arrays()}, run, 7, curves=[3]), wanted)


def test_states_of_parts_add_up():
    rows = noisy(500, 25)[7]
    p = probabilities(rows, "logits")
    thresholds = class_thresholds(rows.y, p[np.arange(500), rows.y], 25)
    whole, parts = ByClass.zero(thresholds, [2, 8]), [
        ByClass.zero(thresholds, [2, 8]) for _ in range(3)
    ]  # fmt: skip
    issues = []
    for first, block in blocks(rows.x, rows.y, Kind.LOGITS):
        issues += (first + whole.absorb(block)).tolist()
    for part, of in zip(parts, np.array_split(np.arange(500), 3), strict=True):
        for _, block in blocks(rows.x[of], rows.y[of], Kind.LOGITS):
            part.absorb(block)
    parts[0].merge(parts[2])
    parts[0].merge(parts[1])
    issues = np.array(issues)
    assert_same_joint(whole.confident_joint(issues), confident_joint(rows.y, p))
    assert_same_joint(parts[0].confident_joint(issues), whole.confident_joint(issues))
    assert to_bytes(parts[0].classwise()) == to_bytes(whole.classwise())
    assert np.array_equal(parts[0].curve_counts, whole.curve_counts)
    assert [state.positives for state in whole.curves()] == [(rows.y == k).sum() for k in (2, 8)]


def test_scores_against_the_rest():
    x = np.array([[0.0, 3.0, -np.inf], [800.0, 0.0, 1.0]])
    block = Block.of(x, np.array([0, 0]), Kind.LOGITS)
    found = block.against_rest(np.array([0, 1, 2]))
    assert found[:, 0].tolist() == pytest.approx([-3.0, 3.0, -np.inf])
    assert found[0, 1] == np.inf  # beyond what any bin tells apart
    p = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, -1e-7], [1.005, 0.0, 0.0]])
    found = Block.of(p, np.zeros(3, int), Kind.PROBS).against_rest(np.array([0, 2]))
    assert found[0].tolist() == pytest.approx([np.inf, -np.log(3), np.inf])
    assert found[1].tolist() == [-np.inf] * 3


def test_of_a_dump_with_everything_in_it(tmp_path):
    """Splits in a column, epochs in a column, invalid rows, infinite losses, string ids."""
    parts = {}
    for split, seed in (("train", 1), ("val", 2)):
        dump = make(epochs=(1, 2, 3), n=60, c=7, seed=seed)
        spoil(dump)
        parts[split] = dump
    tables = [
        table(rows, epoch=e, split=split, sample_id=np.array([f"s{i}" for i in rows.ids]))
        for e in (3, 1, 2)
        for split, dump in parts.items()
        for rows in (dump[e].shuffled(e),)
    ]
    path = write(pa.concat_tables(tables), tmp_path / "all.parquet", row_group_size=50)
    run = fastdiv.analyze(path)
    for split in ("train", "val"):
        for epoch in (1, 2, 3):
            rows = parts[split][epoch]
            (row,) = [
                r for r in run.epochs.to_pylist() if (r["split"], r["epoch"]) == (split, epoch)
            ]
            finite = np.isfinite(np.where(np.isneginf(rows.x), 0, rows.x)).all(axis=1)
            good = finite & (rows.x > -np.inf).any(axis=1) & (rows.y >= 0) & (rows.y < 7)
            rows = rows.take(good)
            rows = rows.take(np.argsort([f"s{i}" for i in rows.ids]))
            found = reread(path, run, epoch, split=split, curves=[0], threads=2)
            assert (found.n, found.n_invalid) == (row["n"] - row["n_invalid"], row["n_invalid"])
            p = probabilities(rows, "logits")
            assert_same_joint(found.confident_joint, confident_joint(rows.y, p))
            ids = [f"s{i}" for i in rows.ids[found.confident_joint.issues]]
            assert found.issue_ids.to_pylist() == ids
            check_classwise(found, p, rows.y)
    run.save(tmp_path / "run")
    again = reread(path, fastdiv.load(tmp_path / "run"), 3, curves=[0])
    assert_same(again, reread(path, run, 3, split="val", curves=[0]))


def test_a_part_of_the_source_is_enough(tmp_path):
    dump = noisy(300, 18)
    source = {"train": source_of(noisy(200, 18, seed=9)), "val": source_of(dump)}
    run = fastdiv.analyze(source)
    wanted = reread(source, run, 7)
    assert wanted.split == "val"
    assert_same(reread({7: dump[7].arrays()}, run, 7), wanted)
    assert_same(reread({"val": {7: dump[7].arrays()}}, run, 7), wanted)
    with pytest.raises(UsageError, match="no split 'val' of the epoch, only train"):
        reread({"train": source["train"]}, run, 7)
    with pytest.raises(UsageError, match="no epoch is selected: there are 3"):
        reread({3: dump[3].arrays()}, run, 7)
    reader = table(dump[7], epoch=7).to_reader()
    assert_same(reread(reader, run, 7, threads=2), wanted)


def test_epochs_by_name(tmp_path):
    dump = noisy(200, 20, epochs=(0, 1, 2))
    named = dict(
        zip(("best", "last", "swa"), (rows.arrays() for rows in dump.values()), strict=True)
    )
    run = fastdiv.analyze({None: named})
    wanted = reread({None: named}, run, "last")
    assert wanted.epoch == 1
    assert_same(reread({None: {"last": named["last"]}}, run, "last"), wanted)  # number 0 there
    assert_same(reread({None: {"last": named["last"]}}, run, 1), wanted)
    with pytest.raises(UsageError, match="no epoch is named 'first'"):
        reread({None: named}, run, "first")
    with pytest.raises(UsageError, match="no epoch of the source is named 'last': there are best"):
        reread({None: {"best": named["best"]}}, run, "last")
    column = pa.concat_tables(
        [table(Rows(*arrays), checkpoint=name) for name, arrays in named.items()]
    )
    run = fastdiv.analyze(column, epoch="checkpoint")
    assert_same(reread(column, run, "last", epoch_column="checkpoint"), wanted)


def test_by_position():
    rows = noisy(400, 20)[7]
    spoilt = rows.x.copy()
    spoilt[[0, 17]] = np.nan
    run = fastdiv.analyze({7: (spoilt, rows.y)})
    found = reread({7: (spoilt, rows.y)}, run, 7, threads=2)
    keep = np.delete(np.arange(400), [0, 17])
    wanted = confident_joint(rows.y[keep], probabilities(rows.take(keep), "logits"))
    assert_same_joint(found.confident_joint, wanted)
    assert found.issue_ids.to_pylist() == keep[wanted.issues].tolist()


def test_names_and_words_of_analyze(tmp_path):
    rows = noisy(120, 17)[7]
    names = [f"c{k}" for k in range(17)]
    data = table(rows, name="out", label=None, truth=np.array(names)[rows.y])
    path = write(data, tmp_path / "epoch_7.parquet")
    words = {"label": "truth", "predictions": ["out"], "class_names": names}
    run = fastdiv.analyze(path, **words)
    found = reread(path, run, 7, curves=["c3", "c16"], **words)
    assert found.ranking["class"].to_pylist() == ["c3", "c16", None, None]
    assert found.ranking["positives"].to_pylist()[:2] == [(rows.y == k).sum() for k in (3, 16)]
    assert reread(path, run, 7, curves="c3", **words).ranking.num_rows == 3
    with pytest.raises(UsageError, match=r"no class is named 'cat': there are c0, c1, .* … \(17\)"):
        reread(path, run, 7, curves="cat", **words)
    with pytest.raises(DataError, match=r"classes are named c16, c15, c14 … \(17\) here"):
        reread(path, run, 7, **{**words, "class_names": names[::-1]})
    with pytest.raises(UsageError, match="takes no 'lable', only class_names"):
        reread(path, run, 7, lable="truth")


def test_clipped_runs():
    rows = noisy(200, 20)[7]
    rows.x[:5] = -np.inf
    rows.x[np.arange(5), (rows.y[:5] + 1) % 20] = 0.0  # a loss of infinity, but clipped
    run = fastdiv.analyze({7: rows.arrays()}, clip=1e-4)
    found = reread({7: rows.arrays()}, run, 7)
    wanted = confident_joint(rows.y, probabilities(rows, "logits"))
    np.testing.assert_allclose(found.confident_joint.thresholds, wanted.thresholds, atol=1e-4)


def test_of_nothing_valid():
    x = np.full((4, 20), np.nan, np.float32)
    x[3] = 1.0
    source = {0: (x[3:], np.array([2]), np.array([9])), 1: (x[:3], np.arange(3), np.arange(3))}
    run = fastdiv.analyze(source, kind="logits")
    found = reread(source, run, 1, curves=[1])
    assert (found.n, found.n_invalid, found.classwise, found.classwise_ece) == (0, 3, None, None)
    assert (found.confident_joint.n, found.confident_joint.noise_rate) == (0, None)
    assert len(found.issue_ids) == 0
    assert found.ranking["roc_auc"].to_pylist() == [None] * 3
    one = reread(source, run, 0, curves=[2])
    assert (one.n, one.confident_joint.dense()[2, 2]) == (1, 1)


# Samples that come twice ------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_samples_that_come_twice_count_once(tmp_path, threads):
    rows = noisy(300, 20)[7]
    twice = rows.take(np.concatenate([np.arange(300), [5, 5, 299, 0]]))
    path = write(table(twice), tmp_path / "epoch_7.parquet", row_group_size=60)
    run = fastdiv.analyze(path)
    assert run.summary["splits"][0]["duplicates_by_epoch"] == {"7": 4}
    once = fastdiv.analyze({7: rows.arrays()})
    found = reread(path, run, 7, curves=[1], threads=threads)
    assert_same(found, reread({7: rows.arrays()}, once, 7, curves=[1]))


def test_the_first_row_counts_where_asked():
    rows = noisy(100, 20)[7]
    again = Rows(rows.x[:3] + 3 * rows.x[3:6], rows.y[:3], rows.ids[:3])
    source = pa.concat_tables([table(rows, epoch=7), table(again, epoch=7)])
    run = fastdiv.analyze(source, duplicates="first")
    wanted = reread({7: rows.arrays()}, fastdiv.analyze({7: rows.arrays()}), 7)
    assert_same(reread(source, run, 7), wanted)


def test_once():
    once = Once()
    assert once.first(np.array([5, 3, 5]), 3).tolist() == [0, 1]
    assert once.first(np.array([3, 9, 8, 9]), 4).tolist() == [1, 2]
    assert once.first(np.arange(100), 100).tolist() == [*range(3), 4, 6, 7, *range(10, 100)]
    names = Once()
    assert names.first(pa.array(["b", "a"], pa.large_string()), 2).tolist() == [0, 1]
    assert names.first(pa.array(["a", "c"], pa.large_string()), 2).tolist() == [1]


# What is refused --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused():
    dump = noisy(150, 20)
    return dump, fastdiv.analyze(source_of(dump))


def test_another_dump_is_refused(refused):
    dump, run = refused
    rows = dump[7]

    def again(x=rows.x, y=rows.y, ids=rows.ids, **words):
        return reread({7: (x, y, ids)}, run, 7, **words)

    assert again().n == 150
    not_it = "not the dump the run was made from: epoch 7 has "
    with pytest.raises(DataError, match=not_it + "149 valid samples here, 150 in the run"):
        reread({7: rows.take(slice(1, None)).arrays()}, run, 7)
    with pytest.raises(DataError, match=not_it + r"\d+ samples with label class"):
        again(y=(rows.y + 1) % 20)
    with pytest.raises(DataError, match=not_it + r"\d+ samples predicted as class"):
        again(x=-rows.x)
    flat = rows.x.copy()
    flat[:] = np.sort(flat, axis=1)[:, ::-1]  # other predictions, with labels that stay
    with pytest.raises(DataError, match=not_it + r"\d+ samples predicted as class 0"):
        again(x=flat)
    with pytest.raises(DataError, match=not_it + r"a mean loss of [\d.]+ nats here, [\d.]+ in"):
        again(x=rows.x * np.float32(1.01))
    infinite = rows.x.copy()
    wrong = np.flatnonzero(rows.x.argmax(axis=1) != rows.y)[0]
    infinite[wrong, rows.y[wrong]] = -np.inf
    with pytest.raises(DataError, match=not_it + "1 infinite losses here, 0 in the run"):
        again(x=infinite)
    with pytest.raises(DataError, match=not_it):  # the other epoch, in its place
        reread({7: dump[3].arrays()}, run, 7)
    with pytest.raises(DataError, match=r"sample \d+ is not in the run"):
        again(ids=rows.ids + 10_000)
    with pytest.raises(DataError, match="sample ids are large_string here, int64 in the run"):
        again(ids=np.array([f"s{i}" for i in rows.ids]))
    with pytest.raises(UsageError, match="told apart by position here, by ids in the run"):
        reread({7: (rows.x, rows.y)}, run, 7)
    with pytest.raises(DataError, match="19 classes here, 20 in the run"):
        again(x=rows.x[:, :19])
    with pytest.raises(UsageError, match="the kind is probs here, logits in the run"):
        again(x=as_kind(rows, "probs").x, kind="probs")


def test_an_issue_that_was_not_valid_is_refused():
    rows = noisy(150, 20)[7]
    issues = confident_joint(rows.y, probabilities(rows, "logits")).issues
    spoilt = rows.x.copy()
    spoilt[issues[0]] = np.nan
    run = fastdiv.analyze({7: (spoilt, rows.y, rows.ids)})
    other = rows.ids.copy()
    other[issues[:2]] = other[issues[1::-1]]  # the invalid sample has changed places with another
    with pytest.raises(DataError, match=f"sample {rows.ids[issues[0]]} is not valid in the run"):
        reread({7: (spoilt, rows.y, other)}, run, 7)


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (20, "there is no class 20: 20 classes are counted from 0"),
        ([1, -1], "there is no class -1"),
        ("cat", "no class is named 'cat': classes have no names"),
    ],
)
def test_unknown_classes_are_refused(refused, curves, message):
    dump, run = refused
    with pytest.raises(UsageError, match=message):
        reread(source_of(dump), run, 7, curves=curves)


def test_too_many_curves_are_refused():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(5, 300)), np.arange(5)
    run = fastdiv.analyze(arrays, kind="logits")
    with pytest.raises(UsageError, match="curves of all 300 classes would take 300 MiB: name up"):
        reread(arrays, run, 0, curves="all")
    with pytest.raises(UsageError, match="curves of 257 classes would take 257 MiB"):
        reread(arrays, run, 0, curves=range(257))


def test_epochs_and_splits_that_are_not_there_are_refused(refused):
    dump, run = refused
    with pytest.raises(UsageError, match="no scores of epoch 5 are stored: there are 3, 7"):
        reread(source_of(dump), run, 5)
    with pytest.raises(UsageError, match="there is no split 'test'"):
        reread(source_of(dump), run, 7, split="test")
    rolled = fastdiv.analyze(source_of(noisy(50, 20, epochs=(1, 2, 3))), scores="rolling")
    with pytest.raises(UsageError, match="no scores of epoch 1 are stored: there are 2, 3"):
        reread(source_of(noisy(50, 20, epochs=(1, 2, 3))), rolled, 1)


# Memory -----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_vectors(tmp_path):
    """What grows is a few numbers a sample, as the run's own scores; not 8 bytes a probability."""
    c, peaks = 400, []
    for n in (2_000, 10_000):
        rows = noisy(n, c, epochs=(7,))[7]
        path = write(table(rows), tmp_path / str(n) / "epoch_7.parquet", row_group_size=500)
        run = fastdiv.analyze(path)
        del rows
        tracemalloc.start()
        reread(path, run, 7, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 8_000 * 400  # of 8_000 * 400 * 8 bytes of probabilities
