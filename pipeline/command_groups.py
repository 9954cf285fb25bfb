"""The classes of the commands: help pages in sections, errors without a traceback, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import IO, Any

import click
from click.core import ParameterSource

from distinit.pipeline.compute.torchrun import launched, refuse_several_processes
from distinit.pipeline.given_values import path_errors, refuse_unusable_values
from distinit.pipeline.interruption import Interrupted, sigterm_interrupts
from distinit.pipeline.torchrun_command import run_or_help
from distinit.schemas.errors import DistInitError
from distinit.schemas.exit_codes import ExitCode

__all__ = ["EXIT_CODES", "PlainGroup", "SectionedCommand", "SectionedGroup", "SectionedOption"]

_SECTIONS = {
    "Pipeline": ("extract", "distill", "finetune", "evaluate"),
    "Compare": ("probe", "features", "figures", "reproduce"),
    "Inspect and build data": ("audit", "cache", "frames", "flow", "runs"),
    "List what can be named": ("teachers", "students"),
    "Start here": ("demo", "plan", "doctor", "config"),
}

EXIT_CODES = "\b\nExit codes: docs/exit-codes.md (0 complete, 1 failed, 2 usage, 3 incomplete)"
_RESUME = "rerun the same command to resume"
# What remains if a command is interrupted, where training itself does not say it. Other commands
# write each of their files as a whole, at the end.
_DERIVED = (
    "finished units of --out are kept, and without the others it does not count as a cache; rerun "
    "the same command to verify the sources again and continue"
)
_KEPT = {
    "extract": f"finished units are kept; {_RESUME}",
    "cache merge": _DERIVED,
    "cache subset": _DERIVED,
    "cache encode": _DERIVED,
    "cache relabel": _DERIVED,
    "cache match": f"hashes of finished videos are kept; {_RESUME}",
    "cache pull": f"files that have arrived are kept; {_RESUME}",
    "cache push": f"files that were sent are kept; {_RESUME}",
    "frames build": f"finished units are kept; {_RESUME}",
    "flow build": f"finished units are kept; {_RESUME}",
    "distill": f"earlier checkpoints are kept; {_RESUME}",
    "finetune": f"finished frames and earlier checkpoints are kept; {_RESUME}",
    "features": f"finished parts are kept; {_RESUME}",
    "probe": f"finished parts are kept; {_RESUME}",
    "demo": f"finished steps and earlier checkpoints are kept; {_RESUME}",
    "reproduce": f"finished runs and earlier checkpoints are kept; {_RESUME}",
}
_RUNNING = "distinit.running_command"
_NOTHING_KEPT = "rerun the same command to start again"


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
                problem = f"{before} is empty" if before[:1] == "-" else "empty value"
                raise click.UsageError(problem, ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ConfigError for values that no command can use."""
        ctx.meta[_RUNNING] = _words_of(ctx)
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


def _words_of(ctx: click.Context) -> str:
    """The command as it is typed, without ``distinit``: ``cache merge``."""
    words = []
    while ctx.parent is not None:
        words.append(ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(reversed(words))


def _shown_name(param: click.Parameter) -> str:
    """``--out``, or the name of an argument in capitals."""
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name


class _UsageError(click.UsageError):
    """An error that click has found in the command line, shown as all others: ``error: ...``."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print how the command is used, and the error."""
        if self.ctx is not None:
            option = self.ctx.help_option_names[-1]
            click.echo(self.ctx.get_usage(), file=file, err=True)
            click.echo(f"Try '{self.ctx.command_path} {option}' for help.\n", file=file, err=True)
        click.echo(f"error: {self.format_message()}", file=file, err=True)


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # shows the help page
        raise
    except click.UsageError as error:
        raise _UsageError(error.format_message(), error.ctx) from None


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

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the options before the name of the command."""
        with _usage_errors():
            return super().make_context(*args, **kwargs)

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
            with sigterm_interrupts(once=launched() is not None), path_errors(), _usage_errors():
                return super().invoke(ctx)
        except DistInitError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt as stop:
            message, code = None, ExitCode.INTERRUPTED
            if isinstance(stop, Interrupted):
                message, code = stop.message, stop.exit_code
            kept = _KEPT.get(ctx.meta.get(_RUNNING, ""), _NOTHING_KEPT)
            click.echo(message or f"stopped; {kept}", err=True)
            ctx.exit(code)
