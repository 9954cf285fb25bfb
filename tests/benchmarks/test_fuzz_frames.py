"""A few of the damaged stores of ``benchmarks/fuzz_frames.py``: the rest takes minutes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

type Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("flow", [False, True])
def test_damaged_stores_give_their_frames_or_an_error_of_ours(
    load: Load, tmp_path: Path, flow: bool
) -> None:
    fuzz_frames = load("fuzz_frames")
    stored = fuzz_frames.build(tmp_path / "whole", flow=flow)
    assert len(stored) == 25
    ends = {}
    for seed, mutate in enumerate(fuzz_frames.MUTATIONS * 2):
        root = tmp_path / f"store{seed}"
        shutil.copytree(tmp_path / "whole", root)
        case = mutate(random.Random(seed), root)
        ends[case.what] = fuzz_frames.outcome(root, stored, case, changed=False)
    assert set(ends.values()) <= {"same", "refused"}, ends
    assert "refused" in ends.values()


def test_other_bytes_would_be_noticed(load: Load, tmp_path: Path) -> None:
    fuzz_frames = load("fuzz_frames")
    stored = fuzz_frames.build(tmp_path / "store")
    case = fuzz_frames.Case("nothing")
    assert fuzz_frames.outcome(tmp_path / "store", stored, case, changed=False) == "same"
    other = stored | {("a", 0): b"another"}
    assert fuzz_frames.outcome(tmp_path / "store", other, case, changed=False) == "other bytes"
    missed = fuzz_frames.outcome(tmp_path / "store", stored, case, changed=True)
    assert missed == "missed by verify"
