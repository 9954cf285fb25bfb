"""`distinit runs` lists every run directory, in whatever state it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from distinit.cli import main
from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.run import EvaluationResult, StudentRecord
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.stages.runs import list_runs

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs in four states: not begun, stopped, finished, damaged; one contains a fake run.json."""
    for name in ("begun", "stopped"):
        values = {"cache": "c", "frames": "f", "out": name, "student": {"name": "r3d_18"}}
        config = DistillConfig.model_validate(values)
        run = open_run(tmp_path / "distill" / name, "distill", config, {}, cache_digest=DIGEST)
    run.metrics.write_text(
        '{"step": 9, "epoch": 1.5, "loss": 4.0}\n{"step": 10, "epoch": 2.5, "loss": 3.25}\n{"ste'
    )
    decoy = run.checkpoints / "step-000000008"  # the metric lines are two steps ahead
    decoy.mkdir(parents=True)
    (run.checkpoints / "step-000000009.partial").mkdir()
    (decoy / "run.json").write_text("{}")
    finetune(tmp_path / "tuned")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"format": "distinit-run", "ki')
    return tmp_path


def finetune(root: Path) -> None:
    config = FinetuneConfig.model_validate(
        {"dataset": {"root": "d"}, "init": "distinit:r", "out": "o", "optimizer": {"epochs": 8}}
    )
    run = open_run(root, "finetune", config, {"dataset": "1"})
    run.metrics.write_text('{"step": 80, "epoch": 8.0, "loss": 0.5}\n')
    record = StudentRecord(
        student=StudentConfig(name="vmz_r3d_18"),
        clip=ClipConfig(),
        feature_dim=512,
        heads=(),
        trained_by="finetune",
        cache_digest=DIGEST,
        config={},
    )
    (root / "student.json").write_text(record.model_dump_json())
    run.write_result(
        EvaluationResult(
            protocol="vmz-10",
            videos=2,
            clips=20,
            per_clip=40,
            top1=50,
            top5=100,
            classes=2,
            confusion=((1, 0), (1, 0)),
            failed_videos=(),
        )
    )


def test_every_run_is_listed_with_its_state(folder: Path) -> None:
    begun, stopped, torn, tuned = list_runs(folder).runs
    assert Path(begun.path) == folder / "distill" / "begun"
    assert (begun.kind, begun.student, begun.state) == ("distill", "r3d_18", "not begun")
    assert (begun.epochs, begun.epochs_total, begun.loss) == (0, 45, None)
    assert (stopped.state, stopped.epochs, stopped.loss) == ("at step 8", 2.0, 3.25)
    assert (stopped.cache_digest, stopped.top1) == (DIGEST, None)
    assert (torn.state, torn.kind) == ("unreadable", "")
    assert (tuned.kind, tuned.student, tuned.state) == ("finetune", "vmz_r3d_18", "finished")
    assert (tuned.top1, tuned.loss, tuned.cache_digest) == (50, 0.5, DIGEST)
    assert (tuned.epochs, tuned.epochs_total) == (8, 8)


def test_a_run_without_a_checkpoint_starts_again_at_step_0(folder: Path) -> None:
    (folder / "distill" / "begun" / "metrics.jsonl").write_text('{"step": 3, "epoch": 0.5}\n')
    assert (list_runs(folder).runs[0].state, list_runs(folder).runs[0].epochs) == ("at step 0", 0)


def test_the_table_and_the_json_agree(folder: Path) -> None:
    text = CliRunner().invoke(main, ["runs", str(folder)])
    assert text.exit_code == 0
    head, _, stopped, torn, tuned = (line.split() for line in text.output.splitlines())
    assert head == ["kind", "student", "state", "epochs", "loss/top-1", "cache", "path"]
    values = "distill r3d_18 at step 8 2/45 3.2500 0123456789ab"
    assert stopped == [*values.split(), str(folder / "distill" / "stopped")]
    assert torn == ["-", "-", "unreadable", "0/0", "-", "-", str(folder / "torn")]
    assert tuned[4:7] == ["50.0", "%", "0123456789ab"]
    printed = CliRunner().invoke(main, ["runs", str(folder), "--json"]).output
    assert json.loads(printed) == list_runs(folder).model_dump(mode="json")


def test_a_run_with_a_damaged_result_is_unreadable_and_not_finished(folder: Path) -> None:
    (folder / "tuned" / "result.json").write_text("{")
    assert list_runs(folder).runs[-1].state == "unreadable"


def test_a_folder_without_runs_gives_an_empty_list_and_a_missing_one_an_error(
    tmp_path: Path,
) -> None:
    assert list_runs(tmp_path).summary() == f"no run directory below {tmp_path}"
    with pytest.raises(ConfigError, match="is not a folder"):
        list_runs(tmp_path / "nowhere")


HOSTILE: dict[str, list[bytes]] = {
    "run.json": [
        b"",
        b"[]",
        b"\xff",
        b'{"format": "distinit-run", "format": "distinit-run"}',
        b"[" * 100_000,
        b'{"kind": "\\ud800"}',
    ],
    "metrics.jsonl": [b"[]\n", b'{"step": []}\n', b'{"loss": 1}\n', b"\xff\n", b"\n" * 99],
    "result.json": [b"", b"[]", b'{"top1": "x"}', b'{"top1": 1e999}'],
    "student.json": [b"", b"[]", b'{"student": 3}'],
}


@pytest.mark.parametrize(("name", "data"), [(n, d) for n in HOSTILE for d in HOSTILE[n]])
@pytest.mark.parametrize("run", ["tuned", "distill/stopped"])
def test_damaged_files_of_a_run_never_cause_a_traceback(
    folder: Path, run: str, name: str, data: bytes
) -> None:
    (folder / run / name).write_bytes(data)
    for options in ([], ["--json"]):
        found = CliRunner().invoke(main, ["runs", str(folder), *options])
        assert (found.exit_code, found.exception) == (0, None)
    assert len(list_runs(folder).runs) == 4


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"optimizer": None, "student": 3},
        {"optimizer": {"epochs": "many"}, "student": {"name": ["x"]}},
        {"optimizer": [1], "student": {"name": "a\u001b[31mb\nok"}},
    ],
)
def test_runs_with_any_configuration_are_listed(folder: Path, config: dict[str, object]) -> None:
    path = folder / "distill" / "stopped" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config}))
    stopped = list_runs(folder).runs[1]
    assert (stopped.state, stopped.epochs_total) == ("at step 8", 0)
    shown = list_runs(folder).summary()
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 5


def test_special_files_and_odd_names_are_listed(folder: Path) -> None:
    (folder / "tuned" / "metrics.jsonl").unlink()
    os.mkfifo(folder / "tuned" / "metrics.jsonl")
    odd = folder / os.fsdecode(b"odd\xff\nname")
    (folder / "distill" / "begun").rename(odd)
    runs = {run.path: run.state for run in list_runs(folder).runs}
    assert runs[str(folder / "tuned")] == "unreadable"
    assert runs[f"{folder}/odd\\xff\nname"] == "not begun"
    found = CliRunner().invoke(main, ["runs", str(folder), "--json"])
    assert (found.exit_code, len(json.loads(found.output)["runs"])) == (0, 4)
