"""The command ``distinit audit``: a report on the teachers' confidence in a target cache."""

from __future__ import annotations

import sys
from typing import Any

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, run_stage
from distinit.pipeline.command_options import stage_options

__all__ = ["audit"]


@click.command(
    cls=SectionedCommand,
    epilog=examples(
        "distinit audit cache --frames frames --out audit",
        "distinit audit cache --out audit --json",
        "distinit audit cache --vocabulary birds.safetensors --out birds-audit",
        'distinit audit cache cache2 --out audit --fail-if "kept(3.5) < 0.4"',
    ),
)
@click.argument("cache", type=click.Path())
@click.argument("compare", type=click.Path(), nargs=-1, metavar="[CACHE2 ...]")
@click.option(
    "--frames", metavar="DIR", help="Folder of a frame store, to show frames in the report."
)
@click.option("--out", metavar="DIR", required=True, help="Folder to write the report to.")
@click.option(
    "--labels",
    metavar="CSV|folders",
    help="Labels of the videos (path,label), or `folders` that name them, to check calibration.",
)
@click.option(
    "--vocabulary",
    metavar="FILE",
    help="Vocabulary file: show the confidence that it gives to stored features.",
)
@click.option(
    "--teacher",
    metavar="ID",
    help="With --vocabulary: teacher whose features are used. Default: the only one.",
)
@click.option(
    "--fail-if",
    multiple=True,
    metavar="CONDITION",
    help="Exit with 1 if the cache meets this condition. Repeat the option for several.",
)
@stage_options
def audit(fail_if: tuple[str, ...], compare: tuple[str, ...], **options: Any) -> None:
    """Write a report on the teachers' confidence in a target cache.

    With further caches, it shows how far the same teachers' outputs differ between them.
    """
    from distinit.schemas.audit import AuditConfig
    from distinit.stages.audit import audit as run

    options |= {"fail_if": fail_if or None, "compare": compare or None}
    sys.exit(run_stage(AuditConfig, run, options).exit_code)
