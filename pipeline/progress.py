"""Progress of long work: a bar on a terminal, plain lines in a log, or JSON events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text

from distinit.schemas.wording import duration, one_line

__all__ = [
    "JsonProgress",
    "LogProgress",
    "NullProgress",
    "Progress",
    "ProgressValue",
    "RichProgress",
    "choose_progress",
]

type ProgressValue = str | int | float | tuple[int, int]
"""A value shown with the bar; a pair is a count and its total."""

_WIDE = 100  # columns of a terminal from which on the bar is wider
_BAR_WIDTH, _SHORT_BAR_WIDTH = 24, 8


class Progress(Protocol):
    """One phase at a time: ``start``, any number of ``advance``, ``finish``."""

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """Start a phase of ``total`` units (None: unknown), ``done`` of which are already done."""

    def advance(self, amount: float = 1, **values: ProgressValue) -> None:
        """Count ``amount`` more units; ``values`` replace those shown with the bar."""

    def message(self, text: str, **values: ProgressValue) -> None:
        """Print one line; line breaks in ``text`` are escaped. JSON events also have ``values``."""

    def finish(self) -> None:
        """End the phase."""


class NullProgress:
    """Prints nothing."""

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """Ignore."""

    def advance(self, amount: float = 1, **values: ProgressValue) -> None:
        """Ignore."""

    def message(self, text: str, **values: ProgressValue) -> None:
        """Ignore."""

    def finish(self) -> None:
        """Ignore."""


class _Bars(RichBars):
    """The bar, with the values on a line below it, since there is no room for them next to it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["values"]:
                text = f"{'':13}{task.fields['values']}"
                yield Text(text, no_wrap=True, overflow="ellipsis")


class RichProgress:
    """A live bar with rate, remaining time and values."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: RichBars | None = None
        self._task: TaskID | None = None
        self._rate = _Rate()
        self._unit = ""
        self._done = 0.0
        self._total: float | None = None
        self._values: dict[str, ProgressValue] = {}

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """See Progress."""
        self.finish()
        self._unit, self._values, self._rate = unit, {}, _Rate()
        self._done, self._total = done, total
        self._bars = _Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=_BAR_WIDTH if self._console.width >= _WIDE else _SHORT_BAR_WIDTH),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bars.add_task(
            description, total=total, count=self._count(), rate="", values=""
        )
        self._bars.update(self._task, completed=done)
        self._bars.start()

    def advance(self, amount: float = 1, **values: ProgressValue) -> None:
        """See Progress."""
        if self._bars is None or self._task is None:
            return
        self._values.update(values)
        rate = self._rate.add(amount)
        self._done += amount
        self._bars.update(
            self._task,
            advance=amount,
            count=self._count(),
            rate=f"{rate:.1f} {self._unit}/s",
            values=_format(self._values),
        )

    def _count(self) -> str:
        total = "?" if self._total is None else _number(self._total, self._unit)
        return f"{_number(self._done, self._unit)}/{total}"

    def message(self, text: str, **values: ProgressValue) -> None:
        """See Progress."""
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """See Progress."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class LogProgress:
    """One plain line every ``every_seconds``, for logs and batch jobs."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._every_seconds = every_seconds
        self._reset("", None, "", 0)

    def _reset(self, description: str, total: float | None, unit: str, done: float) -> None:
        self._description, self._total, self._unit, self._done = description, total, unit, done
        self._values: dict[str, ProgressValue] = {}
        self._rate = _Rate()
        self._last_seconds = time.monotonic()

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """See Progress."""
        self._reset(description, total, unit, done)
        known = "" if total is None else f" of {_number(total, unit)}"
        self.message(f"{description}: {_number(done, unit)}{known} {_noun(total, unit)}")

    def advance(self, amount: float = 1, **values: ProgressValue) -> None:
        """See Progress."""
        self._done += amount
        self._values.update(values)
        self._rate.add(amount)
        if time.monotonic() - self._last_seconds >= self._every_seconds:
            self._last_seconds = time.monotonic()
            self.message(self._line())

    def _line(self, ended: bool = False) -> str:
        rate = self._rate.per_second()
        parts = [f"{self._description}: {_number(self._done, self._unit)}"]
        if self._total is None:
            parts[0] += f" {self._unit}"
        else:
            parts[0] += f"/{_number(self._total, self._unit)} {_noun(self._total, self._unit)}"
            if rate > 0 and not ended:
                parts.append(f"ETA {duration(max(0.0, self._total - self._done) / rate)}")
        parts.insert(1, f"{rate:.1f} {self._unit}/s")
        return "  ".join([*parts, _format(self._values)]).rstrip()

    def message(self, text: str, **values: ProgressValue) -> None:
        """See Progress."""
        print(one_line(text), file=self._stream, flush=True)

    def finish(self) -> None:
        """See Progress."""
        if self._description:
            seconds = duration(self._rate.seconds())
            self.message(f"{self._line(ended=True)}  ended after {seconds}")
            self._description = ""


class JsonProgress:
    """One JSON object per line, for scripts: ``{"event": "progress", ...}``."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 1.0) -> None:
        self._stream = stream or sys.stderr
        self._every_seconds = every_seconds
        self._phase, self._unit = "", ""
        self._total: float | None = None
        self._done = 0.0
        self._values: dict[str, ProgressValue] = {}
        self._rate = _Rate()
        self._last_seconds = 0.0

    def start(self, description: str, total: float | None, unit: str, done: float = 0) -> None:
        """See Progress."""
        self._phase, self._total, self._unit, self._done = description, total, unit, done
        self._values, self._rate = {}, _Rate()
        self._emit("start")

    def advance(self, amount: float = 1, **values: ProgressValue) -> None:
        """See Progress."""
        self._done += amount
        self._values.update(values)
        self._rate.add(amount)
        if time.monotonic() - self._last_seconds >= self._every_seconds:
            self._emit("progress")

    def message(self, text: str, **values: ProgressValue) -> None:
        """See Progress."""
        self._write({"event": "message", "text": text, **_plain(values)})

    def finish(self) -> None:
        """See Progress."""
        if self._phase:
            self._emit("finish")
            self._phase = ""

    def _emit(self, event: str) -> None:
        self._last_seconds = time.monotonic()
        rate = self._rate.per_second()
        left = None if self._total is None else max(0.0, self._total - self._done)
        self._write(
            {
                "event": event,
                "phase": self._phase,
                "done": self._done,
                "total": self._total,
                "unit": self._unit,
                "per_second": round(rate, 3),
                "eta_seconds": round(left / rate, 1) if left is not None and rate > 0 else None,
                **_plain(self._values),
            }
        )

    def _write(self, record: dict[str, object]) -> None:
        print(json.dumps(record), file=self._stream, flush=True)


