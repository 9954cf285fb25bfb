"""Failed videos, told by reason, and damaged ones: what a person reads at the end of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from distinit.schemas.wording import counted, one_line

__all__ = ["damage_lines", "failure_lines"]

_SHOWN = 3  # of each reason
_QUARANTINED = "quarantined"  # how ``quarantine`` begins its verdict


def damage_lines(damaged: Mapping[str, str], concealed: Mapping[str, str]) -> list[str]:
    """Lines about videos that are used although something is wrong: path -> what.

    ``damaged``: frames are missing, or may be. ``concealed``: within pictures only.
    """
    return [
        *_listed(damaged, "kept although frames are missing or may be"),
        *_listed(concealed, "with all frames, some of them damaged where the decoder conceals it"),
    ]


def _listed(found: Mapping[str, str], how: str) -> list[str]:
    if not found:
        return []
    lines = [f"{counted(len(found), 'video')} {how}:"]
    shown = sorted(found.items())[:_SHOWN]
    lines += [f"  {one_line(path)}: {one_line(what)}" for path, what in shown]
    if len(found) > len(shown):
        lines.append(f"  ... {len(found) - len(shown)} more; --json lists all")
    return lines


def failure_lines(failed: Iterable[tuple[str, str]]) -> list[str]:
    """Lines for (path, error) pairs, the commonest reason first, and what to do about them.

    The reason is an error's text up to its first colon or semicolon.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, error in ((one_line(path), one_line(error)) for path, error in failed):
        groups.setdefault(re.split("[:;]", error)[0], []).append((path, error))
    lines = []
    for reason, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {len(members)} x {reason}")
        for path, error in members[:_SHOWN]:
            lines.append(f"      {one_line(path + error[len(reason) :])}")
        if len(members) > _SHOWN:
            lines.append(f"      ... {len(members) - _SHOWN} more in videos.parquet")
    if _QUARANTINED in groups:
        lines.append(
            "  quarantined: the worker died each time while this video was under way, most often "
            "for want of memory; give workers more (fewer --workers, a smaller batch_size, "
            "--set decode.parallel_videos=1)"
        )
    if lines:
        lines.append("  repair or remove failed videos; --retry-failed tries them again")
    return lines
