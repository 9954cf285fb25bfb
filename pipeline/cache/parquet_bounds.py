"""Limits on the memory that a table of a cache may take, and checks of its strings.

A small file can demand any amount of memory: compressed pages that unpack to gigabytes, a
dictionary with one long string that a million rows refer to, runs of equal numbers. Tables that
DistInit writes stay far below these limits.
"""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distinit.pipeline.cache.parquet_pages import column_pages
from distinit.schemas.base import SHA256_PATTERN, VIDEO_ID_PATTERN
from distinit.schemas.manifest import MAX_CAPACITY

__all__ = ["MAX_TABLE_BYTES", "check_pages", "plain_texts"]

MAX_TABLE_BYTES = 4 << 30
"""Largest table file; ``plan.parquet`` takes about 100 bytes per video."""
_MAX_PAGE_BYTES = 16 << 20  # writers start a new page at 1 MiB, or after 20,000 rows
_MAX_TEXT_BYTES = 1 << 16
_FREE_BYTES = 64 << 20
_PATTERNS = {
    "video_id": VIDEO_ID_PATTERN,
    "digest": SHA256_PATTERN,
    "status": "^(ok|failed|gone)$",
    "time_base": "^[0-9]{1,19}/[0-9]{1,19}$",
    "path": r"^[^\x00]+$",
}


def check_pages(file: BinaryIO, metadata: pq.FileMetaData, schema: pa.Schema) -> None:
    """Raise ValueError for a table that takes far more memory than its file size justifies."""
    file_bytes = file.seek(0, 2)
    limit_rows = MAX_CAPACITY + file_bytes // 4  # a digest alone takes 32 bytes
    if not 0 <= metadata.num_rows <= limit_rows:
        raise ValueError(f"{metadata.num_rows} rows in {file_bytes} bytes")
    rows = 0
    for pages in column_pages(file, metadata):
        limit_bytes = _limit_bytes(schema, pages.name, pages.rows, file_bytes)
        if not 0 <= pages.rows <= metadata.num_rows:
            raise ValueError(f"a row group of {pages.rows} rows, of {metadata.num_rows} in all")
        if pages.largest_page_bytes > _MAX_PAGE_BYTES or pages.uncompressed_bytes > limit_bytes:
            raise ValueError(
                f"column {pages.name} unpacks to {pages.uncompressed_bytes} bytes in "
                f"{pages.rows} rows"
            )
        rows += pages.rows
    if rows != metadata.num_rows * metadata.num_columns:
        raise ValueError("row groups and footer disagree on the number of rows")


def _limit_bytes(schema: pa.Schema, name: str, rows: int, file_bytes: int) -> int:
    if pa.types.is_string(schema.field(name).type):
        return _FREE_BYTES + 128 * rows + 64 * file_bytes
    return (1 << 20) + 16 * rows


def plain_texts(table: pa.Table, schema: pa.Schema, file_bytes: int) -> pa.Table:
    """Convert ``table``, whose strings were read as dictionaries, to ``schema``.

    Raises ValueError for strings that are too long, not UTF-8, or not valid for their column.
    """
    columns = []
    for field in schema:
        values = table.column(field.name)
        if pa.types.is_string(field.type):
            limit_bytes = _limit_bytes(schema, field.name, table.num_rows, file_bytes)
            values = _plain(values, field.name, limit_bytes)
        columns.append(values)
    metadata = table.schema.metadata
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(metadata))


def _plain(values: pa.ChunkedArray, name: str, limit_bytes: int) -> pa.ChunkedArray:
    text_bytes = 0
    for chunk in values.chunks:
        chunk.validate(full=True)  # Parquet requires UTF-8, but readers do not check it
        texts = chunk.dictionary
        lengths = pc.binary_length(texts)
        if (pc.max(lengths).as_py() or 0) > _MAX_TEXT_BYTES:
            raise ValueError(f"column {name} holds a string of more than {_MAX_TEXT_BYTES} bytes")
        text_bytes += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        fits = pc.match_substring_regex(texts, _PATTERNS[name]) if name in _PATTERNS else None
        used = pc.unique(chunk.indices)
        if fits is not None and not pc.all(fits.take(used), min_count=0).as_py():
            raise ValueError(f"column {name} holds an invalid value")
    if text_bytes > limit_bytes:
        raise ValueError(f"the strings of column {name} take {text_bytes} bytes")
    return values.cast(pa.string())
