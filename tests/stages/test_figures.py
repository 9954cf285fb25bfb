"""`distinit figures` draws what the records of runs say, and refuses runs that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import students
from helpers.finished_runs import dataset_of, write_finished
from PIL import Image
from safetensors.torch import save_file

from distinit.cli import main
from distinit.pipeline.reports.figures.filters import FilterPanel
from distinit.pipeline.students.heads import new_student
from distinit.pipeline.students.stem import read_stem
from distinit.schemas.errors import CheckpointError, ConfigError
from distinit.schemas.training import StudentConfig
from distinit.stages import figures
from distinit.stages.figures import confused_figure, filters_figure, gain_figure
from distinit.stages.finished_run import read_finished_run

DATASET = dataset_of([4, 4, 2], ["run", "walk", "$jump"])
BASE = [[1, 3, 0], [0, 4, 0], [1, 1, 0]]
OTHER = [[3, 1, 0], [0, 3, 1], [0, 0, 2]]


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    return {
        "scratch": write_finished(tmp_path / "scratch", DATASET, BASE),
        "distinit": write_finished(tmp_path / "distinit", DATASET, OTHER),
    }


def drawn_panels(*args: object, **options: object) -> list[FilterPanel]:
    with patch.object(figures, "draw_filters", wraps=figures.draw_filters) as draw:
        filters_figure(*args, **options)
    return list(draw.call_args.args[0])


def test_filters_are_those_of_the_run_and_of_untrained_networks(tmp_path: Path) -> None:
    run = students.save_distilled(tmp_path / "run")
    panels = drawn_panels(
        {"a": "scratch", "b": run, "c": "./scratch"[2:]}, tmp_path / "out", seed=9
    )
    assert [panel.label for panel in panels] == ["a", "b", "c"]
    expected = read_stem(new_student(students.TINY, {"teacher": 5}, seed=9))
    for panel in panels:
        np.testing.assert_array_equal(panel.kernel_OITHW, expected.kernel_OITHW)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "filters.pdf",
        "filters.png",
    ]
    with Image.open(tmp_path / "out" / "filters.png") as image:
        assert image.width == 1400


def test_inflated_filters_are_equal_at_all_time_steps(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    (panel,) = drawn_panels(
        {"inflated": f"inflated:{tmp_path / 'resnet18.safetensors'}"},
        tmp_path / "out",
        student=StudentConfig(name="vmz_r3d_18"),
    )
    assert panel.kernel_OITHW.shape == (64, 3, 3, 7, 7)
    np.testing.assert_array_equal(panel.kernel_OITHW[:, :, 0], panel.kernel_OITHW[:, :, 2])


def test_filters_of_a_flow_student_have_two_channels(tmp_path: Path) -> None:
    flow = students.TINY.model_copy(update={"in_channels": 2})
    run = students.save_distilled(tmp_path / "run", student=flow)
    first, second = drawn_panels({"run": run, "scratch": "scratch"}, tmp_path / "out")
    assert first.kernel_OITHW.shape == second.kernel_OITHW.shape == (16, 2, 3, 7, 7)


def test_a_folder_called_scratch_can_be_given_as_a_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no student at"):
        filters_figure({"a": tmp_path / "scratch"}, tmp_path / "out")
    with pytest.raises(ConfigError, match="do not name a network"):
        filters_figure({"a": "scratch"}, tmp_path / "out")


def test_a_plugin_that_only_the_run_names_does_not_run(tmp_path: Path) -> None:
    run = students.save_distilled(tmp_path / "run")
    record = json.loads((run / "student.json").read_text())
    record["student"]["name"] = "plugin:os:abort"
    (run / "student.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="names a plugin"):
        filters_figure({"a": "scratch", "b": run}, tmp_path / "out")


def test_gain_counts_undecodable_test_videos_as_wrong(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    runs["distinit"] = write_finished(tmp_path / "lost", DATASET, [[3, 0, 0], *OTHER[1:]])
    with patch.object(figures, "draw_gain", wraps=figures.draw_gain) as draw:
        result = gain_figure(runs, tmp_path / "out")
    (gains,) = draw.call_args.args
    assert gains.points().tolist() == [50, -25, 100]
    assert (gains.base_label, gains.label) == ("scratch", "distinit")
    assert [Path(file).name for file in result.files] == ["gain.png", "gain.pdf"]


def test_many_classes_get_a_pdf_with_all_of_them(tmp_path: Path) -> None:
    dataset = dataset_of([1] * 51)
    confusion = np.eye(51, dtype=int).tolist()
    run = write_finished(tmp_path / "run", dataset, confusion)
    result = gain_figure({"a": run, "b": run}, tmp_path / "out")
    assert [Path(file).name for file in result.files] == ["gain.png", "gain.pdf", "gain-all.pdf"]
    assert all(Path(file).is_file() for file in result.files)


def test_confused_pairs_of_one_run_and_of_two(tmp_path: Path, runs: dict[str, Path]) -> None:
    with patch.object(figures, "draw_confused", wraps=figures.draw_confused) as draw:
        confused_figure({"scratch": runs["scratch"]}, tmp_path / "one", pairs=2)
        confused_figure(runs, tmp_path / "two")
    (names, videos_C, run, base, pairs), (_, _, second, first, _) = (
        call.args for call in draw.call_args_list
    )
    assert (names, videos_C.tolist(), pairs, base) == (DATASET.classes, [4, 4, 2], 2, None)
    assert run.counts_CC.tolist() == first.counts_CC.tolist() == BASE
    assert (first.label, second.label, second.counts_CC.tolist()) == ("scratch", "distinit", OTHER)


def test_runs_on_other_videos_or_with_another_protocol_are_not_compared(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    other = write_finished(tmp_path / "other", dataset_of([4, 4, 2]), OTHER)
    with pytest.raises(ConfigError, match="cannot be compared") as error:
        gain_figure({"a": runs["scratch"], "b": other}, tmp_path / "out")
    assert "other test videos or classes" in str(error.value)
    dense = write_finished(tmp_path / "dense", DATASET, OTHER, protocol="dense-s4")
    with pytest.raises(ConfigError, match="dense-s4 in"):
        confused_figure({"a": runs["scratch"], "b": dense}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("result.json", {"confusion": [[1, 0], [0, 1]]}),
        ("result.json", {"confusion": [[-1, 3, 0], [0, 4, 0], [1, 1, 0]]}),
        ("result.json", {"confusion": [[2, 3, 0], [0, 4, 0], [1, 1, 0]]}),
        ("result.json", {"videos": 11}),
        ("run.json", {"kind": "distill"}),
        ("run.json", {"inputs": {"dataset": "0"}}),
    ],
)
def test_records_that_contradict_each_other_are_refused(
    runs: dict[str, Path], name: str, change: dict[str, object]
) -> None:
    path = runs["scratch"] / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="cannot be shown"):
        read_finished_run(runs["scratch"])


def test_an_unfinished_run_is_refused(runs: dict[str, Path]) -> None:
    (runs["scratch"] / "result.json").unlink()
    with pytest.raises(ConfigError, match="is not a finished run"):
        read_finished_run(runs["scratch"])


def test_the_command_writes_the_figures_and_lists_them(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    options = [f"--run={label}={run}" for label, run in runs.items()]
    out = tmp_path / "figures"
    done = CliRunner().invoke(main, ["figures", "gain", *options, f"--out={out}", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result == {"figure": "gain", "files": [f"{out}/gain.png", f"{out}/gain.pdf"]}
    again = (out / "gain.pdf").read_bytes()
    CliRunner().invoke(main, ["figures", "gain", *options, f"--out={out}"])
    assert (out / "gain.pdf").read_bytes() == again
    done = CliRunner().invoke(main, ["figures", "confused", *options, f"--out={out}", "--pairs=3"])
    assert done.output.splitlines() == [f"{out}/confused.png", f"{out}/confused.pdf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["gain", "--run", "a=b", "--out", "o"],
            "--run (runs): give it at least 2 times",
        ),
        (["gain", "--run", "a", "--out", "o"], "is not of the form LABEL=RUN"),
        (["filters", "--run", "a=x", "--run", "a=y", "--out", "o"], "two runs have the same label"),
        (["confused", "--run", "a=missing"], "out: missing; give it as --out FOLDER, in --config"),
        (["confused", "--run", "a=missing", "--out", "o"], "missing is not a finetune run"),
    ],
)
def test_wrong_options_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["figures", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []
