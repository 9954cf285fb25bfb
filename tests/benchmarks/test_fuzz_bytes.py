"""The targets of ``atheris_fuzz.py``: their seeds are read, and changed seeds never crash."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_bytes import FORGED, TARGETS, mutated, run_one, seeds_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "atheris_fuzz.py"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_intact_files_are_accepted_with_old_and_with_forged_checksums(
    name: str, tmp_path: Path
) -> None:
    target = TARGETS[name]()
    target.build(tmp_path / "root")
    before = {p: p.read_bytes() for p in (tmp_path / "root").rglob("*") if p.is_file()}
    seeds = seeds_of(name)
    assert {seed[0] % FORGED for seed in seeds} == set(range(len(target.files)))
    assert all(run_one(target, tmp_path / "root", seed) for seed in seeds)
    if name != "signature":  # there, a forged input is another file
        forged = [bytes([seed[0] | FORGED]) + seed[1:] for seed in seeds]
        assert all(run_one(target, tmp_path / "root", seed) for seed in forged)
    assert before == {p: p.read_bytes() for p in (tmp_path / "root").rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_changed_files_are_refused_or_read(name: str, tmp_path: Path) -> None:
    target, rng = TARGETS[name](), random.Random(0)
    target.build(tmp_path / "root")
    seeds = seeds_of(name)
    inputs = [mutated(seed, rng) for seed in seeds for _ in range(60 // len(seeds))]
    accepted = [run_one(target, tmp_path / "root", data) for data in inputs]
    assert accepted.count(False) > len(inputs) // 3
    assert not run_one(target, tmp_path / "root", b"")


def test_another_exception_than_a_refusal_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TARGETS["signature"]()
    target.build(tmp_path / "root")
    intact = (tmp_path / "root/cache.sig").read_bytes()
    monkeypatch.setattr(target, "files", {"cache.sig": lambda _: {}["missing"]})
    with pytest.raises(KeyError, match="missing"):
        run_one(target, tmp_path / "root", b"\0x")
    assert (tmp_path / "root/cache.sig").read_bytes() == intact


def test_atheris_runs_a_target() -> None:
    command = [sys.executable, str(SCRIPT), "--target", "signature", "--runs", "200", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout)
    assert (result["target"], result["executions"], result["crashes"]) == ("signature", 200, 0)
    assert 0 < result["peak_mib"] < 2048
