"""Shared by the click commands: help sections, common options, running stages, printing."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Concatenate, Protocol

import click
from click.core import ParameterSource

from distinit.pipeline.compute.torchrun import launched, refuse_several_processes
from distinit.pipeline.config import build_config, sampling_choice
from distinit.pipeline.given_values import path_errors, refuse_unusable_values
from distinit.pipeline.interruption import Interrupted, sigterm_interrupts
from distinit.pipeline.option_names import key_of, option_names
from distinit.pipeline.progress import NullProgress, choose_progress
from distinit.pipeline.ready_configs import find_config
from distinit.pipeline.torchrun_command import run_or_help
from distinit.schemas.base import Record
from distinit.schemas.errors import DistInitError
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.wording import printable, printable_json

__all__ = [
    "EXIT_CODES",
    "GPUS_PER_WORKER",
    "RAY_ADDRESS",
    "Command",
    "PlainGroup",
    "SectionedCommand",
    "SectionedGroup",
    "SectionedOption",
    "damaged_option",
    "dataset_options",
    "evaluation_options",
    "examples",
    "protocol_option",
    "run_stage",
    "sampling_options",
    "show",
    "stage_options",
    "teacher_option",
    "videos_option",
    "weights_option",
    "with_options",
    "worker_options",
]

_SECTIONS = {
    "Pipeline": ("extract", "distill", "finetune", "evaluate"),
    "Compare": ("probe", "features", "figures", "reproduce"),
    "Inspect and build data": ("audit", "cache", "frames", "flow", "runs"),
    "List what can be named": ("teachers", "students"),
    "Start here": ("demo", "plan", "doctor", "config"),
}

EXIT_CODES = "\b\nExit codes: docs/exit-codes.md (0 complete, 1 failed, 2 usage, 3 incomplete)"
GPUS_PER_WORKER = "GPUs that each Ray worker reserves. Default: 0."
RAY_ADDRESS = "Address of a running Ray cluster (auto, HOST:6379). Default: start a local one."
_RESUME = "rerun the same command to resume"
# What remains if a command is interrupted, where training itself does not say it. Other commands
# write each of their files as a whole, at the end.
_KEPT = {
    "extract": f"finished units are kept; {_RESUME}",
    "cache": f"finished parts are kept; {_RESUME}",
    "frames": f"finished units are kept; {_RESUME}",
    "flow": f"finished units are kept; {_RESUME}",
    "distill": f"earlier checkpoints are kept; {_RESUME}",
    "finetune": f"finished frames and earlier checkpoints are kept; {_RESUME}",
    "features": f"finished parts are kept; {_RESUME}",
    "probe": f"finished parts are kept; {_RESUME}",
    "demo": f"finished steps and earlier checkpoints are kept; {_RESUME}",
    "reproduce": f"finished runs and earlier checkpoints are kept; {_RESUME}",
}
_NOTHING_KEPT = "rerun the same command to start again"

_FILE = click.Path(path_type=Path, dir_okay=False)
videos_option = click.option(
    "--videos",
    metavar="DIR|FILE|LIST|URL",
    help="Folder (searched recursively), one video, list of paths and URLs (.txt, .csv, .parquet), "
    "or URL.",
)
teacher_option = click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME",
    help="Teacher to run. Repeat the option for several.",
)
damaged_option = click.option(
    "--damaged",
    "decode__damaged",
    metavar="keep|fail",
    help="What to do with videos that lack frames. Default: keep.",
)
weights_option = click.option(
    "--weights",
    multiple=True,
    metavar="FILE",
    help="Weights file of a teacher. Repeat the option in the order of the teachers.",
)


class SectionedOption(click.Option):
    """An option that the help page lists in a section of its own."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help page has sections; options without one come first.

    Values that no command can use are refused before it runs.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options. Raises UsageError for empty ones: as a path, "" is this folder."""
        for before, text in pairwise(["", *args]):
            if not text:
                raise click.UsageError(f"{before} is empty" if before[:1] == "-" else "empty value")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ConfigError for values that no command can use."""
        given = ParameterSource.COMMANDLINE
        for param in self.params:
            if param.name and ctx.get_parameter_source(param.name) is given:
                refuse_unusable_values({_shown_name(param): ctx.params.get(param.name)})
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options by section, in the order of their first options."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                title = param.section if isinstance(param, SectionedOption) else "Options"
                sections.setdefault(title, []).append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _shown_name(param: click.Parameter) -> str:
    """``--out``, or the name of an argument in capitals."""
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name


class PlainGroup(click.Group):
    """A group of commands inside of ``distinit``."""

    command_class = SectionedCommand


