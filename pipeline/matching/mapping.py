"""Writes and reads mapping files: which copy stands for which video of a cache.

A mapping file may come from someone else. It names only paths below a folder that its user gives,
and every copy by the sha256 of its bytes, which is checked before the copy is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.tables import read_table, write_table
from distinit.pipeline.derived import find_texts
from distinit.pipeline.matching.copies import is_relative_path
from distinit.pipeline.records import parse_json
from distinit.schemas.base import SHA256_PATTERN, sha256_of
from distinit.schemas.errors import CacheCorruptError, ConfigError, MatchError
from distinit.schemas.matching import KINDS, MappingHeader, MatchedVideo, MatchLimits
from distinit.schemas.tables import MATCH_SCHEMA
from distinit.schemas.wording import first_names, reason_of, shown

__all__ = ["Mapping", "check_mapping_out", "read_mapping", "write_mapping"]

_KEY = b"distinit-match"
_MAX_HEADER_BYTES = 1 << 16
_MAX_COUNT = 1 << 40
_REMEDY = "run `distinit cache match` again"
_USABLE_KINDS = frozenset({"exact", "re-encoded", "undecidable"})
_SHA256 = re.compile(SHA256_PATTERN)


class Mapping:
    """The rows of a mapping file, ordered by video id, and what its header says."""

    def __init__(self, header: MappingHeader, videos: Sequence[MatchedVideo]) -> None:
        self.header = header
        self.videos = tuple(sorted(videos, key=lambda video: video.video_id))
        self._id_V = np.array([video.video_id.encode() for video in self.videos], np.bytes_)

    @property
    def usable(self) -> list[MatchedVideo]:
        """The videos with a copy that may be used."""
        return [video for video in self.videos if video.usable]

    @property
    def digest(self) -> str:
        """Digest of what training takes from the file: which copy stands for which video."""
        return sha256_of([[v.video_id, v.digest, v.copy_digest] for v in self.usable])

    def check_cache(self, cache: TargetCache) -> None:
        """Raise MatchError if the file was made for a cache of other videos."""
        expected = cache.manifest.corpus.digest
        if self.header.corpus_digest != expected:
            raise MatchError(
                f"the mapping file is not for the cache {cache.layout.root}",
                expected=f"corpus digest {expected}",
                found=f"corpus digest {self.header.corpus_digest}",
                remedy="run `distinit cache match` with this cache",
            )

    def rows_of(self, video_id_N: NDArray[np.bytes_]) -> list[MatchedVideo | None]:
        """The row of each video, None for videos that the file does not have."""
        position_N, found_N = find_texts(self._id_V, video_id_N)
        pairs = zip(position_N.tolist(), found_N.tolist(), strict=True)
        return [self.videos[position] if found else None for position, found in pairs]


def write_mapping(
    path: Path, videos: Sequence[MatchedVideo], corpus_digest: str, limits: MatchLimits
) -> None:
    """Write a mapping file, atomically. Raises StorageError."""
    rows = [video.model_dump() for video in sorted(videos, key=lambda video: video.video_id)]
    header = MappingHeader(corpus_digest=corpus_digest, limits=limits, rows_sha256=sha256_of(rows))
    schema = MATCH_SCHEMA.with_metadata({_KEY: header.sealed().model_dump_json().encode()})
    write_table(pa.Table.from_pylist(rows, schema=schema), path)


def check_mapping_out(path: Path) -> None:
    """Raise ConfigError unless a mapping file can be written to ``path``.

    It may replace an older one, but nothing else: no video, no other file, and no link.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        found = "a link"
    else:
        try:
            read_mapping(path)
        except MatchError as error:
            found = str(error.found)
        else:
            return
    raise ConfigError(
        f"{path} exists already and is not an intact mapping file: it is not replaced",
        expected="a new file, or a mapping file of `distinit cache match`",
        found=found,
        remedy="choose another --out, or remove what is there",
    )


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises MatchError if it is missing, damaged, or contradicts itself.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        if path.exists() and not path.is_dir():
            found = "a special file"
        raise MatchError(
            f"{path} is not a mapping file",
            expected="a file that `distinit cache match --out` wrote",
            found=found,
            named_input=True,
        )
    try:
        table = read_table(path, MATCH_SCHEMA)
    except CacheCorruptError as error:
        raise _invalid(path, "a mapping file of `distinit cache match`", error.found) from error
    header = _read_header(path, table)
    rows = table.to_pylist()
    if not header.is_intact:
        raise _invalid(path, f"a header with seal {header.seal}", "another header")
    if header.rows_sha256 != _digest_of(rows):
        raise _invalid(path, f"rows with sha256 {header.rows_sha256}", "other rows")
    videos = []
    for row in rows:
        _check_row(path, row)
        videos.append(MatchedVideo.model_validate(row, strict=True))
    for name in ("video_id", "copy_digest", "copy_path"):
        _refuse_repeated(path, name, [getattr(v, name) for v in videos if v.usable])
    _refuse_repeated(path, "video_id", [video.video_id for video in videos])
    return Mapping(header, videos)


