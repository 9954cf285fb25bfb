"""Where a reproduction reads and writes: the data folder, and the folders below its output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.schemas.reproduce import DatasetName

__all__ = ["Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """``data``: the videos, lists and weights. ``out``: everything that is written."""

    data: Path
    out: Path

    @property
    def cache(self) -> Path:
        """Target cache of the corpus, with all teachers."""
        return self.out / "cache"

    @property
    def frames(self) -> Path:
        """Frame store of the corpus."""
        return self.out / "frames"

    @property
    def flow(self) -> Path:
        """Flow store of the corpus."""
        return self.out / "flow"

    @property
    def corpus_list(self) -> Path:
        """The videos of the corpus that are listed and exist."""
        return self.out / "corpus.txt"

    @property
    def corpus_labels(self) -> Path:
        """Their labels, as a CSV with path,label,split."""
        return self.out / "corpus_labels.csv"

    def labelled_frames(self, dataset: DatasetName) -> Path:
        """Frame store of a labelled dataset."""
        return self.out / "labelled" / dataset

    def labelled_flow(self, dataset: DatasetName) -> Path:
        """Flow store of a labelled dataset."""
        return self.out / "labelled" / f"{dataset}-flow"

    def run(self, name: str) -> Path:
        """Run directory of a training run."""
        return self.out / "runs" / name
