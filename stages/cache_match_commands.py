"""The command ``distinit cache match``: which of a receiver's videos are copies of a cache's."""

from __future__ import annotations

import sys
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import stage_options

__all__ = ["cache_match"]


@click.command(
    "match",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache match cache --videos clips/ --out clips.match",
        "distinit cache match cache --videos clips/ --out clips.match --static refuse --json",
    ),
)
@click.argument("cache", type=click.Path())
@click.option(
    "--videos",
    metavar="DIR|LIST",
    required=True,
    help="Folder with your copies of the videos (searched recursively), or list of paths below it.",
)
@click.option("--out", metavar="FILE", required=True, help="Mapping file to write.")
@click.option(
    "--static",
    "limits__static",
    metavar="use|refuse",
    help="What to do with copies that hardly move, so that a shift cannot be ruled out. "
    "Default: use.",
)
@stage_options
def cache_match(**options: Any) -> None:
    """Find your own copies of the videos of CACHE.

    Copies may be re-encoded, resized and renamed. Those that are shifted, cut or have another frame
    rate are refused by name.

    Exit code 0: every video has a usable copy. 3: some have none. 1: no video has one.
    """
    from distinit.schemas.matching import MatchConfig
    from distinit.stages.match import match_cache as run

    result = run_stage(MatchConfig, run, options)
    sys.exit(result.exit_code)
