"""The demo has enough clips of each class and split, and no source in both subsets."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import PurePosixPath

from distinit.pipeline.demo.recipe import MOTIONS, CutClip, PhotoClip, demo_clips


def test_sources_of_the_test_set_are_not_trained_on() -> None:
    sources = {
        split: {clip.source for clip in demo_clips() if clip.split == split}
        for split in ("corpus", "train", "test")
    }
    assert all(len(names) >= 6 for names in sources.values())
    assert sources["test"].isdisjoint(sources["train"] | sources["corpus"])


def test_every_class_has_the_same_sources() -> None:
    for split, count in (("train", 9), ("test", 6)):
        clips = [clip for clip in demo_clips() if clip.split == split]
        assert {type(clip) for clip in clips} == {PhotoClip}
        per_class = Counter(PurePosixPath(clip.path).parent.name for clip in clips)
        assert per_class == dict.fromkeys(MOTIONS, count)
        assert set(Counter(clip.source for clip in clips).values()) == {len(MOTIONS)}


def test_the_folder_of_a_clip_names_its_split_and_motion() -> None:
    for clip in demo_clips():
        if isinstance(clip, PhotoClip) and clip.split != "corpus":
            expected = ("motion", clip.split, clip.motion, f"{clip.source}.mp4")
            assert PurePosixPath(clip.path).parts == expected
        else:
            assert PurePosixPath(clip.path).parts[:-1] == ("corpus",)


def test_the_corpus_holds_each_video_completely() -> None:
    corpus = [clip for clip in demo_clips() if clip.split == "corpus"]
    assert len(corpus) == 39
    assert sum(clip.frame_count for clip in corpus) == 1470
    cuts = sorted(
        (clip.source, clip.first_frame, clip.frame_count)
        for clip in corpus
        if isinstance(clip, CutClip)
    )
    for (source, first, count), (next_source, next_first, _) in pairwise(cuts):
        assert next_first == (first + count if next_source == source else 0)  # no overlap, no gap


def test_paths_are_unique_and_sorted() -> None:
    paths = [clip.path for clip in demo_clips()]
    assert paths == sorted(set(paths))
