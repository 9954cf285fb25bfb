"""Where the videos of a labelled dataset are, and what labels them: folders, lists or one CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.datasets.splits import (
    SplitLists,
    listed_paths,
    read_label_list,
    read_splits,
)
from distinit.schemas.errors import DatasetError
from distinit.schemas.finetune import DatasetConfig

__all__ = ["LabelledSource", "labelled_source"]


@dataclass(frozen=True, slots=True)
class LabelledSource:
    """Paths of videos are relative to ``root``. ``lists`` is None if subset folders label them."""

    root: Path
    lists: Path | None
    is_list: bool
    """The dataset is named by its CSV, which may have absolute paths and ``..``."""

    @property
    def name(self) -> Path:
        """What messages call the labels: the lists, or the folder."""
        return self.root if self.lists is None else self.lists

    @property
    def listed(self) -> tuple[str, ...]:
        """Paths of the videos in any official split; see ``listed_paths``."""
        return () if self.lists is None else listed_paths(self.lists)

    def read(self, split: int) -> SplitLists | None:
        """The videos and labels of ``lists``; None without lists. Raises DatasetError."""
        if self.lists is None:
            return None
        return read_label_list(self.lists) if self.is_list else read_splits(self.lists, split)


def labelled_source(config: DatasetConfig) -> LabelledSource:
    """The source that ``config`` names: a folder, with lists or without, or a CSV file.

    Raises DatasetError if there is neither a folder nor a CSV file at ``config.root``, or if it
    is a CSV file that comes with other lists.
    """
    path = Path(config.root)
    lists = None if config.splits is None else Path(config.splits)
    is_csv = path.suffix.lower() == ".csv" and path.is_file()
    if is_csv and lists is not None:
        raise DatasetError(
            f"--dataset {path} already says which videos are for training",
            expected="a CSV with path,label,split alone, or a folder of videos with --splits",
            found=f"--splits {lists}",
            remedy="leave out --splits, or set --dataset to the folder of the videos",
        )
    if is_csv:
        return LabelledSource(path.parent, path, is_list=True)
    if not path.is_dir():
        raise DatasetError(
            f"no dataset at {path}",
            expected="a folder of class folders with videos, or a .csv with path,label,split",
            found="a file" if path.exists() else "nothing at that path",
            remedy="check --dataset",
        )
    return LabelledSource(path, lists, is_list=False)
