"""Caches of strangers: refused by name, in bounded memory, whatever their bytes are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distinit.pipeline.cache import TargetCache
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.tables import read_plan, read_planned_ids, read_table, write_table
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import CacheCorruptError, StorageError
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FRAMES_SCHEMA, PLAN_SCHEMA, VIDEOS_SCHEMA

ID, DIGEST = "0" * 16, "0" * 64
BOUND_MIB = 200  # of address space, beyond what Python and Arrow take when idle


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def commit_table(root: Path, path: Path, table: pa.Table) -> None:
    """What a sender can do: every record agrees with the table."""
    write_table(table, path)
    name = path.relative_to(root).as_posix()
    entry = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    for record in root.glob(f"teachers/*/commits/{path.stem}.json"):
        commit = json.loads(record.read_text())
        if name in commit["files"]:
            commit["files"][name] = entry
            sealed = UnitCommit.model_validate_json(json.dumps(commit)).resealed()
            record.write_text(sealed.model_dump_json())


def unit_table(root: Path, kind: str) -> tuple[Path, pa.Table]:
    """The table of a unit with some rows."""
    folder = root / ("frames" if kind == "frames" else "teachers/alpha/confidence")
    schema = FRAMES_SCHEMA if kind == "frames" else CONFIDENCE_SCHEMA
    path = next(p for p in sorted(folder.iterdir()) if pq.read_metadata(p).num_rows > 8)
    return path, read_table(path, schema)


def with_value(table: pa.Table, name: str, place: int, value: Any) -> pa.Table:
    values = table.column(name).to_pylist()
    values[place] = value
    number = table.schema.get_field_index(name)
    return table.set_column(
        number, table.schema.field(name), [pa.array(values, table.schema.field(name).type)]
    )


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("frames", "row", -1),
        ("frames", "row", 2**62),
        ("frames", "row", 0),
        ("frames", "frame_index", -1),
        ("frames", "frame_index", 2**31),
        ("frames", "frame_index", 2**62),
        ("frames", "video_id", "f" * 16),
        ("frames", "video_id", "../../etc/passwd"),
        ("frames", "video_id", "x" * 65),
        ("frames", "time_base", "one half"),
        ("confidence", "entropy_nats", float("nan")),
        ("confidence", "entropy_nats", -0.5),
        ("confidence", "entropy_nats", 99.0),
        ("confidence", "log_z", float("inf")),
        ("confidence", "log_z", float("nan")),
        ("confidence", "top1_class", -1),
        ("confidence", "top1_class", 7),
        ("confidence", "top1_probability", float("nan")),
        ("confidence", "margin", 2.0),
    ],
)
def test_values_that_cannot_be_are_refused_although_every_record_agrees(
    cache_root: Path, kind: str, name: str, value: Any
) -> None:
    path, table = unit_table(cache_root, kind)
    commit_table(cache_root, path, with_value(table, name, 3, value))
    with pytest.raises(CacheCorruptError):
        _ = TargetCache.open(cache_root).index


def plan_bytes(**changes: Any) -> dict[str, Any]:
    row = {
        "video_id": ID,
        "path": "a.mp4",
        "digest": DIGEST,
        "size_bytes": 1,
        "mtime_ns": 1,
        "probed_frames": 9,
        "probed_fps": 25.0,
        "first_row": 0,
        "reserved_rows": 9,
        "task": 0,
        "in_corpus": True,
    }
    return row | changes


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"capacity": "64"},
        {"capacity": "0", "base_videos": "1"},
        {"capacity": "-64", "base_videos": "1"},
        {"capacity": "63", "base_videos": "1"},
        {"capacity": "1e9999", "base_videos": "1"},
        {"capacity": "9" * 5000, "base_videos": "1"},
        {"capacity": "64", "base_videos": "-1"},
        {"capacity": "\u0666\u0664", "base_videos": "1"},
        {"capacity": b"\xff\xfe", "base_videos": "1"},
        {"capacity": str(1 << 40), "base_videos": "1"},
    ],
)
def test_a_plan_without_a_usable_unit_size_is_refused(
    tmp_path: Path, metadata: dict[str, Any]
) -> None:
    table = pa.Table.from_pylist([plan_bytes()], schema=PLAN_SCHEMA.with_metadata(metadata))
    write_table(table, tmp_path / "plan.parquet")
    for read in (read_plan, read_planned_ids):
        with pytest.raises(CacheCorruptError, match="has no valid unit size"):
            read(tmp_path / "plan.parquet")


@pytest.mark.parametrize(
    "changes",
    [
        {"first_row": -1},
        {"first_row": 2**63 - 1},
        {"reserved_rows": -5},
        {"reserved_rows": 2**63 - 1},
        {"digest": "nonsense"},
        {"video_id": "a" * 200},
        {"video_id": "a\nok: all bytes match"},
        {"path": "a\0b"},
    ],
)
def test_a_plan_with_a_row_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    schema = PLAN_SCHEMA.with_metadata({"capacity": "64", "base_videos": "1"})
    write_table(
        pa.Table.from_pylist([plan_bytes(**changes)], schema=schema), tmp_path / "plan.parquet"
    )
    for read in (read_plan, read_planned_ids):
        if read is read_plan or ("digest" not in changes and "path" not in changes):
            with pytest.raises(CacheCorruptError):
                read(tmp_path / "plan.parquet")


def test_a_plan_of_other_numbers_is_read(tmp_path: Path) -> None:
    schema = PLAN_SCHEMA.with_metadata({"capacity": "64", "base_videos": "1"})
    write_table(pa.Table.from_pylist([plan_bytes()], schema=schema), tmp_path / "plan.parquet")
    assert read_plan(tmp_path / "plan.parquet").units == 1
    ids, capacity, units = read_planned_ids(tmp_path / "plan.parquet")
    assert (ids.tolist(), capacity, units) == ([ID.encode()], 64, 1)


FILES = (
    "manifest.json",
    "plan.parquet",
    "videos.parquet",
    "manifest-sha256.txt",
    "teachers/alpha/teacher.json",
    "teachers/alpha/logits/zarr.json",
    "teachers/alpha/commits/unit-00001.json",
    "teachers/alpha/confidence/unit-00001.parquet",
    "frames/unit-00001.parquet",
)


def put_in_place(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(5 << 30)
    else:
        path.write_bytes(b"" if kind == "empty" else os.urandom(4096))


@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "empty", "noise", "sparse"])
def test_what_is_no_file_of_a_cache_is_refused_at_once(
    cache_root: Path, tmp_path: Path, kind: str
) -> None:
    for name in FILES:
        if name == "manifest-sha256.txt" and kind in ("empty", "noise", "sparse"):
            continue  # verify reads all of it; here it lists none of the files that are read
        path, aside = cache_root / name, tmp_path / "aside"
        path.rename(aside)
        put_in_place(path, kind)
        with pytest.raises(CacheCorruptError):
            _ = TargetCache.open(cache_root).index
        path.rmdir() if kind == "folder" else path.unlink()
        aside.rename(path)
    assert len(TargetCache.open(cache_root).index.video_ids) == 6


@pytest.mark.parametrize(
    ("units", "capacity"), [(10_000_000, 1 << 20), (10_000_000, 64), (7, 1 << 20), (6, 64), (8, 64)]
)
def test_rows_that_the_files_cannot_hold_are_refused_and_take_no_room(
    cache_root: Path, units: int, capacity: int
) -> None:
    manifest = json.loads((cache_root / "manifest.json").read_text())
    manifest["row_space"] |= {"units": units, "capacity": capacity}
    (cache_root / "manifest.json").write_text(json.dumps(manifest))
    for path in cache_root.glob("teachers/*/*/zarr.json"):
        array = json.loads(path.read_text())
        array["shape"][0] = units * capacity
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = capacity
        path.write_text(json.dumps(array))
    with pytest.raises(CacheCorruptError):
        _ = TargetCache.open(cache_root).index
    with pytest.raises(CacheCorruptError):
        _ = TargetCache.open(cache_root, allow_incomplete=True).index


def test_a_plan_that_agrees_with_a_manifest_of_far_too_many_rows_is_refused(
    cache_root: Path,
) -> None:
    units, capacity = 20, 1 << 20  # 21 million rows in shards of 279
    layout = CacheLayout(cache_root)
    plan = read_table(layout.plan, PLAN_SCHEMA)
    rows = [plan_bytes(first_row=0, reserved_rows=units * capacity)]
    metadata = plan.schema.metadata | {b"capacity": str(capacity).encode(), b"base_videos": b"1"}
    write_table(pa.Table.from_pylist(rows, PLAN_SCHEMA.with_metadata(metadata)), layout.plan)
    manifest = json.loads(layout.manifest.read_text())
    manifest["row_space"] |= {"units": units, "capacity": capacity}
    manifest["complete"], manifest["content_digest"] = False, ""
    layout.manifest.write_text(json.dumps(manifest))
    layout.checksums.unlink()
    for path in cache_root.glob("teachers/*/*/zarr.json"):
        array = json.loads(path.read_text())
        array["shape"][0] = units * capacity
        array["chunk_grid"]["configuration"]["chunk_shape"][0] = capacity
        path.write_text(json.dumps(array))
    with pytest.raises(CacheCorruptError, match="more rows than its shards can hold"):
        _ = TargetCache.open(cache_root, allow_incomplete=True).index


def test_a_lost_commit_does_not_silently_drop_its_rows(cache_root: Path) -> None:
    (cache_root / "teachers/alpha/commits/unit-00002.json").unlink()
    with pytest.raises(CacheCorruptError, match="commit records of teacher alpha are missing"):
        TargetCache.open(cache_root)


@pytest.mark.parametrize("name", ["plan.parquet", "videos.parquet"])
def test_a_table_that_is_not_as_listed_is_refused(cache_root: Path, name: str) -> None:
    schema = PLAN_SCHEMA if name == "plan.parquet" else VIDEOS_SCHEMA
    _ = TargetCache.open(cache_root).index
    table = read_table(cache_root / name, schema)
    write_table(with_value(table, "digest", 0, "f" * 64), cache_root / name)
    with pytest.raises(CacheCorruptError, match=r"does not match manifest-sha256\.txt"):
        _ = TargetCache.open(cache_root).index


def test_targets_that_are_not_finite_never_reach_training(cache_root: Path) -> None:
    from distinit.pipeline.cache.encoding import array_specs
    from distinit.pipeline.cache.shards import ShardReader, crc32c

    cache = TargetCache.open(cache_root)
    row = int(np.flatnonzero(cache.index.video_number >= 0)[0])
    unit, inside = divmod(row, 64)
    for teacher, name, value in (
        ("alpha", "logits", np.float16(np.nan)),
        ("alpha", "logits", np.float16(np.inf)),
        ("beta", "logits_affine", np.float32(np.nan)),
    ):
        record = cache.teachers[teacher]
        specs = {s.name: s for s in array_specs(record.encoding, record.identity.classes)}
        spec = specs[name]
        path = cache.layout.shard(teacher, name, unit)
        whole = path.read_bytes()
        reader = ShardReader(cache.layout, teacher, spec, unit, 64)
        start = int(reader.chunk_offsets[inside // 16])
        data = bytearray(whole)
        place = start + inside % 16 * spec.row_bytes
        data[place : place + spec.dtype.itemsize] = value.tobytes()
        end = start + 16 * spec.row_bytes
        data[end : end + 4] = crc32c(bytes(data[start:end])).to_bytes(4, "little")
        path.write_bytes(data)
        with pytest.raises(CacheCorruptError, match="not finite") as caught:
            cache.targets(teacher).logits(np.array([row]))
        assert f"row {row}" in str(caught.value)
        path.write_bytes(whole)


@pytest.mark.parametrize("encoding", ["topk:7", "topk:8", "topk:0", "float99", "topk:9999999"])
def test_an_encoding_that_a_teacher_cannot_have_is_refused(cache_root: Path, encoding: str) -> None:
    edit_json(cache_root / "teachers/alpha/teacher.json", encoding=encoding)
    manifest = json.loads((cache_root / "manifest.json").read_text())
    manifest["teachers"]["alpha"]["encoding"] = encoding
    (cache_root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CacheCorruptError, match="encoding"):
        TargetCache.open(cache_root)


def test_an_index_that_another_user_can_write_is_not_trusted(cache_root: Path) -> None:
    folder = TargetCache.open(cache_root).index.folder
    folder.chmod(0o777)
    with pytest.raises(StorageError, match="not made by distinit"):
        _ = TargetCache.open(cache_root).index
    folder.chmod(0o755)
    assert TargetCache.open(cache_root).index.folder == folder


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("fidelity", {"top1_agreements": 10**6}),
        ("fidelity", {"filter_flips": 10**6}),
        ("fidelity", {"kl_nats_sum": 1e308}),
        ("answers", {"ties": 10**6}),
        ("answers", {"top_class_frames": 10**6}),
        ("answers", {"entropy_nats_sum": 1e308}),
    ],
)
def test_sums_that_cannot_be_are_refused_and_verify_tells(
    cache_root: Path, part: str, change: dict[str, float]
) -> None:
    path = cache_root / "teachers/alpha/commits/unit-00000.json"
    record = json.loads(path.read_text())
    record[part] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(CacheCorruptError, match=r"exceeds frames|less than or equal"):
        TargetCache.open(cache_root).read_state()
    assert not verify_cache(cache_root, deep=False).ok
