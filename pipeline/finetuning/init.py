"""What training starts from: scratch, a distilled student, or an inflated 2D network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distinit.pipeline.evaluation.score import LABELS_HEAD
from distinit.pipeline.storage import sha256_file
from distinit.pipeline.students.heads import Student, new_student
from distinit.pipeline.students.inflate import image_weights, inflate_backbone
from distinit.pipeline.students.io import (
    RECORD_NAME,
    TENSORS_NAME,
    load_backbone,
    read_student_record,
    student_path,
)
from distinit.pipeline.students.registry import require_named_plugin
from distinit.schemas.errors import CheckpointError, ConfigError
from distinit.schemas.run import LoadReport, StudentRecord
from distinit.schemas.training import StudentConfig

__all__ = ["Init", "resolve_init"]


@dataclass(frozen=True, slots=True)
class Init:
    """An initialisation whose files are known to be there."""

    kind: Literal["scratch", "student", "inflated"]
    student: StudentConfig
    source: Path | None = None
    record: StudentRecord | None = None
    """Of the run that made ``source``, if it is one of ours."""

    def digest(self) -> str:
        """The kind, and the sha256 of the file that the weights come from, if there is one."""
        return self.kind if self.source is None else f"{self.kind} {sha256_file(self.source)}"

    def build(self, classes: int, seed: int, *, head_only: bool) -> tuple[Student, LoadReport]:
        """The student with its first weights and a new head, and where its tensors come from.

        ``head_only`` freezes the backbone. Raises CheckpointError unless the whole backbone
        is in the file.
        """
        student = new_student(self.student, {LABELS_HEAD: classes}, seed)
        if self.source is None:
            names = tuple(sorted(student.state_dict()))
            report = LoadReport(loaded=(), reinitialised=names, unused=())
        elif self.kind == "inflated":
            report = inflate_backbone(student, self.student, self.source)
        else:
            report = load_backbone(student, self.student, self.source)
        if head_only:
            student.freeze_backbone()
        return student, report


def resolve_init(init: str, student: StudentConfig | None) -> Init:
    """Find what ``init`` (see FinetuneConfig) names; ``student`` None takes that of the file.

    Raises ConfigError if the student is not known, or is a plugin that the file names and
    ``student`` does not; CheckpointError or WeightsError for missing files, and as
    ``image_weights`` for students that cannot be inflated.
    """
    kind, _, name = init.partition(":")
    if kind in ("distinit", "file"):
        return _from_student(kind, Path(name), student)
    if student is None:
        raise ConfigError(
            f"init {kind} does not say which network to train",
            expected="a student",
            remedy="name one: --student vmz_r3d_18",
        )
    if kind == "inflated":
        return Init("inflated", student, image_weights(student, Path(name) if name else None))
    return Init("scratch", student)


def _from_student(kind: str, named: Path, student: StudentConfig | None) -> Init:
    source = student_path(named)
    ours = source.name == TENSORS_NAME and source.with_name(RECORD_NAME).is_file()
    record = read_student_record(source) if ours else None
    if kind == "distinit" and (record is None or record.trained_by != "distill"):
        raise CheckpointError(
            f"{named} is no distilled student",
            expected="a run folder of `distinit distill`",
            found="a weights file" if record is None else "a finetuned student",
            remedy=f"write --init file:{named} if these weights are meant",
        )
    if student is None and record is None:
        raise ConfigError(
            f"{named} does not say which network it is of",
            expected=f"{RECORD_NAME} beside it, or a student",
            remedy="name one: --student r2plus1d_18",
        )
    if record is not None:
        by_user = None if student is None else student.name
        require_named_plugin(record.student, by_user, source.with_name(RECORD_NAME))
    chosen = student or (record.student if record is not None else None)
    if chosen is None:
        raise ConfigError("no student is named")
    return Init("student", chosen, source, record)
