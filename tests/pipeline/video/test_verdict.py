"""Parsing ffmpeg's log, and the decision whether a video is whole."""

from __future__ import annotations

from typing import Any, cast

import pytest

from distinit.pipeline.video.index import PacketTable
from distinit.pipeline.video.verdict import (
    MAX_COUNTED_ERRORS,
    Damage,
    duration_gap,
    early_end,
    find_damage,
    no_frames_reason,
    read_log,
)

LOG = """\
[info] Input #0, matroska,webm, from 'file:/home/a b/x.mkv':
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 600 kb/s
[in#0/matroska,webm @ 0x560] [error] File ended prematurely
[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [error] Decoding error: Invalid data found
[h264 @ 0x3] [warning] not an error
[rawvideo @ 0x4] [error] Application provided invalid, non monotonically increasing dts
[fatal] Error opening input file file:/home/a b/x.mkv.
"""


def test_errors_are_stored_without_addresses_and_folders() -> None:
    log = read_log(LOG)
    assert log.errors == (
        "File ended prematurely",
        "Decoding error: Invalid data found",
        "Error opening input file x.mkv",
    )
    assert log.demuxer_errors == ("File ended prematurely",)
    assert log.declared_seconds == 3723.5
    assert early_end(log) == "File ended prematurely"
    assert log.summary.startswith("File ended prematurely; Decoding error")


def test_a_log_without_errors_has_no_findings() -> None:
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
def test_the_reason_for_decoding_nothing_is_taken_from_the_log(line: str, reason: str) -> None:
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
def test_a_duration_gap_is_only_reported_if_no_packet_explains_it(
    declared: float | None, found: float, packets: int, gap: float | None
) -> None:
    assert duration_gap(declared, found, packets) == gap


MAPPING = """\
[info] Input #0, mpegts, from 'file:/home/a/x.ts':
[info]   Stream #0:1 -> #0:0 (copy)
[info]   Stream #0:1 -> #1:0 (h264 (native) -> wrapped_avframe (native))
"""
CORRUPT = "[in#0/mpegts @ 0x1] [warning] Packet corrupt (stream = {}, dts = 9).\n"


def test_corrupt_packets_count_only_in_the_main_stream() -> None:
    assert read_log(MAPPING + CORRUPT.format(0)).errors == ()
    log = read_log(MAPPING + CORRUPT.format(1))
    assert log.errors == log.demuxer_errors == ("Packet corrupt (stream = 1, dts = 9)",)
    sound = "[mov,mp4 @ 0x1] [error] stream 0, offset 0x30: partial file\n"
    assert early_end(read_log(MAPPING + sound)) == "stream 0, offset 0x30: partial file"


def test_demuxer_errors_of_an_old_ffmpeg_are_recognized() -> None:
    opened = "[info] Input #0, matroska,webm, from 'file:/x.mkv':\n"
    message = "[matroska,webm @ 0x1] [error] 0x00 at pos 9 (0x9) invalid as first byte\n"
    assert len(read_log(opened + message).demuxer_errors) == 1
    assert read_log(opened + "[h264 @ 0x1] [error] no frame!\n").demuxer_errors == ()


def test_harmless_messages_are_not_errors() -> None:
    lines = (
        "[in#0/mov,mp4 @ 0x1] [error] Referenced QT chapter track not found\n"
        "[h264 @ 0x3] [warning] Increasing reorder buffer to 1\n"
        "[in#0/mpegts @ 0x1] [warning] DTS discontinuity in stream 0: packet 5\n"
    )
    assert read_log(MAPPING + lines).errors == ()


def test_repeated_messages_are_counted_and_bounded() -> None:
    line = "[mpeg4 @ 0x1] [error] Error at MB: 5\n"
    assert read_log(line + "    Last message repeated 3 times\n").decoder_errors == 4
    many = read_log(line + "    Last message repeated 99999 times\n" + line)
    assert many.decoder_errors == MAX_COUNTED_ERRORS
    assert read_log("[info] hello\n    Last message repeated 3 times\n").errors == ()


def test_messages_cannot_act_on_a_terminal() -> None:
    (message,) = read_log("[avi @ 0x1] [error] bad tag \x1b[2J" + "x" * 500 + "\n").errors
    assert message.startswith("bad tag \\x1b[2Jxxx")
    assert len(message) == 160


