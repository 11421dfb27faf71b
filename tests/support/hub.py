"""A small hub on the loopback that serves models and data sets at a commit to huggingface_hub and datasets.

It speaks the part of the hub's HTTP interface that these two libraries use: what a repository is at a revision, its
files, and the files themselves, whole or from a byte onwards. Faults are injected by the path that is asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/?]+)(?:/([^?]*))?")
_FILE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)")


@dataclass
class Fault:
    """The reply to matching requests.

    Attributes:
        path: A regular expression that the path of the request matches somewhere.
        status: The HTTP status, or None for the true answer.
        code: Value of X-Error-Code (`GatedRepo`, `RepoNotFound`, ...).
        cut: Bytes of the body after which the connection ends.
        times: How many requests it strikes.
        after: How many requests it lets pass before.
    """

    path: str
    status: int | None = None
    code: str = ""
    cut: int | None = None
    times: int = 1_000_000
    after: int = 0


@dataclass
class Hub:
    """The content of the hub, and the requests it received.

    Attributes:
        repositories: By kind and name: the commit, and the folder with the files.
        faults: Injected faults; the first that matches a request applies.
        asked: Method, path and first byte of every request, in order.
    """

    url: str = ""
    repositories: dict[tuple[str, str], tuple[str, Path]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def add(self, kind: str, name: str, commit: str, folder: Path) -> None:
        """Serve a folder as a repository (`models` or `datasets`) at a commit, which is `main` too."""
        self.repositories[kind, name] = commit, folder

    def fetched(self, name: str) -> set[str]:
        """Return the files of a repository that were sent."""
        found = (_FILE.match(path) for method, path, _ in self.asked if method == "GET")
        return {match[4] for match in found if match and match[2] == name}


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on the loopback within the block."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing, because tests read the command's stderr."""

    def do_GET(self) -> None:
        """Answer any request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(self.path)
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") or [0, 0])[1])
        self.hub.asked.append((self.command, path, start))
        fault = next((fault for fault in self.hub.faults if fault.times and re.search(fault.path, path)), Fault(""))
        if fault.after:
            fault.after -= 1
            fault = Fault("")
        if fault.path and not (fault.cut is not None and self.command == "HEAD"):
            fault.times -= 1
        if fault.status is not None:
            self._send(fault.status, b"", {"X-Error-Code": fault.code, "X-Error-Message": "injected"})
        elif match := _API.match(path):
            self._api(*match.groups(), body.decode())
        elif match := _FILE.match(path):
            self._file(match[1] or "models", match[2], match[3], match[4], start, fault.cut)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _repository(self, kind: str, name: str, revision: str) -> tuple[str, Path] | None:
        known = self.hub.repositories.get((kind, name))
        if known is None:  # the hub does not say whether a repository is private or not there
            self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in {known[0], "main"}:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            return known
        return None

    def _api(self, kind: str, name: str, what: str, revision: str, below: str | None, body: str) -> None:
        known = self._repository(kind, name, revision)
        if known is None:
            return
        commit, folder = known
        if what == "revision":
            files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
            answer: Any = {"id": name, "sha": commit, "private": False, "gated": False, "disabled": False, "tags": [],
                           "downloads": 0, "likes": 0, "siblings": [{"rfilename": file} for file in files]}  # fmt: skip
        elif what == "tree":
            top = folder / (below or "")
            deep = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("recursive") in (
                ["true"],
                ["True"],
                ["1"],
            )
            answer = [_entry(path, folder) for path in sorted(top.rglob("*") if deep else top.glob("*"))]
            if not top.is_dir():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            asked = json.loads(body)["paths"] if body.startswith("{") else urllib.parse.parse_qs(body)["paths"]
            answer = [_entry(folder / path, folder) for path in asked if (folder / path).exists()]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, kind: str, name: str, revision: str, file: str, start: int, cut: int | None) -> None:
        known = self._repository(kind, name, revision)
        if known is None:
            return
        commit, folder = known
        if not (folder / file).is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        data = (folder / file).read_bytes()
        digest = hashlib.sha256 if file.endswith(".safetensors") else hashlib.sha1  # of large files and of others
        headers = {"ETag": f'"{digest(data).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], headers, cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    where = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": where, "oid": "0" * 40, "size": 0}
    data = path.read_bytes()
    return {"type": "file", "path": where, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}  # noqa: S324
