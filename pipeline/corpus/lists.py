"""Reads lists of videos: text, CSV or Parquet files with paths and URLs."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.storage import open_regular
from distinit.schemas.errors import CorpusError
from distinit.schemas.wording import reason_of

__all__ = ["LIST_FORMATS", "read_list"]

_COLUMNS = ("path", "url")  # the first one that exists is used


def read_list(source: Path) -> list[str]:
    """The paths and URLs of a list, unchanged, without empty ones.

    ``.txt``: one per line; lines that start with ``#`` are skipped. ``.csv``: the column ``path``
    or ``url`` if the first line has such a name; otherwise the only column, without a header.
    ``.parquet``: the column ``path`` or ``url``, or the only column.

    Raises CorpusError for a file that cannot be read, has no such column, or is empty.
    """
    try:
        os.close(open_regular(source))  # a pipe would be waited for
        entries = _READERS[source.suffix.lower()](source)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise CorpusError(
            f"cannot read the list {source}",
            expected="a readable text or CSV file in UTF-8, or a Parquet file",
            found=reason_of(error),
            remedy="check its permissions and encoding",
        ) from error
    entries = [entry for entry in entries if entry]
    if not entries:
        raise CorpusError(
            f"the list {source} has no videos",
            expected="paths, absolute or relative to the list's folder, or URLs",
            remedy="write the paths of the videos into it",
        )
    return entries


def _read_text(source: Path) -> list[str]:
    lines = (line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if not line.startswith("#")]


def _read_csv(source: Path) -> list[str]:
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    if rows and (name := _column(rows[0])) is not None:
        return [_cell(source, rows, number, name) for number in range(1, len(rows))]
    widths = {len(row) for row in rows}
    if widths - {1}:
        raise _no_column(source, f"{max(widths)} columns, the first line: {', '.join(rows[0])}")
    return [row[0] for row in rows]


def _column(names: Sequence[str]) -> str | None:
    return next((name for name in _COLUMNS if name in names), None)


def _cell(source: Path, rows: list[list[str]], number: int, name: str) -> str:
    if len(rows[number]) != len(rows[0]):
        raise CorpusError(
            f"a row of the list {source} has another number of columns than its first line",
            expected=f"{len(rows[0])} columns",
            found=f"{len(rows[number])} in row {number + 1}",
            remedy="quote paths that contain commas",
        )
    return rows[number][rows[0].index(name)]


def _read_parquet(source: Path) -> list[str]:
    with source.open("rb") as file:  # pyarrow takes paths such as ~a and a:b for others
        return _read_column(file, source)


def _read_column(file: BinaryIO, source: Path) -> list[str]:
    schema = pq.read_schema(file)
    name = _column(schema.names) or (schema.names[0] if len(schema) == 1 else None)
    if name is None:
        raise _no_column(source, "columns " + ", ".join(schema.names))
    kind = schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise _no_column(source, f"column {name} of type {kind}")
    column = pq.read_table(file, columns=[name]).column(name)
    return [entry or "" for entry in column.to_pylist()]


def _no_column(source: Path, found: str) -> CorpusError:
    return CorpusError(
        f"the list {source} has no column of paths or URLs",
        expected="a text column called path or url, or a single column",
        found=found,
        remedy="call the column of paths and URLs: path",
    )


_READERS: Mapping[str, Callable[[Path], list[str]]] = {
    ".txt": _read_text,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
LIST_FORMATS = tuple(_READERS)
