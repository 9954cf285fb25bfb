"""Finds truncation and holes from a file's bytes, in containers where ffmpeg reports neither.

ffmpeg demuxes a truncated AVI, ASF (wmv), GIF, Ogg or MPEG-TS file without an error. The first
three store their length or an end mark in a fixed place; the last two consist of packets of known
length, and a cut rarely falls between two packets. An MPEG program stream (mpg) has neither.
ffmpeg also does not report that packets of an ASF were overwritten, or that an AVI is shorter than
its header says.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["asf_holes", "avi_ticks", "truncation_reason"]

_HEAD_BYTES = 64 << 10
_TS_PACKET_BYTES = 188
_OGG_PAGE_BYTES = 65307  # the largest possible page
_UNKNOWN_RIFF = 0xFFFFFFFF
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER_BYTES = 50
_ASF_BROADCAST = 1
_ASF_PACKET_START = b"\x82\0\0"  # two bytes of error correction data, as every writer uses


def truncation_reason(path: Path) -> str | None:
    """Why the file is certainly truncated, or None. Raises OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            riff_bytes = int.from_bytes(head[4:8], "little")
            # Writers of live streams leave 0 or all ones.
            return None if riff_bytes == _UNKNOWN_RIFF else _shorter(size, 8 + riff_bytes)
        if head[:16] == _ASF_HEADER:
            return _shorter(size, _asf_bytes(head))
        if head[:6] in (b"GIF87a", b"GIF89a"):
            file.seek(max(0, size - 1024))
            ended = file.read().rstrip(b"\0").endswith(b";")
            return None if ended else "the GIF has no end mark"
        if head[:4] == b"OggS":
            file.seek(max(0, size - _OGG_PAGE_BYTES))
            return "it ends within an Ogg page" if _ends_within_page(file.read()) else None
    if _is_transport_stream(head) and size % _TS_PACKET_BYTES:
        return "it ends within a transport packet"
    return None


def avi_ticks(path: Path) -> int | None:
    """Length of the first video stream according to the header of an AVI; None if not stated.

    In units of the stream's time base, one per entry; an entry without bytes repeats the previous
    frame and counts too. Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:4] != b"RIFF" or head[8:12] != b"AVI ":
        return None
    at = 12
    while at + 12 <= len(head) and head[at + 8 : at + 12] != b"movi":
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        if name == b"strh" and head[at + 8 : at + 12] == b"vids":
            return int.from_bytes(head[at + 40 : at + 44], "little") or None
        at += 12 if name == b"LIST" else 8 + size + size % 2
    return None


def asf_holes(path: Path) -> str | None:
    """Why packets of an ASF cannot be read, or None. Every packet must start with the same 3 bytes.

    Reads 3 bytes per packet. Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:16] != _ASF_HEADER:
            return None
        start = int.from_bytes(head[16:24], "little")
        packet_bytes = _asf_packet_bytes(head)
        object_head = os.pread(file.fileno(), 24, start)
        if object_head[:16] != _ASF_DATA or packet_bytes < 1:
            return None
        stop = start + int.from_bytes(object_head[16:24], "little")
        first = start + _ASF_DATA_HEADER_BYTES
        starts = range(first, min(stop, path.stat().st_size), packet_bytes)
        found = [os.pread(file.fileno(), 3, at) == _ASF_PACKET_START for at in starts]
    if not found or not found[0] or all(found):
        return None  # another kind of writer, or no hole
    return f"{found.count(False)} of {len(found)} ASF packets have no header"


def _asf_packet_bytes(head: bytes) -> int:
    """Size of every packet; 0 if it is unknown or larger than 64 KiB."""
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 100:
        return 0
    least, most = (int.from_bytes(head[at + o : at + o + 4], "little") for o in (92, 96))
    return least if least == most and least <= _HEAD_BYTES else 0


def _ends_within_page(tail: bytes) -> bool:
    """Whether the last Ogg page is incomplete."""
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS"):
        return False
    segments = page[26] if len(page) > 26 else 0
    return len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _is_transport_stream(head: bytes) -> bool:
    return all(head[at : at + 1] == b"G" for at in range(0, 5 * _TS_PACKET_BYTES, _TS_PACKET_BYTES))


def _asf_bytes(head: bytes) -> int:
    """File size from the File Properties object (its fourth field); 0 if unknown or live."""
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return 0
    flags = int.from_bytes(head[start + 88 : start + 92], "little")
    return 0 if flags & _ASF_BROADCAST else int.from_bytes(head[start + 40 : start + 48], "little")


def _shorter(size: int, declared: int) -> str | None:
    if size >= declared - 1:  # some writers count a padding byte, others do not
        return None
    return f"the header says {declared} bytes, the file has {size}"
