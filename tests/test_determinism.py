"""The same samples are the same tables, bit for bit, whatever the order and the pieces are."""

from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest
from dumps import (
    Rows,
    arrays,
    as_kind,
    assert_same,
    column,
    make,
    spoil,
    table,
    whole,
    write,
    write_files,
)

import fastdiv
from fastdiv import scan, scoring, store, tables
from fastdiv.sources import layout, memory
from fastdiv.states import RowTotals

EPOCHS = (0, 3, 4)
NAMES = [field.name for field in fields(fastdiv.Scores) if field.name != "profile"]


def hard(dtype=np.float32):
    """Return {split: {epoch: Rows}} with all that may go wrong in a dump, and far losses."""
    both = {"train": make(EPOCHS, n=150, c=7, dtype=dtype), "val": make(EPOCHS, 70, 7, 1, dtype)}
    for dump in both.values():
        next(iter(dump.values())).x[:9] *= [
            [1e-6], [1e-3], [1], [10], [40], [100], [1e3], [3e3], [1e-5]
        ]  # fmt: skip
        spoil(dump)
    return both


def as_table(both):
    return pa.concat_tables([whole(dump, split=name) for name, dump in both.items()])


@pytest.fixture(scope="module")
def data():
    return as_table(hard())


@pytest.fixture(scope="module")
def wanted(data):
    run = fastdiv.analyze(data)
    for name in ("n_infinite", "n_invalid", "n_relabelled", "n_only_from", "n_only_to"):
        assert any(column(run, name, "transitions")), f"no {name}: not a hard case"
    return run


@pytest.fixture(scope="module")
def mixed(data):
    return data.take(np.random.default_rng(0).permutation(len(data)))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_threads_and_row_groups(tmp_path, data, mixed, wanted, threads, rows):
    for t in (data, mixed):
        path = write(t, tmp_path / "a.parquet", row_group_size=rows)
        assert_same(fastdiv.analyze(path, threads=threads), wanted)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_rows(data, wanted, seed):
    t = data.take(np.random.default_rng(seed).permutation(len(data)))
    assert_same(fastdiv.analyze(t), wanted)
    backwards = t.take(np.arange(len(t))[::-1])
    assert_same(fastdiv.analyze(backwards), wanted)


@pytest.mark.parametrize("rows", [1, 5, 64, 65])
def test_chunks(mixed, wanted, rows):
    pieces = [mixed.slice(start, rows) for start in range(0, len(mixed), rows)]
    assert_same(fastdiv.analyze(pa.concat_tables(pieces)), wanted)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_files(tmp_path, mixed, wanted, seed):
    numbers = np.random.default_rng(seed).permutation(20)
    for i, start in enumerate(range(0, len(mixed), 40)):
        piece = mixed.slice(start, 40)
        write(piece, tmp_path / f"part-{numbers[i]}.parquet", row_group_size=1 + i)
    assert_same(fastdiv.analyze(tmp_path), wanted)
    files = [str(path) for path in tmp_path.glob("*.parquet")]
    assert_same(fastdiv.analyze(files[::-1], threads=3), wanted)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_and_blocks(tmp_path, monkeypatch, data, mixed, wanted, size):
    """Pieces are as small as the code can be told to make them."""
    monkeypatch.setattr(layout, "BATCH_ROWS", size)
    monkeypatch.setattr(memory, "RUN_ROWS", 2 * size + 1)
    monkeypatch.setattr(store, "LARGEST_BLOCK", 4)
    monkeypatch.setattr(store, "SMALLEST_BLOCK", 1)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", size)
    monkeypatch.setattr(scoring, "PIECE_BYTES", 1)
    for t in (data, mixed):
        assert_same(fastdiv.analyze(t), wanted)
        assert_same(fastdiv.analyze(write(t, tmp_path / "a.parquet", row_group_size=150)), wanted)


