"""A hub on this machine: serves the files of one repository as huggingface.co does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Server(ThreadingHTTPServer):
    """Knows the repository's name, its files, and which of them were downloaded."""

    def __init__(self, name: str, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.files, self.fetched = name, files, list[str]()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        if path.startswith(f"/api/models/{hub.name}"):
            self._send(json.dumps(self._api(path)).encode(), body)
        elif not path.startswith(f"/{hub.name}/resolve/"):
            self._missing("RepoNotFound")
        elif (file := path.split("/", 5)[5]) not in hub.files:
            self._missing("EntryNotFound")
        else:
            hub.fetched.extend([file] * body)
            self._send(hub.files[file], body)

    def _api(self, path: str) -> object:
        files = self.server.files
        if "/tree/" in path:
            return [
                {"type": "file", "path": file, "size": len(content), "oid": _git(content)}
                for file, content in files.items()
            ]
        name = self.server.name
        return {
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "gated": False,
            "siblings": [{"rfilename": file} for file in files],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_git(content)}"')
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _git(content: bytes) -> str:
    """The hash by which git, and so the hub, names a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub(name: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve repository ``name``; gives the address and the list of files that were downloaded."""
    server = _Server(name, files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.fetched
    finally:
        server.shutdown()
        server.server_close()
