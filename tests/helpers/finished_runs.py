"""Writes the records of finished finetune runs, without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distinit.pipeline.records import write_record
from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.dataset import DatasetRecord, DatasetVideo
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.run import EvaluationResult


def dataset_of(videos_C: Sequence[int], classes: Sequence[str] | None = None) -> DatasetRecord:
    """A dataset with ``videos_C`` test videos per class, and one training video of each."""
    names = tuple(classes or (f"class {c}" for c in range(len(videos_C))))
    videos = [
        DatasetVideo(
            path=f"{label}/{subset}{number}.avi",
            label=label,
            subset="train" if subset == "train" else "test",
            digest=f"{label:032x}{number + (subset == 'train') * 4096:032x}",
            size_bytes=1,
            mtime_ns=0,
        )
        for label, count in enumerate(videos_C)
        for subset, numbers in (("train", 1), ("test", count))
        for number in range(numbers)
    ]
    return DatasetRecord(kind="folders", classes=names, videos=tuple(videos))


def write_finished(
    root: Path,
    dataset: DatasetRecord,
    confusion: Sequence[Sequence[int]],
    protocol: str = "vmz-10",
    init: str = "scratch",
) -> Path:
    """Write run.json, dataset.json and result.json of a run with these predictions.

    ``init``: ``Init.digest()`` of what it began with.
    """
    config = FinetuneConfig.model_validate({"dataset": {"root": "d"}, "out": "o"})
    run = open_run(root, "finetune", config, {"dataset": dataset.content_digest(), "init": init})
    write_record(dataset, root / "dataset.json")
    count = len(dataset.subset("test"))
    top1 = 100 * int(np.trace(np.array(confusion))) / max(1, count)
    run.write_result(
        EvaluationResult(
            protocol=protocol,
            videos=count,
            clips=10 * count,
            per_clip=top1,
            top1=top1,
            top5=100,
            classes=len(dataset.classes),
            confusion=tuple(tuple(row) for row in confusion),
            failed_videos=(),
        )
    )
    return root
