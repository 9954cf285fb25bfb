"""Files of scores: what is written is read back, and nothing else is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distinit.pipeline.datasets.scored import ScoredVideo
from distinit.pipeline.evaluation.metrics import ScoreBoard, clip_scores
from distinit.pipeline.evaluation.scorer import ClipScores
from distinit.pipeline.evaluation.scores_file import ScoresWriter, rows_per_group
from distinit.pipeline.evaluation.scores_reader import ScoresFile, evaluate_scores
from distinit.schemas.errors import ConfigError, StorageError
from distinit.schemas.evaluation import ScoresRecord
from distinit.schemas.tables import SCORES_SCHEMA

VIDEOS = [
    ScoredVideo("a/1.avi", 0, "aaaa"),
    ScoredVideo("b/torn.avi", 1, None),
    ScoredVideo("b/[2].avi", 1, "bbbb"),
    ScoredVideo("c/é.avi", 2, "cccc"),
]
TORN = {"b/torn.avi"}
RECORD = ScoresRecord(
    protocol="vmz-4",
    classes=3,
    precision="fp32",
    clip_frames=8,
    crop=16,
    student="1" * 64,
    dataset="2" * 64,
    pixels="3" * 64,
    versions={"torch": "2"},
)
CLIPS = [(0, 0, 1), (0, 5, 1), (0, 9, 2), (2, 0, 4), (3, 0, 3), (3, 1, 1)]
"""Video, start and weight: the weights of a video add up to four."""


def scores_of(clips: list[tuple[int, int, int]], seed: int = 0) -> ClipScores:
    video_N, start_N, weight_N = np.array(clips).T
    logits = np.random.default_rng(seed).normal(size=(len(clips), 3)).astype(np.float32)
    zeros = np.zeros(len(clips), np.int64)
    return ClipScores(video_N, start_N, zeros + 8, zeros + 29, weight_N, logits)


def write(path: Path, record: ScoresRecord = RECORD) -> ClipScores:
    scores = scores_of(CLIPS)
    with ScoresWriter.create(path, record, VIDEOS) as writer:
        for first in (0, 3):
            names = ClipScores.__slots__
            part = ClipScores(*(getattr(scores, name)[first : first + 3] for name in names))
            writer.append(part)
    return scores


def read(path: Path, videos: list[ScoredVideo] = VIDEOS) -> tuple[ClipScores, set[int]]:
    with ScoresFile.open(path) as file:
        parts = list(file.parts(videos, TORN))
        return ClipScores.joined(parts), file.failed


def test_scores_are_read_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, split = tmp_path / "whole.parquet", tmp_path / "split.parquet"
    written = write(whole)
    with monkeypatch.context() as patch:
        for name in ("scores_file", "scores_reader"):
            patch.setattr(f"distinit.pipeline.evaluation.{name}.rows_per_group", lambda _: 2)
        write(split)
        assert pq.ParquetFile(split).num_row_groups == 5
        found_split = read(split)
    for found, failed in (read(whole), found_split):
        assert failed == {1}
        for name in ClipScores.__slots__:
            np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
        assert found.logits_NC.dtype == np.float32


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    written = write(tmp_path / "scores.parquet")
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(rows) == 7
    assert rows[2] == {
        "path": "a/1.avi",
        "video_id": "aaaa",
        "label": 0,
        "start_frame": 9,
        "crop_top": 8,
        "crop_left": 29,
        "weight": 2,
        "logits": written.logits_NC[2].tolist(),
    }
    # Videos that could not be decoded come last.
    expected = {"path": "b/torn.avi", "label": 1, "weight": 4}
    assert rows[6] == {name: expected.get(name) for name in SCORES_SCHEMA.names}


@pytest.mark.parametrize("average", ["softmax", "logits", "max"])
def test_metrics_from_the_file_equal_those_of_the_scores(tmp_path: Path, average: Any) -> None:
    scores = write(tmp_path / "scores.parquet")
    board = ScoreBoard([video.label for video in VIDEOS], 3, average)
    board.add(scores.video_N, scores.weight_N, clip_scores(scores.logits_NC, average))
    board.add_failed(1, "vmz-4")
    found = evaluate_scores(tmp_path / "scores.parquet", VIDEOS, TORN, average, RECORD)
    assert found == board.result("vmz-4", ["b/torn.avi"])
    assert (found.videos, found.clips, found.average) == (4, 16, average)


def test_an_interrupted_evaluation_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    before = path.read_bytes()
    for other in (tmp_path / "other.parquet", path):
        with (
            pytest.raises(IndexError),
            ScoresWriter.create(other, RECORD, VIDEOS) as writer,
        ):
            writer.append(scores_of([*CLIPS, (4, 0, 1)], seed=1))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]
    assert path.read_bytes() == before


def rewrite(path: Path, change: Any, metadata: dict[bytes, bytes] | None = None) -> None:
    """Replace rows (a list of dictionaries) as another program would."""
    file = pq.ParquetFile(path)
    rows = file.read().to_pylist()
    rows = change(rows) or rows
    with pq.ParquetWriter(path, SCORES_SCHEMA, store_schema=False) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCORES_SCHEMA))
        writer.add_key_value_metadata(file.metadata.metadata if metadata is None else metadata)


def without(index: int) -> Any:
    return lambda rows: [row for number, row in enumerate(rows) if number != index]


def setting(index: int, **values: Any) -> Any:
    return lambda rows: rows[index].update(values)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (without(1), "not all clips of a/1.avi"),
        (without(3), "not all clips of b/[2].avi"),
        (without(6), "not all clips of b/torn.avi"),
        (setting(0, path="d"), "'d'"),
        (setting(0, label=1), "a label that differs"),
        (setting(3, label=0), "a label that differs"),
        (setting(0, weight=0), "a negative number"),
        (setting(0, weight=2), "not all clips"),
        (setting(0, start_frame=-1), "a negative number"),
        (setting(1, start_frame=0), "repeated or not in order"),
        (lambda rows: rows[::-1], "repeated or not in order"),
        (lambda rows: [*rows, rows[-1]], "the row of b/torn.avi is not valid"),
        (setting(6, weight=1), "the row of b/torn.avi is not valid"),
        (setting(0, logits=[0.0] * 2), "3 finite logits"),
        (setting(0, logits=[0.0, 0.0, float("nan")]), "3 finite logits"),
        (setting(0, logits=None), "disagrees on which videos"),
        (setting(0, video_id=None), "disagrees on which videos"),
        (setting(0, video_id="../../x"), "column video_id holds an invalid value"),
        (
            setting(
                3,
                video_id=None,
                start_frame=None,
                crop_top=None,
                crop_left=None,
                logits=None,
            ),
            "no scores of b/[2].avi, which could be decoded",
        ),
    ],
)
def test_rows_that_are_not_those_of_an_evaluation_are_rejected(
    tmp_path: Path, change: Any, found: str
) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    rewrite(path, lambda rows: None)
    assert read(path)[1] == {1}
    rewrite(path, change)
    with pytest.raises(StorageError, match="cannot read the scores") as raised:
        read(path)
    assert found in str(raised.value.found)


def test_dense_scores_are_complete_if_every_video_has_clips(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    record = RECORD.model_copy(update={"protocol": "dense-s1"})
    write(path, record)
    assert read(path)[1] == {1}
    rewrite(path, without(3))
    with pytest.raises(StorageError) as raised:
        read(path)
    assert raised.value.found == "not all clips of b/[2].avi"


def test_every_flipped_byte_is_detected_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    data = path.read_bytes()
    expected = read(path)[0]
    detected = 0
    positions = range(0, len(data), 3)
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            found = read(path)[0]
        except StorageError:
            detected += 1
        else:
            np.testing.assert_array_equal(found.logits_NC, expected.logits_NC)
            np.testing.assert_array_equal(found.video_N, expected.video_N)
    assert detected > len(positions) * 0.6


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({}, "no record in the footer"),
        ({b"distinit": b"[]"}, "no record in the footer"),
        ({b"distinit": b"{"}, "Expecting"),
        ({b"distinit": b"{}"}, "validation errors"),
    ],
)
def test_files_without_a_valid_record_are_rejected(
    tmp_path: Path, metadata: dict[bytes, bytes], found: str
) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    rewrite(path, lambda rows: None, metadata)
    with pytest.raises(StorageError) as raised:
        read(path)
    assert found in str(raised.value.found)


def test_files_that_unpack_to_much_more_than_their_rows_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    rewrite(path, setting(0, logits=[0.0] * 2_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(StorageError) as raised:
        read(path)
    assert "column logits has 2000016 values in 7 rows" in str(raised.value.found)


def test_only_the_scores_of_this_student_and_dataset_are_used(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write(path)
    other = RECORD.model_copy(update={"student": "9" * 64})
    with pytest.raises(ConfigError, match="scores of another evaluation") as raised:
        evaluate_scores(path, VIDEOS, TORN, "softmax", other)
    assert (raised.value.expected, raised.value.found) == (
        f"student {'9' * 64}",
        f"student {'1' * 64}",
    )
    with pytest.raises(ConfigError, match="does not exist") as raised:
        evaluate_scores(tmp_path / "scores-vmz-9.parquet", VIDEOS, TORN, "softmax", RECORD)
    assert raised.value.found == "no scores at all"


def test_row_groups_are_small() -> None:
    assert [rows_per_group(classes) for classes in (2, 400, 10_000)] == [65_536, 2_621, 104]
