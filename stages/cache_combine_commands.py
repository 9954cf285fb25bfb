"""The commands ``distinit cache merge | subset | encode | relabel | diff``: derived caches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from distinit.pipeline.command_groups import SectionedCommand
from distinit.pipeline.command_line import examples, show
from distinit.pipeline.command_options import Command, with_options
from distinit.pipeline.progress import NullProgress, Progress, choose_progress
from distinit.schemas.errors import ConfigError
from distinit.schemas.exit_codes import ExitCode

__all__ = ["COMBINE_COMMANDS"]


class _CacheFolder(click.Path):
    """A folder of a cache. A URL is refused as one: as a path it would lose a slash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.Path. Raises ConfigError for a URL, which may contain a password."""
        from distinit.pipeline.transport.remote import is_url

        if isinstance(value, str) and is_url(value):
            raise ConfigError(
                "this command reads every byte of a cache, and needs it on a disk",
                expected="a cache in a folder",
                found="a URL",
                remedy="copy the cache with `distinit cache pull` first, and name that folder",
            )
        return super().convert(value, param, ctx)


_FOLDER = click.Path(path_type=Path)
_CACHE = _CacheFolder(path_type=Path)
_source = click.argument("folder", metavar="CACHE", type=_CACHE)
_out = click.option(
    "--out", metavar="DIR", type=_FOLDER, required=True, help="Folder of the new cache."
)


def _output_options(command: Command) -> Command:
    options = (
        click.option(
            "--json", "as_json", is_flag=True, help="Print progress events and the result as JSON."
        ),
        click.option("--quiet", is_flag=True, help="Print no progress."),
    )
    return with_options(command, options)


def _progress(as_json: bool, quiet: bool) -> Progress:
    return NullProgress() if quiet else choose_progress(json_events=as_json)


def _teachers(help_text: str) -> Callable[[Command], Command]:
    return click.option("--teacher", "teachers", multiple=True, metavar="ID", help=help_text)


@click.command(
    "merge",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache merge january february --out both",
        "distinit cache merge ours theirs --teacher resnet50 --out both",
    ),
)
@click.argument("folders", metavar="CACHE CACHE...", type=_CACHE, nargs=-1, required=True)
@_out
@_teachers("Teacher to keep. Repeat the option for several. Default: all.")
@click.option(
    "--on-conflict",
    type=click.Choice(["refuse", "first"]),
    default="refuse",
    help="If caches differ in a row: write nothing (default), or take the first cache's rows.",
)
@_output_options
def cache_merge(
    folders: tuple[Path, ...],
    out: Path,
    teachers: tuple[str, ...],
    on_conflict: Literal["refuse", "first"],
    as_json: bool,
    quiet: bool,
) -> None:
    """Join the videos of several caches of the same teachers.

    Rows of videos that several caches have must be equal bit by bit. Exit code 1: they are not; the
    report names each row.
    """
    from distinit.stages.cache_merge import cache_merge as run

    result = run(
        folders,
        out,
        teachers=teachers,
        on_conflict=on_conflict,
        progress=_progress(as_json, quiet),
    )
    show(result, as_json)
    sys.exit(result.exit_code)


@click.command(
    "subset",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache subset cache --videos train.txt --out train",
        "distinit cache subset cache --video 'walks/*.mp4' --teacher resnet50 --out walks",
        "distinit cache subset cache --max-entropy 2 --min-share 0.5 --out confident",
    ),
)
@_source
@_out
@click.option(
    "--video",
    "videos",
    multiple=True,
    metavar="NAME",
    help="Video to keep: its id, digest, path, or a pattern of paths in quotes. Repeatable.",
)
@click.option(
    "--videos",
    "video_list",
    metavar="LIST",
    type=_FOLDER,
    help="List of videos to keep (.txt, .csv, .parquet), each named as for --video.",
)
@_teachers("Teacher to keep. Repeat the option for several. Default: all.")
@click.option(
    "--max-entropy",
    "max_entropy_nats",
    type=float,
    metavar="NATS",
    help="Keep videos with a frame of at most this entropy.",
)
@click.option(
    "--keep-fraction",
    type=float,
    metavar="F",
    help="As --max-entropy, with the entropy that the fraction F of all frames does not exceed.",
)
@click.option(
    "--min-share",
    type=float,
    metavar="S",
    help="Share of a video's frames that must be confident enough. Default: one frame.",
)
@click.option("--entropy-of", metavar="ID", help="Teacher whose entropies count.")
@_output_options
def cache_subset(
    folder: Path,
    out: Path,
    videos: tuple[str, ...],
    video_list: Path | None,
    teachers: tuple[str, ...],
    max_entropy_nats: float | None,
    keep_fraction: float | None,
    min_share: float | None,
    entropy_of: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy some videos and teachers of CACHE into a new cache.

    Videos are kept as a whole, with all their rows. All criteria must be met.
    """
    from distinit.stages.cache_subset import SubsetChoice
    from distinit.stages.cache_subset import cache_subset as run

    choice = SubsetChoice(
        videos, video_list, teachers, max_entropy_nats, keep_fraction, min_share, entropy_of
    )
    show(run(folder, out, choice, progress=_progress(as_json, quiet)), as_json)


