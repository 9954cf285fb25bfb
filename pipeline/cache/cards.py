"""README.md, croissant.json and the checksums: what a receiving team reads first.

Their texts depend on the records alone, and verification compares them byte by byte. Changing a
text therefore requires a new minor version of the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from distinit.pipeline.cache.encoding import array_specs
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.records import expected_files
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.storage import atomic_write_bytes, sha256_file
from distinit.schemas.manifest import CacheManifest
from distinit.schemas.output_reports import FeatureFidelityReport, FidelityReport
from distinit.schemas.tables import CONFIDENCE_SCHEMA, FRAMES_SCHEMA, VIDEOS_SCHEMA
from distinit.schemas.teacher import TeacherRecord
from distinit.schemas.wording import counted

__all__ = [
    "checksum_lines",
    "croissant_text",
    "names_of_units",
    "published_names",
    "readme_text",
    "write_cards",
]

_FIXED = ("README.md", "croissant.json", "manifest.json", "plan.parquet", "videos.parquet")


def write_cards(layout: CacheLayout, manifest: CacheManifest, state: CacheState) -> None:
    """Write README.md and croissant.json, then the checksums of every published file."""
    atomic_write_bytes(layout.readme, readme_text(manifest, state).encode())
    atomic_write_bytes(layout.croissant, croissant_text(layout, manifest, state).encode())
    # The commits have the digests of the large files: nothing is hashed twice, and a file that is
    # lost stays on the list.
    known = {
        relative: entry.sha256
        for commits in state.commits.values()
        for commit in commits.values()
        for relative, entry in commit.files.items()
    }
    lines = checksum_lines(layout, published_names(layout, state), known)
    atomic_write_bytes(layout.checksums, lines.encode())


def published_names(layout: CacheLayout, state: CacheState) -> tuple[str, ...]:
    """All files that a complete cache must have, except for the list of checksums."""
    return tuple(sorted({*_FIXED, *names_of_units(layout, state)}))


def names_of_units(layout: CacheLayout, state: CacheState) -> set[str]:
    """The files of all teachers and of the units that they have committed."""
    names = set()
    for name, record in state.records.items():
        names.add(layout.relative(layout.teacher_record(name)))
        if (statistics := layout.statistics(name)).is_file() and _has_features(record):
            names.add(layout.relative(statistics))
        for spec in array_specs(record.encoding, record.identity.classes):
            names.add(layout.relative(layout.array_metadata(name, spec.name)))
        for unit, commit in state.commits[name].items():
            names.add(layout.relative(layout.commit(name, unit)))
            names |= expected_files(layout, record, unit, commit.rows).keys()
    return names


def _has_features(record: TeacherRecord) -> bool:
    return record.identity.target == "features"


def checksum_lines(layout: CacheLayout, names: Iterable[str], known: Mapping[str, str]) -> str:
    """The text of manifest-sha256.txt: sha256, two spaces, path; ``known`` digests are reused."""
    return "".join(f"{known.get(n) or sha256_file(layout.root / n)}  {n}\n" for n in names)


def readme_text(manifest: CacheManifest, state: CacheState) -> str:
    """README.md: the card for human readers."""
    corpus, space = manifest.corpus, manifest.row_space
    teachers = "\n".join(_teacher_line(record) for record in state.records.values())
    return f"""{_metadata(manifest, state)}
# Target cache

Outputs of frozen image models for single video frames, with which video networks are pretrained
without labels. The cache contains no pixels, and reading it executes no code.

| | |
|---|---|
| content digest | `{manifest.content_digest}` |
| format version | {_version(manifest)} |
| videos | {corpus.videos}, of which {corpus.failed} failed, {corpus.damaged} damaged |
| frames decoded | {corpus.frames} |
| rows | {space.rows} in {counted(space.units, "unit")} of {space.capacity} |
| sampling | {manifest.sampling} |
| corpus digest | `{corpus.digest}` |

| teacher | architecture | label space | target | encoding | change: KL in nats, or cosine error |
|---|---|---|---|---|---|
{teachers}

{manifest.provenance.card_text() if manifest.provenance else ""}{_derivation_text(manifest)}## Files

- `videos.parquet`: every video with its sha256, size, number of decoded frames and status, and
  what is missing if it is damaged
- `frames/unit-*.parquet`: the frame and the video of each row, with pts and a perceptual hash
- `teachers/<id>/logits`: Zarr v3 array, one row per frame; unused rows are zero or absent, so use
  only the rows that `frames/` lists
- `teachers/<id>/confidence/unit-*.parquet`: entropy, top class and margin of each row
- `teachers/<id>/teacher.json`: weights digest, preprocessing, label names, fidelity
- `teachers/<id>/statistics.safetensors`: mean and covariance of the rows of a feature teacher
- `teachers/<id>/commits/unit-*.json`: size and sha256 of the files of each unit
- `plan.parquet`: the rows that are reserved for each video

## Check and use

    sha256sum -c manifest-sha256.txt
    distinit cache verify . --expect {manifest.content_digest}

