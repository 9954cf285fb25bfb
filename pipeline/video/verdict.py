"""Decides whether a video is whole, damaged or failed.

ffmpeg exits with status 0 for most truncated and corrupt files, so the exit status alone is not
enough.

Failed: nothing of the video is used. One of these holds, checked in this order:

1. a limit of DecodeConfig was exceeded, or ffmpeg found no readable video stream;
2. ffmpeg ended with an error status or a signal (if another process sent the signal, as the kernel
   sends SIGKILL when memory is short, the video is not at fault and is tried again);
3. nothing was decoded;
4. the outputs of the one ffmpeg process disagree on the number of frames, or frames have no
   timestamp.

Damaged: frames were decoded and ffmpeg ended normally, but content is missing or may be missing:

5. the file ends early, according to the demuxer ("File ended prematurely", "partial file"), the
   file's own bytes (``container``), or a declared duration that none of its streams reaches;
6. the demuxer reported errors, or corrupt packets, in the main video stream;
7. there are fewer frames than packets *and* the decoder reported errors;
8. an AVI is shorter than its header says;
9. presentation times have gaps *and* ffmpeg reported errors. A gap alone is not evidence: intact
   files may pause, and recorders drop frames;
10. the packet of a frame ends before the frame does.

``DecodeConfig.damaged`` decides whether such a video is kept, with a description of the damage, or
fails.

Decoder errors with none of the above are damage that the decoder conceals within frames: no frame
is missing, and the errors are stored with the video. This requires a container that lists its
frames, or evenly spaced presentation times; otherwise the video is damaged too.

Whole: everything else. Fewer frames than packets without an error is normal (hidden frames, packed
B-frames).

The texts made here are stored in caches and frame stores, so keep them stable.
Measured in docs/decisions/010-when-a-video-is-whole.md and 017-damaged-videos.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from distinit.pipeline.video.index import PacketTable
from distinit.pipeline.video.timeline import Timeline, timeline_of
from distinit.schemas.wording import counted, one_line

__all__ = [
    "MAX_COUNTED_ERRORS",
    "Damage",
    "FFmpegLog",
    "duration_gap",
    "early_end",
    "find_damage",
    "no_frames_reason",
    "read_clean_logs",
    "read_log",
]

# "[h264 @ 0x55..] [error] text": contexts, then the level that "-loglevel level+" adds.
_LINE = re.compile(
    r"^(?P<context>(?:\[[^\]]* @ [^\]]*\] )*)\[(?P<level>warning|error|fatal|panic)\] (?P<text>.*)"
)
_REPEATED = re.compile(r"^    Last message repeated (\d+) times")
_DURATION = re.compile(r"^\[info\]\s+Duration: (\d+):(\d\d):(\d\d\.\d+)", re.MULTILINE)
# Output 1 holds the decoded frames; see ``command``.
_MAIN_STREAM = re.compile(r"^\[info\]\s+Stream #0:(\d+) -> #1:0 ", re.MULTILINE)
_INPUT = re.compile(r"^\[info\] Input #0, (\S+), from ", re.MULTILINE)
_ANY_INPUT = re.compile(r"^\[info\] Input #(\d+), (\S+), from ", re.MULTILINE)
_OF_STREAM = re.compile(r"\bstream (?:= |#0:)?(\d+)")
_URL = re.compile(r"file:/\S.*/")
# Contexts of messages about the outputs, not about the video.
_MUXER_CONTEXTS = ("[rawvideo", "[framecrc")
_EARLY_END = ("File ended prematurely", "partial file")
# Warnings that mean damage.
_CORRUPT_PACKET = "Packet corrupt"
_CORRUPT_FRAME = "corrupt decoded frame"
_CUT_FRAME = "overread"  # the decoder needs more bytes than the packet has
# What the demuxer reports as an error although no video is missing.
_HARMLESS = ("Referenced QT chapter track not found",)
_TOO_LARGE = re.compile(r"Picture size (\d+x\d+) exceeds specified max pixel count (\d+)")
_STOPPED = re.compile(r"^\[info\] Exiting normally, received signal (\d+)", re.MULTILINE)
_LISTS_SAMPLES = "mov,"  # first name of the demuxer
_NO_STREAM = "matches no streams"
MAX_COUNTED_ERRORS = 1000
"""Largest number of errors counted for one video; the middle of a long log is not kept."""

_MESSAGE_CHARS = 160


@dataclass(frozen=True, slots=True)
class FFmpegLog:
    """The errors that ffmpeg logged, and the duration that the container declares.

    ``errors``: all errors. ``demuxer_errors``: those of the container in the main video stream.
    """

    errors: tuple[str, ...]
    declared_seconds: float | None
    stop_signal: int | None = None  # ffmpeg handled this signal and ended normally
    demuxer_errors: tuple[str, ...] = ()
    lists_samples: bool = False  # the container has a table of all its frames

    @property
    def decoder_errors(self) -> int:
        """Number of errors that are not the demuxer's, at most 1,000."""
        return min(len(self.errors) - len(self.demuxer_errors), MAX_COUNTED_ERRORS)

    @property
    def summary(self) -> str:
        """The first few different errors on one line, those of the demuxer first."""
        different = list(dict.fromkeys(self.demuxer_errors + self.errors))
        # These only repeat the error before them.
        shown = [line for line in different if not line.startswith("Error opening input file")]
        return "; ".join((shown or different)[:3]) or "nothing"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with a video that could be decoded.

    ``text``: the same on every machine. ``concealed``: errors within frames; no frame is missing.
    """

    text: str
    concealed: bool


def read_log(text: str) -> FFmpegLog:
    """Parse the stderr of an ffmpeg that ran with ``-loglevel level+info``."""
    main_stream, name = _MAIN_STREAM.search(text), _INPUT.search(text)
    of_demuxer = ("[in#0", f"[{name[1]} @" if name is not None and "," in name[1] else "[in#0")
    errors: list[str] = []
    demuxer: list[str] = []
    last: list[list[str]] = []  # the lists that the previous message went to
    for line in text.splitlines():
        if repeated := _REPEATED.match(line):
            for found in last:
                found += found[-1:] * min(int(repeated[1]), MAX_COUNTED_ERRORS)
            continue
        match = _LINE.match(line)
        last = []
        if match is None or match["context"].startswith(_MUXER_CONTEXTS):
            continue
        message = _message(match["text"])
        if not _is_damage(match["level"], message) or _of_another_stream(message, main_stream):
            continue
        last = [errors]
        if match["context"].startswith(of_demuxer) or message.startswith(_CORRUPT_PACKET):
            last.append(demuxer)
        for found in last:
            found.append(message)
    stopped = _STOPPED.search(text)
    signal = int(stopped[1]) if stopped is not None else None
    lists_samples = name is not None and name[1].startswith(_LISTS_SAMPLES)
    return FFmpegLog(tuple(errors), _declared_seconds(text), signal, tuple(demuxer), lists_samples)


def read_clean_logs(text: str, inputs: int) -> list[FFmpegLog] | None:
    """As ``read_log`` for each input of one ffmpeg; None if it reports an error or damage at all.

    A message does not always say of which input it is.
    """
    if _STOPPED.search(text) or any(map(_reports_damage, text.splitlines())):
        return None
    found = [*_ANY_INPUT.finditer(text)]
    if [int(match[1]) for match in found] != list(range(inputs)):
        return None
    ends = [*(match.start() for match in found[1:]), len(text)]
    parts = [text[match.start() : end] for match, end in zip(found, ends, strict=True)]
    return [
        FFmpegLog((), _declared_seconds(part), lists_samples=match[2].startswith(_LISTS_SAMPLES))
        for match, part in zip(found, parts, strict=True)
    ]


def _reports_damage(line: str) -> bool:
    match = _LINE.match(line)
    if match is None or match["context"].startswith(_MUXER_CONTEXTS):
        return False
    return _is_damage(match["level"], _message(match["text"]))


def _message(text: str) -> str:
    # Folders are removed: they differ between machines, and stored reasons must not.
    return one_line(_URL.sub("", text).strip().rstrip("."))[:_MESSAGE_CHARS]


def _is_damage(level: str, message: str) -> bool:
    if level == "warning":
        return message.startswith((_CORRUPT_PACKET, _CORRUPT_FRAME))
    return not message.startswith(_HARMLESS)


def _of_another_stream(message: str, main_stream: re.Match[str] | None) -> bool:
    """Whether a message is about another stream, such as audio.

    A file that ends early ends early for all streams.
    """
    named = _OF_STREAM.search(message)
    if main_stream is None or named is None or any(mark in message for mark in _EARLY_END):
        return False
    return named[1] != main_stream[1]


def early_end(log: FFmpegLog) -> str | None:
    """The demuxer's message that the file ends too early, or None."""
    return next((line for line in log.errors if any(m in line for m in _EARLY_END)), None)


