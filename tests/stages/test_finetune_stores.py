"""The frame and flow stores of a finetune run: shared, damaged, or of other videos."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.frame_stores import alter
from helpers.progress import RecordingProgress
from helpers.students import save_distilled
from helpers.videos import make_video
from safetensors.torch import load_file

from distinit.pipeline.frames.reader import FrameStore
from distinit.pipeline.frames.writer import store_lock
from distinit.schemas.errors import (
    ConfigError,
    DatasetError,
    FrameStoreError,
    RunMismatchError,
)
from distinit.schemas.finetune import (
    EvaluateConfig,
    FinetuneConfig,
)
from distinit.schemas.run import StudentRecord
from distinit.schemas.training import FLOW_PIXELS
from distinit.stages.evaluate import evaluate
from distinit.stages.finetune import finetune


def test_a_store_without_the_videos_of_the_dataset_is_rejected(
    finished: object,
    configure: Callable[..., FinetuneConfig],
    tmp_path: Path,
) -> None:
    for seed, folder in enumerate(("train/a", "train/b", "test/a", "test/b"), start=50):
        make_video(tmp_path / "other" / folder / "x.mp4", seed=seed)
    with pytest.raises(FrameStoreError, match="lacks 4 of 4 videos"):
        finetune(configure(tmp_path / "run", dataset={"root": str(tmp_path / "other")}))
    assert (tmp_path / "run" / "run.json").is_file()
    corrected = configure(tmp_path / "run", optimizer={"epochs": 1})
    assert finetune(corrected).optimizer.epochs == 1


class CallingProgress(RecordingProgress):
    """Also calls ``on_message`` for each message."""

    def __init__(self, on_message: Callable[[str], None]) -> None:
        super().__init__()
        self._on_message = on_message

    def message(self, text: str, **values: Any) -> None:
        super().message(text, **values)
        self._on_message(text)


def test_finetune_waits_for_a_store_that_another_process_writes(
    finished: object, configure: Callable[..., FinetuneConfig], frames: Path, tmp_path: Path
) -> None:
    """The other process finishes the store, so no video is decoded twice."""
    store = tmp_path / "store"
    lock = store_lock(store)
    lock.acquire()

    def finish(text: str) -> None:
        if text.startswith("waiting: another process is writing"):
            shutil.copytree(
                frames, store, ignore=shutil.ignore_patterns(".lock"), dirs_exist_ok=True
            )
            lock.release()

    progress = CallingProgress(finish)
    finetune(configure(tmp_path / "run", frames=str(store)), progress=progress)
    assert f"waiting: another process is writing {store} (pid {os.getpid()}" in str(
        progress.messages
    )
    assert (store / "unit-00000.arrow").stat().st_mtime_ns == (
        frames / "unit-00000.arrow"
    ).stat().st_mtime_ns  # copytree keeps times


def test_a_finished_store_with_damaged_files_is_repaired(
    finished: object, configure: Callable[..., FinetuneConfig], frames: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(frames, store)
    (store / "unit-00002.arrow").unlink()
    os.truncate(store / "unit-00003.arrow", 100)
    progress = RecordingProgress()
    finetune(configure(tmp_path / "run", frames=str(store)), progress=progress)
    assert "unit-00002.arrow is not what was committed: building the damaged units again" in str(
        progress.messages
    )
    for path in frames.glob("*.arrow"):
        assert (store / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("torn", "message"),
    [
        ("train/grey", "no training video of class grey could be decoded"),
        ("train", "no training video could be decoded"),
        ("test", "no test video could be decoded"),
    ],
)
def test_a_class_or_subset_without_decodable_videos_is_named_in_the_error(
    dataset: Path,
    configure: Callable[..., FinetuneConfig],
    tmp_path: Path,
    torn: str,
    message: str,
) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(dataset, root)
    for path in (root / torn).rglob("*.mp4"):
        path.write_bytes(path.read_bytes()[:300] + path.name.encode() + str(path.parent).encode())
    out = tmp_path / "run"
    config = configure(out, dataset={"root": str(root)}, frames=str(tmp_path / "store"))
    with pytest.raises(DatasetError, match=message):
        finetune(config)
    assert not (out / "result.json").exists()
    assert not (out / "student.safetensors").exists()


def test_a_flow_student_is_trained_and_evaluated_on_flow(
    configure: Callable[..., FinetuneConfig],
    finished: object,
    tmp_path: Path,
) -> None:
    student = {"name": "tiny_r2plus1d_10", "in_channels": 2}
    config = configure(
        tmp_path / "run",
        student=student,
        optimizer={"learning_rate": 0.05, "epochs": 1, "clips_per_epoch": 16},
    )
    assert config.clip.mean == FLOW_PIXELS["mean"]
    result = finetune(config)
    assert (result.evaluation.videos, result.training_videos) == (5, 8)
    record = StudentRecord.model_validate_json((tmp_path / "run" / "student.json").read_bytes())
    assert record.student.in_channels == 2
    assert (record.clip.mean, record.clip.std) == (FLOW_PIXELS["mean"], FLOW_PIXELS["std"])
    stem = load_file(tmp_path / "run" / "student.safetensors")["backbone.stem.0.0.weight"]
    assert stem.shape[1] == 2
    flow = FrameStore.open(tmp_path / "run" / "flow")
    assert flow.channels == 2
    again = evaluate(
        EvaluateConfig.model_validate({"run": config.out, "evaluation": config.evaluation})
    )
    assert again == result.evaluation
    assert finetune(config) == result
    alter(flow.root / "store.json", lambda record: record["flow"].update(opencv="4.9.0"))
    with pytest.raises(RunMismatchError, match=r"inputs\.opencv: \S+ there, 4\.9\.0 now"):
        finetune(config)
    # A distilled student of flow passes on its mean, std and range.
    distilled = save_distilled(tmp_path / "flow-student", student=student, flow_range=10.0)
    next_run = configure(
        tmp_path / "next",
        init=f"distinit:{distilled}",
        student=None,
        flow=str(tmp_path / "flow10"),
        optimizer={"epochs": 1, "clips_per_epoch": 8},
    )
    finetune(next_run)
    built = FrameStore.open(tmp_path / "flow10").manifest.flow
    assert built is not None
    assert built.flow_range == 10.0
    with pytest.raises(ConfigError, match="another range"):
        finetune(configure(tmp_path / "x", student=student, flow=str(tmp_path / "flow10")))
    assert not (tmp_path / "x").exists()
    with pytest.raises(FrameStoreError, match="is not the flow of"):
        finetune(configure(tmp_path / "y", student=student, flow=str(next_run.frames)))
