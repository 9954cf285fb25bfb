"""Results of the commands that make a cache from other caches, or compare two of them."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.output_reports import FidelityReport
from distinit.schemas.wording import counted, first_lines, one_line, shell_line

__all__ = ["DerivedCache", "MergeResult", "RowConflict"]

_SHOWN = 20


class RowConflict(Record):
    """A row, or the outcome of a video, in which two caches differ."""

    path: str = Field(description="path of the video in the first of the two caches")
    digest: str = Field(description="sha256 of the video")
    frame_index: int | None = Field(description="number of the frame; null: the whole video")
    teacher: str | None = Field(description="id of the teacher; null: not about targets")
    what: str = Field(description="frame, targets, or the field of the outcome")
    sources: tuple[int, int] = Field(description="numbers of the two caches, from 1")
    detail: str = Field(description="both values, or the columns that differ and by how much")

    def __str__(self) -> str:
        where = "" if self.frame_index is None else f" frame {self.frame_index}"
        teacher = f", teacher {one_line(self.teacher)}" if self.teacher else ""
        first, other = self.sources
        return (
            f"{one_line(self.path)}{where}{teacher}: {self.what} of cache {first} and {other}: "
            f"{one_line(self.detail)}"
        )


class DerivedCache(Record):
    """A cache that was made from others."""

    out: str = Field(description="folder of the new cache")
    content_digest: str = Field(description="its content digest; empty if it was not written")
    videos: int = Field(description="videos of the new cache, including failed ones")
    failed: int = Field(description="of these, videos without rows")
    rows: int = Field(description="rows in use")
    units: int = Field(description="number of units")
    fidelity: dict[str, FidelityReport | None] = Field(
        description="teacher -> what its encoding changed; null: not known, or features"
    )
    notes: tuple[str, ...] = Field(description="what a user should know, one line each")

    def _lines(self) -> list[str]:
        lines = [
            f"cache     {one_line(self.out)}",
            f"digest    {self.content_digest}",
            f"videos    {self.videos}, of which {self.failed} without rows",
            f"rows      {self.rows:,} in {counted(self.units, 'unit')}",
        ]
        for name, report in self.fidelity.items():
            known = f"storing {report}" if report else "what its encoding changed: see the sources"
            lines.append(f"teacher   {one_line(name)}: {known}")
        return [*lines, *(f"note: {one_line(note)}" for note in self.notes)]

    def summary(self) -> str:
        """Text for the terminal."""
        verify = shell_line(["distinit", "cache", "verify", self.out])
        return "\n".join([*self._lines(), f"next: {verify}"])


class MergeResult(DerivedCache):
    """The union of several caches, or the conflicts because of which there is none."""

    compared: int = Field(description="rows of overlapping videos that were compared")
    conflict_count: int = Field(description="rows and outcomes in which two caches differ")
    conflicts: tuple[RowConflict, ...] = Field(description="the first 10,000 of them")

    @property
    def exit_code(self) -> ExitCode:
        """0: written. 1: the caches contradict each other, and nothing was written."""
        return ExitCode.OK if self.content_digest else ExitCode.FAILED

    def summary(self) -> str:
        """Text for the terminal."""
        conflicts = first_lines([str(conflict) for conflict in self.conflicts], _SHOWN)
        count = counted(self.conflict_count, "conflict")
        if not self.content_digest:
            lines = [f"CONFLICTS: {count}: nothing was written", *conflicts]
            remedy = "find out which cache is right; --on-conflict first takes the first one's rows"
            return "\n".join([*lines, f"  to do: {remedy}"])
        lines = [f"{count}: the first cache's rows were taken", *conflicts] if conflicts else []
        return "\n".join([super().summary(), *lines])
