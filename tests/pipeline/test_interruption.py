"""SIGINT and SIGTERM: at once, or as a request."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from distinit.pipeline.interruption import (
    Interrupted,
    StopRequest,
    sigterm_interrupts,
    stop_on_signals,
)
from distinit.schemas.exit_codes import ExitCode

HANDLERS = signal.SIGINT, signal.SIGTERM


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in HANDLERS]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_sigterm_raises_interrupted_and_the_handler_is_restored() -> None:
    before = handlers()
    with pytest.raises(Interrupted) as caught, sigterm_interrupts():
        send(signal.SIGTERM)
    assert (caught.value.exit_code, caught.value.message) == (ExitCode.TERMINATED, None)
    assert handlers() == before


def test_sigterm_is_remembered_if_a_library_replaces_the_exception() -> None:
    def library() -> None:
        try:
            send(signal.SIGTERM)
        except BaseException:
            raise KeyboardInterrupt from None

    with pytest.raises(Interrupted) as caught, sigterm_interrupts():
        library()
    assert caught.value.exit_code == ExitCode.TERMINATED
    with pytest.raises(KeyboardInterrupt) as other, sigterm_interrupts():
        send(signal.SIGINT)
    assert not isinstance(other.value, Interrupted)


@pytest.mark.parametrize("number", HANDLERS)
def test_the_first_signal_is_a_request_and_the_second_ends_the_work(number: int) -> None:
    before, messages = handlers(), []
    said = threading.Event()

    def message(text: str) -> None:
        messages.append(text)
        said.set()

    with stop_on_signals(message, "stopping") as stop:
        assert not stop.is_set()
        send(number)
        assert (stop.is_set(), stop.signal_number) == (True, number)
        assert said.wait(60)
        with pytest.raises(Interrupted) as caught:
            send(number)
    assert caught.value.exit_code == 128 + number
    assert messages == ["stopping"]
    assert handlers() == before


def test_a_signal_ends_work_at_once_where_nothing_is_lost() -> None:
    with stop_on_signals(print, "") as stop:
        with pytest.raises(Interrupted) as caught, stop.at_once("all is kept"):
            send(signal.SIGINT)
        assert (caught.value.message, stop.is_set()) == ("all is kept", False)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signals(print, "") as stop:
            send(signal.SIGINT)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_can_ask_but_gets_no_signals() -> None:
    found: list[StopRequest] = []

    def work() -> None:
        with stop_on_signals(print, "") as stop:
            found.append(stop)

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    found[0].ask()
    assert found[0].is_set()
    assert found[0].signal_number is None
    assert handlers() == before


@pytest.fixture
def restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in HANDLERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("number", HANDLERS)
def test_after_the_first_signal_of_a_launcher_all_others_are_ignored(number: int) -> None:
    with stop_on_signals(lambda _: None, "", once=True) as stop:
        send(number)
        assert stop.signal_number == number
        send(number)
    assert handlers() == [signal.SIG_IGN, signal.SIG_IGN]


@pytest.mark.usefixtures("restored")
def test_a_second_sigterm_of_a_launcher_does_not_disturb_the_clean_up() -> None:
    cleaned = []

    def work() -> None:
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(Interrupted), sigterm_interrupts(once=True):
        work()
    assert cleaned == [True]
