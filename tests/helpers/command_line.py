"""All commands of ``distinit``, and what no message to a user may contain."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from click.testing import CliRunner

from distinit.cli import main

__all__ = ["INTERNALS", "command_of", "commands", "run_command"]

INTERNALS = re.compile(
    r"Traceback|PosixPath|<class|<function|<module|object at 0x|NoneType|pydantic[._]|Errno"
    r"|validation error|\b(?:Type|Value|Key|Index|Attribute|OS|Import|FileNotFound)Error\b"
)


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of each command: ("cache", "verify")."""
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        path = (*prefix, name)
        found += commands(command, path) if isinstance(command, click.Group) else [path]
    return found


def command_of(path: tuple[str, ...]) -> click.Command:
    """The command at ``path``."""
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def run_command(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit code and the output, which must show nothing of Python's internals."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        [text[:80] for text in arguments],
        result.exception,
    )
    assert INTERNALS.search(result.output) is None, result.output
    return result.exit_code, result.output
