"""Hashes that are kept: what is written is read, and what is damaged is as good as absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distinit.pipeline.matching.hash_parts import CopyHashes, read_parts, write_part

HASHES = np.random.default_rng(0).integers(0, 2**64, 9, np.uint64)
ONE = CopyHashes("1" * 64, HASHES[:4], np.array([-0.5, 0.0, 0.04, np.inf]))
TWO = CopyHashes("2" * 64, HASHES[4:], np.arange(5) / 3)


def shown(video: CopyHashes) -> tuple[str, list[int], list[float]]:
    return video.digest, video.hash_F.tolist(), video.pts_seconds_F.tolist()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_part(tmp_path, [ONE, TWO])
    write_part(tmp_path, [TWO])
    parts = sorted(read_parts(tmp_path), key=len)
    assert [[shown(video) for video in part] for part in parts] == [
        [shown(TWO)],
        [shown(ONE), shown(TWO)],
    ]
    assert list(read_parts(tmp_path / "nothing")) == []


def without_array(array: Path, record: Path) -> None:
    array.unlink()


def shorter(array: Path, record: Path) -> None:
    array.write_bytes(array.read_bytes()[:-8])


def another_digest(array: Path, record: Path) -> None:
    record.write_text(record.read_text().replace("1" * 64, "3" * 64))


def another_count(array: Path, record: Path) -> None:
    record.write_text(record.read_text().replace('"frame_count": 4', '"frame_count": 5'))


def half_a_record(array: Path, record: Path) -> None:
    record.write_bytes(record.read_bytes()[:40])


@pytest.mark.parametrize(
    "damage", [without_array, shorter, another_digest, another_count, half_a_record]
)
def test_a_damaged_part_is_as_good_as_absent(
    tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    write_part(tmp_path, [ONE])
    (array,) = tmp_path.glob("*.npy")
    damage(array, array.with_suffix(".json"))
    write_part(tmp_path, [TWO])
    assert [[shown(video) for video in part] for part in read_parts(tmp_path)] == [[shown(TWO)]]
