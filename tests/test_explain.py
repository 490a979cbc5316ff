"""Explanations of runs, however the run was made; and all that can be asked of a split."""

import json

import numpy as np
import pyarrow as pa
import pytest
from dumps import Rows, arrays, make, table, write_files

import fastdiv
from fastdiv.errors import UsageError
from fastdiv.explain.training.stretches import stretches


def world(n=3000, c=5, seed=1, sharper=3.0):
    """Return two epochs of logits: calibrated, then the same too sharp."""
    rng = np.random.default_rng(seed)
    z = rng.standard_t(4, (n, c)) * 1.5
    y = (z + rng.gumbel(size=(n, c))).argmax(axis=1)
    ids = rng.permutation(10 * n)[:n]
    shaken = z + rng.normal(0, 0.02, (n, c))
    return {e: Rows(x.astype("f4"), y, ids) for e, x in ((3, z), (8, sharper * shaken))}


def plain(made):
    return json.dumps(made.to_dict(), sort_keys=True)


@pytest.mark.parametrize("c", [2, 5, 40])
def test_overconfidence_is_named_and_the_account_adds_up(c):
    run = fastdiv.analyze(arrays(world(c=c)))
    made = run.explain(3, 8)
    assert made.quadrant == "loss_up_accuracy_flat"
    first = made.causes[0]
    assert first.name == "overconfidence"
    assert first.nats == pytest.approx(made.delta_loss, rel=0.1)
    total = sum(cause.nats for cause in made.causes) + sum(made.unnamed.values())
    assert total == pytest.approx(made.delta_loss, abs=1e-9)
    assert abs(made.closure_error) < 1e-9
    assert made.delta_refinement + made.delta_calibration == pytest.approx(made.delta_loss)
    assert made.delta_calibration == pytest.approx(made.delta_loss, rel=0.1)
    assert set(first.sample_ids) <= set(run.samples["sample_id"].to_pylist())


KEYS = {
    "epoch_from", "epoch_to", "quadrant", "delta_loss", "delta_accuracy", "delta_refinement",
    "delta_calibration", "significant", "causes", "findings",
}  # fmt: skip
OF_A_CAUSE = {
    "name", "nats", "share", "nats_alone", "nats_last", "points", "evidence", "advice",
}  # fmt: skip


def test_the_keys_for_machines_are_there_and_json_can_hold_them():
    run = fastdiv.analyze(arrays(world()))
    made = json.loads(json.dumps(run.explain(3, 8).to_dict(), allow_nan=False))
    assert made.keys() >= KEYS
    assert all(cause.keys() >= OF_A_CAUSE for cause in made["causes"])


def test_nothing_about_how_rows_come_changes_an_explanation(tmp_path):
    dump = world()
    wanted = plain(fastdiv.analyze(arrays(dump), threads=1).explain(3, 8))
    for seed in (1, 2):
        shuffled = {e: rows.shuffled(seed + e) for e, rows in dump.items()}
        run = fastdiv.analyze(arrays(shuffled), threads=3)
        assert plain(run.explain(3, 8)) == wanted
    files = write_files(tmp_path / "dump", dump, row_group_size=500)
    run = fastdiv.analyze(files, output=tmp_path / "run")
    assert plain(run.explain(3, 8)) == wanted
    assert plain(fastdiv.load(tmp_path / "run").explain(3, 8)) == wanted
    rolling = fastdiv.analyze(arrays(dump), scores="rolling")
    assert plain(rolling.explain(3, 8)) == wanted


def test_a_tracker_is_explained_as_a_dump():
    dump = world(n=600)
    tracker = fastdiv.Tracker(kind="logits")
    for epoch, rows in dump.items():
        for some in np.array_split(np.arange(600), 7):
            tracker.update(*rows.take(some).arrays())
        tracker.end_epoch(epoch)
    wanted = fastdiv.analyze(arrays(dump), kind="logits")
    assert plain(tracker.run().explain(3, 8)) == plain(wanted.explain(3, 8))


def test_slim_scores_make_a_poorer_verdict_and_say_so():
    run = fastdiv.analyze(arrays(world()), scores="slim")
    made = run.explain(3, 8)
    assert made.approximate
    assert made.causes[0].name == "overconfidence"
    assert not fastdiv.analyze(arrays(world(c=2)), scores="slim").explain(3, 8).approximate


