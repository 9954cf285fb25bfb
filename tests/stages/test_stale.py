"""Stale caches: another teacher, preprocessing, class order, corpus or row order is refused.

Each kind is refused with the fields that differ: when a cache is continued, when a run is
resumed with it, and when a training says which cache it expects.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import run_command
from helpers.videos import make_video

from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.tables import read_table, write_table
from distinit.pipeline.teachers import preprocess as preprocessing
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import (
    CacheCorruptError,
    CacheMismatchError,
    ConfigError,
    CorpusError,
    DistInitError,
    RunMismatchError,
)
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.tables import PLAN_SCHEMA
from distinit.stages.cache_info import cache_info
from distinit.stages.distill import distill
from distinit.stages.extract import ExtractResult, extract

PLUGIN = """
import torch
from distinit.schemas.teacher import PreprocessSpec

SEED, MEAN, NAMES = {seed}, {mean}, {names}

def teach(weights, device):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    network.append(torch.nn.Linear(48, len(NAMES)))
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        network[2].weight.copy_(torch.randn(len(NAMES), 48, generator=generator))
        network[2].bias.zero_()
    spec = PreprocessSpec(
        resize_mode="short_edge", resize_size=16, crop_size=16, mean=(MEAN,) * 3, std=(0.25,) * 3
    )
    return network, spec, NAMES, "made-labels"
"""
USUAL: dict[str, Any] = {"seed": 0, "mean": 0.5, "names": ["ant", "bee", "cat", "dog"]}
TEACHERS: dict[str, dict[str, Any]] = {
    "weights": {"seed": 1},
    "preprocessing": {"mean": 0.45},
    "classes": {"names": ["bee", "ant", "cat", "dog"]},
}
"""Kind -> what differs in the plugin."""


class Workshop:
    """Videos, and a teacher whose plugin can be exchanged for another one of the same name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for seed, name in enumerate("abc"):
            make_video(root / "videos" / f"{name}.mp4", frames=12, seed=seed)
        shutil.copytree(root / "videos", root / "subset")
        (root / "subset" / "c.mp4").unlink()
        (root / "plugins").mkdir()

    @contextmanager
    def teacher(self, **changes: Any) -> Iterator[None]:
        (self.root / "plugins" / "stale_made.py").write_text(PLUGIN.format(**{**USUAL, **changes}))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(self.root / "plugins")
            patch.setattr(sys, "dont_write_bytecode", True)
            patch.delitem(sys.modules, "stale_made", raising=False)
            yield
            sys.modules.pop("stale_made", None)

    def extract(self, name: str, videos: str = "videos", **changes: Any) -> ExtractResult:
        values = {
            "videos": str(self.root / videos),
            "teachers": [{"name": "plugin:stale_made:teach", "id": "made"}],
            "cache": str(self.root / name / "cache"),
            "frames": str(self.root / name / "frames"),
            "unit_rows": 64,
        }
        return extract(ExtractConfig.model_validate(values | changes))

    def distill(self, name: str, out: str, **changes: Any) -> DistillConfig:
        values = {
            "cache": str(self.root / name / "cache"),
            "frames": str(self.root / name / "frames"),
            "out": str(self.root / out),
            "student": {"name": "tiny_r2plus1d_10"},
            "clip": {"frames": 4, "crop": 32},
            "optimizer": {"clips_per_epoch": 4, "epochs": 1},
            "runtime": {"batch_size": 4, "device": "cpu", "loader_workers": 0},
        }
        return DistillConfig.model_validate(values | changes)


