"""What ``cache verify --recompute`` is asked for and what it finds, as records and as text."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from distinit.pipeline.recompute.noise import MARGIN
from distinit.schemas.base import Record
from distinit.schemas.wording import counted, first_lines, one_line

__all__ = ["DifferentRow", "RecomputeRequest", "Recomputed", "RecomputedTeacher"]

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class RecomputeRequest:
    """What ``cache verify --recompute`` was asked for.

    ``teachers``, ``weights``: as given, see ``load_recorded``. ``seed``: None draws one.
    """

    rows: int
    videos: str
    seed: int | None = None
    teachers: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    device: str = "auto"


class DifferentRow(Record):
    """A row that is not what the teacher gives for its frame."""

    row: int = Field(description="row of the cache")
    video: str = Field(description="path of the video, as in videos.parquet")
    frame: int = Field(description="index of the frame, from 0")
    why: str = Field(description="what differs")
    deviation: float = Field(
        description="largest difference of a target, as a share of the row's spread"
    )


class RecomputedTeacher(Record):
    """The verdict on the drawn rows of one teacher."""

    teacher: str = Field(description="id of the teacher")
    checked: int = Field(description="rows that were recomputed")
    same_bits: int = Field(description="rows that are the same to the last bit")
    within_noise: int = Field(description="rows that differ by no more than the noise floor")
    different: tuple[DifferentRow, ...] = Field(description="the other rows, worst first")
    noise: dict[str, float] = Field(
        description="variation -> largest deviation of the teacher from itself, as a share of a "
        "row's spread"
    )
    allowed: float = Field(description="deviation that counts as noise, as a share of the spread")

    def lines(self) -> list[str]:
        """Text for the terminal."""
        if not self.checked:
            return [f"recomputed {self.teacher}: no row"]
        largest = max(self.noise, key=lambda name: self.noise[name], default="")
        lines = [
            f"recomputed {self.teacher}: {counted(self.checked, 'row')}: {self.same_bits} the same "
            f"bits, {self.within_noise} within the noise, {len(self.different)} DIFFERENT",
            f"  noise     up to {self.noise.get(largest, 0):.2g} of a row's spread ({largest}); "
            f"{MARGIN:g} times that is allowed: {self.allowed:.2g}",
        ]
        worst = [
            f"{one_line(row.video)} frame {row.frame} (row {row.row}): {row.why}"
            for row in self.different
        ]
        return lines + first_lines(worst, _SHOWN)


class Recomputed(Record):
    """The outcome of a recomputation."""

    seed: int = Field(description="seed of the draw; with it, the same rows are drawn again")
    rows: int = Field(description="rows of the cache that could be drawn")
    drawn: int = Field(description="rows that were drawn")
    teachers: tuple[RecomputedTeacher, ...] = Field(description="the verdicts")
    not_checked: dict[str, str] = Field(
        description="path of a drawn video that could not be used -> reason and number of rows"
    )
    not_checked_rows: int = Field(description="drawn rows of these videos")

    @property
    def different(self) -> bool:
        """Some row is not what the teacher gives."""
        return any(teacher.different for teacher in self.teachers)

    @property
    def checked_rows(self) -> int:
        """Drawn rows that were recomputed."""
        return self.drawn - self.not_checked_rows

    @property
    def ok(self) -> bool:
        """Some rows were checked, and none is different."""
        return self.checked_rows > 0 and not self.different

    def verdict(self, files: str) -> str:
        """The first line of the report. ``files``: what was found about the files."""
        if self.different:
            return f"DIFFERENT: {files}, but not what the teacher gives"
        if self.checked_rows == 0:
            return f"NOT RECOMPUTED: {files}, but no drawn row could be checked (of {self.drawn})"
        if 2 * self.checked_rows < self.drawn:
            number = f"{self.checked_rows} of {counted(self.drawn, 'drawn row')}"
            return f"ok, but only {number} could be checked: {files}"
        return f"ok: {files}"

    def lines(self) -> list[str]:
        """Text for the terminal: the verdicts, and what was not seen."""
        lines = [line for teacher in self.teachers for line in teacher.lines()]
        if self.not_checked:
            lines.append(
                f"  not checked: {counted(self.not_checked_rows, 'row')} of "
                f"{counted(len(self.not_checked), 'video')}:"
            )
            lines += first_lines(
                [f"{one_line(path)}: {why}" for path, why in self.not_checked.items()], _SHOWN
            )
            lines.append(
                "  rows can be checked only with videos of the same bytes: the pixels of a "
                "re-encoded copy differ"
            )
        checked = self.checked_rows
        lines.append(
            f"  not seen: changes within the noise, and rows that were not drawn. One changed row "
            f"among {self.rows:,} is found with a probability of {checked / self.rows:.2g}; "
            f"1 % changed rows with {1 - 0.99**checked:.2g} (seed {self.seed})"
        )
        return lines
