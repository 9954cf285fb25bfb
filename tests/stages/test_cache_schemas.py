"""``docs/schemas``: what the models give, and what the records of real caches satisfy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import caches
from helpers.golden import GOLDEN
from jsonschema import Draft202012Validator

from distinit.cli import main
from distinit.schemas.copies import CopyRecord
from distinit.stages.cache_schemas import RECORDS, schema_files

COMMITTED = Path(__file__).parents[2] / "docs" / "schemas"
PATTERNS = {
    "manifest": "manifest.json",
    "teacher": "teachers/*/teacher.json",
    "commit": "teachers/*/commits/*.json",
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fresh") / "cache"
    caches.run_all(root, caches.CORPUS, caches.TEACHERS)
    return root


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((COMMITTED / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def records_of(root: Path, name: str) -> Iterator[Any]:
    paths = sorted(root.glob(PATTERNS[name]))
    assert paths
    return (json.loads(path.read_text()) for path in paths)


def test_the_committed_files_are_those_that_the_command_writes(tmp_path: Path) -> None:
    ended = CliRunner().invoke(main, ["cache", "schemas", "--out", str(tmp_path / "new"), "--json"])
    assert ended.exit_code == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    assert written == {path.name: path.read_text() for path in COMMITTED.iterdir()}
    result = json.loads(ended.stdout)
    assert sorted(result["files"]) == sorted(written)
    assert PATTERNS.keys() | {"copy"} == RECORDS.keys()


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_the_records_of_caches_satisfy_their_schema(name: str, fresh: Path) -> None:
    checker = validator(name)
    for root in (GOLDEN, fresh):
        for record in records_of(root, name):
            assert [error.message for error in checker.iter_errors(record)] == []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest", {"format_version": 3}, "2 was expected"),
        ("manifest", {"content_digest": "zz"}, "'zz' is not valid under any of the given schemas"),
        ("manifest", {"another": 1}, "Additional properties are not allowed"),
        ("teacher", {"encoding": "float99"}, "'float99' does not match"),
        ("teacher", {"encoding": "topk:0"}, "'topk:0' does not match"),
        ("commit", {"unit": -1}, "-1 is less than the minimum of 0"),
        ("commit", {"videos": {}}, "{} is not of type 'array'"),
    ],
)
def test_a_changed_record_does_not_satisfy_its_schema(
    name: str, change: dict[str, Any], message: str
) -> None:
    record = next(records_of(GOLDEN, name)) | change
    (error,) = validator(name).iter_errors(record)
    assert message in error.message


def test_the_record_of_a_part_satisfies_its_schema() -> None:
    part = CopyRecord(content_digest="0" * 64, teachers=("a",), units=(1, 2), absent={"b": {}})
    record = json.loads(part.model_dump_json())
    assert list(validator("copy").iter_errors(record)) == []
    (error,) = validator("copy").iter_errors(record | {"teachers": []})
    assert "[] should be non-empty" in error.message


def test_the_tables_have_the_columns_that_are_listed() -> None:
    listed = schema_files()["tables.json"]
    for name, pattern in (
        ("videos.parquet", "videos.parquet"),
        ("plan.parquet", "plan.parquet"),
        ("frames/unit-NNNNN.parquet", "frames/*.parquet"),
        ("confidence/unit-NNNNN.parquet", "teachers/half/confidence/*.parquet"),
        ("confidence/unit-NNNNN.parquet of features", "teachers/body/confidence/*.parquet"),
    ):
        for path in GOLDEN.glob(pattern):
            found = [(field.name, str(field.type)) for field in pq.read_schema(path)]
            assert found == [(column["name"], column["type"]) for column in listed[name]]
