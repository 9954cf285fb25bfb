"""Makes a vocabulary with the text tower of a CLIP, from a list of names and prompt templates.

    python examples/clip_vocabulary.py clip/open_clip_model.safetensors names.txt \\
        birds.safetensors --template "a photo of a {}."

It fits features that ``clip_teacher.py`` has extracted with the same weights. With
``--architecture``, it fits those of another program for the same image tower, such as
``timm/vit_base_patch32_clip_quickgelu_224.openai``: `architecture` of the teacher in
`distinit cache info CACHE --json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from clip_teacher import ImageTower, load_clip
from numpy.typing import NDArray
from pydantic import ValidationError

from distinit.pipeline.teachers.fingerprint import state_dict_sha256
from distinit.pipeline.vocabulary.files import write_vocabulary
from distinit.schemas.errors import DistInitError, VocabularyError
from distinit.schemas.vocabulary import VocabularyMetadata
from distinit.schemas.wording import shown

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PLACE = "{}"


@click.command()
@click.argument("weights", type=FILE)
@click.argument("names_file", type=FILE)
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--template", "templates", multiple=True, default=("a photo of a {}.",))
@click.option("--architecture", help="Of the image teacher, if clip_teacher.py was not used.")
def main(
    weights: Path, names_file: Path, out: Path, templates: tuple[str, ...], architecture: str | None
) -> None:
    """Write the vocabulary OUT: the mean embedding of all templates for each name."""
    try:
        names = read_names(names_file)
        check_templates(templates)
        clip = load_clip(weights)
        metadata = metadata_of(clip, weights, names, templates, architecture)
        embeddings_KD = embed(clip, weights, names, templates)
        write_vocabulary(out, embeddings_KD, metadata, scale=clip.logit_scale.exp().item())
    except DistInitError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(f"{out}: {len(names)} names, {embeddings_KD.shape[1]} dimensions")


def read_names(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not empty: two or more, all different.

    Raises VocabularyError.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _unusable(path, f"a byte that is not UTF-8, at {error.start}") from error
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if name in line_of:
            found = f"{shown(name)} in the lines {line_of[name]} and {number}"
            raise _unusable(path, found)
        if name:
            line_of[name] = number
    if len(line_of) < 2:
        raise _unusable(path, f"{len(line_of)} of them")
    return tuple(line_of)


def check_templates(templates: tuple[str, ...]) -> None:
    """Raise VocabularyError for a template without a place for the name."""
    for template in templates:
        if PLACE not in template:
            raise VocabularyError(
                f"the template {shown(template)} has no place for the name",
                expected='braces, as in "a photo of a {}."',
            )


def metadata_of(
    clip: Any,
    weights: Path,
    names: tuple[str, ...],
    templates: tuple[str, ...],
    architecture: str | None,
) -> VocabularyMetadata:
    """Names the image tower by its weights, or by the architecture that was given."""
    towers = {"image_architecture": architecture}
    if architecture is None:
        towers = {"image_weights_sha256": state_dict_sha256(ImageTower(clip).state_dict())}
    try:
        return VocabularyMetadata.model_validate(
            {
                "text_tower": f"open_clip/{weights.parent.resolve().name}",
                "templates": templates,
                "names": names,
                **towers,
            }
        )
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VocabularyError(
            "these values cannot be those of a vocabulary", found=f"{place}: {first['msg']}"
        ) from invalid


@torch.no_grad()
def embed(
    clip: Any, weights: Path, names: tuple[str, ...], templates: tuple[str, ...]
) -> NDArray[np.float32]:
    """fp32 [names, D]: for each name, the mean of the normalised embeddings of its prompts."""
    import open_clip

    tokenizer = open_clip.get_tokenizer(f"local-dir:{weights.parent}")
    rows = []
    for name in names:
        prompts = tokenizer([template.replace(PLACE, name) for template in templates])
        rows.append(clip.encode_text(prompts, normalize=True).mean(dim=0).float().numpy())
    return np.stack(rows)


def _unusable(path: Path, found: str) -> VocabularyError:
    return VocabularyError(
        f"{path} is not a usable list of names",
        expected="a UTF-8 text with one name per line: two or more, all different",
        found=found,
    )


if __name__ == "__main__":
    main()