def test_without_epochs_the_stretch_that_matters_most_is_explained():
    run = fastdiv.analyze(arrays(world()))
    view = run.split()
    first = view.stretches()[0]
    assert plain(run.explain()) == plain(run.explain(first.epoch_from, first.epoch_to))
    with pytest.raises(UsageError, match="both epochs"):
        run.explain(3)
    one = fastdiv.analyze({0: world()[3].arrays()})
    with pytest.raises(UsageError, match="no two epochs"):
        one.explain()


def row(epoch, loss, accuracy):
    return {"epoch": epoch, "loss_finite": loss, "accuracy": accuracy}


def test_stretches_are_between_the_best_epochs_and_where_both_move_together():
    loss = [1.0, 0.8, 0.7, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95, 1.0]
    accuracy = [0.5, 0.6, 0.65, 0.7, 0.72, 0.74, 0.76, 0.78, 0.8, 0.79]
    found = stretches([row(e, *x) for e, x in enumerate(zip(loss, accuracy, strict=True))])
    pairs = [(s.epoch_from, s.epoch_to) for s in found]
    assert pairs[0] == (3, 8)  # the lowest loss, the highest accuracy
    assert (3, 9) in pairs  # the last epoch
    assert len(set(pairs)) == len(pairs)
    both = [row(e, 1 - 0.1 * e, 0.9 - 0.05 * e) for e in range(5)]
    assert [(s.epoch_from, s.epoch_to) for s in stretches(both)] == [(0, 4)]
    late = [row(e, 1 - 0.1 * abs(4 - e), 0.9 - 0.05 * abs(4 - e)) for e in range(9)]
    assert {"loss and accuracy rose together", "both fell together"} <= {
        s.why for s in stretches([row(9, 0.5, 0.95), *late])
    }
    assert stretches([row(0, 1.0, 0.5)]) == []
    assert stretches([row(0, None, None), row(1, 1.0, 0.5)]) == []
    best = [row(0, 2.0, 0.1), row(1, 1.0, 0.5)]
    assert [(s.epoch_from, s.epoch_to) for s in stretches(best)] == [(0, 1)]


def test_training_beside_validation_is_called_by_its_name():
    rng = np.random.default_rng(0)
    n, c = 400, 3
    train, val = {}, {}
    y = rng.integers(0, c, n)
    for epoch in range(12):
        for dump, right in ((train, 1.0), (val, 0.8)):
            z = rng.normal(0, 0.3, (n, c))
            z[np.arange(n), np.where(rng.random(n) < right, y, (y + 1) % c)] += 0.8 * epoch
            dump[epoch] = (z.astype("f4"), y, np.arange(n))
    run = fastdiv.analyze({"train": train, "val": val})
    made = run.explain()
    assert made.split == "val"
    (found,) = [f for f in made.findings if f.name == "overfitting"]
    assert "over-fitting" in found.sentence
    assert found.statistic["train_loss_change"] < 0 < found.statistic["val_loss_change"]
    assert run.split("train").split == "train"
    assert [view.split for view in run.views()] == ["val"]
    with pytest.raises(UsageError, match="no split 'test': there are"):
        run.split("test")


def test_splits_are_compared_over_the_samples_that_both_hold():
    first, second = make((0, 1), 60, 3).values()
    train = {e: r.take(np.arange(0, 40)).arrays() for e, r in ((0, first), (1, second))}
    val = {e: r.take(np.arange(20, 60)).arrays() for e, r in ((0, second), (1, second))}
    run = fastdiv.analyze({"train": train, "val": val})
    found = run.split("val").beside("train", 0)
    same = fastdiv.score(first.x[20:40], first.y[20:40], kind="logits")
    other = fastdiv.score(second.x[20:40], second.y[20:40], kind="logits")
    assert found.n == 20
    assert found.delta_loss == pytest.approx((other.loss - same.loss).mean(), abs=1e-6)
    assert found.delta_accuracy == pytest.approx(other.correct.mean() - same.correct.mean())
    assert run.split("val").beside("train", 1).delta_loss == 0
    gaps = run.split("val").gap().to_pylist()
    assert [g["epoch"] for g in gaps] == [0, 1]
    rows = {(r["split"], r["epoch"]): r["loss"] for r in run.epochs.to_pylist()}
    assert gaps[0]["loss_gap"] == pytest.approx(rows["val", 0] - rows["train", 0])
    assert run.split("val").overfitting("train").last_epoch == 1
    with pytest.raises(UsageError, match="no split 'test'"):
        run.split("val").gap("test")
    with pytest.raises(UsageError, match="no split for training"):
        fastdiv.analyze(arrays(make((0, 1), 20, 3))).split().gap()


