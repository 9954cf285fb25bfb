"""Teachers that have changed, or that have no usable output for some videos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.progress import RecordingProgress
from helpers.videos import make_video

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.cache.verify import verify_cache
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.teachers.registry import load_teacher
from distinit.schemas.audit import AuditConfig
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import CacheMismatchError, TeacherError, TooManyFailuresError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.teacher import TeacherRequest
from distinit.stages.audit import audit
from distinit.stages.distill import distill
from distinit.stages.extract import _load_same_teachers, extract

PLUGIN = """
from made_network import Net
from distinit.schemas.teacher import PreprocessSpec

def teach(weights, device):
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=8, crop_size=8, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return Net(), spec, [], ""
"""
NETWORK = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
"""
FUSSY = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        logits = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        white = x.mean(dim=(1, 2, 3)) > 0.9
        return torch.where(white[:, None], BAD, logits)
"""
REQUEST = TeacherRequest(name="plugin:made_teacher:teach", id="made")


class Folder:
    """A folder on Python's path with a plugin whose network can be edited."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(root)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # its timestamps are in whole seconds
        (root / "made_teacher.py").write_text(PLUGIN)
        self.write(NETWORK)

    def write(self, network: str) -> None:
        (self._root / "made_network.py").write_text(network)
        for name in ("made_teacher", "made_network"):
            self._monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return Folder(folder, monkeypatch)


def config_of(
    corpus: Path, root: Path, *requests: TeacherRequest, **changes: object
) -> ExtractConfig:
    fields = {"videos": str(corpus), "teachers": requests, "cache": str(root), "max_failed": 1.0}
    return ExtractConfig.model_validate(fields | changes)


def test_a_teacher_whose_imported_code_was_edited_is_refused(
    corpus: Path, tmp_path: Path, plugin: Folder
) -> None:
    config = config_of(corpus, tmp_path / "cache", REQUEST)
    assert extract(config).complete
    assert extract(config).frames_done == 0
    plugin.write(NETWORK.replace("avg", "max"))
    with pytest.raises(CacheMismatchError) as raised:
        extract(config)
    assert raised.value.problem == "the cache has another teacher named made"
    assert str(raised.value.found).startswith("output for the probe picture: class ")


def test_a_worker_with_another_teacher_than_the_driver_reports_the_difference(
    corpus: Path, tmp_path: Path, plugin: Folder
) -> None:
    config = config_of(corpus, tmp_path / "cache", REQUEST)
    identities = {"made": load_teacher(REQUEST).identity}
    assert list(_load_same_teachers(config, identities)) == ["made"]
    plugin.write(NETWORK.replace("avg", "max"))
    with pytest.raises(TeacherError, match="output for the probe picture") as raised:
        _load_same_teachers(config, identities)
    assert "differs from that of the driver" in raised.value.problem


@pytest.fixture
def footage(tmp_path: Path, ffmpeg_exe: str) -> Path:
    """a.mp4 and c.mp4 are ordinary; frames 17 to 19 of b.mp4 are white."""
    root = tmp_path / "footage"
    for seed, name in enumerate("ac"):
        make_video(root / f"{name}.mp4", frames=12, seed=seed)
    pixels = np.zeros((20, 48, 64, 3), np.uint8)
    pixels[17:] = 255
    command = [ffmpeg_exe, "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48"]
    command += ["-r", "10", "-i", "pipe:0", "-c:v", "libx264", f"file:{root / 'b.mp4'}"]
    subprocess.run(command, input=pixels.tobytes(), check=True)
    return root