def packets_at(*pts: int, duration: int = 40, flags: str = "F=0x0") -> PacketTable:
    table = PacketTable()
    table.feed([b"#tb 0: 1/1000"])
    table.feed(f"0, {p}, {p}, {duration}, 99, 0x0000abcd, {flags}".encode() for p in pts)
    return table


STEADY = tuple(range(0, 800, 40))
DECODER = "[h264 @ 0x3] [error] no frame!\n"


def damage(
    text: str, packets: PacketTable, decoded: int | None = None, **more: object
) -> Damage | None:
    facts = {"broken": None, "header_ticks": None, **more}
    count = packets.count if decoded is None else decoded
    return find_damage(read_log(text), count, packets, **cast(Any, facts))


def test_a_gap_alone_is_not_damage() -> None:
    pause = packets_at(*STEADY[:10], *(p + 5000 for p in STEADY[10:]))
    assert damage("", pause) is None
    assert damage(DECODER, pause) == Damage("20 of about 145 frames; no frame!", concealed=False)


def test_a_packets_own_duration_is_not_a_gap() -> None:
    slow = packets_at(*STEADY, 800 + 3000, duration=40)
    table = PacketTable()
    lines = [f"0, {p}, {p}, 40, 9, 0x0".encode() for p in STEADY[:-1]]
    table.feed([*lines, b"0, 760, 760, 3040, 9, 0x0", b"0, 3800, 3800, 40, 9, 0x0"])
    assert damage(DECODER, table) == Damage(
        "all frames; 1 decoder error: no frame!", concealed=True
    )
    assert damage(DECODER, slow) == Damage("21 of about 96 frames; no frame!", concealed=False)


def test_uneven_times_do_not_show_whether_frames_are_missing() -> None:
    uneven = packets_at(0, 40, 90, 300, 320, 900, 1000, 1500, duration=0)
    assert damage("", uneven) is None
    assert damage(DECODER, uneven) == Damage(
        "8 frames, perhaps not all; 1 decoder error: no frame!", concealed=False
    )
    listed = "[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/x.mp4':\n"
    assert damage(listed + DECODER, uneven) == Damage(
        "all frames; 1 decoder error: no frame!", concealed=True
    )


def test_missing_frames_among_packets_that_share_times() -> None:
    paired = [p - p % 80 for p in range(0, 1600, 40)]
    assert damage(DECODER, packets_at(*paired, 1600)) == Damage(
        "41 frames, perhaps not all; 1 decoder error: no frame!", concealed=False
    )
    del paired[20:23]
    assert damage("", packets_at(*paired, 1600)) is None
    assert damage(DECODER, packets_at(*paired, 1600)) == Damage(
        "38 of about 41 frames; no frame!", concealed=False
    )


def test_hidden_frames_are_not_damage_but_lost_ones_are() -> None:
    steady = packets_at(*STEADY)
    assert damage("", steady, decoded=18) is None
    assert damage(DECODER, steady, decoded=18) == Damage(
        "18 of 20 frames; no frame!", concealed=False
    )


def test_a_truncation_is_described_with_both_counts() -> None:
    text = "[info]   Duration: 00:00:02.00, start: 0.0\n"
    assert damage(text, packets_at(*STEADY), broken="truncated: it ends") == Damage(
        "20 of about 50 frames; truncated: it ends", concealed=False
    )
    assert damage("", packets_at(*STEADY), broken="truncated: it ends") == Damage(
        "20 frames; truncated: it ends", concealed=False
    )


def test_an_avi_shorter_than_its_header_is_damaged() -> None:
    avi = packets_at(*range(59), duration=1)
    assert damage("", avi, header_ticks=59) is None
    assert damage("", avi, header_ticks=60) == Damage(
        "59 of 60 frames; the file holds less than its header says", concealed=False
    )


def test_frames_from_cut_packets_are_damage() -> None:
    cut = "[mjpeg @ 0x1] [error] overread 8\n"
    assert damage(cut, packets_at(*STEADY)) == Damage(
        "20 frames, 1 of them from a cut or corrupt packet; overread 8", concealed=False
    )
    marked = packets_at(*STEADY, flags="F=0x2")
    assert damage(MAPPING + CORRUPT.format(1), marked) == Damage(
        "20 frames, 20 of them from a cut or corrupt packet; Packet corrupt (stream = 1, dts = 9)",
        concealed=False,
    )
