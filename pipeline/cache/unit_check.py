"""Deep check of one unit: its tables against its targets, and both against the commit record."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distinit.pipeline.cache.arrays import INNER_ROWS
from distinit.pipeline.cache.confidence import confidence_of
from distinit.pipeline.cache.digest import unit_content_sha256
from distinit.pipeline.cache.encoding import ArraySpec, array_specs, decode
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.plan import PlannedRows
from distinit.pipeline.cache.shards import ShardReader
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.tables import column, read_table
from distinit.pipeline.units import unit_name
from distinit.schemas.manifest import UnitCommit
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FEATURE_ROWS_SCHEMA, FRAMES_SCHEMA
from distinit.schemas.teacher import TeacherRecord, parse_encoding

__all__ = ["UnitChecker"]

_BLOCK_ROWS = 2_048
_FLOAT16_STEP = 2.0**-11  # half a unit in the last place, relative
_FLOAT16_TINY = 2.0**-25  # absolute, below the normal range
_SLACK = 1e-4  # fp32 rounding of the stored columns


@dataclass
class UnitChecker:
    """Checks units one after the other; ``rows_of_video`` counts rows over all of them."""

    layout: CacheLayout
    state: CacheState
    rows_of_video: dict[str, int] = field(default_factory=dict)
    _counted: set[int] = field(default_factory=set)
    _last_index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._latest = self.state.plan.latest

    def check(self, teacher_id: str, unit: int) -> list[str]:
        """Problems of one unit of one teacher.

        Raises CacheCorruptError for a file that cannot be read at all.
        """
        record, commit = self.state.records[teacher_id], self.state.commits[teacher_id][unit]
        where = f"{unit_name(unit)} of {teacher_id}"
        frames = read_table(self.layout.frames(unit), FRAMES_SCHEMA)
        is_features = record.identity.target == "features"
        schema = FEATURE_ROWS_SCHEMA if is_features else CONFIDENCE_SCHEMA
        confidence = read_table(self.layout.confidence(teacher_id, unit), schema)
        row_N, capacity = column(frames, "row"), self.state.plan.capacity
        if (row_N // capacity != unit).any() or (np.diff(row_N) <= 0).any():
            return [f"{where}: its rows belong to another unit, or are out of order"]
        if not np.array_equal(row_N, column(confidence, "row")) or len(row_N) != commit.rows:
            return [f"{where}: tables and commit record disagree on the rows"]
        used_N = row_N - unit * capacity
        arrays = self._read_arrays(record, unit) if len(row_N) else self._empty_arrays(record)
        problems = self._check_frames(frames, unit)
        if unit_content_sha256(frames, confidence, arrays, used_N) != commit.content_sha256:
            problems.append(f"{where}: content digest differs from the commit record")
        problems += _check_unused(arrays, used_N, where)
        if not is_features:
            unanswered_N = _unanswered(frames, confidence, commit)
            problems += _check_confidence(record, confidence, arrays, used_N, unanswered_N, where)
        return problems

    def _empty_arrays(self, record: TeacherRecord) -> dict[str, np.ndarray]:
        specs = array_specs(record.encoding, record.identity.classes)
        return {spec.name: np.zeros((0, spec.width), spec.dtype) for spec in specs}

    def _read_arrays(self, record: TeacherRecord, unit: int) -> dict[str, np.ndarray]:
        specs = array_specs(record.encoding, record.identity.classes)
        return {spec.name: self._read_shard(record.id, spec, unit) for spec in specs}

    def _read_shard(self, teacher_id: str, spec: ArraySpec, unit: int) -> np.ndarray:
        """All rows of a shard, every chunk's crc32c checked; absent chunks are zero."""
        capacity = self.state.plan.capacity
        reader = ShardReader(self.layout, teacher_id, spec, unit, capacity)
        rows_RW = np.zeros((capacity, spec.width), spec.dtype)
        try:
            for chunk in range(capacity // INNER_ROWS):
                values = reader.read_chunk(chunk)
                if values is not None:
                    rows_RW[chunk * INNER_ROWS : (chunk + 1) * INNER_ROWS] = values
        finally:
            reader.release()
        return rows_RW

    def _check_frames(self, frames: pa.Table, unit: int) -> list[str]:
        """Each row must be where the plan puts its video, and each frame must occur once."""
        if unit in self._counted:  # checked with an earlier teacher
            return []
        self._counted.add(unit)
        problems = []
        row_N, index_N = column(frames, "row"), column(frames, "frame_index")
        coded = frames.column("video_id").combine_chunks().dictionary_encode()
        number_N = coded.indices.to_numpy(zero_copy_only=False)
        for number, video_id in enumerate(coded.dictionary.to_pylist()):
            mine = number_N == number
            self.rows_of_video[video_id] = self.rows_of_video.get(video_id, 0) + int(mine.sum())
            entry = self._latest.get(video_id)
            before = self._last_index.get(video_id, -1)  # of the previous unit, for long videos
            ascending = (np.diff(index_N[mine], prepend=before) > 0).all()
            self._last_index[video_id] = int(index_N[mine][-1])
            if not (ascending and _rows_planned(entry, row_N[mine])):
                problems.append(
                    f"{unit_name(unit)}: rows of video {video_id} are not where the plan says"
                )
        return problems


def _rows_planned(entry: PlannedRows | None, row_N: np.ndarray) -> bool:
    if entry is None:
        return False
    inside = row_N.min() >= entry.first_row
    return bool(inside and row_N.max() < entry.first_row + entry.reserved_rows)


def _check_unused(arrays: dict[str, np.ndarray], used_N: np.ndarray, where: str) -> list[str]:
    for name, rows_RW in arrays.items():
        unused = np.ones(len(rows_RW), bool)
        unused[used_N] = False
        if rows_RW[unused].any():
            return [f"{where}: {name} has values in unused rows"]
    return []


def _unanswered(frames: pa.Table, confidence: pa.Table, commit: UnitCommit) -> np.ndarray:
    """bool [N]: rows for which the commit lists the video as without output, and that are NaN."""
    named = pa.array([*commit.unanswered, *commit.refused], pa.string())
    named_N = pc.is_in(frames.column("video_id"), named).to_numpy()
    unanswered_N: np.ndarray = named_N & np.isnan(column(confidence, "log_z"))
    return unanswered_N


def _check_confidence(
    record: TeacherRecord,
    confidence: pa.Table,
    arrays: dict[str, np.ndarray],
    used_N: np.ndarray,
    unanswered_N: np.ndarray,
    where: str,
) -> list[str]:
    columns = {name: column(confidence, name) for name in confidence.schema.names}
    for start in range(0, len(used_N), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        stored = {name: values[used_N[part]] for name, values in arrays.items()}
        block = {name: values[part] for name, values in columns.items()}
        wrong = _implausible(record, stored, block) & ~unanswered_N[part]
        if wrong.any():
            row = int(block["row"][wrong][0])
            return [f"{where}: confidence of row {row} does not follow from its targets"]
    return []


def _implausible(
    record: TeacherRecord, stored: dict[str, np.ndarray], columns: dict[str, np.ndarray]
) -> np.ndarray:
    """bool [N]: rows whose confidence cannot come from targets that encode to ``stored``.

    If every logit is off by at most d, log_z is off by at most d, and log probabilities by 2d.
    """
    kind, _ = parse_encoding(record.encoding)
    slack_N = _SLACK + 1e-6 * np.abs(columns["log_z"].astype(np.float64))
    # NaN must count as implausible, so the test is "not within" and not "beyond".
    with np.errstate(all="ignore"):
        logp_N = np.log(columns["top1_probability"].astype(np.float64))
        if kind == "topk":
            d_N = _rounding_float16(stored["logits"][:, 0])
            expected_N = stored["logits"][:, 0].astype(np.float64) - columns["log_z"]
            right_N: np.ndarray = stored["logits_ids"][:, 0] == columns["top1_class"]
            right_N &= np.abs(logp_N - expected_N) <= d_N + slack_N
            return ~right_N
        logits_NC = decode(stored, record.encoding, record.identity.classes)
        largest_N = np.abs(logits_NC).max(axis=1)
        if kind == "int8":
            d_N = stored["logits_affine"][:, 0].astype(np.float64) / 2 + largest_N * 1e-6
        else:
            d_N = _rounding_float16(largest_N)
        return ~_within(logits_NC, columns, logp_N, d_N, slack_N)


def _within(
    logits_NC: np.ndarray,
    columns: dict[str, np.ndarray],
    logp_N: np.ndarray,
    d_N: np.ndarray,
    slack_N: np.ndarray,
) -> np.ndarray:
    """bool [N]: every column agrees with stored logits that are off by at most ``d_N``."""
    recomputed = confidence_of(logits_NC)
    class_N1 = columns["top1_class"][:, None].clip(0, logits_NC.shape[1] - 1)
    top_N = np.take_along_axis(logits_NC, class_N1, axis=1)[:, 0]
    # First order: |dH| <= d * sum p |log p + H| <= 2 d H; doubled for the higher orders.
    entropy_d_N = 4 * d_N * (recomputed.entropy_nats + 1) * np.exp(2 * d_N) + 1e-3 + slack_N
    right_N: np.ndarray = np.abs(recomputed.log_z - columns["log_z"]) <= d_N + slack_N
    right_N &= np.abs(logp_N - np.log(recomputed.top1_probability)) <= 2 * d_N + slack_N
    right_N &= class_N1[:, 0] == columns["top1_class"]
    right_N &= top_N >= logits_NC.max(axis=1) - 2 * d_N - slack_N
    right_N &= np.abs(recomputed.entropy_nats - columns["entropy_nats"]) <= entropy_d_N
    right_N &= np.abs(recomputed.margin - columns["margin"]) <= 4 * d_N * np.exp(2 * d_N) + slack_N
    return right_N


def _rounding_float16(values: np.ndarray) -> np.ndarray:
    bound: np.ndarray = np.abs(values.astype(np.float64)) * _FLOAT16_STEP + _FLOAT16_TINY
    return bound
