"""Checks a partial copy of a cache: its bytes, and that they are part of the published cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from distinit.pipeline.cache.arrivals import sizes_of
from distinit.pipeline.cache.copies import check_copy, describe_copy, read_copy
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.opening import read_valid_plan
from distinit.pipeline.cache.published import MAX_LIST_BYTES, PublishedFile, parse_list
from distinit.pipeline.cache.records import read_manifest, read_teacher
from distinit.pipeline.cache.state import CacheState, read_state
from distinit.pipeline.cache.tree import leftovers, list_tree
from distinit.pipeline.cache.unit_checks import check_units
from distinit.pipeline.cache.verify import VerifyReport
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import read_bounded, sha256_file
from distinit.schemas.copies import CopyRecord
from distinit.schemas.errors import DistInitError
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.wording import one_line, reason_of

__all__ = ["verify_copy"]


def verify_copy(
    root: Path, *, deep: bool, workers: int | None = None, progress: Progress | None = None
) -> VerifyReport:
    """Check a folder with a ``copy.json``. As ``verify_cache``: damage is reported, not raised."""
    layout = CacheLayout(root.resolve())
    workers = workers or os.cpu_count() or 1
    check = _CopyCheck(layout, deep, workers, progress or NullProgress())
    tree = list_tree(layout)
    check.problems, check.notes = leftovers(layout, tree, complete=True)
    check.problems += [f"{name}: a link or a special file" for name in tree.special]
    if not tree.special:
        try:
            check.run(set(tree.files))
        except DistInitError as error:
            check.problems.append(f"{error.problem}: {error.found or error.remedy}")
        except OSError as error:
            check.problems.append(f"{error.filename}: {reason_of(error)}")
    listed = [layout.checksums] if layout.checksums.is_file() else []
    files = [*(layout.root / name for name in tree.files), *listed]
    return VerifyReport(
        problems=tuple(one_line(text) for text in dict.fromkeys(check.problems)),
        notes=tuple(one_line(text) for text in check.notes),
        damaged_units=(),
        files=len(files),
        rows=check.rows,
        bytes=sum(path.lstat().st_size for path in files),
        deep=deep,
        complete=check.is_complete,
        content_digest=check.content_digest,
        sha256=check.hashed,
    )


class _CopyCheck:
    def __init__(self, layout: CacheLayout, deep: bool, workers: int, progress: Progress) -> None:
        self._layout, self._deep = layout, deep
        self._workers, self._progress = workers, progress
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.hashed: dict[str, str] = {}
        self.rows = 0
        self.is_complete = False
        self.content_digest = ""

    def run(self, present: set[str]) -> None:
        """Run all checks. Raises DistInitError, OSError for records that cannot be read."""
        layout = self._layout
        manifest = read_manifest(layout)
        self.is_complete = manifest.complete
        copy = read_copy(layout, manifest)
        if copy is None:
            self.problems.append("copy.json: missing")
            return
        self.notes.append(describe_copy(copy, manifest))
        files = self._listed(manifest, copy)
        missing = sorted(files.keys() - present)
        self.problems += [f"{name}: missing" for name in missing]
        extra = sorted(present - files.keys() - {layout.relative(layout.copy)})
        self.problems += [f"{name}: not part of the copy, remove it" for name in extra]
        state = self._state(manifest, copy)
        self.rows = sum(state.unit_rows.values())
        there = {name: file for name, file in files.items() if name in present}
        damaged = self._check_sizes(there.values(), state)
        if not missing:
            check_copy(layout, manifest, copy, state)
            self.content_digest = manifest.content_digest
        if self._deep:
            damaged |= self._check_units(state, damaged | set(missing))
            self._check_digests([file for name, file in there.items() if name not in damaged])

    def _listed(self, manifest: CacheManifest, copy: CopyRecord) -> dict[str, PublishedFile]:
        data = read_bounded(self._layout.checksums, MAX_LIST_BYTES)
        units = set(copy.units)
        return {
            name: file
            for name, file in parse_list(data, manifest, str(self._layout.root)).items()
            if (file.teacher is None or file.teacher in copy.teachers)
            and (file.unit is None or file.unit in units)
        }

    def _state(self, manifest: CacheManifest, copy: CopyRecord) -> CacheState:
        plan, _ = read_valid_plan(self._layout, manifest)
        records = {name: read_teacher(self._layout, name) for name in copy.teachers}
        return read_state(self._layout, plan, records)

    def _check_sizes(self, files: Iterable[PublishedFile], state: CacheState) -> set[str]:
        """Names of the files that do not have the size that they must have."""
        sizes, wrong = sizes_of(state), set()
        for file in files:
            size = (self._layout.root / file.name).lstat().st_size
            limit_bytes = sizes[file.name].size if file.name in sizes else file.limit_bytes
            if size > limit_bytes or (file.name in sizes and size != limit_bytes):
                wrong.add(file.name)
                self.problems.append(f"{file.name}: {size} bytes, expected {limit_bytes}")
        return wrong

    def _check_units(self, state: CacheState, absent: set[str]) -> set[str]:
        """Read the units, several at a time; names of files that differ from their commit."""
        damaged: set[str] = set()
        for found in check_units(self._layout, state, absent, self._workers, self._progress):
            self.problems += found.problems
            self.hashed |= found.hashed
            damaged |= found.damaged_files
        return damaged

    def _check_digests(self, files: Iterable[PublishedFile]) -> None:
        """Compare each file with the list; those of units have been hashed already."""
        for file in files:
            found = self.hashed.get(file.name) or sha256_file(self._layout.root / file.name)
            self.hashed[file.name] = found
            if found != file.sha256:
                self.problems.append(f"{file.name}: sha256 {found}, listed with {file.sha256}")
