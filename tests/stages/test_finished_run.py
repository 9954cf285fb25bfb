"""Records of a finished finetune run that contradict each other are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.finished_runs import dataset_of, write_finished

from distinit.schemas.errors import ConfigError
from distinit.stages.finished_run import read_finished_run


def test_a_finished_run_has_its_counts(tmp_path: Path) -> None:
    run = read_finished_run(write_finished(tmp_path / "a", dataset_of([4, 3]), [[3, 1], [2, 0]]))
    assert run.confusion_CC.tolist() == [[3, 1], [2, 0]]
    assert (run.videos_C.tolist(), run.correct) == ([4, 3], 3)


@pytest.mark.parametrize("row", [[2**62, 2**62], [2**63 - 1, 2**63 - 1], [5, -1], [5, 0]])
def test_counts_that_do_not_fit_the_test_videos_are_refused(row: list[int], tmp_path: Path) -> None:
    """Two of these rows have a sum that wraps around in int64: they would seem to fit."""
    write_finished(tmp_path / "a", dataset_of([4, 4, 4]), [[0, *row], [0, 4, 0], [0, 0, 4]])
    with pytest.raises(ConfigError, match="a confusion matrix that does not fit 12 test videos"):
        read_finished_run(tmp_path / "a")


def test_a_run_without_test_videos_is_refused(tmp_path: Path) -> None:
    write_finished(tmp_path / "a", dataset_of([0, 0]), [[0, 0], [0, 0]])
    with pytest.raises(ConfigError, match="a run with test videos"):
        read_finished_run(tmp_path / "a")
