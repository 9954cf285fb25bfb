"""Writes ``scores-PROTOCOL.parquet``: the logits of every clip that an evaluation scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.clips import parse_protocol
from distinit.pipeline.evaluation.scorer import ClipScores, Scoring
from distinit.pipeline.storage import atomic_path
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.evaluation import ScoredSubset, ScoresRecord
from distinit.schemas.tables import SCORES_SCHEMA

__all__ = [
    "LOGITS",
    "RECORD_KEY",
    "TEXTS",
    "ScoresWriter",
    "rows_per_group",
    "scores_name",
    "scores_record",
]

RECORD_KEY = b"distinit"
"""Key of the ScoresRecord (JSON) in the footer."""
LOGITS = "logits"
TEXTS = ("path", "video_id")

_MAX_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 4 << 20  # bytes of logits


def scores_name(protocol: str, subset: ScoredSubset = "test") -> str:
    """Name of the file in a run directory."""
    prefix = "" if subset == "test" else f"{subset}-"
    return f"scores-{prefix}{protocol}.parquet"


def scores_record(
    scoring: Scoring, dataset: DatasetRecord, *, student: str, pixels: str | None = None
) -> ScoresRecord:
    """The record of a file of scores.

    ``student``: sha256 of the tensor file; ``pixels``: ``pixels_digest`` of the frame store, if it
    is known.
    """
    return ScoresRecord(
        protocol=scoring.protocol,
        classes=len(dataset.classes),
        precision=scoring.precision,
        clip_frames=scoring.clip.frames,
        crop=scoring.clip.crop,
        student=student,
        dataset=dataset.content_digest(),
        pixels=pixels,
        versions={name: version(name) for name in ("distinit", "torch", "torchvision")},
    )


def rows_per_group(classes: int) -> int:
    """Largest number of rows in a row group: what a reader has to hold in memory."""
    return min(_MAX_GROUP_ROWS, max(1, _GROUP_BYTES // (4 * classes)))


class ScoresWriter:
    """Writes the scores of an evaluation; the file appears when ``create`` ends without errors."""

    def __init__(self, file: pq.ParquetWriter, classes: int, videos: Sequence[ScoredVideo]) -> None:
        self._file, self._videos = file, videos
        self._group_rows = rows_per_group(classes)
        self._parts: list[ClipScores] = []

    @classmethod
    @contextmanager
    def create(
        cls, path: Path, record: ScoresRecord, videos: Sequence[ScoredVideo]
    ) -> Iterator[Self]:
        """Yield a writer for the scores of ``videos``. Raises StorageError."""
        flat = [name for name in SCORES_SCHEMA.names if name != LOGITS]
        with (
            atomic_path(path) as partial,
            partial.open("wb") as opened,  # pyarrow takes paths such as ~a and a:b for others
            pq.ParquetWriter(
                opened,
                SCORES_SCHEMA,
                # Logits do not compress. Uncompressed, their size in memory is that in the file.
                compression=dict.fromkeys(flat, "zstd") | {f"{LOGITS}.list.element": "none"},
                use_dictionary=list(TEXTS),
                write_statistics=False,
                write_page_checksum=True,
                store_schema=False,
            ) as file,
        ):
            writer = cls(file, record.classes, videos)
            yield writer
            writer._finish(record)

    def append(self, scores: ClipScores) -> None:
        """Add clips, in order of the videos."""
        self._parts.append(scores)
        if sum(len(part.video_N) for part in self._parts) >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            scores = ClipScores.joined(self._parts)
            self._parts = []
            self._file.write_table(_table(scores, self._videos), self._group_rows)

    def _finish(self, record: ScoresRecord) -> None:
        self._flush()
        clips = parse_protocol(record.protocol).clips_of_failed
        failed = [
            {"path": video.path, "label": video.label, "weight": clips}
            for video in self._videos
            if video.video_id is None
        ]
        if failed:
            table = pa.Table.from_pylist(failed, schema=SCORES_SCHEMA)
            self._file.write_table(table, self._group_rows)
        self._file.add_key_value_metadata({RECORD_KEY: record.model_dump_json()})


def _table(scores: ClipScores, videos: Sequence[ScoredVideo]) -> pa.Table:
    rows = [videos[index] for index in scores.video_N.tolist()]
    count, classes = scores.logits_NC.shape
    offsets = np.arange(count + 1, dtype=np.int32) * classes
    element = SCORES_SCHEMA.field(LOGITS).type
    logits = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(scores.logits_NC.reshape(-1)), type=element
    )
    return pa.table(
        {
            "path": [row.path for row in rows],
            "video_id": [row.video_id for row in rows],
            "label": [row.label for row in rows],
            "start_frame": scores.start_N,
            "crop_top": scores.top_N,
            "crop_left": scores.left_N,
            "weight": scores.weight_N,
            LOGITS: logits,
        },
        schema=SCORES_SCHEMA,
    )