def _read_header(path: Path, table: pa.Table) -> MappingHeader:
    data = (table.schema.metadata or {}).get(_KEY, b"")
    expected = "a header in the metadata of its schema"
    if not 0 < len(data) <= _MAX_HEADER_BYTES:
        raise _invalid(path, expected, f"{len(data)} bytes")
    try:
        raw = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, expected, reason_of(error)) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != 1:
        raise MatchError(
            f"{path} has a format version that this program does not read",
            expected=1,
            found=shown(version),
            remedy=f"{_REMEDY}, or install the version of distinit that wrote it",
        )
    try:
        return MappingHeader.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _invalid(path, first["msg"], f"{where} = {shown(first['input'])}") from error


def _digest_of(rows: Sequence[dict[str, object]]) -> str:
    """The digest of the rows; empty if they cannot be hashed."""
    try:
        return sha256_of(rows)
    except (ValueError, UnicodeEncodeError):
        return ""


def _check_row(path: Path, row: dict[str, object]) -> None:
    """Raise MatchError for a row that no match writes."""
    kind, usable = row["kind"], bool(row["usable"])
    copy_digest, copy_path = str(row["copy_digest"]), str(row["copy_path"])
    shift = row["shift_frames"]
    share = row["agreeing_share"]
    counts = [row["frame_count"], row["copy_frame_count"]]
    problem = ""
    if kind not in KINDS:
        problem = f"kind {shown(kind)}"
    elif (copy_digest or copy_path) and not _SHA256.fullmatch(copy_digest):
        problem = f"copy_digest {shown(copy_digest)}"
    elif (copy_digest or copy_path) and not is_relative_path(copy_path):
        problem = f"copy_path {shown(copy_path)}, which is not a plain path below a folder"
    elif not all(isinstance(n, int) and 0 <= n <= _MAX_COUNT for n in counts):
        problem = f"frame counts {shown(counts)}"
    elif not (isinstance(shift, int) and abs(shift) <= _MAX_COUNT):
        problem = f"shift_frames {shown(shift)}"
    elif not (isinstance(share, float) and 0 <= share <= 1):
        problem = f"agreeing_share {share}"
    elif usable and (kind not in _USABLE_KINDS or not copy_digest or shift):
        problem = f"a usable copy of kind {shown(kind)}, shifted by {shift}"
    elif usable and counts[0] != counts[1]:
        problem = f"a usable copy of {counts[1]} frames, of a video of {counts[0]}"
    elif (kind == "exact") != (copy_digest == row["digest"]):
        problem = f"kind {shown(kind)} with copy_digest {copy_digest[:16]}"
    if problem:
        raise _invalid(path, f"a valid row for video {shown(row['video_id'])}", problem)


def _refuse_repeated(path: Path, name: str, values: Sequence[str]) -> None:
    if len(set(values)) < len(values):
        ordered = sorted(values)
        twice = [one for one, other in pairwise(ordered) if one == other]
        raise _invalid(path, f"each {name} once", f"twice: {first_names(twice, 3)}")


def _invalid(path: Path, expected: str, found: object) -> MatchError:
    return MatchError(
        f"the mapping file {path} cannot be used", expected=expected, found=found, remedy=_REMEDY
    )
