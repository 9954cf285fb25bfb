"""The exit codes of the ``distinit`` command, for all of its subcommands."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """What a shell or a scheduler sees; docs/exit-codes.md says what to do about each."""

    OK = 0
    """The work is complete."""
    FAILED = 1
    """It could not be completed, data is damaged, or what was named does not fit together."""
    USAGE = 2
    """The command line or the configuration is wrong, or names an input that is not there."""
    INCOMPLETE = 3
    """Nothing is damaged, but something is missing: rerun the command that was named."""
    INTERRUPTED = 130
    """Ended by SIGINT (128 + 2)."""
    TERMINATED = 143
    """Ended by SIGTERM (128 + 15)."""
