"""How well perceptual hashes tell copies of a video from other videos, and shifts from no shift.

    python benchmarks/match_study.py CLIP [CLIP ...] [--frames 120] [--json]

Makes copies of the first frames of each clip (COPIES), hashes all of them, and prints three tables:

1. for each distance in bits: how many frames and copies agree with their video, and how many of the
   altered copies (letterboxed, mirrored) and of the copies of other videos do;
2. the verdict of ``cache match`` on each kind of copy;
3. how clearly the frames say that a copy is not shifted (or shifted by one frame), for several
   values of the statistic: right, wrong and undecided copies.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click
import numpy as np

from distinit.pipeline.matching import alignment
from distinit.pipeline.matching.cache_hashes import CacheVideo, KnownFrames
from distinit.pipeline.matching.comparison import compare
from distinit.pipeline.matching.hash_parts import CopyHashes
from distinit.pipeline.video.binary import find_ffmpeg
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.hashing import hamming_distance
from distinit.schemas.matching import MatchLimits
from distinit.schemas.video import DecodeConfig

SAME_FRAMES = ("-fps_mode", "passthrough")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
HALF, PAD = "scale=trunc(iw/4)*2:trunc(ih/4)*2", "pad=iw:trunc(ih*1.25/2)*2:0:(oh-ih)/2"
COPIES: dict[str, tuple[str, ...]] = {
    "crf 18": ("mp4", *X264, *SAME_FRAMES, "-crf", "18"),
    "crf 23": ("mp4", *X264, *SAME_FRAMES, "-crf", "23"),
    "crf 28": ("mp4", *X264, *SAME_FRAMES, "-crf", "28"),
    "crf 35": ("mp4", *X264, *SAME_FRAMES, "-crf", "35"),
    "half size": ("mp4", *X264, *SAME_FRAMES, "-crf", "23", "-vf", HALF),
    "mpeg4 in avi": ("avi", "-c:v", "mpeg4", "-q:v", "5", *SAME_FRAMES),
    "vp8 in webm": ("webm", "-c:v", "libvpx", "-b:v", "600k", "-cpu-used", "8", *SAME_FRAMES),
    "shifted by 1": ("mp4", *X264, *SAME_FRAMES, "-crf", "23", "-vf", r"select=gte(n\,1)"),
    "6/5 of the fps": ("mp4", *X264, "-crf", "23", "-vf", "fps=source_fps*6/5"),
    "letterboxed": ("mp4", *X264, *SAME_FRAMES, "-crf", "23", "-vf", PAD),
    "mirrored": ("mp4", *X264, *SAME_FRAMES, "-crf", "23", "-vf", "hflip"),
}
"""Kind of copy -> extension of its file, and ffmpeg's options for it."""
SAME = tuple(COPIES)[:7]
"""Copies with the same frames, at the same places of the picture."""
DISTANCES = (1, 2, 3, 4, 5, 6, 8, 10)
SURE = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0)


@dataclass(frozen=True)
class Clip:
    """A clip and its copies, by kind. ``video`` has only the frames that were copied."""

    video: CacheVideo
    known: KnownFrames
    copies: Mapping[str, CopyHashes]


