"""Ends work on SIGINT (Ctrl-C) and SIGTERM (Slurm, ``kill``): at once, or at the next good moment.

Python turns SIGINT into a KeyboardInterrupt, but SIGTERM ends the process without any clean-up.
Here both end it in the same way, with the exit codes 130 and 143. Signal handlers can only be set
in the main thread: in any other thread nothing here has an effect.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from distinit.schemas.exit_codes import ExitCode

__all__ = ["Interrupted", "StopRequest", "sigterm_interrupts", "stop_on_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
type _Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM ended the work. Code that cleans up after Ctrl-C handles it as well."""

    def __init__(self, signal_number: int, message: str | None = None) -> None:
        """``message``: what is kept, for the terminal; None if the command has to say it."""
        super().__init__(signal_number, message)
        self.signal_number = signal_number
        self.message = message

    @property
    def exit_code(self) -> ExitCode:
        """130 for SIGINT, 143 for SIGTERM."""
        is_sigterm = self.signal_number == signal.SIGTERM
        return ExitCode.TERMINATED if is_sigterm else ExitCode.INTERRUPTED


class StopRequest:
    """Whether work was asked to stop at the next moment at which nothing is lost."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._event = threading.Event()
        self._at_once: str | None = None

    def ask(self) -> None:
        """Ask the work to stop. May be called from any thread."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether the work was asked to stop."""
        return self._event.is_set()

    @contextmanager
    def at_once(self, message: str) -> Iterator[None]:
        """While the body runs, in the main thread, nothing can be lost: a signal ends it at once.

        It then raises Interrupted with ``message``.
        """
        self._at_once = message
        try:
            yield
        finally:
            self._at_once = None

    def receive(self, signal_number: int) -> None:
        """Handle a signal. The first signal asks the work to stop.

        Raises Interrupted for the second signal, and in the body of ``at_once``.
        """
        if self._at_once is not None or self.signal_number is not None:
            raise Interrupted(signal_number, self._at_once)
        self.signal_number = signal_number
        self.ask()


@contextmanager
def sigterm_interrupts(*, once: bool = False) -> Iterator[None]:
    """While the body runs, SIGTERM raises Interrupted, as SIGINT raises KeyboardInterrupt.

    ``once``: the first SIGTERM is the last: later signals are ignored until the process ends.
    """
    received = False

    def interrupt(signal_number: int, _: FrameType | None) -> None:
        nonlocal received
        received = True
        if once:
            _ignore_signals()
        raise Interrupted(signal_number)

    with _handling(interrupt, (signal.SIGTERM,)):
        try:
            yield
        except KeyboardInterrupt as error:
            # Ray raises a KeyboardInterrupt of its own for whatever ends its calls.
            if received and not isinstance(error, Interrupted):
                raise Interrupted(signal.SIGTERM) from error
            raise


@contextmanager
def stop_on_signals(
    message: Callable[[str], None], text: str, *, once: bool = False
) -> Iterator[StopRequest]:
    """Yield a StopRequest that the first SIGINT or SIGTERM sets; the second raises Interrupted.

    ``message`` is called with ``text`` when the request is set. ``once``: later signals are ignored
    until the process ends; for launchers that may pass a signal on to a process that already has
    it, and that kill what does not end.
    """
    stop = StopRequest()

    def receive(signal_number: int, _: FrameType | None) -> None:
        if once:
            _ignore_signals()
        stop.receive(signal_number)
        # In a thread: this one may be in the middle of printing, and hold the lock of the stream.
        threading.Thread(target=message, args=(text,), daemon=True).start()

    with _handling(receive, _SIGNALS):
        yield stop


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _handling(handler: _Handler, signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Use ``handler`` for these signals, unless they are ignored (``nohup``).

    Afterwards the earlier handlers are restored, unless ``handler`` has let signals be ignored.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in signals}
        before = {n: old for n, old in found.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, old)