def no_frames_reason(log: FFmpegLog) -> str:
    """Why ffmpeg decoded nothing."""
    if any(_NO_STREAM in line for line in log.errors):
        return "no video stream"
    for line in log.errors:
        if too_large := _TOO_LARGE.search(line):
            return f"pictures of {too_large[1]} are too large: more than max_pixels={too_large[2]}"
    return f"nothing could be decoded; ffmpeg says: {log.summary}"


def find_damage(
    log: FFmpegLog,
    decoded: int,
    packets: PacketTable,
    *,
    broken: str | None,
    header_ticks: int | None,
) -> Damage | None:
    """Apply points 5 to 10; None for a video that is whole and has no errors.

    Args:
        log: Messages of the ffmpeg that decoded the video.
        decoded: Number of frames that were decoded, at least 1.
        packets: Packets of the main video stream.
        broken: Why the file is truncated or has holes, if that is known.
        header_ticks: Length of the stream according to the header of an AVI, in its time base.
    """
    timeline = timeline_of(packets)
    short = _missing_of_header(header_ticks, packets, timeline)
    lost = decoded < packets.count and log.decoder_errors > 0
    gaps = timeline.missing if log.errors else 0
    cut = sum(message.startswith(_CUT_FRAME) for message in log.errors)
    if not (broken or log.demuxer_errors or lost or short or gaps or cut):
        if not log.errors:
            return None
        if log.lists_samples or header_ticks or timeline.even:
            return Damage(f"all frames; {_complaints(log)}", concealed=True)
        return Damage(f"{counted(decoded, 'frame')}, perhaps not all; {_complaints(log)}", False)
    guessed = 0
    if not header_ticks:
        guessed = timeline.missing + _missing_at_end(log, packets, timeline)
    parts = [_count(decoded, packets.count + short + guessed, guessed > 0)]
    if broken_packets := packets.marked_corrupt or cut:
        parts[0] += f", {broken_packets} of them from a cut or corrupt packet"
    if short and not log.errors:
        parts.append("the file holds less than its header says")
    parts += [broken] if broken else []
    parts += [log.summary] if log.errors else []
    return Damage("; ".join(parts), concealed=False)


