"""Finds a copy for every video of a cache: by content, then by name and by perceptual hashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from distinit.pipeline.matching.anchors import AnchorIndex
from distinit.pipeline.matching.cache_hashes import CacheHashes, CacheVideo
from distinit.pipeline.matching.comparison import Comparison, compare
from distinit.pipeline.matching.hash_parts import CopyHashes
from distinit.schemas.corpus import VideoFile
from distinit.schemas.matching import MatchLimits

__all__ = ["Candidate", "Matcher", "name_key"]

OTHER_NAME = 3
"""Rank of a file whose name says nothing about the video."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that was compared with a video.

    ``name_rank``: 0 for the same path, 1 for the same path with another extension, 2 for the same
    name in another folder, 3 for another name.
    """

    file: VideoFile
    name_rank: int
    comparison: Comparison


def name_key(path: str) -> str:
    """The name of a video without folder and extension, in lower case."""
    return PurePosixPath(path).stem.lower()


@dataclass
class Matcher:
    """Compares the receiver's files with the videos that they may be copies of.

    ``videos``: those without an exact copy. ``found``: position of a video -> its candidates.
    """

    videos: Sequence[CacheVideo]
    hashes: CacheHashes
    limits: MatchLimits
    found: dict[int, list[Candidate]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._anchors = AnchorIndex(self.videos, self.hashes)
        self._names: Mapping[str, list[int]] = _by_name(self.videos)

    def compare(self, file: VideoFile, copy: CopyHashes) -> None:
        """Compare a file with the videos of its name and with those that share its frames."""
        ranks = self._named(file.path)
        for position in self._anchors.candidates(copy.hash_F, self.limits.max_bits):
            ranks.setdefault(position, OTHER_NAME)
        for position, rank in ranks.items():
            video = self.videos[position]
            comparison = compare(video, self.hashes.of(video), copy, self.limits)
            if rank < OTHER_NAME or _shows_it(comparison):
                self.found[position].append(Candidate(file, rank, comparison))

    def _named(self, path: str) -> dict[int, int]:
        """Position of each video that has the name of a file -> rank of the name."""
        same = self._names.get(name_key(path), [])
        ranks = {position: _rank(self.videos[position].path, path) for position in same}
        if len(same) > 1:  # a name in several folders says something only with its folder
            ranks = {position: rank for position, rank in ranks.items() if rank < OTHER_NAME - 1}
        return ranks


def _shows_it(comparison: Comparison) -> bool:
    """Whether a file of another name is reported for a video at all.

    Pictures that hardly move agree for any two clips of one scene, so other frames must move too.
    """
    if comparison.kind in ("cut", "other frame rate"):
        return comparison.moves
    return comparison.kind != "missing"


def _rank(video_path: str, path: str) -> int:
    if path == video_path:
        return 0
    return 1 if _without_extension(path) == _without_extension(video_path) else 2


def _without_extension(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix().lower()


def _by_name(videos: Sequence[CacheVideo]) -> dict[str, list[int]]:
    names: dict[str, list[int]] = defaultdict(list)
    for position, video in enumerate(videos):
        names[name_key(video.path)].append(position)
    return names
