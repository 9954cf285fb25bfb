"""The published files of a complete cache, as ``manifest-sha256.txt`` lists them.

The list tells a receiver what to ask for, so that no server has to list folders. It comes from
others: only names that the format has are accepted, and each of them exactly once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.moments_file import MAX_MOMENTS_BYTES
from distinit.pipeline.cache.parquet_bounds import MAX_TABLE_BYTES
from distinit.pipeline.records import MAX_RECORD_BYTES
from distinit.pipeline.units import unit_name
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.wording import shown

__all__ = [
    "CHECKSUMS",
    "COPY",
    "MANIFEST",
    "MAX_LIST_BYTES",
    "SIGNATURE",
    "PublishedFile",
    "limit_bytes_of",
    "max_list_bytes",
    "parse_list",
]

MANIFEST, CHECKSUMS = "manifest.json", "manifest-sha256.txt"
SIGNATURE, COPY = "cache.sig", "copy.json"
"""Files that the list does not have: a signature lists all others, a copy is of the receiver."""
MAX_LIST_BYTES = 1 << 30
"""Size limit of the list of any cache."""

_FIXED = ("README.md", "croissant.json", MANIFEST, "plan.parquet", "videos.parquet")
_LINE_BYTES = 160  # a sha256 and a name, without the id of the teacher
_LINE = re.compile(r"([0-9a-f]{64})  ([!-~]{1,300})")
_FRAMES = re.compile(r"frames/(unit-\d{5,8})\.parquet")
_UNKNOWN = re.compile(r"(?:[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*/)*[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*")
_OF_TEACHER = re.compile(
    r"teachers/(?P<teacher>[^/]+)/(?:(?P<record>teacher\.json)|(?P<meta>[a-z_]+)/zarr\.json"
    r"|(?P<statistics>statistics\.safetensors)"
    r"|confidence/(?P<confidence>unit-\d{5,8})\.parquet|commits/(?P<commit>unit-\d{5,8})\.json"
    r"|(?P<array>[a-z_]+)/c/(?P<shard>\d{1,8})/0)"
)


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a cache.

    Attributes:
        name: Path relative to the cache.
        sha256: As the list states it.
        kind: ``fixed``, ``frames``, ``teacher``, ``statistics``, ``zarr``, ``confidence``,
            ``commit`` or ``shard``; ``other`` for a file that a newer minor version has added.
        teacher: Id of the teacher that it belongs to; None: to all.
        unit: Number of the unit that it belongs to; None: to all.
        array: Name of the array, for ``zarr`` and ``shard``.
    """

    name: str
    sha256: str
    kind: str
    teacher: str | None = None
    unit: int | None = None
    array: str | None = None

    @property
    def is_sized(self) -> bool:
        """Whether a commit record has its size."""
        return self.kind in ("frames", "confidence", "shard")

    @property
    def limit_bytes(self) -> int:
        """The most bytes that it may have, as far as its kind tells."""
        return limit_bytes_of(self.name)


def limit_bytes_of(name: str) -> int:
    """The most bytes that a published file with this name may have; shards may have more."""
    if name.endswith(".safetensors"):
        return MAX_MOMENTS_BYTES
    return MAX_TABLE_BYTES if name.endswith(".parquet") else MAX_RECORD_BYTES


def max_list_bytes(manifest: CacheManifest) -> int:
    """The most bytes that the list of a cache with this manifest may have.

    Twice the files that are known here, since newer versions of the format may have more.
    """
    units, files, longest_id = manifest.row_space.units, len(_FIXED), 0
    files += units
    for name, summary in manifest.teachers.items():
        arrays = len(array_specs(summary.encoding, summary.classes))
        files += units * (arrays + 2) + arrays + 1
        longest_id = max(longest_id, len(name))
    return min(MAX_LIST_BYTES, 2 * files * (_LINE_BYTES + longest_id))


