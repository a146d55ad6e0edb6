"""A hub on this machine that serves a folder as one repository at one commit, and can be made to fail."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What it serves and how; change the fields between requests."""

    folder: Path
    repo: str = "someone/model"
    refuse: tuple[int, dict[str, str]] | None = None
    """Status and headers of every answer for a file."""
    cut: str | None = None
    """A file whose connection breaks in the middle."""
    asked: list[str] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """The few addresses that downloads use."""

    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        tree, files = (
            f"/api/models/{self.hub.repo}/tree/{COMMIT}",
            f"/{self.hub.repo}/resolve/{COMMIT}/",
        )
        if path.startswith("/api/") and path != tree:
            self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif path == tree:
            self.reply(200, {"Content-Type": "application/json"}, json.dumps(self.listing()))
        elif self.hub.refuse is not None:
            self.reply(*self.hub.refuse)
        elif path.startswith(files) and (self.hub.folder / path.removeprefix(files)).is_file():
            self.send_file(path.removeprefix(files), body=body)
        else:
            self.reply(404, {"X-Error-Code": "EntryNotFound"})

    def listing(self) -> list[dict[str, object]]:
        files = (file for file in self.hub.folder.rglob("*") if file.is_file())
        return [
            {
                "type": "file",
                "path": str(file.relative_to(self.hub.folder)),
                "size": file.stat().st_size,
                "oid": etag(file),
            }
            for file in sorted(files)
        ]

    def send_file(self, name: str, *, body: bool) -> None:
        file = self.hub.folder / name
        content, start = file.read_bytes(), 0
        if (asked := self.headers.get("Range")) is not None and body:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            part = content[start:]
            self.wfile.write(part[: len(part) // 2] if self.hub.cut == name else part)
        self.close_connection = True

    def reply(self, status: int, headers: dict[str, str], text: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text.encode())


def etag(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    """The hub, for as long as the block runs."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def connected(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, where this process looks for huggingface.co; downloads are kept in `cache`."""
    with serving(folder) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's attempts
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub
