"""The films, teachers and settings of the study of targets: moving digits and moving pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import moving_pictures
from target_arms import FEATURES, LOGITS

from distinit.pipeline.config import build_config
from distinit.pipeline.demo.digits import (
    DIGIT_MOTIONS,
    DigitFilm,
    corpus_films,
    labelled_films,
    pool,
)
from distinit.pipeline.demo.encode import prepare_folder, write_films
from distinit.pipeline.progress import NullProgress, Progress
from distinit.pipeline.storage import atomic_write_bytes
from distinit.schemas.base import PLUGIN
from distinit.schemas.distill import DistillConfig
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.frames import FramesConfig
from distinit.schemas.run import EvaluationResult
from distinit.stages.demo_digits import (
    FILMS_PER_CLASS,
    LOW_SHOT,
    DigitData,
    distill_digits,
    finetune_digits,
)
from distinit.stages.distill import distill
from distinit.stages.extract import extract
from distinit.stages.finetune import finetune
from distinit.stages.frames import build_frames

Target = dict[str, Any]
"""One of the ``targets`` of a distillation."""


class TargetCorpus(Protocol):
    """Films and their teachers, and how students are trained on them."""

    @property
    def title(self) -> str:
        """Title of the figure."""

    @property
    def films_per_class(self) -> tuple[int, ...]:
        """Numbers of training films; rates are chosen with the first one."""

    def prepare(self, progress: Progress) -> None:
        """Write films, teachers and caches that are missing."""

    def distill(self, targets: Sequence[Target], rate: float, out: Path, seed: int) -> None:
        """Distil a student into the run ``out``, or finish that run."""

    def finetune(
        self, init: str, out: Path, subset: str, films_per_class: int, seed: int
    ) -> EvaluationResult:
        """Finetune on training films, and score the films of ``subset``, val or test."""


@dataclass(frozen=True)
class DigitCorpus:
    """Moving digits (decision 26), with validation films of the scans of the held-out pool."""

    out: Path
    finetune_epochs: int = 20
    title: str = "Moving digits"
    films_per_class: tuple[int, ...] = (FILMS_PER_CLASS, LOW_SHOT)

    @property
    def data(self) -> DigitData:
        labelled = (*labelled_films("train"), *validation_digits(), *labelled_films("test"))
        return DigitData(self.out / "digits", (*corpus_films(), *labelled))

    def prepare(self, progress: Progress) -> None:
        self.data.make_films(progress)
        self.data.train_teacher(progress)
        weights = str(self.data.weights)
        teacher = "distinit.pipeline.demo.digit_teacher:digit_teacher"
        teachers = [
            {"name": f"{PLUGIN}{teacher}", "weights": weights, "id": LOGITS},
            {
                "name": f"{PLUGIN}digit_features:digit_features",
                "weights": weights,
                "id": FEATURES,
                "target": "features",
            },
        ]
        root, footage = self.data.root, self.data.footage
        _make_cache(root, footage.corpus, footage.labelled, teachers, {}, progress)

    def distill(self, targets: Sequence[Target], rate: float, out: Path, seed: int) -> None:
        changes = {
            "targets": [*targets],
            "optimizer.learning_rate": rate,
            "runtime.seed": seed,
        }
        distill_digits(self.data, out, NullProgress(), changes)

    def finetune(
        self, init: str, out: Path, subset: str, films_per_class: int, seed: int
    ) -> EvaluationResult:
        if films_per_class < FILMS_PER_CLASS and subset != "test":
            raise ValueError("validation is with all training films")
        changes: dict[str, Any] = {
            "runtime.seed": seed,
            "optimizer.epochs": self.finetune_epochs,
        }
        if films_per_class == FILMS_PER_CLASS:
            changes["dataset.splits"] = str(_list_films(self.data.footage.labelled, subset))
        return finetune_digits(
            self.data, init, out, NullProgress(), changes, films_per_class=films_per_class
        )


def validation_digits() -> tuple[DigitFilm, ...]:
    """Two films of each held-out scan: films of two of the motions, 80 per motion."""
    photos = [film.photo for film in labelled_films("train")]
    films: list[DigitFilm] = []
    for number, (scan, label) in enumerate(pool("held_out")):
        for turn in range(2):
            motion = DIGIT_MOTIONS[(2 * number + turn) % len(DIGIT_MOTIONS)]
            path = f"labelled/val/{label}_{motion}/{number:03d}.mp4"
            photo = photos[(7 * number + turn) % len(photos)]
            films.append(DigitFilm(path, scan, label, motion, photo, 40_000 + len(films)))
    return tuple(films)


@dataclass(frozen=True)
class PictureCorpus:
    """Moving pictures (decision 37), fewer and for a shorter time than in its table.

    Ten more photographs per object, taken from the unlabelled ones, make the validation films.
    """

    out: Path
    photographs: Path
    unlabelled: int
    epochs: int
    finetune_epochs: int = 20
    title: str = "Moving pictures"
    films_per_class: tuple[int, ...] = (20,)

    def prepare(self, progress: Progress) -> None:
        labelled = self.out / "films" / "labelled"
        self._make_films(progress)
        name = {"name": "efficientnet_lite0"}
        teachers = [
            {**name, "id": LOGITS},
            {**name, "id": FEATURES, "target": "features"},
        ]
        sampling = {"sampling": {"mode": "stride", "stride": 4}}
        _make_cache(self.out, self.out / "films" / "corpus", labelled, teachers, sampling, progress)

    def distill(self, targets: Sequence[Target], rate: float, out: Path, seed: int) -> None:
        values = {
            "cache": str(self.out / "cache"),
            "frames": str(self.out / "frames"),
            "out": str(out),
            "student.name": "tiny_r2plus1d_10",
            "targets": [*targets],
            "clip": {"frames": 8, "crop": 56},
            "optimizer": {"learning_rate": rate, "schedule": "cosine", "epochs": self.epochs},
            "runtime": {"batch_size": 32, "loader_workers": 1, "seed": seed},
        }
        distill(build_config(DistillConfig, None, [], values), progress=NullProgress())

    def finetune(
        self, init: str, out: Path, subset: str, films_per_class: int, seed: int
    ) -> EvaluationResult:
        labelled = self.out / "films" / "labelled"
        values = {
            "dataset.root": str(labelled),
            "dataset.splits": str(_list_films(labelled, subset)),
            "init": init,
            "out": str(out),
            "frames": str(self.out / "labelled_frames"),
            "student.name": "tiny_r2plus1d_10",
            "clip": {"frames": 8, "crop": 56, "flip": 0},
            "optimizer": {
                "learning_rate": 0.05,
                "schedule": "cosine",
                "warmup_epochs": 2,
                "epochs": self.finetune_epochs,
                "clips_per_epoch": 1200,
                "weight_decay": 5e-4,
            },
            "runtime": {"batch_size": 32, "loader_workers": 1, "seed": seed},
            "evaluation.protocol": "vmz-3",
        }
        config = build_config(FinetuneConfig, None, [], values)
        return finetune(config, progress=NullProgress()).evaluation

    def _make_films(self, progress: Progress) -> None:
        films = picture_films(self.photographs, self.films_per_class[0], self.unlabelled)
        root = self.out / "films"
        entries = {film.path: {"photograph": film.photograph, "seed": film.seed} for film in films}
        prepare_folder(root, "distinit-moving-pictures", entries)
        write_films(
            root,
            [(root / film.path, film) for film in films],
            lambda film: moving_pictures.render(self.photographs, film),
            side=moving_pictures.SIDE,
            frame_count=moving_pictures.FRAMES,
            jobs=2,
            progress=progress,
        )


def picture_films(photographs: Path, train: int, unlabelled: int) -> list[moving_pictures.Film]:
    """All films; of each class, those of ``train`` photographs to train on, and ten to validate."""
    pools = moving_pictures.find_pools(
        photographs, per_object=train + 10, unlabelled=unlabelled, seed=0
    )
    counts: Counter[str] = Counter()
    films: list[moving_pictures.Film] = []
    for film in moving_pictures.films_of(pools, 0):
        folder = Path(film.path).parent
        if folder.parent == Path("labelled/train"):
            counts[folder.name] += 1
            if counts[folder.name] > train:
                film = replace(film, path=film.path.replace("/train/", "/val/", 1))
        films.append(film)
    return films


def _list_films(root: Path, subset: str) -> Path:
    """Write a CSV of the training films and the films of ``subset`` below ``root``."""
    path = root.parent.parent / f"labelled-{subset}.csv"
    lines = ["path,label,split"]
    for split in ("train", subset):
        for film in sorted((root / split).glob("*/*.mp4")):
            lines.append(f"{film.relative_to(root).as_posix()},{film.parent.name},{split}")
    atomic_write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _make_cache(
    root: Path,
    corpus: Path,
    labelled: Path,
    teachers: list[dict[str, str]],
    more: dict[str, Any],
    progress: Progress,
) -> None:
    """Write ``cache`` and ``frames`` of the corpus, and ``labelled_frames``, below ``root``."""
    geometry = {"mode": "short_edge", "short_edge": moving_pictures.SIDE}
    values = {
        "videos": str(corpus),
        "teachers": teachers,
        "cache": str(root / "cache"),
        "frames": str(root / "frames"),
        "geometry": geometry,
        "compute.workers": 0,
        **more,
    }
    extract(build_config(ExtractConfig, None, [], values), progress=progress)
    values = {
        "videos": str(labelled),
        "out": str(root / "labelled_frames"),
        "geometry": geometry,
    }
    build_frames(build_config(FramesConfig, None, [], values), progress=progress)
