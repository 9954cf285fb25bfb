"""``distinit cache info``: one screen, also of a cache at a URL, of which it reads little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import sources
from helpers.caches import CORPUS, TEACHERS, run_all
from helpers.objects import s3_bucket
from helpers.web import WebFolder, serve

from distinit.cli import main
from distinit.schemas.exit_codes import ExitCode
from distinit.schemas.teacher import WeightsRecipe
from distinit.stages.cache_info import cache_info
from distinit.stages.cache_transfer import cache_push


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("info") / "cache"
    run_all(root, CORPUS, TEACHERS)
    return root


@pytest.fixture
def web(cache: Path) -> Iterator[WebFolder]:
    for folder in serve(WebFolder(ranges=True)):
        folder.add(cache, "/one")
        yield folder


def test_two_teachers_fit_on_one_screen(cache: Path) -> None:
    info = cache_info(cache)
    alpha = info.teachers["alpha"]
    recipe = WeightsRecipe(name="IMAGENET1K_V1", source="torchvision", softened_by=())
    full = alpha.model_copy(update={"recipe": recipe, "precision_loss": alpha.fidelity})
    fullest = info.model_copy(update={"teachers": {"alpha": full, "beta": full}})
    lines = fullest.summary().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 100
    assert lines[4] == "units     7 units of 64 rows each; the targets have about 0.00854 MB"
    stored = (
        "          stored as float16: KL 9.5e-08 nats (at most 1e-06), same top class for 100 %"
    )
    assert lines.count(stored) == 2


def test_how_features_are_pooled_is_named(tmp_path: Path) -> None:
    teachers = ("alpha", "grid", "beta")
    sources.write_cache(tmp_path, teachers, target="features", targets={"beta": "logits"})
    lines = cache_info(tmp_path).summary().splitlines()
    assert [line.strip() for line in lines if "float16, fp32" in line] == [
        "7 features (as the network pools them), float16, fp32",
        "24 features (pool grid:2, 4 cells of 6), float16, fp32",
        "5 logits (test-beta), float16, fp32",
    ]


def test_the_info_of_a_url_is_that_of_the_folder(web: WebFolder, cache: Path) -> None:
    local = CliRunner().invoke(main, ["cache", "info", str(cache), "--json"])
    remote = CliRunner().invoke(main, ["cache", "info", f"{web.base}/one", "--json"])
    expected = json.loads(local.stdout) | {"path": f"{web.base}/one"}
    assert json.loads(remote.stdout) == expected
    sizes = {path: len(web.files[path]) for path in web.gets}
    assert {path.removeprefix("/one/") for path in sizes} == {
        "manifest.json",
        "teachers/alpha/teacher.json",
        "teachers/beta/teacher.json",
    }
    assert sum(web.sent.values()) <= sum(sizes.values()) + sizes["/one/manifest.json"]
    assert sum(web.sent.values()) < 10_000


def test_a_cache_on_s3_is_described(cache: Path) -> None:
    with s3_bucket("info"):
        cache_push(cache, "s3://info/one")
        assert cache_info("s3://info/one").teachers == cache_info(cache).teachers


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"/one/manifest.json": b"{}"}, "is not a valid CacheManifest"),
        ({"/one/manifest.json": b"[" * 100_000}, "cannot read"),
        ({"/one/teachers/beta/teacher.json": b"x"}, "cannot read"),
        ({"/one/teachers/alpha/teacher.json": None}, "cannot be transferred"),
    ],
)
def test_damaged_records_at_a_url_are_errors(
    change: dict[str, bytes | None], text: str, web: WebFolder
) -> None:
    for path, data in change.items():
        if data is None:
            del web.files[path]
        else:
            web.files[path] = data
    ended = CliRunner().invoke(main, ["cache", "info", f"{web.base}/one"])
    assert (ended.exit_code, text in ended.stderr) == (ExitCode.FAILED, True), ended.stderr


def test_the_record_of_another_teacher_is_an_error(web: WebFolder) -> None:
    path = "/one/teachers/alpha/teacher.json"
    record = json.loads(web.files[path])
    web.files[path] = json.dumps(record | {"batch_size": 5}).encode()
    ended = CliRunner().invoke(main, ["cache", "info", f"{web.base}/one"])
    assert "the manifest and the record of teacher alpha disagree" in ended.stderr
