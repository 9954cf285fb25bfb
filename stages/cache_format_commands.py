"""The command ``distinit cache schemas``: JSON Schemas for readers in other languages."""

from __future__ import annotations

from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show

__all__ = ["cache_schemas"]


@click.command(
    "schemas", cls=SectionedCommand, epilog=examples("distinit cache schemas --out schemas")
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs/schemas"),
    help="Folder for the files. Default: docs/schemas.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_schemas(out: Path, as_json: bool) -> None:
    """Write JSON Schemas for the records of a cache."""
    from distinit.stages.cache_schemas import write_schemas

    show(write_schemas(out), as_json)
