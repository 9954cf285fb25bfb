"""What the digests cover, and what they leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distinit.pipeline.cache.digest import content_digest, corpus_digest, unit_content_sha256
from distinit.schemas.tables import FEATURE_ROWS_SCHEMA, FRAMES_SCHEMA
from distinit.schemas.video import SamplingConfig

VIDEO = {
    "video_id": "a",
    "path": "x/a.mp4",
    "digest": "d",
    "status": "ok",
    "frame_count": 3,
    "width": 4,
    "height": 5,
    "duration_seconds": 1.0,
    "error": None,
    "in_corpus": True,
}
TEACHERS = {"t": ("fingerprint", "float16", {0: "u0", 1: "u1"})}


def digest(**changes: Any) -> str:
    video = {**VIDEO, **changes}
    return content_digest(SamplingConfig(), 64, [video], TEACHERS)


@pytest.mark.parametrize("key", ["path", "duration_seconds", "error"])
def test_what_differs_between_machines_does_not_count(key: str) -> None:
    assert digest(**{key: "other"}) == digest()


@pytest.mark.parametrize(
    "key", ["video_id", "digest", "status", "frame_count", "width", "height", "in_corpus"]
)
def test_what_a_video_is_counts(key: str) -> None:
    assert digest(**{key: "other"}) != digest()


def test_sampling_capacity_and_teachers_count() -> None:
    base = digest()
    stride = SamplingConfig(mode="stride", stride=2)
    fingerprint, _, units = TEACHERS["t"]
    others = [
        content_digest(stride, 64, [VIDEO], TEACHERS),
        content_digest(SamplingConfig(), 128, [VIDEO], TEACHERS),
        content_digest(SamplingConfig(), 64, [VIDEO], {"u": TEACHERS["t"]}),
        content_digest(SamplingConfig(), 64, [VIDEO], {"t": (fingerprint, "int8", units)}),
        content_digest(SamplingConfig(), 64, [VIDEO], {"t": (fingerprint, "float16", {0: "u0"})}),
    ]
    assert len({base, *others}) == 6


def test_order_does_not_count() -> None:
    second = {**VIDEO, "video_id": "b"}
    teachers = {"s": ("f", "int8", {1: "u1", 0: "u0"}), **TEACHERS}
    same = {**TEACHERS, "s": ("f", "int8", {0: "u0", 1: "u1"})}
    assert content_digest(SamplingConfig(), 64, [VIDEO, second], teachers) == content_digest(
        SamplingConfig(), 64, [second, VIDEO], same
    )
    assert corpus_digest(["b", "a"]) == corpus_digest(["a", "b"]) != corpus_digest(["a"])


def unit(ids: tuple[str, str] = ("ab", "c"), gap: float = 0.0) -> str:
    columns = {
        "row": [0, 2],
        "video_id": list(ids),
        "frame_index": [0, 0],
        "pts": [0, 0],
        "time_base": ["1/25", "1/25"],
        "perceptual_hash": [2**64 - 1, 7],
    }
    frames = pa.table(columns, schema=FRAMES_SCHEMA)
    rows = pa.table({"row": [0, 2]}, schema=FEATURE_ROWS_SCHEMA)
    arrays = {"logits": np.array([[1], [gap], [3]], np.float16)}
    return unit_content_sha256(frames, rows, arrays, np.array([0, 2]))


def test_unit_digest_tells_strings_apart_and_ignores_gaps() -> None:
    assert unit(("a", "bc")) != unit()
    assert unit(gap=5.0) == unit()


def test_unit_digest_does_not_depend_on_how_a_table_is_chunked() -> None:
    columns: dict[str, Any] = {"row": pa.chunked_array([[0], [2]])}
    rows = pa.table(columns, schema=FEATURE_ROWS_SCHEMA)
    whole = rows.combine_chunks()
    frames = FRAMES_SCHEMA.empty_table()
    arrays = {"logits": np.zeros((3, 1), np.float16)}
    used = np.array([0, 2])
    assert unit_content_sha256(frames, rows, arrays, used) == unit_content_sha256(
        frames, whole, arrays, used
    )


def test_a_slice_of_strings_has_the_digest_of_its_values() -> None:
    """The bytes are taken from the buffers of Arrow, which a slice shares with the whole table."""
    rows = [
        {
            "row": row,
            "video_id": text,
            "frame_index": row,
            "pts": row,
            "time_base": "1/25",
            "perceptual_hash": row,
        }
        for row, text in enumerate(["", "aé", "b", "", "ccc"])
    ]
    features = [{"row": row} for row in range(5)]

    def tables(start: int, stop: int) -> tuple[pa.Table, pa.Table]:
        return (
            pa.Table.from_pylist(rows[start:stop], schema=FRAMES_SCHEMA),
            pa.Table.from_pylist(features[start:stop], schema=FEATURE_ROWS_SCHEMA),
        )

    whole = tables(0, 5)
    for start, stop in ((0, 5), (1, 3), (2, 2), (3, 5)):
        sliced = [table.slice(start, stop - start) for table in whole]
        used_N = np.arange(stop - start)
        expected = unit_content_sha256(*tables(start, stop), {}, used_N)
        assert unit_content_sha256(sliced[0], sliced[1], {}, used_N) == expected
