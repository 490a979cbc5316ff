"""What benchmarks are measured on, and what takes it apart."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import data, dump_peers, id_peers
from benchmarks.page_bodies import bodies
from fastdiv_kernels.contract import CORRECT


def losses_at(x, y, beta):
    x = beta * x.astype(np.float64)
    return np.logaddexp.reduce(x, axis=1) - x[np.arange(len(y)), y]


def test_dump_is_what_pyarrow_writes(tmp_path):
    path = data.dump(1000, 10, 2, "snappy", tmp_path)
    files = sorted(path.iterdir())
    assert [f.name for f in files] == ["preds_epoch_000.parquet", "preds_epoch_001.parquet"]
    file = pq.ParquetFile(files[0])
    assert file.schema_arrow.names == ["sample_id", "label", "logits"]
    assert str(file.schema_arrow.field("logits").type).startswith("list<")
    assert file.metadata.row_group(0).column(2).compression == "SNAPPY"
    assert file.metadata.row_group(0).column(2).has_dictionary_page
    assert file.metadata.num_rows == 1000
    assert data.dump(1000, 10, 2, "snappy", tmp_path) == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("layout", "type_", "codec"),
    [
        ("plain", "list", "UNCOMPRESSED"),
        ("zstd", "list", "ZSTD"),
        ("binary", "fixed_size_binary", "UNCOMPRESSED"),
    ],
)
def test_layouts_are_what_they_are_called(layout, type_, codec, tmp_path):
    path = data.dump(1000, 10, 2, layout, tmp_path)
    for file in path.iterdir():
        column = pq.read_metadata(file).row_group(0).column(2)
        assert str(pq.read_schema(file).field("logits").type).startswith(type_)
        assert column.compression == codec
        assert not column.has_dictionary_page
    dump = data.Dump(path, 10, 2)
    expected = dump_peers.fastdiv_rolling(dump)()
    assert expected == dump_peers.fastdiv_all(dump)()
    read = dict(dump_peers._on_threads(dump, list))
    for epoch, [(y, z)] in read.items():
        losses = losses_at(z, y, 1.0)
        np.testing.assert_allclose(expected[epoch][0], losses.mean(), rtol=1e-6)


def test_page_bodies_are_all_that_is_compressed(tmp_path):
    path = data.dump(300_000, 10, 1, "zstd", tmp_path)
    (file,) = path.iterdir()
    sizes = [0, 0]
    pages = list(bodies(file))
    for codec, (body, size) in pages:
        assert len(pa.Codec(codec).decompress(body, size)) == size
        sizes[0] += len(body)
        sizes[1] += size
    row_group = pq.read_metadata(file).row_group(0)
    columns = [row_group.column(i) for i in range(row_group.num_columns)]
    headers = sum(c.total_compressed_size for c in columns) - sizes[0]
    assert headers == sum(c.total_uncompressed_size for c in columns) - sizes[1]
    assert 0 < headers < 200 * len(pages)
    dump_peers.decompress(data.Dump(path, 10, 2))()


def test_all_ways_find_the_same_slots():
    ids = data.ids(200_000)
    assert len(np.unique(ids)) == 200_000
    same, *others = (
        prepare(ids)()()
        for prepare in (
            id_peers.same_order, id_peers.shuffled, id_peers.shuffled_anew, id_peers.shuffled
        )
    )  # fmt: skip
    weights = np.arange(200_000) % 1009
    assert same == {0: (float(weights @ np.arange(200_000)), 200_000.0)}
    order = np.random.default_rng(4).permutation(200_000)  # slots are where an id stood first
    assert others == [{0: (float(weights @ order), 200_000.0)}] * 3
    pytest.importorskip("polars")
    assert id_peers.polars_join(ids)()() == others[0]


def test_logits_are_the_same_each_time_and_plausible():
    y = data.labels(100_000, 10)
    z = data.logits(y, 10)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z, data.logits(data.labels(100_000, 10), 10))
    assert 0.7 < (z.argmax(1) == y).mean() < 0.97


def test_drawn_scores_move_as_those_of_a_dump_do():
    y = data.labels(100_000, 10)
    before = data.stored(y, 10, seed=1)
    after = data.stored(y, 10, seed=2, before=before)
    for e in (before, after):
        right = e.predicted == y
        np.testing.assert_array_equal((e.flags & CORRECT) != 0, right)
        assert 0.7 < right.mean() < 0.97
        assert e.predicted.min() == 0
        assert e.predicted.max() == 9
        assert np.isfinite(e.loss).all()
        assert np.isfinite(e.margin).all()
    assert 0.8 < (before.predicted == after.predicted).mean() < 0.97
