"""Is the cache on disk what its records say? Every flipped bit, missing or extra file is found.

Shallow: every file is there with its size, and the records agree. Deep: every byte is hashed,
every inner chunk's checksum is checked, tables are recomputed from the targets, and the content
digest is recomputed from the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from distinit.pipeline.cache.cards import published_files
from distinit.pipeline.cache.digest import corpus_digest
from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.records import expected_files
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.tables import read_table, videos_table
from distinit.pipeline.cache.unit_check import UnitChecker
from distinit.pipeline.storage import safe_join, sha256_file
from distinit.schemas.errors import DistInitError
from distinit.schemas.manifest import FileEntry
from distinit.schemas.tables import VIDEOS_SCHEMA

__all__ = ["VerifyReport", "verify_cache"]

_FIXED = ("README.md", "croissant.json", "manifest.json", "plan.parquet", "videos.parquet")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What verification found; ``ok`` without problems."""

    problems: tuple[str, ...]
    files: int
    rows: int
    bytes: int
    deep: bool

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_cache(
    root: Path, *, deep: bool = True, on_unit: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check a complete or incomplete cache; damage is reported, never raised.

    Args:
        root: Folder of the cache.
        deep: Read every byte; else only sizes and records.
        on_unit: Called with (units done, units in all) during a deep check.
    """
    return _Verification(CacheLayout(Path(root).resolve()), deep, on_unit).run()


@dataclass
class _Verification:
    layout: CacheLayout
    deep: bool
    on_unit: Callable[[int, int], None] | None
    problems: list[str] = field(default_factory=list)
    hashed: dict[str, str] = field(default_factory=dict)  # relative path -> sha256 as found
    damaged: set[str] = field(default_factory=set)  # committed files that are not as committed

    def run(self) -> VerifyReport:
        rows = 0
        files = published_files(self.layout)
        for name in files:
            with self._collect():
                safe_join(self.layout.root, name)
        with self._collect():
            cache = TargetCache.open(self.layout.root, allow_incomplete=True)
            state = cache.read_state()
            rows = sum(state.unit_rows.values())
            self._check_records(cache, state)
            self._check_files(cache, state, files)
            if self.deep:
                self._check_units(state)
        if self.layout.checksums.exists():
            self._check_checksums(files)
        size = sum(path.stat().st_size for name in files if (path := self._path(name)).exists())
        unique = tuple(dict.fromkeys(self.problems))
        return VerifyReport(unique, len(files), rows, size, self.deep)

    def _path(self, name: str) -> Path:
        return self.layout.root / name

    @contextmanager
    def _collect(self) -> Iterator[None]:
        """One damaged part must not hide the others."""
        try:
            yield
        except DistInitError as error:
            self.problems.append(str(error))
        except OSError as error:
            self.problems.append(f"{error.filename}: {error.strerror}")

    def _expect(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def _check_records(self, cache: TargetCache, state: CacheState) -> None:
        manifest = cache.manifest
        self._expect(
            manifest.complete or not self.layout.checksums.exists(),
            "manifest.json says incomplete, but manifest-sha256.txt exists",
        )
        if not manifest.complete:
            return
        self._expect(state.complete, "manifest.json says complete, but units are missing")
        found = state.content_digest(manifest.sampling)
        self._expect(
            found == manifest.content_digest,
            f"manifest.json: content digest {manifest.content_digest}, recomputed {found}",
        )
        self._expect(
            manifest.corpus.digest == corpus_digest(v.digest for v in state.plan.latest.values()),
            "manifest.json: the corpus digest is not that of the planned videos",
        )
        self._check_counts(cache, state)
        with self._collect():
            stored = read_table(self.layout.videos, VIDEOS_SCHEMA)
            wanted = videos_table(state.plan, state.outcomes)
            self._expect(stored.equals(wanted), "videos.parquet contradicts the commit records")

    def _check_counts(self, cache: TargetCache, state: CacheState) -> None:
        outcomes = state.outcomes.values()
        corpus = cache.manifest.corpus
        counts = {
            "videos": (corpus.videos, len(state.plan.latest)),
            "failed": (corpus.failed, sum(o.status == "failed" for o in outcomes)),
            "frames": (corpus.frames, sum(o.frame_count for o in outcomes if o.status == "ok")),
            "rows": (cache.manifest.row_space.rows, sum(state.unit_rows.values())),
        }
        for name, (said, counted) in counts.items():
            self._expect(said == counted, f"manifest.json: {said} {name}, counted {counted}")
        for name, summary in cache.manifest.teachers.items():
            committed = len(state.commits[name])
            self._expect(
                summary.units_committed == committed,
                f"manifest.json: {summary.units_committed} units of {name}, counted {committed}",
            )

    def _check_files(self, cache: TargetCache, state: CacheState, files: tuple[str, ...]) -> None:
        committed: dict[str, FileEntry] = {}
        wanted = set(_FIXED) if cache.manifest.complete else set()
        for name, record in state.records.items():
            wanted.add(self.layout.relative(self.layout.teacher_record(name)))
            for spec in array_specs(record.encoding, record.identity.classes):
                wanted.add(self.layout.relative(self.layout.array_metadata(name, spec.name)))
            for unit, commit in state.commits[name].items():
                wanted.add(self.layout.relative(self.layout.commit(name, unit)))
                wanted |= expected_files(self.layout, record, unit, commit.rows).keys()
                for path, entry in commit.files.items():
                    same = committed.setdefault(path, entry) == entry
                    self._expect(same, f"{path}: two commit records disagree on it")
        missing = sorted(wanted - set(files))
        self.problems += [f"{name}: missing" for name in missing]
        self.damaged |= set(missing)
        if cache.manifest.complete:
            extra = sorted(set(files) - wanted)
            self.problems += [f"{name}: not part of the cache" for name in extra]
        for name, entry in committed.items():
            if name not in missing:
                with self._collect():
                    self._check_entry(name, entry)

    def _check_entry(self, name: str, entry: FileEntry) -> None:
        size = self._path(name).stat().st_size
        found = self._hash(name) if self.deep else entry.sha256
        if (size, found) != (entry.size, entry.sha256):
            self.damaged.add(name)
            self.problems.append(
                f"{name}: {size} bytes, sha256 {found}; "
                f"committed with {entry.size} bytes, {entry.sha256}"
            )

    def _hash(self, name: str) -> str:
        if name not in self.hashed:
            self.hashed[name] = sha256_file(self._path(name))
        return self.hashed[name]

    def _check_checksums(self, files: tuple[str, ...]) -> None:
        """manifest-sha256.txt must be, byte for byte, what hashing the files gives."""
        with self._collect():
            try:
                lines = self.layout.checksums.read_text("utf-8").splitlines(keepends=True)
            except ValueError:
                self.problems.append("manifest-sha256.txt: not a text")
                return
            listed = {line[66:-1]: line for line in lines}
            in_order = list(listed) == list(files) and len(lines) == len(listed)
            self._expect(in_order, "manifest-sha256.txt: lists other files than the cache has")
            for name in files if self.deep else ():
                if name in listed and self._path(name).is_file():
                    wanted = f"{self._hash(name)}  {name}\n"
                    self._expect(listed[name] == wanted, f"{name}: not as manifest-sha256.txt says")

    def _check_units(self, state: CacheState) -> None:
        checker = UnitChecker(self.layout, state)
        for unit in range(state.plan.units):
            for name, commits in state.commits.items():
                # Files that fail their sha256 are reported; their content says nothing more.
                if unit in commits and not self.damaged & commits[unit].files.keys():
                    with self._collect():
                        self.problems += checker.check(name, unit)
            if self.on_unit is not None:
                self.on_unit(unit + 1, state.plan.units)
        if not self.damaged:
            self.problems += _missing_rows(state, checker.rows_of_video)


def _missing_rows(state: CacheState, rows_of_video: dict[str, int]) -> list[str]:
    """Videos whose rows and outcome do not fit: a failed one has none."""
    problems = []
    latest = state.plan.latest
    for video_id, outcome in state.outcomes.items():
        rows = rows_of_video.get(video_id, 0)
        limit = latest[video_id].reserved_rows if outcome.status == "ok" else 0
        if rows > min(limit, outcome.frame_count) or (limit and outcome.frame_count and not rows):
            problems.append(
                f"video {video_id}: {rows} rows, {outcome.status}, {outcome.frame_count} frames"
            )
    return problems
