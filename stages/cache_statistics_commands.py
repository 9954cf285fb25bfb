"""The command ``distinit cache statistics``: mean and covariance of feature teachers."""

from __future__ import annotations

from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.progress import choose_progress

__all__ = ["cache_statistics"]


@click.command(
    "statistics", cls=SectionedCommand, epilog=examples("distinit cache statistics cache --json")
)
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_statistics(folder: Path, as_json: bool) -> None:
    """Compute the statistics of the feature teachers of CACHE.

    `extract` writes them by itself. Use this for a cache that is older than format 2.2, or if
    `cache verify` says that they are wrong. The content digest does not change.
    """
    from distinit.stages.cache_statistics import cache_statistics as run

    show(run(folder, progress=choose_progress(json_events=as_json)), as_json)
