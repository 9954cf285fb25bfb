"""Which of the files that a reproduction reads are on this machine. Nothing is written."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from distinit.pipeline.corpus.listing import find_videos
from distinit.pipeline.datasets.splits import read_splits
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.reproduction.step import Need
from distinit.pipeline.storage import read_bounded
from distinit.schemas.errors import ConfigError, CorpusError, DatasetError
from distinit.schemas.reproduce import (
    Absent,
    CorpusSource,
    DatasetName,
    DatasetSource,
    ScaleConfig,
)
from distinit.schemas.wording import first_names, shown

__all__ = ["CorpusListing", "Found", "find_input", "find_inputs", "read_corpus_listing"]

_MAX_LIST_BYTES = 256 << 20
_NO_VIDEOS = "no videos"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the place of an input."""

    problem: str = ""
    """Why it cannot be used; empty if it can."""
    note: str = ""
    videos: int | None = None
    """Number of videos, for a folder of videos."""


@dataclass(frozen=True, slots=True)
class CorpusListing:
    """The training videos that the list of a corpus names."""

    present: tuple[tuple[str, str], ...]
    """(path, label) of those that exist, sorted by path."""
    missing: tuple[str, ...]


def find_inputs(reproduction: Reproduction) -> dict[Need, Found]:
    """Look for everything that some step reads; nothing if the command makes its own data."""
    scale, data = reproduction.scale, reproduction.layout.data
    if scale.make_data is not None:
        return {}
    needs = dict.fromkeys(need for step in reproduction.steps.values() for need in step.needs)
    return {need: find_input(need, scale, data) for need in needs}


def find_input(need: Need, scale: ScaleConfig, data: Path) -> Found:
    """Look for one input below the folder ``data``."""
    if need.kind == "module":
        return Found() if _is_importable(need.path) else Found("no such module: set PYTHONPATH")
    path = data / need.path
    if need.kind in ("weights", "labels"):
        return Found() if path.is_file() else Found("no such file")
    if need.kind == "corpus":
        return _find_corpus(scale.corpus, data)
    source = _dataset_of(need, scale.datasets)
    return _find_splits(path, source) if need.kind == "splits" else _find_dataset(source, data)


def _is_importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def read_corpus_listing(file: Path, root: Path) -> CorpusListing:
    """Read the list of a corpus: a CSV with path,label,split and paths below ``root``.

    Only rows of split ``train`` are part of the corpus. Raises ConfigError if it is malformed.
    """
    present, missing = [], []
    for number, row in enumerate(_rows(file), start=2):
        path = Path(row["path"])
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise _malformed(file, f"line {number}: {shown(row['path'])}", "paths below its folder")
        if row["split"] != "train":
            continue
        if (root / path).is_file():
            present.append((path.as_posix(), row["label"]))
        else:
            missing.append(path.as_posix())
    return CorpusListing(tuple(sorted(set(present))), tuple(sorted(set(missing))))


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        text = read_bounded(file, _MAX_LIST_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(text.splitlines(), strict=True)
        columns = {"path", "label", "split"} - set(reader.fieldnames or ())
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise _malformed(file, str(error), "UTF-8 text") from error
    if columns:
        raise _malformed(file, f"no column {', '.join(sorted(columns))}", "path,label,split")
    return rows


def _malformed(file: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"the list {file} cannot be used",
        expected=f"a CSV with {expected}",
        found=found,
        remedy="correct it, or remove it to use all videos of the folder",
    )


def _dataset_of(
    need: Need, datasets: Mapping[DatasetName, DatasetSource | Absent]
) -> DatasetSource:
    known = (d for d in datasets.values() if isinstance(d, DatasetSource))
    return next(d for d in known if need.path in (d.root, d.splits))


def _find_corpus(corpus: CorpusSource, data: Path) -> Found:
    listing = None if corpus.listing is None else data / corpus.listing
    if listing is None or not listing.is_file():
        count = _count_videos(data / corpus.root)
        return Found(videos=count) if count else Found(_NO_VIDEOS)
    try:
        found = read_corpus_listing(listing, data / corpus.root)
    except ConfigError as error:
        return Found(f"{error.problem}: {error.found}")
    if not found.present:
        return Found(f"none of the {len(found.missing):,} listed videos")
    left_out = f"{len(found.missing):,} listed videos are missing and left out: "
    note = left_out + first_names(found.missing) if found.missing else ""
    return Found(note=note, videos=len(found.present))


def _find_splits(path: Path, source: DatasetSource) -> Found:
    try:
        videos = {v.path for k in source.all_splits for v in read_splits(path, k).videos}
    except DatasetError as error:
        return Found(error.problem if path.exists() else "no such folder")
    return Found(note=f"{len(videos):,} videos listed")


def _find_dataset(source: DatasetSource, data: Path) -> Found:
    root = data / source.root
    count = _count_videos(root)
    if not count:
        return Found(_NO_VIDEOS)
    if source.splits is None:
        return Found(videos=count)
    try:
        lists = [read_splits(data / source.splits, split) for split in source.all_splits]
    except DatasetError:
        return Found(videos=count)  # the lists are an input of their own
    listed = sorted({video.path for split in lists for video in split.videos})
    missing = [path for path in listed if not (root / path).is_file()]
    if missing:
        total = f"{len(missing):,} of {len(listed):,} listed videos are missing"
        return Found(f"{total}: {first_names(missing)}")
    return Found(videos=count)


def _count_videos(root: Path) -> int:
    try:
        return len(find_videos(str(root)).paths) if root.is_dir() else 0
    except CorpusError:
        return 0
