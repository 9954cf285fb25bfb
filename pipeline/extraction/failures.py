"""Failed videos, told by reason: what a person reads at the end of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["failure_lines"]

_SHOWN = 3  # of each reason
_QUARANTINED = "quarantined"  # how ``quarantine`` begins its verdict


def failure_lines(failed: Iterable[tuple[str, str]]) -> list[str]:
    """Lines for (path, error) pairs, the commonest reason first, and what to do about them.

    The reason is an error's text up to its first colon or semicolon.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, error in failed:
        groups.setdefault(re.split("[:;]", error)[0], []).append((path, error))
    lines = []
    for reason, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"  {len(members)} x {reason}")
        for path, error in members[:_SHOWN]:
            lines.append(f"      {path}{error[len(reason) :]}")
        if len(members) > _SHOWN:
            lines.append(f"      ... {len(members) - _SHOWN} more in videos.parquet")
    if _QUARANTINED in groups:
        lines.append(
            "  quarantined: the worker died each time while this video was under way, most often "
            "for want of memory; give workers more (fewer --workers, a smaller batch_size, "
            "--set decode.parallel_videos=1)"
        )
    if lines:
        lines.append("  mend or remove failed videos; --retry-failed tries them again")
    return lines
