"""Writes JSON Schemas of the records of a cache, and the columns of its tables, for other readers.

The files in ``docs/schemas`` are written by ``distinit cache schemas``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from distinit.pipeline.storage import write_text
from distinit.schemas.base import Record
from distinit.schemas.cache_format import CACHE_FORMAT_MINOR, CACHE_FORMAT_VERSION
from distinit.schemas.copies import CopyRecord
from distinit.schemas.manifest import CacheManifest, UnitCommit
from distinit.schemas.tables import (
    CONFIDENCE_SCHEMA,
    FEATURE_ROWS_SCHEMA,
    FRAMES_SCHEMA,
    PLAN_SCHEMA,
    VIDEOS_SCHEMA,
)
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted, one_line

__all__ = ["RECORDS", "TABLES", "WrittenSchemas", "schema_files", "write_schemas"]

RECORDS: dict[str, type[Record]] = {
    "manifest": CacheManifest,
    "teacher": TeacherRecord,
    "commit": UnitCommit,
    "copy": CopyRecord,
}
"""Name of a file in docs/schemas -> the JSON record that it describes."""

TABLES: dict[str, pa.Schema] = {
    "videos.parquet": VIDEOS_SCHEMA,
    "plan.parquet": PLAN_SCHEMA,
    "frames/unit-NNNNN.parquet": FRAMES_SCHEMA,
    "confidence/unit-NNNNN.parquet": CONFIDENCE_SCHEMA,
    "confidence/unit-NNNNN.parquet of features": FEATURE_ROWS_SCHEMA,
}


class WrittenSchemas(Record):
    """The result of `distinit cache schemas`."""

    folder: str = Field(description="folder of the files")
    files: tuple[str, ...] = Field(description="names of the files")

    def summary(self) -> str:
        """How many files were written, and where."""
        return f"{counted(len(self.files), 'file')} in {one_line(self.folder)}"


def schema_files() -> dict[str, dict[str, Any]]:
    """Name of each file -> its content: a JSON Schema per record, and the columns of all tables."""
    files = {f"{name}.schema.json": _json_schema(name, kind) for name, kind in RECORDS.items()}
    files["tables.json"] = {name: _columns(schema) for name, schema in TABLES.items()}
    return files


def _json_schema(name: str, kind: type[Record]) -> dict[str, Any]:
    version = f"{CACHE_FORMAT_VERSION}.{CACHE_FORMAT_MINOR}"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:distinit:target-cache:{version}:{name}",
        **kind.model_json_schema(),
    }


def _columns(schema: pa.Schema) -> list[dict[str, Any]]:
    return [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable}
        for field in schema
    ]


def write_schemas(folder: Path) -> WrittenSchemas:
    """Write the files into ``folder``. Raises StorageError."""
    files = schema_files()
    for name, content in files.items():
        write_text(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return WrittenSchemas(folder=str(folder), files=tuple(files))