class SectionedGroup(PlainGroup):
    """The ``distinit`` command: help in sections, errors without a traceback."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by section; commands without a section come last."""
        named = {name for names in _SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        for title, names in {**_SECTIONS, "More": others}.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(n, c.get_short_help_str(70)) for n, c in commands if c is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line. Under torchrun only rank 0 does, and the other ranks help it."""
        try:
            with path_errors():  # even --help may be written to a full disk
                return run_or_help(lambda: super(SectionedGroup, self).main(*args, **kwargs))
        except DistInitError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command. Raises ConfigError if it does not train, and torchrun started several."""
        name, command, rest = super().resolve_command(ctx, args)
        refuse_several_processes(name or "")
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; for a DistInitError, print its message and exit with its code.

        SIGINT and SIGTERM end it with a message that says what is kept.
        """
        try:
            with sigterm_interrupts(once=launched() is not None), path_errors():
                return super().invoke(ctx)
        except DistInitError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            message, code = None, ExitCode.INTERRUPTED
            if isinstance(stop, Interrupted):
                message, code = stop.message, stop.exit_code
            kept = _KEPT.get(ctx.invoked_subcommand or "", _NOTHING_KEPT)
            click.echo(message or f"stopped; {kept}", err=True)
            ctx.exit(code)


class Summarised(Protocol):
    """What every stage returns: a result that can be shown as text or as JSON."""

    def summary(self) -> str:
        """The result as text."""

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """The result as JSON."""


def show(result: Summarised, as_json: bool) -> None:
    """Print a result as text or JSON, with control characters escaped."""
    if as_json:
        click.echo(printable_json(result.model_dump_json(indent=2)))
    else:
        click.echo(printable(result.summary()))


def examples(*lines: str) -> str:
    """A help epilog with example commands, which click does not rewrap."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


type Command = Callable[..., None]
type _Options = dict[str, Any]


def with_options(command: Command, options: Iterable[Callable[[Command], Command]]) -> Command:
    """Add ``options`` to ``command``; its help lists them in this order."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed([*options]), command)


def stage_options(command: Command) -> Command:
    """Add the options that every stage has: --config, --set, --json, --quiet."""
    options = (
        click.option(
            "--config",
            "config_file",
            type=_FILE,
            help="YAML file with settings, or the name of a ready one, such as demo_distill. "
            "Options override it.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="A.B=VALUE",
            help="Set any key of the configuration.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print progress events and the result as JSON."
        ),
        click.option("--quiet", is_flag=True, help="Print no progress."),
    )
    return with_options(command, options)


def sampling_options(command: Command) -> Command:
    """Add the options that choose the frames for the teachers: --stride, --fps, --per-video."""
    options = (
        click.option(
            "--stride",
            "sampling__stride",
            type=int,
            metavar="N",
            help="Run the teachers on every N-th frame.",
        ),
        click.option(
            "--fps",
            "sampling__fps",
            type=float,
            metavar="F",
            help="Run the teachers on at most F frames per second of video.",
        ),
        click.option(
            "--per-video",
            "sampling__per_video",
            type=int,
            metavar="K",
            help="Run the teachers on K frames of each video.",
        ),
    )

    @functools.wraps(command)
    def with_sampling(**given: Any) -> None:
        modes = ("stride", "fps", "per_video")
        sampling = {mode: given.pop(f"sampling__{mode}") for mode in modes}
        command(sampling=sampling_choice(sampling), **given)

    return with_options(with_sampling, options)


def worker_options(command: Command) -> Command:
    """Add the options of extract and evaluate that choose their workers."""
    options = (
        click.option(
            "--workers",
            "compute__workers",
            metavar="N|auto",
            help="Number of Ray workers. 0 (default): run in this process, without Ray.",
        ),
        click.option(
            "--gpus-per-worker", "compute__gpus_per_worker", type=float, help=GPUS_PER_WORKER
        ),
        click.option(
            "--cpus-per-worker",
            "compute__cpus_per_worker",
            type=float,
            help="CPU cores that each Ray worker reserves. Default: 1.",
        ),
        click.option("--ray-address", "compute__ray_address", metavar="ADDRESS", help=RAY_ADDRESS),
    )
    return with_options(command, options)


protocol_option = click.option(
    "--protocol",
    "evaluation__protocol",
    metavar="vmz-N|dense-sN|slowfast-TxS",
    help="Which clips of each video to score: N evenly spaced ones, one at every N-th "
    "frame, or T evenly spaced ones with S (1 or 3) crops each. Default: vmz-10.",
)


def evaluation_options(command: Command) -> Command:
    """Add the options of evaluate that choose clips and how they count."""
    options = (
        protocol_option,
        click.option(
            "--average",
            "evaluation__average",
            metavar="softmax|logits|max",
            help="Average over the clips of a video: mean of softmax (default), mean of logits, or "
            "maximum of softmax.",
        ),
        click.option(
            "--precision",
            "evaluation__precision",
            metavar="fp32|tf32|bf16",
            help="Arithmetic of the student. Default: fp32.",
        ),
    )
    return with_options(command, options)


def dataset_options(command: Command) -> Command:
    """Add the options that name a labelled dataset: --dataset, --splits, --split."""
    options = (
        click.option(
            "--dataset",
            "dataset__root",
            metavar="DIR|CSV",
            help="Folder of videos, with one subfolder per class; or a CSV with path,label,split.",
        ),
        click.option(
            "--splits",
            "dataset__splits",
            metavar="DIR|FILE",
            help="Official split files of HMDB-51 or UCF-101 (folder), or a CSV file.",
        ),
        click.option("--split", "dataset__split", type=int, help="Official split: 1, 2 or 3."),
    )
    return with_options(command, options)


def run_stage[ConfigT: Record, ResultT: Summarised](
    model: type[ConfigT], stage: Callable[Concatenate[ConfigT, ...], ResultT], options: _Options
) -> ResultT:
    """Build the configuration from the options, run ``stage``, print and return its result.

    An option named ``a__b`` sets the key ``a.b``, and ``a__each__b`` the key ``b`` of every element
    of the list ``a``.
    """
    file, settings = options.pop("config_file"), options.pop("settings")
    as_json, quiet = options.pop("as_json"), options.pop("quiet")
    dotted = {key_of(name): value for name, value in options.items()}
    path = find_config(file) if file else None
    config = build_config(
        model, path, settings, dotted, option_names(click.get_current_context().command)
    )
    progress = NullProgress() if quiet else choose_progress(json_events=as_json)
    result = stage(config, progress=progress)
    show(result, as_json)
    return result
