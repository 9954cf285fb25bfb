"""Measures inits on frozen features, beside random weights and the teacher's own outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distinit.pipeline.compute.device import resolve_device
from distinit.pipeline.datasets.labelled import LabelledVideos, open_labelled
from distinit.pipeline.frozen.measures import FrozenFeatures, measure, steps_of
from distinit.pipeline.frozen.subsets import held_out
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.records import write_record
from distinit.pipeline.reports.probe_picture import draw_probe
from distinit.pipeline.reports.probe_tables import csv_table, markdown_page
from distinit.pipeline.storage import atomic_write_bytes, refuse_links, remove_dead_partials
from distinit.schemas.dataset import DatasetVideo
from distinit.schemas.probe import ProbeConfig, ProbeResult, ProbeRow
from distinit.stages.probe_rows import (
    ProbedStudent,
    RowFeatures,
    probed_students,
    probed_teachers,
)

__all__ = ["probe"]


def probe(config: ProbeConfig, *, progress: Progress | None = None) -> ProbeResult:
    """Measure all rows, and write ``probe.json``, ``.md``, ``.csv`` and ``.png`` to ``config.out``.

    A killed probe resumes with the features that it has stored. Raises ConfigError, DatasetError,
    CheckpointError, WeightsError and CacheError before any work; FrameStoreError, StorageError,
    LockedError, ComputeError and FeaturesError.
    """
    progress = progress or NullProgress()
    out = Path(config.out)
    refuse_inside_data(out)
    refuse_links(out)
    remove_dead_partials(out)
    students, teachers = probed_students(config), probed_teachers(config)
    networks = [source for source in students if isinstance(source, ProbedStudent)]
    widest = max((source.clip for source in networks), key=lambda clip: clip.crop)
    channels = networks[0].init.student.in_channels
    labelled = open_labelled(config, out, channels, widest, progress)
    if not labelled.dataset.subset("test"):
        progress.message("note: the dataset has no test videos: its val videos are the test set")
    rows = []
    for source in (*students, *teachers):
        if isinstance(source, ProbeRow):
            rows.append(source)
            continue
        features = source.features(labelled, config, progress)
        rows.append(_measured(features, labelled, config, progress))
    result = _result(config, labelled, rows)
    for name, data in (
        ("table", csv_table(result).encode()),
        ("page", markdown_page(result).encode()),
        ("picture", draw_probe(result)),
    ):
        atomic_write_bytes(Path(result.files[name]), data)
    write_record(result, out / "probe.json")  # last: the files that it names exist
    return result


def _measured(
    features: RowFeatures, labelled: LabelledVideos, config: ProbeConfig, progress: Progress
) -> ProbeRow:
    frozen = _frozen(features, labelled, config)
    progress.start(f"probe {features.row.name}", steps_of(config), "steps")
    measures = measure(frozen, config, progress.advance)
    progress.finish()
    return features.row.model_copy(update={"measures": measures})


def _frozen(features: RowFeatures, labelled: LabelledVideos, config: ProbeConfig) -> FrozenFeatures:
    """The training and test videos that have features, on the configured device."""
    device = resolve_device(config.device)
    videos = labelled.decodable
    label_N = torch.tensor([video.label for video in videos])
    scored = labelled.dataset.final_subset
    train_N, test_N = (
        features.exists_N & torch.tensor([video.subset == subset for video in videos])
        for subset in ("train", scored)
    )
    return FrozenFeatures(
        train_ND=features.feature_ND[train_N].to(device),
        train_label_N=label_N[train_N].to(device),
        held_out_N=_held_out(videos)[train_N.numpy()],
        test_MD=features.feature_ND[test_N].to(device),
        test_label_M=label_N[test_N].to(device),
        test_videos=len(labelled.dataset.subset(scored)),
        classes=len(labelled.dataset.classes),
    )


def _held_out(videos: Sequence[DatasetVideo]) -> NDArray[np.bool_]:
    """Which videos [N] settings are chosen on; only training videos."""
    held_N = np.zeros(len(videos), np.bool_)
    train = [number for number, video in enumerate(videos) if video.subset == "train"]
    paths = [videos[number].path for number in train]
    held_N[train] = held_out(paths, np.array([videos[number].label for number in train]))
    return held_N


def _result(config: ProbeConfig, labelled: LabelledVideos, rows: Sequence[ProbeRow]) -> ProbeResult:
    dataset, videos = labelled.dataset, labelled.decodable
    trained = Counter(video.label for video in videos if video.subset == "train")
    names = dataset.classes
    short = {
        str(shots): tuple(n for label, n in enumerate(names) if trained[label] < shots)
        for shots in config.shots
    }
    out = Path(config.out)
    files = {"table": "probe.csv", "page": "probe.md", "picture": "probe.png"}
    return ProbeResult(
        dataset=dataset.kind,
        dataset_digest=dataset.content_digest(),
        protocol=config.evaluation.protocol,
        classes=len(names),
        train_videos=trained.total(),
        test_videos=len(dataset.subset(dataset.final_subset)),
        undecodable=tuple(dataset.undecodable),
        chance=100 / len(names),
        held_out_videos=int(_held_out(videos).sum()),
        short_classes=short,
        rows=tuple(rows),
        files={kind: str(out / name) for kind, name in files.items()},
    )
