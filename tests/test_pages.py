"""Pages as they are read by ourselves against what Arrow reads, of every kind of file."""

import itertools
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastdiv
from fastdiv.sources.pages.headers import PageHeader, Unexpected, read_header
from fastdiv.sources.parquet import ParquetContainer
from fastdiv_kernels.page_table import COLUMNS as TABLE_COLUMNS
from fastdiv_kernels.page_table import DATA, DATA_V2, HEADER, START

N, C = 1500, 7
COLUMNS = ("id", "label", "small", "logits")


def values(dtype="f4", seed=0, n=N, c=C):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(0, 3, (n, c)) * 16).astype("f8").astype(dtype) / dtype_one(dtype)


def dtype_one(dtype):
    return np.dtype(dtype).type(16)


def lists(x, fixed=False):
    n, c = x.shape
    flat = pa.array(np.ascontiguousarray(x).ravel())
    if fixed:
        return pa.FixedSizeListArray.from_arrays(flat, c)
    return pa.ListArray.from_arrays(pa.array(np.arange(0, n * c + 1, c), pa.int32()), flat)


def table(x, nullable=True, fixed=False):
    n = len(x)
    columns = {
        "id": pa.array(np.arange(n) * 7 - 50),
        "label": pa.array((np.arange(n) * 5 % C).astype(np.int32)),
        "small": pa.array((np.arange(n) // 400).astype(np.uint8)),
        "logits": lists(x, fixed),
    }
    schema = pa.schema([pa.field(k, v.type, nullable=nullable) for k, v in columns.items()])
    return pa.table(list(columns.values()), schema=schema)


def numbers(column):
    """Return what a column holds, whatever its type and alignment."""
    if pa.types.is_fixed_size_list(column.type):
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(aligned(column.values, column.offset * column.type.list_size,
                             len(column) * column.type.list_size)),
            column.type.list_size,
        ) if not column.null_count else column  # fmt: skip
    return column.to_pylist()


def aligned(array, offset, n):
    width = array.type.bit_width // 8
    raw = np.frombuffer(array.buffers()[1], np.uint8)[(array.offset + offset) * width :]
    return np.frombuffer(raw[: n * width].tobytes(), array.type.to_pandas_dtype())


def same(batches, others, names):
    """Say whether two readings hold the same rows."""
    found = [
        {name: list(itertools.chain(*(numbers(b.column(name)) for b in some))) for name in names}
        for some in (list(batches), list(others))
    ]
    assert found[0] == found[1]


def joined(rows, apart):
    """Yield rows as record batches, with the column that came apart."""
    for batch, pieces in rows:
        assert sum(map(len, pieces)) == batch.num_rows
        others = {name: batch.column(name) for name in batch.schema.names if name != apart}
        yield pa.record_batch({**others, apart: pa.concat_arrays(pieces)})


def check(path, names=COLUMNS, rows=400):
    container, other = (ParquetContainer(str(path)) for _ in range(2))
    for group in range(len(container.rows)):
        wanted = list(container._by_arrow(group, names, rows))
        same(container.read(group, names, rows), wanted, names)
        apart = names[-1]
        same(joined(other.read_apart(group, names, rows, apart), apart), wanted, names)
    assert other.read_by.summary() == container.read_by.summary()
    return container


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("page", [200, 5000, 1 << 20])
@pytest.mark.parametrize("nullable", [True, False])
def test_pages_equal_what_arrow_reads(tmp_path, codec, version, dictionary, page, nullable):
    path = tmp_path / "a.parquet"
    pq.write_table(
        table(values(), nullable), path, compression=codec, data_page_version=version,
        use_dictionary=dictionary, data_page_size=page, row_group_size=600, write_batch_size=64,
        write_page_checksum=page == 5000,
    )  # fmt: skip
    container = check(path)
    if codec == "lz4":  # nothing tells how much of it was decompressed
        assert {reason for _, reason in container.read_by.arrow} == {"a codec that is rare"}
    else:
        assert not container.read_by.arrow
        assert container.read_by.pages == 4 * 3


@pytest.mark.parametrize("codec", ["snappy", "gzip", "brotli", "zstd"])
def test_a_page_that_gives_less_than_it_says_is_not_filled_up(codec):
    from fastdiv.sources.pages.codec import BROTLI, GZIP, SNAPPY, ZSTD, decompress

    number = {"snappy": SNAPPY, "gzip": GZIP, "brotli": BROTLI, "zstd": ZSTD}[codec]
    data = bytes(range(256)) * 40
    packed = memoryview(pa.Codec(codec).compress(data, asbytes=True))
    assert bytes(memoryview(decompress(number, packed, len(data)))) == data
    for size in (len(data) - 1, len(data) + 1, 2 * len(data), 0):
        with pytest.raises(Unexpected):
            decompress(number, packed, size)
    for cut in range(0, len(packed), 7):
        with pytest.raises((Unexpected, OSError, zlib.error)):
            decompress(number, packed[:cut], len(data))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("c", [1, 2, 3, 8, 9, 16, 100])
def test_every_length_and_dtype(tmp_path, dtype, fixed, c):
    path = tmp_path / "a.parquet"
    pq.write_table(table(values(dtype, n=900, c=c), fixed=fixed), path, data_page_size=3000)
    container = check(path)
    assert not container.read_by.arrow


def test_a_dictionary_that_is_given_up_midway(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "a.parquet"
    pq.write_table(
        table(rng.normal(size=(4000, C)).astype("f4")), path, dictionary_pagesize_limit=4000
    )
    encodings = pq.ParquetFile(path).metadata.row_group(0).column(3).encodings
    assert {"PLAIN", "RLE_DICTIONARY"} <= set(encodings)
    assert not check(path).read_by.arrow


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"at": 0, "to": None}, "lists of several lengths, or none|nulls"),
        ({"at": 1400, "to": None}, "lists of several lengths, or none|nulls"),
        ({"at": 700, "to": [1.0, None, 3.0, 4.0, 5.0, 6.0, 7.0]}, "nulls"),
        ({"at": 700, "to": []}, "lists of several lengths, or none"),
        ({"at": 700, "to": [1.0] * 8}, "lists of several lengths, or none"),
    ],
)
@pytest.mark.parametrize("balanced", [False, True])
def test_what_is_not_trivial_goes_to_arrow_and_no_row_is_lost(tmp_path, change, reason, balanced):
    rows = values().tolist()
    rows[change["at"]] = change["to"]
    if balanced and change["to"] is not None and len(change["to"]) == 8:
        rows[800] = [1.0] * 6  # as many values as there would be
    data = table(values())
    data = data.set_column(3, "logits", pa.array(rows, pa.list_(pa.float32())))
    path = tmp_path / "a.parquet"
    pq.write_table(data, path, data_page_size=2000, write_batch_size=64)
    container = check(path)
    ((column, why),) = container.read_by.arrow
    assert column == "logits"
    assert why in reason.split("|")
    assert container.read_by.pages == 3


