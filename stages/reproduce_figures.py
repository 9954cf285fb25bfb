"""Draws the figures of a reproduction from the runs of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from distinit.pipeline.progress import Progress
from distinit.pipeline.reproduction.expand import Reproduction
from distinit.pipeline.storage import atomic_write_bytes, sha256_file
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.figures import FigureResult
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.reproduce import TableConfig
from distinit.schemas.reproduced import ReproducedTable
from distinit.schemas.training import StudentConfig
from distinit.stages.figures import filters_figure, gain_figure

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
    results = {label: _digest(reproduction, name) for label, name in shown.items()}
    record = folder / _ROWS_NAME
    picture = folder / f"{config.figure}.png"
    if not (picture.is_file() and record.is_file() and json.loads(record.read_text()) == results):
        progress.message(f"drawing {table.name}")
        try:
            picture = _draw(config, shown, reproduction, folder)
        except DistInitError as error:
            note = f"No figure: {error.problem}."
            return table.model_copy(update={"figure_note": note})
        atomic_write_bytes(record, json.dumps(results).encode())
    return table.model_copy(update={"figure": str(picture)})


def _digest(reproduction: Reproduction, finetuned: str) -> str:
    return sha256_file(reproduction.layout.run(finetuned) / "result.json")


def _draw(
    config: TableConfig, shown: Mapping[str, str], reproduction: Reproduction, folder: Path
) -> Path:
    """Draw the figure; its PNG. ``shown``: label of a row -> its finetune step."""
    runs = {label: reproduction.layout.run(name) for label, name in shown.items()}
    if config.figure == "filters":
        result = _draw_filters(shown, reproduction, folder)
    elif config.figure == "gain":
        if len(runs) != 2:
            raise ConfigError("a gain needs the results of both rows")
        result = gain_figure(runs, folder)
    else:
        raise ConfigError(f"the figure {config.figure} is not available yet")
    return next(Path(path) for path in result.files if path.endswith(".png"))


def _draw_filters(
    shown: Mapping[str, str], reproduction: Reproduction, folder: Path
) -> FigureResult:
    """The first layer of what each row starts from, before its finetuning."""
    starts: dict[str, Path | str] = {}
    student: StudentConfig | None = None
    for label, name in shown.items():
        config = reproduction.steps[name].config
        assert isinstance(config, FinetuneConfig)
        kind, _, path = config.init.partition(":")
        untrained = kind in ("scratch", "inflated")
        starts[label] = config.init if untrained else Path(path)
        student = config.student if untrained else student
    return filters_figure(starts, folder, student=student)
