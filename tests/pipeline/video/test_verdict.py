"""Reading ffmpeg's words."""

from __future__ import annotations

import pytest

from distinit.pipeline.video.verdict import duration_gap, early_end, no_frames_reason, read_log

LOG = """\
[info] Input #0, matroska,webm, from 'file:/home/a b/x.mkv':
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 600 kb/s
[in#0/matroska,webm @ 0x560] [error] File ended prematurely
[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [error] Decoding error: Invalid data found
[h264 @ 0x3] [warning] not an error
[rawvideo @ 0x4] [error] Application provided invalid, non monotonically increasing dts
[fatal] Error opening input file file:/home/a b/x.mkv.
"""


def test_errors_without_addresses_and_folders() -> None:
    log = read_log(LOG)
    assert log.errors == (
        "File ended prematurely",
        "Decoding error: Invalid data found",
        "Error opening input file x.mkv.",
    )
    assert log.declared_seconds == 3723.5
    assert early_end(log) == "File ended prematurely"
    assert log.summary.startswith("File ended prematurely; Decoding error")


def test_silence() -> None:
    log = read_log("[info]   Duration: N/A, bitrate: N/A\n")
    assert (log.errors, log.declared_seconds, early_end(log)) == ((), None, None)
    assert no_frames_reason(log) == "nothing could be decoded; ffmpeg says: nothing"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[out#0 @ 0x1] [fatal] Stream map '0:V:0' matches no streams.", "no video stream"),
        ("[fatal] Stream map '' matches no streams.", "no video stream"),
        (
            "[h264 @ 0x1] [error] Picture size 9x8 exceeds specified max pixel count 71, see",
            "pictures of 9x8 are too large: more than max_pixels=71",
        ),
    ],
)
def test_reasons(line: str, reason: str) -> None:
    assert no_frames_reason(read_log(line)) == reason


@pytest.mark.parametrize(
    ("declared", "found", "packets", "gap"),
    [
        (10.0, 10.0, 250, None),
        (10.0, 9.9, 250, None),
        (10.0, 5.0, 125, 5.0),
        (10.0, 8.0, 4, None),  # a slide show: the last packet lasts 4 s
        (0.3, 0.2, 3, None),
        (None, 5.0, 125, None),
        (10.0, 0.0, 0, None),
    ],
)
def test_duration_gap(
    declared: float | None, found: float, packets: int, gap: float | None
) -> None:
    assert duration_gap(declared, found, packets) == gap
