"""A tiny Hugging Face hub on the loopback interface: one dataset repository, without old files."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

REPO = "team/caches"


@dataclass
class Hub:
    """The files of the repository, the size of each commit, and the tokens that were sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    @property
    def head(self) -> str:
        """The id of the last commit."""
        return f"{len(self.commits):040x}"


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if REPO in self.path:
            self.hub.tokens.add(self.headers.get("Authorization", ""))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        api, raw = f"/api/datasets/{REPO}/", f"/datasets/{REPO}/resolve/"
        if path.startswith(f"{api}revision/"):
            self.answer(
                {"id": REPO, "sha": self.hub.head, "private": False, "tags": [], "siblings": []}
            )
        elif path.startswith(f"{api}tree/"):
            self.answer([_entry(name, data) for name, data in self.hub.files.items()])
        elif path.startswith(raw) and path.removeprefix(raw).split("/", 1)[1] in self.hub.files:
            self.file(self.hub.files[path.removeprefix(raw).split("/", 1)[1]])
        else:
            kind = "EntryNotFound" if path.startswith(raw) else "RepoNotFound"
            self.send_response(404)
            self.send_header("X-Error-Code", kind)
            self.body(b"")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = json.loads(data)["files"]
            self.answer(
                {"files": [{**f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
            return
        names: list[str] = []
        header = json.loads(data.splitlines()[0])["value"]
        if header.get("parentCommit", self.hub.head) != self.hub.head:
            self.send_response(412)
            self.body(b"")
            return
        for line in data.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del self.hub.files[value["path"]]
            names += [value["path"]] if "path" in value else []
        self.hub.commits.append(names)
        host = self.headers["Host"]
        url = f"http://{host}/datasets/{REPO}/commit/{self.hub.head}"
        self.answer({"success": True, "commitOid": self.hub.head, "commitUrl": url})

    def file(self, data: bytes) -> None:
        requested = self.headers.get("Range")
        start, end = 0, len(data)
        if requested:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(data)
        self.send_response(206 if requested else 200)
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.head)
        self.body(data[start:end])

    def answer(self, value: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.body(json.dumps(value).encode())

    def body(self, data: bytes) -> None:
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _entry(name: str, data: bytes) -> dict[str, object]:
    """A file in the list of the repository; shards count as large, of which the sha256 is known."""
    entry: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": hashlib.sha1(data).hexdigest(),
    }
    if name.endswith("/0"):
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 100}
    return entry


@contextmanager
def small_hub() -> Iterator[Hub]:
    """The hub, to which ``hf://`` addresses lead while the body runs."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("HF_TOKEN", "hf_secret")
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
