"""Progress of long work as log lines, JSON events and a terminal bar."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from distinit.pipeline import progress as progress_module
from distinit.pipeline.progress import JsonProgress, LogProgress, RichProgress


def test_log_lines_show_the_phase_the_count_and_the_values() -> None:
    stream = io.StringIO()
    progress = LogProgress(stream, every_seconds=0)
    progress.start("extract", 10, "frames", done=2)
    progress.advance(3, failed=1, loss=0.123456, data_wait_percent=0.0007737)
    progress.finish()
    first, second, last = stream.getvalue().splitlines()
    assert first == "extract: 2 of 10 frames"
    assert second.startswith("extract: 5/10 frames")
    assert "ETA" in second
    assert second.endswith("failed 1  loss 0.1235  data_wait_percent 0.0")
    assert last.startswith("extract: 5/10 frames")
    assert "ETA" not in last
    assert last.endswith("data_wait_percent 0.0  ended after 0 s")


def test_sizes_have_one_decimal() -> None:
    stream = io.StringIO()
    progress = LogProgress(stream, every_seconds=0)
    progress.start("verify", 0.8, "MB")
    progress.advance(0.808347)
    progress.start("receive", None, "MB")
    progress.advance(0.26)
    lines = stream.getvalue().splitlines()
    assert (lines[0], lines[2]) == ("verify: 0.0 of 0.8 MB", "receive: 0.0 MB")
    assert lines[1].startswith("verify: 0.8/0.8 MB  ")
    assert lines[3].startswith("receive: 0.3 MB  ")


@pytest.mark.parametrize(("left", "eta"), [(119, "119 s"), (2000, "33 min"), (9000, "2.5 h")])
def test_the_remaining_time_is_in_readable_units(
    left: int, eta: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    stream = io.StringIO()
    progress = LogProgress(stream, every_seconds=0)
    progress.start("extract", left + 1, "frames")
    now += 1.0
    progress.advance(1, failed=0)
    assert stream.getvalue().splitlines()[-1] == (
        f"extract: 1/{left + 1} frames  1.0 frames/s  ETA {eta}  failed 0"
    )


def test_json_events_hold_counts_as_numbers() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream, every_seconds=0)
    progress.start("distill", 4, "steps")
    progress.advance(1, loss=2.0)
    progress.message("checkpoint written")
    progress.advance(3)
    progress.finish()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["event"] for e in events] == ["start", "progress", "message", "progress", "finish"]
    assert [e.get("done") for e in events] == [0, 1, None, 4, 4]
    assert events[1]["loss"] == 2.0
    assert events[3]["eta_seconds"] == 0.0


def test_the_rate_counts_only_what_was_done_in_this_run() -> None:
    stream = io.StringIO()
    progress = JsonProgress(stream, every_seconds=0)
    progress.start("extract", 100, "frames", done=90)
    event = json.loads(stream.getvalue())
    assert (event["done"], event["per_second"], event["eta_seconds"]) == (90, 0.0, None)


def test_a_pair_is_a_count_and_a_total_and_one_unit_is_singular() -> None:
    lines, events = io.StringIO(), io.StringIO()
    for progress in (LogProgress(lines), JsonProgress(events)):
        progress.start("verify", 1, "units")
        progress.advance(1, videos=(2, 3))
        progress.finish()
    first, last = lines.getvalue().splitlines()
    assert first == "verify: 0 of 1 unit"
    assert last.startswith("verify: 1/1 unit  ")
    assert last.endswith("  videos 2/3  ended after 0 s")
    event = json.loads(events.getvalue().splitlines()[-1])
    assert (event["videos"], event["videos_total"], event["unit"]) == (2, 3, "units")


def test_a_terminal_of_80_columns_shows_everything_in_full() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    progress = RichProgress(console)
    progress.start("extract", 1_250_000, "frames", done=250_000)
    progress.advance(1000, videos=(4000, 6000), units=(13, 21), failed=1)
    progress.finish()
    *_, bar, values = [line for line in stream.getvalue().splitlines() if "\x1b[?25h" not in line]
    assert len(bar.rstrip()) <= 80 + len("\x1b[2K") * 4
    assert "251000/1250000" in bar
    assert " frames/s" in bar
    assert "left" in bar
    assert values.strip() == "videos 4000/6000  units 13/21  failed 1"


def test_a_terminal_shows_sizes_with_a_decimal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    progress = RichProgress(console)
    progress.start("verify", 1.4, "MB")
    progress.advance(0.6)
    progress.advance(0.6)
    progress.finish()
    assert " 1.2/1.4 " in stream.getvalue()


def test_large_counts_keep_their_digits() -> None:
    stream = io.StringIO()
    LogProgress(stream).start("training", total=45_000_000, unit="clips", done=1_234_567)
    assert stream.getvalue() == "training: 1234567 of 45000000 clips\n"
