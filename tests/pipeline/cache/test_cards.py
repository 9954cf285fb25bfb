"""The cards: true figures; both descriptions name real files and satisfy their validators."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from distinit.pipeline.cache.cards import readme_text
from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.storage import sha256_file
from distinit.schemas.manifest import CacheManifest


def test_readme_tells_the_figures(cache_root: Path) -> None:
    manifest = json.loads((cache_root / "manifest.json").read_text())
    text = (cache_root / "README.md").read_text()
    assert f"`{manifest['content_digest']}`" in text
    assert "| videos | 6, of which 1 failed, 0 damaged |" in text
    assert "| rows | 279 in 7 units of 64 |" in text
    assert "| alpha | test/tiny | test-7 (7) | logits | float16 |" in text


def test_croissant_describes_what_is_there(cache_root: Path) -> None:
    card = json.loads((cache_root / "croissant.json").read_text())
    assert card["@type"] == "sc:Dataset"
    assert card["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    sources = {item["@id"]: item for item in card["distribution"]}
    assert sources["videos.parquet"]["sha256"] == sha256_file(cache_root / "videos.parquet")
    assert {r["name"] for r in card["recordSet"]} == {
        "videos",
        "frames",
        "confidence-alpha",
        "confidence-beta",
    }
    for record_set in card["recordSet"]:
        for field in record_set["field"]:
            (source,) = [v for k, v in field["source"].items() if k != "extract"]
            item = sources[source["@id"]]
            pattern = item.get("includes") or item["contentUrl"]
            files = list(cache_root.glob(pattern))
            assert files
            assert field["source"]["extract"]["column"] in pq.read_schema(files[0]).names


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of its imports
def test_mlcroissant_accepts_the_description_and_reads_the_tables(
    cache_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        dataset: Any = mlcroissant.Dataset(str(cache_root / "croissant.json"))
    assert "@context" not in caplog.text
    assert list(dataset.metadata.ctx.issues.errors) == []
    # What only the owner of a cache can state.
    recommended = ("citeAs", "datePublished", "license")
    assert len(dataset.metadata.ctx.issues.warnings) == len(recommended)
    rows = list(dataset.records("confidence-beta"))
    stored = pq.read_table(cache_root / "teachers/beta/confidence").to_pylist()
    assert len(rows) == len(stored) == 279
    by_row = {row["confidence-beta/row"]: row["confidence-beta/top1_class"] for row in rows}
    assert by_row == {row["row"]: row["top1_class"] for row in stored}


def test_the_card_is_a_dataset_card_of_hugging_face(cache_root: Path) -> None:
    card = DatasetCard.load(cache_root / "README.md")
    data = card.data.to_dict()
    assert data["size_categories"] == ["n<1K"]
    assert data["task_categories"] == ["video-classification"]
    assert card.text.startswith("\n# Target cache\n")
    tables = {config["config_name"]: config["data_files"] for config in data["configs"]}
    assert tables == {
        "videos": [{"split": "train", "path": "videos.parquet"}],
        "frames": [{"split": "train", "path": "frames/*.parquet"}],
        "confidence-alpha": [{"split": "train", "path": "teachers/alpha/confidence/*.parquet"}],
        "confidence-beta": [{"split": "train", "path": "teachers/beta/confidence/*.parquet"}],
    }
    assert all(list(cache_root.glob(files[0]["path"])) for files in tables.values())


@pytest.mark.parametrize(
    ("rows", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (123_456_789, "100M<n<1B"),
        (10**12, "n>1T"),
    ],
)
def test_the_card_states_the_size_category_of_its_rows(
    cache_root: Path, rows: int, category: str
) -> None:
    cache = TargetCache.open(cache_root)
    space = cache.manifest.row_space.model_copy(update={"rows": rows})
    manifest: CacheManifest = cache.manifest.model_copy(update={"row_space": space})
    text = readme_text(manifest, cache.read_state())
    assert DatasetCard(text).data.to_dict()["size_categories"] == [category]
