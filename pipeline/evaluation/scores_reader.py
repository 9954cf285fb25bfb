"""Reads ``scores-PROTOCOL.parquet`` and computes metrics from it, without network and frames.

The file may come from someone else: sizes are checked before memory is allocated, and the rows are
compared with the dataset of the run.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distinit.pipeline.cache.parquet_bounds import plain_texts
from distinit.pipeline.cache.parquet_pages import column_pages
from distinit.pipeline.evaluation.clips import parse_protocol
from distinit.pipeline.evaluation.metrics import ScoreBoard, clip_scores
from distinit.pipeline.evaluation.scorer import ClipScores
from distinit.pipeline.evaluation.scores_file import (
    LOGITS,
    RECORD_KEY,
    TEXTS,
    rows_per_group,
    scores_name,
)
from distinit.pipeline.records import parse_json
from distinit.pipeline.storage import open_regular
from distinit.schemas.errors import ConfigError, StorageError
from distinit.schemas.evaluation import Average, ScoresRecord
from distinit.schemas.run import EvaluationResult
from distinit.schemas.tables import SCORES_SCHEMA

__all__ = ["ScoresFile", "correct_videos", "evaluate_scores"]

_MAX_FILE_BYTES = 64 << 30
_MAX_PAGE_BYTES = 16 << 20
_FREE_BYTES, _TEXT_BYTES = 1 << 20, 512  # uncompressed, of a column; and per row, of strings
_THRIFT_LIMIT = 1 << 20  # bytes per string, and entries per list, of a footer
_PLACE = ("start_frame", "crop_top", "crop_left")


class LabelledVideo(Protocol):
    """A test video."""

    @property
    def path(self) -> str:
        """Relative to the dataset."""

    @property
    def label(self) -> int:
        """Index of its class."""


def evaluate_scores(
    path: Path,
    videos: Sequence[LabelledVideo],
    undecodable: Container[str],
    average: Average,
    expected: ScoresRecord,
) -> EvaluationResult:
    """The metrics over ``videos``, which must be the videos of the file, from its scores.

    ``undecodable``: paths of the videos that the file may list as such. ``expected``: what the file
    must be made from; ``pixels``, ``precision`` and ``versions`` are not compared.

    Raises ConfigError if the file is missing or made from something else, StorageError if it is
    damaged or not complete.
    """
    with ScoresFile.open(path) as file:
        _refuse_other(path, file.record, expected)
        record = file.record
        board = _board(file, videos, undecodable, average)
        failed = [videos[index].path for index in sorted(file.failed)]
        return board.result(record.protocol, failed, record.precision)


def correct_videos(
    path: Path,
    videos: Sequence[LabelledVideo],
    undecodable: Container[str],
    average: Average,
    *,
    dataset: str,
) -> NDArray[np.bool_]:
    """Whether each of ``videos`` is classified correctly: [V]. ``dataset``: its content digest.

    Raises ConfigError if the file is missing or holds the scores of another dataset, StorageError
    if it is damaged or not complete.
    """
    with ScoresFile.open(path) as file:
        _refuse_other(path, file.record, file.record.model_copy(update={"dataset": dataset}))
        return _board(file, videos, undecodable, average).correct_videos()


def _board(
    file: ScoresFile, videos: Sequence[LabelledVideo], undecodable: Container[str], average: Average
) -> ScoreBoard:
    board = ScoreBoard([video.label for video in videos], file.record.classes, average)
    for part in file.parts(videos, undecodable):
        board.add(part.video_N, part.weight_N, clip_scores(part.logits_NC, average))
    board.add_failed(len(file.failed), file.record.protocol)
    return board


class ScoresFile:
    """An open file of scores."""

    def __init__(self, path: Path, file: pq.ParquetFile, record: ScoresRecord) -> None:
        self.record = record
        self.failed: set[int] = set()
        """Indices of the videos that could not be decoded; known when ``parts`` has ended."""
        self._path, self._file = path, file

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open a file, and check its sizes. Raises ConfigError if it is missing, StorageError."""
        with ExitStack() as stack:
            with _as_damaged(path):
                try:
                    source = stack.enter_context(os.fdopen(open_regular(path), "rb"))
                except FileNotFoundError as error:
                    raise _missing(path) from error
                file = stack.enter_context(_open_parquet(source))
                record = _checked_record(source, file)
            yield cls(path, file, record)

    def parts(
        self, videos: Sequence[LabelledVideo], undecodable: Container[str]
    ) -> Iterator[ClipScores]:
        """Yield all scores, a few rows at a time.

        Raises StorageError if the rows are not those of an evaluation of exactly these videos.
        """
        with _as_damaged(self._path):
            check = _RowCheck(self.record, videos, undecodable)
            for group in range(self._file.num_row_groups):
                table = self._file.read_row_group(group, use_threads=False)
                texts = pa.schema([SCORES_SCHEMA.field(name) for name in TEXTS])
                plain = plain_texts(table.select(TEXTS), texts, 0)
                part = check.next(plain, table)
                if len(part.video_N):
                    yield part
            self.failed = check.finish()


