"""Opens a labelled dataset together with its frame store, to compute features of all its videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distinit.pipeline.datasets.listing import known_files, leaked_videos, list_dataset
from distinit.pipeline.datasets.source import labelled_source
from distinit.pipeline.datasets.store import (
    dataset_store,
    flow_store_of,
    refuse_other_range,
    refuse_unusable,
    with_undecodable,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.records import read_record, write_record
from distinit.schemas.corpus import VideoFile
from distinit.schemas.dataset import DatasetRecord, DatasetVideo
from distinit.schemas.errors import DatasetError
from distinit.schemas.features import LabelledInput
from distinit.schemas.training import ClipConfig
from distinit.schemas.wording import counted, one_line

__all__ = ["LabelledVideos", "open_labelled"]

_RECORD_NAME = "dataset.json"


@dataclass(frozen=True, slots=True)
class LabelledVideos:
    """The videos of a labelled dataset, and the store that holds their frames or flow."""

    dataset: DatasetRecord
    store: FrameStore
    subset: Literal["train", "test"] | None = None
    """Whose features are wanted; None: those of all videos."""

    @property
    def decodable(self) -> list[DatasetVideo]:
        """The videos of the subset that are in the store, in the order of the dataset."""
        by_digest = self.store.by_digest
        videos = self.dataset.videos if self.subset is None else self.dataset.subset(self.subset)
        return [video for video in videos if video.digest in by_digest]


def open_labelled(
    config: LabelledInput, out: Path, channels: int, clip: ClipConfig, progress: Progress
) -> LabelledVideos:
    """List the dataset, and open its frame store (flow store for two ``channels``) or build it.

    The listing is kept in ``out``, so that a later call does not hash the videos again. Raises
    DatasetError, ConfigError, FrameStoreError, LockedError and StorageError as ``list_dataset``,
    ``dataset_store`` and ``flow_store_of``.
    """
    dataset = list_dataset(config.dataset, _known(out / _RECORD_NAME, progress))
    if leaks := leaked_videos(dataset):
        progress.message(
            "note: the training and test sets of this official split share "
            f"{counted(len(leaks), 'video')}, byte for byte, such as "
            f"{leaks[0]}"
        )
    write_record(dataset, out / _RECORD_NAME, indent=1)
    source = labelled_source(config.dataset)
    store = dataset_store(
        Path(config.frames or out / "frames"),
        source.root,
        dataset,
        clip.crop,
        progress,
        listed=source.listed,
    )
    if channels == 2:
        flow = Path(config.flow or out / "flow")
        refuse_other_range(flow, clip.flow_range)
        store = flow_store_of(store, flow, clip.flow_range, progress)
    dataset = with_undecodable(dataset, store)
    refuse_unusable(dataset)
    return LabelledVideos(dataset, store)


def _known(path: Path, progress: Progress) -> Mapping[str, VideoFile]:
    """The files that an earlier call has hashed."""
    if not path.is_file():
        return {}
    try:
        record = read_record(path, DatasetRecord, error=DatasetError, remedy="delete it")
    except DatasetError:
        progress.message(f"{one_line(path)} cannot be read: hashing all videos again")
        return {}
    return known_files(record)
