"""Makes the data of the smoke scale: few films of moving digits, laid out as the paper's data.

DATA/kinetics/*.mp4   kinetics.csv      the corpus, and its list with labels
DATA/hmdb51/CLASS/    splits/hmdb51/    labelled films, with lists of three splits
DATA/ucf101/CLASS/    splits/ucf101/    other labelled films, likewise
DATA/weights/digits.safetensors         the teacher
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from distinit.pipeline.demo.digit_footage import make_digits
from distinit.pipeline.demo.digit_teacher import train_teacher
from distinit.pipeline.demo.digits import DigitFilm, corpus_films, labelled_films
from distinit.pipeline.progress import Progress
from distinit.pipeline.storage import atomic_write_bytes

__all__ = ["has_moving_digits", "make_moving_digits"]

_DIGITS = 2
_FILMS_PER_CLASS = 3
"""One of them is for testing in each of the three splits."""
_TEACHER_EPOCHS, _STILLS_PER_SCAN = 1, 4


def make_moving_digits(data: Path, progress: Progress) -> None:
    """Write what is missing below ``data``. Raises DistInitError and StorageError."""
    corpus = [film for film in corpus_films() if film.label < _DIGITS][::2]
    films = [replace(film, path=f"kinetics/{Path(film.path).name}") for film in corpus]
    parts = {"hmdb51": _labelled("train", "hmdb51"), "ucf101": _labelled("test", "ucf101")}
    films += [film for part in parts.values() for film in part]
    make_digits(data, films=films, progress=progress)
    _write(data / "kinetics.csv", _listing(corpus))
    for path, text in {**_hmdb51_lists(parts["hmdb51"]), **_ucf101_lists(parts["ucf101"])}.items():
        _write(data / "splits" / path, text)
    weights = _weights(data)
    if not weights.is_file():
        weights.parent.mkdir(parents=True, exist_ok=True)
        train_teacher(weights, epochs=_TEACHER_EPOCHS, per_scan=_STILLS_PER_SCAN, progress=progress)


def has_moving_digits(data: Path) -> bool:
    """Whether ``make_moving_digits`` has finished there: the teacher is written last."""
    return _weights(data).is_file()


def _weights(data: Path) -> Path:
    return data / "weights" / "digits.safetensors"


def _labelled(pool: str, dataset: str) -> list[DigitFilm]:
    """``dataset/CLASS/NNN.mp4``: the first films of each class of the first digits."""
    counts: dict[str, int] = {}
    films = []
    for film in labelled_films(pool):
        label = f"{film.label}_{film.motion}"
        number = counts.get(label, 0)
        if film.label < _DIGITS and number < _FILMS_PER_CLASS:
            counts[label] = number + 1
            films.append(replace(film, path=f"{dataset}/{label}/{label}_{number}.mp4"))
    return films


def _listing(films: list[DigitFilm]) -> str:
    """Columns path, label and split of the corpus."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "split"))
    writer.writerows((Path(film.path).name, film.label, "train") for film in films)
    return text.getvalue()


def _hmdb51_lists(films: list[DigitFilm]) -> dict[str, str]:
    """``CLASS_test_splitK.txt`` with ``FILE 1|2``: film K - 1 of a class is for testing."""
    lists: dict[str, str] = {}
    for film, label, number in _named(films):
        for split in (1, 2, 3):
            name = f"hmdb51/{label}_test_split{split}.txt"
            subset = 2 if number == split - 1 else 1
            lists[name] = lists.get(name, "") + f"{Path(film.path).name} {subset}\n"
    return lists


def _ucf101_lists(films: list[DigitFilm]) -> dict[str, str]:
    """``classInd.txt``, ``trainlist0K.txt`` and ``testlist0K.txt``."""
    classes = sorted({label for _, label, _ in _named(films)})
    lists = {"ucf101/classInd.txt": "".join(f"{n} {c}\n" for n, c in enumerate(classes, 1))}
    for film, label, number in _named(films):
        for split in (1, 2, 3):
            subset = "test" if number == split - 1 else "train"
            name = f"ucf101/{subset}list{split:02d}.txt"
            number_of_class = "" if subset == "test" else f" {classes.index(label) + 1}"
            line = f"{label}/{Path(film.path).name}{number_of_class}\n"
            lists[name] = lists.get(name, "") + line
    return lists


def _named(films: list[DigitFilm]) -> Iterator[tuple[DigitFilm, str, int]]:
    """(film, class, number of the film in its class)."""
    for film in films:
        path = Path(film.path)
        yield film, path.parent.name, int(path.stem.rpartition("_")[2])


def _write(path: Path, text: str) -> None:
    """Write a text file unless it has this content already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, text.encode())