@pytest.mark.parametrize(
    ("bad", "changes", "error"),
    [
        ("torch.nan", {}, "teacher made gave NaN: frame 17; check its weights and its code"),
        ("torch.inf", {"precision": "bf16"}, "gave infinity: frame 17; use precision fp32"),
        (
            "1e5",
            {},
            "gave a value too large for float16: frame 17; store this teacher with encoding int8",
        ),
    ],
    ids=["NaN", "infinity", "float16"],
)
def test_a_video_without_a_usable_output_fails_and_the_error_names_the_frame(
    bad: str, changes: dict[str, Any], error: str, footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(FUSSY.replace("BAD", bad))
    root = tmp_path / "cache"
    config = config_of(footage, root, REQUEST, frames=str(tmp_path / "frames"), **changes)
    progress = RecordingProgress()
    result = extract(config, progress=progress)
    assert (result.complete, result.frames, result.rows) == (True, 24, 24)
    (failed,) = result.failed
    assert failed.path == "b.mp4"
    assert failed.error.endswith(error)
    assert f"failed: b.mp4: {failed.error}" in progress.messages
    assert verify_cache(root).problems == ()
    assert len(FrameStore.open(tmp_path / "frames").video_ids) == 2
    assert extract(config).frames_done == 0


def test_int8_stores_values_too_large_for_float16(
    footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(FUSSY.replace("BAD", "1e5"))
    request = REQUEST.model_copy(update={"encoding": "int8"})
    result = extract(config_of(footage, tmp_path / "cache", request))
    assert (result.failed, result.rows) == ((), 44)


def test_a_teacher_that_fails_on_most_videos_ends_the_run(
    footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(FUSSY.replace("BAD", "1e5").replace("> 0.9", "> -0.9"))
    config = config_of(footage, tmp_path / "cache", REQUEST, max_failed=0.4)
    with pytest.raises(TooManyFailuresError) as raised:
        extract(config)
    assert "x teacher made gave a value too large for float16" in str(raised.value.found)


def test_a_video_is_stored_for_both_teachers_of_a_pass_or_for_neither(
    footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(FUSSY.replace("BAD", "torch.nan"))
    root = tmp_path / "cache"
    result = extract(config_of(footage, root, TeacherRequest(name="null"), REQUEST))
    assert [video.path for video in result.failed] == ["b.mp4"]
    assert (result.complete, result.rows) == (True, 24)
    assert verify_cache(root).problems == ()


def test_a_teacher_added_later_skips_a_video_that_failed_before(
    footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(FUSSY.replace("BAD", "torch.nan"))
    root = tmp_path / "cache"
    extract(config_of(footage, root, REQUEST))
    result = extract(config_of(footage, root, TeacherRequest(name="null")))
    assert (result.complete, result.rows, result.frames_done) == (True, 24, 24)
    assert [video.path for video in result.failed] == ["b.mp4"]
    assert verify_cache(root).problems == ()


def test_extract_audit_and_distill_warn_of_a_teacher_with_constant_logits(
    footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    plugin.write(NETWORK.replace("flatten(1)", "flatten(1) * 0 + 3"))
    root, frames = tmp_path / "cache", tmp_path / "frames"
    result = extract(config_of(footage, root, REQUEST, frames=str(frames)))
    warning = "all logits are equal for 100.0% of the frames"
    assert f"warning: teacher made: {warning}" in result.summary().splitlines()
    assert result.answers["made"].flat_fraction == 1.0
    report = audit(AuditConfig(cache=str(root), out=str(tmp_path / "report")))
    assert f"  warning: {warning}" in report.summary().splitlines()
    assert warning in (tmp_path / "report" / "report.html").read_text()
    config = DistillConfig.model_validate(
        {
            "cache": str(root),
            "frames": str(frames),
            "out": str(tmp_path / "run"),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 4, "crop": 32},
            "targets": [{"filter": {"keep_fraction": 0.5}}],
            "optimizer": {"epochs": 1, "clips_per_epoch": 4},
            "runtime": {"batch_size": 4, "loader_workers": 0},
        }
    )
    progress = RecordingProgress()
    distill(config, progress=progress)
    assert (
        "warning: teacher made: the entropy of 100% of all targets equals the threshold of "
        "2.485 nats; all of them are kept, which makes 100% of the clips"
    ) in progress.messages


@pytest.mark.parametrize("target", ["logits", "features"])
def test_a_video_without_a_usable_output_of_a_later_teacher_fails_for_all_teachers(
    target: str, footage: Path, tmp_path: Path, plugin: Folder
) -> None:
    """As in one pass or in the other order; the targets of the first teacher are kept."""
    plugin.write(FUSSY.replace("BAD", "torch.nan"))
    root, null = tmp_path / "cache", TeacherRequest(name="null")
    later = REQUEST.model_copy(update={"target": target})
    assert extract(config_of(footage, root, null)).rows == 44
    result = extract(config_of(footage, root, later))
    assert (result.complete, result.frames) == (True, 24)
    (failed,) = result.failed
    assert (failed.path, failed.error[:35]) == ("b.mp4", "teacher made gave NaN: frame 17; ch")
    assert verify_cache(root).problems == ()
    status = {row["path"]: row["status"] for row in TargetCache.open(root).videos.to_pylist()}
    assert status == {"a.mp4": "ok", "b.mp4": "failed", "c.mp4": "ok"}
    state = TargetCache.open(root).read_state()
    assert {v.status for v in state.commits["null"][0].videos} == {"ok"}
    assert list(state.commits["made"][0].refused.values()) == [failed.error]
    audit(AuditConfig(cache=str(root), out=str(tmp_path / "report")))
    for request in (null, later):
        again = extract(config_of(footage, root, request, retry_failed=True))
        assert (again.frames_done, again.complete, len(again.failed)) == (0, True, 1)
    assert again.content_digest == result.content_digest
    third = TeacherRequest(name="null", id="third")
    assert extract(config_of(footage, root, third)).complete
    assert verify_cache(root).problems == ()


def test_a_wrong_teacher_is_reported_before_the_videos_are_read(tmp_path: Path) -> None:
    """There is no such folder of videos either."""
    config = config_of(tmp_path / "nowhere", tmp_path / "cache", TeacherRequest(name="resnet5"))
    with pytest.raises(TeacherError, match="resnet5"):
        extract(config)
