"""The fault benchmark: each kind of fault is found, and a changed time stamp is not reported."""

from __future__ import annotations

import json

import faults
import pytest
from click.testing import CliRunner


def test_a_fault_of_each_kind_is_found() -> None:
    count = 3 * len(faults.FAULTS)
    ended = CliRunner().invoke(faults.main, ["--faults", str(count), "--seed", "7", "--json"])
    outcome = json.loads(ended.stdout)
    assert outcome["wrong"] == []
    assert ended.exit_code == 0
    assert outcome["done"] == dict.fromkeys(faults.FAULTS, 3)
    assert outcome["found"] == dict.fromkeys(faults.FAULTS, 3) | {"mtime only": 0}


def test_a_missed_fault_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that changes nothing cannot be found."""
    monkeypatch.setattr(faults, "FAULTS", {"nothing": lambda root, path, rng: True})
    ended = CliRunner().invoke(faults.main, ["--faults", "1"])
    assert ended.exit_code == 1
    assert "missed or falsely reported: 1" in ended.stdout
