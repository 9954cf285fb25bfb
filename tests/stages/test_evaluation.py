"""Scores of a run are stored, averaged again without network, and computed during training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.students import CLIP

from distinit.cli import main
from distinit.pipeline.evaluation.epochs import EpochEvaluator
from distinit.schemas.errors import ConfigError, StorageError
from distinit.schemas.finetune import EvaluateConfig, FinetuneConfig
from distinit.schemas.run import EvaluationResult
from distinit.stages.evaluate import evaluate
from distinit.stages.finetune import finetune
from distinit.stages.finetune_result import FinetuneResult


@pytest.fixture
def run(finished: tuple[FinetuneConfig, FinetuneResult], tmp_path: Path) -> Path:
    """A copy of a finished run, far from its frame store."""
    return shutil.copytree(finished[0].out, tmp_path / "copy")


def evaluating(run: Path, **values: Any) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"run": str(run), "device": "cpu", **values})


def test_the_metrics_of_a_run_are_those_of_its_stored_scores(
    finished: tuple[FinetuneConfig, FinetuneResult], run: Path
) -> None:
    expected = finished[1].evaluation
    for name in ("student.safetensors", "checkpoints", "result.json"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    scores = {"protocol": "vmz-3"}
    found = evaluate(evaluating(run, evaluation=scores, from_scores=True))
    assert found == expected
    assert found.class_top1 == (100.0, pytest.approx(200 / 3))  # the torn video is grey
    stored = (run / "result-vmz-3.json").read_bytes()
    assert EvaluationResult.model_validate_json(stored) == expected
    maxima = evaluate(evaluating(run, evaluation=scores | {"average": "max"}, from_scores=True))
    assert (maxima.average, maxima.per_clip, maxima.clips) == ("max", expected.per_clip, 15)
    assert (run / "result-vmz-3-max.json").is_file()
    assert (run / "result-vmz-3.json").read_bytes() == stored


def test_scores_hold_every_test_video(
    finished: tuple[FinetuneConfig, FinetuneResult], run: Path
) -> None:
    rows = pq.read_table(run / "scores-vmz-3.parquet").to_pylist()
    dataset = json.loads((run / "dataset.json").read_text())
    labels = {v["path"]: v["label"] for v in dataset["videos"] if v["subset"] == "test"}
    assert {row["path"]: row["label"] for row in rows} == labels
    weights = dict.fromkeys(labels, 0)
    for row in rows:
        weights[row["path"]] += row["weight"]
    assert set(weights.values()) == {3}
    assert [row["path"] for row in rows if row["logits"] is None] == ["test/grey/torn.mp4"]
    record = json.loads(pq.read_metadata(run / "scores-vmz-3.parquet").metadata[b"distinit"])
    assert record["student"] == json.loads((run / "student.json").read_text())["tensors"]["sha256"]
    assert (record["crop"], record["clip_frames"]) == (CLIP["crop"], CLIP["frames"])


def test_scores_of_another_student_or_protocol_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"scores-vmz-10.parquet does not exist") as raised:
        evaluate(evaluating(run, from_scores=True))
    # Other tests may have scored the shared run by other protocols.
    assert "scores-vmz-3.parquet" in str(raised.value.found)
    record = json.loads((run / "student.json").read_text())
    record["tensors"]["sha256"] = "0" * 64
    (run / "student.json").write_text(json.dumps(record))
    config = evaluating(run, evaluation={"protocol": "vmz-3"}, from_scores=True)
    with pytest.raises(ConfigError, match="scores of another evaluation"):
        evaluate(config)
    shutil.copy(run / "scores-vmz-3.parquet", run / "scores-dense-s1.parquet")
    with pytest.raises(ConfigError, match="scores of another evaluation") as raised:
        evaluate(evaluating(run, evaluation={"protocol": "dense-s1"}, from_scores=True))
    assert "protocol dense-s1" in str(raised.value.expected)
    path = run / "scores-vmz-3.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match="cannot read the scores"):
        evaluate(config)


def test_bf16_gives_nearly_the_same_scores(
    finished: tuple[FinetuneConfig, FinetuneResult], run: Path
) -> None:
    logits = {}
    for precision in ("fp32", "bf16"):
        evaluation = {"protocol": "slowfast-2x3", "precision": precision}
        config = evaluating(run, frames=finished[0].frames, evaluation=evaluation)
        result = evaluate(config)
        # Frames are 128 x 171 or so: each of 2 clips has 3 crops, also of the torn video.
        assert (result.clips, result.precision) == (30, precision)
        table = pq.read_table(run / "scores-slowfast-2x3.parquet")
        logits[precision] = np.array(table["logits"].to_pylist()[:-1])
    assert 0 < np.abs(logits["bf16"] - logits["fp32"]).max() < 0.1
    assert ", bf16" in result.summary()


def test_evaluating_during_training_changes_no_bit_and_ends_with_the_result(
    finished: tuple[FinetuneConfig, FinetuneResult],
    configure: Callable[..., FinetuneConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    evaluate_epoch = EpochEvaluator.evaluate

    def counted(self: EpochEvaluator, *args: Any) -> dict[str, int | float]:
        calls.append(self.every)
        return evaluate_epoch(self, *args)

    monkeypatch.setattr(EpochEvaluator, "evaluate", counted)
    out = tmp_path / "run"
    result = finetune(configure(out, eval_every=1))
    assert calls == [1, 1]
    lines = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"], line["clips"]) for line in lines] == [
        (8, 1, 15),
        (16, 2, 15),
        (24, 3, 15),
    ]
    expected = finished[1].evaluation
    assert result.evaluation == expected
    assert (lines[-1]["top1"], lines[-1]["per_clip"]) == (expected.top1, expected.per_clip)
    for name in ("student.safetensors", "scores-vmz-3.parquet"):
        assert (out / name).read_bytes() == (Path(finished[0].out) / name).read_bytes()
    # The setting is not part of the run's identity.
    again = configure(out, eval_every=None, frames=str(tmp_path / "gone"))
    assert finetune(again).evaluation == expected


def test_the_command_line_averages_again(run: Path) -> None:
    options = ["--run", str(run), "--protocol", "vmz-3", "--from-scores", "--average", "logits"]
    done = CliRunner().invoke(main, ["evaluate", *options])
    assert done.exit_code == 0, done.output
    assert "vmz-3 (15 clips), mean of logits" in done.output
    assert "per clip 80.0   top-1 80.0\n" in done.output
    assert "top-5" not in done.output
    wrong = CliRunner().invoke(main, ["evaluate", *options[:-1], "median"])
    assert wrong.exit_code == 2
    assert "evaluation.average" in wrong.output


@pytest.mark.ray
def test_ray_workers_train_and_evaluate_the_same_bits_as_one_process(
    configure: Callable[..., FinetuneConfig], tmp_path: Path, ray_session: None
) -> None:
    values: dict[str, Any] = {
        "optimizer": {"learning_rate": 0.01, "epochs": 2, "clips_per_epoch": 32},
        "eval_every": 1,
    }
    runtime = {"batch_size": 8, "shards": 2, "device": "cpu"}
    for workers in (0, 2):
        config = configure(
            tmp_path / f"{workers}", runtime=runtime | {"workers": workers}, **values
        )
        finetune(config)
    for name in ("student.safetensors", "evaluations.jsonl", "result.json"):
        found = [(tmp_path / f"{workers}" / name).read_bytes() for workers in (0, 2)]
        assert found[0] == found[1]
    lines = (tmp_path / "2" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    tables = [pq.read_table(tmp_path / f"{n}" / "scores-vmz-3.parquet") for n in (0, 2)]
    assert tables[0].drop_columns("logits") == tables[1].drop_columns("logits")
    logits = [np.array(table["logits"].to_pylist()[:-1]) for table in tables]
    assert np.abs(logits[0] - logits[1]).max() <= 1e-6