def test_nulls_in_a_later_page_of_a_flat_column(tmp_path):
    data = table(values())
    ids = [None if i == 1234 else i for i in range(N)]
    path = tmp_path / "a.parquet"
    pq.write_table(data.set_column(0, "id", pa.array(ids)), path, data_page_size=500,
                   write_batch_size=64)  # fmt: skip
    assert check(path).read_by.arrow == {("id", "nulls"): 1}


@pytest.mark.parametrize("encoding", ["BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED"])
def test_rare_encodings_go_to_arrow(tmp_path, encoding):
    path = tmp_path / "a.parquet"
    column = "id" if encoding.startswith("DELTA") else "logits"
    named = "logits.list.element" if column == "logits" else column
    pq.write_table(table(values()), path, use_dictionary=False, column_encoding={named: encoding})
    assert check(path).read_by.arrow == {(column, "an encoding that is rare"): 1}


def test_fixed_size_binary(tmp_path):
    x = values()
    data = pa.FixedSizeBinaryArray.from_buffers(pa.binary(4 * C), N, [None, pa.py_buffer(x)])
    path = tmp_path / "a.parquet"
    pq.write_table(table(x).set_column(3, "logits", data), path, data_page_size=3000)
    container = ParquetContainer(str(path))
    same(container.read(0, COLUMNS, 333), container._by_arrow(0, COLUMNS, 333), COLUMNS)


@pytest.mark.parametrize("writer", ["polars", "duckdb"])
def test_files_of_other_writers(tmp_path, writer):
    library = pytest.importorskip(writer)
    path = tmp_path / "a.parquet"
    data = table(values())
    if writer == "polars":
        library.from_arrow(data).write_parquet(path, row_group_size=500)
    else:
        library.sql(f"copy data to '{path}' (format parquet, row_group_size 500)")
    container = check(path)
    assert container.read_by.pages


def test_the_summary_says_how_columns_were_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(values()), path, use_dictionary=False,
                   column_encoding={"logits.list.element": "BYTE_STREAM_SPLIT"})  # fmt: skip
    read_by = fastdiv.analyze(path, kind="logits").summary["read_by"]
    assert read_by == {
        "pages": 2,
        "arrow": [{"column": "logits", "reason": "an encoding that is rare", "n": 1}],
    }


