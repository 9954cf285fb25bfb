"""What a file's own bytes say about its end, where ffmpeg does not tell.

ffmpeg demuxes a truncated AVI, ASF (wmv), GIF, Ogg or MPEG-TS without a word. The first three
say in a fixed place how long they are or where they end; the last two are made of packets of a
known length, and a cut rarely falls between two. An MPEG program stream (mpg) tells nothing.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["missing_end"]

_HEAD_BYTES = 64 << 10
_TS_PACKET_BYTES = 188
_OGG_PAGE_BYTES = 65307  # the longest there can be
_UNKNOWN_RIFF = 0xFFFFFFFF
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BROADCAST = 1


def missing_end(path: Path) -> str | None:
    """Why the file is certainly cut short, or None. Raises OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            riff_bytes = int.from_bytes(head[4:8], "little")
            # Live writers leave 0 or all ones.
            return None if riff_bytes == _UNKNOWN_RIFF else _shorter(size, 8 + riff_bytes)
        if head[:16] == _ASF_HEADER:
            return _shorter(size, _asf_bytes(head))
        if head[:6] in (b"GIF87a", b"GIF89a"):
            file.seek(max(0, size - 1024))
            ended = file.read().rstrip(b"\0").endswith(b";")
            return None if ended else "the GIF has no end mark"
        if head[:4] == b"OggS":
            file.seek(max(0, size - _OGG_PAGE_BYTES))
            return "it ends within an Ogg page" if _ends_in_page(file.read()) else None
    if _is_transport_stream(head) and size % _TS_PACKET_BYTES:
        return "it ends within a transport packet"
    return None


def _ends_in_page(tail: bytes) -> bool:
    """Whether the last Ogg page is longer than what there is of it."""
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS"):
        return False
    segments = page[26] if len(page) > 26 else 0
    return len(page) < 27 + segments or len(page) < 27 + segments + sum(page[27 : 27 + segments])


def _is_transport_stream(head: bytes) -> bool:
    return all(head[at : at + 1] == b"G" for at in range(0, 5 * _TS_PACKET_BYTES, _TS_PACKET_BYTES))


def _asf_bytes(head: bytes) -> int:
    """File size in the File Properties object (its fourth field); 0 if unknown or live."""
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return 0
    flags = int.from_bytes(head[start + 88 : start + 92], "little")
    return 0 if flags & _ASF_BROADCAST else int.from_bytes(head[start + 40 : start + 48], "little")


def _shorter(size: int, declared: int) -> str | None:
    if size >= declared - 1:  # a padding byte may be counted or not
        return None
    return f"the header says {declared} bytes, the file has {size}"