@contextmanager
def _as_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, OverflowError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(
            f"cannot read the scores {path}",
            expected="the complete scores of an evaluation of this run",
            found=str(reason).splitlines()[0][:200],
            remedy="evaluate again without --from-scores",
        ) from error


def _missing(path: Path) -> ConfigError:
    stored = sorted(other.name for other in path.parent.glob(scores_name("*")))
    return ConfigError(
        f"{path} does not exist",
        expected="the scores of an evaluation with this protocol",
        found=", ".join(stored) or "no scores at all",
        remedy="choose a --protocol that has scores, or evaluate without --from-scores first",
    )


def _open_parquet(source: BinaryIO) -> pq.ParquetFile:
    size = os.fstat(source.fileno()).st_size
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"a file of {size} bytes")
    return pq.ParquetFile(
        source,
        read_dictionary=list(TEXTS),
        thrift_string_size_limit=_THRIFT_LIMIT,
        thrift_container_size_limit=_THRIFT_LIMIT,
        page_checksum_verification=True,
    )


def _checked_record(source: BinaryIO, file: pq.ParquetFile) -> ScoresRecord:
    """The record in the footer. Raises ValueError for a file of another format or size."""
    raw = parse_json((file.metadata.metadata or {}).get(RECORD_KEY, b"null"))
    if not isinstance(raw, dict):
        raise ValueError("no record in the footer")
    record = ScoresRecord.model_validate(raw, strict=True)
    if not file.schema.to_arrow_schema().equals(SCORES_SCHEMA, check_metadata=False):
        raise ValueError(f"other columns: {', '.join(file.schema.names)}")
    for pages in column_pages(source, file.metadata):
        rows, name = pages.rows, pages.name.partition(".")[0]
        values = rows * record.classes if name == LOGITS else rows
        limit_bytes = _FREE_BYTES + (_TEXT_BYTES * rows if name in TEXTS else 12 * values)
        if not 0 < rows <= rows_per_group(record.classes):
            raise ValueError(f"a row group of {rows} rows")
        if (
            pages.values > values
            or pages.uncompressed_bytes > limit_bytes
            or pages.largest_page_bytes > _MAX_PAGE_BYTES
        ):
            raise ValueError(f"column {name} has {pages.values} values in {rows} rows")
    return record


def _refuse_other(path: Path, found: ScoresRecord, expected: ScoresRecord) -> None:
    names = ("protocol", "classes", "clip_frames", "crop", "student", "dataset")
    other = [name for name in names if getattr(found, name) != getattr(expected, name)]
    if other:
        raise ConfigError(
            f"{path} holds the scores of another evaluation",
            expected=", ".join(f"{name} {getattr(expected, name)}" for name in other),
            found=", ".join(f"{name} {getattr(found, name)}" for name in other),
            remedy="evaluate again without --from-scores",
        )


