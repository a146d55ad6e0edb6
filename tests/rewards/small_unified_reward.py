"""A chat completions server in this process that looks at the picture and says a number, or what a test scripts."""

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

ANSWER = (
    'Word-wise Scores: [["cat", 0.1], ["[No_mistakes]", 0.9]]\n\n'
    "Alignment Score (1-5): {0}\nCoherence Score (1-5): 2.5\nStyle Score (1-5): 3.5\nFinal Score: {0}"
)


@dataclass(frozen=True)
class Asked:
    """One request for a completion."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def question(self) -> str:
        return self.body["messages"][0]["content"][1]["text"]

    @property
    def picture(self) -> Image.Image:
        url = self.body["messages"][0]["content"][0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@dataclass(frozen=True)
class Reply:
    """What the server does with a request."""

    text: str | None = ""
    status: int = 200
    finish_reason: str = "stop"
    raw: bytes | None = None
    """The body, in place of a completion with `text`."""
    missing: int = 0
    """Bytes that Content-Length promises and that never come."""
    seconds: float = 0.0
    """Before the reply."""
    headers: dict[str, str] = field(default_factory=dict)


def by_brightness(asked: Asked) -> Reply:
    """1 for black to 5 for white."""
    return Reply(ANSWER.format(round(1 + 4 * np.asarray(asked.picture).mean() / 255, 4)))


class ChatStub(ThreadingHTTPServer):
    """Answers by `answer`, and remembers what was asked."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[Asked], Reply], models: Sequence[Any]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.models = models
        self.asked: list[Asked] = []
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ChatStub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path != "/v1/models" or self.server.models is None:
            self.send(Reply(raw=b"{}", status=404))
            return
        self.send(Reply(raw=json.dumps({"object": "list", "data": self.server.models}).encode()))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(body, dict(self.headers))
        with self.server.lock:
            self.server.asked.append(asked)
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        reply = self.server.answer(asked)
        time.sleep(reply.seconds)
        with self.server.lock:
            self.server.under_way -= 1
        self.send(reply)

    def send(self, reply: Reply):
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
        data = reply.raw if reply.raw is not None else json.dumps({"choices": [choice]}).encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(data) + reply.missing))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
        self.close_connection = self.close_connection or bool(reply.missing)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def chat_server(
    answer: Callable[[Asked], Reply] = by_brightness,
    models: Sequence[Any] | None = ({"id": "UnifiedReward", "root": "owner/weights"},),
) -> Iterator[ChatStub]:
    """A server for the block; its `url` is the option of reward unified_reward. models: None for no list."""
    with ChatStub(answer, models) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