def _count(decoded: int, expected: int, guessed: bool) -> str:
    if expected <= decoded:
        return counted(decoded, "frame")
    return f"{decoded} of {'about ' if guessed else ''}{counted(expected, 'frame')}"


def _complaints(log: FFmpegLog) -> str:
    number = log.decoder_errors
    count = f"{number} or more" if number == MAX_COUNTED_ERRORS else str(number)
    return f"{count} decoder error{'' if number == 1 else 's'}: {log.summary}"


def _missing_of_header(header_ticks: int | None, packets: PacketTable, timeline: Timeline) -> int:
    """Whole frames that fit between an AVI's last entry and the end that its header states."""
    ticks = (header_ticks or 0) - packets.end_dts
    return int(max(0, ticks) / max(timeline.frame_ticks, 1.0))


def _missing_at_end(log: FFmpegLog, packets: PacketTable, timeline: Timeline) -> int:
    """Frames that fit between the last frame and the end that the container declares."""
    gap = duration_gap(log.declared_seconds, packets.reach_seconds, packets.count)
    if gap is None or packets.time_base is None or not timeline.even:
        return 0
    return round(gap / (timeline.frame_ticks * float(packets.time_base)))


def duration_gap(
    declared_seconds: float | None, found_seconds: float, packets: int
) -> float | None:
    """Seconds by which ``found_seconds`` falls short of the declared duration, or None.

    A shortfall below 2 % plus two packet lengths plus 0.1 s is not a gap, because the last packet
    often has no duration.
    """
    if declared_seconds is None or packets < 1:
        return None
    slack = 0.02 * declared_seconds + 2 * found_seconds / packets + 0.1
    gap = declared_seconds - found_seconds
    return gap if gap > slack else None


def _declared_seconds(text: str) -> float | None:
    match = _DURATION.search(text)
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
