"""Parsing of ffmpeg's frame and packet lists."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.video.index import PacketTable, StreamTables, TimestampList

HEADER = [b"#software: Lavf", b"#tb 0: 1/1000", b"#media_type 0: video", b"#dimensions 0: 64x48"]


def packet(pts: int, duration: int = 40, size: int = 9, stream: int = 0, dts: int = 0) -> bytes:
    return b"%d, %10d, %10d, %8d, %8d, 0x0000abcd, F=0x0" % (stream, dts, pts, duration, size)


@given(st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(0, 500)), min_size=1))
def test_packets_are_counted_and_their_times_measured(packets: list[tuple[int, int]]) -> None:
    table = PacketTable()
    assert table.feed([*HEADER, *(packet(pts, duration) for pts, duration in packets)])
    start, end = min(p for p, _ in packets), max(p + d for p, d in packets)
    assert (table.count, table.width, table.height) == (len(packets), 64, 48)
    assert table.time_base == Fraction(1, 1000)
    assert table.span_seconds == (end - start) / 1000
    assert table.reach_seconds == max(end, end - start) / 1000
    assert table.wait_for_header()


def test_packets_without_bytes_do_not_count_and_dts_replaces_a_missing_pts() -> None:
    table = PacketTable()
    missing = -(1 << 63)
    table.feed([*HEADER, packet(missing, dts=80), packet(missing, dts=120, size=0)])
    assert table.count == 1
    assert table.span_seconds == pytest.approx(0.08)


def test_a_packet_list_ends_at_its_limit_and_may_be_empty() -> None:
    table = PacketTable()
    assert not table.feed([*HEADER, packet(0), packet(1), packet(2)], limit=2)
    nothing = PacketTable()
    assert nothing.feed([])
    assert not nothing.wait_for_header()
    assert (nothing.span_seconds, nothing.reach_seconds) == (0.0, 0.0)


def test_each_stream_has_a_separate_table() -> None:
    lines = [b"#tb 0: 1/10", b"#tb 1: 1/100", packet(5, 1), packet(900, 100, stream=1)]
    streams = StreamTables()
    assert streams.feed(lines)
    assert streams.wait_for_headers() == 2
    reach = {stream: table.reach_seconds for stream, table in streams.tables.items()}
    assert reach == {0: 0.6, 1: 10.0}
    assert not StreamTables().feed([*lines, packet(6), packet(7)], limit=2)


@pytest.mark.parametrize(
    ("packets", "expected"), [([5], 0), ([1, 40], 1), ([20, 40], 0), ([1, 1, 3], 2), ([], 0)]
)
def test_the_main_stream_is_the_first_that_is_not_a_still(
    packets: list[int], expected: int
) -> None:
    streams = StreamTables()
    for number, count in enumerate(packets):
        streams.feed(packet(pts, stream=number) for pts in range(count))
    assert streams.main_stream == expected


def test_hidden_and_corrupt_packets_are_recognized_by_their_flags() -> None:
    table = PacketTable()
    data = b", S=1, Matroska BlockAdditional,      284, 0x92539305"
    plain = [packet(pts).removesuffix(b", F=0x0") for pts in (0, 40, 80, 120)]
    lines = [plain[0] + b", F=0x5", plain[1], plain[2] + b", F=0x2" + data, plain[3] + data]
    table.feed([*HEADER, *lines, packet(160, size=0)])
    assert (table.count, table.listed, table.marked_corrupt) == (3, 5, 1)
    assert table.times()[0].tolist() == [40, 80, 120]
    assert table.first_pts == 40


@given(st.lists(st.integers(-(2**62), 2**62)), st.integers(0, 5), st.integers(0, 9))
def test_timestamps_are_returned_in_the_order_of_the_list(
    pts: list[int], start: int, count: int
) -> None:
    printed = []
    for number, value in enumerate(pts):
        printed += [b"frame:%-4d pts:%-7d pts_time:0.1" % (number, value), b"i=1"]
    stamps = TimestampList()
    assert stamps.feed(printed, limit=len(pts))
    assert stamps.wait_for(start, count).tolist() == pts[start : start + count]
    assert (len(stamps), stamps.untimed) == (len(pts), 0)


def test_missing_timestamps_are_counted_up_to_the_limit() -> None:
    stamps = TimestampList()
    lines = [b"frame:0    pts:NOPTS   pts_time:NOPTS", b"frame:1    pts:7       pts_time:0.1"]
    assert not stamps.feed(lines, limit=1)
    assert stamps.untimed == 1
