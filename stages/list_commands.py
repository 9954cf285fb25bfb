"""The commands ``distinit teachers`` and ``distinit students``: what can be named."""

from __future__ import annotations

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show

__all__ = ["students", "teachers"]


@click.command(
    cls=SectionedCommand,
    epilog=examples("distinit teachers", "distinit teachers resnet", "distinit teachers --json"),
)
@click.argument("text", default="")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def teachers(text: str, as_json: bool) -> None:
    """List the teachers whose name contains TEXT. Nothing is downloaded."""
    from distinit.stages.listing import teacher_table

    show(teacher_table(text), as_json)


@click.command(
    cls=SectionedCommand,
    epilog=examples("distinit students", "distinit students vmz", "distinit students --json"),
)
@click.argument("text", default="")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def students(text: str, as_json: bool) -> None:
    """List the students whose name contains TEXT."""
    from distinit.stages.listing import student_table

    show(student_table(text), as_json)
