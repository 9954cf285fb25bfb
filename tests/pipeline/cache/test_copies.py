"""Partial copies: they say what they lack, and are checked against the digest of the whole."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers.caches import CORPUS, logits_of, make_teacher
from helpers.progress import RecordingProgress

from distinit.pipeline.cache.copies import Selection
from distinit.pipeline.cache.pull import Pulled, pull_cache
from distinit.pipeline.cache.push import push_cache
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify_copy import verify_copy
from distinit.schemas.errors import CacheCorruptError, CacheError, ConfigError
from distinit.schemas.exit_codes import ExitCode


def pull(source: Path, target: Path, **selected: object) -> Pulled:
    return pull_cache(
        str(source),
        target,
        Selection(**selected),
        workers=2,
        expect=None,
        progress=RecordingProgress(),
    )


def units_of(root: Path, name: str) -> list[int]:
    """The units of a video."""
    cache = TargetCache.open(root)
    (entry,) = [e for e in cache.read_state().plan.entries if e.path == f"{name}.mp4"]
    capacity = cache.manifest.row_space.capacity
    return [*range(entry.first_row // capacity, entry.last_row // capacity + 1)]


@pytest.fixture
def part(built_cache: Path, tmp_path: Path) -> Path:
    """A copy with the units of video ``a`` and one teacher."""
    pull(built_cache, tmp_path / "part", teachers=("alpha",), videos=("a.mp4",))
    return tmp_path / "part"


def test_a_copy_has_the_units_of_the_videos_and_the_teachers(part: Path, built_cache: Path) -> None:
    units = units_of(built_cache, "a")
    cache = TargetCache.open(part)
    assert cache.copy is not None
    assert (list(cache.copy.units), cache.copy.teachers) == (units, ("alpha",))
    assert cache.absent_teachers == ("beta",)
    whole = TargetCache.open(built_cache).targets("alpha")
    for video_id in cache.targets("alpha").video_ids:
        np.testing.assert_array_equal(
            cache.targets("alpha").of(video_id).logits_NC, whole.of(video_id).logits_NC
        )
    assert CORPUS.id_of("a") in cache.video_ids
    assert not (part / "teachers/beta").exists()


@pytest.mark.parametrize("by", ["id", "digest", "path"])
def test_videos_are_named_by_id_digest_or_path(by: str, built_cache: Path, tmp_path: Path) -> None:
    (video,) = [v for v in CORPUS.planned if v.file.path == "c.mp4"]
    names = {"id": video.file.video_id, "digest": video.file.digest, "path": video.file.path}
    pulled = pull(built_cache, tmp_path / "part", videos=(names[by],))
    assert pulled.copy is not None
    assert list(pulled.copy.units) == units_of(built_cache, "c")
    assert len(pulled.copy.units) == 3, "a video that spans units is not cut"


def test_a_unit_of_a_long_video_brings_its_whole_group(built_cache: Path, tmp_path: Path) -> None:
    units = units_of(built_cache, "c")
    pulled = pull(built_cache, tmp_path / "part", units=str(units[1]))
    assert pulled.copy is not None
    assert list(pulled.copy.units) == units
    targets = TargetCache.open(tmp_path / "part").targets("alpha")
    found = targets.of(CORPUS.id_of("c")).logits_NC
    made = logits_of(CORPUS.id_of("c"), make_teacher("alpha"), np.arange(150))
    np.testing.assert_array_equal(found, made.astype(np.float16).astype(np.float32))


def test_a_missing_unit_is_an_error_that_names_it(part: Path, built_cache: Path) -> None:
    cache = TargetCache.open(part)
    unit = units_of(built_cache, "c")[0]
    with pytest.raises(CacheError) as caught:
        cache.targets("alpha").of(CORPUS.id_of("c"))
    assert f"its unit {unit} is not in this partial copy of the cache" in str(caught.value)
    first_row = unit * cache.manifest.row_space.capacity
    with pytest.raises(CacheCorruptError, match="never wrote a requested row"):
        cache.targets("alpha").logits(np.array([first_row]))
    with pytest.raises(CacheError, match="folder of teacher beta is not in this copy"):
        cache.targets("beta")
    with pytest.raises(zarr.errors.ChunkNotFoundError):
        cache.zarr_array("alpha")[first_row]


def test_a_copy_survives_pickling_and_gives_the_digest_of_what_it_has(
    part: Path, built_cache: Path
) -> None:
    cache = copy.copy(TargetCache.open(part))  # as pickle does: by __getstate__
    assert cache.copy == TargetCache.open(part).copy
    digest = cache.checked_digest(cache.read_state())
    assert digest == cache.digest_of(["alpha"])
    assert digest != cache.manifest.content_digest
    assert digest != TargetCache.open(built_cache).digest_of(["alpha"])


@pytest.mark.parametrize("deep", [True, False])
def test_an_intact_copy_has_the_digest_of_the_whole_cache(part: Path, deep: bool) -> None:
    report = verify_copy(part, deep=deep)
    assert report.problems == ()
    assert report.content_digest == TargetCache.open(part).manifest.content_digest
    (note,) = report.notes
    assert note == "a partial copy: 1 of 7 units, 1 of 2 teachers"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def problems(part: Path) -> str:
    return "\n".join(verify_copy(part, deep=True).problems)


def test_damage_in_a_copy_is_found(part: Path, tmp_path: Path) -> None:
    shard = next(part.glob("teachers/alpha/logits/c/*/0"))
    for damage, text in (
        (lambda root: flip(root / shard.relative_to(part)), "logits/c/"),
        (lambda root: (root / shard.relative_to(part)).unlink(), ": missing"),
        (lambda root: (root / "extra").touch(), "extra: not part of the copy, remove it"),
        (lambda root: (root / "extra").symlink_to("/etc"), "extra: a link or a special file"),
        (lambda root: flip(root / "videos.parquet"), "videos.parquet"),
        (lambda root: flip(next(root.glob("teachers/alpha/commits/*"))), "commits"),
    ):
        root = Path(shutil.copytree(part, tmp_path / "damaged"))
        damage(root)
        assert text in problems(root)
        shutil.rmtree(root)


def test_what_writers_left_in_a_copy_is_reported(part: Path) -> None:
    (part / ".staging/unit-00001").mkdir(parents=True)
    (part / ".staging/unit-00001/a.parquet").touch()
    (part / ".fence").touch()
    left = "left behind by a writer, not part of the cache"
    for deep in (True, False):
        report = verify_copy(part, deep=deep)
        assert report.problems == (f".staging/unit-00001/a.parquet: {left}",)
        assert ".fence: a process is writing this cache, or was killed" in report.notes


def test_any_number_of_threads_finds_the_same_in_a_copy(built_cache: Path, tmp_path: Path) -> None:
    pull(built_cache, tmp_path / "part", teachers=("alpha",))
    progress, report = RecordingProgress(), []
    for workers in (1, 3):
        report.append(verify_copy(tmp_path / "part", deep=True, workers=workers, progress=progress))
    assert report[0] == report[1]
    assert report[0].problems == ()
    flip(tmp_path / "part/teachers/alpha/logits/c/1/0")
    (found,) = verify_copy(tmp_path / "part", deep=True, workers=3).problems
    assert found.startswith("teachers/alpha/logits/c/1/0: sha256 ")


def test_a_copy_record_of_another_selection_is_refused(part: Path) -> None:
    record = json.loads((part / "copy.json").read_text())
    for change in (
        {"units": [*record["units"], 6]},
        {"units": [*record["units"][::-1], 0]},
        {"content_digest": "0" * 64},
        {"teachers": ["alpha", "gamma"]},
        {"absent": {}},
    ):
        (part / "copy.json").write_text(json.dumps(record | change))
        with pytest.raises(CacheCorruptError, match="does not belong to the manifest"):
            TargetCache.open(part)


def test_a_copy_whose_digests_are_invented_is_found(part: Path) -> None:
    record = json.loads((part / "copy.json").read_text())
    unit = next(iter(record["absent"]["beta"]))
    record["absent"]["beta"][unit] = "0" * 64
    (part / "copy.json").write_text(json.dumps(record))
    assert "is not of the cache that its manifest names" in problems(part)
    cache = TargetCache.open(part)
    with pytest.raises(CacheCorruptError, match="is not of the cache"):
        cache.checked_digest(cache.read_state())


def test_a_copy_is_neither_sent_nor_copied_on(part: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is only a partial copy"):
        pull(part, tmp_path / "next")
    with pytest.raises(CacheError, match="which is only read: it was not sent") as caught:
        push_cache(
            part, str(tmp_path / "p"), replace=False, workers=1, progress=RecordingProgress()
        )
    assert (caught.value.exit_code, caught.value.found) == (
        ExitCode.USAGE,
        "a partial copy: 1 of 7 units, 1 of 2 teachers",
    )
    assert not (tmp_path / "next").exists()
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("selected", "text"),
    [
        ({"teachers": ("alpa",)}, 'no teacher "alpa"'),
        ({"units": "7"}, '"7" does not name units'),
        ({"units": "3-1"}, '"3-1" does not name units'),
        ({"units": "a"}, '"a" does not name units'),
        ({"videos": ("none.mp4", "a.mp4")}, "does not have 1 video of the list"),
    ],
)
def test_unknown_parts_are_refused(
    selected: dict[str, object], text: str, built_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=text):
        pull(built_cache, tmp_path / "part", **selected)
    assert not (tmp_path / "part").exists()


def test_a_selection_of_everything_is_a_whole_cache(built_cache: Path, tmp_path: Path) -> None:
    pulled = pull(built_cache, tmp_path / "all", teachers=("beta", "alpha"), units="0-6")
    assert pulled.copy is None
    assert not (tmp_path / "all/copy.json").exists()
    again = pull(built_cache, tmp_path / "all")
    assert again.received_bytes == 0


def test_the_same_partial_pull_again_copies_nothing(part: Path, built_cache: Path) -> None:
    again = pull(built_cache, part, teachers=("alpha",), videos=("a.mp4",))
    assert again.received_bytes == 0
    with pytest.raises(ConfigError, match="exists already"):
        pull(built_cache, part, teachers=("alpha",))
