"""Optical flow of known motions, and the store that holds it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distinit.pipeline.frames import build_flow
from distinit.pipeline.frames.build_flow import build_flow_store
from distinit.pipeline.frames.flow import (
    ZERO_LEVEL,
    farneback,
    flow_step,
    levels_of_flow,
    opencv_version,
)
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.verify import verify_store
from distinit.pipeline.frames.writer import FrameStoreWriter
from distinit.pipeline.progress import NullProgress
from distinit.schemas.errors import ConfigError, FrameStoreError
from distinit.schemas.frames import FlowConfig, FlowSpec, FrameGeometry, VideoRows
from distinit.stages import flow as flow_stage

SPEC = FlowSpec(flow_range=20, jpeg_quality=95, opencv=opencv_version())


def moving(count: int, dx: int, dy: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """uint8 [N, H, W, 3]: a smooth texture that moves by (dx, dy) pixels per frame."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    frames = []
    for i in range(count):
        u, v = x - dx * i, y - dy * i
        frames.append(127 + 60 * np.sin(u / 5) * np.cos(v / 6) + 40 * np.sin((u + v) / 9))
    return np.repeat(np.stack(frames)[..., None], 3, axis=-1).astype(np.uint8)


def motion_of(levels: np.ndarray, flow_range: float) -> np.ndarray:
    """Motion in pixels per frame, as FlowSpec documents the levels."""
    return (levels - ZERO_LEVEL) * flow_step(flow_range)


def test_constants_are_those_of_vmz() -> None:
    assert (SPEC.pyr_scale, SPEC.levels, SPEC.winsize) == (2**0.5 / 2, 5, 10)
    assert (SPEC.iterations, SPEC.poly_n, SPEC.poly_sigma) == (2, 7, 1.5)
    assert SPEC.gaussian_window


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (-2, 0), (0, 3), (1, -1)])
def test_flow_is_the_motion_to_the_next_frame(dx: int, dy: int) -> None:
    flow_NHW2 = farneback(moving(3, dx, dy), SPEC)
    assert flow_NHW2.shape == (2, 64, 96, 2)
    middle = flow_NHW2[:, 16:-16, 16:-16]
    assert np.abs(middle.mean(axis=(0, 1, 2)) - (dx, dy)).max() < 0.1
    assert np.abs(middle - (dx, dy)).max() < 0.6


def test_still_frames_have_no_motion() -> None:
    # Without the edges, where OpenCV 4 and 5 compute up to 0.4 pixels of motion.
    flow_NHW2 = farneback(moving(2, 0, 0, (128, 171)), SPEC)[:, 40:-40, 40:-40]
    assert np.abs(flow_NHW2).max() < 1e-3
    assert (levels_of_flow(flow_NHW2, 20) == 128).all()


@given(st.lists(st.floats(-60, 60, width=32), min_size=1), st.floats(0.5, 50))
def test_opposite_motions_have_opposite_levels(values: list[float], flow_range: float) -> None:
    flow = np.array(values, np.float32)
    levels = levels_of_flow(flow, flow_range)
    assert (levels.astype(int) + levels_of_flow(-flow, flow_range) == 256).all()
    back = motion_of(levels.astype(np.float64), flow_range)
    inside = np.abs(flow) <= flow_range
    assert np.abs(back - flow)[inside].max(initial=0) <= flow_range / 127 / 2 + 1e-5
    assert np.allclose(back[~inside], np.sign(flow[~inside]) * flow_range)
    assert levels_of_flow(np.zeros(1), flow_range) == ZERO_LEVEL == 128


@pytest.fixture
def rgb(tmp_path: Path) -> Path:
    """a: 9 frames moving right; b: 7 moving down, over two units; one: a single frame; bad."""
    writer = FrameStoreWriter(tmp_path / "rgb", FrameGeometry(), "0" * 64)
    right, down = moving(9, 2, 0), moving(7, 0, 2)
    with writer.open_unit(0) as unit:
        unit.append("a", "aa" * 32, 0, right, 10.0)
        unit.append("b", "bb" * 32, 0, down[:4], 25.0)
        unit.commit()
    with writer.open_unit(2) as unit:
        unit.append("b", "bb" * 32, 4, down[4:], 25.0)
        unit.append("one", "cc" * 32, 0, right[:1], 25.0)
        unit.fail_video("bad", "dd" * 32, "made to fail")
        unit.commit()
    writer.finalise([0, 2])
    return tmp_path / "rgb"


def config(rgb: Path, **changes: object) -> FlowConfig:
    return FlowConfig.model_validate(
        {"frames": str(rgb), "out": str(rgb.parent / "flow"), **changes}
    )


def pixels(store: FrameStore, video: str, frame: int) -> torch.Tensor:
    assert store.manifest.flow is not None
    clip = store.clip(video, [frame])
    return torch.from_numpy(motion_of(clip[0].float().numpy(), store.manifest.flow.flow_range))


