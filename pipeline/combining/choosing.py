"""Which videos of a cache a subset keeps: by name, and by how confident a teacher is."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distinit.pipeline.cache.quantile import quantiles
from distinit.pipeline.combining.source import Source
from distinit.schemas.errors import CacheError, ConfigError
from distinit.schemas.wording import did_you_mean, first_names, shown

__all__ = ["EntropyFilter", "confident_videos", "entropy_teacher", "named_videos"]

_WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class EntropyFilter:
    """Keeps whole videos in which a share of the frames has a low entropy.

    ``teacher``: id of the teacher. ``max_entropy_nats``: a frame counts up to this entropy.
    ``min_share``: the share of frames that must count; 0: one frame is enough.
    """

    teacher: str
    max_entropy_nats: float
    min_share: float = 0.0


def named_videos(source: Source, names: Iterable[str]) -> list[str]:
    """Ids of the videos with these ids, digests, paths or patterns of paths (``walks/*.mp4``).

    Raises ConfigError for a name that no video has.
    """
    by_name: dict[str, list[str]] = {}
    for video_id, entry in source.entries.items():
        for name in {video_id, entry.digest, entry.path}:
            by_name.setdefault(name, []).append(video_id)
    paths = {video_id: entry.path for video_id, entry in source.entries.items()}
    found: dict[str, None] = {}
    unknown = []
    for name in names:
        matches = by_name.get(name, [])
        if not matches and any(letter in name for letter in _WILDCARDS):
            matches = [v for v, path in paths.items() if fnmatch.fnmatchcase(path, name)]
        if not matches:
            unknown.append(name)
        found.update(dict.fromkeys(matches))
    if unknown:
        raise ConfigError(
            f"the cache has no video {first_names(map(shown, unknown))}",
            expected="an id, digest or path of its videos.parquet, or a pattern such as 'walks/*'",
            remedy=did_you_mean(unknown[0], paths.values()) or "see videos.parquet",
        )
    return list(found)


def entropy_teacher(source: Source, name: str | None) -> str:
    """The teacher whose entropies are used: the only one with entropies, if ``name`` is None.

    Raises ConfigError.
    """
    with_entropy = [n for n, r in source.records.items() if r.identity.target == "logits"]
    if name is None and len(with_entropy) == 1:
        return with_entropy[0]
    if name not in with_entropy:
        raise ConfigError(
            "which teacher's entropies?"
            if name is None
            else f"{shown(name)} has no entropies here",
            expected=f"one of {', '.join(with_entropy) or 'no teacher: all store features'}",
            remedy="name it with --entropy-of",
        )
    return name


def _share(min_share: float) -> str:
    return f"{min_share:.4g} of its frames" if min_share else "one of its frames"


def confident_videos(
    source: Source, video_ids: Sequence[str], given: EntropyFilter, keep_fraction: float | None
) -> tuple[list[str], float]:
    """The videos that pass the filter, and its threshold in nats.

    ``keep_fraction``: take the threshold that this fraction of the frames of the videos passes,
    in place of that of the filter. Videos without targets of the teacher never pass. Raises
    CacheError if none passes.
    """
    targets = source.cache.targets(given.teacher)
    answered = [v for v in video_ids if source.answers(given.teacher, v)]
    entropy = targets.entropy_nats
    index = source.cache.index

    def entropies() -> Iterator[np.ndarray]:
        for video_id in answered:
            number = index.number_of(video_id)
            first, rows = int(index.first_row[number]), int(index.row_count[number])
            yield np.asarray(entropy[first : first + rows])

    threshold = given.max_entropy_nats
    if keep_fraction is not None:
        (threshold,) = quantiles(entropies, [keep_fraction])
    kept = [
        video_id
        for video_id, entropy_N in zip(answered, entropies(), strict=True)
        if np.count_nonzero(entropy_N <= np.float32(threshold))
        >= max(1, math.ceil(given.min_share * len(entropy_N)))
    ]
    if not kept:
        raise CacheError(
            "no video is confident enough",
            expected=f"a video with at most {threshold:.4g} nats in {_share(given.min_share)}",
            found=f"none of {len(answered)}",
            remedy="raise --max-entropy, or lower --min-share",
        )
    return kept, threshold
