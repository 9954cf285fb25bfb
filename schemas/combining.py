"""Results of the commands that make a cache from other caches, or compare two of them."""

from __future__ import annotations

from pydantic import Field

from distinit.schemas.base import Record
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.wording import counted, first_lines, one_line, shell_line

__all__ = [
    "CacheDiff",
    "DerivedCache",
    "FrameDifference",
    "MergeResult",
    "RowConflict",
    "TeacherDifference",
]

_SHOWN = 20
_UNKNOWN_FIDELITY = "copied; `distinit cache info` of the sources says what storing changed"
_WORST_SHOWN = 5


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
    fidelity: dict[str, FidelityReport | FeatureFidelityReport | None] = Field(
        description="teacher -> what its encoding changed; null: not known"
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
            known = f"storing {report}" if report else _UNKNOWN_FIDELITY
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
    folders: tuple[str, ...] = Field(description="the merged caches, in the order of their numbers")

    @property
    def exit_code(self) -> ExitCode:
        """0: written. 1: the caches contradict each other, and nothing was written."""
        return ExitCode.OK if self.content_digest else ExitCode.FAILED

    def summary(self) -> str:
        """Text for the terminal."""
        conflicts = first_lines([str(conflict) for conflict in self.conflicts], _SHOWN)
        named = {number for conflict in self.conflicts for number in conflict.sources}
        caches = [f"  cache {n}   {one_line(self.folders[n - 1])}" for n in sorted(named)]
        count = counted(self.conflict_count, "conflict")
        if not self.content_digest:
            lines = [f"CONFLICTS: {count}: nothing was written", *caches, *conflicts]
            remedy = "find out which cache is right; --on-conflict first takes the first one's rows"
            return "\n".join([*lines, f"  to do: {remedy}"])
        lines = [f"{count}: the first cache's rows were taken", *caches, *conflicts]
        lines = lines if conflicts else []
        return "\n".join([super().summary(), *lines])


class FrameDifference(Record):
    """One of the frames whose targets differ most."""

    path: str = Field(description="path of the video in cache A")
    digest: str = Field(description="sha256 of the video")
    frame_index: int = Field(description="number of the frame")
    kl_ab_nats: float | None = Field(description="KL(A || B), nats; null for features")
    entropy_a_nats: float | None = Field(description="entropy in A, nats; null for features")
    entropy_b_nats: float | None = Field(description="entropy in B, nats; null for features")
    largest_difference: float = Field(description="largest difference of a stored value")

    def __str__(self) -> str:
        kl = "" if self.kl_ab_nats is None else f"KL(A || B) {self.kl_ab_nats:.3g} nats, "
        return (
            f"{one_line(self.path)} frame {self.frame_index}: {kl}"
            f"largest difference {self.largest_difference:.3g}"
        )


class TeacherDifference(Record):
    """How the targets of one teacher in A differ from those of one in B, on shared frames.

    Divergences and entropies are null for features, and if there are no shared frames. They are
    computed from the stored targets, so they show what an encoding changed.
    """

    teacher_a: str = Field(description="id of the teacher in A")
    teacher_b: str = Field(description="id of the teacher in B")
    frames: int = Field(description="shared frames for which both have targets")
    identical: int = Field(description="of these, frames with equal bits in all stored values")
    largest_difference: float = Field(description="largest difference of a stored value")
    mean_kl_ab_nats: float | None = Field(description="mean KL(A || B), nats")
    max_kl_ab_nats: float | None = Field(description="largest KL(A || B), nats")
    mean_kl_ba_nats: float | None = Field(description="mean KL(B || A), nats")
    max_kl_ba_nats: float | None = Field(description="largest KL(B || A), nats")
    top1_agreement: float | None = Field(description="fraction of frames with the same top class")
    mean_entropy_a_nats: float | None = Field(description="mean entropy in A, nats")
    mean_entropy_b_nats: float | None = Field(description="mean entropy in B, nats")
    entropy_drift_nats: float | None = Field(description="mean entropy in B minus that in A, nats")
    mean_entropy_error_nats: float | None = Field(
        description="mean absolute difference of the entropies of a frame, nats"
    )
    entropy_distance_nats: float | None = Field(
        description="earth mover's distance of the two distributions of entropies, nats, from "
        "1,000 bins between 0 and ln(classes)"
    )
    worst: tuple[FrameDifference, ...] = Field(
        description="the 20 frames with the largest KL(A || B), or difference for features"
    )

    def lines(self) -> list[str]:
        """Text for the terminal."""
        name = (
            self.teacher_a
            if self.teacher_a == self.teacher_b
            else (f"{self.teacher_a} : {self.teacher_b}")
        )
        lines = [
            f"teacher   {one_line(name)}: {self.identical:,} of {counted(self.frames, 'frame')} "
            "have equal bits"
        ]
        if self.mean_kl_ab_nats is not None:
            lines += [
                f"          KL(A || B) {self.mean_kl_ab_nats:.3g} nats on average, at most "
                f"{self.max_kl_ab_nats:.3g}; KL(B || A) {self.mean_kl_ba_nats:.3g}, at most "
                f"{self.max_kl_ba_nats:.3g}",
                f"          same top class for {self.top1_agreement:.2%} of the frames",
                f"          entropy {self.mean_entropy_a_nats:.3f} nats in A, "
                f"{self.mean_entropy_b_nats:.3f} in B (drift {self.entropy_drift_nats:+.3g}; "
                f"distance of the distributions {self.entropy_distance_nats:.3g})",
            ]
        elif self.frames:
            lines.append(f"          largest difference {self.largest_difference:.3g}")
        return [*lines, *(f"          {frame}" for frame in self.worst[:_WORST_SHOWN])]


class CacheDiff(Record):
    """The differences between cache A and cache B."""

    digest_a: str = Field(description="content digest of A")
    digest_b: str = Field(description="content digest of B")
    videos: int = Field(description="videos with rows in both caches")
    videos_only_a: int = Field(description="videos that only A has, or of which only A has rows")
    videos_only_b: int = Field(description="the same for B")
    frames_only_a: int = Field(description="frames of shared videos of which only A has rows")
    frames_only_b: int = Field(description="the same for B")
    other_pictures: int = Field(
        description="shared frames with another perceptual hash: they were decoded differently"
    )
    teachers_only_a: tuple[str, ...] = Field(description="teachers that were not compared, of A")
    teachers_only_b: tuple[str, ...] = Field(description="the same for B")
    teachers: tuple[TeacherDifference, ...] = Field(description="one entry per compared pair")
    notes: tuple[str, ...] = Field(description="how the compared teachers differ, one line each")
    files: tuple[str, ...] = Field((), description="files that were written, with --out")

    @property
    def identical(self) -> bool:
        """Whether both have the same frames and teachers, with equal bits."""
        counts = (self.videos_only_a, self.videos_only_b, self.frames_only_a, self.frames_only_b)
        others = (*self.teachers_only_a, *self.teachers_only_b)
        same = all(teacher.identical == teacher.frames for teacher in self.teachers)
        other = any(counts) or others or self.notes or self.other_pictures
        return same and not other

    def summary(self) -> str:
        """Text for the terminal."""
        lines = [
            f"A         {self.digest_a}",
            f"B         {self.digest_b}",
            f"videos    {self.videos} in both, {self.videos_only_a} only in A, "
            f"{self.videos_only_b} only in B",
        ]
        if self.frames_only_a or self.frames_only_b:
            lines.append(
                f"frames    of these videos: {self.frames_only_a} only in A, "
                f"{self.frames_only_b} only in B"
            )
        if self.other_pictures:
            lines.append(
                f"frames    {self.other_pictures} with another perceptual hash: they were decoded "
                "differently"
            )
        for side, names in (("A", self.teachers_only_a), ("B", self.teachers_only_b)):
            if names:
                lines.append(
                    f"teachers  not compared, of {side}: {', '.join(map(one_line, names))}"
                )
        for teacher in self.teachers:
            lines += teacher.lines()
        lines += [f"note: {one_line(note)}" for note in self.notes]
        return "\n".join([*lines, *(f"wrote     {one_line(name)}" for name in self.files)])
