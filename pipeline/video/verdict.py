"""When a video is whole: the policy that decides between "right count" and "failed".

ffmpeg exits with 0 for most truncated and corrupt files, so its exit status alone says little.
A video counts as whole unless one of these holds, asked in this order:

1. a limit of DecodeConfig was broken, or ffmpeg found no (readable) video stream;
2. ffmpeg ended with an error status or a signal (one that others send, such as SIGKILL by the
   kernel when memory is short, says nothing about the video: it is tried again);
3. nothing was decoded;
4. the demuxer says that the file ends early ("File ended prematurely", "partial file");
5. the file's own bytes say so (AVI, ASF, GIF, Ogg, MPEG-TS: ``container.missing_end``);
6. fewer frames than packets came out *and* the decoder reported errors;
7. the container declares a duration that none of its streams reaches;
8. the outputs of the one ffmpeg process disagree on the number of frames.

Fewer frames than packets without an error is normal: packets that an edit list discards,
hidden frames, packed B-frames. As many frames as packets with decoder errors is whole too:
the decoder concealed damage within pictures, no frame is missing; ``decoder_errors`` counts
the messages. Measured in docs/decisions/010-when-a-video-is-whole.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["FFmpegLog", "duration_gap", "early_end", "no_frames_reason", "read_log"]

# "[h264 @ 0x55..] [error] text": contexts, then the level that -loglevel level+ adds.
_ERROR = re.compile(
    r"^(?P<context>(?:\[[^\]]* @ [^\]]*\] )*)\[(?:error|fatal|panic)\] (?P<text>.*)"
)
_DURATION = re.compile(r"^\[info\]\s+Duration: (\d+):(\d\d):(\d\d\.\d+)", re.MULTILINE)
_URL = re.compile(r"file:/\S.*/")
# Messages about our own outputs, not about the video.
_MUXER_CONTEXTS = ("[rawvideo", "[framecrc")
_EARLY_END = ("File ended prematurely", "partial file")
_TOO_LARGE = re.compile(r"Picture size (\d+x\d+) exceeds specified max pixel count (\d+)")
_STOPPED = re.compile(r"^\[info\] Exiting normally, received signal (\d+)", re.MULTILINE)
_NO_STREAM = "matches no streams"


@dataclass(frozen=True, slots=True)
class FFmpegLog:
    """The errors in what ffmpeg said, and the duration that the container declares."""

    errors: tuple[str, ...]
    declared_seconds: float | None
    stop_signal: int | None = None  # ffmpeg obeyed this signal and ended in good order

    @property
    def summary(self) -> str:
        """The first few errors on one line."""
        shown = list(dict.fromkeys(self.errors))[:3]
        return "; ".join(shown) or "nothing"


def read_log(text: str) -> FFmpegLog:
    """Parse stderr of an ffmpeg run with ``-loglevel level+info``."""
    errors = []
    for line in text.splitlines():
        match = _ERROR.match(line)
        if match and not match["context"].startswith(_MUXER_CONTEXTS):
            # Folders differ from machine to machine; a reason that is stored must not.
            errors.append(_URL.sub("", match["text"]).strip())
    stopped = _STOPPED.search(text)
    return FFmpegLog(
        tuple(errors), _declared_seconds(text), int(stopped[1]) if stopped is not None else None
    )


def early_end(log: FFmpegLog) -> str | None:
    """The demuxer's own words that the file ends before its time, or None."""
    return next((line for line in log.errors if any(m in line for m in _EARLY_END)), None)


def no_frames_reason(log: FFmpegLog) -> str:
    """Why ffmpeg gave up, or found nothing at all."""
    if any(_NO_STREAM in line for line in log.errors):
        return "no video stream"
    for line in log.errors:
        if too_large := _TOO_LARGE.search(line):
            return f"pictures of {too_large[1]} are too large: more than max_pixels={too_large[2]}"
    return f"nothing could be decoded; ffmpeg says: {log.summary}"


def duration_gap(
    declared_seconds: float | None, found_seconds: float, packets: int
) -> float | None:
    """Seconds by which ``found_seconds`` falls short of the declared duration, or None.

    Two packet lengths, 2 % and 0.1 s are no gap: the last packet often has no duration.
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
