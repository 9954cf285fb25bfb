"""Mapping files: what is written is read; what no match writes is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distinit.pipeline.matching.copies import is_relative_path
from distinit.pipeline.matching.mapping import read_mapping, write_mapping
from distinit.schemas.base import sha256_of
from distinit.schemas.errors import MatchError
from distinit.schemas.matching import MappingHeader, MatchedVideo, MatchLimits

CORPUS = "c" * 64
EXACT = MatchedVideo(
    video_id="a" * 16,
    path="a.mp4",
    digest="a" * 64,
    frame_count=9,
    kind="exact",
    usable=True,
    copy_path="x/a.mp4",
    copy_digest="a" * 64,
    copy_frame_count=9,
    agreeing_share=1.0,
)
REMADE = EXACT.model_copy(
    update={
        "video_id": "b" * 16,
        "digest": "b" * 64,
        "kind": "re-encoded",
        "copy_path": "b.mkv",
        "copy_digest": "e" * 64,
    }
)
MISSING = MatchedVideo(
    video_id="c" * 16,
    path="c.mp4",
    digest="d" * 64,
    frame_count=9,
    kind="missing",
    usable=False,
    reason="no file shows it",
)
KEY = b"distinit-match"


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "clips.match"
    write_mapping(path, [MISSING, REMADE, EXACT], CORPUS, MatchLimits())
    return path


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], object], **header: Any) -> None:
    """Do what an attacker would: change rows or the header, and make the digest match."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    values = json.loads(table.schema.metadata[KEY]) | {"rows_sha256": sha256_of(rows)} | header
    if "seal" not in header:
        values["seal"] = sha256_of(
            {name: value for name, value in values.items() if name != "seal"}
        )
    schema = table.schema.with_metadata({KEY: json.dumps(values).encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def test_what_is_written_is_read(mapping: Path) -> None:
    found = read_mapping(mapping)
    assert found.videos == (EXACT, REMADE, MISSING)
    header = MappingHeader(
        corpus_digest=CORPUS, limits=MatchLimits(), rows_sha256=found.header.rows_sha256
    )
    assert found.header == header.sealed()
    assert found.usable == [EXACT, REMADE]
    ids = np.array([MISSING.video_id.encode(), b"nothing", EXACT.video_id.encode()])
    assert found.rows_of(ids) == [MISSING, None, EXACT]


def test_the_digest_depends_on_usable_copies_only(mapping: Path, tmp_path: Path) -> None:
    digest = read_mapping(mapping).digest
    renamed = REMADE.model_copy(update={"copy_path": "elsewhere.mkv"})
    write_mapping(tmp_path / "moved", [renamed, EXACT], CORPUS, MatchLimits())
    assert read_mapping(tmp_path / "moved").digest == digest
    other = REMADE.model_copy(update={"copy_digest": "f" * 64})
    write_mapping(tmp_path / "other", [other, EXACT], CORPUS, MatchLimits())
    assert read_mapping(tmp_path / "other").digest != digest


@pytest.mark.parametrize(
    ("row", "changed", "found"),
    [
        (1, {"copy_path": "../b.mkv"}, "not a plain path below a folder"),
        (1, {"copy_path": "/etc/passwd"}, "not a plain path below a folder"),
        (1, {"copy_path": "a/../../b"}, "not a plain path below a folder"),
        (1, {"copy_path": "a//b"}, "not a plain path below a folder"),
        (1, {"copy_path": "b\\c"}, "not a plain path below a folder"),
        (1, {"copy_path": "b\n.mkv"}, "not a plain path below a folder"),
        (1, {"copy_path": ""}, "not a plain path below a folder"),
        (1, {"copy_digest": "x"}, "copy_digest"),
        (1, {"copy_digest": ""}, "copy_digest"),
        (1, {"copy_digest": "E" * 64}, "copy_digest"),
        (1, {"copy_digest": "b" * 64}, "kind"),
        (0, {"copy_digest": "e" * 64}, "kind"),
        (1, {"kind": "perfect"}, "kind"),
        (1, {"kind": "shifted"}, "a usable copy of kind"),
        (1, {"kind": "ambiguous"}, "a usable copy of kind"),
        (1, {"shift_frames": 1}, "shifted by 1"),
        (1, {"shift_frames": 2**63 - 1}, "shift_frames"),
        (1, {"copy_frame_count": 8}, "a usable copy of 8 frames, of a video of 9"),
        (1, {"frame_count": -1, "copy_frame_count": -1}, "frame counts"),
        (1, {"frame_count": 2**63 - 1, "copy_frame_count": 2**63 - 1}, "frame counts"),
        (1, {"agreeing_share": float("nan")}, "agreeing_share"),
        (1, {"agreeing_share": 1.5}, "agreeing_share"),
        (1, {"video_id": "../x"}, "invalid value"),
        (1, {"digest": "b"}, "invalid value"),
        (1, {"path": ""}, "invalid value"),
        (2, {"usable": True}, "a usable copy of kind"),
        (1, {"video_id": "a" * 16}, "twice"),
        (1, {"copy_path": "x/a.mp4"}, "twice"),
    ],
)
def test_rows_that_no_match_writes_are_refused(
    mapping: Path, row: int, changed: dict[str, Any], found: str
) -> None:
    rewrite(mapping, lambda rows: rows[row].update(changed))
    with pytest.raises(MatchError) as refused:
        read_mapping(mapping)
    assert found in str(refused.value.found)
    assert "run `distinit cache match` again" in str(refused.value)


def test_one_copy_for_two_videos_is_refused(mapping: Path) -> None:
    twice = {"copy_digest": "e" * 64, "kind": "re-encoded"}
    rewrite(mapping, lambda rows: rows[0].update(twice))
    with pytest.raises(MatchError) as refused:
        read_mapping(mapping)
    assert refused.value.found == f"twice: {'e' * 64}"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({"format_version": 2}, "format version"),
        ({"format_version": None}, "format version"),
        ({"format": "other"}, "format"),
        ({"corpus_digest": "c"}, "corpus_digest"),
        ({"limits": {"max_bits": 99}}, "max_bits"),
        ({"extra": 1}, "extra"),
        ({"corpus_digest": "d" * 64, "seal": "0" * 64}, "another header"),
    ],
)
def test_other_headers_are_refused(mapping: Path, header: dict[str, Any], found: str) -> None:
    rewrite(mapping, lambda rows: None, **header)
    with pytest.raises(MatchError, match=r"mapping file|format version") as refused:
        read_mapping(mapping)
    assert found in str(refused.value)


