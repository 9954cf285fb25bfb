"""What the click commands share: sections of the help, options, running a stage, printing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Concatenate, Protocol

import click

from distinit.pipeline.config import build_config, sampling_choice
from distinit.pipeline.progress import NullProgress, choose_progress
from distinit.schemas.base import Record
from distinit.schemas.errors import DistInitError
from distinit.schemas.wording import printable, printable_json

__all__ = [
    "Command",
    "SectionedGroup",
    "damaged_option",
    "examples",
    "run_stage",
    "sampling_options",
    "show",
    "stage_options",
    "teacher_option",
    "train_options",
    "videos_option",
    "weights_option",
]

_SECTIONS = {
    "Pipeline": ("extract", "distill", "finetune", "evaluate"),
    "Look and trust": ("audit", "cache", "frames", "flow", "runs"),
    "Start here": ("demo", "plan", "doctor"),
}

_FILE = click.Path(path_type=Path, dir_okay=False)
videos_option = click.option(
    "--videos",
    metavar="DIR|LIST|URL",
    help="Folder (recursive); .txt, .csv or .parquet list of paths and URLs; or a URL.",
)
teacher_option = click.option(
    "--teacher", "names", multiple=True, metavar="NAME", help="Repeat for several."
)
damaged_option = click.option(
    "--damaged", "decode__damaged", metavar="keep|fail", help="Videos that lack frames."
)
weights_option = click.option(
    "--weights", multiple=True, metavar="FILE", help="Of the teachers, in their order."
)


class SectionedGroup(click.Group):
    """Help in sections; errors of the project without a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section; a command of no section comes last."""
        named = {name for names in _SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in {**_SECTIONS, "More": others}.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(n, c.get_short_help_str(70)) for n, c in commands if c is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a DistInitError becomes its message and exit code."""
        try:
            return super().invoke(ctx)
        except DistInitError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("stopped; the same command goes on from here", err=True)
            ctx.exit(130)


class Summarised(Protocol):
    """What every stage returns."""

    def summary(self) -> str:
        """Text for people."""

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """JSON for scripts."""


def show(result: Summarised, as_json: bool) -> None:
    """Print a result for people, or as JSON; names in it cannot act on a terminal."""
    if as_json:
        click.echo(printable_json(result.model_dump_json(indent=2)))
    else:
        click.echo(printable(result.summary()))


def examples(*lines: str) -> str:
    """A help epilog that click leaves as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


type Command = Callable[..., None]
type _Options = dict[str, Any]


def _with_options(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    """``command`` with ``options``, which its help lists in this order."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed([*options]), command)


def stage_options(command: Command) -> Command:
    """Options that every stage has: --config, --set, --json, --quiet."""
    options = (
        click.option("--config", "config_file", type=_FILE, help="YAML; options win over it."),
        click.option(
            "--set", "settings", multiple=True, metavar="A.B=VALUE", help="Any key of it."
        ),
        click.option("--json", "as_json", is_flag=True, help="Result and events as JSON."),
        click.option("--quiet", is_flag=True, help="No progress."),
    )
    return _with_options(command, options)


def sampling_options(command: Command) -> Command:
    """Which frames the teachers see; shared by extract and plan."""
    options = (
        click.option("--stride", type=int, metavar="N", help="Teachers see every N-th frame."),
        click.option("--fps", type=float, metavar="F", help="... F frames a second of video."),
        click.option("--per-video", type=int, metavar="K", help="... K frames of each video."),
    )

    @functools.wraps(command)
    def with_sampling(**given: Any) -> None:
        sampling = {name: given.pop(name) for name in ("stride", "fps", "per_video")}
        command(sampling=sampling_choice(sampling), **given)

    return _with_options(with_sampling, options)


def train_options(command: Command) -> Command:
    """Where a student trains; shared by distill and finetune."""
    options = (
        click.option("--workers", "runtime__workers", type=int, help="Ray Train workers; 0: none."),
        click.option(
            "--gpus-per-worker", "runtime__gpus_per_worker", type=float, help="GPUs each."
        ),
        click.option("--ray-address", "runtime__ray_address", metavar="ADDRESS", help="A cluster."),
        click.option(
            "--device", "runtime__device", metavar="auto|cpu|cuda", help="Where it trains."
        ),
    )
    return _with_options(command, options)


def run_stage[ConfigT: Record, ResultT: Summarised](
    model: type[ConfigT], stage: Callable[Concatenate[ConfigT, ...], ResultT], options: _Options
) -> ResultT:
    """Run ``stage`` with the configuration and progress that options ask for; print its result.

    An option named ``a__b`` sets the key ``a.b``.
    """
    file, settings = options.pop("config_file"), options.pop("settings")
    as_json, quiet = options.pop("as_json"), options.pop("quiet")
    dotted = {name.replace("__", "."): value for name, value in options.items()}
    config = build_config(model, file, settings, dotted)
    progress = NullProgress() if quiet else choose_progress(json_events=as_json)
    result = stage(config, progress=progress)
    show(result, as_json)
    return result
