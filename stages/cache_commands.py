"""The commands ``distinit cache``: they describe and check target caches.

Other modules add more commands to this group: ``@cache.command("name")``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from distinit.pipeline.command_line import PlainGroup, examples, show
from distinit.pipeline.progress import choose_progress

__all__ = ["cache"]


@click.group(cls=PlainGroup)
def cache() -> None:
    """Inspect and verify a target cache."""


@cache.command("info", epilog=examples("distinit cache info cache --json"))
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_info(folder: Path, as_json: bool) -> None:
    """Print the digest, the counts and the teachers of CACHE."""
    from distinit.stages.cache import cache_info as run

    show(run(folder), as_json)


@cache.command(
    "verify",
    epilog=examples(
        "distinit cache verify cache",
        "distinit cache verify cache --expect DIGEST",
        "distinit cache verify cache --signed-by team.pub",
        "distinit cache verify cache --repair",
    ),
)
@click.argument("folder", metavar="CACHE", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Check only names and sizes of files.")
@click.option(
    "--expect",
    metavar="DIGEST",
    help="Content digest that the cache must have, as its sender published it.",
)
@click.option(
    "--signed-by",
    metavar="KEY.pub",
    type=click.Path(path_type=Path),
    help="Public key of the sender, who must have signed exactly these files.",
)
@click.option(
    "--repair",
    is_flag=True,
    help="Remove the records of damaged units, so that the next extract makes them again.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Number of threads. Default: one per CPU core.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_verify(
    folder: Path,
    quick: bool,
    expect: str | None,
    signed_by: Path | None,
    repair: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Check every byte of CACHE against its records.

    Exit code 0: no problems. 1: damaged, not the expected cache, or not signed by that key.
    3: not complete.
    """
    from distinit.stages.cache import cache_verify as run

    if quick and repair:
        raise click.UsageError("--repair reads every byte: leave --quick out")
    if quick and signed_by is not None:
        raise click.UsageError("--signed-by reads every byte: leave --quick out")
    if repair and signed_by is not None:
        raise click.UsageError("--repair changes what was signed: leave --signed-by out")
    progress = choose_progress(json_events=as_json)
    result = run(
        folder,
        deep=not quick,
        expect=expect,
        repair=repair,
        signed_by=signed_by,
        workers=workers,
        progress=progress,
    )
    show(result, as_json)
    sys.exit(result.exit_code)
