"""Image features and vocabularies of one CLIP, with random weights, against open_clip itself."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from click.testing import CliRunner
from helpers.command_line import INTERNALS, run_command
from helpers.videos import decode_with_pyav, make_video
from PIL import Image
from safetensors.torch import load_file, save_file

from distinit.pipeline.cache.reader import TargetCache
from distinit.pipeline.vocabulary.files import read_vocabulary

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("robin", "wren", "barn owl", "Ara ararauna")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.")
CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 1,
    },
}
PAGE = (EXAMPLES.parent / "docs/vocabularies.md").read_text()
SAVING = (
    textwrap.dedent(re.findall(r"^ {3}```python\n(.*?)^ {3}```$", PAGE, re.M | re.S)[0])
    .replace('"ViT-B-32-quickgelu"', '"small"')
    .replace('pretrained="openai"', "pretrained=None")
)
"""How the page saves a CLIP, here a small one with random weights."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP as the page saves it, names and two videos."""
    root = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.chdir(root)
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "small", CONFIG)
        exec(SAVING, {})
    (root / "names.txt").write_text("\ufeff" + "\n\n".join(NAMES) + "\n", encoding="utf-8")
    make_video(root / "videos/plain.mp4", frames=6, size=(32, 32))
    make_video(root / "videos/scaled.mp4", frames=6)
    return root


