"""What must be the same in the dataset of `evaluate --dataset` and in that of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.videos import make_video

from distinit.pipeline.datasets.listing import list_dataset
from distinit.pipeline.datasets.same_dataset import refuse_other_split, refuse_other_tests_in
from distinit.schemas.errors import ConfigError
from distinit.schemas.finetune import DatasetConfig

PATHS = ("brush/b.avi", "apply/a.avi", "brush/d.avi", "apply/c.avi")


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetConfig:
    """Split 2 of a dataset with UCF-101's lists: two training videos, two test videos."""
    for number, path in enumerate(PATHS):
        make_video(tmp_path / "ucf" / path, frames=2, seed=number)
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 brush\n2 apply\n")
    for split in (1, 2):
        shown = PATHS if split == 2 else PATHS[::-1]
        (lists / f"trainlist0{split}.txt").write_text("\n".join(shown[:2]) + "\n")
        (lists / f"testlist0{split}.txt").write_text("\n".join(shown[2:]) + "\n")
    return DatasetConfig(root=str(tmp_path / "ucf"), splits=str(lists), split=2)


def test_another_split_is_refused(dataset: DatasetConfig) -> None:
    record = list_dataset(dataset)
    refuse_other_tests_in(dataset, record)
    refuse_other_tests_in(DatasetConfig(root=dataset.root), record)  # the labels of the record
    with pytest.raises(ConfigError, match="the test videos of --dataset and of the run differ"):
        refuse_other_tests_in(dataset.model_copy(update={"split": 1}), record)
    refuse_other_split(2, 2, "runs/a")
    with pytest.raises(ConfigError, match="runs/a was finetuned on another split") as error:
        refuse_other_split(1, 2, "runs/a")
    assert (error.value.expected, error.value.found) == ("--split 2", "--split 1")


def test_another_order_of_the_classes_is_refused(dataset: DatasetConfig) -> None:
    record = list_dataset(dataset)
    (Path(dataset.splits or "") / "classInd.txt").write_text("1 apply\n2 brush\n")
    with pytest.raises(ConfigError, match="the classes of --dataset and of the run") as error:
        refuse_other_tests_in(dataset, record)
    assert (error.value.expected, error.value.found) == ("class 0: brush", "class 0: apply")
