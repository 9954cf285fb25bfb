"""The commands that a result suggests: quoted for a shell, they parse and name what was written."""

from __future__ import annotations

import shlex

import click
import pytest
from helpers.command_line import command_of, commands

from distinit.schemas.corpus import CorpusReport, Names
from distinit.schemas.matching import MatchReport
from distinit.schemas.run import DistillResult
from distinit.stages.extract_result import ExtractResult
from distinit.stages.flow import FlowResult

FOLDER = 'it\'s a "work" folder/$HOME'
NONE = Names.of(())
CORPUS = CorpusReport.model_validate(
    {
        "source": "v",
        "videos": 1,
        **dict.fromkeys(
            ("new", "changed", "gone", "returned", "renamed", "duplicate", "unreadable"), NONE
        ),
        "left_out": {},
        "hidden_left_out": {},
    }
)


def extracted(frames_store: str | None) -> ExtractResult:
    return ExtractResult(
        cache=FOLDER,
        frames_store=frames_store,
        content_digest="",
        complete=True,
        corpus=CORPUS,
        videos=1,
        frames=1,
        rows=1,
        failed=(),
        unavailable=0,
        decoder_errors={},
        damaged={},
        concealed={},
        teachers=("null",),
        encodings={},
        encoding_losses={},
        frames_done=1,
        seconds=1,
    )


DISTILLED = DistillResult(
    out=FOLDER,
    student=f"{FOLDER}/student.safetensors",
    cache_digest="",
    videos=1,
    loss=1,
    epochs=1,
    steps=1,
    clips=1,
    seconds=1,
)
MATCHED = MatchReport(
    cache="c",
    source=FOLDER,
    out=f"{FOLDER}/m",
    videos=1,
    usable=1,
    kinds=(),
    copies=1,
    unreadable={},
    refused=(),
    seconds=1,
)
FLOW = FlowResult(flow_store=FOLDER, videos=1, frames=1, flow_range=20, seconds=1)
SUGGESTED: dict[str, tuple[str, dict[str, object]]] = {
    "extract": (
        extracted(f"{FOLDER}/f").summary(),
        {"cache": FOLDER, "frames": f"{FOLDER}/f", "out": "REPORT"},
    ),
    "extract without frames": (
        extracted(None).summary(),
        {"cache": FOLDER, "frames": None, "out": "REPORT"},
    ),
    "distill": (
        DISTILLED.summary(),
        {"init": f"distinit:{FOLDER}", "dataset__root": "DATASET", "out": "RESULT"},
    ),
    "cache match": (
        MATCHED.summary(),
        {"videos": FOLDER, "match": f"{FOLDER}/m", "out": f"{FOLDER}/m.frames"},
    ),
    "flow build": (FLOW.summary(), {"frames": FOLDER, "cache": "CACHE", "out": "RUN"}),
}


def parsed(line: str) -> click.Context:
    """The options of a command line, as click reads them."""
    program, *words = shlex.split(line)
    assert program == "distinit"
    path = next(p for p in commands() if tuple(words[: len(p)]) == p)
    return command_of(path).make_context(" ".join(path), words[len(path) :])


@pytest.mark.parametrize("name", SUGGESTED)
def test_the_next_command_parses_and_names_the_result(name: str) -> None:
    summary, expected = SUGGESTED[name]
    (line,) = [line for line in summary.splitlines() if line.startswith("next: ")]
    found = parsed(line.removeprefix("next: ")).params
    assert {key: found[key] for key in expected} == expected
    assert found["out"] != FOLDER, "a run directory belongs to one configuration"
