"""License, source and contact of a cache: stated at extract or later, shown to its receivers."""

from __future__ import annotations

import json
from pathlib import Path

import mlcroissant
import pytest
from helpers.caches import CORPUS, TEACHERS, run_all
from helpers.command_line import run_command
from helpers.signing import key_pair
from huggingface_hub import DatasetCard

from distinit.schemas.errors import CacheError, ConfigError
from distinit.schemas.extract import ExtractConfig
from distinit.schemas.provenance import Provenance
from distinit.stages.cache_describe import DescribeConfig, cache_describe
from distinit.stages.cache_info import cache_info
from distinit.stages.cache_sign import cache_sign
from distinit.stages.cache_verify import cache_verify
from distinit.stages.extract import ExtractResult, extract

STATED = Provenance(
    license="CC-BY-4.0", source="https://example.org/clips", contact="The Clip Team"
)


def describe(root: Path, **values: str) -> Provenance:
    config = DescribeConfig(cache=str(root), provenance=Provenance(**values))
    return cache_describe(config).provenance


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    run_all(tmp_path / "cache", CORPUS, TEACHERS)
    return tmp_path / "cache"


def run(corpus: Path, cache: Path, **values: str) -> ExtractResult:
    config = {
        "videos": str(corpus),
        "teachers": [{"name": "null"}],
        "cache": str(cache),
        "provenance": values,
    }
    return extract(ExtractConfig.model_validate(config))


def test_extract_asks_for_what_is_not_stated_and_keeps_what_was(
    corpus: Path, tmp_path: Path
) -> None:
    root = tmp_path / "cache"
    first = run(corpus, root)
    assert first.unstated == ("license", "source", "contact")
    assert (
        f"not stated: license, source, contact; before you share it: distinit cache describe "
        f"{root} --license LICENSE --source SOURCE --contact CONTACT"
    ) in first.summary().splitlines()
    second = run(corpus, root, license="CC-BY-4.0", contact="us")
    assert (second.frames_done, second.unstated) == (0, ("source",))
    third = run(corpus, root, source="here", contact="them")
    assert third.unstated == ()
    assert "not stated" not in third.summary()
    expected = Provenance(license="CC-BY-4.0", source="here", contact="them")
    assert cache_info(root).provenance == expected
    assert first.content_digest == second.content_digest == third.content_digest
    assert cache_verify(root, deep=True).problems == ()


def test_describing_a_cache_changes_no_digest_and_no_target(cache: Path) -> None:
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    digest = cache_info(cache).content_digest
    assert describe(cache, license="CC-BY-4.0") == Provenance(license="CC-BY-4.0")
    full = describe(cache, source=STATED.source or "", contact=STATED.contact or "")
    assert full == STATED
    after = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    changed = {p.name for p in before if before[p] != after[p]}
    assert changed == {"manifest.json", "README.md", "croissant.json", "manifest-sha256.txt"}
    assert before.keys() == after.keys()
    report = cache_verify(cache, deep=True, expect=digest)
    assert (report.ok, report.problems) == (True, ())


def test_a_cache_without_provenance_has_the_bytes_of_one_that_never_heard_of_it(
    cache: Path,
) -> None:
    assert "provenance" not in json.loads((cache / "manifest.json").read_text())
    assert "license" not in (cache / "README.md").read_text()
    assert "license" not in json.loads((cache / "croissant.json").read_text())


def test_info_card_and_croissant_show_it(cache: Path) -> None:
    describe(cache, **STATED.stated)
    lines = cache_info(cache).summary().splitlines()
    assert "license   CC-BY-4.0" in lines
    assert "source    https://example.org/clips" in lines
    assert "contact   The Clip Team" in lines
    card = DatasetCard((cache / "README.md").read_text())
    assert card.data.license == "cc-by-4.0"
    assert "- source: https://example.org/clips\n- contact: The Clip Team\n" in card.text
    croissant = json.loads((cache / "croissant.json").read_text())
    assert croissant["license"] == "CC-BY-4.0"
    assert croissant["url"] == "https://example.org/clips"
    assert croissant["creator"] == {"@type": "sc:Organization", "name": "The Clip Team"}


