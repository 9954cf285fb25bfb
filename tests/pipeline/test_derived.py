"""Derived columns are found, mapped, and made again when they are damaged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.derived import (
    MARKER,
    columns_are_valid,
    derive_columns,
    find_texts,
    index_folder,
    map_column,
    new_column,
    release_pages,
)
from distinit.schemas.errors import StorageError

TEXTS = st.lists(st.text("abc", max_size=5), max_size=12)


@given(column=TEXTS, queries=TEXTS, as_order=st.booleans())
def test_strings_of_any_width_are_found(
    column: list[str], queries: list[str], as_order: bool
) -> None:
    column_N = np.array([text.encode() for text in column], np.bytes_)
    order_N = np.argsort(column_N, kind="stable")
    query_M = np.array([text.encode() for text in queries], np.bytes_)
    if as_order:
        position_M, known_M = find_texts(column_N, query_M, order_N)
        found = [
            column[order_N[p]] if k else None for p, k in zip(position_M, known_M, strict=True)
        ]
    else:
        position_M, known_M = find_texts(column_N[order_N], query_M)
        ordered = sorted(column)
        found = [ordered[p] if k else None for p, k in zip(position_M, known_M, strict=True)]
    assert found == [text if text in column else None for text in queries]
    assert [int(p) for p, k in zip(position_M, known_M, strict=True) if k] == [
        sorted(column).index(text) for text in queries if text in column
    ]


def write(folder: Path) -> None:
    new_column(folder, "numbers", 4, np.int64)[:] = [3, 1, 4, 1]
    new_column(folder, "none", 0, "S3")


def test_columns_are_mapped_and_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "key"
    derive_columns(folder, 1, write)
    numbers = map_column(folder, "numbers")
    assert numbers.tolist() == [3, 1, 4, 1]
    assert map_column(folder, "none").shape == (0,)
    with pytest.raises(ValueError, match="read-only"):
        numbers[0] = 5


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "json", "version"])
def test_damage_is_detected(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "key"
    derive_columns(folder, 1, write)
    assert columns_are_valid(folder, 1)
    path = folder / ("index.json" if damage == "json" else "numbers.npy")
    data = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage != "version":
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"flip": flipped, "cut": data[:-9], "json": b"{"}[damage])
    assert not columns_are_valid(folder, 2 if damage == "version" else 1)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    derive_columns(folder, 1, write)

    def fail(partial: Path) -> None:
        write(partial)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        derive_columns(folder, 1, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert columns_are_valid(folder, 1)


def test_a_damaged_index_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    derive_columns(folder, 1, write)
    (folder / "numbers.npy").write_bytes(b"")
    derive_columns(folder, 1, write)
    assert columns_are_valid(folder, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("as_link", [False, True])
def test_a_folder_that_was_not_made_here_is_never_removed(tmp_path: Path, as_link: bool) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    folder = precious
    if as_link:
        (precious / MARKER).touch()
        folder = tmp_path / "key"
        folder.symlink_to(precious)
    with pytest.raises(StorageError, match="was not made by distinit"):
        derive_columns(folder, 1, write)
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("key", ["", "..", "/tmp", "../" * 3 + "x", "A" * 64, "0" * 63, "0" * 65])
def test_only_a_sha256_names_an_index(key: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        index_folder(key)


def test_the_disk_space_of_a_column_is_allocated_at_once(tmp_path: Path) -> None:
    new_column(tmp_path, "numbers", 1 << 20, np.int64)
    status = (tmp_path / "numbers.npy").stat()
    assert status.st_blocks * 512 >= status.st_size > 8 << 20


@pytest.mark.parametrize("place", ["/proc/1", "file"])
def test_an_unusable_index_folder_is_reported_with_its_variable(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        derive_columns(tmp_path / place / "distinit" / ("0" * 64), 1, lambda folder: None)


def test_released_pages_are_not_resident_and_keep_what_was_written(tmp_path: Path) -> None:
    values_N = new_column(tmp_path, "large", 1 << 20, np.int64)
    values_N[:] = 7
    before_kb = _resident_kb(tmp_path / "large.npy")
    release_pages(values_N[5:9])
    assert (before_kb >= 8 << 10, _resident_kb(tmp_path / "large.npy")) == (True, 0)
    assert values_N.sum() == 7 << 20
    assert map_column(tmp_path, "large")[-1] == 7
    release_pages(np.ones(3))


def _resident_kb(path: Path) -> int:
    """Resident memory of the mappings of a file in this process."""
    maps = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    found = [re.search(r"^Rss: +(\d+) kB", one, re.MULTILINE) for one in maps if str(path) in one]
    return sum(int(match[1]) for match in found if match)
