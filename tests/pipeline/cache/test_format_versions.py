"""Format versions: a newer minor version is read, a newer major version is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.caches import CORPUS, TEACHERS, make_teacher, open_writer, run_all

from distinit.pipeline.cache.cards import checksum_lines
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.repair import repair_cache
from distinit.pipeline.cache.tree import list_tree
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR
from distinit.schemas.errors import CacheCorruptError, CacheError

NEWER = CACHE_FORMAT_MINOR + 1
COMMIT = "teachers/beta/commits/unit-00003.json"
EXTRA = "teachers/beta/novel.bin"


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def relist(root: Path) -> None:
    """Write the list of checksums again, over every file that is there."""
    layout = CacheLayout(root)
    layout.checksums.write_text(checksum_lines(layout, list_tree(layout).files, {}))


@pytest.fixture
def newer_root(cache_root: Path) -> Path:
    """The cache as a newer minor version might write it: more keys, and one more file."""
    corpus = json.loads((cache_root / "manifest.json").read_text())["corpus"] | {"novel": [1]}
    edit(cache_root / "manifest.json", format_minor=NEWER, novel={"a": 1}, corpus=corpus)
    edit(cache_root / "teachers/alpha/teacher.json", format_minor=NEWER, novel="text")
    edit(cache_root / COMMIT, format_minor=NEWER, novel=None)
    (cache_root / "README.md").write_text("A card of the newer version.\n")
    (cache_root / EXTRA).write_bytes(b"of the newer version")
    relist(cache_root)
    return cache_root


def test_a_newer_minor_version_is_read(newer_root: Path, built_cache: Path) -> None:
    newer, known = TargetCache.open(newer_root), TargetCache.open(built_cache)
    assert newer.manifest.format_minor == NEWER
    assert newer.manifest.content_digest == known.manifest.content_digest
    assert newer.checked_digest(newer.read_state()) == known.manifest.content_digest
    for teacher in ("alpha", "beta"):
        for video_id in known.video_ids:
            np.testing.assert_array_equal(
                newer.targets(teacher).of(video_id).logits_NC,
                known.targets(teacher).of(video_id).logits_NC,
            )


def test_verify_says_what_it_cannot_check_of_a_newer_minor_version(newer_root: Path) -> None:
    report = verify_cache(newer_root)
    assert report.problems == ()
    assert report.notes == (
        f"README.md, croissant.json: of format version 2.{NEWER}: their text is not checked",
        f"keys of records that this program does not know are not checked (2.{NEWER})",
        f"{EXTRA}: not known to this program, only the sha256 is checked",
    )


def test_a_file_that_a_newer_minor_version_adds_is_compared_with_its_sha256(
    newer_root: Path,
) -> None:
    (newer_root / EXTRA).write_bytes(b"of someone else")
    (problem,) = verify_cache(newer_root).problems
    assert problem == f"{EXTRA}: its sha256 is not the one in manifest-sha256.txt"


def test_a_file_that_no_list_names_is_not_part_of_a_newer_minor_version(newer_root: Path) -> None:
    (newer_root / "unlisted.bin").write_bytes(b"x")
    assert verify_cache(newer_root).problems == ("unlisted.bin: not part of the cache, remove it",)


def test_a_newer_minor_version_is_not_changed(newer_root: Path) -> None:
    before = (newer_root / "manifest.json").read_bytes()
    with pytest.raises(CacheError, match="read, but not changed: it has a newer format"):
        open_writer(newer_root, CORPUS, [make_teacher("gamma")])
    shard = newer_root / "teachers/alpha/logits/c/0/0"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(CacheError, match="read, but not changed: it has a newer format"):
        repair_cache(newer_root)
    assert (newer_root / "manifest.json").read_bytes() == before
    assert (newer_root / COMMIT).exists()


@pytest.mark.parametrize("minor", [0, CACHE_FORMAT_MINOR])
@pytest.mark.parametrize("name", ["manifest.json", "teachers/alpha/teacher.json", COMMIT])
def test_unknown_keys_of_a_known_minor_version_are_refused(
    cache_root: Path, name: str, minor: int
) -> None:
    edit(cache_root / name, format_minor=minor, novel=1)
    with pytest.raises(CacheCorruptError, match=r"Extra inputs are not permitted[\s\S]*novel = 1"):
        TargetCache.open(cache_root).read_state()


@pytest.mark.parametrize("minor", [-1, "9", 9.0, True, None])
def test_a_minor_version_that_is_no_number_does_not_admit_unknown_keys(
    cache_root: Path, minor: object
) -> None:
    edit(cache_root / "manifest.json", format_minor=minor, novel=1)
    with pytest.raises(CacheCorruptError, match="not a valid CacheManifest"):
        TargetCache.open(cache_root)


def test_a_newer_major_version_is_refused_whatever_its_minor_version(cache_root: Path) -> None:
    edit(cache_root / "manifest.json", format_version=3, format_minor=NEWER)
    with pytest.raises(CacheCorruptError, match="format version that this program") as caught:
        TargetCache.open(cache_root)
    assert (caught.value.expected, caught.value.found) == (2, "3")
    assert caught.value.remedy is not None
    assert "install the version of distinit that wrote it" in caught.value.remedy


def test_the_first_minor_version_is_read_and_extended(cache_root: Path) -> None:
    """Caches that are older than minor versions have no such key, and another card."""
    old = json.loads((cache_root / "manifest.json").read_text())
    del old["format_minor"]
    (cache_root / "manifest.json").write_text(json.dumps(old))
    (cache_root / "README.md").write_text("A card of the first minor version.\n")
    relist(cache_root)
    report = verify_cache(cache_root)
    assert report.problems == ()
    assert report.notes == (
        "README.md, croissant.json: of format version 2.0: their text is not checked",
    )
    assert TargetCache.open(cache_root).manifest.format_minor == 0
    extended = run_all(cache_root, CORPUS, [*TEACHERS, make_teacher("gamma")])
    assert extended.format_minor == CACHE_FORMAT_MINOR
    report = verify_cache(cache_root)
    assert (report.problems, report.notes) == ((), ())