def test_changed_rows_without_a_new_digest_are_damage(mapping: Path) -> None:
    digest = read_mapping(mapping).header.rows_sha256
    rewrite(mapping, lambda rows: rows[1].update(reason="other"), rows_sha256=digest)
    with pytest.raises(MatchError) as refused:
        read_mapping(mapping)
    assert (refused.value.expected, refused.value.found) == (
        f"rows with sha256 {digest}",
        "other rows",
    )


def test_files_of_other_kinds_are_refused(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(MatchError, match="not a mapping file") as folder:
        read_mapping(tmp_path)
    assert (folder.value.found, folder.value.exit_code) == ("a folder", 2)
    with pytest.raises(MatchError, match="not a mapping file") as absent:
        read_mapping(tmp_path / "nothing")
    assert (absent.value.found, absent.value.exit_code) == ("no such file", 2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MatchError, match="not a mapping file"):
        read_mapping(tmp_path / "pipe")
    data = mapping.read_bytes()
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    with pytest.raises(MatchError, match="cannot be used"):
        read_mapping(tmp_path / "half")
    pq.write_table(pa.table({"video_id": ["a"]}), tmp_path / "columns")
    with pytest.raises(MatchError, match="cannot be used"):
        read_mapping(tmp_path / "columns")
    table = pq.read_table(mapping)
    for metadata in (None, {KEY: b""}, {KEY: b"x" * 70_000}, {KEY: b"[" * 9}, {KEY: b"[1]"}):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "header")
        with pytest.raises(MatchError):
            read_mapping(tmp_path / "header")


@pytest.mark.parametrize(
    ("path", "is_relative"),
    [
        ("a.mp4", True),
        ("a/b c [1].mp4", True),
        ("..a/b..", True),
        ("", False),
        (".", False),
        ("./a", False),
        ("a/", False),
        ("a/./b", False),
        ("/a", False),
        ("//a", False),
        ("../a", False),
        ("a/..", False),
        ("a\\b", False),
        ("a\tb", False),
        ("a\u202eb", False),
    ],
)
def test_only_plain_paths_below_a_folder_are_named(path: str, is_relative: bool) -> None:
    assert is_relative_path(path) is is_relative
