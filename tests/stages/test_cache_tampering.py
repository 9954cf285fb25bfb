"""What each check finds of changes by someone who makes all records and checksums match again.

The table in docs/decisions/047 is this one: ``TAMPERINGS``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.caches import resign
from helpers.forging import ForgedUnit, forge, seal_again
from helpers.videos import make_video

from distinit.pipeline.cache.digest import plan_summary
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_commit, read_manifest, read_teacher
from distinit.pipeline.cache.state import summary_of
from distinit.pipeline.cache.tables import column, plan_table, read_plan, write_table
from distinit.pipeline.records import write_record
from distinit.schemas.errors import TeacherError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.cache_sign import cache_keygen, cache_sign
from distinit.stages.cache_verify import cache_verify
from distinit.stages.extract import extract
from distinit.stages.recompute_result import RecomputeRequest

FRAMES = {"a.mp4": 70, "b.mp4": 20, "c.mp4": 9}
ROWS = 99


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, a signed cache of two teachers, and the keys; not to be changed."""
    root = tmp_path_factory.mktemp("tampering")
    for seed, (name, frames) in enumerate(FRAMES.items()):
        make_video(root / "videos" / name, frames=frames, seed=seed)
    values = {
        "videos": str(root / "videos"),
        "teachers": [
            {"name": "null", "id": "half"},
            {"name": "null", "id": "byte", "encoding": "int8"},
        ],
        "cache": str(root / "cache"),
        "unit_rows": 64,
    }
    assert extract(ExtractConfig.model_validate(values)).complete
    cache_keygen(root / "team")
    cache_sign(root / "cache", root / "team")
    return root


@pytest.fixture
def cache(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "copy")) / "cache"


def change_logit(cache: Path) -> None:
    forge(cache, "half", 0, _one_logit)


def _one_logit(unit: ForgedUnit) -> None:
    unit.arrays["logits"][unit.used_rows[3], 2] += np.float16(0.5)
    unit.recompute_confidence()


