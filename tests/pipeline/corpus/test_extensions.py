"""The decoder reads files with every extension that folders are searched for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from distinit.pipeline.corpus.folder import VIDEO_EXTENSIONS
from distinit.pipeline.video.decode import open_video
from distinit.pipeline.video.views import View
from distinit.schemas.video import DecodeConfig

DOCUMENT = Path(__file__).parents[3] / "docs/video-files.md"
FRAMES = 8

# ffmpeg's options to write a file, and the extensions that are used for such files.
MADE = {
    "-c:v libx264 -pix_fmt yuv420p -f mp4": "mp4 m4v mp4v",
    "-c:v libx264 -pix_fmt yuv420p -f mov": "mov qt",
    "-c:v jpeg2000 -f mp4": "mj2",
    "-c:v libx264 -pix_fmt yuv420p -f 3gp": "3gp 3gpp",
    "-c:v libx264 -pix_fmt yuv420p -f 3g2": "3g2 3gp2",
    "-c:v libx264 -pix_fmt yuv420p -f f4v": "f4v",
    "-c:v libx264 -pix_fmt yuv420p -f matroska": "mkv mk3d",
    "-c:v libx264 -pix_fmt yuv420p -f mpegts": "ts",
    "-c:v libx264 -pix_fmt yuv420p -f mpegts -mpegts_m2ts_mode 1": "mts m2ts",
    "-c:v mpeg2video -f mpegts": "m2t tod tp trp",
    "-c:v libx264 -pix_fmt yuv420p -f h264": "h264 264",
    "-c:v libx265 -x265-params log-level=none -f hevc": "hevc h265 265",
    "-c:v libx264 -pix_fmt yuv420p -f nut": "nut",
    "-c:v mpeg4 -f avi": "avi divx xvid",
    "-c:v wmv2 -f asf": "asf wm wmv",
    "-c:v mpeg2video -f asf": "dvr-ms",
    "-c:v mpeg2video -r 25 -f wtv": "wtv",
    "-c:v dvvideo -s 720x576 -r 25 -pix_fmt yuv420p -f dv": "dv",
    "-c:v flv -f flv": "flv",
    "-c:v flv -f swf": "swf",
    "-f gif": "gif",
    "-c:v mpeg2video -s 720x576 -r 25 -pix_fmt yuv420p -f gxf": "gxf",
    "-c:v mpeg2video -r 25 -f mxf": "mxf",
    "-c:v h261 -s 176x144 -f h261": "h261",
    "-c:v h263 -s 176x144 -f h263": "h263",
    "-c:v libvpx -f ivf": "ivf",
    "-c:v libvpx -f webm": "webm",
    "-c:v libaom-av1 -cpu-used 8 -f obu": "obu",
    "-c:v mpeg1video -f mpeg": "mpg mpeg mpe",
    "-c:v mpeg2video -f vob": "vob vro evo m2p",
    "-c:v mpeg1video -f mpeg1video": "m1v",
    "-c:v mpeg2video -f mpeg2video": "m2v mp2v mpv2",
    "-c:v libtheora -f ogg": "ogg ogm ogv",
    "-c:v rv10 -s 176x144 -f rm": "rm",
    "-c:v rv20 -s 176x144 -f rm": "rmvb",
    "-pix_fmt yuv420p -f yuv4mpegpipe": "y4m",
}


def make(ffmpeg_exe: str, options: str, path: Path) -> None:
    command = [ffmpeg_exe, "-v", "error", "-nostdin", "-y", "-f", "lavfi"]
    command += ["-i", "testsrc2=s=96x64:r=25", "-frames:v", str(FRAMES), *options.split()]
    subprocess.run([*command, f"file:{path}"], check=True)


@pytest.mark.parametrize(("options", "extensions"), MADE.items())
def test_files_of_each_extension_are_decoded_in_full(
    ffmpeg_exe: str, tmp_path: Path, options: str, extensions: str
) -> None:
    first, *others = (tmp_path / f"video.{name}" for name in extensions.split())
    make(ffmpeg_exe, options, first)
    for path in others:
        path.write_bytes(first.read_bytes())
    for path in (first, *others):
        with open_video(path, {"small": View.squash(16, 16)}, DecodeConfig()) as stream:
            assert sum(len(block.pts_N) for block in stream) == FRAMES, path.name


def test_every_extension_is_tested() -> None:
    tried = [f".{name}" for names in MADE.values() for name in names.split()]
    assert sorted(tried) == sorted(VIDEO_EXTENSIONS)


def test_the_document_lists_every_extension() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if "| `." in line]
    listed = [name.strip(" `") for row in rows for name in row[1].split()]
    assert sorted(listed) == sorted(VIDEO_EXTENSIONS)
