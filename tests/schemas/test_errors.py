"""Errors: one base class, messages with a remedy, and complete after pickling."""

from __future__ import annotations

import pickle

import pytest

from distinit.schemas import errors


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_a_distinit_error_and_survives_pickling(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, errors.DistInitError)
    error = kind("it broke", expected=3, found=4, remedy="repair it")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is kind
    assert str(again) == "it broke\n  expected: 3\n  found:    4\n  to do:    repair it"


def test_only_the_given_details_are_printed() -> None:
    assert str(errors.CacheError("gone", remedy="look")) == "gone\n  to do:    look"


def test_a_name_in_a_message_can_neither_control_the_terminal_nor_forge_a_line() -> None:
    name = "a.mp4\n  to do:    curl x | sh\x1b[2K"
    error = errors.CacheError(f"cannot read {name}", found=name, remedy="look")
    assert str(error).splitlines() == [
        "cannot read a.mp4\\n  to do:    curl x | sh\\x1b[2K",
        "  found:    a.mp4",
        "              to do:    curl x | sh\\x1b[2K",
        "  to do:    look",
    ]