class _Rate:
    """Units per second since the start of the phase, without those that were done before."""

    def __init__(self) -> None:
        self._began_seconds = time.monotonic()
        self._amount = 0.0

    def add(self, amount: float) -> float:
        self._amount += amount
        return self.per_second()

    def per_second(self) -> float:
        return self._amount / max(1e-6, self.seconds())

    def seconds(self) -> float:
        return time.monotonic() - self._began_seconds


def _format(values: dict[str, ProgressValue]) -> str:
    return "  ".join(f"{name} {_text(name, value)}" for name, value in values.items())


def _plain(values: dict[str, ProgressValue]) -> dict[str, str | int | float]:
    """A pair becomes two numbers: ``videos`` and ``videos_total``."""
    plain: dict[str, str | int | float] = {}
    for name, value in values.items():
        if isinstance(value, tuple):
            plain[name], plain[f"{name}_total"] = value
        else:
            plain[name] = value
    return plain


def _noun(total: float | None, unit: str) -> str:
    """``unit``, which is a plural, as a singular if ``total`` is 1."""
    return unit.removesuffix("s") if total == 1 else unit


def _number(count: float, unit: str) -> str:
    """A count with all its digits, so that counts can be compared; sizes with one decimal."""
    if unit == "MB":
        return f"{count:.1f}"
    return f"{count:.0f}" if float(count).is_integer() else f"{count:g}"


def _text(name: str, value: ProgressValue) -> str:
    if isinstance(value, tuple):
        return f"{value[0]}/{value[1]}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name.endswith("_percent") else f"{value:.4g}"


def choose_progress(*, json_events: bool = False) -> Progress:
    """JSON events if requested, else a bar on a terminal, else plain lines."""
    if json_events:
        return JsonProgress()
    return RichProgress() if sys.stderr.isatty() else LogProgress()