def parse_list(data: bytes, manifest: CacheManifest, owner: str) -> dict[str, PublishedFile]:
    """The files in a list of checksums, by name. ``owner``: the cache, for messages.

    Raises CacheCorruptError unless the list has exactly the files of a complete cache with this
    manifest. Shards may be missing, since a unit without rows has none, and so may statistics.
    """
    files: dict[str, PublishedFile] = {}
    arrays = {
        name: {spec.name for spec in array_specs(summary.encoding, summary.classes)}
        for name, summary in manifest.teachers.items()
    }
    for line in _lines(data, owner):
        match = _LINE.fullmatch(line)
        file = match and (
            _classified(match[2], match[1], manifest, arrays)
            or _of_newer_version(match[2], match[1], manifest)
        )
        if file is None or file.name in files:
            raise _wrong(owner, "each file of the cache once", shown(line))
        files[file.name] = file
    _check_complete(files, manifest, arrays, owner)
    return files


def _lines(data: bytes, owner: str) -> Iterator[str]:
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise _wrong(owner, "ASCII text", "other bytes") from None
    if lines.pop() != "":
        raise _wrong(owner, "a complete last line", "an end within a line")
    yield from lines


def _classified(
    name: str, sha256: str, manifest: CacheManifest, arrays: Mapping[str, set[str]]
) -> PublishedFile | None:
    """The file of this name; None if a cache with this manifest has no such file."""
    units = manifest.row_space.units
    if name in _FIXED:
        return PublishedFile(name, sha256, "fixed")
    if match := _FRAMES.fullmatch(name):
        unit = _unit(match[1], units)
        return None if unit is None else PublishedFile(name, sha256, "frames", None, unit)
    match = _OF_TEACHER.fullmatch(name)
    if match is None or match["teacher"] not in manifest.teachers:
        return None
    teacher = match["teacher"]
    if match["record"]:
        return PublishedFile(name, sha256, "teacher", teacher)
    if match["statistics"]:
        is_features = manifest.teachers[teacher].target == "features"
        return PublishedFile(name, sha256, "statistics", teacher) if is_features else None
    if (array := match["meta"] or match["array"]) and array not in arrays[teacher]:
        return None
    if match["meta"]:
        return PublishedFile(name, sha256, "zarr", teacher, None, array)
    if match["array"]:
        unit = int(match["shard"])
        is_unit = unit < units and str(unit) == match["shard"]
        return PublishedFile(name, sha256, "shard", teacher, unit, array) if is_unit else None
    kind = "confidence" if match["confidence"] else "commit"
    unit_or_none = _unit(match[kind], units)
    if unit_or_none is None:
        return None
    return PublishedFile(name, sha256, kind, teacher, unit_or_none)


def _of_newer_version(name: str, sha256: str, manifest: CacheManifest) -> PublishedFile | None:
    """A file that is not known here, if newer minor versions of the format may have it."""
    if manifest.is_newer and _UNKNOWN.fullmatch(name) and name not in (COPY, CHECKSUMS, SIGNATURE):
        return PublishedFile(name, sha256, "other")
    return None


def _unit(text: str, units: int) -> int | None:
    """The number of ``unit-00042``; None if it is written in another way, or not planned."""
    unit = int(text.removeprefix("unit-"))
    return unit if unit < units and unit_name(unit) == text else None


def _check_complete(
    files: Mapping[str, PublishedFile],
    manifest: CacheManifest,
    arrays: Mapping[str, set[str]],
    owner: str,
) -> None:
    """Names are known and unique, so that numbers of files tell whether one is missing."""
    found = Counter((file.kind, file.teacher) for file in files.values())
    units = manifest.row_space.units
    expected: dict[tuple[str, str | None], int] = {
        ("fixed", None): len(_FIXED),
        ("frames", None): units,
    }
    for name in manifest.teachers:
        expected |= {("teacher", name): 1, ("zarr", name): len(arrays[name])}
        expected |= {("confidence", name): units, ("commit", name): units}
    for (kind, teacher), count in expected.items():
        if found[kind, teacher] != count:
            whose = f" of teacher {teacher}" if teacher else ""
            raise _wrong(owner, f"{count} files of kind {kind}{whose}", found[kind, teacher])


def _wrong(owner: str, expected: object, found: object) -> CacheCorruptError:
    return CacheCorruptError(
        f"{owner}: manifest-sha256.txt does not list the files of this cache",
        expected=expected,
        found=found,
        remedy="do not use this cache; ask its sender for a clean copy",
    )
