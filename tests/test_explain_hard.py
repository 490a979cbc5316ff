"""Explanations where something is out of the ordinary."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dumps import arrays, make
from sides import pair_of

import fastdiv
from fastdiv.errors import DataError
from fastdiv.explain.verdict.explain import explain_pair


def logits(n, c, skill, seed):
    """Return logits that tell the label by `skill`, and labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, c, n)
    z = rng.normal(size=(n, c))
    z[np.arange(n), y] += skill
    return z.astype("f4"), y


@pytest.mark.parametrize("c", [2, 3, 17])
@pytest.mark.parametrize("scores", ["all", "slim", "rolling"])
def test_a_tracker_keeps_what_it_is_told_to(c, scores):
    dump = make((0, 1), 60, c)
    tracker = fastdiv.Tracker(kind="logits", scores=scores)
    for epoch, rows in dump.items():
        tracker.update(*rows.take(slice(0, 30)).arrays())
        tracker.update(*rows.take(slice(30, 60)).arrays())
        tracker.end_epoch(epoch)
    wanted = fastdiv.analyze(arrays(dump), kind="logits", scores=scores)
    assert tracker.run().epochs.equals(wanted.epochs)
    assert tracker.run().explain(0, 1).to_dict() == wanted.explain(0, 1).to_dict()
    other = fastdiv.Tracker(kind="logits", scores=scores)
    if scores != "rolling":
        other.merge_state(tracker.state_dict())
        assert other.run().epochs.equals(wanted.epochs)


@pytest.mark.parametrize("back", [False, True])
def test_learning_from_scratch_and_collapse_are_separation(back):
    before, y = logits(2000, 10, 0.0, 1)
    after, _ = logits(2000, 10, 6.0, 1)
    pair = pair_of(after, 0.01 * before, y) if back else pair_of(before, after, y)
    made = explain_pair(pair)
    assert made.causes[0].name == "separation"
    assert made.causes[0].points == pytest.approx(made.delta_accuracy, abs=0.05)
    words = "more errors" if back else "fewer errors"
    assert words in made.causes[0].evidence


def test_a_change_in_accuracy_is_told_even_where_the_loss_moved_more():
    rng = np.random.default_rng(0)
    n, c = 6000, 5
    z = rng.standard_t(4, (n, c)) * 1.5
    y = (z + rng.gumbel(size=(n, c))).argmax(axis=1)
    after = z + rng.normal(0, 0.02, (n, c))
    top2 = np.sort(z, axis=1)
    near = np.flatnonzero((top2[:, -1] - top2[:, -2] < 0.5) & (z.argmax(axis=1) == y))[:400]
    second = np.argsort(z[near], axis=1)[:, -2]
    after[near, second], after[near, y[near]] = after[near, y[near]], after[near, second]
    made = explain_pair(pair_of(z.astype("f4"), (4 * after).astype("f4"), y))
    assert made.causes[0].name == "overconfidence"
    assert made.quadrant == "loss_up_accuracy_down"
    told = sum(cause.points for cause in made.causes)
    assert told < 0.5 * made.delta_accuracy < 0


def test_a_bias_of_balanced_classes_is_no_imbalance():
    z, y = logits(5000, 5, 2.0, 3)
    shifted = z + np.array([0, 0, 1.5, 0, 0], "f4")
    y = np.arange(5000) % 5
    z[np.arange(5000), y] += 2
    shifted = z + np.array([1.5, 0, 0, 0, 0], "f4")
    made = explain_pair(pair_of(z, shifted, y))
    names = [cause.name for cause in made.causes]
    assert "class_bias" in names
    assert "imbalance" not in names


def test_samples_that_become_infinite_are_what_moved_accuracy():
    rng = np.random.default_rng(4)
    n = 1500
    p = rng.dirichlet(np.ones(4), n).astype("f4")
    y = np.array([rng.choice(4, p=row / row.sum()) for row in p.astype("f8")])
    after = p.copy()
    gone = np.flatnonzero(p.argmax(axis=1) == y)[:150]
    after[gone] = np.eye(4, dtype="f4")[(y[gone] + 1) % 4]
    made = explain_pair(pair_of(p, after, y, "probs"))
    assert [cause.name for cause in made.causes] == ["infinite"]
    assert made.causes[0].points == pytest.approx(-0.1)
    assert "n_infinite_after" in made.to_dict()


def test_clipped_losses_are_told_from_infinite_ones():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 3000).astype("f4")
    y = p.argmax(axis=1)
    after = p.copy()
    after[:200] = np.eye(3, dtype="f4")[(y[:200] + 1) % 3]
    run = fastdiv.analyze({0: (p, y), 1: (after, y)}, kind="probs", clip=1e-3)
    made = run.explain(0, 1)
    assert made.causes[0].name == "clipped"
    assert not any("infinite" in f.sentence for f in made.findings)
    row = run.epochs.to_pylist()[1]
    assert row["calibration"] >= 0
    change = run.split().refinement_change(0, 1)
    assert change.after.calibration == pytest.approx(row["calibration"], abs=1e-3)


