"""The exit codes of the ``distinit`` command, for all of its subcommands."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What a shell or a scheduler sees; docs/exit-codes.md says what to do about each."""

    OK = 0
    """The work is complete."""
    FAILED = 1
    """It could not be completed, or data is damaged."""
    USAGE = 2
    """The command line, the configuration or an input that they name cannot be used."""
    INCOMPLETE = 3
    """Nothing is damaged, but something is missing: rerun the command that was named."""
    INTERRUPTED = 130
    """Ended by SIGINT (128 + 2)."""
    TERMINATED = 143
    """Ended by SIGTERM (128 + 15)."""
