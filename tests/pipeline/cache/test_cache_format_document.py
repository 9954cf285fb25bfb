"""The reading example of docs/cache-format.md works on a real cache, without distinit."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa

from distinit.schemas.tables import CONFIDENCE_SCHEMA, FRAMES_SCHEMA, VIDEOS_SCHEMA

DOCUMENT = Path(__file__).parents[3] / "docs/cache-format.md"
SAVE = """
import sys
import numpy
numpy.savez(sys.argv[1], row=confident["row"], video=confident["video_id"].to_pylist(),
            frame=confident["frame_index"], entropy=confident["entropy_nats"], targets=targets)
assert not [name for name in sys.modules if name.startswith("distinit")]
"""


def test_the_example_reads_what_was_written(
    built_cache: Path, kit: ModuleType, tmp_path: Path
) -> None:
    example = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    script = tmp_path / "example.py"
    script.write_text(example[1] + SAVE)
    command = [sys.executable, str(script), str(tmp_path / "read.npz")]
    subprocess.run(command, cwd=built_cache, check=True)
    read = np.load(tmp_path / "read.npz")
    assert 0 < len(read["row"]) < 279  # some of the rows, not all
    assert (read["entropy"] <= 1.0).all()
    alpha = kit.make_teacher("alpha")
    for video, frame, targets in zip(read["video"], read["frame"], read["targets"], strict=True):
        expected = kit.logits_of(video, alpha, np.array([frame]))[0]
        np.testing.assert_array_equal(targets, expected.astype(np.float16))


def test_the_document_names_every_column() -> None:
    text = DOCUMENT.read_text()
    schemas: tuple[pa.Schema, ...] = (VIDEOS_SCHEMA, FRAMES_SCHEMA, CONFIDENCE_SCHEMA)
    missing = [name for schema in schemas for name in schema.names if f"`{name}`" not in text]
    assert missing == []