def change_logit_only(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        unit.arrays["logits"][unit.used_rows[3], 2] += np.float16(8)

    forge(cache, "half", 0, change)


def swap_rows(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        first, last = unit.used_rows[[0, -1]]
        unit.arrays["logits"][[first, last]] = unit.arrays["logits"][[last, first]]
        unit.recompute_confidence()

    forge(cache, "half", 0, change)


def scale_affine(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        unit.arrays["logits_affine"][unit.used_rows] *= np.float32(1.02)
        unit.recompute_confidence()

    forge(cache, "byte", 0, change)


def shift_frames(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        unit.set_frames(frame_index=column(unit.frames, "frame_index") + 1)

    forge(cache, "half", _last_unit(cache), change)


def change_hash(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        hash_N = column(unit.frames, "perceptual_hash").copy()
        hash_N[0] = ~hash_N[0]
        unit.set_frames(perceptual_hash=hash_N)

    forge(cache, "half", 0, change)


def shift_times(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        unit.set_frames(pts=column(unit.frames, "pts") + 512)

    forge(cache, "half", 0, change)


def edit_confidence(cache: Path) -> None:
    def change(unit: ForgedUnit) -> None:
        entropy_N = column(unit.confidence, "entropy_nats").copy()
        entropy_N[4] += np.float32(0.1)
        unit.set_confidence(entropy_nats=entropy_N)

    forge(cache, "half", 0, change)


def swap_shards(cache: Path) -> None:
    """The shards and the commits of two units change places; the commits get the other's number."""
    layout = CacheLayout(cache)
    record = read_teacher(layout, "half")
    commits = [read_commit(layout, record, unit) for unit in (0, 1)]
    for paths in (
        [layout.shard("half", "logits", unit) for unit in (0, 1)],
        [layout.confidence("half", unit) for unit in (0, 1)],
    ):
        data = [path.read_bytes() for path in paths]
        paths[0].write_bytes(data[1])
        paths[1].write_bytes(data[0])
    for unit, other in ((0, commits[1]), (1, commits[0])):
        files = commits[unit].files
        moved = other.model_copy(update={"unit": unit, "files": files})
        write_record(moved.resealed(), layout.commit("half", unit))
    resign(cache)


def other_units_shard(cache: Path) -> None:
    shards = sorted((cache / "teachers/half/logits/c").glob("*/0"))
    shutil.copyfile(shards[0], shards[1])
    resign(cache)
    seal_again(cache)


def permute_classes(cache: Path) -> None:
    """Two class names of a teacher change places, in every record that names its fingerprint."""
    layout = CacheLayout(cache)
    record = read_teacher(layout, "half")
    first, second, *others = record.identity.label_names
    identity = record.identity.model_copy(update={"label_names": (second, first, *others)})
    changed = record.model_copy(update={"identity": identity, "fingerprint": identity.fingerprint})
    manifest = read_manifest(layout)
    for unit in range(manifest.row_space.units):
        commit = read_commit(layout, record, unit)
        fields = {"teacher_fingerprint": identity.fingerprint}
        write_record(commit.model_copy(update=fields).resealed(), layout.commit("half", unit))
    write_record(changed, layout.teacher_record("half"))
    summary = summary_of(changed, manifest.row_space.units)
    teachers = {**manifest.teachers, "half": summary}
    write_record(manifest.model_copy(update={"teachers": teachers}), layout.manifest)
    seal_again(cache)


def _replan(cache: Path, **changes: object) -> None:
    """Change the first entry of the plan, and everything that follows from it."""
    layout = CacheLayout(cache)
    plan = read_plan(layout.plan)
    first = next(iter(plan.latest.values()))
    file = replace(first.video.file, path=str(changes.get("path", first.path)))
    entry = first.with_file(file, in_corpus=bool(changes.get("in_corpus", True)))
    table = plan_table(plan.updated({**plan.latest, entry.video_id: entry}))
    write_table(table, layout.plan)
    manifest = read_manifest(layout).model_copy(update={"plan": plan_summary(table)})
    write_record(manifest, layout.manifest)
    seal_again(cache)


def edit_path(cache: Path) -> None:
    path = cache / "videos.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["path"] = "another.mp4"
    write_table(table.from_pylist(rows, schema=table.schema), path)
    resign(cache)


def edit_path_everywhere(cache: Path) -> None:
    _replan(cache, path="another.mp4")


def remove_video(cache: Path) -> None:
    _replan(cache, in_corpus=False)


def edit_digest(cache: Path) -> None:
    path = cache / "videos.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["digest"] = rows[1]["digest"]
    write_table(table.from_pylist(rows, schema=table.schema), path)
    resign(cache)


def replay_commit(cache: Path) -> None:
    """The commit of an older state comes back, without its shard."""
    before = CacheLayout(cache).commit("half", 0).read_bytes()
    change_logit(cache)
    CacheLayout(cache).commit("half", 0).write_bytes(before)


def edit_manifest_digest(cache: Path) -> None:
    path = cache / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"content_digest": "0" * 64}))
    resign(cache)


def add_teacher_folder(cache: Path) -> None:
    shutil.copytree(cache / "teachers/half", cache / "teachers/third")
    resign(cache)


def link_shard(cache: Path) -> None:
    shard = cache / "teachers/half/logits/c/0/0"
    shutil.move(shard, cache.parent / "elsewhere")
    shard.symlink_to(cache.parent / "elsewhere")


def edit_readme(cache: Path) -> None:
    with (cache / "README.md").open("a") as file:
        file.write("Trust this cache.\n")
    resign(cache)


def _last_unit(cache: Path) -> int:
    return read_manifest(CacheLayout(cache)).row_space.units - 1


@dataclass(frozen=True)
class Tampering:
    """Which checks find it; a signature always does.

    ``offline``: ``cache verify`` alone. If it does not: ``digest`` (``--expect``), ``recompute``.
    """

    make: Callable[[Path], None]
    offline: bool
    digest: bool = False
    recompute: bool = False


TAMPERINGS = {
    "one logit changed, its confidence recomputed": Tampering(change_logit, False, True, True),
    "one logit changed, its confidence left": Tampering(change_logit_only, offline=True),
    "two rows swapped": Tampering(swap_rows, False, True, True),
    "scales of int8 changed": Tampering(scale_affine, False, True, True),
    "frame numbers shifted by one": Tampering(shift_frames, False, True, True),
    "a perceptual hash changed": Tampering(change_hash, False, True, True),
    "presentation times shifted": Tampering(shift_times, False, True, True),
    "class names permuted": Tampering(permute_classes, False, True, True),
    "a video marked as removed": Tampering(remove_video, False, True, False),
    "the path of a video changed everywhere": Tampering(edit_path_everywhere, False, False, False),
    "an entropy changed": Tampering(edit_confidence, offline=True),
    "two shards swapped with their commits": Tampering(swap_shards, offline=True),
    "the shard of another unit": Tampering(other_units_shard, offline=True),
    "the path in videos.parquet changed": Tampering(edit_path, offline=True),
    "the digest in videos.parquet changed": Tampering(edit_digest, offline=True),
    "a commit of an older state": Tampering(replay_commit, offline=True),
    "the digest in the manifest changed": Tampering(edit_manifest_digest, offline=True),
    "the folder of another teacher": Tampering(add_teacher_folder, offline=True),
    "a shard replaced by a link": Tampering(link_shard, offline=True),
    "README.md edited": Tampering(edit_readme, offline=True),
}


@pytest.mark.parametrize("kind", list(TAMPERINGS))
def test_what_is_found_of_each_kind(cache: Path, signed: Path, kind: str) -> None:
    published = read_manifest(CacheLayout(cache)).content_digest
    tampering = TAMPERINGS[kind]
    tampering.make(cache)
    key = signed / "team.pub"
    found = cache_verify(cache, deep=True, expect=published, signed_by=key)
    assert bool(found.problems) == tampering.offline, found.problems
    if not tampering.offline:
        assert (found.content_digest != published) == tampering.digest
        assert _recomputing_finds_it(cache) == tampering.recompute
    assert found.signature is not None
    assert not found.signature.ok


def _recomputing_finds_it(cache: Path) -> bool:
    request = RecomputeRequest(ROWS, str(cache.parent / "videos"), seed=0, device="cpu")
    try:
        return not cache_verify(cache, deep=False, recomputing=request).ok
    except TeacherError:  # it is not the teacher of the cache
        return True


def test_an_older_state_of_the_whole_cache_is_found_by_its_digest(
    cache: Path, signed: Path
) -> None:
    """All of it is genuine: only the digest that was published last tells the states apart."""
    older = cache.parent / "older"
    shutil.copytree(cache, older)
    change_logit(cache)
    cache_sign(cache, signed / "team")
    published = read_manifest(CacheLayout(cache)).content_digest
    found = cache_verify(older, deep=True, expect=published, signed_by=signed / "team.pub")
    assert (found.ok, found.problems) == (False, ())
    assert found.signature is not None
    assert found.signature.ok


def test_an_untouched_cache_passes_every_check(cache: Path, signed: Path) -> None:
    published = read_manifest(CacheLayout(cache)).content_digest
    request = RecomputeRequest(ROWS, str(cache.parent / "videos"), seed=0, device="cpu")
    key = signed / "team.pub"
    found = cache_verify(cache, deep=True, expect=published, signed_by=key, recomputing=request)
    assert (found.ok, found.exit_code) == (True, 0)
    assert found.recomputed is not None
    assert [teacher.same_bits for teacher in found.recomputed.teachers] == [ROWS, ROWS]