@contextmanager
def without_antialias() -> Iterator[None]:
    """A default processor that changed: the names of its settings are those of before."""
    usual: Callable[..., torch.Tensor] = preprocessing.transforms.resize

    def resize(frames: torch.Tensor, size: list[int], **settings: Any) -> torch.Tensor:
        return usual(frames, size, **{**settings, "antialias": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocessing.transforms, "resize", resize)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A cache ``usual``, a finished run ``run`` with it, and one stale cache of each kind."""
    shop = Workshop(tmp_path_factory.mktemp("stale"))
    with shop.teacher():
        shop.extract("usual")
        distill(shop.distill("usual", "run"))
        shop.extract("subset", videos="subset")
        shop.extract("order", unit_rows=128)
        shop.extract("sampling", sampling={"mode": "stride", "stride": 2})
        with without_antialias():
            shop.extract("processor")
    for kind, changes in TEACHERS.items():
        with shop.teacher(**changes):
            shop.extract(kind)
    (shop.root / "expected.json").write_text(
        cache_info(shop.root / "usual" / "cache").model_dump_json()
    )
    return shop


FIELDS = {
    "weights": ("weights_sha256: ", "output for the probe picture: "),
    "preprocessing": ("preprocessing.mean: [0.5, 0.5, 0.5] there, [0.45, 0.45, 0.45] now",),
    "processor": ("output for the probe picture: ", "is allowed for rounding"),
    "classes": ('label_names: 2 of 4 differ, the first at class 0: "ant" there, "bee" now',),
    "subset": ("videos: 3 there, 2 now", "rows: 36 there, 24 now", "corpus_digest: "),
    "order": ("capacity: 64 there, 128 now", "content_digest: "),
    "sampling": ("sampling.mode: all there, stride now", "rows: 36 there, 18 now"),
}
"""Kind -> what the message says of it."""


def refused(error: type[DistInitError], act: Callable[[], object]) -> DistInitError:
    with pytest.raises(error) as raised:
        act()
    return raised.value


def assert_named(kind: str, error: DistInitError) -> None:
    missing = [words for words in FIELDS[kind] if words not in str(error.found)]
    assert missing == [], error.found


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_cache_is_not_continued_by_another_teacher_of_the_same_name(
    shop: Workshop, kind: str
) -> None:
    with shop.teacher(**TEACHERS[kind]):
        error = refused(CacheMismatchError, lambda: shop.extract("usual"))
    assert error.problem == "the cache has another teacher named made"
    assert_named(kind, error)


def test_a_cache_is_not_continued_by_a_processor_that_does_something_else(shop: Workshop) -> None:
    """Its settings have the same names and values: it is refused by what it does."""
    with shop.teacher(), without_antialias():
        error = refused(CacheMismatchError, lambda: shop.extract("usual"))
    assert_named("processor", error)
    assert len(str(error.found).splitlines()) == 1


@pytest.mark.parametrize("change", ["bgr", "nearest"])
def test_swapped_channels_and_another_interpolation_are_found_too(
    shop: Workshop, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual: Callable[..., torch.Tensor] = preprocessing.transforms.resize

    def resize(frames: torch.Tensor, size: list[int], **settings: Any) -> torch.Tensor:
        if change == "bgr":
            return usual(frames, size, **settings).flip(1)
        nearest = preprocessing.InterpolationMode.NEAREST
        return usual(frames, size, **{**settings, "interpolation": nearest})

    monkeypatch.setattr(preprocessing.transforms, "resize", resize)
    with shop.teacher():
        assert_named("processor", refused(CacheMismatchError, lambda: shop.extract("usual")))


def test_a_cache_is_not_continued_with_a_part_of_its_corpus(shop: Workshop) -> None:
    with shop.teacher():
        error = refused(CorpusError, lambda: shop.extract("usual", videos="subset", max_gone=0.1))
    assert (error.problem.split(" of ")[0], error.found) == ("1", "gone: c.mp4")


def test_a_cache_is_not_continued_with_another_row_space_or_sampling(shop: Workshop) -> None:
    with shop.teacher():
        error = refused(CacheMismatchError, lambda: shop.extract("usual", unit_rows=128))
        assert (error.expected, error.found) == ("unit_rows 64", "unit_rows 128")
        error = refused(
            CacheMismatchError,
            lambda: shop.extract("usual", sampling={"mode": "stride", "stride": 2}),
        )
    assert (error.expected, error.found) == ("all frames", "stride 2")


def test_a_cache_whose_rows_were_reordered_is_not_continued(shop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(shop.root / "usual", tmp_path / "copy")
    layout = CacheLayout(tmp_path / "copy" / "cache")
    plan = read_table(layout.plan, PLAN_SCHEMA)
    first, *others = plan["video_id"].to_pylist()
    at = plan.schema.get_field_index("video_id")
    swapped = plan.set_column(at, plan.schema.field(at), [[*others, first]])
    write_table(swapped, layout.plan)
    with shop.teacher():
        error = refused(
            CacheCorruptError,
            lambda: shop.extract("usual", cache=str(layout.root), videos="subset"),
        )
    assert "rows_digest" in str(error.found)


def test_videos_in_another_order_are_the_same_corpus(shop: Workshop) -> None:
    """Rows are looked up by video and frame: the order of a list means nothing."""
    names = sorted((shop.root / "videos").iterdir(), reverse=True)
    (shop.root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    before = cache_info(shop.root / "usual" / "cache").content_digest
    with shop.teacher():
        again = shop.extract("usual", videos="list.txt")
        shop.extract("usual")  # the paths of before
    assert (again.frames_done, again.content_digest) == (0, before)


@pytest.mark.parametrize("kind", FIELDS)
def test_a_run_is_not_resumed_with_a_stale_cache(shop: Workshop, kind: str) -> None:
    error = refused(RunMismatchError, lambda: distill(shop.distill(kind, "run")))
    assert "inputs.targets: " in str(error.found)
    assert "the cache since the run began:" in str(error.found)
    assert_named(kind, error)


@pytest.mark.parametrize("expected", ["expected.json", "run/cache.json"])
@pytest.mark.parametrize("kind", FIELDS)
def test_a_training_refuses_another_cache_than_it_expects(
    shop: Workshop, kind: str, expected: str
) -> None:
    config = shop.distill(kind, f"new-{kind}", expect=str(shop.root / expected))
    error = refused(CacheMismatchError, lambda: distill(config))
    assert error.problem == "the cache is not the expected one"
    assert_named(kind, error)
    assert not (shop.root / f"new-{kind}").exists()


def test_the_expected_cache_is_accepted_and_so_is_one_that_grew_by_a_teacher(
    shop: Workshop, tmp_path: Path
) -> None:
    digest = cache_info(shop.root / "usual" / "cache").content_digest
    for expect in (digest, str(shop.root / "expected.json")):
        distill(shop.distill("usual", "run", expect=expect))
    shutil.copytree(shop.root / "usual", tmp_path / "usual")
    grown = str(tmp_path / "usual" / "cache")
    with shop.teacher():
        shop.extract("usual", cache=grown, teachers=[{"name": "null"}], frames=None)
    targets = [{"teacher": "made"}]
    out = shop.distill("usual", "grown", cache=grown, targets=targets)
    config = out.model_copy(update={"expect": str(shop.root / "expected.json")})
    assert distill(config).cache_digest != digest
    error = refused(
        CacheMismatchError, lambda: distill(config.model_copy(update={"expect": digest}))
    )
    assert str(error.found).startswith("content_digest: ")


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("nowhere.json", "--expect names no file"),
        ("list.json", "a JSON object"),
        ("empty.json", "does not describe a cache"),
        ("0" * 63, "--expect names no file"),
    ],
)
def test_an_expectation_that_cannot_be_read_is_a_mistake_of_usage(
    shop: Workshop, expect: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[]")
    Path("empty.json").write_text("{}")
    config = shop.distill("usual", "never", expect=expect)
    assert words in str(refused(ConfigError, lambda: distill(config)))
    line = ["distill", "--expect", expect, "--out", "never", "--cache", config.cache]
    code, output = run_command([*line, "--frames", config.frames])
    assert (code, words in output) == (2, True), output


def test_another_format_is_refused_with_its_number(shop: Workshop, tmp_path: Path) -> None:
    shutil.copytree(shop.root / "usual", tmp_path / "usual")
    path = tmp_path / "usual" / "cache" / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    config = shop.distill("usual", "never", cache=str(path.parent))
    error = refused(CacheCorruptError, lambda: distill(config))
    assert (error.expected, str(error.found)) == (2, "3")
