"""Cuts a cache: fewer videos, fewer teachers. The rows that stay are copied bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.combining.agreement import AgreedTeachers, agree_on_teachers
from distinit.pipeline.combining.blueprint import Blueprint, Origin, source_record, with_new_ids
from distinit.pipeline.combining.choosing import (
    EntropyFilter,
    confident_videos,
    entropy_teacher,
    named_videos,
)
from distinit.pipeline.combining.joining import join
from distinit.pipeline.combining.source import Source, open_source
from distinit.pipeline.combining.writing import check_out, write_derived
from distinit.pipeline.corpus.lists import LIST_FORMATS, read_list
from distinit.pipeline.progress import Progress
from distinit.schemas.base import sha256_of
from distinit.schemas.combining import DerivedCache
from distinit.schemas.derivation import Derivation
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import counted
from distinit.stages.derived_result import derived_fields

__all__ = ["SubsetChoice", "cache_subset"]

_ALL_KEPT = (
    "all videos are kept: each has enough frames below the threshold; --min-share asks for more "
    "of them, and `distinit distill --keep-fraction` filters clips"
)

type _Parameters = dict[str, int | float | str]


@dataclass(frozen=True, slots=True)
class SubsetChoice:
    """What a subset keeps. All criteria must be met; without any, everything is kept.

    Attributes:
        videos: Ids, digests, paths or patterns of paths.
        video_list: A list of such names (.txt, .csv, .parquet).
        teachers: Ids of teachers.
        max_entropy_nats: Keep videos with frames of at most this entropy.
        keep_fraction: Or of at most the entropy that this fraction of all frames has.
        min_share: The share of a video's frames for which that must hold; None: one frame.
        entropy_of: The teacher whose entropies count; None: the only one that has some.
    """

    videos: Sequence[str] = ()
    video_list: Path | None = None
    teachers: Sequence[str] = ()
    max_entropy_nats: float | None = None
    keep_fraction: float | None = None
    min_share: float | None = None
    entropy_of: str | None = None

    @property
    def by_entropy(self) -> bool:
        """Whether entropies decide."""
        return self.max_entropy_nats is not None or self.keep_fraction is not None


def cache_subset(
    folder: Path, out: Path, choice: SubsetChoice, *, progress: Progress
) -> DerivedCache:
    """Write the chosen videos and teachers of the cache in ``folder`` to ``out``.

    Raises:
        CacheCorruptError: The source is damaged.
        CacheError: It is not complete, no video is left, or ``out`` holds something else.
        ConfigError: A video or teacher that the cache does not have, or a number out of range.
    """
    _check_numbers(choice)
    check_out(out, [folder])
    names = [*choice.videos, *_listed(choice.video_list)]
    source = open_source(folder, progress)
    agreed = agree_on_teachers([source], choice.teachers or None)
    chosen = named_videos(source, names) if names else sorted(source.entries)
    parameters: _Parameters = {}
    if choice.by_entropy:
        chosen, parameters = _by_entropy(source, chosen, choice)
    return _write(out, source, agreed, chosen, parameters, progress)


def _write(
    out: Path,
    source: Source,
    agreed: AgreedTeachers,
    chosen: Sequence[str],
    parameters: _Parameters,
    progress: Progress,
) -> DerivedCache:
    digests = {source.entries[video_id].digest: video_id for video_id in chosen}
    joined = join([source], agreed.ids, {d: [Origin(0, v)] for d, v in digests.items()})
    if len(chosen) < len(source.entries):
        parameters = {**parameters, "videos_sha256": sha256_of(sorted(digests))}
    derivation = Derivation(
        operation="subset",
        sources=source_record([source], joined.videos, agreed.ids),
        parameters=parameters,
    )
    blueprint = Blueprint.of(
        [source], with_new_ids(joined.videos), agreed.records, agreed.ids, derivation
    )
    manifest = write_derived(out, [source], blueprint, progress)
    notes: list[str] = []
    if left := len(source.entries) - len(chosen):
        notes.append(f"{counted(left, 'video')} of the source left out")
    elif "entropy_of" in parameters:
        notes.append(_ALL_KEPT)
    if others := [name for name in source.records if name not in agreed.records]:
        notes.append(f"{counted(len(others), 'teacher')} left out: {', '.join(others)}")
    return DerivedCache(**derived_fields(out, manifest, notes))


def _by_entropy(
    source: Source, chosen: Sequence[str], choice: SubsetChoice
) -> tuple[list[str], _Parameters]:
    teacher = entropy_teacher(source, choice.entropy_of)
    share = choice.min_share or 0.0
    given = EntropyFilter(teacher, choice.max_entropy_nats or 0.0, share)
    kept, threshold = confident_videos(source, chosen, given, choice.keep_fraction)
    parameters: _Parameters = {
        "entropy_of": teacher,
        "max_entropy_nats": threshold,
        "min_share": share,
    }
    if choice.keep_fraction is not None:
        parameters["keep_fraction"] = choice.keep_fraction
    return kept, parameters


def _listed(path: Path | None) -> list[str]:
    if path is None:
        return []
    if path.suffix.lower() not in LIST_FORMATS:
        raise ConfigError(
            f"{path} is not a list of videos",
            expected=f"a file with the extension {', '.join(LIST_FORMATS)}",
            remedy="name single videos with --video",
        )
    return read_list(path)


def _check_numbers(choice: SubsetChoice) -> None:
    """Raise ConfigError for numbers out of range, and for options that contradict each other."""
    nats, fraction, share = choice.max_entropy_nats, choice.keep_fraction, choice.min_share
    if nats is not None and fraction is not None:
        raise ConfigError("--max-entropy and --keep-fraction contradict each other: give one")
    if not choice.by_entropy and (share is not None or choice.entropy_of is not None):
        raise ConfigError(
            "--min-share and --entropy-of need a threshold",
            remedy="add --max-entropy or --keep-fraction",
        )
    if nats is not None and not 0 <= nats <= 100:
        raise ConfigError("unusable --max-entropy", expected="0 .. 100 nats", found=nats)
    for name, value in (("--keep-fraction", fraction), ("--min-share", share)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"unusable {name}", expected="above 0, at most 1", found=value)
