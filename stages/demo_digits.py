"""The demo's experiment on moving digits: distillation against training from scratch.

A student is distilled from an image classifier of digits, on unlabelled films of moving digits. It
is then finetuned on few labelled films, whose classes are (digit, motion), and compared with the
same network trained on them from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from distinit.pipeline.config import build_config
from distinit.pipeline.demo.digit_footage import DigitFootage, make_digits
from distinit.pipeline.demo.digit_teacher import TEACHER_EPOCHS, held_out_accuracy, train_teacher
from distinit.pipeline.demo.digits import FRAME_SIDE, DigitFilm
from distinit.pipeline.evaluation.intervals import difference_interval, wilson_interval
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.base import PLUGIN, Record
from distinit.schemas.demo import Gain
from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.frames import FramesConfig
from distinit.schemas.run import EvaluationResult
from distinit.stages.distill import distill
from distinit.stages.extract import extract
from distinit.stages.finetune import finetune
from distinit.stages.frames import build_frames

__all__ = [
    "FILMS_PER_CLASS",
    "INITS",
    "LOW_SHOT",
    "DigitData",
    "distill_digits",
    "finetune_digits",
    "gain_of",
]

INITS = ("scratch", "distinit")
FILMS_PER_CLASS = 6
"""Training films per class."""
LOW_SHOT = 2
"""Training films per class in the low-shot experiment."""
_FINETUNE_CONFIGS = {
    FILMS_PER_CLASS: "digits_finetune.yaml",
    LOW_SHOT: "digits_finetune_low_shot.yaml",
}
"""Training films per class -> configuration of finetuning."""
_PLUGIN = f"{PLUGIN}distinit.pipeline.demo.digit_teacher:digit_teacher"
_GEOMETRY = {"mode": "short_edge", "short_edge": FRAME_SIDE}


@dataclass(frozen=True, slots=True)
class DigitData:
    """Everything that the training runs read, below one folder.

    ``films``: which films to use; None: all of them.
    """

    root: Path
    films: tuple[DigitFilm, ...] | None = None

    @property
    def weights(self) -> Path:
        """Weights of the teacher."""
        return self.root / "teacher.safetensors"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def frames(self) -> Path:
        """Frame store of the unlabelled films."""
        return self.root / "frames"

    @property
    def labelled_frames(self) -> Path:
        """Frame store of the labelled films."""
        return self.root / "labelled_frames"

    @property
    def footage(self) -> DigitFootage:
        return DigitFootage(self.root / "films" / "corpus", self.root / "films" / "labelled")

    def low_shot_list(self, films_per_class: int) -> Path:
        """Write a CSV with the first training films of each class and all test films."""
        root = self.footage.labelled
        path = self.root / f"labelled-{films_per_class}.csv"
        lines = ["path,label,split"]
        for subset, limit in (("train", films_per_class), ("test", None)):
            for folder in sorted((root / subset).iterdir()):
                for film in sorted(folder.glob("*.mp4"))[:limit]:
                    relative = film.relative_to(root).as_posix()
                    lines.append(f"{relative},{folder.name},{subset}")
        atomic_write_bytes(path, ("\n".join(lines) + "\n").encode())
        return path

    def make_films(self, progress: Progress) -> None:
        """Write the films that are missing."""
        make_digits(self.root / "films", films=self.films, progress=progress)

    def train_teacher(self, progress: Progress, *, epochs: int = TEACHER_EPOCHS) -> float:
        """Train the teacher unless it exists; its accuracy on held-out stills, percent."""
        if not self.weights.is_file():
            train_teacher(self.weights, epochs=epochs, progress=progress)
        return held_out_accuracy(self.weights)

    def extract(self, workers: int, progress: Progress) -> None:
        """Write the target cache and both frame stores; resumes unfinished ones."""
        values = {
            "videos": str(self.footage.corpus),
            "teachers": [{"name": _PLUGIN, "weights": str(self.weights), "id": "digits"}],
            "cache": str(self.cache),
            "frames": str(self.frames),
            "geometry": _GEOMETRY,
            "compute.workers": workers,
        }
        extract(build_config(ExtractConfig, None, [], values), progress=progress)
        values = {
            "videos": str(self.footage.labelled),
            "out": str(self.labelled_frames),
            "geometry": _GEOMETRY,
        }
        build_frames(build_config(FramesConfig, None, [], values), progress=progress)


def distill_digits(
    data: DigitData, out: Path, progress: Progress, changes: Mapping[str, Any] | None = None
) -> None:
    """Distil the student from the stored targets into the run directory ``out``.

    ``changes``: dotted names of settings that differ from ``configs/digits_distill.yaml``.
    """
    values = {
        "cache": str(data.cache),
        "frames": str(data.frames),
        "out": str(out),
        **(changes or {}),
    }
    distill(_config(DistillConfig, "digits_distill.yaml", values), progress=progress)


def finetune_digits(
    data: DigitData,
    init: str,
    out: Path,
    progress: Progress,
    changes: Mapping[str, Any] | None = None,
    *,
    films_per_class: int = FILMS_PER_CLASS,
) -> EvaluationResult:
    """Finetune from ``init`` (``scratch`` or ``distinit:RUN``) into ``out``, and evaluate.

    ``films_per_class``: 6 (all), or 2 with a lower learning rate. ``changes``: dotted names of
    settings that differ from ``configs/digits_finetune.yaml``, or its low-shot version.
    """
    values = {
        "dataset.root": str(data.footage.labelled),
        "init": init,
        "out": str(out),
        "frames": str(data.labelled_frames),
        **(changes or {}),
    }
    if films_per_class < FILMS_PER_CLASS:
        values["dataset.splits"] = str(data.low_shot_list(films_per_class))
    config = _config(FinetuneConfig, _FINETUNE_CONFIGS[films_per_class], values)
    return finetune(config, progress=progress).evaluation


def _config[ConfigT: Record](kind: type[ConfigT], name: str, values: dict[str, Any]) -> ConfigT:
    with as_file(files("distinit.configs") / name) as file:
        return build_config(kind, file, [], values)


def gain_of(results: Mapping[str, EvaluationResult], films_per_class: int) -> Gain:
    """Compare the results of both inits on the same test videos."""
    correct = {init: _correct(result) for init, result in results.items()}
    videos = results["scratch"].videos
    low, high = difference_interval(correct["distinit"], videos, correct["scratch"], videos)
    intervals = {init: wilson_interval(count, videos) for init, count in correct.items()}
    return Gain(
        films_per_class=films_per_class,
        videos=videos,
        chance=100 / results["scratch"].classes,
        top1={init: result.top1 for init, result in results.items()},
        interval={init: (100 * a, 100 * b) for init, (a, b) in intervals.items()},
        points=results["distinit"].top1 - results["scratch"].top1,
        points_interval=(100 * low, 100 * high),
    )


def _correct(result: EvaluationResult) -> int:
    """Number of test videos that are classified correctly."""
    return sum(row[true] for true, row in enumerate(result.confusion))
