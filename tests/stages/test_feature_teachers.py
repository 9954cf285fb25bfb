"""Two feature teachers and one logit teacher over real videos, by commands: from `extract` on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import run_command
from helpers.videos import make_video
from helpers.vocabularies import make_vocabulary, random_embeddings
from numpy.typing import NDArray

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.normalization_file import read_normalizations
from distinit.pipeline.inference.student import load_student
from distinit.pipeline.students.io import NORMALIZATION_NAME
from distinit.pipeline.teachers.registry import load_teacher
from distinit.pipeline.video.decode import open_video
from distinit.schemas.teacher import TeacherRequest
from distinit.schemas.video import DecodeConfig

PLUGIN = """
import torch
from torch import nn

from distinit import PreprocessSpec

class Scaled(nn.Module):
    def forward(self, values):
        return 100 * values

def made(seed, outputs, *last):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(256, outputs), *last)
    spec = PreprocessSpec(
        resize_mode="squash", resize_size=32, crop_size=32, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return network, spec, (), ""

def small(weights, device):
    return made(1, 24)

def large(weights, device):
    return made(2, 40, Scaled())

def classes(weights, device):
    return made(3, 10, Scaled())
"""
MODULE = "teachers_of_three_kinds"
TEACHERS = ("small", "large", "classes")
VIDEOS = {"a.mp4": 14, "b.mp4": 9, "c/d.mp4": 11}
SCALES = {"birds": (4, 0, 100.0), "tools": (7, 1, 20.0)}
"""Vocabulary -> number of names, seed, scale."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``videos``, and the ``cache`` and ``frames`` that `extract` made of them."""
    root = tmp_path_factory.mktemp("three")
    (root / f"{MODULE}.py").write_text(PLUGIN)
    for seed, (name, frames) in enumerate(VIDEOS.items()):
        make_video(root / "videos" / name, frames=frames, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        command = ["extract", "--videos", str(root / "videos"), "--target", "features"]
        for number, name in enumerate(TEACHERS):
            command += ["--teacher", f"plugin:{MODULE}:{name}"]
            command += ["--set", f"teachers.{number}.id={name}"]
        command += ["--set", "teachers.2.target=logits", "--frames", str(root / "frames")]
        done(*command, "--cache", str(root / "cache"))
        yield root
    sys.modules.pop(MODULE, None)


def done(*command: str) -> str:
    """What a command prints that succeeds."""
    code, output = run_command([*command, "--quiet"])
    assert code == 0, output
    return output


def live_features(root: Path, name: str) -> dict[str, NDArray[np.float32]]:
    """Id of each video -> features of the teacher, computed from the video without a cache."""
    teacher = load_teacher(TeacherRequest(name=f"plugin:{MODULE}:{name}", target="features"))
    features = {}
    for row in TargetCache.open(root / "cache").videos.to_pylist():
        path = root / "videos" / row["path"]
        with open_video(path, {"full": teacher.view}, DecodeConfig()) as stream:
            frames_NHWC = np.concatenate([block.views["full"].copy() for block in stream])
        features[row["video_id"]] = teacher.forward(frames_NHWC)
    return features


def test_the_audit_shows_each_teacher_as_what_it_is(root: Path, tmp_path: Path) -> None:
    text = done("audit", str(root / "cache"), "--out", str(tmp_path))
    assert "teacher classes: entropy quartiles" in text
    assert "teacher small: 34 features of 24 channels, norm" in text
    assert "teacher large: 34 features of 40 channels, norm" in text
    found = json.loads((tmp_path / "audit.json").read_text())
    assert sum(VIDEOS.values()) == 34 == found["frames"]
    kinds = {one["record"]["id"]: one["features"] is not None for one in found["teachers"]}
    assert kinds == {"small": True, "large": True, "classes": False}


@pytest.mark.parametrize("normalize", ["none", "standardize", "phi_s"])
def test_one_student_learns_from_all_three_with_each_normalization(
    normalize: str, root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["distill", "--cache", str(root / "cache"), "--frames", str(root / "frames")]
    command += ["--student", "tiny_r2plus1d_10", "--out", str(run), "--normalize", normalize]
    command += ["--set", f"targets=[{', '.join(f'{{teacher: {name}}}' for name in TEACHERS)}]"]
    command += ["--set", "clip.frames=4", "--set", "clip.crop=32", "--device", "cpu"]
    command += ["--epochs", "1", "--clips-per-epoch", "8", "--batch-size", "4"]
    done(*command)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    losses = [last[f"loss/{name}"] for name in TEACHERS]
    assert last["loss"] == pytest.approx(sum(losses), rel=1e-6)

    student = load_student(run)
    expected = None if normalize == "none" else normalize
    heads = {head.name: (head.outputs, head.normalize) for head in student.record.heads}
    assert heads == {"small": (24, expected), "large": (40, expected), "classes": (10, None)}
    assert (run / NORMALIZATION_NAME).exists() == (normalize != "none")
    if normalize == "none":
        return
    cache, normalizations = TargetCache.open(root / "cache"), read_normalizations(run)
    for name in ("small", "large"):
        targets = cache.targets(name)
        rows_ND = np.concatenate([targets.of(v).logits_NC for v in targets.video_ids])
        normalized_ND = normalizations[name].apply(torch.from_numpy(rows_ND)).numpy()
        assert np.abs(normalized_ND.mean(axis=0)).max() < 1e-3
        np.testing.assert_allclose(normalized_ND.var(axis=0), 1, atol=5e-3)


def test_vocabularies_give_the_logits_of_the_live_teacher(root: Path, tmp_path: Path) -> None:
    identity = TargetCache.open(root / "cache").teachers["large"].identity
    command = ["cache", "relabel", str(root / "cache"), "--teacher", "large"]
    for label, (names, seed, scale) in SCALES.items():
        path = tmp_path / f"{label}.safetensors"
        make_vocabulary(
            path, 40, names=names, seed=seed, scale=scale, image_architecture=identity.architecture
        )
        command += ["--vocabulary", str(path)]
    done(*command, "--out", str(tmp_path / "relabelled"))
    relabelled, live = TargetCache.open(tmp_path / "relabelled"), live_features(root, "large")
    assert sorted(relabelled.teachers) == ["large@birds", "large@tools"]
    assert len(live) == len(VIDEOS)
    for label, (names, seed, scale) in SCALES.items():
        texts_KD = random_embeddings(names, 40, seed).astype(np.float64)
        texts_KD /= np.linalg.norm(texts_KD, axis=1, keepdims=True)
        targets = relabelled.targets(f"large@{label}")
        for video_id, features_ND in live.items():
            unit_ND = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
            logits_NK = scale * unit_ND @ texts_KD.T
            stored_NK = targets.of(video_id).logits_NC
            assert stored_NK.shape == logits_NK.shape
            assert np.abs(stored_NK - logits_NK).max() <= 1e-3 * np.abs(logits_NK).max()
    code, _ = run_command(["cache", "verify", str(tmp_path / "relabelled")])
    assert code == 0
