"""The commands ``distinit cache``: they describe and check target caches.

Other modules add more commands to this group: ``@cache.command("name")``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distinit.pipeline.command_groups import PlainGroup
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.progress import choose_progress

if TYPE_CHECKING:
    from distinit.stages.recompute_result import RecomputeRequest

__all__ = ["cache"]


@click.group(cls=PlainGroup)
def cache() -> None:
    """Inspect and verify a target cache."""


@cache.command(
    "info",
    epilog=examples(
        "distinit cache info cache --json", "distinit cache info s3://bucket/caches/one"
    ),
)
@click.argument("source", metavar="CACHE|URL")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_info(source: str, as_json: bool) -> None:
    """Print the digest, the counts and the teachers of a cache.

    Of a cache at a URL, only the manifest and the records of the teachers are received.
    """
    from distinit.stages.cache_info import cache_info as run

    show(run(source), as_json)


@cache.command(
    "verify",
    epilog=examples(
        "distinit cache verify cache",
        "distinit cache verify cache --expect DIGEST",
        "distinit cache verify cache --signed-by team.pub",
        "distinit cache verify cache --repair",
        "distinit cache verify cache --recompute 64 --videos clips/",
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
@click.option(
    "--recompute",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Also compute N rows, drawn at random, again. Needs --videos and the teachers.",
)
@click.option("--videos", metavar="DIR", help="The videos, for --recompute; also a list or a URL.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="S",
    help="Seed of the draw, to draw the same rows again. Default: a new one.",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="ID[=NAME]",
    help="Teacher to recompute, and its network if the cache does not name it, or names a plugin. "
    "Default: all.",
)
@click.option(
    "--weights",
    multiple=True,
    metavar="[ID=]FILE",
    help="Weights file of a teacher that is recomputed.",
)
@click.option("--device", metavar="auto|cpu|cuda", help="Device to recompute on. Default: auto.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def cache_verify(
    folder: Path,
    quick: bool,
    expect: str | None,
    signed_by: Path | None,
    repair: bool,
    workers: int | None,
    as_json: bool,
    **recomputing: Any,
) -> None:
    """Check every byte of CACHE against its records.

    Exit code 0: no problems. 1: damaged, not the expected cache, not signed by that key, or rows
    that are not what the teacher gives. 3: not complete, or no row could be recomputed.
    """
    from distinit.stages.cache_verify import cache_verify as run

    if quick and repair:
        raise click.UsageError("--repair reads every byte: leave --quick out")
    if quick and signed_by is not None:
        raise click.UsageError("--signed-by reads every byte: leave --quick out")
    if repair and signed_by is not None:
        raise click.UsageError("--repair changes what was signed: leave --signed-by out")
    request = _recompute_request(**recomputing)
    progress = choose_progress(json_events=as_json)
    result = run(
        folder,
        deep=not quick,
        expect=expect,
        repair=repair,
        signed_by=signed_by,
        workers=workers,
        recomputing=request,
        progress=progress,
    )
    show(result, as_json)
    sys.exit(result.exit_code)


def _recompute_request(
    recompute: int | None,
    videos: str | None,
    seed: int | None,
    teachers: tuple[str, ...],
    weights: tuple[str, ...],
    device: str | None,
) -> RecomputeRequest | None:
    from distinit.stages.recompute_result import RecomputeRequest

    if recompute is None:
        if videos or seed is not None or teachers or weights or device:
            raise click.UsageError(
                "--videos, --seed, --teacher, --weights and --device need --recompute N"
            )
        return None
    if videos is None:
        raise click.UsageError("--recompute needs the videos of the cache: --videos DIR")
    return RecomputeRequest(recompute, videos, seed, teachers, weights, device or "auto")
