"""Checks that changed files are refused or read correctly, for the targets of ``fuzz.py``."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from fuzz import Target, outcome_of

__all__ = ["refusals_of"]


def refusals_of(target: Target, work: Path, cases: int) -> int:
    """How many reads of ``cases`` changed copies were refused; all others gave right values."""
    target.build(work / "whole")
    operations = target.operations.items()
    whole = {name: outcome_of(operation, work / "whole") for name, operation in operations}
    assert {outcome for outcome, _ in whole.values()} == {"values"}
    refused = 0
    for seed in range(cases):
        root = work / f"changed{seed}"
        shutil.copytree(work / "whole", root)
        change = target.change(root, random.Random(seed))
        for name, operation in operations:
            found = outcome_of(operation, root)
            refused += found[0] == "refused"
            right = found[0] == "refused" or found == whole[name]
            assert right or (change.forged and found[0] == "values"), (seed, change, name, found)
    return refused
