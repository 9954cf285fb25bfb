"""A web server on the loopback interface from which videos are downloaded."""

from __future__ import annotations

import hashlib
import http.server
import ssl
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest


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
    ranges: bool = False
    lengths: bool = True

    def url(self, path: str, query: str = "") -> str:
        return self.base + urllib.parse.quote(path) + (f"?{query}" if query else "")


def handler_of(folder: WebFolder) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            folder.gets[path] += body
            data = folder.files.get(path)
            waiting = folder.statuses.get(path, [])
            status = waiting.pop(0) if waiting and body else 200 if data is not None else 404
            requested = self.headers.get("Range") if folder.ranges and status == 200 else None
            start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
            self.send_response(206 if requested else status)
            if folder.tags and data is not None:
                self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
            data = data if data is not None and status == 200 else b""
            if requested:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            data = data[start:]
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
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web() -> Iterator[WebFolder]:
    yield from serve(WebFolder())