def hashes_of(path: Path, most_frames: int | None = None) -> CopyHashes:
    """Decode a file, up to ``most_frames`` frames."""
    hashes, times = [], []
    with open_video(path, {}, DecodeConfig(), block_frames=30) as stream:
        for block in islice(stream, None if most_frames is None else -(-most_frames // 30)):
            hashes.append(block.hash_N)
            times.append(block.pts_N)
        above, below = map(int, stream.time_base.split("/"))
    pts_seconds_F = np.concatenate(times)[:most_frames].astype(np.float64) * (above / below)
    return CopyHashes("", np.concatenate(hashes)[:most_frames], pts_seconds_F)


def with_copies(path: Path, number: int, frames: int, folder: Path) -> Clip:
    """Hash the first frames of a clip, and make and hash its copies."""
    own = hashes_of(path, frames)
    count = len(own.hash_F)
    fps = (count - 1) / float(own.pts_seconds_F[-1] - own.pts_seconds_F[0])
    copies = {}
    for kind, (extension, *options) in COPIES.items():
        target = folder / f"{number}-{kind.replace('/', '-')}.{extension}"
        most = count * 6 // 5 if "fps=source" in " ".join(options) else count
        given = [option.replace("source_fps", f"{fps:.4f}") for option in options]
        argv = [str(find_ffmpeg().path), "-v", "error", "-nostdin", "-y", "-i", f"file:{path}"]
        argv += ["-map", "0:V:0", "-frames:v", str(most), "-threads", "1", *given, f"file:{target}"]
        subprocess.run(argv, check=True)
        copies[kind] = hashes_of(target)
        target.unlink()
    video = CacheVideo(number, path.stem, path.name, "", count)
    return Clip(video, KnownFrames(np.arange(count), own.hash_F, own.pts_seconds_F), copies)


def distances_of(clip: Clip, kind: str) -> np.ndarray:
    """Bits by which the hashes of a copy differ from those of the video, frame by frame."""
    copy_F = clip.copies[kind].hash_F
    frames = min(len(copy_F), len(clip.known.hash_N))
    return hamming_distance(clip.known.hash_N[:frames], copy_F[:frames])


def distance_table(clips: Sequence[Clip], min_share: float) -> list[dict[str, float]]:
    """For each distance: shares of frames, and numbers of copies, that agree with their video."""
    rows: list[dict[str, float]] = []
    same = [distances_of(clip, kind) for clip in clips for kind in SAME]
    pairs = [(a, b.copies["crf 28"].hash_F) for a in clips for b in clips if a is not b]
    for bits in DISTANCES:
        found = [alignment.align(a.known.index_N, a.known.hash_N, b, bits) for a, b in pairs]
        row = {
            "bits": bits,
            "frames_percent": 100 * float((np.concatenate(same) <= bits).mean()),
            "copies": sum((d <= bits).mean() >= min_share for d in same),
            "of_copies": len(same),
        }
        for kind in ("letterboxed", "mirrored"):
            agreeing = [(distances_of(clip, kind) <= bits).mean() >= min_share for clip in clips]
            row |= {kind: sum(agreeing), f"of_{kind}": len(agreeing)}
        others = sum(a.agreeing_share >= min_share and a.compared >= 6 for a in found)
        rows.append(row | {"other_videos": others, "of_other_videos": len(found)})
    return rows


def verdict_table(clips: Sequence[Clip], limits: MatchLimits) -> dict[str, dict[str, int]]:
    """Kind of copy -> verdict -> number of clips."""
    return {
        kind: dict(Counter(compare(c.video, c.known, c.copies[kind], limits).kind for c in clips))
        for kind in COPIES
    }


def shift_table(clips: Sequence[Clip], limits: MatchLimits) -> list[dict[str, float]]:
    """For each value of the statistic: right, wrong and undecided copies, shifted and not."""
    rows: list[dict[str, float]] = []
    usual = alignment.SURE_Z
    for sure in SURE:
        alignment.SURE_Z = sure
        row: dict[str, float] = {"z": sure}
        for name, kinds, shift in (("same", SAME, 0), ("shifted", ("shifted by 1",), -1)):
            counts = Counter(
                "undecided" if not a.is_sure else "right" if a.shift_frames == shift else "wrong"
                for clip in clips
                for kind in kinds
                for a in [_aligned(clip, kind, limits)]
            )
            row |= {f"{name}_{what}": counts[what] for what in ("right", "wrong", "undecided")}
        rows.append(row)
    alignment.SURE_Z = usual
    return rows


def _aligned(clip: Clip, kind: str, limits: MatchLimits) -> alignment.Alignment:
    known = clip.known
    return alignment.align(
        known.index_N, known.hash_N, clip.copies[kind].hash_F, limits.max_bits, limits.window_frames
    )


def study(paths: Sequence[Path], frames: int) -> dict[str, object]:
    """All tables, and the verdicts by clip."""
    limits = MatchLimits()
    with tempfile.TemporaryDirectory() as folder:
        clips = [with_copies(path, n, frames, Path(folder)) for n, path in enumerate(paths)]
    by_clip = {
        clip.video.path: {
            kind: compare(clip.video, clip.known, copy, limits).kind
            for kind, copy in clip.copies.items()
        }
        for clip in clips
    }
    return {
        "distances": distance_table(clips, limits.min_share),
        "verdicts": verdict_table(clips, limits),
        "shifts": shift_table(clips, limits),
        "clips": by_clip,
    }


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row.get(name, 0)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--frames", default=120, show_default=True, help="First frames of each clip.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(clips: tuple[Path, ...], frames: int, as_json: bool) -> None:
    """Measure the hashes on copies of CLIPS."""
    found = study(clips, frames)
    if as_json:
        click.echo(json.dumps(found, indent=2, default=int))
        return
    distances, verdicts = found["distances"], found["verdicts"]
    shifts = found["shifts"]
    assert isinstance(distances, list)
    assert isinstance(verdicts, dict)
    assert isinstance(shifts, list)
    click.echo(table(distances))
    click.echo("\n" + table([{"copy": kind, **counts} for kind, counts in verdicts.items()]))
    click.echo("\n" + table(shifts))


if __name__ == "__main__":
    main()
