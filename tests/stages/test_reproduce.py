"""`distinit reproduce` on films of moving digits: one table from its films to its page."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from distinit.cli import main
from distinit.schemas.errors import ConfigError
from distinit.schemas.reproduce import ReproduceConfig
from distinit.stages.reproduce import ReproduceResult, open_reproduction, reproduce
from distinit.stages.reproduce_plan import plan_reproduction

PLACES = "r2plus1d_18-places-center-ce-s0"
ROWS = ["ImageNet", "Places", "ImageNet and Places"]


def config_of(root: Path) -> ReproduceConfig:
    """Table 5 at the smoke scale, with one short epoch per run."""
    return ReproduceConfig(
        table="table5",
        out=str(root),
        settings=(
            "distill.optimizer={epochs: 1, clips_per_epoch: 32}",
            "finetune.optimizer={epochs: 1, clips_per_epoch: 32}",
        ),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReproduceResult]:
    root = tmp_path_factory.mktemp("reproduced")
    return root, reproduce(config_of(root))


def contents(root: Path) -> dict[str, str]:
    """Path -> sha256 of every file."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def written(root: Path) -> dict[str, int]:
    """Path -> time of the last change, of runs, tables and the page."""
    places = (root / "runs", root / "tables", root / "index.html")
    files = (p for place in places for p in (place, *place.rglob("*")) if p.is_file())
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_every_row_has_a_result_beside_the_papers(
    finished: tuple[Path, ReproduceResult],
) -> None:
    root, result = finished
    assert (result.exit_code, result.failed, result.blocked) == (0, {}, {})
    assert (result.trained, result.reused) == (6, 0)
    (table,) = result.tables
    assert [row.label for row in table.rows] == ROWS
    assert [row.paper.top1 for row in table.rows] == [40.3, 36.8, 40.7]
    for row in table.rows:
        assert row.ours is not None
        assert (row.our_data, row.ours.chance) == ("moving digits A, split 1", 10.0)
    page = (root / "index.html").read_text()
    assert "not comparable with the paper" in page
    assert page.count("moving digits A, split 1") == 3
    assert sorted(path.name for path in (root / "tables").iterdir()) == [
        "table5.csv",
        "table5.md",
        "table5.tex",
    ]


def test_a_finished_reproduction_does_nothing(finished: tuple[Path, ReproduceResult]) -> None:
    root, first = finished
    before, times = contents(root), written(root)
    plan = plan_reproduction(open_reproduction(config_of(root)))
    assert {kind: (n.to_do, n.finished) for kind, n in plan.runs.items()} == {
        "distill": (0, 3),
        "finetune": (0, 3),
        "evaluate": (0, 0),
    }
    assert (plan.clips, plan.speed_from) == (0, "median of the finished runs")
    again = reproduce(config_of(root))
    assert (again.trained, again.reused) == (0, 6)
    assert again.tables == first.tables
    assert contents(root) == before
    assert written(root) == times


def test_a_failed_run_is_listed_and_does_not_stop_the_others(
    finished: tuple[Path, ReproduceResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "copy")
    runs = tmp_path / "copy" / "runs"
    for name in (f"distill-{PLACES}", f"finetune-hmdb51-split1-{PLACES}"):
        shutil.rmtree(runs / name)
    (runs / f"distill-{PLACES}").write_text("a file in the place of a run")
    result = reproduce(config_of(tmp_path / "copy"))
    assert result.exit_code == 1
    assert list(result.failed) == [f"distill-{PLACES}"]
    assert list(result.blocked) == [f"finetune-hmdb51-split1-{PLACES}"]
    by_label = {row.label: row for row in result.tables[0].rows}
    assert by_label["Places"].ours is None
    assert by_label["Places"].note.startswith(f"needs distill-{PLACES}, which failed: ")
    assert [by_label[label].ours is None for label in ROWS] == [False, True, False]
    assert f"distill-{PLACES}" in (tmp_path / "copy" / "index.html").read_text()


def test_data_that_only_finished_runs_have_used_may_be_deleted(
    finished: tuple[Path, ReproduceResult], tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path / "copy")
    for folder in ("cache", "frames", "labelled", "data"):
        shutil.rmtree(tmp_path / "copy" / folder)
    result = reproduce(config_of(tmp_path / "copy"))
    assert (result.exit_code, result.trained, result.reused) == (0, 0, 6)
    assert [row.ours for row in result.tables[0].rows] == [
        row.ours for row in finished[1].tables[0].rows
    ]
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        *("corpus.txt", "corpus_labels.csv", "index.html", "runs", "tables")
    ]


