"""Reads the metric lines of a run: one JSON object per line, which maps names to numbers."""

from __future__ import annotations

import os
from pathlib import Path

from distinit.pipeline.records import parse_json
from distinit.pipeline.storage import open_regular, read_bounded
from distinit.schemas.errors import StorageError

__all__ = ["LOWEST_LOSS", "MetricLine", "last_line", "read_lines"]

MetricLine = dict[str, int | float]

LOWEST_LOSS = "lowest_loss"
"""Metric: the lowest value that the loss could have with the targets of the same clips."""

_TAIL_BYTES = 65536  # longer than any metric line
_MAX_FILE_BYTES = 256 << 20  # about 500 lines per epoch, of about 500 bytes
_LARGEST = 1e30  # larger values cannot be plotted


def read_lines(path: Path) -> list[MetricLine]:
    """All metric lines of a file; none if the file is missing.

    Skips everything else: a last line that is cut off, or what another program wrote.
    Raises StorageError if the file cannot be read or is too large.
    """
    try:
        data = read_bounded(path, _MAX_FILE_BYTES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(
            f"cannot read {path}",
            expected=f"a file of at most {_MAX_FILE_BYTES:,} bytes",
            found=error.strerror,
            remedy="move it away: the run continues without its earlier metric lines",
        ) from error
    return [line for text in data.split(b"\n") if (line := _parse(text)) is not None]


def last_line(path: Path) -> MetricLine | None:
    """The newest complete metric line, or None; reads only the end of the file. Raises OSError."""
    try:
        file = os.fdopen(open_regular(path), "rb")
    except FileNotFoundError:
        return None
    with file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        texts = file.read(_TAIL_BYTES).split(b"\n")[:-1]
    return next((line for text in reversed(texts) if (line := _parse(text)) is not None), None)


def _parse(text: bytes) -> MetricLine | None:
    try:
        line = parse_json(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("step")) is not int or line["step"] < 0:
        return None
    numbers = all(type(v) in (int, float) and abs(v) < _LARGEST for v in line.values())
    return line if numbers else None
