"""Every kind of damage is found, by its file's name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import caches
from helpers.caches import resign
from helpers.progress import RecordingProgress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinit.pipeline.cache.cards import checksum_lines
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.shard_rows import encode_shard
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.cache.verify import verify_cache


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=2))


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_cache_has_no_problems(cache_root: Path, deep: bool) -> None:
    report = verify_cache(cache_root, deep=deep)
    assert report.problems == ()
    assert report.ok
    assert report.complete
    said = json.loads((cache_root / "manifest.json").read_text())["content_digest"]
    assert report.content_digest == said
    assert report.notes == ()
    assert report.rows == 279
    files = [p for p in cache_root.rglob("*") if p.is_file()]
    assert report.files == len(files) - 1  # without .lock


def test_progress_counts_the_bytes_of_all_units(cache_root: Path) -> None:
    progress = RecordingProgress()
    verify_cache(cache_root, progress=progress)
    layout = CacheLayout(cache_root)
    committed = {
        name: entry["size"]
        for path in cache_root.glob("teachers/*/commits/*.json")
        for name, entry in json.loads(path.read_text())["files"].items()
    }
    assert layout.relative(layout.frames(0)) in committed
    total_mb = sum(committed.values()) / 1e6
    assert progress.started == [("verify", round(total_mb, 1), "MB", 0)]
    assert progress.advanced == pytest.approx(total_mb)


def test_the_report_does_not_depend_on_the_number_of_threads(cache_root: Path) -> None:
    for name in ("teachers/alpha/logits/c/3/0", "frames/unit-00001.parquet"):
        data = bytearray((cache_root / name).read_bytes())
        data[40] ^= 1
        (cache_root / name).write_bytes(data)
    (cache_root / "teachers/beta/logits_affine/c/5/0").unlink()
    alone = verify_cache(cache_root, workers=1)
    assert alone.damaged_units == (("alpha", 1), ("alpha", 3), ("beta", 1), ("beta", 5))
    assert [problem.split(": ")[0] for problem in alone.problems] == [
        "teachers/beta/logits_affine/c/5/0",
        "frames/unit-00001.parquet",
        "teachers/alpha/logits/c/3/0",
    ]
    assert all(verify_cache(cache_root, workers=n) == alone for n in (2, 7))


def test_every_encoding_verifies(tmp_path: Path, corpus: Any) -> None:
    teachers = [
        caches.make_teacher("k", classes=9, encoding="topk:3"),
        caches.make_teacher("f", target="features"),
        caches.make_teacher("f8", target="features", encoding="int8"),
        caches.make_teacher("one", classes=1),
    ]
    caches.run_all(tmp_path / "c", corpus, teachers)
    assert verify_cache(tmp_path / "c").problems == ()


def test_an_incomplete_cache_verifies(tmp_path: Path, corpus: Any, teachers: list[Any]) -> None:
    with caches.open_writer(tmp_path / "c", corpus, teachers) as writer:
        caches.run_task(writer.pending_groups()[0], corpus)
        writer.finalise()
    report = verify_cache(tmp_path / "c")
    assert report.problems == ()
    assert report.rows > 0
    assert (report.complete, report.content_digest) == (False, "")
    (tmp_path / "c" / "frames" / "unit-00000.parquet").unlink()
    assert not verify_cache(tmp_path / "c", deep=False).ok


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_flipped_bit_is_found(cache_root: Path, data: st.DataObject) -> None:
    names = [*list_tree(CacheLayout(cache_root)).files, "manifest-sha256.txt"]
    path = cache_root / data.draw(st.sampled_from(names))
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bad)
    try:
        report = verify_cache(cache_root)
    finally:
        path.write_bytes(good)
    assert any(path.name in p or path.parent.name in p for p in report.problems), report


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "plan.parquet",
        "videos.parquet",
        "README.md",
        "croissant.json",
        "frames/unit-00001.parquet",
        "teachers/alpha/teacher.json",
        "teachers/alpha/logits/zarr.json",
        "teachers/beta/logits/c/0/0",
        "teachers/beta/logits_affine/c/0/0",
        "teachers/alpha/confidence/unit-00001.parquet",
        "teachers/alpha/commits/unit-00001.json",
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_a_deleted_or_truncated_file_is_found(cache_root: Path, name: str, deep: bool) -> None:
    path = cache_root / name
    good = path.read_bytes()
    path.unlink()
    assert not verify_cache(cache_root, deep=deep).ok
    path.write_bytes(good[: len(good) // 2])
    if deep or (path.suffix not in {".md"} and path.name != "croissant.json"):
        assert not verify_cache(cache_root, deep=deep).ok
    path.write_bytes(good)
    assert verify_cache(cache_root, deep=deep).ok


def swap(a: Path, b: Path) -> None:
    held = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(held)


ANY_FILE = (
    "README.md",
    "croissant.json",
    "manifest.json",
    "manifest-sha256.txt",
    "plan.parquet",
    "videos.parquet",
    "frames/unit-00000.parquet",
    "teachers/alpha/teacher.json",
    "teachers/alpha/logits/zarr.json",
    "teachers/alpha/logits/c/0/0",
)


@pytest.mark.parametrize("name", ANY_FILE)
@pytest.mark.parametrize("deep", [False, True])
def test_a_file_of_any_length_is_found_and_not_hashed(
    cache_root: Path, name: str, deep: bool
) -> None:
    """A sparse file takes no room to send; to hash this one would take an hour."""
    os.truncate(cache_root / name, 1 << 42)
    problems = verify_cache(cache_root, deep=deep).problems
    assert any(Path(name).name in problem for problem in problems), problems


@pytest.mark.parametrize("signed", [False, True])
def test_two_swapped_shards_are_found(cache_root: Path, signed: bool) -> None:
    shards = sorted((cache_root / "teachers/alpha/logits/c").glob("*/0"))
    swap(shards[1], shards[2])
    if signed:
        resign(cache_root)
    problems = verify_cache(cache_root).problems
    assert any("alpha" in problem for problem in problems)


@pytest.mark.parametrize(
    ("folder", "suffix"), [("frames", "parquet"), ("teachers/alpha/commits", "json")]
)
def test_two_swapped_records_are_found(cache_root: Path, folder: str, suffix: str) -> None:
    base = cache_root / folder
    swap(base / f"unit-00001.{suffix}", base / f"unit-00002.{suffix}")
    resign(cache_root)
    assert not verify_cache(cache_root).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"content_digest": "0" * 64},
        {"complete": False},
        {"corpus": {"digest": "0" * 64, "videos": 6, "failed": 1, "frames": 279}},
        {"sampling": {"mode": "stride", "stride": 2}},
        {"row_space": {"capacity": 64, "units": 7, "rows": 278}},
        {"row_space": {"capacity": 64, "units": 6, "rows": 279}},
        {"format_version": 1},
        {"corpus": {"digest": "0" * 64, "videos": 6, "failed": 1, "damaged": 1, "frames": 279}},
        {"surprise": 1},
    ],
)
def test_an_edited_and_signed_manifest_is_found(cache_root: Path, changes: dict[str, Any]) -> None:
    edit_json(cache_root / "manifest.json", **changes)
    resign(cache_root)
    assert not verify_cache(cache_root, deep=False).ok


def test_targets_that_were_changed_and_signed_are_found(cache_root: Path) -> None:
    spec = array_specs("float16", 7)[0]
    forged = np.zeros((64, 7), np.float16)
    forged[:, 3] = 5
    (cache_root / "teachers/alpha/logits/c/1/0").write_bytes(encode_shard(spec, forged, 64))
    resign(cache_root)
    problems = "\n".join(verify_cache(cache_root).problems)
    assert "unit-00001 of alpha: content digest differs" in problems
    assert "confidence of row" in problems


@pytest.mark.parametrize("name", ["entropy_nats", "top1_class", "margin", "log_z"])
@pytest.mark.parametrize("teacher", ["alpha", "beta"])
def test_confidence_that_does_not_follow_is_found(
    cache_root: Path, name: str, teacher: str
) -> None:
    path = cache_root / f"teachers/{teacher}/confidence/unit-00001.parquet"
    table = pq.read_table(path)
    values = table.column(name).to_numpy().copy()
    values[5] = (values[5] + 1) % 5
    place = table.schema.names.index(name)
    field = table.schema.field(name)
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), path)
    resign(cache_root)
    row = table.column("row")[5].as_py()
    assert any(f"confidence of row {row}" in p for p in verify_cache(cache_root).problems)


def test_extra_files_are_found(cache_root: Path) -> None:
    (cache_root / "teachers/alpha/notes.txt").write_text("hello")
    (cache_root / "frames/unit-00009.parquet.partial").write_text("half")
    (cache_root / "frames/.lock").touch()
    assert set(verify_cache(cache_root, deep=False).problems) == {
        "teachers/alpha/notes.txt: not part of the cache, remove it",
        "frames/unit-00009.parquet.partial: not part of the cache, remove it",
        "frames/.lock: not part of the cache, remove it",
    }


@pytest.mark.parametrize("deep", [False, True])
def test_files_below_a_private_name_are_extra_files(cache_root: Path, deep: bool) -> None:
    for name in (".lock", ".fence", "cache.sig"):
        (cache_root / name).unlink(missing_ok=True)
        (cache_root / name).mkdir()
        (cache_root / name / "extra.txt").write_text("hello")
    assert set(verify_cache(cache_root, deep=deep).problems) == {
        ".lock/extra.txt: not part of the cache, remove it",
        ".fence/extra.txt: not part of the cache, remove it",
        "cache.sig/extra.txt: not part of the cache, remove it",
    }


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "plan.parquet",
        "manifest-sha256.txt",
        "frames/unit-00001.parquet",
        "teachers/alpha/logits/c/1/0",
        "teachers/alpha/commits/unit-00001.json",
        ".lock",
        ".fence",
        ".staging",
        "more",
    ],
)
def test_links_and_pipes_are_found_and_not_read(
    cache_root: Path, tmp_path: Path, name: str, deep: bool
) -> None:
    path = cache_root / name
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path)
    report = verify_cache(cache_root, deep=deep)
    assert report.problems == (f"{name}: a link or a special file",)
    assert report.notes == ("nothing was read; remove the links and special files first",)
    path.unlink()
    os.mkfifo(path)
    assert verify_cache(cache_root, deep=deep).problems == report.problems


def test_what_a_writer_left_behind_is_told(cache_root: Path) -> None:
    (cache_root / ".staging/unit-00001.7-ab").mkdir(parents=True)
    assert verify_cache(cache_root, deep=False).problems == ()
    (cache_root / ".staging/unit-00001.7-ab/frames.parquet").write_text("half")
    (cache_root / ".fence").write_text("token")
    report = verify_cache(cache_root, deep=False)
    assert report.problems == (
        ".staging/unit-00001.7-ab/frames.parquet: left behind by a writer, not part of the cache",
    )
    assert report.notes == (".fence: a process is writing this cache, or was killed",)


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "teachers/alpha/teacher.json",
        "teachers/alpha/logits/zarr.json",
        "teachers/alpha/commits/unit-00001.json",
        "croissant.json",
    ],
)
def test_doubled_keys_are_found(cache_root: Path, name: str) -> None:
    path = cache_root / name
    text = path.read_text()
    key, value = next(iter(json.loads(text).items()))
    path.write_text(text.replace("{", "{" + f"{json.dumps(key)}: {json.dumps(value)}, ", 1))
    layout = CacheLayout(cache_root)
    layout.checksums.write_text(checksum_lines(layout, list_tree(layout).files, {}))
    assert any(Path(name).name in p for p in verify_cache(cache_root, deep=False).problems)


def test_one_damaged_part_does_not_hide_the_others(cache_root: Path) -> None:
    (cache_root / "teachers/alpha/commits/unit-00001.json").write_text("{}")
    (cache_root / "teachers/beta/logits/c/2/0").unlink()
    (cache_root / "notes.txt").touch()
    report = verify_cache(cache_root)
    assert report.damaged_units == (("alpha", 1), ("beta", 2))
    assert len(report.problems) == 3
    assert "unit-00001.json is not a valid UnitCommit" in report.problems[0]
    assert report.problems[1:] == (
        "teachers/beta/logits/c/2/0: missing",
        "notes.txt: not part of the cache, remove it",
    )


def test_problems_are_safe_to_print(cache_root: Path) -> None:
    (cache_root / "x\nok: all bytes match\x1b[2J").touch()
    (problem,) = verify_cache(cache_root).problems
    assert problem == "x\\nok: all bytes match\\x1b[2J: not part of the cache, remove it"


def test_a_folder_that_is_no_cache(tmp_path: Path) -> None:
    report = verify_cache(tmp_path)
    assert not report.ok
    assert "manifest.json does not exist" in report.problems[0]
