"""Verifies a frame store against its records: finds flipped bits, missing and extra files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distinit.pipeline.frames.commits import check_size, read_commit, read_manifest
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import sha256_file
from distinit.schemas.errors import DistInitError, FrameStoreError
from distinit.schemas.frames import StoreCommit

__all__ = ["StoreReport", "verify_store"]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """The result of a verification.

    ``complete``: every unit of the store is committed. The counts are of intact units.
    ``problems``: one line per problem.
    """

    complete: bool
    unit_count: int = 0
    frame_count: int = 0
    byte_count: int = 0
    problems: tuple[str, ...] = ()


def verify_store(root: Path, *, deep: bool, progress: Progress) -> StoreReport:
    """Compare the files of a store with its records: names and sizes, and with ``deep`` all bytes.

    Raises FrameStoreError if ``root`` is not a frame store.
    """
    layout = StoreLayout(root)
    if not os.path.lexists(layout.manifest):
        read_manifest(root)  # raises, and says what was expected
    try:
        manifest = read_manifest(root)
        committed = layout.committed_units()
    except FrameStoreError as error:
        return StoreReport(complete=False, problems=(_line("store.json", error),))
    units = sorted(committed) if manifest.units is None else manifest.units
    present = [unit for unit in units if unit in committed]
    report = StoreReport(complete=manifest.units is not None and len(present) == len(units))
    problems = list(_unexpected_files(layout, committed))
    progress.start("verify", len(present), "units")
    intact = []
    for unit in present:
        try:
            commit = _check_unit(layout, unit, deep=deep)
        except (DistInitError, OSError) as error:
            problems.append(_line(f"unit {unit}", error))
        else:
            intact.append(commit)
        progress.advance()
    progress.finish()
    if not problems:
        problems += _check_frames(root, intact, deep=deep)
    return replace(
        report,
        unit_count=len(intact),
        frame_count=sum(commit.frame_count for commit in intact),
        byte_count=sum(entry.size for commit in intact for entry in commit.files.values()),
        problems=tuple(problems),
    )


def _check_unit(layout: StoreLayout, unit: int, *, deep: bool) -> StoreCommit:
    """The unit's commit. Raises FrameStoreError or OSError if its file does not match."""
    commit = read_commit(layout, unit)
    (entry,) = commit.files.values()
    check_size(layout, unit, entry.size)
    if deep and sha256_file(layout.unit(unit)) != entry.sha256:
        raise FrameStoreError(f"{layout.unit_file_name(unit)} has different bytes than committed")
    return commit


def _check_frames(root: Path, commits: Sequence[StoreCommit], *, deep: bool) -> Iterator[str]:
    """Open the store as training does; with ``deep``, read every frame of every video."""
    try:
        store = FrameStore.open(root, allow_incomplete=True)
    except DistInitError as error:
        yield _line("the store", error)
        return
    for rows in (rows for commit in commits for rows in commit.videos if deep):
        for frame in range(rows.first_frame, rows.first_frame + rows.frame_count):
            try:
                store.jpegs(rows.video_id, [frame])
            except FrameStoreError as error:
                yield _line(f"video {rows.video_id}, frame {frame}", error)
                break


def _unexpected_files(layout: StoreLayout, committed: frozenset[int]) -> Iterator[str]:
    """A problem for each link, special file, and file that no record names."""
    known = {layout.manifest.name, layout.lock.name}
    known |= {layout.unit_file_name(unit) for unit in committed}
    known |= {layout.commit_name(unit) for unit in committed}
    for folder, _, _ in os.walk(layout.root):
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = Path(entry.path).relative_to(layout.root).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    if name != layout.commits.name:
                        yield f"{name}: a folder that is not part of a frame store: remove it"
                elif not stat.S_ISREG(mode):
                    yield f"{name}: a link or a special file"
                elif name not in known:
                    yield f"{name}: not part of the store, or left by a killed writer: remove it"


def _line(what: str, error: Exception) -> str:
    if not isinstance(error, DistInitError):
        return f"{what}: {error}"
    found = "" if error.found is None else f" (found: {error.found})"
    return f"{what}: {error.problem}{found}"
