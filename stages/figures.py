"""Draws the figures of the paper from run directories: PNG and PDF files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from distinit.pipeline.audit.quantiles import KEEP_FRACTIONS, read_quantiles
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.finetuning.init import resolve_init
from distinit.pipeline.output_paths import refuse_inside_data
from distinit.pipeline.plotting.rendering import figure_pdf, figure_png
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.reports.figures.confused import Confusions, draw_confused
from distinit.pipeline.reports.figures.embedding import (
    MARKED_CLASSES,
    EmbeddingPanel,
    draw_embedding,
    nearest_agreement,
    require_tsne,
    spread_classes,
    tsne,
)
from distinit.pipeline.reports.figures.filters import FilterPanel, draw_filters
from distinit.pipeline.reports.figures.gain import (
    SHOWN_CLASSES,
    ClassGains,
    draw_all_gains,
    draw_gain,
)
from distinit.pipeline.reports.figures.threshold import draw_threshold
from distinit.pipeline.storage import atomic_write_bytes, remove_dead_partials
from distinit.pipeline.students.io import read_student
from distinit.pipeline.students.stem import Stem, read_stem
from distinit.schemas.errors import ConfigError
from distinit.schemas.features import LabelledInput
from distinit.schemas.figures import (
    ConfusedConfig,
    EmbeddingConfig,
    FigureResult,
    FiltersConfig,
    GainConfig,
    ThresholdConfig,
)
from distinit.schemas.training import StudentConfig
from distinit.schemas.wording import did_you_mean, first_names
from distinit.stages.figure_inputs import (
    entropy_histogram,
    first_student,
    is_init,
    only_teacher,
    read_test_features,
    threshold_points,
)
from distinit.stages.finished_run import read_finished_run, refuse_other_tests

__all__ = [
    "confused_figure",
    "embedding_figure",
    "filters_figure",
    "gain_figure",
    "make_figure",
    "threshold_figure",
]


type FigureConfig = FiltersConfig | EmbeddingConfig | ThresholdConfig | GainConfig | ConfusedConfig


def make_figure(config: FigureConfig, *, progress: Progress | None = None) -> FigureResult:
    """Draw the figure that ``config`` describes. Raises as the function of this figure."""
    out = Path(config.out)
    if isinstance(config, ThresholdConfig):
        pairs = [(Path(pair.distilled), Path(pair.finetuned)) for pair in config.runs]
        return threshold_figure(Path(config.cache), pairs, out, teacher=config.teacher)
    runs = {named.label: named.run for named in config.runs}
    if isinstance(config, FiltersConfig):
        return filters_figure(
            runs, out, student=config.student, filters=config.filters, seed=config.seed
        )
    if isinstance(config, EmbeddingConfig):
        return embedding_figure(
            runs,
            out,
            videos=config.videos(),
            marked=config.marked,
            seed=config.seed,
            progress=progress,
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
        if is_init(run):
            network = student or first_student(runs).student
            stems[label] = _initial_stem(str(run), network, seed)
        else:
            loaded, _ = read_student(Path(run), None if student is None else student.name)
            stems[label] = read_stem(loaded)
    panels = [FilterPanel(name, s.kernel_OITHW, s.spatial_MIHW) for name, s in stems.items()]
    return _save("filters", out, draw_filters(panels, filters))


def embedding_figure(
    runs: Mapping[str, Path | str],
    out: Path,
    *,
    videos: LabelledInput | None = None,
    marked: Sequence[str] = (),
    seed: int = 0,
    progress: Progress | None = None,
) -> FigureResult:
    """t-SNE of the last-layer features of the test videos (Fig. 5 of the paper).

    ``runs``: label -> folder of `distinit features`, or as for ``filters_figure`` together with
    ``videos``, the dataset whose features are computed (and kept below ``out / "features"``).
    ``marked``: names of the classes to colour; by default MARKED_CLASSES of those that occur.

    Raises ConfigError if scikit-learn is missing, if the features are of other videos for some
    runs, or for an unknown class; and as ``stages.features``.
    """
    require_tsne()
    refuse_inside_data(out)
    tables = read_test_features(runs, out, videos, progress or NullProgress())
    first = next(iter(tables.values()))
    classes = _classes_of(marked, first.classes) or spread_classes(first.label_N, MARKED_CLASSES)
    panels = [
        EmbeddingPanel(
            label,
            tsne(table.features_ND, seed),
            nearest_agreement(table.features_ND, table.label_N),
        )
        for label, table in tables.items()
    ]
    figure = draw_embedding(panels, first.label_N, first.classes, classes)
    return _save("embedding", out, figure)


def threshold_figure(
    cache: Path, runs: Sequence[tuple[Path, Path]], out: Path, *, teacher: str | None = None
) -> FigureResult:
    """Accuracy against the confidence threshold of distillation (Fig. 6 of the paper).

    ``runs``: (distill run, finetune run that began with it); several finetune runs may share a
    distill run. ``teacher``: id in the cache; None: its only one.

    Raises ConfigError as ``threshold_points``, or if the teacher is not in the cache; CacheError;
    StorageError.
    """
    targets = TargetCache.open(cache)
    name = only_teacher(targets, teacher)
    points = threshold_points(targets, name, runs)
    thresholds_nats = read_quantiles(targets, name).thresholds_nats
    of_kept = dict(zip(KEEP_FRACTIONS, thresholds_nats, strict=True))
    return _save(
        "threshold", out, draw_threshold(entropy_histogram(targets, name), of_kept, points)
    )


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
    result = _save("gain", out, draw_gain(gains))
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
    return _save("confused", out, figure)


def _initial_stem(init: str, student: StudentConfig, seed: int) -> Stem:
    network, _ = resolve_init(init, student).build(classes=1, seed=seed, head_only=False)
    return read_stem(network)


def _classes_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The indices of classes. Raises ConfigError for an unknown name."""
    for name in names:
        if name not in classes:
            raise ConfigError(
                f"no class is called {name}",
                expected=first_names(classes, 20),
                remedy=did_you_mean(name, classes) or "correct the name",
            )
    return [classes.index(name) for name in names]


def _save(name: str, out: Path, figure: Figure) -> FigureResult:
    """Write ``name.png`` and ``name.pdf``."""
    refuse_inside_data(out)
    remove_dead_partials(out)
    files = {out / f"{name}.png": figure_png(figure), out / f"{name}.pdf": figure_pdf(figure)}
    for path, content in files.items():
        atomic_write_bytes(path, content)
    return FigureResult(figure=name, files=tuple(str(path) for path in files))
