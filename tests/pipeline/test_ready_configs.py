"""``--config NAME``: a file of the user, or an installed configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from distinit.cli import main
from distinit.pipeline.ready_configs import find_config, ready_configs
from distinit.schemas.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_file_has_a_name() -> None:
    ready = ready_configs()
    assert {path.resolve() for path in ready.values()} == set(CONFIGS.rglob("*.yaml"))
    assert {"demo_distill", "gpus/distill_4gpu", "paper/distill"} <= ready.keys()


@pytest.mark.parametrize("name", ["demo_distill", "demo_distill.yaml", "configs/demo_distill.yaml"])
def test_an_installed_configuration_is_found_by_name(name: str) -> None:
    assert find_config(Path(name)).resolve() == CONFIGS / "demo_distill.yaml"
    assert find_config(Path("gpus/distill_1gpu")).name == "distill_1gpu.yaml"


def test_a_file_of_the_user_comes_first(tmp_path: Path) -> None:
    (tmp_path / "demo_distill.yaml").write_text("cache: mine\n")
    assert find_config(Path("demo_distill.yaml")) == Path("demo_distill.yaml")
    assert find_config(Path("demo_distill")).resolve() == CONFIGS / "demo_distill.yaml"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("demo_distil", "did you mean demo_distill or digits_distill?"),
        ("distill_4gpu.yaml", "did you mean gpus/distill_4gpu?"),
        ("nothing/like/it", None),
    ],
)
def test_an_unknown_name_lists_similar_ones(name: str, remedy: str | None) -> None:
    with pytest.raises(ConfigError, match=f"there is no configuration {name}") as raised:
        find_config(Path(name))
    assert (remedy or "") in (raised.value.remedy or "")
    assert (raised.value.remedy is None) == (remedy is None)
    assert "demo_distill" in str(raised.value.expected)


def test_the_command_line_takes_a_name() -> None:
    arguments = ["--cache", "nowhere", "--frames", "nowhere", "--out", "run"]
    result = CliRunner().invoke(main, ["distill", "--config", "demo_distill", *arguments])
    assert "nowhere" in result.output  # the configuration was read: the cache is missing next
    result = CliRunner().invoke(main, ["distill", "--config", "demo_distil", *arguments])
    assert result.exit_code == 2
    assert "did you mean demo_distill" in result.output
