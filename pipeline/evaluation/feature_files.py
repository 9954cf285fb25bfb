"""Reads and writes exported features: Parquet for any tool, safetensors for torch, and a record.

OUT/features.parquet      one row per video: digest, path, label, subset, clip_count, feature
OUT/features.safetensors  features_ND, label_N, is_test_N, clip_count_N, digest_N32, same order;
                          is_val_N, only if there are val videos
OUT/features.json         what they are of; written last, so that its presence means complete
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distinit.pipeline.records import file_entry, read_record, write_record
from distinit.pipeline.storage import atomic_path
from distinit.pipeline.tensors import TensorShape, read_shapes, read_tensors, write_tensors
from distinit.schemas.dataset import DatasetVideo
from distinit.schemas.errors import FeaturesError
from distinit.schemas.features import FeaturesRecord
from distinit.schemas.tables import FEATURES_SCHEMA
from distinit.schemas.wording import reason_of

__all__ = [
    "PARQUET_NAME",
    "RECORD_NAME",
    "TENSORS_NAME",
    "FeatureTable",
    "read_features",
    "read_features_record",
    "write_features",
]

PARQUET_NAME = "features.parquet"
TENSORS_NAME = "features.safetensors"
RECORD_NAME = "features.json"
_REMEDY = "delete the folder, and export the features again"


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of N labelled videos, in the order of the dataset's lists."""

    features_ND: Tensor
    """float32, mean over the clips of a video."""
    label_N: Tensor
    """int64, index of the class in ``FeaturesRecord.classes``."""
    is_test_N: Tensor
    """bool"""
    clip_count_N: Tensor
    """int64, how many clips were averaged."""
    digest_N32: Tensor
    """uint8, the 32 bytes of each video's sha256."""
    is_val_N: Tensor
    """bool; neither for training nor for testing. Videos that are neither are for training."""

    @property
    def scored_rows(self) -> Tensor:
        """bool [N]; the test videos, or the val videos if there are no test videos."""
        return self.is_test_N if bool(self.is_test_N.any()) else self.is_val_N

    @property
    def digests(self) -> list[str]:
        """sha256 of each video's file, hexadecimal."""
        return [bytes(row).hex() for row in self.digest_N32.numpy()]


def write_features(
    folder: Path,
    features_ND: Tensor,
    clip_count_N: Tensor,
    videos: Sequence[DatasetVideo],
    record: FeaturesRecord,
) -> FeaturesRecord:
    """Write the files of ``videos``, then ``record`` with its ``files`` filled in, and return it.

    Raises StorageError.
    """
    tensors = {
        "features_ND": features_ND.contiguous(),
        "label_N": torch.tensor([video.label for video in videos]),
        "is_test_N": torch.tensor([video.subset == "test" for video in videos]),
        "clip_count_N": clip_count_N,
        "digest_N32": torch.from_numpy(
            np.stack([np.frombuffer(bytes.fromhex(v.digest), np.uint8) for v in videos])
        ),
    }
    is_val_N = torch.tensor([video.subset == "val" for video in videos])
    if bool(is_val_N.any()):  # otherwise the file is as in earlier versions
        tensors["is_val_N"] = is_val_N
    with atomic_path(folder / TENSORS_NAME) as partial:
        write_tensors(tensors, partial)
    table = _arrow_table(features_ND, clip_count_N, videos, record.classes)
    # A file, not its path: pyarrow takes paths such as ~a and a:b for something else.
    with atomic_path(folder / PARQUET_NAME) as partial, partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
    files = {name: file_entry(folder / name) for name in (PARQUET_NAME, TENSORS_NAME)}
    record = record.model_copy(update={"files": files})
    write_record(record, folder / RECORD_NAME)
    return record


def _arrow_table(
    features_ND: Tensor,
    clip_count_N: Tensor,
    videos: Sequence[DatasetVideo],
    classes: Sequence[str],
) -> pa.Table:
    count, dim = features_ND.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(dim))
    columns = {
        "digest": [video.digest for video in videos],
        "path": [video.path for video in videos],
        "label": [classes[video.label] for video in videos],
        "subset": [video.subset for video in videos],
        "clip_count": clip_count_N.numpy(),
        "feature": pa.ListArray.from_arrays(offsets, pa.array(features_ND.numpy().reshape(-1))),
    }
    return pa.table(columns, schema=FEATURES_SCHEMA)


def read_features_record(folder: Path) -> FeaturesRecord:
    """Read ``features.json``. Raises FeaturesError if it is missing or damaged."""
    return read_record(
        folder / RECORD_NAME,
        FeaturesRecord,
        error=FeaturesError,
        remedy=_REMEDY,
        missing=f"{folder} holds no features",
        named_input=True,
    )


def read_features(folder: Path | str) -> tuple[FeatureTable, FeaturesRecord]:
    """Read the features in ``folder``.

    Raises FeaturesError if they are missing or incomplete, or differ from their record.
    """
    folder = Path(folder)
    record = read_features_record(folder)
    path = folder / TENSORS_NAME
    try:
        if record.files.get(TENSORS_NAME) != file_entry(path):
            raise ValueError(f"a size or sha256 that differs from {RECORD_NAME}")
        tensors = read_tensors(path, read_shapes(path))
        none_N = torch.zeros_like(tensors.get("is_test_N", torch.empty(0)), dtype=torch.bool)
        tensors.setdefault("is_val_N", none_N)
        table = FeatureTable(**tensors)
        _check(table, record)
    except (OSError, ValueError, TypeError) as error:
        raise FeaturesError(
            f"the features in {folder} are damaged",
            expected=f"{TENSORS_NAME} as `distinit features` wrote it",
            found=reason_of(error),
            remedy=_REMEDY,
        ) from error
    return table, record


def _check(table: FeatureTable, record: FeaturesRecord) -> None:
    """Raise ValueError for tensors of another type or shape, or with unknown labels."""
    count = record.videos
    expected = {
        "features_ND": TensorShape(torch.float32, (count, record.feature_dim)),
        "label_N": TensorShape(torch.int64, (count,)),
        "is_test_N": TensorShape(torch.bool, (count,)),
        "is_val_N": TensorShape(torch.bool, (count,)),
        "clip_count_N": TensorShape(torch.int64, (count,)),
        "digest_N32": TensorShape(torch.uint8, (count, 32)),
    }
    # Indexing with an integer mask, for example, would silently select other rows.
    for name, shape in expected.items():
        if (found := TensorShape.of(getattr(table, name))) != shape:
            raise ValueError(
                f"{name} of {found.dtype} {found.shape}, not {shape.dtype} {shape.shape}"
            )
    label_N = table.label_N
    if bool((label_N < 0).any()) or bool((label_N >= len(record.classes)).any()):
        raise ValueError("a label without a class name")
