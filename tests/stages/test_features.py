"""Exported features: their values, which files hold them, and when they are computed again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from helpers.progress import RecordingProgress
from safetensors.torch import load_file

from distinit.cli import main
from distinit.pipeline.evaluation.clips import clip_indices, parse_protocol, protocol_clip_starts
from distinit.pipeline.evaluation.feature_files import read_features
from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.progress import Progress
from distinit.pipeline.students.io import read_student
from distinit.schemas.errors import ConfigError, FeaturesError
from distinit.schemas.features import FeaturesConfig, FeaturesResult
from distinit.schemas.finetune import FinetuneConfig
from distinit.stages import features as stage
from distinit.stages.features import features
from distinit.stages.finetune_result import FinetuneResult

type Finished = tuple[FinetuneConfig, FinetuneResult]


@pytest.fixture(scope="module")
def config(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> FeaturesConfig:
    return FeaturesConfig.model_validate(
        {
            "run": finished[0].out,
            "dataset": {"root": finished[0].dataset.root},
            "frames": finished[0].frames,
            "out": str(tmp_path_factory.mktemp("features") / "out"),
            "evaluation": {"protocol": "vmz-2"},
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def exported(config: FeaturesConfig) -> FeaturesResult:
    return features(config)


def test_features_are_the_student_s_on_each_video(
    exported: FeaturesResult, config: FeaturesConfig
) -> None:
    """The last video, computed step by step without the code that exports features."""
    assert config.run is not None
    assert config.frames is not None
    assert exported.record.init == config.run, "as it was named"
    student, record = read_student(Path(config.run))
    assert exported.record.inputs.clip == record.clip  # 4 frames, crop 32: not the defaults
    row = pq.read_table(Path(exported.out) / "features.parquet").to_pylist()[-1]
    store = FrameStore.open(config.frames)
    video_id = store.by_digest[row["digest"]]
    frame_count = store.videos[video_id].frame_count
    clips = []
    for start in protocol_clip_starts(parse_protocol("vmz-2"), frame_count, 4).tolist():
        frames = clip_indices(start, frame_count, 4).tolist()
        # The centre of 128 x 171 pixels, rounded down.
        pixels_TCHW = store.clip(video_id, frames)[..., 48:80, 69:101].double() / 255
        mean_C11 = torch.tensor(record.clip.mean, dtype=torch.float64)[:, None, None]
        std_C11 = torch.tensor(record.clip.std, dtype=torch.float64)[:, None, None]
        clips.append(((pixels_TCHW - mean_C11) / std_C11).float().transpose(0, 1))
    with torch.no_grad():
        expected_D = student.eval().backbone(torch.stack(clips)).mean(dim=0)
    assert row["clip_count"] == 2
    assert torch.allclose(torch.tensor(row["feature"]), expected_D, atol=1e-5)


def test_both_files_hold_the_same_rows(exported: FeaturesResult, finished: Finished) -> None:
    out = Path(exported.out)
    rows = pq.read_table(out / "features.parquet").to_pylist()
    tensors = load_file(out / "features.safetensors")
    table, record = read_features(out)
    dataset = json.loads((Path(finished[0].out) / "dataset.json").read_text())
    whole = [v for v in dataset["videos"] if v["path"] not in dataset["undecodable"]]
    assert len(whole) == len(rows) == record.videos == 12
    assert [row["digest"] for row in rows] == [video["digest"] for video in whole]
    assert [row["path"] for row in rows] == [video["path"] for video in whole]
    assert table.digests == [row["digest"] for row in rows]
    assert [record.classes[i] for i in table.label_N] == [row["label"] for row in rows]
    assert [row["subset"] == "test" for row in rows] == table.is_test_N.tolist()
    assert sorted({row["label"] for row in rows}) == ["blue", "grey"]
    assert torch.equal(torch.tensor([row["feature"] for row in rows]), tensors["features_ND"])
    assert tensors["features_ND"].shape == (12, exported.record.feature_dim) == (12, 128)
    assert sorted(record.undecodable) == ["test/grey/torn.mp4", "train/blue/torn.mp4"]


def test_finished_features_are_kept_and_others_refused(
    exported: FeaturesResult, config: FeaturesConfig
) -> None:
    path = Path(exported.out) / "features.safetensors"
    before = path.stat().st_mtime_ns
    progress = RecordingProgress()
    assert features(config, progress=progress) == exported
    assert path.stat().st_mtime_ns == before
    assert progress.started == []
    other = config.model_copy(update={"run": None, "init": "scratch", "student": None})
    with pytest.raises(ConfigError, match="does not name the network"):
        features(other)
    other = config.model_copy(update={"seed": 1})  # a trained student does not depend on it
    assert features(other) == exported
    protocol = config.evaluation.model_copy(update={"protocol": "vmz-1"})
    with pytest.raises(FeaturesError, match="holds other features"):
        features(config.model_copy(update={"evaluation": protocol}))


def test_a_killed_export_resumes_after_its_last_part(
    exported: FeaturesResult,
    config: FeaturesConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "_PART_VIDEOS", 5)
    killed_config = config.model_copy(update={"out": str(tmp_path / "killed")})
    read = stage.FeatureReader.features
    calls: list[int] = []

    def interrupted(
        self: stage.FeatureReader, video_ids: Sequence[str], progress: Progress
    ) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(self, video_ids, progress)

    with monkeypatch.context() as patch:
        patch.setattr(stage.FeatureReader, "features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            features(killed_config)
    parts = sorted(tmp_path.glob("killed/part-*"))
    assert len(parts) == 2
    assert not (tmp_path / "killed" / "features.json").exists()
    parts[0].write_bytes(b"torn")  # is computed again
    progress = RecordingProgress()
    features(killed_config, progress=progress)
    assert progress.started == [("features", 12, "videos", 0)]
    assert progress.advances[0][0] != 5, "the torn part was used"
    assert progress.advanced == 12
    ours, _ = read_features(tmp_path / "killed")
    whole, _ = read_features(Path(exported.out))
    assert torch.allclose(ours.features_ND, whole.features_ND, atol=1e-6)
    assert list(tmp_path.glob("killed/part-*")) == []


def test_damaged_features_are_refused(
    exported: FeaturesResult, config: FeaturesConfig, tmp_path: Path
) -> None:
    for name in exported.files:
        (tmp_path / Path(name).name).write_bytes(Path(name).read_bytes())
    data = bytearray((tmp_path / "features.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "features.safetensors").write_bytes(data)
    with pytest.raises(FeaturesError, match="damaged"):
        features(config.model_copy(update={"out": str(tmp_path)}))


def test_the_command_takes_any_init(
    config: FeaturesConfig, configure: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    assert config.frames is not None
    argv = ["features", "--dataset", config.dataset.root, "--frames", config.frames]
    argv += ["--out", str(tmp_path / "random"), "--protocol", "vmz-1", "--quiet", "--json"]
    result = CliRunner().invoke(main, [*argv, "--run", "a", "--init", "scratch"])
    assert result.exit_code == 2
    assert "either --run or --init" in result.output
    network = ["--init", "scratch", "--student", "tiny_r2plus1d_10", "--device", "cpu"]
    sizes = ["--set", "clip.crop=32", "--set", "clip.frames=2"]
    result = CliRunner().invoke(main, [*argv, *network, *sizes])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["record"]
    assert record["init"] == "scratch"
    assert (record["inputs"]["clip"]["crop"], record["inputs"]["clip"]["frames"]) == (32, 2)
    table, _ = read_features(tmp_path / "random")
    assert table.features_ND.shape == (12, 128)
    assert bool(torch.isfinite(table.features_ND).all())
    assert float(table.features_ND.std(dim=0).max()) > 0
