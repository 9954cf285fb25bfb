"""Checks that a folder has the test videos of a finetune run, in the same classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from distinit.pipeline.corpus.listing import list_files
from distinit.pipeline.datasets.listing import OFFICIAL, list_dataset
from distinit.pipeline.datasets.source import labelled_source
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.errors import ConfigError, DatasetError
from distinit.schemas.finetune import DatasetConfig
from distinit.schemas.wording import counted, first_names

__all__ = ["refuse_other_split", "refuse_other_tests_in"]


def refuse_other_split(split: int, recorded: int, run: str) -> None:
    """Raise ConfigError unless ``split`` is the split that ``run`` was trained on."""
    if split != recorded:
        raise ConfigError(
            f"{run} was finetuned on another split, and its training videos may be test videos of "
            f"split {split}",
            expected=f"--split {recorded}",
            found=f"--split {split}",
            remedy=f"leave --split out, or evaluate a run that was finetuned on split {split}",
        )


def refuse_other_tests_in(config: DatasetConfig, dataset: DatasetRecord) -> None:
    """Raise an error unless the folder of ``config`` has the test videos of ``dataset``.

    Class names, their order, and the test videos must be the same: paths, labels and bytes. The
    training videos may differ. In a folder without lists, a dataset that was split by lists is
    compared with its record, and only the videos are read.

    Raises ConfigError if something differs, DatasetError if videos or lists are missing,
    CorpusError if files cannot be read.
    """
    source = labelled_source(config)
    if source.lists is None and dataset.kind != "folders":
        _refuse_other_bytes(source.root, dataset)
        return
    if dataset.kind not in OFFICIAL:  # earlier versions recorded a split without using it
        config = config.model_copy(update={"split": 1})
    found = list_dataset(config)
    if found.kind != dataset.kind:
        raise _differs("the kind of dataset", dataset.kind, found.kind)
    if found.classes != dataset.classes:
        raise _differs("the classes", *_where_lists_differ(dataset.classes, found.classes))
    expected_tests, found_tests = _tests(dataset), _tests(found)
    if expected_tests != found_tests:
        raise _differs(
            "the test videos",
            f"{counted(len(expected_tests), 'test video')} with their paths, labels and bytes",
            _differences(expected_tests, found_tests),
        )


def _refuse_other_bytes(root: Path, dataset: DatasetRecord) -> None:
    """Compare the test videos below ``root`` with their recorded digests."""
    expected = {
        video.path: video.digest for video in (*dataset.subset("test"), *dataset.subset("val"))
    }
    if outside := [path for path in expected if _leads_out(path)]:
        raise DatasetError(
            "the run recorded a video outside of its dataset",
            expected="paths relative to the dataset, without ..",
            found=first_names(map(repr, outside)),
            remedy="if you trained it with a CSV as --dataset, name that CSV; otherwise do not use "
            "this run, and ask its sender for a clean copy",
        )
    missing = [path for path in expected if not (root / path).is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {counted(len(expected), 'test video')} are missing from {root}",
            expected="the videos at the paths that the run recorded, relative to the folder",
            found=f"missing: {first_names(missing)}",
            remedy="set --dataset to the folder of the videos",
        )
    found = {file.path: file.digest for file in list_files(root, list(expected)).files}
    changed = [path for path, digest in expected.items() if found[path] != digest]
    if changed:
        raise _differs(
            "the test videos",
            "the bytes that the run recorded",
            f"other bytes: {first_names(changed)}",
        )


def _leads_out(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.is_absolute() or ".." in pure.parts


def _tests(dataset: DatasetRecord) -> dict[str, tuple[int, str]]:
    return {
        video.path: (video.label, video.digest)
        for video in (*dataset.subset("test"), *dataset.subset("val"))
    }


def _where_lists_differ(expected: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, str]:
    """The classes that only one of them has, or the first place where their order differs."""
    if Counter(expected) == Counter(found):
        index = next(i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b)
        return f"class {index}: {expected[index]}", f"class {index}: {found[index]}"
    lost = [name for name in expected if name not in found]
    added = [name for name in found if name not in expected]
    texts = [f"{len(found)} classes"]
    texts += [f"missing: {first_names(lost)}"] * bool(lost)
    texts += [f"not in the run: {first_names(added)}"] * bool(added)
    return f"the {counted(len(expected), 'class', 'classes')} of the run", "; ".join(texts)


def _differences(expected: dict[str, tuple[int, str]], found: dict[str, tuple[int, str]]) -> str:
    """What differs, with some paths."""
    both = expected.keys() & found.keys()
    kinds = {
        "missing": expected.keys() - found.keys(),
        "not in the run": found.keys() - expected.keys(),
        "with another label": {p for p in both if expected[p][0] != found[p][0]},
        "with other bytes": {p for p in both if expected[p][1] != found[p][1]},
    }
    texts = {kind: first_names(sorted(paths)) for kind, paths in kinds.items() if paths}
    return "; ".join(f"{len(kinds[kind])} {kind}: {text}" for kind, text in texts.items())


def _differs(what: str, expected: str, found: str) -> ConfigError:
    return ConfigError(
        f"{what} of --dataset and of the run differ",
        expected=expected,
        found=found,
        remedy="name the dataset that the run was finetuned on, with its --splits and --split",
    )
