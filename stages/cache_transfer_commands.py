"""The commands ``distinit cache push`` and ``pull``: they move caches between places."""

from __future__ import annotations

from pathlib import Path

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.command_options import Command
from distinit.pipeline.progress import choose_progress

__all__ = ["cache_pull", "cache_push"]


def _workers_option(command: Command) -> Command:
    return click.option(
        "--workers",
        type=int,
        default=8,
        show_default=True,
        metavar="N",
        help="Number of files that are moved at a time.",
    )(command)


@click.command(
    "push",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache push cache s3://bucket/caches/one",
        "distinit cache push cache /mnt/share/one --replace",
    ),
)
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.argument("target", metavar="URL")
@click.option("--replace", is_flag=True, help="Replace another cache that is at URL.")
@_workers_option
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON.")
def cache_push(folder: Path, target: str, replace: bool, workers: int, as_json: bool) -> None:
    """Send CACHE to a folder, S3 or Hugging Face.

    Rerun the same command to resume.
    """
    from distinit.stages.cache_transfer import cache_push as run

    progress = choose_progress(json_events=as_json)
    show(run(folder, target, replace=replace, workers=workers, progress=progress), as_json)


@click.command(
    "pull",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache pull s3://bucket/caches/one cache --expect DIGEST",
        "distinit cache pull https://host/caches/one part --teacher resnet50 --units 0-3",
        "distinit cache pull s3://bucket/caches/one part --videos list.txt",
    ),
)
@click.argument("source", metavar="URL")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="ID",
    help="Copy only this teacher. Repeat the option for several.",
)
@click.option("--units", metavar="0-3,7", help="Copy only these units.")
@click.option(
    "--videos",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="LIST",
    help="Copy only the units that have these videos (.txt or .csv of ids, digests, paths or "
    "file names).",
)
@click.option("--expect", metavar="DIGEST", help="Content digest that the cache must have.")
@_workers_option
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON.")
def cache_pull(
    source: str,
    folder: Path,
    teachers: tuple[str, ...],
    units: str | None,
    videos: Path | None,
    expect: str | None,
    workers: int,
    as_json: bool,
) -> None:
    """Copy the cache at URL, or a part of it.

    Every byte is checked as it arrives. Rerun the same command to resume.
    """
    from distinit.stages.cache_transfer import cache_pull as run

    result = run(
        source,
        folder,
        teachers=teachers,
        units=units,
        videos=videos,
        expect=expect,
        workers=workers,
        progress=choose_progress(json_events=as_json),
    )
    show(result, as_json)
