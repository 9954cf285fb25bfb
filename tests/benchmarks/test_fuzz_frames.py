"""A few of the damaged stores of ``fuzz.py --target frames``; a full run takes minutes."""

from __future__ import annotations

from pathlib import Path

from fuzz_frames import TARGET
from helpers.fuzzed import refusals_of


def test_damaged_stores_give_their_frames_or_are_refused(tmp_path: Path) -> None:
    assert refusals_of(TARGET, tmp_path, 24) > 24
