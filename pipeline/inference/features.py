"""Features of any videos, computed by a trained student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.corpus.listing import list_corpus
from distinit.pipeline.datasets.store import geometry_of
from distinit.pipeline.evaluation.features import FeatureReader
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import store_lock
from distinit.pipeline.inference.student import TrainedStudent
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.training.clips import check_pixels
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.video import DecodeConfig

__all__ = ["VideoFeatures", "extract_features"]


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """Features of N videos."""

    video_ids: tuple[str, ...]
    features_ND: NDArray[np.float32]
    """Mean over the clips of each video, in the order of ``video_ids``."""
    paths: Mapping[str, str]
    """Video id -> path, relative to the folder of the videos; empty for a frame store."""
    failed: Mapping[str, str]
    """Path -> why the video could not be decoded; it has no features."""


def extract_features(
    student: TrainedStudent,
    videos: FrameStore | str | Path,
    *,
    video_ids: Sequence[str] | None = None,
    frames: str | Path | None = None,
    protocol: str = "vmz-10",
    batch_size: int = 16,
    loader_threads: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> VideoFeatures:
    """Compute what the heads of ``student`` read, averaged over the clips of each video.

    The network of ``student`` stays where it is: a copy of it runs on ``device``.

    Args:
        student: From ``load_student``.
        videos: A frame store or its folder; or videos as for ``distinit extract --videos``: a
            folder, a list of paths, a URL. Their frames are first decoded into a frame store.
        video_ids: The videos to compute features of, in this order. Default: all of them.
        frames: Folder that keeps the frame store of ``videos``. Default: a temporary folder.
        protocol: The clips of a video: ``vmz-N``, ``dense-sN`` or ``slowfast-TxS``.
        batch_size: Clips per forward pass.
        loader_threads: Threads that decode frames.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        progress: Shows the progress.

    Raises ConfigError for an unknown protocol or device, or frames that the student cannot read;
    FrameStoreError for an unknown video or a damaged store; CorpusError if the videos cannot be
    listed; ComputeError if a feature is not finite; StorageError and LockedError for ``frames``.
    """
    progress = progress or NullProgress()
    target = resolve_device(device)
    with _opened(student, videos, frames, progress) as (store, paths, failed):
        check_pixels(store, student.record.student, student.clip)
        ids = store.video_ids if video_ids is None else tuple(video_ids)
        for video_id in ids:
            if video_id not in store.videos:
                raise FrameStoreError(
                    f"video {video_id} is not in the frame store {store.root}",
                    expected="ids of FrameStore.video_ids",
                )
        reader = FeatureReader(
            student=deepcopy(student.network).to(target).eval(),
            store=store,
            clip=student.clip,
            protocol=protocol,
            batch_size=batch_size,
            device=target,
            loader_threads=loader_threads,
        )
        progress.start("features", len(ids), "videos")
        features_ND = reader.features(ids, progress).numpy()
        progress.finish()
    return VideoFeatures(ids, features_ND, {name: paths[name] for name in ids if paths}, failed)


type _Opened = tuple[FrameStore, Mapping[str, str], Mapping[str, str]]


@contextmanager
def _opened(
    student: TrainedStudent,
    videos: FrameStore | str | Path,
    frames: str | Path | None,
    progress: Progress,
) -> Iterator[_Opened]:
    """The frame store, the path of each video, and the reason of each failure by path."""
    if isinstance(videos, FrameStore):
        yield videos, {}, {}
    elif StoreLayout(Path(videos)).manifest.is_file():
        yield FrameStore.open(videos), {}, {}
    elif frames is not None:
        yield _built(student, str(videos), Path(frames), progress)
    else:
        with TemporaryDirectory(prefix="distinit-frames-") as folder:
            yield _built(student, str(videos), Path(folder) / "frames", progress)


def _built(student: TrainedStudent, videos: str, folder: Path, progress: Progress) -> _Opened:
    if student.record.student.in_channels == 2:
        raise ConfigError(
            "a student of optical flow does not read videos",
            expected="a flow store",
            remedy="build one with `distinit frames build` and `distinit flow build`",
        )
    refuse_inside_data(folder.parent)
    corpus = list_corpus(videos, progress=progress)
    corpus.require_all()
    geometry = geometry_of(folder, student.clip.crop)
    with store_lock(folder):
        store = build_store(corpus, folder, geometry, DecodeConfig(), progress)
    paths = {file.video_id: file.path for file in corpus.files}
    failed = {paths[name]: video.error for name, video in store.failed.items()}
    return store, paths, failed
