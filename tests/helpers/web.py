"""A web server on the loopback interface that serves files, and makes faults."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import ssl
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class WebFolder:
    """The files of the server by path, the faults it will make, and counts of its requests."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)  # of the next responses
    torn: Counter[str] = field(default_factory=Counter)  # number of responses to cut in half
    gets: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)  # bytes of response bodies
    tags: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)  # paths whose content never ends
    drips: set[str] = field(default_factory=set)  # one byte each 10 ms, without an end
    slow: dict[str, bytes] = field(default_factory=dict)  # sent once ``released`` is set
    released: threading.Event = field(default_factory=threading.Event)
    ranges: bool = False
    lengths: bool = True

    def add(self, root: Path, below: str = "") -> None:
        """Serve all files in the folder ``root``, below the path ``below``."""
        for path in root.rglob("*"):
            if path.is_file():
                name = f"{below}/{path.relative_to(root).as_posix()}"
                self.files[name] = path.read_bytes()

    def url(self, path: str, query: str = "") -> str:
        return self.base + urllib.parse.quote(path) + (f"?{query}" if query else "")


def span(header: str) -> tuple[int, int | None]:
    """The first byte and the one after the last, of ``bytes=10-19`` or ``bytes=10-``."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    return int(first), int(last) + 1 if last else None


def handler_of(folder: WebFolder) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            folder.gets[path] += body
            if path in folder.redirects:
                self.send_response(302)
                self.send_header("Location", folder.redirects[path])
                self.end_headers()
                return
            if path in folder.endless | folder.drips:
                self.never_end(drips=path in folder.drips)
                return
            if path in folder.slow and body:
                folder.released.wait(120)
            data = folder.slow.get(path, folder.files.get(path))
            waiting = folder.statuses.get(path, [])
            status = waiting.pop(0) if waiting and body else 200 if data is not None else 404
            requested = self.headers.get("Range") if folder.ranges and status == 200 else None
            start, end = span(requested) if requested else (0, None)
            self.send_response(206 if requested else status)
            if folder.tags and data is not None:
                self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
            data = data if data is not None and status == 200 else b""
            if requested:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            data = data[start:end]
            if folder.lengths:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                if status == 200 and folder.torn[path] > 0:
                    folder.torn[path] -= 1
                    data = data[: len(data) // 2]
                folder.sent[path] += len(data)
                self.wfile.write(data)
            self.close_connection = True

        def never_end(self, drips: bool) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 if drips else 1 << 20))
                    if drips:
                        time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serve(folder: WebFolder, tls: ssl.SSLContext | None = None) -> Iterator[WebFolder]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(folder))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    folder.base = f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}"
    try:
        yield folder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
