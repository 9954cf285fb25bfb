"""``extract --repair`` extracts the damaged units of a cache again, and adds nothing to it."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.command_line import run_command
from helpers.forging import ForgedUnit, forge
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.cache.verify import verify_cache
from distinit.schemas.errors import CacheError, CorpusError
from distinit.schemas.extract import ExtractConfig
from distinit.stages.cache_verify import cache_verify
from distinit.stages.extract import ExtractResult, extract

FRAMES = {"a.mp4": 70, "b.mp4": 20, "c.mp4": 9}  # units of 64 rows: a takes two, b and c one


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three videos and their cache of two teachers; not to be changed."""
    root = tmp_path_factory.mktemp("repair")
    for seed, (name, frames) in enumerate(FRAMES.items()):
        make_video(root / "videos" / name, frames=frames, seed=seed)
    assert run(root, repair=False).complete
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def run(root: Path, progress: RecordingProgress | None = None, **changes: Any) -> ExtractResult:
    values = {
        "videos": str(root / "videos"),
        "teachers": [{"name": "null", "id": "one"}, {"name": "null", "id": "two"}],
        "cache": str(root / "cache"),
        "unit_rows": 64,
        "repair": True,
    }
    return extract(ExtractConfig.model_validate(values | changes), progress=progress)


def files(root: Path) -> dict[str, bytes]:
    paths = (path for path in (root / "cache").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def frames_with(root: Path, unit: int) -> int:
    """Frames of the videos that are decoded to extract ``unit``."""
    rows = pq.read_table(root / "cache/plan.parquet").to_pylist()
    task = max(row["task"] for row in rows if row["task"] <= unit)
    return sum(FRAMES[row["path"]] for row in rows if row["task"] == task)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("teachers/one/logits/c/0/0", 0),
        ("teachers/two/confidence/unit-00001.parquet", 1),
        ("frames/unit-00002.parquet", 2),
        ("teachers/two/commits/unit-00002.json", 2),
    ],
)
def test_only_the_damaged_unit_is_decoded_again(root: Path, name: str, unit: int) -> None:
    before = files(root)
    flip(root / "cache" / name)
    progress = RecordingProgress()
    result = run(root, progress)
    assert (result.complete, result.frames_done) == (True, frames_with(root, unit))
    assert files(root) == before
    assert any(text.startswith(f"repair: {name}") or name in text for text in progress.messages)
    assert not any(text.startswith("warning") for text in progress.messages)


def test_an_intact_cache_is_only_verified(root: Path) -> None:
    before, progress = files(root), RecordingProgress()
    assert run(root, progress).frames_done == 0
    assert files(root) == before
    assert progress.messages[-1] == "repair: 0 damaged units found"


def test_new_and_missing_videos_are_left_as_they_are(root: Path) -> None:
    """The content digest covers which videos are in the corpus: a repair must not change it."""
    before = verify_cache(root / "cache").content_digest
    make_video(root / "videos/new.mp4", frames=5, seed=9)
    flip(root / "cache/teachers/one/logits/c/0/0")
    needed = [r for r in pq.read_table(root / "cache/plan.parquet").to_pylist() if r["task"] == 0]
    for name in FRAMES.keys() - {row["path"] for row in needed}:
        (root / "videos" / name).unlink()
    (root / "videos" / needed[0]["path"]).rename(root / "videos/renamed.mp4")
    result = run(root)
    assert (result.complete, result.content_digest, result.gone) == (True, before, 0)
    assert verify_cache(root / "cache").problems == ()


def test_nothing_is_changed_if_a_video_of_a_damaged_unit_is_missing(root: Path) -> None:
    flip(root / "cache/frames/unit-00000.parquet")
    (row,) = [
        r for r in pq.read_table(root / "cache/plan.parquet").to_pylist() if r["first_row"] == 0
    ]
    (root / "videos" / row["path"]).unlink()
    before = files(root)
    with pytest.raises(CorpusError, match="1 video of the damaged units cannot be found") as raised:
        run(root)
    assert str(raised.value.found) == f"missing: {row['path']}"
    assert files(root) == before


def test_the_teachers_of_a_cache_are_repaired_one_after_the_other(root: Path) -> None:
    """The second run finds units missing that the first has marked, as after an interruption."""
    before = files(root)
    flip(root / "cache/teachers/two/logits/c/1/0")
    flip(root / "cache/teachers/one/logits/c/0/0")
    result = run(root, teachers=[{"name": "null", "id": "one"}])
    assert not result.complete
    assert "teacher two lacks 1 unit; run: " in result.missing[0]
    assert run(root, teachers=[{"name": "null", "id": "two"}]).complete
    assert files(root) == before


def test_no_teacher_is_added(root: Path) -> None:
    before = files(root)
    with pytest.raises(CacheError, match="the cache has no teacher three to repair"):
        run(root, teachers=[{"name": "null", "id": "three"}])
    assert files(root) == before


def test_a_changed_digest_is_a_warning(root: Path) -> None:
    """As if this machine computed other last bits than the one that made the cache."""

    def change(unit: ForgedUnit) -> None:
        unit.arrays["logits"][5] += np.float16(0.5)
        unit.recompute_confidence()

    forge(root / "cache", "one", 0, change)
    before = verify_cache(root / "cache").content_digest
    flip(root / "cache/teachers/one/logits/c/0/0")
    progress = RecordingProgress()
    result = run(root, progress)
    assert result.content_digest != before
    (warning,) = [text for text in progress.messages if text.startswith("warning")]
    assert f"the content digest is now {result.content_digest}, not {before}" in warning


def test_there_must_be_a_cache(root: Path) -> None:
    shutil.rmtree(root / "cache")
    with pytest.raises(CacheError, match="there is nothing to repair"):
        run(root)


def test_the_command_that_verify_prints_repairs_the_cache(root: Path) -> None:
    before = files(root)
    flip(root / "cache/teachers/two/logits/c/1/0")
    result = cache_verify(root / "cache", deep=True)
    assert result.damaged_units == ("unit 1 of teacher two",)
    (command,) = result.repair_commands
    assert command in result.summary()
    words = shlex.split(command.replace("VIDEOS", shlex.quote(str(root / "videos"))))
    assert words[:3] == ["distinit", "extract", "--repair"]
    code, output = run_command(words[1:])
    assert code == 0, output
    assert files(root) == before
