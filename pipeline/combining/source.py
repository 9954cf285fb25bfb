"""Opens a cache that rows are copied from. It may come from anyone: it is verified first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distinit.pipeline.cache.copies import refuse_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.plan import PlannedRows, choose_capacity
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.state import CacheState, read_state
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.progress import Progress
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR, CACHE_FORMAT_VERSION
from distinit.schemas.errors import CacheCorruptError, CacheError
from distinit.schemas.manifest import VideoOutcome
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted, first_names

__all__ = ["Source", "open_source"]

_PROBLEMS_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Source:
    """A complete cache, and what its commit records say of each video and teacher.

    ``digest``: its content digest, recomputed from the records. ``verified``: every byte has been
    compared with the records; otherwise each file is compared when it is first read.
    """

    cache: TargetCache
    state: CacheState
    digest: str
    verified: bool

    @property
    def layout(self) -> CacheLayout:
        return self.cache.layout

    @property
    def records(self) -> Mapping[str, TeacherRecord]:
        """The teachers, by id."""
        return self.state.records

    @cached_property
    def entries(self) -> dict[str, PlannedRows]:
        """The reservation that counts, of each video by id."""
        return self.state.plan.latest

    @cached_property
    def id_of_digest(self) -> dict[str, str]:
        """Content digest of a video -> its id in this cache."""
        return {entry.digest: video_id for video_id, entry in self.entries.items()}

    @cached_property
    def decoded(self) -> dict[str, VideoOutcome]:
        """Outcome of each video; those with status ok have rows."""
        return self.state.decoded

    @cached_property
    def unanswered(self) -> dict[str, frozenset[str]]:
        """Teacher -> videos that were gone when it was added. Their rows are NaN."""
        return {
            name: frozenset(
                video_id for commit in commits.values() for video_id in commit.unanswered
            )
            for name, commits in self.state.commits.items()
        }

    @cached_property
    def refused(self) -> dict[str, dict[str, str]]:
        """Teacher -> video -> why the teacher has no usable output. These rows are NaN too."""
        return {
            name: {v: reason for commit in commits.values() for v, reason in commit.refused.items()}
            for name, commits in self.state.commits.items()
        }

    def answers(self, teacher_id: str, video_id: str) -> bool:
        """Whether a teacher has targets for a video."""
        decoded = self.decoded.get(video_id)
        return (
            teacher_id in self.records
            and decoded is not None
            and decoded.status == "ok"
            and video_id not in self.unanswered[teacher_id]
            and video_id not in self.refused[teacher_id]
        )

    @property
    def chosen_capacity(self) -> int | None:
        """The rows per unit, if a user chose them; None if they follow from the corpus."""
        plan = self.state.plan
        reserved = sum(entry.reserved_rows for entry in plan.entries[: plan.base_videos])
        return None if plan.capacity == choose_capacity(reserved) else plan.capacity


def open_source(path: Path, progress: Progress, *, verify: bool = True) -> Source:
    """Open a complete cache to copy from, or only to read it: then without ``verify``.

    Verification reads every byte, as `distinit cache verify` does. Without it, ``RowReader`` checks
    the files that it reads.

    Raises:
        CacheError: It is not a cache, or not complete.
        CacheCorruptError: It is damaged, or its records contradict its bytes.
    """
    cache = TargetCache.open(path)
    refuse_copy(cache.layout, "nothing is read from it")
    if verify and cache.manifest.is_newer:
        raise CacheError(
            f"{path} has a newer format: a copy would lose what this program does not know",
            expected=f"format version at most {CACHE_FORMAT_VERSION}.{CACHE_FORMAT_MINOR}",
            found=f"{cache.manifest.format_version}.{cache.manifest.format_minor}",
            remedy="use the version of distinit that wrote it",
        )
    digest = _verify(cache.layout, path, progress) if verify else ""
    plan, _ = read_valid_plan(cache.layout, cache.manifest)
    state = read_state(cache.layout, plan, cache.teachers)
    found = cache.checked_digest(state)
    if not state.complete or (digest and digest != found):
        raise _not_intact(cache.layout, path, "records that changed while they were read")
    return Source(cache, state, found, verify)


def _verify(layout: CacheLayout, path: Path, progress: Progress) -> str:
    """Check every byte; returns the recomputed content digest."""
    report = verify_cache(layout.root, progress=progress)
    if report.problems or not report.complete:
        lines = first_names(report.problems or ["it is not complete"], _PROBLEMS_SHOWN)
        raise _not_intact(layout, path, f"{counted(len(report.problems), 'problem')}: {lines}")
    return report.content_digest


def _not_intact(layout: CacheLayout, path: Path, found: str) -> CacheCorruptError:
    return CacheCorruptError(
        f"{path} is damaged, or was changed: nothing is copied from it",
        expected="a cache in which every byte matches its records",
        found=found,
        remedy=f"`{layout.verify_command()}` lists all problems; ask its sender for a clean copy",
    )
