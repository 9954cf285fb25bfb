"""Opens the frame store or flow store of a labelled dataset, or builds it from the videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distinit.pipeline.corpus.listing import list_files
from distinit.pipeline.datasets.listing import known_files
from distinit.pipeline.frames.build import build_store
from distinit.pipeline.frames.build_flow import build_flow_store, flow_spec
from distinit.pipeline.frames.commits import read_manifest
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import store_lock
from distinit.pipeline.progress import Progress
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError, DatasetError, FrameStoreError
from distinit.schemas.frames import FlowConfig, FlowSpec, FrameGeometry
from distinit.schemas.video import DecodeConfig
from distinit.schemas.wording import one_line, shell_line

__all__ = [
    "dataset_store",
    "flow_spec_of",
    "flow_store_of",
    "geometry_of",
    "is_finished",
    "refuse_other_range",
    "refuse_unusable",
    "with_undecodable",
]

_SHOWN = 5
_DEFAULT_HEIGHT = 128
_CROP_SHARE = 7 / 8  # crop / short edge, as 112 / 128


def geometry_of(frames: Path, crop: int) -> FrameGeometry:
    """The geometry of the frame store at ``frames``, or of the one that would be built there.

    A new store has VMZ's 128x171, or a larger short edge if ``crop`` needs it. Raises
    FrameStoreError if the frames of an existing store are smaller than the crop.
    """
    if not StoreLayout(frames).manifest.is_file():
        fits = crop <= _DEFAULT_HEIGHT
        short_edge = round(crop / _CROP_SHARE)
        return FrameGeometry() if fits else FrameGeometry(mode="short_edge", short_edge=short_edge)
    geometry = read_manifest(frames).geometry
    height, width = geometry.size_for(1, 1)
    if min(height, width) < crop:
        raise FrameStoreError(
            f"the frames in {frames} are smaller than the crop",
            expected=f"a short edge of at least {crop} pixels",
            found=f"{min(height, width)}",
            remedy="lower clip.crop, or choose another folder for --frames",
        )
    return geometry


def dataset_store(
    frames: Path,
    root: Path,
    dataset: DatasetRecord,
    crop: int,
    progress: Progress,
    *,
    listed: Sequence[str] = (),
) -> FrameStore:
    """Open the frame store at ``frames``, after building or completing it from the videos.

    A new store has the videos of ``dataset``, and all others that are ``listed`` and exist: with
    the videos of every official split, all splits share one store. Paths are relative to ``root``.
    While another process writes the store, wait for it. Raises FrameStoreError if a finished store
    lacks videos of the dataset or cannot be repaired, LockedError if a process on another host
    holds its lock, StorageError.
    """

    def build() -> FrameStore:
        own = [video.path for video in dataset.videos]
        others = [path for path in listed if (root / path).is_file()]
        paths = list(dict.fromkeys([*own, *others]))
        corpus = list_files(root, paths, known_files(dataset))
        return build_store(corpus, frames, geometry_of(frames, crop), DecodeConfig(), progress)

    store = _open_or_build(frames, build, progress)
    known = set(store.by_digest) | {video.digest for video in store.failed.values()}
    missing = [video.path for video in dataset.videos if video.digest not in known]
    if missing:
        raise FrameStoreError(
            f"the frame store {frames} lacks {len(missing)} of {len(dataset.videos)} videos",
            expected="every video of the dataset, identified by its bytes",
            found=f"missing: {', '.join(missing[:_SHOWN])}",
            remedy="build a store of all videos: distinit frames build --videos "
            f"{shell_line([str(root)])} --out DIR",
        )
    return store


def _open_or_build(folder: Path, build: Callable[[], FrameStore], progress: Progress) -> FrameStore:
    """Open the finished store at ``folder``; build it if it is missing, repair it if damaged.

    ``build`` runs while this process holds the store's lock, and only if no other process has
    built the store in the meantime.
    """
    damage: FrameStoreError | None = None
    if is_finished(folder):
        try:
            return FrameStore.open(folder)
        except FrameStoreError as error:
            damage = error
            progress.message(f"{one_line(error.problem)}: building the damaged units again")
    with store_lock(folder).waiting(progress.message):
        if damage is None and is_finished(folder):
            return FrameStore.open(folder)
        try:
            return build()
        except FrameStoreError as error:
            # A store that another command wrote cannot be repaired here: report its damage.
            raise (damage or error) from error


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` is a frame store whose writer has finished it. Raises FrameStoreError."""
    return StoreLayout(folder).manifest.is_file() and read_manifest(folder).units is not None


