"""Labels of videos, and how well a teacher's confidence agrees with them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from distinit.pipeline.audit.bins import COARSE_BINS, EntropyBins
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.pipeline.storage import read_bounded
from distinit.schemas.audit_labels import AccuracyBin, LabelAudit
from distinit.schemas.errors import DatasetError
from distinit.schemas.wording import first_names, reason_of

__all__ = [
    "FOLDERS",
    "LabelScan",
    "StoredLogits",
    "VideoLabels",
    "label_audit",
    "labels_of",
    "read_labels",
]

FOLDERS = "folders"
"""In place of a CSV: the label of a video is the name of its folder."""
CONFIDENCE_BINS = 15
_ENTROPY_BINS = 8
_MAX_BYTES = 256 << 20
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_MOST_FRAMES = 2_000_000  # of which the calibration error is computed; 10 MB
_FITTED_ROWS = 8_192  # of which the logits are read; 32 MB for 1,000 classes
_LOG_TEMPERATURES = (-3.0, 4.0)


def read_labels(source: str, paths: Sequence[str]) -> dict[str, str]:
    """path of a video -> its label, for the videos of a cache that have one.

    ``source`` is a CSV with the columns path and label, or FOLDERS. Raises DatasetError if the CSV
    cannot be read, contradicts itself, or names none of the videos.
    """
    if source == FOLDERS:
        parents = {path: PurePosixPath(path).parent.name for path in paths}
        found = {path: name for path, name in parents.items() if name}
    else:
        listed = _read_csv(Path(source))
        found = {path: listed[path] for path in paths if path in listed}
    if not found:
        raise DatasetError(
            f"{source} labels none of the videos of the cache",
            expected=f"paths as in videos.parquet, such as {first_names(paths, 2)}",
            remedy="write the paths relative to the folder that was extracted",
        )
    return found


def _read_csv(path: Path) -> dict[str, str]:
    try:
        text = read_bounded(path, _MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(
            f"cannot read the labels in {path}",
            expected="a CSV with the columns path and label, in UTF-8",
            found=reason_of(error),
            remedy=f"correct the file, or use --labels {FOLDERS}",
            named_input=True,
        ) from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        video, label = row.get("path"), row.get("label")
        if not video or not label or found.setdefault(video, label) != label:
            raise DatasetError(
                f"row {number} of {path} cannot be used",
                expected="a path and a label, and one label for each path",
                found=", ".join(str(value) for value in row.values())[:200],
                remedy="correct the row; the first row names the columns: path,label",
            )
    return found


@dataclass(frozen=True, slots=True)
class VideoLabels:
    """The labels of the videos of a cache in the label space of one teacher."""

    class_V: NDArray[np.int64]
    """Index of the class by position in videos.parquet, -1 without a label."""
    unknown: tuple[str, ...]
    """Labels that are not in the label space."""


def labels_of(
    label_of: Mapping[str, str], paths: Sequence[str], label_names: Sequence[str], classes: int
) -> VideoLabels:
    """Finds labels in a label space: a name, one of the synonyms in it, or the number of a class.

    Upper and lower case do not matter, nor do ``_`` and blanks.
    """
    index_of: dict[str, int] = {}
    for index, name in enumerate(label_names):
        for synonym in (name, *name.split(",")):
            index_of.setdefault(_plain(synonym), index)
    class_V = np.full(len(paths), -1, np.int64)
    unknown: dict[str, None] = {}
    for place, path in enumerate(paths):
        label = label_of.get(path)
        if label is None:
            continue
        index = index_of.get(_plain(label), -1)
        if index < 0 and _NUMBER.fullmatch(label) and int(label) < classes:
            index = int(label)
        class_V[place] = index
        if index < 0:
            unknown.setdefault(label)
    return VideoLabels(class_V, tuple(unknown))


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


class StoredLogits(Protocol):
    """What is needed of the stored targets of a teacher."""

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """Logits [M, C] of these rows of the cache."""


class LabelScan:
    """Accumulates the labelled frames of one teacher: at most _MOST_FRAMES, thinned evenly."""

    def __init__(self, labels: VideoLabels, classes: int) -> None:
        self.labels = labels
        self.bins = EntropyBins.of(classes)
        self.frames = 0
        self.correct_K = np.zeros((COARSE_BINS, 3))
        self.bin_B3 = np.zeros((CONFIDENCE_BINS, 3))
        """Frames, correct ones, and the sum of their confidence, by bin of confidence."""
        self._every = 1
        self._kept: list[NDArray[np.float32]] = []
        self.rows: list[NDArray[np.int64]] = []

    def add(self, rows: ConfidenceRows) -> None:
        """Count the labelled rows of one unit."""
        class_N = self.labels.class_V[rows.video_N]
        has_N = class_N >= 0
        if not has_N.any():
            return
        found = rows.taken(np.flatnonzero(has_N))
        share_M = np.minimum(found.top1_probability_N, np.float32(1))
        correct_M = (found.top1_class_N == class_N[has_N]).astype(np.float32)
        self.frames += len(correct_M)
        coarse_M = self.bins.bins_of(found.entropy_nats_N) // self.bins.merged
        place_M = np.clip(np.ceil(share_M * CONFIDENCE_BINS).astype(int) - 1, 0, None)
        for sums, at_M in ((self.correct_K, coarse_M), (self.bin_B3, place_M)):
            for column, weight_M in enumerate((np.ones_like(share_M), correct_M, share_M)):
                sums[:, column] += np.bincount(at_M, weight_M, len(sums))
        table = np.stack([share_M, correct_M, class_N[has_N].astype(np.float32)], axis=1)
        self._kept.append(table[:: self._every])
        self.rows.append(found.row_N[:: self._every])
        if sum(map(len, self._kept)) > _MOST_FRAMES:
            self._every *= 2
            self._kept = [np.concatenate(self._kept)[::2]]
            self.rows = [np.concatenate(self.rows)[::2]]

    def sample(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(confidence, correct, label) [M, 3] of the kept frames, and their rows [M]."""
        return np.concatenate(self._kept), np.concatenate(self.rows)


