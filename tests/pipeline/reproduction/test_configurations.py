"""The tables of ``configs/paper`` have the rows and figures of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from distinit.pipeline.reproduction.configurations import SCALES, TABLES, load_scale, load_tables
from distinit.schemas.errors import ConfigError

CENTRE = (37.8, 40.3, 74.4)
PAPER = {
    "table1": [
        (24.6, 25.4, 55.2),
        (32.5, 35.8, 66.2),
        (32.5, 35.6, 66.2),
        (36.6, 39.9, 73.5),
        (22.0, 24.1, 53.1),
        CENTRE,
        (None, 51.0, None),
    ],
    "table2": [CENTRE, (39.9, 43.2, 73.9), (39.6, 44.0, 73.5)],
    "table3": [CENTRE, (35.6, 39.9, 70.5)],
    "table4": [(30.7, 38.7, 70.0), (33.5, 43.9, 73.9), (42.6, 49.2, 81.2)],
    "table5": [CENTRE, (None, 36.8, None), (None, 40.7, None)],
    "table6": [(None, 54.9, None), (None, 54.8, None), (None,) * 3, (None,) * 3],
}
"""Per clip, top-1, top-5 of the paper, row by row; None where it is not known."""


def test_the_rows_have_the_numbers_of_the_paper() -> None:
    tables = {table.name: table for table in load_tables("all")}
    assert tuple(tables) == TABLES
    found = {
        name: [(c.paper.per_clip, c.paper.top1, c.paper.top5) for c in table.cells]
        for name, table in tables.items()
    }
    nothing = {n: [(None, None, None)] * len(tables[n].cells) for n in TABLES if n[:3] == "fig"}
    assert found == PAPER | nothing


def test_each_figure_of_the_paper_has_its_kind_of_figure() -> None:
    kinds = {table.name: table.figure for table in load_tables("all")}
    figures = {name: kind for name, kind in kinds.items() if kind is not None}
    assert figures == {
        "fig3": "filters",
        "fig4": "filters",
        "fig5": "embedding",
        "fig6": "threshold",
        "fig7": "gain",
    }
    kept = [c.distill.keep_percent for c in load_tables("fig6")[0].cells if c.distill]
    assert kept == [100, 75, 50, 25]


def test_rows_of_the_same_run_have_the_same_seeds() -> None:
    seeds: dict[str, set[bool]] = {}
    for table in load_tables("all"):
        for cell in table.cells:
            run = cell.model_dump_json(exclude={"label", "paper", "main", "all_splits"})
            seeds.setdefault(run, set()).add(cell.main)
    assert [run for run, main in seeds.items() if len(main) > 1] == []


@pytest.mark.parametrize("name", SCALES)
def test_every_scale_loads(name: str) -> None:
    scale = load_scale(name)
    assert (scale.name, scale.comparable) == (name, name == "paper")


def test_the_paper_scale_has_the_papers_settings() -> None:
    scale = load_scale("paper", ["seeds=[0, 1]"])
    assert scale.seeds == (0, 1)
    assert scale.students == {"r3d_18": "vmz_r3d_18", "r2plus1d_18": "vmz_r2plus1d_18"}
    optimizer = scale.distill["optimizer"]
    assert (optimizer["learning_rate"], optimizer["epochs"], optimizer["clips_per_epoch"]) == (
        0.01,
        45,
        1_000_000,
    )
    assert scale.finetune["optimizer"]["learning_rate"] == 0.002
    assert scale.scratch["optimizer"]["epochs"] == 45


def test_a_scale_may_be_a_file_that_names_others(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntitle: my scale\ncorpus: {title: c, root: c}\ndatasets: {}\nteachers: {}\n"
        "inflation: {}\nstudents: {}\nsupervised: {absent: no labels}\ndistill: d.yaml\n"
        "finetune: {}\nscratch: {}\n"
    )
    (tmp_path / "d.yaml").write_text("optimizer: {epochs: 7}\n")
    scale = load_scale(str(tmp_path / "mine.yaml"))
    assert scale.distill == {"optimizer": {"epochs": 7}}


def test_settings_may_name_the_file_of_a_stage() -> None:
    chosen = ["distill=../gpus/distill_8gpu.yaml", "distill.optimizer.epochs=2"]
    distill = load_scale("paper", chosen).distill
    assert (distill["runtime"]["shards"], distill["optimizer"]["epochs"]) == (8, 2)


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (load_tables, "table7", "there is no table table7"),
        (load_scale, "huge", "there is no scale huge"),
        (load_scale, "nowhere.yaml", "cannot read the configuration"),
    ],
)
def test_unknown_names_are_refused(load: object, name: str, message: str) -> None:
    assert callable(load)
    with pytest.raises(ConfigError, match=message):
        load(name)
