"""Features and thresholds of a figure belong to its runs, or the figure is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import caches, students
from helpers.finished_runs import dataset_of, write_finished
from safetensors.torch import load_file, save_file

from distinit.cli import main
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.distillation.thresholds import write_thresholds
from distinit.pipeline.evaluation.feature_files import (
    read_features,
    read_features_record,
    write_features,
)
from distinit.pipeline.records import file_entry, read_record, write_record
from distinit.pipeline.reports.figures.threshold import ThresholdPoint
from distinit.pipeline.storage import sha256_file
from distinit.pipeline.training.run_dir import open_run
from distinit.schemas.base import sha256_of
from distinit.schemas.dataset import DatasetRecord
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError, FeaturesError
from distinit.schemas.features import FeatureInputs, FeaturesRecord, LabelledInput
from distinit.schemas.finetune import FinetuneConfig
from distinit.schemas.thresholds import ThresholdRecord, ThresholdsRecord
from distinit.schemas.training import ClipConfig
from distinit.stages import figures
from distinit.stages.figure_inputs import (
    entropy_histogram,
    only_teacher,
    read_test_features,
    threshold_points,
)
from distinit.stages.figures import embedding_figure, threshold_figure
from distinit.stages.finetune_result import FinetuneResult

DATASET = dataset_of([4, 4], ["run", "walk"])
TEACHER = caches.TEACHERS[0]
CONFUSION = [[3, 1], [2, 2]]


def export(folder: Path, dataset: DatasetRecord = DATASET, seed: int = 0) -> Path:
    """Random features of all videos of ``dataset``."""
    folder.mkdir()
    count = len(dataset.videos)
    features_ND = torch.randn((count, 6), generator=torch.Generator().manual_seed(seed))
    inputs = FeatureInputs(
        network=students.TINY,
        weights_sha256="0" * 64,
        clip=ClipConfig(),
        protocol="vmz-10",
        dataset_digest=dataset.content_digest(),
        rows_sha256="0" * 64,
        pixels_digest="0" * 64,
    )
    record = FeaturesRecord(
        init="scratch",
        inputs=inputs,
        identity=inputs.identity(),
        feature_dim=6,
        videos=count,
        classes=dataset.classes,
        undecodable=(),
        device="cpu",
        software={},
        files={},
    )
    write_features(
        folder, features_ND, torch.ones(count, dtype=torch.int64), dataset.videos, record
    )
    return folder


def test_the_embedding_shows_test_videos_only(tmp_path: Path) -> None:
    runs = {"a": export(tmp_path / "a"), "b": export(tmp_path / "b", seed=1)}
    with patch.object(figures, "draw_embedding", wraps=figures.draw_embedding) as draw:
        result = embedding_figure(runs, tmp_path / "out", marked=["walk"])
    panels, label_N, names, marked = draw.call_args.args
    assert [panel.label for panel in panels] == ["a", "b"]
    assert [panel.place_N2.shape for panel in panels] == [(8, 2)] * 2
    assert label_N.tolist() == [0] * 4 + [1] * 4
    assert (names, marked) == (DATASET.classes, [1])
    table, _ = read_features(runs["b"])
    own = table.features_ND[table.is_test_N].numpy()
    read = read_test_features(runs, tmp_path, None, figures.NullProgress())
    np.testing.assert_array_equal(read["b"].features_ND, own)
    assert [Path(file).name for file in result.files] == ["embedding.png", "embedding.pdf"]


def test_features_of_other_videos_are_refused(tmp_path: Path) -> None:
    runs = {"a": export(tmp_path / "a"), "b": export(tmp_path / "b", dataset_of([5, 4]))}
    with pytest.raises(ConfigError, match="features cannot be compared"):
        embedding_figure(runs, tmp_path / "out")
    with pytest.raises(ConfigError, match="no class is called jump"):
        embedding_figure({"a": runs["a"]}, tmp_path / "out", marked=["jump"])
    with pytest.raises(ConfigError, match="holds no features"):
        embedding_figure({"a": tmp_path}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "dtype"), [("is_test_N", torch.uint8), ("features_ND", torch.int32)]
)
def test_features_of_another_type_are_refused(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """A mask of integers would select the first two videos again and again."""
    folder = export(tmp_path / "a")
    path = folder / "features.safetensors"
    tensors = load_file(path)
    save_file(tensors | {name: tensors[name].to(dtype)}, path)
    record = read_features_record(folder)
    files = record.files | {path.name: file_entry(path)}
    write_record(record.model_copy(update={"files": files}), folder / "features.json")
    with pytest.raises(FeaturesError, match=f"{name} of {dtype}"):
        embedding_figure({"a": folder}, tmp_path / "out")


def test_the_command_computes_features_of_runs_and_of_untrained_networks(
    finished: tuple[FinetuneConfig, FinetuneResult], tmp_path: Path
) -> None:
    config, result = finished
    arguments = [
        *("figures", "embedding", f"--run=tuned={result.run}", "--run=random=scratch", "--quiet"),
        *(f"--dataset={config.dataset.root}", f"--frames={config.frames}", "--device=cpu"),
        *("--set=evaluation.protocol=vmz-2", f"--out={tmp_path / 'out'}", "--json"),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["figure"] == "embedding"
    folder = tmp_path / "out" / "features"
    tuned, record = read_features(folder / f"test-{sha256_of(result.run)[:12]}")
    random, random_record = read_features(folder / f"test-{sha256_of('scratch')[:12]}")
    assert random_record.inputs.network == record.inputs.network == students.TINY
    assert random_record.inputs.clip == record.inputs.clip  # 4 frames, crop 32: of the first run
    assert tuned.digests == random.digests
    dataset = read_record(
        folder / f"test-{sha256_of(result.run)[:12]}" / "dataset.json",
        DatasetRecord,
        error=ConfigError,
        remedy="",
    )
    tests = [v.digest for v in dataset.subset("test") if v.path not in record.undecodable]
    assert list(tuned.digests) == tests
    assert len(dataset.subset("train")) > 0  # whose features the figure does not need
    assert not torch.equal(tuned.features_ND, random.features_ND)


def test_an_untrained_network_needs_a_student_or_a_run(tmp_path: Path) -> None:
    videos = LabelledInput.model_validate({"dataset": {"root": "d"}})
    with pytest.raises(ConfigError, match="do not name a network"):
        embedding_figure({"a": "scratch"}, tmp_path / "out", videos=videos)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> TargetCache:
    root = tmp_path_factory.mktemp("cache") / "cache"
    caches.run_all(root, caches.CORPUS, caches.TEACHERS)
    return TargetCache.open(root)


def distilled(root: Path, threshold_nats: float | None, fingerprint: str = "") -> Path:
    """A distill run on TEACHER with or without a filter; no other file than its records."""
    students.save_distilled(root)
    filtered = {"keep_fraction": 0.5} if threshold_nats is not None else {}
    targets = [{"filter": filtered, "loss": "cross_entropy"}]  # what auto becomes
    config = DistillConfig.model_validate(
        {"cache": "c", "frames": "f", "out": "o", "targets": targets}
    )
    inputs = {f"teacher {TEACHER.id}": fingerprint or TEACHER.fingerprint}
    open_run(root, "distill", config, inputs)
    if threshold_nats is not None:
        settings = config.model_dump(mode="json")
        teacher = ThresholdRecord(threshold_nats=threshold_nats, kept=0.5, tied=0)
        write_thresholds(
            root,
            ThresholdsRecord(
                settings_digest=sha256_of({name: settings[name] for name in ("targets", "clip")}),
                teachers={TEACHER.id: teacher},
            ),
        )
    return root


def pair(root: Path, threshold_nats: float | None, **options: Any) -> tuple[Path, Path]:
    """A distill run, and a run that was finetuned from it."""
    root.mkdir()
    source = distilled(root / "distill", threshold_nats, **options)
    init = f"student {sha256_file(source / 'student.safetensors')}"
    return source, write_finished(root / "finetune", DATASET, CONFUSION, init=init)


def test_points_are_thresholds_and_accuracies_of_the_runs(
    cache: TargetCache, tmp_path: Path
) -> None:
    runs = [pair(tmp_path / "half", 1.25), pair(tmp_path / "all", None)]
    expected = [ThresholdPoint(1.25, 5, 8), ThresholdPoint(None, 5, 8)]
    assert threshold_points(cache, TEACHER.id, runs) == expected
    with patch.object(figures, "draw_threshold", wraps=figures.draw_threshold) as draw:
        root = cache.layout.root
        result = threshold_figure(root, runs, tmp_path / "out", teacher=TEACHER.id)
    histogram, of_kept, points = draw.call_args.args
    assert points == expected
    entropies = cache.targets(TEACHER.id).entropy_nats
    entropies = entropies[~np.isnan(entropies)]
    assert sum(histogram.frames) == len(entropies)
    assert histogram.edges_nats[-1] == pytest.approx(np.log(caches.CLASSES))
    assert histogram.frames[40] == np.histogram(entropies, histogram.edges_nats)[0][40]
    assert of_kept[0.5] == pytest.approx(np.median(entropies))
    assert [Path(file).name for file in result.files] == ["threshold.png", "threshold.pdf"]


def test_the_threshold_command_pairs_distill_and_finetune_runs(
    cache: TargetCache, tmp_path: Path
) -> None:
    source, tuned = pair(tmp_path / "half", 1.25)
    arguments = [f"--cache={cache.layout.root}", f"--teacher={TEACHER.id}", f"--out={tmp_path}/out"]
    done = CliRunner().invoke(main, ["figures", "threshold", *arguments, f"--run={source}={tuned}"])
    assert done.output.splitlines() == [f"{tmp_path}/out/threshold.{s}" for s in ("png", "pdf")]
    done = CliRunner().invoke(main, ["figures", "threshold", *arguments, f"--run={source}"])
    assert done.exit_code == 2
    assert "is not of the form DISTILLED=FINETUNED" in done.output


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_init(source: Path, tuned: Path) -> None:
    change(
        tuned / "run.json",
        inputs=json.loads((tuned / "run.json").read_text())["inputs"] | {"init": "x"},
    )


def no_thresholds(source: Path, tuned: Path) -> None:
    (source / "thresholds.json").unlink()


def other_settings(source: Path, tuned: Path) -> None:
    change(source / "thresholds.json", settings_digest="0" * 64)


def broken_config(source: Path, tuned: Path) -> None:
    change(source / "run.json", config={"cache": 3})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_init, "was not finetuned from"),
        (no_thresholds, "thresholds.json with the threshold of its filter"),
        (other_settings, "thresholds.json with the threshold of its filter"),
        (broken_config, "a valid configuration"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    cache: TargetCache, tmp_path: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    runs = pair(tmp_path / "half", 1.25)
    damage(*runs)
    with pytest.raises(ConfigError) as error:
        threshold_points(cache, TEACHER.id, [runs])
    assert message in str(error.value)


def test_a_run_on_another_teacher_is_refused(cache: TargetCache, tmp_path: Path) -> None:
    runs = pair(tmp_path / "other", None, fingerprint="f" * 64)
    with pytest.raises(ConfigError, match="is not known"):
        threshold_points(cache, TEACHER.id, [runs])


def test_the_teacher_must_be_named_if_there_are_several(cache: TargetCache) -> None:
    assert only_teacher(cache, TEACHER.id) == TEACHER.id
    for named, message in ((None, "name a teacher"), ("nobody", "no such teacher")):
        with pytest.raises(ConfigError, match=message):
            only_teacher(cache, named)
    counts: Mapping[str, int] = {
        name: sum(entropy_histogram(cache, name).frames) for name in cache.teachers
    }
    assert len(set(counts.values())) == 1
