"""A few of the damaged and forged mapping files of ``fuzz.py --target mapping``."""

from __future__ import annotations

from pathlib import Path

from fuzz_mapping import TARGET
from helpers.fuzzed import refusals_of


def test_damaged_mappings_are_refused_or_read_correctly(tmp_path: Path) -> None:
    assert refusals_of(TARGET, tmp_path, 60) > 30
