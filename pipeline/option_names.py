"""Which option of a command sets which key of its configuration."""

from __future__ import annotations

from collections.abc import Callable

import click

__all__ = ["key_of", "option_names", "required"]


def key_of(name: str) -> str:
    """The key that an option with this name in Python sets: ``a.*.b`` for ``a__each__b``."""
    return name.replace("__each__", ".*.").replace("__", ".")


def option_names(command: click.Command) -> dict[str, str]:
    """Key -> the option of ``command`` that sets it, as messages call it: ``--epochs N``."""
    return {
        key_of(param.name): f"{param.opts[0]} {param.metavar or ''}".strip()
        for param in command.params
        if param.name and isinstance(param, click.Option)
    }


def required[CommandT: Callable[..., None]](*names: str) -> Callable[[CommandT], CommandT]:
    """Mark options as required on the help page of a command, above whose options this stands.

    Click does not check them: --config and --set may give their keys, too.
    """

    def mark(command: CommandT) -> CommandT:
        for param in getattr(command, "__click_params__", ()):
            if isinstance(param, click.Option) and param.opts[0] in names:
                param.help = f"{param.help}  [required]"
        return command

    return mark
