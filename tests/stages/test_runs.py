"""`distinit runs` lists every run directory, in whatever state it is."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from distinit.cli import main
from distinit.pipeline.lock import WriterLock
from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.run import EvaluationResult, StudentRecord
from distinit.schemas.training import ClipConfig, StudentConfig
from distinit.stages.runs import RunTable, cells, list_runs
from distinit.stages.runs_table import print_table

DIGEST = "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Runs in four states: not begun, stopped, finished, damaged; one contains a fake run.json."""
    for name in ("begun", "stopped"):
        values = {"cache": "c", "frames": "f", "out": name, "student": {"name": "r3d_18"}}
        config = DistillConfig.model_validate(values)
        run = open_run(tmp_path / "distill" / name, "distill", config, {}, cache_digest=DIGEST)
    run.metrics.write_text(
        '{"step": 9, "epoch": 1.5, "loss": 4.0}\n{"step": 10, "epoch": 2.5, "loss": 3.25, '
        '"clips": 320, "clips_total": 5760}\n{"ste'
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
        {
            "dataset": {"root": "d", "splits": "lists", "split": 2},
            "init": "distinit:r",
            "out": "o",
            "optimizer": {"epochs": 8},
            "runtime": {"seed": 7},
        }
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
    assert (stopped.state, stopped.epochs, stopped.loss) == ("resumable", 2.0, 3.25)
    assert (stopped.step, stopped.steps_total, stopped.checkpoint_step) == (8, 180, 8)
    assert (stopped.init, stopped.seed, stopped.split) == (None, 0, None)
    assert (stopped.cache_digest, stopped.top1) == (DIGEST, None)
    assert (torn.state, torn.kind) == ("unreadable", "")
    assert (tuned.kind, tuned.student, tuned.state) == ("finetune", "vmz_r3d_18", "finished")
    assert (tuned.top1, tuned.loss, tuned.cache_digest) == (50, 0.5, DIGEST)
    assert (tuned.epochs, tuned.epochs_total) == (8, 8)
    assert (tuned.init, tuned.dataset, tuned.split) == ("distinit:r", "d", 2)
    assert (tuned.protocol, tuned.seed, tuned.per_clip) == ("vmz-10", 7, 40)
    assert (tuned.step, tuned.steps_total) == (80, None)


def test_a_run_without_a_checkpoint_starts_again_at_step_0(folder: Path) -> None:
    (folder / "distill" / "begun" / "metrics.jsonl").write_text('{"step": 3, "epoch": 0.5}\n')
    begun = list_runs(folder).runs[0]
    assert (begun.state, begun.step, begun.epochs) == ("resumable", 0, 0)


def test_a_run_whose_lock_is_held_is_running_and_its_metric_lines_count(folder: Path) -> None:
    with WriterLock(folder / "distill" / "stopped" / ".lock"):
        stopped = list_runs(folder).runs[1]
    assert (stopped.state, stopped.step, stopped.checkpoint_step) == ("running", 10, 8)
    assert cells(stopped)[2] == "10/180 (saved 8)"
    assert list_runs(folder).runs[1].state == "resumable"


def test_the_table_and_the_json_agree(folder: Path) -> None:
    text = CliRunner().invoke(main, ["runs", str(folder)])
    assert text.exit_code == 0
    head, *lines = text.output.splitlines()
    assert head.replace("per clip", "per_clip").split()[:6] == [
        "run", "state", "steps", "top-1", "per_clip", "loss",
    ]  # fmt: skip
    _, stopped, torn, tuned = (line.split() for line in lines)
    assert stopped == [
        str(folder / "distill" / "stopped"),
        *[
            "resumable",
            "8/180",
            "-",
            "-",
            "3.2500",
            "-",
            "r3d_18",
            "-",
            "-",
            "0",
            "-",
            "distill",
            "2/45",
            "0123456789ab",
            "-",
        ],
    ]
    assert torn[:3] == [str(folder / "torn"), "unreadable", "-"]
    values = "finished 80/? 50.0 40.0 0.5000 distinit:r vmz_r3d_18 d 2 7 vmz-10 finetune 8/8"
    assert tuned[1:] == [*values.split(), "0123456789ab", "-"]
    printed = CliRunner().invoke(main, ["runs", str(folder), "--json"]).output
    assert json.loads(printed) == list_runs(folder).model_dump(mode="json")


def test_runs_are_filtered_and_sorted(folder: Path) -> None:
    table = list_runs(folder)
    assert [run.kind for run in table.only("finetune").runs] == ["finetune"]
    names = [Path(run.path).name for run in table.sorted_by("loss").runs]
    assert names == ["tuned", "stopped", "begun", "torn"]
    assert Path(table.sorted_by("top-1").runs[0].path).name == "tuned"
    found = CliRunner().invoke(main, ["runs", str(folder), "--kind", "finetune", "--json"])
    assert [run["top1"] for run in json.loads(found.output)["runs"]] == [50]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_shows_the_columns_that_fit(folder: Path, width: int) -> None:
    runs = list_runs(folder).runs
    short = [run.model_copy(update={"path": Path(run.path).name}) for run in runs]
    printed = io.StringIO()
    print_table(RunTable(folder="f", runs=tuple(short)), Console(width=width, file=printed))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    heads = lines[0].split()
    assert heads[:4] == ["run", "state", "steps", "top-1"]
    assert ("cache" in heads) == (width == 200)
    assert any("finished" in line and "50.0" in line for line in lines)
    assert ("columns that do not fit: " in printed.getvalue()) == (width < 200)


def test_the_printed_table_has_paths_relative_to_its_folder(folder: Path) -> None:
    runs = [
        run.model_copy(update={"init": f"distinit:{folder}/distill/begun"}) if run.init else run
        for run in list_runs(folder).runs
    ]
    table = RunTable(folder=str(folder), runs=(*runs, runs[0].model_copy(update={"path": "/r"})))
    printed = io.StringIO()
    print_table(table, Console(width=200, file=printed))
    rows = [line.split() for line in printed.getvalue().splitlines()[2:]]
    assert [row[0] for row in rows] == [
        "distill/begun",
        "distill/stopped",
        "torn",
        "tuned",
        "/r",
    ]
    assert "distinit:distill/begun" in rows[3]


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
    assert (stopped.state, stopped.epochs_total) == ("resumable", 0)
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
