"""The wheel, installed into an empty environment: commands, configurations, types, examples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import marked_block
from helpers.videos import make_video

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "pipeline", "schemas", "stages")
DEPENDENCIES = Path(np.__file__).parents[1]
CONSUMER = """
import distinit
targets = distinit.TargetCache.open("cache").targets("a")
reveal_type(targets.of("id").video_id)
reveal_type(distinit.__version__)
distinit.TargetCache.open(3)
distinit.TargetCach
"""
"""A consumer's code: two types to see, and two mistakes. That of the README has none."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without the network."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "clone"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "py.typed"):
        shutil.copy(ROOT / name, copy)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=copy)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> Path:
    """Python of an environment with the wheel and the dependencies, but not the clone."""
    folder = wheel.parent / "env"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    found = folder / "bin/python"
    target = run(found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Paths in a .pth file are added without the .pth files there: no editable install.
    (Path(target) / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    arguments = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    ignore = ("--ignore-installed", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", str(found), *arguments, *ignore, str(wheel))
    return found


def run(program: str | Path, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    done = subprocess.run(
        [program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    paths = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    expected = {
        f"distinit/{path.relative_to(ROOT).as_posix()}"
        for path in (*paths, *ROOT.glob("*.py"), ROOT / "py.typed")
        if path.suffix in (".py", ".yaml", ".typed", ".j2", ".js", ".css")
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("distinit-")}
    assert names == expected
    assert {"distinit/py.typed", "distinit/configs/gpus/distill_4gpu.yaml"} <= names


def test_the_command_finds_its_configurations(python: Path, tmp_path: Path) -> None:
    where = run(python, "-c", "import distinit; print(distinit.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1])
    command = python.with_name("distinit")
    assert run(command, "--version", cwd=tmp_path) == run(
        python, "-m", "distinit", "--version", cwd=tmp_path
    ).replace("python -m distinit", "distinit")
    code = "from distinit.pipeline.ready_configs import find_config as f; from pathlib import Path"
    found = run(python, "-c", f"{code}; print(f(Path('demo_distill')))", cwd=tmp_path).strip()
    assert Path(found).read_bytes() == (ROOT / "configs/demo_distill.yaml").read_bytes()


def test_a_consumer_s_type_checker_sees_the_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    (tmp_path / "readme.py").write_text(marked_block(ROOT / "README.md", "python"))
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n[mypy-numpy.*,rich.*,torch.*,zarr.*]\nfollow_imports = skip\n"
    )
    arguments = ("--python-executable", str(python), "--no-error-summary", "consumer.py")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *arguments, "readme.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = re.findall(r'Revealed type is "(.*)"|error: .*\[(.*)\]$', done.stdout, re.MULTILINE)
    seen = [revealed or f"error {code}" for revealed, code in found]
    assert seen == ["str", "str", "error arg-type", "error attr-defined"], done.stdout


def test_the_examples_of_the_api_page_run(python: Path, tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        make_video(tmp_path / f"clips/{name}.mp4", frames=24, seed=seed)
    code = "from pathlib import Path; from helpers.pages import run_page; "
    code += f"print(run_page(Path({str(ROOT / 'docs/api.md')!r})))"
    printed = run(python, "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT / "tests"))
    assert int(printed.splitlines()[-1]) == (ROOT / "docs/api.md").read_text().count(">>> ")
