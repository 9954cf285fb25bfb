"""Expands tables into the runs of each row, at one scale, for some splits and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distinit.pipeline.reproduction.builder import StepBuilder
from distinit.pipeline.reproduction.layout import Layout
from distinit.pipeline.reproduction.step import Step, UnavailableError
from distinit.schemas.errors import ConfigError
from distinit.schemas.reproduce import (
    Cell,
    DatasetSource,
    ScaleConfig,
    TableConfig,
    TeacherRole,
    TeacherSource,
)

__all__ = ["CellRun", "Choice", "Reproduction", "Row", "expand"]


@dataclass(frozen=True, slots=True)
class CellRun:
    """One training run of a row. ``rate``: the learning rate of a sweep, or None."""

    split: int
    seed: int
    rate: float | None
    finetuned: str
    """Name of the finetune step."""
    scored: str
    """Name of the step with the result of the row: the finetune step or its dense evaluation."""


@dataclass(frozen=True, slots=True)
class Row:
    """A cell and its runs. ``absent``: why the scale does not have them, or an empty string."""

    cell: Cell
    runs: tuple[CellRun, ...]
    absent: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Splits and seeds for every cell; None: those of the scale."""

    splits: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Everything to be done for some tables at one scale."""

    scale: ScaleConfig
    layout: Layout
    tables: tuple[TableConfig, ...]
    rows: dict[str, tuple[Row, ...]]
    """Name of the table -> its rows."""
    builder: StepBuilder

    @property
    def steps(self) -> dict[str, Step]:
        """All steps by name, in an order in which they can be executed."""
        return self.builder.steps

    @property
    def teachers(self) -> dict[TeacherRole, TeacherSource]:
        """The teachers that some row is distilled from."""
        return dict(self.builder.teachers)


def expand(
    tables: Sequence[TableConfig],
    scale: ScaleConfig,
    layout: Layout,
    choice: Choice,
    *,
    listed: bool,
) -> Reproduction:
    """List the steps of all ``tables``. Rows with the same run share its step.

    ``listed``: whether the list of the corpus exists. Raises ConfigError if the settings of the
    scale are invalid, or if no dataset has any of the splits.
    """
    _refuse_unknown_splits(scale, choice)
    builder = StepBuilder(scale, layout, listed=listed)
    rows = {
        table.name: tuple(_row(cell, scale, choice, builder) for cell in table.cells)
        for table in tables
    }
    return Reproduction(scale, layout, tuple(tables), rows, builder)


def _refuse_unknown_splits(scale: ScaleConfig, choice: Choice) -> None:
    sources = [s for s in scale.datasets.values() if isinstance(s, DatasetSource)]
    known = {split for source in sources for split in source.all_splits}
    if choice.splits is not None and known and not known & set(choice.splits):
        raise ConfigError(
            "no dataset of this scale has any of the splits",
            expected=f"some of {', '.join(map(str, sorted(known)))}",
            found=", ".join(map(str, choice.splits)),
            remedy="correct --splits",
        )


def _row(cell: Cell, scale: ScaleConfig, choice: Choice, builder: StepBuilder) -> Row:
    try:
        splits = _splits(cell, scale, choice)
        runs = [
            _run(cell, split, seed, rate, builder)
            for split in splits
            for seed in _seeds(cell, scale, choice)
            for rate in scale.sweep or (None,)
        ]
    except UnavailableError as error:
        return Row(cell, (), str(error))
    return Row(cell, tuple(runs))


def _run(cell: Cell, split: int, seed: int, rate: float | None, builder: StepBuilder) -> CellRun:
    finetuned = builder.finetuned(cell, split, seed, rate)
    is_dense = cell.protocol == "dense"
    scored = builder.evaluated(cell, finetuned) if is_dense else finetuned
    return CellRun(split, seed, rate, finetuned, scored)


def _seeds(cell: Cell, scale: ScaleConfig, choice: Choice) -> tuple[int, ...]:
    if choice.seeds is not None:
        return choice.seeds
    return (scale.main_seeds if cell.main else ()) or scale.seeds


def _splits(cell: Cell, scale: ScaleConfig, choice: Choice) -> tuple[int, ...]:
    source = scale.datasets.get(cell.dataset)
    if not isinstance(source, DatasetSource):
        reason = f"the scale has no dataset {cell.dataset}" if source is None else source.absent
        raise UnavailableError(reason)
    if cell.all_splits:
        if len(source.all_splits) < 2:
            raise UnavailableError(f"{source.title} has only one split")
        return source.all_splits
    wanted = choice.splits or scale.splits
    found = tuple(split for split in wanted if split in source.all_splits)
    if not found:
        numbers = ", ".join(map(str, wanted))
        raise UnavailableError(f"{source.title} has no split {numbers}")
    return found
