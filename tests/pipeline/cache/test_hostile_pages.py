"""Parquet pages and texts that claim or unpack to far more than they should."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distinit.pipeline.cache.thrift import I32, I64, ThriftReader, value_of
from distinit.schemas.tables import FRAMES_SCHEMA

ID, DIGEST = "0" * 16, "0" * 64
BOUND_MIB = 200  # of address space, beyond what Python and Arrow take when idle


def frames_of(rows: int, **changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "row": np.arange(rows),
        "video_id": [ID] * rows,
        "frame_index": np.arange(rows),
        "pts": np.arange(rows),
        "time_base": ["1/25"] * rows,
        "perceptual_hash": np.zeros(rows, np.uint64),
    }
    return pa.table(columns | changes, schema=FRAMES_SCHEMA)


READ_BOUNDED = """
import resource, sys
from pathlib import Path
from typing import Any
import pyarrow.compute, pyarrow.parquet
from distinit.pipeline.cache.tables import read_batches, read_table
from distinit.schemas import tables
from distinit.schemas.errors import CacheCorruptError
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (int(sys.argv[3]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
schema = getattr(tables, sys.argv[2])
for read in (read_table, lambda path, schema: list(read_batches(path, schema, schema.names))):
    try:
        read(Path(sys.argv[1]), schema)
    except CacheCorruptError as error:
        print("refused", str(error).splitlines()[2])
    else:
        print("read")
peak = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
print("peak", peak // 1024)
"""


def read_in_bounds(path: Path, schema: str) -> list[str]:
    command = [sys.executable, "-c", READ_BOUNDED, str(path), schema, str(BOUND_MIB)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert int(lines[-1].split()[1]) < 500  # MiB
    return lines[:-1]


def test_a_page_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    text = "x" * (64 << 20)
    table = frames_of(1, video_id=[text])
    pq.write_table(table, tmp_path / "bomb", compression="zstd", use_dictionary=False)
    assert (tmp_path / "bomb").stat().st_size < 200_000
    found = read_in_bounds(tmp_path / "bomb", "FRAMES_SCHEMA")
    assert [line.split()[0] for line in found] == ["refused"] * 2
    assert all("unpacks to" in line for line in found)


def test_a_long_text_that_many_rows_point_to_is_refused(tmp_path: Path) -> None:
    rows = 200_000
    coded = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * 1_000_000])
    table = frames_of(rows).set_column(1, "video_id", coded)
    schema = pa.schema([FRAMES_SCHEMA.field(0), pa.field("video_id", coded.type, nullable=False)])
    schema = pa.schema([*schema, *list(FRAMES_SCHEMA)[2:]])
    pq.write_table(table.cast(schema), tmp_path / "bomb", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb").stat().st_size < 2_000_000
    found = read_in_bounds(tmp_path / "bomb", "FRAMES_SCHEMA")
    assert [line.split()[0] for line in found] == ["refused"] * 2
    assert all("a string of more than" in line for line in found)


def test_rows_that_no_bytes_stand_for_are_refused(tmp_path: Path) -> None:
    rows = 8_000_000
    table = pa.table({"row": np.zeros(rows, np.int64)})
    schema = pa.schema([pa.field("row", pa.int64(), nullable=False)])
    pq.write_table(table.cast(schema), tmp_path / "bomb", compression="zstd", store_schema=False)
    found = read_in_bounds(tmp_path / "bomb", "FEATURE_ROWS_SCHEMA")
    assert [line.split()[0] for line in found] == ["refused"] * 2
    assert all("8000000 rows" in line for line in found)


def test_a_page_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(frames_of(4), path, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    # Its first field is the type (0), the second the uncompressed size: a zigzag number.
    assert data[4:6] == b"\x15\x00"
    assert data[6] == 0x15
    size = data[7]
    forged = data[:7] + b"\xfe\xff\xff\xff\x0f" + data[8:]
    assert size < 0x80
    (tmp_path / "forged").write_bytes(forged)
    footer = struct.unpack("<I", forged[-8:-4])[0]
    assert footer > 0
    found = read_in_bounds(tmp_path / "forged", "FRAMES_SCHEMA")
    assert [line.split()[0] for line in found] == ["refused"] * 2


READ_EACH = """
import sys
from pathlib import Path
from distinit.pipeline.cache.tables import read_table
from distinit.schemas.errors import CacheCorruptError
from distinit.schemas.tables import FRAMES_SCHEMA
path, refused = Path(sys.argv[1]), 0
data = path.read_bytes()
positions = range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data))
for position in positions:
    for mask in (0x10, 0x01, 0x80):
        damaged = bytearray(data)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        try:
            read_table(path, FRAMES_SCHEMA)
        except CacheCorruptError:
            refused += 1
print(len(positions), refused)
"""


def test_no_flipped_bit_of_a_footer_aborts_the_process(tmp_path: Path) -> None:
    # With nulls and lists, pyarrow aborts if a histogram of levels has the wrong length.
    schema = pa.schema([*list(FRAMES_SCHEMA)[:-1], pa.field("perceptual_hash", pa.uint64())])
    table = frames_of(4).cast(schema)
    pq.write_table(table, tmp_path / "table", store_schema=False)
    command = [sys.executable, "-c", READ_EACH, str(tmp_path / "table")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    flipped, refused = map(int, done.stdout.split())
    assert flipped > 500
    assert refused > flipped


def test_a_size_that_is_given_twice_or_with_another_type_is_refused() -> None:
    """Arrow uses the field of the right type, wherever the other one is."""
    twice = b"\x25\x80\x01" + b"\x06\x04\x02" + b"\x00"  # field 2: int32 64, then int64 1
    with pytest.raises(ValueError, match="field 2 occurs twice"):
        ThriftReader(twice).struct()
    other = ThriftReader(b"\x26\x02\x00").struct()  # field 2: int64 1
    assert value_of(other, 2, I64) == 1
    with pytest.raises(ValueError, match="absent or of another type"):
        value_of(other, 2, I32)
    assert value_of(other, 3, I32, 0) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",  # no end
        b"\x19\xf5\xff\xff\x0f\x00",  # a list of two million numbers in no bytes
        b"\x1c" * 20,  # nested too deeply
        b"\x1b\x00",  # a map
        b"\x15" + b"\xff" * 12,  # a number without end
        b"\x18\x7fabc",  # a text longer than the data
    ],
)
def test_invalid_structs_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"does not end|nested|type 11|longer"):
        ThriftReader(data).struct()
