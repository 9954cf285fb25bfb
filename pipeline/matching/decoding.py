"""Decodes a receiver's videos to perceptual hashes, several at a time; nothing else is kept."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np

from distinit.pipeline.corpus.source import VideoSource
from distinit.pipeline.matching.hash_parts import CopyHashes, write_part
from distinit.pipeline.progress import Progress
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.retry import KillLimit, retry_killed
from distinit.schemas.corpus import VideoFile
from distinit.schemas.errors import DecodeError
from distinit.schemas.video import DecodeConfig

__all__ = ["hash_copies"]

_PART_VIDEOS, _PART_FRAMES, _PART_SECONDS = 256, 1 << 20, 20.0
_QUEUED = 4  # videos that wait for a free thread, so that the list of jobs stays short


def hash_copies(
    root: Path,
    files: Sequence[VideoFile],
    done: int,
    work: Path,
    decode: DecodeConfig,
    progress: Progress,
) -> dict[str, str]:
    """Decode ``files``, and store the hashes of their frames in ``work``.

    A part is stored every 20 seconds, so that a killed match loses no more than that. ``done``:
    the number of files that were decoded earlier. Returns path -> reason of the files that cannot
    be decoded. Raises FFmpegNotFoundError, StorageError.
    """
    failed: dict[str, str] = {}
    part: list[CopyHashes] = []
    stored_at = time.monotonic()
    progress.start("decode", done + len(files), "videos", done)
    try:
        for file, hashes in _decoded(VideoSource(root), files, decode):
            if isinstance(hashes, CopyHashes):
                part.append(hashes)
            else:
                failed[file.path] = hashes
            progress.advance(1, failed=len(failed))
            frames = sum(len(video.hash_F) for video in part)
            late = time.monotonic() - stored_at > _PART_SECONDS
            if part and (len(part) >= _PART_VIDEOS or frames >= _PART_FRAMES or late):
                done_part, part, stored_at = part, [], time.monotonic()
                write_part(work, done_part)
    finally:  # also when the user stops it
        if part:
            write_part(work, part)
    progress.finish()
    return failed


def _decoded(
    source: VideoSource, files: Sequence[VideoFile], decode: DecodeConfig
) -> Iterator[tuple[VideoFile, CopyHashes | str]]:
    """Each file with its hashes, or the reason why it has none, in any order."""
    stopping = threading.Event()
    threads = decode.videos_at_once(os.cpu_count())
    waiting = iter(files)
    jobs: dict[Future[CopyHashes | str], VideoFile] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(jobs) < threads + _QUEUED and (file := next(waiting, None)):
                    jobs[pool.submit(_hash_one, source, file, decode, stopping)] = file
                if not jobs:
                    return
                ready, _ = wait(jobs, return_when=FIRST_COMPLETED)
                for job in ready:
                    yield jobs.pop(job), job.result()
        finally:
            stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _hash_one(
    source: VideoSource, file: VideoFile, decode: DecodeConfig, stopping: threading.Event
) -> CopyHashes | str:
    def attempt(limit: KillLimit) -> CopyHashes | str:
        try:
            return _hashes_of(source, file, decode, stopping)
        except DecodeError as error:
            limit.check(file.path, error)
            return source.reason(file.path, file.digest, error)

    return retry_killed(attempt)


def _hashes_of(
    source: VideoSource, file: VideoFile, decode: DecodeConfig, stopping: threading.Event
) -> CopyHashes | str:
    hashes, times = [], []
    with open_video(source.root / file.path, {}, decode) as stream:
        for block in stream:
            hashes.append(block.hash_N)
            times.append(block.pts_N)
            if stopping.is_set():
                return "stopped"
        above, below = map(int, stream.time_base.split("/"))
    source.check_unchanged(file)
    pts_seconds_F = np.concatenate(times).astype(np.float64) * (above / below)
    return CopyHashes(file.digest, np.concatenate(hashes), pts_seconds_F)
