"""Reads how much memory the pages of a Parquet file will take, before they are decompressed.

The sizes in the footer are not binding: Arrow allocates what the header of each page says, up to
2 GB. So the page headers are read here first. They use Thrift's compact protocol, of which a page
header needs only a small part (parquet.thrift, ``struct PageHeader``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import pyarrow.parquet as pq

__all__ = ["ColumnPages", "column_pages"]

_HEADER_BYTES = 1 << 16
_DEPTH = 8
_UNCOMPRESSED, _COMPRESSED = 2, 3  # field ids of PageHeader
_DATA, _DATA_V2 = 5, 8  # its structs of data pages, whose first field is the number of values
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


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

    Raises ValueError for invalid headers, and for chunks outside of the file.
    """
    file_bytes = file.seek(0, 2)
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        if row_group.num_rows == 0:  # nothing is read from it, and its offsets are not meaningful
            continue
        for number in range(metadata.num_columns):
            column = row_group.column(number)
            start = column.data_page_offset
            if column.has_dictionary_page and column.dictionary_page_offset:
                start = min(start, column.dictionary_page_offset)
            end = start + column.total_compressed_size
            if not 0 <= start <= end <= file_bytes:
                raise ValueError("a column chunk is outside of the file")
            pages = list(_pages(file, start, end))
            sizes, values = [size for size, _ in pages], [count for _, count in pages]
            yield ColumnPages(
                column.path_in_schema,
                row_group.num_rows,
                sum(sizes),
                max(sizes, default=0),
                sum(values),
            )


def _pages(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(uncompressed bytes, values) of each page; a dictionary page counts no values."""
    while start < end:
        file.seek(start)
        header = _Header(file.read(min(_HEADER_BYTES, end - start)))
        fields = header.struct()
        uncompressed, compressed = fields.get(_UNCOMPRESSED, -1), fields.get(_COMPRESSED, -1)
        if uncompressed < 0 or compressed < 0:
            raise ValueError("a page header without sizes")
        values = header.first_of.get(_DATA, 0) + header.first_of.get(_DATA_V2, 0)
        if values < 0:
            raise ValueError("a page header with a negative number of values")
        start += header.position + compressed
        yield uncompressed, values
    if start != end:
        raise ValueError("a page extends beyond its column chunk")


class _Header:
    """A reader of one Thrift struct that keeps only its integers, and the first ones of structs."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0
        self.first_of: dict[int, int] = {}
        """Field id of a struct -> the integer with field id 1 in it."""

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Field id -> value, of integer fields. Raises ValueError."""
        if depth > _DEPTH:
            raise ValueError("a page header is nested too deeply")
        fields: dict[int, int] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 0x0F, head >> 4
            number = number + step if step else self._signed()
            if kind in (_I16, _I32, _I64):
                fields[number] = self._signed()
            elif kind == _STRUCT:
                inner = self.struct(depth + 1)
                if depth == 0:
                    self.first_of[number] = inner.get(1, 0)
            else:
                self._skip(kind)
        return fields

    def _skip(self, kind: int) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind == _BYTE:
            self._advance(1)
        elif kind in (_I16, _I32, _I64):
            self._unsigned()
        elif kind == _DOUBLE:
            self._advance(8)
        elif kind == _BINARY:
            self._advance(self._unsigned())
        else:  # collections: page headers contain none
            raise ValueError(f"a page header has a field of type {kind}")

    def _byte(self) -> int:
        self._advance(1)
        return self._data[self.position - 1]

    def _advance(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise ValueError("a page header does not end")

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number in a page header does not end")

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
