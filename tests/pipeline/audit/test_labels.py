"""Labels find their class; accuracy, calibration error and temperature are exact or known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distinit.pipeline.audit.labels import LabelScan, label_audit, labels_of, read_labels
from distinit.pipeline.audit.units import ConfidenceRows
from distinit.schemas.errors import DatasetError

NAMES = ("tench, Tinca tinca", "great_white shark", "cock")


class Logits:
    """Stands in for stored targets: logits by row."""

    def __init__(self, logits_NC: np.ndarray) -> None:
        self.logits_NC = logits_NC

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return self.logits_NC[rows]


def test_labels_are_names_synonyms_or_numbers() -> None:
    labels = {"a": "Tinca  tinca", "b": "Great White Shark", "c": "2", "d": "dragon", "e": "3"}
    found = labels_of(labels, ["a", "b", "c", "d", "e", "f"], NAMES, 3)
    assert found.class_V.tolist() == [0, 1, 2, -1, -1, -1]
    assert found.unknown == ("dragon", "3")


def test_folders_and_csv_label_videos(tmp_path: Path) -> None:
    paths = ["cock/1.mp4", "x/tench/2.mp4", "3.mp4"]
    assert read_labels("folders", paths) == {"cock/1.mp4": "cock", "x/tench/2.mp4": "tench"}
    csv = tmp_path / "labels.csv"
    csv.write_text('\ufeffpath,label\n3.mp4,"a, b"\nother.mp4,c\n')
    assert read_labels(str(csv), paths) == {"3.mp4": "a, b"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path,label\nother.mp4,c\n", "labels none of the videos"),
        ("video,class\n3.mp4,c\n", "row 2"),
        ("path,label\n3.mp4\n", "row 2"),
        ("path,label\n3.mp4,a\n3.mp4,b\n", "row 3"),
        ('path,label\n3.mp4,"a\n', "cannot read the labels"),
        (None, "cannot read the labels"),
    ],
)
def test_unusable_labels_are_refused(text: str | None, problem: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DatasetError, match=problem):
        read_labels(str(tmp_path / "labels.csv"), ["3.mp4"])


def test_calibration_of_a_teacher_that_is_twice_too_sure() -> None:
    rng = np.random.default_rng(0)
    count, classes = 4000, 10
    honest_NC = rng.normal(0, 1.5, (count, classes))
    share_NC = torch.softmax(torch.from_numpy(honest_NC), 1).numpy()
    label_N = (share_NC.cumsum(axis=1) > rng.random((count, 1))).argmax(axis=1)
    stored_NC = (2 * honest_NC).astype(np.float32)
    stored_share_NC = torch.softmax(torch.from_numpy(stored_NC), 1).numpy()
    entropy_N = -(stored_share_NC * np.log(np.maximum(stored_share_NC, 1e-30))).sum(axis=1)
    names = [f"class {index}" for index in range(classes)]
    paths = [f"{video}" for video in range(count)]
    labels = labels_of(dict(zip(paths, label_N.astype(str), strict=True)), paths, names, classes)
    scan = LabelScan(labels, classes)
    top1_N = stored_share_NC.argmax(axis=1)
    top_share_N = stored_share_NC.max(axis=1).astype(np.float32)
    order = np.arange(count)
    scan.add(
        ConfidenceRows(
            order,
            order,
            0 * order,
            entropy_N.astype(np.float32),
            top1_N.astype(np.int32),
            top_share_N,
        )
    )
    found = label_audit(scan, Logits(stored_NC))
    assert found is not None
    assert (found.frames, found.videos, found.ece_frames) == (count, count, count)
    assert found.accuracy == (top1_N == label_N).mean()
    assert found.temperature == pytest.approx(2, abs=0.15)
    assert found.fitted_nll_nats < found.nll_nats
    by_hand = sum(abs(b.accuracy - b.confidence) * b.frames for b in found.by_confidence) / count
    assert found.ece == pytest.approx(by_hand, abs=1e-5)
    assert sum(b.frames for b in found.by_entropy) == count
    accuracies = [b.accuracy for b in found.by_entropy]
    assert accuracies == sorted(accuracies, reverse=True)


def test_without_a_known_label_there_is_no_summary() -> None:
    labels = labels_of({"a": "dragon"}, ["a"], NAMES, 3)
    assert label_audit(LabelScan(labels, 3), Logits(np.zeros((1, 3)))) is None
