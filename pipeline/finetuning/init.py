"""What training starts from: scratch, a distilled student, or an inflated 2D network."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from distinit.schemas.wording import shell_line

__all__ = ["Init", "resolve_init"]


@dataclass(frozen=True, slots=True)
class Init:
    """An initialisation whose files exist."""

    kind: Literal["scratch", "student", "inflated"]
    student: StudentConfig
    source: Path | None = None
    record: StudentRecord | None = None
    """``student.json`` next to ``source``, if a run of this project wrote both."""

    def digest(self) -> str:
        """The kind, and the sha256 of ``source`` if there is one."""
        return self.kind if self.source is None else f"{self.kind} {sha256_file(self.source)}"

    def with_absolute_source(self) -> Init:
        """The same init for a process whose working folder is another one."""
        return self if self.source is None else replace(self, source=self.source.absolute())

    def build(self, classes: int, seed: int, *, head_only: bool) -> tuple[Student, LoadReport]:
        """Build the student with its initial weights and a new head of ``classes`` outputs.

        Returns it with a report of which tensors were loaded. ``head_only`` freezes the backbone.
        Raises CheckpointError unless the file holds the whole backbone, and as
        ``inflate_backbone`` and ``load_backbone``.
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
    """Resolve ``init`` (see FinetuneConfig.init) to a network and a file of weights.

    With ``student`` None the network is the one that the record next to the file names. Raises
    ConfigError if no student is given, if the record names a plugin that ``student`` does not,
    or if the student cannot be inflated; CheckpointError or WeightsError for missing files.
    """
    kind, _, name = init.partition(":")
    if kind in ("distinit", "file"):
        return _from_student(kind, Path(name), student)
    if student is None:
        raise ConfigError(
            f"init {kind} does not name the network to train",
            expected="a student",
            remedy="add a student, such as --student vmz_r3d_18",
        )
    if kind == "inflated":
        return Init("inflated", student, image_weights(student, Path(name) if name else None))
    return Init("scratch", student)


def _from_student(kind: str, path: Path, student: StudentConfig | None) -> Init:
    """``path``: a run folder, or a file of weights."""
    source = student_path(path)
    has_record = source.name == TENSORS_NAME and source.with_name(RECORD_NAME).is_file()
    record = read_student_record(source) if has_record else None
    if kind == "distinit" and (record is None or record.trained_by != "distill"):
        raise CheckpointError(
            f"{path} is not a distilled student",
            expected="a run folder of `distinit distill`",
            found="a weights file" if record is None else "a finetuned student",
            remedy=f"use --init {shell_line([f'file:{path}'])} to start from these weights",
            named_input=True,
        )
    if record is None:
        if student is None:
            raise ConfigError(
                f"{path} does not name the network that its weights belong to",
                expected=f"{RECORD_NAME} next to it, or a student",
                remedy="add a student, such as --student r2plus1d_18",
            )
        return Init("student", student, source)
    named_by_user = None if student is None else student.name
    require_named_plugin(record.student, named_by_user, source.with_name(RECORD_NAME))
    return Init("student", student or record.student, source, record)