@click.command(
    "encode",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache encode cache --encoding int8 --out smaller",
        "distinit cache encode cache --encoding topk:32 --teacher resnet50 --out smallest",
    ),
)
@_source
@click.option(
    "--encoding",
    metavar="float16|int8|topk:K",
    required=True,
    help="How the new cache stores targets.",
)
@_out
@_teachers("Teacher to encode again; the others are copied. Repeatable. Default: all.")
@_output_options
def cache_encode(
    folder: Path, encoding: str, out: Path, teachers: tuple[str, ...], as_json: bool, quiet: bool
) -> None:
    """Store the targets of CACHE in another encoding.

    What that changes is measured against the stored targets of CACHE, over all rows.
    """
    from distinit.stages.cache_encode import cache_encode as run

    progress = _progress(as_json, quiet)
    show(run(folder, out, encoding, teachers=teachers, progress=progress), as_json)


@click.command(
    "relabel",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache relabel cache --vocabulary birds.safetensors --out birds",
        "distinit cache relabel cache --vocabulary birds.safetensors --teacher clip "
        "--encoding int8 --out birds",
    ),
)
@_source
@click.option(
    "--vocabulary",
    "vocabularies",
    type=_FOLDER,
    multiple=True,
    required=True,
    metavar="FILE",
    help="Vocabulary file. Repeat the option for several: each becomes a teacher of the new cache.",
)
@_out
@click.option(
    "--teacher", metavar="ID", help="Teacher whose features are used. Default: the only one."
)
@click.option(
    "--encoding",
    metavar="float16|int8|topk:K",
    default="float16",
    help="How the logits are stored. Default: float16.",
)
@_output_options
def cache_relabel(
    folder: Path,
    vocabularies: tuple[Path, ...],
    out: Path,
    teacher: str | None,
    encoding: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Store the logits of a vocabulary for the features in CACHE.

    The new cache has logits and confidence, and no features. No video is decoded.
    """
    from distinit.stages.cache_relabel import cache_relabel as run

    progress = _progress(as_json, quiet)
    result = run(folder, out, vocabularies, teacher=teacher, encoding=encoding, progress=progress)
    show(result, as_json)


@click.command(
    "diff",
    cls=SectionedCommand,
    epilog=examples(
        "distinit cache diff one two",
        "distinit cache diff one two --teacher resnet50:resnet50-int8 --out differences",
        "distinit cache diff ours theirs --fail-if-different",
    ),
)
@click.argument("folder_a", metavar="A", type=_CACHE)
@click.argument("folder_b", metavar="B", type=_CACHE)
@_teachers("Teacher to compare: ID, or ID_IN_A:ID_IN_B. Repeatable. Default: all that both have.")
@click.option(
    "--out", metavar="DIR", type=_FOLDER, help="Folder for tables and plots of the differences."
)
@click.option("--fail-if-different", is_flag=True, help="End with exit code 1 at any difference.")
@_output_options
def cache_diff(
    folder_a: Path,
    folder_b: Path,
    teachers: tuple[str, ...],
    out: Path | None,
    fail_if_different: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare the targets of caches A and B on their shared frames.

    Videos are matched by their bytes. Exit code 0: compared, whatever the differences.
    """
    from distinit.stages.cache_diff import cache_diff as run

    result = run(folder_a, folder_b, teachers=teachers, out=out, progress=_progress(as_json, quiet))
    show(result, as_json)
    if fail_if_different and not result.identical:
        sys.exit(ExitCode.FAILED)


COMBINE_COMMANDS: tuple[click.Command, ...] = (
    cache_merge,
    cache_subset,
    cache_encode,
    cache_relabel,
    cache_diff,
)
"""They belong to the group ``distinit cache``."""
