"""What is kept of predictions, and the arrays that explanations are computed from."""

import json

import numpy as np
import pyarrow as pa
import pytest
from dumps import arrays, column, make
from sides import side_of

import fastdiv
from fastdiv.backends import resolve
from fastdiv.errors import UsageError
from fastdiv.explain.evidence import Evidence
from fastdiv_kernels.contract import profile_width


def evidence(run, i=0):
    names = run.summary["class_names"]
    found = Evidence(run._samples[i], names and tuple(names), resolve("cpu"))
    found.run = run  # whose files go with it
    return found


def sizes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*.scores"))


@pytest.mark.parametrize("classes", [2, 3, 16, 17])
def test_slim_scores_keep_21_bytes_and_all_what_verdicts_need(tmp_path, classes):
    dump = make((0, 1), 4096, classes)
    for scores, more in (("all", 2 * profile_width(classes)), ("slim", 0), ("rolling", None)):
        run = fastdiv.analyze(arrays(dump), scores=scores, output=tmp_path / scores)
        more = 2 * profile_width(classes) if more is None else more
        assert sizes(tmp_path / scores) == 2 * 4096 * (21 + more)
        known = scores != "slim" or classes == 2
        assert all((t is not None) == known for t in column(run, "temperature"))
        assert evidence(run).side(1).has_profile == known


def test_what_is_kept_does_not_change_the_other_tables():
    dump = make((0, 1, 2), 500, 5)
    whole, slim = (fastdiv.analyze(arrays(dump), scores=s) for s in ("all", "slim"))
    of_vectors = {"temperature", "temperature_bound", "refinement", "calibration"}
    names = [name for name in whole.epochs.column_names if name not in of_vectors]
    assert whole.epochs.select(names).equals(slim.epochs.select(names))
    for name in ("transitions", "samples", "classes"):
        assert getattr(whole, name).equals(getattr(slim, name))


def test_slim_scores_cannot_be_tempered_and_say_so():
    run = fastdiv.analyze(arrays(make((0,), 50, 3)), scores="slim")
    with pytest.raises(UsageError, match="--scores all"):
        evidence(run).side(0).temper(0.5)
    assert evidence(run).side(0).log_probabilities() is None


def test_runs_saved_before_vectors_were_kept_can_be_loaded(tmp_path):
    fastdiv.analyze(arrays(make((0,), 50, 3)), scores="slim", output=tmp_path / "run")
    path = tmp_path / "run" / "scores" / "0" / "store.json"
    meta = json.loads(path.read_text())
    del meta["profile_width"]
    path.write_text(json.dumps(meta))
    side = evidence(fastdiv.load(tmp_path / "run")).side(0)
    assert len(side) == 50
    assert not side.has_profile


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_a_side_is_what_the_kernels_find_in_the_order_of_ids(classes):
    dump = make((3, 5), 800, classes)
    run = fastdiv.analyze(arrays({e: rows.shuffled() for e, rows in dump.items()}))
    found = evidence(run)
    for epoch, rows in dump.items():
        order = np.argsort(np.asarray(rows.ids), kind="stable")
        wanted = side_of(rows.x[order], rows.y[order], epoch=epoch, kernels=resolve("cpu"))
        side = found.side(epoch)
        for name in ("labels", "loss", "correct", "predicted", "confidence", "margin", "brier"):
            np.testing.assert_array_equal(getattr(side, name), getattr(wanted, name), name)
        np.testing.assert_array_equal(side.profile, wanted.profile)
    assert found.ids.to_pylist() == sorted(np.asarray(rows.ids).tolist())


def test_a_pair_holds_what_is_valid_in_both_with_one_label():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 3)).astype("f4")
    bad = x.copy()
    bad[1] = np.nan
    y = np.array([0, 1, 2, 0, 1, 2])
    before = (x, y, np.array([10, 11, 12, 13, 14, 15]))
    after = (bad[:5], np.array([0, 1, 2, 1, 1]), np.array([10, 11, 12, 13, 99]))
    pair = evidence(fastdiv.analyze({0: before, 1: after})).pair(0, 1)
    assert pair.ids.to_pylist() == [10, 12]
    left_out = (pair.n_only_before, pair.n_only_after, pair.n_invalid, pair.n_relabelled)
    assert left_out == (2, 1, 1, 1)
    np.testing.assert_array_equal(pair.delta, [0.0, 0.0])
    assert pair.take(np.array([True, False])).ids.to_pylist() == [10]
    assert pair.take(np.array([1])).ids.to_pylist() == [12]


def test_an_epoch_that_is_not_there_is_named():
    found = evidence(fastdiv.analyze(arrays(make((0, 4), 20, 3))))
    assert found.epochs == [0, 4]
    with pytest.raises(UsageError, match="no scores of epoch 2 are stored: there are 0, 4"):
        found.pair(0, 2)


def test_probabilities_are_those_of_the_predictions():
    rng = np.random.default_rng(1)
    for classes in (2, 5, 16):
        x = rng.normal(size=(300, classes)).astype("f4") * 3
        y = rng.integers(0, classes, 300)
        wanted = x - np.log(np.exp(x.astype("f8")).sum(axis=1, keepdims=True))
        found = side_of(x, y).log_probabilities()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-2)
        np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0, rtol=1e-12)
        assert (found.argmax(axis=1) == x.argmax(axis=1)).mean() > 0.99
    x = rng.normal(size=(30, 17)).astype("f4")
    assert side_of(x, np.zeros(30)).log_probabilities() is None


def test_ids_of_any_type_order_the_samples():
    x = np.random.default_rng(2).normal(size=(4, 3)).astype("f4")
    table = pa.table(
        {"sample_id": ["b", "d", "a", "c"], "label": [0, 1, 2, 0], "logits": x.tolist()}
    )
    found = evidence(fastdiv.analyze(table))
    assert found.ids.to_pylist() == ["a", "b", "c", "d"]
    assert found.side(0).labels.tolist() == [2, 0, 0, 1]
