"""Tables of the teachers and students that can be named."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from distinit.pipeline.students.listing import StudentEntry, list_students
from distinit.pipeline.teachers.listing import TeacherEntry, list_teachers, list_timm
from distinit.pipeline.teachers.names import TIMM
from distinit.schemas.base import Record
from distinit.schemas.errors import ConfigError
from distinit.schemas.wording import did_you_mean

__all__ = ["StudentTable", "TeacherTable", "student_table", "teacher_table"]

_MORE_TEACHERS = (
    "*: the weights that the name without @TAG stands for.\n"
    "here: whether the weights are on this machine. Nothing is downloaded: let\n"
    "torchvision do it, or name a file with --weights. Other teachers:\n"
    "  places365:ARCHITECTURE  scenes (Places365), with --weights FILE\n"
    "  timm:NAME               a model of timm, with --weights FILE: docs/teachers.md\n"
    "                          `distinit teachers timm:TEXT` lists them\n"
    "  plugin:module:function  your own: docs/plugins.md"
)
_MORE_STUDENTS = (
    "Parameters are without heads. All read RGB or flow. A network of your own:\n"
    "  plugin:module:function  docs/plugins.md"
)


class TeacherTable(Record):
    """The teachers whose name contains a text."""

    teachers: tuple[TeacherEntry, ...] = Field(description="one entry per teacher")

    def summary(self) -> str:
        """A table of at most 80 columns, and what else can be a teacher."""
        head = ("teacher", "classes", "pixels", "parameters", "here")
        rows = [
            (
                entry.name + ("*" if entry.is_default and "@" in entry.name else ""),
                str(entry.classes or "-"),
                "any" if entry.input_pixels is None else str(entry.input_pixels),
                _millions(entry.parameters),
                "yes" if entry.is_here else "no",
            )
            for entry in self.teachers
        ]
        return f"{_table(head, rows)}\n\n{_MORE_TEACHERS}"


class StudentTable(Record):
    """The students whose name contains a text."""

    students: tuple[StudentEntry, ...] = Field(description="one entry per student")

    def summary(self) -> str:
        """A table of at most 80 columns, and what else can be a student."""
        head = ("student", "family", "parameters", "features", "inflated from")
        rows = [
            (
                entry.name,
                entry.family,
                _millions(entry.parameters),
                str(entry.feature_dim),
                entry.inflated_from or "-",
            )
            for entry in self.students
        ]
        return f"{_table(head, rows)}\n\n{_MORE_STUDENTS}"


def _millions(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f} M"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def teacher_table(text: str) -> TeacherTable:
    """The teachers whose name contains ``text``, in any case. Raises ConfigError if none does.

    Those of timm are only listed for a text that begins with ``timm:``: there are more than 1,000.
    Raises TeacherError if timm is asked for, and not installed.
    """
    wanted = text.lower().removeprefix(TIMM)
    known = list_timm() if text.lower().startswith(TIMM) else list_teachers()
    found = [entry for entry in known if wanted in entry.name.lower().removeprefix(TIMM)]
    if not found:
        names = [name for entry in known for name in (entry.name.partition("@")[0], entry.name)]
        raise _no_name("teacher", text, names)
    return TeacherTable(teachers=tuple(found))


def student_table(text: str) -> StudentTable:
    """The students whose name contains ``text``, in any case. Raises ConfigError if none does."""
    known = list_students()
    found = [entry for entry in known if text.lower() in entry.name.lower()]
    if not found:
        raise _no_name("student", text, [entry.name for entry in known])
    return StudentTable(students=tuple(found))


def _no_name(kind: str, text: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"no {kind}'s name contains {text}",
        remedy=did_you_mean(text, known) or f"list all names with `distinit {kind}s`",
    )