def test_any_text_may_be_the_license(cache: Path) -> None:
    text = 'Ours: "research only" # no, really'
    describe(cache, license=text, source="films: ours", contact="https://example.org/us")
    card = DatasetCard((cache / "README.md").read_text())
    assert (card.data.license, card.data.license_name) == ("other", text)
    croissant = json.loads((cache / "croissant.json").read_text())
    assert croissant["license"] == text
    assert croissant["isBasedOn"] == "films: ours"
    assert croissant["creator"]["url"] == "https://example.org/us"
    assert cache_verify(cache, deep=True).problems == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of its imports
def test_croissant_stays_valid(cache: Path) -> None:
    describe(cache, **STATED.stated)
    dataset = mlcroissant.Dataset(jsonld=cache / "croissant.json")
    assert dataset.metadata.license == ["CC-BY-4.0"]
    assert dataset.metadata.url == "https://example.org/clips"
    assert [creator.name for creator in dataset.metadata.creators] == ["The Clip Team"]


def test_the_signature_covers_it(cache: Path, tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    describe(cache, license="CC-BY-4.0")
    cache_sign(cache, private)
    assert cache_verify(cache, deep=True, signed_by=public).ok
    code, output = run_command(["cache", "describe", str(cache), "--license", "MIT"])
    assert code == 0
    assert "cache.sig signs the cache as it was: run `distinit cache sign` again" in output
    outcome = cache_verify(cache, deep=True, signed_by=public).signature
    assert outcome is not None
    assert "manifest.json: not the bytes that were signed" in outcome.problems


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing is given to describe the cache with"),
        (["--license", "a\nb"], "one line of printable text"),
        (["--contact", " us"], "without blanks around it"),
        (["--source", "\x1b[2J"], "one line of printable text"),
        (["--source", "x" * 1_001], "1000"),
        (["--source", "https://me:hunter2@host/clips"], "--source contains a URL with a user"),
        (["--source", "clips of s3://b/x?X-Amz-Signature=1"], "--source contains a URL with"),
        (["--contact", "https://host/?access_token=hunter2"], "--contact contains a URL with"),
    ],
)
def test_texts_that_are_no_statement_are_refused(
    cache: Path, options: list[str], words: str
) -> None:
    before = (cache / "manifest.json").read_bytes()
    code, output = run_command(["cache", "describe", str(cache), *options])
    assert (code, words in output) == (2, True), output
    assert (cache / "manifest.json").read_bytes() == before


def test_extract_refuses_a_source_with_a_password(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--source contains a URL with a user") as raised:
        run(corpus, tmp_path / "cache", source="https://me:hunter2@host/clips")
    assert "hunter2" not in str(raised.value)
    assert not (tmp_path / "cache").exists()


def test_a_query_without_secrets_may_be_the_source(cache: Path) -> None:
    source = "https://host/record?id=12&download=1#files, by us@host"
    assert describe(cache, source=source).source == source


def test_a_partial_copy_is_not_described(cache: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    code, output = run_command(["cache", "pull", str(cache), str(copy), "--teacher", "alpha"])
    assert code == 0, output
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(CacheError, match="which is only read: it was not described"):
        describe(copy, license="MIT")
    assert (copy / "manifest.json").read_bytes() == before


def test_an_incomplete_cache_can_be_described_too(corpus: Path, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    run(corpus, root)
    path = root / "manifest.json"
    manifest = json.loads(path.read_text()) | {"complete": False, "content_digest": ""}
    path.write_text(json.dumps(manifest))
    (root / "manifest-sha256.txt").unlink()
    describe(root, license="MIT")
    assert cache_info(root).provenance == Provenance(license="MIT")
    assert run(corpus, root).complete
    assert cache_verify(root, deep=True).ok
