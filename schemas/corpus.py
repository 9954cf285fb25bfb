"""The input videos: where remote ones are downloaded to, and changes since earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.wording import counted, one_line

__all__ = ["CorpusReport", "Names", "ProbeSummary", "SpoolConfig", "VideoFile", "left_out_lines"]

_NAMES_KEPT, _NAMES_SHOWN = 20, 3
_KINDS = ("new", "changed", "gone", "returned", "renamed", "duplicate", "unreadable")


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One video of a corpus: its identity, and the file that has its bytes.

    ``path`` has slashes. It is relative to the root of the corpus, absolute for a file outside of
    the root, or a URL without credentials. For URLs, ``mtime_ns`` is the version of RemoteStat.
    """

    video_id: str
    path: str
    digest: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ProbeSummary:
    """Number of frames of a video and their mean rate per second, according to its packets.

    Both are 0 if the video cannot be probed; the rate also if its timestamps do not give one.
    """

    frame_count: int
    fps: float


class SpoolConfig(Record):
    """A folder of limited size for downloaded videos; the least recently used are evicted."""

    folder: str | None = Field(
        None,
        description="folder, shared by all runs of a machine; None: $XDG_CACHE_HOME/distinit/spool",
    )
    limit_gib: float = Field(
        20.0,
        gt=0,
        description="size limit; also the limit for a single video",
        json_schema_extra={"unit": "GiB"},
    )


class Names(Record):
    """A number of names, and the first of them."""

    count: int = Field(0, ge=0, description="how many names there are")
    names: tuple[str, ...] = Field((), description="the first 20")

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """Count ``names``, and keep the first of them in sorted order."""
        ordered = sorted(names)
        return cls(count=len(ordered), names=tuple(ordered[:_NAMES_KEPT]))


class CorpusReport(Record):
    """Differences between the present corpus and the one of the cache."""

    source: str = Field(description="folder, list or URL, as given by the user")
    videos: int = Field(
        description="videos with different content, including those that cannot be read"
    )
    new: Names = Field(Names(), description="videos that are not in the cache yet")
    changed: Names = Field(
        Names(), description="paths whose bytes changed since an earlier run, which leave training"
    )
    gone: Names = Field(Names(), description="videos of the cache that are no longer in the corpus")
    returned: Names = Field(Names(), description="videos that were gone in the last run")
    renamed: Names = Field(Names(), description="videos with a new path: OLD -> NEW")
    duplicate: Names = Field(Names(), description="other paths of the same video: COPY = VIDEO")
    unreadable: Names = Field(
        Names(), description="videos that cannot be read or fetched; they count as failed"
    )
    keep_gone: bool = Field(
        False, description="whether gone videos and earlier bytes stay in training"
    )
    left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> number of files that are not listed as videos",
    )
    hidden_left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> number of hidden video files; folder -> number of hidden folders",
    )

    def lines(self) -> list[str]:
        """A text table of all changes."""
        rows = [line for kind in _KINDS if (line := self._line(kind))]
        return [
            f"corpus {one_line(self.source)}: {counted(self.videos, 'video')}",
            *rows,
            *self.left_out_lines(),
        ]

    def left_out_lines(self) -> list[str]:
        """Lines about files that are not listed as videos."""
        return left_out_lines(self.left_out, self.hidden_left_out)

    def _line(self, kind: str) -> str:
        names: Names = getattr(self, kind)
        if not names.count:
            return ""
        shown = ", ".join(one_line(name) for name in names.names[:_NAMES_SHOWN])
        more = ", ..." if names.count > _NAMES_SHOWN else ""
        return f"  {kind:<10} {names.count:>6}  {shown}{more}{self._remark(kind)}"

    def _remark(self, kind: str) -> str:
        if kind == "gone":
            return (
                "  (kept if all teachers have targets for them: --keep-gone)"
                if self.keep_gone
                else "  (rows are kept, but not used for training; see --keep-gone)"
            )
        if kind == "changed":
            return (
                "  (the earlier bytes " + ("stay in" if self.keep_gone else "leave") + " training)"
            )
        return ""


def left_out_lines(others: Mapping[str, int], hidden: Mapping[str, int]) -> list[str]:
    """One line about files with other extensions, one about hidden files and folders, if any."""
    lines = []
    if others:
        files = counted(sum(others.values()), "file")
        lines.append(f"{files} with other extensions left out: {_kinds(others)}")
    if hidden:
        lines.append(f"hidden files and folders left out: {_kinds(hidden)}")
    return lines


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{one_line(kind)} {count}" for kind, count in counts.items())
