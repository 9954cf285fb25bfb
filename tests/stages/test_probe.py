"""`distinit probe` on real videos: its rows, its files, and what a second call computes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.progress import RecordingProgress
from helpers.students import TINY, save_distilled

from distinit.cli import main
from distinit.pipeline.evaluation.feature_files import read_features_record
from distinit.pipeline.records import read_record
from distinit.schemas.errors import CacheError, ConfigError, DistInitError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.probe import ProbeConfig, ProbeResult
from distinit.schemas.training import FLOW_PIXELS
from distinit.stages.extract import extract
from distinit.stages.finetune_result import FinetuneResult
from distinit.stages.probe import probe

type Finished = tuple[FinetuneConfig, FinetuneResult]
LINEAR = {"learning_rates": (0.01, 0.1), "weight_decays": (0.0,), "steps": 20}


@pytest.fixture(scope="module")
def labelled_cache(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("labelled") / "cache"
    values = {"videos": str(dataset), "teachers": [{"name": "null"}], "cache": str(cache)}
    extract(ExtractConfig.model_validate(values))
    return cache


@pytest.fixture(scope="module")
def config(
    finished: Finished, labelled_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> ProbeConfig:
    return ProbeConfig.model_validate(
        {
            "dataset": {"root": finished[0].dataset.root},
            "frames": finished[0].frames,
            "inits": (f"file:{finished[0].out}", "scratch"),
            "cache": str(labelled_cache),
            "out": str(tmp_path_factory.mktemp("probe") / "out"),
            "evaluation": {"protocol": "vmz-2"},
            "linear": LINEAR,
            "shots": (1, 2),
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def probed(config: ProbeConfig) -> ProbeResult:
    return probe(config)


def changed(config: ProbeConfig, **values: Any) -> ProbeConfig:
    return ProbeConfig.model_validate(config.model_dump(exclude_unset=True) | values)


def test_all_rows_are_there_or_say_why_not(probed: ProbeResult, config: ProbeConfig) -> None:
    assert [(row.name, row.kind) for row in probed.rows] == [
        ("random init", "random"),
        ("inflated ImageNet", "inflated"),
        (config.inits[0], "init"),
        ("teacher null", "teacher"),
    ]
    random, inflated, trained, teacher = probed.rows
    assert inflated.measures is None
    assert "cannot be inflated" in inflated.missing
    assert random.sha256 != trained.sha256
    assert random.feature_dim == trained.feature_dim == 128
    assert "logits" in teacher.features
    assert teacher.absent_videos == 0
    assert probed.classes == 2
    assert (probed.train_videos, probed.held_out_videos) == (8, 2)
    assert sorted(probed.undecodable) == ["test/grey/torn.mp4", "train/blue/torn.mp4"]


def test_a_student_that_learned_the_classes_is_perfect_but_for_the_torn_video(
    probed: ProbeResult,
) -> None:
    random, trained = probed.rows[0].measures, probed.rows[2].measures
    assert random is not None
    assert trained is not None
    assert probed.test_videos == 5  # one of them is torn
    assert trained.linear.top1 == 80.0
    assert trained.retrieval == {"1": 80.0, "5": 80.0}
    assert [few.top1_mean for few in trained.low_shot] == [80.0, 80.0, 80.0]
    assert random.low_shot[0].top1_mean <= 80.0
    assert {(score.k, score.used_k) for score in trained.knn} == {(20, 8), (200, 8)}


def test_the_files_hold_the_result(probed: ProbeResult, config: ProbeConfig) -> None:
    out = Path(config.out)
    stored = read_record(out / "probe.json", ProbeResult, error=DistInitError, remedy="")
    assert stored == probed
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "probe.csv").read_text().count("\n") == 1 + 3 * 10 + 1
    assert "# Probe of frozen features" in (out / "probe.md").read_text()
    assert [Path(path).name for path in probed.files.values()] == [
        "probe.csv",
        "probe.md",
        "probe.png",
    ]
    assert len(list((out / "features").iterdir())) == 2
    for folder in (out / "features").iterdir():
        assert read_features_record(folder).identity[:16] == folder.name


def test_a_second_probe_uses_the_stored_features(probed: ProbeResult, config: ProbeConfig) -> None:
    progress = RecordingProgress()
    again = probe(changed(config, shots=(1,)), progress=progress)
    assert not [phase for phase in progress.started if phase[0] == "features"]
    assert [phase[0] for phase in progress.started if phase[2] == "steps"] == [
        "probe random init",
        f"probe {config.inits[0]}",
        "probe teacher null",
    ]
    for before, after in zip(probed.rows, again.rows, strict=True):
        if before.measures is not None and after.measures is not None:
            assert after.measures.linear == before.measures.linear
            assert after.measures.low_shot == (
                before.measures.low_shot[0],
                before.measures.low_shot[2],
            )
    progress = RecordingProgress()
    probe(
        changed(config, inits=(), student=TINY, cache=None, seed=1, clip={"frames": 2, "crop": 32}),
        progress=progress,
    )
    assert [phase for phase in progress.started if phase[0] == "features"], "other random weights"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"inits": ()}, ConfigError, "does not know which network"),
        ({"teachers": ("other",)}, CacheError, 'no teacher "other"'),
        ({"inits": ("distinit:nowhere",)}, DistInitError, "no student at nowhere"),
    ],
)
def test_mistakes_are_found_before_any_work(
    values: dict[str, Any],
    error: type[DistInitError],
    message: str,
    config: ProbeConfig,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=message):
        probe(changed(config, out=str(out), **values))
    assert not out.exists()


def test_an_inflated_file_takes_the_place_of_the_imagenet_row(
    config: ProbeConfig, tmp_path: Path
) -> None:
    image = save_distilled(tmp_path / "image", student={"name": "tiny_r2d_9"}, frames=1)
    name = f"inflated:{image / 'student.safetensors'}"
    student, clip = {"name": "tiny_r3d_9"}, {"frames": 2, "crop": 32}
    other = changed(config, inits=(name,), student=student, cache=None, clip=clip)
    rows = probe(other).rows
    assert [(row.name, row.kind) for row in rows] == [("random init", "random"), (name, "inflated")]
    assert rows[0].sha256 != rows[1].sha256
    assert rows[1].measures is not None
    missing = probe(changed(other, inits=())).rows[1]
    assert (missing.kind, missing.measures) == ("inflated", None)
    assert "tiny_r2d_9 has no published weights" in missing.missing


def test_students_of_flow_are_measured_on_flow(config: ProbeConfig, tmp_path: Path) -> None:
    flow = save_distilled(tmp_path / "flow", student={"name": TINY.name, "in_channels": 2})
    values = {"cache": None, "flow": str(tmp_path / "store"), "evaluation": {"protocol": "vmz-1"}}
    result = probe(changed(config, inits=(f"distinit:{flow}",), **values))
    random, _, distilled = result.rows
    assert random.measures is not None
    assert distilled.measures is not None
    for folder in (Path(config.out) / "features").iterdir():
        record = read_features_record(folder)
        if record.init == distilled.name:
            assert record.inputs.network.in_channels == 2
            assert record.inputs.clip.mean == FLOW_PIXELS["mean"]
            break
    else:
        pytest.fail("no features of the distilled student")
    mixed = (f"distinit:{flow}", config.inits[0])
    with pytest.raises(ConfigError, match="read different pixels"):
        probe(changed(config, inits=mixed, **values))


def test_a_cache_without_the_test_videos_is_refused(
    config: ProbeConfig, dataset: Path, tmp_path: Path
) -> None:
    values = {"videos": str(dataset / "train"), "teachers": [{"name": "null"}]}
    extract(ExtractConfig.model_validate(values | {"cache": str(tmp_path / "cache")}))
    with pytest.raises(CacheError, match="lacks most videos of the dataset"):
        probe(changed(config, cache=str(tmp_path / "cache")))


def test_the_command_prints_a_table_or_json(probed: ProbeResult, config: ProbeConfig) -> None:
    assert config.frames is not None
    argv = ["probe", "--dataset", config.dataset.root, "--frames", config.frames]
    argv += ["--init", config.inits[0], "--out", config.out, "--protocol", "vmz-2"]
    argv += ["--device", "cpu", "--quiet", "--set", "linear.steps=20", "--set", "shots=[1]"]
    text = CliRunner().invoke(main, argv)
    assert text.exit_code == 0, text.output
    assert "random init" in text.output
    assert "tiny_r2plus1d_10 cannot be inflated" in text.output
    result = json.loads(CliRunner().invoke(main, [*argv, "--json"]).stdout)
    assert [row["kind"] for row in result["rows"]] == ["random", "inflated", "init"]
    assert len(result["rows"][0]["measures"]["grid"]) == 20
    refused = CliRunner().invoke(main, [*argv, "--teacher", "null"])
    assert refused.exit_code == 2
    assert "needs the target cache" in refused.output
