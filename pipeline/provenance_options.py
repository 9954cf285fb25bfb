"""The options of ``extract`` and ``cache describe`` that say where a cache comes from."""

from __future__ import annotations

import click

from distinit.pipeline.command_options import Command, with_options

__all__ = ["provenance_options"]


def provenance_options(command: Command) -> Command:
    """Add the options that say where a cache comes from: --license, --source, --contact."""
    options = (
        click.option(
            "--license",
            "provenance__license",
            metavar="TEXT",
            help="License of the targets: an SPDX identifier such as CC-BY-4.0, or any text.",
        ),
        click.option(
            "--source",
            "provenance__source",
            metavar="TEXT",
            help="Where the videos come from: a name or a URL.",
        ),
        click.option(
            "--contact",
            "provenance__contact",
            metavar="TEXT",
            help="Who answers questions about the cache.",
        ),
    )
    return with_options(command, options)
