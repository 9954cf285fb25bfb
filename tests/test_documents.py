"""The documents: links lead somewhere, commands and options exist, terms are explained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from distinit.cli import main
from distinit.pipeline.config_mistakes import dotted_names
from distinit.pipeline.evaluation.clips import parse_protocol, protocol_clip_starts
from distinit.stages.config_reference import COMMANDS

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
TERMS = {"nats": "natural log", "VMZ": "training code", "shard": "batch|file"}
"""Term -> pattern of what the paragraph, table row or list item that mentions it first must say."""


def documents() -> list[str]:
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "", FENCE.sub("", text))


def code_lines(text: str) -> list[str]:
    """The lines of code blocks, fenced or indented; lines that end with a backslash are joined."""
    fenced = "\n".join(FENCE.findall(text))
    indented = "\n".join(re.findall(r"^ {4,}\S.*$", FENCE.sub("", text), re.MULTILINE))
    joined = re.sub(r" *\\\n *", " ", f"{fenced}\n{indented}")
    return [line.strip() for line in joined.splitlines()]


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each ``distinit`` command in code blocks, without what stands before it."""
    for line in code_lines(text):
        found = re.search(
            r"(?:^|&& |-- |\.venv/bin/)(?:[A-Z_]+=\S+ )*(?:srun )?(distinit .*)", line
        )
        if found is not None:
            yield shlex.split(found[1], comments=True)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(text: str) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)}


def unknown_options(words: list[str]) -> list[str]:
    """What of a command does not exist: the subcommand, or options of it."""
    command: click.Command = main
    rest = words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        if name not in command.commands:
            return [name]
        command = command.commands[name]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    known |= {"--help", "-h"}
    return [word for word in rest if word.startswith("--") and word.split("=")[0] not in known]


@pytest.mark.parametrize("name", documents())
def test_relative_links_lead_to_files_and_headings(name: str) -> None:
    path = ROOT / name
    dead = []
    for link in LINK.findall(without_code(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path if not file else path.parent / file
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    assert dead == []


def test_links_and_anchors_are_found() -> None:
    assert LINK.findall("see [a](docs/a.md#b-c), ![b](x.png)") == ["docs/a.md#b-c", "x.png"]
    assert anchors("# The `x.y`, again\n```\n# no heading\n```\n") == {"the-xy-again"}


@pytest.mark.parametrize("name", documents())
def test_the_commands_in_code_blocks_and_their_options_exist(name: str) -> None:
    unknown = {}
    for words in commands_of((ROOT / name).read_text()):
        if found := unknown_options(words):
            unknown[" ".join(words)] = found
    assert unknown == {}


SECTIONS = "clip|compute|dataset|decode|evaluation|optimizer|runtime|sampling"
KEY = re.compile(rf"(?<![\w./-])(?:{SECTIONS})\.(?!(?:py|md|json)\b)[a-z_]+\b(?![(/])")


@pytest.mark.parametrize("name", documents())
def test_the_keys_that_are_named_exist(name: str) -> None:
    known = {key for model in COMMANDS.values() for key in dotted_names(model)}
    assert {key for key in KEY.findall((ROOT / name).read_text()) if key not in known} == set()


def test_keys_are_told_from_files_and_attributes() -> None:
    text = "`runtime.log_steps`, --set clip.crop=9, optimizer.py, student.clip.frames, a/clip.json"
    assert KEY.findall(text) == ["runtime.log_steps", "clip.crop"]


def test_unknown_commands_and_options_are_found() -> None:
    text = "    A=x distinit extract --videos a \\\n      --speed 3 # --no\n    distinit teach\n"
    first, second = commands_of(text)
    assert first == ["distinit", "extract", "--videos", "a", "--speed", "3"]
    assert unknown_options(first) == ["--speed"]
    assert unknown_options(second) == ["teach"]


def test_the_readme_links_to_every_page() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    assert [name for name in PAGES if f"docs/{name}" not in linked] == []


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{page}" for page in PAGES)])
def test_terms_are_explained_where_they_first_appear(name: str) -> None:
    passages = re.split(r"\n\n|\n(?=[-|] ?)", without_code((ROOT / name).read_text()))
    passages = [" ".join(passage.split()) for passage in passages]
    for term, explanation in TERMS.items():
        first = next((p for p in passages if re.search(rf"\b{term}s?\b", p)), None)
        assert first is None or re.search(explanation, first), f"{term} is not explained: {first}"


def test_the_clips_of_the_labelled_data_page_are_those_of_the_protocols() -> None:
    text = (ROOT / "docs/labelled-data.md").read_text()
    rows = re.findall(
        r"^\| `([a-z0-9-]+)`[^|]*\| ([^|]*) \|[^|]*\| ([\d, ]+) \|$", text, re.MULTILINE
    )
    assert [name for name, _, _ in rows] == ["vmz-10", "vmz-1", "dense-s25", "slowfast-10x3"]
    for name, _, starts in rows:
        expected = protocol_clip_starts(parse_protocol(name), 100, 8).tolist()
        assert [int(start) for start in starts.split(",")] == expected


def test_the_citation_file_agrees_with_the_package_and_the_readme() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    readme = (ROOT / "README.md").read_text()
    assert citation["cff-version"] == "1.2.0"
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert citation["title"] in readme
    paper = citation["preferred-citation"]
    assert paper["title"] in readme
    assert paper["year"] == 2019


def test_the_script_that_types_the_readme_finds_its_commands_and_runs_in_ci() -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / "tests/newcomer.sh").read_text()
    marked = re.findall(r"^<!-- newcomer: (.*) -->\n```(?:bash|python)$", readme, re.MULTILINE)
    assert marked == ["install", "own videos", "next", "python"]
    assert all(f"block {name}" in script or f'block "{name}"' in script for name in marked)
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "tests/newcomer.sh"