@pytest.mark.parametrize("scores", ["all", "rolling"])
@pytest.mark.parametrize("again", [False, True])
def test_totals_made_while_scoring_are_those_of_the_store(monkeypatch, scores, again):
    """Rows that agree with others of their sample count once, though all of them were scored."""
    dump = make(EPOCHS, n=300, c=7, dtype=np.float64)
    spoil(dump)
    if again:
        dump[EPOCHS[1]] = dump[EPOCHS[1]].take([*range(200), *range(50, 200)])
    data = {epoch: rows.arrays() for epoch, rows in dump.items()}
    monkeypatch.setattr(layout, "BATCH_ROWS", 64)
    made = []
    carried, commit = RowTotals.carried, scan.Scan.commit
    monkeypatch.setattr(RowTotals, "carried", lambda self: made.append(self) or carried(self))
    run = fastdiv.analyze(data, kind="logits", scores=scores)
    assert len(made) == (2 if again else 3)
    monkeypatch.setattr(scan.Scan, "commit", lambda *arguments, totals: commit(*arguments))
    assert_same(fastdiv.analyze(data, kind="logits", scores=scores), run)
    assert len(made) == (2 if again else 3)


def test_more_epochs_than_files_are_kept_open(monkeypatch):
    dump = make(range(70), n=20)
    t = whole(dump)
    mixed = t.take(np.random.default_rng(0).permutation(len(t)))
    run = fastdiv.analyze(mixed)
    assert_same(run, fastdiv.analyze(arrays(dump)))
    monkeypatch.setattr(store, "OPEN_FILES", 1)
    few = fastdiv.analyze(mixed)
    assert_same(few, run)
    assert few.compare(69, 0).equals(run.compare(69, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes(tmp_path, dtype):
    t = as_table(hard(dtype))
    wanted = fastdiv.analyze(t, threads=1)
    mixed = t.take(np.random.default_rng(0).permutation(len(t)))
    assert_same(fastdiv.analyze(mixed, threads=5), wanted)
    assert_same(fastdiv.analyze(write(mixed, tmp_path / "a.parquet", row_group_size=7)), wanted)


@pytest.mark.parametrize("kind", ["logits", "probs", "logprobs"])
@pytest.mark.parametrize("c", [2, 7, 100])
def test_scores_do_not_depend_on_their_neighbours(monkeypatch, kind, c):
    """Each row alone, and after others, bad ones first of all, by every number of threads."""
    rows = as_kind(make(n=300, c=c)[0], kind)
    bad = {0: np.nan, 40: -np.inf, 128: np.inf, 130: np.nan, 200: 3.0, 256: -np.inf, 270: np.nan}
    for row, value in bad.items():
        rows.x[row] = value
    rows.x[[1, 131, 271], 0] = np.nan
    one = [fastdiv.score(rows.x[i : i + 1], rows.y[i : i + 1], kind=kind) for i in range(300)]
    parts = zip(*(scores.arrays() for scores in one), strict=True)
    alone = [np.concatenate(values) for values in parts]
    order = np.random.default_rng(0).permutation(300)
    monkeypatch.setattr(scoring, "PIECE_BYTES", 150 * c * 4)
    for rank in (np.arange(300), order, np.argsort(order)):
        for threads in (1, 2, 5):
            found = fastdiv.score(rows.x[rank], rows.y[rank], kind=kind, threads=threads)
            for name, have, want in zip(NAMES, found.arrays(), alone, strict=True):
                differ = np.flatnonzero(
                    [a.tobytes() != b.tobytes() for a, b in zip(have, want[rank], strict=True)]
                )
                assert len(differ) == 0, f"{name} of rows {rank[differ]}"


# Duplicates -----------------------------------------------------------------------------------


def near(rows, by):
    """Return rows whose losses are another float: logits that differ a little."""
    x = rows.x.copy()
    x[np.arange(len(x)), rows.y] += by
    return replace(rows, x=x)


@pytest.mark.parametrize("duplicates", ["error", "first"])
def test_agreeing_duplicates_count_once_in_any_order(duplicates):
    dump = make((0, 1), n=60, dtype=np.float64)
    dump[0].x[5, 0] = np.nan  # an invalid row twice is one invalid row
    again = {e: near(rows.take(slice(0, 30)), 5e-7) for e, rows in dump.items()}
    t = pa.concat_tables([whole(dump), whole(again), whole(again)])
    runs = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(t))
        runs.append(fastdiv.analyze(t.take(order), duplicates=duplicates))
        assert column(runs[-1], "n") == [60, 60]
        assert column(runs[-1], "n_invalid") == [1, 0]
        assert runs[-1].summary["splits"][0]["n_duplicates"] == 120
        if duplicates == "error":
            assert_same(runs[-1], runs[0])


def test_duplicates_that_agree_by_pairs_only():
    """Whether three rows agree may not depend on which of them comes first."""
    rows = make(n=1, dtype=np.float64)[0]
    step = 0.8e-6 / (1 - np.exp(-fastdiv.score(rows.x, rows.y, kind="logits").loss[0]))
    three = [near(rows, i * step) for i in range(3)]
    outcomes = set()
    for order in permutations(three):
        t = pa.concat_tables([table(r) for r in order])
        try:
            run = fastdiv.analyze(t, kind="logits")
            outcomes.add(column(run, "loss")[0])
        except fastdiv.DataError:
            outcomes.add("contradiction")
    assert len(outcomes) == 1, outcomes


@pytest.mark.parametrize("apart", [False, True])
def test_the_first_of_contradicting_duplicates(tmp_path, apart):
    """Label and scores of the first row count, in one batch as in two files."""
    dump = make((0, 1))
    wanted = fastdiv.analyze(arrays(dump))
    other = {e: Rows(-r.x, (r.y + 1) % 3, r.ids) for e, r in dump.items()}
    if apart:
        write_files(tmp_path, dump, pattern="epoch={}/1.parquet")
        source = write_files(tmp_path, other, pattern="epoch={}/2.parquet")
    else:
        source = pa.concat_tables([whole(dump), whole(other)]).combine_chunks()
    with pytest.raises(fastdiv.DataError, match="twice in epoch 0"):
        fastdiv.analyze(source)
    run = fastdiv.analyze(source, duplicates="first")
    assert_same(run, wanted)
    assert run.summary["splits"][0]["n_duplicates"] == 80


@pytest.mark.parametrize("in_one_batch", [False, True])
def test_labels_that_contradict_where_all_else_agrees(in_one_batch):
    """Even probabilities: same loss, same prediction, another label."""
    x = np.full((4, 3), 1 / 3, np.float32)
    ids = np.arange(4)
    first = {0: Rows(x, np.array([0, 1, 2, 0]), ids)}
    second = {0: Rows(x, np.array([0, 1, 2, 1]), ids)}
    t = pa.concat_tables([whole(first), whole(second)])
    if in_one_batch:
        t = t.combine_chunks()
    with pytest.raises(fastdiv.DataError, match="sample 3 is twice in epoch 0"):
        fastdiv.analyze(t, kind="probs")


# Rolling scores -------------------------------------------------------------------------------


@pytest.mark.parametrize("in_memory", [False, True])
def test_rolling_scores_make_the_same_tables(tmp_path, in_memory):
    both = hard()
    if in_memory:
        source = {name: {e: table(r) for e, r in dump.items()} for name, dump in both.items()}
    else:
        source = {name: write_files(tmp_path / name, dump, row_group_size=40)
                  for name, dump in both.items()}  # fmt: skip
    run = fastdiv.analyze(source, scores="rolling")
    whole_run = fastdiv.analyze(source)
    assert_same(run, whole_run)
    assert run.compare(3, 4).equals(whole_run.compare(3, 4))
    with pytest.raises(fastdiv.UsageError, match="epochs 0 and 4: there are 3, 4"):
        run.compare(0, 4)


def test_rolling_scores_keep_two_epochs(tmp_path):
    dump = make(range(9))
    run = fastdiv.analyze(arrays(dump), scores="rolling", output=tmp_path / "run")
    assert len(list((tmp_path / "run" / "scores").rglob("*.scores"))) == 2
    assert_same(fastdiv.load(tmp_path / "run"), run)
    assert_same(run, fastdiv.analyze(arrays(dump)))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0)], ids=str)
def test_rolling_scores_need_epochs_in_order(tmp_path, order):
    dump = make(order)
    for source in (
        {e: r.arrays() for e, r in dump.items()},
        write(whole(dump), tmp_path / "a.parquet", row_group_size=40),
    ):
        with pytest.raises(fastdiv.DataError, match=r"order.*--scores all"):
            fastdiv.analyze(source, scores="rolling")
    ordered = {e: dump[e].arrays() for e in sorted(dump)}
    assert_same(fastdiv.analyze(source), fastdiv.analyze(ordered))