def header_places(path):
    """Yield where the headers of pages lie in a file."""
    container = ParquetContainer(str(path))
    data = path.read_bytes()
    for chunk in container._groups[0].columns:
        at, end = chunk.start, chunk.start + chunk.total_compressed_size
        while at < end:
            header, size = read_header(data[at : at + 200])
            yield at, size
            at += size + header.size


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_a_header_damaged_anywhere_is_refused_or_read_as_arrow_reads_it(tmp_path, version, codec):
    path, damaged = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(
        table(values(n=120)), path, compression=codec, data_page_version=version,
        data_page_size=1500, write_batch_size=32,
    )  # fmt: skip
    whole = path.read_bytes()
    tried = 0
    for at, size in header_places(path):
        for place in range(at, at + size):
            was = whole[place]
            for new in ({was ^ 1, 0}, {was ^ 0x80, 0xFF})[place % 2] - {was}:
                damaged.write_bytes(whole[:place] + bytes([new]) + whole[place + 1 :])
                container = ParquetContainer(str(damaged))
                results = []
                for read in (container.read, container._by_arrow):
                    try:
                        some = list(read(0, COLUMNS, 64))
                        results.append([[numbers(b.column(c)) for b in some] for c in COLUMNS])
                    except fastdiv.DataError:
                        results.append(None)
                tried += 1
                flat = [r and [list(itertools.chain(*c)) for c in r] for r in results]
                if flat[1] is not None and flat[0] is not None:
                    assert repr(flat[0]) == repr(flat[1])
                # What Arrow refuses may be sound to a reader that needs less of a header.
                assert flat[0] is not None or flat[1] is None
    assert tried > 250


def quick_header(data):
    """Return what the kernel reads at the beginning of a column chunk: a header and its end."""
    from fastdiv_kernels.cpu.page_headers import read_page_headers

    row = np.empty((1, TABLE_COLUMNS), np.int64)
    end = 1 << 32
    n, at, *_ = read_page_headers(data, 0, end, end, 1, 1 << 30, end, row)
    if not n:
        return None
    *numbers, compressed = row[0, :HEADER].tolist()
    header = PageHeader(*numbers, bool(compressed))
    assert at == row[0, START] + header.size
    return header, int(row[0, START])


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x15", b"\x15\x00" * 40, b"\xff" * 200,
                                  b"\x1c" * 200])  # fmt: skip
def test_headers_that_are_none(data):
    with pytest.raises(Unexpected):
        read_header(data)
    assert quick_header(np.frombuffer(data, np.uint8)) is None


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_headers_read_quickly_are_the_same(tmp_path, version):
    """With any byte changed too; most headers must be read quickly."""
    path = tmp_path / "a.parquet"
    pq.write_table(table(values(n=300)), path, data_page_version=version, data_page_size=1500,
                   write_batch_size=32, write_page_checksum=True)  # fmt: skip
    whole = path.read_bytes()
    quick = tried = 0
    for at, size in header_places(path):
        for place, new in itertools.product(range(at, at + size), range(0, 256, 5)):
            near = np.frombuffer(whole[at : at + 200], np.uint8).copy()
            near[place - at] = new
            found = quick_header(near)
            tried += 1
            if found is not None:
                quick += 1
                assert found == read_header(near.tobytes())
            assert quick_header(near[: size - 1]) in (None, found)
        near = np.frombuffer(whole[at : at + 200], np.uint8)
        kind = read_header(near.tobytes())[0].kind
        assert (quick_header(near) is None) == (kind not in (DATA, DATA_V2))
    assert quick > tried / 4


@pytest.mark.parametrize("period", [1, 2, 3, 8, 10, 17, 64, 1000])
def test_levels_are_told_apart(period):
    from fastdiv_kernels.cpu.pages import levels_are_trivial

    def packed(levels):
        levels = [*levels, *[0] * (-len(levels) % 8)]
        groups = len(levels) // 8
        header = []
        value = groups << 1 | 1
        while value > 127:
            header.append(value & 127 | 128)
            value >>= 7
        body = np.packbits(levels, bitorder="little").tobytes()
        return np.frombuffer(bytes([*header, value]) + body, np.uint8)

    n = 4 * period + 3
    for first in (0, period // 2, period - 1):
        levels = [int((first + i) % period != 0) for i in range(n)]
        data = packed(levels)
        assert levels_are_trivial(data, 0, len(data), 1, n, first, period)
        for wrong in {0, n // 2, n - 1}:
            other = [*levels]
            other[wrong] ^= 1
            assert not levels_are_trivial(packed(other), 0, len(data), 1, n, first, period)
        for cut in range(len(data)):
            assert not levels_are_trivial(data, 0, cut, 1, n, first, period) or cut == len(data)
    run = np.frombuffer(struct.pack("<BB", 20 << 1, 1), np.uint8)
    assert levels_are_trivial(run, 0, 2, 1, 20, 0, 0)
    assert not levels_are_trivial(run, 0, 2, 1, 21, 0, 0)
    assert not levels_are_trivial(run, 0, 2, 2, 20, 0, 0)
