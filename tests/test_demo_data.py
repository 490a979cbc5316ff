"""The demo's dumps: files, schema, stable samples, and a loss that rises while accuracy holds."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastdiv.demo import write_dumps
from fastdiv.errors import UsageError

EPOCHS = 60
CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    """Return the true label of each sample id."""
    return pytest.importorskip("sklearn.datasets").load_digits().target


@pytest.fixture(scope="module")
def dumps(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("dumps")
    write_dumps(directory)
    return directory


@pytest.fixture(scope="module", params=["train", "val"])
def split(request, dumps):
    return read(dumps / request.param)


def read(directory: Path) -> list[pa.Table]:
    return [pq.read_table(path) for path in sorted(directory.iterdir())]


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def logits(table: pa.Table) -> np.ndarray:
    return np.stack(table["logits"].to_numpy()).astype(np.float64)


def loss_and_accuracy(table: pa.Table) -> tuple[float, float]:
    z, label = logits(table), column(table, "label")
    highest = z.max(axis=1)
    log_sum = highest + np.log(np.exp(z - highest[:, None]).sum(axis=1))
    losses = log_sum - z[np.arange(len(z)), label]
    return float(losses.mean()), float((z.argmax(axis=1) == label).mean())


def test_one_file_an_epoch_and_split(dumps):
    names = [f"epoch_{epoch:03d}.parquet" for epoch in range(EPOCHS)]
    assert sorted(path.name for path in dumps.iterdir()) == ["train", "val"]
    for name in ("train", "val"):
        assert sorted(path.name for path in (dumps / name).iterdir()) == names


def test_schema_and_values(split):
    for table in split:
        assert table.schema.names == ["sample_id", "label", "logits"]
        assert table.schema.field("sample_id").type == pa.int64()
        assert table.schema.field("label").type == pa.int64()
        assert pa.types.is_list(table.schema.field("logits").type)
        assert table.schema.field("logits").type.value_type == pa.float32()
        assert all(values.null_count == 0 for values in table.columns)
        assert np.isin(column(table, "label"), np.arange(CLASSES)).all()
        assert logits(table).shape == (table.num_rows, CLASSES)
        assert np.isfinite(logits(table)).all()


def test_samples_and_labels_stay_the_same(split):
    first = split[0].select(["sample_id", "label"]).sort_by("sample_id")
    assert len(np.unique(column(first, "sample_id"))) == first.num_rows
    for table in split[1:]:
        assert table.select(["sample_id", "label"]).sort_by("sample_id").equals(first)


def test_rows_of_training_come_in_the_order_of_their_epoch(dumps):
    orders = {column(table, "sample_id").tobytes() for table in read(dumps / "train")}
    assert len(orders) == EPOCHS


def test_each_digit_is_in_one_split_and_few_labels_are_flipped(dumps, digits):
    train, val = (pq.read_table(dumps / name / "epoch_000.parquet") for name in ("train", "val"))
    ids = np.concatenate([column(train, "sample_id"), column(val, "sample_id")])
    np.testing.assert_array_equal(np.sort(ids), np.arange(len(digits)))
    assert 0.25 <= val.num_rows / len(ids) <= 0.30
    flipped = column(train, "label") != digits[column(train, "sample_id")]
    assert 0.01 < flipped.mean() < 0.10


def test_validation_loss_falls_then_rises_while_accuracy_holds(dumps):
    loss, accuracy = np.transpose([loss_and_accuracy(table) for table in read(dumps / "val")])
    lowest, best = int(loss.argmin()), int(accuracy.argmax())
    assert lowest >= 1
    assert loss[-1] > 1.15 * loss[lowest]
    assert best >= lowest + 3
    assert accuracy[best] > accuracy[lowest]
    assert accuracy[-1] >= accuracy[lowest]


def test_training_loss_keeps_falling(dumps):
    losses = [loss_and_accuracy(table)[0] for table in read(dumps / "train")]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_a_seed_decides_the_run(digits, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_dumps(tmp_path / name, epochs=2, seed=seed)
    a, b, c = (read(tmp_path / name / "val") for name in "abc")
    assert a == b
    assert a[0] != c[0]


def test_without_scikit_learn_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r"pip install ['\"]fastdiv\[demo\]['\"]"):
        write_dumps(tmp_path)