def test_a_flow_store_holds_the_same_videos_with_two_planes(rgb: Path) -> None:
    store = build_flow_store(config(rgb), NullProgress())
    source = FrameStore.open(rgb)
    assert (source.channels, store.channels) == (3, 2)
    assert dict(store.videos) == dict(source.videos)
    assert store.failed == source.failed
    assert store.clip("a", [0, 8]).shape == (2, 2, 64, 96)
    assert store.frames("a", []).shape == (0, 64, 96, 2)
    for video, motion in (("a", (2, 0)), ("b", (0, 2))):
        # Frames 3 and 4 are in two units; the last frame has the flow of the previous frame.
        for frame in range(source.videos[video].frame_count):
            middle = pixels(store, video, frame)[:, 16:-16, 16:-16]
            assert (middle - torch.tensor(motion).view(2, 1, 1)).abs().max() < 0.7
    assert torch.equal(store.clip("a", [7]), store.clip("a", [8]))
    assert (store.clip("one", [0]) == 128).all()
    assert verify_store(store.root, deep=True, progress=NullProgress()).problems == ()
    assert store.pixels_digest() != source.pixels_digest()
    manifest = json.loads((rgb.parent / "flow" / "store.json").read_text())
    assert manifest["flow"]["flow_range"] == 20
    assert manifest["flow"]["winsize"] == 10


def test_the_size_of_blocks_does_not_change_the_flow(
    rgb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_flow_store(config(rgb), NullProgress())
    monkeypatch.setattr(build_flow, "_BLOCK_FRAMES", 2)
    cut = build_flow_store(config(rgb, out=str(rgb.parent / "cut")), NullProgress())
    for video, info in whole.videos.items():
        frames = list(range(info.frame_count))
        assert whole.jpegs(video, frames) == cut.jpegs(video, frames)


def test_an_interrupted_build_is_resumed(rgb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_flow_store(config(rgb, out=str(rgb.parent / "whole")), NullProgress())
    computed: list[str] = []
    real = build_flow._flow_of_rows

    def interrupted(
        source: FrameStore, rows: VideoRows, spec: FlowSpec
    ) -> Iterator[tuple[int, np.ndarray]]:
        computed.append(rows.video_id)
        if rows.video_id == "one":
            raise KeyboardInterrupt
        return real(source, rows, spec)

    monkeypatch.setattr(build_flow, "_flow_of_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_flow_store(config(rgb, parallel_units=1), NullProgress())
    assert [p.name for p in (rgb.parent / "flow").glob("unit-*")] == ["unit-00000.arrow"]
    monkeypatch.undo()
    first = (rgb.parent / "flow" / "unit-00000.arrow").stat().st_mtime_ns
    store = build_flow_store(config(rgb), NullProgress())
    assert (rgb.parent / "flow" / "unit-00000.arrow").stat().st_mtime_ns == first
    assert store.jpegs("b", range(7)) == whole.jpegs("b", range(7))
    assert computed == ["a", "b", "b", "one"]


STUCK = """
import sys, time
from pathlib import Path
from distinit.cli import main
from distinit.pipeline.frames import build_flow

real = build_flow._flow_of_rows

def stuck(source, rows, spec):
    if rows.video_id == "one":
        Path(flag).touch()
        time.sleep(600)
    return real(source, rows, spec)

build_flow._flow_of_rows = stuck
flag, *options = sys.argv[1:]
main(["flow", "build", *options])
"""


def test_a_build_killed_in_the_middle_of_a_unit_ends_as_an_undisturbed_one(
    rgb: Path, tmp_path: Path
) -> None:
    whole = build_flow_store(config(rgb, out=str(tmp_path / "whole")), NullProgress())
    options = ["--frames", str(rgb), "--out", str(tmp_path / "flow"), "--quiet"]
    options += ["--set", "parallel_units=1"]
    flag = tmp_path / "stuck"
    process = subprocess.Popen([sys.executable, "-c", STUCK, str(flag), *options])
    try:
        deadline = time.monotonic() + 240
        while not flag.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    assert process.returncode == -signal.SIGKILL
    commits = tmp_path / "flow" / "commits"
    assert [path.name for path in commits.iterdir()] == ["unit-00000.json"]
    with pytest.raises(FrameStoreError, match="is not finished"):
        FrameStore.open(tmp_path / "flow")
    flow_stage.build_flow(
        config(rgb, out=str(tmp_path / "flow"))
    )  # the killed process no longer holds the lock
    store = FrameStore.open(tmp_path / "flow")
    assert verify_store(store.root, deep=True, progress=NullProgress()).problems == ()
    assert store.pixels_digest() == whole.pixels_digest()
    assert contents(store.root) == contents(whole.root)


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a store except its lock, which names the last writer."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_stores_that_do_not_fit_are_refused(rgb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_flow_store(config(rgb), NullProgress())
    with pytest.raises(FrameStoreError, match="another kind of frames"):
        build_flow_store(config(rgb, flow_range=5), NullProgress())
    with pytest.raises(FrameStoreError, match="is a flow store already"):
        build_flow_store(config(rgb.parent / "flow", out=str(rgb.parent / "x")), NullProgress())
    with pytest.raises(FrameStoreError, match="another kind of frames"):
        FrameStoreWriter(rgb, FrameGeometry(), "0" * 64, SPEC)
    writer = FrameStoreWriter(rgb.parent / "new", FrameGeometry(), "0" * 64, SPEC)
    with writer.open_unit(0) as unit, pytest.raises(FrameStoreError, match="cannot be stored"):
        unit.append("a", "aa" * 32, 0, moving(2, 0, 0), 10.0)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="needs OpenCV") as caught:
        build_flow_store(config(rgb), NullProgress())
    assert caught.value.remedy == "install it: pip install opencv-python-headless"
