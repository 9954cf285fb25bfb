"""No flipped bit is written into a fresh cache that verifies: not by growth, not by resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import caches

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_cache_plan
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheCorruptError, CacheMismatchError
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import PLAN_SCHEMA


def change_plan(root: Path, column: str) -> None:
    """Change one value of one column; the file stays a readable plan of the same units."""
    table = pq.read_table(root / "plan.parquet")
    values = table.column(column).to_pylist()
    at = next(i for i, rows in enumerate(table.column("reserved_rows").to_pylist()) if rows == 30)
    changed = {
        "video_id": "0" * 16,
        "path": "another.mp4",
        "digest": "0" * 64,
        "reserved_rows": 29,
        "probed_fps": 30.0,
        "in_corpus": False,
    }
    values[at] = changed.get(column, values[at] + 1 if column not in changed else None)
    field = PLAN_SCHEMA.field(column)
    place = table.schema.names.index(column)
    pq.write_table(
        table.set_column(place, field, pa.array(values, field.type)), root / "plan.parquet"
    )


def change_sizes(root: Path, key: bytes, text: bytes) -> None:
    table = pq.read_table(root / "plan.parquet")
    sizes = {**table.schema.metadata, key: text}
    pq.write_table(table.replace_schema_metadata(sizes), root / "plan.parquet")


@pytest.mark.parametrize("column", PLAN_SCHEMA.names)
def test_a_changed_plan_is_made_again_or_refused(
    cache_root: Path, corpus: Any, teachers: list[Any], column: str
) -> None:
    good = (cache_root / "plan.parquet").read_bytes()
    change_plan(cache_root, column)
    bad = (cache_root / "plan.parquet").read_bytes()
    assert bad != good
    assert read_cache_plan(cache_root) is None
    with pytest.raises(CacheCorruptError, match="cannot be rebuilt from the given videos"):
        caches.open_writer(cache_root, caches.Corpus({"new": 70}), teachers)
    assert (cache_root / "plan.parquet").read_bytes() == bad
    caches.run_all(cache_root, corpus, teachers)
    assert (cache_root / "plan.parquet").read_bytes() == good
    assert verify_cache(cache_root).problems == ()


@pytest.mark.parametrize(("key", "text"), [(b"capacity", b"128"), (b"base_videos", b"5")])
def test_changed_sizes_of_the_plan_are_refused(
    cache_root: Path, teachers: list[Any], key: bytes, text: bytes
) -> None:
    change_sizes(cache_root, key, text)
    with pytest.raises(CacheCorruptError, match="cannot be rebuilt from the given videos"):
        caches.open_writer(cache_root, caches.Corpus({"new": 70}), teachers)


@pytest.mark.parametrize("column", ["path", "reserved_rows"])
def test_the_plan_of_an_unfinished_cache_is_pinned_too(
    tmp_path: Path, corpus: Any, teachers: list[Any], column: str
) -> None:
    root = tmp_path / "c"
    with caches.open_writer(root, corpus, teachers) as writer:
        caches.run_task(writer.pending_groups()[0], corpus)
    change_plan(root, column)
    with pytest.raises(CacheCorruptError, match="cannot be rebuilt from the given videos"):
        caches.open_writer(root, caches.Corpus({"new": 70}), teachers)
    assert caches.run_all(root, corpus, teachers).complete
    assert verify_cache(root).problems == ()


def test_a_kill_while_the_plan_grows_loses_nothing(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """After the manifest has announced the next plan, and after that has been written."""
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    together = caches.run_all(tmp_path / "other", corpus, teachers)
    together = caches.run_all(tmp_path / "other", more, teachers)
    for writes_before_the_kill in (1, 2):
        root = tmp_path / f"killed-{writes_before_the_kill}"
        caches.run_all(root, corpus, teachers)
        left = [writes_before_the_kill]

        def dying(original: Callable[..., None], left: list[int] = left) -> Callable[..., None]:
            def write(*arguments: Any, **options: Any) -> None:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
                original(*arguments, **options)

            return write

        from distinit.pipeline.cache import writer as module

        with monkeypatch.context() as patched:
            patched.setattr(module, "write_table", dying(module.write_table))
            patched.setattr(module, "write_record", dying(module.write_record))
            left[0] += 1  # the manifest that is not complete any more
            with pytest.raises(KeyboardInterrupt):
                caches.open_writer(root, more, teachers)
        assert caches.run_all(root, more, teachers).content_digest == together.content_digest
        assert verify_cache(root).problems == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"batch_size": 5},
        {"device": "cuda"},
        {"compiled": True},
        {"software": {"distinit": "tess"}},
        {"encoding": "int8"},
        {"fingerprint": "0" * 64},
    ],
)
def test_a_changed_record_of_a_teacher_is_written_again_or_refused(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    changes: dict[str, Any],
) -> None:
    path = cache_root / "teachers/alpha/teacher.json"
    good = path.read_bytes()
    path.write_text(json.dumps(json.loads(good) | changes))
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    with pytest.raises(CacheCorruptError, match=r"teacher\.json is damaged"):
        caches.open_writer(cache_root, more, teachers[1:])
    caches.run_all(cache_root, corpus, teachers)
    assert path.read_bytes() == good


@pytest.mark.parametrize("name", ["mean", "label_space", "architecture", "flip"])
def test_a_changed_identity_does_not_pass_for_another_fingerprint(
    cache_root: Path, corpus: Any, teachers: list[Any], name: str
) -> None:
    path = cache_root / "teachers/alpha/teacher.json"
    record = json.loads(path.read_bytes())
    where = (
        record["identity"] if name in record["identity"] else record["identity"]["preprocessing"]
    )
    where[name] = {"mean": [0.4, 0.5, 0.5], "flip": True}.get(name, "another")
    path.write_text(json.dumps(record))
    with pytest.raises(CacheCorruptError, match=r"teacher\.json is damaged"):
        caches.open_writer(cache_root, corpus, teachers[1:])


def test_a_changed_fidelity_is_measured_again(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    path = cache_root / "teachers/alpha/teacher.json"
    good = path.read_bytes()
    record = json.loads(good)
    record["fidelity"]["mean_kl_nats"] *= 2
    path.write_text(json.dumps(record))
    caches.run_all(cache_root, corpus, teachers)
    assert path.read_bytes() == good


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("field", ["rows", "content_sha256", "videos", "fidelity", "files"])
def test_a_changed_commit_record_is_extracted_again(
    tmp_path: Path,
    corpus: Any,
    teachers: list[Any],
    field: str,
    complete: bool,
) -> None:
    root = tmp_path / "c"
    with caches.open_writer(root, corpus, teachers) as writer:
        for spec in writer.pending_groups()[: None if complete else 2]:
            caches.run_task(spec, corpus)
        writer.finalise()
    path = root / "teachers/alpha/commits/unit-00000.json"
    good = path.read_bytes()
    record = json.loads(good)
    if field == "videos":
        record["videos"][0]["duration_seconds"] += 1
    elif field == "fidelity":
        record["fidelity"]["kl_nats_sum"] *= 2
    elif field == "files":
        next(iter(record["files"].values()))["sha256"] = "0" * 64
    else:
        record[field] = {"rows": record["rows"] - 1, "content_sha256": "0" * 64}[field]
    path.write_text(json.dumps(record))
    caches.run_all(root, corpus, teachers)
    assert path.read_bytes() == good
    assert verify_cache(root).problems == ()


def test_a_forged_and_sealed_commit_is_refused_before_the_cache_grows(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    """The content digest of the manifest covers what the seals do not."""
    path = cache_root / "teachers/alpha/commits/unit-00000.json"
    forged = UnitCommit.model_validate_json(path.read_bytes())
    forged = forged.model_copy(update={"content_sha256": "0" * 64}).resealed()
    path.write_text(forged.model_dump_json())
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    manifest = (cache_root / "manifest.json").read_bytes()
    for videos in (more, corpus):
        with pytest.raises(CacheCorruptError, match="contradicts the commit records"):
            caches.run_all(cache_root, videos, teachers)
        assert (cache_root / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus": {"digest": "0" * 64, "videos": 6, "failed": 1, "frames": 279}},
        {"row_space": {"capacity": 64, "units": 6, "rows": 279}},
        {"row_space": {"capacity": 128, "units": 7, "rows": 279}},
        {"content_digest": "0" * 64},
        {"sampling": {"mode": "stride", "stride": 2}},
        {"plan": {"digest": "0" * 64, "rows_digest": "0" * 64}},
    ],
)
def test_a_changed_manifest_is_refused(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    changes: dict[str, Any],
) -> None:
    path = CacheLayout(cache_root).manifest
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    before = path.read_bytes()
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    with pytest.raises((CacheCorruptError, CacheMismatchError)):
        caches.open_writer(cache_root, more, teachers)
    assert path.read_bytes() == before
