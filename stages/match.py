"""Matches a received cache with a receiver's own copies of the videos: writes a mapping file."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.matching.cache_hashes import CacheHashes, CacheVideo
from distinit.pipeline.matching.choice import choose_copies, exact_copy
from distinit.pipeline.matching.copies import FoundCopies, find_copies, list_copies
from distinit.pipeline.matching.decoding import hash_copies
from distinit.pipeline.matching.hash_parts import read_parts
from distinit.pipeline.matching.mapping import check_mapping_out, write_mapping
from distinit.pipeline.matching.matcher import Matcher, name_key
from distinit.pipeline.output_paths import refuse_inside_data, refuse_nameless
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import refuse_links, remove_dead_partials, storage_errors
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import CacheError, ConfigError
from distinit.schemas.matching import (
    KINDS,
    KindCount,
    MatchConfig,
    MatchedVideo,
    MatchReport,
    Verdict,
)

__all__ = ["match_cache"]


def match_cache(config: MatchConfig, *, progress: Progress | None = None) -> MatchReport:
    """Find the receiver's copy of each video of a cache, and write the mapping file.

    A killed match resumes: bytes and frames that were hashed are not read again.

    Raises CacheError, ConfigError, CorpusError, FFmpegNotFoundError, LockedError, StorageError.
    """
    began = time.monotonic()
    progress = progress or NullProgress()
    out = Path(config.out)
    _check_out(out, config.videos)
    cache = TargetCache.open(config.cache, allow_incomplete=True, allow_absent=True)
    hashes = CacheHashes(cache)
    videos = list(hashes.videos())
    if not videos:
        raise CacheError(
            f"the cache {config.cache} has no video that can be matched",
            expected="videos with rows that are in the owner's corpus",
            remedy="extract first",
        )
    found = find_copies(config.videos)
    work = out.with_name(f"{out.name}.hashes")
    with storage_errors(work):
        work.mkdir(parents=True, exist_ok=True)
    refuse_links(work)
    with WriterLock(work / ".lock"):
        for folder in (work, out.parent):
            remove_dead_partials(folder)
        paths = {video.path: video.digest for video in videos}
        copies = list_copies(found, paths, work, progress)
        rows, undecodable = _match(config, videos, hashes, copies, work, progress)
        write_mapping(out, rows, cache.manifest.corpus.digest, config.limits)
    unreadable = {**copies.unreadable, **undecodable}
    return _report(config, rows, copies, unreadable, time.monotonic() - began)


def _check_out(out: Path, videos: str) -> None:
    """Raise ConfigError if the mapping file cannot be ``out``; nothing was written yet."""
    refuse_nameless(out)
    refuse_inside_data(out.parent)
    place = out.parent.resolve() / out.name
    if Path(videos).is_dir() and place.is_relative_to(Path(videos).resolve()):
        raise ConfigError(
            f"{out} lies inside {videos}, the folder of your videos: nothing is written there",
            expected="a mapping file outside of it",
            remedy="choose another --out",
        )
    check_mapping_out(out)


def _match(
    config: MatchConfig,
    videos: Sequence[CacheVideo],
    hashes: CacheHashes,
    copies: FoundCopies,
    work: Path,
    progress: Progress,
) -> tuple[list[MatchedVideo], dict[str, str]]:
    """The rows of all videos, and path -> reason of the files that cannot be decoded."""
    by_digest = {file.digest: file for file in copies.files}
    exact = [exact_copy(v, by_digest[v.digest]) for v in videos if v.digest in by_digest]
    others = [video for video in videos if video.digest not in by_digest]
    if not others:
        return exact, {}
    owned = {row.copy_digest for row in exact}
    files = {digest: file for digest, file in by_digest.items() if digest not in owned}
    undecodable = _decode(config, copies.root, files, work, progress)
    matcher = Matcher(others, hashes, config.limits)
    _compare_all(matcher, files, work, progress)
    reasons = {name_key(path): f"{path}: {why}" for path, why in undecodable.items()}
    chosen = choose_copies(others, matcher.found, reasons, config.limits)
    return [*exact, *chosen], undecodable


def _decode(
    config: MatchConfig,
    root: Path,
    files: Mapping[str, VideoFile],
    work: Path,
    progress: Progress,
) -> dict[str, str]:
    done = {video.digest for part in read_parts(work) for video in part} & files.keys()
    new = [file for digest, file in files.items() if digest not in done]
    if not new:
        return {}
    return hash_copies(root, new, len(done), work, config.decode, progress)


def _compare_all(
    matcher: Matcher, files: Mapping[str, VideoFile], work: Path, progress: Progress
) -> None:
    """Compare each file once. One part of the hashes is in memory at a time."""
    left = dict(files)
    progress.start("compare", len(files), "videos")
    for part in read_parts(work):
        wanted = [copy for copy in part if copy.digest in left]
        for copy in wanted:
            matcher.compare(left.pop(copy.digest), copy)
        progress.advance(len(wanted))
    progress.finish()


def _report(
    config: MatchConfig,
    rows: Sequence[MatchedVideo],
    copies: FoundCopies,
    unreadable: Mapping[str, str],
    seconds: float,
) -> MatchReport:
    by_path = sorted(rows, key=lambda row: row.path)
    return MatchReport(
        cache=config.cache,
        source=config.videos,
        out=config.out,
        videos=len(rows),
        usable=sum(row.usable for row in rows),
        kinds=tuple(_count(kind, [r for r in rows if r.kind == kind]) for kind in KINDS),
        copies=len(copies.files),
        unreadable=dict(sorted(unreadable.items())),
        refused=tuple(row for row in by_path if not row.usable),
        seconds=round(seconds, 2),
    )


def _count(kind: Verdict, rows: Collection[MatchedVideo]) -> KindCount:
    shifts = [row.shift_frames for row in rows if row.shift_frames]
    shares = [round(100 * row.agreeing_share) for row in rows if row.copy_digest]
    return KindCount(
        kind=kind,
        videos=len(rows),
        usable=sum(row.usable for row in rows),
        shifts=_range(shifts, "+d"),
        shares=f"{_range(shares, 'd')} %" if shares else "",
    )


def _range(values: Collection[int], form: str) -> str:
    if not values:
        return ""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} .. {high}"
