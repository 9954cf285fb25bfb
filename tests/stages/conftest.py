"""Real videos, a finetune run and a browser that tests of stages share; none may change them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.demos import SmallDemo, make_small_demo
from helpers.videos import make_video
from playwright.sync_api import Browser, sync_playwright

from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.training import StudentConfig
from distinit.stages.finetune import finetune
from distinit.stages.finetune_result import FinetuneResult

FRAME_COUNTS = {"a.mp4": 20, "b/c.mp4": 33, "b/d [1].mp4": 12, "e.mp4": 41, "long.mp4": 150}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good videos (FRAME_COUNTS) and two broken ones."""
    root = tmp_path_factory.mktemp("corpus")
    for seed, (name, frames) in enumerate(FRAME_COUNTS.items()):
        make_video(root / name, frames=frames, seed=seed)
    (root / "empty.mp4").touch()
    whole = (root / "e.mp4").read_bytes()
    (root / "torn.mp4").write_bytes(whole[: len(whole) // 2])
    return root


# Two classes that differ in colour, so that even a short training separates them.
FILTERS = {"grey": ("-vf", "hue=s=0"), "blue": ("-vf", "colorchannelmixer=rr=0.1:gg=0.1:bb=1")}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training and two test videos per class; each subset also has one torn video."""
    root = tmp_path_factory.mktemp("dataset")
    seed = 0
    for label, filter_args in FILTERS.items():
        for subset, count in (("train", 4), ("test", 2)):
            for number in range(count):
                seed += 1
                path = root / subset / label / f"{number} [a].mp4"
                make_video(path, frames=6 + seed, seed=seed, args=(*filter_args, "-c:v", "libx264"))
    whole = (root / "train/grey/0 [a].mp4").read_bytes()
    (root / "train/blue/torn.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "test/grey/torn.mp4").write_bytes(whole[: len(whole) // 3])
    return root


@pytest.fixture(scope="session")
def frames(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frame store that all runs share; the first run builds it."""
    return tmp_path_factory.mktemp("frames") / "store"


@pytest.fixture(scope="session")
def configure(dataset: Path, frames: Path) -> Callable[..., FinetuneConfig]:
    def make(out: Path, **values: Any) -> FinetuneConfig:
        defaults: dict[str, Any] = {
            "dataset": {"root": str(dataset)},
            "out": str(out),
            "frames": str(frames),
            "student": StudentConfig(name="tiny_r2plus1d_10"),
            "clip": {"frames": 4, "crop": 32},
            # At this rate all four seeds that were tried learn it: rounding must not matter.
            "optimizer": {"learning_rate": 0.01, "epochs": 3, "clips_per_epoch": 64},
            "runtime": {"batch_size": 8, "device": "cpu", "log_seconds": 0},
            "evaluation": {"protocol": "vmz-3"},
        }
        return FinetuneConfig.model_validate(defaults | values)

    return make


@pytest.fixture(scope="session")
def finished(
    configure: Callable[..., FinetuneConfig], tmp_path_factory: pytest.TempPathFactory
) -> tuple[FinetuneConfig, FinetuneResult]:
    config = configure(tmp_path_factory.mktemp("run") / "scratch")
    return config, finetune(config)


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> SmallDemo:
    return make_small_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed: install Debian's package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