def label_audit(scan: LabelScan, targets: StoredLogits) -> LabelAudit | None:
    """The summary of one teacher; None if no frame has a label of its label space.

    Reads the logits of a bounded number of frames. Raises CacheCorruptError for damaged ones.
    """
    # Importing it takes a second, and most audits have no labels.
    from torchmetrics.functional.classification import binary_calibration_error

    if not scan.frames:
        return None
    table_M3, rows_M = scan.sample()
    share_M, correct_M = (torch.from_numpy(table_M3[:, i].copy()) for i in (0, 1))
    every = -(-len(rows_M) // _FITTED_ROWS)
    logits_KC = torch.from_numpy(targets.logits(rows_M[::every])).double()
    label_K = torch.from_numpy(table_M3[::every, 2].astype(np.int64))
    temperature = _fitted_temperature(logits_KC, label_K)
    width = scan.bins.step_nats * scan.bins.merged
    return LabelAudit(
        videos=int((scan.labels.class_V >= 0).sum()),
        frames=scan.frames,
        unknown_labels=scan.labels.unknown[:20],
        accuracy=float(scan.bin_B3[:, 1].sum()) / scan.frames,
        ece=float(binary_calibration_error(share_M, correct_M.int(), n_bins=CONFIDENCE_BINS)),
        ece_frames=len(share_M),
        temperature=temperature,
        temperature_frames=len(label_K),
        nll_nats=_nll_nats(logits_KC, label_K, 1.0),
        fitted_nll_nats=_nll_nats(logits_KC, label_K, temperature),
        by_confidence=_accuracy_bins(scan.bin_B3, 1 / CONFIDENCE_BINS),
        by_entropy=_accuracy_bins(
            scan.correct_K.reshape(_ENTROPY_BINS, -1, 3).sum(axis=1),
            width * COARSE_BINS / _ENTROPY_BINS,
        ),
    )


def _accuracy_bins(sums_B3: NDArray[np.float64], width: float) -> tuple[AccuracyBin, ...]:
    return tuple(
        AccuracyBin(
            low=place * width,
            high=(place + 1) * width,
            frames=int(frames),
            accuracy=correct / frames,
            confidence=min(1.0, share / frames),
        )
        for place, (frames, correct, share) in enumerate(sums_B3.tolist())
        if frames
    )


def _nll_nats(logits_KC: torch.Tensor, label_K: torch.Tensor, temperature: float) -> float:
    return float(torch.nn.functional.cross_entropy(logits_KC / temperature, label_K))


def _fitted_temperature(logits_KC: torch.Tensor, label_K: torch.Tensor) -> float:
    found = minimize_scalar(
        lambda log: _nll_nats(logits_KC, label_K, float(np.exp(log))),
        bounds=_LOG_TEMPERATURES,
        method="bounded",
    )
    return float(np.exp(found.x))
