"""Of two runs, only the one that holds the cache now may publish."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distinit.pipeline.cache import fence
from distinit.pipeline.cache.fence import behind_fence, lower_fence, raise_fence
from distinit.schemas.errors import LockedError

HOLD = """
import sys, time
from pathlib import Path
from distinit.pipeline.cache.fence import behind_fence
with behind_fence(Path(sys.argv[1]), sys.argv[2]):
    print("in", flush=True)
    time.sleep(float(sys.argv[3]))
    Path(sys.argv[1] + ".done").touch()
"""


def holder(path: Path, token: str, seconds: float) -> subprocess.Popen[bytes]:
    """A process that publishes for some seconds; returns once it is behind the fence."""
    command = [sys.executable, "-c", HOLD, str(path), token, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    return process


def test_a_later_run_shuts_out_the_workers_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / ".fence"
    first = raise_fence(path)
    with behind_fence(path, first), behind_fence(path, first):
        pass
    second = raise_fence(path)
    with (
        pytest.raises(LockedError, match="another run has taken over"),
        behind_fence(path, first),
    ):
        pass
    with behind_fence(path, second):
        pass


def test_after_the_end_of_a_run_its_workers_are_shut_out(tmp_path: Path) -> None:
    path = tmp_path / ".fence"
    token = raise_fence(path)
    lower_fence(path)
    assert not path.exists()
    with pytest.raises(LockedError), behind_fence(path, token):
        pass
    lower_fence(path)


def test_a_removed_cache_is_not_taken_for_one_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "cache" / ".fence"
    path.parent.mkdir()
    token = raise_fence(path)
    for remove, found in ((path.unlink, "no .fence"), (path.parent.rmdir, "no such folder")):
        remove()
        with pytest.raises(LockedError) as caught, behind_fence(path, token):
            pass
        assert caught.value.problem == f"the cache {path.parent} was removed during the run"
        assert caught.value.found == found


def test_taking_over_waits_for_the_publication_under_way(tmp_path: Path) -> None:
    path = tmp_path / ".fence"
    process = holder(path, raise_fence(path), 1.0)
    done = tmp_path / ".fence.done"
    assert not done.exists()
    raise_fence(path)
    assert done.exists()
    process.communicate()
    assert process.returncode == 0


def test_a_publication_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "_WAIT_SECONDS", 0.2)
    path = tmp_path / ".fence"
    process = holder(path, raise_fence(path), 60)
    with pytest.raises(LockedError, match="earlier run is still writing"):
        raise_fence(path)
    process.kill()
    process.communicate()
    raise_fence(path)
