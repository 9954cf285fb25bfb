"""JSON records: what is written is read back; what readers could disagree on is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from distinit.pipeline.records import parse_json, read_json, read_record, write_record
from distinit.schemas.base import Record
from distinit.schemas.errors import FrameStoreError


class Shelf(Record):
    format: Literal["test-shelf"] = "test-shelf"
    format_version: int = 2
    books: int = Field(ge=0)
    names: tuple[str, ...] = ()


def read(path: Path, limit_bytes: int = 1_000) -> Shelf:
    return read_record(
        path, Shelf, error=FrameStoreError, remedy="copy it again", limit_bytes=limit_bytes
    )


def test_a_written_record_is_read_back(tmp_path: Path) -> None:
    shelf = Shelf(books=2, names=("a", "ä\u202e"))
    write_record(shelf, tmp_path / "shelf.json")
    assert read(tmp_path / "shelf.json") == shelf


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_ordinary_json_reads_as_python_reads_it(value: object) -> None:
    try:
        data = json.dumps(value).encode()
        data.decode()
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        with pytest.raises(ValueError, match="surrogates"):
            parse_json(json.dumps(value).encode())
        return
    assert parse_json(data) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"books": 1, "books": 2}', '"books" occurs twice'),
        (b'{"books": NaN}', "NaN is not JSON"),
        (b'{"books": Infinity}', "Infinity is not JSON"),
        (b'{"books": 1e999}', "beyond 64 bits"),
        (b'{"books": 9223372036854775808}', "beyond 64 bits"),
        (b'{"books": ' + b"9" * 900 + b"}", "beyond 64 bits"),
        (b'{"names": ["\\ud800"]}', "surrogates"),
        (b'{"names": ["\\uDFFF"]}', "surrogates"),
        (b'{"names": ["\xff"]}', "not UTF-8 text"),
        (b"\x00" * 100, "Expecting value"),
        (b"", "Expecting value"),
        (b"[" * 999, "recursion|Expecting value"),
        (b"[1, 2]", "list"),
        (b'{"books": "1"}', "books = 1"),
        (b'{"books": -1}', "books = -1"),
        (b'{"books": 1, "more": 2}', "more = 2"),
        (b'{"books": 1, "format_version": 3}', "3"),
        (b'{"books": 1, "format": "other"}', '"other"'),
        (b" " * 1_001, "more than 1,000 bytes"),
    ],
)
def test_a_bad_record_is_refused_with_the_error_of_the_caller(
    tmp_path: Path, data: bytes, found: str
) -> None:
    path = tmp_path / "shelf.json"
    path.write_bytes(data)
    with pytest.raises(FrameStoreError, match=found):
        read(path)


def test_another_version_is_not_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "shelf.json"
    path.write_bytes(b'{"format_version": 3, "a_new_field": true}')
    with pytest.raises(FrameStoreError, match="or install the version of distinit that wrote it"):
        read(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "sparse"])
def test_large_and_special_files_are_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "shelf.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    expected = {
        "missing": "does not exist",
        "folder": "not a regular file",
        "pipe": "not a regular file",
        "device": "not a regular file",
        "sparse": "more than 67,108,864 bytes",
    }
    with pytest.raises(FrameStoreError, match=expected[kind]):
        read_json(path, error=FrameStoreError, remedy="copy it again")
