"""`cache relabel`, killed, interrupted, or without space: never taken for whole, and continued."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from helpers.command_line import INTERNALS, run_command
from helpers.derived_caches import assert_valid
from helpers.killing import interrupt_at, kill_at
from helpers.sources import write_cache
from helpers.vocabularies import make_vocabulary

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.lock import WriterLock
from distinit.schemas.errors import DistInitError
from distinit.schemas.exit_codes import ExitCode

NAMES = 3_000  # a shard of 64 rows has 375 KiB before compression
LIMIT_KIB = 100


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of three units with rows, and two vocabularies."""
    root = tmp_path_factory.mktemp("relabel-killed")
    write_cache(root / "cache", ("alpha",), target="features", frames={"a": 60, "b": 60, "c": 60})
    make_vocabulary(root / "birds.safetensors", 7)
    make_vocabulary(root / "tools.safetensors", 7, names=NAMES, seed=1)
    return root


def command(source: Path, out: Path, *vocabularies: str) -> list[str]:
    given = [part for name in vocabularies or ("birds",) for part in ("--vocabulary", name)]
    files = [p if p == "--vocabulary" else f"{source / p}.safetensors" for p in given]
    return ["cache", "relabel", str(source / "cache"), *files, "--out", str(out), "--quiet"]


@pytest.fixture(scope="module")
def whole(source: Path) -> str:
    """The content digest of an undisturbed run with both vocabularies."""
    code, output = run_command(command(source, source / "whole", "birds", "tools"))
    assert code == 0, output
    return TargetCache.open(source / "whole").manifest.content_digest


@pytest.mark.parametrize(
    ("pattern", "moment", "opens"),
    [
        ("manifest.json", "after", False),
        ("unit-00001.json", "before", False),
        ("unit-00001.json", "after", False),  # of one of the two teachers
        ("videos.parquet", "after", False),
        ("manifest-sha256.txt", "before", True),  # it follows a whole manifest
    ],
)
def test_a_killed_relabel_is_continued(
    pattern: str,
    moment: Literal["before", "after"],
    opens: bool,
    source: Path,
    whole: str,
    tmp_path: Path,
) -> None:
    relabel = command(source, tmp_path / "out", "birds", "tools")
    kill_at(pattern, moment, relabel, tmp_path)
    if opens:
        assert TargetCache.open(tmp_path / "out").manifest.content_digest == whole
    else:
        with pytest.raises(DistInitError):
            TargetCache.open(tmp_path / "out")
    code, output = run_command(relabel)
    assert code == 0, output
    assert assert_valid(tmp_path / "out") == whole


def test_ctrl_c_says_what_is_kept(source: Path, whole: str, tmp_path: Path) -> None:
    relabel = command(source, tmp_path / "out", "birds", "tools")
    assert interrupt_at("unit-00001.json", relabel, tmp_path) == (
        ExitCode.INTERRUPTED,
        "stopped; finished units of --out are kept, and without the others it does not count as a "
        "cache; rerun the same command to verify the sources again and continue\n",
    )
    code, output = run_command(relabel)
    assert code == 0, output
    assert assert_valid(tmp_path / "out") == whole


def test_a_second_relabel_into_the_same_folder_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with WriterLock(CacheLayout(out).lock):
        code, output = run_command(command(source, out))
    assert code == ExitCode.FAILED
    assert output.startswith(f"error: another process is writing {out}\n")
    assert not CacheLayout(out).manifest.exists()


def test_a_full_disk_is_one_message_and_the_same_command_continues(
    source: Path, whole: str, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE makes writes fail as on a full disk, and needs no privileges."""
    relabel = command(source, tmp_path / "out", "birds", "tools")
    process = [sys.executable, "-m", "distinit.cli", *relabel]
    limited = ["bash", "-c", f'ulimit -f {LIMIT_KIB}; exec "$@"', "bash", *process]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (ExitCode.FAILED, "")
    first, *_, last = ended.stderr.splitlines()
    assert first.startswith(f"error: cannot write {tmp_path}/out")
    assert last.startswith("  to do:    the file size limit is reached (`ulimit -f`)")
    assert INTERNALS.search(ended.stderr) is None, ended.stderr
    with pytest.raises(DistInitError):
        TargetCache.open(tmp_path / "out")
    code, output = run_command(relabel)
    assert code == 0, output
    assert assert_valid(tmp_path / "out") == whole


def test_a_folder_that_cannot_be_written_is_refused_with_one_message(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    # The kernel's own file system refuses new folders to everyone, root included.
    for target in (Path("/sys/distinit"), tmp_path / "file" / "cache"):
        code, output = run_command(command(source, target))
        assert code == ExitCode.FAILED
        assert output.startswith(f"error: cannot write {target}")
    assert (tmp_path / "file").read_text() == "in the way"
