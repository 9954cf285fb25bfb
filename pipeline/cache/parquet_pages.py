"""Reads how much memory the pages of a Parquet file will take, before they are decompressed.

The sizes in the footer are not binding: Arrow allocates what the header of each page says, up to
2 GB. So the page headers are read here first. The footer is read here too, because asking pyarrow
for the metadata of a column aborts the process if they are not valid. See parquet.thrift for the
field ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import pyarrow.parquet as pq

from distinit.pipeline.cache.thrift import I32, I64, LIST, STRUCT, Struct, ThriftReader, value_of

__all__ = ["ColumnPages", "column_pages"]

_HEADER_BYTES = 1 << 16
_TAIL_BYTES = 8  # the length of the footer, and "PAR1"


class ColumnPages(NamedTuple):
    """Sums over the pages of one column in one row group."""

    name: str
    rows: int
    uncompressed_bytes: int
    largest_page_bytes: int
    values: int
    """Values of the data pages, nulls included; a list has several."""


def column_pages(file: BinaryIO, metadata: pq.FileMetaData) -> Iterator[ColumnPages]:
    """The pages of every column chunk, as their headers describe them.

    Raises ValueError for an invalid footer or header, and for chunks outside of the file.
    """
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    for row_group in value_of(_footer(file), 4, LIST):
        rows = value_of(row_group, 3, I64)
        columns = value_of(row_group, 1, LIST)
        if rows == 0:  # nothing is read from it, and its offsets are not meaningful
            continue
        for name, column in zip(names, columns, strict=True):
            pages = list(_pages(file, *_chunk(file, value_of(column, 3, STRUCT))))
            sizes, values = [size for size, _ in pages], [count for _, count in pages]
            yield ColumnPages(name, rows, sum(sizes), max(sizes, default=0), sum(values))


def _footer(file: BinaryIO) -> Struct:
    """The struct FileMetaData."""
    file_bytes = file.seek(0, 2)
    file.seek(max(0, file_bytes - _TAIL_BYTES))
    footer_bytes = int.from_bytes(file.read(4), "little")
    if footer_bytes > file_bytes - _TAIL_BYTES:
        raise ValueError("the footer is longer than the file")
    file.seek(file_bytes - _TAIL_BYTES - footer_bytes)
    return ThriftReader(file.read(footer_bytes)).struct()


def _chunk(file: BinaryIO, column: Struct) -> tuple[int, int]:
    """Where a column chunk begins and ends; ``column``: the struct ColumnMetaData."""
    start = value_of(column, 9, I64)
    dictionary = value_of(column, 11, I64, 0)
    if dictionary > 0:
        start = min(start, dictionary)
    end = start + value_of(column, 7, I64)
    if not 0 <= start <= end <= file.seek(0, 2):
        raise ValueError("a column chunk is outside of the file")
    return start, end


def _pages(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(uncompressed bytes, values) of each page; a dictionary page counts no values."""
    while start < end:
        file.seek(start)
        reader = ThriftReader(file.read(min(_HEADER_BYTES, end - start)))
        header = reader.struct()
        uncompressed, compressed = value_of(header, 2, I32), value_of(header, 3, I32)
        values = sum(
            value_of(value_of(header, page_type, STRUCT, {}), 1, I32, 0)
            for page_type in (5, 8)  # data pages of version 1 and 2
        )
        if min(uncompressed, compressed, values) < 0:
            raise ValueError("a page header with a negative size")
        start += reader.position + compressed
        yield uncompressed, values
    if start != end:
        raise ValueError("a page extends beyond its column chunk")
