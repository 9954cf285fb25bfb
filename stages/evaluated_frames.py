"""Finds the frames that a finetune run is evaluated on, or builds them from its dataset.

A run may have been received from someone else: a folder that only its ``run.json`` names is not
opened, unless it lies in the run or in one of the two folders above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distinit.pipeline.datasets.same_dataset import refuse_other_split, refuse_other_tests_in
from distinit.pipeline.datasets.source import labelled_source
from distinit.pipeline.datasets.store import (
    dataset_store,
    flow_spec_of,
    flow_store_of,
    geometry_of,
    is_finished,
)
from distinit.pipeline.frames.commits import read_manifest
from distinit.pipeline.frames.layout import StoreLayout
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.finetune import DatasetConfig, EvaluateConfig, FinetuneConfig
from distinit.schemas.run import RunRecord, StudentRecord
from distinit.schemas.wording import one_line

__all__ = ["check_dataset", "evaluated_store"]


def check_dataset(
    config: EvaluateConfig, run_config: FinetuneConfig, dataset: DatasetRecord
) -> None:
    """Raise ConfigError or DatasetError unless ``config.dataset`` has the run's test videos.

    Without a folder only the number of the split is checked: the videos are not needed then.
    """
    if config.dataset is None:
        return
    split = config.dataset.split or run_config.dataset.split
    refuse_other_split(split, run_config.dataset.split, config.run)
    if config.dataset.root is not None:
        named = DatasetConfig(root=config.dataset.root, splits=config.dataset.splits, split=split)
        refuse_other_tests_in(named, dataset)


def evaluated_store(
    config: EvaluateConfig,
    record: RunRecord,
    run_config: FinetuneConfig,
    student: StudentRecord,
    dataset: DatasetRecord,
    progress: Progress,
) -> FrameStore:
    """Open the frame store (or flow store) of the test videos.

    With the folder of ``config.dataset`` a missing store is built from its test videos. Raises
    ConfigError if the store is elsewhere and not named, or if a store built here would have other
    pixels than the run's; FrameStoreError, LockedError, StorageError.
    """
    run, is_flow = Path(config.run), student.student.in_channels == 2
    store = _folder_of_store(config, record, run_config, is_flow)
    if config.videos is None or is_finished(store):
        return FrameStore.open(store)
    root = labelled_source(DatasetConfig(root=config.videos)).root
    tests = _tests_of(dataset)
    frames = run / "frames" if is_flow else store
    _refuse_other_geometry(run, record, frames, student.clip.crop)
    if not is_flow:
        return dataset_store(frames, root, tests, student.clip.crop, progress)
    spec = flow_spec_of(frames, store, student.clip.flow_range)
    if record.inputs.get("flow") != spec.record_digest():
        raise _other_pixels(run, "the flow", f"OpenCV {spec.opencv}")
    rgb = dataset_store(frames, root, tests, student.clip.crop, progress)
    return flow_store_of(rgb, store, student.clip.flow_range, progress)


def _folder_of_store(
    config: EvaluateConfig, record: RunRecord, run_config: FinetuneConfig, is_flow: bool
) -> Path:
    named, default = (run_config.flow, "flow") if is_flow else (run_config.frames, "frames")
    run = Path(config.run)
    if config.frames is not None:
        return Path(config.frames)
    if named is None:
        return run / default
    recorded = _recorded_store(run, Path(named), record)
    if recorded is None and config.videos is None:
        raise _elsewhere(run, named)
    return recorded or run / default


def _recorded_store(run: Path, named: Path, record: RunRecord) -> Path | None:
    """The store that ``run.json`` names, where it may be opened; None if there is none.

    It may be where it was, if that is near the run, or have been moved together with the run: then
    it has the same name, and frames of the same geometry. Its videos are checked by their digests.
    """
    root, store = run.resolve(), named.resolve()
    if root in store.parents:
        return store
    for folder in _near(root):
        if store.parent == folder and _is_store(store):
            return store
    for folder in _near(root):
        moved = folder / store.name
        if _is_store(moved) and not moved.is_symlink() and _has_pixels_of(record, moved):
            return moved
    return None


def _near(root: Path) -> Iterator[Path]:
    yield from (root, root.parent, root.parent.parent)


def _is_store(folder: Path) -> bool:
    return StoreLayout(folder).manifest.is_file()


def _has_pixels_of(record: RunRecord, store: Path) -> bool:
    """Whether ``store`` has the geometry, or the flow, of the store that the run used."""
    try:
        manifest = read_manifest(store)
    except FrameStoreError:
        return False
    if manifest.flow is not None:
        return manifest.flow.record_digest() == record.inputs.get("flow")
    return manifest.geometry.record_digest() == record.inputs.get("geometry")


def _tests_of(dataset: DatasetRecord) -> DatasetRecord:
    videos = (*dataset.subset("test"), *dataset.subset("val"))
    return dataset.model_copy(update={"videos": videos})


def _refuse_other_geometry(run: Path, record: RunRecord, frames: Path, crop: int) -> None:
    geometry = geometry_of(frames, crop)
    if record.inputs.get("geometry") != geometry.record_digest():
        raise _other_pixels(run, "the frames", f"{geometry.mode}, which would be built")


def _elsewhere(run: Path, named: str) -> ConfigError:
    return ConfigError(
        f"{run} was trained with a frame store elsewhere, which is only opened if you name it",
        expected="--frames DIR, or a frame store in the run or up to two folders above it",
        found=f"{named} in run.json",
        remedy="add --frames with that folder, if you trust it, or --dataset with the videos",
    )


def _other_pixels(run: Path, what: str, found: str) -> ConfigError:
    return ConfigError(
        f"{what} of the test videos would differ from those that {one_line(run)} was trained on",
        expected="frames of the size and quality, or flow of the OpenCV version, of the training",
        found=found,
        remedy="build the store as it was built for the training (`distinit frames build`, "
        "`distinit flow build`), and name it with --frames",
    )
