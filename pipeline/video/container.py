"""What a file's own header says about its end, where ffmpeg does not tell.

ffmpeg demuxes a truncated AVI, ASF (wmv) or GIF without a word. Each of these says in a fixed
place how long it is or where it ends; reading that takes a few bytes.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["missing_end"]

_HEAD_BYTES = 64 << 10
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BROADCAST = 1


def missing_end(path: Path) -> str | None:
    """Why the file is certainly cut short, or None. Raises OSError if it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _shorter(size, 8 + int.from_bytes(head[4:8], "little"))
        if head[:16] == _ASF_HEADER:
            return _shorter(size, _asf_bytes(head))
        if head[:6] in (b"GIF87a", b"GIF89a"):
            file.seek(max(0, size - 1024))
            ended = file.read().rstrip(b"\0").endswith(b";")
            return None if ended else "the GIF has no end mark"
    return None


def _asf_bytes(head: bytes) -> int:
    """File size in the File Properties object (its fourth field); 0 if unknown or live."""
    start = head.find(_ASF_FILE_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return 0
    flags = int.from_bytes(head[start + 88 : start + 92], "little")
    return 0 if flags & _ASF_BROADCAST else int.from_bytes(head[start + 40 : start + 48], "little")


def _shorter(size: int, declared: int) -> str | None:
    # RIFF sizes may leave out the padding byte, and live writers leave 0 or all ones.
    if declared >= 1 << 32 or size >= declared - 1:
        return None
    return f"the header says {declared} bytes, the file has {size}"