class _RowCheck:
    """Checks rows in their order, and finds the videos that they belong to."""

    def __init__(
        self,
        record: ScoresRecord,
        videos: Sequence[LabelledVideo],
        undecodable: Container[str],
    ) -> None:
        self._classes, self._protocol = record.classes, parse_protocol(record.protocol)
        self._videos, self._undecodable = videos, undecodable
        self._index_of = {video.path: index for index, video in enumerate(videos)}
        self._weight_V = np.zeros(len(videos), np.int64)
        self._failed: set[int] = set()
        self._last = (-1, 0, 0, 0)

    def next(self, texts: pa.Table, table: pa.Table) -> ClipScores:
        """The decoded clips among the next rows. Raises ValueError, KeyError."""
        video_R = np.array([self._index_of[path] for path in texts["path"].to_pylist()], np.int64)
        label_R = np.array([self._videos[index].label for index in video_R.tolist()])
        if not np.array_equal(label_R, table["label"].to_numpy()):
            raise ValueError("a label that differs from that of the dataset")
        decoded_R = texts["video_id"].is_valid().to_numpy()
        for name in (*_PLACE, LOGITS):
            if not np.array_equal(table[name].is_valid().to_numpy(), decoded_R):
                raise ValueError(f"column {name} disagrees on which videos could be decoded")
        weight_R = table["weight"].to_numpy().astype(np.int64)
        self._add_failed(video_R[~decoded_R], weight_R[~decoded_R])
        clips = table.filter(pa.array(decoded_R))
        start_N, top_N, left_N = (clips[name].to_numpy().astype(np.int64) for name in _PLACE)
        part = ClipScores(
            video_R[decoded_R], start_N, top_N, left_N, weight_R[decoded_R], self._logits(clips)
        )
        self._add_clips(part)
        return part

    def _logits(self, clips: pa.Table) -> np.ndarray:
        lists = clips[LOGITS].combine_chunks()
        lengths = np.diff(lists.offsets.to_numpy())
        logits_NC: np.ndarray = lists.flatten().to_numpy()
        if (lengths != self._classes).any() or not np.isfinite(logits_NC).all():
            raise ValueError(f"a row without {self._classes} finite logits")
        return logits_NC.reshape(-1, self._classes)

    def _add_failed(self, video_N: np.ndarray, weight_N: np.ndarray) -> None:
        for index, weight in zip(video_N.tolist(), weight_N.tolist(), strict=True):
            path = self._videos[index].path
            if index in self._failed or weight != self._protocol.clips_of_failed:
                raise ValueError(f"the row of {path} is not valid")
            if path not in self._undecodable:
                raise ValueError(f"no scores of {path}, which could be decoded")
            self._failed.add(index)

    def _add_clips(self, part: ClipScores) -> None:
        """Raises ValueError unless the clips are in order, which also excludes repeated ones."""
        numbers = (part.start_N, part.top_N, part.left_N)
        if any((number < 0).any() for number in numbers) or (part.weight_N < 1).any():
            raise ValueError("a negative number")
        for place in zip(*(n.tolist() for n in (part.video_N, *numbers)), strict=True):
            if place <= self._last:
                raise ValueError("rows that are repeated or not in order")
            self._last = place
        np.add.at(self._weight_V, part.video_N, part.weight_N)

    def finish(self) -> set[int]:
        """The videos that could not be decoded. Raises ValueError if clips are missing."""
        decoded_V = np.ones(len(self._videos), bool)
        decoded_V[list(self._failed)] = False
        clips = self._protocol.clips_of_failed
        if self._protocol.kind == "dense":
            complete_V = self._weight_V > 0
        else:
            complete_V = self._weight_V == clips
        wrong_V = np.where(decoded_V, ~complete_V, self._weight_V != 0)
        if wrong_V.any():
            raise ValueError(f"not all clips of {self._videos[int(wrong_V.argmax())].path}")
        return self._failed