def test_a_run_of_another_configuration_is_not_reused(
    finished: tuple[Path, ReproduceResult],
) -> None:
    root, _ = finished
    changed = config_of(root).model_copy(update={"settings": ("distill.optimizer.epochs=9",)})
    plan = plan_reproduction(open_reproduction(changed))
    assert (plan.runs["distill"].to_do, plan.runs["distill"].finished) == (3, 0)


def test_the_plan_of_the_paper_scale_lists_everything_that_is_missing(tmp_path: Path) -> None:
    out, data = tmp_path / "out", tmp_path / "data"
    data.mkdir()
    arguments = ["reproduce", "all", "--scale", "paper", "--data", str(data), "--out", str(out)]
    result = CliRunner().invoke(main, [*arguments, "--plan"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "distill           12         0" in lines
    assert "finetune          25         0" in lines
    assert "training    597,120,000 clips, 5,903,040,000 frames" in lines
    assert "hours       not measured: give --clips-per-second" in result.output
    assert "inputs: 10 of 10 missing" in lines
    missing = [line.split()[1] for line in lines if line.startswith("  MISSING ")]
    assert sorted(missing) == [
        *("hmdb51", "kinetics", "kinetics.csv", "splits/hmdb51", "splits/ucf101", "ucf101"),
        "weights/resnet18-f37072fd.pth",
        "weights/resnet18_places365.pth.tar",
        "weights/resnet50-0676ba61.pth",
        "weights/resnet50_places365.pth.tar",
    ]
    assert not out.exists()
    assert list(data.iterdir()) == []


def test_the_plan_gives_hours_for_a_given_speed(tmp_path: Path) -> None:
    config = ReproduceConfig(table="table3", scale="paper", out=str(tmp_path))
    plan = plan_reproduction(open_reproduction(config), clips_per_second=1000)
    # Two students of 45 epochs of 1 M clips, finetuned with 8 epochs of 40 k clips.
    assert plan.clips == 2 * (45_000_000 + 320_000)
    assert plan.hours == pytest.approx(plan.clips / 1000 / 3600)
    assert plan.speed_from == "--clips-per-second"
    assert plan.missing[0].needed_by in {2, 4}


def test_nothing_is_written_into_a_frame_store(tmp_path: Path) -> None:
    (tmp_path / "store.json").touch()
    with pytest.raises(ConfigError, match="a frame store: nothing else is written there"):
        reproduce(ReproduceConfig(table="table3", scale="paper", out=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


def test_batches_of_long_clips_have_at_least_one_part(tmp_path: Path) -> None:
    config = ReproduceConfig(table="table6", out=str(tmp_path), settings=("long_clips=0",))
    with pytest.raises(ConfigError, match="scale configuration is invalid"):
        open_reproduction(config)


def test_rows_without_their_inputs_are_not_run(tmp_path: Path) -> None:
    config = ReproduceConfig(table="table3", scale="paper", out=str(tmp_path / "out"))
    result = reproduce(config)
    assert result.exit_code == 3
    assert (result.failed, result.trained) == ({}, 0)
    notes = [row.note for row in result.tables[0].rows]
    assert "needs weights/resnet50-0676ba61.pth (teacher imagenet " in notes[0]
    assert "needs splits/hmdb51 (split lists of HMDB-51): no such folder" in notes[0]
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("value", ["a", "1,,2", "-1", "9" * 5_000])
def test_lists_of_numbers_are_checked(value: str) -> None:
    result = CliRunner().invoke(main, ["reproduce", "all", "--plan", "--seeds", value])
    assert result.exit_code == 2
    assert "is not a list of numbers" in result.output