Compare the content digest with the one that was published where the cache was announced, not with
the one in this file: whoever replaces files can replace this file and the checksums as well.

    from distinit import TargetCache
    targets = TargetCache.open(".").targets("{next(iter(state.records), "<id>")}")
    for video_id in targets.video_ids:
        logits_NC = targets.of(video_id).logits_NC

The videos are not part of this folder. They are identified by their sha256, and the perceptual
hashes show whether frames that are decoded elsewhere are those that the teachers saw.
"""


def _version(manifest: CacheManifest) -> str:
    return f"{manifest.format_version}.{manifest.format_minor}"


def _metadata(manifest: CacheManifest, state: CacheState) -> str:
    """The YAML block of a Hugging Face dataset card: its viewer then shows the tables.

    It has a license only if the owner of the cache has stated one.
    """
    license_lines = manifest.provenance.card_metadata() if manifest.provenance else ""
    tables = {"videos": "videos.parquet", "frames": "frames/*.parquet"}
    tables |= {
        f"confidence-{name}": f"teachers/{name}/confidence/*.parquet"
        for name, record in state.records.items()
        if record.identity.target == "logits"
    }
    configs = "".join(
        f'- config_name: "{name}"\n  data_files:\n  - split: train\n    path: "{path}"\n'
        for name, path in tables.items()
    )
    return f"""---
pretty_name: Target cache
{license_lines}size_categories:
- {_size_category(manifest.row_space.rows)}
task_categories:
- video-classification
tags:
- distinit
- knowledge-distillation
configs:
{configs}---
"""


def _size_category(rows: int) -> str:
    """The category that Hugging Face lists for this number of rows."""
    bounds = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12)
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    above = [name for bound, name in zip(bounds, names, strict=True) if rows >= bound]
    if not above:
        return "n<1K"
    below = names[len(above) : len(above) + 1]
    return f"{above[-1]}<n<{below[0]}" if below else f"n>{above[-1]}"


def _derivation_text(manifest: CacheManifest) -> str:
    """A section about the sources of a derived cache; nothing for any other cache."""
    if manifest.derived_from is None:
        return ""
    lines = "\n".join(f"- {line}" for line in manifest.derived_from.lines())
    return f"""## Made from other caches

No video was decoded and no teacher was run for this cache. What the encodings of the sources lost
is in `manifest.json`, `derived_from`.

{lines}

"""


def _teacher_line(record: TeacherRecord) -> str:
    identity = record.identity
    fidelity = record.losses[0]
    loss = "n/a" if fidelity is None else _loss(fidelity)
    if fidelity and fidelity.measured_against:
        loss = f"n/a ({loss} to {fidelity.measured_against})"
    return (
        f"| {record.id} | {identity.architecture} | {identity.label_space} ({identity.classes}) "
        f"| {identity.target} | {record.encoding} | {loss} |"
    )


def _loss(report: FidelityReport | FeatureFidelityReport) -> str:
    if isinstance(report, FeatureFidelityReport):
        return f"{report.mean_cosine_error:.2g}"
    return f"{report.mean_kl_nats:.2g}"


def croissant_text(layout: CacheLayout, manifest: CacheManifest, state: CacheState) -> str:
    """croissant.json, MLCommons Croissant 1.0: the tables as record sets."""
    distribution: list[dict[str, Any]] = [
        _file_object(layout.videos, "videos.parquet"),
        _file_set("frames-files", "frames/unit-*.parquet"),
    ]
    records = [
        _record_set("videos", "videos.parquet", VIDEOS_SCHEMA, "fileObject"),
        _record_set("frames", "frames-files", FRAMES_SCHEMA, "fileSet"),
    ]
    for name, record in state.records.items():
        if record.identity.target == "logits":
            files = f"confidence-files-{name}"
            distribution.append(_file_set(files, f"teachers/{name}/confidence/unit-*.parquet"))
            records.append(_record_set(f"confidence-{name}", files, CONFIDENCE_SCHEMA, "fileSet"))
    card = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": "distinit-target-cache",
        "description": "Outputs of frozen image models on single video frames, without pixels.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": f"{_version(manifest)}.0",
        "identifier": f"sha256:{manifest.content_digest}",
        **(manifest.provenance.croissant() if manifest.provenance else {}),
        "distribution": distribution,
        "recordSet": records,
    }
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def _file_object(path: Path, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "encodingFormat": "application/x-parquet",
        "sha256": sha256_file(path),
    }


def _file_set(name: str, pattern: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": "application/x-parquet",
        "includes": pattern,
    }


def _record_set(name: str, source: str, schema: pa.Schema, kind: str) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{field.name}",
            "name": field.name,
            "dataType": _data_type(field.type),
            "source": {kind: {"@id": source}, "extract": {"column": field.name}},
        }
        for field in schema
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "sc:Text"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Integer"


_JSON_VALUE = {"@type": "@json"}
# The context that the Croissant 1.0 specification gives. Validators warn about any other.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data"} | _JSON_VALUE,
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples"} | _JSON_VALUE,
    **{
        term: f"cr:{term}"
        for term in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileObject",
            "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key",
            "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
            "replace", "samplingRate", "separator", "source", "subField", "transform",
        )
    },
}  # fmt: skip
