"""Draws the figures of the paper from run directories: PNG and PDF files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from distinit.pipeline.finetuning.init import resolve_init
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.reports.figures.confused import Confusions, draw_confused
from distinit.pipeline.reports.figures.filters import FilterPanel, draw_filters
from distinit.pipeline.reports.figures.gain import (
    SHOWN_CLASSES,
    ClassGains,
    draw_all_gains,
    draw_gain,
)
from distinit.pipeline.reports.rendering import figure_pdf, figure_png
from distinit.pipeline.storage import atomic_write_bytes, remove_dead_partials
from distinit.pipeline.students.io import load_student, read_student_record
from distinit.pipeline.students.registry import require_named_plugin
from distinit.pipeline.students.stem import Stem, read_stem
from distinit.schemas.errors import ConfigError
from distinit.schemas.figures import ConfusedConfig, FigureResult, FiltersConfig, GainConfig
from distinit.schemas.training import StudentConfig
from distinit.stages.finished_run import read_finished_run, refuse_other_tests

__all__ = ["confused_figure", "filters_figure", "gain_figure", "make_figure"]


def make_figure(
    config: FiltersConfig | GainConfig | ConfusedConfig, *, progress: Progress | None = None
) -> FigureResult:
    """Draw the figure that ``config`` describes. Raises as the function of this figure."""
    progress = progress or NullProgress()
    out = Path(config.out)
    runs = {named.label: named.run for named in config.runs}
    if isinstance(config, FiltersConfig):
        student = config.student and StudentConfig(
            name=config.student, in_channels=2 if config.in_channels == 2 else 3
        )
        return filters_figure(
            runs, out, student=student or None, filters=config.filters, seed=config.seed
        )
    folders = {label: Path(run) for label, run in runs.items()}
    if isinstance(config, GainConfig):
        return gain_figure(folders, out)
    return confused_figure(folders, out, pairs=config.pairs)


def filters_figure(
    runs: Mapping[str, Path | str],
    out: Path,
    *,
    student: StudentConfig | None = None,
    filters: int = 32,
    seed: int = 0,
) -> FigureResult:
    """First-layer filters of several networks side by side (Fig. 3 and 4 of the paper).

    ``runs``: label -> folder of a distill or finetune run, or the text ``scratch``, ``inflated`` or
    ``inflated:FILE`` for an untrained ``student``; by default the network of the first folder. A
    folder of such a name can be given as a Path, or as ``./scratch``. If runs have a plugin as
    their network, ``student`` must name it.

    Raises ConfigError, CheckpointError and WeightsError for networks that cannot be loaded or whose
    first layer is not a 3D convolution; StorageError.
    """
    stems = {}
    for label, run in runs.items():
        if isinstance(run, str) and _is_init(run):
            stems[label] = _initial_stem(run, student or _first_network(runs), seed)
        else:
            loaded, _ = load_student(Path(run), None if student is None else student.name)
            stems[label] = read_stem(loaded)
    panels = [FilterPanel(name, s.kernel_OITHW, s.spatial_MIHW) for name, s in stems.items()]
    return _save("filters", out, {"filters": draw_filters(panels, filters)})


def gain_figure(runs: Mapping[str, Path], out: Path) -> FigureResult:
    """Gain in accuracy per class of the second of two finetune runs (Fig. 7 of the paper).

    Of more than SHOWN_CLASSES classes, ``gain`` shows the highest and lowest gains, and
    ``gain-all.pdf`` has all classes.

    Raises ConfigError unless both are finished runs that were scored on the same videos;
    StorageError.
    """
    (base_label, base_root), (label, root) = runs.items()
    base, run = read_finished_run(base_root), read_finished_run(root)
    refuse_other_tests(base, [run])
    gains = ClassGains(
        names=base.dataset.classes,
        videos_C=base.videos_C,
        base_correct_C=base.confusion_CC.diagonal(),
        correct_C=run.confusion_CC.diagonal(),
        base_label=base_label,
        label=label,
    )
    result = _save("gain", out, {"gain": draw_gain(gains)})
    if len(gains.order()) <= SHOWN_CLASSES:
        return result
    path = out / "gain-all.pdf"
    atomic_write_bytes(path, figure_pdf(draw_all_gains(gains)))
    return result.model_copy(update={"files": (*result.files, str(path))})


def confused_figure(runs: Mapping[str, Path], out: Path, *, pairs: int = 20) -> FigureResult:
    """The most confused pairs of classes of one finetune run, or what a second run changed.

    Raises ConfigError unless they are finished runs that were scored on the same videos;
    StorageError.
    """
    finished = {label: read_finished_run(root) for label, root in runs.items()}
    first, *others = finished.values()
    refuse_other_tests(first, others)
    *base, last = [Confusions(label, run.confusion_CC) for label, run in finished.items()]
    figure = draw_confused(
        first.dataset.classes, first.videos_C, last, base[0] if base else None, pairs
    )
    return _save("confused", out, {"confused": figure})


def _is_init(run: str) -> bool:
    return run in {"scratch", "inflated"} or run.startswith("inflated:")


def _first_network(runs: Mapping[str, Path | str]) -> StudentConfig:
    for run in runs.values():
        if not isinstance(run, str) or not _is_init(run):
            network = read_student_record(Path(run)).student
            require_named_plugin(network, None, Path(run))
            return network
    raise ConfigError(
        "scratch and inflated do not name a network",
        expected="a student",
        remedy="add a student, such as --student vmz_r3d_18",
    )


def _initial_stem(init: str, student: StudentConfig, seed: int) -> Stem:
    network, _ = resolve_init(init, student).build(classes=1, seed=seed, head_only=False)
    return read_stem(network)


def _save(name: str, out: Path, figures: Mapping[str, Figure]) -> FigureResult:
    """Write a PNG and a PDF per figure."""
    refuse_inside_data(out)
    remove_dead_partials(out)
    files = []
    for stem, figure in figures.items():
        for suffix, render in ((".png", figure_png), (".pdf", figure_pdf)):
            path = out / f"{stem}{suffix}"
            atomic_write_bytes(path, render(figure))
            files.append(str(path))
    return FigureResult(figure=name, files=tuple(files))
