"""Values that no key can have, and paths that the system refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from distinit.pipeline.given_values import path_errors, refuse_unusable_values
from distinit.schemas.errors import ConfigError, DistInitError
from distinit.schemas.exit_codes import ExitCode

UNUSABLE = {
    "out: its value is empty": {"out": ""},
    "targets.1.head: its value is empty": {"targets": [{"head": "a"}, {"head": ""}]},
    "out: its value contains a NUL character": {"out": "a\0b"},
    r"out: its value is not UTF-8 text: a\udcff": {"out": "a\udcff"},
    "--folder: its value is not UTF-8 text: \\udcff": {"--folder": Path("\udcff")},
    "lr: its value is beyond 32-bit floating point": {"lr": -1e39},
    "seed: its value is a number of 31 digits": {"seed": -(10**30)},
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_a_value_that_no_key_can_have_is_refused_with_its_name(message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        refuse_unusable_values(UNUSABLE[message])
    assert str(raised.value).splitlines()[0] == message


def test_other_values_are_accepted() -> None:
    """The only value that is refused is the one that is added to them."""
    usable = {"a": "ünï☃ 'x'", "b": [0, -1.5, None, True, 2**63 - 1], "c": {"d": Path("e")}}
    refuse_unusable_values(usable | {"f": 1e38})
    with pytest.raises(ConfigError, match=r"^f: its value is beyond 32-bit"):
        refuse_unusable_values(usable | {"f": 1e39})


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENAMETOOLONG, ExitCode.USAGE), (errno.ENOENT, ExitCode.FAILED)],
)
def test_an_error_of_the_system_about_a_path_becomes_a_message(number: int, code: ExitCode) -> None:
    with pytest.raises(DistInitError) as raised, path_errors():
        raise OSError(number, "embellished", "some/path")
    assert raised.value.problem == "cannot use some/path"
    assert "mbellished" not in str(raised.value)
    assert raised.value.exit_code == code


@pytest.mark.parametrize("error", [OSError("no number"), BrokenPipeError(errno.EPIPE, "no path")])
def test_other_errors_of_the_system_pass(error: OSError) -> None:
    with pytest.raises(type(error)) as raised, path_errors():
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("number", "problem", "remedy"),
    [
        (errno.EMFILE, "the system refused an operation", "allow more open files: ulimit -n 4096"),
        (errno.ENOENT, "the current folder no longer exists", "change to a folder that exists"),
    ],
)
def test_an_error_of_the_system_without_a_path_becomes_a_message(
    number: int, problem: str, remedy: str
) -> None:
    with pytest.raises(DistInitError) as raised, path_errors():
        raise OSError(number, "embellished")
    assert (raised.value.problem, raised.value.remedy) == (problem, remedy)
    assert "mbellished" not in str(raised.value)
