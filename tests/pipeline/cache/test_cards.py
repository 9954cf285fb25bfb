"""The card: true figures, a Croissant description that names real files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq

from distinit.pipeline.storage import sha256_file


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
