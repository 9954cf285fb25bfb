"""Lines about failed videos, grouped by reason, and damaged ones, shown at the end of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from distinit.schemas.errors import TooManyFailuresError
from distinit.schemas.wording import counted, first_lines, one_line

__all__ = ["damage_lines", "failure_lines", "too_many_failures"]

_SHOWN = 3  # videos per reason
_QUARANTINED = "quarantined"  # first word of the error that ``quarantine`` records


def damage_lines(damaged: Mapping[str, str], concealed: Mapping[str, str]) -> list[str]:
    """Lines about videos that are kept although they are damaged. Both maps: path -> problem.

    ``damaged``: frames are or may be missing. ``concealed``: all frames were decoded, some with
    errors that the decoder conceals.
    """
    return [
        *_listed(damaged, "kept although frames are or may be missing"),
        *_listed(concealed, "with all frames, some of them with errors that the decoder conceals"),
    ]


def _listed(problems: Mapping[str, str], kind: str) -> list[str]:
    if not problems:
        return []
    lines = [f"{one_line(path)}: {one_line(text)}" for path, text in sorted(problems.items())]
    return [f"{counted(len(problems), 'video')} {kind}:", *first_lines(lines, _SHOWN)]


def failure_lines(failed: Iterable[tuple[str, str]], *, remedy: bool = True) -> list[str]:
    """Lines for (path, error) pairs, the most frequent reason first; ``remedy``: and what to do.

    The reason is the text of an error up to its first colon or semicolon.
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
            "  quarantined: the worker died each time it processed this video, usually because it "
            "ran out of memory; leave more to each worker (fewer --workers, a smaller batch_size, "
            "--set decode.parallel_videos=1)"
        )
    if lines and remedy:
        lines.append("  repair or remove failed videos; --retry-failed tries them again")
    return lines


def too_many_failures(
    failed: Sequence[tuple[str, str]],
    videos: int,
    allowed: int,
    *,
    is_default: bool,
    stopped_early: bool,
) -> TooManyFailuresError:
    """The error of a run in which more than ``allowed`` of the ``videos`` failed.

    ``failed``: (path, error) of each. ``is_default``: ``max_failed`` is auto. ``stopped_early``:
    videos are left that were not tried.
    """
    share = len(failed) / videos
    # Of a small corpus, auto is not 5 %: see ExtractConfig.max_failed.
    limit = " (--max-failed is auto)" if is_default else ""
    most = f"at most {allowed}" if allowed else "none"
    left = "; the run was stopped before it tried the others" if stopped_early else ""
    enough = min(1.0, math.ceil(100 * share) / 100)
    return TooManyFailuresError(
        "more videos failed than --max-failed allows; all good ones are committed",
        expected=f"{most} of {counted(videos, 'video')}{limit}",
        found="\n".join(
            [
                f"{len(failed)} failed, which is {share:.1%}{left}",
                *failure_lines(failed, remedy=False),
            ]
        ),
        remedy="repair or remove the failed videos (--retry-failed tries them again), or allow "
        "them: rerun the same command with "
        f"--max-failed {1 if stopped_early else enough:g} to resume",
    )
