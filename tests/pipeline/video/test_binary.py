"""Which ffmpeg is used, and what it supports."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import pytest

from distinit.pipeline.video import find_ffmpeg
from distinit.pipeline.video.binary import supports_cuda
from distinit.schemas.errors import FFmpegNotFoundError


def test_the_environment_variable_comes_first(
    tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "my ffmpeg"
    link.symlink_to(ffmpeg_exe)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(link))
    found = find_ffmpeg()
    assert found.path == link
    assert "passthrough" in found.passthrough
    assert found.version


def test_the_wheel_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTINIT_FFMPEG")
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().path == Path(imageio_ffmpeg.get_ffmpeg_exe())


def test_path_comes_before_the_wheel(
    tmp_path: Path, ffmpeg_exe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").symlink_to(ffmpeg_exe)
    monkeypatch.delenv("DISTINIT_FFMPEG")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().path == tmp_path / "ffmpeg"


@pytest.mark.parametrize("content", [None, "#!/bin/sh\necho hello\n", "#!/bin/sh\nexit 1\n"])
def test_no_other_ffmpeg_replaces_an_unusable_one_from_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    path = tmp_path / "ffmpeg"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    monkeypatch.setenv("DISTINIT_FFMPEG", str(path))
    with pytest.raises(FFmpegNotFoundError, match="DISTINIT_FFMPEG") as caught:
        find_ffmpeg()
    assert str(path) in str(caught.value.found)


def test_missing_cuda_support_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not supports_cuda(find_ffmpeg())
