"""The input videos: where those from elsewhere wait, what has changed since earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.wording import counted, one_line

__all__ = ["CorpusReport", "Names", "SpoolConfig", "left_out_lines"]

_NAMES_KEPT, _NAMES_SHOWN = 20, 3
_KINDS = ("new", "changed", "gone", "returned", "renamed", "duplicate", "unreadable")


class SpoolConfig(Record):
    """A folder for videos that a list names by URL; the ones unused longest make room."""

    folder: str | None = Field(
        None, description="None: $XDG_CACHE_HOME/distinit/spool; shared by all runs of a machine"
    )
    limit_gib: float = Field(
        20.0, gt=0, description="GiB it may hold; one video may not be larger than that"
    )


class Names(Record):
    """How many there are, and the first of them."""

    count: int = Field(0, ge=0)
    names: tuple[str, ...] = Field((), description="the first 20")

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """All of ``names``, in order, of which the first are kept."""
        ordered = sorted(names)
        return cls(count=len(ordered), names=tuple(ordered[:_NAMES_KEPT]))


class CorpusReport(Record):
    """What the folder, list or URL holds now, against what the cache knows of earlier runs."""

    source: str = Field(description="as it was given")
    videos: int = Field(description="of different content, those that cannot be read too")
    new: Names = Field(Names(), description="not in the cache yet")
    changed: Names = Field(
        Names(), description="other bytes than in an earlier run; the earlier ones are out"
    )
    gone: Names = Field(Names(), description="in the cache, and no longer here")
    returned: Names = Field(Names(), description="were gone in the last run")
    renamed: Names = Field(Names(), description="the bytes of another path: OLD -> NEW")
    duplicate: Names = Field(Names(), description="further names of one video: COPY = VIDEO")
    unreadable: Names = Field(
        Names(), description="cannot be read or fetched; they count as failed"
    )
    keep_gone: bool = Field(False, description="gone videos and earlier bytes stay in training")
    left_out: dict[str, int] = Field(
        default_factory=dict, description="extension -> files that are not taken for videos"
    )
    hidden_left_out: dict[str, int] = Field(
        default_factory=dict,
        description="extension -> hidden files that look like videos; folder -> hidden folders",
    )

    def lines(self) -> list[str]:
        """A table for people: what there is something to say of."""
        rows = [line for kind in _KINDS if (line := self._line(kind))]
        return [
            f"corpus {one_line(self.source)}: {counted(self.videos, 'video')}",
            *rows,
            *self.left_out_lines(),
        ]

    def left_out_lines(self) -> list[str]:
        """Lines about files that are not taken for videos."""
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
                "  (kept where all teachers have seen them: --keep-gone)"
                if self.keep_gone
                else "  (rows are kept, but not trained on; --keep-gone)"
            )
        if kind == "changed":
            return "  (the earlier bytes " + ("are kept)" if self.keep_gone else "are out)")
        return ""


def left_out_lines(others: Mapping[str, int], hidden: Mapping[str, int]) -> list[str]:
    """One line each, if there are any: files of other extensions, hidden files and folders."""
    lines = []
    if others:
        files = counted(sum(others.values()), "file")
        lines.append(f"{files} with other extensions left out: {_kinds(others)}")
    if hidden:
        lines.append(f"hidden ones left out: {_kinds(hidden)}")
    return lines


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{one_line(kind)} {count}" for kind, count in counts.items())
