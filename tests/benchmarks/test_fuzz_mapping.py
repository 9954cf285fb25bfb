"""A few of the damaged and forged mapping files of ``fuzz.py --target mapping``."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from fuzz import outcome_of
from fuzz_mapping import TARGET


def test_damaged_mappings_are_refused_or_read_correctly(tmp_path: Path) -> None:
    TARGET.build(tmp_path / "whole")
    operations = TARGET.operations.items()
    whole = {name: outcome_of(operation, tmp_path / "whole") for name, operation in operations}
    assert {outcome for outcome, _ in whole.values()} == {"values"}
    refused = 0
    for seed in range(60):
        root = tmp_path / f"mapping{seed}"
        shutil.copytree(tmp_path / "whole", root)
        change = TARGET.change(root, random.Random(seed))
        for name, operation in operations:
            found = outcome_of(operation, root)
            refused += found[0] == "refused"
            right = found[0] == "refused" or found == whole[name]
            assert right or (change.forged and found[0] == "values"), (seed, change, name, found)
    assert refused > 30
