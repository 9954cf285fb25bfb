"""Draws the figures of a reproduction from the runs of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from distinit.pipeline.progress import Progress
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.storage import atomic_write_bytes, sha256_file
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.features import LabelledInput
from distinit.schemas.figures import FigureResult
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.reproduce import TableConfig
from distinit.schemas.reproduced import ReproducedTable
from distinit.schemas.training import StudentConfig
from distinit.stages.figures import (
    embedding_figure,
    filters_figure,
    gain_figure,
    threshold_figure,
)

__all__ = ["with_figure"]

_ROWS_NAME = "rows.json"


def with_figure(
    config: TableConfig, table: ReproducedTable, reproduction: Reproduction, progress: Progress
) -> ReproducedTable:
    """``table`` with its figure, or with the reason why there is none.

    A figure of the same results is not drawn again.
    """
    shown = {row.label: row.shown for row in table.rows if row.shown is not None}
    if not shown:
        return table.model_copy(update={"figure_note": "No figure: no row has a result."})
    folder = reproduction.layout.out / "figures" / table.name
    digests = {label: _digest(reproduction, name) for label, name in shown.items()}
    results = json.dumps(digests).encode()
    record = folder / _ROWS_NAME
    picture = folder / f"{config.figure}.png"
    if not (picture.is_file() and record.is_file() and record.read_bytes() == results):
        progress.message(f"drawing {table.name}")
        try:
            picture = _draw(config, shown, reproduction, folder, progress)
        except DistInitError as error:
            note = f"No figure: {error.problem}."
            return table.model_copy(update={"figure_note": note})
        atomic_write_bytes(record, results)
    return table.model_copy(update={"figure": str(picture)})


def _digest(reproduction: Reproduction, finetuned: str) -> str:
    return sha256_file(reproduction.layout.run(finetuned) / "result.json")


def _draw(
    config: TableConfig,
    shown: Mapping[str, str],
    reproduction: Reproduction,
    folder: Path,
    progress: Progress,
) -> Path:
    """Draw the figure; its PNG. ``shown``: label of a row -> its finetune step."""
    runs = {label: reproduction.layout.run(name) for label, name in shown.items()}
    if config.figure == "filters":
        result = _draw_filters(shown, reproduction, folder)
    elif config.figure == "embedding":
        first = reproduction.steps[next(iter(shown.values()))].finetune_config
        videos = LabelledInput(
            dataset=first.dataset,
            frames=first.frames,
            flow=first.flow,
            evaluation=first.evaluation,
            batch_size=first.runtime.batch_size,
            device=first.runtime.device,
        )
        result = embedding_figure(runs, folder, videos=videos, progress=progress)
    elif config.figure == "threshold":
        result = _draw_threshold(config, shown, reproduction, folder)
    else:
        if len(runs) != 2:
            raise ConfigError("a gain needs the results of both rows")
        result = gain_figure(runs, folder)
    return next(Path(path) for path in result.files if path.endswith(".png"))


def _draw_threshold(
    config: TableConfig, shown: Mapping[str, str], reproduction: Reproduction, folder: Path
) -> FigureResult:
    """All rows have the same teacher."""
    pairs = [
        (_start_of(reproduction.steps[name].finetune_config), reproduction.layout.run(name))
        for name in shown.values()
    ]
    variant = config.cells[0].distill
    teacher = variant.teachers[0] if variant is not None else None
    return threshold_figure(reproduction.layout.cache, pairs, folder, teacher=teacher)


def _draw_filters(
    shown: Mapping[str, str], reproduction: Reproduction, folder: Path
) -> FigureResult:
    """The first layer of what each row starts from, before its finetuning."""
    starts: dict[str, Path | str] = {}
    student: StudentConfig | None = None
    for label, name in shown.items():
        config = reproduction.steps[name].finetune_config
        untrained = config.init.partition(":")[0] in ("scratch", "inflated")
        starts[label] = config.init if untrained else _start_of(config)
        student = config.student if untrained else student
    return filters_figure(starts, folder, student=student)


def _start_of(config: FinetuneConfig) -> Path:
    """The run or student that finetuning starts from, of an init ``KIND:PATH``."""
    return Path(config.init.partition(":")[2])