def test_a_moved_threshold_is_found_where_the_ranking_did_not_change():
    rng = np.random.default_rng(0)
    n = 4000
    p = 1.5 * rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-p))).astype(int)
    before = np.stack([np.zeros(n), p], axis=1).astype("f4")
    after = before + np.array([0, 1.5], "f4")
    made = fastdiv.analyze({0: (before, y), 1: (after, y)}).explain(0, 1)
    assert made.causes[0].name == "threshold"
    (found,) = [f for f in made.findings if f.name == "ranking_unchanged"]
    assert found.statistic["delta_auc"] == pytest.approx(0, abs=1e-9)
    assert found.statistic["threshold_after"] == pytest.approx(0.82, abs=0.06)


def test_everything_can_be_asked_of_a_split():
    dump = make((0, 1, 2), 200, 3)
    run = fastdiv.analyze(arrays(dump))
    view = run.split()
    rows = run.epochs.to_pylist()
    assert len(view.side(0)) == len(view.pair(0, 1)) == 200
    account = view.accounts(0, 2)["loss"]["by_cell"]
    assert account["total"] == pytest.approx(rows[2]["loss"] - rows[0]["loss"], abs=1e-6)
    assert view.calibration(1).ece == pytest.approx(rows[1]["ece"], abs=1e-6)
    assert view.reliability(1)["n"].to_numpy().sum() == 200
    assert view.murphy(1).closure_error == pytest.approx(0, abs=1e-12)
    change = view.refinement_change(0, 2)
    for name in ("refinement", "calibration"):
        wanted = rows[2][name] - rows[0][name]
        assert getattr(change, f"delta_{name}") == pytest.approx(wanted, abs=1e-4)
    worst = view.concentration(2).worst
    assert worst["loss"][0].as_py() == pytest.approx(view.side(2).loss.max())
    assert set(worst["sample_id"].to_pylist()) <= set(view.ids(2).to_pylist())
    assert len(view.concentration_of_change(0, 2).worst) == 20
    assert view.class_report(1).num_rows == 3 + 3
    assert view.imbalance(1).balanced_accuracy == pytest.approx(rows[1]["balanced_accuracy"])
    assert view.imbalance(1).mcc == pytest.approx(rows[1]["mcc"])
    n_wrong = sum(r["n"] for r in view.confusions(1).to_pylist())
    assert n_wrong == round(200 * (1 - rows[1]["accuracy"]))
    parts = view.change_by_class(0, 2).to_pylist()
    assert sum(p["delta_loss"] for p in parts) == pytest.approx(account["total"])
    assert view.ranking(1).num_rows == 3 + 2
    assert view.ranking_change(0, 2).delta_auc > 0
    assert view.suspects().num_rows <= 200
    assert view.confident_joint(1).n == 200
    assert sum(view.regions()["n"].to_pylist()) >= 200
    assert view.forgetting().n == 200
    assert sum(view.oscillation()["n"].to_pylist()) == 200
    assert view.flips().num_rows == 2
    some = view.subset(np.arange(10), 0, 2).to_pylist()
    assert [r["n"] for r in some] == [10, 10]
    by_id = view.subset(view.pair(0, 2).ids[:10], 0, 2).to_pylist()
    assert by_id == some
    assert [c.epoch_to for c in view.changes()] == [1, 2]
    assert view.change(0, 2).quadrant == view.explain(0, 2).quadrant
    assert view.best_epochs()["epoch_lowest_loss"] == 2


