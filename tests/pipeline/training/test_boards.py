"""wandb beside TensorBoard: one wandb run for a run directory, whatever interrupts it."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from helpers.progress import RecordingProgress
from helpers.toys import ToyTask, make_run, make_settings

from distinit.pipeline.progress import NullProgress
from distinit.pipeline.training.boards import refuse_missing_loggers
from distinit.pipeline.training.loop import train
from distinit.pipeline.training.run_dir import RunDirectory
from distinit.schemas.errors import ConfigError
from distinit.schemas.training import RuntimeConfig

BLOCK, HEADER = 32768, 7  # of the LevelDB log that wandb writes; the file has a header of 7 bytes


def log_records(path: Path) -> Iterator[bytes]:
    """The records of a LevelDB log: in each block, (checksum, length, type) and the data."""
    data, place, record = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # the whole record, or the last part of one
            yield record
            record = b""


def wandb_records(folder: Path) -> list[list[Any]]:
    """The records of each file below ``folder``, in order of time, as messages of wandb."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return [[messages.Record.FromString(data) for data in log_records(path)] for path in files]


def history(records: list[Any]) -> list[dict[str, float]]:
    return [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]


def without_wandb(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As if wandb were not installed, in a folder where it has been used."""
    (folder / "wandb").mkdir()
    others = [path for path in sys.path if not Path(path, "wandb/__init__.py").is_file()]
    monkeypatch.setattr(sys, "path", [str(folder), *others])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)


def test_wandb_is_refused_if_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_wandb(monkeypatch, tmp_path)
    assert find_spec("wandb") is not None
    refuse_missing_loggers(RuntimeConfig())
    with pytest.raises(ConfigError, match="wandb, which is not installed") as raised:
        refuse_missing_loggers(RuntimeConfig(loggers=("tensorboard", "wandb")))
    assert "pip install '.[wandb]'" in str(raised.value)


def test_tensorboard_can_be_left_out(run: RunDirectory) -> None:
    train(ToyTask(), make_settings({"epochs": 1}, {"loggers": ()}), run, NullProgress())
    assert not run.tensorboard.exists()
    assert len(run.read_metrics()) == 4


class KilledError(Exception):
    pass


class KilledTask(ToyTask):
    """Raises KilledError in the second epoch."""

    def load(self, epoch: int, samples_B: Any) -> Any:
        if epoch == 1:
            raise KilledError
        return super().load(epoch, samples_B)


def test_a_resumed_training_continues_its_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is an optional extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    runtime = {"loggers": ("tensorboard", "wandb"), "checkpoint_steps": 1}
    settings, progress = make_settings({"epochs": 2}, runtime), RecordingProgress()
    with pytest.raises(KilledError):
        train(KilledTask(), settings, make_run(tmp_path / "run"), progress)
    run_id = json.loads((tmp_path / "run/wandb.json").read_text())["run_id"]
    run = make_run(tmp_path / "run")  # refuses links, such as those that wandb makes
    train(ToyTask(), settings, run, progress)
    files = wandb_records(tmp_path)
    runs = [record.run for records in files for record in records if record.HasField("run")]
    assert {(r.run_id, r.project, r.display_name) for r in runs} == {(run_id, "distinit", "run")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["name"] == "r2plus1d_18"
    assert config["config_digest"] == run.record.config_digest
    steps = [[line["step"] for line in history(records)] for records in files]
    assert steps == [[1, 2, 3, 4], [5, 6, 7, 8]]
    logged = [line["loss"] for records in files for line in history(records)]
    assert logged == [line["loss"] for line in run.read_metrics()]
    assert [text for text in progress.messages if text.startswith("wandb: ")] == [
        f"wandb: {path}" for path in sorted(tmp_path.glob("wandb/offline-run-*"))
    ]