def test_the_class_that_a_bias_is_on_is_the_one_that_is_named():
    rng = np.random.default_rng(1)
    n = 2700
    y = np.r_[np.zeros(1500, int), np.ones(1200, int)]
    z = np.stack([np.zeros(n), np.where(y == 1, 1.0, -1.0) + rng.logistic(size=n)], axis=1)
    after = z + np.array([0.0, 3.0])
    after[:700] = [-np.inf, 0.0]  # of class 0, which the finite samples have less of
    made = explain_pair(pair_of(z.astype("f4"), after.astype("f4"), y))
    (cause,) = [c for c in made.causes if c.name in ("threshold", "imbalance")]
    assert "class 1" in cause.evidence
    assert "too high; before" in cause.evidence


@pytest.mark.parametrize("ids", ["bytes", "uuid", "text"])
def test_ids_of_any_type_go_into_json(ids):
    z, y = logits(400, 3, 2.0, 0)
    raw = [bytes([255, i // 256, i % 256]) for i in range(400)]
    values = pa.array([i.hex() for i in raw]) if ids == "text" else pa.array(raw, pa.binary(3))
    if ids == "uuid":
        values = pa.array([i.rjust(16, b"\0") for i in raw], pa.binary(16))
    tables = {
        e: pa.table({"sample_id": values, "label": y, "logits": list(x)})
        for e, x in enumerate((z, 3 * z))
    }
    made = fastdiv.analyze(tables).explain(0, 1)
    found = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert all(i.lower().endswith(i[-4:]) for i in found["causes"][0]["sample_ids"])
    assert "b'" not in str(made)


def test_epochs_with_nothing_in_common_have_no_cause():
    (x, y, _), (x2, y2, _) = (rows.arrays() for rows in make((0, 1), 30, 3).values())
    run = fastdiv.analyze({0: (x, y, np.arange(30)), 1: (x2, y2, np.arange(100, 130))})
    made = run.explain(0, 1)
    assert made.causes == ()
    assert "nothing to compare" in str(made)
    assert "30 are in the first alone, 30 in the second alone" in str(made)


def test_identical_epochs_say_that_nothing_changed():
    z, y = logits(100, 3, 1.0, 0)
    made = fastdiv.analyze({0: (z, y), 1: (z, y)}).explain(0, 1)
    assert [cause.name for cause in made.causes] == ["noise"]
    assert made.causes[0].evidence == "nothing changed"


def test_an_epoch_with_infinite_losses_is_not_the_one_of_lowest_loss():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [1.0, 0.0]], "f4")
    q = np.full((3, 2), 0.5, "f4")
    run = fastdiv.analyze({0: (p, [0, 0, 1]), 1: (q, [0, 0, 1])}, kind="probs")
    assert run.summary["splits"][0]["epoch_lowest_loss"] == 1
    both = fastdiv.analyze({0: (p, [0, 0, 1]), 1: (p, [0, 1, 1])}, kind="probs")
    assert both.summary["splits"][0]["epoch_lowest_loss"] == 0


def test_rolling_runs_have_suspects():
    run = fastdiv.analyze(arrays(make(range(6), 50, 3)), scores="rolling")
    assert run.split().suspects().num_rows >= 0


def test_one_vs_rest_of_many_classes_takes_no_room():
    z = np.zeros((4, 50_000), "f4")
    view = fastdiv.analyze({0: (z, [0, 1, 2, 3])}, kind="logits").split()
    assert view.ranking(0) is None
    assert view.confident_joint(0) is None


def test_runs_of_the_version_before_are_explained(tmp_path):
    dump = make((0, 1), 80, 3)
    path = tmp_path / "run"
    both = {"train": arrays(dump), "val": arrays(dump)}
    fastdiv.analyze(both, scores="slim", output=path)
    epochs = pq.read_table(path / "epochs.parquet")
    new = epochs.column_names[epochs.column_names.index("ece") + 1 :]
    pq.write_table(epochs.drop_columns(new), path / "epochs.parquet")
    made = fastdiv.load(path).explain(0, 1)
    assert made.approximate
    assert "vectors were not kept" in str(made)


@pytest.mark.parametrize(("name", "value"), [("block", 0), ("block", 100), ("profile_width", -1)])
def test_a_saved_store_that_cannot_have_been_written_is_refused(tmp_path, name, value):
    fastdiv.analyze(arrays(make((0,), 20, 3)), output=tmp_path / "run")
    path = tmp_path / "run" / "scores" / "0" / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(DataError, match="the saved run is damaged"):
        fastdiv.load(tmp_path / "run")
