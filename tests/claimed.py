"""Files whose headers claim sizes that are not there: what pyarrow and NumPy wrote, patched.

Every maker returns a whole file, and {what is claimed: the file that claims it}.
"""

import base64
import gzip
import io
import struct
import zipfile
import zlib
from copy import deepcopy

import pyarrow as pa
import pyarrow.parquet as pq
from dumps import as_list, make, whole

HUGE = 2**40
ROWS = 1237  # a number that is nothing else in a file's metadata
CLASSES = 77

# Thrift's compact protocol, as far as Parquet's metadata needs it: a struct is {field: (type,
# value)}, a list (type, values) or Claimed.

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


class Claimed(list):
    """A list that says it is longer."""


def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def read_value(type_, data, at):
    if type_ in (TRUE, FALSE):
        return type_ == TRUE, at
    if type_ in (I16, I32, I64):
        value, at = read_varint(data, at)
        return (value >> 1) ^ -(value & 1), at
    if type_ == BYTE:
        return data[at], at + 1
    if type_ == DOUBLE:
        return struct.unpack_from("<d", data, at)[0], at + 8
    if type_ == BINARY:
        size, at = read_varint(data, at)
        return data[at : at + size], at + size
    if type_ == LIST:
        size, of = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = read_varint(data, at)
        values = []
        for _ in range(size):
            value, at = read_value(of, data, at)
            values.append(value)
        return (of, values), at
    assert type_ == STRUCT
    fields, number = {}, 0
    while data[at]:
        delta, of = data[at] >> 4, data[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            zigzag, at = read_varint(data, at)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        value, at = read_value(of, data, at)
        fields[number] = (of, value)
    return fields, at + 1


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def write_value(type_, value):
    if type_ in (TRUE, FALSE):
        return b""
    if type_ in (I16, I32, I64):
        return varint(value << 1 if value >= 0 else (-value << 1) - 1)
    if type_ == BYTE:
        return bytes([value])
    if type_ == DOUBLE:
        return struct.pack("<d", value)
    if type_ == BINARY:
        return varint(len(value)) + value
    if type_ == LIST:
        of, values = value
        size = 2**31 - 1 if isinstance(values, Claimed) else len(values)
        return b"".join([bytes([0xF0 | of]), varint(size), *(write_value(of, v) for v in values)])
    assert type_ == STRUCT
    out, last = [], 0
    for number, (of, field) in sorted(value.items()):
        assert 0 < number - last < 16
        out += [bytes([(number - last) << 4 | of]), write_value(of, field)]
        last = number
    return b"".join(out) + b"\0"


def at_path(struct_, path):
    """Return the struct that holds the last field of a path, through fields and lists."""
    for step in path[:-1]:
        struct_ = struct_[1][step] if isinstance(struct_, tuple) else struct_[step][1]
    return struct_


def with_field(struct_, path, value):
    """Return a copy in which a field has another value."""
    copy = deepcopy(struct_)
    holder = at_path(copy, path)
    type_, _ = holder[path[-1]]
    holder[path[-1]] = (type_, value)
    return copy


# Parquet --------------------------------------------------------------------------------------

FOOTER = {
    "rows of the file": [(3,)],
    "rows of a row group": [(4, 0, 3)],
    "rows of both": [(3,), (4, 0, 3)],
    "bytes of a row group": [(4, 0, 2)],
    "values of a column": [(4, 0, 1, 2, 3, 5)],
    "rows everywhere": [(3,), (4, 0, 3), *((4, 0, 1, i, 3, 5) for i in range(4))],
    "uncompressed bytes of a column": [(4, 0, 1, 2, 3, 6)],
    "compressed bytes of a column": [(4, 0, 1, 2, 3, 7)],
    "place of a page": [(4, 0, 1, 2, 3, 9)],
}  # in structs of parquet.thrift: FileMetaData, RowGroup, ColumnChunk, ColumnMetaData
PAGE = {
    "uncompressed bytes of a page": (2,),
    "compressed bytes of a page": (3,),
    "values of a page": (5, 1),
}


def parquet():
    dump = make((0, 1), n=ROWS, c=2)
    sink = io.BytesIO()
    pq.write_table(whole(dump), sink, use_dictionary=False, store_schema=False)
    data = sink.getvalue()
    (size,) = struct.unpack("<I", data[-8:-4])
    body, footer = data[: -8 - size], read_value(STRUCT, data[-8 - size : -8], 0)[0]

    def file(footer, body=body):
        written = write_value(STRUCT, footer)
        return body + written + struct.pack("<I", len(written)) + b"PAR1"

    assert pq.read_table(io.BytesIO(file(footer))).num_rows == 2 * ROWS
    made = {}
    for what, paths in FOOTER.items():
        claims = footer
        for path in paths:
            claims = with_field(claims, path, HUGE)
        made[what] = file(claims)
    made["fewer rows in a row group"] = file(with_field(footer, (4, 0, 3), ROWS))
    for what, path in {"columns of the schema": (2,), "row groups": (4,)}.items():
        of, values = footer[path[0]][1]
        made[what] = file(with_field(footer, path, (of, Claimed(values))))
    children = deepcopy(footer)
    children[2][1][1][0][5] = (I32, 2**31 - 1)
    made["children of the schema"] = file(children)
    for size in (2**31 - 1, 2**32 - 1):
        made[f"footer of {size} bytes"] = data[:-8] + struct.pack("<I", size) + b"PAR1"
    column = at_path(footer, (4, 0, 1, 2, 3, 9))
    start = column[9][1]
    page, end = read_value(STRUCT, data, start)
    for what, path in PAGE.items():
        # The rest of the file moves: only this column is read before the claim is met.
        claims = write_value(STRUCT, with_field(page, path, 2**31 - 1))
        moved = len(claims) - (end - start)
        shifted = deepcopy(footer)
        for i, chunk in enumerate(shifted[4][1][1][0][1][1][1]):
            type_, offset = chunk[3][1][9]
            if offset > start:
                chunk[3][1][9] = (type_, offset + moved)
            elif i == 2:
                chunk[3][1][7] = (I64, chunk[3][1][7][1] + moved)
        made[what] = file(shifted, body[:start] + claims + body[end:])
    return data, made


def parquet_fixed_size_list():
    """The Arrow schema in the key-value metadata tells the size of fixed-size lists."""
    sink = io.BytesIO()
    pq.write_table(fixed_size_lists(), sink)
    data = sink.getvalue()
    at = data.index(b"ARROW:schema") + len(b"ARROW:schema")
    size, start = read_varint(data, at + 1)
    schema = base64.b64decode(data[start : start + size])
    claims = base64.b64encode(replaced(schema, "<i", CLASSES, 2**31 - 1))
    return data, {"classes": data[:start] + claims + data[start + size :]}


def fixed_size_lists():
    rows = make((0,), n=8, c=CLASSES)
    return whole(rows, "fixed_size_list")


def replaced(data, format_, old, new):
    """Return bytes in which one number, wherever it stands, is another."""
    found = data.replace(struct.pack(format_, old), struct.pack(format_, new))
    assert found != data
    return found


# Arrow IPC ------------------------------------------------------------------------------------


def ipc(stream, compression=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    rows = make((0,), n=ROWS, c=2)[0]
    if compression:
        rows.x[:] = 0.5
    table = pa.table({"label": rows.y, "logits": as_list(rows.x)})
    data = written(table, stream, options)
    made = {}
    if compression:
        # A compressed buffer begins with its size.
        return data, {f"{n} bytes": replaced(data, "<q", 8 * ROWS, n) for n in (2**33, HUGE)}
    for what, number in {"rows": ROWS, "bytes of labels": 8 * ROWS}.items():
        made[what] = replaced(data, "<q", number, HUGE)
        for i, one in enumerate(each(data, "<q", number, HUGE)):
            made[f"{what}, place {i}"] = one
    for i, one in enumerate(each(data, "<q", ROWS, ROWS - 100)):
        made[f"fewer rows, place {i}"] = one
    lists = written(fixed_size_lists(), stream)
    made["classes"] = replaced(lists, "<i", CLASSES, 2**31 - 1)
    if not stream:
        (size,) = struct.unpack("<i", data[-10:-6])
        made["footer"] = data[:-10] + struct.pack("<i", 2**31 - 1) + data[-6:]
        # Blocks of the footer: offset, metadata and body of each message.
        footer, body = data[-10 - size : -10], data[: -10 - size]
        for i, one in enumerate(each(footer, "<q", block_bytes(data), HUGE)):
            made[f"body of a block, place {i}"] = body + one + data[-10:]
    else:
        at = data.index(b"\xff\xff\xff\xff", 8)
        made["metadata"] = data[: at + 4] + struct.pack("<i", 2**31 - 1) + data[at + 8 :]
    return data, made


def block_bytes(data):
    """Return the size of the body of the only record batch of a file."""
    with pa.ipc.open_file(data) as reader:
        buffers = [b for column in reader.get_batch(0) for b in column.buffers() if b is not None]
    return sum(-(-buffer.size // 8) * 8 for buffer in buffers)


def each(data, format_, old, new):
    """Yield bytes in which one number is another in one of its places."""
    wanted, at = struct.pack(format_, old), -1
    while (at := data.find(wanted, at + 1)) >= 0:
        yield data[:at] + struct.pack(format_, new) + data[at + len(wanted) :]


def written(table, stream, options=None):
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


# NumPy ----------------------------------------------------------------------------------------

SHAPES = {
    "rows": (HUGE, 2), "classes": (ROWS, HUGE), "both": (2**62, 2**62), "overflow": (2**63, 2**63),
    "no classes": (HUGE, 0), "negative": (-1, 2), "more than int64": (2**70, 2),
}  # fmt: skip


def npy_header(shape, descr="<f4", fortran_order=False):
    """Return the header of a .npy file; `shape` may be any text."""
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def npy():
    data = make((0,), n=ROWS, c=2)[0].x.tobytes()
    made = {what: npy_header(shape) + data for what, shape in SHAPES.items()}
    made |= {
        f"{what}, Fortran order": npy_header(shape, fortran_order=True) + data
        for what, shape in SHAPES.items()
    }
    made["header of 4 GB"] = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" + data
    made["depth of a header"] = npy_header("(" * 60000) + data
    made["number of dimensions"] = npy_header(f"({'1,' * 4000})") + data
    made["bytes of a value"] = npy_header((4, 2), f"|V{2**31 - 1}") + data
    made["characters of a value"] = npy_header((4,), f"<U{2**29}") + data
    made["values of no bytes"] = npy_header((HUGE, 2), "|V0") + data
    return npy_header((ROWS, 2)) + data, made


def npz():
    rows = make((0,), n=ROWS, c=2)[0]
    labels = npy_header((ROWS,), "<i8") + rows.y.astype("<i8").tobytes()
    x = npy_header((ROWS, 2)) + rows.x.tobytes()
    made = {}
    for what, shape in SHAPES.items():
        both = shape[:1] if isinstance(shape, tuple) else shape
        claims = npy_header(shape) + rows.x.tobytes()
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            made[f"{what} ({method})"] = zipped({"logits": claims, "labels": labels}, method)
        claims = {"logits": claims, "labels": npy_header(both, "<U0") + b""}
        made[f"{what}, and labels of no bytes"] = zipped(claims)
    archive = zipped({"logits": x, "labels": labels})
    size = struct.pack("<I", len(x))
    made["bytes of an array"] = archive.replace(size, struct.pack("<I", 2**32 - 2))
    comment = struct.pack("<H", 0)
    made["comment"] = archive[: -len(comment)] + struct.pack("<H", 2**16 - 1)
    at = archive.rindex(b"PK\5\6")
    for what, place, format_ in (("entries", 10, "<H"), ("directory", 12, "<I")):
        most = struct.pack(format_, 2 ** (8 * struct.calcsize(format_)) - 2)
        made[what] = archive[: at + place] + most + archive[at + place + len(most) :]
    inflated = {"labels": (npy_header((BOMB // 8,), "|i1"), BOMB // 8)}
    for order in (False, True):
        logits = npy_header((HUGE, 2), fortran_order=order)
        name = "rows of a bomb" + ", Fortran order" * order
        made[name] = bombs(inflated | {"logits": (logits, BOMB)})
    # All that is claimed is there, as zeros, a thousand times as large as the file; its rows are
    # scattered over all of it.
    logits = npy_header((BOMB // 8, 2), fortran_order=True)
    made["a bomb, Fortran order"] = bombs(inflated | {"logits": (logits, BOMB)})
    return archive, made


BOMB = 1 << 28
PIECE = 1 << 20


def zipped(members, method=zipfile.ZIP_STORED):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return sink.getvalue()


def deflated_zeros(begin, size, wbits=-15):
    """Return some bytes and then zeros, deflated, without making them all."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, wbits)
    head = deflate.compress(begin) + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress(bytes(PIECE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(bytes(PIECE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(6, zlib.DEFLATED, -15)
    return head + piece + again * (size // PIECE - 1) + rest.flush()


def bombs(members):
    """Return a .npz file of arrays that are given by their beginning and how many zeros follow."""
    entries, directory = b"", b""
    for name, (begin, zeros) in members.items():
        name = f"{name}.npy".encode()
        data = deflated_zeros(begin, zeros)
        # version, flags, deflated, time, date, checksum (wrong), sizes, length of the name, of more
        common = (20, 0, 8, 0, 0x21, 0, len(data), len(begin) + zeros, len(name), 0)
        here = (0, 0, 0, 0, len(entries))  # no comment, first disk, attributes, place
        directory += struct.pack("<IH", 0x02014B50, 20)
        directory += struct.pack("<HHHHHIIIHH", *common) + struct.pack("<HHHII", *here) + name
        entries += struct.pack("<IHHHHHIIIHH", 0x04034B50, *common) + name + data
    n = len(members)
    end = (0x06054B50, 0, 0, n, n, len(directory), len(entries), 0)
    return entries + directory + struct.pack("<IHHHHIIH", *end)


# Text -----------------------------------------------------------------------------------------


def gzip_of_zeros(begin):
    """Return gzip files of some bytes and of them with BOMB zeros behind: a line without an end."""
    return gzip.compress(begin), {"a line": deflated_zeros(begin, BOMB, 31) + bytes(8)}
