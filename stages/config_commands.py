"""The commands ``distinit config``: configurations with all their keys, and their reference."""

from __future__ import annotations

from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show

__all__ = ["config"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit config distill > distill.yaml",
        "distinit config frames build",
        "distinit config reference --out docs/reference",
    ),
)
@click.argument("command", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("docs/reference"),
    help="Folder for the pages of `config reference`. Default: docs/reference.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def config(command: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Print the configuration of COMMAND with all keys and defaults.

    It is YAML with comments.

    `distinit config reference` writes one page per command instead.
    """
    from distinit.stages.config_reference import config_template, write_reference

    if command == ("reference",):
        show(write_reference(out), as_json)
    else:
        show(config_template(" ".join(command)), as_json)