def make_vocabulary(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> tuple[int, str]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from clip_vocabulary import main

    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert INTERNALS.search(result.output) is None, result.output
    return result.exit_code, result.output


def extract(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    command = ["extract", "--videos", str(folder / "videos"), "--cache", str(cache)]
    command += ["--teacher", "plugin:clip_teacher:clip_teacher", "--target", "features"]
    return run_command([*command, "--weights", str(folder / "clip/open_clip_model.safetensors")])


@torch.no_grad()
def logits_of_open_clip(folder: Path, frames_NHWC: np.ndarray) -> np.ndarray:
    """fp32 [N, names], by open_clip's own functions from files to logits."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder / 'clip'}")
    model.eval()
    pictures_NCHW = torch.stack([transform(Image.fromarray(f)) for f in frames_NHWC])
    texts_KD = open_clip.build_zero_shot_classifier(
        model, tokenizer, NAMES, [lambda name, t=t: t.format(name) for t in TEMPLATES]
    ).T
    image_ND = model.encode_image(pictures_NCHW, normalize=True)
    logits_NK: np.ndarray = (model.logit_scale.exp() * image_ND @ texts_KD.T).numpy()
    return logits_NK


def test_relabelled_features_have_the_logits_of_open_clip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = extract(folder, tmp_path / "cache", monkeypatch)
    assert code == 0, output
    weights, birds = folder / "clip/open_clip_model.safetensors", tmp_path / "birds.safetensors"
    options: Sequence[str] = [word for text in TEMPLATES for word in ("--template", text)]
    code, output = make_vocabulary(monkeypatch, weights, folder / "names.txt", birds, *options)
    assert (code, output) == (0, f"{birds}: 4 names, 16 dimensions\n")
    vocabulary = read_vocabulary(birds)
    stored = TargetCache.open(tmp_path / "cache")
    (record,) = stored.teachers.values()
    paths, names = (stored.videos.column(key).to_pylist() for key in ("path", "video_id"))
    ids = {Path(path).stem: name for path, name in zip(paths, names, strict=True)}
    assert vocabulary.metadata.model_dump() == {
        "text_tower": "open_clip/clip",
        "image_architecture": None,
        "image_weights_sha256": record.identity.weights_sha256,
        "templates": TEMPLATES,
        "names": NAMES,
    }
    cache, out = str(tmp_path / "cache"), str(tmp_path / "out")
    code, output = run_command(
        ["cache", "relabel", cache, "--vocabulary", str(birds), "--out", out]
    )
    assert code == 0, output
    relabelled = TargetCache.open(tmp_path / "out")
    (name,) = relabelled.teachers
    # Pillow, which open_clip scales with, rounds to whole levels: the second video is scaled.
    for video, bound in (("plain", 1e-3), ("scaled", 2e-3)):
        found_NK = relabelled.targets(name).of(ids[video]).logits_NC
        _, _, frames_NHWC = decode_with_pyav(folder / f"videos/{video}.mp4")
        expected_NK = logits_of_open_clip(folder, frames_NHWC)
        assert expected_NK.shape == (6, 4)
        assert np.abs(found_NK - expected_NK).max() <= bound * np.abs(expected_NK).max()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found:    0 of them"),
        (b"robin\n\n \n", "found:    1 of them"),
        (b"robin\nwren\n\n robin \n", 'found:    "robin" in the lines 1 and 4'),
        (b"robin\nwr\xe9n\n", "found:    a byte that is not UTF-8, at 8"),
    ],
)
def test_unusable_names_are_refused(
    content: bytes, message: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    weights, out = folder / "clip/open_clip_model.safetensors", tmp_path / "out.safetensors"
    code, output = make_vocabulary(monkeypatch, weights, tmp_path / "names.txt", out)
    assert (code, message in output) == (2, True), output
    assert "expected: a UTF-8 text with one name per line: two or more, all different" in output
    assert not out.exists()


def test_unusable_templates_and_metadata_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    paths = (folder / "clip/open_clip_model.safetensors", folder / "names.txt", out)
    code, output = make_vocabulary(monkeypatch, *paths, "--template", "a photo")
    assert (code, '"a photo" has no place for the name' in output) == (2, True), output
    code, output = make_vocabulary(monkeypatch, *paths, "--architecture", "a" * 5_000)
    assert (code, "found:    image_architecture: " in output) == (2, True), output
    assert not out.exists()


def test_an_architecture_stands_for_any_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, name = tmp_path / "out.safetensors", "timm/vit_base_patch32_clip_224.laion2b"
    paths = (folder / "clip/open_clip_model.safetensors", folder / "names.txt", out)
    code, output = make_vocabulary(monkeypatch, *paths, "--architecture", name)
    assert code == 0, output
    metadata = read_vocabulary(out).metadata
    assert (metadata.image_architecture, metadata.image_weights_sha256) == (name, None)
    assert metadata.templates == ("a photo of a {}.",)


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of the CLIP whose text_cfg has other values; returns the path of its weights."""
    target.mkdir()
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], **changes}}
    (target / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return Path(shutil.copy(folder / "clip/open_clip_model.safetensors", target))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 2}, "are those of another network"),
        ({"hf_tokenizer_name": "org/words"}, "the text tower of this CLIP would be downloaded"),
        ({"heads": 3}, "open_clip cannot build the network of"),
        ({"stars": 3}, "open_clip cannot build the network of"),
    ],
)
def test_weights_and_configurations_that_do_not_fit_are_refused(
    changes: dict[str, Any],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, out = edited(folder, tmp_path / "clip", **changes), tmp_path / "out.safetensors"
    code, output = make_vocabulary(monkeypatch, weights, folder / "names.txt", out)
    assert code != 0
    assert message in output
    (tmp_path / "clip/open_clip_config.json").unlink()
    code, output = make_vocabulary(monkeypatch, weights, folder / "names.txt", out)
    assert (code != 0, "found:    No such file or directory" in output) == (True, True), output
    assert not out.exists()


def test_features_of_other_weights_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = edited(folder, tmp_path / "clip"), tmp_path / "out.safetensors"
    tensors = load_file(weights)
    tensors["visual.proj"][0, 0] += 1
    save_file(tensors, weights)
    code, output = make_vocabulary(monkeypatch, weights, folder / "names.txt", out)
    assert code == 0, output
    assert extract(folder, tmp_path / "cache", monkeypatch)[0] == 0
    command = ["cache", "relabel", str(tmp_path / "cache"), "--vocabulary", str(out)]
    code, output = run_command([*command, "--out", str(tmp_path / "relabelled")])
    assert (code, "does not fit teacher clip_teacher" in output) == (2, True), output
    tensors["token_embedding.weight"][:] = float("nan")
    save_file(tensors, weights)
    code, output = make_vocabulary(monkeypatch, weights, folder / "names.txt", out)
    assert (code != 0, "are not finite" in output) == (True, True), output
