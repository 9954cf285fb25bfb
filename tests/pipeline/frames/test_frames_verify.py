"""Verification names every problem of a store, and distinguishes damaged from unfinished ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from distinit.cli import main
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.schemas.errors import FrameStoreError
from distinit.stages.frames import verify_frames


def test_an_intact_store_is_ok(store_root: Path) -> None:
    result = verify_frames(store_root, deep=True)
    assert (result.ok, result.exit_code, result.units, result.frames) == (True, 0, 2, 29)
    size = sum(path.stat().st_size for path in store_root.glob("*.arrow"))
    assert result.bytes == size
    assert result.summary() == f"ok: 2 units, 29 frames, {size / 1e6:.1f} MB: all bytes match"


def test_a_changed_byte_is_found_by_its_checksum(store_root: Path) -> None:
    path = store_root / "unit-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert verify_frames(store_root, deep=False).ok
    result = verify_frames(store_root, deep=True)
    assert result.exit_code == 1
    assert result.problems == ("unit 0: unit-00000.arrow has different bytes than committed",)
    assert "delete commits/unit-NNNNN.json of the damaged units" in result.summary()


def test_damage_of_each_kind_is_named(store_root: Path) -> None:
    (store_root / "unit-00000.arrow").unlink()
    (store_root / "commits" / "unit-00001.json").write_text("{}")
    (store_root / "notes.txt").touch()
    (store_root / "more").mkdir()
    (store_root / "link").symlink_to("/etc")
    (store_root / "unit-00003.arrow.0a1b2c3d.partial").touch()
    problems = "\n".join(verify_frames(store_root, deep=True).problems)
    assert "unit-00000.arrow is not what was committed (found: no such file)" in problems
    assert "unit 1: " in problems
    assert "unit-00001.json is not a valid StoreCommit" in problems
    assert "notes.txt: not part of the store" in problems
    assert "more: a folder that is not part of a frame store" in problems
    assert "link: a link or a special file" in problems
    assert (
        "unit-00003.arrow.0a1b2c3d.partial: not part of the store, or left by a killed writer"
        in problems
    )


def test_an_unfinished_store_is_not_reported_as_damaged(
    writer: FrameStoreWriter, store_root: Path, tmp_path: Path
) -> None:
    (store_root / "commits" / "unit-00001.json").unlink()
    (store_root / "unit-00001.arrow").unlink()
    with writer.open_unit(0) as unit:
        unit.commit()
    result = verify_frames(store_root, deep=True)
    assert (result.ok, result.complete, result.exit_code) == (False, False, 3)
    assert result.summary().startswith("INCOMPLETE: 1 unit, 0 frames")


def test_the_command_has_exit_codes(store_root: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    done = run(main, ["frames", "verify", str(store_root), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout[done.stdout.index("{\n") :])["ok"] is True
    (store_root / "store.json").write_text("[]")
    assert run(main, ["frames", "verify", str(store_root)]).exit_code == 1
    (tmp_path / "nothing").mkdir()
    missing = run(main, ["frames", "verify", str(tmp_path / "nothing")])
    assert missing.exit_code == 2
    assert "is not a frame store" in missing.output
    with pytest.raises(FrameStoreError, match="is not a frame store"):
        verify_frames(tmp_path / "nothing", deep=True)