def test_counterfactuals_of_an_epoch():
    rng = np.random.default_rng(0)
    n = 2000
    z = 3 * rng.normal(size=(n, 2)).astype("f4")
    y = (rng.random(n) < 1 / (1 + np.exp(-(z[:, 1] - z[:, 0]) / 3 - 1))).astype(int)
    run = fastdiv.analyze({0: (z, y)})
    made = {r["name"]: r for r in run.split().counterfactuals(0).to_pylist()}
    as_is = run.epochs.to_pylist()[0]
    assert made["as_is"]["loss"] == pytest.approx(as_is["loss"])
    assert made["best_temperature"]["loss"] == pytest.approx(as_is["refinement"], abs=1e-5)
    assert made["best_temperature"]["accuracy"] == made["as_is"]["accuracy"]
    assert made["best_threshold"]["accuracy"] > made["as_is"]["accuracy"] + 0.02
    side = run.split().side(0)
    kept = np.sort(side.loss)[: n - 20]
    assert made["without_worst_1%"]["loss"] == pytest.approx(kept.mean())
    assert made["without_worst_1%"]["n"] == n - 20
    equal = np.mean([side.loss[side.labels == k].mean() for k in (0, 1)])
    assert made["equal_classes"]["loss"] == pytest.approx(equal)
    assert made["without_suspects"]["loss"] < as_is["loss"]


def test_epochs_by_name():
    dump = world(n=300)
    source = {"base": dump[3].arrays(), "tuned": dump[8].arrays()}
    run = fastdiv.analyze(source, epoch_per_path=True)
    made = run.explain("base", "tuned")
    assert (made.epoch_from, made.epoch_to) == (0, 1)
    with pytest.raises(UsageError, match="no epoch is named 'other'"):
        run.explain("base", "other")


def test_samples_left_out_are_counted():
    dump = world(n=100)
    x = dump[8].x.copy()
    x[0] = np.nan
    probs = {e: np.exp(r.x - r.x.max(1, keepdims=True)) for e, r in dump.items()}
    del probs
    y = dump[8].y.copy()
    y[1] = (y[1] + 1) % 5
    x[2, dump[8].y[2]] = -np.inf
    run = fastdiv.analyze({3: dump[3].arrays(), 8: (x, y, dump[8].ids)})
    made = run.explain(3, 8)
    assert (made.n_invalid, made.n_relabelled, made.n_infinite_after) == (1, 1, 1)
    assert made.n == 97
    assert any(f.name == "infinite" for f in made.findings)


# The command line ---------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    fastdiv.analyze(arrays(world(n=1500)), output=tmp_path / "run")
    return str(tmp_path / "run")


def test_explain_on_the_command_line(cli, saved):
    ended = cli("explain", saved)
    assert ended.code == 0, ended.err
    assert "overconfidence" in ended.out
    assert "Try: " in ended.out
    made = json.loads(cli("explain", saved, "3", "8", "--json").out)
    assert made[0]["causes"][0]["name"] == "overconfidence"
    assert (made[0]["epoch_from"], made[0]["epoch_to"]) == (3, 8)
    for wrong, words in ((("3",), "give both"), (("3", "5"), "no scores of epoch 5")):
        ended = cli("explain", saved, *wrong)
        assert ended.code == 2
        assert words in ended.err.lower()


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("loss > +5%", 1),
        ("loss > +5000%", 0),
        ("accuracy < -5 points", 0),
        ("negative_flip_rate > 0.1%", 1),
        ("top5_accuracy < 0.1", 1),  # five classes have none: what is not known fails
        ("nonsense > 3", 2),
        ("loss >> 3", 2),
    ],
)
def test_check_on_the_command_line(cli, saved, rule, code):
    ended = cli("check", saved, "--fail-if", rule)
    assert ended.code == code, ended.out + ended.err
    ended = cli("check", saved, "--fail-if", rule, "--fail-if", "n < 1", "--json")
    assert ended.code == code
    if code < 2:
        assert [o["failed"] for o in json.loads(ended.out)] == [bool(code), False]
    if code < 2:
        assert cli("check", saved, "--fail-if", rule, "--quiet").out == ""


def test_check_between_named_epochs(cli, saved):
    ended = cli("check", saved, "--fail-if", "loss > +5%", "--from", "8", "--to", "3")
    assert ended.code == 0
    ended = cli("check", saved, "--fail-if", "loss > +5%", "--to", "4")
    assert ended.code == 2
    assert "no epoch 4: there are 3, 8" in ended.err
    ended = cli("check", saved, "--fail-if", "loss > +5%", "--to", "3")
    assert ended.code == 1, "there is no epoch before: what cannot be checked fails"


def test_a_table_of_explanations_of_ids_that_are_strings():
    dump = world(n=400)
    tables = {
        e: table(r, sample_id=pa.array([f"s{i:05}" for i in r.ids.tolist()]))
        for e, r in dump.items()
    }
    made = fastdiv.analyze(tables).explain(3, 8)
    assert all(isinstance(i, str) for i in made.causes[0].sample_ids)
