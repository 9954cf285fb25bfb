"""Configurations that ``distinit config`` prints, and the pages of ``docs/reference``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from distinit.cli import main
from distinit.pipeline.config import build_config
from distinit.pipeline.config_keys import record_of
from distinit.schemas.base import Record
from distinit.schemas.distill import DistillConfig
from distinit.schemas.errors import ConfigError
from distinit.schemas.reproduce import ScaleConfig
from distinit.stages.config_reference import COMMANDS, NEEDED, config_template, write_reference

PAGES = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_printed_configuration_is_the_default_one(command: str, tmp_path: Path) -> None:
    model = COMMANDS[command]
    assert issubclass(model, Record)
    file = tmp_path / "config.yaml"
    file.write_text(config_template(command).yaml)
    values = yaml.safe_load(file.read_text())
    loaded = build_config(model, file, (), {})
    assert loaded == model.model_validate(
        _required(model, values) | {name: name.upper() for name in NEEDED.get(command, ())}
    )


def _required(model: type[BaseModel], values: dict[str, object]) -> dict[str, object]:
    """Of ``values``, the keys that have no default: everything else must be the default."""
    needed: dict[str, object] = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            kind = field.annotation
            inner = values[name]
            if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(inner, dict):
                inner = _required(kind, inner)
            needed[name] = inner
    return needed


def test_every_key_has_a_comment_and_dependent_defaults_are_comments() -> None:
    text = config_template("distill").yaml
    assert "\ncache: CACHE\n" in text
    assert "  # loader threads per worker; 0 loads in the training thread" in text
    facts = "number, at least 0, less than 1; paper: .9"
    assert f"\n  # sgd only: momentum ({facts})\n  momentum: 0.9\n" in text
    assert "\n  # step_epochs: 10\n" in text
    assert "\n  eps: 1.0e-08\n" in text
    flow = yaml.safe_load(text)
    flow["student"]["in_channels"] = 2
    assert DistillConfig.model_validate(flow).clip.mean == (0.0046635, 0.0046261)


def test_the_command_prints_the_file_and_suggests_names() -> None:
    runner = CliRunner()
    printed = runner.invoke(main, ["config", "frames", "build"])
    assert (printed.exit_code, printed.stdout) == (0, config_template("frames build").yaml)
    wrong = runner.invoke(main, ["config", "distil"])
    assert wrong.exit_code == 2
    assert 'no command "distil" reads a configuration' in wrong.stderr
    assert "did you mean distill?" in wrong.stderr


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(ConfigError, match='no command "x y"'):
        config_template("x y")


def test_the_reference_is_up_to_date(tmp_path: Path) -> None:
    written = write_reference(tmp_path)
    assert "distill.md" in written.pages
    assert len(written.pages) == len(COMMANDS) + 1
    fresh = {path.name: path.read_text() for path in tmp_path.iterdir()}
    stored = {path.name: path.read_text() for path in PAGES.iterdir()}
    assert stored == fresh, "run `distinit config reference --out docs/reference`"
    assert stored["distill.md"].startswith("<!-- Written by `distinit config reference")
    lines = stored["distill.md"].splitlines()
    assert "| key | type | default | unit | source | meaning |" in lines
    assert (
        "| `optimizer.gamma` | number, more than 0, at most 1 | `0.1` | none | paper: .1 | "
        "schedule step: decay of the learning rate |"
    ) in lines
    assert "| `frames` | text | required | - | - | folder of the frame store |" in lines


def test_every_number_has_a_unit() -> None:
    fields = {
        f"{model.__name__}.{name}": field
        for model in _configurations()
        for name, field in model.model_fields.items()
    }
    assert {"RuntimeConfig.seed", "LabelledInput.batch_size", "DecodeConfig.threads"} <= {*fields}
    extras = {name: field.json_schema_extra or {} for name, field in fields.items()}
    for name, extra in extras.items():
        assert isinstance(extra, dict), name
        assert extra.keys() <= {"unit", "source"}, name
        assert all(isinstance(text, str) and text.strip() for text in extra.values()), name
    numbers = {name for name, field in fields.items() if _has_number(field.annotation)}
    assert numbers == {name for name, extra in extras.items() if "unit" in extra}


def _has_number(annotation: object) -> bool:
    """Whether values of this type are numbers, or lists or unions with numbers."""
    return annotation in (int, float) or any(map(_has_number, get_args(annotation)))


def _configurations() -> set[type[BaseModel]]:
    """The configurations of all commands, their bases, and the records inside them."""
    found: set[type[BaseModel]] = set()
    todo: list[type[BaseModel]] = [*COMMANDS.values(), ScaleConfig]
    while todo:
        model = todo.pop()
        bases = [base for base in model.__bases__ if issubclass(base, Record)]
        kinds = [record_of(field.annotation) for field in model.model_fields.values()]
        found.add(model)
        todo += [kind for kind in (*bases, *kinds) if kind is not None and kind not in found]
    return found
