"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import settings

# No deadline: a busy machine is not a failure. Derandomized: every run judges the same examples.
# To search for new ones: make test ARGS=--hypothesis-profile=search
settings.register_profile("distinit", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("distinit")
# One thread per process: the suite runs on two cores, and CPU results stay bitwise repeatable.
# Set before torch is imported, which reads it only then.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores SIGINT for what it starts in the background; tests send it to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The wheel's binary, so that results do not depend on the ffmpeg in PATH.
os.environ["DISTINIT_FFMPEG"] = imageio_ffmpeg.get_ffmpeg_exe()

# Processes that tests start (Ray workers, gloo workers) unpickle objects of the helpers.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
)


@pytest.fixture(scope="session")
def ffmpeg_exe() -> str:
    return os.environ["DISTINIT_FFMPEG"]


@pytest.fixture(scope="session", autouse=True)
def _private_home_of_shared_fixtures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indexes that fixtures of a module or of the session derive do not go to the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg-cache")))
        yield


@pytest.fixture(autouse=True)
def _private_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived indexes go to a separate folder for each test, never to the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg-cache")))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """The Ray instance that all tests share; mark them ``@pytest.mark.ray``."""
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    # Ray Train asks its workers every 2 s by default whether they have finished.
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    # "local": another Ray may run on this machine, and its address would be found.
    ray.init(address="local", num_cpus=4, **quiet)
    yield
    ray.shutdown()