def refuse_other_range(folder: Path, flow_range: float) -> None:
    """Raise ConfigError if ``folder`` already holds a flow store with another range."""
    if not StoreLayout(folder).manifest.is_file():
        return
    flow = read_manifest(folder).flow
    if flow is not None and flow.flow_range != flow_range:
        raise ConfigError(
            f"the flow in {folder} has another range",
            expected=f"clip.flow_range {flow.flow_range:g}",
            found=f"clip.flow_range {flow_range:g}",
            remedy=f"add --set clip.flow_range={flow.flow_range:g}, or choose another folder "
            "for --flow",
        )


def flow_store_of(
    frames: FrameStore, folder: Path, flow_range: float, progress: Progress
) -> FrameStore:
    """Open the flow store of ``frames`` at ``folder``, after building or completing it.

    While another process writes the store, wait for it. Raises ConfigError if OpenCV is needed and
    missing, FrameStoreError if a finished store was not computed from these frames, StorageError.
    """
    config = _flow_config(frames.root, folder, flow_range)
    store = _open_or_build(folder, lambda: build_flow_store(config, progress), progress)
    missing = [digest for digest in frames.by_digest if digest not in store.by_digest]
    if missing or store.channels != 2:
        raise FrameStoreError(
            f"{folder} is not the flow of {frames.root}",
            expected=f"a flow store of the same {len(frames.videos)} videos",
            found=f"{store.channels} channels, {len(missing)} videos missing",
            remedy="choose another folder for --flow: the flow store is then built there",
        )
    return store


def flow_spec_of(frames: Path, folder: Path, flow_range: float) -> FlowSpec:
    """How the flow at ``folder`` was computed, or would be computed if the store is missing.

    The OpenCV version is part of it: another version gives other pixels. Raises ConfigError if
    OpenCV is needed and missing, FrameStoreError if the store cannot be read.
    """
    if StoreLayout(folder).manifest.is_file():
        flow = read_manifest(folder).flow
        if flow is not None:
            return flow
    return flow_spec(_flow_config(frames, folder, flow_range))


def _flow_config(frames: Path, folder: Path, flow_range: float) -> FlowConfig:
    return FlowConfig(frames=str(frames), out=str(folder), flow_range=flow_range)


def with_undecodable(dataset: DatasetRecord, store: FrameStore) -> DatasetRecord:
    """``dataset`` with the videos that are missing from ``store``, and the reason of each."""
    reasons = {video.digest: video.error for video in store.failed.values()}
    undecodable = {
        video.path: reasons[video.digest]
        for video in dataset.videos
        if video.digest not in store.by_digest
    }
    return dataset.model_copy(update={"undecodable": undecodable})


def refuse_unusable(dataset: DatasetRecord) -> None:
    """Raise DatasetError if none of a subset, or no training video of some class, can be decoded.

    The accuracy of such a run would be meaningless.
    """
    usable = [video for video in dataset.videos if video.path not in dataset.undecodable]
    trained = {video.label for video in usable if video.subset == "train"}
    untrained = [name for label, name in enumerate(dataset.classes) if label not in trained]
    if len(untrained) == len(dataset.classes):
        raise _undecodable("no training video could be decoded", dataset)
    if untrained:
        names = ", ".join(untrained[:_SHOWN]) + (" ..." if len(untrained) > _SHOWN else "")
        raise _undecodable(f"no training video of class {names} could be decoded", dataset)
    subsets = {video.subset for video in usable}
    for name in dict.fromkeys(("test", *(video.subset for video in dataset.videos))):
        if name not in subsets and dataset.subset(name):
            raise _undecodable(f"no {name} video could be decoded", dataset)


def _undecodable(problem: str, dataset: DatasetRecord) -> DatasetError:
    reasons = [f"{path}: {reason}" for path, reason in list(dataset.undecodable.items())[:3]]
    return DatasetError(
        problem,
        expected="videos of every class that can be decoded",
        found="\n".join(reasons),
        remedy="replace these videos, or leave the class out; then choose another --out",
    )
