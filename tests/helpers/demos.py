"""A demo of few films and little training: the folders of ``distinit demo``, without its gain."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distinit.pipeline.demo.digits import corpus_films, labelled_films
from distinit.pipeline.progress import NullProgress
from distinit.schemas.run import EvaluationResult
from distinit.stages.demo_digits import INITS, DigitData, distill_digits, finetune_digits


@dataclass(frozen=True, slots=True)
class SmallDemo:
    """The experiment of the demo with one training film per class and one step per epoch."""

    root: Path
    teacher_accuracy: float
    results: dict[str, EvaluationResult]
    """Init -> result."""


def make_small_demo(root: Path) -> SmallDemo:
    """Run the experiment in ``root``, from films to the results of both inits."""
    labelled = (*labelled_films("train"), *labelled_films("test"))
    one_per_class = {Path(film.path).parent: film for film in labelled}.values()
    data = DigitData(root / "digits", films=(*corpus_films()[::35], *one_per_class))
    progress = NullProgress()
    data.make_films(progress)
    accuracy = data.train_teacher(progress, epochs=1)
    data.extract(0, progress)
    small = {"optimizer.epochs": 1, "optimizer.clips_per_epoch": 32}
    student = root / "distill"
    distill_digits(data, student, progress, small)
    sources = {"scratch": "scratch", "distinit": f"distinit:{student}"}
    results = {
        init: finetune_digits(data, sources[init], root / f"finetune_{init}", progress, small)
        for init in INITS
    }
    return SmallDemo(root, accuracy, results)
