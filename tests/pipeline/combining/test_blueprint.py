"""The layout of a derived cache: each row of each video exactly once, whatever the sources."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.caches import (
    CORPUS,
    Corpus,
    logits_of,
    make_teacher,
    outcome_of,
    planned_video,
    run_all,
)
from helpers.derived_caches import assert_valid
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.combining.blueprint import DerivedVideo, Origin, with_new_ids
from distinit.pipeline.progress import NullProgress
from distinit.stages.cache_merge import cache_merge

TEACHER = make_teacher("alpha")


def derived(digest: str, source: int) -> DerivedVideo:
    entry = PlannedRows(planned_video(digest, "a.mp4", 1), 0)
    video_id = digest[:16]
    return DerivedVideo(video_id, entry, True, outcome_of(video_id, 1), Origin(source, video_id))


def test_contents_with_the_same_first_digits_get_different_ids() -> None:
    """Their ids are the same in two sources that do not know of each other."""
    digests = ["a" * 16 + "2" * 48, "a" * 16 + "1" * 48, "b" * 64]
    named = with_new_ids([derived(digest, n) for n, digest in enumerate(digests)])
    assert [(v.video_id, v.digest[16], v.origin.source) for v in named] == [
        ("a" * 16, "1", 1),
        ("a" * 16 + "-1", "2", 0),
        ("b" * 16, "b", 2),
    ]
    assert [video.outcome.video_id for video in named] == [video.video_id for video in named]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frames=st.dictionaries(
        st.sampled_from("abcdefgh"), st.integers(0, 200), min_size=2, max_size=5
    ),
    in_first=st.lists(st.booleans(), min_size=5, max_size=5),
    in_both=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_every_frame_keeps_its_targets(
    tmp_path_factory: pytest.TempPathFactory,
    frames: dict[str, int],
    in_first: list[bool],
    in_both: list[bool],
) -> None:
    root = tmp_path_factory.mktemp("mapping")
    flags = dict(zip(frames, zip(in_first, in_both, strict=True), strict=False))
    first = {n: f for n, f in frames.items() if flags[n][0] or flags[n][1]}
    second = {n: f for n, f in frames.items() if not flags[n][0] or flags[n][1]}
    sources = [part for part in (first, second) if part]
    sources = sources if len(sources) == 2 else [frames, frames]
    for number, source in enumerate(sources):
        run_all(root / str(number), Corpus(source), [TEACHER])
    folders = [root / str(number) for number in range(2)]
    cache_merge(folders, root / "out", progress=NullProgress())
    assert_valid(root / "out")
    merged = TargetCache.open(root / "out")
    for name, count in frames.items():
        if count:
            video_id = CORPUS.id_of(name)
            found = merged.targets("alpha").of(video_id)
            assert found.frame_N.tolist() == list(range(count))
            exact = logits_of(video_id, TEACHER, found.frame_N)
            assert np.array_equal(found.logits_NC, exact.astype(np.float16).astype(np.float32))
