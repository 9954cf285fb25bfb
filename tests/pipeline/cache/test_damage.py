"""Reopening a damaged cache: what can be done again is done again, and nothing else is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import caches

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheCorruptError


def digest_of(root: Path) -> str:
    return str(json.loads((root / "manifest.json").read_text())["content_digest"])


def listed(root: Path) -> set[str]:
    lines = (root / "manifest-sha256.txt").read_text().splitlines()
    return {line.split("  ", 1)[1] for line in lines}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("name", "harm", "messages"),
    [
        ("teachers/alpha/logits/c/1/0", Path.unlink, {"alpha: logits shard missing"}),
        ("teachers/beta/logits_affine/c/1/0", Path.unlink, {"beta: logits_affine shard missing"}),
        (
            "teachers/alpha/logits/c/1/0",
            grow,
            {"alpha: logits shard of {size} bytes instead of {before}"},
        ),
        (
            "teachers/beta/confidence/unit-00001.parquet",
            cut,
            {"beta: confidence table of {size} bytes instead of {before}"},
        ),
        (
            "teachers/alpha/confidence/unit-00001.parquet",
            Path.unlink,
            {"alpha: confidence table missing"},
        ),
        (
            "frames/unit-00001.parquet",
            Path.unlink,
            {"alpha: frames table missing", "beta: frames table missing"},
        ),
        ("teachers/alpha/commits/unit-00001.json", cut, {"alpha: commit record unreadable"}),
        ("teachers/beta/commits/unit-00001.json", Path.unlink, {"beta: commit record missing"}),
    ],
)
def test_a_damaged_unit_is_done_again(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    name: str,
    harm: Callable[[Path], None],
    messages: set[str],
) -> None:
    content, files = digest_of(cache_root), listed(cache_root)
    before = {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()}
    path = cache_root / name
    size = path.stat().st_size
    harm(path)
    sizes = {"before": size, "size": path.stat().st_size if path.exists() else 0}
    with caches.open_writer(cache_root, corpus, teachers) as writer:
        assert set(writer.repairs) == {
            "unit 1 of teacher " + text.format(**sizes) + "; it is extracted again"
            for text in messages
        }
        assert not writer.manifest.complete
        assert not (cache_root / "manifest-sha256.txt").exists()
        assert [1 in spec.group.unit_range for spec in writer.pending_groups()] == [True]
    assert caches.run_all(cache_root, corpus, teachers).content_digest == content
    assert listed(cache_root) == files
    assert {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()} == before


def test_a_unit_of_a_teacher_that_was_not_named_waits_for_it(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    (cache_root / "teachers/beta/logits/c/1/0").unlink()
    with caches.open_writer(cache_root, corpus, teachers[:1]) as writer:
        assert writer.repairs == (
            "unit 1 of teacher beta: logits shard missing; name this teacher to extract it again",
        )
        assert writer.pending_groups() == ()
        assert not writer.finalise().complete
    with pytest.raises(Exception, match="is not complete"):
        TargetCache.open(cache_root)
    assert caches.run_all(cache_root, corpus, teachers).complete


def test_readers_refuse_a_complete_cache_that_lost_a_commit(cache_root: Path) -> None:
    (cache_root / "teachers/beta/commits/unit-00002.json").unlink()
    with pytest.raises(CacheCorruptError, match="commit records of teacher beta are missing"):
        TargetCache.open(cache_root)


def test_a_damaged_unit_of_a_video_that_got_other_rows_later_is_done_again(
    tmp_path: Path, corpus: Any, teachers: list[Any]
) -> None:
    """A failed video that was tried again must not come back in its old place as well."""
    root = tmp_path / "c"
    caches.run_all(root, corpus, teachers)
    healed = caches.Corpus(corpus.frames)
    with caches.open_writer(root, healed, teachers) as writer:
        writer.replan([caches.make_planned("bad", 20)])
        for spec in writer.pending_groups():
            caches.run_task(spec, healed)
        old = next(e for e in writer.plan.entries if e.path == "bad.mp4")
        content = writer.finalise().content_digest
    for name in ("alpha", "beta"):
        unit = old.first_row // writer.plan.capacity
        (root / f"teachers/{name}/commits/unit-{unit:05d}.json").unlink()
    assert caches.run_all(root, healed, teachers).content_digest == content
    assert verify_cache(root).problems == ()


@pytest.mark.parametrize("harm", [cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        "videos.parquet",
        "README.md",
        "croissant.json",
        "manifest-sha256.txt",
        "teachers/alpha/logits/zarr.json",
        "teachers/beta/teacher.json",
        "plan.parquet",
    ],
)
def test_what_follows_from_sound_records_is_written_again(
    cache_root: Path,
    corpus: Any,
    teachers: list[Any],
    name: str,
    harm: Callable[[Path], None],
) -> None:
    before = {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()}
    harm(cache_root / name)
    caches.run_all(cache_root, corpus, teachers)
    assert {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()} == before


def test_a_plan_that_the_videos_do_not_give_again_is_refused(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    cut(cache_root / "plan.parquet")
    fewer = caches.Corpus({"a": 30}, corpus.broken)
    with pytest.raises(CacheCorruptError, match="cannot be rebuilt from the given videos"):
        caches.open_writer(cache_root, fewer, teachers)
    assert not list(cache_root.glob("*.partial"))


def test_a_record_of_a_teacher_that_nothing_gives_again_is_refused(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    path = cache_root / "teachers/beta/teacher.json"
    cut(path)
    held = path.read_bytes()
    with pytest.raises(CacheCorruptError, match=r"teacher\.json is damaged"):
        caches.open_writer(cache_root, corpus, teachers[:1])
    other = teachers[1].model_copy(update={"batch_size": 99})
    with pytest.raises(CacheCorruptError, match=r"teacher\.json is damaged"):
        caches.open_writer(cache_root, corpus, [teachers[0], other])
    assert path.read_bytes() == held


def test_a_damaged_manifest_is_refused(cache_root: Path, corpus: Any, teachers: list[Any]) -> None:
    cut(cache_root / "manifest.json")
    before = {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()}
    with pytest.raises(CacheCorruptError, match=r"cannot read .*manifest\.json"):
        caches.open_writer(cache_root, corpus, teachers)
    assert {p: p.read_bytes() for p in cache_root.rglob("*") if p.is_file()} == before


def test_a_later_teacher_is_not_built_on_a_damaged_frames_table(
    cache_root: Path, corpus: Any
) -> None:
    """Of the same size, and the same table when read: only its sha256 tells."""
    path = cache_root / "frames/unit-00001.parquet"
    data = bytearray(path.read_bytes())
    place = data.rindex(b"parquet-cpp-arrow version")  # who wrote it; no reader looks at that
    data[place] ^= 1
    path.write_bytes(data)
    with caches.open_writer(cache_root, corpus, [caches.make_teacher("gamma")]) as writer:
        spec = next(s for s in writer.pending_groups() if 1 in s.group.unit_range)
        with pytest.raises(CacheCorruptError, match=r"unit-00001\.parquet is damaged"):
            caches.run_task(spec, corpus)
    assert not (cache_root / "teachers/gamma/commits").exists()


def test_growing_after_a_repair_of_a_copy_without_its_frames(
    cache_root: Path, corpus: Any, teachers: list[Any]
) -> None:
    shutil.rmtree(cache_root / "frames")
    more = caches.Corpus({**corpus.frames, "new": 70}, corpus.broken)
    assert caches.run_all(cache_root, more, teachers).complete
    assert verify_cache(cache_root).problems == ()
