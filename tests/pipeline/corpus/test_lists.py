"""Lists of videos in three formats, and files that are not valid lists."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distinit.pipeline.corpus.lists import read_list
from distinit.schemas.errors import CorpusError

ENTRIES = ["a b.mp4", "-x/[1], y.avi", "http://host/löwe.mp4?q=1,2", "/abs/c.mkv"]


def test_text_skips_comments_and_empty_lines(tmp_path: Path) -> None:
    source = tmp_path / "l.txt"
    source.write_text("\ufeff# videos\n\n" + "\n".join(ENTRIES) + "\n", encoding="utf-8")
    assert read_list(source) == ENTRIES


def test_csv_reads_the_column_path_at_any_position(tmp_path: Path) -> None:
    source = tmp_path / "l.CSV"
    rows = ["label,path", *(f'3,"{entry}"' for entry in ENTRIES)]
    source.write_text("\r\n".join(rows), encoding="utf-8-sig")
    assert read_list(source) == ENTRIES


@pytest.mark.parametrize("header", [[], ["path"]])
def test_csv_of_one_column_needs_no_header(header: list[str], tmp_path: Path) -> None:
    source = tmp_path / "l.csv"
    source.write_text("\n".join([*header, "a.mp4", "", "b.mp4"]))
    assert read_list(source) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("columns", [["path", "label"], ["file"]])
def test_parquet_reads_the_column_path_or_the_only_one(columns: list[str], tmp_path: Path) -> None:
    source = tmp_path / "l.parquet"
    pq.write_table(pa.table({name: [*ENTRIES, None] for name in columns}), source)
    assert read_list(source) == ENTRIES


BAD = {
    "two columns, no path": ("l.csv", b"file,label\na.mp4,1\n", "no column of paths or URLs"),
    "a comma that is not quoted": ("l.csv", b"path,label\na,b.mp4,1\n", "row 2"),
    "not UTF-8": ("l.txt", b"\xff\xfe\x00a", "UTF-8"),
    "not Parquet": ("l.parquet", b"PAR1 torn", "cannot read the list"),
    "comments only": ("l.txt", b"# nothing\n", "has no videos"),
    "header only": ("l.csv", b"path\n", "has no videos"),
    "an open quote": ("l.csv", b'path\n"a.mp4\n', "cannot read the list"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lists_are_refused_with_a_reason(case: str, tmp_path: Path) -> None:
    name, content, message = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError) as refused:
        read_list(tmp_path / name)
    assert message in str(refused.value)
    assert name in str(refused.value)


def test_a_parquet_column_of_numbers_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": [1, 2]}), tmp_path / "l.parquet")
    with pytest.raises(CorpusError, match="int64"):
        read_list(tmp_path / "l.parquet")
