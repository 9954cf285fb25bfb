"""Names the damaged units of a cache, and the commands that extract them again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from distinit.pipeline.cache.completion import ExtractCommand
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.schemas.errors import CacheError
from distinit.schemas.wording import first_lines, one_line, shell_line

__all__ = ["repair_commands", "unit_names", "what_to_do"]

_SHOWN = 20


def unit_names(units: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """``unit 3 of teacher alpha`` for pairs (teacher, unit)."""
    return tuple(f"unit {unit} of teacher {one_line(name)}" for name, unit in units)


def repair_commands(path: Path, units: Collection[tuple[str, int]]) -> tuple[str, ...]:
    """One command per teacher of the damaged ``units``, as far as its record can be read."""
    layout, commands = CacheLayout(path), []
    with suppress(CacheError):
        run = ExtractCommand(str(path), read_manifest(layout).sampling)
        for name in dict.fromkeys(name for name, _ in units):
            commands.append(run.for_teacher(read_teacher(layout, name), repair=True))
    return tuple(commands)


def what_to_do(path: Path, damaged_units: Sequence[str], commands: Sequence[str]) -> list[str]:
    """Lines about a damaged cache: the damaged units, and how to get good ones."""
    lines = [f"  damaged   {text}" for text in first_lines(damaged_units, _SHOWN)]
    lines += [
        "  to do: do not train from this cache. If you received it: run the same",
        f"         {shell_line(['distinit', 'cache', 'pull', 'URL', str(path)])}",
        "         again, which fetches just the damaged files.",
    ]
    if CacheLayout(path).copy.exists():
        return lines
    if commands:
        lines.append("         If you have its videos, this extracts only the damaged units again:")
        return lines + [f"         {command}" for command in commands]
    return [
        *lines,
        "         If you extracted it: add --repair to the same `distinit extract`.",
    ]
