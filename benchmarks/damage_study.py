"""Verdicts on videos: intact files must be whole, files with zeroed bytes must not.

    python benchmarks/damage_study.py [--videos FOLDER ...] [--zeroed] [--json]

``--videos``: decode every file below the folder and list those that are not whole. ``--zeroed``:
make one clip of 200 frames in each container and 13 copies of it, each with 8 kB of zeros at a
different place, and count the verdicts on the copies. "silent" must be 0: it counts copies that
lost frames but are called whole.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from distinit.pipeline.video.binary import find_ffmpeg
from distinit.pipeline.video.decode import open_video
from distinit.schemas.errors import DecodeError, DistInitError
from distinit.schemas.video import DecodeConfig

FRAMES = 200
ZEROED_BYTES = 8192
PLACES = (20, 26, 30, 34, 38, 42, 46, 50, 54, 58, 62, 66, 70)  # percent of the file
CLIPS = {
    "h264.mp4": ("libx264", "-crf", "20", "-g", "50", "-bf", "2"),
    "h264.mkv": ("libx264", "-crf", "20", "-g", "50", "-bf", "2"),
    "h264.ts": ("libx264", "-crf", "20", "-g", "50", "-bf", "2"),
    "h264.flv": ("libx264", "-crf", "20", "-g", "50", "-bf", "2"),
    "hevc.ts": ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=error"),
    "mpeg2.ts": ("mpeg2video", "-b:v", "2M"),
    "mpeg1.mpg": ("mpeg1video", "-b:v", "2M"),
    "vp8.webm": ("libvpx", "-b:v", "2M"),
    "vp9.webm": ("libvpx-vp9", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8"),
    "mpeg4.avi": ("mpeg4", "-b:v", "2M"),
    "wmv2.wmv": ("wmv2", "-b:v", "2M"),
    "theora.ogv": ("libtheora", "-b:v", "2M"),
}
type Verdict = Literal["whole", "concealed", "damaged", "failed"]


@dataclass(frozen=True)
class Judged:
    """The result of decoding one file."""

    name: str
    verdict: Verdict
    frames: int
    text: str


def judge(path: Path) -> Judged:
    """Decode a file, discard its frames, and return the verdict."""
    try:
        with open_video(path, {}, DecodeConfig()) as stream:
            frames = sum(len(block) for block in stream)
    except DecodeError as error:
        return Judged(path.name, "failed", 0, error.problem.removeprefix(f"{path.name}: "))
    damage = None if stream.summary is None else stream.summary.damage
    if damage is None:
        return Judged(path.name, "whole", frames, "")
    return Judged(path.name, "concealed" if damage.concealed else "damaged", frames, damage.text)


def zeroed_copies(name: str, folder: Path) -> Iterator[Path]:
    """Yield copies of one clip, each with zeros at a different place."""
    source = folder / name
    picture = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=30:d=10", "-frames:v", str(FRAMES)]
    codec = ["-pix_fmt", "yuv420p", "-c:v", *CLIPS[name], f"file:{source}"]
    argv = [str(find_ffmpeg().path), "-nostdin", "-v", "error", "-y", *picture, *codec]
    subprocess.run(argv, check=True)
    whole = source.read_bytes()
    for place in PLACES:
        data = bytearray(whole)
        at = len(data) * place // 100
        data[at : at + ZEROED_BYTES] = bytes(ZEROED_BYTES)
        copy = source.with_name(f"{source.stem}_{place}{source.suffix}")
        copy.write_bytes(data)
        yield copy


def zeroed_line(name: str, found: list[Judged]) -> dict[str, str | int]:
    """Return one row of the table: the count of each verdict, and of silent losses."""
    counts = Counter(copy.verdict for copy in found)
    lost = [copy for copy in found if copy.frames < FRAMES and copy.verdict != "failed"]
    silent = sum(copy.verdict in ("whole", "concealed") for copy in lost)
    both = sum(f"{copy.frames} of " in copy.text for copy in lost)
    return {
        "file": name,
        "copies": len(found),
        **{verdict: counts[verdict] for verdict in ("whole", "concealed", "damaged", "failed")},
        "frames lost": len(lost),
        "both counts": both,
        "silent": silent,
    }


def table(rows: list[dict[str, str | int]]) -> str:
    """Format rows with the same keys as a Markdown table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(str, r.values())) + " |" for r in rows)])


@click.command()
@click.option(
    "--videos",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder of intact videos; repeat for several.",
)
@click.option("--zeroed", is_flag=True, help="Also create and judge files with zeroed bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(videos: tuple[Path, ...], zeroed: bool, as_json: bool) -> None:
    """Judge intact and damaged files."""
    try:
        intact = {
            str(folder): [judge(path) for path in sorted(folder.rglob("*")) if path.is_file()]
            for folder in videos
        }
        lines = []
        for name in CLIPS if zeroed else ():
            with tempfile.TemporaryDirectory() as folder:
                found = [judge(copy) for copy in zeroed_copies(name, Path(folder))]
            lines.append(zeroed_line(name, found))
    except DistInitError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        listed = {folder: [asdict(file) for file in found] for folder, found in intact.items()}
        click.echo(json.dumps({"intact": listed, "zeroed": lines}, indent=2))
        return
    for folder, found in intact.items():
        counts = Counter(file.verdict for file in found)
        click.echo(f"{Path(folder).name}: {len(found)} files, {counts['whole']} whole")
        for file in found:
            if file.verdict != "whole":
                click.echo(f"  {file.name}: {file.verdict}: {file.text}")
    if lines:
        click.echo(table(lines))


if __name__ == "__main__":
    main()
