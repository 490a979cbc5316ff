"""Columns as they are written: nested in structs, wrapped in extension types, encoded.

A nested column is named by its path (`outputs.logits`). A column whose own name has dots is found
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return what a type holds: the storage of an extension, the values of an encoding."""
    if isinstance(type_, pa.BaseExtensionType):
        return plain_type(type_.storage_type)
    if pa.types.is_run_end_encoded(type_) or pa.types.is_dictionary(type_):
        return plain_type(type_.value_type)
    return type_


def plain(column: pa.Array) -> pa.Array:
    """Return a column without extension types and encodings."""
    if isinstance(column.type, pa.BaseExtensionType):
        return plain(column.storage)
    if pa.types.is_run_end_encoded(column.type):
        return plain(pc.run_end_decode(column))
    if pa.types.is_dictionary(column.type):
        values = column.dictionary
        if pa.types.is_string_view(values.type) or pa.types.is_binary_view(values.type):
            wide = pa.large_string() if is_string(values.type) else pa.large_binary()
            values = values.cast(wide)  # Arrow cannot take from views
        return plain(values.take(column.indices))
    return column


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the fields of structs beside each other, named by their paths."""
    fields: list[pa.Field] = []

    def add(field: pa.Field, prefix: str) -> None:
        if pa.types.is_struct(field.type):
            for child in field.type.fields:
                add(child, f"{prefix}{field.name}.")
        else:
            fields.append(field.with_name(prefix + field.name))

    for field in schema:
        add(field, "")
    return pa.schema(fields, metadata=schema.metadata)


def flat_column(rows: Any, name: str) -> Any:
    """Return a column of a record batch or table by its name or path; nulls above count."""
    index = rows.schema.get_field_index(name)
    if index >= 0:
        return rows.column(index)
    top = top_column(rows.schema, name)
    column, path = rows.column(rows.schema.get_field_index(top)), name[len(top) + 1 :]
    while path:
        type_ = column.type
        names = [type_.field(i).name for i in range(type_.num_fields)]
        child = next(n for n in names if path == n or path.startswith(f"{n}."))
        column = pc.struct_field(column, [names.index(child)])
        path = path[len(child) + 1 :]
    return column


def plain_column(table: pa.Table, name: str) -> pa.Array:
    """Return a column of a table as one array, without extension types and encodings."""
    column = flat_column(table, name)
    chunks = [plain(chunk) for chunk in column.chunks]
    type_ = chunks[0].type if chunks else plain_type(column.type)
    return pa.chunked_array(chunks, type_).combine_chunks()


def top_column(schema: pa.Schema, name: str) -> str:
    """Return the name of the column that holds a column, itself where it is not nested."""
    if schema.get_field_index(name) >= 0:
        return name
    above = [n for n in schema.names if name.startswith(f"{n}.")]
    return str(max(above, key=len)) if above else name


def top_columns(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """Return the names of the columns that hold some columns, each once."""
    return list(dict.fromkeys(top_column(schema, name) for name in names))


def is_list(type_: pa.DataType) -> bool:
    """Whether a column holds a list a row, of any kind."""
    types = pa.types
    return bool(
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def is_float_list(type_: pa.DataType) -> bool:
    """Whether a column holds a list of floats a row, a tensor included."""
    type_ = plain_type(type_)
    return is_list(type_) and bool(pa.types.is_floating(plain_type(type_.value_type)))


def is_word_list(type_: pa.DataType) -> bool:
    """Whether a column holds a list of 16-bit words a row."""
    type_ = plain_type(type_)
    return is_list(type_) and plain_type(type_.value_type) in (pa.uint16(), pa.int16())


def is_number(type_: pa.DataType) -> bool:
    """Whether a column holds a number a row."""
    return is_float(type_) or is_integer(type_)


def is_float(type_: pa.DataType) -> bool:
    """Whether a column holds a number with a fraction a row."""
    type_ = plain_type(type_)
    return bool(pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def is_integer(type_: pa.DataType) -> bool:
    """Whether a column holds integers, encoded or not."""
    return bool(pa.types.is_integer(plain_type(type_)))


def is_string(type_: pa.DataType) -> bool:
    """Whether a column holds strings, encoded or not."""
    type_ = plain_type(type_)
    types = pa.types
    return bool(
        types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)
    )


def is_binary(type_: pa.DataType) -> bool:
    """Whether a column holds bytes, of one width or not."""
    type_ = plain_type(type_)
    types = pa.types
    return bool(
        types.is_binary(type_)
        or types.is_large_binary(type_)
        or types.is_binary_view(type_)
        or types.is_fixed_size_binary(type_)
    )


def is_uuid(type_: pa.DataType) -> bool:
    """Whether a column holds UUIDs as an Arrow extension type."""
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"
