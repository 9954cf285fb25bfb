"""Which row of which unit file holds a frame: flat arrays, not an object per video or frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distinit.schemas.errors import FrameStoreError
from distinit.schemas.frames import StoreCommit

__all__ = ["DigestMap", "RunIndex", "StoredVideoInfo", "VideoMap"]


@dataclass(frozen=True, slots=True)
class StoredVideoInfo:
    """One whole video of a frame store."""

    video_id: str
    digest: str
    frame_count: int
    height: int  # pixels, as stored
    width: int
    fps: float  # mean frames per second of the source; 0 if unknown


@dataclass(frozen=True)
class RunIndex:
    """Runs of all videos [R], sorted by (video, first frame), and the videos themselves [V]."""

    video_ids_V: np.ndarray  # bytes, sorted
    digests_V: np.ndarray  # bytes
    sizes_V2: np.ndarray  # int32, height and width
    fps_V: np.ndarray  # float64
    run_start_V: np.ndarray  # int64 [V+1]: video v has runs run_start[v] .. run_start[v+1]-1
    first_frame_R: np.ndarray  # int64
    first_row_R: np.ndarray  # int64, within the unit
    unit_R: np.ndarray  # int64
    frame_count_V: np.ndarray  # int64

    @classmethod
    def from_commits(cls, commits: Iterable[StoreCommit]) -> RunIndex:
        """Gather the runs, of one commit after another: no object a video outlives its commit.

        Raises FrameStoreError if a video's runs leave a gap or overlap.
        """
        runs = _joined([_runs_of(commit) for commit in commits])
        order_R = np.lexsort((runs["first_frame"], runs["video_id"]))
        runs = {name: values_R[order_R] for name, values_R in runs.items()}
        video_ids_V, start_V = np.unique(runs["video_id"], return_index=True)
        _refuse_gaps(runs, start_V)
        count_R = runs["frame_count"]
        return cls(
            video_ids_V=video_ids_V,
            digests_V=runs["digest"][start_V],
            sizes_V2=runs["size"][start_V],
            fps_V=runs["fps"][start_V],
            run_start_V=np.append(start_V, len(count_R)).astype(np.int64),
            first_frame_R=runs["first_frame"],
            first_row_R=runs["first_row"],
            unit_R=runs["unit"],
            frame_count_V=np.add.reduceat(count_R, start_V) if len(count_R) else count_R,
        )

    def number_of(self, video_id: str) -> int:
        """Position of a video in the arrays; -1 if it is not there."""
        return _find(self.video_ids_V, video_id)

    def info(self, number: int) -> StoredVideoInfo:
        """One video."""
        height, width = self.sizes_V2[number].tolist()
        return StoredVideoInfo(
            video_id=self.video_ids_V[number].decode(),
            digest=self.digests_V[number].decode(),
            frame_count=int(self.frame_count_V[number]),
            height=height,
            width=width,
            fps=float(self.fps_V[number]),
        )

    def locate(self, number: int, frames_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(unit [N], row within the unit [N]) of frames of one video.

        Raises FrameStoreError for frames the video does not have.
        """
        frame_count = int(self.frame_count_V[number])
        if frames_N.size and (frames_N.min() < 0 or frames_N.max() >= frame_count):
            raise FrameStoreError(
                f"video {self.video_ids_V[number].decode()} has no such frame",
                expected=f"indices 0 .. {frame_count - 1}",
                found=f"{frames_N.min()} .. {frames_N.max()}",
            )
        begin, end = self.run_start_V[number], self.run_start_V[number + 1]
        run_N = begin + self.first_frame_R[begin:end].searchsorted(frames_N, "right") - 1
        return self.unit_R[run_N], self.first_row_R[run_N] + frames_N - self.first_frame_R[run_N]


class VideoMap(Mapping[str, StoredVideoInfo]):
    """video_id -> StoredVideoInfo, made when asked for."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index

    def __getitem__(self, video_id: str) -> StoredVideoInfo:
        number = self._index.number_of(video_id)
        if number < 0:
            raise KeyError(video_id)
        return self._index.info(number)

    def __iter__(self) -> Iterator[str]:
        return (video_id.decode() for video_id in self._index.video_ids_V)

    def __len__(self) -> int:
        return len(self._index.video_ids_V)


class DigestMap(Mapping[str, str]):
    """sha256 of a video file -> the (first) video_id with these bytes."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        order_V = np.argsort(index.digests_V, kind="stable")
        self._digests_D, first_D = np.unique(index.digests_V[order_V], return_index=True)
        self._number_D = order_V[first_D]

    def __getitem__(self, digest: str) -> str:
        position = _find(self._digests_D, digest)
        if position < 0:
            raise KeyError(digest)
        video_id: bytes = self._index.video_ids_V[self._number_D[position]]
        return video_id.decode()

    def numbers_of(self, digests_N: np.ndarray) -> np.ndarray:
        """Numbers (int64 [N]) of the (first) videos with these digests (bytes); -1: none."""
        place_N = np.searchsorted(self._digests_D, digests_N)
        known_N = place_N < len(self._digests_D)
        known_N[known_N] = self._digests_D[place_N[known_N]] == digests_N[known_N]
        number_N = np.full(len(digests_N), -1, np.int64)
        number_N[known_N] = self._number_D[place_N[known_N]]
        return number_N

    def __iter__(self) -> Iterator[str]:
        return (digest.decode() for digest in self._digests_D)

    def __len__(self) -> int:
        return len(self._digests_D)


def _runs_of(commit: StoreCommit) -> dict[str, np.ndarray]:
    """Columns [R] of one commit's runs."""
    runs = commit.videos
    return {
        "video_id": np.array([run.video_id.encode() for run in runs], np.bytes_),
        "digest": np.array([run.digest.encode() for run in runs], np.bytes_),
        "size": np.array([(run.height, run.width) for run in runs], np.int32).reshape(-1, 2),
        "fps": np.array([run.fps for run in runs], np.float64),
        "first_frame": np.array([run.first_frame for run in runs], np.int64),
        "frame_count": np.array([run.frame_count for run in runs], np.int64),
        "first_row": np.array([run.first_row for run in runs], np.int64),
        "unit": np.full(len(runs), commit.unit, np.int64),
    }


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not parts:
        return _runs_of(StoreCommit(unit=0, files={}, videos=(), failed=()))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _find(sorted_bytes_N: np.ndarray, text: str) -> int:
    wanted = text.encode()
    position = int(np.searchsorted(sorted_bytes_N, np.bytes_(wanted)))
    if position < len(sorted_bytes_N) and sorted_bytes_N[position] == wanted:
        return position
    return -1


def _refuse_gaps(runs: Mapping[str, np.ndarray], start_V: np.ndarray) -> None:
    first_frame_R = runs["first_frame"]
    expected_R = np.concatenate([[0], (first_frame_R + runs["frame_count"])[:-1]])
    expected_R[start_V] = 0
    wrong = np.flatnonzero(first_frame_R != expected_R[: len(first_frame_R)])
    if wrong.size:
        at = int(wrong[0])
        raise FrameStoreError(
            f"frames of video {runs['video_id'][at].decode()} are missing or there twice",
            expected=f"a run of frames from {expected_R[at]}",
            found=f"one from {first_frame_R[at]}",
            remedy="finish the extraction: run the same command again",
        )
