"""A dataset with val videos: what is trained, scored and exported, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from helpers.progress import RecordingProgress
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distinit.cli import main
from distinit.pipeline.evaluation.feature_files import read_features
from distinit.schemas.errors import ConfigError, DatasetError
from distinit.schemas.features import FeaturesConfig
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.probe import ProbeConfig
from distinit.schemas.run import EvaluationResult
from distinit.stages.evaluate import evaluate
from distinit.stages.features import features
from distinit.stages.finetune import finetune
from distinit.stages.finetune_result import FinetuneResult
from distinit.stages.finished_run import read_finished_run
from distinit.stages.probe import probe

type Trained = tuple[FinetuneConfig, FinetuneResult, list[str]]

TRAINING = {
    "optimizer": {"learning_rate": 0.01, "epochs": 2, "clips_per_epoch": 16},
    "eval_every": 1,
}


def write_csv(path: Path, dataset: Path, *, test: str) -> Path:
    """Of each class, the first three training videos and the fourth for validation."""
    lines = ["path,label,split"]
    for video in sorted(dataset.glob("*/*/* [[]a].mp4")):
        subset, label, name = video.relative_to(dataset).parts
        if subset == "train" and name.startswith("3"):
            subset = "validation"
        lines.append(f"{video.relative_to(dataset)},{label},{test if subset == 'test' else subset}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def splits(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("lists") / "val.csv", dataset, test="test")


@pytest.fixture(scope="module")
def trained(
    finished: object,  # it builds the frame store
    configure: Callable[..., FinetuneConfig],
    dataset: Path,
    splits: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    out = tmp_path_factory.mktemp("val") / "run"
    source = {"root": str(dataset), "splits": str(splits)}
    config, progress = configure(out, dataset=source, **TRAINING), RecordingProgress()
    return config, finetune(config, progress=progress), progress.messages


def test_training_is_watched_on_val_and_the_result_is_of_test(trained: Trained) -> None:
    config, result, messages = trained
    out = Path(config.out)
    assert result.training_videos == 6
    assert (result.evaluation.subset, result.evaluation.videos) == ("test", 4)
    assert "evaluating after every 1 epoch on 2 val videos" in messages
    lines = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["videos"], line["clips"]) for line in lines] == [
        (1, 2, 6),
        (2, 2, 6),
    ]
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {tag for tag in board.Tags()["scalars"] if tag.endswith("top1")} == {"val/top1"}
    assert (out / "scores-vmz-3.parquet").is_file()
    assert (out / "scores-val-vmz-3.parquet").is_file()
    assert "subset" not in json.loads((out / "result.json").read_text())
    assert result.evaluation.summary().startswith("4 test videos, 2 classes")


def test_evaluate_scores_the_subset_that_it_is_asked_for(trained: Trained) -> None:
    run = trained[0].out
    values: dict[str, Any] = {"run": run, "frames": trained[0].frames, "device": "cpu"}
    values["evaluation"] = {"protocol": "vmz-2"}
    test = evaluate(EvaluateConfig.model_validate(values))
    val = evaluate(EvaluateConfig.model_validate(values | {"subset": "val"}))
    assert [(r.subset, r.videos, r.clips) for r in (test, val)] == [("test", 4, 8), ("val", 2, 4)]
    stored = EvaluationResult.model_validate_json(Path(run, "result-val-vmz-2.json").read_bytes())
    assert stored == val
    assert EvaluationResult.model_validate_json(Path(run, "result-vmz-2.json").read_bytes()) == test
    again = ["evaluate", "--run", run, "--subset", "val", "--protocol", "vmz-2", "--from-scores"]
    shown = CliRunner().invoke(main, [*again, "--split", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["subset"] == "val"
    # The scores of other videos are not taken for these.
    Path(run, "scores-val-vmz-2.parquet").replace(Path(run, "scores-vmz-2.parquet"))
    refused = CliRunner().invoke(main, [again[0], *again[1:3], *again[5:]])
    assert refused.exit_code != 0


def test_a_run_without_val_videos_has_none_to_score(
    finished: tuple[FinetuneConfig, FinetuneResult],
) -> None:
    config = EvaluateConfig(run=finished[0].out, frames=finished[0].frames, subset="val")
    with pytest.raises(ConfigError, match="has no val videos"):
        evaluate(config)


def test_without_test_videos_the_result_is_that_of_the_val_videos(
    trained: Trained, configure: Callable[..., FinetuneConfig], dataset: Path, tmp_path: Path
) -> None:
    splits = write_csv(tmp_path / "no-test.csv", dataset, test="unused")
    source = {"root": str(dataset), "splits": str(splits)}
    progress = RecordingProgress()
    config = configure(tmp_path / "run", dataset=source, **TRAINING)
    result = finetune(config, progress=progress).evaluation
    assert (result.subset, result.videos) == ("val", 2)
    assert result.summary().startswith("2 val videos, 2 classes")
    note = "note: the dataset has no test videos: the result is that of its val videos"
    assert note in progress.messages
    assert json.loads((tmp_path / "run/result.json").read_text())["subset"] == "val"
    assert read_finished_run(tmp_path / "run").videos_C.tolist() == [1, 1]
    # The same training videos, so the same student, and the same scores as during the other run.
    names = [Path(root, "student.safetensors") for root in (config.out, trained[0].out)]
    weights, expected = (load_file(name) for name in names)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_exported_features_keep_the_subset(trained: Trained, tmp_path: Path) -> None:
    config = trained[0]
    values: dict[str, Any] = {
        "run": config.out,
        "dataset": config.dataset.model_dump(),
        "frames": config.frames,
        "out": str(tmp_path / "features"),
        "evaluation": {"protocol": "vmz-1"},
        "device": "cpu",
    }
    features(FeaturesConfig.model_validate(values))
    subsets = pq.read_table(tmp_path / "features/features.parquet")["subset"].to_pylist()
    assert sorted(subsets) == ["test"] * 4 + ["train"] * 6 + ["val"] * 2
    table, _ = read_features(tmp_path / "features")
    assert table.is_test_N.tolist() == [subset == "test" for subset in subsets]
    assert table.is_val_N.tolist() == [subset == "val" for subset in subsets]
    assert table.scored_rows.tolist() == table.is_test_N.tolist()


def test_features_without_val_videos_are_stored_as_before(
    finished: tuple[FinetuneConfig, FinetuneResult], tmp_path: Path
) -> None:
    config = finished[0]
    values: dict[str, Any] = {
        "run": config.out,
        "dataset": {"root": config.dataset.root},
        "frames": config.frames,
        "out": str(tmp_path / "features"),
        "evaluation": {"protocol": "vmz-1"},
        "device": "cpu",
    }
    features(FeaturesConfig.model_validate(values))
    names = set(load_file(tmp_path / "features/features.safetensors"))
    assert names == {"features_ND", "label_N", "is_test_N", "clip_count_N", "digest_N32"}
    table, record = read_features(tmp_path / "features")
    assert table.is_val_N.tolist() == [False] * record.videos


def test_a_probe_neither_trains_nor_tests_on_val_videos(trained: Trained, tmp_path: Path) -> None:
    config = trained[0]
    result = probe(
        ProbeConfig.model_validate(
            {
                "dataset": config.dataset.model_dump(),
                "frames": config.frames,
                "inits": (f"file:{config.out}",),
                "out": str(tmp_path / "probe"),
                "evaluation": {"protocol": "vmz-1"},
                "linear": {"learning_rates": (0.1,), "weight_decays": (0.0,), "steps": 5},
                "shots": (3,),
                "device": "cpu",
            }
        )
    )
    assert (result.train_videos, result.test_videos) == (6, 4)
    assert result.short_classes == {"3": ()}


def test_a_class_that_is_only_in_val_is_refused(
    configure: Callable[..., FinetuneConfig], dataset: Path, tmp_path: Path, splits: Path
) -> None:
    (tmp_path / "new.csv").write_text(splits.read_text().replace(",grey,validation", ",x,val"))
    source = {"root": str(dataset), "splits": str(tmp_path / "new.csv")}
    with pytest.raises(DatasetError, match="different classes") as raised:
        finetune(configure(tmp_path / "run", dataset=source))
    assert "not in train: x" in str(raised.value)
