"""The golden cache, committed in ``tests/golden``: today's reader reads yesterday's bytes.

If a test here fails, the format has changed. Then a new version is due (docs/cache-format.md), and
a golden cache of that version beside this one, which stays.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from helpers.caches import logits_of
from helpers.golden import CORPUS, FIRST, GOLDEN, LOST

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheError

CONTENT = "2f034ef7da68932ef8c7aeeae90f9959928163a7cd09aad44be81d04a4ae6492"
CHECKSUMS = "19ac604b4228dbd9e55bcf8c81331d03e29a636da6d507e35a56360344d33b83"
"""sha256 of manifest-sha256.txt, which has those of all other files."""


def test_no_byte_has_changed() -> None:
    assert hashlib.sha256((GOLDEN / "manifest-sha256.txt").read_bytes()).hexdigest() == CHECKSUMS
    report = verify_cache(GOLDEN)
    older = "README.md, croissant.json: of format version 2.1: their text is not checked"
    command = f"run `distinit cache statistics {GOLDEN}`, which adds them"
    lacking = f"teacher body has no statistics; {command}"
    assert (report.problems, report.notes) == ((), (lacking, older))
    assert (report.content_digest, report.rows) == (CONTENT, 75)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 80_000


def test_the_videos_are_those_that_were_written() -> None:
    cache = TargetCache.open(GOLDEN)
    columns = ("path", "status", "frame_count", "in_corpus")
    rows = [tuple(video[name] for name in columns) for video in cache.videos.to_pylist()]
    assert sorted(rows) == [
        ("bad.mp4", "failed", 0, True),
        ("long.mp4", "ok", 70, True),
        ("lost.mp4", "ok", 2, False),
        ("short.mp4", "ok", 3, True),
    ]


@pytest.mark.parametrize(("name", "frames"), [("short", 3), ("long", 70), ("lost", 2)])
def test_float16_targets_are_those_that_were_written(name: str, frames: int) -> None:
    video_id = CORPUS.id_of(name)
    found = TargetCache.open(GOLDEN).targets("half").of(video_id)
    assert found.frame_N.tolist() == list(range(frames))
    written_NC = logits_of(video_id, FIRST, np.arange(frames))
    np.testing.assert_array_equal(found.logits_NC, written_NC.astype(np.float16))
    assert found.pts_seconds_N.tolist() == [0.04 * frame for frame in range(frames)]


@pytest.mark.parametrize(
    ("teacher", "values"),
    [
        ("byte", [-0.14975536, 1.654469, -4.479894]),
        ("best", [1.4511719, 2.5507812, 0.16894813, 0.16894813, 0.16894813]),
        ("body", [1.8486328, 3.4863281]),
    ],
)
def test_the_other_encodings_are_decoded_as_before(teacher: str, values: list[float]) -> None:
    found = TargetCache.open(GOLDEN).targets(teacher).of(CORPUS.id_of("long"), [65])
    np.testing.assert_allclose(found.logits_NC[0], np.array(values, np.float32), rtol=1e-6)


@pytest.mark.parametrize("teacher", ["byte", "best", "body"])
def test_a_video_that_was_gone_has_no_targets_of_later_teachers(teacher: str) -> None:
    cache = TargetCache.open(GOLDEN)
    assert LOST in cache.targets("half").video_ids
    with pytest.raises(CacheError, match="has no targets for video"):
        cache.targets(teacher).of(LOST)
